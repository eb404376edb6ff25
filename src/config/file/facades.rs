//! `[facades]`, `[[facades.fastly]]` and `[[facades.cloudflare]]`.

use super::super::Facades;
use super::super::error::Problem;
use super::super::facades::parse_id;
use super::super::reader::{Found, Place, Table};

use ipnet::IpNet;

/// The facades as written.
pub(in crate::config) struct FacadesDraft {
    pub(in crate::config) place: Place,
    pub(in crate::config) purge_method: bool,
    pub(in crate::config) purge_networks: Vec<IpNet>,
    pub(in crate::config) fastly: Vec<ServiceDraft>,
    pub(in crate::config) cloudflare: Vec<ServiceDraft>,
}

/// A service or a zone as written.
pub(in crate::config) struct ServiceDraft {
    pub(in crate::config) id: Found<String>,
    pub(in crate::config) sites: Vec<Found<String>>,
}

impl FacadesDraft {
    /// Nothing written: all are off.
    pub(super) fn empty() -> Self {
        let Facades { purge_method, purge_networks, .. } = Facades::default();
        let place = Place { key: "facades".to_owned(), span: None };
        Self { place, purge_method, purge_networks, fastly: Vec::new(), cloudflare: Vec::new() }
    }
}

/// Reads the table with its lists.
pub(super) fn read(mut table: Table<'_>, facades: &mut FacadesDraft) {
    facades.place = table.place.clone();
    table.set("purge_method", &mut facades.purge_method);
    table.set("purge_networks", &mut facades.purge_networks);
    let services = table.tables("fastly").unwrap_or_default();
    facades.fastly = services.into_iter().filter_map(service).collect();
    let zones = table.tables("cloudflare").unwrap_or_default();
    facades.cloudflare = zones.into_iter().filter_map(zone).collect();
    table.finish();
}

fn service(mut table: Table<'_>) -> Option<ServiceDraft> {
    let id = table.required_parsed("service", "\"SU1Z0isxPaozGVKXdv0eY\"", parse_id);
    let site = table.required::<String>("site", "\"main\"");
    table.finish();
    Some(ServiceDraft { id: id?, sites: vec![site?] })
}

fn zone(mut table: Table<'_>) -> Option<ServiceDraft> {
    let example = "\"023e105f4ecef8ad9ca31a8372d0c353\"";
    let id = table.required_parsed("zone", example, parse_id);
    let sites = table.required::<Vec<Found<String>>>("sites", "[\"main\"]");
    if let Some(found) = sites.as_ref().filter(|_| table.array_is_empty("sites")) {
        let problem = Problem::new(format!("`{}` is empty", found.place.key));
        let help = "a zone without sites reaches nothing: name them, or leave the zone out";
        table.sink.missing(problem.at(found.place.span.clone()).help(help));
    }
    table.finish();
    let sites = sites?.value;
    (!sites.is_empty()).then_some(ServiceDraft { id: id?, sites })
}
