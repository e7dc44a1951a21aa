//! Fetch 4–18.
//!
//! A request is checked to its end before the first partition is handed out. An answer is written without its records:
//! [`FetchFrame`] holds all other bytes in one buffer and says where the caller's record bytes go between them, so they
//! are sent from where they lie.

use crate::api::{ApiKey, Encoding};
use crate::error::{WireError, WireErrorKind};
use crate::frame::{self, AnswerTooLarge, RequestHeader, ResponseHead};
use crate::reader::Reader;
use crate::topic::{ById, LeaderAndEpoch, NodeEndpoint, TopicRef, write_node_endpoints};
use crate::writer::Writer;
use ringmill_types::{ErrorCode, LeaderEpoch, Offset, ProducerId, TopicId};

/// First and last version of this codec.
pub const VERSIONS: std::ops::RangeInclusive<i16> = 4..=18;

fn by_id(version: i16) -> ById {
    if version >= 13 { ById::Yes } else { ById::No }
}

/// What a consumer may see of open and aborted transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IsolationLevel {
    ReadUncommitted,
    ReadCommitted,
}

/// A checked Fetch request, borrowed from its frame. Fields that a version does not have hold Kafka's defaults.
#[derive(Clone, Debug)]
pub struct FetchRequest<'a> {
    /// Version 12 on, when a follower says it.
    pub cluster_id: Option<&'a str>,
    /// -1 for a consumer.
    pub replica_id: i32,
    /// Version 15 on; -1 for a consumer.
    pub replica_epoch: i64,
    pub max_wait_ms: i32,
    pub min_bytes: i32,
    pub max_bytes: i32,
    pub isolation: IsolationLevel,
    /// Version 7 on; 0 asks for a new session or none.
    pub session_id: i32,
    /// Version 7 on; -1 is a full fetch without a session, 0 a full fetch that may begin one (KIP-227).
    pub session_epoch: i32,
    /// Version 11 on, else empty.
    pub rack_id: &'a str,
    pub topic_count: usize,
    /// Partitions of all topics together, without the forgotten ones.
    pub partition_count: usize,
    /// Topics in the forgotten list, version 7 on.
    pub forgotten_count: usize,
    topics: FetchTopics<'a>,
    forgotten: ForgottenTopics<'a>,
}

/// One topic of a request.
#[derive(Clone, Debug)]
pub struct FetchTopic<'a> {
    pub topic: TopicRef<'a>,
    pub partition_count: usize,
    partitions: FetchPartitions<'a>,
}

/// What is asked of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchPartition {
    pub index: i32,
    /// Version 9 on; -1 when the client does not say.
    pub current_leader_epoch: LeaderEpoch,
    pub fetch_offset: Offset,
    /// Version 12 on; -1 when nothing was fetched yet.
    pub last_fetched_epoch: LeaderEpoch,
    /// Version 5 on; -1 for a consumer.
    pub log_start_offset: Offset,
    pub max_bytes: i32,
    /// Version 17 on; zero for a consumer.
    pub replica_directory_id: TopicId,
    /// Version 18 on, as the follower knows it; `i64::MAX` when it does not say.
    pub high_watermark: Offset,
}

/// Partitions that an incremental fetch drops from its session.
#[derive(Clone, Debug)]
pub struct ForgottenTopic<'a> {
    pub topic: TopicRef<'a>,
    pub partition_count: usize,
    partitions: Reader<'a>,
}

