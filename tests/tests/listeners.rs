//! Ports of BrokerListener resources: several at once, TLS, WebSocket, limits, and what comes instead of a handshake.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use forebay_tests::forebay::Serve;
use forebay_tests::mosquitto::{self, Subscriber, VERSIONS};
use forebay_tests::mqtt::{self, Client, Connect};
use forebay_tests::pki::{Authority, config_map};
use forebay_tests::resources::{Resources, broker_authentication, broker_listener};
use forebay_tests::{process, wait};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

fn plain(addr: SocketAddr) -> String {
    format!("port: {}\nprotocol: Mqtt", addr.port())
}

fn tls(addr: SocketAddr, secret: &str) -> String {
    format!("port: {}\ntls:\n  mode: Manual\n  manual:\n    secretRef: {secret}", addr.port())
}

fn web(addr: SocketAddr) -> String {
    format!("port: {}\nprotocol: WebSockets", addr.port())
}

/// A resource directory with a listener and a certificate `server`; the authority that clients trust lies in `ca.crt`.
fn resources(ports: &[String]) -> (Resources, String) {
    let authority = Authority::new("Test authority");
    let resources = Resources::default()
        .with("listener.yaml", &broker_listener(ports))
        .with("server.yaml", &authority.server().secret("server"))
        .with("ca.crt", &authority.certificate);
    let ca = resources.file("ca.crt").display().to_string();
    (resources, ca)
}

#[test]
fn several_ports_at_once_share_one_broker() {
    let (one, two, three) = (wait::free_addr(), wait::free_addr(), wait::free_addr());
    let (resources, ca) = resources(&[plain(one), tls(two, "server"), web(three)]);
    let mut forebay = Serve::new().resources(&resources).start();
    for (protocol, addr) in [("mqtt ", forebay.addr), ("mqtt ", one), ("mqtts", two), ("ws   ", three)] {
        forebay.process.says(&format!("{protocol}  {addr}"));
    }
    let mut raw = Client::connect(forebay.addr, &Connect::v5("raw"));
    raw.subscribe("t/#", 1);
    for version in VERSIONS {
        let mut subscriber = Subscriber::start(two, version, "t/#", 1, &["--cafile", &ca]);
        mosquitto::publish(one, version, "t/plain", "by TCP", 1, &[]);
        mosquitto::publish(two, version, "t/tls", "by TLS", 1, &["--cafile", &ca]);
        assert_eq!((subscriber.receive().payload, raw.receive().text()), ("by TCP".into(), "by TCP".into()));
        assert_eq!((subscriber.receive().payload, raw.receive().text()), ("by TLS".into(), "by TLS".into()));
    }
}

#[test]
fn a_client_that_does_not_trust_the_authority_stays_away() {
    let addr = wait::free_addr();
    let (resources, _) = resources(&[tls(addr, "server")]);
    let other = Authority::new("Somebody else");
    let resources = resources.with("other.crt", &other.certificate);
    let forebay = Serve::new().resources(&resources).start();
    let mut command = Command::new("mosquitto_pub");
    command.args(["-h", "127.0.0.1", "-p", &addr.port().to_string(), "-t", "t", "-m", "m", "--cafile"]);
    let (status, _) = process::run({
        command.arg(resources.file("other.crt"));
        command
    });
    assert!(!status.success());
    forebay.wait_metric("forebay_handshakes_failed", &["layer=\"tls\""], 1.0);
}

/// A TLS client of the test's own.
fn tls_client(addr: SocketAddr, ca: &str) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).expect("a certificate")).expect("an authority");
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from("localhost").expect("a name");
    let connection = ClientConnection::new(Arc::new(config), name).expect("a connection");
    let socket = TcpStream::connect(addr).expect("the broker accepts");
    socket.set_read_timeout(Some(wait::PATIENCE)).expect("a socket option");
    StreamOwned::new(connection, socket)
}

