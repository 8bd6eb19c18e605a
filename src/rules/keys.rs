//! Every table and key of a rule file: what it holds, within which bounds, and what it is when it is left out.
//!
//! The parser reads a key by its entry here, [`schema`](fn@super::schema) renders the entries for editors, and a test holds
//! `docs/rules.md` against them.

use std::time::Duration;

use super::rule::{AfterPromotion, BlueCapacity, DeletePolicy, Mode, OnReturn};
use super::schema::Described;

/// A table, as errors and the schema speak of it.
pub(super) struct Table {
    /// Empty for the file itself.
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    /// What else would be unknown. Tables in the file itself are in [`TABLES`].
    pub(super) keys: &'static [&'static dyn Described],
}

/// A key, and what may be written behind it.
pub(super) struct Key<K> {
    pub(super) name: &'static str,
    /// What it means, for somebody who is about to set it.
    pub(super) about: &'static str,
    pub(super) holds: K,
}

/// A name of ASCII letters, digits and a few more. It has no default.
pub(super) struct Word {
    /// Beside letters and digits. The hyphen last: so it is itself in a pattern's class.
    pub(super) beside: &'static str,
    /// Letters in all.
    pub(super) most: usize,
}

/// One of a few words, each with what it says. Without the key it is the type's default.
pub(super) struct Choice<T: 'static> {
    pub(super) words: &'static [(&'static str, T, &'static str)],
}

/// A duration within bounds, both included.
pub(super) struct Span {
    pub(super) least: Duration,
    pub(super) most: Duration,
    pub(super) default: Duration,
}

/// A whole number within bounds, both included.
pub(super) struct Count {
    pub(super) least: u32,
    pub(super) most: u32,
    pub(super) default: u32,
}

/// A share of a whole that something can be above of: from 0 to less than 1.
pub(super) struct Share {
    pub(super) default: f64,
}

/// A probability that is worth a thought: neither never nor as good as always.
pub(super) struct Chance {
    pub(super) least: f64,
    pub(super) most: f64,
    pub(super) default: f64,
}

/// True or false.
pub(super) struct Flag {
    pub(super) default: bool,
}

/// Names of CloudWatch alarms. None without the key.
pub(super) struct Alarms {
    pub(super) most: usize,
    /// Letters of each.
    pub(super) longest: usize,
}

/// A gate that can be switched off by [`OFF`].
pub(super) struct OrOff<K>(pub(super) K);

/// A gate that is off until it is set. The default of what it holds is only an example.
pub(super) struct UntilSet<K>(pub(super) OrOff<K>);

pub(super) const OFF: &str = "off";

/// What the name of an alarm can't begin with: then it is an ARN.
pub(super) const ARN: &str = "arn:";

/// `[[protect]]` entries of one rule.
pub(super) const MOST_ENTRIES: usize = 100;

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
/// The least span of time in which something can happen.
const SECOND: Duration = Duration::from_secs(1);

pub(super) static FILE: Table = Table {
    name: "",
    about: "A rule of taskset-guardian: which services it protects, what counts as a breach, and what may be done about it.",
    keys: &[&NAME, &MODE],
};

pub(super) static NAME: Key<Word> =
    Key { name: "name", about: "Unique over all rule files.", holds: Word { beside: "_-", most: 64 } };

pub(super) static MODE: Key<Choice<Mode>> = Key {
    name: "mode",
    about: "Whether it acts.",
    holds: Choice {
        words: &[
            ("enforce", Mode::Enforce, "roll back"),
            ("observe", Mode::Observe, "decide, report and announce, but never act"),
        ],
    },
};

/// All tables in the file itself.
pub(super) static TABLES: [&Table; 8] =
    [&PROTECT, &WATCH, &STABILITY, &ERRORS, &COMPARE, &ROLLBACK, &LIMITS, &QUARANTINE];

/// The only one of which there may be several.
pub(super) static PROTECT: Table = Table {
    name: "protect",
    about: "Which services, besides those whose tag taskset-guardian:rule names the rule. When several rules match one, the most specific entry decides.",
    keys: &[&CLUSTER, &SERVICE],
};

const GLOB: Word = Word { beside: "_*?-", most: 255 };

pub(super) static CLUSTER: Key<Word> = Key {
    name: "cluster",
    about: "The cluster's name, not its ARN. `*` is any run of characters, `?` any one.",
    holds: GLOB,
};

