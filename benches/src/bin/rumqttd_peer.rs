//! rumqttd as a process of its own: its listener on the given address, its own defaults where it names any.

use std::collections::HashMap;
use std::process::ExitCode;

use clap::Parser;
use forebay_benches::wire::Version;
use rumqttd::{Broker, Config, ConnectionSettings, RouterConfig, ServerSettings};

/// Serves MQTT with rumqttd.
#[derive(Parser)]
struct Options {
    /// Where to listen.
    addr: std::net::SocketAddr,
    /// MQTT version that this listener speaks; rumqttd cannot speak both on one.
    #[arg(value_enum)]
    version: Version,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let server = ServerSettings {
        name: "peer".to_owned(),
        listen: options.addr,
        tls: None,
        next_connection_delay_ms: 0,
        connections: ConnectionSettings {
            connection_timeout_ms: 60_000,
            max_payload_size: 20_480,
            max_inflight_count: 100,
            auth: None,
            external_auth: None,
            dynamic_filters: true,
        },
    };
    let servers = Some(HashMap::from([("peer".to_owned(), server)]));
    let (v4, v5) = match options.version {
        Version::V4 => (servers, None),
        Version::V5 => (None, servers),
    };
    // The figures of rumqttd's own sample configuration.
    let router = RouterConfig {
        max_connections: 10_200,
        max_outgoing_packet_count: 200,
        max_segment_size: 104_857_600,
        max_segment_count: 10,
        ..RouterConfig::default()
    };
    let config = Config { router, v4, v5, ..Config::default() };
    match Broker::new(config).start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rumqttd-peer: {error}");
            ExitCode::FAILURE
        }
    }
}
