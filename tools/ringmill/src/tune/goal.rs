//! The search for a goal at one load: race, fresh run, and the loads around it for the picture.

use super::findings::{Asked, Fresh, Verdict};
use super::flush::{Lab, Step};
use ringmill_tune::{Ack, Objective, Policy, Race, Space, Standing};
use std::time::Duration;

/// Of the time, what the race may take; the rest is for fresh runs and other loads.
const RACE_PART: f64 = 0.65;
/// A fresh run is so many times as long as one of the race.
const FRESH_FACTOR: u32 = 3;
const FRESH_SPAN_MAX: Duration = Duration::from_secs(6);
/// How many recommendations may fail their fresh run before the nearest is told instead.
const FRESH_MAX: usize = 3;
/// Loads of the picture, as parts of the goal's; the ones above last.
const LOADS: [f64; 7] = [0.5, 0.25, 1.5, 2.0, 3.0, 4.0, 6.0];
/// Passes over them, if there is time.
const PASSES: usize = 2;
/// Halvings until a load is given up, and bisections behind that.
const HALVINGS: usize = 6;
const BISECTIONS: usize = 3;

/// What is searched, and from where.
pub struct Search<'a> {
    pub asked: &'a Asked,
    pub space: &'a Space,
    /// The most promising first.
    pub order: &'a [Policy],
    pub default: Policy,
    pub span: Duration,
}

