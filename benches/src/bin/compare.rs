//! Runs forebay, mosquitto and rumqttd in turn under the same load and prints what each made of it.
//!
//! Repeats are interleaved (every broker once, then every broker again), so that a slow minute of the machine hits all.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use forebay_benches::Result;
use forebay_benches::peer::{Bench, Kind};
use forebay_benches::report::{self, Row};
use forebay_benches::scenario::{Scenario, Settings};
use forebay_benches::wire::Version;

/// forebay beside its peers: rates, latency, memory and broker CPU, in one run.
///
/// Build everything it runs first:
///   cargo build --profile dist -p forebay -p forebay-rumqttd -p forebay-benches --features forebay-benches/peers
///   cargo run --profile dist -p forebay-benches --features peers --bin compare
#[derive(Parser)]
#[command(verbatim_doc_comment)]
struct Options {
    /// Brokers to run; those that are not there are named and left out.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Kind::Forebay, Kind::Mosquitto, Kind::Rumqttd, Kind::Plugin])]
    brokers: Vec<Kind>,
    /// Scenarios to run; all when not given.
    #[arg(long, value_enum, value_delimiter = ',')]
    scenarios: Vec<Scenario>,
    /// How often each is run; medians are printed.
    #[arg(long, default_value_t = 3)]
    repeats: usize,
    /// Seconds that are counted in each run.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// One short repeat of everything: whether it works, not how fast.
    #[arg(long)]
    quick: bool,
    /// Print every sample as JSON instead of the table.
    #[arg(long)]
    json: bool,
    /// MQTT version of all clients.
    #[arg(long, value_enum, default_value = "5")]
    mqtt: Version,
    /// Clients in the idle scenarios.
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// Core of the broker and its helper.
    #[arg(long, default_value_t = 1)]
    broker_cpu: usize,
    /// Core of the load.
    #[arg(long, default_value_t = 0)]
    load_cpu: usize,
    /// Pin nothing (ratios then say little).
    #[arg(long)]
    no_pin: bool,
    /// The forebay executable; beside this program when not given.
    #[arg(long)]
    forebay: Option<PathBuf>,
    /// The mosquitto executable.
    #[arg(long, default_value = "/usr/sbin/mosquitto")]
    mosquitto: PathBuf,
    /// Resources with the Fahrenheit graph.
    #[arg(long, default_value = "config/samples/fahrenheit.yaml")]
    graph: PathBuf,
}

fn main() -> ExitCode {
    match compare(Options::parse()) {
        Ok(all_measured) if all_measured => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(2),
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compare(options: Options) -> Result<bool> {
    let bench = bench(&options)?;
    bench.pin_load()?;
    let brokers = present(&bench, &options.brokers);
    if brokers.is_empty() {
        return Err("none of the brokers is there".into());
    }
    let scenarios = match options.scenarios.as_slice() {
        [] => Scenario::value_variants(),
        some => some,
    };
    let seconds = if options.quick { 0.5 } else { options.seconds };
    let settings = Settings {
        version: options.mqtt,
        warm_up: Duration::from_secs_f64(seconds.min(0.5)),
        measured: Duration::from_secs_f64(seconds),
        connections: if options.quick { options.connections.min(1000) } else { options.connections },
    };
    let pairs = scenarios.iter().flat_map(|scenario| brokers.iter().map(move |broker| (*scenario, *broker)));
    let measured = pairs.filter(|(scenario, broker)| *broker != Kind::Plugin || scenario.transforms());
    let mut rows: Vec<Row> = measured.map(|(scenario, broker)| Row::new(scenario, broker)).collect();
    let repeats = if options.quick { 1 } else { options.repeats.max(1) };
    for repeat in 1..=repeats {
        for row in &mut rows {
            eprintln!("{repeat}/{repeats}  {}  {}", row.broker, row.scenario.title());
            row.add(row.scenario.run(&bench, row.broker, &settings));
        }
    }
    match options.json {
        true => println!("{}", serde_json::to_string_pretty(&rows)?),
        false => println!("{}", report::table(&rows)),
    }
    Ok(rows.iter().all(|row| row.failures.is_empty()))
}

fn bench(options: &Options) -> Result<Bench> {
    let here = std::env::current_exe()?;
    let beside = |name: &str| here.with_file_name(name);
    let pinned = |cpu: usize| (!options.no_pin).then_some(cpu);
    Ok(Bench {
        forebay: options.forebay.clone().unwrap_or_else(|| beside("forebay")),
        mosquitto: options.mosquitto.clone(),
        rumqttd: beside("rumqttd-peer"),
        plugin: beside("forebay-rumqttd"),
        sidecar: beside("sidecar"),
        graph: options.graph.clone(),
        broker_cpu: pinned(options.broker_cpu),
        load_cpu: pinned(options.load_cpu),
    })
}

fn present(bench: &Bench, wanted: &[Kind]) -> Vec<Kind> {
    let here = |kind: &Kind| {
        let program: &Path = bench.program(*kind);
        if !program.exists() {
            eprintln!("{kind} is left out: there is no {}", program.display());
        }
        program.exists()
    };
    wanted.iter().copied().filter(here).collect()
}
