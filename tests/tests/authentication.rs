//! Who may connect: password files, certificates, service account tokens, a web service of the user's own.

use std::io::{BufRead, BufReader, Lines, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use forebay_tests::forebay::{self, Forebay, Serve};
use forebay_tests::mosquitto::{self, Subscriber};
use forebay_tests::mqtt::{self, AUTH, CONNACK, Client, Connect, DISCONNECT};
use forebay_tests::pki::{Authority, Cluster, config_map};
use forebay_tests::resources::{Resources, broker_authentication, broker_listener};
use forebay_tests::{https, process, repository, wait};
use serde_json::json;

const BAD_PASSWORD: u8 = 0x86;
const NOT_AUTHORIZED: u8 = 0x87;
const BAD_METHOD: u8 = 0x8C;
const AUDIENCE: &str = "aio-internal";
const TOKENS: &str = "method: ServiceAccountToken\nserviceAccountTokenSettings:\n  audiences: [aio-internal]";

fn port(addr: SocketAddr) -> String {
    format!("port: {}\nauthenticationRef: abc", addr.port())
}

fn tls_port(addr: SocketAddr) -> String {
    format!("{}\ntls:\n  mode: Manual\n  manual:\n    secretRef: server", port(addr))
}

/// Whether `mosquitto_pub` is let in.
fn may_publish(addr: SocketAddr, version: &str, more: &[&str]) -> bool {
    let mut command = Command::new("mosquitto_pub");
    command.args(["-h", "127.0.0.1", "-p", &addr.port().to_string(), "-V", version]);
    command.args(["-t", "t", "-m", "m", "-q", "1"]).args(more);
    process::run(command).0.success()
}

#[test]
fn password_files_of_mosquitto_and_our_own_let_the_same_people_in() {
    let directory = tempfile::TempDir::new().unwrap();
    let file = directory.path().join("passwords");
    let name = file.display().to_string();
    for (hash, user) in [("sha512", "old"), ("sha512-pbkdf2", "new")] {
        let mut command = Command::new("mosquitto_passwd");
        command.args(["-H", hash, "-b"]);
        if !file.exists() {
            command.arg("-c");
        }
        command.args([&name, user, "its password"]);
        assert!(process::run(command).0.success());
    }
    for (hash, user) in [("sha512", "own1"), ("sha512-pbkdf2", "own2"), ("argon2id", "own3")] {
        let (status, output) = forebay::run(["passwd", "-b", "-H", hash, &name, user, "its password"]);
        assert!(status.success(), "{output}");
    }
    let forebay = Serve::new().options(&["--password-file", &name]).start();
    for user in ["old", "new", "own1", "own2", "own3"] {
        for version in ["mqttv311", "mqttv5"] {
            assert!(may_publish(forebay.addr, version, &["-u", user, "-P", "its password"]), "{user}");
        }
        assert!(!may_publish(forebay.addr, "mqttv5", &["-u", user, "-P", "Its password"]), "{user}");
    }
    let refused = |connect: Connect| Client::refused(forebay.addr, &connect);
    assert_eq!(refused(Connect::v5("c").login("nobody", "its password")), BAD_PASSWORD);
    assert_eq!(refused(Connect::v4("c").login("old", "wrong")), 4);
    assert_eq!(refused(Connect::v5("c")), NOT_AUTHORIZED);
    assert_eq!(refused(Connect::v4("c")), 5);
    assert_eq!(refused(Connect::v5("c").authentication("K8S-SAT", "x")), BAD_METHOD);
    forebay.wait_metric("aio_broker_authentication_successes", &["category=\"uncategorized\""], 10.0);
    forebay.wait_metric("aio_broker_authentication_failures", &["category=\"uncategorized\""], 7.0);
    forebay.wait_metric("aio_broker_authentication_deny", &["category=\"uncategorized\""], 3.0);
    Client::connect(
        forebay.addr,
        &Connect::v5("c")
            .login("old", "its password")
            .property(&mqtt::user_property("metriccategory", "line 1")),
    );
    forebay.wait_metric("aio_broker_authentication_successes", &["category=\"line 1\""], 1.0);
    // What our tool wrote, mosquitto reads, too (but for Argon2id, which this one is too old for).
    let (status, _) = forebay::run(["passwd", "-D", &name, "own3"]);
    assert!(status.success());
    let addr = wait::free_addr();
    let config = directory.path().join("mosquitto.conf");
    std::fs::write(&config, format!("listener {} 127.0.0.1\npassword_file {name}\nuser root\n", addr.port()))
        .unwrap();
    let mut command = Command::new("mosquitto");
    command.arg("-c").arg(&config);
    let _mosquitto = process::Process::start(command);
    wait::until("mosquitto lets our users in", || {
        match may_publish(addr, "mqttv5", &["-u", "own2", "-P", "its password"])
            && may_publish(addr, "mqttv5", &["-u", "own1", "-P", "its password"])
        {
            true => Ok(()),
            false => Err("it does not".to_owned()),
        }
    });
}

#[test]
fn the_password_tool_does_what_its_options_say() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::TempDir::new().unwrap();
    let file = directory.path().join("passwords");
    let name = file.display().to_string();
    let run = |arguments: &[&str]| forebay::run(std::iter::once("passwd").chain(arguments.iter().copied()));
    let text = || std::fs::read_to_string(&file).unwrap();
    let users =
        || -> Vec<String> { text().lines().map(|line| line.split(':').next().unwrap().to_owned()).collect() };
    assert!(run(&["-b", &name, "ada", "one"]).0.success());
    assert!(run(&["-b", &name, "bob", "two"]).0.success());
    assert_eq!(users(), ["ada", "bob"]);
    assert!(text().lines().all(|line| line.contains(":$7$100000$")), "{}", text());
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let before = text();
    assert!(run(&["-b", "-I", "5000", &name, "ada", "three"]).0.success());
    assert!(text() != before && text().starts_with("ada:$7$5000$"), "{}", text());
    assert!(run(&["-D", &name, "ada"]).0.success());
    assert_eq!(users(), ["bob"]);
    let (status, output) = run(&["-D", &name, "ada"]);
    assert!(!status.success() && output.contains("has no user `ada`"), "{output}");
    let (status, output) = run(&[&name, "eve", "on the command line"]);
    assert!(!status.success() && output.contains("say -b"), "{output}");
    let (status, output) = run(&["-b", &name, "a:b", "x"]);
    assert!(!status.success() && output.contains("colon"), "{output}");
    // Standard input is empty here.
    let (status, output) = run(&[&name, "eve"]);
    assert!(!status.success() && output.contains("the password is empty"), "{output}");
    std::fs::write(&file, "# users\nada:one\nbob:two\n").unwrap();
    assert!(run(&["-U", &name]).0.success());
    assert!(
        text().starts_with("# users\nada:$7$") && !text().contains(":one") && users().len() == 3,
        "{}",
        text()
    );
    assert!(run(&["-c", "-b", &name, "only", "x"]).0.success());
    assert_eq!(users(), ["only"]);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}

