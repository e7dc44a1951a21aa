//! ConsumerGroupHeartbeat: a member says what changed, and is told what it has. Rules of Kafka 4.3.1.

use super::assign::{Asking, RANGE, UNIFORM, assign};
use super::group::{About, Classic, ConsumerGroup, ConsumerMember, LEAVES, RETURNS};
use super::reconcile::{self, Owned, Partitions, Progress, Standing};
use super::subscribe::{Matched, Pattern};
use crate::group::{Group, State};
use crate::machine::{Desk, Groups};
use crate::messages::{Answer, ConsumerAnswer, ConsumerBeat, Refused, Text, Ticket};
use crate::records::{ClassicValue, ConsumerValue, Key, encode_standing, encode_target};
use crate::timers::Due;
use bytes::Bytes;
use ringmill_types::ErrorCode;
use std::collections::BTreeSet;

pub(super) type Records = Vec<(Bytes, Option<Bytes>)>;

pub(super) fn refuse(code: ErrorCode, reason: impl Into<String>) -> Refused {
    Refused { code, reason: reason.into() }
}

/// Whether a subscription, or what it means, is another than before.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    None,
    /// Worth a record, but no new target.
    Told,
    Subscription,
}

impl Groups {
    pub(crate) fn matched(&mut self, matched: Matched) {
        if let Some(group) = self.groups.get_mut(&matched.group) {
            self.desk.take_matched(group, matched);
        }
    }

    pub(crate) fn consumer_beat(&mut self, ticket: Ticket, beat: &ConsumerBeat) {
        let result = check(beat).and_then(|()| self.beat(ticket, beat));
        if let Err(refused) = result {
            self.desk.answer(ticket, Answer::ConsumerBeat(Err(refused)));
        }
    }

    fn beat(&mut self, ticket: Ticket, beat: &ConsumerBeat) -> Result<(), Refused> {
        let joins = beat.epoch == 0;
        let what = if beat.epoch == LEAVES || beat.epoch == RETURNS { "Group" } else { "Consumer group" };
        let missing = || refuse(ErrorCode::GroupIdNotFound, format!("{what} {} not found.", beat.group));
        let is_new = !self.groups.contains_key(beat.group.as_str());
        if is_new && !joins {
            return Err(missing());
        }
        let id = self.group_or_simple(beat.group.as_str().into()).id.clone();
        let Some(group) = self.groups.get_mut(&id) else { return Err(missing()) };
        let mut records = Records::new();
        let result = if joins && group.consumer.is_none() && group.state != State::Empty {
            self.desk.upgrade(group, beat, &mut records)
        } else {
            self.desk.becomes_consumers(group, beat, &mut records).and_then(|()| {
                if beat.epoch == LEAVES || beat.epoch == RETURNS {
                    self.desk.consumer_leaves(group, beat, &mut records)
                } else {
                    self.desk.consumer_lives(group, beat, &mut records)
                }
            })
        };
        match result {
            Ok(answer) => {
                let answers = vec![(ticket, Answer::ConsumerBeat(Ok(answer)))];
                self.desk.write_consumers(group, records, answers);
                Ok(())
            }
            Err(refused) => {
                if is_new {
                    self.groups.remove(&id);
                } else {
                    // What happened to the group before the refusal stays.
                    self.desk.write_consumers(group, records, Vec::new());
                }
                Err(refused)
            }
        }
    }
}

