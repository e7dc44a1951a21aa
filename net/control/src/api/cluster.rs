//! FindCoordinator, DescribeCluster, ListPartitionReassignments: a cluster of one.

use super::{Call, Outcome, Refusal, code, message, text};
use crate::control::Control;
use kafka_wire::describe_cluster_response::DescribeClusterBroker;
use kafka_wire::find_coordinator_response::Coordinator;
use kafka_wire::{
    DescribeClusterRequest, DescribeClusterResponse, FindCoordinatorRequest, FindCoordinatorResponse,
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
};
use ringmill_types::ErrorCode;
use ringmill_wire::metadata::CLUSTER_OPERATIONS;

/// Kinds of endpoints that DescribeCluster may ask for.
const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;
/// Group, transaction, share group.
const KEY_TYPES: std::ops::RangeInclusive<i8> = 0..=2;

pub(crate) fn find_coordinator(control: &mut Control, call: &Call<'_>) -> Result<Outcome, Refusal> {
    let request: FindCoordinatorRequest = call.decode()?;
    let known = KEY_TYPES.contains(&request.key_type);
    // Whoever looks for a group's coordinator is about to use it.
    let made = request.key_type == 0 && control.ensure_offsets_topic();
    let (node_id, host, port) =
        (control.options.node_id, text(control.options.host.as_str()), i32::from(control.options.port));
    let response = if call.version() >= 4 {
        let coordinators = request.coordinator_keys.iter().map(|key| {
            if known {
                message!(Coordinator {
                    key: key.clone(),
                    node_id: node_id,
                    host: host.clone(),
                    port: port,
                    error_message: Some(text(""))
                })
            } else {
                message!(Coordinator {
                    key: key.clone(),
                    node_id: -1,
                    port: -1,
                    error_code: code(ErrorCode::InvalidRequest),
                    error_message: Some(text("Unknown key type."))
                })
            }
        });
        message!(FindCoordinatorResponse { coordinators: coordinators.collect() })
    } else if known {
        message!(FindCoordinatorResponse {
            error_message: Some(text("NONE")),
            node_id: node_id,
            host: host,
            port: port
        })
    } else {
        message!(FindCoordinatorResponse {
            error_code: code(ErrorCode::InvalidRequest),
            error_message: Some(text("Unknown key type.")),
            node_id: -1,
            port: -1
        })
    };
    let bytes = call.encode(&response)?;
    Ok(if made { Outcome::Applied(bytes) } else { Outcome::Now(bytes) })
}

pub(crate) fn describe_cluster(control: &mut Control, call: &Call<'_>) -> Result<Outcome, Refusal> {
    let request: DescribeClusterRequest = call.decode()?;
    // Here the broker is the controller, but it serves no controller listener (KIP-919).
    if call.version() >= 1 && request.endpoint_type != BROKERS {
        let (error, reason) = if request.endpoint_type == CONTROLLERS {
            let reason = "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER";
            (ErrorCode::MismatchedEndpointType, reason.to_string())
        } else {
            let reason = format!("Unsupported endpoint type {}", request.endpoint_type);
            (ErrorCode::UnsupportedEndpointType, reason)
        };
        let response = message!(DescribeClusterResponse {
            error_code: code(error),
            error_message: Some(text(reason)),
            controller_id: -1,
        });
        return Ok(Outcome::Now(call.encode(&response)?));
    }
    let mut response = message!(DescribeClusterResponse {
        cluster_id: text(control.options.cluster_id.as_str()),
        controller_id: control.options.node_id,
        brokers: vec![message!(DescribeClusterBroker {
            broker_id: control.options.node_id,
            host: text(control.options.host.as_str()),
            port: i32::from(control.options.port),
        })],
    });
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = CLUSTER_OPERATIONS;
    }
    Ok(Outcome::Now(call.encode(&response)?))
}

pub(crate) fn list_partition_reassignments(call: &Call<'_>) -> Result<Outcome, Refusal> {
    let _: ListPartitionReassignmentsRequest = call.decode()?;
    Ok(Outcome::Now(call.encode(&message!(ListPartitionReassignmentsResponse { error_message: None }))?))
}
