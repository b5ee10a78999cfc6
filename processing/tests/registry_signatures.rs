//! Artifacts that must be signed: by signers that others wrote, at a real registry and in a layout.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod registry_support;

use processing::registry::{Cause, Endpoint, Location};
use registry_support::artifact::{self, Pushed};
use registry_support::docker::Docker;
use registry_support::faulty::{Answer, Faulty};
use registry_support::layout::layout;
use registry_support::signed::{Authority, COSE, JWS, KeyPair, attached, referrers, tag};
use registry_support::{caching, cause_of, endpoint, forgetful, refusal};
use serde_json::{Value, json};

const WASM: &[u8] = b"\0asm\x0d\0\x01\0 fahrenheit to celsius";

/// The endpoint, with these who may sign.
fn signed_by(endpoint: Endpoint, signers: &[u8]) -> Endpoint {
    Endpoint { signers: Some(signers.to_vec()), ..endpoint }
}

/// Pushes these signatures of `module`, which is `t:1`.
async fn push_signatures(docker: &Docker, module: &Pushed, signatures: &[&Pushed]) {
    docker.push("t", "1", module).await;
    for signature in signatures {
        docker.push("t", "", signature).await;
    }
    docker.push("t", &tag(&module.digest()), &referrers(signatures)).await;
}

/// Why `t:1` is not pulled when it has this signature.
async fn why_not(docker: &Docker, authority: &Authority, envelope: &[u8], media_type: &str) -> String {
    let module = artifact::module(WASM);
    push_signatures(docker, &module, &[&attached(&module, envelope, media_type)]).await;
    let endpoint = signed_by(docker.endpoint(), &authority.certificate());
    let error = refusal(&forgetful(), &endpoint, "t:1").await;
    assert!(matches!(cause_of(&error), Cause::Untrusted { .. }), "{error:?}");
    error.to_string()
}

#[tokio::test]
async fn a_signature_of_the_notary_project_counts_in_each_of_its_formats() {
    let docker = Docker::open().await;
    let authority = Authority::new();
    let endpoint = signed_by(docker.endpoint(), &authority.certificate());
    let module = artifact::module(WASM);
    for key in ["p256", "p384", "p521", "rsa2048", "rsa3072", "rsa4096"] {
        for (format, media_type) in [("jws", JWS), ("cose", COSE)] {
            let arguments = ["--format", format, "--key", key, "--expiry", "600"];
            let envelope = authority.sign(&module.digest(), &arguments);
            push_signatures(&docker, &module, &[&attached(&module, &envelope, media_type)]).await;
            let pulled = forgetful().pull(&endpoint, "t:1").await;
            assert_eq!(pulled.unwrap_or_else(|error| panic!("{format} {key}: {error}")).bytes, WASM);
        }
    }
}

#[tokio::test]
async fn what_nobody_signed_is_not_pulled_and_its_layer_not_fetched() {
    let (module, authority) = (artifact::module(WASM), Authority::new());
    let served = artifact::module(WASM);
    let registry = Faulty::start(move |request| match request.path.as_str() {
        "/v2/t/manifests/1" => Answer::ok(artifact::IMAGE, served.manifest.clone()),
        path if path.contains("/blobs/") => panic!("{path} was asked for"),
        _ => Answer::status(404),
    });
    let endpoint = signed_by(endpoint(&registry.host()), &authority.certificate());
    let error = refusal(&forgetful(), &endpoint, "t:1").await;
    assert!(
        matches!(cause_of(&error), Cause::Unsigned { manifest } if *manifest == module.digest()),
        "{error:?}"
    );
    assert!(error.to_string().contains("notation sign"), "{error}");
    assert!(registry.requests().iter().all(|request| !request.contains("/blobs/")));
}

