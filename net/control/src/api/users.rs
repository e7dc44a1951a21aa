//! DescribeUserScramCredentials: there are no users yet, so none has a credential.

use super::{Call, Outcome, Refusal, code, message, text};
use kafka_wire::describe_user_scram_credentials_response::DescribeUserScramCredentialsResult;
use kafka_wire::{DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse};
use ringmill_types::ErrorCode;
use std::collections::BTreeMap;

pub(crate) fn describe_user_scram_credentials(call: &Call<'_>) -> Result<Outcome, Refusal> {
    let request: DescribeUserScramCredentialsRequest = call.decode()?;
    let mut named: BTreeMap<&str, usize> = BTreeMap::new();
    for user in request.users.iter().flatten() {
        *named.entry(user.name.as_str()).or_default() += 1;
    }
    let results = named.into_iter().map(|(user, times)| {
        let (error, reason) = if times > 1 {
            let why = "Cannot describe SCRAM credentials for the same user twice in a single request";
            (ErrorCode::DuplicateResource, why)
        } else {
            let why = "Attempt to describe a user credential that does not exist";
            (ErrorCode::ResourceNotFound, why)
        };
        message!(DescribeUserScramCredentialsResult {
            user: text(user),
            error_code: code(error),
            error_message: Some(text(format!("{reason}: {user}")))
        })
    });
    let response = message!(DescribeUserScramCredentialsResponse { results: results.collect() });
    Ok(Outcome::Now(call.encode(&response)?))
}
