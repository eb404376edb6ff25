//! Counts the frames of one HTTP/2 connection as their bytes pass by, in both directions.
//!
//! h2 keeps the protocol; what it does not keep is patience in numbers. Most attacks on HTTP/2
//! consist of frames that are each legal and cost us more than the client: resets after work has
//! begun, frames that make us reset, control frames that must be answered, windows opened byte by
//! byte. Only frame heads and up to four bytes of payload are looked at, so the price for honest
//! traffic is a few comparisons per frame.

mod splitter;

use std::time::Duration;

use h2::Reason;

use self::splitter::{Frame, Splitter};
use crate::config::Limits;
use crate::telemetry::Glitch;

/// Length of the client's preface.
const PREFACE: u32 = 24;
/// Window in which resets before the answer are counted.
const RESET_WINDOW: Duration = Duration::from_secs(30);
/// DATA frames with fewer bytes than this are tiny, unless they end their stream.
const TINY: u32 = 16;
/// Most empty DATA frames that the streams of a connection may save up together.
const MOST_EMPTY_DATA: u32 = 1000;
/// Streams of which we remember whether their answer has begun: more than run at once.
const REMEMBERED: usize = 1024;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

/// Why a connection is closed: the code for GOAWAY and the rule for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Breach {
    pub(super) reason: Reason,
    pub(super) rule: &'static str,
}

const fn calm(rule: &'static str) -> Breach {
    Breach { reason: Reason::ENHANCE_YOUR_CALM, rule }
}

/// The counters of one connection.
#[derive(Debug)]
pub(super) struct FrameWatch {
    incoming: Splitter,
    outgoing: Splitter,
    most: Most,
    last_stream: u32,
    answered: [u64; REMEMBERED / 64],
    settings_seen: bool,
    continuations: u32,
    in_block: bool,
    block_since: Option<Duration>,
    resets: u32,
    resets_before_answer: u32,
    reset_window: Duration,
    /// Streams that we had to reset, or refused for the size of their fields.
    server_resets: u32,
    glitches: u32,
    kinds: Kinds,
    /// Bytes of the field block at hand, as they came.
    block_bytes: u32,
    empty_data: u32,
    unanswered_control: u32,
    update_credits: u64,
    settings: Allowance,
    pings: Allowance,
    updates: Allowance,
    oddities: Allowance,
    tiny_data: Allowance,
}

/// Glitches by kind, at the numbers of [`Glitch`].
pub(super) type Kinds = [u32; Glitch::ALL.len()];

#[derive(Debug)]
struct Most {
    glitches: u32,
    block_bytes: u32,
    resets: u32,
    resets_before_answer: u32,
    server_resets: u32,
    continuations: u32,
    empty_data: u32,
    control_queue: u32,
}

impl FrameWatch {
    pub(super) fn new(limits: &Limits) -> Self {
        let per_minute = |count: u32| f64::from(count) / 60.0;
        Self {
            incoming: Splitter::behind(PREFACE),
            outgoing: Splitter::default(),
            most: Most {
                glitches: limits.http2_glitches,
                block_bytes: u32::try_from(limits.head_bytes).unwrap_or(u32::MAX),
                resets: limits.http2_resets,
                resets_before_answer: limits.http2_resets_before_answer,
                server_resets: limits.http2_server_resets,
                continuations: limits.http2_continuations,
                empty_data: limits.http2_empty_data,
                control_queue: u32::try_from(limits.http2_control_queue).unwrap_or(u32::MAX),
            },
            last_stream: 0,
            answered: [0; REMEMBERED / 64],
            settings_seen: false,
            continuations: 0,
            in_block: false,
            block_since: None,
            resets: 0,
            resets_before_answer: 0,
            reset_window: Duration::ZERO,
            server_resets: 0,
            glitches: 0,
            kinds: Kinds::default(),
            block_bytes: 0,
            empty_data: limits.http2_empty_data,
            unanswered_control: 0,
            update_credits: 0,
            settings: Allowance::new(
                limits.http2_settings_per_minute,
                per_minute(limits.http2_settings_per_minute),
            ),
            pings: Allowance::new(
                limits.http2_ping_burst.max(1),
                per_minute(limits.http2_pings_per_minute),
            ),
            updates: Allowance::new(
                limits.http2_window_updates_per_second,
                f64::from(limits.http2_window_updates_per_second),
            ),
            oddities: Allowance::new(
                limits.http2_priorities_per_minute,
                per_minute(limits.http2_priorities_per_minute),
            ),
            tiny_data: Allowance::new(
                limits.http2_tiny_data_per_second,
                f64::from(limits.http2_tiny_data_per_second),
            ),
        }
    }

    /// Looks at bytes that the client sent, before anything acts on them. `now` is the boot clock;
    /// it is read only where a rate is counted.
    pub(super) fn received(
        &mut self,
        mut bytes: &[u8],
        now: impl Fn() -> Duration,
    ) -> Result<(), Breach> {
        while let Some(frame) = self.incoming.next(&mut bytes) {
            self.frame_received(&frame, &now)?;
        }
        if self.in_block || self.incoming.within_head_block() {
            self.block_since.get_or_insert_with(now);
        } else {
            self.block_since = None;
        }
        Ok(())
    }

