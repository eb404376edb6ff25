//! HTTP/1.1 as bytes on both sides: it must send and receive what HTTP libraries refuse to.
//! Field values are Latin-1 on the wire.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longest time for one exchange.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Field lines in order; names as written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fields(pub(crate) Vec<(String, String)>);

impl Fields {
    /// All values of a name, joined.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        let values: Vec<&str> = self
            .0
            .iter()
            .filter(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Adds a value; to the line that is there, if there is one.
    pub(crate) fn join(&mut self, name: &str, value: &str) {
        match self.0.iter_mut().find(|(other, _)| other.eq_ignore_ascii_case(name)) {
            Some((_, there)) => {
                there.push_str(", ");
                there.push_str(value);
            }
            None => self.0.push((name.to_owned(), value.to_owned())),
        }
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        for (name, value) in &self.0 {
            out.extend(latin1(name));
            out.extend(b": ");
            out.extend(latin1(value));
            out.extend(b"\r\n");
        }
    }
}

pub(crate) fn latin1(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).collect()
}

pub(crate) fn from_latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// A connection that reads messages.
pub(crate) struct Wire {
    reader: BufReader<TcpStream>,
}

impl Wire {
    pub(crate) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { reader: BufReader::new(stream) })
    }

    pub(crate) fn connect(address: SocketAddr) -> io::Result<Self> {
        Self::new(TcpStream::connect_timeout(&address, PATIENCE)?)
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes)
    }

    /// The start line and fields of the next message; `None` at the end of the connection.
    pub(crate) fn head(&mut self) -> io::Result<Option<(String, Fields)>> {
        let Some(start) = self.line()? else { return Ok(None) };
        let mut fields = Fields::default();
        loop {
            let line = self.line()?.ok_or(io::ErrorKind::UnexpectedEof)?;
            if line.is_empty() {
                return Ok(Some((start, fields)));
            }
            let (name, value) = line.split_once(':').ok_or(io::ErrorKind::InvalidData)?;
            fields.0.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
        }
    }

    pub(crate) fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut body = vec![0; length];
        self.reader.read_exact(&mut body)?;
        Ok(body)
    }

    pub(crate) fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        self.reader.read_to_end(&mut body)?;
        Ok(body)
    }

    pub(crate) fn chunked(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size =
                usize::from_str_radix(size, 16).map_err(|_no_number| io::ErrorKind::InvalidData)?;
            if size == 0 {
                while !self.line()?.ok_or(io::ErrorKind::UnexpectedEof)?.is_empty() {}
                return Ok(body);
            }
            body.extend(self.exactly(size)?);
            self.line()?;
        }
    }

    fn line(&mut self) -> io::Result<Option<String>> {
        let mut line = Vec::new();
        self.reader.read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(None);
        }
        while matches!(line.last(), Some(b'\n' | b'\r')) {
            line.pop();
        }
        Ok(Some(from_latin1(&line)))
    }
}

/// A response as the client got it.
#[derive(Debug, Default)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) fields: Fields,
    pub(crate) body: String,
    pub(crate) interim: Vec<(u16, Fields)>,
}

/// Reads a final response and the interim ones before it. Says whether the connection lives on.
pub(crate) fn response(wire: &mut Wire, method: &str) -> io::Result<(Response, bool)> {
    let mut interim = Vec::new();
    loop {
        let (start, fields) = wire.head()?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let status: u16 = start
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .ok_or(io::ErrorKind::InvalidData)?;
        if (100..200).contains(&status) {
            interim.push((status, fields));
            continue;
        }
        let mut alive = !fields.get("connection").unwrap_or_default().contains("close");
        let body = if method == "HEAD" || status == 204 || status == 304 {
            Vec::new()
        } else if fields.get("transfer-encoding").is_some_and(|coding| coding.contains("chunked")) {
            wire.chunked()?
        } else if let Some(length) = fields.get("content-length") {
            wire.exactly(length.parse().map_err(|_no_number| io::ErrorKind::InvalidData)?)?
        } else {
            alive = false;
            wire.rest()?
        };
        let body = String::from_utf8_lossy(&body).into_owned();
        return Ok((Response { status, fields, body, interim }, alive));
    }
}
