//! A client that proves anew who it is while it is connected (v5 §4.12.1), before its credential ends.

use std::sync::{Arc, Weak};

use broker_core::packet::{self, Auth, PropertiesBuilder, Property, ReasonCode, Version};
use parking_lot::Mutex;

use crate::auth::policy::Principal;
use crate::auth::{Challenge, Credentials, Identity, Refusal, Step};
use crate::broker::Broker;
use crate::client::Client;
use crate::clock;
use crate::connection::End;
use crate::listener::Port;
use crate::turn::Turn;

/// How a client with an authentication method came in.
#[derive(Debug, Clone)]
pub struct Login {
    method: Box<str>,
    port: Arc<Port>,
    category: Box<str>,
    client_id: Box<str>,
    /// One at a time.
    renewal: Arc<Mutex<Renewal>>,
}

/// How far a renewal has come.
#[derive(Debug, Default)]
enum Renewal {
    /// None is under way.
    #[default]
    Idle,
    /// The broker finds out.
    Busy,
    /// The client has been told something and is to answer.
    Waiting(Challenge),
}

impl Login {
    /// By this method, at this port.
    pub fn new(method: &str, port: &Arc<Port>, category: &str, client_id: &str) -> Self {
        Self {
            method: method.into(),
            port: Arc::clone(port),
            category: category.into(),
            client_id: client_id.into(),
            renewal: Arc::default(),
        }
    }

    /// Takes an AUTH of the client. It may go on with what it does meanwhile; the answer comes when it is known.
    pub fn renew(
        &self,
        auth: &Auth<'_>,
        client: &Arc<Client>,
        number: u64,
        broker: Weak<Broker>,
    ) -> Result<(), End> {
        if auth.properties.authentication_method() != Some(&self.method) {
            // [MQTT-4.12.1-1]
            return Err(refused("an AUTH names another authentication method than CONNECT did"));
        }
        let begun = match (auth.reason, std::mem::replace(&mut *self.renewal.lock(), Renewal::Busy)) {
            (_, Renewal::Busy) => {
                return Err(refused("an AUTH came while the one before was not answered yet"));
            }
            (ReasonCode::ReAuthenticate, _) => None,
            (ReasonCode::ContinueAuthentication, Renewal::Waiting(challenge)) => Some(challenge),
            _ => return Err(refused("an AUTH goes on with an authentication that is not under way")),
        };
        let data = auth.properties.authentication_data().map(<[u8]>::to_vec);
        let (login, client) = (self.clone(), Arc::clone(client));
        tokio::spawn(async move {
            let stepped = match begun {
                Some(challenge) => challenge
                    .answer(data.as_deref().unwrap_or_default())
                    .map(|(identity, last)| (Step::Known(identity), Some(last))),
                None => login.authenticate(data.as_deref()).await.map(|step| (step, None)),
            };
            let Some(broker) = broker.upgrade() else { return };
            match stepped {
                Ok((step, last)) => login.advance(step, last.as_deref(), &client, number, &broker),
                Err(refusal) => {
                    tracing::info!(client = &*login.client_id, "a client is sent away: {}", refusal.why);
                    let mut state = client.lock();
                    if state.own(number).is_some() {
                        state.kick(refusal.reason); // [MQTT-4.12.1-2]
                    }
                }
            }
        });
        Ok(())
    }

    async fn authenticate(&self, data: Option<&[u8]>) -> Result<Step, Refusal> {
        let settings = self.port.settings();
        let no = |why: &str| Refusal { reason: ReasonCode::NotAuthorized, why: why.to_owned() };
        let Some(authentication) = &settings.authentication else {
            return Err(no("the port has no authentication any more"));
        };
        let credentials = Credentials {
            method: Some(&self.method),
            data,
            username: None,
            password: None,
            certificates: &[],
        };
        match authentication.authenticate(&credentials, &self.category).await? {
            Step::Known(Identity { expires: Some(expires), .. }) if expires <= clock::wall() => {
                Err(no("its credential has ended"))
            }
            step => Ok(step),
        }
    }

    /// Tells the client how far it has come; when it is known, as who it goes on.
    fn advance(&self, step: Step, last: Option<&[u8]>, client: &Arc<Client>, number: u64, broker: &Broker) {
        let mut turn = Turn::begin(broker, clock::monotonic());
        let mut guard = client.lock();
        let state = &mut *guard;
        if let Some(connection) = state.own(number) {
            let (reason, data, next) = match step {
                Step::Known(identity) => {
                    connection.expires = identity.expires;
                    if let Some(access) = &state.access {
                        let Identity { username, attributes, .. } = identity;
                        let client_id = self.client_id.clone().into();
                        access.identify(Principal { username, client_id, attributes });
                    }
                    (ReasonCode::Success, last.map(<[u8]>::to_vec), Renewal::Idle)
                }
                Step::Challenge(challenge) => {
                    let data = challenge.data().to_vec();
                    (ReasonCode::ContinueAuthentication, Some(data), Renewal::Waiting(challenge))
                }
            };
            *self.renewal.lock() = next;
            let mut answer = Vec::new();
            auth(reason, Some(&self.method), data.as_deref(), &mut answer);
            match state.session.link().is_some_and(|link| answer.len() > link.packet_size_max) {
                true => state.kick(ReasonCode::PacketTooLarge), // [MQTT-3.1.2-24]
                false => state.outbox.buffer().extend_from_slice(&answer),
            }
            turn.touch(client, state);
        }
        drop(guard);
        turn.finish();
    }
}

/// Appends an AUTH with nothing but the method and its data [MQTT-3.15.2-2] [MQTT-3.15.2-3].
pub fn auth(reason: ReasonCode, method: Option<&str>, data: Option<&[u8]>, out: &mut Vec<u8>) {
    let mut said = PropertiesBuilder::new();
    let properties = [method.map(Property::AuthenticationMethod), data.map(Property::AuthenticationData)];
    for property in properties.into_iter().flatten() {
        // The method came in a packet, and the data is short: both fit.
        let _ = said.put(property);
    }
    // Only v5 has an authentication method, and so AUTH.
    let _ = packet::Auth { reason, properties: said.properties() }.encode(Version::V5, out);
}

fn refused(what: &'static str) -> End {
    crate::metrics::packet_refused("protocol");
    End::Refused { reason: ReasonCode::ProtocolError, what }
}
