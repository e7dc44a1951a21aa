//! Compaction end to end on a real disk: what stays, what goes, who is disturbed, and what a cut in any step leaves.
#![allow(clippy::unwrap_used)]

mod common;

use common::Core;
use ringmill_log::compact::{Cleaned, Compaction, Order, Step};
use ringmill_log::inspect;
use ringmill_log::inspect::repair::{self, Action, Scope};
use ringmill_log::{CompactJob, LogOptions, ReadOutcome, ReadRequest};
use ringmill_reactor::stdfs::StdFs;
use ringmill_reactor::{Backend, Fs, OpenMode};
use ringmill_record::write::{Sealing, no_headers, put_record, seal};
use ringmill_record::{Batches, HEADER_BYTES, Records};
use ringmill_types::{
    CoreId, LeaderEpoch, Offset, PartitionId, PartitionSpec, TopicConfig, TopicId, TopicSpec,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

/// What upkeep does, without its pace.
fn drive(order: Order) -> Cleaned {
    let dir = order.dir.clone();
    let mut compaction = Compaction::new(order);
    loop {
        match compaction.next_step().unwrap() {
            Step::Read { path, at, len } => {
                let file = StdFs.open(&path, OpenMode::Read).unwrap();
                let mut bytes = vec![0; len];
                let got = StdFs.read_at(&file, &mut bytes, at).unwrap();
                compaction.feed(&bytes[..got]);
            }
            Step::Write { path, at, bytes } => {
                let file = StdFs.open(&path, OpenMode::Create).unwrap();
                StdFs.write_at(&file, &bytes, at).unwrap();
            }
            Step::Seal { log, bytes, index, time_index } => {
                let file = StdFs.open(&log, OpenMode::Write).unwrap();
                StdFs.set_len(&file, bytes).unwrap();
                StdFs.sync_data(&file).unwrap();
                std::fs::write(index.0, index.1).unwrap();
                std::fs::write(time_index.0, time_index.1).unwrap();
            }
            Step::Discard { path } => drop(std::fs::remove_file(path)),
            Step::Done(cleaned) => {
                StdFs.sync_dir(&dir).unwrap();
                return cleaned;
            }
        }
    }
}

/// Keys and values at their offsets; `None`: a delete marker.
type Found = BTreeMap<i64, (String, Option<String>)>;

struct Rig {
    core: Core,
    jobs: Receiver<CompactJob>,
    /// Everything ever sent.
    sent: Vec<(String, Option<String>)>,
    tickets: u64,
    /// How far the clock of the passes is ahead.
    later_ms: i64,
}

fn config() -> TopicConfig {
    TopicConfig {
        segment_bytes: 16 << 10,
        index_interval_bytes: 1000,
        compacted: true,
        delete: false,
        min_cleanable_dirty_ppm: 10_000,
        ..TopicConfig::default()
    }
}

impl Rig {
    fn open(data: &Path, life: u128, config: TopicConfig) -> Rig {
        let (compactor, jobs) = sync_channel(4);
        let options = LogOptions {
            compactor: Some(compactor),
            compaction_check_ms: 10,
            // So little memory that what is sent goes into segments at once.
            first_file_bytes: 256 << 10,
            file_bytes: 256 << 10,
            files_max: 3,
            tail_bytes: 64 << 10,
            group_bytes: 16 << 10,
            ..LogOptions::new(CoreId(0), data.to_path_buf())
        };
        let (mut core, _) = Core::open_with(256 << 20, options, life);
        let spec =
            PartitionSpec { index: 0, id: PartitionId(10), owner: CoreId(0), leader_epoch: LeaderEpoch(2) };
        let topic = TopicSpec {
            name: "orders".into(),
            id: TopicId([7; 16]),
            config: Arc::new(config),
            partitions: vec![spec.clone()],
        };
        core.log.upsert(&topic, &spec);
        Rig { core, jobs, sent: Vec::new(), tickets: 1 << 40, later_ms: 0 }
    }

    /// A batch of these records, packed with the codec of these attributes.
    fn send(&mut self, records: &[(String, Option<String>)], codec: i16) {
        let mut payload = Vec::new();
        for (at, (key, value)) in (0..).zip(records) {
            let value = value.as_ref().map(String::as_bytes);
            put_record(&mut payload, i64::from(at), at, Some(key.as_bytes()), value, no_headers());
        }
        let mut batch = vec![0; HEADER_BYTES];
        batch.extend(match codec {
            0 => payload,
            1 => {
                use std::io::Write as _;
                let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                packer.write_all(&payload).unwrap();
                packer.finish().unwrap()
            }
            2 => snap::raw::Encoder::new().compress_vec(&payload).unwrap(),
            3 => {
                use std::io::Write as _;
                let mut packer = lz4_flex::frame::FrameEncoder::new(Vec::new());
                packer.write_all(&payload).unwrap();
                packer.finish().unwrap()
            }
            4 => ruzstd::encoding::compress_to_vec(
                payload.as_slice(),
                ruzstd::encoding::CompressionLevel::Fastest,
            ),
            other => panic!("{other}"),
        });
        let now = self.core.io.wall_ms();
        let count = records.len() as i32;
        seal(
            &mut batch,
            &Sealing { attributes: codec, ..Sealing::plain(now, now + i64::from(count) - 1, count) },
        );
        self.core.append(0, &batch);
        self.sent.extend_from_slice(records);
    }

    /// `rounds` over 40 keys, two records a batch, all codecs.
    fn fill(&mut self, rounds: usize) {
        for round in 0..rounds {
            for pair in 0..20 {
                let record = |key: usize| {
                    let value = format!("value {round} of {key}, {}", "and more ".repeat(20));
                    (format!("key {key}"), (!(key == 7 && round + 1 == rounds)).then_some(value))
                };
                self.send(&[record(pair * 2), record(pair * 2 + 1)], (pair % 5) as i16);
            }
        }
        // Half of each of the last batches is superseded.
        for pair in 0..20 {
            self.send(&[(format!("key {}", pair * 2), Some(format!("last of {pair}")))], (pair % 5) as i16);
        }
        self.core.settle();
    }

    fn read(&mut self, from: i64) -> Found {
        let slot = self.core.slot(0);
        let end = self.core.log.view(slot).unwrap().high_watermark;
        let (mut offset, mut found) = (Offset(from), Found::new());
        while offset < end {
            self.tickets += 1;
            let request =
                ReadRequest { slot, offset, max_bytes: 64 << 10, at_least_one: true, ticket: self.tickets };
            match self.core.log.read(&mut self.core.io, request).unwrap() {
                ReadOutcome::Wait => self.core.turn(),
                ReadOutcome::Data { bufs, .. } => {
                    let bytes: Vec<u8> = bufs.iter().flat_map(|b| b.iter().copied()).collect();
                    assert!(!bytes.is_empty(), "nothing at {offset} below {end}");
                    for (header, batch) in Batches::new(&bytes) {
                        assert!(header.next_offset() > offset, "a reader goes on");
                        ringmill_log::segment::check_batch(batch).unwrap();
                        offset = header.next_offset();
                        read_batch(&header, batch, from, &mut found);
                    }
                }
            }
        }
        found
    }

    /// Turns until a pass is asked for.
    fn next_job(&mut self, patience_ms: u64) -> Option<CompactJob> {
        let until = self.core.io.now_ns() + patience_ms * 1_000_000;
        while self.core.io.now_ns() < until {
            if let Ok(job) = self.jobs.try_recv() {
                return Some(job);
            }
            self.core.turn();
        }
        None
    }

    /// Passes until none is worth it any more; how far they came.
    fn compact(&mut self) -> Offset {
        let mut job = self.next_job(20_000).expect("a pass is worth it");
        loop {
            let now_ms = job.order.now_ms + self.later_ms;
            let cleaned = drive(Order { now_ms, ..*job.order });
            job.answer.set(Some(cleaned.clone())).unwrap();
            let before = self.core.log.metrics().compactions;
            while self.core.log.metrics().compactions == before {
                self.core.turn();
            }
            match self.next_job(1_500) {
                Some(next) => job = next,
                None => return cleaned.clean_to,
            }
        }
    }

    /// What must be there: of each key the newest record, and whatever is in segments that were not compacted.
    fn check(&mut self, clean_to: Offset) {
        let mut newest = BTreeMap::new();
        for (offset, (key, _)) in (0..).zip(&self.sent) {
            newest.insert(key.clone(), offset);
        }
        let found = self.read(0);
        for (offset, record) in &found {
            assert_eq!(record, &self.sent[*offset as usize], "offset {offset} is what it was");
        }
        for (key, offset) in &newest {
            assert!(found.contains_key(offset), "the newest record of {key}, at {offset}");
        }
        let of_key = |key: &str| found.iter().filter(|(at, r)| r.0 == key && **at < clean_to.0).count();
        for key in newest.keys() {
            assert!(of_key(key) <= 1, "{key} once in what was compacted");
        }
        assert!((clean_to.0..self.sent.len() as i64).all(|at| found.contains_key(&at)), "the rest is whole");
        // From anywhere, a reader gets what comes after.
        for from in [1, 77, clean_to.0 / 2, clean_to.0, clean_to.0 + 1] {
            let expected: Found = found.range(from..).map(|(at, r)| (*at, r.clone())).collect();
            assert_eq!(self.read(from), expected, "from {from}");
        }
    }
}

fn read_batch(header: &ringmill_record::BatchHeader, batch: &[u8], from: i64, found: &mut Found) {
    use std::io::Read as _;
    let body = &batch[HEADER_BYTES..];
    let mut payload = Vec::new();
    match header.attributes & 7 {
        0 => payload = body.to_vec(),
        1 => drop(flate2::read::MultiGzDecoder::new(body).read_to_end(&mut payload).unwrap()),
        2 if body.starts_with(b"\x82SNAPPY\0") => {
            let mut rest = &body[16..];
            while let Some((length, after)) = rest.split_first_chunk::<4>() {
                let (block, next) = after.split_at(u32::from_be_bytes(*length) as usize);
                payload.extend(snap::raw::Decoder::new().decompress_vec(block).unwrap());
                rest = next;
            }
        }
        2 => payload = snap::raw::Decoder::new().decompress_vec(body).unwrap(),
        3 => drop(lz4_flex::frame::FrameDecoder::new(body).read_to_end(&mut payload).unwrap()),
        4 => drop(ruzstd::decoding::StreamingDecoder::new(body).unwrap().read_to_end(&mut payload).unwrap()),
        other => panic!("{other}"),
    }
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut count = 0;
    for record in Records::of_payload(&payload, header.record_count) {
        let record = record.unwrap();
        count += 1;
        let offset = header.base_offset.0 + i64::from(record.offset_delta);
        if offset >= from {
            found.insert(offset, (text(record.key.unwrap()), record.value.map(text)));
        }
    }
    assert_eq!(count, header.record_count);
}

#[test]
fn the_newest_of_each_key_stays_at_its_offset() {
    let home = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(home.path(), 1, config());
    rig.fill(40);
    let everything = rig.read(0);
    assert_eq!(everything.len(), rig.sent.len());
    let before = rig.core.log.view(rig.core.slot(0)).unwrap();
    let clean_to = rig.compact();
    assert!(rig.core.log.metrics().compacted_records > 1000);
    rig.check(clean_to);
    let after = rig.core.log.view(rig.core.slot(0)).unwrap();
    assert_eq!((after.log_start, after.log_end), (before.log_start, before.log_end));
    assert!(after.size_bytes < before.size_bytes / 2 && after.segments < before.segments);

    // More comes, the next pass takes what the first one left as its clean part, and the whole survives a restart.
    rig.fill(30);
    let clean_to = rig.compact();
    rig.check(clean_to);
    let sent = std::mem::take(&mut rig.sent);
    rig.core.stop();
    let mut rig = Rig::open(home.path(), 2, config());
    rig.sent = sent;
    rig.check(clean_to);
    rig.core.stop();
    // For Kafka's own DumpLogSegments.
    if let Some(place) = std::env::var_os("RINGMILL_KEEP") {
        let from = home.path().join("topics/orders-0");
        assert!(Command::new("cp").arg("-a").arg(from).arg(place).status().unwrap().success());
    }
}

#[test]
fn delete_markers_stay_for_their_time_and_go_in_the_pass_after_it() {
    let home = tempfile::tempdir().unwrap();
    const STAYS_MS: i64 = 24 * 60 * 60 * 1000;
    let keep = TopicConfig { delete_retention_ms: STAYS_MS, ..config() };
    let mut rig = Rig::open(home.path(), 1, keep.clone());
    rig.fill(20);
    let marker = rig.sent.iter().rposition(|(key, _)| key == "key 7").unwrap() as i64;
    assert_eq!(rig.sent[marker as usize].1, None);
    for at in 0..300 {
        rig.send(&[(format!("filler {}", at % 50), Some("x".repeat(200)))], 0);
    }
    rig.core.settle();
    assert!(marker < rig.compact().0);
    assert_eq!(rig.read(marker).get(&marker), Some(&("key 7".to_string(), None)), "met for the first time");
    let earlier = rig.read(0).values().filter(|r| r.0 == "key 7").count();
    assert_eq!(earlier, 1, "what it deletes has gone");
    rig.later_ms = STAYS_MS + 1;
    for at in 0..400 {
        rig.send(&[(format!("filler {}", at % 50), Some("y".repeat(200)))], 0);
    }
    rig.core.settle();
    rig.compact();
    assert!(rig.read(0).values().all(|r| r.0 != "key 7"), "its time is over");
    rig.core.stop();
}

/// A pass that was cut off in its swap: folders as they lie after each step, made by hand from what the steps leave.
struct CutSwap {
    home: tempfile::TempDir,
    /// Each with the number of records that are to be read.
    cuts: Vec<(PathBuf, usize)>,
    sent: Vec<(String, Option<String>)>,
    cleaned: Cleaned,
    kept: usize,
}

fn copied(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

fn folder(data: &Path) -> PathBuf {
    data.join("topics/orders-0")
}

impl CutSwap {
    fn made() -> CutSwap {
        let home = tempfile::tempdir().unwrap();
        let data = home.path().join("data");
        let mut rig = Rig::open(&data, 1, config());
        rig.fill(40);
        let job = rig.next_job(20_000).unwrap();
        let cleaned = drive(*job.order);
        let whole = rig.read(0).len();
        let (written, swapped) = (home.path().join("written"), home.path().join("swapped"));
        copied(&data, &written);
        let sent = rig.sent.clone();
        job.answer.set(Some(cleaned.clone())).unwrap();
        while rig.core.log.metrics().compactions == 0 {
            rig.core.turn();
        }
        copied(&data, &swapped);
        let record =
            std::fs::read(swapped.join("core-0/swap")).expect("the record stays until checkpoints know");
        // Between the record and the end of the renaming: the old folder with the record, and each half-done state of it.
        let mut names: Vec<_> = std::fs::read_dir(folder(&written))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".cleaned"))
            .collect();
        names.sort();
        assert!(names.len() >= 3);
        let mut cuts = vec![(written.clone(), whole)];
        let kept = rig.read(0).len();
        for done in 0..=names.len() {
            let at = home.path().join(format!("cut-{done}"));
            copied(&written, &at);
            std::fs::write(at.join("core-0/swap"), &record).unwrap();
            for name in &names[..done] {
                let to = name.strip_suffix(".cleaned").unwrap();
                std::fs::rename(folder(&at).join(name), folder(&at).join(to)).unwrap();
            }
            cuts.push((at, kept));
        }
        cuts.push((swapped, kept));
        CutSwap { home, cuts, sent, cleaned, kept }
    }
}

