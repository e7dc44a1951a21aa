//! Sockets on loopback: receives, accepts, sends from memory and from files, and the spread of connections.

use crate::Scene;
use crate::tools::{Memory, alternate, cpu, heading, open, repeat, ring, succeed};
use io_uring::types::BufRingEntry;
use io_uring::{IoUring, cqueue, opcode, types};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

const GROUP: u16 = 1;
const BUFFERS: u16 = 64;
const BUFFER_BYTES: usize = 16 << 10;
const CONNECTIONS: usize = 32;
const REQUEST_BYTES: usize = 100;

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let other = listener.accept().unwrap().0;
    one.set_nodelay(true).unwrap();
    other.set_nodelay(true).unwrap();
    (one, other)
}

/// A ring of provided buffers; memory stays for the life of the process.
struct Provided {
    entries: Memory,
    memory: Memory,
    tail: u16,
}

impl Provided {
    fn new(ring: &IoUring) -> Provided {
        let entries = Memory::untouched(4096, false);
        let address = entries.ptr() as u64;
        // SAFETY: page-aligned, large enough for the entries, and never unmapped.
        unsafe { ring.submitter().register_buf_ring_with_flags(address, BUFFERS, GROUP, 0).unwrap() };
        let memory = Memory::new(BUFFERS as usize * BUFFER_BYTES);
        let mut provided = Provided { entries, memory, tail: 0 };
        (0..BUFFERS).for_each(|id| provided.give_back(id));
        provided
    }

