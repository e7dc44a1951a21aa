//! Topics as the coordinator knows them, and patterns that members subscribe with.
//!
//! A pattern is matched in time linear in the name, and its program has a limit; but a large program takes milliseconds
//! for a long name, and there may be ten thousand. So only small patterns over few names are matched here and now. The
//! others are work that is handed out ([`Matching`]) and comes back as an event ([`Matched`]), as in Kafka: until then
//! their members have what they had before.

use super::reading::Names;
use super::reconcile::Partitions;
use crate::embedded::Named;
use crate::messages::Text;
use regex::{Regex, RegexBuilder};
use ringmill_types::TopicId;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Bytes of a compiled pattern.
const PROGRAM_BYTES_MAX: usize = 256 << 10;
/// One with a larger program is not matched here and now: each byte of a name may take a look at all of it.
const SMALL_PROGRAM_BYTES: usize = 8 << 10;
/// Bytes of names that a small pattern is matched with here and now; with the above, a millisecond or two at worst.
const FEW_NAMES_BYTES: usize = 16 << 10;
/// Bytes of a pattern as text.
const PATTERN_BYTES_MAX: usize = 4096;
/// Groups within groups.
const NESTING_MAX: u32 = 50;

/// Names are looked up one by one when there are so many times more topics; otherwise both are gone through side by side.
const FEW_NAMES: usize = 16;

/// A topic under the name that all who read it share.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub name: Text,
    pub id: TopicId,
    pub partitions: i32,
}

impl PartialEq for Row {
    fn eq(&self, other: &Row) -> bool {
        (self.id, self.partitions) == (other.id, other.partitions)
            && order(&self.name, &other.name) == Ordering::Equal
    }
}

/// Most names that are compared are the same ones, and long.
pub(crate) fn order(a: &Text, b: &Text) -> Ordering {
    if Arc::ptr_eq(a, b) { Ordering::Equal } else { a.cmp(b) }
}

/// Every topic with its id and number of partitions.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    names: BTreeMap<Text, (TopicId, i32)>,
    ids: BTreeMap<TopicId, Text>,
    /// Grows with every change.
    pub version: u64,
    /// Of all names together.
    names_bytes: usize,
    /// All names of a version, for those who look through them elsewhere.
    listed: Option<(u64, Arc<[Text]>)>,
}

impl Topics {
    pub fn get(&self, name: &str) -> Option<(TopicId, i32)> {
        self.names.get(name).copied()
    }

    /// Those of the names that there are, in their order.
    pub fn find(&self, names: &BTreeSet<Text>) -> Vec<Row> {
        let row = |(name, (id, partitions)): (&Text, &(TopicId, i32))| Row {
            name: name.clone(),
            id: *id,
            partitions: *partitions,
        };
        if names.len().saturating_mul(FEW_NAMES) < self.names.len() {
            return names.iter().filter_map(|name| self.names.get_key_value(name).map(row)).collect();
        }
        let mut there = self.names.iter().peekable();
        let found = names.iter().filter_map(|name| {
            while there.next_if(|(known, _)| order(known, name) == Ordering::Less).is_some() {}
            there.next_if(|(known, _)| order(known, name) == Ordering::Equal).map(row)
        });
        found.collect()
    }

    pub fn reset(&mut self, topics: Vec<(Text, TopicId, i32)>) {
        self.names.clear();
        self.ids.clear();
        self.names_bytes = 0;
        self.set(topics);
    }

    pub fn set(&mut self, topics: Vec<(Text, TopicId, i32)>) {
        self.version += 1;
        for (name, id, partitions) in topics {
            match self.names.insert(name.clone(), (id, partitions)) {
                Some((old, _)) => drop(self.ids.remove(&old)),
                None => self.names_bytes += name.len(),
            }
            self.ids.insert(id, name);
        }
    }

    pub fn remove(&mut self, topics: &[Text]) {
        self.version += 1;
        for topic in topics {
            if let Some((id, _)) = self.names.remove(topic) {
                self.ids.remove(&id);
                self.names_bytes = self.names_bytes.saturating_sub(topic.len());
            }
        }
    }

    fn list(&mut self) -> Arc<[Text]> {
        match &self.listed {
            Some((version, names)) if *version == self.version => names.clone(),
            _ => {
                let names: Arc<[Text]> = self.names.keys().cloned().collect();
                self.listed = Some((self.version, names.clone()));
                names
            }
        }
    }

    /// By id, as far as the partitions exist.
    pub fn known(&self, named: &Named) -> Partitions {
        let known = named.iter().filter_map(|(name, partitions)| {
            let (id, count) = self.get(name)?;
            let there: BTreeSet<i32> = partitions.range(0..count.max(0)).copied().collect();
            (!there.is_empty()).then_some((id, there))
        });
        known.collect()
    }

    /// By name, as far as the topics exist.
    pub fn named(&self, places: impl Iterator<Item = (TopicId, i32)>) -> Named {
        let mut named = Named::new();
        for (topic, partition) in places {
            if let Some(name) = self.ids.get(&topic) {
                named.entry(name.to_string()).or_default().insert(partition);
            }
        }
        named
    }
}

