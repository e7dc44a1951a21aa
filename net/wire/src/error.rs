//! Why bytes are not a request: what was being read, where in the frame, and what was wrong with it.

use crate::ApiKey;
use std::fmt;

/// A frame that cannot be understood. The connection is closed with this sentence in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireError {
    /// The field that was being read, in Kafka's words.
    pub field: &'static str,
    /// Its position, in bytes from the start of the frame (after the length prefix).
    pub at: usize,
    pub kind: WireErrorKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireErrorKind {
    /// The frame ends inside the field.
    Truncated,
    /// A null where the protocol has none.
    Null,
    /// A length or count below -1.
    NegativeLength(i64),
    /// More elements than the rest of the frame could hold.
    Count { count: u64, room: usize },
    /// More elements than this broker takes in one request, though the frame holds them.
    TooMany { count: usize, max: usize },
    /// A variable-length integer of more than five bytes or 32 bits.
    Varint,
    /// A string that is not UTF-8.
    Utf8,
    /// A string of so many bytes, more than the protocol's strings can have.
    LongString(usize),
    /// A tagged field whose content ends before its length does; so many bytes are left.
    TagRest(usize),
    /// A value outside those the protocol defines.
    Value(i64),
    /// An API key that Kafka 4.3 does not have.
    UnknownApi,
    /// A version of this API that the codec does not have.
    Version(ApiKey, i16),
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let WireError { field, at, kind } = self;
        match kind {
            WireErrorKind::Truncated => write!(f, "the frame ends inside {field}, which begins at byte {at}"),
            WireErrorKind::Null => {
                write!(f, "{field} at byte {at} is null, which the protocol does not allow")
            }
            WireErrorKind::NegativeLength(length) => {
                write!(f, "{field} at byte {at} has the length {length}")
            }
            WireErrorKind::Count { count, room } => {
                write!(f, "{field} at byte {at} claims {count} elements, with room for {room} at most")
            }
            WireErrorKind::TooMany { count, max } => {
                write!(f, "{field} up to byte {at} are {count}; a request may name {max}")
            }
            WireErrorKind::Varint => {
                write!(f, "the variable-length integer of {field} at byte {at} has no end")
            }
            WireErrorKind::Utf8 => write!(f, "{field} at byte {at} is not UTF-8"),
            WireErrorKind::LongString(bytes) => {
                write!(f, "{field} up to byte {at} has {bytes} bytes; a string may have {}", i16::MAX)
            }
            WireErrorKind::TagRest(left) => {
                write!(f, "the tagged field {field} at byte {at} is {left} bytes longer than its content")
            }
            WireErrorKind::Value(value) => write!(f, "{field} at byte {at} has the undefined value {value}"),
            WireErrorKind::UnknownApi => write!(f, "{field} at byte {at} names an API that does not exist"),
            WireErrorKind::Version(api, version) => {
                write!(f, "version {version} of {api} is not served")
            }
        }
    }
}

impl std::error::Error for WireError {}
