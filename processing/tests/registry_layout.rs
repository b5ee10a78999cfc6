//! An OCI image layout directory as a registry.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod registry_support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use processing::registry::{Cause, Digest, Endpoint, Location};
use registry_support::artifact;
use registry_support::layout::{blob_file, layout, write_index};
use registry_support::{cause_of, forgetful, refusal, run};
use serde_json::json;

const WASM: &[u8] = b"\0asm\x0d\0\x01\0 fahrenheit to celsius";
const YAML: &[u8] = b"moduleRequirements: {}\n";

fn at(directory: &Path) -> Endpoint {
    Endpoint::new(Location::Layout(directory.to_owned()))
}

#[tokio::test]
async fn a_layout_serves_its_artifacts_by_name_tag_and_digest() {
    let (module, graph) = (artifact::module(WASM), artifact::graph(YAML));
    let directory = layout(&[("temperature:1.0.0", &module), ("samples/graph-simple:1.0.0", &graph)]);
    let endpoint = Endpoint::new(format!("oci-layout:{}", directory.path().display()).parse().unwrap());
    let pulled = forgetful().pull(&endpoint, "temperature:1.0.0").await.unwrap();
    assert_eq!((pulled.bytes.as_ref(), pulled.media_type.as_str()), (WASM, "application/wasm"));
    assert_eq!((&pulled.manifest_digest, pulled.digest.clone()), (&module.digest(), Digest::of(WASM)));
    assert_eq!(pulled.reference, format!("oci-layout:{}/temperature:1.0.0", directory.path().display()));
    assert!(!pulled.from_cache);
    let pulled = forgetful().pull(&endpoint, "samples/graph-simple:1.0.0").await.unwrap();
    assert_eq!(pulled.bytes, YAML);
    let pulled = forgetful().pull(&endpoint, &format!("temperature@{}", module.digest())).await.unwrap();
    assert_eq!(pulled.bytes, WASM);
}

#[tokio::test]
async fn a_bare_tag_answers_where_the_layout_holds_one_name() {
    let (one, two) = (artifact::old(WASM), artifact::old(b"newer"));
    let directory = layout(&[("1.0.0", &one), ("1.1.0", &two)]);
    let pulled = forgetful().pull(&at(directory.path()), "temperature:1.1.0").await.unwrap();
    assert_eq!(pulled.bytes, "newer");

    let directory = layout(&[("1.0.0", &one), ("humidity:1.0.0", &two)]);
    let error = refusal(&forgetful(), &at(directory.path()), "temperature:1.0.0").await;
    assert!(matches!(cause_of(&error), Cause::NotFound { .. }), "{error:?}");
}

#[tokio::test]
async fn what_is_not_in_the_layout_is_told_with_what_is() {
    let directory = layout(&[("temperature:1.0.0", &artifact::module(WASM))]);
    for reference in ["temperature:2.0.0", "temperature", "humidity:1.0.0"] {
        let error = refusal(&forgetful(), &at(directory.path()), reference).await;
        assert!(matches!(cause_of(&error), Cause::NotFound { .. }), "{error:?}");
        assert!(error.to_string().contains("the layout holds temperature:1.0.0"), "{error}");
    }
    let error =
        refusal(&forgetful(), &at(directory.path()), &format!("temperature@{}", Digest::of(WASM))).await;
    assert!(matches!(cause_of(&error), Cause::NotFound { .. }), "a layer is no manifest: {error:?}");
}

#[tokio::test]
async fn a_layout_written_by_skopeo_is_read() {
    let source = layout(&[("temperature:1.0.0", &artifact::module(WASM))]);
    let copy = tempfile::tempdir().unwrap();
    let from = format!("oci:{}:temperature:1.0.0", source.path().display());
    let to = format!("oci:{}:renamed:2.0.0", copy.path().display());
    run("skopeo", &["copy", "--quiet", "--preserve-digests", &from, &to]);
    let pulled = forgetful().pull(&at(copy.path()), "renamed:2.0.0").await.unwrap();
    assert_eq!(pulled.bytes, WASM);
}

#[tokio::test]
async fn damaged_content_is_refused() {
    let module = artifact::module(WASM);
    let damage: [(&str, &[u8], &[u8]); 3] = [
        ("changed", WASM, b"\0asm\x0d\0\x01\0 fahrenheit to kelvins"),
        ("cut", WASM, &WASM[..10]),
        ("manifest", &module.manifest, b"{\"schemaVersion\":2}"),
    ];
    for (what, original, damaged) in damage {
        let directory = layout(&[("t:1", &module)]);
        fs::write(blob_file(directory.path(), original), damaged).unwrap();
        let error = refusal(&forgetful(), &at(directory.path()), "t:1").await;
        assert!(matches!(cause_of(&error), Cause::DigestMismatch { .. }), "{what}: {error:?}");
    }
}

