//! `forebay test` carries test descriptors out and tells what differs; `forebay run` prints what comes out of a graph.

use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use forebay_tests::resources::{Resources, map_graph, with_parameters};
use forebay_tests::{forebay, operators, process, repository};
use tempfile::TempDir;

const READING: &str = r#"{"temperature":{"value":100.0,"unit":"F"}}"#;

/// Files of one test; the graph converts Fahrenheit to Celsius.
fn files() -> Resources {
    Resources::default()
        .with("graph.yaml", &map_graph("module-temperature/map", "temperature:1.0.0"))
        .with("input.json", READING)
        .with("expected.json", r#"{"temperature":{"value":37.77777777777778,"unit":"C"}}"#)
}

const DESCRIPTOR: &str = "\
name: converted
graph: graph.yaml
input: input.json
expected: expected.json
select: [temperature.value, temperature.unit]
";

/// `forebay test` with the sample operators: its exit code, and all it printed.
fn test(path: &Path) -> (Option<i32>, String) {
    let arguments: [&OsStr; 4] =
        ["test".as_ref(), path.as_ref(), "--operators".as_ref(), operators::directory().as_ref()];
    let (status, output) = forebay::run(arguments);
    (status.code(), output)
}

/// `forebay run` with `input` on standard input.
fn run(arguments: &[&str], input: &str) -> Output {
    let mut command = forebay::command(["run"]);
    command.args(arguments).arg("--operators").arg(operators::directory());
    fed(command, input)
}

fn fed(mut command: Command, input: &str) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("forebay starts");
    let mut stdin = child.stdin.take().expect("piped");
    // What ends before it has read everything is judged by what it says.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().expect("forebay ends")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_tests_of_the_sample_graphs_pass() {
    let (code, output) = test(&repository().join("config/samples/tests"));
    assert_eq!(code, Some(0), "{output}");
    let descriptors = std::fs::read_dir(repository().join("config/samples/tests")).unwrap();
    let descriptors = descriptors
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".test.yaml"));
    let passed = format!("{} tests passed, 0 failed", descriptors.count());
    assert!(output.contains(&passed), "{passed} in {output}");
}

#[test]
fn a_test_that_passes_is_a_line_and_ends_with_0() {
    let files = files().with("one.test.yaml", DESCRIPTOR);
    let (code, output) = test(files.path());
    assert_eq!(code, Some(0), "{output}");
    assert!(output.lines().any(|line| line.starts_with("ok   converted (")), "{output}");
    assert!(output.contains("1 test passed, 0 failed"), "{output}");
    assert!(!output.contains('\x1b'), "no colours where there is no terminal: {output:?}");
}

#[test]
fn a_test_that_fails_shows_what_differs_and_ends_with_1() {
    let files = files()
        .with("expected.json", r#"{"temperature":{"value":37,"unit":"C"}}"#)
        .with("one.test.yaml", DESCRIPTOR);
    let (code, output) = test(files.path());
    assert_eq!(code, Some(1), "{output}");
    let lines: Vec<&str> = output.lines().map(str::trim).collect();
    for line in ["-     \"value\": 37", "+     \"value\": 37.77777777777778", "\"unit\": \"C\","] {
        assert!(lines.contains(&line), "{line:?} in\n{output}");
    }
    assert!(output.contains("FAIL converted"), "{output}");
    assert!(output.contains("0 tests passed, 1 failed"), "{output}");
}

#[test]
fn a_message_that_does_not_come_out_is_explained_where_it_is_missed() {
    let files = files().with("input.json", "no JSON").with("one.test.yaml", DESCRIPTOR);
    let (code, output) = test(files.path());
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("1 message expected, 0 came out"), "{output}");
    let why = "message 1 (sensors) dropped at module-temperature/map: Failed to parse payload as JSON";
    assert!(output.contains(why), "{output}");
}

