//! Writing XML, as much of it as answers of the query protocol need.

use std::fmt::{Display, Write};

/// A document under construction.
#[derive(Debug, Default)]
pub(super) struct Xml(String);

impl Xml {
    /// `<name>…</name>` around what `inside` writes.
    pub(super) fn element(&mut self, name: &str, inside: impl FnOnce(&mut Self)) {
        self.attributed(name, "", inside);
    }

    /// The same in a namespace.
    pub(super) fn element_in(&mut self, namespace: &str, name: &str, inside: impl FnOnce(&mut Self)) {
        self.attributed(name, &format!(" xmlns=\"{namespace}\""), inside);
    }

    /// `<name>text</name>`.
    pub(super) fn text(&mut self, name: &str, text: impl Display) {
        self.element(name, |xml| xml.escape(&text.to_string()));
    }

    /// The same, or nothing.
    pub(super) fn text_if_any(&mut self, name: &str, text: Option<impl Display>) {
        if let Some(text) = text {
            self.text(name, text);
        }
    }

    /// `<name><member>…</member>…</name>`.
    pub(super) fn list<T>(&mut self, name: &str, items: &[T], mut item: impl FnMut(&mut Self, &T)) {
        self.element(name, |xml| {
            for it in items {
                xml.element("member", |xml| item(xml, it));
            }
        });
    }

    /// Text, where it can't be taken for markup.
    pub(super) fn escape(&mut self, text: &str) {
        for c in text.chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                // A parser would turn it into a line feed.
                '\r' => self.0.push_str("&#xD;"),
                '\n' | '\t' => self.0.push(c),
                // XML 1.0 has no way to say these.
                '\0'..' ' | '\u{fffe}' | '\u{ffff}' => self.0.push(char::REPLACEMENT_CHARACTER),
                _ => self.0.push(c),
            }
        }
    }

    /// What was written apart.
    pub(super) fn append(&mut self, other: &Self) {
        self.0.push_str(&other.0);
    }

    /// The document.
    pub(super) fn into_string(self) -> String {
        self.0
    }

    fn attributed(&mut self, name: &str, attributes: &str, inside: impl FnOnce(&mut Self)) {
        // Writing to a string can't fail.
        let _ = write!(self.0, "<{name}{attributes}>");
        inside(self);
        let _ = write!(self.0, "</{name}>");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_in_text_stays_text() {
        let mut xml = Xml::default();
        xml.list("Values", &["a<b & \"c\">", "line\r\n\u{1}"], |xml, value| xml.escape(value));
        let expected =
            "<Values><member>a&lt;b &amp; &quot;c&quot;&gt;</member><member>line&#xD;\n\u{fffd}</member></Values>";
        assert_eq!(xml.into_string(), expected);
    }
}
