//! `ringmill-sim --seeds A..B --ops N`: runs seeds and says which of them broke a promise.

use clap::Parser;
use ringmill_sim::{Settings, run};
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
        match run(seed, Settings { ops: args.ops, ..Settings::default() }) {
            Ok(report) => {
                acked += report.acked;
                crashes += report.crashes;
                if args.verbose {
                    println!("seed {seed}: {report:?}");
                }
            }
            Err(violation) => {
                broken += 1;
                println!(
                    "seed {seed}: {violation}\n  repeat: ringmill-sim --seeds {seed} --ops {}",
                    args.ops
                );
            }
        }
    }
    println!("{count} seeds, {acked} records acked, {crashes} crashes, {broken} seeds broke a promise");
    if broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
