//! The order in which a broker comes up, runs and goes down.
//!
//! ```text
//! decide ─▶ look at the folder ─▶ bind ─▶ try a ring ─▶ claim the folder ─▶ journal ─▶ cores ─▶ upkeep ─▶ control ─▶ serve
//!          └──────────── touches nothing on disk ────────┘
//! ```
//! Whatever can be refused is refused before the first write. Once cores run, the main thread only waits for [`Event`]s:
//! a stop goes through control to the cores and comes back as [`Event::Stopped`] when all is flushed, destaged and
//! checkpointed; anything fatal ends the process with its code.

use crate::args::{Address, BrokerOptions, HostFacts, ServeArgs};
use crate::banner::Banner;
use crate::exit::{Failure, Reason, fatal};
use crate::host::{self, FileSystem, Footing, Limits};
use crate::identity::{self, DataFolder, Method};
use crate::planes::{self, CorePlan, FileShare};
use crate::settled::Settled;
use crate::signals::{self, Event};
use crate::stall::StallWatch;
use crate::{adoption, bind, control, generation, logging, newer, notify, probing, upkeep};
use ringmill_core::core::ZERO_COPY_FROM_BYTES;
use ringmill_core::thread::{CoreHandle, CoreOptions, StartError};
use ringmill_core::{Advertised, CoreSettings};
use ringmill_device::Identity as Device;
use ringmill_log::RecoveryError;
use ringmill_log::format::checkpoint::PartitionState;
use ringmill_log::inspect::repair;
use ringmill_metadata::JournalError;
use ringmill_reactor::ring::{HostFeature, RingBackend, RingError, RingFeatures, RingOptions};
use ringmill_reactor::stdfs::StdFs;
use ringmill_reactor::{Doorbell, Fs, Unfit, is_full};
use ringmill_types::{CoreId, TopicSpec};
use std::collections::HashMap;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// An orderly stop that takes longer than this is broken off; the unit's `TimeoutStopSec` is longer still.
const STOP_MAX: Duration = Duration::from_secs(75);
/// How often a serving main thread looks whether its threads are alive.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Buffers of the ring that is made only to see whether rings can be made.
const TRIAL_POOL_BYTES: u64 = 1 << 20;
/// Connections the kernel holds for a core that has not accepted them yet.
const BACKLOG: i32 = 4096;

/// Runs a broker until it is told to stop. The exit code says how it ended (net/docs/ERRORS.md).
pub fn serve(args: &ServeArgs) -> ExitCode {
    let begun = Instant::now();
    match logging::start(args.log_level.as_deref(), args.log_json).and_then(|()| run(args, begun)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            refuse(&failure, args.log_json);
            failure.exit_code()
        }
    }
}

/// Says why there is no broker: plain lines for people, an event for programs.
fn refuse(failure: &Failure, json: bool) {
    if json {
        tracing::error!(code = failure.reason.code(), reason = ?failure.reason, "{failure}");
    } else {
        for line in failure.detail.lines() {
            // Where nobody can be told, the exit code says it.
            let _ = writeln!(std::io::stderr(), "ringmill: {line}");
        }
    }
}

fn run(args: &ServeArgs, begun: Instant) -> Result<(), Failure> {
    let facts = host::facts();
    let options = BrokerOptions::resolve(args, &facts)?;
    let (sender, events) = channel();
    signals::listen(sender.clone())?;
    let ground = Ground::survey(options, facts)?;
    let running = Running::start(ground, sender)?;
    running.banner(begun).show(args.log_json);
    running.warn();
    notify::notify("READY=1");
    running.wait(&events)
}

/// Everything that can be known and held without writing to the disk.
struct Ground {
    options: BrokerOptions,
    facts: HostFacts,
    kernel: String,
    file_system: FileSystem,
    limits: Limits,
    /// One for each core, all on one address.
    listeners: Vec<TcpListener>,
    listen: SocketAddr,
    admin: TcpListener,
    admin_at: SocketAddr,
}

