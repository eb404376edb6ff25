//! Whole files: what is said of broken ones, and that the files of the repository are true.

mod broken;
mod facades;
mod fuzz;
mod hooks;
mod meaning;
mod reference;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::*;
use crate::clock;
use crate::mesh::Authority;

/// The smallest file that can be used.
const SMALL: &str = "\
[[listener]]
address = \"127.0.0.1:8080\"

[[origin]]
name = \"main\"
servers = [\"http://127.0.0.1:3000\"]

[[site]]
name = \"main\"
hosts = [\"*\"]
";

/// Loads a text as if it were `atoll.toml` in the folder of test certificates.
fn load_text(text: &str) -> Result<Loaded, Problems> {
    load_with_flags(text, &Flags::default())
}

fn load_with_flags(text: &str, flags: &Flags) -> Result<Loaded, Problems> {
    load::load_with(text, &folder().join("atoll.toml"), flags)
}

/// What is said of a text, with the folder left out of it.
fn said(text: &str) -> String {
    let problems = match load_text(text) {
        Ok(loaded) => loaded.warnings,
        Err(problems) => problems,
    };
    problems.render(false).replace(&format!("{}/", folder().display()), "")
}

/// A folder with certificates, made once for all tests of this process.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = std::env::temp_dir().join(format!("atoll-config-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("a folder for test files");
        let write = |name: &str, text: &str| {
            std::fs::write(folder.join(name), text).expect("a test file");
        };
        certificates(&write);
        mesh_certificates(&folder);
        write("empty.pem", "");
        write("admin.token", "atoll_0123456789abcdef\n");
        write("short.token", "abc\n");
        folder
    })
}

fn certificates(write: &dyn Fn(&str, &str)) {
    let pem = |kind: &str, der: &[u8]| {
        let mut out = format!("-----BEGIN {kind}-----\n");
        for line in base64(der).as_bytes().chunks(64) {
            out.push_str(std::str::from_utf8(line).expect("ASCII"));
            out.push('\n');
        }
        out + &format!("-----END {kind}-----\n")
    };
    for (name, hosts, until) in [
        ("example", vec!["example.org", "*.example.org"], 2100),
        ("other", vec!["other.example"], 2100),
        ("old", vec!["example.org"], 2001),
    ] {
        let hosts: Vec<String> = hosts.into_iter().map(str::to_owned).collect();
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(hosts).expect("names");
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let certificate = params.self_signed(&key).expect("a certificate");
        write(&format!("{name}.pem"), &pem("CERTIFICATE", certificate.der()));
        write(&format!("{name}.key"), &pem("PRIVATE KEY", &key.serialize_der()));
    }
}

/// An authority, and the certificate of a node `edge-1`.
fn mesh_certificates(folder: &Path) {
    let now = clock::now();
    let authority = Authority::new(now).expect("an authority");
    let issued = authority.issue("edge-1", "local", 365, now).expect("a certificate");
    authority.save(folder).expect("a test file");
    issued.save(folder, "edge-1").expect("a test file");
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_usize, |word, byte| word << 8 | usize::from(*byte))
            << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let digit = DIGITS[word >> (18 - 6 * i) & 63];
            out.push(if i <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    out
}
