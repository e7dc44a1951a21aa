//! The group coordinator as a pure state machine: groups of the classic and of the consumer protocol, and their committed
//! offsets.
//!
//! Owns every group's members, generation and offsets, and what is not yet durable. An event and a time go in; records
//! for `__consumer_offsets` and answers come out ([`Groups::step`]). Answers that promise something durable are kept back
//! until [`Event::Durable`] names their records. Guarantees: every request is answered once; offsets are seen only when
//! they are durable; the same events at the same times give the same effects.
//!
//! Never does I/O, reads no clock, draws no random number, and knows nothing of connections or wire formats; the formats
//! of its records are Kafka's ([`records`]).

mod budget;
mod config;
mod consumer;
mod embedded;
mod group;
mod join;
mod leave;
mod machine;
mod messages;
mod offsets;
mod rebalance;
pub mod records;
mod sync;
mod timers;
mod views;

pub use config::{GroupConfig, Migration, OwnConfig};
pub use consumer::{
    About, DescribedConsumer, DescribedConsumerGroup, Held, Matched, Matching, Partitions, Progress, Standing,
};
pub use group::{OffsetEntry, State};
pub use machine::{Groups, partition_of};
pub use messages::{
    Answer, Commit, CommitOffset, ConsumerAnswer, ConsumerBeat, DeleteOffsets, Effects, Event, Heartbeat,
    Identity, Join, JoinAnswer, JoinedMember, Leave, Now, Refused, Sync, SyncAnswer, Text, Ticket,
    TopicResults, Write, WriteId,
};
pub use views::{DescribedGroup, DescribedMember, ListedGroup, Protocol};
