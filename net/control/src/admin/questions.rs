//! What the admin port asks of the control loop.

use ringmill_core::PartitionSize;
use ringmill_core::metrics::CoreMetrics;
use ringmill_types::{CoreId, PartitionId};
use serde::Serialize;
use std::collections::BTreeMap;
use tokio::sync::oneshot;

/// A question of the admin port, with where the answer goes.
pub enum AdminRequest {
    Metrics(oneshot::Sender<Vec<(CoreId, Box<CoreMetrics>)>>),
    Dump(oneshot::Sender<Vec<(CoreId, Option<String>)>>),
    Topics(oneshot::Sender<Vec<AdminTopic>>),
    Config(oneshot::Sender<Vec<(String, String)>>),
    Ready(oneshot::Sender<bool>),
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
