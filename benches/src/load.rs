//! The load: one thread, non-blocking sockets, many PUBLISH packets a write, closed-loop windows.
//!
//! The generator keeps at most a window of messages between "sent" and "received by every subscriber". So a broker is
//! always busy, never has to shed, and its queue stays short: what is counted is what it carries, not what it drops.
//! A message more than was sent, or one that came back changed, ends the run: a broker is not fast by sending rubbish.
//! A message that has not come after [`STALL`] counts as lost and frees its place.
//!
//! Does not know: which broker is at the other end.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::wire::{self, Frame, PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL, Template, Version};
use crate::{Result, peer};

/// No message came for so long: what is outstanding is lost.
const STALL: Duration = Duration::from_millis(500);
/// After so many stalls in a row the run is broken, not slow.
const STALLS_MAX: u32 = 6;
/// Bytes handed to one write.
const WRITE_BATCH: usize = 64 * 1024;
/// Bytes asked of one read.
const READ_BATCH: usize = 256 * 1024;

/// What to send, to whom and for how long.
#[derive(Clone, Debug)]
pub struct Plan {
    /// MQTT version of every client.
    pub version: Version,
    /// Topic of publisher `i`; its length is the number of publishers.
    pub topics: Vec<String>,
    /// Filter of every subscriber.
    pub filter: String,
    /// Number of subscribers; each must get every message.
    pub subscribers: usize,
    /// QoS of publishing and of subscribing.
    pub qos: u8,
    /// Payload of every message.
    pub payload: Vec<u8>,
    /// What the payload of every received message ends with.
    pub ending: Vec<u8>,
    /// The subscribers' sessions are to be on disk.
    pub persisted: bool,
    /// Published messages that may be under way at once, over all publishers.
    pub window: usize,
    /// Time before counting starts.
    pub warm_up: Duration,
    /// Time that is counted.
    pub measured: Duration,
}

/// What came out of one run.
#[derive(Clone, Copy, Debug)]
pub struct Throughput {
    /// Messages received by all subscribers in the measured time.
    pub received: u64,
    /// The measured time.
    pub seconds: f64,
    /// CPU seconds that `cpu` grew by in that time.
    pub cpu_seconds: f64,
    /// Share of the measured time that the generator itself was on its CPU; near 1 the figure is a lower bound.
    pub load_busy: f64,
    /// Deliveries given up for lost in the whole run.
    pub lost: u64,
}

/// Runs `plan` against the broker at `addr`; `cpu` reads the CPU time the broker has used so far.
pub fn run(addr: SocketAddr, plan: &Plan, cpu: impl Fn() -> Result<Duration>) -> Result<Throughput> {
    let mut load = Load::connect(addr, plan)?;
    load.turn_until(Instant::now() + plan.warm_up)?;
    let (begin, received, busy, used) = (Instant::now(), load.received, peer::own_cpu()?, cpu()?);
    load.turn_until(begin + plan.measured)?;
    let seconds = begin.elapsed().as_secs_f64();
    Ok(Throughput {
        received: load.received - received,
        seconds,
        cpu_seconds: (cpu()?.saturating_sub(used)).as_secs_f64(),
        load_busy: (peer::own_cpu()?.saturating_sub(busy)).as_secs_f64() / seconds,
        lost: load.lost,
    })
}

/// Clients that hold `count` subscriptions, `PREFIX/0/#` and so on, and get nothing.
pub fn bystanders(addr: SocketAddr, version: Version, prefix: &str, count: usize) -> Result<Vec<Greeting>> {
    const EACH: usize = 1000;
    let mut clients: Vec<Greeting> = Vec::new();
    for number in 0..count {
        if number % EACH == 0 {
            let id = format!("bench-bystander-{}", clients.len());
            clients.push(Greeting::connect(addr, version, &id)?);
        }
        if let Some(client) = clients.last_mut() {
            client.subscribe(version, &format!("{prefix}/{number}/#"), 0)?;
        }
    }
    Ok(clients)
}

struct Load {
    poll: Poll,
    events: Events,
    clients: Vec<Client>,
    publishers: usize,
    subscribers: u64,
    window: u64,
    /// Published messages, and those whose deliveries were given up.
    sent: u64,
    forgiven: u64,
    /// Deliveries.
    received: u64,
    lost: u64,
    last_progress: Instant,
    stalls: u32,
}

