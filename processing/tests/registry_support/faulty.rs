//! An HTTP server that misbehaves exactly as a test says.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::artifact::Pushed;
use processing::registry::Digest;

/// What to answer a request with.
pub struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Body,
}

pub enum Body {
    /// As it should be.
    Whole(Vec<u8>),
    /// The first bytes of a body whose length was announced in full; then the connection ends.
    Cut(Vec<u8>, usize),
    /// The first bytes, then nothing, and the connection stays.
    Stalled(Vec<u8>, usize),
    /// A byte at a time with a pause between, for ever.
    Dripping(Duration),
    /// Without end, as fast as it is taken.
    Endless,
    /// Not even a status line.
    Silent,
}

impl Answer {
    pub fn new(status: u16, body: Body) -> Self {
        Answer { status, headers: Vec::new(), body }
    }

    pub fn ok(media_type: &str, body: Vec<u8>) -> Self {
        Answer::new(200, Body::Whole(body)).header("content-type", media_type)
    }

    pub fn status(status: u16) -> Self {
        Answer::new(status, Body::Whole(b"no\x07 such\nluck".to_vec()))
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// A request: its path with query, its header lines, and its body where it says how long that is.
pub struct Request {
    pub path: String,
    pub headers: Vec<String>,
    pub body: String,
}

impl Request {
    pub fn authorization(&self) -> Option<&str> {
        self.header("authorization")
    }

    pub fn header(&self, wanted: &str) -> Option<&str> {
        self.headers.iter().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case(wanted).then_some(value)
        })
    }
}

/// The running server; ends with the test's process.
pub struct Faulty {
    port: u16,
    requests: Arc<Mutex<Vec<String>>>,
    sent: Arc<Mutex<u64>>,
    ended: Arc<AtomicBool>,
}

impl Faulty {
    /// Serves whatever `answer` says.
    pub fn start(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let faulty = Faulty { port, requests: Arc::default(), sent: Arc::default(), ended: Arc::default() };
        let (requests, sent) = (Arc::clone(&faulty.requests), Arc::clone(&faulty.sent));
        let (answer, ended) = (Arc::new(answer), Arc::clone(&faulty.ended));
        thread::spawn(move || {
            for stream in listener.incoming().flatten().take_while(|_| !ended.load(Ordering::SeqCst)) {
                let (answer, requests, sent) =
                    (Arc::clone(&answer), Arc::clone(&requests), Arc::clone(&sent));
                thread::spawn(move || {
                    let Some(request) = read_request(&stream) else { return };
                    requests.lock().unwrap().push(request.path.clone());
                    // The client may hang up, as it should on most of this.
                    let _ = respond(stream, answer(&request), &sent);
                });
            }
        });
        faulty
    }

    /// Serves an artifact as `name:tag`, except that `spoil` may answer otherwise.
    pub fn serving(
        artifact: Pushed,
        spoil: impl Fn(&Request, &Pushed) -> Option<Answer> + Send + Sync + 'static,
    ) -> Self {
        Faulty::start(move |request| {
            if let Some(answer) = spoil(request, &artifact) {
                return answer;
            }
            if request.path.contains("/manifests/") {
                return Answer::ok(artifact.media_type, artifact.manifest.clone());
            }
            let blob = artifact.blobs.iter().find(|b| request.path.ends_with(&Digest::of(b).to_string()));
            blob.map_or(Answer::status(404), |b| Answer::ok("application/octet-stream", b.clone()))
        })
    }

    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The paths asked for so far.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// Body bytes sent so far.
    pub fn sent(&self) -> u64 {
        *self.sent.lock().unwrap()
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // Wakes the listener; nothing depends on it.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn read_request(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut lines = reader.by_ref().lines();
    let path = lines.next()?.ok()?.split(' ').nth(1)?.to_owned();
    let headers = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    let mut request = Request { path, headers, body: String::new() };
    let length = request.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    reader.take(length).read_to_string(&mut request.body).ok()?;
    Some(request)
}

fn respond(mut stream: TcpStream, answer: Answer, sent: &Mutex<u64>) -> std::io::Result<()> {
    let length = match &answer.body {
        Body::Whole(body) | Body::Cut(body, _) | Body::Stalled(body, _) => {
            format!("content-length: {}\r\n", body.len())
        }
        // Without a length the body ends with the connection.
        Body::Dripping(_) | Body::Endless => String::new(),
        Body::Silent => {
            thread::sleep(FOR_EVER);
            return Ok(());
        }
    };
    let headers: String = answer.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    write!(stream, "HTTP/1.1 {} X\r\nconnection: close\r\n{length}{headers}\r\n", answer.status)?;
    let mut send = |bytes: &[u8]| {
        stream.write_all(bytes)?;
        *sent.lock().unwrap() += bytes.len() as u64;
        Ok(())
    };
    match answer.body {
        Body::Whole(body) => send(&body),
        Body::Cut(body, at) => send(&body[..at]),
        Body::Stalled(body, at) => {
            send(&body[..at])?;
            thread::sleep(FOR_EVER);
            Ok(())
        }
        Body::Dripping(pause) => loop {
            send(b" ")?;
            thread::sleep(pause);
        },
        Body::Endless => loop {
            send(&[b' '; 16384])?;
        },
        Body::Silent => Ok(()),
    }
}

const FOR_EVER: Duration = Duration::from_secs(600);
