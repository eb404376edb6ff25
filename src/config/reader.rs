//! Reads tables of a TOML document key by key and collects everything that is wrong.
//!
//! A derived deserializer stops at its first error. Here each table is asked for its keys one by
//! one; a bad value is reported and its default stays; at the end, whatever was not asked for is an
//! unknown key. So the list of what is allowed is the list of what was asked, and cannot go stale.

mod values;

use std::cell::RefCell;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::error::{Problem, Problems, nearest, shown, similar};
use super::units::{format_duration, format_size};

pub(super) use values::{MaybeSize, MaybeTime, Number, Percent, Size};

/// Where problems go while a document is read.
pub(super) struct Sink {
    problems: RefCell<Problems>,
    /// Parts of the document could not be read: do not complain of what is missing.
    torn: bool,
    /// Every key that was asked for, as `table.key`, and whether it was there.
    #[cfg(test)]
    pub(super) asked: RefCell<std::collections::BTreeMap<String, bool>>,
}

/// Where a value stands.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    /// Its key with all tables, for messages: `site[0].hosts`, or a flag.
    pub(super) key: String,
    /// Its bytes in the text; `None` where it came from elsewhere.
    pub(super) span: Option<Range<usize>>,
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Found<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

/// A table whose keys are asked for one by one; [`Table::finish`] reports the others.
pub(super) struct Table<'r> {
    pub(super) sink: &'r Sink,
    /// As its header is written: `[limits]`, `[[site]]`.
    title: String,
    /// Prefix of its keys, for messages: `site[0].`.
    prefix: String,
    pub(super) place: Place,
    entries: Option<&'r DeTable<'r>>,
    known: Vec<&'static str>,
}

/// One value with its key.
pub(super) struct Entry<'r> {
    sink: &'r Sink,
    pub(super) place: Place,
    value: &'r DeValue<'r>,
}

/// A type that is read from one value.
pub(super) trait Read: Sized {
    /// Reads it, or reports why not.
    fn read(entry: &Entry<'_>) -> Option<Self>;
}

impl Sink {
    pub(super) fn new(problems: Problems, torn: bool) -> Self {
        Self {
            problems: RefCell::new(problems),
            torn,
            #[cfg(test)]
            asked: RefCell::default(),
        }
    }

    pub(super) fn push(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
    }

    /// Reports something missing, unless parts of the document are lost anyway.
    pub(super) fn missing(&self, problem: Problem) {
        if !self.torn {
            self.push(problem);
        }
    }

    /// Whether reading on would tell nothing more.
    pub(super) fn is_full(&self) -> bool {
        self.problems.borrow().is_full()
    }

    pub(super) fn into_problems(self) -> Problems {
        self.problems.into_inner()
    }
}

impl<T> Found<T> {
    /// A value that no line of the file gave.
    pub(super) fn elsewhere(value: T, key: &str) -> Self {
        Self { value, place: Place { key: key.to_owned(), span: None } }
    }
}

impl<'r> Table<'r> {
    /// The document itself.
    pub(super) fn root(sink: &'r Sink, document: &'r Spanned<DeTable<'r>>) -> Self {
        Self {
            sink,
            title: "the file".to_owned(),
            prefix: String::new(),
            place: Place::default(),
            entries: Some(document.get_ref()),
            known: Vec::new(),
        }
    }

    fn of(sink: &'r Sink, title: String, place: Place, entries: Option<&'r DeTable<'r>>) -> Self {
        let prefix = format!("{}.", place.key);
        Self { sink, title, prefix, place, entries, known: Vec::new() }
    }

