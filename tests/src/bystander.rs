//! Somebody who has nothing to do with what goes wrong: a client of its own, and the sample graph. Both must go on.

use std::time::{Duration, Instant};

use crate::forebay::Forebay;
use crate::mqtt::{Client, Connect};

/// A client that publishes to itself, plainly and through the healthy graph `sensor/temperature/raw` →
/// `sensor/temperature/processed`.
pub struct Bystander {
    client: Client,
    count: u32,
    worst: Duration,
}

impl Bystander {
    /// Connects and subscribes.
    pub fn new(broker: &Forebay) -> Self {
        let mut client = Client::connect(broker.addr, &Connect::v5("bystander"));
        client.subscribe("bystander/#", 1);
        client.subscribe("sensor/temperature/processed", 0);
        Self { client, count: 0, worst: Duration::ZERO }
    }

    /// One message from client to client and one through the graph, both checked.
    pub fn goes_on(&mut self) {
        let begun = Instant::now();
        self.count += 1;
        let text = format!("message {}", self.count);
        self.client.publish("bystander/plain", 0, text.as_bytes());
        assert_eq!(self.client.receive().text(), text);
        let fahrenheit = f64::from(self.count) + 0.5;
        let reading = format!(r#"{{"temperature":{{"value":{fahrenheit:?},"unit":"F"}}}}"#);
        self.client.publish("sensor/temperature/raw", 0, reading.as_bytes());
        let message = self.client.receive();
        assert_eq!(message.topic, "sensor/temperature/processed");
        // As text: reading it back into a number could lose its last digit.
        let value = format!(r#""value":{:?},"#, (fahrenheit - 32.0) * 5.0 / 9.0);
        assert!(message.text().contains(&value), "{value} in {}", message.text());
        self.worst = self.worst.max(begun.elapsed());
    }

    /// The longest that both took together.
    pub fn worst(&self) -> Duration {
        self.worst
    }
}
