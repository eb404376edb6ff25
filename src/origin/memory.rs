//! What is known of addresses that are not in use: of those that left the DNS, since they may come
//! back and an operator's word holds meanwhile, and of those that a former configuration knew.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::health::Order;

use super::endpoint::View;
use super::lock::Lock;

/// Addresses that are remembered of one origin; those under an operator's order go last.
const MOST: usize = 256;

/// Views of addresses that are not in use.
#[derive(Debug, Default)]
pub(super) struct Memory(VecDeque<Kept>);

#[derive(Debug)]
struct Kept {
    server: usize,
    address: SocketAddr,
    view: Arc<Lock<View>>,
    /// It was not away, only the configuration changed.
    stays: bool,
}

impl Memory {
    /// Keeps what is known of an address. `stays`: it is in use and is only handed on.
    pub(super) fn keep(
        &mut self,
        (server, address): (usize, SocketAddr),
        view: Arc<Lock<View>>,
        stays: bool,
    ) {
        self.0.retain(|kept| (kept.server, kept.address) != (server, address));
        if self.0.len() >= MOST {
            let plain = self.0.iter().position(|kept| kept.order() == Order::Auto);
            self.0.remove(plain.unwrap_or(0));
        }
        self.0.push_back(Kept { server, address, view, stays });
    }

    /// Takes out what is known of an address, and whether it stayed in use.
    pub(super) fn take(
        &mut self,
        server: usize,
        address: SocketAddr,
    ) -> Option<(Arc<Lock<View>>, bool)> {
        let found =
            self.0.iter().position(|kept| (kept.server, kept.address) == (server, address))?;
        self.0.remove(found).map(|kept| (kept.view, kept.stays))
    }

    /// Notes an operator's word about an address; true if it is known here.
    pub(super) fn order(&mut self, address: SocketAddr, order: Order) -> bool {
        let at_address = self.0.iter().filter(|kept| kept.address == address);
        at_address.map(|kept| kept.view.lock().order = order).count() > 0
    }

    /// Everything that is known: server, address and view.
    pub(super) fn all(&self) -> impl Iterator<Item = (usize, SocketAddr, &Arc<Lock<View>>)> {
        self.0.iter().map(|kept| (kept.server, kept.address, &kept.view))
    }

    /// Addresses under an operator's order.
    pub(super) fn ordered(&self) -> Vec<(usize, SocketAddr, Order)> {
        let all = self.0.iter().map(|kept| (kept.server, kept.address, kept.order()));
        all.filter(|(_, _, order)| *order != Order::Auto).collect()
    }
}

impl Kept {
    fn order(&self) -> Order {
        self.view.lock().order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: usize) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], u16::try_from(number).unwrap()))
    }

    #[test]
    fn it_is_bounded_and_orders_are_forgotten_last() {
        let mut memory = Memory::default();
        for number in 0..MOST {
            memory.keep((0, address(number)), View::new(None), false);
        }
        assert!(memory.order(address(0), Order::Down));
        assert!(!memory.order(address(MOST), Order::Down));
        for number in MOST..MOST + 50 {
            memory.keep((0, address(number)), View::new(None), false);
        }
        assert_eq!(memory.all().count(), MOST);
        assert_eq!(memory.ordered(), [(0, address(0), Order::Down)]);
        assert!(memory.take(0, address(1)).is_none(), "the oldest are gone");
        assert!(memory.take(1, address(0)).is_none(), "another server's");
        let (view, stays) = memory.take(0, address(0)).unwrap();
        assert_eq!((view.lock().order, stays), (Order::Down, false));
    }

    #[test]
    fn what_is_kept_twice_is_there_once() {
        let mut memory = Memory::default();
        let (old, new) = (View::new(None), View::new(None));
        memory.keep((0, address(1)), old, false);
        memory.keep((0, address(1)), Arc::clone(&new), true);
        assert_eq!(memory.all().count(), 1);
        let (view, stays) = memory.take(0, address(1)).unwrap();
        assert!(Arc::ptr_eq(&view, &new) && stays);
    }
}
