//! Messages to a collector, in batches: each kept until the collector has it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use config::RemoteEndpoint;
use config::resource::common::OperationalMode;
use config::resource::endpoint::{EndpointSettings, OpenTelemetryAuthentication, OpenTelemetrySettings};
use prost::Message;
use rustls::pki_types::ServerName;

use super::payload::{self, Telemetry};
use super::proto::{
    KeyValue, LogsRequest, MetricsRequest, Resource, ResourceLogs, ResourceMetrics, Scope, ScopeLogs,
    ScopeMetrics,
};
use super::wire::{Collector, Fault, Line, Signal};
use crate::{Backoff, Destination, Outward, Receiver, Rejection, Report, Running, Shipment, Unusable, tls};

const CONFIGURATION: &str = "DataflowOtelTargetConfigurationError";
const SEND: &str = "DataflowOtelTargetSendFailed";
/// Where Kubernetes puts the token of a service account.
const TOKEN_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
/// More than this goes into no request.
const REQUEST_MESSAGES_MAX: usize = 10_000;

/// A collector as a destination.
pub struct OtlpDestination {
    collector: Collector,
    latency: Duration,
    messages_max: usize,
    resource: Resource,
}

impl OtlpDestination {
    /// The destination that `outward` names.
    ///
    /// # Errors
    /// The endpoint cannot be used as it is.
    pub fn new(outward: &Outward) -> Result<Self, Unusable> {
        let endpoint = &outward.endpoint;
        let unusable = |why: String| Unusable { code: CONFIGURATION, why: format!("{}: {why}", endpoint.id) };
        let EndpointSettings::OpenTelemetry(settings) = &endpoint.settings else {
            return Err(unusable("it is no OpenTelemetry endpoint".to_owned()));
        };
        let collector = collector(endpoint, settings).map_err(unusable)?;
        let attributes = vec![
            KeyValue::text("service.name", &outward.target),
            KeyValue::text("service.instance.id", &outward.instance.process),
        ];
        Ok(Self {
            collector,
            latency: Duration::from_secs(settings.batching.latency_seconds.into()),
            messages_max: (settings.batching.max_messages as usize).clamp(1, REQUEST_MESSAGES_MAX),
            resource: Resource { attributes },
        })
    }
}

fn collector(endpoint: &RemoteEndpoint, settings: &OpenTelemetrySettings) -> Result<Collector, String> {
    let identity = match &settings.authentication {
        OpenTelemetryAuthentication::X509Certificate(_) => endpoint.secret.as_ref(),
        _ => None,
    };
    let token_file = match &settings.authentication {
        OpenTelemetryAuthentication::ServiceAccountToken(_) => {
            Some(endpoint.token_file.clone().unwrap_or_else(|| PathBuf::from(TOKEN_FILE)))
        }
        _ => None,
    };
    let host = &settings.host;
    let scheme = host.as_str().split_once("://").map(|(scheme, _)| scheme);
    if scheme == Some("http") && settings.tls.mode == OperationalMode::Enabled {
        return Err("`host` begins with http:// and `tls.mode` is Enabled; say which".to_owned());
    }
    let tls = match tls::config(endpoint, &settings.tls, identity)? {
        None => None,
        Some(config) => {
            let name = ServerName::try_from(host.name().to_owned());
            Some((
                config,
                name.map_err(|_| {
                    format!("`host` has no name that a certificate can have: {}", host.as_str())
                })?,
            ))
        }
    };
    // An address as of the web means HTTP, unless its port is that of gRPC.
    let grpc = match host.port() {
        Some(4317) => true,
        Some(4318) => false,
        _ => scheme.is_none(),
    };
    Ok(Collector {
        host: host.name().to_owned(),
        port: host.port().unwrap_or(if grpc { 4317 } else { 4318 }),
        grpc,
        path: host.path().unwrap_or("").trim_end_matches('/').to_owned(),
        tls,
        token_file,
    })
}

impl Destination for OtlpDestination {
    fn run(self: Box<Self>, shipments: Receiver, report: Report) -> Running {
        Box::pin(async move {
            let sending = Sending { own: *self, shipments, report, line: None, backoff: Backoff::default() };
            sending.run().await;
        })
    }
}

/// A message, and what it becomes.
struct Ready {
    shipment: Shipment,
    telemetry: Telemetry,
}

struct Sending {
    own: OtlpDestination,
    shipments: Receiver,
    report: Report,
    line: Option<Line>,
    backoff: Backoff,
}

