//! Debian's docker-registry on a free loopback port, and pushing to it as ORAS does.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use processing::registry::{Digest, Endpoint};
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::json;

use super::artifact::Pushed;
use super::faulty::{Answer, Faulty};
use super::{endpoint, run};

pub const USER: &str = "reader";
pub const PASSWORD: &str = "swordfish-7";

/// A running registry, stopped when dropped.
pub struct Docker {
    process: Child,
    directory: tempfile::TempDir,
    port: u16,
    access: Access,
    client: Client,
    token_service: Option<Faulty>,
}

enum Access {
    Open,
    Basic,
    Token(String),
}

impl Docker {
    /// Anybody may do anything.
    pub async fn open() -> Self {
        Self::start(Access::Open, "", "", None).await
    }

    /// Only [`USER`] with [`PASSWORD`] may.
    pub async fn with_password() -> Self {
        let users = run("htpasswd", &["-Bbn", USER, PASSWORD]);
        let auth = "auth: {htpasswd: {realm: test, path: users}}\n";
        Self::start_with(Access::Basic, auth, "", None, |d| fs::write(d.join("users"), users).unwrap()).await
    }

    /// Whoever brings a token may, and a token service gives one to anybody. `repository` is the one it is
    /// good for.
    pub async fn with_token(repository: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (key, certificate) = (directory.path().join("key.pem"), directory.path().join("crt.pem"));
        self_signed(&key, &certificate);
        let token = signed_token(&key, &certificate, repository);
        let answer = json!({"token": token}).to_string();
        let service = Faulty::start(move |_| Answer::ok("application/json", answer.clone().into_bytes()));
        let auth = format!(
            "auth: {{token: {{realm: 'http://{}/token', service: the-registry, issuer: the-issuer, rootcertbundle: crt.pem}}}}\n",
            service.host()
        );
        let access = Access::Token(token);
        Self::start_with(access, &auth, "", Some(service), |d| {
            fs::copy(&certificate, d.join("crt.pem")).unwrap();
        })
        .await
    }

    /// Over TLS, with a certificate of its own making. Gives back the certificate's file.
    pub async fn with_tls() -> (Self, PathBuf) {
        let tls = ", tls: {certificate: crt.pem, key: key.pem}";
        let docker = Self::start_with(Access::Open, "", tls, None, |d| {
            self_signed(&d.join("key.pem"), &d.join("crt.pem"));
        })
        .await;
        let certificate = docker.directory.path().join("crt.pem");
        (docker, certificate)
    }

    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn endpoint(&self) -> Endpoint {
        endpoint(&self.host())
    }

    /// What the token service was asked for.
    pub fn token_requests(&self) -> Vec<String> {
        self.token_service.as_ref().map(Faulty::requests).unwrap_or_default()
    }

    /// Pushes an artifact under `name:tag`, or without a tag if that is empty.
    pub async fn push(&self, name: &str, tag: &str, artifact: &Pushed) {
        for blob in &artifact.blobs {
            self.push_blob(name, blob).await;
        }
        let by_digest = artifact.digest().to_string();
        let reference = if tag.is_empty() { &by_digest } else { tag };
        let response = self
            .request(Method::PUT, &self.url(&format!("/v2/{name}/manifests/{reference}")))
            .header("content-type", artifact.media_type)
            .body(artifact.manifest.clone())
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::CREATED, "{}", response.text().await.unwrap());
    }

    /// Deletes a manifest, and with it the tags that name it.
    pub async fn delete(&self, name: &str, digest: &Digest) {
        let url = self.url(&format!("/v2/{name}/manifests/{digest}"));
        let response = self.request(Method::DELETE, &url).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::ACCEPTED);
    }

    /// Ends the registry.
    pub fn stop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    async fn push_blob(&self, name: &str, blob: &[u8]) {
        let url = self.url(&format!("/v2/{name}/blobs/uploads/"));
        let response = self.request(Method::POST, &url).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        let location = response.headers()["location"].to_str().unwrap().to_owned();
        let location = if location.starts_with('/') { self.url(&location) } else { location };
        let upload = self
            .request(Method::PUT, &location)
            .query(&[("digest", Digest::of(blob).to_string())])
            .header("content-type", "application/octet-stream")
            .body(blob.to_vec());
        assert_eq!(upload.send().await.unwrap().status(), StatusCode::CREATED);
    }

    fn request(&self, method: Method, url: &str) -> RequestBuilder {
        let request = self.client.request(method, url);
        match &self.access {
            Access::Open => request,
            Access::Basic => request.basic_auth(USER, Some(PASSWORD)),
            Access::Token(token) => request.bearer_auth(token),
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.host())
    }

    async fn start(access: Access, auth: &str, tls: &str, token_service: Option<Faulty>) -> Self {
        Self::start_with(access, auth, tls, token_service, |_| {}).await
    }

    async fn start_with(
        access: Access,
        auth: &str,
        tls: &str,
        token_service: Option<Faulty>,
        prepare: impl FnOnce(&Path),
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        prepare(root);
        let client = Client::new();
        let (port, process) = serve(root, tls, auth).await;
        Docker { process, directory, port, access, client, token_service }
    }
}

