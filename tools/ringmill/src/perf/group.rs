//! Members of a consumer group (classic protocol, range assignor): joining, heartbeats, commits.
//!
//! Each member is a thread with a coordinator connection of its own. While it reads, heartbeats go out between two turns
//! of its ring; a rebalance ends the reading, commits, and joins again.

use super::cluster::{self, Place};
use super::consume::{Reading, sources};
use crate::exit::{Code, Failed};
use crate::server::Server;
use bytes::{Bytes, BytesMut};
use kafka_wire::join_group_request::JoinGroupRequestProtocol;
use kafka_wire::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_wire::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_wire::sync_group_request::SyncGroupRequestAssignment;
use kafka_wire::{
    ConsumerProtocolAssignment, ConsumerProtocolSubscription, FindCoordinatorRequest, HeartbeatRequest,
    JoinGroupRequest, LeaveGroupRequest, OffsetCommitRequest, OffsetFetchRequest, SyncGroupRequest,
};
use kafka_wire_core::{ApiVersion, DecodeLimits, StrBytes};
use ringmill_client::client::Absent;
use ringmill_client::{Client, ClientError, ServerCode};
use ringmill_load::{ConsumePlan, Consumed, LoadError, Source};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const PROTOCOL_TYPE: &str = "consumer";
const ASSIGNOR: &str = "range";
const COMMIT_EVERY: Duration = Duration::from_secs(5);
/// Between two tries of something that was refused for the moment.
const PAUSE: Duration = Duration::from_millis(100);
const ILLEGAL_GENERATION: i16 = 22;
const UNKNOWN_MEMBER_ID: i16 = 25;
const REBALANCE_IN_PROGRESS: i16 = 27;
const MEMBER_ID_REQUIRED: i16 = 79;

/// What all members have in common.
pub struct Group<'a> {
    pub id: String,
    pub server: Server,
    pub topic: String,
    pub members: usize,
    pub session_timeout: Duration,
    pub heartbeat: Duration,
    /// No record for any member for this long ends the run.
    pub quiet: Duration,
    /// [`ringmill_client::admin::EARLIEST`] or `LATEST`, where nothing was committed.
    pub reset: i64,
    pub stop: &'a AtomicBool,
}

/// What the members tell each other.
struct Shared {
    /// Records of all.
    total: Arc<AtomicU64>,
    /// One of them failed, or there is nothing more to read.
    end: AtomicBool,
}

/// Reads with all members until `plan.records` were read. The plan's consumers are ignored: the group deals.
pub fn read(group: &Group<'_>, plan: &ConsumePlan, show: &(dyn Fn(u64) + Sync)) -> Result<Reading, Failed> {
    let shared = Shared { total: Arc::new(AtomicU64::new(0)), end: AtomicBool::new(false) };
    let began = Instant::now();
    let results: Vec<Result<Reading, Failed>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..group.members)
            .map(|number| {
                let shared = &shared;
                scope.spawn(move || {
                    let result = member(group, plan, shared, if number == 0 { Some(show) } else { None });
                    if result.as_ref().is_ok_and(|reading| reading.result.is_ok()) {
                        return result;
                    }
                    shared.end.store(true, Ordering::Relaxed);
                    result
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                thread.join().unwrap_or_else(|_| Err(Failed::new(Code::Local, "a member ended by itself")))
            })
            .collect()
    });
    let mut whole =
        Reading { consumed: Consumed::default(), joining: Duration::ZERO, rebalances: 0, result: Ok(()) };
    for result in results {
        whole.add(result?);
    }
    whole.consumed.elapsed = began.elapsed().saturating_sub(whole.joining);
    Ok(whole)
}

fn member(
    group: &Group<'_>,
    plan: &ConsumePlan,
    shared: &Shared,
    show: Option<&(dyn Fn(u64) + Sync)>,
) -> Result<Reading, Failed> {
    let mut place = cluster::find(&group.server, &group.topic, Absent::Leave)?;
    let mut member = Member::new(group, &mut place.client)?;
    let mut reading =
        Reading { consumed: Consumed::default(), joining: Duration::ZERO, rebalances: 0, result: Ok(()) };
    let mut quiet = Quiet { limit: group.quiet, seen: 0, since: Instant::now() };
    loop {
        let began = Instant::now();
        let partitions = member.join(&mut place.client)?;
        let own = member.positions(&mut place, &partitions, group.reset)?;
        reading.joining += began.elapsed();
        reading.rebalances += 1;
        quiet.since = Instant::now();
        let (consumed, result) = member.consume(&mut place.client, plan, own, shared, &mut quiet, show);
        // What was read is committed even if reading failed: it was counted.
        let _ = member.commit(&mut place.client, &consumed.positions);
        let part = Reading { consumed, joining: Duration::ZERO, rebalances: 0, result };
        reading.add(part);
        if !member.rejoin || reading.result.is_err() || member.is_over(plan, shared) {
            break;
        }
    }
    // The group does without a goodbye, only later.
    let _ = member.leave(&mut place.client);
    if reading.result.is_ok() && quiet.is_over() {
        reading.result = Err(LoadError::NoRecords(group.quiet));
    }
    Ok(reading)
}

