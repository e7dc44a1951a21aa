//! What it gets: every byte but the records, and where those go.

use super::by_id;
use crate::api::{ApiKey, Encoding};
use crate::frame::{self, AnswerTooLarge, ResponseHead};
use crate::topic::{LeaderAndEpoch, NodeEndpoint, TopicRef, write_node_endpoints};
use crate::writer::Writer;
use ringmill_types::{ErrorCode, LeaderEpoch, Offset, ProducerId};

/// The answer for one partition, without its record bytes. Fields that a version does not have are left out.
#[derive(Clone, Copy, Debug)]
pub struct FetchPartitionAnswer<'a> {
    pub index: i32,
    pub error: ErrorCode,
    /// -1 with an error.
    pub high_watermark: Offset,
    /// Equal to the high watermark while no transaction is open; -1 with an error.
    pub last_stable_offset: Offset,
    /// Version 5 on; -1 with an error.
    pub log_start_offset: Offset,
    /// Version 12 on, when the log diverged from what the follower has.
    pub diverging_epoch: Option<EpochEnd>,
    /// Who leads instead, version 12 on.
    pub current_leader: Option<LeaderAndEpoch>,
    /// `None` for read_uncommitted.
    pub aborted: Option<&'a [AbortedTransaction]>,
    /// Version 11 on; -1 for none.
    pub preferred_read_replica: i32,
    /// Record bytes that the caller sends at this place; 0 is an empty set, never a null.
    pub records_bytes: u32,
}

impl FetchPartitionAnswer<'_> {
    /// An answer that says nothing but the error.
    pub fn error(index: i32, error: ErrorCode) -> FetchPartitionAnswer<'static> {
        FetchPartitionAnswer {
            index,
            error,
            high_watermark: Offset(-1),
            last_stable_offset: Offset(-1),
            log_start_offset: Offset(-1),
            diverging_epoch: None,
            current_leader: None,
            aborted: None,
            preferred_read_replica: -1,
            records_bytes: 0,
        }
    }
}

/// The largest epoch up to which two logs agree, and where it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEnd {
    pub epoch: LeaderEpoch,
    pub end_offset: Offset,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTransaction {
    pub producer_id: ProducerId,
    pub first_offset: Offset,
}

/// Writes an answer: `begin`, then per topic [`topic`](Self::topic) and its [`partition`](Self::partition)s, then
/// [`finish`](Self::finish). Counts are given ahead, because they are written ahead; keeping to them is asserted.
#[derive(Debug)]
pub struct FetchResponse {
    head: Vec<u8>,
    splices: Vec<Splice>,
    records_bytes: u64,
    start: usize,
    version: i16,
    encoding: Encoding,
    topics_left: usize,
    partitions_left: usize,
    in_topic: bool,
}

/// Where the record bytes of one partition go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Splice {
    /// Bytes of [`FetchFrame::head`] before the records.
    pub at: usize,
    /// Never 0.
    pub records_bytes: u32,
}

/// A finished answer: `head[..splices[0].at]`, records, `head[splices[0].at..splices[1].at]`, records, …, the rest of
/// `head`. One splice per partition whose `records_bytes` was not 0, in the order in which they were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchFrame {
    pub head: Vec<u8>,
    pub splices: Vec<Splice>,
    /// Bytes of all records together.
    pub records_bytes: u64,
}

/// What goes out next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// This range of [`FetchFrame::head`]; never empty.
    Head(std::ops::Range<usize>),
    /// The records of this splice, from the caller's memory.
    Records { splice: usize, bytes: u32 },
}

impl FetchFrame {
    /// The frame piece by piece, from the length prefix on.
    pub fn pieces(&self) -> impl Iterator<Item = Piece> + '_ {
        let starts = std::iter::once(0).chain(self.splices.iter().map(|splice| splice.at));
        let ends = self.splices.iter().map(|splice| splice.at).chain(std::iter::once(self.head.len()));
        let heads = starts.zip(ends).map(|(start, end)| (start < end).then_some(Piece::Head(start..end)));
        let records = self.splices.iter().enumerate();
        let records = records.map(|(splice, s)| Some(Piece::Records { splice, bytes: s.records_bytes }));
        let records = records.chain(std::iter::once(None));
        heads.zip(records).flat_map(|(head, records)| [head, records]).flatten()
    }

    /// Bytes that go out, length prefix and records included.
    pub fn total_bytes(&self) -> u64 {
        self.head.len() as u64 + self.records_bytes
    }
}

impl FetchResponse {
    /// Begins the answer to the request that `head` is from. `error` and `session_id` exist from version 7 on.
    pub fn begin(
        head: ResponseHead,
        throttle_ms: i32,
        error: ErrorCode,
        session_id: i32,
        topic_count: usize,
    ) -> FetchResponse {
        FetchResponse::begin_in(Vec::new(), head, throttle_ms, error, session_id, topic_count)
    }

