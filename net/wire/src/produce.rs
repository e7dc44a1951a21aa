//! Produce 3–13.
//!
//! A request is checked to its end before the first partition is handed out, so nothing happens for a frame that turns
//! out to be damaged; walking it again costs a few loads per partition. Records are borrowed from the frame.

use crate::api::{ApiKey, Encoding};
use crate::error::WireError;
use crate::frame::{self, RequestHeader, ResponseHead};
use crate::reader::Reader;
use crate::topic::{ById, LeaderAndEpoch, NodeEndpoint, TopicRef, bound, write_node_endpoints};
use crate::writer::Writer;
use ringmill_types::{ErrorCode, Offset};

/// First and last version of this codec.
pub const VERSIONS: std::ops::RangeInclusive<i16> = 3..=13;

fn by_id(version: i16) -> ById {
    if version >= 13 { ById::Yes } else { ById::No }
}

/// A checked Produce request, borrowed from its frame.
#[derive(Clone, Debug)]
pub struct ProduceRequest<'a> {
    pub transactional_id: Option<&'a str>,
    /// -1, 0 or 1; other values are for the caller to refuse (INVALID_REQUIRED_ACKS).
    pub acks: i16,
    pub timeout_ms: i32,
    /// Topics in the request; the answer has as many.
    pub topic_count: usize,
    /// Partitions of all topics together.
    pub partition_count: usize,
    /// Record bytes of all partitions together.
    pub records_bytes: usize,
    topics: ProduceTopics<'a>,
}

/// One topic of a request.
#[derive(Clone, Debug)]
pub struct ProduceTopic<'a> {
    pub topic: TopicRef<'a>,
    pub partition_count: usize,
    partitions: ProducePartitions<'a>,
}

/// Records for one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducePartition<'a> {
    pub index: i32,
    /// Record batches, unchecked; `None` is a null, which Kafka answers with INVALID_RECORD.
    pub records: Option<&'a [u8]>,
    /// Where `records` begins in the frame, for handing the range on together with the received buffer.
    pub records_at: usize,
}

impl<'a> ProduceRequest<'a> {
    /// Reads the body of `frame`, whose header is `header`. Bytes after the body are ignored, as Kafka ignores them.
    ///
    /// # Errors
    /// [`WireError`] for a body that is not whole, one with more topics or partitions than a node can have
    /// (`limits::PARTITIONS_MAX`), or a version outside [`VERSIONS`].
    pub fn parse(header: &RequestHeader<'_>, frame: &'a [u8]) -> Result<ProduceRequest<'a>, WireError> {
        header.expect_version(ApiKey::PRODUCE, VERSIONS)?;
        let mut reader = Reader::new(frame, header.body_at, header.encoding);
        let transactional_id = reader.nullable_string("transactional id")?;
        let acks = reader.i16("acks")?;
        let timeout_ms = reader.i32("timeout")?;
        let by_id = by_id(header.api_version);
        let topic_count = reader.array("topics", topic_bytes_min(by_id, header.encoding))?;
        bound(&reader, "topics", topic_count)?;
        let mut walk = ProduceTopics { reader, left: topic_count, by_id };
        let topics = walk.clone();
        let (mut partition_count, mut records_bytes) = (0, 0);
        for _ in 0..topic_count {
            let mut partitions = walk.read_topic()?.partitions;
            partition_count += partitions.left;
            bound(&partitions.reader, "partitions", partition_count)?;
            for _ in 0..partitions.left {
                records_bytes += partitions.read()?.records.map_or(0, <[u8]>::len);
            }
            walk.reader = partitions.reader;
            walk.reader.skip_tags("topic tags")?;
        }
        walk.reader.skip_tags("request tags")?;
        Ok(ProduceRequest {
            transactional_id,
            acks,
            timeout_ms,
            topic_count,
            partition_count,
            records_bytes,
            topics,
        })
    }

    /// The topics, in the order of the request.
    pub fn topics(&self) -> ProduceTopics<'a> {
        self.topics.clone()
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
pub struct ProduceTopics<'a> {
    reader: Reader<'a>,
    left: usize,
    by_id: ById,
}

impl<'a> ProduceTopics<'a> {
    /// Reads a topic up to its partitions.
    fn read_topic(&mut self) -> Result<ProduceTopic<'a>, WireError> {
        let topic = TopicRef::read(&mut self.reader, self.by_id)?;
        let partition_bytes_min = match self.reader.encoding() {
            Encoding::Classic => 8,
            Encoding::Flexible => 6,
        };
        let partition_count = self.reader.array("partitions", partition_bytes_min)?;
        let partitions = ProducePartitions { reader: self.reader.clone(), left: partition_count };
        Ok(ProduceTopic { topic, partition_count, partitions })
    }

    fn advance(&mut self) -> Result<ProduceTopic<'a>, WireError> {
        let topic = self.read_topic()?;
        let mut partitions = topic.partitions();
        for _ in 0..topic.partition_count {
            partitions.read()?;
        }
        self.reader = partitions.reader;
        self.reader.skip_tags("topic tags")?;
        Ok(topic)
    }
}

impl<'a> Iterator for ProduceTopics<'a> {
    type Item = ProduceTopic<'a>;

