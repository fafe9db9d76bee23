//! This knows an upstream: an HTTP/1.1 server on a free port of the loopback that answers with what it saw.
//!
//! | path | answer |
//! |---|---|
//! | `/echo...` | the body of the request, chunked, as it arrives |
//! | `/bytes/N` | N bytes, with `Content-Length`; to HEAD only the latter |
//! | `/trailers` | a chunked body and the trailer `X-Sum: 1` |
//! | `/hold` | as any other, once [`Upstream::release`] is called |
//! | `/early` | 401, before the body of the request is read |
//! | `/endless` | a body that does not end; see [`Upstream::wait_for_stalled`] |
//! | `/unread` | none: the body of the request is not read |
//! | `/cut` | a part of a chunked body, after which the connection is closed |
//! | `/twice` | `first`, and one more answer that nobody asked for, `second` |
//! | `/hints` | 103, and then as any other |
//! | `/tunnel` | 101 to `websocket`; then all that comes comes back, and at its end `bye` |
//! | `/close` | none: the connection is closed |
//! | `/close-kept` | the same, where this is not the connection's first request; else as any other |
//! | `/hold/close-kept` | the same, once [`Upstream::release`] is called |
//! | any other | JSON: `method`, `path`, `headers` as pairs in the order and spelling of the wire, `body` with `length`, `sha256` and `trailers` |

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use openssl::sha::Sha256;

use crate::process::PATIENCE;

/// A running upstream. Its threads end with the program.
pub struct Upstream {
    address: SocketAddr,
    seen: Arc<Seen>,
}

/// The head of a request, as it was on the wire.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// `GET`, `POST`, …
    pub method: String,
    /// The target of the request.
    pub path: String,
    /// In order; names as they were spelled, values without the white space around them.
    pub headers: Vec<(String, String)>,
}

#[derive(Default)]
struct Seen {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    connections: usize,
    requests: Vec<Recorded>,
    released: bool,
    aborted: usize,
    stalled: Vec<usize>,
}

impl Recorded {
    /// All values of a header, whose name is compared without regard to case but with regard to `-` and `_`.
    pub fn values(&self, name: &str) -> Vec<&str> {
        let same = self.headers.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
        same.map(|(_, value)| value.as_str()).collect()
    }
}

impl Upstream {
    /// Starts to listen.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let seen = Arc::new(Seen::default());
        let accepted = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                accepted.change(|state| state.connections += 1);
                let seen = Arc::clone(&accepted);
                std::thread::spawn(move || serve(&stream, &seen));
            }
        });
        Self { address, seen }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// All requests whose heads have come so far.
    pub fn requests(&self) -> Vec<Recorded> {
        self.seen.state.lock().unwrap().requests.clone()
    }

    /// How many connections have been made to it.
    pub fn connections(&self) -> usize {
        self.seen.state.lock().unwrap().connections
    }

    /// Lets requests to `/hold` be answered, those that wait and those to come.
    pub fn release(&self) {
        self.seen.change(|state| state.released = true);
    }

    /// Waits until the head of a request for `path` has come.
    ///
    /// # Panics
    /// After [`PATIENCE`].
    pub fn wait_for(&self, path: &str) -> Recorded {
        let find = |state: &State| state.requests.iter().find(|request| request.path == path).cloned();
        self.seen.wait(|state| find(state).is_some());
        find(&self.seen.state.lock().unwrap()).unwrap_or_else(|| panic!("no request for {path} came"))
    }

    /// Waits until nobody has taken more of so many endless answers for a second, and tells how many bytes of each were.
    ///
    /// # Panics
    /// After [`PATIENCE`].
    pub fn wait_for_stalled(&self, count: usize) -> Vec<usize> {
        assert!(self.seen.wait(|state| state.stalled.len() >= count), "all is taken");
        self.seen.state.lock().unwrap().stalled.clone()
    }

    /// Waits until so many requests were given up by their sender before they were answered.
    ///
    /// # Panics
    /// After [`PATIENCE`].
    pub fn wait_for_aborted(&self, count: usize) {
        assert!(self.seen.wait(|state| state.aborted >= count), "nobody gave up");
    }
}

