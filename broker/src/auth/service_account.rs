//! Kubernetes service account tokens (AIO.md §5.8): the authentication method `K8S-SAT` of MQTT 5, with the token as its
//! data. A client that has no such method (MQTT 3) gives `K8S-SAT` as its user name and the token as its password.

use std::collections::BTreeMap;

use broker_core::Millis;
use broker_core::packet::ReasonCode;
use jsonwebtoken::{Validation, decode, decode_header};
use serde::Deserialize;
use serde_json::Value;

use super::token_review::Reviewer;
use super::web_keys::WebKeys;
use super::{Credentials, Identity, Verdict};

/// The authentication method.
pub const METHOD: &str = "K8S-SAT";
/// How annotations and claims begin that become attributes.
pub const ATTRIBUTE_PREFIX: &str = "aio-broker-auth/";
/// The longest token that is looked at.
const TOKEN_BYTES_MAX: usize = 32 * 1024;
/// How far the issuer's clock may be off, in seconds.
const LEEWAY_SECONDS: u64 = 5;

/// Who says that a token is good.
#[derive(Debug)]
pub enum Keys {
    /// A cluster's API server, by a TokenReview.
    Review(Reviewer),
    /// Its signature.
    Web {
        /// The keys of those who may sign.
        keys: WebKeys,
        /// Who must have issued it; anybody who has a key when not said.
        issuer: Option<String>,
    },
}

/// Which tokens are good.
#[derive(Debug)]
pub struct ServiceAccountTokens {
    audiences: Vec<String>,
    keys: Keys,
}

/// What a token says that is looked at here.
#[derive(Debug, Deserialize)]
pub struct Claims {
    sub: Option<String>,
    exp: u64,
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

impl Claims {
    fn attributes(&self) -> BTreeMap<String, String> {
        let attribute = |(name, value): (&String, &Value)| {
            let name = name.strip_prefix(ATTRIBUTE_PREFIX)?;
            Some((name.to_owned(), value.as_str()?.to_owned()))
        };
        self.others.iter().filter_map(attribute).collect()
    }

    /// When the token ends.
    pub fn expires(&self) -> Millis {
        Millis(self.exp.saturating_mul(1000))
    }
}

impl ServiceAccountTokens {
    /// Tokens for one of these audiences.
    pub fn new(audiences: Vec<String>, keys: Keys) -> Self {
        Self { audiences, keys }
    }

    /// The method `K8S-SAT` is relevant, and so is a user name that begins so.
    pub(super) async fn ask(&self, credentials: &Credentials<'_>) -> Verdict {
        let shown = match (credentials.method, credentials.username) {
            (Some(METHOD), _) => credentials.data,
            (None, Some(username)) if username.starts_with(METHOD) => credentials.password,
            _ => return Verdict::NotRelevant,
        };
        let refused = |why: String| Verdict::refused(ReasonCode::NotAuthorized, why);
        let Some(shown) = shown else { return refused("it showed no token".to_owned()) };
        // Files often end with a line feed, and scripts pass it on.
        let token = match std::str::from_utf8(shown) {
            Ok(text) if text.len() <= TOKEN_BYTES_MAX => text.trim(),
            _ => return refused("what it showed is no token".to_owned()),
        };
        match self.check(token).await {
            Ok(identity) => Verdict::Accepted(identity),
            Err(why) => refused(format!("its token is not good: {why}")),
        }
    }

    async fn check(&self, token: &str) -> Result<Identity, String> {
        match &self.keys {
            Keys::Review(reviewer) => reviewer.review(token, &self.audiences).await,
            Keys::Web { keys, issuer } => {
                let claims = self.verify(token, keys, issuer.as_deref()).await?;
                let (attributes, expires) = (claims.attributes(), Some(claims.expires()));
                Ok(Identity { username: claims.sub, attributes, expires, ..Identity::default() })
            }
        }
    }

    async fn verify(&self, token: &str, keys: &WebKeys, issuer: Option<&str>) -> Result<Claims, String> {
        let header = decode_header(token).map_err(|error| error.to_string())?;
        let id = header.kid.as_deref();
        let mut fault = "no key that it may be signed with is known".to_owned();
        for key in keys.find(id).await.iter().filter(|key| key.is(id)) {
            if !key.algorithms.contains(&header.alg) {
                continue;
            }
            let mut validation = Validation::new(header.alg);
            validation.leeway = LEEWAY_SECONDS;
            validation.validate_nbf = true;
            validation.set_audience(&self.audiences);
            validation.set_required_spec_claims(&["exp", "aud", "sub"]);
            if let Some(issuer) = issuer {
                validation.set_issuer(&[issuer]);
                validation.required_spec_claims.insert("iss".to_owned());
            }
            match decode::<Claims>(token, &key.key, &validation) {
                Ok(token) => return Ok(token.claims),
                Err(error) => fault = error.to_string(),
            }
        }
        Err(fault)
    }
}
