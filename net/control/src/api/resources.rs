//! ListConfigResources: the names of everything that may have configs (KIP-1142).

use super::{Call, Outcome, Refusal, code, message, text};
use crate::configs::Resource;
use crate::control::Control;
use kafka_wire::list_config_resources_response::ConfigResource;
use kafka_wire::{ListConfigResourcesRequest, ListConfigResourcesResponse};
use ringmill_types::ErrorCode;

pub(crate) fn list_config_resources(control: &mut Control, call: &Call<'_>) -> Result<Outcome, Refusal> {
    let request: ListConfigResourcesRequest = call.decode()?;
    // Version 0 listed client metrics only (KIP-714); later no type means every type.
    let wanted = |resource: Resource| match call.version() {
        0 => resource == Resource::ClientMetrics,
        _ => request.resource_types.is_empty() || request.resource_types.contains(&(resource as i8)),
    };
    if let Some(_other) = request.resource_types.iter().find(|kind| Resource::of(**kind).is_none()) {
        let response =
            message!(ListConfigResourcesResponse { error_code: code(ErrorCode::UnsupportedVersion) });
        return Ok(Outcome::Now(call.encode(&response)?));
    }
    let mut listed: Vec<ConfigResource> = Vec::new();
    let mut list = |resource: Resource, name: &str| {
        listed.push(message!(ConfigResource { resource_name: text(name), resource_type: resource as i8 }));
    };
    let node = control.options.node_id.to_string();
    for resource in [Resource::Group, Resource::ClientMetrics].into_iter().filter(|r| wanted(*r)) {
        for name in control.image.resources(resource as i8) {
            list(resource, name);
        }
    }
    for resource in [Resource::BrokerLogger, Resource::Broker].into_iter().filter(|r| wanted(*r)) {
        list(resource, &node);
    }
    if wanted(Resource::Topic) {
        control.image.topics().for_each(|topic| list(Resource::Topic, &topic.name));
    }
    Ok(Outcome::Now(call.encode(&message!(ListConfigResourcesResponse { config_resources: listed }))?))
}