#[tokio::test]
async fn a_registry_that_lists_referrers_is_asked_for_them() {
    let (module, authority) = (artifact::module(WASM), Authority::new());
    let signature = attached(&module, &authority.sign(&module.digest(), &[]), JWS);
    let list = referrers(&[&signature]).manifest;
    let all =
        [&module, &signature].map(|pushed| (pushed.digest(), pushed.manifest.clone(), pushed.blobs.clone()));
    let registry = Faulty::start(move |request| {
        let asked = request.path.as_str();
        if asked.contains("/referrers/") {
            return Answer::ok(artifact::INDEX, list.clone());
        }
        for (digest, manifest, blobs) in &all {
            if asked.ends_with(&digest.to_string()) || (asked == "/v2/t/manifests/1" && *digest == all[0].0) {
                return Answer::ok(artifact::IMAGE, manifest.clone());
            }
            for blob in blobs {
                if asked.ends_with(&processing::registry::Digest::of(blob).to_string()) {
                    return Answer::ok("application/octet-stream", blob.clone());
                }
            }
        }
        Answer::status(404)
    });
    let endpoint = signed_by(endpoint(&registry.host()), &authority.certificate());
    assert_eq!(forgetful().pull(&endpoint, "t:1").await.unwrap().bytes, WASM);
    let asked = registry.requests();
    let wanted =
        format!("/v2/t/referrers/{}?artifactType=application/vnd.cncf.notary.signature", module.digest());
    assert!(asked.iter().any(|request| request.contains(&wanted)), "{asked:?}");
}

#[tokio::test]
async fn a_signature_that_does_not_count_says_why() {
    let docker = Docker::open().await;
    let (authority, other) = (Authority::new(), Authority::new());
    let digest = artifact::module(WASM).digest();
    let cases: [(&[&str], &str); 8] = [
        (&["--usage", "server-auth"], "its certificate is not good"),
        (&["--usage", "none"], "it is not for signing code"),
        (&["--ended"], "its certificate is not good"),
        (&["--expiry", "-60"], "it has expired"),
        (&["--expiry", "60", "--not-critical", "io.cncf.notary.expiry"], "is not declared critical"),
        (&["--not-critical", "io.cncf.notary.signingScheme", "--critical", "x"], "critical"),
        (&["--scheme", "notary.x509.signingAuthority"], "its scheme is `notary.x509.signingAuthority`"),
        (
            &["--critical", "io.cncf.notary.verificationPlugin"],
            "declares `io.cncf.notary.verificationPlugin` critical",
        ),
    ];
    for (format, media_type) in [("jws", JWS), ("cose", COSE)] {
        for (arguments, why) in cases {
            let envelope = authority.sign(&digest, &[&["--format", format], arguments].concat());
            let told = why_not(&docker, &authority, &envelope, media_type).await;
            assert!(told.contains(why), "{format} {arguments:?}: {told}");
        }
        // By somebody whom another authority knows.
        let envelope = other.sign(&digest, &["--format", format]);
        let told = why_not(&docker, &authority, &envelope, media_type).await;
        assert!(told.contains("its certificate is not good"), "{told}");
        // Of something else, taken from where it belongs.
        let envelope = authority.sign(&artifact::module(b"another").digest(), &["--format", format]);
        let told = why_not(&docker, &authority, &envelope, media_type).await;
        assert!(told.contains("it is of another manifest, sha256:"), "{told}");
        // No envelope at all, and one that is said to be of another kind.
        let told = why_not(&docker, &authority, b"\x84\xff{", media_type).await;
        assert!(told.contains("its envelope is not"), "{told}");
    }
    let told = why_not(&docker, &authority, b"x", "application/pkcs7-signature").await;
    assert!(told.contains("its envelope is `application/pkcs7-signature`"), "{told}");
    let told = why_not(&docker, &authority, &vec![b'x'; 100_000], JWS).await;
    assert!(told.contains("larger than 65536 bytes"), "{told}");
}

