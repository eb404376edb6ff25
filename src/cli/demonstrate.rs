//! `atoll demo`: an origin of its own, an edge before it, and a printed list of things to try.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use clap::Args;

use crate::app::{self, Listening};
use crate::config::{Config, Flags, Server, parse_address};

use super::demo::{Demo, tour};
use super::greeting::{TokenFrom, reachable};
use super::run::{admit, conclude};
use super::{REFUSED, complain};

const ABOUT: &str = "Shows what an edge does: a small site, an edge before it, and things to try";

const MORE: &str = "\
Everything runs in this one process and ends with it; nothing is written. The edge listens where
`atoll run` does, with a self-made certificate.

With --pops each node is a process of its own, so that one can be killed or stopped; a folder for
certificates and logs is made among the temporary files, and removed at the end.

Examples:
  atoll demo
  atoll demo --pops 3
  atoll demo --pops 3 --json | jq -r '.nodes[].listen'

Environment:
  ATOLL_ADMIN_TOKEN   the token of the admin listener; if it is not set, one is made and printed

Exit codes:
  0  stopped as told
  1  could not start, or failed
  2  wrong flags
  3  cut off by a second signal";

#[derive(Args, Debug)]
#[command(about = ABOUT, after_help = MORE)]
pub(super) struct Demonstrate {
    /// Address for plain HTTP/1.1.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080", value_parser = parse_address)]
    listen: SocketAddr,
    /// Address for TLS with HTTP/2 and HTTP/1.1.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8443", value_parser = parse_address)]
    listen_tls: SocketAddr,
    /// Address of the admin API, on loopback.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9080", value_parser = parse_address)]
    admin: SocketAddr,
    /// So many PoPs of two nodes each, in processes of their own, on ports that are free.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(1..=5),
        conflicts_with_all = ["listen", "listen_tls", "admin"])]
    pops: Option<u8>,
    /// One JSON document on standard output once all nodes are ready; the rest on standard error.
    #[arg(long, requires = "pops")]
    json: bool,
}

impl Demonstrate {
    pub(super) fn run(self) -> u8 {
        if let Some(pops) = self.pops {
            return super::demo::pops(usize::from(pops), self.json);
        }
        let token = std::cell::RefCell::new(String::new());
        let configure = |origin: SocketAddr| {
            let mut config = self.config(origin)?;
            *token.borrow_mut() = match admit(&mut config)? {
                TokenFrom::Made(made) => made,
                _ => "$ATOLL_ADMIN_TOKEN".to_owned(),
            };
            Ok(config)
        };
        let greet = |listening: &Listening, origin: SocketAddr| {
            let url = |scheme: &str, address: Option<&SocketAddr>| {
                address.map_or_else(String::new, |a| format!("{scheme}://{}", reachable(*a)))
            };
            let text = tour(
                &url("http", listening.plain.first()),
                &url("https", listening.tls.first()),
                &url("http", listening.admin.as_ref()),
                &token.borrow(),
                &url("http", Some(&origin)),
            );
            println!("\natoll {}, the demo. Ctrl-C ends it.\n\n{text}", env!("CARGO_PKG_VERSION"));
        };
        match app::run_with_origin(Arc::new(Demo::new()), configure, greet) {
            Ok(ended) => conclude(ended),
            Err(error) => {
                complain(&error);
                REFUSED
            }
        }
    }

    fn config(&self, origin: SocketAddr) -> Result<Config, String> {
        let flags = Flags {
            origin: vec![Server {
                host: Ipv4Addr::LOCALHOST.to_string(),
                port: origin.port(),
                ..Server::default()
            }],
            listen: vec![self.listen],
            listen_tls: vec![self.listen_tls],
            admin: Some(Some(self.admin)),
            ..Flags::default()
        };
        let mut config = Config::built_in(&flags).map_err(|problems| problems.to_string())?.config;
        // The terminal is for the tour, not for a line a request.
        config.log.access = None;
        config.log.level = "warn".to_owned();
        Ok(config)
    }
}
