//! Kafka's error codes, those this broker gives. Numbers and meanings: `org.apache.kafka.common.protocol.Errors`.

macro_rules! error_codes {
    ($($name:ident = $code:literal, $text:literal;)*) => {
        /// A Kafka error code as it stands on the wire.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(i16)]
        pub enum ErrorCode {
            $(#[doc = $text] $name = $code,)*
        }

        impl ErrorCode {
            /// Every code there is, for the generated documentation and for round-trip tests.
            pub const ALL: &[ErrorCode] = &[$(ErrorCode::$name),*];

            /// The number on the wire.
            pub fn code(self) -> i16 {
                self as i16
            }

            /// Kafka's name of it: `NOT_LEADER_OR_FOLLOWER`.
            pub fn name(self) -> String {
                let mut name = String::new();
                for letter in format!("{self:?}").chars() {
                    if letter.is_ascii_uppercase() && !name.is_empty() {
                        name.push('_');
                    }
                    name.push(letter.to_ascii_uppercase());
                }
                name
            }

            /// What it means, in a sentence.
            pub fn text(self) -> &'static str {
                match self { $(ErrorCode::$name => $text,)* }
            }
        }
    };
}

error_codes! {
    UnknownServerError = -1, "The server met an error it did not expect.";
    None = 0, "No error.";
    OffsetOutOfRange = 1, "The requested offset is not within the range of offsets of the partition.";
    CorruptMessage = 2, "The batch failed its CRC check, has an invalid size or is otherwise damaged.";
    UnknownTopicOrPartition = 3, "This broker does not host this topic-partition.";
    InvalidFetchSize = 4, "The requested fetch size is invalid.";
    LeaderNotAvailable = 5, "There is no leader for this partition for the moment.";
    NotLeaderOrFollower = 6, "This broker does not lead the partition.";
    RequestTimedOut = 7, "The request timed out.";
    MessageTooLarge = 10, "The batch is larger than the topic allows.";
    OffsetMetadataTooLarge = 12, "The metadata field of the offset commit is too large.";
    NetworkException = 13, "The server disconnected before an answer was given.";
    CoordinatorLoadInProgress = 14, "The coordinator is still reading its groups.";
    CoordinatorNotAvailable = 15, "The coordinator is not available.";
    NotCoordinator = 16, "This broker is not the coordinator.";
    InvalidTopicException = 17, "The topic name is not allowed.";
    RecordListTooLarge = 18, "The request holds more records than one segment can.";
    NotEnoughReplicas = 19, "There are fewer in-sync replicas than required.";
    InvalidRequiredAcks = 21, "The acks value is none of -1, 0, 1.";
    IllegalGeneration = 22, "The generation of the request is not the group's.";
    InconsistentGroupProtocol = 23, "The protocols of the member do not fit those of the group.";
    InvalidGroupId = 24, "The group id is invalid.";
    UnknownMemberId = 25, "The group does not know the member.";
    InvalidSessionTimeout = 26, "The session timeout is outside of what the broker allows.";
    RebalanceInProgress = 27, "The group is rebalancing; the member has to join again.";
    InvalidCommitOffsetSize = 28, "The committed metadata is too large.";
    TopicAuthorizationFailed = 29, "Not authorized to access the topic.";
    ClusterAuthorizationFailed = 31, "Not authorized for the cluster.";
    InvalidTimestamp = 32, "The timestamp of the record is out of the accepted range.";
    UnsupportedVersion = 35, "The version of the API is not supported.";
    TopicAlreadyExists = 36, "A topic of this name exists already.";
    InvalidPartitions = 37, "The number of partitions is invalid.";
    InvalidReplicationFactor = 38, "The replication factor is below 1 or larger than the number of brokers.";
    InvalidReplicaAssignment = 39, "The replica assignment is invalid.";
    InvalidConfig = 40, "The configuration is invalid.";
    NotController = 41, "This is not the controller.";
    InvalidRequest = 42, "The request is malformed or asks for what cannot be.";
    UnsupportedForMessageFormat = 43, "The message format on the broker does not support the request.";
    PolicyViolation = 44, "The request does not satisfy a policy of the broker.";
    OutOfOrderSequenceNumber = 45, "The sequence number of the batch is not the next one.";
    DuplicateSequenceNumber = 46, "The sequence number of the batch was seen already.";
    InvalidProducerEpoch = 47, "The producer used an old epoch.";
    InvalidTxnState = 48, "The transaction is in a state that does not allow this.";
    InvalidProducerIdMapping = 49, "The producer id is not the one of the transactional id.";
    TransactionalIdAuthorizationFailed = 53, "The transactional id is not authorized.";
    SecurityDisabled = 54, "Security features are disabled.";
    KafkaStorageError = 56, "The disk of the partition failed or is full.";
    LogDirNotFound = 57, "The requested log folder is not known.";
    UnknownProducerId = 59, "The broker has no state for the producer id.";
    ReassignmentInProgress = 60, "A reassignment is in progress.";
    NonEmptyGroup = 68, "The group still has members.";
    GroupIdNotFound = 69, "There is no group of this id.";
    FetchSessionIdNotFound = 70, "The fetch session id is not known.";
    InvalidFetchSessionEpoch = 71, "The epoch of the fetch session is not the expected one.";
    TopicDeletionDisabled = 73, "Deletion of topics is switched off.";
    FencedLeaderEpoch = 74, "The leader epoch of the request is older than the broker's.";
    UnknownLeaderEpoch = 75, "The leader epoch of the request is newer than the broker's.";
    UnsupportedCompressionType = 76, "The client does not support the compression of the topic.";
    OffsetNotAvailable = 78, "The high watermark of the new leader is not known yet.";
    MemberIdRequired = 79, "The member has to join again with the id it was given.";
    PreferredLeaderNotAvailable = 80, "The preferred leader is not available.";
    GroupMaxSizeReached = 81, "The group has as many members as the broker allows.";
    FencedInstanceId = 82, "Another member has taken over this group.instance.id.";
    ElectionNotNeeded = 84, "The partition has the leader that an election would give it.";
    NoReassignmentInProgress = 85, "No reassignment is in progress.";
    GroupSubscribedToTopic = 86, "The group is subscribed to the topic.";
    InvalidRecord = 87, "The record failed validation on the broker.";
    ThrottlingQuotaExceeded = 89, "The client is over its quota for creating and deleting topics; it may try again after the throttle time.";
    ResourceNotFound = 91, "The resource was not found.";
    DuplicateResource = 92, "The resource exists already.";
    InvalidUpdateVersion = 95, "The feature cannot get this level.";
    UnknownTopicId = 100, "This broker does not host the topic id.";
    InconsistentTopicId = 103, "The topic id in the log is not the one of the request.";
    FetchSessionTopicIdError = 106, "The fetch session mixes topic ids with topic names.";
    FencedMemberEpoch = 110, "The member epoch is not the one the group knows; the member has to join again.";
    UnreleasedInstanceId = 111, "Another member still has this group.instance.id.";
    UnsupportedAssignor = 112, "The assignor is not known here.";
    StaleMemberEpoch = 113, "The member epoch is old; the member has to wait for its next heartbeat.";
    MismatchedEndpointType = 114, "Endpoints of another kind were asked for than the listener serves.";
    UnsupportedEndpointType = 115, "There is no such kind of endpoints.";
    InvalidRegularExpression = 128, "The regular expression of the subscription is invalid.";
}
