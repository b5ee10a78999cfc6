//! Whether a token is good, asked of a Kubernetes API server (`TokenReview`), and the attributes that its service account
//! is annotated with.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::json;

use super::Identity;
use super::service_account::{ATTRIBUTE_PREFIX, Claims};

/// The largest answer that is read.
const BYTES_MAX: usize = 1 << 20;

/// An API server, and who the broker is to it.
#[derive(Debug)]
pub struct Reviewer {
    http: reqwest::Client,
    /// `https://host:port`
    server: String,
    /// The broker's own token: Kubernetes replaces it from time to time, so it is read each time.
    token_file: PathBuf,
}

#[derive(Debug, Deserialize)]
struct Review {
    #[serde(default)]
    status: ReviewStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ReviewStatus {
    authenticated: bool,
    user: User,
    audiences: Vec<String>,
    error: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct User {
    username: String,
    extra: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Deserialize)]
struct ServiceAccount {
    metadata: Metadata,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

impl Reviewer {
    /// Asks this server.
    pub fn new(http: reqwest::Client, server: &str, token_file: PathBuf) -> Self {
        Self { http, server: server.trim_end_matches('/').to_owned(), token_file }
    }

    /// Has a token reviewed.
    pub(super) async fn review(&self, token: &str, audiences: &[String]) -> Result<Identity, String> {
        let own = tokio::fs::read_to_string(&self.token_file).await.map_err(|error| {
            format!("the broker's own token {} cannot be read: {error}", self.token_file.display())
        })?;
        let own = own.trim();
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": audiences},
        });
        let url = format!("{}/apis/authentication.k8s.io/v1/tokenreviews", self.server);
        let http = self.http.post(url).bearer_auth(own).header("content-type", "application/json");
        let review: Review = answer(http.body(request.to_string())).await?;
        let status = review.status;
        if !status.authenticated {
            let why = if status.error.is_empty() { "the API server does not know it" } else { &status.error };
            return Err(why.to_owned());
        }
        // A server that knows nothing of audiences says none, and has not looked at them.
        if !status.audiences.iter().any(|audience| audiences.contains(audience)) {
            return Err("it was made for another audience".to_owned());
        }
        // The server has vouched for the token: what it says can be believed now.
        let claims: Claims =
            jsonwebtoken::dangerous::insecure_decode_claims(token).map_err(|error| error.to_string())?;
        let mut attributes = self.annotations(&status.user.username, own).await;
        for (name, values) in &status.user.extra {
            if let (Some(name), Some(value)) = (name.strip_prefix(ATTRIBUTE_PREFIX), values.first()) {
                attributes.insert(name.to_owned(), value.clone());
            }
        }
        Ok(Identity {
            username: Some(status.user.username),
            attributes,
            expires: Some(claims.expires()),
            ..Identity::default()
        })
    }

    /// The attributes of a service account; none when the broker may not look.
    async fn annotations(&self, username: &str, own: &str) -> BTreeMap<String, String> {
        let name = username.strip_prefix("system:serviceaccount:").and_then(|name| name.split_once(':'));
        let is_name = |name: &str| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
        };
        let Some((namespace, name)) = name.filter(|(namespace, name)| is_name(namespace) && is_name(name))
        else {
            return BTreeMap::new();
        };
        let url = format!("{}/api/v1/namespaces/{namespace}/serviceaccounts/{name}", self.server);
        match answer::<ServiceAccount>(self.http.get(url).bearer_auth(own)).await {
            Ok(account) => {
                let attribute = |(name, value): (String, String)| {
                    name.strip_prefix(ATTRIBUTE_PREFIX).map(|name| (name.to_owned(), value))
                };
                account.metadata.annotations.into_iter().filter_map(attribute).collect()
            }
            Err(why) => {
                tracing::warn!("no attributes are known of the service account {namespace}/{name}: {why}");
                BTreeMap::new()
            }
        }
    }
}

async fn answer<T: serde::de::DeserializeOwned>(request: reqwest::RequestBuilder) -> Result<T, String> {
    let fail = |error: reqwest::Error| format!("the API server does not answer: {}", error.without_url());
    let mut response = request.send().await.map_err(fail)?.error_for_status().map_err(fail)?;
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(fail)? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > BYTES_MAX {
            return Err("the API server's answer is too large".to_owned());
        }
    }
    serde_json::from_slice(&bytes).map_err(|error| format!("the API server's answer cannot be read: {error}"))
}
