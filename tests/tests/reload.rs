//! Files that change while the broker runs: certificates, users, ports. Nobody is dropped, and what is bad changes nothing.

use std::process::Command;

use forebay_tests::forebay::{self, Serve};
use forebay_tests::mosquitto;
use forebay_tests::mqtt::{Client, Connect};
use forebay_tests::pki::{Authority, Cluster, config_map};
use forebay_tests::resources::{Resources, broker_authentication, broker_listener};
use forebay_tests::{process, wait};
use rustix::process::Signal;

fn tls(addr: std::net::SocketAddr) -> String {
    format!("port: {}\ntls:\n  mode: Manual\n  manual:\n    secretRef: server", addr.port())
}

/// Whether a client that trusts `ca` gets through.
fn trusts(addr: std::net::SocketAddr, ca: &str, more: &[&str]) -> bool {
    let mut command = Command::new("mosquitto_pub");
    command.args(["-h", "127.0.0.1", "-p", &addr.port().to_string(), "-t", "t", "-m", "m", "-q", "1"]);
    command.args(["--cafile", ca]).args(more);
    process::run(command).0.success()
}

fn until(what: &str, look: impl Fn() -> bool) {
    wait::until(what, || if look() { Ok(()) } else { Err("not yet".to_owned()) });
}

#[test]
fn certificates_are_replaced_and_bad_ones_are_not() {
    let (old, new) = (Authority::new("Old"), Authority::new("New"));
    let addr = wait::free_addr();
    let resources = Resources::default()
        .with("listener.yaml", &broker_listener(&[tls(addr)]))
        .with("server.yaml", &old.server().secret("server"))
        .with("old.crt", &old.certificate)
        .with("new.crt", &new.certificate);
    let (old_ca, new_ca) =
        (resources.file("old.crt").display().to_string(), resources.file("new.crt").display().to_string());
    let mut forebay = Serve::new().resources(&resources).start();
    let mut subscriber = mosquitto::Subscriber::start(addr, "mqttv5", "t/end", 1, &["--cafile", &old_ca]);
    assert!(trusts(addr, &old_ca, &[]) && !trusts(addr, &new_ca, &[]));
    // No certificate, a key of another one, no YAML, a kind with a wrong field: all are refused, and say why.
    let mixed = forebay_tests::pki::Identity { certificate: new.server().certificate, key: new.server().key };
    let bad = [
        (mixed.secret("server"), "has a key that is not the certificate's"),
        (old.server().secret("another"), "names the Secret `server`, which does not exist"),
        ("a: [".to_owned(), "server.yaml:1"),
    ];
    let mut resources = resources;
    for (count, (text, expected)) in bad.iter().enumerate() {
        resources = resources.with("server.yaml", text);
        if count == 1 {
            // Asked for, it is done at once.
            forebay.process.signal(Signal::HUP);
        }
        forebay.wait_metric("forebay_reloads", &["result=\"refused\""], (count + 1) as f64);
        forebay.process.says(expected);
        assert!(trusts(addr, &old_ca, &[]), "{expected}");
    }
    forebay.process.says("what held before for listeners and their clients holds on");
    let _resources = resources.with("server.yaml", &new.server().secret("server"));
    until("the new certificate is shown", || trusts(addr, &new_ca, &[]));
    assert!(!trusts(addr, &old_ca, &[]));
    // Who was there before is there still.
    mosquitto::publish(addr, "mqttv5", "t/end", "still here", 1, &["--cafile", &new_ca]);
    assert_eq!(subscriber.receive().payload, "still here");
}