/// kill -9 after each step of a swap; twice, as a cut may come again.
#[test]
fn a_cut_in_any_step_leaves_all_of_the_old_or_all_of_the_new() {
    let made = CutSwap::made();
    for (data, expected) in made.cuts {
        for life in 2..4 {
            let mut rig = Rig::open(&data, life, config());
            assert!(!data.join("core-0/swap").exists());
            rig.sent = made.sent.clone();
            assert_eq!(rig.read(0).len(), expected, "{}", data.display());
            if expected == made.kept {
                rig.check(made.cleaned.clean_to);
            }
            if life == 3 {
                rig.core.stop();
            }
        }
    }
}

fn repair_plan(data: &Path, scope: Scope) -> repair::Plan {
    repair::plan(&StdFs, data, &[data.join("core-0")], scope).unwrap()
}

/// Segments that compaction shortened are not damaged, whatever the checkpoint still says of their old ones.
#[test]
fn repair_finds_nothing_to_do_after_a_cut_in_any_step() {
    let made = CutSwap::made();
    for (data, _) in &made.cuts {
        let plan = repair_plan(data, Scope::Everything);
        assert!(plan.is_empty() && plan.losses.is_empty(), "{}: {plan}", data.display());
    }
}

#[test]
fn damage_in_the_middle_of_a_swap_costs_only_what_is_damaged() {
    let made = CutSwap::made();
    let group = made.cleaned.groups.iter().find(|group| group.output.is_some()).unwrap();
    let base = group.output.unwrap().base.0;
    for (data, _) in &made.cuts[1..] {
        let hurt = made.home.path().join("hurt");
        copied(data, &hurt);
        let plain = folder(&hurt).join(format!("{base:020}.log"));
        let cleaned = folder(&hurt).join(format!("{base:020}.log.cleaned"));
        let segment = if cleaned.exists() { cleaned } else { plain };
        let mut bytes = std::fs::read(&segment).unwrap();
        // In the records of the first batch.
        bytes[HEADER_BYTES + 3] ^= 1;
        std::fs::write(&segment, bytes).unwrap();
        let plan = repair_plan(&hurt, Scope::Everything);
        assert!(repair_plan(&hurt, Scope::CoreLogs).is_empty(), "a start does not look at it");
        assert_eq!(plan.losses.len(), 1, "{plan}");
        assert!(matches!(&plan.actions[..], [Action::FinishSwap { .. }, Action::RewriteSegment { .. }]));
        repair::apply(&StdFs, &hurt, &plan, "label").unwrap();
        let left = repair_plan(&hurt, Scope::Everything);
        assert!(left.is_empty(), "{left}");
        let lost = plan.losses[0].first.unwrap()..plan.losses[0].end.unwrap();
        let mut rig = Rig::open(&hurt, 2, config());
        rig.sent.clone_from(&made.sent);
        let found = rig.read(lost.end);
        assert!(!found.is_empty() && found.iter().all(|(at, r)| *r == made.sent[*at as usize]));
        assert!(made.kept - found.len() <= (lost.end - lost.start) as usize, "{lost:?}");
        drop(rig);
        std::fs::remove_dir_all(&hurt).unwrap();
    }
}