/// A broker that takes tokens of `cluster`, by TCP and by TLS; with the authority to trust.
fn token_broker(cluster: &Cluster, resources: Resources) -> (Forebay, SocketAddr, SocketAddr, Resources) {
    let (plain, secure) = (wait::free_addr(), wait::free_addr());
    let authority = Authority::new("Test authority");
    let resources = resources
        .with("keys.json", &cluster.keys())
        .with("listener.yaml", &broker_listener(&[port(plain), tls_port(secure)]))
        .with("authentication.yaml", &broker_authentication("abc", &[("token-keys", "keys.json")], &[TOKENS]))
        .with("server.yaml", &authority.server().secret("server"))
        .with("ca.crt", &authority.certificate);
    (Serve::new().resources(&resources).start(), plain, secure, resources)
}

#[test]
fn the_command_lines_of_the_how_to_work() {
    let cluster = Cluster::new("one");
    let (_forebay, _, addr, resources) = token_broker(&cluster, Resources::default());
    let (ca, token) =
        (resources.file("ca.crt").display().to_string(), cluster.token("mqtt-client", AUDIENCE, 3600));
    let with_token: Vec<&str> = [
        "--cafile",
        &ca,
        "-D",
        "CONNECT",
        "authentication-method",
        "K8S-SAT",
        "-D",
        "CONNECT",
        "authentication-data",
        &token,
    ]
    .to_vec();
    let mut subscriber = Subscriber::start(addr, "mqttv5", "sensor/temperature/processed", 1, &with_token);
    mosquitto::publish(addr, "mqttv5", "sensor/temperature/processed", "first", 1, &with_token);
    assert_eq!(subscriber.receive().payload, "first");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let stamp = format!("{now}000:0:df");
    let mut stamped = with_token.clone();
    stamped.extend(["-D", "PUBLISH", "user-property", "__ts", &stamp]);
    mosquitto::publish(addr, "mqttv5", "sensor/temperature/processed", "second", 1, &stamped);
    let second = subscriber.receive();
    assert_eq!(second.payload, "second");
    assert!(second.properties.contains(&stamp), "{}", second.properties);
}

#[test]
fn tokens_are_good_or_not() {
    let (cluster, other) = (Cluster::new("one"), Cluster::new("one"));
    let (forebay, addr, _, _resources) = token_broker(&cluster, Resources::default());
    let good = cluster.token("a", AUDIENCE, 3600);
    let mut client = Client::connect(addr, &Connect::v5("c").authentication("K8S-SAT", &good));
    // [MQTT-4.12.0-5]
    let method = [vec![0x15], mqtt::text("K8S-SAT")].concat();
    assert!(client.connack.body.windows(method.len()).any(|part| part == method), "{:02x?}", client.connack);
    client.settle();
    // MQTT 3 has no other place.
    Client::connect(addr, &Connect::v4("c3").login("K8S-SAT", &good)).disconnect();
    let forged = {
        let (head, rest) = good.split_once('.').unwrap();
        let (claims, _) = rest.split_once('.').unwrap();
        format!("{head}.{claims}.{}", good.len())
    };
    let unsigned = {
        use base64::Engine;
        let encode = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.", encode(r#"{"alg":"none"}"#), good.split('.').nth(1).unwrap())
    };
    for bad in [
        cluster.token("a", AUDIENCE, -3600),
        cluster.token("a", "somebody-else", 3600),
        other.token("a", AUDIENCE, 3600),
        cluster.token_with("a", AUDIENCE, 3600, &json!({"nbf": 99_999_999_999u64})),
        forged,
        unsigned,
        "no token".to_owned(),
        String::new(),
    ] {
        let connect = Connect::v5("c2").authentication("K8S-SAT", &bad);
        assert_eq!(Client::refused(addr, &connect), NOT_AUTHORIZED, "{bad}");
    }
    assert_eq!(
        Client::refused(addr, &Connect::v5("c2").property(&[&[0x15][..], &mqtt::text("K8S-SAT")].concat())),
        NOT_AUTHORIZED
    );
    assert_eq!(Client::refused(addr, &Connect::v5("c2").authentication("OTHER", &good)), BAD_METHOD);
    assert_eq!(Client::refused(addr, &Connect::v5("c2")), NOT_AUTHORIZED);
    assert_eq!(
        Client::refused(forebay.addr, &Connect::v5("c2").authentication("K8S-SAT", &good)),
        BAD_METHOD
    );
}

