//! `Idempotency-Key`: a purge that is sent again, since its answer was lost, is answered again and
//! not carried out again.
//!
//! A key belongs to the token that sent it. What is remembered is the hash of the key, the hash of
//! the body and the answer, of each token the newest few for a day. Refused purges are not
//! remembered: nothing happened that could happen twice. Nor does an answer count that nobody can
//! make good any more: then the same is done again, which is never wrong.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest;
use http::{HeaderMap, HeaderName, StatusCode};

use super::problem::Problem;
use crate::clock::Now;

/// The field (draft-ietf-httpapi-idempotency-key-header).
const FIELD: HeaderName = HeaderName::from_static("idempotency-key");

/// Longest key in bytes.
const KEY_BYTES: usize = 255;

/// How long a key is remembered.
const KEPT: Duration = Duration::from_secs(24 * 3600);

type Hash = [u8; 32];

/// What is remembered, by the number of the token.
#[derive(Debug)]
pub(super) struct Repeats<T> {
    most: AtomicUsize,
    kept: Mutex<HashMap<usize, VecDeque<Kept<T>>>>,
}

#[derive(Debug)]
struct Kept<T> {
    key: Hash,
    body: Hash,
    answer: T,
    /// On the boot clock.
    at: Duration,
}

impl<T: Clone> Repeats<T> {
    /// Remembers `most` keys of each token.
    pub(super) fn new(most: usize) -> Self {
        Self { most: AtomicUsize::new(most), kept: Mutex::default() }
    }

    /// From now on remembers `most` keys of each token, and those of these tokens only.
    pub(super) fn keep(&self, most: usize, tokens: &[usize]) {
        self.most.store(most, Ordering::Relaxed);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|token, _| tokens.contains(token));
    }

    /// Whether this token has sent the key lately, with an answer that `counts` still.
    pub(super) fn knows(
        &self,
        token: usize,
        key: &[u8],
        now: Now,
        counts: impl Fn(&T) -> bool,
    ) -> bool {
        let key = hash(key);
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = |kept: &&Kept<T>| now.boot.saturating_sub(kept.at) < KEPT;
        let known = |kept: &Kept<T>| kept.key == key && counts(&kept.answer);
        kept.get(&token).is_some_and(|own| own.iter().filter(fresh).any(known))
    }

    /// Acts, unless this token has sent the key lately and the answer `counts` still; then the answer
    /// is what it was. Others that send a key wait meanwhile, so that of two at once only one acts.
    pub(super) fn once(
        &self,
        token: usize,
        key: &[u8],
        body: &[u8],
        now: Now,
        counts: impl Fn(&T) -> bool,
        act: impl FnOnce() -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        let (key, body) = (hash(key), hash(body));
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let own = kept.entry(token).or_default();
        while own.front().is_some_and(|oldest| now.boot.saturating_sub(oldest.at) >= KEPT) {
            own.pop_front();
        }
        if let Some(earlier) = own.iter().find(|earlier| earlier.key == key) {
            if earlier.body != body {
                return Err(Problem::new(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "idempotency-conflict",
                    "this Idempotency-Key came before with another body",
                ));
            }
            if counts(&earlier.answer) {
                return Ok(earlier.answer.clone());
            }
        }
        let answer = act()?;
        own.retain(|earlier| earlier.key != key);
        let most = self.most.load(Ordering::Relaxed);
        while own.len() >= most.max(1) {
            own.pop_front();
        }
        if most > 0 {
            own.push_back(Kept { key, body, answer: answer.clone(), at: now.boot });
        }
        Ok(answer)
    }
}

/// The key of a request, where it has one.
pub(super) fn key(headers: &HeaderMap) -> Result<Option<&[u8]>, Problem> {
    let mut lines = headers.get_all(FIELD).iter();
    let Some(line) = lines.next() else { return Ok(None) };
    let key = line.as_bytes();
    let sound = (1..=KEY_BYTES).contains(&key.len()) && key.iter().all(u8::is_ascii_graphic);
    if lines.next().is_some() || !sound {
        let detail = "Idempotency-Key is one text of 1 to 255 visible ASCII characters";
        return Err(Problem::bad("idempotency-key", detail));
    }
    Ok(Some(key))
}

