//! The machine: takes events, keeps what is under way, and releases what waited for it.

use crate::budget::Budget;
use crate::config::{GroupConfig, OwnConfig};
use crate::consumer::Topics;
use crate::group::{Group, OffsetEntry, State};
use crate::messages::{Answer, Effects, Event, Now, SyncAnswer, Text, Ticket, TopicResults, Write, WriteId};
use crate::offsets::is_blank;
use crate::records::{GroupValue, Key, OffsetValue, RecordError};
use crate::timers::{Due, Timers};
use bytes::Bytes;
use ringmill_types::ErrorCode;
use std::collections::BTreeMap;

/// Tombstones in one write; a write has to fit into one batch.
pub(crate) const TOMBSTONES_PER_WRITE: usize = 1000;

/// The partition of `__consumer_offsets` that a group's records belong to: Java's `String.hashCode`, modulo.
pub fn partition_of(group: &str, partitions: i32) -> i32 {
    let hash =
        group.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    // The one number without a positive counterpart counts as 0, as in Kafka.
    hash.checked_abs().unwrap_or(0) % partitions.max(1)
}

/// What happens when a write is durable, or is not.
#[derive(Debug)]
pub(crate) enum UnderWay {
    /// Nobody waits for it.
    Record,
    /// A generation's assignments, by member: every parked SyncGroup is answered.
    Assignment {
        group: Text,
        generation: i32,
        assignments: BTreeMap<Text, Bytes>,
    },
    /// A static member under its new id.
    Static(Ticket, Answer),
    /// What a group of the consumer protocol decided, and who is told.
    Consumers {
        group: Text,
        answers: Vec<(Ticket, Answer)>,
    },
    Offsets {
        ticket: Ticket,
        group: Text,
        offsets: Vec<(Text, i32, OffsetEntry)>,
        results: TopicResults,
    },
    OffsetsDeleted {
        ticket: Ticket,
        group: Text,
        partitions: Vec<(Text, i32)>,
        results: TopicResults,
    },
    /// One of the writes of a deleted group, which comes back when it fails.
    GroupDeleted {
        ticket: Ticket,
        place: usize,
        group: Option<Box<Group>>,
    },
}

/// A DeleteGroups that waits for its tombstones.
#[derive(Debug)]
pub(crate) struct Deletion {
    pub results: Vec<(String, ErrorCode)>,
    pub left: usize,
}

/// Everything but the groups themselves, so that a group can be changed beside it.
#[derive(Debug)]
pub(crate) struct Desk {
    pub config: GroupConfig,
    /// Of groups that have something of their own.
    pub own: BTreeMap<Text, OwnConfig>,
    pub partitions: i32,
    pub now: Now,
    pub timers: Timers,
    pub under_way: BTreeMap<WriteId, UnderWay>,
    pub deletions: BTreeMap<Ticket, Deletion>,
    pub topics: Topics,
    /// What members say of themselves.
    pub budget: Budget,
    pub out: Effects,
    /// Writes that bring tombstones of a group's time with the consumer protocol.
    pub burials: BTreeMap<WriteId, Text>,
    next_write: u64,
    /// Generations and epochs that began since the machine did.
    pub rebalances: u64,
}

impl Desk {
    pub fn answer(&mut self, ticket: Ticket, answer: Answer) {
        self.out.answers.push((ticket, answer));
    }

    pub fn write(&mut self, group: &str, records: Vec<(Bytes, Option<Bytes>)>, then: UnderWay) -> WriteId {
        self.next_write += 1;
        let id = WriteId(self.next_write);
        self.under_way.insert(id, then);
        self.out.writes.push(Write { id, partition: partition_of(group, self.partitions), records });
        id
    }

    /// The number the next write will have.
    pub fn coming_write(&self) -> WriteId {
        WriteId(self.next_write + 1)
    }

    /// A sign of life: the member's session begins anew.
    pub fn renew_session(&mut self, group: &mut Group, member: &str) {
        let Some(member) = group.members.get_mut(member) else { return };
        let timeout_ms = if member.is_new && member.joining.is_some() {
            self.config.new_member_join_timeout_ms
        } else {
            member.session_timeout_ms
        };
        self.timers.cancel(member.timer.take());
        let due = Due::Member(group.id.clone(), member.id.clone());
        member.timer = Some(self.timers.add(self.after(timeout_ms), due));
    }

