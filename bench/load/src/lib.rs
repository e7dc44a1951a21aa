//! An open-loop load generator for any broker that speaks the Kafka protocol, on the project's own reactor.
//!
//! Owns schedules of intended send times, records and batches, producers with a connection each, and the latencies of
//! what came back. Guarantees that a slow broker never slows the schedule: a record has its intended time before it can
//! be sent, its latency counts from there (and, beside it, from when it was really sent), histograms are merged and
//! never averaged, memory is bounded whatever the broker does. Never asks for metadata: the caller says who leads what.

pub mod batch;
pub mod latency;
pub mod produce;
pub mod schedule;
mod wire;

pub use latency::Latency;
pub use produce::{LoadError, Outcome, Plan, Progress, Target, run};
pub use schedule::Schedule;
