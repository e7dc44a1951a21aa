#![allow(clippy::unwrap_used)]

use super::repair::{self, Action, Scope};
use super::*;
use crate::format::checkpoint::{self, Checkpoint, PartitionState, SegmentState};
use crate::format::group::{EntryKind, GROUP_HEADER_BYTES, GroupHeader, decode_group};
use crate::testing::{BatchSpec, FuseFs, golden, golden_copy, group_of};
use proptest::prelude::*;
use ringmill_reactor::OpenMode;
use ringmill_reactor::stdfs::StdFs;
use ringmill_types::{CoreId, GroupSeq, PartitionId};

const FILE_BYTES: u64 = 16 * 4096;
const LIFE: u128 = 0xfeed;

#[test]
fn a_recycled_file_tells_its_newest_groups() {
    let mut report = Report::new(Path::new("003.log"), FileKind::CoreLogFile);
    [28, 29, 5, 6].into_iter().for_each(|sequence| report.saw(sequence, sequence));
    assert!(report.to_string().contains("4 groups, the newest 28..=29,"), "{report}");
    report.rows = 1;
    assert!(report.to_string().contains("1 group 28..=29, "), "{report}");
}

/// A data folder with one core, two ring files, one partition `t-0` of id 5 whose segments end at offset 0.
pub(super) struct Home {
    pub(super) dir: tempfile::TempDir,
    prev_header_crc: u32,
    file: u32,
    position: u64,
    sequence: u64,
    offset: i64,
}

impl Home {
    pub(super) fn new() -> Home {
        let home = Home {
            dir: tempfile::tempdir().unwrap(),
            prev_header_crc: 0,
            file: 0,
            position: 0,
            sequence: 1,
            offset: 0,
        };
        StdFs.create_dir_all(&home.core()).unwrap();
        for file in 0..2 {
            let handle = StdFs.open(&home.log(file), OpenMode::Create).unwrap();
            StdFs.set_len(&handle, FILE_BYTES).unwrap();
        }
        home.checkpoint(|_| {});
        home
    }

    pub(super) fn core(&self) -> PathBuf {
        self.dir.path().join("core-0")
    }

    fn log(&self, file: u32) -> PathBuf {
        self.core().join(format!("{file:03}.log"))
    }

    pub(super) fn checkpoint(&self, change: impl FnOnce(&mut Checkpoint)) {
        let newest = checkpoint::read_newest(&StdFs, &self.core()).unwrap();
        let mut next = newest.unwrap_or_else(|| Checkpoint {
            lives: vec![(LIFE, 1)],
            next_group: 1,
            partitions: vec![PartitionState { id: 5, topic: "t".to_string(), ..PartitionState::default() }],
            ..Checkpoint::default()
        });
        next.sequence += 1;
        change(&mut next);
        checkpoint::write_slot(&StdFs, &self.core(), &next).unwrap();
    }

    /// Appends a group with one batch of `records` for `t-0`, and says where it went.
    fn group(&mut self, records: i32, payload_bytes: usize) -> (u32, u64) {
        let spec = BatchSpec { base_offset: self.offset, records, payload_bytes, ..BatchSpec::default() };
        let place = self.append(5, EntryKind::Batch, spec.bytes(), self.offset);
        self.offset += i64::from(records);
        place
    }

    /// Appends a group with one entry, and says where it went.
    pub(super) fn append(&mut self, id: u64, kind: EntryKind, content: Vec<u8>, arg: i64) -> (u32, u64) {
        let header = GroupHeader {
            incarnation: LIFE,
            sequence: GroupSeq(self.sequence),
            durable: GroupSeq(self.sequence - 1),
            prev_header_crc: self.prev_header_crc,
            entry_count: 0,
            payload_bytes: 0,
            table_crc: 0,
        };
        let bytes = group_of(header, &[(id, kind, content, arg)]);
        if self.position + bytes.len() as u64 > FILE_BYTES {
            (self.file, self.position) = (self.file + 1, 0);
        }
        let place = (self.file, self.position);
        self.write(self.file, self.position, &bytes);
        self.prev_header_crc = GroupHeader::own_crc(bytes[..GROUP_HEADER_BYTES].try_into().unwrap());
        self.position += bytes.len() as u64;
        self.sequence += 1;
        place
    }

    fn write(&self, file: u32, position: u64, bytes: &[u8]) {
        let handle = StdFs.open(&self.log(file), OpenMode::Write).unwrap();
        StdFs.write_at(&handle, bytes, position).unwrap();
    }

    fn chain(&self) -> Chain {
        let start = checkpoint::read_newest(&StdFs, &self.core()).unwrap().unwrap();
        walk_chain(&StdFs, &self.core(), &start).unwrap()
    }

    fn plan(&self) -> repair::Plan {
        let cores = repair::core_dirs(&StdFs, self.dir.path()).unwrap();
        repair::plan(&StdFs, self.dir.path(), &cores, Scope::Everything).unwrap()
    }

    fn repair(&self) -> Vec<PathBuf> {
        repair::apply(&StdFs, self.dir.path(), &self.plan(), "2026-11-21").unwrap()
    }
}

