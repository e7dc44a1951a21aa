//! Going on after damage: what would be lost, and the changes that make a broker start again.
//!
//! [`plan`] reads and changes nothing. [`apply`] keeps the original of every file that it replaces, and may be cut off
//! anywhere: running plan and apply again finishes the work. What is repaired:
//!
//! - a hole in the chain of acked groups, or a missing core-log file: the chain goes on behind the hole (`given-up`), and
//!   what is good of a damaged group is kept. A partition that had a batch in the hole loses what came after it, because
//!   offsets are dense and it cannot go on behind a gap in its newest records. Where nothing is left behind the hole the
//!   chain ends before it;
//! - both checkpoints unreadable or gone: the whole core-log folder is set aside. Segments stay and are adopted at the next
//!   start; what was in the core log alone is lost, because which partition an entry belongs to would be guesswork;
//! - a damaged segment ([`segments`]): its good batches are kept in a new file, with new indexes; offsets in between are
//!   lost. Where a compaction's segments are still taking the place of old ones, that is finished first;
//! - a record of a compaction that cannot be read: it is set aside, and the segments of its core are looked at.

mod segments;

pub(super) use segments::lies_at;

use super::chain::{Chain, walk_chain};
use super::ring_files::{
    LogFile, exchanged_cores, exchanged_files, first_with_groups, foreign_core, log_file_number, log_path,
    lost_checkpoints,
};
use super::{InspectError, at, leads_to_folder, newer_in_core};
use crate::compaction::{SwapError, follow_swap, forget_swap, put_in_place, read_swap};
use crate::format::checkpoint::{self, Checkpoint, CheckpointError};
use crate::format::given_up::{self, GIVEN_UP_NAME, Gap};
use ringmill_reactor::{Fs, OpenMode};
use ringmill_types::PartitionId;
use ringmill_types::limits::{CORE_LOG_FIRST_FILE_BYTES, PAGE_BYTES};
use serde::Serialize;
use std::cmp::Reverse;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// How far [`plan`] looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// What keeps a broker from starting: core logs and checkpoints. Quick.
    CoreLogs,
    /// Every byte of every segment too.
    Everything,
}

/// Folder below the data folder that takes the replaced files.
pub const SET_ASIDE_NAME: &str = "set-aside";

const COPY_BYTES: usize = 1 << 20;

/// Records of one partition that cannot be kept, or what else is lost. `first..end` in offsets; `end` is none when
/// unknown, and all three where a loss is not of records of one known partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Loss {
    pub partition: Option<String>,
    pub first: Option<i64>,
    pub end: Option<i64>,
    pub why: String,
}

impl Loss {
    /// Of what, nobody can say more closely.
    pub fn anywhere(why: String) -> Loss {
        Loss { partition: None, first: None, end: None, why }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(partition) = &self.partition {
            write!(f, "{partition} ")?;
        }
        match (self.first, self.end) {
            (Some(first), Some(end)) => write!(f, "offsets {first}..{end}: ")?,
            (Some(first), None) => write!(f, "from offset {first}: ")?,
            (None, _) => {}
        }
        f.write_str(&self.why)
    }
}

/// One change on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum Action {
    /// Starts go on behind what cannot be read of the chain of `dir`. Copies of `files`, which hold it or what cannot follow
    /// any more, are set aside: the ring will use them again.
    PassOver { dir: PathBuf, gaps: Vec<Gap>, files: Vec<PathBuf> },
    /// The chain of `dir` ends before group `sequence`: the checkpoint forgets what was durable from there on.
    LowerDurable { dir: PathBuf, durable: u64 },
    /// Keep the first `keep_bytes`, zeros behind them up to `file_bytes`; the original is set aside.
    CutFile { path: PathBuf, keep_bytes: u64, file_bytes: u64 },
    /// The whole file is written anew; the original is set aside.
    ReplaceFile {
        path: PathBuf,
        #[serde(skip)]
        bytes: Vec<u8>,
    },
    /// A missing file of the ring is made anew, zero-filled.
    MakeLogFile { path: PathBuf, file_bytes: u64 },
    /// All that is in the folder goes to one beside it; the core begins with an empty log.
    SetAsideCoreLog { dir: PathBuf },
    /// Good batches move to a new segment file; the original and its indexes are set aside. `bytes` count for the
    /// checkpoint in `core_dir`.
    RewriteSegment { path: PathBuf, core_dir: PathBuf, partition: u64, bytes: u64 },
    /// The checkpoint in `dir` forgets a partition that another core has. Its segments are that one's.
    ForgetPartition { dir: PathBuf, partition: u64 },
    /// A compaction of the partition in `topic_dir` that was cut off is finished, as a start would.
    FinishSwap { core_dir: PathBuf, topic_dir: PathBuf },
    /// The record of a compaction, which cannot be read, is set aside.
    SetAsideSwap { path: PathBuf },
}