fn check(beat: &ConsumerBeat) -> Result<(), Refused> {
    let invalid = |reason: &str| Err(refuse(ErrorCode::InvalidRequest, reason));
    if (beat.id_required || beat.epoch > 0 || beat.epoch == LEAVES) && beat.member.is_empty() {
        return invalid("MemberId can't be empty.");
    }
    if beat.group.is_empty() {
        return invalid("GroupId can't be empty.");
    }
    if beat.instance.as_deref() == Some("") {
        return invalid("InstanceId can't be empty.");
    }
    if beat.rack.as_deref() == Some("") {
        return invalid("RackId can't be empty.");
    }
    if beat.epoch < RETURNS {
        return invalid("MemberEpoch is invalid.");
    }
    if beat.epoch == RETURNS && beat.instance.is_none() {
        return invalid("InstanceId can't be null.");
    }
    if beat.epoch == 0 {
        if beat.rebalance_timeout_ms == -1 {
            return invalid("RebalanceTimeoutMs must be provided in first request.");
        }
        if beat.owned.as_ref().is_none_or(|owned| !owned.is_empty()) {
            return invalid("TopicPartitions must be empty when (re-)joining.");
        }
        // An empty list is one: a member that wants nothing yet.
        if beat.topics.is_none() && beat.regex.is_none() {
            return invalid(
                "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.",
            );
        }
    }
    if let Some(assignor) = &beat.assignor
        && assignor != UNIFORM
        && assignor != RANGE
    {
        let reason =
            format!("ServerAssignor {assignor} is not supported. Supported assignors: {UNIFORM}, {RANGE}.");
        return Err(refuse(ErrorCode::UnsupportedAssignor, reason));
    }
    Ok(())
}

impl Desk {
    /// The group is one of the consumer protocol; an empty one becomes that for a member that joins.
    fn becomes_consumers(
        &mut self,
        group: &mut Group,
        beat: &ConsumerBeat,
        records: &mut Records,
    ) -> Result<(), Refused> {
        if group.consumer.is_some() {
            return Ok(());
        }
        if beat.epoch != 0 {
            let reason = format!("Group {} is not a consumer group.", group.id);
            return Err(refuse(ErrorCode::GroupIdNotFound, reason));
        }
        // An empty group has no protocol to keep.
        let mut consumer = ConsumerGroup::new();
        if let Some(burial) = &group.burial {
            records.extend(burial.tombstones(&group.id));
            consumer.gone.extend(burial.members.iter().cloned());
        }
        if group.protocol_type.is_some() || group.generation > 0 {
            records.push((Key::Group(group.id.to_string()).encode(), None));
        }
        self.put_down(group);
        group.consumer = Some(Box::new(consumer));
        Ok(())
    }

    pub(super) fn check_room(&self, members: usize, is_member: bool) -> Result<(), Refused> {
        let most = self.config.consumer_size_max;
        if members < most || is_member {
            return Ok(());
        }
        let reason = format!("The consumer group has reached its maximum capacity of {most} members.");
        Err(refuse(ErrorCode::GroupMaxSizeReached, reason))
    }

    pub(super) fn consumer_lives(
        &mut self,
        group: &mut Group,
        beat: &ConsumerBeat,
        records: &mut Records,
    ) -> Result<ConsumerAnswer, Refused> {
        let name = group.id.clone();
        let Some(consumer) = group.consumer.as_deref_mut() else {
            return Err(refuse(ErrorCode::UnknownServerError, "no consumer group"));
        };
        let id: Text = if beat.member.is_empty() { beat.fresh.as_str() } else { &beat.member }.into();
        self.check_room(consumer.members.len(), consumer.members.contains_key(&id))?;
        let before = consumer.members.get(&id).map_or(0, ConsumerMember::words);
        self.check_words(said_by(beat), before, self.budget.used())?;
        // A pattern is judged before anything changes.
        let pattern = match pattern_of(beat) {
            Some(text) if !consumer.patterns.contains_key(text) => Some((text, pattern(text)?)),
            _ => None,
        };
        self.seat(&name, consumer, beat, &id, records)?;
        if let Some((text, pattern)) = pattern {
            consumer.patterns.insert(text.to_string(), pattern);
        }
        let change = self.listen(consumer, beat, &id);
        if change != Change::None
            && let Some(member) = consumer.members.get_mut(&id)
        {
            member.said = self.budget.share(member.about.said_bytes());
            records.push(member_record(&name, member));
        }
        self.advance(&name, consumer, change == Change::Subscription, records);
        let is_other = self.reconcile(&name, consumer, &id, beat.owned.as_ref(), records);
        self.renew_consumer(&name, consumer, &id);
        let is_full = beat.rebalance_timeout_ms != -1
            && (beat.topics.is_some() || beat.regex.is_some())
            && beat.owned.is_some();
        let shows = beat.epoch == 0 || is_full || is_other;
        let now = consumer.members.get(&id).map(|member| &member.standing);
        Ok(ConsumerAnswer {
            epoch: now.map_or(0, |now| now.epoch),
            interval_ms: self.consumer_heartbeat_interval_ms(&name),
            assignment: now.filter(|_| shows).map(assigned),
            member: id,
        })
    }

