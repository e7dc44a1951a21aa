//! Groups as an operator sees and changes them: lists, members, committed offsets. Never joins one.

use crate::client::Client;
use crate::error::{ClientError, ServerCode};
use kafka_wire::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_wire::{
    ConsumerGroupDescribeRequest, DeleteGroupsRequest, DescribeGroupsRequest, FindCoordinatorRequest,
    ListGroupsRequest, OffsetCommitRequest, OffsetFetchRequest,
};
use kafka_wire_core::StrBytes;
use ringmill_types::ErrorCode;
use std::collections::{BTreeMap, BTreeSet};

/// The last version that asks for one coordinator.
const ONE_COORDINATOR: i16 = 3;
/// The last version that asks for the offsets of one group.
const ONE_GROUP: i16 = 7;
/// The last version that names topics instead of giving their ids.
const COMMIT_BY_NAME: i16 = 9;
/// The last version in which a group that is not there is one without members.
const DEAD_GROUPS: i16 = 5;

/// Partitions by topic.
pub type Assignment = BTreeMap<String, BTreeSet<i32>>;

/// A row of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRow {
    pub id: String,
    /// Empty from brokers that do not tell; the same holds for the kind.
    pub state: String,
    pub kind: String,
    pub protocol_type: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupMembers {
    pub state: String,
    pub kind: String,
    pub assignor: String,
    pub members: Vec<GroupMember>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMember {
    pub id: String,
    pub instance: Option<String>,
    pub client_id: String,
    pub host: String,
    pub assignment: Assignment,
}

fn text(value: &str) -> StrBytes {
    StrBytes::from(value.to_string())
}

impl Client {
    /// Every group of the cluster, in order of their names.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn groups(&mut self) -> Result<Vec<GroupRow>, ClientError> {
        let nodes: Vec<i32> =
            self.metadata(Some(&[]), crate::client::Absent::Leave)?.brokers.into_keys().collect();
        let mut rows = Vec::new();
        for node in nodes {
            let answer = self.retry(|client| {
                let answer = client.ask_node(node, &ListGroupsRequest::default(), i16::MAX)?;
                ClientError::check(answer.error_code, || "listing groups".to_string(), None)?;
                Ok(answer)
            })?;
            rows.extend(answer.groups.iter().map(|group| GroupRow {
                id: group.group_id.to_string(),
                state: group.group_state.to_string(),
                kind: group.group_type.to_string(),
                protocol_type: group.protocol_type.to_string(),
            }));
        }
        rows.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(rows)
    }

    /// The broker that has the group.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn coordinator(&mut self, group: &str) -> Result<i32, ClientError> {
        let mut request = FindCoordinatorRequest::default();
        request.key = text(group);
        let node = self.retry(|client| {
            let answer = client.ask(&request, ONE_COORDINATOR)?;
            let message = answer.error_message.as_ref().map(|m| m.as_str());
            ClientError::check(answer.error_code, || format!("finding group {group}'s broker"), message)?;
            Ok(answer.node_id)
        })?;
        // The client has to know the broker's address before it can ask it.
        self.metadata(Some(&[]), crate::client::Absent::Leave)?;
        Ok(node)
    }

    /// A group of either protocol with its members.
    ///
    /// # Errors
    /// [`ClientError`]; GROUP_ID_NOT_FOUND when there is none.
    pub fn group_members(&mut self, group: &str) -> Result<GroupMembers, ClientError> {
        let node = self.coordinator(group)?;
        match self.consumer_group(node, group) {
            Err(error) if is_other(&error) => {}
            found => return found,
        }
        let mut request = DescribeGroupsRequest::default();
        request.groups = vec![text(group)];
        let answer = self.retry(|client| client.ask_node(node, &request, DEAD_GROUPS))?;
        let Some(found) = answer.groups.into_iter().next() else {
            return Err(ClientError::Records(format!("the broker's answer does not name group {group}")));
        };
        let doing = || format!("describing group {group}");
        ClientError::check(found.error_code, doing, None)?;
        if found.group_state.as_str() == "Dead" {
            ClientError::check(ErrorCode::GroupIdNotFound.code(), doing, None)?;
        }
        let members = found.members.iter().map(|m| GroupMember {
            id: m.member_id.to_string(),
            instance: m.group_instance_id.as_ref().map(ToString::to_string),
            client_id: m.client_id.to_string(),
            host: m.client_host.to_string(),
            assignment: assignment(&m.member_assignment).unwrap_or_default(),
        });
        Ok(GroupMembers {
            state: found.group_state.to_string(),
            kind: "Classic".to_string(),
            assignor: found.protocol_data.to_string(),
            members: members.collect(),
        })
    }

    fn consumer_group(&mut self, node: i32, group: &str) -> Result<GroupMembers, ClientError> {
        let mut request = ConsumerGroupDescribeRequest::default();
        request.group_ids = vec![text(group)];
        let answer = self.retry(|client| client.ask_node(node, &request, i16::MAX))?;
        let Some(found) = answer.groups.into_iter().next() else {
            return Err(ClientError::Records(format!("the broker's answer does not name group {group}")));
        };
        let message = found.error_message.as_ref().map(|m| m.as_str());
        ClientError::check(found.error_code, || format!("describing group {group}"), message)?;
        let members = found.members.iter().map(|m| {
            let topics = m.assignment.topic_partitions.iter();
            GroupMember {
                id: m.member_id.to_string(),
                instance: m.instance_id.as_ref().map(ToString::to_string),
                client_id: m.client_id.to_string(),
                host: m.client_host.to_string(),
                assignment: topics
                    .map(|t| (t.topic_name.to_string(), t.partitions.iter().copied().collect()))
                    .collect(),
            }
        });
        Ok(GroupMembers {
            state: found.group_state.to_string(),
            kind: "Consumer".to_string(),
            assignor: found.assignor_name.to_string(),
            members: members.collect(),
        })
    }

    /// Committed offsets of a group; none for a group that is not there.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn committed(&mut self, group: &str) -> Result<BTreeMap<(String, i32), i64>, ClientError> {
        let node = self.coordinator(group)?;
        let mut request = OffsetFetchRequest::default();
        request.group_id = text(group);
        request.topics = None;
        let answer = self.retry(|client| {
            let answer = client.ask_node(node, &request, ONE_GROUP)?;
            ClientError::check(answer.error_code, || format!("reading offsets of group {group}"), None)?;
            Ok(answer)
        })?;
        let mut offsets = BTreeMap::new();
        for topic in &answer.topics {
            for partition in topic.partitions.iter().filter(|p| p.error_code == 0 && p.committed_offset >= 0)
            {
                offsets
                    .insert((topic.name.to_string(), partition.partition_index), partition.committed_offset);
            }
        }
        Ok(offsets)
    }

    /// Commits offsets for a group without members; one result per partition.
    ///
    /// # Errors
    /// [`ClientError`] when nothing is known about any of them.
    pub fn commit(
        &mut self,
        group: &str,
        offsets: &BTreeMap<(String, i32), i64>,
    ) -> Result<BTreeMap<(String, i32), ServerCode>, ClientError> {
        let node = self.coordinator(group)?;
        let mut request = OffsetCommitRequest::default();
        request.group_id = text(group);
        request.generation_id_or_member_epoch = -1;
        for ((topic, partition), offset) in offsets {
            if request.topics.last().is_none_or(|t| t.name.as_str() != topic) {
                let mut entry = OffsetCommitRequestTopic::default();
                entry.name = text(topic);
                request.topics.push(entry);
            }
            let mut one = OffsetCommitRequestPartition::default();
            one.partition_index = *partition;
            one.committed_offset = *offset;
            one.committed_leader_epoch = -1;
            one.committed_metadata = Some(text(""));
            let entry = request.topics.last_mut().expect("just pushed");
            entry.partitions.push(one);
        }
        let answer = self.retry(|client| client.ask_node(node, &request, COMMIT_BY_NAME))?;
        let rows = answer.topics.iter().flat_map(|topic| {
            let of = |p: i32| (topic.name.to_string(), p);
            topic.partitions.iter().map(move |p| (of(p.partition_index), ServerCode(p.error_code)))
        });
        Ok(rows.collect())
    }

    /// Deletes a group with its offsets.
    ///
    /// # Errors
    /// [`ClientError`]; NON_EMPTY_GROUP while it has members.
    pub fn delete_group(&mut self, group: &str) -> Result<(), ClientError> {
        let node = self.coordinator(group)?;
        let mut request = DeleteGroupsRequest::default();
        request.groups_names = vec![text(group)];
        let answer = self.ask_node(node, &request, i16::MAX)?;
        let code = answer.results.first().map_or(ErrorCode::UnknownServerError.code(), |r| r.error_code);
        ClientError::check(code, || format!("deleting group {group}"), None)
    }
}

