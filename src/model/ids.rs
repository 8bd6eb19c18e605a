//! Names of AWS things, as newtypes, so that a target group is never passed where a task set is meant.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(transparent)]
        #[schemars(inline)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes the text as it is; nothing is checked.
            pub fn new(text: impl AsRef<str>) -> Self {
                Self(Arc::from(text.as_ref()))
            }

            /// The text as AWS writes it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self::new(text)
            }
        }
    };
}

name!(
    /// `ecs-svc/<digits>`: a task set's id, and `startedBy` of each of its tasks.
    TaskSetId
);
name!(
    /// `arn:…:task-set/<cluster>/<service>/ecs-svc/<digits>`. Writes are addressed by ARN, never by id.
    TaskSetArn
);
name!(
    /// `arn:…:task/<cluster>/<id>`.
    TaskArn
);
name!(
    /// `arn:…:targetgroup/<name>/<id>`.
    TargetGroupArn
);
name!(
    /// `arn:…:listener/app|net/<lb>/<id>/<listener>`.
    ListenerArn
);
name!(
    /// `arn:…:listener-rule/app|net/<lb>/<id>/<listener>/<rule>`.
    RuleArn
);
name!(
    /// A CloudWatch alarm's name: may hold spaces and slashes.
    AlarmName
);
name!(
    /// One rollback, for people and for the correlation of logs, events and incidents.
    IncidentId
);

impl TaskSetId {
    /// The number in it, as in `4420815973316504711`: it makes the names of incidents.
    pub fn digits(&self) -> &str {
        self.as_str().rsplit('/').next().unwrap_or_default()
    }
}

impl TaskSetArn {
    /// The id inside the ARN. It contains a slash itself, so the ARN is split in four, never at the last slash.
    pub fn id(&self) -> Option<TaskSetId> {
        let resource = Arn::parse(self.as_str())?.resource;
        let mut parts = resource.splitn(4, '/');
        let id = (parts.next()? == "task-set").then(|| parts.nth(2)).flatten()?;
        Some(TaskSetId::new(id))
    }
}

impl TargetGroupArn {
    /// `targetgroup/<name>/<id>`: what CloudWatch uses as the `TargetGroup` dimension.
    pub fn dimension(&self) -> &str {
        self.as_str().rsplit(':').next().unwrap_or_default()
    }

    /// The `<name>` part, for people.
    pub fn name(&self) -> &str {
        self.dimension().split('/').nth(1).unwrap_or(self.as_str())
    }
}

impl ListenerArn {
    /// `<kind>/<name>/<id>` of its load balancer, as in `app/web/50dc6c49`: what CloudWatch uses as the `LoadBalancer`
    /// dimension.
    pub fn balancer(&self) -> Option<&str> {
        let (_, listener) = self.as_str().split_once(":listener/")?;
        let (balancer, _) = listener.rsplit_once('/')?;
        balancer.contains('/').then_some(balancer)
    }
}

impl TaskArn {
    /// The last part, for people.
    pub fn short(&self) -> &str {
        self.as_str().rsplit('/').next().unwrap_or_default()
    }
}

/// One service registered for protection, by the names people use.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub struct ServiceKey {
    /// Cluster name (not its ARN).
    pub cluster: Arc<str>,
    /// Service name.
    pub service: Arc<str>,
}

impl ServiceKey {
    /// From the two names.
    pub fn new(cluster: impl AsRef<str>, service: impl AsRef<str>) -> Self {
        Self { cluster: Arc::from(cluster.as_ref()), service: Arc::from(service.as_ref()) }
    }

    /// From an ECS service's ARN. `None` for any other, and for the old, short form, which names no cluster.
    pub fn of_arn(text: &str) -> Option<Self> {
        let arn = Arn::parse(text).filter(|arn| arn.service == "ecs")?;
        let (cluster, service) = arn.resource.strip_prefix("service/")?.split_once('/')?;
        (!service.contains('/')).then(|| Self::new(cluster, service))
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.cluster, self.service)
    }
}

/// Where a thing lives. An event from another account or Region never speaks about our service, whatever it names.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Scope {
    /// Twelve digits.
    pub account: Arc<str>,
    /// As in `eu-west-1`.
    pub region: Arc<str>,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.account, self.region)
    }
}

/// The parts of an ARN, borrowed. The resource keeps all its colons and slashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arn<'a> {
    /// `aws`, `aws-cn`, …
    pub partition: &'a str,
    /// `ecs`, `elasticloadbalancing`, …
    pub service: &'a str,
    /// As in `eu-west-1`.
    pub region: &'a str,
    /// Twelve digits.
    pub account: &'a str,
    /// All behind the fifth colon.
    pub resource: &'a str,
}

impl<'a> Arn<'a> {
    /// `None` when the text has not the six parts of an ARN.
    pub fn parse(text: &'a str) -> Option<Self> {
        let mut rest = text;
        // A byte at a time: parts are short, and each event has several ARNs.
        let mut part = || {
            let (part, behind) = rest.split_at_checked(rest.bytes().position(|byte| byte == b':')?)?;
            rest = behind.get(1..)?;
            Some(part)
        };
        if part()? != "arn" {
            return None;
        }
        let (partition, service, region, account) = (part()?, part()?, part()?, part()?);
        Some(Self { partition, service, region, account, resource: rest })
    }

    /// Account and Region.
    pub fn scope(&self) -> Scope {
        Scope { account: Arc::from(self.account), region: Arc::from(self.region) }
    }
}

/// One effect of the engine. Unique over the life of a journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EffectId(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_set_id_keeps_its_slash() {
        let arn =
            TaskSetArn::new("arn:aws:ecs:eu-west-1:111122223333:task-set/prod/checkout/ecs-svc/4420815973316504711");
        assert_eq!(arn.id(), Some(TaskSetId::new("ecs-svc/4420815973316504711")));
        assert_eq!(TaskSetArn::new("arn:aws:ecs:eu-west-1:1:service/prod/checkout").id(), None);
    }

    #[test]
    fn a_listener_names_its_load_balancer() {
        let listener = |text: &str| ListenerArn::new(format!("arn:aws:elasticloadbalancing:eu-west-1:1:{text}"));
        assert_eq!(listener("listener/app/web/50dc/0467").balancer(), Some("app/web/50dc"));
        assert_eq!(listener("listener/net/web/50dc/0467").balancer(), Some("net/web/50dc"));
        assert_eq!(listener("listener/x").balancer(), None);
        assert_eq!(ListenerArn::new("listener").balancer(), None);
    }

    #[test]
    fn a_target_group_has_its_dimension() {
        let arn = TargetGroupArn::new("arn:aws:elasticloadbalancing:eu-west-1:111122223333:targetgroup/green/1a2b");
        assert_eq!(arn.dimension(), "targetgroup/green/1a2b");
        assert_eq!(arn.name(), "green");
    }
}
