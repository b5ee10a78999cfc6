//! From resources to ports: everything that is named is found, read and tried, before anything is changed.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use broker_core::topic;
use config::resource::access::{
    AuthenticationMethod, BrokerAuthentication, BrokerAuthorization, BrokerMethod, CustomSettings,
    StateStoreMethod, TokenSettings, X509Settings,
};
use config::resource::common::{KeyType, OperationalMode};
use config::resource::listener::{BrokerListener, ListenerPort, ListenerProtocol, ListenerTls};
use config::{Loaded, Resource, TokenKeys};

use super::authority::Authority;
use super::certificates;
use super::port::{Protocol, Settings};
use super::secrets::{Secrets, find};
use crate::auth::policy::{KeyPattern, Policy, Rule};
use crate::auth::{
    Authentication, Custom, Keys, Method, PasswordFile, Reviewer, ServiceAccountTokens, SubjectAttributes,
    WebKeys, X509, read_certificates,
};

/// Kinds of resources that listeners are made of: an error in one of them is theirs.
pub const KINDS: [&str; 3] = ["BrokerListener", "BrokerAuthentication", "BrokerAuthorization"];
/// The authentication that exists without a file, and whom its tokens must be for (AIO.md §5.8).
const DEFAULT: &str = "default";
const DEFAULT_AUDIENCE: &str = "aio-internal";
/// The ConfigMap with the certificates that sign clients' where none is named (AIO.md §5.8).
const CLIENT_CA: &str = "client-ca";
/// Where Kubernetes puts what a pod needs to ask its API server.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// How long a remote server of tokens or keys may take.
const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// What the planning itself depends on.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// Where the certificate authority is kept.
    pub data_dir: Option<PathBuf>,
    /// Anybody may come in from other machines.
    pub allow_anonymous: bool,
    /// Only whether it could be: nothing is made, and a cluster that is not here may be elsewhere.
    pub dry: bool,
}

/// One port as it shall be.
#[derive(Debug)]
pub struct PortPlan {
    /// What people know it by.
    pub name: String,
    /// Where; nothing stands for all addresses.
    pub address: Option<IpAddr>,
    /// The port.
    pub port: u16,
    /// What holds for its connections, but for the guard.
    pub settings: Settings,
    /// The guard: its name, and its policy.
    pub authorization: Option<(String, Policy)>,
    /// Something to tell about it.
    pub remark: Option<&'static str>,
}

/// All ports as they shall be.
#[derive(Debug, Default)]
pub struct Plan {
    /// The ports.
    pub ports: Vec<PortPlan>,
    /// Where clients find the certificate authority to trust, if one of the broker's own is used.
    pub authority: Option<PathBuf>,
    /// When certificates have to be made anew.
    pub renew: Option<SystemTime>,
}

/// Works out all ports. With the plan or the faults come the files that were looked at.
pub fn plan(loaded: &Loaded, surroundings: &Surroundings) -> (Result<Plan, Vec<String>>, Vec<PathBuf>) {
    let secrets = Secrets::new(&loaded.resources);
    let mut planning =
        Planning { loaded, surroundings, secrets, plan: Plan::default(), authentications: BTreeMap::new() };
    let mut faults: Vec<String> = loaded
        .findings
        .iter()
        .filter(|finding| finding.is_error())
        .filter(|finding| finding.resource.as_ref().is_some_and(|id| KINDS.contains(&id.kind.as_str())))
        .map(ToString::to_string)
        .collect();
    if faults.is_empty() {
        for listener in &loaded.resources.listeners {
            for port in &listener.spec.ports {
                let place = format!("{}, port {}", listener.id, port.port);
                match planning.port(listener, port, &place) {
                    Ok(port) => planning.plan.ports.push(port),
                    Err(fault) => faults.push(format!("{}: {place}: {fault}", listener.file.display())),
                }
            }
        }
    }
    let Planning { plan, secrets, .. } = planning;
    (if faults.is_empty() { Ok(plan) } else { Err(faults) }, secrets.files)
}

struct Planning<'a> {
    loaded: &'a Loaded,
    surroundings: &'a Surroundings,
    secrets: Secrets<'a>,
    plan: Plan,
    /// Those that several ports share are made once.
    authentications: BTreeMap<(String, String), Arc<Authentication>>,
}

