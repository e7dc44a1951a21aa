//! What the broker says when it serves: once, on stdout, for the person who started it.
//!
//! With `--log-json` the same goes to the log as one event. Then it is quiet.

use crate::args::{Address, CorePlacement};
use crate::config::units::{show_bytes, show_cpus};
use crate::host::{FileSystem, Footing};
use crate::identity::Method;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Everything the banner shows, already decided.
#[derive(Clone, Debug)]
pub struct Banner {
    pub kernel: String,
    pub node_id: i32,
    pub cluster_id: String,
    pub listen: SocketAddr,
    pub advertised: Address,
    pub admin: SocketAddr,
    pub data: PathBuf,
    pub first_start: bool,
    pub file_system: FileSystem,
    /// Logs and segments bypass the page cache.
    pub direct: bool,
    pub free_bytes: Option<u64>,
    pub cores: Vec<CorePlacement>,
    pub memory_bytes: u64,
    /// Kernel features in use, those that would work and are not used, and those done without; with the reason where there is
    /// one to tell.
    pub features_used: Vec<String>,
    pub features_unused: Vec<String>,
    pub features_without: Vec<String>,
    pub method: Method,
    /// Why this method: set, measured, or not yet measured.
    pub method_because: &'static str,
    pub flush_depth: u32,
    pub relaxed_allowed: bool,
    /// Limits of the process that are too low, each with what that bounds.
    pub low_limits: Vec<String>,
    pub started_in: Duration,
}

impl Banner {
    /// Prints it; a closed stdout is no reason to fail.
    pub fn show(&self, json: bool) {
        if json {
            tracing::info!(
                listen = %self.listen,
                advertised = %self.advertised,
                admin = %self.admin,
                node_id = self.node_id,
                cluster_id = self.cluster_id,
                data = %self.data.display(),
                cores = self.cores.len(),
                memory_bytes = self.memory_bytes,
                features = self.features_used.join(", "),
                unused = self.features_unused.join(", "),
                without = self.features_without.join(", "),
                flush = self.method.name(),
                ack = self.ack(),
                limits = self.low_limits.join("; "),
                "serving"
            );
            return;
        }
        use std::io::Write as _;
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(self.text().as_bytes()).and_then(|()| out.flush());
    }

    /// The lines, two columns.
    pub fn text(&self) -> String {
        let mut out = format!(
            "ringmill {} on Linux {}: broker {} of cluster {}\n",
            env!("CARGO_PKG_VERSION"),
            self.kernel,
            self.node_id,
            self.cluster_id
        );
        let mut line = |name: &str, value: String| {
            let _ = writeln!(out, "  {name:<9} {value}");
        };
        line("listens", self.listens());
        line(
            "admin",
            format!("http://{}/  (metrics, health/live, health/ready, v1/cores, v1/topics)", self.admin),
        );
        line("data", self.data_line());
        line("cores", self.cores_line());
        line(
            "memory",
            format!("up to {} of buffers, tail rings and caches", show_bytes(self.memory_bytes as i64)),
        );
        line("kernel", format!("uses {}", list(&self.features_used)));
        if !self.features_unused.is_empty() {
            line("", format!("has, and does not use, {}", list(&self.features_unused)));
        }
        if self.features_without.is_empty() {
            line("", "and misses nothing that it can use".to_string());
        } else {
            line("", format!("does without {}", list(&self.features_without)));
        }
        line("flush", self.flush_line());
        line("an ack", self.ack().to_string());
        for low in &self.low_limits {
            line("warning", low.clone());
        }
        line("ready", format!("after {} ms; SIGTERM or Ctrl-C stops", self.started_in.as_millis()));
        out
    }

    fn listens(&self) -> String {
        let told = self.advertised.to_string();
        if told == self.listen.to_string() {
            self.listen.to_string()
        } else {
            format!("{}, clients are told {told}", self.listen)
        }
    }

    fn data_line(&self) -> String {
        let free = self
            .free_bytes
            .map_or(String::new(), |bytes| format!(", {:.1} GiB free", bytes as f64 / f64::from(1 << 30)));
        let buffered = if self.direct { "" } else { ", buffered" };
        let first = if self.first_start { ", first start" } else { "" };
        format!("{} ({}{buffered}{free}{first})", self.data.display(), self.file_system.name)
    }

