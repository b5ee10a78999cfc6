//! Latency of one message at a time: publish, wait until the subscriber has it, publish the next.
//!
//! Nothing can batch here, so the figure is made of wake-ups and hops.

use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::Result;
use crate::load::Greeting;
use crate::wire::{self, PUBLISH, Version};

/// What to send and where it comes back.
#[derive(Clone, Debug)]
pub struct Ping {
    /// MQTT version of both clients.
    pub version: Version,
    /// Topic published to, QoS 0.
    pub topic: String,
    /// Filter that the answer is expected on.
    pub filter: String,
    /// Payload of every message.
    pub payload: Vec<u8>,
    /// Time before counting starts.
    pub warm_up: Duration,
    /// Time that is counted.
    pub measured: Duration,
}

/// Percentiles in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Latency {
    /// Median.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
    /// 99.9th percentile.
    pub p999: f64,
    /// How many round trips they are taken from.
    pub samples: usize,
}

/// Runs `ping` against the broker at `addr`.
pub fn run(addr: SocketAddr, ping: &Ping) -> Result<Latency> {
    let mut pair = Pair::connect(addr, ping.version, &ping.filter)?;
    let message = wire::publish(ping.version, &ping.topic, 0, &ping.payload).bytes;
    let warm = Instant::now() + ping.warm_up;
    while Instant::now() < warm {
        pair.exchange(&message)?;
    }
    let end = Instant::now() + ping.measured;
    let mut micros = Vec::with_capacity(1 << 18);
    loop {
        let begin = Instant::now();
        if begin >= end {
            break;
        }
        pair.exchange(&message)?;
        micros.push(begin.elapsed().as_secs_f64() * 1e6);
    }
    micros.sort_by(f64::total_cmp);
    Ok(Latency {
        p50: percentile(&micros, 0.5),
        p99: percentile(&micros, 0.99),
        p999: percentile(&micros, 0.999),
        samples: micros.len(),
    })
}

/// Publishes one message and returns the payload that comes back, to see that the path under test does what it says.
/// A lossy start (a subscriber behind the broker that is not there yet) is waited for.
pub fn probe(
    addr: SocketAddr,
    version: Version,
    topic: &str,
    filter: &str,
    payload: &[u8],
) -> Result<Vec<u8>> {
    let mut pair = Pair::connect(addr, version, filter)?;
    let message = wire::publish(version, topic, 0, payload).bytes;
    pair.subscriber.stream.set_read_timeout(Some(Duration::from_millis(300)))?;
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        pair.publisher.stream.write_all(&message)?;
        let came = pair.subscriber.wait(|frame| Ok(frame.payload(version).unwrap_or_default().to_vec()));
        match came {
            Ok(payload) => return Ok(payload),
            Err(error) if Instant::now() >= end => {
                return Err(format!("nothing came back on {filter}: {error}").into());
            }
            Err(_) => {}
        }
    }
}

fn percentile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get(((sorted.len() as f64 * share) as usize).min(last)).copied().unwrap_or(f64::NAN)
}

struct Pair {
    publisher: Greeting,
    subscriber: Greeting,
}

impl Pair {
    fn connect(addr: SocketAddr, version: Version, filter: &str) -> Result<Self> {
        let mut subscriber = Greeting::connect(addr, version, "bench-ping-sub")?;
        subscriber.subscribe(version, filter, 0)?;
        Ok(Self { publisher: Greeting::connect(addr, version, "bench-ping-pub")?, subscriber })
    }

    fn exchange(&mut self, message: &[u8]) -> Result<()> {
        self.publisher.stream.write_all(message)?;
        self.subscriber.wait(|frame| match frame.kind() {
            PUBLISH => Ok(()),
            kind => Err(format!("packet type {kind} where PUBLISH was due").into()),
        })
    }
}
