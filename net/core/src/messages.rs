//! What cores and control say to each other: owned messages through bounded single-producer queues.
//!
//! A request is sent only with the slot of its answer reserved, so answers never wait: each core has at most
//! [`QUERIES_MAX`] queries of control outstanding, and at most `PIPELINE_MAX` forwarded frames per connection.

use crate::clients::ConnectionView;
use crate::limits::ClientLimits;
use crate::live::Live;
use crate::metrics::CoreMetrics;
use crate::pace::Pace;
use ringmill_log::ProducerView;
use ringmill_types::{CoreId, ErrorCode, LeaderEpoch, Offset, PartitionId, TopicId, TopicSpec};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Queries that control may have outstanding at one core.
pub const QUERIES_MAX: usize = 1024;

/// A connection of one core. `serial` is never reused, so an answer for a closed connection is dropped, not misdelivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnKey {
    pub core: CoreId,
    pub slot: u32,
    pub serial: u64,
}

/// A request that cores do not decide themselves: the whole frame without its length prefix.
#[derive(Debug)]
pub struct Frame {
    pub conn: ConnKey,
    /// Position in the connection's order of answers; comes back in [`Answer`].
    pub slot: u64,
    pub peer: SocketAddr,
    pub bytes: Vec<u8>,
}

/// Control's answer to a [`Frame`]: response header and body without the length prefix.
#[derive(Debug)]
pub struct Answer {
    pub conn: ConnKey,
    pub slot: u64,
    /// Empty for Metadata: control made topics, and the core had the answer before.
    pub bytes: Vec<u8>,
    /// Close the connection instead: why the request could not be understood.
    pub refusal: Option<String>,
    /// An error code is in it.
    pub failed: bool,
    /// How long control worked on the request, where anybody has quotas.
    pub busy_ns: u64,
    /// How long the client has to pause for what it had created or deleted.
    pub pause_ms: u32,
}

/// Core to control.
pub enum ControlMessage {
    Frame(Frame),
    /// The answer to [`CoreMessage::Query`] with the same `id`.
    Reply {
        core: CoreId,
        id: u64,
        reply: CoreReply,
    },
    /// The core applied the delta of this version and would answer for it now.
    Applied {
        core: CoreId,
        version: u64,
    },
    /// A client came of which the core does not know what limits it has; answered with [`CoreMessage::Limits`].
    Limits {
        core: CoreId,
        client: Arc<[u8]>,
        /// On the clock of cores.
        now_ns: u64,
    },
    /// An address connects of which the core does not know how often it may; answered with [`CoreMessage::Address`].
    Address {
        core: CoreId,
        address: IpAddr,
        /// On the clock of cores.
        now_ns: u64,
    },
    /// The core met what it must not survive (a failed flush): the process ends with this reason.
    Fatal {
        core: CoreId,
        reason: ringmill_log::Fatal,
    },
    /// After [`CoreMessage::Stop`]: every request that was taken is answered, or had its time.
    Drained {
        core: CoreId,
    },
    /// The core has drained, flushed, destaged and written its last checkpoint.
    Stopped {
        core: CoreId,
        /// It stays in the core log.
        without_room: ringmill_log::WithoutRoom,
    },
}

/// Control to core.
pub enum CoreMessage {
    Answer(Answer),
    Topics(Arc<TopicDelta>),
    Query {
        id: u64,
        query: CoreQuery,
    },
    /// What limits a client, until other [`Live`] settings are applied.
    Limits {
        client: Arc<[u8]>,
        limits: Arc<ClientLimits>,
    },
    /// How often an address may connect, until other [`Live`] settings are applied; `None`: as often as it likes.
    Address {
        address: IpAddr,
        rate: Option<Arc<Pace>>,
    },
    /// Upkeep found a sealed segment of a partition of this core damaged; `what` goes on after "a sealed segment of X".
    SegmentDamaged {
        partition: PartitionId,
        base: Offset,
        what: String,
    },
    /// SIGTERM: stop accepting, take no further request, answer those in flight, say [`ControlMessage::Drained`].
    Stop,
    /// All cores have drained, so none appends to another's log any more: flush, destage, checkpoint, say
    /// [`ControlMessage::Stopped`].
    Finish,
}

