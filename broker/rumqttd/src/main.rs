//! An example of a broker with the plugin: rumqttd with the graphs of a directory.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use plugin::{Plugin, Protocol};
use rumqttd::{Broker, Config, ConnectionSettings, RouterConfig, ServerSettings};
use tracing_subscriber::EnvFilter;

/// rumqttd with the graphs of forebay inside.
///
/// Reads the resources that `forebay serve` reads, and runs their graphs between topics of this broker. It keeps nothing on disk but
/// what --cache names, and asks nobody who he is: it is an example, and listens on loopback unless told otherwise.
#[derive(Parser)]
#[command(version)]
struct Options {
    /// Resources to run: a YAML file, or a directory of them; may be given several times.
    #[arg(short = 'f', long = "file", value_name = "FILE|DIR", required = true)]
    files: Vec<PathBuf>,
    /// Listen here.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:1883")]
    listen: SocketAddr,
    /// The version of MQTT that clients speak: rumqttd cannot have both in one broker without a danger to the older ones.
    #[arg(long, value_enum, default_value = "5")]
    mqtt: Version,
    /// Keep fetched artifacts and compiled components here.
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Version {
    /// MQTT 5.
    #[value(name = "5")]
    V5,
    /// MQTT 3.1.1: no properties, so nothing of `__ts` or dead letters' causes.
    #[value(name = "3.1.1")]
    V4,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let filter = EnvFilter::try_from_env("FOREBAY_LOG")
        .unwrap_or_else(|_| EnvFilter::new("warn,plugin=info,processing=info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).init();
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("forebay-rumqttd: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Result<(), String> {
    let loaded = config::load(&options.files);
    loaded.findings.iter().for_each(|finding| eprintln!("{finding}"));
    // rumqttd's own thread for a port panics when it cannot bind it.
    let addr = options.listen;
    drop(std::net::TcpListener::bind(addr).map_err(|error| format!("cannot listen on {addr}: {error}"))?);
    let (protocol, name, flag) = match options.mqtt {
        Version::V5 => (Protocol::V5, "MQTT 5", "-V 5 "),
        Version::V4 => (Protocol::V4, "MQTT 3.1.1", ""),
    };
    let plugin = Plugin::new(protocol, options.cache)?;
    let mut broker = Broker::new(config_of(addr, protocol));
    for started in plugin.start(&broker, &loaded) {
        match started {
            Ok(it) => {
                println!("graph {}: running, {} → {}", it.graph, it.from.join(", "), it.to.join(", "));
                it.limitations.iter().for_each(|limitation| eprintln!("graph {}: {limitation}", it.graph));
            }
            Err(fault) => eprintln!("{fault}"),
        }
    }
    println!("forebay-rumqttd {}: {name} on {addr}", env!("CARGO_PKG_VERSION"));
    println!("try: mosquitto_sub {flag}-p {} -t '#' -v", addr.port());
    broker.start().map_err(|error| error.to_string())
}

fn config_of(listen: SocketAddr, protocol: Protocol) -> Config {
    let connections = ConnectionSettings {
        connection_timeout_ms: 60_000,
        max_payload_size: 1 << 20,
        max_inflight_count: 100,
        auth: None,
        external_auth: None,
        dynamic_filters: true,
    };
    let name = "clients".to_owned();
    let server =
        ServerSettings { name: name.clone(), listen, tls: None, next_connection_delay_ms: 0, connections };
    let servers = Some(HashMap::from([(name, server)]));
    let (v5, v4) = match protocol {
        Protocol::V5 => (servers, None),
        Protocol::V4 => (None, servers),
    };
    let router = RouterConfig {
        max_connections: 10_000,
        max_outgoing_packet_count: 200,
        max_segment_size: 100 << 20,
        max_segment_count: 10,
        ..RouterConfig::default()
    };
    Config { router, v5, v4, ..Config::default() }
}
