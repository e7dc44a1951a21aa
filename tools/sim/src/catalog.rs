//! Control's part: which topics there are, under which ids, on which cores. Durable at once, as control's journal is
//! before anyone hears of a change.

use ringmill_core::TopicDelta;
use ringmill_reactor::sim::SimRng;
use ringmill_types::{
    CoreId, LeaderEpoch, PartitionId, PartitionSpec, TimestampType, TopicConfig, TopicId, TopicSpec,
};
use std::sync::Arc;

/// The topic that is deleted and made again under its name.
pub(crate) const SHORT_LIVED: &str = "d";

pub(crate) const COMPACTED: &str = "compacted";

/// A partition as a client knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub name: Arc<str>,
    pub topic: TopicId,
    pub index: i32,
    pub id: PartitionId,
}

/// Topics, ids that were ever given, and where partitions are.
#[derive(Default)]
pub(crate) struct Catalog {
    pub topics: Vec<TopicSpec>,
    pub cores: u16,
    next_partition: u64,
    next_topic: u64,
    version: u64,
    /// Settings and number of partitions of the short-lived topic.
    short_lived: Option<(Arc<TopicConfig>, u64)>,
}

impl Catalog {
    /// Topics of a seed: a plain one, and some of each other kind.
    pub fn draw(rng: &mut SimRng, cores: u16) -> Catalog {
        let mut catalog = Catalog { cores, next_partition: 1, ..Catalog::default() };
        let plain = |rng: &mut SimRng| TopicConfig {
            segment_bytes: rng.between(32 << 10, 512 << 10),
            retention_ms: -1,
            timestamp_after_max_ms: i64::MAX,
            ..TopicConfig::default()
        };
        let config = plain(rng);
        let count = rng.between(1, 4);
        catalog.create("t", Arc::new(config), count);
        if rng.coin() {
            let config = TopicConfig { flush_messages: 1_000, flush_ms: 1_000, ..plain(rng) };
            catalog.create("relaxed", Arc::new(config), 1);
        }
        if rng.coin() {
            let config = TopicConfig { timestamp_type: TimestampType::LogAppendTime, ..plain(rng) };
            catalog.create("stamped", Arc::new(config), 1);
        }
        if rng.coin() {
            let config = TopicConfig {
                segment_bytes: rng.between(16 << 10, 64 << 10),
                retention_bytes: if rng.coin() { rng.between(32 << 10, 256 << 10) as i64 } else { -1 },
                retention_ms: if rng.coin() { rng.between(20, 5_000) as i64 } else { -1 },
                ..plain(rng)
            };
            catalog.create("short", Arc::new(config), 2);
        }
        if rng.coin() {
            let config = Arc::new(plain(rng));
            let count = rng.between(1, 3);
            catalog.short_lived = Some((config.clone(), count));
            catalog.create(SHORT_LIVED, config, count);
        }
        catalog
    }

    /// Adds a compacted topic, with segments so small that a story fills several.
    pub fn add_compacted(&mut self, rng: &mut SimRng) {
        let config = TopicConfig {
            segment_bytes: rng.between(8 << 10, 48 << 10),
            retention_ms: -1,
            timestamp_after_max_ms: i64::MAX,
            compacted: true,
            delete: false,
            min_cleanable_dirty_ppm: if rng.coin() { 10_000 } else { 500_000 },
            // Over before the story is, or never.
            delete_retention_ms: if rng.coin() { rng.between(1, 300) as i64 } else { 24 * 3600 * 1000 },
            ..TopicConfig::default()
        };
        self.create(COMPACTED, Arc::new(config), 2);
    }

    /// Segments 64 times as large, for batches that would fill one each.
    pub fn make_large(&mut self) {
        let configs = self.topics.iter_mut().map(|t| &mut t.config);
        for config in configs.chain(self.short_lived.as_mut().map(|(config, _)| config)) {
            let config = Arc::make_mut(config);
            config.segment_bytes *= 64;
            config.retention_bytes =
                if config.retention_bytes < 0 { -1 } else { config.retention_bytes * 64 };
        }
    }

    fn create(&mut self, name: &str, config: Arc<TopicConfig>, partitions: u64) {
        self.next_topic += 1;
        let id = TopicId(u128::from(self.next_topic).to_be_bytes());
        let first = self.next_partition;
        self.next_partition += partitions;
        let spec = |at: u64| PartitionSpec {
            index: at as i32,
            id: PartitionId(first + at),
            owner: self.owner(first + at),
            leader_epoch: LeaderEpoch(0),
        };
        let partitions = (0..partitions).map(spec).collect();
        self.topics.push(TopicSpec { name: name.into(), id, config, partitions });
    }

    fn owner(&self, id: u64) -> CoreId {
        CoreId((id % u64::from(self.cores.max(1))) as u16)
    }

    /// Places every partition anew.
    pub fn place_all(&mut self, cores: u16) {
        self.cores = cores;
        let mut topics = std::mem::take(&mut self.topics);
        for partition in topics.iter_mut().flat_map(|t| &mut t.partitions) {
            partition.owner = self.owner(partition.id.0);
        }
        self.topics = topics;
    }

    /// Deletes the short-lived topic, or makes it again; what the cores are told.
    pub fn turn_over(&mut self) -> Option<TopicDelta> {
        let (config, count) = self.short_lived.clone()?;
        self.version += 1;
        let mut delta = TopicDelta { version: self.version, ..TopicDelta::default() };
        match self.topics.iter().position(|t| &*t.name == SHORT_LIVED) {
            Some(at) => delta.deletes.push(self.topics.remove(at).id),
            None => {
                self.create(SHORT_LIVED, config, count);
                delta.upserts.extend(self.topics.last().cloned());
            }
        }
        Some(delta)
    }

    pub fn next_partition(&self) -> u64 {
        self.next_partition
    }

    pub fn exists(&self, id: TopicId) -> bool {
        self.topics.iter().any(|t| t.id == id)
    }

    pub fn named(&self, name: &str) -> Option<&TopicSpec> {
        self.topics.iter().find(|t| &*t.name == name)
    }

    /// All names that clients may choose from, whether the topic exists just now or not.
    pub fn names(&self) -> Vec<Arc<str>> {
        self.topics.iter().map(|t| t.name.clone()).collect()
    }

    /// Partitions of a topic by its name.
    pub fn places(&self, name: &str) -> Vec<Place> {
        let Some(topic) = self.named(name) else { return Vec::new() };
        let place =
            |p: &PartitionSpec| Place { name: topic.name.clone(), topic: topic.id, index: p.index, id: p.id };
        topic.partitions.iter().map(place).collect()
    }

    /// Every partition there is, with its settings.
    pub fn partitions(&self) -> impl Iterator<Item = (PartitionId, &Arc<TopicConfig>)> {
        self.topics.iter().flat_map(|t| t.partitions.iter().map(move |p| (p.id, &t.config)))
    }
}
