//! `forebay new operator` makes projects that build and pass their own first test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use forebay_tests::{forebay, operators, process, repository};
use tempfile::TempDir;

/// `forebay ARGUMENTS` in `folder`: its exit code, and all it printed.
fn forebay(folder: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = forebay::command(arguments);
    command.current_dir(folder).env("CARGO_TARGET_DIR", target());
    let (status, output) = process::run(command);
    (status.code(), output)
}

fn makes(folder: &Path, arguments: &[&str]) -> PathBuf {
    let (code, output) = forebay(folder, &[&["new", "operator"], arguments].concat());
    assert_eq!(code, Some(0), "{output}");
    folder.join(arguments[0])
}

/// One folder for everything that is built here, so that dependencies are built once.
fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("operators")
}

/// `cargo build --release --target wasm32-wasip2`, as a project's README says.
fn builds(project: &Path) {
    // Sees to it that there is a toolchain.
    operators::directory();
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "--quiet", "--release", "--target", "wasm32-wasip2"]);
    command.current_dir(project).env("CARGO_TARGET_DIR", target());
    let own = repository().join(".tools/wasm/bin/rustc");
    if own.exists() {
        command.env("RUSTC", own);
    }
    let mut process = process::Process::start(command);
    // The dependencies are built, too, the first time.
    let begun = std::time::Instant::now();
    let status = loop {
        match process.ended() {
            Some(status) => break status,
            None if begun.elapsed().as_secs() > 900 => panic!("cargo does not end"),
            None => std::thread::sleep(std::time::Duration::from_millis(50)),
        }
    };
    assert!(status.success(), "{}", process.output());
}

/// As rustfmt would have it without anybody's configuration.
fn is_formatted(project: &Path) {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["fmt", "--check"]).current_dir(project);
    let (status, output) = process::run(command);
    assert!(status.success(), "{output}");
}

fn passes(project: &Path) {
    let (code, output) = forebay(project, &["test", "."]);
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("1 test passed, 0 failed"), "{output}");
}

#[test]
fn a_project_of_each_kind_builds_passes_its_test_and_runs() {
    let folder = TempDir::new().unwrap();
    for kind in ["map", "filter", "branch", "accumulate", "delay"] {
        let name = format!("new{kind}");
        let project = makes(folder.path(), &[&name, "--kind", kind]);
        is_formatted(&project);
        builds(&project);
        passes(&project);
        let (code, output) =
            forebay(&project, &["run", "graph.yaml", "--input", "test/input.jsonl", "--payload"]);
        assert_eq!(code, Some(0), "{output}");
        // The test that it passes is one that can fail.
        let input = project.join("test/expected.jsonl");
        let expected = fs::read_to_string(&input).unwrap();
        fs::write(&input, expected.lines().next().unwrap()).unwrap();
        let (code, output) = forebay(&project, &["test", "."]);
        assert_eq!(code, Some(1), "{output}");
    }
}

/// Written into a project in place of its operator.
const LOOKS_UP: &str = r#"
use wasm_graph_sdk::macros::map_operator;
use wasm_graph_sdk::state_store;

#[map_operator()]
fn look_up(input: DataModel) -> Result<DataModel, Error> {
    let DataModel::Message(mut message) = input else { panic!("only messages") };
    let key = message.payload.read();
    let found = state_store::get(&key, None).map_err(|error| Error { message: format!("{error:?}") })?;
    let value = found.response.unwrap_or_else(|| b"nothing".to_vec());
    state_store::set(&key, b"seen", None, None, Default::default())
        .map_err(|error| Error { message: format!("{error:?}") })?;
    message.payload = BufferOrBytes::Bytes(value);
    Ok(DataModel::Message(message))
}
"#;

#[test]
fn the_state_store_holds_what_the_test_says_and_nothing_of_another_test() {
    let folder = TempDir::new().unwrap();
    let project = makes(folder.path(), &["lookup", "--kind", "map"]);
    fs::write(project.join("src/lib.rs"), LOOKS_UP).unwrap();
    builds(&project);
    let write = |name: &str, text: &str| fs::write(project.join(name), text).unwrap();
    fs::remove_file(project.join("lookup.test.yaml")).unwrap();
    write(
        "keys.jsonl",
        "{\"payloadText\":\"site\"}\n{\"payloadText\":\"line\"}\n{\"payloadText\":\"site\"}\n",
    );
    write("values.json", r#"["A", "nothing", "seen"]"#);
    write("store.json", r#"[{"site":"A"},{"other":"B"}]"#);
    let descriptor = |store: &str| {
        format!(
            "name: looked up\ngraph: graph.yaml\ninput: keys.jsonl\nexpected: values.json\nstateStore: {store}\n"
        )
    };
    // Each would fail if it saw what the one before has set.
    write("a.test.yaml", &descriptor("{site: A}"));
    write("b.test.yaml", &descriptor("{site: A}"));
    write("c.test.yaml", &descriptor("store.json"));
    let (code, output) = forebay(&project, &["test", "."]);
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("3 tests passed"), "{output}");
    let arguments = ["run", "graph.yaml", "--input", "keys.jsonl", "--payload", "--state", "line=L"];
    let (code, output) = forebay(&project, &arguments);
    assert_eq!(code, Some(0), "{output}");
    let lines: Vec<&str> = output.lines().filter(|line| !line.starts_with("forebay:")).collect();
    assert_eq!(lines, ["nothing", "L", "seen"], "{output}");
    write("c.test.yaml", &descriptor("none.json"));
    let (code, output) = forebay(&project, &["test", "c.test.yaml"]);
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("c.test.yaml:5:13") && output.contains("none.json"), "{output}");
}