/// Every byte of what is signed counts; and no change of any byte makes a panic.
#[tokio::test]
async fn a_changed_envelope_does_not_count() {
    let (module, authority) = (artifact::module(WASM), Authority::new());
    let certificate = authority.certificate();
    let pull = async |envelope: &[u8], media_type| {
        let directory = layout(&[("t:1", &module), ("s", &attached(&module, envelope, media_type))]);
        let endpoint = Endpoint::new(Location::Layout(directory.path().to_owned()));
        forgetful().pull(&signed_by(endpoint, &certificate), "t:1").await
    };
    let jws = authority.sign(&module.digest(), &[]);
    assert_eq!(pull(&jws, JWS).await.unwrap().bytes, WASM);
    for part in ["payload", "protected", "signature"] {
        let mut envelope: Value = serde_json::from_slice(&jws).unwrap();
        let mut text = envelope[part].as_str().unwrap().as_bytes().to_vec();
        let middle = text.len() / 2;
        text[middle] = if text[middle] == b'A' { b'B' } else { b'A' };
        envelope[part] = json!(String::from_utf8(text).unwrap());
        let error = pull(envelope.to_string().as_bytes(), JWS).await.unwrap_err();
        assert!(matches!(cause_of(&error), Cause::Untrusted { .. }), "{part}: {error:?}");
    }
    let cose = authority.sign(&module.digest(), &["--format", "cose"]);
    assert_eq!(pull(&cose, COSE).await.unwrap().bytes, WASM);
    let payload = cose.windows(14).position(|at| at == b"targetArtifact").unwrap();
    for place in [20, payload + 60, cose.len() - 5] {
        let mut changed = cose.clone();
        changed[place] ^= 1;
        let error = pull(&changed, COSE).await.unwrap_err();
        assert!(matches!(cause_of(&error), Cause::Untrusted { .. }), "{place}: {error:?}");
    }
    for (envelope, media_type) in [(jws, JWS), (cose, COSE)] {
        for place in (0..envelope.len()).step_by(7) {
            let mut changed = envelope.clone();
            changed[place] ^= 1 << (place % 8);
            // What nobody signed (such as the root that comes along) may change.
            drop(pull(&changed, media_type).await);
            drop(pull(&envelope[..place], media_type).await.unwrap_err());
        }
    }
}

#[tokio::test]
async fn a_bad_signature_does_not_hide_a_good_one() {
    let docker = Docker::open().await;
    let (authority, other, module) = (Authority::new(), Authority::new(), artifact::module(WASM));
    let bad = attached(&module, &other.sign(&module.digest(), &[]), JWS);
    let broken = attached(&module, b"{}", COSE);
    let good = attached(&module, &authority.sign(&module.digest(), &["--format", "cose"]), COSE);
    push_signatures(&docker, &module, &[&bad, &broken, &good]).await;
    let endpoint = signed_by(docker.endpoint(), &authority.certificate());
    assert_eq!(forgetful().pull(&endpoint, "t:1").await.unwrap().bytes, WASM);

    push_signatures(&docker, &module, &[&bad, &broken]).await;
    let error = refusal(&forgetful(), &endpoint, "t:1").await;
    assert!(
        error.to_string().contains("none of its 2 signatures counts; of the first: its certificate"),
        "{error}"
    );
}

#[tokio::test]
async fn a_signature_of_cosign_counts_where_its_key_is_trusted() {
    let docker = Docker::open().await;
    let module = artifact::module(WASM);
    let kinds: [&[&str]; 4] = [
        &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
        &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
        &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
        &["-algorithm", "ED25519"],
    ];
    docker.push("t", "1", &module).await;
    let stranger = KeyPair::new(kinds[0]);
    for kind in kinds {
        let (pair, name) = (KeyPair::new(kind), format!("{}.sig", tag(&module.digest())));
        docker.push("t", &name, &pair.cosign(&module.digest())).await;
        let endpoint = signed_by(docker.endpoint(), &pair.public);
        let pulled = forgetful().pull(&endpoint, "t:1").await;
        assert_eq!(pulled.unwrap_or_else(|error| panic!("{kind:?}: {error}")).bytes, WASM);

        let error = refusal(&forgetful(), &signed_by(docker.endpoint(), &stranger.public), "t:1").await;
        assert!(error.to_string().contains("made by none of the keys that are trusted"), "{error}");

        docker.push("t", &name, &pair.cosign(&artifact::module(b"another").digest())).await;
        let error = refusal(&forgetful(), &endpoint, "t:1").await;
        assert!(error.to_string().contains("it is of another manifest"), "{error}");
    }
}

