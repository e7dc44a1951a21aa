//! Whoever waits for the disk sleeps: a core turns when something completed or a time has come, and not to ask again.
#![allow(clippy::unwrap_used)]

use ringmill_log::token::is_logs;
use ringmill_log::{AckAt, AppendError, Log, LogEvent, LogOptions, Slot};
use ringmill_reactor::sim::{SimBackend, SimOptions, SimWorld};
use ringmill_reactor::{Backend, Fs, Op, Token};
use ringmill_record::write::{Sealing, seal};
use ringmill_record::{BatchHeader, HEADER_BYTES};
use ringmill_types::{
    CoreId, GroupSeq, LeaderEpoch, PartitionId, PartitionSpec, TopicConfig, TopicId, TopicSpec,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MS: u64 = 1_000_000;
/// Every step of the disk takes this long: longer than an idle core waits before it records its durable mark.
const DISK_MS: u64 = 30;
/// A turn costs so much, so one that does not sleep is seen as many.
const TURN_NS: u64 = 1_000;
/// More than any of these tests takes.
const TURNS_MAX: u64 = 20_000;
/// A core looks around at least this often.
const SWEEP_NS: u64 = 500 * MS;
const RING_BYTES: u64 = 3 * (256 << 10);

struct Life {
    world: SimWorld,
    core: usize,
    io: SimBackend,
    log: Log,
    durable: GroupSeq,
    has_room: bool,
    turns: u64,
}

impl Life {
    fn begin(linger_us: u64, compaction_check_ms: i64) -> Life {
        let disk_us = (DISK_MS * 1_000, DISK_MS * 1_000);
        let options = SimOptions { disk_us, stall_ppm: 0, pool_bytes: 64 << 20, ..SimOptions::default() };
        let world = SimWorld::new(5, options);
        world.fs().create_dir_all(Path::new("/data")).unwrap();
        let (core, mut io) = world.add_core();
        let spec =
            PartitionSpec { index: 0, id: PartitionId(10), owner: CoreId(0), leader_epoch: LeaderEpoch(0) };
        let topic = TopicSpec {
            name: "orders".into(),
            id: TopicId([7; 16]),
            config: Arc::new(TopicConfig::default()),
            partitions: vec![spec],
        };
        let options = LogOptions {
            first_file_bytes: RING_BYTES / 3,
            file_bytes: RING_BYTES / 3,
            files_max: 3,
            group_bytes: 24 << 10,
            linger_us,
            compaction_check_ms,
            ..LogOptions::new(CoreId(0), PathBuf::from("/data"))
        };
        let (log, _) = Log::open(&mut io, options, &[topic], 100, 1).unwrap();
        Life { world, core, io, log, durable: GroupSeq(0), has_room: false, turns: 0 }
    }

    /// What a core does in a turn before it sleeps.
    fn work(&mut self) {
        self.turns += 1;
        assert!(
            self.turns < TURNS_MAX,
            "turned {} times without sleeping: {}",
            self.turns,
            self.log.describe()
        );
        while let Some(completion) = self.io.pop() {
            if is_logs(completion.token) {
                self.log.complete(&mut self.io, completion);
            }
        }
        self.log.poll(&mut self.io);
        while let Some(event) = self.log.next_event() {
            match event {
                LogEvent::Durable(group) => self.durable = group,
                LogEvent::Room => self.has_room = true,
                LogEvent::Fatal(why) => panic!("{why:?}"),
                LogEvent::Sealed(_) | LogEvent::Advanced(_) | LogEvent::Block(_) | LogEvent::Found { .. } => {
                }
            }
        }
    }

    fn sleep(&mut self) {
        let sweep_ns = self.world.now_ns() + SWEEP_NS;
        let until_ns = self.log.deadline_ns().map_or(sweep_ns, |at| at.min(sweep_ns));
        self.io.enter(Some(until_ns));
        if !self.world.is_runnable(self.core) {
            self.world.advance(until_ns);
        }
        self.world.spend(TURN_NS);
    }

    fn turn(&mut self) {
        self.work();
        self.sleep();
    }

    fn try_append(&mut self) -> Option<GroupSeq> {
        let batch = batch(self.io.wall_ms());
        let header = BatchHeader::parse(&batch).unwrap();
        let slot: Slot = self.log.slot_of(PartitionId(10)).unwrap();
        let wall_ms = self.io.wall_ms();
        match self.log.append(&mut self.io, slot, &header, &batch, wall_ms) {
            Ok(appended) => match appended.ack {
                AckAt::Durable(group) => Some(group),
                AckAt::Now | AckAt::Sealed(_) => panic!("{appended:?} of a durable topic"),
            },
            Err(AppendError::Busy) => None,
            Err(refused) => panic!("{refused:?}"),
        }
    }

    /// The file thread has so much to do before anything else, as the segments of hundreds of partitions to sync.
    fn keep_files_busy(&mut self, ms: u64) {
        for _ in 0..ms / DISK_MS {
            self.io.push(Op::Run { job: Box::new(|_| Box::new(())) }, Token(1));
        }
    }

    fn until_durable(&mut self, group: GroupSeq) {
        while self.durable < group {
            self.turn();
        }
    }
}

/// One record of 4 KiB.
fn batch(timestamp_ms: i64) -> Vec<u8> {
    let mut out = vec![0; HEADER_BYTES + 4096];
    seal(&mut out, &Sealing::plain(timestamp_ms, timestamp_ms, 1));
    out
}

/// A ring that is full waits for a checkpoint, and appends with it: every group is durable then, and nothing is to be done.
#[test]
fn a_core_sleeps_while_a_full_ring_waits_for_its_checkpoint() {
    for linger_us in [0, 200] {
        let mut life = Life::begin(linger_us, 15_000);
        let (mut busy, mut quiet_ns, mut last) = (0, 0, GroupSeq(0));
        let batches = 3 * RING_BYTES / 4096;
        for number in 0..batches {
            if number % 100 == 0 {
                life.keep_files_busy(4_000);
            }
            loop {
                life.has_room = false;
                if let Some(group) = life.try_append() {
                    last = group;
                    break;
                }
                busy += 1;
                loop {
                    life.work();
                    if life.has_room {
                        break;
                    }
                    let before_ns = life.world.now_ns();
                    life.sleep();
                    if life.durable >= last {
                        quiet_ns += life.world.now_ns() - before_ns;
                    }
                }
            }
        }
        life.until_durable(last);
        let metrics = life.log.metrics();
        let what = format!("linger {linger_us} us, {busy} times busy, {} turns, {metrics:?}", life.turns);
        assert!(metrics.checkpoints >= 3 && quiet_ns > 5 * DISK_MS * MS, "the ring was never full: {what}");
        assert!(life.turns < 4 * batches, "turned without sleeping: {what}");
        assert!(busy < 2 * batches, "told of room that there was not: {what}");
    }
}

/// What is appended after the log was polled, as by whoever hears of room, waits for no other reason to turn.
#[test]
fn what_joins_a_group_after_the_poll_is_written_at_once() {
    let mut life = Life::begin(0, 15_000);
    let first = life.try_append().unwrap();
    life.until_durable(first);
    // Past the durable mark, and whatever comes of it.
    let until_ns = life.world.now_ns() + 2 * SWEEP_NS;
    while life.world.now_ns() < until_ns {
        life.turn();
    }
    life.work();
    let began_ns = life.world.now_ns();
    let group = life.try_append().unwrap();
    life.sleep();
    life.until_durable(group);
    let took_ms = (life.world.now_ns() - began_ns) / MS;
    assert!(took_ms <= 4 * DISK_MS, "{took_ms} ms where each step takes {DISK_MS}");
}

/// The group that records the durable mark is written and flushed like any other, and takes the device as long: with a
/// linger too, which it does not wait for.
#[test]
fn every_flush_took_the_time_that_the_disk_took() {
    for linger_us in [0, 200] {
        let mut life = Life::begin(linger_us, 15_000);
        let group = life.try_append().unwrap();
        life.until_durable(GroupSeq(group.0 + 1));
        let mut taken_us = Vec::new();
        while let Some((micros, _)) = life.log.take_flush_sample() {
            taken_us.push(micros);
        }
        assert_eq!(taken_us.len(), 2, "the records' group and the mark's");
        assert!(taken_us.iter().all(|us| *us >= DISK_MS * 1_000), "{taken_us:?} us of {DISK_MS} ms");
    }
}

#[test]
fn a_core_sleeps_while_it_stops() {
    let mut life = Life::begin(0, 10);
    let group = life.try_append().unwrap();
    life.until_durable(group);
    life.log.stop();
    let (began_ns, before) = (life.world.now_ns(), life.turns);
    while !life.log.is_stopped() {
        life.turn();
    }
    let (took_ms, turns) = ((life.world.now_ns() - began_ns) / MS, life.turns - before);
    assert!(took_ms > 2 * DISK_MS, "{took_ms} ms are no stop that waits");
    assert!(turns < 50, "{turns} turns in {took_ms} ms");
}