/// What a repair would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    pub losses: Vec<Loss>,
    pub actions: Vec<Action>,
    /// Damage that this cannot repair.
    pub beyond_repair: Vec<String>,
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty() && self.beyond_repair.is_empty()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("nothing to repair");
        }
        for loss in &self.losses {
            writeln!(f, "lost: {loss}")?;
        }
        for action in &self.actions {
            writeln!(f, "change: {action}")?;
        }
        for what in &self.beyond_repair {
            writeln!(f, "cannot be repaired: {what}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::PassOver { dir, gaps, files } => {
                let groups = |gap: &Gap| match gap.next - gap.first {
                    1 => gap.first.to_string(),
                    _ => format!("{}..{}", gap.first, gap.next),
                };
                let given_up: Vec<String> = gaps.iter().map(groups).collect();
                write!(
                    f,
                    "{}: what is damaged of groups {} is given up",
                    dir.display(),
                    given_up.join(", ")
                )?;
                let copied: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
                if copied.is_empty() {
                    Ok(())
                } else {
                    write!(f, "; set aside as copies: {}", copied.join(", "))
                }
            }
            Action::LowerDurable { dir, durable } => {
                write!(f, "{}: the checkpoint says that groups up to {durable} are durable", dir.display())
            }
            Action::CutFile { path, keep_bytes, .. } => {
                write!(f, "{}: set aside; its first {keep_bytes} bytes are kept", path.display())
            }
            Action::ReplaceFile { path, bytes } => {
                write!(f, "{}: set aside; written anew, {} bytes", path.display(), bytes.len())
            }
            Action::MakeLogFile { path, file_bytes } => {
                write!(f, "{}: made anew, {file_bytes} zero bytes", path.display())
            }
            Action::SetAsideCoreLog { dir } => write!(f, "{}: set aside as a whole", dir.display()),
            Action::RewriteSegment { path, bytes, .. } => {
                write!(f, "{}: set aside; {bytes} bytes of good batches are kept", path.display())
            }
            Action::ForgetPartition { dir, partition } => {
                write!(f, "{}: the checkpoint names the partition of id {partition} no more", dir.display())
            }
            Action::FinishSwap { topic_dir, .. } => {
                write!(f, "{}: the compaction that was cut off is finished", topic_dir.display())
            }
            Action::SetAsideSwap { path } => {
                write!(f, "{}: set aside; what it says cannot be read", path.display())
            }
        }
    }
}

/// `TOPIC-N`, or the bare id where the checkpoint does not know it.
pub(super) fn name_of(start: &Checkpoint, id: PartitionId) -> String {
    let state = start.partitions.iter().find(|p| p.id == id.0);
    state.map_or_else(|| format!("id {id}"), |p| format!("{}-{}", p.topic, p.index))
}

