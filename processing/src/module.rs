//! Components: compiled once, by digest.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use wasmtime::component::{Component, ComponentExportIndex, InstancePre};

use processing_core::graph::Kind;

use crate::host::{Host, State};
use crate::state_store::StateStore;

/// A compiled component, linked to the host.
#[derive(Clone)]
pub struct Module {
    pub(crate) pre: InstancePre<State>,
    /// `sha256:…` of the bytes it was compiled from.
    pub digest: Arc<str>,
}

/// Why bytes are no module.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    /// Not a WebAssembly component at all, or one that does not compile.
    #[error("it is no WebAssembly component: {0}")]
    NotAComponent(String),
    /// It wants what the host does not give.
    #[error("it cannot be linked: {0}")]
    Imports(String),
    /// It does not do what the operation asks.
    #[error("it has no export {expected}; it exports {found}")]
    Export {
        /// The interface that was looked for.
        expected: String,
        /// What there is instead.
        found: String,
    },
}

/// All modules of the process.
pub struct Modules {
    host: Host,
    compiled: Arc<Mutex<HashMap<Arc<str>, Module>>>,
    cache: Option<PathBuf>,
}

impl Modules {
    /// `cache` is a directory that nobody else writes to: what is read from it is run as machine code.
    pub fn new(host: Host, cache: Option<PathBuf>) -> Self {
        Self { host, compiled: Arc::default(), cache }
    }

    /// The same compiled modules, whose instances get `state_store` and share nothing with those of this one.
    #[must_use]
    pub fn with_state_store(&self, state_store: Arc<StateStore>) -> Self {
        let host = self.host.with_state_store(state_store);
        Self { host, compiled: Arc::clone(&self.compiled), cache: self.cache.clone() }
    }

    /// The host.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Compiles `bytes`, or finds what was compiled of them before. Takes a moment: not for the message path.
    ///
    /// # Errors
    /// Bytes that are no component, or one that wants what the host does not give.
    pub fn load(&self, bytes: &[u8]) -> Result<Module, ModuleError> {
        let digest: Arc<str> = digest(bytes).into();
        if let Some(module) = self.compiled.lock().get(&digest) {
            return Ok(module.clone());
        }
        let component = match self.cached(&digest) {
            Some(component) => component,
            None => self.compile(bytes, &digest)?,
        };
        let pre = self.host.linker.instantiate_pre(&component).map_err(|error| {
            ModuleError::Imports(lacks_nn(&component).unwrap_or_else(|| format!("{error:#}")))
        })?;
        let module = Module { pre, digest: Arc::clone(&digest) };
        self.compiled.lock().insert(digest, module.clone());
        Ok(module)
    }

    fn compile(&self, bytes: &[u8], digest: &str) -> Result<Component, ModuleError> {
        let component = Component::from_binary(&self.host.engine, bytes)
            .map_err(|error| ModuleError::NotAComponent(explain(bytes, &error)))?;
        if let Some(path) = self.path(digest)
            && let Err(error) = store(&path, &component)
        {
            tracing::warn!(path = %path.display(), %error, "a compiled component cannot be kept");
        }
        Ok(component)
    }

    fn path(&self, digest: &str) -> Option<PathBuf> {
        let mut key = std::hash::DefaultHasher::new();
        std::hash::Hash::hash(&self.host.engine.precompile_compatibility_hash(), &mut key);
        let engine = std::hash::Hasher::finish(&key);
        Some(self.cache.as_ref()?.join(format!("{engine:016x}-{}", digest.trim_start_matches("sha256:"))))
    }

    fn cached(&self, digest: &str) -> Option<Component> {
        let path = self.path(digest)?;
        if !private(&path) {
            return None;
        }
        #[allow(unsafe_code)]
        // SAFETY: `deserialize_file` runs what it reads, so the file must be one that `Component::serialize`
        // wrote. Only `store` below writes to the cache directory, which is made with mode 0700, and the file
        // with mode 0600; `private` has just checked that both belong to this process's user and that nobody
        // else may write to them. Whoever can change the file all the same is this user (or root), and could
        // change this program as well. A file of another wasmtime or configuration has another name, and
        // wasmtime checks its header, too.
        let component = unsafe { Component::deserialize_file(&self.host.engine, &path) };
        match component {
            Ok(component) => Some(component),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a compiled component is unusable; compiling anew");
                None
            }
        }
    }
}

