//! `ringmill check`: is this host ready for a broker, and what to do where it is not.
//!
//! Only looks. Each finding has a verdict: `ok`; `warn` when a broker works, but slower or with a weaker promise than it
//! could; `fail` when it does not start or cannot keep its promise.

mod cpu;
mod disk;
mod kernel;

use crate::exit::{Code, Failed};
use crate::output::{Out, Paint};
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;

#[derive(Args)]
#[command(
    after_help = "Exit code 0: a broker starts and keeps its promises. 1: it does not start, or cannot keep them, as on a file system in memory; or, with --strict, there is a warning."
)]
pub struct Check {
    /// The data folder to be; it need not exist
    #[arg(long, value_name = "DIR", default_value = "./ringmill-data")]
    data: PathBuf,
    /// Take warnings for failures
    #[arg(long)]
    strict: bool,
    /// An array of objects
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    Warn,
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    check: &'static str,
    verdict: Verdict,
    found: String,
    /// What to do; nothing when it is fine.
    advice: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Finding {
        Finding { check, verdict: Verdict::Ok, found: found.into(), advice: None }
    }

    fn warn(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Finding {
        Finding { check, verdict: Verdict::Warn, found: found.into(), advice: Some(advice.into()) }
    }

    fn fail(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Finding {
        Finding { check, verdict: Verdict::Fail, found: found.into(), advice: Some(advice.into()) }
    }
}

impl Check {
    pub fn run(self) -> Result<(), Failed> {
        let mut findings =
            vec![kernel::release(), kernel::io_uring(), kernel::memlock(), kernel::open_files()];
        findings.extend([
            kernel::memory(),
            cpu::count(),
            cpu::governor(),
            cpu::clock_source(),
            cpu::autogroup(),
        ]);
        findings.extend(disk::all(&self.data));
        let worst = findings.iter().map(|f| f.verdict).max().unwrap_or(Verdict::Ok);
        let mut out = Out::new();
        if self.json {
            out.json_pretty(&findings)?;
        } else {
            show(&mut out, &findings, worst)?;
        }
        out.finish()?;
        let unready = if self.strict { Verdict::Warn } else { Verdict::Fail };
        if worst >= unready { Err(Failed::said(Code::Refused)) } else { Ok(()) }
    }
}

fn show(out: &mut Out, findings: &[Finding], worst: Verdict) -> std::io::Result<()> {
    let wide = findings.iter().map(|f| f.check.len()).max().unwrap_or(0);
    for finding in findings {
        let (word, paint) = match finding.verdict {
            Verdict::Ok => ("ok  ", Paint::Good),
            Verdict::Warn => ("warn", Paint::Odd),
            Verdict::Fail => ("FAIL", Paint::Bad),
        };
        let word = out.paint(paint, word);
        out.line(format!("{word}  {:<wide$}  {}", finding.check, finding.found))?;
        if let Some(advice) = &finding.advice {
            out.line(format!("      {:<wide$}  -> {advice}", ""))?;
        }
    }
    out.line(match worst {
        Verdict::Ok => "this host is ready",
        Verdict::Warn => "a broker runs here; the warnings say what would make it better",
        Verdict::Fail => {
            "a broker does not run here, or cannot keep its promise, until what failed is put right"
        }
    })
}

/// A file of /proc or /sys, trimmed.
fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_string())
}
