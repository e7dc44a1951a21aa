//! What a device gives to a log: latency and throughput of writes, flushes and reads over depth and size.
//!
//! Owns which block device holds a folder ([`identity`]), and the measurement of one point of its curves ([`Probe`]):
//! operations on the project's own ring, as a core issues them, into a file that is filled like a recycled core log.
//! Guarantees that every latency of a point is in its histogram, that nothing is left in the folder, and that what is
//! written is bounded. Never interprets: what a point means for a policy or a plan is for its callers to say.

pub mod curves;
pub mod identity;
pub mod probe;

pub use curves::{Effort, matrix};
pub use identity::{Identity, WriteCache};
pub use probe::{Measured, Method, Point, Probe, ProbeError, Spread};