fn hash(bytes: &[u8]) -> Hash {
    let mut out = [0; 32];
    let digest = digest::digest(&digest::SHA256, bytes);
    out.iter_mut().zip(digest.as_ref()).for_each(|(out, byte)| *out = *byte);
    out
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn ask(
        repeats: &Repeats<u32>,
        token: usize,
        key: &str,
        body: &str,
        at: u64,
    ) -> Result<u32, u16> {
        let number = u32::try_from(at).unwrap();
        repeats
            .once(token, key.as_bytes(), body.as_bytes(), Now::at(at), |_| true, || Ok(number))
            .map_err(|problem| problem.status().as_u16())
    }

    #[test]
    fn the_same_again_is_answered_and_not_done_again() {
        let repeats = Repeats::new(10);
        assert_eq!(ask(&repeats, 0, "k", "a", 1), Ok(1));
        assert_eq!(ask(&repeats, 0, "k", "a", 2), Ok(1));
        assert_eq!(ask(&repeats, 0, "k", "b", 3), Err(422));
        assert_eq!(ask(&repeats, 0, "l", "b", 4), Ok(4));
        assert_eq!(ask(&repeats, 1, "k", "b", 5), Ok(5), "another token's keys are its own");
        assert_eq!(ask(&repeats, 0, "k", "b", 24 * 3600 + 1), Ok(24 * 3600 + 1));
    }

    #[test]
    fn what_was_refused_may_be_tried_again() {
        let repeats = Repeats::new(10);
        let refused =
            repeats.once(0, b"k", b"a", Now::at(1), |_| true, || Err(Problem::internal()));
        assert!(refused.is_err());
        assert_eq!(ask(&repeats, 0, "k", "b", 2), Ok(2));
    }

    #[test]
    fn an_answer_that_counts_no_more_is_replaced() {
        let repeats = Repeats::new(10);
        assert_eq!(ask(&repeats, 0, "k", "a", 1), Ok(1));
        let again = |counts: u32, at: u64| {
            let number = u32::try_from(at).unwrap();
            let counts = |answer: &u32| *answer >= counts;
            assert!(!repeats.knows(0, b"k", Now::at(at), counts));
            repeats.once(0, b"k", b"a", Now::at(at), counts, || Ok(number)).ok()
        };
        assert_eq!(again(2, 5), Some(5));
        assert_eq!(ask(&repeats, 0, "k", "a", 6), Ok(5), "the new answer took its place");
        let refused =
            repeats.once(0, b"k", b"a", Now::at(7), |_| false, || Err(Problem::internal()));
        assert!(refused.is_err());
        assert_eq!(ask(&repeats, 0, "k", "b", 8), Err(422), "a refusal changes nothing");
    }

    #[test]
    fn memory_is_bounded_by_token() {
        let repeats = Repeats::new(3);
        for number in 0..100 {
            ask(&repeats, 0, &number.to_string(), "a", number).unwrap();
        }
        assert_eq!(repeats.kept.lock().unwrap()[&0].len(), 3);
        assert_eq!(ask(&repeats, 0, "99", "a", 100), Ok(99));
        assert_eq!(ask(&repeats, 0, "1", "a", 101), Ok(101));
        let none = Repeats::new(0);
        assert_eq!((ask(&none, 0, "k", "a", 1), ask(&none, 0, "k", "a", 2)), (Ok(1), Ok(2)));
    }

    #[test]
    fn a_key_is_one_visible_text() {
        let long = "k".repeat(KEY_BYTES + 1);
        // What is refused is told by nothing.
        let rows: [(&[&str], Option<Option<&str>>); 6] = [
            (&[], Some(None)),
            (&["\"8e03978e\""], Some(Some("\"8e03978e\""))),
            (&[""], None),
            (&["a b"], None),
            (&["a", "a"], None),
            (&[&long], None),
        ];
        for (lines, expected) in rows {
            let lines = lines.iter().map(|line| (FIELD, HeaderValue::from_str(line).unwrap()));
            let headers: HeaderMap = lines.collect();
            let expected = expected.map(|key| key.map(str::as_bytes));
            assert_eq!(key(&headers).ok(), expected);
        }
    }
}
