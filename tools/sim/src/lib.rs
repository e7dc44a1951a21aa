//! Production cores under simulated time, sockets and disks, checked against a model of the broker's promises.
//!
//! [`run`] lives one seed: producers and consumers speak the Kafka protocol to a core, the process is killed and the
//! power cut again and again, and whatever was acked or seen must be there for ever: at its offset, in order, once.

mod catalog;
mod consumer;
mod frames;
mod model;
mod node;
mod passes;
mod producer;
mod story;

pub use model::Violation;
pub use story::{Report, Settings, run};
