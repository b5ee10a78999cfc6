//! A certificate authority of the broker's own, for `tls.mode: Automatic`: cert-manager has none to ask here.
//!
//! It is made once and kept in the data directory, `tls/ca.crt` and `tls/ca.key`; clients trust the former. The
//! certificates of ports are made anew at each start, and again before they end.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use config::resource::broker::KeyAlgorithm;
use config::resource::listener::CertificateSpec;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, RsaKeySize, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use time::OffsetDateTime;

/// How long the authority is good: devices that trust it are not visited often.
const AUTHORITY_LIFE: Duration = Duration::from_secs(20 * 365 * 24 * 3600);
/// How long a certificate is good where nothing is said (as cert-manager has it).
const CERTIFICATE_LIFE: Duration = Duration::from_secs(90 * 24 * 3600);
/// Clocks of clients may be behind by so much.
const BACKDATED: Duration = Duration::from_secs(3600);

/// An authority that signs certificates of ports.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    /// Where clients find what to trust.
    pub path: PathBuf,
}

/// A certificate with its chain, its key, and when it should be replaced.
pub struct Issued {
    /// The certificate, and the authority's.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key.
    pub key: PrivateKeyDer<'static>,
    /// When another should take its place.
    pub renew: SystemTime,
}

impl Authority {
    /// The one in this data directory; made if there is none.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn open(data_dir: &Path) -> Result<Self, String> {
        let directory = data_dir.join("tls");
        let (path, key_path) = (directory.join("ca.crt"), directory.join("ca.key"));
        if !path.exists() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&directory)
                .map_err(|error| format!("{} cannot be made: {error}", directory.display()))?;
            let (certificate, key) =
                make().map_err(|error| format!("no certificate authority can be made: {error}"))?;
            // The key first: a certificate says that both are there.
            write(&key_path, &key, 0o600)?;
            write(&path, &certificate, 0o644)?;
        }
        let read = |path: &Path| {
            fs::read_to_string(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))
        };
        let (certificate, key) = (read(&path)?, read(&key_path)?);
        let unusable = |path: &Path| format!("{} holds nothing that can be used", path.display());
        let key = KeyPair::from_pem(&key).map_err(|_| unusable(&key_path))?;
        let mut certificates =
            crate::auth::read_certificates(certificate.as_bytes()).map_err(|_| unusable(&path))?;
        let certificate = certificates.swap_remove(0);
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(|_| unusable(&path))?;
        Ok(Self { issuer, certificate, path })
    }

    /// A certificate for this machine and whatever else the specification names.
    ///
    /// # Errors
    /// What cannot be done.
    pub fn issue(&self, spec: &CertificateSpec, names: &[String], address: IpAddr) -> Result<Issued, String> {
        let fail = |error: rcgen::Error| error.to_string();
        let key = key_pair(spec)?;
        let life = spec.duration.as_ref().map_or(CERTIFICATE_LIFE, |span| span.0);
        if life > AUTHORITY_LIFE {
            return Err("`duration` is longer than the certificate authority lives, twenty years".to_owned());
        }
        let ahead = spec.renew_before.as_ref().map_or(life / 3, |span| span.0);
        let ahead = if ahead < life { ahead } else { life / 3 };
        let now = SystemTime::now();
        let mut params = CertificateParams::default();
        params.not_before = OffsetDateTime::from(now - BACKDATED);
        params.not_after = OffsetDateTime::from(now + life);
        params.distinguished_name.push(DnType::CommonName, names.first().map_or("forebay", String::as_str));
        params.subject_alt_names = subject_names(spec, names, address)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer).map_err(fail)?;
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(str::to_owned)?;
        let chain = vec![certificate.der().clone(), self.certificate.clone()];
        Ok(Issued { chain, key, renew: now + (life - ahead) })
    }
}

fn make() -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate()?;
    let now = SystemTime::now();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    params.distinguished_name.push(DnType::CommonName, "forebay's own certificate authority");
    params.not_before = OffsetDateTime::from(now - BACKDATED);
    params.not_after = OffsetDateTime::from(now + AUTHORITY_LIFE);
    let certificate = params.self_signed(&key)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn key_pair(spec: &CertificateSpec) -> Result<KeyPair, String> {
    let algorithm = spec.private_key.as_ref().map_or(KeyAlgorithm::Ec256, |key| key.algorithm);
    let made = match algorithm {
        KeyAlgorithm::Ec256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
        KeyAlgorithm::Ec384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
        KeyAlgorithm::Ec521 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512),
        KeyAlgorithm::Ed25519 => KeyPair::generate_for(&rcgen::PKCS_ED25519),
        KeyAlgorithm::Rsa2048 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048),
        KeyAlgorithm::Rsa4096 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_4096),
        KeyAlgorithm::Rsa8192 => {
            return Err("keys of 8192 bits are not made here; Rsa4096 is the longest".to_owned());
        }
    };
    made.map_err(|error| error.to_string())
}

/// What clients on this machine call it, then what the configuration says.
fn subject_names(spec: &CertificateSpec, names: &[String], address: IpAddr) -> Result<Vec<SanType>, String> {
    let mut dns = vec!["localhost".to_owned()];
    let mut ips: Vec<IpAddr> = vec![[127, 0, 0, 1].into(), std::net::Ipv6Addr::LOCALHOST.into()];
    dns.extend(host_name());
    dns.extend_from_slice(names);
    if let Some(san) = &spec.san {
        dns.extend_from_slice(&san.dns);
        for ip in &san.ip {
            ips.push(ip.parse().map_err(|_| format!("`{ip}` among san.ip is no IP address"))?);
        }
    }
    if !address.is_unspecified() {
        ips.push(address);
    }
    dns.dedup();
    let mut all = Vec::new();
    for name in dns {
        let text = name.clone().try_into().map_err(|_| format!("`{name}` among san.dns is no host name"))?;
        all.push(SanType::DnsName(text));
    }
    all.extend(ips.into_iter().map(SanType::IpAddress));
    Ok(all)
}

fn host_name() -> Option<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = name.trim();
    (!name.is_empty() && name.is_ascii()).then(|| name.to_owned())
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), String> {
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    written.map_err(|error| format!("{} cannot be written: {error}", path.display()))
}
