//! A core's log keeps to its share of the open files, whatever the number of its partitions, and waits where there are none.
#![allow(clippy::unwrap_used)]

use ringmill_log::{AppendError, Log, LogEvent, LogOptions, ReadOutcome, ReadRequest, Slot};
use ringmill_reactor::sim::{SimBackend, SimOptions, SimWorld};
use ringmill_reactor::{Backend, Fs};
use ringmill_record::write::{Sealing, seal};
use ringmill_record::{BatchHeader, Batches, HEADER_BYTES};
use ringmill_types::{
    CoreId, LeaderEpoch, Offset, PartitionId, PartitionSpec, TopicConfig, TopicId, TopicSpec,
};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const PARTITIONS: i32 = 120;
/// Segments that may be open.
const SHARE: usize = 16;
/// Core-log files, and what one job of the file thread has open for its own.
const BESIDE: usize = 3 + 2;
const SLEEP_NS: u64 = 2_000_000;
/// Virtual time in which anything here is done.
const LATE_NS: u64 = 60_000_000_000;

struct Life {
    world: SimWorld,
    core: usize,
    io: SimBackend,
    log: Log,
    ready: BTreeSet<u64>,
}

fn world() -> SimWorld {
    let world = SimWorld::new(9, SimOptions { pool_bytes: 64 << 20, ..SimOptions::default() });
    world.fs().create_dir_all(Path::new("/data")).unwrap();
    world.fs().sync_dir(Path::new("/")).unwrap();
    world
}

fn begin(world: SimWorld, life: u128) -> Life {
    let (core, mut io) = world.add_core();
    let spec = |index: i32| PartitionSpec {
        index,
        id: PartitionId(10 + index as u64),
        owner: CoreId(0),
        leader_epoch: LeaderEpoch(0),
    };
    let topic = TopicSpec {
        name: "orders".into(),
        id: TopicId([7; 16]),
        config: Arc::new(TopicConfig { segment_bytes: 64 << 10, ..TopicConfig::default() }),
        partitions: (0..PARTITIONS).map(spec).collect(),
    };
    let options = LogOptions {
        first_file_bytes: 1 << 20,
        file_bytes: 1 << 20,
        files_max: 3,
        tail_bytes: 512 << 10,
        group_bytes: 24 << 10,
        open_files_max: SHARE,
        ..LogOptions::new(CoreId(0), PathBuf::from("/data"))
    };
    let (log, _) = Log::open(&mut io, options, &[topic], 1000, life).unwrap();
    Life { world, core, io, log, ready: BTreeSet::new() }
}

impl Life {
    fn turn(&mut self) {
        assert!(self.world.now_ns() < LATE_NS, "this does not end: {}", self.log.describe());
        while let Some(completion) = self.io.pop() {
            self.log.complete(&mut self.io, completion);
        }
        self.log.poll(&mut self.io);
        while let Some(event) = self.log.next_event() {
            match event {
                LogEvent::Block(ticket) => drop(self.ready.insert(ticket)),
                LogEvent::Fatal(why) => panic!("{why:?}"),
                _ => {}
            }
        }
        let until_ns = self.world.now_ns() + SLEEP_NS;
        let until_ns = self.log.deadline_ns().map_or(until_ns, |at| at.min(until_ns));
        self.io.enter(Some(until_ns));
        if !self.world.is_runnable(self.core) {
            self.world.advance(until_ns);
        }
        self.world.spend(1_000);
    }

    fn slot(&self, index: i32) -> Slot {
        self.log.slot_of(PartitionId(10 + index as u64)).unwrap()
    }

    /// A record of 2 KiB to each partition.
    fn append_to_all(&mut self) {
        for index in 0..PARTITIONS {
            let slot = self.slot(index);
            let wall_ms = self.io.wall_ms();
            let mut batch = vec![0; HEADER_BYTES];
            batch.extend((0..2048).map(|at| (at + index) as u8));
            seal(&mut batch, &Sealing { attributes: 3, ..Sealing::plain(wall_ms, wall_ms, 1) });
            let header = BatchHeader::parse(&batch).unwrap();
            while let Err(error) = self.log.append(&mut self.io, slot, &header, &batch, wall_ms) {
                assert_eq!(error, AppendError::Busy, "no more than that for want of a descriptor");
                self.turn();
            }
        }
    }

