//! A calibration brought to bear on a load: what saturates a core, and what latency there is below that.

use crate::calibration::{Calibration, Counts, Run, Waits};
use crate::fit;
use crate::sim::{Load, NAP_US, Node, Simulated, Stalls, simulate};

/// Records of one play: enough for a p99, and for slow loads not for hours of them.
const RECORDS_MIN: f64 = 40_000.0;
const RECORDS_MAX: f64 = 400_000.0;
/// Of a play without a limit, whose rate is all that counts: many times what producers may have under way, or it would be
/// the rate at which their windows fill.
const BYTES_UNLIMITED: f64 = 600e6;
const RECORDS_UNLIMITED: f64 = 2_000_000.0;
const SECONDS: f64 = 2.0;
/// Rounds in which the contention for CPUs is found.
const ROUNDS: u32 = 4;
/// What threads can have of all CPUs together; the rest is the kernel's and everybody's.
const CPU_PART: f64 = 0.95;
const SEED: u64 = 20_261_121;
/// Names of designed runs: a record at a time; and how those end that are paced at half and at 80 % of another's rate.
pub const SINGLE: &str = "single";
const HALF: &str = "-half";
const HIGH: &str = "-high";

/// Where the clients are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Clients {
    /// On the broker's machine, all in one thread, as `--verify` has them.
    Here,
    /// On machines of their own, a thread each.
    Apart,
}

/// A load that was played through.
#[derive(Clone, Debug)]
pub struct Played {
    pub simulated: Simulated,
    /// CPUs that broker, clients and readers used, as far as they share this machine.
    pub cpus: f64,
    /// Of those, what the broker used.
    pub broker_cpus: f64,
}

fn node(calibration: &Calibration, clients: Clients, load: &Load, readers: u32) -> Node {
    let sides = &calibration.sides;
    let mut core = sides.core.costs;
    let fetch = sides.core_fetch.costs;
    let count = f64::from(readers);
    // A reader at the end of the log is woken by every group that is durable, and gets what it holds.
    core.kib_us += count * fetch.kib_us;
    core.record_us += count * fetch.record_us;
    core.group_us += count * fetch.request_us;
    Node {
        client: sides.client.costs,
        core,
        flush: calibration.flush.time(),
        stalls: Stalls {
            per_second: calibration.stalls_us.as_ref().map_or(0.0, |_| calibration.machine.stalls_per_second),
            us: calibration.stalls_us.clone().unwrap_or_default(),
        },
        wake_us: calibration.waits.wake_us,
        timer_us: calibration.machine.timer_us,
        nap_us: match clients {
            Clients::Here => NAP_US as f64,
            Clients::Apart => 0.0,
        },
        slow: 1.0,
        client_threads: match clients {
            Clients::Here => 1.0,
            Clients::Apart => f64::from(load.producers.max(1)),
        },
    }
}

/// CPUs that the broker uses beside its core's thread, and that readers on this machine use.
fn others(calibration: &Calibration, load: &Load, played: &Simulated, readers: u32) -> (f64, f64) {
    let seconds = played.seconds.max(1e-9);
    let records = played.records as f64;
    let kib = records * f64::from(load.record_bytes) / 1024.0;
    let (requests, groups) = (played.requests as f64, played.groups as f64);
    let sides = &calibration.sides;
    let written = Counts { requests, kib, groups, ..Counts::default() };
    let beside = sides.beside.costs.us(&written) / seconds
        + f64::from(load.partitions) * sides.partition_us_per_second;
    // A fetch for each group.
    let read = Counts { requests: groups, records, kib, ..Counts::default() };
    let reader = sides.client_fetch.costs.us(&read) / seconds;
    (beside / 1e6, f64::from(readers) * reader / 1e6)
}

