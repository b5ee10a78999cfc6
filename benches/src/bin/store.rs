//! The durable store beside the disk that it stands on: group commit, write amplification, memory, start.
//!
//! What the disk does by itself is measured in the same run and between the runs of the store: ratios count.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use broker_store::{
    Committed, Event, Failed, Message, Observer, OnFailure, Options as StoreOptions, RealDisk, Store, Taker,
};
use bytes::Bytes;
use clap::Parser;
use forebay_benches::Result;

/// Group commit of the store against the disk's own syncs, memory and start with many queued messages.
///
/// cargo run --profile dist -p forebay-benches --bin store
#[derive(Parser)]
#[command(verbatim_doc_comment)]
struct Options {
    /// A directory on the disk to measure; something is made in it and removed again.
    #[arg(long, default_value = ".")]
    directory: PathBuf,
    /// Seconds for each measurement of a rate.
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// Messages in the queue for memory and start.
    #[arg(long, default_value_t = 1_000_000)]
    queued: u64,
    /// Bytes of a payload.
    #[arg(long, default_value_t = 64)]
    payload: usize,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("store: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let directory = tempfile::TempDir::new_in(&options.directory)?;
    println!("payloads of {} bytes", options.payload);
    println!(
        "{:<11} {:>12} {:>9} {:>12} {:>8} {:>14} {:>13}",
        "appenders", "records/s", "syncs/s", "per sync", "of disk", "log/payload", "disk/payload"
    );
    for appenders in [1, 8, 64] {
        let before = disk_rate(options, directory.path())?;
        let measured = group_commit(options, directory.path(), appenders)?;
        let disk = (before + disk_rate(options, directory.path())?) / 2.0;
        println!(
            "{appenders:<11} {:>12.0} {:>9.0} {:>12.1} {:>7.2} {:>14.1} {:>13.1}",
            measured.records,
            measured.syncs,
            measured.records / measured.syncs,
            measured.syncs / disk,
            measured.log_per_payload,
            measured.disk_per_payload,
        );
        println!("{:<11} {:>12} {:>9.0}   its own syncs of one such record", "  the disk", "", disk);
    }
    many(options, directory.path())
}

/// Records of one message, appended and synced one by one: syncs a second.
fn disk_rate(options: &Options, directory: &Path) -> Result<f64> {
    let path = directory.join("plain");
    let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
    let record = vec![1; options.payload + 48];
    let begun = Instant::now();
    let mut count = 0;
    while begun.elapsed() < Duration::from_secs(options.seconds) {
        file.write_all(&record)?;
        file.sync_data()?;
        count += 1;
    }
    fs::remove_file(path)?;
    Ok(f64::from(count) / begun.elapsed().as_secs_f64())
}

struct Measured {
    records: f64,
    syncs: f64,
    log_per_payload: f64,
    disk_per_payload: f64,
}

/// Wakes the appenders, each by its number.
struct Waker {
    threads: Vec<thread::Thread>,
    done: Vec<AtomicU64>,
}

struct Teller(parking_lot::RwLock<Option<Arc<Waker>>>);

impl Observer for Teller {
    fn committed(&self, records: Vec<Committed>) {
        if let Some(waker) = &*self.0.read() {
            for record in records {
                if let Some((done, thread)) =
                    waker.done.get(record.token as usize).zip(waker.threads.get(record.token as usize))
                {
                    done.fetch_add(1, Ordering::Release);
                    thread.unpark();
                }
            }
        }
    }

