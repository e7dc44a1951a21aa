//! Cold reads: blocks of segment files read with direct I/O, shared by all readers, with read-ahead.
//!
//! A block is read once, however many readers want it; readers get slices of it, never copies. Reads in flight are
//! capped, so that a reader that catches up does not crowd out produce. Which blocks stay: `block_cache.rs`.

use crate::block_cache::{BLOCK, Block, BlockCache};
use crate::index::SegmentIndex;
use crate::jobs::{JobDone, JobFor};
use crate::log::{Log, LogEvent};
use crate::open_files::{HeldFile, JobFile, is_shortage};
use crate::partition::{OpenFile, segment_path};
use crate::read::{ReadError, ReadOutcome, ReadRequest};
use crate::segment::IndexSource;
use crate::token::{self, token};
use ringmill_reactor::{Backend, Buf, Errno, FileId, Fs, Op, OpenMode, Payload, Pool};
use ringmill_record::{BatchHeader, HEADER_BYTES};
use ringmill_types::Offset;
use ringmill_types::limits::PAGE_BYTES;
use std::io;
use std::path::PathBuf;

/// Bytes of one partition in one cold answer: enough to keep the socket busy while the next blocks are read.
const COLD_WANT_BYTES: u64 = 4 << 20;

/// Blocks requested beyond what the answer of a sequential reader needs: two more answers, so that the disk works while
/// one is sent and the client takes it in.
const READ_AHEAD_BLOCKS: u64 = 2 * COLD_WANT_BYTES / BLOCK + 1;

/// Reads ahead started in one turn: starting one costs as much as sending some 100 KiB, and those who wait go first.
const AHEAD_PER_TURN: usize = 3;

/// For how long no block can be read before the cache gives up all it has.
pub(crate) const STARVED_NS: u64 = 1_000_000_000;

/// Left to appends and destaging by cold reads, and by what only readers might still want.
const POOL_RESERVE_BYTES: u64 = 8 << 20;

/// That, or a quarter of a small pool.
pub(crate) fn pool_reserve(pool: &Pool) -> u64 {
    POOL_RESERVE_BYTES.min(pool.stats().limit_bytes / 4)
}

pub(crate) fn pool_free(pool: &Pool) -> u64 {
    let stats = pool.stats();
    stats.limit_bytes.saturating_sub(stats.used_bytes)
}

/// A segment that can be read.
pub(crate) struct ColdOpened {
    file: Option<HeldFile>,
    index: Option<SegmentIndex>,
}

impl Log {
    /// Starts queued reads up to the cap.
    pub(crate) fn poll_cold<B: Backend>(&mut self, io: &mut B) {
        let mut ahead = 0;
        let starved_ns = self.cold_starved_ns.take();
        while self.cache.reading.len() < self.cache.reads_max && ahead < AHEAD_PER_TURN {
            let Some(wanted) = self.cache.queue.pop_front() else { break };
            ahead += usize::from(!self.cache.is_awaited(wanted.key));
            self.cache.make_room(wanted.key);
            let len = wanted.valid.next_multiple_of(PAGE_BYTES);
            // Answers that nobody takes in hold their blocks: what appends and destaging need is not theirs.
            let spare = pool_free(io.pool()) >= len as u64 + pool_reserve(io.pool());
            let may = spare || self.cache.is_needed(len as u64);
            let Some(buf) = may.then(|| io.pool().take(len)).flatten() else {
                self.cache.queue.push_front(wanted);
                let now_ns = io.now_ns();
                let since_ns = starved_ns.unwrap_or(now_ns);
                let gives_up = now_ns >= since_ns + STARVED_NS;
                if gives_up {
                    self.cache.give_up();
                }
                self.cold_starved_ns = Some(if gives_up { now_ns } else { since_ns });
                break;
            };
            let serial = self.serial();
            self.metrics.cold_reads += 1;
            self.metrics.cold_read_bytes += len as u64;
            io.push(
                Op::Read { file: wanted.file, buf, offset: wanted.key.1 * BLOCK, len },
                token(token::BLOCK, serial),
            );
            self.cache.reading.insert(serial, wanted);
        }
        self.cache.more = ahead == AHEAD_PER_TURN && !self.cache.queue.is_empty();
        self.trim_open_files(io);
    }

