//! Start of a core's log: newest checkpoint, replay of the core log from there, a new life.
//!
//! Stops at the first hole. A hole at or below a sequence that a later group (or the checkpoint) recorded as durable is
//! damage, not a torn tail: the core refuses to start and says what is lost. Everything replayed is flushed again
//! before anyone may read it: a group may have been in the device's cache only.

use crate::adopt::AdoptError;
use crate::checkpointing::{CheckpointState, Store, sync_names};
use crate::compaction::{finish_swap, forget_swap};
use crate::core_log::{CoreLog, GroupPlace, Item, Resume, RingFile, Sealed};
use crate::epochs::EpochCache;
use crate::format::checkpoint::{self, Checkpoint, PartitionState};
use crate::format::group::{DecodedGroup, EntryKind, GROUP_HEADER_BYTES, GroupHeader, decode_group};
use crate::inline::Inline;
use crate::inspect::repair;
use crate::log::{JobDone, JobFor, Log};
use crate::options::LogOptions;
use crate::partition::{Segment, segment_files};
use crate::producer::ProducerTable;
use crate::token::{self, token};
use ringmill_reactor::{AppendBuf, Backend, FileHandle, FileId, Fs, Op, OpenMode};
use ringmill_record::BatchHeader;
use ringmill_types::limits::{PAGE_BYTES, TAIL_CHUNK_BYTES};
use ringmill_types::{GroupSeq, LeaderEpoch, Offset, PartitionId, PartitionSpec, TopicSpec};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

const READ_CHUNK_BYTES: usize = 4 << 20;

/// Why a core's log cannot be opened. Each sentence says what to do.
#[derive(Debug)]
pub enum RecoveryError {
    Io {
        path: PathBuf,
        error: io::Error,
    },
    /// Acked groups are missing or damaged.
    Damaged {
        /// For the command that repairs, here and below.
        data_dir: PathBuf,
        path: PathBuf,
        offset: u64,
        sequence: u64,
        partitions: Vec<String>,
        what: String,
    },
    MissingFile {
        data_dir: PathBuf,
        path: PathBuf,
    },
    Checkpoint {
        data_dir: PathBuf,
        path: PathBuf,
        what: String,
    },
    /// A partition folder that was put in place cannot be served.
    Adopt(AdoptError),
    NoMemory,
}

impl fmt::Display for RecoveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecoveryError::Io { path, error } => write!(f, "{}: {error}", path.display()),
            RecoveryError::Damaged { data_dir, path, offset, sequence, partitions, what } => write!(
                f,
                "acked data is damaged: {} at byte {offset} (flush group {sequence}): {what}; partitions: {}. Nothing was changed. \
                 Restore the file from a copy, or run `{}` to go on without these records",
                path.display(),
                if partitions.is_empty() { "not known".to_string() } else { partitions.join(", ") },
                repair_command(data_dir)
            ),
            RecoveryError::MissingFile { data_dir, path } => write!(
                f,
                "core-log file {} is missing, and it may hold acked records. Put it back, or run `{}`",
                path.display(),
                repair_command(data_dir)
            ),
            RecoveryError::Checkpoint { data_dir, path, what } => write!(
                f,
                "neither checkpoint in {} can be read: {what}. Restore one from a copy, or run `{}`",
                path.display(),
                repair_command(data_dir)
            ),
            RecoveryError::Adopt(error) => error.fmt(f),
            RecoveryError::NoMemory => {
                f.write_str("replaying the core log needs more memory than --memory allows; raise it")
            }
        }
    }
}

impl std::error::Error for RecoveryError {}

fn repair_command(data_dir: &Path) -> String {
    repair::command(data_dir, repair::Scope::CoreLogs)
}

/// What recovery did, for the log line at start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    pub clean: bool,
    pub groups: u64,
    pub batches: u64,
    pub bytes: u64,
    pub partitions: u64,
    pub adopted: u64,
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> RecoveryError + '_ {
    move |error| RecoveryError::Io { path: path.to_path_buf(), error }
}

/// One core-log file during recovery.
struct LogFile {
    path: PathBuf,
    handle: FileHandle,
    bytes: u64,
}

