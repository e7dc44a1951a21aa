//! Why a connection is closed by the core: the sentence in the log, made only when it is logged.

use ringmill_types::ErrorCode;
use ringmill_types::limits::CONTROL_REQUEST_BYTES_MAX;
use ringmill_wire::{ApiKey, WireError};
use std::fmt;

/// A connection that ends because of what its peer did, or did not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Closing {
    NegativeLength(i32),
    TooLarge {
        bytes: i32,
        max: usize,
    },
    /// For a request that control decides.
    TooLargeForControl {
        api: ApiKey,
        bytes: usize,
    },
    TooShort(usize),
    Header(WireError),
    Request {
        api: ApiKey,
        version: i16,
        error: WireError,
    },
    /// Control could not read it, or does not serve it.
    Refused(String),
    /// With acks=0 there is no other way to tell the client.
    Unacked {
        error: ErrorCode,
        why: &'static str,
    },
    /// Its rest has not come for so long that whoever sent it has gone.
    FrameStopped {
        seconds: u64,
    },
    /// It comes, but memory is held for it longer than its size is worth.
    FrameTooSlow {
        seconds: u64,
    },
    /// It would have come; there was nowhere to put it.
    FrameWithoutMemory {
        bytes: usize,
    },
    ReaderTooSlow {
        seconds: u64,
    },
    AnswerTooLarge,
    /// The broker stops, and the peer has not taken its answers.
    StopGrace {
        seconds: u64,
    },
}

impl fmt::Display for Closing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Closing::NegativeLength(bytes) => write!(f, "a frame of {bytes} bytes"),
            Closing::TooLarge { bytes, max } => {
                write!(f, "a frame of {bytes} bytes, above socket.request.max.bytes ({max})")?;
                f.write_str(other_protocol(*bytes).unwrap_or_default())
            }
            Closing::TooLargeForControl { api, bytes } => {
                write!(f, "a request {api} of {bytes} bytes; this one may have {CONTROL_REQUEST_BYTES_MAX}")
            }
            Closing::TooShort(bytes) => write!(f, "a frame of {bytes} bytes, too short for a request header"),
            Closing::Header(error) => write!(f, "a request header that cannot be read: {error}"),
            Closing::Request { api, version, error } => {
                write!(f, "a request {api} of version {version} that cannot be read: {error}")
            }
            Closing::Refused(why) => f.write_str(why),
            Closing::Unacked { error, why } => {
                write!(f, "a produce request with acks=0 was refused with {}", error.name())?;
                if why.is_empty() { Ok(()) } else { write!(f, ": {why}") }
            }
            Closing::FrameStopped { seconds } => {
                write!(f, "a frame whose rest has not come for {seconds} s")
            }
            Closing::FrameTooSlow { seconds } => write!(f, "a frame that was not complete after {seconds} s"),
            Closing::FrameWithoutMemory { bytes } => {
                write!(f, "a frame of {bytes} bytes, and no memory became free for it; raise memory")
            }
            Closing::ReaderTooSlow { seconds } => {
                write!(f, "a reader that has not taken its answer for {seconds} s")
            }
            Closing::AnswerTooLarge => f.write_str("an answer of more than 2 GiB"),
            Closing::StopGrace { seconds } => {
                write!(f, "the broker stops, and what was in flight was not done within {seconds} s")
            }
        }
    }
}

/// What a length prefix really is when it is the beginning of another protocol.
fn other_protocol(prefix: i32) -> Option<&'static str> {
    match &prefix.to_be_bytes() {
        [0x16, 3, ..] => {
            Some("; it looks like TLS, and this port takes plain Kafka frames (security.protocol=PLAINTEXT)")
        }
        b"GET " | b"POST" | b"HEAD" | b"PUT " | b"OPTI" | b"PRI " => {
            Some("; it looks like HTTP, which the admin port speaks")
        }
        b"SSH-" => Some("; it looks like SSH"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringmill_wire::WireErrorKind;

    #[test]
    fn reasons_name_what_was_read_and_what_it_looks_like() {
        let error = WireError { field: "acks", at: 14, kind: WireErrorKind::Truncated };
        let closing = Closing::Request { api: ApiKey::PRODUCE, version: 9, error };
        assert_eq!(
            closing.to_string(),
            "a request Produce of version 9 that cannot be read: the frame ends inside acks, which begins at byte 14"
        );
        let looks =
            |bytes: [u8; 4]| Closing::TooLarge { bytes: i32::from_be_bytes(bytes), max: 1 }.to_string();
        assert!(looks(*b"GET ").contains("HTTP"));
        assert!(looks([0x16, 3, 1, 2]).contains("TLS"));
        assert!(looks([0x7f, 0xff, 0xff, 0xff]).ends_with("(1)"));
        let unacked = Closing::Unacked { error: ErrorCode::MessageTooLarge, why: "" };
        assert!(unacked.to_string().ends_with("MESSAGE_TOO_LARGE"), "{unacked}");
    }
}
