//! The search: successive halving over policies, with intervals that end a race early.
//!
//! Each heat gives the policies that are still in it so many runs each, in turns, so that a machine that drifts is
//! unfair to none. After a heat two thirds are out, and within one whoever is surely worse than the best. The first heat
//! may hold a part of the space only; then what lies beside its best is tried before anything is believed.

use crate::estimate::{Estimate, Sample, Spread};
use crate::goal::Slo;
use crate::policy::{Policy, Space};
use std::collections::VecDeque;

/// What is looked for among policies at one load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Objective {
    /// The least CPU per byte of those that keep within a latency.
    Cheapest(Slo),
    /// The lowest latency.
    Fastest,
}

/// How many stay after a heat, at least.
const FINALISTS: usize = 4;
/// One in so many stays.
const HALVING: usize = 3;
/// The best so far whose neighbours are tried.
const LOOK_AROUND: usize = 3;
/// Runs that a finalist has in the end.
const FINAL_RUNS: usize = 6;
/// Policies within this part of the best cost are equal; then the simplest one is taken.
const EQUAL: f64 = 0.03;
/// Deviations before anything is known, of logarithms.
const TAIL_ASSUMED: f64 = 0.25;
const COST_ASSUMED: f64 = 0.08;

/// What is known about one policy.
#[derive(Clone, Debug)]
pub struct Standing {
    pub policy: Policy,
    pub samples: Vec<Sample>,
    pub tail_ms: Estimate,
    pub p50_ms: f64,
    pub cpu_seconds_per_gb: Estimate,
    pub bytes_per_second: f64,
    pub kept_up: bool,
    /// Still in the race, or in its last heat.
    pub is_in: bool,
}

#[derive(Clone, Debug)]
struct Arm {
    policy: Policy,
    samples: Vec<Sample>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not tried; it may be, beside a good one.
    Waiting,
    In,
    Out,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heat {
    First,
    Neighbours,
    /// The n-th after those.
    Later(u32),
    Over,
}

/// One search at one load.
#[derive(Clone, Debug)]
pub struct Race {
    space: Space,
    objective: Objective,
    /// Always in it: what the others are compared with.
    default: Policy,
    arms: Vec<Arm>,
    heat: Heat,
    turns: VecDeque<usize>,
    /// How many began, and how many came in because they lie beside a good one.
    first: usize,
    beside: usize,
}

impl Race {
    /// `policies` in the order in which they are worth a try; the first `first` of them and the default begin.
    pub fn new(
        space: &Space,
        objective: Objective,
        default: Policy,
        policies: &[Policy],
        first: usize,
    ) -> Race {
        let mut arms: Vec<Arm> = policies
            .iter()
            .enumerate()
            .map(|(at, policy)| Arm {
                policy: *policy,
                samples: Vec::new(),
                state: if at < first { State::In } else { State::Waiting },
            })
            .collect();
        match arms.iter_mut().find(|arm| arm.policy == default) {
            Some(arm) => arm.state = State::In,
            None => arms.push(Arm { policy: default, samples: Vec::new(), state: State::In }),
        }
        let turns =
            (0..arms.len()).filter(|at| arms.get(*at).is_some_and(|a| a.state == State::In)).collect();
        Race { space: space.clone(), objective, default, arms, heat: Heat::First, turns, first, beside: 0 }
    }

    /// Runs that a race of so many policies takes at most, about: to choose how many can begin.
    pub fn runs(first: usize) -> usize {
        let beside = (first / 2).max(1);
        let mut live = first + beside;
        let mut runs = live;
        for heat in 0.. {
            live = kept(live);
            runs += live * heat_runs(heat);
            if live <= FINALISTS {
                return runs + live * FINAL_RUNS.saturating_sub(1 + total_runs(heat));
            }
        }
        runs
    }

    /// Whose turn it is; `None` when the race is over.
    pub fn next_policy(&mut self) -> Option<Policy> {
        loop {
            let Some(at) = self.turns.pop_front() else {
                if self.heat == Heat::Over {
                    return None;
                }
                self.advance();
                continue;
            };
            if let Some(arm) = self.arms.get(at).filter(|arm| arm.state == State::In) {
                return Some(arm.policy);
            }
        }
    }

