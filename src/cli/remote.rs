//! What purge, explain, status and drain have in common: whom they ask, with which token, and what becomes
//! of the answer.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use http::{HeaderName, HeaderValue};
use serde_json::Value;

use super::client::{Answer, Base, CallError, call, call_with};
use super::{LATE, REFUSED, UNREACHABLE, USAGE, complain};

/// The variable that holds the token.
pub(super) const TOKEN: &str = "ATOLL_ADMIN_TOKEN";

/// Flags of every command that asks a running node.
#[derive(Args, Debug)]
pub(super) struct Remote {
    /// Admin listener of the node.
    #[arg(long, value_name = "URL", env = "ATOLL_ADMIN", default_value = "http://127.0.0.1:9080", value_parser = Base::parse)]
    pub(super) admin: Base,
    /// File that holds the token [default: the variable ATOLL_ADMIN_TOKEN].
    #[arg(long, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
    /// Print the answer as it came, in JSON.
    #[arg(long)]
    pub(super) json: bool,
}

impl Remote {
    /// The token to send, if there is one.
    ///
    /// # Errors
    /// Says why a token that was named cannot be had.
    pub(super) fn token(&self) -> Result<Option<String>, String> {
        match &self.token_file {
            Some(file) => token_of_file(file).map(Some),
            None => token_of_environment(),
        }
    }

    /// Asks the node and waits at most `most` for the whole answer.
    pub(super) fn ask(
        &self,
        method: &http::Method,
        path: &str,
        token: Option<&str>,
        body: Option<&[u8]>,
        most: Duration,
    ) -> Result<Answer, u8> {
        self.got(call(&self.admin, method, path, token, body, most))
    }

    /// Sends a body with a further field, and waits at most `most` for the whole answer.
    pub(super) fn send_with(
        &self,
        path: &str,
        token: &str,
        field: Option<(HeaderName, HeaderValue)>,
        body: &[u8],
        most: Duration,
    ) -> Result<Answer, u8> {
        let post = http::Method::POST;
        self.got(call_with(&self.admin, &post, path, Some(token), field, Some(body), most))
    }

    fn got(&self, answer: Result<Answer, CallError>) -> Result<Answer, u8> {
        answer.map_err(|error| {
            let (code, message) = match error {
                CallError::Unreachable(message) => (UNREACHABLE, message),
                CallError::Late(message) => (LATE, message),
            };
            complain(&format!("{}: {message}", self.admin));
            code
        })
    }

    /// Prints an answer as it came.
    pub(super) fn print_raw(&self, answer: &Answer) {
        let text = String::from_utf8_lossy(&answer.body);
        println!("{}", text.trim_end());
    }

    /// Explains an answer that is not a success and returns the exit code for it.
    pub(super) fn refused(&self, answer: &Answer) -> u8 {
        if self.json {
            self.print_raw(answer);
        } else {
            complain(&problem(answer));
        }
        REFUSED
    }
}

/// The token, or a message and the code for wrong usage.
pub(super) fn required_token(remote: &Remote) -> Result<String, u8> {
    match remote.token() {
        Ok(Some(token)) => Ok(token),
        Ok(None) => {
            complain("no token: set ATOLL_ADMIN_TOKEN, or name a file by --token-file");
            Err(USAGE)
        }
        Err(error) => {
            complain(&error);
            Err(USAGE)
        }
    }
}

/// The token of the environment; an empty one is none.
pub(super) fn token_of_environment() -> Result<Option<String>, String> {
    match std::env::var(TOKEN) {
        Ok(token) => Ok(Some(token.trim().to_owned()).filter(|token| !token.is_empty())),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(format!("{TOKEN} is not text")),
    }
}

fn token_of_file(file: &Path) -> Result<String, String> {
    let name = file.display();
    let text = std::fs::read_to_string(file).map_err(|error| format!("{name}: {error}"))?;
    let token = text.lines().next().unwrap_or("").trim();
    if token.is_empty() { Err(format!("{name}: holds no token")) } else { Ok(token.to_owned()) }
}

/// A problem document (RFC 9457) or any other refusal in words.
pub(super) fn problem(answer: &Answer) -> String {
    let document: Option<Value> = serde_json::from_slice(&answer.body).ok();
    let member = |name: &str| {
        document.as_ref().and_then(|value| value.get(name)).and_then(Value::as_str).map(plain)
    };
    let advice = match answer.status.as_u16() {
        401 => " (is the token right?)",
        403 => " (the token does not have the scope or the site for it)",
        404 if member("code").is_none_or(|code| code == "path") => {
            " (is this the admin listener of atoll?)"
        }
        429 => " (try again in a moment)",
        _ => "",
    };
    let words = match (member("title"), member("detail")) {
        (Some(title), Some(detail)) => format!("{title}: {detail}"),
        (Some(only), None) | (None, Some(only)) => only,
        (None, None) => answer.status.canonical_reason().unwrap_or("refused").to_owned(),
    };
    format!("{} {words}{advice}", answer.status.as_u16())
}

/// Text from elsewhere without characters that would move a terminal's cursor.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// One value of a JSON answer for a table.
pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => plain(text),
        Value::Null => "not known yet".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    #[test]
    fn problems_are_said_in_words() {
        for (status, body, expected) in [
            (
                400,
                r#"{"title":"Bad selector","detail":"tags is empty"}"#,
                "400 Bad selector: tags is empty",
            ),
            (401, r#"{"title":"Unauthorized"}"#, "401 Unauthorized (is the token right?)"),
            (500, "<html>", "500 Internal Server Error"),
            (404, "<html>", "404 Not Found (is this the admin listener of atoll?)"),
            (404, r#"{"code":"unknown-purge","title":"Not Found"}"#, "404 Not Found"),
            (400, "{\"detail\":\"a\\u001b[31mb\"}", "400 a [31mb"),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            let answer = Answer { status, body: body.as_bytes().to_vec() };
            assert_eq!(problem(&answer), expected);
        }
    }
}
