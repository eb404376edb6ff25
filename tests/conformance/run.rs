//! Runs one test through the cache and judges it, with the verdicts of the published suite.

use std::time::Duration;

use serde_json::Value;

use crate::data::{self, Exchange, Test};
use crate::edge::{Connection, Reach};
use crate::origin::{Noted, Origin};
use crate::wire::{Fields, PATIENCE, Response};

/// Why a test did not succeed.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// It could not be set up.
    Setup(String),
    /// What it checks does not hold.
    Assertion(String),
    /// No answer in time.
    Timeout,
}

/// A check that failed, and whether that is a matter of set-up.
fn fail<T>(setup: bool, why: impl Into<String>) -> Result<T, Failure> {
    Err(if setup { Failure::Setup(why.into()) } else { Failure::Assertion(why.into()) })
}

/// Runs a test once, under a fresh identifier.
pub(crate) fn run(
    test: &Test,
    edge: &impl Reach,
    origin: &Origin,
    uuid: &str,
) -> Result<(), Failure> {
    origin.expect(uuid, test.requests.clone());
    let mut client = Client { edge, connection: None };
    let mut responses: Vec<Response> = Vec::new();
    for (index, exchange) in test.requests.iter().enumerate() {
        let fields = request_fields(test, exchange, index + 1, responses.last());
        let response = client.exchange(exchange, uuid, &fields)?;
        check_response(exchange, index + 1, &response, uuid)?;
        responses.push(response);
        if exchange.pause_after {
            std::thread::sleep(Duration::from_secs(3));
        }
    }
    check_origin(test, &responses, &origin.noted(uuid))
}

struct Client<'a, E> {
    edge: &'a E,
    connection: Option<Connection>,
}

impl<E: Reach> Client<'_, E> {
    fn exchange(
        &mut self,
        exchange: &Exchange,
        uuid: &str,
        fields: &Fields,
    ) -> Result<Response, Failure> {
        let mut target = format!("/test/{uuid}");
        if let Some(name) = &exchange.filename {
            target = format!("{target}/{name}");
        }
        if let Some(query) = &exchange.query_arg {
            target = format!("{target}?{query}");
        }
        let started = std::time::Instant::now();
        match self.once(exchange, &target, fields) {
            Ok(response) => Ok(response),
            Err(_) if started.elapsed() >= PATIENCE => Err(Failure::Timeout),
            Err(error) => fail(exchange.setup, format!("no response: {error}")),
        }
    }

    fn once(
        &mut self,
        exchange: &Exchange,
        target: &str,
        fields: &Fields,
    ) -> std::io::Result<Response> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.edge.connect()?,
        };
        let body = exchange.request_body.as_deref();
        let (response, alive) = connection.exchange(exchange.method(), target, fields, body)?;
        self.connection = alive.then_some(connection);
        Ok(response)
    }
}

/// What the suite's client sends.
fn request_fields(
    test: &Test,
    exchange: &Exchange,
    number: usize,
    previous: Option<&Response>,
) -> Fields {
    let mut fields = Fields::default();
    fields.join("Pragma", "foo");
    fields.join("Cache-Control", "nothing-to-see-here");
    let server_now = previous
        .and_then(|response| response.fields.get("server-now"))
        .and_then(|now| now.parse().ok())
        .unwrap_or_default();
    for (name, value) in &exchange.request_headers {
        let value = data::value(name, value, server_now, &exchange.rfc850date);
        fields.join(name, value.trim());
    }
    let _ = exchange.magic_ims; // A number is an offset with or without it.
    fields.join("Test-Name", &test.name);
    fields.join("Test-ID", &test.id);
    fields.join("Req-Num", &number.to_string());
    let coding = if fields.has("range") { "identity" } else { "gzip, deflate" };
    let mut usual = vec![
        ("accept", "*/*".to_owned()),
        ("accept-language", "*".to_owned()),
        ("sec-fetch-mode", "cors".to_owned()),
        ("user-agent", "node".to_owned()),
        ("accept-encoding", coding.to_owned()),
    ];
    if let Some(body) = &exchange.request_body {
        usual.push(("content-length", body.len().to_string()));
        usual.push(("content-type", "text/plain;charset=UTF-8".to_owned()));
    }
    for (name, value) in usual {
        if !fields.has(name) {
            fields.join(name, &value);
        }
    }
    fields
}

