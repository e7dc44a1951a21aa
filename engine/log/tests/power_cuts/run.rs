//! One seed: a core's log on a simulated disk, under appends, reads and cuts, against the model.

mod weather;

use crate::model::{Model, Stored, batch};
use ringmill_log::{
    AckAt, AppendError, Faults, Log, LogEvent, LogOptions, ReadError, ReadOutcome, ReadRequest, Slot,
};
use ringmill_reactor::sim::{Cut, SimBackend, SimOptions, SimRng, SimWorld};
use ringmill_reactor::{Backend, Fs};
use ringmill_record::BatchHeader;
use ringmill_record::batch::patch_placement;
use ringmill_types::{
    CoreId, ErrorCode, GroupSeq, LeaderEpoch, Offset, PartitionId, PartitionSpec, TopicConfig, TopicId,
    TopicSpec,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
pub use weather::Weather;

const PARTITIONS: u64 = 3;
const PRODUCERS: u64 = 2;
const EPOCH: LeaderEpoch = LeaderEpoch(2);
/// Turns after which an operation that did not end counts as stuck.
const STUCK_TURNS: u32 = 200_000;
/// As many go by in vain before a lack of descriptors ends.
const PATIENT_TURNS: u32 = 20_000;
const DISK_BYTES: u64 = 64 << 20;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub seed: u64,
    pub ops: u64,
    pub faults: Faults,
    pub weather: Weather,
}

/// What a run did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub appends: u64,
    pub duplicates: u64,
    pub busy: u64,
    pub reads: u64,
    pub cold_reads: u64,
    pub cuts: u64,
    pub cuts_in_recovery: u64,
    pub checkpoints: u64,
    pub destage_writes: u64,
    /// Lives that ended because a flush or write had failed.
    pub fatal: u64,
    /// Appends refused with a retriable error, and starts that failed.
    pub refused: u64,
    pub refused_starts: u64,
    /// Times that a full disk had room again and appends went on.
    pub healed: u64,
    pub trace: u64,
}

impl Stats {
    pub fn add(&mut self, other: &Stats) {
        self.appends += other.appends;
        self.duplicates += other.duplicates;
        self.busy += other.busy;
        self.reads += other.reads;
        self.cold_reads += other.cold_reads;
        self.cuts += other.cuts;
        self.cuts_in_recovery += other.cuts_in_recovery;
        self.checkpoints += other.checkpoints;
        self.destage_writes += other.destage_writes;
        self.fatal += other.fatal;
        self.refused += other.refused;
        self.refused_starts += other.refused_starts;
        self.healed += other.healed;
        self.trace = self.trace.rotate_left(7) ^ other.trace;
    }
}

/// One life of the process.
struct Node {
    core: usize,
    io: SimBackend,
    log: Log,
}

struct Run {
    plan: Plan,
    world: SimWorld,
    rng: SimRng,
    topic: TopicSpec,
    node: Option<Node>,
    parts: Vec<Model>,
    /// Acks that wait: group, partition, the offset after the batch.
    waiting: Vec<(GroupSeq, usize, i64)>,
    durable: GroupSeq,
    /// Cold reads that wait, by ticket.
    reads: BTreeMap<u64, (usize, i64)>,
    next_ticket: u64,
    life: u128,
    /// Small ones make groups of one size, which a later life may lay exactly over those of an earlier.
    payload_max: u64,
    /// The disk fails, or is full, just now.
    stormy: bool,
    /// It was full in this life, and appends have not gone on since.
    was_full: bool,
    /// The log has said that it must end.
    fatal: bool,
    /// Errors that the disk had given when this life began.
    errors_before: u64,
    stats: Stats,
}