impl Seen {
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
        self.changed.notify_all();
    }

    fn wait(&self, until: impl Fn(&State) -> bool) -> bool {
        let state = self.state.lock().unwrap();
        let (state, _) = self.changed.wait_timeout_while(state, PATIENCE, |state| !until(state)).unwrap();
        until(&state)
    }
}

/// Serves one connection until it ends. What goes wrong counts as given up by the other side.
fn serve(stream: &TcpStream, seen: &Arc<Seen>) {
    let mut reader = BufReader::new(stream);
    let mut is_kept = false;
    loop {
        match request(&mut reader, stream, is_kept, seen) {
            Ok(true) => is_kept = true,
            Ok(false) => break,
            Err(_) => {
                seen.change(|state| state.aborted += 1);
                break;
            }
        }
    }
    let _ = stream.shutdown(Shutdown::Both);
}

/// Reads and answers one request; false where none came, or none is to come after it.
fn request(
    reader: &mut BufReader<&TcpStream>,
    mut stream: &TcpStream,
    is_kept: bool,
    seen: &Arc<Seen>,
) -> io::Result<bool> {
    let Some(head) = read_head(reader)? else { return Ok(false) };
    seen.change(|state| state.requests.push(head.clone()));
    let mut body = Body::of(&head);
    match head.path.as_str() {
        "/close" => return Ok(false),
        "/close-kept" if is_kept => return Ok(false),
        "/hold/close-kept" if is_kept => {
            hold(stream, seen)?;
            return Ok(false);
        }
        "/endless" => {
            endless(stream, seen)?;
            return Ok(false);
        }
        "/unread" => {
            seen.wait(|state| state.released);
            return Ok(false);
        }
        "/cut" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            write_chunk(stream, b"part")?;
            return Ok(false);
        }
        "/twice" => {
            let answer =
                |text: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
            stream.write_all((answer("first") + &answer("second")).as_bytes())?;
            return Ok(true);
        }
        "/hints" => stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nClient-Cert: x\r\n\r\n")?,
        "/tunnel" => {
            tunnel(reader, stream)?;
            return Ok(false);
        }
        path if path.starts_with("/echo") => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            while let Some(part) = body.read(reader)? {
                write_chunk(stream, &part)?;
            }
            stream.write_all(b"0\r\n\r\n")?;
            return Ok(true);
        }
        "/early" => {
            stream.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 5\r\n\r\nearly")?;
            while body.read(reader)?.is_some() {}
            return Ok(true);
        }
        _ => {}
    }
    let (mut length, mut digest) = (0, Sha256::new());
    while let Some(part) = body.read(reader)? {
        length += part.len();
        digest.update(&part);
    }
    if head.path == "/hold" {
        hold(stream, seen)?;
    }
    if let Some(count) = head.path.strip_prefix("/bytes/").and_then(|count| count.parse::<usize>().ok()) {
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {count}\r\n\r\n")?;
        let count = if head.method == "HEAD" { 0 } else { count };
        for at in (0..count).step_by(CHUNK) {
            stream.write_all(&vec![b'x'; CHUNK.min(count - at)])?;
        }
    } else if head.path == "/trailers" {
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n")?;
        write_chunk(stream, b"body")?;
        stream.write_all(b"0\r\nX-Sum: 1\r\n\r\n")?;
    } else {
        let digest: String = digest.finish().iter().map(|byte| format!("{byte:02x}")).collect();
        let answer = serde_json::json!({
            "method": head.method,
            "path": head.path,
            "headers": head.headers,
            "body": {"length": length, "sha256": digest, "trailers": body.trailers},
        });
        let answer = answer.to_string();
        let length = answer.len();
        let answer = if head.method == "HEAD" { String::new() } else { answer };
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json";
        write!(stream, "{head}\r\nContent-Length: {length}\r\n\r\n{answer}")?;
    }
    Ok(true)
}

