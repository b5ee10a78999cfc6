//! A soak: clients that come and go, shares, QoS 1 and 2, for as long as `FOREBAY_SOAK_SECONDS` says (ten when nothing is said;
//! an hour, by hand, is `FOREBAY_SOAK_SECONDS=3600 cargo test --test soak -- --nocapture`). Nothing may be lost, nothing of QoS 2
//! doubled, and the broker's memory stays where it was once everybody was there.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};

use forebay_tests::forebay::{Forebay, Serve};
use forebay_tests::mqtt::{
    Client, Connect, DISCONNECT, PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL, Packet, Will, packet, span, text,
};
use forebay_tests::random::{Random, seed};
use forebay_tests::wait::{self, PATIENCE};

/// The publishers, by the QoS of their messages.
const PUBLISHERS: [u8; 4] = [1, 1, 2, 2];
/// Messages of a publisher under way at once, at most.
const WINDOW: usize = 16;
/// How long a publisher waits between two messages.
const PAUSE: Duration = Duration::from_micros(2500);
/// Messages that a subscriber may be behind before publishers wait for it: what waits for it while it is away is bounded in the
/// broker, and what comes beyond is dropped.
const BEHIND_MAX: u64 = 20_000;
/// Members of the share that stay.
const MEMBERS: usize = 3;
/// Memory that may come while nothing else happens: allocators and pools take their time.
const MEMORY_SLACK_BYTES: u64 = 16 << 20;

/// Numbers of one publisher that have come.
#[derive(Default)]
struct Numbers {
    /// All below have.
    floor: u64,
    /// Those above that have.
    beyond: BTreeSet<u64>,
}

impl Numbers {
    /// False when it had come before.
    fn add(&mut self, number: u64) -> bool {
        if number < self.floor || !self.beyond.insert(number) {
            return false;
        }
        while self.beyond.remove(&self.floor) {
            self.floor += 1;
        }
        true
    }
}

/// What one subscription, or one share, has received.
#[derive(Default)]
struct Received {
    numbers: [Numbers; PUBLISHERS.len()],
    /// Came again at QoS 1, as it may.
    again: u64,
}

impl Received {
    /// A new message, by the rules of its QoS. False when it had come before.
    fn take(&mut self, payload: &str, in_order: bool) -> bool {
        let (publisher, number) = payload.split_once(':').expect("a message of ours");
        let (publisher, number): (usize, u64) = (publisher.parse().unwrap(), number.parse().unwrap());
        let numbers = &mut self.numbers[publisher];
        if in_order {
            assert!(number <= numbers.floor, "{payload} came before number {}", numbers.floor);
        }
        let is_new = numbers.add(number);
        if !is_new {
            assert_eq!(PUBLISHERS[publisher], 1, "{payload} came twice");
            self.again += 1;
        }
        is_new
    }

    fn count(&self) -> u64 {
        self.numbers.iter().map(|numbers| numbers.floor + numbers.beyond.len() as u64).sum()
    }
}

#[derive(Default)]
struct Soak {
    published: [AtomicU64; PUBLISHERS.len()],
    acknowledged: AtomicU64,
    own: Mutex<Received>,
    shared: Mutex<Received>,
    /// How many messages came to each of them.
    came: [AtomicU64; 2],
    connections: AtomicU64,
    /// Publishers come to their end.
    over: AtomicBool,
    /// Everybody does.
    done: AtomicBool,
}

impl Soak {
    /// Whether the subscription or the share has much to catch up with.
    fn is_behind(&self) -> bool {
        let published: u64 = self.published.iter().map(|count| count.load(Ordering::Relaxed)).sum();
        self.came.iter().any(|came| published.saturating_sub(came.load(Ordering::Relaxed)) > BEHIND_MAX)
    }

    /// What is not there, in words.
    fn lacking(&self) -> String {
        let of = |name: &str, received: &Mutex<Received>| {
            let received = received.lock().unwrap();
            let each = received.numbers.iter().zip(&self.published).enumerate().map(
                |(publisher, (numbers, published))| {
                    let published = published.load(Ordering::SeqCst);
                    let lacking = published - numbers.floor - numbers.beyond.len() as u64;
                    format!(
                        "{name}: {lacking} of {published} of publisher {publisher}, from number {} on",
                        numbers.floor
                    )
                },
            );
            each.collect::<Vec<_>>().join("\n")
        };
        of("own", &self.own) + "\n" + &of("shared", &self.shared)
    }

    fn everything_came(&self) -> bool {
        let published = self.published.iter().map(|count| count.load(Ordering::SeqCst));
        let published: Vec<u64> = published.collect();
        [&self.own, &self.shared].into_iter().all(|received| {
            let received = received.lock().unwrap();
            received.numbers.iter().zip(&published).all(|(numbers, published)| numbers.floor == *published)
        })
    }
}

