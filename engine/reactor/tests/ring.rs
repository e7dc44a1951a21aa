//! The ring against the real kernel: every script runs with all features and with each one switched off.
#![allow(clippy::unwrap_used)]

use ringmill_reactor::ring::{RingBackend, RingFeatures, RingOptions, listen};
use ringmill_reactor::{
    Backend, Buf, Completion, Errno, FileHandle, Flush, Op, OpenMode, Payload, SocketId, Token,
};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

const LISTENER: Token = Token(1);
const WAIT_NS: u64 = 20_000_000_000;
const PAGE: usize = 4096;

/// A ring with what these tests do to it again and again.
struct Rig {
    io: RingBackend,
    name: String,
}

/// Runs a script once with everything and once without each feature.
fn check(script: impl Fn(&mut Rig)) {
    let names = RingFeatures::ALL.list().map(|(name, _)| Some(name));
    for off in std::iter::once(None).chain(names) {
        let mut rig = rig(off, 64 << 20);
        script(&mut rig);
    }
}

fn rig(off: Option<&'static str>, pool_limit_bytes: u64) -> Rig {
    let mut features = RingFeatures::ALL;
    if let Some(off) = off {
        assert!(features.switch_off(off));
    }
    let io = RingBackend::new(RingOptions { pool_limit_bytes, features }).expect("io_uring works here");
    if let Some(off) = off {
        assert!(io.features().list().contains(&(off, false)), "{off} stays off");
    }
    Rig { io, name: off.map_or("everything on".into(), |off| format!("without {off}")) }
}

impl Rig {
    /// The next completion, whatever it is.
    fn next(&mut self) -> Completion {
        let deadline = self.io.now_ns() + WAIT_NS;
        loop {
            if let Some(completion) = self.io.pop() {
                return completion;
            }
            assert!(self.io.now_ns() < deadline, "{}: nothing completed", self.name);
            self.io.enter(Some(deadline));
        }
    }

    /// The next completion, which must be of `token`.
    fn expect(&mut self, token: Token) -> Completion {
        let completion = self.next();
        assert_eq!(completion.token, token, "{}", self.name);
        completion
    }

    /// Nothing completes now, although completed work is looked for several times.
    fn expect_quiet(&mut self) {
        for _ in 0..3 {
            self.io.enter(Some(0));
            if let Some(completion) = self.io.pop() {
                panic!("{}: {:?} completed with {:?}", self.name, completion.token, completion.result);
            }
        }
    }

    fn listen(&mut self) -> (SocketId, SocketAddr) {
        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0)), 128).unwrap();
        let address = listener.local_addr().unwrap();
        (self.io.add_listener(listener), address)
    }

    /// A connection: its socket here, the peer as the standard library has it.
    fn pair(&mut self) -> (SocketId, TcpStream) {
        let (listener, address) = self.listen();
        self.io.push(Op::Accept { listener }, LISTENER);
        self.io.enter(Some(0));
        let peer = TcpStream::connect(address).unwrap();
        peer.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
        let accepted = self.expect(LISTENER);
        let Payload::Accepted { socket, peer: from } = accepted.payload else { panic!("a socket") };
        assert_eq!(from, peer.local_addr().unwrap());
        self.io.push(Op::Close { socket: listener }, Token(2));
        // The accept may end with a completion of its own before that of the close.
        while self.next().token != Token(2) {}
        (socket, peer)
    }

    fn temporary(&self, folder: &Path, mode: OpenMode) -> FileHandle {
        self.io.fs().open(&folder.join("file"), mode).unwrap()
    }

    fn bytes(&self, seed: u8, len: usize) -> Buf {
        let mut buf = self.io.pool().take(len).expect("room in the pool");
        buf.set_len(len);
        buf.as_mut_full().iter_mut().enumerate().for_each(|(i, b)| *b = seed.wrapping_add((i % 251) as u8));
        buf.freeze()
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 253) as u8).collect()
}

fn received(completion: &Completion) -> &[u8] {
    match &completion.payload {
        Payload::Received(bytes) => bytes,
        _ => panic!("received bytes"),
    }
}

