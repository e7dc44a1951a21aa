//! The upkeep thread: waits for requests and rounds, without a runtime while there is nothing to do.

use crate::compact::Stopped;
use crate::scrub::{RateLimit, Reins, Scrubber};
use crate::{Outcome, Report, ScrubRequest, walk};
use ringmill_log::CompactJob;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Requests that may wait; a further one is refused, the next round finds its file anyway.
pub const REQUESTS_MAX: usize = 1024;

/// How upkeep behaves.
pub struct UpkeepOptions {
    /// Folder that holds the partition folders.
    pub topics: PathBuf,
    /// CPUs of the thread; empty: any.
    pub cpus: Vec<usize>,
    /// Passes of compaction that cores ask for.
    pub passes: Receiver<CompactJob>,
    /// Bound on what a pass reads and writes together.
    pub compact_bytes_per_second: u64,
    /// Bound on what is read; 0 switches rounds off and answers requests with [`Outcome::Resting`].
    pub bytes_per_second: u64,
    /// From one round's beginning to the next one's.
    pub round_every: Duration,
    /// From the start of the process to the first round: a restart has better things to read first.
    pub first_round_after: Duration,
    /// Damage is reported only when a second reading, this much later, finds it too.
    pub second_look_after: Duration,
    /// Gets every report, on the upkeep thread; must not block for long.
    pub on_report: Box<dyn FnMut(Report) + Send>,
}

/// Counters for metrics, shared with whoever shows them.
#[derive(Debug, Default)]
pub struct UpkeepStats {
    pub bytes_read: Arc<AtomicU64>,
    pub segments_clean: AtomicU64,
    pub segments_damaged: AtomicU64,
    pub segments_unreadable: AtomicU64,
    /// Rounds that went through every segment.
    pub rounds: AtomicU64,
    /// A round is under way.
    pub in_round: AtomicBool,
    /// End of the last whole round, milliseconds since 1970; 0 before the first.
    pub last_round_unix_ms: AtomicU64,
    /// How long it took.
    pub last_round_ms: AtomicU64,
    /// Jobs are not being done: the reason was logged.
    pub resting: AtomicBool,
    /// Read and written by compaction.
    pub compacted_bytes: Arc<AtomicU64>,
    /// Passes done, and those that failed.
    pub passes: AtomicU64,
    pub passes_failed: AtomicU64,
    /// When the last of these failed, milliseconds since 1970; 0: none did.
    pub last_pass_failed_unix_ms: AtomicU64,
}

/// Upkeep's handle. Ends with [`Upkeep::stop`]; dropped without it, the thread ends after the job in hand.
pub struct Upkeep {
    requests: Option<SyncSender<ScrubRequest>>,
    stop: Arc<AtomicBool>,
    stats: Arc<UpkeepStats>,
    thread: Option<JoinHandle<()>>,
}

impl Upkeep {
    /// Asks for one segment to be checked, ahead of the rounds. False when too many wait already.
    pub fn scrub(&self, request: ScrubRequest) -> bool {
        match self.requests.as_ref().map(|requests| requests.try_send(request)) {
            Some(Ok(())) => true,
            Some(Err(TrySendError::Full(_) | TrySendError::Disconnected(_))) | None => false,
        }
    }

    /// A sender for planes that propose segments themselves.
    pub fn requests(&self) -> Option<SyncSender<ScrubRequest>> {
        self.requests.clone()
    }

    pub fn stats(&self) -> Arc<UpkeepStats> {
        Arc::clone(&self.stats)
    }

