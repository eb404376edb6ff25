//! The command line: reads it, runs the command, and turns the outcome into an exit code.

mod audit;
mod check;
mod client;
mod demo;
mod demonstrate;
mod events;
mod explain;
mod greeting;
mod inspect;
mod mesh;
mod origins;
mod purge;
mod purges;
mod receipt;
mod reload;
mod remote;
mod replay;
mod run;
mod status;
mod table;
mod token;
mod top;
mod upgrade;
mod warm;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::Problems;

/// Done.
const DONE: u8 = 0;
/// Refused, or failed.
const REFUSED: u8 = 1;
/// Wrong flags, or a wrong file named by them.
const USAGE: u8 = 2;
/// Accepted, but not done in time.
const LATE: u8 = 3;
/// Nobody answers.
const UNREACHABLE: u8 = 4;

const ABOUT: &str =
    "A CDN edge: answers from memory, fills from origins, forgets at once what is purged.";

const EXAMPLES: &str = "\
Examples:
  atoll demo                                     a site, an edge before it, and things to try
  atoll run --origin http://127.0.0.1:3000       an edge before your own server
  atoll check atoll.toml && atoll run --config atoll.toml
  atoll purge --tag article-1                    needs ATOLL_ADMIN_TOKEN
  atoll explain https://www.example.org/news     why it is, or is not, answered from memory
  atoll top                                      what the node is doing, live

Environment:
  ATOLL_ADMIN_TOKEN   the token of the admin listener: `run` accepts it, the others send it
  ATOLL_ADMIN         the address that the others ask, unless --admin says it
  NO_COLOR            messages without colours

`atoll COMMAND --help` tells more, with the exit codes of each.";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "atoll", version, about = ABOUT, after_help = EXAMPLES, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(Box<run::Run>),
    Demo(demonstrate::Demonstrate),
    Check(check::Check),
    Purge(Box<purge::Purge>),
    Purges(purges::Purges),
    Events(events::Events),
    Explain(explain::Explain),
    Inspect(inspect::Inspect),
    Warm(warm::Warm),
    Origins(origins::Origins),
    Top(top::Top),
    Status(status::Status),
    Reload(reload::Reload),
    Upgrade(upgrade::Upgrade),
    Drain(status::Drain),
    Token(token::Token),
    Audit(audit::Audit),
    Mesh(mesh::Mesh),
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way, too, and are no mistake.
            let code = if error.use_stderr() { USAGE } else { DONE };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    ExitCode::from(match cli.command {
        Command::Run(run) => run.run(),
        Command::Demo(demo) => demo.run(),
        Command::Check(check) => check.run(),
        Command::Purge(purge) => purge.run(),
        Command::Purges(purges) => purges.run(),
        Command::Events(events) => events.run(),
        Command::Explain(explain) => explain.run(),
        Command::Inspect(inspect) => inspect.run(),
        Command::Warm(warm) => warm.run(),
        Command::Origins(origins) => origins.run(),
        Command::Top(top) => top.run(),
        Command::Status(status) => status.run(),
        Command::Reload(reload) => reload.run(),
        Command::Upgrade(upgrade) => upgrade.run(),
        Command::Drain(drain) => drain.run(),
        Command::Token(token) => token.run(),
        Command::Audit(audit) => audit.run(),
        Command::Mesh(mesh) => mesh.run(),
    })
}

/// Prints an error for a person.
fn complain(message: &str) {
    eprintln!("atoll: {message}");
}

/// Prints problems of a configuration, in colours where a person looks on.
fn print_problems(problems: &Problems) {
    if !problems.is_empty() {
        let styled = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        eprintln!("{}\n", problems.render(styled));
    }
}

