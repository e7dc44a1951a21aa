//! The search against brokers whose frontier is known.

use ringmill_tune::{Ack, Method, Objective, Policy, Race, Sample, Slo, Space};

/// A broker as a formula: what a policy gives there without noise.
struct Synthetic {
    tail_ms: fn(&Policy) -> f64,
    cpu: fn(&Policy) -> f64,
    /// Deviations of the logarithms of single runs.
    noise: (f64, f64),
}

/// As measured on a device without FUA: dsync is slow at depth 1, deep fdatasync has tails; lingering saves CPU.
const NO_FUA: Synthetic = Synthetic {
    tail_ms: |p| {
        let flush = match (p.method, p.depth) {
            (Method::Fdatasync, 1) => 0.3,
            (Method::Fdatasync, depth) => 0.6 * f64::from(depth),
            (Method::Dsync, 1) => 4.0,
            (Method::Dsync, depth) => 2.4 / f64::from(depth),
        };
        let group = if p.group_bytes < 1 << 20 { 1.2 } else { 1.0 };
        2.0 * flush * group + p.linger_us as f64 / 1e3
    },
    cpu: |p| {
        let lingering = 1.0 + (p.linger_us as f64 / 100.0).sqrt();
        let method = if p.method == Method::Dsync { 1.3 } else { 1.0 };
        0.2 + method * 0.6 / lingering + 0.05 * f64::from(p.depth)
    },
    noise: (0.25, 0.06),
};

/// As with FUA: dsync at depth 4 is best at everything.
const FUA: Synthetic = Synthetic {
    tail_ms: |p| match p.method {
        Method::Dsync => 0.8 / f64::from(p.depth) + p.linger_us as f64 / 1e3,
        Method::Fdatasync => 3.0 + p.linger_us as f64 / 1e3,
    },
    cpu: |p| if p.method == Method::Dsync { 0.4 } else { 0.5 },
    noise: (0.25, 0.06),
};

/// Sums of equal random numbers are nearly normal.
struct Random(u64);

impl Random {
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.equal()).sum::<f64>() - 6.0
    }

    fn equal(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

impl Synthetic {
    fn run(&self, policy: &Policy, random: &mut Random) -> Sample {
        let tail_ms = (self.tail_ms)(policy) * (self.noise.0 * random.normal()).exp();
        Sample {
            p50_ms: tail_ms / 5.0,
            tail_ms,
            bytes_per_second: 8e7,
            cpu_seconds_per_gb: (self.cpu)(policy) * (self.noise.1 * random.normal()).exp(),
            kept_up: true,
        }
    }

    /// Races with this seed; the race, and how many runs it took.
    fn race(&self, objective: Objective, first: usize, seed: u64) -> (Race, usize) {
        let space = Space::usual(&[Ack::Durable]);
        let mut policies = space.policies();
        // An order without a clue.
        let mut random = Random(seed);
        for at in (1..policies.len()).rev() {
            policies.swap(at, (random.equal() * (at + 1) as f64) as usize);
        }
        let default = Policy::default_with(Method::Fdatasync);
        let mut race = Race::new(&space, objective, default, &policies, first);
        let mut runs = 0;
        while let Some(policy) = race.next_policy() {
            let sample = self.run(&policy, &mut random);
            race.tell(&policy, Some(sample));
            runs += 1;
            assert!(runs < 1000, "a race ends");
        }
        (race, runs)
    }

    fn cheapest(&self, slo: Slo) -> f64 {
        let all = Space::usual(&[Ack::Durable]).policies();
        all.iter().filter(|p| (self.tail_ms)(p) <= slo.ms).map(|p| (self.cpu)(p)).fold(f64::MAX, f64::min)
    }

    fn fastest(&self) -> f64 {
        let all = Space::usual(&[Ack::Durable]).policies();
        all.iter().map(|p| (self.tail_ms)(p)).fold(f64::MAX, f64::min)
    }
}

const SEEDS: u64 = 100;

#[test]
fn the_cheapest_policy_within_a_latency_is_found() {
    for (broker, ms, first) in [(&NO_FUA, 2.0, 48), (&NO_FUA, 1.2, 48), (&FUA, 1.5, 48), (&NO_FUA, 3.0, 16)] {
        let slo = Slo { quantile: 0.99, ms };
        // What only just meets the goal is not recommended, so the truth to compare with keeps the same distance.
        let best = broker.cheapest(Slo { ms: ms / 0.25f64.exp() / 1.1, ..slo });
        let mut good = 0;
        for seed in 0..SEEDS {
            let (race, runs) = broker.race(Objective::Cheapest(slo), first, seed);
            assert!(
                runs <= Race::runs(first) * 3 / 2 + 6,
                "{runs} runs, {} were foreseen",
                Race::runs(first)
            );
            let Some(one) = race.recommended().first().cloned() else { continue };
            assert!(one.samples.len() > 1);
            let (tail, cpu) = ((broker.tail_ms)(&one.policy), (broker.cpu)(&one.policy));
            good += u64::from(tail <= ms && cpu <= best * 1.1);
        }
        assert!(good >= SEEDS * 9 / 10, "{good} of {SEEDS} at {ms} ms from {first}");
    }
}

#[test]
fn the_fastest_policy_is_found_from_a_part_of_the_space_too() {
    for (broker, first) in [(&NO_FUA, 48), (&FUA, 48), (&FUA, 16)] {
        let mut good = 0;
        for seed in 0..SEEDS {
            let (race, _) = broker.race(Objective::Fastest, first, seed);
            let one = race.recommended().first().cloned().expect("somebody is fastest");
            good += u64::from((broker.tail_ms)(&one.policy) <= broker.fastest() * 1.35);
        }
        assert!(good >= SEEDS * 8 / 10, "{good} of {SEEDS} from {first}");
    }
}

#[test]
fn time_goes_to_the_good_ones() {
    let (mut best, mut all) = (0, 0);
    for seed in 0..SEEDS {
        let (race, runs) = NO_FUA.race(Objective::Fastest, 48, seed);
        let mut standings = race.standings();
        standings.sort_by(|a, b| (NO_FUA.tail_ms)(&a.policy).total_cmp(&(NO_FUA.tail_ms)(&b.policy)));
        best += standings.iter().take(6).map(|s| s.samples.len()).sum::<usize>();
        all += runs;
    }
    let part = best as f64 / all as f64;
    assert!(part > 0.3, "the best eighth got {part} of the runs, twice its share is 0.25");
}

#[test]
fn an_impossible_goal_recommends_nothing_and_knows_the_nearest() {
    let slo = Slo { quantile: 0.99, ms: 0.05 };
    let (race, _) = NO_FUA.race(Objective::Cheapest(slo), 48, 1);
    assert!(race.recommended().is_empty());
    let near = race.standings().iter().map(|s| s.tail_ms.value).fold(f64::MAX, f64::min);
    assert!(near < 1.2, "{near}");
}

#[test]
fn a_policy_that_fails_is_out_and_the_race_goes_on() {
    let space = Space::usual(&[Ack::Durable]);
    let default = Policy::default_with(Method::Fdatasync);
    let mut race = Race::new(&space, Objective::Fastest, default, &space.policies(), 48);
    let mut random = Random(1);
    while let Some(policy) = race.next_policy() {
        let fails = policy.method == Method::Dsync;
        race.tell(&policy, (!fails).then(|| NO_FUA.run(&policy, &mut random)));
    }
    assert!(race.standings().iter().all(|s| s.policy.method == Method::Fdatasync));
    assert!(!race.recommended().is_empty());
    assert_eq!(race.runs_left(), 0);
}