    fn give_back(&mut self, id: u16) {
        let base = self.entries.bytes().as_mut_ptr().cast::<BufRingEntry>();
        // SAFETY: the index is below the number of entries, and the kernel reads one only after the tail passed it.
        unsafe {
            let entry = &mut *base.add((self.tail & (BUFFERS - 1)) as usize);
            entry.set_addr(self.memory.ptr().add(id as usize * BUFFER_BYTES) as u64);
            entry.set_len(BUFFER_BYTES as u32);
            entry.set_bid(id);
            self.tail = self.tail.wrapping_add(1);
            (*BufRingEntry::tail(base).cast::<AtomicU16>()).store(self.tail, Ordering::Release);
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Receive {
    OwnBuffer,
    Provided,
    Multishot,
}

/// A client sends a small request on each of its connections, and again when all have been received.
fn receive_rounds(scene: &Scene, means: Receive) -> Vec<Duration> {
    let mut ring = ring();
    let mut provided = (means != Receive::OwnBuffer).then(|| Provided::new(&ring));
    let own = Memory::new(CONNECTIONS * BUFFER_BYTES);
    let (mut clients, servers): (Vec<_>, Vec<_>) = (0..CONNECTIONS).map(|_| pair()).unzip();
    let entry = |at: usize| {
        let fd = types::Fd(servers[at].as_raw_fd());
        match means {
            // SAFETY: each connection has its own piece.
            Receive::OwnBuffer => unsafe {
                let to = own.ptr().add(at * BUFFER_BYTES).cast_mut();
                opcode::Recv::new(fd, to, BUFFER_BYTES as u32).build()
            },
            Receive::Provided => opcode::Recv::new(fd, std::ptr::null_mut(), BUFFER_BYTES as u32)
                .buf_group(GROUP)
                .build()
                .flags(io_uring::squeue::Flags::BUFFER_SELECT),
            Receive::Multishot => opcode::RecvMulti::new(fd, GROUP).build(),
        }
        .user_data(at as u64)
    };
    for at in 0..CONNECTIONS {
        // SAFETY: buffers and sockets outlive the ring's use of them: shutdown below ends every receive.
        unsafe { ring.submission().push(&entry(at)).unwrap() };
    }
    ring.submit().unwrap();
    let (go, gone) = std::sync::mpsc::sync_channel(1);
    let client = std::thread::spawn(move || {
        while gone.recv().is_ok() {
            clients.iter_mut().for_each(|client| client.write_all(&[7; REQUEST_BYTES]).unwrap());
        }
        drop(clients);
    });
    let times = repeat(scene.span, || {
        go.send(()).unwrap();
        let mut missing = CONNECTIONS * REQUEST_BYTES;
        while missing > 0 {
            ring.submit_and_wait(1).unwrap();
            let done: Vec<_> =
                ring.completion().map(|one| (one.user_data() as usize, one.result(), one.flags())).collect();
            for (at, result, flags) in done {
                assert!(result > 0, "{}", std::io::Error::from_raw_os_error(-result));
                missing -= result as usize;
                if let (Some(id), Some(provided)) = (cqueue::buffer_select(flags), &mut provided) {
                    provided.give_back(id);
                }
                if !cqueue::more(flags) {
                    // SAFETY: as above.
                    unsafe { ring.submission().push(&entry(at)).unwrap() };
                }
            }
        }
    });
    drop(go);
    client.join().unwrap();
    ring.submit().unwrap();
    let mut open = CONNECTIONS;
    while open > 0 {
        ring.submit_and_wait(1).unwrap();
        open -= ring.completion().filter(|done| !cqueue::more(done.flags())).count();
    }
    times
}

pub fn receive(scene: &Scene) {
    println!("one operation is {CONNECTIONS} receives of {REQUEST_BYTES} B, one on each connection");
    heading();
    let ways = vec![
        ("single-shot, a buffer each".to_owned(), Receive::OwnBuffer),
        ("single-shot, provided".to_owned(), Receive::Provided),
        ("multishot, provided".to_owned(), Receive::Multishot),
    ];
    alternate(ways, |means| receive_rounds(scene, *means));
}

/// A connection made, accepted and closed, with a single accept each time or one multishot accept.
pub fn accept(scene: &Scene) {
    heading();
    let ways = vec![("single accept".to_owned(), false), ("multishot accept".to_owned(), true)];
    alternate(ways, |multishot| {
        let mut ring = ring();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, fd) = (listener.local_addr().unwrap(), types::Fd(listener.as_raw_fd()));
        let entry = match multishot {
            true => opcode::AcceptMulti::new(fd).build(),
            false => opcode::Accept::new(fd, std::ptr::null_mut(), std::ptr::null_mut()).build(),
        };
        let mut armed = false;
        repeat(scene.span, || {
            if !armed {
                // SAFETY: no memory is given; the listener lives until the ring is gone.
                unsafe { ring.submission().push(&entry).unwrap() };
            }
            ring.submit().unwrap();
            let client = TcpStream::connect(address).unwrap();
            ring.submit_and_wait(1).unwrap();
            for done in ring.completion() {
                assert!(done.result() >= 0);
                armed = cqueue::more(done.flags());
                // SAFETY: a new descriptor, ours from here.
                drop(unsafe { OwnedFd::from_raw_fd(done.result()) });
            }
            drop(client);
        })
    });
}

#[derive(Clone, Copy, PartialEq)]
enum Send {
    Copy,
    ZeroCopy,
    Sendfile,
    Splice,
}

struct Sender {
    ring: IoUring,
    memory: Memory,
    file: OwnedFd,
    pipe: (OwnedFd, OwnedFd),
}

impl Sender {
    fn new(scene: &Scene, len: usize) -> Sender {
        let (ring, memory) = (ring(), Memory::new(len));
        let vector = libc::iovec { iov_base: memory.ptr().cast_mut().cast(), iov_len: len };
        // SAFETY: the memory is never unmapped.
        unsafe { ring.submitter().register_buffers(&[vector]).unwrap() };
        let path = scene.folder.join(format!("kernel-notes-{}-send", std::process::id()));
        let file = open(&path, 0);
        std::fs::remove_file(&path).unwrap();
        let mut ends = [0; 2];
        // SAFETY: the memory is as long as the write; two new descriptors, checked.
        unsafe {
            assert_eq!(libc::pwrite(file.as_raw_fd(), memory.ptr().cast(), len, 0), len as isize);
            assert_eq!(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC), 0);
            assert!(libc::fcntl(ends[1], libc::F_SETPIPE_SZ, len.max(4096) as i32) >= 0);
            let pipe = (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1]));
            Sender { ring, memory, file, pipe }
        }
    }

    /// Sends all of it, and with zero copy waits until the memory may be written again.
    fn send(&mut self, fd: i32, means: Send, len: usize) {
        match means {
            Send::Copy => {
                let from = self.memory.ptr();
                let send = opcode::Send::new(types::Fd(fd), from, len as u32).flags(libc::MSG_WAITALL);
                succeed(&mut self.ring, &[send.build()]);
            }
            Send::ZeroCopy => {
                zero_copy(&mut self.ring, &self.memory, fd, len);
            }
            Send::Sendfile => {
                let mut at = 0;
                while (at as usize) < len {
                    // SAFETY: the offset is ours.
                    let sent =
                        unsafe { libc::sendfile(fd, self.file.as_raw_fd(), &raw mut at, len - at as usize) };
                    assert!(sent > 0);
                }
            }
            Send::Splice => {
                let (out, into) = (types::Fd(self.pipe.0.as_raw_fd()), types::Fd(self.pipe.1.as_raw_fd()));
                let file = types::Fd(self.file.as_raw_fd());
                let mut at = 0;
                while at < len {
                    let fill = opcode::Splice::new(file, at as i64, into, -1, (len - at) as u32).build();
                    let filled = crate::tools::complete(&mut self.ring, &[fill])[0].1;
                    assert!(filled > 0);
                    at += filled as usize;
                    let mut left = filled;
                    while left > 0 {
                        let drain = opcode::Splice::new(out, -1, types::Fd(fd), -1, left as u32).build();
                        let drained = crate::tools::complete(&mut self.ring, &[drain])[0].1;
                        assert!(drained > 0);
                        left -= drained;
                    }
                }
            }
        }
    }
}

