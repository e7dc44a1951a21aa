//! Distributions as they were measured, and draws from them.

use ringmill_types::Random;
use serde::{Deserialize, Serialize};

/// A distribution by its quantile function: pairs of a part (0 to 1) and the value that part does not exceed, both rising.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    pub parts: Vec<f64>,
    pub values: Vec<f64>,
}

impl Quantiles {
    /// From cumulative counts below rising bounds, as a histogram of a metrics page has them. Values lie evenly in the
    /// logarithm between two bounds. `None` when nothing was counted.
    pub fn of_buckets(buckets: &[(f64, f64)]) -> Option<Quantiles> {
        let total = buckets.iter().rev().find(|(bound, _)| bound.is_finite())?.1;
        if total <= 0.0 {
            return None;
        }
        let (mut parts, mut values) = (Vec::new(), Vec::new());
        let mut last: Option<(f64, f64)> = None;
        for (bound, below) in buckets.iter().filter(|(bound, _)| bound.is_finite() && *bound > 0.0) {
            let part = (below / total).clamp(0.0, 1.0);
            // Nothing lies in the empty buckets before this one.
            if let Some((bound, before)) = last
                && part > before
                && values.last().is_none_or(|known| *known < bound)
            {
                parts.push(before);
                values.push(bound);
            }
            if part > 0.0 && parts.last().is_none_or(|last| part > *last) {
                if parts.is_empty() {
                    parts.push(0.0);
                    values.push(bound / 2.0);
                }
                parts.push(part);
                values.push(*bound);
            }
            last = Some((*bound, part));
        }
        Some(Quantiles { parts, values })
    }

    /// Both lists as long as each other, rising, finite and above 0.
    pub fn is_sound(&self) -> bool {
        let rising = |list: &[f64]| list.windows(2).all(|pair| pair[0] <= pair[1]);
        self.parts.len() == self.values.len()
            && !self.parts.is_empty()
            && self.parts.iter().all(|part| (0.0..=1.0).contains(part))
            && self.values.iter().all(|value| value.is_finite() && *value > 0.0)
            && rising(&self.parts)
            && rising(&self.values)
    }

    /// The value that `part` does not exceed; between two points, evenly in the logarithm.
    pub fn at(&self, part: f64) -> f64 {
        let end = self.parts.partition_point(|p| *p < part);
        let point = |at: usize| Some((*self.parts.get(at)?, *self.values.get(at)?));
        match (end.checked_sub(1).and_then(point), point(end)) {
            (Some((from, low)), Some((to, high))) if to > from && low > 0.0 => {
                low * (high / low).powf((part - from) / (to - from))
            }
            (_, Some((_, value))) => value,
            (Some((_, value)), None) => value,
            (None, None) => 0.0,
        }
    }

    /// The part that does not exceed `value`: [`Quantiles::at`] the other way round.
    pub fn part_of(&self, value: f64) -> f64 {
        let end = self.values.partition_point(|v| *v <= value);
        let point = |at: usize| Some((*self.parts.get(at)?, *self.values.get(at)?));
        match (end.checked_sub(1).and_then(point), point(end)) {
            (Some((from, low)), Some((to, high))) if low > 0.0 && high > low => {
                from + (to - from) * (value / low).ln() / (high / low).ln()
            }
            (Some((part, _)), Some(_)) => part,
            (None, _) => 0.0,
            (Some(_), None) => 1.0,
        }
    }

    /// Of what draws give, those that do not exceed `most`, and what part of all they are.
    pub fn up_to(&self, most: f64) -> (f64, Quantiles) {
        let share = self.part_of(most);
        let within = self.parts.iter().zip(&self.values).take_while(|(part, _)| **part < share);
        let mut kept: Vec<(f64, f64)> = within.map(|(part, value)| (*part, *value)).collect();
        kept.push((share, self.at(share)));
        let parts = kept.iter().map(|(part, _)| if share > 0.0 { part / share } else { 1.0 }).collect();
        (share, Quantiles { parts, values: kept.iter().map(|(_, value)| *value).collect() })
    }

    /// No value above `most`.
    pub fn cut(mut self, most: f64) -> Quantiles {
        for value in &mut self.values {
            *value = value.min(most);
        }
        self
    }