impl Log {
    /// Opens (or makes) the log of one core and replays what the last life left. `topics` are this core's partitions by
    /// control's image; ids below `next_partition_id` that are not among them belonged to deleted topics. `incarnation`
    /// is random.
    ///
    /// # Errors
    /// [`RecoveryError`]: nothing was changed on disk that could make matters worse.
    pub fn open<B: Backend>(
        io: &mut B,
        options: LogOptions,
        topics: &[(&TopicSpec, &PartitionSpec)],
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
        let newest =
            checkpoint::read_newest(fs, &options.log_dir).map_err(|e| unreadable(&options, e.to_string()))?;
        let files = open_files(fs, &options, newest.is_some())?;
        if newest.is_none() {
            check_unlived(fs, &options, &files)?;
        }
        let mut start = newest.unwrap_or_else(|| first_checkpoint(&options));
        let (log_dir, topics_dir) = (options.log_dir.clone(), options.data_dir.join("topics"));
        let swapped = finish_swap(fs, &log_dir, &mut start.partitions, &topics_dir).map_err(at(&log_dir))?;
        let mut replay = Replay::new(io, options, files, &start, topics, next_partition_id);
        replay.run(io)?;
        let (mut log, report) = replay.finish(io, start, incarnation)?;
        if swapped {
            forget_swap(io.fs(), &log_dir).map_err(at(&log_dir))?;
        }
        log.load_compacted_to(io.fs());
        Ok((log, report))
    }

    /// Grows the ring when it is short of files; the file thread zero-fills, the core never waits for it.
    pub(crate) fn poll_files<B: Backend>(&mut self, io: &mut B) {
        let short = self.core_log.free_bytes() < self.core_log.capacity_bytes() * 3 / 4
            || self.core_log.wants_larger();
        if self.adding_file || self.stopping || !short || self.core_log.files.len() >= self.options.files_max
        {
            return;
        }
        self.adding_file = true;
        let serial = self.serial();
        let path = log_path(&self.options.log_dir, self.core_log.files.len());
        let bytes = self.options.file_bytes;
        self.jobs.insert(serial, JobFor::AddFile);
        let job = move |fs: &dyn Fs| -> ringmill_reactor::JobOutput {
            Box::new(JobDone::FileAdded(make_file(fs, &path, bytes).map(|handle| (handle, bytes))))
        };
        io.push(Op::Run { job: Box::new(job) }, token(token::JOB, serial));
    }

    pub(crate) fn file_added<B: Backend>(&mut self, io: &mut B, result: io::Result<(FileHandle, u64)>) {
        match result {
            Ok((handle, bytes)) => {
                self.adding_file = false;
                let file = io.attach_file(handle);
                self.core_log.files.push(RingFile { file, bytes, last_group: GroupSeq(0) });
            }
            // `adding_file` stays set: the ring works with the files it has, and trying again would only repeat this.
            Err(error) => {
                tracing::warn!(%error, folder = %self.options.log_dir.display(), "the core log could not be enlarged; it goes on with the files it has")
            }
        }
    }
}

pub(crate) fn log_path(dir: &Path, index: usize) -> PathBuf {
    dir.join(format!("{index:03}.log"))
}

/// A zero-filled file under its final name, durable: appends to it later neither extend nor convert anything.
fn make_file(fs: &dyn Fs, path: &Path, bytes: u64) -> io::Result<FileHandle> {
    let temporary = path.with_extension("new");
    let file = fs.open(&temporary, OpenMode::CreateDirect)?;
    let zeros = vec![0; (1 << 20).min(bytes as usize)];
    let mut done = 0;
    while done < bytes {
        let step = zeros.len().min((bytes - done) as usize);
        fs.write_at(&file, zeros.get(..step).unwrap_or_default(), done)?;
        done += step as u64;
    }
    fs.sync_data(&file)?;
    fs.rename(&temporary, path)?;
    if let Some(dir) = path.parent() {
        fs.sync_dir(dir)?;
    }
    Ok(file)
}

