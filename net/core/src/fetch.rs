//! Fetch: plan, read, wait, answer.
//!
//! A fetch that waits holds positions, not buffers. It is looked at again when one of its partitions advances, when
//! cold blocks arrive, or at its deadline; each look reads anew. Answers hold whole batches only.

use crate::closing::Closing;
use crate::conn::{AnswerState, FrameBytes};
use crate::core::Core;
use crate::limits::{ClientId, Limited};
use crate::metrics::ApiKind;
use crate::peer::{PeerMessage, RemoteRead, RemoteReadDone};
use crate::served::Served;
use crate::session::{Opened, PartKey};
use crate::slab::Key;
use crate::topics::TopicName;
use ringmill_log::{ReadError, ReadOutcome, ReadRequest, Slot};
use ringmill_reactor::{Backend, Buf};
use ringmill_types::{CoreId, ErrorCode, LeaderEpoch, Offset, PartitionId};
use ringmill_wire::fetch::{FetchPartitionAnswer, FetchRequest, FetchResponse, IsolationLevel, Piece};
use ringmill_wire::{ApiKey, RequestHeader, ResponseHead};
use std::collections::{BTreeSet, HashMap};

pub(crate) use crate::session::Sessions;

/// Largest answer: what a slow reader can pin. Clients ask again for the rest.
pub(crate) const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Answers with fewer record bytes than this go out as one copied piece: a copy is cheaper than more iovecs.
const COPY_BELOW_BYTES: u64 = 4096;

/// A fetch whose data is on its way from the disk is not answered empty at its deadline, but waits this much longer.
const COLD_GRACE_NS: u64 = 10_000_000_000;

/// Marks the tickets of reads for other cores.
const REMOTE_TICKET: u64 = 1 << 55;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Local(Slot),
    Remote(CoreId, PartitionId),
    /// There is no such topic or partition. As in Kafka, the others are waited for all the same.
    Unknown(ErrorCode),
    /// This core's, and its log is not there (any more): an error of the read, which nobody waits beside.
    Gone,
}

/// Record bytes that a partition may give at most. `None`: the client said a number below 0, for which Kafka has an error
/// in the place of records.
pub(crate) type SizeMax = Option<usize>;

/// One partition of a fetch, and what the last look at it gave.
struct FetchPart {
    key: PartKey,
    owner: Owner,
    offset: Offset,
    max_bytes: SizeMax,
    current_epoch: LeaderEpoch,
    read: PartRead,
}

/// What one look at one partition gave, on whatever core it lies.
pub(crate) struct PartRead {
    error: ErrorCode,
    high_watermark: Offset,
    log_start: Offset,
    bufs: Vec<Buf>,
    bytes: usize,
    /// What counts towards the least bytes that a client waits for: `bytes`, or all that was asked for where that is there.
    there: usize,
    /// Blocks are on their way from the disk.
    cold: bool,
}

/// One fetch request on its way.
pub(crate) struct FetchPending {
    conn: Key,
    slot: u64,
    head: ResponseHead,
    /// Who is charged for the answer, where somebody has quotas.
    client: Option<ClientId>,
    isolation: IsolationLevel,
    min_bytes: usize,
    max_bytes: usize,
    deadline_ns: u64,
    began_ns: u64,
    receive_us: u64,
    /// Since when it waits for records alone, with none on their way from disk or from other cores.
    polls_since_ns: Option<u64>,
    /// How long it did so before.
    polled_ns: u64,
    session_id: i32,
    /// Answers leave out partitions with nothing new.
    incremental: bool,
    parts: Vec<FetchPart>,
    /// Which look this is; answers of other cores to an earlier one are dropped.
    round: u32,
    remote_left: u32,
    watching: bool,
    watched_at: Vec<CoreId>,
    poked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watcher {
    Here(Key),
    There(CoreId, Key),
}

/// Who waits for which partition, and until when.
#[derive(Default)]
pub(crate) struct Waiters {
    by_slot: HashMap<Slot, Vec<Watcher>>,
    there: HashMap<(CoreId, Key), Vec<Slot>>,
    deadlines: BTreeSet<(u64, Key)>,
    /// Watchers on other cores to tell.
    told: Vec<(CoreId, Key)>,
    cold_there: Vec<Option<(CoreId, Key)>>,
}

impl Waiters {
    pub fn advanced(&mut self, slot: Slot, poke: &mut Vec<Key>) {
        let Some(watchers) = self.by_slot.get(&slot) else { return };
        for watcher in watchers {
            match *watcher {
                Watcher::Here(key) => poke.push(key),
                Watcher::There(core, key) => self.told.push((core, key)),
            }
        }
    }

