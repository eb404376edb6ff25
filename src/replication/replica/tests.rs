mod sets;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::clock::Now;
use crate::replication::{
    Action, Event, Holding, Message, Mutation, Name, NodeState, Notice, Record, Refusal, Replica,
    ResetWhy, Scope, Settings, Start, Vector, WitnessSet,
};

/// A node among six in two PoPs; the first three are witnesses.
fn node(number: usize, change: impl FnOnce(&mut Settings)) -> Replica {
    let name = |number: usize| Name::from(format!("n{number}").as_str());
    let pop = |number: usize| Name::from(if number < 3 { "fra" } else { "nyc" });
    let roster: BTreeMap<Name, Name> = (0..6).map(|number| (name(number), pop(number))).collect();
    let members = (0..3).map(name).collect();
    let witnesses = WitnessSet { number: 1, members, joining: None };
    let mut settings = Settings::new(name(number), roster, witnesses);
    settings.disk = false;
    change(&mut settings);
    Replica::new(settings, Start::Forgotten, Mutation::None, number as u64, Now::at(1))
}

fn purge(node: &mut Replica, payload: &[u8], now: Now) -> (Arc<Record>, Vec<Action>) {
    let (_, actions) = node.submit(Scope::All, payload.into(), true, now).unwrap();
    let applied = actions.iter().find_map(|action| match action {
        Action::Apply(records) => records.first().cloned(),
        _ => None,
    });
    (applied.unwrap(), actions)
}

fn hear(node: &mut Replica, from: &str, message: Message) -> Vec<Action> {
    node.handle(Event::Message { from: from.into(), message }, 7, Now::at(2))
}

fn spread(record: &Arc<Record>) -> Message {
    Message::Record { record: record.clone(), pass_on: false }
}

fn applied(actions: &[Action]) -> usize {
    let records = actions.iter().map(|action| match action {
        Action::Apply(records) => records.len(),
        _ => 0,
    });
    records.sum()
}

#[test]
fn a_record_is_applied_once_and_in_order() {
    let (mut issuer, mut other) = (node(3, |_| {}), node(4, |_| {}));
    let records: Vec<Arc<Record>> =
        (0..3).map(|number| purge(&mut issuer, &[number], Now::at(2)).0).collect();
    assert_eq!(applied(&hear(&mut other, "n3", spread(&records[2]))), 0);
    assert_eq!(applied(&hear(&mut other, "n3", spread(&records[0]))), 1);
    let both = hear(&mut other, "n3", spread(&records[1]));
    assert_eq!(applied(&both), 2, "the one that waited follows at once");
    assert_eq!(applied(&hear(&mut other, "n3", spread(&records[1]))), 0);
    assert!(other.has_applied(&records[2].identity));
    assert_eq!(other.vector(), issuer.vector());
}

#[test]
fn a_gap_is_asked_for() {
    let (mut issuer, mut other) = (node(3, |_| {}), node(4, |_| {}));
    let (first, _) = purge(&mut issuer, b"1", Now::at(2));
    let (second, _) = purge(&mut issuer, b"2", Now::at(2));
    let actions = hear(&mut other, "n3", spread(&second));
    let wants = actions.iter().any(|action| {
        matches!(action, Action::Send { to, message: Message::Want(ranges) }
            if to.as_str() == "n3" && ranges.len() == 1)
    });
    assert!(wants, "{actions:?}");
    assert_eq!(applied(&hear(&mut other, "n3", Message::Records(vec![first, second]))), 2);
}

#[test]
fn another_record_under_a_known_name_is_refused_and_its_issuer_reborn() {
    let (mut issuer, mut copy, mut other) = (node(3, |_| {}), node(3, |_| {}), node(4, |_| {}));
    let (record, _) = purge(&mut issuer, b"one", Now::at(2));
    let (forked, _) = purge(&mut copy, b"two", Now::at(2));
    assert_eq!(record.identity, forked.identity, "both processes drew the same incarnation");
    hear(&mut other, "n3", spread(&record));
    let actions = hear(&mut other, "n3", spread(&forked));
    assert_eq!(applied(&actions), 0);
    let refused = Notice::Refused(forked.identity.clone());
    assert!(actions.iter().any(|action| matches!(action, Action::Notice(n) if *n == refused)));
    let conflict = Message::Conflict(forked.identity.clone());
    let told =
        |action: &Action| matches!(action, Action::Send { message, .. } if *message == conflict);
    assert!(actions.iter().any(told));
    hear(&mut copy, "n4", conflict.clone());
    let (next, _) = purge(&mut copy, b"three", Now::at(3));
    assert_ne!(next.identity.source, forked.identity.source);
    assert_eq!((next.identity.sequence, next.before), (1, 0));
}

