//! Certificates and tokens as a test needs them: authorities, servers, clients, keys of a cluster.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType,
};
use serde_json::{Value, json};
use time::OffsetDateTime;

/// Something that signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate, in PEM.
    pub certificate: String,
}

/// A certificate (with the chain behind it) and its key, in PEM.
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: String,
}

impl Authority {
    /// One that vouches for itself.
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let params = authority(name);
        let certificate = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// One that this one vouches for.
    pub fn intermediate(&self, name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let params = authority(name);
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// A server on loopback.
    pub fn server(&self) -> Identity {
        let mut params = named("localhost");
        params.subject_alt_names = vec![
            SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            SanType::DnsName("localhost".try_into().expect("a name")),
        ];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params)
    }

    /// A client.
    pub fn client(&self, name: &str) -> Identity {
        self.client_until(name, Duration::from_secs(24 * 3600))
    }

    /// A client whose certificate ends so long from now.
    pub fn client_until(&self, name: &str, life: Duration) -> Identity {
        let mut params = named(name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_after = OffsetDateTime::from(SystemTime::now() + life);
        self.sign(params)
    }

    /// A client whose certificate has this number.
    pub fn numbered_client(&self, name: &str, number: u64) -> Identity {
        let mut params = named(name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.serial_number = Some(number.into());
        self.sign(params)
    }

    /// A list of the certificates with these numbers, which are good no longer; it ends so long from now.
    pub fn revocations(&self, numbers: &[u64], life: Duration) -> String {
        let revoked = numbers.iter().map(|number| RevokedCertParams {
            serial_number: (*number).into(),
            revocation_time: OffsetDateTime::now_utc(),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: OffsetDateTime::now_utc() - Duration::from_secs(3600),
            next_update: OffsetDateTime::now_utc() + life,
            crl_number: 1.into(),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).expect("a list").pem().expect("text")
    }

    /// A client whose certificate has ended.
    pub fn client_of_yesterday(&self, name: &str) -> Identity {
        let mut params = named(name);
        params.not_after = OffsetDateTime::from(SystemTime::now() - Duration::from_secs(60));
        self.sign(params)
    }

    fn sign(&self, params: CertificateParams) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate").pem();
        Identity { certificate, key: key.serialize_pem() }
    }
}

impl Identity {
    /// Writes both into a directory, as `NAME.crt` and `NAME.key`, and gives their paths.
    pub fn write(&self, directory: &Path, name: &str) -> (String, String) {
        let path = |end: &str| directory.join(format!("{name}.{end}")).display().to_string();
        std::fs::write(path("crt"), &self.certificate).expect("a file can be written");
        std::fs::write(path("key"), &self.key).expect("a file can be written");
        (path("crt"), path("key"))
    }

    /// A Secret with both.
    pub fn secret(&self, name: &str) -> String {
        let (certificate, key) = (STANDARD.encode(&self.certificate), STANDARD.encode(&self.key));
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata:\n  name: {name}\n  namespace: azure-iot-operations\n\
             type: kubernetes.io/tls\ndata:\n  tls.crt: {certificate}\n  tls.key: {key}\n"
        )
    }
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    let now = SystemTime::now();
    params.not_before = OffsetDateTime::from(now - Duration::from_secs(48 * 3600));
    params.not_after = OffsetDateTime::from(now + Duration::from_secs(24 * 3600));
    params
}

fn authority(name: &str) -> CertificateParams {
    let mut params = named(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    params
}

/// A ConfigMap with texts.
pub fn config_map(name: &str, entries: &[(&str, &str)]) -> String {
    let mut text = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n  namespace: azure-iot-operations\ndata:\n"
    );
    for (key, value) in entries {
        text += &format!("  {key}: |\n");
        for line in value.lines() {
            text += &format!("    {line}\n");
        }
    }
    text
}

/// Something that issues service account tokens, as a Kubernetes cluster does.
pub struct Cluster {
    key: KeyPair,
    id: String,
}

impl Cluster {
    /// With a key that is called `id`.
    pub fn new(id: &str) -> Self {
        Self { key: KeyPair::generate().expect("a key"), id: id.to_owned() }
    }

    /// Its public keys.
    pub fn keys(&self) -> String {
        // A point that is not compressed: 4, x, y.
        let point = self.key.public_key_raw();
        let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..65]));
        json!({"keys": [{"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.id, "x": x, "y": y}]})
            .to_string()
    }

    /// A token of the service account `name` for this audience, good for so long (negative: it has ended).
    pub fn token(&self, name: &str, audience: &str, seconds: i64) -> String {
        self.token_with(name, audience, seconds, &json!({}))
    }

    /// The same with more claims.
    pub fn token_with(&self, name: &str, audience: &str, seconds: i64, more: &Value) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() as i64;
        let mut claims = json!({
            "iss": "https://kubernetes.default.svc.cluster.local",
            "sub": format!("system:serviceaccount:azure-iot-operations:{name}"),
            "aud": [audience],
            "iat": now - 60,
            "nbf": now - 60,
            "exp": now + seconds,
            "kubernetes.io": {"namespace": "azure-iot-operations", "serviceaccount": {"name": name}},
        });
        for (name, value) in more.as_object().into_iter().flatten() {
            claims[name] = value.clone();
        }
        let header = Header { kid: Some(self.id.clone()), ..Header::new(Algorithm::ES256) };
        let key = EncodingKey::from_ec_der(&self.key.serialize_der());
        jsonwebtoken::encode(&header, &claims, &key).expect("a token")
    }
}
