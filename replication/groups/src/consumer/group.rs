//! A consumer group's members, its target, and who has which partition. Bookkeeping only.

use super::reading::{Names, Reading};
use super::reconcile::{Partitions, Progress, Standing};
use super::subscribe::Pattern;
use crate::budget::{Protocols, Share, name_bytes};
use crate::embedded::{self, CONSUMER};
use crate::messages::{Text, WriteId};
use crate::timers::TimerKey;
use ringmill_types::TopicId;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// Epoch with which a member leaves.
pub(crate) const LEAVES: i32 = -1;
/// Epoch with which a static member goes away for a while.
pub(crate) const RETURNS: i32 = -2;

#[derive(Debug)]
pub(crate) struct ConsumerMember {
    pub id: Text,
    pub instance: Option<Text>,
    pub about: About,
    /// Of what `about` says, what it may choose itself.
    pub said: Share,
    pub standing: Standing,
    pub session: Option<TimerKey>,
    /// Runs while it has partitions to give up.
    pub revocation: Option<TimerKey>,
    /// Of one that speaks the classic protocol still: its generation is the epoch it stands in.
    pub classic: Option<Classic>,
}

impl ConsumerMember {
    pub fn new(id: Text, instance: Option<Text>) -> ConsumerMember {
        ConsumerMember {
            id,
            instance,
            about: About::default(),
            said: Share::default(),
            standing: Standing::default(),
            session: None,
            revocation: None,
            classic: None,
        }
    }

    /// All deadlines that run for it, which are its no more.
    pub fn take_timers(&mut self) -> [Option<TimerKey>; 4] {
        let [join, sync] = self.classic.as_mut().map_or([None, None], Classic::take_timers);
        [self.session.take(), self.revocation.take(), join, sync]
    }

    /// Bytes of what it may choose itself.
    pub fn words(&self) -> u64 {
        self.said.bytes() + self.classic.as_ref().map_or(0, |c| c.protocols.bytes())
    }
}

/// What the classic protocol has to know of a member beside what every member says.
#[derive(Debug)]
pub(crate) struct Classic {
    pub session_timeout_ms: i32,
    pub protocols: Protocols,
    /// Runs from when it is told to join again until it does.
    pub join: Option<TimerKey>,
    /// Runs from its JoinGroup to its SyncGroup.
    pub sync: Option<TimerKey>,
}

impl Classic {
    pub fn new(session_timeout_ms: i32, protocols: Protocols) -> Classic {
        Classic { session_timeout_ms, protocols, join: None, sync: None }
    }

    pub fn take_timers(&mut self) -> [Option<TimerKey>; 2] {
        [self.join.take(), self.sync.take()]
    }

    /// The protocol it likes best. Within a group of the consumer protocol none is chosen: each member keeps its own.
    pub fn protocol(&self) -> Option<&Text> {
        self.protocols.first().map(|(name, _)| name)
    }

    /// The version of the embedded protocol that it reads.
    pub fn version(&self) -> i16 {
        self.protocols.first().map_or(0, |(_, said)| embedded::version_of(said))
    }

    fn supports(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|(name, _)| &**name == protocol)
    }
}

/// What a member says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    pub rack: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub topics: Arc<BTreeSet<Text>>,
    /// Empty is none, too; the Java client says so.
    pub regex: Option<String>,
    pub rebalance_timeout_ms: i32,
    pub assignor: Option<String>,
}

impl About {
    /// What a member with these topics and this pattern is counted with.
    pub(crate) fn bytes<'a>(topics: impl Iterator<Item = &'a str>, regex: Option<&'a str>) -> u64 {
        topics.chain(regex).map(name_bytes).sum()
    }

    pub(crate) fn said_bytes(&self) -> u64 {
        About::bytes(self.topics.iter().map(|t| &**t), self.regex.as_deref())
    }
}

/// How far the repair of a group's records is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Torn {
    /// The next write brings everything.
    Open,
    /// It ends with this write.
    Mending(WriteId),
}

#[derive(Debug)]
pub(crate) struct ConsumerGroup {
    /// Grows with every change of members, subscriptions or topics.
    pub epoch: i32,
    pub topics_hash: i64,
    pub members: BTreeMap<Text, ConsumerMember>,
    /// Instance to member.
    pub statics: BTreeMap<Text, Text>,
    /// The epoch that the target was made for; at most `epoch`.
    pub target_epoch: i32,
    pub target_ms: i64,
    pub target: BTreeMap<Text, Partitions>,
    pub patterns: BTreeMap<String, Pattern>,
    /// What members say by name: one for all that say the same.
    pub lists: HashSet<Names>,
    /// What members want, as it was found last.
    pub reading: Reading,
    /// Partition to the member that has it, assigned or to be given up.
    owners: HashMap<(TopicId, i32), Text>,
    /// Topics as they were when `topics_hash` was made.
    pub topics_version: Option<u64>,
    /// A write failed: what is stored is not what is here. Nobody is told anything before everything was written again.
    pub torn: Option<Torn>,
    /// Members that are gone, until their tombstones are known to be durable.
    pub gone: BTreeSet<Text>,
    /// The newest write; answers that show its outcome wait for it.
    pub last_write: Option<WriteId>,
}

