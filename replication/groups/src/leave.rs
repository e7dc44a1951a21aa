//! LeaveGroup and DeleteGroups.

use crate::group::{Group, State};
use crate::machine::{Deletion, Desk, Groups, TOMBSTONES_PER_WRITE, UnderWay};
use crate::messages::{Answer, Identity, Leave, Text, Ticket};
use crate::records::Key;
use bytes::Bytes;
use ringmill_types::ErrorCode;
use std::collections::BTreeSet;

impl Groups {
    pub(crate) fn leave(&mut self, ticket: Ticket, leave: Leave) {
        let error = match self.groups.get_mut(leave.group.as_str()) {
            _ if leave.group.is_empty() => ErrorCode::InvalidGroupId,
            None => {
                let results = leave.members.into_iter().map(|who| (who, ErrorCode::UnknownMemberId));
                let answer = Answer::Leave(ErrorCode::None, results.collect());
                return self.desk.answer(ticket, answer);
            }
            Some(group) if group.consumer.is_some() => {
                return self.desk.consumers_leave(group, ticket, leave.members);
            }
            Some(group) => {
                let desk = &mut self.desk;
                let before = group.members.len();
                let results = leave.members.into_iter().map(|who| {
                    let code = desk.leave_one(group, &who).err().unwrap_or(ErrorCode::None);
                    (who, code)
                });
                let results = results.collect();
                desk.departed(group, group.members.len() < before);
                return desk.answer(ticket, Answer::Leave(ErrorCode::None, results));
            }
        };
        self.desk.answer(ticket, Answer::Leave(error, Vec::new()));
    }

    pub(crate) fn delete_groups(&mut self, ticket: Ticket, names: Vec<String>) {
        let mut deletion = Deletion { results: Vec::new(), left: 0 };
        for (place, name) in names.into_iter().enumerate() {
            let code = match self.groups.get(name.as_str()) {
                None => ErrorCode::GroupIdNotFound,
                Some(group) if !group.is_empty() => ErrorCode::NonEmptyGroup,
                Some(_) => {
                    deletion.left += self.delete_group(ticket, place, &name);
                    ErrorCode::None
                }
            };
            deletion.results.push((name, code));
        }
        if deletion.left == 0 {
            return self.desk.answer(ticket, Answer::DeleteGroups(deletion.results));
        }
        self.desk.deletions.insert(ticket, deletion);
    }

    /// Gone at once, answered when the tombstones are durable. Gives the number of writes.
    fn delete_group(&mut self, ticket: Ticket, place: usize, name: &str) -> usize {
        let Some(mut group) = self.groups.remove(name) else { return 0 };
        for (_, timer) in std::mem::take(&mut group.pending_join) {
            self.desk.timers.cancel(Some(timer));
        }
        let mut offsets: BTreeSet<(Text, i32)> = BTreeSet::new();
        for (topic, partitions) in &group.offsets {
            offsets.extend(partitions.keys().map(|p| (topic.clone(), *p)));
        }
        // Commits under way stay in the log before these tombstones: they are answered, and do not make the group anew.
        for under_way in self.desk.under_way.values_mut() {
            if let UnderWay::Offsets { group: of, offsets: committed, .. } = under_way
                && *of == group.id
            {
                offsets.extend(committed.drain(..).map(|(topic, partition, _)| (topic, partition)));
            }
        }
        let mut records: Vec<(Bytes, Option<Bytes>)> =
            offsets.into_iter().map(|(topic, partition)| tombstone(&group.id, &topic, partition)).collect();
        records.extend(group.tombstones());
        let id = group.id.clone();
        let mut group = Some(Box::new(group));
        let mut writes = 0;
        for chunk in records.chunks(TOMBSTONES_PER_WRITE) {
            let then = UnderWay::GroupDeleted { ticket, place, group: group.take() };
            self.desk.write(&id, chunk.to_vec(), then);
            writes += 1;
        }
        writes
    }

    pub(crate) fn deletion_settled(
        &mut self,
        ticket: Ticket,
        place: usize,
        group: Option<Box<Group>>,
        outcome: Result<(), ErrorCode>,
    ) {
        if let (Err(_), Some(mut group)) = (outcome, group) {
            if let Some(burial) = &mut group.burial {
                burial.write = None;
            }
            self.groups.entry(group.id.clone()).or_insert(*group);
        }
        let Some(deletion) = self.desk.deletions.get_mut(&ticket) else { return };
        if let (Err(error), Some((_, code))) = (outcome, deletion.results.get_mut(place)) {
            *code = error;
        }
        deletion.left -= 1;
        if deletion.left == 0
            && let Some(deletion) = self.desk.deletions.remove(&ticket)
        {
            self.desk.answer(ticket, Answer::DeleteGroups(deletion.results));
        }
    }
}

pub(crate) fn tombstone(group: &str, topic: &str, partition: i32) -> (Bytes, Option<Bytes>) {
    let key = Key::Offset { group: group.to_string(), topic: topic.to_string(), partition };
    (key.encode(), None)
}

impl Desk {
    /// Takes one member out; what the group does about it follows when all have left.
    fn leave_one(&mut self, group: &mut Group, who: &Identity) -> Result<(), ErrorCode> {
        let id = match (&who.instance, who.member.as_str()) {
            // An operator takes out a static member by its instance alone.
            (Some(instance), "") => group.statics.get(instance.as_str()).cloned(),
            (None, id) => {
                if let Some(timer) = group.pending_join.remove(id) {
                    self.timers.cancel(Some(timer));
                    return Ok(());
                }
                Some(Text::from(id))
            }
            (Some(_), id) => Some(Text::from(id)),
        };
        let id = id.ok_or(ErrorCode::UnknownMemberId)?;
        group.check_member(&id, who.instance.as_deref())?;
        self.expel(group, &id, ErrorCode::UnknownMemberId);
        Ok(())
    }

    fn departed(&mut self, group: &mut Group, any: bool) {
        match group.state {
            State::Empty => {}
            // A generation does not end because an id was given back that never joined.
            State::Stable | State::CompletingRebalance => {
                if any {
                    self.prepare_rebalance(group);
                }
            }
            State::PreparingRebalance => self.complete_if_all_joined(group),
        }
    }
}
