//! The OCI distribution protocol, the part that pulls: manifests, blobs, and the token that both may need.
//!
//! Every body is read under a cap, bodies of errors and of token services included; every wait has an end;
//! what a server answers never becomes a panic. The crate `oci-client`, whose types this module uses, reads
//! all bodies but a blob's whole, and panics on a token that is no header value, so its client is not used.

use std::error::Error;
use std::fmt::Write;

use bytes::Bytes;
use oci_client::manifest::OCI_IMAGE_INDEX_MEDIA_TYPE;
use parking_lot::Mutex;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Certificate, Client, Response, StatusCode, Url, redirect};
use serde::Deserialize;

use super::manifest::{self, Layer};
use super::reference::{self, Selector, Target};
use super::{Auth, Cause, Digest, Endpoint, Limits, Location, blocking, observe};

/// An HTTP client for one pull. None is kept: pulls are rare, and a connection left from the last one is more
/// likely dead than useful. Reads the system's certificates, so it belongs where waiting for the disk is
/// allowed.
pub(super) fn client(endpoint: &Endpoint) -> Result<Client, Cause> {
    let (plain, here, limits) = (endpoint.is_plain(), endpoint.is_here(), &endpoint.limits);
    let trusted = Certificate::from_pem_bundle(&endpoint.trusted).map_err(|error| Cause::Tls {
        detail: format!("what is to vouch for it is no certificate: {error}"),
    })?;
    let builder = || {
        let builder = Client::builder()
            .user_agent(concat!("forebay/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(limits.connect_timeout)
            .read_timeout(limits.read_timeout)
            .redirect(redirect::Policy::custom(follow))
            .tls_certs_merge(trusted.iter().cloned());
        // Otherwise by way of what HTTPS_PROXY, HTTP_PROXY and NO_PROXY say.
        if here { builder.no_proxy() } else { builder }
    };
    match builder().build() {
        // A device without certificates can still pull from a registry that needs none.
        Err(_) if plain => builder().tls_certs_only([]).build(),
        built => built,
    }
    .map_err(|error| Cause::Tls { detail: chain(&error) })
}

/// One repository at one registry, for the length of one pull.
pub(super) struct Wire {
    client: Client,
    /// `https://host/v2/repository`
    base: String,
    repository: String,
    plain: bool,
    auth: Auth,
    limits: Limits,
    /// What the registry's challenge came to.
    authorization: Mutex<Option<HeaderValue>>,
}

impl Wire {
    pub(super) async fn new(endpoint: &Endpoint, target: &Target) -> Result<Self, Cause> {
        let Location::Remote { host, .. } = &endpoint.location else {
            return Err(Cause::Internal { detail: "a layout is not spoken to".to_owned() });
        };
        let (plain, asked) = (endpoint.is_plain(), endpoint.clone());
        let client = blocking(move || client(&asked)).await??;
        let scheme = if plain { "http" } else { "https" };
        Ok(Wire {
            client,
            base: format!("{scheme}://{}/v2/{}", reference::address_of(host), target.repository),
            repository: target.repository.clone(),
            plain,
            auth: endpoint.auth.clone(),
            limits: endpoint.limits.clone(),
            authorization: Mutex::new(None),
        })
    }

    /// The manifest and its digest, which is checked where the selector or the registry states one.
    pub(super) async fn manifest(&self, selector: &Selector) -> Result<(Bytes, Digest), Cause> {
        let what = "the manifest";
        let name = match selector {
            Selector::Tag(tag) => tag.clone(),
            Selector::Digest(digest) => digest.to_string(),
        };
        let response = self.get(&format!("{}/manifests/{name}", self.base), manifest::ACCEPTED, what).await?;
        let stated = stated_digest(response.headers());
        let max = self.limits.manifest_bytes_max;
        let bytes = self.read(response, max).await?.within(what, max, "manifest_bytes_max")?;
        observe::received(bytes.len());
        let asked = match selector {
            Selector::Digest(digest) => Some(digest.clone()),
            Selector::Tag(_) => None,
        };
        for expected in [&asked, &stated].into_iter().flatten() {
            let actual = expected.same_of(&bytes);
            if actual != *expected {
                return Err(Cause::DigestMismatch { what, expected: expected.clone(), actual });
            }
        }
        let digest = asked.unwrap_or_else(|| Digest::of(&bytes));
        Ok((bytes, digest))
    }

    /// The index of what is attached to a manifest and of this type (OCI distribution 1.1, "Listing referrers").
    pub(super) async fn referrers(&self, manifest: &Digest, artifact_type: &str) -> Result<Bytes, Cause> {
        let (what, max) = ("the list of signatures", self.limits.manifest_bytes_max);
        let url = format!("{}/referrers/{manifest}?artifactType={artifact_type}", self.base);
        let response = self.get(&url, OCI_IMAGE_INDEX_MEDIA_TYPE, what).await?;
        self.read(response, max).await?.within(what, max, "manifest_bytes_max")
    }

    /// The layer's bytes, as long as stated and with the digest stated.
    pub(super) async fn blob(&self, layer: &Layer) -> Result<Bytes, Cause> {
        let what = "the layer";
        let url = format!("{}/blobs/{}", self.base, layer.digest);
        let mut response = self.get(&url, "*/*", what).await?;
        if let Some(length) = response.content_length() {
            layer.expect_size(length)?;
        }
        let mut hasher = layer.digest.hasher();
        let mut bytes = Vec::with_capacity(usize::try_from(layer.size).unwrap_or(0).min(RESERVED_BYTES_MAX));
        while let Some(chunk) = self.chunk(&mut response).await? {
            observe::received(chunk.len());
            bytes.extend_from_slice(&chunk);
            if bytes.len() as u64 > layer.size {
                let (expected, actual) = (layer.size, bytes.len() as u64);
                return Err(Cause::SizeMismatch { what, expected, actual, at_least: true });
            }
            hasher.update(&chunk);
        }
        layer.expect_size(bytes.len() as u64)?;
        let actual = hasher.finish();
        if actual != layer.digest {
            return Err(Cause::DigestMismatch { what, expected: layer.digest.clone(), actual });
        }
        Ok(bytes.into())
    }

    /// Gets a URL of this registry, answering its challenge if it has one.
    async fn get(&self, url: &str, accept: &'static str, what: &'static str) -> Result<Response, Cause> {
        let authorization = self.authorization.lock().clone();
        let response = self.send(url, accept, authorization).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return self.expect_ok(response, what).await;
        }
        let Some(authorization) = self.answer(response.headers()).await? else {
            return self.expect_ok(response, what).await;
        };
        *self.authorization.lock() = Some(authorization.clone());
        let response = self.send(url, accept, Some(authorization)).await?;
        self.expect_ok(response, what).await
    }

    async fn send(
        &self,
        url: &str,
        accept: &'static str,
        authorization: Option<HeaderValue>,
    ) -> Result<Response, Cause> {
        let mut request = self.client.get(url).header(ACCEPT, accept);
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        request.send().await.map_err(|error| self.fault(error))
    }

    /// The Authorization that a 401's challenges ask for; nothing if there is none that can be given.
    async fn answer(&self, headers: &HeaderMap) -> Result<Option<HeaderValue>, Cause> {
        let challenges = Challenges::read(headers);
        if let Some(bearer) = challenges.bearer {
            return self.token(bearer).await.map(Some);
        }
        let Auth::Basic { user, password } = &self.auth else { return Ok(None) };
        if !challenges.basic {
            return Ok(None);
        }
        let credentials = http_auth::basic::encode_credentials(user, password);
        let mut value = HeaderValue::from_str(&credentials)
            .map_err(|_| Cause::Internal { detail: "credentials that are no header".to_owned() })?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// Gets a token from the service that the registry names, as the configured user or as anybody.
    async fn token(&self, bearer: Bearer) -> Result<HeaderValue, Cause> {
        let mut url = Url::parse(&bearer.realm)
            .map_err(|_| Cause::Protocol { detail: "its token service has no usable address".to_owned() })?;
        // Neither password nor token may go out in the clear because a server says so.
        if url.scheme() != "https" && !(self.plain && url.scheme() == "http") {
            let detail = "it wants a token to be fetched without TLS".to_owned();
            return Err(Cause::Protocol { detail });
        }
        let scope = format!("repository:{}:pull", self.repository);
        if let Auth::Identity(identity) = &self.auth
            && url.path().ends_with("/oauth2/token")
        {
            let service = bearer.service.unwrap_or_default();
            let token = identity.exchange(&self.client, &url, &service, &scope).await?;
            return bearer_of(&token);
        }
        if let Some(service) = bearer.service {
            url.query_pairs_mut().append_pair("service", &service);
        }
        url.query_pairs_mut().append_pair("scope", &scope);
        let mut request = self.client.get(url);
        if let Auth::Basic { user, password } = &self.auth {
            request = request.basic_auth(user, Some(password));
        }
        let response = request.send().await.map_err(|error| self.fault(error))?;
        let response = self.expect_ok(response, "the token service").await?;
        let body = self.read(response, TOKEN_BYTES_MAX).await?.within(
            "the token",
            TOKEN_BYTES_MAX,
            "no setting; it",
        )?;
        // The parser's own words could quote the token.
        let token: Token =
            serde_json::from_slice(&body).map_err(|_| malformed("not JSON of a token service"))?;
        bearer_of(&token.token.or(token.access_token).ok_or_else(|| malformed("there is none"))?)
    }

    async fn expect_ok(&self, response: Response, what: &'static str) -> Result<Response, Cause> {
        let status = response.status();
        if status == StatusCode::OK {
            return Ok(response);
        }
        let detail = self.own_words(response).await;
        let anonymous = !matches!(self.auth, Auth::Basic { .. });
        Err(match status.as_u16() {
            status @ (401 | 403) => Cause::Denied { status, detail, anonymous },
            404 | 410 => Cause::NotFound { what, detail },
            status @ (429 | 500..) => Cause::Unavailable { status, detail },
            400 if self.plain && detail.contains("HTTPS server") => Cause::SpeaksTls,
            status => Cause::Protocol { detail: format!("HTTP {status} for {what}{detail}") },
        })
    }

    /// What an error's body says, if it says anything, for the message: short, and without control
    /// characters.
    async fn own_words(&self, response: Response) -> String {
        let Ok(Body::Whole(body) | Body::Cut(body)) = self.read(response, WORDS_BYTES_MAX).await else {
            return String::new();
        };
        let words = match serde_json::from_slice::<Envelope>(&body) {
            Ok(envelope) => envelope.to_string(),
            Err(_) => String::from_utf8_lossy(&body).into_owned(),
        };
        let words: String = words.trim().chars().take(200).collect();
        if words.is_empty() { words } else { format!(": {}", words.escape_debug()) }
    }

    async fn read(&self, mut response: Response, max: u64) -> Result<Body, Cause> {
        let mut bytes = Vec::new();
        while let Some(chunk) = self.chunk(&mut response).await? {
            let room = usize::try_from(max).unwrap_or(usize::MAX) - bytes.len();
            bytes.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if chunk.len() > room {
                return Ok(Body::Cut(bytes.into()));
            }
        }
        Ok(Body::Whole(bytes.into()))
    }

    async fn chunk(&self, response: &mut Response) -> Result<Option<Bytes>, Cause> {
        response.chunk().await.map_err(|error| self.fault(error))
    }

    /// What a failed request comes to. Addresses are left out: those that a registry redirects to can be
    /// secrets.
    fn fault(&self, error: reqwest::Error) -> Cause {
        let error = error.without_url();
        let detail = chain(&error);
        if error.is_timeout() && error.is_connect() {
            let after = self.limits.connect_timeout;
            return Cause::Timeout { what: "connecting to the registry", after, setting: "connect_timeout" };
        }
        if error.is_timeout() {
            let after = self.limits.read_timeout;
            return Cause::Timeout {
                what: "waiting for the registry to send",
                after,
                setting: "read_timeout",
            };
        }
        if error.is_redirect() {
            return Cause::Protocol { detail };
        }
        if !error.is_connect() {
            return Cause::Interrupted { detail };
        }
        // rustls's errors come wrapped in those of hyper, without a type to ask for.
        if detail.contains("InvalidContentType") {
            Cause::SpeaksPlainHttp
        } else if detail.contains("certificate") || detail.contains("received fatal alert") {
            Cause::Tls { detail }
        } else {
            Cause::Unreachable { detail }
        }
    }
}

fn malformed(detail: &str) -> Cause {
    Cause::Malformed { what: "the token", detail: detail.to_owned() }
}

fn bearer_of(token: &str) -> Result<HeaderValue, Cause> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|_| malformed("it has characters that no header can hold"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Layers up to this size are given room at once; larger ones have to arrive first.
const RESERVED_BYTES_MAX: usize = 1 << 20;
const TOKEN_BYTES_MAX: u64 = 64 << 10;
const WORDS_BYTES_MAX: u64 = 4 << 10;
const REDIRECTS_MAX: usize = 5;

enum Body {
    Whole(Bytes),
    /// The beginning of one that is too large.
    Cut(Bytes),
}

impl Body {
    fn within(self, what: &'static str, max: u64, setting: &'static str) -> Result<Bytes, Cause> {
        match self {
            Body::Whole(bytes) => Ok(bytes),
            Body::Cut(_) => Err(Cause::TooLarge { what, max, setting }),
        }
    }
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

#[derive(Deserialize)]
struct Envelope {
    errors: Vec<Complaint>,
}

#[derive(Deserialize)]
struct Complaint {
    code: String,
    #[serde(default)]
    message: String,
}

impl std::fmt::Display for Envelope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, Complaint { code, message }) in self.errors.iter().enumerate() {
            write!(f, "{}{code} {message}", if i == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

/// What a 401 asks for.
#[derive(Debug, Default)]
struct Challenges {
    bearer: Option<Bearer>,
    basic: bool,
}

#[derive(Debug)]
struct Bearer {
    realm: String,
    service: Option<String>,
}

impl Challenges {
    fn read(headers: &HeaderMap) -> Self {
        let mut challenges = Challenges::default();
        let texts = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        for challenge in texts.filter_map(|text| http_auth::parse_challenges(text).ok()).flatten() {
            let parameter = |name: &str| {
                let mut named = challenge.params.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
                named.next().map(|(_, value)| value.to_unescaped())
            };
            if challenge.scheme.eq_ignore_ascii_case("basic") {
                challenges.basic = true;
            } else if challenge.scheme.eq_ignore_ascii_case("bearer")
                && challenges.bearer.is_none()
                && let Some(realm) = parameter("realm")
            {
                challenges.bearer = Some(Bearer { realm, service: parameter("service") });
            }
        }
        challenges
    }
}

fn stated_digest(headers: &HeaderMap) -> Option<Digest> {
    headers.get("docker-content-digest")?.to_str().ok()?.parse().ok()
}

/// Follows a few redirects, as registries that keep blobs in object storage need, and none that leaves TLS.
fn follow(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let from_tls = attempt.previous().last().is_some_and(|url| url.scheme() == "https");
    if from_tls && attempt.url().scheme() != "https" {
        return attempt.error("a redirect from HTTPS to plain HTTP is not followed");
    }
    if attempt.previous().len() > REDIRECTS_MAX {
        return attempt.error("too many redirects");
    }
    attempt.follow()
}

/// An error with all that caused it, because the outermost says only that a request failed.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let next = cause.to_string();
        if !text.ends_with(&next) {
            // Writing to a String cannot fail.
            let _ = write!(text, ": {next}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenges(values: &[&'static str]) -> Challenges {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(value));
        }
        Challenges::read(&headers)
    }

    #[test]
    fn a_bearer_challenge_is_found_among_others_and_in_any_case() {
        let found = challenges(&[
            r#"Basic realm="r""#,
            r#"bearer Realm="https://auth.example/token",SERVICE="registry",scope="repository:a:pull""#,
        ]);
        let bearer = found.bearer.unwrap();
        assert_eq!(
            (bearer.realm.as_str(), bearer.service.as_deref()),
            ("https://auth.example/token", Some("registry"))
        );
        assert!(found.basic);
    }

    #[test]
    fn a_challenge_that_makes_no_sense_is_none() {
        for text in
            ["", "Bearer", "Bearer service=x", "Digest realm=\"x\"", "=,=,\"", "Bearer realm=\"unclosed"]
        {
            let found = challenges(&[text]);
            assert!(found.bearer.is_none() && !found.basic, "{text}: {found:?}");
        }
    }
}
