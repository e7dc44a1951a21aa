//! Changing the number of cores, or where their logs are, between two starts.
//!
//! A core log belongs to the cores that wrote it. When the next start wants other ones, the old logs are recovered by as
//! many cores as wrote them and stopped in order, which leaves all they held in segments; then they are removed, every
//! partition is placed anew, and `node.toml` gets the next generation. Each step is durable before the next, and each can
//! be repeated, so a cut anywhere is finished by the next start:
//!
//! ```text
//! drain ─▶ handed-on ─▶ node.toml: drained ─▶ remove old core folders ─▶ journal: Placed ─▶ node.toml: next generation
//!                       └─ from here on the old logs are not needed; before, nothing was changed
//! ```
//!
//! `handed-on` holds what the old cores' last checkpoints said of their partitions. It stays until the new cores have
//! checkpoints of their own: the segments alone do not say where a log begins once a file that retention unlinked came
//! back with a power cut.

use crate::args::{BrokerOptions, CorePlacement};
use crate::exit::{Failure, Reason, core_failure};
use crate::identity::{self, DataFolder, Generation, Method, Wanted};
use crate::planes;
use ringmill_core::thread::{CoreHandle, CoreOptions};
use ringmill_core::{ControlMessage, CoreLink, CoreMessage};
use ringmill_log::WithoutRoom;
use ringmill_log::format::checkpoint::{self, Checkpoint, HANDED_ON_NAME, PartitionState};
use ringmill_metadata::{FileJournal, Image, Journal as _, Record};
use ringmill_reactor::{Doorbell, Fs};
use ringmill_types::{CoreId, TopicSpec};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Draining moves at most what the core logs hold; a disk that needs longer for that is not well.
const DRAIN_MAX: Duration = Duration::from_secs(600);
/// Open files of all draining cores: they serve nobody.
const DRAIN_FILES: u64 = 1024;
/// Files that the log of a new core begins with.
const CORE_LOG_FILES_MIN: u64 = 2;
/// Between two looks at the draining cores.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// What a change needs to know.
pub struct Change<'a> {
    pub options: &'a BrokerOptions,
    pub wanted: &'a Wanted,
    /// The cores' view of an image.
    pub topics: &'a dyn Fn(&Image) -> Vec<TopicSpec>,
    pub fs: &'a dyn Fs,
}