    /// What a run of this policy gave; `None`: it failed, and the policy is out.
    pub fn tell(&mut self, policy: &Policy, sample: Option<Sample>) {
        let Some(arm) = self.arms.iter_mut().find(|arm| arm.policy == *policy) else { return };
        match sample {
            Some(sample) => arm.samples.push(sample),
            None => arm.state = State::Out,
        }
        self.drop_the_surely_worse();
    }

    /// Runs still to come, about.
    pub fn runs_left(&self) -> usize {
        let live = self.arms.iter().filter(|arm| arm.state == State::In).count();
        let coming = match self.heat {
            Heat::First => Race::runs(live).saturating_sub(live),
            Heat::Neighbours => Race::runs(live * 2 / 3).saturating_sub(live),
            Heat::Later(heat) if live > FINALISTS => {
                let next = kept(live);
                next * heat_runs(heat + 1) + FINALISTS * 2
            }
            Heat::Later(_) => live * 2,
            Heat::Over => 0,
        };
        self.turns.len() + coming
    }

    /// All that was measured, the best first.
    pub fn standings(&self) -> Vec<Standing> {
        let (tails, costs) = self.spreads();
        let mut all: Vec<Standing> = self
            .arms
            .iter()
            .filter_map(|arm| {
                let values = |of: fn(&Sample) -> f64| arm.samples.iter().map(of).collect::<Vec<f64>>();
                let middle =
                    |of: fn(&Sample) -> f64| Spread::assumed(1.0).estimate(&values(of)).map(|e| e.value);
                Some(Standing {
                    policy: arm.policy,
                    samples: arm.samples.clone(),
                    tail_ms: tails.estimate(&values(|s| s.tail_ms))?,
                    p50_ms: middle(|s| s.p50_ms)?,
                    cpu_seconds_per_gb: costs.estimate(&values(|s| s.cpu_seconds_per_gb))?,
                    bytes_per_second: middle(|s| s.bytes_per_second)?,
                    kept_up: arm.samples.iter().filter(|s| s.kept_up).count() * 2 > arm.samples.len(),
                    is_in: arm.state == State::In,
                })
            })
            .collect();
        all.sort_by(|a, b| self.rank(a, &tails).total_cmp(&self.rank(b, &tails)));
        all
    }

    /// Those worth recommending, the best first, or nothing if no policy meets the goal. A recommendation has more than
    /// one run, and room for a run as bad as one in six.
    pub fn recommended(&self) -> Vec<Standing> {
        let (tails, _) = self.spreads();
        let room = tails.deviation().exp();
        let mut fit: Vec<Standing> = self
            .standings()
            .into_iter()
            .filter(|one| one.kept_up && one.samples.len() > 1)
            .filter(|one| match self.objective {
                Objective::Cheapest(slo) => one.tail_ms.value * room <= slo.ms,
                Objective::Fastest => true,
            })
            .collect();
        let value = |one: &Standing| match self.objective {
            Objective::Cheapest(_) => one.cpu_seconds_per_gb.value,
            Objective::Fastest => one.tail_ms.value,
        };
        fit.sort_by(|a, b| value(a).total_cmp(&value(b)));
        let Some(best) = fit.first().map(value) else { return fit };
        // Of equals the one that changes least.
        let far = |one: &Standing| self.space.distance(&self.default, &one.policy).unwrap_or(usize::MAX);
        let equal = fit.partition_point(|one| value(one) <= best * (1.0 + EQUAL));
        if let Some(equals) = fit.get_mut(..equal) {
            equals.sort_by_key(far);
        }
        fit
    }

    /// How far a run scatters around the middle of its policy, as a factor.
    pub fn scatter(&self) -> f64 {
        self.spreads().0.deviation().exp()
    }

    fn spreads(&self) -> (Spread, Spread) {
        let (mut tails, mut costs) = (Spread::assumed(TAIL_ASSUMED), Spread::assumed(COST_ASSUMED));
        for arm in &self.arms {
            tails.learn(&arm.samples.iter().map(|s| s.tail_ms).collect::<Vec<_>>());
            costs.learn(&arm.samples.iter().map(|s| s.cpu_seconds_per_gb).collect::<Vec<_>>());
        }
        (tails, costs)
    }

