//! `__consumer_offsets`: made when the first client looks for its coordinator.

use crate::api;
use crate::control::Control;
use ringmill_metadata::PartitionRecord;
use ringmill_metadata::records::Configs;
pub use ringmill_types::internal::OFFSETS_TOPIC;

/// The configs that it is made with.
pub fn offsets_configs(segment_bytes: i64) -> Configs {
    Configs::from([
        ("cleanup.policy".to_string(), "compact".to_string()),
        ("compression.type".to_string(), "producer".to_string()),
        ("segment.bytes".to_string(), segment_bytes.to_string()),
    ])
}

impl Control {
    /// True when it was made just now, and cores have yet to hear of it.
    pub(crate) fn ensure_offsets_topic(&mut self) -> bool {
        if self.image.named(OFFSETS_TOPIC).is_some() {
            return false;
        }
        let settings = &self.groups.settings;
        let configs = offsets_configs(settings.segment_bytes);
        let partitions = settings.partitions;
        let planned =
            api::plan_topic(self, OFFSETS_TOPIC, partitions, &configs).map_err(|(_, reason)| reason);
        match planned.and_then(|record| self.decide(&[record]).map_err(|e| e.to_string())) {
            Ok(()) => true,
            Err(reason) => {
                tracing::error!(reason, "{OFFSETS_TOPIC} could not be created: no group can store anything");
                false
            }
        }
    }

    /// Where a partition of it is; the topic is made when it is not there.
    pub(super) fn offsets_partition(&mut self, partition: i32) -> Option<PartitionRecord> {
        self.ensure_offsets_topic();
        let topic = self.image.named(OFFSETS_TOPIC)?;
        topic.partitions.get(usize::try_from(partition).ok()?).copied()
    }
}