/// Plays a load on one core of the calibrated machine.
pub fn play(calibration: &Calibration, load: &Load, clients: Clients, readers: u32) -> Played {
    let mut node = node(calibration, clients, load, readers);
    let size = f64::from(load.record_bytes.max(1));
    let records = load.rate.map_or((BYTES_UNLIMITED / size).min(RECORDS_UNLIMITED), |rate| {
        (rate * SECONDS).clamp(RECORDS_MIN, RECORDS_MAX)
    });
    let records = records.min(f64::from(u32::MAX) * 16.0 / f64::from(load.record_bytes.max(1))).max(2000.0);
    let limit = f64::from(calibration.stamp.cpus) * CPU_PART;
    loop_until_fits(calibration, load, clients, readers, &mut node, records as u64, limit)
}

fn loop_until_fits(
    calibration: &Calibration,
    load: &Load,
    clients: Clients,
    readers: u32,
    node: &mut Node,
    records: u64,
    limit: f64,
) -> Played {
    let mut round = 0;
    loop {
        let simulated = simulate(load, node, records, SEED);
        let (beside, reading) = others(calibration, load, &simulated, readers);
        // What is busy longer because it had to wait for a CPU does not use more of it.
        let core = simulated.core_busy / node.slow;
        let broker_cpus = core + beside;
        let cpus = match clients {
            Clients::Here => broker_cpus + simulated.client_busy / node.slow + reading,
            Clients::Apart => broker_cpus,
        };
        let wanted = (cpus * node.slow / limit).max(1.0);
        round += 1;
        let settled = (wanted - node.slow).abs() < 0.02 * node.slow;
        if settled || round == ROUNDS || clients == Clients::Apart {
            return Played { simulated, cpus, broker_cpus };
        }
        node.slow = (node.slow + wanted) / 2.0;
    }
}

/// What the model is wrong by on the runs that it was fitted from; `calibration` is one without corrections. Of each, the
/// middle one: the rate of runs as fast as it goes, then p99 at half and at 80 % of a rate corrected by that.
pub fn waits(calibration: &Calibration, runs: &[Run]) -> Waits {
    let mut found = calibration.clone();
    if let Some(single) = runs.iter().find(|run| run.name == SINGLE) {
        let alone = Node { stalls: Stalls::default(), ..node(&found, Clients::Here, &single.load(), 0) };
        found.waits.wake_us = fit::wake_us(&alone, single);
    }
    let rates = runs
        .iter()
        .filter(|run| run.asked == 0.0)
        .map(|run| run.rate / play(&found, &run.load(), Clients::Here, 0).simulated.rate);
    found.waits.saturation = fit::middle(rates.collect());
    let tail = |ending: &str| {
        let runs = runs.iter().filter(|run| run.name.ends_with(ending));
        let ratios = runs.map(|run| {
            let load = alike(&found, &run.load());
            run.p99_ms / play(&found, &load, Clients::Here, 0).simulated.ms(0.99)
        });
        fit::middle(ratios.collect())
    };
    Waits { tail_half: tail(HALF), tail_high: tail(HIGH), ..found.waits }
}

/// Records per second at saturation of one core, with clients where they are.
pub fn saturation(calibration: &Calibration, load: &Load, clients: Clients, readers: u32) -> f64 {
    let unlimited = Load { rate: None, ..load.clone() };
    let played = play(calibration, &unlimited, clients, readers);
    let by_disk = calibration.disk_bytes_per_second / 2.0 / f64::from(load.record_bytes.max(1));
    (played.simulated.rate * calibration.waits.saturation).min(by_disk)
}

/// The tail's correction at a part of the saturation: between the two that were measured, and beyond them as at the
/// nearer one.
fn tail_factor(calibration: &Calibration, part: f64) -> f64 {
    let (half, high) = (calibration.waits.tail_half, calibration.waits.tail_high);
    let along = ((part - 0.5) / 0.3).clamp(0.0, 1.0);
    half * (high / half).powf(along)
}

/// A load of a real machine as the model has to be given it, to be as far from saturation as there.
fn alike(calibration: &Calibration, load: &Load) -> Load {
    Load { rate: load.rate.map(|rate| rate / calibration.waits.saturation), ..load.clone() }
}

