//! Log compaction, the part without I/O: which records a key has outlived, and the segments that stay.
//!
//! [`Compaction`] is a state machine: it says what to read and what to write ([`Step`]), whoever drives it does so, at
//! whatever pace. It never touches a file that is served: new segments are written beside the old ones, under names that
//! end in [`SUFFIX`]; the core that owns the partition puts them in place (`compaction.rs`).
//!
//! Rules, as Kafka's cleaner has them: the newest record of a key stays, at its offset; a delete marker stays for
//! `delete.retention.ms` after the first pass that met it, which notes the end of that time in the batch's header
//! (KIP-534); records without a key go. Memory is bounded by the map of keys ([`map`]): when it is full, the pass covers
//! what it has seen and the next one the rest. Batches of transactions and control batches stay as they are, and so do
//! batches that do not unpack: whoever cannot be understood is not thrown away.

mod map;
mod rewrite;

use crate::index::SegmentIndex;
use crate::options::Faults;
use crate::segment::check_batch;
use map::OffsetMap;
use ringmill_record::{BatchHeader, HEADER_BYTES};
use ringmill_types::limits::PAGE_BYTES;
use ringmill_types::{Offset, PartitionId};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};

/// Files of segments that were written by compaction and are not in place yet; Kafka's name for them.
pub const SUFFIX: &str = "cleaned";

/// One read, and one write.
pub const STEP_BYTES: usize = 256 << 10;

/// A sealed segment that a pass reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    pub base: Offset,
    pub bytes: u64,
    pub created_ms: i64,
}

/// One pass over one partition. `sources` are in offset order and sealed; everything from `dirty_from` on in them is
/// read twice, what lies before once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    pub partition: PartitionId,
    pub dir: PathBuf,
    pub sources: Vec<Source>,
    pub dirty_from: Offset,
    /// Base of the segment behind the last source.
    pub end: Offset,
    /// New segments join old ones up to this size.
    pub segment_bytes: u64,
    pub index_interval_bytes: u32,
    pub delete_retention_ms: i64,
    pub now_ms: i64,
    /// Memory for keys.
    pub map_bytes: usize,
    /// Planted by the simulator's tests.
    pub faults: Faults,
}

/// Old segments and what takes their place: nothing when all their records have gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub sources: Vec<Offset>,
    pub output: Option<Output>,
}

/// A segment written by a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output {
    pub base: Offset,
    pub bytes: u64,
    pub max_timestamp_ms: i64,
    pub offset_of_max: Offset,
    pub created_ms: i64,
    pub index_entries: u32,
    pub time_entries: u32,
}

/// What a pass gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cleaned {
    /// Only where something changed.
    pub groups: Vec<Group>,
    /// Where the next pass begins to look for newer records of old keys.
    pub clean_to: Offset,
    pub records_kept: u64,
    pub records_dropped: u64,
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Read this much of the source's `.log` and [`Compaction::feed`] it.
    Read { path: PathBuf, at: u64, len: usize },
    /// Write to the new segment, page-aligned; the first write of a file makes it.
    Write { path: PathBuf, at: u64, bytes: Vec<u8> },
    /// Cut the file to `bytes`, write its indexes beside it, and sync all three.
    Seal { log: PathBuf, bytes: u64, index: (PathBuf, Vec<u8>), time_index: (PathBuf, Vec<u8>) },
    /// Nothing changed in this group, or nothing is left: what was written is removed.
    Discard { path: PathBuf },
    /// Sync the folder; then this is the result.
    Done(Cleaned),
}

/// Why a pass ends without a result: the source is not what the core said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged {
    pub base: Offset,
    pub at: u64,
}

/// `.../00000000000000000042.log.cleaned`
pub fn cleaned_path(dir: &Path, base: Offset, extension: &str) -> PathBuf {
    dir.join(format!("{:020}.{extension}.{SUFFIX}", base.0))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    /// Keys of the dirty part go into the map.
    Map,
    /// What is superseded goes.
    Rewrite,
}

/// One pass on its way.
pub struct Compaction {
    order: Order,
    map: OffsetMap,
    pass: Pass,
    /// Source in hand, and how far of it was asked for.
    source: usize,
    read_to: u64,
    /// Read and not yet looked at; begins at a batch.
    input: Vec<u8>,
    /// Of `input`, what was looked at.
    used: usize,
    /// Index of the first source of each group, and the end.
    bounds: VecDeque<usize>,
    writing: Option<Writing>,
    steps: VecDeque<Step>,
    cleaned: Cleaned,
    done: bool,
}

