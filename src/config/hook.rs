//! Hooks: whose events purge what, and how they prove where they come from.

use std::fmt;

use http::HeaderName;

use crate::hooks::Mapping;

/// A door for the events of one system.
#[derive(Clone, Debug)]
pub struct Hook {
    /// Last segment of its path; its purges bear it as their author.
    pub name: String,
    /// The site that its events purge in.
    pub site: String,
    /// How an event proves that it comes from who knows the secret.
    pub proof: Proof,
    /// What its events purge.
    pub on: Vec<Mapping>,
}

/// How an event proves where it comes from.
#[derive(Clone, Debug)]
pub struct Proof {
    /// Kind of the proof.
    pub kind: ProofKind,
    /// The field that bears it.
    pub header: HeaderName,
    /// What stands before it in the field.
    pub prefix: String,
    /// What both sides know.
    pub secret: Secret,
}

/// Kinds of proofs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProofKind {
    /// The field holds HMAC-SHA256 of the body under the secret.
    HmacSha256(Encoding),
    /// The field holds the secret.
    Shared,
}

/// How bytes stand in a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Hexadecimal digits.
    Hex,
    /// Base64 with padding (RFC 4648 section 4).
    Base64,
}

/// What must not be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<[u8]>);

impl Secret {
    /// Keeps bytes from being printed.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Secret")
    }
}
