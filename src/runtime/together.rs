//! `DescribeServices` for several services at a time: ECS answers for ten in one call, and counts calls.
//!
//! Nobody waits for company. A question that finds no call of its cluster under way is sent at once; those that come
//! meanwhile go together when it is answered. So a sweep over hundreds of services takes a tenth of the calls, and the read
//! that a rollback waits for is sent at once, or one answer later.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::lanes::Lanes;
use crate::model::{CallError, ErrorClass, ServiceKey, ServiceReading, Urgency};
use crate::ports::Fleet;

/// Services in one `DescribeServices`: ECS's limit.
const MOST: usize = 10;

/// A call that takes longer than this holds nobody up any more.
const SLOW: Duration = Duration::from_millis(200);

/// `None`: there is no such service.
type Answer = Result<Option<ServiceReading>, CallError>;

/// Asks for services, together where several are wanted at once.
pub(super) struct Together {
    lanes: Lanes<dyn Fleet>,
    clusters: Arc<Mutex<BTreeMap<Arc<str>, Cluster>>>,
}

/// What is asked about one cluster.
#[derive(Default)]
struct Cluster {
    waiting: Vec<Question>,
    /// Calls that are not answered, and when the newest of them was sent.
    under_way: usize,
    sent_at: Option<Instant>,
}

struct Question {
    service: Arc<str>,
    urgency: Urgency,
    answer: oneshot::Sender<Answer>,
}

impl Together {
    pub(super) fn new(lanes: Lanes<dyn Fleet>) -> Self {
        Self { lanes, clusters: Arc::default() }
    }

    /// One service. The most urgent go first, and those who go along with them go as fast.
    pub(super) async fn describe(&self, key: &ServiceKey, urgency: Urgency) -> Answer {
        let (answer, answered) = oneshot::channel();
        let batch = {
            let mut clusters = locked(&self.clusters);
            let cluster = clusters.entry(Arc::clone(&key.cluster)).or_default();
            cluster.waiting.push(Question { service: Arc::clone(&key.service), urgency, answer });
            let is_free = cluster.under_way == 0 || cluster.sent_at.is_some_and(|at| at.elapsed() >= SLOW);
            is_free.then(|| cluster.begin())
        };
        if let Some(batch) = batch {
            // Whoever asked may give up; those who go along with it must not lose their answers by that.
            let (lanes, clusters, cluster) = (self.lanes.clone(), self.clusters.clone(), key.cluster.clone());
            tokio::spawn(async move {
                let mut next = Some(batch);
                while let Some(batch) = next {
                    ask(&lanes, &cluster, batch).await;
                    next = end(&clusters, &cluster);
                }
            });
        }
        answered.await.unwrap_or_else(|_| {
            let (class, message) = (ErrorClass::Transient, "the read died".to_owned());
            Err(CallError { class, operation: "ecs:DescribeServices".to_owned(), code: None, message })
        })
    }
}

impl Cluster {
    /// The next call.
    fn begin(&mut self) -> Vec<Question> {
        self.under_way += 1;
        self.sent_at = Some(Instant::now());
        // Keeps the order of those that are as urgent.
        self.waiting.sort_by_key(|question| Reverse(question.urgency));
        self.waiting.drain(..self.waiting.len().min(MOST)).collect()
    }
}

/// A call is answered. What has come meanwhile is the next one.
fn end(clusters: &Mutex<BTreeMap<Arc<str>, Cluster>>, name: &Arc<str>) -> Option<Vec<Question>> {
    let mut clusters = locked(clusters);
    let cluster = clusters.get_mut(name)?;
    cluster.under_way = cluster.under_way.saturating_sub(1);
    if !cluster.waiting.is_empty() {
        return Some(cluster.begin());
    }
    if cluster.under_way == 0 {
        clusters.remove(name);
    }
    None
}

