//! `ringmill tune flush`: arguments, and the order of things.

use super::bench::{Bench, Load, Ran};
use super::findings::{Asked, DeviceText, Findings, Trial, Trials, Verdict, on_frontier, same_load};
use super::goal::Search;
use super::progress::Progress;
use super::{html, probe, report};
use crate::embedded::Settings;
use crate::exit::{Code, Failed};
use crate::output::Out;
use crate::perf::cluster::stop_on_signals;
use crate::saving::{refuse_overwriting, save};
use clap::{ArgGroup, Args, ValueEnum};
use ringmill_tune::{Ack, Method, Policy, Rate, Sample, Slo, Space, goal, order};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Runs without a broker that answers before the search is given up.
const FAILURES_MAX: usize = 5;
/// Of the free space, what one run may take at most: one in so many.
const SPACE_PART: f64 = 4.0;

/// Runs brokers of its own, in a temporary folder beside the data to come, and gives them the load in question.
#[derive(Args)]
#[command(
    group = ArgGroup::new("goal").args(["rate", "slo", "explore"]).required(true).multiple(true),
    after_help = "A goal is a load (--rate), a latency (--slo) or both; without one --explore draws the whole picture. \
    With both: the policy that needs the least CPU of those within the latency. Only --rate: the lowest latency. \
    Only --slo: the largest load within it. Latencies count from the time at which a record was meant to be sent."
)]
pub struct Flush {
    /// Load of all producers together, such as 80MB/s or 20000rec/s
    #[arg(long, value_name = "RATE")]
    rate: Option<Rate>,
    /// Latency to keep within, such as p99=2ms
    #[arg(long, value_name = "PERCENTILE=TIME")]
    slo: Option<Slo>,
    /// Draw the frontier over all loads
    #[arg(long, conflicts_with = "rate")]
    explore: bool,
    /// Bytes of a value
    #[arg(long, value_name = "BYTES", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    record_size: u32,
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=20_000))]
    partitions: i32,
    /// Producers, each with a connection of its own
    #[arg(long, value_name = "COUNT", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    producers: u32,
    /// How long producers wait for a batch to fill; part of every latency
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 0.0)]
    linger: f64,
    /// Bytes of a batch that leaves at once
    #[arg(long, value_name = "BYTES", default_value_t = 16 << 10, value_parser = clap::value_parser!(u32).range(1..=64 << 20))]
    batch_size: u32,
    /// Which acks may be recommended; durable with --rate, both with --explore. Relaxed: only where durable will not do
    #[arg(long, value_name = "KIND")]
    acks: Option<Acks>,
    /// Time to spend, such as 90s or 5m
    #[arg(long, value_name = "TIME", default_value = "3m", value_parser = goal::time)]
    budget: Duration,
    /// Length of one run of the search
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = goal::time)]
    span: Duration,
    /// Folder on the device in question; what is made in it goes away [default: the current folder]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Core threads of the broker, as `serve --cores` takes them
    #[arg(long, value_name = "COUNT|LIST")]
    cores: Option<String>,
    /// Its memory, as `serve --memory` takes it
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
    /// Any other key of the broker; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Afterwards run the whole grid and say whether anything in it beats the recommendation; ignores the budget
    #[arg(long, requires = "rate")]
    sweep: bool,
    /// One JSON document instead of text
    #[arg(long)]
    json: bool,
    /// One page with the frontier
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Overwrite it
    #[arg(long)]
    force: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Acks {
    Durable,
    Relaxed,
    Both,
}

