//! How members of the consumer protocol go: by their own word, an operator's, or their silence. And how what the group
//! decided reaches the log.

use super::beat::{Records, beating, known, refuse};
use super::beat::{epoch_record, member_record, standing_record, target_epoch_record, target_record};
use super::group::{ConsumerGroup, ConsumerMember, RETURNS, Torn};
use super::migrate::{Next, bury, record_bytes};
use super::reconcile::Standing;
use crate::group::Group;
use crate::machine::{Desk, Groups, UnderWay, sync_refused};
use crate::messages::{
    Answer, Commit, ConsumerAnswer, ConsumerBeat, Identity, Refused, Text, Ticket, WriteId,
};
use crate::records::{ConsumerValue, Key};
use bytes::Bytes;
use ringmill_types::ErrorCode;
use std::collections::BTreeSet;

impl ConsumerGroup {
    /// Whether this member may commit: it is of the group, and the partitions are its own since that epoch or before.
    pub(crate) fn check_commit(&self, commit: &Commit) -> Result<(), ErrorCode> {
        let member = known(self, &commit.member, commit.instance.as_deref()).map_err(|r| r.code)?;
        if member.classic.is_some() {
            let is_now = commit.generation == member.standing.epoch;
            return if is_now { Ok(()) } else { Err(ErrorCode::IllegalGeneration) };
        }
        if !commit.knows_epochs {
            return Err(ErrorCode::UnsupportedVersion);
        }
        if commit.generation == member.standing.epoch {
            return Ok(());
        }
        let is_own = |one: &crate::messages::CommitOffset| {
            let since = member.standing.assigned.get(&one.topic_id).and_then(|h| h.get(&one.partition));
            since.is_some_and(|since| *since <= commit.generation)
        };
        // An older epoch of partitions that it has kept since (KIP-1251).
        if commit.generation < member.standing.epoch && commit.offsets.iter().all(is_own) {
            return Ok(());
        }
        Err(ErrorCode::StaleMemberEpoch)
    }
}

impl Group {
    /// Everything that is stored of the group itself, deleted.
    pub(crate) fn tombstones(&self) -> Records {
        match &self.consumer {
            None => {
                let before = self.burial.iter().flat_map(|burial| burial.tombstones(&self.id));
                before.chain([(Key::Group(self.id.to_string()).encode(), None)]).collect()
            }
            Some(consumer) => bury(consumer).tombstones(&self.id),
        }
    }
}

impl Desk {
    /// An empty group of the consumer protocol becomes a classic one.
    pub(crate) fn becomes_classic(&mut self, group: &mut Group) {
        let Some(consumer) = group.consumer.take_if(|consumer| consumer.members.is_empty()) else { return };
        let burial = bury(&consumer);
        let write = self.write(&group.id, burial.tombstones(&group.id), UnderWay::Record);
        group.burial = Some(burial);
        self.buried_by(group, write);
    }

    pub(super) fn consumer_leaves(
        &mut self,
        group: &mut Group,
        beat: &ConsumerBeat,
        records: &mut Records,
    ) -> Result<ConsumerAnswer, Refused> {
        let name = group.id.clone();
        let Some(consumer) = group.consumer.as_deref_mut() else {
            return Err(refuse(ErrorCode::UnknownServerError, "no consumer group"));
        };
        let member = beating(&name, consumer, beat)?;
        let id = member.id.clone();
        if beat.epoch == RETURNS {
            // Its session goes on; what it has is kept for it until then.
            let standing = Standing { epoch: RETURNS, ..member.standing.clone() };
            records.push(standing_record(&name, &id, &standing));
            consumer.stand(&id, standing);
        } else {
            self.fence(group, &BTreeSet::from([id.clone()]));
        }
        Ok(ConsumerAnswer { member: id, epoch: beat.epoch, interval_ms: 0, assignment: None })
    }

