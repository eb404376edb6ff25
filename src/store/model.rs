//! The purge table in force against a naive model: a list of all purges ever, each compared with a
//! response by hand.
//!
//! Random fills, hits, copies held elsewhere, purges of every selector and strength, sweeps. Without
//! folding the verdicts are equal; with budgets so small that rows fold they are never weaker. What
//! the sweep did not meet may count as dead, and only then.

use proptest::prelude::*;

use super::tests::{World, terms};
use super::*;
use crate::clock::Now;
use crate::purge::{Glob, Secret, Selector, Strength};
use crate::semantics::Policy;
use crate::semantics::test_support::get;

#[derive(Clone, Debug)]
enum Step {
    /// A response is asked for and stored.
    Fill(Url, Vec<u8>),
    /// One is asked for and arrives only at the end: dead if it was purged meanwhile.
    Begin(Url, Vec<u8>),
    /// Somebody keeps a copy of what is stored now.
    Copy(usize),
    /// A response is judged again, from the store or from a copy.
    Judge(usize),
    Purge(Vec<Named>, Strength),
    Sweep,
}

#[derive(Clone, Debug)]
struct Url {
    site: u8,
    host: u8,
    target: String,
}

/// A selector before it is one.
#[derive(Clone, Debug)]
enum Named {
    Url(Url),
    Tag(u8, u8),
    Prefix(u8, u8, String),
    Host(u8, u8),
    Glob(u8, String),
    Site(u8),
    All,
}

fn site(number: u8) -> Arc<str> {
    Arc::from(["one", "two"][usize::from(number)])
}

fn host(number: u8) -> String {
    ["h.test", "i.test"][usize::from(number)].to_owned()
}

fn tag(number: u8) -> String {
    format!("tag{number}")
}

fn url() -> impl Strategy<Value = Url> {
    (0..2_u8, 0..2_u8, "(/[ab]?){1,3}(\\?[xy]?)?").prop_map(|(site, host, target)| Url {
        site,
        host,
        target,
    })
}

fn named() -> impl Strategy<Value = Named> {
    prop_oneof![
        4 => url().prop_map(Named::Url),
        4 => (0..2_u8, 0..4_u8).prop_map(|(site, tag)| Named::Tag(site, tag)),
        4 => (0..2_u8, 0..2_u8, "/([ab]?/){0,2}").prop_map(|(s, h, path)| Named::Prefix(s, h, path)),
        2 => (0..2_u8, 0..2_u8).prop_map(|(site, host)| Named::Host(site, host)),
        4 => (0..2_u8, "(h\\.test|\\*)/[ab*]{1,3}(\\?x)?").prop_map(|(s, glob)| Named::Glob(s, glob)),
        1 => (0..2_u8).prop_map(Named::Site),
        1 => Just(Named::All),
    ]
}

fn strength() -> impl Strategy<Value = Strength> {
    prop_oneof![2 => Just(Strength::Hard), 1 => Just(Strength::Check), 2 => Just(Strength::Soft)]
}

fn step() -> impl Strategy<Value = Step> {
    let tags = || prop::collection::vec(0..4_u8, 0..3);
    prop_oneof![
        4 => (url(), tags()).prop_map(|(url, tags)| Step::Fill(url, tags)),
        2 => (url(), tags()).prop_map(|(url, tags)| Step::Begin(url, tags)),
        2 => any::<usize>().prop_map(Step::Copy),
        5 => any::<usize>().prop_map(Step::Judge),
        5 => (prop::collection::vec(named(), 1..4), strength())
            .prop_map(|(named, strength)| Step::Purge(named, strength)),
        1 => Just(Step::Sweep),
    ]
}

impl Named {
    fn selector(&self) -> Selector {
        match self {
            Self::Url(url) => Selector::Url {
                site: site(url.site),
                host: host(url.host),
                target: url.target.clone(),
            },
            Self::Tag(number, label) => Selector::Tag { site: site(*number), tag: tag(*label) },
            Self::Prefix(number, name, path) => {
                Selector::Prefix { site: site(*number), host: host(*name), path: path.clone() }
            }
            Self::Host(number, name) => Selector::Host { site: site(*number), host: host(*name) },
            Self::Glob(number, pattern) => match Glob::parse(pattern) {
                Ok(glob) => Selector::Glob { site: site(*number), glob },
                Err(_) => Selector::Site { site: site(*number) },
            },
            Self::Site(number) => Selector::Site { site: site(*number) },
            Self::All => Selector::All,
        }
    }

    /// The definition of each selector, without hashes.
    fn names(&self, url: &Url, tags: &[u8]) -> bool {
        let text = format!("{}{}", host(url.host), url.target);
        let path = url.target.split('?').next().unwrap_or_default();
        match self {
            Self::Url(other) => {
                (other.site, other.host, &other.target) == (url.site, url.host, &url.target)
            }
            Self::Tag(number, label) => *number == url.site && tags.contains(label),
            Self::Prefix(number, name, begin) => {
                (*number, *name) == (url.site, url.host) && path.starts_with(begin)
            }
            Self::Host(number, name) => (*number, *name) == (url.site, url.host),
            Self::Glob(number, pattern) => {
                *number == url.site && like(pattern.as_bytes(), text.as_bytes())
            }
            Self::Site(number) => *number == url.site,
            Self::All => true,
        }
    }
}

fn like(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) if like(rest, text) => true,
        (Some((b'*', _)), Some((_, after))) => like(pattern, after),
        (Some((sign, rest)), Some((letter, after))) => sign == letter && like(rest, after),
        _ => false,
    }
}

/// What the model knows of a response.
#[derive(Clone, Debug)]
struct Known {
    stored: Arc<Stored>,
    url: Url,
    tags: Vec<u8>,
    /// It is held outside the store, where the sweep does not meet it.
    outside: bool,
}