fn auth(method: &str, data: &str) -> Vec<u8> {
    mqtt::packet(0xF0, &[vec![0x19], mqtt::span(&mqtt::authentication(method, data))].concat())
}

#[test]
fn whose_token_ends_is_sent_away_unless_it_is_renewed() {
    let cluster = Cluster::new("one");
    let (forebay, addr, _, _resources) = token_broker(&cluster, Resources::default());
    let short = cluster.token("a", AUDIENCE, 3);
    let connect = |id: &str| Client::connect(addr, &Connect::v5(id).authentication("K8S-SAT", &short));
    let (ends, mut renewed, mut wrong, mut other) =
        (connect("ends"), connect("renewed"), connect("wrong"), connect("other"));
    renewed.send(&auth("K8S-SAT", &cluster.token("a", AUDIENCE, 3600)));
    let answer = renewed.expect(AUTH);
    assert_eq!(answer.body[0], 0, "{answer:02x?}");
    // [MQTT-4.12.1-2]
    wrong.send(&auth("K8S-SAT", "no token"));
    let said = wrong.closed();
    assert_eq!((said[0].kind(), said[0].body[0]), (DISCONNECT, NOT_AUTHORIZED), "{said:02x?}");
    // [MQTT-4.12.1-1]
    other.send(&auth("OTHER", &short));
    let said = other.closed();
    assert_eq!((said[0].kind(), said[0].body[0]), (DISCONNECT, 0x82), "{said:02x?}");
    let said = ends.closed();
    assert_eq!((said[0].kind(), said[0].body[0]), (DISCONNECT, NOT_AUTHORIZED), "{said:02x?}");
    forebay.wait_metric("forebay_credentials_expired", &[], 1.0);
    renewed.settle();
}

/// The client's side of SCRAM, by others: `tests/clients/scram.py`.
struct Scram {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Scram {
    fn begin(mechanism: &str, user: &str, password: &str) -> Self {
        let python = repository().join(".tools/clients/bin/python");
        let mut process = Command::new(python)
            .arg(repository().join("tests/clients/scram.py"))
            .args([mechanism, user, password])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("python is there: run tests/setup");
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, lines }
    }

    /// Its next message.
    fn say(&mut self) -> String {
        self.lines.next().expect("it says something").unwrap()
    }

    fn hear(&mut self, message: &[u8]) {
        let input = self.process.stdin.as_mut().unwrap();
        input.write_all(&[message, b"\n"].concat()).unwrap();
    }
}

