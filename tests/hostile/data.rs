//! The cases, as they stand in `cases/*.toml`, and the small language that their bytes are written
//! in:
//!
//! ```text
//! \r \n \t \0 \\ \xNN    one byte
//! {u}                    a number of six digits, another one in every run
//! {TEXT*COUNT}           TEXT so many times
//! ```

use serde::Deserialize;

/// A file of HTTP/1 cases.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    case: Vec<Case>,
}

/// One case: what is sent in which ways, and what must come of it.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    /// Number in the catalogue, or `X` and a number for a relative of one.
    pub(crate) id: String,
    pub(crate) title: String,
    /// `REJ 400`, `BODY 400`, `OK`, `LOCAL 204`, `CLOSE`, `EITHER 400`; see `http1`.
    pub(crate) expect: String,
    /// Name of the file that it stands in.
    #[serde(skip)]
    pub(crate) file: &'static str,
    /// What comes before each of `rest`.
    #[serde(default = "base")]
    pub(crate) base: String,
    #[serde(default)]
    pub(crate) rest: Vec<String>,
    /// Whole messages.
    #[serde(default)]
    pub(crate) whole: Vec<String>,
    /// Statuses of the final answers, where it is not one 200.
    #[serde(default)]
    pub(crate) answers: Vec<u16>,
    /// `METHOD target` of what the origin gets, where it is not the one request.
    pub(crate) origin: Option<Vec<String>>,
    /// Fields of the first request at the origin.
    #[serde(default)]
    pub(crate) sees: Vec<String>,
    /// Names that it must not have.
    #[serde(default)]
    pub(crate) lacks: Vec<String>,
    /// Its body.
    pub(crate) body: Option<String>,
    /// Whether the connection ends after the last answer although nothing was refused.
    #[serde(default)]
    pub(crate) closes: bool,
    /// Whether the client says FIN after its bytes.
    #[serde(default)]
    pub(crate) fin: bool,
    /// Whether `/a{u}` is stored before.
    #[serde(default)]
    pub(crate) primed: bool,
    /// What the origin says to `/a{u}`.
    pub(crate) says: Option<String>,
    /// Whether the origin says so as soon as it has the head.
    #[serde(default)]
    pub(crate) early: bool,
    /// Whether the origin's connection must end.
    #[serde(default)]
    pub(crate) kills: bool,
    /// Ways of cutting that mean nothing here, each with its reason after a colon.
    #[serde(default)]
    pub(crate) without: Vec<String>,
    /// `plain`, `tls`: the only transport; `raw`: plain bytes to the TLS port.
    pub(crate) over: Option<String>,
}

fn base() -> String {
    r"POST /a{u} HTTP/1.1\r\nHost: h\r\n".to_owned()
}

impl Case {
    /// All that is sent, each a probe of its own.
    pub(crate) fn messages(&self) -> Vec<String> {
        let rest = self.rest.iter().map(|rest| format!("{}{rest}", self.base));
        rest.chain(self.whole.iter().cloned()).collect()
    }

    /// Group of the table in the documentation.
    pub(crate) fn group(&self) -> char {
        self.id.chars().next().unwrap_or('?')
    }
}

const FILES: [(&str, &str); 6] = [
    ("framing", include_str!("cases/framing.toml")),
    ("chunks", include_str!("cases/chunks.toml")),
    ("lines", include_str!("cases/lines.toml")),
    ("fields", include_str!("cases/fields.toml")),
    ("exchanges", include_str!("cases/exchanges.toml")),
    ("answers", include_str!("cases/answers.toml")),
];

/// Every HTTP/1 case.
pub(crate) fn load() -> Vec<Case> {
    let read = |(file, text): (&'static str, &str)| {
        let cases = toml::from_str::<File>(text).unwrap().case;
        cases.into_iter().map(move |case| Case { file, ..case })
    };
    FILES.into_iter().flat_map(read).collect()
}

/// The bytes that a text stands for.
pub(crate) fn bytes(text: &str, number: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = match (first, tail) {
            (b'\\', [b'x', high, low, tail @ ..]) => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16).unwrap() as u8;
                out.push(digit(high) << 4 | digit(low));
                tail
            }
            (b'\\', [letter, tail @ ..]) => {
                let letters =
                    [(b'r', b'\r'), (b'n', b'\n'), (b't', b'\t'), (b'0', 0), (b'\\', b'\\')];
                out.push(letters.iter().find(|(name, _)| name == letter).unwrap().1);
                tail
            }
            (b'{', tail) => {
                let mut depth = 1;
                let ends = |byte: &u8| {
                    depth += i32::from(*byte == b'{') - i32::from(*byte == b'}');
                    depth == 0
                };
                let end = tail.iter().position(ends).unwrap();
                out.extend(braces(str::from_utf8(&tail[..end]).unwrap(), number));
                &tail[end + 1..]
            }
            (byte, tail) => {
                out.push(*byte);
                tail
            }
        };
    }
    out
}

fn braces(inner: &str, number: u32) -> Vec<u8> {
    if inner == "u" {
        return format!("{number:06}").into_bytes();
    }
    let (text, count) = inner.rsplit_once('*').unwrap();
    bytes(text, number).repeat(count.parse().unwrap())
}

#[test]
fn texts_stand_for_bytes() {
    assert_eq!(bytes(r"a{u}\r\n\x00\xff{b{c*2}\t*2}", 7), b"a000007\r\n\0\xffbcc\tbcc\t");
}
