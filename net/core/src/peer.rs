//! What cores say to each other. Buffers travel by reference and come back in the answer, so that they are released on
//! the core whose pool they belong to.

use crate::clients::Client;
use crate::fetch::{PartRead, SizeMax};
use crate::slab::Key;
use ringmill_log::Appended;
use ringmill_reactor::{Buf, MovedSocket};
use ringmill_record::{BadRecords, Produced};
use ringmill_types::{CoreId, ErrorCode, LeaderEpoch, Offset, PartitionId};
use std::net::SocketAddr;

/// Room in a queue between two cores.
pub(crate) const PEER_SLOTS: usize = 4096;

/// One core to another.
pub(crate) enum PeerMessage {
    /// Append batches to a partition of yours; answer with `Appended`.
    Append(RemoteAppend),
    Appended {
        key: Key,
        part: u32,
        result: Result<RemoteDone, Refused>,
        give_back: Buf,
    },
    /// Read partitions of yours, `max_bytes` in all. When that gives fewer than `watch_below_bytes`, say `Advanced` once
    /// when there is more.
    Read {
        from: CoreId,
        key: Key,
        round: u32,
        reads: Vec<RemoteRead>,
        max_bytes: usize,
        watch_below_bytes: usize,
    },
    ReadDone {
        key: Key,
        round: u32,
        results: Vec<RemoteReadDone>,
        watched: bool,
    },
    Advanced {
        key: Key,
    },
    Unwatch {
        from: CoreId,
        key: Key,
    },
    /// This connection's bytes are mostly yours: go on with it.
    Adopt {
        socket: MovedSocket,
        peer: SocketAddr,
        client: Client,
        input: Vec<u8>,
    },
}

/// A batch that was not appended, as its producer is told.
#[derive(Clone, Debug)]
pub(crate) enum Refused {
    With(ErrorCode, &'static str),
    BadRecords(Box<BadRecords>),
}

/// Who waits for an append.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Asker {
    /// A produce request that another core holds.
    Core { from: CoreId, key: Key, part: u32 },
    /// A query of control.
    Control { id: u64 },
}

pub(crate) struct RemoteAppend {
    pub asker: Asker,
    pub partition: PartitionId,
    pub records: Buf,
    /// What the batch was found to be, where it was unpacked already.
    pub produced: Option<Produced>,
    pub deadline_ns: u64,
}

/// What an append on another core gave: durable by the time this is said.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RemoteDone {
    pub appended: Appended,
}

/// One partition of a read on another core.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RemoteRead {
    pub part: u32,
    pub partition: PartitionId,
    pub offset: Offset,
    pub current_epoch: LeaderEpoch,
    pub max_bytes: SizeMax,
}

/// And what it gave.
pub(crate) struct RemoteReadDone {
    pub part: u32,
    pub read: PartRead,
}
