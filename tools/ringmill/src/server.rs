//! Which broker a command talks to, and the few things it asks of the admin port.

use crate::exit::{Code, Failed};
use clap::Args;
use ringmill_client::{Client, Options};
use serde::Deserialize;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// Options of every command that talks to a broker.
#[derive(Args, Clone, Debug)]
pub struct Server {
    /// The broker to talk to
    #[arg(long, short = 'b', value_name = "HOST:PORT", default_value = "127.0.0.1:9092", value_parser = address)]
    pub bootstrap_server: String,
    /// How long to wait for an answer, and to retry what may be retried
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub timeout: Duration,
}

/// `HOST:PORT`; the port may be left out.
pub fn address(text: &str) -> Result<String, String> {
    if text.contains(',') {
        return Err("one address is enough: the broker tells the others".to_string());
    }
    let (host, port) = match text.rsplit_once(':') {
        // An IPv6 address without port has colons too.
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port),
        Some(_) if text.starts_with('[') && text.ends_with(']') => (text, "9092"),
        Some(_) => return Err("write an IPv6 address in brackets: [::1]:9092".to_string()),
        None => (text, "9092"),
    };
    let port: u16 = port.parse().map_err(|_| format!("{port} is not a port"))?;
    if host.is_empty() || port == 0 {
        return Err("it takes the form HOST:PORT".to_string());
    }
    Ok(format!("{host}:{port}"))
}

/// A timeout, 0.001 to 86,400 seconds.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("{text} is not a number of seconds"))?;
    if !(0.001..=86_400.0).contains(&seconds) {
        return Err("it takes 0.001 to 86400 seconds".to_string());
    }
    Ok(Duration::from_secs_f64(seconds))
}

impl Server {
    pub fn connect(&self) -> Result<Client, Failed> {
        let options = Options {
            timeout: self.timeout,
            connect_timeout: self.timeout.min(Duration::from_secs(5)),
            ..Options::default()
        };
        Ok(Client::connect(&self.bootstrap_server, options)?)
    }

    /// Where the admin port of the same broker would be, were it the default one.
    pub fn admin_guess(&self) -> String {
        let host = self.bootstrap_server.rsplit_once(':').map_or("127.0.0.1", |(host, _)| host);
        format!("{host}:9644")
    }
}

/// A topic as the admin port shows it, as far as it is used here.
#[derive(Clone, Debug, Deserialize)]
pub struct AdminTopic {
    pub id: String,
    pub partitions: Vec<AdminPartition>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct AdminPartition {
    pub index: i32,
    pub core: u16,
    pub durable: i64,
    pub segments: u32,
    pub offline: bool,
    #[serde(default)]
    pub offline_because: Option<String>,
    pub relaxed: bool,
}

/// An answer larger than this is not one of ours.
const ANSWER_BYTES_MAX: u64 = 256 << 20;

/// Topics as `/v1/topics` of the admin port at `address` lists them.
///
/// # Errors
/// Code 3 when nothing answers, 4 when it is not that port.
pub fn admin_topics(address: &str, timeout: Duration) -> Result<Vec<AdminTopic>, Failed> {
    // As the banner of `serve` prints it, it is a URL.
    let address = address.strip_prefix("http://").unwrap_or(address).trim_end_matches('/');
    let body = admin_get(address, "/v1/topics", timeout)?;
    serde_json::from_slice(&body).map_err(|error| {
        Failed::new(Code::Garbled, format!("{address} does not answer as an admin port of ringmill: {error}"))
    })
}

/// The body of an answer of the admin port.
///
/// # Errors
/// Code 3 when nothing answers, or not with 200.
pub fn admin_get(address: &str, path: &str, timeout: Duration) -> Result<Vec<u8>, Failed> {
    get(address, path, timeout).map_err(|error| {
        let why = match error.kind() {
            // What a socket's own deadline gives.
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                format!("no answer in {} s", timeout.as_secs_f64())
            }
            ErrorKind::ConnectionRefused => "connection refused".to_string(),
            _ => error.to_string(),
        };
        let advice = "Is it running, and is that its --admin, which `ringmill serve` prints?";
        Failed::new(Code::Unreachable, format!("no admin port of a broker at {address}: {why}. {advice}"))
    })
}

/// A plain HTTP/1.0 GET: the answer ends when the connection does.
pub fn get(address: &str, path: &str, timeout: Duration) -> std::io::Result<Vec<u8>> {
    let mut last = std::io::Error::other("the name has no address");
    for candidate in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&candidate, timeout) {
            Ok(mut stream) => {
                stream.set_read_timeout(Some(timeout))?;
                stream.set_write_timeout(Some(timeout))?;
                stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes())?;
                let mut answer = Vec::new();
                match stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer) {
                    // A Kafka port does not wait for the rest of what makes no sense to it.
                    Err(error) if error.kind() == ErrorKind::ConnectionReset && answer.is_empty() => {}
                    read => drop(read?),
                }
                return body_of(&answer);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn body_of(answer: &[u8]) -> std::io::Result<Vec<u8>> {
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n");
    let (head, body) = end.map_or((answer, &[][..]), |end| answer.split_at(end + 4));
    let status = head.split(|b| *b == b'\n').next().unwrap_or_default();
    let status = String::from_utf8_lossy(status);
    match status.strip_prefix("HTTP/1") {
        Some(rest) if rest.split(' ').nth(1) == Some("200") => Ok(body.to_vec()),
        Some(_) => Err(std::io::Error::other(format!("it answers {}", status.trim()))),
        None => Err(std::io::Error::other("what is there does not speak HTTP")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_understood_or_explained() {
        assert_eq!(address("localhost").as_deref(), Ok("localhost:9092"));
        assert_eq!(address("localhost:19092").as_deref(), Ok("localhost:19092"));
        assert_eq!(address("[::1]:19092").as_deref(), Ok("[::1]:19092"));
        assert_eq!(address("[::1]").as_deref(), Ok("[::1]:9092"));
        for wrong in ["::1", "host:", ":9092", "host:99999", "a:1,b:2", "host:0"] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_answer_is_taken_apart() {
        assert_eq!(body_of(b"HTTP/1.0 200 OK\r\nA: b\r\n\r\n[]").expect("a body"), b"[]");
        assert!(body_of(b"HTTP/1.1 503 Service Unavailable\r\n\r\nno").is_err());
        let why = |answer: &[u8]| body_of(answer).map_err(|error| error.to_string());
        assert_eq!(why(b"\x00\x00\x00\x05junk"), Err("what is there does not speak HTTP".into()));
        assert_eq!(
            why(b""),
            Err("what is there does not speak HTTP".into()),
            "a Kafka port closes in silence"
        );
    }
}
