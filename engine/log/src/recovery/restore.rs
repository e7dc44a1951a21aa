//! What a start gives back to the partitions: what the checkpoint knew, folders that were put in place, segments that
//! retention took meanwhile.

use super::error::{RecoveryError, at};
use crate::checkpointing::sync_names;
use crate::format::checkpoint::PartitionState;
use crate::log::Log;
use crate::partition::{MISSES_ACTIVE, Partition, Segment};
use ringmill_reactor::Fs;
use ringmill_types::{GroupSeq, Offset};
use std::io;

/// Segments that a checkpoint names, whose active one is not there.
pub(super) struct Retired {
    slot: u32,
    /// Where their batches end.
    end: Offset,
    segments: Vec<Segment>,
}

impl Log {
    /// Puts back what the checkpoint knew of a partition.
    pub(super) fn restore(&mut self, slot: u32, state: &PartitionState, is_clean: bool) {
        let first_uid = self.next_serial + 1;
        self.next_serial += state.segments.len() as u64 + 1;
        let Some(part) = self.parts.get_mut(slot) else { return };
        part.restore(state, first_uid, is_clean);
    }

    /// A partition that only the checkpoint knows: its topic was deleted.
    pub(super) fn add_doomed(&mut self, state: &PartitionState) -> u32 {
        let mut part = Partition::named(state, &self.options.data_dir);
        part.deleted = true;
        self.parts.push(part)
    }

    pub(super) fn doom(&mut self, slot: u32) {
        self.drop_tail(slot);
        if let Some(part) = self.parts.get_mut(slot) {
            part.deleted = true;
            let id = part.id;
            self.by_id.remove(&id);
            self.destage.remove_dirs.push_back(slot);
            self.checkpoint.note_deleted(slot, id);
        }
    }

    /// The newest checkpoint may name a segment as active that was sealed and retired after it: nothing can be written to
    /// it, and its log-start entry may come later in the replay. Batches go on in a new segment. Looks at every partition
    /// that has an active segment, which a start that fits into memory never needs.
    pub(super) fn pass_over_retired(&mut self, fs: &dyn Fs) -> Vec<Retired> {
        let mut retired = Vec::new();
        for (slot, part) in self.parts.iter_mut().filter(|(_, p)| !p.deleted) {
            if part.misses_active(fs) {
                let segments = std::mem::take(&mut part.segments);
                retired.push(Retired { slot, end: part.destaged, segments });
            }
        }
        retired
    }

    /// Replay is over: the log start says whether retention took the segments, or somebody else did.
    pub(super) fn settle_retired(&mut self, retired: Retired) {
        let Some(part) = self.parts.get_mut(retired.slot) else { return };
        let is_lost = part.log_start < retired.end;
        part.segments.splice(0..0, retired.segments.into_iter().map(|s| Segment { sealed: true, ..s }));
        // Nothing was written after it.
        if let Some(active) = part.segments.last_mut().filter(|s| s.base < retired.end) {
            active.sealed = false;
        }
        if is_lost {
            self.take_offline(retired.slot, MISSES_ACTIVE, &io::ErrorKind::NotFound.into());
        }
    }

    /// Syncs what replay moved into segments, so that their files may be closed; false where there was nothing to sync.
    pub(super) fn sync_written(&mut self, fs: &dyn Fs) -> Result<bool, RecoveryError> {
        let mut any = false;
        for (_, part) in self.parts.iter_mut() {
            if !std::mem::take(&mut part.dirty) {
                continue;
            }
            if let Some(open) = part.segments.last().and_then(|s| s.open.as_ref()) {
                fs.sync_data(&open.file.handle).map_err(at(&part.dir))?;
            }
            any = true;
        }
        Ok(any)
    }

    /// What replay had to move into segments is synced before a checkpoint names it.
    pub(super) fn sync_destaged(&mut self, fs: &dyn Fs) -> Result<(), RecoveryError> {
        self.sync_written(fs)?;
        let dirs = std::mem::take(&mut self.checkpoint.new_dirs);
        if !dirs.is_empty() {
            let topics = self.options.data_dir.join("topics");
            sync_names(fs, dirs.iter().chain([&topics])).map_err(at(&topics))?;
        }
        Ok(())
    }

    /// A folder that no checkpoint and no group knows was put there by someone: Kafka's, to be served from now on.
    pub(super) fn adopt(&mut self, fs: &dyn Fs, slot: u32) -> Result<bool, RecoveryError> {
        let Some(part) = self.parts.get(slot).filter(|p| !p.deleted) else { return Ok(false) };
        let dir = part.dir.clone();
        if !fs.exists(&dir) {
            return Ok(false);
        }
        // What a deleted topic of that name left is not this one's; it is removed when this one needs the folder.
        if crate::folder::is_foreign(fs, &dir, part.topic_id).map_err(at(&dir))? {
            return Ok(false);
        }
        let (id, config) = (part.id, part.config.clone());
        let adopted = crate::adopt::adopt(fs, &dir, id, config.index_interval_bytes as u32)
            .map_err(RecoveryError::Adopt)?;
        let Some(state) = adopted else { return Ok(false) };
        self.restore(slot, &state, false);
        if let Some(part) = self.parts.get_mut(slot) {
            part.folder_known = true;
        }
        tracing::info!(folder = %dir.display(), next_offset = state.next_offset, "adopted a partition folder that was put in place");
        Ok(true)
    }

    /// Counters that depend on where replay ended.
    pub(super) fn resume(&mut self, newest: GroupSeq) {
        self.durable_seen = newest;
        self.advance_destaged();
        for slot in self.parts.slots() {
            self.checkpoint.note_changed(slot);
        }
        for (_, part) in self.parts.iter().filter(|(_, p)| !p.deleted) {
            // Whoever has neither makes the folder its own when it writes.
            if part.folder_known || part.segments.iter().any(|s| s.bytes > 0) {
                self.options.folder_names.inherit(&part.dir, part.id);
            }
        }
    }
}
