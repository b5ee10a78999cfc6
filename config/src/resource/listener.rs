//! `BrokerListener` (AIO.md §5.7): where clients connect.

use super::broker::PrivateKey;
use super::common::{SecretRef, Span};
use crate::read::{Located, choice, record, tagged};

record! {
    /// Where clients connect.
    pub struct BrokerListener {
        /// The broker; there is one.
        broker_ref: Option<Located<String>> = "brokerRef" optional(),
        /// The name of the service.
        service_name: Option<String> = "serviceName" optional(),
        /// The type of the service.
        service_type: ServiceType = "serviceType" or(ServiceType::ClusterIp),
        /// The ports.
        ports: Vec<ListenerPort> = "ports" required(),
    }
}

choice! {
    /// The type of the service.
    pub enum ServiceType {
        /// Inside the cluster.
        ClusterIp = "ClusterIp",
        /// By a load balancer.
        LoadBalancer = "LoadBalancer",
        /// By a port of each node.
        NodePort = "NodePort",
    }
}

record! {
    /// One port.
    pub struct ListenerPort {
        /// The port.
        port: u16 = "port" required_in(1..=65535),
        /// The port of each node.
        node_port: Option<u16> = "nodePort" optional_in(1..=65535),
        /// What is spoken.
        protocol: ListenerProtocol = "protocol" or(ListenerProtocol::Mqtt),
        /// Who may connect; everybody when absent.
        authentication_ref: Option<Located<String>> = "authenticationRef" optional(),
        /// Who may do what; everybody everything when absent.
        authorization_ref: Option<Located<String>> = "authorizationRef" optional(),
        /// TLS.
        tls: Option<ListenerTls> = "tls" optional(),
    }
}

choice! {
    /// What is spoken on a port.
    pub enum ListenerProtocol {
        /// MQTT.
        Mqtt = "Mqtt",
        /// MQTT over WebSocket.
        WebSockets = "WebSockets",
    }
}

tagged! {
    /// Where the certificate of a port comes from.
    pub enum ListenerTls by "mode" {
        /// From cert-manager.
        Automatic(Box<CertificateSpec>) = "Automatic", "certManagerCertificateSpec" required(),
        /// From a Secret.
        Manual(SecretRef) = "Manual", "manual" required(),
    }
}

record! {
    /// What cert-manager is asked for.
    pub struct CertificateSpec {
        /// Who issues it.
        issuer_ref: IssuerRef = "issuerRef" required(),
        /// How long it is valid.
        duration: Option<Span> = "duration" optional(),
        /// How long before the end it is renewed.
        renew_before: Option<Span> = "renewBefore" optional(),
        /// Where it is put.
        secret_name: Option<String> = "secretName" optional(),
        /// Its key.
        private_key: Option<PrivateKey> = "privateKey" optional(),
        /// The names it is for.
        san: Option<SubjectNames> = "san" optional(),
    }
}

record! {
    /// Who issues a certificate.
    pub struct IssuerRef {
        /// The name.
        name: String = "name" required(),
        /// Of the namespace or of the cluster.
        kind: IssuerKind = "kind" required(),
        /// The API group.
        group: String = "group" or("cert-manager.io".to_owned()),
    }
}

choice! {
    /// Where an issuer belongs to.
    pub enum IssuerKind {
        /// The namespace.
        Issuer = "Issuer",
        /// The cluster.
        ClusterIssuer = "ClusterIssuer",
    }
}

record! {
    /// The names a certificate is for.
    pub struct SubjectNames {
        /// Host names.
        dns: Vec<String> = "dns" or(Vec::new()),
        /// Addresses.
        ip: Vec<String> = "ip" or(Vec::new()),
    }
}
