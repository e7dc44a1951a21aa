//! Damage at rest under the real binary: what was acknowledged and cannot be read is never passed over in silence. The start
//! is refused with exit code 8 and a sentence that names the file, `ringmill log verify` names it too, and
//! `ringmill log repair --accept-loss` gets it going with what is left.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

#[allow(dead_code, reason = "each test binary uses a part of it")]
mod common;

use common::{ANYBODY, Author, Broker, Client, NONE, PATIENCE, Refusal, batch, creatable, run, skipped};
use ringmill_types::limits::PAGE_BYTES;
use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// `DataDamaged` in ERRORS.md.
const DATA_DAMAGED: i32 = 8;
/// `NewerFormat` there.
const NEWER_FORMAT: i32 = 5;
/// `DataUnusable` there.
const DATA_UNUSABLE: i32 = 7;
const RECORDS: usize = 20;
/// Behind this record, one goes to each of the other partitions; one of them is on the same core.
const BESIDE_AT: usize = 10;

fn value(n: usize) -> String {
    format!("record {n:03} of those that were acknowledged")
}

/// Folders that a broker left when it was killed, to be damaged in copies.
struct Left {
    dir: TempDir,
}

impl Left {
    /// Two lives: the first ended in order, the second wrote [`RECORDS`] more and was killed.
    fn behind() -> Left {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("original");
        let mut broker = Broker::start(&data, &[]);
        let mut client = broker.client();
        for (topic, partitions) in [("hurt", 3), ("well", 1)] {
            assert_eq!(client.create(topic, partitions, &[]).unwrap(), NONE);
        }
        assert_eq!(client.produce("well", 0, &batch(ANYBODY, &["from the first life"])).unwrap(), NONE);
        assert_eq!(broker.stop().code(), Some(0));
        let mut broker = Broker::start(&data, &[]);
        let mut client = broker.client();
        // Each alone in its group, and recorded as durable by the next.
        for n in 0..RECORDS {
            assert_eq!(client.produce("hurt", 0, &batch(ANYBODY, &[value(n)])).unwrap(), NONE);
            for beside in [1, 2].into_iter().filter(|_| n == BESIDE_AT) {
                assert_eq!(client.produce("hurt", beside, &batch(ANYBODY, &["beside"])).unwrap(), NONE);
            }
        }
        broker.kill();
        Left { dir }
    }

    fn copy(&self, name: &str) -> PathBuf {
        let to = self.dir.path().join(name);
        let done =
            Command::new("cp").arg("-a").arg(self.dir.path().join("original")).arg(&to).status().unwrap();
        assert!(done.success());
        to
    }
}

/// The core-log file that holds `what`, and where.
fn find(data: &Path, what: &str) -> (PathBuf, usize) {
    for core in ["core-0", "core-1"] {
        for entry in std::fs::read_dir(data.join(core)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "log") {
                let bytes = std::fs::read(&path).unwrap();
                if let Some(at) = bytes.windows(what.len()).position(|w| w == what.as_bytes()) {
                    return (path, at);
                }
            }
        }
    }
    panic!("{what} is in no core log below {}", data.display());
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 0x40;
    std::fs::write(path, bytes).unwrap();
}

fn stored(data: &Path) -> Vec<String> {
    let broker = Broker::start(data, &[]);
    let mut client = broker.client();
    let stored = client.read_from("hurt", 0, 0).into_iter().map(|r| String::from_utf8(r.value).unwrap());
    let stored = stored.collect();
    assert_eq!(client.read_from("well", 0, 0).len(), 1, "the neighbour is whole");
    assert_eq!(client.produce("hurt", 0, &batch(ANYBODY, &["it goes on"])).unwrap(), NONE);
    stored
}

#[track_caller]
fn refused(data: &Path, says: &[&str]) -> Refusal {
    let Err(refusal) = Broker::try_start(data, &[]) else { panic!("it started on {}", data.display()) };
    assert_eq!(refusal.code, Some(DATA_DAMAGED), "{}", refusal.said);
    // The command as it is to be typed.
    let command = format!("`ringmill log repair --data {} --accept-loss`", data.display());
    for part in says.iter().chain(&[command.as_str()]) {
        assert!(refusal.said.contains(part), "{part:?} is not in: {}", refusal.said);
    }
    refusal
}

