//! From the runs of a calibration to costs: what CPU and flushes took, explained by what was done.

use crate::calibration::{Costs, Counts, Fitted, Flush, Holds, Run};
use crate::draw::Quantiles;
use crate::regression::{Observation, fit};
use crate::sim::{FlushTime, Load, Node, simulate};

const WAKE_US_MAX: f64 = 2000.0;
/// Halvings of that: 0.25 µs.
const WAKE_STEPS: u32 = 13;

impl Run {
    /// What was done, whatever thread did it.
    fn counts(&self) -> Counts {
        Counts {
            requests: self.requests,
            batches: self.batches,
            records: self.records,
            kib: self.wire_bytes / 1024.0,
            ..Counts::default()
        }
    }

    fn core_counts(&self) -> Counts {
        Counts { turns: self.core_turns, groups: self.groups, sleeps: self.core_sleeps, ..self.counts() }
    }

    /// The same load for the model.
    pub fn load(&self) -> Load {
        Load {
            linger_us: self.linger_us,
            batch_bytes: self.batch_bytes,
            ..Load::new(
                (self.asked > 0.0).then_some(self.asked),
                self.record_bytes,
                self.partitions,
                self.producers,
            )
        }
    }
}

/// `what` gives counts of a run, and the CPU that they took.
fn fitted<R>(runs: &[R], what: impl Fn(&R) -> (Counts, f64)) -> Fitted {
    let observed = |run| {
        let (counts, cpu_s) = what(run);
        Observation { counts: counts.all().to_vec(), cost: cpu_s * 1e6 }
    };
    let found = fit(&runs.iter().map(observed).collect::<Vec<_>>(), Costs::WIDTH);
    Fitted {
        costs: Costs::of(&found.coefficients),
        error_pct: found.error_pct,
        error_pct_max: found.error_pct_max,
    }
}

/// Costs of the generator's thread.
pub fn client(runs: &[Run]) -> Fitted {
    fitted(runs, |run| {
        let counts = Counts { turns: run.client_turns, sleeps: run.client_sleeps, ..run.counts() };
        (counts, run.client_cpu_s)
    })
}

/// Costs of the core's thread.
pub fn core(runs: &[Run]) -> Fitted {
    fitted(runs, |run| (run.core_counts(), run.core_cpu_s))
}

/// Costs of what runs beside the core, and of a partition for each second. The place of the turns holds the latter while
/// the regression runs: what works beside a core has no turns.
pub fn beside(runs: &[Run]) -> (Fitted, f64) {
    let mut found = fitted(runs, |run| {
        let turns = f64::from(run.partitions) * run.seconds;
        let Counts { requests, kib, .. } = run.counts();
        let counts = Counts { turns, requests, kib, groups: run.groups, ..Counts::default() };
        (counts, (run.broker_cpu_s - run.core_cpu_s).max(0.0))
    });
    let partition = std::mem::take(&mut found.costs.turn_us);
    (found, partition)
}

/// Costs of reading, from runs whose counts are those of fetches.
pub fn reading(runs: &[(f64, Run)]) -> Fitted {
    fitted(runs, |(cpu_s, run)| (Counts { batches: 0.0, ..run.counts() }, *cpu_s))
}

/// What the core spent on its readers in a run: all but what its producers took, by costs that were found without readers.
/// Not less than a fiftieth of it, since that is what these costs may be wrong by.
pub fn reading_share_s(core: &Fitted, run: &Run) -> f64 {
    let produce_us = core.costs.us(&run.core_counts());
    (run.core_cpu_s - produce_us / 1e6).max(run.core_cpu_s / 50.0)
}

/// The flushes of a run once it was warm, as the broker's metrics have them.
#[derive(Clone, Debug)]
pub struct Flushes {
    /// Microseconds, until their core came to them.
    pub times: Quantiles,
    pub count: f64,
    pub seconds: f64,
}

/// What takes so many times as long as a run's flushes do, and so long at least, is no flush: something held the core up.
const HOLD_TIMES: f64 = 8.0;
pub(crate) const HOLD_US_MIN: f64 = 4096.0;
/// The longest ones that are told apart: 2 s.
const HOLD_STEPS: i32 = 10;

impl Flushes {
    fn hold_us(&self) -> f64 {
        (self.times.mean() * HOLD_TIMES).max(HOLD_US_MIN)
    }
}

