//! Start of a core's log: newest checkpoint, replay of the core log from there, a new life.
//!
//! Stops at the first hole. A hole at or below a sequence that a later group (or the checkpoint) recorded as durable is
//! damage, not a torn tail: the core refuses to start and says what is lost. Everything replayed is flushed again
//! before anyone may read it: a group may have been in the device's cache only.

mod error;
mod files;
mod replay;
mod restore;

pub use error::RecoveryError;

use crate::compaction::{finish_swap, forget_swap};
use crate::format::checkpoint::{self, Checkpoint};
use crate::format::given_up::{self, GIVEN_UP_NAME};
use crate::format::sealed_text;
use crate::inspect::{Decisions, Known, first_with_groups, lost_checkpoints, newer_in_core};
use crate::log::Log;
use crate::options::LogOptions;
use error::at;
use files::open_files;
use replay::Replay;
use ringmill_reactor::Backend;
use ringmill_types::{PartitionSpec, TopicSpec};

/// What recovery did, for the log line at start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    pub clean: bool,
    pub groups: u64,
    pub batches: u64,
    pub bytes: u64,
    /// Places in the chain that a repair gave up.
    pub given_up: u64,
    pub partitions: u64,
    pub adopted: u64,
}

impl Log {
    /// Opens (or makes) the log of one core and replays what the last life left. `topics` are all of control's image, on
    /// whatever core; ids below `next_partition_id` that are not among them belonged to deleted topics, and what is left of
    /// those goes. `incarnation` is random.
    ///
    /// # Errors
    /// [`RecoveryError`]: nothing was changed on disk that could make matters worse.
    pub fn open<B: Backend>(
        io: &mut B,
        options: LogOptions,
        topics: &[TopicSpec],
        next_partition_id: u64,
        incarnation: u128,
    ) -> Result<(Log, RecoveryReport), RecoveryError> {
        let fs = io.fs();
        fs.create_dir_all(&options.log_dir).map_err(at(&options.log_dir))?;
        fs.create_dir_all(&options.data_dir.join("topics")).map_err(at(&options.data_dir))?;
        // The folders' own names: without them, a power cut takes all that is in them. A life before this one may
        // have made them and ended before it came here.
        for dir in [options.log_dir.parent().unwrap_or(&options.data_dir), &options.data_dir] {
            fs.sync_dir(dir).map_err(at(dir))?;
        }
        match newer_in_core(fs, &options.log_dir) {
            Ok(None) => {}
            Ok(Some(newer)) => return Err(RecoveryError::Newer(newer)),
            Err(error) => return Err(error.into()),
        }
        let newest =
            checkpoint::read_newest(fs, &options.log_dir).map_err(|e| unreadable(&options, e.to_string()))?;
        if let Some(foreign) = newest.as_ref().filter(|newest| newest.core != options.core.0) {
            return Err(RecoveryError::Foreign { found: foreign.core, path: options.log_dir });
        }
        let files = open_files(fs, &options, newest.is_some())?;
        // Both slots say that nobody ever lived here.
        if newest.is_none()
            && let Some(file) = first_with_groups(fs, &options.log_dir).map_err(at(&options.log_dir))?
        {
            return Err(unreadable(&options, lost_checkpoints(&file)));
        }
        let all = || topics.iter().flat_map(|topic| topic.partitions.iter().map(move |spec| (topic, spec)));
        let decisions = Decisions::new(next_partition_id, all().map(|(_, spec)| (spec.id, spec.owner)));
        // What the image has is never taken for what a deleted topic left.
        let against = newest.iter().flat_map(|newest| &newest.partitions).find_map(|state| {
            let (id, place) = (state.id, options.log_dir.as_path());
            decisions.contradict(options.core.0, Known { id, place, state: Some(state), is_deleted: false })
        });
        if let Some(against) = against {
            return Err(RecoveryError::Contradicted { what: against.sentence(&options.data_dir) });
        }
        let own: Vec<(&TopicSpec, &PartitionSpec)> =
            all().filter(|(_, spec)| spec.owner == options.core).collect();
        let mut start = newest.unwrap_or_else(|| first_checkpoint(&options));
        let (log_dir, topics_dir) = (options.log_dir.clone(), options.data_dir.join("topics"));
        let swapped = finish_swap(fs, &log_dir, &mut start.partitions, &topics_dir).map_err(at(&log_dir))?;
        let given_up = given_up::read(fs, &log_dir).map_err(at(&log_dir))?;
        let is_past = given_up.iter().all(|gap| gap.first < start.next_group);
        let mut replay = Replay::new(io, options, files, &start, &own, given_up, decisions);
        replay.run(io, &start)?;
        let (mut log, report) = replay.finish(io, start, incarnation)?;
        if swapped {
            forget_swap(io.fs(), &log_dir).map_err(at(&log_dir))?;
        }
        // Both slots begin behind it now.
        if is_past {
            sealed_text::forget(io.fs(), &log_dir, GIVEN_UP_NAME).map_err(at(&log_dir))?;
        }
        log.load_compacted_to(io.fs());
        Ok((log, report))
    }
}

fn unreadable(options: &LogOptions, what: String) -> RecoveryError {
    RecoveryError::Checkpoint { data_dir: options.data_dir.clone(), path: options.log_dir.clone(), what }
}

fn first_checkpoint(options: &LogOptions) -> Checkpoint {
    Checkpoint {
        sequence: 0,
        lives: Vec::new(),
        core: options.core.0,
        start_file: 0,
        start_offset: 0,
        next_group: 1,
        prev_header_crc: 0,
        durable_group: 0,
        clean: true,
        partitions: options.inherited.clone(),
    }
}
