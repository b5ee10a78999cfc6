//! From resources to ports: everything that is named is found, read and tried, before anything is changed.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use config::resource::listener::{
    BrokerListener, CertificateSpec, ListenerPort, ListenerProtocol, ListenerTls,
};
use config::{Loaded, Resource};
use rustls::ServerConfig;

use super::authority::Authority;
use super::port::{Protocol, Settings};
use super::secrets::{Secrets, find};
use super::seen::Seen;
use super::{certificates, methods, rules};
use crate::auth::Authentication;
use crate::auth::policy::Policy;

/// Kinds of resources that listeners are made of: an error in one of them is theirs.
pub const KINDS: [&str; 3] = ["BrokerListener", "BrokerAuthentication", "BrokerAuthorization"];
/// The authentication that exists without a file in a cluster (AIO.md §5.8).
const DEFAULT: &str = "default";

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

/// Works out all ports. With the plan or the faults come the files that were looked at, as they were.
pub fn plan(loaded: &Loaded, surroundings: &Surroundings) -> (Result<Plan, Vec<String>>, Vec<Seen>) {
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
                let policy =
                    rules::policy(&resource.spec).map_err(|fault| format!("{}: {fault}", resource.id))?;
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
        let (address, remark) = address(listener, is_open)?;
        let tls = self.tls(listener, port, address, authentication.as_deref())?;
        let protocol = match port.protocol {
            ListenerProtocol::Mqtt => Protocol::Mqtt,
            ListenerProtocol::WebSockets => Protocol::WebSockets,
        };
        let origins = listener.meta.settings.allowed_origins.clone().unwrap_or_default();
        let settings = Settings { protocol, origins, tls, authentication, guard: None };
        Ok(PortPlan { name: place.to_owned(), address, port: port.port, settings, authorization, remark })
    }

    fn tls(
        &mut self,
        listener: &Resource<BrokerListener>,
        port: &ListenerPort,
        address: Option<IpAddr>,
        authentication: Option<&Authentication>,
    ) -> Result<Option<Arc<ServerConfig>>, String> {
        let namespace = &listener.id.namespace;
        match &port.tls {
            None => Ok(None),
            Some(ListenerTls::Manual(manual)) => {
                let name = &manual.secret_ref;
                let certificate = self.secrets.secret(namespace, name, "tls.crt")?;
                let key = self.secrets.secret(namespace, name, "tls.key")?;
                let config = certificates::read(&certificate, &key)
                    .and_then(|(chain, key)| certificates::server(chain, key, authentication));
                config.map(Some).map_err(|fault| format!("the Secret `{}` {fault}", name.value))
            }
            Some(ListenerTls::Automatic(_)) if self.surroundings.dry => Ok(None),
            Some(ListenerTls::Automatic(spec)) => {
                self.automatic(listener, spec, address, authentication).map(Some)
            }
        }
    }

    /// TLS with a certificate of the broker's own authority.
    fn automatic(
        &mut self,
        listener: &Resource<BrokerListener>,
        spec: &CertificateSpec,
        address: Option<IpAddr>,
        authentication: Option<&Authentication>,
    ) -> Result<Arc<ServerConfig>, String> {
        let data_dir = self.surroundings.data_dir.as_deref().ok_or(
            "tls.mode Automatic takes a certificate authority, and there is no place to keep it: give one with --data-dir, \
             or use Manual",
        )?;
        let authority = Authority::open(data_dir)?;
        let mut names: Vec<String> = Vec::new();
        if let Some(service) = &listener.spec.service_name {
            // As other pods would call it.
            let namespace = &listener.id.namespace;
            names.push(service.clone());
            names.extend(["", ".svc", ".svc.cluster.local"].map(|end| format!("{service}.{namespace}{end}")));
        }
        let address = address.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
        let issued = authority.issue(spec, &names, address)?;
        let renew = self.plan.renew.map_or(issued.renew, |renew| renew.min(issued.renew));
        self.plan.renew = Some(renew);
        self.plan.authority = Some(authority.path);
        certificates::server(issued.chain, issued.key, authentication)
    }

    fn authentication(&mut self, namespace: &str, name: &str) -> Result<Arc<Authentication>, String> {
        let key = (namespace.to_owned(), name.to_owned());
        if let Some(made) = self.authentications.get(&key) {
            return Ok(Arc::clone(made));
        }
        let resource = find(&self.loaded.resources.authentications, namespace, name);
        let dry = self.surroundings.dry;
        let methods = match resource {
            Some(resource) => methods::of(resource, &mut self.secrets, dry)
                .map_err(|fault| format!("{}: {fault}", resource.id))?,
            None if name == DEFAULT => methods::by_default(dry)?,
            None => return Err(format!("the BrokerAuthentication `{name}` does not exist")),
        };
        let made = Arc::new(Authentication::new(methods));
        self.authentications.insert(key, Arc::clone(&made));
        Ok(made)
    }
}

/// Where a port is bound (nothing stands for all addresses), and what there is to tell about that. `is_open`: nobody is
/// asked who he is, and nobody said that this is meant.
fn address(
    listener: &Resource<BrokerListener>,
    is_open: bool,
) -> Result<(Option<IpAddr>, Option<&'static str>), String> {
    match listener.meta.settings.address {
        Some(address) if is_open && !address.is_loopback() => Err(format!(
            "{address} can be reached from other machines, and nothing asks clients who they are; give the port an \
             `authenticationRef`, or say --allow-anonymous if that is what you want"
        )),
        Some(address) if address.is_unspecified() && address.is_ipv6() => Ok((None, None)),
        Some(address) => Ok((Some(address), None)),
        None if is_open => {
            let remark =
                "for this machine only: without authenticationRef, others are let in with --allow-anonymous";
            Ok((Some(Ipv4Addr::LOCALHOST.into()), Some(remark)))
        }
        None => Ok((None, None)),
    }
}
