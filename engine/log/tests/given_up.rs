//! Damage in acked groups of a core log costs the partitions whose batches it hit, and no others: a repair gives up what
//! cannot be read, and starts go on behind it.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Core, PARTITIONS, batch_of};
use proptest::prelude::*;
use ringmill_log::format::given_up::GIVEN_UP_NAME;
use ringmill_log::format::group::{GROUP_HEADER_BYTES, GroupHeader, decode_group, salvage_group};
use ringmill_log::inspect::repair::{self, Scope};
use ringmill_log::{LogOptions, RecoveryError};
use ringmill_reactor::stdfs::StdFs;
use ringmill_types::limits::PAGE_BYTES;
use std::path::Path;

/// What each partition has to serve: the marks of its batches, in order.
type Marks = Vec<Vec<u32>>;

fn options(data: &Path) -> LogOptions {
    LogOptions::new(ringmill_types::CoreId(0), data.to_path_buf())
}

fn open(data: &Path, life: u128) -> Result<Core, RecoveryError> {
    Core::try_open_with(64 << 20, options(data), life).map(|(core, _)| core)
}

/// Appends a batch to each of `to`, and waits until they are durable: a group of their own.
fn append(core: &mut Core, to: &[i32], mark: u32, marks: &mut Marks) {
    for partition in to {
        let wall_ms = ringmill_reactor::Backend::wall_ms(&core.io);
        core.append(*partition, &batch_of(2, &mark.to_be_bytes(), 900, wall_ms));
        marks[*partition as usize].push(mark);
    }
    core.settle();
}

fn served(core: &mut Core) -> Marks {
    let mark = |payload: Vec<u8>| u32::from_be_bytes(payload[..4].try_into().unwrap());
    (0..PARTITIONS).map(|partition| core.read_all(partition).into_iter().map(mark).collect()).collect()
}

/// Where groups lie in the ring's first file, by sequence.
fn groups(log: &[u8]) -> Vec<(usize, GroupHeader)> {
    let pages = (0..log.len()).step_by(PAGE_BYTES);
    let mut found: Vec<(usize, GroupHeader)> = pages
        .filter_map(|at| Some((at, GroupHeader::decode(&log[at..at + GROUP_HEADER_BYTES]).ok()?)))
        .filter(|(at, _)| decode_group(&log[*at..]).is_ok())
        .collect();
    found.sort_by_key(|(_, header)| header.sequence);
    found
}

fn repair(data: &Path) -> repair::Plan {
    let plan = repair::plan(&StdFs, data, &[data.join("core-0")], Scope::CoreLogs).unwrap();
    repair::apply(&StdFs, data, &plan, "label").unwrap();
    let again = repair::plan(&StdFs, data, &[data.join("core-0")], Scope::CoreLogs).unwrap();
    assert!(again.is_empty(), "{again}");
    plan
}

/// A life that appends a batch with mark `n` to the partitions in `appends[n]`, and ends without a stop.
fn life(data: &Path, appends: &[Vec<i32>]) -> Marks {
    let mut marks = vec![Vec::new(); PARTITIONS as usize];
    let mut core = open(data, 1).unwrap();
    for (mark, to) in (0..).zip(appends) {
        append(&mut core, to, mark, &mut marks);
    }
    marks
}

