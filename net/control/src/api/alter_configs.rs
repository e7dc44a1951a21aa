//! AlterConfigs and IncrementalAlterConfigs, of everything that may have configs.

use super::configs::Problem;
use super::{Call, Outcome, Refusal, Reply, code, message, text};
use crate::configs::dynamic::{self, Refused};
use crate::configs::groups::{GROUP_CONFIGS, check_group, check_metrics};
use crate::configs::{self, Kind, Resource};
use crate::control::Control;
use crate::loggers::{Loggers, ROOT};
use kafka_wire::{
    AlterConfigsRequest, AlterConfigsResponse, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse, alter_configs_response, incremental_alter_configs_response,
};
use kafka_wire_core::StrBytes;
use ringmill_metadata::Record;
use ringmill_metadata::records::Configs;
use ringmill_types::{ErrorCode, topic_name};
use std::collections::{HashMap, HashSet};

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// What may be altered; a topic's name, or a broker's, is checked by now.
#[derive(Clone, Copy)]
struct Target<'a> {
    kind: Resource,
    name: &'a str,
}

/// One operation on one config.
struct Change<'a> {
    name: &'a str,
    operation: i8,
    value: Option<&'a str>,
}

impl<'a> Target<'a> {
    fn of(control: &Control, resource_type: i8, name: &'a str) -> Result<Target<'a>, Problem> {
        let invalid = |reason: String| Err((ErrorCode::InvalidRequest, reason));
        let ours = control.options.node_id;
        let Some(kind) = Resource::of(resource_type) else {
            return invalid(format!("Unknown resource type {resource_type}"));
        };
        match kind {
            Resource::Topic if name.is_empty() => {
                return invalid("Default topic resources are not allowed.".into());
            }
            Resource::Topic => {
                topic_name::check(name).map_err(|bad| (ErrorCode::InvalidTopicException, bad.to_string()))?;
            }
            Resource::Broker if name.is_empty() => {}
            Resource::Broker | Resource::BrokerLogger => match name.parse::<i32>() {
                Err(_) => return invalid(format!("Node id must be an integer, but it is: {name}")),
                Ok(id) if id == ours => {}
                Ok(_) if kind == Resource::Broker => {
                    return invalid(format!("Unexpected broker id, expected {ours}, but received {name}"));
                }
                Ok(_) => return invalid(format!("Unexpected node id. Expected {ours}, but received {name}")),
            },
            Resource::ClientMetrics if name.is_empty() => {
                return invalid("Subscription name can't be empty".into());
            }
            Resource::Group if name.is_empty() => {
                return invalid("Default group resources are not allowed.".into());
            }
            Resource::ClientMetrics | Resource::Group => {}
        }
        Ok(Target { kind, name })
    }

    /// What it has now.
    fn configs(self, control: &Control) -> Configs {
        let configs = match self.kind {
            Resource::Topic => control.image.named(self.name).map(|topic| &topic.configs),
            _ => control.image.resource(self.kind as i8, self.name),
        };
        configs.cloned().unwrap_or_default()
    }

    /// The list that an item is appended to or taken from; `None` when the config is no list.
    fn list(self, control: &Control, configs: &Configs, name: &str) -> Option<String> {
        let defaults = &control.options.defaults;
        match self.kind {
            Resource::Topic => {
                configs::find(name).filter(|def| def.kind == Kind::List)?;
                configs::describe_topic(configs, defaults).into_iter().find(|c| c.name == name)?.value
            }
            Resource::Broker => {
                dynamic::find(name).filter(|found| found.kind() == Kind::List)?;
                let options = &control.options;
                let own = || {
                    let all = configs::describe_broker(defaults, &options.settings, options.node_id);
                    all.into_iter().find(|c| c.name == name)?.value
                };
                configs.get(name).cloned().or_else(own)
            }
            Resource::BrokerLogger | Resource::ClientMetrics | Resource::Group => None,
        }
    }
}

/// Writes what something has from now on, once it is valid. `changed` are the names that the request gave.
fn apply(
    control: &mut Control,
    target: Target<'_>,
    configs: Configs,
    changed: &[&str],
    validate_only: bool,
) -> Result<bool, Problem> {
    let invalid = |reason| (ErrorCode::InvalidConfig, reason);
    let defaults = &control.options.defaults;
    let record = match target.kind {
        Resource::Topic => {
            defaults.check(&configs).map_err(invalid)?;
            let Some(topic) = control.image.named(target.name) else {
                let reason = format!("The topic '{}' does not exist.", target.name);
                return Err((ErrorCode::UnknownTopicOrPartition, reason));
            };
            Record::TopicConfigs { id: topic.id, configs: configs.clone() }
        }
        Resource::Broker => {
            let checked = defaults.check_dynamic(changed, &configs, &control.options.settings);
            checked.map_err(|refused| match refused {
                Refused::ReadOnly(reason) | Refused::Invalid(reason) => (ErrorCode::InvalidRequest, reason),
                Refused::Unknown(reason) => (ErrorCode::InvalidConfig, reason),
            })?;
            resource(target, &configs)
        }
        Resource::Group => {
            if let Some(name) =
                changed.iter().find(|name| !GROUP_CONFIGS.iter().any(|def| def.name == **name))
            {
                return Err((ErrorCode::InvalidConfig, format!("Unknown group config name: {name}")));
            }
            check_group(&configs).map_err(invalid)?;
            resource(target, &configs)
        }
        Resource::ClientMetrics => {
            check_metrics(&configs)?;
            resource(target, &configs)
        }
        // Levels are no records.
        Resource::BrokerLogger => return Ok(false),
    };
    if target.configs(control) == configs || validate_only {
        return Ok(false);
    }
    control.decide(&[record]).map_err(|error| (ErrorCode::KafkaStorageError, error.to_string()))?;
    Ok(true)
}

fn resource(target: Target<'_>, configs: &Configs) -> Record {
    Record::ResourceConfigs {
        kind: target.kind as i8,
        name: target.name.to_string(),
        configs: configs.clone(),
    }
}

/// Whether a request names one config twice.
fn once<'a>(names: impl Iterator<Item = &'a str>) -> Result<(), Problem> {
    let mut seen = HashSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err((ErrorCode::InvalidRequest, "Error due to duplicate config keys".into()));
        }
    }
    Ok(())
}

