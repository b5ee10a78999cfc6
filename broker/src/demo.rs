//! `forebay demo`: the broker with its sample graph, and a client that uses it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use broker_core::packet::{
    self, Connect, Decoded, Limits, Packet, PacketId, Properties, PublishProperties, QoS, RetainHandling,
    Subscribe, SubscribeOptions, SubscriptionList, Version,
};
use processing::state_store::Quota;
use tokio::sync::oneshot;

use crate::listener::admission;
use crate::serve::{self, ServeError};
use crate::{cli, limits};

const RAW: &str = "sensor/temperature/raw";
const PROCESSED: &str = "sensor/temperature/processed";
/// Readings with `--once`.
const READINGS: u32 = 10;
/// How long the graph may take to start, and one reading to come back.
const PATIENCE: Duration = Duration::from_secs(30);

/// Serves on a free port and runs the client beside it.
pub fn run(options: &cli::Demo) -> Result<(), ServeError> {
    let resources = resources()?;
    let once = options.once;
    let serve = cli::Serve {
        listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
        password_file: None,
        connections: admission::Limits::CONNECTIONS,
        connections_per_address: None,
        connection_rate: None,
        handshake_timeout: admission::Limits::HANDSHAKE.into(),
        connect_timeout: limits::Limits::CONNECT.into(),
        connect_bytes: limits::Limits::CONNECT_BYTES,
        data_dir: None,
        files: vec![resources],
        schemas: None,
        state_store_keys: Quota::KEYS_MAX_DEFAULT,
        state_store_bytes: Quota::BYTES_MAX_DEFAULT,
        admin: None,
        registry_poll: Duration::ZERO.into(),
        allow_anonymous: false,
    };
    serve::run_with(&serve, move |address| {
        let (done, ended) = oneshot::channel();
        std::thread::spawn(move || {
            // Without --once it goes on until Ctrl-C ends the process.
            let _ = done.send(client(address, once));
        });
        Some(ended)
    })
}

/// The sample resources: beside the sources, or beside the executable.
fn resources() -> Result<PathBuf, ServeError> {
    let sample = "config/samples/fahrenheit.yaml";
    let near =
        std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join("samples/fahrenheit.yaml")));
    let candidates = [
        Some(PathBuf::from(sample)),
        Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(sample)),
        near,
    ];
    candidates.into_iter().flatten().find(|path| path.exists()).ok_or_else(|| {
        ServeError::Start(format!(
            "the sample graph is not here: run the demo from the project's folder ({sample})"
        ))
    })
}

fn client(address: SocketAddr, once: bool) -> io::Result<()> {
    let mut client = Client::connect(address)?;
    client.subscribe(PROCESSED)?;
    println!("demo: publishing readings in Fahrenheit on {RAW}; the graph answers on {PROCESSED}");
    let mut count = 0;
    while !once || count < READINGS {
        let fahrenheit = 68.0 + f64::from(count % 12) * 3.6;
        let reading = format!("{{\"temperature\":{{\"value\":{fahrenheit:.1},\"unit\":\"F\"}}}}");
        client.publish(RAW, reading.as_bytes())?;
        let (topic, payload) = client.receive()?;
        println!("  {RAW}  {reading}");
        println!("  {topic}  {}", String::from_utf8_lossy(&payload));
        count += 1;
        if !once {
            std::thread::sleep(Duration::from_secs(1));
        }
    }
    println!("demo: {count} readings in, {count} readings out");
    Ok(())
}

/// A client over a real socket, as any other.
struct Client {
    socket: TcpStream,
    received: Vec<u8>,
}

fn bad(what: impl ToString) -> io::Error {
    io::Error::other(what.to_string())
}

impl Client {
    fn connect(address: SocketAddr) -> io::Result<Self> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut client = Self { socket, received: Vec::new() };
        client.send(&Packet::Connect(Connect {
            version: Version::V5,
            clean_start: true,
            keep_alive: 0,
            client_id: "forebay-demo",
            will: None,
            username: None,
            password: None,
            properties: Properties::EMPTY,
        }))?;
        client.next(|packet| matches!(packet, Packet::ConnAck(_)).then_some(()))?;
        Ok(client)
    }

    fn send(&mut self, packet: &Packet<'_>) -> io::Result<()> {
        let mut out = Vec::new();
        packet.encode(Version::V5, &mut out).map_err(bad)?;
        self.socket.write_all(&out)
    }

    fn subscribe(&mut self, filter: &str) -> io::Result<()> {
        let options = SubscribeOptions {
            qos: QoS::AtMostOnce,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::SendAlways,
        };
        let mut list = SubscriptionList::default();
        list.push(filter, options).map_err(bad)?;
        self.send(&Packet::Subscribe(Subscribe::new(PacketId::MIN, Properties::EMPTY, &list)))?;
        self.next(|packet| matches!(packet, Packet::SubAck(_)).then_some(()))
    }

    fn publish(&mut self, topic: &str, payload: &[u8]) -> io::Result<()> {
        self.send(&Packet::Publish(packet::Publish {
            dup: false,
            qos: QoS::AtMostOnce,
            retain: false,
            topic,
            packet_id: None,
            properties: PublishProperties::default(),
            payload,
        }))
    }

    fn receive(&mut self) -> io::Result<(String, Vec<u8>)> {
        self.next(|packet| match packet {
            Packet::Publish(publish) => Some((publish.topic.to_owned(), publish.payload.to_vec())),
            _ => None,
        })
    }

    /// Reads packets until `wanted` takes one.
    fn next<T>(&mut self, wanted: impl Fn(&Packet<'_>) -> Option<T>) -> io::Result<T> {
        let limits = Limits::client(1 << 20);
        loop {
            match packet::decode(&self.received, Version::V5, &limits).map_err(bad)? {
                Decoded::Packet(packet, len) => {
                    let found = wanted(&packet);
                    self.received.drain(..len);
                    if let Some(found) = found {
                        return Ok(found);
                    }
                }
                Decoded::Incomplete { .. } => {
                    let mut chunk = [0; 4096];
                    match self.socket.read(&mut chunk)? {
                        0 => return Err(bad("the broker closed the connection")),
                        n => self.received.extend_from_slice(&chunk[..n]),
                    }
                }
            }
        }
    }
}
