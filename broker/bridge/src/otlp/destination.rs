//! Messages to a collector, in batches: each kept until the collector has it.

use std::path::PathBuf;
use std::time::Duration;

use config::RemoteEndpoint;
use config::resource::common::OperationalMode;
use config::resource::endpoint::{EndpointSettings, OpenTelemetryAuthentication, OpenTelemetrySettings};
use prost::Message;

use super::payload::{self, Telemetry};
use super::proto::{
    KeyValue, LogsRequest, MetricsRequest, Resource, ResourceLogs, ResourceMetrics, Scope, ScopeLogs,
    ScopeMetrics,
};
use super::wire::{Collector, Fault, Line, Signal};
use crate::batch::{self, BatchLimits, Ready};
use crate::{Backoff, Destination, Outward, Receiver, Rejection, Report, Running, Unusable, tls};

const CONFIGURATION: &str = "DataflowOtelTargetConfigurationError";
const SEND: &str = "DataflowOtelTargetSendFailed";
/// Where Kubernetes puts the token of a service account.
const TOKEN_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
/// More than this goes into no request.
const REQUEST_MESSAGES_MAX: usize = 10_000;
/// Payloads of one request, bytes; a collector takes 4 MiB by default.
const REQUEST_BYTES_MAX: usize = 3 << 20;

/// A collector as a destination.
pub struct OtlpDestination {
    collector: Collector,
    limits: BatchLimits,
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
        let limits = BatchLimits {
            latency: Duration::from_secs(settings.batching.latency_seconds.into()),
            messages_max: (settings.batching.max_messages as usize).clamp(1, REQUEST_MESSAGES_MAX),
            bytes_max: REQUEST_BYTES_MAX,
        };
        Ok(Self { collector, limits, resource: Resource { attributes } })
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
    let tls = tls::config(endpoint, &settings.tls, host, identity)?;
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

    /// The next batch. Nothing when the queue is closed and empty.
    async fn gather(&mut self) -> Option<Vec<Ready<Telemetry>>> {
        batch::gather(&mut self.shipments, &self.report, &self.own.limits, |parcel| {
            payload::read(&parcel.payload)
                .map(|telemetry| (telemetry, parcel.size()))
                .map_err(|why| Rejection { reason: "payload", why: format!("the payload {why}") })
        })
        .await
    }

    /// Sends a batch until it is there; what the collector refuses for good is found one by one.
    async fn deliver(&mut self, batch: Vec<Ready<Telemetry>>) {
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
    async fn send(&mut self, batch: &[Ready<Telemetry>]) -> Result<(), String> {
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

fn metrics(batch: &[Ready<Telemetry>], resource: &Resource) -> Option<Vec<u8>> {
    let metrics: Vec<_> = batch.iter().flat_map(|ready| ready.made.metrics.iter().cloned()).collect();
    let scope_metrics = vec![ScopeMetrics { scope: scope(), metrics }];
    let any = scope_metrics.iter().any(|scope| !scope.metrics.is_empty());
    let resource_metrics = vec![ResourceMetrics { resource: Some(resource.clone()), scope_metrics }];
    any.then(|| MetricsRequest { resource_metrics }.encode_to_vec())
}

fn logs(batch: &[Ready<Telemetry>], resource: &Resource) -> Option<Vec<u8>> {
    let log_records: Vec<_> = batch.iter().flat_map(|ready| ready.made.logs.iter().cloned()).collect();
    let any = !log_records.is_empty();
    let scope_logs = vec![ScopeLogs { scope: scope(), log_records }];
    let resource_logs = vec![ResourceLogs { resource: Some(resource.clone()), scope_logs }];
    any.then(|| LogsRequest { resource_logs }.encode_to_vec())
}
