//! Brute force, to see what the search missed: every policy of the grid at the load of the goal.
//!
//! One run of each would always show some policy that was lucky; those that seem to beat the recommendation meet it
//! again, in turns, and only what still beats it then counts.

use super::findings::{PolicyText, Sweep};
use super::flush::{Lab, Step};
use super::goal::Search;
use ringmill_tune::{Policy, Sample, Slo};
use std::time::Duration;

/// A policy has to be better by this part to count.
const MARGIN: f64 = 0.1;
const CHALLENGERS: usize = 4;
const ROUNDS: usize = 4;

impl Search<'_> {
    pub fn sweep(&self, lab: &mut Lab, recommended: &Policy, rate: f64) -> Sweep {
        lab.phase("sweeping the whole grid");
        let span = lab.span(rate, self.span);
        let mut lucky: Vec<(f64, Policy)> = Vec::new();
        let mut sweep = Sweep::default();
        let reference: Vec<Sample> = lab.samples(recommended, rate);
        let Some(own) = self.value(&reference) else { return sweep };
        let grid = self.space.policies();
        for (at, policy) in grid.iter().filter(|policy| *policy != recommended).enumerate() {
            let to_come = lab.step(span) * (grid.len() - at) as u32;
            match lab.run(policy, Some(rate), span, "sweeping the grid", to_come) {
                Step::Sample(sample) => {
                    sweep.policies += 1;
                    let value = self.value(&[sample]).filter(|value| *value < own * (1.0 - MARGIN));
                    lucky.extend(value.map(|value| (value, *policy)));
                }
                Step::Failed => {}
                Step::Stopped => return sweep,
            }
        }
        lucky.sort_by(|a, b| a.0.total_cmp(&b.0));
        sweep.challengers = lucky.len();
        for (_, policy) in lucky.into_iter().take(CHALLENGERS) {
            let Some((theirs, own)) = self.duel(lab, &policy, recommended, rate, span) else { break };
            sweep.met(PolicyText::of(&policy), theirs, own);
        }
        sweep.complete = !lab.is_stopped();
        sweep.beaten = sweep.missed > 0 || sweep.best_gain.is_some_and(|gain| gain > MARGIN);
        sweep
    }

    /// Both in turns; their values, none for one that misses the goal.
    fn duel(
        &self,
        lab: &mut Lab,
        one: &Policy,
        other: &Policy,
        rate: f64,
        span: Duration,
    ) -> Option<(Option<f64>, Option<f64>)> {
        let (mut of_one, mut of_other) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            for (policy, samples) in [(one, &mut of_one), (other, &mut of_other)] {
                match lab.run(policy, Some(rate), span, "a challenger meets the recommendation", span * 8) {
                    Step::Sample(sample) => samples.push(sample),
                    Step::Failed => {}
                    Step::Stopped => return None,
                }
            }
        }
        Some((self.value(&of_one), self.value(&of_other)))
    }

    /// What the goal counts, over runs: CPU of those within a latency, otherwise the latency. `None`: it is not met.
    fn value(&self, samples: &[Sample]) -> Option<f64> {
        if samples.is_empty() || samples.iter().filter(|s| s.kept_up).count() * 2 <= samples.len() {
            return None;
        }
        let mean = |of: fn(&Sample) -> f64| {
            (samples.iter().map(|s| of(s).max(1e-9).ln()).sum::<f64>() / samples.len() as f64).exp()
        };
        match self.asked.slo {
            Some(Slo { ms, .. }) => (mean(|s| s.tail_ms) <= ms).then(|| mean(|s| s.cpu_seconds_per_gb)),
            None => Some(mean(|s| s.tail_ms)),
        }
    }
}