#[tokio::test]
async fn a_layout_that_is_incomplete_says_which_file_is_missing() {
    let module = artifact::module(WASM);
    let layer = format!("blobs/sha256/{}", Digest::of(WASM).hex());
    for file in ["oci-layout", "index.json", layer.as_str()] {
        let directory = layout(&[("t:1", &module)]);
        fs::remove_file(directory.path().join(file)).unwrap();
        let error = refusal(&forgetful(), &at(directory.path()), "t:1").await;
        assert!(matches!(cause_of(&error), Cause::Layout { .. }), "{error:?}");
        assert!(error.to_string().contains(file), "{error}");
    }
    let error = refusal(&forgetful(), &at(Path::new("no/such/directory")), "t:1").await;
    assert!(error.to_string().contains("no/such/directory"), "{error}");
}

#[tokio::test]
async fn a_layout_of_another_kind_is_refused() {
    for (file, content) in [
        ("oci-layout", r#"{"imageLayoutVersion":"2.0.0"}"#),
        ("oci-layout", "{}"),
        ("index.json", "[]"),
        ("index.json", r#"{"schemaVersion":2,"manifests":[{"digest":"sha256:../../../etc/passwd"}]}"#),
    ] {
        let directory = layout(&[("t:1", &artifact::module(WASM))]);
        fs::write(directory.path().join(file), content).unwrap();
        refusal(&forgetful(), &at(directory.path()), "t:1").await;
    }
}

#[tokio::test]
async fn nothing_outside_the_layout_is_read() {
    let module = artifact::module(WASM);
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret");
    fs::write(&secret, WASM).unwrap();

    let directory = layout(&[("t:1", &module)]);
    let file = blob_file(directory.path(), WASM);
    fs::remove_file(&file).unwrap();
    symlink(&secret, &file).unwrap();
    let error = refusal(&forgetful(), &at(directory.path()), "t:1").await;
    assert!(error.to_string().contains("leads out of the layout"), "{error}");

    let mut entry = artifact::descriptor(artifact::IMAGE, b"");
    entry["digest"] = json!(format!("sha256:../../{}", secret.display()));
    entry["annotations"] = json!({"org.opencontainers.image.ref.name": "t:1"});
    write_index(directory.path(), &[entry]);
    let error = refusal(&forgetful(), &at(directory.path()), "t:1").await;
    assert!(error.to_string().contains("is no digest"), "{error}");
}

#[tokio::test]
async fn a_link_to_the_layout_and_links_within_it_are_followed() {
    let directory = layout(&[("t:1", &artifact::module(WASM))]);
    let file = blob_file(directory.path(), WASM);
    let moved = directory.path().join("moved");
    fs::rename(&file, &moved).unwrap();
    symlink(&moved, &file).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let link = elsewhere.path().join("link");
    symlink(directory.path(), &link).unwrap();
    assert_eq!(forgetful().pull(&at(&link), "t:1").await.unwrap().bytes, WASM);
}

#[tokio::test]
async fn a_pipe_in_place_of_a_file_does_not_hold_anybody_up() {
    let directory = layout(&[("t:1", &artifact::module(WASM))]);
    let file = blob_file(directory.path(), WASM);
    fs::remove_file(&file).unwrap();
    assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
    let registry = forgetful();
    let endpoint = at(directory.path());
    let pull = tokio::time::timeout(Duration::from_secs(5), refusal(&registry, &endpoint, "t:1"));
    let error = pull.await.unwrap();
    assert!(error.to_string().contains("no regular file"), "{error}");
}

#[tokio::test]
async fn sizes_are_limited() {
    let directory = layout(&[("t:1", &artifact::module(WASM))]);
    let mut endpoint = at(directory.path());
    endpoint.limits.blob_bytes_max = WASM.len() as u64 - 1;
    let error = refusal(&forgetful(), &endpoint, "t:1").await;
    assert!(matches!(cause_of(&error), Cause::TooLarge { setting: "blob_bytes_max", .. }), "{error:?}");
    endpoint.limits.blob_bytes_max += 1;
    endpoint.limits.manifest_bytes_max = 64;
    let error = refusal(&forgetful(), &endpoint, "t:1").await;
    assert!(matches!(cause_of(&error), Cause::TooLarge { setting: "manifest_bytes_max", .. }), "{error:?}");
}