    /// What a member says, `before` of it counted in `used` already, fits into its record and, besides what all others
    /// said, into memory. One record too large would keep the whole group from going on.
    pub(super) fn check_words(&self, said: u64, before: u64, used: u64) -> Result<(), Refused> {
        if said > self.config.record_bytes_max {
            let most = self.config.record_bytes_max;
            let reason = format!("The subscription takes {said} bytes, and a record holds {most}.");
            return Err(refuse(ErrorCode::UnknownServerError, reason));
        }
        if said > before && used + (said - before) > self.config.said_bytes_max {
            let reason = "The coordinator has no memory for this subscription now.";
            return Err(refuse(ErrorCode::CoordinatorNotAvailable, reason));
        }
        Ok(())
    }

    /// The member's place in the group, made or taken over if it joins.
    fn seat(
        &mut self,
        name: &Text,
        consumer: &mut ConsumerGroup,
        beat: &ConsumerBeat,
        id: &Text,
        records: &mut Records,
    ) -> Result<(), Refused> {
        let instance = beat.instance.as_deref();
        let before = instance.and_then(|i| consumer.statics.get(i)).cloned();
        if beat.epoch > 0 {
            let member = beating(name, consumer, beat)?;
            check_epoch(member, beat.epoch, beat.owned.as_ref())?;
            return Ok(());
        }
        if let Some(before) = before.filter(|before| before != id) {
            // One of the classic protocol cannot say that it goes for a while.
            let old = consumer.members.get(&before);
            if !old.is_some_and(|m| m.standing.epoch == RETURNS || m.classic.is_some()) {
                let instance = instance.unwrap_or_default();
                let reason = format!(
                    "Static member {id} with instance id {instance} cannot join the group because the instance id is owned by {before} member."
                );
                return Err(refuse(ErrorCode::UnreleasedInstanceId, reason));
            }
            self.take_over(name, consumer, &before, id, records);
            return Ok(());
        }
        if let Some(member) = consumer.members.get(id) {
            // A join starts over; what it had is its own still, unless it went away for a while.
            if member.standing.epoch == RETURNS {
                let standing = Standing { epoch: 0, previous_epoch: 0, ..member.standing.clone() };
                consumer.stand(id, standing);
            }
            return Ok(());
        }
        consumer.add(ConsumerMember::new(id.clone(), instance.map(Into::into)));
        Ok(())
    }

    /// A static member came back under a new id: what its place had is its own.
    pub(super) fn take_over(
        &mut self,
        name: &Text,
        consumer: &mut ConsumerGroup,
        before: &Text,
        id: &Text,
        records: &mut Records,
    ) {
        let target = consumer.target.get(before).cloned();
        let Some(old) = self.unseat(name, consumer, before, records) else { return };
        let standing = Standing { epoch: 0, previous_epoch: 0, ..old.standing };
        let member = ConsumerMember { id: id.clone(), standing, session: None, revocation: None, ..old };
        records.push(member_record(name, &member));
        records.push(standing_record(name, id, &member.standing));
        if let Some(target) = target {
            records.push(target_record(name, id, &target));
            consumer.target.insert(id.clone(), target);
        }
        consumer.add(member);
    }

    /// A new epoch where one is due, and the target of the newest epoch.
    pub(super) fn advance(
        &mut self,
        name: &Text,
        consumer: &mut ConsumerGroup,
        changed: bool,
        records: &mut Records,
    ) {
        let mut bump = changed;
        if changed || consumer.topics_version != Some(self.topics.version) {
            self.resolve(name, consumer, records);
            consumer.topics_version = Some(self.topics.version);
            let hash = consumer.hash_of(&self.topics);
            bump |= hash != consumer.topics_hash;
            consumer.topics_hash = hash;
        }
        if bump {
            consumer.epoch = consumer.epoch.saturating_add(1);
            self.rebalances += 1;
            records.push(epoch_record(name, consumer));
        }
        if consumer.epoch > consumer.target_epoch {
            self.aim(name, consumer, records);
        }
    }

