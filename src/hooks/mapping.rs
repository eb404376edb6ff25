//! Which events count, and what each of them names.

use http::{HeaderMap, HeaderName};
use serde_json::Value;

use super::pointer::{Pointer, text_of};
use super::template::{Refusal, Template};
use crate::purge::Strength;

/// What is purged for the events that meet its conditions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Conditions; all must hold.
    pub when: Vec<Condition>,
    /// URLs.
    pub urls: Vec<Template>,
    /// Tags.
    pub tags: Vec<Template>,
    /// Hosts with the beginning of a path.
    pub prefixes: Vec<Template>,
    /// Hosts.
    pub hosts: Vec<Template>,
    /// Everything of the site.
    pub all: bool,
    /// How strong the purge is.
    pub mode: Strength,
}

/// One condition: something in the event is one of several words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Where to look.
    pub place: Place,
    /// What may stand there.
    pub is: Vec<String>,
}

/// Where in an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In its document; of several places one is enough.
    Body(Pointer),
    /// In a header field.
    Field(HeaderName),
}

/// What an event names, in the words of a purge request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// URLs.
    pub urls: Vec<String>,
    /// Tags.
    pub tags: Vec<String>,
    /// Hosts with the beginning of a path.
    pub prefixes: Vec<String>,
    /// Hosts.
    pub hosts: Vec<String>,
    /// Everything of the site; the lists are empty then.
    pub all: bool,
    /// The strongest of the modes that were asked for; `None` where no mapping met the event.
    pub mode: Option<Strength>,
}

impl Wanted {
    /// Whether nothing is named.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.all && self.named() == 0
    }

    fn named(&self) -> usize {
        [&self.urls, &self.tags, &self.prefixes, &self.hosts].iter().map(|list| list.len()).sum()
    }
}

impl Condition {
    fn holds(&self, event: &Value, fields: &HeaderMap) -> bool {
        let is = |text: &str| self.is.iter().any(|word| word == text);
        match &self.place {
            Place::Body(pointer) => {
                pointer.find(event).into_iter().filter_map(text_of).any(|text| is(&text))
            }
            Place::Field(name) => {
                fields.get_all(name).iter().any(|line| line.to_str().is_ok_and(is))
            }
        }
    }
}

/// What `mappings` together name for an event, up to `most` selectors.
///
/// # Errors
/// Why the event is not carried out, not even in part.
pub fn map(
    mappings: &[Mapping],
    event: &Value,
    fields: &HeaderMap,
    most: usize,
) -> Result<Wanted, Refusal> {
    let mut wanted = Wanted::default();
    for mapping in mappings {
        if !mapping.when.iter().all(|condition| condition.holds(event, fields)) {
            continue;
        }
        wanted.mode = Some(stronger(wanted.mode, mapping.mode));
        wanted.all |= mapping.all;
        for (templates, list) in [
            (&mapping.urls, &mut wanted.urls),
            (&mapping.tags, &mut wanted.tags),
            (&mapping.prefixes, &mut wanted.prefixes),
            (&mapping.hosts, &mut wanted.hosts),
        ] {
            for template in templates {
                template.expand(event, most, list)?;
            }
        }
        if wanted.named() > most {
            return Err(Refusal::TooMany);
        }
    }
    if wanted.all {
        return Ok(Wanted { all: true, mode: wanted.mode, ..Wanted::default() });
    }
    Ok(wanted)
}

/// The one that does more, so that nobody gets less than was asked for.
fn stronger(known: Option<Strength>, other: Strength) -> Strength {
    let order = [Strength::Hard, Strength::Check, Strength::Soft];
    order.into_iter().find(|mode| Some(*mode) == known || *mode == other).unwrap_or(other)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::hooks::Kind;

    fn mapping(when: &[(&str, &[&str])], tag: &str, mode: Strength) -> Mapping {
        let condition = |(place, is): &(&str, &[&str])| Condition {
            place: if place.starts_with('/') {
                Place::Body(Pointer::parse(place).expect("a pointer"))
            } else {
                Place::Field(HeaderName::try_from(*place).expect("a name"))
            },
            is: is.iter().map(ToString::to_string).collect(),
        };
        Mapping {
            when: when.iter().map(condition).collect(),
            urls: Vec::new(),
            tags: vec![Template::parse(tag, Kind::Tag).expect("a template")],
            prefixes: Vec::new(),
            hosts: Vec::new(),
            all: false,
            mode,
        }
    }

    fn fields(line: &'static str) -> HeaderMap {
        let name = HeaderName::from_static("x-github-event");
        HeaderMap::from_iter([(name, http::HeaderValue::from_static(line))])
    }

    #[test]
    fn every_condition_must_hold() {
        let event = json!({"event": "entry.publish", "n": 3, "list": [{"k": "a"}, {"k": "b"}]});
        type Conditions<'a> = &'a [(&'a str, &'a [&'a str])];
        let rows: [(Conditions<'_>, bool); 9] = [
            (&[], true),
            (&[("/event", &["entry.publish"])], true),
            (&[("/event", &["entry.update", "entry.publish"])], true),
            (&[("/event", &["entry.pub"])], false),
            (&[("/event", &["entry.publish"]), ("/n", &["4"])], false),
            (&[("/n", &["3"]), ("X-GitHub-Event", &["push"])], true),
            (&[("X-GitHub-Event", &["release"])], false),
            (&[("/list/*/k", &["b"])], true),
            (&[("/nothing", &[""])], false),
        ];
        for (when, holds) in rows {
            let mappings = [mapping(when, "t", Strength::Hard)];
            let wanted = map(&mappings, &event, &fields("push"), 10).expect("fine");
            assert_eq!(wanted.tags.len(), usize::from(holds), "{when:?}");
            assert_eq!(wanted.mode.is_some(), holds, "{when:?}");
        }
    }

    #[test]
    fn what_several_mappings_name_goes_together_at_the_strongest_mode() {
        let event = json!({"id": 1});
        let none = HeaderMap::new();
        let mappings = [
            mapping(&[], "soft", Strength::Soft),
            mapping(&[], "id:{/id}", Strength::Check),
            mapping(&[("/id", &["2"])], "other", Strength::Hard),
        ];
        let wanted = map(&mappings, &event, &none, 10).expect("fine");
        assert_eq!((wanted.tags.len(), wanted.mode), (2, Some(Strength::Check)));
        assert_eq!(map(&mappings, &event, &none, 1), Err(Refusal::TooMany));
        let mut all = mappings.to_vec();
        all[0].all = true;
        let wanted = map(&all, &event, &none, 10).expect("fine");
        assert!(wanted.all && wanted.tags.is_empty(), "everything stands alone: {wanted:?}");
    }

    #[test]
    fn a_value_that_is_not_there_never_comes_to_everything() {
        let mappings = [mapping(&[], "article:{/entry/id}", Strength::Hard)];
        for event in [json!({}), json!(null), json!([1]), json!({"entry": {"id": {}}})] {
            let wanted = map(&mappings, &event, &HeaderMap::new(), 10).expect("fine");
            assert!(wanted.is_empty() && wanted.mode.is_some(), "{event}");
        }
    }
}