    /// Looks at bytes that we sent.
    pub(super) fn sent(&mut self, mut bytes: &[u8]) -> Result<(), Breach> {
        while let Some(frame) = self.outgoing.next(&mut bytes) {
            self.frame_sent(&frame)?;
        }
        Ok(())
    }

    /// A request was refused whose fields were more than is allowed: it has cost us what a stream
    /// costs that we had to reset.
    pub(super) fn fields_refused(&mut self) -> Result<(), Breach> {
        self.spoilt(Glitch::Fields, "field sections that were too large")
    }

    /// A stream was given up since the client neither sent nor took what it owed. One is bad luck;
    /// many are a way to hold our memory with windows that never open.
    pub(super) fn gave_up(&mut self) -> Result<(), Breach> {
        self.spoilt(Glitch::Slow, "streams that stood still")
    }

    /// Whether the client has sent its first SETTINGS.
    pub(super) fn settings_seen(&self) -> bool {
        self.settings_seen
    }

    /// Boot clock since when a field block is arriving that has not ended yet.
    pub(super) fn block_since(&self) -> Option<Duration> {
        self.block_since
    }

    /// Odd but legal acts so far, by kind.
    pub(super) fn kinds(&self) -> &Kinds {
        &self.kinds
    }

    /// Streams that the client has reset.
    pub(super) fn resets(&self) -> u32 {
        self.resets
    }

    /// Whether a limit for the life of the connection is three quarters used up: time to part in
    /// peace.
    pub(super) fn tired(&self) -> bool {
        let near = |count: u32, most: u32| u64::from(count) * 4 >= u64::from(most) * 3;
        near(self.resets, self.most.resets)
            || near(self.server_resets, self.most.server_resets)
            || near(self.glitches, self.most.glitches)
    }

    fn frame_received(&mut self, frame: &Frame, now: &impl Fn() -> Duration) -> Result<(), Breach> {
        // RFC 9113 section 3.4; h2 would serve requests before the client has said its terms.
        if !self.settings_seen && (frame.kind != SETTINGS || frame.has(ACK)) {
            return Err(Breach {
                reason: Reason::PROTOCOL_ERROR,
                rule: "another frame before SETTINGS",
            });
        }
        match frame.kind {
            DATA => self.data_received(frame, now),
            HEADERS => {
                self.headers_received(frame);
                Ok(())
            }
            RST_STREAM => {
                length_is(frame.length == 4, "RST_STREAM length")?;
                self.reset_received(frame.stream, now())
            }
            SETTINGS => {
                self.settings_seen = true;
                if frame.has(ACK) {
                    return length_is(frame.length == 0, "SETTINGS acknowledgement length");
                }
                length_is(frame.length.is_multiple_of(6), "SETTINGS length")?;
                self.control_received()?;
                self.settings.take(now(), "SETTINGS frames")
            }
            PING => {
                length_is(frame.length == 8, "PING length")?;
                if !frame.has(ACK) {
                    self.control_received()?;
                }
                self.pings.take(now(), "PING frames")
            }
            GOAWAY => {
                length_is(frame.length >= 8, "GOAWAY length")?;
                self.glitch(Glitch::Goaway)
            }
            WINDOW_UPDATE => {
                length_is(frame.length == 4, "WINDOW_UPDATE length")?;
                match self.update_credits.checked_sub(1) {
                    Some(left) => {
                        self.update_credits = left;
                        Ok(())
                    }
                    None => {
                        self.glitch(Glitch::WindowUpdate)?;
                        self.updates.take(now(), "WINDOW_UPDATE frames without DATA")
                    }
                }
            }
            CONTINUATION => self.continuation_received(frame),
            PUSH_PROMISE => Ok(()),
            _ => {
                if frame.kind == PRIORITY {
                    length_is(frame.length == 5, "PRIORITY length")?;
                }
                self.glitch(Glitch::Priority)?;
                self.oddities.take(now(), "PRIORITY or unknown frames")
            }
        }
    }

    fn data_received(&mut self, frame: &Frame, now: &impl Fn() -> Duration) -> Result<(), Breach> {
        let padding = if frame.has(PADDED) { 1 + u32::from(frame.payload[0]) } else { 0 };
        let data = frame.length.saturating_sub(padding);
        if data >= TINY || frame.has(END_STREAM) {
            return Ok(());
        }
        if data > 0 {
            let seldom = self.tiny_data.take(now(), "tiny DATA frames").is_ok();
            return if seldom { Ok(()) } else { self.glitch(Glitch::TinyData) };
        }
        if frame.length > 0 {
            return self.glitch(Glitch::Padding);
        }
        self.glitch(Glitch::EmptyData)?;
        self.empty_data = self.empty_data.checked_sub(1).ok_or(calm("empty DATA frames"))?;
        Ok(())
    }

