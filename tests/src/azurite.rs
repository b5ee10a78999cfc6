//! An object store of Azure's, Azurite, and readers of Parquet and Delta that others wrote.

use std::net::SocketAddr;
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::process::{self, Process};
use crate::{repository, wait};

/// The account that Azurite always has, and its key; both are public.
pub const ACCOUNT: &str = "devstoreaccount1";
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// A running store. What it was given survives.
pub struct Azurite {
    /// Where it listens.
    pub addr: SocketAddr,
    process: Option<Process>,
    data: TempDir,
}

impl Azurite {
    /// An empty one.
    pub fn start() -> Self {
        let data = TempDir::new().expect("a directory");
        let mut store = Self { addr: wait::free_addr(), process: None, data };
        store.resume();
        store
    }

    /// Starts it again.
    pub fn resume(&mut self) {
        let program = repository().join(".tools/node/node_modules/.bin/azurite-blob");
        assert!(program.exists(), "Azurite is there; tests/setup installs it");
        let mut command = Command::new(program);
        command.args(["--silent", "--skipApiVersionCheck", "--disableTelemetry", "--location"]);
        command.arg(self.data.path()).args(["--blobHost", &self.addr.ip().to_string()]);
        command.args(["--blobPort", &self.addr.port().to_string()]);
        self.process = Some(Process::start(command));
        wait::until("Azurite listens", || {
            std::net::TcpStream::connect(self.addr).map(|_| ()).map_err(|error| error.to_string())
        });
    }

    /// Stops it in good order: killed, it forgets what it has taken.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::TERM);
            process.wait();
        }
    }

    /// Makes it hold still, as a machine that hangs does.
    pub fn hang(&self) {
        self.process.iter().for_each(Process::hang);
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        self.process.iter().for_each(Process::go_on);
    }

    /// Its address as the `host` of an endpoint.
    pub fn host(&self) -> String {
        format!("http://{}/{ACCOUNT}", self.addr)
    }

    /// A shared access signature that lets everything be done, for an hour.
    pub fn access_token(&self) -> String {
        self.python("print(token(3600))", &[]).trim().to_owned()
    }

    /// One that has ended.
    pub fn ended_access_token(&self) -> String {
        self.python("print(token(-3600))", &[]).trim().to_owned()
    }

    /// Makes a container.
    pub fn create(&self, container: &str) {
        let script = "request('PUT', '/' + arguments[0] + '?restype=container&')";
        self.python(script, &[container]);
    }

    /// The names of what is in a container.
    pub fn names(&self, container: &str) -> Vec<String> {
        let script = "import re\n\
            text = request('GET', '/' + arguments[0] + '?restype=container&comp=list&').decode()\n\
            print('\\n'.join(re.findall('<Name>(.*?)</Name>', text)))\n";
        self.python(script, &[container]).lines().map(ToOwned::to_owned).filter(|it| !it.is_empty()).collect()
    }

    /// The records of all Parquet files in a container, as pyarrow reads them.
    pub fn parquet(&self, container: &str) -> Vec<Value> {
        let script = "import io, pyarrow.parquet\n\
            for name in arguments[1:]:\n\
            \x20 file = io.BytesIO(request('GET', '/' + arguments[0] + '/' + name + '?'))\n\
            \x20 show(pyarrow.parquet.read_table(file).to_pylist())\n";
        let names = self.names(container);
        let arguments: Vec<&str> =
            std::iter::once(container).chain(names.iter().map(String::as_str)).collect();
        lines(&self.python(script, &arguments))
    }

    /// The records of a table, as delta-rs reads them; none when there is no table.
    pub fn delta(&self, table: &str) -> Vec<Value> {
        let script = "import deltalake\n\
            options = {'account_name': account, 'account_key': key, 'use_emulator': 'true', 'allow_http': 'true'}\n\
            import os\n\
            os.environ['AZURITE_BLOB_STORAGE_URL'] = base.rsplit('/', 1)[0]\n\
            path = 'az://' + arguments[0]\n\
            if deltalake.DeltaTable.is_deltatable(path, options):\n\
            \x20 show(deltalake.DeltaTable(path, storage_options=options).to_pyarrow_table().to_pylist())\n";
        lines(&self.python(script, &[table]))
    }

    fn python(&self, script: &str, arguments: &[&str]) -> String {
        let prelude = "import base64, datetime, decimal, hashlib, hmac, json, sys, urllib.parse, urllib.request\n\
            base, account, key, arguments = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]\n\
            def token(seconds):\n\
            \x20 end = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds)\n\
            \x20 end, version = end.strftime('%Y-%m-%dT%H:%M:%SZ'), '2023-11-03'\n\
            \x20 words = [account, 'rwdlac', 'b', 'sco', '', end, '', '', version, '', '']\n\
            \x20 signed = hmac.new(base64.b64decode(key), '\\n'.join(words).encode(), hashlib.sha256).digest()\n\
            \x20 pairs = dict(sv=version, ss='b', srt='sco', sp='rwdlac', se=end, sig=base64.b64encode(signed).decode())\n\
            \x20 return urllib.parse.urlencode(pairs)\n\
            def request(method, path):\n\
            \x20 asked = urllib.request.Request(base + path + token(3600), method=method)\n\
            \x20 return urllib.request.urlopen(asked).read()\n\
            def plain(value):\n\
            \x20 if isinstance(value, bytes): return list(value)\n\
            \x20 return str(value)\n\
            def show(records):\n\
            \x20 for record in records: print(json.dumps(record, default=plain))\n";
        let mut command = Command::new(repository().join(".tools/clients/bin/python"));
        // delta-rs now and then aborts when the interpreter is taken down.
        let end = "\nimport os\nsys.stdout.flush()\nos._exit(0)\n";
        command.args(["-c", &format!("{prelude}{script}{end}"), &self.host(), ACCOUNT, KEY]).args(arguments);
        let (status, output) = process::run(command);
        assert!(status.success(), "{status}: {output}");
        output
    }
}

/// The records of all Parquet files in a directory, as DuckDB reads them.
pub fn duckdb(directory: &std::path::Path) -> Vec<Value> {
    let script = "import duckdb, glob, json, sys\n\
        files = sorted(glob.glob(sys.argv[1] + '/*.parquet'))\n\
        rows = duckdb.read_parquet(files) if files else None\n\
        names = rows.columns if files else []\n\
        for row in (rows.fetchall() if files else []):\n\
        \x20 print(json.dumps(dict(zip(names, row)), default=lambda it: list(it) if isinstance(it, bytes) else str(it)))\n";
    let mut command = Command::new(repository().join(".tools/clients/bin/python"));
    command.args(["-c", script]).arg(directory);
    let (status, output) = process::run(command);
    assert!(status.success(), "{output}");
    lines(&output)
}

fn lines(output: &str) -> Vec<Value> {
    output
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("JSON: {output}")))
        .collect()
}