/// A reader in front of them goes on behind them, however many there are.
#[test]
fn a_reader_passes_over_segments_of_which_a_repair_could_keep_nothing() {
    let home = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(home.path(), 1, TopicConfig { compacted: false, ..config() });
    rig.fill(40);
    let sent = rig.sent.clone();
    rig.core.stop();
    let names = segment_names(home.path());
    assert!(names.len() > 8, "{names:?}");
    for name in &names[1..7] {
        let path = folder(home.path()).join(name);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, vec![0xa5; bytes.len()]).unwrap();
    }
    let plan = repair_plan(home.path(), Scope::Everything);
    assert_eq!(plan.actions.len(), 6, "{plan}");
    repair::apply(&StdFs, home.path(), &plan, "label").unwrap();
    let mut rig = Rig::open(home.path(), 2, TopicConfig { compacted: false, ..config() });
    let found = rig.read(0);
    let base = |name: &String| name[..20].parse::<i64>().unwrap();
    let kept: Vec<i64> = (0..base(&names[1])).chain(base(&names[7])..sent.len() as i64).collect();
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), kept);
    assert!(found.iter().all(|(at, record)| *record == sent[*at as usize]));
}

/// Which segments belong together is not known then; whatever batches are good are kept, and the broker starts.
#[test]
fn a_swap_record_that_cannot_be_read_is_told_and_set_aside() {
    let made = CutSwap::made();
    for (data, _) in &made.cuts[1..] {
        let record = data.join("core-0/swap");
        let mut bytes = std::fs::read(&record).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&record, &bytes).unwrap();
        let reports = inspect::verify(&StdFs, &record).unwrap();
        assert!(!reports[0].is_sound());
        let plan = repair_plan(data, Scope::CoreLogs);
        let last = plan.actions.last();
        assert!(matches!(last, Some(Action::SetAsideSwap { path }) if *path == record), "{plan}");
        let aside = repair::apply(&StdFs, data, &plan, "label").unwrap();
        assert!(aside.iter().any(|kept| std::fs::read(kept).unwrap() == bytes), "it is kept");
        let left = repair_plan(data, Scope::Everything);
        assert!(left.is_empty(), "{left}");
        let mut rig = Rig::open(data, 2, config());
        let found = rig.read(0);
        assert!(found.iter().all(|(at, r)| *r == made.sent[*at as usize]));
        // What the newest, uncompared part holds was never touched.
        let tail = made.cleaned.clean_to.0..made.sent.len() as i64;
        assert!(tail.into_iter().all(|at| found.contains_key(&at)));
    }
}

