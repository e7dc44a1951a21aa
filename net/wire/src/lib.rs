//! Kafka's wire format for what cores read and write themselves: framing, ApiVersions, Metadata, Produce
//! and Fetch.
//!
//! Owns the one table of what this broker advertises ([`supported::SUPPORTED`]). Parses borrow from the frame, check
//! everything before they return, and allocate nothing; record bytes are never copied here. Never does I/O, never
//! looks inside record batches (that is `ringmill-record`), never decides an error code; it only puts an older one in
//! the place of one that a version does not have. Layouts are those of
//! Kafka 4.3's `common/message/*.json`.

#![deny(clippy::indexing_slicing)]

pub mod api;
pub mod api_versions;
pub mod error;
pub mod features;
pub mod fetch;
pub mod frame;
pub mod metadata;
pub mod produce;
pub mod reader;
pub mod supported;
mod throttle;
pub mod topic;
pub mod writer;

pub use api::ApiKey;
pub use error::{WireError, WireErrorKind};
pub use frame::{FrameError, FrameLength, RequestHeader, ResponseHead};
pub use throttle::patch_throttle;
pub use topic::{LeaderAndEpoch, NodeEndpoint, TopicRef};
