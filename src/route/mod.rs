//! From host to site, and from path to policy.
//!
//! An exact host beats a wildcard, a wildcard beats `*`. A wildcard covers one label, as in
//! certificates: `*.example.org` is `a.example.org` and neither `example.org` nor
//! `b.a.example.org`. Within a site the rule with the longest prefix wins that ends at a `/`
//! boundary of the path: `/static` covers `/static` and `/static/x`, not `/staticx`; `/static/`
//! covers only what lies below.
//!
//! Hosts are found by hash. Rules form a tree of path segments, walked from the root no deeper
//! than the rules go: the time is bounded by the path's length, however many rules there are.

use std::collections::HashMap;
use std::sync::Arc;

use crate::semantics::Policy;

/// Routes of all sites; immutable once built.
#[derive(Debug)]
pub struct Routes {
    hosts: HashMap<Box<str>, usize>,
    /// By what follows `*.`.
    wildcards: HashMap<Box<str>, usize>,
    any: Option<usize>,
    sites: Vec<Rules>,
    fallback: Arc<Policy>,
}

impl Routes {
    /// Builds the routes of the sites in order: hosts in lower case, and rules of path prefix and
    /// policy. Of a host or a prefix that stands twice the first counts. A site without a rule for
    /// `/` has the default policy there.
    #[must_use]
    pub fn new<H, R>(sites: impl IntoIterator<Item = (H, R)>) -> Self
    where
        H: IntoIterator<Item = String>,
        R: IntoIterator<Item = (String, Arc<Policy>)>,
    {
        let mut routes = Self {
            hosts: HashMap::new(),
            wildcards: HashMap::new(),
            any: None,
            sites: Vec::new(),
            fallback: Arc::new(Policy::default()),
        };
        for (position, (hosts, rules)) in sites.into_iter().enumerate() {
            for host in hosts {
                routes.add_host(&host, position);
            }
            routes.sites.push(Rules::new(rules));
        }
        routes
    }

    fn add_host(&mut self, host: &str, site: usize) {
        if host == "*" {
            self.any.get_or_insert(site);
        } else if let Some(suffix) = host.strip_prefix("*.") {
            self.wildcards.entry(suffix.into()).or_insert(site);
        } else {
            self.hosts.entry(host.into()).or_insert(site);
        }
    }

    /// Position of the site that answers for a host in canonical form.
    #[must_use]
    pub fn site(&self, host: &str) -> Option<usize> {
        let wildcard = || {
            let (_, suffix) = host.split_once('.')?;
            self.wildcards.get(suffix)
        };
        self.hosts.get(host).or_else(wildcard).copied().or(self.any)
    }

    /// Policy that holds for a canonical path of a site.
    #[must_use]
    pub fn policy(&self, site: usize, path: &str) -> &Arc<Policy> {
        self.sites.get(site).and_then(|rules| rules.find(path)).unwrap_or(&self.fallback)
    }
}

/// The path rules of a site.
#[derive(Debug)]
struct Rules {
    nodes: Vec<Node>,
}

/// A path segment that rules pass through.
#[derive(Debug, Default)]
struct Node {
    children: HashMap<Box<str>, usize>,
    /// Rule that ends with this segment.
    here: Option<Arc<Policy>>,
    /// Rule that ends with the slash behind it.
    below: Option<Arc<Policy>>,
}

impl Rules {
    fn new(rules: impl IntoIterator<Item = (String, Arc<Policy>)>) -> Self {
        let mut tree = Self { nodes: vec![Node::default()] };
        for (path, policy) in rules {
            tree.add(&path, policy);
        }
        tree
    }

    fn add(&mut self, path: &str, policy: Arc<Policy>) {
        let path = path.strip_prefix('/').unwrap_or(path);
        let (segments, below) = match path.strip_suffix('/') {
            Some(segments) => (Some(segments), true),
            None if path.is_empty() => (None, true),
            None => (Some(path), false),
        };
        let mut at = 0;
        for segment in segments.into_iter().flat_map(|segments| segments.split('/')) {
            let next = self.nodes.len();
            let Some(node) = self.nodes.get_mut(at) else { return };
            at = *node.children.entry(segment.into()).or_insert(next);
            if at == next {
                self.nodes.push(Node::default());
            }
        }
        if let Some(node) = self.nodes.get_mut(at) {
            let slot = if below { &mut node.below } else { &mut node.here };
            slot.get_or_insert(policy);
        }
    }

