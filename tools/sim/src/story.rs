//! One seed: a setup drawn from it, lives that end in stops, kills and power cuts, and the reading at the end.

use crate::consumer::Consumer;
use crate::model::{Model, Violation};
use crate::node::{Node, Turned};
use crate::producer::Producer;
use ringmill_log::{Faults, FlushMethod, LogOptions, RecoveryError};
use ringmill_reactor::Fs;
use ringmill_reactor::sim::{Cut, DiskFaults, SimOptions, SimRng, SimWorld};
use ringmill_types::{CoreId, LeaderEpoch, PartitionId, PartitionSpec, TopicConfig, TopicId, TopicSpec};
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
            narrate: false,
        }
    }
}

/// What a run without a violation did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub acked: u64,
    pub seen: u64,
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
    topic: TopicSpec,
    settings: Settings,
    faults: DiskFaults,
    producers: Vec<Producer>,
    consumers: Vec<Consumer>,
    model: Model,
    node: Option<Node>,
    ops: u64,
    crashes: u64,
    turns: u64,
    next_end_ns: u64,
    next_disk_ns: u64,
    disk_is_full: bool,
}

/// Runs one seed.
///
/// # Errors
/// The first promise that was broken.
pub fn run(seed: u64, settings: Settings) -> Result<Report, Violation> {
    let mut story = Story::new(seed, settings);
    if settings.narrate {
        eprintln!("{:?}", story.options);
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
        crashes: story.crashes,
        virtual_ms: story.world.now_ns() / 1_000_000,
        trace: story.world.trace_hash(),
    })
}

fn topic(rng: &mut SimRng) -> TopicSpec {
    let config = TopicConfig {
        segment_bytes: rng.between(32 << 10, 512 << 10),
        retention_ms: -1,
        ..TopicConfig::default()
    };
    let spec = |at: u64| PartitionSpec {
        index: at as i32,
        id: PartitionId(at + 1),
        owner: CoreId(0),
        leader_epoch: LeaderEpoch(0),
    };
    let partitions = (0..rng.between(1, 5)).map(spec).collect();
    TopicSpec { name: "t".into(), id: TopicId([7; 16]), config: Arc::new(config), partitions }
}

fn log_options(rng: &mut SimRng, planted: Faults) -> LogOptions {
    let mut options = LogOptions::new(CoreId(0), PathBuf::from("/data"));
    options.flush_method = if rng.below(4) == 0 { FlushMethod::Dsync } else { FlushMethod::Fdatasync };
    options.flush_depth = rng.between(1, 3) as usize;
    options.linger_us = if rng.coin() { 0 } else { rng.between(1, 500) };
    options.group_bytes = rng.between(8 << 10, 128 << 10) as usize;
    options.first_file_bytes = 4096 * rng.between(48, 128);
    options.file_bytes = options.first_file_bytes.max(4096 * rng.between(48, 256));
    options.files_max = rng.between(2, 4) as usize;
    options.tail_bytes = 16 << 20;
    options.cache_bytes = 1 << 20;
    options.faults = planted;
    options
}

impl Story {
    fn new(seed: u64, settings: Settings) -> Story {
        let options = SimOptions { release_early: settings.release_early, ..SimOptions::default() };
        let world = SimWorld::new(seed, options);
        let mut rng = world.fork_rng();
        let topic = topic(&mut rng);
        let count = topic.partitions.len();
        let options = log_options(&mut rng, settings.planted);
        let with_errors = settings.disk_errors && rng.below(4) == 0;
        let ppm = |rng: &mut SimRng| if with_errors { rng.below(2_000) as u32 } else { 0 };
        let faults = DiskFaults {
            read_error_ppm: ppm(&mut rng),
            write_error_ppm: ppm(&mut rng),
            sync_error_ppm: ppm(&mut rng),
        };
        let producers =
            (0..rng.between(1, 5)).map(|id| Producer::new(id as u32, count as u64, &mut rng)).collect();
        let consumers =
            (0..rng.between(1, 4)).map(|at| Consumer::new(at as usize % count, &mut rng)).collect();
        Story {
            world,
            rng,
            options,
            topic,
            settings,
            faults,
            producers,
            consumers,
            model: Model::new(count),
            node: None,
            ops: settings.ops,
            crashes: 0,
            turns: 0,
            next_end_ns: 0,
            next_disk_ns: u64::MAX,
            disk_is_full: false,
        }
    }

    /// What the broker's boot does before a core starts: the folders and their names.
    fn prepare(&mut self) {
        let fs = self.world.fs();
        for dir in ["/data", "/data/topics", "/data/core-0"] {
            let parent = Path::new(dir).parent().unwrap_or(Path::new("/"));
            let made = fs.create_dir_all(Path::new(dir)).and_then(|()| fs.sync_dir(parent));
            made.expect("no faults yet");
        }
    }

