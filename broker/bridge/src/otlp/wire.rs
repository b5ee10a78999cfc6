//! OTLP over the network: gRPC on HTTP/2, or HTTP/1.1 with protobuf.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::{http1, http2};
use hyper::{Request, StatusCode, header};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::proto::Answer;
use crate::tls::Secured;

/// How long it may take to be connected.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// How long the collector may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// The largest answer that is read.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// In front of each message of gRPC: whether it is compressed, and its length.
const GRPC_PREFIX: usize = 5;

/// How a collector is reached.
#[derive(Clone)]
pub struct Collector {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// By gRPC, or by HTTP with protobuf.
    pub grpc: bool,
    /// What stands before `/v1/metrics`.
    pub path: String,
    /// TLS, and the name that the other side's certificate must have.
    pub tls: Option<Secured>,
    /// The file with the token to show.
    pub token_file: Option<PathBuf>,
}

/// What is exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Metrics.
    Metrics,
    /// Logs.
    Logs,
}

/// Why something was not exported.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The collector is away, or wants to be asked later.
    #[error("{0}")]
    Later(String),
    /// The collector never will take it.
    #[error("{0}")]
    Never(String),
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection to a collector.
pub enum Line {
    /// For gRPC.
    Http2(http2::SendRequest<Full<Bytes>>),
    /// For HTTP.
    Http1(http1::SendRequest<Full<Bytes>>),
}

impl Collector {
    /// Connects.
    pub async fn connect(&self) -> Result<Line, Fault> {
        let address = format!("{}:{}", self.host, self.port);
        let connected = tokio::time::timeout(CONNECT_MAX, self.try_connect()).await;
        let why = match connected {
            Ok(Ok(line)) => return Ok(line),
            Ok(Err(why)) => why,
            Err(_) => format!("no connection within {} s", CONNECT_MAX.as_secs()),
        };
        Err(Fault::Later(format!("{address}: {why}")))
    }

    async fn try_connect(&self) -> Result<Line, String> {
        let socket =
            TcpStream::connect((self.host.as_str(), self.port)).await.map_err(|error| error.to_string())?;
        let link: Box<dyn Duplex> = match &self.tls {
            None => Box::new(socket),
            Some((config, name)) => {
                let mut config = (**config).clone();
                config.alpn_protocols = vec![if self.grpc { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
                let connected = TlsConnector::from(Arc::new(config)).connect(name.clone(), socket).await;
                Box::new(connected.map_err(|error| format!("TLS: {error}"))?)
            }
        };
        let (io, plain) = (TokioIo::new(link), |error: hyper::Error| error.to_string());
        if self.grpc {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.map_err(plain)?;
            tokio::spawn(connection);
            return Ok(Line::Http2(sender));
        }
        let (sender, connection) = http1::handshake(io).await.map_err(plain)?;
        tokio::spawn(connection);
        Ok(Line::Http1(sender))
    }

    /// Exports; the collector has it when this is well.
    pub async fn export(&self, line: &mut Line, signal: Signal, request: &[u8]) -> Result<(), Fault> {
        match tokio::time::timeout(ANSWER_MAX, self.exchange(line, signal, request)).await {
            Ok(done) => done,
            Err(_) => Err(Fault::Later(format!("no answer within {} s", ANSWER_MAX.as_secs()))),
        }
    }

    async fn exchange(&self, line: &mut Line, signal: Signal, request: &[u8]) -> Result<(), Fault> {
        let lost = |error: hyper::Error| Fault::Later(format!("the connection is lost: {error}"));
        let request = self.request(signal, request)?;
        let answer = match line {
            Line::Http2(sender) => {
                sender.ready().await.map_err(lost)?;
                sender.send_request(request).await.map_err(lost)?
            }
            Line::Http1(sender) => {
                sender.ready().await.map_err(lost)?;
                sender.send_request(request).await.map_err(lost)?
            }
        };
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| Fault::Later(format!("the answer is cut off: {error}")))?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        let body = body.to_bytes();
        check_status(head.status, &body)?;
        if !self.grpc {
            return told(&body);
        }
        // Of an answer without a body they are among the headers.
        let find = |name: &str| {
            trailers.get(name).or_else(|| head.headers.get(name)).and_then(|it| it.to_str().ok())
        };
        check_grpc(find("grpc-status"), find("grpc-message").unwrap_or(""))?;
        told(body.get(GRPC_PREFIX..).unwrap_or_default())
    }

    fn request(&self, signal: Signal, message: &[u8]) -> Result<Request<Full<Bytes>>, Fault> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let authority = format!("{host}:{}", self.port);
        let (uri, content_type, body) = match self.grpc {
            true => {
                let service = match signal {
                    Signal::Metrics => "metrics.v1.MetricsService",
                    Signal::Logs => "logs.v1.LogsService",
                };
                let uri = format!("{scheme}://{authority}/opentelemetry.proto.collector.{service}/Export");
                let mut framed = BytesMut::with_capacity(GRPC_PREFIX + message.len());
                framed.put_u8(0);
                framed.put_u32(
                    u32::try_from(message.len()).map_err(|_| Fault::Never("it is too large".to_owned()))?,
                );
                framed.put_slice(message);
                (uri, "application/grpc", framed.freeze())
            }
            false => {
                let what = if signal == Signal::Metrics { "metrics" } else { "logs" };
                let uri = format!("{}/v1/{what}", self.path);
                (uri, "application/x-protobuf", Bytes::copy_from_slice(message))
            }
        };
        let mut request = Request::post(uri).header(header::CONTENT_TYPE, content_type);
        request = if self.grpc {
            request.header(header::TE, "trailers")
        } else {
            request.header(header::HOST, authority)
        };
        if let Some(file) = &self.token_file {
            let token = std::fs::read_to_string(file).map_err(|error| {
                Fault::Later(format!("the service account token {} cannot be read: {error}", file.display()))
            })?;
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.trim()));
        }
        request.body(Full::new(body)).map_err(|error| Fault::Never(error.to_string()))
    }
}

fn check_status(status: StatusCode, body: &[u8]) -> Result<(), Fault> {
    if status.is_success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
    let why = format!("the collector answers {status} {said}").trim_end().to_owned();
    // What may be tried again by the specification of OTLP, and what other resources or another token may mend.
    match status.as_u16() {
        401 | 403 | 404 | 408 | 429 | 500..=599 => Err(Fault::Later(why)),
        _ => Err(Fault::Never(why)),
    }
}

fn check_grpc(status: Option<&str>, message: &str) -> Result<(), Fault> {
    let Some(code) = status.and_then(|status| status.parse::<u32>().ok()) else {
        return Err(Fault::Later("the answer is not gRPC: it has no grpc-status".to_owned()));
    };
    let why = format!("the collector answers with gRPC status {code} {message}").trim_end().to_owned();
    match code {
        0 => Ok(()),
        // INVALID_ARGUMENT, OUT_OF_RANGE, DATA_LOSS.
        3 | 11 | 15 => Err(Fault::Never(why)),
        _ => Err(Fault::Later(why)),
    }
}

/// What the collector says of what it took.
fn told(body: &[u8]) -> Result<(), Fault> {
    let Some(partial) = Answer::decode(body).ok().and_then(|answer| answer.partial_success) else {
        return Ok(());
    };
    match partial.rejected {
        0 => Ok(()),
        some => Err(Fault::Never(format!("the collector refuses {some} of it: {}", partial.error_message))),
    }
}
