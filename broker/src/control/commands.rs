//! `forebay apply`, `get`, `describe`, `delete`, `diff`, `events` and `logs`.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use config::manifest::to_yaml;
use serde_json::Value;
use similar::TextDiff;

use super::apply::{Action, Applied, Deletion, Difference, Wanted};
use super::client::ask;
use super::show::Shown;
use super::{LogsWanted, Order, socket};
use crate::cli::{self, Format};
use crate::health::Event;
use crate::logs::Lines;
use crate::refresh::Refreshed;

/// How often `logs -f` looks for more.
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// What goes wrong with `diff` is told from a difference.
const DIFF_FAILED: u8 = 2;

/// The kinds by the names that people type.
const KINDS: &[(&str, &[&str])] = &[
    ("DataflowGraph", &["graph", "graphs", "dataflowgraph", "dataflowgraphs"]),
    ("DataflowEndpoint", &["endpoint", "endpoints", "dataflowendpoint", "dataflowendpoints"]),
    ("DataflowProfile", &["profile", "profiles", "dataflowprofile", "dataflowprofiles"]),
    ("RegistryEndpoint", &["registry", "registries", "registryendpoint", "registryendpoints"]),
    ("Broker", &["broker", "brokers"]),
    ("BrokerListener", &["listener", "listeners", "brokerlistener", "brokerlisteners"]),
    (
        "BrokerAuthentication",
        &["authentication", "authentications", "brokerauthentication", "brokerauthentications"],
    ),
    (
        "BrokerAuthorization",
        &["authorization", "authorizations", "brokerauthorization", "brokerauthorizations"],
    ),
    ("Asset", &["asset", "assets"]),
    ("Secret", &["secret", "secrets"]),
    ("ConfigMap", &["configmap", "configmaps", "cm"]),
];

type Failed = Vec<String>;

/// Carries a command out; what went wrong is printed.
pub fn run(act: impl Future<Output = Result<ExitCode, Failed>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(act),
        Err(error) => Err(vec![error.to_string()]),
    };
    done.unwrap_or_else(|lines| {
        lines.iter().for_each(|line| eprintln!("forebay: {line}"));
        ExitCode::FAILURE
    })
}

fn place(at: &cli::At) -> Result<PathBuf, Failed> {
    socket(at.socket.as_deref(), at.data_dir.as_deref()).ok_or_else(|| {
        vec!["say where the broker is: --data-dir DIR as it was started with, --socket PATH, or FOREBAY_SOCKET".to_owned()]
    })
}

fn kind(text: &str) -> Result<Option<String>, Failed> {
    let typed = text.to_ascii_lowercase();
    if typed == "all" {
        return Ok(None);
    }
    let found = KINDS.iter().find(|(_, names)| names.contains(&typed.as_str()));
    let known: Vec<&str> = KINDS.iter().filter_map(|(_, names)| names.get(1).copied()).collect();
    found.map(|(kind, _)| Some((*kind).to_owned())).ok_or_else(|| {
        vec![format!(
            "`{text}` is no kind of resource; there are {}, all and subscriptions",
            known.join(", ")
        )]
    })
}

/// All texts that are named, `-` for standard input; of directories every YAML file.
fn texts(files: &[PathBuf]) -> Result<String, Failed> {
    let mut text = String::new();
    for path in files {
        if path == Path::new("-") {
            let mut typed = String::new();
            std::io::stdin()
                .read_to_string(&mut typed)
                .map_err(|error| vec![format!("standard input: {error}")])?;
            text = joined(text, &elsewhere(typed, Path::new(".")));
            continue;
        }
        for file in config::files(std::slice::from_ref(path)) {
            let read = std::fs::read_to_string(&file)
                .map_err(|error| vec![format!("{}: {error}", file.display())])?;
            text = joined(text, &elsewhere(read, file.parent().unwrap_or(Path::new("."))));
        }
        if !path.exists() {
            return Err(vec![format!("{} is not there", path.display())]);
        }
    }
    Ok(text)
}

/// The broker keeps it in a directory of its own: paths that are relative to where it stands now are made absolute.
fn elsewhere(text: String, directory: &Path) -> String {
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let absolute = std::fs::canonicalize(directory).ok();
    absolute.and_then(|directory| config::manifest::with_absolute_paths(&text, &directory)).unwrap_or(text)
}

fn joined(text: String, more: &str) -> String {
    if text.is_empty() { more.to_owned() } else { format!("{text}\n---\n{more}") }
}

