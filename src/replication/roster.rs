//! Who is in the mesh, and in which PoP.
//!
//! It is made once and then shared: a clone is a pointer. Names stand in order, and each PoP knows the
//! places of its own, so that whoever wants one node of a PoP, or one of all others, does not look
//! through all of them:
//!
//! ```text
//!   names   a1 a2 b1 b2 b3 c1        a: 0 1    b: 2 3 4    c: 5
//! ```

use std::collections::BTreeMap;
use std::hash::Hasher as _;
use std::sync::Arc;

use siphasher::sip::SipHasher13;

use super::identity::Name;

/// Nodes of a [`Roster::panel`], at most. An even number: where one node more or less is in the mesh, one
/// majority of the panel still meets every other.
const PANEL: usize = 64;

/// Every node with its PoP; shared, read only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster(Arc<Nodes>);

#[derive(Debug, Default, PartialEq, Eq)]
struct Nodes {
    /// In order, each with the place of its PoP.
    names: Vec<(Name, usize)>,
    pops: Vec<Pop>,
    /// Places of those that are asked.
    panel: Vec<usize>,
}

#[derive(Debug, PartialEq, Eq)]
struct Pop {
    name: Name,
    /// Places of its nodes, in order.
    nodes: Vec<usize>,
}

/// Where a node stands.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// Among all.
    node: usize,
    pop: usize,
}

impl Roster {
    /// The PoP of a node, if the node is known.
    #[must_use]
    pub fn pop(&self, node: &Name) -> Option<&Name> {
        let place = self.place(node)?;
        self.0.pops.get(place.pop).map(|pop| &pop.name)
    }

    /// Whether a node is in it.
    #[must_use]
    pub fn contains(&self, node: &Name) -> bool {
        self.place(node).is_some()
    }

    /// Number of nodes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.names.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.names.is_empty()
    }

    /// The nodes, in order.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &Name> {
        self.0.names.iter().map(|(name, _)| name)
    }

    /// The nodes with their PoPs, in order of the nodes.
    pub fn iter(&self) -> impl Iterator<Item = (&Name, &Name)> {
        let pop = |place: &usize| self.0.pops.get(*place).map(|pop| &pop.name);
        self.0.names.iter().filter_map(move |(name, place)| Some((name, pop(place)?)))
    }

    /// Number of PoPs.
    #[must_use]
    pub fn pops(&self) -> usize {
        self.0.pops.len()
    }

    /// The nodes of `node`'s PoP, itself included, in order. None of one that is not known.
    pub fn beside(&self, node: &Name) -> impl Iterator<Item = &Name> {
        let pop = self.place(node).and_then(|place| self.0.pops.get(place.pop));
        pop.into_iter().flat_map(|pop| &pop.nodes).filter_map(|place| self.name(*place))
    }

    /// Those that are asked where a majority of the mesh is to know something: all, or, of a large mesh,
    /// some that are the same for whoever asks, wherever they are.
    pub(super) fn panel(&self) -> Vec<&Name> {
        self.0.panel.iter().filter_map(|place| self.name(*place)).collect()
    }

    /// One of `node`'s PoP, not itself; `draw` is given how many there are, which is not 0, and says
    /// which.
    pub(super) fn near(&self, node: &Name, draw: impl FnOnce(usize) -> usize) -> Option<&Name> {
        let place = self.place(node)?;
        let nodes = &self.0.pops.get(place.pop)?.nodes;
        let others = nodes.len().checked_sub(1).filter(|others| *others > 0)?;
        let own = nodes.partition_point(|other| *other < place.node);
        let chosen = draw(others);
        self.name(*nodes.get(chosen + usize::from(chosen >= own))?)
    }

    /// One of all other PoPs, like [`Roster::near`].
    pub(super) fn far(&self, node: &Name, draw: impl FnOnce(usize) -> usize) -> Option<&Name> {
        let own = self.place(node).and_then(|place| self.0.pops.get(place.pop));
        let own = own.map_or(&[] as &[usize], |pop| &pop.nodes);
        let others = self.len().checked_sub(own.len()).filter(|others| *others > 0)?;
        self.name(past(own, draw(others)))
    }

    /// Up to `most` of each PoP but `node`'s own, each with whether others are beside them that are
    /// not among these.
    pub(super) fn relays(
        &self,
        node: &Name,
        most: usize,
        mut draw: impl FnMut(usize) -> usize,
    ) -> Vec<(&Name, bool)> {
        let own = self.place(node).map(|place| place.pop);
        let mut relays = Vec::with_capacity(self.pops() * most);
        for (number, pop) in self.0.pops.iter().enumerate() {
            if Some(number) == own {
                continue;
            }
            let mut chosen: Vec<usize> = Vec::with_capacity(most);
            for left in (1..=pop.nodes.len()).rev().take(most) {
                let place = past(&chosen, draw(left));
                chosen.insert(chosen.partition_point(|other| *other < place), place);
                let name = pop.nodes.get(place).and_then(|place| self.name(*place));
                relays.extend(name.map(|name| (name, pop.nodes.len() > most)));
            }
        }
        relays
    }

    fn name(&self, place: usize) -> Option<&Name> {
        self.0.names.get(place).map(|(name, _)| name)
    }

    fn place(&self, node: &Name) -> Option<Place> {
        let place = self.0.names.binary_search_by(|(name, _)| name.cmp(node)).ok()?;
        let (_, pop) = self.0.names.get(place)?;
        Some(Place { node: place, pop: *pop })
    }
}