/// Runs one seed to its end.
///
/// # Errors
/// The promise that was broken.
pub fn run(plan: Plan) -> Result<Stats, String> {
    // A slow disk has several groups on their way when the power goes.
    let disk_us = if plan.seed.is_multiple_of(2) { (20, 900) } else { (500, 9_000) };
    let options =
        SimOptions { disk_us, disk_bytes: DISK_BYTES, pool_bytes: 64 << 20, ..SimOptions::default() };
    let world = SimWorld::new(plan.seed, options);
    let rng = world.fork_rng();
    let mut run = Run {
        plan,
        rng,
        world,
        topic: topic(),
        node: None,
        parts: (0..PARTITIONS).map(|_| Model::default()).collect(),
        waiting: Vec::new(),
        durable: GroupSeq(0),
        reads: BTreeMap::new(),
        next_ticket: 0,
        life: 0,
        payload_max: payload_max(plan),
        stormy: false,
        was_full: false,
        fatal: false,
        errors_before: 0,
        stats: Stats::default(),
    };
    // The data folder itself is its maker's to sync.
    let fs = run.world.fs();
    fs.create_dir_all(Path::new("/data"))
        .and_then(|()| fs.sync_dir(Path::new("/")))
        .map_err(|e| e.to_string())?;
    run.open()?;
    for _ in 0..plan.ops {
        run.step()?;
    }
    run.calm();
    run.sweep()?;
    run.cut(Cut::Power)?;
    run.sweep()?;
    run.note_life();
    run.stats.trace = run.world.trace_hash();
    Ok(run.stats)
}

fn payload_max(plan: Plan) -> u64 {
    // Groups that are full while a flush is under way run ahead of it, and a flush of their own follows.
    if plan.weather != Weather::Calm && plan.seed.is_multiple_of(3) {
        return 20_000;
    }
    if plan.seed.is_multiple_of(2) { 3_000 } else { 200 }
}

fn topic() -> TopicSpec {
    let config =
        TopicConfig { segment_bytes: 96 << 10, index_interval_bytes: 1000, ..TopicConfig::default() };
    let spec = |index: u64| PartitionSpec {
        index: index as i32,
        id: PartitionId(10 + index),
        owner: CoreId(0),
        leader_epoch: EPOCH,
    };
    TopicSpec {
        name: "orders".into(),
        id: TopicId([7; 16]),
        config: Arc::new(config),
        partitions: (0..PARTITIONS).map(spec).collect(),
    }
}

/// Small, so that a few hundred batches roll files, reclaim them and push data out of memory.
fn options(plan: Plan, flush_depth: usize) -> LogOptions {
    LogOptions {
        group_bytes: 24 << 10,
        first_file_bytes: 128 << 10,
        file_bytes: 192 << 10,
        files_max: 3,
        tail_bytes: 192 << 10,
        cache_bytes: 2 << 20,
        destage_depth: 2,
        cold_reads_max: 3,
        flush_depth,
        // Fewer than there are partitions, and one only.
        open_files_max: if plan.seed.is_multiple_of(5) { 1 + plan.seed as usize % 2 } else { 512 },
        faults: plan.faults,
        ..LogOptions::new(CoreId(0), PathBuf::from("/data"))
    }
}

impl Run {
    fn node(&mut self) -> Result<&mut Node, String> {
        self.node.as_mut().ok_or_else(|| "no life to turn".to_string())
    }

    fn slot(&self, part: usize) -> Result<Slot, String> {
        let node = self.node.as_ref().ok_or("no life to ask")?;
        node.log.slot_of(PartitionId(10 + part as u64)).ok_or_else(|| format!("partition {part} is gone"))
    }