/// A zero-copy send from the registered buffer: when its result came, when its notification, and whether the
/// kernel copied after all.
fn zero_copy(ring: &mut IoUring, memory: &Memory, fd: i32, len: usize) -> (Duration, Duration, bool) {
    const REPORT_USAGE: u16 = 8;
    const COPIED: i32 = i32::MIN;
    let send = opcode::SendZc::new(types::Fd(fd), memory.ptr(), len as u32)
        .buf_index(Some(0))
        .zc_flags(REPORT_USAGE)
        .flags(libc::MSG_WAITALL)
        .build();
    let begin = Instant::now();
    // SAFETY: the memory is never unmapped.
    unsafe { ring.submission().push(&send).unwrap() };
    let (mut result_at, mut copied) = (Duration::ZERO, false);
    loop {
        ring.submit_and_wait(1).unwrap();
        for done in ring.completion() {
            if cqueue::notif(done.flags()) {
                copied = done.result() == COPIED;
                return (result_at, begin.elapsed(), copied);
            }
            assert_eq!(done.result(), len as i32);
            result_at = begin.elapsed();
            assert!(cqueue::more(done.flags()), "a notification follows");
        }
        assert!(!copied);
    }
}

fn drain(mut stream: TcpStream) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut buffer = vec![0; 256 << 10];
        while stream.read(&mut buffer).unwrap() > 0 {}
    })
}

/// Sends of one size each from memory and from the page cache; a reader on the other side takes everything.
pub fn send(scene: &Scene) {
    heading();
    for len in [4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20] {
        let mut sender = Sender::new(scene, len);
        let (server, client) = pair();
        let reader = drain(client);
        let ways = vec![
            (format!("send, {} KiB", len >> 10), Send::Copy),
            (format!("SEND_ZC, {} KiB", len >> 10), Send::ZeroCopy),
            (format!("sendfile, {} KiB", len >> 10), Send::Sendfile),
            (format!("splice through a pipe, {} KiB", len >> 10), Send::Splice),
        ];
        alternate(ways, |means| repeat(scene.span, || sender.send(server.as_raw_fd(), *means, len)));
        drop(server);
        reader.join().unwrap();
    }
}

