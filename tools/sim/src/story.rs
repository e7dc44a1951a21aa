//! One seed: a setup drawn from it, lives that end in stops, kills and power cuts, and the reading at the end.

use crate::catalog::{COMPACTED, Catalog, SHORT_LIVED};
use crate::consumer::Consumer;
use crate::model::{Model, Violation};
use crate::node::{Boot, Node, Turned};
use crate::passes::Passes;
use crate::producer::Producer;
use ringmill_log::format::checkpoint::{self, PartitionState};
use ringmill_log::{Faults, FlushMethod, LogOptions, RecoveryError};
use ringmill_reactor::Fs;
use ringmill_reactor::sim::{Cut, DiskFaults, SimOptions, SimRng, SimWorld};
use ringmill_types::{CoreId, limits};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What one run is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Batches to produce.
    pub ops: u64,
    /// Faults planted in the broker, for the simulator's own tests.
    pub planted: Faults,
    /// Planted in the reactor: buffers are let go when an operation starts, not when it ends.
    pub release_early: bool,
    /// EIO now and then.
    pub disk_errors: bool,
    /// The disk fills up now and then.
    pub full_disk: bool,
    /// A compacted topic, and upkeep's passes over it. Lives are longer, so that there are any.
    pub compaction: bool,
    /// Every flush group is one page, several are on their way, and lives are short: what a cut leaves behind the end of
    /// the chain lies exactly where the next life goes on.
    pub one_page: bool,
    /// Batches of hundreds of kilobytes, flush groups and destage writes of megabytes.
    pub large: bool,
    /// Say on stderr what happens.
    pub narrate: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            ops: 150,
            planted: Faults::default(),
            release_early: false,
            disk_errors: true,
            full_disk: true,
            compaction: false,
            one_page: false,
            large: false,
            narrate: false,
        }
    }
}

/// What a run without a violation did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub acked: u64,
    pub seen: u64,
    /// Known records that retention took.
    pub retired: u64,
    /// Acked or seen on relaxed topics, and lost with the power.
    pub relaxed_lost: u64,
    pub topics_deleted: u64,
    /// Compaction passes that took effect, and known records that they took.
    pub compactions: u64,
    pub superseded: u64,
    /// Delete markers among them whose time was over.
    pub markers_gone: u64,
    /// The largest write into a segment, of those that were a turn's only one.
    pub destage_write_bytes_max: u64,
    /// Lives that began with another number of cores.
    pub resized: u64,
    pub crashes: u64,
    pub virtual_ms: u64,
    /// Equal for equal seeds.
    pub trace: u64,
}

/// A story that goes on for longer hangs.
const VIRTUAL_NS_MAX: u64 = 3_600_000_000_000;
/// Turns after which a core that asks for more without time passing is stuck.
const TURNS_MAX: u64 = 5_000_000;

struct Story {
    world: SimWorld,
    rng: SimRng,
    options: LogOptions,
    catalog: Catalog,
    settings: Settings,
    faults: DiskFaults,
    producers: Vec<Producer>,
    consumers: Vec<Consumer>,
    model: Model,
    passes: Passes,
    /// Of this life's.
    compactions_seen: u64,
    node: Option<Node>,
    ops: u64,
    report: Report,
    turns: u64,
    /// Milliseconds that the wall clock was moved by, all in all.
    wall_skew_ms: i64,
    /// When the last life ended.
    ended_ns: u64,
    next_end_ns: u64,
    next_disk_ns: u64,
    next_topic_ns: u64,
    disk_is_full: bool,
    /// Errors the disk had given when the last attempt to start began.
    errors_before: u64,
    /// The old core logs are drained, and not needed any more.
    drained: bool,
    /// The broker's `handed-on`: what the drained cores' last checkpoints said, until the next cores have their own.
    inherited: Vec<PartitionState>,
}

/// Runs one seed.
///
/// # Errors
/// The first promise that was broken.
pub fn run(seed: u64, settings: Settings) -> Result<Report, Violation> {
    let mut story = Story::new(seed, settings);
    if settings.narrate {
        eprintln!("{} cores, {:?}", story.catalog.cores, story.options);
    }
    story.prepare();
    story.boot()?;
    while story.ops > 0 || story.producers.iter().any(|p| !p.is_idle()) {
        story.step()?;
    }
    story.finish()?;
    Ok(Report {
        acked: story.model.acked,
        seen: story.model.seen,
        retired: story.model.retired,
        relaxed_lost: story.model.relaxed_lost,
        superseded: story.model.superseded,
        markers_gone: story.model.markers_gone,
        virtual_ms: story.world.now_ns() / 1_000_000,
        trace: story.world.trace_hash(),
        ..story.report
    })
}

