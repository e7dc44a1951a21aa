//! The core log: flush groups on a ring of recycled, zero-filled files. The only thing an ack waits for.
//!
//! Guarantees: groups become durable in sequence order; [`CoreLog::durable`] is the longest prefix of groups covered by
//! a flush; a group's bytes are immutable from seal on. Never allocates, extends or syncs files itself: new files are
//! handed in ready, and space is reused only after [`CoreLog::reclaim`] said so.
//!
//! A flush covers the writes whose completion was reaped before it was submitted, and the write it is linked to.
//! A group that is sealed because it is full may run ahead of the flush; it carries no link and waits for a later one.

use crate::format::group::{self, Entry, EntryKind, GROUP_HEADER_BYTES, GroupHeader};
use crate::options::{Faults, LogOptions};
use crate::token::{self, token};
use ringmill_reactor::{AppendBuf, Backend, Buf, Errno, FileId, Flush, Op, Pool};
use ringmill_types::limits::{
    DESTAGE_BYTES, GROUP_OVERHEAD_BYTES_MAX, PAGE_BYTES, TAIL_CHUNK_BYTES, run_ahead_groups,
};
use ringmill_types::{GroupSeq, LeaderEpoch, Offset, PartitionId};
use std::collections::VecDeque;

/// Samples of flushes that are kept for whoever takes them each turn; nobody has to.
const FLUSHED_MAX: usize = 64;

/// Entries in one group: their table must fit the overhead reserved for it.
const ENTRIES_MAX: usize =
    (GROUP_OVERHEAD_BYTES_MAX - GROUP_HEADER_BYTES - PAGE_BYTES - 8) / crate::format::group::ENTRY_BYTES;
const _: () = assert!(ENTRIES_MAX >= 1500);

/// One file of the ring.
#[derive(Debug)]
pub(crate) struct RingFile {
    pub file: FileId,
    pub bytes: u64,
    /// Newest group in it; 0 when it may be overwritten from the start.
    pub last_group: GroupSeq,
}

/// Where a group lies, and what a reader needs to continue the chain there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GroupPlace {
    pub sequence: GroupSeq,
    pub file: u32,
    pub offset: u64,
    pub bytes: u64,
    pub prev_header_crc: u32,
}

/// Part of a sealed group that belongs to one partition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Item {
    /// Partition slot in the owning `Log`.
    pub slot: u32,
    pub kind: EntryKind,
    pub base: Offset,
    pub last: Offset,
    pub at: u32,
    pub len: u32,
    pub max_timestamp_ms: i64,
}

/// A group that just became immutable.
pub(crate) struct Sealed {
    pub sequence: GroupSeq,
    pub buf: Buf,
    pub items: Vec<Item>,
}

struct OpenGroup {
    entries: Vec<Entry>,
    items: Vec<Item>,
    payload_bytes: usize,
    since_ns: u64,
}

struct Pending {
    sequence: GroupSeq,
    file: u32,
    sealed_ns: u64,
    bytes: u64,
    written: bool,
    /// Serial of the flush that will cover it.
    flush: Option<u64>,
    covered: bool,
}

/// A group that became durable: how long after it was sealed, and how large it was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flushed {
    pub micros: u64,
    pub bytes: u64,
}

/// Why an entry cannot be taken now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRoom {
    /// The open group is full and may not be sealed yet, the ring is full, or memory is.
    Busy,
    /// No file of the ring could ever hold it.
    TooLarge,
}

pub(crate) struct CoreLog {
    group_bytes: usize,
    linger_ns: u64,
    flush_depth: usize,
    write_flush: Flush,
    faults: Faults,
    pub incarnation: u128,
    pub files: Vec<RingFile>,
    pub current: usize,
    pub write_at: u64,
    next_sequence: u64,
    prev_header_crc: u32,
    open: Option<OpenGroup>,
    chunk: Option<AppendBuf>,
    pending: VecDeque<Pending>,
    /// Everything from the checkpoint's start to the newest sealed group.
    pub places: VecDeque<GroupPlace>,
    durable: GroupSeq,
    /// Durable sequence that is itself recorded on disk, by a later group.
    recorded: GroupSeq,
    /// Newest group that holds more than a mark: marks themselves need no mark.
    last_content: GroupSeq,
    flushes_in_flight: usize,
    flush_serial: u64,
    sync_only: bool,
    /// An append found no room in the open group: it is as full as it gets.
    starved: bool,
    /// An append would have needed so much that is not there.
    short_of_bytes: u64,
    wants_larger: bool,
    /// What files made from now on hold.
    file_bytes: u64,
    used_bytes: u64,
    /// Next group must begin in the next file; wait until all before it is durable.
    rolling: bool,
    /// Since they were last taken, [`FLUSHED_MAX`] at most. A flush may cover several groups at once, and each counts.
    pub flushed: VecDeque<Flushed>,
}

