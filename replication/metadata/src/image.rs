//! What all records so far add up to.

use crate::records::{Configs, PartitionRecord, QuotaEntity, Quotas, Record};
use ringmill_types::{CoreId, PartitionId, TopicId};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// A topic in the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    pub name: Arc<str>,
    pub id: TopicId,
    pub created_ms: i64,
    pub configs: Configs,
    pub partitions: Vec<PartitionRecord>,
}

/// Everything decided. Owned by control; changed by [`Image::apply`] only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    topics: BTreeMap<Arc<str>, Topic>,
    names: HashMap<TopicId, Arc<str>>,
    /// Topics that were deleted; their folders may still be there after a crash. Forgotten at a start.
    deleted: BTreeSet<TopicId>,
    /// By Kafka's code of the resource type and name.
    resource_configs: BTreeMap<(i8, String), Configs>,
    quotas: BTreeMap<QuotaEntity, Quotas>,
    features: BTreeMap<String, i16>,
    features_epoch: i64,
    next_partition: u64,
    next_producer: i64,
    partitions: usize,
    /// Partitions by core, kept as they come and go: placement looks at nothing else.
    load: Vec<usize>,
}

impl Image {
    /// Ids begin at 1: 0 names nothing.
    pub fn new() -> Image {
        Image { next_partition: 1, ..Image::default() }
    }

