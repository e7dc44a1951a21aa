//! From what was asked for to what will be done: command line and configuration become [`BrokerOptions`].
//!
//! Decides addresses, the data folder, where core threads run and how much memory they share. Pure: what the host is
//! like comes in as [`HostFacts`], so every rule can be tested; nothing is bound, created or changed here.

use crate::config::units::{parse_cpus, show_bytes, show_cpus};
use crate::config::{Config, Given};
use crate::exit::{Failure, Reason};
use ringmill_types::CoreId;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

/// `ringmill serve`'s options, as they were typed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServeArgs {
    /// `--config FILE`.
    pub config: Option<PathBuf>,
    /// `--data DIR`.
    pub data: Option<PathBuf>,
    /// `--listen HOST:PORT`.
    pub listen: Option<String>,
    /// `--advertise HOST:PORT`.
    pub advertise: Option<String>,
    /// `--admin HOST:PORT`.
    pub admin: Option<String>,
    /// `--cores COUNT|LIST`.
    pub cores: Option<String>,
    /// `--memory SIZE`.
    pub memory: Option<String>,
    /// `--set KEY=VALUE`, in order.
    pub set: Vec<String>,
    /// `--log-level`: a level, or directives such as `info,ringmill_core=debug`.
    pub log_level: Option<String>,
    /// `--log-json`.
    pub log_json: bool,
}

/// What the rules below need to know of the machine.
#[derive(Clone, Debug)]
pub struct HostFacts {
    /// CPUs this process may run on, ascending.
    pub cpus: Vec<usize>,
    /// Memory this process may use: RAM, or its control group's limit where that is less.
    pub memory_bytes: u64,
    pub hostname: String,
}

/// `HOST:PORT`, the host not yet looked up. IPv6 addresses are kept without their brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub host: String,
    pub port: u16,
}

impl Address {
    /// Reads `HOST:PORT`, `[IPv6]:PORT`, `:PORT`, each also behind Kafka's `PLAINTEXT://`.
    ///
    /// # Errors
    /// A phrase that fits after the option's name.
    pub fn parse(text: &str) -> Result<Address, String> {
        let text = text.trim();
        if text.contains(',') {
            return Err(format!("`{text}` names several listeners; one is offered for now"));
        }
        let plain = match text.split_once("://") {
            Some((protocol, rest)) if protocol.eq_ignore_ascii_case("PLAINTEXT") => rest,
            Some((protocol, _)) => {
                return Err(format!("{protocol} is not offered yet; listeners are PLAINTEXT for now"));
            }
            None => text,
        };
        let bad = || format!("`{text}` is not HOST:PORT (IPv6 in brackets, as in [::1]:9092)");
        let (host, port) = plain.rsplit_once(':').ok_or_else(bad)?;
        let port = match port.parse::<u16>() {
            Ok(port) => port,
            Err(_) if !port.is_empty() && port.bytes().all(|digit| digit.is_ascii_digit()) => {
                return Err(format!("`{text}` has no port that exists; ports are 0 (any free one) to 65535"));
            }
            Err(_) => return Err(bad()),
        };
        let host = match host.strip_prefix('[') {
            Some(rest) => {
                let inner = rest.strip_suffix(']').ok_or_else(bad)?;
                inner.parse::<std::net::Ipv6Addr>().map_err(|_| bad())?;
                inner
            }
            None if host.contains(':') => return Err(bad()),
            None if host.is_empty() => "0.0.0.0",
            None => host,
        };
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        if host.len() > 255 || !host.chars().all(legal) {
            return Err(bad());
        }
        Ok(Address { host: host.to_string(), port })
    }

    /// `0.0.0.0` or `::`: listens everywhere, names nowhere.
    pub fn is_wildcard(&self) -> bool {
        self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified())
    }

    /// Only this machine can connect.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Where a core's thread runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CorePlacement {
    pub core: CoreId,
    /// The CPU it is pinned to; `None`: wherever the kernel puts it.
    pub cpu: Option<usize>,
}

