//! Control: every decision. One tokio current-thread runtime that answers all requests but ApiVersions, Produce and
//! Fetch, keeps the metadata journal and image, and serves the admin port.
//!
//! Never touches record bytes, a connection or a partition's files; asks the cores for what only they know.

pub mod admin;
pub mod api;
pub mod configs;
pub mod control;
#[cfg(test)]
mod generated;
pub mod groups;
pub(crate) mod kept;
pub(crate) mod limits;
pub mod loggers;
pub mod metrics_text;
pub(crate) mod mutations;
pub mod watch;

pub use api::new_topic_id;
pub use configs::BrokerDefaults;
pub use control::{Control, ControlEvent, ControlOptions, SegmentDamage, live_of, specs_of};
