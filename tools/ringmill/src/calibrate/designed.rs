//! The runs that costs are fitted from: chosen so that requests, batches, records, bytes, groups and partitions vary
//! apart from each other.

use crate::exit::Failed;
use crate::lab::{Lab, Measured, Reading};
use ringmill_plan::calibration::{
    Calibration, DevicePoint, Fitted, Flush, Machine, Memory, Misses, Network, Repeat, Run, Sides, Stamp,
    VERSION, Waits,
};
use ringmill_plan::fit::{self, Flushes};
use ringmill_plan::{Load, Quantiles, model, service};

/// A designed run: how much is asked of it.
enum Rate {
    /// As fast as it goes.
    Full,
    PerSecond(f64),
    /// Of what the full run with this name gave.
    Part(&'static str, f64),
}

struct Design {
    name: &'static str,
    rate: Rate,
    record_bytes: u32,
    partitions: u32,
    producers: u32,
    linger_us: f64,
    batch_bytes: u32,
    /// Read back afterwards, for what reading costs.
    reread: bool,
    /// Readers beside the producers.
    readers: usize,
}

const KIB16: u32 = 16_384;
const LINGER: f64 = 5000.0;

/// Shorthand: name, rate, record bytes, partitions, producers, linger µs, batch bytes.
const fn run(
    name: &'static str,
    rate: Rate,
    shape: (u32, u32, u32),
    linger_us: f64,
    batch_bytes: u32,
) -> Design {
    let (record_bytes, partitions, producers) = shape;
    Design {
        name,
        rate,
        record_bytes,
        partitions,
        producers,
        linger_us,
        batch_bytes,
        reread: false,
        readers: 0,
    }
}

const fn read(design: Design) -> Design {
    Design { reread: true, ..design }
}

const fn live(design: Design) -> Design {
    Design { readers: 1, ..design }
}

/// What is run once more at the end, to see whether the machine is still the same.
const REFERENCE: &str = "full";
const AGAIN: &str = "full-again";

const DESIGNS: [Design; 22] = [
    run(model::SINGLE, Rate::PerSecond(500.0), (1000, 4, 1), 0.0, KIB16),
    run("singles", Rate::PerSecond(6000.0), (1000, 16, 4), 0.0, KIB16),
    run("quiet", Rate::PerSecond(2000.0), (200, 8, 2), LINGER, KIB16),
    read(run(REFERENCE, Rate::Full, (1000, 8, 1), LINGER, KIB16)),
    run("full-half", Rate::Part("full", 0.5), (1000, 8, 1), LINGER, KIB16),
    run("full-high", Rate::Part("full", 0.8), (1000, 8, 1), LINGER, KIB16),
    read(run("small", Rate::Full, (100, 12, 2), LINGER, KIB16)),
    run("small-half", Rate::Part("small", 0.5), (100, 12, 2), LINGER, KIB16),
    run("small-high", Rate::Part("small", 0.8), (100, 12, 2), LINGER, KIB16),
    run("wide", Rate::Full, (1000, 150, 6), LINGER, KIB16),
    run("wide-half", Rate::Part("wide", 0.5), (1000, 150, 6), LINGER, KIB16),
    run("wide-high", Rate::Part("wide", 0.8), (1000, 150, 6), LINGER, KIB16),
    read(run("large", Rate::Full, (10_000, 16, 3), LINGER, 65_536)),
    run("large-half", Rate::Part("large", 0.5), (10_000, 16, 3), LINGER, 65_536),
    run("large-high", Rate::Part("large", 0.8), (10_000, 16, 3), LINGER, 65_536),
    live(run("live", Rate::Full, (1000, 24, 3), LINGER, KIB16)),
    live(run("live-half", Rate::Part("live", 0.5), (1000, 24, 3), LINGER, KIB16)),
    run("batches", Rate::Full, (1000, 4, 1), LINGER, 131_072),
    run("apart", Rate::Full, (500, 64, 8), 0.0, 1),
    run("tiny", Rate::Full, (20, 6, 4), LINGER, KIB16),
    run("thousand", Rate::Part("full", 0.1), (1000, 1000, 4), LINGER, KIB16),
    run(AGAIN, Rate::Full, (1000, 8, 1), LINGER, KIB16),
];

/// How much time runs get.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    pub seconds: f64,
    /// Of each run; the middle one is taken.
    pub rounds: usize,
}

/// Everything that the runs gave.
pub struct Learned {
    runs: Vec<Run>,
    /// Of runs with a schedule, every round.
    flushes: Vec<Flushes>,
    /// The highest p99 over the lowest, of runs with several rounds.
    p99_times: Vec<f64>,
    readings: Vec<(f64, f64, Run)>,
    /// What was read along, and the run.
    live: Vec<(Reading, Run)>,
    /// Partitions, and the broker's memory after them.
    memory: Vec<(f64, f64)>,
}

/// Runs all of it on a lab; `say` is told what begins.
///
/// # Errors
/// A sentence, when a run cannot be made.
pub fn all(lab: &mut Lab, effort: Effort, say: &mut dyn FnMut(&str)) -> Result<Learned, Failed> {
    let mut learned = Learned {
        runs: Vec::new(),
        flushes: Vec::new(),
        p99_times: Vec::new(),
        readings: Vec::new(),
        live: Vec::new(),
        memory: Vec::new(),
    };
    say("warming the broker up");
    lab.warm(&Load::new(None, 1000, 8, 2))?;
    for design in &DESIGNS {
        say(&format!("run {}", design.name));
        let rate = match design.rate {
            Rate::Full => None,
            Rate::PerSecond(rate) => Some(rate),
            Rate::Part(of, part) => {
                let live = learned.live.iter().map(|(_, run)| run);
                let full =
                    learned.runs.iter().chain(live).find(|run| run.name == of).map_or(1000.0, |run| run.rate);
                Some(full * part)
            }
        };
        let load = Load {
            linger_us: design.linger_us,
            batch_bytes: design.batch_bytes,
            ..Load::new(rate, design.record_bytes, design.partitions, design.producers)
        };
        let mut rounds = Vec::new();
        for _ in 0..effort.rounds {
            let readers = design.readers.max(usize::from(design.reread));
            rounds.push(lab.run(design.name, &load, effort.seconds, readers, design.reread)?);
        }
        learned.take(rounds, rate.is_some());
    }
    Ok(learned)
}

