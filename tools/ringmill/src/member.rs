//! A member of a consumer group: classic protocol, range assignor, one topic.
//!
//! Owns what the group knows of one member: its id, its generation, where the coordinator is. Says when it is time to give
//! partitions back and join again; what is read in between, and from where, is its user's. Blocks while it asks.

use crate::exit::{Code, Failed};
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
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

const PROTOCOL_TYPE: &str = "consumer";
const ASSIGNOR: &str = "range";
/// Between two commits of a member that goes on reading, as Java clients have it.
pub const COMMIT_EVERY: Duration = Duration::from_secs(5);
/// Between two tries of something that was refused for the moment.
pub const PAUSE: Duration = Duration::from_millis(100);
const ILLEGAL_GENERATION: i16 = 22;
const UNKNOWN_MEMBER_ID: i16 = 25;
const REBALANCE_IN_PROGRESS: i16 = 27;
const MEMBER_ID_REQUIRED: i16 = 79;

/// What a member says of itself.
#[derive(Clone, Debug)]
pub struct About {
    pub group: String,
    pub topic: String,
    pub session_timeout: Duration,
    pub heartbeat: Duration,
    /// How long a request may take, and joining.
    pub timeout: Duration,
}

pub struct Member {
    about: About,
    coordinator: i32,
    id: StrBytes,
    generation: i32,
    rejoin: bool,
    last_heartbeat: Instant,
}

impl Member {
    /// Finds the coordinator; joins nothing yet.
    ///
    /// # Errors
    /// A sentence where there is none in time.
    pub fn new(about: About, client: &mut Client) -> Result<Member, Failed> {
        let mut member = Member {
            about,
            coordinator: -1,
            id: StrBytes::default(),
            generation: -1,
            rejoin: false,
            last_heartbeat: Instant::now(),
        };
        member.find(client)?;
        Ok(member)
    }

    /// The group deals again: commit, give the partitions back, and [`Member::join`].
    pub fn has_to_rejoin(&self) -> bool {
        self.rejoin
    }

    fn find(&mut self, client: &mut Client) -> Result<(), Failed> {
        let mut request = FindCoordinatorRequest::default();
        request.key = self.about.group.as_str().into();
        let node = client.retry(|client| {
            // The last version that asks for one.
            let answer = client.ask(&request, 3)?;
            let message = answer.error_message.as_ref().map(|m| m.as_str());
            let doing = || format!("finding the coordinator of group {}", self.about.group);
            ClientError::check(answer.error_code, doing, message)?;
            Ok(answer.node_id)
        })?;
        self.coordinator = node;
        Ok(())
    }

    /// Joins until there is an assignment; the partitions of it.
    ///
    /// # Errors
    /// A sentence where the group does not take it, or not in time.
    pub fn join(&mut self, client: &mut Client) -> Result<Vec<i32>, Failed> {
        let deadline = Instant::now() + self.about.timeout;
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
                        let what = format!("joining group {}: {}", self.about.group, ServerCode(code));
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
        subscription.topics = vec![self.about.topic.as_str().into()];
        let mut metadata = BytesMut::new();
        let version = ApiVersion::new(0);
        kafka_wire::encode_consumer_protocol_subscription(&mut metadata, &subscription, version)
            .map_err(|error| Failed::new(Code::Local, error.to_string()))?;
        let mut protocol = JoinGroupRequestProtocol::default();
        protocol.name = ASSIGNOR.into();
        protocol.metadata = metadata.freeze();
        let mut request = JoinGroupRequest::default();
        request.group_id = self.about.group.as_str().into();
        request.session_timeout_ms = self.about.session_timeout.as_millis() as i32;
        // The coordinator holds the answer for as long as this; it has to come before we give up on it.
        request.rebalance_timeout_ms = (self.about.timeout * 2 / 3).as_millis() as i32;
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
        request.group_id = self.about.group.as_str().into();
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
            Failed::new(Code::Garbled, format!("the assignment of group {}: {error}", self.about.group))
        })?;
        let own = assignment.assigned_partitions.into_iter().filter(|t| t.topic.as_str() == self.about.topic);
        Ok(own.flat_map(|topic| topic.partitions).collect())
    }

    /// What the group committed of these partitions; one without a commit is missing.
    ///
    /// # Errors
    /// A sentence where the coordinator does not say.
    pub fn committed(&self, client: &mut Client, partitions: &[i32]) -> Result<BTreeMap<i32, i64>, Failed> {
        let mut topic = OffsetFetchRequestTopic::default();
        topic.name = self.about.topic.as_str().into();
        topic.partition_indexes = partitions.to_vec();
        let mut request = OffsetFetchRequest::default();
        request.group_id = self.about.group.as_str().into();
        request.topics = Some(vec![topic]);
        let doing = || format!("asking for the offsets of group {}", self.about.group);
        let answer = client.retry(|client| {
            // The last version that asks for one group.
            let answer = client.ask_node(self.coordinator, &request, 7)?;
            ClientError::check(answer.error_code, doing, None)?;
            Ok(answer)
        })?;
        let mut committed = BTreeMap::new();
        for partition in answer.topics.into_iter().flat_map(|t| t.partitions) {
            ClientError::check(partition.error_code, doing, None)?;
            if partition.committed_offset >= 0 {
                committed.insert(partition.partition_index, partition.committed_offset);
            }
        }
        Ok(committed)
    }

    /// A heartbeat when it is time. False when the group deals again.
    pub fn stays(&mut self, client: &mut Client) -> bool {
        if self.last_heartbeat.elapsed() < self.about.heartbeat {
            return true;
        }
        self.last_heartbeat = Instant::now();
        let mut request = HeartbeatRequest::default();
        request.group_id = self.about.group.as_str().into();
        request.generation_id = self.generation;
        request.member_id = self.id.clone();
        self.rejoin = match client.ask_node(self.coordinator, &request, 4) {
            Ok(answer) => answer.error_code != 0,
            // Joining again says what is wrong.
            Err(_) => true,
        };
        !self.rejoin
    }

    /// # Errors
    /// Also where the group has moved on meanwhile.
    pub fn commit(&self, client: &mut Client, positions: &[(i32, i64)]) -> Result<(), ClientError> {
        if positions.is_empty() {
            return Ok(());
        }
        let mut topic = OffsetCommitRequestTopic::default();
        topic.name = self.about.topic.as_str().into();
        for (partition, offset) in positions {
            let mut entry = OffsetCommitRequestPartition::default();
            entry.partition_index = *partition;
            entry.committed_offset = *offset;
            entry.committed_leader_epoch = -1;
            entry.committed_metadata = Some(StrBytes::default());
            topic.partitions.push(entry);
        }
        let mut request = OffsetCommitRequest::default();
        request.group_id = self.about.group.as_str().into();
        request.generation_id_or_member_epoch = self.generation;
        request.member_id = self.id.clone();
        request.topics = vec![topic];
        // The last version that names topics instead of giving their ids.
        let answer = client.ask_node(self.coordinator, &request, 9)?;
        let doing = || format!("committing offsets of group {}", self.about.group);
        let mut codes = answer.topics.into_iter().flat_map(|t| t.partitions).map(|p| p.error_code);
        codes.try_for_each(|code| ClientError::check(code, doing, None))
    }

    /// Says goodbye, so that others need not wait for the session to end.
    ///
    /// # Errors
    /// Where nobody heard it.
    pub fn leave(&self, client: &mut Client) -> Result<(), ClientError> {
        let mut request = LeaveGroupRequest::default();
        request.group_id = self.about.group.as_str().into();
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