    fn resolve(&mut self, name: &Text, consumer: &mut ConsumerGroup, records: &mut Records) {
        let used: BTreeSet<&String> =
            consumer.members.values().filter_map(|m| m.about.regex.as_ref()).collect();
        let unused: Vec<String> =
            consumer.patterns.keys().filter(|text| !used.contains(text)).cloned().collect();
        let key = |text: &str| Key::Pattern { group: name.to_string(), pattern: text.to_string() }.encode();
        for text in unused {
            consumer.patterns.remove(&text);
            records.push((key(&text), None));
        }
        for (text, pattern) in &mut consumer.patterns {
            if pattern.resolve(&self.topics) {
                records.push(pattern_record(name, text, pattern, self.now.wall_ms));
            }
            self.out.matchings.extend(pattern.hand_out(name, text, &mut self.topics));
        }
    }

    /// What a pattern matches is known. Members get it as they get new topics: with the next heartbeat of any of them.
    pub(super) fn take_matched(&mut self, group: &mut Group, matched: Matched) {
        let name = group.id.clone();
        let Some(consumer) = group.consumer.as_deref_mut() else { return };
        let Some(pattern) = consumer.patterns.get_mut(&matched.pattern) else { return };
        let is_news = pattern.take(matched.topics, matched.version);
        let record = is_news.then(|| pattern_record(&name, &matched.pattern, pattern, self.now.wall_ms));
        // There may be other topics by now, which is seen then as well.
        consumer.topics_version = None;
        // Of many topics a good part of the work for that heartbeat.
        consumer.read(&self.topics);
        if let Some(record) = record {
            self.write_consumers(group, vec![record], Vec::new());
        }
    }

    /// Makes the target of the group's epoch.
    fn aim(&mut self, name: &Text, consumer: &mut ConsumerGroup, records: &mut Records) {
        consumer.read(&self.topics);
        let both = consumer.both();
        let asking = consumer.members.values().map(|member| Asking {
            id: &member.id,
            instance: member.instance.as_ref(),
            topics: consumer.wanted(&member.about, &both),
            before: consumer.target.get(&member.id),
        });
        let asking: Vec<Asking<'_>> = asking.collect();
        let target = assign(consumer.assignor(), &asking, &consumer.reading.topics);
        for (member, partitions) in &target {
            if consumer.target.get(member) != Some(partitions) {
                records.push(target_record(name, member, partitions));
            }
        }
        consumer.target = target;
        consumer.target_epoch = consumer.epoch;
        consumer.target_ms = self.now.wall_ms;
        records.push(target_epoch_record(name, consumer));
    }

    /// Goes on the member's way to its target; whether it is assigned anything else then.
    pub(super) fn reconcile(
        &mut self,
        name: &Text,
        consumer: &mut ConsumerGroup,
        id: &Text,
        owned: Owned<'_>,
        records: &mut Records,
    ) -> bool {
        let nothing = Partitions::new();
        let Some(member) = consumer.members.get(id) else { return false };
        let target = (consumer.target_epoch, consumer.target.get(id).unwrap_or(&nothing));
        let next = reconcile::next(member, target, owned, |t, p| consumer.is_held(t, p, id));
        let Some(next) = next else { return false };
        let is_other = !next.is_assigned_as(&member.standing);
        records.push(standing_record(name, id, &next));
        let revokes = next.progress == Progress::Unrevoked;
        let at_ms = self.after(member.about.rebalance_timeout_ms);
        let due = Due::Revocation { group: name.clone(), member: id.clone(), epoch: next.epoch };
        consumer.stand(id, next);
        if let Some(member) = consumer.members.get_mut(id) {
            self.timers.cancel(member.revocation.take());
            member.revocation = revokes.then(|| self.timers.add(at_ms, due));
        }
        is_other
    }

