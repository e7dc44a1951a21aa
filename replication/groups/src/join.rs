//! JoinGroup: who may be in the group, and what its arrival leads to. Rules of Kafka 4.3's classic groups.

use crate::budget::{Protocols, RECORDS_OF_A_GROUP};
use crate::group::{Group, Member, State};
use crate::machine::{Desk, Groups, UnderWay};
use crate::messages::{Answer, Join, JoinAnswer, Text, Ticket};
use crate::timers::Due;
use bytes::Bytes;
use ringmill_types::ErrorCode;

/// A JoinGroup that did not work out.
pub(crate) fn refused(error: ErrorCode, member: Text) -> JoinAnswer {
    JoinAnswer {
        error,
        generation: -1,
        protocol_type: None,
        protocol: None,
        leader: "".into(),
        skip_assignment: false,
        member,
        members: Vec::new(),
    }
}

impl Groups {
    pub(crate) fn join(&mut self, ticket: Ticket, join: Join) {
        if let Err((error, member)) = self.try_join(ticket, join) {
            self.desk.answer(ticket, Answer::Join(refused(error, member)));
        }
    }

    /// Parks or answers the request, unless it is refused.
    fn try_join(&mut self, ticket: Ticket, join: Join) -> Result<(), (ErrorCode, Text)> {
        let member: Text = join.member.as_str().into();
        let config = &self.desk.config;
        if join.group.is_empty() {
            return Err((ErrorCode::InvalidGroupId, member));
        }
        if !(config.session_timeout_ms_min..=config.session_timeout_ms_max).contains(&join.session_timeout_ms)
        {
            return Err((ErrorCode::InvalidSessionTimeout, member));
        }
        let is_unknown = member.is_empty();
        let is_new_group = !self.groups.contains_key(join.group.as_str());
        if is_new_group && !is_unknown {
            return Err((ErrorCode::UnknownMemberId, member));
        }
        let group = self.group_or_simple(join.group.as_str().into());
        let id = group.id.clone();
        let Some(group) = self.groups.get_mut(&id) else { return Ok(()) };
        let desk = &mut self.desk;
        if group.consumer.as_ref().is_some_and(|c| !c.members.is_empty()) {
            // Refusals name nobody there, as in Kafka.
            return desk.join_consumers(group, ticket, &join).map_err(|error| (error, "".into()));
        }
        desk.becomes_classic(group);
        let written = desk.out.writes.len();
        let result = if desk.has_room(group, &member) {
            let protocols = join.protocols.iter().map(|(name, m)| (Text::from(name.as_str()), m.clone()));
            let protocols = Protocols::new(protocols.collect(), &desk.budget);
            if !group.accepts(&join.protocol_type, &protocols) {
                Err((ErrorCode::InconsistentGroupProtocol, member))
            } else if let Err(error) = desk.check_said(group, &member, protocols.bytes()) {
                Err((error, member))
            } else if is_unknown {
                desk.join_new(group, ticket, &join, protocols)
            } else {
                desk.join_known(group, ticket, &join, member, protocols)
            }
        } else {
            if let Some(timer) = group.pending_join.remove(&member) {
                desk.timers.cancel(Some(timer));
            }
            desk.expel(group, &member, ErrorCode::UnknownMemberId);
            Err((ErrorCode::GroupMaxSizeReached, "".into()))
        };
        if is_new_group && desk.out.writes.len() == written {
            if result.is_ok() {
                // From now on the group exists, even when its first members never come back.
                desk.write_new_group(group);
            } else {
                self.groups.remove(&id);
            }
        }
        result
    }
}

impl Desk {
    fn has_room(&self, group: &Group, member: &str) -> bool {
        let max = self.config.size_max;
        match group.state {
            State::Empty => true,
            State::PreparingRebalance => {
                group.members.get(member).is_some_and(|m| m.joining.is_some()) || group.awaiting_join() < max
            }
            State::CompletingRebalance | State::Stable => {
                group.members.contains_key(member) || group.members.len() < max
            }
        }
    }

    /// What this member says fits into the group's records and into memory, besides what all others said; its own words
    /// of before are still counted.
    fn check_said(&self, group: &Group, member: &str, said: u64) -> Result<(), ErrorCode> {
        let before = group.members.get(member).map_or(0, |m| m.protocols.bytes());
        let of_group = group.said_bytes() - before + said;
        if of_group > self.config.record_bytes_max.saturating_mul(RECORDS_OF_A_GROUP) {
            Err(ErrorCode::GroupMaxSizeReached)
        } else if self.budget.used() - before > self.config.said_bytes_max {
            // Others may leave.
            Err(ErrorCode::CoordinatorNotAvailable)
        } else {
            Ok(())
        }
    }

    fn join_new(
        &mut self,
        group: &mut Group,
        ticket: Ticket,
        join: &Join,
        protocols: Protocols,
    ) -> Result<(), (ErrorCode, Text)> {
        let prefix = join.instance.as_deref().unwrap_or(&join.client_id);
        let id: Text = format!("{prefix}-{}", join.fresh).into();
        if let Some(instance) = &join.instance {
            if let Some(old) = group.statics.get(instance.as_str()).cloned() {
                self.replace_static(group, ticket, join, (&old, id), protocols);
                return Ok(());
            }
        } else if join.member_id_required {
            let due = Due::Member(group.id.clone(), id.clone());
            let timer = self.timers.add(self.after(join.session_timeout_ms), due);
            group.pending_join.insert(id.clone(), timer);
            self.answer(ticket, Answer::Join(refused(ErrorCode::MemberIdRequired, id)));
            return Ok(());
        }
        self.add_member(group, ticket, join, id, protocols);
        Ok(())
    }

