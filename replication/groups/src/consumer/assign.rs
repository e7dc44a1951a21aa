//! The server's assignors (KIP-848): who should have which partitions. Pure functions of the members and topics.
//!
//! `uniform` gives every member as many partitions as any other, as far as subscriptions allow, and leaves what it can
//! where it is. `range` gives neighbouring partitions of each topic, the same numbers of every topic to the same member.

use super::reconcile::Partitions;
use crate::messages::Text;
use ringmill_types::TopicId;
use std::collections::{BTreeMap, BTreeSet};

pub(crate) const UNIFORM: &str = "uniform";
pub(crate) const RANGE: &str = "range";

/// A member as an assignor sees it.
#[derive(Clone, Debug)]
pub(crate) struct Asking {
    pub id: Text,
    pub instance: Option<Text>,
    pub topics: BTreeSet<TopicId>,
    /// Its target so far.
    pub before: Partitions,
}

/// The target of every member. `topics` has the number of partitions of each topic.
pub(crate) fn assign(
    assignor: &str,
    members: &[Asking],
    topics: &BTreeMap<TopicId, i32>,
) -> BTreeMap<Text, Partitions> {
    let asked = |topic: &TopicId| members.iter().any(|m| m.topics.contains(topic));
    let topics: BTreeMap<TopicId, i32> =
        topics.iter().filter(|(topic, _)| asked(topic)).map(|(topic, count)| (*topic, *count)).collect();
    if assignor == RANGE { range(members, &topics) } else { uniform(members, &topics) }
}

fn range(members: &[Asking], topics: &BTreeMap<TopicId, i32>) -> BTreeMap<Text, Partitions> {
    let mut target: BTreeMap<Text, Partitions> =
        members.iter().map(|m| (m.id.clone(), Partitions::new())).collect();
    for (topic, partitions) in topics {
        let mut asking: Vec<&Asking> = members.iter().filter(|m| m.topics.contains(topic)).collect();
        // Static members first: their places do not move with the ids of a restart.
        asking.sort_by_key(|m| (m.instance.is_none(), m.instance.clone(), m.id.clone()));
        let Ok(count) = i32::try_from(asking.len()) else { continue };
        if count == 0 {
            continue;
        }
        let (each, more) = (partitions / count, partitions % count);
        let mut next = 0;
        for (place, member) in (0..count).zip(asking) {
            let end = next + each + i32::from(place < more);
            if end > next
                && let Some(target) = target.get_mut(&member.id)
            {
                target.insert(*topic, (next..end).collect());
            }
            next = end;
        }
    }
    target
}

/// Members by place, with what they have so far.
struct Table<'a> {
    members: &'a [Asking],
    held: Vec<BTreeSet<(TopicId, i32)>>,
    /// (number of partitions, place), of all members.
    loads: BTreeSet<(usize, usize)>,
    is_same: bool,
}

impl Table<'_> {
    fn load(&self, place: usize) -> usize {
        self.held.get(place).map_or(0, BTreeSet::len)
    }

    fn wants(&self, place: usize, topic: &TopicId) -> bool {
        self.is_same || self.members.get(place).is_some_and(|m| m.topics.contains(topic))
    }

    fn give(&mut self, place: usize, partition: (TopicId, i32)) {
        let load = self.load(place);
        if let Some(held) = self.held.get_mut(place)
            && held.insert(partition)
        {
            self.loads.remove(&(load, place));
            self.loads.insert((load + 1, place));
        }
    }

    fn take(&mut self, place: usize, partition: (TopicId, i32)) {
        let load = self.load(place);
        if let Some(held) = self.held.get_mut(place)
            && held.remove(&partition)
        {
            self.loads.remove(&(load, place));
            self.loads.insert((load - 1, place));
        }
    }

    /// The member with the fewest that wants the topic.
    fn least(&self, topic: &TopicId) -> Option<(usize, usize)> {
        self.loads.iter().copied().find(|(_, place)| self.wants(*place, topic))
    }
}

fn uniform(members: &[Asking], topics: &BTreeMap<TopicId, i32>) -> BTreeMap<Text, Partitions> {
    let mut table = Table {
        members,
        held: vec![BTreeSet::new(); members.len()],
        loads: (0..members.len()).map(|place| (0, place)).collect(),
        is_same: members.windows(2).all(|pair| matches!(pair, [a, b] if a.topics == b.topics)),
    };
    let mut open = keep(&mut table, topics);
    // In the order of numbers, topic by topic: neighbours go to different members.
    open.sort_unstable();
    for partition in open {
        if let Some((_, place)) = table.least(&partition.0) {
            table.give(place, partition);
        }
    }
    if !table.is_same {
        balance(&mut table);
    }
    let target = members.iter().zip(table.held).map(|(member, held)| {
        let mut partitions = Partitions::new();
        for (topic, partition) in held {
            partitions.entry(topic).or_default().insert(partition);
        }
        (member.id.clone(), partitions)
    });
    target.collect()
}

