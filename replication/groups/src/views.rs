//! What can be read at any time: offsets, lists, descriptions. Nothing here changes anything.

use crate::group::{OffsetEntry, State};
use crate::machine::Groups;
use crate::messages::Text;
use bytes::Bytes;
use std::collections::BTreeMap;

/// A row of ListGroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedGroup {
    pub id: Text,
    pub protocol_type: Text,
    /// As Kafka shows it; the two protocols have different states.
    pub state: &'static str,
    pub protocol: Protocol,
}

/// How members and coordinator talk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Classic,
    /// KIP-848
    Consumer,
}

impl Protocol {
    /// Kafka's name for such groups.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Classic => "Classic",
            Protocol::Consumer => "Consumer",
        }
    }
}

/// DescribeGroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedGroup {
    pub state: State,
    pub protocol_type: Text,
    /// Empty while there is none.
    pub protocol: Text,
    pub members: Vec<DescribedMember>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedMember {
    pub id: Text,
    pub instance: Option<Text>,
    pub client_id: String,
    pub client_host: String,
    /// Both empty while the group is not stable.
    pub metadata: Bytes,
    pub assignment: Bytes,
}

impl Groups {
    /// Topic to partition to offset, all durable; `None` when there is no such group.
    pub fn offsets(&self, group: &str) -> Option<&BTreeMap<Text, BTreeMap<i32, OffsetEntry>>> {
        self.groups.get(group).map(|g| &g.offsets)
    }

    /// Every committed offset: group, topic, partition, offset.
    pub fn committed(&self) -> impl Iterator<Item = (&Text, &Text, i32, i64)> {
        self.groups.values().flat_map(|group| {
            group.offsets.iter().flat_map(move |(topic, partitions)| {
                partitions.iter().map(move |(partition, entry)| (&group.id, topic, *partition, entry.offset))
            })
        })
    }

    pub fn offset(&self, group: &str, topic: &str, partition: i32) -> Option<&OffsetEntry> {
        self.groups.get(group)?.offsets.get(topic)?.get(&partition)
    }

    pub fn list(&self) -> impl Iterator<Item = ListedGroup> {
        self.groups.values().map(|group| match &group.consumer {
            Some(consumer) => ListedGroup {
                id: group.id.clone(),
                protocol_type: "consumer".into(),
                state: consumer.state(),
                protocol: Protocol::Consumer,
            },
            None => ListedGroup {
                id: group.id.clone(),
                protocol_type: group.protocol_type.clone().unwrap_or_else(|| "".into()),
                state: group.state.name(),
                protocol: Protocol::Classic,
            },
        })
    }

    /// A classic group.
    pub fn describe(&self, group: &str) -> Option<DescribedGroup> {
        let group = self.groups.get(group).filter(|g| g.consumer.is_none())?;
        let is_stable = group.state == State::Stable;
        let protocol = group.protocol.clone().filter(|_| is_stable).unwrap_or_else(|| "".into());
        let members = group.members.values().map(|m| DescribedMember {
            id: m.id.clone(),
            instance: m.instance.clone(),
            client_id: m.client_id.clone(),
            client_host: m.client_host.clone(),
            metadata: if is_stable { m.metadata(&protocol) } else { Bytes::new() },
            assignment: if is_stable { m.assignment.clone() } else { Bytes::new() },
        });
        Some(DescribedGroup {
            state: group.state,
            protocol_type: group.protocol_type.clone().unwrap_or_else(|| "".into()),
            members: members.collect(),
            protocol,
        })
    }
}
