//! A group with members goes over from one protocol to the other, and back. Rules of Kafka 4.3.1, and one of our own: whoever
//! may have a partition keeps it on the way. A classic leader takes a partition from a member in one generation and gives
//! it to another in the next; what a member said it had counts here beside what its leader gave it. And a group that goes
//! back remembers in its record that a rebalance is due, so that one that stops in between makes it after its start.
//!
//! Each way is one write, the member that joins and brings the group over included: a start finds the group on one side or
//! on the other, never over and with nobody who speaks the consumer protocol.

use super::beat::{Records, refuse};
use super::fence::everything;
use super::group::{About, Classic, ConsumerGroup, ConsumerMember};
use super::reconcile::{Held, Partitions, Progress, Standing};
use crate::budget::Share;
use crate::embedded::{self, Assignment, CONSUMER, Subscription};
use crate::group::{Burial, Group, Member, State};
use crate::machine::{Desk, UnderWay, sync_refused};
use crate::messages::{Answer, ConsumerAnswer, ConsumerBeat, JoinAnswer, Refused, Text, Ticket};
use crate::records::Key;
use ringmill_types::{ErrorCode, TopicId};
use std::collections::BTreeSet;

/// What a record takes in a batch beside its key and value, at most.
const RECORD_OVERHEAD_BYTES: u64 = 32;

/// How a group goes on that has gone back to the classic protocol.
pub(super) enum Next {
    /// With a new generation; the caller begins it.
    Rebalance,
    /// As it was: a static member came back under this id, wants what it wanted before, and everybody has what it should.
    Stay(Ticket, Text),
}

/// A classic member's words, read.
struct Read<'a> {
    member: &'a Member,
    subscription: Subscription,
    assigned: Partitions,
}

impl Desk {
    /// A classic group becomes one of the consumer protocol, members and all, for a member that joins; parked requests are
    /// told to join again. `records` get both, which fit into one write. Where the group cannot go over, or the member may
    /// not join, nothing has changed.
    pub(super) fn upgrade(
        &mut self,
        group: &mut Group,
        beat: &ConsumerBeat,
        records: &mut Records,
    ) -> Result<ConsumerAnswer, Refused> {
        self.check_room(group.members.len(), group.members.contains_key(beat.member.as_str()))?;
        let consumer = self.converted(group)?;
        let patterns = group.burial.iter().flat_map(|burial| &burial.patterns);
        let key = |text: &String| Key::Pattern { group: group.id.to_string(), pattern: text.clone() };
        let mut both: Records = patterns.map(|text| (key(text).encode(), None)).collect();
        both.extend(everything(&group.id, &consumer));
        let rebalances = self.rebalances;
        let mut over = Group::new(group.id.clone(), self.now.wall_ms);
        over.consumer = Some(Box::new(consumer));
        self.consumers_loaded(&mut over);
        let joined = self.consumer_lives(&mut over, beat, &mut both).and_then(|answer| {
            let fits = bytes_of(&both) <= self.config.record_bytes_max;
            fits.then_some(answer)
                .ok_or_else(|| cannot_upgrade(group, "its members say more than one write holds"))
        });
        if joined.is_err() {
            for member in over.consumer.iter_mut().flat_map(|consumer| consumer.members.values_mut()) {
                for timer in member.take_timers() {
                    self.timers.cancel(timer);
                }
            }
            self.rebalances = rebalances;
            return joined;
        }
        self.put_down(group);
        group.consumer = over.consumer;
        records.extend(both);
        joined
    }

    /// The classic side of a group ends: its deadlines, and whatever its members wait for.
    pub(super) fn put_down(&mut self, group: &mut Group) {
        for timer in std::mem::take(&mut group.pending_join).into_values() {
            self.timers.cancel(Some(timer));
        }
        self.timers.cancel(group.join_timer.take());
        self.timers.cancel(group.sync_timer.take());
        for mut member in std::mem::take(&mut group.members).into_values() {
            self.timers.cancel(member.timer.take());
            if let Some(ticket) = member.joining.take() {
                let answer = crate::join::refused(ErrorCode::RebalanceInProgress, member.id);
                self.answer(ticket, Answer::Join(answer));
            }
            if let Some(ticket) = member.syncing.take() {
                self.answer(ticket, sync_refused(ErrorCode::RebalanceInProgress));
            }
        }
        let blank = Group::new(group.id.clone(), self.now.wall_ms);
        let old = std::mem::replace(group, blank);
        group.offsets = old.offsets;
        group.commits_under_way = old.commits_under_way;
    }