    pub(crate) fn block_read(&mut self, serial: u64, result: Result<u32, Errno>, payload: Payload) {
        let Some(wanted) = self.cache.reading.remove(&serial) else { return };
        let Some(Block::Reading { waiters }) = self.cache.blocks.remove(&wanted.key) else { return };
        match (result, payload) {
            (Ok(_), Payload::BufMut(buf)) if buf.len() >= wanted.valid => {
                self.cache.insert(wanted.key, buf.freeze(), wanted.valid);
            }
            (Ok(_), _) => self.take_offline(
                wanted.slot,
                "a segment is shorter than its checkpoint says",
                &io::Error::from(io::ErrorKind::UnexpectedEof),
            ),
            (Err(errno), _) => self.take_offline(
                wanted.slot,
                "reading its segment failed",
                &io::Error::from_raw_os_error(errno.0),
            ),
        }
        self.events.extend(waiters.into_iter().map(LogEvent::Block));
    }

    pub(crate) fn read_cold<B: Backend>(
        &mut self,
        io: &mut B,
        request: ReadRequest,
    ) -> Result<ReadOutcome, ReadError> {
        let mut offset = request.offset;
        let segments = self.parts.get(request.slot.0).map_or(0, |p| p.segments.len());
        // A read may fall into a gap that compaction or a repair left, as wide as several segments: it goes on at the next
        // one that has something.
        for _ in 0..=segments {
            let Some(part) = self.parts.get(request.slot.0) else { return Err(ReadError::Unknown) };
            let Some(at) = part.segment_at(offset).or((!part.segments.is_empty()).then_some(0)) else {
                return Err(ReadError::Offline);
            };
            let Some(segment) = part.segments.get(at) else { return Err(ReadError::Offline) };
            let (uid, part_tail) = (segment.uid, part.tail_start());
            if segment.open.is_none()
                || segment.index.is_none() && part.hints.iter().all(|h| h.0 != offset || h.1 != uid)
            {
                self.open_cold(io, request.slot.0, at, request.ticket);
                return Ok(ReadOutcome::Wait);
            }
            match self.read_segment(ReadRequest { offset, ..request }, at)? {
                SegmentRead::Data(outcome) => return Ok(outcome),
                SegmentRead::Next => {
                    let next = self.parts.get(request.slot.0).and_then(|p| p.segments.get(at + 1));
                    match next {
                        Some(next) => offset = next.base.max(offset),
                        // A gap that repair left before the tail: go on where the tail begins.
                        None if part_tail > request.offset => {
                            return self.read(io, ReadRequest { offset: part_tail, ..request });
                        }
                        None => return Ok(ReadOutcome::NOTHING),
                    }
                }
            }
        }
        Ok(ReadOutcome::NOTHING)
    }

    fn read_segment(&mut self, request: ReadRequest, at: usize) -> Result<SegmentRead, ReadError> {
        let (turn, slot, offset) = (self.turn, request.slot.0, request.offset);
        let part = self.parts.get_mut(slot).ok_or(ReadError::Unknown)?;
        let high_watermark = part.high_watermark;
        let hint = part.hints.iter().find(|h| h.0 == offset).map(|h| (h.1, h.2));
        let segment = part.segments.get_mut(at).ok_or(ReadError::Unknown)?;
        let (uid, end) = (segment.uid, segment.bytes);
        let Some(open) = segment.open.as_mut() else { return Err(ReadError::Offline) };
        open.used_turn = turn;
        let file = open.id;
        let ahead = if hint.is_some() || offset == segment.base { READ_AHEAD_BLOCKS } else { 0 };
        let mut view =
            SegmentView { cache: &mut self.cache, uid, file, slot, end, ahead, ticket: request.ticket };
        let position = match hint {
            Some((hinted, position)) if hinted == uid => position,
            _ => u64::from(segment.index.as_ref().map_or(0, |i| i.lookup(offset))),
        };
        let run = match view.batches(position, &request, high_watermark) {
            Found::Batches(run) => run,
            Found::Nothing { more } => {
                let nothing = ReadOutcome::Data { bufs: Vec::new(), bytes: 0, more };
                return Ok(SegmentRead::Data(nothing));
            }
            Found::Past => return Ok(SegmentRead::Next),
            Found::Wait => return Ok(SegmentRead::Data(ReadOutcome::Wait)),
            Found::Damage => {
                let error = io::Error::from(io::ErrorKind::InvalidData);
                self.take_offline(slot, "a segment holds what is not a batch", &error);
                return Err(ReadError::Offline);
            }
        };
        let Some(bufs) = view.slices(run.start, run.stop) else {
            return Ok(SegmentRead::Data(ReadOutcome::Wait));
        };
        self.metrics.cache_hits += bufs.len() as u64;
        if let Some(part) = self.parts.get_mut(slot) {
            part.note_hint(run.next_offset, uid, run.stop);
        }
        let (bytes, more) = ((run.stop - run.start) as usize, run.next_offset < high_watermark);
        Ok(SegmentRead::Data(ReadOutcome::Data { bufs, bytes, more }))
    }

