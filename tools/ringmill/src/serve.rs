//! `ringmill serve`: command-line options to a running broker.

use clap::Args;
use ringmill_broker::ServeArgs;
use std::path::PathBuf;
use std::process::ExitCode;

/// Options of `serve`; each overrides the same setting of the configuration file.
#[derive(Args)]
#[command(after_long_help = format!("{}\n{}", ringmill_broker::config::help_text(100).trim_end(), exit_codes()))]
pub struct Serve {
    /// TOML file; its keys are listed in net/docs/CONFIG.md
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Data folder [default: ./ringmill-data]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where clients connect; port 0 picks a free one [default: 127.0.0.1:9092]
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// What clients are told to connect to [default: the listen address, or this host's name]
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// Metrics, health and dumps over HTTP [default: 127.0.0.1:9644]
    #[arg(long, value_name = "HOST:PORT")]
    admin: Option<String>,
    /// Core threads: a count, or a list of CPUs such as 0-3 or 0,2 [default: one per CPU]
    #[arg(long, value_name = "COUNT|LIST")]
    cores: Option<String>,
    /// Bound on buffers of all cores together, such as 2GiB [default: 1 GiB or a quarter of RAM]
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
    /// Any configuration key; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// error, warn, info, debug, trace, or directives such as info,ringmill_core=debug
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Log lines as JSON
    #[arg(long)]
    log_json: bool,
}

/// What the process ends with, from the one table there is.
fn exit_codes() -> String {
    let mut text = "\nExit codes; net/docs/ERRORS.md says what to do:\n  0    stopped in order\n".to_string();
    for reason in ringmill_broker::Reason::ALL {
        text.push_str(&format!("  {:<4} {}\n", reason.code(), reason.text()));
    }
    text
}

impl Serve {
    pub fn run(self) -> ExitCode {
        ringmill_broker::serve(&ServeArgs {
            config: self.config,
            data: self.data,
            listen: self.listen,
            advertise: self.advertise,
            admin: self.admin,
            cores: self.cores,
            memory: self.memory,
            set: self.set,
            log_level: self.log_level,
            log_json: self.log_json,
        })
    }
}
