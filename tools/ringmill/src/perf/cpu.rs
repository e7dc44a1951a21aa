//! CPU of a broker on this machine.

use ringmill_load::Target;
use ringmill_reactor::thread::process_cpu_ns;
use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr};

/// Processes that listen where the brokers are, and what they had used.
pub struct BrokerCpu(Vec<(u32, u64)>);

impl BrokerCpu {
    /// `None` when a broker is elsewhere, or its process cannot be seen.
    pub fn of(targets: &[Target]) -> Option<BrokerCpu> {
        let leaders: BTreeSet<SocketAddr> = targets.iter().map(|t| t.leader).collect();
        let mut processes = BTreeSet::new();
        for leader in leaders {
            processes.extend(listeners(leader)?);
        }
        let used: Option<Vec<(u32, u64)>> =
            processes.into_iter().map(|id| Some((id, process_cpu_ns(id)?))).collect();
        used.filter(|used| !used.is_empty()).map(BrokerCpu)
    }

    /// Seconds since then; `None` when one of them ended.
    pub fn seconds(&self) -> Option<f64> {
        let mut sum = 0;
        for (id, before) in &self.0 {
            sum += process_cpu_ns(*id)?.saturating_sub(*before);
        }
        Some(sum as f64 / 1e9)
    }
}

/// Processes with a socket that listens at the port of an address of this machine.
fn listeners(address: SocketAddr) -> Option<BTreeSet<u32>> {
    if !is_local(address.ip()) {
        return None;
    }
    let mut inodes = BTreeSet::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let Ok(text) = fs::read_to_string(table) else { continue };
        inodes.extend(text.lines().filter_map(|line| listening_inode(line, address.port())));
    }
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(descriptors) = fs::read_dir(entry.path().join("fd")) else { continue };
        let holds = descriptors.flatten().filter_map(|fd| fs::read_link(fd.path()).ok()).any(|link| {
            let link = link.to_string_lossy();
            let inode = link.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
            inode.and_then(|inode| inode.parse().ok()).is_some_and(|inode: u64| inodes.contains(&inode))
        });
        if holds {
            found.insert(id);
        }
    }
    (!found.is_empty()).then_some(found)
}

/// The inode of a line of /proc/net/tcp that is a listener at `port`.
fn listening_inode(line: &str, port: u16) -> Option<u64> {
    const LISTENS: &str = "0A";
    let mut cells = line.split_whitespace();
    let local = cells.nth(1)?;
    let (_, hex) = local.rsplit_once(':')?;
    if u16::from_str_radix(hex, 16).ok()? != port || cells.nth(1)? != LISTENS {
        return None;
    }
    cells.nth(5)?.parse().ok()
}

/// Whether a socket can be bound there: then it is this machine's.
fn is_local(ip: IpAddr) -> bool {
    ip.is_loopback() || std::net::UdpSocket::bind((ip, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn this_process_is_found_by_its_listener() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let leader = listener.local_addr().expect("an address");
        let cpu = BrokerCpu::of(&[Target { partition: 0, leader }]).expect("a local listener");
        assert_eq!(cpu.0.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [std::process::id()]);
        assert!(cpu.seconds().is_some());
    }

    #[test]
    fn another_machine_is_not_seen() {
        let leader = "192.0.2.1:9092".parse().expect("an address");
        assert!(BrokerCpu::of(&[Target { partition: 0, leader }]).is_none());
    }
}