/// How often a request names each thing.
fn counted<'a>(resources: impl Iterator<Item = (i8, &'a str)>) -> HashMap<(i8, &'a str), usize> {
    let mut counts = HashMap::new();
    for resource in resources {
        *counts.entry(resource).or_default() += 1;
    }
    counts
}

/// What is to be altered, unless the request names it more than once.
fn sole_target<'a>(
    control: &Control,
    counts: &HashMap<(i8, &'a str), usize>,
    kind: i8,
    name: &'a str,
) -> Result<Target<'a>, Problem> {
    if counts.get(&(kind, name)).is_some_and(|times| *times > 1) {
        return Err((ErrorCode::InvalidRequest, "Each resource must appear at most once.".into()));
    }
    Target::of(control, kind, name)
}

fn null(name: &str) -> Problem {
    (ErrorCode::InvalidRequest, format!("Null value not supported for : {name}"))
}

fn outcome(changed: bool, reply: Reply) -> Outcome {
    if changed { Outcome::Applied(reply) } else { Outcome::Now(reply) }
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
    let counts = counted(request.resources.iter().map(|r| (r.resource_type, r.resource_name.as_str())));
    for resource in &request.resources {
        let (kind, name) = (resource.resource_type, resource.resource_name.as_str());
        let target = sole_target(control, &counts, kind, name);
        let result = target.and_then(|target| {
            if target.kind == Resource::BrokerLogger {
                return Err((ErrorCode::InvalidRequest, format!("Unknown resource type {kind}")));
            }
            once(resource.configs.iter().map(|c| c.name.as_str()))?;
            let mut configs = Configs::new();
            for config in &resource.configs {
                let value = config.value.as_ref().ok_or_else(|| null(&config.name))?;
                configs.insert(config.name.to_string(), value.to_string());
            }
            let names: Vec<&str> = resource.configs.iter().map(|c| c.name.as_str()).collect();
            apply(control, target, configs, &names, request.validate_only)
        });
        let (error_code, error_message) = said(result, &mut changed);
        response.responses.push(message!(alter_configs_response::AlterConfigsResourceResponse {
            error_code: error_code,
            error_message: error_message,
            resource_type: kind,
            resource_name: resource.resource_name.clone(),
        }));
    }
    Ok(outcome(changed, call.encode(&response)?))
}