/// How much later than its result the notification of a zero-copy send comes, when the reader is slow.
pub fn late_completion(scene: &Scene) {
    const LEN: usize = 64 << 10;
    println!("{:<28} {:>14} {:>18} {:>8}", "reader", "result p50 us", "notification p50 us", "copied");
    for pause in [Duration::ZERO, Duration::from_millis(2)] {
        let mut sender = Sender::new(scene, LEN);
        let (server, mut client) = pair();
        let reader = std::thread::spawn(move || {
            let mut buffer = vec![0; LEN];
            while client.read_exact(&mut buffer[..1]).is_ok() {
                std::thread::sleep(pause);
                client.read_exact(&mut buffer[1..]).unwrap();
            }
        });
        let (mut results, mut notified, mut copied, mut all) = (Vec::new(), Vec::new(), 0, 0);
        let used = cpu();
        repeat(scene.span, || {
            let (result, notification, copy) =
                zero_copy(&mut sender.ring, &sender.memory, server.as_raw_fd(), LEN);
            results.push(result);
            notified.push(notification);
            copied += u32::from(copy);
            all += 1;
        });
        results.sort_unstable();
        notified.sort_unstable();
        println!(
            "{:<28} {:>14.1} {:>18.1} {:>8} CPU {:?}",
            format!("pauses {pause:?} each 64 KiB"),
            results[results.len() / 2].as_secs_f64() * 1e6,
            notified[notified.len() / 2].as_secs_f64() * 1e6,
            format!("{copied}/{all}"),
            cpu() - used
        );
        drop(server);
        reader.join().unwrap();
    }
}

/// A listener that shares its address with others.
fn shared_listener(port: u16) -> TcpListener {
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
    // SAFETY: the option and the address are ours and of the lengths given; a new descriptor, checked.
    unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        assert!(fd >= 0);
        let one = 1_i32;
        let set = libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, (&raw const one).cast(), 4);
        assert_eq!(set, 0);
        let mut name: libc::sockaddr_in = std::mem::zeroed();
        name.sin_family = libc::AF_INET as u16;
        name.sin_port = address.port().to_be();
        name.sin_addr.s_addr = u32::from(*address.ip()).to_be();
        let len = size_of::<libc::sockaddr_in>() as u32;
        assert_eq!(libc::bind(fd, (&raw const name).cast(), len), 0, "{}", std::io::Error::last_os_error());
        assert_eq!(libc::listen(fd, 256), 0);
        TcpListener::from_raw_fd(fd)
    }
}

/// How many of N connections the fullest of two or four listeners on one port gets.
pub fn spread(_: &Scene) {
    const TRIALS: usize = 40;
    println!(
        "{:>9} {:>12} {:>6} {:>22} {:>10}",
        "listeners", "connections", "even", "fullest: median", "worst"
    );
    for listeners in [2, 4] {
        for connections in [4, 8, 32, 128] {
            let mut fullest: Vec<usize> = (0..TRIALS)
                .map(|_| {
                    let first = shared_listener(0);
                    let port = first.local_addr().unwrap().port();
                    let mut all = vec![first];
                    all.extend((1..listeners).map(|_| shared_listener(port)));
                    let clients: Vec<_> =
                        (0..connections).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
                    all.iter().for_each(|one| one.set_nonblocking(true).unwrap());
                    let counts: Vec<usize> =
                        all.iter().map(|one| std::iter::from_fn(|| one.accept().ok()).count()).collect();
                    assert_eq!(counts.iter().sum::<usize>(), clients.len());
                    counts.into_iter().max().unwrap()
                })
                .collect();
            fullest.sort_unstable();
            println!(
                "{listeners:>9} {connections:>12} {:>6} {:>22} {:>10}",
                connections / listeners,
                fullest[TRIALS / 2],
                fullest[TRIALS - 1]
            );
        }
    }
}
