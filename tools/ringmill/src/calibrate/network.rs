//! The way to a peer, or over loopback: round trips and throughput of one connection.
//!
//! A peer is `ringmill calibrate peer --listen`. It understands two orders, a byte each at the start of a connection:
//! send everything back, or count what comes until the sender has ended and say how much that was. It keeps nothing,
//! serves a few connections at a time, and gives up on one that is silent.

use crate::exit::{Code, Failed};
use hdrhistogram::Histogram;
use ringmill_device::Spread;
use ringmill_plan::calibration::Network;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const ECHO: u8 = b'E';
const COUNT: u8 = b'C';
const FRAME_BYTES: usize = 64;
const BLOCK_BYTES: usize = 256 << 10;
const SILENCE: Duration = Duration::from_secs(10);
const CONNECTIONS_MAX: usize = 8;

/// Serves measurements until the process ends.
///
/// # Errors
/// When a connection cannot be accepted.
pub fn serve(listener: &TcpListener) -> io::Result<()> {
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let (stream, _) = listener.accept()?;
        if open.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
            open.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let open = Arc::clone(&open);
        std::thread::spawn(move || {
            // The other side notices by itself.
            let _ = answer(stream);
            open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    prepare(&stream)?;
    let mut order = [0];
    stream.read_exact(&mut order)?;
    let mut block = vec![0; BLOCK_BYTES];
    let mut count = 0u64;
    loop {
        let got = stream.read(&mut block)?;
        if got == 0 {
            break;
        }
        count += got as u64;
        match order {
            [ECHO] => stream.write_all(block.get(..got).unwrap_or_default())?,
            [COUNT] => {}
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
    if order == [COUNT] {
        stream.write_all(&count.to_be_bytes())?;
    }
    Ok(())
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))
}

/// Measures the way to `peer`, or over loopback without one, for about twice `span`.
///
/// # Errors
/// A sentence, when the peer cannot be reached or is none.
pub fn measure(peer: Option<&str>, span: Duration) -> Result<Network, Failed> {
    let (to, address) = match peer {
        Some(peer) => (peer.to_string(), resolve(peer)?),
        None => {
            let listener = TcpListener::bind("127.0.0.1:0").map_err(|e| Failed::local("loopback", &e))?;
            let address = listener.local_addr().map_err(|e| Failed::local("loopback", &e))?;
            std::thread::spawn(move || serve(&listener));
            ("loopback".to_string(), address)
        }
    };
    let lost = |error: io::Error| {
        let why = format!("{to}: {error}; is `ringmill calibrate peer` running there?");
        Failed::new(Code::Unreachable, why)
    };
    let round_trip = round_trips(address, span).map_err(lost)?;
    let bytes_per_second = throughput(address, span).map_err(lost)?;
    Ok(Network { to, bytes_per_second, round_trip })
}

fn resolve(peer: &str) -> Result<SocketAddr, Failed> {
    let unreachable = |why: String| Failed::new(Code::Unreachable, format!("{peer}: {why}"));
    let mut found = peer.to_socket_addrs().map_err(|error| unreachable(error.to_string()))?;
    found.next().ok_or_else(|| unreachable("it has no address".into()))
}

fn connect(address: SocketAddr, order: u8) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address, SILENCE)?;
    prepare(&stream)?;
    stream.write_all(&[order])?;
    Ok(stream)
}

fn round_trips(address: SocketAddr, span: Duration) -> io::Result<Spread> {
    let mut stream = connect(address, ECHO)?;
    // Grows with what is recorded; a saturating record would not.
    let mut histogram = Histogram::<u64>::new(3).map_err(io::Error::other)?;
    let mut frame = [7; FRAME_BYTES];
    let began = Instant::now();
    while began.elapsed() < span {
        let sent = Instant::now();
        stream.write_all(&frame)?;
        stream.read_exact(&mut frame)?;
        histogram.record(sent.elapsed().as_nanos() as u64).map_err(io::Error::other)?;
    }
    Ok(Spread::of(&histogram))
}

fn throughput(address: SocketAddr, span: Duration) -> io::Result<f64> {
    let mut stream = connect(address, COUNT)?;
    let block = vec![7; BLOCK_BYTES];
    let (began, mut sent) = (Instant::now(), 0u64);
    while began.elapsed() < span {
        stream.write_all(&block)?;
        sent += block.len() as u64;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut count = [0; 8];
    stream.read_exact(&mut count)?;
    // Until the last byte was read there, not until it was in a buffer here.
    let seconds = began.elapsed().as_secs_f64();
    if u64::from_be_bytes(count) != sent {
        return Err(io::Error::other("it counted other bytes than were sent"));
    }
    Ok(sent as f64 / seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_measured_through_the_same_peer() {
        let network = measure(None, Duration::from_millis(50)).expect("loopback");
        assert!(network.bytes_per_second > 1e6, "{network:?}");
        // No round trip through a kernel takes less.
        assert!(network.round_trip.p50_us > 0.5 && network.round_trip.p50_us <= network.round_trip.p99_us);
    }

    #[test]
    fn what_is_no_peer_is_a_sentence() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        std::thread::spawn(move || drop(listener.accept()));
        let failed = measure(Some(&address), Duration::from_millis(50)).expect_err("it hangs up");
        assert!(failed.sentence.contains("calibrate peer"), "{}", failed.sentence);
    }

    #[test]
    fn a_peer_lets_an_unknown_order_go() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        std::thread::spawn(move || serve(&listener));
        let mut stream = connect(address, b'?').expect("it accepts");
        stream.write_all(&[0; 10]).expect("sent");
        let mut rest = Vec::new();
        assert!(stream.read_to_end(&mut rest).is_err() || rest.is_empty());
    }
}
