//! Metadata 0–13.
//!
//! A request is checked to its end before the first topic is handed out. What an answer says after its throttle time, its
//! body, is the same for everybody who asks the same: it is written apart from its [`begin`]ning, so that it can be kept.

use crate::api::ApiKey;
use crate::error::{WireError, WireErrorKind};
use crate::frame::{RequestHeader, ResponseHead};
use crate::reader::Reader;
use crate::topic::NodeEndpoint;
use crate::writer::Writer;
use ringmill_types::limits::REQUEST_ITEMS_MAX;
use ringmill_types::{ErrorCode, LeaderEpoch, TopicId};

/// First and last version of this codec.
pub const VERSIONS: std::ops::RangeInclusive<i16> = 0..=13;

/// Bits of `AclOperation` that a topic and a cluster allow when nothing is forbidden.
pub const TOPIC_OPERATIONS: i32 = 3576;
pub const CLUSTER_OPERATIONS: i32 = 8096;

/// Nobody asked which operations are allowed.
const NOT_ASKED: i32 = i32::MIN;

/// A checked Metadata request, borrowed from its frame. Fields that a version does not have hold Kafka's defaults.
#[derive(Clone, Debug)]
pub struct MetadataRequest<'a> {
    /// It names no topics because it wants all of them: null, and in version 0 an empty list.
    pub all: bool,
    pub topic_count: usize,
    /// Version 4 on: whether topics may come into being by their being named here.
    pub may_create: bool,
    /// Versions 8 to 10.
    pub cluster_operations: bool,
    /// Version 8 on.
    pub topic_operations: bool,
    topics: MetadataTopics<'a>,
}

/// A topic that a request names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetadataTopic<'a> {
    /// Version 10 on; zero for one that goes by its name.
    pub id: TopicId,
    /// May be `None` from version 10 on.
    pub name: Option<&'a str>,
}

impl<'a> MetadataRequest<'a> {
    /// Reads the body of `frame`, whose header is `header`. Bytes after the body are ignored, as Kafka ignores them:
    /// librdkafka's version 13 has some.
    ///
    /// # Errors
    /// [`WireError`] for a body that is not whole, more topics than one request may name (`limits::REQUEST_ITEMS_MAX`), a
    /// longer name than the protocol's strings can be, or a version outside [`VERSIONS`].
    pub fn parse(header: &RequestHeader<'_>, frame: &'a [u8]) -> Result<MetadataRequest<'a>, WireError> {
        header.expect_version(ApiKey::METADATA, VERSIONS)?;
        let version = header.api_version;
        let mut reader = Reader::new(frame, header.body_at, header.encoding);
        let (topics, is_null) = MetadataTopics::check(&mut reader, version)?;
        let may_create = version < 4 || reader.bool("allow auto topic creation")?;
        let cluster_operations =
            (8..=10).contains(&version) && reader.bool("include cluster authorized operations")?;
        let topic_operations = version >= 8 && reader.bool("include topic authorized operations")?;
        reader.skip_tags("request tags")?;
        let all = is_null || (version == 0 && topics.left == 0);
        let topic_count = topics.left;
        Ok(MetadataRequest { all, topic_count, may_create, cluster_operations, topic_operations, topics })
    }

    /// The topics, in the order of the request.
    pub fn topics(&self) -> MetadataTopics<'a> {
        self.topics.clone()
    }
}

/// Iterates over the topics of a request.
#[derive(Clone, Debug)]
pub struct MetadataTopics<'a> {
    reader: Reader<'a>,
    left: usize,
    version: i16,
}

impl<'a> MetadataTopics<'a> {
    /// Walks all topics once, moving `reader` behind them; returns the iterator that will walk them again, and whether the
    /// list is null.
    fn check(reader: &mut Reader<'a>, version: i16) -> Result<(MetadataTopics<'a>, bool), WireError> {
        // The id, and two bytes: the length of the name, or its shorter one and the tags.
        let bytes_min = 16 * usize::from(version >= 10) + 2;
        let count = match version {
            0 => Some(reader.array("topics", bytes_min)?),
            _ => reader.nullable_array("topics", bytes_min)?,
        };
        let left = count.unwrap_or(0);
        if left > REQUEST_ITEMS_MAX {
            let kind = WireErrorKind::TooMany { count: left, max: REQUEST_ITEMS_MAX };
            return Err(reader.error("topics", kind));
        }
        let topics = MetadataTopics { reader: reader.clone(), left, version };
        let mut walk = topics.clone();
        for _ in 0..left {
            walk.read()?;
        }
        *reader = walk.reader;
        Ok((topics, count.is_none()))
    }

    fn read(&mut self) -> Result<MetadataTopic<'a>, WireError> {
        let reader = &mut self.reader;
        let (id, name) = if self.version >= 10 {
            (reader.uuid("topic id")?, reader.nullable_string("topic name")?)
        } else {
            (TopicId::ZERO, Some(reader.string("topic name")?))
        };
        if let Some(name) = name.filter(|name| name.len() > i16::MAX as usize) {
            return Err(reader.error("topic name", WireErrorKind::LongString(name.len())));
        }
        reader.skip_tags("topic tags")?;
        Ok(MetadataTopic { id, name })
    }
}

impl<'a> Iterator for MetadataTopics<'a> {
    type Item = MetadataTopic<'a>;

