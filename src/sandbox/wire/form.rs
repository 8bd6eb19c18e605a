//! Forms of the query protocol (`Actions.member.1.Type=forward`) as trees of members.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::input::malformed;
use crate::sandbox::api::ApiError;

/// The deepest name that ELBv2 has, a value of a claim of a JWT action, is nine parts long. The bound keeps a hostile
/// name from building a tree too deep to walk.
const DEEPEST: usize = 16;

/// A form's names as a tree, before lists and maps are told from structures.
enum Node {
    Leaf(String),
    Branch(BTreeMap<String, Node>),
}

/// Reads a form.
pub(super) fn read(body: &[u8]) -> Result<Map<String, Value>, ApiError> {
    let mut root = BTreeMap::new();
    for (name, value) in form_urlencoded::parse(body) {
        insert(&mut root, &name, value.into_owned())?;
    }
    root.into_iter().map(|(name, node)| Ok((name, value(node)?))).collect()
}

fn insert(root: &mut BTreeMap<String, Node>, name: &str, text: String) -> Result<(), ApiError> {
    let mut parts: Vec<&str> = name.split('.').collect();
    if parts.len() > DEEPEST {
        return Err(malformed(format!("a parameter is more than {DEEPEST} parts deep")));
    }
    let clash = || malformed(format!("the parameter {name:?} is given twice, or also as a structure"));
    let last = parts.pop().unwrap_or_default();
    let mut branch = root;
    for part in parts {
        match branch.entry(part.to_owned()).or_insert_with(|| Node::Branch(BTreeMap::new())) {
            Node::Branch(inner) => branch = inner,
            Node::Leaf(_) => return Err(clash()),
        }
    }
    match branch.insert(last.to_owned(), Node::Leaf(text)) {
        None => Ok(()),
        Some(_) => Err(clash()),
    }
}

fn value(node: Node) -> Result<Value, ApiError> {
    match node {
        Node::Leaf(text) => Ok(Value::String(text)),
        Node::Branch(mut branch) => match (branch.len(), branch.remove("member"), branch.remove("entry")) {
            (1, Some(Node::Branch(items)), None) => {
                numbered(items)?.into_iter().map(value).collect::<Result<_, _>>().map(Value::Array)
            }
            (1, None, Some(Node::Branch(entries))) => {
                numbered(entries)?.into_iter().map(entry).collect::<Result<_, _>>().map(Value::Object)
            }
            (_, None, None) => {
                let member = |(name, node)| Ok((name, value(node)?));
                branch.into_iter().map(member).collect::<Result<_, _>>().map(Value::Object)
            }
            _ => Err(malformed("a list or map has other parts than its numbered members")),
        },
    }
}

/// In the order of their numbers, which is not the order of the names: 10 comes after 9.
fn numbered(items: BTreeMap<String, Node>) -> Result<Vec<Node>, ApiError> {
    let mut ordered = BTreeMap::new();
    for (number, node) in items {
        let number: u32 = number.parse().map_err(|_| malformed(format!("{number:?} does not number a member")))?;
        if ordered.insert(number, node).is_some() {
            return Err(malformed(format!("the member number {number} is given twice")));
        }
    }
    Ok(ordered.into_values().collect())
}

fn entry(node: Node) -> Result<(String, Value), ApiError> {
    if let Node::Branch(mut pair) = node
        && let (2, Some(Node::Leaf(key)), Some(of_key)) = (pair.len(), pair.remove("key"), pair.remove("value"))
    {
        return Ok((key, value(of_key)?));
    }
    Err(malformed("an entry of a map is not a key and a value"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_come_in_the_order_of_their_numbers() {
        let form = (1..=11).rev().fold(String::new(), |form, n| format!("{form}&Arns.member.{n}=arn{n}"));
        let read = read(form.trim_start_matches('&').as_bytes()).unwrap();
        let expected: Vec<String> = (1..=11).map(|n| format!("arn{n}")).collect();
        assert_eq!(Value::Object(read), json!({"Arns": expected}));
    }

    #[test]
    fn structures_lists_and_maps_nest() {
        let form =
            b"A.member.1.Config.Extra.entry.1.key=a%26b&A.member.1.Config.Extra.entry.1.value=c+d&A.member.1.T=x";
        let expected = json!({"A": [{"Config": {"Extra": {"a&b": "c d"}}, "T": "x"}]});
        assert_eq!(Value::Object(read(form).unwrap()), expected);
    }

    #[test]
    fn nonsense_is_refused_and_never_a_panic() {
        let deep = format!("{}=x", "a.".repeat(500_000));
        let nonsense =
            ["A=1&A.b=2", "A.b=2&A=1", "A=1&A=2", "A.member.x=1", "A.member.1=1&A.b=2", "A.member.1=1&A.member.01=2"];
        for form in nonsense.into_iter().chain([deep.as_str(), "M.entry.1.key=a", "M.entry.1=a", "A.member=1"]) {
            assert_eq!(read(form.as_bytes()).unwrap_err().code, "SerializationException", "{form:.40}");
        }
    }
}
