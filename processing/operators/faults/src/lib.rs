//! An operator that misbehaves as its property `fault` says. For tests of what the host does about it.

use std::sync::OnceLock;

use wasip2::sockets::instance_network::instance_network;
use wasip2::sockets::ip_name_lookup::resolve_addresses;
use wasip2::sockets::network::{IpAddressFamily, IpSocketAddress, Ipv4SocketAddress};
use wasip2::sockets::tcp_create_socket::create_tcp_socket;
use wasip2::sockets::udp_create_socket::create_udp_socket;
use wasm_graph_sdk::logger::{self, Level};
use wasm_graph_sdk::macros::map_operator;
use wasm_graph_sdk::metrics::{self, CounterValue};

static FAULT: OnceLock<(String, String)> = OnceLock::new();

fn start(configuration: ModuleConfiguration) -> bool {
    let property = |name: &str| {
        let found = configuration.properties.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    };
    let fault = property("fault");
    let answer = fault != "refuse";
    if fault == "init-trap" {
        panic!("init traps");
    }
    FAULT.set((fault, property("value"))).expect("init runs once");
    answer
}

#[map_operator(init = "start")]
fn misbehave(input: DataModel) -> Result<DataModel, Error> {
    let DataModel::Message(mut message) = input else {
        return Err(Error { message: "only messages here".to_owned() });
    };
    let (fault, value) = FAULT.get().expect("init has run");
    let payload = message.payload.read();
    // With a value, only the message that has it as its payload is treated badly.
    if !value.is_empty() && fault != "topic" && fault != "spin" && payload != value.as_bytes() {
        return Ok(DataModel::Message(message));
    }
    match fault.as_str() {
        "trap" => panic!("as asked"),
        "loop" => loop {
            std::hint::black_box(&payload);
        },
        "allocate" => allocate(),
        "error" => return Err(Error { message: "as asked".to_owned() }),
        "topic" => message.topic = BufferOrBytes::Bytes(value.clone().into_bytes()),
        "spin" if value == "payload" => spin(&String::from_utf8_lossy(&payload)),
        "spin" => spin(value),
        "sleep" => std::thread::sleep(Duration::from_secs(3600)),
        "print" => println!("{}", String::from_utf8_lossy(&payload)),
        "log" => (0..10_000).for_each(|n| logger::log(Level::Info, "faults", &format!("line {n}"))),
        "metrics" => message.payload = BufferOrBytes::Bytes(make_metrics()),
        "keep" => std::mem::forget(std::mem::replace(&mut message.payload, BufferOrBytes::Bytes(payload))),
        "look" => message.payload = BufferOrBytes::Bytes(look()),
        _ => {}
    }
    Ok(DataModel::Message(message))
}

fn allocate() {
    let mut all: Vec<Vec<u8>> = Vec::new();
    loop {
        all.push(std::hint::black_box(vec![1; 1 << 20]));
    }
}

fn spin(milliseconds: &str) {
    let until = std::time::Instant::now() + Duration::from_millis(milliseconds.parse().unwrap_or(0));
    while std::time::Instant::now() < until {}
}

fn make_metrics() -> Vec<u8> {
    let refused =
        (0..5_000).find(|n| metrics::add_to_counter(&format!("m{n}"), CounterValue::U64(1), None).is_err());
    format!("{refused:?}").into_bytes()
}

/// What of the world outside can be seen.
fn look() -> Vec<u8> {
    let environment = std::env::vars().count();
    let arguments = std::env::args().count();
    let files = std::fs::read_dir("/").is_ok() || std::fs::read("/etc/passwd").is_ok();
    let network = network();
    format!("environment {environment}, arguments {arguments}, files {files}, network {network}").into_bytes()
}

/// Whether an address can be connected to, listened on or looked up. By WASI itself: the standard library of Debian's
/// packages has no sockets.
fn network() -> bool {
    let network = instance_network();
    let address = |port| IpSocketAddress::Ipv4(Ipv4SocketAddress { port, address: (127, 0, 0, 1) });
    let connects = create_tcp_socket(IpAddressFamily::Ipv4)
        .is_ok_and(|socket| socket.start_connect(&network, address(1)).is_ok());
    let listens = create_tcp_socket(IpAddressFamily::Ipv4)
        .is_ok_and(|socket| socket.start_bind(&network, address(0)).is_ok());
    let receives = create_udp_socket(IpAddressFamily::Ipv4)
        .is_ok_and(|socket| socket.start_bind(&network, address(0)).is_ok());
    connects || listens || receives || resolve_addresses(&network, "localhost").is_ok()
}
