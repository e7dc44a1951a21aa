//! What the members of a group read: their names and patterns as topics, found once for all that want the same.
//!
//! A hundred members may want ten thousand topics each, by one pattern or by one list. So members share such a set, what it
//! stands for is kept until topics change, and what is made of all sets together until one of them does.

use super::group::{About, ConsumerGroup};
use super::subscribe::{Row, Topics, order};
use crate::messages::Text;
use ringmill_types::TopicId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Names of topics that a member says or its pattern matches; whether or not there are such topics.
pub(crate) type Names = Arc<BTreeSet<Text>>;

/// One set of names, and the topics it stands for.
#[derive(Debug)]
struct Found {
    names: Names,
    rows: Arc<[Row]>,
    /// Of `rows`, in their own order.
    ids: Vec<TopicId>,
}

/// All that a group reads, of the topics of one version.
#[derive(Debug)]
pub(crate) struct Reading {
    version: Option<u64>,
    found: Vec<Found>,
    /// Of all sets together, by name.
    rows: Arc<[Row]>,
    /// Of `rows`.
    hash: i64,
    /// Of `rows`, in the order of ids: with the number of partitions.
    pub topics: Vec<(TopicId, i32)>,
}

impl Default for Reading {
    fn default() -> Reading {
        Reading {
            version: None,
            found: Vec::new(),
            rows: Arc::default(),
            hash: hash(&[]),
            topics: Vec::new(),
        }
    }
}

impl Reading {
    /// `sets` are of all members, each once, in the same order as long as they are the same.
    fn update(&mut self, sets: Vec<Names>, topics: &Topics) {
        let is_current = self.version == Some(topics.version);
        let is_known = |found: &Found, set: &Names| is_current && Arc::ptr_eq(&found.names, set);
        if self.found.len() == sets.len() && self.found.iter().zip(&sets).all(|(f, set)| is_known(f, set)) {
            return;
        }
        let mut before = std::mem::take(&mut self.found);
        let found = sets.into_iter().map(|set| {
            let place = before.iter().position(|found| is_known(found, &set));
            place.map_or_else(|| Found::new(set, topics), |place| before.swap_remove(place))
        });
        self.found = found.collect();
        self.version = Some(topics.version);
        let rows = together(&self.found);
        // The longest part, and most often for nothing: a topic changed that is not read here.
        if rows != self.rows {
            self.hash = hash(&rows);
            self.topics = rows.iter().map(|row| (row.id, row.partitions)).collect();
            self.topics.sort_unstable();
            self.rows = rows;
        }
    }

    fn ids(&self, names: &Names) -> &[TopicId] {
        let found = self.found.iter().find(|found| Arc::ptr_eq(&found.names, names));
        found.map_or(&[], |found| &found.ids)
    }
}

impl Found {
    fn new(names: Names, topics: &Topics) -> Found {
        let rows: Arc<[Row]> = topics.find(&names).into();
        let mut ids: Vec<TopicId> = rows.iter().map(|row| row.id).collect();
        ids.sort_unstable();
        Found { names, rows, ids }
    }
}

/// Each topic once, by name.
fn together(found: &[Found]) -> Arc<[Row]> {
    if let [found] = found {
        return found.rows.clone();
    }
    let mut rows: Vec<&Row> = found.iter().flat_map(|found| found.rows.iter()).collect();
    // Of runs in order, which this sort only merges.
    rows.sort_by(|a, b| order(&a.name, &b.name));
    rows.dedup();
    rows.into_iter().cloned().collect()
}

fn hash(rows: &[Row]) -> i64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let mut eat = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    };
    for row in rows {
        eat(row.name.as_bytes());
        eat(&row.id.0);
        eat(&row.partitions.to_be_bytes());
    }
    hash as i64
}

/// Ids of members that say names and have a pattern, too: by where both sets are.
pub(crate) type Both = BTreeMap<[*const BTreeSet<Text>; 2], Vec<TopicId>>;

impl ConsumerGroup {
    /// The one that members with the same names share.
    pub fn share(&mut self, names: Names) -> Names {
        if let Some(shared) = self.lists.get(&names) {
            return shared.clone();
        }
        self.lists.insert(names.clone());
        names
    }

    /// What a member says, and what its pattern matches.
    fn sets_of<'a>(&'a self, about: &'a About) -> impl Iterator<Item = &'a Names> {
        let pattern = about.regex.as_ref().and_then(|regex| self.patterns.get(regex));
        [Some(&about.topics), pattern.map(|pattern| &pattern.topics)]
            .into_iter()
            .flatten()
            .filter(|names| !names.is_empty())
    }

    /// The sets of all members, each once.
    fn sets(&self) -> BTreeMap<*const BTreeSet<Text>, &Names> {
        let sets = self.members.values().flat_map(|member| self.sets_of(&member.about));
        sets.map(|names| (Arc::as_ptr(names), names)).collect()
    }

    /// All that members want, whether or not there are such topics.
    pub fn subscribed(&self) -> BTreeSet<&Text> {
        self.sets().into_values().flat_map(|names| names.iter()).collect()
    }

    /// Finds what members want among the topics as they are now.
    pub fn read(&mut self, topics: &Topics) {
        let sets = self.sets().into_values().cloned().collect();
        self.reading.update(sets, topics);
        self.lists.retain(|names| Arc::strong_count(names) > 1);
    }

    /// A number that changes with the topics the group reads and their partitions.
    pub fn hash_of(&mut self, topics: &Topics) -> i64 {
        self.read(topics);
        if self.reading.found.is_empty() { 0 } else { self.reading.hash }
    }

