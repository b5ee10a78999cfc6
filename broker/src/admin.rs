//! The admin address: `/livez`, `/readyz`, `/metrics`, `/status` and `/subscriptions` over HTTP.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;

use crate::broker::Broker;
use crate::graphs::Graphs;
use crate::health::Health;
use crate::listing;

/// What the admin address shows.
pub struct Admin {
    /// The broker.
    pub broker: Arc<Broker>,
    /// Renders the metrics.
    pub metrics: PrometheusHandle,
    /// The graphs.
    pub graphs: Arc<Graphs>,
    /// How each resource fares.
    pub health: Arc<Health>,
    /// Set once every listener is bound and every graph has been tried.
    pub ready: AtomicBool,
}

/// Serves until the process ends.
pub async fn run(listener: TcpListener, admin: Arc<Admin>) {
    loop {
        let socket = match listener.accept().await {
            Ok((socket, _)) => socket,
            Err(error) => {
                tracing::warn!(%error, "the admin address cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let admin = Arc::clone(&admin);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let response = answer(&admin, &request);
                async move { Ok::<_, Infallible>(response) }
            });
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(10))
                .serve_connection(TokioIo::new(socket), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "an admin connection ended early");
            }
        });
    }
}

/// What is answered to one request.
pub fn answer(admin: &Admin, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if request.method() != Method::GET {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here\n");
    }
    match request.uri().path() {
        "/livez" => text(StatusCode::OK, "ok\n"),
        "/readyz" if admin.ready.load(Ordering::Acquire) => text(StatusCode::OK, "ok\n"),
        "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, "starting: graphs are being fetched\n"),
        "/metrics" => {
            admin.broker.metrics.observe();
            admin.graphs.observe();
            typed(admin.metrics.render(), "text/plain; version=0.0.4; charset=utf-8")
        }
        "/status" => {
            admin.graphs.observe();
            typed(admin.health.to_json(), "application/json")
        }
        "/subscriptions" => match serde_json::to_string(&listing::subscriptions(&admin.broker)) {
            Ok(body) => typed(body, "application/json"),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        },
        _ => text(StatusCode::NOT_FOUND, "there is /livez, /readyz, /metrics, /status and /subscriptions\n"),
    }
}

fn typed(body: String, content_type: &'static str) -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::OK, body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
}
