//! Shares of a limit: how many connections one address or one agent holds.
//!
//! Promise: the map has an entry only for who holds a share, so it is as small as the number of connections.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// Whom connections are counted for: an IPv4 address, or an IPv6 /64, which is the least that one customer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    V4(Ipv4Addr),
    V6 { prefix: u64, loopback: bool },
}

impl Origin {
    /// Whether connections come from this very host.
    pub fn is_loopback(self) -> bool {
        match self {
            Self::V4(address) => address.is_loopback(),
            Self::V6 { loopback, .. } => loopback,
        }
    }
}

/// The origin of an address; an IPv4 address inside an IPv6 one counts as what it is.
pub fn origin(address: IpAddr) -> Origin {
    match address.to_canonical() {
        IpAddr::V4(address) => Origin::V4(address),
        IpAddr::V6(address) => {
            let prefix = u64::try_from(address.to_bits() >> 64).expect("128 bits shifted by 64 fit in 64");
            Origin::V6 { prefix, loopback: address.is_loopback() }
        }
    }
}

/// How much each key holds, and how much it may.
#[derive(Debug)]
pub struct Shares<K> {
    held: Mutex<HashMap<K, usize>>,
    max: usize,
}

impl<K: Copy + Eq + Hash> Shares<K> {
    /// At most `max` shares for each key.
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { held: Mutex::new(HashMap::new()), max })
    }

    /// One more share for the key, or `None` if it has all it may have.
    pub fn take(self: &Arc<Self>, key: K) -> Option<Share<K>> {
        // A panic elsewhere cannot leave a count half changed.
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.get(&key).copied().unwrap_or(0);
        if count >= self.max {
            return None;
        }
        held.insert(key, count + 1);
        Some(Share { of: Arc::clone(self), key })
    }

    fn give_back(&self, key: K) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut entry) = held.entry(key) {
            match *entry.get() {
                0 | 1 => drop(entry.remove()),
                count => *entry.get_mut() = count - 1,
            }
        }
    }
}

/// One share, given back when dropped.
#[derive(Debug)]
pub struct Share<K: Copy + Eq + Hash> {
    of: Arc<Shares<K>>,
    key: K,
}

impl<K: Copy + Eq + Hash> Drop for Share<K> {
    fn drop(&mut self) {
        self.of.give_back(self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_counted_per_key_and_given_back() {
        let shares = Shares::new(2);
        let first = shares.take('a').unwrap();
        let _second = shares.take('a').unwrap();
        assert!(shares.take('a').is_none());
        let other = shares.take('b').unwrap();
        drop((first, other));
        assert!(shares.take('a').is_some());
        assert_eq!(shares.held.lock().unwrap().len(), 1, "who holds nothing takes no memory");
    }

    #[test]
    fn addresses_share_by_what_one_customer_has() {
        let at = |text: &str| origin(text.parse().unwrap());
        for (a, b, same) in [
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
            ("10.0.0.1", "::ffff:10.0.0.1", true),
            ("2001:db8::1", "2001:db8::ffff:1", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
        ] {
            assert_eq!(at(a) == at(b), same, "{a} {b}");
        }
        for (address, loopback) in [("127.0.0.1", true), ("::1", true), ("::2", false), ("10.0.0.1", false)] {
            assert_eq!(at(address).is_loopback(), loopback, "{address}");
        }
    }
}
