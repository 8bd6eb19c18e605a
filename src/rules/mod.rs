//! Rule files: what is protected, by which thresholds, and what may be done about a breach.
//!
//! Pure: text goes in, a [`RuleSet`] or diagnostics come out. Reading the files is the shell's business.
//!
//! A file is TOML and holds one rule. `name` and one `[[protect]]` make a working rule; everything else has a default.
//! A rule with any error is no rule: a guardian that guesses what was meant is worse than none.

mod compile;
mod diagnostic;
mod duration;
mod file;
mod glob;
mod keys;
mod rule;
mod schema;
mod syntax;
mod value;

pub use compile::{LARGEST_FILE, MOST_FILES, RuleFile, Unread, compile, match_nothing};
pub use diagnostic::{Code, Diagnostic, Diagnostics, Place, Related};
pub(crate) use duration::parse as parse_duration;
pub use file::is_rule_name;
pub use glob::matches as fits_glob;
pub use rule::{
    AfterPromotion, BLUE_LAG, BlueCapacity, Compare, DeletePolicy, ErrorGates, LEAST_TRAFFIC, Limits, Mode, OnReturn,
    Protect, Quarantine, RollbackPolicy, Rule, RuleSet, StabilityGates, Watch,
};
pub use schema::schema;
