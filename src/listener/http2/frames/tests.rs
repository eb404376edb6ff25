use super::*;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut all = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    all.extend([kind, flags]);
    all.extend(stream.to_be_bytes());
    all.extend(payload);
    all
}

/// A watch that has read the preface and knows the client's terms.
fn watch() -> FrameWatch {
    let mut watch = FrameWatch::new(&Limits::default());
    watch.received(&[0; 24], at(0)).unwrap();
    // Without a frame, so that all that is counted stands at zero.
    watch.settings_seen = true;
    watch
}

fn at(milliseconds: u64) -> impl Fn() -> Duration {
    move || Duration::from_millis(1_000_000 + milliseconds)
}

/// Number of the round, from 1, in which a breach happens.
fn breach_at(
    rounds: u32,
    mut round: impl FnMut(&mut FrameWatch, u32) -> Result<(), Breach>,
) -> Option<(u32, Reason)> {
    let mut watch = watch();
    (1..=rounds)
        .find_map(|number| round(&mut watch, number).err().map(|breach| (number, breach.reason)))
}

const CALM: Reason = Reason::ENHANCE_YOUR_CALM;

#[test]
fn rapid_resets_end_at_the_fiftieth() {
    let ended = breach_at(10_000, |watch, round| {
        let stream = round * 2 - 1;
        watch.received(&frame(HEADERS, END_HEADERS | END_STREAM, stream, b"x"), at(0))?;
        watch.received(&frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]), at(0))
    });
    assert_eq!(ended, Some((50, CALM)));
}

#[test]
fn resets_of_begun_answers_end_at_the_limit_for_life_and_slow_ones_before_the_answer_too() {
    let answered = breach_at(10_000, |watch, round| {
        let stream = round * 2 - 1;
        watch.received(&frame(HEADERS, END_HEADERS, stream, b"x"), at(0))?;
        watch.sent(&frame(HEADERS, END_HEADERS, stream, b"y"))?;
        watch.received(&frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]), at(0))
    });
    assert_eq!(answered, Some((200, CALM)));
    let slow = breach_at(10_000, |watch, round| {
        let stream = round * 2 - 1;
        watch.received(&frame(HEADERS, END_HEADERS, stream, b"x"), at(0))?;
        watch.received(&frame(RST_STREAM, 0, stream, &[0; 4]), at(u64::from(round) * 1000))
    });
    assert_eq!(slow, Some((200, CALM)));
}

#[test]
fn a_connection_is_tired_before_a_limit_for_life_is_passed() {
    let mut watch = watch();
    for round in 0..149 {
        watch.sent(&frame(HEADERS, END_HEADERS, round * 2 + 1, b"y")).unwrap();
        watch.received(&frame(RST_STREAM, 0, round * 2 + 1, &[0; 4]), at(0)).unwrap();
    }
    assert!(!watch.tired());
    watch.sent(&frame(HEADERS, END_HEADERS, 1, b"y")).unwrap();
    watch.received(&frame(RST_STREAM, 0, 1, &[0; 4]), at(0)).unwrap();
    assert!(watch.tired());
}

#[test]
fn resets_that_the_client_makes_us_send_end_at_the_hundredth_and_our_own_do_not_count() {
    let made = breach_at(1000, |watch, round| {
        watch.sent(&frame(RST_STREAM, 0, round * 2 - 1, &[0, 0, 0, 1]))
    });
    assert_eq!(made, Some((100, CALM)));
    for own in [0, 2, 8] {
        let ended = breach_at(1000, |watch, round| {
            watch.sent(&frame(RST_STREAM, 0, round * 2 - 1, &[0, 0, 0, own]))
        });
        assert_eq!(ended, None);
    }
}

