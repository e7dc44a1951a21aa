//! Whether an answer has an error in it, for the counters: Kafka counts an error code wherever it stands.

use kafka_wire as wire;

/// An answer as it leaves: header and body, without the length.
pub(crate) struct Reply {
    /// Empty where the core has the answer.
    pub bytes: Vec<u8>,
    /// An error code is in it.
    pub failed: bool,
}

/// An answer that can say whether an error code is in it.
pub(crate) trait Answered {
    fn failed(&self) -> bool;
}

/// One of the items has an error; each is named by its field.
macro_rules! any {
    ($items:expr) => { $items.iter().any(|item| item.error_code != 0) };
    ($items:expr, $($inner:ident).+) => { $items.iter().any(|item| any!(item.$($inner).+)) };
}

macro_rules! answered {
    ($($response:ident: |$answer:ident| $failed:expr;)*) => {
        $(impl Answered for wire::$response {
            fn failed(&self) -> bool {
                let $answer = self;
                $failed
            }
        })*
    };
}

answered! {
    AlterClientQuotasResponse: |a| any!(a.entries);
    AlterConfigsResponse: |a| any!(a.responses);
    AlterReplicaLogDirsResponse: |a| any!(a.results, partitions);
    ConsumerGroupDescribeResponse: |a| any!(a.groups);
    ConsumerGroupHeartbeatResponse: |a| a.error_code != 0;
    CreatePartitionsResponse: |a| any!(a.results);
    CreateTopicsResponse: |a| any!(a.topics);
    DeleteGroupsResponse: |a| any!(a.results);
    DeleteRecordsResponse: |a| any!(a.topics, partitions);
    DeleteTopicsResponse: |a| any!(a.responses);
    DescribeClientQuotasResponse: |a| a.error_code != 0;
    DescribeClusterResponse: |a| a.error_code != 0;
    DescribeConfigsResponse: |a| any!(a.results);
    DescribeGroupsResponse: |a| any!(a.groups);
    DescribeLogDirsResponse: |a| a.error_code != 0 || any!(a.results);
    DescribeProducersResponse: |a| any!(a.topics, partitions);
    DescribeTopicPartitionsResponse: |a| any!(a.topics) || any!(a.topics, partitions);
    DescribeUserScramCredentialsResponse: |a| a.error_code != 0 || any!(a.results);
    ElectLeadersResponse: |a| a.error_code != 0 || any!(a.replica_election_results, partition_result);
    FindCoordinatorResponse: |a| a.error_code != 0 || any!(a.coordinators);
    HeartbeatResponse: |a| a.error_code != 0;
    IncrementalAlterConfigsResponse: |a| any!(a.responses);
    InitProducerIdResponse: |a| a.error_code != 0;
    JoinGroupResponse: |a| a.error_code != 0;
    LeaveGroupResponse: |a| a.error_code != 0 || any!(a.members);
    ListConfigResourcesResponse: |a| a.error_code != 0;
    ListGroupsResponse: |a| a.error_code != 0;
    ListOffsetsResponse: |a| any!(a.topics, partitions);
    ListPartitionReassignmentsResponse: |a| a.error_code != 0;
    OffsetCommitResponse: |a| any!(a.topics, partitions);
    OffsetDeleteResponse: |a| a.error_code != 0 || any!(a.topics, partitions);
    OffsetFetchResponse: |a| {
        let old = a.error_code != 0 || any!(a.topics, partitions);
        old || any!(a.groups) || a.groups.iter().any(|group| any!(group.topics, partitions))
    };
    OffsetForLeaderEpochResponse: |a| any!(a.topics, partitions);
    SyncGroupResponse: |a| a.error_code != 0;
    UpdateFeaturesResponse: |a| a.error_code != 0 || any!(a.results);
}
