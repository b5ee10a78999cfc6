//! The names of files: as processes see them, and as they are when the power is gone.

use std::collections::{BTreeMap, BTreeSet};

use crate::sim::Random;

/// A change that the device may not have yet.
#[derive(Debug, Clone)]
enum Change {
    Put { name: String, file: usize },
    Remove { name: String },
    Rename { from: String, to: String, file: usize },
    Directory { name: String },
}

#[derive(Debug, Clone, Default)]
struct Tree {
    files: BTreeMap<String, usize>,
    directories: BTreeSet<String>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Names {
    seen: Tree,
    durable: Tree,
    pending: Vec<Change>,
}

impl Names {
    pub fn get(&self, name: &str) -> Option<usize> {
        self.seen.files.get(name).copied()
    }

    pub fn files(&self) -> impl Iterator<Item = (&str, usize)> {
        self.seen.files.iter().map(|(name, &file)| (name.as_str(), file))
    }

    /// Names in a directory; nothing if there is no such directory.
    pub fn list(&self, dir: &str) -> Option<Vec<String>> {
        if !dir.is_empty() && !self.seen.directories.contains(dir) {
            return None;
        }
        let all = self.seen.files.keys().chain(&self.seen.directories);
        let mut names: Vec<String> =
            all.filter(|name| parent(name) == dir).map(|name| base(name).to_owned()).collect();
        names.sort_unstable();
        Some(names)
    }

    pub fn put(&mut self, name: &str, file: usize) {
        self.change(Change::Put { name: name.into(), file });
    }

    pub fn remove(&mut self, name: &str) {
        self.change(Change::Remove { name: name.into() });
    }

    pub fn rename(&mut self, from: &str, to: &str, file: usize) {
        self.change(Change::Rename { from: from.into(), to: to.into(), file });
    }

    pub fn make_directory(&mut self, name: &str) {
        if !self.seen.directories.contains(name) {
            self.change(Change::Directory { name: name.into() });
        }
    }

    pub fn sync(&mut self, dir: &str) {
        let (now, later) =
            std::mem::take(&mut self.pending).into_iter().partition(|change| change.is_in(dir));
        self.pending = later;
        now.iter().for_each(|change: &Change| self.durable.apply(change));
    }

    /// What was not synced is there or not: a beginning of it, or any part.
    pub fn cut_power(&mut self, random: &mut Random) {
        let pending = std::mem::take(&mut self.pending);
        let beginning = random.once_in(2).then(|| random.below_len(pending.len() + 1));
        for (number, change) in pending.iter().enumerate() {
            let is_there = match beginning {
                Some(count) => number < count,
                None => random.once_in(2),
            };
            if is_there {
                self.durable.apply(change);
            }
        }
        self.seen = self.durable.clone();
    }

    /// Behind everybody's back.
    pub fn make_durable(&mut self) {
        self.pending.clear();
        self.durable = self.seen.clone();
    }

    fn change(&mut self, change: Change) {
        self.seen.apply(&change);
        self.pending.push(change);
    }
}

impl Tree {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Put { name, file } => drop(self.files.insert(name.clone(), *file)),
            Change::Remove { name } => drop(self.files.remove(name)),
            Change::Rename { from, to, file } => {
                if self.files.get(from) == Some(file) {
                    self.files.remove(from);
                }
                self.files.insert(to.clone(), *file);
            }
            Change::Directory { name } => drop(self.directories.insert(name.clone())),
        }
        // Whatever is in a directory says that there is one.
        if let Change::Put { name, .. } | Change::Rename { to: name, .. } = change
            && !parent(name).is_empty()
        {
            self.directories.insert(parent(name).to_owned());
        }
    }
}

impl Change {
    fn is_in(&self, dir: &str) -> bool {
        match self {
            Self::Put { name, .. } | Self::Remove { name } | Self::Directory { name } => parent(name) == dir,
            Self::Rename { from, to, .. } => parent(from) == dir || parent(to) == dir,
        }
    }
}

fn parent(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(dir, _)| dir)
}

fn base(name: &str) -> &str {
    name.rsplit_once('/').map_or(name, |(_, base)| base)
}