#[test]
fn floods_of_each_kind_end() {
    type Row =
        (&'static str, fn(&mut FrameWatch, u32) -> Result<(), Breach>, Option<(u32, Reason)>);
    let rows: [Row; 18] = [
        (
            "CONTINUATION without end",
            |watch, round| {
                if round == 1 {
                    watch.received(&frame(HEADERS, 0, 1, b"x"), at(0))?;
                }
                watch.received(&frame(CONTINUATION, 0, 1, b""), at(0))
            },
            Some((8, CALM)),
        ),
        ("PING", |watch, _| watch.received(&frame(PING, 0, 0, &[0; 8]), at(0)), Some((11, CALM))),
        (
            "PING once a second",
            |watch, round| {
                watch.sent(&frame(PING, ACK, 0, &[0; 8]))?;
                watch.received(&frame(PING, 0, 0, &[0; 8]), at(u64::from(round) * 1000))
            },
            None,
        ),
        (
            "PING whose answers are not read",
            |watch, round| watch.received(&frame(PING, 0, 0, &[0; 8]), at(u64::from(round) * 1000)),
            Some((101, CALM)),
        ),
        (
            "SETTINGS",
            |watch, _| watch.received(&frame(SETTINGS, 0, 0, &[0; 6]), at(0)),
            Some((15, CALM)),
        ),
        (
            "empty DATA",
            |watch, round| {
                if round == 1 {
                    watch.received(&frame(HEADERS, END_HEADERS, 1, b"x"), at(0))?;
                }
                watch.received(&frame(DATA, 0, 1, b""), at(0))
            },
            Some((21, CALM)),
        ),
        (
            "DATA of padding only",
            |watch, _| watch.received(&frame(DATA, PADDED, 1, &[3, 0, 0, 0]), at(0)),
            Some((1000, CALM)),
        ),
        (
            "DATA of one byte, too many at once",
            |watch, _| watch.received(&frame(DATA, 0, 1, b"x"), at(0)),
            Some((2000, CALM)),
        ),
        (
            "DATA of one byte, a thousand a second",
            |watch, round| watch.received(&frame(DATA, 0, 1, b"x"), at(u64::from(round))),
            None,
        ),
        (
            "DATA of one byte, each answered",
            |watch, _| {
                watch.received(&frame(DATA, 0, 1, b"x"), at(0))?;
                watch.sent(&frame(DATA, 0, 1, b"y"))
            },
            None,
        ),
        ("DATA", |watch, _| watch.received(&frame(DATA, 0, 1, &[0; 16]), at(0)), None),
        (
            "a field block of many bytes",
            |watch, round| {
                if round == 1 {
                    watch.received(&frame(HEADERS, 0, 1, &[0; 8192]), at(0))?;
                }
                watch.received(&frame(CONTINUATION, 0, 1, &[0; 8192]), at(0))
            },
            Some((4, CALM)),
        ),
        (
            "CONTINUATION without fields, each the last of its block",
            |watch, round| {
                watch.received(&frame(HEADERS, 0, round * 2 - 1, b"x"), at(0))?;
                watch.received(&frame(CONTINUATION, END_HEADERS, round * 2 - 1, b""), at(0))
            },
            Some((1000, CALM)),
        ),
        ("streams that stand still", |watch, _| watch.gave_up(), Some((100, CALM))),
        (
            "WINDOW_UPDATE without DATA",
            |watch, _| watch.received(&frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]), at(0)),
            Some((101, CALM)),
        ),
        (
            "WINDOW_UPDATE for DATA",
            |watch, _| {
                watch.sent(&frame(DATA, 0, 1, &[0; 1000]))?;
                watch.received(&frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]), at(0))?;
                watch.received(&frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]), at(0))
            },
            None,
        ),
        (
            "PRIORITY",
            |watch, _| watch.received(&frame(PRIORITY, 0, 1, &[0; 5]), at(0)),
            Some((101, CALM)),
        ),
        (
            "unknown frames",
            |watch, _| watch.received(&frame(77, 0, 1, b""), at(0)),
            Some((101, CALM)),
        ),
    ];
    for (case, act, expected) in rows {
        assert_eq!(breach_at(2100, act), expected, "{case}");
    }
}

#[test]
fn wrong_fixed_lengths_are_frame_size_errors() {
    let rows = [
        (RST_STREAM, 0, 5),
        (SETTINGS, 0, 5),
        (SETTINGS, ACK, 6),
        (PING, 0, 7),
        (GOAWAY, 0, 7),
        (WINDOW_UPDATE, 0, 3),
        (PRIORITY, 0, 4),
    ];
    for (kind, flags, length) in rows {
        let breach = watch().received(&frame(kind, flags, 1, &vec![0; length]), at(0)).unwrap_err();
        assert_eq!(breach.reason, Reason::FRAME_SIZE_ERROR, "kind {kind}");
    }
}

