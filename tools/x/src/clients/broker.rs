//! The broker under test: its own process, free ports, a folder of its own that goes when it goes.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A stop flushes, destages and writes a checkpoint; longer than this and something is stuck.
const STOP_MAX: Duration = Duration::from_secs(60);
const STOP_LOOK_EVERY: Duration = Duration::from_millis(50);

static STARTED: AtomicU32 = AtomicU32::new(0);

/// `RINGMILL=PATH` tries another build, a debug one for instance.
pub fn binary() -> PathBuf {
    std::env::var_os("RINGMILL").map_or_else(|| PathBuf::from("target/release/ringmill"), PathBuf::from)
}

/// Builds what `binary` names, unless it was given.
pub fn build() -> Result<(), String> {
    if std::env::var_os("RINGMILL").is_some() {
        return Ok(());
    }
    crate::run::command("cargo build --release -p ringmill")
}

pub struct Broker {
    child: Child,
    pub address: String,
    dir: PathBuf,
    settings: Vec<String>,
}

impl Broker {
    /// Starts one with these settings (`KEY=VALUE`) and waits until it says that it is ready.
    pub fn start(settings: &[&str]) -> Result<Broker, String> {
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("ringmill-clients-{}-{number}", std::process::id()));
        let settings: Vec<String> = settings.iter().map(|setting| (*setting).to_string()).collect();
        // Owned before it is ready, so that whatever fails ends it.
        let child = spawn(&dir, "127.0.0.1:0", &settings)?;
        let mut broker = Broker { child, address: String::new(), dir, settings };
        broker.wait_ready()?;
        Ok(broker)
    }

    /// One that was stopped or killed, once more over the same data and where its clients look for it.
    pub fn start_again(&mut self) -> Result<(), String> {
        self.child = spawn(&self.dir, &self.address, &self.settings)?;
        self.wait_ready()
    }

    fn wait_ready(&mut self) -> Result<(), String> {
        let out = self.child.stdout.take().ok_or("the broker has no stdout")?;
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            if let Some(address) = line.trim().strip_prefix("listens") {
                self.address = address.trim().to_string();
            }
            if line.trim().starts_with("ready") && !self.address.is_empty() {
                return Ok(());
            }
        }
        Err("the broker did not say that it is ready".into())
    }

    /// SIGKILL, as a crash would end it.
    pub fn kill(&mut self) -> Result<(), String> {
        self.child.kill().and_then(|()| self.child.wait()).map(drop).map_err(|e| e.to_string())
    }

    /// Where the partitions' folders are.
    pub fn topics(&self) -> PathBuf {
        self.dir.join("data/topics")
    }

    /// SIGTERM, and an exit with 0. The data stays until the broker is dropped.
    pub fn stop(&mut self) -> Result<(), String> {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &id]).status().map_err(|e| e.to_string())?;
        if !sent.success() {
            return Err("the broker was gone before it was stopped".into());
        }
        let begun = Instant::now();
        while begun.elapsed() < STOP_MAX {
            if let Some(status) = self.child.try_wait().map_err(|e| e.to_string())? {
                return if status.success() { Ok(()) } else { Err(format!("the stop ended with {status}")) };
            }
            std::thread::sleep(STOP_LOOK_EVERY);
        }
        Err(format!("the broker was still there {} s after SIGTERM", STOP_MAX.as_secs()))
    }
}

fn spawn(dir: &Path, listen: &str, settings: &[String]) -> Result<Child, String> {
    let mut command = Command::new(binary());
    command.args(["serve", "--listen", listen, "--admin", "127.0.0.1:0"]);
    command.arg("--data").arg(dir.join("data"));
    command.args(settings.iter().flat_map(|setting| ["--set", setting]));
    command.stdout(Stdio::piped()).spawn().map_err(|e| format!("{}: {e}", binary().display()))
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Nothing is left behind, whatever the checks said.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