    pub fn next_deadline_ns(&self) -> Option<u64> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    pub fn expired(&mut self, now_ns: u64, poke: &mut Vec<Key>) {
        while let Some((at, key)) = self.deadlines.first().copied() {
            if at > now_ns {
                break;
            }
            self.deadlines.pop_first();
            poke.push(key);
        }
    }

    fn watch(&mut self, watcher: Watcher, slots: impl Iterator<Item = Slot>) {
        let slots: Vec<Slot> = slots.collect();
        for slot in &slots {
            let list = self.by_slot.entry(*slot).or_default();
            if !list.contains(&watcher) {
                list.push(watcher);
            }
        }
        if let Watcher::There(core, key) = watcher {
            self.there.insert((core, key), slots);
        }
    }

    fn unwatch(&mut self, watcher: Watcher, slots: impl Iterator<Item = Slot>) {
        for slot in slots {
            if let Some(list) = self.by_slot.get_mut(&slot) {
                list.retain(|w| *w != watcher);
                if list.is_empty() {
                    self.by_slot.remove(&slot);
                }
            }
        }
    }

    pub fn unwatch_remote(&mut self, core: CoreId, key: Key) {
        let slots = self.there.remove(&(core, key)).unwrap_or_default();
        self.unwatch(Watcher::There(core, key), slots.into_iter());
    }

    fn cold_ticket(&mut self, core: CoreId, key: Key) -> u64 {
        let at = self.cold_there.iter().position(Option::is_none).unwrap_or_else(|| {
            self.cold_there.push(None);
            self.cold_there.len() - 1
        });
        if let Some(place) = self.cold_there.get_mut(at) {
            *place = Some((core, key));
        }
        REMOTE_TICKET | at as u64
    }
}

impl<B: Backend> Core<B> {
    pub(crate) fn handle_fetch(&mut self, key: Key, frame: FrameBytes) -> bool {
        let client = self.limits.fetching.take();
        let parsed = RequestHeader::parse(&frame).map_err(Closing::Header).and_then(|header| {
            let (api, version) = (header.api_key, header.api_version);
            let request = FetchRequest::parse(&header, &frame);
            Ok((header, request.map_err(|error| Closing::Request { api, version, error })?))
        });
        let (header, request) = match parsed {
            Ok(parsed) => parsed,
            Err(closing) => return self.refuse(key, ApiKind::Fetch, closing),
        };
        let opened = self.sessions.open(&request, self.now_ns);
        let (session_id, incremental, keys) = match opened {
            Opened::Full { session_id, parts } => (session_id, false, parts),
            Opened::Incremental { session_id, parts } => (session_id, true, parts),
            Opened::Refused(error) => {
                let Some(conn) = self.conns.get_mut(key) else { return false };
                let slot = conn.reserve();
                self.metrics.fetch.answered(0, true);
                let served = Served::at_once(header.api_key, conn.received_us);
                if let Ok(frame) = FetchResponse::begin(header.response_head(), 0, error, 0, 0).finish(&[]) {
                    self.answer(key, slot, AnswerState::Ready(vec![Buf::from_vec(frame.head)], served));
                }
                return true;
            }
        };
        let max_bytes = usize::try_from(request.max_bytes);
        let mut parts: Vec<_> = keys.into_iter().map(|(k, want)| self.fetch_part(k, want)).collect();
        if max_bytes.is_err() {
            parts.iter_mut().for_each(|part| part.max_bytes = None);
        }
        let allowed = client.as_ref().map_or(usize::MAX, |client| self.fetch_bytes_max(client));
        let max_bytes = max_bytes.unwrap_or(0).min(ANSWER_BYTES_MAX).min(allowed);
        let Some(conn) = self.conns.get_mut(key) else { return false };
        if session_id != 0 {
            conn.session = Some(session_id as u32);
        }
        let (slot, receive_us) = (conn.reserve(), conn.received_us);
        conn.barrier = true;
        let pending = FetchPending {
            conn: key,
            slot,
            head: header.response_head(),
            client,
            isolation: request.isolation,
            min_bytes: usize::try_from(request.min_bytes).unwrap_or(0).min(max_bytes),
            max_bytes,
            deadline_ns: self.now_ns + request.max_wait_ms.max(0) as u64 * 1_000_000,
            began_ns: self.now_ns,
            receive_us,
            polls_since_ns: None,
            polled_ns: 0,
            session_id,
            incremental,
            parts,
            round: 0,
            remote_left: 0,
            watching: false,
            watched_at: Vec::new(),
            poked: false,
        };
        let fetch = self.fetches.insert(|_| pending);
        if let Some(conn) = self.conns.get_mut(key) {
            conn.fetch = Some(fetch);
        }
        self.look(fetch);
        true
    }