    fn stop(mut self) -> SimWorld {
        self.log.stop();
        while !self.log.is_stopped() {
            self.turn();
        }
        self.world
    }

    /// Every partition holds so many records, and each says whose it is.
    fn read_all(&mut self, records: i64) {
        let mut ticket = 0;
        for index in 0..PARTITIONS {
            let slot = self.slot(index);
            let mut offset = Offset(0);
            assert_eq!(self.log.view(slot).unwrap().high_watermark.0, records, "partition {index}");
            while offset.0 < records {
                ticket += 1;
                let request = ReadRequest { slot, offset, max_bytes: 1 << 20, at_least_one: true, ticket };
                match self.log.read(&mut self.io, request).unwrap() {
                    ReadOutcome::Wait => {
                        while !self.ready.remove(&ticket) {
                            self.turn();
                        }
                    }
                    ReadOutcome::Data { bufs, .. } => {
                        let bytes: Vec<u8> = bufs.iter().flat_map(|b| b.iter().copied()).collect();
                        for (header, batch) in Batches::new(&bytes) {
                            assert_eq!(header.base_offset, offset);
                            assert_eq!(batch[HEADER_BYTES], index as u8);
                            offset = header.next_offset();
                        }
                    }
                }
            }
        }
    }

    fn is_any_offline(&self) -> bool {
        self.log.slots().any(|slot| self.log.view(slot).is_some_and(|view| view.offline.is_some()))
    }
}

#[test]
fn many_partitions_hold_no_more_files_than_their_share() {
    let mut life = begin(world(), 1);
    for _ in 0..20 {
        life.append_to_all();
    }
    assert!(life.log.metrics().destage_writes > 5 * PARTITIONS as u64);
    life.read_all(20);
    let world = life.stop();
    assert!(world.open_files().1 <= SHARE + BESIDE, "{} files were open at once", world.open_files().1);
    let mut life = begin(world, 2);
    life.read_all(20);
    assert!(life.world.open_files().1 <= SHARE + BESIDE);
}

/// One record each, all of them in memory until the stop.
#[test]
fn a_stop_needs_no_more_files_than_a_load() {
    let mut life = begin(world(), 1);
    life.append_to_all();
    let world = life.stop();
    assert!(world.open_files().1 <= SHARE + BESIDE, "{} files were open at once", world.open_files().1);
    let mut life = begin(world, 2);
    life.read_all(1);
}

/// More than memory holds is replayed, into segments.
#[test]
fn a_start_after_a_kill_keeps_to_the_share_too() {
    let mut life = begin(world(), 1);
    for _ in 0..4 {
        life.append_to_all();
    }
    while life.log.slots().any(|slot| life.log.view(slot).is_some_and(|v| v.durable < v.log_end)) {
        life.turn();
    }
    let Life { world, io, log, .. } = life;
    world.end_life(ringmill_reactor::sim::Cut::Power);
    drop((io, log));
    let mut life = begin(world, 2);
    life.read_all(4);
    assert!(life.world.open_files().1 <= SHARE + BESIDE, "{} files were open", life.world.open_files().1);
}

/// Others took the descriptors: everything waits for them to come back, and nobody is told that anything is broken.
#[test]
fn a_process_without_descriptors_waits_for_them() {
    let mut life = begin(world(), 1);
    for most in [3, 4, 5, 8] {
        life.world.set_open_files_max(most);
        for _ in 0..300 {
            life.turn();
        }
        assert!(!life.is_any_offline());
        life.world.set_open_files_max(usize::MAX);
        life.append_to_all();
        life.world.set_open_files_max(life.world.open_files().0);
        for _ in 0..300 {
            life.turn();
        }
        assert!(!life.is_any_offline());
        life.world.set_open_files_max(usize::MAX);
        life.append_to_all();
    }
    life.read_all(8);
    let mut life = begin(life.stop(), 2);
    life.read_all(8);
}