    /// LeaveGroup: an operator takes out members.
    pub(crate) fn consumers_leave(&mut self, group: &mut Group, ticket: Ticket, members: Vec<Identity>) {
        let mut out = BTreeSet::new();
        let mut results = Vec::new();
        if let Some(consumer) = group.consumer.as_deref() {
            for who in members {
                let by_instance = who.instance.as_ref().filter(|_| who.member.is_empty());
                let id = by_instance.and_then(|i| consumer.statics.get(i.as_str()).cloned());
                let id = id.unwrap_or_else(|| who.member.as_str().into());
                let found = known(consumer, &id, who.instance.as_deref()).map(|_| ()).map_err(|r| r.code);
                if found.is_ok() {
                    out.insert(id);
                }
                results.push((who, found.err().unwrap_or(ErrorCode::None)));
            }
        }
        self.fence(group, &out);
        let answer = Answer::Leave(ErrorCode::None, results);
        self.write_consumers(group, Records::new(), vec![(ticket, answer)]);
    }

    /// Takes members out. The others have a new epoch to reach; or, where they all speak the classic protocol, a new
    /// generation of a classic group.
    fn fence(&mut self, group: &mut Group, out: &BTreeSet<Text>) {
        let name = group.id.clone();
        let Some(consumer) = group.consumer.as_deref() else { return };
        let there = out.iter().filter(|id| consumer.members.contains_key(*id)).count();
        if there == 0 {
            return;
        }
        if consumer.members.len() > there
            && self.goes_back(consumer, out)
            && self.downgrade(group, out, Next::Rebalance)
        {
            return self.prepare_rebalance(group);
        }
        let Some(consumer) = group.consumer.as_deref_mut() else { return };
        let mut records = Records::new();
        for id in out {
            self.unseat(&name, consumer, id, &mut records);
        }
        consumer.epoch = consumer.epoch.saturating_add(1);
        consumer.topics_hash = consumer.hash_of(&self.topics);
        records.push(epoch_record(&name, consumer));
        self.write_consumers(group, records, Vec::new());
    }

    pub(super) fn unseat(
        &mut self,
        name: &Text,
        consumer: &mut ConsumerGroup,
        id: &str,
        records: &mut Records,
    ) -> Option<ConsumerMember> {
        let mut member = consumer.remove(id)?;
        for timer in member.take_timers() {
            self.timers.cancel(timer);
        }
        records.extend(tombstones_of(name, id));
        consumer.gone.insert(member.id.clone());
        Some(member)
    }

    /// Writes what was decided, and answers when it and everything before it is durable.
    pub(super) fn write_consumers(
        &mut self,
        group: &mut Group,
        records: Records,
        answers: Vec<(Ticket, Answer)>,
    ) {
        let Some(consumer) = group.consumer.as_deref_mut() else {
            // It has gone over to the classic protocol just now.
            let write = group.burial.as_ref().and_then(|burial| burial.write);
            return self.answer_after(write, answers);
        };
        let mends = consumer.torn == Some(Torn::Open);
        let records = if mends { [records, everything(&group.id, consumer)].concat() } else { records };
        if records.is_empty() {
            return self.answer_after(consumer.last_write, answers);
        }
        let mut writes = in_writes(records, self.config.record_bytes_max);
        let last = writes.pop().unwrap_or_default();
        for records in writes {
            let then = UnderWay::Consumers { group: group.id.clone(), answers: Vec::new() };
            self.write(&group.id, records, then);
        }
        let then = UnderWay::Consumers { group: group.id.clone(), answers };
        consumer.last_write = Some(self.write(&group.id, last, then));
        if let Some(write) = consumer.last_write.filter(|_| mends) {
            consumer.torn = Some(Torn::Mending(write));
        }
    }

    /// With the outcome of this write; at once when it has come.
    fn answer_after(&mut self, write: Option<WriteId>, answers: Vec<(Ticket, Answer)>) {
        if let Some(write) = write
            && let Some(UnderWay::Consumers { answers: waiting, .. }) = self.under_way.get_mut(&write)
        {
            waiting.extend(answers);
        } else {
            self.out.answers.extend(answers);
        }
    }
}

/// Records in their order, as many to a write as it holds: what fits into one is stored as a whole or not at all.
fn in_writes(records: Records, bytes_max: u64) -> Vec<Records> {
    let mut writes: Vec<Records> = Vec::new();
    let mut bytes = 0;
    for record in records {
        bytes += record_bytes(&record);
        match writes.last_mut() {
            Some(write) if bytes <= bytes_max => write.push(record),
            Some(_) | None => {
                bytes = record_bytes(&record);
                writes.push(vec![record]);
            }
        }
    }
    writes
}