    fn fetch_part(&self, key: PartKey, want: crate::session::Want) -> FetchPart {
        let (spec, missing) = match &key.topic {
            TopicName::Name(name) => (self.topics.named(name), ErrorCode::UnknownTopicOrPartition),
            TopicName::Id(id) => (self.topics.with_id(*id), ErrorCode::UnknownTopicId),
        };
        let found = spec.and_then(|s| s.partitions.get(usize::try_from(key.index).ok()?));
        let owner = match (spec, found) {
            (None, _) => Owner::Unknown(missing),
            (Some(_), None) => Owner::Unknown(ErrorCode::UnknownTopicOrPartition),
            (Some(_), Some(found)) if found.owner == self.settings.id => {
                self.log.slot_of(found.id).map_or(Owner::Gone, Owner::Local)
            }
            (Some(_), Some(found)) => Owner::Remote(found.owner, found.id),
        };
        FetchPart {
            key,
            owner,
            offset: want.offset,
            max_bytes: usize::try_from(want.max_bytes).ok(),
            current_epoch: want.current_epoch,
            read: PartRead::nothing(ErrorCode::None),
        }
    }

    pub(crate) fn run_pokes(&mut self) {
        while let Some(key) = self.poke.pop() {
            self.look(key);
        }
    }

    pub(crate) fn block_ready(&mut self, ticket: u64) {
        if self.control_block_ready(ticket) {
            return;
        }
        if ticket & REMOTE_TICKET == 0 {
            self.poke.push(Key::unpack(ticket));
            return;
        }
        let place = self.waiters.cold_there.get_mut((ticket & !REMOTE_TICKET) as usize);
        if let Some((core, key)) = place.and_then(Option::take) {
            self.tell_peer(core, PeerMessage::Advanced { key });
        }
    }

    pub(crate) fn tell_watchers(&mut self) {
        while let Some((core, key)) = self.waiters.told.pop() {
            self.waiters.unwatch_remote(core, key);
            self.tell_peer(core, PeerMessage::Advanced { key });
        }
    }

