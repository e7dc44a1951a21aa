//! What a consumer or follower asks for.

use super::{VERSIONS, by_id};
use crate::api::{ApiKey, Encoding};
use crate::error::{WireError, WireErrorKind};
use crate::frame::RequestHeader;
use crate::reader::Reader;
use crate::topic::{ById, TopicRef, bound};
use ringmill_types::{LeaderEpoch, Offset, TopicId};

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
    /// [`WireError`] for a body that is not whole, one with more topics or partitions than a node can have
    /// (`limits::PARTITIONS_MAX`), an isolation level that does not exist, or a version outside
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
        bound(reader, "topics", left)?;
        let topics = FetchTopics { reader: reader.clone(), left, version };
        let mut walk = topics.clone();
        let mut partition_count = 0;
        for _ in 0..left {
            partition_count += walk.read()?.partition_count;
            bound(&walk.reader, "partitions", partition_count)?;
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
        bound(reader, "forgotten topics", left)?;
        let topics = ForgottenTopics { reader: reader.clone(), left, version };
        let mut walk = topics.clone();
        let mut partition_count = 0;
        for _ in 0..left {
            partition_count += walk.read()?.partition_count;
            bound(&walk.reader, "forgotten partitions", partition_count)?;
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
