//! Fetch 4–18.
//!
//! A request is checked to its end before the first partition is handed out. An answer is written without its records:
//! [`FetchFrame`] holds all other bytes in one buffer and says where the caller's record bytes go between them, so they
//! are sent from where they lie.

mod request;
mod response;

use crate::topic::ById;

pub use request::{
    FetchPartition, FetchPartitions, FetchRequest, FetchTopic, FetchTopics, ForgottenTopic, ForgottenTopics,
    IsolationLevel,
};
pub use response::{
    AbortedTransaction, EpochEnd, FetchFrame, FetchPartitionAnswer, FetchResponse, Piece, Splice,
};

/// First and last version of this codec.
pub const VERSIONS: std::ops::RangeInclusive<i16> = 4..=18;

fn by_id(version: i16) -> ById {
    if version >= 13 { ById::Yes } else { ById::No }
}
