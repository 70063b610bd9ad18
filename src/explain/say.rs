//! Sentences in which our own words and values from outside are told apart, so that the same
//! sentence can be shown whole, or without what must not be seen.
//!
//! What is shown to strangers is an allow-list by construction: words are `&'static str`, and
//! can only have been written in this repository; numbers are numbers; all else is a value.

use std::collections::HashMap;
use std::fmt::Write;

/// A sentence in the making: words, numbers and values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Say(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Words(&'static str),
    Number(i64),
    Value(&'static str, String),
}

impl Say {
    /// Begins with these words.
    pub fn words(text: &'static str) -> Self {
        Self(vec![Part::Words(text)])
    }

    /// Goes on with these words.
    #[must_use]
    pub fn and(mut self, text: &'static str) -> Self {
        self.0.push(Part::Words(text));
        self
    }

    /// Goes on with a number.
    #[must_use]
    pub fn number(mut self, number: i64) -> Self {
        self.0.push(Part::Number(number));
        self
    }

    /// Goes on with a value from outside: of the token, the configuration or a key set. `kind`
    /// stands for it where it is not shown.
    #[must_use]
    pub fn value(mut self, kind: &'static str, value: impl Into<String>) -> Self {
        self.0.push(Part::Value(kind, value.into()));
        self
    }

    /// Goes on with a list of values.
    #[must_use]
    pub fn values<'v>(
        mut self,
        kind: &'static str,
        values: impl IntoIterator<Item = &'v str>,
    ) -> Self {
        for (place, value) in values.into_iter().enumerate() {
            if place > 0 {
                self.0.push(Part::Words(", "));
            }
            self = self.value(kind, value);
        }
        self
    }

    /// Goes on with another sentence.
    #[must_use]
    pub fn then(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// The sentence. Control characters of values are replaced: it goes to terminals.
    pub fn shown(&self, names: &mut Names) -> String {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Words(words) => text.push_str(words),
                Part::Number(number) => {
                    let _ = write!(text, "{number}");
                }
                Part::Value(kind, value) => text.push_str(&names.of(kind, value)),
            }
        }
        text
    }
}

/// How values are shown: as they are, or under names that say only which of them are equal.
pub enum Names {
    /// As they are.
    Open,
    /// As `<kind 1>`, `<kind 2>`: equal values have equal names.
    Hidden(HashMap<(&'static str, String), usize>),
}

impl Names {
    /// How they are shown.
    pub fn new(redact: bool) -> Self {
        if redact {
            Self::Hidden(HashMap::new())
        } else {
            Self::Open
        }
    }

    /// Whether values are hidden.
    pub fn hide(&self) -> bool {
        matches!(self, Self::Hidden(_))
    }

    /// The value as it is shown.
    pub fn of(&mut self, kind: &'static str, value: &str) -> String {
        match self {
            Self::Open => printable(value),
            Self::Hidden(names) => {
                let next = 1 + names.keys().filter(|(known, _)| *known == kind).count();
                let number = *names.entry((kind, value.to_owned())).or_insert(next);
                format!("<{kind} {number}>")
            }
        }
    }
}

/// The text without control characters.
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|each| if each.is_control() { '\u{fffd}' } else { each })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_have_equal_names_and_none_is_shown() {
        let said = Say::words("the audience ")
            .value("audience", "a\u{1b}")
            .and(" is not ")
            .values("audience", ["b", "a\u{1b}"])
            .and(", ")
            .number(7)
            .and(" s");
        assert_eq!(
            said.shown(&mut Names::new(false)),
            "the audience a\u{fffd} is not b, a\u{fffd}, 7 s"
        );
        assert_eq!(
            said.shown(&mut Names::new(true)),
            "the audience <audience 1> is not <audience 2>, <audience 1>, 7 s"
        );
    }
}
