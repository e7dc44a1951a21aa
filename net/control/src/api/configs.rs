//! DescribeConfigs, AlterConfigs, IncrementalAlterConfigs.

use super::create::valid_name;
use super::{Call, Outcome, Refusal, code, message, text};
use crate::configs::{self, Described, Kind};
use crate::control::Control;
use kafka_wire::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_wire::{
    AlterConfigsRequest, AlterConfigsResponse, DescribeConfigsRequest, DescribeConfigsResponse,
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse, alter_configs_response,
    incremental_alter_configs_response,
};
use kafka_wire_core::StrBytes;
use ringmill_metadata::Record;
use ringmill_metadata::records::Configs;
use ringmill_types::ErrorCode;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const BROKER_LOGGER: i8 = 8;
const CLIENT_METRICS: i8 = 16;
const GROUP: i8 = 32;

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

type Problem = (ErrorCode, String);

pub(crate) fn describe_configs(control: &mut Control, call: &Call<'_>) -> Result<Outcome, Refusal> {
    let request: DescribeConfigsRequest = call.decode()?;
    let mut results = Vec::new();
    for resource in &request.resources {
        let name = resource.resource_name.as_str();
        let described = match resource.resource_type {
            TOPIC => match control.image.named(name) {
                Some(topic) => Ok(configs::describe_topic(&topic.configs, &control.options.defaults)),
                // As Kafka: a bad name is explained, an unknown one is not.
                None => Err(valid_name(name).map_or_else(
                    |reason| (ErrorCode::InvalidTopicException, reason),
                    |()| (ErrorCode::UnknownTopicOrPartition, String::new()),
                )),
            },
            // The cluster-wide dynamic defaults, of which there are none.
            BROKER if name.is_empty() => Ok(Vec::new()),
            BROKER => broker(control, name, "or empty string, ").map(|()| {
                configs::describe_broker(
                    &control.options.defaults,
                    &control.options.settings,
                    control.options.node_id,
                )
            }),
            BROKER_LOGGER if name.is_empty() => {
                Err((ErrorCode::InvalidRequest, "Broker id must not be empty".to_string()))
            }
            BROKER_LOGGER => broker(control, name, "").map(|()| Vec::new()),
            CLIENT_METRICS | GROUP => Ok(Vec::new()),
            other => Err((ErrorCode::InvalidRequest, format!("Unknown resource type {other}"))),
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
        documentation: documentation.then(|| text(config.doc)),
    })
}

/// Writes a topic's overrides, once they are valid.
fn apply(control: &mut Control, name: &str, configs: Configs, validate_only: bool) -> Result<bool, Problem> {
    control.options.defaults.check(&configs).map_err(|reason| (ErrorCode::InvalidConfig, reason))?;
    let Some(topic) = control.image.named(name) else {
        return Err((
            ErrorCode::UnknownTopicOrPartition,
            "The topic '".to_string() + name + "' does not exist.",
        ));
    };
    let (id, changed) = (topic.id, topic.configs != configs);
    if validate_only || !changed {
        return Ok(false);
    }
    control
        .decide(&[Record::TopicConfigs { id, configs }])
        .map_err(|e| (ErrorCode::KafkaStorageError, e.to_string()))?;
    Ok(true)
}

/// Only topics can be altered yet; the rest is set in the configuration file and at start.
fn only_topics(control: &Control, resource_type: i8, name: &str) -> Result<(), Problem> {
    let ours = control.options.node_id;
    match resource_type {
        TOPIC if name.is_empty() => {
            Err((ErrorCode::InvalidRequest, "Default topic resources are not allowed.".into()))
        }
        TOPIC => valid_name(name).map_err(|reason| (ErrorCode::InvalidTopicException, reason)),
        BROKER if !name.is_empty() && name.parse::<i32>().is_err() => {
            Err((ErrorCode::InvalidRequest, format!("Node id must be an integer, but it is: {name}")))
        }
        BROKER if !name.is_empty() && name.parse() != Ok(ours) => Err((
            ErrorCode::InvalidRequest,
            format!("Unexpected broker id, expected {ours}, but received {name}"),
        )),
        BROKER => Err((
            ErrorCode::InvalidRequest,
            "broker configs are set in the configuration file; they cannot be altered while running yet"
                .into(),
        )),
        BROKER_LOGGER | CLIENT_METRICS | GROUP => Err((
            ErrorCode::InvalidRequest,
            format!("configs of resource type {resource_type} cannot be altered here yet"),
        )),
        other => Err((ErrorCode::InvalidRequest, format!("Unknown resource type {other}"))),
    }
}

