//! The server's assignors (KIP-848): who should have which partitions. Pure functions of the members and topics.
//!
//! `uniform` gives every member as many partitions as any other, as far as subscriptions allow, and leaves what it can
//! where it is. `range` gives neighbouring partitions of each topic, the same numbers of every topic to the same member.
//!
//! A hundred members may read ten thousand topics each. So members that want the same share one list, and in here a topic
//! is its place among all topics and a partition its seat among all partitions. What is decided is what `plain` decides,
//! which the tests hold this against.

use super::reconcile::Partitions;
use crate::messages::Text;
use ringmill_types::TopicId;
use std::collections::{BTreeMap, BTreeSet};

#[cfg(test)]
mod plain;

pub(crate) const UNIFORM: &str = "uniform";
pub(crate) const RANGE: &str = "range";

/// A member as an assignor sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asking<'a> {
    pub id: &'a Text,
    pub instance: Option<&'a Text>,
    /// In order. A list that members share is gone through once.
    pub topics: &'a [TopicId],
    /// Its target so far.
    pub before: Option<&'a Partitions>,
}

/// The target of every member. `topics`, in order, has the number of partitions of each topic.
pub(crate) fn assign(
    assignor: &str,
    members: &[Asking<'_>],
    topics: &[(TopicId, i32)],
) -> BTreeMap<Text, Partitions> {
    let layout = Layout::new(members, topics);
    let targets = if assignor == RANGE { range(members, &layout) } else { uniform(members, &layout) };
    members.iter().zip(targets).map(|(member, target)| (member.id.clone(), target)).collect()
}

/// A partition by its place: all of the first topic, then all of the second, and so on.
type Seat = usize;

/// Who wants what, by places.
struct Layout<'a> {
    topics: &'a [(TopicId, i32)],
    /// The first seat of each topic, and the end of the last. One that nobody wants has no seats.
    begins: Vec<Seat>,
    /// What kind of member is at a place: those of a kind want the same.
    kinds: Vec<usize>,
    /// Whether members of a kind want the topic at a place.
    wants: Vec<Vec<bool>>,
    /// All members want the same, and are of one kind.
    is_same: bool,
}

impl<'a> Layout<'a> {
    fn new(members: &[Asking<'_>], topics: &'a [(TopicId, i32)]) -> Layout<'a> {
        let is_one =
            |a: &Asking<'_>, b: &Asking<'_>| std::ptr::eq(a.topics, b.topics) || a.topics == b.topics;
        let is_same = members.windows(2).all(|pair| matches!(pair, [a, b] if is_one(a, b)));
        let mut lists: Vec<&[TopicId]> = Vec::new();
        let mut known: BTreeMap<*const [TopicId], usize> = BTreeMap::new();
        let mut kinds = Vec::with_capacity(members.len());
        for member in members {
            let new = lists.len();
            let kind =
                if is_same { 0 } else { *known.entry(std::ptr::from_ref(member.topics)).or_insert(new) };
            if kind == new {
                lists.push(member.topics);
            }
            kinds.push(kind);
        }
        let wants: Vec<Vec<bool>> = lists.iter().map(|list| marked(list, topics)).collect();
        let mut begins = Vec::with_capacity(topics.len() + 1);
        let mut end = 0;
        for (place, (_, partitions)) in topics.iter().enumerate() {
            begins.push(end);
            if wants.iter().any(|wants| wants.get(place) == Some(&true)) {
                end += usize::try_from(*partitions).unwrap_or(0);
            }
        }
        begins.push(end);
        Layout { topics, begins, kinds, wants, is_same }
    }

    /// How many there are.
    fn seats(&self) -> usize {
        self.begins.last().copied().unwrap_or(0)
    }

    fn seats_of(&self, topic: usize) -> std::ops::Range<Seat> {
        let at = |place: usize| self.begins.get(place).copied().unwrap_or(0);
        at(topic)..at(topic + 1)
    }