/// Opens the ring's files in order; makes the first two of a fresh folder. Without a checkpoint no group was ever
/// written, so whatever a first start left behind is simply completed.
fn open_files(fs: &dyn Fs, options: &LogOptions, lived: bool) -> Result<Vec<LogFile>, RecoveryError> {
    let mut files = Vec::new();
    loop {
        let path = log_path(&options.log_dir, files.len());
        if !fs.exists(&path) {
            break;
        }
        let handle = fs.open(&path, OpenMode::CreateDirect).map_err(at(&path))?;
        let bytes = fs.len(&handle).map_err(at(&path))?;
        files.push(LogFile { path, handle, bytes });
    }
    let later = fs.list(&options.log_dir).map_err(at(&options.log_dir))?.into_iter();
    let later = later.filter_map(|e| e.name.strip_suffix(".log").and_then(|n| n.parse::<usize>().ok())).max();
    if later.is_some_and(|n| n >= files.len()) || lived && files.len() < 2 {
        let path = log_path(&options.log_dir, files.len());
        return Err(RecoveryError::MissingFile { data_dir: options.data_dir.clone(), path });
    }
    while files.len() < 2 {
        let path = log_path(&options.log_dir, files.len());
        let handle = make_file(fs, &path, options.first_file_bytes).map_err(at(&path))?;
        files.push(LogFile { path, handle, bytes: options.first_file_bytes });
    }
    Ok(files)
}

/// Both slots say that nobody ever lived here. A group is written only after the first checkpoint, so one that is there
/// says that both were lost.
fn check_unlived(fs: &dyn Fs, options: &LogOptions, files: &[LogFile]) -> Result<(), RecoveryError> {
    let mut head = [0; GROUP_HEADER_BYTES];
    for file in files {
        let got = fs.read_at(&file.handle, &mut head, 0).map_err(at(&file.path))?;
        if GroupHeader::decode(head.get(..got).unwrap_or_default()).is_ok() {
            let what = format!(
                "both slots are empty or unreadable, but {} holds groups that were acknowledged",
                file.path.display()
            );
            return Err(unreadable(options, what));
        }
    }
    Ok(())
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

/// State of one replay.
struct Replay {
    log: Log,
    files: Vec<LogFile>,
    window: Window,
    chunk: Option<AppendBuf>,
    current: usize,
    offset: u64,
    next_sequence: u64,
    prev_header_crc: u32,
    lives: Vec<(u128, u64)>,
    durable_mark: u64,
    next_partition_id: u64,
    restored: HashMap<u32, ()>,
    replayed: HashMap<u32, ()>,
    doomed: Vec<u32>,
    /// Whose active segment is not there although the checkpoint names it, and where its batches end: retention has
    /// unlinked it, or the log start that replay finds says otherwise.
    retired: Vec<Retired>,
    looked_for_active: bool,
    /// Segment files that destaging attached on the way.
    destage_files: HashMap<FileId, FileHandle>,
    report: RecoveryReport,
}

/// Segments that a checkpoint names, whose active one is not there.
struct Retired {
    slot: u32,
    /// Where their batches end.
    end: Offset,
    segments: Vec<Segment>,
}

/// A stretch of one file in memory, so that many small groups cost few reads.
#[derive(Default)]
struct Window {
    file: usize,
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    /// `len` bytes at `offset` of the file, fewer at its end.
    fn get<'a>(
        &'a mut self,
        fs: &dyn Fs,
        files: &[LogFile],
        file: usize,
        offset: u64,
        len: usize,
    ) -> Result<&'a [u8], RecoveryError> {
        let held = self.file == file
            && offset >= self.start
            && offset + len as u64 <= self.start + self.bytes.len() as u64;
        if !held && let Some(log) = files.get(file) {
            let want = len.max(READ_CHUNK_BYTES).min((log.bytes.saturating_sub(offset)) as usize);
            self.bytes.resize(want, 0);
            let got = fs.read_at(&log.handle, &mut self.bytes, offset).map_err(at(&log.path))?;
            self.bytes.truncate(got);
            self.file = file;
            self.start = offset;
        }
        let from = (offset - self.start) as usize;
        Ok(self.bytes.get(from..self.bytes.len().min(from + len)).unwrap_or_default())
    }
}