#[test]
fn echo() {
    check(|rig| {
        let (socket, mut peer) = rig.pair();
        for round in 0..600u32 {
            // More rounds than provided buffers: they come back.
            let said = round.to_be_bytes();
            peer.write_all(&said).unwrap();
            rig.io.push(Op::Recv { socket }, Token(7));
            let got = rig.expect(Token(7));
            assert_eq!(received(&got), said);
            let parts = vec![Buf::from_vec(said.to_vec()), Buf::from_vec(b"ok".to_vec())];
            drop(got);
            rig.io.push(Op::Send { socket, parts, zero_copy: false }, Token(8));
            assert_eq!(rig.expect(Token(8)).result, Ok(6));
            let mut answer = [0; 6];
            peer.read_exact(&mut answer).unwrap();
            assert_eq!(answer[..4], said);
        }
        drop(peer);
        rig.io.push(Op::Recv { socket }, Token(9));
        assert_eq!(rig.expect(Token(9)).result, Ok(0), "end of stream");
        assert_eq!(rig.io.in_flight(), 0);
    });
}

#[test]
fn a_mebibyte_both_ways() {
    check(|rig| {
        const LEN: usize = 1 << 20;
        let (socket, mut peer) = rig.pair();
        let sent = pattern(LEN + 100);
        let writer = std::thread::spawn({
            let (sent, mut peer) = (sent.clone(), peer.try_clone().unwrap());
            move || sent.chunks(7_001).for_each(|chunk| peer.write_all(chunk).unwrap())
        });
        let mut buf = rig.io.pool().take(LEN + 100).unwrap();
        buf.extend(b"head");
        rig.io.push(Op::RecvInto { socket, buf, fill_to: LEN + 4 }, Token(3));
        let got = rig.expect(Token(3));
        let Payload::BufMut(buf) = got.payload else { panic!("the buffer comes back") };
        assert_eq!(got.result, Ok(LEN as u32));
        assert_eq!(&buf[..4], b"head");
        assert!(buf[4..] == sent[..LEN], "{}: the bytes as they were sent", rig.name);
        writer.join().unwrap();
        let whole = buf.freeze();
        for zero_copy in [false, true] {
            let reader = std::thread::spawn({
                let mut peer = peer.try_clone().unwrap();
                move || {
                    let mut back = vec![0; LEN];
                    peer.read_exact(&mut back).unwrap();
                    back
                }
            });
            let parts = vec![whole.slice(4, 5_000), whole.slice(5_000, LEN + 4)];
            rig.io.push(Op::Send { socket, parts, zero_copy }, Token(4));
            assert_eq!(rig.expect(Token(4)).result, Ok(LEN as u32));
            assert!(reader.join().unwrap() == sent[..LEN], "{}: the bytes as they were received", rig.name);
        }
        rig.io.push(Op::Recv { socket }, Token(5));
        let rest = rig.expect(Token(5));
        assert_eq!(received(&rest), &sent[LEN..]);
        peer.flush().unwrap();
    });
}

/// More parts than one `sendmsg` takes (`IOV_MAX`, 1,024).
#[test]
fn a_send_of_many_parts() {
    check(|rig| {
        let (socket, mut peer) = rig.pair();
        for zero_copy in [false, true] {
            let parts: Vec<Buf> = (0..3_000u32).map(|i| Buf::from_vec(i.to_be_bytes().to_vec())).collect();
            rig.io.push(Op::Send { socket, parts, zero_copy }, Token(4));
            assert_eq!(rig.expect(Token(4)).result, Ok(12_000), "{}", rig.name);
            let mut back = vec![0; 12_000];
            peer.read_exact(&mut back).unwrap();
            for (i, number) in back.as_chunks::<4>().0.iter().enumerate() {
                assert_eq!(u32::from_be_bytes(*number), i as u32);
            }
        }
    });
}

#[test]
fn a_short_end_of_stream_ends_a_fill() {
    check(|rig| {
        let (socket, mut peer) = rig.pair();
        peer.write_all(b"half").unwrap();
        drop(peer);
        let buf = rig.io.pool().take(100).unwrap();
        rig.io.push(Op::RecvInto { socket, buf, fill_to: 100 }, Token(3));
        let got = rig.expect(Token(3));
        assert_eq!(got.result, Ok(4));
        let Payload::BufMut(buf) = got.payload else { panic!("the buffer comes back") };
        assert_eq!(&buf[..], b"half");
    });
}

