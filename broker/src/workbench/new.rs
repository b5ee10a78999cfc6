//! `forebay new operator`: a project that builds and passes its own first test.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::report::say;
use crate::cli::{NewOperator, OperatorKind};

include!(concat!(env!("OUT_DIR"), "/sdk.rs"));

/// Longest name.
const NAME_LEN_MAX: usize = 64;
/// Names that Cargo or Rust has a meaning for.
const TAKEN: &[&str] = &[
    "abstract",
    "alloc",
    "as",
    "async",
    "await",
    "become",
    "box",
    "break",
    "build",
    "const",
    "continue",
    "core",
    "crate",
    "deps",
    "do",
    "dyn",
    "else",
    "enum",
    "examples",
    "extern",
    "false",
    "final",
    "fn",
    "for",
    "gen",
    "if",
    "impl",
    "in",
    "incremental",
    "let",
    "loop",
    "macro",
    "match",
    "mod",
    "move",
    "mut",
    "override",
    "priv",
    "pub",
    "ref",
    "return",
    "self",
    "static",
    "std",
    "struct",
    "super",
    "test",
    "trait",
    "true",
    "try",
    "type",
    "typeof",
    "unsafe",
    "unsized",
    "use",
    "virtual",
    "where",
    "while",
    "yield",
];

/// Makes the project and says what to do next.
pub fn new(options: &NewOperator) -> ExitCode {
    match make(options) {
        Ok(()) => {
            let name = &options.name;
            say(&format!(
                "{name}/ is an operator project. Build and test it:\n\n  cd {name}\n  cargo build --release --target \
                 wasm32-wasip2\n  forebay test ."
            ));
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("forebay: {why}");
            ExitCode::FAILURE
        }
    }
}

fn make(options: &NewOperator) -> Result<(), String> {
    check_name(&options.name)?;
    let sdk = options.sdk.as_deref().map(given_sdk).transpose()?;
    let folder = PathBuf::from(&options.name);
    // Made first: a folder that is there already is somebody's.
    fs::create_dir(&folder).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => format!("{} is there already; nothing is changed", folder.display()),
        _ => format!("{}: {error}", folder.display()),
    })?;
    for (path, text) in files(options, sdk.as_deref()) {
        write(&folder.join(path), &text)?;
    }
    Ok(())
}

/// A name becomes a folder, a crate, a component's file, an artifact in a registry and part of an operation's name: it
/// must be right for all of them.
fn check_name(name: &str) -> Result<(), String> {
    let fail = |why: &str| Err(format!("`{}` is no name for an operator: {why}", name.escape_debug()));
    if name.contains(['-', '_']) {
        return fail(
            "Azure IoT Operations' tools do not find operators with `-` or `_` in their names; take lower-case \
             letters and digits only",
        );
    }
    if name.len() > NAME_LEN_MAX {
        return fail("it is longer than 64 letters");
    }
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        return fail("it must begin with a lower-case letter");
    }
    if !name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()) {
        return fail("it has lower-case letters and digits only, since registries take no others everywhere");
    }
    if TAKEN.contains(&name) {
        return fail("Rust or Cargo has a meaning for it");
    }
    Ok(())
}

/// The path of an SDK that is there, as Cargo.toml in the project's folder must have it.
fn given_sdk(path: &Path) -> Result<String, String> {
    let manifest = path.join("Cargo.toml");
    let text =
        fs::read_to_string(&manifest).map_err(|error| format!("--sdk {}: {error}", manifest.display()))?;
    if !text.lines().any(|line| line.trim() == "name = \"wasm_graph_sdk\"") {
        return Err(format!("--sdk {}: this is not the crate wasm_graph_sdk", manifest.display()));
    }
    let seen_from_project = if path.is_absolute() { path.to_owned() } else { Path::new("..").join(path) };
    match seen_from_project.to_str() {
        Some(path) => Ok(path.to_owned()),
        None => Err(format!("--sdk {}: the path is not UTF-8 text", path.display())),
    }
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    let parent = path.parent().map_or(Ok(()), fs::create_dir_all);
    parent.and_then(|()| fs::write(path, text)).map_err(|error| format!("{}: {error}", path.display()))
}