impl Sending {
    async fn run(mut self) {
        // A collector that is not there is told of before there is anything to send.
        match self.own.collector.connect().await {
            Ok(line) => {
                self.line = Some(line);
                self.report.available();
            }
            Err(fault) => self.report.unavailable(SEND, fault.to_string()),
        }
        while let Some(batch) = self.gather().await {
            self.deliver(batch).await;
        }
    }

    /// A batch: as many as there may be, or what came within the latency. Nothing when the queue is closed and empty.
    async fn gather(&mut self) -> Option<Vec<Ready>> {
        let mut batch: Vec<Ready> = Vec::new();
        let mut deadline: Option<Instant> = None;
        while batch.len() < self.own.messages_max {
            let next = match deadline {
                None => self.shipments.next().await,
                Some(deadline) => match tokio::time::timeout_at(deadline.into(), self.shipments.next()).await
                {
                    Ok(next) => next,
                    Err(_) => break,
                },
            };
            let Some(shipment) = next else { break };
            let Some(shipment) = self.report.unless_expired(shipment) else { continue };
            match payload::read(&shipment.parcel.payload) {
                Ok(telemetry) => batch.push(Ready { shipment, telemetry }),
                Err(why) => {
                    let why = format!("the payload {why}");
                    self.report.rejected(shipment, &Rejection { reason: "payload", why });
                }
            }
            deadline.get_or_insert_with(|| Instant::now() + self.own.latency);
        }
        // Only what is rejected may have come.
        match (batch.is_empty(), deadline) {
            (true, None) => None,
            _ => Some(batch),
        }
    }

    /// Sends a batch until it is there; what the collector refuses for good is found one by one.
    async fn deliver(&mut self, batch: Vec<Ready>) {
        match self.send(&batch).await {
            Ok(()) => batch.into_iter().for_each(|ready| self.report.delivered(ready.shipment)),
            Err(why) if batch.len() == 1 => {
                let rejection = Rejection { reason: "refused", why };
                batch.into_iter().for_each(|ready| self.report.rejected(ready.shipment, &rejection));
            }
            Err(_) => {
                for ready in batch {
                    Box::pin(self.deliver(vec![ready])).await;
                }
            }
        }
    }

    /// Sends a batch, as often as it takes.
    ///
    /// # Errors
    /// The collector never takes it.
    async fn send(&mut self, batch: &[Ready]) -> Result<(), String> {
        let own = &self.own;
        let requests =
            [(Signal::Metrics, metrics(batch, &own.resource)), (Signal::Logs, logs(batch, &own.resource))];
        for (signal, request) in requests {
            let Some(request) = request else { continue };
            loop {
                match self.try_send(signal, &request).await {
                    Ok(()) => break,
                    Err(Fault::Never(why)) => return Err(why),
                    Err(Fault::Later(why)) => {
                        self.line = None;
                        self.report.retried();
                        self.report.unavailable(SEND, why);
                        tokio::time::sleep(self.backoff.wait()).await;
                    }
                }
            }
            self.backoff.reset();
            self.report.available();
        }
        Ok(())
    }

    async fn try_send(&mut self, signal: Signal, request: &[u8]) -> Result<(), Fault> {
        let line = match &mut self.line {
            Some(line) => line,
            none => none.insert(self.own.collector.connect().await?),
        };
        self.own.collector.export(line, signal, request).await
    }
}

fn scope() -> Option<Scope> {
    Some(Scope { name: "forebay".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() })
}

fn metrics(batch: &[Ready], resource: &Resource) -> Option<Vec<u8>> {
    let metrics: Vec<_> = batch.iter().flat_map(|ready| ready.telemetry.metrics.iter().cloned()).collect();
    let scope_metrics = vec![ScopeMetrics { scope: scope(), metrics }];
    let any = scope_metrics.iter().any(|scope| !scope.metrics.is_empty());
    let resource_metrics = vec![ResourceMetrics { resource: Some(resource.clone()), scope_metrics }];
    any.then(|| MetricsRequest { resource_metrics }.encode_to_vec())
}

fn logs(batch: &[Ready], resource: &Resource) -> Option<Vec<u8>> {
    let log_records: Vec<_> = batch.iter().flat_map(|ready| ready.telemetry.logs.iter().cloned()).collect();
    let any = !log_records.is_empty();
    let scope_logs = vec![ScopeLogs { scope: scope(), log_records }];
    let resource_logs = vec![ResourceLogs { resource: Some(resource.clone()), scope_logs }];
    any.then(|| LogsRequest { resource_logs }.encode_to_vec())
}