/// Says what is damaged and lost in a data folder, and what would be changed. `core_dirs`: where each core's log lies
/// ([`core_dirs`], unless the core log has its own device).
///
/// # Errors
/// [`InspectError`] when something cannot even be read.
pub fn plan(fs: &dyn Fs, data_dir: &Path, core_dirs: &[PathBuf], scope: Scope) -> Result<Plan, InspectError> {
    let mut plan = Plan::default();
    for dir in core_dirs {
        if let Some(newer) = newer_in_core(fs, dir)? {
            plan.beyond_repair.push(newer.to_string());
            continue;
        }
        let start = match checkpoint::read_newest(fs, dir) {
            Ok(Some(start)) => start,
            Ok(None) => {
                if let Some(file) = first_with_groups(fs, dir).map_err(at(dir))? {
                    plan_without_checkpoint(dir, &lost_checkpoints(&file), &mut plan);
                }
                continue;
            }
            Err(CheckpointError::Io(error)) => return Err(at(dir)(error)),
            Err(error) => {
                plan_without_checkpoint(dir, &error.to_string(), &mut plan);
                continue;
            }
        };
        if let Some(core) = foreign_core(dir, &start) {
            plan.beyond_repair.push(exchanged_cores(dir, core));
            continue;
        }
        let chain = walk_chain(fs, dir, &start).map_err(at(dir))?;
        if let Some(file) = &chain.exchanged {
            plan.beyond_repair.push(exchanged_files(&start, dir, file));
            continue;
        }
        plan_chain(fs, dir, &start, &chain, &mut plan)?;
        match read_swap(fs, dir) {
            Ok(swap) if scope == Scope::Everything => {
                segments::plan(fs, data_dir, dir, start, swap.as_ref(), &mut plan)?;
            }
            Ok(_) => {}
            Err(SwapError::Io(error)) => return Err(at(dir)(error)),
            // Which partition it was about is not known, so all of them are looked at. The record goes last: cut off
            // before that, the next plan looks again.
            Err(SwapError::Unreadable(path)) => {
                segments::plan(fs, data_dir, dir, start, None, &mut plan)?;
                plan.actions.push(Action::SetAsideSwap { path });
            }
        }
    }
    Ok(plan)
}

fn plan_without_checkpoint(dir: &Path, what: &str, plan: &mut Plan) {
    let why = format!("{}: {what}; records that were only in its core log", dir.display());
    plan.losses.push(Loss::anywhere(why));
    plan.actions.push(Action::SetAsideCoreLog { dir: dir.to_path_buf() });
}

/// The command that says what could be repaired, of everything, and changes nothing.
pub fn look_command(data_dir: &Path) -> String {
    format!("ringmill log repair --data {} --everything", shell_word(data_dir))
}

/// The command that repairs, for messages: it can be copied into a shell.
pub fn command(data_dir: &Path, scope: Scope) -> String {
    let everything = match scope {
        Scope::CoreLogs => "",
        Scope::Everything => " --everything",
    };
    format!("ringmill log repair --data {}{everything} --accept-loss", shell_word(data_dir))
}