#[test]
fn a_history_that_went_further_under_a_known_name_resets() {
    let (mut issuer, mut copy, mut other) = (node(3, |_| {}), node(3, |_| {}), node(4, |_| {}));
    let (record, _) = purge(&mut issuer, b"one", Now::at(2));
    purge(&mut copy, b"two", Now::at(2));
    let (further, _) = purge(&mut copy, b"three", Now::at(2));
    hear(&mut other, "n3", spread(&record));
    let actions = hear(&mut other, "n3", spread(&further));
    let resets = actions.iter().any(|action| {
        matches!(action, Action::Reset(reset) if reset.why == ResetWhy::Conflict && reset.check)
    });
    assert!(resets, "{actions:?}");
}

#[test]
fn a_purge_goes_to_its_own_pop_the_witnesses_and_some_relays() {
    let mut issuer = node(3, |settings| settings.relays = 1);
    let (_, actions) = purge(&mut issuer, b"one", Now::at(2));
    let to = |relays: bool| -> Vec<&str> {
        let sent = actions.iter().filter_map(|action| match action {
            Action::Send { to, message: Message::Record { pass_on, .. } } => {
                (*pass_on == relays).then_some(to.as_str())
            }
            _ => None,
        });
        sent.collect()
    };
    assert_eq!(to(true).len(), 1, "one relay of the other PoP");
    let mut all = [to(true), to(false)].concat();
    all.sort_unstable();
    assert_eq!(all, ["n0", "n1", "n2", "n4", "n5"]);
}

#[test]
fn a_relay_hands_a_record_on_once() {
    let (mut issuer, mut relay) = (node(0, |_| {}), node(3, |_| {}));
    let (record, _) = purge(&mut issuer, b"one", Now::at(2));
    let message = Message::Record { record, pass_on: true };
    let handed = |actions: &[Action]| {
        let sent = actions.iter().filter(|action| {
            matches!(action, Action::Send { message: Message::Record { pass_on: false, .. }, .. })
        });
        sent.count()
    };
    assert_eq!(handed(&hear(&mut relay, "n0", message.clone())), 2);
    assert_eq!(handed(&hear(&mut relay, "n0", message)), 0);
}

#[test]
fn more_than_the_rate_is_refused_where_it_is_issued_and_delayed_elsewhere() {
    let slow = |settings: &mut Settings| (settings.rate, settings.burst) = (1, 2);
    let (mut issuer, mut fast, mut other) = (node(3, slow), node(3, |_| {}), node(4, slow));
    for payload in [b"1", b"2"] {
        purge(&mut issuer, payload, Now::at(2));
    }
    let third = issuer.submit(Scope::All, Arc::from(*b"3"), false, Now::at(2));
    assert!(matches!(third, Err(Refusal::TooMany { again }) if !again.is_zero()));
    assert!(issuer.submit(Scope::All, Arc::from(*b"3"), false, Now::at(4)).is_ok());
    let records: Vec<Arc<Record>> =
        (0..3).map(|number| purge(&mut fast, &[number], Now::at(2)).0).collect();
    let taken: usize =
        records.iter().map(|record| applied(&hear(&mut other, "n3", spread(record)))).sum();
    assert_eq!(taken, 2);
    let repaired = hear(&mut other, "n5", Message::Records(records));
    assert_eq!(applied(&repaired), 1, "repair brings what was delayed");
}

#[test]
fn a_receipt_tells_who_has_applied_and_who_is_unknown() {
    let mut issuer = node(3, |_| {});
    let (record, _) = purge(&mut issuer, b"one", Now::at(2));
    hear(&mut issuer, "n4", Message::Applied(record.identity.clone()));
    hear(&mut issuer, "stranger", Message::Applied(record.identity.clone()));
    let receipt = issuer.receipt(&record.identity).unwrap();
    assert_eq!(receipt.applied.len(), 2);
    let state = |name: &str| receipt.state(&name.into(), Now::at(9));
    assert!(matches!(state("n4"), NodeState::Applied(_)));
    assert_eq!(state("n5"), NodeState::Unknown);
    let mut acknowledged = receipt.clone();
    acknowledged.acknowledged = Some(Now::at(7).boot);
    assert_eq!(acknowledged.state(&"n5".into(), Now::at(9)), NodeState::Fenced);
    assert_eq!(acknowledged.state(&"n5".into(), Now::at(8)), NodeState::Unknown);
}

