//! Which set of witnesses a node goes by, and when it goes over to another.

use super::*;
use crate::replication::{
    Beat, Entry, Incarnation, Mark, Roster, Saved, SetMark, Source, Standing, Standings, State,
    Testimony, TooFewForChange,
};

fn set(number: u64, members: &[&str], joining: Option<&[&str]>) -> WitnessSet {
    let names = |names: &[&str]| names.iter().map(|name| Name::from(*name)).collect();
    WitnessSet { number, members: names(members), joining: joining.map(names) }
}

fn mark(set: &WitnessSet) -> SetMark {
    set.mark(Mutation::None)
}

/// Those nodes say that they hold what they were asked about.
pub(super) fn agree(node: &mut Replica, actions: &[Action], who: &[&str]) -> Vec<Action> {
    let mut answers = Vec::new();
    for name in who {
        for message in said(actions, name) {
            if let Message::Hold { question, set } = message {
                let answer = Message::Holds { question, set: mark(&set), testimony: None };
                answers.extend(hear(node, name, answer));
            }
        }
    }
    answers
}

/// One witness among six nodes.
fn lone(change: impl FnOnce(&mut Settings)) -> Replica {
    node(0, |settings| {
        settings.witnesses.members.truncate(1);
        change(settings);
    })
}

#[test]
fn a_witness_without_memory_waits_for_most_nodes() {
    let mut witness = lone(|_| {});
    let actions = witness.handle(Event::Tick, 7, Now::at(2));
    agree(&mut witness, &actions, &["n1", "n2"]);
    assert!(!witness.is_serving(), "three of six, itself among them");
    let again = witness.handle(Event::Tick, 7, Now::at(3));
    let asked = |name: &str| {
        said(&again, name).iter().any(|message| matches!(message, Message::Hold { .. }))
    };
    assert_eq!(["n1", "n2", "n3", "n5"].map(asked), [false, false, true, true]);
    agree(&mut witness, &again, &["n5"]);
    assert!(witness.is_serving());
}

#[test]
fn a_former_witness_without_memory_hears_of_the_set_that_took_its_place() {
    let mut witness = lone(|_| {});
    let actions = witness.handle(Event::Tick, 7, Now::at(2));
    agree(&mut witness, &actions, &["n1", "n2"]);
    let newer = set(3, &["n4"], None);
    let mut other = node(3, |settings| settings.witnesses = newer.clone());
    let question =
        said(&actions, "n3").into_iter().find(|said| matches!(said, Message::Hold { .. }));
    let answers = said(&hear(&mut other, "n0", question.unwrap()), "n0");
    assert_eq!(answers, [Message::Witnesses(newer.clone())]);
    hear(&mut witness, "n3", answers[0].clone());
    assert_eq!((witness.witnesses(), witness.is_serving()), (&newer, false));
    let late = agree(&mut witness, &actions, &["n4", "n5"]);
    assert!(late.is_empty() && !witness.is_serving(), "what was said of the old set is over");
}

#[test]
fn an_answer_to_another_process_is_none_to_this_one() {
    let mut former = lone(|_| {});
    let actions = former.handle(Event::Tick, 7, Now::at(2));
    let mut witness = lone(|_| {});
    witness.handle(Event::Tick, 8, Now::at(2));
    agree(&mut witness, &actions, &["n1", "n2", "n3", "n4", "n5"]);
    assert!(!witness.is_serving());
}

#[test]
fn who_is_asked_takes_a_newer_set_over_and_has_it_on_disk_before_it_says_so() {
    let mut other = node(3, |settings| settings.disk = true);
    let joint = set(2, &["n0", "n1", "n2"], Some(&["n4"]));
    let question = Message::Hold { question: 5, set: joint.clone() };
    let actions = hear(&mut other, "n0", question);
    let holds = Message::Holds { question: 5, set: mark(&joint), testimony: None };
    assert!(!said(&actions, "n0").contains(&holds));
    let written = actions.iter().find_map(|action| match action {
        Action::Persist { ticket, entries } => Some((*ticket, entries.clone())),
        _ => None,
    });
    let (ticket, entries) = written.expect("it is written down");
    assert_eq!(entries, [Entry::Set(joint.clone())]);
    let safe = other.handle(Event::Persisted { ticket }, 7, Now::at(2));
    assert_eq!(said(&safe, "n0"), [holds]);
}

#[test]
fn a_set_on_disk_is_newer_than_what_was_answered_before_and_than_the_configuration() {
    let old = set(1, &["n0", "n1", "n2"], None);
    let newer = set(3, &["n3", "n4", "n5"], None);
    let standing = Standing { count: 1, incarnation: Incarnation(9) };
    let state = State { set: old, generation: 4, standing, known: Standings::new() };
    for (entries, serves) in [
        (vec![Entry::State(state.clone())], true),
        (vec![Entry::State(state), Entry::Set(newer.clone())], false),
    ] {
        let mut saved = Saved::new(10, 1_000);
        entries.into_iter().for_each(|entry| saved.replay(entry));
        assert!(saved.tells_something());
        let settings = node(0, |_| {}).settings;
        let start = Start::Saved(Box::new(saved));
        let began = Replica::new(settings, start, Mutation::None, 3, Now::at(2));
        assert_eq!(began.is_serving(), serves);
        assert_eq!(began.witnesses() == &newer, !serves);
    }
}