/// All operations on a socket complete, each once, before its close does.
#[test]
fn close_completes_last() {
    check(|rig| {
        let (socket, peer) = rig.pair();
        let buf = rig.io.pool().take(PAGE).unwrap();
        rig.io.push(Op::Recv { socket }, Token(3));
        rig.expect_quiet();
        rig.io.push(Op::Close { socket }, Token(9));
        let first = rig.next();
        assert_eq!(first.token, Token(3), "{}: what was outstanding ends first", rig.name);
        assert!(matches!(first.result, Ok(0) | Err(Errno::CANCELED)), "{:?}", first.result);
        assert_eq!(rig.expect(Token(9)).result, Ok(0));
        rig.expect_quiet();
        rig.io.push(Op::RecvInto { socket, buf, fill_to: 1 }, Token(4));
        let late = rig.expect(Token(4));
        assert_eq!(late.result, Err(Errno::CANCELED), "a closed socket takes nothing");
        assert!(matches!(late.payload, Payload::BufMut(_)), "and the buffer comes back");
        let mut rest = Vec::new();
        let mut peer = peer;
        assert_eq!(peer.read_to_end(&mut rest).unwrap(), 0, "the peer sees the end");
        assert_eq!(rig.io.in_flight(), 0);
    });
}

/// A closed listener ends its accept with an error, so that its owner knows.
#[test]
fn closing_a_listener_ends_its_accept() {
    check(|rig| {
        let (listener, address) = rig.listen();
        rig.io.push(Op::Accept { listener }, LISTENER);
        rig.expect_quiet();
        rig.io.push(Op::Close { socket: listener }, Token(9));
        let end = rig.expect(LISTENER);
        assert!(end.result.is_err(), "{}", rig.name);
        assert!(!end.more, "{}", rig.name);
        assert_eq!(rig.expect(Token(9)).result, Ok(0));
        assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
        assert_eq!(rig.io.in_flight(), 0);
    });
}

/// More sockets with data than provided buffers, all in one turn: none is lost, none is mixed up.
#[test]
fn more_receives_than_provided_buffers() {
    check(|rig| {
        const CONNS: u64 = 400;
        let (listener, address) = rig.listen();
        let mut peers = Vec::new();
        let mut sockets = Vec::new();
        rig.io.push(Op::Accept { listener }, LISTENER);
        for i in 0..CONNS {
            let mut peer = TcpStream::connect(address).unwrap();
            peer.write_all(&i.to_be_bytes()).unwrap();
            peers.push(peer);
            let accepted = rig.expect(LISTENER);
            if !accepted.more {
                rig.io.push(Op::Accept { listener }, LISTENER);
            }
            let Payload::Accepted { socket, .. } = accepted.payload else { panic!("a socket") };
            sockets.push(socket);
        }
        for (i, socket) in sockets.iter().enumerate() {
            rig.io.push(Op::Recv { socket: *socket }, Token(1_000 + i as u64));
        }
        let mut seen = vec![false; CONNS as usize];
        let mut held = Vec::new();
        for _ in 0..CONNS {
            // Drained turn by turn, each turn's buffers kept until its end, as a core does.
            let completion = match rig.io.pop() {
                Some(completion) => completion,
                None => {
                    held.clear();
                    rig.next()
                }
            };
            let i = completion.token.0 - 1_000;
            assert_eq!(received(&completion), i.to_be_bytes(), "{}", rig.name);
            assert!(!std::mem::replace(&mut seen[i as usize], true));
            held.push(completion);
        }
    });
}