    /// Ends the job in hand after its current read, drops the rest, and joins the thread.
    pub fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.requests = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the upkeep thread panicked; scrubbing had ended with it");
        }
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Starts the thread. No executor exists before the first job, so this cannot fail for want of io_uring or memlock.
///
/// # Errors
/// Only when the thread itself cannot be made.
pub fn spawn(options: UpkeepOptions) -> std::io::Result<Upkeep> {
    let (sender, receiver) = sync_channel(REQUESTS_MAX);
    let stop = Arc::new(AtomicBool::new(false));
    let stats = Arc::new(UpkeepStats::default());
    let thread = std::thread::Builder::new().name("upkeep".into()).spawn({
        let (stop, stats) = (Arc::clone(&stop), Arc::clone(&stats));
        // Made on its own thread: an executor cannot move.
        move || {
            Worker {
                requests: receiver,
                stop,
                stats,
                limit: None,
                compact_limit: None,
                scrubber: None,
                options,
            }
            .run()
        }
    })?;
    Ok(Upkeep { requests: Some(sender), stop, stats, thread: Some(thread) })
}

struct Worker {
    requests: Receiver<ScrubRequest>,
    stop: Arc<AtomicBool>,
    stats: Arc<UpkeepStats>,
    limit: Option<Rc<RateLimit>>,
    compact_limit: Option<Rc<RateLimit>>,
    /// Exists while there is work: an idle broker keeps no rings for it.
    scrubber: Option<Scrubber>,
    options: UpkeepOptions,
}

/// While stopping is polled this often; requests wake the thread at once.
const POLL: Duration = Duration::from_secs(1);
/// A round that found no executor to run on is tried again after this, not a whole interval later.
const RETRY: Duration = Duration::from_secs(600);

