//! Reading segments on a glommio executor, slowly.

use crate::check::{SegmentCheck, Verdict};
use crate::compact::{self, Stopped};
use crate::{Outcome, ScrubRequest, walk};
use glommio::io::ImmutableFileBuilder;
use glommio::timer::sleep;
use glommio::{
    GlommioError, Latency, LocalExecutor, LocalExecutorBuilder, Placement, PoolPlacement, Shares,
    TaskQueueHandle,
};
use ringmill_log::CompactJob;
use ringmill_log::compact::Cleaned;
use ringmill_reactor::unfit::check_file;
use rustix::process::{Resource, getrlimit};
use std::cell::Cell;
use std::io::ErrorKind;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// One read; small, so that the rate limit spreads reads evenly instead of in bursts.
pub const READ_BYTES: usize = 256 << 10;
/// Read buffers of the executor; registered with its ring.
const IO_MEMORY_BYTES: usize = 4 * READ_BYTES;
/// Reads under way at one time are one or two; the executor's own needs are few.
const RING_DEPTH: usize = 16;
/// Of 1000 an ordinary task queue has; matters once there are other jobs on the executor.
const SHARES: usize = 20;
/// A pause is taken in slices of this, so that a stop is not kept waiting.
const PAUSE_SLICE: Duration = Duration::from_millis(200);

/// A glommio executor on the thread that made it, with the task queue of scrubs.
pub struct Scrubber {
    executor: LocalExecutor,
    queue: TaskQueueHandle,
    compaction: TaskQueueHandle,
}

impl Scrubber {
    /// # Errors
    /// A sentence that says why upkeep rests and what would wake it.
    pub fn new() -> Result<Scrubber, String> {
        check_lockable()?;
        let executor = LocalExecutorBuilder::new(Placement::Unbound)
            .name("upkeep")
            .io_memory(IO_MEMORY_BYTES)
            .ring_depth(RING_DEPTH)
            .blocking_thread_pool_placement(PoolPlacement::Unbound(1))
            .make()
            .map_err(|error| {
                format!(
                    "sealed segments are neither scrubbed nor compacted: the executor did not start ({error})"
                )
            })?;
        let (queue, compaction) = executor.run(async {
            let executor = glommio::executor();
            let scrub = executor.create_task_queue(Shares::Static(SHARES), Latency::NotImportant, "scrub");
            (scrub, executor.create_task_queue(compact::SHARES, compact::LATENCY, "compaction"))
        });
        Ok(Scrubber { executor, queue, compaction })
    }

    /// Does one pass of compaction; blocks the calling thread until done or stopped.
    ///
    /// # Errors
    /// [`Stopped`].
    pub fn compact(&self, job: CompactJob, reins: Reins) -> Result<Cleaned, Stopped> {
        let queue = self.compaction;
        self.executor.run(async move {
            match glommio::spawn_local_into(async move { compact::run(&job, &reins).await }, queue) {
                Ok(task) => task.await,
                Err(error) => Err(Stopped::Failed(error.to_string())),
            }
        })
    }

    /// Checks one segment; blocks the calling thread until done or stopped.
    pub fn run(&self, request: ScrubRequest, reins: Reins) -> Outcome {
        let queue = self.queue;
        self.executor.run(async move {
            match glommio::spawn_local_into(look_twice(request, reins), queue) {
                Ok(task) => task.await,
                Err(error) => Outcome::Resting { why: error.to_string() },
            }
        })
    }
}

/// What glommio asks for; asked first, because its own error does not say so in words.
const LOCKABLE_BYTES_MIN: u64 = 512 << 10;

fn check_lockable() -> Result<(), String> {
    match getrlimit(Resource::Memlock).current {
        Some(bytes) if bytes < LOCKABLE_BYTES_MIN => Err(format!(
            "sealed segments are neither scrubbed nor compacted: the limit on locked memory, {} KiB, is below 512 KiB; raise it \
             (ulimit -l, LimitMEMLOCK=)",
            bytes >> 10
        )),
        _ => Ok(()),
    }
}

/// Spreads bytes over time: `take` says how long to wait after having read some.
#[derive(Debug)]
pub struct RateLimit {
    bytes_per_second: u64,
    free_at: Cell<Instant>,
}