impl Learned {
    /// Takes the middle of several rounds: by p99 where there was a schedule, by rate where there was none.
    fn take(&mut self, mut rounds: Vec<Measured>, scheduled: bool) {
        let by = |one: &Measured| if scheduled { one.run.p99_ms } else { one.run.rate };
        rounds.sort_by(|a, b| by(a).total_cmp(&by(b)));
        for one in &rounds {
            self.memory.push((f64::from(one.run.partitions), one.resident_bytes));
        }
        if scheduled {
            self.flushes.extend(rounds.iter().filter_map(|one| one.flushes.clone()));
            if let [first, .., last] = rounds.as_slice() {
                self.p99_times.push(last.run.p99_ms / first.run.p99_ms);
            }
        }
        let middle = rounds.len() / 2;
        let Some(one) = rounds.into_iter().nth(middle) else { return };
        if let Some(read) = one.read {
            if one.run.readers > 0 {
                self.live.push((read, one.run));
                return;
            }
            self.readings.push((read.core_cpu_s, read.cpu_s, counts_of(&read)));
        }
        self.runs.push(one.run);
    }

    fn sides(&self) -> Sides {
        let (beside, partition_us_per_second) = fit::beside(&self.runs);
        let core = fit::core(&self.runs);
        let mut readings = self.readings.clone();
        readings.extend(
            self.live
                .iter()
                .map(|(read, run)| (fit::reading_share_s(&core, run), read.cpu_s, counts_of(read))),
        );
        let reading = |cpu: fn(&(f64, f64, Run)) -> f64| -> Fitted {
            let rows: Vec<(f64, Run)> = readings.iter().map(|one| (cpu(one), one.2.clone())).collect();
            fit::reading(&rows)
        };
        Sides {
            core,
            beside,
            client: fit::client(&self.runs),
            core_fetch: reading(|one| one.0),
            client_fetch: reading(|one| one.1),
            partition_us_per_second,
        }
    }

    /// What memory partitions add, by the run with most of them against the one before it.
    fn memory(&self) -> Memory {
        let most = self.memory.iter().position(|(partitions, _)| *partitions >= 1000.0);
        let pair = most.and_then(|at| Some((self.memory.get(at.checked_sub(1)?)?, self.memory.get(at)?)));
        let base = self.memory.iter().map(|(_, bytes)| *bytes).fold(0.0, f64::max);
        let partition_bytes = pair.map_or(0.0, |(before, after)| (after.1 - before.1).max(0.0) / after.0);
        Memory { base_bytes: base, partition_bytes }
    }

    /// How far the machine repeated itself while all of this was measured.
    fn repeat(&self) -> Repeat {
        let rate = |name: &str| self.runs.iter().find(|run| run.name == name).map(|run| run.rate);
        let rate_times = match (rate(REFERENCE), rate(AGAIN)) {
            (Some(first), Some(last)) => (first / last).max(last / first),
            _ => 1.0,
        };
        Repeat { rate_times, p99_times: fit::middle(self.p99_times.clone()).max(1.0) }
    }

    /// The calibration that comes of it.
    pub fn calibration(
        self,
        stamp: Stamp,
        machine: Machine,
        stalls_us: Option<Quantiles>,
        network: Network,
        device: Vec<DevicePoint>,
        disk_bytes_per_second: f64,
    ) -> Option<Calibration> {
        let around = fit::around(&self.flushes)?;
        let flush = Flush { base_us: 0.0, kib_us: 0.0, sync_us: 0.0, error_pct: 0.0, around };
        let mut found = Calibration {
            version: VERSION,
            stamp,
            machine,
            network,
            flush,
            holds: fit::holds(&self.flushes),
            repeat: self.repeat(),
            stalls_us,
            memory: self.memory(),
            sides: self.sides(),
            waits: Waits::default(),
            misses: Misses::NONE,
            disk_bytes_per_second,
            device,
            runs: Vec::new(),
        };
        let mut runs = self.runs;
        runs.extend(self.live.into_iter().map(|(_, run)| run));
        service::find(&mut found, &runs);
        found.misses = model::misses(&found, &runs);
        found.runs = runs;
        Some(found)
    }
}

/// Fetches, records and bytes, where a run has its requests.
fn counts_of(read: &Reading) -> Run {
    Run {
        requests: read.fetches,
        records: read.records,
        wire_bytes: read.bytes,
        seconds: read.seconds,
        ..Run::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_of_runs_that_came_before() {
        for (at, design) in DESIGNS.iter().enumerate() {
            if let Rate::Part(of, part) = design.rate {
                let full = DESIGNS[..at].iter().find(|d| d.name == of).expect("an earlier run");
                assert!(matches!(full.rate, Rate::Full) && part < 1.0, "{}", design.name);
            }
            assert!(DESIGNS[..at].iter().all(|d| d.name != design.name), "{} twice", design.name);
        }
        let at = |name| DESIGNS.iter().position(|d| d.name == name).expect("a run");
        assert!(at(REFERENCE) < 5 && at(AGAIN) == DESIGNS.len() - 1);
    }
}
