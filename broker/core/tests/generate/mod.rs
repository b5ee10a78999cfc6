//! Strategies for packets that the standard calls good. What a packet borrows is leaked: a test run is short.

use broker_core::packet::{
    Auth, ConnAck, Connect, Disconnect, FilterList, Packet, PacketId, PacketType, Place, Properties,
    PropertiesBuilder, Property, PubAck, PubComp, PubRec, PubRel, Publish, PublishProperties, QoS,
    ReasonCode, RetainHandling, Role, SubAck, Subscribe, SubscribeOptions, SubscriptionList, UnsubAck,
    Unsubscribe, Version, Will,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

/// A good packet, who sends it, and in which version.
#[derive(Clone, Debug)]
pub struct Sample {
    pub version: Version,
    pub from: Role,
    pub packet: Packet<'static>,
}

impl Sample {
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.packet.encode(self.version, &mut bytes).unwrap();
        bytes
    }
}

/// Any packet of this version, from whoever may send it.
pub fn sample(version: Version) -> BoxedStrategy<Sample> {
    let v5 = version.is_v5();
    let mut both = vec![
        publish(version, Role::Client),
        publish(version, Role::Server),
        connect(version),
        connack(version),
        subscribe(version),
        suback(version),
        unsubscribe(version),
        unsuback(version),
        disconnect(version, Role::Client),
        Just((Role::Client, Packet::PingReq)).boxed(),
        Just((Role::Server, Packet::PingResp)).boxed(),
    ];
    both.extend(acks(version));
    if v5 {
        both.push(disconnect(version, Role::Server));
        both.extend([auth(Role::Client), auth(Role::Server)]);
    }
    proptest::strategy::Union::new(both)
        .prop_map(move |(from, packet)| Sample { version, from, packet })
        .boxed()
}

type Sent = BoxedStrategy<(Role, Packet<'static>)>;

fn leak<T: ?Sized>(value: impl Into<Box<T>>) -> &'static T {
    Box::leak(value.into())
}

fn text() -> BoxedStrategy<&'static str> {
    prop_oneof!["[a-zA-Z0-9/+#$ _-]{0,24}", "\\PC{0,8}", Just("\u{feff}x".to_owned())]
        .prop_map(|text| leak::<str>(text.replace('\0', "")))
        .boxed()
}

fn binary() -> BoxedStrategy<&'static [u8]> {
    vec(any::<u8>(), 0..24).prop_map(leak).boxed()
}

fn payload() -> BoxedStrategy<&'static [u8]> {
    prop_oneof![4 => vec(any::<u8>(), 0..64), 1 => vec(any::<u8>(), 100..400), 1 => Just(vec![7; 20_000])]
        .prop_map(leak)
        .boxed()
}

fn name() -> BoxedStrategy<&'static str> {
    vec("[a-z0-9$é ]{0,6}", 1..6)
        .prop_map(|levels| levels.join("/"))
        .prop_filter_map("a topic name is not empty", |name| (!name.is_empty()).then(|| leak::<str>(name)))
        .boxed()
}

/// A filter without a group.
fn plain_filter() -> BoxedStrategy<String> {
    (vec(prop_oneof![Just("+".to_owned()), "[a-z0-9é]{0,5}"], 0..5), any::<bool>())
        .prop_map(|(mut levels, all)| {
            if all {
                levels.push("#".to_owned());
            }
            levels.join("/")
        })
        .prop_filter("a filter is not empty", |filter| !filter.is_empty())
        .boxed()
}

fn filter(version: Version) -> BoxedStrategy<String> {
    if version.is_v5() {
        let shared =
            ("[a-z]{1,6}", plain_filter()).prop_map(|(group, filter)| format!("$share/{group}/{filter}"));
        prop_oneof![3 => plain_filter(), 1 => shared].boxed()
    } else {
        plain_filter()
    }
}

fn id() -> BoxedStrategy<PacketId> {
    any::<u16>().prop_filter_map("not 0", PacketId::new).boxed()
}