impl Flush {
    pub fn run(self) -> Result<(), Failed> {
        self.check()?;
        let asked = self.asked();
        let stop = stop_on_signals()?;
        let progress = Progress::new(self.budget);
        let folder = self.data.clone().unwrap_or_else(|| PathBuf::from("."));
        self.check_space(&folder)?;
        progress.phase("probing the device");
        progress.show("probing the device", self.budget);
        let device = probe::device(&folder, &stop)?;
        progress.phase("starting a broker");
        progress.show("starting a broker", self.budget);
        let mut lab = Lab::start(self.load(&asked), self.settings(folder.clone()), progress, &stop)?;
        let space = Space::usual(&self.acks());
        let policies = space.policies();
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as f64;
        let core_load = asked.rate_bytes_per_second.unwrap_or(5e7) / cores;
        let order: Vec<Policy> = order(&policies, &device, core_load)
            .into_iter()
            .filter_map(|at| policies.get(at).copied())
            .collect();
        let default = Policy::default_with(Method::Fdatasync);
        let search = Search { asked: &asked, space: &space, order: &order, default, span: self.span };
        let (verdict, default) = match asked.rate_bytes_per_second {
            Some(rate) => search.at(&mut lab, rate),
            None => search.explore(&mut lab),
        };
        let sweep = match (&verdict, asked.rate_bytes_per_second) {
            (Verdict::Recommended { fresh, .. }, Some(rate)) if self.sweep => {
                Some(search.sweep(&mut lab, &fresh.raw, rate))
            }
            _ => None,
        };
        lab.progress.clear();
        let rows = lab.trials.rows();
        let findings = Findings {
            asked,
            device_name: probe::name(&folder),
            device: device.iter().map(DeviceText::of).collect(),
            verdict,
            default,
            frontier_durable: on_frontier(&rows, Ack::Durable),
            frontier_relaxed: on_frontier(&rows, Ack::Relaxed),
            trials: rows,
            sweep,
            failed: lab.failed.clone(),
            runs: lab.progress.runs(),
            seconds: lab.progress.elapsed().as_secs_f64(),
            complete: !lab.is_stopped(),
        };
        // The broker goes away before anything is printed, and its folder with it.
        let broken = lab.broken.take();
        drop(lab);
        self.tell(&findings)?;
        if let Some(failure) = broken {
            return Err(failure);
        }
        if stop.load(Ordering::Relaxed) {
            return Err(Failed::said(Code::Interrupted));
        }
        match findings.verdict {
            Verdict::Recommended { .. } | Verdict::Frontier { .. } => Ok(()),
            Verdict::Nearest { .. } | Verdict::Unfinished => Err(Failed::said(Code::Refused)),
        }
    }

    fn tell(&self, findings: &Findings) -> Result<(), Failed> {
        let mut out = Out::new();
        if self.json {
            out.json_pretty(findings)?;
        } else {
            report::tell(&mut out, findings)?;
        }
        if let Some(path) = &self.html {
            save(path, html::page(findings).as_bytes(), self.force)?;
        }
        Ok(out.finish()?)
    }

    /// What can be refused before anything is measured.
    fn check(&self) -> Result<(), Failed> {
        let usage = |why: String| Err(Failed::new(Code::Usage, why));
        if !(0.0..=10_000.0).contains(&self.linger) {
            return usage("--linger takes 0 to 10000 milliseconds".into());
        }
        if let Some(path) = &self.html {
            refuse_overwriting(path, self.force)?;
        }
        if let Some(folder) = self.data.as_ref().filter(|folder| !folder.is_dir()) {
            return usage(format!("{}: there is no such folder", folder.display()));
        }
        let kept = ["flush.method", "flush.depth", "group.linger.us", "group.bytes", "relaxed.topics.enable"];
        let is_ours = |one: &&String| kept.iter().any(|key| one.trim_start().starts_with(key));
        match self.set.iter().find(is_ours) {
            Some(one) => usage(format!("--set {one}: that is what is looked for")),
            None => Ok(()),
        }
    }

    /// A run must not fill the disk.
    fn check_space(&self, folder: &std::path::Path) -> Result<(), Failed> {
        let Some(rate) = Asked::rate(self.rate, self.record_size) else { return Ok(()) };
        let stat =
            rustix::fs::statvfs(folder).map_err(|error| Failed::local(folder.display(), &error.into()))?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize) as f64;
        // The longest run is a fresh one that does not keep up.
        let needed = rate * self.span.as_secs_f64().max(1.0) * 8.0;
        if needed > free / SPACE_PART {
            let (needed, free) = (crate::output::bytes(needed as u64), crate::output::bytes(free as u64));
            let why = format!("a run writes about {needed}, and {free} are free in {}", folder.display());
            return Err(Failed::new(Code::Local, why));
        }
        Ok(())
    }

    fn asked(&self) -> Asked {
        let slo = self.slo.unwrap_or(Slo { quantile: 0.99, ms: f64::INFINITY });
        Asked {
            rate_bytes_per_second: Asked::rate(self.rate, self.record_size),
            record_bytes: self.record_size,
            partitions: self.partitions,
            producers: self.producers as usize,
            producer_linger_ms: self.linger,
            quantile: slo.quantile,
            quantile_name: slo.name(),
            limit_ms: self.slo.map(|slo| slo.ms),
            slo: self.slo,
        }
    }

    fn load(&self, asked: &Asked) -> Load {
        Load {
            record_bytes: self.record_size,
            partitions: self.partitions,
            producers: self.producers as usize,
            linger: Duration::from_secs_f64(self.linger / 1e3),
            batch_bytes: self.batch_size as usize,
            quantile: asked.quantile,
        }
    }

    fn settings(&self, parent: PathBuf) -> Settings {
        Settings {
            set: self.set.clone(),
            cores: self.cores.clone(),
            memory: self.memory.clone(),
            // It is pushed to its limits on purpose, which it would warn of.
            log_level: Some("error"),
            parent: Some(parent),
        }
    }

    fn acks(&self) -> Vec<Ack> {
        match self.acks.unwrap_or(if self.explore { Acks::Both } else { Acks::Durable }) {
            Acks::Durable => vec![Ack::Durable],
            Acks::Relaxed => vec![Ack::Relaxed],
            Acks::Both => vec![Ack::Durable, Ack::Relaxed],
        }
    }
}