    /// Has the file thread open a segment and load its index (or rebuild it, after a crash).
    fn open_cold<B: Backend>(&mut self, io: &mut B, slot: u32, at: usize, ticket: u64) {
        if self.is_swapping(slot) {
            return self.wait_for_swap(ticket);
        }
        let serial = self.serial();
        let Some(part) = self.parts.get(slot) else { return };
        let Some(segment) = part.segments.get(at) else { return };
        let uid = segment.uid;
        if let Some(waiters) = self.cache.opening.get_mut(&uid) {
            waiters.push(ticket);
            return;
        }
        let file = match &segment.open {
            Some(open) => JobFile::Open(open.file.clone()),
            None => match self.place_for_file(io) {
                Some(place) => JobFile::Place(place),
                None => return self.read_waits(io, ticket),
            },
        };
        let Some(part) = self.parts.get(slot) else { return };
        let Some(segment) = part.segments.get(at) else { return };
        self.cache.opening.insert(uid, vec![ticket]);
        let order = OpenCold {
            path: segment_path(&part.dir, segment.base, "log"),
            sealed: segment.sealed,
            file,
            index: part.index_source(segment),
        };
        self.jobs.insert(serial, JobFor::OpenCold(slot, uid));
        io.push(
            Op::Run { job: Box::new(move |fs| Box::new(JobDone::ColdOpened(order.run(fs)))) },
            token(token::JOB, serial),
        );
    }

    pub(crate) fn cold_opened<B: Backend>(
        &mut self,
        io: &mut B,
        slot: u32,
        uid: u64,
        result: io::Result<ColdOpened>,
    ) {
        let turn = self.turn;
        let waiters = self.cache.opening.remove(&uid).unwrap_or_default();
        if let Err(error) = &result
            && is_shortage(error)
        {
            for ticket in waiters {
                self.read_waits(io, ticket);
            }
            return self.ran_out_of_files(io, error);
        }
        self.events.extend(waiters.into_iter().map(LogEvent::Block));
        let Some(part) = self.parts.get_mut(slot) else { return };
        match result {
            Ok(opened) => {
                let Some(segment) = part.segments.iter_mut().find(|s| s.uid == uid) else { return };
                if let (None, Some(file)) = (&segment.open, opened.file) {
                    segment.open =
                        Some(OpenFile { id: io.attach_file(file.handle.clone()), file, used_turn: turn });
                    // The write side has not seen this file yet: it must read the last page before it writes.
                    segment.tail_page_known &= segment.bytes == 0;
                }
                if segment.index.is_none() {
                    segment.index = opened.index;
                }
                self.got_a_file();
            }
            Err(error) => self.take_offline(slot, "opening a segment failed", &error),
        }
    }
}

enum SegmentRead {
    Data(ReadOutcome),
    /// Nothing at or after the offset in this segment.
    Next,
}

/// What a walk over a segment's batches found for a reader.
enum Found {
    Batches(Run),
    /// Nothing that this reader may have now; `more`: only because the next batch is too large for it.
    Nothing {
        more: bool,
    },
    /// Nothing at or after the offset in this segment.
    Past,
    /// Blocks are on their way.
    Wait,
    /// Something that is no batch.
    Damage,
}

/// Batches that follow each other: the first byte of the first, the byte behind the last, the offset behind it.
struct Run {
    start: u64,
    stop: u64,
    next_offset: Offset,
}

/// The blocks of one segment, as one reader sees them.
struct SegmentView<'a> {
    cache: &'a mut BlockCache,
    uid: u64,
    file: FileId,
    slot: u32,
    end: u64,
    /// Blocks to read beyond what is asked for.
    ahead: u64,
    ticket: u64,
}