/// The new segment of the group in hand.
struct Writing {
    first: usize,
    base: Offset,
    index: SegmentIndex,
    /// Not handed out yet; begins at a page.
    output: Vec<u8>,
    written: u64,
    changed: bool,
    created_ms: i64,
}

impl Compaction {
    pub fn new(order: Order) -> Compaction {
        let dirty = order.end.0.saturating_sub(order.dirty_from.0.max(0)).max(0) as u64;
        let map = OffsetMap::new(order.map_bytes, dirty);
        let first_dirty = order.sources.partition_point(|s| s.base < order.dirty_from);
        // The segment that holds `dirty_from` may begin before it.
        let source = first_dirty.saturating_sub(1).min(order.sources.len());
        let bounds = group_bounds(&order);
        let clean_to = order.end;
        Compaction {
            map,
            pass: Pass::Map,
            source,
            read_to: 0,
            input: Vec::new(),
            used: 0,
            bounds,
            writing: None,
            steps: VecDeque::new(),
            cleaned: Cleaned { groups: Vec::new(), clean_to, records_kept: 0, records_dropped: 0 },
            done: order.sources.is_empty(),
            order,
        }
    }

    /// The bytes that a [`Step::Read`] asked for; fewer mean that the file is shorter than it should be.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.input.drain(..self.used);
        self.used = 0;
        self.input.extend_from_slice(bytes);
        self.read_to += bytes.len() as u64;
    }

    /// # Errors
    /// [`Damaged`]: nothing of this pass may be used.
    pub fn next_step(&mut self) -> Result<Step, Damaged> {
        loop {
            if let Some(step) = self.steps.pop_front() {
                return Ok(step);
            }
            if self.done {
                return Ok(Step::Done(self.cleaned.clone()));
            }
            let Some(source) = self.order.sources.get(self.source).copied() else {
                self.end_of_pass();
                continue;
            };
            let rest = self.input.get(self.used..).unwrap_or_default();
            match BatchHeader::parse(rest).filter(|h| rest.len() >= h.size_bytes && h.magic == 2) {
                Some(header) => {
                    let next = self.used + header.size_bytes;
                    // What is rewritten gets a new CRC: damage must not pass for data.
                    if check_batch(rest).is_err() {
                        return Err(Damaged { base: source.base, at: self.read_to - rest.len() as u64 });
                    }
                    self.batch(&header);
                    self.used = next;
                }
                None if self.read_to < source.bytes => {
                    let wanted = BatchHeader::parse(rest).map_or(HEADER_BYTES, |h| h.size_bytes);
                    let missing = wanted.saturating_sub(rest.len()).max(STEP_BYTES) as u64;
                    let len = missing.min(source.bytes - self.read_to) as usize;
                    let path = crate::partition::segment_path(&self.order.dir, source.base, "log");
                    return Ok(Step::Read { path, at: self.read_to, len });
                }
                None if rest.is_empty() => self.end_of_source(),
                None => {
                    let at = self.read_to.saturating_sub(rest.len() as u64);
                    return Err(Damaged { base: source.base, at });
                }
            }
        }
    }

    fn batch(&mut self, header: &BatchHeader) {
        let Some(batch) = self.input.get(self.used..self.used + header.size_bytes) else { return };
        match self.pass {
            Pass::Map => {
                if header.last_offset() < self.order.dirty_from {
                    return;
                }
                if !rewrite::note_keys(header, batch, &mut self.map, self.order.faults) {
                    // Full: this pass goes by what came before.
                    self.cleaned.clean_to = header.base_offset;
                    self.source = self.order.sources.len();
                }
            }
            Pass::Rewrite => self.rewrite(header),
        }
    }

    fn rewrite(&mut self, header: &BatchHeader) {
        let Some(batch) = self.input.get(self.used..self.used + header.size_bytes) else { return };
        let Some(writing) = self.writing.as_mut() else { return };
        let retention_ms =
            if self.order.faults.markers_go_at_once { 0 } else { self.order.delete_retention_ms };
        let times = rewrite::Times {
            now_ms: self.order.now_ms,
            horizon_ms: self.order.now_ms.saturating_add(retention_ms),
        };
        let kept = rewrite::clean(header, batch, &self.map, times);
        self.cleaned.records_kept += kept.records;
        self.cleaned.records_dropped += (header.record_count.max(0) as u64).saturating_sub(kept.records);
        let bytes = match &kept.bytes {
            rewrite::Kept::AsItIs => batch,
            rewrite::Kept::Rewritten(bytes) => {
                writing.changed = true;
                bytes
            }
        };
        let Some(header) = BatchHeader::parse(bytes).filter(|_| !bytes.is_empty()) else { return };
        let position = writing.written + writing.output.len() as u64;
        writing.index.append(&header, u32::try_from(position).unwrap_or(u32::MAX));
        writing.output.extend_from_slice(bytes);
        let path = cleaned_path(&self.order.dir, writing.base, "log");
        while writing.output.len() >= STEP_BYTES {
            let rest = writing.output.split_off(STEP_BYTES);
            let bytes = std::mem::replace(&mut writing.output, rest);
            self.steps.push_back(Step::Write { path: path.clone(), at: writing.written, bytes });
            writing.written += STEP_BYTES as u64;
        }
    }

    fn end_of_source(&mut self) {
        self.source += 1;
        self.read_to = 0;
        self.input.clear();
        self.used = 0;
        if self.pass == Pass::Rewrite {
            if self.bounds.front() == Some(&self.source) {
                self.end_group();
            }
            self.begin_group();
        }
    }

    fn end_of_pass(&mut self) {
        self.read_to = 0;
        self.input.clear();
        self.used = 0;
        match self.pass {
            Pass::Map => {
                self.pass = Pass::Rewrite;
                self.source = 0;
                self.bounds.pop_front();
                self.begin_group();
            }
            Pass::Rewrite => self.done = true,
        }
    }

    fn begin_group(&mut self) {
        let Some(source) = self.order.sources.get(self.source).filter(|_| self.writing.is_none()) else {
            return;
        };
        let last = self.bounds.front().and_then(|end| self.order.sources.get(end.saturating_sub(1)));
        self.writing = Some(Writing {
            first: self.source,
            base: source.base,
            index: SegmentIndex::new(source.base, self.order.index_interval_bytes),
            output: Vec::new(),
            written: 0,
            changed: false,
            created_ms: last.map_or(source.created_ms, |s| s.created_ms),
        });
    }

    fn end_group(&mut self) {
        self.bounds.pop_front();
        let Some(mut writing) = self.writing.take() else { return };
        let sources: Vec<Offset> = (self.order.sources.iter())
            .take(self.source)
            .skip(writing.first)
            .map(|source| source.base)
            .collect();
        let bytes = writing.written + writing.output.len() as u64;
        let log = cleaned_path(&self.order.dir, writing.base, "log");
        let changed = writing.changed || sources.len() > 1;
        if !changed || bytes == 0 {
            self.steps.push_back(Step::Discard { path: log });
            if changed {
                self.cleaned.groups.push(Group { sources, output: None });
            }
            return;
        }
        if !writing.output.is_empty() {
            writing.output.resize(writing.output.len().next_multiple_of(PAGE_BYTES), 0);
            let bytes = std::mem::take(&mut writing.output);
            self.steps.push_back(Step::Write { path: log.clone(), at: writing.written, bytes });
        }
        let (max_timestamp_ms, offset_of_max) = writing.index.max_timestamp();
        writing.index.finish(max_timestamp_ms, offset_of_max);
        let path = |extension| cleaned_path(&self.order.dir, writing.base, extension);
        self.steps.push_back(Step::Seal {
            log,
            bytes,
            index: (path("index"), writing.index.offset_bytes()),
            time_index: (path("timeindex"), writing.index.time_bytes()),
        });
        let output = Output {
            base: writing.base,
            bytes,
            max_timestamp_ms,
            offset_of_max,
            created_ms: writing.created_ms,
            index_entries: writing.index.offset_entries(),
            time_entries: writing.index.time_entries(),
        };
        self.cleaned.groups.push(Group { sources, output: Some(output) });
    }
}

/// Where groups of sources begin, and the end: as many as would fit one segment if nothing were dropped.
fn group_bounds(order: &Order) -> VecDeque<usize> {
    let mut bounds = VecDeque::from([0]);
    let (mut bytes, mut base) = (0, Offset::ZERO);
    for (at, source) in order.sources.iter().enumerate() {
        let end = order.sources.get(at + 1).map_or(order.end, |next| next.base);
        let is_first = bounds.back() == Some(&at);
        if !is_first && (bytes + source.bytes > order.segment_bytes || end.0 - base.0 > i64::from(i32::MAX)) {
            bounds.push_back(at);
            bytes = 0;
        }
        if bounds.back() == Some(&at) {
            base = source.base;
        }
        bytes += source.bytes;
    }
    bounds.push_back(order.sources.len());
    bounds
}
