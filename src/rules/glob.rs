//! Globs over names: `*` is any run of characters, `?` is any one, everything else is itself.

/// How precisely an entry names a service. Greater is more specific.
///
/// The cluster decides, then the service. Of two patterns a name without wildcards is the more specific one, then the
/// one with more literal characters, then the one with more `?`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Specificity {
    cluster: Precision,
    service: Precision,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Precision {
    is_literal: bool,
    literals: usize,
    single_wildcards: usize,
}

impl Specificity {
    pub(super) fn of(cluster: &str, service: &str) -> Self {
        Self { cluster: Precision::of(cluster), service: Precision::of(service) }
    }
}

impl Precision {
    fn of(glob: &str) -> Self {
        let stars = glob.matches('*').count();
        let single_wildcards = glob.matches('?').count();
        let literals = glob.chars().count() - stars - single_wildcards;
        Self { is_literal: stars + single_wildcards == 0, literals, single_wildcards }
    }
}

/// Whether the glob matches the whole name. Remembers one `*` only, because a later one makes the earlier ones
/// settled: time is bounded by the product of the lengths and, for the globs of real life, linear.
pub fn matches(glob: &str, name: &str) -> bool {
    let (mut rest, mut left) = (glob, name);
    // Behind the last `*`: the glob's rest, and the name's rest from which it is to be tried next.
    let mut retry: Option<(&str, &str)> = None;
    loop {
        let (wanted, behind) = first(rest);
        let (found, after) = first(left);
        match (wanted, found) {
            (Some('*'), _) => {
                retry = Some((behind, left));
                rest = behind;
                continue;
            }
            (None, None) => return true,
            (Some('?'), Some(_)) => {
                (rest, left) = (behind, after);
                continue;
            }
            (Some(one), Some(other)) if one == other => {
                (rest, left) = (behind, after);
                continue;
            }
            _ => {}
        }
        match retry.map(|(glob, name)| (glob, first(name))) {
            Some((glob, (Some(_), shorter))) => {
                retry = Some((glob, shorter));
                (rest, left) = (glob, shorter);
            }
            Some((_, (None, _))) | None => return false,
        }
    }
}

/// The first character and what follows it.
fn first(text: &str) -> (Option<char>, &str) {
    let mut chars = text.chars();
    let first = chars.next();
    (first, chars.as_str())
}

/// Whether some text fits both globs as far as neither has a star.
fn agree(mut pairs: impl Iterator<Item = (char, char)>) -> bool {
    let differ = |mine: char, theirs: char| mine != theirs && mine != '?' && theirs != '?';
    let is_star = |(mine, theirs): (char, char)| mine == '*' || theirs == '*';
    pairs.find(|(mine, theirs)| is_star((*mine, *theirs)) || differ(*mine, *theirs)).is_none_or(is_star)
}

/// Whether some name matches both globs.
pub(super) fn overlap(one: &str, other: &str) -> bool {
    // Thousands of globs are compared in pairs, and nearly all of them differ at once.
    let ends = || one.chars().rev().zip(other.chars().rev());
    if !agree(one.chars().zip(other.chars())) || !agree(ends()) {
        return false;
    }
    let other: Vec<char> = other.chars().collect();
    // row[j]: some text matches both what was read of `one` and the first j parts of `other`. Before anything is read,
    // only stars match the empty text.
    let mut row = Vec::with_capacity(other.len() + 1);
    row.push(true);
    row.extend(other.iter().scan(true, |empty, part| {
        *empty = *empty && *part == '*';
        Some(*empty)
    }));
    for mine in one.chars() {
        let mut next = Vec::with_capacity(row.len());
        let mut left = mine == '*' && row.first() == Some(&true);
        next.push(left);
        for (theirs, before) in other.iter().zip(row.windows(2)) {
            let [diagonal, up] = *before else { break };
            left = if mine == '*' || *theirs == '*' {
                // A star takes nothing, or what the other side's part takes.
                up || left
            } else {
                diagonal && (mine == *theirs || mine == '?' || *theirs == '?')
            };
            next.push(left);
        }
        row = next;
    }
    row.last() == Some(&true)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn stars_take_any_run_and_question_marks_one_character() {
        let yes = [
            ("*", ""),
            ("*", "web"),
            ("we?", "web"),
            ("w*b", "wb"),
            ("*-api", "a-api-api"),
            ("a*b*c", "a-b-b-c"),
            ("**", "x"),
        ];
        for (glob, name) in yes {
            assert!(matches(glob, name), "{glob} {name}");
        }
        let no =
            [("", "x"), ("x", ""), ("?", ""), ("we?", "we"), ("web", "webs"), ("*-api", "api"), ("a*b*c", "a-c-b")];
        for (glob, name) in no {
            assert!(!matches(glob, name), "{glob} {name}");
        }
    }

    #[test]
    fn names_beat_patterns_and_longer_patterns_beat_shorter_ones() {
        let ordered = [
            ("*", "*"),
            ("*", "c*"),
            ("*", "checkout"),
            ("prod*", "*"),
            ("prod", "*"),
            ("prod", "c?*"),
            ("prod", "??????-*"),
            ("prod", "checkout-*"),
            ("prod", "web"),
        ];
        let specificities: Vec<_> =
            ordered.iter().map(|(cluster, service)| Specificity::of(cluster, service)).collect();
        assert!(specificities.is_sorted_by(|a, b| a < b), "{specificities:?}");
    }

    /// All names over two letters of at most five characters: enough for globs of at most five parts.
    fn names() -> Vec<String> {
        let mut all = vec![String::new()];
        let mut from = 0;
        for _ in 0..5 {
            let until = all.len();
            for i in from..until {
                for letter in ['a', 'b'] {
                    all.push(format!("{}{letter}", all[i]));
                }
            }
            from = until;
        }
        all
    }

    /// The definition, in exponential time.
    fn matches_by_definition(glob: &[u8], name: &[u8]) -> bool {
        match (glob, name) {
            ([], []) => true,
            ([b'*', rest @ ..], _) => (0..=name.len()).any(|taken| matches_by_definition(rest, &name[taken..])),
            ([b'?', rest @ ..], [_, name @ ..]) => matches_by_definition(rest, name),
            ([one, rest @ ..], [other, name @ ..]) => one == other && matches_by_definition(rest, name),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn the_matcher_agrees_with_the_definition(glob in "[ab*?]{0,8}", name in "[ab]{0,10}") {
            prop_assert_eq!(matches(&glob, &name), matches_by_definition(glob.as_bytes(), name.as_bytes()));
        }

        #[test]
        fn globs_overlap_exactly_when_some_name_matches_both(one in "[ab*?]{0,3}", other in "[ab*?]{0,3}") {
            // Five letters suffice: a glob of three parts has either no star, and matches three letters at most, or two
            // other parts at most, and two such globs need no more than four letters for all of them.
            let shared = names().iter().any(|name| matches(&one, name) && matches(&other, name));
            prop_assert_eq!(overlap(&one, &other), shared);
        }
    }
}