impl Ground {
    fn survey(options: BrokerOptions, facts: HostFacts) -> Result<Ground, Failure> {
        let settings = &options.config.settings;
        HostFeature::set_off(&planes::host_features_off(settings));
        // First: with too few, what comes next fails at random.
        let limits = host::raise_limits();
        planes::enough_files(limits.open_files, options.cores.len())?;
        let file_system = footing("--data", &options.data)?;
        footing("core.log.dir", &planes::log_root(&options.data, settings))?;
        let identity = identity::look(&StdFs, &options.data)?;
        newer::check(&StdFs, &options.data, identity.as_ref())?;
        let (admin, admin_at) = bind::bind("--admin", &options.admin)?;
        let (first, listen) = bind::bind("--listen", &options.listen)?;
        let listeners = bind::for_cores(first, listen, options.cores.len(), BACKLOG)?;
        let trial = RingOptions { pool_limit_bytes: TRIAL_POOL_BYTES, features: planes::features(settings) };
        RingBackend::new(trial).map(drop).map_err(|error| ring_failure(&error))?;
        let kernel = host::kernel_release();
        Ok(Ground { options, facts, kernel, file_system, limits, listeners, listen, admin, admin_at })
    }

    /// Whether logs and segments bypass the page cache.
    fn is_direct(&self) -> bool {
        self.file_system.footing == Footing::Sound && HostFeature::DirectIo.is_on()
    }
}

fn footing(setting: &str, path: &Path) -> Result<FileSystem, Failure> {
    let unusable = |why: String| Failure::new(Reason::DataUnusable, why);
    let found =
        host::file_system(path).map_err(|error| identity::unusable_as(setting, path, "reached", &error))?;
    match found.footing {
        Footing::Sound | Footing::Buffered(_) | Footing::Memory => Ok(found),
        Footing::Refused(why) => Err(unusable(format!(
            "{} is on {}, where acknowledged records would not be safe: {why}. Use a folder on ext4, XFS or btrfs.",
            path.display(),
            found.name
        ))),
    }
}

fn ring_failure(error: &RingError) -> Failure {
    let reason = match error {
        RingError::Forbidden(_) => Reason::IoUringForbidden,
        RingError::Memory(_) => Reason::LimitsTooLow,
        RingError::Other(_) => Reason::IoUringForbidden,
    };
    Failure::new(reason, format!("{error}. Nothing was touched."))
}

/// A core that did not start, as an exit.
pub fn start_failure(error: &StartError) -> Failure {
    let reason = match error {
        StartError::Ring(_, error) => return ring_failure(error),
        StartError::Log(_, log) => match log {
            RecoveryError::Io { error, .. } if is_full(error) => Reason::DiskFull,
            RecoveryError::Io { .. } => Reason::DataUnusable,
            RecoveryError::Damaged { .. }
            | RecoveryError::MissingFile { .. }
            | RecoveryError::CutOff { .. }
            | RecoveryError::Foreign { .. }
            | RecoveryError::Exchanged { .. }
            | RecoveryError::Contradicted { .. }
            | RecoveryError::Checkpoint { .. }
            | RecoveryError::Adopt(_) => Reason::DataDamaged,
            RecoveryError::Newer(_) => Reason::NewerFormat,
            RecoveryError::NoMemory => Reason::LimitsTooLow,
        },
        StartError::Thread(..) => Reason::LimitsTooLow,
        StartError::Died(_) => Reason::Internal,
    };
    told(reason, error)
}

/// The error, and what to do where a word of it helps.
fn told(reason: Reason, error: &dyn std::error::Error) -> Failure {
    let advice = if reason == Reason::DiskFull { "; free space there" } else { "" };
    Failure::new(reason, format!("{error}{advice}."))
}

