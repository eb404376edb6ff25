//! `atoll run`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use crate::app::{self, Ended, Program, Reread, Source, StartError};
use crate::config::{
    self, CertificateFiles, Config, Flags, Loaded, Problems, Server, Token, check_token, new_token,
    parse_address, parse_duration, parse_server, parse_size,
};

use super::greeting::{Greeting, TokenFrom};
use super::{DONE, LATE, REFUSED, USAGE, complain, print_problems};

const ABOUT: &str = "Runs an edge until it is told to stop, then lets requests under way end";

const USAGES: &str = "\
atoll run --origin URL [OPTIONS]
       atoll run --config FILE [OPTIONS]";

const MORE: &str = "\
Without a file one site answers for every host name, in plain on 127.0.0.1:8080, over TLS with
HTTP/2 on 127.0.0.1:8443, with the admin API on 127.0.0.1:9080. --listen, --listen-tls and --admin
each replace the default of their kind. Without --cert a certificate is made for this run.

With a file, flags win over it: --listen and --listen-tls replace all its listeners of their kind,
--cert and --key its certificates, --origin the servers of its only origin.

Examples:
  atoll run --origin http://127.0.0.1:3000
  atoll run --origin https://a.example --origin https://b.example --default-lifetime 60s
  atoll run --config atoll.toml --listen 0.0.0.0:80 --memory 2GiB

Environment:
  ATOLL_ADMIN_TOKEN   a token that may do everything on the admin listener. If it is not set and
                      the file names no token, one is made and printed.

Signals:
  SIGTERM, SIGINT     stop taking connections, end the requests under way, leave; again: at once
  SIGHUP              read the configuration anew; it is put in force if nothing is wrong with it
  SIGUSR1             open the access log's file anew
  SIGUSR2             hand over to a new process of the program, as `atoll upgrade` does

Exit codes:
  0  stopped as told
  1  could not start, or failed
  2  wrong flags or configuration
  3  cut off by a second signal";

#[derive(Args, Debug)]
#[command(about = ABOUT, after_help = MORE, override_usage = USAGES)]
pub(super) struct Run {
    /// Configuration file (see config/reference.toml).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Server of the origin, http:// or https://; repeatable.
    #[arg(long, value_name = "URL", value_parser = parse_server, required_unless_present = "config")]
    origin: Vec<Server>,
    /// Address for plain HTTP/1.1; repeatable.
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address)]
    listen: Vec<SocketAddr>,
    /// Address for TLS with HTTP/2 and HTTP/1.1; repeatable.
    #[arg(long, value_name = "ADDRESS", value_parser = parse_address)]
    listen_tls: Vec<SocketAddr>,
    /// Certificate chain (PEM), the server's own first; repeatable with --key.
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Vec<PathBuf>,
    /// Private key of the --cert at the same position.
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Vec<PathBuf>,
    /// Address of the admin API, on loopback; "none" for none.
    #[arg(long, value_name = "ADDRESS", value_parser = admin_address)]
    admin: Option<AdminAddress>,
    /// Seed of jitter and early refresh, to repeat a load test.
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// Worker threads [default: the cores this process may use].
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,
    /// Memory budget: 512MiB, 2GiB [default: half of what it may use].
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    memory: Option<u64>,
    /// Lifetime of answers for which the origin names none: 60s, 1h.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    default_lifetime: Option<Duration>,
    /// Number of the process that this one is to end with, which started it.
    #[arg(long, value_name = "NUMBER", hide = true)]
    end_with: Option<u32>,
}

/// An address, or none.
#[derive(Clone, Copy, Debug)]
struct AdminAddress(Option<SocketAddr>);

fn admin_address(text: &str) -> Result<AdminAddress, String> {
    if text == "none" {
        Ok(AdminAddress(None))
    } else {
        parse_address(text).map(|a| AdminAddress(Some(a)))
    }
}

/// Has the system end this process when its parent ends, however that ends, and even while it is stopped. `false` when it
/// has another parent already.
fn ends_with(parent: u32) -> bool {
    let told = set_parent_process_death_signal(Some(Signal::KILL));
    // Asked after that, so that it cannot end unseen in between.
    let own = getppid().and_then(|own| u32::try_from(own.as_raw_nonzero().get()).ok());
    told.is_ok() && own == Some(parent)
}

