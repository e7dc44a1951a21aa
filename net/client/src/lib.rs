//! A small blocking Kafka client: what a command-line tool and a test need, and no more.
//!
//! Owns connections, version negotiation, metadata, routing to leaders, deadlines and retries, and the encoding of record
//! batches. Guarantees that every call ends by a deadline, that what a server sends is checked before it is believed
//! (lengths, CRCs, counts), and that a retried produce is not stored twice where the broker gives producer ids. Works
//! against any broker that speaks the protocol. Never starts a thread; never joins groups.

pub mod admin;
pub mod batch;
pub mod client;
pub mod compression;
pub mod connection;
pub mod consumer;
pub mod error;
pub mod groups;
pub mod murmur;
pub mod producer;

pub use batch::{BatchBuilder, Header, Record, RecordView};
pub use client::{Client, Cluster, Options, Topic};
pub use compression::Codec;
pub use consumer::{Consumer, Start};
pub use error::{ClientError, ServerCode};
pub use producer::{Acks, Producer};
