"""Every QoS between every two protocol versions, a retained message and a will, with Eclipse Paho's client.

usage: with_paho.py PORT. Ends with 0 when all came as it must; says what did not.
"""

import queue
import sys

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

PATIENCE = 60
VERSIONS = {"3.1": mqtt.MQTTv31, "3.1.1": mqtt.MQTTv311, "5": mqtt.MQTTv5}


class Client:
    """A client with its network loop, whose events are waited for."""

    def __init__(self, name, version, port, will=None):
        self.messages, self.events = queue.Queue(), queue.Queue()
        options = {} if version == mqtt.MQTTv5 else {"clean_session": True}
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=name, protocol=version, **options)
        self.client.on_connect = lambda _c, _u, _f, reason, _p: self.events.put(("connected", reason))
        self.client.on_subscribe = lambda _c, _u, _m, reasons, _p: self.events.put(("subscribed", reasons))
        self.client.on_publish = lambda _c, _u, mid, _r, _p: self.events.put(("published", mid))
        self.client.on_message = lambda _c, _u, message: self.messages.put(message)
        if will:
            self.client.will_set(*will)
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        reason = self.event("connected")
        assert not reason.is_failure, reason

    def event(self, wanted):
        name, detail = self.events.get(timeout=PATIENCE)
        assert name == wanted, (name, detail)
        return detail

    def subscribe(self, topic, qos):
        self.client.subscribe(topic, qos)
        for reason in self.event("subscribed"):
            assert reason.value == qos, reason

    def publish(self, topic, payload, qos, retain=False, properties=None):
        self.client.publish(topic, payload, qos, retain, properties)
        self.event("published")

    def receive(self):
        return self.messages.get(timeout=PATIENCE)

    def leave(self):
        self.client.disconnect()
        self.client.loop_stop()


def every_qos(port):
    subscribers = {name: Client(f"sub-{name}", version, port) for name, version in VERSIONS.items()}
    for name, subscriber in subscribers.items():
        subscriber.subscribe("paho/plain", 2)
    for name, version in VERSIONS.items():
        publisher = Client(f"pub-{name}", version, port)
        for qos in range(3):
            payload = f"{name} at {qos}".encode()
            publisher.publish("paho/plain", payload, qos)
            for reader, subscriber in subscribers.items():
                message = subscriber.receive()
                got = (message.topic, message.payload, message.qos, message.retain)
                assert got == ("paho/plain", payload, qos, False), (reader, got)
        publisher.leave()
    for subscriber in subscribers.values():
        subscriber.leave()


def properties_and_aliases(port):
    subscriber = Client("properties", mqtt.MQTTv5, port)
    subscriber.client.subscribe("paho/props", options=SubscribeOptions(qos=1, noLocal=True, retainAsPublished=True))
    subscriber.event("subscribed")
    publisher = Client("publisher", mqtt.MQTTv5, port)
    properties = Properties(PacketTypes.PUBLISH)
    properties.UserProperty = [("k", "2"), ("k", "1")]
    properties.ContentType, properties.ResponseTopic = "text/plain", "answer/here"
    properties.CorrelationData, properties.MessageExpiryInterval = b"\0\1", 100
    publisher.publish("paho/props", b"x", 1, True, properties)
    message = subscriber.receive()
    got = message.properties
    assert got.UserProperty == [("k", "2"), ("k", "1")] and got.ContentType == "text/plain", got
    assert got.ResponseTopic == "answer/here" and got.CorrelationData == b"\0\1", got
    assert 90 <= got.MessageExpiryInterval <= 100 and message.retain, got
    late = Client("late", mqtt.MQTTv311, port)
    late.subscribe("paho/#", 1)
    message = late.receive()
    assert (message.payload, message.retain) == (b"x", True), message
    for client in (subscriber, publisher, late):
        client.leave()


def will(port):
    watcher = Client("watcher", mqtt.MQTTv5, port)
    watcher.subscribe("paho/will", 1)
    lost = Client("lost", mqtt.MQTTv311, port, ("paho/will", b"gone", 1))
    # As if the network were cut: no DISCONNECT is sent.
    lost.client.loop_stop()
    lost.client.socket().close()
    assert watcher.receive().payload == b"gone"
    watcher.leave()


if __name__ == "__main__":
    for check in (every_qos, properties_and_aliases, will):
        check(int(sys.argv[1]))
    print("all came as it must")