    fn headers_received(&mut self, frame: &Frame) {
        self.continuations = 0;
        self.block_bytes = frame.length;
        self.in_block = !frame.has(END_HEADERS);
        if frame.stream > self.last_stream {
            self.last_stream = frame.stream;
            self.remember(frame.stream, false);
            self.empty_data = (self.empty_data + self.most.empty_data)
                .min(MOST_EMPTY_DATA.max(self.most.empty_data));
        }
    }

    fn continuation_received(&mut self, frame: &Frame) -> Result<(), Breach> {
        self.in_block = !frame.has(END_HEADERS);
        self.continuations += 1;
        self.block_bytes = self.block_bytes.saturating_add(frame.length);
        if self.in_block && self.continuations >= self.most.continuations {
            return Err(calm("CONTINUATION frames"));
        }
        if self.in_block && self.block_bytes > self.most.block_bytes {
            return Err(calm("a field block without end"));
        }
        if frame.length == 0 { self.glitch(Glitch::EmptyContinuation) } else { Ok(()) }
    }

    fn reset_received(&mut self, stream: u32, now: Duration) -> Result<(), Breach> {
        self.resets += 1;
        if self.resets >= self.most.resets {
            return Err(calm("streams reset by the client"));
        }
        if self.was_answered(stream) {
            return Ok(());
        }
        self.glitch(Glitch::Reset)?;
        if now.saturating_sub(self.reset_window) > RESET_WINDOW {
            self.reset_window = now;
            self.resets_before_answer = 0;
        }
        self.resets_before_answer += 1;
        if self.resets_before_answer >= self.most.resets_before_answer {
            return Err(calm("streams reset before their answer"));
        }
        Ok(())
    }

    fn control_received(&mut self) -> Result<(), Breach> {
        self.unanswered_control += 1;
        if self.unanswered_control > self.most.control_queue {
            return Err(calm("control frames without reading the answers"));
        }
        Ok(())
    }

    fn glitch(&mut self, kind: Glitch) -> Result<(), Breach> {
        self.glitches = self.glitches.saturating_add(1);
        if let Some(count) = self.kinds.get_mut(kind as usize) {
            *count = count.saturating_add(1);
        }
        if self.glitches >= self.most.glitches { Err(calm("odd frames")) } else { Ok(()) }
    }

    fn frame_sent(&mut self, frame: &Frame) -> Result<(), Breach> {
        match frame.kind {
            DATA => {
                // Clients give windows back for streams and connection apart, some for every few
                // kilobytes that they read.
                let credits = 4 + u64::from(frame.length / 1024);
                self.update_credits = (self.update_credits + credits).min(1 << 20);
                // Who is answered piece by piece, as in a tunnel, sends little pieces by right.
                self.tiny_data.give_back();
                Ok(())
            }
            HEADERS => {
                self.remember(frame.stream, true);
                Ok(())
            }
            SETTINGS | PING if frame.has(ACK) => {
                self.unanswered_control = self.unanswered_control.saturating_sub(1);
                Ok(())
            }
            RST_STREAM => {
                let ours = [Reason::NO_ERROR, Reason::INTERNAL_ERROR, Reason::CANCEL];
                if ours.contains(&Reason::from(u32::from_be_bytes(frame.payload))) {
                    return Ok(());
                }
                self.spoilt(Glitch::ServerReset, "streams that we had to reset")
            }
            _ => Ok(()),
        }
    }

    /// A stream came to nothing by the client's fault.
    fn spoilt(&mut self, kind: Glitch, rule: &'static str) -> Result<(), Breach> {
        self.server_resets += 1;
        self.glitch(kind)?;
        if self.server_resets >= self.most.server_resets { Err(calm(rule)) } else { Ok(()) }
    }

    fn remember(&mut self, stream: u32, answered: bool) {
        let (word, bit) = place_of(stream);
        if let Some(word) = self.answered.get_mut(word) {
            if answered {
                *word |= bit;
            } else {
                *word &= !bit;
            }
        }
    }

    fn was_answered(&self, stream: u32) -> bool {
        let (word, bit) = place_of(stream);
        self.answered.get(word).is_some_and(|word| word & bit != 0)
    }
}

fn place_of(stream: u32) -> (usize, u64) {
    let place = (stream / 2) as usize % REMEMBERED;
    (place / 64, 1 << (place % 64))
}

fn length_is(right: bool, rule: &'static str) -> Result<(), Breach> {
    if right { Ok(()) } else { Err(Breach { reason: Reason::FRAME_SIZE_ERROR, rule }) }
}

/// So many at once, refilled at a rate.
#[derive(Debug)]
struct Allowance {
    most: f64,
    per_second: f64,
    spent: f64,
    read: Duration,
}

impl Allowance {
    fn new(most: u32, per_second: f64) -> Self {
        Self { most: f64::from(most), per_second, spent: 0.0, read: Duration::ZERO }
    }

    fn give_back(&mut self) {
        self.spent = (self.spent - 1.0).max(0.0);
    }

    fn take(&mut self, now: Duration, rule: &'static str) -> Result<(), Breach> {
        let passed = now.saturating_sub(self.read).as_secs_f64();
        self.read = now;
        self.spent = (self.spent - passed * self.per_second).max(0.0) + 1.0;
        if self.spent > self.most { Err(calm(rule)) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
