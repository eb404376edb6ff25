//! Where one configuration stores under other names than another.
//!
//! A purge of a URL finds what is stored for it by the site that answers for its host and by the key
//! that the configuration makes of its query. Under another configuration the same URL may have
//! another name. What was stored under the former one is out of reach of every purge from then on,
//! and must not be answered with unasked when that configuration is in force again:
//!
//! ```text
//! key_query without utm_*     /a?utm_source=x is stored as /a
//! key_query all               it is purged: /a?utm_source=x goes, /a is not found
//! key_query without utm_*     /a?utm_source=x is answered with /a again
//! ```
//!
//! So whenever a name changes, everything stored in the sites concerned is to be checked with its
//! origin. That asks once more than needed, and only after such a change.

use std::sync::Arc;

use super::{Config, Site};
use crate::semantics::QueryKey;

impl Config {
    /// Sites that may hold responses which were out of reach of purges under `before`.
    #[must_use]
    pub fn renamed_since(&self, before: &Self) -> Vec<Arc<str>> {
        let former = |site: &Site| before.sites.iter().find(|former| former.name == site.name);
        // Hosts that lost their site fall to one that takes many.
        let gone = before.sites.iter().any(|former| {
            let site = self.sites.iter().find(|site| site.name == former.name);
            former.hosts.iter().any(|host| site.is_none_or(|site| !site.hosts.contains(host)))
        });
        let renamed = self.sites.iter().filter(|site| {
            let takes_many = site.hosts.iter().any(|host| host.starts_with('*'));
            gone && takes_many || former(site).is_none_or(|former| names_anew(site, former))
        });
        renamed.map(|site| Arc::clone(&site.name)).collect()
    }
}

/// Whether a site takes hosts that it did not take before, or makes another key of some query.
fn names_anew(site: &Site, former: &Site) -> bool {
    let mut paths = site.rules.iter().chain(&former.rules).map(|rule| &*rule.path);
    site.hosts.iter().any(|host| !former.hosts.contains(host))
        || paths.any(|path| query_key(site, path) != query_key(former, path))
}

/// What of the query makes the key below a path.
fn query_key(site: &Site, path: &str) -> QueryKey {
    let covers = |prefix: &str| {
        let rest = path.strip_prefix(prefix.trim_end_matches('/'));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let rules = site.rules.iter().filter(|rule| covers(&rule.path));
    let rule = rules.max_by_key(|rule| rule.path.trim_end_matches('/').len());
    let policy = rule.map(|rule| &rule.policy).filter(|policy| !policy.pass);
    let key = policy.and_then(|policy| policy.key.as_deref());
    key.map(|key| key.query.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::load;
    use super::*;

    const ALL: &str = "\n[[site]]\nname = \"rest\"\nhosts = [\"*\"]\norigin = \"main\"\n";

    fn config(sites: &str) -> Config {
        let text = format!(
            "[node]\nworkers = 1\nseed = 1\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
             [[origin]]\nname = \"main\"\nservers = [\"http://127.0.0.1:1\"]\n{sites}"
        );
        load(&text, Path::new("edge.toml")).map_err(|problems| problems.to_string()).expect(&text)
    }

    fn site(name: &str, hosts: &str, keys: &str) -> String {
        format!("[[site]]\nname = \"{name}\"\nhosts = [{hosts}]\norigin = \"main\"\n{keys}\n")
    }

    fn rule(path: &str, keys: &str) -> String {
        format!("[[site.rule]]\npath = \"{path}\"\n{keys}\n")
    }

    #[test]
    fn what_names_a_url_anew_is_told_by_its_site() {
        let one = |keys: &str| site("main", "\"a.test\"", keys);
        let plain = one("");
        let less = "key_query = { without = [\"utm_*\"] }";
        for (case, before, after, expected) in [
            ("nothing", plain.clone(), plain.clone(), &[][..]),
            ("a lifetime", plain.clone(), one("lifetime = \"5s\""), &[]),
            ("a key", plain.clone(), one(less), &["main"]),
            ("and back", one(less), plain.clone(), &["main"]),
            ("a pass", one(less), one(&format!("{less}\npass = true")), &["main"]),
            ("a key below a path", plain.clone(), one(&rule("/x", less)), &["main"]),
            (
                "a rule about something else",
                plain.clone(),
                one(&rule("/x", "lifetime = \"5s\"")),
                &[],
            ),
            (
                "the same below a path",
                one(less),
                one(&[less, "\n", &rule("/x", less)].concat()),
                &[],
            ),
            ("another name", plain.clone(), site("shop", "\"a.test\"", ""), &["shop"]),
            ("a host more", plain.clone(), site("main", "\"a.test\", \"b.test\"", ""), &["main"]),
            ("a host less", site("main", "\"a.test\", \"b.test\"", ""), plain.clone(), &[]),
            ("one site more", ALL.to_owned(), [&plain, ALL].concat(), &["main"]),
            ("one site less", [&plain, ALL].concat(), ALL.to_owned(), &["rest"]),
        ] {
            let renamed = config(&after).renamed_since(&config(&before));
            let renamed: Vec<&str> = renamed.iter().map(AsRef::as_ref).collect();
            assert_eq!(renamed, expected, "{case}");
        }
    }
}
