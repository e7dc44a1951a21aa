//! SyncGroup and Heartbeat: members of a generation get their assignment, and show that they live.

use crate::group::{Group, State};
use crate::machine::{Desk, Groups, UnderWay, sync_refused};
use crate::messages::{Answer, Heartbeat, Sync, Text, Ticket};
use bytes::Bytes;
use ringmill_types::ErrorCode;
use std::collections::BTreeMap;

impl Groups {
    pub(crate) fn sync(&mut self, ticket: Ticket, sync: Sync) {
        let group = self.groups.get_mut(sync.group.as_str());
        let result = match group {
            _ if sync.group.is_empty() => Err(ErrorCode::InvalidGroupId),
            None => Err(ErrorCode::UnknownMemberId),
            Some(group) if group.consumer.is_some() => self.desk.sync_consumers(group, ticket, &sync),
            Some(group) => check_sync(group, &sync).map(|()| self.desk.sync_group(group, ticket, sync)),
        };
        if let Err(error) = result {
            self.desk.answer(ticket, sync_refused(error));
        }
    }

    pub(crate) fn heartbeat(&mut self, beat: &Heartbeat) -> Result<(), ErrorCode> {
        if beat.group.is_empty() {
            return Err(ErrorCode::InvalidGroupId);
        }
        let group = self.groups.get_mut(beat.group.as_str()).ok_or(ErrorCode::UnknownMemberId)?;
        if group.consumer.is_some() {
            return self.desk.beat_consumers(group, beat);
        }
        group.check_member(&beat.member, beat.instance.as_deref())?;
        if group.generation != beat.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        match group.state {
            State::Empty => Err(ErrorCode::UnknownMemberId),
            State::PreparingRebalance => {
                self.desk.renew_session(group, &beat.member);
                Err(ErrorCode::RebalanceInProgress)
            }
            // A follower may ask before its assignment is there.
            State::CompletingRebalance | State::Stable => {
                self.desk.renew_session(group, &beat.member);
                Ok(())
            }
        }
    }
}

fn check_sync(group: &Group, sync: &Sync) -> Result<(), ErrorCode> {
    group.check_member(&sync.member, sync.instance.as_deref())?;
    if group.generation != sync.generation {
        return Err(ErrorCode::IllegalGeneration);
    }
    let differs =
        |said: &Option<String>, is: &Option<Text>| said.is_some() && said.as_deref() != is.as_deref();
    if differs(&sync.protocol_type, &group.protocol_type) || differs(&sync.protocol, &group.protocol) {
        return Err(ErrorCode::InconsistentGroupProtocol);
    }
    match group.state {
        State::Empty => Err(ErrorCode::UnknownMemberId),
        State::PreparingRebalance => Err(ErrorCode::RebalanceInProgress),
        State::CompletingRebalance | State::Stable => Ok(()),
    }
}

impl Desk {
    /// A checked SyncGroup.
    fn sync_group(&mut self, group: &mut Group, ticket: Ticket, sync: Sync) {
        group.pending_sync.remove(sync.member.as_str());
        let Some(member) = group.members.get_mut(sync.member.as_str()) else { return };
        if group.state == State::Stable {
            let assignment = member.assignment.clone();
            self.renew_session(group, &sync.member);
            let answer = group.synced(assignment);
            return self.answer(ticket, Answer::Sync(answer));
        }
        if let Some(earlier) = member.syncing.replace(ticket) {
            self.answer(earlier, sync_refused(ErrorCode::RebalanceInProgress));
        }
        // What the leader asks for the second time is under way already.
        if !group.is_leader(&sync.member) || group.assigning.is_some() {
            return;
        }
        let mut given: BTreeMap<String, Bytes> = sync.assignments.into_iter().collect();
        let assignments =
            group.members.keys().map(|id| (id.clone(), given.remove(&**id).unwrap_or_default()));
        let assignments: BTreeMap<Text, Bytes> = assignments.collect();
        let mut value = group.value(|m| assignments.get(&m.id).cloned().unwrap_or_default());
        value.state_ms = self.now.wall_ms;
        let then =
            UnderWay::Assignment { group: group.id.clone(), generation: group.generation, assignments };
        group.assigning = Some(self.write_classic(group, &value, then));
    }

    /// The generation's assignments are durable, or are not.
    pub(crate) fn assigned(
        &mut self,
        group: &mut Group,
        outcome: Result<(), ErrorCode>,
        mut assignments: BTreeMap<Text, Bytes>,
    ) {
        group.assigning = None;
        if let Err(error) = outcome {
            self.drop_assignment(group, error);
            return self.prepare_rebalance(group);
        }
        group.enter(State::Stable, self.now.wall_ms);
        let members: Vec<Text> = group.members.keys().cloned().collect();
        for id in members {
            let Some(member) = group.members.get_mut(&id) else { continue };
            member.assignment = assignments.remove(&id).unwrap_or_default();
            let assignment = member.assignment.clone();
            if let Some(ticket) = member.syncing.take() {
                self.renew_session(group, &id);
                let answer = group.synced(assignment);
                self.answer(ticket, Answer::Sync(answer));
            }
        }
    }
}
