//! The broker around the planes: configuration, boot, shutdown, and what the process says about itself.
//!
//! Owns the order in which things start and stop, the data folder's lock and identity, signals, the log's form, and
//! every exit code. Knows the planes only by their `spawn` functions; nothing but the binary knows this crate.

pub mod args;
pub mod config;
pub mod exit;
pub mod host;
pub mod identity;
pub mod lacking;
pub mod missing;
pub mod newer;

mod adoption;
mod banner;
mod bind;
mod boot;
mod control;
mod generation;
#[cfg(test)]
mod golden;
mod logging;
mod notify;
mod planes;
mod probe;
mod probing;
mod settled;
mod signals;
mod stall;
mod upkeep;

pub use args::{BrokerOptions, ServeArgs};
pub use boot::serve;
pub use exit::{Failure, Reason};