/// A receive that waits for a provided buffer keeps its socket: closing it does not hand its number to the next
/// connection while the receive could still run.
#[test]
fn a_starved_receive_ends_with_its_socket() {
    let mut rig = rig(None, 64 << 20);
    let (listener, address) = rig.listen();
    rig.io.push(Op::Accept { listener }, LISTENER);
    let mut peers = Vec::new();
    let mut sockets = Vec::new();
    let mut connect = |rig: &mut Rig| {
        let mut peer = TcpStream::connect(address).unwrap();
        peer.write_all(b"data").unwrap();
        peers.push(peer);
        match rig.expect(LISTENER).payload {
            Payload::Accepted { socket, .. } => socket,
            _ => panic!("a socket"),
        }
    };
    for _ in 0..300 {
        sockets.push(connect(&mut rig));
    }
    for (i, socket) in sockets.iter().enumerate() {
        rig.io.push(Op::Recv { socket: *socket }, Token(1_000 + i as u64));
    }
    let mut held = Vec::new();
    let mut waiting: std::collections::BTreeSet<u64> = (0..300).collect();
    for _ in 0..10 {
        rig.io.enter(Some(0));
        while let Some(completion) = rig.io.pop() {
            waiting.remove(&(completion.token.0 - 1_000));
            held.push(completion);
        }
    }
    let starved = *waiting.first().expect("fewer buffers than sockets");
    assert_eq!(rig.io.in_flight(), waiting.len() + 1, "a starved receive is in flight, like the accept");
    rig.io.push(Op::Close { socket: sockets[starved as usize] }, Token(9));
    let mut ended = Vec::new();
    while ended.last() != Some(&9) {
        ended.push(rig.next().token.0);
    }
    assert_eq!(ended, [1_000 + starved, 9], "the receive ends, then the close");
    let next = connect(&mut rig);
    held.clear();
    for _ in 0..waiting.len() - 1 {
        let completion = rig.next();
        assert!(waiting.contains(&(completion.token.0 - 1_000)));
        assert_eq!(received(&completion), b"data");
    }
    rig.io.push(Op::Recv { socket: next }, Token(7));
    assert_eq!(received(&rig.expect(Token(7))), b"data", "the new connection's bytes are its own");
}

#[test]
fn writes_are_on_disk_as_given() {
    check(|rig| {
        let folder = tempfile::tempdir().unwrap();
        for (at, flush) in [Flush::Linked, Flush::Dsync, Flush::None].into_iter().enumerate() {
            let file = rig.temporary(folder.path(), OpenMode::CreateDirect);
            let id = rig.io.attach_file(file.clone());
            let first = rig.bytes(at as u8, 1 << 20);
            let second = rig.bytes(at as u8 + 10, PAGE);
            rig.io.push(Op::Write { file: id, buf: first.clone(), offset: 0, flush }, Token(1));
            assert_eq!(rig.expect(Token(1)).result, Ok(1 << 20), "{} {flush:?}", rig.name);
            let offset = 1 << 20;
            rig.io.push(Op::Write { file: id, buf: second.slice(0, PAGE), offset, flush }, Token(2));
            assert_eq!(rig.expect(Token(2)).result, Ok(PAGE as u32));
            rig.io.push(Op::Sync { file: id }, Token(3));
            assert_eq!(rig.expect(Token(3)).result, Ok(0));
            let stored = rig.io.fs().read_all(&folder.path().join("file")).unwrap();
            assert!(stored[..1 << 20] == first[..]);
            assert!(stored[1 << 20..] == second[..]);
            let buf = rig.io.pool().take((1 << 20) + 2 * PAGE).unwrap();
            let (offset, len) = (PAGE as u64, (1 << 20) + PAGE);
            rig.io.push(Op::Read { file: id, buf, offset, len }, Token(4));
            let read = rig.expect(Token(4));
            assert_eq!(read.result, Ok(1 << 20), "up to the end of the file");
            let Payload::BufMut(buf) = read.payload else { panic!("the buffer comes back") };
            assert!(buf[..] == stored[PAGE..]);
            rig.io.detach_file(id);
        }
        assert_eq!(rig.io.in_flight(), 0);
    });
}

/// The flush of a write that failed does not count: one completion, an error, whatever the flush says.
#[test]
fn a_failed_write_is_one_failed_completion() {
    check(|rig| {
        let folder = tempfile::tempdir().unwrap();
        rig.temporary(folder.path(), OpenMode::Create);
        for flush in [Flush::Linked, Flush::Dsync, Flush::None] {
            let read_only = rig.io.attach_file(rig.temporary(folder.path(), OpenMode::Read));
            let buf = rig.bytes(1, PAGE);
            rig.io.push(Op::Write { file: read_only, buf, offset: 0, flush }, Token(1));
            assert_eq!(rig.expect(Token(1)).result, Err(Errno(9)), "EBADF, not the flush's ECANCELED");
            rig.expect_quiet();
            rig.io.detach_file(read_only);
        }
        assert_eq!(rig.io.in_flight(), 0);
    });
}