#[test]
fn large_messages_and_many_small_ones_pass_through_tls_unharmed() {
    let addr = wait::free_addr();
    let (resources, ca) = resources(&[tls(addr, "server")]);
    let forebay = Serve::new().resources(&resources).start();
    let mut subscriber = tls_client(addr, &ca);
    subscriber.write_all(&Connect::v5("tls").bytes()).unwrap();
    subscriber.write_all(&mqtt::packet(0x82, &[&[0, 1, 0][..], &mqtt::text("t/#"), &[0]].concat())).unwrap();
    let mut head = [0; 1];
    subscriber.read_exact(&mut head).unwrap();
    assert_eq!(head[0] >> 4, mqtt::CONNACK);
    let mut publisher = Client::connect(forebay.addr, &Connect::v4("plain"));
    let large: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    forebay.wait_metric("aio_broker_total_subscriptions", &[], 2.0);
    publisher.publish("t/large", 1, &large);
    for n in 0..2000u32 {
        publisher.publish("t/small", 0, &n.to_be_bytes());
    }
    publisher.publish("t/end", 1, b"");
    let mut bytes = Vec::new();
    let mut some = vec![0; 65_536];
    while !bytes.ends_with(b"t/end\x00") {
        let n = subscriber.read(&mut some).expect("messages come");
        assert!(n > 0, "the broker ended the connection");
        bytes.extend_from_slice(&some[..n]);
    }
    let at =
        bytes.windows(large.len()).position(|window| window == large).expect("the large message is whole");
    let rest = &bytes[at + large.len()..];
    for n in 0..2000u32 {
        let small = [&[0x30, 2 + 7 + 1 + 4, 0, 7][..], b"t/small", &[0], &n.to_be_bytes()].concat();
        assert_eq!(&rest[n as usize * small.len()..][..small.len()], small, "message {n}");
    }
}

#[test]
fn a_slow_reader_of_tls_gets_everything_in_the_end() {
    let addr = wait::free_addr();
    let (resources, ca) = resources(&[tls(addr, "server")]);
    let forebay = Serve::new().resources(&resources).start();
    let mut subscriber = tls_client(addr, &ca);
    subscriber.write_all(&Connect::v4("slow").bytes()).unwrap();
    subscriber.write_all(&mqtt::packet(0x82, &[&[0, 1][..], &mqtt::text("t"), &[1]].concat())).unwrap();
    let mut answers = [0; 9];
    subscriber.read_exact(&mut answers).unwrap();
    // Far more than the sockets hold: the broker has to keep what is encrypted until there is room.
    let mut publisher = Client::connect(forebay.addr, &Connect::v4("fast"));
    for n in 0..200u8 {
        publisher.publish("t", 1, &vec![n; 100_000]);
    }
    let mut seen = 0;
    while seen < 200 {
        let mut head = [0; 4 + 2 + 1 + 2];
        subscriber.read_exact(&mut head).unwrap();
        assert_eq!((head[0] & 0xF6, head[6]), (0x32, b't'), "{head:02x?}");
        let mut payload = vec![0; 100_000];
        subscriber.read_exact(&mut payload).unwrap();
        assert!(payload.iter().all(|byte| *byte == seen), "message {seen}");
        let ack = [0x40, 2, head[7], head[8]];
        subscriber.write_all(&ack).unwrap();
        seen += 1;
    }
}

