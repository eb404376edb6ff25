//! `atoll explain`.

mod ordered;
mod page;

use std::time::Duration;

use clap::Args;
use http::Method;
use serde_json::{Value, json};

use super::DONE;
use super::remote::{Remote, required_token};

/// Time for the whole exchange.
const MOST: Duration = Duration::from_secs(5);

const ABOUT: &str = "Says what a node would do with a request, and why";

const MORE: &str = "\
Nothing is fetched, stored or counted. The request is one without a body that would come now; what
the node would find in memory, which purges concern it and what the origin would be asked is told.

Examples:
  atoll explain https://www.example.org/news
  atoll explain https://www.example.org/news -H 'Accept-Encoding: br' -H 'Cookie: a=b'
  atoll explain https://www.example.org/news --method HEAD --json

With a token in the field Atoll-Explain of a real request the answer tells the essence in a field
of the same name:
  curl -sI -H \"Atoll-Explain: $ATOLL_ADMIN_TOKEN\" https://www.example.org/news

Environment:
  ATOLL_ADMIN_TOKEN   the token (scope read)
  ATOLL_ADMIN         the admin listener, unless --admin says it

Exit codes:
  0  explained
  1  refused
  2  wrong flags
  3  no answer in time
  4  nobody answers";

#[derive(Args, Debug)]
#[command(about = ABOUT, after_help = MORE)]
pub(super) struct Explain {
    /// URL of the request, with scheme and host.
    #[arg(value_name = "URL")]
    url: String,
    /// Header field of the request; may be repeated.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = field)]
    header: Vec<(String, String)>,
    /// Method of the request.
    #[arg(long, value_name = "METHOD", default_value = "GET")]
    method: String,
    #[command(flatten)]
    remote: Remote,
}

/// Reads `Name: value`.
pub(super) fn field(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("expected \"Name: value\"")?;
    if name.trim().is_empty() {
        return Err("the name is missing: \"Name: value\"".to_owned());
    }
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

impl Explain {
    pub(super) fn run(self) -> u8 {
        self.ask().unwrap_or_else(|code| code)
    }

    fn ask(&self) -> Result<u8, u8> {
        let token = required_token(&self.remote)?;
        let body = self.body().to_string();
        let (path, body) = ("/v1/explain", Some(body.as_bytes()));
        let answer = self.remote.ask(&Method::POST, path, Some(&token), body, MOST)?;
        if !answer.status.is_success() {
            return Ok(self.remote.refused(&answer));
        }
        match serde_json::from_slice::<ordered::Json>(&answer.body) {
            Ok(told) if !self.remote.json => print!("{}", page::page(&told)),
            _ => self.remote.print_raw(&answer),
        }
        Ok(DONE)
    }

    fn body(&self) -> Value {
        json!({"method": self.method, "url": self.url, "headers": self.header})
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        explain: Explain,
    }

    #[test]
    fn flags_become_the_body_that_the_admin_listener_reads() {
        let words = ["explain", "https://a/b", "-H", "A: b: c", "-H", "A:d", "--method", "HEAD"];
        let explain = Line::try_parse_from(words).expect("fine").explain;
        let expected =
            json!({"method": "HEAD", "url": "https://a/b", "headers": [["A", "b: c"], ["A", "d"]]});
        assert_eq!(explain.body(), expected);
    }

    #[test]
    fn a_field_without_a_name_is_refused() {
        for text in ["a", ": b", ""] {
            assert!(field(text).is_err(), "{text}");
        }
    }
}