    fn entry(&mut self, key: &'static str) -> Option<Entry<'r>> {
        self.known.push(key);
        let found = self.entries.and_then(|entries| entries.get(key));
        #[cfg(test)]
        self.note_asked(key, found.is_some());
        let value = found?;
        let place = Place { key: format!("{}{key}", self.prefix), span: Some(value.span()) };
        Some(Entry { sink: self.sink, place, value: value.get_ref() })
    }

    #[cfg(test)]
    fn note_asked(&self, key: &str, found: bool) {
        let mut general = String::new();
        for part in format!("{}{key}", self.prefix).split('[') {
            general.push_str(part.split_once(']').map_or(part, |(_, rest)| rest));
        }
        *self.sink.asked.borrow_mut().entry(general).or_default() |= found;
    }

    /// The value of `key`, where it is there and right.
    pub(super) fn optional<T: Read>(&mut self, key: &'static str) -> Option<Found<T>> {
        let entry = self.entry(key)?;
        let value = T::read(&entry)?;
        Some(Found { value, place: entry.place })
    }

    /// The value of a key that must be there; `example` shows what it looks like.
    pub(super) fn required<T: Read>(
        &mut self,
        key: &'static str,
        example: &str,
    ) -> Option<Found<T>> {
        self.demand(key, example);
        self.optional(key)
    }

    /// Reports that a key is not there.
    fn demand(&self, key: &str, example: &str) {
        if self.entries.is_some_and(|entries| !entries.contains_key(key)) {
            let problem = Problem::new(format!("{} needs the key `{key}`", self.title))
                .at(self.place.span.clone())
                .help(format!("for example: {key} = {example}"));
            self.sink.missing(problem);
        }
    }

    /// Replaces `into` by the value of `key`, where it is there and right.
    pub(super) fn set<T: Read>(&mut self, key: &'static str, into: &mut T) {
        if let Some(found) = self.optional(key) {
            *into = found.value;
        }
    }

    /// Like [`Table::optional`] for a text that `parse` reads; its error says what would be right.
    pub(super) fn optional_parsed<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Found<T>> {
        let entry = self.entry(key)?;
        let value = entry.parsed("a text in quotes", parse)?;
        Some(Found { value, place: entry.place })
    }

    /// Like [`Table::required`] for a text that `parse` reads.
    pub(super) fn required_parsed<T>(
        &mut self,
        key: &'static str,
        example: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Found<T>> {
        self.demand(key, example);
        self.optional_parsed(key, parse)
    }

    /// Like [`Table::set`] for a text that `parse` reads.
    pub(super) fn parse<T>(
        &mut self,
        key: &'static str,
        into: &mut T,
        parse: impl Fn(&str) -> Result<T, String>,
    ) {
        if let Some(found) = self.optional_parsed(key, parse) {
            *into = found.value;
        }
    }

    /// Like [`Table::set`] for one of a closed set of names.
    pub(super) fn choose<T: Copy>(&mut self, key: &'static str, names: &[(&str, T)], into: &mut T) {
        if let Some(value) = self.entry(key).and_then(|entry| entry.one_of(names)) {
            *into = value;
        }
    }

    /// Where the value of `key` stands, if it is written.
    pub(super) fn span_of(&self, key: &str) -> Option<Range<usize>> {
        self.entries?.get(key).map(Spanned::span)
    }

    /// Whether the list under `key` is written without a value in it.
    pub(super) fn array_is_empty(&self, key: &str) -> bool {
        let value = self.entries.and_then(|entries| entries.get(key));
        value.and_then(|value| value.get_ref().as_array()).is_some_and(|array| array.is_empty())
    }

    /// Like [`Table::set`] for a number within bounds.
    pub(super) fn count<T>(&mut self, key: &'static str, into: &mut T, range: RangeInclusive<u64>)
    where
        T: TryFrom<u64>,
    {
        self.bounded(key, into, range, |entry| Number::read(entry).map(|n| n.0), |n| n.to_string());
    }

    /// Like [`Table::count`] for a size in bytes.
    pub(super) fn size<T>(&mut self, key: &'static str, into: &mut T, range: RangeInclusive<u64>)
    where
        T: TryFrom<u64>,
    {
        self.bounded(key, into, range, |entry| Size::read(entry).map(|n| n.0), format_size);
    }

    /// Like [`Table::count`] for a share in percent, up to 100.
    pub(super) fn percent(
        &mut self,
        key: &'static str,
        into: &mut u32,
        range: RangeInclusive<u64>,
    ) {
        let read = |entry: &Entry<'_>| Percent::read(entry).map(|n| u64::from(n.0));
        self.bounded(key, into, range, read, |n| format!("{n}%"));
    }

    /// Like [`Table::count`] for a time, the bounds in milliseconds.
    pub(super) fn time(
        &mut self,
        key: &'static str,
        into: &mut Duration,
        range: RangeInclusive<u64>,
    ) {
        let mut millis = None;
        let read = |entry: &Entry<'_>| {
            Duration::read(entry).map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
        };
        let show = |millis| format_duration(Duration::from_millis(millis));
        self.bounded(key, &mut millis, range, read, show);
        if let Some(millis) = millis {
            *into = Duration::from_millis(millis);
        }
    }

    fn bounded<T: TryFrom<u64>>(
        &mut self,
        key: &'static str,
        into: &mut T,
        range: RangeInclusive<u64>,
        read: impl Fn(&Entry<'_>) -> Option<u64>,
        show: impl Fn(u64) -> String,
    ) {
        let Some(entry) = self.entry(key) else { return };
        let Some(number) = read(&entry) else { return };
        match T::try_from(number) {
            Ok(value) if range.contains(&number) => *into = value,
            _ => {
                let (least, most) = (show(*range.start()), show(*range.end()));
                let word = if number < *range.start() { "too small" } else { "too large" };
                let help = if *range.end() == u64::MAX {
                    format!("at least {least}")
                } else {
                    format!("from {least} to {most}")
                };
                entry.report(format!("`{}` is {word}", entry.place.key), word, help);
            }
        }
    }

    /// The table under `key`; an empty one where there is none.
    pub(super) fn table(&mut self, key: &'static str) -> Table<'r> {
        let title = format!("[{}{key}]", self.general_prefix());
        let Some(entry) = self.entry(key) else {
            let place = Place { key: format!("{}{key}", self.prefix), span: None };
            return Table::of(self.sink, title, place, None);
        };
        let entries = entry.value.as_table();
        if entries.is_none() {
            entry.wrong_type(&format!("a table: write {title} and its keys below"));
        }
        Table::of(self.sink, title, entry.place, entries)
    }

    /// Whether the table is written in the file.
    pub(super) fn is_there(&self) -> bool {
        self.entries.is_some()
    }

    /// The tables of a list `[[key]]`; `None` where there is no such list.
    pub(super) fn tables(&mut self, key: &'static str) -> Option<Vec<Table<'r>>> {
        let title = format!("[[{}{key}]]", self.general_prefix());
        let entry = self.entry(key)?;
        let expected = format!("a list of tables: write {title} and its keys below");
        let Some(array) = entry.value.as_array() else {
            entry.wrong_type(&expected);
            return Some(Vec::new());
        };
        let mut tables = Vec::new();
        for item in entry.items(array) {
            match item.value.as_table() {
                Some(entries) => {
                    tables.push(Table::of(self.sink, title.clone(), item.place, Some(entries)));
                }
                None => item.wrong_type(&expected),
            }
        }
        Some(tables)
    }

    /// `site.` for keys of `site[0].`.
    fn general_prefix(&self) -> String {
        self.prefix
            .split('.')
            .filter(|part| !part.is_empty())
            .fold(String::new(), |out, part| out + part.split('[').next().unwrap_or_default() + ".")
    }

    /// Reports every key that nobody asked for.
    pub(super) fn finish(self) {
        let Some(entries) = self.entries else { return };
        for (key, _) in entries.iter() {
            let name: &str = key.get_ref();
            if self.known.contains(&name) {
                continue;
            }
            if self.sink.is_full() {
                return;
            }
            let place = if self.prefix.is_empty() { "" } else { " in " };
            let title = if self.prefix.is_empty() { "" } else { self.title.as_str() };
            let mut problem = Problem::new(format!("unknown key {}{place}{title}", shown(name)))
                .at(Some(key.span()))
                .label("unknown key");
            if let Some(near) = nearest(name, self.known.iter().copied()) {
                problem = problem.help(format!("did you mean `{near}`?"));
            }
            self.sink.push(problem.help(self.allowed(name)));
        }
    }
}

impl Table<'_> {
    /// The keys that may stand here; of very many, those most like `wrong`.
    fn allowed(&self, wrong: &str) -> String {
        const MANY: usize = 30;
        const FEW: usize = 8;
        let what = if self.prefix.is_empty() { "tables" } else { "keys" };
        let mut known = self.known.clone();
        known.sort_unstable();
        if known.len() <= MANY {
            return format!("allowed {what}: {}", known.join(", "));
        }
        let near = similar(wrong, known.iter().copied());
        let near: Vec<&str> = near.into_iter().take(FEW).map(|(_, name)| name).collect();
        let rest = known.len() - near.len();
        let (near, title) = (near.join(", "), &self.title);
        format!("allowed keys: {near} and {rest} more (see {title} in config/reference.toml)")
    }
}

impl<'r> Entry<'r> {
    /// Reports that the value is not what it must be.
    pub(super) fn report(&self, message: impl Into<String>, label: &str, help: impl Into<String>) {
        let problem = Problem::new(message).at(self.place.span.clone()).label(label);
        self.sink.push(problem.help(help));
    }

    /// Reports a value of the right type that does not say what it must.
    fn invalid(&self, help: impl Into<String>) {
        self.report(format!("`{}` is not valid", self.place.key), "not valid", help);
    }

    /// Reports a value of another type than `expected`.
    fn wrong_type(&self, expected: &str) {
        let found = match self.value {
            DeValue::String(_) => "a text",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        let message = format!("`{}` has the wrong type", self.place.key);
        self.report(message, &format!("this is {found}"), format!("expected {expected}"));
    }

    fn items(&self, array: &'r [Spanned<DeValue<'r>>]) -> impl Iterator<Item = Entry<'r>> {
        array.iter().enumerate().map(|(i, item)| Entry {
            sink: self.sink,
            place: Place { key: format!("{}[{i}]", self.place.key), span: Some(item.span()) },
            value: item.get_ref(),
        })
    }

    fn text(&self, expected: &str) -> Option<&'r str> {
        let text = self.value.as_str();
        if text.is_none() {
            self.wrong_type(expected);
        }
        text
    }

    /// Reads a text by a parser whose error says what would be right.
    pub(super) fn parsed<T>(
        &self,
        expected: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        parse(self.text(expected)?).map_err(|help| self.invalid(help)).ok()
    }

    /// Whether the value is a text that ends in `%`.
    pub(super) fn is_percent(&self) -> bool {
        self.value.as_str().is_some_and(|text| text.ends_with('%'))
    }

    /// Whether the value is a whole number.
    pub(super) fn is_integer(&self) -> bool {
        self.value.is_integer()
    }

    /// Whether the value is a list.
    pub(super) fn is_list(&self) -> bool {
        self.value.is_array()
    }

    /// The value as a table of its own, such as `probe = { path = "/" }`.
    pub(super) fn as_table(&self, title: &str) -> Option<Table<'r>> {
        let entries = self.value.as_table()?;
        Some(Table::of(self.sink, title.to_owned(), self.place.clone(), Some(entries)))
    }

    /// Where problems with it go.
    pub(super) fn sink(&self) -> &'r Sink {
        self.sink
    }

    /// The value as a list; `expected` says what else it may be.
    pub(super) fn list<T: Read>(&self, expected: &str) -> Option<Vec<Found<T>>> {
        if !self.value.is_array() {
            self.wrong_type(expected);
            return None;
        }
        Read::read(self)
    }

    /// Whether the value is this text.
    pub(super) fn is_text(&self, text: &str) -> bool {
        self.value.as_str() == Some(text)
    }

    /// The keys and values of a table whose keys are names of the operator's choice.
    pub(super) fn pairs(&self, expected: &str) -> Option<Vec<(Found<&'r str>, Entry<'r>)>> {
        let Some(entries) = self.value.as_table() else {
            self.wrong_type(expected);
            return None;
        };
        let pair = |(name, value): (&'r Spanned<_>, &'r Spanned<DeValue<'r>>)| {
            let text: &'r str = DeString::as_ref(name.get_ref());
            let key = format!("{}.{text}", self.place.key);
            let name_place = Place { key: key.clone(), span: Some(name.span()) };
            let place = Place { key, span: Some(value.span()) };
            let entry = Entry { sink: self.sink, place, value: value.get_ref() };
            (Found { value: text, place: name_place }, entry)
        };
        Some(entries.iter().map(pair).collect())
    }

    /// One of a closed set of names.
    pub(super) fn one_of<T: Copy>(&self, names: &[(&str, T)]) -> Option<T> {
        let list = || {
            let names: Vec<String> = names.iter().map(|(name, _)| format!("\"{name}\"")).collect();
            names.join(", ")
        };
        let text = self.text(&format!("one of {}", list()))?;
        let found = names.iter().find(|(name, _)| *name == text);
        if found.is_none() {
            let mut problem =
                Problem::new(format!("`{}` cannot be {}", self.place.key, shown(text)))
                    .at(self.place.span.clone())
                    .label("not one of its names");
            if let Some(near) = nearest(text, names.iter().map(|(name, _)| *name)) {
                problem = problem.help(format!("did you mean \"{near}\"?"));
            }
            self.sink.push(problem.help(format!("allowed: {}", list())));
        }
        found.map(|(_, value)| *value)
    }
}