/// A journal that cannot be used, as an exit: trying again helps only where the disk may be better by then.
pub fn journal_failure(error: &JournalError) -> Failure {
    let reason = match error {
        JournalError::Io { error, .. } if is_full(error) => Reason::DiskFull,
        JournalError::Io { error, .. } if Unfit::of(error).is_some() => Reason::DataUnusable,
        JournalError::Io { .. } => Reason::JournalFailed,
        JournalError::Damaged { .. } => Reason::DataDamaged,
        JournalError::Newer { .. } => Reason::NewerFormat,
    };
    match error {
        JournalError::Damaged { path, is_last: true, .. } => {
            let data_dir = path.parent().and_then(Path::parent).unwrap_or(path);
            let command = repair::command(data_dir, repair::Scope::CoreLogs);
            let detail =
                format!("{error}, or run `{command}`, which gives up the decisions that were written last.");
            Failure::new(reason, detail)
        }
        JournalError::Io { .. } | JournalError::Damaged { .. } | JournalError::Newer { .. } => {
            told(reason, error)
        }
    }
}

/// A broker that serves, and everything that must be ended in order.
struct Running {
    ground: Ground,
    folder: DataFolder,
    method: Method,
    method_because: &'static str,
    files: FileShare,
    features: RingFeatures,
    advertised: Address,
    advertised_by_name: bool,
    cores: Vec<CoreHandle>,
    control: control::ControlThread,
    upkeep: Option<ringmill_upkeep::Upkeep>,
    watch: Option<StallWatch>,
    probe: Option<probing::Probing>,
}

impl Running {
    fn start(mut ground: Ground, events: Sender<Event>) -> Result<Running, Failure> {
        let fs: Arc<dyn Fs> = Arc::new(StdFs);
        let Settled { folder, journal, image, inherited } = Settled::take(&ground.options, &fs)?;
        let settings = ground.options.config.settings.clone();
        ringmill_reactor::reclaim::give_back_within(settings.log_segment_delete_delay_ms.max(0) as u64);
        let device = Device::of(&planes::log_root(&folder.path, &settings));
        let (method, method_because) =
            planes::flush_method(settings.flush_method, &folder.identity, &ground.kernel, device.as_ref());
        let files = planes::share_files(
            ground.limits.open_files,
            settings.max_connections,
            ground.options.cores.len(),
        );
        let topics = Arc::new(control::topics(&image, &ground.options));
        let live = ringmill_control::live_of(&image, ground.options.cores.len() as u16);
        let bell = doorbell()?;
        let listeners = std::mem::take(&mut ground.listeners);
        let (advertised, advertised_by_name) =
            ground.options.advertised(ground.listen.port(), &ground.facts.hostname);
        let next = image.next_partition();
        let mut cores = core_options(&ground.options, &folder, &advertised, method, files, listeners, next);
        bequeath(inherited, &topics, &mut cores);
        let (compactor, passes) = std::sync::mpsc::sync_channel(cores.len());
        for core in &mut cores {
            core.log.compactor = Some(compactor.clone());
        }
        let (links, cores) = ringmill_core::thread::start(cores, topics, &live, &bell)
            .map_err(|error| start_failure(&error))?;
        generation::forget(&folder.path, fs.as_ref())?;
        let features = cores.first().map_or(RingFeatures::ALL, |core| core.features);

        let admin = ground.admin.try_clone().map_err(|error| internal("the admin listener", &error))?;
        let brief = control::Brief {
            options: &ground.options,
            identity: &folder.identity,
            advertised: &advertised,
            data: &folder.path,
        };
        let beats: Vec<_> = cores.iter().map(|core| Arc::clone(&core.heartbeat)).collect();
        let upkeep = upkeep::start(&folder.path, &settings, passes, events.clone());
        let scrub = upkeep.as_ref().map(|upkeep| upkeep::numbers(upkeep, &settings));
        let wiring = control::Wiring { image, journal, links, bell, admin, heartbeats: beats.clone(), scrub };
        let control = control::start(&brief, wiring, events.clone())?;
        let watch = StallWatch::start(beats.clone())
            .inspect_err(|error| tracing::warn!("no stall watch: {error}"))
            .ok();
        let site = probing::Site { kernel: ground.kernel.clone(), cpus: ground.facts.cpus.len(), device };
        let probe = probing::start_if_due(&settings, &folder, site, beats, events);
        Ok(Running {
            ground,
            folder,
            method,
            method_because,
            files,
            features,
            advertised,
            advertised_by_name,
            cores,
            control,
            upkeep,
            watch,
            probe,
        })
    }
}

