//! A scrape as Prometheus makes it: one connection that is kept, gzip accepted, the body read to its end.
//!
//! Only what an exporter answers: a body with its length or in chunks. Not here: TLS, redirects, trailers.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

/// An exporter that takes longer is broken; the scrape timeout that Prometheus has by default.
const TIMEOUT: Duration = Duration::from_secs(10);
/// An exporter of a host answers with some 100 KiB.
const BODY_MAX: u64 = 64 << 20;
/// Of a status line or a header.
const LINE_MAX: u64 = 8 << 10;
const HEADERS_MAX: usize = 100;

/// A connection to an exporter.
pub struct Scraper {
    address: String,
    path: String,
    connection: BufReader<TcpStream>,
}

impl Scraper {
    /// Connects to `http://HOST:PORT/PATH`.
    pub fn connect(url: &str) -> anyhow::Result<Self> {
        let (address, path) = parts(url)?;
        let stream = TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        stream.set_nodelay(true)?;
        Ok(Self { address: address.into(), path: path.into(), connection: BufReader::new(stream) })
    }

    /// Fetches the body, compressed if the exporter likes to.
    pub fn fetch(&mut self) -> anyhow::Result<Vec<u8>> {
        self.get("gzip")
    }

    /// Fetches the text of the exposition.
    pub fn fetch_text(&mut self) -> anyhow::Result<String> {
        Ok(String::from_utf8(self.get("identity")?)?)
    }

    fn get(&mut self, encoding: &str) -> anyhow::Result<Vec<u8>> {
        let Self { address, path, connection } = self;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: text/plain;version=0.0.4\r\n\
             Accept-Encoding: {encoding}\r\nUser-Agent: tocsin-tests\r\n\r\n"
        );
        connection.get_mut().write_all(request.as_bytes())?;
        answer(connection).with_context(|| format!("http://{address}{path} does not answer as it should"))
    }
}

/// HOST:PORT and the path of a URL.
fn parts(url: &str) -> anyhow::Result<(&str, &str)> {
    let rest = url.strip_prefix("http://").with_context(|| format!("{url} does not begin with http://"))?;
    Ok(rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash)))
}

/// Reads one answer and gives its body.
fn answer(from: &mut impl BufRead) -> anyhow::Result<Vec<u8>> {
    let status = line(from)?;
    ensure!(status.split(' ').nth(1) == Some("200"), "it answers {status:?}");
    let (mut length, mut chunked) = (None, false);
    for _ in 0..HEADERS_MAX {
        let header = line(from)?;
        if header.is_empty() {
            return match (chunked, length) {
                (true, _) => chunks(from),
                (false, Some(length)) => exactly(from, length),
                (false, None) => bail!("a body without length"),
            };
        }
        let (name, value) = header.split_once(':').context("a header without colon")?;
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = Some(value.trim().parse()?),
            "transfer-encoding" => chunked = value.trim().eq_ignore_ascii_case("chunked"),
            _ => {}
        }
    }
    bail!("more than {HEADERS_MAX} headers")
}

fn line(from: &mut impl BufRead) -> anyhow::Result<String> {
    let mut line = String::new();
    from.take(LINE_MAX).read_line(&mut line)?;
    Ok(line.strip_suffix("\r\n").context("a line without end")?.to_owned())
}

fn exactly(from: &mut impl BufRead, length: u64) -> anyhow::Result<Vec<u8>> {
    ensure!(length <= BODY_MAX, "a body of {length} bytes, more than {BODY_MAX}");
    let mut body = Vec::new();
    from.take(length).read_to_end(&mut body)?;
    ensure!(body.len() as u64 == length, "the body ends after {} of {length} bytes", body.len());
    Ok(body)
}

fn chunks(from: &mut impl BufRead) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let length = u64::from_str_radix(line(from)?.trim(), 16).context("a chunk without length")?;
        ensure!(body.len() as u64 + length.min(BODY_MAX) <= BODY_MAX, "a body of more than {BODY_MAX} bytes");
        body.append(&mut exactly(from, length)?);
        ensure!(line(from)?.is_empty(), "a chunk longer than its length, or trailers");
        if length == 0 {
            return Ok(body);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_an_address_and_a_path() {
        assert_eq!(parts("http://[::1]:9100/metrics").unwrap(), ("[::1]:9100", "/metrics"));
        assert_eq!(parts("http://host:80").unwrap(), ("host:80", "/"));
        assert!(parts("https://host/").is_err());
    }

    #[test]
    fn bodies_have_a_length_or_chunks() {
        for head_and_body in [
            "content-length: 5\r\n\r\na\nb\nc",
            "A: b\r\nTransfer-Encoding: chunked\r\n\r\n3\r\na\nb\r\n2\r\n\nc\r\n0\r\n\r\n",
        ] {
            let text = format!("HTTP/1.1 200 OK\r\n{head_and_body}HTTP/1.1 next");
            let mut from = text.as_bytes();
            assert_eq!(answer(&mut from).unwrap(), b"a\nb\nc", "{text}");
            assert_eq!(from, b"HTTP/1.1 next", "the next answer begins where this one ends");
        }
    }

    #[test]
    fn what_is_no_whole_answer_is_an_error() {
        for (text, why) in [
            ("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", "it answers \"HTTP/1.1 503 Busy\""),
            ("HTTP/1.1 200 OK\r\n\r\n", "a body without length"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", "the body ends after 2 of 3 bytes"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", "a chunk without length"),
            ("HTTP/1.1 200 OK\r\n", "a line without end"),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n",
                "a body of 99999999 bytes, more than 67108864",
            ),
        ] {
            assert_eq!(answer(&mut text.as_bytes()).unwrap_err().to_string(), why);
        }
    }
}
