//! Resources are written into the watched directory, which stays the one truth: one file each, and all of what was asked for
//! or nothing.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use config::manifest::{Manifest, manifests, manifests_of, to_yaml};
use config::{Finding, ResourceId};
use serde::{Deserialize, Serialize};

use super::show;
use crate::reload::Watch;

/// Why nothing was done, a line each.
#[derive(Debug)]
pub struct Refused(pub Vec<String>);

impl From<String> for Refused {
    fn from(line: String) -> Self {
        Self(vec![line])
    }
}

/// What was done to a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It is new.
    Created,
    /// It says something else than before.
    Configured,
    /// It says what it said.
    Unchanged,
    /// It is gone.
    Deleted,
}

/// One resource, and what was done to it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Applied {
    /// The kind.
    pub kind: String,
    /// The name.
    pub name: String,
    /// What was done.
    pub action: Action,
    /// Warnings about it.
    pub warnings: Vec<String>,
}

/// Which resources are asked for.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Wanted {
    /// Of this kind.
    pub kind: Option<String>,
    /// Of this namespace.
    pub namespace: Option<String>,
    /// Of this name.
    pub name: Option<String>,
}

impl Wanted {
    /// Whether this one is.
    pub fn is(&self, id: &ResourceId) -> bool {
        let same = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|wanted| wanted == is);
        same(&self.kind, &id.kind) && same(&self.namespace, &id.namespace) && same(&self.name, &id.name)
    }
}

