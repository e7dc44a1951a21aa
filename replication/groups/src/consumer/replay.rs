//! A consumer group out of its records, in any order in which compaction may leave them.

use super::group::{About, Classic, ConsumerGroup, ConsumerMember};
use super::reconcile::{Progress, Standing};
use super::subscribe::Pattern;
use crate::budget::Protocols;
use crate::group::Group;
use crate::machine::{Desk, Groups};
use crate::messages::Text;
use crate::records::{ConsumerValue, Key, RecordError};
use crate::timers::Due;

impl ConsumerGroup {
    /// The member, made when another of its records comes first.
    fn member(&mut self, id: &str) -> &mut ConsumerMember {
        self.members.entry(id.into()).or_insert_with(|| ConsumerMember::new(id.into(), None))
    }
}

impl Groups {
    pub(crate) fn load_consumer(&mut self, key: &Key, value: Option<&[u8]>) -> Result<(), RecordError> {
        let (Key::ConsumerGroup(group)
        | Key::TargetEpoch(group)
        | Key::ConsumerMember { group, .. }
        | Key::Target { group, .. }
        | Key::Standing { group, .. }
        | Key::Pattern { group, .. }) = key
        else {
            return Err(RecordError::Malformed);
        };
        let Some(value) = value else {
            self.forget(group, key);
            return Ok(());
        };
        let value = ConsumerValue::decode(key, value)?;
        let budget = self.desk.budget.clone();
        let group = self.group_or_simple(group.as_str().into());
        let consumer = group.consumer.get_or_insert_with(|| Box::new(ConsumerGroup::new()));
        match (key, value) {
            (_, ConsumerValue::Epoch { epoch, topics_hash }) => {
                consumer.epoch = epoch;
                consumer.topics_hash = topics_hash;
            }
            (_, ConsumerValue::TargetEpoch { epoch, at_ms }) => {
                consumer.target_epoch = epoch;
                consumer.target_ms = at_ms;
            }
            (Key::ConsumerMember { member, .. }, ConsumerValue::Member { instance, about, classic }) => {
                let about = About { topics: consumer.share(about.topics.clone()), ..about };
                let member = consumer.member(member);
                member.instance = instance.as_deref().map(Into::into);
                member.said = budget.share(about.said_bytes());
                member.about = about;
                member.classic = classic.map(|said| {
                    let list = said.protocols.into_iter().map(|(name, said)| (name.as_str().into(), said));
                    Classic::new(said.session_timeout_ms, Protocols::new(list.collect(), &budget))
                });
            }
            (Key::Target { member, .. }, ConsumerValue::Target(target)) => {
                consumer.target.insert(member.as_str().into(), target);
            }
            (Key::Standing { member, .. }, ConsumerValue::Standing(standing)) => {
                consumer.member(member).standing = standing;
            }
            (Key::Pattern { pattern, .. }, ConsumerValue::Pattern { topics, .. }) => {
                // One that is no pattern here was made by another broker; its topics stay as they were.
                let mut resolved = Pattern::new(pattern).map_err(|_| RecordError::Malformed)?;
                resolved.topics = topics;
                consumer.patterns.insert(pattern.clone(), resolved);
            }
            _ => return Err(RecordError::Malformed),
        }
        Ok(())
    }

    fn forget(&mut self, id: &str, key: &Key) {
        let Some(group) = self.groups.get_mut(id) else { return };
        let Some(consumer) = group.consumer.as_deref_mut() else { return };
        match key {
            Key::ConsumerGroup(_) => {
                group.consumer = None;
                if group.offsets.is_empty() && group.protocol_type.is_none() {
                    self.groups.remove(id);
                }
            }
            Key::ConsumerMember { member, .. } => {
                consumer.members.remove(member.as_str());
            }
            Key::Target { member, .. } => {
                consumer.target.remove(member.as_str());
            }
            Key::Standing { member, .. } => {
                if let Some(member) = consumer.members.get_mut(member.as_str()) {
                    member.standing = Standing::default();
                }
            }
            Key::Pattern { pattern, .. } => {
                consumer.patterns.remove(pattern);
            }
            Key::TargetEpoch(_) => consumer.target_epoch = 0,
            Key::Offset { .. } | Key::Group(_) => {}
        }
    }
}

impl Desk {
    /// Sessions begin, and who has what is known again.
    pub(crate) fn consumers_loaded(&mut self, group: &mut Group) {
        let name = group.id.clone();
        let Some(consumer) = group.consumer.as_deref_mut() else { return };
        for member in std::mem::take(&mut consumer.members).into_values() {
            consumer.add(member);
        }
        let ids: Vec<Text> = consumer.members.keys().cloned().collect();
        for id in ids {
            self.renew_consumer(&name, consumer, &id);
            let Some(member) = consumer.members.get_mut(&id) else { continue };
            if member.standing.progress == Progress::Unrevoked {
                let at_ms = self.after(member.about.rebalance_timeout_ms);
                let epoch = member.standing.epoch;
                let due = Due::Revocation { group: name.clone(), member: id.clone(), epoch };
                member.revocation = Some(self.timers.add(at_ms, due));
            }
        }
    }
}