fn harm(data: &Path, change: impl FnOnce(&mut [u8])) {
    let path = data.join("core-0/000.log");
    let mut bytes = std::fs::read(&path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

/// Starts, kills and stops after a repair: every start serves the same, and what was appended since.
fn goes_on(data: &Path, mut marks: Marks) {
    for life in 2..5 {
        let mut core = open(data, life).unwrap();
        assert_eq!(served(&mut core), marks, "life {life}");
        append(&mut core, &[0, 1, 2], 1000 + life as u32, &mut marks);
        append(&mut core, &[1], 2000 + life as u32, &mut marks);
        assert_eq!(served(&mut core), marks, "life {life}");
    }
    let core = open(data, 5).unwrap();
    core.stop();
    let mut core = open(data, 6).unwrap();
    assert_eq!(served(&mut core), marks);
    assert!(!data.join("core-0").join(GIVEN_UP_NAME).exists(), "the checkpoint is past it");
}

#[test]
fn one_batch_that_cannot_be_read_costs_its_partition_alone() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path();
    let mut marks = life(data, &[vec![0, 1, 2], vec![0, 1, 2], vec![2], vec![1], vec![0]]);
    harm(data, |log| {
        let (at, header) = groups(log)[1];
        let group = decode_group(&log[at..at + header.total_bytes()]).unwrap();
        let lens: Vec<usize> = group.entries.iter().map(|entry| entry.len as usize).collect();
        log[at + GROUP_HEADER_BYTES + lens[0] + 100] ^= 1;
    });
    let refusal = open(data, 2).map(|_| ()).unwrap_err().to_string();
    assert!(refusal.contains("partitions: orders-1. Nothing was changed"), "{refusal}");
    let plan = repair(data);
    let lost: Vec<String> = plan.losses.iter().map(ToString::to_string).collect();
    let [only] = &lost[..] else { panic!("{lost:?}") };
    assert!(only.starts_with("orders-1 from offset 2: ") && only.ends_with("begins at 4"), "{only}");
    marks[1].truncate(1);
    goes_on(data, marks);
}

#[test]
fn a_group_without_its_header_costs_the_partitions_in_it() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path();
    let mut marks = life(data, &[vec![0, 1, 2], vec![0, 2], vec![1], vec![0], vec![1, 2], vec![1]]);
    harm(data, |log| {
        let at = groups(log)[1].0;
        log[at..at + PAGE_BYTES].fill(0);
    });
    let refusal = open(data, 2).map(|_| ()).unwrap_err().to_string();
    assert!(
        refusal.contains("partitions: orders-0, orders-2, and perhaps others of this core."),
        "{refusal}"
    );
    let plan = repair(data);
    let lost = plan.losses.iter().map(|loss| (loss.partition.as_deref(), loss.first)).collect::<Vec<_>>();
    assert_eq!(lost, [(Some("orders-0"), Some(2)), (Some("orders-2"), Some(2)), (None, None)]);
    marks[0].truncate(1);
    marks[2].truncate(1);
    goes_on(data, marks);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Bytes and pages of any groups but the last one: each partition keeps what came before its first batch that cannot
    /// be read, and one that lost none keeps all.
    #[test]
    fn partitions_keep_what_came_before_their_own_damage(
        appends in proptest::collection::vec(proptest::sample::subsequence(vec![0, 1, 2], 1..=3), 4..14),
        flips in proptest::collection::vec((0usize..13, any::<u16>()), 0..4),
        zeroed in proptest::collection::vec(0usize..13, 0..3),
    ) {
        let home = tempfile::tempdir().unwrap();
        let data = home.path();
        let mut marks = life(data, &appends);
        harm(data, |log| {
            let places = groups(log);
            // Those that say nothing of a partition are not counted here.
            let places: Vec<(usize, usize)> = places.iter()
                .map(|(at, header)| (*at, header.total_bytes()))
                .filter(|(at, bytes)| !decode_group(&log[*at..at + bytes]).unwrap().entries.is_empty())
                .collect();
            assert_eq!(places.len(), appends.len());
            for (group, place) in flips {
                let (at, bytes) = places[group % (places.len() - 1)];
                log[at + usize::from(place) % bytes] ^= 0x40;
            }
            for group in zeroed {
                let at = places[group % (places.len() - 1)].0;
                log[at..at + PAGE_BYTES].fill(0);
            }
            for (mark, (at, bytes)) in (0u32..).zip(&places) {
                let good = salvage_group(&log[*at..at + bytes]);
                for partition in &appends[mark as usize] {
                    let is_kept = good.as_ref().is_ok_and(|group| {
                        group.payloads().any(|(entry, _)| {
                            entry.kind.holds_batch() && entry.partition.0 == 10 + *partition as u64
                        })
                    });
                    if !is_kept {
                        let of_partition = &mut marks[*partition as usize];
                        of_partition.retain(|kept| *kept < mark);
                    }
                }
            }
        });
        if let Err(refusal) = open(data, 2) {
            prop_assert!(matches!(refusal, RecoveryError::Damaged { .. }), "{}", refusal);
            repair(data);
        }
        goes_on(data, marks);
    }
}