/// Retention, lookups by time and readers in the middle of a pass; a pass whose sources have gone changes nothing.
#[test]
fn a_pass_whose_sources_have_gone_changes_nothing() {
    let home = tempfile::tempdir().unwrap();
    let mut rig = Rig::open(home.path(), 1, TopicConfig { delete: true, ..config() });
    rig.fill(40);
    let job = rig.next_job(20_000).unwrap();
    let cleaned = drive(*job.order);
    let slot = rig.core.slot(0);
    rig.core.log.delete_records(&mut rig.core.io, slot, Offset(500)).unwrap();
    job.answer.set(Some(cleaned)).unwrap();
    let before = rig.read(500);
    for _ in 0..20 {
        rig.core.turn();
    }
    assert_eq!(rig.core.log.metrics().compactions, 0);
    assert_eq!(rig.read(500), before);
    rig.compact();
    let found = rig.read(500);
    assert!(found.len() < before.len() && found.iter().all(|(at, record)| before.get(at) == Some(record)));
    rig.core.stop();
}

fn segment_names(data: &Path) -> Vec<String> {
    let names =
        std::fs::read_dir(folder(data)).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".log")).collect();
    names.sort();
    names
}

/// Compacts until more than two segments are left of the compacted part; where they begin.
fn several_segments(rig: &mut Rig) -> Vec<Offset> {
    loop {
        // Of every batch one record stays, so that compacting leaves several segments.
        for at in rig.sent.len()..rig.sent.len() + 400 {
            let record = |key: String| (key, Some("x".repeat(150)));
            rig.send(&[record(format!("only {at}")), record("again".to_string())], 0);
        }
        rig.core.settle();
        let job = rig.next_job(20_000).expect("a pass is worth it");
        let cleaned = drive(*job.order);
        let before = rig.core.log.metrics().compactions;
        job.answer.set(Some(cleaned.clone())).unwrap();
        while rig.core.log.metrics().compactions == before {
            rig.core.turn();
        }
        let bases: Vec<Offset> = cleaned.groups.iter().filter_map(|g| g.output).map(|o| o.base).collect();
        // The first pass may have begun when there was little to compact.
        if bases.len() > 2 {
            return bases;
        }
    }
}