impl Worker {
    fn run(&mut self) {
        settle(&self.options.cpus);
        let mut next_round = Instant::now() + self.options.first_round_after;
        loop {
            let now = Instant::now();
            let wait = next_round.saturating_duration_since(now).min(POLL);
            match self.requests.recv_timeout(wait) {
                Ok(request) => self.do_one(request),
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) if self.stopped() => return,
                Err(RecvTimeoutError::Timeout) => {
                    if self.compact_what_waits() {
                        continue;
                    }
                    self.scrubber = None;
                    if Instant::now() >= next_round && self.options.bytes_per_second > 0 {
                        let began = Instant::now();
                        self.stats.in_round.store(true, Ordering::Relaxed);
                        self.round();
                        self.stats.in_round.store(false, Ordering::Relaxed);
                        let resting = self.stats.resting.load(Ordering::Relaxed);
                        let every = self.options.round_every;
                        next_round = began + if resting { every.min(RETRY) } else { every };
                    }
                }
            }
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Every sealed segment once, partition after partition; requests that came in meanwhile go first.
    fn round(&mut self) {
        let began = Instant::now();
        let partitions = match walk::partitions(&self.options.topics) {
            Ok(partitions) => partitions,
            Err(error) => {
                let folder = self.options.topics.display();
                tracing::warn!("the scrub cannot list {folder} ({error}); it tries again next round");
                return;
            }
        };
        for folder in partitions {
            let segments = match walk::sealed_segments(&folder) {
                Ok(segments) => segments,
                Err(error) => {
                    tracing::warn!(
                        "the scrub cannot list {} ({error}); it tries again next round",
                        folder.display()
                    );
                    continue;
                }
            };
            for segment in segments {
                while let Ok(request) = self.requests.try_recv() {
                    self.do_one(request);
                }
                self.compact_what_waits();
                if self.stopped() {
                    return;
                }
                self.do_one(segment);
                // Said already; the rest of the round would say the same.
                if self.stats.resting.load(Ordering::Relaxed) {
                    return;
                }
            }
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.stats.last_round_unix_ms.store(now.as_millis() as u64, Ordering::Relaxed);
        self.stats.last_round_ms.store(began.elapsed().as_millis() as u64, Ordering::Relaxed);
        count(&self.stats.rounds);
    }

    fn do_one(&mut self, request: ScrubRequest) {
        let outcome = self.scrub(request.clone());
        match &outcome {
            Outcome::Clean { .. } => count(&self.stats.segments_clean),
            Outcome::Damaged { .. } => count(&self.stats.segments_damaged),
            Outcome::Unreadable { .. } => count(&self.stats.segments_unreadable),
            Outcome::OldFormat { .. } | Outcome::Gone | Outcome::Resting { .. } => {}
        }
        (self.options.on_report)(Report { request, outcome });
    }

    fn scrub(&mut self, request: ScrubRequest) -> Outcome {
        if self.options.bytes_per_second == 0 {
            return Outcome::Resting { why: "scrub.bytes.per.second is 0".into() };
        }
        if self.stopped() {
            return Outcome::Resting { why: "upkeep is stopping".into() };
        }
        let rate = self.options.bytes_per_second;
        let reins = Reins {
            stop: Arc::clone(&self.stop),
            bytes_read: Arc::clone(&self.stats.bytes_read),
            limit: Rc::clone(self.limit.get_or_insert_with(|| Rc::new(RateLimit::new(rate)))),
            second_look_after: self.options.second_look_after,
        };
        match self.scrubber() {
            Ok(scrubber) => scrubber.run(request, reins),
            Err(why) => Outcome::Resting { why },
        }
    }

    /// The executor, made when it is needed.
    fn scrubber(&mut self) -> Result<&Scrubber, String> {
        if self.scrubber.is_none() {
            match Scrubber::new() {
                Ok(scrubber) => {
                    self.stats.resting.store(false, Ordering::Relaxed);
                    self.scrubber = Some(scrubber);
                }
                Err(why) => {
                    if !self.stats.resting.swap(true, Ordering::Relaxed) {
                        tracing::warn!("{why}");
                    }
                    return Err(why);
                }
            }
        }
        self.scrubber.as_ref().ok_or_else(|| "the executor is gone".into())
    }

    /// False when nothing waited.
    fn compact_what_waits(&mut self) -> bool {
        let mut any = false;
        while let Ok(job) = self.options.passes.try_recv() {
            any = true;
            if self.stopped() {
                break;
            }
            self.compact(job);
        }
        any
    }

    fn compact(&mut self, job: CompactJob) {
        let rate = self.options.compact_bytes_per_second;
        let reins = Reins {
            stop: Arc::clone(&self.stop),
            bytes_read: Arc::clone(&self.stats.compacted_bytes),
            limit: Rc::clone(self.compact_limit.get_or_insert_with(|| Rc::new(RateLimit::new(rate)))),
            second_look_after: self.options.second_look_after,
        };
        let (answer, folder) = (job.answer.clone(), job.order.dir.clone());
        let began = Instant::now();
        let result = match self.scrubber() {
            Ok(scrubber) => scrubber.compact(job, reins),
            // Said already.
            Err(_) => Err(Stopped::Stopping),
        };
        let cleaned = match result {
            Ok(cleaned) => {
                count(&self.stats.passes);
                tracing::debug!(
                    folder = %folder.display(),
                    kept = cleaned.records_kept,
                    dropped = cleaned.records_dropped,
                    ms = began.elapsed().as_millis() as u64,
                    "compacted"
                );
                Some(cleaned)
            }
            Err(Stopped::Stopping) => None,
            Err(Stopped::Failed(why)) => {
                count(&self.stats.passes_failed);
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                self.stats.last_pass_failed_unix_ms.store(now.as_millis() as u64, Ordering::Relaxed);
                tracing::warn!(folder = %folder.display(), "a compaction pass failed and changed nothing: {why}");
                None
            }
        };
        // Set once, here: nobody else has the job.
        let _ = answer.set(cleaned);
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Low priority, and only the CPUs upkeep may use. Both are courtesies: failing is logged, not fatal.
fn settle(cpus: &[usize]) {
    if let Err(error) = rustix::process::setpriority_process(None, 10) {
        tracing::debug!("upkeep runs at normal priority: {error}");
    }
    if cpus.is_empty() {
        return;
    }
    let mut set = rustix::thread::CpuSet::new();
    for cpu in cpus.iter().filter(|cpu| **cpu < rustix::thread::CpuSet::MAX_CPU) {
        set.set(*cpu);
    }
    if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
        tracing::warn!("upkeep.cpus has no effect: {error}");
    }
}