/// How flushes of several runs lie around their means: the typical way, without what held their cores up.
pub fn around(all: &[Flushes]) -> Option<Quantiles> {
    let relative = all.iter().map(|one| {
        let flushes = one.times.clone().cut(one.hold_us());
        let mean = flushes.mean().max(1e-9);
        flushes.scaled(1.0 / mean)
    });
    let typical = Quantiles::typical(&relative.collect::<Vec<_>>())?;
    let mean = typical.mean();
    (mean > 0.0).then(|| typical.scaled(1.0 / mean))
}

/// What held cores up in the middle one of these runs, which had a schedule: how often in a second, and for how long. They
/// come in swarms, and a mean over all would give every run a share of the few bad ones. A run says something of lengths
/// that its own flushes never have.
pub fn holds(all: &[Flushes]) -> Option<Holds> {
    let longer_per_second = |us: f64| {
        let able = all.iter().filter(|one| one.hold_us() <= us && one.seconds > 0.0);
        let mut rates: Vec<f64> =
            able.map(|one| one.count * (1.0 - one.times.part_of(us)) / one.seconds).collect();
        rates.sort_by(f64::total_cmp);
        rates.get(rates.len() / 2).copied().unwrap_or(0.0)
    };
    let bounds: Vec<f64> = (0..=HOLD_STEPS).map(|step| HOLD_US_MIN * f64::from(1 << step)).collect();
    // Of longer ones there are never more, whichever runs could tell.
    let mut rates: Vec<f64> = bounds.iter().map(|us| longer_per_second(*us)).collect();
    for at in (1..rates.len()).rev() {
        if let [shorter, longer] = &mut rates[at - 1..=at] {
            *shorter = shorter.max(*longer);
        }
    }
    let per_second = rates.first().copied().filter(|rate| *rate > 0.0)?;
    let below: Vec<(f64, f64)> =
        bounds.iter().zip(&rates).map(|(us, longer)| (*us, per_second - longer)).collect();
    Some(Holds { per_second, us: Quantiles::of_buckets(&below)? })
}

impl Flush {
    /// For the model.
    pub fn time(&self) -> FlushTime {
        FlushTime {
            base_us: self.base_us,
            kib_us: self.kib_us,
            sync_us: self.sync_us,
            around: self.around.clone(),
        }
    }
}

/// The wait of a sleeping thread that makes the model's median that of a measured run.
pub fn wake_us(node: &Node, run: &Run) -> f64 {
    const RECORDS: u64 = 4000;
    let load = run.load();
    let (mut low, mut high) = (0.0, WAKE_US_MAX);
    for _ in 0..WAKE_STEPS {
        let wake_us = (low + high) / 2.0;
        let played = simulate(&load, &Node { wake_us, ..node.clone() }, RECORDS, 1);
        if played.ms(0.5) < run.p50_ms { low = wake_us } else { high = wake_us }
    }
    (low + high) / 2.0
}

