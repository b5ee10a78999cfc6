//! The command line.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use processing::state_store::Quota;

use crate::auth::HashKind;
use crate::auth::passwd::{HASH_DEFAULT, iterations_default};
use crate::limits;
use crate::listener::admission::Limits;

/// An MQTT broker that runs WebAssembly operator graphs inside its own message path.
///
/// A device publishes, the graph processes, a subscriber reads: all in one process, without a network hop
/// between. Start with `forebay demo`, which needs nothing else.
#[derive(Debug, Parser)]
#[command(name = "forebay", version, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the broker in the foreground.
    ///
    /// With nothing else said it listens on 127.0.0.1:1883, for MQTT 3.1, 3.1.1 and 5 on the same port, and
    /// takes anybody on this machine without a password. BrokerListener resources add ports with TLS, WebSocket,
    /// authentication and authorization; they, their certificates and password files are read again when they change, and
    /// on SIGHUP. SIGTERM or Ctrl-C ends it in good order.
    Serve(Serve),
    /// Check resource files without running anything.
    ///
    /// Prints a line for each finding, as `file:line:column: severity: message`, and ends with 1 when one of
    /// them is an error.
    Validate(Validate),
    /// Show the main job: Fahrenheit in, Celsius out.
    ///
    /// Serves on a free loopback port with the sample graph, publishes readings through it as a client, and
    /// prints both sides until Ctrl-C.
    Demo(Demo),
    /// Ask a running broker what there is.
    ///
    /// `forebay get graphs` (endpoints, profiles, registries, listeners, …, all) lists resources and how they fare;
    /// `forebay get graph NAME -o yaml` prints one with its status. `forebay get subscriptions` lists who subscribes to what, whether it
    /// is persisted, and how many messages wait.
    Get(Get),
    /// Write resources into the directory that a running broker watches.
    ///
    /// They are checked first, all together: when one has an error nothing is written. The broker follows at once. Prints a
    /// line for each resource; ends with 1 when something is wrong.
    Apply(Apply),
    /// Delete resources from the directory that a running broker watches.
    Delete(Delete),
    /// Show how resources differ from those of a running broker.
    ///
    /// Ends with 0 when nothing differs, with 1 when something does, and with 2 when it cannot be told.
    Diff(Diff),
    /// Show everything about a resource: what it says, how it fares, and what happened to it.
    Describe(Describe),
    /// Show what happened to resources.
    Events(Events),
    /// Show the last lines of a running broker's log.
    Logs(Logs),
    /// Look now whether there is new content under the tags of graphs that run.
    ///
    /// What is new takes the place of what runs, between two messages, once it has begun well. The broker looks by itself
    /// as well (`serve --registry-poll`).
    Refresh(Refresh),
    /// Have the version of a graph before the present one take over again.
    ///
    /// What it takes the place of does not come back by itself; `forebay refresh GRAPH` brings it back, and so does a restart.
    Rollback(Rollback),
    /// Carry out tests of graphs and operators: messages in, and what must come out.
    ///
    /// Looks for test descriptors, `*.test.yaml`, as Azure IoT Operations has them, and runs each in this process:
    /// no broker, no containers, and a clock that is moved by hand, so that a window of ten seconds takes
    /// milliseconds. Prints a line for each test and, for one that fails, what differs; ends with 1 when one fails.
    #[command(after_long_help = TEST_HELP)]
    Test(Test),
    /// Run messages through a graph and print what comes out.
    ///
    /// Prints a line of JSON for each message that comes out, with its topic, timestamp, user properties and
    /// payload, and says on standard error which messages did not, where they ended and why. Time is moved by hand:
    /// to the timestamp of each message, and after the last one until every window is closed. Ends with 1 when a
    /// message could not be processed.
    #[command(after_long_help = MESSAGES_HELP)]
    Run(Run),
    /// Write a password file, for --password-file or the annotation forebay.dev/password-file.
    ///
    /// The formats are mosquitto's, and so are the options: `forebay passwd FILE USER` asks for a password and puts the
    /// user into the file, or gives one who is there another. The file is readable for its owner only. With -H scram-sha-256 or
    /// scram-sha-512, which mosquitto does not read, the user may also prove the password without telling it.
    Passwd(Passwd),
    /// Make something new to work on.
    #[command(subcommand)]
    New(New),
    /// Look into the store of a data directory: is it whole, how full is it, what is in it.
    ///
    /// Changes nothing. A broker that runs on the data directory keeps it to itself: stop it, or look into a copy; a
    /// running broker tells how its store fares in its metrics, `forebay_store_*`.
    #[command(subcommand)]
    Store(Store),
}