    /// Reads every partition, answers if that is enough, waits if not.
    fn look(&mut self, key: Key) {
        let Some(pending) = self.fetches.get_mut(key) else { return };
        if pending.remote_left > 0 {
            // Another core is being asked; this look follows when it has answered.
            pending.poked = true;
            return;
        }
        pending.poked = false;
        pending.end_poll(self.now_ns);
        pending.round += 1;
        let round = pending.round;
        // Every core reads as if the whole answer were its own; what is too much then goes in `FetchPending::fit`.
        let max_bytes = pending.max_bytes;
        let mut budget = max_bytes;
        let mut parts = std::mem::take(&mut pending.parts);
        let mut remote: HashMap<CoreId, Vec<RemoteRead>> = HashMap::new();
        let mut have_first = false;
        for (at, part) in parts.iter_mut().enumerate() {
            part.read.bufs.clear();
            (part.read.bytes, part.read.there) = (0, 0);
            match part.owner {
                Owner::Unknown(code) => part.read.error = code,
                Owner::Gone => part.read.error = ErrorCode::UnknownTopicOrPartition,
                Owner::Local(slot) => {
                    let ticket = key.pack();
                    part.read = self.read_one(
                        slot,
                        part.offset,
                        part.current_epoch,
                        part.max_bytes.map(|most| most.min(budget)),
                        !have_first,
                        ticket,
                    );
                    budget -= part.read.bytes.min(budget);
                    have_first |= part.read.bytes > 0;
                }
                Owner::Remote(core, partition) => remote.entry(core).or_default().push(RemoteRead {
                    part: at as u32,
                    partition,
                    offset: part.offset,
                    current_epoch: part.current_epoch,
                    max_bytes: part.max_bytes,
                }),
            }
        }
        let Some(pending) = self.fetches.get_mut(key) else { return };
        pending.parts = parts;
        let watch_below_bytes = pending.min_bytes.max(1);
        pending.remote_left = remote.len() as u32;
        let from = self.settings.id;
        if remote.is_empty() {
            self.judge(key);
            return;
        }
        for (core, reads) in remote {
            self.tell_peer(core, PeerMessage::Read { from, key, round, reads, max_bytes, watch_below_bytes });
        }
    }

    fn read_one(
        &mut self,
        slot: Slot,
        offset: Offset,
        epoch: LeaderEpoch,
        max_bytes: SizeMax,
        at_least_one: bool,
        ticket: u64,
    ) -> PartRead {
        let Some(view) = self.log.view(slot) else {
            return PartRead::nothing(ErrorCode::UnknownTopicOrPartition);
        };
        if epoch.0 >= 0 && epoch < view.leader_epoch {
            return PartRead::nothing(ErrorCode::FencedLeaderEpoch);
        }
        if epoch.0 >= 0 && epoch > view.leader_epoch {
            return PartRead::nothing(ErrorCode::UnknownLeaderEpoch);
        }
        let max_bytes = match max_bytes {
            Some(most) => most,
            None if offset >= view.log_start && offset < view.high_watermark => {
                return PartRead::nothing(ErrorCode::UnknownServerError);
            }
            None => 0,
        };
        let request = ReadRequest { slot, offset, max_bytes, at_least_one, ticket };
        let (bufs, bytes, there, cold) = match self.log.read(&mut self.io, request) {
            Ok(ReadOutcome::Data { bufs, bytes, more }) => {
                (bufs, bytes, if more { bytes.max(max_bytes) } else { bytes }, false)
            }
            Ok(ReadOutcome::Wait) => (Vec::new(), 0, 0, true),
            Err(error) => return PartRead::nothing(code_of(error)),
        };
        PartRead {
            error: ErrorCode::None,
            high_watermark: view.high_watermark,
            log_start: view.log_start,
            bufs,
            bytes,
            there,
            cold,
        }
    }

