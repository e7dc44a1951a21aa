//! Topics as the coordinator knows them, and patterns that members subscribe with.
//!
//! A pattern is matched in time linear in the name, and its program has a limit: no pattern can hold up control.

use super::reconcile::Partitions;
use crate::embedded::Named;
use crate::messages::Text;
use regex::{Regex, RegexBuilder};
use ringmill_types::TopicId;
use std::collections::{BTreeMap, BTreeSet};

/// Bytes of a compiled pattern.
const PROGRAM_BYTES_MAX: usize = 256 << 10;
/// Bytes of a pattern as text.
const PATTERN_BYTES_MAX: usize = 4096;
/// Groups within groups.
const NESTING_MAX: u32 = 50;

/// Every topic with its id and number of partitions.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    names: BTreeMap<Text, (TopicId, i32)>,
    ids: BTreeMap<TopicId, Text>,
    /// Grows with every change.
    pub version: u64,
}

impl Topics {
    pub fn get(&self, name: &str) -> Option<(TopicId, i32)> {
        self.names.get(name).copied()
    }

    pub fn reset(&mut self, topics: Vec<(Text, TopicId, i32)>) {
        self.names.clear();
        self.ids.clear();
        self.set(topics);
    }

    pub fn set(&mut self, topics: Vec<(Text, TopicId, i32)>) {
        self.version += 1;
        for (name, id, partitions) in topics {
            if let Some((old, _)) = self.names.insert(name.clone(), (id, partitions)) {
                self.ids.remove(&old);
            }
            self.ids.insert(id, name);
        }
    }

    pub fn remove(&mut self, topics: &[Text]) {
        self.version += 1;
        for topic in topics {
            if let Some((id, _)) = self.names.remove(topic) {
                self.ids.remove(&id);
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

/// A pattern, and what it matched last.
#[derive(Debug)]
pub(crate) struct Pattern {
    regex: Regex,
    pub topics: BTreeSet<Text>,
}

impl Pattern {
    /// # Errors
    /// In words: the text is no pattern, or too large a one.
    pub fn new(text: &str) -> Result<Pattern, String> {
        if text.len() > PATTERN_BYTES_MAX {
            return Err(format!("longer than {PATTERN_BYTES_MAX} bytes"));
        }
        let build = |text: &str| {
            RegexBuilder::new(text)
                .size_limit(PROGRAM_BYTES_MAX)
                .dfa_size_limit(PROGRAM_BYTES_MAX)
                .nest_limit(NESTING_MAX)
                .build()
                .map_err(|error| error.to_string())
        };
        // By itself first: within the anchors ")(" would be balanced.
        build(text)?;
        Ok(Pattern { regex: build(&format!("\\A(?:{text})\\z"))?, topics: BTreeSet::new() })
    }

    /// Matches anew; true when the result is another than before.
    pub fn resolve(&mut self, topics: &Topics) -> bool {
        let matched = topics.names.keys().filter(|name| self.regex.is_match(name)).cloned().collect();
        let changed = matched != self.topics;
        self.topics = matched;
        changed
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