fn rows_of(path: &Path) -> (Vec<Row>, Vec<Report>) {
    let mut rows = Vec::new();
    let reports = dump(&StdFs, path, &mut |row| rows.push(row.clone())).unwrap();
    (rows, reports)
}

#[test]
fn kafkas_folder_verifies_and_dumps() {
    let (rows, reports) = rows_of(&golden("kafka-4.3.1/plain-0"));
    for report in &reports {
        assert!(report.is_sound() && report.findings.is_empty(), "{report}");
    }
    let batches: Vec<&BatchRow> =
        rows.iter().filter_map(|r| if let Row::Batch(b) = r { Some(b) } else { None }).collect();
    assert_eq!(batches.len(), 60);
    let codecs: std::collections::BTreeSet<&str> = batches.iter().map(|b| b.compression).collect();
    assert_eq!(codecs.into_iter().collect::<Vec<_>>(), ["gzip", "lz4", "none", "snappy", "zstd"]);
    let kinds: Vec<FileKind> = reports.iter().map(|r| r.kind).collect();
    for kind in [
        FileKind::Segment,
        FileKind::OffsetIndex,
        FileKind::TimeIndex,
        FileKind::PartitionMetadata,
        FileKind::LeaderEpochs,
    ] {
        assert!(kinds.contains(&kind), "{kind:?}");
    }
    let text = serde_json::to_string(&rows).unwrap();
    assert!(text.contains(r#""row":"batch""#) && text.contains(r#""topic_id":"R8DAjPLHRqmGXFEs1unP6A""#));
}

#[test]
fn damage_in_kafkas_files_is_found_where_it_is() {
    let (_home, dir) = golden_copy("kafka-4.3.1/plain-0");
    let harm = |name: &str, position: u64, byte: u8| {
        let file = StdFs.open(&dir.join(name), OpenMode::Write).unwrap();
        StdFs.write_at(&file, &[byte], position).unwrap();
    };
    let damaged = || -> Vec<PathBuf> {
        let reports = verify(&StdFs, &dir).unwrap();
        reports
            .into_iter()
            .filter(|r| !r.is_sound())
            .map(|r| r.path.strip_prefix(&dir).unwrap().to_path_buf())
            .collect()
    };
    assert!(damaged().is_empty());
    harm("00000000000000000165.index", 3, 9);
    assert_eq!(damaged(), [Path::new("00000000000000000165.index")]);
    harm("00000000000000000165.timeindex", 7, 9);
    assert_eq!(damaged().len(), 2);
    harm("partition.metadata", 9, b'7');
    harm("leader-epoch-checkpoint", 0, b'7');
    assert_eq!(damaged().len(), 4);
    harm("00000000000000000003.log", 3000, 0xa5);
    let reports = verify(&StdFs, &dir.join("00000000000000000003.log")).unwrap();
    let text = reports.first().unwrap().to_string();
    assert!(text.contains("are lost") && text.contains("good batches follow"), "{text}");
}

#[test]
fn core_files_dump_and_verify() {
    let mut home = Home::new();
    for _ in 0..3 {
        home.group(2, 100);
    }
    let (rows, reports) = rows_of(home.dir.path());
    assert!(reports.iter().all(Report::is_sound), "{reports:?}");
    let groups: Vec<u64> =
        rows.iter().filter_map(|r| if let Row::Group(g) = r { Some(g.sequence) } else { None }).collect();
    assert_eq!(groups, [1, 2, 3]);
    assert_eq!(rows.iter().filter(|r| matches!(r, Row::Entry(e) if e.partition == 5)).count(), 3);
    assert!(rows.iter().any(|r| matches!(r, Row::Partition(p) if p.topic == "t")));
    let chain = reports.iter().find(|r| r.kind == FileKind::CoreLogChain).unwrap();
    assert_eq!((chain.rows, chain.first, chain.last), (3, Some(1), Some(3)));
}

#[test]
fn a_torn_last_group_is_no_hole() {
    let mut home = Home::new();
    home.group(1, 100);
    let (file, position) = home.group(1, 100);
    home.write(file, position + 200, &[0xaa]);
    let chain = home.chain();
    assert_eq!((chain.groups.len(), chain.next_sequence, chain.holes), (1, 2, vec![]));
    assert!(home.plan().is_empty());
}

#[test]
fn a_damaged_acked_group_is_a_hole_that_repair_closes() {
    let mut home = Home::new();
    home.group(10, 100);
    let (file, position) = home.group(20, 5000);
    for _ in 0..20 {
        home.group(1, 100);
    }
    assert_eq!(home.file, 1, "the ring went on in its second file");
    home.write(file, position + 1000, &[0xaa, 0xbb]);
    let holes = home.chain().holes;
    let [hole] = &holes[..] else { panic!("{holes:?}") };
    assert_eq!((hole.sequence, hole.durable, hole.position), (GroupSeq(2), GroupSeq(21), position));
    assert_eq!(hole.damaged.as_ref().unwrap().len(), 1, "its table is intact");
    let report = verify(&StdFs, &home.core()).unwrap().pop().unwrap();
    assert!(!report.is_sound() && report.to_string().contains("t-0"), "{report}");

    let plan = home.plan();
    assert_eq!(plan.losses.len(), 1);
    let loss = plan.losses.first().unwrap();
    assert_eq!((loss.partition.as_deref(), loss.first, loss.end), (Some("t-0"), Some(10), None));
    let originals: Vec<Vec<u8>> = (0..2).map(|f| StdFs.read_all(&home.log(f)).unwrap()).collect();
    let kept = home.repair();
    let copies: Vec<Vec<u8>> = kept.iter().map(|p| StdFs.read_all(p).unwrap()).collect();
    assert_eq!(copies, originals, "both originals are set aside");

    assert!(home.plan().is_empty(), "{}", home.plan());
    assert!(home.chain().holes[0].is_given_up);
    let reports = verify(&StdFs, &home.core()).unwrap();
    assert!(reports.iter().all(Report::is_sound), "{reports:?}");
    let told = reports.last().unwrap().to_string();
    assert!(told.contains("groups 2..3 were given up by a repair"), "{told}");
}

#[test]
fn a_repair_of_the_newest_group_that_was_cut_off_is_planned_again() {
    let mut home = Home::new();
    home.group(10, 100);
    let (file, position) = home.group(20, 5000);
    home.write(file, position + 1000, &[0xaa, 0xbb]);
    assert!(home.plan().is_empty(), "it was not acked");
    home.checkpoint(|c| c.durable_group = 2);
    let whole = home.plan();
    let [Action::LowerDurable { durable: 1, .. }, Action::CutFile { .. }] = &whole.actions[..] else {
        panic!("nothing follows that the chain could go on with: {whole}")
    };
    let first = repair::Plan { actions: whole.actions[..1].to_vec(), ..repair::Plan::default() };
    repair::apply(&StdFs, home.dir.path(), &first, "cut").unwrap();
    home.repair();
    assert!(home.plan().is_empty(), "{}", home.plan());
    assert_eq!(home.chain().groups.len(), 1);
}

#[test]
fn a_missing_ring_file_is_said_and_made_anew() {
    let mut home = Home::new();
    for _ in 0..18 {
        home.group(1, 100);
    }
    StdFs.remove_file(&home.log(0)).unwrap();
    let report = verify(&StdFs, &home.core()).unwrap().pop().unwrap();
    assert!(report.to_string().contains("000.log is missing"), "{report}");
    let plan = home.plan();
    assert!(plan.actions.iter().any(|a| matches!(a, Action::MakeLogFile { file_bytes: FILE_BYTES, .. })));
    assert!(plan.losses.iter().any(|l| l.partition.as_deref() == Some("t-0") && l.first == Some(0)));
    assert!(plan.losses.iter().any(|l| l.partition.is_none()));
    home.repair();
    assert!(home.plan().is_empty(), "{}", home.plan());
}

#[test]
fn stale_groups_of_an_earlier_life_prove_nothing() {
    let mut home = Home::new();
    for _ in 0..4 {
        home.group(1, 100);
    }
    // A new life began after group 2; groups 3 and 4 of the old one still lie there.
    home.checkpoint(|c| c.lives.push((0xbeef, 3)));
    let chain = home.chain();
    assert_eq!((chain.next_sequence, chain.holes), (3, vec![]));
}

#[test]
fn a_damaged_sealed_segment_keeps_its_good_batches() {
    let home = Home::new();
    let dir = home.dir.path().join("topics/t-0");
    StdFs.create_dir_all(&dir).unwrap();
    let batch = |base_offset| {
        BatchSpec { base_offset, records: 5, payload_bytes: 300, ..BatchSpec::default() }.bytes()
    };
    let good: Vec<u8> = (0..40).flat_map(|i| batch(i * 5)).collect();
    let mut bad = good.clone();
    bad[361 * 7 + 100] ^= 1;
    let path = dir.join("00000000000000000000.log");
    StdFs.replace(&path, &bad).unwrap();
    home.checkpoint(|c| {
        let state = c.partitions.first_mut().unwrap();
        state.next_offset = 200;
        state.segments =
            vec![SegmentState { bytes: good.len() as u64, sealed: true, ..SegmentState::default() }];
    });
    let plan = home.plan();
    let loss = plan.losses.first().unwrap();
    assert_eq!((loss.first, loss.end, plan.losses.len()), (Some(35), Some(40), 1));
    let kept = home.repair();
    assert_eq!(StdFs.read_all(kept.first().unwrap()).unwrap(), bad);
    let mut expected = good;
    expected.drain(361 * 7..361 * 8);
    assert_eq!(StdFs.read_all(&path).unwrap(), expected);
    assert!(verify(&StdFs, &dir).unwrap().iter().all(Report::is_sound));
    let newest = checkpoint::read_newest(&StdFs, &home.core()).unwrap().unwrap();
    let segment = newest.partitions.first().unwrap().segments.first().unwrap().clone();
    assert_eq!(segment.bytes, expected.len() as u64);
    assert!(home.plan().is_empty(), "{}", home.plan());
}

#[test]
fn unreadable_checkpoints_cost_the_core_log_but_no_segment() {
    let mut home = Home::new();
    home.group(1, 100);
    for name in SLOT_NAMES {
        let file = StdFs.open(&home.core().join(name), OpenMode::Write).unwrap();
        StdFs.write_at(&file, &[0xff], 40).unwrap();
    }
    assert!(!verify(&StdFs, &home.core()).unwrap().iter().all(Report::is_sound));
    let plan = home.plan();
    assert_eq!(plan.actions, [Action::SetAsideCoreLog { dir: home.core() }]);
    assert_eq!(plan.losses.len(), 1);
    let kept = home.repair();
    assert!(StdFs.list(&home.core()).unwrap().is_empty(), "the core begins with nothing");
    assert!(StdFs.exists(&kept.first().unwrap().join("000.log")));
    assert!(home.plan().is_empty(), "a folder that is set aside is not looked at again");
}

/// As where `core-0` is a link to a device of its own, or a mount point.
#[test]
fn a_core_log_on_another_device_is_set_aside_by_hand() {
    let mut home = Home::new();
    home.group(1, 100);
    SLOT_NAMES.iter().for_each(|name| StdFs.remove_file(&home.core().join(name)).unwrap());
    let elsewhere = tempfile::tempdir().unwrap();
    let target = elsewhere.path().join("log");
    StdFs.rename(&home.core(), &target).unwrap();
    std::os::unix::fs::symlink(&target, home.core()).unwrap();
    assert!(!verify(&StdFs, home.dir.path()).unwrap().iter().all(Report::is_sound));
    let apart = FuseFs::mounted(home.core());
    let told = repair::apply(&apart, home.dir.path(), &home.plan(), "first").unwrap_err().to_string();
    assert!(told.contains("core-0: it is on another device than") && told.contains("then empty"), "{told}");
    let names = |dir: &Path| -> Vec<String> {
        StdFs.list(dir).unwrap().into_iter().map(|entry| entry.name).collect()
    };
    assert_eq!(names(home.dir.path()), ["core-0"], "nothing is left behind");
    assert_eq!(names(&home.core()), ["000.log", "001.log"]);
    // What it says to do.
    names(&home.core()).iter().for_each(|name| StdFs.remove_file(&home.core().join(name)).unwrap());
    assert!(home.plan().is_empty(), "{}", home.plan());
    assert_eq!(opened(&home).unwrap().groups, 0);
}

#[test]
fn checkpoints_that_are_gone_are_missed_where_groups_are() {
    let mut home = Home::new();
    let remove = |home: &Home| {
        SLOT_NAMES.iter().for_each(|name| StdFs.remove_file(&home.core().join(name)).unwrap());
    };
    remove(&home);
    assert!(verify(&StdFs, &home.core()).unwrap().iter().all(Report::is_sound), "nothing was acked yet");
    assert!(home.plan().is_empty());
    home.checkpoint(|_| {});
    home.group(1, 100);
    remove(&home);
    let reports = verify(&StdFs, &home.core()).unwrap();
    let chain = reports.iter().find(|r| !r.is_sound()).unwrap();
    assert!(chain.kind == FileKind::CoreLogChain && chain.to_string().contains("000.log"), "{chain}");
    assert_eq!(home.plan().actions, [Action::SetAsideCoreLog { dir: home.core() }]);
    home.repair();
    assert!(home.plan().is_empty(), "{}", home.plan());
}

#[test]
fn what_changed_places_is_told_and_left_alone() {
    let mut home = Home::new();
    home.group(1, 100);
    let (position, crc) = (home.position, home.prev_header_crc);
    home.group(1, 100);
    home.checkpoint(|c| {
        (c.start_offset, c.next_group, c.prev_header_crc, c.durable_group) = (position, 2, crc, 1)
    });
    let told = |home: &Home, says: &str| {
        let reports = verify(&StdFs, &home.core()).unwrap();
        let found = reports.iter().find(|r| !r.is_sound()).unwrap().to_string();
        let plan = home.plan();
        assert!(
            plan.actions.is_empty() && plan.to_string().contains(says) && found.contains(says),
            "{found}\n{plan}"
        );
    };
    assert!(verify(&StdFs, &home.core()).unwrap().iter().all(Report::is_sound));
    let exchange = |home: &Home| {
        let aside = home.core().join("aside");
        for (from, to) in [(home.log(0), aside.clone()), (home.log(1), home.log(0)), (aside, home.log(1))] {
            StdFs.rename(&from, &to).unwrap();
        }
    };
    exchange(&home);
    told(&home, "core-log files changed places");
    exchange(&home);
    assert!(home.plan().is_empty(), "{}", home.plan());
    home.checkpoint(|c| c.core = 1);
    told(&home, "holds what core 1 wrote");
}

/// A checkpoint or any entry of the core log names a partition that the journal never gave an id to: so say a core that
/// starts, and whoever looks.
#[test]
fn partitions_that_the_journal_never_gave_out_are_told() {
    let mut home = Home::new();
    home.group(1, 100);
    let strangers = |home: &Home, next: u64| -> Vec<(u64, Option<String>)> {
        let all = contradictions(home, &Decisions::new(next, []));
        assert!(all.iter().all(|known| known.against == Against::NeverGiven));
        all.into_iter().map(|known| (known.id, known.state.map(|state| state.topic))).collect()
    };
    assert_eq!(strangers(&home, 6), []);
    assert_eq!(strangers(&home, 5), [(5, Some("t".to_string()))]);
    home.append(9, EntryKind::Tombstone, Vec::new(), 0);
    home.append(7, EntryKind::Epoch, Vec::new(), 0);
    assert_eq!(strangers(&home, 6), [(7, None), (9, None)]);
    let deleted = contradictions(&home, &Decisions::new(6, []))
        .iter()
        .map(|known| known.is_deleted)
        .collect::<Vec<_>>();
    assert_eq!(deleted, [false, true], "a repair does not bring back what was made and deleted");
    refused_like(&home, CoreId(0), &contradictions(&home, &Decisions::new(6, []))[1]);
    home.checkpoint(|c| {
        c.partitions.push(PartitionState { id: 6, topic: "u".to_string(), ..PartitionState::default() });
        (c.start_offset, c.next_group, c.prev_header_crc) =
            (home.position, home.sequence, home.prev_header_crc);
    });
    assert_eq!(strangers(&home, 6), [(6, Some("u".to_string()))]);
    let refused = opened(&home).unwrap_err();
    assert!(
        matches!(&refused, crate::RecoveryError::Contradicted { what } if what.contains("u-0 by id 6")),
        "{refused}"
    );
}

/// What the journal still has is never taken for what a deleted topic left, on whatever core it has it.
#[test]
fn a_core_removes_nothing_that_the_journal_has() {
    let mut home = Home::new();
    home.group(1, 100);
    let on = |core| Decisions::new(6, [(PartitionId(5), CoreId(core))]);
    assert_eq!(contradictions(&home, &on(0)), []);
    let [elsewhere] = &contradictions(&home, &on(1))[..] else { panic!("one partition is placed elsewhere") };
    assert_eq!(elsewhere.against, Against::Elsewhere(CoreId(1)));
    refused_like(&home, CoreId(1), elsewhere);
    // Without the partition in its checkpoint, the log of a core is no claim to it.
    home.checkpoint(|c| c.partitions.clear());
    assert_eq!(contradictions(&home, &on(1)), []);
    assert_eq!(opened_with(&home, CoreId(1)).unwrap().groups, 1);

    let mut home = Home::new();
    home.group(1, 100);
    home.append(5, EntryKind::Tombstone, Vec::new(), 0);
    let [deleted] = &contradictions(&home, &on(0))[..] else { panic!("one partition was deleted") };
    assert_eq!((deleted.against, deleted.is_deleted), (Against::NotDeleted, true));
    refused_like(&home, CoreId(0), deleted);
    assert_eq!(contradictions(&home, &Decisions::new(6, [])), [], "the journal knows that it was deleted");
}

fn contradictions(home: &Home, decisions: &Decisions) -> Vec<Contradiction> {
    CoreKnows::look(&StdFs, &home.core(), Depth::Log).unwrap().unwrap().contradictions(decisions)
}

/// A start on which `t-0` is on that core is refused with the same words, and leaves the partition's folder alone.
#[track_caller]
fn refused_like(home: &Home, owner: CoreId, known: &Contradiction) {
    let dir = home.dir.path().join("topics/t-0");
    StdFs.create_dir_all(&dir).unwrap();
    let slots =
        || ["checkpoint-a", "checkpoint-b"].map(|name| StdFs.read_all(&home.core().join(name)).unwrap());
    let before = slots();
    match opened_with(home, owner) {
        Err(crate::RecoveryError::Contradicted { what }) => {
            assert_eq!(what, known.sentence(home.dir.path()));
        }
        other => panic!("{other:?}"),
    }
    assert!(dir.exists() && slots() == before, "nothing was changed");
}

#[test]
fn a_newer_checkpoint_is_left_to_a_newer_program() {
    let home = Home::new();
    let path = home.core().join("checkpoint-a");
    let mut bytes = StdFs.read_all(&path).unwrap();
    bytes[8] = 9;
    StdFs.replace(&path, &bytes).unwrap();
    let plan = home.plan();
    assert!(plan.actions.is_empty() && !plan.is_empty());
    assert!(plan.to_string().contains("version 9"), "{plan}");
}

/// A data folder whose second group of 22 is damaged, over two ring files, and a damaged segment.
fn harmed() -> Home {
    let mut home = Home::new();
    home.group(10, 100);
    let (file, position) = home.group(20, 5000);
    for _ in 0..20 {
        home.group(1, 100);
    }
    home.write(file, position + 4500, &[0xaa, 0xbb]);
    let dir = home.dir.path().join("topics/t-0");
    StdFs.create_dir_all(&dir).unwrap();
    let mut segment: Vec<u8> =
        (-5i64..0).flat_map(|i| BatchSpec { base_offset: i + 5, ..BatchSpec::default() }.bytes()).collect();
    segment[91 * 2 + 80] ^= 1;
    StdFs.replace(&dir.join("00000000000000000000.log"), &segment).unwrap();
    home.checkpoint(|c| {
        let state = c.partitions.first_mut().unwrap();
        state.segments = vec![SegmentState { bytes: segment.len() as u64, ..SegmentState::default() }];
    });
    home
}

#[test]
fn a_repair_may_lose_its_power_at_any_write() {
    let mut cut_off = 0;
    for writes in 0.. {
        let home = harmed();
        let originals: Vec<Vec<u8>> = (0..2).map(|f| StdFs.read_all(&home.log(f)).unwrap()).collect();
        let fuse = FuseFs::new(writes);
        let done = repair::apply(&fuse, home.dir.path(), &home.plan(), "first").is_ok();
        home.repair();
        assert!(home.plan().is_empty(), "after {writes} writes: {}", home.plan());
        assert_eq!(home.chain().groups.len(), 22, "after {writes} writes");
        assert!(verify(&StdFs, &home.dir.path().join("topics")).unwrap().iter().all(Report::is_sound));
        let kept = files_below(&home.dir.path().join(repair::SET_ASIDE_NAME));
        assert!(originals.iter().all(|o| kept.contains(o)), "after {writes} writes an original is gone");
        if done {
            break;
        }
        cut_off += 1;
    }
    assert!(cut_off > 20, "the fuse went {cut_off} times");
}

/// The core's folder never goes, so that no start misses it, and whatever was moved until then is kept.
#[test]
fn setting_a_core_log_aside_may_lose_its_power_at_any_step() {
    for slots_are_gone in [false, true] {
        let mut cut_off = 0;
        for changes in 0.. {
            let mut home = Home::new();
            for _ in 0..18 {
                home.group(1, 100);
            }
            assert_eq!(home.file, 1, "both files hold groups");
            std::fs::write(home.core().join("swap"), swap_record()).unwrap();
            for name in SLOT_NAMES {
                match slots_are_gone {
                    true => StdFs.remove_file(&home.core().join(name)).unwrap(),
                    false => {
                        let file = StdFs.open(&home.core().join(name), OpenMode::Write).unwrap();
                        StdFs.write_at(&file, &[0xff], 40).unwrap();
                    }
                }
            }
            let originals = files_below(home.dir.path());
            let done = repair::apply(&FuseFs::new(changes), home.dir.path(), &home.plan(), "first").is_ok();
            assert!(StdFs.exists(&home.core()), "after {changes} changes the folder would be missed");
            if !home.plan().is_empty() {
                home.repair();
            }
            assert!(home.plan().is_empty(), "after {changes} changes: {}", home.plan());
            let kept = files_below(home.dir.path());
            assert!(
                originals.iter().all(|o| kept.contains(o)),
                "after {changes} changes an original is gone"
            );
            assert_eq!(opened(&home).unwrap().groups, 0, "after {changes} changes");
            if done {
                break;
            }
            cut_off += 1;
        }
        assert!(cut_off >= 5, "the fuse went {cut_off} times");
    }
}

fn files_below(dir: &Path) -> Vec<Vec<u8>> {
    let folders = StdFs.list(dir).unwrap().into_iter().map(|e| dir.join(e.name));
    let files = folders.flat_map(|d| StdFs.list(&d).unwrap().into_iter().map(move |e| d.join(e.name)));
    files.map(|f| StdFs.read_all(&f).unwrap()).collect()
}

#[test]
fn what_is_not_ours_is_refused_with_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(verify(&StdFs, dir.path()), Err(InspectError::Unknown { .. })));
    let other = dir.path().join("notes.txt");
    StdFs.replace(&other, b"hello").unwrap();
    let error = verify(&StdFs, &other).unwrap_err();
    assert!(error.to_string().contains("notes.txt"), "{error}");
    assert!(matches!(verify(&StdFs, &dir.path().join("000.log")), Err(InspectError::Io { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_bytes_under_any_name_are_reported_without_a_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..20_000), from_golden: bool,
        flips in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..10),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let sources = ["kafka-4.3.1/plain-0/00000000000000000003.log", "group-v1.bin", "checkpoint-v1.bin"];
        let names = ["00000000000000000003.log", "000.log", "checkpoint-a", "00000000000000000003.index",
            "00000000000000000003.timeindex", "partition.metadata", "leader-epoch-checkpoint"];
        for (at, name) in names.iter().enumerate() {
            let source = sources.get(at).filter(|_| from_golden).map(|s| StdFs.read_all(&golden(s)).unwrap());
            let mut content = source.unwrap_or_else(|| bytes.clone());
            for (at, byte) in &flips {
                let len = content.len();
                if len > 0 {
                    content[at % len] = *byte;
                }
            }
            StdFs.replace(&dir.path().join(name), &content).unwrap();
        }
        for report in verify(&StdFs, dir.path()).unwrap() {
            prop_assert!(report.findings.len() <= 100);
            let _ = report.to_string();
        }
        let _ = repair::plan(&StdFs, dir.path(), &[dir.path().to_path_buf()], Scope::Everything);
    }

    #[test]
    fn a_flipped_bit_anywhere_in_the_chain_never_lengthens_it(at in 0usize..5 * 4096, bit in 0u8..8) {
        let mut home = Home::new();
        for _ in 0..5 {
            home.group(2, 200);
        }
        let mut bytes = StdFs.read_all(&home.log(0)).unwrap();
        bytes[at] ^= 1 << bit;
        home.write(0, 0, &bytes);
        let chain = home.chain();
        let hit = at as u64 / 4096;
        let harmless = decode_group(&bytes[hit as usize * 4096..]).is_ok();
        // The last group is not acked yet: damaged, it is torn. The table of another may be whole, and it counts, empty.
        let is_hole = !harmless && hit < 4;
        prop_assert_eq!(chain.holes.len(), usize::from(is_hole));
        let offsets: Vec<i64> = chain.groups.iter().flat_map(|g| &g.batches).map(|(_, first, _)| *first).collect();
        let expected: Vec<i64> = (0..5).filter(|group| harmless || *group != hit).map(|group| group as i64 * 2).collect();
        prop_assert_eq!(offsets, expected);
    }
}

/// Opens the folder as a broker's core would: groups, batches, or the refusal.
fn opened(home: &Home) -> Result<crate::RecoveryReport, crate::RecoveryError> {
    opened_with(home, CoreId(0))
}

/// The same, while the journal has `t-0` on that core.
fn opened_with(home: &Home, owner: CoreId) -> Result<crate::RecoveryReport, crate::RecoveryError> {
    use ringmill_reactor::ring::{RingBackend, RingFeatures, RingOptions};
    use ringmill_types::{LeaderEpoch, PartitionSpec, TopicId, TopicSpec};
    let options = RingOptions { pool_limit_bytes: 64 << 20, features: RingFeatures::ALL };
    let mut io = RingBackend::new(options).unwrap();
    let spec = PartitionSpec { index: 0, id: PartitionId(5), owner, leader_epoch: LeaderEpoch(0) };
    let topic = TopicSpec {
        name: "t".into(),
        id: TopicId([1; 16]),
        config: std::sync::Arc::default(),
        partitions: vec![spec],
    };
    let options = crate::LogOptions::new(CoreId(0), home.dir.path().to_path_buf());
    crate::Log::open(&mut io, options, &[topic], 6, 0xdead).map(|(_, report)| report)
}

#[test]
fn recovery_refuses_what_a_plan_repairs_and_opens_what_was_repaired() {
    let home = harmed();
    assert!(matches!(opened(&home), Err(crate::RecoveryError::Damaged { .. })));
    home.repair();
    let report = opened(&home).unwrap();
    assert_eq!((report.groups, report.batches), (22, 1));
}

#[test]
fn a_lost_first_group_of_the_next_file_is_a_hole_too() {
    for payload_only in [false, true] {
        let mut home = Home::new();
        while home.file == 0 {
            home.group(1, 3000);
        }
        let first = home.sequence - 1;
        home.group(1, 3000);
        home.group(1, 3000);
        if payload_only {
            home.write(1, 200, &[0xaa, 0xbb, 0xcc]);
        } else {
            home.write(1, 0, &[0; 4096]);
        }
        let chain = home.chain();
        let [hole] = &chain.holes[..] else { panic!("{chain:?}") };
        assert_eq!((hole.sequence.0, chain.next_sequence), (first, home.sequence));
        assert_eq!(hole.path, if payload_only { home.log(1) } else { home.log(0) });
        match opened(&home) {
            Err(crate::RecoveryError::Damaged { sequence, .. }) => assert_eq!(sequence, first),
            other => panic!("acked groups are gone and recovery said {other:?}"),
        }
    }
}

#[test]
fn recovery_makes_a_fresh_log_where_one_was_set_aside() {
    let mut home = Home::new();
    home.group(1, 100);
    for name in SLOT_NAMES {
        let file = StdFs.open(&home.core().join(name), OpenMode::Write).unwrap();
        StdFs.write_at(&file, &[0xff], 40).unwrap();
    }
    assert!(matches!(opened(&home), Err(crate::RecoveryError::Checkpoint { .. })));
    home.repair();
    assert_eq!(opened(&home).unwrap().groups, 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn walking_the_chain_agrees_with_recovery(
        payloads in proptest::collection::vec(1usize..9000, 1..16),
        flips in proptest::collection::vec((0usize..2 * FILE_BYTES as usize, any::<u8>()), 0..3),
        durable in 0u64..16, zeroed in proptest::option::of(0u64..2 * FILE_BYTES / 4096),
    ) {
        let mut home = Home::new();
        for bytes in &payloads {
            if home.position + *bytes as u64 + 8192 > FILE_BYTES && home.file == 1 {
                break;
            }
            home.group(2, *bytes);
        }
        let split = |at: usize| ((at / FILE_BYTES as usize) as u32, at as u64 % FILE_BYTES);
        for (at, byte) in &flips {
            let (file, position) = split(*at);
            home.write(file, position, &[*byte]);
        }
        if let Some(page) = zeroed {
            let (file, position) = split(page as usize * 4096);
            home.write(file, position, &[0; 4096]);
        }
        let durable = durable.min(home.sequence - 1);
        home.checkpoint(|c| c.durable_group = durable);
        let chain = home.chain();
        match opened(&home) {
            Ok(report) => {
                prop_assert_eq!(&chain.holes, &[]);
                prop_assert_eq!(report.groups, chain.groups.len() as u64);
                prop_assert_eq!(report.batches, chain.groups.iter().map(|g| g.batches.len() as u64).sum::<u64>());
            }
            Err(crate::RecoveryError::Damaged { sequence, offset, .. }) => {
                let hole = &chain.holes[0];
                prop_assert_eq!((sequence, offset), (hole.sequence.0, hole.position));
                home.repair();
                prop_assert!(home.plan().is_empty(), "{}", home.plan());
                // Not only the start that comes next.
                for _ in 0..2 {
                    prop_assert_eq!(opened(&home).unwrap().groups, chain.groups.len() as u64);
                }
            }
            Err(other) => prop_assert!(false, "{}", other),
        }
    }
}

#[test]
fn what_a_repair_set_aside_is_not_looked_at_again() {
    let mut home = Home::new();
    home.group(1, 100);
    for name in SLOT_NAMES {
        let file = StdFs.open(&home.core().join(name), OpenMode::Write).unwrap();
        StdFs.write_at(&file, &[0xff], 40).unwrap();
    }
    let aside = home.repair();
    std::fs::write(home.core().join("swap"), swap_record()).unwrap();
    assert!(verify(&StdFs, home.dir.path()).unwrap().iter().all(Report::is_sound));
    assert!(verify(&StdFs, &aside[0]).unwrap().iter().any(|report| !report.is_sound()), "named, it is");
}

/// Of partition 3: segments 7 and 20 become 7; of 30 nothing is left.
fn swap_record() -> String {
    let body = "partition 3\ngroup 7,20 7 100 -1 9 5 1 2\ngroup 30\n";
    format!("ringmill-swap 1 {}\n{body}", crc32c::crc32c(body.as_bytes()))
}

#[test]
fn a_swap_record_is_shown_and_its_damage_told() {
    let home = Home::new();
    let path = home.core().join("swap");
    std::fs::write(&path, swap_record()).unwrap();
    let (rows, reports) = rows_of(&path);
    assert!(reports[0].is_sound() && reports[0].rows == 2, "{}", reports[0]);
    let [Row::Swap(first), Row::Swap(second)] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!((first.partition, &first.sources[..]), (3, &[7, 20][..]));
    assert_eq!(first.output.map(|o| (o.base_offset, o.bytes)), Some((7, 100)));
    assert_eq!((&second.sources[..], second.output), (&[30][..], None));
    std::fs::write(&path, swap_record().replace("group 30", "group 31")).unwrap();
    let (rows, reports) = rows_of(&path);
    assert!(rows.is_empty() && !reports[0].is_sound() && reports[0].kind == FileKind::SwapRecord);
}

/// A start, verify and a repair say the same of it, and a repair leaves the whole core alone.
#[test]
fn what_a_newer_version_wrote_is_no_damage() {
    type Write = fn(&Path);
    let newer_slot: Write = |path| {
        let file = StdFs.open(path, OpenMode::Write).unwrap();
        StdFs.write_at(&file, &[9], 8).unwrap();
    };
    let newer_swap: Write = |path| std::fs::write(path, "ringmill-swap 2 what it then says").unwrap();
    let newer_gaps: Write = |path| std::fs::write(path, "ringmill-given-up 2 what it then says").unwrap();
    let written = [
        (SLOT_NAMES[0], newer_slot),
        (SLOT_NAMES[1], newer_slot),
        ("swap", newer_swap),
        ("given-up", newer_gaps),
    ];
    for (name, write) in written {
        let mut home = Home::new();
        home.group(1, 100);
        let path = home.core().join(name);
        write(&path);
        let found = newer(&StdFs, home.dir.path(), &[home.core()]).unwrap().unwrap();
        assert!(found.path == path && found.what.contains("newer version: run that"), "{found}");
        let plan = home.plan();
        assert_eq!((plan.actions, plan.beyond_repair), (Vec::new(), vec![found.to_string()]));
        let reports = verify(&StdFs, home.dir.path()).unwrap();
        let unsound: Vec<_> = reports.iter().filter(|report| !report.is_sound()).collect();
        assert!(unsound.iter().all(|report| report.is_newer()), "{unsound:?}");
        assert!(unsound.iter().any(|report| report.path == path && report.findings[0].what == found.what));
    }
    let home = Home::new();
    assert_eq!(newer(&StdFs, home.dir.path(), &[home.core()]).unwrap(), None);
}

#[test]
fn what_old_cores_handed_on_is_looked_at() {
    let home = Home::new();
    let path = home.dir.path().join(crate::format::checkpoint::HANDED_ON_NAME);
    let words = checkpoint::read_newest(&StdFs, &home.core()).unwrap().unwrap();
    let mut bytes = checkpoint::encode(&words);
    std::fs::write(&path, &bytes).unwrap();
    let (rows, reports) = rows_of(&path);
    assert!(reports[0].is_sound() && matches!(&rows[..], [Row::Partition(row)] if row.topic == "t"));
    bytes[40] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    assert!(!verify(&StdFs, home.dir.path()).unwrap().iter().all(Report::is_sound));
}

#[test]
fn the_command_of_a_repair_can_be_copied_into_a_shell() {
    let word = |path: &str| repair::command(Path::new(path), Scope::CoreLogs);
    assert_eq!(word("/var/lib/ringmill"), "ringmill log repair --data /var/lib/ringmill --accept-loss");
    assert_eq!(word("/srv/a b"), "ringmill log repair --data '/srv/a b' --accept-loss");
    assert_eq!(word("it's"), r"ringmill log repair --data 'it'\''s' --accept-loss");
    let everything = repair::command(Path::new("d"), Scope::Everything);
    assert_eq!(everything, "ringmill log repair --data d --everything --accept-loss");
}
