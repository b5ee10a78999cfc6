//! `docs/CONFORMANCE.md`: which test proves each normative statement of MQTT, and where the code honours it. Made from
//! the statements in `docs/conformance/` and the tags beside code and tests; this fails when it is not as it must be.
//!
//! A tag is `[MQTT-3.1.2-4]`, or `3.1.1 [MQTT-3.1.2-5]` for a statement of that version. `UPDATE=1` writes the file anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

use forebay_tests::repository;

/// A statement: the version it is of and its number.
type Tag = (Version, String);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Version {
    V5,
    V311,
}

struct Statement {
    tag: Tag,
    side: String,
    /// The statement of MQTT 5.0 that says the same.
    same: Option<Tag>,
    text: String,
}

/// Where tags were found.
#[derive(Default)]
struct Places {
    code: BTreeMap<Tag, BTreeSet<String>>,
    tests: BTreeMap<Tag, BTreeSet<String>>,
}

#[test]
fn every_statement_that_binds_a_server_is_honoured_and_proved() {
    let statements = statements();
    let mut places = Places::default();
    for folder in ["broker/core/src", "broker/src", "broker/core/tests", "tests/tests", "tests/conversations"]
    {
        for file in files(&repository().join(folder)) {
            places.look(&file);
        }
    }
    let known: BTreeSet<&Tag> = statements.iter().map(|statement| &statement.tag).collect();
    let found: BTreeSet<&Tag> = places.code.keys().chain(places.tests.keys()).collect();
    let unknown: Vec<_> = found.difference(&known).collect();
    assert!(unknown.is_empty(), "no statement has these tags: {unknown:?}");

    let mut unproved = Vec::new();
    for statement in statements.iter().filter(|statement| statement.side == "server") {
        if statement.of(&places.tests).is_empty() {
            unproved.push(format!("{:?} has no test: {}", statement.tag, statement.text));
        }
        if statement.of(&places.code).is_empty() {
            unproved.push(format!("{:?} is at no place in the code: {}", statement.tag, statement.text));
        }
    }
    for statement in statements.iter().filter(|statement| statement.side == "absent") {
        if !statement.of(&places.tests).is_empty() {
            unproved.push(format!("{:?} has a test: it is not absent any more", statement.tag));
        }
    }
    assert!(unproved.is_empty(), "{} of them:\n{}", unproved.len(), unproved.join("\n"));

    let page = page(&statements, &places);
    let path = repository().join("docs/CONFORMANCE.md");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &page).expect("the file can be written");
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(there == page, "docs/CONFORMANCE.md is not as the tags are; run this test with UPDATE=1");
}

impl Statement {
    /// The places of its own tag, and of that of the statement that says the same.
    fn of<'p>(&self, places: &'p BTreeMap<Tag, BTreeSet<String>>) -> BTreeSet<&'p str> {
        let tags = std::iter::once(&self.tag).chain(&self.same);
        tags.filter_map(|tag| places.get(tag)).flatten().map(String::as_str).collect()
    }
}

fn statements() -> Vec<Statement> {
    let mut all = Vec::new();
    for (version, file) in [(Version::V5, "mqtt-5.0.txt"), (Version::V311, "mqtt-3.1.1.txt")] {
        let text = std::fs::read_to_string(repository().join("docs/conformance").join(file))
            .expect("the statements");
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let words = if version == Version::V5 { 3 } else { 4 };
            let fields: Vec<&str> = line.splitn(words, ' ').collect();
            let (number, side, text) = (fields[0], fields[1], fields[words - 1]);
            assert!(["server", "client", "unused", "absent"].contains(&side), "{line}");
            let same = fields[2].strip_prefix('=').filter(|_| version == Version::V311);
            let same = same.map(|number| (Version::V5, number.to_owned()));
            let tag = (version, number.to_owned());
            all.push(Statement { tag, side: side.to_owned(), same, text: text.to_owned() });
        }
    }
    let tags: BTreeSet<&Tag> = all.iter().map(|statement| &statement.tag).collect();
    assert_eq!(tags.len(), all.len(), "a statement stands there twice");
    for same in all.iter().filter_map(|statement| statement.same.as_ref()) {
        assert!(tags.contains(same), "no statement {same:?}");
    }
    all
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder of the repository") {
        let path = entry.expect("a folder that can be read").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs" || extension == "txt") {
            found.push(path);
        }
    }
    found.sort();
    found
}

