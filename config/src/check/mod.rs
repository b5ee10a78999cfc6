//! What resources say about each other: everything that is named must exist, and graphs must be able
//! to run.

pub(crate) mod graph;

use crate::finding::{Finding, Report, ResourceId, list, quoted};
use crate::read::Located;
use crate::resource::access::AuthenticationMethod;
use crate::resource::endpoint::{DataflowEndpoint, EndpointSettings};
use crate::resource::listener::{BrokerListener, ListenerTls};
use crate::resource::profile::DataflowProfile;
use crate::resource::registry::{Credentials, RegistryAuthentication, RegistryEndpoint, TrustedKey};
use crate::resource::{Resource, Resources, find};
use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

/// The name of what exists without a file: endpoint, profile, registry, broker, authentication.
pub(crate) const DEFAULT: &str = "default";

/// Checks all resources against each other. `found` is what reading them turned up; what this turns up
/// is added to it.
pub(crate) fn check(resources: &Resources, found: &mut Vec<Finding>) {
    let broken = found.iter().filter(|f| f.is_error()).filter_map(|f| f.resource.clone()).collect();
    let mut check = Check { resources, broken, findings: Vec::new() };
    for registry in &resources.registries {
        check.registry(registry);
    }
    for endpoint in &resources.endpoints {
        check.endpoint(endpoint);
    }
    for profile in &resources.profiles {
        check.copies(profile);
    }
    check.brokers();
    check.listeners();
    check.authentications();
    // Graphs come last: they may name any of the others, which must not have errors of their own.
    check.broken.extend(check.findings.iter().filter(|f| f.is_error()).filter_map(|f| f.resource.clone()));
    for graph in &resources.graphs {
        check.graph(graph);
    }
    found.append(&mut check.findings);
}

struct Check<'a> {
    resources: &'a Resources,
    /// Resources with errors.
    broken: BTreeSet<ResourceId>,
    findings: Vec<Finding>,
}

/// What became of a name.
enum Found<'a, T> {
    /// It names this resource.
    Resource(&'a Resource<T>),
    /// It names what exists without a file.
    BuiltIn,
    /// It names a resource with errors, or none; reported.
    Nothing,
}

impl<'a> Check<'a> {
    /// Reports about one resource.
    fn tell<T>(&mut self, resource: &Resource<T>, tell: impl FnOnce(&mut Report)) {
        let mut report = Report::new(Path::new(""));
        report.file = resource.file.clone();
        report.resource = Some(resource.id.clone());
        tell(&mut report);
        self.findings.append(&mut report.findings);
    }

    /// Looks up what `owner` names under `key`.
    fn follow<T, U>(
        &mut self,
        owner: &Resource<U>,
        key: impl fmt::Display,
        name: &Located<String>,
        kind: &str,
        list_of: impl Fn(&'a Resources) -> &'a [Resource<T>],
        built_in: bool,
    ) -> Found<'a, T> {
        let resources = self.resources;
        let namespace = owner.id.namespace.clone();
        let id = ResourceId { kind: kind.to_owned(), namespace, name: name.value.clone() };
        let declared = resources.declared.contains_key(&id);
        if declared {
            return match find(list_of(resources), &id.namespace, name) {
                Some(resource) if !self.broken.contains(&id) => Found::Resource(resource),
                _ => {
                    let message = format!("`{key}` names {id}, which has errors of its own");
                    self.tell(owner, |report| report.error(name.position, key, message));
                    Found::Nothing
                }
            };
        }
        if built_in && name.value == DEFAULT {
            return Found::BuiltIn;
        }
        let mut known: Vec<_> = resources
            .declared
            .keys()
            .filter(|other| other.kind == id.kind && other.namespace == id.namespace)
            .map(|other| other.name.as_str())
            .collect();
        if built_in && !known.contains(&DEFAULT) {
            known.push(DEFAULT);
        }
        let known = match known.is_empty() {
            true => "there is none".to_owned(),
            false => format!("known are {}", list(known)),
        };
        let message = format!("`{key}` names the {kind} {}, which does not exist; {known}", quoted(name));
        self.tell(owner, |report| report.error(name.position, key, message));
        Found::Nothing
    }

