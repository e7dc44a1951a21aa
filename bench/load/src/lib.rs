//! An open-loop load generator for any broker that speaks the Kafka protocol, on the project's own reactor.
//!
//! Owns schedules of intended send times, records and batches, producers with a connection each, and the latencies of
//! what came back. Guarantees that a slow broker never slows the schedule: a record has its intended time before it can
//! be sent, its latency counts from there (and, beside it, from when it was really sent), histograms are merged and
//! never averaged, memory is bounded whatever the broker does. Never asks for metadata: the caller says who leads what.

pub mod batch;
pub mod compress;
mod connect;
pub mod consume;
pub mod error;
mod fetch;
pub mod latency;
pub mod produce;
pub mod records;
pub mod schedule;
pub mod stamp;
pub mod timeline;
mod wire;

pub use compress::Compress;
pub use consume::{ConsumePlan, Consumed, Source, consume};
pub use error::LoadError;
pub use fetch::Terms;
pub use latency::Latency;
pub use produce::{Outcome, Partitioner, Plan, Progress, Target, run};
pub use records::{Keys, Payload, Sizes};
pub use schedule::Schedule;
pub use stamp::{STAMP_BYTES, Stamp};
pub use timeline::{Stretch, Timeline};
