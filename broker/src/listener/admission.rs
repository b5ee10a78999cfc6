//! How many connections there may be, and how fast they may come: looked at before anything is read from them.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use broker_core::Millis;
use foldhash::HashMap;
use metrics::{Gauge, counter, gauge};
use parking_lot::Mutex;

/// Addresses that are remembered only for how fast they connect; beyond, those that may again go first.
const ADDRESSES_MAX: usize = 10_000;

/// What connections have to keep to before they are sessions.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// Connections at once from one address.
    pub per_address: usize,
    /// New connections a second from one address; as many as that in ten seconds may come at once.
    pub rate_per_address: u32,
    /// Whether the two above hold for this machine's own clients, too.
    pub limits_loopback: bool,
    /// How long TLS and WebSocket may take to be agreed on, together.
    pub handshake: Duration,
    /// Bytes that a client may send for a TLS handshake.
    pub handshake_bytes: usize,
}

impl Limits {
    /// The default of `connections`.
    pub const CONNECTIONS: usize = 100_000;
    /// The default of `per_address`.
    pub const PER_ADDRESS: usize = 1_000;
    /// The default of `rate_per_address`.
    pub const RATE_PER_ADDRESS: u32 = 50;
    /// The default of `handshake`.
    pub const HANDSHAKE: Duration = Duration::from_secs(10);
    /// The default of `handshake_bytes`.
    pub const HANDSHAKE_BYTES: usize = 64 * 1024;
}

/// Counts connections and lets them in, or not.
#[derive(Debug)]
pub struct Admission {
    /// The limits in force.
    pub limits: Limits,
    counts: Mutex<Counts>,
    open: Gauge,
}

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    addresses: HashMap<IpAddr, Address>,
}

#[derive(Debug)]
struct Address {
    connections: usize,
    /// Connections that may come at once, in thousandths.
    allowance: u64,
    seen: Millis,
}

/// A connection that was let in; gives its place back when dropped.
#[derive(Debug)]
pub struct Admitted {
    admission: Arc<Admission>,
    address: Option<IpAddr>,
}

impl Admission {
    /// With these limits.
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, counts: Mutex::default(), open: gauge!("forebay_connections_open") })
    }

    /// Lets a connection from this address in at `now`, or says which limit keeps it out.
    pub fn admit(self: &Arc<Self>, peer: IpAddr, now: Millis) -> Result<Admitted, &'static str> {
        let address = counted_as(peer).filter(|peer| self.limits.limits_loopback || !peer.is_loopback());
        let mut counts = self.counts.lock();
        let admitted = counts.admit(address, &self.limits, now);
        match admitted {
            Ok(()) => {
                self.open.set(counts.total as f64);
                Ok(Admitted { admission: Arc::clone(self), address })
            }
            Err(limit) => {
                counter!("forebay_connections_refused_total", "limit" => limit).increment(1);
                Err(limit)
            }
        }
    }
}

impl Admitted {
    /// Who let it in.
    pub fn admission(&self) -> &Admission {
        &self.admission
    }
}

impl Counts {
    fn admit(&mut self, address: Option<IpAddr>, limits: &Limits, now: Millis) -> Result<(), &'static str> {
        if self.total >= limits.connections {
            return Err("connections");
        }
        if let Some(address) = address {
            if self.addresses.len() >= ADDRESSES_MAX && !self.addresses.contains_key(&address) {
                self.addresses.retain(|_, known| known.connections > 0 || !known.is_rested(limits, now));
            }
            let full = Address { connections: 0, allowance: burst(limits), seen: now };
            let known = self.addresses.entry(address).or_insert(full);
            known.rest(limits, now);
            if known.connections >= limits.per_address {
                return Err("connections-per-address");
            }
            known.allowance = known.allowance.checked_sub(1000).ok_or("connection-rate")?;
            known.connections += 1;
        }
        self.total += 1;
        Ok(())
    }
}

fn burst(limits: &Limits) -> u64 {
    u64::from(limits.rate_per_address) * 10 * 1000
}

impl Address {
    fn rest(&mut self, limits: &Limits, now: Millis) {
        // A thousandth of the rate each millisecond.
        let regained = now.since(self.seen).saturating_mul(u64::from(limits.rate_per_address));
        self.allowance = self.allowance.saturating_add(regained).min(burst(limits));
        self.seen = now;
    }

    fn is_rested(&self, limits: &Limits, now: Millis) -> bool {
        let regained = now.since(self.seen).saturating_mul(u64::from(limits.rate_per_address));
        self.allowance.saturating_add(regained) >= burst(limits)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut counts = self.admission.counts.lock();
        counts.total -= 1;
        self.admission.open.set(counts.total as f64);
        let Some(address) = self.address else { return };
        if let Some(known) = counts.addresses.get_mut(&address) {
            known.connections -= 1;
            if known.connections == 0 && known.is_rested(&self.admission.limits, known.seen) {
                counts.addresses.remove(&address);
            }
        }
    }
}

/// Whoever has one IPv6 address has a network of them.
fn counted_as(peer: IpAddr) -> Option<IpAddr> {
    Some(match peer.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        other => other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            connections: 5,
            per_address: 3,
            rate_per_address: 1,
            limits_loopback: false,
            handshake: Limits::HANDSHAKE,
            handshake_bytes: Limits::HANDSHAKE_BYTES,
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn places_are_given_back() {
        let admission = Admission::new(limits());
        let now = Millis(1_000_000);
        let held: Vec<_> = (0..3).map(|_| admission.admit(ip("10.0.0.1"), now).expect("a place")).collect();
        assert_eq!(admission.admit(ip("10.0.0.1"), now).expect_err("full"), "connections-per-address");
        assert_eq!(
            admission.admit(ip("::ffff:10.0.0.1"), now).expect_err("the same"),
            "connections-per-address"
        );
        let others: Vec<_> =
            (0..2).map(|_| admission.admit(ip("127.0.0.1"), now).expect("a place")).collect();
        assert_eq!(admission.admit(ip("10.0.0.2"), now).expect_err("full"), "connections");
        drop((held, others));
        admission.admit(ip("10.0.0.1"), now).expect("a place again");
    }

    #[test]
    fn who_comes_too_fast_waits() {
        let admission = Admission::new(limits());
        let mut now = Millis(1_000_000);
        for _ in 0..10 {
            admission.admit(ip("2001:db8::1"), now).expect("as many as in ten seconds");
        }
        assert_eq!(
            admission.admit(ip("2001:db8::ffff"), now).expect_err("the same network"),
            "connection-rate"
        );
        admission.admit(ip("2001:db8:1::1"), now).expect("another network");
        now.0 += 1000;
        admission.admit(ip("2001:db8::1"), now).expect("one a second");
        assert_eq!(admission.admit(ip("2001:db8::1"), now).expect_err("no more"), "connection-rate");
    }

    #[test]
    fn addresses_are_not_remembered_for_ever() {
        let admission = Admission::new(Limits { connections: usize::MAX, ..limits() });
        let now = Millis(1_000_000);
        for n in 0..ADDRESSES_MAX as u32 {
            admission.admit(IpAddr::V4((0x0A00_0000 + n).into()), now).expect("a place");
        }
        let later = Millis(now.0 + 20_000);
        admission.admit(ip("192.0.2.1"), later).expect("a place");
        assert!(admission.counts.lock().addresses.len() <= 1);
    }
}