/// Everything the start needs to know, decided.
#[derive(Clone, Debug)]
pub struct BrokerOptions {
    pub config: Config,
    pub data: PathBuf,
    pub listen: Address,
    /// As given; port 0 stands for the port that was bound.
    pub advertise: Option<Address>,
    pub admin: Address,
    pub cores: Vec<CorePlacement>,
    /// For all cores together.
    pub memory_bytes: u64,
    /// What works but is probably not meant; one sentence each.
    pub warnings: Vec<String>,
}

/// Where things are when nothing says otherwise.
pub const DATA_DEFAULT: &str = "./ringmill-data";
pub const LISTEN_DEFAULT: &str = "127.0.0.1:9092";
pub const ADMIN_DEFAULT: &str = "127.0.0.1:9644";
/// Upper bound of the default of `--memory`.
pub const MEMORY_DEFAULT_BYTES: u64 = 1 << 30;
/// Less than this, and a core has no room for what a few producers keep in flight beside a tail ring of a few chunks: it goes on, but
/// connections may wait until they are closed.
pub const MEMORY_PER_CORE_BYTES_MIN: u64 = 24 << 20;

impl BrokerOptions {
    /// Reads the configuration file, then applies `--set`, then the options.
    ///
    /// # Errors
    /// [`Reason::Config`] with every mistake, one to a line.
    pub fn resolve(args: &ServeArgs, host: &HostFacts) -> Result<BrokerOptions, Failure> {
        let mut given = Given::default();
        if let Some(path) = &args.config {
            given.read_file(path);
        }
        for assignment in &args.set {
            given.read_set(assignment);
        }
        let flags = [
            ("listeners", "--listen", &args.listen),
            ("advertised.listeners", "--advertise", &args.advertise),
            ("admin.listen", "--admin", &args.admin),
            ("cores", "--cores", &args.cores),
            ("memory", "--memory", &args.memory),
        ];
        for (name, flag, text) in flags {
            if let Some(text) = text {
                given.read_flag(name, flag, text);
            }
        }
        let (config, errors) = given.look();
        BrokerOptions::decide(args, config, host, errors)
    }

    fn decide(
        args: &ServeArgs,
        config: Config,
        host: &HostFacts,
        found: Vec<String>,
    ) -> Result<BrokerOptions, Failure> {
        let settings = &config.settings;
        let mut errors = found;
        let mut warnings = config.warnings.clone();
        let address = |name: &str, text: Option<&str>| {
            text.map(|text| Address::parse(text).map_err(|why| format!("{name}: {why}.")))
        };
        let mut take = |parsed: Option<Result<Address, String>>| match parsed {
            Some(Ok(address)) => Some(address),
            Some(Err(why)) => {
                errors.push(why);
                None
            }
            None => None,
        };
        let listen =
            take(address("listeners", Some(settings.listeners.as_deref().unwrap_or(LISTEN_DEFAULT))));
        let admin =
            take(address("admin.listen", Some(settings.admin_listen.as_deref().unwrap_or(ADMIN_DEFAULT))));
        let advertise = take(address("advertised.listeners", settings.advertised_listeners.as_deref()));
        if advertise.as_ref().is_some_and(Address::is_wildcard) {
            errors.push("advertised.listeners: a wildcard cannot be connected to; write a name or address clients can reach.".into());
        }
        let reserved: Vec<usize> =
            settings.control_cpus.iter().chain(&settings.upkeep_cpus).flatten().copied().collect();
        check_cpus("control.cpus", settings.control_cpus.as_deref(), host, &mut errors);
        check_cpus("upkeep.cpus", settings.upkeep_cpus.as_deref(), host, &mut errors);
        let cores = place_cores(settings.cores.as_deref(), host, &reserved, &mut errors, &mut warnings);
        let memory_bytes =
            settings.memory.map_or(MEMORY_DEFAULT_BYTES.min(host.memory_bytes / 4), |bytes| bytes as u64);
        errors.extend(check_memory(memory_bytes, cores.len() as u64, settings.message_max_bytes));
        if memory_bytes > host.memory_bytes {
            warnings.push(format!(
                "memory is {}, but this process may use {} only; under load it will be killed. Lower --memory.",
                show_bytes(memory_bytes as i64),
                show_bytes(host.memory_bytes as i64)
            ));
        }
        let (Some(listen), Some(admin), true) = (listen, admin, errors.is_empty()) else {
            return Err(Failure::new(Reason::Config, errors.join("\n")));
        };
        let dirs = settings.log_dirs.clone().or_else(|| settings.log_dir.clone()).map(PathBuf::from);
        let data = args.data.clone().or(dirs).unwrap_or_else(|| DATA_DEFAULT.into());
        Ok(BrokerOptions { data, listen, advertise, admin, cores, memory_bytes, warnings, config })
    }

