//! What tells this process from others in remote systems: part of client ids and the like.

use std::fs;
use std::path::Path;

use uuid::Uuid;

/// The file in the data directory that keeps it.
const FILE: &str = "process-id";
/// How many letters and digits it has.
const LENGTH: usize = 12;

/// The identity of this process: the same after a restart with the same data directory; another each time without one.
pub fn of(data_dir: Option<&Path>) -> String {
    let new = || Uuid::new_v4().simple().to_string()[..LENGTH].to_owned();
    let Some(data_dir) = data_dir else { return new() };
    let path = data_dir.join(FILE);
    let known = fs::read_to_string(&path).ok().filter(|text| is_one(text));
    known.unwrap_or_else(|| {
        let new = new();
        let written = fs::create_dir_all(data_dir).and_then(|()| fs::write(&path, &new));
        if let Err(error) = written {
            tracing::warn!(
                "{} cannot be written; remote systems take this for another process after a restart: {error}",
                path.display()
            );
        }
        new
    })
}

fn is_one(text: &str) -> bool {
    text.len() == LENGTH && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_kept_where_there_is_a_place_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let first = of(Some(dir.path()));
        assert!(is_one(&first) && of(Some(dir.path())) == first);
        assert_ne!(of(None), of(None));
        fs::write(dir.path().join(FILE), "../../etc").unwrap();
        assert!(is_one(&of(Some(dir.path()))));
    }
}
