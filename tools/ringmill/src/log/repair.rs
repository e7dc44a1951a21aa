//! `ringmill log repair`: says what damage keeps a broker from starting and what going on would cost; changes only what was
//! accepted.

use super::failed;
use crate::exit::{Code, Failed};
use crate::output::{Out, counted, remark};
use crate::topic::asked;
use clap::Args;
use ringmill_broker::identity::{self, Identity};
use ringmill_broker::lacking::{self, Found};
use ringmill_broker::{Reason, missing, newer};
use ringmill_log::inspect::Depth;
use ringmill_log::inspect::repair::{self, Action, Loss, Plan, Scope};
use ringmill_metadata::journal::{self, Flaw, JOURNAL_DIR, JOURNAL_NAME};
use ringmill_metadata::{Image, RecordError};
use ringmill_reactor::Fs as _;
use ringmill_reactor::stdfs::{StdFs, open_file};
use serde::Serialize;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

const DATA_DEFAULT: &str = "./ringmill-data";

#[derive(Args)]
#[command(
    after_help = "Without --accept-loss nothing is changed. Files that are replaced go to DATA/set-aside. Exit code 1 when there is \
    something to repair that was not repaired."
)]
pub struct Repair {
    /// Data folder of a broker that is stopped [default: ./ringmill-data]
    #[arg(value_name = "DIR")]
    path: Option<PathBuf>,
    /// The same, as `serve` names it
    #[arg(long, value_name = "DIR", conflicts_with = "path")]
    data: Option<PathBuf>,
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
    pub fn run(self) -> Result<(), Failed> {
        let data = self.path.clone().or_else(|| self.data.clone()).unwrap_or_else(|| DATA_DEFAULT.into());
        // Looking takes the lock for a moment, so it comes first.
        let mut beyond_repair = Vec::new();
        let identity = identity_of(&data, &mut beyond_repair)?;
        let _lock = lock(&data)?;
        newer::check(&StdFs, &data, identity.as_ref())
            .map_err(|failure| Failed::new(Code::Refused, failure.to_string()))?;
        let scope = if self.everything { Scope::Everything } else { Scope::CoreLogs };
        // Core logs may lie on a device of their own.
        let elsewhere = identity.as_ref().and_then(|identity| identity.generation.log_dir.as_deref());
        let logs = elsewhere.unwrap_or(&data);
        let core_dirs = match StdFs.exists(logs) {
            true => repair::core_dirs(&StdFs, logs).map_err(failed)?,
            false => Vec::new(),
        };
        let missing = identity.iter().flat_map(|identity| missing::look(&StdFs, &data, identity));
        beyond_repair.extend(missing.map(|missing| missing.to_string()));
        let mut plan = repair::plan(&StdFs, &data, &core_dirs, scope).map_err(failed)?;
        plan.beyond_repair.extend(beyond_repair);
        plan_journal(&data, identity.as_ref(), &core_dirs, &mut plan)?;
        let mut out = Out::new();
        if !self.json {
            out.line(plan.to_string().trim_end())?;
            if plan.is_empty() && !self.everything {
                out.line(
                    "segments were not looked at: they keep no broker from starting; --everything looks at them, too",
                )?;
            }
            out.finish()?;
            out = Out::new();
        }
        // What cannot be repaired keeps a broker from starting. Once it is put right, less may be lost.
        let may = plan.beyond_repair.is_empty() && !plan.actions.is_empty();
        let go = self.accept_loss && may && self.meant(&plan)?;
        let set_aside =
            if go { repair::apply(&StdFs, &data, &plan, &label()).map_err(failed)? } else { Vec::new() };
        if self.json {
            out.json_pretty(&Repaired { plan: &plan, repaired: go, set_aside: set_aside.clone() })?;
        } else if go {
            for path in &set_aside {
                out.line(format!("set aside: {}", path.display()))?;
            }
            out.line("repaired; `ringmill serve` starts with what is left")?;
        }
        out.finish()?;
        self.verdict(&data, &plan, go)
    }

