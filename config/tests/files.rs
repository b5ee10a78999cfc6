//! Which files are read, and what is told of those that cannot be.
// Helpers of tests may fail as tests do.
#![allow(clippy::expect_used, clippy::panic)]

mod support;

use forebay_config::{Loaded, load};
use std::fs;
use std::path::Path;
use support::{GRAPH, REGISTRY};
use tempfile::TempDir;

fn directory(files: &[(&str, &[u8])]) -> TempDir {
    let directory = tempfile::tempdir().expect("a directory can be made");
    for (name, content) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().expect("it lies in a directory")).expect("a directory can be made");
        fs::write(path, content).expect("a file can be written");
    }
    directory
}

fn lines(loaded: &Loaded, directory: &Path) -> Vec<String> {
    let prefix = format!("{}/", directory.display());
    loaded.findings.iter().map(|finding| finding.to_string().replace(&prefix, "")).collect()
}

fn load_all(files: &[(&str, &[u8])]) -> Vec<String> {
    let directory = directory(files);
    lines(&load(&[directory.path().to_owned()]), directory.path())
}

#[test]
fn a_directory_is_read_in_the_order_of_names() {
    let files: &[(&str, &[u8])] = &[
        ("b.yml", b"kind: 1\n"),
        ("a.yaml", b"kind: 2\n"),
        ("c/d.yaml", b"kind: 3\n"),
        (".hidden/e.yaml", b"kind: 4\n"),
        (".f.yaml", b"kind: 5\n"),
        ("g.txt", b"kind: 6\n"),
        ("h/oci-layout", b"{}"),
        ("h/i.yaml", b"kind: 7\n"),
    ];
    let errors: Vec<_> = load_all(files).into_iter().filter(|line| line.contains("quote it")).collect();
    assert_eq!(
        errors,
        [
            "a.yaml:1:7: error: `kind` must be a string, but `2` is a number in YAML; quote it: \"2\"",
            "b.yml:1:7: error: `kind` must be a string, but `1` is a number in YAML; quote it: \"1\"",
            "c/d.yaml:1:7: error: `kind` must be a string, but `3` is a number in YAML; quote it: \"3\"",
        ]
    );
}

#[test]
fn resources_of_several_files_refer_to_each_other() {
    let files: &[(&str, &[u8])] = &[("graph.yaml", GRAPH.as_bytes()), ("registry.yaml", REGISTRY.as_bytes())];
    let directory = directory(files);
    let loaded = load(&[directory.path().join("graph.yaml"), directory.path().join("registry.yaml")]);
    assert_eq!(lines(&loaded, directory.path()), [""; 0]);
    assert_eq!(loaded.plans().len(), 1);
}

#[test]
fn a_file_named_twice_is_read_once() {
    let directory = directory(&[("a.yaml", REGISTRY.as_bytes())]);
    let loaded = load(&[directory.path().join("a.yaml"), directory.path().to_owned()]);
    assert_eq!(lines(&loaded, directory.path()), [""; 0]);
    assert_eq!(loaded.resources.registries.len(), 1);
}

#[test]
fn a_second_definition_names_the_first() {
    let lines = load_all(&[("a.yaml", REGISTRY.as_bytes()), ("b.yaml", REGISTRY.as_bytes())]);
    assert_eq!(lines.len(), 1);
    assert!(
        lines[0].starts_with("b.yaml:2:7: error: RegistryEndpoint `my-registry` is defined twice; first at ")
    );
    assert!(lines[0].ends_with("a.yaml:2:7"));
}

#[test]
fn what_is_no_text_is_told_with_the_place() {
    assert_eq!(
        load_all(&[("a.yaml", b"kind: x\nab\xff\n")]),
        ["a.yaml:2:3: error: the file is not UTF-8 text"]
    );
}

#[test]
fn a_file_that_is_too_large_is_not_read() {
    let large = vec![b' '; 1024 * 1024 + 1];
    assert_eq!(load_all(&[("a.yaml", &large)]), ["a.yaml:1:1: error: the file is larger than 1048576 bytes"]);
}

#[test]
fn a_file_that_does_not_exist_is_told() {
    let loaded = load(&["no/such/file.yaml".into()]);
    assert_eq!(
        loaded.findings[0].to_string(),
        "no/such/file.yaml:1:1: error: the file cannot be read: No such file or directory (os error 2)"
    );
}

#[test]
fn a_broken_file_leaves_the_others() {
    let directory = directory(&[("a.yaml", b"a: [\n"), ("b.yaml", REGISTRY.as_bytes())]);
    let loaded = load(&[directory.path().to_owned()]);
    assert_eq!(lines(&loaded, directory.path()), ["a.yaml:1:4: error: no valid YAML: unclosed bracket '['"]);
    assert_eq!(loaded.resources.registries.len(), 1);
}

#[test]
#[cfg(unix)]
fn a_pipe_is_not_waited_for() {
    let directory = directory(&[]);
    let pipe = directory.path().join("p.yaml");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs");
    assert!(made.success());
    let loaded = load(std::slice::from_ref(&pipe));
    assert_eq!(lines(&loaded, directory.path()), ["p.yaml:1:1: error: the file is no regular file"]);
}

#[test]
fn json_in_a_directory_is_read_when_it_is_a_resource() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
    write("schema.json", r#"{"$schema": "Delta/1.0", "type": "object"}"#);
    write(
        "profile.json",
        r#"{"type": "Microsoft.IoTOperations/instances/dataflowProfiles", "name": "inst/many", "properties": {"instanceCount": 3}}"#,
    );
    write(
        "one.json",
        r#"{"apiVersion": "connectivity.iotoperations.azure.com/v1", "kind": "DataflowProfile", "metadata": {"name": "one"}, "spec": {}}"#,
    );
    let loaded = load(&[directory.path().to_owned()]);
    assert!(loaded.findings.is_empty(), "{:?}", loaded.findings);
    let names: Vec<&str> = loaded.resources.profiles.iter().map(|profile| profile.id.name.as_str()).collect();
    assert_eq!(names, ["one", "many"]);
    write("broken.json", "{");
    assert!(load(&[directory.path().to_owned()]).has_errors(), "or it would be taken for gone");
}
