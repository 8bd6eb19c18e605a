//! DynamoDB as the table of a journal.

use std::collections::HashMap;

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{BuildError, SdkError};
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{AttributeValue, ConditionCheck, Delete, Put, TransactWriteItem};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use super::calls::{Calls, Operation};
use crate::model::{CallError, ErrorClass};
use crate::ports::{Change, Expected, Field, Fields, RowKey, Table};

const GET: Operation = Operation::new("dynamodb", "GetItem");
const QUERY: Operation = Operation::new("dynamodb", "Query");
const TRANSACT: Operation = Operation::new("dynamodb", "TransactWriteItems");

/// The key that the table must have.
const PARTITION: &str = "pk";
const SORT: &str = "sk";

/// Why a transaction was cancelled: a row was not as expected. All other reasons are about load.
const REFUSED: &str = "ConditionalCheckFailed";

type Item = HashMap<String, AttributeValue>;

/// One table.
pub struct DynamoTable {
    client: Client,
    calls: Calls,
    name: String,
}

impl DynamoTable {
    pub(super) fn new(config: &SdkConfig, calls: Calls, name: &str) -> Self {
        Self { client: Client::new(config), calls, name: name.to_owned() }
    }

    fn item(&self, change: &Change) -> Result<TransactWriteItem, BuildError> {
        let item = TransactWriteItem::builder();
        let put = |key: &RowKey, fields: &Fields| {
            Put::builder().table_name(&self.name).set_item(Some(item_of(key, Some(fields))))
        };
        Ok(match change {
            Change::Put(key, fields) => item.put(put(key, fields).build()?),
            Change::PutIf(key, fields, expected) => {
                let Condition { expression, names, values } = Condition::new(expected);
                let put = put(key, fields).condition_expression(expression);
                let put = put.set_expression_attribute_names(Some(names)).set_expression_attribute_values(values);
                item.put(put.build()?)
            }
            Change::Check(key, expected) => {
                let Condition { expression, names, values } = Condition::new(expected);
                let check = ConditionCheck::builder().table_name(&self.name).set_key(Some(item_of(key, None)));
                let check = check.condition_expression(expression).set_expression_attribute_names(Some(names));
                item.condition_check(check.set_expression_attribute_values(values).build()?)
            }
            Change::Delete(key) => {
                item.delete(Delete::builder().table_name(&self.name).set_key(Some(item_of(key, None))).build()?)
            }
        }
        .build())
    }
}

#[async_trait]
impl Table for DynamoTable {
    async fn get(&self, key: &RowKey) -> Result<Option<Fields>, CallError> {
        let call = self.client.get_item().table_name(&self.name).consistent_read(true);
        let answer = self.calls.send(GET, call.set_key(Some(item_of(key, None))).send()).await?;
        answer.item.map(|item| read(GET, item).map(|(_, fields)| fields)).transpose()
    }

    async fn list(&self, partition: &str) -> Result<Vec<(RowKey, Fields)>, CallError> {
        let mut rows = Vec::new();
        let mut from = None;
        loop {
            let call = self
                .client
                .query()
                .table_name(&self.name)
                .consistent_read(true)
                .key_condition_expression("#p = :p")
                .expression_attribute_names("#p", PARTITION)
                .expression_attribute_values(":p", AttributeValue::S(partition.to_owned()))
                .set_exclusive_start_key(from);
            let page = self.calls.send(QUERY, call.send()).await?;
            for item in page.items.unwrap_or_default() {
                rows.push(read(QUERY, item)?);
            }
            from = page.last_evaluated_key;
            if from.is_none() {
                return Ok(rows);
            }
        }
    }

    async fn change(&self, changes: &[Change]) -> Result<bool, CallError> {
        let unbuilt = |error: BuildError| TRANSACT.error(ErrorClass::Rejected, error.to_string());
        let items = changes.iter().map(|change| self.item(change)).collect::<Result<_, _>>().map_err(unbuilt)?;
        let call = self.client.transact_write_items().set_transact_items(Some(items));
        let answered = async {
            match call.send().await {
                Ok(_) => Ok(true),
                // An answer, and a good one.
                Err(error) if is_refusal(&error) => Ok(false),
                Err(error) => Err(error),
            }
        };
        self.calls.send(TRANSACT, answered).await
    }
}

fn is_refusal(error: &SdkError<TransactWriteItemsError, HttpResponse>) -> bool {
    match error.as_service_error() {
        Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) => {
            cancelled.cancellation_reasons().iter().any(|reason| reason.code() == Some(REFUSED))
        }
        _ => false,
    }
}

/// What a row must look like, in DynamoDB's language.
struct Condition {
    expression: String,
    names: HashMap<String, String>,
    values: Option<Item>,
}

impl Condition {
    fn new(expected: &Expected) -> Self {
        match expected {
            Expected::Absent => Self {
                expression: "attribute_not_exists(#p)".to_owned(),
                names: HashMap::from([("#p".to_owned(), PARTITION.to_owned())]),
                // DynamoDB takes no empty list of values.
                values: None,
            },
            Expected::Fields(fields) => {
                let terms = fields.keys().map(|name| format!("#{name} = :{name}"));
                let values = fields.iter().map(|(name, field)| (format!(":{name}"), value(field)));
                Self {
                    expression: terms.collect::<Vec<_>>().join(" AND "),
                    names: fields.keys().map(|name| (format!("#{name}"), name.clone())).collect(),
                    values: Some(values.collect()),
                }
            }
        }
    }
}

fn item_of(key: &RowKey, fields: Option<&Fields>) -> Item {
    let names = [(PARTITION, &key.partition), (SORT, &key.sort)];
    let mut item: Item =
        names.map(|(name, text)| (name.to_owned(), AttributeValue::S(text.clone()))).into_iter().collect();
    item.extend(fields.into_iter().flatten().map(|(name, field)| (name.clone(), value(field))));
    item
}

fn value(field: &Field) -> AttributeValue {
    match field {
        Field::Text(text) => AttributeValue::S(text.clone()),
        Field::Number(number) => AttributeValue::N(number.to_string()),
        Field::Bytes(bytes) => AttributeValue::B(Blob::new(bytes.clone())),
    }
}

/// Key and fields of an item. Attributes of kinds that the journal never writes are left out: somebody added them.
fn read(operation: Operation, item: Item) -> Result<(RowKey, Fields), CallError> {
    let mut fields = Fields::new();
    for (name, value) in item {
        let field = match value {
            AttributeValue::S(text) => Field::Text(text),
            AttributeValue::N(digits) => match digits.parse() {
                Ok(number) => Field::Number(number),
                Err(_) => continue,
            },
            AttributeValue::B(blob) => Field::Bytes(blob.into_inner()),
            _ => continue,
        };
        fields.insert(name, field);
    }
    let mut part = |name: &str| match fields.remove(name) {
        Some(Field::Text(text)) => Ok(text),
        _ => Err(operation.incomplete(name)),
    };
    let key = RowKey { partition: part(PARTITION)?, sort: part(SORT)? };
    Ok((key, fields))
}
