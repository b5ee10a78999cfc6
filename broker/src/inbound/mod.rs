//! What a client sends once it is connected, packet by packet.

mod publish;
mod subscribe;

use std::sync::Arc;

use broker_core::packet::{self, PINGRESP, Packet, Properties, ReasonCode, Version};
use broker_core::session::PubRec;

use crate::auth::access::Access;
use crate::client::Client;
use crate::connection::End;
use crate::metrics::Category;
use crate::reauthentication::Login;
use crate::turn::Turn;

/// The receiving side of a connection.
pub struct Inbound {
    peer: Peer,
    /// Topic aliases of this connection [MQTT-3.3.2-12]; by alias − 1.
    aliases: Vec<Option<Box<str>>>,
    /// Whom its messages are counted for, where it said so.
    category: Option<Arc<Category>>,
}

impl Inbound {
    /// Nothing received yet.
    ///
    /// `problem_information`: the client reads what is said beyond codes [MQTT-3.1.2-29].
    pub fn new(client: Arc<Client>, number: u64, version: Version, problem_information: bool) -> Self {
        let category = client.lock().category.clone();
        let peer = Peer { client, number, version, problem_information, access: None, login: None };
        Self { peer, aliases: Vec::new(), category }
    }

    /// Only what `access` allows is done from now on; by `login` the client may prove anew who it is.
    pub fn bound_by(mut self, access: Option<Arc<Access>>, login: Option<Box<Login>>) -> Self {
        self.peer.access = access;
        self.peer.login = login;
        self
    }

    /// Does what `packet` asks for.
    pub fn packet(&mut self, packet: Packet<'_>, turn: &mut Turn<'_>) -> Result<(), End> {
        turn.count_packet();
        match packet {
            Packet::Publish(publish) => self.publish(&publish, turn),
            Packet::PubAck(ack) => self.peer.acknowledged(turn, |session, _| {
                let done = session.on_puback(ack.packet_id);
                done.map_or(PubRec::Answered, PubRec::Done)
            }),
            Packet::PubRec(ack) => self
                .peer
                .acknowledged(turn, |session, outbox| session.on_pubrec(ack.packet_id, ack.reason, outbox)),
            Packet::PubRel(ack) => self.peer.released(ack.packet_id, turn),
            Packet::PubComp(ack) => self.peer.acknowledged(turn, |session, _| {
                let done = session.on_pubcomp(ack.packet_id);
                done.map_or(PubRec::Answered, PubRec::Done)
            }),
            Packet::Subscribe(subscribe) => self.peer.subscribe(&subscribe, turn),
            Packet::Unsubscribe(unsubscribe) => self.peer.unsubscribe(&unsubscribe, turn),
            Packet::PingReq => self.peer.write(turn, |out| {
                out.extend_from_slice(&PINGRESP); // [MQTT-3.12.4-1]
                Ok(())
            }),
            Packet::Disconnect(disconnect) => Err(self.peer.disconnect(&disconnect, turn)),
            Packet::Connect(_) => Err(refused("a second CONNECT came on one connection")), // [MQTT-3.1.0-2]
            Packet::Auth(auth) => match &self.peer.login {
                Some(login) => login.renew(&auth, &self.peer.client, self.peer.number, turn.broker().own()),
                None => Err(refused("AUTH came, but no authentication method was agreed on")), // [MQTT-4.12.0-6]
            },
            Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
                Err(refused("a packet came that only a server may send"))
            }
        }
    }
}

/// Whom the packets come from.
struct Peer {
    client: Arc<Client>,
    number: u64,
    version: Version,
    problem_information: bool,
    /// What it may do; nothing when it may do everything.
    access: Option<Arc<Access>>,
    login: Option<Box<Login>>,
}

impl Peer {
    fn disconnect(&self, disconnect: &packet::Disconnect<'_>, turn: &Turn<'_>) -> End {
        if let Some(expiry) = disconnect.properties.session_expiry() {
            let mut state = self.client.lock();
            if state.session.expiry == 0 && expiry != 0 {
                return refused("DISCONNECT sets a session expiry, but CONNECT had set none"); // [MQTT-3.14.2-2]
            }
            state.session.expiry = expiry.min(turn.broker().limits.session_expiry_max);
        }
        // Only a normal disconnection takes the will back [MQTT-3.14.4-3] [MQTT-3.1.2-8].
        End::Disconnected { with_will: disconnect.reason != ReasonCode::NORMAL_DISCONNECTION }
    }
}

fn check_user_properties(properties: &Properties<'_>, turn: &Turn<'_>) -> Result<(), End> {
    match properties.user_properties().count() > turn.broker().limits.user_properties_max {
        true => Err(too_many_user_properties()),
        false => Ok(()),
    }
}

/// More user properties than the broker takes in one packet.
fn too_many_user_properties() -> End {
    crate::metrics::packet_refused("user-properties");
    End::Refused {
        reason: ReasonCode::QuotaExceeded,
        what: "a packet has more user properties than the broker takes",
    }
}

fn refused(what: &'static str) -> End {
    crate::metrics::packet_refused("protocol");
    End::Refused { reason: ReasonCode::ProtocolError, what }
}

/// The topic that a PUBLISH with a topic alias means; notes a new one.
fn resolve<'t>(
    aliases: &'t mut Vec<Option<Box<str>>>,
    alias: u16,
    topic: &'t str,
    maximum: u16,
) -> Result<&'t str, End> {
    if alias > maximum {
        crate::metrics::packet_refused("protocol");
        return Err(End::Refused {
            reason: ReasonCode::TopicAliasInvalid, // [MQTT-3.3.2-9]
            what: "a topic alias is larger than the topic alias maximum",
        });
    }
    let at = usize::from(alias.saturating_sub(1));
    if aliases.len() <= at {
        aliases.resize(at + 1, None);
    }
    let known = &mut aliases[at];
    if topic.is_empty() {
        return known.as_deref().ok_or_else(|| refused("a topic alias was used before it was set"));
    }
    if known.as_deref() != Some(topic) {
        *known = Some(topic.into());
    }
    Ok(topic)
}
