//! From files to [`Loaded`]: which files are read, and what all of them say together.

use crate::check::check;
use crate::finding::{Finding, Position, Report, ResourceId};
use crate::plan::GraphPlan;
use crate::resource::Resources;
use crate::yaml::{TEXT_BYTES_MAX, documents};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// How deep directories are followed.
const DIRECTORY_DEPTH_MAX: usize = 16;
/// How many files one call reads.
const FILES_MAX: usize = 10_000;

/// What was read: every resource that is right by itself, and everything there is to tell.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// The resources.
    pub resources: Resources,
    /// The findings, by file and place.
    pub findings: Vec<Finding>,
}

impl Loaded {
    /// Whether anything is wrong.
    pub fn has_errors(&self) -> bool {
        self.findings.iter().any(Finding::is_error)
    }

    /// What there is to tell about one resource.
    pub fn findings_of<'a>(&'a self, id: &'a ResourceId) -> impl Iterator<Item = &'a Finding> {
        self.findings.iter().filter(move |finding| finding.resource.as_ref() == Some(id))
    }

    /// The graphs that are enabled and without errors, with all that they refer to; one for each instance.
    pub fn plans(&self) -> Vec<GraphPlan<'_>> {
        let graphs = self.resources.graphs.iter();
        graphs.filter_map(|graph| GraphPlan::of(graph, self)).flat_map(GraphPlan::instances).collect()
    }
}

/// Loads resources from files and directories.
///
/// Of a directory every `*.yaml` and `*.yml` is read, and every `*.json` that is a resource or a body of one, in the order of
/// names, and of the directories in it as well, except hidden ones, linked ones and OCI image layouts. A file that was named itself is
/// read whatever it is called. Nothing that is wrong in one resource keeps the others from loading.
pub fn load(paths: &[PathBuf]) -> Loaded {
    let mut reading = Reading::default();
    reading.paths(paths);
    reading.finish()
}

/// The files that [`load`] would read now.
pub fn files(paths: &[PathBuf]) -> Vec<PathBuf> {
    let mut files = watched(paths);
    files.retain(|path| paths.contains(path) || is_of_resources(path));
    files
}

/// The files that [`load`] would look at now, for whoever watches them: nothing is read for that.
pub fn watched(paths: &[PathBuf]) -> Vec<PathBuf> {
    let mut reading = Reading { listed: Some(Vec::new()), ..Reading::default() };
    reading.paths(paths);
    reading.listed.unwrap_or_default()
}

/// Loads resources from a text; `name` stands for the file in findings, and relative paths in the text
/// are relative to its directory.
pub fn load_str(name: &str, text: &str) -> Loaded {
    let mut reading = Reading::default();
    reading.text(Path::new(name), text);
    reading.finish()
}

/// Reads one file as text, within the bounds that all configuration is read in.
///
/// # Errors
/// A file that is not there, too large, or no UTF-8 text; as findings.
pub fn load_text(path: &Path) -> Result<String, Vec<Finding>> {
    read_text(path).map_err(|(position, fault)| {
        let mut report = Report::new(path);
        report.error(position, "", format!("the file {fault}"));
        report.findings
    })
}

#[derive(Default)]
struct Reading {
    resources: Resources,
    findings: Vec<Finding>,
    seen: BTreeSet<PathBuf>,
    /// Where files are only listed.
    listed: Option<Vec<PathBuf>>,
}

impl Reading {
    fn paths(&mut self, paths: &[PathBuf]) {
        for path in paths {
            match fs::metadata(path) {
                Ok(metadata) if metadata.is_dir() => self.directory(path, 0),
                Ok(_) => self.file(path),
                Err(error) => self.fail(path, &format!("cannot be read: {error}")),
            }
        }
    }

