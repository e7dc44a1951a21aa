//! From the runs of a calibration to costs: what CPU and flushes took, explained by what was done.

use crate::calibration::{Costs, Counts, Fitted, Flush, Run};
use crate::draw::Quantiles;
use crate::regression::{Observation, fit};
use crate::sim::{FlushTime, Load, Node, simulate};
use ringmill_types::limits;

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

/// How long flushes take in a loaded broker, by the bytes of their group. Runs whose groups were mostly full say nothing
/// of single flushes: full groups are written ahead and wait for each other.
pub fn flush(runs: &[Run], around: &[Quantiles]) -> Option<Flush> {
    const PART_OF_FULL: f64 = 0.6;
    let rows: Vec<_> = runs
        .iter()
        .filter(|run| run.groups > 0.0 && run.flush_mean_us > 0.0)
        .filter(|run| run.group_bytes / run.groups < PART_OF_FULL * limits::GROUP_BYTES_DEFAULT as f64)
        .map(|run| Observation {
            counts: vec![1.0, run.group_bytes / run.groups / 1024.0],
            cost: run.flush_mean_us,
        })
        .collect();
    let found = fit(&rows, 2);
    let at = |place: usize| found.coefficients.get(place).copied().unwrap_or(0.0);
    let relative: Vec<Quantiles> =
        around.iter().map(|one| one.clone().scaled(1.0 / one.mean().max(1e-9))).collect();
    let typical = Quantiles::typical(&relative)?;
    let mean = typical.mean();
    (mean > 0.0 && at(0) + at(1) > 0.0).then(|| Flush {
        base_us: at(0),
        kib_us: at(1),
        error_pct: found.error_pct,
        around: typical.scaled(1.0 / mean),
    })
}

impl Flush {
    /// For the model.
    pub fn time(&self) -> FlushTime {
        FlushTime { base_us: self.base_us, kib_us: self.kib_us, around: self.around.clone() }
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
        let around = vec![example().flush.around];
        let flush = flush(&runs, &around).expect("flushes were seen");
        assert!((flush.base_us - 100.0).abs() < 1.0 && (flush.kib_us - 0.5).abs() < 0.01, "{flush:?}");
        assert!((flush.around.mean() - 1.0).abs() < 0.01);
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
    fn full_groups_say_nothing_of_single_flushes() {
        let mut runs = runs();
        let mut full = run(1000, 1e3, 5e4, 5e4);
        (full.groups, full.group_bytes, full.flush_mean_us) = (100.0, 100.0 * 1048576.0, 50_000.0);
        runs.push(full);
        let found = flush(&runs, &[example().flush.around]).expect("flushes were seen");
        assert!((found.base_us - 100.0).abs() < 1.0 && (found.kib_us - 0.5).abs() < 0.01, "{found:?}");
    }

    #[test]
    fn a_wake_is_found_from_a_median() {
        let known = example();
        let mut node = Node {
            client: known.sides.client.costs,
            core: known.sides.core.costs,
            flush: known.flush.time(),
            stalls: Stalls::default(),
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