    /// The same, appended to `out`: a recycled buffer, or earlier answers of the connection that go out with it.
    pub fn begin_in(
        mut out: Vec<u8>,
        head: ResponseHead,
        throttle_ms: i32,
        error: ErrorCode,
        session_id: i32,
        topic_count: usize,
    ) -> FetchResponse {
        assert_eq!(head.api_key, ApiKey::FETCH);
        let start = head.begin(&mut out);
        let encoding = head.encoding();
        let mut writer = Writer::new(&mut out, encoding);
        writer.i32(throttle_ms);
        if head.api_version >= 7 {
            writer.i16(error.code());
            writer.i32(session_id);
        }
        writer.array(topic_count);
        FetchResponse {
            head: out,
            splices: Vec::new(),
            records_bytes: 0,
            start,
            version: head.api_version,
            encoding,
            topics_left: topic_count,
            partitions_left: 0,
            in_topic: false,
        }
    }

    fn writer(&mut self) -> Writer<'_> {
        Writer::new(&mut self.head, self.encoding)
    }

    fn end_topic(&mut self) {
        assert_eq!(self.partitions_left, 0, "a partition of the topic before has no answer");
        if self.in_topic {
            self.in_topic = false;
            self.writer().no_tags();
        }
    }

    /// Begins the next topic, named as the request named it.
    pub fn topic(&mut self, topic: TopicRef<'_>, partition_count: usize) {
        self.end_topic();
        self.topics_left = self.topics_left.checked_sub(1).expect("no more topics than announced");
        self.partitions_left = partition_count;
        self.in_topic = true;
        let by_id = by_id(self.version);
        let mut writer = self.writer();
        topic.write(&mut writer, by_id);
        writer.array(partition_count);
    }

    /// Writes the answer of the topic's next partition.
    pub fn partition(&mut self, answer: &FetchPartitionAnswer<'_>) {
        self.partitions_left =
            self.partitions_left.checked_sub(1).expect("no more partitions than announced");
        let version = self.version;
        let mut writer = self.writer();
        writer.i32(answer.index);
        writer.i16(known_error(version, answer.error).code());
        writer.i64(answer.high_watermark.0);
        writer.i64(answer.last_stable_offset.0);
        if version >= 5 {
            writer.i64(answer.log_start_offset.0);
        }
        match answer.aborted {
            None => writer.null_array(),
            Some(aborted) => {
                writer.array(aborted.len());
                for transaction in aborted {
                    writer.i64(transaction.producer_id.0);
                    writer.i64(transaction.first_offset.0);
                    writer.no_tags();
                }
            }
        }
        if version >= 11 {
            writer.i32(answer.preferred_read_replica);
        }
        writer.bytes_length(answer.records_bytes);
        if answer.records_bytes > 0 {
            self.splices.push(Splice { at: self.head.len(), records_bytes: answer.records_bytes });
            self.records_bytes += u64::from(answer.records_bytes);
        }
        write_partition_tags(&mut self.writer(), answer);
    }

    /// Ends the answer and writes its length. `endpoints` says where the leaders named in it listen, version 16 on.
    ///
    /// # Errors
    /// [`AnswerTooLarge`] when head and records together do not fit a frame.
    pub fn finish(mut self, endpoints: &[NodeEndpoint<'_>]) -> Result<FetchFrame, AnswerTooLarge> {
        self.end_topic();
        assert_eq!(self.topics_left, 0, "a topic has no answer");
        let endpoints = if self.version >= 16 { endpoints } else { &[] };
        write_node_endpoints(&mut self.writer(), endpoints);
        frame::patch_length(&mut self.head, self.start, self.records_bytes)?;
        Ok(FetchFrame { head: self.head, splices: self.splices, records_bytes: self.records_bytes })
    }
}

/// Clients up to version 5 do not know KAFKA_STORAGE_ERROR; Kafka sends them the error that makes them try again.
fn known_error(version: i16, error: ErrorCode) -> ErrorCode {
    if version <= 5 && error == ErrorCode::KafkaStorageError { ErrorCode::NotLeaderOrFollower } else { error }
}

/// Tags 0 and 1 of a partition; nothing in the classic encoding.
fn write_partition_tags(writer: &mut Writer<'_>, answer: &FetchPartitionAnswer<'_>) {
    if writer.encoding() == Encoding::Classic {
        return;
    }
    writer
        .tag_count(u32::from(answer.diverging_epoch.is_some()) + u32::from(answer.current_leader.is_some()));
    if let Some(diverging) = answer.diverging_epoch {
        let mut content = Vec::with_capacity(13);
        let mut inner = Writer::new(&mut content, Encoding::Flexible);
        inner.i32(diverging.epoch.0);
        inner.i64(diverging.end_offset.0);
        inner.no_tags();
        writer.tag(0, &content);
    }
    if let Some(leader) = answer.current_leader {
        writer.tag(1, &leader.tag_content());
    }
}