    fn directory(&mut self, directory: &Path, depth: usize) {
        if depth > DIRECTORY_DEPTH_MAX {
            return self.fail(directory, &format!("is more than {DIRECTORY_DEPTH_MAX} directories deep"));
        }
        let entries = fs::read_dir(directory).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
        let mut entries = match entries {
            Ok(entries) => entries,
            Err(error) => return self.fail(directory, &format!("cannot be read: {error}")),
        };
        entries.sort_by_key(fs::DirEntry::file_name);
        // The marker file of an image layout: what lies there belongs to a registry.
        if depth > 0 && entries.iter().any(|entry| entry.file_name() == "oci-layout") {
            return;
        }
        for entry in entries {
            let (path, name) = (entry.path(), entry.file_name());
            let hidden = name.as_encoded_bytes().starts_with(b".");
            // Links to files are followed (Kubernetes mounts them so), links to directories are not.
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if !hidden {
                    self.directory(&path, depth + 1);
                }
            } else if !hidden
                && matches!(path.extension(), Some(end) if end == "yaml" || end == "yml" || end == "json")
                && !path.is_dir()
                && (self.listed.is_some() || is_of_resources(&path))
            {
                self.file(&path);
            }
        }
    }

    fn file(&mut self, path: &Path) {
        let identity = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        if !self.seen.insert(identity) {
            return;
        }
        if self.seen.len() > FILES_MAX {
            return self.fail(path, &format!("is left out: more than {FILES_MAX} files"));
        }
        if let Some(listed) = &mut self.listed {
            return listed.push(path.to_owned());
        }
        match read_text(path) {
            Ok(text) => self.text(path, &text),
            Err((position, fault)) => self.fail_at(path, position, &fault),
        }
    }

    fn text(&mut self, path: &Path, text: &str) {
        let mut report = Report::new(path);
        match documents(text) {
            Ok(documents) => {
                if documents.is_empty() {
                    report.warning(Position::START, "", "the file holds no resource");
                }
                for document in &documents {
                    self.resources.read(document, &mut report);
                }
            }
            Err(fault) => report.error(fault.position, "", fault.message),
        }
        self.findings.append(&mut report.findings);
    }

    fn fail(&mut self, path: &Path, fault: &str) {
        self.fail_at(path, Position::START, fault);
    }

    fn fail_at(&mut self, path: &Path, position: Position, fault: &str) {
        let mut report = Report::new(path);
        report.error(position, "", format!("the file {fault}"));
        self.findings.append(&mut report.findings);
    }

    fn finish(mut self) -> Loaded {
        check(&self.resources, &mut self.findings);
        self.findings.sort_by(Finding::order);
        Loaded { resources: self.resources, findings: self.findings }
    }
}

/// Whether a file in a directory is read. JSON is much else, too: only what is a resource, or a body of one.
fn is_of_resources(path: &Path) -> bool {
    match path.extension() {
        Some(end) if end == "json" => {
            // What cannot be read may well be one: it is told, and nothing is taken for gone.
            let Some(value) = read_text(path).ok().and_then(|text| serde_json::from_str::<Value>(&text).ok())
            else {
                return true;
            };
            let said = |key: &str| value.get(key)?.as_str();
            let body = said("type")
                .is_some_and(|kind| kind.to_ascii_lowercase().starts_with("microsoft.iotoperations/"));
            body || (said("apiVersion").is_some() && said("kind").is_some())
        }
        _ => true,
    }
}

/// Reads a file as text; otherwise says what is wrong with it and where.
fn read_text(path: &Path) -> Result<String, (Position, String)> {
    let fail = |error: std::io::Error| (Position::START, format!("cannot be read: {error}"));
    // Looked at before it is opened: to open a pipe is to wait for somebody to write.
    if !fs::metadata(path).map_err(fail)?.is_file() {
        return Err((Position::START, "is no regular file".to_owned()));
    }
    let file = File::open(path).map_err(fail)?;
    let mut bytes = Vec::new();
    let limit = u64::try_from(TEXT_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    file.take(limit).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() > TEXT_BYTES_MAX {
        return Err((Position::START, format!("is larger than {TEXT_BYTES_MAX} bytes")));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let before = String::from_utf8_lossy(&error.as_bytes()[..valid]).into_owned();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
        let narrow = |number| u32::try_from(number).unwrap_or(u32::MAX);
        (Position { line: narrow(line), column: narrow(column) }, "is not UTF-8 text".to_owned())
    })
}