#[test]
fn one_bad_test_keeps_no_other_from_being_carried_out() {
    let files = files().with("a.test.yaml", "name: [").with("b.test.yaml", DESCRIPTOR);
    let (code, output) = test(files.path());
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("a.test.yaml:1:") && output.contains("1 test passed, 1 failed"), "{output}");
}

#[test]
fn an_unknown_field_is_named_with_file_and_line() {
    let files = files().with("one.test.yaml", &DESCRIPTOR.replace("select:", "selects:"));
    let (code, output) = test(files.path());
    assert_eq!(code, Some(1), "{output}");
    let place = format!(
        "{}:5:1: error: unknown field `selects`, did you mean `select`?",
        files.file("one.test.yaml").display()
    );
    assert!(output.contains(&place), "{place} in\n{output}");
}

#[test]
fn what_a_descriptor_names_and_what_is_not_there_is_told_with_its_line() {
    for (from, to, line, why) in [
        ("graph: graph.yaml", "graph: none.yaml", 2, "none.yaml"),
        ("input: input.json", "input: none", 3, "none: No such file"),
        ("expected: expected.json", "expected: none.json", 4, "none.json: No such file"),
        (
            "temperature.unit]",
            "temperature.units]",
            5,
            "`temperature.units`, which nothing that is expected has",
        ),
    ] {
        let files = files().with("one.test.yaml", &DESCRIPTOR.replace(from, to));
        let (code, output) = test(files.path());
        assert_eq!(code, Some(1), "{output}");
        assert!(
            output.contains(&format!("one.test.yaml:{line}:")) && output.contains(why),
            "{why} in\n{output}"
        );
    }
    let configured = format!("{DESCRIPTOR}configuration:\n  - key: nothing\n    value: x\n");
    let (code, output) = test(files().with("one.test.yaml", &configured).path());
    assert_eq!(code, Some(1), "{output}");
    assert!(
        output.contains("one.test.yaml:7:10: error: no operation of the graph has a parameter `nothing`"),
        "{output}"
    );
}

#[test]
fn a_missing_operator_is_named_with_the_places_where_it_was_looked_for() {
    let files = files()
        .with("graph.yaml", &map_graph("module-absent/map", "samples/absent:1.0.0"))
        .with("one.test.yaml", DESCRIPTOR);
    let (status, output) = forebay::run(["test".as_ref(), files.path().as_os_str()]);
    assert_eq!(status.code(), Some(1), "{output}");
    assert!(output.contains("module `samples/absent:1.0.0` of operation `module-absent/map`"), "{output}");
    assert!(output.contains("`absent.wasm` or `absent-1.0.0.wasm`"), "{output}");
    let beside = files.path().canonicalize().unwrap();
    assert!(output.contains(&beside.display().to_string()), "the graph's own folder, in\n{output}");
}

#[test]
fn where_there_is_no_test_that_is_an_error() {
    let empty = TempDir::new().unwrap();
    let (code, output) = test(empty.path());
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("no test descriptor"), "{output}");
}

#[test]
fn operators_come_from_a_registry_or_an_image_layout_by_their_reference() {
    let registry = operators::sample_registry();
    let files = files().with("one.test.yaml", DESCRIPTOR);
    for host in [registry.addr.to_string(), "oci:config/samples/registry".to_owned()] {
        let (status, output) =
            forebay::run(["test".as_ref(), files.path().as_os_str(), "--registry".as_ref(), host.as_ref()]);
        assert_eq!(status.code(), Some(0), "{output}");
    }
    let absent = files.with("graph.yaml", &map_graph("module-absent/map", "absent:1.0.0"));
    let (status, output) = forebay::run([
        "test".as_ref(),
        absent.path().as_os_str(),
        "--registry".as_ref(),
        registry.addr.to_string().as_ref(),
    ]);
    assert_eq!(status.code(), Some(1), "{output}");
    assert!(output.contains(&format!("{}/absent:1.0.0", registry.addr)), "{output}");
}