impl Change<'_> {
    /// Brings the folder to the wanted generation; does nothing when it is there already. Gives what the old cores' last
    /// checkpoints say, for the new ones to begin with; [`forget`] it when they run.
    ///
    /// # Errors
    /// Whatever stopped it; the next start goes on from there.
    pub fn settle(
        &self,
        folder: &mut DataFolder,
        journal: &mut FileJournal,
        image: &mut Image,
    ) -> Result<Vec<PartitionState>, Failure> {
        let (wanted, fs) = (self.wanted, self.fs);
        let old = folder.identity.generation.clone();
        if old.cores == wanted.cores && old.log_dir == wanted.log_dir && !old.drained {
            return Ok(handed_on(&folder.path, old.number, fs).unwrap_or_default());
        }
        check_target(&old, wanted, &folder.path, fs)?;
        tracing::info!("{}: moving what they hold to segments", what_changes(&old, wanted));
        if !old.drained {
            self.drain(folder, &old, image)?;
            hand_on(&folder.path, old.number + 1, last_words(&old, &folder.path, fs), fs)?;
            folder.identity.generation.drained = true;
            folder.save(fs)?;
        }
        let inherited = match handed_on(&folder.path, old.number + 1, fs) {
            Some(words) => words,
            // Taken away, or not to be read. It goes back, for it also says that new cores may not have folders yet.
            None => {
                let words = last_words(&old, &folder.path, fs);
                hand_on(&folder.path, old.number + 1, words.clone(), fs)?;
                words
            }
        };
        remove_old(&old, &folder.path, fs)?;
        let moves = image.replace_all(wanted.cores);
        if !moves.is_empty() {
            let placed = Record::Placed { moves };
            journal
                .append(std::slice::from_ref(&placed))
                .map_err(|error| crate::boot::journal_failure(&error))?;
            image.apply(&placed);
        }
        folder.identity.generation = Generation {
            number: old.number + 1,
            cores: wanted.cores,
            log_dir: wanted.log_dir.clone(),
            drained: false,
        };
        folder.save(fs)?;
        if let Some(left) = old.log_dir.filter(|dir| wanted.log_dir.as_ref() != Some(dir)) {
            // Only where nothing else is in it; one that stays, as the root of a device does, is in nobody's way.
            let _ = std::fs::remove_dir(&left);
        }
        Ok(inherited)
    }

    /// Recovers the old logs with as many cores as wrote them, and stops in order.
    fn drain(&self, folder: &DataFolder, old: &Generation, image: &Image) -> Result<(), Failure> {
        let mut before = self.options.clone();
        before.cores = (0..old.cores).map(|core| CorePlacement { core: CoreId(core), cpu: None }).collect();
        before.config.settings.core_log_dir = old.log_dir.clone();
        let files = planes::share_files(Some(DRAIN_FILES), 1, before.cores.len());
        let mut cores = Vec::new();
        let mut first_file_bytes = 0;
        for core in &before.cores {
            // Nobody is told this address; a core has a listener, and this one is closed before the real one is used.
            let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| {
                Failure::new(Reason::Internal, format!("The old core logs cannot be drained: {error}."))
            })?;
            let plan = planes::core_plan(&before, *core, folder.identity.node_id, Method::Fdatasync, files);
            first_file_bytes = plan.log.first_file_bytes;
            cores.push(CoreOptions {
                settings: plan.settings,
                log: plan.log,
                ring: plan.ring,
                listener,
                cpu: None,
                incarnation: identity::random_u128(),
                next_partition_id: image.next_partition(),
            });
        }
        let topics = (self.topics)(image);
        // A core that this generation never began has no checkpoint, and what it was to have is said there.
        let handed_on = handed_on(&folder.path, old.number, self.fs).unwrap_or_default();
        crate::boot::bequeath(handed_on, &topics, &mut cores);
        let bell = Doorbell::new()
            .map_err(|error| Failure::new(Reason::LimitsTooLow, format!("No eventfd ({error}).")))?;
        let (links, handles) = ringmill_core::thread::start(cores, Arc::new(topics), &Arc::default(), &bell)
            .map_err(|error| crate::boot::start_failure(&error))?;
        let without_room = stop_all(links, handles)?;
        if without_room.bytes > 0 {
            return Err(self.no_room(&folder.path, old, without_room, first_file_bytes));
        }
        (0..old.cores).try_for_each(|core| self.check_drained(old, &old.core_dir(&folder.path, core)))
    }

    /// The last word of a drained core log is a checkpoint that says so; without it the log must stay.
    fn check_drained(&self, old: &Generation, dir: &Path) -> Result<(), Failure> {
        match checkpoint::read_newest(self.fs, dir) {
            Ok(Some(checkpoint)) if checkpoint.clean => Ok(()),
            Ok(_) => Err(Failure::new(
                Reason::DataUnusable,
                format!(
                    "The core log in {} holds what could not be written to segments, as the lines above say; nothing of it was \
                     removed. Put that right, or start with {}, as before.",
                    dir.display(),
                    as_before(old, self.wanted)
                ),
            )),
            Err(error) => Err(Failure::new(Reason::DataDamaged, format!("{}: {error}.", dir.display()))),
        }
    }

    /// What has to be moved does not fit: how much is to be freed, or what starts without.
    fn no_room(&self, data: &Path, old: &Generation, without: WithoutRoom, first_file_bytes: u64) -> Failure {
        let free_bytes = self.fs.free_bytes(data).unwrap_or(0);
        // The blocks of the old core logs come back step by step, too late for those of the new ones.
        let new_logs = match self.wanted.log_dir {
            None => u64::from(self.wanted.cores) * CORE_LOG_FILES_MIN * first_file_bytes,
            Some(_) => 0,
        };
        let to_free = (without.room_bytes + new_logs).saturating_sub(free_bytes).max(without.bytes);
        let what = format!(
            "The disk of {} is full: {}, and {} bytes in them have to go to segments before, where they find no room. Nothing \
             was removed.",
            data.display(),
            what_changes(old, self.wanted),
            without.bytes
        );
        let way_out = format!(
            "free {to_free} bytes there, or start with {}, as before, which needs none",
            as_before(old, self.wanted)
        );
        Failure::new(Reason::DiskFull, format!("{what} So {way_out}."))
    }
}

