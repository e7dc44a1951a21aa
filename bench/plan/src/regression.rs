//! Least squares without negative costs.
//!
//! Every run says: so many requests, batches, records, KiB, groups took so much CPU. The errors that count are relative:
//! a run of a tenth of a second is worth as much as one of ten.

/// What one run did, and what it took.
#[derive(Clone, Debug)]
pub struct Observation {
    /// Counts, in the order of the coefficients.
    pub counts: Vec<f64>,
    /// What they took together; above 0.
    pub cost: f64,
}

/// Costs of one of each, and how well they explain what was seen.
#[derive(Clone, Debug, PartialEq)]
pub struct Fit {
    pub coefficients: Vec<f64>,
    /// Mean of the absolute relative errors, percent.
    pub error_pct: f64,
    /// The largest of them.
    pub error_pct_max: f64,
}

/// Passes over the coefficients; far more than a handful of them needs.
const PASSES_MAX: usize = 20_000;
const STILL: f64 = 1e-12;

impl Fit {
    /// What these counts would take.
    pub fn cost(&self, counts: &[f64]) -> f64 {
        self.coefficients.iter().zip(counts).map(|(each, count)| each * count).sum()
    }
}

/// Finds costs of at least 0 with the least sum of squared relative errors.
///
/// Observations without a cost, or whose counts are not finite, are left out; with none left every cost is 0.
pub fn fit(observations: &[Observation], width: usize) -> Fit {
    let rows: Vec<(Vec<f64>, f64)> = observations
        .iter()
        .filter(|o| o.cost > 0.0 && o.cost.is_finite() && o.counts.iter().all(|c| c.is_finite() && *c >= 0.0))
        .map(|o| (o.counts.iter().take(width).map(|c| c / o.cost).collect(), o.cost))
        .collect();
    // Columns of very different sizes are brought to one, or the descent would creep.
    let scale: Vec<f64> = (0..width)
        .map(|at| rows.iter().map(|(row, _)| row.get(at).copied().unwrap_or(0.0).powi(2)).sum::<f64>().sqrt())
        .collect();
    let value = |row: &[f64], at: usize| match (row.get(at), scale.get(at)) {
        (Some(count), Some(scale)) if *scale > 0.0 => count / scale,
        _ => 0.0,
    };
    let mut gram = vec![vec![0.0; width]; width];
    let mut target = vec![0.0; width];
    for (row, _) in &rows {
        for (at, line) in gram.iter_mut().enumerate() {
            for (other, cell) in line.iter_mut().enumerate() {
                *cell += value(row, at) * value(row, other);
            }
        }
        for (at, cell) in target.iter_mut().enumerate() {
            *cell += value(row, at);
        }
    }
    let scaled = descend(&gram, &target);
    let coefficients: Vec<f64> = scaled
        .iter()
        .zip(&scale)
        .map(|(each, scale)| if *scale > 0.0 { each / scale } else { 0.0 })
        .collect();
    let errors: Vec<f64> = rows
        .iter()
        .map(|(row, _)| {
            let explained: f64 = coefficients.iter().zip(row).map(|(each, count)| each * count).sum();
            (explained - 1.0).abs() * 100.0
        })
        .collect();
    Fit {
        error_pct: errors.iter().sum::<f64>() / errors.len().max(1) as f64,
        error_pct_max: errors.iter().copied().fold(0.0, f64::max),
        coefficients,
    }
}

/// Coordinate descent on the normal equations, each coefficient kept at 0 or above.
fn descend(gram: &[Vec<f64>], target: &[f64]) -> Vec<f64> {
    let mut found = vec![0.0; target.len()];
    for _ in 0..PASSES_MAX {
        let mut moved = 0.0f64;
        for at in 0..target.len() {
            let (Some(line), Some(wanted)) = (gram.get(at), target.get(at)) else { continue };
            let own = line.get(at).copied().unwrap_or(0.0);
            if own <= 0.0 {
                continue;
            }
            let explained: f64 = line.iter().zip(&found).map(|(a, b)| a * b).sum();
            if let Some(cell) = found.get_mut(at) {
                let next = (*cell + (wanted - explained) / own).max(0.0);
                moved = moved.max((next - *cell).abs());
                *cell = next;
            }
        }
        if moved < STILL {
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn observed(rows: &[(&[f64], f64)]) -> Vec<Observation> {
        rows.iter().map(|(counts, cost)| Observation { counts: counts.to_vec(), cost: *cost }).collect()
    }

    #[test]
    fn exact_costs_are_found_again() {
        let rows = observed(&[
            (&[10.0, 100.0, 0.0], 10.0 * 3.0 + 100.0 * 0.5),
            (&[1.0, 1000.0, 5.0], 3.0 + 500.0 + 10.0),
            (&[50.0, 60.0, 70.0], 150.0 + 30.0 + 140.0),
            (&[7.0, 9.0, 1.0], 21.0 + 4.5 + 2.0),
        ]);
        let fit = fit(&rows, 3);
        for (found, meant) in fit.coefficients.iter().zip([3.0, 0.5, 2.0]) {
            assert!((found - meant).abs() < 1e-6, "{:?}", fit.coefficients);
        }
        assert!(fit.error_pct_max < 1e-4);
        assert!((fit.cost(&[1.0, 2.0, 3.0]) - 10.0).abs() < 1e-5);
    }

    #[test]
    fn nothing_to_learn_from_costs_nothing() {
        assert_eq!(fit(&[], 3).coefficients, [0.0; 3]);
        let strange = observed(&[(&[f64::NAN, 1.0], 1.0), (&[1.0, 1.0], 0.0), (&[1.0, 1.0], f64::INFINITY)]);
        assert_eq!(fit(&strange, 2).coefficients, [0.0; 2]);
    }

    proptest! {
        #[test]
        fn costs_are_never_negative_and_noise_does_little(
            meant in proptest::collection::vec(0.1f64..50.0, 4),
            seeds in proptest::collection::vec(proptest::collection::vec(1.0f64..1e4, 4), 24..40),
            noise in proptest::collection::vec(-0.02f64..0.02, 40),
        ) {
            let rows: Vec<Observation> = seeds.iter().zip(&noise).map(|(counts, noise)| {
                let cost: f64 = counts.iter().zip(&meant).map(|(c, m)| c * m).sum();
                Observation { counts: counts.clone(), cost: cost * (1.0 + noise) }
            }).collect();
            let found = fit(&rows, 4);
            prop_assert!(found.coefficients.iter().all(|c| *c >= 0.0 && c.is_finite()));
            prop_assert!(found.error_pct < 2.5, "{found:?}");
            // What a new run would take is what counts, not the single costs.
            let new = [100.0, 200.0, 300.0, 400.0];
            let truth: f64 = new.iter().zip(&meant).map(|(c, m)| c * m).sum();
            prop_assert!((found.cost(&new) / truth - 1.0).abs() < 0.05);
        }
    }
}