    fn seat(&self, topic: usize, partition: i32) -> Option<Seat> {
        let seats = self.seats_of(topic);
        let seat = seats.start + usize::try_from(partition).ok()?;
        (seat < seats.end).then_some(seat)
    }

    /// The place of the topic that a seat belongs to.
    fn topic_of(&self, seat: Seat) -> usize {
        self.begins.partition_point(|begin| *begin <= seat).saturating_sub(1)
    }

    fn find(&self, topic: &TopicId) -> Option<usize> {
        self.topics.binary_search_by_key(topic, |(topic, _)| *topic).ok()
    }

    fn kind(&self, member: usize) -> usize {
        self.kinds.get(member).copied().unwrap_or(0)
    }

    fn wants(&self, kind: usize, topic: usize) -> bool {
        self.wants.get(kind).is_some_and(|wants| wants.get(topic) == Some(&true))
    }

    fn partitions(&self, seats: &BTreeSet<Seat>) -> Partitions {
        let mut out: Vec<(TopicId, BTreeSet<i32>)> = Vec::new();
        let mut seats = seats.iter().copied().peekable();
        while let Some(first) = seats.peek().copied() {
            let place = self.topic_of(first);
            let (of, Some((topic, _))) = (self.seats_of(place), self.topics.get(place)) else { break };
            let mut partitions = BTreeSet::new();
            while let Some(seat) = seats.next_if(|seat| *seat < of.end) {
                partitions.extend(i32::try_from(seat - of.start));
            }
            out.push((*topic, partitions));
        }
        out.into_iter().collect()
    }
}

/// Of each topic, whether it is in the list; both are in order.
fn marked(list: &[TopicId], topics: &[(TopicId, i32)]) -> Vec<bool> {
    let mut list = list.iter().peekable();
    let is_in = topics.iter().map(|(topic, _)| {
        while list.next_if(|listed| *listed < topic).is_some() {}
        list.peek() == Some(&topic)
    });
    is_in.collect()
}

fn range(members: &[Asking<'_>], layout: &Layout<'_>) -> Vec<Partitions> {
    let mut targets = vec![Partitions::new(); members.len()];
    // Static members first: their places do not move with the ids of a restart.
    let mut order: Vec<(usize, &Asking<'_>)> = members.iter().enumerate().collect();
    order.sort_by_key(|(_, m)| (m.instance.is_none(), m.instance, m.id));
    for (place, (topic, partitions)) in layout.topics.iter().enumerate() {
        let wants = |member: usize| layout.wants(layout.kind(member), place);
        let asking = || order.iter().map(|(member, _)| *member).filter(|member| wants(*member));
        let Ok(count) = i32::try_from(asking().count()) else { continue };
        if count == 0 {
            continue;
        }
        let (each, more) = (partitions / count, partitions % count);
        let mut next = 0;
        for (nth, member) in (0..count).zip(asking()) {
            let end = next + each + i32::from(nth < more);
            if end <= next {
                // Nor do those behind it get any.
                break;
            }
            if let Some(target) = targets.get_mut(member) {
                target.insert(*topic, (next..end).collect());
            }
            next = end;
        }
    }
    targets
}

/// Members by place, with what they have so far.
struct Table<'a> {
    layout: &'a Layout<'a>,
    held: Vec<BTreeSet<Seat>>,
    /// (number of partitions, place) of all members of each kind.
    loads: Vec<BTreeSet<(usize, usize)>>,
}

impl Table<'_> {
    fn new<'a>(layout: &'a Layout<'a>, held: Vec<BTreeSet<Seat>>) -> Table<'a> {
        let mut loads = vec![BTreeSet::new(); layout.wants.len()];
        for ((place, held), kind) in held.iter().enumerate().zip(&layout.kinds) {
            if let Some(loads) = loads.get_mut(*kind) {
                loads.insert((held.len(), place));
            }
        }
        Table { layout, held, loads }
    }

    fn load(&self, place: usize) -> usize {
        self.held.get(place).map_or(0, BTreeSet::len)
    }

    fn give(&mut self, place: usize, seat: Seat) {
        let load = self.load(place);
        if self.held.get_mut(place).is_some_and(|held| held.insert(seat)) {
            self.weigh(place, load, load + 1);
        }
    }

    fn take(&mut self, place: usize, seat: Seat) {
        let load = self.load(place);
        if self.held.get_mut(place).is_some_and(|held| held.remove(&seat)) {
            self.weigh(place, load, load - 1);
        }
    }

    fn weigh(&mut self, place: usize, before: usize, now: usize) {
        if let Some(loads) = self.loads.get_mut(self.layout.kind(place)) {
            loads.remove(&(before, place));
            loads.insert((now, place));
        }
    }

    /// The member with the fewest that wants the topic.
    fn least(&self, topic: usize) -> Option<(usize, usize)> {
        let asking = self.loads.iter().enumerate().filter(|(kind, _)| self.layout.wants(*kind, topic));
        asking.filter_map(|(_, loads)| loads.first()).min().copied()
    }

    /// The fewest that anybody has.
    fn fewest(&self) -> usize {
        self.loads.iter().filter_map(|loads| loads.first()).map(|(load, _)| *load).min().unwrap_or(0)
    }
}