/// `apply`.
pub async fn apply(options: &cli::Apply) -> Result<ExitCode, Failed> {
    let order = Order { text: texts(&options.files)?, dry_run: options.dry_run };
    let applied: Vec<Applied> = ask(&place(&options.at)?, "/apply", Some(&order)).await?;
    print_applied(&applied, options.dry_run);
    Ok(ExitCode::SUCCESS)
}

fn print_applied(applied: &[Applied], dry_run: bool) {
    let tried = if dry_run { " (dry run)" } else { "" };
    for Applied { kind, name, action, warnings } in applied {
        let action = match action {
            Action::Created => "created",
            Action::Configured => "configured",
            Action::Unchanged => "unchanged",
            Action::Deleted => "deleted",
        };
        println!("{}/{name} {action}{tried}", kind.to_lowercase());
        warnings.iter().for_each(|warning| eprintln!("  {warning}"));
    }
}

/// `delete`.
pub async fn delete(options: &cli::Delete) -> Result<ExitCode, Failed> {
    let mut wanted = Vec::new();
    if let (Some(what), Some(name)) = (&options.what, &options.name) {
        let Some(kind) = kind(what)? else {
            return Err(vec!["name the kind of what is to be deleted".to_owned()]);
        };
        wanted.push(Wanted {
            kind: Some(kind),
            namespace: options.namespace.clone(),
            name: Some(name.clone()),
        });
    }
    if !options.files.is_empty() {
        let text = texts(&options.files)?;
        let manifests = config::manifest::manifests_of(Path::new("-f"), &text);
        let manifests =
            manifests.map_err(|findings| findings.iter().map(ToString::to_string).collect::<Failed>())?;
        wanted.extend(manifests.into_iter().map(|manifest| Wanted {
            kind: Some(manifest.id.kind),
            namespace: Some(manifest.id.namespace),
            name: Some(manifest.id.name),
        }));
    }
    let order = Deletion { wanted, dry_run: options.dry_run };
    let applied: Vec<Applied> = ask(&place(&options.at)?, "/delete", Some(&order)).await?;
    print_applied(&applied, options.dry_run);
    Ok(ExitCode::SUCCESS)
}

