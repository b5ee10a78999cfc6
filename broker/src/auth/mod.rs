//! Who a client is, and what it may do (AIO.md §5.8, §5.9).
//!
//! [`Authentication`] turns the credentials of a CONNECT into an [`Identity`]; a [`Policy`](policy::Policy) says what such
//! a client may do, and [`Access`](access::Access) remembers for one client what it was told. None of them knows sockets.

pub mod access;
pub mod category;
mod custom;
pub mod passwd;
mod password;
pub mod policy;
mod scram;
mod service_account;
mod token_review;
mod web_keys;
mod x509;

use std::collections::BTreeMap;

use broker_core::Millis;
use broker_core::packet::ReasonCode;
use rustls::DistinguishedName;
use rustls::pki_types::CertificateDer;

pub use custom::{Custom, TIMEOUT as CUSTOM_TIMEOUT};
pub use password::{HashKind, PasswordFile, PasswordHash};
use scram::Exchange;
pub use service_account::{Keys, METHOD as SERVICE_ACCOUNT_TOKEN, ServiceAccountTokens};
pub use token_review::Reviewer;
pub use web_keys::WebKeys;
pub use x509::{SubjectAttributes, X509, certificates as read_certificates};

/// What a client shows.
#[derive(Debug, Clone, Copy)]
pub struct Credentials<'a> {
    /// Authentication method of MQTT 5.
    pub method: Option<&'a str>,
    /// Authentication data.
    pub data: Option<&'a [u8]>,
    /// User name.
    pub username: Option<&'a str>,
    /// Password.
    pub password: Option<&'a [u8]>,
    /// Certificates of the TLS handshake, the client's own first.
    pub certificates: &'a [CertificateDer<'static>],
}

/// Who a client has proven to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// It was asked, and has proven it.
    pub is_proven: bool,
    /// Its name.
    pub username: Option<String>,
    /// What is known of it.
    pub attributes: BTreeMap<String, String>,
    /// When the credential ends, as the wall clock has it.
    pub expires: Option<Millis>,
}

/// What one method says to credentials.
#[derive(Debug)]
pub enum Verdict {
    /// They are not of its kind: the next method is asked.
    NotRelevant,
    /// They are good.
    Accepted(Identity),
    /// They are of its kind, and not all that it needs.
    Challenged(Exchange),
    /// They are of its kind, and not good.
    Refused(Refusal),
}

/// How far a login has come.
#[derive(Debug)]
pub enum Step {
    /// The client is known.
    Known(Identity),
    /// The client is told something, and its answer decides (v5 §4.12).
    Challenge(Challenge),
}

/// What a client is to answer.
#[derive(Debug)]
pub struct Challenge {
    exchange: Exchange,
    category: Box<str>,
}

impl Challenge {
    /// The authentication data for the client.
    pub fn data(&self) -> &[u8] {
        self.exchange.said()
    }

    /// Takes the authentication data of the client's answer; gives who it is, and what it is told at last.
    ///
    /// # Errors
    /// Why the client is not let in.
    pub fn answer(self, data: &[u8]) -> Result<(Identity, Vec<u8>), Refusal> {
        let result = self.exchange.finish(data);
        let counter = match &result {
            Ok(_) => "aio_broker_authentication_successes",
            Err(_) => "aio_broker_authentication_failures",
        };
        category::count(counter, &self.category);
        result.map(|(identity, last)| (Identity { is_proven: true, ..identity }, last))
    }
}

/// Why a client is not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What it is told.
    pub reason: ReasonCode,
    /// What the log is told. Never what was shown.
    pub why: String,
}

impl Verdict {
    fn refused(reason: ReasonCode, why: impl Into<String>) -> Self {
        Self::Refused(Refusal { reason, why: why.into() })
    }
}

/// One way of proving who one is.
#[derive(Debug)]
pub enum Method {
    /// A user name and a password, checked against a file.
    Password(PasswordFile),
    /// A Kubernetes service account token.
    ServiceAccountToken(ServiceAccountTokens),
    /// A client certificate.
    X509(X509),
    /// A web service of the user's own.
    Custom(Custom),
}

/// Methods in their order: the first for which the credentials are relevant decides.
#[derive(Debug)]
pub struct Authentication {
    methods: Vec<Method>,
}

impl Authentication {
    /// These methods.
    pub fn new(methods: Vec<Method>) -> Self {
        Self { methods }
    }

    /// Whether clients are to be asked for a certificate.
    pub fn wants_certificates(&self) -> bool {
        self.methods.iter().any(|method| matches!(method, Method::X509(_) | Method::Custom(_)))
    }

    /// Whether nobody could come in without TLS.
    pub fn needs_tls(&self) -> bool {
        !self.methods.is_empty() && self.methods.iter().all(|method| matches!(method, Method::X509(_)))
    }

    /// Subjects of the certificates that sign clients'.
    pub fn certificate_issuers(&self) -> Vec<DistinguishedName> {
        let of = |method: &Method| match method {
            Method::X509(x509) => x509.issuers(),
            _ => Vec::new(),
        };
        self.methods.iter().flat_map(of).collect()
    }

    /// Finds out who shows these credentials.
    ///
    /// # Errors
    /// Why the client is not let in.
    pub async fn authenticate(&self, credentials: &Credentials<'_>, category: &str) -> Result<Step, Refusal> {
        if let Some(method) = credentials.method
            && !self.methods.iter().any(|known| known.serves(method))
        {
            category::count("aio_broker_authentication_deny", category);
            let why = "the authentication method is not one of this port's".to_owned();
            return Err(Refusal { reason: ReasonCode::BadAuthenticationMethod, why }); // [MQTT-4.12.0-1]
        }
        for method in &self.methods {
            match method.ask(credentials).await {
                Verdict::NotRelevant => {}
                Verdict::Accepted(identity) => {
                    category::count("aio_broker_authentication_successes", category);
                    return Ok(Step::Known(Identity { is_proven: true, ..identity }));
                }
                Verdict::Challenged(exchange) => {
                    return Ok(Step::Challenge(Challenge { exchange, category: category.into() }));
                }
                Verdict::Refused(refusal) => {
                    category::count("aio_broker_authentication_failures", category);
                    return Err(refusal);
                }
            }
        }
        category::count("aio_broker_authentication_deny", category);
        let why = "it showed no credentials that any method takes".to_owned();
        Err(Refusal { reason: ReasonCode::NotAuthorized, why })
    }
}

impl Method {
    /// Whether it answers to this authentication method of MQTT 5.
    fn serves(&self, method: &str) -> bool {
        match self {
            Self::ServiceAccountToken(_) => method == SERVICE_ACCOUNT_TOKEN,
            Self::Password(file) => file.serves(method),
            Self::X509(_) | Self::Custom(_) => false,
        }
    }

    async fn ask(&self, credentials: &Credentials<'_>) -> Verdict {
        match self {
            Self::Password(file) => file.ask(credentials).await,
            Self::ServiceAccountToken(tokens) => tokens.ask(credentials).await,
            Self::X509(x509) => x509.ask(credentials),
            Self::Custom(custom) => custom.ask(credentials).await,
        }
    }
}
