//! Committed offsets: taking them, showing them when they are durable, deleting and forgetting them.

use crate::group::{Group, OffsetEntry, State};
use crate::leave::tombstone;
use crate::machine::{Groups, TOMBSTONES_PER_WRITE, UnderWay, forget_offset};
use crate::messages::{Answer, Commit, DeleteOffsets, Text, Ticket, TopicResults};
use crate::records::{Key, OffsetValue};
use bytes::Bytes;
use ringmill_types::ErrorCode;
use std::collections::{BTreeMap, BTreeSet};

impl Groups {
    pub(crate) fn commit(&mut self, ticket: Ticket, commit: Commit) {
        if let Err(error) = self.check_commit(&commit) {
            let results = commit.offsets.into_iter().map(|o| (o.topic, o.partition, error));
            return self.desk.answer(ticket, Answer::Commit(results.collect()));
        }
        let (write, now) = (self.desk.coming_write(), self.desk.now);
        let metadata_max = self.desk.config.offset_metadata_bytes_max;
        let mut results = TopicResults::new();
        let mut offsets = Vec::new();
        let mut records = Vec::new();
        for one in commit.offsets {
            if one.metadata.len() > metadata_max {
                results.push((one.topic, one.partition, ErrorCode::OffsetMetadataTooLarge));
                continue;
            }
            results.push((one.topic.clone(), one.partition, ErrorCode::None));
            let value = OffsetValue {
                offset: one.offset,
                leader_epoch: one.leader_epoch,
                metadata: one.metadata,
                commit_ms: now.wall_ms,
                expire_ms: commit.retention_ms.map(|ms| now.wall_ms.saturating_add(ms)),
                topic_id: one.topic_id,
            };
            let (group, topic) = (commit.group.clone(), one.topic.to_string());
            let key = Key::Offset { group, topic, partition: one.partition };
            records.push((key.encode(), Some(value.encode())));
            offsets.push((one.topic, one.partition, OffsetEntry::of(value, write)));
        }
        if records.is_empty() {
            return self.desk.answer(ticket, Answer::Commit(results));
        }
        let id: Text = commit.group.as_str().into();
        let group = self.group_or_simple(id.clone());
        group.commits_under_way += 1;
        let of = id.clone();
        self.desk.write(&id, records, UnderWay::Offsets { ticket, group: of, offsets, results });
    }

    /// Whether this member may commit now; it lives, too.
    fn check_commit(&mut self, commit: &Commit) -> Result<(), ErrorCode> {
        let Some(group) = self.groups.get_mut(commit.group.as_str()) else {
            return if commit.generation < 0 {
                Ok(())
            } else if commit.says_group_not_found {
                Err(ErrorCode::GroupIdNotFound)
            } else {
                Err(ErrorCode::IllegalGeneration)
            };
        };
        if commit.generation < 0 && group.is_empty() {
            return Ok(());
        }
        if let Some(consumer) = &group.consumer {
            return consumer.check_commit(commit);
        }
        if commit.generation < 0 && commit.member.is_empty() && commit.instance.is_none() {
            // Not a member, and there are some.
            return Err(ErrorCode::UnknownMemberId);
        }
        group.check_member(&commit.member, commit.instance.as_deref())?;
        if commit.generation != group.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        match group.state {
            State::CompletingRebalance => Err(ErrorCode::RebalanceInProgress),
            State::Stable | State::PreparingRebalance => {
                self.desk.renew_session(group, &commit.member);
                Ok(())
            }
            State::Empty => Ok(()),
        }
    }

    pub(crate) fn commit_settled(
        &mut self,
        id: Text,
        outcome: Result<(), ErrorCode>,
        offsets: Vec<(Text, i32, OffsetEntry)>,
    ) {
        if let Some(group) = self.groups.get_mut(&id) {
            group.commits_under_way = group.commits_under_way.saturating_sub(1);
        }
        if outcome.is_err() || offsets.is_empty() {
            if self.groups.get(&id).is_some_and(is_blank) {
                self.groups.remove(&id);
            }
            return;
        }
        let group = self.group_or_simple(id);
        for (topic, partition, entry) in offsets {
            let partitions = group.offsets.entry(topic).or_default();
            if partitions.get(&partition).is_none_or(|old| old.write <= entry.write) {
                partitions.insert(partition, entry);
            }
        }
    }