async fn ask(lanes: &Lanes<dyn Fleet>, cluster: &str, batch: Vec<Question>) {
    let urgency = batch.iter().map(|question| question.urgency).max().unwrap_or_default();
    let fleet = lanes.at(urgency);
    let names: BTreeSet<Arc<str>> = batch.iter().map(|question| Arc::clone(&question.service)).collect();
    let names: Vec<_> = names.into_iter().collect();
    let together = fleet.describe(cluster, &names).await;
    for Question { service, answer, .. } in batch {
        let said = match &together {
            Ok(readings) => Ok(readings.get(&ServiceKey::new(cluster, &service)).cloned()),
            // One that may not be read, or has an odd name, must not hide the others.
            Err(error) if names.len() > 1 && matches!(error.class, ErrorClass::Denied | ErrorClass::Rejected) => {
                let alone = fleet.describe(cluster, std::slice::from_ref(&service)).await;
                alone.map(|mut readings| readings.remove(&ServiceKey::new(cluster, &service)))
            }
            Err(error) => Err(error.clone()),
        };
        // Whoever asked may have given up.
        let _ = answer.send(said);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Questions and counts are whole after a panic too.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use async_trait::async_trait;
    use tokio::task::JoinSet;

    use super::*;
    use crate::model::{Controller, Scope, ServiceStatus, Tags, TaskArn, TaskReading, TaskSet, TaskSetId};

    /// Takes its time, and refuses a call that names `secret`.
    #[derive(Default)]
    struct Slow {
        calls: Mutex<Vec<usize>>,
        takes: Duration,
    }

    #[async_trait]
    impl Fleet for Slow {
        async fn clusters(&self) -> Result<Vec<Arc<str>>, CallError> {
            panic!()
        }

        async fn services(&self, _: &str) -> Result<Vec<Arc<str>>, CallError> {
            panic!()
        }

        async fn describe(
            &self,
            cluster: &str,
            services: &[Arc<str>],
        ) -> Result<BTreeMap<ServiceKey, ServiceReading>, CallError> {
            locked(&self.calls).push(services.len());
            tokio::time::sleep(self.takes).await;
            if services.iter().any(|name| &**name == "secret") {
                let (class, operation, message) = (ErrorClass::Denied, "test".to_owned(), "no".to_owned());
                return Err(CallError { class, operation, code: None, message });
            }
            let reading = || ServiceReading {
                scope: Scope::default(),
                status: ServiceStatus::Active,
                controller: Controller::External,
                desired_count: 1,
                task_sets: Vec::new(),
                tags: Tags::new(),
            };
            let known = services.iter().filter(|name| &***name != "gone");
            Ok(known.map(|name| (ServiceKey::new(cluster, name), reading())).collect())
        }

        async fn task_sets(&self, _: &ServiceKey, _: &[TaskSetId]) -> Result<Vec<TaskSet>, CallError> {
            panic!()
        }

        async fn tasks(&self, _: &ServiceKey, _: &[TaskArn], _: bool) -> Result<Vec<TaskReading>, CallError> {
            panic!()
        }
    }

    fn together(fleet: &Arc<Slow>) -> Arc<Together> {
        let fleet: Arc<dyn Fleet> = fleet.clone();
        Arc::new(Together::new(Lanes::one(&fleet)))
    }

    async fn all(fleet: &Arc<Slow>, names: &[String]) -> Vec<(String, Answer)> {
        let together = together(fleet);
        let mut asked = JoinSet::new();
        for name in names.iter().cloned() {
            let together = together.clone();
            asked.spawn(async move {
                let answer = together.describe(&ServiceKey::new("prod", &name), Urgency::Routine).await;
                (name, answer)
            });
        }
        asked.join_all().await
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_ask_while_a_call_is_under_way_go_together() {
        let fleet = Arc::new(Slow { takes: Duration::from_millis(50), ..Slow::default() });
        let mut names: Vec<_> = (0..30).map(|n| format!("web-{n}")).collect();
        names.push("gone".to_owned());
        for (name, answer) in all(&fleet, &names).await {
            assert_eq!(answer.unwrap().is_some(), name != "gone", "{name}");
        }
        assert_eq!(*locked(&fleet.calls), [1, 10, 10, 10], "the first waits for nobody");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_may_not_be_read_hides_no_other() {
        let fleet = Arc::new(Slow { takes: Duration::from_millis(50), ..Slow::default() });
        let names = ["a", "b", "secret", "c"].map(str::to_owned);
        for (name, answer) in all(&fleet, &names).await {
            assert_eq!(answer.is_err(), name == "secret", "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_hangs_holds_nobody_up_for_long() {
        let fleet = Arc::new(Slow { takes: Duration::from_hours(1), ..Slow::default() });
        let together = together(&fleet);
        for name in ["a", "b", "c"] {
            let (together, key) = (together.clone(), ServiceKey::new("prod", name));
            tokio::spawn(async move { together.describe(&key, Urgency::Routine).await });
            tokio::time::sleep(SLOW).await;
        }
        assert_eq!(*locked(&fleet.calls), [1, 1, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_takes_no_answer_from_those_who_went_along() {
        let fleet = Arc::new(Slow { takes: Duration::from_millis(50), ..Slow::default() });
        let together = together(&fleet);
        let impatient = {
            let together = together.clone();
            tokio::spawn(async move { together.describe(&ServiceKey::new("prod", "a"), Urgency::Routine).await })
        };
        tokio::task::yield_now().await;
        let patient = {
            let together = together.clone();
            tokio::spawn(async move { together.describe(&ServiceKey::new("prod", "b"), Urgency::Routine).await })
        };
        tokio::task::yield_now().await;
        impatient.abort();
        assert!(patient.await.unwrap().unwrap().is_some());
    }
}
