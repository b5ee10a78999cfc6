//! Pulling from a real registry: Debian's docker-registry, with artifacts pushed as ORAS pushes them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod registry_support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use processing::registry::{
    AUDIENCE, Auth, Cause, Digest, Endpoint, IdentitySource, ManagedIdentity, PlainHttp,
};
use registry_support::docker::{Docker, PASSWORD, USER};
use registry_support::faulty::{Answer, Body, Faulty};
use registry_support::{artifact, caching, cause_of, endpoint, forgetful, refusal};

const WASM: &[u8] = b"\0asm\x0d\0\x01\0 fahrenheit to celsius";
const YAML: &[u8] = b"moduleRequirements: {}\n";

#[tokio::test]
async fn artifacts_in_every_shape_that_oras_pushes_are_pulled() {
    let docker = Docker::open().await;
    let shapes = [
        ("module", artifact::module(WASM), WASM, "application/wasm", Some("temperature.wasm")),
        ("graph", artifact::graph(YAML), YAML, "application/yaml", Some("graph-simple.yaml")),
        (
            "old",
            artifact::old(WASM),
            WASM,
            "application/vnd.oci.image.layer.v1.tar",
            Some("temperature-1.0.0.wasm"),
        ),
        (
            "bare",
            artifact::without_media_type(WASM),
            WASM,
            "application/vnd.oci.image.layer.v1.tar",
            Some("temperature-1.0.0.wasm"),
        ),
        ("wasm", artifact::wasm_types(YAML), YAML, "application/vnd.wasm.content.layer.v1+wasm", None),
    ];
    for (name, pushed, content, media_type, title) in shapes {
        docker.push(name, "1.0.0", &pushed).await;
        let pulled = forgetful().pull(&docker.endpoint(), &format!("{name}:1.0.0")).await.unwrap();
        assert_eq!(pulled.bytes, content, "{name}");
        assert_eq!(pulled.media_type, media_type);
        assert_eq!(pulled.title.as_deref(), title);
        assert_eq!(pulled.manifest_digest, pushed.digest());
        assert_eq!(pulled.digest, Digest::of(content));
        assert_eq!(pulled.reference, format!("{}/{name}:1.0.0", docker.host()));
        assert!(!pulled.from_cache && pulled.fallback.is_none());
    }
    let module = forgetful().pull(&docker.endpoint(), "module:1.0.0").await.unwrap();
    assert_eq!(module.artifact_type.as_deref(), Some(artifact::MODULE));
}

#[tokio::test]
async fn the_repository_path_may_stand_in_the_host_or_in_the_reference() {
    let docker = Docker::open().await;
    docker.push("azure-samples/iot/temperature", "1.0.0", &artifact::module(WASM)).await;
    let bare = docker.endpoint();
    let prefixed = endpoint(&format!("{}/azure-samples/iot", docker.host()));
    let full = "azure-samples/iot/temperature:1.0.0";
    for (endpoint, reference) in [(&bare, full), (&prefixed, "temperature:1.0.0"), (&prefixed, full)] {
        let pulled = forgetful().pull(endpoint, reference).await.unwrap();
        assert_eq!(pulled.reference, format!("{}/{full}", docker.host()));
    }
}

#[tokio::test]
async fn an_index_of_one_image_stands_for_it_and_one_of_two_is_refused() {
    let docker = Docker::open().await;
    let (one, other) = (artifact::module(WASM), artifact::module(b"another"));
    docker.push("t", "", &one).await;
    docker.push("t", "", &other).await;
    docker.push("t", "single", &artifact::index(&[&one])).await;
    docker.push("t", "several", &artifact::index(&[&one, &other])).await;
    let pulled = forgetful().pull(&docker.endpoint(), "t:single").await.unwrap();
    assert_eq!((pulled.bytes.as_ref(), pulled.manifest_digest), (WASM, one.digest()));
    let error = refusal(&forgetful(), &docker.endpoint(), "t:several").await;
    assert!(matches!(cause_of(&error), Cause::AmbiguousIndex { images: 2 }), "{error}");
}

