//! Reading rule files: a directory's `*.toml`, one file, or texts that somebody hands over.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::rules::{LARGEST_FILE, MOST_FILES, RuleFile, Unread};

/// Reads the rule files of a directory (not of its subdirectories) in the order of their names, or one file.
///
/// What is too large or too many is read as far as is needed to see that, and left to the compiler to report; so is a file of a
/// directory that can't be read, and one that is not UTF-8.
///
/// # Errors
/// When the directory, or the one file, can't be read. The error names it.
pub fn read_rule_files(path: &Path) -> io::Result<Vec<RuleFile>> {
    if !path.is_dir() {
        return Ok(vec![read(path).map_err(|error| named(path, &error))?]);
    }
    let paths = listed(path).map_err(|error| named(path, &error))?;
    let unreadable = |path: &Path, error: &io::Error| {
        let help = "mend it, or take it out of the directory".to_owned();
        let unread = Some(Unread { at: 0, said: format!("the file can't be read: {error}"), help });
        RuleFile { unread, ..RuleFile::new(path.display().to_string(), "") }
    };
    let read_each = |path: &PathBuf| read(path).unwrap_or_else(|error| unreadable(path, &error));
    Ok(paths.iter().take(MOST_FILES + 1).map(read_each).collect())
}

/// Rule files out of a JSON object, texts by file name: for a container that has no directory of its own to read.
///
/// # Errors
/// When it is no such object.
pub fn rule_files_of(json: &str) -> Result<Vec<RuleFile>, serde_json::Error> {
    let files: BTreeMap<String, String> = serde_json::from_str(json)?;
    Ok(files.into_iter().map(|(path, text)| RuleFile::new(path, text)).collect())
}

fn listed(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        // Editors leave hidden files such as `.#web.toml` beside the ones that they edit.
        let is_hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        let is_rule = path.extension().is_some_and(|extension| extension == "toml");
        if is_rule && !is_hidden && !path.is_dir() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn read(path: &Path) -> io::Result<RuleFile> {
    // To open a pipe waits for somebody to write into it.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut bytes = Vec::new();
    let limit = u64::try_from(LARGEST_FILE).unwrap_or(u64::MAX).saturating_add(1);
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    // One that is refused for its size is cut anywhere.
    let odd = std::str::from_utf8(&bytes).err().filter(|_| bytes.len() <= LARGEST_FILE);
    let unread = odd.map(|error| {
        let (at, help) = (error.valid_up_to(), "save the file as UTF-8".to_owned());
        Unread { at, said: "the file is not UTF-8".to_owned(), help }
    });
    let text = String::from_utf8_lossy(&bytes);
    Ok(RuleFile { unread, ..RuleFile::new(path.display().to_string(), text) })
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "test code")]
mod tests {
    use super::*;

    #[test]
    fn rule_files_come_out_of_json_by_name_and_nothing_else_is_taken_for_them() {
        let files = rule_files_of(r#"{"web.toml": "name = \"web\"\n", "a.toml": ""}"#).unwrap();
        let named: Vec<_> = files.iter().map(|file| (file.path.as_str(), file.text.as_str())).collect();
        assert_eq!(named, [("a.toml", ""), ("web.toml", "name = \"web\"\n")]);
        for other in ["", "[]", "name = \"web\"", r#"{"web.toml": {"name": "web"}}"#] {
            assert!(rule_files_of(other).is_err(), "{other}");
        }
    }
}
