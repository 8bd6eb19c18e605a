//! The schema of a rule file is in step with the parser, and so is docs/rules.md.

use std::fs;

use serde_json::{Value, json};
use taskset_guardian::cli::schema::{Described, schema as print};
use taskset_guardian::rules::{Code, compile, schema};

use crate::{codes, file, files_of, gallery, in_project, protecting};

/// What does not fit of a rule file. `None` when it is no TOML.
fn told_by_the_schema(text: &str) -> Option<Vec<String>> {
    // A byte order mark is the editor's business, not the schema's.
    let table: toml::Table = text.trim_start_matches('\u{feff}').parse().ok()?;
    let validator = jsonschema::validator_for(&schema()).unwrap();
    let value = serde_json::to_value(table).unwrap();
    Some(validator.iter_errors(&value).map(|error| format!("{}: {error}", error.instance_path())).collect())
}

/// A key, as the schema has it.
struct Key {
    /// `bake`.
    name: String,
    /// `watch`, or nothing.
    table: String,
    schema: Value,
}

impl Key {
    fn path(&self) -> String {
        if self.table.is_empty() { self.name.clone() } else { format!("{}.{}", self.table, self.name) }
    }

    /// A complete rule file that sets this key to this value, in TOML.
    fn set_to(&self, value: &str) -> String {
        let key = format!("{} = {value}\n", self.name);
        let mut name = "name = \"web\"\n".to_owned();
        let mut protect = "[[protect]]\ncluster = \"prod\"\nservice = \"web\"\n".to_owned();
        match self.table.as_str() {
            "" if self.name == "name" => name.clone_from(&key),
            "" => name += &key,
            "protect" => {
                let rest = protect.lines().filter(|line| !line.starts_with(&self.name)).collect::<Vec<_>>().join("\n");
                protect = format!("{rest}\n{key}");
            }
            table => protect = format!("{protect}[{table}]\n{key}"),
        }
        name + &protect
    }
}

fn keys() -> Vec<Key> {
    let mut keys = Vec::new();
    for (name, property) in schema()["properties"].as_object().unwrap() {
        let inside = property.get("items").unwrap_or(property);
        match inside.get("properties") {
            Some(properties) => {
                let inside = properties.as_object().unwrap().iter();
                keys.extend(inside.map(|(key, schema)| Key {
                    name: key.clone(),
                    table: name.clone(),
                    schema: schema.clone(),
                }));
            }
            None => keys.push(Key { name: name.clone(), table: String::new(), schema: property.clone() }),
        }
    }
    keys
}

fn first_code(text: &str) -> Option<Code> {
    codes(&compile(&[file("any.toml", text)])).first().copied()
}

#[test]
fn the_verb_prints_it() {
    let mut out = Vec::new();
    print(Described::Rules, &mut out).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&out).unwrap(), schema());
    insta::assert_snapshot!("schema", String::from_utf8(out).unwrap());
}

#[test]
fn what_is_shipped_fits() {
    for file in files_of("rules").into_iter().chain(files_of("rules/examples")) {
        assert_eq!(told_by_the_schema(&file.text), Some(vec![]), "{}", file.path);
    }
}

/// What a schema can't say is left to `check`, see src/rules/schema.rs. Each of these would fit.
const LEFT_TO_CHECK: [&str; 6] = [
    "13-duration-too-long",
    "14-quarantine-too-short",
    "20-window-longer-than-freshness",
    "21-window-longer-than-the-default",
    "31-names-twice",
    "32-overlap",
];

#[test]
fn mistakes_do_not_fit() {
    for case in gallery::cases() {
        let told =
            files_of(&gallery::folder(&case)).iter().map(|file| told_by_the_schema(&file.text)).collect::<Vec<_>>();
        let fits = told.iter().all(|told| told.as_ref().is_some_and(Vec::is_empty));
        assert_eq!(fits, LEFT_TO_CHECK.contains(&case.as_str()), "{case}: {told:?}");
        let is_toml = told.iter().all(Option::is_some);
        assert_eq!(is_toml, !gallery::told(&case).0.iter().any(|error| error.code == Code::Syntax), "{case}");
    }
}

/// A key that was in the schema only would be unknown to the parser, or ignored by it.
#[test]
fn the_parser_reads_every_key_of_the_schema() {
    assert_eq!(keys().len(), 25);
    for key in keys() {
        let text = key.set_to("2026-03-02");
        let errors = compile(&[file("any.toml", &text)]).unwrap_err();
        let [error] = errors.0.as_slice() else { panic!("{}: {errors}", key.path()) };
        assert_eq!(error.code, Code::WrongType, "{error}");
        assert!(error.message.contains(&key.path()), "{error}");
    }
}

/// And a key that was in the parser only would be rejected: it looks up what is known in the table of the schema. The
/// shipped rule has all keys, so that one which is missing here shows there.
#[test]
fn the_shipped_rule_has_every_key_with_the_schemas_default() {
    let shipped: toml::Table = files_of("rules")[0].text.parse().unwrap();
    let shipped = serde_json::to_value(shipped).unwrap();
    for key in keys() {
        let table = if key.table.is_empty() { &shipped } else { &shipped[&key.table] };
        let table = table.get(0).unwrap_or(table);
        let value = table.get(&key.name).unwrap_or_else(|| panic!("{} is not in rules/default.toml", key.path()));
        match key.schema.get("default") {
            // It only observes, and says why.
            Some(_) if key.name == "mode" => assert_eq!(value, "observe"),
            // "60s" and "1m" are the same.
            Some(default) if key.name == "drain" => assert_eq!((value, default), (&json!("60s"), &json!("1m"))),
            default => assert_eq!(default.unwrap_or(value), value, "{}", key.path()),
        }
    }
}