#[test]
fn certificates_may_lie_in_a_directory_as_kubernetes_mounts_them() {
    let (old, new) = (Authority::new("Old"), Authority::new("New"));
    let addr = wait::free_addr();
    let secret = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: server\n  namespace: azure-iot-operations\n  annotations:\n    forebay.dev/directory: certificates\n";
    let resources = Resources::default()
        .with("listener.yaml", &broker_listener(&[tls(addr)]))
        .with("server.yaml", secret)
        .with("old.crt", &old.certificate)
        .with("new.crt", &new.certificate);
    let (old_ca, new_ca) =
        (resources.file("old.crt").display().to_string(), resources.file("new.crt").display().to_string());
    let mounts = resources.path().join("certificates");
    // A link to a directory that is replaced as a whole.
    for (name, authority) in [("1", &old), ("2", &new)] {
        let identity = authority.server();
        let directory = mounts.join(format!("..{name}"));
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("tls.crt"), &identity.certificate).unwrap();
        std::fs::write(directory.join("tls.key"), &identity.key).unwrap();
    }
    let link = |to: &str| {
        std::os::unix::fs::symlink(to, mounts.join("..new")).unwrap();
        std::fs::rename(mounts.join("..new"), mounts.join("..data")).unwrap();
    };
    link("..1");
    for name in ["tls.crt", "tls.key"] {
        std::os::unix::fs::symlink(format!("..data/{name}"), mounts.join(name)).unwrap();
    }
    let _forebay = Serve::new().resources(&resources).start();
    assert!(trusts(addr, &old_ca, &[]));
    link("..2");
    until("the new certificate is shown", || trusts(addr, &new_ca, &[]));
}

#[test]
fn users_authorities_and_keys_are_read_again() {
    let (authority, first, second) =
        (Authority::new("Servers"), Authority::new("First"), Authority::new("Second"));
    let (old_keys, new_keys) = (Cluster::new("old"), Cluster::new("new"));
    let addr = wait::free_addr();
    let methods =
        ["method: X509", "method: ServiceAccountToken\nserviceAccountTokenSettings:\n  audiences: [a]"];
    let resources = Resources::default();
    let passwords = resources.file("passwords").display().to_string();
    let user =
        |name: &str| assert!(forebay::run(["passwd", "-b", "-I", "100", &passwords, name, "x"]).0.success());
    user("ada");
    let annotations = [("password-file", "passwords"), ("token-keys", "keys.json")];
    let resources = resources
        .with("listener.yaml", &broker_listener(&[format!("{}\nauthenticationRef: abc", tls(addr))]))
        .with("authentication.yaml", &broker_authentication("abc", &annotations, &methods))
        .with("keys.json", &old_keys.keys())
        .with("clients.yaml", &config_map("client-ca", &[("ca.pem", &first.certificate)]))
        .with("server.yaml", &authority.server().secret("server"))
        .with("ca.crt", &authority.certificate);
    let ca = resources.file("ca.crt").display().to_string();
    let forebay = Serve::new().resources(&resources).options(&["--password-file", &passwords]).start();
    let directory = tempfile::TempDir::new().unwrap();
    let files = |authority: &Authority, name: &str| authority.client("fan").write(directory.path(), name);
    let (first_files, second_files) = (files(&first, "first"), files(&second, "second"));
    let by_certificate =
        |(certificate, key): &(String, String)| trusts(addr, &ca, &["--cert", certificate, "--key", key]);
    let by_token = |cluster: &Cluster| {
        let token = cluster.token("a", "a", 3600);
        let method = ["-V", "mqttv5", "-D", "CONNECT", "authentication-method", "K8S-SAT"];
        let data = ["-D", "CONNECT", "authentication-data", token.as_str()];
        trusts(addr, &ca, &[method.as_slice(), &data].concat())
    };
    let by_password = |name: &str| trusts(addr, &ca, &["-u", name, "-P", "x"]);
    assert!(by_certificate(&first_files) && !by_certificate(&second_files));
    assert!(by_token(&old_keys) && !by_token(&new_keys));
    assert!(by_password("ada") && !by_password("bob"));
    let mut stays = Client::connect(forebay.addr, &Connect::v5("stays").login("ada", "x"));
    user("bob");
    let resources = resources
        .with("clients.yaml", &config_map("client-ca", &[("ca.pem", &second.certificate)]))
        .with("keys.json", &new_keys.keys());
    until("a new user is let in", || by_password("bob"));
    until("a new authority is trusted", || by_certificate(&second_files));
    until("new keys are trusted", || by_token(&new_keys));
    assert!(!by_certificate(&first_files) && !by_token(&old_keys) && by_password("ada"));
    Client::connect(forebay.addr, &Connect::v5("c").login("bob", "x")).disconnect();
    // A file that says nothing sensible changes nothing.
    let before = forebay.metric("forebay_reloads", &["result=\"refused\""]);
    let _resources = resources.with("passwords", "bob:in plain text\n");
    forebay.wait_metric("forebay_reloads", &["result=\"refused\""], before + 1.0);
    assert!(by_password("ada") && by_token(&new_keys));
    assert!(!forebay.output().contains("in plain text"), "{}", forebay.output());
    stays.settle();
}