fn tombstones_of(group: &str, member: &str) -> [(Bytes, Option<Bytes>); 3] {
    let (group, member) = (group.to_string(), member.to_string());
    [
        (Key::Standing { group: group.clone(), member: member.clone() }.encode(), None),
        (Key::Target { group: group.clone(), member: member.clone() }.encode(), None),
        (Key::ConsumerMember { group, member }.encode(), None),
    ]
}

/// All records of the group, with which the log says again what is: no classic group, and all of this one.
pub(super) fn everything(group: &Text, consumer: &ConsumerGroup) -> Records {
    let gone = consumer.gone.iter().filter(|id| !consumer.members.contains_key(*id));
    let mut records: Records = vec![(Key::Group(group.to_string()).encode(), None)];
    records.extend(gone.flat_map(|id| tombstones_of(group, id)));
    records.extend(consumer.members.values().map(|m| member_record(group, m)));
    records.push(epoch_record(group, consumer));
    records.extend(consumer.target.iter().map(|(member, t)| target_record(group, member, t)));
    records.push(target_epoch_record(group, consumer));
    records.extend(consumer.members.values().map(|m| standing_record(group, &m.id, &m.standing)));
    // Of no version: they are matched again after a start.
    records.extend(consumer.patterns.iter().map(|(text, pattern)| {
        let value = ConsumerValue::Pattern { topics: pattern.topics.clone(), version: 0, at_ms: 0 };
        let key = Key::Pattern { group: group.to_string(), pattern: text.clone() };
        (key.encode(), Some(value.encode()))
    }));
    records
}

impl Groups {
    pub(crate) fn consumers_settled(
        &mut self,
        write: WriteId,
        group: &str,
        answers: Vec<(Ticket, Answer)>,
        outcome: Result<(), ErrorCode>,
    ) {
        let mut outcome = outcome;
        if let Some(consumer) = self.groups.get_mut(group).and_then(|g| g.consumer.as_deref_mut()) {
            match (outcome, consumer.torn) {
                (Err(_), _) => consumer.torn = Some(Torn::Open),
                (Ok(()), Some(Torn::Mending(last))) if write >= last => consumer.torn = None,
                // Durable itself, but it stands on something that is not.
                (Ok(()), Some(_)) => outcome = Err(ErrorCode::CoordinatorNotAvailable),
                (Ok(()), None) => {}
            }
            if outcome.is_ok() && consumer.last_write == Some(write) {
                consumer.gone.clear();
            }
        }
        let Err(code) = outcome else { return self.desk.out.answers.extend(answers) };
        for (ticket, answer) in answers {
            self.desk.answer(ticket, not_stored(answer, code));
        }
    }

    /// It still has not given up what it was asked to in this epoch.
    pub(crate) fn revocation_over(&mut self, group: &str, member: &str, epoch: i32) {
        let consumer = self.groups.get(group).and_then(|g| g.consumer.as_deref());
        let stuck = consumer.and_then(|c| c.members.get(member)).is_some_and(|m| m.standing.epoch == epoch);
        if stuck {
            self.consumer_out(group, member);
        }
    }

    /// It said nothing for its session, or did not do in time what it was asked to.
    pub(crate) fn consumer_out(&mut self, group: &str, member: &str) {
        let Some(group) = self.groups.get_mut(group) else { return };
        self.desk.fence(group, &BTreeSet::from([member.into()]));
    }
}

/// What is said in place of an answer whose promise could not be stored.
fn not_stored(answer: Answer, code: ErrorCode) -> Answer {
    match answer {
        Answer::ConsumerBeat(_) => {
            Answer::ConsumerBeat(Err(refuse(code, "What the group decided could not be stored.")))
        }
        Answer::Join(join) => Answer::Join(crate::join::refused(code, join.member)),
        Answer::Sync(_) => sync_refused(code),
        Answer::Leave(..) => Answer::Leave(code, Vec::new()),
        // None of these waits for a group's records.
        other @ (Answer::Heartbeat(_)
        | Answer::Commit(_)
        | Answer::DeleteOffsets(..)
        | Answer::DeleteGroups(_)) => other,
    }
}
