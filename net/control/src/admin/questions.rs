//! What the admin port asks of the control loop.

use crate::watch::ControlMetrics;
use ringmill_core::metrics::CoreMetrics;
use ringmill_core::{ConnectionView, PartitionSize};
use ringmill_types::{CoreId, PartitionId};
use serde::Serialize;
use std::collections::BTreeMap;
use tokio::sync::oneshot;

/// A question of the admin port, with where the answer goes.
pub enum AdminRequest {
    Metrics(oneshot::Sender<Vec<(CoreId, Box<CoreMetrics>)>>),
    Dump(oneshot::Sender<Vec<(CoreId, Option<String>)>>),
    Topics(oneshot::Sender<Vec<AdminTopic>>),
    Connections(oneshot::Sender<AdminConnections>),
    Control(oneshot::Sender<Box<ControlMetrics>>),
    Config(oneshot::Sender<Vec<(String, String)>>),
    Ready(oneshot::Sender<bool>),
}

/// What `/v1/connections` shows. A core that did not answer has none of its connections here.
#[derive(Clone, Debug, Default, Serialize)]
pub struct AdminConnections {
    /// All of them.
    pub connections: u64,
    /// At most [`CONNECTIONS_SHOWN_MAX`](ringmill_core::clients::CONNECTIONS_SHOWN_MAX) of each core: those in use
    /// first, then those that moved most.
    pub shown: Vec<AdminConnection>,
}

/// A connection of it. Counters began when it was accepted.
#[derive(Clone, Debug, Serialize)]
pub struct AdminConnection {
    pub peer: String,
    pub core: u16,
    /// What its first request said, cut at 64 bytes; empty where it said nothing.
    pub client_id: String,
    /// As the client calls itself (KIP-511); empty where it does not.
    pub software: String,
    pub software_version: String,
    pub age_ms: u64,
    pub idle_ms: u64,
    pub requests: u64,
    pub received_bytes: u64,
    pub sent_bytes: u64,
    /// Requests that were taken and are not answered.
    pub waiting: u64,
    /// Not read from, because its Produce finds no room.
    pub muted: bool,
}

impl From<ConnectionView> for AdminConnection {
    fn from(view: ConnectionView) -> AdminConnection {
        AdminConnection {
            peer: view.peer.to_string(),
            core: view.core.0,
            client_id: view.client_id,
            software: view.software,
            software_version: view.software_version,
            age_ms: view.age_ms,
            idle_ms: view.idle_ms,
            requests: view.requests,
            received_bytes: view.received_bytes,
            sent_bytes: view.sent_bytes,
            waiting: view.waiting,
            muted: view.muted,
        }
    }
}

/// A topic as `/v1/topics` shows it.
#[derive(Clone, Debug, Serialize)]
pub struct AdminTopic {
    pub name: String,
    pub id: String,
    pub partitions: Vec<AdminPartition>,
    pub config: BTreeMap<String, String>,
}

/// A partition of it. Offsets are -1 when its core did not answer.
#[derive(Clone, Debug, Serialize)]
pub struct AdminPartition {
    pub index: i32,
    pub id: u64,
    pub core: u16,
    pub log_start: i64,
    pub high_watermark: i64,
    pub durable: i64,
    pub log_end: i64,
    pub size_bytes: u64,
    pub segments: u32,
    pub offline: bool,
    /// Why, when it is offline.
    pub offline_because: Option<&'static str>,
    pub relaxed: bool,
    pub records_in: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

impl AdminPartition {
    pub fn new(
        index: i32,
        id: PartitionId,
        core: CoreId,
        relaxed: bool,
        size: Option<&PartitionSize>,
    ) -> AdminPartition {
        AdminPartition {
            index,
            id: id.0,
            core: core.0,
            log_start: size.map_or(-1, |s| s.log_start.0),
            high_watermark: size.map_or(-1, |s| s.high_watermark.0),
            durable: size.map_or(-1, |s| s.durable.0),
            log_end: size.map_or(-1, |s| s.log_end.0),
            size_bytes: size.map_or(0, |s| s.size_bytes),
            segments: size.map_or(0, |s| s.segments),
            offline: size.is_some_and(|s| s.offline.is_some()),
            offline_because: size.and_then(|s| s.offline),
            relaxed,
            records_in: size.map_or(0, |s| s.records_in),
            bytes_in: size.map_or(0, |s| s.bytes_in),
            bytes_out: size.map_or(0, |s| s.bytes_out),
        }
    }
}