/// Looking changes nothing, repair says what goes, and then it starts.
#[track_caller]
fn repair(data: &Path, says: &[&str]) {
    let data = data.to_str().unwrap();
    let (code, said) = run(&["log", "repair", data]);
    assert_eq!(code, 1, "{said}");
    for part in says.iter().chain(&["lost: ", "nothing was changed", "--accept-loss` goes on"]) {
        assert!(said.contains(part), "{part:?} is not in: {said}");
    }
    refused(Path::new(data), &[]);
    let (code, said) = run(&["log", "repair", "--data", data, "--accept-loss", "--yes"]);
    assert_eq!(code, 0, "{said}");
}

#[track_caller]
fn verify_names(data: &Path, file: &Path) {
    let (code, said) = run(&["log", "verify", "--only-findings", data.to_str().unwrap()]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains(file.to_str().unwrap()), "{} is not in: {said}", file.display());
}

#[test]
fn a_damaged_group_below_the_durable_mark_is_refused_and_repaired() {
    let left = Left::behind();
    assert_eq!(stored(&left.copy("untouched")).len(), RECORDS, "without damage all is there");
    let data = left.copy("damaged");
    let (file, at) = find(&data, &value(7));
    flip(&file, at);
    refused(&data, &[file.to_str().unwrap(), "hurt-0", "at byte", "Nothing was changed"]);
    verify_names(&data, file.parent().unwrap());
    repair(&data, &["hurt-0 from offset 7"]);
    let expected: Vec<String> = (0..7).map(value).collect();
    assert_eq!(stored(&data), expected, "everything before the damage");
    // The record of the damage is there still, and what was appended since lies behind it.
    let broker = Broker::start(&data, &[]);
    let mut client = broker.client();
    for beside in [1, 2] {
        assert_eq!(client.read_from("hurt", beside, 0).len(), 1, "hurt-{beside} was not hit, and came later");
    }
    assert_eq!(client.read_from("hurt", 0, 0).len(), 8);
}

#[test]
fn the_last_group_may_be_torn_and_is_no_damage() {
    let left = Left::behind();
    let data = left.copy("torn");
    let (file, at) = find(&data, &value(RECORDS - 1));
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[at] ^= 0x40;
    // A group of one small record takes a page. If 20 ms went by before the kill, a group without records in the next one
    // says that it was durable. With that page gone nothing does, and a power cut may have left it like this.
    let behind = at.next_multiple_of(PAGE_BYTES);
    bytes[behind..behind + PAGE_BYTES].fill(0);
    std::fs::write(&file, bytes).unwrap();
    let stored = stored(&data);
    assert!(stored.len() >= RECORDS - 1, "{stored:?}");
}

#[test]
fn a_missing_core_log_file_is_refused_and_repaired() {
    let left = Left::behind();
    let data = left.copy("missing");
    let (file, _) = find(&data, &value(0));
    std::fs::remove_file(&file).unwrap();
    refused(&data, &[file.to_str().unwrap(), "missing"]);
    verify_names(&data, file.parent().unwrap());
    repair(&data, &[]);
    assert_eq!(stored(&data), Vec::<String>::new(), "all of them were in that file");
}

