//! Limits of request heads.

use super::requests::{accepted, get, post, refused};
use crate::message::Refusal;

/// A request whose head is charged exactly `size`: its bytes and 32 for each of its six fields.
fn head_of(size: usize) -> Vec<u8> {
    let mut bytes = b"GET / HTTP/1.1\r\nHost: h\r\n".to_vec();
    for name in ["a", "b", "c"] {
        bytes.extend_from_slice(format!("{name}: {}\r\n", "x".repeat(8000)).as_bytes());
    }
    let rest = size - bytes.len() - 6 * 32 - 2 * "a: \r\n".len();
    for part in [rest / 2, rest - rest / 2] {
        bytes.extend_from_slice(format!("d: {}\r\n", "x".repeat(part)).as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}

#[test]
fn limits_hold_to_the_byte() {
    let line = |size: usize| post(&format!("X: {}\r\n", "x".repeat(size - 3)));
    accepted(line(8192));
    for size in [8193, 65_535, 65_536, 65_537] {
        refused(line(size), Refusal::FieldsTooLarge);
    }
    let cookie = |size: usize| post(&format!("Cookie: {}\r\n", "x".repeat(size - 8)));
    accepted(cookie(16 * 1024));
    refused(cookie(16 * 1024 + 1), Refusal::FieldsTooLarge);
    let two = |size: usize| post(&format!("Cookie: {0}\r\nCookie: {0}\r\n", "x".repeat(size - 8)));
    accepted(two(8 * 1024));
    refused(two(8 * 1024 + 1), Refusal::FieldsTooLarge);
    // The empty line at the end is not charged.
    accepted(head_of(32 * 1024));
    refused(head_of(32 * 1024 + 1), Refusal::FieldsTooLarge);
    accepted(post(&"a: b\r\n".repeat(99)));
    refused(post(&"a: b\r\n".repeat(100)), Refusal::FieldsTooLarge);
    let target = |size: usize| get(&format!("/{}", "x".repeat(size - 1)));
    accepted(target(8192));
    refused(target(8193), Refusal::TargetTooLong);
    refused(target(70_000), Refusal::TargetTooLong);
}

#[test]
fn limits_do_not_wait_for_the_end_of_the_line() {
    refused(format!("GET /{}", "x".repeat(9000)), Refusal::TargetTooLong);
    refused(format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(9000)), Refusal::FieldsTooLarge);
    refused(format!("GET / HTTP/1.1\r\n{}", "a:b\r\n".repeat(101)), Refusal::FieldsTooLarge);
}
