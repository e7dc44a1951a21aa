//! Damage that upkeep found in a segment nobody was reading: the owning core takes the partition offline.
//!
//! Only a sealed segment that the log still has counts: retention or a deleted topic may have been faster than the report.

use crate::inspect::repair;
use crate::log::Log;
use ringmill_types::{Offset, PartitionId};
use std::path::Path;

/// What the partition's readers and producers are told.
const WHY: &str = "a sealed segment is damaged or cannot be read; the broker's log names the file";

impl Log {
    /// Takes the partition offline because its sealed segment that begins at `base` is damaged. False, and nothing
    /// changes, when the log has no such segment any more.
    pub fn segment_damaged(&mut self, id: PartitionId, base: Offset, what: &str) -> bool {
        let Some(slot) = self.slot_of(id) else { return false };
        let Some(part) = self.parts.get_mut(slot.0).filter(|p| !p.deleted) else { return false };
        if !part.segments.iter().any(|s| s.sealed && s.base == base) {
            return false;
        }
        let name = format!("{}-{}", part.topic, part.index);
        let path = crate::partition::segment_path(&part.dir, base, "log");
        tracing::error!(partition = name, path = %path.display(), "{}", sentence(&name, &path, what, &self.options.data_dir));
        // A partition that is offline already keeps its first reason.
        part.offline.get_or_insert(WHY);
        true
    }
}

fn sentence(name: &str, path: &Path, what: &str, data_dir: &Path) -> String {
    format!(
        "a sealed segment of {name} {what}: {}. {name} is offline, the other partitions go on: reads of it that are not in \
         memory, and produce, are answered with KAFKA_STORAGE_ERROR until the broker is started again. Stop the broker; then \
         put a sound copy of the file in place, or run `{}`, which \
         names the offsets that are lost and keeps the rest; then start it.",
        path.display(),
        repair::command(data_dir, repair::Scope::Everything)
    )
}
