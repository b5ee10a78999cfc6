//! The broker's probe of itself (AIO.md §9.4): a client of its own, through everything that a connection goes through but a port's
//! TLS and authentication, that connects, subscribes, publishes, pings and unsubscribes every so often. How long each of it took,
//! and whether it went as it should, is in AIO's metrics (AIO.md §9.5); a probe that fails shows in the Broker's status.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use broker_core::packet::{
    self, Connect, Decoded, FilterList, Limits, Packet, PacketId, Properties, PropertiesBuilder, Property,
    Publish, PublishProperties, QoS, ReasonCode, RetainHandling, Subscribe, SubscribeOptions,
    SubscriptionList, Unsubscribe, Version,
};
use config::ResourceId;
use config::resource::Resource;
use config::resource::broker::Broker as BrokerSpec;
use config::resource::common::OperationalMode;
use metrics::{counter, gauge};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::broker::Broker;
use crate::connection;
use crate::health::{Health, State};
use crate::listener::{Port, Settings};
use crate::metrics::CATEGORY;
use crate::transport::Transport;

/// Where it publishes; not for others.
const TOPIC: &str = "azedge/dmqtt/selftest";
/// Whom its messages are counted for.
const CATEGORY_NAME: &str = "broker_selftest";
const CLIENT_ID: &str = "forebay-selftest";
const ID: PacketId = PacketId::MIN;
/// Packets of the broker's are small here.
const PACKET_BYTES_MAX: usize = 4096;

/// Probes, if this Broker wants that, for as long as the process lives.
pub fn start(broker: &Arc<Broker>, health: &Arc<Health>, resource: &Resource<BrokerSpec>) {
    let settings = resource.spec.diagnostics.as_ref().and_then(|diagnostics| diagnostics.self_check.as_ref());
    if settings.is_some_and(|settings| settings.mode == OperationalMode::Disabled) {
        return;
    }
    let seconds = |seconds: Option<u16>, default| Duration::from_secs(seconds.map_or(default, u64::from));
    let interval = seconds(settings.map(|settings| settings.interval_seconds), 30);
    let timeout = seconds(settings.map(|settings| settings.timeout_seconds), 15);
    let check = SelfCheck {
        broker: Arc::clone(broker),
        health: Arc::clone(health),
        id: resource.id.clone(),
        figures: BTreeMap::new(),
        stop: watch::Sender::new(false),
    };
    drop(tokio::spawn(check.run(interval, timeout)));
}

struct SelfCheck {
    broker: Arc<Broker>,
    health: Arc<Health>,
    id: ResourceId,
    /// By what was measured.
    figures: BTreeMap<&'static str, Figure>,
    /// Connections want to be told of the end; these end by themselves.
    stop: watch::Sender<bool>,
}

impl SelfCheck {
    async fn run(mut self, interval: Duration, timeout: Duration) {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let probed = tokio::time::timeout(timeout, self.probe()).await;
            match probed.unwrap_or_else(|_| Err(format!("it took longer than {timeout:?}"))) {
                Ok(()) => {
                    // What reading its resource had to say stands, unless a probe had failed.
                    if self.health.reason_code(&self.id) == Some(FAILED) {
                        self.health.set(&self.id, State::Available, None, String::new());
                    }
                }
                Err(why) => {
                    tracing::error!("the broker's probe of itself failed: {why}");
                    self.health.set(&self.id, State::Degraded, Some(FAILED), why);
                }
            }
        }
    }

    async fn probe(&mut self) -> Result<(), String> {
        let mut client = Probe::open(&self.broker, &self.stop).await.map_err(|error| error.to_string())?;
        for step in STEPS {
            let begun = Instant::now();
            let done = client.take(*step).await;
            gauge!(step.correctness()).set(if done.is_ok() { 1.0 } else { 0.0 });
            done.map_err(|why| format!("{}: {why}", step.name()))?;
            self.measured(step.name(), begun.elapsed());
            if let Step::Publish = step {
                self.check_payload(&mut client).await?;
            }
        }
        Ok(())
    }

    /// What was published must come back as it was.
    async fn check_payload(&mut self, client: &mut Probe) -> Result<(), String> {
        counter!("aio_broker_payload_check_total_messages_sent").increment(1);
        let came = client.message().await;
        let count = if came.is_ok() { "received" } else { "lost" };
        counter!(format!("aio_broker_payload_check_total_messages_{count}")).increment(1);
        self.measured("payload_check", came?);
        Ok(())
    }

    fn measured(&mut self, what: &'static str, time: Duration) {
        let figure = self.figures.entry(what).or_default();
        figure.add(time.as_secs_f64() * 1000.0);
        let show = |name: &str, value: f64| gauge!(format!("aio_broker_{what}_latency_{name}_ms")).set(value);
        show("last_value", figure.last);
        show("mu", figure.mean);
        show("sigma", figure.deviation());
    }
}

