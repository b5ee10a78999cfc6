//! Authentication by a web service of the user's own (AIO.md §5.8): its protocol over HTTPS, version 0.5.0.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use broker_core::Millis;
use broker_core::packet::{PacketType, ReasonCode, Role};
use reqwest::StatusCode;
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use super::{Credentials, Identity, Verdict};

/// The version of the protocol that is spoken.
const API_VERSION: &str = "0.5.0";
/// How long the service may take; later is the same as unreachable.
pub const TIMEOUT: Duration = Duration::from_secs(5);
/// The largest answer that is read.
const BYTES_MAX: usize = 256 * 1024;

/// A web service that knows who may come in.
#[derive(Debug)]
pub struct Custom {
    http: reqwest::Client,
    endpoint: String,
    headers: BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
struct Request<'a> {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certs: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Allowed {
    /// RFC 3339.
    expiry: Option<String>,
    attributes: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
struct Denied {
    reason: u8,
    #[serde(default)]
    message: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Versions {
    supported_versions: Vec<String>,
}

/// What one exchange came to.
enum Answer {
    Verdict(Verdict),
    OtherVersions(Vec<String>),
}

impl Custom {
    /// The service at `endpoint`, asked with `http` and these headers.
    pub fn new(http: reqwest::Client, endpoint: &str, headers: BTreeMap<String, String>) -> Self {
        Self { http, endpoint: endpoint.trim_end_matches('/').to_owned(), headers }
    }

    /// All credentials are relevant, and none when the service cannot be reached.
    pub(super) async fn ask(&self, credentials: &Credentials<'_>) -> Verdict {
        let request = Request {
            r#type: "connect",
            username: credentials.username,
            password: credentials.password.map(|password| STANDARD.encode(password)),
            certs: (!credentials.certificates.is_empty()).then(|| pem(credentials.certificates)),
        };
        let answer = match self.exchange(API_VERSION, &request, credentials.username).await {
            Ok(Answer::OtherVersions(versions)) => match versions.first() {
                Some(version) => self.exchange(version, &request, credentials.username).await,
                None => Err("it supports no version of the protocol".to_owned()),
            },
            other => other,
        };
        match answer {
            Ok(Answer::Verdict(verdict)) => verdict,
            Ok(Answer::OtherVersions(_)) => self.unusable("it takes no version that it says it supports"),
            Err(why) => self.unusable(&why),
        }
    }

    fn unusable(&self, why: &str) -> Verdict {
        metrics::counter!("forebay_authentication_service_errors_total").increment(1);
        tracing::warn!("the authentication service {} cannot be asked: {why}", self.endpoint);
        Verdict::NotRelevant
    }

