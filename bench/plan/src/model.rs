//! A calibration brought to bear on a load: what saturates a core, and what latency there is below that.

use crate::calibration::{Calibration, Costs, Counts, Misses, Run};
use crate::fit;
use crate::sim::{Load, NAP_US, Node, Simulated, Stalls, simulate};

/// Records of one play: enough for a median, and for slow loads not for hours of them.
const RECORDS_MIN: f64 = 40_000.0;
const RECORDS_MAX: f64 = 400_000.0;
/// Of a play for latencies, which is as long as a run is measured; what happens once in a second has to happen in it.
const RECORDS_TAIL_MAX: f64 = 4e6;
const RECORDS_PLAYED_MIN: f64 = 2000.0;
/// Plays for latencies: the middle one counts, as of rounds that are measured.
const PLAYS: u64 = 5;
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
    /// As it was played, with the contention for CPUs that was found.
    node: Node,
}

pub(crate) fn node(calibration: &Calibration, clients: Clients, load: &Load, readers: u32) -> Node {
    let sides = &calibration.sides;
    let (fetch, count) = (sides.core_fetch.costs, f64::from(readers));
    // A reader at the end of the log is woken by every group that is durable, and gets what it holds.
    let fetch = Costs {
        request_us: fetch.request_us * count,
        record_us: fetch.record_us * count,
        kib_us: fetch.kib_us * count,
        ..Costs::default()
    };
    Node {
        client: sides.client.costs,
        core: sides.core.costs,
        fetch,
        flush: calibration.flush.time(),
        // Longer ones are rare: a second of looking for them says nothing of their rate, and the holds of all runs do.
        stalls: calibration.stalls_us.as_ref().map_or(Stalls::default(), |us| {
            let (share, us) = us.up_to(fit::HOLD_US_MIN);
            Stalls { per_second: calibration.machine.stalls_per_second * share, us }
        }),
        holds: calibration
            .holds
            .as_ref()
            .map_or(Stalls::default(), |holds| Stalls { per_second: holds.per_second, us: holds.us.clone() }),
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
    let records =
        records.min(f64::from(u32::MAX) * 16.0 / f64::from(load.record_bytes.max(1))).max(RECORDS_PLAYED_MIN);
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
            return Played { simulated, cpus, broker_cpus, node: node.clone() };
        }
        node.slow = (node.slow + wanted) / 2.0;
    }
}

/// What the model is wrong by on the runs that it was fitted from.
pub fn misses(calibration: &Calibration, runs: &[Run]) -> Misses {
    let rates = runs
        .iter()
        .filter(|run| run.asked == 0.0)
        .map(|run| run.rate / play(calibration, &run.load(), Clients::Here, run.readers).simulated.rate);
    let tail = |ending: &str| {
        let runs = runs.iter().filter(|run| run.name.ends_with(ending));
        let ratios =
            runs.map(|run| run.p99_ms / latency(calibration, &run.load(), Clients::Here, run.readers).1);
        fit::middle(ratios.collect())
    };
    Misses { rate: fit::middle(rates.collect()), p99_half: tail(HALF), p99_high: tail(HIGH) }
}

/// Records per second at saturation of one core, with clients where they are.
pub fn saturation(calibration: &Calibration, load: &Load, clients: Clients, readers: u32) -> f64 {
    let unlimited = Load { rate: None, ..load.clone() };
    let played = play(calibration, &unlimited, clients, readers);
    let by_disk = calibration.disk_bytes_per_second / 2.0 / f64::from(load.record_bytes.max(1));
    played.simulated.rate.min(by_disk)
}

/// p50 and p99 in milliseconds at the load's rate: of the middle one of several plays, each as long as a run is measured.
pub fn latency(calibration: &Calibration, load: &Load, clients: Clients, readers: u32) -> (f64, f64) {
    let node = play(calibration, load, clients, readers).node;
    let rate = load.rate.unwrap_or(RECORDS_MIN);
    let records = (rate * SECONDS).clamp(RECORDS_PLAYED_MIN, RECORDS_TAIL_MAX) as u64;
    let plays: Vec<Simulated> = (0..PLAYS).map(|at| simulate(load, &node, records, SEED + at)).collect();
    let middle = |part: f64| fit::middle(plays.iter().map(|one| one.ms(part)).collect());
    (middle(0.5), middle(0.99))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibration::Holds;
    use crate::calibration::tests::example;
    use crate::draw::Quantiles;

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
        let at = |part: f64| latency(&calibration, &load(most * part), Clients::Here, 0);
        let (half, near) = (at(0.5), at(0.98));
        assert!(half.1 >= half.0 && near.1 >= half.1 * 0.9, "{half:?} {near:?}");
        assert!(saturation(&calibration, &load(1.0), Clients::Here, 3) < most);
    }

    #[test]
    fn what_the_model_lacks_on_its_own_runs_is_known() {
        let mut calibration = example();
        calibration.disk_bytes_per_second = 1e12;
        let run = |name: &str, asked: f64| Run {
            name: name.into(),
            record_bytes: 1000,
            partitions: 8,
            producers: 4,
            linger_us: 5000.0,
            batch_bytes: 16_384,
            asked,
            ..Run::default()
        };
        let full = run("full", 0.0);
        let most = play(&calibration, &full.load(), Clients::Here, 0).simulated.rate;
        let half = run("full-half", most / 2.0);
        let (_, p99) = latency(&calibration, &half.load(), Clients::Here, 0);
        let runs = [Run { rate: most * 1.5, ..full }, Run { p99_ms: p99 * 3.0, ..half }];
        let found = misses(&calibration, &runs);
        assert!((found.rate - 1.5).abs() < 1e-9, "{found:?}");
        assert!((found.p99_half - 3.0).abs() < 1e-6, "{found:?}");
        assert_eq!(found.p99_high, 1.0);
    }

    #[test]
    fn a_thread_stalls_for_as_long_as_no_hold_does() {
        let mut calibration = example();
        calibration.machine.stalls_per_second = 10.0;
        calibration.stalls_us =
            Some(Quantiles { parts: vec![0.0, 0.5, 1.0], values: vec![100.0, 4096.0, 25_000.0] });
        let stalls = node(&calibration, Clients::Here, &Load::new(None, 1000, 8, 4), 0).stalls;
        assert!((stalls.per_second - 5.0).abs() < 1e-6 && stalls.us.at(1.0) <= 4096.1, "{stalls:?}");
    }

    #[test]
    fn a_rare_hold_is_in_the_middle_play_only_where_it_is_in_most() {
        let mut calibration = example();
        calibration.disk_bytes_per_second = 1e12;
        let load = Load::new(Some(20_000.0), 1000, 8, 4);
        let with = |per_second: f64| {
            let us = Quantiles { parts: vec![0.0, 1.0], values: vec![90_000.0, 90_000.0] };
            let holds = (per_second > 0.0).then_some(Holds { per_second, us });
            latency(&Calibration { holds, ..calibration.clone() }, &load, Clients::Here, 0).1
        };
        let without = with(0.0);
        assert!(with(0.02) < without * 1.5, "once in 50 s");
        assert!(with(2.0) > 40.0, "four times in each");
    }
}
