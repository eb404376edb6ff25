//! Datagrams of membership: any bytes, read within bounds or refused.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| atoll::mesh::check::datagram(bytes));