impl ConsumerGroup {
    pub fn new() -> ConsumerGroup {
        ConsumerGroup {
            // Kafka's first generation has epoch 2; tools and tests that look see the same here.
            epoch: 1,
            topics_hash: 0,
            members: BTreeMap::new(),
            statics: BTreeMap::new(),
            target_epoch: 0,
            target_ms: 0,
            target: BTreeMap::new(),
            patterns: BTreeMap::new(),
            lists: HashSet::new(),
            reading: Reading::default(),
            owners: HashMap::new(),
            topics_version: None,
            torn: None,
            gone: BTreeSet::new(),
            last_write: None,
        }
    }

    pub fn state(&self) -> &'static str {
        if self.members.is_empty() {
            "Empty"
        } else if self.epoch > self.target_epoch {
            "Assigning"
        } else if self.is_at_rest() {
            "Stable"
        } else {
            "Reconciling"
        }
    }

    /// Every member has what it should.
    pub fn is_at_rest(&self) -> bool {
        self.epoch <= self.target_epoch
            && self.members.values().all(|m| m.standing.is_reconciled(self.target_epoch))
    }

    /// Another member than this has the partition.
    pub fn is_held(&self, topic: TopicId, partition: i32, member: &str) -> bool {
        self.owners.get(&(topic, partition)).is_some_and(|owner| **owner != *member)
    }

    pub fn stand(&mut self, member: &Text, standing: Standing) {
        let Some(member) = self.members.get_mut(member) else { return };
        let before = std::mem::replace(&mut member.standing, standing);
        for place in before.holds().filter(|place| !member.standing.has(place)) {
            if self.owners.get(&place) == Some(&member.id) {
                self.owners.remove(&place);
            }
        }
        for place in member.standing.holds() {
            if self.owners.get(&place) != Some(&member.id) {
                self.owners.insert(place, member.id.clone());
            }
        }
    }

    fn release(&mut self, member: &str) {
        let Some(member) = self.members.get(member) else { return };
        for place in member.standing.holds() {
            if self.owners.get(&place) == Some(&member.id) {
                self.owners.remove(&place);
            }
        }
    }

    pub fn add(&mut self, member: ConsumerMember) {
        if let Some(instance) = &member.instance {
            self.statics.insert(instance.clone(), member.id.clone());
        }
        self.owners.extend(member.standing.holds().map(|place| (place, member.id.clone())));
        self.members.insert(member.id.clone(), member);
    }

    /// Whether a member with these protocols can be in the group beside those that speak the classic protocol.
    pub fn accepts(&self, id: &str, protocol_type: &str, protocols: &[(String, bytes::Bytes)]) -> bool {
        let others = self.members.values().filter(|m| *m.id != *id);
        let others: Vec<&Classic> = others.filter_map(|m| m.classic.as_ref()).collect();
        protocol_type == CONSUMER
            && protocols.iter().any(|(name, _)| others.iter().all(|other| other.supports(name)))
    }

    /// A member of the classic protocol has to join again: for a newer epoch, when it has given up what it was asked to,
    /// or for partitions that have become free.
    pub fn has_to_join(&self, member: &ConsumerMember) -> bool {
        let is_free = || {
            let target = self.target.get(&member.id).into_iter().flatten();
            let held = |topic: &TopicId, p: &i32| {
                !member.standing.assigned.get(topic).is_some_and(|h| h.contains_key(p))
                    && self.is_held(*topic, *p, &member.id)
            };
            !target.into_iter().any(|(topic, partitions)| partitions.iter().any(|p| held(topic, p)))
        };
        member.standing.epoch < self.epoch
            || match member.standing.progress {
                Progress::Stable => false,
                Progress::Unrevoked => true,
                Progress::Unreleased => is_free(),
            }
    }

    /// The caller cancels its timers.
    pub fn remove(&mut self, id: &str) -> Option<ConsumerMember> {
        self.release(id);
        let member = self.members.remove(id)?;
        self.target.remove(id);
        if let Some(instance) = &member.instance
            && self.statics.get(instance).is_some_and(|m| **m == *id)
        {
            self.statics.remove(instance);
        }
        Some(member)
    }

    /// The assignor most members want; where nobody says, the first there is.
    pub fn assignor(&self) -> &'static str {
        let count =
            |name: &str| self.members.values().filter(|m| m.about.assignor.as_deref() == Some(name)).count();
        if count(super::assign::RANGE) > count(super::assign::UNIFORM) {
            super::assign::RANGE
        } else {
            super::assign::UNIFORM
        }
    }
}
