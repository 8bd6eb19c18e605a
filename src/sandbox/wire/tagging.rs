//! Resource Groups Tagging: awsJson 1.1, `ResourceGroupsTaggingAPI_20170126`.

use serde_json::{Value, json};

use super::input::{Dialect, Members};
use super::{misfit, unknown_operation};
use crate::sandbox::api::{ApiError, Call, Reply};

/// Before the operation in `X-Amz-Target`.
pub(super) const TARGET: &str = "ResourceGroupsTaggingAPI_20170126";

/// How it refuses.
pub(super) const DIALECT: Dialect = Dialect { refusal: "InvalidParameterException", textual: false };

/// The only type of resource that has tags here.
const SERVICE: &str = "ecs:service";

/// Answers one operation.
pub(super) fn answer(
    operation: &str,
    mut input: Members,
    call: impl FnOnce(Call) -> Result<Reply, ApiError>,
) -> Result<Value, ApiError> {
    if operation != "GetResources" {
        return Err(unknown_operation(operation));
    }
    input.page("ResourcesPerPage", 100)?;
    if input.text_if_any("PaginationToken")?.is_some_and(|token| !token.is_empty()) {
        return Err(input.refuse("the sandbox gave no PaginationToken"));
    }
    if input.texts("ResourceTypeFilters")?.iter().any(|kind| kind != SERVICE) {
        return Err(input.refuse(format!("the sandbox has only {SERVICE}")));
    }
    let mut filters = input.structures("TagFilters")?.into_iter();
    let (Some(mut filter), None) = (filters.next(), filters.next()) else {
        return Err(input.refuse("the sandbox wants one of TagFilters"));
    };
    let (key, values) = (filter.text("Key")?, filter.texts("Values")?);
    filter.done()?;
    input.done()?;
    let Reply::Resources(found) = call(Call::GetResources { key, values })? else { return Err(misfit(operation)) };
    let mapping = |(arn, tags): (String, std::collections::BTreeMap<String, String>)| {
        let tags: Vec<_> = tags.into_iter().map(|(key, value)| json!({ "Key": key, "Value": value })).collect();
        json!({ "ResourceARN": arn, "Tags": tags })
    };
    let list: Vec<_> = found.into_iter().map(mapping).collect();
    Ok(json!({ "ResourceTagMappingList": list, "PaginationToken": "" }))
}