/// More linked pairs in a turn than the submission queue holds: no pair is torn apart.
#[test]
fn a_burst_of_linked_writes() {
    check(|rig| {
        let folder = tempfile::tempdir().unwrap();
        let id = rig.io.attach_file(rig.temporary(folder.path(), OpenMode::CreateDirect));
        let page = rig.bytes(3, PAGE);
        const WRITES: u64 = 1_500;
        rig.io.push(Op::Sync { file: id }, Token(9_999));
        for i in 0..WRITES {
            let offset = i * PAGE as u64;
            rig.io.push(Op::Write { file: id, buf: page.clone(), offset, flush: Flush::Linked }, Token(i));
        }
        let mut seen = vec![0; WRITES as usize];
        for _ in 0..=WRITES {
            let done = rig.next();
            if done.token == Token(9_999) {
                assert_eq!(done.result, Ok(0));
            } else {
                assert_eq!(done.result, Ok(PAGE as u32), "{}", rig.name);
                seen[done.token.0 as usize] += 1;
            }
        }
        assert!(seen.iter().all(|count| *count == 1));
        let stored = rig.io.fs().read_all(&folder.path().join("file")).unwrap();
        assert_eq!(stored.len() as u64, WRITES * PAGE as u64);
        assert!(stored.chunks(PAGE).all(|stored| *stored == page[..]));
    });
}

/// A file may be detached as soon as its operations were pushed.
#[test]
fn a_detached_file_finishes_its_operations() {
    check(|rig| {
        let folder = tempfile::tempdir().unwrap();
        let id = rig.io.attach_file(rig.temporary(folder.path(), OpenMode::CreateDirect));
        let page = rig.bytes(5, PAGE);
        rig.io.push(Op::Write { file: id, buf: page.clone(), offset: 0, flush: Flush::Linked }, Token(1));
        rig.io.detach_file(id);
        // Whatever opens next would get the descriptor's number.
        let _other = rig.io.fs().open(&folder.path().join("other"), OpenMode::Create).unwrap();
        assert_eq!(rig.expect(Token(1)).result, Ok(PAGE as u32));
        assert!(rig.io.fs().read_all(&folder.path().join("file")).unwrap() == page[..]);
        rig.io.push(Op::Sync { file: id }, Token(2));
        assert!(rig.expect(Token(2)).result.is_err(), "a detached file takes nothing");
    });
}

#[test]
fn jobs_answer_by_completion() {
    check(|rig| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("made");
        rig.io.push(
            Op::Run {
                job: Box::new({
                    let path = path.clone();
                    move |fs| Box::new(fs.replace(&path, b"by a job").map(|()| 42u32))
                }),
            },
            Token(6),
        );
        assert_eq!(rig.io.in_flight(), 1);
        let done = rig.expect(Token(6));
        let Payload::Job(output) = done.payload else { panic!("a job's output") };
        let answer = output.downcast::<std::io::Result<u32>>().expect("the type the job returned");
        assert_eq!(answer.unwrap(), 42);
        assert_eq!(rig.io.fs().read_all(&path).unwrap(), b"by a job");
        assert_eq!(rig.io.in_flight(), 0);
    });
}

fn resident_pages(buf: &[u8]) -> usize {
    let mut pages = vec![0u8; buf.len() / PAGE];
    // SAFETY: asks about memory that the slice borrows, and writes one byte a page into the vector.
    let result =
        unsafe { libc::mincore(buf.as_ptr().cast_mut().cast(), buf.len(), pages.as_mut_ptr().cast()) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    pages.iter().filter(|page| **page & 1 == 1).count()
}

/// The chunk after the one in use is there, with its pages, before it is asked for; never beyond the limit.
#[test]
fn the_next_large_region_is_populated_ahead() {
    const CHUNK: usize = 4 << 20;
    let mut rig = rig(None, 2 * CHUNK as u64);
    let first = rig.io.pool().take(CHUNK).unwrap();
    let deadline = rig.io.now_ns() + WAIT_NS;
    while rig.io.pool().clone().stats().mapped_bytes < 2 * CHUNK as u64 || rig.io.jobs_out() > 0 {
        assert!(rig.io.now_ns() < deadline, "no second chunk came");
        rig.io.enter(Some(deadline));
        assert!(rig.io.pop().is_none(), "nobody is told");
        assert_eq!(rig.io.in_flight(), 0, "it is no operation of the caller's");
    }
    let mut second = rig.io.pool().take(CHUNK).unwrap();
    assert_eq!(rig.io.pool().stats().mapped_bytes, 2 * CHUNK as u64, "the one that was made ready");
    assert_eq!(resident_pages(second.as_mut_full()), CHUNK / PAGE);
    rig.io.enter(Some(0));
    assert_eq!(rig.io.jobs_out(), 0, "a third does not fit");
    drop((first, second));
}

/// Another thread's wake always ends an `enter`, however the two meet. A lost one shows as the deadline.
#[test]
fn wakes_from_another_thread() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    check(|rig| {
        const ROUNDS: u64 = 5_000;
        let (sent, seen) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let waker = rig.io.waker();
        let other = std::thread::spawn({
            let (sent, seen) = (sent.clone(), seen.clone());
            move || {
                for round in 1..=ROUNDS {
                    sent.store(round, Ordering::SeqCst);
                    waker.wake();
                    while seen.load(Ordering::SeqCst) < round {
                        std::hint::spin_loop();
                        std::thread::yield_now();
                    }
                }
            }
        });
        let deadline = rig.io.now_ns() + 60_000_000_000;
        loop {
            let now = sent.load(Ordering::SeqCst);
            seen.store(now, Ordering::SeqCst);
            if now == ROUNDS {
                break;
            }
            assert!(rig.io.now_ns() < deadline, "{}: a wake-up was lost", rig.name);
            rig.io.enter(Some(deadline));
        }
        other.join().unwrap();
    });
}