#[tokio::test]
async fn a_layout_holds_signatures_beside_what_they_are_of() {
    let (module, authority) = (artifact::module(WASM), Authority::new());
    let pair = KeyPair::new(&["-algorithm", "ED25519"]);
    let notation = attached(&module, &authority.sign(&module.digest(), &[]), JWS);
    let (cosign, name) = (pair.cosign(&module.digest()), format!("t:{}.sig", tag(&module.digest())));
    let directory = layout(&[("t:1", &module), ("signature", &notation), (&name, &cosign)]);
    let at = || Endpoint::new(Location::Layout(directory.path().to_owned()));
    for signers in [authority.certificate(), pair.public] {
        assert_eq!(forgetful().pull(&signed_by(at(), &signers), "t:1").await.unwrap().bytes, WASM);
    }
    let error = refusal(&forgetful(), &signed_by(at(), &Authority::new().certificate()), "t:1").await;
    assert!(matches!(cause_of(&error), Cause::Untrusted { .. }), "{error:?}");
    let bare = layout(&[("t:1", &module)]);
    let endpoint = Endpoint::new(Location::Layout(bare.path().to_owned()));
    let error = refusal(&forgetful(), &signed_by(endpoint, &authority.certificate()), "t:1").await;
    assert!(matches!(cause_of(&error), Cause::Unsigned { .. }), "{error:?}");
}

#[tokio::test]
async fn what_the_cache_holds_is_used_only_with_a_signature_that_counts_now() {
    let mut docker = Docker::open().await;
    let (module, authority) = (artifact::module(WASM), Authority::new());
    let signature = attached(&module, &authority.sign(&module.digest(), &[]), JWS);
    push_signatures(&docker, &module, &[&signature]).await;
    docker.push("unsigned", "1", &module).await;
    let directory = tempfile::tempdir().unwrap();
    let signed = signed_by(docker.endpoint(), &authority.certificate());
    let by_digest = format!("t@{}", module.digest());
    caching(directory.path()).pull(&docker.endpoint(), "unsigned:1").await.unwrap();
    caching(directory.path()).pull(&signed, "t:1").await.unwrap();
    caching(directory.path()).pull(&signed, &by_digest).await.unwrap();

    docker.stop();
    for reference in ["t:1", &by_digest] {
        let pulled = caching(directory.path()).pull(&signed, reference).await.unwrap();
        assert_eq!((pulled.bytes.as_ref(), pulled.from_cache), (WASM, true), "{reference}");
        // Whoever trusts others now does not get it, and is told that the registry is away.
        let others = signed_by(docker.endpoint(), &Authority::new().certificate());
        let error = refusal(&caching(directory.path()), &others, reference).await;
        assert!(matches!(cause_of(&error), Cause::Unreachable { .. }), "{error:?}");
    }
    // It was pulled when nobody asked for signatures.
    let error = refusal(&caching(directory.path()), &signed, "unsigned:1").await;
    assert!(matches!(cause_of(&error), Cause::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn what_cannot_be_trusted_closes_the_endpoint() {
    let docker = Docker::open().await;
    docker.push("t", "1", &artifact::module(WASM)).await;
    let pair = KeyPair::new(&["-algorithm", "ED25519"]);
    let private = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let cases = [
        (String::new(), "holds neither a certificate nor a public key"),
        ("nonsense".to_owned(), "holds neither a certificate nor a public key"),
        (String::from_utf8(pair.public).unwrap() + private, "holds a private key"),
        (broken.to_owned(), "holds a certificate (number 1) that cannot be used"),
    ];
    for (signers, why) in cases {
        let error = refusal(&forgetful(), &signed_by(docker.endpoint(), signers.as_bytes()), "t:1").await;
        assert!(matches!(cause_of(&error), Cause::Untrusted { .. }), "{error:?}");
        assert!(error.to_string().contains(why), "{error}");
    }
}