#[tokio::test]
async fn a_password_is_needed_where_the_registry_wants_one_and_never_shown() {
    let docker = Docker::with_password().await;
    docker.push("t", "1", &artifact::module(WASM)).await;
    let with = |password: &str| {
        let auth = Auth::Basic { user: USER.into(), password: password.into() };
        Endpoint { auth, ..docker.endpoint() }
    };
    assert_eq!(forgetful().pull(&with(PASSWORD), "t:1").await.unwrap().bytes, WASM);

    let error = refusal(&forgetful(), &with("guessed-9"), "t:1").await;
    assert!(matches!(cause_of(&error), Cause::Denied { status: 401, anonymous: false, .. }), "{error}");
    assert!(!format!("{error} {error:?}").contains("guessed-9"));

    let error = refusal(&forgetful(), &docker.endpoint(), "t:1").await;
    assert!(matches!(cause_of(&error), Cause::Denied { status: 401, anonymous: true, .. }), "{error}");
    assert!(error.to_string().contains("no credentials are configured"), "{error}");
    assert_eq!(error.reason_code(), "DataflowGraphModuleDownloadFailed");
}

#[tokio::test]
async fn a_registry_that_gives_tokens_to_anybody_is_pulled_from_anonymously() {
    let docker = Docker::with_token("samples/temperature").await;
    docker.push("samples/temperature", "1.0.0", &artifact::module(WASM)).await;
    let pulled = forgetful().pull(&docker.endpoint(), "samples/temperature:1.0.0").await.unwrap();
    assert_eq!(pulled.bytes, WASM);
    // One token serves the manifest and the layer.
    let asked = docker.token_requests();
    assert_eq!(asked, ["/token?service=the-registry&scope=repository%3Asamples%2Ftemperature%3Apull"]);

    let error = refusal(&forgetful(), &docker.endpoint(), "samples/another:1.0.0").await;
    assert!(matches!(cause_of(&error), Cause::Denied { .. }), "{error}");
}

#[tokio::test]
async fn what_is_not_there_is_an_error_even_if_it_was_pulled_before() {
    let docker = Docker::open().await;
    let cache = tempfile::tempdir().unwrap();
    let pushed = artifact::module(WASM);
    docker.push("t", "1", &pushed).await;
    let registry = caching(cache.path());
    registry.pull(&docker.endpoint(), "t:1").await.unwrap();
    for reference in ["t:2", "other:1"] {
        let error = refusal(&registry, &docker.endpoint(), reference).await;
        assert!(matches!(cause_of(&error), Cause::NotFound { what: "the manifest", .. }), "{error}");
        assert!(error.to_string().contains(&format!("{}/{reference}", docker.host())), "{error}");
    }
    docker.delete("t", &pushed.digest()).await;
    let error = refusal(&registry, &docker.endpoint(), "t:1").await;
    assert!(matches!(cause_of(&error), Cause::NotFound { .. }), "{error}");
}

