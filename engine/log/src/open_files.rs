//! Segment files that a core's log holds open: never more than its share of the process's limit.
//!
//! A place is taken before a file is opened, and free again when the last who holds the file lets go: its segment, a job,
//! a checkpoint that is to sync it. Where there is none, the files unused for longest are closed; one that was written to
//! stays open until a checkpoint has synced it, and that checkpoint is made at once. Whoever wants to open one waits, and
//! nothing fails.
//!
//! That the process or the system has no descriptor left (EMFILE, ENFILE) passes too: it is said once and tried again.

use crate::log::{Log, LogEvent, Slot};
use crate::partition::DestageStep;
use ringmill_reactor::{Backend, Errno, FileHandle};
use std::collections::HashSet;
use std::io;
use std::sync::Arc;

/// Files kept open in case they are needed again. Written ones stay beyond that, until a checkpoint.
const UNUSED_MAX: usize = 4096;

/// Unused files are looked for every so many turns.
const LOOK_TURNS: u64 = 1024;

/// Of all places, so many are made at once: a look at every partition has to be worth it.
const FREED_SHARE: usize = 8;

/// A place is asked for again this often, nanoseconds. What frees most of them, a checkpoint, is waited for.
const PLACE_RETRY_NS: u64 = 5_000_000;

/// A descriptor that the kernel had not is asked for again this often, nanoseconds.
const SHORTAGE_RETRY_NS: u64 = 200_000_000;

/// Room for one descriptor.
#[derive(Clone)]
pub(crate) struct Place {
    _taken: Arc<Taken>,
}

struct Taken {
    _counted: Arc<()>,
}

/// An open segment file in its place. Clones share both; closed with the last.
#[derive(Clone)]
pub(crate) struct HeldFile {
    pub handle: FileHandle,
    place: Place,
}

impl HeldFile {
    /// A job or a checkpoint holds it too, so closing it here would free no place.
    fn is_shared(&self) -> bool {
        Arc::strong_count(&self.place._taken) > 1
    }
}

/// A segment's file as a job gets it: open, or to be opened in the place taken for it.
pub(crate) enum JobFile {
    Open(HeldFile),
    Place(Place),
}

impl JobFile {
    pub fn is_open(&self) -> bool {
        matches!(self, JobFile::Open(_))
    }

    /// The file, opened by `open` if it is not yet.
    pub fn get(&self, open: impl FnOnce() -> io::Result<FileHandle>) -> io::Result<HeldFile> {
        match self {
            JobFile::Open(file) => Ok(file.clone()),
            JobFile::Place(place) => Ok(HeldFile { handle: open()?, place: place.clone() }),
        }
    }
}

/// The descriptors of one core's segments, and who waits for one.
#[derive(Default)]
pub(crate) struct OpenFiles {
    counted: Arc<()>,
    writers: Vec<u32>,
    /// Tickets of reads.
    readers: Vec<u64>,
    searches: Vec<(Slot, Option<i64>, u64)>,
    core_log_file: bool,
    /// When to try again; `None`: nobody waits.
    retry_ns: Option<u64>,
    /// The kernel had no descriptor, and none was got since.
    short: bool,
}

impl OpenFiles {
    /// Places taken.
    pub fn held(&self) -> usize {
        Arc::strong_count(&self.counted) - 1
    }

    pub fn deadline_ns(&self) -> Option<u64> {
        self.retry_ns
    }

    pub fn is_short(&self) -> bool {
        self.short
    }

    /// Files may have been synced: those who wait try again.
    pub fn try_now(&mut self) {
        if !self.short && self.retry_ns.is_some() {
            self.retry_ns = Some(0);
        }
    }

    pub fn has_writers(&self) -> bool {
        !self.writers.is_empty()
    }

    fn take(&self) -> Place {
        Place { _taken: Arc::new(Taken { _counted: self.counted.clone() }) }
    }
}

/// Neither the file nor the disk is to blame: the process or the system has no descriptor left.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno);
    errno == Some(Errno::PROCESS_FILES) || errno == Some(Errno::SYSTEM_FILES)
}

impl Log {
    /// Room for one more descriptor; `None`: none now, and a checkpoint is asked for if that makes some.
    pub(crate) fn place_for_file<B: Backend>(&mut self, io: &mut B) -> Option<Place> {
        let most = self.options.open_files_max.max(1);
        // Somebody has looked, and waits.
        if self.files.held() >= most && self.files.retry_ns.is_none() {
            self.make_places(io);
        }
        (self.files.held() < most).then(|| self.files.take())
    }

    fn make_places<B: Backend>(&mut self, io: &mut B) {
        let many = (self.options.open_files_max / FREED_SHARE).max(1);
        let (unused, any_dirty) = self.unused_files();
        if unused.is_empty() && any_dirty && !self.checkpoint.is_under_way() {
            self.checkpoint.hasten();
        }
        self.close_oldest(io, unused, many);
    }

