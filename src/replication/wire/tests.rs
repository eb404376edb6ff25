use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::replication::{
    Entry, Identity, Incarnation, Mark, Name, Record, Retired, Scope, SetMark, Source, Standing,
    Standings, State, Step, Testimony, Vector, WitnessSet,
};

fn names() -> impl Strategy<Value = Name> {
    "[a-z]{1,8}".prop_map(|name| Name::from(name.as_str()))
}

fn sources() -> impl Strategy<Value = Source> {
    (any::<u64>(), names())
        .prop_map(|(number, node)| Source { incarnation: Incarnation(number), node })
}

fn identities() -> impl Strategy<Value = Identity> {
    (sources(), 1..u64::MAX / 2).prop_map(|(source, sequence)| Identity { source, sequence })
}

fn marks() -> impl Strategy<Value = Mark> {
    (1..u64::MAX / 2, any::<u128>()).prop_map(|(sequence, chain)| Mark { sequence, chain })
}

fn standings() -> impl Strategy<Value = Standing> {
    (0..u64::MAX / 2, any::<u64>())
        .prop_map(|(count, number)| Standing { count, incarnation: Incarnation(number) })
}

fn records() -> impl Strategy<Value = Arc<Record>> {
    let scope = prop_oneof![
        Just(Scope::All),
        "[a-z]{0,9}".prop_map(|site| Scope::Site(site.as_str().into()))
    ];
    let payload = proptest::collection::vec(any::<u8>(), 0..40);
    (identities(), any::<u128>(), scope, any::<bool>(), payload).prop_map(
        |(identity, before, scope, receipt, payload)| {
            Arc::new(Record { identity, before, scope, receipt, payload: payload.into() })
        },
    )
}

fn retired() -> impl Strategy<Value = Retired> {
    (0..u64::MAX / 2, any::<u64>()).prop_map(|(count, draw)| Retired { count, draw })
}

fn holdings() -> impl Strategy<Value = Holding> {
    let ended = proptest::collection::vec((sources(), marks()), 0..4);
    let step = (retired(), retired(), ended).prop_map(|(from, to, ended)| Step { from, to, ended });
    let some = proptest::collection::vec((sources(), marks()), 0..4);
    (retired(), some, proptest::option::of(step)).prop_map(|(retired, marks, step)| {
        let mut vector = Vector::new(retired);
        marks.iter().for_each(|(source, mark)| vector.set(source, *mark));
        Holding { vector, step }
    })
}

fn known() -> impl Strategy<Value = Standings> {
    proptest::collection::btree_map(names(), standings(), 0..4)
}

fn sets() -> impl Strategy<Value = SetMark> {
    (0..u64::MAX / 2, any::<u64>()).prop_map(|(number, members)| SetMark { number, members })
}

fn testimonies() -> impl Strategy<Value = Testimony> {
    (sets(), any::<u64>(), standings(), known()).prop_map(|(set, generation, standing, known)| {
        Testimony { set, generation, standing, known }
    })
}

fn beginnings() -> impl Strategy<Value = Beginning> {
    let members = proptest::collection::vec((names(), standings()), 0..4);
    (any::<u64>(), sets(), members).prop_map(|(generation, set, members)| Beginning {
        generation,
        set,
        members,
    })
}

fn witnesses() -> impl Strategy<Value = WitnessSet> {
    let some = || proptest::collection::vec(names(), 0..5);
    (0..u64::MAX / 2, some(), proptest::option::of(some()))
        .prop_map(|(number, members, joining)| WitnessSet { number, members, joining })
}

fn have() -> impl Strategy<Value = Have> {
    prop_oneof![Just(Have::Same), holdings().prop_map(Have::Holding)]
}

fn durations() -> impl Strategy<Value = Duration> {
    any::<u32>().prop_map(|micros| Duration::from_micros(micros.into()))
}

fn spread() -> impl Strategy<Value = Message> {
    prop_oneof![
        (records(), any::<bool>())
            .prop_map(|(record, pass_on)| Message::Record { record, pass_on }),
        proptest::collection::vec(records(), 0..4).prop_map(Message::Records),
        (sources(), marks(), any::<u64>(), sets(), any::<bool>()).prop_map(
            |(source, mark, digest, set, asks)| {
                Message::Beat(Beat { source, mark, digest, set, asks })
            }
        ),
        holdings().prop_map(Message::Vector),
        Just(Message::Compare),
        proptest::collection::vec(
            (sources(), any::<u64>()).prop_map(|(source, after)| Range { source, after }),
            0..4
        )
        .prop_map(Message::Want),
        holdings().prop_map(Message::Beyond),
        identities().prop_map(Message::Applied),
        identities().prop_map(Message::Conflict),
        witnesses().prop_map(Message::Witnesses),
    ]
}

