//! DescribeClientQuotas and AlterClientQuotas (KIP-546): what Kafka checks, in its order and words.
//!
//! What they decide lies in the image; [`crate::limits`] makes limits of it, and cores keep clients within them.

use super::{Call, Outcome, Refusal, Reply, code, message, text};
use crate::control::Control;
use kafka_wire::alter_client_quotas_request::EntryData as Alteration;
use kafka_wire::alter_client_quotas_response::{EntityData as AlteredEntity, EntryData as Altered};
use kafka_wire::describe_client_quotas_request::ComponentData;
use kafka_wire::describe_client_quotas_response::{EntityData, EntryData, ValueData};
use kafka_wire::{
    AlterClientQuotasRequest, AlterClientQuotasResponse, DescribeClientQuotasRequest,
    DescribeClientQuotasResponse,
};
use ringmill_metadata::Record;
use ringmill_metadata::records::{Limit, QuotaEntity, Quotas};
use ringmill_types::ErrorCode;
use std::collections::BTreeMap;

pub(crate) const USER: &str = "user";
pub(crate) const CLIENT_ID: &str = "client-id";
pub(crate) const IP: &str = "ip";
pub(crate) const CONNECTION_RATE: &str = "connection_creation_rate";

/// A key of users and clients, or of addresses.
struct Key {
    name: &'static str,
    of_addresses: bool,
    /// The largest value and what Kafka calls its type; `None` takes fractions and any size.
    whole: Option<(f64, &'static str)>,
}

/// 2^63: what `i64::MAX` is as the nearest number of a quota's type.
const LONG_MAX: f64 = i64::MAX as f64;

const KEYS: &[Key] = &[
    Key { name: "producer_byte_rate", of_addresses: false, whole: Some((LONG_MAX, "a LONG")) },
    Key { name: "consumer_byte_rate", of_addresses: false, whole: Some((LONG_MAX, "a LONG")) },
    Key { name: "request_percentage", of_addresses: false, whole: None },
    Key { name: crate::mutations::KEY, of_addresses: false, whole: None },
    Key { name: CONNECTION_RATE, of_addresses: true, whole: Some((i32::MAX as f64, "an INT")) },
];

pub(crate) fn describe_client_quotas(control: &mut Control, call: &Call<'_>) -> Result<Outcome, Refusal> {
    let request: DescribeClientQuotasRequest = call.decode()?;
    let response = match Filter::of(&request.components) {
        Err((error, reason)) => message!(DescribeClientQuotasResponse {
            error_code: code(error),
            error_message: Some(text(reason)),
            entries: None
        }),
        Ok(filter) => {
            let found = control.image.quotas().iter().filter(|(entity, _)| {
                (!request.strict || entity.len() == filter.parts.len()) && filter.matches(entity)
            });
            message!(DescribeClientQuotasResponse {
                // Empty and not null, as Kafka has it.
                error_message: Some(text("")),
                entries: Some(found.map(|(entity, quotas)| described(entity, quotas)).collect())
            })
        }
    };
    Ok(Outcome::Now(call.encode(&response)?))
}

fn described(entity: &QuotaEntity, quotas: &Quotas) -> EntryData {
    let parts = in_order(entity).map(|(kind, name)| {
        message!(EntityData { entity_type: text(kind), entity_name: name.as_deref().map(text) })
    });
    let values =
        quotas.iter().map(|(key, limit)| message!(ValueData { key: text(key), value: f64::from(*limit) }));
    message!(EntryData { entity: parts.collect(), values: values.collect() })
}

/// An entity's parts in the order in which Kafka's answers have them.
fn in_order(entity: &QuotaEntity) -> impl Iterator<Item = (&'static str, &Option<String>)> {
    [CLIENT_ID, USER, IP].into_iter().filter_map(|kind| Some((kind, entity.get(kind)?)))
}

/// Which entities are asked for. A part names one by its name, the default by `Some(None)`, or any by `None`.
#[derive(Default)]
struct Filter<'a> {
    parts: BTreeMap<&'a str, Option<Option<&'a str>>>,
}