    fn find(&self, path: &str) -> Option<&Arc<Policy>> {
        let mut node = self.nodes.first()?;
        let mut best = node.below.as_ref();
        let mut rest = path.strip_prefix('/');
        while let Some(text) = rest {
            let (segment, after) = match text.split_once('/') {
                Some((segment, after)) => (segment, Some(after)),
                None => (text, None),
            };
            let Some(next) = node.children.get(segment).and_then(|at| self.nodes.get(*at)) else {
                break;
            };
            node = next;
            best = node.here.as_ref().or(best);
            if after.is_some() {
                best = node.below.as_ref().or(best);
            }
            rest = after;
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Policies that can be told apart by the size of body they allow.
    fn numbered(rules: &[&str]) -> Vec<(String, Arc<Policy>)> {
        let policy = |number: usize| Policy { body_bytes: number as u64, ..Policy::default() };
        rules
            .iter()
            .enumerate()
            .map(|(number, path)| ((*path).to_owned(), Arc::new(policy(number))))
            .collect()
    }

    fn one_site(rules: &[&str]) -> Routes {
        Routes::new([(vec!["h".to_owned()], numbered(rules))])
    }

    #[test]
    fn exact_host_beats_wildcard_beats_any() {
        let site = |hosts: &[&str]| {
            (hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>(), numbered(&["/"]))
        };
        let routes = Routes::new([
            site(&["example.org", "www.example.org"]),
            site(&["*.example.org"]),
            site(&["*.a.example.org"]),
        ]);
        let rows = [
            ("example.org", Some(0)),
            ("www.example.org", Some(0)),
            ("x.example.org", Some(1)),
            ("x.a.example.org", Some(2)),
            ("x.b.example.org", None),
            ("example.com", None),
            ("org", None),
        ];
        for (host, expected) in rows {
            assert_eq!(routes.site(host), expected, "{host}");
        }
        let with_any = Routes::new([site(&["*"]), site(&["example.org"])]);
        assert_eq!(with_any.site("example.org"), Some(1));
        assert_eq!(with_any.site("[::1]"), Some(0));
    }

    #[test]
    fn longest_prefix_at_a_boundary_wins() {
        let rules = ["/", "/static", "/static/", "/static/img", "/a/b/c", "/a//b"];
        let routes = one_site(&rules);
        let rows = [
            ("/", 0),
            ("/x", 0),
            ("*", 0),
            ("/static", 1),
            ("/static/", 2),
            ("/static/x/y", 2),
            ("/staticx", 0),
            ("/static/img", 3),
            ("/static/img/1", 3),
            ("/static/imgs", 2),
            ("/a/b", 0),
            ("/a/b/c/d", 4),
            ("/a//b/x", 5),
        ];
        for (path, expected) in rows {
            assert_eq!(routes.policy(0, path).body_bytes, expected, "{path}");
        }
        assert_eq!(*routes.policy(9, "/").as_ref(), Policy::default());
    }

    #[test]
    fn a_hundred_thousand_routes_and_a_hostile_path_are_no_matter() {
        let rules: Vec<String> =
            (0..100_000).map(|number| format!("/{}/{number}", number % 7)).collect();
        let texts: Vec<&str> = rules.iter().map(String::as_str).collect();
        let routes = one_site(&texts);
        let none = Policy::default().body_bytes;
        let long = "/".repeat(8192);
        let rows = [("/4/99998", none), ("/4/99998/x", none), ("/5/1", none), (&long, none)];
        for (path, expected) in rows {
            assert_eq!(routes.policy(0, path).body_bytes, expected, "{path}");
        }
        let known = format!("/{}/99998/x", 99_998 % 7);
        assert_eq!(routes.policy(0, &known).body_bytes, 99_998);
    }

    proptest! {
        #[test]
        fn tree_agrees_with_the_definition(
            rules in proptest::collection::vec("(/[ab]{0,2}){0,3}/?", 1..8),
            path in "(/[ab]{0,2}){1,5}",
        ) {
            let mut rules: Vec<String> =
                rules.into_iter().map(|rule| if rule.is_empty() { "/".into() } else { rule }).collect();
            rules.insert(0, "/".into());
            let covers = |rule: &str| {
                path == *rule
                    || path.starts_with(rule)
                        && (rule.ends_with('/') || path.as_bytes().get(rule.len()) == Some(&b'/'))
            };
            let longest = rules.iter().filter(|rule| covers(rule)).map(String::len).max().unwrap();
            let texts: Vec<&str> = rules.iter().map(String::as_str).collect();
            let found = usize::try_from(one_site(&texts).policy(0, &path).body_bytes).unwrap();
            prop_assert_eq!(rules[found].len(), longest);
            prop_assert!(covers(&rules[found]));
        }
    }
}