    /// Less is better. A policy that misses the latency is the worse the further it is off, whatever it costs.
    fn rank(&self, one: &Standing, tails: &Spread) -> f64 {
        let late = if one.kept_up { 0.0 } else { 10.0 };
        late + match self.objective {
            Objective::Fastest => one.tail_ms.value.ln(),
            Objective::Cheapest(slo) => {
                let over = one.tail_ms.value.ln() + tails.deviation() - slo.ms.ln();
                one.cpu_seconds_per_gb.value.max(1e-9).ln() + 3.0 * over.max(0.0)
            }
        }
    }

    fn drop_the_surely_worse(&mut self) {
        let standings = self.standings();
        // The first heat looks at each once: that is not sure.
        let repeated = |one: &&Standing| one.samples.len() > 1 && one.kept_up;
        let worse: Vec<Policy> = match self.objective {
            Objective::Fastest => {
                let bound =
                    standings.iter().filter(repeated).map(|s| s.tail_ms.high).fold(f64::MAX, f64::min);
                standings.iter().filter(|s| s.tail_ms.low > bound).map(|s| s.policy).collect()
            }
            Objective::Cheapest(slo) => {
                let meets = |one: &&Standing| one.tail_ms.high <= slo.ms;
                let fit = standings.iter().filter(repeated).filter(meets);
                let bound = fit.map(|s| s.cpu_seconds_per_gb.high).fold(f64::MAX, f64::min);
                let nobody = bound == f64::MAX;
                let is_worse = |s: &&Standing| s.tail_ms.low > slo.ms || s.cpu_seconds_per_gb.low > bound;
                standings.iter().filter(|_| !nobody).filter(is_worse).map(|s| s.policy).collect()
            }
        };
        for arm in &mut self.arms {
            if arm.state == State::In && arm.policy != self.default && worse.contains(&arm.policy) {
                arm.state = State::Out;
            }
        }
    }

    fn advance(&mut self) {
        match self.heat {
            Heat::First | Heat::Neighbours => {
                self.heat = Heat::Neighbours;
                self.look_around();
                if self.turns.is_empty() {
                    self.later(0);
                }
            }
            Heat::Later(heat) => {
                let live: Vec<usize> = self.live();
                let short =
                    live.iter().filter_map(|at| self.arms.get(*at)).map(|arm| arm.samples.len()).min();
                if live.len() > FINALISTS + 1 {
                    self.later(heat + 1);
                } else if short.is_some_and(|runs| runs < FINAL_RUNS) {
                    self.turns = live.into();
                } else {
                    self.heat = Heat::Over;
                }
            }
            Heat::Over => {}
        }
    }

    fn live(&self) -> Vec<usize> {
        (0..self.arms.len())
            .filter(|at| self.arms.get(*at).is_some_and(|arm| arm.state == State::In))
            .collect()
    }

    /// Untried policies one step beside the best ones get a run each, as long as they are fewer than those of the
    /// first heat. Called again with what came of it, this climbs to where nothing beside is better.
    fn look_around(&mut self) {
        let best: Vec<Policy> = self.standings().iter().take(LOOK_AROUND).map(|s| s.policy).collect();
        for (at, arm) in self.arms.iter_mut().enumerate() {
            let beside = best.iter().any(|b| self.space.distance(b, &arm.policy) == Some(1));
            if arm.state == State::Waiting && beside && self.beside < self.first {
                arm.state = State::In;
                self.turns.push_back(at);
                self.beside += 1;
            }
        }
    }

    fn later(&mut self, heat: u32) {
        let live = self.live().len();
        let stay: Vec<Policy> =
            self.standings().iter().filter(|s| s.is_in).take(kept(live)).map(|s| s.policy).collect();
        for arm in &mut self.arms {
            if arm.state == State::In && arm.policy != self.default && !stay.contains(&arm.policy) {
                arm.state = State::Out;
            }
        }
        let live = self.live();
        for _ in 0..heat_runs(heat) {
            self.turns.extend(&live);
        }
        self.heat = Heat::Later(heat);
    }
}

/// How many of so many stay.
fn kept(live: usize) -> usize {
    live.div_ceil(HALVING).max(FINALISTS).min(live)
}

/// Runs of each in a later heat.
fn heat_runs(heat: u32) -> usize {
    1 << heat.min(3)
}

fn total_runs(heat: u32) -> usize {
    (0..=heat).map(heat_runs).sum()
}