/// The version of wasi-nn that AIO's operators are made for (AIO.md §1.5).
const NN_VERSION: &str = "0.2.0-rc-2024-10-28";

/// The first interface of wasi-nn that a component imports.
fn wanted_nn(component: &Component) -> Option<String> {
    let ty = component.component_type();
    let mut names = ty.imports(component.engine()).map(|(name, _)| name);
    names.find(|name| name.starts_with("wasi:nn/")).map(str::to_owned)
}

/// Why a component that wants wasi-nn does not get it.
fn lacks_nn(component: &Component) -> Option<String> {
    let wanted = wanted_nn(component)?;
    Some(if !cfg!(feature = "wasi-nn") {
        format!("it imports {wanted}, and this host was built without the feature `wasi-nn`")
    } else if !wanted.ends_with(NN_VERSION) {
        format!("it imports {wanted}; what there is is version {NN_VERSION}")
    } else {
        return None;
    })
}

/// The digest of `bytes`, as registries write it.
pub fn digest(bytes: &[u8]) -> String {
    use std::fmt::Write;
    Sha256::digest(bytes).iter().fold(String::from("sha256:"), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn explain(bytes: &[u8], error: &wasmtime::Error) -> String {
    if !bytes.starts_with(b"\0asm") {
        return "the file does not begin like WebAssembly".to_owned();
    }
    if bytes.get(4..8) == Some(&[1, 0, 0, 0]) {
        return "it is a core module; build it for wasm32-wasip2".to_owned();
    }
    format!("{error:#}")
}

/// Whether the file and its directory are ours alone.
fn private(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let Ok(me) = std::fs::metadata("/proc/self").map(|m| m.uid()) else { return false };
    let ours = |path: &Path| {
        std::fs::symlink_metadata(path)
            .is_ok_and(|m| !m.is_symlink() && m.uid() == me && m.mode() & 0o022 == 0)
    };
    ours(path) && path.parent().is_some_and(ours)
}

/// Writes next to its place and renames, so that a reader sees all or nothing.
fn store(path: &Path, component: &Component) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    let bytes = component.serialize().map_err(std::io::Error::other)?;
    if let Some(directory) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    // Two graphs may begin with the same module at the same time.
    static PARTS: AtomicU64 = AtomicU64::new(0);
    let number = PARTS.fetch_add(1, Ordering::Relaxed);
    let part = path.with_extension(format!("part{}-{number}", std::process::id()));
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    std::fs::rename(&part, path)
}

/// A generation of the contract (AIO.md §1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contract {
    /// `wasm-graph:processor@1.1.0`.
    Current,
    /// `tinykube-graph:processor@1.0.0`, whose operators cannot answer with an error.
    Preview,
}

impl Contract {
    /// The full name of one of its interfaces.
    pub fn interface(self, name: &str) -> String {
        match self {
            Self::Current => format!("wasm-graph:processor/{name}@1.1.0"),
            Self::Preview => format!("tinykube-graph:processor/{name}@1.0.0"),
        }
    }
}

impl Module {
    /// Whether it imports wasi-nn.
    pub(crate) fn wants_nn(&self) -> bool {
        wanted_nn(self.pre.component()).is_some()
    }

    /// Where in the component `process` and `init` of an operation of this kind are, and by which contract.
    pub(crate) fn exports(&self, kind: Kind) -> Result<Exports, ModuleError> {
        let component = self.pre.component();
        let of = |contract: Contract| {
            let (_, interface) = component.get_export(None, contract.interface(kind.as_str()))?;
            let (_, process) = component.get_export(Some(&interface), "process")?;
            let (_, init) = component.get_export(Some(&interface), "init")?;
            Some(Exports { contract, process, init })
        };
        let expected = || Contract::Current.interface(kind.as_str());
        let missing = || ModuleError::Export { expected: expected(), found: self.found() };
        of(Contract::Current).or_else(|| of(Contract::Preview)).ok_or_else(missing)
    }

    fn found(&self) -> String {
        let component = self.pre.component();
        let names: Vec<String> =
            component.component_type().exports(component.engine()).map(|(name, _)| name.to_owned()).collect();
        if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
    }
}

/// The functions of one operator.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Exports {
    pub(crate) contract: Contract,
    pub(crate) process: ComponentExportIndex,
    pub(crate) init: ComponentExportIndex,
}