/// Where the log continues after recovery.
pub(crate) struct Resume {
    pub incarnation: u128,
    pub current: usize,
    pub write_at: u64,
    pub next_sequence: u64,
    pub prev_header_crc: u32,
    pub places: VecDeque<GroupPlace>,
}

impl CoreLog {
    pub fn new(options: &LogOptions, files: Vec<RingFile>, resume: Resume) -> CoreLog {
        let durable = GroupSeq(resume.next_sequence - 1);
        let used_bytes = resume.places.iter().map(|p| p.bytes).sum();
        CoreLog {
            group_bytes: options.group_bytes,
            linger_ns: options.linger_us * 1000,
            flush_depth: options.flush_depth.max(1),
            write_flush: options.write_flush(),
            faults: options.faults,
            incarnation: resume.incarnation,
            files,
            current: resume.current,
            write_at: resume.write_at,
            next_sequence: resume.next_sequence,
            prev_header_crc: resume.prev_header_crc,
            open: None,
            chunk: None,
            pending: VecDeque::new(),
            places: resume.places,
            durable,
            recorded: durable,
            last_content: durable,
            flushes_in_flight: 0,
            flush_serial: 0,
            sync_only: false,
            starved: false,
            short_of_bytes: 0,
            wants_larger: false,
            file_bytes: options.file_bytes,
            used_bytes,
            rolling: false,
            flushed: VecDeque::new(),
        }
    }

    pub fn durable(&self) -> GroupSeq {
        self.durable
    }

    /// Newest sealed group.
    pub fn sealed(&self) -> GroupSeq {
        GroupSeq(self.next_sequence - 1)
    }

    /// The group that the next append joins.
    pub fn open_sequence(&self) -> GroupSeq {
        GroupSeq(self.next_sequence)
    }

    /// The newest group that holds anything, sealed or not: with it, all appended before now is durable.
    pub fn newest(&self) -> GroupSeq {
        if self.has_open() { self.open_sequence() } else { self.sealed() }
    }

    pub fn has_open(&self) -> bool {
        self.open.is_some()
    }

    /// What came last found no memory, and there is none yet. What is held, however little, has to go then.
    pub fn is_short_of_memory(&self) -> bool {
        self.short_of_bytes > 0
    }

    /// There may be memory by now.
    pub fn look_for_memory(&mut self, pool: &Pool) {
        let stats = pool.stats();
        if stats.limit_bytes.saturating_sub(stats.used_bytes) >= self.short_of_bytes {
            self.short_of_bytes = 0;
        }
    }

    /// A group of so many bytes could be opened now.
    pub fn can_take(&self, bytes: usize) -> bool {
        self.open.is_none() && !self.rolling && self.group_fits_on_disk(bytes)
    }

    /// A batch came that no file of the ring can hold, but a file of the usual size could.
    pub fn wants_larger(&self) -> bool {
        self.wants_larger
    }

    /// The chain as replay found it.
    pub fn replayed(&mut self, place: GroupPlace) {
        self.used_bytes += place.bytes;
        if let Some(file) = self.files.get_mut(place.file as usize) {
            file.last_group = place.sequence;
        }
        self.places.push_back(place);
    }

    /// Everything before `next_sequence` is durable; groups of this life follow at the given place.
    pub fn begin_life(
        &mut self,
        incarnation: u128,
        current: usize,
        write_at: u64,
        next_sequence: u64,
        prev_header_crc: u32,
    ) {
        self.incarnation = incarnation;
        self.current = current;
        self.write_at = write_at;
        self.next_sequence = next_sequence;
        self.prev_header_crc = prev_header_crc;
        self.durable = GroupSeq(next_sequence - 1);
        self.recorded = self.durable;
        self.last_content = self.durable;
    }

