//! An AWS that refuses, lags or repeats itself.

use std::time::Duration;

use super::Scenario;
use super::parts::{crashing, deployment, early_canary, plain};
use crate::sandbox::world::{Delivery, Setup, Throttled};

pub(super) fn all() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "throttled-elb",
            title: "Elastic Load Balancing throttles the shift",
            story: "checkout:88 crashes as soon as it starts, and for forty seconds Elastic Load Balancing refuses \
                    every change with \"Rate exceeded\". The guardian keeps trying, ever more slowly, and rolls back \
                    when it is let in.",
            setup: |_| {
                let throttled = Throttled {
                    operations: ["ModifyRule", "ModifyListener"].map(str::to_owned).to_vec(),
                    from: Duration::from_secs(20),
                    until: Duration::from_mins(1),
                };
                Setup { throttled: vec![throttled], ..deployment(crashing(), early_canary()) }
            },
            ..plain()
        },
        Scenario {
            name: "lagging-reads",
            title: "old answers, late and repeated events",
            story: "checkout:88 crashes as soon as it starts, while DescribeServices answers what was so four seconds \
                    ago and events come twice, late and out of order. The guardian asks a second time where it \
                    matters, and rolls back all the same.",
            setup: |_| {
                let delivery = Delivery { duplicates: 0.3, stragglers: 0.2, ..Delivery::default() };
                let lag = Duration::from_secs(4);
                Setup { delivery, lag, ..deployment(crashing(), early_canary()) }
            },
            ..plain()
        },
    ]
}