/// A path as one word of a shell's command line.
fn shell_word(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = |c: char| c.is_alphanumeric() || "/._-+,:@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.into_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// The `core-N` folders below a data folder, and links to such, in order.
///
/// # Errors
/// [`InspectError::Io`].
pub fn core_dirs(fs: &dyn Fs, data_dir: &Path) -> Result<Vec<PathBuf>, InspectError> {
    let entries = fs.list(data_dir).map_err(at(data_dir))?;
    let mut numbers: Vec<u16> = entries
        .iter()
        .filter(|entry| leads_to_folder(fs, data_dir, entry))
        .filter_map(|entry| entry.name.strip_prefix("core-").and_then(|n| n.parse().ok()))
        .collect();
    numbers.sort_unstable();
    Ok(numbers.into_iter().map(|n| data_dir.join(format!("core-{n}"))).collect())
}

/// How far into a file the chain's groups go.
fn chained_bytes(chain: &Chain, path: &Path) -> u64 {
    let number = path.file_name().and_then(|n| n.to_str()).and_then(log_file_number);
    let groups = chain.groups.iter().filter(|g| Some(g.file) == number);
    groups.map(|g| g.position + g.bytes).max().unwrap_or(0)
}

fn plan_chain(
    fs: &dyn Fs,
    dir: &Path,
    start: &Checkpoint,
    chain: &Chain,
    plan: &mut Plan,
) -> Result<(), InspectError> {
    let sizes: Vec<(PathBuf, u64)> = chain
        .files
        .iter()
        .map(|path| LogFile::open(fs, path).map(|f| (path.clone(), f.bytes)).map_err(at(path)))
        .collect::<Result<_, _>>()?;
    let usual_bytes = sizes
        .iter()
        .map(|(_, bytes)| *bytes)
        .filter(|bytes| *bytes > 0)
        .min()
        .unwrap_or(CORE_LOG_FIRST_FILE_BYTES);
    for path in &chain.missing {
        plan.actions.push(Action::MakeLogFile { path: path.clone(), file_bytes: usual_bytes });
    }
    let cut = chain.cut.as_ref();
    if let Some(cut) = cut {
        let keep_bytes = chained_bytes(chain, &cut.path);
        let file_bytes = cut.whole_bytes.max(cut.bytes).next_multiple_of(PAGE_BYTES as u64);
        plan.actions.push(Action::CutFile { path: cut.path.clone(), keep_bytes, file_bytes });
        plan.losses.push(Loss::anywhere(format!("{cut}; its groups up to byte {keep_bytes} are kept")));
    }
    let Some(worst) = chain.damage().last() else {
        if let Some(path) = chain.missing.first() {
            let why = format!("{} is missing; what it held is not recorded anywhere else", path.display());
            plan.losses.push(Loss::anywhere(why));
        }
        return Ok(());
    };
    let (lost_ends, files) = chain.lost_ends(start);
    let gaps: Vec<Gap> = chain.damage().filter_map(|hole| hole.gap).collect();
    if !gaps.is_empty() {
        let damaged = chain.damage().map(|hole| hole.path.clone());
        let mut files: Vec<PathBuf> = files.iter().map(|n| log_path(dir, *n)).chain(damaged).collect();
        files.sort_unstable();
        files.dedup();
        files.retain(|path| !chain.missing.contains(path));
        plan.actions.push(Action::PassOver { dir: dir.to_path_buf(), gaps, files });
    }
    if worst.gap.is_none() {
        // First the checkpoint: cut off here, the next plan finds the same hole smaller or none.
        let durable = worst.sequence.0 - 1;
        plan.actions.push(Action::LowerDurable { dir: dir.to_path_buf(), durable });
        for (path, file_bytes) in
            sizes.into_iter().filter(|(path, _)| cut.is_none_or(|cut| cut.path != *path))
        {
            let keep_bytes = chained_bytes(chain, &path);
            if has_groups_behind(fs, &path, keep_bytes, start).map_err(at(&path))? {
                plan.actions.push(Action::CutFile { path, keep_bytes, file_bytes });
            }
        }
    }
    for lost in &lost_ends {
        let why = format!("acked, in {}; the newest lost batch begins at {}", dir.display(), lost.newest);
        let partition = Some(name_of(start, lost.partition));
        plan.losses.push(Loss { partition, first: Some(lost.first), end: None, why });
    }
    for hole in chain.damage().filter(|hole| hole.damaged.is_none()) {
        let last = hole.gap.map_or(hole.durable.0, |gap| gap.next - 1);
        let groups = if last > hole.sequence.0 {
            format!("acked groups {}..={last}", hole.sequence)
        } else {
            format!("acked group {}", hole.sequence)
        };
        plan.losses.push(Loss::anywhere(format!(
            "{groups} of {} cannot be read ({}), so any partition of this core may have lost its newest records",
            dir.display(),
            hole.what
        )));
    }
    Ok(())
}

/// Headers of the chain's lives behind `from`: left there they would be taken as proof of a hole again.
fn has_groups_behind(fs: &dyn Fs, path: &Path, from: u64, start: &Checkpoint) -> io::Result<bool> {
    let mut file = LogFile::open(fs, path)?;
    let mut position = from;
    while position < file.bytes {
        if let Ok(header) = file.header(fs, position)?
            && start.lives.iter().any(|(life, _)| *life == header.incarnation)
            && header.sequence.0 >= start.next_group
        {
            return Ok(true);
        }
        position += PAGE_BYTES as u64;
    }
    Ok(false)
}

/// Carries a plan out. `label` names the subfolder of `set-aside/` (a date, say). Returns where the originals are.
///
/// # Errors
/// Whatever the file system says; what was done until then stays, and the rest can be planned again.
pub fn apply(fs: &dyn Fs, data_dir: &Path, plan: &Plan, label: &str) -> Result<Vec<PathBuf>, InspectError> {
    let mut aside = Aside::new(fs, data_dir, label)?;
    for action in &plan.actions {
        match action {
            Action::PassOver { dir, gaps, files } => {
                for path in files {
                    aside.keep(fs, path)?;
                }
                pass_over(fs, dir, gaps).map_err(at(dir))?;
            }
            Action::LowerDurable { dir, durable } => {
                change_checkpoint(fs, dir, |checkpoint| checkpoint.durable_group = *durable)?;
            }
            Action::MakeLogFile { path, file_bytes } => {
                copy_prefix(fs, None, path, 0, *file_bytes).map_err(at(path))?
            }
            Action::CutFile { path, keep_bytes, file_bytes } => {
                let kept = aside.keep(fs, path)?;
                copy_prefix(fs, Some(&kept), path, *keep_bytes, *file_bytes).map_err(at(path))?;
            }
            Action::ReplaceFile { path, bytes } => {
                aside.keep(fs, path)?;
                fs.replace(path, bytes).map_err(at(path))?;
            }
            Action::SetAsideCoreLog { dir } => aside.kept.push(set_aside_folder(fs, dir, label)?),
            Action::RewriteSegment { path, core_dir, partition, .. } => {
                segments::rewrite(fs, &mut aside, path, core_dir, *partition)?;
            }
            Action::ForgetPartition { dir, partition } => {
                change_checkpoint(fs, dir, |checkpoint| {
                    checkpoint.partitions.retain(|state| state.id != *partition);
                })?;
            }
            Action::FinishSwap { core_dir, topic_dir } => finish_swap(fs, core_dir, topic_dir)?,
            Action::SetAsideSwap { path } => {
                aside.keep(fs, path)?;
                let dir = path.parent().unwrap_or(Path::new("."));
                fs.remove_file(path).and_then(|()| fs.sync_dir(dir)).map_err(at(path))?;
            }
        }
    }
    Ok(aside.kept)
}

/// Adds to what was given up before, and that the checkpoint is not past yet: a start forgets it.
fn pass_over(fs: &dyn Fs, dir: &Path, gaps: &[Gap]) -> io::Result<()> {
    let mut all = given_up::read(fs, dir)?;
    all.retain(|known| gaps.iter().all(|gap| gap.first != known.first));
    all.extend(gaps);
    fs.replace(&dir.join(GIVEN_UP_NAME), given_up::to_text(&all).as_bytes())
}

/// What a start does with the record: files first, then both slots, then the record goes.
fn finish_swap(fs: &dyn Fs, core_dir: &Path, topic_dir: &Path) -> Result<(), InspectError> {
    let record = match read_swap(fs, core_dir) {
        Ok(Some(record)) => record,
        Ok(None) => return Ok(()),
        Err(SwapError::Io(error)) => return Err(at(core_dir)(error)),
        Err(SwapError::Unreadable(path)) => {
            return Err(at(&path)(io::Error::new(io::ErrorKind::InvalidData, "it changed since the plan")));
        }
    };
    put_in_place(fs, topic_dir, &record.groups).map_err(at(topic_dir))?;
    change_checkpoint(fs, core_dir, |checkpoint| {
        let state = checkpoint.partitions.iter_mut().find(|p| p.id == record.partition.0);
        state.into_iter().for_each(|state| follow_swap(&record, state));
    })?;
    forget_swap(fs, core_dir).map_err(at(core_dir))
}

/// Moves what is in a core-log folder to one beside it that no start looks at. The folder itself stays, empty: one that is
/// not there would be missed. Log files go from the last one on, so that those that are left have no gap, and checkpoints
/// after all of them; so wherever this is cut off, the next plan finds what is left to move, or a start has all it needs.
fn set_aside_folder(fs: &dyn Fs, dir: &Path, label: &str) -> Result<PathBuf, InspectError> {
    let name = dir.file_name().and_then(|n| n.to_str()).unwrap_or("core-log");
    let mut to = dir.with_file_name(format!("{name}.{SET_ASIDE_NAME}-{label}"));
    let mut again = 1;
    while fs.exists(&to) {
        again += 1;
        to = dir.with_file_name(format!("{name}.{SET_ASIDE_NAME}-{label}.{again}"));
    }
    let parent = dir.parent().unwrap_or(Path::new("."));
    fs.create_dir_all(&to).and_then(|()| fs.sync_dir(parent)).map_err(at(&to))?;
    let mut names: Vec<String> = fs.list(dir).map_err(at(dir))?.into_iter().map(|entry| entry.name).collect();
    let last_of_all = |name: &str| checkpoint::SLOT_NAMES.contains(&name);
    names.sort_by_key(|name| (last_of_all(name), log_file_number(name).map(Reverse)));
    for name in names {
        match fs.rename(&dir.join(&name), &to.join(&name)) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                if fs.list(&to).map_err(at(&to))?.is_empty() {
                    fs.remove_dir_all(&to).map_err(at(&to))?;
                }
                return Err(at(dir)(on_another_device(dir, parent)));
            }
            moved => moved.map_err(at(dir))?,
        }
    }
    fs.sync_dir(&to).and_then(|()| fs.sync_dir(dir)).map_err(at(dir))?;
    Ok(to)
}

