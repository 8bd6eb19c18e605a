//! As much of IAM as the policies use. What they use beyond that is refused, not guessed at.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Deserialize;
use taskset_guardian::rules::fits_glob;
use taskset_guardian::sandbox::world::{ACCOUNT, REGION};

const WORKER: &str = include_str!("../../infra/modules/guardian/worker-policy.json");
const PEOPLE: &str = include_str!("../../infra/modules/guardian/people-policy.json");

/// One thing that somebody wants to do.
#[derive(Debug)]
pub(crate) struct Request {
    /// As in `ecs:DeleteTaskSet`.
    pub(crate) action: &'static str,
    /// Its ARN; `*` for an action that has none.
    pub(crate) resource: String,
    /// Values by condition key.
    pub(crate) context: BTreeMap<&'static str, Vec<String>>,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {} with {:?}", self.action, self.resource, self.context)
    }
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Policy {
    #[serde(rename = "Version")]
    version: String,
    #[serde(rename = "Statement")]
    statements: Vec<Statement>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Statement {
    sid: String,
    effect: String,
    action: Vec<String>,
    resource: Vec<String>,
    /// Values by condition key, by operator.
    #[serde(default)]
    condition: BTreeMap<String, BTreeMap<String, Vec<String>>>,
}

/// The worker's role.
pub(crate) fn worker() -> Policy {
    serde_json::from_str(WORKER).unwrap()
}

/// What people need beyond what the worker reads.
pub(crate) fn people() -> Policy {
    serde_json::from_str(PEOPLE).unwrap()
}

/// What the placeholders stand for in the sandbox.
pub(crate) fn sandbox_names(load_balancer: &str) -> BTreeMap<&'static str, String> {
    [
        ("PARTITION", "aws"),
        ("REGION", REGION),
        ("ACCOUNT", ACCOUNT),
        ("CLUSTER", "prod"),
        ("SERVICE", "checkout"),
        ("LOAD_BALANCER", load_balancer),
        ("USER_POOL", "*"),
        ("DEAD_LETTERS", "taskset-guardian-dlq"),
        ("QUEUE", "taskset-guardian"),
        ("TABLE", "taskset-guardian"),
        ("BUS", "default"),
    ]
    .into_iter()
    .map(|(placeholder, name)| (placeholder, name.to_owned()))
    .collect()
}

impl Policy {
    /// The statements whose id begins so.
    pub(crate) fn of(mut self, sid: &str) -> Self {
        self.statements.retain(|statement| statement.sid.starts_with(sid));
        assert!(!self.statements.is_empty(), "no statement {sid}");
        self
    }

    /// With those of another one.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.statements.extend(other.statements);
        self
    }

    /// With names for placeholders.
    pub(crate) fn filled(mut self, names: &BTreeMap<&str, String>) -> Self {
        assert_eq!(self.version, "2012-10-17");
        let fill = |text: &mut String| {
            for (placeholder, name) in names {
                *text = text.replace(&format!("{{{placeholder}}}"), name);
            }
        };
        for statement in &mut self.statements {
            statement.resource.iter_mut().for_each(fill);
            statement.condition.values_mut().flat_map(|keys| keys.values_mut()).flatten().for_each(fill);
        }
        self
    }

    pub(crate) fn actions(&self) -> BTreeSet<&str> {
        self.statements.iter().flat_map(|statement| statement.action.iter().map(String::as_str)).collect()
    }

    pub(crate) fn allows(&self, request: &Request) -> bool {
        self.statements.iter().any(|statement| statement.allows(request))
    }
}

impl Statement {
    fn allows(&self, request: &Request) -> bool {
        assert_eq!(self.effect, "Allow", "{}", self.sid);
        self.action.iter().any(|action| action == request.action)
            // An action without a resource is allowed by `*` alone.
            && self.resource.iter().any(|resource| fits_glob(resource, &request.resource))
            && self.condition.iter().all(|(operator, keys)| {
                keys.iter().all(|(key, wanted)| {
                    let found = request.context.get(key.as_str());
                    holds(operator, wanted, found.map(Vec::as_slice))
                })
            })
    }
}

fn holds(operator: &str, wanted: &[String], found: Option<&[String]>) -> bool {
    let equal = |value: &String| wanted.contains(value);
    let like = |value: &String| wanted.iter().any(|glob| fits_glob(glob, value));
    match operator {
        "StringEquals" => found.is_some_and(|found| found.iter().any(equal)),
        "ArnEquals" => found.is_some_and(|found| found.iter().any(like)),
        "ForAllValues:StringLike" => found.is_none_or(|found| found.iter().all(like)),
        "Null" => wanted.iter().all(|absent| (absent == "true") == found.is_none()),
        _ => panic!("the condition {operator} is not known here"),
    }
}