    /// The mean of what draws give.
    pub fn mean(&self) -> f64 {
        const STEPS: u32 = 4000;
        (0..STEPS).map(|at| self.at((f64::from(at) + 0.5) / f64::from(STEPS))).sum::<f64>() / f64::from(STEPS)
    }

    /// Every value times `factor`.
    pub fn scaled(mut self, factor: f64) -> Quantiles {
        for value in &mut self.values {
            *value *= factor;
        }
        self
    }

    /// The mean of several distributions at each part: the typical one of several runs.
    pub fn typical(all: &[Quantiles]) -> Option<Quantiles> {
        const PARTS: [f64; 17] =
            [0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 1.0];
        if all.is_empty() {
            return None;
        }
        let mut high = 0.0f64;
        let values = PARTS.map(|part| {
            let mut here: Vec<f64> = all.iter().map(|one| one.at(part)).collect();
            here.sort_by(f64::total_cmp);
            high = high.max(here.get(here.len() / 2).copied().unwrap_or(0.0));
            high
        });
        Some(Quantiles { parts: PARTS.to_vec(), values: values.to_vec() })
    }

    pub fn draw(&self, random: &mut Random) -> f64 {
        self.at(random.unit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_histogram_becomes_a_distribution() {
        let buckets = [(1.0, 0.0), (2.0, 50.0), (4.0, 90.0), (8.0, 100.0), (f64::INFINITY, 100.0)];
        let found = Quantiles::of_buckets(&buckets).expect("something was counted");
        assert!(found.is_sound(), "{found:?}");
        assert!((found.at(0.5) - 2.0).abs() < 1e-9);
        assert!((found.at(0.9) - 4.0).abs() < 1e-9);
        assert!(found.at(0.0) >= 1.0 && found.at(1.0) <= 8.0);
        assert!((found.at(0.25) - 2f64.sqrt()).abs() < 1e-9);
        let gap = [(1.0, 50.0), (2.0, 99.0), (4.0, 99.0), (8.0, 99.0), (16.0, 100.0)];
        let found = Quantiles::of_buckets(&gap).expect("something was counted");
        assert!(found.is_sound() && found.at(0.9901) >= 8.0 && found.at(0.98) <= 2.0, "{found:?}");
        assert!((found.part_of(8.0) - 0.99).abs() < 1e-9 && (found.part_of(3.0) - 0.99).abs() < 1e-9);
        assert_eq!(Quantiles::of_buckets(&[(1.0, 0.0), (f64::INFINITY, 0.0)]), None);
        assert_eq!(Quantiles::of_buckets(&[]), None);
        let first = Quantiles::of_buckets(&[(1.0, 5.0)]).expect("all of it in the first bucket");
        assert!(first.is_sound() && first.at(0.5) > 0.5 && first.at(1.0) <= 1.0);
    }

    proptest! {
        #[test]
        fn draws_stay_within_and_rise_with_their_part(
            mut values in proptest::collection::vec(0.001f64..1e6, 2..20),
            a in 0.0f64..1.0, b in 0.0f64..1.0, seed: u64,
        ) {
            values.sort_by(f64::total_cmp);
            let count = values.len();
            let parts = (0..count).map(|at| at as f64 / (count - 1) as f64).collect();
            let (low, high) = (values[0], values[count - 1]);
            let one = Quantiles { parts, values };
            prop_assert!(one.is_sound());
            let (a, b) = if a < b { (a, b) } else { (b, a) };
            prop_assert!(one.at(a) <= one.at(b) * (1.0 + 1e-12));
            prop_assert!((one.at(one.part_of(one.at(a))) - one.at(a)).abs() <= one.at(a) * 1e-6);
            prop_assert!(one.clone().cut(low).at(b) <= low * 1.000_001);
            let (share, lower) = one.up_to(one.at(a));
            prop_assert!(lower.is_sound() && (share - one.part_of(one.at(a))).abs() < 1e-9);
            prop_assert!((lower.at(b) / one.at(b * share) - 1.0).abs() < 1e-6);
            let drawn = one.draw(&mut Random::new(seed));
            prop_assert!(drawn >= low * 0.999_999 && drawn <= high * 1.000_001);
            let mean = one.mean();
            prop_assert!(mean >= low * 0.999_999 && mean <= high * 1.000_001);
            let same = Quantiles::typical(&[one.clone(), one.clone()]).expect("two");
            prop_assert!(same.is_sound());
        }
    }
}
