//! Small structures that Produce and Fetch share.

use crate::api::Encoding;
use crate::error::{WireError, WireErrorKind};
use crate::reader::Reader;
use crate::writer::Writer;
use ringmill_types::limits::PARTITIONS_MAX;
use ringmill_types::{LeaderEpoch, TopicId};

/// How a request names a topic: by name, or by id from Fetch 13 and Produce 13 on (KIP-516).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TopicRef<'a> {
    Name(&'a str),
    Id(TopicId),
}

impl<'a> TopicRef<'a> {
    pub(crate) fn read(reader: &mut Reader<'a>, by_id: ById) -> Result<TopicRef<'a>, WireError> {
        match by_id {
            ById::Yes => reader.uuid("topic id").map(TopicRef::Id),
            ById::No => reader.string("topic name").map(TopicRef::Name),
        }
    }

    /// Writes what the version wants: the caller gives the form that the request had.
    pub(crate) fn write(self, writer: &mut Writer<'_>, by_id: ById) {
        match (self, by_id) {
            (TopicRef::Id(id), ById::Yes) => writer.uuid(id),
            (TopicRef::Name(name), ById::No) => writer.string(name),
            (TopicRef::Name(name), ById::Yes) => panic!("topic {name} answered by name where ids are spoken"),
            (TopicRef::Id(id), ById::No) => panic!("topic {id:?} answered by id where names are spoken"),
        }
    }
}

/// Whether a version names topics by id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ById {
    No,
    Yes,
}

impl ById {
    /// Least bytes of a topic's name or id.
    pub(crate) fn bytes_min(self, encoding: Encoding) -> usize {
        match (self, encoding) {
            (ById::Yes, _) => 16,
            (ById::No, Encoding::Classic) => 2,
            (ById::No, Encoding::Flexible) => 1,
        }
    }
}

/// Bounds what a request makes its reader remember: names of a few bytes each would otherwise buy a hundred times their
/// size. Nobody can mean more than the node could have.
pub(crate) fn bound(reader: &Reader<'_>, field: &'static str, count: usize) -> Result<(), WireError> {
    if count <= PARTITIONS_MAX {
        return Ok(());
    }
    Err(reader.error(field, WireErrorKind::TooMany { count, max: PARTITIONS_MAX }))
}

/// Who leads a partition, for answers that send the client elsewhere (KIP-951).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaderAndEpoch {
    pub leader_id: i32,
    pub epoch: LeaderEpoch,
}

impl LeaderAndEpoch {
    /// Content of the `CurrentLeader` tag: two integers and an empty tag section.
    pub(crate) fn tag_content(self) -> [u8; 9] {
        let mut content = [0; 9];
        for (to, from) in
            content.iter_mut().zip(self.leader_id.to_be_bytes().into_iter().chain(self.epoch.0.to_be_bytes()))
        {
            *to = from;
        }
        content
    }
}

/// Where a leader named in the same answer listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeEndpoint<'a> {
    pub node_id: i32,
    pub host: &'a str,
    pub port: i32,
    pub rack: Option<&'a str>,
}

/// Ends an answer's body: the `NodeEndpoints` tag (0) when there are any.
pub(crate) fn write_node_endpoints(writer: &mut Writer<'_>, endpoints: &[NodeEndpoint<'_>]) {
    if endpoints.is_empty() {
        writer.no_tags();
        return;
    }
    let mut content = Vec::new();
    let mut inner = Writer::new(&mut content, Encoding::Flexible);
    inner.array(endpoints.len());
    for endpoint in endpoints {
        inner.i32(endpoint.node_id);
        inner.string(endpoint.host);
        inner.i32(endpoint.port);
        inner.nullable_string(endpoint.rack);
        inner.no_tags();
    }
    writer.tag_count(1);
    writer.tag(0, &content);
}