fn attested() -> impl Strategy<Value = Message> {
    prop_oneof![
        (sources(), marks(), testimonies()).prop_map(|(source, mark, testimony)| {
            Message::Acknowledge { source, mark, testimony }
        }),
        (any::<u64>(), any::<u128>(), any::<bool>())
            .prop_map(|(question, digest, relay)| Message::Ask { question, digest, relay }),
        (any::<u64>(), testimonies(), durations(), have()).prop_map(
            |(question, testimony, lease, have)| {
                Message::Answer { question, testimony, lease, have }
            }
        ),
        (any::<u64>(), durations(), durations(), any::<u64>(), have()).prop_map(
            |(question, age, lease, generation, have)| {
                Message::Relayed { question, age, lease, generation, have }
            }
        ),
        (standings(), sets())
            .prop_map(|(standing, set)| Message::Recover(Recover { standing, set })),
        (standings(), testimonies(), holdings()).prop_map(|(noted, testimony, holding)| {
            Message::Adopt { noted, testimony, holding }
        }),
        beginnings().prop_map(Message::Begin),
        (any::<u64>(), witnesses()).prop_map(|(question, set)| Message::Hold { question, set }),
        (any::<u64>(), sets(), proptest::option::of(testimonies()))
            .prop_map(|(question, set, testimony)| Message::Holds { question, set, testimony }),
        (beginnings(), any::<bool>())
            .prop_map(|(beginning, settled)| Message::Joined { beginning, settled }),
    ]
}

proptest! {
    #[test]
    fn a_message_is_read_as_it_was_written(message in prop_oneof![spread(), attested()]) {
        let frame = encode(&message);
        prop_assert_eq!(decode(&frame), Ok(message));
    }

    #[test]
    fn a_record_takes_as_much_as_it_says(records in proptest::collection::vec(records(), 0..9)) {
        let bytes: usize = records.iter().map(|record| record.wire_bytes()).sum();
        prop_assert_eq!(encode(&Message::Records(records)).len(), 5 + bytes);
    }

    #[test]
    fn no_beginning_of_a_message_is_one(message in prop_oneof![spread(), attested()]) {
        let frame = encode(&message);
        for end in 0..frame.len() {
            prop_assert!(decode(&frame[..end]).is_err());
        }
        let longer = [frame.as_slice(), &[0]].concat();
        prop_assert_eq!(decode(&longer), Err(WireError::Malformed));
    }

    #[test]
    fn rubbish_is_refused_and_never_panics(
        frame in proptest::collection::vec(any::<u8>(), 0..300),
        message in prop_oneof![spread(), attested()],
        at in any::<proptest::sample::Index>(),
        bit in 0..8_u32,
    ) {
        // What is taken for a message is written as the same message again.
        let again = |frame: &[u8]| decode(frame).ok().map(|message| decode(&encode(&message)).is_ok());
        prop_assert_ne!(again(&frame), Some(false));
        let mut bent = encode(&message);
        let at = at.index(bent.len());
        bent[at] ^= 1 << bit;
        prop_assert_ne!(again(&bent), Some(false));
    }
}

#[test]
fn a_kind_from_the_future_is_told_apart_from_rubbish() {
    assert_eq!(decode(&[2, 200, 1, 2, 3]), Err(WireError::UnknownKind(200)));
    assert_eq!(decode(&[]), Err(WireError::Malformed));
    assert_eq!(decode(&[0, 5]), Err(WireError::Malformed));
    assert_eq!(decode(&[7, 5]), Ok(Message::Compare));
}

#[test]
fn a_length_that_lies_costs_nothing() {
    assert_eq!(decode(&[1, 2, 0xff, 0xff, 0xff]), Err(WireError::Malformed));
    assert_eq!(decode(&vec![1; FRAME_BYTES + 1]), Err(WireError::TooLong));
}

fn entries() -> impl Strategy<Value = Entry> {
    let states = (witnesses(), any::<u64>(), standings(), known()).prop_map(
        |(set, generation, standing, known)| {
            Entry::State(State { set, generation, standing, known })
        },
    );
    let vectors = holdings().prop_map(|holding| Entry::Vector(holding.vector));
    let sets = witnesses().prop_map(Entry::Set);
    prop_oneof![states, vectors, records().prop_map(Entry::Record), sets]
}

proptest! {
    #[test]
    fn an_entry_of_the_log_is_read_as_it_is_written(entry in entries(), cut in any::<u16>()) {
        let bytes = encode_entry(&entry);
        prop_assert_eq!(decode_entry(&bytes), Ok(entry));
        let end = usize::from(cut) % bytes.len();
        prop_assert!(decode_entry(&bytes[..end]).is_err());
    }
}

proptest! {
    #[test]
    fn any_frame_is_refused_or_stays_what_it_is(bytes: Vec<u8>, kind in 0_u8..24, rest: Vec<u8>) {
        crate::replication::check::frame(&bytes);
        crate::replication::check::frame(&[&[1, kind], rest.as_slice()].concat());
    }
}