/// p50 and p99 in milliseconds at the load's rate, which is `part` of the saturation.
pub fn latency(
    calibration: &Calibration,
    load: &Load,
    clients: Clients,
    readers: u32,
    part: f64,
) -> (f64, f64) {
    let played = play(calibration, &alike(calibration, load), clients, readers).simulated;
    let (p50, p99) = (played.ms(0.5), played.ms(0.99));
    (p50, (p99 * tail_factor(calibration, part)).max(p50))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibration::tests::example;

    #[test]
    fn a_core_saturates_where_its_costs_say() {
        let mut calibration = example();
        calibration.disk_bytes_per_second = 1e12;
        calibration.sides.client = Default::default();
        (calibration.flush.base_us, calibration.flush.kib_us) = (20.0, 0.0);
        let load = Load::new(None, 1000, 8, 8);
        let found = saturation(&calibration, &load, Clients::Apart, 0);
        // Of a record: its own cost, its KiB, and a sixteenth of its batch's.
        let us = 0.05 + 0.15 * 1010.0 / 1024.0 + 1.0 / 16.0;
        assert!(found < 1e6 / us, "{found}");
        assert!(found > 0.3e6 / us, "{found}");
    }

    #[test]
    fn latency_rises_with_the_load_and_with_readers() {
        let mut calibration = example();
        calibration.disk_bytes_per_second = 1e12;
        let load = |rate| Load::new(Some(rate), 1000, 8, 4);
        let most = saturation(&calibration, &load(1.0), Clients::Here, 0);
        let at = |part: f64| latency(&calibration, &load(most * part), Clients::Here, 0, part);
        let (half, near) = (at(0.5), at(0.98));
        assert!(half.1 >= half.0 && near.1 >= half.1 * 0.9, "{half:?} {near:?}");
        assert!(saturation(&calibration, &load(1.0), Clients::Here, 3) < most);
    }

    #[test]
    fn a_model_that_is_too_slow_is_asked_for_less() {
        let mut calibration = example();
        calibration.disk_bytes_per_second = 1e12;
        let load = Load::new(Some(50_000.0), 1000, 8, 4);
        let right = latency(&calibration, &load, Clients::Here, 0, 0.5);
        // The real machine gives twice what the model says: twice the load is as far from its saturation.
        calibration.waits.saturation = 2.0;
        let double = Load { rate: Some(100_000.0), ..load };
        assert_eq!(latency(&calibration, &double, Clients::Here, 0, 0.5), right);
    }

    #[test]
    fn corrections_are_what_the_model_lacks_on_its_own_runs() {
        let mut calibration = example();
        calibration.disk_bytes_per_second = 1e12;
        let run = |name: &str, asked: f64, rate: f64, p99_ms: f64| Run {
            name: name.into(),
            record_bytes: 1000,
            partitions: 8,
            producers: 4,
            linger_us: 5000.0,
            batch_bytes: 16_384,
            asked,
            rate,
            p50_ms: p99_ms / 2.0,
            p99_ms,
            ..Run::default()
        };
        let full = run("full", 0.0, 1.0, 0.0);
        let most = play(&calibration, &full.load(), Clients::Here, 0).simulated.rate;
        let half = run("full-half", most * 0.75, most * 0.75, 0.0);
        // As far from saturation as the model's half.
        let p99 = play(&calibration, &Load { rate: Some(most * 0.5), ..half.load() }, Clients::Here, 0);
        let p99 = p99.simulated.ms(0.99);
        let runs = [Run { rate: most * 1.5, ..full }, Run { p99_ms: p99 * 3.0, ..half }];
        let found = waits(&calibration, &runs);
        assert!((found.saturation - 1.5).abs() < 1e-9, "{found:?}");
        assert!((found.tail_half - 3.0).abs() < 1e-6, "{found:?}");
        assert_eq!(found.tail_high, 1.0);
    }

    #[test]
    fn the_tails_correction_lies_between_what_was_measured() {
        let mut calibration = example();
        (calibration.waits.tail_half, calibration.waits.tail_high) = (1.0, 4.0);
        assert_eq!(tail_factor(&calibration, 0.1), 1.0);
        assert!((tail_factor(&calibration, 0.65) - 2.0).abs() < 1e-9);
        assert!((tail_factor(&calibration, 0.95) - 4.0).abs() < 1e-9);
    }
}