    /// Starts a life; the power may go in the middle of it, again and again.
    fn open(&mut self) -> Result<(), String> {
        self.fatal = false;
        for attempt in 0.. {
            // The operator sees to it.
            if attempt > 3 {
                self.calm();
            }
            self.was_full = self.stormy && self.plan.weather == Weather::FullDisk;
            self.errors_before = self.world.disk_errors();
            let fuse = self.rng.chance_ppm(300_000).then(|| self.rng.below(150));
            self.world.set_fuse(fuse);
            let (core, mut io) = self.world.add_core();
            self.life = u128::from(self.rng.next_u64()) << 64 | u128::from(self.rng.next_u64());
            let flush_depth = 1 + self.rng.below(4) as usize;
            let topics = std::slice::from_ref(&self.topic);
            let opened = Log::open(&mut io, options(self.plan, flush_depth), topics, 100, self.life);
            if self.world.power_is_gone() {
                drop(opened);
                self.stats.cuts_in_recovery += 1;
                self.world.end_life(Cut::Power);
                continue;
            }
            if opened.is_err() && self.may_refuse() {
                drop(opened);
                self.stats.refused_starts += 1;
                self.world.set_fuse(None);
                self.world.end_life(Cut::Process);
                continue;
            }
            // A fuse that recovery did not reach may blow in a job of this life.
            let (log, _) = opened.map_err(|e| format!("recovery refused: {e}"))?;
            self.durable = log.durable_group();
            self.node = Some(Node { core, io, log });
            break;
        }
        for part in 0..self.parts.len() {
            let slot = self.slot(part)?;
            let view = self.node()?.log.view(slot).ok_or("no view of a partition")?;
            let model = self.parts.get_mut(part).ok_or("no such partition")?;
            model
                .recovered(view.log_end.0, view.high_watermark.0)
                .map_err(|e| format!("partition {part} after a cut: {e}"))?;
        }
        Ok(())
    }

    fn note_life(&mut self) {
        if let Some(node) = &self.node {
            let metrics = node.log.metrics();
            self.stats.checkpoints += metrics.checkpoints;
            self.stats.destage_writes += metrics.destage_writes;
            self.stats.cold_reads += metrics.cold_reads;
        }
    }

    fn cut(&mut self, cut: Cut) -> Result<(), String> {
        self.note_life();
        self.stats.cuts += 1;
        self.world.end_life(cut);
        self.node = None;
        self.waiting.clear();
        self.reads.clear();
        self.open()
    }

    fn step(&mut self) -> Result<(), String> {
        self.change_weather()?;
        if self.fatal {
            return self.die();
        }
        match self.rng.below(1000) {
            0..500 => self.append(),
            500..540 => self.retry(),
            540..640 => {
                let part = self.rng.below(PARTITIONS) as usize;
                let end = self.parts.get(part).map_or(0, Model::end);
                let offset = self.rng.below(end as u64 + 1) as i64;
                self.next_ticket += 1;
                let ticket = self.next_ticket;
                self.read(part, offset, ticket).map(|_| ())
            }
            640..645 => self.sweep(),
            645..660 => self.cut(Cut::Power),
            660..663 => self.cut(Cut::Process),
            663..665 => {
                let by = self.rng.below(20_000) as i64 - 10_000;
                self.world.jump_wall(by);
                Ok(())
            }
            665..690 => (0..self.rng.below(60)).try_for_each(|_| self.turn()),
            _ => self.turn(),
        }
    }

    /// One turn of the core, when there is a reason for it; otherwise time passes.
    fn turn(&mut self) -> Result<(), String> {
        let spend = self.rng.below(20_000);
        self.world.spend(1 + spend);
        let core = self.node()?.core;
        if !self.world.is_runnable(core) {
            let until = self.world.now_ns() + 3_000_000;
            self.world.advance(until);
        }
        if self.world.power_is_gone() {
            return self.cut(Cut::Power);
        }
        let node = self.node()?;
        let mut failed = false;
        while let Some(completion) = node.io.pop() {
            failed |= Run::is_fatal(&completion);
            node.log.complete(&mut node.io, completion);
        }
        node.log.poll(&mut node.io);
        let until = node.log.deadline_ns();
        node.io.enter(until);
        self.events()?;
        if failed && !self.fatal {
            return Err("a write or flush of the core log failed, and the log goes on".to_string());
        }
        Ok(())
    }