impl Replay {
    fn new<B: Backend>(
        io: &mut B,
        options: LogOptions,
        files: Vec<LogFile>,
        start: &Checkpoint,
        topics: &[(&TopicSpec, &PartitionSpec)],
        next_partition_id: u64,
    ) -> Replay {
        let resume = Resume {
            incarnation: 0,
            current: start.start_file as usize,
            write_at: start.start_offset,
            next_sequence: start.next_group,
            prev_header_crc: start.prev_header_crc,
            places: VecDeque::new(),
        };
        let ring = files
            .iter()
            .map(|f| RingFile {
                file: io.attach_file(f.handle.clone()),
                bytes: f.bytes,
                last_group: GroupSeq(0),
            })
            .collect();
        let core_log = CoreLog::new(&options, ring, resume);
        let state = CheckpointState::new(Store::default(), Vec::new(), GroupSeq(start.next_group - 1));
        let mut log = Log::assemble(options, core_log, state);
        let mut states: HashMap<u64, &PartitionState> = start.partitions.iter().map(|p| (p.id, p)).collect();
        let mut restored = HashMap::new();
        for (topic, spec) in topics {
            let slot = log.upsert(topic, spec);
            if let Some(state) = states.remove(&spec.id.0) {
                log.restore(slot.0, state);
                restored.insert(slot.0, ());
            }
        }
        let mut doomed = Vec::new();
        // Deleted while this core could not write the tombstone: the folders go now.
        for state in states.into_values() {
            doomed.push(log.add_doomed(state));
        }
        Replay {
            log,
            files,
            window: Window::default(),
            chunk: None,
            current: start.start_file as usize,
            offset: start.start_offset,
            next_sequence: start.next_group,
            prev_header_crc: start.prev_header_crc,
            lives: start.lives.clone(),
            durable_mark: start.durable_group,
            next_partition_id,
            restored,
            replayed: HashMap::new(),
            doomed,
            retired: Vec::new(),
            looked_for_active: false,
            destage_files: HashMap::new(),
            report: RecoveryReport { clean: start.clean, ..RecoveryReport::default() },
        }
    }

    fn run<B: Backend>(&mut self, io: &mut B) -> Result<(), RecoveryError> {
        loop {
            if self.try_group(io, self.current, self.offset)? {
                continue;
            }
            // The chain may go on at the start of another file of the ring.
            let mut found = false;
            for file in 0..self.files.len() {
                if (file, 0) != (self.current, self.offset) && self.joins(io, file, 0)? {
                    self.current = file;
                    self.offset = 0;
                    found = self.try_group(io, file, 0)?;
                    break;
                }
            }
            if !found {
                break;
            }
        }
        self.check_hole(io)
    }

    fn incarnation_of(&self, sequence: u64) -> Option<u128> {
        self.lives.iter().rev().find(|(_, first)| *first <= sequence).map(|(life, _)| *life)
    }

    /// A header that continues the chain lies there.
    fn joins<B: Backend>(&mut self, io: &mut B, file: usize, offset: u64) -> Result<bool, RecoveryError> {
        let bytes = self.window.get(io.fs(), &self.files, file, offset, GROUP_HEADER_BYTES)?;
        let Ok(header) = GroupHeader::decode(bytes) else { return Ok(false) };
        if header.sequence.0 != self.next_sequence {
            return Ok(false);
        }
        Ok(self.log.options.faults.trust_stale_groups
            || header.prev_header_crc == self.prev_header_crc
                && Some(header.incarnation) == self.incarnation_of(self.next_sequence))
    }