/// Names to be looked through by somebody who has time.
#[derive(Clone, Debug)]
pub struct Matching {
    group: Text,
    pattern: String,
    regex: Regex,
    names: Arc<[Text]>,
    version: u64,
}

/// What a pattern matched among the topics of some time.
#[derive(Clone, Debug)]
pub struct Matched {
    pub(crate) group: Text,
    pub(crate) pattern: String,
    pub(crate) topics: Names,
    pub(crate) version: u64,
}

impl Matching {
    /// Takes as long as it takes: not for the thread that coordinates.
    pub fn run(self) -> Matched {
        let topics: BTreeSet<Text> =
            self.names.iter().filter(|name| self.regex.is_match(name)).cloned().collect();
        Matched { group: self.group, pattern: self.pattern, topics: topics.into(), version: self.version }
    }
}

/// A pattern, and what it matched last.
#[derive(Debug)]
pub(crate) struct Pattern {
    regex: Regex,
    is_small: bool,
    pub topics: Names,
    /// `topics` is what it matches of the topics of this version.
    matched_with: Option<u64>,
    /// Somebody matches it with the topics of this version. One piece of work for each pattern at a time.
    handed_out: Option<u64>,
}

impl Pattern {
    /// # Errors
    /// In words: the text is no pattern, or too large a one.
    pub fn new(text: &str) -> Result<Pattern, String> {
        if text.len() > PATTERN_BYTES_MAX {
            return Err(format!("longer than {PATTERN_BYTES_MAX} bytes"));
        }
        let build = |text: &str, bytes_max| {
            RegexBuilder::new(text)
                .size_limit(bytes_max)
                .dfa_size_limit(PROGRAM_BYTES_MAX)
                .nest_limit(NESTING_MAX)
                .build()
                .map_err(|error| error.to_string())
        };
        // By itself first: within the anchors ")(" would be balanced.
        build(text, PROGRAM_BYTES_MAX)?;
        let whole = format!("\\A(?:{text})\\z");
        let (regex, is_small) = match build(&whole, SMALL_PROGRAM_BYTES) {
            Ok(regex) => (regex, true),
            Err(_) => (build(&whole, PROGRAM_BYTES_MAX)?, false),
        };
        Ok(Pattern { regex, is_small, topics: Names::default(), matched_with: None, handed_out: None })
    }

    /// Matches anew where that is due and short work; true when the result is another than before.
    pub fn resolve(&mut self, topics: &Topics) -> bool {
        let is_short = self.is_small && topics.names_bytes <= FEW_NAMES_BYTES;
        if !is_short || self.matched_with == Some(topics.version) {
            return false;
        }
        self.handed_out = None;
        let matched: BTreeSet<Text> =
            topics.names.keys().filter(|name| self.regex.is_match(name)).cloned().collect();
        self.set(matched.into(), topics.version)
    }

    /// What was handed out has come back; true when it is news.
    pub fn take(&mut self, matched: Names, version: u64) -> bool {
        if self.handed_out != Some(version) {
            return false;
        }
        self.handed_out = None;
        self.set(matched, version)
    }

    fn set(&mut self, matched: Names, version: u64) -> bool {
        self.matched_with = Some(version);
        let changed = matched != self.topics;
        if changed {
            self.topics = matched;
        }
        changed
    }

    /// The topics it was matched with, as a number for its record.
    pub fn version(&self) -> i64 {
        self.matched_with.and_then(|version| i64::try_from(version).ok()).unwrap_or(i64::MAX)
    }

    /// The work that is due and is left to others.
    pub fn hand_out(&mut self, group: &Text, text: &str, topics: &mut Topics) -> Option<Matching> {
        if self.matched_with == Some(topics.version) || self.handed_out.is_some() {
            return None;
        }
        self.handed_out = Some(topics.version);
        Some(Matching {
            group: group.clone(),
            pattern: text.to_string(),
            regex: self.regex.clone(),
            names: topics.list(),
            version: topics.version,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Pattern, Topics};
    use ringmill_types::TopicId;

    #[test]
    fn a_pattern_matches_whole_names_and_cannot_blow_up() {
        let mut topics = Topics::default();
        let names = ["a", "ab", "abc", "xabc", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!"];
        topics.set(names.iter().map(|n| ((*n).into(), TopicId::ZERO, 1)).collect());
        let matched = |text: &str| {
            let mut pattern = Pattern::new(text).unwrap();
            assert_eq!(pattern.resolve(&topics), !pattern.topics.is_empty());
            assert!(!pattern.resolve(&topics));
            pattern.topics.iter().map(|t| t.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(matched("a|abc"), ["a", "abc"]);
        assert_eq!(matched("ab.*"), ["ab", "abc"]);
        assert_eq!(matched("(a+)+b"), ["ab"]);
        for bad in ["(", "a)|(b", "[", "(((a{100}){100}){100}){100}", "\\1", &"(".repeat(5000)] {
            assert!(Pattern::new(bad).is_err(), "{bad}");
        }
    }
}
