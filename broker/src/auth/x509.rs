//! Client certificates (AIO.md §5.8): a chain to a certificate that the configuration trusts, and attributes by subject.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use broker_core::Millis;
use broker_core::packet::ReasonCode;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, TrustAnchor, UnixTime};
use rustls::{DistinguishedName, RootCertStore};
use webpki::{
    ALL_VERIFICATION_ALGS, CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage,
    OwnedCertRevocationList, RevocationCheckDepth, RevocationOptionsBuilder, UnknownStatusPolicy,
    anchor_from_trusted_cert,
};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;

use super::{Credentials, Identity, Verdict};

/// Attributes of those who have a certificate with this subject above them, or are it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubjectAttributes {
    /// The subject, as types and values in any order.
    subject: Subject,
    attributes: BTreeMap<String, String>,
}

/// A distinguished name: types in upper case and values, sorted.
type Subject = Vec<(String, String)>;

impl SubjectAttributes {
    /// Reads a subject such as `CN = fan, O = Contoso`.
    ///
    /// # Errors
    /// What is wrong with the subject.
    pub fn new(subject: &str, attributes: BTreeMap<String, String>) -> Result<Self, String> {
        Ok(Self { subject: parse_subject(subject)?, attributes })
    }
}

/// Which client certificates are good.
#[derive(Debug)]
pub struct X509 {
    anchors: Vec<TrustAnchor<'static>>,
    /// Subjects of the anchors' certificates, by the bytes that a verified path has.
    subjects: Vec<(Vec<u8>, Subject)>,
    attributes: Vec<SubjectAttributes>,
    /// Certificates that are good no longer; where there are any lists, there must be one of each issuer of clients.
    revoked: Vec<CertRevocationList<'static>>,
}

impl X509 {
    /// Trusts these certificates to sign clients'.
    ///
    /// # Errors
    /// Says which certificate cannot be used.
    pub fn new(trusted: &[CertificateDer<'_>], attributes: Vec<SubjectAttributes>) -> Result<Self, String> {
        let mut anchors = Vec::new();
        let mut subjects = Vec::new();
        for (at, certificate) in trusted.iter().enumerate() {
            let number = at + 1;
            let unusable = |error: &dyn std::fmt::Display| {
                format!("holds a certificate (number {number}) that cannot be used: {error}")
            };
            let anchor = anchor_from_trusted_cert(certificate).map_err(|error| unusable(&error))?.to_owned();
            let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| unusable(&error))?;
            subjects.push((anchor.subject.as_ref().to_vec(), subject_of(parsed.subject())));
            anchors.push(anchor);
        }
        match anchors.is_empty() {
            true => Err("holds no certificate".to_owned()),
            false => Ok(Self { anchors, subjects, attributes, revoked: Vec::new() }),
        }
    }

    /// The same, but for certificates that the lists in this PEM revoke, and those of issuers without a list.
    ///
    /// # Errors
    /// Says which list cannot be used.
    pub fn revoked_by(mut self, pem: &[u8]) -> Result<Self, String> {
        for (at, list) in CertificateRevocationListDer::pem_slice_iter(pem).enumerate() {
            let unusable = |error: String| {
                format!("holds a revocation list (number {}) that cannot be used: {error}", at + 1)
            };
            let list = list.map_err(|error| unusable(error.to_string()))?;
            let list =
                OwnedCertRevocationList::from_der(&list).map_err(|error| unusable(error.to_string()))?;
            self.revoked.push(list.into());
        }
        match self.revoked.is_empty() {
            true => Err("holds no revocation list (PEM, `X509 CRL`)".to_owned()),
            false => Ok(self),
        }
    }

    /// Subjects of the certificates that are trusted.
    pub(super) fn issuers(&self) -> Vec<DistinguishedName> {
        RootCertStore { roots: self.anchors.clone() }.subjects()
    }

    /// A client certificate is relevant.
    pub(super) fn ask(&self, credentials: &Credentials<'_>) -> Verdict {
        let Some((own, above)) = credentials.certificates.split_first() else { return Verdict::NotRelevant };
        // Whoever asks for another way has said so.
        if credentials.method.is_some() {
            return Verdict::NotRelevant;
        }
        match self.verify(own, above) {
            Ok(identity) => Verdict::Accepted(identity),
            Err(why) => {
                Verdict::refused(ReasonCode::NotAuthorized, format!("its certificate is not good: {why}"))
            }
        }
    }