/// The middle one; 1 for none.
pub fn middle(mut ratios: Vec<f64>) -> f64 {
    ratios.retain(|ratio| ratio.is_finite() && *ratio > 0.0);
    ratios.sort_by(f64::total_cmp);
    ratios.get(ratios.len() / 2).copied().unwrap_or(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibration::tests::example;
    use crate::sim::Stalls;

    fn run(record_bytes: u32, requests: f64, batches: f64, records: f64) -> Run {
        let wire_bytes = records * f64::from(record_bytes);
        let (groups, client_turns, core_turns) = (requests / 3.0, requests * 2.0, requests * 1.5);
        let (client_sleeps, core_sleeps) = (requests * 0.7 + records / 1e4, requests * 0.2 + 30.0);
        let costs = example().sides;
        let kib = wire_bytes / 1024.0;
        let counts = Counts { requests, batches, records, kib, ..Counts::default() };
        let of_client = Counts { turns: client_turns, sleeps: client_sleeps, ..counts };
        let of_core = Counts { turns: core_turns, groups, sleeps: core_sleeps, ..counts };
        Run {
            record_bytes,
            partitions: 1,
            producers: 1,
            seconds: 1.0,
            records,
            wire_bytes,
            requests,
            batches,
            groups,
            group_bytes: wire_bytes,
            client_turns,
            core_turns,
            client_sleeps,
            core_sleeps,
            client_cpu_s: costs.client.costs.us(&of_client) / 1e6,
            core_cpu_s: costs.core.costs.us(&of_core) / 1e6,
            flush_mean_us: 100.0 + 0.5 * kib / groups,
            ..Run::default()
        }
    }

    fn runs() -> Vec<Run> {
        vec![
            run(100, 1e4, 1e4, 1e5),
            run(100, 100.0, 1e4, 1e6),
            run(1000, 1e3, 5e4, 5e4),
            run(10_000, 2e3, 2e3, 5e4),
            run(1000, 5e3, 1e5, 9e5),
            run(500, 9e3, 9e3, 9e3),
            run(20, 10.0, 20.0, 1e6),
        ]
    }

    #[test]
    fn what_explains_the_runs_predicts_another_one() {
        let (runs, new) = (runs(), run(3000, 777.0, 3000.0, 40_000.0));
        let of = |fitted: Fitted, turns: f64, groups: f64, sleeps: f64| {
            let (requests, batches, records) = (new.requests, new.batches, new.records);
            let kib = new.wire_bytes / 1024.0;
            fitted.costs.us(&Counts { turns, requests, batches, records, kib, groups, sleeps }) / 1e6
        };
        let core = of(core(&runs), new.core_turns, new.groups, new.core_sleeps);
        assert!((core / new.core_cpu_s - 1.0).abs() < 0.05, "{core} for {}", new.core_cpu_s);
        let client = of(client(&runs), new.client_turns, 0.0, new.client_sleeps);
        assert!((client / new.client_cpu_s - 1.0).abs() < 0.05, "{client} for {}", new.client_cpu_s);
    }

    fn flushes(times: &[(f64, f64)], count: f64, seconds: f64) -> Flushes {
        Flushes { times: Quantiles::of_buckets(times).expect("some were counted"), count, seconds }
    }

    #[test]
    fn what_is_far_longer_than_a_flush_held_the_core_up() {
        // 1,000 flushes of 128 to 256 µs, and four that took 8 to 16 ms; half as many in as long in the other two runs.
        let one =
            flushes(&[(128.0, 0.0), (256.0, 1000.0), (8192.0, 1000.0), (16_384.0, 1004.0)], 1004.0, 2.0);
        let other =
            flushes(&[(128.0, 0.0), (256.0, 998.0), (8192.0, 998.0), (16_384.0, 1000.0)], 1000.0, 2.0);
        let found = holds(&[other.clone(), one.clone(), other.clone()]).expect("eight of them");
        assert!((found.per_second - 1.0).abs() < 0.01, "{found:?}");
        assert!((8191.0..=16_385.0).contains(&found.us.at(0.5)) && found.us.is_sound(), "{found:?}");
        // They are not in the flushes too.
        let rest = around(&[one.clone(), other]).expect("flushes");
        assert!((rest.mean() - 1.0).abs() < 0.01 && rest.at(1.0) < 25.0, "{rest:?}");
        let none = flushes(&[(128.0, 0.0), (256.0, 1000.0)], 1000.0, 2.0);
        assert_eq!(holds(&[none.clone(), one.clone(), none]), None, "a swarm in one of three");
        // Of what its own flushes take, a run that is full says nothing.
        let full = flushes(&[(2048.0, 0.0), (4096.0, 900.0), (8192.0, 1000.0)], 1000.0, 2.0);
        assert_eq!(holds(&[full]), None);
        assert_eq!(holds(&[]), None);
    }

    #[test]
    fn what_producers_did_not_take_readers_took() {
        let costs = Fitted { costs: example().sides.core.costs, ..Fitted::default() };
        let mut alone = run(1000, 1e3, 5e4, 5e4);
        // Nothing but its producers' work: no less than a fiftieth is said.
        assert!((reading_share_s(&costs, &alone) - alone.core_cpu_s / 50.0).abs() < 1e-9);
        alone.core_cpu_s += 0.3;
        assert!((reading_share_s(&costs, &alone) - 0.3).abs() < 1e-9);
    }

    #[test]
    fn a_wake_is_found_from_a_median() {
        let known = example();
        let mut node = Node {
            client: known.sides.client.costs,
            core: known.sides.core.costs,
            fetch: Costs::default(),
            flush: known.flush.time(),
            stalls: Stalls::default(),
            holds: Stalls::default(),
            wake_us: 33.0,
            timer_us: 0.0,
            nap_us: 0.0,
            slow: 1.0,
            client_threads: 1.0,
        };
        let mut single = run(1000, 1.0, 1.0, 1.0);
        (single.linger_us, single.batch_bytes, single.asked) = (0.0, 16_384, 500.0);
        single.p50_ms = simulate(&single.load(), &node, 20_000, 9).ms(0.5);
        node.wake_us = 0.0;
        let found = wake_us(&node, &single);
        assert!((found - 33.0).abs() < 3.0, "{found}");
    }

    #[test]
    fn the_middle_is_not_moved_by_what_cannot_be() {
        assert_eq!(middle(vec![f64::NAN, 3.0, 1.0, 2.0, -1.0]), 2.0);
        assert_eq!(middle(vec![]), 1.0);
    }
}