    /// Topics in name order.
    pub fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.topics.values()
    }

    pub fn named(&self, name: &str) -> Option<&Topic> {
        self.topics.get(name)
    }

    pub fn with_id(&self, id: TopicId) -> Option<&Topic> {
        self.topics.get(self.names.get(&id)?)
    }

    /// The name alone, without looking for the topic by it.
    pub fn name_of(&self, id: TopicId) -> Option<&Arc<str>> {
        self.names.get(&id)
    }

    /// Whether this topic was deleted and may have left something behind.
    pub fn is_deleted(&self, id: TopicId) -> bool {
        self.deleted.contains(&id)
    }

    /// Nothing is left of deleted topics. True when there were any: a snapshot is without them then.
    pub fn forget_deleted(&mut self) -> bool {
        !std::mem::take(&mut self.deleted).is_empty()
    }

    /// Configs of something that is no topic; `None` when it has none.
    pub fn resource(&self, kind: i8, name: &str) -> Option<&Configs> {
        self.resource_configs.get(&(kind, name.to_string()))
    }

    /// Names of the resources of a type that have configs, in order.
    pub fn resources(&self, kind: i8) -> impl Iterator<Item = &str> {
        let from = (kind, String::new());
        self.resource_configs
            .range(from..)
            .take_while(move |((k, _), _)| *k == kind)
            .map(|((_, n), _)| n.as_str())
    }

    /// Everyone who has quotas.
    pub fn quotas(&self) -> &BTreeMap<QuotaEntity, Quotas> {
        &self.quotas
    }

    /// The level that was decided for a feature, if one ever was.
    pub fn feature(&self, name: &str) -> Option<i16> {
        self.features.get(name).copied()
    }

    /// Decisions on features so far.
    pub fn features_epoch(&self) -> i64 {
        self.features_epoch
    }

    /// The id that the next partition gets.
    pub fn next_partition(&self) -> u64 {
        self.next_partition.max(1)
    }

    pub fn next_producer(&self) -> i64 {
        self.next_producer
    }

    /// Partitions of all topics.
    pub fn partition_count(&self) -> usize {
        self.partitions
    }

    /// Applies a record. One that contradicts the image (a topic that is not there) changes nothing: the journal's order
    /// makes that impossible short of damage, which the CRCs report.
    pub fn apply(&mut self, record: &Record) {
        match record {
            Record::TopicCreated { name, id, created_ms, configs, partitions } => {
                let name: Arc<str> = name.as_str().into();
                self.note_ids(partitions);
                self.names.insert(*id, name.clone());
                self.deleted.remove(id);
                let topic = Topic {
                    name: name.clone(),
                    id: *id,
                    created_ms: *created_ms,
                    configs: configs.clone(),
                    partitions: partitions.clone(),
                };
                self.topics.insert(name, topic);
            }
            Record::PartitionsAdded { id, partitions } => {
                self.note_ids(partitions);
                if let Some(topic) = self.topic_mut(*id) {
                    topic.partitions.extend_from_slice(partitions);
                }
            }
            Record::TopicDeleted { id } => {
                self.deleted.insert(*id);
                if let Some(topic) = self.names.remove(id).and_then(|name| self.topics.remove(&name)) {
                    self.partitions -= topic.partitions.len();
                    for partition in &topic.partitions {
                        *load_of(&mut self.load, partition.core) -= 1;
                    }
                }
            }
            Record::TopicConfigs { id, configs } => {
                if let Some(topic) = self.topic_mut(*id) {
                    topic.configs = configs.clone();
                }
            }
            Record::ResourceConfigs { kind, name, configs } => {
                let key = (*kind, name.clone());
                if configs.is_empty() {
                    self.resource_configs.remove(&key);
                } else {
                    self.resource_configs.insert(key, configs.clone());
                }
            }
            Record::ClientQuotas { entity, quotas } => {
                if quotas.is_empty() {
                    self.quotas.remove(entity);
                } else {
                    self.quotas.insert(entity.clone(), quotas.clone());
                }
            }
            Record::Feature { name, level, epoch } => {
                self.features.insert(name.clone(), *level);
                self.features_epoch = self.features_epoch.max(*epoch);
            }
            Record::ProducerIds { next } => self.next_producer = self.next_producer.max(*next),
            Record::PartitionIds { next } => self.next_partition = self.next_partition.max(*next),
            Record::Placed { moves } => {
                let moves: HashMap<PartitionId, CoreId> = moves.iter().copied().collect();
                for partition in self.topics.values_mut().flat_map(|t| &mut t.partitions) {
                    if let Some(core) = moves.get(&partition.id) {
                        *load_of(&mut self.load, partition.core) -= 1;
                        *load_of(&mut self.load, *core) += 1;
                        partition.core = *core;
                    }
                }
            }
        }
    }

    fn topic_mut(&mut self, id: TopicId) -> Option<&mut Topic> {
        let name = self.names.get(&id)?;
        self.topics.get_mut(name)
    }

    fn note_ids(&mut self, partitions: &[PartitionRecord]) {
        self.partitions += partitions.len();
        for partition in partitions {
            *load_of(&mut self.load, partition.core) += 1;
            self.next_partition = self.next_partition.max(partition.id.0 + 1);
        }
    }

    /// Records that make this image out of nothing, for a snapshot.
    pub fn to_records(&self) -> Vec<Record> {
        let mut out = vec![
            Record::PartitionIds { next: self.next_partition() },
            Record::ProducerIds { next: self.next_producer },
        ];
        out.extend(self.resource_configs.iter().map(|((kind, name), configs)| Record::ResourceConfigs {
            kind: *kind,
            name: name.clone(),
            configs: configs.clone(),
        }));
        out.extend(
            self.quotas.iter().map(|(entity, quotas)| Record::ClientQuotas {
                entity: entity.clone(),
                quotas: quotas.clone(),
            }),
        );
        out.extend(self.features.iter().map(|(name, level)| Record::Feature {
            name: name.clone(),
            level: *level,
            epoch: self.features_epoch,
        }));
        out.extend(self.deleted.iter().map(|id| Record::TopicDeleted { id: *id }));
        out.extend(self.topics.values().map(|t| Record::TopicCreated {
            name: t.name.to_string(),
            id: t.id,
            created_ms: t.created_ms,
            configs: t.configs.clone(),
            partitions: t.partitions.clone(),
        }));
        out
    }

    /// Cores for `count` new partitions: always the one with the fewest, the lowest number first.
    pub fn place(&self, count: usize, cores: u16) -> Vec<CoreId> {
        let mut load = self.load.clone();
        load.resize(usize::from(cores.max(1)), 0);
        let mut out = Vec::with_capacity(count);
        for _ in 0..count {
            let at = load.iter().enumerate().min_by_key(|(at, n)| (**n, *at)).map_or(0, |(at, _)| at);
            if let Some(place) = load.get_mut(at) {
                *place += 1;
            }
            out.push(CoreId(at as u16));
        }
        out
    }

    /// Moves that bring every partition onto one of `cores` cores, evenly; none when the count is as it was.
    pub fn replace_all(&self, cores: u16) -> Vec<(PartitionId, CoreId)> {
        let all: Vec<PartitionRecord> =
            self.topics.values().flat_map(|t| t.partitions.iter().copied()).collect();
        let cores = usize::from(cores.max(1));
        let moves = all.iter().enumerate().map(|(at, p)| (*p, CoreId((at % cores) as u16)));
        moves.filter(|(p, core)| p.core != *core).map(|(p, core)| (p.id, core)).collect()
    }
}