/// Leaves with members what they had and may keep; gives the rest. Where all want the same, nobody keeps more than a fair
/// share, and as few as can be keep the larger one.
fn keep(table: &mut Table<'_>, topics: &BTreeMap<TopicId, i32>) -> Vec<(TopicId, i32)> {
    let mut open: BTreeSet<(TopicId, i32)> = BTreeSet::new();
    for (topic, partitions) in topics {
        open.extend((0..*partitions).map(|p| (*topic, p)));
    }
    let count = table.members.len().max(1);
    let (share, mut larger) = (open.len() / count, open.len() % count);
    for (place, member) in table.members.iter().enumerate() {
        let mut left = if table.is_same { share } else { usize::MAX };
        for (topic, partitions) in &member.before {
            for partition in partitions {
                let wanted = open.contains(&(*topic, *partition)) && member.topics.contains(topic);
                if !wanted {
                    continue;
                }
                if left == 0 && larger > 0 && table.load(place) == share {
                    larger -= 1;
                    left = 1;
                }
                if left > 0 {
                    left -= 1;
                    open.remove(&(*topic, *partition));
                    table.give(place, (*topic, *partition));
                }
            }
        }
    }
    open.into_iter().collect()
}

/// Moves partitions from members with more to members with at least two fewer, until none can. Every move makes the loads
/// more even, so this ends.
fn balance(table: &mut Table<'_>) {
    loop {
        let mut moved = false;
        let most: Vec<usize> = table.loads.iter().rev().map(|(_, place)| *place).collect();
        for place in most {
            let held: Vec<(TopicId, i32)> = table.held.get(place).into_iter().flatten().copied().collect();
            let topics: BTreeSet<TopicId> = held.iter().map(|(topic, _)| *topic).collect();
            for topic in topics {
                let mine = held.iter().filter(|(t, _)| *t == topic);
                for partition in mine {
                    let Some((load, to)) = table.least(&topic) else { break };
                    if load + 2 > table.load(place) {
                        break;
                    }
                    table.take(place, *partition);
                    table.give(to, *partition);
                    moved = true;
                }
            }
        }
        if !moved {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn topic(n: u8) -> TopicId {
        TopicId([n; 16])
    }

    fn member(n: usize, topics: &[u8]) -> Asking {
        Asking {
            id: format!("m{n:03}").as_str().into(),
            instance: None,
            topics: topics.iter().map(|t| topic(*t)).collect(),
            before: Partitions::new(),
        }
    }

    fn loads(target: &BTreeMap<Text, Partitions>) -> Vec<usize> {
        target.values().map(|p| p.values().map(BTreeSet::len).sum()).collect()
    }

    #[test]
    fn range_gives_neighbours_and_the_same_numbers_of_each_topic() {
        let topics = BTreeMap::from([(topic(1), 5), (topic(2), 5)]);
        let target = assign(RANGE, &[member(0, &[1, 2]), member(1, &[1, 2])], &topics);
        let of = |m: &str, t: u8| target.get(m).unwrap().get(&topic(t)).unwrap().clone();
        assert_eq!(of("m000", 1), BTreeSet::from([0, 1, 2]));
        assert_eq!(of("m000", 2), of("m000", 1));
        assert_eq!(of("m001", 1), BTreeSet::from([3, 4]));
    }

    proptest! {
        #[test]
        fn uniform_is_whole_even_and_keeps_what_it_can(
            subscriptions in prop::collection::vec(prop::collection::btree_set(1u8..5, 1..4), 1..12),
            counts in prop::collection::vec(0i32..17, 4),
            gone in 0usize..12,
        ) {
            let topics: BTreeMap<TopicId, i32> = (1u8..5).map(|t| (topic(t), counts[usize::from(t) - 1])).collect();
            let mut members: Vec<Asking> = subscriptions.iter().enumerate()
                .map(|(n, s)| member(n, &s.iter().copied().collect::<Vec<_>>())).collect();
            for round in 0..2 {
                let target = assign(UNIFORM, &members, &topics);
                for (id, partitions) in topics.iter().map(|(id, n)| (*id, *n)) {
                    let wanted = members.iter().any(|m| m.topics.contains(&id));
                    for p in 0..partitions {
                        let owners = target.values().filter(|t| t.get(&id).is_some_and(|s| s.contains(&p))).count();
                        prop_assert_eq!(owners, usize::from(wanted));
                    }
                }
                for m in &members {
                    prop_assert!(target[&m.id].keys().all(|t| m.topics.contains(t)));
                }
                let same = members.windows(2).all(|w| w[0].topics == w[1].topics);
                let loads = loads(&target);
                if same {
                    prop_assert!(loads.iter().max().unwrap() - loads.iter().min().unwrap() <= 1);
                }
                for m in &mut members {
                    m.before = target[&m.id].clone();
                }
                prop_assert_eq!(&assign(UNIFORM, &members, &topics), &target, "nothing changed, nothing moves");
                if round == 0 && gone < members.len() && members.len() > 1 {
                    members.remove(gone);
                }
            }
        }
    }
}