impl Planning<'_> {
    fn port(
        &mut self,
        listener: &Resource<BrokerListener>,
        port: &ListenerPort,
        place: &str,
    ) -> Result<PortPlan, String> {
        let namespace = &listener.id.namespace;
        let authentication = match &port.authentication_ref {
            Some(name) => Some(self.authentication(namespace, name)?),
            None => None,
        };
        let authorization = match &port.authorization_ref {
            Some(name) => {
                let resource = find(&self.loaded.resources.authorizations, namespace, name)
                    .ok_or_else(|| format!("the BrokerAuthorization `{}` does not exist", name.value))?;
                let policy = policy(&resource.spec).map_err(|fault| format!("{}: {fault}", resource.id))?;
                Some((format!("{namespace}/{}", name.value), policy))
            }
            None => None,
        };
        if port.tls.is_none()
            && authentication.as_ref().is_some_and(|authentication| authentication.needs_tls())
        {
            return Err(
                "its authentication takes certificates only, which come with TLS: give the port `tls`"
                    .to_owned(),
            );
        }
        let is_open = authentication.is_none() && !self.surroundings.allow_anonymous;
        let (address, remark) = match listener.meta.settings.address {
            Some(address) if is_open && !address.is_loopback() => {
                return Err(format!(
                    "{address} can be reached from other machines, and nothing asks clients who they are; give the port \
                     an `authenticationRef`, or say --allow-anonymous if that is what you want"
                ));
            }
            Some(address) if address.is_unspecified() && address.is_ipv4() => (Some(address), None),
            Some(address) => ((!address.is_unspecified()).then_some(address), None),
            None if is_open => (
                Some(Ipv4Addr::LOCALHOST.into()),
                Some(
                    "for this machine only: without authenticationRef, others are let in with --allow-anonymous",
                ),
            ),
            None => (None, None),
        };
        let tls = match &port.tls {
            None => None,
            Some(ListenerTls::Manual(manual)) => {
                let name = &manual.secret_ref;
                let certificate = self.secrets.secret(namespace, name, "tls.crt")?;
                let key = self.secrets.secret(namespace, name, "tls.key")?;
                let config = certificates::read(&certificate, &key)
                    .and_then(|(chain, key)| certificates::server(chain, key, authentication.as_deref()));
                Some(config.map_err(|fault| format!("the Secret `{}` {fault}", name.value))?)
            }
            Some(ListenerTls::Automatic(_)) if self.surroundings.dry => None,
            Some(ListenerTls::Automatic(spec)) => {
                let data_dir = self.surroundings.data_dir.as_deref().ok_or(
                    "tls.mode Automatic takes a certificate authority, and there is no place to keep it: give one with \
                     --data-dir, or use Manual",
                )?;
                let authority = Authority::open(data_dir)?;
                let mut names: Vec<String> = Vec::new();
                if let Some(service) = &listener.spec.service_name {
                    names.extend(
                        ["", ".svc", ".svc.cluster.local"].map(|end| format!("{service}.{namespace}{end}")),
                    );
                    names.insert(0, service.clone());
                }
                let address = address.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
                let issued = authority.issue(spec, &names, address)?;
                let renew = self.plan.renew.map_or(issued.renew, |renew| renew.min(issued.renew));
                self.plan.renew = Some(renew);
                self.plan.authority = Some(authority.path);
                Some(certificates::server(issued.chain, issued.key, authentication.as_deref())?)
            }
        };
        let protocol = match port.protocol {
            ListenerProtocol::Mqtt => Protocol::Mqtt,
            ListenerProtocol::WebSockets => Protocol::WebSockets,
        };
        let origins = listener.meta.settings.allowed_origins.clone().unwrap_or_default();
        let settings = Settings { protocol, origins, tls, authentication, guard: None };
        Ok(PortPlan { name: place.to_owned(), address, port: port.port, settings, authorization, remark })
    }

    fn authentication(&mut self, namespace: &str, name: &str) -> Result<Arc<Authentication>, String> {
        let key = (namespace.to_owned(), name.to_owned());
        if let Some(made) = self.authentications.get(&key) {
            return Ok(Arc::clone(made));
        }
        let resource = find(&self.loaded.resources.authentications, namespace, name);
        let methods = match resource {
            Some(resource) => self.methods(resource).map_err(|fault| format!("{}: {fault}", resource.id))?,
            None if name == DEFAULT && self.surroundings.dry => Vec::new(),
            None if name == DEFAULT => {
                let audiences = vec![DEFAULT_AUDIENCE.to_owned()];
                let keys = in_cluster().transpose()?.ok_or(
                    "there is no BrokerAuthentication `default`, and this is no Kubernetes cluster, whose service account \
                     tokens would be taken without one; write one",
                )?;
                vec![Method::ServiceAccountToken(ServiceAccountTokens::new(audiences, Keys::Review(keys)))]
            }
            None => return Err(format!("the BrokerAuthentication `{name}` does not exist")),
        };
        let made = Arc::new(Authentication::new(methods));
        self.authentications.insert(key, Arc::clone(&made));
        Ok(made)
    }

    fn methods(&mut self, resource: &Resource<BrokerAuthentication>) -> Result<Vec<Method>, String> {
        let mut methods = Vec::new();
        let own = &resource.meta.settings;
        if let Some(file) = &own.password_file {
            let path = self.secrets.path(resource, file);
            methods.push(Method::Password(PasswordFile::load(&path)?));
        }
        for method in &resource.spec.authentication_methods {
            methods.push(match method {
                AuthenticationMethod::ServiceAccountToken(_)
                    if self.surroundings.dry && own.token_keys.is_none() && own.kubernetes_api.is_none() =>
                {
                    continue;
                }
                AuthenticationMethod::ServiceAccountToken(settings) => {
                    Method::ServiceAccountToken(self.tokens(resource, settings)?)
                }
                AuthenticationMethod::X509(settings) => Method::X509(self.x509(resource, settings)?),
                AuthenticationMethod::Custom(settings) => Method::Custom(self.custom(resource, settings)?),
            });
        }
        match methods.is_empty() && !self.surroundings.dry {
            true => Err("it has no method by which anybody could come in".to_owned()),
            false => Ok(methods),
        }
    }

    fn tokens(
        &mut self,
        resource: &Resource<BrokerAuthentication>,
        settings: &TokenSettings,
    ) -> Result<ServiceAccountTokens, String> {
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

    fn x509(
        &mut self,
        resource: &Resource<BrokerAuthentication>,
        settings: &X509Settings,
    ) -> Result<X509, String> {
        let name = settings.trusted_client_ca_cert.as_ref().map_or(CLIENT_CA, |name| name.as_str());
        let pem = self.secrets.config_map(&resource.id.namespace, name)?;
        let attributes = settings.authorization_attributes.iter().map(|(entry, found)| {
            SubjectAttributes::new(&found.subject, found.attributes.clone())
                .map_err(|fault| format!("`x509Settings.authorizationAttributes.{entry}.subject` {fault}"))
        });
        let attributes = attributes.collect::<Result<Vec<_>, _>>()?;
        let trusted = read_certificates(&pem).and_then(|certificates| X509::new(&certificates, attributes));
        trusted.map_err(|fault| format!("the ConfigMap `{name}` {fault}"))
    }

    fn custom(
        &mut self,
        resource: &Resource<BrokerAuthentication>,
        settings: &CustomSettings,
    ) -> Result<Custom, String> {
        let namespace = &resource.id.namespace;
        let mut http = reqwest::Client::builder()
            .https_only(true)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(crate::auth::CUSTOM_TIMEOUT);
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

/// The rules of a resource, checked.
fn policy(spec: &BrokerAuthorization) -> Result<Policy, String> {
    let policies = &spec.authorization_policies;
    let rules = policies.rules.iter().enumerate().map(|(at, rule)| {
        let principals = &rule.principals;
        let mut made = Rule {
            attributes: principals.attributes.clone(),
            client_ids: principals.client_ids.clone(),
            usernames: principals.usernames.clone(),
            ..Rule::default()
        };
        for (index, resource) in rule.broker_resources.iter().enumerate() {
            let place = format!("`rules[{at}].brokerResources[{index}]`");
            resource.client_ids.iter().chain(&resource.topics).try_for_each(|t| check_template(t, &place))?;
            resource.topics.iter().try_for_each(|topic| check_topic(topic, &place))?;
            match resource.method {
                BrokerMethod::Connect => made.connect.push(resource.client_ids.clone()),
                BrokerMethod::Publish => made.publish.extend_from_slice(&resource.topics),
                BrokerMethod::Subscribe => made.subscribe.extend_from_slice(&resource.topics),
            }
            if resource.method != BrokerMethod::Connect && resource.topics.is_empty() {
                return Err(format!("{place} allows nothing: it names no `topics`"));
            }
        }
        for (index, resource) in rule.state_store_resources.iter().enumerate() {
            let place = format!("`rules[{at}].stateStoreResources[{index}]`");
            for key in &resource.keys {
                check_template(key, &place)?;
                let pattern = match resource.key_type {
                    KeyType::Pattern => KeyPattern::Pattern(key.clone()),
                    KeyType::String => KeyPattern::String(key.clone()),
                    KeyType::Binary => KeyPattern::Binary(
                        STANDARD
                            .decode(key)
                            .map_err(|_| format!("{place} has a binary key that is not in base64"))?,
                    ),
                };
                let (reads, writes) = match resource.method {
                    StateStoreMethod::Read => (true, false),
                    StateStoreMethod::Write => (false, true),
                    StateStoreMethod::ReadWrite => (true, true),
                };
                made.read.extend(reads.then(|| pattern.clone()));
                made.write.extend(writes.then_some(pattern));
            }
        }
        Ok(made)
    });
    let rules = rules.collect::<Result<Vec<_>, String>>()?;
    Ok(Policy { cache: policies.cache == OperationalMode::Enabled, rules })
}

/// Whether everything between `{principal.` and `}` can be filled in.
fn check_template(template: &str, place: &str) -> Result<(), String> {
    for part in template.split("{principal.").skip(1) {
        let name = part.split_once('}').map(|(name, _)| name);
        let known = name.is_some_and(|name| {
            matches!(name, "clientId" | "username")
                || name.strip_prefix("attributes.").is_some_and(|attribute| !attribute.is_empty())
        });
        if !known {
            return Err(format!(
                "{place} has `{template}`, but only {{principal.clientId}}, {{principal.username}} and \
                 {{principal.attributes.NAME}} are filled in"
            ));
        }
    }
    Ok(())
}

fn check_topic(template: &str, place: &str) -> Result<(), String> {
    let mut plain = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{principal.") {
        plain.push_str(before);
        plain.push('x');
        rest = after.split_once('}').map_or("", |(_, rest)| rest);
    }
    plain.push_str(rest);
    topic::validate_filter(&plain).map_err(|error| format!("{place} has `{template}`: {}", error.what()))
}
