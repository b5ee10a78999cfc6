//! What is right and wrong in a test descriptor, with the exact place and words.
// Helpers of tests may fail as tests do.
#![allow(clippy::expect_used, clippy::panic)]

use forebay_config::descriptor::StateStoreFixture;
use forebay_config::test_descriptor;

const BASE: &str = "\
name: n
graph: g.yaml
input: in
expected: out.json
";

#[track_caller]
fn lines(text: &str) -> Vec<String> {
    match test_descriptor("a.test.yaml", text) {
        Ok(_) => Vec::new(),
        Err(findings) => findings.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn what_aio_documents_is_read_with_its_defaults() {
    let text = format!("{BASE}timeout: 180000\nselect: [\"payload\"]\nignores:\n  - payload.a\n");
    let read = test_descriptor("a.test.yaml", &text).expect("it is right");
    assert_eq!(
        (read.timeout_ms, read.select.len(), read.ignores[0].value.as_str()),
        (180_000, 1, "payload.a")
    );
    let read = test_descriptor("a.test.yaml", BASE).expect("it is right");
    assert_eq!((read.timeout_ms, read.select.len(), read.ignores.len()), (60_000, 0, 0));
    assert_eq!((read.name.as_str(), read.graph.value.as_str()), ("n", "g.yaml"));
}

#[test]
fn configuration_and_state_are_read() {
    let text = format!("{BASE}configuration:\n  - key: k\n    value: v\nstateStore:\n  a: \"1\"\n");
    let read = test_descriptor("a.test.yaml", &text).expect("it is right");
    assert_eq!((read.configuration[0].key.value.as_str(), read.configuration[0].value.as_str()), ("k", "v"));
    let Some(StateStoreFixture::Entries(entries)) = read.state_store.map(|fixture| fixture.value) else {
        panic!("a mapping is entries");
    };
    assert_eq!(entries.get("a").map(String::as_str), Some("1"));
    let read = test_descriptor("a.test.yaml", &format!("{BASE}stateStore: s.json\n")).expect("it is right");
    assert_eq!(
        read.state_store.map(|fixture| fixture.value),
        Some(StateStoreFixture::File("s.json".to_owned()))
    );
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    for (text, finding) in [
        (format!("{BASE}selects: []\n"), "5:1: error: unknown field `selects`, did you mean `select`?"),
        (BASE.replace("input: in\n", ""), "1:1: error: missing field `input`"),
        (
            format!("{BASE}timeout: 0\n"),
            "5:10: error: `timeout` must be a whole number from 1 to 3600000, but is 0",
        ),
        (
            format!("{BASE}timeout: 5s\n"),
            "5:10: error: `timeout` must be a whole number from 1 to 3600000, but is a string",
        ),
        (
            format!("{BASE}stateStore: {{a: 1}}\n"),
            "5:17: error: `stateStore.a` must be a string, but `1` is a number in YAML; quote it: \"1\"",
        ),
        (
            format!("{BASE}stateStore: [a]\n"),
            "5:13: error: `stateStore` must be a mapping of keys to values, or the path of a JSON file, but is a list",
        ),
        (
            format!("{BASE}---\n{BASE}"),
            "6:1: error: a test descriptor is one document, and here a second one begins",
        ),
        (String::new(), "1:1: error: the test descriptor is empty"),
    ] {
        assert_eq!(lines(&text), [format!("a.test.yaml:{finding}")], "{text}");
    }
}
