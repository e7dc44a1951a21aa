//! The wall clock goes back an hour, or a day ahead: stamps of LogAppendTime do not go back, nothing is deleted or
//! forgotten early, and whatever waits for time to pass waits on the clock that only goes forward. Retention that is
//! lowered waits for nothing.
#![allow(clippy::unwrap_used)]

use ringmill_log::{AckAt, AppendError, Appended, Log, LogEvent, LogOptions, Slot};
use ringmill_reactor::sim::{SimBackend, SimOptions, SimWorld};
use ringmill_reactor::{Backend, Fs};
use ringmill_record::write::{Sealing, seal};
use ringmill_record::{BatchHeader, HEADER_BYTES};
use ringmill_types::{
    CoreId, GroupSeq, LeaderEpoch, Offset, PartitionId, PartitionSpec, TimestampType, TopicConfig, TopicId,
    TopicSpec,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const RETENTION_MS: i64 = 30 * MINUTE_MS;
const PRODUCER: i64 = 77;

struct Life {
    world: SimWorld,
    io: SimBackend,
    log: Log,
    durable: GroupSeq,
    sequence: i32,
}

impl Life {
    fn begin() -> Life {
        Life::with(TopicConfig { retention_ms: RETENTION_MS, ..TopicConfig::default() })
    }

    fn with(config: TopicConfig) -> Life {
        Life::of(TopicConfig { timestamp_type: TimestampType::LogAppendTime, ..config })
    }

    fn of(config: TopicConfig) -> Life {
        let options = SimOptions { disk_bytes: 64 << 20, pool_bytes: 64 << 20, ..SimOptions::default() };
        let world = SimWorld::new(3, options);
        world.fs().create_dir_all(Path::new("/data")).unwrap();
        let (_, mut io) = world.add_core();
        let (topic, _) = orders(config);
        let options = LogOptions {
            first_file_bytes: 256 << 10,
            file_bytes: 256 << 10,
            files_max: 3,
            tail_bytes: 192 << 10,
            group_bytes: 24 << 10,
            retention_check_ms: 1_000,
            producer_expiration_ms: 2 * HOUR_MS,
            ..LogOptions::new(CoreId(0), PathBuf::from("/data"))
        };
        let (log, _) = Log::open(&mut io, options, &[topic], 100, 1).unwrap();
        Life { world, io, log, durable: GroupSeq(0), sequence: 0 }
    }

    fn slot(&self) -> Slot {
        self.log.slot_of(PartitionId(10)).unwrap()
    }

    fn log_start(&self) -> Offset {
        self.log.view(self.slot()).unwrap().log_start
    }

    fn turn(&mut self, at_most_ns: u64) {
        self.log.poll(&mut self.io);
        self.io.enter(Some(self.world.now_ns() + at_most_ns));
        self.world.advance(self.world.now_ns() + at_most_ns);
        while let Some(completion) = self.io.pop() {
            self.log.complete(&mut self.io, completion);
        }
        self.log.poll(&mut self.io);
        while let Some(event) = self.log.next_event() {
            match event {
                LogEvent::Durable(group) => self.durable = group,
                LogEvent::Fatal(why) => panic!("{why:?}"),
                LogEvent::Sealed(_)
                | LogEvent::Advanced(_)
                | LogEvent::Block(_)
                | LogEvent::Found { .. }
                | LogEvent::Room => {}
            }
        }
    }

    /// Time passes, on both clocks.
    fn pass(&mut self, ms: i64) {
        let until = self.world.now_ns() + ms as u64 * 1_000_000;
        while self.world.now_ns() < until {
            self.turn((until - self.world.now_ns()).min(500_000_000));
        }
    }

    fn send(&mut self, sequence: i32) -> Appended {
        self.send_at(sequence, self.io.wall_ms())
    }

    fn send_at(&mut self, sequence: i32, timestamp_ms: i64) -> Appended {
        let batch = batch(sequence, timestamp_ms);
        let header = BatchHeader::parse(&batch).unwrap();
        let (slot, wall_ms) = (self.slot(), self.io.wall_ms());
        loop {
            match self.log.append(&mut self.io, slot, &header, &batch, wall_ms) {
                Ok(appended) => return appended,
                Err(AppendError::Busy) => self.turn(1_000_000),
                Err(refused) => panic!("{refused:?}"),
            }
        }
    }

    /// The next batch, acked; the stamp it got.
    fn append(&mut self) -> i64 {
        let appended = self.send(self.sequence);
        self.acked(&appended);
        appended.log_append_ms.expect("the topic stamps")
    }

    /// The next batch with a time of its producer's, acked.
    fn append_at(&mut self, timestamp_ms: i64) {
        let appended = self.send_at(self.sequence, timestamp_ms);
        self.acked(&appended);
    }

    fn acked(&mut self, appended: &Appended) {
        self.sequence += 1;
        let AckAt::Durable(group) = appended.ack else { panic!("{appended:?} of a durable topic") };
        let begun_ns = self.world.now_ns();
        while self.durable < group {
            assert!(self.world.now_ns() - begun_ns < 10_000_000_000, "ten seconds without an ack");
            self.turn(1_000_000);
        }
    }
}

/// The topic and its only partition.
fn orders(config: TopicConfig) -> (TopicSpec, PartitionSpec) {
    let spec =
        PartitionSpec { index: 0, id: PartitionId(10), owner: CoreId(0), leader_epoch: LeaderEpoch(0) };
    let config = Arc::new(TopicConfig { segment_bytes: 16 << 10, ..config });
    let partitions = vec![spec.clone()];
    (TopicSpec { name: "orders".into(), id: TopicId([7; 16]), config, partitions }, spec)
}

/// One record of 4 KiB from the idempotent producer.
fn batch(sequence: i32, timestamp_ms: i64) -> Vec<u8> {
    let mut out = vec![0; HEADER_BYTES + 4096];
    let plain = Sealing::plain(timestamp_ms, timestamp_ms, 1);
    seal(&mut out, &Sealing { producer_id: PRODUCER, producer_epoch: 0, base_sequence: sequence, ..plain });
    out
}

#[test]
fn an_hour_back_deletes_nothing_early_and_holds_nothing_up() {
    let mut life = Life::begin();
    let mut newest_ms = 0;
    for _ in 0..20 {
        let stamp_ms = life.append();
        assert!(stamp_ms >= newest_ms);
        newest_ms = stamp_ms;
        life.pass(100);
    }
    let wall_before_ms = life.io.wall_ms();
    life.world.jump_wall(-HOUR_MS);
    assert!(life.io.wall_ms() < wall_before_ms);

    // Acks still come, and stamps do not step back; searching by time relies on that.
    for _ in 0..20 {
        let stamp_ms = life.append();
        assert!(stamp_ms >= newest_ms, "stamped {stamp_ms} after {newest_ms}");
        newest_ms = stamp_ms;
        life.pass(100);
    }
    // Sent again: known, at its old place.
    let again = life.send(39);
    assert_eq!(again.base_offset, Offset(39), "the producer is remembered");

    // Looks for old segments go on by the monotonic clock, and find none while the wall says that all is new.
    life.pass(RETENTION_MS / 2);
    assert_eq!(life.log_start(), Offset(0), "nothing is as old as {RETENTION_MS} ms");
    assert_eq!(life.send(39).base_offset, Offset(39), "nor is the producer forgotten");

    // The clock is put right: what is young stays.
    life.world.jump_wall(HOUR_MS);
    life.pass(2_000);
    assert_eq!(life.log_start(), Offset(0), "the oldest record is {} ms old", RETENTION_MS / 2);
    // And what is old goes, as if nothing had been.
    life.pass(RETENTION_MS);
    assert!(life.log_start() > Offset(20), "the log still starts at {}", life.log_start());
    life.append();
}

/// Records that nobody adds to grow old as well, in whatever segment or memory they lie; what comes then is young.
#[test]
fn a_silent_log_is_emptied_by_age() {
    for batches in [1, 2, 20] {
        let mut life = Life::begin();
        for _ in 0..batches {
            life.append();
        }
        life.pass(RETENTION_MS - MINUTE_MS);
        assert_eq!(life.log_start(), Offset(0));
        life.pass(2 * MINUTE_MS);
        assert_eq!(life.log_start(), Offset(batches), "all of it is too old");
        life.append();
        life.pass(RETENTION_MS - MINUTE_MS);
        assert_eq!(life.log_start(), Offset(batches));
        life.pass(2 * MINUTE_MS);
        assert_eq!(life.log_start(), Offset(batches + 1));
    }
}

/// Records without a timestamp are as old as their segments, not as old as time.
#[test]
fn records_without_a_time_are_as_old_as_their_segments() {
    let mut life = Life::of(TopicConfig { retention_ms: RETENTION_MS, ..TopicConfig::default() });
    for _ in 0..20 {
        life.append_at(-1);
    }
    life.pass(RETENTION_MS - MINUTE_MS);
    assert_eq!(life.log_start(), Offset(0), "written {} minutes ago", RETENTION_MS / MINUTE_MS - 1);
    // Those that were in memory until now come to segments, and the age of these counts from when they are full.
    life.pass(RETENTION_MS + 2 * MINUTE_MS);
    assert_eq!(life.log_start(), Offset(20));
}

/// A clock that was wrong is put right, a day ahead: who sent minutes ago is known still, and who is silent for as long as
/// `producer.id.expiration.ms` says is forgotten, on compacted topics too.
#[test]
fn a_day_ahead_forgets_no_producer() {
    for compacted in [false, true] {
        let keep = TopicConfig { retention_ms: -1, compacted, delete: !compacted, ..TopicConfig::default() };
        let mut life = Life::with(keep);
        for _ in 0..3 {
            life.append();
            life.pass(MINUTE_MS);
        }
        life.world.jump_wall(24 * HOUR_MS);
        life.pass(5_000);
        assert_eq!(life.send(2).base_offset, Offset(2), "its last batch is a minute old");
        life.append();
        life.pass(2 * HOUR_MS - 5_000);
        assert_eq!(life.send(3).base_offset, Offset(3), "two hours are not over");
        life.pass(10_000);
        assert_eq!(life.send(3).base_offset, Offset(4), "silent for two hours, and forgotten");
    }
}

/// Whoever sends a batch again learns the timestamp that its original has, as from Kafka; no clock has a say in it.
#[test]
fn a_duplicate_is_answered_with_the_time_of_its_original() {
    let mut life = Life::of(TopicConfig::default());
    let sent_ms = life.io.wall_ms() - HOUR_MS;
    life.append_at(sent_ms);
    life.pass(MINUTE_MS);
    let again = life.send_at(0, sent_ms);
    assert_eq!((again.base_offset, again.log_append_ms), (Offset(0), Some(sent_ms)));
    let mut life = Life::begin();
    let stamp_ms = life.append();
    life.pass(MINUTE_MS);
    assert_eq!(life.send(0).log_append_ms, Some(stamp_ms), "stamped once");
}

/// On a full disk, say, where nobody wants to wait for the next look.
#[test]
fn a_lowered_retention_acts_at_once() {
    let mut life = Life::begin();
    for _ in 0..20 {
        life.append();
    }
    // A look has just been taken.
    life.pass(3_010);
    assert_eq!(life.log_start(), Offset(0));
    let (topic, spec) = orders(TopicConfig { retention_bytes: 16 << 10, ..TopicConfig::default() });
    life.log.upsert(&topic, &spec);
    life.pass(20);
    assert!(life.log_start() > Offset(0));
}