fn load_of(load: &mut Vec<usize>, core: CoreId) -> &mut usize {
    let at = usize::from(core.0);
    if load.len() <= at {
        load.resize(at + 1, 0);
    }
    load.get_mut(at).expect("made long enough above")
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringmill_types::LeaderEpoch;

    fn topic(name: &str, id: u8, first: u64, count: u64) -> Record {
        let partitions = (first..first + count).map(|id| PartitionRecord {
            id: PartitionId(id),
            core: CoreId(0),
            epoch: LeaderEpoch(0),
        });
        Record::TopicCreated {
            name: name.into(),
            id: TopicId([id; 16]),
            created_ms: 1,
            configs: Configs::new(),
            partitions: partitions.collect(),
        }
    }

    fn resource(kind: i8, name: &str, config: &str) -> Record {
        let configs = [(config.to_string(), "1".to_string())].into();
        Record::ResourceConfigs { kind, name: name.into(), configs }
    }

    #[test]
    fn a_snapshot_makes_the_same_image_and_ids_are_never_given_twice() {
        let mut image = Image::new();
        for record in [
            topic("a", 1, 1, 3),
            topic("b", 2, 4, 2),
            Record::TopicDeleted { id: TopicId([2; 16]) },
            Record::ProducerIds { next: 1000 },
            resource(4, "", "log.retention.ms"),
            resource(32, "g", "consumer.session.timeout.ms"),
            resource(32, "gone", "consumer.session.timeout.ms"),
            Record::ResourceConfigs { kind: 32, name: "gone".into(), configs: Configs::new() },
            Record::ClientQuotas {
                entity: [("user".to_string(), None), ("client-id".to_string(), Some("c".to_string()))].into(),
                quotas: [("producer_byte_rate".to_string(), 1024.5.into())].into(),
            },
            Record::Feature { name: "group.version".into(), level: 0, epoch: 3 },
        ] {
            image.apply(&record);
        }
        assert_eq!(image.next_partition(), 6, "ids of the deleted topic stay used");
        let mut again = Image::new();
        for record in image.to_records() {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            let (decoded, length) = Record::decode(&bytes).expect("own bytes");
            assert_eq!(length, bytes.len());
            again.apply(&decoded);
        }
        assert_eq!(again, image);
        assert_eq!(again.resources(32).collect::<Vec<_>>(), ["g"]);
        assert_eq!((again.feature("group.version"), again.features_epoch()), (Some(0), 3));
        assert_eq!(again.quotas().len(), 1);
    }

    #[test]
    fn placement_is_even() {
        let mut image = Image::new();
        image.apply(&topic("a", 1, 1, 5));
        assert_eq!(image.place(6, 2).iter().filter(|c| c.0 == 1).count(), 5, "core 1 catches up first");
        let moves = image.replace_all(2);
        assert_eq!(moves.len(), 2);
        image.apply(&Record::Placed { moves });
        assert_eq!(image.load, [3, 2]);
        image.apply(&Record::TopicDeleted { id: TopicId([1; 16]) });
        assert_eq!(image.load, [0, 0]);
        assert_eq!(image.place(3, 1), [CoreId(0); 3], "fewer cores than once");
    }
}
