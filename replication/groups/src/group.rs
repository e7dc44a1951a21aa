//! One group: members, state, generation, and the offsets that are durable. Changes here are bookkeeping; what they lead
//! to is decided in the modules of the requests.

use crate::budget::{Budget, Protocols};
use crate::consumer::ConsumerGroup;
use crate::embedded::{self, CONSUMER};
use crate::messages::{JoinAnswer, JoinedMember, SyncAnswer, Text, Ticket, WriteId};
use crate::records::{GroupValue, Key, MemberValue, OffsetValue};
use crate::timers::TimerKey;
use bytes::Bytes;
use ringmill_types::{ErrorCode, TopicId};
use std::collections::{BTreeMap, BTreeSet};

/// Where a group stands. Names as Kafka shows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No members; perhaps offsets.
    Empty,
    /// Waits for members to join (again).
    PreparingRebalance,
    /// Waits for the leader's assignment.
    CompletingRebalance,
    Stable,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            State::Empty => "Empty",
            State::PreparingRebalance => "PreparingRebalance",
            State::CompletingRebalance => "CompletingRebalance",
            State::Stable => "Stable",
        }
    }
}

/// A committed offset, durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetEntry {
    pub offset: i64,
    pub leader_epoch: i32,
    pub metadata: String,
    pub commit_ms: i64,
    pub expire_ms: Option<i64>,
    pub topic_id: TopicId,
    /// The write it came with: an older one that is confirmed late does not undo it.
    pub(crate) write: WriteId,
}

impl OffsetEntry {
    pub(crate) fn of(value: OffsetValue, write: WriteId) -> OffsetEntry {
        let OffsetValue { offset, leader_epoch, metadata, commit_ms, expire_ms, topic_id } = value;
        OffsetEntry { offset, leader_epoch, metadata, commit_ms, expire_ms, topic_id, write }
    }
}

#[derive(Debug)]
pub(crate) struct Member {
    pub id: Text,
    pub instance: Option<Text>,
    pub client_id: String,
    pub client_host: String,
    pub session_timeout_ms: i32,
    pub rebalance_timeout_ms: i32,
    pub protocols: Protocols,
    /// Of the newest generation that had one: what it may have until it is told otherwise. Shown while that one stands.
    pub assignment: Bytes,
    /// Parked JoinGroup.
    pub joining: Option<Ticket>,
    /// Parked SyncGroup.
    pub syncing: Option<Ticket>,
    /// Has not been in a generation yet: it may expire while it waits for one.
    pub is_new: bool,
    pub timer: Option<TimerKey>,
}

impl Member {
    /// What it says under this protocol.
    pub fn metadata(&self, protocol: &str) -> Bytes {
        self.protocols
            .iter()
            .find(|(name, _)| &**name == protocol)
            .map(|(_, m)| m.clone())
            .unwrap_or_default()
    }

    fn supports(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|(name, _)| &**name == protocol)
    }
}

/// A group of the consumer protocol that a classic one has come out of, until its tombstones are known to be durable.
#[derive(Debug)]
pub(crate) struct Burial {
    /// The write with the tombstones; `None`: it failed, and the next record of the group brings them again.
    pub write: Option<WriteId>,
    pub members: BTreeSet<Text>,
    pub patterns: BTreeSet<String>,
}

impl Burial {
    /// In Kafka's order: its members, then itself.
    pub fn tombstones(&self, group: &str) -> Vec<(Bytes, Option<Bytes>)> {
        let name = || group.to_string();
        let standings = self.members.iter().map(|m| Key::Standing { group: name(), member: m.to_string() });
        let targets = self.members.iter().map(|m| Key::Target { group: name(), member: m.to_string() });
        let members =
            self.members.iter().map(|m| Key::ConsumerMember { group: name(), member: m.to_string() });
        let patterns = self.patterns.iter().map(|p| Key::Pattern { group: name(), pattern: p.clone() });
        let keys = standings.chain(targets).chain([Key::TargetEpoch(name())]).chain(members);
        let keys = keys.chain(patterns).chain([Key::ConsumerGroup(name())]);
        keys.map(|key| (key.encode(), None)).collect()
    }
}

#[derive(Debug)]
pub(crate) struct Group {
    pub id: Text,
    pub state: State,
    pub previous: State,
    pub state_ms: i64,
    pub generation: i32,
    /// `None` for a group that only ever stored offsets.
    pub protocol_type: Option<Text>,
    pub protocol: Option<Text>,
    pub leader: Option<Text>,
    pub members: BTreeMap<Text, Member>,
    /// Instance to member.
    pub statics: BTreeMap<Text, Text>,
    /// Ids given out to members that have not joined with them yet, and when they are forgotten.
    pub pending_join: BTreeMap<Text, TimerKey>,
    pub pending_sync: BTreeSet<Text>,
    pub new_member_added: bool,
    pub join_timer: Option<TimerKey>,
    pub sync_timer: Option<TimerKey>,
    /// The write of this generation's assignment, while it is under way.
    pub assigning: Option<WriteId>,
    pub offsets: BTreeMap<Text, BTreeMap<i32, OffsetEntry>>,
    /// What the log may still hold of the group's time with the consumer protocol.
    pub burial: Option<Burial>,
    /// Writes of offsets under way: the group is not deleted before they are settled.
    pub commits_under_way: usize,
    /// What is in place of everything above, except offsets, where the group is one of the consumer protocol: it has no
    /// members and is Empty as a classic group.
    pub consumer: Option<Box<ConsumerGroup>>,
}