    fn join_known(
        &mut self,
        group: &mut Group,
        ticket: Ticket,
        join: &Join,
        id: Text,
        protocols: Protocols,
    ) -> Result<(), (ErrorCode, Text)> {
        if join.instance.is_none()
            && let Some(timer) = group.pending_join.remove(&id)
        {
            self.timers.cancel(Some(timer));
            self.add_member(group, ticket, join, id, protocols);
            return Ok(());
        }
        group.check_member(&id, join.instance.as_deref()).map_err(|error| (error, id.clone()))?;
        let same = group.members.get(&id).is_some_and(|m| m.protocols == protocols);
        let rejoins = match group.state {
            State::Empty => return Err((ErrorCode::UnknownMemberId, id)),
            State::PreparingRebalance => true,
            // The answer may have been lost: an unchanged member is told again.
            State::CompletingRebalance => !same,
            State::Stable => group.is_leader(&id) || !same,
        };
        if rejoins {
            self.update_member(group, &id, ticket, join, protocols);
            self.rebalance_or_complete(group);
        } else {
            let answer = group.joined(&id);
            self.answer(ticket, Answer::Join(answer));
        }
        Ok(())
    }

    fn add_member(&mut self, group: &mut Group, ticket: Ticket, join: &Join, id: Text, protocols: Protocols) {
        if group.state == State::PreparingRebalance && group.previous == State::Empty {
            group.new_member_added = true;
        }
        let member = Member {
            id: id.clone(),
            instance: join.instance.as_deref().map(Into::into),
            client_id: join.client_id.clone(),
            client_host: join.client_host.clone(),
            session_timeout_ms: join.session_timeout_ms,
            rebalance_timeout_ms: join.rebalance_timeout_ms,
            protocols,
            assignment: Bytes::new(),
            joining: Some(ticket),
            syncing: None,
            is_new: true,
            timer: None,
        };
        group.add(member, &join.protocol_type);
        self.renew_session(group, &id);
        self.rebalance_or_complete(group);
    }

    /// The member's newest word, and the request that waits for the next generation.
    fn update_member(
        &mut self,
        group: &mut Group,
        id: &str,
        ticket: Ticket,
        join: &Join,
        protocols: Protocols,
    ) {
        let Some(member) = group.members.get_mut(id) else { return };
        member.protocols = protocols;
        member.session_timeout_ms = join.session_timeout_ms;
        member.rebalance_timeout_ms = join.rebalance_timeout_ms;
        if let Some(earlier) = member.joining.replace(ticket) {
            // Asked again on another connection; nobody listens on the first, but it is answered.
            let answer = refused(ErrorCode::RebalanceInProgress, member.id.clone());
            self.answer(earlier, Answer::Join(answer));
        }
    }

    /// A static member came back under a new id (KIP-345): it takes the old one's place, without a rebalance when that
    /// changes nothing.
    fn replace_static(
        &mut self,
        group: &mut Group,
        ticket: Ticket,
        join: &Join,
        (old, id): (&Text, Text),
        protocols: Protocols,
    ) {
        let Some(mut member) = group.members.remove(old) else { return };
        let was_leader = group.is_leader(old);
        self.timers.cancel(member.timer.take());
        if let Some(parked) = member.joining.take() {
            self.answer(parked, Answer::Join(refused(ErrorCode::FencedInstanceId, old.clone())));
        }
        if let Some(parked) = member.syncing.take() {
            self.answer(parked, crate::machine::sync_refused(ErrorCode::FencedInstanceId));
        }
        if group.pending_sync.remove(old) {
            group.pending_sync.insert(id.clone());
        }
        member.id = id.clone();
        member.is_new = false;
        if let Some(instance) = &member.instance {
            group.statics.insert(instance.clone(), id.clone());
        }
        if was_leader {
            group.leader = Some(id.clone());
        }
        group.members.insert(id.clone(), member);
        self.renew_session(group, &id);
        match group.state {
            State::Stable => {
                if let Some(member) = group.members.get_mut(&id) {
                    member.protocols = protocols.clone();
                    member.session_timeout_ms = join.session_timeout_ms;
                    member.rebalance_timeout_ms = join.rebalance_timeout_ms;
                }
                if group.choose_protocol() == group.protocol {
                    self.keep_generation(group, ticket, join, &id, was_leader.then(|| old.clone()));
                } else {
                    self.update_member(group, &id, ticket, join, protocols);
                    self.rebalance_or_complete(group);
                }
            }
            State::CompletingRebalance => {
                self.update_member(group, &id, ticket, join, protocols);
                self.prepare_rebalance(group);
            }
            State::PreparingRebalance | State::Empty => {
                self.update_member(group, &id, ticket, join, protocols);
                self.complete_if_all_joined(group);
            }
        }
    }

    /// The new id is stored, and only then told.
    fn keep_generation(
        &mut self,
        group: &mut Group,
        ticket: Ticket,
        join: &Join,
        id: &Text,
        led: Option<Text>,
    ) {
        let mut answer = group.joined(id);
        match led {
            Some(_) if join.can_skip_assignment => answer.skip_assignment = true,
            // An older client must not believe that it has to assign: it is shown its former self as the leader.
            Some(old) => {
                answer.leader = old;
                answer.members.clear();
            }
            None => {}
        }
        let value = group.value(|m| m.assignment.clone());
        self.write_classic(group, &value, UnderWay::Static(ticket, Answer::Join(answer)));
    }
}