    pub fn both(&self) -> Both {
        let mut both = Both::new();
        for member in self.members.values() {
            let mut sets = self.sets_of(&member.about);
            if let (Some(said), Some(matched)) = (sets.next(), sets.next()) {
                both.entry([Arc::as_ptr(said), Arc::as_ptr(matched)]).or_insert_with(|| {
                    let mut ids = [self.reading.ids(said), self.reading.ids(matched)].concat();
                    ids.sort();
                    ids.dedup();
                    ids
                });
            }
        }
        both
    }

    /// What a member wants, as it was read last.
    pub fn wanted<'a>(&'a self, about: &'a About, both: &'a Both) -> &'a [TopicId] {
        let mut sets = self.sets_of(about);
        match (sets.next(), sets.next()) {
            (None, _) => &[],
            (Some(one), None) => self.reading.ids(one),
            (Some(said), Some(matched)) => {
                both.get(&[Arc::as_ptr(said), Arc::as_ptr(matched)]).map_or(&[], |ids| ids)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::consumer::group::ConsumerMember;
    use crate::consumer::subscribe::Pattern;
    use proptest::prelude::*;

    const PATTERNS: [&str; 4] = ["", "a.*", ".*[1-4]", "none"];

    #[derive(Clone, Debug)]
    enum Act {
        Wants { member: u8, names: BTreeSet<u8>, pattern: usize },
        Leaves(u8),
        Topic(u8, i32),
        Deleted(u8),
        Matched,
    }

    fn act() -> impl Strategy<Value = Act> {
        let names = prop::collection::btree_set(0u8..8, 0..5);
        prop_oneof![
            (0u8..4, names, 0usize..4).prop_map(|(member, names, pattern)| Act::Wants {
                member,
                names,
                pattern
            }),
            (0u8..4).prop_map(Act::Leaves),
            (0u8..8, 1i32..4).prop_map(|(topic, partitions)| Act::Topic(topic, partitions)),
            (0u8..8).prop_map(Act::Deleted),
            Just(Act::Matched),
        ]
    }

    fn name(topic: u8) -> Text {
        format!("{}{topic}", if topic.is_multiple_of(2) { "a" } else { "b" }).as_str().into()
    }

    fn happens(act: Act, group: &mut ConsumerGroup, topics: &mut Topics) {
        match act {
            Act::Wants { member, names, pattern } => {
                let id: Text = format!("m{member}").as_str().into();
                let names: BTreeSet<Text> = names.into_iter().map(name).collect();
                let names = group.share(names.into());
                let member = group.members.entry(id.clone()).or_insert_with(|| ConsumerMember::new(id, None));
                let regex = Some(PATTERNS[pattern].to_string());
                member.about = About { topics: names, regex, ..About::default() };
                if pattern > 0 {
                    let text = PATTERNS[pattern];
                    group.patterns.entry(text.into()).or_insert_with(|| Pattern::new(text).unwrap());
                }
            }
            Act::Leaves(member) => drop(group.members.remove(format!("m{member}").as_str())),
            // Ids in another order than names.
            Act::Topic(topic, n) => topics.set(vec![(name(topic), TopicId([100 - topic; 16]), n)]),
            Act::Deleted(topic) => topics.remove(&[name(topic)]),
            Act::Matched => {
                for pattern in group.patterns.values_mut() {
                    pattern.resolve(topics);
                }
            }
        }
    }

    /// What a member wants, by looking up every name anew.
    fn plainly(group: &ConsumerGroup, member: &ConsumerMember) -> BTreeSet<Text> {
        let pattern = member.about.regex.as_ref().and_then(|regex| group.patterns.get(regex));
        member.about.topics.iter().chain(pattern.into_iter().flat_map(|p| p.topics.iter())).cloned().collect()
    }

    fn hash_plainly(names: &BTreeSet<Text>, topics: &Topics) -> i64 {
        let known = names.iter().filter_map(|name| Some((name, topics.get(name)?)));
        let bytes = known.flat_map(|(name, (id, partitions))| {
            [name.as_bytes(), &id.0, &partitions.to_be_bytes()].concat()
        });
        let eat = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        if names.is_empty() { 0 } else { bytes.fold(0xcbf2_9ce4_8422_2325, eat) as i64 }
    }

    proptest! {
        #[test]
        fn what_is_kept_is_what_would_be_found_anew(acts in prop::collection::vec(act(), 1..40)) {
            let (mut group, mut topics) = (ConsumerGroup::new(), Topics::default());
            for act in acts {
                happens(act, &mut group, &mut topics);
                let names: BTreeSet<Text> = group.members.values().flat_map(|m| plainly(&group, m)).collect();
                prop_assert_eq!(group.hash_of(&topics), hash_plainly(&names, &topics));
                let all: BTreeMap<TopicId, i32> = names.iter().filter_map(|name| topics.get(name)).collect();
                prop_assert_eq!(&group.reading.topics, &all.into_iter().collect::<Vec<_>>());
                let both = group.both();
                for member in group.members.values() {
                    let wanted = plainly(&group, member);
                    let wanted: BTreeMap<TopicId, i32> = wanted.iter().filter_map(|n| topics.get(n)).collect();
                    prop_assert_eq!(group.wanted(&member.about, &both), &wanted.into_keys().collect::<Vec<_>>());
                }
                let said: BTreeSet<&Names> = group.members.values().map(|m| &m.about.topics).collect();
                prop_assert_eq!(group.lists.len(), said.len(), "what nobody says is not kept");
            }
        }
    }
}
