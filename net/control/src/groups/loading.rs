//! Reading `__consumer_offsets` back at start: every partition from its log start to what was its end.

use super::{Asked, OFFSETS_TOPIC};
use crate::control::Control;
use ringmill_core::{CoreQuery, ReadReply};
use ringmill_groups::{Groups, records::RecordError};
use ringmill_record::{Batches, Records};
use ringmill_types::{ErrorCode, Offset};
use std::collections::BTreeMap;
use std::time::Instant;

/// One read: what one step of control takes on.
const READ_BYTES: usize = 256 << 10;
/// Of a batch that unpacks to more nothing is taken. Kafka's largest for this topic is a mebibyte.
const UNPACKED_BYTES_MAX: u64 = 16 << 20;

/// Partitions that are not read to their end yet, and how far each is.
pub(super) struct Loading {
    left: BTreeMap<i32, Offset>,
    began: Instant,
    records: u64,
    skipped: u64,
    /// To be asked again at the next tick.
    failed: Vec<i32>,
}

impl Control {
    /// At start: asks for all partitions of the topic, if it is there.
    pub(crate) fn groups_load(&mut self) {
        let partitions = self.partition_ids().len() as i32;
        if partitions == 0 {
            return self.groups_know_topics();
        }
        let settings = &self.groups.settings;
        // The count that the topic has decides where a group lies, not the one that a new topic would get.
        self.groups.machine = Groups::new(settings.config.clone(), partitions, self.groups.now());
        self.groups_know_topics();
        let left = (0..partitions).map(|p| (p, Offset::ZERO)).collect();
        self.groups.loading =
            Some(Loading { left, began: Instant::now(), records: 0, skipped: 0, failed: Vec::new() });
        for partition in 0..partitions {
            self.read_offsets(partition, Offset::ZERO);
        }
    }

    fn read_offsets(&mut self, partition: i32, offset: Offset) {
        let Some((id, core)) =
            usize::try_from(partition).ok().and_then(|at| self.partition_ids().get(at).copied())
        else {
            return;
        };
        let query = self.id();
        self.groups.asked.insert(query, Asked::Read(partition));
        self.send_query(core, query, CoreQuery::Read { partition: id, offset, max_bytes: READ_BYTES });
    }

    /// Partitions that could not be read are tried again, for as long as it takes: groups that are not known must not
    /// be taken for groups that are not there.
    pub(crate) fn groups_retry_load(&mut self) {
        let Some(loading) = &mut self.groups.loading else { return };
        for partition in std::mem::take(&mut loading.failed) {
            let offset = self.groups.loading.as_ref().and_then(|l| l.left.get(&partition).copied());
            self.read_offsets(partition, offset.unwrap_or(Offset::ZERO));
        }
    }

    pub(super) fn offsets_read(&mut self, partition: i32, result: Result<ReadReply, ErrorCode>) {
        let Some(loading) = &mut self.groups.loading else { return };
        let Some(offset) = loading.left.get(&partition).copied() else { return };
        let reply = match result {
            Ok(reply) => reply,
            Err(error) => {
                tracing::error!(
                    partition,
                    ?error,
                    "{OFFSETS_TOPIC} cannot be read; groups are not served before it is"
                );
                loading.failed.push(partition);
                return;
            }
        };
        let next = load(&mut self.groups.machine, loading, &reply, offset);
        if next > offset && next < reply.high_watermark {
            loading.left.insert(partition, next);
            return self.read_offsets(partition, next);
        }
        loading.left.remove(&partition);
        if loading.left.is_empty()
            && let Some(done) = self.groups.loading.take()
        {
            let now = self.groups.now();
            self.groups.machine.loaded(now);
            // Again: nobody told the machine of topics that were deleted while it was being loaded.
            self.groups_know_topics();
            tracing::info!(
                records = done.records,
                skipped = done.skipped,
                groups = self.groups.machine.list().count(),
                ms = done.began.elapsed().as_millis() as u64,
                "groups and offsets were read"
            );
        }
    }
}

/// Gives every record to the machine; the offset to go on from.
fn load(machine: &mut Groups, loading: &mut Loading, reply: &ReadReply, from: Offset) -> Offset {
    let mut next = from;
    for (header, batch) in Batches::new(&reply.batches) {
        next = header.next_offset();
        if header.is_control() {
            continue;
        }
        // What is written here is not compressed, but a folder that came from Kafka may be
        // (`offsets.topic.compression.codec`).
        let payload = match ringmill_compression::payload(&header, batch, UNPACKED_BYTES_MAX) {
            Ok(payload) => payload,
            Err(error) => {
                tracing::error!(offset = %header.base_offset, %error, "a batch in {OFFSETS_TOPIC} is left out");
                loading.skipped += header.record_count.max(0) as u64;
                continue;
            }
        };
        for record in Records::of_payload(&payload, header.record_count) {
            let loaded = match &record {
                Ok(record) => machine.load(record.key.unwrap_or_default(), record.value),
                Err(_) => Err(RecordError::Malformed),
            };
            loading.records += 1;
            if let Err(error) = loaded {
                // Newer kinds of groups keep other records in the same topic.
                tracing::debug!(offset = %header.base_offset, %error, "a record of {OFFSETS_TOPIC} is left out");
                loading.skipped += 1;
            }
        }
    }
    next
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use ringmill_groups::records::{Key, OffsetValue};
    use ringmill_groups::{GroupConfig, Now};
    use ringmill_record::write::{Sealing, no_headers, put_record, seal};
    use ringmill_record::{Compression, HEADER_BYTES};
    use ringmill_types::TopicId;

    fn batch(codec: Compression, group: &str, offset: i64) -> Vec<u8> {
        let key = Key::Offset { group: group.into(), topic: "t".into(), partition: 3 }.encode();
        let value = OffsetValue {
            offset,
            leader_epoch: -1,
            metadata: String::new(),
            commit_ms: 1_000,
            expire_ms: None,
            topic_id: TopicId::ZERO,
        };
        let mut payload = Vec::new();
        put_record(&mut payload, 0, 0, Some(&key), Some(&value.encode()), no_headers());
        let mut batch = vec![0; HEADER_BYTES];
        batch.extend(ringmill_compression::compress(codec, payload).unwrap());
        seal(&mut batch, &Sealing { attributes: codec.code().into(), ..Sealing::plain(1_000, 1_000, 1) });
        batch
    }

    #[test]
    fn batches_of_every_compression_are_read_and_what_cannot_be_is_left_out() {
        let all =
            [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];
        let mut batches: Vec<u8> =
            all.iter().zip(0..).flat_map(|(codec, at)| batch(*codec, &format!("{codec:?}"), at)).collect();
        let mut broken = batch(Compression::Gzip, "broken", 7);
        broken[HEADER_BYTES..].fill(0x55);
        batches.extend(broken);
        let now = Now { mono_ms: 0, wall_ms: 1_000 };
        let mut machine = Groups::new(GroupConfig::default(), 1, now);
        let mut loading = Loading {
            left: BTreeMap::new(),
            began: Instant::now(),
            records: 0,
            skipped: 0,
            failed: Vec::new(),
        };
        let reply = ReadReply { high_watermark: Offset(6), batches };
        load(&mut machine, &mut loading, &reply, Offset::ZERO);
        machine.loaded(now);
        let found: BTreeMap<String, i64> =
            machine.committed().map(|(group, _, _, offset)| (group.to_string(), offset)).collect();
        let wanted = all.iter().zip(0..).map(|(codec, at)| (format!("{codec:?}"), at)).collect();
        assert_eq!((found, loading.records, loading.skipped), (wanted, 5, 1));
    }
}