fn check_response(
    exchange: &Exchange,
    number: usize,
    response: &Response,
    uuid: &str,
) -> Result<(), Failure> {
    let fields = &response.fields;
    let numbers = fields.get("request-numbers").unwrap_or_default();
    let mut seen = std::collections::BTreeSet::new();
    if !numbers.split(' ').all(|number| seen.insert(number)) {
        return fail(true, "retry: the cache sent a request twice");
    }
    check_type(exchange, number, response)?;
    check_status(exchange, response)?;
    for expected in &exchange.expected_response_headers {
        check_field(exchange, expected, fields)?;
    }
    for expected in &exchange.expected_response_headers_missing {
        if let Value::String(name) = expected
            && fields.has(name)
        {
            return fail(
                exchange.sets_up("expected_response_headers_missing"),
                format!("response {number} has {name}"),
            );
        }
    }
    check_interim(exchange, response)?;
    check_body(exchange, response, uuid)
}

fn check_type(exchange: &Exchange, number: usize, response: &Response) -> Result<(), Failure> {
    let setup = exchange.sets_up("expected_type");
    let count = response.fields.get("server-request-count").and_then(|c| c.parse::<usize>().ok());
    if exchange.is("cached") {
        let fine = match count {
            None => response.status == 304,
            Some(count) => count < number,
        };
        if !fine {
            return fail(setup, format!("response {number} does not come from the cache"));
        }
    }
    if exchange.is("not_cached") && count != Some(number) {
        return fail(setup, format!("response {number} comes from the cache"));
    }
    Ok(())
}

fn check_status(exchange: &Exchange, response: &Response) -> Result<(), Failure> {
    let status = response.status;
    if let Some(expected) = &exchange.expected_status {
        return match expected.as_u64() {
            Some(code) if code != u64::from(status) => {
                fail(exchange.sets_up("expected_status"), format!("status {status}, not {code}"))
            }
            _ => Ok(()),
        };
    }
    match &exchange.response_status {
        Some((code, _)) if *code != status => fail(true, format!("status {status}, not {code}")),
        Some(_) => Ok(()),
        None if status == 999 => fail(
            exchange.sets_up("expected_type"),
            "the request should have been conditional, and was not",
        ),
        None if status != 200 => fail(true, format!("status {status}, not 200")),
        None => Ok(()),
    }
}

fn check_field(exchange: &Exchange, expected: &Value, fields: &Fields) -> Result<(), Failure> {
    let setup = exchange.sets_up("expected_response_headers");
    let row: Vec<&Value> = match expected {
        Value::Array(row) => row.iter().collect(),
        single => vec![single],
    };
    let name = row.first().and_then(|name| name.as_str()).unwrap_or_default();
    let Some(value) = fields.get(name) else {
        return fail(setup, format!("no {name} in the response"));
    };
    let good = match row[..] {
        [_] => true,
        [_, expected] => {
            let now = fields.get("server-now").and_then(|now| now.parse().ok()).unwrap_or(0);
            value == data::value(name, expected, now, &exchange.rfc850date)
        }
        [_, operator, other] if operator == "=" => {
            Some(value.clone()) == fields.get(other.as_str().unwrap_or_default())
        }
        [_, operator, least] if operator == ">" => {
            let digits: String = value.chars().take_while(char::is_ascii_digit).collect();
            digits.parse::<f64>().is_ok_and(|number| number > least.as_f64().unwrap_or(0.0))
        }
        _ => false,
    };
    if good { Ok(()) } else { fail(setup, format!("{name} is {value:?}, wanted {expected}")) }
}