/// For how long nobody read anything.
struct Quiet {
    limit: Duration,
    seen: u64,
    since: Instant,
}

impl Quiet {
    fn look(&mut self, total: u64) -> bool {
        if total != self.seen {
            (self.seen, self.since) = (total, Instant::now());
        }
        self.is_over()
    }

    fn is_over(&self) -> bool {
        self.since.elapsed() > self.limit
    }
}

struct Member<'a> {
    group: &'a Group<'a>,
    coordinator: i32,
    id: StrBytes,
    generation: i32,
    rejoin: bool,
    last_heartbeat: Instant,
}

impl<'a> Member<'a> {
    fn new(group: &'a Group<'a>, client: &mut Client) -> Result<Member<'a>, Failed> {
        let mut member = Member {
            group,
            coordinator: -1,
            id: StrBytes::default(),
            generation: -1,
            rejoin: false,
            last_heartbeat: Instant::now(),
        };
        member.find(client)?;
        Ok(member)
    }

    fn find(&mut self, client: &mut Client) -> Result<(), Failed> {
        let mut request = FindCoordinatorRequest::default();
        request.key = self.group.id.as_str().into();
        let node = client.retry(|client| {
            // The last version that asks for one.
            let answer = client.ask(&request, 3)?;
            let message = answer.error_message.as_ref().map(|m| m.as_str());
            let doing = || format!("finding the coordinator of group {}", self.group.id);
            ClientError::check(answer.error_code, doing, message)?;
            Ok(answer.node_id)
        })?;
        self.coordinator = node;
        Ok(())
    }

    /// Joins until there is an assignment; the partitions of it.
    fn join(&mut self, client: &mut Client) -> Result<Vec<i32>, Failed> {
        let deadline = Instant::now() + self.group.server.timeout;
        loop {
            match self.try_join(client)? {
                Ok(partitions) => {
                    self.rejoin = false;
                    self.last_heartbeat = Instant::now();
                    return Ok(partitions);
                }
                Err(code) => {
                    let again =
                        [ILLEGAL_GENERATION, UNKNOWN_MEMBER_ID, REBALANCE_IN_PROGRESS, MEMBER_ID_REQUIRED];
                    if code == UNKNOWN_MEMBER_ID {
                        self.id = StrBytes::default();
                    }
                    let late = Instant::now() > deadline;
                    if late || (!again.contains(&code) && !ServerCode(code).is_retriable()) {
                        let what = format!("joining group {}: {}", self.group.id, ServerCode(code));
                        return Err(Failed::new(Code::Refused, what));
                    }
                    if ServerCode(code).is_retriable() {
                        std::thread::sleep(PAUSE);
                        self.find(client)?;
                    }
                }
            }
        }
    }

    fn try_join(&mut self, client: &mut Client) -> Result<Result<Vec<i32>, i16>, Failed> {
        let mut subscription = ConsumerProtocolSubscription::default();
        subscription.topics = vec![self.group.topic.as_str().into()];
        let mut metadata = BytesMut::new();
        let version = ApiVersion::new(0);
        kafka_wire::encode_consumer_protocol_subscription(&mut metadata, &subscription, version)
            .map_err(|error| Failed::new(Code::Local, error.to_string()))?;
        let mut protocol = JoinGroupRequestProtocol::default();
        protocol.name = ASSIGNOR.into();
        protocol.metadata = metadata.freeze();
        let mut request = JoinGroupRequest::default();
        request.group_id = self.group.id.as_str().into();
        request.session_timeout_ms = self.group.session_timeout.as_millis() as i32;
        // The coordinator holds the answer for as long as this; it has to come before we give up on it.
        request.rebalance_timeout_ms = (self.group.server.timeout * 2 / 3).as_millis() as i32;
        request.member_id = self.id.clone();
        request.protocol_type = PROTOCOL_TYPE.into();
        request.protocols = vec![protocol];
        let joined = client.ask_node(self.coordinator, &request, 9)?;
        if joined.error_code != 0 {
            if joined.error_code == MEMBER_ID_REQUIRED {
                self.id = joined.member_id;
            }
            return Ok(Err(joined.error_code));
        }
        self.id = joined.member_id;
        self.generation = joined.generation_id;
        let mut request = SyncGroupRequest::default();
        request.group_id = self.group.id.as_str().into();
        request.generation_id = self.generation;
        request.member_id = self.id.clone();
        request.protocol_type = Some(PROTOCOL_TYPE.into());
        request.protocol_name = Some(ASSIGNOR.into());
        if joined.leader == self.id {
            let members = joined.members.into_iter().map(|m| (m.member_id, m.metadata)).collect();
            request.assignments = assign(client, members)?;
        }
        let synced = client.ask_node(self.coordinator, &request, 5)?;
        if synced.error_code != 0 {
            return Ok(Err(synced.error_code));
        }
        Ok(Ok(self.own_partitions(synced.assignment)?))
    }

    fn own_partitions(&self, assignment: Bytes) -> Result<Vec<i32>, Failed> {
        if assignment.is_empty() {
            return Ok(Vec::new());
        }
        let read = kafka_wire::decode_consumer_protocol_assignment(assignment, DecodeLimits::default());
        let (_, assignment) = read.map_err(|error| {
            Failed::new(Code::Garbled, format!("the assignment of group {}: {error}", self.group.id))
        })?;
        let own = assignment.assigned_partitions.into_iter().filter(|t| t.topic.as_str() == self.group.topic);
        Ok(own.flat_map(|topic| topic.partitions).collect())
    }

    /// Where reading of these begins: what was committed, or where the policy says.
    fn positions(&self, place: &mut Place, partitions: &[i32], reset: i64) -> Result<Vec<Source>, Failed> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let mut topic = OffsetFetchRequestTopic::default();
        topic.name = self.group.topic.as_str().into();
        topic.partition_indexes = partitions.to_vec();
        let mut request = OffsetFetchRequest::default();
        request.group_id = self.group.id.as_str().into();
        request.topics = Some(vec![topic]);
        let doing = || format!("asking for the offsets of group {}", self.group.id);
        let coordinator = self.coordinator;
        let answer = place.client.retry(|client| {
            // The last version that asks for one group.
            let answer = client.ask_node(coordinator, &request, 7)?;
            ClientError::check(answer.error_code, doing, None)?;
            Ok(answer)
        })?;
        let mut committed = BTreeMap::new();
        for partition in answer.topics.into_iter().flat_map(|t| t.partitions) {
            ClientError::check(partition.error_code, doing, None)?;
            committed.insert(partition.partition_index, partition.committed_offset);
        }
        let mut own = sources(place, reset)?;
        own.retain(|source| partitions.contains(&source.partition));
        for source in &mut own {
            if let Some(offset) = committed.get(&source.partition).filter(|offset| **offset >= 0) {
                source.offset = *offset;
            }
        }
        Ok(own)
    }

    fn is_over(&self, plan: &ConsumePlan, shared: &Shared) -> bool {
        let total = shared.total.load(Ordering::Relaxed);
        plan.records.is_some_and(|wanted| total >= wanted)
            || shared.end.load(Ordering::Relaxed)
            || self.group.stop.load(Ordering::Relaxed)
    }

    /// Reads until the end, or until the group deals again.
    fn consume(
        &mut self,
        client: &mut Client,
        plan: &ConsumePlan,
        own: Vec<Source>,
        shared: &Shared,
        quiet: &mut Quiet,
        show: Option<&(dyn Fn(u64) + Sync)>,
    ) -> (Consumed, Result<(), LoadError>) {
        let mut last_commit = Instant::now();
        let mut watch = |so_far: Option<&Consumed>| {
            let total = shared.total.load(Ordering::Relaxed);
            if let Some(show) = show {
                show(total);
            }
            if last_commit.elapsed() > COMMIT_EVERY {
                last_commit = Instant::now();
                if let Some(so_far) = so_far {
                    let _ = self.commit(client, &so_far.positions);
                }
            }
            if self.is_over(plan, shared) || quiet.look(total) || !self.stays(client) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        if own.is_empty() {
            // More members than partitions: this one waits for its turn.
            while watch(None).is_continue() {
                std::thread::sleep(PAUSE);
            }
            return (Consumed::default(), Ok(()));
        }
        let plan =
            ConsumePlan { consumers: vec![own], total: Some(Arc::clone(&shared.total)), ..plan.clone() };
        ringmill_load::consume(&plan, &mut |so_far| watch(Some(so_far)))
    }

    /// A heartbeat when it is time. False when the group deals again.
    fn stays(&mut self, client: &mut Client) -> bool {
        if self.last_heartbeat.elapsed() < self.group.heartbeat {
            return true;
        }
        self.last_heartbeat = Instant::now();
        let mut request = HeartbeatRequest::default();
        request.group_id = self.group.id.as_str().into();
        request.generation_id = self.generation;
        request.member_id = self.id.clone();
        self.rejoin = match client.ask_node(self.coordinator, &request, 4) {
            Ok(answer) => answer.error_code != 0,
            // Joining again says what is wrong.
            Err(_) => true,
        };
        !self.rejoin
    }

    fn commit(&self, client: &mut Client, positions: &[(i32, i64)]) -> Result<(), ClientError> {
        if positions.is_empty() {
            return Ok(());
        }
        let mut topic = OffsetCommitRequestTopic::default();
        topic.name = self.group.topic.as_str().into();
        for (partition, offset) in positions {
            let mut entry = OffsetCommitRequestPartition::default();
            entry.partition_index = *partition;
            entry.committed_offset = *offset;
            entry.committed_leader_epoch = -1;
            entry.committed_metadata = Some(StrBytes::default());
            topic.partitions.push(entry);
        }
        let mut request = OffsetCommitRequest::default();
        request.group_id = self.group.id.as_str().into();
        request.generation_id_or_member_epoch = self.generation;
        request.member_id = self.id.clone();
        request.topics = vec![topic];
        // The last version that names topics instead of giving their ids.
        client.ask_node(self.coordinator, &request, 9).map(drop)
    }

    fn leave(&self, client: &mut Client) -> Result<(), ClientError> {
        let mut request = LeaveGroupRequest::default();
        request.group_id = self.group.id.as_str().into();
        request.member_id = self.id.clone();
        // The last version for one member.
        client.ask_node(self.coordinator, &request, 2).map(drop)
    }
}

