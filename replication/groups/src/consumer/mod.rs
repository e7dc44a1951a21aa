//! Groups of the consumer protocol (KIP-848): the server assigns, and heartbeats carry everything.
//!
//! Owns a group's epoch, its target, and how far each member is on its way there. Guarantees: a partition has one owner at
//! a time, whatever members do; a member that says nothing for its session, or gives nothing up for its rebalance timeout,
//! is out. Offsets, the log and the answers that wait for it are those of classic groups: a group is of one protocol, and
//! an empty one becomes one of the other when a member of that protocol comes.

mod assign;
mod beat;
mod fence;
mod group;
mod reconcile;
mod replay;
mod subscribe;
mod views;

pub use group::About;
pub(crate) use group::ConsumerGroup;
pub use reconcile::{Held, Partitions, Progress, Standing};
pub(crate) use subscribe::Topics;
pub use views::{DescribedConsumer, DescribedConsumerGroup};