    pub(super) fn renew_consumer(&mut self, name: &Text, consumer: &mut ConsumerGroup, id: &Text) {
        let Some(member) = consumer.members.get_mut(id) else { return };
        self.timers.cancel(member.session.take());
        let own = member.classic.as_ref().map(|classic| classic.session_timeout_ms);
        let at_ms = self.after(own.unwrap_or_else(|| self.consumer_session_timeout_ms(name)));
        member.session = Some(self.timers.add(at_ms, Due::Consumer(name.clone(), id.clone())));
    }

    /// Takes in what the member says. That it says it is the consumer protocol, whatever it spoke before.
    fn listen(&mut self, consumer: &mut ConsumerGroup, beat: &ConsumerBeat, id: &Text) -> Change {
        let names = |topics: &Vec<String>| topics.iter().map(|t| t.as_str().into()).collect();
        let names: Option<BTreeSet<Text>> = beat.topics.as_ref().map(names);
        let names = names.map(|names| consumer.share(names.into()));
        let Some(member) = consumer.members.get_mut(id) else { return Change::None };
        let mut spoken = member.classic.take();
        for timer in spoken.iter_mut().flat_map(Classic::take_timers) {
            self.timers.cancel(timer);
        }
        let mut about = About {
            client_id: beat.client_id.clone(),
            client_host: beat.client_host.clone(),
            ..member.about.clone()
        };
        if beat.rack.is_some() {
            about.rack.clone_from(&beat.rack);
        }
        if beat.rebalance_timeout_ms != -1 {
            about.rebalance_timeout_ms = beat.rebalance_timeout_ms;
        }
        if let Some(names) = names {
            about.topics = names;
        }
        if beat.regex.is_some() {
            about.regex.clone_from(&beat.regex);
        }
        if beat.assignor.is_some() {
            about.assignor.clone_from(&beat.assignor);
        }
        let before = std::mem::replace(&mut member.about, about);
        match changed(&before, &member.about) {
            Change::None if spoken.is_some() => Change::Told,
            change => change,
        }
    }
}

fn said_by(beat: &ConsumerBeat) -> u64 {
    About::bytes(beat.topics.iter().flatten().map(String::as_str), beat.regex.as_deref())
}

fn pattern_of(beat: &ConsumerBeat) -> Option<&str> {
    beat.regex.as_deref().filter(|text| !text.is_empty())
}

/// How what a member says differs from what it said; of one that is new, from nothing.
pub(super) fn changed<'a>(before: &'a About, now: &'a About) -> Change {
    let pattern = |about: &'a About| about.regex.as_deref().unwrap_or_default();
    if now.topics != before.topics || pattern(now) != pattern(before) {
        Change::Subscription
    } else if now != before {
        Change::Told
    } else {
        Change::None
    }
}

fn pattern_record(group: &str, text: &str, pattern: &Pattern, now_ms: i64) -> (Bytes, Option<Bytes>) {
    let value =
        ConsumerValue::Pattern { topics: pattern.topics.clone(), version: pattern.version(), at_ms: now_ms };
    let key = Key::Pattern { group: group.to_string(), pattern: text.to_string() };
    (key.encode(), Some(value.encode()))
}

fn pattern(text: &str) -> Result<Pattern, Refused> {
    Pattern::new(text).map_err(|error| {
        let reason = format!("SubscribedTopicRegex `{text}` is not a valid regular expression: {error}.");
        refuse(ErrorCode::InvalidRegularExpression, reason)
    })
}

/// The member that a heartbeat is of. Without an instance, what is wrong with it names the group, too.
pub(super) fn beating<'a>(
    group: &str,
    consumer: &'a ConsumerGroup,
    beat: &ConsumerBeat,
) -> Result<&'a ConsumerMember, Refused> {
    let (id, instance) = (beat.member.as_str(), beat.instance.as_deref());
    if instance.is_none() && !consumer.members.contains_key(id) {
        let reason = format!("Member {id} is not a member of group {group}.");
        return Err(refuse(ErrorCode::UnknownMemberId, reason));
    }
    known(consumer, id, instance)
}