    pub(crate) fn delete_offsets(&mut self, ticket: Ticket, request: &DeleteOffsets) {
        let group = match self.groups.get(request.group.as_str()) {
            None => {
                let is_none = request.group.is_empty();
                let error = if is_none { ErrorCode::InvalidGroupId } else { ErrorCode::GroupIdNotFound };
                let answer = Answer::DeleteOffsets(error, Vec::new());
                return self.desk.answer(ticket, answer);
            }
            Some(group) if !group.is_empty() && !group.is_consumers() => {
                let answer = Answer::DeleteOffsets(ErrorCode::NonEmptyGroup, Vec::new());
                return self.desk.answer(ticket, answer);
            }
            Some(group) => group,
        };
        let subscribed = group.subscribed();
        let mut results = TopicResults::new();
        let mut partitions = Vec::new();
        let mut records = Vec::new();
        for (topic, partition) in &request.partitions {
            let in_use = match &subscribed {
                Some(topics) => topics.contains(&**topic),
                None => group.is_consumers(),
            };
            if in_use {
                results.push((topic.clone(), *partition, ErrorCode::GroupSubscribedToTopic));
                continue;
            }
            results.push((topic.clone(), *partition, ErrorCode::None));
            let known = group.offsets.get(topic).is_some_and(|p| p.contains_key(partition));
            if known || group.commits_under_way > 0 {
                records.push(tombstone(&group.id, topic, *partition));
                partitions.push((topic.clone(), *partition));
            }
        }
        if records.is_empty() {
            return self.desk.answer(ticket, Answer::DeleteOffsets(ErrorCode::None, results));
        }
        let id = group.id.clone();
        let then = UnderWay::OffsetsDeleted { ticket, group: id.clone(), partitions, results };
        self.desk.write(&id, records, then);
    }

    /// Offsets of topics that are gone mean nothing, and would mean the wrong thing in topics of the same names.
    pub(crate) fn topics_deleted(&mut self, topics: &[Text]) {
        for group in self.groups.values_mut() {
            let mut records = Vec::new();
            for topic in topics {
                for partition in group.offsets.remove(topic).unwrap_or_default().into_keys() {
                    records.push(tombstone(&group.id, topic, partition));
                }
            }
            for chunk in records.chunks(TOMBSTONES_PER_WRITE) {
                self.desk.write(&group.id, chunk.to_vec(), UnderWay::Record);
            }
        }
    }

    /// Forgets offsets that nobody renewed for the retention time, and groups of which nothing is left.
    pub(crate) fn expire_offsets(&mut self) {
        let (now_ms, retention_ms) = (self.desk.now.wall_ms, self.desk.config.offsets_retention_ms);
        let mut gone = Vec::new();
        for group in self.groups.values_mut() {
            let mut records = expired(group, now_ms, retention_ms);
            let is_over = group.is_empty()
                && group.offsets.is_empty()
                && group.commits_under_way == 0
                && group.pending_join.is_empty();
            if is_over {
                records.extend(group.tombstones());
                gone.push(group.id.clone());
            }
            for chunk in records.chunks(TOMBSTONES_PER_WRITE) {
                self.desk.write(&group.id, chunk.to_vec(), UnderWay::Record);
            }
        }
        for group in gone {
            self.groups.remove(&group);
        }
    }
}

/// Made for a commit that came to nothing.
pub(crate) fn is_blank(group: &Group) -> bool {
    group.state == State::Empty
        && group.consumer.is_none()
        && group.burial.is_none()
        && group.protocol_type.is_none()
        && group.generation == 0
        && group.offsets.is_empty()
        && group.pending_join.is_empty()
        && group.commits_under_way == 0
}

/// Takes out what is over, and gives its tombstones.
fn expired(group: &mut Group, now_ms: i64, retention_ms: i64) -> Vec<(Bytes, Option<Bytes>)> {
    let subscribed: Option<BTreeSet<String>> = group.subscribed();
    let mut over: BTreeMap<Text, Vec<i32>> = BTreeMap::new();
    for (topic, partitions) in &group.offsets {
        for (partition, entry) in partitions {
            let since = match (&group.protocol_type, group.state) {
                _ if group.consumer.is_some() => {
                    let left = subscribed.as_ref().is_some_and(|topics| !topics.contains(&**topic));
                    left.then_some(entry.commit_ms)
                }
                (None, _) => Some(entry.commit_ms),
                // A group's offsets live as long as it has members, and then for the retention time.
                (Some(_), State::Empty) if group.state_ms >= 0 => Some(group.state_ms),
                (Some(_), State::Empty) => Some(entry.commit_ms),
                (Some(_), State::Stable) => {
                    let left = subscribed.as_ref().is_some_and(|topics| !topics.contains(&**topic));
                    left.then_some(entry.commit_ms)
                }
                (Some(_), State::PreparingRebalance | State::CompletingRebalance) => None,
            };
            let is_over = since.is_some_and(|since| match entry.expire_ms {
                Some(at) => now_ms >= at,
                None => now_ms.saturating_sub(since) >= retention_ms,
            });
            if is_over {
                over.entry(topic.clone()).or_default().push(*partition);
            }
        }
    }
    let mut records = Vec::new();
    for (topic, partitions) in over {
        for partition in partitions {
            forget_offset(group, &topic, partition);
            records.push(tombstone(&group.id, &topic, partition));
        }
    }
    records
}