/// `1 error`, `2 errors`.
fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn wrong_flags_are_refused_with_what_would_be_right() {
        for (line, expected) in [
            ("run", "--origin"),
            ("run --origin 127.0.0.1:3000", "\"http://127.0.0.1:3000\""),
            ("run --origin http://a --listen 8080", "\"127.0.0.1:8080\""),
            ("run --origin http://a --cert a.pem", "--key"),
            ("run --origin http://a --default-lifetime 60", "\"60s\""),
            ("run --origin http://a --memory 64k", "\"64KiB\""),
            ("run --origin http://a --workers 0", "0 is not in"),
            ("run --orign http://a", "--origin"),
            ("demo --pops 9", "1..=5"),
            ("demo --json", "--pops"),
            ("purge", "--tag"),
            ("purge --all --tag a", "cannot be used with"),
            ("purge --tag a --wait soon", "acknowledged"),
            ("purge --tag a --soft --check", "cannot be used with"),
            ("purge --tag a --idempotency-key é", "255 visible"),
            ("purges --limit 0", "1..=100000"),
            ("purges a/b", "an id looks like"),
            ("events --since é", "an id looks like"),
            ("purge --tag a --admin 127.0.0.1:9080", "http://127.0.0.1:9080"),
            ("explain", "URL"),
            ("explain https://a/b -H x", "Name: value"),
            ("inspect", "URL"),
            ("top --by age", "requests, bytes"),
            ("warm", "--sitemap"),
            ("warm https://a/b --rate 0", "0.1 to 1000"),
            ("warm https://a/b --stop n.1.w1", "cannot be used with"),
            ("token new", "--scope"),
            ("origins set main 192.0.2.1:80 up", "drain, down, auto"),
            ("origins set main 192.0.2.1 drain", "the port is missing"),
            ("origins set a/b 192.0.2.1:80 drain", "the name of an origin"),
            ("token new --scope all", "purge-all"),
            ("check", "FILE"),
            ("audit verify", "FILE"),
            ("mesh init", "DIR"),
            ("mesh issue fra-1", "--pop"),
            ("mesh issue fra_! --pop fra", "a name has"),
            ("mesh issue fra-1 --pop fra --days 0", "1..=3650"),
            ("audit verify a --anchor 12", "64 hexadecimal"),
            ("purge --replay a --tag b", "cannot be used with"),
            ("purge --replay a --soft", "cannot be used with"),
            ("purge --replay a --since noon", "how long ago"),
            ("purge --tag a --since 1h", "cannot be used with"),
            ("purge --tag a --guard 101", "0..=100"),
        ] {
            let error = Cli::try_parse_from(std::iter::once("atoll").chain(line.split(' ')));
            let error = error.expect_err(line).to_string();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }

    #[test]
    fn right_flags_are_taken() {
        for line in [
            "demo",
            "demo --listen 127.0.0.1:0",
            "demo --pops 3",
            "demo --pops 3 --json",
            "run --config atoll.toml",
            "run --origin http://a --listen [::1]:80 --listen 127.0.0.1:80 --admin none",
            "run --origin http://a --cert a.pem --key a.key --cert b.pem --key b.key",
            "check atoll.toml",
            "purge --url https://a.example/b --tag x --soft --wait everywhere --timeout 5s --json",
            "purge --all --site main --dry-run",
            "purge --tag a --wait",
            "purge --tag a --wait --timeout 10s",
            "purge --wait=acknowledged --tag a",
            "purges n/00000000000000ab/7",
            "purge --file list.txt",
            "purge --prefix a.example/b/ --host a.example --glob *.css --check --idempotency-key k",
            "purges",
            "purges --limit 5 --json",
            "purges n.1.2",
            "events",
            "events --json --since 5c0ffee5c0ffee00.42",
            "explain https://a/b -H a:b --header c:d --method HEAD --json",
            "status",
            "inspect https://a/b -H a:b --json",
            "warm https://a/b https://a/c --rate 5 --json",
            "warm --sitemap https://a/s.xml --variant Accept-Encoding:br --variant Accept-Encoding:gzip",
            "warm --stop n.1.w1",
            "top --once --by bytes",
            "top --json",
            "status --json",
            "reload",
            "reload --json",
            "upgrade --json",
            "drain --admin http://127.0.0.1:9080",
            "token new --scope purge --scope read --site main --name deploy",
            "token new --scope purge,read",
            "audit verify audit.log audit.log.1",
            "mesh init mesh",
            "mesh issue fra-1 --pop fra --ca mesh --out out --days 30",
            "purge --replay audit.log --replay audit.log.1 --since 2026-11-22 --json",
            "purge --all --guard 20",
            "mesh",
            "mesh --json --admin http://127.0.0.1:9080",
            "mesh status --json",
            "origins",
            "origins --json",
            "origins set main [2001:db8::1]:443 drain --json",
        ] {
            let parsed = Cli::try_parse_from(std::iter::once("atoll").chain(line.split(' ')));
            assert!(parsed.is_ok(), "{line}: {}", parsed.expect_err("refused"));
        }
    }

    #[test]
    fn every_help_names_its_exit_codes() {
        for command in Cli::command().get_subcommands_mut() {
            let help = command.render_long_help().to_string();
            assert!(help.contains("Exit codes:"), "{}", command.get_name());
        }
    }
}