fn what_changes(old: &Generation, wanted: &Wanted) -> String {
    if old.cores != wanted.cores {
        return format!(
            "the core logs are those of --cores {}, and --cores {} is wanted",
            old.cores, wanted.cores
        );
    }
    if old.log_dir == wanted.log_dir {
        return "the change of the core logs that was under way goes on".to_string();
    }
    let place =
        |dir: &Option<PathBuf>| dir.as_ref().map_or("the data folder".into(), |d| d.display().to_string());
    format!("the core logs are in {}, and are to be in {}", place(&old.log_dir), place(&wanted.log_dir))
}

/// Makes `core.log.dir`, and asks whether this user may write there, before anything depends on it.
///
/// # Errors
/// [`Reason::DataUnusable`] or [`Reason::DiskFull`], with what to do.
pub fn make_log_dir(dir: &Path, fs: &dyn Fs) -> Result<(), Failure> {
    use rustix::fs::{Access, access};
    let unusable = |verb, error| identity::unusable_as("core.log.dir", dir, verb, &error);
    identity::make_dir(fs, dir).map_err(|error| unusable("created", error))?;
    access(dir, Access::WRITE_OK | Access::EXEC_OK).map_err(|errno| unusable("written to", errno.into()))
}

/// Core folders that are not of this data folder's last generation would be replayed into it: they are somebody's.
fn check_target(old: &Generation, wanted: &Wanted, data: &Path, fs: &dyn Fs) -> Result<(), Failure> {
    if old.log_dir == wanted.log_dir { Ok(()) } else { check_vacant(wanted, data, fs) }
}

/// No core ever wrote where those of this configuration are to.
///
/// # Errors
/// [`Reason::DataDamaged`].
pub fn check_vacant(wanted: &Wanted, data: &Path, fs: &dyn Fs) -> Result<(), Failure> {
    let next = Generation { number: 0, cores: wanted.cores, log_dir: wanted.log_dir.clone(), drained: false };
    for core in 0..wanted.cores {
        let dir = next.core_dir(data, core);
        if fs.exists(&dir) {
            return Err(Failure::new(
                Reason::DataDamaged,
                format!(
                    "{} is there already and does not belong to {}; choose an empty core.log.dir, or move that folder away.",
                    dir.display(),
                    data.display()
                ),
            ));
        }
    }
    Ok(())
}

/// The settings that start without a change.
fn as_before(old: &Generation, wanted: &Wanted) -> String {
    let mut settings = Vec::new();
    if old.cores != wanted.cores {
        settings.push(format!("--cores {}", old.cores));
    }
    if old.log_dir != wanted.log_dir {
        settings.push(
            old.log_dir
                .as_ref()
                .map_or("no core.log.dir".to_string(), |dir| format!("core.log.dir={}", dir.display())),
        );
    }
    settings.join(" and ")
}

/// The partitions in the clean checkpoints of drained cores. What cannot be read is found again by reading segments.
fn last_words(old: &Generation, data: &Path, fs: &dyn Fs) -> Vec<PartitionState> {
    let checkpoints =
        (0..old.cores).filter_map(|core| checkpoint::read_newest(fs, &old.core_dir(data, core)).ok()?);
    checkpoints.filter(|checkpoint| checkpoint.clean).flat_map(|checkpoint| checkpoint.partitions).collect()
}