impl Drop for Scram {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An AUTH of the client, and what is in one of the broker: its reason and its data, and nothing else but the method.
fn auth_with(reason: u8, method: &str, data: &str) -> Vec<u8> {
    mqtt::packet(0xF0, &[vec![reason], mqtt::span(&mqtt::authentication(method, data))].concat())
}

fn auth_data(answer: &mqtt::Packet, method: &str) -> (u8, Vec<u8>) {
    // [MQTT-4.12.0-5] [MQTT-3.15.2-2] [MQTT-3.15.2-3]
    assert_eq!(answer.kind(), AUTH, "{answer:02x?}");
    let front = [&[0x15][..], &mqtt::text(method), &[0x16]].concat();
    let (length, width) = mqtt::varint(&answer.body[1..]).expect("a property length");
    let properties = &answer.body[1 + width..];
    assert!(properties.starts_with(&front) && length == properties.len(), "{answer:02x?}");
    let data = &properties[front.len()..];
    assert_eq!(usize::from(u16::from_be_bytes([data[0], data[1]])), data.len() - 2, "{answer:02x?}");
    (answer.body[0], data[2..].to_vec())
}

/// A connection on which CONNECT with SCRAM's first message was sent.
fn scram_begun(addr: SocketAddr, mechanism: &str, first: &str) -> Client {
    let mut client = Client::open(addr, 5);
    client.send(&Connect::v5("scram").authentication(mechanism, first).bytes());
    client
}

/// The code of the CONNACK, which is all that comes.
fn refused_with(client: Client) -> u8 {
    let said = client.closed();
    assert_eq!((said.len(), said[0].kind()), (1, CONNACK), "{said:02x?}");
    said[0].body[1]
}

/// A password file with one user for each SCRAM, and one without.
fn scram_broker() -> (Forebay, tempfile::TempDir) {
    let directory = tempfile::TempDir::new().unwrap();
    let name = directory.path().join("passwords").display().to_string();
    let users = [("scram-sha-256", "short"), ("scram-sha-512", "long"), ("argon2id", "plain")];
    for (hash, user) in users {
        let (status, output) = forebay::run(["passwd", "-b", "-H", hash, &name, user, "its pässword"]);
        assert!(status.success(), "{output}");
    }
    (Serve::new().options(&["--password-file", &name]).start(), directory)
}

/// [MQTT-4.12.0-2]
#[test]
fn a_password_is_proven_by_scram_without_being_told() {
    let (forebay, _directory) = scram_broker();
    for (mechanism, user) in [("SCRAM-SHA-256", "short"), ("SCRAM-SHA-512", "long")] {
        let mut scram = Scram::begin(mechanism, user, "its pässword");
        let mut client = scram_begun(forebay.addr, mechanism, &scram.say());
        let (reason, said) = auth_data(&client.packet(), mechanism);
        assert_eq!(reason, 0x18);
        scram.hear(&said);
        client.send(&auth_with(0x18, mechanism, &scram.say()));
        let connack = client.expect(CONNACK);
        assert_eq!(connack.body[1], 0, "{connack:02x?}");
        let proof =
            connack.body.windows(2).position(|at| at == b"v=").expect("the broker proves itself, too");
        let length = usize::from(connack.body[proof - 1]);
        scram.hear(&connack.body[proof..proof + length]);
        assert_eq!(scram.say(), "verified");
        client.publish("t", 1, b"x");

        // And once more while it is connected; what it does goes on meanwhile.
        let mut scram = Scram::begin(mechanism, user, "its pässword");
        client.send(&auth_with(0x19, mechanism, &scram.say()));
        let (reason, said) = auth_data(&client.packet(), mechanism);
        assert_eq!(reason, 0x18);
        client.publish("t", 1, b"x");
        scram.hear(&said);
        client.send(&auth_with(0x18, mechanism, &scram.say()));
        let (reason, said) = auth_data(&client.packet(), mechanism);
        assert_eq!(reason, 0);
        scram.hear(&said);
        assert_eq!(scram.say(), "verified");
        client.settle();
        // Told outright, the same password is as good.
        assert!(may_publish(forebay.addr, "mqttv311", &["-u", user, "-P", "its pässword"]));
        assert!(!may_publish(forebay.addr, "mqttv311", &["-u", user, "-P", "its password"]));
    }
    forebay.wait_metric("aio_broker_authentication_successes", &[], 6.0);
}

#[test]
fn whoever_does_not_know_the_password_learns_nothing_from_scram() {
    let (forebay, _directory) = scram_broker();
    let addr = forebay.addr;
    let salt_of = |user: &str| {
        let first = format!("n,,n={user},r=abcdef");
        let (_, said) = auth_data(&scram_begun(addr, "SCRAM-SHA-512", &first).packet(), "SCRAM-SHA-512");
        let said = String::from_utf8(said).unwrap();
        let mut fields = said.split(',');
        assert!(fields.next().unwrap().starts_with("r=abcdef"), "{said}");
        (fields.next().unwrap().to_owned(), fields.next().unwrap().to_owned())
    };
    // Somebody unknown, and somebody without SCRAM, look like users: the same salt each time, and as many iterations.
    let users = ["long", "short", "plain", "nobody"].map(|user| (salt_of(user), salt_of(user)));
    assert!(users.iter().all(|(first, again)| first == again && first.1 == users[0].0.1), "{users:?}");
    assert!(users.iter().all(|(first, _)| first.0.len() == users[0].0.0.len()), "{users:?}");

    for (user, password) in [("long", "another"), ("nobody", "its pässword"), ("plain", "its pässword")] {
        let mut scram = Scram::begin("SCRAM-SHA-512", user, password);
        let mut client = scram_begun(addr, "SCRAM-SHA-512", &scram.say());
        scram.hear(&auth_data(&client.packet(), "SCRAM-SHA-512").1);
        client.send(&auth_with(0x18, "SCRAM-SHA-512", &scram.say()));
        assert_eq!(refused_with(client), BAD_PASSWORD, "{user}");
    }
    // A client that was let in, and does not know the password any more, goes.
    let mut scram = Scram::begin("SCRAM-SHA-512", "long", "its pässword");
    let mut client = scram_begun(addr, "SCRAM-SHA-512", &scram.say());
    scram.hear(&auth_data(&client.packet(), "SCRAM-SHA-512").1);
    client.send(&auth_with(0x18, "SCRAM-SHA-512", &scram.say()));
    assert_eq!(client.expect(CONNACK).body[1], 0);
    let mut scram = Scram::begin("SCRAM-SHA-512", "long", "another");
    client.send(&auth_with(0x19, "SCRAM-SHA-512", &scram.say()));
    scram.hear(&auth_data(&client.packet(), "SCRAM-SHA-512").1);
    client.send(&auth_with(0x18, "SCRAM-SHA-512", &scram.say()));
    let said = client.closed();
    assert_eq!((said[0].kind(), said[0].body[0]), (DISCONNECT, BAD_PASSWORD), "{said:02x?}");
    forebay.wait_metric("aio_broker_authentication_failures", &[], 4.0);
}

/// [MQTT-3.1.2-24]
#[test]
fn a_client_that_takes_no_packet_as_large_as_the_answer_to_its_auth_is_sent_away() {
    let (forebay, _directory) = scram_broker();
    let method = "SCRAM-SHA-512";
    let mut scram = Scram::begin(method, "long", "its pässword");
    let mut client = Client::open(forebay.addr, 5);
    let connect = Connect::v5("scram").authentication(method, &scram.say());
    client.send(&connect.property(&[0x27, 0, 0, 1, 44]).bytes());
    scram.hear(&auth_data(&client.packet(), method).1);
    client.send(&auth_with(0x18, method, &scram.say()));
    assert_eq!(client.expect(CONNACK).body[1], 0);
    client.send(&auth_with(0x19, method, &format!("n,,n=long,r={}", "x".repeat(250))));
    let said = client.closed();
    assert_eq!((said.len(), said[0].kind(), said[0].body[0]), (1, DISCONNECT, 0x95), "{said:02x?}");
}

#[test]
fn a_login_by_scram_that_goes_wrong_ends_the_connection() {
    let (forebay, _directory) = scram_broker();
    let (addr, method, first) = (forebay.addr, "SCRAM-SHA-512", "n,,n=long,r=abcdef");
    for message in ["", "nonsense", "p=tls-exporter,,n=long,r=abc", "n,a=other,n=long,r=abc"] {
        assert_eq!(refused_with(scram_begun(addr, method, message)), NOT_AUTHORIZED, "{message}");
    }
    assert_eq!(refused_with(scram_begun(addr, "SCRAM-SHA-1", first)), BAD_METHOD);
    let not_next: [&[u8]; 5] = [
        &auth_with(0x18, "SCRAM-SHA-256", "c=biws,r=abcdef,p="),
        &auth_with(0x19, method, first),
        &mqtt::packet(0xC0, &[]),
        &mqtt::packet(0x30, b"\0\x01t\0payload"),
        &[0xF0, 0x02, 0xFF, 0x00],
    ];
    for bytes in not_next {
        let mut client = scram_begun(addr, method, first);
        auth_data(&client.packet(), method);
        client.send(bytes);
        assert_eq!(refused_with(client), 0x82, "{bytes:02x?}");
    }
    // One who takes no packet of that size is told nothing that is larger.
    let mut client = Client::open(addr, 5);
    let small = Connect::v5("small").property(&[0x27, 0, 0, 0, 40]).authentication(method, first);
    client.send(&small.bytes());
    assert_eq!(refused_with(client), 0x95);
    // One who says nothing more does not stay.
    let mut client = scram_begun(addr, method, first);
    auth_data(&client.packet(), method);
    assert_eq!(refused_with(client), NOT_AUTHORIZED);
}

#[test]
fn certificates_are_good_or_not() {
    let addr = wait::free_addr();
    let (authority, clients, stranger) =
        (Authority::new("Servers"), Authority::new("Clients"), Authority::new("Strangers"));
    let plant = clients.intermediate("Plant");
    let resources = Resources::default()
        .with("listener.yaml", &broker_listener(&[tls_port(addr)]))
        .with("authentication.yaml", &broker_authentication("abc", &[], &["method: X509"]))
        .with("trusted.yaml", &config_map("client-ca", &[("ca.pem", &clients.certificate)]))
        .with("server.yaml", &authority.server().secret("server"))
        .with("ca.crt", &authority.certificate);
    let forebay = Serve::new().resources(&resources).start();
    let ca = resources.file("ca.crt").display().to_string();
    let directory = tempfile::TempDir::new().unwrap();
    let try_with = |identity: &forebay_tests::pki::Identity, name: &str| {
        let (certificate, key) = identity.write(directory.path(), name);
        ["mqttv311", "mqttv5"].map(|version| {
            may_publish(addr, version, &["--cafile", &ca, "--cert", &certificate, "--key", &key])
        })
    };
    assert_eq!(try_with(&clients.client("fan"), "good"), [true, true]);
    let mut chained = plant.client("pump");
    assert_eq!(try_with(&chained, "without"), [false, false]);
    chained.certificate += &plant.certificate;
    assert_eq!(try_with(&chained, "chained"), [true, true]);
    assert_eq!(try_with(&stranger.client("fan"), "stranger"), [false, false]);
    assert_eq!(try_with(&clients.client_of_yesterday("fan"), "ended"), [false, false]);
    assert_eq!(try_with(&clients.server(), "no-client"), [false, false]);
    assert!(!may_publish(addr, "mqttv5", &["--cafile", &ca]));
    forebay.wait_metric("aio_broker_authentication_failures", &[], 8.0);
    forebay.wait_metric("aio_broker_authentication_deny", &[], 1.0);
    // Who has come in with a certificate goes when that ends.
    let (certificate, key) =
        clients.client_until("fan", Duration::from_secs(4)).write(directory.path(), "short");
    let mut command = Command::new("mosquitto_sub");
    command.args(["-h", "127.0.0.1", "-p", &addr.port().to_string(), "-V", "mqttv5", "-t", "t", "-d"]);
    command.args(["--cafile", &ca, "--cert", &certificate, "--key", &key]);
    let mut subscriber = process::Process::start(command);
    subscriber.says("received SUBACK");
    forebay.wait_metric("forebay_credentials_expired", &[], 1.0);
    subscriber.says("Received DISCONNECT (135)");
}

#[test]
fn a_certificate_that_is_revoked_is_good_no_longer() {
    let addr = wait::free_addr();
    let (authority, clients, others) =
        (Authority::new("Servers"), Authority::new("Clients"), Authority::new("Others"));
    let hour = Duration::from_secs(3600);
    let list = |pem: &str| config_map("revoked", &[("crl.pem", pem)]);
    let trusted = [("a.pem", clients.certificate.as_str()), ("b.pem", others.certificate.as_str())];
    let named = [("client-crl", "revoked")];
    let resources = Resources::default()
        .with("listener.yaml", &broker_listener(&[tls_port(addr)]))
        .with("authentication.yaml", &broker_authentication("abc", &named, &["method: X509"]))
        .with("trusted.yaml", &config_map("client-ca", &trusted))
        .with("revoked.yaml", &list(&clients.revocations(&[7], hour)))
        .with("server.yaml", &authority.server().secret("server"))
        .with("ca.crt", &authority.certificate);
    let forebay = Serve::new().resources(&resources).start();
    let ca = resources.file("ca.crt").display().to_string();
    let directory = tempfile::TempDir::new().unwrap();
    let comes_in = |identity: &forebay_tests::pki::Identity, name: &str| {
        let (certificate, key) = identity.write(directory.path(), name);
        may_publish(addr, "mqttv5", &["--cafile", &ca, "--cert", &certificate, "--key", &key])
    };
    let (seventh, eighth) = (clients.numbered_client("fan", 7), clients.numbered_client("pump", 8));
    assert!(!comes_in(&seventh, "seventh") && comes_in(&eighth, "eighth"));
    // Of an issuer without a list nothing is known.
    assert!(!comes_in(&others.client("fan"), "other"));
    // Lists change, and what is no list changes nothing.
    let resources = resources.with("revoked.yaml", &list("nothing"));
    forebay.wait_metric("forebay_reloads", &["result=\"refused\""], 1.0);
    assert!(
        forebay.output().contains("the ConfigMap `revoked` holds no revocation list"),
        "{}",
        forebay.output()
    );
    assert!(!comes_in(&seventh, "seventh") && comes_in(&eighth, "eighth"));
    let both = clients.revocations(&[8], hour) + &others.revocations(&[], hour);
    let resources = resources.with("revoked.yaml", &list(&both));
    wait::until("the new list is in effect", || {
        let came = [&seventh, &eighth].map(|identity| comes_in(identity, "again"));
        (came == [true, false]).then_some(()).ok_or_else(|| format!("{came:?}"))
    });
    assert!(comes_in(&others.client("fan"), "other"));
    // A list that has ended says nothing any more.
    let _resources = resources.with("revoked.yaml", &list(&clients.revocations(&[], Duration::from_secs(0))));
    wait::until("nobody comes in", || {
        let came = comes_in(&seventh, "again");
        (!came).then_some(()).ok_or_else(|| "it comes in".to_owned())
    });
}

#[test]
fn the_first_method_that_is_meant_decides() {
    let cluster = Cluster::new("one");
    let addr = wait::free_addr();
    let directory = tempfile::TempDir::new().unwrap();
    let passwords = directory.path().join("p").display().to_string();
    assert!(forebay::run(["passwd", "-b", &passwords, "ada", "secret"]).0.success());
    let resources = Resources::default()
        .with("keys.json", &cluster.keys())
        .with("listener.yaml", &broker_listener(&[port(addr)]))
        .with(
            "authentication.yaml",
            &broker_authentication(
                "abc",
                &[("token-keys", "keys.json"), ("password-file", &passwords)],
                &[TOKENS],
            ),
        );
    let _forebay = Serve::new().resources(&resources).start();
    let good = cluster.token("a", AUDIENCE, 3600);
    Client::connect(addr, &Connect::v5("a").login("ada", "secret")).disconnect();
    Client::connect(addr, &Connect::v5("b").authentication("K8S-SAT", &good)).disconnect();
    // A bad token does not become good by a good password.
    let both = Connect::v5("c").login("ada", "secret").authentication("K8S-SAT", "bad");
    assert_eq!(Client::refused(addr, &both), NOT_AUTHORIZED);
    let both = Connect::v5("c").login("ada", "wrong").authentication("K8S-SAT", &good);
    Client::connect(addr, &both).disconnect();
}

/// A broker that asks the web service at `endpoint`; the authority that both sides' certificates are signed by.
fn custom_broker(
    endpoint: SocketAddr,
    authority: &Authority,
    more: &[&str],
) -> (Forebay, SocketAddr, SocketAddr, Resources) {
    let (plain, secure) = (wait::free_addr(), wait::free_addr());
    let custom = format!(
        "method: Custom\ncustomSettings:\n  endpoint: https://localhost:{}\n  caCertConfigMap: service-ca\n  headers:\n    X-Plant: north\n  auth:\n    x509:\n      secretRef: broker",
        endpoint.port()
    );
    let methods: Vec<&str> = std::iter::once(custom.as_str()).chain(more.iter().copied()).collect();
    let resources = Resources::default()
        .with("listener.yaml", &broker_listener(&[port(plain), tls_port(secure)]))
        .with("authentication.yaml", &broker_authentication("abc", &[], &methods))
        .with("ca.yaml", &config_map("service-ca", &[("ca.pem", &authority.certificate)]))
        .with("clients.yaml", &config_map("client-ca", &[("ca.pem", &authority.certificate)]))
        .with("broker.yaml", &authority.client("broker").secret("broker"))
        .with("server.yaml", &authority.server().secret("server"));
    (Serve::new().resources(&resources).start(), plain, secure, resources)
}

#[test]
fn a_web_service_of_the_users_own_decides() {
    let authority = Authority::new("Both sides");
    let service = https::Server::start(&authority.server(), Some(&authority.certificate), |request| {
        let asked = request.json();
        match asked["username"].as_str() {
            Some("ada") => (200, "{}".to_owned()),
            Some("short") => {
                let end = std::time::SystemTime::now() + Duration::from_secs(3);
                (200, json!({"expiry": rfc3339(end), "attributes": {"role": "guest"}}).to_string())
            }
            Some("ended") => (200, json!({"expiry": "2020-01-01T00:00:00Z"}).to_string()),
            Some("banned") => (403, json!({"reason": 138, "message": "not here"}).to_string()),
            Some("odd") => (403, json!({"reason": 0}).to_string()),
            Some("versions") if request.line.ends_with("=0.5.0") => {
                (422, json!({"supportedVersions": ["0.6.0"]}).to_string())
            }
            Some("versions") if request.line.ends_with("=0.6.0") => (200, "{}".to_owned()),
            Some("broken") => (500, "no".to_owned()),
            _ => (403, json!({"reason": 135}).to_string()),
        }
    });
    let (forebay, addr, secure, _resources) = custom_broker(service.addr, &authority, &[]);
    let connect = |user: &str| Connect::v5("c").login(user, "secret");
    Client::connect(addr, &connect("ada")).disconnect();
    let asked = service.requests().pop().unwrap();
    assert_eq!(asked.line, "POST /?api-version=0.5.0");
    assert_eq!(
        (asked.header("content-type"), asked.header("x-plant")),
        (Some("application/json"), Some("north"))
    );
    assert_eq!(asked.json(), json!({"type": "connect", "username": "ada", "password": "c2VjcmV0"}));
    Client::connect(addr, &connect("versions")).disconnect();
    assert_eq!(Client::refused(addr, &connect("banned")), 0x8A);
    assert_eq!(Client::refused(addr, &Connect::v4("c").login("banned", "x")), 5);
    assert_eq!(Client::refused(addr, &connect("odd")), NOT_AUTHORIZED);
    assert_eq!(Client::refused(addr, &connect("ended")), NOT_AUTHORIZED);
    assert_eq!(Client::refused(addr, &connect("broken")), NOT_AUTHORIZED);
    assert_eq!(Client::refused(addr, &Connect::v5("anonymous")), NOT_AUTHORIZED);
    assert_eq!(service.requests().pop().unwrap().json(), json!({"type": "connect"}));
    let said = Client::connect(addr, &connect("short")).closed();
    assert_eq!((said[0].kind(), said[0].body[0]), (DISCONNECT, NOT_AUTHORIZED), "{said:02x?}");
    forebay.wait_metric("forebay_authentication_service_errors", &[], 1.0);
    // Certificates are passed on, the client's own first.
    let directory = tempfile::TempDir::new().unwrap();
    let ca = directory.path().join("ca.crt").display().to_string();
    std::fs::write(&ca, &authority.certificate).unwrap();
    let identity = authority.client("fan");
    let (certificate, key) = identity.write(directory.path(), "fan");
    let login = ["--cafile", &ca, "--cert", &certificate, "--key", &key, "-u", "ada", "-P", "x"];
    assert!(may_publish(secure, "mqttv311", &login));
    let asked = service.requests().pop().unwrap().json();
    let lines = |text: &str| text.split_whitespace().collect::<String>();
    let shown = lines(asked["certs"].as_str().unwrap());
    // The client's library adds what it trusts.
    assert!(shown.starts_with(&lines(&identity.certificate)), "{shown}");
}

fn rfc3339(time: std::time::SystemTime) -> String {
    let time = time::OffsetDateTime::from(time);
    let (date, clock) = (time.date(), time.time());
    format!("{date}T{:02}:{:02}:{:02}Z", clock.hour(), clock.minute(), clock.second())
}

#[test]
fn a_web_service_that_cannot_be_reached_or_trusted_is_passed_over() {
    let (authority, stranger) = (Authority::new("Both sides"), Authority::new("Strangers"));
    let impostor = https::Server::start(&stranger.server(), None, |_| (200, "{}".to_owned()));
    let directory = tempfile::TempDir::new().unwrap();
    let ca = directory.path().join("ca.crt").display().to_string();
    std::fs::write(&ca, &authority.certificate).unwrap();
    let (certificate, key) = authority.client("fan").write(directory.path(), "fan");
    for endpoint in [wait::free_addr(), impostor.addr] {
        let (forebay, addr, secure, _resources) = custom_broker(endpoint, &authority, &["method: X509"]);
        assert_eq!(Client::refused(addr, &Connect::v5("c").login("ada", "x")), NOT_AUTHORIZED);
        assert!(may_publish(secure, "mqttv5", &["--cafile", &ca, "--cert", &certificate, "--key", &key]));
        forebay.wait_metric("forebay_authentication_service_errors", &[], 2.0);
        forebay.wait_metric("aio_broker_authentication_deny", &[], 1.0);
    }
    assert!(impostor.requests().is_empty());
}

#[test]
fn a_clusters_api_server_reviews_tokens() {
    let (authority, cluster) = (Authority::new("Cluster"), Cluster::new("one"));
    let good = cluster.token("pump", AUDIENCE, 3600);
    let (known, elsewhere) = (good.clone(), cluster.token("pump", "other", 3600));
    let other_audience = elsewhere.clone();
    let api = https::Server::start(&authority.server(), None, move |request| {
        if request.header("authorization") != Some("Bearer the broker's own") {
            return (401, "{}".to_owned());
        }
        match request.line.as_str() {
            "POST /apis/authentication.k8s.io/v1/tokenreviews" => {
                let token = request.json()["spec"]["token"].clone();
                let user = json!({"username": "system:serviceaccount:azure-iot-operations:pump", "extra": {"aio-broker-auth/from": ["extra"]}});
                let status = if token == known.as_str() {
                    json!({"authenticated": true, "user": user, "audiences": [AUDIENCE]})
                } else if token == elsewhere.as_str() {
                    json!({"authenticated": true, "user": user, "audiences": ["other"]})
                } else {
                    json!({"authenticated": false, "error": "unknown"})
                };
                (201, json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status}).to_string())
            }
            "GET /api/v1/namespaces/azure-iot-operations/serviceaccounts/pump" => (
                200,
                json!({"metadata": {"annotations": {"aio-broker-auth/site": "north", "x": "y"}}}).to_string(),
            ),
            _ => (404, "{}".to_owned()),
        }
    });
    let addr = wait::free_addr();
    let server = format!("https://localhost:{}", api.addr.port());
    let annotations =
        [("kubernetes-api", server.as_str()), ("kubernetes-ca", "api-ca"), ("kubernetes-token-file", "own")];
    let rules = "\
- principals:
    attributes: [{site: north, from: extra}]
  brokerResources:
    - method: Connect
    - {method: Publish, topics: ['{principal.attributes.site}/#']}