fn uniform(members: &[Asking<'_>], layout: &Layout<'_>) -> Vec<Partitions> {
    let (held, open) = keep(layout, members);
    let mut table = Table::new(layout, held);
    // In the order of numbers, topic by topic: neighbours go to different members.
    for seat in open {
        if let Some((_, place)) = table.least(layout.topic_of(seat)) {
            table.give(place, seat);
        }
    }
    if !layout.is_same {
        balance(&mut table);
    }
    table.held.iter().map(|held| layout.partitions(held)).collect()
}

/// Leaves with members what they had and may keep; gives the rest. Where all want the same, nobody keeps more than a fair
/// share, and as few as can be keep the larger one. What each has then, and what is left.
fn keep(layout: &Layout<'_>, members: &[Asking<'_>]) -> (Vec<BTreeSet<Seat>>, Vec<Seat>) {
    let mut kept = Vec::with_capacity(members.len());
    let mut open = vec![true; layout.seats()];
    let count = members.len().max(1);
    let (share, mut larger) = (open.len() / count, open.len() % count);
    for (place, member) in members.iter().enumerate() {
        let mut held = Vec::new();
        let mut left = if layout.is_same { share } else { usize::MAX };
        for (topic, partitions) in member.before.into_iter().flatten() {
            let topic = layout.find(topic).filter(|topic| layout.wants(layout.kind(place), *topic));
            let Some(topic) = topic else { continue };
            for seat in partitions.iter().filter_map(|partition| layout.seat(topic, *partition)) {
                let Some(open) = open.get_mut(seat).filter(|open| **open) else { continue };
                if left == 0 && larger > 0 && held.len() == share {
                    larger -= 1;
                    left = 1;
                }
                if left > 0 {
                    left -= 1;
                    *open = false;
                    held.push(seat);
                }
            }
        }
        kept.push(held.into_iter().collect());
    }
    let open = open.iter().enumerate().filter_map(|(seat, open)| open.then_some(seat)).collect();
    (kept, open)
}