    /// Largest batch that every core has room for.
    pub fn batch_bytes_max(&self) -> u64 {
        self.memory_bytes / self.cores.len().max(1) as u64 / BATCHES_PER_CORE
    }

    /// The address clients are told, once `bound_port` is known, and whether the host's name was chosen for want of one.
    pub fn advertised(&self, bound_port: u16, hostname: &str) -> (Address, bool) {
        match &self.advertise {
            Some(address) => {
                let port = if address.port == 0 { bound_port } else { address.port };
                (Address { host: address.host.clone(), port }, false)
            }
            None if self.listen.is_wildcard() => {
                (Address { host: hostname.to_string(), port: bound_port }, true)
            }
            None => (Address { host: self.listen.host.clone(), port: bound_port }, false),
        }
    }
}

/// Largest batches that a core has room for: two while a request arrives (a buffer that grows is copied), one in the tail
/// ring, and one for whoever reads it. A legal batch would wait for memory for ever otherwise.
const BATCHES_PER_CORE: u64 = 4;

/// Each core needs its least, and room for the largest batch.
fn check_memory(memory_bytes: u64, cores: u64, batch_bytes: u64) -> Option<String> {
    let for_batches = batch_bytes * BATCHES_PER_CORE;
    let floor = cores * MEMORY_PER_CORE_BYTES_MIN.max(for_batches);
    if memory_bytes >= floor {
        return None;
    }
    let batches = if for_batches > MEMORY_PER_CORE_BYTES_MIN {
        format!(" and batches of message.max.bytes = {}", show_bytes(batch_bytes as i64))
    } else {
        String::new()
    };
    Some(format!(
        "memory: {} is too little for {cores} cores{batches}; give {} or more, or fewer --cores.",
        show_bytes(memory_bytes as i64),
        show_bytes(floor as i64)
    ))
}

fn check_cpus(name: &str, cpus: Option<&[usize]>, host: &HostFacts, errors: &mut Vec<String>) {
    let Some(cpus) = cpus else { return };
    let missing: Vec<usize> = cpus.iter().copied().filter(|cpu| !host.cpus.contains(cpu)).collect();
    if !missing.is_empty() {
        errors.push(format!(
            "{name}: this process may not run on CPU {}; it may on {}.",
            show_cpus(&missing),
            show_cpus(&host.cpus)
        ));
    }
}

