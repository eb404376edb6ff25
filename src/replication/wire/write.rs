//! Values to bytes.

use std::time::Duration;

use crate::replication::identity::{Identity, Name, Source};
use crate::replication::quorum::{SetMark, Standing, Standings, Testimony, WitnessSet};
use crate::replication::record::{Record, Scope};
use crate::replication::retire::Step;
use crate::replication::vector::{Mark, Retired, Vector};

/// Bytes that grow.
#[derive(Debug, Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }

    pub(super) fn byte(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(super) fn bool(&mut self, value: bool) {
        self.byte(u8::from(value));
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.0.extend(value.to_be_bytes());
    }

    pub(super) fn u128(&mut self, value: u128) {
        self.0.extend(value.to_be_bytes());
    }

    pub(super) fn duration(&mut self, value: Duration) {
        self.u64(u64::try_from(value.as_micros()).unwrap_or(u64::MAX));
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.len(bytes.len());
        self.0.extend(bytes);
    }

    pub(super) fn list<T>(&mut self, list: &[T], write: impl Fn(&mut Self, &T)) {
        self.len(list.len());
        list.iter().for_each(|item| write(self, item));
    }

    pub(super) fn option<T>(&mut self, value: Option<&T>, write: impl Fn(&mut Self, &T)) {
        self.bool(value.is_some());
        value.into_iter().for_each(|value| write(self, value));
    }

    pub(super) fn name(&mut self, name: &Name) {
        self.bytes(name.as_str().as_bytes());
    }

    pub(super) fn source(&mut self, source: &Source) {
        self.u64(source.incarnation.0);
        self.name(&source.node);
    }

    pub(super) fn identity(&mut self, identity: &Identity) {
        self.source(&identity.source);
        self.u64(identity.sequence);
    }

    pub(super) fn mark(&mut self, mark: Mark) {
        self.u64(mark.sequence);
        self.u128(mark.chain);
    }

    pub(super) fn record(&mut self, record: &Record) {
        self.identity(&record.identity);
        self.u128(record.before);
        match &record.scope {
            Scope::All => self.byte(0),
            Scope::Site(site) => {
                self.byte(1);
                self.bytes(site.as_bytes());
            }
        }
        self.bool(record.receipt);
        self.bytes(&record.payload);
    }

    pub(super) fn standing(&mut self, standing: Standing) {
        self.u64(standing.count);
        self.u64(standing.incarnation.0);
    }

    pub(super) fn testimony(&mut self, testimony: &Testimony) {
        self.set_mark(testimony.set);
        self.u64(testimony.generation);
        self.standing(testimony.standing);
        self.standings(&testimony.known);
    }

    pub(super) fn standings(&mut self, known: &Standings) {
        self.len(known.len());
        for (name, standing) in known {
            self.name(name);
            self.standing(*standing);
        }
    }

    pub(super) fn vector(&mut self, vector: &Vector) {
        self.retired(vector.retired());
        self.len(vector.len());
        for (source, mark) in vector.marks() {
            self.source(source);
            self.mark(*mark);
        }
    }

    pub(super) fn step(&mut self, step: &Step) {
        self.retired(step.from);
        self.retired(step.to);
        self.list(&step.ended, |to, (source, mark)| {
            to.source(source);
            to.mark(*mark);
        });
    }

    pub(super) fn set_mark(&mut self, set: SetMark) {
        self.u64(set.number);
        self.u64(set.members);
    }

    pub(super) fn witnesses(&mut self, set: &WitnessSet) {
        self.u64(set.number);
        self.list(&set.members, Self::name);
        self.option(set.joining.as_ref(), |to, joining| to.list(joining, Self::name));
    }

    fn retired(&mut self, retired: Retired) {
        self.u64(retired.count);
        self.u64(retired.draw);
    }

    /// Lengths have three bytes: no frame is longer.
    fn len(&mut self, len: usize) {
        let len = u32::try_from(len).unwrap_or(u32::MAX).min(0xff_ffff);
        self.0.extend(len.to_be_bytes().iter().skip(1));
    }
}
