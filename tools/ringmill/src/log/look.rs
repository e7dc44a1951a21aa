//! `ringmill log dump` and `verify`: what is in the files, and what is wrong with them. Nothing is changed.

use super::failed;
use super::own::{self, OwnRow};
use crate::exit::{Code, Failed};
use crate::output::{Out, Paint, counted};
use clap::Args;
use ringmill_broker::identity::NODE_TOML;
use ringmill_log::inspect::repair;
use ringmill_log::inspect::{self, FileKind, InspectError, Report, Severity};
use ringmill_reactor::Unfit;
use ringmill_reactor::stdfs::StdFs;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// A folder nested deeper than `DATA/topics/NAME-0` holds nothing of ours.
const DEPTH_MAX: usize = 4;

/// A path that is not there is that, and not a file of an unknown kind.
fn check_there(path: &Path) -> Result<(), Failed> {
    std::fs::metadata(path).map(drop).map_err(|error| Failed::local(path.display(), &error))
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

/// A row of any file: for programs and for people.
trait Shown: Serialize + std::fmt::Display {}

impl Shown for inspect::Row {}
impl Shown for OwnRow {}

#[derive(Serialize)]
struct JsonRow<'a, R> {
    path: &'a Path,
    #[serde(flatten)]
    row: &'a R,
}

#[derive(Serialize)]
struct JsonReport<'a> {
    sound: bool,
    #[serde(flatten)]
    report: &'a Report,
}

impl Dump {
    pub fn run(self) -> Result<(), Failed> {
        let mut out = Out::new();
        let mut damaged = false;
        for path in &self.paths {
            for place in with_core_logs(path) {
                for file in files_of(&place)? {
                    damaged |= self.file(&file, &mut out)?;
                }
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
        let reports = match own::kind_of(path) {
            Some(kind) => vec![own_file(path, kind, &mut |row| self.row(&mut wrote, out, path, &row))?],
            None => inspect::dump(&StdFs, path, &mut |row| self.row(&mut wrote, out, path, row))
                .map_err(failed)?,
        };
        wrote?;
        for report in &reports {
            show(out, report, self.json)?;
        }
        Ok(reports.iter().any(|report| !report.is_sound()))
    }

    /// Shows one row, unless an earlier one failed.
    fn row<R: Shown>(&self, wrote: &mut std::io::Result<()>, out: &mut Out, path: &Path, row: &R) {
        if wrote.is_ok() {
            *wrote = if self.json { out.json(&JsonRow { path, row }) } else { out.line(row.to_string()) };
        }
    }
}

/// Looks at a file that is not the log's.
fn own_file(path: &Path, kind: FileKind, emit: &mut dyn FnMut(OwnRow)) -> Result<Report, Failed> {
    let looked = if kind == FileKind::NodeIdentity {
        own::node(&StdFs, path, emit)
    } else {
        own::journal(&StdFs, path, emit)
    };
    match looked {
        Err(error) if Unfit::of(&error).is_some() => Ok(Report::unfit(path, kind, &error)),
        looked => looked.map_err(|error| Failed::local(path.display(), &error)),
    }
}

/// `path`, and the core logs that belong to it and lie elsewhere: acked records may be nowhere else.
fn with_core_logs(path: &Path) -> Vec<PathBuf> {
    let mut places = vec![path.to_path_buf()];
    places.extend(own::core_logs_elsewhere(&StdFs, path));
    places
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
        // By its name a file, whatever lies there.
        let is_looked_at = inspect::kind_of(&path).or_else(|| own::kind_of(&path)).is_some();
        if is_looked_at {
            files.push(path);
        } else if path.is_dir() {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if depth < DEPTH_MAX && !inspect::is_set_aside(&name) {
                walk(&path, depth + 1, files)?;
            }
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

/// A report on every file at or below `path`, and on the chain of each core log.
fn reports_of(path: &Path) -> Result<Vec<Report>, Failed> {
    let files = files_of(path)?;
    let own = files.iter().filter_map(|file| Some((file, own::kind_of(file)?)));
    let own = own.map(|(file, kind)| own_file(file, kind, &mut |_| {})).collect::<Result<Vec<_>, _>>()?;
    // Nothing of the log's there, as in `meta`: what was found is all.
    if files.len() == own.len() {
        return Ok(own);
    }
    let mut reports = inspect::verify(&StdFs, path).map_err(failed)?;
    reports.extend(own);
    Ok(reports)
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
    pub fn run(self) -> Result<(), Failed> {
        let mut out = Out::new();
        let (mut files, mut damaged, mut newer) = (0, 0, 0);
        for path in &self.paths {
            let places = with_core_logs(path);
            let mut reports =
                places.iter().map(|place| reports_of(place)).collect::<Result<Vec<_>, _>>()?.concat();
            own::compare_segments(&StdFs, path, &mut reports).map_err(failed)?;
            for report in reports {
                files += 1;
                newer += u64::from(report.is_newer());
                damaged += u64::from(!report.is_sound() && !report.is_newer());
                if !(self.only_findings && report.findings.is_empty()) {
                    show(&mut out, &report, self.json)?;
                }
            }
        }
        if !self.json {
            let verdict = match (newer, damaged) {
                (0, 0) => out.paint(Paint::Good, "nothing is damaged"),
                (0, count) => out.paint(Paint::Bad, &format!("{} damaged", counted(count, "report"))),
                (_, 0) => out.paint(Paint::Bad, "written by a newer version: run that"),
                (_, count) => {
                    let what =
                        format!("written by a newer version: run that; {} damaged", counted(count, "report"));
                    out.paint(Paint::Bad, &what)
                }
            };
            out.line(format!("{}: {verdict}", counted(files, "report")))?;
            // Only of a whole data folder.
            if let Some(data) =
                self.paths.iter().find(|path| damaged > 0 && newer == 0 && path.join(NODE_TOML).exists())
            {
                let look = repair::look_command(data);
                out.line(format!(
                    "with the broker stopped, `{look}` says what of it can be repaired, and at what loss"
                ))?;
            }
        }
        out.finish()?;
        if damaged + newer > 0 { Err(Failed::said(Code::Refused)) } else { Ok(()) }
    }
}