fn qos() -> BoxedStrategy<QoS> {
    select(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][..]).boxed()
}

fn reason(packet: PacketType, from: Role) -> BoxedStrategy<ReasonCode> {
    let allowed: Vec<_> =
        ReasonCode::ALL.iter().copied().filter(|code| code.allowed_in(packet, from)).collect();
    select(allowed).boxed()
}

/// Properties of this place, in any order, each there or not.
fn properties(version: Version, place: Place, from: Role) -> BoxedStrategy<Properties<'static>> {
    if !version.is_v5() {
        return Just(Properties::EMPTY).boxed();
    }
    let singles: Vec<_> =
        singles(place, from).into_iter().map(|single| option::weighted(0.4, single)).collect();
    let user = (text(), text()).prop_map(Property::UserProperty);
    let identifier = (1..=268_435_455_u32).prop_map(Property::SubscriptionIdentifier);
    let identifiers = match (place, from) {
        (Place::Packet(PacketType::Publish), Role::Server) => 0..4,
        (Place::Packet(PacketType::Subscribe), _) => 0..2,
        _ => 0..1,
    };
    (singles, vec(user, 0..4), vec(identifier, identifiers))
        .prop_map(|(singles, users, identifiers)| {
            singles.into_iter().flatten().chain(users).chain(identifiers).collect::<Vec<_>>()
        })
        .prop_shuffle()
        .prop_map(move |list| {
            let mut builder = PropertiesBuilder::new();
            let method = list.iter().any(|property| matches!(property, Property::AuthenticationMethod(_)));
            for property in list {
                if method || !matches!(property, Property::AuthenticationData(_)) {
                    builder.put(property).unwrap();
                }
            }
            Properties::parse(leak(builder.into_bytes()), place).unwrap()
        })
        .boxed()
}

/// A strategy for each property that may stand here once.
fn singles(place: Place, from: Role) -> Vec<BoxedStrategy<Property<'static>>> {
    use Property as P;
    let four = any::<u32>;
    let reason_string = || text().prop_map(P::ReasonString).boxed();
    let authentication = || {
        [text().prop_map(P::AuthenticationMethod).boxed(), binary().prop_map(P::AuthenticationData).boxed()]
    };
    let of_message = || {
        vec![
            any::<bool>().prop_map(P::PayloadFormatIndicator).boxed(),
            four().prop_map(P::MessageExpiryInterval).boxed(),
            text().prop_map(P::ContentType).boxed(),
            name().prop_map(P::ResponseTopic).boxed(),
            binary().prop_map(P::CorrelationData).boxed(),
        ]
    };
    let of_connection = || {
        vec![
            four().prop_map(P::SessionExpiryInterval).boxed(),
            (1..=u16::MAX).prop_map(P::ReceiveMaximum).boxed(),
            (1..=u32::MAX).prop_map(P::MaximumPacketSize).boxed(),
            any::<u16>().prop_map(P::TopicAliasMaximum).boxed(),
        ]
    };
    match place {
        Place::Will => {
            let mut all = of_message();
            all.push(four().prop_map(P::WillDelayInterval).boxed());
            all
        }
        Place::Packet(PacketType::Publish) => {
            let mut all = of_message();
            all.push((1..=u16::MAX).prop_map(P::TopicAlias).boxed());
            all
        }
        Place::Packet(PacketType::Connect) => {
            let mut all = of_connection();
            all.extend(authentication());
            all.push(any::<bool>().prop_map(P::RequestProblemInformation).boxed());
            all.push(any::<bool>().prop_map(P::RequestResponseInformation).boxed());
            all
        }
        Place::Packet(PacketType::ConnAck) => {
            let mut all = of_connection();
            all.extend(authentication());
            all.extend([
                text().prop_map(P::AssignedClientIdentifier).boxed(),
                any::<u16>().prop_map(P::ServerKeepAlive).boxed(),
                text().prop_map(P::ResponseInformation).boxed(),
                text().prop_map(P::ServerReference).boxed(),
                reason_string(),
                select(&[QoS::AtMostOnce, QoS::AtLeastOnce][..]).prop_map(P::MaximumQoS).boxed(),
                any::<bool>().prop_map(P::RetainAvailable).boxed(),
                any::<bool>().prop_map(P::WildcardSubscriptionAvailable).boxed(),
                any::<bool>().prop_map(P::SubscriptionIdentifierAvailable).boxed(),
                any::<bool>().prop_map(P::SharedSubscriptionAvailable).boxed(),
            ]);
            all
        }
        Place::Packet(PacketType::Disconnect) if from == Role::Client => {
            vec![four().prop_map(P::SessionExpiryInterval).boxed(), reason_string()]
        }
        Place::Packet(PacketType::Disconnect) => {
            vec![text().prop_map(P::ServerReference).boxed(), reason_string()]
        }
        Place::Packet(PacketType::Auth) => {
            vec![binary().prop_map(P::AuthenticationData).boxed(), reason_string()]
        }
        Place::Packet(PacketType::Subscribe | PacketType::Unsubscribe) => Vec::new(),
        Place::Packet(_) => vec![reason_string()],
    }
}

