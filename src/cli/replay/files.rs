//! The files of a recording, read in order of time without keeping them.
//!
//! Lines need not be in order: an archive gives none. A first look at each file finds out by how much it is out of order, and
//! from then on so much of it is kept back while it is read.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::model::Timestamp;
use crate::replay::{Event, LONGEST_LINE, Recorded, read};

/// Files that are read side by side, because their times overlap.
const MOST_OPEN: usize = 500;

/// Files whose times lie further apart are of different recordings.
const APART: Duration = Duration::from_hours(1);

/// Lines that can't be read and are shown.
const SHOWN: usize = 5;

/// Bytes that are read at a time.
const BUFFER: usize = 1 << 17;

/// One file, looked through.
#[derive(Debug)]
pub(super) struct Looked {
    pub(super) path: PathBuf,
    /// Its events.
    pub(super) events: u64,
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
    /// How much earlier than one before it an event of it can be.
    disorder: Duration,
}

/// What was found in all files.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) files: Vec<Looked>,
    pub(super) lines: u64,
    pub(super) ignored: u64,
    pub(super) unreadable: u64,
    /// The first of them, with their places.
    pub(super) shown: Vec<String>,
}

/// The files of a directory and of those in it, or one file.
pub(super) fn list(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let kind = fs::metadata(path).with_context(|| format!("can't read {}", path.display()))?;
    if !kind.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let (mut files, mut open) = (Vec::new(), vec![path.to_owned()]);
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("can't read {}", folder.display()))? {
            let path = entry.with_context(|| format!("can't read {}", folder.display()))?.path();
            let is_hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
            match fs::symlink_metadata(&path) {
                _ if is_hidden => {}
                Ok(kind) if kind.is_dir() => open.push(path),
                _ => files.push(path),
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Looks through all files.
pub(super) fn look(paths: Vec<PathBuf>, now: Timestamp, mut progress: impl FnMut(u64)) -> anyhow::Result<Found> {
    let mut found = Found::default();
    for path in paths {
        if path.extension().is_some_and(|extension| extension == "gz") {
            bail!("{} is compressed. Unpack it first: gunzip {0}", path.display());
        }
        if path.metadata().is_ok_and(|found| !found.is_file()) {
            bail!(
                "{} is no file: events are read three times, which a pipe can't be. Write them to a file first",
                path.display()
            );
        }
        let mut lines = Lines::open(&path)?;
        let (mut first, mut last, mut disorder, mut events) = (None::<Timestamp>, Timestamp::EPOCH, Duration::ZERO, 0);
        while let Some(line) = lines.next(now)? {
            found.lines = found.lines.saturating_add(1);
            match line {
                Ok(Recorded::Event(event)) => {
                    events += 1;
                    progress(found.lines);
                    first = Some(first.map_or(event.at, |first| first.min(event.at)));
                    disorder = disorder.max(if events > 1 { last.since(event.at) } else { Duration::ZERO });
                    last = if events > 1 { last.max(event.at) } else { event.at };
                }
                Ok(Recorded::Ignored) => found.ignored = found.ignored.saturating_add(1),
                Err(why) => {
                    found.unreadable = found.unreadable.saturating_add(1);
                    if found.shown.len() < SHOWN {
                        found.shown.push(format!("{}:{}: {why}", path.display(), lines.number));
                    }
                }
            }
        }
        if let Some(first) = first {
            found.files.push(Looked { path, events, first, last, disorder });
        }
    }
    found.files.sort_by(|one, other| (one.first, &one.path).cmp(&(other.first, &other.path)));
    Ok(found)
}

/// Puts files together whose times belong together: each of these is a recording of its own.
pub(super) fn recordings(files: Vec<Looked>) -> Vec<Vec<Looked>> {
    let mut recordings: Vec<Vec<Looked>> = Vec::new();
    let mut last = Timestamp::EPOCH;
    for file in files {
        let follows = file.first <= last.plus(APART);
        last = last.max(file.last);
        match recordings.last_mut().filter(|_| follows) {
            Some(recording) => recording.push(file),
            None => recordings.push(vec![file]),
        }
    }
    recordings
}

/// All events of a recording, in order. `each` gets the number of the file with each.
pub(super) fn in_order(files: &[Looked], now: Timestamp, mut each: impl FnMut(usize, &Event)) -> anyhow::Result<()> {
    // Sorted by their first events.
    let mut waiting = files.iter().enumerate().peekable();
    let mut open: Vec<(usize, Ordered)> = Vec::new();
    loop {
        let before = |one: &&(usize, Ordered), other: &&(usize, Ordered)| one.1.key().cmp(&other.1.key());
        let first = open.iter().filter(|(_, file)| file.next.is_some()).min_by(before);
        let next_at = first.and_then(|(_, file)| file.next.as_ref()).map(|event| event.at);
        // It is the next of all once every file is open that may have an earlier one.
        if let Some((number, file)) = waiting.next_if(|(_, file)| next_at.is_none_or(|at| file.first <= at)) {
            if open.len() >= MOST_OPEN {
                bail!("more than {MOST_OPEN} files tell of the same time. Put them together: cat DIR/* > FILE");
            }
            open.push((number, Ordered::open(file, now)?));
            continue;
        }
        let Some(number) = first.map(|(number, _)| *number) else { return Ok(()) };
        if let Some((_, file)) = open.iter_mut().find(|(other, _)| *other == number)
            && let Some(event) = file.take()?
        {
            each(number, &event);
        }
        open.retain(|(_, file)| file.next.is_some());
    }
}

/// The lines of a file.
struct Lines {
    path: PathBuf,
    reader: BufReader<File>,
    bytes: Vec<u8>,
    number: u64,
}

impl Lines {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| format!("can't read {}", path.display()))?;
        Ok(Self { path: path.to_owned(), reader: BufReader::with_capacity(BUFFER, file), bytes: Vec::new(), number: 0 })
    }

    /// The next line that is not empty: what it holds, or why it can't be read.
    fn next(&mut self, now: Timestamp) -> anyhow::Result<Option<Result<Recorded, String>>> {
        loop {
            self.bytes.clear();
            let Some(length) = take_line(&mut self.reader, &mut self.bytes)
                .with_context(|| format!("can't read {}", self.path.display()))?
            else {
                return Ok(None);
            };
            self.number = self.number.saturating_add(1);
            if length > LONGEST_LINE {
                let why = format!("{length} bytes long, more than the {LONGEST_LINE} that SQS can carry");
                return Ok(Some(Err(why)));
            }
            let Ok(text) = std::str::from_utf8(&self.bytes) else {
                return Ok(Some(Err("not UTF-8".to_owned())));
            };
            let text = text.trim_ascii().trim_start_matches('\u{feff}');
            if !text.is_empty() {
                return Ok(Some(read(text, now).map_err(|error| error.to_string())));
            }
        }
    }
}