/// A core's folder that is a mount point, or a link to another device.
fn on_another_device(dir: &Path, parent: &Path) -> io::Error {
    io::Error::new(
        io::ErrorKind::CrossesDevices,
        format!(
            "it is on another device than {}, so its files cannot be set aside there. Copy them to where you want to keep them, \
             then empty {}, which itself has to stay: a start goes on with what segments hold",
            parent.display(),
            dir.display()
        ),
    )
}

/// Writes the newest checkpoint again with a change, to both slots: an older one would bring back what was given up.
fn change_checkpoint(
    fs: &dyn Fs,
    dir: &Path,
    change: impl FnOnce(&mut Checkpoint),
) -> Result<(), InspectError> {
    let newest = checkpoint::read_newest(fs, dir).map_err(|e| at(dir)(io::Error::other(e.to_string())))?;
    let Some(mut newest) = newest else { return Ok(()) };
    change(&mut newest);
    for _ in 0..2 {
        newest.sequence += 1;
        checkpoint::write_slot(fs, dir, &newest).map_err(at(dir))?;
    }
    Ok(())
}

/// Replaced files, under names that say where they were.
struct Aside {
    dir: PathBuf,
    data_dir: PathBuf,
    kept: Vec<PathBuf>,
}

impl Aside {
    fn new(fs: &dyn Fs, data_dir: &Path, label: &str) -> Result<Aside, InspectError> {
        let mut dir = data_dir.join(SET_ASIDE_NAME).join(label);
        let mut again = 1;
        while fs.exists(&dir) {
            again += 1;
            dir = data_dir.join(SET_ASIDE_NAME).join(format!("{label}.{again}"));
        }
        Ok(Aside { dir, data_dir: data_dir.to_path_buf(), kept: Vec::new() })
    }

