//! The data folder: who holds it, whose it is, and in which format.
//!
//! Owns `LOCK` and `node.toml`. Guarantees that two processes never share a folder, that a folder of a newer format is
//! refused before anything in it is touched, and that `node.toml` is replaced whole or not at all. Everything else in the
//! folder belongs to the log and the journal.
//!
//! Order at start: [`look`] (reads, touches nothing), then listeners are bound, then [`claim`] (creates, locks, writes).

use crate::exit::{Failure, Reason};
use ringmill_reactor::stdfs::open_file;
use ringmill_reactor::{Fs, Unfit, is_full};
use std::fmt::Write as _;
use std::fs::{File, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

/// The layout this version reads and writes: `engine/log/FORMAT.md`. A higher number in `node.toml` is refused.
pub const FORMAT: i64 = 1;

/// How the flush probe measures and decides. What was chosen by another rule does not count and is measured again; 1, a
/// single round that a better median won, wrote no number.
pub const PROBE_RULE: i64 = 2;

/// `node.toml`.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    pub node_id: i32,
    /// Kafka's cluster id: 22 characters of URL-safe base64 when we drew it.
    pub cluster_id: String,
    pub generation: Generation,
    /// What the probe measured; `None` until it ran by this version's rule.
    pub flush: Option<ProbeResult>,
}

/// Who wrote the core logs that are there now: core count and place. Changed only once all they hold is in segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    pub number: u64,
    pub cores: u16,
    /// `core.log.dir` as it was; `None`: in the data folder.
    pub log_dir: Option<PathBuf>,
    /// These core logs hold nothing that is not in segments: a change to another generation is under way and must be
    /// finished before anything else.
    pub drained: bool,
}

impl Generation {
    /// Folder of one of its cores.
    pub fn core_dir(&self, data: &Path, core: u16) -> PathBuf {
        self.log_dir.as_deref().unwrap_or(data).join(format!("core-{core}"))
    }
}

/// What the flush probe decided, and by what.
#[derive(Clone, Debug, PartialEq)]
pub struct ProbeResult {
    /// The better method: `fdatasync` or `dsync`.
    pub method: Method,
    /// The last round: the first that did not speak for `dsync`, or the last of several that all did.
    pub round: Round,
    /// Kernel release it was measured on; a new kernel is measured again.
    pub kernel: String,
}

/// What one durable 4 KiB write took by each method, with idle and with busy CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Round {
    pub idle_fdatasync: Quantiles,
    pub idle_dsync: Quantiles,
    pub busy_fdatasync: Quantiles,
    pub busy_dsync: Quantiles,
}

/// A way to make a write durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Fdatasync,
    Dsync,
}

impl Method {
    pub fn name(self) -> &'static str {
        match self {
            Method::Fdatasync => "fdatasync",
            Method::Dsync => "dsync",
        }
    }

    fn parse(text: &str) -> Option<Method> {
        [Method::Fdatasync, Method::Dsync].into_iter().find(|method| method.name() == text)
    }
}

/// Latencies in microseconds. `p50 <= p90 <= p99`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quantiles {
    pub p50_us: u32,
    pub p90_us: u32,
    pub p99_us: u32,
}

/// A data folder this process holds. The lock goes with it.
#[derive(Debug)]
pub struct DataFolder {
    pub path: PathBuf,
    pub identity: Identity,
    /// No `node.toml` was there before.
    pub first_start: bool,
    _lock: File,
}

/// Name of the file in the data folder.
pub const NODE_TOML: &str = "node.toml";

fn node_toml(data: &Path) -> PathBuf {
    data.join(NODE_TOML)
}

/// Reads what is there without touching it: refuses a folder in use, of a newer format, or of another broker.
///
/// # Errors
/// [`Reason::DataInUse`], [`Reason::NewerFormat`], [`Reason::DataUnusable`], [`Reason::DataDamaged`].
pub fn look(fs: &dyn Fs, data: &Path) -> Result<Option<Identity>, Failure> {
    let lock_path = data.join("LOCK");
    match open_file(&lock_path, File::options().read(true)) {
        Ok(mut lock) => take_lock(&mut lock, data)?,
        Err(error) if Unfit::of(&error).is_some() => return Err(unusable(&lock_path, "opened", &error)),
        // Not there yet, or not this user's: whoever claims the folder says so.
        Err(_) => {}
    }
    read_identity(fs, data)
}