/// What is told about one kind.
struct Template {
    kind: &'static str,
    article: &'static str,
    does: &'static str,
    test: &'static str,
    parameter: &'static str,
    parameter_means: &'static str,
    /// Without a configuration.
    default: &'static str,
    /// In the test.
    value: &'static str,
    operations: &'static str,
    /// Path, text, and what it is.
    sources: &'static [(&'static str, &'static str, &'static str)],
    input: &'static str,
    expected: &'static str,
}

impl Template {
    /// With all that is said in braces replaced.
    fn fill(&self, text: &str, name: &str) -> String {
        let rows: Vec<String> =
            self.sources.iter().map(|(path, _, what)| format!("| `{path}` | {what} |")).collect();
        text.replace("{{operations}}", self.operations)
            .replace("{{sources}}", &rows.join("\n"))
            .replace("{{kind}}", self.kind)
            .replace("{{article}}", self.article)
            .replace("{{does}}", self.does)
            .replace("{{test}}", self.test)
            .replace("{{parameter}}", self.parameter)
            .replace("{{parameter_means}}", self.parameter_means)
            .replace("{{default}}", self.default)
            .replace("{{value}}", self.value)
            .replace("{{name}}", name)
    }
}

/// The project's files.
fn files(options: &NewOperator, sdk: Option<&str>) -> Vec<(PathBuf, String)> {
    let template = template(options.kind);
    let (workspace, row) = match sdk {
        Some(_) => ("", ""),
        None => (
            "# It is a workspace of its own.\nexclude = [\"sdk\"]\n",
            "| `sdk/` | the SDK this is built with, and the contract behind it |\n",
        ),
    };
    // Written as TOML has it, whatever characters the path has.
    let sdk_path = format!("{:?}", sdk.unwrap_or("sdk/wasm_graph_sdk"));
    let fill = |text: &str| {
        let text = template.fill(text, &options.name);
        text.replace("{{sdk}}", &sdk_path).replace("{{workspace}}\n", workspace).replace("{{sdk_row}}\n", row)
    };
    let mut files = vec![
        ("Cargo.toml".into(), fill(include_str!("templates/common/Cargo.toml.txt"))),
        (".gitignore".into(), fill(include_str!("templates/common/gitignore.txt"))),
        ("README.md".into(), fill(include_str!("templates/common/README.md.txt"))),
        ("graph.yaml".into(), fill(include_str!("templates/common/graph.yaml.txt"))),
        (format!("{}.test.yaml", options.name).into(), fill(include_str!("templates/common/test.yaml.txt"))),
        ("test/input.jsonl".into(), template.input.to_owned()),
        ("test/expected.jsonl".into(), template.expected.to_owned()),
    ];
    files.extend(template.sources.iter().map(|(path, text, _)| (PathBuf::from(path), fill(text))));
    if sdk.is_none() {
        files.extend(SDK.iter().map(|(path, text)| (Path::new("sdk").join(path), (*text).to_owned())));
    }
    files
}

fn template(kind: OperatorKind) -> &'static Template {
    match kind {
        OperatorKind::Map => &MAP,
        OperatorKind::Filter => &FILTER,
        OperatorKind::Branch => &BRANCH,
        OperatorKind::Accumulate => &ACCUMULATE,
        OperatorKind::Delay => &DELAY,
    }
}

const ONE: &str = include_str!("templates/common/one.operations.yaml.txt");
const WINDOW: &str = include_str!("templates/common/window.operations.yaml.txt");

const MAP: Template = Template {
    kind: "map",
    article: "A",
    does: "it adds an offset to the value of each reading.",
    test: "the offset is added",
    parameter: "offset",
    parameter_means: "a number that is added.",
    default: "0",
    value: "1.5",
    operations: ONE,
    sources: &[("src/lib.rs", include_str!("templates/map/lib.rs.txt"), "the operator")],
    input: include_str!("templates/map/input.jsonl"),
    expected: include_str!("templates/map/expected.jsonl"),
};