#[test]
fn a_joint_set_is_left_when_enough_nodes_know_of_it_and_then_its_witnesses_serve() {
    let mut witness = lone(|_| {});
    let actions = witness.handle(Event::Tick, 7, Now::at(2));
    agree(&mut witness, &actions, &["n3", "n4", "n5"]);
    let generation = witness.generation().unwrap();
    let members = vec![Name::from("n1")];
    witness.handle(Event::Witnesses(members), 7, Now::at(2));
    let joint = set(2, &["n0"], Some(&["n1"]));
    assert_eq!(witness.witnesses(), &joint);
    let serves = |question| {
        let standing = Standing { count: 1, incarnation: Incarnation(5) };
        let known = Standings::new();
        let testimony = Testimony { set: mark(&joint), generation, standing, known };
        Message::Holds { question, set: mark(&joint), testimony: Some(testimony) }
    };
    let question = |actions: &[Action], name: &str| {
        said(actions, name).into_iter().find_map(|message| match message {
            Message::Hold { question, .. } => Some(question),
            _ => None,
        })
    };
    let first = witness.handle(Event::Tick, 7, Now::at(3));
    let spread = question(&first, "n1").expect("it asks all");
    hear(&mut witness, "n1", serves(spread));
    agree(&mut witness, &first, &["n4"]);
    witness.handle(Event::Tick, 7, Now::at(4));
    assert_eq!(
        witness.witnesses(),
        &joint,
        "half of six would do without the former witness: two do not"
    );
    let turn = agree(&mut witness, &first, &["n5"]);
    let service = question(&turn, "n1").expect("now its witnesses are asked");
    assert_eq!(question(&turn, "n4"), None);
    hear(&mut witness, "n1", serves(spread));
    witness.handle(Event::Tick, 7, Now::at(5));
    assert_eq!(
        witness.witnesses(),
        &joint,
        "what was said before so many knew of it does not count"
    );
    hear(&mut witness, "n1", serves(service));
    assert_eq!(witness.witnesses(), &set(3, &["n1"], None));
}

#[test]
fn who_said_long_ago_that_it_holds_a_joint_set_is_asked_again() {
    let mut witness = lone(|_| {});
    let actions = witness.handle(Event::Tick, 7, Now::at(2));
    agree(&mut witness, &actions, &["n3", "n4", "n5"]);
    want(&mut witness, &["n1"]);
    let asks = |actions: &[Action], name: &str| {
        said(actions, name).iter().any(|message| matches!(message, Message::Hold { .. }))
    };
    let first = witness.handle(Event::Tick, 7, Now::at(3));
    agree(&mut witness, &first, &["n1", "n4"]);
    let soon = witness.handle(Event::Tick, 8, Now::at(7));
    assert_eq!(["n1", "n4", "n5"].map(|name| asks(&soon, name)), [false, false, true]);
    let later = witness.handle(Event::Tick, 9, Now::at(8));
    assert_eq!(["n1", "n4", "n5"].map(|name| asks(&later, name)), [true, true, true]);
    let late = agree(&mut witness, &first, &["n5"]);
    let turn = agree(&mut witness, &later, &["n5"]);
    assert!(late.is_empty() && !asks(&turn, "n1"), "those two may have forgotten it since");
    let turn = agree(&mut witness, &later, &["n1", "n4"]);
    assert!(asks(&turn, "n1"), "now its witnesses are asked");
}

/// The first so many of six nodes, as a roster.
fn roster(nodes: usize) -> Roster {
    let all = ["n0", "n1", "n2", "n3", "n4", "n5"];
    all.iter().take(nodes).map(|name| (Name::from(*name), "fra".into())).collect()
}

/// One of three witnesses among so many nodes, which serves.
fn one_of_three(nodes: usize) -> Replica {
    let mut settings = node(0, |_| {}).settings;
    settings.roster = roster(nodes);
    let standing = Standing { count: 1, incarnation: Incarnation(9) };
    let (set, known) = (settings.witnesses.clone(), Standings::new());
    let mut saved = Saved::new(10, 1_000);
    saved.replay(Entry::State(State { set, generation: 4, standing, known }));
    let start = Start::Saved(Box::new(saved));
    let witness = Replica::new(settings, start, Mutation::None, 3, Now::at(2));
    assert!(witness.is_serving());
    witness
}

fn want(witness: &mut Replica, members: &[&str]) -> Vec<Action> {
    let members = members.iter().map(|name| Name::from(*name)).collect();
    witness.handle(Event::Witnesses(members), 7, Now::at(2))
}