impl Run {
    pub(super) fn run(self) -> u8 {
        if self.cert.len() != self.key.len() {
            complain("each --cert needs its --key, and each --key its --cert");
            return USAGE;
        }
        if self.end_with.is_some_and(|parent| !ends_with(parent)) {
            complain("not started: whoever started this has ended");
            return REFUSED;
        }
        let (flags, file) = (self.flags(), self.config.clone());
        let read = move || match &file {
            Some(file) => config::read(file, &flags),
            None => Config::built_in(&flags),
        };
        match read() {
            Ok(loaded) => start(loaded, read),
            Err(problems) => {
                print_problems(&problems);
                complain("not started: the configuration cannot be used");
                USAGE
            }
        }
    }

    fn flags(&self) -> Flags {
        // The folder of the file is where its relative paths are meant from; a flag's are meant
        // from where the command was given.
        let files = self.cert.iter().zip(&self.key);
        Flags {
            origin: self.origin.clone(),
            listen: self.listen.clone(),
            listen_tls: self.listen_tls.clone(),
            certificates: files
                .map(|(chain, key)| CertificateFiles { chain: absolute(chain), key: absolute(key) })
                .collect(),
            admin: self.admin.map(|address| address.0),
            seed: self.seed,
            workers: self.workers.map(usize::from),
            memory: self.memory,
            default_lifetime: self.default_lifetime,
        }
    }
}

/// A path that is not meant from a file's folder. Links in it stay: whoever renews certificates may
/// have them lead elsewhere.
fn absolute(path: &PathBuf) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_nowhere| path.clone())
}

/// Runs a configuration that `read` can read anew.
fn start(
    Loaded { mut config, warnings, written }: Loaded,
    read: impl Fn() -> Result<Loaded, Problems> + Send + Sync + 'static,
) -> u8 {
    print_problems(&warnings);
    let token = match admit(&mut config) {
        Ok(token) => token,
        Err(error) => {
            complain(&error);
            return USAGE;
        }
    };
    let made = match &token {
        TokenFrom::Made(token) => Some(token.clone()),
        TokenFrom::Nowhere | TokenFrom::Environment | TokenFrom::File => None,
    };
    let program = Program::of_this_process().map(|program| match &made {
        Some(token) => program.with(super::remote::TOKEN, token),
        None => program,
    });
    let address = config.admin.address;
    let reread: Reread = Arc::new(move || {
        let mut loaded = read()?;
        // The listener is the one that there is.
        loaded.config.admin.address = address;
        admit_again(&mut loaded.config, made.as_deref())?;
        Ok(loaded)
    });
    let greeting = Greeting::of(&config, token);
    let source = Source { config, written, reread: Some(reread), program };
    conclude(app::run(source, |listening| eprint!("{}", greeting.text(listening))))
}

/// As [`admit`], for a configuration that is read anew: a token that was `made` at the start goes on,
/// but none is made that nobody would see.
fn admit_again(config: &mut Config, made: Option<&str>) -> Result<(), Problems> {
    let wrong = |why: String| Problems::of_the_whole("admin", why);
    let none = config.admin.tokens.is_empty();
    if config.admin.address.is_none() {
        return Ok(());
    }
    match (made, super::remote::token_of_environment().map_err(wrong)?) {
        (Some(made), None) if none => config.admin.tokens.push(Token::full("made at start", made)),
        (None, None) if none => {
            let why = "no token would be left for the admin listener: name one in [[admin.token]]";
            return Err(wrong(why.to_owned()));
        }
        (_, None) => {}
        (_, Some(_)) => drop(admit(config).map_err(wrong)?),
    }
    Ok(())
}

/// Exit code of an edge that has ended, or never began.
pub(super) fn conclude(ended: Result<Ended, StartError>) -> u8 {
    match ended {
        Ok(Ended::Drained) => DONE,
        Ok(Ended::Aborted) => LATE,
        Ok(Ended::Failed) => REFUSED,
        Err(error) => {
            complain(&error.to_string());
            REFUSED
        }
    }
}

/// Adds the token of the environment, or a new one where there would be none.
///
/// # Errors
/// Where the token of the environment cannot serve as one.
pub(super) fn admit(config: &mut Config) -> Result<TokenFrom, String> {
    if config.admin.address.is_none() {
        return Ok(TokenFrom::Nowhere);
    }
    if let Some(token) = super::remote::token_of_environment()? {
        check_token(&token).map_err(|error| format!("ATOLL_ADMIN_TOKEN: {error}"))?;
        config.admin.tokens.push(Token::full("environment", &token));
        return Ok(TokenFrom::Environment);
    }
    if !config.admin.tokens.is_empty() {
        return Ok(TokenFrom::File);
    }
    let token = new_token()?;
    config.admin.tokens.push(Token::full("made at start", &token));
    Ok(TokenFrom::Made(token))
}