    fn next(&mut self) -> Option<MetadataTopic<'a>> {
        self.left = self.left.checked_sub(1)?;
        // `parse` walked the same bytes, so this cannot fail.
        self.read().ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

/// Appends all of an answer that comes before its body: length (0 for now), header, and a throttle time of 0 where the
/// version has one. Returns where the length is, for [`patch_length`](crate::frame::patch_length).
pub fn begin(head: ResponseHead, out: &mut Vec<u8>) -> usize {
    assert_eq!(head.api_key, ApiKey::METADATA);
    let start = head.begin(out);
    if head.api_version >= 3 {
        Writer::new(out, head.encoding()).i32(0);
    }
    start
}

/// Who answers, and for whom.
#[derive(Clone, Copy, Debug)]
pub struct ClusterAnswer<'a> {
    pub brokers: &'a [NodeEndpoint<'a>],
    /// Version 2 on.
    pub id: Option<&'a str>,
    /// Version 1 on.
    pub controller_id: i32,
}

/// What is said of one topic, without its partitions. Fields that a version does not have are left out.
#[derive(Clone, Copy, Debug)]
pub struct TopicAnswer<'a> {
    pub error: ErrorCode,
    /// `None` with an id that nobody has; an empty text before version 12, which has no null here.
    pub name: Option<&'a str>,
    /// Version 10 on.
    pub id: TopicId,
    /// Version 1 on.
    pub is_internal: bool,
    /// Version 8 on; `None` where nobody asked.
    pub operations: Option<i32>,
}

/// What is said of one partition.
#[derive(Clone, Copy, Debug)]
pub struct PartitionAnswer<'a> {
    pub error: ErrorCode,
    pub index: i32,
    pub leader_id: i32,
    /// Version 7 on.
    pub leader_epoch: LeaderEpoch,
    pub replicas: &'a [i32],
    pub isr: &'a [i32],
    /// Version 5 on.
    pub offline: &'a [i32],
}

/// Writes a body: `begin`, then each [`topic`](Self::topic), then [`finish`](Self::finish). The count of topics is given
/// ahead, because it is written ahead; keeping to it is asserted.
#[derive(Debug)]
pub struct MetadataBody<'b> {
    writer: Writer<'b>,
    version: i16,
    topics_left: usize,
}

impl<'b> MetadataBody<'b> {
    /// Begins the body of an answer of this version, appended to `out`.
    pub fn begin(
        out: &'b mut Vec<u8>,
        version: i16,
        cluster: &ClusterAnswer<'_>,
        topic_count: usize,
    ) -> MetadataBody<'b> {
        assert!(VERSIONS.contains(&version));
        let encoding = ApiKey::METADATA.encoding(version).expect("a known API");
        let mut writer = Writer::new(out, encoding);
        writer.array(cluster.brokers.len());
        for broker in cluster.brokers {
            writer.i32(broker.node_id);
            writer.string(broker.host);
            writer.i32(broker.port);
            if version >= 1 {
                writer.nullable_string(broker.rack);
            }
            writer.no_tags();
        }
        if version >= 2 {
            writer.nullable_string(cluster.id);
        }
        if version >= 1 {
            writer.i32(cluster.controller_id);
        }
        writer.array(topic_count);
        MetadataBody { writer, version, topics_left: topic_count }
    }

    /// Writes the next topic.
    pub fn topic<'p>(
        &mut self,
        topic: &TopicAnswer<'_>,
        partitions: impl ExactSizeIterator<Item = PartitionAnswer<'p>>,
    ) {
        self.topics_left = self.topics_left.checked_sub(1).expect("no more topics than announced");
        let (version, writer) = (self.version, &mut self.writer);
        writer.i16(topic.error.code());
        if version >= 12 {
            writer.nullable_string(topic.name);
        } else {
            writer.string(topic.name.unwrap_or_default());
        }
        if version >= 10 {
            writer.uuid(topic.id);
        }
        if version >= 1 {
            writer.bool(topic.is_internal);
        }
        writer.array(partitions.len());
        for partition in partitions {
            write_partition(writer, version, &partition);
        }
        if version >= 8 {
            writer.i32(topic.operations.unwrap_or(NOT_ASKED));
        }
        writer.no_tags();
    }

    /// Ends the body; `cluster_operations` exist in versions 8 to 10.
    pub fn finish(mut self, cluster_operations: Option<i32>) {
        assert_eq!(self.topics_left, 0, "a topic has no answer");
        if (8..=10).contains(&self.version) {
            self.writer.i32(cluster_operations.unwrap_or(NOT_ASKED));
        }
        if self.version >= 13 {
            self.writer.i16(ErrorCode::None.code());
        }
        self.writer.no_tags();
    }
}

#[inline]
fn write_partition(writer: &mut Writer<'_>, version: i16, partition: &PartitionAnswer<'_>) {
    writer.i16(partition.error.code());
    writer.i32(partition.index);
    writer.i32(partition.leader_id);
    if version >= 7 {
        writer.i32(partition.leader_epoch.0);
    }
    write_nodes(writer, partition.replicas);
    write_nodes(writer, partition.isr);
    if version >= 5 {
        write_nodes(writer, partition.offline);
    }
    writer.no_tags();
}

#[inline]
fn write_nodes(writer: &mut Writer<'_>, nodes: &[i32]) {
    writer.array(nodes.len());
    for node in nodes {
        writer.i32(*node);
    }
}
