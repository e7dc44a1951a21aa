//! The picture of everything: the frontier over loads, for people who do not know yet what to ask for.

use super::findings::{Fresh, Trials, Verdict, on_frontier};
use super::flush::{Lab, Step};
use super::goal::Search;
use ringmill_tune::{Ack, Objective, Policy, Space};
use std::time::Duration;

/// Loads as parts of what the default takes as fast as it goes; the race is at the middle one.
const LOADS: [f64; 6] = [0.05, 0.15, 0.3, 0.5, 0.7, 0.85];
const RACE_LOAD: f64 = 0.5;
/// Of the time, what the races may take, and what is kept for fresh runs.
const RACE_PART: f64 = 0.45;
const FRESH_PART: f64 = 0.2;
/// Of each kind of ack, those that are tried at every load.
const SURVIVORS: usize = 5;
const PASSES: usize = 3;

impl Search<'_> {
    /// Draws the frontier; with a goal for latency the verdict is the largest load within it.
    pub fn explore(&self, lab: &mut Lab) -> (Verdict, Option<Fresh>) {
        lab.phase("how much the default takes");
        let step = lab.run(&self.default, None, self.span * 2, "how much the default takes", self.span * 60);
        let Step::Sample(sample) = step else { return (Verdict::Unfinished, None) };
        let capacity = sample.bytes_per_second;
        let all = lab.left();
        let mut survivors = vec![self.default];
        for (at, ack) in self.space.acks.iter().enumerate() {
            let part = RACE_PART * (at + 1) as f64 / self.space.acks.len() as f64;
            survivors.extend(self.best_of(lab, *ack, capacity * RACE_LOAD, all.mul_f64(1.0 - part)));
        }
        survivors.dedup();
        self.other_loads(lab, &survivors, capacity, all.mul_f64(FRESH_PART));
        self.told(lab)
    }

    /// The fastest of one kind of ack at the load of the race.
    fn best_of(&self, lab: &mut Lab, ack: Ack, rate: f64, until: Duration) -> Vec<Policy> {
        let space = Space { acks: vec![ack], ..self.space.clone() };
        let order: Vec<Policy> = self.order.iter().copied().filter(|p| p.ack == ack).collect();
        let default = Policy { ack, ..self.default };
        let search = Search { space: &space, order: &order, default, asked: self.asked, span: self.span };
        let race = search.race(lab, Objective::Fastest, rate, lab.span(rate, self.span), until);
        let standings = race.map(|race| race.standings()).unwrap_or_default();
        standings
            .iter()
            .filter(|one| one.policy != self.default)
            .take(SURVIVORS)
            .map(|one| one.policy)
            .collect()
    }

    fn other_loads(&self, lab: &mut Lab, survivors: &[Policy], capacity: f64, until: Duration) {
        lab.phase("the best ones at other loads");
        for pass in 0..PASSES {
            for part in LOADS {
                let load = capacity * part;
                let span = lab.span(load, self.span);
                let good = near_the_frontier(&lab.trials, survivors, load);
                for policy in
                    survivors.iter().filter(|p| pass == 0 || **p == self.default || good.contains(p))
                {
                    if lab.left() < until {
                        return;
                    }
                    let left = (PASSES - pass) * LOADS.len() * survivors.len() / 2;
                    let to_come = lab.step(span) * left as u32 + until;
                    let note = format!("the best ones at {:.0} MB/s", load / 1e6);
                    if matches!(lab.run(policy, Some(load), span, &note, to_come), Step::Stopped) {
                        return;
                    }
                }
            }
        }
    }

    /// Fresh runs of what is on the frontier.
    fn told(&self, lab: &mut Lab) -> (Verdict, Option<Fresh>) {
        lab.phase("fresh runs of the frontier");
        let rows = lab.trials.rows();
        let mut fresh = Vec::new();
        for ack in &self.space.acks {
            let mut best = on_frontier(&rows, *ack);
            // The most load first: with a limit that is the answer.
            best.reverse();
            for row in best.into_iter().filter_map(|at| rows.get(at)) {
                let Some(load) = row.asked_bytes_per_second else { continue };
                if self.asked.slo.is_some_and(|slo| row.tail_ms.value > slo.ms) {
                    continue;
                }
                let span = lab.span(load, self.span) * 2;
                let to_come = lab.step(span) * 6;
                let Step::Sample(sample) = lab.run(&row.raw, Some(load), span, "fresh runs", to_come) else {
                    break;
                };
                let one = Fresh::of(&row.raw, load, &sample, self.asked.slo);
                if self.asked.slo.is_some() && one.meets {
                    let default = self.default_at(lab, load, span);
                    let changes = row.raw.changes_from(&self.default);
                    return (Verdict::Recommended { fresh: one, changes }, default);
                }
                fresh.push(one);
            }
        }
        if self.asked.slo.is_none() {
            return (Verdict::Frontier { fresh }, None);
        }
        if lab.is_stopped() {
            return (Verdict::Unfinished, None);
        }
        let mut by_latency: Vec<_> = rows.iter().filter(|row| row.asked_bytes_per_second.is_some()).collect();
        by_latency.sort_by(|a, b| a.tail_ms.value.total_cmp(&b.tail_ms.value));
        let Some((row, load)) =
            by_latency.first().and_then(|row| Some((row.raw, row.asked_bytes_per_second?)))
        else {
            return (Verdict::Unfinished, None);
        };
        let within_latency = self.largest_load(lab, &row, load);
        let step = lab.run(&row, Some(load), lab.span(load, self.span), "the nearest", self.span);
        let at_load = match step {
            Step::Sample(sample) => Some(Fresh::of(&row, load, &sample, self.asked.slo)),
            Step::Failed | Step::Stopped => None,
        };
        (Verdict::Nearest { at_load, within_latency }, None)
    }

    fn default_at(&self, lab: &mut Lab, load: f64, span: Duration) -> Option<Fresh> {
        match lab.run(&self.default, Some(load), span, "the default at the same load", span) {
            Step::Sample(sample) => Some(Fresh::of(&self.default, load, &sample, self.asked.slo)),
            Step::Failed | Step::Stopped => None,
        }
    }
}

/// Those whose interval reaches below the lowest upper end at this load: another run may put them on the frontier.
fn near_the_frontier(trials: &Trials, of: &[Policy], load: f64) -> Vec<Policy> {
    let rows = trials.rows();
    let here: Vec<_> = rows
        .iter()
        .filter(|row| super::findings::same_load(row.asked_bytes_per_second, Some(load)))
        .filter(|row| row.kept_up && of.contains(&row.raw))
        .collect();
    let near = |ack: Ack| {
        let of_ack = here.iter().filter(move |row| row.raw.ack == ack);
        let bound = of_ack.clone().map(|row| row.tail_ms.high).fold(f64::MAX, f64::min);
        of_ack.filter(move |row| row.tail_ms.low <= bound).map(|row| row.raw).collect::<Vec<_>>()
    };
    [Ack::Durable, Ack::Relaxed].into_iter().flat_map(near).collect()
}