impl<'a> FetchRequest<'a> {
    /// Reads the body of `frame`, whose header is `header`. Bytes after the body are ignored, as Kafka ignores them.
    ///
    /// # Errors
    /// [`WireError`] for a body that is not whole, an isolation level that does not exist, or a version outside
    /// [`VERSIONS`].
    pub fn parse(header: &RequestHeader<'_>, frame: &'a [u8]) -> Result<FetchRequest<'a>, WireError> {
        header.expect_version(ApiKey::FETCH, VERSIONS)?;
        let version = header.api_version;
        let mut reader = Reader::new(frame, header.body_at, header.encoding);
        let replica_id = if version <= 14 { reader.i32("replica id")? } else { -1 };
        let max_wait_ms = reader.i32("max wait")?;
        let min_bytes = reader.i32("min bytes")?;
        let max_bytes = reader.i32("max bytes")?;
        let isolation = read_isolation(&mut reader)?;
        let (session_id, session_epoch) =
            if version >= 7 { (reader.i32("session id")?, reader.i32("session epoch")?) } else { (0, -1) };
        let (topics, partition_count) = FetchTopics::check(&mut reader, version)?;
        let forgotten = ForgottenTopics::check(&mut reader, version)?;
        let rack_id = if version >= 11 { reader.string("rack id")? } else { "" };
        let mut request = FetchRequest {
            cluster_id: None,
            replica_id,
            replica_epoch: -1,
            max_wait_ms,
            min_bytes,
            max_bytes,
            isolation,
            session_id,
            session_epoch,
            rack_id,
            topic_count: topics.left,
            partition_count,
            forgotten_count: forgotten.left,
            topics,
            forgotten,
        };
        request.read_tags(&mut reader, version)?;
        Ok(request)
    }

    fn read_tags(&mut self, reader: &mut Reader<'a>, version: i16) -> Result<(), WireError> {
        reader.tags("request tags", |tag, content| match tag {
            0 => {
                self.cluster_id = content.nullable_string("cluster id")?;
                Ok(true)
            }
            1 if version >= 15 => {
                self.replica_id = content.i32("replica id")?;
                self.replica_epoch = content.i64("replica epoch")?;
                content.skip_tags("replica state tags")?;
                Ok(true)
            }
            _ => Ok(false),
        })
    }

    /// The topics, in the order of the request, which is the order of preference.
    pub fn topics(&self) -> FetchTopics<'a> {
        self.topics.clone()
    }

    /// What the session shall forget.
    pub fn forgotten(&self) -> ForgottenTopics<'a> {
        self.forgotten.clone()
    }
}

fn read_isolation(reader: &mut Reader<'_>) -> Result<IsolationLevel, WireError> {
    match reader.i8("isolation level")? {
        0 => Ok(IsolationLevel::ReadUncommitted),
        1 => Ok(IsolationLevel::ReadCommitted),
        other => Err(reader.error("isolation level", WireErrorKind::Value(i64::from(other)))),
    }
}

/// Least bytes of a topic: name or id, count, tags.
fn topic_bytes_min(by_id: ById, encoding: Encoding) -> usize {
    by_id.bytes_min(encoding)
        + match encoding {
            Encoding::Classic => 4,
            Encoding::Flexible => 2,
        }
}

/// Iterates over the topics of a request.
#[derive(Clone, Debug)]
pub struct FetchTopics<'a> {
    reader: Reader<'a>,
    left: usize,
    version: i16,
}

impl<'a> FetchTopics<'a> {
    /// Walks all topics once, moving `reader` behind them; returns the iterator that will walk them again and the
    /// number of partitions.
    fn check(reader: &mut Reader<'a>, version: i16) -> Result<(FetchTopics<'a>, usize), WireError> {
        let left = reader.array("topics", topic_bytes_min(by_id(version), reader.encoding()))?;
        let topics = FetchTopics { reader: reader.clone(), left, version };
        let mut walk = topics.clone();
        let mut partition_count = 0;
        for _ in 0..left {
            partition_count += walk.read()?.partition_count;
        }
        *reader = walk.reader;
        Ok((topics, partition_count))
    }

    fn read(&mut self) -> Result<FetchTopic<'a>, WireError> {
        let topic = TopicRef::read(&mut self.reader, by_id(self.version))?;
        let partition_count = self.reader.array("partitions", FetchPartitions::bytes_min(self.version))?;
        let partitions =
            FetchPartitions { reader: self.reader.clone(), left: partition_count, version: self.version };
        let mut walk = partitions.clone();
        for _ in 0..partition_count {
            walk.read()?;
        }
        self.reader = walk.reader;
        self.reader.skip_tags("topic tags")?;
        Ok(FetchTopic { topic, partition_count, partitions })
    }
}

impl<'a> Iterator for FetchTopics<'a> {
    type Item = FetchTopic<'a>;