/// Nothing else says what was behind the end, and offsets must not be given out again.
#[test]
fn a_core_log_file_that_was_cut_off_is_refused_and_repaired() {
    const PAGE: u64 = 4096;
    let left = Left::behind();
    for (name, whole_pages) in [("empty", 0), ("two-pages", 2), ("in-a-group", 0)] {
        let data = left.copy(name);
        let (path, at) = find(&data, &value(RECORDS - 1));
        // Behind a few pages of it, or one page into the group that holds the last record.
        let bytes = if name == "in-a-group" { at as u64 / PAGE * PAGE + 1 } else { whole_pages * PAGE };
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_len(bytes).unwrap();
        refused(&data, &[path.to_str().unwrap(), &format!("was cut off at {bytes} bytes")]);
        verify_names(&data, &path);
        repair(&data, &["was cut off"]);
        assert!(stored(&data).len() < RECORDS, "{name}: what was in the end is gone");
        let (code, said) = run(&["log", "verify", "--only-findings", data.to_str().unwrap()]);
        assert_eq!(code, 0, "{name}: {said}");
    }
}

/// Either slot alone is enough: the older one leads to the same groups, and the start says which it could not use.
#[test]
fn one_damaged_checkpoint_slot_loses_nothing() {
    let left = Left::behind();
    for slot in ["checkpoint-a", "checkpoint-b"] {
        let data = left.copy(slot);
        let file = find(&data, &value(0)).0.with_file_name(slot);
        flip(&file, 40);
        let (code, said) = run(&["log", "verify", "--only-findings", data.to_str().unwrap()]);
        assert!(
            code == 0 && said.contains(file.to_str().unwrap()),
            "a note, because the other serves: {said}"
        );
        let mut broker = Broker::start(&data, &[]);
        broker.wait_until_said(file.to_str().unwrap(), PATIENCE);
        broker.kill();
        assert_eq!(stored(&data).len(), RECORDS, "{slot} was damaged");
    }
}

#[test]
fn both_checkpoint_slots_damaged_are_refused_and_repaired() {
    let left = Left::behind();
    let data = left.copy("both");
    let (file, _) = find(&data, &value(0));
    for slot in ["checkpoint-a", "checkpoint-b"] {
        flip(&file.with_file_name(slot), 40);
    }
    refused(&data, &[file.parent().unwrap().to_str().unwrap(), "checkpoint"]);
    verify_names(&data, file.parent().unwrap());
    repair(&data, &["checkpoint"]);
    // What had reached segments is adopted; the rest was in the core log alone.
    let stored = stored(&data);
    assert!(stored.iter().enumerate().all(|(n, record)| *record == value(n)), "{stored:?}");
}

/// What somebody put where a file of the broker's was, or did to it.
fn spoil(path: &Path, how: &str) -> bool {
    let ran = |command: &mut Command| command.status().is_ok_and(|status| status.success());
    if how == "immutable" {
        return ran(Command::new("chattr").arg("+i").arg(path));
    }
    std::fs::remove_file(path).unwrap();
    match how {
        "a named pipe" => assert!(ran(Command::new("mkfifo").arg(path))),
        "a socket" => drop(UnixListener::bind(path).unwrap()),
        "a device" => symlink("/dev/null", path).unwrap(),
        "a folder" => std::fs::create_dir(path).unwrap(),
        "a link to /nowhere" => symlink("/nowhere", path).unwrap(),
        _ => panic!("{how}"),
    }
    true
}

