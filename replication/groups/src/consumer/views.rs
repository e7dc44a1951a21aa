//! ConsumerGroupDescribe, and the check of OffsetFetch.

use super::group::About;
use super::reconcile::Partitions;
use crate::machine::Groups;
use crate::messages::Text;
use crate::views::Protocol;
use ringmill_types::ErrorCode;

/// A group of the consumer protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedConsumerGroup {
    pub state: &'static str,
    pub epoch: i32,
    pub target_epoch: i32,
    pub assignor: &'static str,
    pub members: Vec<DescribedConsumer>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedConsumer {
    pub id: Text,
    pub instance: Option<Text>,
    /// What it speaks: a group that goes over has members of both.
    pub protocol: Protocol,
    pub epoch: i32,
    pub about: About,
    pub assigned: Partitions,
    pub target: Partitions,
}

impl Groups {
    /// `None` when there is no such group, or it is a classic one.
    pub fn describe_consumers(&self, group: &str) -> Option<DescribedConsumerGroup> {
        let consumer = self.groups.get(group)?.consumer.as_deref()?;
        let members = consumer.members.values().map(|m| DescribedConsumer {
            id: m.id.clone(),
            instance: m.instance.clone(),
            protocol: if m.classic.is_some() { Protocol::Classic } else { Protocol::Consumer },
            epoch: m.standing.epoch,
            about: m.about.clone(),
            assigned: (m.standing.assigned.iter())
                .map(|(topic, held)| (*topic, held.keys().copied().collect()))
                .collect(),
            target: consumer.target.get(&m.id).cloned().unwrap_or_default(),
        });
        Some(DescribedConsumerGroup {
            state: consumer.state(),
            epoch: consumer.epoch,
            target_epoch: consumer.target_epoch,
            assignor: consumer.assignor(),
            members: members.collect(),
        })
    }

    /// Whether who says so may read the group's offsets: a member in its epoch.
    ///
    /// # Errors
    /// What it is told otherwise.
    pub fn check_fetch(&self, group: &str, member: Option<&str>, epoch: i32) -> Result<(), ErrorCode> {
        let Some(consumer) = self.groups.get(group).and_then(|g| g.consumer.as_deref()) else {
            return Ok(());
        };
        if member.is_none() && epoch < 0 {
            return Ok(());
        }
        let member = consumer.members.get(member.unwrap_or_default()).ok_or(ErrorCode::UnknownMemberId)?;
        if member.standing.epoch == epoch {
            Ok(())
        } else if member.classic.is_some() {
            Err(ErrorCode::IllegalGeneration)
        } else {
            Err(ErrorCode::StaleMemberEpoch)
        }
    }

    /// A group by either protocol is there.
    pub fn exists(&self, group: &str) -> bool {
        self.groups.contains_key(group)
    }
}