/// What a run came to, for a search.
pub enum Step {
    Sample(Sample),
    /// This policy cannot be run; noted.
    Failed,
    /// No further run.
    Stopped,
}

/// The bench with a notebook.
pub struct Lab {
    bench: Bench,
    pub progress: Progress,
    pub trials: Trials,
    pub failed: Vec<(String, String)>,
    /// Why there can be no further run.
    pub broken: Option<Failed>,
    failures: usize,
    /// What runs took beside their span, together.
    beside: Duration,
    counted: u32,
    stop: Arc<AtomicBool>,
}

impl Lab {
    fn start(load: Load, base: Settings, progress: Progress, stop: &Arc<AtomicBool>) -> Result<Lab, Failed> {
        Ok(Lab {
            bench: Bench::start(load, base, Arc::clone(stop))?,
            progress,
            trials: Trials::default(),
            failed: Vec::new(),
            broken: None,
            failures: 0,
            beside: Duration::ZERO,
            counted: 0,
            stop: Arc::clone(stop),
        })
    }

    pub fn phase(&self, what: &str) {
        self.progress.phase(what);
    }

    pub fn left(&self) -> Duration {
        self.progress.left()
    }

    pub fn is_stopped(&self) -> bool {
        self.broken.is_some() || self.stop.load(Ordering::Relaxed)
    }

    /// All runs of a policy at a load so far.
    pub fn samples(&self, policy: &Policy, rate: f64) -> Vec<Sample> {
        let is_it = |trial: &&Trial| trial.policy == *policy && same_load(trial.asked, Some(rate));
        self.trials.0.iter().find(is_it).map(|trial| trial.samples.clone()).unwrap_or_default()
    }

    /// How long a run at this load has to be.
    pub fn span(&self, rate: f64, wanted: Duration) -> Duration {
        self.bench.span(rate, wanted)
    }

    /// What a run of this span takes, restart included, as far as is known.
    pub fn step(&self, span: Duration) -> Duration {
        span + if self.counted == 0 { Duration::from_secs(1) } else { self.beside / self.counted }
    }

    /// One run, noted. `note` and `to_come` are for the person who waits.
    pub fn run(
        &mut self,
        policy: &Policy,
        rate: Option<f64>,
        span: Duration,
        note: &str,
        to_come: Duration,
    ) -> Step {
        if self.is_stopped() {
            return Step::Stopped;
        }
        self.progress.show(note, to_come);
        let begun = self.progress.elapsed();
        let ran = self.bench.run(policy, rate, span);
        self.beside += (self.progress.elapsed() - begun).saturating_sub(span);
        self.counted += 1;
        let why = match ran {
            Ok(Ran::Sample(sample)) => {
                self.progress.ran();
                self.failures = 0;
                self.trials.add(policy, rate, sample);
                return Step::Sample(sample);
            }
            Ok(Ran::Stopped) => return Step::Stopped,
            Ok(Ran::Failed(why)) => Failed::new(Code::Refused, why),
            Err(failure) => failure,
        };
        self.failures += 1;
        self.failed.push((policy.label(), why.sentence.clone()));
        if self.failures >= FAILURES_MAX {
            self.broken = Some(why);
            return Step::Stopped;
        }
        Step::Failed
    }
}
