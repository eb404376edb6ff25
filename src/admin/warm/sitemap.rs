//! Reads sitemaps: the XML of sitemaps.org, an index of them, or a text with a URL a line; each may
//! be gzipped.
//!
//! A sitemap comes from an origin and is read with suspicion: no entities beyond the five of XML
//! and characters by number, no document types, nothing is fetched for it, and only the text of
//! `<loc>` matters. What is not a sitemap has no `<loc>`, and so brings nothing.

use std::io::Read as _;

/// Largest sitemap in bytes, unpacked.
pub(super) const LARGEST: usize = 10 << 20;

/// What a sitemap says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sitemap {
    /// It names further sitemaps rather than pages.
    pub(super) index: bool,
    /// What it names, in order.
    pub(super) urls: Vec<String>,
    /// It names more than were asked for.
    pub(super) more: bool,
}

/// Reads a sitemap up to `most` URLs.
///
/// # Errors
/// A word for what is wrong with it.
pub(super) fn parse(bytes: &[u8], most: usize) -> Result<Sitemap, &'static str> {
    let unpacked = match bytes.starts_with(&[0x1f, 0x8b]) {
        true => Some(unpack(bytes)?),
        false => None,
    };
    let bytes = unpacked.as_deref().unwrap_or(bytes);
    let text = std::str::from_utf8(bytes).map_err(|_not_text| "sitemap-not-text")?;
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let found: Box<dyn Iterator<Item = String>> = match text.starts_with('<') {
        true => Box::new(locations(text)),
        false => Box::new(lines(text)),
    };
    let mut urls: Vec<String> = found.take(most.saturating_add(1)).collect();
    let more = urls.len() > most;
    urls.truncate(most);
    match urls.is_empty() {
        true => Err("sitemap-empty"),
        false => Ok(Sitemap { index: text.contains("<sitemapindex"), urls, more }),
    }
}

fn unpack(bytes: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut out = Vec::new();
    let mut reader = flate2::read::MultiGzDecoder::new(bytes).take(LARGEST as u64 + 1);
    reader.read_to_end(&mut out).map_err(|_broken| "sitemap-not-gzip")?;
    if out.len() > LARGEST { Err("sitemap-too-large") } else { Ok(out) }
}

/// The texts of `<loc>`, and of no `<image:loc>` or `<location>`.
fn locations(text: &str) -> impl Iterator<Item = String> {
    text.split("<loc").skip(1).filter_map(|rest| {
        let (inside, after) = rest.split_once('>')?;
        if !(inside.is_empty() || inside.starts_with(|letter: char| letter.is_ascii_whitespace())) {
            return None;
        }
        let (content, _) = after.split_once("</loc")?;
        let content = content.trim();
        let plain = content.strip_prefix("<![CDATA[").and_then(|text| text.strip_suffix("]]>"));
        match plain {
            Some(plain) => Some(plain.trim().to_owned()),
            None => unescaped(content),
        }
    })
}

fn lines(text: &str) -> impl Iterator<Item = String> {
    let lines = text.lines().map(str::trim);
    lines.filter(|line| line.starts_with("http://") || line.starts_with("https://")).map(Into::into)
}

/// Text with its references replaced (XML 1.0 section 4.6); `None` where one is not known.
fn unescaped(text: &str) -> Option<String> {
    let mut pieces = text.split('&');
    let mut out = pieces.next()?.to_owned();
    for piece in pieces {
        let (name, rest) = piece.split_once(';')?;
        out.push(match name {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            "apos" => '\'',
            _ => {
                let number = name.strip_prefix('#')?;
                let code = match number.strip_prefix('x') {
                    Some(digits) => u32::from_str_radix(digits, 16).ok()?,
                    None => number.parse().ok()?,
                };
                char::from_u32(code)?
            }
        });
        out.push_str(rest);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    fn urls(text: &str) -> Vec<String> {
        parse(text.as_bytes(), 10).map(|sitemap| sitemap.urls).unwrap_or_default()
    }

    #[test]
    fn locations_are_read_and_nothing_else() {
        for (text, expected) in [
            ("<urlset><url><loc>https://a/b</loc></url></urlset>", vec!["https://a/b"]),
            (
                "\u{feff} <x><loc >\n https://a/?b&amp;c=%20&#38;&#x26; \n</loc ></x>",
                vec!["https://a/?b&c=%20&&"],
            ),
            ("<x><loc><![CDATA[https://a/?b&c]]></loc></x>", vec!["https://a/?b&c"]),
            ("<x><image:loc>https://a/i</image:loc><location>https://a/l</location></x>", vec![]),
            ("<x><loc>https://a/&file;</loc><loc>https://a/&amp</loc><loc>https://a/1", vec![]),
            (
                "# pages\nhttps://a/1\r\n\n  http://a/2\nftp://a/3\n",
                vec!["https://a/1", "http://a/2"],
            ),
            ("<html>no sitemap</html>", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(urls(text), expected, "{text}");
        }
    }

    #[test]
    fn an_index_is_told_from_a_list_and_both_are_bounded() {
        let index =
            "<?xml version=\"1.0\"?><sitemapindex xmlns=\"x\"><sitemap><loc>https://a/1</loc>";
        assert!(parse(index.as_bytes(), 1).unwrap().index);
        let three = "<urlset><loc>https://a/1</loc><loc>https://a/2</loc><loc>https://a/3</loc>";
        for (most, count, more) in [(1, 1, true), (2, 2, true), (3, 3, false), (9, 3, false)] {
            let read = parse(three.as_bytes(), most).unwrap();
            assert_eq!((read.index, read.urls.len(), read.more), (false, count, more));
        }
    }

    #[test]
    fn a_gzipped_one_is_unpacked_up_to_a_bound() {
        let pack = |bytes: &[u8]| {
            let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            writer.write_all(bytes).unwrap();
            writer.finish().unwrap()
        };
        let packed = pack(b"<urlset><loc>https://a/b</loc></urlset>");
        assert_eq!(parse(&packed, 5).unwrap().urls, ["https://a/b"]);
        assert_eq!(parse(&packed[..20], 5), Err("sitemap-not-gzip"));
        assert_eq!(parse(&pack(&vec![b' '; LARGEST + 1]), 5), Err("sitemap-too-large"));
    }

    proptest! {
        #[test]
        fn no_text_upsets_it_and_the_bound_holds(text in "(<loc>|</loc>|<!\\[CDATA\\[|]]>|&|;|#x|\\PC){0,60}", most in 0_usize..4) {
            if let Ok(read) = parse(text.as_bytes(), most) {
                prop_assert!(read.urls.len() <= most);
            }
        }
    }
}
