//! The fleet brake: when many services breach at a time the cause is shared, and rolling all of them back would hide it,
//! or be it. The only place where one service looks at others.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::{ServiceKey, Timestamp, humane};

/// Breaches that lie no further apart than this count together.
const TOGETHER: Duration = Duration::from_mins(10);

/// Which services breach.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Brakes {
    /// When each was last found breaching. A service that is held is found so again at every read; one that is rolled
    /// back is not judged any more, and stops counting by and by. So does one that nobody protects any more: what it
    /// breached for may be what the others breach for.
    #[serde(with = "super::pairs")]
    breaching: BTreeMap<ServiceKey, Timestamp>,
    /// The brake is on.
    engaged: bool,
    /// And was announced.
    announced: bool,
}

/// What became of the brake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Engaged,
    Released,
}

impl Brakes {
    /// A service is breaching.
    pub(super) fn breaching(&mut self, now: Timestamp, service: &ServiceKey) {
        self.breaching.insert(service.clone(), now);
    }

    /// The clock was set, or another process goes on, by a clock of its own: nobody knows how much of the ten minutes has
    /// passed, so they begin anew. Held too long is better than too short. True when that changed anything.
    pub(super) fn begin_anew(&mut self, now: Timestamp) -> bool {
        self.breaching.values_mut().for_each(|at| *at = now);
        !self.breaching.is_empty()
    }

    /// Brings the brake up to date. Says when it turns, once.
    pub(super) fn settle(&mut self, now: Timestamp, limit: usize) -> Option<Turn> {
        self.breaching.retain(|_, at| now.since(*at) < TOGETHER);
        let engaged = self.breaching.len() > limit;
        let turned = engaged != std::mem::replace(&mut self.engaged, engaged);
        self.announced &= engaged;
        turned.then_some(if engaged { Turn::Engaged } else { Turn::Released })
    }

    /// Why rollbacks are held, while they are.
    pub(super) fn held(&self) -> Option<String> {
        let names: Vec<_> = self.breaching.keys().map(ToString::to_string).collect();
        let count = names.len();
        let shown = names.join(", ");
        self.engaged.then(|| {
            format!(
                "the fleet brake is on: {count} services breach within {}, so the cause is shared: {shown}",
                humane(TOGETHER)
            )
        })
    }

    /// Whether the state of the brake was announced before; from now on it was.
    pub(super) const fn announced(&mut self) -> bool {
        std::mem::replace(&mut self.announced, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_brake_is_on_while_more_services_breach_than_allowed_and_says_so_once() {
        let mut brakes = Brakes::default();
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1000);
        let service = |n: u32| ServiceKey::new("prod", format!("s{n}"));
        for n in 0..3 {
            brakes.breaching(at(0), &service(n));
            assert_eq!(brakes.settle(at(0), 3), None);
        }
        brakes.breaching(at(300), &service(3));
        assert_eq!(brakes.settle(at(300), 3), Some(Turn::Engaged));
        assert!(brakes.held().is_some_and(|why| why.contains("4 services") && why.contains("prod/s3")));
        brakes.breaching(at(599), &service(3));
        assert_eq!(brakes.settle(at(599), 3), None, "announced already");
        assert_eq!(brakes.settle(at(600), 3), Some(Turn::Released), "three of them were ten minutes ago");
        assert_eq!(brakes.held(), None);
    }

    #[test]
    fn on_a_clock_that_is_another_one_the_ten_minutes_begin_anew() {
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1000);
        for new in [at(-3600), at(3600)] {
            let mut brakes = Brakes::default();
            assert!(!brakes.begin_anew(at(0)), "there is nothing to begin");
            (0..4).for_each(|n| brakes.breaching(at(0), &ServiceKey::new("prod", format!("s{n}"))));
            assert_eq!(brakes.settle(at(0), 3), Some(Turn::Engaged));
            assert!(brakes.begin_anew(new));
            assert_eq!(brakes.settle(new.plus(Duration::from_secs(599)), 3), None);
            assert_eq!(brakes.settle(new.plus(TOGETHER), 3), Some(Turn::Released));
        }
    }
}
