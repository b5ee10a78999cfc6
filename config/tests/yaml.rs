//! Text that is hardly YAML, or that means harm.

mod support;

use proptest::prelude::*;
use std::fmt::Write;
use support::lines;

/// The text has these findings.
#[track_caller]
fn check(text: &str, findings: &[&str]) {
    assert_eq!(lines(text), findings);
}

#[test]
fn a_duplicate_key_is_an_error() {
    check("a: 1\na: 2\n", &["t.yaml:2:1: error: the key `a` stands twice in one mapping"]);
}

#[test]
fn a_tab_does_not_indent() {
    check(
        "a:\n\tb: 1\n",
        &["t.yaml:2:2: error: no valid YAML: tabs disallowed within this context (block indentation)"],
    );
}

#[test]
fn an_unclosed_bracket_or_quote_is_an_error() {
    check("a: [1, 2", &["t.yaml:1:4: error: no valid YAML: unclosed bracket '['"]);
    check("{", &["t.yaml:1:1: error: no valid YAML: unclosed bracket '{'"]);
    check("a: 'x\ny\n", &["t.yaml:1:4: error: no valid YAML: unclosed quote"]);
}

#[test]
fn nothing_to_read_is_told() {
    check("", &["t.yaml:1:1: warning: the file holds no resource"]);
    check("# only a comment\n", &["t.yaml:1:1: warning: the file holds no resource"]);
    check("---\n---\n", &["t.yaml:1:1: warning: the file holds no resource"]);
}

#[test]
fn a_document_is_a_mapping() {
    check("a", &["t.yaml:1:1: error: the document must be a mapping, but is a string"]);
    check("- 1", &["t.yaml:1:1: error: the document must be a mapping, but is a list"]);
}

#[test]
fn aliases_lead_to_anchors_outside_themselves() {
    check("a: *b", &["t.yaml:1:4: error: no valid YAML: alias references unknown anchor"]);
    check("a: &a [*a]", &["t.yaml:1:8: error: an anchor contains an alias of itself"]);
    check(
        "<<: 5\na: 1",
        &["t.yaml:1:5: error: no valid YAML: YAML merge value must be mapping or sequence of mappings"],
    );
}

#[test]
fn a_key_is_a_plain_text() {
    check("? [x]\n: 1\n", &["t.yaml:1:3: error: no valid YAML: expected string scalar"]);
    check("~: 1", &["t.yaml:1:1: error: a key is empty; quote it if it is meant"]);
}

#[test]
fn broken_syntax_is_an_error() {
    check("a: b: c", &["t.yaml:1:5: error: no valid YAML: mapping values are not allowed in this context"]);
    check("%YAML 9.9\n---\na: 1", &["t.yaml:1:1: error: no valid YAML: unsupported YAML major version"]);
    check(
        "a: \"\\q\"",
        &["t.yaml:1:4: error: no valid YAML: while parsing a quoted scalar, found unknown escape \
             character"],
    );
    check("a: !!int x", &["t.yaml:1:10: error: no valid YAML: invalid u64"]);
    check("a: !!binary '***'", &["t.yaml:1:13: error: no valid YAML: invalid !!binary base64"]);
    check("a: @x", &["t.yaml:1:4: error: no valid YAML: unexpected character: `@'"]);
    check("a: \u{7}", &["t.yaml:1:4: error: no valid YAML: unexpected character: `\\u{7}'"]);
}

#[test]
fn a_byte_order_mark_and_carriage_returns_are_no_matter() {
    check(
        "\u{feff}apiVersion: v1\r\nkind: 5\r\n",
        &["t.yaml:2:7: error: `kind` must be a string, but `5` is a number in YAML; quote it: \"5\""],
    );
}

#[test]
fn one_finding_stays_on_one_line() {
    check(
        "apiVersion: v1\nkind: \"a\\nb\\u001b[31m\"\n",
        &["t.yaml:2:7: error: the kind `a\\nb\\u{1b}[31m` is not known; known are \
             `DataflowGraph`, `DataflowEndpoint`, `DataflowProfile`, `RegistryEndpoint`, `Broker`, \
             `BrokerListener`, `BrokerAuthentication`, `BrokerAuthorization`, `Asset`, `Secret`, `ConfigMap`"],
    );
}