pub(super) static SERVICE: Key<Word> = Key {
    name: "service",
    about: "The service's name, not its ARN. `*` is any run of characters, `?` any one.",
    holds: GLOB,
};

pub(super) static WATCH: Table =
    Table { name: "watch", about: "How long, and on what evidence.", keys: &[&BAKE, &FRESHNESS] };

pub(super) static BAKE: Key<Span> = Key {
    name: "bake",
    about: "How long green stays guarded after it became PRIMARY with all the traffic.",
    holds: Span { least: Duration::ZERO, most: DAY, default: Duration::from_mins(15) },
};

pub(super) static FRESHNESS: Key<Span> = Key {
    name: "freshness",
    about: "Older evidence is recorded but can't trigger anything. Not shorter than stability.window.",
    holds: Span { least: SECOND, most: DAY, default: Duration::from_mins(10) },
};

pub(super) static STABILITY: Table = Table {
    name: "stability",
    about: "Gates on green's tasks and targets.",
    keys: &[&WINDOW, &TASK_FAILURES, &STEADY_WITHIN, &UNHEALTHY_TARGETS],
};

pub(super) static WINDOW: Key<Span> = Key {
    name: "window",
    about: "The span of time over which failed tasks are counted.",
    holds: Span { least: SECOND, most: DAY, default: Duration::from_mins(5) },
};

/// The most is what a window remembers, 128 tasks, rounded down; nobody waits for more.
pub(super) static TASK_FAILURES: Key<OrOff<Count>> = Key {
    name: "task_failures",
    about: "A breach at this many distinct tasks whose end speaks against the version.",
    holds: OrOff(Count { least: 1, most: 100, default: 3 }),
};

pub(super) static STEADY_WITHIN: Key<OrOff<Span>> = Key {
    name: "steady_within",
    about: "A breach when green is not steady this long after its creation.",
    holds: OrOff(Span { least: SECOND, most: DAY, default: Duration::from_mins(10) }),
};

pub(super) static UNHEALTHY_TARGETS: Key<OrOff<Share>> = Key {
    name: "unhealthy_targets",
    about: "A breach when more than this share of green's targets fails its health checks in two sweeps in a row.",
    holds: OrOff(Share { default: 0.5 }),
};

pub(super) static ERRORS: Table = Table {
    name: "errors",
    about: "Gates on what CloudWatch says: alarms, and the traffic of green's target group.",
    keys: &[&ALARMS, &ALARM_FOR, &HTTP_5XX_RATIO, &LATENCY_P99, &MIN_REQUESTS],
};

/// `DescribeAlarms` answers for 100 names a call.
pub(super) static ALARMS: Key<Alarms> = Key {
    name: "alarms",
    about: "CloudWatch alarms by name, not by ARN. Those whose dimensions name green's target group need not be listed.",
    holds: Alarms { most: 100, longest: 255 },
};

pub(super) static ALARM_FOR: Key<Span> = Key {
    name: "alarm_for",
    about: "How long an alarm must have been red.",
    holds: Span { least: Duration::ZERO, most: DAY, default: Duration::ZERO },
};

/// Reading metrics costs money and takes a permission of its own, so both gates are off until somebody wants them.
pub(super) static HTTP_5XX_RATIO: Key<UntilSet<Share>> = Key {
    name: "http_5xx_ratio",
    about: "A breach when more than this share of the requests to green's target group fails: 5xx answers and connections that failed.",
    holds: UntilSet(OrOff(Share { default: 0.05 })),
};

pub(super) static LATENCY_P99: Key<UntilSet<Span>> = Key {
    name: "latency_p99",
    about: "A breach when one in a hundred answers of green takes longer.",
    holds: UntilSet(OrOff(Span { least: Duration::from_millis(1), most: HOUR, default: Duration::from_millis(800) })),
};

pub(super) static MIN_REQUESTS: Key<Count> = Key {
    name: "min_requests",
    about: "Requests within the window below which http_5xx_ratio and latency_p99 say nothing.",
    holds: Count { least: 1, most: 1_000_000, default: 50 },
};

pub(super) static COMPARE: Table =
    Table { name: "compare", about: "Whose fault a breach is.", keys: &[&AGAINST_BLUE, &FALSE_ROLLBACK, &PATIENCE] };

