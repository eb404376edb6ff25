//! `[mesh.canary]` and `[[mesh.canary.node]]`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::super::names::{parse_host, parse_name, parse_path, parse_server};
use super::super::reader::{Found, Place, Table};
use super::super::{CanaryPaces, Server};

/// The canary as written.
pub(in crate::config) struct CanaryDraft {
    pub(in crate::config) place: Place,
    pub(in crate::config) listen: Option<Found<SocketAddr>>,
    pub(in crate::config) host: Option<Found<String>>,
    pub(in crate::config) paces: CanaryPaces,
    pub(in crate::config) ca: Option<PathBuf>,
    pub(in crate::config) nodes: Vec<(Found<String>, Server)>,
}

/// Reads the table; `None` where there is none.
pub(super) fn read(mut table: Table<'_>, folder: &Path) -> Option<CanaryDraft> {
    let there = table.is_there();
    let draft = read_keys(&mut table, folder);
    table.finish();
    there.then_some(draft)
}

fn read_keys(table: &mut Table<'_>, folder: &Path) -> CanaryDraft {
    let listen = table.required("listen", "\"192.0.2.1:7947\"");
    let host = table.required_parsed("host", "\"canary.example\"", parse_host);
    let mut paces = CanaryPaces::default();
    let CanaryPaces { path, interval, timeout } = &mut paces;
    table.parse("path", path, parse_path);
    table.time("interval", interval, 1_000..=86_400_000);
    table.time("timeout", timeout, 100..=60_000);
    let ca = table.optional::<PathBuf>("ca").map(|found| folder.join(found.value));
    let nodes = table.tables("node").unwrap_or_default();
    let nodes = nodes.into_iter().filter_map(node).collect();
    CanaryDraft { place: table.place.clone(), listen, host, paces, ca, nodes }
}

fn node(mut table: Table<'_>) -> Option<(Found<String>, Server)> {
    let name = table.required_parsed("name", "\"fra-1\"", parse_name);
    let url = table.required_parsed("url", "\"https://192.0.2.1\"", |text| {
        let server = parse_server(text)?;
        let only = || "a node is one server: \"http://...\" or \"https://...\"".to_owned();
        if server.srv { Err(only()) } else { Ok(server) }
    });
    table.finish();
    Some((name?, url?.value))
}
