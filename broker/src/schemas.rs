//! Message schemas, from files and from ConfigMaps, into the registry that graphs and guests ask.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use config::Loaded;
use processing::schema::{Schema, SchemaError, SchemaRef, SchemaRegistry};

/// A schema that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{from}: {error}")]
pub struct Unusable {
    /// The file or the resource.
    from: String,
    error: Fault,
}

#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error("cannot be read: {0}")]
    Read(#[from] std::io::Error),
    #[error(
        "a ConfigMap with the annotation forebay.dev/schema has one entry, the document; this one has {0}"
    )]
    Entries(usize),
}

/// Reads all schemas there are. Returns what is wrong with those that cannot be used.
pub fn load(loaded: &Loaded, directory: Option<&Path>) -> (Arc<SchemaRegistry>, Vec<Unusable>) {
    let registry = Arc::new(SchemaRegistry::default());
    let unusable = read_into(&registry, loaded, directory);
    (registry, unusable)
}

/// Reads all schemas there are, in place of those of the same name.
pub fn read_into(registry: &SchemaRegistry, loaded: &Loaded, directory: Option<&Path>) -> Vec<Unusable> {
    let mut unusable = Vec::new();
    let mut take = |from: String, schema: Result<Schema, Fault>| match schema {
        Ok(schema) => registry.add(schema),
        Err(error) => unusable.push(Unusable { from, error }),
    };
    for map in &loaded.resources.config_maps {
        if let Some(reference) = &map.meta.settings.schema {
            take(map.id.to_string(), from_entries(reference, map.spec.data.values()));
        }
    }
    for (path, reference) in directory.map(files).unwrap_or_default() {
        let read = || Ok(Schema::read(SchemaRef::parse(&reference)?, &std::fs::read_to_string(&path)?)?);
        take(path.display().to_string(), read());
    }
    if let Some(directory) = directory.filter(|directory| !directory.is_dir()) {
        let error = std::io::Error::from(std::io::ErrorKind::NotADirectory);
        take(directory.display().to_string(), Err(error.into()));
    }
    unusable
}

fn from_entries<'a>(
    reference: &str,
    entries: impl ExactSizeIterator<Item = &'a String>,
) -> Result<Schema, Fault> {
    let (count, mut entries) = (entries.len(), entries);
    let document = entries.next().filter(|_| count == 1).ok_or(Fault::Entries(count))?;
    Ok(Schema::read(SchemaRef::parse(reference)?, document)?)
}

/// The files `<namespace>/<name>/<version>.json` with what they name.
fn files(directory: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for (namespace, of_namespace) in entries(directory) {
        for (name, of_name) in entries(&of_namespace) {
            for (file, path) in entries(&of_name) {
                if let Some(version) = file.strip_suffix(".json") {
                    found.push((path, format!("aio-sr://{namespace}/{name}:{version}")));
                }
            }
        }
    }
    found
}

/// What lies in a directory, by name; nothing when it is none.
fn entries(directory: &Path) -> Vec<(String, PathBuf)> {
    let list = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut entries: Vec<(String, PathBuf)> =
        list.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path())).collect();
    entries.sort();
    entries
}
