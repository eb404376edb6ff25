//! Stories of a whole edge over sockets: an origin that plays a script, an edge in this process,
//! clients that read strictly. One file per behaviour.

#[cfg(test)]
mod admin;
#[cfg(test)]
mod audit;
#[cfg(test)]
mod balancing;
#[cfg(test)]
mod caching;
#[cfg(test)]
mod canary;
#[cfg(test)]
mod cases;
#[cfg(test)]
mod codings;
#[cfg(test)]
mod collapse;
#[cfg(test)]
mod completing;
#[cfg(test)]
mod down;
#[cfg(test)]
mod drain;
#[cfg(test)]
mod events;
#[cfg(test)]
mod explain;
#[cfg(test)]
mod facades;
#[cfg(test)]
mod failover;
#[cfg(test)]
mod grpc;
#[cfg(test)]
mod h2;
#[cfg(test)]
mod h2_origins;
#[cfg(test)]
mod hooks;
#[cfg(test)]
mod inspect;
#[cfg(test)]
mod invalidation;
#[cfg(test)]
mod isolation;
#[cfg(test)]
mod keys;
#[cfg(test)]
mod large;
#[cfg(test)]
mod lease;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod mesh;
#[cfg(test)]
mod names;
#[cfg(test)]
mod no_vary_search;
#[cfg(test)]
mod partial;
#[cfg(test)]
mod passing;
#[cfg(test)]
mod proxy_protocol;
#[cfg(test)]
mod purge;
#[cfg(test)]
mod purge_selectors;
#[cfg(test)]
mod range;
#[cfg(test)]
mod receipts;
#[cfg(test)]
mod refetch;
#[cfg(test)]
mod reload;
#[cfg(test)]
mod revalidation;
#[cfg(test)]
mod rules;
#[cfg(test)]
mod scan;
#[cfg(test)]
mod segments;
#[cfg(test)]
mod stale;
#[cfg(test)]
mod support;
#[cfg(test)]
mod tickets;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod tunnels;
#[cfg(test)]
mod tunnels_h2;
#[cfg(test)]
mod upgrade;
#[cfg(test)]
mod variants;
#[cfg(test)]
mod warm;