/// What the old cores had, while a change from or to `generation` is under way: nothing is in the journal meanwhile that these
/// partitions were not in before.
pub fn under_way(generation: &Generation, data: &Path, fs: &dyn Fs) -> Option<Vec<PartitionState>> {
    if generation.drained {
        let words = handed_on(data, generation.number + 1, fs);
        return Some(words.unwrap_or_else(|| last_words(generation, data, fs)));
    }
    handed_on(data, generation.number, fs)
}

/// Writes down, durably, what generation `number` begins with: the envelope and the archive of a checkpoint.
///
/// # Errors
/// [`Reason::DataUnusable`] or [`Reason::DiskFull`].
pub fn hand_on(
    data: &Path,
    number: u64,
    partitions: Vec<PartitionState>,
    fs: &dyn Fs,
) -> Result<(), Failure> {
    let words = Checkpoint {
        sequence: number,
        lives: Vec::new(),
        core: 0,
        start_file: 0,
        start_offset: 0,
        next_group: 1,
        prev_header_crc: 0,
        durable_group: 0,
        clean: true,
        partitions,
    };
    let path = data.join(HANDED_ON_NAME);
    fs.replace(&path, &checkpoint::encode(&words)).map_err(|error| unusable(&path, "written", &error))
}

/// What generation `number` begins with, if its cores may not have begun yet. One that cannot be read is made up for by
/// reading segments.
fn handed_on(data: &Path, number: u64, fs: &dyn Fs) -> Option<Vec<PartitionState>> {
    let path = data.join(HANDED_ON_NAME);
    if !fs.exists(&path) {
        return None;
    }
    let words = fs.read_all(&path).map_err(|error| error.to_string());
    match words.and_then(|bytes| checkpoint::decode(&bytes).map_err(|error| error.to_string())) {
        Ok(words) => (words.sequence == number).then_some(words.partitions),
        Err(error) => {
            tracing::warn!(path = %path.display(), error, "it cannot be read; the segments are read instead");
            None
        }
    }
}

/// The cores have checkpoints of their own.
///
/// # Errors
/// It must not stay: a later start would take it for the truth.
pub fn forget(data: &Path, fs: &dyn Fs) -> Result<(), Failure> {
    let path = data.join(HANDED_ON_NAME);
    if !fs.exists(&path) {
        return Ok(());
    }
    let gone = fs.remove_file(&path).and_then(|()| fs.sync_dir(data));
    gone.map_err(|error| unusable(&path, "removed", &error))
}

fn unusable(path: &Path, what: &str, error: &std::io::Error) -> Failure {
    identity::unusable_as("--data", path, what, error)
}

/// Ends them in order; what they had no room for.
fn stop_all(mut links: Vec<CoreLink>, handles: Vec<CoreHandle>) -> Result<WithoutRoom, Failure> {
    for link in &mut links {
        // The queue is new and holds thousands.
        let _ = link.to_core.push(CoreMessage::Stop);
        let _ = link.to_core.push(CoreMessage::Finish);
        link.waker.wake();
    }
    let begun = Instant::now();
    let mut stopped = 0;
    let mut without_room = WithoutRoom::default();
    while stopped < links.len() {
        for link in &mut links {
            while let Ok(message) = link.from_core.pop() {
                match message {
                    ControlMessage::Stopped { without_room: left, .. } => {
                        without_room = without_room.plus(left);
                        stopped += 1;
                    }
                    ControlMessage::Fatal { core, reason } => {
                        return Err(core_failure(core, &reason));
                    }
                    ControlMessage::Frame(_)
                    | ControlMessage::Reply { .. }
                    | ControlMessage::Applied { .. }
                    | ControlMessage::Limits { .. }
                    | ControlMessage::Address { .. }
                    | ControlMessage::Drained { .. } => {}
                }
            }
        }
        if begun.elapsed() > DRAIN_MAX {
            return Err(Failure::new(
                Reason::StopTimedOut,
                format!(
                    "The old core logs were not drained within {} s; look at the device.",
                    DRAIN_MAX.as_secs()
                ),
            ));
        }
        if handles.iter().all(|handle| handle.thread.is_finished())
            && stopped < links.len()
            && links.iter().all(|l| l.from_core.is_empty())
        {
            return Err(Failure::new(
                Reason::Internal,
                "A core ended while draining its log; its message is above.",
            ));
        }
        std::thread::sleep(LOOK_EVERY);
    }
    for handle in handles {
        if handle.thread.join().is_err() {
            return Err(Failure::new(Reason::Internal, "A core panicked after draining its log."));
        }
    }
    Ok(without_room)
}