#[test]
fn ports_come_and_go() {
    let authority = Authority::new("Servers");
    let (one, two) = (wait::free_addr(), wait::free_addr());
    let resources = Resources::default()
        .with("listener.yaml", &broker_listener(&[tls(one)]))
        .with("server.yaml", &authority.server().secret("server"))
        .with("ca.crt", &authority.certificate);
    let ca = resources.file("ca.crt").display().to_string();
    let forebay = Serve::new().resources(&resources).start();
    let mut subscriber = mosquitto::Subscriber::start(one, "mqttv5", "t", 1, &["--cafile", &ca]);
    let resources = resources.with("listener.yaml", &broker_listener(&[tls(two)]));
    until("the new port is there", || trusts(two, &ca, &[]));
    assert_eq!(subscriber.receive().payload, "m");
    until("the old port is gone", || std::net::TcpStream::connect(one).is_err());
    // Somebody else has the port: everything stays as it is.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let _resources = resources.with("listener.yaml", &broker_listener(&[tls(taken.local_addr().unwrap())]));
    forebay.wait_metric("forebay_reloads", &["result=\"refused\""], 1.0);
    assert!(trusts(two, &ca, &[]));
    assert_eq!(subscriber.receive().payload, "m");
}

#[test]
fn a_port_that_begins_to_ask_lets_nobody_stay_unasked() {
    let addr = wait::free_addr();
    let resources = Resources::default();
    let passwords = resources.file("passwords").display().to_string();
    assert!(forebay::run(["passwd", "-b", "-I", "100", &passwords, "ada", "x"]).0.success());
    let open = format!("port: {}", addr.port());
    let resources = resources
        .with("listener.yaml", &broker_listener(std::slice::from_ref(&open)))
        .with("authentication.yaml", &broker_authentication("abc", &[("password-file", "passwords")], &[]));
    let _forebay = Serve::new().resources(&resources).start();
    let anonymous = Client::connect(addr, &Connect::v5("anonymous"));
    let asking = broker_listener(&[format!("{open}\nauthenticationRef: abc")]);
    let _resources = resources.with("listener.yaml", &asking);
    let said = anonymous.closed();
    assert_eq!((said[0].kind(), said[0].body[0]), (forebay_tests::mqtt::DISCONNECT, 0x98), "{said:02x?}");
    assert_eq!(Client::refused(addr, &Connect::v5("anonymous")), 0x87);
    Client::connect(addr, &Connect::v5("a").login("ada", "x")).disconnect();
}

#[test]
fn certificates_of_the_brokers_own_are_replaced_before_they_end() {
    let addr = wait::free_addr();
    let port = format!(
        "port: {}\ntls:\n  mode: Automatic\n  certManagerCertificateSpec:\n    issuerRef: {{name: any, kind: Issuer}}\n    duration: 6s\n    renewBefore: 3s",
        addr.port()
    );
    let resources = Resources::default().with("listener.yaml", &broker_listener(&[port]));
    let forebay = Serve::new().resources(&resources).start();
    let ca = forebay.own_data_dir().join("tls/ca.crt").display().to_string();
    assert!(trusts(addr, &ca, &[]));
    // Three times three seconds: the first one has ended by then.
    forebay.wait_metric("forebay_reloads", &["result=\"applied\""], 3.0);
    assert!(trusts(addr, &ca, &[]));
}