/// AIO's reason code for it (AIO.md §9.7).
const FAILED: &str = "BrokerProbeFailed";

/// Mean and deviation of all values so far (Welford).
#[derive(Default)]
struct Figure {
    count: f64,
    last: f64,
    mean: f64,
    squares: f64,
}

impl Figure {
    fn add(&mut self, value: f64) {
        self.last = value;
        self.count += 1.0;
        let before = value - self.mean;
        self.mean += before / self.count;
        self.squares += before * (value - self.mean);
    }

    fn deviation(&self) -> f64 {
        (self.squares / self.count.max(1.0)).sqrt()
    }
}

/// What a probe does, in this order.
#[derive(Clone, Copy)]
enum Step {
    Connect,
    Subscribe,
    Publish,
    Ping,
    Unsubscribe,
}

const STEPS: &[Step] = &[Step::Connect, Step::Subscribe, Step::Publish, Step::Ping, Step::Unsubscribe];

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Subscribe => "subscribe",
            Self::Publish => "publish",
            Self::Ping => "ping",
            Self::Unsubscribe => "unsubscribe",
        }
    }

    /// The metric that says whether it went as it should.
    fn correctness(self) -> String {
        match self {
            Self::Ping => "aio_broker_ping_correctness".to_owned(),
            _ => format!("aio_broker_{}_route_replication_correctness", self.name()),
        }
    }
}

/// The client of one probe.
struct Probe {
    stream: TcpStream,
    input: Vec<u8>,
    /// What is published, and what came back of it.
    payload: Vec<u8>,
    sent: Instant,
    came: Option<Duration>,
}

impl Probe {
    /// Connects to the broker beside all its ports.
    async fn open(broker: &Arc<Broker>, stop: &watch::Sender<bool>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let stream = TcpStream::connect(address).await?;
        let own = stream.local_addr()?;
        let served = loop {
            // Whoever else is quick enough to find the port is not let in by it.
            match listener.accept().await? {
                (served, peer) if peer == own => break served,
                _ => {}
            }
        };
        let port = Port::new(address, Settings::open());
        let transport = Transport::Plain(served);
        drop(tokio::spawn(connection::run(Arc::clone(broker), port, transport, own, None, stop.subscribe())));
        let payload = broker.assign_client_id().as_bytes().to_vec();
        Ok(Self { stream, input: Vec::new(), payload, sent: Instant::now(), came: None })
    }

    async fn take(&mut self, step: Step) -> Result<(), String> {
        let mut out = Vec::new();
        self.request(step, &mut out).map_err(|error| error.what.to_owned())?;
        self.sent = Instant::now();
        self.stream.write_all(&out).await.map_err(|error| error.to_string())?;
        self.answer(step).await
    }

