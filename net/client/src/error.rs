//! Why a call failed, as a sentence that says what to do, and as a kind that a script can tell apart.

use ringmill_types::ErrorCode;
use std::fmt;
use std::io;
use std::time::Duration;

/// An error code as a server sent it; it may be one this program has no name for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServerCode(pub i16);

/// Codes that other brokers give and ringmill does not, as far as they can come back to this client: number, Kafka's
/// name, whether to try again.
const FOREIGN: &[(i16, &str, bool)] = &[
    (8, "BROKER_NOT_AVAILABLE", true),
    (9, "REPLICA_NOT_AVAILABLE", true),
    (20, "NOT_ENOUGH_REPLICAS_AFTER_APPEND", true),
    (33, "UNSUPPORTED_SASL_MECHANISM", false),
    (34, "ILLEGAL_SASL_STATE", false),
    (51, "CONCURRENT_TRANSACTIONS", true),
    (58, "SASL_AUTHENTICATION_FAILED", false),
    (72, "LISTENER_NOT_FOUND", true),
    (90, "PRODUCER_FENCED", false),
];

impl ServerCode {
    fn foreign(self) -> Option<(&'static str, bool)> {
        FOREIGN.iter().find(|(code, _, _)| *code == self.0).map(|(_, name, again)| (*name, *again))
    }

    pub fn is_ok(self) -> bool {
        self.0 == 0
    }

    /// The code, if it is one we know.
    pub fn known(self) -> Option<ErrorCode> {
        ErrorCode::ALL.iter().copied().find(|code| code.code() == self.0)
    }

    /// Whether the same request may succeed after fresh metadata and a pause.
    pub fn is_retriable(self) -> bool {
        use ErrorCode::*;
        if let Some((_, again)) = self.foreign() {
            return again;
        }
        matches!(
            self.known(),
            Some(
                CorruptMessage
                    | UnknownTopicOrPartition
                    | LeaderNotAvailable
                    | NotLeaderOrFollower
                    | RequestTimedOut
                    | NetworkException
                    | CoordinatorLoadInProgress
                    | CoordinatorNotAvailable
                    | NotCoordinator
                    | NotEnoughReplicas
                    | NotController
                    | KafkaStorageError
                    | FencedLeaderEpoch
                    | UnknownLeaderEpoch
                    | OffsetNotAvailable
                    | ThrottlingQuotaExceeded
                    | UnknownTopicId
            )
        )
    }

    /// Kafka's name of it: `NOT_LEADER_OR_FOLLOWER`.
    pub fn name(self) -> String {
        match self.known() {
            Some(code) => code.name(),
            None => {
                self.foreign().map_or_else(|| format!("error code {}", self.0), |(name, _)| name.to_string())
            }
        }
    }
}

impl fmt::Display for ServerCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.known() {
            Some(code) => write!(f, "{} ({})", code.text().trim_end_matches('.'), self.name()),
            None => f.write_str(&self.name()),
        }
    }
}

/// A call that did not succeed.
#[derive(Debug)]
pub enum ClientError {
    /// No connection could be made.
    Unreachable { address: String, error: io::Error },
    /// A connection broke after a request may have been sent.
    Lost { address: String, error: io::Error },
    /// No answer by the deadline.
    TimedOut { address: String, doing: String, after: Duration },
    /// What came back is not the protocol.
    Garbled { address: String, what: String },
    /// The server does not serve an API, or no version of it that this program has.
    Unsupported { address: String, api: &'static str },
    /// The server understood and said no.
    Refused { doing: String, code: ServerCode, message: Option<String> },
    /// What was asked for cannot be, such as a partition that does not exist.
    Records(String),
    /// Records were received and cannot be read.
    Damaged(String),
}

impl ClientError {
    /// Whether trying again may help, for a request that is harmless when it arrives twice.
    pub fn is_retriable(&self) -> bool {
        match self {
            ClientError::Refused { code, .. } => code.is_retriable(),
            // Whoever was reachable before and is not now is likely starting again; `Client::connect` does not retry.
            ClientError::Lost { .. } | ClientError::Unreachable { .. } => true,
            ClientError::TimedOut { .. }
            | ClientError::Garbled { .. }
            | ClientError::Unsupported { .. }
            | ClientError::Records(_)
            | ClientError::Damaged(_) => false,
        }
    }

    /// The code the server gave, if it gave one.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            ClientError::Refused { code, .. } => code.known(),
            _ => None,
        }
    }

    /// `Ok` for code 0, a refusal otherwise.
    pub fn check(
        code: i16,
        doing: impl FnOnce() -> String,
        message: Option<&str>,
    ) -> Result<(), ClientError> {
        if code == 0 {
            return Ok(());
        }
        let message = message.map(str::to_string).filter(|m| !m.is_empty());
        Err(ClientError::Refused { doing: doing(), code: ServerCode(code), message })
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Unreachable { address, error } => write!(
                f,
                "cannot reach a broker at {address}: {}. Is it running, and is that the address it listens on? \
                 `--bootstrap-server HOST:PORT` chooses another",
                plain(error)
            ),
            ClientError::Lost { address, error } => write!(
                f,
                "the connection to {address} broke: {}. The broker's log says why it closed it",
                plain(error)
            ),
            ClientError::TimedOut { address, doing, after } => write!(
                f,
                "no answer from {address} to {doing} within {:.1} s. `--timeout SECONDS` waits longer",
                after.as_secs_f64()
            ),
            ClientError::Garbled { address, what } => write!(
                f,
                "{address} does not answer as a Kafka broker: {what}. Check that the port is the broker's, without TLS"
            ),
            ClientError::Unsupported { address, api } => {
                write!(f, "the broker at {address} does not serve {api} in any version this program knows")
            }
            ClientError::Refused { doing, code, message } => {
                write!(f, "{doing}: ")?;
                match message {
                    Some(message) => write!(f, "{} ({})", message.trim_end_matches('.'), code.name()),
                    None => write!(f, "{code}"),
                }
            }
            ClientError::Records(what) | ClientError::Damaged(what) => f.write_str(what),
        }
    }
}

/// The operating system's words without its number.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text.get(..end).unwrap_or_default().to_lowercase(),
        None => text,
    }
}

impl std::error::Error for ClientError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_kafkas_names() {
        assert_eq!(ServerCode(3).name(), "UNKNOWN_TOPIC_OR_PARTITION");
        assert_eq!(ServerCode(6).name(), "NOT_LEADER_OR_FOLLOWER");
        assert_eq!(ServerCode(14).name(), "COORDINATOR_LOAD_IN_PROGRESS");
        assert!(ServerCode(14).is_retriable());
        for (code, _, _) in FOREIGN {
            assert!(ServerCode(*code).known().is_none(), "{code} has a name of ours");
        }
        assert_eq!(ServerCode(9999).name(), "error code 9999");
        assert!(ServerCode(5).is_retriable());
        assert!(!ServerCode(36).is_retriable());
    }
}