/// Agrees to become a WebSocket, whoever asks, and echoes bytes; what they mean is no matter here.
fn tunnel(reader: &mut BufReader<&TcpStream>, mut stream: &TcpStream) -> io::Result<()> {
    let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n";
    write!(stream, "{head}Sec-WebSocket-Accept: accepted\r\n\r\n")?;
    loop {
        let part = reader.fill_buf()?.to_vec();
        if part.is_empty() {
            return stream.write_all(b"bye");
        }
        stream.write_all(&part)?;
        reader.consume(part.len());
    }
}

/// Sends until nobody takes more.
fn endless(mut stream: &TcpStream, seen: &Arc<Seen>) -> io::Result<()> {
    stream.set_write_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
    let part = vec![b'x'; CHUNK];
    let mut sent = 0;
    while write_chunk(stream, &part).is_ok() {
        sent += CHUNK;
    }
    seen.change(|state| state.stalled.push(sent));
    Ok(())
}

const CHUNK: usize = 16 * 1024;

fn write_chunk(mut stream: &TcpStream, part: &[u8]) -> io::Result<()> {
    write!(stream, "{:x}\r\n", part.len())?;
    stream.write_all(part)?;
    stream.write_all(b"\r\n")
}

/// Waits for the release, or for the other side to go. The body must have been read: what is left of it would pass for
/// a sign of life.
fn hold(stream: &TcpStream, seen: &Arc<Seen>) -> io::Result<()> {
    let watched = stream.try_clone()?;
    let gone = Arc::new(Mutex::new(false));
    let (watching, telling) = (Arc::clone(&gone), Arc::clone(seen));
    std::thread::spawn(move || {
        if !matches!(watched.peek(&mut [0]), Ok(1)) {
            *watching.lock().unwrap() = true;
            telling.change(|_| {});
        }
    });
    seen.wait(|state| state.released || *gone.lock().unwrap());
    if *gone.lock().unwrap() { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
}

fn read_head(reader: &mut impl BufRead) -> io::Result<Option<Recorded>> {
    let Some(line) = read_line(reader)? else { return Ok(None) };
    let mut words = line.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = Vec::new();
    loop {
        let line = read_line(reader)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        if line.is_empty() {
            return Ok(Some(Recorded { method, path, headers }));
        }
        let (name, value) = line.split_once(':').ok_or(io::ErrorKind::InvalidData)?;
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
}

/// A line without its end; none where there is nothing more to come.
fn read_line(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    if reader.read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    let line = line.strip_suffix(b"\r\n").ok_or(io::ErrorKind::InvalidData)?;
    Ok(Some(String::from_utf8_lossy(line).into_owned()))
}

/// A body that is being read.
struct Body {
    left: Left,
    /// The lines after a chunked body.
    trailers: Vec<String>,
}

enum Left {
    Bytes(usize),
    Chunks,
    Nothing,
}

impl Body {
    fn of(head: &Recorded) -> Self {
        let length = head.values("content-length").first().and_then(|length| length.parse().ok());
        let left = if head.values("transfer-encoding").contains(&"chunked") {
            Left::Chunks
        } else {
            length.map_or(Left::Nothing, Left::Bytes)
        };
        Self { left, trailers: Vec::new() }
    }

    /// The next part, as soon as there is one; none at the end.
    fn read(&mut self, reader: &mut BufReader<&TcpStream>) -> io::Result<Option<Vec<u8>>> {
        match &mut self.left {
            Left::Nothing | Left::Bytes(0) => Ok(None),
            Left::Bytes(left) => {
                let available = reader.fill_buf()?;
                if available.is_empty() {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                let part = available[..available.len().min(*left)].to_vec();
                reader.consume(part.len());
                *left -= part.len();
                Ok(Some(part))
            }
            Left::Chunks => {
                let size = read_line(reader)?.ok_or(io::ErrorKind::UnexpectedEof)?;
                let size = usize::from_str_radix(&size, 16).map_err(|_| io::ErrorKind::InvalidData)?;
                let mut part = vec![0; size];
                reader.read_exact(&mut part)?;
                if size > 0 {
                    read_line(reader)?;
                    return Ok(Some(part));
                }
                while let Some(line) = read_line(reader)?.filter(|line| !line.is_empty()) {
                    self.trailers.push(line);
                }
                self.left = Left::Nothing;
                Ok(None)
            }
        }
    }
}
