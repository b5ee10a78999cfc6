//! MQTT over WebSocket as programs and web pages use it: MQTT.js in Node.js and in Chromium.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use forebay_tests::forebay::Serve;
use forebay_tests::pki::Authority;
use forebay_tests::resources::{Resources, broker_listener};
use forebay_tests::{process, repository, wait};
use sha2::{Digest, Sha256};

/// Where tests/setup puts packages of npm.
fn modules() -> PathBuf {
    repository().join(".tools/node/node_modules")
}

fn web(addr: SocketAddr, tls: bool) -> String {
    let tls = if tls { "\ntls:\n  mode: Manual\n  manual:\n    secretRef: server" } else { "" };
    format!("port: {}\nprotocol: WebSockets{tls}", addr.port())
}

fn node(script: &str, arguments: &[&str]) -> String {
    let mut command = Command::new("node");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/web").join(script));
    command.arg(modules()).args(arguments);
    let (status, output) = process::run(command);
    assert!(status.success(), "{script} {arguments:?}: {status}\n{output}");
    output
}

#[test]
fn mqtt_js_with_and_without_tls() {
    let (open, secure) = (wait::free_addr(), wait::free_addr());
    let authority = Authority::new("Test authority");
    let resources = Resources::default()
        .with("listener.yaml", &broker_listener(&[web(open, false), web(secure, true)]))
        .with("server.yaml", &authority.server().secret("server"))
        .with("ca.crt", &authority.certificate);
    let ca = resources.file("ca.crt").display().to_string();
    let forebay = Serve::new().resources(&resources).start();
    let payloads = [b"small".to_vec(), Vec::new(), vec![7; 300_000], vec![1; 65_536]];
    let mut expected: Vec<String> = payloads
        .iter()
        .enumerate()
        .map(|(at, payload)| {
            let hash: String = Sha256::digest(payload).iter().map(|byte| format!("{byte:02x}")).collect();
            format!("message web/{at} {} {hash}", payload.len())
        })
        .collect();
    expected.push("ended".to_owned());
    for version in ["3", "4", "5"] {
        let said = node("client.cjs", &[&format!("ws://127.0.0.1:{}", open.port()), version]);
        assert_eq!(said.lines().collect::<Vec<_>>(), expected, "version {version}");
        let said = node("client.cjs", &[&format!("wss://localhost:{}/mqtt", secure.port()), version, &ca]);
        assert_eq!(said.lines().collect::<Vec<_>>(), expected, "version {version} with TLS");
    }
    assert_eq!(forebay.metric("forebay_handshakes_failed", &[]), 0.0);
}

#[test]
fn a_page_in_a_browser_and_one_that_may_not() {
    let addr = wait::free_addr();
    let listener = broker_listener(&[web(addr, false)]);
    let resources = Resources::default().with("listener.yaml", &listener);
    let forebay = Serve::new().resources(&resources).start();
    let url = format!("ws://127.0.0.1:{}", addr.port());
    assert_eq!(node("page.cjs", &["/usr/bin/chromium", &url]), "message page from a page");
    // This page's origin is `null`, as the browser says.
    let only = "  annotations:\n    forebay.dev/allowed-origins: https://plant.example\n";
    let _resources = resources.with("listener.yaml", &listener.replace("  annotations:\n", only));
    forebay.wait_metric("forebay_reloads", &["result=\"applied\""], 1.0);
    let said = node("page.cjs", &["/usr/bin/chromium", &url]);
    assert!(said == "closed" || said.starts_with("error"), "{said}");
    forebay.wait_metric("forebay_handshakes_failed", &["reason=\"refused\""], 1.0);
}
