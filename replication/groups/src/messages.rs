//! What goes into the machine and what comes out.

use crate::config::OwnConfig;
use crate::consumer::{Matched, Matching, Partitions};
use bytes::Bytes;
use ringmill_types::{ErrorCode, TopicId};
use std::sync::Arc;

/// Names that live as long as a group.
pub type Text = Arc<str>;

/// A request that will be answered once under this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Records that became durable, or did not, together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteId(pub u64);

/// The time of an event on both clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Never goes back: timeouts.
    pub mono_ms: u64,
    /// What stands in records.
    pub wall_ms: i64,
}

/// JoinGroup.
#[derive(Clone, Debug, Default)]
pub struct Join {
    pub group: String,
    /// Empty for a member that is new.
    pub member: String,
    pub instance: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub session_timeout_ms: i32,
    pub rebalance_timeout_ms: i32,
    pub protocol_type: String,
    /// In order of preference, with what the protocol says about the member.
    pub protocols: Vec<(String, Bytes)>,
    /// Version 4 and later: a new dynamic member gets its id first and joins with it then (KIP-394).
    pub member_id_required: bool,
    /// Version 9 and later: a leader can be told that there is nothing to assign (KIP-814).
    pub can_skip_assignment: bool,
    /// Random text of the caller: the end of a new member's id.
    pub fresh: String,
}

/// SyncGroup.
#[derive(Clone, Debug, Default)]
pub struct Sync {
    pub group: String,
    pub member: String,
    pub instance: Option<String>,
    pub generation: i32,
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    pub assignments: Vec<(String, Bytes)>,
}

#[derive(Clone, Debug, Default)]
pub struct Heartbeat {
    pub group: String,
    pub member: String,
    pub instance: Option<String>,
    pub generation: i32,
}

/// A member in LeaveGroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    pub member: String,
    pub instance: Option<String>,
}

#[derive(Clone, Debug, Default)]
pub struct Leave {
    pub group: String,
    pub members: Vec<Identity>,
}

/// OffsetCommit. Topics and partitions that do not exist were taken out before.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    pub group: String,
    pub member: String,
    pub instance: Option<String>,
    /// -1 for a consumer that is in no group.
    pub generation: i32,
    /// Version 9 and later: the generation may be a member epoch.
    pub knows_epochs: bool,
    /// `retention_time_ms` of version 2 to 4: the offsets expire that long after now.
    pub retention_ms: Option<i64>,
    pub offsets: Vec<CommitOffset>,
    /// Version 9 and later names a missing group; before, its generation is wrong.
    pub says_group_not_found: bool,
}

#[derive(Clone, Debug)]
pub struct CommitOffset {
    pub topic: Text,
    pub topic_id: TopicId,
    pub partition: i32,
    pub offset: i64,
    pub leader_epoch: i32,
    pub metadata: String,
}

#[derive(Clone, Debug, Default)]
pub struct DeleteOffsets {
    pub group: String,
    pub partitions: Vec<(Text, i32)>,
}

/// ConsumerGroupHeartbeat. What is `None` has not changed since the member said it last.
#[derive(Clone, Debug, Default)]
pub struct ConsumerBeat {
    pub group: String,
    /// Empty for a member that wants an id; only before version 1.
    pub member: String,
    /// 0 joins, -1 leaves, -2 leaves for a while.
    pub epoch: i32,
    pub instance: Option<String>,
    pub rack: Option<String>,
    pub client_id: String,
    pub client_host: String,
    /// -1: not changed.
    pub rebalance_timeout_ms: i32,
    pub topics: Option<Vec<String>>,
    pub regex: Option<String>,
    pub assignor: Option<String>,
    pub owned: Option<Partitions>,
    /// Version 1 and later: members make their ids.
    pub id_required: bool,
    /// Random text of the caller: a new member's id.
    pub fresh: String,
}

/// Answer to a [`ConsumerBeat`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerAnswer {
    pub member: Text,
    pub epoch: i32,
    /// Of the next heartbeat.
    pub interval_ms: i32,
    /// `None`: as it was.
    pub assignment: Option<Partitions>,
}

/// A request that was refused, and why in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub code: ErrorCode,
    pub reason: String,
}

/// What happens to the machine. Time passes with every one; [`Event::Tick`] is nothing but that.
#[derive(Clone, Debug)]
pub enum Event {
    Join(Ticket, Join),
    Sync(Ticket, Sync),
    Heartbeat(Ticket, Heartbeat),
    Leave(Ticket, Leave),
    Commit(Ticket, Commit),
    DeleteOffsets(Ticket, DeleteOffsets),
    DeleteGroups(Ticket, Vec<String>),
    ConsumerBeat(Ticket, ConsumerBeat),
    /// All topics there are, with their ids and numbers of partitions.
    Topics(Vec<(Text, TopicId, i32)>),
    /// These have this id and so many partitions now; others stay as they are.
    TopicsChanged(Vec<(Text, TopicId, i32)>),
    /// Topics are gone: so are offsets in them.
    TopicsDeleted(Vec<Text>),
    /// What this group has of its own from now on; it need not be there.
    Configured(Text, OwnConfig),
    /// What [`Effects::matchings`] came to.
    Matched(Matched),
    /// The records of this write survive a power cut.
    Durable(WriteId),
    /// They were refused, or nobody knows; this is what the waiting requests are told. Writes of the same partition that
    /// came after it must fail, too: they stand on it.
    Failed(WriteId, ErrorCode),
    Tick,
    /// The broker stops: who waits for other members is sent away.
    Resign,
}

/// Answer to [`Join`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinAnswer {
    pub error: ErrorCode,
    pub generation: i32,
    pub protocol_type: Option<Text>,
    pub protocol: Option<Text>,
    pub leader: Text,
    pub skip_assignment: bool,
    pub member: Text,
    /// For the leader only.
    pub members: Vec<JoinedMember>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinedMember {
    pub member: Text,
    pub instance: Option<Text>,
    pub metadata: Bytes,
}

/// Answer to [`Sync`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncAnswer {
    pub error: ErrorCode,
    pub protocol_type: Option<Text>,
    pub protocol: Option<Text>,
    pub assignment: Bytes,
}

/// In order of the request.
pub type TopicResults = Vec<(Text, i32, ErrorCode)>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Join(JoinAnswer),
    Sync(SyncAnswer),
    Heartbeat(ErrorCode),
    Leave(ErrorCode, Vec<(Identity, ErrorCode)>),
    Commit(TopicResults),
    DeleteOffsets(ErrorCode, TopicResults),
    DeleteGroups(Vec<(String, ErrorCode)>),
    ConsumerBeat(Result<ConsumerAnswer, Refused>),
}

/// Records for one partition of `__consumer_offsets`, to be appended in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    pub id: WriteId,
    pub partition: i32,
    /// Key and value; no value is a tombstone.
    pub records: Vec<(Bytes, Option<Bytes>)>,
}

/// What a step gives.
#[derive(Debug, Default)]
pub struct Effects {
    pub answers: Vec<(Ticket, Answer)>,
    pub writes: Vec<Write>,
    /// To be run elsewhere, in any order; each gives an [`Event::Matched`].
    pub matchings: Vec<Matching>,
}