impl<'a> Filter<'a> {
    fn of(components: &'a [ComponentData]) -> Result<Filter<'a>, (ErrorCode, String)> {
        let refused = |reason: &str| Err((ErrorCode::InvalidRequest, reason.to_string()));
        let mut filter = Filter::default();
        for component in components {
            let kind = component.entity_type.as_str();
            let name = component.match_.as_ref().map(|name| name.as_str());
            if kind.is_empty() {
                return refused("Invalid empty entity type.");
            }
            if filter.parts.contains_key(kind) {
                return refused(&format!("Entity type {kind} cannot appear more than once in the filter."));
            }
            if ![USER, CLIENT_ID, IP].contains(&kind) {
                return Err((ErrorCode::UnsupportedVersion, format!("Unsupported entity type {kind}")));
            }
            let part = match (component.match_type, name) {
                (0, Some(name)) => Some(Some(name)),
                (0, None) => {
                    return refused("Request specified MATCH_TYPE_EXACT, but set match string to null.");
                }
                (1, None) => Some(None),
                (1, Some(_)) => {
                    return refused(
                        "Request specified MATCH_TYPE_DEFAULT, but also specified a match string.",
                    );
                }
                (2, None) => None,
                (2, Some(_)) => {
                    return refused(
                        "Request specified MATCH_TYPE_SPECIFIED, but also specified a match string.",
                    );
                }
                (other, _) => return refused(&format!("Unknown match type {other}")),
            };
            filter.parts.insert(kind, part);
        }
        if filter.parts.contains_key(IP) && filter.parts.len() > 1 {
            return refused(
                "Invalid entity filter component combination. IP filter component should not be used with \
                 user or clientId filter component.",
            );
        }
        Ok(filter)
    }

    fn matches(&self, entity: &QuotaEntity) -> bool {
        self.parts.iter().all(|(kind, part)| match (entity.get(*kind), part) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(name), Some(wanted)) => name.as_deref() == *wanted,
        })
    }
}

pub(crate) fn alter_client_quotas(control: &mut Control, call: &Call<'_>) -> Result<Outcome, Refusal> {
    let request: AlterClientQuotasRequest = call.decode()?;
    let mut order: Vec<QuotaEntity> = Vec::new();
    let mut results: BTreeMap<QuotaEntity, Result<(), String>> = BTreeMap::new();
    let mut changed: BTreeMap<QuotaEntity, Quotas> = BTreeMap::new();
    for entry in &request.entries {
        // Of a type that comes twice the last name counts.
        let name = |part: &kafka_wire::alter_client_quotas_request::EntityData| {
            (part.entity_type.to_string(), part.entity_name.as_ref().map(|name| name.to_string()))
        };
        let entity: QuotaEntity = entry.entity.iter().map(name).collect();
        let twice = entry
            .ops
            .iter()
            .enumerate()
            .any(|(at, op)| entry.ops.iter().take(at).any(|before| before.key == op.key));
        let result = if twice || results.contains_key(&entity) {
            Err(format!("Ignoring duplicate entity {}", shown(&entity)))
        } else {
            altered(control, &entity, entry).map(|quotas| {
                changed.extend(quotas.map(|quotas| (entity.clone(), quotas)));
            })
        };
        if results.insert(entity.clone(), result).is_none() {
            order.push(entity);
        }
    }
    let applies = !request.validate_only && !changed.is_empty();
    if applies {
        let records: Vec<Record> =
            changed.into_iter().map(|(entity, quotas)| Record::ClientQuotas { entity, quotas }).collect();
        if let Err(error) = control.decide(&records) {
            let failed = Err(error.to_string());
            return answer(call, order.iter().map(|e| (e, ErrorCode::KafkaStorageError, &failed)))
                .map(Outcome::Now);
        }
    }
    let results = order.iter().filter_map(|e| Some((e, ErrorCode::InvalidRequest, results.get(e)?)));
    let bytes = answer(call, results)?;
    Ok(if applies { Outcome::Applied(bytes) } else { Outcome::Now(bytes) })
}