    /// Is what was read enough, or the time up?
    fn judge(&mut self, key: Key) {
        let now_ns = self.now_ns;
        let Some(pending) = self.fetches.get_mut(key) else { return };
        let bytes = pending.fit();
        // Batches are whole and an answer has a bound: where the limits left something out, what was asked for is there,
        // and waiting gives nothing more. Kafka counts so too.
        let there: usize = pending.parts.iter().map(|part| part.read.there).sum();
        let enough = bytes >= pending.min_bytes || bytes > 0 && there >= pending.min_bytes;
        let mut known = pending.parts.iter().filter(|p| !p.is_unknown()).peekable();
        let nothing_comes = known.peek().is_none() || known.any(|p| p.read.error != ErrorCode::None);
        let gone = self.conns.get(pending.conn).is_none_or(|conn| conn.ending || conn.eof);
        let late = now_ns >= pending.deadline_ns;
        // Data that exists and is being read is waited for, whatever the client's patience: an empty answer would only
        // make it ask again.
        let cold = bytes == 0
            && pending.parts.iter().any(|p| p.read.cold)
            && now_ns < pending.deadline_ns + COLD_GRACE_NS;
        if nothing_comes || gone || !cold && (late || enough) {
            self.finish_fetch(key);
            return;
        }
        if late {
            self.waiters.deadlines.insert((pending.deadline_ns + COLD_GRACE_NS, key));
        }
        if pending.poked {
            self.poke.push(key);
            return;
        }
        if !pending.parts.iter().any(|part| part.read.cold) {
            pending.polls_since_ns = Some(now_ns);
        }
        // Waiting holds no memory of the log.
        let mut slots = Vec::new();
        for part in &mut pending.parts {
            part.read.bufs.clear();
            if let Owner::Local(slot) = part.owner {
                slots.push(slot);
            }
        }
        if !pending.watching {
            pending.watching = true;
            self.metrics.fetch_waiting += 1;
            if !late {
                self.waiters.deadlines.insert((pending.deadline_ns, key));
            }
            self.waiters.watch(Watcher::Here(key), slots.into_iter());
        }
    }

    fn finish_fetch(&mut self, key: Key) {
        let Some(mut pending) = self.fetches.remove(key) else { return };
        let from = self.settings.id;
        if pending.watching {
            self.metrics.fetch_waiting -= 1;
            self.waiters.deadlines.remove(&(pending.deadline_ns, key));
            self.waiters.deadlines.remove(&(pending.deadline_ns + COLD_GRACE_NS, key));
            let slots: Vec<Slot> = pending
                .parts
                .iter()
                .filter_map(|p| if let Owner::Local(s) = p.owner { Some(s) } else { None })
                .collect();
            self.waiters.unwatch(Watcher::Here(key), slots.into_iter());
        }
        for core in std::mem::take(&mut pending.watched_at) {
            self.tell_peer(core, PeerMessage::Unwatch { from, key });
        }
        pending.end_poll(self.now_ns);
        let served = pending.served(self.now_ns);
        let failed = pending.parts.iter().any(|p| p.read.error != ErrorCode::None);
        self.metrics.fetch.answered(served.wait_us, failed);
        let Some(conn) = self.conns.get_mut(pending.conn) else {
            self.look_if_slow(pending.conn, &served);
            return;
        };
        conn.fetch = None;
        let (mut own, mut foreign, mut owner) = (0, 0, None);
        for part in &pending.parts {
            match part.owner {
                Owner::Local(_) => own += part.read.bytes as u64,
                Owner::Remote(core, _) => {
                    foreign += part.read.bytes as u64;
                    owner = Some(core);
                }
                Owner::Unknown(_) | Owner::Gone => {}
            }
        }
        self.count_bytes(pending.conn, own, foreign, owner);
        if let Some(client) = &pending.client {
            self.charge(pending.conn, client, Limited::Fetch, own + foreign);
        }
        let (conn, slot) = (pending.conn, pending.slot);
        match self.encode_fetch(pending) {
            Some(bufs) => self.answer(conn, slot, AnswerState::Ready(bufs, served)),
            None => self.answer_nothing(conn, slot, Closing::AnswerTooLarge),
        }
    }

