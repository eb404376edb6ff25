//! The scripted origin: answers as each test's exchanges say, and notes what it saw.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::data::{self, Exchange};
use crate::wire::{Fields, Wire, latin1};

/// A request that reached the origin.
#[derive(Clone, Debug)]
pub(crate) struct Noted {
    pub(crate) number: Option<usize>,
    pub(crate) method: String,
    pub(crate) fields: Fields,
    /// Fields of the answer that the client must see unchanged.
    pub(crate) checked: Vec<(String, String)>,
}

/// One test run as the origin sees it.
#[derive(Default)]
struct Run {
    exchanges: Vec<Exchange>,
    noted: Vec<Noted>,
    /// Dates that were sent, by exchange and field.
    sent: HashMap<(usize, String), String>,
}

#[derive(Clone, Default)]
pub(crate) struct Origin {
    runs: Arc<Mutex<HashMap<String, Run>>>,
}

impl Origin {
    pub(crate) fn start() -> io::Result<(Self, SocketAddr)> {
        let own = std::env::var("ORIGIN").unwrap_or_else(|_any| "127.0.0.1:0".to_owned());
        let listener = TcpListener::bind(own)?;
        let address = listener.local_addr()?;
        let origin = Self::default();
        let shared = origin.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = shared.clone();
                std::thread::spawn(move || shared.serve(stream));
            }
        });
        Ok((origin, address))
    }

    pub(crate) fn expect(&self, uuid: &str, exchanges: Vec<Exchange>) {
        let run = Run { exchanges, ..Run::default() };
        self.runs.lock().unwrap().insert(uuid.to_owned(), run);
    }

    pub(crate) fn noted(&self, uuid: &str) -> Vec<Noted> {
        self.runs.lock().unwrap().get(uuid).map(|run| run.noted.clone()).unwrap_or_default()
    }

    fn serve(&self, stream: TcpStream) {
        let Ok(mut wire) = Wire::new(stream) else { return };
        while let Ok(Some((start, fields))) = wire.head() {
            let mut words = start.split(' ');
            let method = words.next().unwrap_or_default().to_owned();
            let target = words.next().unwrap_or_default().to_owned();
            let length = fields.get("content-length").and_then(|length| length.parse().ok());
            if wire.exactly(length.unwrap_or(0)).is_err() {
                return;
            }
            if fields.has("transfer-encoding") && wire.chunked().is_err() {
                return;
            }
            match self.answer(&mut wire, &method, &target, fields) {
                Ok(true) => {}
                Ok(false) | Err(_) => return,
            }
        }
    }

    /// Answers one request; `false` ends the connection.
    fn answer(
        &self,
        wire: &mut Wire,
        method: &str,
        target: &str,
        fields: Fields,
    ) -> io::Result<bool> {
        let uuid = target.split(['/', '?']).nth(2).unwrap_or_default().to_owned();
        let number = fields.get("req-num").and_then(|number| number.parse::<usize>().ok());
        let exchange = {
            let runs = self.runs.lock().unwrap();
            runs.get(&uuid).and_then(|run| {
                let index = number.unwrap_or(run.noted.len() + 1);
                let previous = index.checked_sub(2).and_then(|at| run.exchanges.get(at)).cloned();
                run.exchanges.get(index.wrapping_sub(1)).cloned().map(|e| (index, e, previous))
            })
        };
        let Some((index, exchange, previous)) = exchange else {
            wire.send(b"HTTP/1.1 409 Conflict\r\nContent-Length: 0\r\n\r\n")?;
            return Ok(true);
        };
        if let Some(pause) = exchange.response_pause {
            std::thread::sleep(Duration::from_secs_f64(pause));
        }
        for interim in &exchange.interim_responses {
            wire.send(&interim_bytes(interim))?;
        }
        let now = millis();
        let mut out = Vec::new();
        let status = {
            let runs = self.runs.lock().unwrap();
            status(&exchange, previous.as_ref(), &fields, runs.get(&uuid), index)
        };
        out.extend(format!("HTTP/1.1 {} {}\r\n", status.0, status.1).as_bytes());
        let (mut sent, checked) = self.fields(&exchange, &uuid, index, target, now);
        let body = exchange.response_body.clone().filter(|body| !body.is_empty());
        let body = body.unwrap_or_else(|| uuid.clone()).into_bytes();
        let bodiless = method == "HEAD" || status.0 == 204 || status.0 == 304;
        for (name, value) in [("Connection", "keep-alive"), ("Keep-Alive", "timeout=5")] {
            if !sent.has(name) {
                sent.0.push((name.to_owned(), value.to_owned()));
            }
        }
        let own_length = sent.get("content-length");
        let coded = sent.has("transfer-encoding");
        if own_length.is_none() && !coded && !bodiless {
            sent.0.push(("Content-Length".to_owned(), body.len().to_string()));
        }
        {
            let mut runs = self.runs.lock().unwrap();
            let run = runs.entry(uuid.clone()).or_default();
            run.noted.push(Noted { number, method: method.to_owned(), fields, checked });
            let count = run.noted.len().to_string();
            let numbers: Vec<String> =
                run.noted.iter().filter_map(|noted| noted.number).map(|n| n.to_string()).collect();
            sent.0.insert(0, ("Server-Request-Count".to_owned(), count));
            sent.0.insert(0, ("Request-Numbers".to_owned(), numbers.join(" ")));
        }
        if exchange.disconnect {
            return Ok(false);
        }
        sent.write(&mut out);
        out.extend(b"\r\n");
        if !bodiless {
            out.extend(&body);
        }
        wire.send(&out)?;
        let honest = own_length.is_none_or(|length| length == body.len().to_string());
        Ok(honest && !coded)
    }

    /// Fields of an answer, and those that the client must see unchanged.
    fn fields(
        &self,
        exchange: &Exchange,
        uuid: &str,
        index: usize,
        target: &str,
        now: i64,
    ) -> (Fields, Vec<(String, String)>) {
        let mut sent = Fields::default();
        let base = target.to_owned();
        for (name, value) in [
            ("Server-Base-Url", base.as_str()),
            ("Client-Request-Count", &index.to_string()),
            ("Server-Now", &now.to_string()),
        ] {
            sent.0.push((name.to_owned(), value.to_owned()));
        }
        let mut checked: Vec<(String, String)> = Vec::new();
        for row in &exchange.response_headers {
            let name = row.first().and_then(Value::as_str).unwrap_or_default();
            let mut value =
                data::value(name, row.get(1).unwrap_or(&Value::Null), now, &exchange.rfc850date);
            let lower = name.to_ascii_lowercase();
            if exchange.magic_locations && (lower == "location" || lower == "content-location") {
                value = if value.is_empty() { base.clone() } else { format!("{base}/{value}") };
            }
            if row.get(1).is_some_and(Value::is_number) {
                let mut runs = self.runs.lock().unwrap();
                if let Some(run) = runs.get_mut(uuid) {
                    run.sent.insert((index, lower), value.clone());
                }
            }
            sent.0.push((name.to_owned(), value.clone()));
            if row.get(2).is_none_or(|checked| checked == &Value::Bool(true)) {
                match checked.iter_mut().find(|(other, _)| other.eq_ignore_ascii_case(name)) {
                    Some((_, there)) => {
                        there.push_str(", ");
                        there.push_str(&value);
                    }
                    None => checked.push((name.to_owned(), value)),
                }
            }
        }
        if !sent.has("content-type") {
            sent.0.push(("Content-Type".to_owned(), "text/plain".to_owned()));
        }
        if !sent.has("date") {
            sent.0.push(("Date".to_owned(), data::date(now, 0.0, false)));
        }
        (sent, checked)
    }
}