fn noticed(actions: &[Action], wanted: &Notice) -> bool {
    actions.iter().any(|action| matches!(action, Action::Notice(notice) if notice == wanted))
}

fn too_few() -> TooFewForChange {
    let names = |names: [&str; 3]| names.map(Name::from).to_vec();
    TooFewForChange { from: names(["n0", "n1", "n2"]), to: names(["n2", "n3", "n4"]), nodes: 5 }
}

#[test]
fn more_witnesses_than_the_nodes_allow_are_not_replaced_at_once() {
    let mut witness = one_of_three(5);
    let before = witness.witnesses().clone();
    for _ in 0..2 {
        let actions = want(&mut witness, &["n2", "n3", "n4"]);
        assert!(noticed(&actions, &Notice::ChangeRefused(too_few())), "{actions:?}");
        assert_eq!((actions.len(), witness.witnesses()), (1, &before), "and nobody hears of it");
    }
    assert_eq!(
        too_few().to_string(),
        "a mesh of 5 nodes is too small for the witnesses to become n2, n3, n4 instead of n0, n1, n2 at once: \
         too few would know of it for sure; exchange fewer at a time, or add nodes first"
    );
    assert!(want(&mut witness, &["n0", "n1", "n2"]).is_empty(), "no change is no trouble");
    witness.handle(Event::Roster(roster(6)), 7, Now::at(2));
    want(&mut witness, &["n2", "n3", "n4"]);
    let joint = set(2, &["n0", "n1", "n2"], Some(&["n2", "n3", "n4"]));
    assert_eq!(witness.witnesses(), &joint, "of six it is a change like others");
    let other = want(&mut witness, &["n0", "n1", "n5"]);
    assert!(other.is_empty() && witness.witnesses() == &joint, "one change at a time");
}

#[test]
fn of_five_nodes_one_witness_is_replaced_at_a_time() {
    let mut witness = one_of_three(5);
    want(&mut witness, &["n1", "n2", "n3"]);
    assert_eq!(witness.witnesses(), &set(2, &["n0", "n1", "n2"], Some(&["n1", "n2", "n3"])));
}

#[test]
fn a_joint_set_stays_while_the_nodes_are_too_few_for_it() {
    let mut witness = one_of_three(6);
    want(&mut witness, &["n2", "n3", "n4"]);
    let joint = witness.witnesses().clone();
    let asks = |actions: &[Action]| {
        said(actions, "n1").iter().any(|message| matches!(message, Message::Hold { .. }))
    };
    for (nodes, second) in [(5, 3), (6, 20)] {
        witness.handle(Event::Roster(roster(nodes)), 7, Now::at(second));
        let first = witness.handle(Event::Tick, 7, Now::at(second));
        assert!(asks(&first), "who holds it");
        let turn = agree(&mut witness, &first, &["n1", "n2", "n3", "n4", "n5"]);
        assert_eq!(asks(&turn), nodes == 6, "who serves under it, once it can be left");
        let stuck = Notice::ChangeStuck(too_few());
        let told = noticed(&first, &stuck) || noticed(&turn, &stuck);
        assert_eq!((told, witness.witnesses()), (nodes == 5, &joint));
    }
}

#[test]
fn a_life_that_is_heard_of_is_not_over_whatever_comes_late_from_a_former_one() {
    let few = |settings: &mut Settings| settings.sources = 0;
    let mut witness = lone(few);
    let actions = witness.handle(Event::Tick, 7, Now::at(2));
    agree(&mut witness, &actions, &["n3", "n4", "n5"]);
    let empty = Holding { vector: Vector::default(), step: None };
    hear(&mut witness, "n3", Message::Vector(empty));
    let mut issuer = node(3, |_| {});
    let (record, _) = purge(&mut issuer, b"one", Now::at(2));
    hear(&mut witness, "n3", spread(&record));
    let beat = |source: &Source| {
        let (mark, set) = (Mark::default(), SetMark::default());
        Message::Beat(Beat { source: source.clone(), mark, digest: 0, set, asks: false })
    };
    let at = |witness: &mut Replica, source: &Source, second| {
        let (from, message) = (Name::from("n3"), beat(source));
        witness.handle(Event::Message { from, message }, 7, Now::at(second));
        let actions = witness.handle(Event::Tick, 7, Now::at(second));
        actions.iter().any(|action| matches!(action, Action::Notice(Notice::Retired { .. })))
    };
    let own = record.identity.source.clone();
    let former = Source { incarnation: Incarnation(77), node: "n3".into() };
    assert!(!at(&mut witness, &own, 3));
    assert!(!at(&mut witness, &own, 1_000));
    assert!(!at(&mut witness, &former, 1_001), "a late word of a former life");
    assert!(!at(&mut witness, &former, 1_500));
    assert!(at(&mut witness, &former, 1_601), "silent for ten minutes, and another one speaks");
}