    fn secret<U>(
        &mut self,
        owner: &Resource<U>,
        key: &str,
        name: &Located<String>,
    ) -> Found<'a, crate::resource::secret::Secret> {
        self.follow(owner, key, name, "Secret", |resources| &resources.secrets, false)
    }

    fn config_map<U>(&mut self, owner: &Resource<U>, key: &str, name: &Located<String>) {
        let _ = self.follow(owner, key, name, "ConfigMap", |resources| &resources.config_maps, false);
    }

    fn registry(&mut self, registry: &'a Resource<RegistryEndpoint>) {
        let key = "spec.authentication.artifactPullSecretSettings.secretRef";
        if let RegistryAuthentication::ArtifactPullSecret(settings) = &registry.spec.authentication {
            let name = &settings.secret_ref;
            if let Found::Resource(secret) = self.secret(registry, key, name)
                && let Err(fault) = Credentials::from_secret(&secret.whole(), &registry.spec.host)
            {
                let message = format!("`{key}` names {}, which {fault}", secret.id);
                self.tell(registry, |report| report.error(name.position, key, message));
            }
        }
        if let Some(name) = &registry.meta.settings.ca {
            let name = Located { value: name.clone(), position: registry.position };
            self.config_map(registry, "metadata.annotations.forebay.dev/ca", &name);
        }
        if let Some(trust) = &registry.spec.trust_settings {
            self.trusted_key(registry, "spec.trustSettings.trustedSigningKeys", &trust.trusted_signing_keys);
        }
        for (index, trusted) in registry.spec.code_signing_cas.iter().enumerate() {
            self.trusted_key(registry, &format!("spec.codeSigningCas[{index}]"), trusted);
        }
    }

    /// Copies of messages go to an MQTT broker (AIO.md §5.3).
    fn copies(&mut self, profile: &'a Resource<DataflowProfile>) {
        let Some(debugging) = profile.spec.debugging() else { return };
        let key = "spec.diagnostics.debuggingSettings.destinationSettings.endpointRef";
        let name = debugging.endpoint();
        let list_of = |resources: &'a Resources| &*resources.endpoints;
        if let Found::Resource(endpoint) = self.follow(profile, key, name, "DataflowEndpoint", list_of, true)
            && !matches!(endpoint.spec.settings, EndpointSettings::Mqtt(_))
        {
            let kind = endpoint.spec.settings.type_name();
            let message =
                format!("`{key}` names {}, which is of type {kind}; it must be of type Mqtt", endpoint.id);
            self.tell(profile, |report| report.error(name.position, key, message));
        }
    }

    fn trusted_key(&mut self, registry: &'a Resource<RegistryEndpoint>, key: &str, trusted: &TrustedKey) {
        match trusted {
            TrustedKey::Secret(name) => drop(self.secret(registry, &format!("{key}.secretRef"), name)),
            TrustedKey::ConfigMap(name) => self.config_map(registry, &format!("{key}.configMapRef"), name),
        }
    }

    /// An annotation that has no meaning for this kind of endpoint is told, not passed over.
    fn endpoint_annotations(&mut self, endpoint: &'a Resource<DataflowEndpoint>) {
        use crate::resource::endpoint::EndpointSettings::{LocalStorage, Mqtt, OpenTelemetry};
        let (own, kind) = (&endpoint.meta.settings, &endpoint.spec.settings);
        let local = matches!(kind, LocalStorage(_));
        let misplaced = [
            ("directory", own.directory.is_some() && !local, "LocalStorage"),
            ("batch-latency", own.batch_latency.is_some() && !local, "LocalStorage"),
            ("login", own.login.is_some() && !matches!(kind, Mqtt(_)), "Mqtt"),
            (
                "token-file",
                own.token_file.is_some() && !matches!(kind, Mqtt(_) | OpenTelemetry(_)),
                "Mqtt or OpenTelemetry",
            ),
        ];
        for (name, is_misplaced, wanted) in misplaced {
            if is_misplaced {
                let key = format!("metadata.annotations.forebay.dev/{name}");
                let message = format!(
                    "`{key}` is for endpoints of type {wanted}; this one is of type {}",
                    kind.type_name()
                );
                self.tell(endpoint, |report| report.error(endpoint.position, key, message));
            }
        }
    }

    fn endpoint(&mut self, endpoint: &'a Resource<DataflowEndpoint>) {
        self.endpoint_annotations(endpoint);
        // The broker itself needs no credentials.
        if endpoint.spec.is_local_broker() {
            return;
        }
        if let Some((key, name)) = endpoint.spec.secret_ref() {
            let _ = self.secret(endpoint, key, name);
        }
        if let Some(login) = &endpoint.meta.settings.login {
            let name = Located { value: login.clone(), position: endpoint.position };
            let _ = self.secret(endpoint, "metadata.annotations.forebay.dev/login", &name);
        }
        if let Some((key, name)) = endpoint.spec.trusted_cas_ref() {
            self.config_map(endpoint, key, name);
        }
    }

    fn brokers(&mut self) {
        for broker in &self.resources.brokers {
            if broker.id.name != DEFAULT {
                let message = format!("the Broker must be named `{DEFAULT}`; there is one only");
                self.tell(broker, |report| report.error(broker.meta.name.position, "metadata.name", message));
            }
        }
    }

    fn listeners(&mut self) {
        let mut seen: Vec<&Resource<BrokerListener>> = Vec::new();
        for listener in &self.resources.listeners {
            self.listener(listener);
            let same = |other: &&&Resource<BrokerListener>| {
                other.id.namespace == listener.id.namespace
                    && other.spec.service_type == listener.spec.service_type
            };
            if let Some(other) = seen.iter().find(same) {
                let message = format!("{} has the same service type; each may have one listener", other.id);
                self.tell(listener, |report| report.error(listener.position, "spec.serviceType", message));
            }
            seen.push(listener);
        }
    }

    fn listener(&mut self, listener: &'a Resource<BrokerListener>) {
        if let Some(name) = &listener.spec.broker_ref {
            let _ = self.follow(listener, "spec.brokerRef", name, "Broker", |r| &r.brokers, true);
        }
        for (index, port) in listener.spec.ports.iter().enumerate() {
            if let Some(name) = &port.authentication_ref {
                let key = format!("spec.ports[{index}].authenticationRef");
                let _ =
                    self.follow(listener, key, name, "BrokerAuthentication", |r| &r.authentications, true);
            }
            if let Some(name) = &port.authorization_ref {
                let key = format!("spec.ports[{index}].authorizationRef");
                let _ =
                    self.follow(listener, &key, name, "BrokerAuthorization", |r| &r.authorizations, false);
                if port.authentication_ref.is_none() {
                    let message = format!("`{key}` needs an `authenticationRef` on the same port");
                    self.tell(listener, |report| report.error(name.position, key, message));
                }
            }
            if let Some(ListenerTls::Manual(manual)) = &port.tls {
                let key = format!("spec.ports[{index}].tls.manual.secretRef");
                let _ = self.secret(listener, &key, &manual.secret_ref);
            }
        }
    }

    fn authentications(&mut self) {
        for authentication in &self.resources.authentications {
            for (index, method) in authentication.spec.authentication_methods.iter().enumerate() {
                let at = |key: &str| format!("spec.authenticationMethods[{index}].{key}");
                match method {
                    AuthenticationMethod::Custom(custom) => {
                        if let Some(name) = &custom.ca_cert_config_map {
                            self.config_map(authentication, &at("customSettings.caCertConfigMap"), name);
                        }
                        if let Some(auth) = &custom.auth {
                            let key = at("customSettings.auth.x509.secretRef");
                            let _ = self.secret(authentication, &key, &auth.x509.secret_ref);
                        }
                    }
                    AuthenticationMethod::X509(x509) => {
                        if let Some(name) = &x509.trusted_client_ca_cert {
                            self.config_map(authentication, &at("x509Settings.trustedClientCaCert"), name);
                        }
                    }
                    AuthenticationMethod::ServiceAccountToken(_) => {}
                }
            }
        }
    }
}