const FILTER: Template = Template {
    kind: "filter",
    article: "A",
    does: "it lets readings pass whose value is high enough.",
    test: "low readings are dropped",
    parameter: "threshold",
    parameter_means: "the least value that passes.",
    default: "0",
    value: "20",
    operations: ONE,
    sources: &[("src/lib.rs", include_str!("templates/filter/lib.rs.txt"), "the operator")],
    input: include_str!("templates/filter/input.jsonl"),
    expected: include_str!("templates/filter/expected.jsonl"),
};

const BRANCH: Template = Template {
    kind: "branch",
    article: "A",
    does: "it sends readings with a high value one way, and all others the other.",
    test: "high readings are marked",
    parameter: "threshold",
    parameter_means: "the least value that is high.",
    default: "0",
    value: "20",
    operations: include_str!("templates/common/branch.operations.yaml.txt"),
    sources: &[
        ("src/lib.rs", include_str!("templates/branch/lib.rs.txt"), "the operator"),
        ("src/mark.rs", include_str!("templates/branch/mark.rs.txt"), "a map for one of its arms"),
    ],
    input: include_str!("templates/branch/input.jsonl"),
    expected: include_str!("templates/branch/expected.jsonl"),
};

const ACCUMULATE: Template = Template {
    kind: "accumulate",
    article: "An",
    does: "it makes one summary of all readings of a window.",
    test: "a window becomes one summary",
    parameter: "decimals",
    parameter_means: "how many decimals the mean is rounded to.",
    default: "3",
    value: "2",
    operations: WINDOW,
    sources: &[
        ("src/lib.rs", include_str!("templates/accumulate/lib.rs.txt"), "the operator"),
        (
            "src/window.rs",
            include_str!("templates/accumulate/window.rs.txt"),
            "a delay that makes the windows",
        ),
    ],
    input: include_str!("templates/accumulate/input.jsonl"),
    expected: include_str!("templates/accumulate/expected.jsonl"),
};

const DELAY: Template = Template {
    kind: "delay",
    article: "A",
    does: "it moves each message to the end of its window.",
    test: "messages wait for the end of their window",
    parameter: "window_ms",
    parameter_means: "how long a window is, milliseconds.",
    default: "10000",
    value: "5000",
    operations: WINDOW,
    sources: &[
        ("src/lib.rs", include_str!("templates/delay/lib.rs.txt"), "the operator"),
        (
            "src/collect.rs",
            include_str!("templates/delay/collect.rs.txt"),
            "an accumulate that collects a window",
        ),
    ],
    input: include_str!("templates/delay/input.jsonl"),
    expected: include_str!("templates/delay/expected.jsonl"),
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_right_for_crates_registries_and_aio_or_refused_with_the_reason() {
        for name in ["double", "opc2json", "x"] {
            assert_eq!(check_name(name), Ok(()));
        }
        for (name, why) in [
            ("my-map", "do not find operators"),
            ("my_map", "do not find operators"),
            ("Map", "lower-case letter"),
            ("2map", "lower-case letter"),
            ("", "lower-case letter"),
            ("a/b", "letters and digits"),
            ("..", "lower-case letter"),
            ("mäp", "letters and digits"),
            ("fn", "a meaning"),
            ("test", "a meaning"),
            ("core", "a meaning"),
        ] {
            let error = check_name(name).unwrap_err();
            assert!(error.contains(why), "{name}: {error}");
        }
        assert!(check_name(&"x".repeat(65)).is_err());
    }

    #[test]
    fn nothing_in_braces_is_left_and_the_sdk_is_whole() {
        for kind in [
            OperatorKind::Map,
            OperatorKind::Filter,
            OperatorKind::Branch,
            OperatorKind::Accumulate,
            OperatorKind::Delay,
        ] {
            let options = NewOperator { name: "some".to_owned(), kind, sdk: None };
            let files = files(&options, None);
            for (path, text) in &files {
                let own = !path.starts_with("sdk");
                assert!(!own || !text.contains("{{"), "{}: {text}", path.display());
            }
            for path in ["sdk/wasm_graph_sdk/macros/src/lib.rs", "sdk/wit/processor.wit"] {
                assert!(files.iter().any(|(file, _)| file == Path::new(path)), "{path}");
            }
        }
    }
}