#[test]
fn a_block_that_does_not_end_is_timed_from_its_first_byte() {
    let mut watch = watch();
    let head = frame(HEADERS, END_HEADERS, 1, &[0; 50]);
    watch.received(&head[..3], at(5)).unwrap();
    assert_eq!(watch.block_since(), Some(at(5)()));
    watch.received(&head[3..40], at(6)).unwrap();
    assert_eq!(watch.block_since(), Some(at(5)()));
    watch.received(&head[40..], at(7)).unwrap();
    assert_eq!(watch.block_since(), None);
    watch.received(&frame(HEADERS, 0, 3, b"x"), at(8)).unwrap();
    assert_eq!(watch.block_since(), Some(at(8)()));
    watch.received(&frame(CONTINUATION, END_HEADERS, 3, b"x"), at(9)).unwrap();
    assert_eq!(watch.block_since(), None);
    watch.received(&frame(DATA, 0, 3, &[0; 50])[..30], at(10)).unwrap();
    assert_eq!(watch.block_since(), None, "bodies have limits of their own");
}

#[test]
fn frames_are_counted_alike_however_the_bytes_are_cut() {
    let mut bytes = vec![0; 24];
    bytes.extend(frame(SETTINGS, 0, 0, b""));
    for round in 0..60 {
        bytes.extend(frame(HEADERS, END_HEADERS, round * 2 + 1, &[7; 40]));
        bytes.extend(frame(DATA, 0, round * 2 + 1, &[1, 2, 3]));
        bytes.extend(frame(RST_STREAM, 0, round * 2 + 1, &[0, 0, 0, 8]));
    }
    let round = 49 + 12 + 13;
    let expected = 24 + 9 + 49 * round + 49 + 12 + 13;
    for size in [1, 2, 3, 5, 8, 13, 21, 74, 1000, bytes.len()] {
        let mut watch = FrameWatch::new(&Limits::default());
        let mut seen = 0;
        let ended = bytes.chunks(size).any(|part| {
            seen += part.len();
            watch.received(part, at(0)).is_err()
        });
        assert!(ended && seen >= expected && seen < expected + size, "{size}: {seen}");
    }
}

#[test]
fn every_glitch_is_counted_by_its_kind() {
    let mut watch = watch();
    let odd = [
        (frame(DATA, PADDED, 1, &[3, 0, 0, 0]), Glitch::Padding),
        (frame(DATA, 0, 1, b""), Glitch::EmptyData),
        (frame(PRIORITY, 0, 1, &[0; 5]), Glitch::Priority),
        (frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]), Glitch::WindowUpdate),
        (frame(GOAWAY, 0, 0, &[0; 8]), Glitch::Goaway),
        (frame(RST_STREAM, 0, 1, &[0; 4]), Glitch::Reset),
    ];
    for (bytes, kind) in odd {
        let before = watch.kinds()[kind as usize];
        watch.received(&bytes, at(0)).unwrap();
        assert_eq!(watch.kinds()[kind as usize], before + 1, "{kind:?}");
    }
    watch.fields_refused().unwrap();
    watch.sent(&frame(RST_STREAM, 0, 1, &[0, 0, 0, 1])).unwrap();
    assert_eq!(watch.kinds().iter().sum::<u32>(), 8);
}

#[test]
fn terms_come_first() {
    let before = |kind: u8, flags: u8, payload: &[u8]| {
        let mut watch = FrameWatch::new(&Limits::default());
        watch.received(&[0; 24], at(0)).unwrap();
        watch.received(&frame(kind, flags, 0, payload), at(0)).map_err(|breach| breach.reason)
    };
    assert_eq!(before(SETTINGS, 0, &[0; 6]), Ok(()));
    for (kind, flags, length) in [(SETTINGS, ACK, 0), (PING, 0, 8), (WINDOW_UPDATE, 0, 4)] {
        let judged = before(kind, flags, &vec![0; length]);
        assert_eq!(judged, Err(Reason::PROTOCOL_ERROR), "kind {kind}");
    }
}