    pub fn is_quiet(&self) -> bool {
        self.open.is_none() && self.pending.is_empty()
    }

    /// The durable mark on disk is behind: an empty group should record it.
    pub fn wants_mark(&self) -> bool {
        self.is_quiet() && self.recorded < self.last_content
    }

    pub fn capacity_bytes(&self) -> u64 {
        self.files.iter().map(|f| f.bytes).sum()
    }

    pub fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    pub fn largest_file_bytes(&self) -> u64 {
        self.files.iter().map(|f| f.bytes).max().unwrap_or(0)
    }

    fn next_file(&self) -> usize {
        if self.current + 1 < self.files.len() { self.current + 1 } else { 0 }
    }

    /// The file after the current one may be written.
    pub fn next_is_free(&self) -> bool {
        let next = self.next_file();
        next != self.current && self.files.get(next).is_some_and(|f| f.last_group.0 == 0)
    }

    /// Free bytes: rest of the current file and all reclaimed files.
    pub fn free_bytes(&self) -> u64 {
        let rest = self.files.get(self.current).map_or(0, |f| f.bytes - self.write_at);
        rest + self
            .files
            .iter()
            .enumerate()
            .filter(|(i, f)| *i != self.current && f.last_group.0 == 0)
            .map(|(_, f)| f.bytes)
            .sum::<u64>()
    }

    /// Appends a batch to the open group, placement fields patched by `patch`.
    ///
    /// # Errors
    /// [`NoRoom`]; nothing changed then.
    pub fn append(
        &mut self,
        pool: &Pool,
        now_ns: u64,
        (partition, epoch): (PartitionId, LeaderEpoch),
        mut item: Item,
        bytes: &[u8],
        patch: impl FnOnce(&mut [u8]),
    ) -> Result<GroupSeq, NoRoom> {
        let need = bytes.len() + GROUP_OVERHEAD_BYTES_MAX;
        if need as u64 > self.largest_file_bytes() {
            if need as u64 > self.file_bytes {
                return Err(NoRoom::TooLarge);
            }
            self.wants_larger = true;
            return Err(NoRoom::Busy);
        }
        self.wants_larger = false;
        self.make_open(pool, now_ns, need)?;
        let (Some(open), Some(chunk)) = (self.open.as_mut(), self.chunk.as_mut()) else {
            return Err(NoRoom::Busy);
        };
        let at = chunk.append_past_cache(bytes);
        let placed = chunk.open_mut().get_mut(at..at + bytes.len()).unwrap_or_default();
        patch(placed);
        let crc = crc32c::crc32c(
            placed.get(..placed.len().min(crate::format::group::ENTRY_CRC_BYTES)).unwrap_or_default(),
        );
        item.at = at as u32;
        item.len = bytes.len() as u32;
        open.entries.push(Entry { partition, arg: item.base.0, len: item.len, crc, epoch, kind: item.kind });
        open.items.push(item);
        open.payload_bytes += bytes.len();
        Ok(GroupSeq(self.next_sequence))
    }

    /// Opens a group, or makes sure that the open one can take `need` more bytes in memory and on disk.
    fn make_open(&mut self, pool: &Pool, now_ns: u64, need: usize) -> Result<(), NoRoom> {
        if let Some(open) = &self.open {
            let room = self.chunk.as_ref().map_or(0, AppendBuf::room);
            let fits = room >= need && open.entries.len() < ENTRIES_MAX;
            let small = open.payload_bytes + need - GROUP_OVERHEAD_BYTES_MAX <= self.group_bytes
                || open.entries.is_empty();
            let on_disk = self.group_fits_on_disk(open.payload_bytes + need);
            // A full group must leave before more is taken; `poll` seals it when a write may leave.
            if fits && small && on_disk {
                return Ok(());
            }
            self.starved = true;
            return Err(NoRoom::Busy);
        }
        if !self.group_fits_on_disk(need) {
            return Err(NoRoom::Busy);
        }
        if self.chunk.as_ref().is_none_or(|c| c.room() < need) {
            // What is taken in is copied once more on its way to its segment: without memory for that, none would become free.
            let stats = pool.stats();
            let free = stats.limit_bytes.saturating_sub(stats.used_bytes);
            let (chunk, copy) = (need.max(TAIL_CHUNK_BYTES), need.max(2 * DESTAGE_BYTES));
            let wanted_bytes = (chunk + copy) as u64;
            let made = if free < wanted_bytes { None } else { pool.append_buf(chunk) };
            self.short_of_bytes = if made.is_none() { wanted_bytes } else { 0 };
            self.chunk = Some(made.ok_or(NoRoom::Busy)?);
        }
        if let Some(chunk) = &mut self.chunk {
            chunk.append_zeros(GROUP_HEADER_BYTES);
        }
        self.open =
            Some(OpenGroup { entries: Vec::new(), items: Vec::new(), payload_bytes: 0, since_ns: now_ns });
        Ok(())
    }