#[test]
fn receipts_name_so_many_nodes_and_the_newest_ones_stay() {
    let mut issuer = node(3, |settings| settings.receipt_nodes = 4);
    let records = [b"1", b"2", b"3"].map(|payload| purge(&mut issuer, payload, Now::at(2)).0);
    for node in ["n1", "n2", "n4"] {
        hear(&mut issuer, node, Message::Applied(records[2].identity.clone()));
    }
    let known: Vec<bool> =
        records.iter().map(|record| issuer.receipt(&record.identity).is_some()).collect();
    assert_eq!(known, [false, false, true]);
    hear(&mut issuer, "n5", Message::Applied(records[2].identity.clone()));
    let newest = issuer.receipt(&records[2].identity).unwrap();
    assert_eq!(newest.applied.len(), 5, "the newest stays whatever it names");
}

#[test]
fn what_an_answer_has_no_room_for_is_asked_for_with_it() {
    let issuers = [0, 1, 2].map(|number| {
        let mut issuer = node(number, |_| {});
        (0..3).map(|_| purge(&mut issuer, &[7; 100], Now::at(2)).0).collect::<Vec<_>>()
    });
    let few = |settings: &mut Settings| settings.batch_records = 4;
    let (mut whole, mut other) = (node(3, few), node(4, few));
    let empty = Message::Vector(Holding { vector: Vector::default(), step: None });
    hear(&mut whole, "n5", empty.clone());
    hear(&mut other, "n5", empty);
    hear(&mut whole, "n5", Message::Records(issuers.concat()));
    let holding = Holding { vector: whole.vector().clone(), step: None };
    let mut way = vec![(4, Message::Vector(holding))];
    let mut questions = 0;
    while let Some((to, message)) = way.pop() {
        questions += usize::from(matches!(message, Message::Want(_)));
        let (node, from) = if to == 4 { (&mut other, "n3") } else { (&mut whole, "n4") };
        way.extend(hear(node, from, message).into_iter().filter_map(|action| match action {
            Action::Send { to, message } if ["n3", "n4"].contains(&to.as_str()) => {
                Some((if to.as_str() == "n3" { 3 } else { 4 }, message))
            }
            _ => None,
        }));
    }
    assert_eq!(other.vector(), whole.vector(), "no time has passed");
    assert_eq!(questions, 3, "nine records, four at once");
}

#[test]
fn a_lone_witness_is_its_own_majority() {
    let roster = BTreeMap::from([(Name::from("n"), Name::from("p"))]);
    let witnesses = WitnessSet { number: 1, members: vec!["n".into()], joining: None };
    let mut settings = Settings::new("n".into(), roster, witnesses);
    settings.disk = false;
    let mut alone = Replica::new(settings, Start::Forgotten, Mutation::None, 1, Now::at(1));
    for second in 1..4 {
        alone.handle(Event::Tick, second, Now::at(second));
    }
    assert!(alone.is_serving());
    assert!(alone.lease().is_some_and(|lease| lease.holds(Now::at(4))));
    let (_, actions) = purge(&mut alone, b"one", Now::at(4));
    assert!(actions.iter().any(|action| matches!(action, Action::Acknowledged(_))));
}

fn said(actions: &[Action], to: &str) -> Vec<Message> {
    let said = actions.iter().filter_map(|action| match action {
        Action::Send { to: other, message } if other.as_str() == to => Some(message.clone()),
        _ => None,
    });
    said.collect()
}

#[test]
fn a_burst_is_reported_at_once_and_then_with_one_word() {
    let (mut issuer, mut other) = (node(3, |_| {}), node(4, |_| {}));
    let records: Vec<Arc<Record>> =
        (0..9).map(|number| purge(&mut issuer, &[number], Now::at(2)).0).collect();
    let reports = |actions: &[Action]| {
        let mut reports = said(actions, "n3");
        reports.retain(|message| matches!(message, Message::Applied(_)));
        reports
    };
    let at_once: Vec<Message> = records
        .iter()
        .flat_map(|record| reports(&hear(&mut other, "n3", spread(record))))
        .collect();
    assert_eq!(at_once, [Message::Applied(records[0].identity.clone())]);
    let later = reports(&other.handle(Event::Tick, 7, Now::at(3)));
    assert_eq!(later, [Message::Applied(records[8].identity.clone())]);
    assert_eq!(reports(&other.handle(Event::Tick, 7, Now::at(4))), []);
    hear(&mut issuer, "n4", later[0].clone());
    for record in &records {
        let receipt = issuer.receipt(&record.identity).unwrap();
        assert!(receipt.applied.contains_key(&Name::from("n4")), "{:?}", record.identity);
    }
    let (last, me) = (records[8].identity.clone(), Name::from("n4"));
    assert_eq!(issuer.heard_applied(&last, &me, Now::at(2)).count(), 9);
    assert_eq!(issuer.heard_applied(&last, &me, Now::at(3)).count(), 0);
}

