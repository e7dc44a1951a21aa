//! A core's log on a simulated disk whose power goes, held to its promises: what was acked or read is there after any
//! cut with the same bytes, offsets are dense and in order, nothing shows above the high watermark, a producer's retry
//! is stored once. All of that also on a disk whose flushes or writes fail, or that is full for a while, or with hardly a descriptor. One seed is one
//! run, the same every time; `RINGMILL_SEEDS=A..B` runs others, `RINGMILL_OPS=N` longer.
#![allow(clippy::unwrap_used)]

mod model;
mod run;

use ringmill_log::Faults;
use run::{Plan, Stats, Weather, run};

const OPS: u64 = 800;

/// A panic is a failure like any other.
fn check_in(weather: Weather, seed: u64, ops: u64, faults: Faults) -> Result<Stats, String> {
    std::panic::catch_unwind(|| run(Plan { seed, ops, faults, weather })).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        Err(format!("panic: {}", text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("without a text")))
    })
}

fn check(seed: u64, ops: u64, faults: Faults) -> Result<Stats, String> {
    check_in(Weather::Calm, seed, ops, faults)
}

fn numbers(name: &str) -> Option<Vec<u64>> {
    let text = std::env::var(name).ok()?;
    Some(text.split("..").map(|n| n.parse().expect("numbers, as A..B")).collect())
}

/// All seeds of a weather, or those asked for.
fn promises_hold(weather: Weather, seeds: u64, test: &str) -> Stats {
    let range = numbers("RINGMILL_SEEDS").map_or(0..seeds, |n| n[0]..n[1]);
    let ops = numbers("RINGMILL_OPS").map_or(OPS, |n| n[0]);
    let mut total = Stats::default();
    let mut failed = Vec::new();
    for seed in range.clone() {
        match check_in(weather, seed, ops, Faults::default()) {
            Ok(stats) => total.add(&stats),
            Err(why) => failed.push(format!(
                "seed {seed}: {why}\n  repeat: RINGMILL_SEEDS={seed}..{} RINGMILL_OPS={ops} \
                 cargo test -p ringmill-log --test power_cuts {test}",
                seed + 1
            )),
        }
    }
    println!("{weather:?}: {total:?}");
    assert!(failed.is_empty(), "{} of {range:?}:\n{}", failed.len(), failed.join("\n"));
    assert!(total.cuts > 0 && total.reads > 0 && total.appends > 0);
    total
}

#[test]
fn promises_hold_under_power_cuts() {
    promises_hold(Weather::Calm, 200, "promises_hold_under_power_cuts");
}

#[test]
fn promises_hold_when_flushes_fail() {
    let total = promises_hold(Weather::FlushErrors, 60, "promises_hold_when_flushes_fail");
    assert!(total.fatal > 0 && total.refused_starts > 0);
}

#[test]
fn promises_hold_when_writes_fail() {
    let total = promises_hold(Weather::WriteErrors, 60, "promises_hold_when_writes_fail");
    // The disk of a segment fails: that partition refuses, the others go on.
    assert!(total.fatal > 0 && total.refused > 0 && total.refused_starts > 0);
}

/// Not fatal, never: retriable errors as long as there is no room, and nobody has to help when there is.
#[test]
fn promises_hold_when_the_disk_is_full() {
    let total = promises_hold(Weather::FullDisk, 60, "promises_hold_when_the_disk_is_full");
    assert_eq!(total.fatal, 0);
    assert!(total.refused > 0 && total.healed > 0);
}

/// No append is refused for want of a descriptor, and no life ends: it waits.
#[test]
fn promises_hold_when_files_are_few() {
    let total = promises_hold(Weather::FewFiles, 60, "promises_hold_when_files_are_few");
    assert_eq!((total.fatal, total.refused), (0, 0));
    assert!(total.healed > 0 && total.refused_starts > 0);
}

#[test]
fn one_seed_is_one_run() {
    let once = check(7, OPS, Faults::default());
    assert_eq!(once, check(7, OPS, Faults::default()));
    assert_ne!(once, check(8, OPS, Faults::default()));
}

/// The first seed that finds the fault.
fn finds(faults: Faults, seeds: u64) -> u64 {
    (0..seeds).find(|seed| check(*seed, OPS, faults).is_err()).expect("the fault shows within these seeds")
}

#[test]
fn acks_before_the_flush_are_found() {
    finds(Faults { ack_before_flush: true, ..Faults::default() }, 40);
}

#[test]
fn space_reused_before_the_segments_are_synced_is_found() {
    finds(Faults { reclaim_before_sync: true, ..Faults::default() }, 40);
}

#[test]
fn groups_of_another_life_taken_for_this_one_are_found() {
    finds(Faults { trust_stale_groups: true, ..Faults::default() }, 200);
}
