//! What is measured: each scenario says which clients do what, and which brokers can take part.

use std::time::Duration;

use crate::Result;
use crate::disk;
use crate::idle::{self, Crowd};
use crate::latency::{self, Latency, Ping};
use crate::load::{self, Plan};
use crate::peer::{Bench, Broker, Kind, Storage};
use crate::report::{Metric, Sample};
use crate::wire::Version;

/// Topic that the sample graph and the external converter read.
pub const RAW: &str = "sensor/temperature/raw";
/// Topic that they write.
pub const PROCESSED: &str = "sensor/temperature/processed";
/// 64 bytes, the size of every payload here.
const READING: &[u8] = br#"{"temperature":{"value":100.0,"unit":"F","sensor":"oven-7-top"}}"#;

/// One line of the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// One publisher, one subscriber, QoS 0.
    OneToOne,
    /// The same with a broker that has no place to persist anything.
    OneToOneUnstored,
    /// Ten publishers, one subscriber, QoS 1.
    FanInQos1,
    /// Ten publishers, one subscriber, QoS 2.
    FanInQos2,
    /// One publisher, a hundred subscribers, QoS 0; deliveries are counted.
    FanOut,
    /// One publisher, one subscriber whose messages are on disk before they are acknowledged, QoS 1, one at a time.
    Persisted,
    /// The same with eight publishers.
    Persisted8,
    /// The same with 64 publishers.
    Persisted64,
    /// The same with 64 publishers, and nothing on disk: what the round trips alone cost.
    Unpersisted64,
    /// Ten publishers, QoS 0, one subscription with a wildcard.
    Wildcards1,
    /// The same beside 999 other subscriptions with wildcards, below the same levels.
    Wildcards1000,
    /// The same beside 99,999.
    Wildcards100000,
    /// The last one with a graph on other topics.
    Wildcards100000Graph,
    /// One message at a time, QoS 0.
    Ping,
    /// A thousand messages a second, QoS 0, each measured from when it was due.
    Pace1000,
    /// Ten thousand.
    Pace10000,
    /// Fifty thousand.
    Pace50000,
    /// Fahrenheit in, Celsius out: forebay's graph beside an external converter on the broker's core.
    Transform,
    /// The transform's messages through the same processes, on a topic that nobody converts.
    TransformPlain,
    /// One message at a time through the transform.
    PingTransform,
    /// Resident memory of an idle connection.
    Idle,
    /// Resident memory of an idle connection with one subscription.
    IdleSubscribed,
}

/// Everything but the broker that a run depends on.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// MQTT version of all clients.
    pub version: Version,
    /// Time before counting starts.
    pub warm_up: Duration,
    /// Time that is counted.
    pub measured: Duration,
    /// Clients of the idle scenarios.
    pub connections: usize,
}

impl Scenario {
    /// Whether the broker is started with the converter.
    pub fn transforms(self) -> bool {
        matches!(
            self,
            Self::Transform | Self::TransformPlain | Self::PingTransform | Self::Wildcards100000Graph
        )
    }

    /// Subscriptions with wildcards that there are, in scenarios about them.
    fn wildcards(self) -> Option<usize> {
        match self {
            Self::Wildcards1 => Some(1),
            Self::Wildcards1000 => Some(1000),
            Self::Wildcards100000 | Self::Wildcards100000Graph => Some(100_000),
            _ => None,
        }
    }

    /// Publishers of a scenario whose messages are on disk before they are acknowledged.
    pub fn persisted(self) -> Option<usize> {
        match self {
            Self::Persisted => Some(1),
            Self::Persisted8 => Some(8),
            Self::Persisted64 => Some(64),
            _ => None,
        }
    }

    /// What the broker may write down.
    fn storage(self) -> Storage {
        match self {
            Self::OneToOneUnstored => Storage::None,
            _ if self.persisted().is_some() => Storage::Used,
            _ => Storage::Offered,
        }
    }

    /// Messages a second of a scenario at a fixed rate.
    fn pace(self) -> Option<u32> {
        match self {
            Self::Pace1000 => Some(1_000),
            Self::Pace10000 => Some(10_000),
            Self::Pace50000 => Some(50_000),
            _ => None,
        }
    }

