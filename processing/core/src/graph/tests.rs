use super::*;

fn graph(operations: &[(&str, Kind)], connections: &[&str]) -> Result<Graph, Vec<Finding>> {
    let operations = operations
        .iter()
        .map(|(name, kind)| Operation {
            name: (*name).to_owned(),
            kind: *kind,
            module: kind.has_module().then(|| "m:1".to_owned()),
        })
        .collect();
    let connections = connections
        .iter()
        .map(|text| {
            let (from, to) = text.split_once('>').unwrap();
            let (from, arm) = match from.split_once('/') {
                Some((from, "True")) => (from, Some(Arm::True)),
                Some((from, _)) => (from, Some(Arm::False)),
                None => (from, None),
            };
            Connection { from: from.to_owned(), arm, to: to.to_owned() }
        })
        .collect();
    Graph::check(Definition { operations, connections, ..Definition::default() })
}

fn problems(operations: &[(&str, Kind)], connections: &[&str]) -> Vec<(Problem, String)> {
    let findings = graph(operations, connections).unwrap_err();
    findings.into_iter().map(|f| (f.problem, f.message)).collect()
}

use Kind::{Branch, Concatenate, Filter, Map, Sink, Source};

#[test]
fn a_chain_and_a_diamond_are_graphs() {
    assert!(graph(&[("s", Source), ("m", Map), ("k", Sink)], &["s>m", "m>k"]).is_ok());
    let diamond = graph(
        &[("s", Source), ("b", Branch), ("m", Map), ("c", Concatenate), ("k", Sink)],
        &["s>b", "b/False>c", "b/True>m", "m>c", "c>k"],
    )
    .unwrap();
    let branch = &diamond.nodes()[1];
    assert_eq!((branch.next.as_slice(), branch.next_true.as_slice()), (&[3][..], &[2][..]));
}

#[test]
fn a_cycle_is_named_whole() {
    let found = problems(
        &[("s", Source), ("c", Concatenate), ("a", Map), ("b", Filter), ("k", Sink)],
        &["s>c", "c>a", "a>b", "b>c", "b>k"],
    );
    assert_eq!(found[0].0, Problem::Cycle);
    assert_eq!(found[0].1, "the connections make a cycle: c → a → b → c");
}

#[test]
fn each_mistake_has_its_finding() {
    let chain = [("s", Source), ("m", Map), ("k", Sink)];
    let first = |operations: &[(&str, Kind)], connections: &[&str]| problems(operations, connections)[0].0;
    assert_eq!(first(&chain, &["s>m", "m>x"]), Problem::Unknown);
    assert_eq!(first(&chain, &["s>m", "m>k", "s>k"]), Problem::Inputs);
    assert_eq!(first(&chain, &["s>k"]), Problem::Unreachable);
    assert_eq!(first(&chain, &["s>m", "m>k", "m>s"]), Problem::Direction);
    assert_eq!(first(&chain, &["s>m", "m/True>k"]), Problem::Arm);
    assert_eq!(first(&chain, &["s>m", "s>m", "m>k"]), Problem::Repeated);
    assert_eq!(first(&[("s", Source), ("s", Source), ("k", Sink)], &["s>k"]), Problem::Duplicate);
    assert_eq!(first(&[("m", Map)], &[]), Problem::Ends);
    let branch = [("s", Source), ("b", Branch), ("k", Sink)];
    assert_eq!(first(&branch, &["s>b", "b/True>k"]), Problem::MissingArm);
    assert_eq!(first(&branch, &["s>b", "b>k"]), Problem::Arm);
}

#[test]
fn a_parameter_is_found_by_its_id_and_then_by_its_name() {
    let parameter = |name: &str, required, default: Option<&str>| Parameter {
        name: name.to_owned(),
        required,
        default: default.map(str::to_owned),
    };
    let mut graph = graph(&[("s", Source), ("m", Map), ("k", Sink)], &["s>m", "m>k"]).unwrap();
    graph.module_configurations = vec![ModuleConfiguration {
        name: "m".to_owned(),
        parameters: vec![
            ("id1".to_owned(), parameter("name1", false, None)),
            ("id2".to_owned(), parameter("name2", true, None)),
            ("id3".to_owned(), parameter("name3", false, Some("three"))),
        ],
    }];
    let set = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    };
    let settings = set(&[("id1", "one"), ("name2", "two"), ("conversion", "x")]);
    assert_eq!(
        graph.parameters("m", &settings),
        Ok(set(&[("name1", "one"), ("name2", "two"), ("name3", "three")]))
    );
    assert_eq!(graph.unused(&settings), ["conversion"]);
    assert_eq!(
        graph.parameters("m", &[]).unwrap_err().to_string(),
        "operation `m` needs the parameter `id2`, and the configuration has no value for it"
    );
}