    fn group_fits_on_disk(&self, bytes: usize) -> bool {
        self.files
            .get(self.current)
            .is_some_and(|f| self.write_at + (bytes as u64).next_multiple_of(PAGE_BYTES as u64) <= f.bytes)
            || (self.next_is_free()
                && self.files.get(self.next_file()).is_some_and(|f| f.bytes >= bytes as u64))
    }

    /// Adds an entry without a payload: truncation, log start, tombstone, or nothing at all (a durable mark).
    pub fn append_event(
        &mut self,
        pool: &Pool,
        now_ns: u64,
        slot: u32,
        entry: Entry,
    ) -> Result<GroupSeq, NoRoom> {
        let need = GROUP_OVERHEAD_BYTES_MAX;
        self.make_open(pool, now_ns, need)?;
        let Some(open) = self.open.as_mut() else { return Err(NoRoom::Busy) };
        let offset = Offset(entry.arg);
        open.items.push(Item {
            slot,
            kind: entry.kind,
            base: offset,
            last: offset,
            at: 0,
            len: 0,
            max_timestamp_ms: -1,
        });
        open.entries.push(entry);
        Ok(GroupSeq(self.next_sequence))
    }

    /// Seals and submits what may leave now. Call once a turn, before entering the kernel, until it returns `None`.
    pub fn poll<B: Backend>(&mut self, io: &mut B, now_ns: u64) -> Option<Sealed> {
        let sealed = if self.may_seal(now_ns) { self.seal_and_write(io, now_ns) } else { None };
        if sealed.is_none() {
            self.flush_leftovers(io);
        }
        sealed
    }

    /// As [`CoreLog::poll`], for a group that is not to wait for company.
    pub fn poll_now<B: Backend>(&mut self, io: &mut B, now_ns: u64) -> Option<Sealed> {
        let leaves = self.open.is_some() && self.slots_busy() < self.flush_depth;
        if leaves { self.seal_and_write(io, now_ns) } else { None }
    }

    /// When the open group may leave, if it waits for time alone. Without a linger that is at once: also what joined after the
    /// last [`CoreLog::poll`] wants the next one. A flush under way, or the next file, comes with a completion instead.
    pub fn deadline_ns(&self) -> Option<u64> {
        let open = self.open.as_ref()?;
        let waits = self.rolling || self.slots_busy() >= self.flush_depth;
        (!waits).then_some(open.since_ns + self.linger_ns)
    }

    fn is_full(&self, open: &OpenGroup) -> bool {
        let room = self.chunk.as_ref().map_or(0, AppendBuf::room);
        open.payload_bytes >= self.group_bytes / 2
            && (open.payload_bytes >= self.group_bytes * 7 / 8 || room < self.group_bytes / 8)
            || open.entries.len() >= ENTRIES_MAX
            || room < GROUP_OVERHEAD_BYTES_MAX * 2
    }

    fn may_seal(&self, now_ns: u64) -> bool {
        let Some(open) = &self.open else { return false };
        let full = self.is_full(open) || self.starved;
        if self.slots_busy() < self.flush_depth {
            return self.linger_ns == 0 || full || now_ns >= open.since_ns + self.linger_ns;
        }
        full && self.pending.len() < run_ahead_groups(self.group_bytes) + self.flush_depth
    }

    /// Flushes in flight; a DSYNC write is its own flush.
    fn slots_busy(&self) -> usize {
        if self.write_flush == Flush::Dsync { self.pending.len() } else { self.flushes_in_flight }
    }