/// Reads one line, without its end, and no more of it than an event can have. Returns how long it is.
fn take_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Option<usize>> {
    let mut length = 0_usize;
    loop {
        let read = match reader.fill_buf() {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if read.is_empty() {
            return Ok((length > 0).then_some(length));
        }
        let end = read.iter().position(|byte| *byte == b'\n');
        let part = read.get(..end.unwrap_or(read.len())).unwrap_or_default();
        let room = (LONGEST_LINE + 1).saturating_sub(line.len()).min(part.len());
        line.extend_from_slice(part.get(..room).unwrap_or_default());
        length = length.saturating_add(part.len());
        let used = part.len() + usize::from(end.is_some());
        reader.consume(used);
        if end.is_some() {
            return Ok(Some(length));
        }
    }
}

/// The events of one file, in order.
struct Ordered {
    lines: Lines,
    now: Timestamp,
    disorder: Duration,
    read_to: Option<Timestamp>,
    kept: BinaryHeap<Reverse<Placed>>,
    next: Option<Box<Event>>,
}

impl Ordered {
    fn open(file: &Looked, now: Timestamp) -> anyhow::Result<Self> {
        let lines = Lines::open(&file.path)?;
        let disorder = file.disorder;
        let mut ordered = Self { lines, now, disorder, read_to: None, kept: BinaryHeap::new(), next: None };
        ordered.take()?;
        Ok(ordered)
    }

    /// The next event, and the one behind it becomes the next.
    fn take(&mut self) -> anyhow::Result<Option<Box<Event>>> {
        let mut ended = false;
        while !ended && !self.is_settled() {
            match self.lines.next(self.now)? {
                Some(Ok(Recorded::Event(event))) => {
                    self.read_to = self.read_to.max(Some(event.at));
                    self.kept.push(Reverse(Placed(event)));
                }
                Some(_) => {}
                None => ended = true,
            }
        }
        let behind = self.kept.pop().map(|Reverse(Placed(event))| event);
        Ok(std::mem::replace(&mut self.next, behind))
    }

    fn key(&self) -> Option<(Timestamp, u8, Cow<'_, str>, u64)> {
        self.next.as_ref().map(|event| event.key())
    }

    /// No line that is still to be read comes before the first of those that are kept.
    fn is_settled(&self) -> bool {
        let first = self.kept.peek().map(|Reverse(Placed(event))| event.at);
        first.zip(self.read_to).is_some_and(|(first, read_to)| first < read_to.minus(self.disorder))
    }
}

/// An event by its place in the order.
struct Placed(Box<Event>);

impl PartialEq for Placed {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Placed {}

impl PartialOrd for Placed {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Placed {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.key().cmp(&other.0.key())
    }
}
