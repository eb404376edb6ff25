//! `atoll token new`: makes a token, shows it once, and gives its hash for the configuration.

use clap::{Args, Subcommand};

use crate::config::{Scope, format_hash, hash_token, new_token};

use super::{DONE, REFUSED, complain};

const ABOUT: &str = "Makes tokens for the admin listener";

const MORE: &str = "\
Exit codes:
  0  done
  1  the system has no randomness
  2  wrong flags";

const NEW_MORE: &str = "\
The token is shown once and kept nowhere; the configuration holds its SHA-256 only.

Examples:
  atoll token new --scope purge --site shop --name deploy
  atoll token new --scope read,purge,purge-all,config,drain --name admin

Scopes:
  read        look: /v1/status, /v1/origins
  purge       purge by selectors within its sites
  purge-all   purge everything
  warm        fetch into the store
  config      change and reset
  drain       drain the node

Exit codes:
  0  done
  1  the system has no randomness
  2  wrong flags";

#[derive(Args, Debug)]
#[command(about = ABOUT, after_help = MORE)]
pub(super) struct Token {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    New(New),
}

#[derive(Args, Debug)]
#[command(about = "Makes a token and prints it once, with its hash for the configuration", after_help = NEW_MORE)]
struct New {
    /// What it may do; may be repeated or separated by commas.
    #[arg(long, value_name = "SCOPE", required = true, value_delimiter = ',', value_parser = scope)]
    scope: Vec<Scope>,
    /// Site it may do it to; may be repeated [default: every site].
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    site: Vec<String>,
    /// Name in logs.
    #[arg(long, value_name = "NAME", default_value = "new")]
    name: String,
}

fn scope(text: &str) -> Result<Scope, String> {
    Scope::ALL.into_iter().find(|scope| scope.label() == text).ok_or_else(|| {
        let names: Vec<&str> = Scope::ALL.iter().map(|scope| scope.label()).collect();
        format!("the scopes are {}", names.join(", "))
    })
}

impl Token {
    pub(super) fn run(self) -> u8 {
        let Command::New(new) = self.command;
        match new_token() {
            Ok(token) => {
                print!("{}", new.text(&token));
                DONE
            }
            Err(error) => {
                complain(&error);
                REFUSED
            }
        }
    }
}

impl New {
    fn text(&self, token: &str) -> String {
        let mut scopes: Vec<&str> = Vec::new();
        for scope in &self.scope {
            if !scopes.contains(&scope.label()) {
                scopes.push(scope.label());
            }
        }
        let mut out = format!(
            "# The token, shown this once: {token}\n\n[[admin.token]]\nname = {}\nhash = \"{}\"\nscopes = {}\n",
            quoted(&self.name),
            format_hash(&hash_token(token)),
            list(&scopes),
        );
        if !self.site.is_empty() {
            out.push_str(&format!("sites = {}\n", list(&self.site)));
        }
        out
    }
}

/// A text as TOML writes it.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn list<T: AsRef<str>>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(|item| quoted(item.as_ref())).collect();
    format!("[{}]", items.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_ready_for_the_file() {
        let new = New {
            scope: vec![Scope::Purge, Scope::Read, Scope::Purge],
            site: vec!["shop".to_owned()],
            name: "de\"ploy".to_owned(),
        };
        let text = new.text("atoll_secret");
        let hash = format_hash(&hash_token("atoll_secret"));
        let expected = format!(
            "# The token, shown this once: atoll_secret\n\n[[admin.token]]\nname = 'de\"ploy'\n\
             hash = \"{hash}\"\nscopes = [\"purge\", \"read\"]\nsites = [\"shop\"]\n"
        );
        assert_eq!(text, expected);
    }
}
