//! Pulling from a server that tampers, cuts, stalls, floods, or is not there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod registry_support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use processing::registry::{Artifact, Auth, Cause, Digest, Endpoint, Registry, RegistryError};
use registry_support::artifact::{self, Pushed};
use registry_support::docker::free_port;
use registry_support::faulty::{Answer, Body, Faulty, Request};
use registry_support::{caching, cause_of, endpoint, forgetful, refusal};

const WASM: &[u8] = b"\0asm\x0d\0\x01\0 fahrenheit to celsius";

fn wants_layer(request: &Request) -> bool {
    request.path.contains("/blobs/")
}

fn at(server: &Faulty) -> Endpoint {
    endpoint(&server.host())
}

/// A server that is sound until the flag is set, then answers requests for the layer (or all) by `spoilt`.
fn turning(
    layer_only: bool,
    spoilt: impl Fn(&Pushed) -> Answer + Send + Sync + 'static,
) -> (Faulty, Arc<AtomicBool>) {
    let turned = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&turned);
    let server = Faulty::serving(artifact::module(WASM), move |request, pushed| {
        let concerned = !layer_only || wants_layer(request);
        (concerned && flag.load(Ordering::SeqCst)).then(|| spoilt(pushed))
    });
    (server, turned)
}

async fn pull_from(server: &Faulty) -> Result<Artifact, RegistryError> {
    forgetful().pull(&at(server), "t:1").await
}

/// Holds the layer back until so many pulls have had the manifest, and a moment longer, so that all want the
/// layer at once.
struct Gate {
    missing: AtomicUsize,
}

impl Gate {
    fn of(pulls: usize) -> Self {
        Gate { missing: AtomicUsize::new(pulls) }
    }

