//! The methods of a BrokerAuthentication (AIO.md §5.8), with everything that they refer to.

use std::path::Path;

use config::resource::access::{
    AuthenticationMethod, BrokerAuthentication, CustomSettings, TokenSettings, X509Settings,
};
use config::{Resource, TokenKeys};

use super::secrets::Secrets;
use crate::auth::{
    CUSTOM_TIMEOUT, Custom, Keys, Method, PasswordFile, Reviewer, ServiceAccountTokens, SubjectAttributes,
    WebKeys, X509, read_certificates,
};

/// Whom tokens must be for where there is no resource that says so.
const AUDIENCE_DEFAULT: &str = "aio-internal";
/// The ConfigMap with the certificates that sign clients' where none is named.
const CLIENT_CA: &str = "client-ca";
/// Where Kubernetes puts what a pod needs to ask its API server.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// How long a remote server of tokens or keys may take.
const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// The methods of a resource. `dry`: those that only a cluster could serve are left out where there is none.
///
/// # Errors
/// What is wrong with one of them.
pub fn of(
    resource: &Resource<BrokerAuthentication>,
    secrets: &mut Secrets<'_>,
    dry: bool,
) -> Result<Vec<Method>, String> {
    Methods { resource, secrets, dry }.all()
}

/// The methods of the authentication `default`, which in a cluster exists without a resource.
///
/// # Errors
/// When there is no cluster.
pub fn by_default(dry: bool) -> Result<Vec<Method>, String> {
    if dry {
        return Ok(Vec::new());
    }
    let audiences = vec![AUDIENCE_DEFAULT.to_owned()];
    let keys = in_cluster().transpose()?.ok_or(
        "there is no BrokerAuthentication `default`, and this is no Kubernetes cluster, whose service account tokens would \
         be taken without one; write one",
    )?;
    Ok(vec![Method::ServiceAccountToken(ServiceAccountTokens::new(audiences, Keys::Review(keys)))])
}

struct Methods<'r, 's, 'l> {
    resource: &'r Resource<BrokerAuthentication>,
    secrets: &'s mut Secrets<'l>,
    dry: bool,
}