impl Group {
    pub fn new(id: Text, now_ms: i64) -> Group {
        Group {
            id,
            state: State::Empty,
            previous: State::Empty,
            state_ms: now_ms,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            statics: BTreeMap::new(),
            pending_join: BTreeMap::new(),
            pending_sync: BTreeSet::new(),
            new_member_added: false,
            join_timer: None,
            sync_timer: None,
            assigning: None,
            offsets: BTreeMap::new(),
            burial: None,
            commits_under_way: 0,
            consumer: None,
        }
    }

    pub fn enter(&mut self, state: State, now_ms: i64) {
        self.previous = std::mem::replace(&mut self.state, state);
        self.state_ms = now_ms;
    }

    /// No members of either protocol.
    pub fn is_empty(&self) -> bool {
        self.state == State::Empty && self.consumer.as_ref().is_none_or(|c| c.members.is_empty())
    }

    pub fn is_leader(&self, member: &str) -> bool {
        self.leader.as_deref() == Some(member)
    }

    /// Whether a member with these protocols can be in the group together with those that are.
    pub fn accepts(&self, protocol_type: &str, protocols: &[(Text, Bytes)]) -> bool {
        if self.state == State::Empty {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        self.protocol_type.as_deref() == Some(protocol_type)
            && protocols.iter().any(|(name, _)| self.members.values().all(|m| m.supports(name)))
    }

    /// The protocol most members prefer among those that all of them know; in a tie, what the leader prefers.
    pub fn choose_protocol(&self) -> Option<Text> {
        let first =
            self.leader.as_ref().and_then(|l| self.members.get(l)).or(self.members.values().next())?;
        let common: Vec<&Text> = first
            .protocols
            .iter()
            .map(|(name, _)| name)
            .filter(|name| self.members.values().all(|m| m.supports(name)))
            .collect();
        let mut votes = vec![0usize; common.len()];
        for member in self.members.values() {
            let vote = member.protocols.iter().find_map(|(name, _)| common.iter().position(|c| *c == name));
            if let Some(votes) = vote.and_then(|at| votes.get_mut(at)) {
                *votes += 1;
            }
        }
        let most = votes.iter().copied().max()?;
        votes.iter().position(|v| *v == most).and_then(|at| common.get(at)).map(|name| (*name).clone())
    }

    pub fn all_joined(&self) -> bool {
        self.pending_join.is_empty() && self.members.values().all(|m| m.joining.is_some())
    }

    /// What its members say of themselves, with all their protocols.
    pub fn said_bytes(&self) -> u64 {
        self.members.values().map(|m| m.protocols.bytes()).sum()
    }

    pub fn awaiting_join(&self) -> usize {
        self.members.values().filter(|m| m.joining.is_some()).count()
    }

    /// The longest of its members'.
    pub fn rebalance_timeout_ms(&self) -> u64 {
        let longest = self.members.values().map(|m| m.rebalance_timeout_ms).max();
        longest.and_then(|ms| u64::try_from(ms).ok()).unwrap_or(0)
    }

    pub fn add(&mut self, member: Member, protocol_type: &str) {
        if self.members.is_empty() {
            self.protocol_type = Some(protocol_type.into());
        }
        if self.leader.is_none() {
            self.leader = Some(member.id.clone());
        }
        if let Some(instance) = &member.instance {
            self.statics.insert(instance.clone(), member.id.clone());
        }
        self.members.insert(member.id.clone(), member);
    }

    /// Takes a member out; the caller settles what it waits for and its timer.
    pub fn remove(&mut self, id: &str) -> Option<Member> {
        let member = self.members.remove(id)?;
        if let Some(instance) = &member.instance
            && self.statics.get(instance).is_some_and(|m| **m == *id)
        {
            self.statics.remove(instance);
        }
        self.pending_sync.remove(id);
        if self.is_leader(id) {
            self.leader = self.members.keys().next().cloned();
        }
        Some(member)
    }

    /// A leader that did not join again gives way to one that did. False when nobody joined.
    pub fn elect(&mut self) -> bool {
        let joined = |id: &Text| self.members.get(id).is_some_and(|m| m.joining.is_some());
        if self.leader.as_ref().is_some_and(joined) {
            return true;
        }
        let next = self.members.values().find(|m| m.joining.is_some()).map(|m| m.id.clone());
        let found = next.is_some();
        self.leader = next.or(self.leader.take());
        found
    }

    /// The checks that every request of a member begins with.
    pub fn check_member(&self, member: &str, instance: Option<&str>) -> Result<(), ErrorCode> {
        if let Some(instance) = instance {
            match self.statics.get(instance) {
                None => return Err(ErrorCode::UnknownMemberId),
                Some(known) if **known != *member => return Err(ErrorCode::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.members.contains_key(member) { Ok(()) } else { Err(ErrorCode::UnknownMemberId) }
    }

    /// What a member is told that joined, in the generation as it stands.
    pub fn joined(&self, member: &Text) -> JoinAnswer {
        let protocol = self.protocol.clone();
        let members = if self.is_leader(member) { self.roll() } else { Vec::new() };
        JoinAnswer {
            error: ErrorCode::None,
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol,
            leader: self.leader.clone().unwrap_or_else(|| "".into()),
            skip_assignment: false,
            member: member.clone(),
            members,
        }
    }

    /// All members with what they say under the chosen protocol.
    pub fn roll(&self) -> Vec<JoinedMember> {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let members = self.members.values().map(|m| JoinedMember {
            member: m.id.clone(),
            instance: m.instance.clone(),
            metadata: m.metadata(protocol),
        });
        members.collect()
    }

    pub fn synced(&self, assignment: Bytes) -> SyncAnswer {
        SyncAnswer {
            error: ErrorCode::None,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment,
        }
    }

    /// Topics that members are subscribed to; `None` when nobody can tell.
    pub fn subscribed(&self) -> Option<BTreeSet<String>> {
        if let Some(consumer) = &self.consumer {
            return Some(consumer.subscribed().iter().map(ToString::to_string).collect());
        }
        if self.state == State::Empty && self.protocol_type.as_deref() == Some(CONSUMER) {
            return Some(BTreeSet::new());
        }
        if self.protocol_type.as_deref() != Some(CONSUMER) {
            return None;
        }
        let protocol = self.protocol.as_deref()?;
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            topics.extend(embedded::topics_of(&member.metadata(protocol))?);
        }
        Some(topics)
    }

    pub fn is_consumers(&self) -> bool {
        self.consumer.is_some() || self.protocol_type.as_deref() == Some(CONSUMER)
    }

    /// As it is stored, with these assignments.
    pub fn value(&self, assignment: impl Fn(&Member) -> Bytes) -> GroupValue {
        let protocol = self.protocol.as_deref();
        let members = self.members.values().map(|m| MemberValue {
            id: m.id.to_string(),
            instance: m.instance.as_deref().map(str::to_string),
            client_id: m.client_id.clone(),
            client_host: m.client_host.clone(),
            rebalance_timeout_ms: m.rebalance_timeout_ms,
            session_timeout_ms: m.session_timeout_ms,
            subscription: m.metadata(protocol.unwrap_or_default()),
            assignment: assignment(m),
        });
        GroupValue {
            protocol_type: self.protocol_type.as_deref().unwrap_or_default().to_string(),
            generation: self.generation,
            protocol: protocol.map(str::to_string),
            leader: self.leader.as_deref().map(str::to_string),
            state_ms: self.state_ms,
            members: members.collect(),
        }
    }

    /// Takes over what was stored, except offsets.
    pub fn restore(&mut self, value: GroupValue, budget: &Budget) {
        let state = if value.members.is_empty() { State::Empty } else { State::Stable };
        self.state = state;
        self.previous = state;
        self.state_ms = value.state_ms;
        self.generation = value.generation;
        self.protocol_type = Some(value.protocol_type.as_str()).filter(|t| !t.is_empty()).map(Into::into);
        self.protocol = value.protocol.as_deref().map(Into::into);
        self.leader = value.leader.as_deref().map(Into::into);
        self.members.clear();
        self.statics.clear();
        for member in value.members {
            let id: Text = member.id.as_str().into();
            let instance: Option<Text> = member.instance.as_deref().map(Into::into);
            if let Some(instance) = &instance {
                self.statics.insert(instance.clone(), id.clone());
            }
            let protocol: Text = self.protocol.clone().unwrap_or_else(|| "".into());
            self.members.insert(
                id.clone(),
                Member {
                    id,
                    instance,
                    client_id: member.client_id,
                    client_host: member.client_host,
                    session_timeout_ms: member.session_timeout_ms,
                    rebalance_timeout_ms: member.rebalance_timeout_ms,
                    protocols: Protocols::new(vec![(protocol, member.subscription)], budget),
                    assignment: member.assignment,
                    joining: None,
                    syncing: None,
                    is_new: false,
                    timer: None,
                },
            );
        }
        // No leader is what a group has that went over to this protocol and has not had a generation since.
        if self.leader.as_ref().is_some_and(|l| !self.members.contains_key(l)) {
            self.leader = self.members.keys().next().cloned();
        }
    }
}