fn publish(version: Version, from: Role) -> Sent {
    let properties = properties(version, Place::Packet(PacketType::Publish), from);
    (any::<[bool; 3]>(), qos(), name(), id(), properties, payload())
        .prop_map(move |([dup, retain, anonymous], qos, name, id, properties, payload)| {
            let properties = PublishProperties::parse(properties.as_bytes(), from).unwrap();
            let publish = Publish {
                dup: dup && qos != QoS::AtMostOnce,
                qos,
                retain,
                topic: if anonymous && properties.topic_alias.is_some() { "" } else { name },
                packet_id: (qos != QoS::AtMostOnce).then_some(id),
                properties,
                payload,
            };
            (from, Packet::Publish(publish))
        })
        .boxed()
}

fn will(version: Version) -> BoxedStrategy<Will<'static>> {
    (qos(), any::<bool>(), name(), binary(), properties(version, Place::Will, Role::Client))
        .prop_map(|(qos, retain, topic, payload, properties)| Will {
            qos,
            retain,
            topic,
            payload,
            properties,
        })
        .boxed()
}

fn connect(version: Version) -> Sent {
    let properties = properties(version, Place::Packet(PacketType::Connect), Role::Client);
    let client_id = "[a-zA-Z0-9]{1,23}";
    (
        any::<bool>(),
        any::<u16>(),
        client_id,
        option::of(will(version)),
        option::of(text()),
        option::of(binary()),
        properties,
    )
        .prop_map(move |(clean_start, keep_alive, client_id, will, username, password, properties)| {
            let connect = Connect {
                version,
                clean_start,
                keep_alive,
                client_id: leak::<str>(client_id),
                will,
                username,
                password: password.filter(|_| version.is_v5() || username.is_some()),
                properties,
            };
            (Role::Client, Packet::Connect(connect))
        })
        .boxed()
}

fn connack(version: Version) -> Sent {
    let reason = if version.is_v5() {
        reason(PacketType::ConnAck, Role::Server)
    } else {
        (0_u8..6).prop_filter_map("named", ReasonCode::from_connack_v3).boxed()
    };
    (any::<bool>(), reason, properties(version, Place::Packet(PacketType::ConnAck), Role::Server))
        .prop_map(move |(present, reason, properties)| {
            let session_present = present && reason == ReasonCode::Success && version != Version::V31;
            (Role::Server, Packet::ConnAck(ConnAck { session_present, reason, properties }))
        })
        .boxed()
}

fn acks(version: Version) -> Vec<Sent> {
    let parts = move |packet: PacketType| {
        let reason =
            if version.is_v5() { reason(packet, Role::Client) } else { Just(ReasonCode::Success).boxed() };
        (id(), reason, properties(version, Place::Packet(packet), Role::Client))
    };
    macro_rules! ack {
        ($name:ident) => {
            parts(PacketType::$name)
                .prop_map(|(packet_id, reason, properties)| {
                    (Role::Client, Packet::$name($name { packet_id, reason, properties }))
                })
                .boxed()
        };
    }
    vec![ack!(PubAck), ack!(PubRec), ack!(PubRel), ack!(PubComp)]
}