";
    let resources = Resources::default()
        .with("own", "the broker's own\n")
        .with("listener.yaml", &broker_listener(&[format!("{}\nauthorizationRef: rules", port(addr))]))
        .with("authentication.yaml", &broker_authentication("abc", &annotations, &[TOKENS]))
        .with("rules.yaml", &forebay_tests::resources::broker_authorization("rules", rules))
        .with("ca.yaml", &config_map("api-ca", &[("ca.pem", &authority.certificate)]));
    let _forebay = Serve::new().resources(&resources).start();
    let mut client = Client::connect(addr, &Connect::v5("c").authentication("K8S-SAT", &good));
    client.publish("north/t", 1, b"allowed by what the service account is annotated with");
    let review = &api.requests()[0];
    assert_eq!(review.json()["spec"]["audiences"], json!([AUDIENCE]));
    for bad in [other_audience.as_str(), &cluster.token("valve", AUDIENCE, 3600)] {
        assert_eq!(Client::refused(addr, &Connect::v5("c2").authentication("K8S-SAT", bad)), NOT_AUTHORIZED);
    }
}

#[test]
fn attributes_come_from_the_first_subject_on_the_way_up() {
    let addr = wait::free_addr();
    let (authority, clients) = (Authority::new("Servers"), Authority::new("Contoso Root"));
    let plant = clients.intermediate("Contoso Plant");
    let unnamed = clients.intermediate("Contoso Warehouse");
    let x509 = "\
method: X509
x509Settings:
  trustedClientCaCert: contoso
  authorizationAttributes:
    root: {subject: 'CN = Contoso Root', attributes: {where: anywhere}}
    plant: {subject: 'CN = Contoso Plant', attributes: {where: plant}}
    fan: {subject: 'CN = smart-fan', attributes: {where: hall}}";
    let rules = "\
- principals: {attributes: [{where: anywhere}, {where: plant}, {where: hall}]}
  brokerResources:
    - method: Connect
      clientIds: ['{principal.username}']
    - {method: Publish, topics: ['{principal.attributes.where}/{principal.username}']}
";
    let resources = Resources::default()
        .with("listener.yaml", &broker_listener(&[format!("{}\nauthorizationRef: rules", tls_port(addr))]))
        .with("authentication.yaml", &broker_authentication("abc", &[], &[x509]))
        .with("rules.yaml", &forebay_tests::resources::broker_authorization("rules", rules))
        .with("trusted.yaml", &config_map("contoso", &[("ca.pem", &clients.certificate)]))
        .with("server.yaml", &authority.server().secret("server"))
        .with("ca.crt", &authority.certificate);
    let forebay = Serve::new().resources(&resources).start();
    let ca = resources.file("ca.crt").display().to_string();
    let directory = tempfile::TempDir::new().unwrap();
    let mut watcher = Client::connect(forebay.addr, &Connect::v5("watcher"));
    watcher.subscribe("#", 0);
    // What else is sent along is no part of the way: it was not needed to get to the root.
    let cases = [
        (&plant, "smart-fan", "", "hall/smart-fan"),
        (&plant, "pump", "", "plant/pump"),
        (&unnamed, "pump", plant.certificate.as_str(), "anywhere/pump"),
        (&clients, "valve", plant.certificate.as_str(), "anywhere/valve"),
    ];
    for (issuer, name, along, topic) in cases {
        let mut identity = issuer.client(name);
        if !std::ptr::eq(issuer, &clients) {
            identity.certificate += &issuer.certificate;
        }
        identity.certificate += along;
        let (certificate, key) = identity.write(directory.path(), "client");
        let login = ["--cafile", &ca, "--cert", &certificate, "--key", &key, "-i", name];
        // The others are acknowledged with an error and go nowhere.
        for place in ["hall", "plant", "anywhere"] {
            let mut command = Command::new("mosquitto_pub");
            command.args(["-h", "127.0.0.1", "-p", &addr.port().to_string(), "-V", "mqttv5", "-q", "1"]);
            command.args(["-t", &format!("{place}/{name}"), "-m", "m"]).args(login);
            process::run(command);
        }
        assert_eq!(watcher.receive().topic, topic);
        watcher.settle();
        let other = ["--cafile", &ca, "--cert", &certificate, "--key", &key, "-i", "somebody-else"];
        assert!(!may_publish(addr, "mqttv5", &other));
    }
}

