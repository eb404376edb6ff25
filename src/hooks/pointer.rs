//! JSON pointers (RFC 6901), with `*` for every element of an array.

use serde_json::Value;

/// Steps of one pointer.
const MOST_STEPS: usize = 32;

/// A place, or several, in a JSON document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer {
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// A member of an object, or an element of an array by its number.
    Name(Box<str>),
    /// Every element of an array; of an object the member of that name.
    Each,
}

impl Pointer {
    /// Reads one, such as `/entry/tags/*/name`.
    ///
    /// # Errors
    /// Says what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        const FORM: &str = "a JSON pointer begins with \"/\": \"/entry/id\"";
        if text.is_empty() {
            return Ok(Self { steps: Vec::new() });
        }
        let steps = text.strip_prefix('/').ok_or(FORM)?;
        let steps: Vec<Step> = steps.split('/').map(step).collect::<Result<_, _>>()?;
        if steps.len() > MOST_STEPS {
            return Err(format!("a JSON pointer has at most {MOST_STEPS} steps"));
        }
        Ok(Self { steps })
    }

    /// Whether it may stand for several places.
    pub(super) fn branches(&self) -> bool {
        self.steps.contains(&Step::Each)
    }

    /// The part up to its last `*`, and what follows.
    pub(super) fn split(self) -> (Self, Self) {
        let at = self.steps.iter().rposition(|step| *step == Step::Each).map_or(0, |at| at + 1);
        let (before, after) = self.steps.split_at(at);
        (Self { steps: before.to_vec() }, Self { steps: after.to_vec() })
    }

    /// All that it finds, in the order of the document. Takes time in proportion to the document.
    #[must_use]
    pub fn find<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        let mut found = vec![value];
        for step in &self.steps {
            found = found.into_iter().flat_map(|value| step.follow(value)).collect();
        }
        found
    }
}

impl Step {
    fn follow<'v>(&self, value: &'v Value) -> Box<dyn Iterator<Item = &'v Value> + 'v> {
        match (self, value) {
            (Self::Each, Value::Array(all)) => Box::new(all.iter()),
            (Self::Each, _) => Box::new(value.get("*").into_iter()),
            (Self::Name(name), Value::Array(all)) => {
                Box::new(index(name).and_then(|at| all.get(at)).into_iter())
            }
            (Self::Name(name), _) => Box::new(value.get(&**name).into_iter()),
        }
    }
}

/// The number of an element: digits without a leading zero (RFC 6901 section 4).
fn index(name: &str) -> Option<usize> {
    let plain = name == "0" || !name.starts_with(['0', '+']);
    name.parse().ok().filter(|_| plain)
}

fn step(text: &str) -> Result<Step, String> {
    if text == "*" {
        return Ok(Step::Each);
    }
    let mut name = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        name.push(match letter {
            '~' => match letters.next() {
                Some('0') => '~',
                Some('1') => '/',
                _ => return Err("in a JSON pointer \"~\" is written ~0 and \"/\" ~1".to_owned()),
            },
            _ => letter,
        });
    }
    Ok(Step::Name(name.into()))
}

/// A scalar as text; nothing for what is no scalar, or empty.
pub(super) fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pointers_find_what_rfc_6901_says() {
        let document = json!({
            "foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "m~n": 8, " ": 7, "*": 9,
            "rows": [{"x": [1, 2]}, {"y": 3}, {"x": [4]}, 5],
        });
        let rows = [
            ("/foo/0", json!(["bar"])),
            ("/foo/*", json!(["bar", "baz"])),
            ("/", json!([0])),
            ("/a~1b", json!([1])),
            ("/c%d", json!([2])),
            ("/m~0n", json!([8])),
            ("/ ", json!([7])),
            ("/*", json!([9])),
            ("/rows/*/x/*", json!([1, 2, 4])),
            ("/rows/3", json!([5])),
            ("/foo/2", json!([])),
            ("/foo/00", json!([])),
            ("/foo/+1", json!([])),
            ("/foo/-", json!([])),
            ("/foo/bar", json!([])),
            ("/rows/3/x", json!([])),
            ("/nothing/at/all", json!([])),
        ];
        for (pointer, expected) in rows {
            let found = Pointer::parse(pointer).expect(pointer);
            assert_eq!(json!(found.find(&document)), expected, "{pointer}");
        }
        let whole = Pointer::parse("").expect("the whole");
        assert_eq!(whole.find(&document), [&document]);
    }

    #[test]
    fn what_is_no_pointer_is_refused() {
        for text in ["a", "entry/id", "/a~", "/a~2", &"/a".repeat(33)] {
            assert!(Pointer::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_pointer_is_split_at_its_last_star() {
        let split = |text: &str| Pointer::parse(text).expect(text).split();
        let pair = |one: &str, two: &str| {
            (Pointer::parse(one).expect(one), Pointer::parse(two).expect(two))
        };
        assert_eq!(split("/a/*/b/*/c/d"), pair("/a/*/b/*", "/c/d"));
        assert_eq!(split("/a/*"), pair("/a/*", ""));
        assert_eq!(split("/a/b"), pair("", "/a/b"));
    }
}
