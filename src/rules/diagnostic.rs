//! What is wrong with rule files, for people and for machines: where, what, and how to cure it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Element, Level, Renderer, Snippet};
use serde::{Serialize, Serializer};

/// Kinds of errors, numbered for people to look up. A number is never used again for something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// R001: not TOML.
    Syntax,
    /// R002: a key that no rule has.
    UnknownKey,
    /// R003: a value of the wrong type.
    WrongType,
    /// R004: the right type, but no value of this key.
    WrongValue,
    /// R005: beyond a bound.
    OutOfRange,
    /// R006: two values that can't both be meant.
    Contradiction,
    /// R007: a key that every rule must have.
    Missing,
    /// R008: two rules of one name.
    DuplicateName,
    /// R009: two rules that protect the same service with equal right.
    Overlap,
    /// R010: more, or larger, than any sensible set of rules.
    TooLarge,
    /// R011: a `[[protect]]` that no service of the account and Region fits. Found only where AWS is asked.
    MatchesNothing,
}

impl Code {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 11] = [
        Self::Syntax,
        Self::UnknownKey,
        Self::WrongType,
        Self::WrongValue,
        Self::OutOfRange,
        Self::Contradiction,
        Self::Missing,
        Self::DuplicateName,
        Self::Overlap,
        Self::TooLarge,
        Self::MatchesNothing,
    ];

    /// As in `R001`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Syntax => "R001",
            Self::UnknownKey => "R002",
            Self::WrongType => "R003",
            Self::WrongValue => "R004",
            Self::OutOfRange => "R005",
            Self::Contradiction => "R006",
            Self::Missing => "R007",
            Self::DuplicateName => "R008",
            Self::Overlap => "R009",
            Self::TooLarge => "R010",
            Self::MatchesNothing => "R011",
        }
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// One file's text, with the places where its lines begin.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Source {
    path: Arc<str>,
    text: Arc<str>,
    /// Byte offsets. The first is 0.
    lines: Vec<usize>,
}

impl Source {
    pub(super) fn new(path: &str, text: &str) -> Arc<Self> {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        let lines = std::iter::once(0).chain(breaks).collect();
        Arc::new(Self { path: Arc::from(path), text: Arc::from(text), lines })
    }

    /// The place of a span of bytes.
    pub(super) fn place(self: &Arc<Self>, span: Range<usize>) -> Place {
        let start = self.text.floor_char_boundary(span.start);
        // The last line that begins at or before the start: there is one, as the first begins at 0.
        let index = self.lines.partition_point(|line| *line <= start).saturating_sub(1);
        let begins = self.lines.get(index).copied().unwrap_or_default();
        let column = self.text.get(begins..start).unwrap_or_default().chars().count() + 1;
        Place {
            file: Arc::clone(&self.path),
            line: index + 1,
            column,
            begins,
            span: start..span.end,
            source: Arc::clone(self),
        }
    }
}

/// A place in a rule file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// As it was named.
    pub file: Arc<str>,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// Where the line begins, in bytes.
    #[serde(skip)]
    begins: usize,
    #[serde(skip)]
    span: Range<usize>,
    #[serde(skip)]
    source: Arc<Source>,
}

impl Place {
    /// The line, with the marked part of it.
    fn excerpt<'s>(&'s self, kind: AnnotationKind, label: Option<&'s str>) -> Element<'s> {
        let text = self.source.text.get(self.begins..).unwrap_or_default();
        let line = text.lines().next().unwrap_or_default();
        let start = self.span.start.saturating_sub(self.begins).min(line.len());
        let end = line.floor_char_boundary(self.span.end.saturating_sub(self.begins)).max(start);
        let snippet = Snippet::source(line).path(&*self.file).line_start(self.line);
        snippet.annotation(kind.span(start..end).label(label)).into()
    }
}

/// One error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Its kind.
    pub code: Code,
    /// Where it is.
    #[serde(flatten)]
    pub place: Place,
    /// What is wrong.
    pub message: String,
    /// How to cure it.
    pub help: String,
    /// The other place that it is about, and what is there.
    pub related: Option<Related>,
}

/// The other place that an error is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Related {
    /// Where.
    #[serde(flatten)]
    pub place: Place,
    /// What is there.
    pub message: String,
}

impl Diagnostic {
    pub(super) fn new(code: Code, place: Place, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { code, place, message: message.into(), help: help.into(), related: None }
    }

    #[must_use]
    pub(super) fn related(mut self, place: Place, message: impl Into<String>) -> Self {
        self.related = Some(Related { place, message: message.into() });
        self
    }

    fn render(&self, renderer: &Renderer) -> String {
        let Self { code, place, message, help, related } = self;
        let mut group = Level::ERROR
            .primary_title(message.as_str())
            .id(code.as_str())
            .element(place.excerpt(AnnotationKind::Primary, None));
        if let Some(Related { place, message }) = related {
            group = group.element(place.excerpt(AnnotationKind::Context, Some(message)));
        }
        group = group.element(Level::HELP.message(help.as_str()));
        renderer.render(&[group])
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, place: Place { file, line, column, .. }, message, help, related } = self;
        write!(f, "{file}:{line}:{column}: {}: {message}", code.as_str())?;
        if let Some(Related { place: Place { file, line, column, .. }, message }) = related {
            write!(f, " ({file}:{line}:{column}: {message})")?;
        }
        write!(f, "; {help}")
    }
}

/// All errors of all files, in their order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl Diagnostics {
    /// As text for a terminal of this many columns, every error with its line and a caret.
    pub fn render(&self, colored: bool, columns: usize) -> String {
        let renderer = if colored { Renderer::styled() } else { Renderer::plain() }.term_width(columns);
        let errors: Vec<String> = self.0.iter().map(|error| error.render(&renderer)).collect();
        errors.join("\n\n")
    }
}

impl fmt::Display for Diagnostics {
    /// One line an error, for logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}