    fn try_group<B: Backend>(&mut self, io: &mut B, file: usize, offset: u64) -> Result<bool, RecoveryError> {
        if !self.joins(io, file, offset)? {
            return Ok(false);
        }
        let header =
            GroupHeader::decode(self.window.get(io.fs(), &self.files, file, offset, GROUP_HEADER_BYTES)?);
        let Ok(header) = header else { return Ok(false) };
        let total = header.total_bytes();
        if self.chunk.as_ref().is_none_or(|c| c.room() < total) {
            self.chunk =
                Some(io.pool().append_buf(total.max(TAIL_CHUNK_BYTES)).ok_or(RecoveryError::NoMemory)?);
        }
        let bytes = self.window.get(io.fs(), &self.files, file, offset, total)?;
        let Some(chunk) = self.chunk.as_mut().filter(|_| bytes.len() == total) else { return Ok(false) };
        chunk.append(bytes);
        let buf = chunk.split(total);
        let Ok(group) = decode_group(&buf) else { return Ok(false) };
        let own: [u8; GROUP_HEADER_BYTES] =
            buf.get(..GROUP_HEADER_BYTES).and_then(|b| b.try_into().ok()).unwrap_or([0; GROUP_HEADER_BYTES]);
        let items = self.items_of(&group, file, offset)?;
        let place = GroupPlace {
            sequence: header.sequence,
            file: file as u32,
            offset,
            bytes: total as u64,
            prev_header_crc: self.prev_header_crc,
        };
        self.log.core_log.replayed(place);
        self.report.groups += 1;
        self.report.bytes += total as u64;
        self.durable_mark = self.durable_mark.max(header.durable.0);
        self.prev_header_crc = GroupHeader::own_crc(&own);
        self.next_sequence += 1;
        self.current = file;
        self.offset = offset + total as u64;
        self.apply(Sealed { sequence: header.sequence, buf, items });
        self.make_room(io);
        Ok(true)
    }

    /// What was replayed may be more than memory holds: it goes into segments then, as it would in operation. No
    /// checkpoint names these bytes before `finish` synced them.
    fn make_room<B: Backend>(&mut self, io: &mut B) {
        let log = &mut self.log;
        if log.tail_bytes < log.options.tail_bytes / 2 {
            return;
        }
        log.durable_seen = GroupSeq(self.next_sequence - 1);
        for part in &mut log.parts {
            part.durable = part.log_end;
        }
        if !std::mem::replace(&mut self.looked_for_active, true) {
            self.retired = log.pass_over_retired(io.fs());
        }
        let mut inline = Inline::new(io, std::mem::take(&mut self.destage_files));
        loop {
            log.queue_oldest();
            log.poll_destage(&mut inline);
            let mut moved = false;
            while let Some(completion) = inline.pop() {
                log.complete(&mut inline, completion);
                moved = true;
            }
            if !moved {
                break;
            }
        }
        self.destage_files = inline.into_files();
        log.evict(0);
    }

    /// The entries that are news to their partitions. Positions count from the start of the group.
    fn items_of(
        &mut self,
        group: &DecodedGroup<'_>,
        file: usize,
        offset: u64,
    ) -> Result<Vec<Item>, RecoveryError> {
        let mut items = Vec::new();
        let mut position = GROUP_HEADER_BYTES;
        for entry in &group.entries {
            let start = position;
            position += entry.len as usize;
            if entry.kind == EntryKind::NoOp {
                continue;
            }
            let Some(slot) = self.log.by_id.get(&entry.partition).copied() else {
                if entry.partition.0 < self.next_partition_id {
                    continue;
                }
                return Err(self.damage(
                    file,
                    offset,
                    vec![format!("id {}", entry.partition)],
                    "an entry names a partition that was never made".into(),
                ));
            };
            let last = match entry.kind {
                EntryKind::Batch | EntryKind::Carry => {
                    let batch = group.bytes.get(start..position).and_then(BatchHeader::parse);
                    let Some(header) = batch else {
                        return Err(self.damage(
                            file,
                            offset,
                            vec![format!("id {}", entry.partition)],
                            "an entry is no batch".into(),
                        ));
                    };
                    header.last_offset()
                }
                EntryKind::TruncateTo
                | EntryKind::LogStart
                | EntryKind::Epoch
                | EntryKind::Tombstone
                | EntryKind::NoOp => Offset(entry.arg),
            };
            let max_timestamp_ms = group
                .bytes
                .get(start..position)
                .and_then(BatchHeader::parse)
                .map_or(-1, |h| h.max_timestamp_ms);
            items.push(Item {
                slot,
                kind: entry.kind,
                base: Offset(entry.arg),
                last,
                at: start as u32,
                len: entry.len,
                max_timestamp_ms,
            });
        }
        Ok(items)
    }