pub(super) static AGAINST_BLUE: Key<Flag> = Key {
    name: "against_blue",
    about: "Blue is the control group: a breach that hits blue as well is held and announced, not rolled back.",
    holds: Flag { default: true },
};

pub(super) static FALSE_ROLLBACK: Key<OrOff<Chance>> = Key {
    name: "false_rollback",
    about: "A breach when a sound green would lose as many tasks as this one in no more than this share of deployments.",
    holds: OrOff(Chance { least: 0.000_1, most: 0.1, default: 0.01 }),
};

/// None: a crashing green is the more frequent cause by far, and each second costs users.
pub(super) static PATIENCE: Key<Span> = Key {
    name: "patience",
    about: "How long `stability.task_failures` watches blue before it blames a green that had come up.",
    holds: Span { least: Duration::ZERO, most: Duration::from_mins(10), default: Duration::ZERO },
};

pub(super) static ROLLBACK: Table = Table {
    name: "rollback",
    about: "What a rollback does.",
    keys: &[&DRAIN, &BLUE_CAPACITY, &AFTER_PROMOTION, &DELETE],
};

/// A drain holds the whole rollback open: an hour is as long as the longest deregistration delay of a target group.
pub(super) static DRAIN: Key<Span> = Key {
    name: "drain",
    about: "Between the proof that blue has the traffic and the end of green, for requests in flight.",
    holds: Span { least: Duration::ZERO, most: HOUR, default: MINUTE },
};

pub(super) static BLUE_CAPACITY: Key<Choice<BlueCapacity>> = Key {
    name: "blue_capacity",
    about: "What is done about a blue that can't carry all the traffic.",
    holds: Choice {
        words: &[
            ("restore", BlueCapacity::Restore, "scale it back to 100 % first"),
            ("require", BlueCapacity::Require, "wait for it, and call a person after a minute"),
            ("ignore", BlueCapacity::Ignore, "shift onto whatever of it is healthy"),
        ],
    },
};

pub(super) static AFTER_PROMOTION: Key<Choice<AfterPromotion>> = Key {
    name: "after_promotion",
    about: "What is done about a green that is PRIMARY already, while the bake lasts.",
    holds: Choice {
        words: &[
            ("rollback", AfterPromotion::Rollback, "make blue PRIMARY again and go on"),
            ("page", AfterPromotion::Page, "call a person and change nothing"),
        ],
    },
};

pub(super) static DELETE: Key<Choice<DeletePolicy>> = Key {
    name: "delete",
    about: "What becomes of green after the drain.",
    holds: Choice {
        words: &[
            ("force", DeletePolicy::Force, "delete it"),
            ("keep", DeletePolicy::Keep, "move the traffic only, and leave green for inspection"),
        ],
    },
};

pub(super) static LIMITS: Table = Table { name: "limits", about: "How often it may act.", keys: &[&ROLLBACKS_PER_DAY] };

/// The most is one in a quarter of an hour: nobody could call more a limit.
pub(super) static ROLLBACKS_PER_DAY: Key<Count> = Key {
    name: "rollbacks_per_day",
    about: "Rollbacks of one service within 24 hours; the next one is held.",
    holds: Count { least: 1, most: 100, default: 3 },
};

pub(super) static QUARANTINE: Table =
    Table { name: "quarantine", about: "What becomes of a version that was rolled back.", keys: &[&ON_RETURN, &TTL] };

pub(super) static ON_RETURN: Key<Choice<OnReturn>> = Key {
    name: "on_return",
    about: "What is done when the version comes back as green.",
    holds: Choice {
        words: &[
            ("report", OnReturn::Report, "say so, and judge it by its gates like any other"),
            ("rollback", OnReturn::Rollback, "roll it back at once"),
        ],
    },
};

/// A version that is forgotten within the hour can be deployed again before anybody has looked at it; after 90 days an
/// image has been rebuilt.
pub(super) static TTL: Key<Span> = Key {
    name: "ttl",
    about: "How long a version stays in quarantine after its rollback.",
    holds: Span { least: HOUR, most: Duration::from_hours(90 * 24), default: Duration::from_hours(7 * 24) },
};

impl Word {
    pub(super) fn fits(&self, text: &str) -> bool {
        let may_be = |c: char| c.is_ascii_alphanumeric() || self.beside.contains(c);
        (1..=self.most).contains(&text.len()) && text.chars().all(may_be)
    }
}
