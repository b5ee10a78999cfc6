//! Where messages come from: a folder, a file, standard input.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::envelope::Incoming;

/// The largest message, bytes: what an MQTT packet can hold.
const MESSAGE_BYTES_MAX: u64 = 268_435_455;
/// The topic of messages that have none.
const TOPIC: &str = "sensors";
/// The same for `.raw` files, as AIO's test runner has it: images.
const RAW_TOPIC: &str = "snapshot_simulation";

/// Messages, one after the other. Each is read when it is asked for.
pub struct Messages {
    topic: Option<String>,
    files: VecDeque<PathBuf>,
    lines: Option<Lines>,
}

/// A file of JSON lines, half read.
struct Lines {
    name: String,
    folder: PathBuf,
    reader: Box<dyn BufRead>,
    line: u64,
}

impl Messages {
    /// The messages in `path`: a folder with a message a file, one such file, a file of JSON lines (`.jsonl`), or
    /// `-`, standard input, with JSON lines.
    ///
    /// Messages that have no topic get `topic`, or one by the kind of file. Of a folder all files are taken in the order of their names, but hidden ones; folders in it are not.
    ///
    /// # Errors
    /// What cannot be read, in a sentence.
    pub fn open(path: &Path, topic: Option<&str>) -> Result<Self, String> {
        let topic = topic.map(str::to_owned);
        if path.as_os_str() == "-" {
            let reader = Box::new(io::stdin().lock());
            let lines =
                Lines { name: "standard input".to_owned(), folder: PathBuf::from("."), reader, line: 0 };
            return Ok(Self { topic, files: VecDeque::new(), lines: Some(lines) });
        }
        let fail = |error: io::Error| format!("{}: {error}", path.display());
        let mut files = Vec::new();
        if fs::metadata(path).map_err(fail)?.is_dir() {
            for entry in fs::read_dir(path).map_err(fail)? {
                let entry = entry.map_err(fail)?;
                if !entry.file_name().as_encoded_bytes().starts_with(b".") && !entry.path().is_dir() {
                    files.push(entry.path());
                }
            }
            files.sort();
        } else {
            files.push(path.to_owned());
        }
        Ok(Self { topic, files: files.into(), lines: None })
    }

    fn whole(&self, path: &Path) -> Result<Incoming, String> {
        let payload = read(path).map_err(|why| format!("{}: {why}", path.display()))?;
        let usual = if path.extension().is_some_and(|end| end == "raw") { RAW_TOPIC } else { TOPIC };
        Ok(Incoming::bare(payload, self.topic.as_deref().unwrap_or(usual)))
    }
}

impl Iterator for Messages {
    type Item = Result<Incoming, String>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(lines) = &mut self.lines {
                match lines.next(self.topic.as_deref().unwrap_or(TOPIC)) {
                    Some(message) => return Some(message),
                    None => self.lines = None,
                }
            }
            let path = self.files.pop_front()?;
            if path.extension().is_none_or(|end| end != "jsonl") {
                return Some(self.whole(&path));
            }
            match Lines::open(&path) {
                Ok(lines) => self.lines = Some(lines),
                Err(why) => return Some(Err(why)),
            }
        }
    }
}

impl Lines {
    fn open(path: &Path) -> Result<Self, String> {
        let name = path.display().to_string();
        let file = File::open(path).map_err(|error| format!("{name}: {error}"))?;
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        Ok(Self { name, folder, reader: Box::new(BufReader::new(file)), line: 0 })
    }

    /// The next message; `topic` is that of one that has none. Empty lines are none.
    fn next(&mut self, topic: &str) -> Option<Result<Incoming, String>> {
        loop {
            let mut bytes = Vec::new();
            self.line += 1;
            let place = format!("{}:{}", self.name, self.line);
            let read = self.reader.by_ref().take(MESSAGE_BYTES_MAX).read_until(b'\n', &mut bytes);
            match read {
                Ok(0) => return None,
                Ok(n) if n as u64 == MESSAGE_BYTES_MAX => {
                    return Some(Err(format!("{place}: the line is longer than {MESSAGE_BYTES_MAX} bytes")));
                }
                Ok(_) => {}
                Err(error) => return Some(Err(format!("{place}: {error}"))),
            }
            let Ok(text) = std::str::from_utf8(&bytes) else {
                return Some(Err(format!("{place}: the line is not UTF-8 text")));
            };
            if !text.trim().is_empty() {
                let message = Incoming::parse(text, &self.folder, topic);
                return Some(message.map_err(|why| format!("{place}: {why}")));
            }
        }
    }
}

/// A file's bytes, within what a message may have.
///
/// # Errors
/// Why not, without the file's name.
pub fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(MESSAGE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    match bytes.len() as u64 > MESSAGE_BYTES_MAX {
        true => Err(format!("it is larger than {MESSAGE_BYTES_MAX} bytes")),
        false => Ok(bytes),
    }
}