impl SegmentView<'_> {
    fn valid_of(&self, block: u64) -> usize {
        (self.end - block * BLOCK).min(BLOCK) as usize
    }

    fn want(&mut self, block: u64, ticket: u64) {
        let valid = self.valid_of(block);
        self.cache.want((self.uid, block), self.file, self.slot, valid, ticket);
    }

    /// Walks from the batch at `position`: those from the request's offset on, below the high watermark, as many as the
    /// request takes. Their blocks, or those of the first one at least, are here or asked for.
    fn batches(&mut self, mut position: u64, request: &ReadRequest, high_watermark: Offset) -> Found {
        let most = (request.max_bytes as u64).min(COLD_WANT_BYTES);
        let (mut run, mut more): (Option<Run>, bool) = (None, false);
        while position < self.end {
            let Some(header) = self.header(position) else { return Found::Wait };
            let Some(header) = BatchHeader::parse(&header) else { return Found::Damage };
            let size = header.size_bytes as u64;
            if header.last_offset() >= request.offset {
                let start = run.as_ref().map_or(position, |run| run.start);
                let fits = position + size - start <= most || run.is_none() && request.at_least_one;
                if !fits || header.last_offset() >= high_watermark || position + size > self.end {
                    more = header.last_offset() < high_watermark && position + size <= self.end;
                    break;
                }
                if run.is_none() && !self.fetch(start, (start + most.max(size)).min(self.end)) {
                    return Found::Wait;
                }
                run = Some(Run { start, stop: position + size, next_offset: header.next_offset() });
            }
            position += size;
        }
        match run {
            Some(run) => Found::Batches(run),
            None if position >= self.end => Found::Past,
            None => Found::Nothing { more },
        }
    }

    /// 61 bytes at `position`, which may lie in two blocks. `None`: on their way.
    fn header(&mut self, position: u64) -> Option<[u8; HEADER_BYTES]> {
        let stop = position + HEADER_BYTES as u64;
        let mut header = [0; HEADER_BYTES];
        if stop > self.end {
            return Some(header);
        }
        let mut filled = 0;
        for piece in self.slices_or_want(position, stop)? {
            header.get_mut(filled..filled + piece.len())?.copy_from_slice(&piece);
            filled += piece.len();
        }
        Some(header)
    }

    fn slices_or_want(&mut self, start: u64, stop: u64) -> Option<Vec<Buf>> {
        if let Some(bufs) = self.slices(start, stop) {
            return Some(bufs);
        }
        for block in start / BLOCK..=(stop - 1) / BLOCK {
            self.want(block, self.ticket);
        }
        None
    }

    /// All blocks of the range are here; if not, asks for them and for some beyond.
    fn fetch(&mut self, start: u64, stop: u64) -> bool {
        // A batch larger than the cache must still fit into it whole, or its blocks would push each other out for ever.
        self.cache.hold_at_least((stop - start) * 3 / 2 + 2 * BLOCK);
        let (first, last) = (start / BLOCK, (stop - 1) / BLOCK);
        let mut all = true;
        for block in first..=last {
            let to = self.valid_of(block).min((stop - block * BLOCK) as usize);
            if self.cache.ready((self.uid, block), 0, to).is_none() {
                all = false;
                self.want(block, self.ticket);
            }
        }
        for block in last + 1..=last + self.ahead {
            if block * BLOCK < self.end {
                self.want(block, 0);
            }
        }
        all
    }

    fn slices(&mut self, start: u64, stop: u64) -> Option<Vec<Buf>> {
        let mut bufs = Vec::new();
        let mut at = start;
        while at < stop {
            let block = at / BLOCK;
            let to = (stop - block * BLOCK).min(BLOCK) as usize;
            bufs.push(self.cache.ready((self.uid, block), (at - block * BLOCK) as usize, to)?);
            at = (block + 1) * BLOCK;
        }
        Some(bufs)
    }
}

/// Order for the file thread.
struct OpenCold {
    path: PathBuf,
    sealed: bool,
    file: JobFile,
    index: Option<IndexSource>,
}

impl OpenCold {
    fn run(&self, fs: &dyn Fs) -> io::Result<ColdOpened> {
        let mode = if self.sealed { OpenMode::ReadDirect } else { OpenMode::CreateDirect };
        let file = self.file.get(|| fs.open(&self.path, mode))?;
        let index = self.index.as_ref().map(|source| source.load(fs, &file.handle)).transpose()?;
        Ok(ColdOpened { file: (!self.file.is_open()).then_some(file), index })
    }
}