#[test]
fn who_did_not_say_that_it_has_a_purge_is_asked() {
    let (mut issuer, mut other) = (node(3, |_| {}), node(4, |_| {}));
    let (record, _) = purge(&mut issuer, b"one", Now::at(2));
    hear(&mut other, "n3", spread(&record));
    hear(&mut issuer, "n5", Message::Applied(record.identity.clone()));
    let asked = |issuer: &mut Replica, name: &str, second| {
        let said = said(&issuer.handle(Event::Tick, 7, Now::at(second)), name);
        said.into_iter().find(|message| matches!(message, Message::Beat(beat) if beat.asks))
    };
    let question = asked(&mut issuer, "n4", 3).expect("its word was lost");
    let answers = said(&hear(&mut other, "n3", question), "n3");
    let answer = Message::Applied(record.identity.clone());
    assert!(answers.contains(&answer), "{answers:?}");
    hear(&mut issuer, "n4", answer);
    assert_eq!(asked(&mut issuer, "n4", 4), None);
    assert!(asked(&mut issuer, "n0", 5).is_some());
    assert_eq!(asked(&mut issuer, "n0", 40), None, "not for ever");
}

#[test]
fn one_that_has_left_stands_for_nobody_who_is_silent() {
    let mut issuer = node(3, |_| {});
    let (record, _) = purge(&mut issuer, b"one", Now::at(2));
    for node in ["n0", "n1", "n2", "n5"] {
        hear(&mut issuer, node, Message::Applied(record.identity.clone()));
    }
    let stay = (0..5).map(|number| (Name::from(format!("n{number}").as_str()), "fra".into()));
    let roster: BTreeMap<Name, Name> = stay.collect();
    issuer.handle(Event::Roster(roster.into()), 7, Now::at(2));
    let said = said(&issuer.handle(Event::Tick, 7, Now::at(3)), "n4");
    assert!(said.iter().any(|message| matches!(message, Message::Beat(beat) if beat.asks)));
}

#[test]
fn witnesses_of_another_set_of_the_same_number_give_no_lease() {
    let mut fellow = node(0, |settings| settings.witnesses.members.truncate(1));
    let actions = fellow.handle(Event::Tick, 7, Now::at(2));
    sets::agree(&mut fellow, &actions, &["n3", "n4", "n5"]);
    assert!(fellow.is_serving(), "alone, as it was told");
    for (members, leased) in [(1, true), (3, false)] {
        let mut asker = node(4, |settings| settings.witnesses.members.truncate(members));
        for second in 5..8 {
            let questions = said(&asker.handle(Event::Tick, 7, Now::at(second)), "n0");
            for question in questions {
                let from = "n4".into();
                let event = Event::Message { from, message: question };
                for answer in said(&fellow.handle(event, 7, Now::at(second)), "n4") {
                    let event = Event::Message { from: "n0".into(), message: answer };
                    asker.handle(event, 7, Now::at(second));
                }
            }
        }
        assert_eq!(asker.lease().is_some(), leased, "told {members} witnesses");
    }
    let actions = fellow.handle(Event::Tick, 7, Now::at(9));
    let beat = actions.into_iter().find_map(|action| match action {
        Action::Send { message: beat @ Message::Beat(_), .. } => Some(beat),
        _ => None,
    });
    let mut told = node(1, |_| {});
    let other = Notice::OtherWitnesses { node: "n0".into(), number: 1 };
    let notices = |actions: &[Action]| {
        actions.iter().filter(|action| matches!(action, Action::Notice(n) if *n == other)).count()
    };
    let beat = beat.expect("it beats to somebody");
    assert_eq!(notices(&hear(&mut told, "n0", beat.clone())), 1);
    assert_eq!(notices(&hear(&mut told, "n0", beat)), 0, "once");
}
