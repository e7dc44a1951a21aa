//! Binding listeners, before anything on disk is touched, with errors that say what to do.

use crate::args::Address;
use crate::exit::{Failure, Reason};
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs as _};
use std::time::{Duration, Instant};

/// The kernel takes a ring apart, and with it the listeners of a broker that was killed, some milliseconds after the
/// process is gone. A broker that is started again at once must not take that for somebody else's port.
const IN_USE_PATIENCE: Duration = Duration::from_secs(1);
const IN_USE_PAUSE: Duration = Duration::from_millis(10);

/// Binds the first of the host's addresses that can be bound, exclusively, and listens with the kernel's longest backlog.
///
/// `option` names the command-line option in errors.
///
/// # Errors
/// [`Reason::AddressInUse`] with the cause and the way out.
pub fn bind(option: &str, address: &Address) -> Result<(TcpListener, SocketAddr), Failure> {
    let failed =
        |why: String| Failure::new(Reason::AddressInUse, format!("Cannot listen on {address}: {why}."));
    let candidates: Vec<SocketAddr> = (address.host.as_str(), address.port)
        .to_socket_addrs()
        .map_err(|error| {
            failed(format!("the host's address is not known ({error}); write an IP address in {option}"))
        })?
        .collect();
    let mut last = None;
    for candidate in candidates {
        match bind_one(candidate) {
            Ok(bound) => return Ok(bound),
            Err(error) => last = Some(error),
        }
    }
    Err(failed(match last {
        None => format!("the host has no address; write an IP address in {option}"),
        Some(error) => match error.kind() {
            ErrorKind::AddrInUse => format!(
                "another process listens there (`ss -ltnp` shows which); stop it, or choose another {option} (port 0 takes a free one)"
            ),
            ErrorKind::PermissionDenied => {
                format!(
                    "ports below 1024 need the capability CAP_NET_BIND_SERVICE; choose a higher one in {option}"
                )
            }
            ErrorKind::AddrNotAvailable => {
                format!("no interface of this machine has that address; correct {option}")
            }
            _ => format!("{error}; choose another {option}"),
        },
    }))
}

fn bind_one(address: SocketAddr) -> std::io::Result<(TcpListener, SocketAddr)> {
    let deadline = Instant::now() + IN_USE_PATIENCE;
    loop {
        match TcpListener::bind(address) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < deadline => {
                std::thread::sleep(IN_USE_PAUSE);
            }
            result => {
                let listener = result?;
                let bound = listener.local_addr()?;
                return Ok((listener, bound));
            }
        }
    }
}

/// A listener for each core on the address of `first`, which was bound alone so that no other process can share it.
///
/// The kernel spreads connections over them (`SO_REUSEPORT`). Between giving up `first` and listening again nothing of
/// ours answers, which nobody can have seen: the address was not told to anyone yet.
///
/// # Errors
/// [`Reason::AddressInUse`] when another process was faster.
pub fn for_cores(
    first: TcpListener,
    bound: SocketAddr,
    cores: usize,
    backlog: i32,
) -> Result<Vec<TcpListener>, Failure> {
    drop(first);
    (0..cores)
        .map(|_| {
            ringmill_reactor::ring::listen(bound, backlog).map_err(|error| {
                Failure::new(Reason::AddressInUse, format!("Cannot listen on {bound}: {error}."))
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::parse(text).expect("legal")
    }

    #[test]
    fn port_zero_takes_a_free_one_and_a_taken_one_is_explained() {
        let (held, bound) = bind("--listen", &address("127.0.0.1:0")).expect("free");
        assert_ne!(bound.port(), 0);
        let failure = bind("--listen", &address(&bound.to_string())).expect_err("taken");
        assert_eq!(failure.reason, Reason::AddressInUse);
        assert!(failure.detail.contains("another process listens there"), "{failure}");
        assert!(failure.detail.contains("--listen"), "{failure}");
        drop(held);
        bind("--listen", &address(&bound.to_string())).expect("free again");
    }

    #[test]
    fn cores_share_an_address_that_no_one_else_gets() {
        let (first, bound) = bind("--listen", &address("127.0.0.1:0")).expect("free");
        let listeners = for_cores(first, bound, 3, 16).expect("ours");
        assert!(listeners.iter().all(|listener| listener.local_addr().expect("bound") == bound));
        assert!(bind("--listen", &address(&bound.to_string())).is_err());
        std::net::TcpStream::connect(bound).expect("one of them takes it");
    }

    #[test]
    fn ipv6_and_names_work_and_foreign_addresses_are_explained() {
        let (_held, bound) = bind("--listen", &address("localhost:0")).expect("loopback has a name");
        assert!(bound.ip().is_loopback());
        match bind("--listen", &address("[::1]:0")) {
            Ok((_held, bound)) => assert!(bound.is_ipv6()),
            Err(why) => eprintln!("SKIPPED: no IPv6 on this machine ({why})"),
        }
        // 192.0.2.0/24 is for documentation (RFC 5737): no machine has it.
        let failure = bind("--admin", &address("192.0.2.1:1")).expect_err("not ours");
        assert!(failure.detail.contains("no interface of this machine"), "{failure}");
    }
}