#[test]
fn run_takes_a_graph_from_the_registry_too() {
    let mut command = forebay::command(["run", "graph-simple:1.0.0", "--input", "-", "--payload"]);
    command.args(["--registry", "oci:config/samples/registry"]);
    let output = fed(command, READING);
    assert!(text(&output.stdout).contains("37.77777777777778"), "{}", text(&output.stderr));
    let mut command = forebay::command(["run", "absent:1.0.0", "--input", "-"]);
    command.args(["--registry", "oci:config/samples/registry"]);
    let output = fed(command, READING);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("absent:1.0.0"), "{}", text(&output.stderr));
}

#[test]
fn a_value_from_the_command_line_wins_and_one_that_nobody_wants_is_an_error() {
    let files = Resources::default()
        .with("graph.yaml", &operators::graph("graph-plausible"))
        .with("input.json", r#"{"temperature":{"value":30.0,"unit":"C"}}"#)
        .with("expected.json", "[]")
        .with(
            "one.test.yaml",
            "name: cold\ngraph: graph.yaml\ninput: input.json\nexpected: expected.json\n\
             configuration: [{key: temperature_upper_bound, value: \"20\"}]\n",
        );
    let with = |set: &str| {
        let mut command = forebay::command(["test", "--set", set]);
        command.arg(files.path()).arg("--operators").arg(operators::directory());
        let (status, output) = process::run(command);
        (status.code(), output)
    };
    assert_eq!(with("temperature_lower_bound=0").0, Some(0));
    assert_eq!(with("temperature_upper_bound=40").0, Some(1));
    let (code, output) = with("upper=1");
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("--set upper: no graph"), "{output}");
}

#[test]
fn colours_are_for_terminals() {
    let files = files().with("one.test.yaml", DESCRIPTOR);
    let command = format!(
        "{} test {} --operators {}",
        forebay::binary().display(),
        files.path().display(),
        operators::directory().display()
    );
    // A terminal of its own.
    let on_terminal = |colours: &str| {
        let mut script = Command::new("script");
        script.args(["--quiet", "--return", "--command", &command, "/dev/null"]).env("NO_COLOR", colours);
        process::run(script).1
    };
    assert!(on_terminal("").contains("\x1b[32mok  \x1b[0m converted"), "{:?}", on_terminal(""));
    assert!(!on_terminal("1").contains('\x1b'));
}