/// None is waited for, and each is named: by a start, by verify where it shows, and by a repair, which changes nothing.
#[test]
fn what_lies_in_the_place_of_a_file_is_named_and_waited_for_by_nobody() {
    let left = Left::behind();
    let ringmill = |args: &[&str]| {
        let mut command = Command::new("timeout");
        let output =
            command.args(["-s", "KILL", "20", env!("CARGO_BIN_EXE_ringmill")]).args(args).output().unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(!text.contains("os error"), "{text}");
        (output.status.code(), text)
    };
    let kinds = ["a named pipe", "a socket", "a device", "a folder", "a link to /nowhere", "immutable"];
    let files =
        ["node.toml", "meta/journal", "LOCK", "core-0/checkpoint-a", "core-1/checkpoint-b", "core-1/001.log"];
    for (number, (how, name)) in kinds.iter().flat_map(|how| files.map(|name| (how, name))).enumerate() {
        // A start has nothing to write there.
        if (*how, name) == ("immutable", "node.toml") {
            continue;
        }
        let data = left.copy(&format!("spoilt-{number}"));
        let file = data.join(name);
        if !spoil(&file, how) {
            skipped("immutable files", "chattr +i is refused here");
            break;
        }
        let (folder, expected) = (data.to_str().unwrap(), format!("{} is {how}", file.display()));
        let start = ringmill(&[
            "serve",
            "--data",
            folder,
            "--cores",
            "2",
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
        ]);
        let verify = ringmill(&["log", "verify", "--only-findings", folder]);
        let repair = ringmill(&["log", "repair", folder, "--accept-loss", "--yes"]);
        if *how == "immutable" {
            assert!(Command::new("chattr").arg("-i").arg(&file).status().unwrap().success());
        }
        std::fs::remove_dir_all(&data).unwrap();
        // Whoever only looks has nothing against what cannot be changed.
        if *how != "immutable" {
            assert!(
                matches!(repair.0, Some(1 | 5)) && repair.1.contains(&expected),
                "{expected:?}: {repair:?}"
            );
            let shows = name == "LOCK" || verify.0 == Some(1) && verify.1.contains(&expected);
            assert!(shows, "{expected:?}: {verify:?}");
        }
        assert_eq!(start.0, Some(DATA_UNUSABLE), "{expected:?}: {start:?}");
        assert!(start.1.contains(&expected), "{expected:?} is not in: {}", start.1);
    }
}

/// A start takes such a partition offline, and only when it is used. The batches that are left are good each for itself.
#[test]
fn a_segment_that_lacks_what_the_checkpoint_says_is_found_by_verify() {
    let left = Left::behind();
    let verify =
        |data: &Path, more: &[&str]| run(&[&["log", "verify", data.to_str().unwrap()], more].concat());
    assert_eq!(verify(&left.copy("whole"), &[]).0, 0);
    for (how, says) in [
        ("missing", "it is missing"),
        ("empty", "holds 0 bytes, the checkpoint says"),
        ("a folder", "is a folder"),
    ] {
        let data = left.copy(how);
        let segment = data.join("topics/well-0/00000000000000000000.log");
        std::fs::remove_file(&segment).unwrap();
        match how {
            "missing" => {}
            "empty" => std::fs::write(&segment, "").unwrap(),
            _ => std::fs::create_dir(&segment).unwrap(),
        }
        let (code, said) = verify(&data, &["--only-findings"]);
        let named = format!("{}: DAMAGED", segment.display());
        assert!(code == 1 && said.contains(&named) && said.contains(says), "{how}: {code} {said}");
        let (code, said) = verify(&data, &["--json"]);
        let line = said.lines().find(|line| line.contains("well-0/00000000000000000000.log\"")).unwrap();
        let found: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(
            code == 1 && found["sound"] == false && found["findings"][0]["severity"] == "damage",
            "{line}"
        );
    }
}

/// A metadata record of one kind that nobody writes yet.
fn record_of_kind(kind: u8) -> Vec<u8> {
    let payload = [kind, 1, 2, 3];
    let words = [payload.len() as u32, crc32c::crc32c(&payload)];
    words.into_iter().flat_map(u32::to_le_bytes).chain(payload).collect()
}

/// All files below a folder but the lock, which whoever looks takes.
fn contents(data: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(data).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.append(&mut contents(&path));
        } else if !path.ends_with("LOCK") {
            found.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    found
}