    fn encode_fetch(&mut self, pending: FetchPending) -> Option<Vec<Buf>> {
        let included: Vec<&FetchPart> = pending
            .parts
            .iter()
            .filter(|p| {
                let PartRead { error, high_watermark, log_start, bytes, .. } = p.read;
                let news = self.sessions.note(pending.session_id, &p.key, high_watermark, log_start, error);
                !pending.incremental || bytes > 0 || error != ErrorCode::None || news
            })
            .collect();
        let mut topics = 0;
        let mut last = None;
        for part in &included {
            if last != Some(&part.key.topic) {
                topics += 1;
                last = Some(&part.key.topic);
            }
        }
        let throttle_ms = self.conns.get(pending.conn).map_or(0, |conn| conn.throttle_ms(self.now_ns));
        let mut response =
            FetchResponse::begin(pending.head, throttle_ms, ErrorCode::None, pending.session_id, topics);
        let mut at = 0;
        while let Some(first) = included.get(at) {
            let run = included.iter().skip(at).take_while(|p| p.key.topic == first.key.topic).count();
            response.topic(first.key.topic.as_ref(), run);
            for part in included.iter().skip(at).take(run) {
                response.partition(&part.answer(pending.isolation));
            }
            at += run;
        }
        let frame = response.finish(&[]).ok()?;
        let records = included.into_iter().map(|p| &p.read).filter(|read| read.bytes > 0);
        if frame.records_bytes < COPY_BELOW_BYTES {
            self.metrics.fetch_bytes_copied += frame.records_bytes;
            let mut records = records;
            let mut out = Vec::with_capacity(frame.total_bytes() as usize);
            for piece in frame.pieces() {
                match piece {
                    Piece::Head(range) => out.extend_from_slice(frame.head.get(range)?),
                    Piece::Records { .. } => {
                        records.next()?.bufs.iter().for_each(|b| out.extend_from_slice(b))
                    }
                }
            }
            return Some(vec![Buf::from_vec(out)]);
        }
        self.metrics.fetch_bytes_in_place += frame.records_bytes;
        let pieces: Vec<Piece> = frame.pieces().collect();
        let head = Buf::from_vec(frame.head);
        let mut records = records;
        let mut bufs = Vec::new();
        for piece in pieces {
            match piece {
                Piece::Head(range) => bufs.push(head.slice(range.start, range.end)),
                Piece::Records { .. } => bufs.extend(records.next()?.bufs.iter().cloned()),
            }
        }
        Some(merge_adjacent(bufs))
    }

    /// Another core's client reads partitions of ours.
    pub(crate) fn remote_read(
        &mut self,
        from: CoreId,
        key: Key,
        round: u32,
        reads: &[RemoteRead],
        max_bytes: usize,
        watch_below_bytes: usize,
    ) {
        let (mut total, mut counted) = (0, 0);
        let mut failed = false;
        let mut slots = Vec::new();
        let mut results = Vec::with_capacity(reads.len());
        for read in reads {
            let slot = self.log.slot_of(read.partition);
            let got = match slot {
                Some(slot) => {
                    slots.push(slot);
                    let ticket = self.waiters.cold_ticket(from, key);
                    let got = self.read_one(
                        slot,
                        read.offset,
                        read.current_epoch,
                        read.max_bytes.map(|most| most.min(max_bytes.saturating_sub(total))),
                        total == 0,
                        ticket,
                    );
                    if !got.cold {
                        // Nothing is on its way for it.
                        if let Some(place) =
                            self.waiters.cold_there.get_mut((ticket & !REMOTE_TICKET) as usize)
                        {
                            *place = None;
                        }
                    }
                    got
                }
                None => PartRead::nothing(ErrorCode::UnknownTopicOrPartition),
            };
            total += got.bytes;
            // A first batch beyond its partition's limit may not be the first of all.
            counted += got.bytes.min(read.max_bytes.unwrap_or(0));
            failed |= got.error != ErrorCode::None;
            results.push(RemoteReadDone { part: read.part, read: got });
        }
        let watched = counted < watch_below_bytes && !failed;
        if watched {
            self.waiters.watch(Watcher::There(from, key), slots.into_iter());
        }
        self.tell_peer(from, PeerMessage::ReadDone { key, round, results, watched });
    }