    pub fn consumer_session_timeout_ms(&self, group: &str) -> i32 {
        let own = self.own.get(group).and_then(|own| own.consumer_session_timeout_ms);
        own.unwrap_or(self.config.consumer_session_timeout_ms)
    }

    pub fn consumer_heartbeat_interval_ms(&self, group: &str) -> i32 {
        let own = self.own.get(group).and_then(|own| own.consumer_heartbeat_interval_ms);
        own.unwrap_or(self.config.consumer_heartbeat_interval_ms)
    }

    pub fn after(&self, timeout_ms: i32) -> u64 {
        self.now.mono_ms.saturating_add(u64::try_from(timeout_ms).unwrap_or(0))
    }

    /// A group without members yet.
    pub fn write_new_group(&mut self, group: &Group) {
        let value = GroupValue { state_ms: group.state_ms, ..GroupValue::default() };
        let key = Key::Group(group.id.to_string()).encode();
        self.write(&group.id, vec![(key, Some(value.encode()))], UnderWay::Record);
    }

    /// The group as it stands, as a record nobody waits for.
    pub fn write_group(&mut self, group: &mut Group) {
        let value = group.value(|m| m.assignment.clone());
        self.write_classic(group, &value, UnderWay::Record);
    }

    /// A classic group's record, and before it the tombstones of what it came out of where those could not be stored.
    pub fn write_classic(&mut self, group: &mut Group, value: &GroupValue, then: UnderWay) -> WriteId {
        let open = group.burial.as_ref().filter(|burial| burial.write.is_none());
        let mut records = open.map(|burial| burial.tombstones(&group.id)).unwrap_or_default();
        let buries = !records.is_empty();
        records.push((Key::Group(group.id.to_string()).encode(), Some(value.encode())));
        let write = self.write(&group.id, records, then);
        if buries {
            self.buried_by(group, write);
        }
        write
    }

    /// The tombstones of what the group came out of are in this write.
    pub fn buried_by(&mut self, group: &mut Group, write: WriteId) {
        if let Some(burial) = &mut group.burial {
            burial.write = Some(write);
            self.burials.insert(write, group.id.clone());
        }
    }
}

/// All groups of one coordinator.
#[derive(Debug)]
pub struct Groups {
    pub(crate) groups: BTreeMap<Text, Group>,
    pub(crate) desk: Desk,
}

impl Groups {
    /// `partitions` is how many `__consumer_offsets` has.
    pub fn new(config: GroupConfig, partitions: i32, now: Now) -> Groups {
        let mut timers = Timers::default();
        timers.add(now.mono_ms.saturating_add(config.retention_check_ms), Due::Retention);
        Groups {
            groups: BTreeMap::new(),
            desk: Desk {
                config,
                own: BTreeMap::new(),
                partitions,
                now,
                timers,
                under_way: BTreeMap::new(),
                deletions: BTreeMap::new(),
                topics: Topics::default(),
                budget: Budget::default(),
                out: Effects::default(),
                burials: BTreeMap::new(),
                next_write: 0,
                rebalances: 0,
            },
        }
    }

    /// Takes over one record of the log, in the log's order, before the first event.
    ///
    /// # Errors
    /// [`RecordError`]: the record is not for this machine and changes nothing.
    pub fn load(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), RecordError> {
        match (Key::decode(key)?, value) {
            (Key::Offset { group, topic, partition }, Some(value)) => {
                let entry = OffsetEntry::of(OffsetValue::decode(value)?, WriteId(0));
                let group = self.group_or_simple(group.as_str().into());
                group.offsets.entry(topic.as_str().into()).or_default().insert(partition, entry);
            }
            (Key::Offset { group, topic, partition }, None) => {
                if let Some(group) = self.groups.get_mut(group.as_str()) {
                    forget_offset(group, &topic, partition);
                }
            }
            (Key::Group(id), Some(value)) => {
                let value = GroupValue::decode(value)?;
                let budget = self.desk.budget.clone();
                self.group_or_simple(id.as_str().into()).restore(value, &budget);
            }
            (Key::Group(id), None) => self.classic_is_gone(&id),
            (
                key @ (Key::ConsumerGroup(_)
                | Key::ConsumerMember { .. }
                | Key::TargetEpoch(_)
                | Key::Target { .. }
                | Key::Standing { .. }
                | Key::Pattern { .. }),
                value,
            ) => self.load_consumer(&key, value)?,
        }
        Ok(())
    }

