//! Waiting for a condition, and free ports.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take before a test gives up. Long: a loaded machine is not a defect.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Polls until `look` gives something; panics with `what` and the reason that `look` left when it never does.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        match look() {
            Ok(found) => return found,
            Err(reason) if Instant::now() >= end => panic!("waited {PATIENCE:?} until {what}: {reason}"),
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Looks again and again for a while; whether it came true.
pub fn within(time: Duration, mut look: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + time;
    loop {
        if look() {
            return true;
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        thread::sleep(left.min(Duration::from_millis(10)));
    }
}

/// A loopback address that nothing listens on. Taken below the range that outgoing connections use, and handed out
/// once per process, so that tests side by side do not take each other's.
pub fn free_addr() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() % 10_000) as u16;
    loop {
        let port = 20_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(addr).is_ok() {
            return addr;
        }
    }
}