#[test]
fn what_is_no_handshake_ends_and_holds_nobody_up() {
    let (secure, websocket, secure_web) = (wait::free_addr(), wait::free_addr(), wait::free_addr());
    let wss = format!("{}\ntls:\n  mode: Manual\n  manual:\n    secretRef: server", web(secure_web));
    let (resources, ca) = resources(&[tls(secure, "server"), web(websocket), wss]);
    let forebay = Serve::new().resources(&resources).options(&["--handshake-timeout", "3s"]).start();
    // Said nothing, or half of something: they wait, and nobody with them.
    let mut stalled = Vec::new();
    for addr in [secure, websocket, secure_web] {
        for bytes in [&b""[..], b"\x16\x03\x01\x02\x00\x01", b"GET / HT"] {
            let mut socket = TcpStream::connect(addr).expect("accepted");
            socket.write_all(bytes).unwrap();
            stalled.push(socket);
        }
    }
    mosquitto::publish(secure, "mqttv5", "t", "m", 1, &["--cafile", &ca]);
    // Garbage is told so at once.
    let connect = Connect::v5("lost").bytes();
    for addr in [secure, websocket, secure_web] {
        for bytes in [&connect[..], &[0; 100], b"POST / HTTP/1.1\r\nHost: x\r\n\r\n"] {
            let mut socket = TcpStream::connect(addr).expect("accepted");
            socket.set_read_timeout(Some(wait::PATIENCE)).unwrap();
            socket.write_all(bytes).unwrap();
            let mut said = Vec::new();
            // A reset is an end, too.
            let _ = socket.read_to_end(&mut said);
            if addr == websocket {
                assert!(said.starts_with(b"HTTP/1.1 40"), "{}", String::from_utf8_lossy(&said));
            }
        }
    }
    for mut socket in stalled {
        socket.set_read_timeout(Some(wait::PATIENCE)).unwrap();
        let mut said = Vec::new();
        let _ = socket.read_to_end(&mut said);
    }
    forebay.wait_metric("forebay_handshakes_failed", &["reason=\"timeout\""], 3.0);
    forebay.wait_metric("forebay_handshakes_failed", &["layer=\"websocket\"", "reason=\"refused\""], 3.0);
    forebay.wait_metric("forebay_connections_open", &[], 0.0);
    mosquitto::publish(secure, "mqttv311", "t", "m", 1, &["--cafile", &ca]);
}

#[test]
fn limits_are_kept() {
    let forebay = Serve::new()
        .options(&["--connections-per-address", "3", "--connect-timeout", "1s", "--connect-bytes", "1000"])
        .start();
    let held: Vec<_> =
        (0..3).map(|n| Client::connect(forebay.addr, &Connect::v5(&format!("c{n}")))).collect();
    assert_eq!(Client::open(forebay.addr, 5).closed(), []);
    forebay.wait_metric("forebay_connections_refused", &["limit=\"connections-per-address\""], 1.0);
    drop(held);
    wait::until("there is room again", || {
        let open = forebay.metric("forebay_connections_open", &[]);
        if open == 0.0 { Ok(()) } else { Err(format!("{open} connections")) }
    });
    // Too slow, and too much.
    assert_eq!(Client::open(forebay.addr, 5).closed(), []);
    forebay.wait_metric("forebay_packets_refused", &["reason=\"connect-timeout\""], 1.0);
    let mut long = Client::open(forebay.addr, 5);
    long.send_to_the_unwilling(&Connect::v5(&"x".repeat(2000)).bytes());
    long.closed();
    Client::connect(forebay.addr, &Connect::v5(&"x".repeat(500))).disconnect();
}

#[test]
fn connections_in_all_and_their_rate_are_limited() {
    let forebay = Serve::new().options(&["--connections", "2"]).start();
    let _held: Vec<_> =
        (0..2).map(|n| Client::connect(forebay.addr, &Connect::v5(&format!("c{n}")))).collect();
    assert_eq!(Client::open(forebay.addr, 5).closed(), []);
    forebay.wait_metric("forebay_connections_refused", &["limit=\"connections\""], 1.0);

    let forebay = Serve::new().options(&["--connection-rate", "1"]).start();
    for n in 0..10 {
        Client::connect(forebay.addr, &Connect::v5(&format!("c{n}"))).disconnect();
    }
    wait::until("one comes too fast", || {
        let mut client = Client::open(forebay.addr, 5);
        client.send_to_the_unwilling(&Connect::v5("more").bytes());
        if client.closed().is_empty() { Ok(()) } else { Err("it was let in".to_owned()) }
    });
    forebay.wait_metric("forebay_connections_refused", &["limit=\"connection-rate\""], 1.0);
}

