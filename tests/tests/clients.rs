//! Clients that others wrote: Eclipse Paho for Python and rumqttc; mosquitto's are in `mqtt.rs`.

use std::process::Command;
use std::time::Duration;

use forebay_tests::forebay::Serve;
use forebay_tests::{process, repository};

#[test]
fn eclipse_paho_talks_to_itself_in_every_version_at_every_qos() {
    let python = repository().join(".tools/clients/bin/python");
    assert!(python.exists(), "{} is missing: run tests/setup", python.display());
    let broker = Serve::new().start();
    let mut command = Command::new(python);
    command.arg(repository().join("tests/clients/with_paho.py")).arg(broker.addr.port().to_string());
    let (status, output) = process::run(command);
    assert!(status.success(), "{status}\n{output}");
}

/// How long a client waits for what comes next.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn rumqttc_of_3_1_1_gets_what_it_publishes_at_every_qos() {
    use rumqttc::{Client, Event, Incoming, MqttOptions, QoS};
    let broker = Serve::new().start();
    let mut options = MqttOptions::new("rumqttc-4", broker.addr.ip().to_string(), broker.addr.port());
    options.set_keep_alive(Duration::from_secs(30)).set_clean_session(true);
    let (client, mut connection) = Client::new(options, 10);
    client.subscribe("rumqttc/#", QoS::ExactlyOnce).expect("it is queued");
    let mut next = || loop {
        match connection.recv_timeout(PATIENCE).expect("something comes").expect("a good connection") {
            Event::Incoming(Incoming::SubAck(_)) => return None,
            Event::Incoming(Incoming::Publish(publish)) => return Some(publish),
            _ => {}
        }
    };
    assert!(next().is_none(), "the subscription is granted first");
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        client.publish("rumqttc/four", qos, false, format!("{qos:?}")).expect("it is queued");
        let message = next().expect("a message");
        assert_eq!((message.topic.as_str(), message.qos), ("rumqttc/four", qos));
        assert_eq!(message.payload, format!("{qos:?}"));
    }
}

#[test]
fn rumqttc_of_5_gets_what_it_publishes_at_every_qos() {
    use rumqttc::v5::mqttbytes::QoS;
    use rumqttc::v5::mqttbytes::v5::{ConnectProperties, PublishProperties};
    use rumqttc::v5::{Client, Event, Incoming, MqttOptions};
    let broker = Serve::new().start();
    let mut options = MqttOptions::new("rumqttc-5", broker.addr.ip().to_string(), broker.addr.port());
    options.set_keep_alive(Duration::from_secs(30)).set_clean_start(true);
    options
        .set_connect_properties(ConnectProperties { receive_maximum: Some(10), ..ConnectProperties::new() });
    let (client, mut connection) = Client::new(options, 10);
    client.subscribe("rumqttc/#", QoS::ExactlyOnce).expect("it is queued");
    let mut next = || loop {
        match connection.recv_timeout(PATIENCE).expect("something comes").expect("a good connection") {
            Event::Incoming(Incoming::SubAck(_)) => return None,
            Event::Incoming(Incoming::Publish(publish)) => return Some(publish),
            _ => {}
        }
    };
    assert!(next().is_none(), "the subscription is granted first");
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let properties = PublishProperties {
            user_properties: vec![("k".to_owned(), "v".to_owned())],
            content_type: Some("text/plain".to_owned()),
            ..PublishProperties::default()
        };
        let payload = format!("{qos:?}");
        client
            .publish_with_properties("rumqttc/five", qos, false, payload.clone(), properties.clone())
            .expect("it is queued");
        let message = next().expect("a message");
        assert_eq!((&message.topic[..], message.qos), (&b"rumqttc/five"[..], qos));
        assert_eq!(message.payload, payload);
        let got = message.properties.expect("properties came with it");
        assert_eq!(
            (got.user_properties, got.content_type),
            (properties.user_properties, properties.content_type)
        );
    }
}
