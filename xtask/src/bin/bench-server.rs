//! The program that benches start as an app: it listens on 127.0.0.1:$PORT as soon as a program can, and
//! answers every request with the same few bytes.

use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;

const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 3\r\n\r\nok\n";
/// The request's line and headers together; a longer request ends its connection.
const HEAD_BYTES_MAX: u64 = 64 * 1024;

fn main() -> Result<()> {
    let port = std::env::var("PORT").ok().and_then(|port| port.parse().ok());
    let port: u16 = port.ok_or_else(|| Error::new(ErrorKind::InvalidInput, "PORT is no port"))?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    for stream in listener.incoming() {
        let stream = stream?;
        // A connection that breaks off is the caller's affair.
        thread::spawn(move || serve(&stream));
    }
    Ok(())
}

fn serve(stream: &TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    while let Some(body_bytes) = read_head(&mut reader)? {
        std::io::copy(&mut reader.by_ref().take(body_bytes), &mut std::io::sink())?;
        writer.write_all(ANSWER)?;
    }
    Ok(())
}

/// Reads up to the empty line, and gives the length of the body behind it; nothing at the end of the
/// connection. The node sends bodies of known length to this program.
fn read_head(reader: &mut impl BufRead) -> Result<Option<u64>> {
    let mut head = reader.take(HEAD_BYTES_MAX);
    let mut body_bytes = 0;
    let mut line = String::new();
    loop {
        line.clear();
        if head.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        if line == "\r\n" {
            return Ok(Some(body_bytes));
        }
        let header = line.split_once(':');
        let length = header.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        if let Some((_, value)) = length {
            body_bytes = value.trim().parse().map_err(|_| ErrorKind::InvalidData)?;
        }
    }
}