#[test]
fn the_broker_makes_certificates_itself() {
    let addr = wait::free_addr();
    let port = format!(
        "port: {}\ntls:\n  mode: Automatic\n  certManagerCertificateSpec:\n    issuerRef:\n      name: any\n      kind: ClusterIssuer\n    privateKey:\n      algorithm: Ec384\n      rotationPolicy: Always\n    san:\n      dns: [broker.example]\n      ip: []",
        addr.port()
    );
    let resources = Resources::default().with("listener.yaml", &broker_listener(&[port]));
    let data = tempfile::TempDir::new().unwrap();
    let ca = data.path().join("tls/ca.crt").display().to_string();
    let mut kept = None;
    for _ in 0..2 {
        let mut forebay = Serve::new().resources(&resources).data_dir(data.path()).start();
        forebay.process.says(&ca);
        mosquitto::publish(addr, "mqttv5", "t", "m", 1, &["--cafile", &ca]);
        let authority = std::fs::read_to_string(&ca).unwrap();
        // Clients trust it, so it must stay the same.
        assert_eq!(kept.get_or_insert_with(|| authority.clone()), &authority);
        forebay.terminate();
    }
    let mode = |path: &Path| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    };
    assert_eq!(mode(&data.path().join("tls/ca.key")), 0o600);
}

#[test]
fn what_cannot_be_used_keeps_the_broker_from_starting_and_is_named() {
    let authority = Authority::new("Test authority");
    let (server, other) = (authority.server(), authority.server());
    let mixed = forebay_tests::pki::Identity { certificate: server.certificate.clone(), key: other.key };
    let broken = forebay_tests::pki::Identity { certificate: "no PEM".to_owned(), key: server.key.clone() };
    let addr = wait::free_addr();
    let abroad = broker_listener(&[plain(addr)]).replace("127.0.0.1", "0.0.0.0");
    let certificates = [
        broker_authentication("abc", &[], &["method: X509"]),
        config_map("client-ca", &[("ca.pem", &authority.certificate)]),
    ]
    .join("---\n");
    let cases = [
        (
            broker_listener(&[tls(addr, "server")]),
            mixed.secret("server"),
            "the Secret `server` has a key that is not the certificate's",
        ),
        (
            broker_listener(&[tls(addr, "server")]),
            broken.secret("server"),
            "the Secret `server` holds no certificate in PEM under `tls.crt`",
        ),
        (
            broker_listener(&[tls(addr, "gone")]),
            server.secret("server"),
            "names the Secret `gone`, which does not exist",
        ),
        (abroad, server.secret("server"), "0.0.0.0 can be reached from other machines"),
        (
            broker_listener(&[format!("{}\nauthenticationRef: default", plain(addr))]),
            server.secret("server"),
            "this is no Kubernetes cluster",
        ),
        (
            broker_listener(&[format!("{}\nauthenticationRef: abc", plain(addr))]),
            certificates,
            "takes certificates only, which come with TLS",
        ),
    ];
    for (listener, secret, expected) in cases {
        let resources = Resources::default().with("l.yaml", &listener).with("s.yaml", &secret);
        let (status, output) = forebay_tests::forebay::run([
            "serve".as_ref(),
            "--listen".as_ref(),
            "127.0.0.1:0".as_ref(),
            "-f".as_ref(),
            resources.path().as_os_str(),
        ]);
        assert!(!status.success() && output.contains(expected), "{expected}\n{output}");
        assert!(!output.contains("PRIVATE KEY"), "{output}");
    }
}

/// A WebSocket after its handshake, as bytes.
fn web_socket(addr: SocketAddr) -> TcpStream {
    let mut socket = TcpStream::connect(addr).expect("accepted");
    socket.set_read_timeout(Some(wait::PATIENCE)).unwrap();
    let request = "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";
    socket.write_all(request.as_bytes()).unwrap();
    let mut response = Vec::new();
    while !response.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).expect("an answer");
        response.extend_from_slice(&byte);
    }
    let response = String::from_utf8(response).unwrap();
    assert!(response.starts_with("HTTP/1.1 101 "), "{response}");
    // [MQTT-6.0.0-4]
    assert!(response.contains("Sec-WebSocket-Protocol: mqtt\r\n"), "{response}");
    socket
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [1, 2, 3, 4];
    let mut bytes = vec![first, 0x80 | payload.len() as u8];
    bytes.extend_from_slice(&mask);
    bytes.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
    bytes
}

