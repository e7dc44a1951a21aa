//! `__consumer_offsets` is compacted like any other topic while groups commit, with kill -9 in the middle of everything:
//! every start knows the newest acked commit of every group, and what was deleted stays deleted when its markers have
//! gone too. `RINGMILL_KEEP=DIR` leaves the folder for `kafka.sh run kafka.tools.DumpLogSegments --offsets-decoder`.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

#[allow(dead_code, reason = "each test binary uses a part of it")]
mod common;

use common::{Broker, Client, NONE, data_folder};
use kafka_wire::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_wire::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_wire::{
    DeleteGroupsRequest, DeleteGroupsResponse, OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest,
    OffsetFetchResponse,
};
use kafka_wire_core::StrBytes;
use ringmill_record::{Batches, Records};
use std::collections::BTreeSet;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const TOPIC: &str = "read";
const OFFSETS_TOPIC: &str = "__consumer_offsets";
const OFFSETS_PARTITIONS: i32 = 2;
/// Of the topic: so many offsets go into one commit.
const PARTITIONS: i32 = 100;
const GROUPS: usize = 6;
const COORDINATOR_LOAD_IN_PROGRESS: i16 = 14;
const COORDINATOR_NOT_AVAILABLE: i16 = 15;
const NOT_COORDINATOR: i16 = 16;
const REBALANCE_IN_PROGRESS: i16 = 27;
const SETTINGS: &[&str] = &[
    "--set",
    "offsets.topic.num.partitions=2",
    "--set",
    "tail.bytes=8MiB",
    "--set",
    "log.cleaner.backoff.ms=50",
];
/// Segments as small as Kafka allows, and passes as soon as they can be.
const CONFIGS: &[(&str, &str)] = &[
    ("cleanup.policy", "compact"),
    ("segment.bytes", "1048576"),
    ("min.cleanable.dirty.ratio", "0.01"),
    ("delete.retention.ms", "0"),
];

fn group(number: usize) -> String {
    format!("group-{number}")
}

/// Commits `n` for every partition, as somebody who is no member; the first error.
fn commit(client: &mut Client, number: usize, n: i64) -> io::Result<i16> {
    let partitions = (0..PARTITIONS).map(|index| {
        let mut one = OffsetCommitRequestPartition::default();
        one.partition_index = index;
        one.committed_offset = n;
        one.committed_metadata = Some(StrBytes::from(format!("{n} of {index}, {}", "x".repeat(100))));
        one
    });
    let mut topic = OffsetCommitRequestTopic::default();
    topic.name = StrBytes::from(TOPIC);
    topic.partitions = partitions.collect();
    let mut request = OffsetCommitRequest::default();
    request.group_id = StrBytes::from(group(number));
    request.generation_id_or_member_epoch = -1;
    request.topics = vec![topic];
    let answer: OffsetCommitResponse = client.call(&request, 7)?;
    let codes = answer.topics[0].partitions.iter().map(|p| p.error_code);
    Ok(codes.clone().find(|code| *code != NONE).unwrap_or(NONE))
}

/// The different offsets that the group has for its partitions; -1: none.
fn fetch(client: &mut Client, number: usize) -> io::Result<Result<BTreeSet<i64>, i16>> {
    let mut topic = OffsetFetchRequestTopic::default();
    topic.name = StrBytes::from(TOPIC);
    topic.partition_indexes = (0..PARTITIONS).collect();
    let mut request = OffsetFetchRequest::default();
    request.group_id = StrBytes::from(group(number));
    request.topics = Some(vec![topic]);
    let answer: OffsetFetchResponse = client.call(&request, 5)?;
    if answer.error_code != NONE {
        return Ok(Err(answer.error_code));
    }
    assert_eq!(answer.topics[0].partitions.len(), PARTITIONS as usize);
    Ok(Ok(answer.topics[0].partitions.iter().map(|p| p.committed_offset).collect()))
}