/// The places of all, or of those whose names have the lowest hashes.
fn panel(names: &[(Name, usize)]) -> Vec<usize> {
    let mut places: Vec<usize> = (0..names.len()).collect();
    if places.len() > PANEL {
        places.sort_by_cached_key(|place| {
            let mut hasher = SipHasher13::new();
            let name = names.get(*place).map_or("", |(name, _)| name.as_str());
            hasher.write(name.as_bytes());
            hasher.finish()
        });
        places.truncate(PANEL);
    }
    places
}

/// The `number`th place that is not among those left out, which are in order.
fn past(left_out: &[usize], number: usize) -> usize {
    left_out.iter().fold(number, |place, out| place + usize::from(*out <= place))
}

impl FromIterator<(Name, Name)> for Roster {
    fn from_iter<I: IntoIterator<Item = (Name, Name)>>(nodes: I) -> Self {
        nodes.into_iter().collect::<BTreeMap<_, _>>().into()
    }
}

impl From<BTreeMap<Name, Name>> for Roster {
    fn from(nodes: BTreeMap<Name, Name>) -> Self {
        let mut pops: BTreeMap<&Name, Vec<usize>> = BTreeMap::new();
        for (place, pop) in nodes.values().enumerate() {
            pops.entry(pop).or_default().push(place);
        }
        let pops: Vec<Pop> =
            pops.into_iter().map(|(name, nodes)| Pop { name: name.clone(), nodes }).collect();
        let number = |pop: &Name| pops.partition_point(|other| other.name < *pop);
        let names: Vec<(Name, usize)> =
            nodes.iter().map(|(name, pop)| (name.clone(), number(pop))).collect();
        let panel = panel(&names);
        Self(Arc::new(Nodes { names, pops, panel }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roster() -> Roster {
        let nodes = [("a", "x"), ("b", "y"), ("c", "x"), ("d", "y"), ("e", "y"), ("f", "z")];
        nodes.into_iter().map(|(name, pop)| (Name::from(name), Name::from(pop))).collect()
    }

    fn all<'a>(count: usize, one: impl Fn(usize) -> Option<&'a Name>) -> String {
        (0..count).map(|number| one(number).unwrap().as_str()).collect()
    }

    #[test]
    fn every_node_has_its_place() {
        let roster = roster();
        assert_eq!(roster.pop(&"d".into()), Some(&"y".into()));
        assert_eq!(roster.pop(&"g".into()), None);
        assert!(roster.contains(&"f".into()) && !roster.contains(&"x".into()));
        let beside: String = roster.beside(&"d".into()).map(Name::as_str).collect();
        assert_eq!(beside, "bde");
        assert_eq!((roster.len(), roster.pops(), roster.iter().count()), (6, 3, 6));
    }

    #[test]
    fn near_and_far_draw_from_all_others_once_each() {
        let roster = roster();
        let near = |me: &str| {
            let count = roster.beside(&me.into()).count() - 1;
            all(count, |number| roster.near(&me.into(), |most| number.min(most - 1)))
        };
        assert_eq!([near("b"), near("d"), near("e"), near("a")], ["de", "be", "bd", "c"]);
        assert_eq!(roster.near(&"f".into(), |_| 0), None);
        assert_eq!(roster.near(&"stranger".into(), |_| 0), None);
        let far = |me: &str, count| all(count, |number| roster.far(&me.into(), |_| number));
        assert_eq!([far("a", 4), far("b", 3), far("f", 5)], ["bdef", "acf", "abcde"]);
        assert_eq!(far("stranger", 6), "abcdef");
    }

    #[test]
    fn of_a_large_mesh_the_same_few_are_asked_with_one_node_more_or_less() {
        assert_eq!(roster().panel().len(), 6);
        let large = |nodes: usize| -> Roster {
            let name = |node: usize| Name::from(format!("n{node}").as_str());
            (0..nodes).map(|node| (name(node), Name::from(["x", "y", "z"][node % 3]))).collect()
        };
        for nodes in [64, 65, 300] {
            let (one, more) = (large(nodes), large(nodes + 1));
            let same = one.panel().into_iter().filter(|name| more.panel().contains(name)).count();
            assert_eq!((one.panel().len(), more.panel().len()), (PANEL, PANEL));
            assert!(same >= PANEL - 1, "{same} of {nodes}");
        }
        let roster = large(300);
        let pops = |pop: &str| {
            let of =
                roster.panel().into_iter().filter(|name| roster.pop(name) == Some(&pop.into()));
            of.count()
        };
        assert!([pops("x"), pops("y"), pops("z")].iter().all(|pop| *pop > PANEL / 6));
    }

    #[test]
    fn relays_are_different_nodes_of_every_other_pop() {
        let roster = roster();
        let relays = |most, number: usize| -> Vec<(&str, bool)> {
            let relays = roster.relays(&"f".into(), most, |left| number.min(left - 1));
            relays.into_iter().map(|(name, inside)| (name.as_str(), inside)).collect()
        };
        assert_eq!(relays(1, 1), [("c", true), ("d", true)]);
        assert_eq!(relays(2, 0), [("a", false), ("c", false), ("b", true), ("d", true)]);
        assert_eq!(relays(2, 1), [("c", false), ("a", false), ("d", true), ("e", true)]);
        assert_eq!(relays(9, 2).len(), 5);
    }
}
