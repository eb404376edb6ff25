//! The access log: one record a request, written off the request path.

use std::sync::Arc;

use super::metrics::Metrics;
use super::record::Record;
use super::trace::RequestId;
use crate::clock::Now;

/// Takes the records of one worker.
#[derive(Debug)]
pub struct Recorder {
    metrics: Arc<Metrics>,
}

impl Recorder {
    /// A record for a request whose head was complete at `now`.
    pub fn record(self: &Arc<Self>, request_id: RequestId, now: Now) -> Box<Record> {
        let mut record = Box::new(Record::blank(Some(Arc::clone(self))));
        record.request_id = request_id;
        record.started = now;
        record
    }

    pub(super) fn take(&self, record: Box<Record>) {
        if let Some(site) = record.site.and_then(|site| self.metrics.sites.get(site)) {
            site.ended(record.outcome, record.status, record.took, record.bytes_sent);
        }
        drop(record);
    }
}

/// Handle of the access log.
#[derive(Clone, Debug)]
pub struct AccessLog {
    metrics: Arc<Metrics>,
}

impl AccessLog {
    /// A recorder for one worker.
    #[must_use]
    pub fn recorder(&self) -> Arc<Recorder> {
        Arc::new(Recorder { metrics: Arc::clone(&self.metrics) })
    }
}