    fn converted(&self, group: &Group) -> Result<ConsumerGroup, Refused> {
        if !self.config.migration.upgrades() {
            return Err(cannot_upgrade(group, "online upgrade is disabled"));
        }
        if group.protocol_type.as_deref() != Some(CONSUMER) {
            return Err(cannot_upgrade(group, "the group does not use the consumer embedded protocol"));
        }
        if group.members.len() > self.config.consumer_size_max {
            let why = "the group size exceeds the consumer group maximum size";
            return Err(cannot_upgrade(group, why));
        }
        let members = group.members.values().map(|member| self.read(group, member));
        let members: Vec<Read<'_>> = members.collect::<Result<_, _>>()?;
        let mut consumer = ConsumerGroup::new();
        consumer.epoch = group.generation;
        consumer.target_epoch = group.generation;
        consumer.gone = group.burial.iter().flat_map(|burial| burial.members.iter().cloned()).collect();
        let mut taken: BTreeSet<(TopicId, i32)> = BTreeSet::new();
        for place in members.iter().flat_map(|read| places(&read.assigned)) {
            if !taken.insert(place) {
                return Err(cannot_upgrade(group, "a partition is assigned to several of its members"));
            }
        }
        for read in members {
            let owned = self.topics.known(&read.subscription.owned);
            // What it has besides was taken from it, and nobody knows yet whether it gave it up.
            let besides = places(&owned).filter(|place| taken.insert(*place));
            let revoking = held(besides, group.generation);
            let member = self.seated(read, revoking, group.generation, &mut consumer);
            consumer.members.insert(member.id.clone(), member);
        }
        if self.budget.used() > self.config.said_bytes_max {
            let reason = format!("The coordinator has no memory for group {} to go over now.", group.id);
            return Err(refuse(ErrorCode::CoordinatorNotAvailable, reason));
        }
        consumer.topics_hash = consumer.hash_of(&self.topics);
        consumer.topics_version = Some(self.topics.version);
        Ok(consumer)
    }