/// Creates the folder if need be, locks it, and writes `node.toml` on the first start.
///
/// `node_id` and `cluster_id` are the configured ones; where they are set they must agree with what is there.
///
/// # Errors
/// As [`look`], and [`Reason::IdentityMismatch`].
pub fn claim(fs: &dyn Fs, data: &Path, wanted: &Wanted) -> Result<DataFolder, Failure> {
    if let Some(found) = look(fs, data)? {
        agree(&found, wanted, data)?;
    }
    make_dir(fs, data).map_err(|error| unusable(data, "created", &error))?;
    let lock_path = data.join("LOCK");
    let mut lock = open_file(&lock_path, File::options().read(true).write(true).create(true).truncate(false))
        .map_err(|error| unusable(&lock_path, "opened", &error))?;
    take_lock(&mut lock, data)?;
    // Read again under the lock: another process may have made the folder its own since.
    let found = read_identity(fs, data)?;
    let first_start = found.is_none();
    let identity = match found {
        Some(identity) => {
            agree(&identity, wanted, data)?;
            identity
        }
        None => Identity {
            node_id: wanted.node_id.unwrap_or(1),
            cluster_id: wanted.cluster_id.clone().unwrap_or_else(random_cluster_id),
            generation: Generation {
                number: 1,
                cores: wanted.cores,
                log_dir: wanted.log_dir.clone(),
                drained: false,
            },
            flush: None,
        },
    };
    match write_pid(&mut lock) {
        // The lock holds without it: only who holds it will not be named. A disk that is full is no reason not to serve reads.
        Err(error) if is_full(&error) => {
            tracing::info!("{} does not say which process holds it: {error}", lock_path.display());
        }
        written => written.map_err(|error| unusable(&lock_path, "written", &error))?,
    }
    let folder = DataFolder { path: data.to_path_buf(), identity, first_start, _lock: lock };
    if first_start {
        folder.save(fs)?;
    }
    Ok(folder)
}

/// What the configuration says about identity.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub node_id: Option<i32>,
    pub cluster_id: Option<String>,
    pub cores: u16,
    pub log_dir: Option<PathBuf>,
}

impl DataFolder {
    /// Makes the identity durable.
    ///
    /// # Errors
    /// [`Reason::DataUnusable`] or [`Reason::DiskFull`].
    pub fn save(&self, fs: &dyn Fs) -> Result<(), Failure> {
        let path = node_toml(&self.path);
        fs.replace(&path, self.identity.to_toml().as_bytes())
            .map_err(|error| unusable(&path, "written", &error))
    }
}