/// What is to be deleted.
#[derive(Debug, Serialize, Deserialize)]
pub struct Deletion {
    /// These.
    pub wanted: Vec<Wanted>,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// How a resource is and would be, as YAML.
#[derive(Debug, Serialize, Deserialize)]
pub struct Difference {
    /// The kind.
    pub kind: String,
    /// The name.
    pub name: String,
    /// How it is; empty when it is not there.
    pub before: String,
    /// How it would be.
    pub after: String,
}

/// Writes the resources of a text, if nothing is wrong with them.
pub fn apply(watch: &Watch, text: &str, dry_run: bool) -> Result<Vec<Applied>, Refused> {
    let _files = watch.files.lock();
    let wanted = read(text)?;
    let there = manifests(&watch.paths);
    let mut changes = Changes::default();
    let mut applied = Vec::new();
    for manifest in &wanted {
        let current = there.iter().find(|there| there.id == manifest.id);
        let action = match current {
            None => Action::Created,
            Some(current) if current.value == manifest.value => Action::Unchanged,
            Some(_) => Action::Configured,
        };
        if action != Action::Unchanged {
            let file = place(watch, manifest, current)?;
            changes.write(&file, &manifest.id, &to_yaml(&manifest.value)).map_err(|error| {
                changes.undo();
                format!("{} cannot be written: {error}", file.display())
            })?;
        }
        let ResourceId { kind, name, .. } = manifest.id.clone();
        applied.push(Applied { kind, name, action, warnings: Vec::new() });
    }
    let loaded = config::load(&watch.paths);
    let about = |finding: &&Finding| match &finding.resource {
        Some(id) => wanted.iter().any(|manifest| manifest.id == *id),
        None => changes.has(&finding.file),
    };
    let findings: Vec<&Finding> = loaded.findings.iter().filter(about).collect();
    let errors: Vec<String> = findings.iter().filter(|it| it.is_error()).map(|it| told(it)).collect();
    if !errors.is_empty() || dry_run {
        changes.undo();
    }
    if !errors.is_empty() {
        return Err(Refused(errors));
    }
    for (manifest, applied) in wanted.iter().zip(&mut applied) {
        let of_it = findings.iter().filter(|finding| finding.resource.as_ref() == Some(&manifest.id));
        applied.warnings = of_it.map(|finding| told(finding)).collect();
    }
    watch.asked.notify_one();
    Ok(applied)
}

/// Deletes resources, each of which stands in a file by itself.
pub fn delete(watch: &Watch, order: &Deletion) -> Result<Vec<Applied>, Refused> {
    let _files = watch.files.lock();
    let there = manifests(&watch.paths);
    let mut gone: Vec<&Manifest> = Vec::new();
    for wanted in &order.wanted {
        let found: Vec<&Manifest> = there.iter().filter(|manifest| wanted.is(&manifest.id)).collect();
        if found.is_empty() {
            let kind = wanted.kind.as_deref().unwrap_or("resource");
            return Err(format!("there is no {kind} `{}`", wanted.name.as_deref().unwrap_or("*")).into());
        }
        gone.extend(found);
    }
    if let Some(shared) = gone.iter().find(|manifest| manifest.among > 1) {
        return Err(among(shared, "delete it there").into());
    }
    if !order.dry_run {
        for manifest in &gone {
            fs::remove_file(&manifest.file)
                .map_err(|error| format!("{} cannot be removed: {error}", manifest.file.display()))?;
        }
        watch.asked.notify_one();
    }
    let applied = |manifest: &&Manifest| {
        let ResourceId { kind, name, .. } = manifest.id.clone();
        Applied { kind, name, action: Action::Deleted, warnings: Vec::new() }
    };
    Ok(gone.iter().map(applied).collect())
}

/// How the resources of a text differ from those that are there.
pub fn diff(watch: &Watch, text: &str) -> Result<Vec<Difference>, Refused> {
    let wanted = read(text)?;
    let there = manifests(&watch.paths);
    let differences = wanted.iter().map(|manifest| {
        let current = there.iter().find(|there| there.id == manifest.id).map(|current| &current.value);
        let (before, after) = show::compared(current, &manifest.value);
        let ResourceId { kind, name, .. } = manifest.id.clone();
        Difference { kind, name, before, after }
    });
    Ok(differences.collect())
}

fn read(text: &str) -> Result<Vec<Manifest>, Refused> {
    let told = |findings: Vec<Finding>| Refused(findings.iter().map(told).collect());
    let manifests = manifests_of(Path::new("applied"), text).map_err(told)?;
    match manifests.is_empty() {
        true => Err("there is no resource in it".to_owned().into()),
        false => Ok(manifests),
    }
}

/// A finding as it is told to somebody who sees no files.
fn told(finding: &Finding) -> String {
    match &finding.resource {
        Some(id) => format!("{id}: {}", finding.message),
        None => finding.to_string(),
    }
}

fn among(manifest: &Manifest, what: &str) -> String {
    format!(
        "{} stands in {} with {} others; {what}",
        manifest.id,
        manifest.file.display(),
        manifest.among - 1
    )
}

/// The file that a resource is written to.
fn place(watch: &Watch, manifest: &Manifest, current: Option<&Manifest>) -> Result<PathBuf, Refused> {
    if let Some(current) = current {
        return match current.among {
            1 => Ok(current.file.to_path_buf()),
            _ => Err(among(current, "change it there").into()),
        };
    }
    let ResourceId { kind, namespace, name } = &manifest.id;
    // Names become part of a path.
    let legal = |text: &str| {
        !text.is_empty()
            && !text.starts_with('.')
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
    };
    if ![kind, namespace, name].iter().all(|text| legal(text)) {
        return Err(format!("{} has a name that no resource can have", manifest.id).into());
    }
    let directory = watch.paths.iter().find(|path| path.is_dir()).ok_or_else(|| {
        "the broker has no directory of resources to write to; start it with `forebay serve -f DIR`"
            .to_owned()
    })?;
    Ok(directory.join(format!("{}.{namespace}.{name}.yaml", kind.to_lowercase())))
}

/// Files that were written, and how they were.
#[derive(Default)]
struct Changes(Vec<(PathBuf, Option<Vec<u8>>)>);

impl Changes {
    fn write(&mut self, path: &Path, id: &ResourceId, text: &str) -> io::Result<()> {
        let before = match fs::read(path) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        replace(path, text.as_bytes(), id.kind == "Secret")?;
        self.0.push((path.to_owned(), before));
        Ok(())
    }

    fn has(&self, path: &Path) -> bool {
        self.0.iter().any(|(file, _)| file == path)
    }

    /// Everything is as it was.
    fn undo(&mut self) {
        for (path, before) in self.0.drain(..).rev() {
            let undone = match before {
                Some(bytes) => replace(&path, &bytes, false),
                None => fs::remove_file(&path),
            };
            if let Err(error) = undone {
                tracing::error!("{} cannot be brought back to what it was: {error}", path.display());
            }
        }
    }
}

/// Puts a whole file in place, or nothing.
fn replace(path: &Path, bytes: &[u8], secret: bool) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    // Hidden, and not called *.yaml: nobody reads it half written.
    let temporary = directory.join(format!(".forebay-{}.tmp", std::process::id()));
    let mode = if secret { 0o600 } else { 0o644 };
    let _ = fs::remove_file(&temporary);
    let mut file = File::options().write(true).create_new(true).mode(mode).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(directory)?.sync_all()
}
