//! Identifiers, units and limits shared by every crate.
//!
//! Nothing here does I/O, allocates in a hot path or knows about threads. A number that travels between two crates
//! has a type here; a bound that two crates rely on is a constant in [`limits`].

pub mod error_code;
pub mod ids;
pub mod internal;
pub mod limits;
pub mod random;
pub mod topic;
pub mod topic_name;

pub use error_code::ErrorCode;
pub use ids::{CoreId, GroupSeq, LeaderEpoch, Offset, PartitionId, ProducerEpoch, ProducerId, TopicId};
pub use random::Random;
pub use topic::{Compression, Packing, PartitionSpec, TimestampType, TopicConfig, TopicSpec};
