//! The public keys that tokens are signed with: a JSON Web Key Set (RFC 7517), from a file or from where its issuer
//! publishes it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey};
use parking_lot::RwLock;

/// The largest key set that is read.
const BYTES_MAX: usize = 1 << 20;
/// How old fetched keys may be.
const AGE_MAX: Duration = Duration::from_secs(600);
/// How soon they are fetched again when a token names one that is not among them.
const AGE_MIN: Duration = Duration::from_secs(30);

/// A key and the algorithms it is good for. None of them takes a shared secret: who can check could sign, too.
pub struct WebKey {
    id: Option<String>,
    /// The key.
    pub key: DecodingKey,
    /// The algorithms.
    pub algorithms: Vec<Algorithm>,
}

/// Where keys come from.
#[derive(Debug)]
pub struct WebKeys {
    source: Source,
    keys: RwLock<Held>,
}

#[derive(Debug)]
enum Source {
    File,
    Url { url: String, http: reqwest::Client, busy: tokio::sync::Mutex<()> },
}

struct Held {
    keys: std::sync::Arc<[WebKey]>,
    /// When they were fetched, or when that was last tried.
    tried: Option<Instant>,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} keys", self.keys.len())
    }
}

impl WebKeys {
    /// Reads them from a file, once.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn file(path: &PathBuf) -> Result<Self, String> {
        let shown = path.display();
        let bytes =
            std::fs::read(path).map_err(|error| format!("the key set {shown} cannot be read: {error}"))?;
        let keys = parse(&bytes).map_err(|fault| format!("the key set {shown} {fault}"))?;
        Ok(Self { source: Source::File, keys: RwLock::new(Held { keys: keys.into(), tried: None }) })
    }

    /// Fetches them when they are needed, and again from time to time.
    pub fn url(url: String, http: reqwest::Client) -> Self {
        let source = Source::Url { url, http, busy: tokio::sync::Mutex::default() };
        Self { source, keys: RwLock::new(Held { keys: Vec::new().into(), tried: None }) }
    }

    /// The keys that a token may be signed with: the one that it names, or all.
    pub async fn find(&self, id: Option<&str>) -> std::sync::Arc<[WebKey]> {
        if let Source::Url { url, http, busy } = &self.source {
            let _one = busy.lock().await;
            if self.is_due(id) {
                let fetched = fetch(http, url).await;
                let mut held = self.keys.write();
                held.tried = Some(Instant::now());
                match fetched {
                    Ok(keys) => held.keys = keys.into(),
                    Err(why) => tracing::warn!("the key set {url} {why}; those from before are used"),
                }
            }
        }
        std::sync::Arc::clone(&self.keys.read().keys)
    }

    fn is_due(&self, id: Option<&str>) -> bool {
        let held = self.keys.read();
        let known = held.keys.iter().any(|key| key.is(id));
        held.tried.is_none_or(|tried| tried.elapsed() > if known { AGE_MAX } else { AGE_MIN })
    }
}

impl WebKey {
    /// Whether a token that names this key (or none) may be signed with it.
    pub fn is(&self, id: Option<&str>) -> bool {
        match (id, &self.id) {
            (Some(id), Some(own)) => id == own,
            _ => true,
        }
    }
}

async fn fetch(http: &reqwest::Client, url: &str) -> Result<Vec<WebKey>, String> {
    let fail = |error: reqwest::Error| format!("cannot be fetched: {}", error.without_url());
    let mut response = http.get(url).send().await.map_err(fail)?.error_for_status().map_err(fail)?;
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(fail)? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > BYTES_MAX {
            return Err(format!("is larger than {BYTES_MAX} bytes"));
        }
    }
    parse(&bytes)
}

/// Reads a key set; errors follow its name.
fn parse(bytes: &[u8]) -> Result<Vec<WebKey>, String> {
    let set: JwkSet =
        serde_json::from_slice(bytes).map_err(|error| format!("is no JSON Web Key Set: {error}"))?;
    let mut keys = Vec::new();
    for jwk in &set.keys {
        let algorithms = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => vec![
                Algorithm::RS256,
                Algorithm::RS384,
                Algorithm::RS512,
                Algorithm::PS256,
                Algorithm::PS384,
                Algorithm::PS512,
            ],
            AlgorithmParameters::EllipticCurve(curve) => match curve.curve {
                EllipticCurve::P256 => vec![Algorithm::ES256],
                EllipticCurve::P384 => vec![Algorithm::ES384],
                _ => continue,
            },
            AlgorithmParameters::OctetKeyPair(_) => vec![Algorithm::EdDSA],
            _ => continue,
        };
        let key = DecodingKey::from_jwk(jwk)
            .map_err(|error| format!("holds a key that cannot be used: {error}"))?;
        keys.push(WebKey { id: jwk.common.key_id.clone(), key, algorithms });
    }
    match keys.is_empty() {
        true => Err("holds no public key for signatures".to_owned()),
        false => Ok(keys),
    }
}