/// As AIO's test runner has it: payloads in strings, paths from the message down, a folder with a file a message.
#[test]
fn descriptors_written_for_azure_iot_operations_work_unchanged() {
    let files = files().with(
        "one.test.yaml",
        "name: \"Temperature\"\ngraph: \"./graph.yaml\"\ninput: \"./input\"\nexpected: \"./expected/expected.json\"\n\
         timeout: 180000\nselect: [\"topic\", \"payload\"]\nignores:\n  - \"payload.temperature.max\"\n",
    );
    std::fs::create_dir(files.file("input")).unwrap();
    std::fs::create_dir(files.file("expected")).unwrap();
    std::fs::write(files.file("input/reading.json"), READING).unwrap();
    let payload = r#"{\"temperature\":{\"value\":37.77777777777778,\"count\":0,\"max\":9,\"min\":0,\"average\":0,\"last\":0,\"unit\":\"C\",\"overtemp\":false}}"#;
    let expected = format!(r#"{{"topic":"sensors","payload":"{payload}"}}"#);
    std::fs::write(files.file("expected/expected.json"), expected).unwrap();
    let (code, output) = test(files.path());
    assert_eq!(code, Some(0), "{output}");
}

/// A graph whose one operation takes the messages of each timestamp together.
fn accumulating() -> String {
    map_graph("module-temperature/accumulate", "temperature:1.0.0")
        .replace("operationType: map", "operationType: accumulate")
}

fn celsius(timestamp: &str, value: f64) -> String {
    format!(r#"{{"timestamp":{timestamp},"payload":{{"temperature":{{"value":{value:?},"unit":"C"}}}}}}"#)
        + "\n"
}

#[test]
fn time_is_moved_by_hand_and_years_take_milliseconds() {
    let year_2100_ms = "4102444800000";
    let input = [
        celsius("1000", 20.0),
        celsius("1000", 25.0),
        celsius("\"1000:0:another\"", 15.0),
        celsius("2000", 1.0),
        // A second is allowed, as in a broker.
        celsius("1000", 30.0),
        celsius("2001", 2.0),
        // Late: the clock is past that.
        celsius("1000", 99.0),
        celsius(year_2100_ms, -1.0),
    ];
    let summary = |count: u32, max: f64, min: f64, average: f64, last: f64| {
        format!(
            r#"{{"temperature":{{"count":{count},"max":{max},"min":{min},"average":{average},"last":{last},"unit":"C"}}}}"#
        ) + "\n"
    };
    let expected = [
        summary(4, 30.0, 15.0, 22.5, 30.0),
        summary(1, 1.0, 1.0, 1.0, 1.0),
        summary(1, 2.0, 2.0, 2.0, 2.0),
        summary(1, -1.0, -1.0, -1.0, -1.0),
    ];
    let files = Resources::default()
        .with("graph.yaml", &accumulating())
        .with("input.jsonl", &input.concat())
        .with("expected.jsonl", &expected.concat())
        .with(
            "one.test.yaml",
            "name: windows\ngraph: graph.yaml\ninput: input.jsonl\nexpected: expected.jsonl\ntimeout: 5000\n",
        );
    let begun = Instant::now();
    let (code, output) = test(files.path());
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("1 message dropped"), "the late one: {output}");
    assert!(begun.elapsed() < Duration::from_secs(60));
}

#[test]
fn a_test_that_takes_longer_than_its_timeout_fails() {
    let graph = with_parameters(
        &map_graph("module-faults/map", "faults:1.0.0"),
        "module-faults/map",
        &["fault", "value"],
    );
    let descriptor = "name: slow\ngraph: graph.yaml\ninput: input.jsonl\nexpected: expected.json\ntimeout: 100\n\
        configuration:\n  - {key: fault, value: spin}\n  - {key: value, value: \"60\"}\n";
    let files = Resources::default()
        .with("graph.yaml", &graph)
        .with("input.jsonl", "1\n2\n3\n")
        .with("expected.json", "3")
        .with("one.test.yaml", descriptor);
    let (code, output) = test(files.path());
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("longer than 100ms"), "{output}");
}