/// Leaving a key out and setting it to the default is the same rule.
#[test]
fn the_defaults_are_the_parsers() {
    let bare = compile(&[protecting("web", &["prod/web"])]).unwrap();
    let mut with_default = 0;
    for key in keys() {
        if let Some(default) = key.schema.get("default") {
            with_default += 1;
            let set = compile(&[file("any.toml", &key.set_to(&default.to_string()))]);
            assert_eq!(set.as_ref(), Ok(&bare), "{}", key.path());
        } else {
            assert!(["name", "cluster", "service"].contains(&key.name.as_str()), "{} has no default", key.path());
        }
    }
    assert_eq!(with_default, 22);
}

/// Bounds of numbers, words and lengths: what just fits compiles, the next one does neither.
#[test]
fn the_bounds_are_the_parsers() {
    let mut probed = 0;
    for key in keys() {
        let values = key.schema.get("anyOf").map_or(&key.schema, |kinds| &kinds[0]);
        let mut probes: Vec<Value> =
            vec![json!("off"), json!(false), json!(true), json!(0), json!(0.5), json!(1), json!("x")];
        probes.extend(
            ["30m", "0s", "007s", "1.5h", "5 m", "5w", "-5s", "", "m", "größe", "a*b", "a?b", "a b", "a-b_c"]
                .map(Value::from),
        );
        for bound in ["minimum", "maximum", "exclusiveMaximum"].iter().filter_map(|bound| values.get(bound)) {
            match bound.as_i64() {
                Some(bound) => probes.extend([bound - 1, bound, bound + 1].map(Value::from)),
                None => probes.extend([0.9, 1.0, 1.1].map(|share| Value::from(share * bound.as_f64().unwrap()))),
            }
        }
        probes.extend(values.get("enum").into_iter().flat_map(|words| words.as_array().unwrap().clone()));
        probes.extend([64, 65, 255, 256].map(|length| json!("n".repeat(length))));
        for length in [1, 255, 256] {
            probes.push(json!(["ü".repeat(length)]));
        }
        probes.extend([
            json!([]),
            json!(["a", "a"]),
            json!([""]),
            json!(["arn:x"]),
            json!(["a\u{1}"]),
            json!(["a\u{85}"]),
            json!([5]),
        ]);
        for count in [100, 101] {
            probes.push(json!((0..count).map(|n| format!("alarm-{n}")).collect::<Vec<_>>()));
        }
        for probe in probes {
            let text = key.set_to(&probe.to_string());
            let code = first_code(&text);
            // Only these are beyond a schema: a duration's bounds, and what they have to do with each other.
            let is_left_to_check = probe.is_string() && matches!(code, Some(Code::OutOfRange | Code::Contradiction));
            let fits = told_by_the_schema(&text).unwrap();
            assert_eq!(fits.is_empty(), code.is_none() || is_left_to_check, "{text}{fits:?} {code:?}");
            probed += 1;
        }
    }
    assert!(probed > 600, "{probed}");
}

/// The headings of docs/rules.md, with the line below each.
fn documented() -> Vec<(String, String)> {
    let text = fs::read_to_string(in_project("docs/rules.md")).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    let headings = lines.windows(2).filter_map(|pair| Some((pair[0].strip_prefix("### `")?, pair[1])));
    headings.map(|(path, below)| (path.trim_end_matches('`').to_owned(), below.to_owned())).collect()
}

#[test]
fn the_documentation_has_every_key_with_its_default_and_its_bounds() {
    let documented = documented();
    let mut expected: Vec<String> = keys().iter().map(Key::path).collect();
    let mut found: Vec<String> = documented.iter().map(|(path, _)| path.clone()).collect();
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
    for key in keys() {
        let path = key.path();
        let (_, line) = documented.iter().find(|(documented, _)| *documented == path).unwrap();
        let default = match key.schema.get("default") {
            Some(default) => format!("Default `{default}`."),
            None => "Required.".to_owned(),
        };
        assert!(line.starts_with(&default), "{path} begins with {line:?}, not with {default:?}");
        // Descriptions end with the bounds, where there are any: "… 1 to 100, or "off"."
        let description = key.schema["description"].as_str().unwrap();
        let bounds = description.trim_end_matches('.').rsplit(". ").next().unwrap();
        if bounds.contains(" to ") && bounds.starts_with(|c: char| c == '"' || c.is_ascii_digit()) {
            assert!(line.replace('`', "").contains(&format!("{bounds}.")), "{path}: {line:?} does not say {bounds:?}");
        }
        for word in key.schema.get("enum").into_iter().flat_map(|words| words.as_array().unwrap()) {
            assert!(line.contains(&format!("`{word}`")), "{path}: {line:?} does not say {word}");
        }
    }
}

#[test]
fn the_documentation_has_every_code() {
    let text = fs::read_to_string(in_project("docs/rules.md")).unwrap();
    let found: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("| R")?.split(' ').next()).collect();
    let expected: Vec<&str> = Code::ALL.iter().map(|code| code.as_str().trim_start_matches('R')).collect();
    assert_eq!(found, expected);
}

/// Rules in the documentation are rules.
#[test]
fn the_documented_rules_compile() {
    let mut count = 0;
    for path in ["docs/rules.md", "README.md"] {
        let text = fs::read_to_string(in_project(path)).unwrap();
        for block in text.split("```toml\n").skip(1) {
            let block = block.split("```").next().unwrap();
            let rule = block.lines().map(str::trim_start).collect::<Vec<_>>().join("\n");
            if rule.contains("name = ") {
                assert_eq!(first_code(&rule), None, "{path}:\n{rule}");
                count += 1;
            }
        }
    }
    assert!(count >= 2, "{count}");
}
