//! The document describes what is answered: requests made from its schemas, sound and spoilt, are
//! sent to every route, and each answer has to be one that it foresees.

use serde_json::{Map, Value, json};

use super::*;

/// As much of YAML as the document uses, in the order of its lines.
struct Yaml {
    lines: Vec<(usize, String)>,
    at: usize,
}

impl Yaml {
    fn read(text: &str) -> Value {
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        let lines = lines.map(|line| {
            let text = line.trim_start();
            (line.len() - text.len(), text.to_owned())
        });
        let mut yaml = Self { lines: lines.collect(), at: 0 };
        let value = yaml.block(0);
        assert_eq!(yaml.at, yaml.lines.len(), "read to its end");
        value
    }

    fn next(&self, indent: usize) -> Option<String> {
        self.lines.get(self.at).filter(|(own, _)| *own == indent).map(|(_, text)| text.clone())
    }

    fn block(&mut self, indent: usize) -> Value {
        if self.next(indent).is_some_and(|text| text.starts_with("- ")) {
            return self.list(indent);
        }
        let mut map = Map::new();
        while let Some(line) = self.next(indent) {
            let (key, rest) = split(&line).unwrap_or_else(|| panic!("no key: {line}"));
            self.at += 1;
            let value = match rest {
                "" => self.block(indent + 2),
                "|" => self.text(indent),
                rest => scalar(rest),
            };
            assert!(map.insert(key.trim_matches('"').to_owned(), value).is_none(), "{key} twice");
        }
        Value::Object(map)
    }

    fn list(&mut self, indent: usize) -> Value {
        let mut list = Vec::new();
        while let Some(rest) =
            self.next(indent).and_then(|t| t.strip_prefix("- ").map(str::to_owned))
        {
            if !rest.starts_with(['"', '[', '{']) && split(&rest).is_some() {
                self.lines[self.at] = (indent + 2, rest);
                list.push(self.block(indent + 2));
            } else {
                self.at += 1;
                list.push(scalar(&rest));
            }
        }
        Value::Array(list)
    }

    /// A text of several lines.
    fn text(&mut self, indent: usize) -> Value {
        let mut text = String::new();
        while let Some((_, line)) = self.lines.get(self.at).filter(|(own, _)| *own > indent) {
            text += line;
            text.push('\n');
            self.at += 1;
        }
        text.into()
    }
}

/// Key and value of a line.
fn split(line: &str) -> Option<(&str, &str)> {
    line.split_once(": ").or_else(|| line.strip_suffix(':').map(|key| (key, "")))
}

fn scalar(text: &str) -> Value {
    if let Ok(value) = serde_json::from_str(text) {
        return value;
    }
    match text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        Some(list) => list.split(", ").map(scalar).collect(),
        None => text.into(),
    }
}

/// The document, and what can be asked of it.
struct Document(Value);

impl Document {
    fn read() -> Self {
        Self(Yaml::read(include_str!("../../../docs/openapi.yaml")))
    }

    fn resolve<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(name) => self.0.pointer(name.trim_start_matches('#')).expect(name),
            None => value,
        }
    }

    fn operation(&self, route: &Route) -> &Value {
        &self.0["paths"][route.path][route.method.as_str().to_lowercase()]
    }

    fn body_of(&self, route: &Route) -> Option<&Value> {
        self.operation(route).pointer("/requestBody/content/application~1json/schema")
    }

    /// Whether the document foresees this answer.
    fn foresees(&self, route: &Route, answer: &Answer) -> Result<(), String> {
        let responses = &self.operation(route)["responses"];
        let response = self.resolve(&responses[answer.status.to_string()]);
        let content = response["content"].as_object().ok_or("a status that is not described")?;
        let media_type = answer.header("content-type").split(';').next().unwrap_or_default();
        let schema = &content.get(media_type).ok_or(format!("it is {media_type}"))?["schema"];
        for name in response["headers"].as_object().map_or_else(Vec::new, |h| h.keys().collect()) {
            answer.headers.get(name.to_lowercase()).ok_or(format!("no {name}"))?;
        }
        if media_type == "text/plain" { Ok(()) } else { self.fits(schema, &answer.json(), true) }
    }

    /// Whether a value is as a schema says; `closed`: members have to be described.
    fn fits(&self, schema: &Value, value: &Value, closed: bool) -> Result<(), String> {
        let schema = self.resolve(schema);
        let fail = |why: &str| Err(format!("{why}: {value} under {schema}"));
        for (keyword, rule) in schema.as_object().expect("a schema") {
            let length = || value.as_str().map_or(0, |text| text.chars().count() as u64);
            let items = || value.as_array().map_or(0, |list| list.len() as u64);
            let fine = match &**keyword {
                "type" => match rule {
                    Value::Array(names) => names.iter().any(|name| is(value, name)),
                    name => is(value, name),
                },
                "const" => rule == value,
                "enum" => rule.as_array().unwrap().contains(value),
                "oneOf" => {
                    let fits = |one: &&Value| self.fits(one, value, closed).is_ok();
                    rule.as_array().unwrap().iter().filter(fits).count() == 1
                }
                "not" => self.fits(rule, value, closed).is_err(),
                "minLength" => !value.is_string() || length() >= rule.as_u64().unwrap(),
                "maxLength" => length() <= rule.as_u64().unwrap(),
                "minItems" => !value.is_array() || items() >= rule.as_u64().unwrap(),
                "maxItems" => items() <= rule.as_u64().unwrap(),
                "minimum" => value.as_f64().is_none_or(|number| number >= rule.as_f64().unwrap()),
                "maximum" => value.as_f64().is_none_or(|number| number <= rule.as_f64().unwrap()),
                "required" => {
                    let there = |name: &Value| value.get(name.as_str().unwrap()).is_some();
                    !value.is_object() || rule.as_array().unwrap().iter().all(there)
                }
                "items" => {
                    for item in value.as_array().into_iter().flatten() {
                        self.fits(rule, item, closed)?;
                    }
                    true
                }
                "properties" | "additionalProperties" => true,
                "description" | "default" | "examples" | "format" | "pattern" => true,
                other => panic!("the validator does not know {other}"),
            };
            if !fine {
                return fail(keyword);
            }
        }
        let described = schema["properties"].as_object();
        for (name, member) in value.as_object().into_iter().flatten() {
            let further = &schema["additionalProperties"];
            match (described.and_then(|all| all.get(name)), further) {
                (Some(schema), _) => self.fits(schema, member, closed)?,
                (None, Value::Object(_)) => self.fits(further, member, closed)?,
                (None, Value::Bool(true)) => {}
                (None, Value::Null) if !closed || described.is_none() => {}
                (None, _) => return fail(&format!("{name} is not described")),
            }
        }
        Ok(())
    }
}

