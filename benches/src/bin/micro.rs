//! Micro-benchmarks: the codec, routing, and one operator call, each alone and in nanoseconds.
//!
//! For changes to one of them; what a whole message costs is `compare`'s to say.

use std::hint::black_box;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use broker_core::packet::publish::{Delivery, Forward};
use broker_core::packet::{self, Decoded, PacketId, QoS, Version};
use broker_core::router::{Options as Subscription, Router};
use bytes::Bytes;
use clap::Parser;
use forebay_benches::{Result, wire};
use processing::host::{Host, Identity, Options as HostOptions};
use processing::instance::{Configuration, Instance};
use processing::limits::Limits;
use processing::module::Modules;
use processing_core::graph::Kind;
use processing_core::item::{Data, Message};
use processing_core::operator::Operator;
use processing_core::time::Hlc;

/// Nanoseconds of the codec, of routing, and of one operator call.
///
/// cargo run --profile dist -p forebay-benches --bin micro
#[derive(Parser)]
#[command(verbatim_doc_comment)]
struct Options {
    /// Only benchmarks whose name holds this.
    #[arg(default_value = "")]
    only: String,
    /// Where `temperature.wasm` lies; made by processing/operators/build.
    #[arg(long, default_value = "processing/operators/target/components")]
    components: PathBuf,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let bench = Bench { only: options.only.clone() };
    println!("{:<58} {:>10} {:>10}", "", "median", "minimum");
    match codec(&bench).and_then(|()| routing(&bench)).and_then(|()| operator(&bench, &options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("micro: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Bench {
    only: String,
}

impl Bench {
    /// Measures `work`: many batches of about two milliseconds, so that an interruption spoils one of them only.
    fn run(&self, name: &str, mut work: impl FnMut()) {
        const BATCHES: usize = 150;
        if !name.contains(&self.only) {
            return;
        }
        let mut calls = 1u32;
        while time(calls, &mut work) < Duration::from_millis(2) {
            calls = calls.saturating_mul(2);
        }
        let mut nanos: Vec<f64> =
            (0..BATCHES).map(|_| time(calls, &mut work).as_secs_f64() * 1e9 / f64::from(calls)).collect();
        nanos.sort_by(f64::total_cmp);
        println!("{name:<58} {:>7.1} ns {:>7.1} ns", nanos[BATCHES / 2], nanos[0]);
    }
}

fn time(calls: u32, work: &mut impl FnMut()) -> Duration {
    let begin = Instant::now();
    for _ in 0..calls {
        work();
    }
    begin.elapsed()
}

const TOPIC: &str = "sensor/temperature/raw";
const READING: &[u8] = br#"{"temperature":{"value":100.0,"unit":"F","sensor":"oven-7-top"}}"#;

/// Properties of a PUBLISH with content type, response topic, correlation data and two user properties.
fn properties() -> Vec<u8> {
    let text = |text: &str| [&(text.len() as u16).to_be_bytes(), text.as_bytes()].concat();
    let parts = [
        vec![0x03],
        text("application/json"),
        vec![0x08],
        text("sensor/answers"),
        vec![0x09],
        text("reading-1"),
        vec![0x26],
        text("line"),
        text("7"),
        vec![0x26],
        text("__ts"),
        text("001758255553528:00000:oven"),
    ];
    parts.concat()
}

/// A PUBLISH with those properties, as bytes.
fn publish_with_properties(qos: QoS) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let properties = properties();
    let forward =
        Forward { topic: TOPIC.as_bytes(), properties: &properties, expiry_offset: None, payload: READING };
    let delivery =
        Delivery { qos, packet_id: (qos > QoS::AtMostOnce).then_some(PacketId::MIN), ..Delivery::default() };
    forward.encode(Version::V5, &delivery, &mut out).map_err(|error| format!("{error:?}"))?;
    Ok(out)
}

fn codec(bench: &Bench) -> Result<()> {
    let limits = packet::Limits::server(1 << 20);
    let plain = wire::publish(wire::Version::V5, TOPIC, 0, READING).bytes;
    let plain_v4 = wire::publish(wire::Version::V4, TOPIC, 0, READING).bytes;
    let rich = publish_with_properties(QoS::AtLeastOnce)?;
    let puback = wire::ack(wire::PUBACK, [0, 9]);
    let decode = |bytes: &[u8], version: Version| {
        let decoded = packet::decode(black_box(bytes), version, &limits);
        assert!(matches!(black_box(&decoded), Ok(Decoded::Packet(..))));
    };
    decode(&rich, Version::V5);
    bench.run("codec: decode PUBLISH, 3.1.1, QoS 0, 64 bytes", || decode(&plain_v4, Version::V311));
    bench.run("codec: decode PUBLISH, 5, QoS 0, 64 bytes", || decode(&plain, Version::V5));
    bench.run("codec: decode PUBLISH, 5, QoS 1, five properties", || decode(&rich, Version::V5));
    bench.run("codec: decode PUBACK", || decode(&puback, Version::V5));

    let properties = properties();
    let mut out = Vec::with_capacity(1 << 16);
    let mut forward = |properties: &[u8], qos: QoS| {
        let forward = Forward { topic: TOPIC.as_bytes(), properties, expiry_offset: None, payload: READING };
        let packet_id = (qos > QoS::AtMostOnce).then_some(PacketId::MIN);
        let delivery = Delivery { qos, packet_id, ..Delivery::default() };
        if out.len() > 60_000 {
            out.clear();
        }
        assert!(black_box(&forward).encode(Version::V5, &delivery, &mut out).is_ok());
    };
    bench.run("codec: encode a forwarded PUBLISH, 5, QoS 0, 64 bytes", || forward(&[], QoS::AtMostOnce));
    bench.run("codec: encode it with five properties, QoS 1", || forward(&properties, QoS::AtLeastOnce));
    Ok(())
}

fn routing(bench: &Bench) -> Result<()> {
    let subscription = Subscription {
        qos: QoS::AtMostOnce,
        no_local: false,
        retain_as_published: false,
        identifier: None,
        order: None,
        persisted: false,
    };
    let one = {
        let mut router = Router::default();
        router.subscribe(TOPIC, None, 1, (), subscription);
        router
    };
    let mut crowded = Router::default();
    for n in 0..100_000u64 {
        crowded.subscribe(&format!("site/{}/+/device-{n}/#", n % 1000), None, n, (), subscription);
    }
    crowded.subscribe("sensor/+/raw", None, 100_000, (), subscription);
    let matches = |router: &Router<()>, topic: &str| {
        let mut count = 0u32;
        router.matches(black_box(topic), &mut |found| {
            black_box(found.id);
            count += 1;
        });
        assert_eq!(count, 1);
    };
    bench.run("routing: trie with 1 subscription", || matches(&one, TOPIC));
    bench.run("routing: trie with 100,001, wildcards, one matches", || matches(&crowded, TOPIC));
    bench
        .run("routing: the same, five levels down", || matches(&crowded, "site/7/hall/device-7/temperature"));
    Ok(())
}

fn operator(bench: &Bench, options: &Options) -> Result<()> {
    let modules = Modules::new(Host::new(HostOptions::default())?, None);
    let start = |name: &str, kind: Kind| -> Result<Instance> {
        let path = options.components.join(format!("{name}.wasm"));
        let bytes = std::fs::read(&path)
            .map_err(|error| format!("{}: {error}; run processing/operators/build first", path.display()))?;
        let module = modules.load(&bytes)?;
        let identity = Identity { graph: "bench".into(), operation: name.into() };
        let (limits, configuration) = (Arc::new(Limits::default()), Configuration::default());
        Ok(Instance::start(modules.host(), &module, kind, identity, limits, configuration)?)
    };
    echo(bench, start("faults", Kind::Map)?);
    let temperature = |kind| start("temperature", kind);
    let (mut map, mut filter, mut branch) =
        (temperature(Kind::Map)?, temperature(Kind::Filter)?, temperature(Kind::Branch)?);

    let fahrenheit = message(READING, &[]);
    let celsius = message(br#"{"temperature":{"value":37.5,"unit":"C","sensor":"oven-7-top"}}"#, &[]);
    let with_properties = message(READING, &[("line", "7"), ("__ts", "001758255553528:00000:oven")]);
    let time = Hlc::from_millis(1_758_255_553_528, "oven".into());
    for (name, data) in [
        ("operator: temperature/map, Fahrenheit, 64 bytes", &fahrenheit),
        ("operator: temperature/map, with two user properties", &with_properties),
        ("operator: temperature/map, Celsius (passed unchanged)", &celsius),
    ] {
        let converted = map.map(data.clone()).map_err(|error| format!("{name}: {error}"))?;
        black_box(converted);
        bench.run(name, || assert!(black_box(map.map(black_box(data).clone())).is_ok()));
    }
    bench.run("operator: temperature/filter", || assert_eq!(filter.filter(black_box(&celsius)), Ok(true)));
    bench.run("operator: temperature/branch", || {
        assert_eq!(branch.branch(&time, black_box(&celsius)), Ok(true))
    });
    Ok(())
}

/// A map that reads its payload and gives it back: what the call itself costs.
fn echo(bench: &Bench, mut map: Instance) {
    let two = [("line", "7"), ("machine", "press-4")];
    let kibi64 = Box::leak(vec![b'x'; 64 << 10].into_boxed_slice());
    for (name, data) in [
        ("operator: an empty map, 64 bytes read", message(READING, &[])),
        ("operator: an empty map, 64 bytes read, two user properties", message(READING, &two)),
        ("operator: an empty map, 64 KiB read", message(kibi64, &[])),
    ] {
        bench.run(name, || assert!(black_box(map.map(black_box(&data).clone())).is_ok()));
    }
}

fn message(payload: &'static [u8], properties: &[(&'static str, &'static str)]) -> Data {
    let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
    Data::Message(Message {
        timestamp: Hlc::from_millis(1_758_255_553_528, "oven".into()),
        topic: bytes(TOPIC),
        content_type: Some(bytes("application/json")),
        payload: Bytes::from_static(payload),
        user_properties: properties.iter().map(|(key, value)| (bytes(key), bytes(value))).collect(),
        schema: None,
    })
}
