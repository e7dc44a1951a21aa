//! From one generation to the next: waiting for members, leaving behind those that do not come, and telling the rest.

use crate::group::{Group, State};
use crate::machine::{Desk, Groups, can_rebalance, sync_refused};
use crate::messages::{Answer, Text};
use crate::timers::Due;
use ringmill_types::ErrorCode;

/// Shortest wait for members, whatever they ask for: a group must not keep its coordinator spinning.
const WAIT_MS_MIN: u64 = 100;

impl Desk {
    pub(crate) fn rebalance_or_complete(&mut self, group: &mut Group) {
        if can_rebalance(group.state) {
            self.prepare_rebalance(group);
        } else {
            self.complete_if_all_joined(group);
        }
    }

    pub(crate) fn prepare_rebalance(&mut self, group: &mut Group) {
        if group.state == State::CompletingRebalance {
            self.drop_assignment(group, ErrorCode::RebalanceInProgress);
        }
        self.timers.cancel(group.sync_timer.take());
        let is_initial = group.state == State::Empty;
        group.enter(State::PreparingRebalance, self.now.wall_ms);
        if is_initial {
            let delay_ms = u64::try_from(self.config.initial_rebalance_delay_ms).unwrap_or(0);
            let left_ms = group.rebalance_timeout_ms().saturating_sub(delay_ms);
            group.new_member_added = false;
            let due = Due::Initial { group: group.id.clone(), delay_ms, left_ms };
            group.join_timer = Some(self.timers.add(self.now.mono_ms.saturating_add(delay_ms), due));
        } else if group.all_joined() {
            self.complete_join(group);
        } else {
            self.wait_for_joins(group);
        }
    }

    fn wait_for_joins(&mut self, group: &mut Group) {
        self.timers.cancel(group.join_timer.take());
        let at_ms = self.now.mono_ms.saturating_add(group.rebalance_timeout_ms().max(WAIT_MS_MIN));
        group.join_timer = Some(self.timers.add(at_ms, Due::Join(group.id.clone())));
    }

    /// An empty group gives its first members time to find each other, up to their rebalance timeout.
    pub(crate) fn initial_delay_over(&mut self, group: &mut Group, delay_ms: u64, left_ms: u64) {
        group.join_timer = None;
        if !group.new_member_added || left_ms == 0 {
            return self.complete_join(group);
        }
        group.new_member_added = false;
        let next_ms = delay_ms.min(left_ms);
        let due = Due::Initial {
            group: group.id.clone(),
            delay_ms: next_ms,
            left_ms: left_ms.saturating_sub(delay_ms),
        };
        group.join_timer = Some(self.timers.add(self.now.mono_ms.saturating_add(next_ms), due));
    }

    pub(crate) fn complete_if_all_joined(&mut self, group: &mut Group) {
        if group.state == State::PreparingRebalance && group.previous != State::Empty && group.all_joined() {
            self.complete_join(group);
        }
    }

    /// The next generation begins with those that joined. Static members keep their place until their session ends.
    pub(crate) fn complete_join(&mut self, group: &mut Group) {
        self.timers.cancel(group.join_timer.take());
        if group.state != State::PreparingRebalance {
            return;
        }
        let gone = group.members.values().filter(|m| m.joining.is_none() && m.instance.is_none());
        let gone: Vec<Text> = gone.map(|m| m.id.clone()).collect();
        for member in gone {
            self.expel(group, &member, ErrorCode::UnknownMemberId);
        }
        if !group.elect() && !group.members.is_empty() {
            // Only absent static members: their sessions decide.
            return self.wait_for_joins(group);
        }
        group.generation = group.generation.checked_add(1).unwrap_or(1);
        self.rebalances += 1;
        if group.members.is_empty() {
            group.protocol = None;
            group.leader = None;
            group.pending_sync.clear();
            group.enter(State::Empty, self.now.wall_ms);
            self.write_group(group);
            return;
        }
        group.protocol = group.choose_protocol();
        group.enter(State::CompletingRebalance, self.now.wall_ms);
        self.tell_joined(group);
        let at_ms = self.now.mono_ms.saturating_add(group.rebalance_timeout_ms().max(WAIT_MS_MIN));
        self.timers.cancel(group.sync_timer.take());
        group.sync_timer = Some(self.timers.add(at_ms, Due::Sync(group.id.clone(), group.generation)));
    }

    fn tell_joined(&mut self, group: &mut Group) {
        let members: Vec<Text> = group.members.keys().cloned().collect();
        for id in members {
            let answer = group.joined(&id);
            let Some(member) = group.members.get_mut(&id) else { continue };
            member.is_new = false;
            let parked = member.joining.take();
            group.pending_sync.insert(id.clone());
            self.renew_session(group, &id);
            if let Some(ticket) = parked {
                self.answer(ticket, Answer::Join(answer));
            }
        }
    }

    /// Parked SyncGroups are told to join again; the assignment under way is nobody's.
    pub(crate) fn drop_assignment(&mut self, group: &mut Group, error: ErrorCode) {
        group.assigning = None;
        let members: Vec<Text> = group.members.keys().cloned().collect();
        for id in members {
            let Some(member) = group.members.get_mut(&id) else { continue };
            if let Some(ticket) = member.syncing.take() {
                self.answer(ticket, sync_refused(error));
                self.renew_session(group, &id);
            }
        }
    }

    /// Members that did not ask for their assignment in time are left behind.
    pub(crate) fn sync_over(&mut self, group: &mut Group, generation: i32) {
        group.sync_timer = None;
        if group.generation != generation || group.pending_sync.is_empty() {
            return;
        }
        match group.state {
            State::Empty | State::PreparingRebalance => {}
            State::CompletingRebalance | State::Stable => {
                for member in std::mem::take(&mut group.pending_sync) {
                    self.expel(group, &member, ErrorCode::UnknownMemberId);
                }
                self.prepare_rebalance(group);
            }
        }
    }

    /// Takes a member out and answers what it waits for.
    pub(crate) fn expel(&mut self, group: &mut Group, id: &str, error: ErrorCode) {
        let Some(mut member) = group.remove(id) else { return };
        self.timers.cancel(member.timer.take());
        if let Some(ticket) = member.joining.take() {
            self.answer(ticket, Answer::Join(crate::join::refused(error, "".into())));
        }
        if let Some(ticket) = member.syncing.take() {
            self.answer(ticket, sync_refused(error));
        }
    }

    /// The same, and the group goes on without it.
    pub(crate) fn remove_member(&mut self, group: &mut Group, id: &str) {
        self.expel(group, id, ErrorCode::UnknownMemberId);
        match group.state {
            State::Empty => {}
            State::Stable | State::CompletingRebalance => self.prepare_rebalance(group),
            State::PreparingRebalance => self.complete_if_all_joined(group),
        }
    }
}

impl Groups {
    pub(crate) fn session_over(&mut self, group: &str, id: &str) {
        let Some(group) = self.groups.get_mut(group) else { return };
        if group.pending_join.remove(id).is_some() {
            return self.desk.complete_if_all_joined(group);
        }
        let Some(member) = group.members.get_mut(id) else { return };
        member.timer = None;
        // Who waits for the group cannot send heartbeats; a new member may have gone without anyone knowing.
        if !member.is_new && (member.joining.is_some() || member.syncing.is_some()) {
            return;
        }
        self.desk.remove_member(group, id);
    }
}