fn log_options(rng: &mut SimRng, settings: Settings) -> LogOptions {
    let mut options = LogOptions::new(CoreId(0), PathBuf::from("/data"));
    options.flush_method = if rng.below(4) == 0 { FlushMethod::Dsync } else { FlushMethod::Fdatasync };
    options.flush_depth = rng.between(1, 4) as usize;
    options.linger_us = if rng.coin() { 0 } else { rng.between(1, 500) };
    options.group_bytes = rng.between(8 << 10, 128 << 10) as usize;
    options.first_file_bytes = 4096 * rng.between(48, 128);
    options.file_bytes = options.first_file_bytes.max(4096 * rng.between(48, 256));
    options.files_max = rng.between(2, 4) as usize;
    options.tail_bytes = 16 << 20;
    options.cache_bytes = 1 << 20;
    // In operation and in replay, memory holds less than the core log.
    if rng.below(3) == 0 {
        options.tail_bytes = rng.between(256 << 10, 768 << 10);
        options.cache_bytes = 256 << 10;
    }
    options.retention_check_ms = 100;
    options.faults = settings.planted;
    if settings.compaction {
        options.compaction_check_ms = 20;
    }
    if settings.one_page {
        make_small(&mut options);
    }
    if settings.large {
        make_large(&mut options);
    }
    options
}

/// A ring that is soon used again, and as many flushes at once as may be.
fn make_small(options: &mut LogOptions) {
    options.first_file_bytes = 4096 * 48;
    options.file_bytes = options.first_file_bytes;
    options.files_max = 2;
    options.flush_depth = 4;
    options.linger_us = 0;
}

/// Groups as large as they become, and memory enough for the largest destage writes.
fn make_large(options: &mut LogOptions) {
    options.group_bytes = limits::GROUP_BYTES_MAX;
    options.first_file_bytes = 16 << 20;
    options.file_bytes = options.first_file_bytes;
    options.files_max = 4;
    options.tail_bytes = 128 << 20;
}

fn world_options(rng: &mut SimRng, lean: bool, settings: Settings) -> SimOptions {
    SimOptions {
        // A slow disk has several groups on their way when the power goes.
        disk_us: if rng.below(3) == 0 || settings.one_page { (500, 9_000) } else { (20, 900) },
        // What the tail ring may hold, the regions that its last slices keep, and a little for everything else.
        pool_bytes: if lean { rng.between(24, 40) << 20 } else { 256 << 20 },
        release_early: settings.release_early,
        ..SimOptions::default()
    }
}

impl Story {
    fn new(seed: u64, settings: Settings) -> Story {
        let mut rng = SimRng::new(seed ^ 0x5eed);
        let options = log_options(&mut rng, settings);
        let world = world_options(&mut rng, options.tail_bytes < 1 << 20, settings);
        let world = SimWorld::new(seed, world);
        let cores = *[1, 1, 2, 3].get(rng.below(4) as usize).unwrap_or(&1);
        let mut catalog = Catalog::draw(&mut rng, cores);
        if settings.compaction {
            catalog.add_compacted(&mut rng);
        }
        if settings.large {
            catalog.make_large();
        }
        let with_errors = settings.disk_errors && rng.below(4) == 0;
        let ppm = |rng: &mut SimRng| if with_errors { rng.below(2_000) as u32 } else { 0 };
        let faults = DiskFaults {
            read_error_ppm: ppm(&mut rng),
            write_error_ppm: ppm(&mut rng),
            sync_error_ppm: ppm(&mut rng),
        };
        let names = catalog.names();
        let name = |rng: &mut SimRng| {
            if settings.compaction && rng.coin() {
                return (COMPACTED.into(), false);
            }
            let name: &Arc<str> = &names[rng.below(names.len() as u64) as usize];
            (name.clone(), &**name == SHORT_LIVED)
        };
        let mut producers = Vec::new();
        for id in 0..rng.between(1, 6) {
            let (topic, short_lived) = name(&mut rng);
            let mut producer = Producer::new(id as u32, topic, short_lived, &mut rng);
            producer.suit(settings);
            producers.push(producer);
        }
        let mut consumers = Vec::new();
        for _ in 0..rng.between(1, 5) {
            let (topic, short_lived) = name(&mut rng);
            consumers.push(Consumer::new(topic, short_lived, &mut rng));
        }
        let mut story = Story {
            world,
            rng,
            options,
            catalog,
            settings,
            faults,
            producers,
            consumers,
            model: Model::default(),
            passes: Passes::default(),
            compactions_seen: 0,
            node: None,
            ops: settings.ops,
            report: Report::default(),
            turns: 0,
            wall_skew_ms: 0,
            ended_ns: 0,
            next_end_ns: 0,
            next_disk_ns: u64::MAX,
            next_topic_ns: u64::MAX,
            disk_is_full: false,
            errors_before: 0,
            drained: false,
            inherited: Vec::new(),
        };
        story.note_topics();
        story
    }