    fn cores_line(&self) -> String {
        let cpus: Vec<usize> = self.cores.iter().filter_map(|core| core.cpu).collect();
        if cpus.is_empty() {
            format!("{}, on the CPUs that the kernel gives them; --cores LIST pins them", self.cores.len())
        } else {
            format!("{} on CPU {}, pinned", self.cores.len(), show_cpus(&cpus))
        }
    }

    fn flush_line(&self) -> String {
        let how = match self.method {
            Method::Fdatasync => "write with a linked fdatasync",
            Method::Dsync => "write with RWF_DSYNC",
        };
        let depth = if self.flush_depth == 1 {
            "one in flight".into()
        } else {
            format!("up to {} in flight", self.flush_depth)
        };
        format!("{how} ({}), {depth}", self.method_because)
    }

    fn ack(&self) -> &'static str {
        match (self.file_system.footing, self.relaxed_allowed) {
            (Footing::Sound, false) => "means on disk: it leaves after the flush that covers its records",
            (Footing::Sound, true) => {
                "means on disk, except on topics with flush.messages above 1 (relaxed): there, that the write is under way"
            }
            (Footing::Memory, _) => {
                "means given to memory: a kill of the broker leaves it, a power cut takes it"
            }
            (Footing::Buffered(_) | Footing::Refused(_), _) => {
                "means given to this file system and flushed; whether that survives a power cut is up to what lies below"
            }
        }
    }
}

fn list(items: &[String]) -> String {
    if items.is_empty() { "nothing".into() } else { items.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringmill_types::CoreId;

    fn banner() -> Banner {
        Banner {
            kernel: "6.18.4".into(),
            node_id: 1,
            cluster_id: "hF4qyWm7RcmBhx1pYqGBtQ".into(),
            listen: "0.0.0.0:9092".parse().expect("legal"),
            advertised: Address { host: "sandstone".into(), port: 9092 },
            admin: "127.0.0.1:9644".parse().expect("legal"),
            data: "/var/lib/ringmill".into(),
            first_start: true,
            file_system: FileSystem { name: "ext4".into(), footing: Footing::Sound },
            direct: true,
            free_bytes: Some(3 << 29),
            cores: vec![
                CorePlacement { core: CoreId(0), cpu: Some(0) },
                CorePlacement { core: CoreId(1), cpu: Some(1) },
            ],
            memory_bytes: 1 << 30,
            features_used: vec!["fixed-buffers".into()],
            features_unused: vec!["zero_copy (it loses on loopback)".into()],
            features_without: Vec::new(),
            method: Method::Fdatasync,
            method_because: "not measured yet",
            flush_depth: 1,
            relaxed_allowed: false,
            low_limits: vec!["nofile is 256".into()],
            started_in: Duration::from_millis(12),
        }
    }

    #[test]
    fn everything_a_starter_asks_is_answered() {
        let text = banner().text();
        for part in [
            "broker 1 of cluster hF4qyWm7RcmBhx1pYqGBtQ",
            "listens   0.0.0.0:9092, clients are told sandstone:9092",
            "http://127.0.0.1:9644/",
            "/var/lib/ringmill (ext4, 1.5 GiB free, first start)",
            "2 on CPU 0-1, pinned",
            "up to 1GiB",
            "uses fixed-buffers\n",
            "has, and does not use, zero_copy (it loses on loopback)\n",
            "misses nothing",
            "linked fdatasync (not measured yet), one in flight",
            "means on disk: it leaves after the flush",
            "warning   nofile is 256",
            "after 12 ms",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }

    #[test]
    fn a_weaker_promise_is_not_dressed_up() {
        let mut on_memory = banner();
        on_memory.file_system = FileSystem { name: "tmpfs".into(), footing: Footing::Memory };
        on_memory.direct = false;
        assert!(on_memory.text().contains("(tmpfs, buffered"), "{}", on_memory.text());
        assert!(on_memory.text().contains("a power cut takes it"), "{}", on_memory.text());
        let on_overlay = FileSystem { name: "overlay".into(), footing: Footing::Buffered("it is a layer") };
        let elsewhere = Banner { file_system: on_overlay, ..banner() };
        assert!(elsewhere.text().contains("up to what lies below"), "{}", elsewhere.text());
        for weaker in [on_memory, elsewhere] {
            assert!(!weaker.text().contains("means on disk"), "{}", weaker.text());
        }
        let relaxed = Banner { relaxed_allowed: true, ..banner() };
        assert!(relaxed.text().contains("except on topics"), "{}", relaxed.text());
    }
}