impl Running {
    fn banner(&self, begun: Instant) -> Banner {
        let ground = &self.ground;
        let settings = &ground.options.config.settings;
        let Features { used, unused, without } =
            Features::of(&self.features, ground.is_direct(), &settings.features_off);
        Banner {
            kernel: ground.kernel.clone(),
            node_id: self.folder.identity.node_id,
            cluster_id: self.folder.identity.cluster_id.clone(),
            listen: ground.listen,
            advertised: self.advertised.clone(),
            admin: ground.admin_at,
            data: std::path::absolute(&self.folder.path).unwrap_or_else(|_| self.folder.path.clone()),
            first_start: self.folder.first_start,
            file_system: ground.file_system.clone(),
            direct: ground.is_direct(),
            free_bytes: StdFs.free_bytes(&self.folder.path).ok(),
            cores: ground.options.cores.clone(),
            memory_bytes: ground.options.memory_bytes,
            features_used: used,
            features_unused: unused,
            features_without: without,
            method: self.method,
            method_because: self.method_because,
            flush_depth: settings.flush_depth,
            relaxed_allowed: settings.relaxed_topics_enable,
            low_limits: planes::low_limits(ground.limits, self.files, planes::largest_file_bytes(settings)),
            started_in: begun.elapsed(),
        }
    }

    /// What the one who started it should know beyond the banner.
    fn warn(&self) {
        let ground = &self.ground;
        for warning in &ground.options.warnings {
            tracing::warn!("{warning}");
        }
        if !ground.listen.ip().is_loopback() {
            tracing::warn!(
                "{} can be reached from other machines, and there is no authentication yet: whoever reaches it may read, write and delete",
                ground.listen
            );
        }
        if !ground.admin_at.ip().is_loopback() {
            tracing::warn!(
                "the admin port {} can be reached from other machines and asks nobody who they are",
                ground.admin_at
            );
        }
        if self.advertised_by_name {
            tracing::warn!(
                "clients are told to connect to {}, this host's name, because --listen is a wildcard; --advertise says otherwise",
                self.advertised
            );
        }
        let weaker = match ground.file_system.footing {
            Footing::Buffered(why) => Some(why),
            Footing::Memory => Some(host::MEMORY),
            Footing::Sound | Footing::Refused(_) => None,
        };
        if let Some(why) = weaker {
            tracing::warn!("{} is on {}: {why}", self.folder.path.display(), ground.file_system.name);
        }
        for core in &self.cores {
            if !core.recovery.clean && core.recovery.groups > 0 {
                let report = core.recovery;
                let back = match report.given_up {
                    0 => "every acknowledged record is back",
                    _ => "what log repair said was lost is given up, every other acknowledged record is back",
                };
                tracing::info!(
                    groups = report.groups,
                    batches = report.batches,
                    bytes = report.bytes,
                    given_up = report.given_up,
                    "a core log was replayed after an end that was not orderly; {back}"
                );
            }
        }
    }