    /// All records were loaded: sessions of the members that were found begin now.
    pub fn loaded(&mut self, now: Now) {
        self.desk.now = now;
        // Of which only the markers of deleted offsets were left, until compaction takes those too.
        self.groups.retain(|_, group| !is_blank(group));
        for group in self.groups.values_mut() {
            let members: Vec<Text> = group.members.keys().cloned().collect();
            for member in members {
                self.desk.renew_session(group, &member);
            }
            if group.state == State::Stable && group.leader.is_none() {
                // It stopped between going over to this protocol and its first generation.
                group.leader = group.members.keys().next().cloned();
                self.desk.prepare_rebalance(group);
            }
            self.desk.consumers_loaded(group);
        }
    }

    /// A group's own record was deleted. Its offsets have records of their own, and it may have gone over to the other
    /// protocol.
    fn classic_is_gone(&mut self, id: &str) {
        let now_ms = self.desk.now.wall_ms;
        let Some(group) = self.groups.get_mut(id) else { return };
        let blank = Group::new(group.id.clone(), now_ms);
        let old = std::mem::replace(group, blank);
        group.offsets = old.offsets;
        group.consumer = old.consumer;
        if group.offsets.is_empty() && group.consumer.is_none() {
            self.groups.remove(id);
        }
    }

    /// One event, at a time that never goes back.
    pub fn step(&mut self, event: Event, now: Now) -> Effects {
        self.desk.now = now;
        match event {
            Event::Join(ticket, join) => self.join(ticket, join),
            Event::Sync(ticket, sync) => self.sync(ticket, sync),
            Event::Heartbeat(ticket, beat) => {
                let code = self.heartbeat(&beat).err().unwrap_or(ErrorCode::None);
                self.desk.answer(ticket, Answer::Heartbeat(code));
            }
            Event::Leave(ticket, leave) => self.leave(ticket, leave),
            Event::Commit(ticket, commit) => self.commit(ticket, commit),
            Event::DeleteOffsets(ticket, request) => self.delete_offsets(ticket, &request),
            Event::DeleteGroups(ticket, names) => self.delete_groups(ticket, names),
            Event::ConsumerBeat(ticket, beat) => self.consumer_beat(ticket, &beat),
            Event::Topics(topics) => self.desk.topics.reset(topics),
            Event::TopicsChanged(topics) => self.desk.topics.set(topics),
            Event::TopicsDeleted(topics) => {
                self.desk.topics.remove(&topics);
                self.topics_deleted(&topics);
            }
            Event::Configured(group, own) if own == OwnConfig::default() => {
                self.desk.own.remove(&group);
            }
            Event::Configured(group, own) => {
                self.desk.own.insert(group, own);
            }
            Event::Matched(matched) => self.matched(matched),
            Event::Durable(write) => self.settle(write, Ok(())),
            Event::Failed(write, code) => self.settle(write, Err(code)),
            Event::Tick => {}
            Event::Resign => self.resign(),
        }
        self.run_due();
        std::mem::take(&mut self.desk.out)
    }