#[test]
fn a_clusters_keys_are_fetched_from_where_it_publishes_them() {
    let (authority, old, new) = (Authority::new("Public"), Cluster::new("old"), Cluster::new("new"));
    let published = std::sync::Arc::new(std::sync::Mutex::new(old.keys()));
    let answer = std::sync::Arc::clone(&published);
    let issuer =
        https::Server::start(&authority.server(), None, move |_| (200, answer.lock().unwrap().clone()));
    let addr = wait::free_addr();
    let keys = format!("https://localhost:{}/openid/v1/jwks", issuer.addr.port());
    let annotations =
        [("token-keys", keys.as_str()), ("token-issuer", "https://kubernetes.default.svc.cluster.local")];
    let resources = Resources::default()
        .with("listener.yaml", &broker_listener(&[port(addr)]))
        .with("authentication.yaml", &broker_authentication("abc", &annotations, &[TOKENS]))
        .with("ca.crt", &authority.certificate);
    let ca = resources.file("ca.crt").display().to_string();
    let _forebay = Serve::new().resources(&resources).env("SSL_CERT_FILE", &ca).start();
    let connect = |token: &str| Connect::v5("c").authentication("K8S-SAT", token);
    for _ in 0..3 {
        Client::connect(addr, &connect(&old.token("a", AUDIENCE, 3600))).disconnect();
    }
    assert_eq!(issuer.requests().len(), 1, "keys are kept");
    assert_eq!(issuer.requests()[0].line, "GET /openid/v1/jwks");
    let elsewhere = old.token_with("a", AUDIENCE, 3600, &json!({"iss": "https://elsewhere"}));
    assert_eq!(Client::refused(addr, &connect(&elsewhere)), NOT_AUTHORIZED);
    // A key that is not known yet is not asked for again and again, whoever names it.
    *published.lock().unwrap() = new.keys();
    for _ in 0..3 {
        assert_eq!(Client::refused(addr, &connect(&new.token("a", AUDIENCE, 3600))), NOT_AUTHORIZED);
    }
    assert_eq!(issuer.requests().len(), 1);
}
