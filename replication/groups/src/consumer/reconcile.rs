//! One member's way from what it has to what it should have: give up first, then take what others have given up.
//!
//! ```text
//! Stable ──new target──▶ Unrevoked ──owns it no more──▶ Unreleased ──others gave up──▶ Stable
//! ```
//! A partition is taken only when nobody has it, neither assigned nor to be given up: this is where one owner at a time
//! comes from. Rules of KIP-848.

use super::group::ConsumerMember;
use ringmill_types::TopicId;
use std::collections::{BTreeMap, BTreeSet};

/// Partitions by topic.
pub type Partitions = BTreeMap<TopicId, BTreeSet<i32>>;
/// Partitions, each with the epoch in which the member got it: what it commits in that epoch or later is its own.
pub type Held = BTreeMap<TopicId, BTreeMap<i32, i32>>;

/// How far a member is with its target. Numbers as Kafka stores them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Progress {
    /// Has its target, or has not been told of a new one.
    #[default]
    Stable = 0,
    /// Has partitions to give up, and has not said that it did.
    Unrevoked = 1,
    /// Waits for partitions that others have.
    Unreleased = 2,
}

impl Progress {
    pub(crate) fn of(byte: u8) -> Option<Progress> {
        [Progress::Stable, Progress::Unrevoked, Progress::Unreleased].into_iter().find(|p| *p as u8 == byte)
    }
}

/// Where a member is in its way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    pub epoch: i32,
    pub previous_epoch: i32,
    pub progress: Progress,
    pub assigned: Held,
    pub revoking: Held,
}

impl Standing {
    pub(crate) fn is_reconciled(&self, target_epoch: i32) -> bool {
        self.progress == Progress::Stable && self.epoch == target_epoch
    }

    pub(crate) fn holds(&self) -> impl Iterator<Item = (TopicId, i32)> {
        let both = self.assigned.iter().chain(&self.revoking);
        both.flat_map(|(topic, held)| held.keys().map(|p| (*topic, *p)))
    }

    pub(crate) fn has(&self, (topic, partition): &(TopicId, i32)) -> bool {
        let is_in = |held: &Held| held.get(topic).is_some_and(|held| held.contains_key(partition));
        is_in(&self.assigned) || is_in(&self.revoking)
    }

    /// The partitions that are assigned are the same, since whenever.
    pub(crate) fn is_assigned_as(&self, other: &Standing) -> bool {
        let (here, there) = (&self.assigned, &other.assigned);
        here.len() == there.len()
            && here.iter().zip(there).all(|((a, held), (b, other))| a == b && held.keys().eq(other.keys()))
    }

    fn at(mut self, epoch: i32, progress: Progress) -> Standing {
        // The member's old epoch is accepted once more, as the answer with the new one may be lost.
        self.previous_epoch = self.epoch;
        self.epoch = epoch;
        self.progress = progress;
        self
    }
}

/// What a member says it owns; `None` when it says nothing new.
pub(crate) type Owned<'a> = Option<&'a Partitions>;

/// The member's next standing; `None` when that is the one it has. `is_held` tells of a partition whether another member
/// has it.
pub(crate) fn next(
    member: &ConsumerMember,
    target: (i32, &Partitions),
    owned: Owned<'_>,
    is_held: impl Fn(TopicId, i32) -> bool,
) -> Option<Standing> {
    let now = &member.standing;
    match now.progress {
        Progress::Stable if now.epoch == target.0 => None,
        Progress::Unrevoked if still_owns(&now.revoking, owned) => None,
        Progress::Stable | Progress::Unrevoked | Progress::Unreleased => {
            Some(step(now, target, owned, is_held)).filter(|next| next != now)
        }
    }
}

fn step(
    now: &Standing,
    (target_epoch, target): (i32, &Partitions),
    owned: Owned<'_>,
    is_held: impl Fn(TopicId, i32) -> bool,
) -> Standing {
    let (assigned, revoking) = split(&now.assigned, target);
    let mut next = Standing { assigned, revoking, ..Standing::default() };
    next.epoch = now.epoch;
    if !next.revoking.is_empty() && still_owns(&next.revoking, owned) {
        return next.at(now.epoch, Progress::Unrevoked);
    }
    next.revoking.clear();
    let mut is_waiting = false;
    for (topic, partitions) in target {
        let has = next.assigned.get(topic);
        let missing = partitions.iter().filter(|p| has.is_none_or(|has| !has.contains_key(p)));
        let missing: Vec<i32> = missing.copied().collect();
        for partition in missing {
            if is_held(*topic, partition) {
                is_waiting = true;
            } else {
                next.assigned.entry(*topic).or_default().insert(partition, target_epoch);
            }
        }
    }
    next.at(target_epoch, if is_waiting { Progress::Unreleased } else { Progress::Stable })
}

/// What a member keeps of what it has, and what it has to give up.
fn split(assigned: &Held, target: &Partitions) -> (Held, Held) {
    let (mut keeps, mut gives) = (Vec::new(), Vec::new());
    for (topic, held) in assigned {
        let wanted = target.get(topic);
        let is_wanted = |partition: &i32| wanted.is_some_and(|wanted| wanted.contains(partition));
        let held = held.iter().map(|(partition, since)| (*partition, *since));
        let (kept, given): (BTreeMap<i32, i32>, BTreeMap<i32, i32>) = held.partition(|(p, _)| is_wanted(p));
        keeps.extend((!kept.is_empty()).then_some((*topic, kept)));
        gives.extend((!given.is_empty()).then_some((*topic, given)));
    }
    (keeps.into_iter().collect(), gives.into_iter().collect())
}

/// A member that does not say what it owns may still own it.
fn still_owns(revoking: &Held, owned: Owned<'_>) -> bool {
    let Some(owned) = owned else { return true };
    revoking.iter().any(|(topic, held)| {
        owned.get(topic).is_some_and(|partitions| held.keys().any(|p| partitions.contains(p)))
    })
}