    /// Applies one group to its partitions; items already in segments are dropped.
    fn apply(&mut self, mut sealed: Sealed) {
        let buf = sealed.buf.clone();
        sealed.items.retain(|item| {
            let Some(part) = self.log.parts.get_mut(item.slot as usize) else { return false };
            match item.kind {
                EntryKind::Batch | EntryKind::Carry => {
                    self.replayed.insert(item.slot, ());
                    // In segments already, or of a life before the log start moved, or carried and met before.
                    if item.base != part.log_end {
                        return false;
                    }
                    if let Some(header) = buf.get(item.at as usize..).and_then(BatchHeader::parse) {
                        if part.epochs.latest().is_none_or(|(latest, _)| latest < header.leader_epoch) {
                            part.epochs.assign(header.leader_epoch, item.base);
                        }
                        if header.has_producer_id() {
                            part.producers.apply(&header, item.base, header.max_timestamp_ms, 0);
                        }
                        // Time that was given out: the clock of this life may be behind it.
                        if header.is_log_append_time() {
                            part.last_append_ms = part.last_append_ms.max(header.max_timestamp_ms);
                        }
                    }
                    part.log_end = item.last.plus(1);
                    self.report.batches += 1;
                    true
                }
                EntryKind::LogStart => {
                    part.log_start = part.log_start.max(item.base);
                    false
                }
                EntryKind::Tombstone => {
                    part.deleted = true;
                    self.log.drop_tail(item.slot);
                    self.doomed.push(item.slot);
                    false
                }
                EntryKind::TruncateTo | EntryKind::Epoch | EntryKind::NoOp => false,
            }
        });
        self.log.take_sealed(sealed);
    }

    fn damage(&self, file: usize, offset: u64, partitions: Vec<String>, what: String) -> RecoveryError {
        let path = self.files.get(file).map_or_else(PathBuf::new, |f| f.path.clone());
        let data_dir = self.log.options.data_dir.clone();
        RecoveryError::Damaged { data_dir, path, offset, sequence: self.next_sequence, partitions, what }
    }

    /// The chain ends here. Was everything that was ever acked before the end?
    fn check_hole<B: Backend>(&mut self, io: &mut B) -> Result<(), RecoveryError> {
        // After an orderly stop everything is in segments, and the log is not needed.
        if self.report.clean {
            return Ok(());
        }
        let mut recorded = self.durable_mark;
        let (current, from) = (self.current, self.offset);
        let places = self.places_behind(io)?;
        for (file, offset) in places {
            let bytes = self.window.get(io.fs(), &self.files, file, offset, GROUP_HEADER_BYTES)?;
            if let Ok(header) = GroupHeader::decode(bytes)
                && header.sequence.0 > self.next_sequence
                // What an earlier life left beyond its end was given up when the next one began.
                && self.incarnation_of(header.sequence.0) == Some(header.incarnation)
            {
                recorded = recorded.max(header.durable.0);
            }
        }
        if recorded < self.next_sequence {
            return Ok(());
        }
        let names =
            match decode_group(self.window.get(io.fs(), &self.files, current, from, READ_CHUNK_BYTES)?) {
                Err(error) => error.partitions().iter().map(|id| self.name_of(*id)).collect(),
                Ok(_) => Vec::new(),
            };
        Err(self.damage(
            current,
            from,
            names,
            format!("groups up to {recorded} were acked, but the chain ends before {}", self.next_sequence),
        ))
    }

    /// Where groups behind the end of the chain may begin: the rest of the current file, the start of every other, and
    /// all of those that may have been written next unless they still begin with an older group: the first group of a
    /// file may be the damaged one.
    fn places_behind<B: Backend>(&mut self, io: &mut B) -> Result<Vec<(usize, u64)>, RecoveryError> {
        let (current, from) = (self.current, self.offset);
        let mut places = Vec::new();
        for file in (0..self.files.len()).filter(|f| *f != current) {
            places.push((file, 0));
            // Without growth the ring goes on in the next file; the last one went on in the first before it grew.
            let may_be_next = file == current + 1 || file == 0;
            let head = self.window.get(io.fs(), &self.files, file, 0, GROUP_HEADER_BYTES)?;
            let is_older = GroupHeader::decode(head).is_ok_and(|h| h.sequence.0 < self.next_sequence);
            if may_be_next && !is_older {
                let end = self.files.get(file).map_or(0, |f| f.bytes);
                places.extend((PAGE_BYTES as u64..end).step_by(PAGE_BYTES).map(|o| (file, o)));
            }
        }
        let end = self.files.get(current).map_or(0, |f| f.bytes);
        places.extend((from..end).step_by(PAGE_BYTES).map(|o| (current, o)));
        Ok(places)
    }