    fn note_topics(&mut self) {
        for (id, config) in self.catalog.partitions() {
            self.model.begin(id, config);
        }
    }

    fn tick(&mut self) {
        let now_ns = self.world.now_ns();
        self.model.now_ns = now_ns;
        // Where the wall clock of every world begins.
        let wall_ms = 1_700_000_000_000 + (now_ns / 1_000_000) as i64 + self.wall_skew_ms;
        self.model.wall(wall_ms);
    }

    fn is_sound(&self) -> bool {
        self.faults == DiskFaults::default()
    }

    /// What the broker's boot does before a core starts: the folders and their names.
    fn prepare(&mut self) {
        let fs = self.world.fs();
        for dir in ["/data", "/data/topics"] {
            let parent = Path::new(dir).parent().unwrap_or(Path::new("/"));
            let made = fs.create_dir_all(Path::new(dir)).and_then(|()| fs.sync_dir(parent));
            made.expect("no faults yet");
        }
    }

    fn boot(&mut self) -> Result<(), Violation> {
        let mut wanted = self.catalog.cores;
        if self.drained || self.rng.below(10) == 0 {
            wanted = self.rng.between(1, 4) as u16;
        }
        for attempt in 0..20 {
            // The last tries are left in peace: a node must come up then.
            let peace = attempt > 10;
            self.world.set_disk_faults(if peace { DiskFaults::default() } else { self.faults });
            if peace {
                self.fill_disk(false);
            }
            self.errors_before = self.world.disk_errors();
            let fuse = !peace && self.rng.below(3) == 0;
            self.world.set_fuse(fuse.then(|| self.rng.below(60)));
            let came_up = self.settle(wanted, peace)? && self.open(peace)?;
            if self.world.power_is_gone() {
                self.end_life(Cut::Power);
                continue;
            }
            self.world.set_fuse(None);
            if !came_up {
                self.end_life(Cut::Process);
                // The operator goes back to what was, unless that is gone.
                if !self.drained && self.rng.coin() {
                    wanted = self.catalog.cores;
                }
                continue;
            }
            self.begin_life()?;
            self.plan();
            return Ok(());
        }
        Err(Violation("the node does not come up".to_string()))
    }

    /// Recovers all logs. False when this attempt has to be repeated.
    fn open(&mut self, peace: bool) -> Result<bool, Violation> {
        let mut options = self.options.clone();
        options.compactor = self.settings.compaction.then(|| self.passes.begin_life());
        let boot = Boot {
            options: &options,
            cores: self.catalog.cores,
            topics: &self.catalog.topics,
            next_partition: self.catalog.next_partition(),
            inherited: &self.inherited,
        };
        match Node::boot(&self.world, &boot, &mut self.rng) {
            Ok(node) => {
                if self.settings.narrate {
                    eprintln!("{} ns: up; {}", self.world.now_ns(), node.describe());
                }
                self.node = Some(node);
                self.inherited.clear();
                Ok(true)
            }
            Err(_) if self.world.power_is_gone() => Ok(false),
            Err(RecoveryError::Io { .. } | RecoveryError::Checkpoint { .. } | RecoveryError::Adopt(_))
                if !peace && (self.disk_is_full || !self.is_sound()) =>
            {
                Ok(false)
            }
            Err(error) => Err(Violation(format!("the node does not start: {error}"))),
        }
    }

