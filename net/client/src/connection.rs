//! One TCP connection: frames, correlation ids, deadlines, and which version of each API both sides speak.

use crate::error::ClientError;
use bytes::{Bytes, BytesMut};
use kafka_wire::{ApiVersionsRequest, KafkaMessage, KafkaRequest, OutboundFrameLimits, RequestResponsePair};
use kafka_wire_core::{ApiVersion, DecodeLimits, KafkaDecode, StrBytes};
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// Largest answer taken; a batch may be as large as `message.max.bytes` allows.
pub const FRAME_BYTES_MAX: usize = 256 << 20;
/// Memory for an answer is taken in steps of this, as bytes arrive.
const STEP_BYTES: usize = 1 << 20;
/// Kafka's UNSUPPORTED_VERSION.
const UNSUPPORTED_VERSION: i16 = 35;
/// First version of ApiVersions that names the client.
const API_VERSIONS_NAMED: i16 = 3;

/// What every connection of a client has in common.
#[derive(Clone, Debug)]
pub struct Settings {
    pub client_id: String,
    pub connect_timeout: Duration,
    pub request_timeout: Duration,
}

/// An open connection whose server told which APIs it serves.
pub struct Connection {
    stream: TcpStream,
    address: String,
    client_id: StrBytes,
    correlation: i32,
    apis: Vec<Served>,
}

struct Served {
    key: i16,
    min: i16,
    max: i16,
}

/// A request that was sent and not answered.
#[derive(Clone, Copy, Debug)]
pub struct Pending {
    correlation: i32,
    version: ApiVersion,
    deadline: Instant,
    timeout: Duration,
}