impl Load {
    /// Subscribers first, each acknowledged, so that no message is published to nobody.
    fn connect(addr: SocketAddr, plan: &Plan) -> Result<Self> {
        let poll = Poll::new()?;
        let mut subscribers = Vec::with_capacity(plan.subscribers);
        for n in 0..plan.subscribers {
            let id = format!("bench-sub-{n}");
            let mut greeting = match plan.persisted {
                true => Greeting::lasting(addr, plan.version, &id)?,
                false => Greeting::connect(addr, plan.version, &id)?,
            };
            greeting.subscribe(plan.version, &plan.filter, plan.qos)?;
            subscribers.push(Client::new(greeting, None, plan)?);
        }
        let mut clients = Vec::with_capacity(plan.topics.len() + plan.subscribers);
        for (n, topic) in plan.topics.iter().enumerate() {
            let greeting = Greeting::connect(addr, plan.version, &format!("bench-pub-{n}"))?;
            let template = wire::publish(plan.version, topic, plan.qos, &plan.payload);
            clients.push(Client::new(greeting, Some((template, plan.qos)), plan)?);
        }
        clients.append(&mut subscribers);
        for (n, client) in clients.iter_mut().enumerate() {
            poll.registry().register(
                &mut client.stream,
                Token(n),
                Interest::READABLE | Interest::WRITABLE,
            )?;
        }
        Ok(Self {
            poll,
            events: Events::with_capacity(1024),
            clients,
            publishers: plan.topics.len(),
            subscribers: plan.subscribers as u64,
            window: plan.window as u64,
            sent: 0,
            forgiven: 0,
            received: 0,
            lost: 0,
            last_progress: Instant::now(),
            stalls: 0,
        })
    }

    fn turn_until(&mut self, end: Instant) -> Result<()> {
        self.last_progress = Instant::now();
        let mut moved = true;
        loop {
            let now = Instant::now();
            if now >= end {
                return Ok(());
            }
            self.note_stall(now)?;
            let wait = if moved { Duration::ZERO } else { (end - now).min(Duration::from_millis(20)) };
            moved = self.turn(wait)?;
        }
    }

    /// One turn of the loop: whatever can be read, then whatever may be written. True when bytes moved.
    fn turn(&mut self, wait: Duration) -> Result<bool> {
        if let Err(error) = self.poll.poll(&mut self.events, Some(wait))
            && error.kind() != io::ErrorKind::Interrupted
        {
            return Err(error.into());
        }
        for event in &self.events {
            let client = &mut self.clients[event.token().0];
            client.readable |= event.is_readable();
            client.writable |= event.is_writable();
        }
        let mut moved = false;
        for client in &mut self.clients {
            let delivered = client.read(&mut moved)?;
            self.received += delivered;
        }
        for n in 0..self.clients.len() {
            if n < self.publishers {
                let room = self.room(n);
                self.sent += self.clients[n].fill(room);
            }
            self.clients[n].write(&mut moved)?;
        }
        if self.received > self.sent * self.subscribers {
            return Err(format!("{} messages came of {} sent", self.received, self.sent).into());
        }
        Ok(moved)
    }

    /// How many messages publisher `n` may add now. The window's remainder is shared so that no publisher starves.
    fn room(&self, n: usize) -> u64 {
        let done = self.received / self.subscribers + self.forgiven;
        let left = self.window.saturating_sub(self.sent.saturating_sub(done));
        left.div_ceil((self.publishers - n) as u64)
    }

    fn note_stall(&mut self, now: Instant) -> Result<()> {
        if self.clients.iter().any(|c| c.progress) {
            self.clients.iter_mut().for_each(|c| c.progress = false);
            self.last_progress = now;
            self.stalls = 0;
        } else if now - self.last_progress > STALL {
            let missing = self.sent * self.subscribers - self.received.min(self.sent * self.subscribers);
            self.lost = missing;
            self.forgiven = self.sent - (self.received / self.subscribers).min(self.sent);
            self.last_progress = now;
            self.stalls += 1;
            if self.stalls > STALLS_MAX {
                return Err(format!(
                    "no message came for {STALLS_MAX} × {STALL:?}, {} before",
                    self.received
                )
                .into());
            }
        }
        Ok(())
    }
}