    /// Brings the folder to another number of cores, as the broker's boot does: drain the old logs, remove them, place
    /// every partition anew. False when this attempt has to be repeated.
    fn settle(&mut self, wanted: u16, peace: bool) -> Result<bool, Violation> {
        if wanted == self.catalog.cores && !self.drained {
            return Ok(true);
        }
        if !self.drained {
            if !self.open(peace)? {
                return Ok(false);
            }
            let Some(inherited) = self.drain()? else { return Ok(false) };
            self.inherited = inherited;
            // As node.toml would say, durably.
            self.drained = true;
        }
        let fs = self.world.fs();
        for core in 0..self.catalog.cores {
            let dir = PathBuf::from(format!("/data/core-{core}"));
            if fs.exists(&dir) && fs.remove_dir_all(&dir).is_err() {
                return Ok(false);
            }
        }
        if fs.sync_dir(Path::new("/data")).is_err() {
            return Ok(false);
        }
        self.catalog.place_all(wanted);
        self.drained = false;
        self.report.resized += 1;
        Ok(true)
    }

    /// Stops the cores of the old logs in order, and sees that nothing is left in them. Gives what their checkpoints say.
    fn drain(&mut self) -> Result<Option<Vec<PartitionState>>, Violation> {
        self.check_logs()?;
        if let Some(node) = &mut self.node {
            node.stop();
        }
        let until = self.world.now_ns() + 120_000_000_000;
        loop {
            let turned = self.turn(until)?;
            if self.world.power_is_gone() {
                return Ok(None);
            }
            match turned {
                Turned::Stopped => break,
                Turned::Fatal(_) if !self.is_sound() => return Ok(None),
                Turned::Fatal(reason) => return Err(Violation(format!("fatal while draining: {reason}"))),
                Turned::Nothing if self.world.now_ns() < until => {}
                Turned::Nothing if self.disk_is_full || !self.is_sound() => return Ok(None),
                Turned::Nothing => return Err(Violation("draining does not end".to_string())),
            }
        }
        let fs = self.world.fs();
        let mut inherited = Vec::new();
        for core in 0..self.catalog.cores {
            let dir = PathBuf::from(format!("/data/core-{core}"));
            let last = checkpoint::read_newest(&fs, &dir).ok().flatten().filter(|c| c.clean);
            if last.is_none() && self.is_sound() && !self.disk_is_full && !self.world.power_is_gone() {
                return Err(Violation(format!(
                    "core {core} was drained, and its checkpoint does not say so"
                )));
            }
            let Some(last) = last else { return Ok(None) };
            inherited.extend(last.partitions);
        }
        self.model.flushed();
        self.passes.end_life();
        self.node = None;
        self.world.end_life(Cut::Process);
        self.ended_ns = self.world.now_ns();
        Ok(Some(inherited))
    }

