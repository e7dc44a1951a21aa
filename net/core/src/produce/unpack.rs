//! Compressed batches for compacted topics, and those that a topic stores in another compression: looked through and
//! packed anew beside the core before they are appended.
//!
//! Only those are (`ringmill_log::examine` says why), and only their connection waits for it.

use super::Owner;
use crate::core::Core;
use crate::peer::Refused;
use crate::slab::Key;
use crate::token;
use ringmill_log::examine::{self, Judged, Judgement, TOO_LARGE};
use ringmill_log::token::token;
use ringmill_reactor::{Backend, Buf, Completion, Op, Payload};
use ringmill_types::{ErrorCode, TopicSpec};
use std::sync::Arc;

/// What was found, by the parts' places in their request.
type Unpacked = Vec<(usize, Result<Judged, Judgement>)>;

impl<B: Backend> Core<B> {
    /// Gives away the batches that have to be unpacked; false when there is none. The connection is not read further until
    /// they are back, so that a producer's batches stay in order. There is no deadline, because every order is answered.
    pub(super) fn unpack(&mut self, key: Key) -> bool {
        let wall_ms = self.io.wall_ms();
        let Some(pending) = self.produces.get_mut(key) else { return false };
        let (conn, version) = (pending.conn, pending.head.api_version);
        let mut orders = Vec::new();
        for (at, part) in pending.parts.iter_mut().enumerate() {
            if let Some(topic) = part.unpack.take() {
                let records = pending.frame.share().slice(part.records.start, part.records.end);
                orders.push((at, topic, part.index, records));
            }
        }
        if orders.is_empty() {
            return false;
        }
        if let Some(conn) = self.conns.get_mut(conn) {
            conn.stalled = true;
            self.metrics.muted_connections += 1;
        }
        let work = move || -> Unpacked {
            let judge = |(at, topic, index, records): (usize, Arc<TopicSpec>, i32, Buf)| {
                let place = (&*topic.name, index);
                (at, examine::unpack_and_judge(&records, version, &topic.config, place, wall_ms))
            };
            orders.into_iter().map(judge).collect()
        };
        self.io
            .push(Op::Work { work: Box::new(move || Box::new(work())) }, token(token::UNPACKED, key.pack()));
        true
    }

    /// They were looked through: what is good is appended, after those that wait for room.
    pub(crate) fn unpacked(&mut self, key: Key, completion: Completion) {
        let Payload::Job(output) = completion.payload else { return };
        let Ok(judged) = output.downcast::<Unpacked>() else { return };
        let Some(pending) = self.produces.get_mut(key) else { return };
        let conn = pending.conn;
        for (at, judgement) in *judged {
            let Some(part) = pending.parts.get_mut(at) else { continue };
            match judgement {
                Ok(judged) => {
                    part.produced = Some(judged.produced);
                    part.packed = judged.packed.map(Buf::from_vec);
                }
                Err(judgement) => {
                    part.owner = Owner::Nobody;
                    part.refuse(match judgement {
                        Judgement::TooLarge => Refused::With(ErrorCode::MessageTooLarge, TOO_LARGE),
                        Judgement::Refused(refusal) => Refused::With(refusal.code(), refusal.text()),
                        Judgement::BadRecords(bad) => Refused::BadRecords(bad),
                    });
                }
            }
        }
        if !self.stalled.is_empty() {
            self.stalled.push_back(key);
            return;
        }
        self.run_produce(key);
        if self.stalled.back() != Some(&key) {
            self.unstall(conn);
        }
    }
}