    /// Serves until told to stop.
    fn wait(mut self, events: &Receiver<Event>) -> Result<(), Failure> {
        loop {
            match events.recv_timeout(LOOK_EVERY) {
                Ok(Event::Stop { signal }) => return self.stop(signal, events),
                Ok(event) => self.heard(event),
                Err(RecvTimeoutError::Timeout) => self.look_after_threads(),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Failure::new(
                        Reason::Internal,
                        "The threads that wake the main thread are gone.",
                    ));
                }
            }
        }
    }

    fn heard(&mut self, event: Event) {
        match event {
            Event::Fatal(failure) => fatal(&failure),
            Event::Scrubbed(report) => {
                if let Some(damage) = upkeep::heard(report) {
                    self.control.segment_damaged(damage);
                }
            }
            Event::Probed(result) => self.keep_probe(result),
            // Told apart by the callers: a stop begins once, and ends there.
            Event::Stop { .. } | Event::Stopped => {}
        }
    }

    fn keep_probe(&mut self, result: identity::ProbeResult) {
        let changes = result.method != self.method;
        tracing::info!(
            fdatasync_us = result.round.idle_fdatasync.p50_us,
            dsync_us = result.round.idle_dsync.p50_us,
            busy_fdatasync_us = result.round.busy_fdatasync.p50_us,
            busy_dsync_us = result.round.busy_dsync.p50_us,
            "flush methods measured: {}{}",
            match result.method {
                Method::Fdatasync => "dsync is not clearly better here, fdatasync stays",
                Method::Dsync => "dsync is clearly better here",
            },
            if changes { "; it is used from the next start on" } else { "" }
        );
        self.folder.identity.flush = Some(result);
        if let Err(failure) = self.folder.save(&StdFs) {
            tracing::warn!("the measurement could not be kept and will be made again: {failure}");
        }
    }

    /// A core or control that ended by itself leaves clients hanging: the process ends instead.
    fn look_after_threads(&self) {
        for (number, core) in self.cores.iter().enumerate() {
            if core.thread.is_finished() {
                fatal(&Failure::new(
                    Reason::Internal,
                    format!("Core {number} ended although nothing told it to."),
                ));
            }
        }
        if self.control.is_finished() {
            fatal(&Failure::new(Reason::Internal, "Control ended although nothing told it to."));
        }
    }

    /// Stops accepting, finishes what is in flight, flushes, destages, checkpoints.
    fn stop(mut self, signal: &'static str, events: &Receiver<Event>) -> Result<(), Failure> {
        let begun = Instant::now();
        tracing::info!(
            "{signal}: stopping; a second one after {} s or more ends the process at once",
            signals::SAME_REQUEST.as_secs()
        );
        notify::notify("STOPPING=1");
        self.control.stop();
        if let Some(probe) = self.probe.take() {
            probe.stop();
        }
        if let Some(upkeep) = self.upkeep.take() {
            upkeep.stop();
        }
        loop {
            match events.recv_timeout(STOP_MAX.saturating_sub(begun.elapsed())) {
                Ok(Event::Stopped) => break,
                Ok(event) => self.heard(event),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    return Err(Failure::new(
                        Reason::StopTimedOut,
                        format!(
                            "The stop did not finish within {} s; the next start replays the core logs.",
                            STOP_MAX.as_secs()
                        ),
                    ));
                }
            }
        }
        drop(self.watch.take());
        for core in self.cores.drain(..) {
            if core.thread.join().is_err() {
                return Err(Failure::new(Reason::Internal, "A core panicked after it had stopped."));
            }
        }
        self.control.join()?;
        let ms = begun.elapsed().as_millis();
        if adoption::was_cut_off(&StdFs, &self.folder) {
            tracing::warn!(
                "stopped after {ms} ms: what found no room or no disk to go to stays in the core logs, flushed; the next start replays it"
            );
        } else {
            tracing::info!("stopped after {ms} ms: everything is flushed, destaged and checkpointed");
        }
        Ok(())
    }
}

/// Names of the kernel features for the banner.
#[derive(Debug, Default, PartialEq, Eq)]
struct Features {
    used: Vec<String>,
    /// They would work.
    unused: Vec<String>,
    without: Vec<String>,
}

impl Features {
    /// `found`: what the rings could set up; `direct`: whether files are written with direct I/O; `off`: the names of
    /// `features.off`.
    fn of(found: &RingFeatures, direct: bool, off: &[String]) -> Features {
        let mut features = Features::default();
        for (name, works) in found.list().into_iter().chain([(HostFeature::DirectIo.name(), direct)]) {
            if off.iter().any(|off| off == name) {
                features.without.push(format!("{name} (switched off)"));
            } else if !works {
                features.without.push(name.to_string());
            } else if name == "zero_copy" && ZERO_COPY_FROM_BYTES == usize::MAX {
                features.unused.push(format!("{name} (it loses on loopback)"));
            } else {
                features.used.push(name.to_string());
            }
        }
        // Advice to the kernel, and what is the file system's: not told where it is taken.
        for name in
            [HostFeature::HugePages, HostFeature::Nocow, HostFeature::Fallocate].map(HostFeature::name)
        {
            if off.iter().any(|off| off == name) {
                features.without.push(format!("{name} (switched off)"));
            }
        }
        features
    }
}

