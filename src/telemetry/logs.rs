//! Logs: a sentence for people plus fields for queries, on stderr. JSON lines unless a person watches.

use std::io::{self, IsTerminal};

use tracing::Level;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

use super::narrate;
use crate::engine::{Note, Report, Use};
use crate::model::{IncidentId, ServiceKey, TaskSetId};

/// In this order; the second is what other Rust programs listen to.
const FILTER_VARIABLES: [&str; 2] = ["TASKSET_GUARDIAN_LOG", "RUST_LOG"];

/// Ours in detail, libraries only when they complain.
const DEFAULT_FILTER: &str = "warn,taskset_guardian=info";

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Logging can't begin.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter is not understood.
    #[error("{variable}={value:?} is not a log filter: {cause}. Write for example {DEFAULT_FILTER:?} or \"debug\"")]
    Filter {
        /// Which variable.
        variable: &'static str,
        /// What it says.
        value: String,
        /// What is wrong with it.
        cause: tracing_subscriber::filter::ParseError,
    },
    /// Somebody else logs in this process already.
    #[error("logging was begun twice")]
    Twice,
}

/// Begins to log, once a process. `quiet`: complaints only, for verbs whose result is on stdout; the environment wins.
pub fn init(format: LogFormat, quiet: bool) -> Result<(), LogError> {
    let set =
        FILTER_VARIABLES.iter().find_map(|name| Some((*name, std::env::var(name).ok().filter(|v| !v.is_empty())?)));
    let filter = match set {
        Some((variable, value)) => {
            EnvFilter::try_new(&value).map_err(|cause| LogError::Filter { variable, value, cause })?
        }
        None if quiet => EnvFilter::new("warn"),
        None => EnvFilter::new(DEFAULT_FILTER),
    };
    let terminal = io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(terminal);
    let begun = match format {
        LogFormat::Json => builder.json().flatten_event(true).finish().try_init(),
        LogFormat::Auto if !terminal => builder.json().flatten_event(true).finish().try_init(),
        LogFormat::Auto | LogFormat::Text => builder.with_target(false).finish().try_init(),
    };
    begun.map_err(|_| LogError::Twice)
}

/// One log line per note that is news.
pub fn log_report(report: &Report) {
    for note in &report.notes {
        // There may be thousands a second: what nobody hears is not put into words.
        let is_quiet = matches!(note, Note::Signal { used, .. } if *used != Use::Foreign);
        if is_quiet && !tracing::enabled!(Level::DEBUG) {
            continue;
        }
        if let Some((level, sentence)) = narrate(note) {
            let Subject { service, incident, task_set } = subject(note);
            // So that one id leads through all the lines of a rollback.
            let incident = incident.or_else(|| report.incidents.get(service?));
            let service = service.map(ToString::to_string);
            let (service, incident, task_set) =
                (service.as_deref(), incident.map(IncidentId::as_str), task_set.map(TaskSetId::as_str));
            // tracing wants its level at compile time.
            macro_rules! say {
                ($level:ident) => {
                    tracing::event!(Level::$level, service, incident, task_set, "{sentence}")
                };
            }
            match level {
                Level::ERROR => say!(ERROR),
                Level::WARN => say!(WARN),
                Level::INFO => say!(INFO),
                Level::DEBUG => say!(DEBUG),
                _ => say!(TRACE),
            }
        }
    }
}

/// What a note is about, as fields.
struct Subject<'a> {
    service: Option<&'a ServiceKey>,
    incident: Option<&'a IncidentId>,
    task_set: Option<&'a TaskSetId>,
}

fn subject(note: &Note) -> Subject<'_> {
    let (incident, task_set) = match note {
        Note::DeploymentBegan { green, .. } | Note::Graduated { green, .. } => (None, Some(green)),
        Note::Decided { incident, evidence, .. } => {
            (Some(incident), evidence.first().map(|evidence| &evidence.task_set))
        }
        Note::Closed { incident, .. } => (Some(incident), None),
        Note::Announced { incident, .. } => (incident.as_ref(), None),
        _ => (None, None),
    };
    Subject { service: note.service(), incident, task_set }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::model::IncidentOutcome;

    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_is_a_sentence_with_fields_and_absent_fields_are_absent() {
        let paper = Paper::default();
        let sink = paper.clone();
        let subscriber =
            tracing_subscriber::fmt().json().flatten_event(true).with_writer(move || sink.clone()).finish();
        let closed = Note::Closed {
            service: ServiceKey::new("prod", "checkout"),
            incident: IncidentId::new("i-1"),
            outcome: IncidentOutcome::Escalated,
            why: "blue is gone".into(),
        };
        tracing::subscriber::with_default(subscriber, || {
            log_report(&Report { notes: vec![closed], ..Report::default() });
        });
        let text = String::from_utf8(paper.0.lock().unwrap().clone()).unwrap();
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["message"], "prod/checkout: i-1 needs a person: blue is gone");
        assert_eq!(
            (&line["level"], &line["service"], &line["incident"]),
            (&"ERROR".into(), &"prod/checkout".into(), &"i-1".into())
        );
        assert_eq!(line.get("task_set"), None);
    }
}
