//! A disk in memory.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::disk::{Disk, DiskFile, Lock};
use crate::sim::Random;
use crate::sim::file::File;
use crate::sim::names::Names;

/// A kind of operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// A file is made or emptied.
    Create,
    /// Bytes are added to a file.
    Append,
    /// A file is made durable.
    Sync,
    /// A file gets another name.
    Rename,
    /// A file is removed.
    Remove,
    /// A file is cut.
    Truncate,
    /// The names in a directory are made durable.
    SyncDir,
    /// A file is opened or read.
    Read,
}

/// Operations that fail.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// Which; any that writes when it is nothing.
    pub op: Option<Op>,
    /// So many more work.
    pub after: u64,
    /// Then so many fail.
    pub times: u64,
    /// In this way.
    pub kind: io::ErrorKind,
}

/// A disk in memory, deterministic by seed. Clones are the same disk.
///
/// A file system that gives as little as it may: what was not synced, contents and names, may be lost, in part or
/// whole, when the power is cut; a sync that fails has lost something for good; an operation that fails may have been
/// carried out all the same.
#[derive(Debug, Clone)]
pub struct SimDisk {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    random: Random,
    /// How many processes have come and gone.
    life: u64,
    on: bool,
    files: Vec<File>,
    names: Names,
    locked: BTreeSet<String>,
    capacity: u64,
    faults: Vec<Fault>,
    /// So many in a million operations that write fail.
    fault_chance: u64,
    /// The power is cut after so many more operations.
    cut_after_ops: Option<u64>,
    /// The power is cut, or the process killed, when this step is reached so many more times.
    end_at_step: Option<(&'static str, u64, End)>,
    ops: u64,
}

#[derive(Debug, Clone, Copy)]
enum End {
    PowerCut,
    Kill,
}

impl SimDisk {
    /// An empty disk, with power.
    pub fn new(seed: u64) -> Self {
        let inner = Inner {
            random: Random::new(seed),
            life: 0,
            on: true,
            files: Vec::new(),
            names: Names::default(),
            locked: BTreeSet::new(),
            capacity: u64::MAX,
            faults: Vec::new(),
            fault_chance: 0,
            cut_after_ops: None,
            end_at_step: None,
            ops: 0,
        };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// The disk as the process sees it that begins now. It ends with [`SimDisk::kill`] or [`SimDisk::cut_power`].
    pub fn process(&self) -> Arc<dyn Disk> {
        let mut inner = self.inner.lock();
        inner.on = true;
        Arc::new(Process { disk: self.clone(), life: inner.life })
    }

    /// Whether the process that had it last can still use it.
    pub fn is_on(&self) -> bool {
        self.inner.lock().on
    }

    /// The process ends; what it wrote is there.
    pub fn kill(&self) {
        self.inner.lock().end(End::Kill);
    }

    /// The power goes, and what was not synced with it.
    pub fn cut_power(&self) {
        self.inner.lock().end(End::PowerCut);
    }

    /// The power goes after so many more operations.
    pub fn cut_power_after(&self, ops: u64) {
        self.inner.lock().cut_after_ops = Some(ops);
    }

    /// The power goes when this step (see [`crate::FAILPOINTS`]) is reached for the `nth` time from now on.
    pub fn cut_power_at(&self, step: &'static str, nth: u64) {
        self.inner.lock().end_at_step = Some((step, nth, End::PowerCut));
    }

    /// The process is killed when this step is reached for the `nth` time from now on.
    pub fn kill_at(&self, step: &'static str, nth: u64) {
        self.inner.lock().end_at_step = Some((step, nth, End::Kill));
    }

    /// Nothing of what was planned comes any more.
    pub fn spare(&self) {
        let mut inner = self.inner.lock();
        (inner.cut_after_ops, inner.end_at_step) = (None, None);
    }

    /// Some operations are going to fail.
    pub fn fail(&self, fault: Fault) {
        self.inner.lock().faults.push(fault);
    }

    /// So many in a million operations that write fail from now on.
    pub fn fail_at_random(&self, in_a_million: u64) {
        self.inner.lock().fault_chance = in_a_million;
    }

    /// Nothing fails any more.
    pub fn heal(&self) {
        let mut inner = self.inner.lock();
        inner.faults.clear();
        inner.fault_chance = 0;
    }

    /// No more bytes than this fit.
    pub fn set_capacity(&self, bytes: u64) {
        self.inner.lock().capacity = bytes;
    }

    /// Bytes of all files.
    pub fn used(&self) -> u64 {
        self.inner.lock().used()
    }

    /// Operations so far.
    pub fn ops(&self) -> u64 {
        self.inner.lock().ops
    }

    /// The names of all files.
    pub fn files(&self) -> Vec<String> {
        self.inner.lock().names.files().map(|(name, _)| name.to_owned()).collect()
    }

    /// A file's contents, if it is there.
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let inner = self.inner.lock();
        inner.names.get(name).map(|file| inner.files[file].bytes.clone())
    }

