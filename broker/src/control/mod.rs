//! The control socket: what `forebay apply`, `get`, `describe`, `delete`, `diff`, `events` and `logs` ask. A Unix socket in the
//! data directory that only the broker's own user can open: who can write there could change the files as well.

pub mod apply;
pub mod client;
pub mod commands;
mod show;

use std::convert::Infallible;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;

use self::apply::{Refused, Wanted};
use crate::admin::{self, Admin};
use crate::logs;
use crate::reload::Watch;

/// The name of the socket in the data directory.
pub const SOCKET: &str = "forebay.sock";
/// The largest request that is read.
const REQUEST_MAX: usize = 4 << 20;

/// What the control socket reaches.
pub struct Control {
    /// What is shown.
    pub admin: Arc<Admin>,
    /// Resources, and how they are read.
    pub watch: Arc<Watch>,
}

/// The socket in this data directory.
///
/// # Errors
/// It cannot be made.
pub fn bind(data_dir: &Path) -> io::Result<UnixListener> {
    std::fs::create_dir_all(data_dir)?;
    let path = data_dir.join(SOCKET);
    // Left over by a process that was killed: the data directory is ours alone.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers until the process ends.
pub async fn run(listener: UnixListener, control: Arc<Control>) {
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let control = Arc::clone(&control);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let control = Arc::clone(&control);
                async move { Ok::<_, Infallible>(control.answer(request).await) }
            });
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(10))
                .serve_connection(TokioIo::new(socket), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "a control connection ended early");
            }
        });
    }
}

/// What is asked to be done.
#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    /// Resources, as YAML or JSON.
    pub text: String,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// Which lines of the log are asked for.
#[derive(Debug, Serialize, Deserialize)]
pub struct LogsWanted {
    /// From this number on.
    pub after: u64,
    /// Of this graph only.
    pub graph: Option<String>,
}

impl Control {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if request.method() == Method::GET {
            return match request.uri().path() {
                "/events" => json(&self.admin.health.events()),
                _ => admin::answer(&self.admin, &request),
            };
        }
        let path = request.uri().path().to_owned();
        let body = match Limited::new(request.into_body(), REQUEST_MAX).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => return refuse(StatusCode::PAYLOAD_TOO_LARGE, &[error.to_string()]),
        };
        match path.as_str() {
            "/refresh" => return self.refresh(&body).await,
            "/rollback" => return self.roll_back(&body).await,
            _ => {}
        }
        // Files are read and written: that is not for a thread that passes messages.
        let answered = tokio::task::spawn_blocking(move || self.carry_out(&path, &body)).await;
        answered.unwrap_or_else(|error| refuse(StatusCode::INTERNAL_SERVER_ERROR, &[error.to_string()]))
    }

    async fn refresh(&self, body: &[u8]) -> Response<Full<Bytes>> {
        match serde_json::from_slice::<Option<String>>(body) {
            Ok(graph) => json(&self.admin.graphs.refresh(graph.as_deref()).await),
            Err(error) => refuse(StatusCode::BAD_REQUEST, &[error.to_string()]),
        }
    }

    async fn roll_back(&self, body: &[u8]) -> Response<Full<Bytes>> {
        match serde_json::from_slice::<String>(body) {
            Ok(graph) => json(&self.admin.graphs.roll_back(&graph).await),
            Err(error) => refuse(StatusCode::BAD_REQUEST, &[error.to_string()]),
        }
    }

    fn carry_out(&self, path: &str, body: &[u8]) -> Response<Full<Bytes>> {
        match path {
            "/resources" => with(body, |wanted: Wanted| {
                self.admin.graphs.observe();
                Ok(show::resources(&self.watch, &self.admin, &wanted))
            }),
            "/apply" => with(body, |order: Order| apply::apply(&self.watch, &order.text, order.dry_run)),
            "/delete" => with(body, |order: apply::Deletion| apply::delete(&self.watch, &order)),
            "/diff" => with(body, |order: Order| apply::diff(&self.watch, &order.text)),
            "/logs" => {
                with(body, |wanted: LogsWanted| Ok(logs::since(wanted.after, wanted.graph.as_deref())))
            }
            _ => refuse(StatusCode::NOT_FOUND, &["there is no such request".to_owned()]),
        }
    }
}

fn with<T: for<'de> Deserialize<'de>, A: Serialize>(
    body: &[u8],
    act: impl FnOnce(T) -> Result<A, Refused>,
) -> Response<Full<Bytes>> {
    match serde_json::from_slice(body) {
        Err(error) => refuse(StatusCode::BAD_REQUEST, &[error.to_string()]),
        Ok(asked) => match act(asked) {
            Ok(answer) => json(&answer),
            Err(Refused(lines)) => refuse(StatusCode::UNPROCESSABLE_ENTITY, &lines),
        },
    }
}

fn json(answer: &impl Serialize) -> Response<Full<Bytes>> {
    Response::new(Full::new(serde_json::to_vec(answer).unwrap_or_default().into()))
}

fn refuse(status: StatusCode, lines: &[String]) -> Response<Full<Bytes>> {
    let mut response = json(&lines);
    *response.status_mut() = status;
    response
}

/// The socket that a command means.
pub fn socket(named: Option<&Path>, data_dir: Option<&Path>) -> Option<PathBuf> {
    let by_environment = || std::env::var_os("FOREBAY_SOCKET").map(PathBuf::from);
    named.map(Path::to_owned).or_else(|| data_dir.map(|dir| dir.join(SOCKET))).or_else(by_environment)
}