struct Model {
    world: World,
    purges: Vec<(u64, Vec<Named>, Strength, Now)>,
    known: Vec<Known>,
    arriving: Vec<Known>,
    exact: bool,
    swept: u64,
    moment: u64,
}

impl Model {
    fn new(limits: PurgeLimits, exact: bool) -> Self {
        let mut world = World::new();
        world.purges = Purges::within(Secret(1, 2), limits);
        Self {
            world,
            purges: Vec::new(),
            known: Vec::new(),
            arriving: Vec::new(),
            exact,
            swept: 0,
            moment: 200,
        }
    }

    fn response(&self, url: &Url, tags: &[u8]) -> Known {
        let (world, site, host) = (&self.world, site(url.site), host(url.host));
        let request = get(&format!("http://{host}{}", url.target), &[]);
        let key = CacheKey::of(world.store.secret(), &site, &request, &Policy::default());
        let labels: Vec<Box<str>> = tags.iter().map(|label| tag(*label).into()).collect();
        let selectors = world.purges.selectors(&site, &host, &url.target, &labels);
        let rows = selectors.sizes()[0];
        let head = Arc::new(Head::new(NewHead {
            key,
            vary: None,
            secondary: Box::default(),
            status: http::StatusCode::OK,
            headers: HeaderMap::new(),
            terms: terms(),
            selectors,
            born: world.purges.epoch(),
            fill: 0,
            lineage: None,
        }));
        assert_eq!(head.selectors.sizes(), [rows, 0], "the URL is kept once, in the key");
        let body = StoredBody::One(bytes::Bytes::from_static(b"x"));
        let stored = world.store.stored(head, body);
        Known { stored, url: url.clone(), tags: tags.to_vec(), outside: false }
    }

    /// The strongest that the model holds against a response.
    fn expected(&self, known: &Known) -> Option<Verdict> {
        let head = known.stored.head();
        let mut said = Verdict::Alive;
        for (epoch, named, strength, now) in &self.purges {
            let hit = named.iter().any(|named| named.names(&known.url, &known.tags));
            if *epoch <= head.born || !hit {
                continue;
            }
            match (strength, said) {
                (Strength::Hard, _) => return None,
                (Strength::Check, _) => said = Verdict::Check,
                (Strength::Soft, Verdict::Check) => {}
                (Strength::Soft, _) => said = Verdict::Soft { since: *now },
            }
        }
        Some(said)
    }

    fn judge(&self, known: &Known) {
        let purges = &self.world.purges;
        let found = purges.verdict(known.stored.head(), purges.epoch());
        let expected = self.expected(known);
        let unmet = known.outside && known.stored.head().born < self.swept;
        if found == expected || (unmet && found.is_none()) {
            return;
        }
        assert!(!self.exact, "{found:?} is not {expected:?}: {known:?}");
        assert!(weight(found) >= weight(expected), "{found:?} is weaker than {expected:?}");
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Fill(url, tags) => {
                let known = self.response(url, tags);
                self.insert(known);
            }
            Step::Begin(url, tags) => {
                let known = self.response(url, tags);
                self.arriving.push(known);
            }
            Step::Copy(which) => {
                if let Some(known) = self.pick(*which) {
                    self.known.push(Known { outside: true, ..known });
                }
            }
            Step::Judge(which) => {
                if let Some(known) = self.pick(*which) {
                    self.judge(&known);
                }
            }
            Step::Purge(named, strength) => {
                self.moment += 1;
                let now = Now::at(self.moment);
                let selectors: Vec<Selector> = named.iter().map(Named::selector).collect();
                let applied = self.world.purges.apply(&selectors, *strength, now);
                self.purges.push((applied.epoch, named.clone(), *strength, now));
            }
            Step::Sweep => {
                let World { store, purges, fills } = &self.world;
                self.swept = sweep(store, purges, fills).floor;
                assert_eq!(purges.rows(), 0);
            }
        }
    }

    /// Stores it as the end of a fill does. Another under the same key leaves the store with that.
    fn insert(&mut self, known: Known) {
        let hash = known.stored.head().key.hash;
        let stays = self.world.store.insert(&known.stored, &self.world.purges);
        if stays {
            let others = self.known.iter_mut();
            others
                .filter(|other| other.stored.head().key.hash == hash)
                .for_each(|other| other.outside = true);
        }
        let dead = self.expected(&known).is_none();
        assert!(!(stays && dead), "a dead response was stored: {known:?}");
        self.known.push(Known { outside: !stays, ..known });
    }

    fn pick(&self, which: usize) -> Option<Known> {
        self.known.get(which.checked_rem(self.known.len())?).cloned()
    }

    fn end(&mut self) {
        for known in std::mem::take(&mut self.arriving) {
            self.insert(known);
        }
        for known in &self.known {
            self.judge(known);
        }
    }
}

/// Verdicts from weak to strong.
fn weight(verdict: Option<Verdict>) -> u8 {
    match verdict {
        Some(Verdict::Alive) => 0,
        Some(Verdict::Soft { .. }) => 1,
        Some(Verdict::Check) => 2,
        None => 3,
    }
}

fn play(limits: PurgeLimits, exact: bool, steps: &[Step]) {
    let mut model = Model::new(limits, exact);
    steps.iter().for_each(|step| model.run(step));
    model.end();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn purges_do_what_a_list_of_them_would(steps in prop::collection::vec(step(), 1..60)) {
        play(PurgeLimits::default(), true, &steps);
    }

    #[test]
    fn purges_that_fold_do_no_less(steps in prop::collection::vec(step(), 1..60)) {
        play(PurgeLimits { rows_per_site: 2, globs_per_site: 1, history: 2 }, false, &steps);
    }
}
