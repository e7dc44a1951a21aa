//! The topic image as a core uses it: by name and by id, to partitions and their owners.

use crate::messages::TopicDelta;
use crate::metadata::Bodies;
use ringmill_types::topic_name::in_metrics;
use ringmill_types::{PartitionSpec, TopicId, TopicSpec};
use ringmill_wire::TopicRef;
use std::collections::HashMap;
use std::sync::Arc;

/// How a request named a topic, kept until its answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum TopicName {
    Name(Arc<str>),
    Id(TopicId),
}

impl TopicName {
    pub fn as_ref(&self) -> TopicRef<'_> {
        match self {
            TopicName::Name(name) => TopicRef::Name(name),
            TopicName::Id(id) => TopicRef::Id(*id),
        }
    }
}

/// Owned by one core; changed only by control's deltas.
#[derive(Default)]
pub(crate) struct Topics {
    by_name: HashMap<Arc<str>, Arc<TopicSpec>>,
    by_id: HashMap<TopicId, Arc<TopicSpec>>,
    /// How many topics have this name in metrics, of those whose names could collide.
    in_metrics: HashMap<Vec<u8>, usize>,
    /// What Metadata says of all of them, as far as somebody asked.
    pub bodies: Bodies,
}

impl Topics {
    pub fn apply(&mut self, delta: &TopicDelta) {
        if !delta.deletes.is_empty() || !delta.upserts.is_empty() {
            self.bodies.clear();
        }
        for id in &delta.deletes {
            if let Some(topic) = self.by_id.remove(id)
                && self.by_name.remove(&topic.name).is_some()
            {
                self.count_in_metrics(&topic.name, |count| count.saturating_sub(1));
            }
        }
        for topic in &delta.upserts {
            let topic = Arc::new(topic.clone());
            if self.by_name.insert(topic.name.clone(), topic.clone()).is_none() {
                self.count_in_metrics(&topic.name, |count| count + 1);
            }
            self.by_id.insert(topic.id, topic);
        }
    }

    fn count_in_metrics(&mut self, name: &str, next: impl Fn(usize) -> usize) {
        let Some(name) = in_metrics(name) else { return };
        let name: Vec<u8> = name.collect();
        match next(self.in_metrics.get(&name).copied().unwrap_or(0)) {
            0 => self.in_metrics.remove(&name),
            count => self.in_metrics.insert(name, count),
        };
    }

    /// Metrics could not tell a topic of this name, which there is none of, from one that there is.
    pub fn collides(&self, missing: &str) -> bool {
        in_metrics(missing).is_some_and(|name| self.in_metrics.contains_key(&name.collect::<Vec<u8>>()))
    }

    /// All topics, by name.
    pub fn in_order(&self) -> Vec<&TopicSpec> {
        let mut topics: Vec<&TopicSpec> = self.by_name.values().map(|topic| &**topic).collect();
        topics.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        topics
    }

    pub fn named(&self, name: &str) -> Option<&Arc<TopicSpec>> {
        self.by_name.get(name)
    }

    pub fn with_id(&self, id: TopicId) -> Option<&Arc<TopicSpec>> {
        self.by_id.get(&id)
    }

    pub fn partitions_of(&self, id: TopicId) -> Vec<PartitionSpec> {
        self.by_id.get(&id).map(|t| t.partitions.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(name: &str, id: u8) -> TopicSpec {
        TopicSpec { name: name.into(), id: TopicId([id; 16]), config: Arc::default(), partitions: Vec::new() }
    }

    #[test]
    fn a_name_collides_as_long_as_one_topic_has_it_in_metrics() {
        let mut topics = Topics::default();
        // Adopted folders may bring two that Kafka would not have made beside each other.
        let upserts = vec![topic("a.b", 1), topic("a_b", 2), topic("ab", 3)];
        topics.apply(&TopicDelta { upserts, ..TopicDelta::default() });
        // Changed, not made a second time.
        topics.apply(&TopicDelta { upserts: vec![topic("a.b", 1)], ..TopicDelta::default() });
        let order: Vec<&str> = topics.in_order().iter().map(|topic| &*topic.name).collect();
        assert_eq!(order, ["a.b", "a_b", "ab"]);
        for (gone, collides) in [(1, true), (3, true), (2, false)] {
            topics.apply(&TopicDelta { deletes: vec![TopicId([gone; 16])], ..TopicDelta::default() });
            assert_eq!(topics.collides("a.b"), collides, "after {gone}");
        }
        assert!(!topics.collides("ab") && topics.in_metrics.is_empty());
    }
}
