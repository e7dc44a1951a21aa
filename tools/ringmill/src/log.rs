//! `ringmill log`: files on disk, looked at offline; and the one command that changes them.

use crate::exit::{Code, Failed};
use crate::output::{Out, Paint, counted, remark};
use crate::topic::asked;
use clap::{Args, Subcommand};
use ringmill_broker::identity;
use ringmill_log::inspect::repair::{self, Plan, Scope};
use ringmill_log::inspect::{self, InspectError, Report, Severity};
use ringmill_reactor::stdfs::StdFs;
use serde::Serialize;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// A folder nested deeper than `DATA/topics/NAME-0` holds nothing of ours.
const DEPTH_MAX: usize = 4;

#[derive(Subcommand)]
pub enum Log {
    /// Show every batch, entry and group of segments, indexes, core-log files and checkpoints
    Dump(Dump),
    /// Check every byte of the same files; exit code 1 when something is damaged
    Verify(Verify),
    /// Say what damage keeps a broker from starting, and go on without what it cost
    Repair(Repair),
}

impl Log {
    pub fn run(self) -> Result<(), Failed> {
        match self {
            Log::Dump(dump) => dump.run(),
            Log::Verify(verify) => verify.run(),
            Log::Repair(repair) => repair.run(),
        }
    }
}

/// A path that is not there is that, and not a file of an unknown kind.
fn check_there(path: &Path) -> Result<(), Failed> {
    std::fs::metadata(path).map(drop).map_err(|error| Failed::local(path.display(), &error))
}

fn failed(error: InspectError) -> Failed {
    Failed::new(Code::Local, error.to_string())
}

#[derive(Args)]
pub struct Dump {
    /// Files, or folders of them: a partition, a core log, a data folder
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// One object per row and line; each file ends with its report
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct JsonRow<'a> {
    path: &'a Path,
    #[serde(flatten)]
    row: &'a inspect::Row,
}

#[derive(Serialize)]
struct JsonReport<'a> {
    sound: bool,
    #[serde(flatten)]
    report: &'a Report,
}

impl Dump {
    fn run(self) -> Result<(), Failed> {
        let mut out = Out::new();
        let mut damaged = false;
        for path in &self.paths {
            for file in files_of(path)? {
                damaged |= self.file(&file, &mut out)?;
            }
        }
        out.finish()?;
        if damaged { Err(Failed::said(Code::Refused)) } else { Ok(()) }
    }

    /// Shows one file; true when it is damaged.
    fn file(&self, path: &Path, out: &mut Out) -> Result<bool, Failed> {
        if !self.json {
            out.line(out.paint(Paint::Bold, &path.display().to_string()))?;
        }
        // The walk cannot be stopped from inside; after a failed write the rest of this file is read in vain.
        let mut wrote = Ok(());
        let reports = inspect::dump(&StdFs, path, &mut |row| {
            if wrote.is_ok() {
                wrote = if self.json { out.json(&JsonRow { path, row }) } else { out.line(row.to_string()) };
            }
        });
        wrote?;
        let reports = reports.map_err(failed)?;
        for report in &reports {
            show(out, report, self.json)?;
        }
        Ok(reports.iter().any(|report| !report.is_sound()))
    }
}

/// `path` itself, or the files below it that can be looked at, in order.
fn files_of(path: &Path) -> Result<Vec<PathBuf>, Failed> {
    check_there(path)?;
    let mut files = Vec::new();
    if path.is_dir() {
        walk(path, 0, &mut files)?;
        if files.is_empty() {
            return Err(failed(InspectError::Unknown { path: path.to_path_buf() }));
        }
    } else {
        files.push(path.to_path_buf());
    }
    Ok(files)
}

fn walk(dir: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), Failed> {
    let cannot = |error: std::io::Error| Failed::local(dir.display(), &error);
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(cannot)? {
        entries.push(entry.map_err(cannot)?.path());
    }
    entries.sort();
    for path in entries {
        if path.is_dir() {
            if depth < DEPTH_MAX {
                walk(&path, depth + 1, files)?;
            }
        } else if inspect::kind_of(&path).is_some() {
            files.push(path);
        }
    }
    Ok(())
}

fn show(out: &mut Out, report: &Report, json: bool) -> std::io::Result<()> {
    if json {
        return out.json(&JsonReport { sound: report.is_sound(), report });
    }
    let notes = report.findings.iter().any(|f| f.severity == Severity::Note);
    let paint = match (report.is_sound(), notes) {
        (false, _) => Paint::Bad,
        (true, true) => Paint::Odd,
        (true, false) => Paint::Good,
    };
    out.line(out.paint(paint, &report.to_string()))
}

#[derive(Args)]
pub struct Verify {
    /// Files, or folders of them: a partition, a core log, a data folder
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Leave out files without findings
    #[arg(long)]
    only_findings: bool,
    /// One report per line
    #[arg(long)]
    json: bool,
}