/// The pongs and the payload of binary frames among short frames of the broker.
fn unframed(mut bytes: &[u8]) -> (Vec<Vec<u8>>, Vec<u8>) {
    let (mut pongs, mut payload) = (Vec::new(), Vec::new());
    while let [first, length, rest @ ..] = bytes {
        let Some((frame, rest)) = rest.split_at_checked(usize::from(*length)) else { break };
        match first {
            0x8A => pongs.push(frame.to_vec()),
            0x82 => payload.extend_from_slice(frame),
            other => panic!("a frame that begins with {other:02x}"),
        }
        bytes = rest;
    }
    (pongs, payload)
}

#[test]
fn packets_may_be_spread_over_frames_in_any_way() {
    let addr = wait::free_addr();
    let (resources, _) = resources(&[web(addr)]);
    let forebay = Serve::new().resources(&resources).start();
    let mut socket = web_socket(addr);
    let connect = Connect::v4("web").bytes();
    // One packet in three fragments with a ping between them, then two packets in one frame, byte by byte [MQTT-6.0.0-2].
    let mut bytes = frame(0x02, &connect[..3]);
    bytes.extend(frame(0x89, b"alive"));
    bytes.extend(frame(0x00, &connect[3..7]));
    bytes.extend(frame(0x80, &connect[7..]));
    bytes.extend(frame(0x82, &[0xC0, 0, 0xC0, 0]));
    for byte in bytes {
        socket.write_all(&[byte]).unwrap();
    }
    let mut said = Vec::new();
    while unframed(&said).1 != b"\x20\x02\x00\x00\xD0\x00\xD0\x00" {
        let mut some = [0; 64];
        let n = socket.read(&mut some).expect("an answer");
        assert!(n > 0, "{said:02x?}");
        said.extend_from_slice(&some[..n]);
    }
    assert_eq!(unframed(&said).0, [b"alive".to_vec()]);
    // The end is agreed on.
    socket.write_all(&frame(0x88, &1000u16.to_be_bytes())).unwrap();
    let mut rest = Vec::new();
    socket.read_to_end(&mut rest).unwrap();
    assert!(rest.ends_with(b"\x88\x02\x03\xE8"), "{rest:02x?}");
    // Text is refused [MQTT-6.0.0-1].
    let mut socket = web_socket(addr);
    socket.write_all(&frame(0x81, &connect)).unwrap();
    let mut rest = Vec::new();
    socket.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"\x88\x02\x03\xEB");
    wait::until("both are gone", || {
        let open = forebay.metric("forebay_connections_open", &[]);
        if open == 0.0 { Ok(()) } else { Err(format!("{open} connections")) }
    });
}

