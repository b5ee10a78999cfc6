//! Latency of one message at a time (publish, wait until the subscriber has it, publish the next), where nothing can batch, so
//! that the figure is made of wake-ups and hops; and of messages at a fixed rate.

use std::io::{ErrorKind, Write};
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
    Ok(Latency::of(micros))
}

impl Latency {
    fn of(mut micros: Vec<f64>) -> Self {
        micros.sort_by(f64::total_cmp);
        Self {
            p50: percentile(&micros, 0.5),
            p99: percentile(&micros, 0.99),
            p999: percentile(&micros, 0.999),
            samples: micros.len(),
        }
    }
}

/// How long what is under way at the end may take to come.
const DRAIN: Duration = Duration::from_secs(2);

/// So many messages a second, each sent when it is due, whether those before it have come back or not, and measured from then: a
/// broker that holds one up is charged for those behind it as well. The payload's first eight bytes say when that was.
pub fn paced(addr: SocketAddr, ping: &Ping, per_second: u32) -> Result<Latency> {
    let mut pair = Pair::connect(addr, ping.version, &ping.filter)?;
    pair.publisher.stream.set_nonblocking(true)?;
    pair.subscriber.stream.set_nonblocking(true)?;
    let message = wire::publish(ping.version, &ping.topic, 0, &ping.payload).bytes;
    let stamp_at = message.len() - ping.payload.len();
    let interval = Duration::from_secs(1) / per_second;
    let begun = Instant::now();
    let (warm, end) = (ping.warm_up, ping.warm_up + ping.measured);
    let (mut due, mut unsent, mut under_way) = (Duration::ZERO, Vec::new(), 0u64);
    let mut micros = Vec::with_capacity((per_second as f64 * ping.measured.as_secs_f64()) as usize + 1);
    while due < end || under_way > 0 {
        let now = begun.elapsed();
        while due <= now && due < end {
            let at = unsent.len() + stamp_at;
            unsent.extend_from_slice(&message);
            unsent[at..at + 8].copy_from_slice(&(due.as_nanos() as u64).to_le_bytes());
            under_way += 1;
            due += interval;
        }
        if !unsent.is_empty() {
            let sent = ready(pair.publisher.stream.write(&unsent))?.unwrap_or(0);
            unsent.drain(..sent);
        }
        if ready(pair.subscriber.read.fill(&mut pair.subscriber.stream))? == Some(0) {
            return Err("the broker closed the connection".into());
        }
        let now = begun.elapsed();
        while let Some(frame) = pair.subscriber.read.next_frame() {
            let stamp = frame.payload(ping.version).and_then(|payload| payload.first_chunk::<8>());
            let due = Duration::from_nanos(u64::from_le_bytes(*stamp.ok_or("a message without its stamp")?));
            under_way = under_way.saturating_sub(1);
            if due >= warm {
                micros.push(now.saturating_sub(due).as_secs_f64() * 1e6);
            }
        }
        if now > end + DRAIN {
            return Err(format!("{under_way} messages did not come within {DRAIN:?}").into());
        }
    }
    Ok(Latency::of(micros))
}

/// What could be done at once, if anything.
fn ready(result: std::io::Result<usize>) -> std::io::Result<Option<usize>> {
    match result {
        Ok(count) => Ok(Some(count)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
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