    pub(crate) fn remote_read_done(
        &mut self,
        core: CoreId,
        key: Key,
        round: u32,
        results: Vec<RemoteReadDone>,
        watched: bool,
    ) {
        let from = self.settings.id;
        let Some(pending) = self.fetches.get_mut(key).filter(|p| p.round == round) else {
            if watched {
                self.tell_peer(core, PeerMessage::Unwatch { from, key });
            }
            return;
        };
        for done in results {
            if let Some(part) = pending.parts.get_mut(done.part as usize) {
                part.read = done.read;
            }
        }
        if watched && !pending.watched_at.contains(&core) {
            pending.watched_at.push(core);
        }
        pending.remote_left -= 1;
        if pending.remote_left == 0 {
            self.judge(key);
        }
    }
}

impl FetchPending {
    /// Whatever wakes a long poll ends it. What it waited beyond its deadline was not asked for.
    fn end_poll(&mut self, now_ns: u64) {
        if let Some(since_ns) = self.polls_since_ns.take() {
            self.polled_ns += now_ns.min(self.deadline_ns).saturating_sub(since_ns);
        }
    }

    /// Where its time went so far.
    fn served(&self, now_ns: u64) -> Served {
        let only = self.parts.first().filter(|_| self.parts.len() == 1);
        Served {
            api: ApiKey::FETCH,
            receive_us: self.receive_us,
            wait_us: now_ns.saturating_sub(self.began_ns) / 1000,
            poll_us: self.polled_ns / 1000,
            partitions: Some(self.parts.len() as u32),
            topic: only.map(|part| part.key.topic.clone()),
        }
    }

    /// Leaves out what several cores together read beyond the limits, of the answer and of a partition: partitions count
    /// in their order, and the first batch of all goes out however large it is (KIP-74). The bytes that are left.
    fn fit(&mut self) -> usize {
        let mut bytes = 0;
        for part in &mut self.parts {
            let part_bytes_max = part.max_bytes.unwrap_or(0);
            let read = &mut part.read;
            read.there = read.there.min(part_bytes_max);
            let too_large = read.bytes > part_bytes_max || bytes + read.bytes > self.max_bytes;
            if bytes > 0 && too_large {
                read.bufs.clear();
                read.bytes = 0;
            }
            bytes += read.bytes;
        }
        bytes
    }
}

impl PartRead {
    fn nothing(error: ErrorCode) -> PartRead {
        PartRead {
            error,
            high_watermark: Offset(-1),
            log_start: Offset(-1),
            bufs: Vec::new(),
            bytes: 0,
            there: 0,
            cold: false,
        }
    }
}

impl FetchPart {
    fn is_unknown(&self) -> bool {
        matches!(self.owner, Owner::Unknown(_))
    }

    fn answer(&self, isolation: IsolationLevel) -> FetchPartitionAnswer<'static> {
        let read = &self.read;
        FetchPartitionAnswer {
            high_watermark: read.high_watermark,
            last_stable_offset: read.high_watermark,
            log_start_offset: read.log_start,
            // As Kafka says it.
            aborted: (self.is_unknown()
                || isolation == IsolationLevel::ReadCommitted && read.error == ErrorCode::None)
                .then_some(&[]),
            records_bytes: read.bytes as u32,
            ..FetchPartitionAnswer::error(self.key.index, read.error)
        }
    }
}

fn code_of(error: ReadError) -> ErrorCode {
    match error {
        ReadError::Unknown => ErrorCode::UnknownTopicOrPartition,
        ReadError::OutOfRange => ErrorCode::OffsetOutOfRange,
        ReadError::Offline => ErrorCode::KafkaStorageError,
    }
}

/// Neighbouring slices of one region leave as one piece: groups hold batches of one producer side by side.
fn merge_adjacent(bufs: Vec<Buf>) -> Vec<Buf> {
    let mut out: Vec<Buf> = Vec::with_capacity(bufs.len());
    for buf in bufs {
        if let Some(last) = out.last_mut()
            && last.try_join(&buf)
        {
            continue;
        }
        out.push(buf);
    }
    out
}