fn check_interim(exchange: &Exchange, response: &Response) -> Result<(), Failure> {
    let Some(expected) = &exchange.expected_interim_responses else { return Ok(()) };
    let setup = exchange.sets_up("expected_interim_responses");
    for (at, row) in expected.iter().enumerate() {
        let Some((status, fields)) = response.interim.get(at) else {
            return fail(setup, "an interim response is missing");
        };
        if row.first().and_then(Value::as_u64) != Some(u64::from(*status)) {
            return fail(setup, format!("interim status {status}"));
        }
        for field in row.get(1).and_then(Value::as_array).into_iter().flatten() {
            let name = field.get(0).and_then(Value::as_str).unwrap_or_default();
            if !fields.has(name) {
                return fail(setup, format!("interim response without {name}"));
            }
        }
    }
    if expected.len() != response.interim.len() {
        return fail(setup, format!("{} interim responses", response.interim.len()));
    }
    Ok(())
}

fn check_body(exchange: &Exchange, response: &Response, uuid: &str) -> Result<(), Failure> {
    if exchange.check_body == Some(false) {
        return Ok(());
    }
    let (setup, expected) = match (&exchange.expected_response_text, &exchange.response_body) {
        (Some(Value::String(text)), _) => {
            (exchange.sets_up("expected_response_text"), text.as_str())
        }
        (Some(_), _) => return Ok(()),
        (None, Some(body)) => (true, body.as_str()),
        (None, None) => {
            let none = matches!(response.status, 204 | 304) || exchange.method() == "HEAD";
            if none {
                return Ok(());
            }
            (true, uuid)
        }
    };
    if response.body == expected {
        Ok(())
    } else {
        fail(setup, format!("body is {:?}, wanted {expected:?}", response.body))
    }
}

/// Walks the exchanges along what the origin noted.
fn check_origin(test: &Test, responses: &[Response], noted: &[Noted]) -> Result<(), Failure> {
    let mut noted = noted.iter();
    for (index, (exchange, response)) in test.requests.iter().zip(responses).enumerate() {
        if exchange.is("cached") {
            continue;
        }
        let request = noted.next();
        let number = index + 1;
        let needed = || match request {
            Some(request) => Ok(request),
            None => Err(Failure::Assertion(format!("the origin never saw request {number}"))),
        };
        let typed = exchange.sets_up("expected_type");
        if exchange.is("not_cached") && needed()?.number != Some(number) {
            return fail(typed, format!("the origin saw another request than {number}"));
        }
        for (expected, condition) in
            [("etag_validated", "if-none-match"), ("lm_validated", "if-modified-since")]
        {
            if exchange.is(expected)
                && !request.is_some_and(|request| request.fields.has(condition))
            {
                return fail(typed, format!("request {number} came without {condition}"));
            }
        }
        for expected in &exchange.expected_request_headers {
            let setup = exchange.sets_up("expected_request_headers");
            let fields = &needed()?.fields;
            let (name, value) = match expected {
                Value::String(name) => (name.as_str(), None),
                row => (row[0].as_str().unwrap_or_default(), row[1].as_str()),
            };
            let there = fields.get(name);
            if there.is_none() || value.is_some_and(|value| there.as_deref() != Some(value)) {
                return fail(setup, format!("the origin saw {name}: {there:?}, not {value:?}"));
            }
        }
        for expected in &exchange.expected_request_headers_missing {
            let setup = exchange.sets_up("expected_request_headers_missing");
            if let Value::String(name) = expected
                && needed()?.fields.has(name)
            {
                return fail(setup, format!("the origin saw {name}"));
            }
        }
        for (name, value) in request.map(|request| request.checked.as_slice()).unwrap_or_default() {
            if name.eq_ignore_ascii_case("date") {
                continue;
            }
            let there = response.fields.get(name);
            if there.as_deref() != Some(value) {
                return fail(true, format!("{name} is {there:?} and was sent as {value:?}"));
            }
        }
        if let Some(method) = &exchange.expected_method
            && needed()?.method != *method
        {
            return fail(exchange.sets_up("expected_method"), "another method reached the origin");
        }
    }
    Ok(())
}