fn is(value: &Value, name: &Value) -> bool {
    match name.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("no type {other}"),
    }
}

/// Dice that fall the same way every time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.0 >> 33) % most as u64).unwrap()
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// A value after a schema, now and then one that is not.
    fn value(&mut self, document: &Document, schema: &Value) -> Value {
        let schema = document.resolve(schema);
        if self.below(40) == 0 {
            let odd = [json!(null), json!([]), json!({}), json!(-1), json!("x"), json!(1e300)];
            return self.pick(&odd).clone();
        }
        if let Some(choice) = schema["enum"].as_array().or(schema["oneOf"].as_array()) {
            let one = self.pick(choice).clone();
            return if one.is_object() { self.value(document, &one) } else { one };
        }
        match schema["type"].as_str().unwrap_or("string") {
            "object" => {
                let mut map = Map::new();
                for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
                    let needed =
                        schema["required"].as_array().is_some_and(|all| all.contains(&json!(name)));
                    if needed || self.below(4) == 0 {
                        map.insert(name.clone(), self.value(document, schema));
                    }
                }
                if self.below(30) == 0 {
                    map.insert(self.text(), json!(true));
                }
                Value::Object(map)
            }
            "array" => {
                let count = self.below(4);
                (0..count).map(|_| self.value(document, &schema["items"])).collect()
            }
            "boolean" => json!(self.below(2) == 0),
            "integer" => json!([0, 1, 7, 100, 101, -1, i64::MAX][self.below(7)]),
            _ => json!(self.text()),
        }
    }

    fn text(&mut self) -> String {
        const TEXTS: [&str; 36] = [
            "shop",
            "blog",
            "gone",
            "a",
            "article-17",
            "",
            "*",
            " ",
            "A b",
            "\u{0}",
            "\u{1b}[31m",
            "\r\nx: y",
            "é",
            "\u{202e}",
            "https://shop.example/",
            "https://blog.example/a?b=c",
            "http://shop.example:99999/",
            "https://shop.example/%zz",
            "https://[::1]/",
            "//shop",
            "https://foreign.test/",
            "https://u@shop.example/",
            "shop.example",
            "shop.example/",
            "shop.example/a/b/",
            "blog.example/../",
            "*.example/*",
            "shop.example/*.css",
            "*?v=*",
            "5s",
            "6m",
            "1e9s",
            "GET",
            "hard",
            "true",
            "{\"a\":1}",
        ];
        if self.below(30) == 0 {
            "x".repeat(self.below(3000))
        } else {
            (*self.pick(&TEXTS)).to_owned()
        }
    }
}