    fn seal_and_write<B: Backend>(&mut self, io: &mut B, now_ns: u64) -> Option<Sealed> {
        let need = {
            let open = self.open.as_ref()?;
            group::total_bytes(open.payload_bytes, open.entries.len()) as u64
        };
        let file_bytes = self.files.get(self.current)?.bytes;
        if self.write_at + need > file_bytes {
            // The old file gets its own flush before the next is used: all of it must be durable first.
            self.rolling = true;
            if !self.pending.is_empty() || !self.next_is_free() {
                return None;
            }
            self.current = self.next_file();
            self.write_at = 0;
            self.rolling = false;
        }
        let (buf, items) = self.seal(need as usize)?;
        let sequence = GroupSeq(self.next_sequence);
        let place = GroupPlace {
            sequence,
            file: self.current as u32,
            offset: self.write_at,
            bytes: need,
            prev_header_crc: self.prev_header_crc,
        };
        let may_flush = self.slots_busy() < self.flush_depth && !self.faults.ack_before_flush;
        let flush =
            if may_flush || self.write_flush == Flush::Dsync { self.write_flush } else { Flush::None };
        let serial = self.take_flush(flush == Flush::Linked);
        let header: [u8; GROUP_HEADER_BYTES] = buf.get(..GROUP_HEADER_BYTES)?.try_into().ok()?;
        self.prev_header_crc = GroupHeader::own_crc(&header);
        let ring_file = self.files.get_mut(self.current)?;
        ring_file.last_group = sequence;
        io.push(
            Op::Write { file: ring_file.file, buf: buf.clone(), offset: self.write_at, flush },
            token(token::LOG_WRITE, self.next_sequence),
        );
        self.pending.push_back(Pending {
            sequence,
            file: self.current as u32,
            sealed_ns: now_ns,
            bytes: need,
            written: false,
            flush: serial,
            covered: false,
        });
        self.recorded = self.durable;
        if items.iter().any(|i| i.kind != EntryKind::NoOp) {
            self.last_content = sequence;
        }
        self.places.push_back(place);
        self.used_bytes += need;
        self.starved = false;
        self.write_at += need;
        self.next_sequence += 1;
        Some(Sealed { sequence, buf, items })
    }

    /// Counts a flush as in flight and marks what it covers.
    fn take_flush(&mut self, linked: bool) -> Option<u64> {
        if !linked {
            return None;
        }
        self.flush_serial += 1;
        self.flushes_in_flight += 1;
        for group in self.pending.iter_mut().filter(|g| g.written && !g.covered && g.flush.is_none()) {
            group.flush = Some(self.flush_serial);
        }
        Some(self.flush_serial)
    }

    /// Memory for groups to come, while there is none to be.
    pub fn give_up_chunk(&mut self) {
        if self.open.is_none() {
            self.chunk = None;
        }
    }

    fn seal(&mut self, need: usize) -> Option<(Buf, Vec<Item>)> {
        let open = self.open.take()?;
        let chunk = self.chunk.as_mut()?;
        let table_gap = (GROUP_HEADER_BYTES + open.payload_bytes).next_multiple_of(8)
            - GROUP_HEADER_BYTES
            - open.payload_bytes;
        chunk.append_zeros(table_gap);
        let mut table_crc = 0;
        for entry in &open.entries {
            let bytes = entry.encode();
            table_crc = crc32c::crc32c_append(table_crc, &bytes);
            chunk.append(&bytes);
        }
        let header = GroupHeader {
            incarnation: self.incarnation,
            sequence: GroupSeq(self.next_sequence),
            durable: self.durable,
            prev_header_crc: self.prev_header_crc,
            entry_count: open.entries.len() as u32,
            payload_bytes: open.payload_bytes as u32,
            table_crc,
        };
        assert_eq!(header.total_bytes(), need, "a group's size is decided before it is sealed");
        chunk.append_zeros(need - chunk.open_len());
        chunk.open_mut().get_mut(..GROUP_HEADER_BYTES)?.copy_from_slice(&header.encode());
        let group = chunk.split(need);
        // Nothing else fits into a chunk that a large batch filled: it must not be in the way of the next one.
        self.chunk.take_if(|chunk| chunk.room() < GROUP_OVERHEAD_BYTES_MAX);
        Some((group, open.items))
    }

