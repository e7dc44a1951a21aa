//! The assignors said plainly, over sets by member: what they decide is what the quick ones do.

use super::RANGE;
use crate::consumer::reconcile::Partitions;
use crate::messages::Text;
use ringmill_types::TopicId;
use std::collections::{BTreeMap, BTreeSet};

/// A member with everything that the other kind borrows.
#[derive(Clone, Debug)]
pub struct Member {
    pub id: Text,
    pub instance: Option<Text>,
    pub topics: BTreeSet<TopicId>,
    pub before: Partitions,
}

pub fn assign(
    assignor: &str,
    members: &[Member],
    topics: &BTreeMap<TopicId, i32>,
) -> BTreeMap<Text, Partitions> {
    let asked = |topic: &TopicId| members.iter().any(|m| m.topics.contains(topic));
    let topics: BTreeMap<TopicId, i32> =
        topics.iter().filter(|(topic, _)| asked(topic)).map(|(topic, count)| (*topic, *count)).collect();
    if assignor == RANGE { range(members, &topics) } else { uniform(members, &topics) }
}

fn range(members: &[Member], topics: &BTreeMap<TopicId, i32>) -> BTreeMap<Text, Partitions> {
    let mut target: BTreeMap<Text, Partitions> =
        members.iter().map(|m| (m.id.clone(), Partitions::new())).collect();
    for (topic, partitions) in topics {
        let mut asking: Vec<&Member> = members.iter().filter(|m| m.topics.contains(topic)).collect();
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
    members: &'a [Member],
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

fn uniform(members: &[Member], topics: &BTreeMap<TopicId, i32>) -> BTreeMap<Text, Partitions> {
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