pub(crate) fn incremental_alter_configs(control: &mut Control, call: &Call<'_>) -> Result<Outcome, Refusal> {
    let request: IncrementalAlterConfigsRequest = call.decode()?;
    let mut response = IncrementalAlterConfigsResponse::default();
    let mut changed = false;
    let counts = counted(request.resources.iter().map(|r| (r.resource_type, r.resource_name.as_str())));
    for resource in &request.resources {
        let (kind, name) = (resource.resource_type, resource.resource_name.as_str());
        let target = sole_target(control, &counts, kind, name);
        let changes: Vec<Change<'_>> = resource
            .configs
            .iter()
            .map(|c| Change { name: &c.name, operation: c.config_operation, value: c.value.as_deref() })
            .collect();
        let result = target.and_then(|target| incremental(control, target, &changes, request.validate_only));
        let (error_code, error_message) = said(result, &mut changed);
        response.responses.push(message!(incremental_alter_configs_response::AlterConfigsResourceResponse {
            error_code: error_code,
            error_message: error_message,
            resource_type: kind,
            resource_name: resource.resource_name.clone(),
        }));
    }
    Ok(outcome(changed, call.encode(&response)?))
}

fn incremental(
    control: &mut Control,
    target: Target<'_>,
    changes: &[Change<'_>],
    validate_only: bool,
) -> Result<bool, Problem> {
    once(changes.iter().map(|change| change.name))?;
    if target.kind == Resource::BrokerLogger {
        return set_levels(control, changes, validate_only).map(|()| false);
    }
    let mut configs = target.configs(control);
    for change in changes {
        make(control, target, &mut configs, change)?;
    }
    let names: Vec<&str> = changes.iter().map(|change| change.name).collect();
    apply(control, target, configs, &names, validate_only)
}

fn set_levels(control: &mut Control, changes: &[Change<'_>], validate_only: bool) -> Result<(), Problem> {
    let invalid = |reason: String| Err((ErrorCode::InvalidRequest, reason));
    let mut levels = Vec::new();
    for change in changes {
        match (change.operation, change.value) {
            (SET, None) => return Err(null(change.name)),
            (SET, Some(level)) => {
                Loggers::check(change.name, level).map_err(|reason| (ErrorCode::InvalidConfig, reason))?;
                levels.push((change.name.to_string(), Some(level.to_string())));
            }
            (DELETE, _) if !Loggers::is_known(change.name) => {
                return Err((ErrorCode::InvalidConfig, format!("Logger {} does not exist!", change.name)));
            }
            (DELETE, _) if change.name == ROOT => {
                return invalid("Removing the log level of the root logger is not allowed".into());
            }
            (DELETE, _) => levels.push((change.name.to_string(), None)),
            (APPEND, _) => {
                return invalid("APPEND operation is not allowed for the BROKER_LOGGER resource".into());
            }
            (SUBTRACT, _) => {
                return invalid("SUBTRACT operation is not allowed for the BROKER_LOGGER resource".into());
            }
            (other, _) => return invalid(format!("Unknown operation {other} on config {}", change.name)),
        }
    }
    if validate_only {
        return Ok(());
    }
    control.loggers.change(&levels).map_err(|reason| (ErrorCode::UnknownServerError, reason))
}

/// Makes one change of a list of configs.
fn make(
    control: &Control,
    target: Target<'_>,
    configs: &mut Configs,
    change: &Change<'_>,
) -> Result<(), Problem> {
    let name = change.name;
    let given = || change.value.ok_or_else(|| null(name));
    match change.operation {
        SET => {
            configs.insert(name.to_string(), given()?.to_string());
        }
        DELETE => {
            configs.remove(name);
        }
        APPEND | SUBTRACT => {
            let Some(current) = target.list(control, configs, name) else {
                return Err((ErrorCode::InvalidConfig, no_list(target.kind, name, change.operation)));
            };
            let mut list: Vec<&str> = current.split(',').filter(|s| !s.is_empty()).collect();
            for item in given()?.split(',') {
                if change.operation == SUBTRACT {
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

/// Kafka says it one way of brokers and another of all else.
fn no_list(kind: Resource, name: &str, operation: i8) -> String {
    match (kind, operation) {
        (Resource::Broker, APPEND) => format!("Config value append is not allowed for config key: {name}"),
        (Resource::Broker, _) => format!("Config value subtract is not allowed for config key: {name}"),
        (_, APPEND) => format!("Can't APPEND to key {name} because its type is not LIST."),
        (_, _) => format!("Can't SUBTRACT to key {name} because its type is not LIST."),
    }
}
