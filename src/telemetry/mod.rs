//! Measures: metrics that are handed in as fields, the access log, the process log.

mod access_log;

pub use access_log::Record;