impl RateLimit {
    /// `bytes_per_second` above 0.
    pub fn new(bytes_per_second: u64) -> RateLimit {
        RateLimit { bytes_per_second: bytes_per_second.max(1), free_at: Cell::new(Instant::now()) }
    }

    /// Books `bytes` read now; until then no more may be read. Time that passed unused is not saved up.
    pub fn take(&self, bytes: u64, now: Instant) -> Instant {
        let nanos = bytes.saturating_mul(1_000_000_000) / self.bytes_per_second;
        let free_at = self.free_at.get().max(now) + Duration::from_nanos(nanos);
        self.free_at.set(free_at);
        free_at
    }
}

/// What a scrub shares with the thread around it.
#[derive(Clone)]
pub struct Reins {
    pub stop: Arc<AtomicBool>,
    pub bytes_read: Arc<AtomicU64>,
    pub limit: Rc<RateLimit>,
    /// Before damage is reported the file is read a second time, this much later.
    pub second_look_after: Duration,
}

impl Reins {
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub async fn rest_until(&self, until: Instant) {
        while !self.stopped() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            sleep(left.min(PAUSE_SLICE)).await;
        }
    }
}

/// A damaged segment is looked at again: retention may have been cutting it, compaction joining it with the next, a bit
/// may have flipped in memory.
async fn look_twice(mut request: ScrubRequest, reins: Reins) -> Outcome {
    let first = look(&request, &reins).await;
    if !matches!(first, Outcome::Damaged { .. }) {
        return first;
    }
    reins.rest_until(Instant::now() + reins.second_look_after).await;
    if !request.path.exists() {
        return Outcome::Gone;
    }
    request.bound = walk::bound_of(&request.path, request.base_offset);
    look(&request, &reins).await
}

async fn look(request: &ScrubRequest, reins: &Reins) -> Outcome {
    if let Err(error) = check_file(&request.path) {
        return Outcome::Unreadable { error: error.to_string() };
    }
    let file = match ImmutableFileBuilder::new(&request.path).build_existing().await {
        Ok(file) => file,
        Err(error) => return unreadable(&error),
    };
    let size = file.file_size();
    let mut check = SegmentCheck::new(size, request.base_offset, request.bound);
    let mut position = 0;
    let mut failed = None;
    while position < size {
        if reins.stopped() {
            failed = Some(Outcome::Resting { why: "upkeep is stopping".into() });
            break;
        }
        let want = READ_BYTES.min(usize::try_from(size - position).unwrap_or(READ_BYTES));
        match file.read_at(position, want).await {
            Ok(bytes) if bytes.is_empty() => break,
            Ok(bytes) => {
                position += bytes.len() as u64;
                reins.bytes_read.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                let free_at = reins.limit.take(bytes.len() as u64, Instant::now());
                if !check.feed(&bytes) {
                    break;
                }
                drop(bytes);
                reins.rest_until(free_at).await;
            }
            Err(error) => {
                failed = Some(unreadable(&error));
                break;
            }
        }
    }
    // Only read: closing it cannot lose anything.
    let _ = file.close().await;
    if let Some(outcome) = failed {
        return outcome;
    }
    match check.finish() {
        Verdict::Clean { batches } => Outcome::Clean { bytes: size, batches },
        Verdict::Damaged { at, offset, what } => Outcome::Damaged { at, offset, what },
        Verdict::OldFormat { at } => Outcome::OldFormat { at },
    }
}

fn unreadable(error: &GlommioError<()>) -> Outcome {
    if matches!(error, GlommioError::IoError(e) if e.kind() == ErrorKind::NotFound)
        || matches!(error, GlommioError::EnhancedIoError { source, .. } if source.kind() == ErrorKind::NotFound)
    {
        return Outcome::Gone;
    }
    Outcome::Unreadable { error: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_limit_spreads_and_does_not_save_up() {
        let limit = RateLimit::new(1000);
        let start = Instant::now();
        assert!(limit.take(500, start) >= start + Duration::from_millis(500));
        let second = limit.take(500, start);
        assert!(second >= start + Duration::from_secs(1), "books add up");
        let later = start + Duration::from_secs(100);
        assert_eq!(limit.take(1000, later), later + Duration::from_secs(1), "idle time is not credit");
    }
}
