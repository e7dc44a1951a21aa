//! `cargo x`: the project's own chores. `cargo x tidy` keeps the style that the compiler does not; `cargo x ci` is what
//! CI runs; `cargo x instructions` counts what fixed requests cost; `cargo x clients` tries the broker with clients that
//! nobody here wrote.

mod clients;
mod conformance;
mod instructions;
mod run;
mod tidy;

use std::process::ExitCode;

const USAGE: &str = "usage: cargo x tidy | ci | instructions [--accept] | clients [SUITE…] | conformance [SUITE…]

  tidy      file sizes, unsafe outside the reactor, unfinished marks, links of all pages
  ci        everything CI runs, in its order
  instructions  instruction counts of fixed requests, by valgrind, against bench/micro/instructions.tsv
  clients   the broker against unmodified clients, installed from their registries (RINGMILL=PATH: another build of it):
";

const CONFORMANCE: &str =
    "  conformance  outside test suites and Kafka's tools, into COMPATIBILITY.md (KAFKA=1: against Kafka itself):
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments.as_slice() {
        ["tidy"] => tidy::check(),
        ["ci"] => run::ci(),
        ["instructions"] => instructions::run(false),
        ["instructions", "--accept"] => instructions::run(true),
        ["clients", only @ ..] => clients::run(only),
        ["conformance", only @ ..] => conformance::run(only),
        _ => Err(format!("{USAGE}{}{CONFORMANCE}{}", clients::list(), conformance::list())),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("{reason}");
            ExitCode::FAILURE
        }
    }
}
