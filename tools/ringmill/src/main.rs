//! `ringmill`: the broker and its tools in one binary.
//!
//! Owns the command tree, what is printed, and the exit codes. Every command but `serve` does its work on the calling
//! thread and ends.

mod calibrate;
mod check;
mod completion;
mod consume;
mod embedded;
mod exit;
mod group;
mod lab;
mod log;
mod member;
mod neighbours;
mod output;
mod page;
mod perf;
mod plan;
mod produce;
mod prometheus;
mod saving;
mod serve;
mod server;
mod top;
mod topic;
mod tune;

use clap::{CommandFactory, Parser, Subcommand};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EXIT_CODES: &str =
    "Exit codes of all commands but `serve`, which has its own (`ringmill serve --help`):
  0  done
  1  no: the broker refused, a file is damaged, the host is not ready
  2  the command line cannot be used
  3  no broker could be reached, or it did not answer in time
  4  what was received cannot be understood
  5  a local file, pipe or terminal failed
  130  stopped by Ctrl-C before it was done";

/// A durable log broker that speaks the Kafka protocol: every ack means "on disk".
#[derive(Parser)]
#[command(name = "ringmill", version, max_term_width = 110, arg_required_else_help = true, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a broker until SIGTERM or SIGINT
    Serve(serve::Serve),
    /// Create, list, describe, alter and delete topics
    #[command(subcommand)]
    Topic(topic::Topic),
    /// List, describe, reset and delete consumer groups, and see how far they are behind
    #[command(subcommand)]
    Group(group::Group),
    /// Send lines from stdin to a topic
    Produce(produce::Produce),
    /// Print the records of a topic
    Consume(consume::Consume),
    /// Measure a broker: open-loop load, latency from the intended time
    #[command(subcommand)]
    Perf(perf::Perf),
    /// Watch a broker: cores, flush groups, latency, topics, clients, disks
    Top(top::Top),
    /// Find settings for a goal by measuring what each gives here
    #[command(subcommand)]
    Tune(tune::Tune),
    /// Measure this machine: device, network, memory, and what requests, records, bytes and flushes cost
    Calibrate(calibrate::Calibrate),
    /// What a load needs: nodes, cores, memory, disk, network; what saturates first; the latency to expect
    Plan(plan::Plan),
    /// Look at files on disk, offline: dump, verify, repair
    #[command(subcommand)]
    Log(log::Log),
    /// Say whether this host is ready for a broker, and what to do where it is not
    Check(check::Check),
    /// Print a completion script for a shell
    Completion(completion::Completion),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        // It has exit codes of its own.
        Command::Serve(serve) => return serve.run(),
        Command::Topic(topic) => topic.run(),
        Command::Group(group) => group.run(),
        Command::Produce(produce) => produce.run(),
        Command::Consume(consume) => consume.run(),
        Command::Perf(perf) => perf.run(),
        Command::Top(top) => top.run(),
        Command::Tune(tune) => tune.run(),
        Command::Calibrate(calibrate) => calibrate.run(),
        Command::Plan(plan) => plan.run(),
        Command::Log(log) => log.run(),
        Command::Check(check) => check.run(),
        Command::Completion(completion) => completion.run(&mut Cli::command()),
    };
    exit::report(result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::error::ErrorKind;

    #[test]
    fn the_command_tree_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_that_contradict_each_other_are_refused() {
        let kind = |line: &str| Cli::try_parse_from(line.split(' ')).err().map(|error| error.kind());
        assert_eq!(kind("ringmill consume t --json --format %s"), Some(ErrorKind::ArgumentConflict));
        assert_eq!(kind("ringmill topic alter t"), Some(ErrorKind::MissingRequiredArgument));
        assert_eq!(kind("ringmill log repair --yes"), Some(ErrorKind::MissingRequiredArgument));
        assert_eq!(kind("ringmill produce t --acks 2"), Some(ErrorKind::InvalidValue));
        assert_eq!(kind("ringmill topic create t -p 0"), Some(ErrorKind::ValueValidation));
        assert_eq!(kind("ringmill consume t --from -5 -p 0,2 -c 3 -e"), None);
        assert_eq!(kind("ringmill produce t -K \\t -z zstd -a all -H a=b -H c="), None);
        assert_eq!(kind("ringmill topic alter t -c a=b=c -d retention.ms -p 3"), None);
    }
}