    fn name_of(&self, id: PartitionId) -> String {
        let part = self.log.by_id.get(&id).and_then(|s| self.log.parts.get(*s as usize));
        part.map_or_else(|| format!("id {id}"), |p| format!("{}-{}", p.topic, p.index))
    }

    /// Flushes what was read, begins a new life, and hands the log over.
    fn finish<B: Backend>(
        mut self,
        io: &mut B,
        start: Checkpoint,
        incarnation: u128,
    ) -> Result<(Log, RecoveryReport), RecoveryError> {
        for file in &self.files {
            io.fs().sync_data(&file.handle).map_err(at(&file.path))?;
        }
        let mut log = self.log;
        for slot in 0..log.parts.len() as u32 {
            if !self.restored.contains_key(&slot) && !self.replayed.contains_key(&slot) {
                self.report.adopted += u64::from(log.adopt(io.fs(), slot)?);
            }
        }
        for retired in self.retired {
            log.settle_retired(retired);
        }
        for part in &mut log.parts {
            let gone = part.drop_below_start(io.fs());
            let files = gone.iter().flat_map(|s| segment_files(&part.dir, s.base)).collect::<Vec<_>>();
            for open in gone.into_iter().filter_map(|s| s.open) {
                io.detach_file(open.id);
            }
            if !files.is_empty() {
                log.doomed_files.push_back((GroupSeq(0), files));
            }
            part.producers.touch(io.now_ns());
            part.durable = part.log_end;
            part.high_watermark = part.log_end;
            part.check_watermarks();
        }
        log.events.clear();
        log.sync_destaged(io.fs())?;
        let first = self.next_sequence;
        self.lives.retain(|(_, f)| *f < first);
        self.lives.push((incarnation, first));
        let mut next = Checkpoint {
            lives: self.lives.clone(),
            clean: false,
            durable_group: first - 1,
            sequence: start.sequence + 1,
            ..start
        };
        let live: Vec<PartitionState> =
            log.parts.iter().filter(|p| !p.deleted).map(crate::checkpointing::capture).collect();
        next.partitions = live;
        // Into both slots before anything of this life is acked: the other one may be what is left when this one rots,
        // and groups of a life that it did not know would be taken for stale ones and passed over.
        checkpoint::replace_slot(io.fs(), &log.options.log_dir, &next).map_err(at(&log.options.log_dir))?;
        next.sequence += 1;
        checkpoint::write_slot(io.fs(), &log.options.log_dir, &next).map_err(at(&log.options.log_dir))?;
        let store = Store {
            partitions: next.partitions.drain(..).map(|p| (p.id, p)).collect(),
            sequence: next.sequence,
        };
        log.checkpoint = CheckpointState::new(store, self.lives, GroupSeq(next.next_group - 1));
        log.core_log.begin_life(incarnation, self.current, self.offset, first, self.prev_header_crc);
        log.resume(GroupSeq(first - 1));
        for slot in self.doomed {
            log.doom(slot);
        }
        log.advance_destaged();
        self.report.partitions = log.by_id.len() as u64;
        Ok((log, self.report))
    }
}

impl Log {
    /// Puts back what the checkpoint knew of a partition.
    fn restore(&mut self, slot: u32, state: &PartitionState) {
        let first_uid = self.next_serial + 1;
        self.next_serial += state.segments.len() as u64 + 1;
        let Some(part) = self.parts.get_mut(slot as usize) else { return };
        part.log_start = Offset(state.log_start);
        part.destaged = Offset(state.next_offset);
        part.log_end = Offset(state.next_offset);
        part.last_append_ms = state.max_timestamp_ms;
        part.epochs =
            EpochCache::from_entries(state.epochs.iter().map(|(e, s)| (LeaderEpoch(*e), Offset(*s))));
        part.producers = ProducerTable::restore(&state.producers);
        part.segments = state
            .segments
            .iter()
            .zip(first_uid..)
            .map(|(s, uid)| Segment {
                bytes: s.bytes,
                max_timestamp_ms: s.max_timestamp_ms,
                offset_of_max: Offset(s.offset_of_max_timestamp),
                sealed: s.sealed,
                index: None,
                tail_page_known: false,
                ..Segment::fresh(Offset(s.base_offset), uid, s.created_ms, 0)
            })
            .collect();
    }