/// Moves partitions from members with more to members with at least two fewer, until none can. Every move makes the loads
/// more even, so this ends.
fn balance(table: &mut Table<'_>) {
    let layout = table.layout;
    loop {
        let mut moved = false;
        let mut most: Vec<(usize, usize)> = table.loads.iter().flatten().copied().collect();
        most.sort_unstable_by(|a, b| b.cmp(a));
        for (_, place) in most {
            if table.fewest() + 2 > table.load(place) {
                continue;
            }
            let held: Vec<Seat> = table.held.get(place).into_iter().flatten().copied().collect();
            for seats in held.chunk_by(|a, b| layout.topic_of(*a) == layout.topic_of(*b)) {
                let Some(topic) = seats.first().map(|seat| layout.topic_of(*seat)) else { continue };
                for seat in seats {
                    let Some((load, to)) = table.least(topic) else { break };
                    if load + 2 > table.load(place) {
                        break;
                    }
                    table.take(place, *seat);
                    table.give(to, *seat);
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
    use super::plain::Member;
    use super::*;
    use proptest::prelude::*;

    fn topic(n: u8) -> TopicId {
        TopicId([n; 16])
    }

    fn member(n: usize, topics: &[u8]) -> Member {
        Member {
            id: format!("m{n:03}").as_str().into(),
            instance: None,
            topics: topics.iter().map(|t| topic(*t)).collect(),
            before: Partitions::new(),
        }
    }

    /// What both kinds of assignor decide; of members that want the same, those with even places share a list.
    fn decided(
        assignor: &str,
        members: &[Member],
        topics: &BTreeMap<TopicId, i32>,
    ) -> BTreeMap<Text, Partitions> {
        let lists: Vec<Vec<TopicId>> = members.iter().map(|m| m.topics.iter().copied().collect()).collect();
        let shared = |place: usize| {
            let first = lists.iter().position(|list| *list == lists[place]).unwrap();
            &lists[if place.is_multiple_of(2) { first } else { place }]
        };
        let asking = members.iter().enumerate().map(|(place, m)| Asking {
            id: &m.id,
            instance: m.instance.as_ref(),
            topics: shared(place),
            before: Some(&m.before),
        });
        let rows: Vec<(TopicId, i32)> = topics.iter().map(|(id, n)| (*id, *n)).collect();
        let target = assign(assignor, &asking.collect::<Vec<_>>(), &rows);
        assert_eq!(target, plain::assign(assignor, members, topics));
        target
    }

    fn loads(target: &BTreeMap<Text, Partitions>) -> Vec<usize> {
        target.values().map(|p| p.values().map(BTreeSet::len).sum()).collect()
    }

    #[test]
    fn range_gives_neighbours_and_the_same_numbers_of_each_topic() {
        let topics = BTreeMap::from([(topic(1), 5), (topic(2), 5)]);
        let target = decided(RANGE, &[member(0, &[1, 2]), member(1, &[1, 2])], &topics);
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
            let mut members: Vec<Member> = subscriptions.iter().enumerate()
                .map(|(n, s)| member(n, &s.iter().copied().collect::<Vec<_>>())).collect();
            for round in 0..2 {
                let target = decided(UNIFORM, &members, &topics);
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
                prop_assert_eq!(&decided(UNIFORM, &members, &topics), &target, "nothing changed, nothing moves");
                if round == 0 && gone < members.len() && members.len() > 1 {
                    members.remove(gone);
                }
            }
        }

        /// Whatever members had before, and whoever of them is static.
        #[test]
        fn what_is_decided_is_what_is_decided_plainly(
            subscriptions in prop::collection::vec(
                (prop::collection::btree_set(1u8..6, 0..5), prop::option::of(0u8..9)), 0..9),
            counts in prop::collection::vec(-1i32..9, 4),
            had in prop::collection::vec((0usize..9, 1u8..7, 0i32..10), 0..60),
        ) {
            let topics: BTreeMap<TopicId, i32> = (1u8..5).map(|t| (topic(t), counts[usize::from(t) - 1])).collect();
            let mut members: Vec<Member> = subscriptions.iter().enumerate()
                .map(|(n, (s, _))| member(n, &s.iter().copied().collect::<Vec<_>>())).collect();
            for (member, (_, instance)) in members.iter_mut().zip(&subscriptions) {
                member.instance = instance.map(|n| format!("i{n}").as_str().into());
            }
            for (place, of, partition) in had {
                if let Some(member) = members.get_mut(place) {
                    member.before.entry(topic(of)).or_default().insert(partition);
                }
            }
            for assignor in [UNIFORM, RANGE] {
                decided(assignor, &members, &topics);
            }
        }
    }
}