fn subscribe(version: Version) -> Sent {
    let handling =
        select(&[RetainHandling::SendAlways, RetainHandling::SendIfNew, RetainHandling::DoNotSend][..]);
    let subscription = (filter(version), qos(), any::<[bool; 2]>(), handling).prop_map(
        move |(filter, qos, [no_local, retain_as_published], retain_handling)| {
            let no_local = no_local && !filter.starts_with("$share/");
            let options = SubscribeOptions { qos, no_local, retain_as_published, retain_handling };
            (filter, if version.is_v5() { options } else { SubscribeOptions { qos, ..Default::default() } })
        },
    );
    let properties = properties(version, Place::Packet(PacketType::Subscribe), Role::Client);
    (id(), properties, vec(subscription, 1..5))
        .prop_map(|(id, properties, subscriptions)| {
            let mut list = SubscriptionList::default();
            for (filter, options) in subscriptions {
                list.push(&filter, options).unwrap();
            }
            (Role::Client, Packet::Subscribe(Subscribe::new(id, properties, leak(list))))
        })
        .boxed()
}

fn unsubscribe(version: Version) -> Sent {
    let properties = properties(version, Place::Packet(PacketType::Unsubscribe), Role::Client);
    (id(), properties, vec(filter(version), 1..5))
        .prop_map(|(id, properties, filters)| {
            let mut list = FilterList::default();
            for filter in filters {
                list.push(&filter).unwrap();
            }
            (Role::Client, Packet::Unsubscribe(Unsubscribe::new(id, properties, leak(list))))
        })
        .boxed()
}

fn codes(packet: PacketType) -> BoxedStrategy<&'static [u8]> {
    vec(reason(packet, Role::Server).prop_map(ReasonCode::code), 1..5).prop_map(leak).boxed()
}

fn suback(version: Version) -> Sent {
    let codes = if version.is_v5() {
        codes(PacketType::SubAck)
    } else {
        vec(select(&[0_u8, 1, 2, 0x80][..]), 1..5).prop_map(leak).boxed()
    };
    (id(), properties(version, Place::Packet(PacketType::SubAck), Role::Server), codes)
        .prop_map(|(packet_id, properties, codes)| {
            (Role::Server, Packet::SubAck(SubAck { packet_id, properties, codes }))
        })
        .boxed()
}

fn unsuback(version: Version) -> Sent {
    let codes = if version.is_v5() { codes(PacketType::UnsubAck) } else { Just(&[][..]).boxed() };
    (id(), properties(version, Place::Packet(PacketType::UnsubAck), Role::Server), codes)
        .prop_map(|(packet_id, properties, codes)| {
            (Role::Server, Packet::UnsubAck(UnsubAck { packet_id, properties, codes }))
        })
        .boxed()
}

fn disconnect(version: Version, from: Role) -> Sent {
    let reason = match version {
        Version::V5 => reason(PacketType::Disconnect, from),
        _ => Just(ReasonCode::NORMAL_DISCONNECTION).boxed(),
    };
    (reason, properties(version, Place::Packet(PacketType::Disconnect), from))
        .prop_map(move |(reason, properties)| (from, Packet::Disconnect(Disconnect { reason, properties })))
        .boxed()
}

fn auth(from: Role) -> Sent {
    let rest = properties(Version::V5, Place::Packet(PacketType::Auth), from);
    (reason(PacketType::Auth, from), text(), rest)
        .prop_map(move |(reason, method, rest)| {
            let mut builder = PropertiesBuilder::new();
            builder.put(Property::AuthenticationMethod(method)).unwrap();
            builder.put_all(rest);
            let properties =
                Properties::parse(leak(builder.into_bytes()), Place::Packet(PacketType::Auth)).unwrap();
            (from, Packet::Auth(Auth { reason, properties }))
        })
        .boxed()
}