#[tokio::test]
async fn every_answer_is_one_that_the_document_foresees() {
    const TOKENS: [&str; 5] = ["all", "blogger", "stranger", "read", "unknown"];
    let document = Document::read();
    let mut dice = Dice(17);
    // Carried out for a proof, for URLs of one's own, or for what is under way: stories have them.
    const SELDOM: [&str; 3] = ["/v1/hooks/{name}", "/v1/warm", "/v1/warm/{id}"];
    for route in &ROUTES {
        assert!(document.operation(route).is_object(), "{}", route.path);
        // A stream that does not end.
        if route.path == "/v1/events" {
            continue;
        }
        let mut config = test_config();
        config.admin.purges_per_second = 1_000_000;
        let bench = bench_of(config);
        let first = r#"{"tags":["a"]}"#;
        assert_eq!(bench.ask("POST", "/v1/purge", "all", first).await.status, 200);
        let schema = document.body_of(route);
        let mut done = 0;
        for _ in 0..if schema.is_some() { 600 } else { 120 } {
            let body = schema.map(|schema| dice.value(&document, schema));
            let mut text = body.as_ref().map_or_else(String::new, Value::to_string);
            let spoilt = dice.below(20) == 0;
            if spoilt {
                text.truncate(text.floor_char_boundary(dice.below(text.len() + 1)));
            }
            // Wrong tokens are few, or the address would be kept waiting.
            let known = if dice.below(60) == 0 { 5 } else { 4 };
            let token = TOKENS[dice.below(known)];
            let id = ["n1.00000000000000ff.99999", "x", "%00", "...", "n1.00000000000000ff.1"]
                [dice.below(9).min(4)];
            let query = match route.path {
                "/v1/cache/entry" => {
                    ["?url=https://shop.example/a", "?url=https://blog.example/", "", "?x"]
                        [dice.below(4)]
                }
                _ => ["", "", "", "?limit=3", "?limit=0", "?x"][dice.below(6)],
            };
            let origin = ["back", "other", "back", "gone", "%2f"][dice.below(5)];
            let address =
                ["192.0.2.1:80", "[::1]:443", "%5B::1%5D:1", "192.0.2.9:1", "x"][dice.below(5)];
            let path = route.path.replace("{id}", id).replace("{origin}", origin);
            let path = format!("{}{query}", path.replace("{address}", address));
            let answer = bench.ask(route.method.as_str(), &path, token, &text).await;
            let sent = format!(
                "{} {path} as {token}: {text}\n{} {}",
                route.method, answer.status, answer.body
            );
            document.foresees(route, &answer).unwrap_or_else(|why| panic!("{why}\n{sent}"));
            assert!(answer.status < 500, "{sent}");
            done += usize::from(answer.status < 300);
            // What the schema allows can be read, and what it does not is refused.
            if let (Some(schema), Some(body), false) = (schema, &body, spoilt) {
                let allowed = document.fits(schema, body, false);
                if allowed.is_err() {
                    assert!(answer.status >= 400, "{allowed:?}\n{sent}");
                } else if answer.status >= 400 {
                    let code = answer.json()["code"].clone();
                    assert_ne!(code, "body", "{sent}");
                    assert_ne!(code, "unsupported-field", "{sent}");
                }
            }
        }
        let seldom = SELDOM.contains(&route.path);
        assert!(done > 5 || seldom, "{} was hardly ever carried out", route.path);
    }
}

#[test]
fn the_validator_refuses_what_does_not_fit() {
    let document = Document::read();
    let schema = json!({"$ref": "#/components/schemas/Receipt"});
    let receipt = json!({"id": "a.b.1", "epoch": 1, "took_ms": 0.5, "state": "local",
                         "matched": null, "freed": null});
    assert_eq!(document.fits(&schema, &receipt, true), Ok(()));
    for (name, value) in [
        ("id", json!(1)),
        ("epoch", json!(1.5)),
        ("state", json!("elsewhere")),
        ("matched", json!(0)),
        ("more", json!(true)),
    ] {
        let mut wrong = receipt.clone();
        wrong[name] = value;
        assert!(document.fits(&schema, &wrong, true).is_err(), "{name}");
    }
    assert!(document.fits(&schema, &json!({"id": "a"}), true).is_err());
}

/// Path, method and scope of every operation of the document, from its indentation.
fn documented() -> Vec<(String, String, String)> {
    let document = include_str!("../../../docs/openapi.yaml");
    let (mut path, mut method) = ("", "");
    let mut operations = Vec::new();
    let paths = document.lines().skip_while(|line| *line != "paths:").skip(1);
    for line in paths.take_while(|line| line.starts_with(' ') || line.is_empty()) {
        let text = line.trim_start();
        match (line.len() - text.len(), text.strip_suffix(':')) {
            (2, Some(name)) => path = name,
            (4, Some(name)) => method = name,
            (6, _) => {
                if let Some(scope) = text.strip_prefix("x-scope: ") {
                    operations.push((path.to_owned(), method.to_uppercase(), scope.to_owned()));
                }
            }
            _ => {}
        }
    }
    operations.sort();
    operations
}

#[test]
fn document_and_router_agree() {
    let mut routed: Vec<_> = ROUTES
        .iter()
        .map(|route| {
            let scope = route.access.scope().map_or("none", problem::scope_name);
            (route.path.to_owned(), route.method.to_string(), scope.to_owned())
        })
        .collect();
    // The routes of another cache's API.
    routed.extend(
        facades::ROUTES
            .map(|(method, path)| (path.to_owned(), method.to_owned(), "purge".to_owned())),
    );
    routed.sort();
    assert_eq!(documented(), routed);
}