    fn request(&self, step: Step, out: &mut Vec<u8>) -> Result<(), packet::EncodeError> {
        const FOR: Version = Version::V5;
        let none = Properties::EMPTY;
        match step {
            Step::Connect => {
                let mut said = PropertiesBuilder::new();
                said.put(Property::UserProperty((CATEGORY, CATEGORY_NAME)))?;
                Connect {
                    version: FOR,
                    clean_start: true,
                    keep_alive: 0,
                    client_id: CLIENT_ID,
                    will: None,
                    username: None,
                    password: None,
                    properties: said.properties(),
                }
                .encode(out)
            }
            Step::Subscribe => {
                let mut list = SubscriptionList::default();
                let options = SubscribeOptions {
                    qos: QoS::AtLeastOnce,
                    no_local: false,
                    retain_as_published: false,
                    retain_handling: RetainHandling::DoNotSend,
                };
                list.push(TOPIC, options)?;
                Subscribe::new(ID, none, &list).encode(FOR, out)
            }
            Step::Publish => Publish {
                dup: false,
                qos: QoS::AtLeastOnce,
                retain: false,
                topic: TOPIC,
                packet_id: Some(ID),
                properties: PublishProperties::default(),
                payload: &self.payload,
            }
            .encode(FOR, out),
            Step::Ping => {
                out.extend_from_slice(&[0xC0, 0]);
                Ok(())
            }
            Step::Unsubscribe => {
                let mut list = FilterList::default();
                list.push(TOPIC)?;
                Unsubscribe::new(ID, none, &list).encode(FOR, out)
            }
        }
    }

    /// Waits for what answers a step; messages may come before.
    async fn answer(&mut self, step: Step) -> Result<(), String> {
        self.until(|packet, _| match (step, packet) {
            (Step::Connect, Packet::ConnAck(ack)) => Some(ok(ack.reason)),
            (Step::Subscribe, Packet::SubAck(ack)) => {
                Some(ack.reasons().next().map_or_else(|| Err("no reason came".to_owned()), ok))
            }
            (Step::Publish, Packet::PubAck(ack)) => Some(ok(ack.reason)),
            (Step::Ping, Packet::PingResp) | (Step::Unsubscribe, Packet::UnsubAck(_)) => Some(Ok(())),
            (_, Packet::Disconnect(said)) => Some(Err(format!("the broker hangs up: {:?}", said.reason))),
            _ => None,
        })
        .await?
    }

    /// Waits for the message; how long after publishing it came.
    async fn message(&mut self) -> Result<Duration, String> {
        if self.came.is_none() {
            self.until(|_, came| came.then_some(())).await?;
        }
        self.came.ok_or_else(|| "what came back is not what was published".to_owned())
    }

    /// Reads packets until one is what is waited for; `done` is told, too, whether the message has come.
    async fn until<T>(&mut self, mut done: impl FnMut(Packet<'_>, bool) -> Option<T>) -> Result<T, String> {
        loop {
            let mut used = 0;
            let mut found = None;
            match packet::decode(&self.input, Version::V5, &Limits::client(PACKET_BYTES_MAX)) {
                Ok(Decoded::Packet(packet, length)) => {
                    if let Packet::Publish(publish) = packet
                        && publish.payload == self.payload
                    {
                        self.came = Some(self.sent.elapsed());
                    }
                    found = done(packet, self.came.is_some());
                    used = length;
                }
                Ok(Decoded::Incomplete { .. }) => {}
                Err(error) => return Err(error.what.to_owned()),
            }
            self.input.drain(..used);
            if let Some(found) = found {
                return Ok(found);
            }
            if used == 0
                && self.stream.read_buf(&mut self.input).await.map_err(|error| error.to_string())? == 0
            {
                return Err("the broker closed the connection".to_owned());
            }
        }
    }
}

fn ok(reason: ReasonCode) -> Result<(), String> {
    match reason.is_error() {
        true => Err(format!("refused, {reason:?}")),
        false => Ok(()),
    }
}