    fn verdict(&self, data: &Path, plan: &Plan, repaired: bool) -> Result<(), Failed> {
        if !plan.beyond_repair.is_empty() {
            return Err(Failed::new(
                Code::Refused,
                "some of the damage cannot be repaired; nothing was changed, nor is anything until that is put right",
            ));
        }
        if plan.is_empty() || repaired {
            return Ok(());
        }
        let scope = if self.everything { Scope::Everything } else { Scope::CoreLogs };
        let command = repair::command(data, scope);
        let advice = if self.accept_loss {
            String::new()
        } else {
            format!("; `{command}` goes on without what is lost")
        };
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
}

/// Keeps a broker from starting meanwhile, and finds out one that runs.
fn lock(data: &Path) -> Result<File, Failed> {
    let path = data.join("LOCK");
    let lock = open_file(&path, File::options().read(true).write(true)).map_err(|error| {
        let what = format!("{} is not the data folder of a broker ({})", data.display(), path.display());
        Failed::local(what, &error)
    })?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => {
            Err(Failed::new(Code::Refused, format!("a broker runs on {}; stop it first", data.display())))
        }
        Err(TryLockError::Error(error)) => Err(Failed::local(path.display(), &error)),
    }
}

/// What `node.toml` says. When it is damaged, what is in the data folder can still be looked at.
fn identity_of(data: &Path, beyond_repair: &mut Vec<String>) -> Result<Option<Identity>, Failed> {
    match identity::look(&StdFs, data) {
        Ok(identity) => Ok(identity),
        Err(failure) if failure.reason == Reason::DataDamaged => {
            beyond_repair.push(failure.to_string());
            Ok(None)
        }
        Err(failure) => Err(Failed::new(Code::Refused, failure.to_string())),
    }
}

/// What keeps a start from using the metadata journal: ids and deletions that nothing else records. Damage at its end
/// costs what was decided last; damage before it would cost what was decided behind it, and is left to a copy. What it
/// lacks, now or before, and cores know is decided again, all at once: in between, ids would be taken for used.
fn plan_journal(
    data: &Path,
    identity: Option<&Identity>,
    core_dirs: &[PathBuf],
    plan: &mut Plan,
) -> Result<(), Failed> {
    let path = data.join(JOURNAL_DIR).join(JOURNAL_NAME);
    if !StdFs.exists(&path) {
        return Ok(());
    }
    let bytes = StdFs.read_all(&path).map_err(|e| Failed::local(path.display(), &e))?;
    let mut image = Image::new();
    let (mut given_up, mut readable) = (None, true);
    for frame in journal::frames(&bytes) {
        match frame.holds {
            Ok(record) => image.apply(&record),
            Err(Flaw::TornTail) => {}
            Err(Flaw::Damage(error)) if frame.may_be_given_up(bytes.len()) && readable => {
                given_up = Some(format!(
                    "what was decided last, {} bytes of {} (topics made, changed or deleted; {error})",
                    frame.bytes,
                    path.display()
                ));
            }
            Err(Flaw::Damage(error)) => {
                readable = false;
                let what =
                    format!("{} at byte {}: {error}; restore it from a copy", path.display(), frame.at);
                plan.beyond_repair.push(what);
            }
            Err(Flaw::Newer(kind)) => {
                readable = false;
                let error = RecordError::UnknownKind(kind);
                plan.beyond_repair.push(format!("{} at byte {}: {error}", path.display(), frame.at));
            }
        }
    }
    let other_damage = !plan.beyond_repair.is_empty();
    let generation = identity.map(|identity| &identity.generation).filter(|_| readable);
    let found = match generation {
        Some(generation) => lacking::look(&StdFs, data, generation, &image, Depth::Log).map_err(failed)?,
        None => Found::default(),
    };
    if found.is_empty() && given_up.is_none() {
        return Ok(());
    }
    // Cores of which not all can be read may know more.
    if other_damage {
        let what = format!(
            "{} is left as it is until the damage that cannot be repaired is put right",
            path.display()
        );
        plan.beyond_repair.push(what);
        return Ok(());
    }
    let mut losses: Vec<String> = given_up.into_iter().collect();
    if let Some(generation) = generation.filter(|_| !found.is_empty()) {
        match lacking::recall(&StdFs, data, found, generation, &mut image) {
            Ok(recalled) => {
                losses.extend(recalled.losses);
                let forget = recalled.forget.into_iter();
                let forget = forget.map(|(dir, id)| Action::ForgetPartition { dir, partition: id.0 });
                plan.actions.extend(forget);
            }
            Err(error) => {
                plan.beyond_repair.push(error);
                return Ok(());
            }
        }
    }
    let producers = lacking::skip_producer_ids(&StdFs, core_dirs, &mut image);
    losses.push(format!(
        "which ids of producers were given out last: new producers get ids from {producers} on"
    ));
    plan.losses.extend(losses.into_iter().map(Loss::anywhere));
    plan.actions.push(Action::ReplaceFile { path, bytes: journal::snapshot(&image) });
    Ok(())
}

/// Seconds since 1970: names the folder that takes what is replaced.
fn label() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs().to_string()
}