/// Somebody went back to an older version, which is this one. Nothing is damaged, so no repair is advised, and none is made.
#[test]
fn what_a_newer_version_wrote_is_refused_as_that_and_left_alone() {
    let newer_slot = |path: &Path| {
        let mut bytes = std::fs::read(path).unwrap();
        bytes[8] = 9;
        std::fs::write(path, bytes).unwrap();
    };
    let append = |path: &Path, more: &[u8]| {
        let bytes = [std::fs::read(path).unwrap(), more.to_vec()].concat();
        std::fs::write(path, bytes).unwrap();
    };
    let left = Left::behind();
    type Written<'a> = (&'a str, &'a str, &'a dyn Fn(&Path));
    let newer: [Written<'_>; 8] = [
        ("meta/journal", "kind 200", &|path| append(path, &record_of_kind(200))),
        ("core-1/checkpoint-a", "version 9", &|path| {
            newer_slot(path);
            newer_slot(&path.with_file_name("checkpoint-b"));
        }),
        ("core-1/checkpoint-b", "version 9", &newer_slot),
        ("core-0/swap", "version 2", &|path| {
            std::fs::write(path, "ringmill-swap 2 0\nand what it then says\n").unwrap();
        }),
        ("core-1/given-up", "version 2", &|path| {
            std::fs::write(path, "ringmill-given-up 2 0\nand what it then says\n").unwrap();
        }),
        ("handed-on", "version 9", &|path| {
            std::fs::copy(path.with_file_name("core-0/checkpoint-a"), path).unwrap();
            newer_slot(path);
        }),
        ("node.toml", "format 2", &|path| std::fs::write(path, "format = 2\n").unwrap()),
        // Damage besides: what the newer version makes of that is its matter.
        ("meta/journal", "kind 77", &|path| {
            let mut bytes = std::fs::read(path).unwrap();
            bytes[12] ^= 1;
            std::fs::write(path, bytes).unwrap();
            append(path, &record_of_kind(77));
        }),
    ];
    for (number, (name, says, write)) in newer.into_iter().enumerate() {
        let data = left.copy(&format!("newer-{number}"));
        write(&data.join(name));
        let before = contents(&data);
        let file = data.join(name);
        let told = |said: &str| {
            for part in [says, file.to_str().unwrap(), "newer version"] {
                assert!(said.contains(part), "{part:?} is not in: {said}");
            }
            assert!(!said.contains("--accept-loss"), "{said}");
        };
        let Err(refusal) = Broker::try_start(&data, &[]) else { panic!("{name}: it started") };
        assert_eq!(refusal.code, Some(NEWER_FORMAT), "{}", refusal.said);
        told(&refusal.said);
        for more in [&[][..], &["--everything"], &["--accept-loss", "--yes"]] {
            let (code, said) = run(&[&["log", "repair", data.to_str().unwrap()], more].concat());
            assert_eq!(code, 1, "{said}");
            told(&said);
        }
        let (code, said) = run(&["log", "verify", "--only-findings", data.to_str().unwrap()]);
        assert_eq!(code, 1, "{said}");
        told(&said);
        assert_eq!(said.contains("DAMAGED"), says == "kind 77", "{said}");
        assert!(contents(&data) == before, "{name}: something was changed");
    }
}

