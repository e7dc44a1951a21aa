//! The deterministic backend: virtual time, in-memory sockets, disks whose power can go. One seed, one run.
//!
//! Owns everything outside a core: [`SimWorld`] holds the clock, the queue of events, sockets and the disk;
//! [`SimBackend`] is one simulated core's way to it and never blocks. Whoever drives the world turns a core when
//! [`SimWorld::is_runnable`] says so and calls [`SimWorld::advance`] when none is.
//!
//! Guarantees: the same seed and the same calls give the same [`SimWorld::trace_hash`]; a flush covers only the writes
//! completed before it was issued and the one it is linked to; a name is durable only after its folder was synced;
//! nothing of an old life reaches the disk after a cut. A buffer that changes while an operation holds it panics.
//! It never starts a thread and never reads a real clock, file or socket.

mod backend;
mod disk;
mod fs;
mod net;
mod rng;
#[cfg(test)]
mod tests;
mod world;

pub use backend::SimBackend;
pub use disk::DiskFaults;
pub use fs::SimFs;
pub use net::{ListenerId, SimConn};
pub use rng::SimRng;
pub use world::{Cut, SimOptions, SimWorld};