/// Makes a folder and those above it, and their names durable: with a name that a power cut takes goes all that was synced
/// below it.
///
/// # Errors
/// What the file system says.
pub fn make_dir(fs: &dyn Fs, dir: &Path) -> std::io::Result<()> {
    let fresh =
        dir.ancestors().take_while(|above| !above.as_os_str().is_empty() && !fs.exists(above)).count();
    fs.create_dir_all(dir)?;
    // One that was there may be of a start that was killed before it came to this.
    for (made, above) in dir.ancestors().skip(1).take(fresh.max(1)).enumerate() {
        match fs.sync_dir(above) {
            // Writing a name there takes no right to read it, and without that it cannot be synced.
            Err(error) if made < fresh && error.kind() != std::io::ErrorKind::PermissionDenied => {
                return Err(error);
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

fn read_identity(fs: &dyn Fs, data: &Path) -> Result<Option<Identity>, Failure> {
    let path = node_toml(data);
    if !fs.exists(&path) {
        // A new identity on old logs would strand them: ids in the logs and ids clients know would not meet again.
        if fs.exists(&data.join("core-0")) || fs.exists(&data.join("meta")) {
            return Err(damaged(&path, "it is missing although core logs or a journal are there"));
        }
        return Ok(None);
    }
    read(fs, &path).map(Some)
}

/// Reads a `node.toml`, wherever it lies, and nothing else.
///
/// # Errors
/// [`Reason::NewerFormat`], [`Reason::DataUnusable`], [`Reason::DataDamaged`].
pub fn read(fs: &dyn Fs, path: &Path) -> Result<Identity, Failure> {
    let bytes = fs.read_all(path).map_err(|error| unusable(path, "read", &error))?;
    let text = String::from_utf8(bytes).map_err(|_| damaged(path, "it is not text"))?;
    Identity::parse(&text, path)
}

fn take_lock(lock: &mut File, data: &Path) -> Result<(), Failure> {
    match lock.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let named = lock.read_to_string(&mut holder).is_ok_and(|_| !holder.trim().is_empty());
            let who = if named { format!("process {}", holder.trim()) } else { "another process".into() };
            Err(Failure::new(
                Reason::DataInUse,
                format!(
                    "The data folder {} is in use by {who}; stop it or choose another --data.",
                    data.display()
                ),
            ))
        }
        Err(TryLockError::Error(error)) => Err(unusable(&data.join("LOCK"), "locked", &error)),
    }
}

fn write_pid(lock: &mut File) -> std::io::Result<()> {
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(lock, "{}", std::process::id())
}

fn agree(found: &Identity, wanted: &Wanted, data: &Path) -> Result<(), Failure> {
    let mismatch = |key: &str, there: &str, asked: &str| {
        Err(Failure::new(
            Reason::IdentityMismatch,
            format!(
                "{} belongs to {key} {there}, the configuration says {asked}; correct one of them.",
                data.display()
            ),
        ))
    };
    if let Some(node_id) = wanted.node_id
        && node_id != found.node_id
    {
        return mismatch("node.id", &found.node_id.to_string(), &node_id.to_string());
    }
    if let Some(cluster_id) = &wanted.cluster_id
        && *cluster_id != found.cluster_id
    {
        return mismatch("cluster.id", &found.cluster_id, cluster_id);
    }
    Ok(())
}

fn unusable(path: &Path, verb: &str, error: &std::io::Error) -> Failure {
    unusable_as("--data", path, verb, error)
}

/// A folder that was chosen by `setting` and cannot be used: why, and what to do.
pub fn unusable_as(setting: &str, path: &Path, verb: &str, error: &std::io::Error) -> Failure {
    if let Some(unfit) = Unfit::of(error) {
        let way_out = match unfit {
            // It may be the whole of it that was named wrong.
            Unfit::NotAFolder { path: found, .. } if path.starts_with(found) => {
                format!("; or choose another {setting}")
            }
            _ => String::new(),
        };
        return Failure::new(Reason::DataUnusable, format!("{unfit}{way_out}."));
    }
    let reason = if is_full(error) { Reason::DiskFull } else { Reason::DataUnusable };
    let advice = match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            format!("give this user the right to, or choose another {setting}")
        }
        _ if is_full(error) => "free space there".to_string(),
        std::io::ErrorKind::ReadOnlyFilesystem => {
            format!("its file system is mounted read-only: mount it writable, or choose another {setting}")
        }
        std::io::ErrorKind::AlreadyExists | std::io::ErrorKind::NotADirectory => {
            format!("a file is in the way where a folder must be: choose another {setting}")
        }
        _ => format!("choose another {setting}, or look at the file system"),
    };
    Failure::new(reason, format!("{} cannot be {verb} ({error}); {advice}.", path.display()))
}

fn damaged(path: &Path, what: &str) -> Failure {
    Failure::new(
        Reason::DataDamaged,
        format!(
            "{} is damaged: {what}. Restore it from a copy; it holds the ids that clients know.",
            path.display()
        ),
    )
}

/// A life of a core log, never seen before and never again.
pub fn random_u128() -> u128 {
    u128::from_le_bytes(random_bytes())
}

/// Drawn once for a folder: a random version 4 UUID in Kafka's text form.
fn random_cluster_id() -> String {
    let mut bytes = random_bytes();
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    ringmill_types::TopicId(bytes).to_base64()
}

fn random_bytes() -> [u8; 16] {
    let mut bytes = [0u8; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        let rest = bytes.get_mut(filled..).expect("filled is below the length");
        // 16 bytes come at once from a kernel of the supported range; short reads and signals are just tried again.
        filled += rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty()).unwrap_or(0);
    }
    bytes
}