/// The status: the scripted one, or what a conditional request deserves.
fn status(
    exchange: &Exchange,
    previous: Option<&Exchange>,
    request: &Fields,
    run: Option<&Run>,
    index: usize,
) -> (u16, String) {
    if !exchange.is("etag_validated") && !exchange.is("lm_validated") {
        return exchange.response_status.clone().unwrap_or((200, "OK".to_owned()));
    }
    let matches = |validator: &str, condition: &str| {
        let row = previous?.response_headers.iter().rfind(|row| {
            row.first().and_then(Value::as_str).is_some_and(|n| n.eq_ignore_ascii_case(validator))
        })?;
        let expected = match row.get(1)? {
            Value::String(text) => text.clone(),
            _ => run?.sent.get(&(index - 1, validator.to_owned()))?.clone(),
        };
        (request.get(condition)? == expected).then_some(())
    };
    let fits = matches("last-modified", "if-modified-since").is_some()
        || matches("etag", "if-none-match").is_some();
    if fits { (304, "Not Modified".to_owned()) } else { (999, "304 Not Generated".to_owned()) }
}

fn interim_bytes(interim: &[Value]) -> Vec<u8> {
    let code = interim.first().and_then(Value::as_u64).unwrap_or(103);
    let mut out = format!("HTTP/1.1 {code} Interim\r\n").into_bytes();
    for row in interim.get(1).and_then(Value::as_array).into_iter().flatten() {
        let name = row.get(0).and_then(Value::as_str).unwrap_or_default();
        let value = row.get(1).and_then(Value::as_str).unwrap_or_default();
        out.extend(latin1(&format!("{name}: {value}\r\n")));
    }
    out.extend(b"\r\n");
    out
}

fn millis() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or_default()
}