/// The record of a swap is followed at every start as long as it is there. Retention may have taken the new segments by
/// then: they do not come back, whatever the newest checkpoint knows of it, and whether or not their names do.
#[test]
fn a_record_of_a_swap_brings_nothing_back_that_retention_took() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    let topic = TopicConfig { delete: true, ..config() };
    let mut rig = Rig::open(&data, 1, topic.clone());
    let bases = several_segments(&mut rig);
    let swapped = home.path().join("swapped");
    copied(&data, &swapped);
    let start = bases[2];
    let slot = rig.core.slot(0);
    rig.core.log.delete_records(&mut rig.core.io, slot, start).unwrap();
    let first = folder(&data).join(format!("{:020}.log", bases[0].0));
    while first.exists() {
        rig.core.turn();
    }
    let expected = rig.read(start.0);
    let mut killed = Vec::new();
    let before = rig.core.log.metrics().checkpoints;
    for checkpoints in 0..3 {
        while rig.core.log.metrics().checkpoints < before + checkpoints {
            rig.core.turn();
        }
        let at = home.path().join(format!("killed-{checkpoints}"));
        copied(&data, &at);
        assert!(at.join("core-0/swap").exists(), "the record is still there");
        killed.push(at);
    }
    // A power cut may undo the unlinking, which nothing synced, before and after a checkpoint that knows of it.
    for checkpoints in [0, 2] {
        let undone = home.path().join(format!("undone-{checkpoints}"));
        copied(&killed[checkpoints], &undone);
        let there = segment_names(&undone);
        for name in segment_names(&swapped).iter().filter(|name| !there.contains(name)) {
            copied(&folder(&swapped).join(name), &folder(&undone).join(name));
        }
        assert!(segment_names(&undone).len() >= there.len() + 2);
        killed.push(undone);
    }
    // The same when the record has gone for good: nothing names these files any more.
    let forgotten = home.path().join("forgotten");
    copied(&killed[4], &forgotten);
    std::fs::remove_file(forgotten.join("core-0/swap")).unwrap();
    killed.push(forgotten);
    for data in killed {
        let mut expected = expected.clone();
        for life in 2..4 {
            let mut rig = Rig::open(&data, life, topic.clone());
            assert!(!data.join("core-0/swap").exists());
            let view = rig.core.log.view(rig.core.slot(0)).unwrap();
            assert_eq!((view.log_start, view.offline), (start, None), "{}", data.display());
            assert_eq!(rig.read(start.0), expected, "{}", data.display());
            // A name that neither the checkpoint nor the record knows goes when the partition is next written.
            let late = ("late".to_string(), Some("y".repeat(100)));
            rig.send(std::slice::from_ref(&late), 0);
            expected.insert(view.log_end.0, late);
            rig.core.stop();
            let first = segment_names(&data).first().map(|name| name[..20].parse().unwrap());
            assert_eq!(first, Some(start.0), "{}", data.display());
            let plan = repair_plan(&data, Scope::Everything);
            assert!(plan.is_empty() && plan.losses.is_empty(), "{}: {plan}", data.display());
        }
    }
}
