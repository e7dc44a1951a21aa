//! `meta/journal` as it lies on disks: `tests/golden/journal-v1.bin`, a record of every kind. `RINGMILL_BLESS=1` writes it anew,
//! for a new version of the format only: a kind that is new goes to a file of its own, so that this one stays what it was.
#![allow(clippy::unwrap_used)]

use ringmill_metadata::journal::{JOURNAL_DIR, JOURNAL_NAME, frames};
use ringmill_metadata::records::{Configs, Limit, QuotaEntity, Quotas};
use ringmill_metadata::{FileJournal, Image, Journal as _, PartitionRecord, Record};
use ringmill_reactor::stdfs::StdFs;
use ringmill_types::{CoreId, LeaderEpoch, PartitionId, TopicId};
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/journal-v1.bin")
}

fn journal_of(data: &Path) -> PathBuf {
    data.join(JOURNAL_DIR).join(JOURNAL_NAME)
}

fn configs(pairs: &[(&str, &str)]) -> Configs {
    pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

fn partition(id: u64, core: u16, epoch: i32) -> PartitionRecord {
    PartitionRecord { id: PartitionId(id), core: CoreId(core), epoch: LeaderEpoch(epoch) }
}

/// What is appended at once.
fn appends() -> Vec<Vec<Record>> {
    let [orders, gone] = [TopicId(*b"0123456789abcdef"), TopicId([0xfe; 16])];
    let entity: QuotaEntity =
        [("user".to_string(), None), ("client-id".to_string(), Some("zähler".to_string()))].into();
    let quotas: Quotas = [("producer_byte_rate".to_string(), Limit::from(1024.5))].into();
    vec![
        vec![
            Record::TopicCreated {
                name: "orders".into(),
                id: orders,
                created_ms: 1_700_000_000_123,
                configs: configs(&[("cleanup.policy", "compact"), ("retention.ms", "-1")]),
                partitions: vec![partition(11, 0, 0), partition(12, 65_535, i32::MAX)],
            },
            Record::TopicCreated {
                name: "gone".into(),
                id: gone,
                created_ms: -1,
                configs: Configs::new(),
                partitions: Vec::new(),
            },
        ],
        vec![Record::PartitionsAdded { id: orders, partitions: vec![partition(u64::MAX - 1, 1, 4)] }],
        vec![
            Record::TopicDeleted { id: gone },
            Record::TopicConfigs { id: orders, configs: configs(&[("max.message.bytes", "2000000")]) },
            Record::ResourceConfigs {
                kind: 4,
                name: "1".into(),
                configs: configs(&[("log.cleaner.threads", "2")]),
            },
        ],
        vec![Record::ClientQuotas { entity, quotas }],
        vec![Record::Feature { name: "group.version".into(), level: 1, epoch: 7 }],
        vec![Record::ProducerIds { next: 2000 }, Record::PartitionIds { next: u64::MAX }],
        vec![Record::Placed { moves: vec![(PartitionId(11), CoreId(3)), (PartitionId(12), CoreId(0))] }],
    ]
}

/// As it stands in the first byte of a payload. Without an arm for the rest, so that a new kind is thought of here.
fn number(record: &Record) -> u8 {
    match record {
        Record::TopicCreated { .. } => 1,
        Record::PartitionsAdded { .. } => 2,
        Record::TopicDeleted { .. } => 3,
        Record::TopicConfigs { .. } => 4,
        Record::ProducerIds { .. } => 6,
        Record::PartitionIds { .. } => 7,
        Record::Placed { .. } => 8,
        Record::ResourceConfigs { .. } => 9,
        Record::ClientQuotas { .. } => 10,
        Record::Feature { .. } => 11,
    }
}

#[test]
fn what_is_appended_are_the_bytes_of_the_golden_file() {
    let data = tempfile::tempdir().unwrap();
    let (mut journal, _) = FileJournal::open(Arc::new(StdFs), data.path()).unwrap();
    for records in appends() {
        journal.append(&records).unwrap();
    }
    let written = std::fs::read(journal_of(data.path())).unwrap();
    if std::env::var_os("RINGMILL_BLESS").is_some() {
        std::fs::write(golden(), &written).unwrap();
    }
    let golden = std::fs::read(golden()).unwrap();
    let differs = golden.iter().zip(&written).position(|(a, b)| a != b);
    assert!(
        golden == written,
        "{} bytes, now {}; first difference at {differs:?}",
        golden.len(),
        written.len()
    );
}

#[test]
fn the_golden_file_is_read_as_what_was_appended() {
    let records: Vec<Record> = appends().concat();
    let bytes = std::fs::read(golden()).unwrap();
    let found: Vec<Record> = frames(&bytes).map(|frame| frame.holds.unwrap()).collect();
    assert_eq!(found, records);
    let mut numbers: Vec<u8> = frames(&bytes).filter_map(|frame| bytes.get(frame.at + 8).copied()).collect();
    assert_eq!(numbers, records.iter().map(number).collect::<Vec<u8>>());
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers, [1, 2, 3, 4, 6, 7, 8, 9, 10, 11], "every kind");

    // As a start reads it: the same image, and no byte of it is changed.
    let data = tempfile::tempdir().unwrap();
    std::fs::create_dir(data.path().join(JOURNAL_DIR)).unwrap();
    std::fs::write(journal_of(data.path()), &bytes).unwrap();
    let (_, image) = FileJournal::open(Arc::new(StdFs), data.path()).unwrap();
    let mut applied = Image::new();
    records.iter().for_each(|record| applied.apply(record));
    assert_eq!(image, applied);
    assert_eq!(std::fs::read(journal_of(data.path())).unwrap(), bytes);
}