    /// What the table calls it.
    pub fn title(self) -> &'static str {
        match self {
            Self::OneToOne => "1 → 1, QoS 0",
            Self::OneToOneUnstored => "1 → 1, QoS 0, no data directory",
            Self::FanInQos1 => "10 → 1, QoS 1",
            Self::FanInQos2 => "10 → 1, QoS 2",
            Self::FanOut => "1 → 100, QoS 0 (deliveries)",
            Self::Persisted => "1 → 1, QoS 1, persisted, one at a time",
            Self::Persisted8 => "8 → 1, QoS 1, persisted, one at a time each",
            Self::Persisted64 => "64 → 1, QoS 1, persisted, one at a time each",
            Self::Unpersisted64 => "64 → 1, QoS 1, not persisted, one at a time each",
            Self::Wildcards1 => "10 → 1, QoS 0, 1 wildcard subscription",
            Self::Wildcards1000 => "10 → 1, QoS 0, 1,000 wildcard subscriptions",
            Self::Wildcards100000 => "10 → 1, QoS 0, 100,000 wildcard subscriptions",
            Self::Wildcards100000Graph => "the same, and a graph on other topics",
            Self::Ping => "ping latency, QoS 0",
            Self::Pace1000 => "latency at 1,000/s, QoS 0",
            Self::Pace10000 => "latency at 10,000/s, QoS 0",
            Self::Pace50000 => "latency at 50,000/s, QoS 0",
            Self::Transform => "Fahrenheit → Celsius",
            Self::TransformPlain => "the same messages, not converted",
            Self::PingTransform => "ping latency through the transform",
            Self::Idle => "idle connection",
            Self::IdleSubscribed => "idle connection with a subscription",
        }
    }

    /// Starts `kind`, runs this scenario once, and stops it.
    pub fn run(self, bench: &Bench, kind: Kind, settings: &Settings) -> Result<Sample> {
        let broker = bench.start(kind, settings.version, self.transforms(), self.storage())?;
        let sample = self.measure(&broker, settings);
        sample.map_err(|error| format!("{error}\n{}", broker.log()).into())
    }

    fn measure(self, broker: &Broker, settings: &Settings) -> Result<Sample> {
        if matches!(self, Self::Transform | Self::PingTransform) {
            check_transform(broker, settings.version)?;
        }
        match self {
            Self::Ping => ping(broker, settings, "bench/ping", "bench/ping"),
            Self::PingTransform => ping(broker, settings, RAW, PROCESSED),
            _ if self.pace().is_some() => {
                let ping = probe_of(settings, "bench/pace", "bench/pace");
                Ok(latency_of(&latency::paced(broker.addr, &ping, self.pace().unwrap_or_default())?))
            }
            Self::Idle | Self::IdleSubscribed => {
                let crowd = Crowd {
                    version: settings.version,
                    clients: settings.connections,
                    subscribe: self == Self::IdleSubscribed,
                };
                let bytes = idle::run(broker.addr, &crowd, || broker.resident())?;
                Ok(Sample::from([(Metric::BytesPerConnection, bytes)]))
            }
            _ => {
                let others = self.wildcards().map_or(0, |all| all - 1);
                let _others = load::bystanders(broker.addr, settings.version, "bench/load/+/other", others)?;
                let mut sample = throughput(broker, &self.plan(settings))?;
                if let Some(group) = self.persisted() {
                    // By the same disk, in the same minute.
                    let disk = disk::group_commit_rate(broker.directory(), group, settings.measured)?;
                    sample.insert(Metric::DiskRate, disk);
                }
                Ok(sample)
            }
        }
    }

    fn plan(self, settings: &Settings) -> Plan {
        let (publishers, subscribers, qos, window) = match self {
            Self::FanInQos1 => (10, 1, 1, 2000),
            Self::FanInQos2 => (10, 1, 2, 2000),
            Self::FanOut => (1, 100, 0, 400),
            _ if self.wildcards().is_some() => (10, 1, 0, 8000),
            Self::Persisted => (1, 1, 1, 1),
            Self::Persisted8 => (8, 1, 1, 8),
            Self::Persisted64 | Self::Unpersisted64 => (64, 1, 1, 64),
            _ => (1, 1, 0, 8000),
        };
        let (topics, filter) = match self {
            Self::Transform => (vec![RAW.to_owned()], PROCESSED.to_owned()),
            _ if publishers == 1 => (vec!["bench/load/0".to_owned()], "bench/load/0".to_owned()),
            _ => ((0..publishers).map(|n| format!("bench/load/{n}")).collect(), "bench/load/+".to_owned()),
        };
        Plan {
            version: settings.version,
            topics,
            filter,
            subscribers,
            qos,
            payload: READING.to_vec(),
            // A conversion may order the inner fields anew; it ends the object all the same.
            ending: if self == Self::Transform { b"}}".to_vec() } else { READING.to_vec() },
            persisted: self.persisted().is_some(),
            window,
            warm_up: settings.warm_up,
            measured: settings.measured,
        }
    }
}

fn throughput(broker: &Broker, plan: &Plan) -> Result<Sample> {
    let run = load::run(broker.addr, plan, || broker.cpu())?;
    if run.received == 0 {
        return Err("no message came in the measured time".into());
    }
    Ok(Sample::from([
        (Metric::Rate, run.received as f64 / run.seconds),
        (Metric::CpuPerMillion, run.cpu_seconds / (run.received as f64 / 1e6)),
        (Metric::BrokerBusy, run.cpu_seconds / run.seconds),
        (Metric::LoadBusy, run.load_busy),
        (Metric::Lost, run.lost as f64),
    ]))
}

fn ping(broker: &Broker, settings: &Settings, topic: &str, filter: &str) -> Result<Sample> {
    Ok(latency_of(&latency::run(broker.addr, &probe_of(settings, topic, filter))?))
}

fn probe_of(settings: &Settings, topic: &str, filter: &str) -> Ping {
    Ping {
        version: settings.version,
        topic: topic.to_owned(),
        filter: filter.to_owned(),
        payload: READING.to_vec(),
        warm_up: settings.warm_up,
        measured: settings.measured,
    }
}

fn latency_of(latency: &Latency) -> Sample {
    Sample::from([(Metric::P50, latency.p50), (Metric::P99, latency.p99), (Metric::P999, latency.p999)])
}

/// A fast path that converts nothing would win every table: the answer is looked at before it is timed.
fn check_transform(broker: &Broker, version: Version) -> Result<()> {
    let payload = latency::probe(broker.addr, version, RAW, PROCESSED, READING)?;
    let text = String::from_utf8_lossy(&payload);
    let value: serde_json::Value = serde_json::from_str(&text)?;
    let reading = &value["temperature"];
    if reading["value"].as_f64() != Some(37.77777777777778) || reading["unit"] != "C" {
        return Err(format!("100 °F came back as {text}").into());
    }
    Ok(())
}
