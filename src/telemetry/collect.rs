//! Making metrics: each is registered where it is made, so none can be forgotten.
//!
//! Names and labels are constants of ours. A name that prometheus refuses, or one given twice, is
//! a mistake in this room that every start and every test would hit; hence the assertions.

use std::collections::HashMap;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{self, LabelPair, MetricFamily, MetricType};
use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use super::stripes::Counter;

/// What a failed registration means.
const SOUND: &str = "metric names are valid and unique";

/// A registry under construction.
pub(super) struct Shelf<'a>(pub(super) &'a Registry);

impl Shelf<'_> {
    /// Puts any collector on the shelf.
    pub(super) fn keep(&self, collector: impl Collector + 'static) {
        self.0.register(Box::new(collector)).expect(SOUND);
    }

    pub(super) fn counter(&self, name: &str, help: &str) -> IntCounter {
        let counter = IntCounter::new(name, help).expect(SOUND);
        self.keep(counter.clone());
        counter
    }

    pub(super) fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        let counters = IntCounterVec::new(Opts::new(name, help), labels).expect(SOUND);
        self.keep(counters.clone());
        counters
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> IntGauge {
        let gauge = IntGauge::new(name, help).expect(SOUND);
        self.keep(gauge.clone());
        gauge
    }

    pub(super) fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        let gauges = IntGaugeVec::new(Opts::new(name, help), labels).expect(SOUND);
        self.keep(gauges.clone());
        gauges
    }

    pub(super) fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        bounds: &[f64],
    ) -> HistogramVec {
        let options = HistogramOpts::new(name, help).buckets(bounds.to_vec());
        let histograms = HistogramVec::new(options, labels).expect(SOUND);
        self.keep(histograms.clone());
        histograms
    }

    /// Striped counters under one name, one for each value of `label`.
    pub(super) fn striped<const N: usize>(
        &self,
        name: &str,
        help: &str,
        label: &'static str,
        values: [&'static str; N],
    ) -> [Counter; N] {
        let counters = values.map(|_| Counter::new());
        let rows = values.into_iter().zip(counters.iter().cloned()).collect();
        self.keep(Striped { desc: describe(name, help, &[label]), label, rows });
        counters
    }
}

/// Description of a metric that is collected by own code.
pub(super) fn describe(name: &str, help: &str, labels: &[&str]) -> Desc {
    let labels = labels.iter().map(ToString::to_string).collect();
    Desc::new(name.to_owned(), help.to_owned(), labels, HashMap::new()).expect(SOUND)
}

/// All rows of one metric.
pub(super) fn family(desc: &Desc, kind: MetricType, rows: Vec<proto::Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(desc.fq_name.clone());
    family.set_help(desc.help.clone());
    family.set_field_type(kind);
    family.set_metric(rows);
    family
}

/// Labels of one row.
pub(super) fn labels(pairs: &[(&str, &str)]) -> Vec<LabelPair> {
    pairs
        .iter()
        .map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        })
        .collect()
}

/// One row of a counter. The text format has floating point; counts beyond 2^53 lose their units.
#[expect(clippy::cast_precision_loss, reason = "the exposition format is floating point")]
pub(super) fn count(pairs: &[(&str, &str)], value: u64) -> proto::Metric {
    let mut counter = proto::Counter::default();
    counter.set_value(value as f64);
    let mut row = proto::Metric::from_label(labels(pairs));
    row.set_counter(counter);
    row
}

/// One row of a gauge.
pub(super) fn level(pairs: &[(&str, &str)], value: f64) -> proto::Metric {
    let mut gauge = proto::Gauge::default();
    gauge.set_value(value);
    let mut row = proto::Metric::from_label(labels(pairs));
    row.set_gauge(gauge);
    row
}

/// Striped counters as a scrape sees them.
struct Striped {
    desc: Desc,
    label: &'static str,
    rows: Vec<(&'static str, Counter)>,
}

impl Collector for Striped {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let rows = self
            .rows
            .iter()
            .map(|(value, counter)| count(&[(self.label, value)], counter.get()))
            .collect();
        vec![family(&self.desc, MetricType::COUNTER, rows)]
    }
}