/// Deals the partitions of every topic out by range, as the leader of a group does.
fn assign(
    client: &mut Client,
    members: Vec<(StrBytes, Bytes)>,
) -> Result<Vec<SyncGroupRequestAssignment>, Failed> {
    let mut wanted: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut dealt: BTreeMap<String, ConsumerProtocolAssignment> = BTreeMap::new();
    for (member, metadata) in members {
        let read = kafka_wire::decode_consumer_protocol_subscription(metadata, DecodeLimits::default());
        let (_, subscription) = read.map_err(|error| {
            Failed::new(Code::Garbled, format!("the subscription of member {}: {error}", member.as_str()))
        })?;
        dealt.insert(member.as_str().to_string(), ConsumerProtocolAssignment::default());
        for topic in subscription.topics {
            wanted.entry(topic.as_str().to_string()).or_default().insert(member.as_str().to_string());
        }
    }
    for (name, members) in wanted {
        let partitions = client.topic(&name, Absent::Leave)?.partitions.len();
        for (member, range) in members.iter().zip(ranges(partitions, members.len())) {
            let mut topic = kafka_wire::consumer_protocol_assignment::TopicPartition::default();
            topic.topic = name.as_str().into();
            topic.partitions = range.map(|partition| partition as i32).collect();
            if let Some(assignment) = dealt.get_mut(member) {
                assignment.assigned_partitions.push(topic);
            }
        }
    }
    let mut assignments = Vec::new();
    for (member, assignment) in dealt {
        let mut bytes = BytesMut::new();
        kafka_wire::encode_consumer_protocol_assignment(&mut bytes, &assignment, ApiVersion::new(0))
            .map_err(|error| Failed::new(Code::Local, error.to_string()))?;
        let mut entry = SyncGroupRequestAssignment::default();
        entry.member_id = member.as_str().into();
        entry.assignment = bytes.freeze();
        assignments.push(entry);
    }
    Ok(assignments)
}

/// So many partitions in as many ranges as there are members; the first ones get one more where it does not come out even.
fn ranges(partitions: usize, members: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let (each, more) = (partitions / members.max(1), partitions % members.max(1));
    (0..members).scan(0, move |from, member| {
        let start = *from;
        *from += each + usize::from(member < more);
        Some(start..*from)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_kafkas() {
        assert_eq!(ranges(7, 3).collect::<Vec<_>>(), [0..3, 3..5, 5..7]);
        assert_eq!(ranges(1, 2).collect::<Vec<_>>(), [0..1, 1..1]);
        assert_eq!(ranges(4, 2).collect::<Vec<_>>(), [0..2, 2..4]);
    }
}