/// A member by id, and by its instance if it has one.
pub(super) fn known<'a>(
    consumer: &'a ConsumerGroup,
    id: &str,
    instance: Option<&str>,
) -> Result<&'a ConsumerMember, Refused> {
    if let Some(instance) = instance {
        match consumer.statics.get(instance) {
            None => {
                let reason = format!("Instance id {instance} is unknown.");
                return Err(refuse(ErrorCode::UnknownMemberId, reason));
            }
            Some(owner) if **owner != *id => {
                let reason =
                    format!("Static member {id} with instance id {instance} was fenced by member {owner}.");
                return Err(refuse(ErrorCode::FencedInstanceId, reason));
            }
            Some(_) => {}
        }
    }
    consumer.members.get(id).ok_or_else(|| {
        refuse(ErrorCode::UnknownMemberId, format!("Member {id} is not a member of the group."))
    })
}

/// The epoch before is accepted, too, from a member that has nothing but what it was assigned: it missed an answer.
fn check_epoch(member: &ConsumerMember, epoch: i32, owned: Owned<'_>) -> Result<(), Refused> {
    let standing = &member.standing;
    let known = standing.epoch;
    if epoch == known {
        return Ok(());
    }
    let is_part = |owned: &Partitions| {
        owned.iter().all(|(topic, partitions)| {
            let held = standing.assigned.get(topic);
            partitions.iter().all(|p| held.is_some_and(|h| h.contains_key(p)))
        })
    };
    if epoch < known && epoch == standing.previous_epoch && owned.is_some_and(is_part) {
        return Ok(());
    }
    let than = if epoch > known { "greater" } else { "smaller" };
    let reason = format!(
        "The consumer group member has a {than} member epoch ({epoch}) than the one known by the group coordinator ({known}). The member must abandon all its partitions and rejoin."
    );
    Err(refuse(ErrorCode::FencedMemberEpoch, reason))
}

fn assigned(standing: &Standing) -> Partitions {
    let held = standing.assigned.iter();
    held.map(|(topic, held)| (*topic, held.keys().copied().collect())).collect()
}

pub(super) fn member_record(group: &str, member: &ConsumerMember) -> (Bytes, Option<Bytes>) {
    let classic = member.classic.as_ref().map(|classic| ClassicValue {
        session_timeout_ms: classic.session_timeout_ms,
        protocols: classic.protocols.iter().map(|(name, said)| (name.to_string(), said.clone())).collect(),
    });
    let value = ConsumerValue::Member {
        instance: member.instance.as_deref().map(str::to_string),
        about: member.about.clone(),
        classic,
    };
    let key = Key::ConsumerMember { group: group.to_string(), member: member.id.to_string() };
    (key.encode(), Some(value.encode()))
}

pub(super) fn standing_record(group: &str, member: &str, standing: &Standing) -> (Bytes, Option<Bytes>) {
    let key = Key::Standing { group: group.to_string(), member: member.to_string() };
    (key.encode(), Some(encode_standing(standing)))
}

pub(super) fn target_record(group: &str, member: &str, target: &Partitions) -> (Bytes, Option<Bytes>) {
    let key = Key::Target { group: group.to_string(), member: member.to_string() };
    (key.encode(), Some(encode_target(target)))
}

pub(super) fn epoch_record(group: &str, consumer: &ConsumerGroup) -> (Bytes, Option<Bytes>) {
    let value = ConsumerValue::Epoch { epoch: consumer.epoch, topics_hash: consumer.topics_hash };
    (Key::ConsumerGroup(group.to_string()).encode(), Some(value.encode()))
}

pub(super) fn target_epoch_record(group: &str, consumer: &ConsumerGroup) -> (Bytes, Option<Bytes>) {
    let value = ConsumerValue::TargetEpoch { epoch: consumer.target_epoch, at_ms: consumer.target_ms };
    (Key::TargetEpoch(group.to_string()).encode(), Some(value.encode()))
}