/// Not a group of the consumer protocol, or not a broker that has such.
fn is_other(error: &ClientError) -> bool {
    matches!(error, ClientError::Unsupported { .. }) || error.code() == Some(ErrorCode::GroupIdNotFound)
}

/// What a classic consumer was assigned: version i16, [topic string, [partition i32]], user data.
fn assignment(bytes: &[u8]) -> Option<Assignment> {
    fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
        let (head, tail) = rest.split_at_checked(count)?;
        *rest = tail;
        Some(head)
    }
    fn number(rest: &mut &[u8]) -> Option<i32> {
        take(rest, 4)?.try_into().ok().map(i32::from_be_bytes)
    }
    let mut rest = bytes;
    take(&mut rest, 2)?;
    let mut topics = Assignment::new();
    for _ in 0..number(&mut rest)?.max(0) {
        let length = i16::from_be_bytes(take(&mut rest, 2)?.try_into().ok()?);
        let name = std::str::from_utf8(take(&mut rest, usize::try_from(length).ok()?)?).ok()?;
        let mut partitions = BTreeSet::new();
        for _ in 0..number(&mut rest)?.max(0) {
            partitions.insert(number(&mut rest)?);
        }
        topics.insert(name.to_string(), partitions);
    }
    Some(topics)
}

#[cfg(test)]
mod tests {
    use super::assignment;
    use std::collections::BTreeSet;

    #[test]
    fn an_assignment_is_read_as_librdkafka_wrote_it() {
        let bytes = b"\x00\x00\x00\x00\x00\x01\x00\x02t1\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x01\xff\xff\xff\xff";
        let read = assignment(bytes).and_then(|a| a.get("t1").cloned());
        assert_eq!(read, Some(BTreeSet::from([0, 1])));
        assert_eq!(assignment(b""), None);
        assert_eq!(assignment(b"\x00\x00\x7f\xff\xff\xff\x00\x02t1"), None);
    }
}