    fn next(&mut self) -> Option<ProduceTopic<'a>> {
        self.left = self.left.checked_sub(1)?;
        // `parse` walked the same bytes, so this cannot fail.
        self.advance().ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<'a> ProduceTopic<'a> {
    /// The partitions, in the order of the request.
    pub fn partitions(&self) -> ProducePartitions<'a> {
        self.partitions.clone()
    }
}

/// Iterates over the partitions of a topic.
#[derive(Clone, Debug)]
pub struct ProducePartitions<'a> {
    reader: Reader<'a>,
    left: usize,
}

impl<'a> ProducePartitions<'a> {
    fn read(&mut self) -> Result<ProducePartition<'a>, WireError> {
        let index = self.reader.i32("partition index")?;
        let records = self.reader.nullable_bytes("records")?;
        let records_at = self.reader.position() - records.map_or(0, <[u8]>::len);
        self.reader.skip_tags("partition tags")?;
        Ok(ProducePartition { index, records, records_at })
    }
}

impl<'a> Iterator for ProducePartitions<'a> {
    type Item = ProducePartition<'a>;

    fn next(&mut self) -> Option<ProducePartition<'a>> {
        self.left = self.left.checked_sub(1)?;
        self.read().ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

/// The answer for one partition. Fields that a version does not have are left out.
#[derive(Clone, Copy, Debug)]
pub struct ProducePartitionAnswer<'a> {
    pub index: i32,
    pub error: ErrorCode,
    /// Of the first record; -1 with an error.
    pub base_offset: Offset,
    /// -1 for CreateTime.
    pub log_append_time_ms: i64,
    /// -1 with an error.
    pub log_start_offset: Offset,
    /// Records at fault, version 8 on.
    pub record_errors: &'a [RecordError<'a>],
    /// What was wrong with all of them, version 8 on.
    pub error_message: Option<&'a str>,
    /// Who leads instead, version 10 on.
    pub current_leader: Option<LeaderAndEpoch>,
}

impl ProducePartitionAnswer<'_> {
    /// An answer that says nothing but the error.
    pub fn error(index: i32, error: ErrorCode) -> ProducePartitionAnswer<'static> {
        ProducePartitionAnswer {
            index,
            error,
            base_offset: Offset(-1),
            log_append_time_ms: -1,
            log_start_offset: Offset(-1),
            record_errors: &[],
            error_message: None,
            current_leader: None,
        }
    }
}

/// Why one record of a batch was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordError<'a> {
    /// Position of the record in the batch.
    pub batch_index: i32,
    pub message: Option<&'a str>,
}

/// Writes an answer to the end of a connection's output: `begin`, then per topic [`topic`](Self::topic) and its
/// [`partition`](Self::partition)s, then [`finish`](Self::finish). Counts are given ahead, because they are written
/// ahead; keeping to them is asserted.
#[derive(Debug)]
pub struct ProduceResponse<'b> {
    out: &'b mut Vec<u8>,
    start: usize,
    version: i16,
    encoding: Encoding,
    topics_left: usize,
    partitions_left: usize,
    in_topic: bool,
}

impl<'b> ProduceResponse<'b> {
    /// Begins the answer to the request that `head` is from.
    pub fn begin(out: &'b mut Vec<u8>, head: ResponseHead, topic_count: usize) -> ProduceResponse<'b> {
        assert_eq!(head.api_key, ApiKey::PRODUCE);
        let start = head.begin(out);
        let encoding = head.encoding();
        Writer::new(out, encoding).array(topic_count);
        ProduceResponse {
            out,
            start,
            version: head.api_version,
            encoding,
            topics_left: topic_count,
            partitions_left: 0,
            in_topic: false,
        }
    }

    fn writer(&mut self) -> Writer<'_> {
        Writer::new(self.out, self.encoding)
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
    pub fn partition(&mut self, answer: &ProducePartitionAnswer<'_>) {
        self.partitions_left =
            self.partitions_left.checked_sub(1).expect("no more partitions than announced");
        let version = self.version;
        let mut writer = self.writer();
        writer.i32(answer.index);
        writer.i16(answer.error.code());
        writer.i64(answer.base_offset.0);
        writer.i64(answer.log_append_time_ms);
        if version >= 5 {
            writer.i64(answer.log_start_offset.0);
        }
        if version >= 8 {
            writer.array(answer.record_errors.len());
            for error in answer.record_errors {
                writer.i32(error.batch_index);
                writer.nullable_string(error.message);
                writer.no_tags();
            }
            writer.nullable_string(answer.error_message);
        }
        match answer.current_leader {
            Some(leader) if version >= 10 => {
                writer.tag_count(1);
                writer.tag(0, &leader.tag_content());
            }
            _ => writer.no_tags(),
        }
    }

    /// Ends the answer. `endpoints` says where the leaders named in it listen, version 10 on.
    pub fn finish(mut self, throttle_ms: i32, endpoints: &[NodeEndpoint<'_>]) {
        self.end_topic();
        assert_eq!(self.topics_left, 0, "a topic has no answer");
        let endpoints = if self.version >= 10 { endpoints } else { &[] };
        let mut writer = self.writer();
        writer.i32(throttle_ms);
        write_node_endpoints(&mut writer, endpoints);
        frame::patch_length(self.out, self.start, 0).expect("an answer is a fraction of its request");
    }
}
