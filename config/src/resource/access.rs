//! `BrokerAuthentication` (AIO.md §5.8) and `BrokerAuthorization` (§5.9): who may do what.

use super::common::{KeyType, OperationalMode, SecretRef, parsed};
use crate::finding::Report;
use crate::read::{Decode, Located, Path, choice, record, tagged};
use crate::yaml::Node;
use std::collections::BTreeMap;

record! {
    /// How clients prove who they are: methods, the first that applies decides.
    pub struct BrokerAuthentication {
        /// The methods, in order.
        authentication_methods: Vec<AuthenticationMethod> = "authenticationMethods" required(),
    }
}

tagged! {
    /// One way of proving who one is.
    pub enum AuthenticationMethod by "method" {
        /// A web service of the user's own.
        Custom(CustomSettings) = "Custom", "customSettings" required(),
        /// A Kubernetes service account token.
        ServiceAccountToken(TokenSettings) = "ServiceAccountToken", "serviceAccountTokenSettings" required(),
        /// A client certificate.
        X509(X509Settings) = "X509", "x509Settings" or(X509Settings::default()),
    }
}

record! {
    /// A web service of the user's own.
    pub struct CustomSettings {
        /// Where it is.
        endpoint: HttpsUrl = "endpoint" required(),
        /// The ConfigMap with the certificates it is trusted by.
        ca_cert_config_map: Option<Located<String>> = "caCertConfigMap" optional(),
        /// Who the broker is to it.
        auth: Option<CustomAuth> = "auth" optional(),
        /// Headers of each request.
        headers: BTreeMap<String, String> = "headers" or(BTreeMap::new()),
    }
}

/// An address that begins with `https://`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpsUrl(pub String);

impl Decode for HttpsUrl {
    fn decode(node: &Node, path: &Path<'_>, report: &mut Report) -> Option<Self> {
        let text = String::decode(node, path, report)?;
        let result = match text.strip_prefix("https://") {
            Some(rest) => super::common::check_authority(rest.split('/').next().unwrap_or_default()),
            None => Err("must begin with `https://`"),
        };
        parsed(result.map_err(str::to_owned), &text, node.position, path, report)?;
        Some(Self(text))
    }
}

record! {
    /// Who the broker is to a web service.
    pub struct CustomAuth {
        /// By certificate.
        x509: SecretRef = "x509" required(),
    }
}

record! {
    /// Which tokens are good.
    pub struct TokenSettings {
        /// For whom the token must have been made.
        audiences: Vec<String> = "audiences" required(),
    }
}

record! {
    /// Which client certificates are good.
    pub struct X509Settings {
        /// The ConfigMap with the certificates that sign them.
        trusted_client_ca_cert: Option<Located<String>> = "trustedClientCaCert" optional(),
        /// Attributes by subject.
        authorization_attributes: BTreeMap<String, SubjectAttributes> =
            "authorizationAttributes" or(BTreeMap::new()),
        /// What else is looked at.
        additional_validation: AdditionalValidation = "additionalValidation" or(AdditionalValidation::None),
    }
}

impl Default for X509Settings {
    fn default() -> Self {
        Self {
            trusted_client_ca_cert: None,
            authorization_attributes: BTreeMap::new(),
            additional_validation: AdditionalValidation::None,
        }
    }
}

record! {
    /// Attributes of those whose certificate has a subject.
    pub struct SubjectAttributes {
        /// The subject.
        subject: String = "subject" required(),
        /// Names and values.
        attributes: BTreeMap<String, String> = "attributes" required(),
    }
}

choice! {
    /// What else is looked at in a certificate.
    pub enum AdditionalValidation {
        /// Nothing.
        None = "None",
        /// Whether the device registry knows the device.
        AzureDeviceRegistry = "AzureDeviceRegistry",
    }
}

record! {
    /// Who may do what.
    pub struct BrokerAuthorization {
        /// The policies.
        authorization_policies: AuthorizationPolicies = "authorizationPolicies" required(),
    }
}

record! {
    /// Who may do what. Without rules, nobody anything.
    pub struct AuthorizationPolicies {
        /// Whether decisions are remembered.
        cache: OperationalMode = "cache" or(OperationalMode::Enabled),
        /// The rules; what none allows is denied.
        rules: Vec<AuthorizationRule> = "rules" or(Vec::new()),
    }
}

record! {
    /// One rule.
    pub struct AuthorizationRule {
        /// Whom it is about.
        principals: Principals = "principals" required(),
        /// What they may do with topics.
        broker_resources: Vec<BrokerResource> = "brokerResources" required(),
        /// What they may do with the state store.
        state_store_resources: Vec<StateStoreResource> = "stateStoreResources" or(Vec::new()),
    }
}

record! {
    /// Whom a rule is about: any of these.
    pub struct Principals {
        /// Those with all attributes of one entry.
        attributes: Vec<BTreeMap<String, String>> = "attributes" or(Vec::new()),
        /// Those with one of these client ids.
        client_ids: Vec<String> = "clientIds" or(Vec::new()),
        /// Those with one of these user names.
        usernames: Vec<String> = "usernames" or(Vec::new()),
    }
}

record! {
    /// What a rule allows with topics.
    pub struct BrokerResource {
        /// What.
        method: BrokerMethod = "method" required(),
        /// As which client ids, for `Connect`.
        client_ids: Vec<String> = "clientIds" or(Vec::new()),
        /// On which topics.
        topics: Vec<String> = "topics" or(Vec::new()),
    }
}

choice! {
    /// What may be done with topics.
    pub enum BrokerMethod {
        /// To connect.
        Connect = "Connect",
        /// To publish.
        Publish = "Publish",
        /// To subscribe.
        Subscribe = "Subscribe",
    }
}

record! {
    /// What a rule allows with the state store.
    pub struct StateStoreResource {
        /// What.
        method: StateStoreMethod = "method" required(),
        /// How keys are matched.
        key_type: KeyType = "keyType" required(),
        /// The keys.
        keys: Vec<String> = "keys" required(),
    }
}

choice! {
    /// What may be done with keys.
    pub enum StateStoreMethod {
        /// To read.
        Read = "Read",
        /// To write.
        Write = "Write",
        /// Both.
        ReadWrite = "ReadWrite",
    }
}