fn lasting(id: &str) -> Connect {
    Connect::v5(id).resume().session_expiry(3600)
}

/// SUBSCRIBE, whose answer may come after messages.
fn subscribe(filter: &str, qos: u8) -> Vec<u8> {
    packet(0x82, &[vec![0, 7], span(&[]), text(filter), vec![qos]].concat())
}

/// How long a connection lasts.
fn some_time(random: &mut Random) -> Instant {
    Instant::now() + Duration::from_millis(300 + random.below(3000))
}

/// Ends a connection, in good order or not. The session stays.
fn part(client: Client, random: &mut Random) {
    match random.below(3) {
        0 => drop(client),
        1 => client.is_gone(),
        _ => {
            let mut client = client;
            client.send_to_the_unwilling(&[0xE0, 0]);
            client.closed();
        }
    }
}

fn packet_soon(client: &mut Client, time: Duration) -> Option<Packet> {
    match client.packet_within(time) {
        Ok(Some(packet)) => {
            assert_ne!(packet.kind(), DISCONNECT, "the broker hangs up: {packet:02x?}");
            Some(packet)
        }
        Ok(None) => panic!("the broker has hung up without a word"),
        Err(_) => None,
    }
}

/// A message that is not acknowledged yet: identifier, number, and whether PUBREC came.
type UnderWay = VecDeque<(u16, u64, bool)>;

fn publish(soak: &Soak, addr: SocketAddr, me: usize, mut random: Random) {
    let (qos, mut under_way, mut id) = (PUBLISHERS[me], UnderWay::new(), 0);
    let bytes = |(id, number, received): (u16, u64, bool), dup: bool| {
        if received {
            return packet(0x62, &id.to_be_bytes());
        }
        let mut body = text(&format!("soak/{me}"));
        body.extend_from_slice(&id.to_be_bytes());
        body.push(0);
        body.extend_from_slice(format!("{me}:{number}").as_bytes());
        packet(0x30 | (qos << 1) | if dup { 8 } else { 0 }, &body)
    };
    while !soak.over.load(Ordering::SeqCst) || !under_way.is_empty() {
        let mut client = Client::connect(addr, &lasting(&format!("publisher-{me}")));
        soak.connections.fetch_add(1, Ordering::Relaxed);
        for message in &under_way {
            client.send_to_the_unwilling(&bytes(*message, true));
        }
        let until = some_time(&mut random);
        let mut last_word = Instant::now();
        while Instant::now() < until {
            let over = soak.over.load(Ordering::SeqCst);
            if over && under_way.is_empty() {
                break;
            }
            if !over && under_way.len() < WINDOW && !soak.is_behind() {
                id = id % (2 * WINDOW as u16) + 1;
                while under_way.iter().any(|(used, ..)| *used == id) {
                    id = id % (2 * WINDOW as u16) + 1;
                }
                let message = (id, soak.published[me].fetch_add(1, Ordering::SeqCst), false);
                under_way.push_back(message);
                client.send_to_the_unwilling(&bytes(message, false));
            }
            if let Some(answer) = packet_soon(&mut client, PAUSE) {
                last_word = Instant::now();
                settle(soak, &mut client, &mut under_way, &answer);
            }
            assert!(under_way.is_empty() || last_word.elapsed() < PATIENCE, "no acknowledgement comes");
        }
        part(client, &mut random);
    }
}

fn settle(soak: &Soak, client: &mut Client, under_way: &mut UnderWay, answer: &Packet) {
    let id = answer.id();
    let at = under_way.iter().position(|(other, ..)| *other == id);
    let at = at.unwrap_or_else(|| panic!("{answer:02x?} for nothing that is under way"));
    // 0x92: the exchange was over, and its end did not reach us.
    let reason = answer.body.get(2).copied().unwrap_or(0);
    assert!(reason < 0x80 || (answer.kind() == PUBCOMP && reason == 0x92), "{answer:02x?}");
    match answer.kind() {
        PUBREC => {
            under_way[at].2 = true;
            client.send_to_the_unwilling(&packet(0x62, &id.to_be_bytes()));
        }
        PUBACK | PUBCOMP => {
            under_way.remove(at);
            soak.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
        other => panic!("packet {other}"),
    }
}

/// Whose half of a session outlives its connections.
struct Subscriber<'a> {
    soak: &'a Soak,
    name: String,
    filter: &'static str,
    received: &'a Mutex<Received>,
    in_order: bool,
    /// QoS 2 messages whose PUBREL has not come.
    unreleased: BTreeSet<u16>,
}

