//! The topic image as a core uses it: by name and by id, to partitions and their owners.

use crate::messages::TopicDelta;
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
}

impl Topics {
    pub fn apply(&mut self, delta: &TopicDelta) {
        for id in &delta.deletes {
            if let Some(topic) = self.by_id.remove(id) {
                self.by_name.remove(&topic.name);
            }
        }
        for topic in &delta.upserts {
            let topic = Arc::new(topic.clone());
            self.by_name.insert(topic.name.clone(), topic.clone());
            self.by_id.insert(topic.id, topic);
        }
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