const TEST_HELP: &str = "\
A descriptor is a YAML file; its paths are relative to its own folder:

  name: readings are converted
  graph: graph.yaml                  the graph definition
  input: input/                      a folder with a message a file, or one file
  expected: expected.json            what must come out
  timeout: 60000                     milliseconds that it may take
  select: [payload.temperature]      compare only these parts
  ignores: [payload.temperature.max] but not these
  configuration:                     values for the operators' parameters
    - key: threshold
      value: \"20\"
  stateStore: {site: A}              what the state store holds at first, or the path of a JSON file
  schema: schema.json                a JSON schema that operators get when they start

Name, graph, input and expected must be there. Expected is one JSON value, which the last message must be equal to, \
or a list (or a .jsonl file) with all messages in their order: each a payload, or an object with `payload` and as \
much of topic, contentType, userProperties and timestamp as shall be compared. Paths lead into such a message, or \
else into its payload.

Input is a folder whose files are payloads, in the order of their names, on the topic `sensors` (`.raw` files on \
`snapshot_simulation`); or a file of JSON lines (.jsonl), each a payload or an envelope such as
  {\"topic\":\"sensors\",\"timestamp\":1000,\"userProperties\":{\"k\":\"v\"},\"payload\":{\"value\":1}}
with `payloadText`, `payloadBase64` or `payloadFile` in place of `payload` for what is not JSON. The clock goes to each \
message's timestamp (milliseconds, or `__ts` among its user properties), and after the last one until every window \
is closed. A window takes messages for one more second after its end, as it does in a broker.";

const MESSAGES_HELP: &str = "\
Input is a folder whose files are payloads, in the order of their names, or one such file; or a file of JSON lines \
(.jsonl, or standard input), each a payload or an envelope such as
  {\"topic\":\"sensors\",\"timestamp\":1000,\"userProperties\":{\"k\":\"v\"},\"payload\":{\"value\":1}}
with `payloadText`, `payloadBase64` or `payloadFile` in place of `payload` for what is not JSON. What is printed can be \
read again.";

/// Options of `serve`.
#[derive(Debug, Args)]
pub struct Serve {
    /// Listen here for MQTT; may be given several times. Port 0 takes any free port.
    /// Without it, and without a BrokerListener among the resources, that is 127.0.0.1:1883.
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Vec<SocketAddr>,
    /// Ask clients of --listen for a user name and a password, checked against this file (see `forebay passwd`).
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Keep what must outlive the process here: what clients and graphs ask to be persisted, fetched artifacts and
    /// compiled components. One process at a time can have it.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Resources to run: a YAML file, or a directory of them; may be given several times.
    #[arg(short = 'f', long = "file", value_name = "FILE|DIR")]
    pub files: Vec<PathBuf>,
    /// Message schemas: files NAMESPACE/NAME/VERSION.json in this directory, each a JSON Schema (draft-07) or a Delta
    /// schema.
    #[arg(long, value_name = "DIR")]
    pub schemas: Option<PathBuf>,
    /// Keys that the state store may hold; what would be more is answered with an error.
    #[arg(long, value_name = "NUMBER", default_value_t = Quota::KEYS_MAX_DEFAULT)]
    pub state_store_keys: usize,
    /// Bytes of keys and values that the state store may hold.
    #[arg(long, value_name = "BYTES", default_value_t = Quota::BYTES_MAX_DEFAULT)]
    pub state_store_bytes: usize,
    /// Answer /livez, /readyz, /metrics, /status and /subscriptions over HTTP here.
    #[arg(long, value_name = "ADDR:PORT")]
    pub admin: Option<SocketAddr>,
    /// How often registries are asked for new content under the tags of graphs that run; 0s for never.
    #[arg(long, value_name = "DURATION", default_value = "1m")]
    pub registry_poll: humantime::Duration,
    /// Let anybody in from other machines too. Without it, other machines only reach ports that ask clients who they are.
    #[arg(long)]
    pub allow_anonymous: bool,
    /// Connections that there may be at once, over all ports.
    #[arg(long, value_name = "NUMBER", default_value_t = Limits::CONNECTIONS)]
    pub connections: usize,
    /// Connections that there may be at once from one address [default: 1000; this machine's own are not counted].
    #[arg(long, value_name = "NUMBER")]
    pub connections_per_address: Option<usize>,
    /// New connections a second from one address; as many as that in ten seconds may come at once [default: 50; this
    /// machine's own are not counted].
    #[arg(long, value_name = "NUMBER")]
    pub connection_rate: Option<u32>,
    /// How long a client may take for TLS and WebSocket.
    #[arg(long, value_name = "DURATION", default_value_t = Limits::HANDSHAKE.into())]
    pub handshake_timeout: humantime::Duration,
    /// How long a client may take to send its CONNECT after that.
    #[arg(long, value_name = "DURATION", default_value_t = limits::Limits::CONNECT.into())]
    pub connect_timeout: humantime::Duration,
    /// The largest CONNECT that is read.
    #[arg(long, value_name = "BYTES", default_value_t = limits::Limits::CONNECT_BYTES)]
    pub connect_bytes: usize,
}

/// Options of `passwd`.
#[derive(Debug, Args)]
pub struct Passwd {
    /// The password file; made if it is not there.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Whose password it is.
    #[arg(value_name = "USER", required_unless_present = "update")]
    pub user: Option<String>,
    /// The password, with -b only: others on this machine can see it. Without it, you are asked.
    #[arg(value_name = "PASSWORD")]
    pub password: Option<String>,
    /// Take the password from the command line.
    #[arg(short = 'b', conflicts_with_all = ["delete", "update"])]
    pub batch: bool,
    /// Begin the file anew; whoever is in it is forgotten.
    #[arg(short = 'c', conflicts_with_all = ["delete", "update"])]
    pub create: bool,
    /// Delete the user.
    #[arg(short = 'D', conflicts_with = "password")]
    pub delete: bool,
    /// Hash the passwords that stand in the file as they are, `user:password` on each line.
    #[arg(short = 'U', conflicts_with_all = ["user", "delete"])]
    pub update: bool,
    /// How the password is hashed.
    #[arg(short = 'H', value_enum, value_name = "HASH", default_value_t = HASH_DEFAULT)]
    pub hash: HashKind,
    /// Iterations of sha512-pbkdf2: more make a login take longer, and guessing, too.
    #[arg(short = 'I', value_name = "NUMBER", default_value_t = iterations_default())]
    pub iterations: NonZeroU32,
}

/// Options of `validate`.
#[derive(Debug, Args)]
pub struct Validate {
    /// Resources to check: a YAML file, or a directory of them; may be given several times.
    #[arg(short = 'f', long = "file", value_name = "FILE|DIR", required = true)]
    pub files: Vec<PathBuf>,
}

/// Where a running broker is.
#[derive(Debug, Args)]
pub struct At {
    /// The data directory that the broker was started with; its control socket is in there.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The control socket itself; without both, the environment's FOREBAY_SOCKET.
    #[arg(long, value_name = "PATH", conflicts_with = "data_dir")]
    pub socket: Option<PathBuf>,
}

/// Options of `get`.
#[derive(Debug, Args)]
pub struct Get {
    /// What to list: graphs, endpoints, profiles, registries, brokers, listeners, authentications, authorizations, secrets,
    /// configmaps, all, or subscriptions.
    #[arg(value_name = "WHAT")]
    pub what: String,
    /// Only the one of this name.
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// Only of this namespace.
    #[arg(short = 'n', long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// For subscriptions: the broker's admin address.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:9600")]
    pub admin: SocketAddr,
    /// How to print it.
    #[arg(short = 'o', long, value_enum, default_value_t = Format::Table)]
    pub output: Format,
    /// Where the broker is.
    #[command(flatten)]
    pub at: At,
}

/// Options of `apply`.
#[derive(Debug, Args)]
pub struct Apply {
    /// Resources: a file of YAML or JSON, a directory of YAML files, or `-` for standard input; may be given several times.
    #[arg(short = 'f', long = "file", value_name = "FILE|DIR|-", required = true)]
    pub files: Vec<PathBuf>,
    /// Check, and say what would be done, without doing it.
    #[arg(long)]
    pub dry_run: bool,
    /// Where the broker is.
    #[command(flatten)]
    pub at: At,
}

/// Options of `delete`.
#[derive(Debug, Args)]
pub struct Delete {
    /// The kind, as for `get`.
    #[arg(value_name = "WHAT", requires = "name", required_unless_present = "files")]
    pub what: Option<String>,
    /// The name.
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// Only of this namespace.
    #[arg(short = 'n', long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// The resources that stand in here; may be given several times.
    #[arg(short = 'f', long = "file", value_name = "FILE|DIR|-")]
    pub files: Vec<PathBuf>,
    /// Say what would be done, without doing it.
    #[arg(long)]
    pub dry_run: bool,
    /// Where the broker is.
    #[command(flatten)]
    pub at: At,
}

/// Options of `diff`.
#[derive(Debug, Args)]
pub struct Diff {
    /// Resources, as for `apply`.
    #[arg(short = 'f', long = "file", value_name = "FILE|DIR|-", required = true)]
    pub files: Vec<PathBuf>,
    /// Where the broker is.
    #[command(flatten)]
    pub at: At,
}

/// Options of `describe`.
#[derive(Debug, Args)]
pub struct Describe {
    /// The kind, as for `get`.
    #[arg(value_name = "WHAT")]
    pub what: String,
    /// The name.
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Only of this namespace.
    #[arg(short = 'n', long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// Where the broker is.
    #[command(flatten)]
    pub at: At,
}

/// Options of `events`.
#[derive(Debug, Args)]
pub struct Events {
    /// Where the broker is.
    #[command(flatten)]
    pub at: At,
}

/// Options of `logs`.
#[derive(Debug, Args)]
pub struct Logs {
    /// Only lines of this graph.
    #[arg(value_name = "GRAPH")]
    pub graph: Option<String>,
    /// Go on with what is logged from now on.
    #[arg(short = 'f', long)]
    pub follow: bool,
    /// Where the broker is.
    #[command(flatten)]
    pub at: At,
}

/// Options of `refresh`.
#[derive(Debug, Args)]
pub struct Refresh {
    /// Only this graph.
    #[arg(value_name = "GRAPH")]
    pub graph: Option<String>,
    /// Where the broker is.
    #[command(flatten)]
    pub at: At,
}

/// Options of `rollback`.
#[derive(Debug, Args)]
pub struct Rollback {
    /// The graph.
    #[arg(value_name = "GRAPH")]
    pub graph: String,
    /// Where the broker is.
    #[command(flatten)]
    pub at: At,
}

/// How resources are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// For people, with more columns.
    Wide,
    /// For programs.
    Json,
    /// As resources are written.
    Yaml,
}

/// How things are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Options of `demo`.
#[derive(Debug, Args)]
pub struct Demo {
    /// End after ten readings.
    #[arg(long)]
    pub once: bool,
}

/// Options of `test`.
#[derive(Debug, Args)]
pub struct Test {
    /// Test descriptors, or folders to look for them in.
    #[arg(value_name = "DIR|FILE", default_value = ".")]
    pub paths: Vec<PathBuf>,
    /// Give an operator's parameter this value in every test; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub set: Vec<(String, String)>,
    /// Where operators are.
    #[command(flatten)]
    pub operators: Operators,
}

/// Options of `run`.
#[derive(Debug, Args)]
pub struct Run {
    /// The graph definition: a file, or with --registry an artifact such as graph-simple:1.0.0.
    #[arg(value_name = "GRAPH")]
    pub graph: PathBuf,
    /// Messages: a file, a folder with a message a file, or `-` for JSON lines on standard input.
    #[arg(long, value_name = "FILE|DIR|-")]
    pub input: PathBuf,
    /// Print bare payloads, one a line.
    #[arg(long)]
    pub payload: bool,
    /// The topic of messages that do not say theirs.
    #[arg(long, value_name = "TOPIC")]
    pub topic: Option<String>,
    /// Give an operator's parameter this value; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub set: Vec<(String, String)>,
    /// Put this into the state store first; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub state: Vec<(String, String)>,
    /// Give operators the JSON schema in this file when they start.
    #[arg(long, value_name = "FILE")]
    pub schema: Option<PathBuf>,
    /// Where operators are.
    #[command(flatten)]
    pub operators: Operators,
}

/// Where operators are, for `test` and `run`.
#[derive(Debug, Args)]
pub struct Operators {
    /// Look here for operators: module `path/name:tag` is the file name.wasm; may be given several times. Without it
    /// and without --registry they are looked for beside the graph and where Cargo builds.
    #[arg(long, value_name = "DIR")]
    pub operators: Vec<PathBuf>,
    /// Pull operators from this registry: a hostname with or without a path, or `oci:DIR`, an OCI image layout.
    #[arg(long, value_name = "HOST|oci:DIR")]
    pub registry: Option<String>,
}

/// How to look into a store.
#[derive(Debug, Subcommand)]
pub enum Store {
    /// Read every record and verify its checksum.
    ///
    /// Prints a line for each damaged place, as `file:offset: bytes: reason`, and what is lost with it. A half-written
    /// end of the log is no damage: a crash leaves it, and nothing that was acknowledged is in it. Ends with 1 when
    /// something is damaged, and with 2 when it cannot look. The broker starts on a damaged store, too: it sets what is
    /// damaged aside in quarantine/ and goes on with the rest.
    Check(StoreCheck),
    /// Show how much there is of what, and whose queues are the longest.
    Stats(StoreStats),
    /// Print everything as JSON lines.
    ///
    /// Sessions first, then their subscriptions, then messages, each once, then who waits for them, retained messages
    /// and keyed state. Ends with 1 when a message is damaged, and with 2 when it cannot look.
    #[command(after_long_help = EXPORT_HELP)]
    Export(StoreExport),
}

const EXPORT_HELP: &str = "\
Every line is an object with a `type`:

  session       clientId, expirySeconds, closedAt, incoming packet ids of QoS 2, will
  subscription  session, filter, qos, noLocal, retainAsPublished, identifier, persisted
  message       id, topic, qos, retain, receivedAt, expirySeconds, properties, payload
  queued        session and message, with qos, retain, packetId, received, identifiers
  retained      topic and message
  key           key and value
  unreadable    message, and why it cannot be read

Sessions and messages are referred to by number. Moments are milliseconds since 1970. What is not UTF-8 is base64, under \
a name that says so: payloadText or payloadBase64, keyText or keyBase64.";

/// Options of `store check`.
#[derive(Debug, Args)]
pub struct StoreCheck {
    /// The data directory, as `serve` was given it.
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
}

/// Options of `store stats`.
#[derive(Debug, Args)]
pub struct StoreStats {
    /// The data directory, as `serve` was given it.
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// How to print it.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// Options of `store export`.
#[derive(Debug, Args)]
pub struct StoreExport {
    /// The data directory, as `serve` was given it.
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
}

/// What `new` makes.
#[derive(Debug, Subcommand)]
pub enum New {
    /// Make an operator project: source, graph, first test.
    ///
    /// The folder NAME then holds a Rust crate with an operator that already does something, a graph around it, and a
    /// test that passes once it is built. The SDK is not on crates.io: its sources are put into the project.
    Operator(NewOperator),
}

/// Options of `new operator`.
#[derive(Debug, Args)]
pub struct NewOperator {
    /// The operator's name, lower-case letters and digits: the folder, the crate and the module are called so.
    #[arg(value_name = "NAME")]
    pub name: String,
    /// What it does with messages.
    #[arg(long, value_enum)]
    pub kind: OperatorKind,
    /// Use the SDK in this folder, in place of a copy inside the project.
    #[arg(long, value_name = "DIR")]
    pub sdk: Option<PathBuf>,
}

/// What an operator does with messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OperatorKind {
    /// Makes one message of each.
    Map,
    /// Drops some.
    Filter,
    /// Sends each down one of two ways.
    Branch,
    /// Makes one of all messages of a window.
    Accumulate,
    /// Moves messages to a later time, such as the end of a window.
    Delay,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("it takes KEY=VALUE".to_owned()),
    }
}