    fn failed(&self, _records: Vec<Failed>, _kept: Option<broker_store::Lsn>, why: &io::Error) {
        eprintln!("store: the disk fails: {why}");
    }
}

/// Threads that each append a message, wait until it is on disk, and take it off again without waiting, as a subscriber
/// does that keeps up.
fn group_commit(options: &Options, directory: &Path, appenders: usize) -> Result<Measured> {
    let path = directory.join("store");
    let (store, _) = Store::open(Arc::new(RealDisk::new(&path)?), StoreOptions::default())?;
    let teller = Arc::new(Teller(parking_lot::RwLock::new(None)));
    store.observe(teller.clone());
    open_session(&store)?;
    store.checkpoint()?;
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let written_before = written_to_disk()?;
    let before = store.stats();
    let begun = Instant::now();
    let handles: Vec<_> = (0..appenders)
        .map(|number| {
            let (store, stop, teller) = (store.clone(), stop.clone(), teller.clone());
            let payload = options.payload;
            thread::spawn(move || append_until(&store, &teller, number, payload, &stop))
        })
        .collect();
    let threads = handles.iter().map(|handle| handle.thread().clone()).collect();
    let done = (0..appenders).map(|_| AtomicU64::new(0)).collect();
    *teller.0.write() = Some(Arc::new(Waker { threads, done }));
    thread::sleep(Duration::from_secs(options.seconds));
    stop.store(true, Ordering::Release);
    let mut count = 0;
    for handle in handles {
        count += handle.join().map_err(|_| "an appender panicked")??;
    }
    let elapsed = begun.elapsed().as_secs_f64();
    let after = store.stats();
    let payload = (count * options.payload as u64) as f64;
    let measured = Measured {
        records: count as f64 / elapsed,
        syncs: (after.syncs - before.syncs) as f64 / elapsed,
        log_per_payload: (after.written - before.written) as f64 / payload,
        disk_per_payload: (written_to_disk()? - written_before) as f64 / payload,
    };
    store.close()?;
    fs::remove_dir_all(path)?;
    Ok(measured)
}

fn append_until(
    store: &Store,
    teller: &Teller,
    number: usize,
    payload: usize,
    stop: &std::sync::atomic::AtomicBool,
) -> std::result::Result<u64, String> {
    let waker = loop {
        match &*teller.0.read() {
            Some(waker) => break waker.clone(),
            None => thread::yield_now(),
        }
    };
    let done = waker.done.get(number).ok_or("no such appender")?;
    let mut count = 0;
    while !stop.load(Ordering::Acquire) {
        let event = message(payload);
        let lsn = store.append(vec![event], OnFailure::Refuse, true, number as u64);
        let lsn = lsn.map_err(|error| error.to_string())?;
        count += 1;
        while done.load(Ordering::Acquire) < count {
            thread::park();
        }
        let event = Event::Done { session: 1, message: lsn };
        let token = u64::MAX;
        store.append(vec![event], OnFailure::Retry, false, token).map_err(|error| error.to_string())?;
    }
    Ok(count)
}

fn open_session(store: &Store) -> Result<()> {
    let event = Event::SessionOpened { session: 1, client_id: "c".into(), expiry: u32::MAX, will: None };
    store.append(vec![event], OnFailure::Refuse, true, u64::MAX)?;
    Ok(())
}

fn message(payload: usize) -> Event {
    let message = Message {
        topic: Bytes::from_static(b"plant/line1/temperature"),
        payload: vec![7; payload].into(),
        qos: 1,
        received: 1_700_000_000_000,
        ..Message::default()
    };
    let takers = vec![Taker { session: 1, qos: 1, ..Taker::default() }];
    Event::Stored { message: Arc::new(message), takers, retained: false, from: None }
}

/// Memory, disk and time to open with many queued messages.
fn many(options: &Options, directory: &Path) -> Result<()> {
    let path = directory.join("many");
    let open = || -> Result<Store> {
        let store_options = StoreOptions { max_bytes: 16 << 30, ..StoreOptions::default() };
        let begun = Instant::now();
        let (store, recovery) = Store::open(Arc::new(RealDisk::new(&path)?), store_options)?;
        let took = begun.elapsed();
        if recovery.next.0 > 2 {
            let queued = store.state().queued();
            println!(
                "open with {queued} queued messages: {took:.0?} ({} records replayed)",
                recovery.records
            );
        }
        Ok(store)
    };
    let store = open()?;
    open_session(&store)?;
    store.checkpoint()?;
    let before = resident()?;
    let begun = Instant::now();
    for number in 0..options.queued {
        let urgent = number + 1 == options.queued;
        store.append(vec![message(options.payload)], OnFailure::Refuse, urgent, u64::MAX)?;
        // Not more on the way than a broker would have.
        while number % 1024 == 0 && store.stats().waiting > 8192 {
            thread::sleep(Duration::from_millis(1));
        }
    }
    while store.state().queued() < options.queued as usize {
        thread::sleep(Duration::from_millis(1));
    }
    let took = begun.elapsed();
    let stats = store.stats();
    println!("\n{} messages queued in {took:.1?}; a message takes", options.queued);
    println!("  {:>6.1} bytes of memory in queue and index", stats.memory as f64 / options.queued as f64);
    println!("  {:>6.1} bytes of the process", (resident()? - before) as f64 / options.queued as f64);
    println!("  {:>6.1} bytes on disk", stats.bytes as f64 / options.queued as f64);
    drop(store);
    let store = open()?;
    let begun = Instant::now();
    store.close()?;
    println!("closed with a checkpoint in {:.0?}", begun.elapsed());
    drop(open()?);
    fs::remove_dir_all(path)?;
    Ok(())
}

/// Bytes that this process had written to the device.
fn written_to_disk() -> Result<u64> {
    number_in("/proc/self/io", "write_bytes:")
}

/// Resident memory, bytes.
fn resident() -> Result<u64> {
    Ok(number_in("/proc/self/status", "VmRSS:")? * 1024)
}

fn number_in(path: &str, key: &str) -> Result<u64> {
    let text = fs::read_to_string(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)).ok_or("no such line")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse()?)
}