/// One core for each CPU by default. Pinned where the user says whose the CPUs are, by a list of CPUs for the cores, or for
/// control or upkeep, which are then used last. A mere count is placed by the kernel: on CPUs that clients and interrupts
/// share, a pinned core waits for them while another CPU idles (kernel-notes/wake-ups.md).
fn place_cores(
    spec: Option<&str>,
    host: &HostFacts,
    reserved: &[usize],
    errors: &mut Vec<String>,
    warnings: &mut Vec<String>,
) -> Vec<CorePlacement> {
    let pinned = |cpus: &[usize]| -> Vec<CorePlacement> {
        (0..).zip(cpus).map(|(core, cpu)| CorePlacement { core: CoreId(core), cpu: Some(*cpu) }).collect()
    };
    let mut preferred: Vec<usize> = host.cpus.iter().copied().filter(|cpu| !reserved.contains(cpu)).collect();
    let free = preferred.len();
    preferred.extend(host.cpus.iter().filter(|cpu| reserved.contains(cpu)));
    let count = match spec.map(|text| (text, text.parse::<usize>())) {
        None => free.clamp(1, crate::config::table::CORES_MAX),
        Some((_, Ok(count))) => count,
        Some((text, Err(_))) => {
            let cpus = parse_cpus(text).unwrap_or_default();
            check_cpus("cores", Some(&cpus), host, errors);
            return pinned(&cpus);
        }
    };
    if count <= preferred.len() && !reserved.is_empty() {
        preferred.truncate(count);
        preferred.sort_unstable();
        return pinned(&preferred);
    }
    if count > preferred.len() {
        warnings.push(format!(
        "{count} cores share {} CPUs: this is for tests; throughput and tails are better with --cores {}.",
        host.cpus.len(),
        host.cpus.len()
    ));
    }
    (0..count).map(|core| CorePlacement { core: CoreId(core as u16), cpu: None }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> HostFacts {
        HostFacts { cpus: vec![0, 1, 4, 5], memory_bytes: 2 << 30, hostname: "sandstone".into() }
    }

    fn resolve(edit: impl FnOnce(&mut ServeArgs)) -> Result<BrokerOptions, Failure> {
        let mut args = ServeArgs::default();
        edit(&mut args);
        BrokerOptions::resolve(&args, &host())
    }

    fn cpus(options: &BrokerOptions) -> Vec<Option<usize>> {
        options.cores.iter().map(|core| core.cpu).collect()
    }

    #[test]
    fn defaults() {
        let options = resolve(|_| ()).expect("legal");
        assert_eq!(options.listen.to_string(), "127.0.0.1:9092");
        assert_eq!(options.admin.to_string(), "127.0.0.1:9644");
        assert_eq!(options.data, PathBuf::from("./ringmill-data"));
        assert_eq!(options.memory_bytes, 512 << 20);
        assert_eq!(cpus(&options), [None; 4], "one for each CPU, where the kernel puts them");
        assert!(options.warnings.is_empty());
    }

    #[test]
    fn flags_go_before_set_and_set_before_the_file() {
        let dir = tempfile::tempdir().expect("temp folder");
        let file = dir.path().join("ringmill.toml");
        std::fs::write(
            &file,
            "listeners = \"127.0.0.1:1\"\ncores = 1\nmemory = \"100MiB\"\nlog.dirs = \"/from/file\"\n",
        )
        .expect("written");
        let options = resolve(|args| {
            args.config = Some(file);
            args.set = vec!["cores=2".into(), "memory=200MiB".into()];
            args.memory = Some("300MiB".into());
        })
        .expect("legal");
        assert_eq!(options.listen.port, 1);
        assert_eq!(options.cores.len(), 2);
        assert_eq!(options.memory_bytes, 300 << 20);
        assert_eq!(options.data, PathBuf::from("/from/file"));
    }

    #[test]
    fn cores_are_a_count_or_a_list() {
        assert_eq!(cpus(&resolve(|a| a.cores = Some("2".into())).expect("legal")), [None; 2]);
        assert_eq!(cpus(&resolve(|a| a.cores = Some("4-5".into())).expect("legal")), [Some(4), Some(5)]);
        let many = resolve(|a| a.cores = Some("8".into())).expect("legal");
        assert_eq!(cpus(&many), [None; 8]);
        assert_eq!(many.warnings.len(), 1);
        let error = resolve(|a| a.cores = Some("0-3".into())).expect_err("CPUs 2 and 3 are not ours");
        assert!(error.detail.contains("may not run on CPU 2-3; it may on 0-1,4-5"), "{error}");
        assert_eq!(error.reason, Reason::Config);
    }

    #[test]
    fn mistakes_of_every_kind_are_reported_together() {
        let error = resolve(|a| {
            a.set = vec!["nope=1".into(), "control.cpus=7".into()];
            a.listen = Some("here".into());
            a.cores = Some("99".into());
            a.memory = Some("64MiB".into());
        })
        .expect_err("wrong in five ways");
        for part in
            ["nope", "control.cpus: this", "listeners: `here`", "memory: 64MiB is too little for 99 cores"]
        {
            assert!(error.detail.contains(part), "{part} in {error}");
        }
    }

    #[test]
    fn cpus_of_control_are_left_to_it() {
        let options = resolve(|a| a.set = vec!["control.cpus=0".into()]).expect("legal");
        assert_eq!(cpus(&options), [Some(1), Some(4), Some(5)]);
        let options = resolve(|a| {
            a.set = vec!["control.cpus=0".into()];
            a.cores = Some("4".into());
        })
        .expect("legal");
        assert_eq!(cpus(&options), [Some(0), Some(1), Some(4), Some(5)]);
    }

    #[test]
    fn addresses() {
        for (text, shown) in [
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("[::]:9092", "[::]:9092"),
            ("PLAINTEXT://broker-1.example:9092", "broker-1.example:9092"),
            ("PLAINTEXT://:9092", "0.0.0.0:9092"),
            (":1", "0.0.0.0:1"),
        ] {
            assert_eq!(Address::parse(text).map(|a| a.to_string()), Ok(shown.to_string()), "{text}");
        }
        for text in [
            "",
            "9092",
            "host",
            "::1:9092",
            "[::1:9092",
            "[host]:1",
            "h:65536",
            "SSL://h:1",
            "a:1,b:2",
            "h o:1",
        ] {
            assert!(Address::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn advertised_follows_listen() {
        let of = |listen: &str, advertise: Option<&str>| {
            let options = resolve(|a| {
                a.listen = Some(listen.into());
                a.advertise = advertise.map(Into::into);
            })
            .expect("legal");
            let (address, by_name) = options.advertised(4242, "sandstone");
            (address.to_string(), by_name)
        };
        assert_eq!(of("127.0.0.1:0", None), ("127.0.0.1:4242".into(), false));
        assert_eq!(of("0.0.0.0:0", None), ("sandstone:4242".into(), true));
        assert_eq!(of("[::]:0", None), ("sandstone:4242".into(), true));
        assert_eq!(of("0.0.0.0:9092", Some("lb.example:0")), ("lb.example:4242".into(), false));
        assert!(resolve(|a| a.advertise = Some("0.0.0.0:9092".into())).is_err());
    }

    #[test]
    fn memory_is_checked_against_cores_and_host() {
        let error = resolve(|a| {
            a.memory = Some("64MiB".into());
            a.cores = Some("8".into());
        })
        .expect_err("8 MiB a core");
        assert!(error.detail.contains("give 192MiB or more"), "{error}");
        // A batch that no core could ever hold would be waited for, and refused, for ever.
        let large = |memory: &str| {
            resolve(|a| {
                a.memory = Some(memory.into());
                a.cores = Some("2".into());
                a.set = vec!["message.max.bytes=100MiB".into()];
            })
        };
        let error = large("512MiB").expect_err("not enough for a request of 100 MiB and its copy");
        assert!(error.detail.contains("message.max.bytes = 100MiB; give 800MiB or more"), "{error}");
        large("800MiB").expect("legal");
        let options = resolve(|a| a.memory = Some("4GiB".into())).expect("legal");
        assert!(options.warnings.iter().any(|w| w.contains("may use 2GiB only")), "{:?}", options.warnings);
    }
}