    /// Puts a file there, behind everybody's back.
    pub fn set_contents(&self, name: &str, bytes: Vec<u8>) {
        let mut inner = self.inner.lock();
        inner.files.push(File::of(bytes));
        let file = inner.files.len() - 1;
        inner.names.put(name, file);
        inner.names.make_durable();
    }

    /// Changes a bit, if the file has it, behind everybody's back.
    pub fn flip(&self, name: &str, byte: usize, bit: u8) {
        if let Some(mut bytes) = self.contents(name).filter(|bytes| byte < bytes.len()) {
            bytes[byte] ^= 1 << (bit % 8);
            self.set_contents(name, bytes);
        }
    }

    /// Takes a file away, behind everybody's back.
    pub fn lose(&self, name: &str) {
        let mut inner = self.inner.lock();
        inner.names.remove(name);
        inner.names.make_durable();
    }

    /// Another disk that is as this one is now.
    pub fn copy(&self, seed: u64) -> Self {
        let inner = self.inner.lock();
        let copy = Self::new(seed);
        {
            let mut other = copy.inner.lock();
            (other.files, other.names) = (inner.files.clone(), inner.names.clone());
        }
        copy
    }
}

impl Inner {
    fn end(&mut self, how: End) {
        if !self.on {
            return;
        }
        self.on = false;
        self.life += 1;
        self.locked.clear();
        (self.cut_after_ops, self.end_at_step) = (None, None);
        if let End::PowerCut = how {
            for file in &mut self.files {
                file.cut_power(&mut self.random);
            }
            self.names.cut_power(&mut self.random);
        }
    }

    fn used(&self) -> u64 {
        self.names.files().map(|(_, file)| self.files[file].bytes.len() as u64).sum()
    }

    /// Whether this operation fails.
    fn fault(&mut self, op: Op) -> Option<io::Error> {
        let random =
            op != Op::Read && self.fault_chance > 0 && self.random.below(1_000_000) < self.fault_chance;
        let matches = |fault: &&mut Fault| fault.op.map_or(op != Op::Read, |its| its == op);
        let mut kind = random.then_some(io::ErrorKind::Other);
        for fault in self.faults.iter_mut().filter(matches) {
            match (fault.after, fault.times) {
                (0, 0) => {}
                (0, _) => {
                    fault.times -= 1;
                    kind = Some(fault.kind);
                }
                _ => fault.after -= 1,
            }
        }
        kind.map(|kind| io::Error::new(kind, "the simulated disk fails"))
    }