    /// A durable copy of `path`; the original stays until its replacement takes its name.
    fn keep(&mut self, fs: &dyn Fs, path: &Path) -> Result<PathBuf, InspectError> {
        fs.create_dir_all(&self.dir).map_err(at(&self.dir))?;
        let inside = path.strip_prefix(&self.data_dir).unwrap_or(path);
        let name = inside.to_string_lossy().trim_start_matches('/').replace('/', "__");
        let copy = self.dir.join(name);
        if self.kept.contains(&copy) {
            return Ok(copy);
        }
        let bytes = fs.open(path, OpenMode::Read).and_then(|f| fs.len(&f)).map_err(at(path))?;
        copy_prefix(fs, Some(path), &copy, bytes, bytes).map_err(at(&copy))?;
        for dir in [&self.dir, &self.data_dir.join(SET_ASIDE_NAME), &self.data_dir] {
            fs.sync_dir(dir).map_err(at(dir))?;
        }
        self.kept.push(copy.clone());
        Ok(copy)
    }
}

/// Writes a new file of `to_bytes`: the first `keep_bytes` of `from`, zeros behind. Durable and under its name on return.
fn copy_prefix(
    fs: &dyn Fs,
    from: Option<&Path>,
    to: &Path,
    keep_bytes: u64,
    to_bytes: u64,
) -> io::Result<()> {
    let temporary = to.with_extension("tmp");
    let out = fs.open(&temporary, OpenMode::Create)?;
    fs.set_len(&out, 0)?;
    let mut buffer = vec![0; COPY_BYTES];
    let source = from.map(|path| fs.open(path, OpenMode::Read)).transpose()?;
    let mut at = 0;
    while at < to_bytes {
        let in_prefix = at < keep_bytes && source.is_some();
        let stop = if in_prefix { keep_bytes } else { to_bytes };
        let step = (stop - at).min(COPY_BYTES as u64) as usize;
        let piece = buffer.get_mut(..step).unwrap_or_default();
        match &source {
            Some(source) if in_prefix => {
                if fs.read_at(source, piece, at)? != step {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
                }
            }
            Some(_) | None => piece.fill(0),
        }
        fs.write_at(&out, piece, at)?;
        at += step as u64;
    }
    fs.sync_data(&out)?;
    fs.rename(&temporary, to)?;
    fs.sync_dir(to.parent().unwrap_or(Path::new(".")))
}