fn answer<'a>(
    call: &Call<'_>,
    results: impl Iterator<Item = (&'a QuotaEntity, ErrorCode, &'a Result<(), String>)>,
) -> Result<Reply, Refusal> {
    let entries = results.map(|(entity, error, result)| {
        let known = in_order(entity).map(|(kind, name)| (kind, name.as_deref()));
        let others = entity.iter().filter(|(kind, _)| ![USER, CLIENT_ID, IP].contains(&kind.as_str()));
        let parts = known.chain(others.map(|(kind, name)| (kind.as_str(), name.as_deref())));
        let parts = parts.map(|(kind, name)| {
            message!(AlteredEntity { entity_type: text(kind), entity_name: name.map(text) })
        });
        message!(Altered {
            error_code: if result.is_ok() { 0 } else { code(error) },
            error_message: result.as_ref().err().map(|why| text(why.as_str())),
            entity: parts.collect()
        })
    });
    call.encode(&message!(AlterClientQuotasResponse { entries: entries.collect() }))
}

/// What the entity's quotas are afterwards; `None` where nothing changes.
fn altered(control: &Control, entity: &QuotaEntity, entry: &Alteration) -> Result<Option<Quotas>, String> {
    let of_addresses = check(entity)?;
    let before = control.image.quotas().get(entity).cloned().unwrap_or_default();
    let mut quotas = before.clone();
    for op in &entry.ops {
        if op.remove {
            quotas.remove(op.key.as_str());
        } else {
            let value = valid(of_addresses, &op.key, op.value)?;
            quotas.insert(op.key.to_string(), value);
        }
    }
    Ok((quotas != before).then_some(quotas))
}

/// Whether its keys are those of addresses.
fn check(entity: &QuotaEntity) -> Result<bool, String> {
    if entity.is_empty() {
        return Err("Invalid empty client quota entity".into());
    }
    for (kind, name) in entity {
        if ![USER, CLIENT_ID, IP].contains(&kind.as_str()) {
            return Err(format!("Unhandled client quota entity type: {kind}"));
        }
        if name.as_deref() == Some("") {
            return Err(format!("Empty {kind} not supported"));
        }
    }
    let Some(address) = entity.get(IP) else { return Ok(false) };
    if entity.len() > 1 {
        // Kafka's words, to the letter.
        return Err(
            "Invalid quota entity combination, IP entity shouldnot be combined with User or ClientId".into(),
        );
    }
    // Kafka also takes names of hosts. Nobody is asked for them here: control never waits for a name server.
    match address.as_deref() {
        Some(host) if host.parse::<std::net::IpAddr>().is_err() => {
            Err(format!("{host} is not a valid IP or resolvable host."))
        }
        Some(_) | None => Ok(true),
    }
}

fn valid(of_addresses: bool, key: &str, value: f64) -> Result<Limit, String> {
    let known = KEYS.iter().find(|known| known.name == key && known.of_addresses == of_addresses);
    let Some(known) = known else { return Err(format!("Invalid configuration key {key}")) };
    // No comparison holds for what is no number.
    if value.is_nan() || value <= 0.0 {
        return Err(format!("Quota {key} must be greater than 0"));
    }
    if let Some((most, kind)) = known.whole {
        if value > most {
            return Err(format!("Proposed value for {key} is too large for {kind}."));
        }
        if (value % 1.0).abs() > 1e-6 {
            return Err(format!("{key} cannot be a fractional value."));
        }
    }
    Ok(Limit::from(value))
}

fn shown(entity: &QuotaEntity) -> String {
    let parts = in_order(entity).map(|(kind, name)| format!("{kind}={}", name.as_deref().unwrap_or("null")));
    format!("ClientQuotaEntity(entries={{{}}})", parts.collect::<Vec<_>>().join(", "))
}