/// Decisions on two topics of one request, not in the order of their names, damaged or cut off by hand. A repair decides
/// again what the cores' checkpoints know; of partitions that they do not know it says that their records are lost.
#[test]
fn topics_that_the_journal_lost_come_back_from_the_cores() {
    const PLACES: [(&str, i32); 5] = [("zeta", 0), ("zeta", 1), ("zeta", 2), ("alpha", 0), ("alpha", 1)];
    for (in_order, by_hand) in [(true, false), (true, true), (false, false), (false, true)] {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let journal = data.join("meta/journal");
        let mut broker = Broker::start(&data, &[]);
        let mut client = broker.client();
        assert_eq!(client.create("well", 1, &[]).unwrap(), NONE);
        assert_eq!(client.produce("well", 0, &batch(ANYBODY, &["before"])).unwrap(), NONE);
        let before = std::fs::read(&journal).unwrap().len();
        let together = vec![creatable("zeta", 3, &[]), creatable("alpha", 2, &[])];
        assert_eq!(client.create_together(together).unwrap(), [NONE, NONE]);
        for (topic, partition) in PLACES {
            let record = format!("of {topic}-{partition}");
            assert_eq!(client.produce(topic, partition, &batch(ANYBODY, &[record])).unwrap(), NONE);
        }
        match in_order {
            true => assert_eq!(broker.stop().code(), Some(0)),
            false => broker.kill(),
        }
        let mut bytes = std::fs::read(&journal).unwrap();
        let says = if by_hand {
            bytes.truncate(before);
            "the metadata journal lacks decisions"
        } else {
            // The first record behind, and the last.
            bytes[before + 20] ^= 1;
            *bytes.last_mut().unwrap() ^= 1;
            "which gives up the decisions that were written last"
        };
        std::fs::write(&journal, &bytes).unwrap();
        refused(&data, &[says]);
        verify_names(&data, &journal);
        let lost: &[&str] =
            if in_order { &["settings of topic zeta", "settings of topic alpha"] } else { &[] };
        repair(&data, lost);
        let (code, said) = run(&["log", "verify", "--only-findings", data.to_str().unwrap()]);
        assert_eq!(code, 0, "{said}");

        let broker = Broker::start(&data, &[]);
        let mut client = broker.client();
        assert_eq!(client.read_from("well", 0, 0).len(), 1, "the neighbour is whole");
        for (topic, partition) in PLACES {
            let record = format!("of {topic}-{partition}");
            let stored = client.read_from(topic, partition, 0);
            let stored: Vec<&[u8]> = stored.iter().map(|record| record.value.as_slice()).collect();
            let kept = if in_order {
                stored == [record.as_bytes()]
            } else {
                stored.is_empty() || stored == [record.as_bytes()]
            };
            assert!(kept, "{topic}-{partition} holds {stored:?}");
            assert_eq!(client.produce(topic, partition, &batch(ANYBODY, &["it goes on"])).unwrap(), NONE);
        }
    }
}

/// Where partitions are is decided anew with every change of cores. A journal of before it, or one that lost just that record,
/// has all the ids, and places partitions on cores that never had them.
#[test]
fn a_journal_that_places_partitions_where_they_were_costs_nothing() {
    const PARTITIONS: i32 = 5;
    for by_hand in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let journal = data.join("meta/journal");
        let mut broker = Broker::start(&data, &[]);
        let mut client = broker.client();
        assert_eq!(client.create("t", PARTITIONS, &[]).unwrap(), NONE);
        let each = |client: &mut Client, what: &str| {
            for partition in 0..PARTITIONS {
                let record = format!("{what} of {partition}");
                assert_eq!(client.produce("t", partition, &batch(ANYBODY, &[record])).unwrap(), NONE);
            }
        };
        each(&mut client, "first");
        assert_eq!(broker.stop().code(), Some(0));
        let before = std::fs::read(&journal).unwrap();
        let mut broker = Broker::start(&data, &["--cores", "3"]);
        each(&mut broker.client(), "second");
        broker.kill();
        let mut bytes = std::fs::read(&journal).unwrap();
        assert_eq!(bytes[..before.len()], before, "where they are now is decided behind");
        if by_hand {
            bytes = before;
            std::fs::write(&journal, &bytes).unwrap();
            let said = "the metadata journal places partitions where they are not";
            for cores in ["3", "1"] {
                let Err(refusal) = Broker::try_start(&data, &["--cores", cores]) else { panic!("{cores}") };
                assert_eq!(refusal.code, Some(DATA_DAMAGED), "{}", refusal.said);
                assert!(refusal.said.contains(said), "{}", refusal.said);
            }
            verify_names(&data, &journal);
            assert_eq!(std::fs::read(&journal).unwrap(), bytes, "nothing was changed");
        } else {
            *bytes.last_mut().unwrap() ^= 1;
            std::fs::write(&journal, &bytes).unwrap();
        }
        let told: &[&str] = if by_hand { &[] } else { &["lost: what was decided last"] };
        repair(&data, told);
        let (code, said) = run(&["log", "verify", "--only-findings", data.to_str().unwrap()]);
        assert_eq!(code, 0, "{said}");

        let broker = Broker::start(&data, &["--cores", "3"]);
        let mut client = broker.client();
        for partition in 0..PARTITIONS {
            let stored = client.read_from("t", partition, 0);
            let stored: Vec<String> =
                stored.into_iter().map(|record| String::from_utf8(record.value).unwrap()).collect();
            assert_eq!(stored, [format!("first of {partition}"), format!("second of {partition}")]);
        }
        each(&mut client, "third");
    }
}

