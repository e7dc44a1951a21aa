use crate::Rig;
use ringmill_reactor::sim::{Cut, ListenerId, SimConn, SimOptions};
use ringmill_reactor::{Backend, Errno, Op, Payload, SocketId, Token};

const ACCEPT: u64 = 100;
const RECV: u64 = 101;
const SEND: u64 = 102;
const CLOSE: u64 = 103;

fn numbered(count: usize) -> Vec<u8> {
    (0..count as u32).flat_map(|n| n.to_be_bytes()).collect()
}

/// A core that accepts.
struct Server {
    rig: Rig,
    listener: ListenerId,
}

impl Server {
    fn new(seed: u64) -> Server {
        let mut rig = Rig::new(seed, SimOptions { segment_bytes_max: 700, ..SimOptions::default() });
        let (socket, listener) = rig.io.listen();
        rig.push(ACCEPT, Op::Accept { listener: socket });
        rig.io.enter(None);
        Server { rig, listener }
    }

    /// A client, and the end of it that the core has.
    fn connected(&mut self) -> (SimConn, SocketId) {
        let client = self.rig.world.connect(self.listener);
        (client, self.accepted())
    }

    fn accepted(&mut self) -> SocketId {
        let completion = self.rig.next().expect("somebody comes");
        let Payload::Accepted { socket, .. } = completion.payload else { panic!("{:?}", completion.token) };
        assert!(completion.more, "accepting goes on");
        socket
    }

    /// What one receive gives.
    fn receive(&mut self, socket: SocketId) -> Result<Vec<u8>, Errno> {
        self.rig.push(RECV, Op::Recv { socket });
        let completion = self.rig.next().expect("something arrives");
        assert_eq!(completion.token, Token(RECV));
        completion.result.map(|got| match completion.payload {
            Payload::Received(bytes) => {
                assert_eq!(bytes.len(), got as usize);
                bytes.to_vec()
            }
            _ => panic!("a receive gives bytes"),
        })
    }

    fn send(&mut self, socket: SocketId, parts: &[&[u8]]) {
        let parts = parts.iter().map(|part| self.rig.buf(part)).collect();
        self.rig.push(SEND, Op::Send { socket, parts, zero_copy: false });
        self.rig.io.enter(None);
    }

    /// Lets everything happen that will, with nobody taking completions.
    fn settle(&mut self) {
        self.rig.io.enter(None);
        while self.rig.world.advance(self.rig.world.now_ns() + 1_000_000_000) {}
    }
}

#[test]
fn bytes_arrive_in_the_order_in_which_they_were_sent() {
    let sent = numbered(8_000);
    let mut sizes = Vec::new();
    for seed in 0..20 {
        let mut server = Server::new(seed);
        let (client, socket) = server.connected();
        for piece in sent.chunks(1 + seed as usize * 997) {
            client.send(piece);
        }
        client.close();
        let mut got = Vec::new();
        let mut pieces = 0;
        loop {
            let bytes = server.receive(socket).unwrap();
            if bytes.is_empty() {
                break;
            }
            pieces += 1;
            got.extend(bytes);
        }
        assert_eq!(got, sent, "seed {seed}: whole, in order, and then the end");
        assert!(pieces > 1, "not in one piece");
        sizes.push(pieces);
        // Half-closed: the answer still goes out, in the order of its parts.
        server.send(socket, &[&sent[..1_000], &sent[1_000..1_001], &sent[1_001..]]);
        assert_eq!(server.rig.next().unwrap().result, Ok(sent.len() as u32));
        server.settle();
        assert_eq!(client.recv(), sent, "seed {seed}");
        assert!(!client.is_over(), "the core has not closed");
    }
    assert!(sizes.iter().any(|n| *n != sizes[0]), "the seed decides where bytes are cut");
}

/// A client that does not read holds up its own sender, up to the window.
#[test]
fn a_send_ends_when_the_window_has_taken_all_of_it() {
    let mut server = Server::new(3);
    let (client, socket) = server.connected();
    let sent = numbered(40_000);
    server.send(socket, &[&sent]);
    server.settle();
    assert!(server.rig.io.pop().is_none(), "more than the window is under way");
    let window = SimOptions::default().window_bytes;
    let first = client.recv();
    assert_eq!(first, sent[..window]);
    server.settle();
    let mut got = first;
    while got.len() < sent.len() {
        let more = client.recv();
        assert!(!more.is_empty() && more.len() <= window);
        got.extend(more);
        server.settle();
    }
    assert_eq!(got, sent);
    assert_eq!(server.rig.next().unwrap().result, Ok(sent.len() as u32));
}