impl Search<'_> {
    /// The whole search at `rate` bytes a second; the fresh run of the default beside the verdict.
    pub fn at(&self, lab: &mut Lab, rate: f64) -> (Verdict, Option<Fresh>) {
        let objective = self.asked.slo.map_or(Objective::Fastest, Objective::Cheapest);
        let span = lab.span(rate, self.span);
        let until = lab.left().mul_f64(1.0 - RACE_PART);
        let mut race = self.race(lab, objective, rate, span, until);
        let Some(mut race) = race.take() else { return (Verdict::Unfinished, None) };
        let verdict = self.verify(lab, &mut race, rate, span);
        let default = match &verdict {
            Verdict::Recommended { fresh, .. } if fresh.raw == self.default => Some(fresh.clone()),
            _ => self.fresh(lab, &self.default, rate, span),
        };
        let others: Vec<Policy> = race.standings().iter().take(2).map(|s| s.policy).collect();
        self.picture(lab, &verdict, &others, rate, span);
        (verdict, default)
    }

    /// Races until it is over or only `until` is left of the time. `None`: stopped before anything was measured.
    pub fn race(
        &self,
        lab: &mut Lab,
        objective: Objective,
        rate: f64,
        span: Duration,
        until: Duration,
    ) -> Option<Race> {
        lab.phase(&format!("racing policies at {:.1} MB/s", rate / 1e6));
        // The default's run says what a run takes, and so how many policies can begin.
        let step = lab.run(&self.default, Some(rate), span, "the default first", self.span * 60);
        if matches!(step, Step::Stopped) {
            return None;
        }
        let time = lab.left().saturating_sub(until).as_secs_f64();
        let runs = (time / lab.step(span).as_secs_f64()) as usize;
        let first = (4..=self.order.len()).rev().find(|first| Race::runs(*first) <= runs).unwrap_or(4);
        let mut race = Race::new(self.space, objective, self.default, self.order, first);
        if let Step::Sample(sample) = step {
            race.tell(&self.default, Some(sample));
        }
        while lab.left() > until {
            let Some(policy) = race.next_policy() else { break };
            let to_come = lab.step(span) * race.runs_left() as u32 + until;
            let note = race.standings().first().map_or(String::new(), best_so_far);
            match lab.run(&policy, Some(rate), span, &note, to_come) {
                Step::Sample(sample) => race.tell(&policy, Some(sample)),
                Step::Failed => race.tell(&policy, None),
                Step::Stopped => break,
            }
        }
        Some(race)
    }

    fn fresh(&self, lab: &mut Lab, policy: &Policy, rate: f64, span: Duration) -> Option<Fresh> {
        let step = lab.run(policy, Some(rate), fresh_span(span), "a fresh run", lab.left());
        let Step::Sample(sample) = step else { return None };
        Some(Fresh::of(policy, rate, &sample, self.asked.slo))
    }

    /// A fresh run of the best; one that does not hold goes back into the race's figures, and the next best has its turn.
    fn verify(&self, lab: &mut Lab, race: &mut Race, rate: f64, span: Duration) -> Verdict {
        lab.phase("a fresh run of the recommendation");
        for _ in 0..FRESH_MAX {
            let found = race.recommended();
            // A relaxed ack promises less: only where no durable policy will do.
            let durable = found.iter().find(|one| one.policy.ack == Ack::Durable).or(found.first());
            let Some(best) = durable.map(|one| one.policy) else { break };
            match lab.run(
                &best,
                Some(rate),
                span * FRESH_FACTOR,
                "a fresh run of the recommendation",
                lab.left(),
            ) {
                Step::Sample(sample) => {
                    let fresh = Fresh::of(&best, rate, &sample, self.asked.slo);
                    if fresh.meets {
                        return Verdict::Recommended { fresh, changes: best.changes_from(&self.default) };
                    }
                    race.tell(&best, Some(sample));
                }
                Step::Failed => race.tell(&best, None),
                Step::Stopped => return Verdict::Unfinished,
            }
        }
        if lab.is_stopped() {
            return Verdict::Unfinished;
        }
        self.nearest(lab, race, rate, span)
    }

    fn nearest(&self, lab: &mut Lab, race: &Race, rate: f64, span: Duration) -> Verdict {
        lab.phase("the goal cannot be met: looking for the nearest");
        let mut standings = race.standings();
        standings.sort_by(|a, b| b.kept_up.cmp(&a.kept_up).then(a.tail_ms.value.total_cmp(&b.tail_ms.value)));
        let Some(best) = standings.first().map(|one| one.policy) else { return Verdict::Unfinished };
        let at_load = self.fresh(lab, &best, rate, span);
        if at_load.as_ref().is_some_and(|fresh| fresh.meets) {
            // Not often enough to be recommended, but this once: it is told as what it is.
            return Verdict::Nearest { at_load, within_latency: None };
        }
        Verdict::Nearest { at_load, within_latency: self.largest_load(lab, &best, rate) }
    }

    /// The largest load below `rate` at which this policy keeps within the goal.
    pub fn largest_load(&self, lab: &mut Lab, policy: &Policy, rate: f64) -> Option<Fresh> {
        let mut best = None;
        let (mut low, mut high) = (rate, rate);
        let mut last_ms = f64::MAX;
        for _ in 0..HALVINGS {
            low /= 2.0;
            let fresh = self.fresh(lab, policy, low, lab.span(low, self.span))?;
            if fresh.meets {
                best = Some(fresh);
                break;
            }
            // Half the load does not help any more, and it is still twice too much: nothing will.
            let far = self.asked.slo.is_some_and(|slo| fresh.tail_ms > 2.0 * slo.ms);
            if fresh.kept_up && far && fresh.tail_ms > 0.8 * last_ms {
                return None;
            }
            last_ms = fresh.tail_ms;
            high = low;
        }
        best.as_ref()?;
        for _ in 0..BISECTIONS {
            let middle = (low * high).sqrt();
            match self.fresh(lab, policy, middle, lab.span(middle, self.span)) {
                Some(fresh) if fresh.meets => {
                    low = middle;
                    best = Some(fresh);
                }
                Some(_) => high = middle,
                None => break,
            }
        }
        best
    }

    /// Other loads for those that matter, as long as there is time.
    fn picture(&self, lab: &mut Lab, verdict: &Verdict, others: &[Policy], rate: f64, span: Duration) {
        let mut policies = vec![self.default];
        let found = match verdict {
            Verdict::Recommended { fresh, .. } => Some(fresh.raw),
            Verdict::Nearest { at_load, .. } => at_load.as_ref().map(|fresh| fresh.raw),
            Verdict::Frontier { .. } | Verdict::Unfinished => None,
        };
        for policy in found.iter().chain(others) {
            if !policies.contains(policy) {
                policies.push(*policy);
            }
        }
        lab.phase("other loads, for the picture");
        for pass in 0..PASSES {
            for policy in &policies {
                for (at, part) in LOADS.into_iter().enumerate() {
                    let load = rate * part;
                    let span = lab.span(load, span);
                    // What does not fit in the time that was given is not drawn.
                    if lab.left() < lab.step(span) {
                        return;
                    }
                    let left = policies.len() * LOADS.len() * (PASSES - pass) - at;
                    let to_come = lab.step(span) * left as u32;
                    match lab.run(policy, Some(load), span, "other loads, for the picture", to_come) {
                        Step::Sample(sample) if !sample.kept_up && part > 1.0 => break,
                        Step::Sample(_) | Step::Failed => {}
                        Step::Stopped => return,
                    }
                }
            }
        }
    }
}

/// At small loads a run is long already.
fn fresh_span(span: Duration) -> Duration {
    (span * FRESH_FACTOR).min(FRESH_SPAN_MAX).max(span)
}

fn best_so_far(one: &Standing) -> String {
    format!(
        "best {:.2} ms, {:.2} CPU s/GB: {}",
        one.tail_ms.value,
        one.cpu_seconds_per_gb.value,
        one.policy.label()
    )
}