#[test]
fn a_billion_laughs_stop_early() {
    let mut text = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for (from, to) in ('a'..='i').zip('b'..='j') {
        let aliases = vec![format!("*{from}"); 9].join(",");
        writeln!(text, "{to}: &{to} [{aliases}]").expect("a string takes everything");
    }
    check(&text, &["t.yaml:5:8: error: the aliases of the text expand to more than 10000 parts"]);
}

#[test]
fn deep_nesting_stops_early() {
    let block: String = (0..1000).fold(String::new(), |text, depth| text + &" ".repeat(depth) + "a:\n");
    check(&block, &["t.yaml:49:49: error: lists and mappings are nested more than 48 deep"]);
    check(&"[".repeat(100_000), &["t.yaml:1:49: error: lists and mappings are nested more than 48 deep"]);
    check(&"{a: ".repeat(100_000), &["t.yaml:1:193: error: lists and mappings are nested more than 48 deep"]);
}

#[test]
fn a_huge_text_is_not_read() {
    let text = format!("a: {}", "x".repeat(2 * 1024 * 1024));
    check(&text, &["t.yaml:1:1: error: the text is larger than 1048576 bytes"]);
}

#[test]
fn a_huge_number_of_values_or_documents_stops_early() {
    check(&"- a\n".repeat(200_000), &["t.yaml:100000:3: error: the text has more than 100000 values"]);
    check(&"--- a\n".repeat(5000), &["t.yaml:1025:1: error: the text has more than 1024 documents"]);
}

#[test]
fn a_huge_scalar_is_not_repeated() {
    let lines = lines(&format!("apiVersion: v1\nkind: {}\n", "x".repeat(1_000_000)));
    assert_eq!(lines.len(), 1);
    assert!(lines[0].starts_with("t.yaml:2:7: error: the kind `xxxx"), "{}", lines[0]);
    assert!(lines[0].len() < 500, "{}", lines[0].len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_text_is_read_without_a_panic(text in any::<String>()) {
        let _ = forebay_config::load_str("t.yaml", &text);
        let _ = forebay_config::graph_definition("t.yaml", &text);
    }

    #[test]
    fn any_text_of_yaml_signs_is_read_without_a_panic(text in "[-:?,\\[\\]{}#&*!|>'\"%@` \n\ta-c0~<]{0,200}") {
        let _ = forebay_config::load_str("t.yaml", &text);
        let _ = forebay_config::graph_definition("t.yaml", &text);
    }

    #[test]
    fn a_graph_with_any_damage_is_read_without_a_panic(
        at in 0..support::GRAPH.len(), length in 0..40_usize, new in "[-:a-z0 \n/+#$\\{\\}.]{0,20}",
    ) {
        let mut text = format!("{}---\n{}", support::GRAPH, support::REGISTRY);
        text.replace_range(at..(at + length).min(text.len()), &new);
        let loaded = forebay_config::load_str("t.yaml", &text);
        for plan in loaded.plans() {
            let _ = plan.destinations[0].topic.render("a/b", None);
        }
    }

    #[test]
    fn a_secret_is_never_told(
        secret in "[A-Za-z0-9!\\{\\}:\\[,&*]{8,20}", template in 0..6_usize,
    ) {
        let text = [
            format!("apiVersion: v1\nkind: Secret\nmetadata:\n  name: abc\ndata:\n  a: {secret}\n"),
            format!("apiVersion: v1\nkind: Secret\nmetadata:\n  name: abc\nstringData:\n  a: {secret}\n"),
            format!("apiVersion: v1\nkind: Secret\nmetadata:\n  name: abc\nstringData: {secret}\n"),
            format!("apiVersion: v1\nkind: Secret\nmetadata:\n  name: abc\nstringData:\n  a: [{secret}]\n"),
            format!("apiVersion: v1\nkind: Secret\nmetadata:\n  name: abc\nstringData:\n  a: \"{secret}\"\n"),
            format!(
                "apiVersion: v1\nkind: Secret\nmetadata:\n  name: abc\ntype: kubernetes.io/dockerconfigjson\n\
                 stringData:\n  .dockerconfigjson: '{{\"auths\":{{\"a\":{{\"auth\":\"{secret}\"}}}}}}'\n"
            ),
        ];
        let loaded = forebay_config::load_str("t.yaml", &text[template]);
        for finding in &loaded.findings {
            prop_assert!(!finding.to_string().contains(&secret), "{finding}");
        }
        let debug = format!("{loaded:?}");
        prop_assert!(!debug.contains(&secret));
    }
}
