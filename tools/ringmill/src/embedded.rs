//! A broker of its own for one run: this binary, in a temporary folder that goes away with it.

use crate::exit::{Code, Failed};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

/// What the broker runs with, besides its defaults.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Any keys, as `serve --set` takes them: `KEY=VALUE`.
    pub set: Vec<String>,
    /// Core threads: a count or a list of CPUs.
    pub cores: Option<String>,
    pub memory: Option<String>,
    /// As `serve --log-level`; its log goes to stderr. `warn` unless given.
    pub log_level: Option<&'static str>,
    /// Where its folder is made, which decides the device; the system's temporary folder unless given.
    pub parent: Option<PathBuf>,
}

/// Runs from [`Embedded::start`] until it is dropped.
pub struct Embedded {
    pub address: String,
    /// `HOST:PORT` of the admin port.
    pub admin: String,
    // Before the folder, which is not to be written while it goes away.
    process: Process,
    folder: Folder,
}

/// Ends in order when it is dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        let _ = self.0.wait();
    }
}

/// Removed with everything in it when it is dropped.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Embedded {
    /// # Errors
    /// A sentence, when no broker comes up here.
    pub fn start(settings: &Settings) -> Result<Embedded, Failed> {
        let stamp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let parent = settings.parent.clone().unwrap_or_else(std::env::temp_dir);
        let folder = parent.join(format!("ringmill-embedded-{}-{stamp}", std::process::id()));
        std::fs::create_dir(&folder).map_err(|error| Failed::local(folder.display(), &error))?;
        Embedded::start_in(Folder(folder), settings)
    }

    /// Stops the broker in order and starts one on the same folder with other settings, so that what a first start has
    /// to do, such as filling core logs with zeros, is done once. The address changes.
    ///
    /// # Errors
    /// A sentence, when it does not come up again; then the folder is gone.
    pub fn again(self, settings: &Settings) -> Result<Embedded, Failed> {
        drop(self.process);
        Embedded::start_in(self.folder, settings)
    }

    #[allow(dead_code, reason = "calibrate and plan look there")]
    pub fn folder(&self) -> &Path {
        &self.folder.0
    }

    pub fn process_id(&self) -> u32 {
        self.process.0.id()
    }

    fn start_in(folder: Folder, settings: &Settings) -> Result<Embedded, Failed> {
        let program = std::env::current_exe().map_err(|error| Failed::local("this program", &error))?;
        let mut command = Command::new(program);
        command.args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        command.args(["--log-level", settings.log_level.unwrap_or("warn")]);
        command.arg("--data").arg(&folder.0);
        for (flag, value) in [("--cores", &settings.cores), ("--memory", &settings.memory)] {
            if let Some(value) = value {
                command.args([flag, value]);
            }
        }
        for setting in &settings.set {
            command.args(["--set", setting]);
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut process =
            Process(child.map_err(|error| Failed::local("a broker cannot be started", &error))?);
        let Some(stdout) = process.0.stdout.take() else {
            return Err(Failed::new(Code::Local, "the embedded broker has no output"));
        };
        let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
        let mut told = |name: &str| lines.find_map(|line| value_of(&line, name));
        let (Some(address), Some(admin)) = (told("listens"), told("admin")) else {
            let why = "the embedded broker did not come up; `ringmill check` says what this host lacks";
            return Err(Failed::new(Code::Refused, why));
        };
        let admin = admin.trim_start_matches("http://").trim_end_matches('/').to_string();
        // It must not stop on a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Embedded { address, admin, process, folder })
    }
}

/// The first word behind `name` on a line of the banner that begins with it.
fn value_of(line: &str, name: &str) -> Option<String> {
    let rest = line.trim().strip_prefix(name)?.strip_prefix(' ')?;
    rest.split_whitespace().next().map(|word| word.trim_end_matches(',').to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_banner_tells_where_it_listens() {
        let line = "  admin     http://127.0.0.1:9644/  (metrics, health/live)";
        assert_eq!(value_of(line, "admin").as_deref(), Some("http://127.0.0.1:9644/"));
        let line = "  listens   127.0.0.1:9092, clients are told a:1";
        assert_eq!(value_of(line, "listens").as_deref(), Some("127.0.0.1:9092"));
        assert_eq!(value_of("  listensx  1", "listens"), None);
        assert_eq!(value_of("  ready     after 5 ms", "admin"), None);
    }
}