#[test]
fn a_deadline_ends_a_wait() {
    check(|rig| {
        rig.io.enter(Some(0));
        let until = rig.io.now_ns() + 20_000_000;
        while rig.io.now_ns() < until {
            rig.io.enter(Some(until));
        }
        assert!(rig.io.pop().is_none());
        // One wait, not a spin: this thread used next to no CPU. Asked of the clock that counts only this thread.
        let before = ringmill_reactor::thread::thread_cpu_ns();
        let until = rig.io.now_ns() + 200_000_000;
        while rig.io.now_ns() < until {
            rig.io.enter(Some(until));
        }
        let used = ringmill_reactor::thread::thread_cpu_ns() - before;
        assert!(used < 20_000_000, "{}: {used} ns of CPU for an idle wait of 200 ms", rig.name);
    });
}

#[test]
fn a_socket_moves_to_another_ring() {
    check(|rig| {
        let (socket, mut peer) = rig.pair();
        rig.io.push(Op::Recv { socket }, Token(3));
        rig.expect_quiet();
        assert!(rig.io.release_socket(socket).is_none(), "not with a receive outstanding");
        peer.write_all(b"one").unwrap();
        assert_eq!(received(&rig.expect(Token(3))), b"one");
        let moved = rig.io.release_socket(socket).expect("nothing is outstanding");
        peer.write_all(b"two").unwrap();
        let got = std::thread::spawn(move || {
            let mut other = crate::rig(None, 1 << 20);
            let socket = other.io.adopt_socket(moved);
            other.io.push(Op::Recv { socket }, Token(4));
            let got = other.expect(Token(4));
            received(&got).to_vec()
        });
        assert_eq!(got.join().unwrap(), b"two");
    });
}

/// Dropped with everything under way: nothing hangs, nothing is written to afterwards, the memory comes back.
#[test]
fn dropped_with_operations_under_way() {
    check(|rig| {
        let folder = tempfile::tempdir().unwrap();
        let mut other = crate::rig(None, 64 << 20);
        let (socket, mut peer) = other.pair();
        let (listener, _) = other.listen();
        let pool = other.io.pool().clone();
        let file = other.io.attach_file(other.temporary(folder.path(), OpenMode::CreateDirect));
        other.io.push(Op::Accept { listener }, LISTENER);
        let buf = pool.take(1 << 20).unwrap();
        other.io.push(Op::RecvInto { socket, buf, fill_to: 1 << 20 }, Token(1));
        let parts = (0..64).map(|i| other.bytes(i, 1 << 18)).collect();
        other.io.push(Op::Send { socket, parts, zero_copy: false }, Token(2));
        let buf = other.bytes(1, 1 << 20);
        other.io.push(Op::Write { file, buf, offset: 0, flush: Flush::Linked }, Token(3));
        other.io.enter(Some(0));
        drop(other);
        assert_eq!(pool.stats().used_bytes, 0, "{}: every buffer came back", rig.name);
        let mut sink = Vec::new();
        // The send was cut off; what arrived is a prefix, and the connection is closed.
        let _ = peer.read_to_end(&mut sink);
    });
}