    fn next(&mut self) -> Option<FetchTopic<'a>> {
        self.left = self.left.checked_sub(1)?;
        // `parse` walked the same bytes, so this cannot fail.
        self.read().ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<'a> FetchTopic<'a> {
    /// The partitions, in the order of the request.
    pub fn partitions(&self) -> FetchPartitions<'a> {
        self.partitions.clone()
    }
}

/// Iterates over the partitions of a topic.
#[derive(Clone, Debug)]
pub struct FetchPartitions<'a> {
    reader: Reader<'a>,
    left: usize,
    version: i16,
}

impl FetchPartitions<'_> {
    fn bytes_min(version: i16) -> usize {
        // index, offset, max bytes; log start offset; current epoch; last epoch and tags
        16 + 8 * usize::from(version >= 5) + 4 * usize::from(version >= 9) + 5 * usize::from(version >= 12)
    }

    fn read(&mut self) -> Result<FetchPartition, WireError> {
        let version = self.version;
        let reader = &mut self.reader;
        let index = reader.i32("partition index")?;
        let current = if version >= 9 { reader.i32("current leader epoch")? } else { -1 };
        let fetch_offset = Offset(reader.i64("fetch offset")?);
        let last = if version >= 12 { reader.i32("last fetched epoch")? } else { -1 };
        let log_start = if version >= 5 { reader.i64("log start offset")? } else { -1 };
        let mut partition = FetchPartition {
            index,
            current_leader_epoch: LeaderEpoch(current),
            fetch_offset,
            last_fetched_epoch: LeaderEpoch(last),
            log_start_offset: Offset(log_start),
            max_bytes: reader.i32("partition max bytes")?,
            replica_directory_id: TopicId::ZERO,
            high_watermark: Offset(i64::MAX),
        };
        reader.tags("partition tags", |tag, content| match tag {
            0 if version >= 17 => {
                partition.replica_directory_id = content.uuid("replica directory id")?;
                Ok(true)
            }
            1 if version >= 18 => {
                partition.high_watermark = Offset(content.i64("high watermark")?);
                Ok(true)
            }
            _ => Ok(false),
        })?;
        Ok(partition)
    }
}

impl Iterator for FetchPartitions<'_> {
    type Item = FetchPartition;

    fn next(&mut self) -> Option<FetchPartition> {
        self.left = self.left.checked_sub(1)?;
        self.read().ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

/// Iterates over the topics that a session shall forget.
#[derive(Clone, Debug)]
pub struct ForgottenTopics<'a> {
    reader: Reader<'a>,
    left: usize,
    version: i16,
}

impl<'a> ForgottenTopics<'a> {
    fn check(reader: &mut Reader<'a>, version: i16) -> Result<ForgottenTopics<'a>, WireError> {
        if version < 7 {
            return Ok(ForgottenTopics { reader: reader.clone(), left: 0, version });
        }
        let left = reader.array("forgotten topics", topic_bytes_min(by_id(version), reader.encoding()))?;
        let topics = ForgottenTopics { reader: reader.clone(), left, version };
        let mut walk = topics.clone();
        for _ in 0..left {
            walk.read()?;
        }
        *reader = walk.reader;
        Ok(topics)
    }

    fn read(&mut self) -> Result<ForgottenTopic<'a>, WireError> {
        let topic = TopicRef::read(&mut self.reader, by_id(self.version))?;
        let partition_count = self.reader.array("forgotten partitions", 4)?;
        let partitions = self.reader.clone();
        for _ in 0..partition_count {
            self.reader.i32("forgotten partition")?;
        }
        self.reader.skip_tags("forgotten topic tags")?;
        Ok(ForgottenTopic { topic, partition_count, partitions })
    }
}

impl<'a> Iterator for ForgottenTopics<'a> {
    type Item = ForgottenTopic<'a>;

    fn next(&mut self) -> Option<ForgottenTopic<'a>> {
        self.left = self.left.checked_sub(1)?;
        self.read().ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<'a> ForgottenTopic<'a> {
    /// Indexes of the partitions, in the order of the request.
    pub fn partitions(&self) -> impl Iterator<Item = i32> + use<'a> {
        let mut reader = self.partitions.clone();
        (0..self.partition_count).map_while(move |_| reader.i32("forgotten partition").ok())
    }
}

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