/// Starts the registry and waits until it is up. Somebody else may take the free port first; then it is another one.
async fn serve(root: &Path, tls: &str, auth: &str) -> (u16, Child) {
    for _ in 0..5 {
        let port = free_port();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\n\
             storage: {{filesystem: {{rootdirectory: data}}, delete: {{enabled: true}}}}\n\
             http: {{addr: '127.0.0.1:{port}'{tls}}}\n{auth}"
        );
        fs::write(root.join("config.yml"), config).unwrap();
        let log = fs::File::create(root.join("log")).unwrap();
        let mut process = Command::new("docker-registry")
            .args(["serve", "config.yml"])
            .current_dir(root)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("docker-registry does not start ({error}): run tests/setup"));
        if is_up(&mut process, port).await {
            return (port, process);
        }
    }
    panic!("docker-registry does not stay up: {}", fs::read_to_string(root.join("log")).unwrap_or_default());
}

/// Waits until the process listens; false if it ended instead.
async fn is_up(process: &mut Child, port: u16) -> bool {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let listening = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok();
        // Asked afterwards: whoever listens must not be somebody else.
        if process.try_wait().unwrap().is_some() {
            return false;
        }
        if listening {
            return true;
        }
        assert!(Instant::now() < deadline, "docker-registry is not up after 20 s");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        // It may have been stopped already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn self_signed(key: &Path, certificate: &Path) {
    let (key, certificate) = (key.to_str().unwrap(), certificate.to_str().unwrap());
    let names = "subjectAltName=IP:127.0.0.1,DNS:localhost";
    let subject =
        ["-subj", "/CN=forebay-test", "-addext", names, "-addext", "basicConstraints=critical,CA:FALSE"];
    let files = ["-keyout", key, "-out", certificate, "-days", "2"];
    let kind = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-sha256"];
    run("openssl", &[&kind[..], &files, &subject].concat());
}

/// A token as docker-registry wants them: RS256, with the signer's certificate inside.
fn signed_token(key: &Path, certificate: &Path, repository: &str) -> String {
    let der = run("openssl", &["x509", "-in", certificate.to_str().unwrap(), "-outform", "DER"]);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let header = json!({"typ": "JWT", "alg": "RS256", "x5c": [STANDARD.encode(der)]});
    let claims = json!({
        "iss": "the-issuer", "aud": "the-registry", "sub": "", "jti": "1", "iat": now, "nbf": now - 60, "exp": now + 3600,
        "access": [{"type": "repository", "name": repository, "actions": ["pull", "push"]}],
    });
    let encode = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", encode(header), encode(claims));
    let file = key.with_extension("signed");
    fs::write(&file, &signed).unwrap();
    let sign = ["dgst", "-sha256", "-sign", key.to_str().unwrap(), file.to_str().unwrap()];
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(run("openssl", &sign)))
}
