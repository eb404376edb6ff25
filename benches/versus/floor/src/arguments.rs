//! `--name value` pairs.

use std::collections::BTreeMap;
use std::str::FromStr;

use crate::Failure;

/// What was written after the command.
pub struct Arguments(BTreeMap<String, String>);

impl Arguments {
    /// Reads pairs of a name with two dashes and a value.
    pub fn read(mut words: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let mut pairs = BTreeMap::new();
        while let Some(word) = words.next() {
            let name = word.strip_prefix("--").ok_or_else(|| format!("{word:?} is no --name"))?;
            let value = words.next().ok_or_else(|| format!("--{name} needs a value"))?;
            pairs.insert(name.to_owned(), value);
        }
        Ok(Self(pairs))
    }

    /// A value that must be there.
    pub fn need<T>(&self, name: &str) -> Result<T, Failure>
    where
        T: FromStr<Err: Into<Failure>>,
    {
        self.find(name)?.ok_or_else(|| format!("--{name} is missing").into())
    }

    /// A value, if it is there.
    pub fn find<T>(&self, name: &str) -> Result<Option<T>, Failure>
    where
        T: FromStr<Err: Into<Failure>>,
    {
        self.0.get(name).map(|text| text.parse().map_err(Into::into)).transpose()
    }

    /// A value, or what it is when nothing is said.
    pub fn or<T>(&self, name: &str, otherwise: T) -> Result<T, Failure>
    where
        T: FromStr<Err: Into<Failure>>,
    {
        Ok(self.find(name)?.unwrap_or(otherwise))
    }
}
