//! This knows a web server that answers as a test wants, well or not.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

/// What is answered to whatever is asked.
#[derive(Clone)]
pub enum Answer {
    /// This, with status 200.
    Body(Vec<u8>),
    /// What this makes of the body of a POST, with status 200.
    Made(Made),
    /// No more than this status.
    Status(u16),
    /// Status 200, and a body without an end.
    Endless,
    /// Nothing: the connection is closed.
    Closes,
    /// Nothing, until there is another answer, which is given then.
    Hangs,
}

/// Makes a body of that of a POST.
pub type Made = Arc<dyn Fn(&[u8]) -> Vec<u8> + Send + Sync>;

/// A server on a port of its own, for as long as it lives.
pub struct WebServer {
    address: SocketAddr,
    state: Arc<State>,
}

struct State {
    answer: Mutex<Answer>,
    changed: Condvar,
    requests: AtomicUsize,
    is_over: AtomicBool,
}

impl WebServer {
    /// Starts one.
    pub fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(State {
            answer: Mutex::new(answer),
            changed: Condvar::new(),
            requests: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
        });
        let of_server = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if of_server.is_over.load(Ordering::Acquire) {
                    return;
                }
                let state = Arc::clone(&of_server);
                // Clients go away in the middle of an answer.
                thread::spawn(move || drop(state.serve(stream)));
            }
        });
        Self { address, state }
    }

    /// A URL that leads to it.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// A URL that leads to nobody: as long as this server lives, the port is nobody else's, at that address either.
    pub fn url_of_nobody(&self) -> String {
        format!("http://127.77.77.77:{}/", self.address.port())
    }

    /// Answers like this from now on.
    pub fn answer(&self, answer: Answer) {
        *self.state.answer.lock().expect("no panic") = answer;
        self.state.changed.notify_all();
    }

    /// How many requests have come in.
    pub fn requests(&self) -> usize {
        self.state.requests.load(Ordering::Acquire)
    }
}

impl Drop for WebServer {
    fn drop(&mut self) {
        self.state.is_over.store(true, Ordering::Release);
        self.answer(Answer::Closes);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
    }
}

impl State {
    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        self.requests.fetch_add(1, Ordering::AcqRel);
        let answer = self.answer.lock().expect("no panic");
        let is_none = |answer: &mut Answer| matches!(answer, Answer::Hangs);
        let answer = self.changed.wait_while(answer, is_none).expect("no panic").clone();
        respond(stream, answer, &body)
    }
}

fn respond(mut stream: TcpStream, answer: Answer, question: &[u8]) -> std::io::Result<()> {
    let (status, body) = match answer {
        Answer::Body(body) => (200, body),
        Answer::Made(make) => (200, make(question)),
        Answer::Status(status) => (status, Vec::new()),
        Answer::Closes | Answer::Hangs => return Ok(()),
        Answer::Endless => {
            write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
            loop {
                stream.write_all(&[0x30; 16 * 1024])?;
            }
        }
    };
    write!(stream, "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len())?;
    stream.write_all(&body)
}