    /// Without an error of the disk no partition goes offline.
    fn check_online(&self) -> Result<(), Violation> {
        match self.node.as_ref().and_then(Node::offline) {
            Some((id, why)) if self.world.disk_errors() == self.errors_before => {
                Err(Violation(format!("partition {} is offline without a disk error: {why}", id.0)))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// What recovery kept is what was promised.
    fn check_logs(&mut self) -> Result<(), Violation> {
        let Some(node) = &self.node else { return Ok(()) };
        self.model.life += 1;
        for (id, _) in self.catalog.partitions() {
            let view = node.view(id).ok_or_else(|| Violation(format!("partition {} has no owner", id.0)))?;
            self.model.recovered(id, view.log_start.0, view.log_end.0, self.ended_ns)?;
        }
        Ok(())
    }

    fn begin_life(&mut self) -> Result<(), Violation> {
        self.tick();
        self.check_logs()
    }

    /// When this life ends, when the disk fills, and when a topic goes or comes.
    fn plan(&mut self) {
        let now = self.world.now_ns();
        let mut longest =
            *[8_000_000, 40_000_000, 400_000_000].get(self.rng.below(3) as usize).unwrap_or(&8_000_000);
        if self.settings.compaction && self.rng.coin() {
            longest = 3_000_000_000;
        }
        if self.settings.one_page {
            longest = longest.min(20_000_000);
        }
        self.next_end_ns = now + self.rng.between(200_000, longest);
        let fills = self.settings.full_disk && self.rng.below(6) == 0;
        self.next_disk_ns = if fills { now + self.rng.below(200_000_000) } else { u64::MAX };
        self.next_topic_ns = now + self.rng.between(1_000_000, 200_000_000);
        if self.rng.below(8) == 0 {
            let by = self.rng.below(7_200_000) as i64 - 3_600_000;
            self.wall_skew_ms += by;
            self.world.jump_wall(by);
        }
    }

    fn fill_disk(&mut self, full: bool) {
        self.disk_is_full = full;
        let room = self.rng.below(128 << 10);
        self.world.set_disk_bytes(if full { self.world.disk_used_bytes() + room } else { 1 << 30 });
    }

    fn end_life(&mut self, cut: Cut) {
        if self.settings.narrate {
            let state = self.node.as_ref().map(Node::describe).unwrap_or_default();
            eprintln!("{} ns: {cut:?} ends; {state}", self.world.now_ns());
        }
        self.report.compactions += self.node.as_ref().map_or(0, Node::compactions);
        let largest = self.node.as_ref().map_or(0, Node::destage_write_bytes_max);
        self.report.destage_write_bytes_max = self.report.destage_write_bytes_max.max(largest);
        self.passes.end_life();
        self.compactions_seen = 0;
        self.node = None;
        self.world.end_life(cut);
        self.report.crashes += 1;
        let now = self.world.now_ns();
        self.ended_ns = now;
        for producer in &mut self.producers {
            producer.lost(now);
        }
        for consumer in &mut self.consumers {
            consumer.lost(now);
        }
    }

    fn end_and_boot(&mut self) -> Result<(), Violation> {
        match self.rng.below(8) {
            0 => self.stop()?,
            1 => {
                // In the middle of whatever the file thread does next.
                self.world.set_fuse(Some(self.rng.below(20)));
                self.next_end_ns = self.world.now_ns() + 500_000_000;
                return Ok(());
            }
            2 | 3 => self.end_life(Cut::Process),
            _ => self.end_life(Cut::Power),
        }
        self.boot()
    }

    /// SIGTERM, then the machine is switched off.
    fn stop(&mut self) -> Result<(), Violation> {
        if let Some(node) = &mut self.node {
            node.stop();
        }
        let until = self.world.now_ns() + 120_000_000_000;
        while self.world.now_ns() < until && self.node.is_some() {
            let turned = self.turn(until)?;
            if self.world.power_is_gone() {
                self.end_life(Cut::Power);
                break;
            }
            match turned {
                Turned::Stopped => {
                    self.model.flushed();
                    self.end_life(Cut::Power);
                }
                Turned::Fatal(_) if !self.is_sound() => self.end_life(Cut::Process),
                Turned::Fatal(reason) => return Err(Violation(format!("fatal while stopping: {reason}"))),
                Turned::Nothing => {}
            }
        }
        match &self.node {
            // A full or failing disk may keep a stop from ending; the operator then kills.
            Some(_) if self.disk_is_full || !self.is_sound() => self.end_life(Cut::Process),
            Some(node) => {
                return Err(Violation(format!(
                    "a stop does not end: {}; {}",
                    node.describe(),
                    self.world.describe()
                )));
            }
            None => {}
        }
        Ok(())
    }

    /// Turns a core that has a reason, otherwise lets time pass, at most to `until_ns`.
    fn turn(&mut self, until_ns: u64) -> Result<Turned, Violation> {
        self.turns += 1;
        if self.turns > TURNS_MAX || self.world.now_ns() > VIRTUAL_NS_MAX {
            let what = self.node.as_ref().map(Node::describe).unwrap_or_default();
            return Err(Violation(format!("no end in sight: {what}; {}", self.world.describe())));
        }
        self.check_online()?;
        let Some(node) = &mut self.node else { return Ok(Turned::Nothing) };
        let runnable = node.runnable(&self.world);
        let turned = match runnable.get(self.rng.below(runnable.len().max(1) as u64) as usize) {
            Some(core) => {
                let turned = node.turn(&self.world, *core);
                if let Some(core) = node.sleepless(&self.world) {
                    let what = node.describe();
                    return Err(Violation(format!("core {core} turns without sleeping: {what}")));
                }
                self.world.spend(self.rng.between(500, 20_000));
                turned
            }
            None => {
                self.world.advance(until_ns.max(self.world.now_ns() + 1));
                Turned::Nothing
            }
        };
        self.tick();
        Ok(turned)
    }

    /// When something outside the broker wants to happen.
    fn next_act_ns(&self) -> u64 {
        let now = self.world.now_ns();
        let clients = self.producers.iter().map(|p| p.deadline_ns(self.ops));
        let clients = clients.chain(self.consumers.iter().map(|c| c.deadline_ns(now)));
        let own = [self.next_end_ns, self.next_disk_ns, self.next_topic_ns];
        clients.chain(own).min().unwrap_or(u64::MAX)
    }

    fn step(&mut self) -> Result<(), Violation> {
        let turned = self.turn(self.next_act_ns())?;
        if self.world.power_is_gone() {
            self.end_life(Cut::Power);
            return self.boot();
        }
        if let Turned::Fatal(reason) = turned {
            if self.is_sound() {
                return Err(Violation(format!("fatal without a disk error: {reason}")));
            }
            self.end_life(Cut::Process);
            return self.boot();
        }
        let now = self.world.now_ns();
        if now >= self.next_disk_ns {
            let full = !self.disk_is_full;
            self.fill_disk(full);
            self.next_disk_ns = if full { now + self.rng.between(1_000_000, 400_000_000) } else { u64::MAX };
        }
        if now >= self.next_topic_ns {
            self.turn_topic_over();
        }
        // The last reading has the logs as they are.
        if self.settings.compaction && !self.model.reads_all {
            self.step_passes();
        }
        self.step_clients()?;
        if now >= self.next_end_ns { self.end_and_boot() } else { Ok(()) }
    }

    /// Deletes the short-lived topic or makes it again; sometimes both in one breath.
    fn turn_topic_over(&mut self) {
        let now = self.world.now_ns();
        self.next_topic_ns = now + self.rng.between(1_000_000, 200_000_000);
        let times = 1 + self.rng.below(2);
        for _ in 0..times {
            let Some(delta) = self.catalog.turn_over() else {
                self.next_topic_ns = u64::MAX;
                return;
            };
            self.report.topics_deleted += delta.deletes.len() as u64;
            self.note_topics();
            if let Some(node) = &mut self.node {
                node.publish(delta);
            }
        }
    }

    /// Upkeep goes on; the moments when segments change places are cut more often than others.
    fn step_passes(&mut self) {
        let now = self.world.now_ns();
        if self.rng.coin() && self.passes.step(&self.world.fs()) && self.rng.below(3) == 0 {
            self.world.set_fuse(Some(self.rng.below(60)));
            self.next_end_ns = now + 500_000_000;
        }
        let made = self.node.as_ref().map_or(0, Node::compactions);
        if std::mem::replace(&mut self.compactions_seen, made) < made && self.rng.coin() {
            // Before checkpoints know of it.
            self.next_end_ns = now + self.rng.below(4_000_000);
        }
    }

    fn step_clients(&mut self) -> Result<(), Violation> {
        let Some(node) = &self.node else { return Ok(()) };
        for producer in &mut self.producers {
            let Some(listener) = node.listener(&mut self.rng) else { continue };
            producer.step(&self.world, listener, &self.catalog, &mut self.model, &mut self.ops)?;
        }
        for consumer in &mut self.consumers {
            consumer.step(&self.world, node, &self.catalog, &mut self.model)?;
        }
        Ok(())
    }

    /// A last cut, then everything is read from the start.
    fn finish(&mut self) -> Result<(), Violation> {
        self.faults = DiskFaults::default();
        self.world.set_disk_faults(self.faults);
        self.settings.full_disk = false;
        self.fill_disk(false);
        self.end_life(Cut::Power);
        self.boot()?;
        self.producers.clear();
        self.model.reads_all = true;
        self.next_end_ns = u64::MAX;
        self.next_disk_ns = u64::MAX;
        self.next_topic_ns = u64::MAX;
        let mut whole = Vec::new();
        for topic in &self.catalog.topics {
            for spec in &topic.partitions {
                let consumer = Consumer::whole(topic.name.clone(), spec.index as usize, &mut self.rng);
                whole.push((spec.id, consumer));
            }
        }
        let ids: Vec<_> = whole.iter().map(|(id, _)| *id).collect();
        self.consumers = whole.into_iter().map(|(_, consumer)| consumer).collect();
        while self.consumers.iter().any(|c| c.caught_up().is_none()) {
            self.step()?;
        }
        for (id, consumer) in ids.into_iter().zip(&self.consumers) {
            self.model.check_whole(id, consumer.caught_up().unwrap_or(0))?;
        }
        Ok(())
    }
}
