//! What of a query makes the cache key.
//!
//! A query is cut at `&`; the name of a parameter is what stands before its first `=`. Names are
//! compared byte by byte in the canonical form of the target, nothing is decoded: `%75tm_source` is
//! not `utm_source`, stays in the key, and so reaches the origin as it is. Readers that cut at `;`,
//! too, cannot be fooled: a parameter is kept or dropped whole, for key and origin alike.

/// What of the query makes the cache key; the rest is dropped, for the origin, too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryKey {
    /// Which parameters.
    pub keep: Keep,
    /// They are sorted by name; those of one name keep their order, which may mean something.
    pub sorted: bool,
}

/// Which parameters are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// All.
    #[default]
    All,
    /// None.
    None,
    /// Those of these names.
    Only(Names),
    /// Those of other names.
    Without(Names),
}

/// Names of parameters, plain or with `*` at the end for all that begin so. A name is found in a
/// time that hardly grows with their number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// Sorted.
    plain: Box<[Box<str>]>,
    /// Sorted; none is the beginning of another, so that only the last one that is not greater than
    /// a name can be its beginning.
    prefixes: Box<[Box<str>]>,
}

impl QueryKey {
    /// The query as it is in the key; `None` where nothing is left of it. Untouched by the default;
    /// by any other, empty parameters (`a&&b`) go, and applying it again changes nothing.
    #[must_use]
    pub fn apply(&self, query: Option<String>) -> Option<String> {
        if *self == Self::default() {
            return query;
        }
        let query = query.filter(|_| self.keep != Keep::None)?;
        let kept = query.split('&').filter(|parameter| {
            !parameter.is_empty()
                && match &self.keep {
                    Keep::All => true,
                    Keep::None => false,
                    Keep::Only(names) => names.contains(name(parameter)),
                    Keep::Without(names) => !names.contains(name(parameter)),
                }
        });
        let mut kept: Vec<&str> = kept.collect();
        if self.sorted {
            kept.sort_by(|one, other| name(one).cmp(name(other)));
        }
        (!kept.is_empty()).then(|| kept.join("&"))
    }
}

fn name(parameter: &str) -> &str {
    parameter.split_once('=').map_or(parameter, |(name, _)| name)
}

impl Names {
    /// Names of these patterns.
    #[must_use]
    pub fn new<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Self {
        let (mut plain, mut prefixes) = (Vec::new(), Vec::new());
        for pattern in patterns {
            match pattern.strip_suffix('*') {
                Some(prefix) => prefixes.push(Box::from(prefix)),
                None => plain.push(Box::from(pattern)),
            }
        }
        plain.sort_unstable();
        prefixes.sort_unstable();
        prefixes.dedup_by(|next, kept: &mut Box<str>| next.starts_with(&**kept));
        Self { plain: plain.into_boxed_slice(), prefixes: prefixes.into_boxed_slice() }
    }

    fn contains(&self, name: &str) -> bool {
        let after = self.prefixes.partition_point(|prefix| **prefix <= *name);
        let prefix = after.checked_sub(1).and_then(|at| self.prefixes.get(at));
        prefix.is_some_and(|prefix| name.starts_with(&**prefix))
            || self.plain.binary_search_by(|own| (**own).cmp(name)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(keep: Keep, sorted: bool) -> QueryKey {
        QueryKey { keep, sorted }
    }

    #[test]
    fn a_query_is_what_policy_leaves_of_it() {
        let all = key(Keep::All, false);
        let sorted = key(Keep::All, true);
        let none = key(Keep::None, false);
        let only = key(Keep::Only(Names::new(["id", "p*"])), false);
        let without = key(Keep::Without(Names::new(["utm_*", "gclid"])), false);
        let both = key(Keep::Without(Names::new(["utm_*"])), true);
        let rows = [
            (&all, "b=2&&a=1", Some("b=2&&a=1")),
            (&all, "", Some("")),
            (&sorted, "b=2&a=1&b=1&a", Some("a=1&a&b=2&b=1")),
            (&sorted, "a=1", Some("a=1")),
            (&sorted, "&b&&a&", Some("a&b")),
            (&sorted, "", None),
            (&sorted, "ab=1&a=2", Some("a=2&ab=1")),
            (&none, "a=1", None),
            (&only, "x=1&id=2&page=3&ID=4", Some("id=2&page=3")),
            (&only, "x=1", None),
            (&only, "id", Some("id")),
            (&only, "id;x=1", None),
            (&only, "id=1;x=1", Some("id=1;x=1")),
            (&without, "utm_source=x&b=2&utm_=&gclid=1", Some("b=2")),
            (&without, "utm_source=x", None),
            (&without, "utm=1&gclid2=1&UTM_x=1", Some("utm=1&gclid2=1&UTM_x=1")),
            (&without, "%75tm_source=x", Some("%75tm_source=x")),
            (&without, "utm_source;b=2&a", Some("a")),
            (&without, "=1&b", Some("=1&b")),
            (&both, "c&utm_a=1&a", Some("a&c")),
        ];
        for (key, query, expected) in rows {
            assert_eq!(key.apply(Some(query.into())).as_deref(), expected, "{key:?} {query}");
            assert_eq!(key.apply(None), None);
        }
    }

    fn any_key() -> impl Strategy<Value = QueryKey> {
        let names = || {
            proptest::collection::vec("[ab%]{0,2}[*]?", 1..4)
                .prop_map(|patterns| Names::new(patterns.iter().map(String::as_str)))
        };
        let keep = prop_oneof![
            Just(Keep::All),
            Just(Keep::None),
            names().prop_map(Keep::Only),
            names().prop_map(Keep::Without),
        ];
        (keep, any::<bool>()).prop_map(|(keep, sorted)| QueryKey { keep, sorted })
    }

    proptest! {
        #[test]
        fn applying_twice_is_applying_once(key in any_key(), query in "[ab&=%;]{0,20}") {
            let once = key.apply(Some(query));
            prop_assert_eq!(key.apply(once.clone()), once);
        }

        #[test]
        fn sorting_keeps_the_order_of_equal_names(query in "([abc]=[0-9]&){0,12}") {
            let sorted = key(Keep::All, true).apply(Some(query.clone())).unwrap_or_default();
            let of = |query: &str, wanted: &str| -> Vec<String> {
                let all = query.split('&').filter(|own| !own.is_empty() && name(own) == wanted);
                all.map(str::to_owned).collect()
            };
            for wanted in ["a", "b", "c"] {
                prop_assert_eq!(of(&query, wanted), of(&sorted, wanted));
            }
            prop_assert!(sorted.split('&').map(name).is_sorted());
        }

        #[test]
        fn names_agree_with_their_definition(
            patterns in proptest::collection::vec("[ab]{0,3}[*]?", 0..8),
            name in "[ab]{0,4}",
        ) {
            let names = Names::new(patterns.iter().map(String::as_str));
            let meant = patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
                Some(prefix) => name.starts_with(prefix),
                None => *pattern == name,
            });
            prop_assert_eq!(names.contains(&name), meant);
        }
    }
}
