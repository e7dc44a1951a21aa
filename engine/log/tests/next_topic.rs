//! A topic is deleted and made again while the core of the old partition has not heard of it: what the new one has on disk
//! stays, in that life and at the next start.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Core, batch};
use ringmill_log::adopt::{METADATA_NAME, partition_metadata_text};
use ringmill_log::folder::FolderNames;
use ringmill_log::inspect::repair::{self, Scope};
use ringmill_log::{LogOptions, RecoveryReport};
use ringmill_reactor::Backend;
use ringmill_reactor::stdfs::StdFs;
use ringmill_types::{CoreId, LeaderEpoch, PartitionId, PartitionSpec, TopicConfig, TopicId, TopicSpec};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const OLD: PartitionId = PartitionId(50);
const NEW: PartitionId = PartitionId(60);

fn topic(id: PartitionId, core: u16) -> TopicSpec {
    TopicSpec {
        name: "late".into(),
        id: TopicId([id.0 as u8; 16]),
        config: Arc::new(TopicConfig::default()),
        partitions: vec![PartitionSpec { index: 0, id, owner: CoreId(core), leader_epoch: LeaderEpoch(0) }],
    }
}

fn folder(data: &Path) -> PathBuf {
    data.join("topics/late-0")
}

/// What is in the folder, but for its name.
fn files(data: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = std::fs::read_dir(folder(data)).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.clone(), std::fs::read(&path).unwrap())).collect()
}

fn open(data: &Path, core: u16, names: &FolderNames, topics: &[TopicSpec]) -> (Core, RecoveryReport) {
    let mut options = LogOptions::new(CoreId(core), data.to_path_buf());
    options.folder_names = names.clone();
    Core::try_open_topics(128 << 20, options, topics, u128::from(core) + 1).unwrap()
}

fn append(core: &mut Core, id: PartitionId, bytes: usize) {
    let batch = batch(1, bytes, core.io.wall_ms());
    core.append_to(core.log.slot_of(id).unwrap(), &batch);
}

fn stop(mut core: Core) {
    core.log.stop();
    let until_ns = core.io.now_ns() + 10_000_000_000;
    while !core.log.is_stopped() {
        core.turn();
        assert!(core.io.now_ns() < until_ns, "a stop does not end: {}", core.log.describe());
    }
}

/// Both have records that only their core logs hold; the old one's core stops first, so the new one has the folder then.
fn succeed(data: &Path, names: &FolderNames) {
    let (mut old, _) = open(data, 0, names, &[topic(OLD, 0)]);
    let (mut new, _) = open(data, 1, names, &[topic(OLD, 0)]);
    let next = topic(NEW, 1);
    new.log.upsert(&next, &next.partitions[0]);
    append(&mut old, OLD, 300);
    for _ in 0..20 {
        append(&mut new, NEW, 1000);
    }
    stop(old);
    stop(new);
}

#[test]
fn an_empty_folder_that_was_adopted_is_its_partitions_until_that_one_goes() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path();
    std::fs::create_dir_all(folder(data)).unwrap();
    let of_old = partition_metadata_text(topic(OLD, 0).id);
    std::fs::write(folder(data).join(METADATA_NAME), &of_old).unwrap();
    std::fs::write(folder(data).join("00000000000000000000.log"), b"").unwrap();
    let names = FolderNames::default();
    let (mut old, report) = open(data, 0, &names, &[topic(OLD, 0)]);
    assert_eq!(report.adopted, 1);
    let (mut new, _) = open(data, 1, &names, &[topic(OLD, 0)]);
    let next = topic(NEW, 1);
    new.log.upsert(&next, &next.partitions[0]);
    append(&mut old, OLD, 300);
    append(&mut new, NEW, 1000);
    // The new one would have it all in its segment, if it could.
    new.log.stop();
    for _ in 0..20 {
        new.turn();
        old.turn();
    }
    assert!(!new.log.is_stopped());
    assert_eq!(std::fs::read_to_string(folder(data).join(METADATA_NAME)).unwrap(), of_old);
    stop(old);
    stop(new);
    let of_new = partition_metadata_text(next.id);
    assert_eq!(std::fs::read_to_string(folder(data).join(METADATA_NAME)).unwrap(), of_new);
}

/// The old one's last checkpoint names it, and the record of its compaction is there still.
#[test]
fn a_compaction_of_before_is_not_finished_in_the_next_topics_folder() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path();
    succeed(data, &FolderNames::default());
    let body = format!("partition {}\ngroup 0\n", OLD.0);
    let record = format!("ringmill-swap 1 {}\n{body}", crc32c::crc32c(body.as_bytes()));
    std::fs::write(data.join("core-0/swap"), record).unwrap();
    let before = files(data);
    assert!(before.values().any(|bytes| bytes.len() > 20_000), "the new one has its records there");
    let plan = repair::plan(&StdFs, data, &[data.join("core-0")], Scope::Everything).unwrap();
    assert!(plan.is_empty(), "{plan}");
    let names = FolderNames::default();
    stop(open(data, 0, &names, &[topic(NEW, 1)]).0);
    assert!(!data.join("core-0/swap").exists());
    assert_eq!(files(data), before);
    // Nor does the folder go with the old one.
    let (mut old, _) = open(data, 0, &names, &[topic(NEW, 1)]);
    old.turn();
    stop(old);
    assert_eq!(files(data), before);
}