#[test]
fn pings_without_end_keep_nobody_from_their_turn() {
    let addr = wait::free_addr();
    let (resources, _) = resources(&[web(addr)]);
    let forebay = Serve::new().resources(&resources).env("TOKIO_WORKER_THREADS", "1").start();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let pings = frame(0x89, b"ping").repeat(10_000);
    let flood: Vec<_> = (0..2)
        .map(|_| {
            let (mut socket, stop, pings) = (web_socket(addr), std::sync::Arc::clone(&stop), pings.clone());
            std::thread::spawn(move || {
                // It never reads what it is answered.
                while !stop.load(std::sync::atomic::Ordering::Relaxed) && socket.write_all(&pings).is_ok() {}
            })
        })
        .collect();
    let mut client = Client::connect(forebay.addr, &Connect::v5("patient"));
    client.subscribe("t", 1);
    for n in 0..50u8 {
        client.send(&client.publish_bytes("t", 0, false, &[], &[n]));
        assert_eq!(client.receive().payload, [n]);
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    // Sent no CONNECT in time: the broker ends them.
    for thread in flood {
        thread.join().expect("the flood ends");
    }
}

#[test]
fn what_one_read_brings_is_one_write_also_to_a_client_of_tls() {
    let addr = wait::free_addr();
    let (resources, ca) = resources(&[tls(addr, "server")]);
    let trace = tempfile::TempDir::new().unwrap();
    let file = trace.path().join("trace");
    let strace = ["strace", "-D", "-f", "-q", "-s", "0", "-e", "trace=write,writev,sendto,sendmsg", "-o"];
    let strace = [strace.as_slice(), &[file.to_str().unwrap()]].concat();
    let mut forebay = Serve::new().resources(&resources).under(&strace).start();
    let mut subscriber = tls_client(addr, &ca);
    subscriber.write_all(&Connect::v4("tls").bytes()).unwrap();
    subscriber.write_all(&mqtt::packet(0x82, &[&[0, 1][..], &mqtt::text("t"), &[0]].concat())).unwrap();
    subscriber.read_exact(&mut [0; 9]).unwrap();
    let mut publisher = Client::connect(forebay.addr, &Connect::v4("plain"));
    let message = publisher.publish_bytes("t", 0, false, &[], &[7; 200]);
    // Three TLS records, all at once.
    let batch = message.repeat(200);
    publisher.send(&batch);
    let mut received = vec![0; batch.len()];
    subscriber.read_exact(&mut received).unwrap();
    assert!(received == batch);
    publisher.settle();
    forebay.terminate();
    let sizes: Vec<usize> = wait::until("strace has written everything", || {
        let text = std::fs::read_to_string(&file).map_err(|error| error.to_string())?;
        match text.contains("+++ exited with 0 +++") {
            true => Ok(text.lines().filter_map(|line| line.rsplit_once("= ")?.1.parse().ok()).collect()),
            false => Err("the end is missing".to_owned()),
        }
    });
    let large: Vec<_> = sizes.iter().filter(|size| **size > 4096).collect();
    assert!(
        large.len() <= 2 && large.iter().copied().sum::<usize>() > batch.len(),
        "writes of {sizes:?} bytes"
    );
}

#[test]
fn bytes_at_random_do_no_harm() {
    let (secure, websocket) = (wait::free_addr(), wait::free_addr());
    let (resources, ca) = resources(&[tls(secure, "server"), web(websocket)]);
    let forebay = Serve::new().resources(&resources).options(&["--connect-timeout", "2s"]).start();
    let mut state = 0x2545_F491_4F6C_DD1Du64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    for round in 0..60 {
        let bytes: Vec<u8> = (0..500).map(|_| random()).collect();
        let mut raw = TcpStream::connect(secure).unwrap();
        let _ = raw.write_all(&[&b"\x16\x03\x01"[..], &bytes].concat());
        let mut inside = tls_client(secure, &ca);
        let _ = inside.write_all(&bytes);
        let mut framed = web_socket(websocket);
        // Sometimes well framed, sometimes not; after a CONNECT or without one.
        if round % 2 == 0 {
            let _ = framed.write_all(&frame(0x82, &Connect::v5(&format!("c{round}")).bytes()));
        }
        let _ = match round % 3 {
            0 => framed.write_all(&bytes),
            1 => framed.write_all(&frame(0x82, &bytes[..120])),
            _ => framed.write_all(&frame(0x80 | (bytes[0] & 0x0F), &bytes[..100])),
        };
    }
    mosquitto::publish(secure, "mqttv5", "t", "m", 1, &["--cafile", &ca]);
    wait::until("all of them are gone", || {
        let open = forebay.metric("forebay_connections_open", &[]);
        if open == 0.0 { Ok(()) } else { Err(format!("{open} connections\n{}", forebay.output())) }
    });
    assert!(!forebay.output().contains("panicked"), "{}", forebay.output());
}

#[test]
fn validate_tries_what_listeners_are_made_of() {
    let authority = Authority::new("Test authority");
    let addr = wait::free_addr();
    let mixed = forebay_tests::pki::Identity {
        certificate: authority.server().certificate,
        key: authority.server().key,
    };
    let cases = [
        (authority.server().secret("server"), true, ""),
        (mixed.secret("server"), false, "has a key that is not the certificate's"),
    ];
    for (secret, right, expected) in cases {
        let resources = Resources::default()
            .with(
                "l.yaml",
                &broker_listener(&[
                    tls(addr, "server"),
                    format!("{}\nauthenticationRef: default", plain(wait::free_addr())),
                ]),
            )
            .with("s.yaml", &secret);
        let (status, output) =
            forebay_tests::forebay::run(["validate".as_ref(), "-f".as_ref(), resources.path().as_os_str()]);
        assert_eq!(status.success(), right, "{output}");
        assert!(output.contains(expected), "{output}");
    }
}
