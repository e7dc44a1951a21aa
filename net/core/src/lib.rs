//! The core: one thread that owns a ring, connections, partitions and one core log.
//!
//! It knows four requests (ApiVersions, Metadata, Produce, Fetch); every other frame goes to control as bytes. One loop: reap
//! completions → a closed event → a synchronous `apply` that changes state and queues operations → one submit.

mod accept;
pub mod addresses;
pub mod clients;
mod closing;
mod conn;
pub mod core;
mod fetch;
pub mod heartbeat;
mod input;
pub mod limits;
pub mod link;
mod live;
pub mod messages;
mod metadata;
pub mod metrics;
mod output;
pub mod pace;
mod peer;
mod produce;
mod queries;
mod reading;
mod served;
mod session;
mod slab;
pub mod thread;
mod token;
mod topics;
mod warn;

pub use clients::ConnectionView;
pub use core::{Core, CoreEnds, CoreSettings};
pub use link::CoreLink;
pub use live::Live;
pub use messages::{
    Answer, ConnKey, ControlMessage, CoreMessage, CoreQuery, CoreReply, Frame, OffsetQuery, OffsetReply,
    PartitionSize, ReadReply, TopicDelta,
};
pub use metadata::Advertised;
pub use ringmill_log::{Fatal, ProducerView};
pub use thread::join_peers;
