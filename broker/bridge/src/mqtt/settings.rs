//! What a DataflowEndpoint says of an MQTT broker, made ready for use.

use std::path::PathBuf;

use config::RemoteEndpoint;
use config::resource::common::OperationalMode;
use config::resource::endpoint::{EndpointSettings, MqttAuthentication, MqttProtocol, MqttSettings};

use crate::tls::{self, Secured};
use crate::{Instance, Unusable};

/// Where Kubernetes puts the token of a service account.
const TOKEN_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
/// The longest client id that every 3.1.1 broker must take [MQTT-3.1.3-5].
const SHORT_ID_MAX: usize = 23;

/// A remote broker, and who we are to it.
#[derive(Clone)]
pub struct Settings {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// What carries MQTT: the path of a WebSocket, or nothing for TCP.
    pub web_socket: Option<String>,
    /// TLS, and the name that the other side's certificate must have.
    pub tls: Option<Secured>,
    /// Who we are.
    pub login: Login,
    /// The client id.
    pub client_id: String,
    /// The same for 3.1.1 brokers that take no long ones.
    pub short_client_id: String,
    /// The rest.
    pub mqtt: MqttSettings,
    /// The process that we are, for [`super::ORIGIN`].
    pub process: String,
    /// The name of the endpoint.
    pub endpoint: String,
}

/// Who we are to a remote broker.
#[derive(Clone)]
pub enum Login {
    /// Nobody, or whom the certificate says.
    None,
    /// A name and a password.
    Password(String, config::resource::common::SecretValue),
    /// A Kubernetes service account, whose token stands in this file.
    Token(PathBuf),
}

impl Settings {
    /// The highest QoS of what passes.
    pub fn qos(&self) -> u8 {
        self.mqtt.qos.unwrap_or(1)
    }

    /// What `endpoint` says, for a bridge of this name.
    pub fn of(endpoint: &RemoteEndpoint, instance: &Instance, code: &'static str) -> Result<Self, Unusable> {
        Self::read(endpoint, instance)
            .map_err(|why| Unusable { code, why: format!("{}: {why}", endpoint.id) })
    }

    fn read(endpoint: &RemoteEndpoint, instance: &Instance) -> Result<Self, String> {
        let EndpointSettings::Mqtt(mqtt) = &endpoint.settings else {
            return Err("it is no MQTT endpoint".to_owned());
        };
        let host = mqtt.host.as_ref().ok_or("`host` is missing")?;
        let identity = match &mqtt.authentication {
            Some(MqttAuthentication::X509Certificate(_)) => endpoint.secret.as_ref(),
            _ => None,
        };
        let encrypted = mqtt.tls.mode == OperationalMode::Enabled;
        let tls = tls::config(endpoint, &mqtt.tls, host, identity)?;
        let web = mqtt.protocol == MqttProtocol::WebSockets;
        let (client_id, short_client_id) =
            client_ids(mqtt.client_id_prefix.as_deref().unwrap_or(""), instance);
        Ok(Self {
            host: host.name().to_owned(),
            port: host.port().unwrap_or(match (encrypted, web) {
                (true, true) => 443,
                (false, true) => 80,
                (true, false) => 8883,
                (false, false) => 1883,
            }),
            web_socket: web.then(|| host.path().unwrap_or("/mqtt").to_owned()),
            tls,
            login: login(endpoint, mqtt.authentication.as_ref())?,
            client_id,
            short_client_id,
            mqtt: (**mqtt).clone(),
            process: instance.process.clone(),
            endpoint: endpoint.id.name.clone(),
        })
    }
}

/// The client id of a bridge, and a short one: no two bridges of any process have the same.
fn client_ids(prefix: &str, instance: &Instance) -> (String, String) {
    let Instance { namespace, graph, node, process } = instance;
    let long = format!("{prefix}{graph}-{node}-{process}");
    // FNV-1a: which bridge of the process it is.
    let names = [namespace, graph, node].map(String::as_bytes).join(&0);
    let hash = names.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut short = format!("{process}{hash:016x}");
    short.truncate(SHORT_ID_MAX);
    (long, short)
}

fn login(endpoint: &RemoteEndpoint, authentication: Option<&MqttAuthentication>) -> Result<Login, String> {
    let identity = |method: &str| {
        Err(format!(
            "`authentication.method` is {method}, which only Azure can give; use X509Certificate, ServiceAccountToken or Anonymous here"
        ))
    };
    let login = match authentication {
        None => {
            return Err("`authentication` is missing; where nobody need say who he is, `method: Anonymous`"
                .to_owned());
        }
        Some(MqttAuthentication::SystemAssignedManagedIdentity(_)) => {
            return identity("SystemAssignedManagedIdentity");
        }
        Some(MqttAuthentication::UserAssignedManagedIdentity(_)) => {
            return identity("UserAssignedManagedIdentity");
        }
        Some(MqttAuthentication::ServiceAccountToken(_)) => {
            Login::Token(endpoint.token_file.clone().unwrap_or_else(|| TOKEN_FILE.into()))
        }
        Some(MqttAuthentication::X509Certificate(_) | MqttAuthentication::Anonymous(_)) => Login::None,
    };
    match (&endpoint.login, login) {
        (None, login) => Ok(login),
        (Some(secret), Login::None) => {
            let username = secret
                .text("username")
                .map_err(|fault| format!("the Secret of `forebay.dev/login` {fault}"))?;
            let password = secret
                .text("password")
                .map_err(|fault| format!("the Secret of `forebay.dev/login` {fault}"))?;
            Ok(Login::Password(username.reveal().to_owned(), password))
        }
        (Some(_), _) => {
            Err("`forebay.dev/login` goes with `method: Anonymous` or X509Certificate".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_ids_differ_and_the_short_ones_are_short() {
        let instance = |namespace: &str, graph: &str, node: &str, process: &str| {
            let [namespace, graph, node, process] = [namespace, graph, node, process].map(str::to_owned);
            client_ids("p-", &Instance { namespace, graph, node, process })
        };
        let (long, short) = instance("ns", "graph", "out", "0123456789ab");
        assert_eq!(long, "p-graph-out-0123456789ab");
        assert!(short.len() == 23 && short.starts_with("0123456789ab"), "{short}");
        for other in [
            instance("ns", "graph", "in", "0123456789ab"),
            instance("ns", "graphout", "", "0123456789ab"),
            instance("other", "graph", "out", "0123456789ab"),
            instance("ns", "graph", "out", "ba9876543210"),
        ] {
            assert_ne!(other.1, short);
        }
    }
}