impl Subscriber<'_> {
    fn begin(&mut self, addr: SocketAddr) {
        let mut client = Client::connect(addr, &lasting(&self.name));
        client.subscribe(self.filter, 2);
        client.disconnect();
    }

    fn run(&mut self, addr: SocketAddr, mut random: Random) {
        while !self.soak.done.load(Ordering::SeqCst) {
            let mut client = Client::connect(addr, &lasting(&self.name));
            self.soak.connections.fetch_add(1, Ordering::Relaxed);
            assert!(client.session_present(), "{} lost its session", self.name);
            let until = some_time(&mut random);
            while Instant::now() < until && !self.soak.done.load(Ordering::SeqCst) {
                if let Some(packet) = packet_soon(&mut client, Duration::from_millis(50)) {
                    self.take(&mut client, &packet);
                }
            }
            part(client, &mut random);
            thread::sleep(Duration::from_millis(random.below(200)));
        }
    }

    /// A member that is there for a while and leaves for good. Not with messages of QoS 2 on their way: nobody else would get
    /// those (MQTT 5, §4.8.2).
    fn run_for_a_while(&mut self, addr: SocketAddr, random: &mut Random) {
        let mut client = Client::connect(addr, &Connect::v5(&self.name));
        self.soak.connections.fetch_add(1, Ordering::Relaxed);
        self.unreleased.clear();
        client.send(&subscribe(self.filter, 2));
        let until = some_time(random);
        while Instant::now() < until && !self.soak.done.load(Ordering::SeqCst) {
            if let Some(packet) = packet_soon(&mut client, Duration::from_millis(50)) {
                self.take(&mut client, &packet);
            }
        }
        client.send(&packet(0xA2, &[vec![0, 8, 0], text(self.filter)].concat()));
        while let Some(packet) = packet_soon(&mut client, Duration::from_millis(300)) {
            self.take(&mut client, &packet);
        }
        client.disconnect();
    }

    fn take(&mut self, client: &mut Client, packet: &Packet) {
        match packet.kind() {
            PUBREL => {
                self.unreleased.remove(&packet.id());
                client.send_to_the_unwilling(&self::packet(0x70, &packet.id().to_be_bytes()));
            }
            PUBLISH => {
                let message = client.read_publish(packet);
                if message.qos < 2 || self.unreleased.insert(message.id) {
                    let is_new = self.received.lock().unwrap().take(&message.text(), self.in_order);
                    let came = &self.soak.came[usize::from(!self.in_order)];
                    came.fetch_add(u64::from(is_new), Ordering::Relaxed);
                }
                let answer = if message.qos == 2 { PUBREC } else { PUBACK };
                client.send_to_the_unwilling(&self::packet(answer << 4, &message.id.to_be_bytes()));
            }
            _ => {}
        }
    }
}

/// Clients that come, ask for much, leave something behind and go, some without a word.
fn churn(soak: &Soak, addr: SocketAddr, mut random: Random) {
    let will = Will { topic: "churn/will", payload: b"gone", qos: 1, retain: false };
    while !soak.done.load(Ordering::SeqCst) {
        let id = format!("churner-{}", random.number());
        let mut client = Client::connect(addr, &Connect::v5(&id).will(will.clone()).session_expiry(1));
        soak.connections.fetch_add(1, Ordering::Relaxed);
        for _ in 0..random.below(4) {
            client.send_to_the_unwilling(&subscribe(
                &format!("churn/{}/+/#", random.below(1000)),
                random.below(3) as u8,
            ));
        }
        let payload = vec![b'x'; random.below(1024) as usize];
        let topic = format!("churn/{}/a/b", random.below(100));
        client.send_to_the_unwilling(&client.publish_bytes(&topic, 0, random.below(2) == 0, &[], &payload));
        match random.below(2) {
            0 => drop(client),
            _ => client.send_to_the_unwilling(&[0xE0, 0]),
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// A tap that is open and hardly read.
fn read_slowly(soak: &Soak, addr: SocketAddr) {
    while !soak.done.load(Ordering::SeqCst) {
        let mut client = Client::connect(addr, &Connect::v5("slow"));
        client.send(&subscribe("#", 0));
        let until = Instant::now() + Duration::from_secs(20);
        while Instant::now() < until && !soak.done.load(Ordering::SeqCst) {
            let _ = client.packet_within(Duration::from_millis(50));
            thread::sleep(Duration::from_millis(50));
        }
    }
}

fn resident_bytes(broker: &Forebay) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", broker.process.id())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

/// Has everybody come to the end, however this one ends.
struct End<'a>(&'a Soak);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::SeqCst);
        self.0.done.store(true, Ordering::SeqCst);
    }
}

