//! The Notary Project's signatures: an envelope (JWS or COSE) around a payload that names a manifest.
//!
//! Sources: the project's signature specification, with its envelopes for JWS (RFC 7515) and COSE (RFC 9052,
//! RFC 9360). Whatever an envelope declares critical and is not known here makes it count for nothing.

use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use coset::cbor::Value;
use coset::iana::{self, EnumI64};
use coset::{
    CborSerializable, ContentType, CoseSign1, Label, RegisteredLabelWithPrivate, TaggedCborSerializable,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Digest;
use super::chain::{Algorithm, Authorities};

const CONTENT_TYPE: &str = "application/vnd.cncf.notary.payload.v1+json";
const SCHEME: &str = "io.cncf.notary.signingScheme";
const EXPIRY: &str = "io.cncf.notary.expiry";
/// The scheme whose certificates are those of the signer and of authorities above.
const X509: &str = "notary.x509";
/// COSE's header parameter with the certificates (RFC 9360, §2).
const X5CHAIN: i64 = 33;
/// CBOR's tag of a time in seconds (RFC 8949, §3.4.2).
const EPOCH_TIME: u64 = 1;

/// An envelope, opened; nothing of it has been checked but its form.
pub(super) struct Envelope {
    algorithm: Algorithm,
    /// The signer's certificate, and those above it.
    chain: Vec<Vec<u8>>,
    /// The bytes that were signed: headers and payload, as the format joins them.
    signed: Vec<u8>,
    signature: Vec<u8>,
    payload: Vec<u8>,
    attributes: Attributes,
}

/// The signed attributes that decide whether a signature counts.
struct Attributes {
    scheme: String,
    /// When the signer wants it to end, seconds since 1970.
    expiry: Option<u64>,
    /// What must be understood.
    critical: Vec<String>,
    content_type: String,
}

impl Envelope {
    /// Checks that the signature is of `manifest`, by somebody below `authorities`, and has not expired.
    pub(super) fn check(&self, manifest: &Digest, authorities: &Authorities) -> Result<(), String> {
        self.attributes.check()?;
        authorities.check(&self.chain, self.algorithm, &self.signed, &self.signature)?;
        let payload: Payload = json("what it signs", &self.payload)?;
        let signed = payload.target_artifact.digest;
        match signed == manifest.to_string() {
            true => Ok(()),
            false => Err(format!("it is of another manifest, {}", signed.escape_debug())),
        }
    }
}

impl Attributes {
    fn check(&self) -> Result<(), String> {
        if let Some(unknown) = self.critical.iter().find(|name| ![SCHEME, EXPIRY].contains(&name.as_str())) {
            return Err(format!("it declares `{}` critical, which is not supported", unknown.escape_debug()));
        }
        // Critical by the specification, so that nobody who does not know them takes the signature for good.
        let is_critical = |name: &str| self.critical.iter().any(|critical| critical == name);
        if !is_critical(SCHEME) || (self.expiry.is_some() && !is_critical(EXPIRY)) {
            return Err("its scheme or its expiry is not declared critical".to_owned());
        }
        if self.content_type != CONTENT_TYPE {
            return Err(format!("it signs `{}`, not `{CONTENT_TYPE}`", self.content_type.escape_debug()));
        }
        if self.scheme != X509 {
            return Err(format!("its scheme is `{}`, not `{X509}`", self.scheme.escape_debug()));
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        match self.expiry {
            Some(expiry) if expiry <= now => Err("it has expired, as its signer wanted".to_owned()),
            _ => Ok(()),
        }
    }
}

/// Opens a JSON Web Signature in its flattened form.
pub(super) fn jws(bytes: &[u8]) -> Result<Envelope, String> {
    let Jws { payload, protected, header, signature } = json("its envelope", bytes)?;
    let signed = format!("{protected}.{payload}").into_bytes();
    let protected: Protected = json("its protected header", &url_safe("its protected header", &protected)?)?;
    let unknown = |name: &str| format!("its algorithm `{}` is not the Notary Project's", name.escape_debug());
    let certificate =
        |text: &String| STANDARD.decode(text).map_err(|_| "a certificate is not base64".to_owned());
    Ok(Envelope {
        algorithm: Algorithm::by_name(&protected.alg).ok_or_else(|| unknown(&protected.alg))?,
        chain: header.x5c.iter().map(certificate).collect::<Result<_, _>>()?,
        signed,
        signature: url_safe("its signature", &signature)?,
        payload: url_safe("its payload", &payload)?,
        attributes: Attributes {
            scheme: protected.scheme,
            expiry: protected.expiry.map(|text| seconds_of(&text)).transpose()?,
            critical: protected.crit,
            content_type: protected.cty,
        },
    })
}

/// Opens a COSE_Sign1.
pub(super) fn cose(bytes: &[u8]) -> Result<Envelope, String> {
    let envelope = CoseSign1::from_tagged_slice(bytes).or_else(|_| CoseSign1::from_slice(bytes));
    let envelope = envelope.map_err(|error| format!("its envelope is not COSE_Sign1: {error}"))?;
    let protected = &envelope.protected.header;
    let text_of = |name: &str| {
        let found = protected.rest.iter().find(|(label, _)| *label == Label::Text(name.to_owned()));
        found.map(|(_, value)| value)
    };
    let expiry = text_of(EXPIRY).map(|value| epoch(value).ok_or("its expiry is no time"));
    Ok(Envelope {
        algorithm: cose_algorithm(protected.alg.as_ref())?,
        chain: cose_chain(&envelope.unprotected.rest)?,
        signed: envelope.tbs_data(&[]),
        signature: envelope.signature.clone(),
        payload: envelope.payload.clone().ok_or("its envelope has no payload")?,
        attributes: Attributes {
            scheme: text_of(SCHEME).and_then(Value::as_text).unwrap_or_default().to_owned(),
            expiry: expiry.transpose()?,
            critical: protected.crit.iter().map(critical_name).collect(),
            content_type: match &protected.content_type {
                Some(ContentType::Text(text)) => text.clone(),
                _ => String::new(),
            },
        },
    })
}

fn cose_algorithm(algorithm: Option<&coset::Algorithm>) -> Result<Algorithm, String> {
    let name = match algorithm {
        Some(RegisteredLabelWithPrivate::Assigned(assigned)) => format!("{assigned:?}"),
        other => return Err(format!("its algorithm {other:?} is not the Notary Project's")),
    };
    Algorithm::by_name(&name).ok_or_else(|| format!("its algorithm `{name}` is not the Notary Project's"))
}

fn cose_chain(unprotected: &[(Label, Value)]) -> Result<Vec<Vec<u8>>, String> {
    let chain = unprotected.iter().find(|(label, _)| *label == Label::Int(X5CHAIN)).map(|(_, value)| value);
    let certificate =
        |value: &Value| value.as_bytes().cloned().ok_or("a certificate is no byte string".to_owned());
    match chain {
        None => Ok(Vec::new()),
        Some(Value::Array(certificates)) => certificates.iter().map(certificate).collect(),
        Some(single) => certificate(single).map(|der| vec![der]),
    }
}

fn critical_name(label: &RegisteredLabelWithPrivate<iana::HeaderParameter>) -> String {
    match label {
        RegisteredLabelWithPrivate::Text(name) => name.clone(),
        RegisteredLabelWithPrivate::Assigned(parameter) => parameter.to_i64().to_string(),
        RegisteredLabelWithPrivate::PrivateUse(number) => number.to_string(),
    }
}

fn epoch(value: &Value) -> Option<u64> {
    let Value::Tag(EPOCH_TIME, seconds) = value else { return None };
    u64::try_from(seconds.as_integer()?).ok()
}

fn seconds_of(text: &str) -> Result<u64, String> {
    let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| "its expiry is no time".to_owned())?;
    Ok(u64::try_from(time.unix_timestamp()).unwrap_or(0))
}

fn url_safe(what: &str, text: &str) -> Result<Vec<u8>, String> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| format!("{what} is not base64url"))
}

fn json<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| format!("{what} is not as it should be: {error}"))
}

#[derive(Deserialize)]
struct Jws {
    payload: String,
    protected: String,
    header: Unprotected,
    signature: String,
}

#[derive(Deserialize)]
struct Unprotected {
    x5c: Vec<String>,
}

#[derive(Deserialize)]
struct Protected {
    alg: String,
    cty: String,
    #[serde(default)]
    crit: Vec<String>,
    #[serde(rename = "io.cncf.notary.signingScheme")]
    scheme: String,
    #[serde(rename = "io.cncf.notary.expiry")]
    expiry: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload {
    target_artifact: TargetArtifact,
}

#[derive(Deserialize)]
struct TargetArtifact {
    digest: String,
}
