//! What listeners and authentication refer to: entries of Secrets and ConfigMaps, from the resource itself or from a
//! directory that it names, as Kubernetes would mount it.

use std::path::{Path, PathBuf};

use config::{Resource, Resources};

use super::seen::Seen;

/// The largest entry that is read from a directory.
const ENTRY_BYTES_MAX: u64 = 1 << 20;

/// Looks entries up, and remembers the files that they came from: who watches them sees when they change.
#[derive(Debug)]
pub struct Secrets<'a> {
    resources: &'a Resources,
    /// Files that were looked at, as they were before.
    pub files: Vec<Seen>,
}

impl<'a> Secrets<'a> {
    /// Of these resources.
    pub fn new(resources: &'a Resources) -> Self {
        Self { resources, files: Vec::new() }
    }

    /// An entry of a Secret.
    ///
    /// # Errors
    /// Names the Secret and what it lacks.
    pub fn secret(&mut self, namespace: &str, name: &str, key: &str) -> Result<Vec<u8>, String> {
        let secret = find(&self.resources.secrets, namespace, name)
            .ok_or_else(|| format!("the Secret `{name}` does not exist"))?;
        let found = match self.directory(secret) {
            Some(directory) => self.read(&directory.join(key)),
            None => secret.spec.bytes(key).map(<[u8]>::to_vec).ok_or_else(|| format!("has no key `{key}`")),
        };
        found.map_err(|fault| format!("the Secret `{name}` {fault}"))
    }

    /// All entries of a ConfigMap, one after the other.
    ///
    /// # Errors
    /// Names the ConfigMap and what is wrong with it.
    pub fn config_map(&mut self, namespace: &str, name: &str) -> Result<Vec<u8>, String> {
        let map = find(&self.resources.config_maps, namespace, name)
            .ok_or_else(|| format!("the ConfigMap `{name}` does not exist"))?;
        let mut all = Vec::new();
        let mut add = |bytes: &[u8]| {
            all.extend_from_slice(bytes);
            all.push(b'\n');
        };
        if let Some(directory) = self.directory(map) {
            // A file that comes changes the directory only.
            self.files.push(Seen::now(&directory));
            let paths = entries(&directory).map_err(|fault| format!("the ConfigMap `{name}` {fault}"))?;
            for path in paths {
                add(&self.read(&path).map_err(|fault| format!("the ConfigMap `{name}` {fault}"))?);
            }
        }
        map.spec.data.values().for_each(|text| add(text.as_bytes()));
        map.spec.binary_data.values().for_each(|bytes| add(bytes));
        Ok(all)
    }

    /// A path that a resource names; relative ones begin where the resource stands.
    pub fn path<T>(&mut self, owner: &Resource<T>, path: &Path) -> PathBuf {
        let path = owner.beside(path);
        self.files.push(Seen::now(&path));
        path
    }

    fn directory<T>(&self, owner: &Resource<T>) -> Option<PathBuf> {
        owner.meta.settings.directory.as_deref().map(|path| owner.beside(path))
    }

    fn read(&mut self, path: &Path) -> Result<Vec<u8>, String> {
        self.files.push(Seen::now(path));
        let shown = path.display();
        let fail = |error: std::io::Error| format!("cannot be read: {shown}: {error}");
        match std::fs::metadata(path).map_err(fail)?.len() {
            0..=ENTRY_BYTES_MAX => std::fs::read(path).map_err(fail),
            _ => Err(format!("cannot be read: {shown} is larger than {ENTRY_BYTES_MAX} bytes")),
        }
    }
}

/// The resource of that name.
pub fn find<'a, T>(list: &'a [Resource<T>], namespace: &str, name: &str) -> Option<&'a Resource<T>> {
    list.iter().find(|resource| resource.id.name == name && resource.id.namespace == namespace)
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let fail = |error: std::io::Error| format!("cannot be read: {}: {error}", directory.display());
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}