    fn boot(&mut self) -> Result<(), Violation> {
        for attempt in 0..20 {
            // The last tries are left in peace: a node must come up then.
            let peace = attempt > 10;
            self.world.set_disk_faults(if peace { DiskFaults::default() } else { self.faults });
            if peace {
                self.fill_disk(false);
            }
            let fuse = !peace && self.rng.below(3) == 0;
            self.world.set_fuse(fuse.then(|| self.rng.below(60)));
            let incarnation = u128::from(self.rng.next_u64()) << 64 | u128::from(self.rng.next_u64());
            let booted = Node::boot(&self.world, self.options.clone(), &self.topic, incarnation);
            if self.world.power_is_gone() {
                self.end_life(Cut::Power);
                continue;
            }
            self.world.set_fuse(None);
            match booted {
                Ok(node) => {
                    if self.settings.narrate {
                        eprintln!("{} ns: up; {}", self.world.now_ns(), node.describe());
                    }
                    self.node = Some(node);
                    self.plan();
                    return Ok(());
                }
                Err(RecoveryError::Io { .. } | RecoveryError::Checkpoint { .. })
                    if !peace && (self.disk_is_full || self.faults != DiskFaults::default()) =>
                {
                    self.end_life(Cut::Process);
                }
                Err(error) => return Err(Violation(format!("the node does not start: {error}"))),
            }
        }
        Err(Violation("the node does not come up".to_string()))
    }

    /// When this life ends, and when the disk fills.
    fn plan(&mut self) {
        let now = self.world.now_ns();
        let longest =
            *[8_000_000, 40_000_000, 400_000_000].get(self.rng.below(3) as usize).unwrap_or(&8_000_000);
        self.next_end_ns = now + self.rng.between(200_000, longest);
        let fills = self.settings.full_disk && self.rng.below(6) == 0;
        self.next_disk_ns = if fills { now + self.rng.below(200_000_000) } else { u64::MAX };
        if self.rng.below(8) == 0 {
            self.world.jump_wall(self.rng.below(7_200_000) as i64 - 3_600_000);
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
        self.node = None;
        self.world.end_life(cut);
        self.crashes += 1;
        let now = self.world.now_ns();
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
                Turned::Stopped => self.end_life(Cut::Power),
                Turned::Fatal(_) if self.faults != DiskFaults::default() => self.end_life(Cut::Process),
                Turned::Fatal(reason) => return Err(Violation(format!("fatal while stopping: {reason}"))),
                Turned::Nothing => {}
            }
        }
        match &self.node {
            // A full or failing disk may keep a stop from ending; the operator then kills.
            Some(_) if self.disk_is_full || self.faults != DiskFaults::default() => {
                self.end_life(Cut::Process)
            }
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

    /// Turns the core if it has a reason, otherwise lets time pass, at most to `until_ns`.
    fn turn(&mut self, until_ns: u64) -> Result<Turned, Violation> {
        self.turns += 1;
        if self.turns > TURNS_MAX || self.world.now_ns() > VIRTUAL_NS_MAX {
            let what = self.node.as_ref().map(Node::describe).unwrap_or_default();
            return Err(Violation(format!("no end in sight: {what}; {}", self.world.describe())));
        }
        let Some(node) = &mut self.node else { return Ok(Turned::Nothing) };
        if node.is_runnable(&self.world) {
            let turned = node.turn();
            self.world.spend(self.rng.between(500, 20_000));
            return Ok(turned);
        }
        self.world.advance(until_ns.max(self.world.now_ns() + 1));
        Ok(Turned::Nothing)
    }

    /// When something outside the broker wants to happen.
    fn next_act_ns(&self) -> u64 {
        let now = self.world.now_ns();
        let clients = self.producers.iter().map(|p| p.deadline_ns(self.ops));
        let clients = clients.chain(self.consumers.iter().map(|c| c.deadline_ns(now)));
        clients.chain([self.next_end_ns, self.next_disk_ns]).min().unwrap_or(u64::MAX)
    }

    fn step(&mut self) -> Result<(), Violation> {
        let turned = self.turn(self.next_act_ns())?;
        if self.world.power_is_gone() {
            self.end_life(Cut::Power);
            return self.boot();
        }
        if let Turned::Fatal(reason) = turned {
            if self.faults == DiskFaults::default() {
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
        if let Some(node) = &self.node {
            let listener = node.listener;
            for producer in &mut self.producers {
                producer.step(&self.world, listener, &mut self.model, &mut self.ops)?;
            }
            for consumer in &mut self.consumers {
                consumer.step(&self.world, listener, &mut self.model)?;
            }
        }
        if now >= self.next_end_ns { self.end_and_boot() } else { Ok(()) }
    }

    /// A last cut, then everything is read from the start.
    fn finish(&mut self) -> Result<(), Violation> {
        self.faults = DiskFaults::default();
        self.world.set_disk_faults(self.faults);
        self.settings.full_disk = false;
        self.fill_disk(false);
        self.end_life(Cut::Power);
        self.boot()?;
        let count = self.topic.partitions.len();
        self.producers.clear();
        self.next_end_ns = u64::MAX;
        self.next_disk_ns = u64::MAX;
        self.consumers = (0..count).map(|at| Consumer::whole(at, &mut self.rng)).collect();
        while self.consumers.iter().any(|c| c.caught_up.is_none()) {
            self.step()?;
        }
        for (at, consumer) in self.consumers.iter().enumerate() {
            self.model.check_whole(at, consumer.caught_up.unwrap_or(0))?;
        }
        Ok(())
    }
}