/// Whether a request names one config twice.
fn once<'a>(names: impl Iterator<Item = &'a str>) -> Result<(), Problem> {
    let mut seen = std::collections::HashSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err((ErrorCode::InvalidRequest, "Error due to duplicate config keys".into()));
        }
    }
    Ok(())
}

fn null(name: &str) -> Problem {
    (ErrorCode::InvalidRequest, format!("Null value not supported for : {name}"))
}

fn outcome(changed: bool, bytes: Vec<u8>) -> Outcome {
    if changed { Outcome::Applied(bytes) } else { Outcome::Now(bytes) }
}

fn said(result: Result<bool, Problem>, changed: &mut bool) -> (i16, Option<StrBytes>) {
    match result {
        Ok(did) => {
            *changed |= did;
            (0, None)
        }
        Err((error, reason)) => (code(error), Some(text(reason))),
    }
}

pub(crate) fn alter_configs(control: &mut Control, call: &Call<'_>) -> Result<Outcome, Refusal> {
    let request: AlterConfigsRequest = call.decode()?;
    let mut response = AlterConfigsResponse::default();
    let mut changed = false;
    for resource in &request.resources {
        let result = only_topics(control, resource.resource_type, &resource.resource_name).and_then(|()| {
            once(resource.configs.iter().map(|c| c.name.as_str()))?;
            let mut configs = Configs::new();
            for config in &resource.configs {
                let value = config.value.as_ref().ok_or_else(|| null(&config.name))?;
                configs.insert(config.name.to_string(), value.to_string());
            }
            apply(control, &resource.resource_name, configs, request.validate_only)
        });
        let (error_code, error_message) = said(result, &mut changed);
        response.responses.push(message!(alter_configs_response::AlterConfigsResourceResponse {
            error_code: error_code,
            error_message: error_message,
            resource_type: resource.resource_type,
            resource_name: resource.resource_name.clone(),
        }));
    }
    Ok(outcome(changed, call.encode(&response)?))
}

pub(crate) fn incremental_alter_configs(control: &mut Control, call: &Call<'_>) -> Result<Outcome, Refusal> {
    let request: IncrementalAlterConfigsRequest = call.decode()?;
    let mut response = IncrementalAlterConfigsResponse::default();
    let mut changed = false;
    for resource in &request.resources {
        let name = resource.resource_name.as_str();
        let result = only_topics(control, resource.resource_type, name).and_then(|()| {
            once(resource.configs.iter().map(|c| c.name.as_str()))?;
            let mut configs = control.image.named(name).map(|t| t.configs.clone()).unwrap_or_default();
            for config in &resource.configs {
                change(
                    control,
                    &mut configs,
                    &config.name,
                    config.config_operation,
                    config.value.as_deref(),
                )?;
            }
            apply(control, name, configs, request.validate_only)
        });
        let (error_code, error_message) = said(result, &mut changed);
        response.responses.push(message!(incremental_alter_configs_response::AlterConfigsResourceResponse {
            error_code: error_code,
            error_message: error_message,
            resource_type: resource.resource_type,
            resource_name: resource.resource_name.clone(),
        }));
    }
    Ok(outcome(changed, call.encode(&response)?))
}

fn change(
    control: &Control,
    configs: &mut Configs,
    name: &str,
    operation: i8,
    value: Option<&str>,
) -> Result<(), Problem> {
    let given = || value.ok_or_else(|| null(name));
    match operation {
        SET => {
            configs.insert(name.to_string(), given()?.to_string());
        }
        DELETE => {
            configs.remove(name);
        }
        APPEND | SUBTRACT => {
            if configs::find(name).is_none_or(|def| def.kind != Kind::List) {
                return Err((
                    ErrorCode::InvalidConfig,
                    format!(
                        "Can't {} to key {name} because its type is not LIST.",
                        if operation == APPEND { "APPEND" } else { "SUBTRACT" }
                    ),
                ));
            }
            let current = configs::describe_topic(configs, &control.options.defaults)
                .into_iter()
                .find(|c| c.name == name)
                .and_then(|c| c.value)
                .unwrap_or_default();
            let mut list: Vec<&str> = current.split(',').filter(|s| !s.is_empty()).collect();
            for item in given()?.split(',') {
                if operation == SUBTRACT {
                    list.retain(|have| *have != item);
                } else if !list.contains(&item) {
                    list.push(item);
                }
            }
            let joined = list.join(",");
            configs.insert(name.to_string(), joined);
        }
        other => {
            return Err((ErrorCode::InvalidRequest, format!("Unknown operation {other} on config {name}")));
        }
    }
    Ok(())
}
