//! `GET /v1/cache/entry`: what is stored under a URL.

use http::{Method, StatusCode};

use super::explain::{Lines, fields, place};
use super::problem::Problem;
use super::{Admin, Call, Reply, json, query};

/// `GET /v1/cache/entry`
pub(super) fn entry(admin: &Admin, call: &Call<'_>) -> Result<Reply, Problem> {
    let mut url = None;
    let mut lines = Vec::new();
    for (name, value) in query::pairs(call.query)? {
        match name {
            "url" if url.is_none() => url = Some(value),
            "url" => return Err(Problem::bad("query", "`url` stands twice")),
            "header" => lines.push(line(&value)?),
            other => return Err(query::unknown(other, "`url` and `header`")),
        }
    }
    let url = url.ok_or_else(|| {
        Problem::bad("query", "`url` is missing: ?url=https%3A%2F%2Fwww.example.com%2Fpage")
    })?;
    let place = place(&*admin.control, call.token, "url", &url)?;
    if place.site.is_none() {
        return Err(Problem::field("foreign-host", "url", "no site answers for the host of `url`"));
    }
    let request = place.request(Method::GET, fields(&Lines(lines), admin.fields)?)?;
    let told = admin.control.entry(request, call.now).map_err(|refusal| {
        let detail = format!("no client could ask for it: {}", refusal.label());
        Problem::field("url", "url", detail)
    })?;
    Ok(json(StatusCode::OK, &told))
}

/// Reads `Name: value`.
fn line(text: &str) -> Result<(String, String), Problem> {
    let (name, value) = text
        .split_once(':')
        .ok_or_else(|| Problem::field("value", "header", "a `header` is `Name: value`"))?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}
