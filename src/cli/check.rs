//! `atoll check`: everything that can be known of a configuration without starting.

use std::fmt::Write;
use std::path::PathBuf;

use clap::Args;

use crate::clock;
use crate::config::{
    self, Config, Flags, Listener, format_duration, format_size, inspect_certificate,
};

use super::greeting::servers;
use super::{DONE, REFUSED, USAGE, complain, counted, print_problems};

const ABOUT: &str =
    "Checks a configuration file without starting: syntax, references, certificates, hosts";

const MORE: &str = "\
Every problem is told at once, each with its file, line, column, the line itself and what is
allowed there. Relative paths in the file are meant from its own folder.

Exit codes:
  0  the file can be used (warnings may have been printed)
  1  it cannot
  2  wrong flags, or the file cannot be read";

/// Sites, origins and rules that are listed; of more, the number is said.
const LISTED: usize = 20;

#[derive(Args, Debug)]
#[command(about = ABOUT, after_help = MORE)]
pub(super) struct Check {
    /// Configuration file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Say only what is wrong.
    #[arg(long, short)]
    quiet: bool,
}

impl Check {
    pub(super) fn run(self) -> u8 {
        let name = self.file.display();
        if let Err(error) = std::fs::File::open(&self.file) {
            complain(&format!("{name}: {error}"));
            return USAGE;
        }
        let (problems, config) = match config::read(&self.file, &Flags::default()) {
            Ok(loaded) => (loaded.warnings, Some(loaded.config)),
            Err(problems) => (problems, None),
        };
        print_problems(&problems);
        let (errors, warnings) = problems.counts();
        let Some(config) = config else {
            let warnings = if warnings == 0 {
                String::new()
            } else {
                format!(" and {}", counted(warnings, "warning"))
            };
            complain(&format!("{name}: {}{warnings}", counted(errors, "error")));
            return REFUSED;
        };
        if !self.quiet {
            print!("{}", summary(&config));
            let warnings = if warnings == 0 {
                String::new()
            } else {
                format!(", {}", counted(warnings, "warning"))
            };
            println!("\n{name}: ok{warnings}");
        }
        DONE
    }
}

/// What would run, in a few lines.
fn summary(config: &Config) -> String {
    let mut out = String::new();
    let node = &config.node;
    let memory = format_size(config.memory.budget_bytes >> 20 << 20);
    let workers = counted(node.workers, "worker");
    let mut line = |what: &str, text: &str| {
        let _ = writeln!(out, "{what:<12}{text}");
    };
    line("node", &format!("{}, pop {}, {workers}, {memory} of memory", node.name, node.pop));
    for listener in &config.listeners {
        line("listener", &format!("{}  {}", listener.address, protocols(listener)));
    }
    if let Some(address) = config.admin.address {
        line("admin", &format!("{address}  {}", counted(config.admin.tokens.len(), "token")));
    }
    if let Some(address) = config.watch {
        line("watch", &address.to_string());
    }
    let now = clock::now();
    for files in &config.certificates {
        if let Ok(facts) = inspect_certificate(files, now) {
            let names = facts.names.join(" ");
            let end = httpdate::fmt_http_date(facts.not_after);
            line("certificate", &format!("{names}  until {end}"));
        }
    }
    for origin in config.origins.iter().take(LISTED) {
        let probe = origin.probe.as_ref().map_or_else(String::new, |probe| {
            format!("  probed on {} every {}", probe.path, format_duration(probe.interval))
        });
        line("origin", &format!("{}  {}{probe}", origin.name, servers(&origin.servers)));
    }
    for site in config.sites.iter().take(LISTED) {
        let origin = config.origins.get(site.origin).map_or("", |origin| origin.name.as_str());
        let rules = counted(site.rules.len(), "rule");
        line("site", &format!("{}  {}  from {origin}, {rules}", site.name, site.hosts.join(" ")));
    }
    for (what, count) in [("origin", config.origins.len()), ("site", config.sites.len())] {
        if count > LISTED {
            line("", &format!("and {}", counted(count - LISTED, &format!("more {what}"))));
        }
    }
    out
}

fn protocols(listener: &Listener) -> String {
    let http = match (listener.tls, listener.http2) {
        (true, true) => "TLS, HTTP/2 and HTTP/1.1",
        (true, false) => "TLS, HTTP/1.1",
        (false, true) => "plain, HTTP/2 by prior knowledge and HTTP/1.1",
        (false, false) => "plain, HTTP/1.1",
    };
    let proxy = if listener.proxy_protocol { ", behind the PROXY protocol" } else { "" };
    format!("{http}{proxy}")
}