    fn verify(&self, own: &CertificateDer<'_>, above: &[CertificateDer<'_>]) -> Result<Identity, String> {
        let leaf = EndEntityCert::try_from(own).map_err(|error| error.to_string())?;
        let lists: Vec<&CertRevocationList<'_>> = self.revoked.iter().collect();
        // As mosquitto's crlfile: of the client's own certificate, by a list that is there and has not ended.
        let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
            options
                .with_depth(RevocationCheckDepth::EndEntity)
                .with_status_policy(UnknownStatusPolicy::Deny)
                .with_expiration_policy(ExpirationPolicy::Enforce)
                .build()
        });
        let path = leaf
            .verify_for_usage(
                ALL_VERIFICATION_ALGS,
                &self.anchors,
                above,
                UnixTime::now(),
                KeyUsage::client_auth(),
                revocation,
                None,
            )
            .map_err(|error| error.to_string())?;
        let (_, certificate) = X509Certificate::from_der(own).map_err(|error| error.to_string())?;
        // From the leaf upward; only certificates that the path was verified with (a client may send others, too).
        let mut subjects = vec![subject_of(certificate.subject())];
        for intermediate in path.intermediate_certificates() {
            let der = intermediate.der();
            let (_, certificate) = X509Certificate::from_der(&der).map_err(|error| error.to_string())?;
            subjects.push(subject_of(certificate.subject()));
        }
        let anchor = path.anchor().subject.as_ref();
        subjects
            .extend(self.subjects.iter().find(|(der, _)| der == anchor).map(|(_, subject)| subject.clone()));
        let matching =
            subjects.iter().find_map(|subject| self.attributes.iter().find(|a| a.subject == *subject));
        let username = certificate.subject().iter_common_name().last();
        let username = username.and_then(|name| name.as_str().ok()).map(str::to_owned);
        let attributes = matching.map(|found| found.attributes.clone()).unwrap_or_default();
        Ok(Identity { username, attributes, expires: expires(&certificate), ..Identity::default() })
    }
}

fn expires(certificate: &X509Certificate<'_>) -> Option<Millis> {
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
    let end = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?;
    let since = end.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(Millis(u64::try_from(since.as_millis()).ok()?))
}

fn subject_of(name: &X509Name<'_>) -> Subject {
    let mut subject: Subject = name
        .iter_attributes()
        .map(|attribute| {
            let oid = attribute.attr_type();
            let abbreviation = x509_parser::objects::oid2abbrev(oid, x509_parser::objects::oid_registry());
            let kind = abbreviation.map_or_else(|_| oid.to_id_string(), str::to_ascii_uppercase);
            (kind, attribute.as_str().unwrap_or_default().to_owned())
        })
        .collect();
    subject.sort();
    subject
}

/// Reads a distinguished name as people write it: `CN = fan, O = "Contoso, Ltd", OU=A\,B`, in either order.
fn parse_subject(text: &str) -> Result<Subject, String> {
    let mut subject = Subject::new();
    for part in split_unescaped(text) {
        let (kind, value) =
            part.split_once('=').ok_or("is not written as `CN = name, O = organization` and so on")?;
        let kind = kind.trim().to_ascii_uppercase();
        // What some programs write for what others abbreviate.
        let kind = match kind.as_str() {
            "S" => "ST".to_owned(),
            "E" => "EMAILADDRESS".to_owned(),
            _ => kind,
        };
        let value = value.trim();
        let bare = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
        let mut plain = String::new();
        let mut chars = bare.chars();
        while let Some(c) = chars.next() {
            plain.extend(if c == '\\' { chars.next() } else { Some(c) });
        }
        if kind.is_empty() || plain.is_empty() {
            return Err("has a part without a type or a value".to_owned());
        }
        subject.push((kind, plain));
    }
    subject.sort();
    Ok(subject)
}

/// The parts between commas that are neither quoted nor escaped.
fn split_unescaped(text: &str) -> Vec<&str> {
    let (mut parts, mut from, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            ',' if !quoted => {
                parts.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    parts
}

/// The certificates of a text in PEM.
///
/// # Errors
/// What is wrong with it, in words that follow its name.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| format!("holds no valid PEM: {error}"))?;
    match found.is_empty() {
        true => Err("holds no certificate in PEM".to_owned()),
        false => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_read_as_people_write_them() {
        let expected = vec![
            ("C".to_owned(), "US".to_owned()),
            ("CN".to_owned(), "Contoso, Ltd".to_owned()),
            ("OU".to_owned(), "Engineering".to_owned()),
        ];
        for text in [
            "CN = \"Contoso, Ltd\", OU = Engineering, C = US",
            "C=US,OU=Engineering,CN=Contoso\\, Ltd",
            "cn=Contoso\\, Ltd,ou=Engineering,c=US",
        ] {
            assert_eq!(parse_subject(text), Ok(expected.clone()), "{text}");
        }
        for text in ["fan", "CN=", "CN = fan,", "= fan"] {
            assert!(parse_subject(text).is_err(), "{text}");
        }
    }
}