impl Places {
    fn look(&mut self, path: &Path) {
        let text = std::fs::read_to_string(path).expect("a text file");
        let name = path.strip_prefix(repository()).expect("in the repository").to_string_lossy().into_owned();
        // This file speaks of tags, it proves nothing.
        if name.ends_with("tests/conformance.rs") {
            return;
        }
        let tests_only = !name.contains("/src/");
        let lines: Vec<&str> = text.lines().collect();
        // Tests of a module stand at its end.
        let tests_from = match lines.iter().position(|line| line.trim() == "#[cfg(test)]") {
            _ if tests_only => 0,
            Some(at) => at,
            None => lines.len(),
        };
        for (at, line) in lines.iter().enumerate() {
            for tag in tags(line) {
                let (map, place) = match at >= tests_from {
                    true => (&mut self.tests, self::place(&name, &lines, at)),
                    false => (&mut self.code, name.clone()),
                };
                map.entry(tag).or_default().insert(place);
            }
        }
    }
}

/// The tags on a line.
fn tags(line: &str) -> Vec<Tag> {
    let mut found = Vec::new();
    for (at, _) in line.match_indices("[MQTT-") {
        let number = &line[at + "[MQTT-".len()..];
        let Some(end) = number.find(']') else { continue };
        let number = &number[..end];
        if !number.chars().all(|c| c.is_ascii_digit() || c == '.' || c == '-') || !number.contains('-') {
            continue;
        }
        let before = line[..at].trim_end_matches('`');
        let version = if before.ends_with("3.1.1 ") { Version::V311 } else { Version::V5 };
        found.push((version, number.to_owned()));
    }
    found
}

/// What proves something there: the test, by its file and its name.
fn place(name: &str, lines: &[&str], at: usize) -> String {
    let named =
        |line: &&&str| line.trim_start().starts_with("fn ") || line.trim_start().starts_with("pub fn ");
    let documents = lines[at].trim_start().starts_with("///");
    let function = match documents {
        true => lines[at..].iter().find(named),
        false => lines[..=at].iter().rev().find(named),
    };
    let function = function.and_then(|line| line.trim_start().trim_start_matches("pub ").strip_prefix("fn "));
    match function.and_then(|line| line.split_once(['(', '<'])) {
        Some((function, _)) if !name.ends_with(".txt") => format!("{name} {function}"),
        _ => name.to_owned(),
    }
}

fn page(statements: &[Statement], places: &Places) -> String {
    let mut page = String::from(
        "# Conformance\n\n\
         What MQTT 5.0 and 3.1.1 demand of a server, which tests prove it, and where in the code it is honoured. Made by\n\
         `tests/tests/conformance.rs` from [the statements](conformance/), in our own words, and the tags beside code and\n\
         tests; the test fails when a statement that binds a server has no test or no place.\n",
    );
    for (version, title) in [(Version::V5, "MQTT 5.0"), (Version::V311, "MQTT 3.1.1")] {
        let _ = writeln!(page, "\n## {title}\n\n| Statement | | Tests | Code |\n|---|---|---|---|");
        for statement in statements.iter().filter(|statement| statement.tag.0 == version) {
            let list =
                |places: BTreeSet<&str>| places.into_iter().map(short).collect::<Vec<_>>().join("<br>");
            let (tests, code) = match statement.side.as_str() {
                "client" => ("binds clients only".to_owned(), String::new()),
                "unused" => {
                    ("binds servers that lack something ours has, or the network".to_owned(), String::new())
                }
                "absent" => {
                    ("binds servers that have something ours does not have yet".to_owned(), String::new())
                }
                _ => (list(statement.of(&places.tests)), list(statement.of(&places.code))),
            };
            let same =
                statement.same.as_ref().map_or(String::new(), |(_, number)| format!(" (5.0: {number})"));
            let (number, text) = (&statement.tag.1, &statement.text);
            let _ = writeln!(page, "| MQTT-{number} | {text}{same} | {tests} | {code} |");
        }
    }
    page
}

/// A place as it is shown: conversations by their names, tests by theirs.
fn short(place: &str) -> String {
    let place = place.replace("broker/core/", "core/").replace("tests/conversations/", "conversation ");
    place.replace("tests/tests/", "").replace("/src/", "/").trim_end_matches(".txt").to_owned()
}
