//! `error_pages`: bodies of errors, read from files when the configuration is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http::header::HeaderValue;

use crate::semantics::{ErrorPages, Page, PageFor};

use super::super::super::certificates::read_file;
use super::super::super::error::Problem;
use super::super::super::reader::{Entry, Found, Read, Table};
use super::Spot;

/// Largest page.
const LARGEST: u64 = 256 << 10;

/// Pages of one table.
const MOST: usize = 32;

const EXPECTED: &str = "a table: { 502 = \"errors/502.html\", 5xx = \"errors/any.html\" }";

pub(super) fn read(table: &mut Table<'_>, into: &mut ErrorPages, spot: Spot<'_>) {
    if let Some(found) = table.optional::<Files>("error_pages") {
        let pages = found.value.0.into_iter();
        let page = |(covers, file): (PageFor, Found<PathBuf>)| match load(
            &spot.folder.join(&file.value),
        ) {
            Ok(page) => Some((covers, Arc::new(page))),
            Err(help) => {
                let message = format!("`{}` cannot be used", file.place.key);
                table.sink.push(Problem::new(message).at(file.place.span).help(help));
                None
            }
        };
        into.replace(pages.filter_map(page).collect());
    }
    table.set("error_pages_for_origin", &mut into.for_origin);
}

struct Files(Vec<(PageFor, Found<PathBuf>)>);

impl Read for Files {
    fn read(entry: &Entry<'_>) -> Option<Self> {
        let mut files = Vec::new();
        for (key, value) in entry.pairs(EXPECTED)? {
            let covers = covers(key.value);
            if covers.is_none() {
                let message = format!("`{}` is no error", key.place.key);
                let help = "a status from 400 to 599, or a class: 404, 4xx, 5xx";
                entry.sink().push(Problem::new(message).at(key.place.span).help(help));
            }
            let file = PathBuf::read(&value);
            if let (Some(covers), Some(file)) = (covers, file) {
                files.push((covers, Found { value: file, place: value.place }));
            }
        }
        if files.len() > MOST {
            let message = format!("`{}` is too long", entry.place.key);
            entry.report(message, "too long", format!("at most {MOST} pages"));
            files.truncate(MOST);
        }
        Some(Self(files))
    }
}

fn covers(text: &str) -> Option<PageFor> {
    match text {
        "4xx" => Some(PageFor::Class(4)),
        "5xx" => Some(PageFor::Class(5)),
        _ => {
            let digits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
            let status = text.parse().ok().filter(|status| digits && (400..600).contains(status));
            status.map(PageFor::Status)
        }
    }
}

fn load(file: &Path) -> Result<Page, String> {
    let extension = file.extension().and_then(|end| end.to_str()).unwrap_or_default();
    let content_type = match extension.to_ascii_lowercase().as_str() {
        "html" | "htm" => "text/html; charset=utf-8",
        "txt" => "text/plain; charset=utf-8",
        "json" => "application/json",
        "xml" => "application/xml",
        "svg" => "image/svg+xml",
        _ => return Err("known by their ends are .html, .txt, .json, .xml and .svg".to_owned()),
    };
    let body = Bytes::from(read_file(file, LARGEST)?);
    Ok(Page { body, content_type: HeaderValue::from_static(content_type) })
}