struct Client {
    stream: TcpStream,
    readable: bool,
    writable: bool,
    /// Set when a message or an acknowledgement was read since the last look.
    progress: bool,
    read: ReadBuffer,
    out: Vec<u8>,
    out_at: usize,
    publisher: Option<Publisher>,
    /// What every message that is received ends with.
    ending: Vec<u8>,
}

struct Publisher {
    template: Template,
    qos: u8,
    inflight: u64,
    inflight_max: u64,
    next_id: u16,
}

impl Client {
    fn new(greeting: Greeting, publishes: Option<(Template, u8)>, plan: &Plan) -> Result<Self> {
        greeting.stream.set_nonblocking(true)?;
        let inflight_max = u64::from(greeting.receive_maximum);
        Ok(Self {
            stream: TcpStream::from_std(greeting.stream),
            readable: true,
            writable: true,
            progress: false,
            read: greeting.read,
            out: Vec::with_capacity(2 * WRITE_BATCH),
            out_at: 0,
            publisher: publishes.map(|(template, qos)| Publisher {
                template,
                qos,
                inflight: 0,
                inflight_max,
                next_id: 1,
            }),
            ending: plan.ending.clone(),
        })
    }

    /// Reads once, answers what must be answered, and returns how many messages were delivered.
    fn read(&mut self, moved: &mut bool) -> Result<u64> {
        if !self.readable {
            return Ok(0);
        }
        match self.read.fill(&mut self.stream) {
            Ok(0) => return Err("the broker closed a connection during the run".into()),
            // A short read emptied the socket; edge triggering tells when there is more.
            Ok(n) => self.readable = n >= READ_BATCH / 2,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readable = false;
                return Ok(0);
            }
            Err(error) => return Err(error.into()),
        }
        *moved = true;
        self.progress = true;
        let mut delivered = 0;
        let (out, publisher, ending) = (&mut self.out, &mut self.publisher, &self.ending);
        self.read.for_each_frame(|frame| {
            if frame.kind() == PUBLISH {
                delivered += 1;
                if !frame.bytes.ends_with(ending) {
                    return Err("a message came back changed".into());
                }
            }
            answer(frame, out, publisher.as_mut())
        })?;
        Ok(delivered)
    }

    /// Appends up to `room` messages, and returns how many.
    fn fill(&mut self, room: u64) -> u64 {
        let Some(publisher) = &mut self.publisher else { return 0 };
        let may = match publisher.qos {
            0 => room,
            _ => room.min(publisher.inflight_max.saturating_sub(publisher.inflight)),
        };
        let mut added = 0;
        while added < may && self.out.len() < WRITE_BATCH {
            let at = self.out.len();
            self.out.extend_from_slice(&publisher.template.bytes);
            if publisher.qos > 0 {
                let id_at = at + publisher.template.id_at;
                self.out[id_at..id_at + 2].copy_from_slice(&publisher.next_id.to_be_bytes());
                publisher.next_id = publisher.next_id.checked_add(1).unwrap_or(1);
                publisher.inflight += 1;
            }
            added += 1;
        }
        added
    }

    fn write(&mut self, moved: &mut bool) -> Result<()> {
        while self.writable && self.out_at < self.out.len() {
            match self.stream.write(&self.out[self.out_at..]) {
                Ok(n) => {
                    self.out_at += n;
                    *moved = true;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        if self.out_at == self.out.len() {
            self.out.clear();
            self.out_at = 0;
        }
        Ok(())
    }
}

/// Answers one packet as its QoS asks, and frees the publisher's place when an exchange ends.
#[inline]
fn answer(frame: Frame<'_>, out: &mut Vec<u8>, publisher: Option<&mut Publisher>) -> Result<()> {
    let kind = frame.kind();
    let reply = match kind {
        PUBLISH if frame.qos() == 0 => return Ok(()),
        PUBLISH if frame.qos() == 1 => PUBACK,
        PUBLISH => PUBREC,
        PUBREC => PUBREL,
        PUBREL => PUBCOMP,
        PUBACK | PUBCOMP => {
            if let Some(publisher) = publisher {
                publisher.inflight = publisher.inflight.saturating_sub(1);
            }
            return Ok(());
        }
        14 => return Err(format!("the broker sent DISCONNECT {:02x?}", frame.body()).into()),
        _ => return Ok(()),
    };
    let id = frame.id().ok_or("an acknowledged packet without identifier")?;
    out.extend_from_slice(&wire::ack(reply, id));
    Ok(())
}

/// Bytes read and not yet parsed.
pub struct ReadBuffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Default for ReadBuffer {
    fn default() -> Self {
        Self { bytes: vec![0; READ_BATCH], start: 0, end: 0 }
    }
}

impl ReadBuffer {
    /// One read into the free space; what is left of the last packet moves to the front first.
    pub fn fill(&mut self, from: &mut impl Read) -> io::Result<usize> {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.bytes.len() {
            self.bytes.resize(self.bytes.len() * 2, 0);
        }
        let n = from.read(&mut self.bytes[self.end..])?;
        self.end += n;
        Ok(n)
    }

    /// Hands every whole packet to `each`.
    pub fn for_each_frame(&mut self, mut each: impl FnMut(Frame<'_>) -> Result<()>) -> Result<()> {
        while let Some(frame) = wire::frame(&self.bytes[self.start..self.end]) {
            self.start += frame.bytes.len();
            each(frame)?;
        }
        Ok(())
    }

    /// Takes the next whole packet, if it is here already.
    pub fn next_frame(&mut self) -> Option<Frame<'_>> {
        let frame = wire::frame(&self.bytes[self.start..self.end])?;
        self.start += frame.bytes.len();
        Some(frame)
    }
}

/// A connection while it is still blocking: CONNECT and SUBSCRIBE, each answered.
pub struct Greeting {
    /// The socket, blocking, without Nagle's delay.
    pub stream: std::net::TcpStream,
    /// What has been read from it.
    pub read: ReadBuffer,
    /// The receive maximum that the broker granted.
    pub receive_maximum: u16,
}

impl Greeting {
    /// Connects and waits for CONNACK.
    pub fn connect(addr: SocketAddr, version: Version, client_id: &str) -> Result<Self> {
        Self::connect_with(addr, version, client_id, ReadBuffer::default())
    }

    /// As [`Greeting::connect`], with a buffer that the caller may keep small.
    pub fn connect_with(
        addr: SocketAddr,
        version: Version,
        client_id: &str,
        read: ReadBuffer,
    ) -> Result<Self> {
        Self::open(addr, version, &wire::connect(version, client_id), read)
    }

    /// Connects to a session that is to be on disk.
    pub fn lasting(addr: SocketAddr, version: Version, client_id: &str) -> Result<Self> {
        Self::open(addr, version, &wire::connect_lasting(version, client_id), ReadBuffer::default())
    }

    fn open(addr: SocketAddr, version: Version, connect: &[u8], read: ReadBuffer) -> Result<Self> {
        let stream = std::net::TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut greeting = Self { stream, read, receive_maximum: u16::MAX };
        greeting.stream.write_all(connect)?;
        greeting.receive_maximum = greeting.wait(|frame| wire::receive_maximum(version, frame))?;
        Ok(greeting)
    }

    /// Subscribes and waits for SUBACK.
    pub fn subscribe(&mut self, version: Version, filter: &str, qos: u8) -> Result<()> {
        self.stream.write_all(&wire::subscribe(version, filter, qos))?;
        self.wait(|frame| match (frame.kind(), frame.body().last()) {
            (wire::SUBACK, Some(&granted)) if granted < 0x80 => Ok(()),
            (wire::SUBACK, Some(&reason)) => {
                Err(format!("the broker refused the filter, {reason:#04x}").into())
            }
            (kind, _) => Err(format!("packet type {kind} where SUBACK was due").into()),
        })
    }

    /// Waits for one packet and hands it to `take`.
    pub fn wait<T>(&mut self, take: impl FnOnce(Frame<'_>) -> Result<T>) -> Result<T> {
        loop {
            if let Some(frame) = self.read.next_frame() {
                return take(frame);
            }
            if self.read.fill(&mut self.stream)? == 0 {
                return Err("the broker closed the connection".into());
            }
        }
    }
}