impl Verify {
    fn run(self) -> Result<(), Failed> {
        let mut out = Out::new();
        let (mut files, mut damaged) = (0, 0);
        for path in &self.paths {
            check_there(path)?;
            for report in inspect::verify(&StdFs, path).map_err(failed)? {
                files += 1;
                damaged += u64::from(!report.is_sound());
                if !(self.only_findings && report.findings.is_empty()) {
                    show(&mut out, &report, self.json)?;
                }
            }
        }
        if !self.json {
            let verdict = match damaged {
                0 => out.paint(Paint::Good, "nothing is damaged"),
                count => out.paint(Paint::Bad, &format!("{} damaged", counted(count, "report"))),
            };
            out.line(format!("{}: {verdict}", counted(files, "report")))?;
        }
        out.finish()?;
        if damaged > 0 { Err(Failed::said(Code::Refused)) } else { Ok(()) }
    }
}

#[derive(Args)]
#[command(
    after_help = "Without --accept-loss nothing is changed. Files that are replaced go to DATA/set-aside. Exit code 1 when there is
something to repair that was not repaired."
)]
pub struct Repair {
    /// Data folder of a broker that is stopped
    #[arg(long, value_name = "DIR", default_value = "./ringmill-data")]
    data: PathBuf,
    /// Repair, and lose what the plan says is lost
    #[arg(long)]
    accept_loss: bool,
    /// Look at every byte of every segment too, not only at what keeps a broker from starting
    #[arg(long)]
    everything: bool,
    /// Do not ask
    #[arg(long, short = 'y', requires = "accept_loss")]
    yes: bool,
    /// The plan, and what was set aside, as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Repaired<'a> {
    plan: &'a Plan,
    repaired: bool,
    set_aside: Vec<PathBuf>,
}

impl Repair {
    fn run(self) -> Result<(), Failed> {
        // Looking takes the lock for a moment, so it comes first.
        let core_log_root = self.core_log_root()?;
        let _lock = self.lock()?;
        let scope = if self.everything { Scope::Everything } else { Scope::CoreLogs };
        let core_dirs = repair::core_dirs(&StdFs, &core_log_root).map_err(failed)?;
        let plan = repair::plan(&StdFs, &self.data, &core_dirs, scope).map_err(failed)?;
        let mut out = Out::new();
        if !self.json {
            out.line(plan.to_string().trim_end())?;
            out.finish()?;
            out = Out::new();
        }
        let go = self.accept_loss && !plan.actions.is_empty() && self.meant(&plan)?;
        let set_aside =
            if go { repair::apply(&StdFs, &self.data, &plan, &label()).map_err(failed)? } else { Vec::new() };
        if self.json {
            out.json_pretty(&Repaired { plan: &plan, repaired: go, set_aside: set_aside.clone() })?;
        } else if go {
            for path in &set_aside {
                out.line(format!("set aside: {}", path.display()))?;
            }
            out.line("repaired; `ringmill serve` starts with what is left")?;
        }
        out.finish()?;
        self.verdict(&plan, go)
    }

    fn verdict(&self, plan: &Plan, repaired: bool) -> Result<(), Failed> {
        if !plan.beyond_repair.is_empty() {
            return Err(Failed::new(Code::Refused, "some of the damage cannot be repaired"));
        }
        if plan.is_empty() || repaired {
            return Ok(());
        }
        let advice = if self.accept_loss { "" } else { "; --accept-loss goes on without what is lost" };
        Err(Failed::new(Code::Refused, format!("nothing was changed{advice}")))
    }

    fn meant(&self, plan: &Plan) -> Result<bool, Failed> {
        if self.yes {
            return Ok(true);
        }
        let losses = plan.losses.len() as u64;
        remark(&format!("{} and {}", counted(losses, "loss"), counted(plan.actions.len() as u64, "change")));
        asked("Go on?")
    }

    /// Keeps a broker from starting meanwhile, and finds out one that runs.
    fn lock(&self) -> Result<File, Failed> {
        let path = self.data.join("LOCK");
        let lock = File::options().read(true).write(true).open(&path).map_err(|error| {
            let what =
                format!("{} is not the data folder of a broker ({})", self.data.display(), path.display());
            Failed::local(what, &error)
        })?;
        match lock.try_lock() {
            Ok(()) => Ok(lock),
            Err(TryLockError::WouldBlock) => Err(Failed::new(
                Code::Refused,
                format!("a broker runs on {}; stop it first", self.data.display()),
            )),
            Err(TryLockError::Error(error)) => Err(Failed::local(path.display(), &error)),
        }
    }

    /// Core logs may lie on a device of their own; `node.toml` knows.
    fn core_log_root(&self) -> Result<PathBuf, Failed> {
        let identity = identity::look(&StdFs, &self.data)
            .map_err(|failure| Failed::new(Code::Refused, failure.to_string()))?;
        let elsewhere = identity.and_then(|identity| identity.generation.log_dir);
        Ok(elsewhere.unwrap_or_else(|| self.data.clone()))
    }
}

/// Seconds since 1970: names the folder that takes what is replaced.
fn label() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs().to_string()
}