    fn pass(&self, request: &Request) {
        if !wants_layer(request) {
            self.missing.fetch_sub(1, Ordering::SeqCst);
            return;
        }
        while self.missing.load(Ordering::SeqCst) > 0 {
            std::thread::sleep(Duration::from_millis(10));
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

#[tokio::test]
async fn a_layer_that_was_changed_is_refused() {
    let server = Faulty::serving(artifact::module(WASM), |request, _| {
        let mut changed = WASM.to_vec();
        changed[9] ^= 1;
        wants_layer(request).then(|| Answer::ok("application/wasm", changed))
    });
    let error = pull_from(&server).await.unwrap_err();
    let Cause::DigestMismatch { what: "the layer", expected, actual } = cause_of(&error) else {
        panic!("{error:?}")
    };
    assert_eq!(expected, &Digest::of(WASM));
    assert_ne!(actual, expected);
    assert!(error.to_string().contains("do not use it"), "{error}");
}

#[tokio::test]
async fn a_manifest_that_is_not_the_one_asked_for_or_stated_is_refused() {
    let server = Faulty::serving(artifact::module(WASM), |_, _| None);
    let error = refusal(&forgetful(), &at(&server), &format!("t@{}", Digest::of(b"another"))).await;
    assert!(matches!(cause_of(&error), Cause::DigestMismatch { what: "the manifest", .. }), "{error:?}");

    let server = Faulty::serving(artifact::module(WASM), |request, pushed| {
        let stated = Digest::of(b"as pushed").to_string();
        (!wants_layer(request)).then(|| {
            Answer::ok(pushed.media_type, pushed.manifest.clone()).header("docker-content-digest", &stated)
        })
    });
    let error = pull_from(&server).await.unwrap_err();
    assert!(matches!(cause_of(&error), Cause::DigestMismatch { what: "the manifest", .. }), "{error:?}");
}

#[tokio::test]
async fn tampering_is_not_papered_over_by_the_cache() {
    let (server, turned) = turning(false, |_| {
        Answer::ok(artifact::IMAGE, artifact::module(b"new").manifest)
            .header("docker-content-digest", &Digest::of(b"old").to_string())
    });
    let cache = tempfile::tempdir().unwrap();
    caching(cache.path()).pull(&at(&server), "t:1").await.unwrap();
    turned.store(true, Ordering::SeqCst);
    let error = refusal(&caching(cache.path()), &at(&server), "t:1").await;
    assert!(matches!(cause_of(&error), Cause::DigestMismatch { .. }), "{error:?}");
}

#[tokio::test]
async fn a_layer_that_is_cut_off_is_refused() {
    let server = Faulty::serving(artifact::module(WASM), |request, _| {
        wants_layer(request).then(|| Answer::new(200, Body::Cut(WASM.to_vec(), 12)))
    });
    let error = pull_from(&server).await.unwrap_err();
    assert!(matches!(cause_of(&error), Cause::Interrupted { .. }), "{error:?}");

    let server = Faulty::serving(artifact::module(WASM), |request, _| {
        wants_layer(request).then(|| Answer::ok("application/wasm", WASM[..12].to_vec()))
    });
    let error = pull_from(&server).await.unwrap_err();
    assert!(matches!(cause_of(&error), Cause::SizeMismatch { actual: 12, .. }), "{error:?}");
}

#[tokio::test]
async fn a_layer_larger_than_allowed_is_not_even_asked_for() {
    let server = Faulty::serving(artifact::module(WASM), |_, _| None);
    let mut endpoint = at(&server);
    endpoint.limits.blob_bytes_max = WASM.len() as u64 - 1;
    let error = refusal(&forgetful(), &endpoint, "t:1").await;
    assert!(matches!(cause_of(&error), Cause::TooLarge { what: "the layer", .. }), "{error:?}");
    assert!(error.to_string().contains("raise blob_bytes_max"), "{error}");
    assert_eq!(server.requests(), ["/v2/t/manifests/1"]);
    endpoint.limits.blob_bytes_max += 1;
    assert_eq!(forgetful().pull(&endpoint, "t:1").await.unwrap().bytes, WASM);
}

#[tokio::test]
async fn a_flood_is_cut_off_wherever_it_comes() {
    // Socket buffers hold some of it; what counts is that it does not go on.
    let sent_max = 32 << 20;
    let layer = Faulty::serving(artifact::module(WASM), |request, _| {
        wants_layer(request).then(|| Answer::new(200, Body::Endless))
    });
    let error = pull_from(&layer).await.unwrap_err();
    assert!(matches!(cause_of(&error), Cause::SizeMismatch { at_least: true, .. }), "{error:?}");

    let manifest = Faulty::start(|_| Answer::new(200, Body::Endless));
    let error = pull_from(&manifest).await.unwrap_err();
    assert!(matches!(cause_of(&error), Cause::TooLarge { what: "the manifest", .. }), "{error:?}");

    let complaint = Faulty::start(|_| Answer::new(404, Body::Endless));
    let error = pull_from(&complaint).await.unwrap_err();
    assert!(matches!(cause_of(&error), Cause::NotFound { .. }), "{error:?}");

    let service = Faulty::start(|_| Answer::new(200, Body::Endless));
    let challenge = format!("Bearer realm=\"http://{}/token\"", service.host());
    let registry = Faulty::start(move |_| Answer::status(401).header("www-authenticate", &challenge));
    let error = pull_from(&registry).await.unwrap_err();
    assert!(matches!(cause_of(&error), Cause::TooLarge { what: "the token", .. }), "{error:?}");

    for server in [layer, manifest, complaint, service] {
        assert!(server.sent() < sent_max, "{} bytes", server.sent());
    }
}

#[tokio::test]
async fn a_registry_that_stalls_ends_in_the_configured_time() {
    let silent = Faulty::start(|_| Answer::new(200, Body::Silent));
    let half = Faulty::serving(artifact::module(WASM), |request, _| {
        wants_layer(request).then(|| Answer::new(200, Body::Stalled(WASM.to_vec(), 12)))
    });
    for server in [silent, half] {
        let mut endpoint = at(&server);
        endpoint.limits.read_timeout = Duration::from_millis(300);
        let started = Instant::now();
        let error = refusal(&forgetful(), &endpoint, "t:1").await;
        assert!(matches!(cause_of(&error), Cause::Timeout { setting: "read_timeout", .. }), "{error:?}");
        assert_eq!(error.reason_code(), "DataflowGraphModuleDownloadTimeout");
        let took = started.elapsed();
        assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(3), "{took:?}");
    }
}

#[tokio::test]
async fn a_registry_that_drips_ends_with_the_time_for_the_whole_pull() {
    let server = Faulty::start(|_| Answer::new(200, Body::Dripping(Duration::from_millis(20))));
    let mut endpoint = at(&server);
    endpoint.limits.read_timeout = Duration::from_millis(500);
    endpoint.limits.total_timeout = Duration::from_secs(1);
    let started = Instant::now();
    let error = refusal(&forgetful(), &endpoint, "t:1").await;
    assert!(matches!(cause_of(&error), Cause::Timeout { setting: "total_timeout", .. }), "{error:?}");
    let took = started.elapsed();
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(4), "{took:?}");
}

#[tokio::test]
async fn a_port_that_nobody_listens_on_is_told_as_such() {
    let endpoint = endpoint(&format!("127.0.0.1:{}", free_port()));
    let error = refusal(&forgetful(), &endpoint, "t:1").await;
    assert!(matches!(cause_of(&error), Cause::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains("refused"), "{error}");
    assert_eq!(error.reason_code(), "DataflowGraphModuleDownloadFailed");
}

#[tokio::test]
async fn a_host_that_does_not_exist_is_told_as_such() {
    let error = refusal(&forgetful(), &endpoint("registry.invalid"), "t:1").await;
    assert!(matches!(cause_of(&error), Cause::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_registry_that_is_away_in_any_way_is_stood_in_for_by_the_cache() {
    type Spoil = fn(&Pushed) -> Answer;
    let ways: [(&str, bool, Spoil); 6] = [
        ("down", false, |_| Answer::status(503)),
        ("failing", false, |_| Answer::status(500)),
        ("overrun", false, |_| Answer::status(429)),
        ("silent", false, |_| Answer::new(200, Body::Silent)),
        ("cutting", false, |pushed| Answer::new(200, Body::Cut(pushed.manifest.clone(), 20))),
        ("losing the layer", true, |_| Answer::status(502)),
    ];
    for (way, layer_only, spoil) in ways {
        let (server, turned) = turning(layer_only, spoil);
        let cache = tempfile::tempdir().unwrap();
        let mut endpoint = at(&server);
        endpoint.limits.read_timeout = Duration::from_millis(500);
        caching(cache.path()).pull(&endpoint, "t:1").await.unwrap();
        turned.store(true, Ordering::SeqCst);
        let pulled = caching(cache.path()).pull(&endpoint, "t:1").await.unwrap();
        assert_eq!(pulled.bytes, WASM, "{way}");
        // The layer is not asked for again if it is in the cache, so its loss is not noticed.
        assert_eq!((pulled.from_cache, pulled.fallback.is_some()), (!layer_only, !layer_only), "{way}");
        let nothing = tempfile::tempdir().unwrap();
        let error = refusal(&caching(nothing.path()), &endpoint, "t:1").await;
        assert!(cause_of(&error).registry_is_away(), "{way}: {error:?}");
    }
}

#[tokio::test]
async fn a_registry_that_refuses_is_not_stood_in_for_by_the_cache() {
    for status in [401, 403, 404, 418] {
        let (server, turned) = turning(false, move |_| Answer::status(status));
        let cache = tempfile::tempdir().unwrap();
        let registry = caching(cache.path());
        registry.pull(&at(&server), "t:1").await.unwrap();
        turned.store(true, Ordering::SeqCst);
        let error = refusal(&registry, &at(&server), "t:1").await;
        assert!(!cause_of(&error).registry_is_away(), "{status}: {error:?}");
        // Its words are quoted, without what could confuse a terminal.
        assert!(error.to_string().contains(r"no\u{7} such\nluck"), "{error}");
    }
}

#[tokio::test]
async fn pulls_at_the_same_time_transfer_a_layer_once() {
    for cache in [None, Some(tempfile::tempdir().unwrap())] {
        let gate = Gate::of(8);
        let server = Faulty::serving(artifact::module(WASM), move |request, _| {
            gate.pass(request);
            None
        });
        let registry = Arc::new(Registry::new(cache.as_ref().map(|cache| cache.path().to_owned())));
        let pulls: Vec<_> = (0..8)
            .map(|_| {
                let (registry, endpoint) = (Arc::clone(&registry), at(&server));
                tokio::spawn(async move { registry.pull(&endpoint, "t:1").await })
            })
            .collect();
        for pull in pulls {
            assert_eq!(pull.await.unwrap().unwrap().bytes, WASM);
        }
        let transfers = server.requests().iter().filter(|path| path.contains("/blobs/")).count();
        assert_eq!(transfers, 1, "with a cache: {}", cache.is_some());
    }
}

#[tokio::test]
async fn whoever_waits_for_a_transfer_that_fails_tries_itself() {
    let (gate, attempts) = (Gate::of(2), AtomicUsize::new(0));
    let server = Faulty::serving(artifact::module(WASM), move |request, _| {
        gate.pass(request);
        let first = wants_layer(request) && attempts.fetch_add(1, Ordering::SeqCst) == 0;
        first.then(|| Answer::status(500))
    });
    let registry = forgetful();
    let (endpoint, other) = (at(&server), at(&server));
    let (one, two) = tokio::join!(registry.pull(&endpoint, "t:1"), registry.pull(&other, "t:1"));
    assert!(one.is_ok() ^ two.is_ok(), "{one:?} {two:?}");
}

#[tokio::test]
async fn credentials_are_given_only_when_asked_for_and_only_to_the_registry() {
    let elsewhere = Faulty::start(|request| {
        assert_eq!(request.authorization(), None, "credentials went to another host");
        Answer::ok("application/wasm", WASM.to_vec())
    });
    // By another name, as a storage service would have.
    let location =
        format!("http://localhost:{}/signed?secret=s3cr3t", elsewhere.host().rsplit(':').next().unwrap());
    let registry = Faulty::serving(artifact::module(WASM), move |request, _| match request.authorization() {
        None => Some(Answer::status(401).header("www-authenticate", "Basic realm=\"r\"")),
        Some("Basic dXNlcjpwYXNz") if wants_layer(request) => {
            Some(Answer::status(307).header("location", &location))
        }
        Some("Basic dXNlcjpwYXNz") => None,
        Some(other) => panic!("{other}"),
    });
    let auth = Auth::Basic { user: "user".into(), password: "pass".into() };
    let pulled = forgetful().pull(&Endpoint { auth, ..at(&registry) }, "t:1").await.unwrap();
    assert_eq!(pulled.bytes, WASM);
    assert_eq!(elsewhere.requests(), ["/signed?secret=s3cr3t"]);
}

#[tokio::test]
async fn a_redirect_in_a_circle_ends() {
    let server = Faulty::start(|request| Answer::status(307).header("location", &request.path));
    let error = pull_from(&server).await.unwrap_err();
    assert!(matches!(cause_of(&error), Cause::Protocol { .. }), "{error:?}");
    assert!(server.requests().len() < 10);
}

#[tokio::test]
async fn a_token_service_gets_the_password_and_its_nonsense_is_survived() {
    let password = Auth::Basic { user: "user".into(), password: "pass".into() };
    let answers: [(&str, &str); 4] = [
        (r#"{"token": "good"}"#, ""),
        (r#"{"access_token": "good"}"#, ""),
        (r#"{"token": "line\nbreak"}"#, "the token"),
        ("secret-that-is-not-json", "the token"),
    ];
    for (answer, problem) in answers {
        let service = Faulty::start(move |request| {
            assert_eq!(request.authorization(), Some("Basic dXNlcjpwYXNz"));
            Answer::ok("application/json", answer.as_bytes().to_vec())
        });
        let challenge = format!("Bearer realm=\"http://{}/token?x=y\",service=\"s\"", service.host());
        let server = Faulty::serving(artifact::module(WASM), move |request, _| {
            (request.authorization() != Some("Bearer good"))
                .then(|| Answer::status(401).header("www-authenticate", &challenge))
        });
        let pulled = forgetful().pull(&Endpoint { auth: password.clone(), ..at(&server) }, "t:1").await;
        match pulled {
            Ok(artifact) => assert_eq!((artifact.bytes.as_ref(), problem), (WASM, "")),
            Err(error) => {
                assert!(!problem.is_empty() && error.to_string().contains(problem), "{error}");
                assert!(!format!("{error:?}").contains("secret"), "{error:?}");
            }
        }
        assert_eq!(service.requests(), ["/token?x=y&service=s&scope=repository%3At%3Apull"]);
    }
}

#[tokio::test]
async fn a_manifest_that_is_no_manifest_is_refused() {
    for body in ["", "<html>captive portal</html>", "{}", "[[[[", r#"{"schemaVersion":2,"layers":[]}"#] {
        let server = Faulty::start(|_| Answer::ok("text/html", body.as_bytes().to_vec()));
        let error = pull_from(&server).await.unwrap_err();
        assert!(matches!(cause_of(&error), Cause::Malformed { .. }), "{body}: {error:?}");
    }
}

#[tokio::test]
async fn pulls_are_counted_by_what_came_of_them() {
    let counts = registry_support::counting::Counts::default();
    let _installed = metrics::set_default_local_recorder(&counts);
    let (server, turned) = turning(false, |_| Answer::status(503));
    let cache = tempfile::tempdir().unwrap();
    let (registry, endpoint) = (caching(cache.path()), at(&server));
    registry.pull(&endpoint, "t:1").await.unwrap();
    turned.store(true, Ordering::SeqCst);
    registry.pull(&endpoint, "t:1").await.unwrap();
    refusal(&registry, &endpoint, "t:2").await;
    refusal(&registry, &endpoint, "NO REFERENCE").await;
    let total = |outcome: &str| counts.get(&format!("forebay_registry_pulls_total outcome={outcome}"));
    let outcomes = ["pulled", "fallback", "unavailable", "bad_reference"];
    assert_eq!(outcomes.map(total), [1, 1, 1, 1]);
    let pushed = artifact::module(WASM);
    let bytes = (pushed.manifest.len() + WASM.len()) as u64;
    assert_eq!(counts.get("forebay_registry_received_bytes_total"), bytes);
    assert_eq!(counts.get("forebay_registry_pull_duration_seconds"), 4);
}
