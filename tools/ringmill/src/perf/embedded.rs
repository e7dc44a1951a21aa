//! A broker of its own for one run: this binary, in a temporary folder that goes away with it.

use crate::exit::{Code, Failed};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

/// Runs from [`Embedded::start`] until it is dropped.
pub struct Embedded {
    pub address: String,
    pub folder: PathBuf,
    child: Child,
}

impl Embedded {
    /// # Errors
    /// A sentence, when no broker comes up here.
    pub fn start() -> Result<Embedded, Failed> {
        let stamp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let folder = std::env::temp_dir().join(format!("ringmill-perf-{}-{stamp}", std::process::id()));
        std::fs::create_dir(&folder).map_err(|error| Failed::local(folder.display(), &error))?;
        let program = std::env::current_exe().map_err(|error| Failed::local("this program", &error))?;
        let child = Command::new(program)
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--admin",
                "127.0.0.1:0",
                "--log-level",
                "warn",
                "--data",
            ])
            .arg(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| Failed::local("a broker cannot be started", &error))?;
        let mut broker = Embedded { address: String::new(), folder, child };
        let Some(stdout) = broker.child.stdout.take() else {
            return Err(Failed::new(Code::Local, "the embedded broker has no output"));
        };
        let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
        let listens =
            lines.find_map(|line| line.trim().strip_prefix("listens").map(|a| a.trim().to_string()));
        let Some(address) = listens else {
            let why = "the embedded broker did not come up; `ringmill check` says what this host lacks";
            return Err(Failed::new(Code::Refused, why));
        };
        broker.address = address;
        // It must not stop on a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(broker)
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        // In order first: the folder is not to be written while it goes away.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