impl Identity {
    /// `path` names the file in errors.
    fn parse(text: &str, path: &Path) -> Result<Identity, Failure> {
        let table: toml::Table =
            text.parse().map_err(|error: toml::de::Error| damaged(path, error.message()))?;
        // The version first: a newer file may hold anything else.
        let format = table.get("format").and_then(toml::Value::as_integer);
        let format = format.ok_or_else(|| damaged(path, "the line `format = …` is missing"))?;
        if format > FORMAT {
            return Err(Failure::new(
                Reason::NewerFormat,
                format!(
                    "{} says format {format}; this version knows up to {FORMAT}. Run the newer version.",
                    path.display()
                ),
            ));
        }
        Identity::read(&table).ok_or_else(|| damaged(path, "a line is missing or out of range"))
    }

    fn read(table: &toml::Table) -> Option<Identity> {
        let node_id = i32::try_from(table.get("node_id")?.as_integer()?).ok().filter(|id| *id >= 0)?;
        let cluster_id = table.get("cluster_id")?.as_str().filter(|id| !id.is_empty())?.to_string();
        let cores = table.get("cores")?.as_table()?;
        let generation = Generation {
            number: u64::try_from(cores.get("generation")?.as_integer()?).ok()?,
            cores: u16::try_from(cores.get("count")?.as_integer()?).ok().filter(|count| *count > 0)?,
            log_dir: match cores.get("log_dir") {
                Some(value) => Some(PathBuf::from(value.as_str()?)),
                None => None,
            },
            drained: match cores.get("drained") {
                Some(value) => value.as_bool()?,
                None => false,
            },
        };
        let flush = match table.get("flush") {
            Some(value) => ProbeResult::read(value.as_table()?)?,
            None => None,
        };
        Some(Identity { node_id, cluster_id, generation, flush })
    }

    fn to_toml(&self) -> String {
        let quoted = |text: &str| toml::Value::String(text.to_string()).to_string();
        let mut out = String::from("# Written by ringmill; the ids are what clients know this broker by.\n");
        let _ = writeln!(out, "format = {FORMAT}");
        let _ = writeln!(out, "node_id = {}", self.node_id);
        let _ = writeln!(out, "cluster_id = {}", quoted(&self.cluster_id));
        let _ = writeln!(out, "\n# Who wrote the core logs that are here now.\n[cores]");
        let _ = writeln!(out, "generation = {}", self.generation.number);
        let _ = writeln!(out, "count = {}", self.generation.cores);
        if let Some(dir) = &self.generation.log_dir {
            let _ = writeln!(out, "log_dir = {}", quoted(&dir.display().to_string()));
        }
        if self.generation.drained {
            out.push_str("# Their content is in segments; the next start finishes the change to another number of cores.\ndrained = true\n");
        }
        if let Some(flush) = &self.flush {
            flush.write(&mut out);
        }
        out
    }
}

impl ProbeResult {
    /// `Some(None)`: by another rule, whose lines may be others.
    fn read(table: &toml::Table) -> Option<Option<ProbeResult>> {
        if table.get("rule").and_then(toml::Value::as_integer) != Some(PROBE_RULE) {
            return Some(None);
        }
        let quantiles = |name: &str| -> Option<Quantiles> {
            let three = table.get(name)?.as_array()?;
            let micros = |at: usize| u32::try_from(three.get(at)?.as_integer()?).ok();
            Some(Quantiles { p50_us: micros(0)?, p90_us: micros(1)?, p99_us: micros(2)? })
        };
        let round = Round {
            idle_fdatasync: quantiles("idle_fdatasync_us")?,
            idle_dsync: quantiles("idle_dsync_us")?,
            busy_fdatasync: quantiles("busy_fdatasync_us")?,
            busy_dsync: quantiles("busy_dsync_us")?,
        };
        let method = Method::parse(table.get("method")?.as_str()?)?;
        Some(Some(ProbeResult { method, round, kernel: table.get("kernel")?.as_str()?.to_string() }))
    }