impl Methods<'_, '_, '_> {
    fn all(&mut self) -> Result<Vec<Method>, String> {
        let mut methods = Vec::new();
        let resource = self.resource;
        let own = &resource.meta.settings;
        if let Some(file) = &own.password_file {
            let path = self.secrets.path(resource, file);
            methods.push(Method::Password(PasswordFile::load(&path)?));
        }
        for method in &resource.spec.authentication_methods {
            methods.push(match method {
                AuthenticationMethod::ServiceAccountToken(_)
                    if self.dry && own.token_keys.is_none() && own.kubernetes_api.is_none() =>
                {
                    continue;
                }
                AuthenticationMethod::ServiceAccountToken(settings) => {
                    Method::ServiceAccountToken(self.tokens(settings)?)
                }
                AuthenticationMethod::X509(settings) => Method::X509(self.x509(settings)?),
                AuthenticationMethod::Custom(settings) => Method::Custom(self.custom(settings)?),
            });
        }
        match methods.is_empty() && !self.dry {
            true => Err("it has no method by which anybody could come in".to_owned()),
            false => Ok(methods),
        }
    }

    fn tokens(&mut self, settings: &TokenSettings) -> Result<ServiceAccountTokens, String> {
        let resource = self.resource;
        let own = &resource.meta.settings;
        if settings.audiences.is_empty() {
            return Err(
                "`serviceAccountTokenSettings.audiences` names nobody for whom tokens are made".to_owned()
            );
        }
        let keys = match (&own.token_keys, &own.kubernetes_api) {
            (Some(_), Some(_)) => {
                return Err("`forebay.dev/token-keys` and `forebay.dev/kubernetes-api` exclude each other".to_owned());
            }
            (Some(TokenKeys::File(file)), None) => {
                let path = self.secrets.path(resource, file);
                Keys::Web { keys: WebKeys::file(&path)?, issuer: own.token_issuer.clone() }
            }
            (Some(TokenKeys::Url(url)), None) => {
                let http = client().build().map_err(|error| error.to_string())?;
                Keys::Web { keys: WebKeys::url(url.clone(), http), issuer: own.token_issuer.clone() }
            }
            (None, Some(server)) => {
                let mut http = client().no_proxy();
                if let Some(name) = &own.kubernetes_ca {
                    let pem = self.secrets.config_map(&resource.id.namespace, name)?;
                    http = http.tls_certs_only(trusted(&pem).map_err(|f| format!("the ConfigMap `{name}` {f}"))?);
                }
                let default = Path::new(SERVICE_ACCOUNT).join("token");
                let token = own.kubernetes_token_file.as_deref().unwrap_or(&default);
                let token = self.secrets.path(resource, token);
                let http = http.build().map_err(|error| error.to_string())?;
                Keys::Review(Reviewer::new(http, server, token))
            }
            (None, None) => Keys::Review(in_cluster().transpose()?.ok_or(
                "ServiceAccountToken takes somebody who says which tokens are good: name the public keys of the cluster \
                 with the annotation `forebay.dev/token-keys` (a file or an address), or its API server with \
                 `forebay.dev/kubernetes-api`",
            )?),
        };
        Ok(ServiceAccountTokens::new(settings.audiences.clone(), keys))
    }

    fn x509(&mut self, settings: &X509Settings) -> Result<X509, String> {
        let name = settings.trusted_client_ca_cert.as_ref().map_or(CLIENT_CA, |name| name.as_str());
        let pem = self.secrets.config_map(&self.resource.id.namespace, name)?;
        let attributes = settings.authorization_attributes.iter().map(|(entry, found)| {
            SubjectAttributes::new(&found.subject, found.attributes.clone())
                .map_err(|fault| format!("`x509Settings.authorizationAttributes.{entry}.subject` {fault}"))
        });
        let attributes = attributes.collect::<Result<Vec<_>, _>>()?;
        let trusted = read_certificates(&pem).and_then(|certificates| X509::new(&certificates, attributes));
        let x509 = trusted.map_err(|fault| format!("the ConfigMap `{name}` {fault}"))?;
        let Some(name) = &self.resource.meta.settings.client_crl else { return Ok(x509) };
        let pem = self.secrets.config_map(&self.resource.id.namespace, name)?;
        x509.revoked_by(&pem).map_err(|fault| format!("the ConfigMap `{name}` {fault}"))
    }

    fn custom(&mut self, settings: &CustomSettings) -> Result<Custom, String> {
        let namespace = &self.resource.id.namespace;
        let mut http = reqwest::Client::builder()
            .https_only(true)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(CUSTOM_TIMEOUT);
        if let Some(name) = &settings.ca_cert_config_map {
            let pem = self.secrets.config_map(namespace, name)?;
            http = http
                .tls_certs_only(trusted(&pem).map_err(|f| format!("the ConfigMap `{}` {f}", name.value))?);
        }
        if let Some(auth) = &settings.auth {
            let name = &auth.x509.secret_ref;
            let mut pem = self.secrets.secret(namespace, name, "tls.crt")?;
            pem.push(b'\n');
            pem.extend(self.secrets.secret(namespace, name, "tls.key")?);
            let identity = reqwest::Identity::from_pem(&pem);
            http = http.identity(
                identity
                    .map_err(|_| format!("the Secret `{}` holds no certificate with its key", name.value))?,
            );
        }
        for (name, value) in &settings.headers {
            let fine = reqwest::header::HeaderName::from_bytes(name.as_bytes()).is_ok()
                && reqwest::header::HeaderValue::from_str(value).is_ok();
            if !fine {
                return Err(format!("`customSettings.headers` has `{name}`, which HTTP does not take"));
            }
        }
        let http = http.build().map_err(|error| error.to_string())?;
        Ok(Custom::new(http, &settings.endpoint.0, settings.headers.clone()))
    }
}

fn client() -> reqwest::ClientBuilder {
    reqwest::Client::builder().https_only(true).redirect(reqwest::redirect::Policy::none()).timeout(TIMEOUT)
}

fn trusted(pem: &[u8]) -> Result<Vec<reqwest::Certificate>, String> {
    let certificates = read_certificates(pem)?;
    let all = certificates.iter().map(|certificate| reqwest::Certificate::from_der(certificate));
    all.collect::<Result<_, _>>().map_err(|error| format!("holds a certificate that cannot be used: {error}"))
}

/// The API server of the cluster that this is a pod of.
fn in_cluster() -> Option<Result<Reviewer, String>> {
    let (host, port) =
        (std::env::var("KUBERNETES_SERVICE_HOST").ok()?, std::env::var("KUBERNETES_SERVICE_PORT").ok()?);
    let ca = Path::new(SERVICE_ACCOUNT).join("ca.crt");
    let pem = std::fs::read(&ca).ok()?;
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let made = trusted(&pem).map_err(|fault| format!("{} {fault}", ca.display())).and_then(|certificates| {
        let http =
            client().no_proxy().tls_certs_only(certificates).build().map_err(|error| error.to_string())?;
        Ok(Reviewer::new(http, &format!("https://{host}:{port}"), Path::new(SERVICE_ACCOUNT).join("token")))
    });
    Some(made)
}
