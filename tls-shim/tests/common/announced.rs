//! What makes an upstream one that wants the PROXY protocol, as Kong's listener with `proxy_protocol` does.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

pub struct Announced {
    pub address: SocketAddr,
    headers: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Announced {
    pub fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let headers = Arc::new(Mutex::new(Vec::new()));
        let noting = Arc::clone(&headers);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let noting = Arc::clone(&noting);
                std::thread::spawn(move || serve(stream, upstream, &noting));
            }
        });
        Self { address, headers }
    }

    /// The header of each connection so far.
    pub fn headers(&self) -> Vec<Vec<u8>> {
        self.headers.lock().unwrap().clone()
    }
}

fn serve(mut stream: TcpStream, upstream: SocketAddr, headers: &Mutex<Vec<Vec<u8>>>) -> io::Result<()> {
    let mut header = vec![0; 16];
    stream.read_exact(&mut header)?;
    if header.starts_with(b"PROXY ") {
        while !header.ends_with(b"\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            header.push(byte[0]);
        }
    } else {
        let mut rest = vec![0; usize::from(header[15])];
        stream.read_exact(&mut rest)?;
        header.extend(rest);
    }
    headers.lock().unwrap().push(header);
    let upstream = TcpStream::connect(upstream)?;
    let (from, to) = (stream.try_clone()?, upstream.try_clone()?);
    std::thread::spawn(move || pass(from, to));
    pass(upstream, stream);
    Ok(())
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
