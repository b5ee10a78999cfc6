//! Conversations with the broker, word by word: `tests/conversations/`, each with a broker of its own.

use std::path::PathBuf;
use std::sync::Mutex;
use std::thread;

use forebay_tests::forebay::Serve;
use forebay_tests::{conversation, repository};

/// Conversations that go on at once: most of the time each waits.
const AT_ONCE: usize = 6;

#[test]
fn each_goes_as_it_is_written() {
    let folder = repository().join("tests/conversations");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .expect("there are conversations")
        .map(|entry| entry.expect("a folder that can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    files.sort();
    // `CONVERSATION=taken` runs only those whose names hold that.
    if let Ok(wanted) = std::env::var("CONVERSATION") {
        files.retain(|path| path.to_string_lossy().contains(&wanted));
    }
    assert!(!files.is_empty(), "no conversation in {}", folder.display());
    let (waiting, failed) = (Mutex::new(files), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(file) = waiting.lock().expect("no panic here").pop() else { return };
                    let went = thread::scope(|scope| scope.spawn(|| carry_out(&file)).join());
                    if let Err(panic) = went {
                        let said = panic.downcast_ref::<String>().map_or("it panicked", String::as_str);
                        failed.lock().expect("no panic here").push(format!("{}: {said}", file.display()));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("no panic here");
    assert!(failed.is_empty(), "{} conversations went otherwise:\n{}", failed.len(), failed.join("\n"));
}

fn carry_out(file: &PathBuf) {
    let name = file.file_name().expect("a file").to_string_lossy();
    let text = std::fs::read_to_string(file).expect("a conversation is text");
    let broker = Serve::new().start();
    conversation::carry_out(&name, &text, broker.addr);
}