/// A new producer with the id of an old one would be told that its first batch was stored before. The decision on ids is
/// the last one, before the repair and after it.
#[test]
fn ids_of_producers_are_not_given_out_again_when_the_journals_end_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let journal = data.join("meta/journal");
    let mut broker = Broker::start(&data, &[]);
    assert_eq!(broker.client().create("t", 1, &[]).unwrap(), NONE);
    let mut given = Vec::new();
    for life in 1..=3 {
        let mut client = broker.client();
        let id = client.producer_id().unwrap();
        let first = batch(Author { id, sequence: 0 }, &[format!("of life {life}")]);
        assert_eq!(client.produce("t", 0, &first).unwrap(), NONE);
        assert_eq!(client.read_from("t", 0, 0).len(), life, "ids so far: {given:?}, and now {id}");
        given.push(id);
        assert_eq!(broker.stop().code(), Some(0));
        flip(&journal, std::fs::read(&journal).unwrap().len() - 1);
        refused(&data, &["which gives up the decisions that were written last"]);
        repair(&data, &["new producers get ids from"]);
        broker = Broker::start(&data, &[]);
    }
    assert!(given.is_sorted_by(|one, next| one < next), "{given:?}");
}

/// A broker would not start with what a repair leaves, and with the core's folder back it may have to lose less.
#[test]
fn nothing_is_given_up_while_something_else_cannot_be_repaired() {
    let left = Left::behind();
    let data = left.copy("damaged");
    let (file, at) = find(&data, &value(7));
    flip(&file, at);
    let other = if file.starts_with(data.join("core-0")) { data.join("core-1") } else { data.join("core-0") };
    let away = data.join("away");
    std::fs::rename(&other, &away).unwrap();
    let before = std::fs::read(&file).unwrap();
    let (code, said) = run(&["log", "repair", "--data", data.to_str().unwrap(), "--accept-loss", "--yes"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("hurt-0 from offset 7") && said.contains("nothing was changed"), "{said}");
    assert_eq!(std::fs::read(&file).unwrap(), before, "{said}");
    std::fs::rename(&away, &other).unwrap();
    repair(&data, &["hurt-0 from offset 7"]);
    assert_eq!(stored(&data).len(), 7);
}

/// What a core that is not there knows would be missing in the journal from then on.
#[test]
fn a_journal_that_lacks_decisions_is_left_alone_while_a_core_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let journal = data.join("meta/journal");
    let mut broker = Broker::start(&data, &[]);
    let mut client = broker.client();
    assert_eq!(client.create("well", 2, &[]).unwrap(), NONE);
    let before = std::fs::read(&journal).unwrap().len();
    assert_eq!(client.create("zeta", 2, &[]).unwrap(), NONE);
    assert_eq!(broker.stop().code(), Some(0));
    let mut bytes = std::fs::read(&journal).unwrap();
    bytes.truncate(before);
    std::fs::write(&journal, &bytes).unwrap();
    let (core, away) = (data.join("core-1"), dir.path().join("away"));
    std::fs::rename(&core, &away).unwrap();
    let (code, said) = run(&["log", "repair", "--data", data.to_str().unwrap(), "--accept-loss", "--yes"]);
    assert_eq!(code, 1, "{said}");
    assert_eq!(std::fs::read(&journal).unwrap(), bytes, "{said}");
    assert!(said.contains(&format!("{} is left as it is", journal.display())), "{said}");
    std::fs::rename(&away, &core).unwrap();
    repair(&data, &["settings of topic zeta"]);
    let broker = Broker::start(&data, &[]);
    let mut client = broker.client();
    for (topic, partition) in [("well", 0), ("well", 1), ("zeta", 0), ("zeta", 1)] {
        assert_eq!(client.produce(topic, partition, &batch(ANYBODY, &["it goes on"])).unwrap(), NONE);
    }
}