fn remove_old(old: &Generation, data: &Path, fs: &dyn Fs) -> Result<(), Failure> {
    for core in 0..old.cores {
        let dir = old.core_dir(data, core);
        if fs.exists(&dir) {
            fs.remove_dir_all(&dir).map_err(|error| unusable(&dir, "removed", &error))?;
        }
    }
    let parent = old.log_dir.as_deref().unwrap_or(data);
    if fs.exists(parent) {
        fs.sync_dir(parent).map_err(|error| unusable(parent, "synced", &error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use ringmill_log::format::checkpoint::{ProducerBatch, ProducerState, SegmentState};
    use ringmill_reactor::stdfs::StdFs;

    /// A partition with something of everything, and one that never had a record.
    fn partitions() -> Vec<PartitionState> {
        let segment = |base_offset, sealed| SegmentState {
            base_offset,
            bytes: 4321,
            max_timestamp_ms: 1_700_000_000_123,
            offset_of_max_timestamp: base_offset + 3,
            created_ms: 1_700_000_000_000,
            index_entries: 2,
            time_entries: 1,
            sealed,
        };
        let batch =
            ProducerBatch { first_seq: 0, last_seq: 4, first_offset: 10, last_offset: 14, timestamp_ms: 77 };
        let full = PartitionState {
            id: 11,
            topic: "orders".to_string(),
            topic_id: *b"0123456789abcdef",
            index: 2,
            log_start: 5,
            next_offset: 100,
            epochs: vec![(0, 0), (3, 50)],
            segments: vec![segment(0, true), segment(60, false)],
            producers: vec![ProducerState { id: 9000, epoch: 1, last_ms: 99, batches: vec![batch; 2] }],
            max_timestamp_ms: 1_700_000_000_123,
        };
        let fresh = PartitionState {
            id: 12,
            topic: "fresh".to_string(),
            topic_id: [0xfe; 16],
            max_timestamp_ms: -1,
            ..PartitionState::default()
        };
        vec![full, fresh]
    }

    #[test]
    fn last_words_are_the_bytes_of_the_golden_file() {
        let data = tempfile::tempdir().unwrap();
        let path = data.path().join(HANDED_ON_NAME);
        hand_on(data.path(), 7, partitions(), &StdFs).unwrap();
        let golden = crate::golden::check("handed-on-v1.bin", &std::fs::read(&path).unwrap());
        std::fs::write(&path, golden).unwrap();
        assert_eq!(handed_on(data.path(), 7, &StdFs), Some(partitions()));
    }

    #[test]
    fn last_words_are_for_the_generation_they_were_written_for() {
        let data = tempfile::tempdir().unwrap();
        let data = data.path();
        assert!(handed_on(data, 2, &StdFs).is_none());
        hand_on(data, 2, Vec::new(), &StdFs).unwrap();
        assert_eq!(handed_on(data, 2, &StdFs).map(|words| words.len()), Some(0));
        assert!(handed_on(data, 3, &StdFs).is_none(), "they may be older than the data");
        std::fs::write(data.join(HANDED_ON_NAME), "half").unwrap();
        assert!(handed_on(data, 2, &StdFs).is_none(), "segments are read instead");
        forget(data, &StdFs).unwrap();
        assert!(!data.join(HANDED_ON_NAME).exists());
        forget(data, &StdFs).unwrap();
    }
}