/// Refuses to start without a schema, and answers with what it was given.
const KNOWS_SCHEMA: &str = r#"
use std::sync::OnceLock;
use wasm_graph_sdk::macros::map_operator;

static SCHEMA: OnceLock<String> = OnceLock::new();

fn start(configuration: ModuleConfiguration) -> bool {
    let [schema] = configuration.module_schemas.as_slice() else { return false };
    SCHEMA.set(format!("[\"{}\",\"{}\",{}]", schema.name, schema.content_type, schema.content)).is_ok()
}

#[map_operator(init = "start")]
fn answer(input: DataModel) -> Result<DataModel, Error> {
    let DataModel::Message(mut message) = input else { panic!("only messages") };
    message.payload = BufferOrBytes::Bytes(SCHEMA.get().unwrap().clone().into_bytes());
    Ok(DataModel::Message(message))
}
"#;

#[test]
fn operators_get_the_schema_that_the_test_names() {
    let folder = TempDir::new().unwrap();
    let project = makes(folder.path(), &["knows", "--kind", "map"]);
    fs::write(project.join("src/lib.rs"), KNOWS_SCHEMA).unwrap();
    builds(&project);
    let write = |name: &str, text: &str| fs::write(project.join(name), text).unwrap();
    let descriptor = "name: n\ngraph: graph.yaml\ninput: input.json\nexpected: expected.json\n";
    write("input.json", "1");
    write("expected.json", r#"{"payload":["readings","JsonSchema/draft-07",{"type":"object"}]}"#);
    write("readings.json", r#"{"type":"object"}"#);
    write("knows.test.yaml", &format!("{descriptor}schema: readings.json\n"));
    passes(&project);
    let arguments = ["run", "graph.yaml", "--input", "input.json", "--payload", "--schema", "readings.json"];
    let (code, output) = forebay(&project, &arguments);
    assert_eq!(code, Some(0), "{output}");
    assert!(output.lines().any(|line| line.starts_with("[\"readings\"")), "{output}");
    write("knows.test.yaml", descriptor);
    let (code, output) = forebay(&project, &["test", "."]);
    assert_eq!(code, Some(1), "{output}");
    assert!(
        output.contains("operation `module-knows/map`") && output.contains("init returned false"),
        "{output}"
    );
    write("knows.test.yaml", &format!("{descriptor}schema: none.json\n"));
    let (code, output) = forebay(&project, &["test", "."]);
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("knows.test.yaml:5:9") && output.contains("none.json: No such file"), "{output}");
}

#[test]
fn a_project_can_use_an_sdk_that_is_there() {
    let folder = TempDir::new().unwrap();
    let sdk = repository().join("processing/sdk");
    let project = makes(folder.path(), &["outside", "--kind", "map", "--sdk", sdk.to_str().unwrap()]);
    assert!(!project.join("sdk").exists());
    builds(&project);
    passes(&project);
    let arguments = ["new", "operator", "other", "--kind", "map", "--sdk", "outside"];
    let (code, output) = forebay(folder.path(), &arguments);
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("not the crate wasm_graph_sdk"), "{output}");
    assert!(!folder.path().join("other").exists());
}

#[test]
fn a_name_that_will_not_do_is_refused_with_the_reason_and_nothing_is_made() {
    let folder = TempDir::new().unwrap();
    for (name, why) in [
        ("my-map", "Azure IoT Operations"),
        ("my_map", "Azure IoT Operations"),
        ("Map", "lower-case"),
        ("../up", "lower-case"),
        ("fn", "Rust or Cargo"),
    ] {
        let (code, output) = forebay(folder.path(), &["new", "operator", name, "--kind", "map"]);
        assert_eq!(code, Some(1), "{output}");
        assert!(output.contains(why), "{output}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_folder_that_is_there_is_left_as_it_is() {
    let folder = TempDir::new().unwrap();
    fs::create_dir(folder.path().join("mine")).unwrap();
    let (code, output) = forebay(folder.path(), &["new", "operator", "mine", "--kind", "map"]);
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("there already"), "{output}");
    assert_eq!(fs::read_dir(folder.path().join("mine")).unwrap().count(), 0);
}
