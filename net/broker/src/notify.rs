//! Tells a service manager what the process is doing (sd_notify(3)): ready, stopping. Silent where nobody listens.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Sends `state` (`READY=1`, `STOPPING=1`) to the socket named in `NOTIFY_SOCKET`. Failing only costs the manager its
/// view, so it is logged and no more.
pub fn notify(state: &str) {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let Some(name) = name.to_str() else { return };
    if let Err(error) = send(name, state) {
        tracing::warn!("the service manager at {name} was not told {state}: {error}");
    }
}

fn send(name: &str, state: &str) -> std::io::Result<()> {
    let address = match name.strip_prefix('@') {
        Some(abstract_name) => SocketAddr::from_abstract_name(abstract_name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_socket_are_reached() {
        let dir = tempfile::tempdir().expect("temp folder");
        let path = dir.path().join("notify");
        let listener = UnixDatagram::bind(&path).expect("bound");
        send(path.to_str().expect("text"), "READY=1").expect("sent");
        let mut bytes = [0; 32];
        let length = listener.recv(&mut bytes).expect("received");
        assert_eq!(&bytes[..length], b"READY=1");

        let name = format!("ringmill-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("short");
        let listener = UnixDatagram::bind_addr(&address).expect("bound");
        send(&format!("@{name}"), "STOPPING=1").expect("sent");
        let length = listener.recv(&mut bytes).expect("received");
        assert_eq!(&bytes[..length], b"STOPPING=1");
        assert!(send(dir.path().join("absent").to_str().expect("text"), "READY=1").is_err());
    }
}
