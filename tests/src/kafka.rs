//! A server that speaks Kafka's protocol, also behind TLS, and kcat, a client that others wrote.

use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{fs, io::Write, thread};

use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;

use crate::front::Front;
use crate::pki::Authority;
use crate::process::{self, Process};
use crate::{repository, wait};

/// A running server. What it was given survives a stop in good order.
pub struct Kafka {
    /// Where it listens.
    pub addr: SocketAddr,
    process: Option<Process>,
    /// Ends TLS in front of it.
    front: Option<Front>,
    /// What librdkafka must know, beyond the address, to be let in.
    client: Vec<(&'static str, String)>,
    data: TempDir,
}

fn program() -> PathBuf {
    let lib = repository().join(".tools/clients/lib");
    let versions = fs::read_dir(&lib).into_iter().flatten().flatten();
    let found =
        versions.map(|entry| entry.path().join("site-packages/noida_db/noida-db")).find(|path| path.exists());
    found.expect("noida-db is there; tests/setup installs it")
}

fn arguments(data: &Path, addr: SocketAddr) -> [String; 9] {
    let (data, port) = (data.display().to_string(), addr.port().to_string());
    ["start", "--host", "127.0.0.1", "--only", "kafka", "--data-dir", &data, "--kafka-port", &port]
        .map(ToOwned::to_owned)
}

/// The server in a network of its own, where it can be reached by a socket in the file system only.
fn secluded(data: &Path, addr: SocketAddr, socket: &Path) -> Process {
    let script = "ip link set lo up; socat UNIX-LISTEN:\"$0\",fork TCP:\"$1\" & shift; exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--net", "sh", "-c", script]).arg(socket).arg(addr.to_string());
    command.arg(program()).args(arguments(data, addr)).process_group(0);
    Process::start(command)
}

impl Kafka {
    /// An empty one.
    pub fn start() -> Self {
        let mut kafka = Self::stopped();
        kafka.resume();
        kafka
    }

    /// An empty one that speaks TLS, with a certificate of `authority`, and only to clients that have one of it as well.
    ///
    /// The server itself speaks no TLS, and tells clients to come to the very port that it listens on: it does so in a network
    /// of its own, and HAProxy has that port in this one.
    pub fn behind_tls(authority: &Authority) -> Self {
        let mut kafka = Self::stopped();
        let place = kafka.data.path();
        let (certificate, key) = authority.client("test").write(place, "client");
        let trusted = place.join("trusted").display().to_string();
        fs::write(&trusted, &authority.certificate).expect("a file can be written");
        kafka.client = vec![
            ("security.protocol", "ssl".to_owned()),
            ("ssl.ca.location", trusted),
            ("ssl.certificate.location", certificate),
            ("ssl.key.location", key),
        ];
        let (inside, addr) = (place.join("socket"), kafka.addr);
        kafka.process = Some(secluded(place, addr, &inside));
        let settings = format!(
            "mode tcp\nbind {addr},127.0.0.2:{} ssl crt SERVER ca-file CLIENTS verify required\nserver inside unix@{}",
            addr.port(),
            inside.display()
        );
        kafka.front = Some(Front::new(authority, &settings));
        kafka.wait();
        kafka
    }

    fn stopped() -> Self {
        let data = TempDir::new().expect("a directory");
        Self { addr: wait::free_addr(), process: None, front: None, client: Vec::new(), data }
    }

    /// Starts it again, with what it had.
    pub fn resume(&mut self) {
        let mut command = Command::new(program());
        command.args(arguments(self.data.path(), self.addr));
        self.process = Some(Process::start(command));
        self.wait();
    }

    fn wait(&self) {
        wait::until("the Kafka server answers", || self.try_kcat(&["-L"], b"").map(|_| ()));
    }

    /// Stops it in good order.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::TERM);
            process.wait();
        }
    }

    /// Makes it hold still, as a machine that hangs does.
    pub fn hang(&self) {
        self.process.iter().for_each(Process::hang);
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        self.process.iter().for_each(Process::go_on);
    }

    /// Makes a topic of so many partitions.
    pub fn create(&self, topic: &str, partitions: u32) {
        let script = "import json, sys\nfrom confluent_kafka.admin import AdminClient, NewTopic\n\
            admin = AdminClient(json.loads(sys.argv[1]))\n\
            [it.result() for it in admin.create_topics([NewTopic(sys.argv[2], int(sys.argv[3]), 1)]).values()]\n";
        self.python(script, &[topic, &partitions.to_string()]);
    }

    /// How many messages of a topic of so many partitions a group is done with.
    pub fn committed(&self, group: &str, topic: &str, partitions: u32) -> u64 {
        let script = "import json, sys\nfrom confluent_kafka import Consumer, TopicPartition\n\
            consumer = Consumer(json.loads(sys.argv[1]) | {'group.id': sys.argv[2]})\n\
            asked = [TopicPartition(sys.argv[3], it) for it in range(int(sys.argv[4]))]\n\
            print(sum(max(it.offset, 0) for it in consumer.committed(asked, timeout=10)))\n";
        let output = self.python(script, &[group, topic, &partitions.to_string()]);
        output.trim().parse().unwrap_or_else(|_| panic!("a number: {output}"))
    }

    fn python(&self, script: &str, arguments: &[&str]) -> String {
        let mut command = Command::new(repository().join(".tools/clients/bin/python"));
        let mut client = json!({"bootstrap.servers": self.addr.to_string()});
        self.client.iter().for_each(|(key, value)| client[key] = json!(value));
        command.args(["-c", script, &client.to_string()]).args(arguments);
        let (status, output) = process::run(command);
        assert!(status.success(), "{output}");
        output
    }

    /// Runs kcat with these arguments and this input; what it printed.
    pub fn kcat(&self, arguments: &[&str], input: &[u8]) -> String {
        self.try_kcat(arguments, input).unwrap_or_else(|error| panic!("kcat {arguments:?}: {error}"))
    }

    fn try_kcat(&self, arguments: &[&str], input: &[u8]) -> Result<String, String> {
        let mut command = Command::new("kcat");
        command.args(["-b", &self.addr.to_string(), "-m", "10"]);
        for (key, value) in &self.client {
            command.arg("-X").arg(format!("{key}={value}"));
        }
        command.args(arguments);
        let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = pipes.spawn().map_err(|error| format!("kcat cannot be started: {error}"))?;
        let (mut stdin, input) = (child.stdin.take().expect("piped"), input.to_vec());
        let fed = thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output().map_err(|error| error.to_string())?;
        let _ = fed.join();
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    /// Puts messages, one a line, into a topic.
    pub fn produce(&self, topic: &str, more: &[&str], lines: &[String]) {
        self.kcat(&[&["-P", "-t", topic], more].concat(), lines.join("\n").as_bytes());
    }

    /// Everything that a topic has, a line each, as `format` says.
    pub fn consume(&self, topic: &str, format: &str) -> Vec<String> {
        let text = self
            .kcat(&["-C", "-t", topic, "-o", "beginning", "-e", "-q", "-f", &format!("{format}\\n")], b"");
        text.lines().map(ToOwned::to_owned).collect()
    }
}
