//! Requests as trees of members, whatever protocol they came in. Members are taken out one by one, and a request is done
//! only when none is left.

use serde_json::{Map, Value};

use crate::sandbox::api::ApiError;

/// How a service speaks and refuses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dialect {
    /// The code for members that are missing, unknown or out of range.
    pub(super) refusal: &'static str,
    /// Numbers and booleans come as text, and an empty list as an empty text: the query protocol.
    pub(super) textual: bool,
}

/// The members of a request, or of a structure in it.
#[derive(Debug)]
pub(super) struct Members {
    members: Map<String, Value>,
    dialect: Dialect,
}

impl Members {
    /// A null member is an absent one, as the protocols have it.
    pub(super) fn new(mut members: Map<String, Value>, dialect: Dialect) -> Self {
        members.retain(|_, value| !value.is_null());
        Self { members, dialect }
    }

    /// Reads a JSON document.
    pub(super) fn from_json(body: &[u8], dialect: Dialect) -> Result<Self, ApiError> {
        match serde_json::from_slice(body) {
            Ok(members) => Ok(Self::new(members, dialect)),
            Err(_) if body.is_empty() => Ok(Self::new(Map::new(), dialect)),
            Err(cause) => Err(malformed(format!("the body is not a JSON object: {cause}"))),
        }
    }

    /// This service's refusal.
    pub(super) fn refuse(&self, message: impl Into<String>) -> ApiError {
        ApiError::client(self.dialect.refusal, message)
    }

    /// A text that must be there.
    pub(super) fn text(&mut self, name: &str) -> Result<String, ApiError> {
        self.text_if_any(name)?.ok_or_else(|| self.refuse(format!("{name} is required")))
    }

    pub(super) fn text_if_any(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        match self.members.remove(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(mistyped(name, "a string")),
        }
    }

    /// Texts, none when absent.
    pub(super) fn texts(&mut self, name: &str) -> Result<Vec<String>, ApiError> {
        let text = |item| match item {
            Value::String(text) => Ok(text),
            _ => Err(mistyped(name, "a list of strings")),
        };
        self.list(name)?.into_iter().map(text).collect()
    }

    pub(super) fn flag(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.members.remove(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(Value::String(text)) if self.dialect.textual => {
                text.parse().map(Some).map_err(|_| mistyped(name, "a boolean"))
            }
            Some(_) => Err(mistyped(name, "a boolean")),
        }
    }

    /// An integer that fits the type asked for.
    pub(super) fn integer<T: TryFrom<i64>>(&mut self, name: &str) -> Result<Option<T>, ApiError> {
        let Some(value) = self.members.remove(name) else { return Ok(None) };
        let number = match value {
            Value::Number(number) => number.as_i64(),
            Value::String(text) if self.dialect.textual => text.parse().ok(),
            _ => None,
        };
        let number: i64 = number.ok_or_else(|| mistyped(name, "an integer"))?;
        T::try_from(number).map(Some).map_err(|_| self.refuse(format!("{number} is out of range for {name}")))
    }

    /// A number that must be there.
    pub(super) fn number(&mut self, name: &str) -> Result<f64, ApiError> {
        let value = self.members.remove(name).ok_or_else(|| self.refuse(format!("{name} is required")))?;
        value.as_f64().ok_or_else(|| mistyped(name, "a number"))
    }

    pub(super) fn structure_if_any(&mut self, name: &str) -> Result<Option<Self>, ApiError> {
        match self.members.remove(name) {
            None => Ok(None),
            Some(Value::Object(members)) => Ok(Some(Self::new(members, self.dialect))),
            Some(_) => Err(mistyped(name, "a structure")),
        }
    }

    /// A structure that must be there.
    pub(super) fn structure(&mut self, name: &str) -> Result<Self, ApiError> {
        self.structure_if_any(name)?.ok_or_else(|| self.refuse(format!("{name} is required")))
    }

    /// Structures, none when absent.
    pub(super) fn structures(&mut self, name: &str) -> Result<Vec<Self>, ApiError> {
        let dialect = self.dialect;
        let structure = |item| match item {
            Value::Object(members) => Ok(Self::new(members, dialect)),
            _ => Err(mistyped(name, "a list of structures")),
        };
        self.list(name)?.into_iter().map(structure).collect()
    }

    /// Drops members that change nothing here.
    pub(super) fn ignore(&mut self, names: &[&str]) {
        for name in names {
            self.members.remove(*name);
        }
    }

    /// The size of a page, which changes nothing: everything comes on one. But a service refuses one that is too large.
    pub(super) fn page(&mut self, name: &str, most: i64) -> Result<(), ApiError> {
        match self.integer(name)? {
            Some(size) if !(1..=most).contains(&size) => {
                Err(self.refuse(format!("{name} must be between 1 and {most}")))
            }
            _ => Ok(()),
        }
    }

    /// Everything was understood.
    pub(super) fn done(self) -> Result<(), ApiError> {
        match self.members.keys().next() {
            None => Ok(()),
            Some(name) => Err(self.refuse(format!("the sandbox does not know the member {name:?}"))),
        }
    }

    /// What is left, as it came.
    pub(super) fn into_inner(self) -> Map<String, Value> {
        self.members
    }

    fn list(&mut self, name: &str) -> Result<Vec<Value>, ApiError> {
        match self.members.remove(name) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => Ok(items),
            Some(Value::String(text)) if self.dialect.textual && text.is_empty() => Ok(Vec::new()),
            Some(_) => Err(mistyped(name, "a list")),
        }
    }
}

/// The request can't be read.
pub(super) fn malformed(message: impl Into<String>) -> ApiError {
    ApiError::client("SerializationException", message)
}

fn mistyped(name: &str, wanted: &str) -> ApiError {
    malformed(format!("{name} is not {wanted}"))
}
