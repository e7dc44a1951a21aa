//! DescribeConfigs. What changes them is in [`super::alter_configs`].

use super::{Call, Outcome, Refusal, code, message, text};
use crate::configs::groups::{describe_group, describe_metrics};
use crate::configs::{self, Described, Resource, Source};
use crate::control::Control;
use kafka_wire::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_wire::{DescribeConfigsRequest, DescribeConfigsResponse};
use ringmill_types::{ErrorCode, topic_name};
use std::collections::HashSet;

pub(super) type Problem = (ErrorCode, String);

pub(crate) fn describe_configs(control: &mut Control, call: &Call<'_>) -> Result<Outcome, Refusal> {
    let request: DescribeConfigsRequest = call.decode()?;
    let mut results = Vec::new();
    // Named twice it is answered once: small requests must not become answers of any size.
    let mut seen = HashSet::new();
    for resource in &request.resources {
        if !seen.insert((resource.resource_type, resource.resource_name.as_str())) {
            continue;
        }
        let name = resource.resource_name.as_str();
        let described = match Resource::of(resource.resource_type) {
            Some(kind) => described(control, kind, name),
            None => {
                let reason = format!("Unknown resource type {}", resource.resource_type);
                Err((ErrorCode::InvalidRequest, reason))
            }
        };
        let mut result = message!(DescribeConfigsResult {
            resource_type: resource.resource_type,
            resource_name: resource.resource_name.clone()
        });
        match described {
            Ok(list) => {
                // No keys, as null or as an empty list, asks for all.
                let wanted = |name: &str| {
                    resource
                        .configuration_keys
                        .as_ref()
                        .is_none_or(|keys| keys.is_empty() || keys.iter().any(|k| k.as_str() == name))
                };
                let list = list.into_iter().filter(|c| wanted(&c.name));
                result.configs =
                    list.map(|c| shown(c, request.include_synonyms, request.include_documentation)).collect();
                result.error_message = Some(text(""));
            }
            Err((error, reason)) => {
                result.error_code = code(error);
                result.error_message = Some(text(reason));
            }
        }
        results.push(result);
    }
    Ok(Outcome::Now(call.encode(&message!(DescribeConfigsResponse { results: results }))?))
}

fn described(control: &Control, kind: Resource, name: &str) -> Result<Vec<Described>, Problem> {
    let (defaults, options) = (&control.options.defaults, &control.options);
    match kind {
        Resource::Topic => match control.image.named(name) {
            Some(topic) => Ok(configs::describe_topic(&topic.configs, defaults)),
            // As Kafka: a bad name is explained, an unknown one is not.
            None => Err(topic_name::check(name).map_or_else(
                |bad| (ErrorCode::InvalidTopicException, bad.to_string()),
                |()| (ErrorCode::UnknownTopicOrPartition, String::new()),
            )),
        },
        Resource::Broker if name.is_empty() => Ok(configs::describe_cluster(defaults)),
        Resource::Broker => broker(control, name, "or empty string, ")
            .map(|()| configs::describe_broker(defaults, &options.settings, options.node_id)),
        Resource::BrokerLogger if name.is_empty() => {
            Err((ErrorCode::InvalidRequest, "Broker id must not be empty".to_string()))
        }
        Resource::BrokerLogger => broker(control, name, "").map(|()| loggers(control)),
        Resource::ClientMetrics if name.is_empty() => {
            Err((ErrorCode::InvalidRequest, "Client metrics subscription name must not be empty".to_string()))
        }
        Resource::Group if name.is_empty() => {
            Err((ErrorCode::InvalidRequest, "Group name must not be empty".to_string()))
        }
        Resource::ClientMetrics => Ok(describe_metrics(control.image.resource(kind as i8, name))),
        Resource::Group => Ok(describe_group(control.image.resource(kind as i8, name))),
    }
}

/// Kafka gives levels without type, synonyms and words.
fn loggers(control: &Control) -> Vec<Described> {
    let levels = control.loggers.levels().into_iter().map(|(name, level)| Described {
        name: name.to_string(),
        value: Some(level),
        source: Source::BrokerLogger,
        is_default: false,
        kind_code: 0,
        doc: "",
        synonyms: Vec::new(),
        read_only: false,
        sensitive: false,
    });
    levels.collect()
}

/// `or_else`: Kafka's words for what else the resource may be called.
fn broker(control: &Control, name: &str, or_else: &str) -> Result<(), Problem> {
    let ours = control.options.node_id;
    let reason = match name.parse::<i32>() {
        Ok(id) if id == ours => return Ok(()),
        Ok(_) if or_else.is_empty() => format!("Unexpected broker id, expected {ours} but received {name}"),
        Ok(_) => format!("Unexpected broker id, expected {ours} {or_else}but received {name}"),
        Err(_) => format!("Broker id must be an integer, but it is: {name}"),
    };
    Err((ErrorCode::InvalidRequest, reason))
}

fn shown(config: Described, synonyms: bool, documentation: bool) -> DescribeConfigsResourceResult {
    let list = config.synonyms.into_iter().map(|(name, value, source)| {
        message!(DescribeConfigsSynonym { name: text(name), value: value.map(text), source: source as i8 })
    });
    message!(DescribeConfigsResourceResult {
        name: text(config.name),
        value: config.value.map(text),
        read_only: config.read_only,
        config_source: config.source as i8,
        is_sensitive: config.sensitive,
        synonyms: if synonyms { list.collect() } else { Vec::new() },
        config_type: config.kind_code,
        documentation: (documentation && !config.doc.is_empty()).then(|| text(config.doc)),
    })
}
