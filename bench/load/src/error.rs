//! Why a run ended before its end.

use ringmill_client::ServerCode;
use ringmill_reactor::ring::RingError;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// What was measured until then is in the outcome beside it.
#[derive(Debug)]
pub enum LoadError {
    /// The plan cannot be run, and why.
    Plan(String),
    Connect(SocketAddr, io::Error),
    Ring(RingError),
    /// A connection ended; `Some` says why.
    Lost(Option<String>),
    /// Nothing came for as long as the plan allows.
    Silent(Duration),
    Garbled(String),
    /// The broker said no to a fetch.
    Refused {
        partition: i32,
        code: i16,
    },
    /// No record came for so long: what there is has been read.
    NoRecords(Duration),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::Plan(why) => f.write_str(why),
            LoadError::Connect(address, error) => write!(f, "{address} cannot be reached: {error}"),
            LoadError::Ring(error) => write!(f, "{error}"),
            LoadError::Lost(Some(why)) => write!(f, "a connection to the broker was lost: {why}"),
            LoadError::Lost(None) => write!(f, "the broker closed a connection"),
            LoadError::Silent(timeout) => write!(f, "no answer for {} s", timeout.as_secs_f64()),
            LoadError::Garbled(what) => write!(f, "an answer cannot be understood: {what}"),
            LoadError::Refused { partition, code } => {
                write!(f, "reading partition {partition} was refused: {}", ServerCode(*code))
            }
            LoadError::NoRecords(timeout) => {
                write!(f, "no record came for {} s, which --timeout allows", timeout.as_secs_f64())
            }
        }
    }
}

impl std::error::Error for LoadError {}