    /// A write to the partition's segments waits for a place.
    pub(crate) fn write_waits<B: Backend>(&mut self, io: &mut B, slot: u32) {
        let Some(part) = self.parts.get_mut(slot) else { return };
        part.step = DestageStep::NoFile;
        self.files.writers.push(slot);
        self.files.retry_ns.get_or_insert(io.now_ns() + PLACE_RETRY_NS);
    }

    /// A read waits for a place.
    pub(crate) fn read_waits<B: Backend>(&mut self, io: &mut B, ticket: u64) {
        self.files.readers.push(ticket);
        self.files.retry_ns.get_or_insert(io.now_ns() + PLACE_RETRY_NS);
    }

    pub(crate) fn search_waits(&mut self, now_ns: u64, slot: Slot, time_ms: Option<i64>, ticket: u64) {
        self.files.searches.push((slot, time_ms, ticket));
        self.files.retry_ns.get_or_insert(now_ns + SHORTAGE_RETRY_NS);
    }

    /// The core log grows when there is a descriptor for its next file.
    pub(crate) fn core_log_waits(&mut self, now_ns: u64) {
        self.files.core_log_file = true;
        self.files.retry_ns.get_or_insert(now_ns + SHORTAGE_RETRY_NS);
    }

    /// The kernel had no descriptor. What can be closed is closed, so that others find one.
    pub(crate) fn ran_out_of_files<B: Backend>(&mut self, io: &mut B, error: &io::Error) {
        self.say_short(error);
        self.files.retry_ns = Some(io.now_ns() + SHORTAGE_RETRY_NS);
        self.make_places(io);
    }

    pub(crate) fn say_short(&mut self, error: &io::Error) {
        if std::mem::replace(&mut self.files.short, true) {
            return;
        }
        tracing::error!(
            %error,
            held = self.files.held(),
            "no open file is left (nofile): what needs one waits and is tried again, nothing is lost and no partition is \
             offline; raise the limit, LimitNOFILE= of the unit or `ulimit -n`, or fs.file-max where the whole system is short"
        );
    }

    /// A file could be opened.
    pub(crate) fn got_a_file(&mut self) {
        if std::mem::take(&mut self.files.short) {
            tracing::info!("open files are to be had again");
            self.files.try_now();
        }
    }

    /// Those who wait try again, if it is time.
    pub(crate) fn retry_files<B: Backend>(&mut self, io: &mut B) {
        if self.files.retry_ns.is_none_or(|at| io.now_ns() < at) {
            return;
        }
        self.files.retry_ns = None;
        for slot in std::mem::take(&mut self.files.writers) {
            // It may have been deleted since.
            if self.parts.get(slot).is_some_and(|p| p.step == DestageStep::NoFile) {
                self.queue(slot);
            }
        }
        let readers = std::mem::take(&mut self.files.readers);
        self.events.extend(readers.into_iter().map(LogEvent::Block));
        for (slot, time_ms, ticket) in std::mem::take(&mut self.files.searches) {
            self.find_time(io, slot, time_ms, ticket);
        }
        if std::mem::take(&mut self.files.core_log_file) {
            self.adding_file = false;
        }
    }

    /// Closes the files that were not used for the longest time, above what is worth keeping.
    pub(crate) fn trim_open_files<B: Backend>(&mut self, io: &mut B) {
        if !self.turn.is_multiple_of(LOOK_TURNS) {
            return;
        }
        let (unused, _) = self.unused_files();
        let many = unused.len().saturating_sub(self.options.open_files_max.min(UNUSED_MAX));
        self.close_oldest(io, unused, many);
    }

    /// Files that may be closed: turn of the last use, slot, segment. And whether there are more once they are synced.
    fn unused_files(&self) -> (Vec<(u64, u32, usize)>, bool) {
        let cache = &self.cache;
        let read: HashSet<u64> = cache.reading.values().chain(&cache.queue).map(|w| w.key.0).collect();
        let (mut unused, mut any_dirty) = (Vec::new(), false);
        for (slot, part) in self.parts.iter() {
            let written = matches!(part.step, DestageStep::Preparing | DestageStep::Writing);
            for (at, segment) in part.segments.iter().enumerate() {
                let Some(open) = &segment.open else { continue };
                if !segment.sealed && part.dirty {
                    any_dirty = true;
                } else if (segment.sealed || !written)
                    && !open.file.is_shared()
                    && !read.contains(&segment.uid)
                {
                    unused.push((open.used_turn, slot, at));
                }
            }
        }
        (unused, any_dirty)
    }

    fn close_oldest<B: Backend>(&mut self, io: &mut B, mut unused: Vec<(u64, u32, usize)>, many: usize) {
        unused.sort_unstable();
        for (_, slot, at) in unused.into_iter().take(many) {
            let Some(part) = self.parts.get_mut(slot) else { continue };
            let Some(segment) = part.segments.get_mut(at) else { continue };
            assert!(segment.sealed || !part.dirty, "what a checkpoint has to sync stays open");
            if let Some(open) = segment.open.take() {
                io.detach_file(open.id);
                segment.tail_page_known = segment.bytes == 0;
                if segment.sealed {
                    segment.index = None;
                }
            }
        }
    }
}