/// A change of the topic image. Applied in version order, once.
#[derive(Debug, Default)]
pub struct TopicDelta {
    pub version: u64,
    /// New topics, and topics with changed config or more partitions: the whole new description.
    pub upserts: Vec<TopicSpec>,
    /// Deleted topics. Cores write a tombstone per partition, then drop them.
    pub deletes: Vec<TopicId>,
    /// What else changed.
    pub live: Option<Arc<Live>>,
}

/// Questions only the owner of a partition can answer.
#[derive(Debug)]
pub enum CoreQuery {
    Offsets(Vec<OffsetQuery>),
    /// OffsetForLeaderEpoch: the end of `epoch` in this partition's log.
    EpochEnd {
        partition: PartitionId,
        current_epoch: LeaderEpoch,
        epoch: LeaderEpoch,
    },
    /// Sizes of all partitions of this core, for DescribeLogDirs and metrics.
    Sizes,
    /// Advance log starts (DeleteRecords; retention uses the same path inside the core). The reply follows when all of
    /// them are durable.
    DeleteRecords(Vec<(PartitionId, Offset)>),
    /// What is remembered of the producers of these partitions.
    Producers(Vec<PartitionId>),
    /// Append one batch of control's own records; the reply follows when it is durable.
    Append {
        partition: PartitionId,
        batch: Vec<u8>,
    },
    /// Whole batches from this offset on, or from the log start if that is later, for what control reads back at start.
    Read {
        partition: PartitionId,
        offset: Offset,
        max_bytes: usize,
    },
    /// All counters and histograms.
    Metrics,
    /// Who is connected.
    Connections,
    /// Text that explains what the core is doing: connections, queues, groups, waits.
    Dump,
}

/// One question of ListOffsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetQuery {
    pub partition: PartitionId,
    /// -1 when the client did not say.
    pub current_epoch: LeaderEpoch,
    /// As on the wire: milliseconds, or -1 latest, -2 earliest, -3 max timestamp, -4 earliest local, -5 latest tiered, -6.
    pub timestamp: i64,
}

/// One answer of ListOffsets. Unknown timestamps give offset -1, timestamp -1, epoch -1, as Kafka does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetReply {
    pub error: ErrorCode,
    pub offset: Offset,
    pub timestamp: i64,
    pub epoch: LeaderEpoch,
}

/// Log of one partition on disk and in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionSize {
    pub partition: PartitionId,
    pub size_bytes: u64,
    pub log_start: Offset,
    pub high_watermark: Offset,
    pub durable: Offset,
    pub log_end: Offset,
    pub segments: u32,
    /// Why it is offline, if it is.
    pub offline: Option<&'static str>,
    /// Since the start of the process.
    pub records_in: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

/// Answers to [`CoreQuery`], variant for variant.
pub enum CoreReply {
    Offsets(Vec<OffsetReply>),
    EpochEnd {
        error: ErrorCode,
        epoch: LeaderEpoch,
        end: Offset,
    },
    Sizes(Vec<PartitionSize>),
    /// The log starts as they are now, in the order of the question.
    DeleteRecords(Vec<Result<Offset, ErrorCode>>),
    Producers(Vec<Result<Vec<ProducerView>, ErrorCode>>),
    Append(Result<Offset, ErrorCode>),
    Read(Result<ReadReply, ErrorCode>),
    Metrics(Box<CoreMetrics>),
    Connections {
        count: u64,
        /// At most [`CONNECTIONS_SHOWN_MAX`](crate::clients::CONNECTIONS_SHOWN_MAX) of them.
        shown: Vec<ConnectionView>,
    },
    Dump(String),
}

/// Batches as they lie in the log; the first may begin before the asked offset. Empty at the high watermark.
#[derive(Debug)]
pub struct ReadReply {
    pub high_watermark: Offset,
    pub batches: Vec<u8>,
}