    fn read<'a>(&self, group: &Group, member: &'a Member) -> Result<Read<'a>, Refused> {
        let malformed = || cannot_upgrade(group, "the embedded consumer protocol is malformed");
        let chosen = group.protocol.as_deref().unwrap_or_default();
        // Under each of its protocols a consumer says the same; before the first generation none is chosen.
        let said = member.protocols.iter().find(|(name, _)| **name == *chosen);
        let (_, said) = said.or(member.protocols.first()).ok_or_else(malformed)?;
        let subscription = Subscription::decode(said).ok_or_else(malformed)?;
        let assignment = Assignment::decode(&member.assignment).ok_or_else(malformed)?;
        if assignment.has_user_data {
            let why = "an unsupported custom assignor is in use. Please refer to the documentation or switch to a default assignor before re-attempting the upgrade";
            return Err(cannot_upgrade(group, why));
        }
        Ok(Read { member, subscription, assigned: self.topics.known(&assignment.partitions) })
    }

    /// The member with what it has as its target, in the generation as its epoch.
    fn seated(
        &self,
        read: Read<'_>,
        revoking: Held,
        generation: i32,
        consumer: &mut ConsumerGroup,
    ) -> ConsumerMember {
        let Read { member, subscription, assigned } = read;
        let names: BTreeSet<Text> = subscription.topics.iter().map(|t| t.as_str().into()).collect();
        let about = About {
            rack: subscription.rack,
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            topics: consumer.share(names.into()),
            regex: Some(String::new()),
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            assignor: None,
        };
        let standing = Standing {
            epoch: generation,
            previous_epoch: generation,
            progress: if revoking.is_empty() { Progress::Stable } else { Progress::Unrevoked },
            assigned: held(places(&assigned), generation),
            revoking,
        };
        consumer.target.insert(member.id.clone(), assigned);
        let said: Share = self.budget.share(about.said_bytes());
        let classic = Classic::new(member.session_timeout_ms, member.protocols.clone());
        ConsumerMember {
            about,
            said,
            standing,
            classic: Some(classic),
            ..ConsumerMember::new(member.id.clone(), member.instance.clone())
        }
    }

    /// Whether the group speaks nothing but the classic protocol without these members.
    pub(super) fn goes_back(&self, consumer: &ConsumerGroup, without: &BTreeSet<Text>) -> bool {
        let left = || consumer.members.values().filter(|m| !without.contains(&m.id));
        self.config.migration.downgrades()
            && left().count() <= self.config.size_max
            && left().all(|m| m.classic.is_some())
    }

    /// The group becomes a classic one of the members that are left. False when that cannot be written or there is nothing
    /// they have in common; then nothing has changed.
    pub(super) fn downgrade(&mut self, group: &mut Group, without: &BTreeSet<Text>, next: Next) -> bool {
        let Some(consumer) = group.consumer.as_deref() else { return false };
        let Some(mut classic) = self.classic_of(&group.id, consumer, without) else { return false };
        let burial = bury(consumer);
        let mut value = classic.value(|m| m.assignment.clone());
        if matches!(next, Next::Rebalance) {
            value.leader = None;
        }
        let mut records = burial.tombstones(&group.id);
        records.push((Key::Group(group.id.to_string()).encode(), Some(value.encode())));
        if bytes_of(&records) > self.config.record_bytes_max {
            return false;
        }
        for member in group.consumer.iter_mut().flat_map(|consumer| consumer.members.values_mut()) {
            for timer in member.take_timers() {
                self.timers.cancel(timer);
            }
        }
        classic.offsets = std::mem::take(&mut group.offsets);
        classic.commits_under_way = group.commits_under_way;
        classic.burial = Some(burial);
        *group = classic;
        let members: Vec<Text> = group.members.keys().cloned().collect();
        for member in members {
            self.renew_session(group, &member);
        }
        let then = match next {
            Next::Rebalance => UnderWay::Consumers { group: group.id.clone(), answers: Vec::new() },
            Next::Stay(ticket, member) => UnderWay::Static(ticket, Answer::Join(stays(group, member))),
        };
        let write = self.write(&group.id, records, then);
        self.buried_by(group, write);
        true
    }

    /// What each may have is its assignment until the next generation.
    fn classic_of(&self, id: &Text, consumer: &ConsumerGroup, without: &BTreeSet<Text>) -> Option<Group> {
        let mut classic = Group::new(id.clone(), self.now.wall_ms);
        for member in consumer.members.values().filter(|m| !without.contains(&m.id)) {
            let spoken = member.classic.as_ref()?;
            let has = self.topics.named(member.standing.holds());
            let member = Member {
                id: member.id.clone(),
                instance: member.instance.clone(),
                client_id: member.about.client_id.clone(),
                client_host: member.about.client_host.clone(),
                session_timeout_ms: spoken.session_timeout_ms,
                rebalance_timeout_ms: member.about.rebalance_timeout_ms,
                protocols: spoken.protocols.clone(),
                assignment: embedded::assignment(spoken.version(), &has),
                joining: None,
                syncing: None,
                is_new: false,
                timer: None,
            };
            classic.add(member, CONSUMER);
        }
        classic.protocol = Some(classic.choose_protocol()?);
        classic.generation = consumer.epoch;
        classic.enter(State::Stable, self.now.wall_ms);
        Some(classic)
    }
}

/// What the log holds of it, to be deleted.
pub(super) fn bury(consumer: &ConsumerGroup) -> Burial {
    Burial {
        write: None,
        members: consumer.members.keys().chain(&consumer.gone).cloned().collect(),
        patterns: consumer.patterns.keys().cloned().collect(),
    }
}

/// It is no leader, whatever it was: there is nothing to assign.
fn stays(group: &Group, member: Text) -> JoinAnswer {
    JoinAnswer { leader: "".into(), members: Vec::new(), ..group.joined(&member) }
}

fn cannot_upgrade(group: &Group, why: &str) -> Refused {
    let reason = format!("Cannot upgrade classic group {} to consumer group because {why}.", group.id);
    refuse(ErrorCode::GroupIdNotFound, reason)
}

fn places(partitions: &Partitions) -> impl Iterator<Item = (TopicId, i32)> {
    partitions.iter().flat_map(|(topic, partitions)| partitions.iter().map(|p| (*topic, *p)))
}

fn held(places: impl Iterator<Item = (TopicId, i32)>, since: i32) -> Held {
    let mut held = Held::new();
    for (topic, partition) in places {
        held.entry(topic).or_default().insert(partition, since);
    }
    held
}

fn bytes_of(records: &Records) -> u64 {
    records.iter().map(record_bytes).sum()
}

pub(super) fn record_bytes((key, value): &(bytes::Bytes, Option<bytes::Bytes>)) -> u64 {
    (key.len() + value.as_ref().map_or(0, bytes::Bytes::len)) as u64 + RECORD_OVERHEAD_BYTES
}