fn core_options(
    options: &BrokerOptions,
    folder: &DataFolder,
    advertised: &Address,
    method: Method,
    files: FileShare,
    listeners: Vec<TcpListener>,
    next_partition_id: u64,
) -> Vec<CoreOptions> {
    let advertised = Advertised {
        host: advertised.host.clone(),
        port: advertised.port,
        cluster_id: folder.identity.cluster_id.clone(),
    };
    let node_id = folder.identity.node_id;
    let placed = options.cores.iter().zip(listeners);
    placed
        .map(|(core, listener)| {
            let CorePlan { settings, log, ring } = planes::core_plan(options, *core, node_id, method, files);
            let settings = CoreSettings { advertised: advertised.clone(), ..settings };
            CoreOptions {
                settings,
                log,
                ring,
                listener,
                cpu: core.cpu,
                incarnation: identity::random_u128(),
                next_partition_id,
            }
        })
        .collect()
}

/// Gives every core what is known of the partitions it owns now.
pub(crate) fn bequeath(inherited: Vec<PartitionState>, topics: &[TopicSpec], cores: &mut [CoreOptions]) {
    let owners: HashMap<u64, CoreId> =
        topics.iter().flat_map(|topic| topic.partitions.iter().map(|p| (p.id.0, p.owner))).collect();
    for state in inherited {
        let heir = owners.get(&state.id).and_then(|owner| cores.get_mut(usize::from(owner.0)));
        if let Some(heir) = heir {
            heir.log.inherited.push(state);
        }
    }
}

/// What control is woken with.
fn doorbell() -> Result<Doorbell, Failure> {
    Doorbell::new().map_err(|error| internal("an eventfd", &error))
}

fn internal(what: &str, error: &std::io::Error) -> Failure {
    Failure::new(
        Reason::LimitsTooLow,
        format!("{what} could not be had ({error}); raise the limit on open files."),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringmill_types::CoreId;
    use std::io::{Error, ErrorKind};

    #[test]
    fn features_are_told_as_they_are_used() {
        let all = Features::of(&RingFeatures::ALL, true, &[]);
        assert_eq!(all.used, ["defer_taskrun", "provided_buffers", "multishot_accept", "direct_io"]);
        assert_eq!(all.unused, ["zero_copy (it loses on loopback)"]);
        assert!(all.without.is_empty());
        let found = RingFeatures {
            zero_copy: false,
            provided_buffers: false,
            multishot_accept: false,
            ..RingFeatures::ALL
        };
        let some = Features::of(&found, false, &["multishot_accept".into(), "nocow".into()]);
        assert_eq!(some.used, ["defer_taskrun"]);
        assert!(some.unused.is_empty());
        assert_eq!(
            some.without,
            [
                "provided_buffers",
                "multishot_accept (switched off)",
                "zero_copy",
                "direct_io",
                "nocow (switched off)"
            ]
        );
    }

    #[test]
    fn a_start_without_room_says_where_to_make_some() {
        let full = || Error::from(ErrorKind::StorageFull);
        let log = RecoveryError::Io { path: "/data/core-0".into(), error: full() };
        let core = start_failure(&StartError::Log(CoreId(0), log));
        let journal = journal_failure(&JournalError::Io { path: "/data/meta/journal".into(), error: full() });
        for (failure, path) in [(core, "/data/core-0: "), (journal, "/data/meta/journal: ")] {
            assert_eq!(failure.reason, Reason::DiskFull);
            assert!(
                failure.detail.contains(path) && failure.detail.ends_with("; free space there."),
                "{failure}"
            );
        }
    }
}