    /// A partition that only the checkpoint knows: its topic was deleted.
    fn add_doomed(&mut self, state: &PartitionState) -> u32 {
        let slot = self.parts.len() as u32;
        let mut part = crate::partition::Partition::new(
            PartitionId(state.id),
            state.topic.as_str().into(),
            ringmill_types::TopicId(state.topic_id),
            state.index,
            &self.options.data_dir,
            std::sync::Arc::default(),
            LeaderEpoch(0),
        );
        part.deleted = true;
        self.parts.push(part);
        slot
    }

    fn doom(&mut self, slot: u32) {
        self.drop_tail(slot);
        if let Some(part) = self.parts.get_mut(slot as usize) {
            part.deleted = true;
            let id = part.id;
            self.by_id.remove(&id);
            self.destage.remove_dirs.push_back(slot);
            self.checkpoint.note_deleted(slot);
        }
    }

    /// The newest checkpoint may name a segment as active that was sealed and retired after it: nothing can be written to
    /// it, and its log-start entry may come later in the replay. Batches go on in a new segment. Looks at every partition
    /// that has an active segment, which a start that fits into memory never needs.
    fn pass_over_retired(&mut self, fs: &dyn Fs) -> Vec<Retired> {
        let mut retired = Vec::new();
        for (slot, part) in self.parts.iter_mut().enumerate().filter(|(_, p)| !p.deleted) {
            if part.misses_active(fs) {
                let segments = std::mem::take(&mut part.segments);
                retired.push(Retired { slot: slot as u32, end: part.destaged, segments });
            }
        }
        retired
    }

    /// Replay is over: the log start says whether retention took the segments, or somebody else did.
    fn settle_retired(&mut self, retired: Retired) {
        let Some(part) = self.parts.get_mut(retired.slot as usize) else { return };
        let is_lost = part.log_start < retired.end;
        part.segments.splice(0..0, retired.segments.into_iter().map(|s| Segment { sealed: true, ..s }));
        // Nothing was written after it.
        if let Some(active) = part.segments.last_mut().filter(|s| s.base < retired.end) {
            active.sealed = false;
        }
        if is_lost {
            self.take_offline(retired.slot, "its active segment is missing", &io::ErrorKind::NotFound.into());
        }
    }

    /// What replay had to move into segments is synced before a checkpoint names it.
    fn sync_destaged(&mut self, fs: &dyn Fs) -> Result<(), RecoveryError> {
        for part in &mut self.parts {
            if !std::mem::take(&mut part.dirty) {
                continue;
            }
            if let Some(open) = part.segments.last().and_then(|s| s.open.as_ref()) {
                fs.sync_data(&open.handle).map_err(at(&part.dir))?;
            }
        }
        let dirs = std::mem::take(&mut self.checkpoint.new_dirs);
        if !dirs.is_empty() {
            let topics = self.options.data_dir.join("topics");
            sync_names(fs, dirs.iter().chain([&topics])).map_err(at(&topics))?;
        }
        Ok(())
    }

    /// A folder that no checkpoint and no group knows was put there by someone: Kafka's, to be served from now on.
    fn adopt(&mut self, fs: &dyn Fs, slot: u32) -> Result<bool, RecoveryError> {
        let Some(part) = self.parts.get(slot as usize).filter(|p| !p.deleted) else { return Ok(false) };
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
        self.restore(slot, &state);
        if let Some(part) = self.parts.get_mut(slot as usize) {
            part.folder_known = true;
        }
        tracing::info!(folder = %dir.display(), next_offset = state.next_offset, "adopted a partition folder that was put in place");
        Ok(true)
    }

    /// Counters that depend on where replay ended.
    fn resume(&mut self, newest: GroupSeq) {
        self.durable_seen = newest;
        self.advance_destaged();
        for slot in 0..self.parts.len() as u32 {
            self.checkpoint.note_changed(slot);
        }
    }
}
