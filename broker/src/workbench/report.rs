//! How results look: colours on a terminal, and what differs between two texts.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};

use similar::{ChangeTag, TextDiff};

/// Lines of context around what differs.
const CONTEXT: usize = 3;

/// Colours, or none.
#[derive(Debug, Clone, Copy)]
pub struct Paint {
    on: bool,
}

impl Paint {
    /// Colours when standard output is a terminal and nobody asked for none (no-color.org).
    pub fn for_stdout() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { on: !unwanted && std::io::stdout().is_terminal() }
    }

    /// Without colours.
    #[cfg(test)]
    pub fn plain() -> Self {
        Self { on: false }
    }

    /// What is right.
    pub fn good(self, text: &str) -> String {
        self.with("32", text)
    }

    /// What is wrong.
    pub fn bad(self, text: &str) -> String {
        self.with("31", text)
    }

    /// What is beside the point.
    pub fn faint(self, text: &str) -> String {
        self.with("2", text)
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// The lines of `expected` that are missing with `-`, those of `actual` that are new with `+`, and a few around.
    pub fn diff(self, expected: &str, actual: &str) -> String {
        let diff = TextDiff::from_lines(expected, actual);
        let mut out = String::new();
        for (at, group) in diff.grouped_ops(CONTEXT).iter().enumerate() {
            if at > 0 {
                out += "  …\n";
            }
            for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
                let line = change.value().trim_end_matches('\n');
                let _ = match change.tag() {
                    ChangeTag::Delete => writeln!(out, "{}", self.bad(&format!("- {line}"))),
                    ChangeTag::Insert => writeln!(out, "{}", self.good(&format!("+ {line}"))),
                    ChangeTag::Equal => writeln!(out, "  {line}"),
                };
            }
        }
        out
    }
}

/// Prints a line. When nobody reads it, that is not our business: the exit code tells the same.
pub fn say(line: &str) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// `text` without what a terminal would obey: control characters are spelt out, but line ends.
pub fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() && c != '\n' {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    out
}

/// `text` with each line moved to the right.
pub fn indent(text: &str, by: usize) -> String {
    text.lines().map(|line| format!("{:by$}{line}\n", "")).collect()
}

/// `1 message`, `2 messages`.
pub fn count(number: impl Into<u64>, what: &str) -> String {
    match number.into() {
        1 => format!("1 {what}"),
        number => format!("{number} {what}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_spelt_out() {
        assert_eq!(clean("a\x1b[2Jb\r\nc"), "a\\u{1b}[2Jb\\r\nc");
    }

    #[test]
    fn a_diff_shows_what_is_missing_and_what_is_new_with_its_surroundings() {
        let lines = |changed: &str| format!("a\nb\nc\nd\ne\n{changed}\ng\n");
        let diff = Paint::plain().diff(&lines("f"), &lines("x"));
        assert_eq!(diff, "  c\n  d\n  e\n- f\n+ x\n  g\n");
        assert_eq!(Paint { on: true }.diff("a", "b"), "\x1b[31m- a\x1b[0m\n\x1b[32m+ b\x1b[0m\n");
    }
}