/// `diff`: 0 when nothing differs, 1 when something does, 2 when it cannot be told.
pub async fn diff(options: &cli::Diff) -> Result<ExitCode, Failed> {
    let told = async {
        let order = Order { text: texts(&options.files)?, dry_run: true };
        ask::<Vec<Difference>>(&place(&options.at)?, "/diff", Some(&order)).await
    };
    let differences = match told.await {
        Ok(differences) => differences,
        Err(lines) => {
            lines.iter().for_each(|line| eprintln!("forebay: {line}"));
            return Ok(ExitCode::from(DIFF_FAILED));
        }
    };
    let mut same = true;
    for Difference { kind, name, before, after } in differences.iter().filter(|it| it.before != it.after) {
        same = false;
        let (kind, diff) = (kind.to_lowercase(), TextDiff::from_lines(before, after));
        print!(
            "{}",
            diff.unified_diff()
                .header(&format!("{kind}/{name} (there)"), &format!("{kind}/{name} (applied)"))
        );
    }
    Ok(if same { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// `get` of resources.
pub async fn get(options: &cli::Get) -> Result<ExitCode, Failed> {
    let wanted = Wanted {
        kind: kind(&options.what)?,
        namespace: options.namespace.clone(),
        name: options.name.clone(),
    };
    let shown: Vec<Shown> = ask(&place(&options.at)?, "/resources", Some(&wanted)).await?;
    if let (Some(name), true) = (&options.name, shown.is_empty()) {
        return Err(vec![format!("there is no {} `{name}`", options.what)]);
    }
    match options.output {
        Format::Json | Format::Yaml => {
            let whole = match (&options.name, &shown[..]) {
                (Some(_), [one]) => one.resource.clone(),
                _ => serde_json::json!({
                    "apiVersion": "v1", "kind": "List",
                    "items": shown.iter().map(|it| it.resource.clone()).collect::<Vec<_>>(),
                }),
            };
            match options.output {
                Format::Yaml => print!("{}", to_yaml(&whole)),
                _ => println!("{}", serde_json::to_string_pretty(&whole).unwrap_or_default()),
            }
        }
        Format::Table | Format::Wide => print!("{}", table(&shown, options.output == Format::Wide)),
    }
    Ok(ExitCode::SUCCESS)
}

fn table(shown: &[Shown], wide: bool) -> String {
    let mut rows = vec![vec!["KIND".to_owned(), "NAME".to_owned(), "HEALTH".to_owned(), "REASON".to_owned()]];
    if wide {
        rows[0].extend(["NAMESPACE", "FILE", "MESSAGE"].map(ToOwned::to_owned));
    }
    for it in shown {
        let health = &it.resource["status"]["healthState"];
        let text = |key: &str| health[key].as_str().unwrap_or("").lines().next().unwrap_or("").to_owned();
        let mut row = vec![it.kind.clone(), it.name.clone(), text("status"), text("reasonCode")];
        if wide {
            row.extend([it.namespace.clone(), it.file.clone(), text("message")]);
        }
        rows.push(row);
    }
    aligned(&rows)
}

/// Rows whose columns stand below each other.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |at: usize| {
        rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let line: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        out.push_str(line.join("  ").trim_end());
        out.push('\n');
    }
    out
}

/// `describe`.
pub async fn describe(options: &cli::Describe) -> Result<ExitCode, Failed> {
    let socket = place(&options.at)?;
    let wanted = Wanted {
        kind: kind(&options.what)?,
        namespace: options.namespace.clone(),
        name: Some(options.name.clone()),
    };
    let shown: Vec<Shown> = ask(&socket, "/resources", Some(&wanted)).await?;
    if shown.is_empty() {
        return Err(vec![format!("there is no {} `{}`", options.what, options.name)]);
    }
    let events: Vec<Event> = ask(&socket, "/events", None::<&()>).await?;
    for it in &shown {
        println!(
            "Name:       {}\nNamespace:  {}\nKind:       {}\nFile:       {}",
            it.name, it.namespace, it.kind, it.file
        );
        let mut resource = it.resource.clone();
        let status =
            resource.as_object_mut().and_then(|fields| fields.remove("status")).unwrap_or(Value::Null);
        let health = &status["healthState"];
        let text = |key: &str| health[key].as_str().unwrap_or("").to_owned();
        println!(
            "Health:     {} {} since {}",
            text("status"),
            text("reasonCode"),
            text("lastTransitionTime")
        );
        for line in text("message").lines() {
            println!("            {line}");
        }
        print!("{}", to_yaml(&resource));
        println!("Events:");
        for event in events.iter().filter(|event| event.kind == it.kind && event.name == it.name) {
            println!(
                "  {}  {}  {}  {}",
                event.time,
                event.severity,
                event.reason,
                first_line(&event.message)
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or("")
}

/// `events`.
pub async fn events(options: &cli::Events) -> Result<ExitCode, Failed> {
    let events: Vec<Event> = ask(&place(&options.at)?, "/events", None::<&()>).await?;
    let mut rows = vec![["TIME", "TYPE", "REASON", "OBJECT", "MESSAGE"].map(ToOwned::to_owned).to_vec()];
    rows.extend(events.iter().map(|event| {
        let object = format!("{}/{}", event.kind.to_lowercase(), event.name);
        vec![
            event.time.clone(),
            event.severity.clone(),
            event.reason.clone(),
            object,
            first_line(&event.message).to_owned(),
        ]
    }));
    print!("{}", aligned(&rows));
    Ok(ExitCode::SUCCESS)
}

/// `logs`.
pub async fn logs(options: &cli::Logs) -> Result<ExitCode, Failed> {
    let socket = place(&options.at)?;
    let mut after = 0;
    loop {
        let wanted = LogsWanted { after, graph: options.graph.clone() };
        let Lines { next, lines } = ask(&socket, "/logs", Some(&wanted)).await?;
        lines.iter().for_each(|line| println!("{line}"));
        if !options.follow {
            return Ok(ExitCode::SUCCESS);
        }
        after = next;
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// `refresh`.
pub async fn refresh(options: &cli::Refresh) -> Result<ExitCode, Failed> {
    let all: Vec<Refreshed> = ask(&place(&options.at)?, "/refresh", Some(&options.graph)).await?;
    if let (Some(graph), true) = (&options.graph, all.is_empty()) {
        return Err(vec![format!("graph {graph} does not run")]);
    }
    all.iter().for_each(|it| println!("graph {}: {}", it.graph, it.outcome));
    Ok(if all.iter().all(|it| it.done) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// `rollback`.
pub async fn rollback(options: &cli::Rollback) -> Result<ExitCode, Failed> {
    let it: Refreshed = ask(&place(&options.at)?, "/rollback", Some(&options.graph)).await?;
    println!("graph {}: {}", it.graph, it.outcome);
    Ok(if it.done { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
