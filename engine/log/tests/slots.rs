//! A checkpoint slot that rots at any time of a life, and is found so by the next start: everything acked is there, or the
//! start is refused. Never fewer records than were acked, and no word about it.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Core, batch_of};
use ringmill_log::LogOptions;
use ringmill_log::format::checkpoint::SLOT_NAMES;
use ringmill_reactor::Backend;
use ringmill_types::CoreId;
use std::path::Path;
use std::process::Command;

#[derive(Clone, Copy, Debug)]
enum Rot {
    Bit,
    Zeroed,
    Emptied,
    Removed,
}

const ROTS: [Rot; 4] = [Rot::Bit, Rot::Zeroed, Rot::Emptied, Rot::Removed];

fn rot(path: &Path, how: Rot) {
    let mut bytes = std::fs::read(path).unwrap();
    match how {
        Rot::Bit => bytes[60] ^= 4,
        Rot::Zeroed => bytes.fill(0),
        Rot::Emptied => bytes.clear(),
        Rot::Removed => return std::fs::remove_file(path).unwrap(),
    }
    std::fs::write(path, bytes).unwrap();
}

fn options(data: &Path) -> LogOptions {
    LogOptions {
        first_file_bytes: 256 << 10,
        file_bytes: 256 << 10,
        files_max: 3,
        tail_bytes: 128 << 10,
        group_bytes: 16 << 10,
        ..LogOptions::new(CoreId(0), data.to_path_buf())
    }
}

/// Records that were acked when the copy was made.
struct Moment {
    what: String,
    data: std::path::PathBuf,
    acked: usize,
}

struct Tale {
    home: tempfile::TempDir,
    moments: Vec<Moment>,
    acked: usize,
}

impl Tale {
    fn data(&self) -> std::path::PathBuf {
        self.home.path().join("data")
    }

    /// The folder as a kill -9 would leave it now. Nothing is under way: a copy of files that change is no such folder.
    fn snapshot(&mut self, core: &mut Core, what: &str) {
        while core.io.in_flight() > 0 {
            core.io.enter(Some(core.io.now_ns() + 5_000_000));
            while let Some(completion) = core.io.pop() {
                core.log.complete(&mut core.io, completion);
            }
        }
        self.copy(what);
    }

    fn copy(&mut self, what: &str) {
        let data = self.home.path().join(format!("moment-{}", self.moments.len()));
        let done = Command::new("cp").arg("-a").arg(self.data()).arg(&data).status().unwrap();
        assert!(done.success());
        self.moments.push(Moment { what: what.into(), data, acked: self.acked });
    }

    fn append(&mut self, core: &mut Core, count: usize) {
        for _ in 0..count {
            let bytes = batch_of(1, &(self.acked as u64).to_be_bytes(), 4000, core.io.wall_ms());
            core.append(0, &bytes);
            self.acked += 1;
        }
        core.settle();
    }
}

/// Three lives: a kill, an orderly stop, a kill; with and without checkpoints in between.
fn tale() -> Tale {
    let mut tale = Tale { home: tempfile::tempdir().unwrap(), moments: Vec::new(), acked: 0 };
    for life in 1..=3 {
        let (mut core, _) = Core::open_with(64 << 20, options(&tale.data()), life);
        let slots = SLOT_NAMES.map(|slot| std::fs::read(tale.data().join("core-0").join(slot)).unwrap());
        tale.snapshot(&mut core, &format!("life {life} has begun"));
        tale.append(&mut core, 3);
        tale.snapshot(&mut core, &format!("life {life} has acked"));
        // The checkpoint that follows a start may take long, on a full disk for ever: the slots as the start left them.
        tale.copy(&format!("life {life} has no second checkpoint and has acked"));
        for (slot, bytes) in SLOT_NAMES.iter().zip(slots) {
            std::fs::write(tale.moments.last().unwrap().data.join("core-0").join(slot), bytes).unwrap();
        }
        let before = core.log.metrics().checkpoints;
        let mut appended = 0;
        while core.log.metrics().checkpoints < before + 3 {
            tale.append(&mut core, 3);
            appended += 3;
            if appended % 30 == 0 {
                tale.snapshot(&mut core, &format!("life {life} after {appended}"));
            }
            assert!(appended < 2_000, "no checkpoint comes");
        }
        tale.append(&mut core, 3);
        tale.snapshot(&mut core, &format!("life {life}, three checkpoints later"));
        if life == 2 {
            core.stop();
            tale.copy("an orderly stop");
        }
    }
    tale
}

#[test]
fn a_slot_that_rots_costs_nothing_that_was_acked() {
    let tale = tale();
    let (mut whole, mut refused) = (0, 0);
    for moment in &tale.moments {
        for (slots, how) in [&SLOT_NAMES[..1], &SLOT_NAMES[1..], &SLOT_NAMES[..]]
            .iter()
            .flat_map(|slots| ROTS.iter().map(move |how| (*slots, *how)))
        {
            // How it rots is tried where a life is young, and where it rots everywhere.
            if !moment.what.ends_with("acked") && !matches!(how, Rot::Bit) {
                continue;
            }
            let data = tale.home.path().join("again");
            let done = Command::new("cp").arg("-a").arg(&moment.data).arg(&data).status().unwrap();
            assert!(done.success());
            for slot in slots {
                rot(&data.join("core-0").join(slot), how);
            }
            let about = format!("{}: {slots:?} {how:?}", moment.what);
            match try_read(&data) {
                Ok(found) => {
                    assert!(found.len() >= moment.acked, "{about}: {} of {}", found.len(), moment.acked);
                    let right = (0..).zip(&found).all(|(at, bytes)| bytes[..8] == u64::to_be_bytes(at));
                    assert!(right, "{about}: in order");
                    whole += 1;
                }
                Err(why) => {
                    assert!(!why.is_empty(), "{about}");
                    refused += 1;
                }
            }
            std::fs::remove_dir_all(&data).unwrap();
        }
    }
    assert!(whole >= 2 * tale.moments.len(), "one slot is enough: {whole} whole, {refused} refused");
    assert!(refused > 0);
}

/// The records found, or the sentence of the refusal.
fn try_read(data: &Path) -> Result<Vec<Vec<u8>>, String> {
    let (mut core, _) = Core::try_open_with(64 << 20, options(data), 99).map_err(|e| e.to_string())?;
    Ok(core.try_read_all(0).unwrap_or_else(|e| panic!("{e:?}: {}", core.log.describe())))
}