    fn write(&self, out: &mut String) {
        let _ = writeln!(
            out,
            "\n# One durable 4 KiB write in µs, p50, p90 and p99, with idle and with busy CPUs: the round that decided.\n[flush]"
        );
        let _ = writeln!(out, "rule = {PROBE_RULE}");
        let _ = writeln!(out, "method = \"{}\"", self.method.name());
        for (name, quantiles) in [
            ("idle_fdatasync_us", self.round.idle_fdatasync),
            ("idle_dsync_us", self.round.idle_dsync),
            ("busy_fdatasync_us", self.round.busy_fdatasync),
            ("busy_dsync_us", self.round.busy_dsync),
        ] {
            let Quantiles { p50_us, p90_us, p99_us } = quantiles;
            let _ = writeln!(out, "{name} = [{p50_us}, {p90_us}, {p99_us}]");
        }
        let _ = writeln!(out, "kernel = {}", toml::Value::String(self.kernel.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use ringmill_reactor::stdfs::StdFs;

    fn wanted() -> Wanted {
        Wanted { node_id: None, cluster_id: None, cores: 2, log_dir: None }
    }

    fn probe() -> ProbeResult {
        let us = |p50_us, p90_us, p99_us| Quantiles { p50_us, p90_us, p99_us };
        ProbeResult {
            method: Method::Dsync,
            round: Round {
                idle_fdatasync: us(90, 130, 200),
                idle_dsync: us(40, 52, 80),
                busy_fdatasync: us(95, 150, 300),
                busy_dsync: us(42, 61, 90),
            },
            kernel: "6.18.4-\"odd\"".into(),
        }
    }

    const FOLDER: &str = r#"# Written by ringmill; the ids are what clients know this broker by.
format = 1
node_id = 4
cluster_id = "home"

# Who wrote the core logs that are here now.
[cores]
generation = 7
count = 2
"#;

    fn identity(flush: Option<ProbeResult>) -> Identity {
        let generation = Generation { number: 7, cores: 2, log_dir: None, drained: false };
        Identity { node_id: 4, cluster_id: "home".into(), generation, flush }
    }

    #[test]
    fn bytes_are_those_of_the_golden_files() {
        let full = Identity {
            generation: Generation { number: 7, cores: 3, log_dir: Some("/mnt/lo g".into()), drained: true },
            ..identity(Some(probe()))
        };
        for (name, identity) in [("node-v1.toml", full), ("node-v1-unprobed.toml", identity(None))] {
            let golden = crate::golden::check(name, identity.to_toml().as_bytes());
            let golden = std::str::from_utf8(&golden).expect("text");
            assert_eq!(Identity::parse(golden, Path::new(name)), Ok(identity));
        }
    }

    /// What this version writes, which older ones read too: to them the second number is the tail's.
    #[test]
    fn what_was_measured_stands_with_its_rule() {
        let text = format!(
            "{FOLDER}\n{}",
            r#"# One durable 4 KiB write in µs, p50, p90 and p99, with idle and with busy CPUs: the round that decided.
[flush]
rule = 2
method = "dsync"
idle_fdatasync_us = [90, 130, 200]
idle_dsync_us = [40, 52, 80]
busy_fdatasync_us = [95, 150, 300]
busy_dsync_us = [42, 61, 90]
kernel = '6.18.4-"odd"'
"#
        );
        assert_eq!(identity(Some(probe())).to_toml(), text);
        assert_eq!(Identity::parse(&text, Path::new("node.toml")), Ok(identity(Some(probe()))));
        let torn = text.replace("idle_dsync_us = [40, 52, 80]", "idle_dsync_us = [40, 52]");
        assert!(Identity::parse(&torn, Path::new("node.toml")).is_err());
    }

    #[test]
    fn a_choice_by_another_rule_is_read_and_does_not_count() {
        let first = r#"
# One durable 4 KiB write in µs, p50 and p99, with idle and with busy CPUs.
[flush]
method = "dsync"
idle_fdatasync_us = [145, 280]
idle_dsync_us = [131, 270]
busy_fdatasync_us = [371, 4100]
busy_dsync_us = [153, 4000]
kernel = "6.18.4"
"#;
        let next = "\n[flush]\nrule = 3\nmethod = \"neither\"\n";
        for by_another in [first, next] {
            let text = format!("{FOLDER}{by_another}");
            assert_eq!(Identity::parse(&text, Path::new("node.toml")), Ok(identity(None)), "{text}");
        }
    }

    #[test]
    fn a_first_start_draws_an_identity_and_later_ones_keep_it() {
        let dir = tempfile::tempdir().expect("temp folder");
        let data = dir.path().join("a/b");
        assert_eq!(look(&StdFs, &data).expect("nothing there"), None);
        let mut folder = claim(&StdFs, &data, &wanted()).expect("claimed");
        assert!(folder.first_start);
        assert_eq!(folder.identity.node_id, 1);
        assert_eq!(folder.identity.cluster_id.len(), 22);
        let pid = std::fs::read_to_string(data.join("LOCK")).expect("readable");
        assert_eq!(pid.trim(), std::process::id().to_string());
        folder.identity.flush = Some(probe());
        folder.identity.generation =
            Generation { number: 7, cores: 3, log_dir: Some("/mnt/lo g".into()), drained: true };
        folder.save(&StdFs).expect("saved");
        let kept = folder.identity.clone();
        drop(folder);
        let again = claim(&StdFs, &data, &wanted()).expect("claimed again");
        assert!(!again.first_start);
        assert_eq!(again.identity, kept);
    }

    #[test]
    fn a_folder_in_use_names_its_holder_and_is_left_alone() {
        let dir = tempfile::tempdir().expect("temp folder");
        let folder = claim(&StdFs, dir.path(), &wanted()).expect("claimed");
        for failure in [
            look(&StdFs, dir.path()).expect_err("held"),
            claim(&StdFs, dir.path(), &wanted()).expect_err("held"),
        ] {
            assert_eq!(failure.reason, Reason::DataInUse);
            assert!(
                failure.detail.contains(&format!("in use by process {}", std::process::id())),
                "{failure}"
            );
        }
        drop(folder);
        assert!(look(&StdFs, dir.path()).expect("free again").is_some());
    }

    #[test]
    fn a_newer_format_is_refused_untouched() {
        let dir = tempfile::tempdir().expect("temp folder");
        let text = "format = 99\nsomething = \"new\"\n";
        std::fs::write(dir.path().join("node.toml"), text).expect("written");
        let failure = claim(&StdFs, dir.path(), &wanted()).expect_err("newer");
        assert_eq!(failure.reason, Reason::NewerFormat);
        let names: Vec<_> =
            std::fs::read_dir(dir.path()).expect("listed").map(|e| e.expect("entry").file_name()).collect();
        assert_eq!(names, ["node.toml"]);
        assert_eq!(std::fs::read_to_string(dir.path().join("node.toml")).expect("read"), text);
    }

    #[test]
    fn damage_and_strangers_are_refused() {
        let dir = tempfile::tempdir().expect("temp folder");
        let path = dir.path().join("node.toml");
        for text in ["", "format = \"1\"", "format = 1\nnode_id = -4\n", "format = 1\n[cores]\n", "\u{0}"] {
            std::fs::write(&path, text).expect("written");
            assert_eq!(look(&StdFs, dir.path()).expect_err(text).reason, Reason::DataDamaged, "{text}");
        }
        std::fs::remove_file(&path).expect("removed");
        std::fs::create_dir(dir.path().join("core-0")).expect("made");
        assert_eq!(look(&StdFs, dir.path()).expect_err("orphaned logs").reason, Reason::DataDamaged);
        std::fs::remove_dir(dir.path().join("core-0")).expect("removed");
        drop(
            claim(
                &StdFs,
                dir.path(),
                &Wanted { node_id: Some(4), cluster_id: Some("home".into()), ..wanted() },
            )
            .expect("first"),
        );
        for other in
            [Wanted { node_id: Some(5), ..wanted() }, Wanted { cluster_id: Some("away".into()), ..wanted() }]
        {
            assert_eq!(
                claim(&StdFs, dir.path(), &other).expect_err("another broker's").reason,
                Reason::IdentityMismatch
            );
        }
    }

    #[test]
    fn a_folder_that_cannot_be_made_says_so() {
        let dir = tempfile::tempdir().expect("temp folder");
        let file = dir.path().join("file");
        std::fs::write(&file, "").expect("written");
        let failure = claim(&StdFs, &file.join("data"), &wanted()).expect_err("a file is in the way");
        assert_eq!(failure.reason, Reason::DataUnusable);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(node_id in 0..i32::MAX, cluster_id in "\\PC{1,30}", number in 0u64..i64::MAX as u64, drained in any::<bool>(), cores in 1u16.., dir in proptest::option::of("\\PC{1,20}"), probed in any::<bool>()) {
            let identity = Identity {
                node_id,
                cluster_id,
                generation: Generation { number, cores, log_dir: dir.map(PathBuf::from), drained },
                flush: probed.then(probe),
            };
            prop_assert_eq!(Identity::parse(&identity.to_toml(), Path::new("node.toml")), Ok(identity));
        }

        #[test]
        fn any_text_is_answered(text in "\\PC{0,60}") {
            let _ = Identity::parse(&text, Path::new("node.toml"));
        }
    }
}