#[test]
fn a_receive_into_takes_its_bytes_and_leaves_the_rest() {
    for seed in 0..20 {
        let mut server = Server::new(seed);
        let (client, socket) = server.connected();
        let sent = numbered(2_000);
        client.send(&sent);
        let mut buf = server.rig.io.pool().take(4_096).unwrap();
        buf.extend(b"head");
        server.rig.push(RECV, Op::RecvInto { socket, buf, fill_to: 3_001 });
        let completion = server.rig.next().unwrap();
        assert_eq!(completion.result, Ok(2_997));
        let Payload::BufMut(buf) = completion.payload else { panic!("the buffer comes back") };
        assert_eq!(buf[..4], *b"head");
        assert_eq!(buf[4..], sent[..2_997]);
        let mut rest = Vec::new();
        while rest.len() < sent.len() - 2_997 {
            rest.extend(server.receive(socket).unwrap());
        }
        assert_eq!(rest, sent[2_997..], "seed {seed}");
    }
}

#[test]
fn a_reset_is_seen_by_the_other_side_whatever_it_waits_for() {
    for seed in 0..20 {
        let mut server = Server::new(seed);
        let (client, socket) = server.connected();
        server.rig.push(RECV, Op::Recv { socket });
        server.send(socket, &[&numbered(40_000)]);
        client.reset();
        let ends = [server.rig.next().unwrap(), server.rig.next().unwrap()];
        assert!(ends.iter().all(|c| c.result == Err(Errno::CONNECTION_RESET)), "seed {seed}");
        let mut tokens = ends.map(|c| c.token.0);
        tokens.sort_unstable();
        assert_eq!(tokens, [RECV, SEND]);
        server.send(socket, &[b"late"]);
        assert_eq!(server.rig.next().unwrap().result, Err(Errno::CONNECTION_RESET));
        assert!(client.is_over());
    }
}

#[test]
fn what_a_core_sent_before_it_closed_is_read_first() {
    for seed in 0..20 {
        let mut server = Server::new(seed);
        let (client, socket) = server.connected();
        let sent = numbered(1_000);
        server.send(socket, &[&sent]);
        assert_eq!(server.rig.next().unwrap().token, Token(SEND));
        server.rig.push(RECV, Op::Recv { socket });
        server.rig.push(CLOSE, Op::Close { socket });
        let ends = [server.rig.next().unwrap(), server.rig.next().unwrap()];
        for end in ends {
            let expected = if end.token == Token(CLOSE) { Ok(0) } else { Err(Errno::CANCELED) };
            assert_eq!(end.result, expected, "{:?}", end.token);
        }
        server.settle();
        assert!(!client.is_over(), "there is something to read");
        assert_eq!(client.recv(), sent);
        assert!(client.is_over(), "seed {seed}");
    }
}

#[test]
fn bytes_for_a_closed_end_are_answered_with_a_reset() {
    let mut server = Server::new(5);
    let (client, socket) = server.connected();
    server.send(socket, &[b"the last answer"]);
    server.rig.push(CLOSE, Op::Close { socket });
    server.settle();
    assert!(!client.is_over(), "there is something to read");
    client.send(b"anybody?");
    server.settle();
    assert!(client.is_over(), "a reset does not wait for its reader");
}

#[test]
fn connections_wait_for_a_listener_and_are_refused_without_one() {
    let mut rig = Rig::new(7, SimOptions::default());
    let (socket, listener) = rig.io.listen();
    let early: Vec<SimConn> = (0..3).map(|_| rig.world.connect(listener)).collect();
    early.iter().zip(1..).for_each(|(client, n)| client.send(&[n]));
    let mut server = Server { rig, listener };
    server.settle();
    server.rig.push(ACCEPT, Op::Accept { listener: socket });
    let ends: Vec<SocketId> = (0..3).map(|_| server.accepted()).collect();
    let mut heard: Vec<u8> = ends.into_iter().map(|end| server.receive(end).unwrap()[0]).collect();
    heard.sort_unstable();
    assert_eq!(heard, [1, 2, 3]);

    server.rig.push(CLOSE, Op::Close { socket });
    let ends = [server.rig.next().unwrap(), server.rig.next().unwrap()];
    assert!(ends.iter().any(|c| c.token == Token(ACCEPT) && c.result == Err(Errno::CANCELED) && !c.more));
    let late = server.rig.world.connect(listener);
    server.settle();
    assert!(late.is_over(), "nobody listens");
    assert!(early.iter().all(|client| !client.is_over()));
}

#[test]
fn the_end_of_a_process_is_a_reset_for_its_clients() {
    for cut in [Cut::Process, Cut::Power] {
        let mut server = Server::new(11);
        let (client, socket) = server.connected();
        client.send(b"a request");
        server.send(socket, &[b"an answer on its way"]);
        server.rig = server.rig.cut(cut);
        assert!(client.is_over());
        assert_eq!(client.recv(), b"", "what was on its way is gone");
        let late = server.rig.world.connect(server.listener);
        server.settle();
        assert!(late.is_over(), "the listener went with its process");
    }
}