    async fn exchange(
        &self,
        version: &str,
        request: &Request<'_>,
        username: Option<&str>,
    ) -> Result<Answer, String> {
        let version = url_safe(version).ok_or("the version that it supports is not written as one")?;
        let url = format!("{}/?api-version={version}", self.endpoint);
        let body = serde_json::to_string(request).map_err(|error| error.to_string())?;
        let mut post = self.http.post(url).header("content-type", "application/json").body(body);
        for (name, value) in &self.headers {
            post = post.header(name, value);
        }
        let fail = |error: reqwest::Error| root_cause(&error.without_url());
        let mut response = post.send().await.map_err(fail)?;
        let status = response.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(fail)? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > BYTES_MAX {
                return Err("its answer is too large".to_owned());
            }
        }
        let unreadable = |error: serde_json::Error| format!("its answer ({status}) cannot be read: {error}");
        match status {
            StatusCode::OK => {
                let allowed: Allowed = match bytes.is_empty() {
                    true => Allowed::default(),
                    false => serde_json::from_slice(&bytes).map_err(unreadable)?,
                };
                let expires = allowed.expiry.as_deref().map(expiry).transpose()?;
                let username = username.map(str::to_owned);
                let identity =
                    Identity { username, attributes: allowed.attributes, expires, ..Identity::default() };
                Ok(Answer::Verdict(Verdict::Accepted(identity)))
            }
            StatusCode::FORBIDDEN => {
                let denied: Denied = serde_json::from_slice(&bytes).map_err(unreadable)?;
                let message = denied.message.unwrap_or_else(|| "it gives no reason".to_owned());
                let why = format!("the authentication service says no: {message}");
                Ok(Answer::Verdict(Verdict::refused(reason(denied.reason), why)))
            }
            StatusCode::UNPROCESSABLE_ENTITY => {
                let versions: Versions = serde_json::from_slice(&bytes).map_err(unreadable)?;
                Ok(Answer::OtherVersions(versions.supported_versions))
            }
            _ => Err(format!("it answers {status}: {}", shortened(&bytes))),
        }
    }
}

/// The reason of an error, if CONNACK may carry it.
fn reason(code: u8) -> ReasonCode {
    ReasonCode::from_code(code)
        .filter(|reason| reason.is_error() && reason.allowed_in(PacketType::ConnAck, Role::Server))
        .unwrap_or(ReasonCode::NotAuthorized)
}

fn expiry(text: &str) -> Result<Millis, String> {
    let time = humantime::parse_rfc3339(text).ok().or_else(|| with_offset(text));
    let time = time.ok_or("its `expiry` is no time of RFC 3339")?;
    let since = time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Ok(Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)))
}

/// A time with an offset from UTC, such as `2026-11-25T12:00:00+01:00`.
fn with_offset(text: &str) -> Option<std::time::SystemTime> {
    let (local, sign, offset) = match (text.rsplit_once('+'), text.rsplit_once('-')) {
        (Some((local, offset)), _) => (local, 1, offset),
        (None, Some((local, offset))) => (local, -1, offset),
        _ => return None,
    };
    let (hours, minutes) = offset.split_once(':').filter(|(h, m)| h.len() == 2 && m.len() == 2)?;
    let (hours, minutes): (u64, u64) = (hours.parse().ok()?, minutes.parse().ok()?);
    let offset = Duration::from_secs(hours.checked_mul(3600)?.checked_add(minutes.checked_mul(60)?)?);
    let local = humantime::parse_rfc3339(&format!("{local}Z")).ok()?;
    if sign > 0 { local.checked_sub(offset) } else { local.checked_add(offset) }
}

fn url_safe(version: &str) -> Option<&str> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || b == b'.' || b == b'-';
    (!version.is_empty() && version.len() <= 64 && version.bytes().all(fine)).then_some(version)
}

fn shortened(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().filter(|c| !c.is_control()).take(200).collect()
}

/// What is at the bottom of an error: the rest says only that a request failed.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

fn pem(certificates: &[CertificateDer<'_>]) -> String {
    let mut out = String::new();
    for certificate in certificates {
        out.push_str("-----BEGIN CERTIFICATE-----\n");
        let text = STANDARD.encode(certificate);
        for line in text.as_bytes().chunks(64) {
            out.extend(line.iter().map(|byte| char::from(*byte)));
            out.push('\n');
        }
        out.push_str("-----END CERTIFICATE-----\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_and_without_an_offset() {
        let utc = expiry("2026-11-25T11:00:00Z").expect("a time");
        for text in ["2026-11-25T12:00:00+01:00", "2026-11-25T05:30:00-05:30", "2026-11-25T11:00:00.000Z"] {
            assert_eq!(expiry(text), Ok(utc), "{text}");
        }
        for text in
            ["tomorrow", "2026-11-25", "2026-11-25T12:00:00+1", "2026-11-25T12:00:00+99999999999999999999:00"]
        {
            assert!(expiry(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_reasons_that_fit_reach_the_client() {
        assert_eq!(reason(0x87), ReasonCode::NotAuthorized);
        assert_eq!(reason(0x8A), ReasonCode::Banned);
        assert_eq!(reason(0), ReasonCode::NotAuthorized);
        assert_eq!(reason(0xFF), ReasonCode::NotAuthorized);
    }
}