#[tokio::test]
async fn a_restart_works_while_the_registry_is_away_and_says_so() {
    let mut docker = Docker::open().await;
    let cache = tempfile::tempdir().unwrap();
    docker.push("t", "1", &artifact::module(WASM)).await;
    docker.push("t", "2", &artifact::module(b"never pulled")).await;
    let first = caching(cache.path()).pull(&docker.endpoint(), "t:1").await.unwrap();
    docker.stop();

    let again = caching(cache.path()).pull(&docker.endpoint(), "t:1").await.unwrap();
    assert_eq!(
        (&again.bytes, &again.media_type, &again.title),
        (&first.bytes, &first.media_type, &first.title)
    );
    assert_eq!(
        (&again.manifest_digest, &again.artifact_type),
        (&first.manifest_digest, &first.artifact_type)
    );
    assert!(again.from_cache);
    assert!(matches!(again.fallback.unwrap().cause(), Cause::Unreachable { .. }));

    let error = refusal(&caching(cache.path()), &docker.endpoint(), "t:2").await;
    assert!(matches!(cause_of(&error), Cause::Unreachable { .. }), "{error}");
    // Another user's copy is not this one's.
    let auth = Auth::Basic { user: "else".into(), password: "x".into() };
    let error = refusal(&caching(cache.path()), &Endpoint { auth, ..docker.endpoint() }, "t:1").await;
    assert!(matches!(cause_of(&error), Cause::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn a_pull_by_digest_gets_that_manifest_and_later_asks_nobody() {
    let mut docker = Docker::open().await;
    let cache = tempfile::tempdir().unwrap();
    let pushed = artifact::module(WASM);
    docker.push("t", "1", &pushed).await;
    docker.push("t", "1", &artifact::module(b"moved on")).await;
    let reference = format!("t@{}", pushed.digest());
    let pulled = caching(cache.path()).pull(&docker.endpoint(), &reference).await.unwrap();
    assert_eq!((pulled.bytes.as_ref(), pulled.from_cache), (WASM, false));
    docker.stop();
    let pulled = caching(cache.path()).pull(&docker.endpoint(), &reference).await.unwrap();
    assert!(pulled.from_cache && pulled.fallback.is_none());
}

#[tokio::test]
async fn a_tag_that_moved_gives_the_new_content_and_the_old_leaves_the_cache() {
    let docker = Docker::open().await;
    let cache = tempfile::tempdir().unwrap();
    let registry = caching(cache.path());
    docker.push("t", "1", &artifact::module(WASM)).await;
    docker.push("kept", "1", &artifact::module(b"kept")).await;
    registry.pull(&docker.endpoint(), "kept:1").await.unwrap();
    assert_eq!(registry.pull(&docker.endpoint(), "t:1").await.unwrap().bytes, WASM);
    docker.push("t", "1", &artifact::module(b"newer")).await;
    assert_eq!(registry.pull(&docker.endpoint(), "t:1").await.unwrap().bytes, "newer");
    let layers = [WASM, b"kept", b"newer"].map(|content| blob_file(cache.path(), content).exists());
    assert_eq!(layers, [false, true, true]);
    assert_eq!(files(cache.path()).len(), 2 * 2 + 2, "two manifests, two layers, two records");
}

#[tokio::test]
async fn a_damaged_file_in_the_cache_is_fetched_again_and_never_used() {
    let mut docker = Docker::open().await;
    let cache = tempfile::tempdir().unwrap();
    docker.push("t", "1", &artifact::module(WASM)).await;
    let registry = caching(cache.path());
    registry.pull(&docker.endpoint(), "t:1").await.unwrap();
    let file = blob_file(cache.path(), WASM);

    fs::write(&file, b"something else").unwrap();
    assert_eq!(registry.pull(&docker.endpoint(), "t:1").await.unwrap().bytes, WASM);
    assert_eq!(fs::read(&file).unwrap(), WASM, "it was replaced");

    fs::write(&file, b"something else").unwrap();
    docker.stop();
    let error = refusal(&registry, &docker.endpoint(), "t:1").await;
    assert!(matches!(cause_of(&error), Cause::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn the_cache_is_for_this_user_alone_and_leaves_nothing_half_written() {
    let docker = Docker::open().await;
    let parent = tempfile::tempdir().unwrap();
    let cache = parent.path().join("data/registry");
    docker.push("t", "1", &artifact::module(WASM)).await;
    caching(&cache).pull(&docker.endpoint(), "t:1").await.unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for file in files(&cache) {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
        assert_eq!(mode(file.parent().unwrap()), 0o700, "{}", file.display());
    }
    assert_eq!(mode(&cache), 0o700);
    assert_eq!(fs::read_dir(cache.join("tmp")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_cache_that_cannot_be_written_does_not_stop_a_pull() {
    let docker = Docker::open().await;
    let parent = tempfile::tempdir().unwrap();
    let file = parent.path().join("not-a-directory");
    fs::write(&file, b"").unwrap();
    docker.push("t", "1", &artifact::module(WASM)).await;
    assert_eq!(caching(&file).pull(&docker.endpoint(), "t:1").await.unwrap().bytes, WASM);
}

#[tokio::test]
async fn https_and_http_taken_for_each_other_are_told_apart() {
    let plain = Docker::open().await;
    let over_tls = Endpoint { plain_http: PlainHttp::Never, ..plain.endpoint() };
    let error = refusal(&forgetful(), &over_tls, "t:1").await;
    assert!(matches!(cause_of(&error), Cause::SpeaksPlainHttp), "{error:?}");
    assert!(error.to_string().contains("allow plain HTTP"), "{error}");

    let (tls, _) = Docker::with_tls().await;
    let error = refusal(&forgetful(), &tls.endpoint(), "t:1").await;
    assert!(matches!(cause_of(&error), Cause::SpeaksTls), "{error:?}");
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_refused() {
    let (docker, _) = Docker::with_tls().await;
    let endpoint = Endpoint { plain_http: PlainHttp::Never, ..docker.endpoint() };
    let error = refusal(&forgetful(), &endpoint, "t:1").await;
    assert!(matches!(cause_of(&error), Cause::Tls { .. }), "{error:?}");
    assert!(error.to_string().contains("certificate"), "{error}");
}

#[tokio::test]
async fn a_certificate_that_the_endpoint_vouches_for_is_accepted() {
    let (docker, certificate) = Docker::with_tls().await;
    let trusted = fs::read(certificate).unwrap();
    let endpoint = Endpoint { plain_http: PlainHttp::Never, trusted, ..docker.endpoint() };
    let error = refusal(&forgetful(), &endpoint, "t:1").await;
    assert!(matches!(cause_of(&error), Cause::NotFound { .. }), "{error:?}");
    let trusted = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec();
    let error = refusal(&forgetful(), &Endpoint { trusted, ..endpoint }, "t:1").await;
    assert!(matches!(cause_of(&error), Cause::Tls { .. }), "{error:?}");
}

#[tokio::test]
async fn mirrors_are_asked_first_and_never_shown_a_password() {
    let docker = Docker::with_password().await;
    docker.push("t", "1", &artifact::module(WASM)).await;
    let auth = Auth::Basic { user: USER.to_owned(), password: PASSWORD.to_owned() };
    let (shown, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (in_server, asked) = (Arc::clone(&shown), Arc::clone(&seen));
    let greedy = Faulty::start(move |request| {
        in_server.fetch_or(request.authorization().is_some(), Ordering::SeqCst);
        asked.store(true, Ordering::SeqCst);
        Answer::new(401, Body::Whole(Vec::new())).header("www-authenticate", "Basic realm=\"x\"")
    });
    let spoilt = Faulty::serving(artifact::module(WASM), |request, artifact| {
        let whole = artifact.blobs.last().unwrap().len();
        request.path.contains("/blobs/").then(|| Answer::ok("application/octet-stream", vec![b'x'; whole]))
    });
    let mirrors =
        [greedy.host(), spoilt.host(), format!("127.0.0.1:{}", registry_support::docker::free_port())];
    let mirrors: Vec<_> = mirrors.iter().map(|host| host.parse().unwrap()).collect();
    let endpoint = Endpoint { auth, mirrors, ..docker.endpoint() };
    let registry = forgetful();
    assert_eq!(registry.pull(&endpoint, "t:1").await.unwrap().bytes, WASM);
    assert!(seen.load(Ordering::SeqCst) && !shown.load(Ordering::SeqCst));
    let digest = artifact::module(WASM).digest();
    assert_eq!(registry.look_up(&endpoint, "t:1").await.unwrap(), digest);

    // One that has it serves also while the registry is away.
    let mirror = Faulty::serving(artifact::module(WASM), |_, _| None);
    let away = format!("127.0.0.1:{}", registry_support::docker::free_port());
    let endpoint =
        Endpoint { mirrors: vec![mirror.host().parse().unwrap()], ..registry_support::endpoint(&away) };
    let pulled = registry.pull(&endpoint, "t:1").await.unwrap();
    assert!(pulled.bytes == WASM && !pulled.from_cache && pulled.reference.starts_with(&away));
}

/// The environment belongs to the process, so the pull happens in one of its own.
#[tokio::test]
async fn a_proxy_of_the_environment_is_used_but_not_for_this_machine() {
    const HOST: &str = "REGISTRY_TEST_PROXIED_HOST";
    let name = "a_proxy_of_the_environment_is_used_but_not_for_this_machine";
    if let Ok(here) = std::env::var(HOST) {
        let far = Endpoint { plain_http: PlainHttp::Allowed, ..endpoint("registry.example:5000") };
        assert_eq!(forgetful().pull(&far, "t:1").await.unwrap().bytes, WASM);
        let error = refusal(&forgetful(), &endpoint(&here), "t:1").await;
        assert!(matches!(cause_of(&error), Cause::NotFound { .. }), "{error:?}");
        return;
    }
    let proxy = Faulty::serving(artifact::module(WASM), |request, _| {
        (!request.path.starts_with("http://registry.example:5000/v2/t/")).then(|| Answer::status(404))
    });
    let docker = Docker::open().await;
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name])
        .env(HOST, docker.host())
        .env("HTTP_PROXY", format!("http://{}", proxy.host()))
        .env_remove("NO_PROXY")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// A registry and an identity service that speak as Azure's do.
fn azure(takes: &'static str) -> (Faulty, Faulty) {
    let service = Faulty::start(|request| {
        let asked = request.header("x-identity-header") == Some("shown")
            && request.path.contains("resource=https%3A%2F%2Fmanagement.azure.com%2F")
            && request.path.contains("client_id=me");
        match asked {
            true => Answer::ok("application/json", br#"{"access_token": "own/token"}"#.to_vec()),
            false => Answer::status(400),
        }
    });
    let address = Arc::new(std::sync::OnceLock::<String>::new());
    let own = Arc::clone(&address);
    let registry = Faulty::serving(artifact::module(WASM), move |request, _| {
        let host = own.get().unwrap();
        let json = |text: &str| Some(Answer::ok("application/json", text.as_bytes().to_vec()));
        match request.path.as_str() {
            "/oauth2/exchange"
                if request.body.contains(takes) && request.body.contains("grant_type=access_token") =>
            {
                json(r#"{"refresh_token": "refreshing"}"#)
            }
            "/oauth2/token"
                if request.body.contains("refresh_token=refreshing&")
                    || request.body.ends_with("=refreshing") =>
            {
                assert!(request.body.contains("scope=repository%3At%3Apull"), "{}", request.body);
                json(r#"{"access_token": "pulling"}"#)
            }
            "/oauth2/exchange" | "/oauth2/token" => Some(Answer::status(401)),
            _ if request.authorization() == Some("Bearer pulling") => None,
            _ => Some(Answer::new(401, Body::Whole(Vec::new())).header(
                "www-authenticate",
                &format!("Bearer realm=\"http://{host}/oauth2/token\",service=\"azure\""),
            )),
        }
    });
    address.set(registry.host()).unwrap();
    (registry, service)
}

fn identity(service: &str) -> Auth {
    Auth::Identity(ManagedIdentity {
        source: IdentitySource::Beside {
            endpoint: format!("http://{service}/token"),
            header: "shown".to_owned(),
        },
        client_id: Some("me".to_owned()),
        tenant: None,
        audience: AUDIENCE.to_owned(),
    })
}

#[tokio::test]
async fn a_managed_identity_is_exchanged_for_a_token_that_pulls() {
    let (registry, service) = azure("access_token=own%2Ftoken");
    let ours = Endpoint { auth: identity(&service.host()), ..endpoint(&registry.host()) };
    assert_eq!(forgetful().pull(&ours, "t:1").await.unwrap().bytes, WASM);
    assert!(!format!("{ours:?}").contains("shown"));

    let (registry, service) = azure("access_token=another");
    let ours = Endpoint { auth: identity(&service.host()), ..endpoint(&registry.host()) };
    let error = refusal(&forgetful(), &ours, "t:1").await;
    assert!(error.to_string().contains("AcrPull") && !error.to_string().contains("own/token"), "{error}");

    let nobody = format!("127.0.0.1:{}", registry_support::docker::free_port());
    let ours = Endpoint { auth: identity(&nobody), ..endpoint(&registry.host()) };
    let error = refusal(&forgetful(), &ours, "t:1").await;
    assert!(matches!(cause_of(&error), Cause::Identity { .. }), "{error:?}");
    assert!(error.to_string().contains("exist on Azure only"), "{error}");

    // Elsewhere it is nobody in particular.
    let docker = Docker::with_token("t").await;
    docker.push("t", "1", &artifact::module(WASM)).await;
    let ours = Endpoint { auth: identity(&nobody), ..docker.endpoint() };
    assert_eq!(forgetful().pull(&ours, "t:1").await.unwrap().bytes, WASM);
}

/// The system's trust is read from the environment once per process, so the pull happens in a process of its
/// own.
#[tokio::test]
async fn a_certificate_that_the_system_trusts_is_accepted() {
    const HOST: &str = "REGISTRY_TEST_TLS_HOST";
    let name = "a_certificate_that_the_system_trusts_is_accepted";
    if let Ok(host) = std::env::var(HOST) {
        let endpoint = Endpoint { plain_http: PlainHttp::Never, ..endpoint(&host) };
        let error = refusal(&forgetful(), &endpoint, "t:1").await;
        // Trusted, and asked: an empty registry has no such artifact.
        assert!(matches!(cause_of(&error), Cause::NotFound { .. }), "{error:?}");
        return;
    }
    let (docker, certificate) = Docker::with_tls().await;
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name])
        .env(HOST, docker.host())
        .env("SSL_CERT_FILE", certificate)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// A device's image may have no certificates at all; a registry on the device needs none.
#[tokio::test]
async fn a_plain_registry_needs_no_certificates_on_the_system() {
    const HOST: &str = "REGISTRY_TEST_PLAIN_HOST";
    let name = "a_plain_registry_needs_no_certificates_on_the_system";
    if let Ok(host) = std::env::var(HOST) {
        assert_eq!(forgetful().pull(&endpoint(&host), "t:1").await.unwrap().bytes, WASM);
        return;
    }
    let docker = Docker::open().await;
    docker.push("t", "1", &artifact::module(WASM)).await;
    let nowhere = tempfile::tempdir().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name])
        .env(HOST, docker.host())
        .env("SSL_CERT_FILE", nowhere.path().join("none.pem"))
        .env("SSL_CERT_DIR", nowhere.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

fn blob_file(cache: &Path, content: &[u8]) -> PathBuf {
    cache.join("blobs/sha256").join(Digest::of(content).hex())
}

/// All files below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}
