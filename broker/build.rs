//! Puts the sources of the operators' SDK and of the contract into the binary, for `forebay new operator`.

use std::env;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// The folders, and what they are called in a project.
const FOLDERS: [(&str, &str); 2] = [("processing/sdk", "wasm_graph_sdk"), ("processing/wit", "wit")];
/// What of them is source.
const ENDINGS: [&str; 3] = ["rs", "toml", "wit"];

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("..");
    let mut table = String::from(
        "/// Paths inside a project's `sdk` folder, and texts.\npub const SDK: &[(&str, &str)] = &[\n",
    );
    for (folder, name) in FOLDERS {
        let mut files = Vec::new();
        sources(&root.join(folder), Path::new(name), &mut files)?;
        for (path, source) in files {
            println!("cargo::rerun-if-changed={}", source.display());
            writeln!(table, "    ({path:?}, include_str!({source:?})),")?;
        }
    }
    table += "];\n";
    fs::write(Path::new(&env::var("OUT_DIR")?).join("sdk.rs"), table)?;
    Ok(())
}

fn sources(folder: &Path, name: &Path, files: &mut Vec<(PathBuf, PathBuf)>) -> Result<(), Box<dyn Error>> {
    // A file that comes or goes.
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (path, name) = (entry.path(), name.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            if entry.file_name() != "target" {
                sources(&path, &name, files)?;
            }
        } else if path.extension().is_some_and(|end| ENDINGS.iter().any(|ending| end == *ending)) {
            files.push((name, path.canonicalize()?));
        }
    }
    Ok(())
}
