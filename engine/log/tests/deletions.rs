//! Partitions that come and go: what they leave in memory, and that nothing of one reaches another.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Core, batch};
use ringmill_log::{AppendError, LogOptions, ReadError, ReadRequest, Slot};
use ringmill_reactor::Backend;
use ringmill_record::BatchHeader;
use ringmill_types::{
    CoreId, ErrorCode, LeaderEpoch, Offset, PartitionId, PartitionSpec, TopicConfig, TopicId, TopicSpec,
};
use std::path::Path;
use std::sync::Arc;

const ROUNDS: u64 = 300;

fn options(data: &Path) -> LogOptions {
    LogOptions { tail_bytes: 4 << 20, cache_bytes: 1 << 20, ..LogOptions::new(CoreId(0), data.to_path_buf()) }
}

/// A topic of one partition that has the name of all others before it.
fn passing(round: u64) -> TopicSpec {
    let mut id = [9; 16];
    id[..8].copy_from_slice(&round.to_be_bytes());
    TopicSpec {
        name: "passing".into(),
        id: TopicId(id),
        config: Arc::new(TopicConfig::default()),
        partitions: vec![PartitionSpec {
            index: 0,
            id: PartitionId(if round < ROUNDS { 1000 + round } else { 20 + round - ROUNDS }),
            owner: CoreId(0),
            leader_epoch: LeaderEpoch(0),
        }],
    }
}

/// Partitions that memory holds, and slots ever given, from the dump.
fn partitions(core: &Core) -> (usize, usize) {
    let text = core.log.describe();
    let (held, given) = text.rsplit_once("partitions ").unwrap().1.split_once(" of ").unwrap();
    (held.parse().unwrap(), given.parse().unwrap())
}

fn produce(core: &mut Core, slot: Slot) -> Result<(), AppendError> {
    let bytes = batch(1, 100, core.io.wall_ms());
    let header = BatchHeader::parse(&bytes).unwrap();
    let wall_ms = core.io.wall_ms();
    core.log.append(&mut core.io, slot, &header, &bytes, wall_ms).map(drop)
}

#[test]
fn what_comes_and_goes_leaves_a_place_and_its_slot_is_nobody_elses() {
    let home = tempfile::tempdir().unwrap();
    let (mut core, _) = Core::open_with(32 << 20, options(home.path()), 1);
    let (before, _) = partitions(&core);
    let mut gone = Vec::new();
    for round in 0..ROUNDS {
        let topic = passing(round);
        let slot = core.log.upsert(&topic, &topic.partitions[0]);
        assert!(!gone.contains(&slot), "a slot is given once");
        produce(&mut core, slot).unwrap();
        if round % 3 == 0 {
            // Some are deleted with records that are still on their way.
            core.settle();
        }
        assert!(core.log.delete(&mut core.io, topic.partitions[0].id));
        gone.push(slot);
        core.turn();
    }
    let lasting = core.slot(0);
    produce(&mut core, lasting).unwrap();
    core.settle();
    while partitions(&core).0 > before {
        core.turn();
    }
    assert_eq!(partitions(&core).1, before + ROUNDS as usize);
    for slot in gone {
        assert!(core.log.view(slot).is_none());
        let refused = AppendError::Refused(ErrorCode::UnknownTopicOrPartition, "");
        assert_eq!(produce(&mut core, slot), Err(refused));
        let request =
            ReadRequest { slot, offset: Offset(0), max_bytes: 1 << 20, at_least_one: true, ticket: 1 };
        assert_eq!(core.log.read(&mut core.io, request).err(), Some(ReadError::Unknown));
    }
    assert_eq!(core.read_all(0).len(), 1);
    core.stop();

    // A kill in the middle: the next start finishes what was begun, and keeps no more either.
    let (mut core, report) = Core::open_with(32 << 20, options(home.path()), 2);
    assert!(report.clean);
    for round in ROUNDS..ROUNDS + 20 {
        let topic = passing(round);
        let slot = core.log.upsert(&topic, &topic.partitions[0]);
        produce(&mut core, slot).unwrap();
        core.settle();
        assert!(core.log.delete(&mut core.io, topic.partitions[0].id));
    }
    let lasting = core.slot(0);
    produce(&mut core, lasting).unwrap();
    core.settle();
    drop(core);
    let (mut core, _) = Core::open_with(32 << 20, options(home.path()), 3);
    while partitions(&core).0 > before {
        core.turn();
    }
    assert_eq!(core.read_all(0).len(), 2);
    core.stop();
}
