//! What HTTP messages mean to a shared cache (RFC 9110, 9111): pure decisions over values.
//!
//! No socket, no clock, no lock, no dice: `now` and draws are arguments.

mod again;
mod cache_control;
mod cache_status;
pub mod check;
mod coding;
mod conditional;
mod date;
mod decide;
#[cfg(test)]
mod differential;
mod explain;
mod freshness;
mod invalidation;
mod key;
mod keyed;
mod mark;
mod no_vary_search;
mod normalise;
mod partial;
mod policy;
#[cfg(test)]
mod properties;
mod range;
mod reason;
mod rules;
mod segment;
mod selecting;
mod shape;
mod status_lifetime;
mod storable;
mod tags;
#[cfg(test)]
pub(crate) mod test_support;
mod trust;
mod vary;

use cache_status::sfv_string;

pub use again::{RetryOn, is_idempotent};
pub use cache_control::RequestDirectives;
pub use cache_status::{CacheStatus, Forward, Outcome, ttl};
pub use coding::{
    Coding, Compression, Known, Negotiation, Print, TypePattern, add_vary, coded_fields,
    conditions_of_origin, may_be_coded, negotiate, relayed,
};
pub use conditional::{
    HeadVerdict, asked_conditions, conditions, confirms, freshened, judge_head, unconditional,
};
pub use decide::{
    Decision, Verdict, concerns, decide, decide_why, early_refresh_chance, lookup_allowed,
    may_serve_on_error, passes,
};
pub use explain::{Content, Explanation, Facts, Section, Value};
pub use freshness::{FreshnessSource, Terms};
pub use invalidation::{is_unsafe, named_targets, represents_target, tells_of_change};
pub use key::{CacheKey, KeySecret, affinity};
pub use keyed::{
    Keep, KeyPolicy, Names, QueryKey, apply_key_policy, judge_key_header, key_fields, stored_target,
};
pub use mark::Mark;
pub use no_vary_search::{NO_VARY_SEARCH, NoVarySearch};
pub use normalise::{Asks, Request, Target, canonical_authority, canonical_target, normalise};
pub use partial::{
    Combined, ContentRange, Cut, Extent, From206, Gap, MOST_PIECES, StrongValidator, shape_excerpt,
    shape_part,
};
pub use policy::{Policy, REGISTERED_METHODS, WithoutLease};
pub use reason::Reason;
pub use rules::{
    Access, Believed, Edit, ErrorPages, FieldEdits, ForwardedFields, Hops, Misled, Networks, Page,
    PageFor, Rate, RateLimit, Redirect, Redirects, Rewrite, Rules, TICK_NANOS, ToldBy, believe,
    judge_request_edit, judge_response_edit, plain_reading, ticks, write_forwarded,
};
pub use segment::{
    Continuation, Grid, LARGEST_SEGMENT, LEAST_SEGMENT, Opening, Segments, Slice, Span,
    continuation, make_whole, opening, precondition,
};
pub use selecting::{readable, selecting_values};
pub use shape::{Part, Shape, asks_plainly, is_plain, shape, stored_fields};
pub use status_lifetime::StatusLifetimes;
pub use storable::{NotStored, storable, strip_set_cookie};
pub use tags::{TAG_FIELDS, TagLimits, first_tags, invalidated_groups, tags};
pub use trust::Trust;
pub use vary::VaryFields;