/// What the group has, once its coordinator has read it.
#[track_caller]
fn known(client: &mut Client, number: usize) -> BTreeSet<i64> {
    let begun = Instant::now();
    loop {
        match fetch(client, number).unwrap() {
            Ok(offsets) => return offsets,
            Err(code) => assert_eq!(code, COORDINATOR_LOAD_IN_PROGRESS),
        }
        assert!(begun.elapsed() < common::PATIENCE, "groups are not read");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What a group's committer was told, and what it tried.
#[derive(Clone, Copy, Default)]
struct Told {
    acked: i64,
    tried: i64,
}

/// Commits 1, 2, 3 … through any number of crashes.
fn committer(number: usize, address: &Mutex<String>, stop: &AtomicBool) -> Told {
    let (mut told, mut client) = (Told::default(), None::<Client>);
    while !stop.load(Ordering::Relaxed) {
        let Some(connected) = client.as_mut() else {
            client = Client::connect(&address.lock().unwrap().clone()).ok();
            std::thread::sleep(Duration::from_millis(2));
            continue;
        };
        told.tried = told.acked + 1;
        match commit(connected, number, told.tried) {
            Ok(NONE) => told.acked = told.tried,
            Ok(
                COORDINATOR_LOAD_IN_PROGRESS
                | COORDINATOR_NOT_AVAILABLE
                | NOT_COORDINATOR
                | REBALANCE_IN_PROGRESS
                | common::UNKNOWN_TOPIC_OR_PARTITION,
            ) => std::thread::sleep(Duration::from_millis(5)),
            Ok(code) => panic!("error {code} at {} of {}", told.tried, group(number)),
            Err(_) => client = None,
        }
    }
    told
}

/// Records of the topic itself, and how many of them are about the group with this number.
fn stored(client: &mut Client, about: usize) -> (u64, u64) {
    let (mut all, mut about_it, name) = (0, 0, group(about).into_bytes());
    for partition in 0..OFFSETS_PARTITIONS {
        let mut offset = 0;
        loop {
            let got = client.fetch(OFFSETS_TOPIC, partition, offset, 4 << 20).unwrap();
            assert_eq!(got.error_code, NONE, "at {offset}");
            let Some(bytes) = got.records.as_ref().filter(|bytes| !bytes.is_empty()) else { break };
            for (header, bytes) in Batches::new(bytes) {
                assert!(header.next_offset().0 > offset, "a reader goes on");
                for record in Records::new(&header, bytes).unwrap().map(Result::unwrap) {
                    let key = record.key.unwrap();
                    all += 1;
                    about_it += u64::from(key.windows(name.len()).any(|part| part == name));
                }
                offset = header.next_offset().0;
            }
        }
    }
    (all, about_it)
}

/// Until so few records are there, with commits going on so that segments are sealed.
fn wait_for_compaction(
    broker: &Broker,
    about: usize,
    enough: impl Fn((u64, u64)) -> bool,
    told: &mut [Told],
) {
    let begun = Instant::now();
    let mut client = broker.client();
    loop {
        let found = stored(&mut client, about);
        if enough(found) {
            return;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(90),
            "{found:?} records are there still\n{}",
            broker.said()
        );
        for (number, told) in told.iter_mut().enumerate().filter(|(number, _)| *number != about) {
            told.tried = told.acked + 1;
            assert_eq!(commit(&mut client, number, told.tried).unwrap(), NONE);
            told.acked = told.tried;
        }
    }
}

#[test]
fn groups_survive_kill_nine_while_their_topic_is_compacted() {
    let dir = tempfile::tempdir().unwrap();
    let data = data_folder(&dir);
    let mut broker = Broker::start(&data, SETTINGS);
    assert_eq!(broker.client().create(TOPIC, PARTITIONS, &[]).unwrap(), NONE);
    assert_eq!(broker.client().create(OFFSETS_TOPIC, OFFSETS_PARTITIONS, CONFIGS).unwrap(), NONE);
    let (address, stop) = (Mutex::new(broker.address.clone()), AtomicBool::new(false));
    let mut told: Vec<Told> = std::thread::scope(|scope| {
        let start = |number| {
            scope.spawn({
                let (address, stop) = (&address, &stop);
                move || committer(number, address, stop)
            })
        };
        let committers: Vec<_> = (0..GROUPS).map(start).collect();
        broker.live_through_kills(6, &data, SETTINGS, &address);
        std::thread::sleep(Duration::from_millis(300));
        stop.store(true, Ordering::Relaxed);
        committers.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let records: u64 = told.iter().map(|told| told.acked as u64 * PARTITIONS as u64).sum();
    let check = |broker: &Broker, told: &[Told]| {
        let mut client = broker.client();
        for (number, told) in told.iter().enumerate() {
            let found = known(&mut client, number);
            // One commit is one batch: all of it is there, or nothing.
            let [offset] = found.iter().copied().collect::<Vec<_>>()[..] else { panic!("{found:?}") };
            assert!(
                (told.acked..=told.tried).contains(&offset),
                "{}: {offset}, {} was acked",
                group(number),
                told.acked
            );
        }
    };
    check(&broker, &told);
    assert!(told.iter().all(|told| told.acked > 10), "each group committed");
    // Of each key one record has to stay, and the active segments hold what they hold.
    wait_for_compaction(&broker, 0, |(all, _)| all < records / 2, &mut told);
    assert!(broker.metric("ringmill_compactions_total") > 0.0);
    broker.kill();
    broker = Broker::start(&data, SETTINGS);
    check(&broker, &told);
    // A group that is deleted leaves markers; then they go as well.
    let deleted = GROUPS - 1;
    let mut request = DeleteGroupsRequest::default();
    request.groups_names = vec![StrBytes::from(group(deleted))];
    let answer: DeleteGroupsResponse = broker.client().call(&request, 1).unwrap();
    assert_eq!(answer.results[0].error_code, NONE);
    wait_for_compaction(&broker, deleted, |(_, of_deleted)| of_deleted == 0, &mut told);
    for clean in [true, false] {
        if clean {
            assert_eq!(broker.stop().code(), Some(0));
        } else {
            broker.kill();
        }
        broker = Broker::start(&data, SETTINGS);
        assert_eq!(known(&mut broker.client(), deleted), BTreeSet::from([-1]), "it stays deleted");
        check(&broker, &told[..deleted]);
    }
    assert_eq!(broker.stop().code(), Some(0));
}