    fn events(&mut self) -> Result<(), String> {
        while let Some(event) = self.node()?.log.next_event() {
            if self.fatal {
                return Err(format!("the log said that it must end, and goes on: {event:?}"));
            }
            match event {
                LogEvent::Durable(group) => {
                    self.durable = group;
                    let waiting = std::mem::take(&mut self.waiting);
                    for (needs, part, end) in waiting {
                        if needs <= group {
                            self.acked(part, end);
                        } else {
                            self.waiting.push((needs, part, end));
                        }
                    }
                }
                LogEvent::Block(ticket) => {
                    if let Some((part, offset)) = self.reads.remove(&ticket) {
                        self.read(part, offset, ticket)?;
                    }
                }
                LogEvent::Fatal(why) if !self.has_erred() => {
                    return Err(format!("the log gave up on a sound disk: {why}"));
                }
                LogEvent::Fatal(_) => {
                    self.stats.fatal += 1;
                    self.fatal = true;
                }
                LogEvent::Sealed(_) | LogEvent::Advanced(_) | LogEvent::Found { .. } | LogEvent::Room => {}
            }
        }
        Ok(())
    }

    fn acked(&mut self, part: usize, end: i64) {
        if let Some(model) = self.parts.get_mut(part) {
            model.promised = model.promised.max(end);
        }
    }