    /// Groups that ran ahead, or that the file change waits for, and no group to link a flush to: a flush alone.
    fn flush_leftovers<B: Backend>(&mut self, io: &mut B) {
        if self.slots_busy() >= self.flush_depth || self.write_flush == Flush::Dsync || self.sync_only {
            return;
        }
        // While a group is open it leaves with a link as soon as it may, and covers these; when rolling it waits for them.
        if self.open.is_some() && !self.rolling {
            return;
        }
        let Some(file) =
            self.pending.iter().find(|g| g.written && !g.covered && g.flush.is_none()).map(|g| g.file)
        else {
            return;
        };
        let Some(ring_file) = self.files.get(file as usize) else { return };
        let id = ring_file.file;
        if let Some(serial) = self.take_flush(true) {
            self.sync_only = true;
            io.push(Op::Sync { file: id }, token(token::LOG_SYNC, serial));
        }
    }

    /// A group's write (and its linked flush) completed.
    ///
    /// # Errors
    /// A failed write or flush: fatal, never retried, because the kernel reports a lost write only once.
    pub fn on_write(&mut self, sequence: u64, result: Result<u32, Errno>, now_ns: u64) -> Result<(), Errno> {
        result?;
        let Some(at) = self.pending.iter().position(|g| g.sequence.0 == sequence) else { return Ok(()) };
        let mut serial = None;
        if let Some(group) = self.pending.get_mut(at) {
            assert!(!group.written, "one completion per write");
            group.written = true;
            serial = group.flush;
            group.covered |= self.write_flush == Flush::Dsync || self.faults.ack_before_flush;
        }
        // A linked flush: this write's own token carries it.
        if let Some(serial) = serial.filter(|_| self.write_flush == Flush::Linked) {
            self.flush_done(serial);
        }
        self.advance(now_ns);
        Ok(())
    }

    /// A flush without a write completed.
    ///
    /// # Errors
    /// As [`CoreLog::on_write`].
    pub fn on_sync(&mut self, serial: u64, result: Result<u32, Errno>, now_ns: u64) -> Result<(), Errno> {
        result?;
        self.sync_only = false;
        self.flush_done(serial);
        self.advance(now_ns);
        Ok(())
    }

    fn flush_done(&mut self, serial: u64) {
        assert!(self.flushes_in_flight > 0, "a flush completes once");
        self.flushes_in_flight -= 1;
        for group in self.pending.iter_mut().filter(|g| g.flush == Some(serial)) {
            assert!(group.written, "a flush covers only completed writes");
            group.covered = true;
        }
    }

    fn advance(&mut self, now_ns: u64) {
        while let Some(group) = self.pending.front() {
            if !(group.written && group.covered) {
                break;
            }
            assert_eq!(group.sequence.0, self.durable.0 + 1, "durable moves in group order");
            self.durable = group.sequence;
            let micros = now_ns.saturating_sub(group.sealed_ns) / 1000;
            if self.flushed.len() < FLUSHED_MAX {
                self.flushed.push_back(Flushed { micros, bytes: group.bytes });
            }
            self.pending.pop_front();
        }
    }

    /// Space of groups up to and including `upto` may be used again: they are in synced segments and the checkpoint
    /// says so.
    pub fn reclaim(&mut self, upto: GroupSeq) {
        assert!(upto <= self.durable, "only durable groups are destaged, so only they are reclaimed");
        while let Some(place) = self.places.front().filter(|p| p.sequence <= upto) {
            self.used_bytes -= place.bytes;
            self.places.pop_front();
        }
        for (at, file) in self.files.iter_mut().enumerate() {
            if at != self.current && file.last_group <= upto {
                file.last_group = GroupSeq(0);
            }
        }
    }

    /// First group that a reader must begin with when everything up to `upto` is in the checkpoint.
    pub fn place_after(&self, upto: GroupSeq) -> GroupPlace {
        self.places.iter().find(|p| p.sequence > upto).copied().unwrap_or(GroupPlace {
            sequence: GroupSeq(self.next_sequence),
            file: self.current as u32,
            offset: self.write_at,
            bytes: 0,
            prev_header_crc: self.prev_header_crc,
        })
    }
}
