//! `ringmill-sim --seeds A..B --ops N`: runs seeds and says which of them broke a promise.

use clap::Parser;
use ringmill_sim::{Settings, Violation, run};
use std::process::ExitCode;

#[derive(Parser)]
#[command(about = "Runs a core under simulated disks, sockets and time, and checks what it promised")]
struct Args {
    /// Seeds to run, `A..B` without B, or one number.
    #[arg(long, default_value = "0..100", value_parser = seeds)]
    seeds: std::ops::Range<u64>,
    /// Batches to produce in each.
    #[arg(long, default_value_t = 150)]
    ops: u64,
    /// No EIO.
    #[arg(long)]
    no_disk_errors: bool,
    /// The disk never fills.
    #[arg(long)]
    no_full_disk: bool,
    /// A compacted topic, and passes over it.
    #[arg(long)]
    compaction: bool,
    /// Flush groups of one page and short lives: what a cut leaves behind the chain lies where the next life writes.
    #[arg(long)]
    one_page: bool,
    /// Batches of hundreds of kilobytes, flush groups and destage writes of megabytes.
    #[arg(long)]
    large: bool,
    /// Print a line for every seed.
    #[arg(long)]
    verbose: bool,
}

fn seeds(text: &str) -> Result<std::ops::Range<u64>, String> {
    let number = |t: &str| t.parse::<u64>().map_err(|_| format!("`{t}` is no seed"));
    match text.split_once("..") {
        Some((first, end)) => Ok(number(first)?..number(end)?),
        None => number(text).map(|seed| seed..seed.saturating_add(1)),
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let mut broken = 0u64;
    let (mut acked, mut crashes) = (0, 0);
    let count = args.seeds.end.saturating_sub(args.seeds.start);
    for seed in args.seeds {
        let settings = Settings {
            ops: args.ops,
            disk_errors: !args.no_disk_errors,
            full_disk: !args.no_full_disk,
            compaction: args.compaction,
            one_page: args.one_page,
            large: args.large,
            narrate: args.verbose,
            ..Settings::default()
        };
        let outcome = std::panic::catch_unwind(|| run(seed, settings)).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("without a text");
            Err(Violation(format!("panic: {text}")))
        });
        match outcome {
            Ok(report) => {
                acked += report.acked;
                crashes += report.crashes;
                if args.verbose {
                    println!("seed {seed}: {report:?}");
                }
            }
            Err(violation) => {
                broken += 1;
                let modes =
                    [("compaction", args.compaction), ("one-page", args.one_page), ("large", args.large)];
                let modes: String =
                    modes.iter().filter(|(_, on)| *on).map(|(name, _)| format!(" --{name}")).collect();
                println!(
                    "seed {seed}: {violation}\n  repeat: ringmill-sim --seeds {seed} --ops {}{modes}",
                    args.ops
                );
            }
        }
    }
    println!("{count} seeds, {acked} records acked, {crashes} crashes, {broken} seeds broke a promise");
    if broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