    fn find(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

fn off() -> io::Error {
    io::Error::other("the process is over")
}

/// The disk in the eyes of one process.
#[derive(Debug)]
struct Process {
    disk: SimDisk,
    life: u64,
}

impl Process {
    fn inner(&self) -> io::Result<MutexGuard<'_, Inner>> {
        enter(&self.disk, self.life)
    }

    /// Does something that may fail, and may then have been done all the same.
    fn change(&self, op: Op, change: impl FnOnce(&mut Inner) -> io::Result<()>) -> io::Result<()> {
        let mut inner = self.inner()?;
        match inner.fault(op) {
            None => change(&mut inner),
            Some(error) => {
                if inner.random.once_in(2) {
                    let _ = change(&mut inner);
                }
                Err(error)
            }
        }
    }

    fn file(&self, file: usize) -> Arc<dyn DiskFile> {
        Arc::new(Open { disk: self.disk.clone(), life: self.life, file })
    }
}

/// The disk for an operation, if the process still has it.
fn enter(disk: &SimDisk, life: u64) -> io::Result<MutexGuard<'_, Inner>> {
    let mut inner = disk.inner.lock();
    if !inner.on || inner.life != life {
        return Err(off());
    }
    inner.ops += 1;
    match &mut inner.cut_after_ops {
        Some(0) => {
            inner.end(End::PowerCut);
            return Err(off());
        }
        Some(left) => *left -= 1,
        None => {}
    }
    Ok(inner)
}

impl Disk for Process {
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.change(Op::Create, |inner| {
            match inner.names.get(name) {
                Some(file) => inner.files[file].empty(),
                None => {
                    inner.files.push(File::default());
                    let file = inner.files.len() - 1;
                    inner.names.put(name, file);
                }
            }
            Ok(())
        })?;
        let file = self.inner()?.find(name)?;
        Ok(self.file(file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut inner = self.inner()?;
        inner.fault(Op::Read).map_or(Ok(()), Err)?;
        let file = inner.find(name)?;
        drop(inner);
        Ok(self.file(file))
    }

    fn create_dir(&self, name: &str) -> io::Result<()> {
        self.inner()?.names.make_directory(name);
        Ok(())
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.inner()?.names.list(dir).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change(Op::Rename, |inner| {
            let file = inner.find(from)?;
            inner.names.rename(from, to, file);
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.change(Op::Remove, |inner| {
            inner.find(name)?;
            inner.names.remove(name);
            Ok(())
        })
    }

    fn truncate(&self, name: &str, len: u64) -> io::Result<()> {
        self.change(Op::Truncate, |inner| {
            let file = inner.find(name)?;
            inner.files[file].truncate(len as usize);
            Ok(())
        })
    }

    fn rewrite(&self, name: &str, offset: u64) -> io::Result<()> {
        self.change(Op::Append, |inner| {
            let file = inner.find(name)?;
            inner.files[file].rewrite(offset as usize);
            Ok(())
        })
    }

    fn len(&self, name: &str) -> io::Result<u64> {
        let inner = self.inner()?;
        Ok(inner.files[inner.find(name)?].bytes.len() as u64)
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.change(Op::SyncDir, |inner| {
            inner.names.sync(dir);
            Ok(())
        })
    }

    fn lock(&self, name: &str) -> io::Result<Option<Box<dyn Lock>>> {
        let mut inner = self.inner()?;
        if inner.names.get(name).is_none() {
            inner.files.push(File::default());
            let file = inner.files.len() - 1;
            inner.names.put(name, file);
        }
        let is_free = inner.locked.insert(name.to_owned());
        let guard = || Box::new(Locked { disk: self.disk.clone(), life: self.life, name: name.to_owned() });
        Ok(is_free.then(|| guard() as Box<dyn Lock>))
    }

    fn lock_shared(&self, name: &str) -> io::Result<Option<Box<dyn Lock>>> {
        let is_there = self.inner()?.names.get(name).is_some();
        if is_there { self.lock(name) } else { Ok(Some(Box::new(Nothing))) }
    }

    fn describe(&self) -> String {
        "memory".to_owned()
    }

    fn draw(&self) -> u32 {
        self.disk.inner.lock().random.number() as u32
    }

    fn step(&self, name: &'static str) {
        let Ok(mut inner) = self.inner() else { return };
        if let Some((step, left, how)) = &mut inner.end_at_step
            && *step == name
        {
            *left = left.saturating_sub(1);
            let (left, how) = (*left, *how);
            if left == 0 {
                inner.end(how);
            }
        }
    }
}

#[derive(Debug)]
struct Open {
    disk: SimDisk,
    life: u64,
    file: usize,
}

impl DiskFile for Open {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        let mut inner = enter(&self.disk, self.life)?;
        let room = usize::try_from(inner.capacity.saturating_sub(inner.used())).unwrap_or(usize::MAX);
        let fault = inner.fault(Op::Append);
        let fits = match &fault {
            None => bytes.len().min(room),
            Some(_) => inner.random.below_len(bytes.len().min(room) + 1),
        };
        inner.files[self.file].bytes.extend_from_slice(&bytes[..fits]);
        match fault {
            Some(error) => Err(error),
            None if fits < bytes.len() => Err(io::ErrorKind::StorageFull.into()),
            None => Ok(()),
        }
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        let mut inner = enter(&self.disk, self.life)?;
        inner.fault(Op::Read).map_or(Ok(()), Err)?;
        let bytes = &inner.files[self.file].bytes;
        let end = (offset as usize).checked_add(into.len());
        let found =
            end.and_then(|end| bytes.get(offset as usize..end)).ok_or(io::ErrorKind::UnexpectedEof)?;
        into.copy_from_slice(found);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut guard = enter(&self.disk, self.life)?;
        let inner = &mut *guard;
        match inner.fault(Op::Sync) {
            None => {
                inner.files[self.file].sync();
                Ok(())
            }
            Some(error) => {
                inner.files[self.file].sync_badly(&mut inner.random);
                Err(error)
            }
        }
    }

    fn size(&self) -> io::Result<u64> {
        Ok(enter(&self.disk, self.life)?.files[self.file].bytes.len() as u64)
    }
}

#[derive(Debug)]
struct Locked {
    disk: SimDisk,
    life: u64,
    name: String,
}

impl Lock for Locked {}

impl Drop for Locked {
    fn drop(&mut self) {
        let mut inner = self.disk.inner.lock();
        if inner.life == self.life {
            inner.locked.remove(&self.name);
        }
    }
}

/// The lock of what nobody has.
#[derive(Debug)]
struct Nothing;

impl Lock for Nothing {}