impl Connection {
    /// Connects to `HOST:PORT` and asks which APIs are served.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`], or what asking gives.
    pub fn open(address: &str, settings: &Settings) -> Result<Connection, ClientError> {
        let stream = connect(address, settings.connect_timeout)
            .map_err(|error| ClientError::Unreachable { address: address.to_string(), error })?;
        let mut connection = Connection {
            stream,
            address: address.to_string(),
            client_id: StrBytes::from(settings.client_id.as_str()),
            correlation: 0,
            apis: Vec::new(),
        };
        connection.negotiate(settings.request_timeout)?;
        Ok(connection)
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// The newest version of `R` that both sides have, no newer than `newest`.
    ///
    /// # Errors
    /// [`ClientError::Unsupported`].
    pub fn version<R: RequestResponsePair>(&self, newest: i16) -> Result<ApiVersion, ClientError> {
        let unsupported = || ClientError::Unsupported { address: self.address.clone(), api: api_name::<R>() };
        let key = R::API_KEY.value();
        let served = self.apis.iter().find(|api| api.key == key).ok_or_else(unsupported)?;
        let ours = R::SUPPORTED_VERSIONS;
        let theirs = R::Response::SUPPORTED_VERSIONS;
        let max = served.max.min(ours.max().value()).min(theirs.max().value()).min(newest);
        let min = served.min.max(ours.min().value()).max(theirs.min().value());
        if max < min {
            return Err(unsupported());
        }
        Ok(ApiVersion::new(max))
    }

    /// Whether the server has the API at all.
    pub fn serves<R: RequestResponsePair>(&self) -> bool {
        self.version::<R>(i16::MAX).is_ok()
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// Anything but a refusal: codes inside the answer are the caller's to read.
    pub fn call<R: RequestResponsePair>(
        &mut self,
        request: &R,
        version: ApiVersion,
        timeout: Duration,
    ) -> Result<R::Response, ClientError> {
        let pending = self.send(request, version, timeout)?;
        self.receive::<R>(&pending)
    }

    /// Sends a request. Answers come in the order of requests: take each with [`Connection::receive`].
    ///
    /// # Errors
    /// As [`Connection::call`].
    pub fn send<R: RequestResponsePair>(
        &mut self,
        request: &R,
        version: ApiVersion,
        timeout: Duration,
    ) -> Result<Pending, ClientError> {
        self.correlation = self.correlation.wrapping_add(1) & i32::MAX;
        let mut frame = BytesMut::new();
        let limits = OutboundFrameLimits::new(FRAME_BYTES_MAX);
        let client = Some(self.client_id.clone());
        kafka_wire::encode_request(&mut frame, self.correlation, client, request, version, limits)
            .map_err(|error| ClientError::Records(format!("a request cannot be written: {error}")))?;
        let deadline = Instant::now() + timeout;
        let pending = Pending { correlation: self.correlation, version, deadline, timeout };
        self.write(&frame, deadline).map_err(|error| self.failed::<R>(error, timeout))?;
        Ok(pending)
    }

    /// # Errors
    /// As [`Connection::call`].
    pub fn receive<R: RequestResponsePair>(&mut self, pending: &Pending) -> Result<R::Response, ClientError> {
        let frame = self.frame::<R>(pending)?;
        self.decode::<R>(frame, pending)
    }

    fn decode<R: RequestResponsePair>(
        &self,
        mut frame: Bytes,
        pending: &Pending,
    ) -> Result<R::Response, ClientError> {
        let head = kafka_wire::response_header_version_for::<R>(pending.version)
            .map_err(|error| self.garbled(error.to_string()))?;
        let correlation =
            take_i32(&mut frame).ok_or_else(|| self.garbled("an answer of less than 4 bytes"))?;
        if correlation != pending.correlation {
            return Err(self.garbled(format!(
                "it answered request {correlation} where {} was due",
                pending.correlation
            )));
        }
        if head >= 1 {
            skip_tags(&mut frame).ok_or_else(|| self.garbled("an answer with a damaged header"))?;
        }
        R::Response::decode_from_bytes(frame, pending.version, limits())
            .map_err(|error| self.garbled(format!("its {} answer cannot be read: {error}", api_name::<R>())))
    }

    fn negotiate(&mut self, timeout: Duration) -> Result<(), ClientError> {
        let mut request = ApiVersionsRequest::default();
        request.client_software_name = StrBytes::from("ringmill");
        request.client_software_version = StrBytes::from(env!("CARGO_PKG_VERSION"));
        let pending = self.send(&request, ApiVersion::new(API_VERSIONS_NAMED), timeout)?;
        let frame = self.frame::<ApiVersionsRequest>(&pending)?;
        // A server too old for this version answers in the layout of version 0, whatever was asked.
        let code = frame.get(4..6).and_then(|b| b.try_into().ok()).map(i16::from_be_bytes);
        let answer = if code == Some(UNSUPPORTED_VERSION) {
            self.call(&request, ApiVersion::new(0), timeout)?
        } else {
            self.decode::<ApiVersionsRequest>(frame, &pending)?
        };
        ClientError::check(
            answer.error_code,
            || format!("asking {} which APIs it serves", self.address),
            None,
        )?;
        self.apis = answer
            .api_keys
            .iter()
            .map(|api| Served { key: api.api_key, min: api.min_version, max: api.max_version })
            .collect();
        Ok(())
    }

    fn write(&mut self, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
        while !bytes.is_empty() {
            self.stream.set_write_timeout(Some(left(deadline)?))?;
            match self.stream.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(wrote) => bytes = bytes.get(wrote..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The next frame, without its length.
    fn frame<R: RequestResponsePair>(&mut self, pending: &Pending) -> Result<Bytes, ClientError> {
        let fail = |this: &Self, error| this.failed::<R>(error, pending.timeout);
        let mut head = Vec::new();
        self.fill(&mut head, 4, pending.deadline).map_err(|error| fail(self, error))?;
        let length = head.first_chunk::<4>().map_or(-1, |head| i32::from_be_bytes(*head));
        let length =
            usize::try_from(length).ok().filter(|length| *length <= FRAME_BYTES_MAX).ok_or_else(|| {
                self.garbled(format!("an answer begins with the bytes {}", head.escape_ascii()))
            })?;
        let mut body = Vec::new();
        while body.len() < length {
            let step = (length - body.len()).min(STEP_BYTES);
            self.fill(&mut body, step, pending.deadline).map_err(|error| fail(self, error))?;
        }
        Ok(Bytes::from(body))
    }

    /// Appends exactly `count` bytes.
    fn fill(&mut self, to: &mut Vec<u8>, count: usize, deadline: Instant) -> io::Result<()> {
        let mut at = to.len();
        let end = at + count;
        to.resize(end, 0);
        while at < end {
            self.stream.set_read_timeout(Some(left(deadline)?))?;
            match self.stream.read(to.get_mut(at..).unwrap_or_default()) {
                Ok(0) => {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the other side closed it"));
                }
                Ok(got) => at += got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn failed<R: RequestResponsePair>(&self, error: io::Error, after: Duration) -> ClientError {
        let address = self.address.clone();
        if matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock) {
            ClientError::TimedOut { address, doing: api_name::<R>().to_string(), after }
        } else {
            ClientError::Lost { address, error }
        }
    }

    fn garbled(&self, what: impl Into<String>) -> ClientError {
        ClientError::Garbled { address: self.address.clone(), what: what.into() }
    }
}

fn connect(address: &str, timeout: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for candidate in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&candidate, timeout) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Time until `deadline`; never zero, which would mean "no timeout" to a socket.
fn left(deadline: Instant) -> io::Result<Duration> {
    match deadline.checked_duration_since(Instant::now()) {
        Some(left) if !left.is_zero() => Ok(left),
        Some(_) | None => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// `MetadataRequest` is `Metadata` to people.
fn api_name<R: KafkaRequest>() -> &'static str {
    R::NAME.strip_suffix("Request").unwrap_or(R::NAME)
}

fn limits() -> DecodeLimits {
    let mut limits = DecodeLimits::default();
    limits.max_frame_bytes = FRAME_BYTES_MAX;
    limits.max_bytes_bytes = FRAME_BYTES_MAX;
    limits
}

fn take_i32(from: &mut Bytes) -> Option<i32> {
    let value = i32::from_be_bytes(*from.first_chunk::<4>()?);
    *from = from.slice(4..);
    Some(value)
}

/// Skips the tagged fields of a flexible response header.
fn skip_tags(from: &mut Bytes) -> Option<()> {
    for _ in 0..unsigned_varint(from)? {
        unsigned_varint(from)?;
        let length = unsigned_varint(from)? as usize;
        if length > from.len() {
            return None;
        }
        *from = from.slice(length..);
    }
    Some(())
}

fn unsigned_varint(from: &mut Bytes) -> Option<u32> {
    let mut value = 0u32;
    for shift in (0..35).step_by(7) {
        let byte = *from.first()?;
        *from = from.slice(1..);
        value |= u32::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