    fn append(&mut self) -> Result<(), String> {
        let part = self.rng.below(PARTITIONS) as usize;
        let producer = self.rng.coin().then(|| 1000 + self.rng.below(PRODUCERS) as i64);
        let records = 1 + self.rng.below(6) as i32;
        let longest = if self.rng.chance_ppm(20_000) { 40_000 } else { self.payload_max };
        let len = self.rng.between(1, longest);
        let payload: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| self.rng.next_u64().to_le_bytes()).collect();
        let model = self.parts.get(part).ok_or("no such partition")?;
        let producer = producer.map(|id| (id, model.next_sequence(id)));
        let base = model.end();
        let now_ms = self.node()?.io.wall_ms();
        let mut bytes = batch(records, &payload, now_ms, producer);
        let Some((got, ack)) = self.send(part, &bytes)? else { return Ok(()) };
        if got != base {
            return Err(format!("partition {part}: appended at {got}, the log ended at {base}"));
        }
        patch_placement(&mut bytes, Offset(base), EPOCH);
        let last = base + i64::from(records) - 1;
        self.stats.appends += 1;
        if let Some(model) = self.parts.get_mut(part) {
            let sent = model.count_sent(producer);
            model.batches.push(Stored { base, last, bytes, producer, sent });
        }
        self.wait_for(ack, part, last + 1);
        Ok(())
    }

    /// A producer that did not hear sends again what it sent.
    fn retry(&mut self) -> Result<(), String> {
        let part = self.rng.below(PARTITIONS) as usize;
        let id = 1000 + self.rng.below(PRODUCERS) as i64;
        let which = self.rng.below(5) as usize;
        let model = self.parts.get(part).ok_or("no such partition")?;
        let Some((base, end, mut bytes)) =
            model.may_retry(id).get(which).map(|b| (b.base, b.last + 1, b.bytes.clone()))
        else {
            return Ok(());
        };
        let log_end = model.end();
        patch_placement(&mut bytes, Offset(0), LeaderEpoch(0));
        let Some((got, ack)) = self.send(part, &bytes)? else { return Ok(()) };
        let slot = self.slot(part)?;
        let now_ends = self.node()?.log.view(slot).map_or(-1, |v| v.log_end.0);
        if got != base || now_ends != log_end {
            return Err(format!(
                "partition {part}: the batch at {base} was stored again at {got}; the log ended at {log_end}, now {now_ends}"
            ));
        }
        self.stats.duplicates += 1;
        self.wait_for(ack, part, end);
        Ok(())
    }

    fn send(&mut self, part: usize, bytes: &[u8]) -> Result<Option<(i64, AckAt)>, String> {
        let header = BatchHeader::parse(bytes).ok_or("the simulator made no batch")?;
        let slot = self.slot(part)?;
        let node = self.node()?;
        let wall_ms = node.io.wall_ms();
        match node.log.append(&mut node.io, slot, &header, bytes, wall_ms) {
            Ok(_) if self.fatal => Err("taken after the log said that it must end".to_string()),
            Ok(appended) => Ok(Some((appended.base_offset.0, appended.ack))),
            Err(AppendError::Busy) => {
                self.stats.busy += 1;
                self.turn()?;
                Ok(None)
            }
            Err(AppendError::Refused(ErrorCode::KafkaStorageError, _)) if self.may_refuse() => {
                self.stats.refused += 1;
                Ok(None)
            }
            Err(refused) => Err(format!("partition {part}: a good batch was refused: {refused:?}")),
        }
    }

    fn wait_for(&mut self, ack: AckAt, part: usize, end: i64) {
        match ack {
            AckAt::Now => self.acked(part, end),
            AckAt::Sealed(group) | AckAt::Durable(group) if group <= self.durable => self.acked(part, end),
            AckAt::Sealed(group) | AckAt::Durable(group) => self.waiting.push((group, part, end)),
        }
    }

    /// Where the next read would begin; `None` while blocks are on their way.
    fn read(&mut self, part: usize, offset: i64, ticket: u64) -> Result<Option<i64>, String> {
        let slot = self.slot(part)?;
        let max_bytes = 1 + self.rng.below(20_000) as usize;
        let request = ReadRequest { slot, offset: Offset(offset), max_bytes, at_least_one: true, ticket };
        let node = self.node()?;
        let outcome = node.log.read(&mut node.io, request);
        let high_watermark = node.log.view(slot).map_or(0, |v| v.high_watermark.0);
        self.stats.reads += 1;
        match outcome {
            Ok(ReadOutcome::Wait) => {
                self.reads.insert(ticket, (part, offset));
                Ok(None)
            }
            Ok(ReadOutcome::Data { bufs, .. }) => {
                let bytes: Vec<u8> = bufs.iter().flat_map(|b| b.iter().copied()).collect();
                let model = self.parts.get_mut(part).ok_or("no such partition")?;
                let next = model
                    .check_read(offset, &bytes, high_watermark)
                    .map_err(|e| format!("partition {part}, read from {offset}: {e}"))?;
                model.promised = model.promised.max(high_watermark);
                Ok(Some(next))
            }
            // Writing its segment failed; the next start finds in the core log what is not in it.
            Err(ReadError::Offline) if self.has_erred() => Ok(Some(offset)),
            Err(error) => Err(format!("partition {part}, read from {offset}: {error:?}")),
        }
    }

    /// Reads every partition from its start to its high watermark.
    fn sweep(&mut self) -> Result<(), String> {
        for part in 0..self.parts.len() {
            let mut offset = 0;
            let mut turns = 0;
            loop {
                self.next_ticket += 1;
                let ticket = self.next_ticket;
                let life = self.life;
                let next = self.read(part, offset, ticket)?;
                while next.is_none() && self.reads.contains_key(&ticket) && life == self.life {
                    if self.fatal {
                        return Ok(());
                    }
                    self.turn()?;
                    turns += 1;
                    // Without a descriptor a read waits for one, and only the weather brings it.
                    if self.plan.weather == Weather::FewFiles && turns == PATIENT_TURNS {
                        self.calm();
                    }
                    if turns > STUCK_TURNS {
                        let state = self.node()?.log.describe();
                        return Err(format!("partition {part}, read from {offset}: stuck; {state}"));
                    }
                }
                match next {
                    Some(next) if next == offset => break,
                    Some(next) => offset = next,
                    // The block is there now, or a cut took the read: ask again.
                    None => offset = offset.min(self.parts.get(part).map_or(0, Model::end)),
                }
            }
        }
        Ok(())
    }
}
