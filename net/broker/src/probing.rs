//! When the flush probe runs: once for a folder and kernel, in the background, in rounds at quiet moments.
//!
//! Never where the device alone decides, and not at all once one round did not speak for a change.

use crate::config::{FlushMethod, Settings};
use crate::identity::{DataFolder, ProbeResult, Round};
use crate::planes;
use crate::probe::{self, ProbeError};
use crate::signals::Event;
use ringmill_core::heartbeat::Heartbeat;
use ringmill_device::Identity as Device;
use ringmill_reactor::ring::{RingBackend, RingOptions};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A moment is quiet when the cores rested this long.
const QUIET: Duration = Duration::from_secs(2);
/// Rounds are this far apart, so that no passing work of the machine is in all of them.
const SPACING: Duration = Duration::from_secs(5);
/// A page, and what a pool takes with it.
const POOL_BYTES: u64 = 1 << 20;
/// A broker that is never quiet is not probed for ever.
const ATTEMPTS_MAX: u32 = 100;

/// The probe's thread.
pub struct Probing {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Probing {
    /// Breaks off and joins.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
        if self.thread.join().is_err() {
            tracing::error!("the flush probe panicked; the flush method stays as it is");
        }
    }
}

/// Where is measured.
pub struct Site {
    pub kernel: String,
    pub cpus: usize,
    /// Below the core logs; `None` where there is none of its own.
    pub device: Option<Device>,
}

/// Starts the probe where `flush.method` is auto, the device leaves the choice and this kernel was not measured yet.
pub fn start_if_due(
    settings: &Settings,
    folder: &DataFolder,
    site: Site,
    cores: Vec<Arc<Heartbeat>>,
    events: Sender<Event>,
) -> Option<Probing> {
    let measured = folder.identity.flush.as_ref().is_some_and(|probe| probe.kernel == site.kernel);
    let settled = measured || probe::rules_out_dsync(site.device.as_ref());
    if settings.flush_method != FlushMethod::Auto || settled {
        return None;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let job = Job {
        folder: planes::log_root(&folder.path, settings),
        site,
        ring: RingOptions { pool_limit_bytes: POOL_BYTES, features: planes::features(settings) },
        cores,
        stop: Arc::clone(&stop),
    };
    let thread = std::thread::Builder::new().name("flush-probe".into()).spawn(move || {
        if let Some(result) = job.run() {
            // The main thread is gone only when the process ends.
            let _ = events.send(Event::Probed(result));
        }
    });
    match thread {
        Ok(thread) => Some(Probing { stop, thread }),
        Err(error) => {
            tracing::warn!("the flush method was not measured: no thread for it ({error})");
            None
        }
    }
}

struct Job {
    folder: PathBuf,
    site: Site,
    ring: RingOptions,
    cores: Vec<Arc<Heartbeat>>,
    stop: Arc<AtomicBool>,
}

impl Job {
    fn run(&self) -> Option<ProbeResult> {
        let mut rounds: Vec<Round> = Vec::new();
        for _ in 0..ATTEMPTS_MAX {
            self.wait_for_quiet()?;
            let (before, begun) = (probe::turns(&self.cores), Instant::now());
            match self.measure(rounds.len()) {
                Ok(round) => {
                    let turns = probe::turns(&self.cores).wrapping_sub(before);
                    if !probe::was_quiet(turns, begun.elapsed(), self.cores.len()) {
                        tracing::debug!(
                            turns,
                            "the flush probe was disturbed by clients; it is made again later"
                        );
                        continue;
                    }
                    rounds.push(round);
                    if let Some(method) = probe::choose(self.site.device.as_ref(), &rounds) {
                        return Some(ProbeResult { method, round, kernel: self.site.kernel.clone() });
                    }
                    self.rest(SPACING)?;
                }
                Err(ProbeError::Stopped) => return None,
                Err(ProbeError::Failed(why)) => {
                    tracing::warn!("the flush method was not measured ({why}); fdatasync stays");
                    return None;
                }
            }
        }
        tracing::info!(
            "no moment was quiet enough to measure flush methods; fdatasync stays until the next start"
        );
        None
    }

    fn measure(&self, round: usize) -> Result<Round, ProbeError> {
        let mut io = RingBackend::new(self.ring).map_err(|error| ProbeError::Failed(error.to_string()))?;
        probe::run(&mut io, &self.folder, round, self.site.cpus, &self.stop)
    }

    /// `None` when told to stop.
    fn rest(&self, time: Duration) -> Option<()> {
        let begun = Instant::now();
        while begun.elapsed() < time {
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            std::thread::park_timeout(time.saturating_sub(begun.elapsed()));
        }
        Some(())
    }

    /// `None` when told to stop.
    fn wait_for_quiet(&self) -> Option<()> {
        loop {
            let (before, begun) = (probe::turns(&self.cores), Instant::now());
            self.rest(QUIET)?;
            if probe::was_quiet(
                probe::turns(&self.cores).wrapping_sub(before),
                begun.elapsed(),
                self.cores.len(),
            ) {
                return Some(());
            }
        }
    }
}
