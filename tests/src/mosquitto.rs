//! mosquitto's own clients, as a user runs them.

use std::net::SocketAddr;
use std::process::Command;

use serde_json::Value;

use crate::process::{self, Process};
use crate::wait;

/// Protocol versions as mosquitto's clients name them.
pub const VERSIONS: [&str; 2] = ["mqttv311", "mqttv5"];

/// Publishes one message with `mosquitto_pub` and waits until it says it is done.
pub fn publish(addr: SocketAddr, version: &str, topic: &str, payload: &str, qos: u8, more: &[&str]) {
    let mut command = Command::new("mosquitto_pub");
    command.args(["-h", &addr.ip().to_string(), "-p", &addr.port().to_string(), "-V", version]);
    command.args(["-t", topic, "-m", payload, "-q", &qos.to_string()]).args(more);
    let (status, output) = process::run(command);
    assert!(status.success(), "mosquitto_pub: {status}\n{output}");
}

/// A `mosquitto_sub` that has been granted its subscription.
pub struct Subscriber {
    process: Process,
    taken: usize,
}

/// A message as `mosquitto_sub` prints it.
#[derive(Debug)]
pub struct Message {
    /// Its topic.
    pub topic: String,
    /// The QoS it was delivered with.
    pub qos: u64,
    /// Its retain flag.
    pub retain: bool,
    /// Its payload, as text.
    pub payload: String,
    /// MQTT 5 properties as JSON text, in the order they came (user properties may repeat).
    pub properties: String,
}

impl Message {
    /// The payload as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.payload).unwrap_or_else(|error| panic!("{error} in {}", self.payload))
    }
}

impl Subscriber {
    /// Subscribes and waits for the broker's answer.
    pub fn start(addr: SocketAddr, version: &str, filter: &str, qos: u8, more: &[&str]) -> Self {
        let mut command = Command::new("stdbuf");
        // Debug output says when the subscription stands; line buffering lets it be seen.
        command.args(["-oL", "mosquitto_sub", "-d", "-F", "message %j", "-V", version]);
        command.args(["-h", &addr.ip().to_string(), "-p", &addr.port().to_string()]);
        command.args(["-t", filter, "-q", &qos.to_string()]).args(more);
        let mut process = Process::start(command);
        process.line("mosquitto_sub is subscribed", |line| line.starts_with("Subscribed (mid"));
        Self { process, taken: 0 }
    }

    /// The next message.
    pub fn receive(&mut self) -> Message {
        let at = self.taken;
        let text = wait::until("mosquitto_sub prints a message", || {
            let mut messages = self.process.lines().into_iter().filter(|line| line.starts_with("message {"));
            messages.nth(at).ok_or_else(|| self.process.output())
        });
        self.taken += 1;
        parse(text.trim_start_matches("message "))
    }
}

fn parse(text: &str) -> Message {
    let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"));
    let properties = match (text.find("\"properties\":"), text.rfind(",\"payload\":")) {
        (Some(from), Some(to)) if from < to => text[from + "\"properties\":".len()..to].to_owned(),
        _ => String::new(),
    };
    Message {
        topic: value["topic"].as_str().unwrap_or_default().to_owned(),
        qos: value["qos"].as_u64().unwrap_or(u64::MAX),
        retain: value["retain"] == 1,
        payload: value["payload"].as_str().unwrap_or_default().to_owned(),
        properties,
    }
}