/// Watches the broker's memory for `time`; what it was each second.
fn watch(soak: &Soak, broker: &Forebay, time: Duration) -> Vec<u64> {
    let (begun, mut seen) = (Instant::now(), Vec::new());
    while begun.elapsed() < time {
        thread::sleep(Duration::from_secs(1));
        seen.push(resident_bytes(broker));
        let full = broker.metric("forebay_messages_dropped_total", &["cause=\"queue-full\""]);
        assert_eq!(full, 0.0, "subscribers are too far behind for this machine");
        if seen.len() % 60 == 0 {
            let own = soak.own.lock().unwrap();
            println!(
                "{} min: {} published, {} came, {} again, {} connections, {:.1} MiB",
                seen.len() / 60,
                soak.published.iter().map(|count| count.load(Ordering::Relaxed)).sum::<u64>(),
                own.count(),
                own.again,
                soak.connections.load(Ordering::Relaxed),
                *seen.last().unwrap() as f64 / f64::from(1 << 20)
            );
        }
    }
    seen
}

/// What the broker says of its sessions.
fn listing(broker: &Forebay) -> String {
    let text = forebay_tests::http::get(broker.admin, "/metrics").expect("an answer").text();
    text.lines()
        .filter(|line| line.contains("drop") || line.contains("refus") || line.contains("shed"))
        .collect::<Vec<_>>()
        .join("\n")
}

fn mean(of: &[u64]) -> u64 {
    of.iter().sum::<u64>() / (of.len() as u64).max(1)
}

#[test]
fn nothing_is_lost_or_doubled_and_memory_stays_flat_while_clients_come_and_go() {
    let seconds = std::env::var("FOREBAY_SOAK_SECONDS").ok();
    let seconds = seconds.map_or(10, |text| text.parse().expect("FOREBAY_SOAK_SECONDS is a whole number"));
    let (seed, broker, soak) = (seed(), Serve::new().start(), Soak::default());
    let addr = broker.addr;
    let subscriber = |name: String, filter, received, in_order| Subscriber {
        soak: &soak,
        name,
        filter,
        received,
        in_order,
        unreleased: BTreeSet::new(),
    };
    let member = |name: String| subscriber(name, "$share/soak/soak/#", &soak.shared, false);
    let mut staying = vec![subscriber("own".to_owned(), "soak/#", &soak.own, true)];
    staying.extend((0..MEMBERS).map(|number| member(format!("member-{number}"))));
    staying.iter_mut().for_each(|subscriber| subscriber.begin(addr));
    let mut passing = member("passing".to_owned());
    let seen = thread::scope(|scope| {
        for me in 0..PUBLISHERS.len() {
            let (soak, random) = (&soak, Random::new(seed + me as u64));
            scope.spawn(move || publish(soak, addr, me, random));
        }
        for (number, subscriber) in staying.iter_mut().enumerate() {
            let random = Random::new(seed + 100 + number as u64);
            scope.spawn(move || subscriber.run(addr, random));
        }
        let (soak, passing) = (&soak, &mut passing);
        scope.spawn(move || {
            let mut random = Random::new(seed + 200);
            while !soak.over.load(Ordering::SeqCst) {
                passing.run_for_a_while(addr, &mut random);
            }
        });
        scope.spawn(move || churn(soak, addr, Random::new(seed + 300)));
        scope.spawn(move || read_slowly(soak, addr));
        let _end = End(soak);
        let seen = watch(soak, &broker, Duration::from_secs(seconds));
        soak.over.store(true, Ordering::SeqCst);
        let came = wait::within(PATIENCE, || soak.everything_came());
        soak.done.store(true, Ordering::SeqCst);
        assert!(came, "something never came\n{}\n{}", soak.lacking(), listing(&broker));
        seen
    });
    let sum = |counts: &[AtomicU64]| counts.iter().map(|count| count.load(Ordering::SeqCst)).sum::<u64>();
    let published = sum(&soak.published);
    assert_eq!(soak.acknowledged.load(Ordering::SeqCst), published);
    let (early, late) = (mean(&seen[seen.len() / 4..seen.len() / 2]), mean(&seen[seen.len() * 3 / 4..]));
    println!(
        "{published} messages to a subscription and a share, {} connections; {early} bytes resident early, {late} late",
        soak.connections.load(Ordering::SeqCst)
    );
    assert!(published > 100 * seconds, "only {published} messages in {seconds} s");
    assert!(late < early + early / 20 + MEMORY_SLACK_BYTES, "memory grew from {early} to {late} bytes");
}