    /// When the next [`Event::Tick`] has something to do.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        self.desk.timers.next_ms()
    }

    /// Generations of classic groups and epochs of groups of the consumer protocol that began.
    pub fn rebalances(&self) -> u64 {
        self.desk.rebalances
    }

    /// Writes that are not settled.
    pub fn writes_under_way(&self) -> usize {
        self.desk.under_way.len()
    }

    fn resign(&mut self) {
        for member in self.groups.values_mut().flat_map(|g| g.members.values_mut()) {
            if let Some(ticket) = member.joining.take() {
                let answer = crate::join::refused(ErrorCode::NotCoordinator, member.id.clone());
                self.desk.answer(ticket, Answer::Join(answer));
            }
            if let Some(ticket) = member.syncing.take() {
                self.desk.answer(ticket, sync_refused(ErrorCode::NotCoordinator));
            }
        }
    }

    fn run_due(&mut self) {
        while let Some(due) = self.desk.timers.take_due(self.desk.now.mono_ms) {
            match due {
                Due::Member(group, member) => self.session_over(&group, &member),
                Due::Consumer(group, member) => self.consumer_out(&group, &member),
                Due::Revocation { group, member, epoch } => self.revocation_over(&group, &member, epoch),
                Due::Initial { group, delay_ms, left_ms } => {
                    if let Some(group) = self.groups.get_mut(&group) {
                        self.desk.initial_delay_over(group, delay_ms, left_ms);
                    }
                }
                Due::Join(group) => {
                    if let Some(group) = self.groups.get_mut(&group) {
                        group.join_timer = None;
                        self.desk.complete_join(group);
                    }
                }
                Due::Sync(group, generation) => {
                    if let Some(group) = self.groups.get_mut(&group) {
                        self.desk.sync_over(group, generation);
                    }
                }
                Due::Retention => {
                    let at_ms =
                        self.desk.now.mono_ms.saturating_add(self.desk.config.retention_check_ms.max(1));
                    self.desk.timers.add(at_ms, Due::Retention);
                    self.expire_offsets();
                }
            }
        }
    }

    fn settle(&mut self, write: WriteId, outcome: Result<(), ErrorCode>) {
        let Some(under_way) = self.desk.under_way.remove(&write) else { return };
        self.burial_settled(write, outcome);
        match under_way {
            UnderWay::Record => {}
            UnderWay::Assignment { group, generation, assignments } => {
                if let Some(group) = self.groups.get_mut(&group)
                    && group.assigning == Some(write)
                    && group.generation == generation
                {
                    self.desk.assigned(group, outcome, assignments);
                }
            }
            UnderWay::Static(ticket, answer) => {
                let answer = match (outcome, answer) {
                    (Err(error), Answer::Join(join)) => {
                        Answer::Join(crate::join::refused(error, join.member))
                    }
                    (_, answer) => answer,
                };
                self.desk.answer(ticket, answer);
            }
            UnderWay::Consumers { group, answers } => self.consumers_settled(write, &group, answers, outcome),
            UnderWay::Offsets { ticket, group, offsets, results } => {
                self.commit_settled(group, outcome, offsets);
                self.desk.answer(ticket, Answer::Commit(with_outcome(results, outcome)));
            }
            UnderWay::OffsetsDeleted { ticket, group, partitions, results } => {
                if outcome.is_ok()
                    && let Some(group) = self.groups.get_mut(&group)
                {
                    for (topic, partition) in partitions {
                        let old = |entry: &OffsetEntry| entry.write < write;
                        if group.offsets.get(&topic).and_then(|p| p.get(&partition)).is_some_and(old) {
                            forget_offset(group, &topic, partition);
                        }
                    }
                }
                let code = outcome.err().unwrap_or(ErrorCode::None);
                let results = if outcome.is_ok() { results } else { Vec::new() };
                self.desk.answer(ticket, Answer::DeleteOffsets(code, results));
            }
            UnderWay::GroupDeleted { ticket, place, group } => {
                self.deletion_settled(ticket, place, group, outcome)
            }
        }
    }

    fn burial_settled(&mut self, write: WriteId, outcome: Result<(), ErrorCode>) {
        let group = self.desk.burials.remove(&write).and_then(|group| self.groups.get_mut(&group));
        let Some(group) = group else { return };
        if let Some(burial) = &mut group.burial
            && burial.write == Some(write)
        {
            burial.write = None;
            if outcome.is_ok() {
                group.burial = None;
            }
        }
    }

    /// A group, made for one that only stores offsets when there is none.
    pub(crate) fn group_or_simple(&mut self, id: Text) -> &mut Group {
        let now_ms = self.desk.now.wall_ms;
        self.groups.entry(id.clone()).or_insert_with(|| Group::new(id, now_ms))
    }
}

/// Good results become this failure.
fn with_outcome(mut results: TopicResults, outcome: Result<(), ErrorCode>) -> TopicResults {
    if let Err(failure) = outcome {
        for (_, _, code) in results.iter_mut().filter(|(_, _, code)| *code == ErrorCode::None) {
            *code = failure;
        }
    }
    results
}

pub(crate) fn forget_offset(group: &mut Group, topic: &str, partition: i32) {
    if let Some(partitions) = group.offsets.get_mut(topic) {
        partitions.remove(&partition);
        if partitions.is_empty() {
            group.offsets.remove(topic);
        }
    }
}

pub(crate) fn sync_refused(error: ErrorCode) -> Answer {
    Answer::Sync(SyncAnswer { error, protocol_type: None, protocol: None, assignment: Bytes::new() })
}

/// A rebalance can begin; otherwise one has.
pub(crate) fn can_rebalance(state: State) -> bool {
    match state {
        State::Empty | State::CompletingRebalance | State::Stable => true,
        State::PreparingRebalance => false,
    }
}
