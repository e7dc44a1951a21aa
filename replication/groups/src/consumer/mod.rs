//! Groups of the consumer protocol (KIP-848): the server assigns, and heartbeats carry everything.
//!
//! Owns a group's epoch, its target, and how far each member is on its way there. Guarantees: a partition has one owner at
//! a time, whatever members do; a member that says nothing for its session, or gives nothing up for its rebalance timeout,
//! is out. Offsets, the log and the answers that wait for it are those of classic groups.
//!
//! A group is of one protocol at a time, its members may be of two: with the first member of the consumer protocol a classic
//! group goes over, members and all ([`migrate`]); those that speak the classic protocol still are served by [`classic`];
//! with the last member of the consumer protocol the group goes back. Guarantee: whoever may have a partition has it on
//! both sides of the way.

mod assign;
mod beat;
mod classic;
mod fence;
mod group;
mod migrate;
mod reading;
mod reconcile;
mod replay;
mod subscribe;
mod views;

pub use group::About;
pub(crate) use group::ConsumerGroup;
pub use reconcile::{Held, Partitions, Progress, Standing};
pub(crate) use subscribe::Topics;
pub use subscribe::{Matched, Matching};
pub use views::{DescribedConsumer, DescribedConsumerGroup};
