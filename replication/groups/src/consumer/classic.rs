//! JoinGroup, SyncGroup and Heartbeat of members that speak the classic protocol within a group of the consumer protocol.
//! The server assigns to them as to all others: a JoinGroup is their word, a SyncGroup gives them what they have, and a
//! Heartbeat tells them when to come again. Rules of Kafka 4.3.1.

use super::beat::{Change, Records, changed, known, member_record};
use super::group::{About, Classic, ConsumerGroup, ConsumerMember};
use super::migrate::Next;
use super::reconcile::{Partitions, Progress};
use crate::budget::{Protocols, name_bytes};
use crate::embedded::{self, CONSUMER, Subscription};
use crate::group::Group;
use crate::machine::Desk;
use crate::messages::{Answer, Heartbeat, Join, JoinAnswer, Sync, SyncAnswer, Text, Ticket};
use crate::timers::Due;
use ringmill_types::ErrorCode;
use std::collections::BTreeSet;

/// A JoinGroup that may come in.
struct Comer<'a> {
    join: &'a Join,
    id: Text,
    subscription: Subscription,
    protocols: Protocols,
}

impl Desk {
    /// Parks or answers the request, unless it is refused.
    pub(crate) fn join_consumers(
        &mut self,
        group: &mut Group,
        ticket: Ticket,
        join: &Join,
    ) -> Result<(), ErrorCode> {
        let name = group.id.clone();
        let Some(consumer) = group.consumer.as_deref_mut() else {
            return Err(ErrorCode::UnknownServerError);
        };
        let id: Text = if join.member.is_empty() { join.fresh.as_str() } else { &join.member }.into();
        let is_member = consumer.members.contains_key(&id);
        self.check_room(consumer.members.len(), is_member).map_err(|refused| refused.code)?;
        if !consumer.accepts(&id, &join.protocol_type, &join.protocols) {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        if join.member.is_empty() && join.instance.is_none() && join.member_id_required {
            // It is not remembered: any id may join.
            let answer = crate::join::refused(ErrorCode::MemberIdRequired, id);
            self.answer(ticket, Answer::Join(answer));
            return Ok(());
        }
        let comer = self.comer(consumer, join, id)?;
        let owned = self.topics.known(&comer.subscription.owned);
        let replaced = replaced(consumer, join);
        let goes_back = replaced.as_ref().is_some_and(|before| self.ends_with(consumer, before));
        let mut records = Records::new();
        self.seat_classic(&name, consumer, &comer, replaced, &mut records)?;
        let id = comer.id.clone();
        let change = self.hear(consumer, comer);
        if goes_back && self.join_goes_back(group, ticket, &id, (change, &owned), &mut records) {
            return Ok(());
        }
        let Some(consumer) = group.consumer.as_deref_mut() else { return Ok(()) };
        if change != Change::None
            && let Some(member) = consumer.members.get(&id)
        {
            records.push(member_record(&name, member));
        }
        self.advance(&name, consumer, change == Change::Subscription, &mut records);
        self.reconcile(&name, consumer, &id, Some(&owned), &mut records);
        self.renew_consumer(&name, consumer, &id);
        let at_ms = self.after(join.rebalance_timeout_ms);
        let Some(member) = consumer.members.get_mut(&id) else { return Ok(()) };
        let answer = Answer::Join(joined(member));
        if let Some(classic) = &mut member.classic {
            classic.sync = Some(self.timers.add(at_ms, Due::Consumer(name, id)));
        }
        self.write_consumers(group, records, vec![(ticket, answer)]);
        Ok(())
    }

    /// What it says is read, and fits into its record and, besides what all others said, into memory.
    fn comer<'a>(&self, consumer: &ConsumerGroup, join: &'a Join, id: Text) -> Result<Comer<'a>, ErrorCode> {
        // Under each of its protocols a consumer says the same.
        let subscription = join.protocols.first().and_then(|(_, said)| Subscription::decode(said));
        let subscription = subscription.ok_or(ErrorCode::UnknownServerError)?;
        let list = join.protocols.iter().map(|(name, said)| (Text::from(name.as_str()), said.clone()));
        let protocols = Protocols::new(list.collect(), &self.budget);
        let topics: u64 = subscription.topics.iter().map(|topic| name_bytes(topic)).sum();
        let before = consumer.members.get(&id).map_or(0, ConsumerMember::words);
        // The protocols have their share already.
        let used = self.budget.used().saturating_sub(protocols.bytes());
        self.check_words(protocols.bytes() + topics, before, used).map_err(|refused| refused.code)?;
        Ok(Comer { join, id, subscription, protocols })
    }

    /// This member is the last one of the consumer protocol, and the group may go back without it.
    fn ends_with(&self, consumer: &ConsumerGroup, member: &Text) -> bool {
        let is_last = consumer.members.get(member).is_some_and(|m| m.classic.is_none());
        is_last
            && consumer.members.len() <= self.config.size_max
            && self.goes_back(consumer, &BTreeSet::from([member.clone()]))
    }

    /// The member's place in the group, made or taken over.
    fn seat_classic(
        &mut self,
        name: &Text,
        consumer: &mut ConsumerGroup,
        comer: &Comer<'_>,
        replaced: Option<Text>,
        records: &mut Records,
    ) -> Result<(), ErrorCode> {
        let (id, instance) = (&comer.id, comer.join.instance.as_deref());
        match (replaced, instance) {
            (Some(before), _) => {
                self.take_over(name, consumer, &before, id, records);
                Ok(())
            }
            (None, Some(_)) if !comer.join.member.is_empty() => {
                known(consumer, id, instance).map(drop).map_err(|refused| refused.code)
            }
            (None, None) if consumer.members.contains_key(id) => Ok(()),
            (None, _) => {
                consumer.add(ConsumerMember::new(id.clone(), instance.map(Into::into)));
                Ok(())
            }
        }
    }

    /// Takes in what the member says.
    fn hear(&mut self, consumer: &mut ConsumerGroup, comer: Comer<'_>) -> Change {
        let Comer { join, id, subscription, protocols } = comer;
        let names: BTreeSet<Text> = subscription.topics.iter().map(|t| t.as_str().into()).collect();
        let names = consumer.share(names.into());
        let Some(member) = consumer.members.get_mut(&id) else { return Change::None };
        let mut about = About {
            client_id: join.client_id.clone(),
            client_host: join.client_host.clone(),
            topics: names,
            // There are no patterns in the classic protocol: its consumers match topics themselves.
            regex: Some(String::new()),
            ..member.about.clone()
        };
        if subscription.rack.is_some() {
            about.rack = subscription.rack;
        }
        if join.rebalance_timeout_ms != -1 {
            about.rebalance_timeout_ms = join.rebalance_timeout_ms;
        }
        let before = std::mem::replace(&mut member.about, about);
        member.said = self.budget.share(member.about.said_bytes());
        let classic = Classic::new(join.session_timeout_ms, protocols);
        let is_same = |old: &Classic| {
            old.session_timeout_ms == classic.session_timeout_ms && old.protocols == classic.protocols
        };
        let is_same = member.classic.as_ref().is_some_and(is_same);
        let change = changed(&before, &member.about);
        for timer in member.classic.replace(classic).iter_mut().flat_map(Classic::take_timers) {
            self.timers.cancel(timer);
        }
        if change == Change::None && !is_same { Change::Told } else { change }
    }

    /// A static member came back with the classic protocol, and no other speaks the consumer's now: the group goes back.
    /// Without a rebalance when everybody has what it should.
    fn join_goes_back(
        &mut self,
        group: &mut Group,
        ticket: Ticket,
        id: &Text,
        (change, owned): (Change, &Partitions),
        records: &mut Records,
    ) -> bool {
        let name = group.id.clone();
        let Some(consumer) = group.consumer.as_deref_mut() else { return false };
        let mut stays = change != Change::Subscription;
        if stays {
            self.reconcile(&name, consumer, id, Some(owned), records);
            stays = consumer.is_at_rest() && consumer.hash_of(&self.topics) == consumer.topics_hash;
        }
        let next = if stays { Next::Stay(ticket, id.clone()) } else { Next::Rebalance };
        if !self.downgrade(group, &BTreeSet::new(), next) {
            return false;
        }
        if !stays {
            if let Some(member) = group.members.get_mut(id) {
                member.joining = Some(ticket);
            }
            self.prepare_rebalance(group);
        }
        true
    }

    /// A SyncGroup: what the member has, once that is durable.
    pub(crate) fn sync_consumers(
        &mut self,
        group: &mut Group,
        ticket: Ticket,
        sync: &Sync,
    ) -> Result<(), ErrorCode> {
        let name = group.id.clone();
        let Some(consumer) = group.consumer.as_deref_mut() else { return Err(ErrorCode::UnknownMemberId) };
        let id = spoken_for(consumer, &sync.member, sync.instance.as_deref(), sync.generation)?;
        let epoch = consumer.epoch;
        let Some(member) = consumer.members.get_mut(&id) else { return Err(ErrorCode::UnknownMemberId) };
        let Some(classic) = &mut member.classic else { return Err(ErrorCode::UnknownMemberId) };
        let differs = |said: &Option<String>, is: &str| said.as_deref().is_some_and(|said| said != is);
        let protocol = classic.protocol().cloned().unwrap_or_else(|| "".into());
        if differs(&sync.protocol_type, CONSUMER) || differs(&sync.protocol, &protocol) {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        // One that has something to give up has joined already: it comes again by itself when it gave that up.
        if epoch > member.standing.epoch && member.standing.progress != Progress::Unrevoked {
            self.wait_for_join(&name, member);
            return Err(ErrorCode::RebalanceInProgress);
        }
        self.timers.cancel(classic.sync.take());
        let assigned = member.standing.assigned.iter().flat_map(|(t, held)| held.keys().map(|p| (*t, *p)));
        let assignment = embedded::assignment(classic.version(), &self.topics.named(assigned));
        self.renew_consumer(&name, consumer, &id);
        let answer = SyncAnswer {
            error: ErrorCode::None,
            protocol_type: sync.protocol_type.as_deref().map(Into::into),
            protocol: sync.protocol.as_deref().map(Into::into),
            assignment,
        };
        self.write_consumers(group, Records::new(), vec![(ticket, Answer::Sync(answer))]);
        Ok(())
    }

    /// A Heartbeat: the member lives, and is told when it has to join again.
    pub(crate) fn beat_consumers(&mut self, group: &mut Group, beat: &Heartbeat) -> Result<(), ErrorCode> {
        let name = group.id.clone();
        let Some(consumer) = group.consumer.as_deref_mut() else { return Err(ErrorCode::UnknownMemberId) };
        let id = spoken_for(consumer, &beat.member, beat.instance.as_deref(), beat.generation)?;
        self.renew_consumer(&name, consumer, &id);
        let mut records = Records::new();
        // Perhaps nobody speaks the consumer protocol, and no leader watches topics here.
        if consumer.topics_version != Some(self.topics.version) {
            self.advance(&name, consumer, false, &mut records);
        }
        let has_to_join = consumer.members.get(&id).is_some_and(|m| consumer.has_to_join(m));
        if has_to_join && let Some(member) = consumer.members.get_mut(&id) {
            self.wait_for_join(&name, member);
        }
        self.write_consumers(group, records, Vec::new());
        if has_to_join { Err(ErrorCode::RebalanceInProgress) } else { Ok(()) }
    }

    /// A member that was told to join again and does not is out.
    fn wait_for_join(&mut self, name: &Text, member: &mut ConsumerMember) {
        let at_ms = self.after(member.about.rebalance_timeout_ms);
        let due = Due::Consumer(name.clone(), member.id.clone());
        if let Some(classic) = &mut member.classic
            && classic.join.is_none()
        {
            classic.join = Some(self.timers.add(at_ms, due));
        }
    }
}

/// The static member whose place a new one takes.
fn replaced(consumer: &ConsumerGroup, join: &Join) -> Option<Text> {
    let instance = join.instance.as_deref().filter(|_| join.member.is_empty())?;
    consumer.statics.get(instance).cloned()
}

/// The id of a member of the classic protocol in its generation.
fn spoken_for(
    consumer: &ConsumerGroup,
    member: &str,
    instance: Option<&str>,
    generation: i32,
) -> Result<Text, ErrorCode> {
    let member = known(consumer, member, instance).map_err(|refused| refused.code)?;
    if member.classic.is_none() {
        return Err(ErrorCode::UnknownMemberId);
    }
    if member.standing.epoch != generation {
        return Err(ErrorCode::IllegalGeneration);
    }
    Ok(member.id.clone())
}

/// Nobody leads, and nobody has to assign.
fn joined(member: &ConsumerMember) -> JoinAnswer {
    JoinAnswer {
        error: ErrorCode::None,
        generation: member.standing.epoch,
        protocol_type: Some(CONSUMER.into()),
        protocol: member.classic.as_ref().and_then(Classic::protocol).cloned(),
        leader: "".into(),
        skip_assignment: false,
        member: member.id.clone(),
        members: Vec::new(),
    }
}
