//! Secrets and ConfigMaps whose entries are the files of a directory (`forebay.dev/directory`), as Kubernetes would mount them.

use super::Resource;
use super::secret::{ConfigMap, Secret};
use std::fs;
use std::path::{Path, PathBuf};

/// The largest entry that is read.
const ENTRY_BYTES_MAX: u64 = 1 << 20;

impl<T> Resource<T> {
    /// A path that this resource names; relative ones begin where its file stands.
    pub fn beside(&self, path: &Path) -> PathBuf {
        match self.file.parent() {
            Some(directory) => directory.join(path),
            None => path.to_owned(),
        }
    }

    /// The files of its directory with their names; none when it names no directory. What cannot be read is not there.
    fn mounted(&self) -> Vec<(String, Vec<u8>)> {
        let Some(directory) = self.meta.settings.directory.as_deref() else { return Vec::new() };
        let entries = fs::read_dir(self.beside(directory)).into_iter().flatten().flatten();
        let read = |path: PathBuf| {
            let name = path.file_name()?.to_str().filter(|name| !name.starts_with('.'))?.to_owned();
            let metadata = fs::metadata(&path).ok()?;
            let fits = metadata.is_file() && metadata.len() <= ENTRY_BYTES_MAX;
            fits.then(|| fs::read(&path).ok()).flatten().map(|bytes| (name, bytes))
        };
        entries.filter_map(|entry| read(entry.path())).collect()
    }
}

impl Resource<Secret> {
    /// The Secret with what is in its directory now.
    pub fn whole(&self) -> Secret {
        let mut secret = self.spec.clone();
        self.mounted().into_iter().for_each(|(key, bytes)| secret.set(key, bytes));
        secret
    }
}

impl Resource<ConfigMap> {
    /// The ConfigMap with what is in its directory now.
    pub fn whole(&self) -> ConfigMap {
        let mut map = self.spec.clone();
        for (key, bytes) in self.mounted() {
            match String::from_utf8(bytes) {
                Ok(text) => drop(map.data.insert(key, text)),
                Err(error) => drop(map.binary_data.insert(key, error.into_bytes())),
            }
        }
        map
    }
}
