//! A client that proves anew who it is while it is connected (v5 §4.12.1), before its credential ends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use broker_core::packet::{self, Auth, PropertiesBuilder, Property, ReasonCode, Version};

use crate::auth::policy::Principal;
use crate::auth::{Credentials, Identity, Refusal};
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
    busy: Arc<AtomicBool>,
}

impl Login {
    /// By this method, at this port.
    pub fn new(method: &str, port: &Arc<Port>, category: &str, client_id: &str) -> Self {
        Self {
            method: method.into(),
            port: Arc::clone(port),
            category: category.into(),
            client_id: client_id.into(),
            busy: Arc::default(),
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
        if auth.reason != ReasonCode::ReAuthenticate {
            return Err(refused("an AUTH goes on with an authentication that is not under way"));
        }
        if auth.properties.authentication_method() != Some(&self.method) {
            // [MQTT-4.12.1-1]
            return Err(refused("an AUTH names another authentication method than CONNECT did"));
        }
        if self.busy.swap(true, Ordering::AcqRel) {
            return Err(refused("an AUTH came while the one before was not answered yet"));
        }
        let data = auth.properties.authentication_data().map(<[u8]>::to_vec);
        let (login, client) = (self.clone(), Arc::clone(client));
        tokio::spawn(async move {
            let result = login.authenticate(data.as_deref()).await;
            login.busy.store(false, Ordering::Release);
            let Some(broker) = broker.upgrade() else { return };
            match result {
                Ok(identity) => login.renewed(identity, &client, number, &broker),
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

    async fn authenticate(&self, data: Option<&[u8]>) -> Result<Identity, Refusal> {
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
        let identity = authentication.authenticate(&credentials, &self.category).await?;
        match identity.expires {
            Some(expires) if expires <= clock::wall() => Err(no("its credential has ended")),
            _ => Ok(identity),
        }
    }

    fn renewed(&self, identity: Identity, client: &Arc<Client>, number: u64, broker: &Broker) {
        let mut said = PropertiesBuilder::new();
        // It came in a packet, so it fits.
        let _ = said.put(Property::AuthenticationMethod(&self.method));
        let answer = packet::Auth { reason: ReasonCode::Success, properties: said.properties() };
        let mut turn = Turn::begin(broker, clock::monotonic());
        let mut guard = client.lock();
        let state = &mut *guard;
        if let Some(connection) = state.own(number) {
            connection.expires = identity.expires;
            if let Some(access) = &state.access {
                let Identity { username, attributes, .. } = identity;
                access.identify(Principal { username, client_id: self.client_id.clone().into(), attributes });
            }
            // Only v5 has an authentication method, and so AUTH.
            let _ = answer.encode(Version::V5, state.outbox.buffer());
            turn.touch(client, state);
        }
        drop(guard);
        turn.finish();
    }
}

fn refused(what: &'static str) -> End {
    crate::metrics::packet_refused("protocol");
    End::Refused { reason: ReasonCode::ProtocolError, what }
}
