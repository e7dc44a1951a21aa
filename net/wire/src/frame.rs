//! Frames: the length prefix, the request header before a body, the response header before an answer.
//!
//! ```text
//! request   i32 length | i16 api key | i16 version | i32 correlation id | i16-string client id | tags, if flexible | body
//! response  i32 length | i32 correlation id | tags, if flexible and not ApiVersions | body
//! ```
//! Request header version 0 (no client id) belonged to ControlledShutdown 0 alone and went with Kafka 4.0.

use crate::api::{ApiKey, Encoding};
use crate::error::{WireError, WireErrorKind};
use crate::reader::Reader;
use crate::supported;
use crate::writer::Writer;
use std::borrow::Cow;
use std::fmt;

/// Bytes of the length prefix.
pub const LENGTH_BYTES: usize = 4;

/// The length that begins every frame.
#[derive(Clone, Copy, Debug)]
pub struct FrameLength;

/// A length prefix that ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    Negative(i32),
    TooLarge { bytes: usize, max: usize },
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::Negative(length) => write!(f, "the frame claims a length of {length} bytes"),
            FrameError::TooLarge { bytes, max } => {
                write!(f, "the frame claims {bytes} bytes, socket.request.max.bytes allows {max}")
            }
        }
    }
}

impl std::error::Error for FrameError {}

impl FrameLength {
    /// Bytes that follow the prefix.
    ///
    /// # Errors
    /// [`FrameError`] when the length is negative or above `max`: no byte of such a frame is worth reading.
    pub fn parse(prefix: [u8; LENGTH_BYTES], max: usize) -> Result<usize, FrameError> {
        let length = i32::from_be_bytes(prefix);
        match usize::try_from(length) {
            Err(_) => Err(FrameError::Negative(length)),
            Ok(bytes) if bytes > max => Err(FrameError::TooLarge { bytes, max }),
            Ok(bytes) => Ok(bytes),
        }
    }
}

/// The header of a request, and where its body begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHeader<'a> {
    pub api_key: ApiKey,
    pub api_version: i16,
    pub correlation_id: i32,
    /// As sent: clients may put anything here, so it is text only for showing ([`RequestHeader::client_id_text`]).
    pub client_id: Option<&'a [u8]>,
    /// How the body is encoded.
    pub encoding: Encoding,
    /// Bytes from the start of the frame (after the length prefix) to the body.
    pub body_at: usize,
}

impl<'a> RequestHeader<'a> {
    /// Reads the header of `frame`, which has no length prefix. The version is not checked against what is served,
    /// see [`supported::is_served`]; an ApiVersions request of a version from the future is accepted, because it must
    /// be answered (KIP-511).
    ///
    /// # Errors
    /// [`WireError`] for an unknown API or a header that is not whole.
    pub fn parse(frame: &'a [u8]) -> Result<RequestHeader<'a>, WireError> {
        let mut reader = Reader::new(frame, 0, Encoding::Classic);
        let api_key = ApiKey(reader.i16("api key")?);
        let api_version = reader.i16("api version")?;
        let encoding = api_key.encoding(api_version).ok_or(WireError {
            field: "api key",
            at: 0,
            kind: WireErrorKind::UnknownApi,
        })?;
        let correlation_id = reader.i32("correlation id")?;
        let client_id = reader.classic_string_bytes("client id")?;
        let mut body_at = reader.position();
        let from_the_future = api_key == ApiKey::API_VERSIONS && !supported::is_served(api_key, api_version);
        if encoding == Encoding::Flexible && !from_the_future {
            let mut reader = Reader::new(frame, body_at, Encoding::Flexible);
            reader.skip_tags("header tags")?;
            body_at = reader.position();
        }
        Ok(RequestHeader { api_key, api_version, correlation_id, client_id, encoding, body_at })
    }

    /// The client id for people; what is not UTF-8 is replaced.
    pub fn client_id_text(&self) -> Cow<'a, str> {
        self.client_id.map_or(Cow::Borrowed(""), String::from_utf8_lossy)
    }

    /// What an answer to this request needs of its header.
    pub fn response_head(&self) -> ResponseHead {
        ResponseHead {
            api_key: self.api_key,
            api_version: self.api_version,
            correlation_id: self.correlation_id,
        }
    }

    pub(crate) fn expect_version(
        &self,
        api: ApiKey,
        versions: std::ops::RangeInclusive<i16>,
    ) -> Result<(), WireError> {
        if self.api_key == api && versions.contains(&self.api_version) {
            return Ok(());
        }
        let kind = WireErrorKind::Version(self.api_key, self.api_version);
        Err(WireError { field: "api version", at: 2, kind })
    }
}

/// Owned remains of a request header: enough to write the answer long after the frame is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    pub api_key: ApiKey,
    pub api_version: i16,
    pub correlation_id: i32,
}

impl ResponseHead {
    pub(crate) fn encoding(self) -> Encoding {
        self.api_key.encoding(self.api_version).expect("made from a header that parsed")
    }

    /// Appends the length prefix (0 for now) and the response header; returns where the prefix is, for
    /// [`patch_length`].
    pub fn begin(self, out: &mut Vec<u8>) -> usize {
        let start = out.len();
        let encoding = self.api_key.response_header_encoding(self.api_version).unwrap_or(Encoding::Classic);
        let mut writer = Writer::new(out, encoding);
        writer.i32(0);
        writer.i32(self.correlation_id);
        writer.no_tags();
        start
    }
}

/// Writes the length of a finished answer into its prefix. `elsewhere_bytes` are those that the caller sends from
/// other memory, between the bytes of `out`.
///
/// # Errors
/// [`AnswerTooLarge`] when the whole does not fit the protocol's signed 32-bit length.
pub fn patch_length(out: &mut [u8], start: usize, elsewhere_bytes: u64) -> Result<(), AnswerTooLarge> {
    let bytes = out.len().saturating_sub(start + LENGTH_BYTES) as u64 + elsewhere_bytes;
    let length = i32::try_from(bytes).map_err(|_| AnswerTooLarge(bytes))?;
    let prefix = out.get_mut(start..start + LENGTH_BYTES).expect("`begin` wrote a prefix at `start`");
    prefix.copy_from_slice(&length.to_be_bytes());
    Ok(())
}

/// An answer of 2 GiB or more; its size in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerTooLarge(pub u64);

impl fmt::Display for AnswerTooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an answer of {} bytes does not fit a frame", self.0)
    }
}

impl std::error::Error for AnswerTooLarge {}