#[test]
fn an_operator_that_crashed_is_back_for_the_next_message() {
    let graph = with_parameters(
        &map_graph("module-faults/map", "faults:1.0.0"),
        "module-faults/map",
        &["fault", "value"],
    );
    let files = Resources::default().with("graph.yaml", &graph);
    let graph = files.file("graph.yaml");
    let set = ["--set", "fault=trap", "--set", "value=13"];
    let arguments = [&[graph.to_str().unwrap(), "--input", "-", "--payload"], &set[..]].concat();
    let output = run(&arguments, "1\n13\n13\n2\n13\n3\n");
    assert_eq!(text(&output.stdout), "1\n2\n3\n", "{}", text(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "messages could not be processed");
    let said = text(&output.stderr);
    for number in [2, 3, 5] {
        let line = format!("message {number} (sensors) dropped at module-faults/map: the operator trapped");
        assert!(said.contains(&line), "{line} in\n{said}");
    }
    assert!(said.contains("6 messages in, 3 out, 0 filtered, 3 dropped"), "{said}");
}

#[test]
fn run_prints_a_line_of_json_a_message_that_can_be_read_again() {
    let graph = "config/samples/graphs/graph-plausible.yaml";
    let input = [
        r#"{"topic":"hall","timestamp":"1500:2:a","contentType":"text/json","userProperties":{"k":["1","2"],"j":"3"},"payload":{"humidity":{"value":1.50}}}"#,
        r#"{"temperature":{"value":-500,"unit":"C"}}"#,
    ]
    .join("\n");
    let output = run(&[graph, "--input", "-"], &input);
    assert_eq!(output.status.code(), Some(0), "what a filter drops is no error: {}", text(&output.stderr));
    let line = r#"{"topic":"hall","timestamp":"000000000001500:00002:a","contentType":"text/json","userProperties":{"j":"3","k":["1","2"]},"payload":{"humidity":{"value":1.50}}}"#;
    assert_eq!(text(&output.stdout), format!("{line}\n"));
    let said = text(&output.stderr);
    assert!(said.contains("message 2 (sensors) filtered at module-temperature/filter"), "{said}");
    assert!(said.contains("2 messages in, 1 out, 1 filtered, 0 dropped"), "{said}");
    let again = run(&[graph, "--input", "-"], &text(&output.stdout));
    assert_eq!(again.stdout, output.stdout);
}

#[test]
fn run_takes_a_folder_a_topic_and_values_for_parameters() {
    let folder = TempDir::new().unwrap();
    let write = |name: &str, payload: &str| std::fs::write(folder.path().join(name), payload).unwrap();
    write("02.json", r#"{"temperature":{"value":2.0,"unit":"C"}}"#);
    write("01.json", r#"{"temperature":{"value":1.0,"unit":"C"}}"#);
    write("03.json", r#"{"temperature":{"value":3.0,"unit":"C"}}"#);
    let input = folder.path().to_str().unwrap();
    let graph = "config/samples/graphs/graph-plausible.yaml";
    let output =
        run(&[graph, "--input", input, "--topic", "cellar", "--set", "temperature_lower_bound=1.5"], "");
    let lines = text(&output.stdout);
    let values: Vec<&str> = lines.lines().map(|line| line.split("\"value\":").nth(1).unwrap()).collect();
    assert_eq!(values.len(), 2, "{lines}{}", text(&output.stderr));
    assert!(values[0].starts_with("2.0") && values[1].starts_with("3.0"), "{lines}");
    assert!(lines.lines().all(|line| line.starts_with(r#"{"topic":"cellar""#)), "{lines}");
    let output = run(&[graph, "--input", input, "--set", "lower_bound=1"], "");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("no operation of"), "{}", text(&output.stderr));
}

#[test]
fn run_says_which_line_of_the_input_is_wrong() {
    let graph = "config/samples/graphs/graph-simple.yaml";
    for (input, why) in [
        ("{\n", "standard input:1: this is no JSON"),
        (
            "\n{\"payload\":1,\"tpoic\":\"x\"}\n",
            "standard input:2: the envelope cannot be used: unknown field `tpoic`",
        ),
    ] {
        let output = run(&[graph, "--input", "-"], input);
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains(why), "{why} in {}", text(&output.stderr));
    }
}

#[test]
fn a_timestamp_that_cannot_be_used_drops_its_message_and_no_other() {
    let graph = "config/samples/graphs/graph-simple.yaml";
    let bad = format!(r#"{{"userProperties":{{"__ts":"now"}},"payload":{READING}}}"#);
    let output = run(&[graph, "--input", "-", "--payload"], &format!("{bad}\n{READING}\n"));
    assert_eq!(text(&output.stdout).lines().count(), 1);
    let said = text(&output.stderr);
    assert!(said.contains("message 1 (sensors) dropped: its user property __ts cannot be used"), "{said}");
}

#[test]
fn bad_arguments_end_with_the_usage() {
    for arguments in
        [&["run"][..], &["run", "graph.yaml"], &["test", "--set", "novalue"], &["new", "operator", "x"]]
    {
        let (status, output) = forebay::run(arguments);
        assert_eq!(status.code(), Some(2), "{output}");
        assert!(output.contains("Usage: forebay") || output.contains("--help"), "{output}");
    }
}
