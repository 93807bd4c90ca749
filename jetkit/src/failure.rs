//! What a failure says, for logs and for people.

use std::any::Any;

/// An error and what caused it, outermost first; without the causes that an error has told already.
pub(crate) fn causes(error: &anyhow::Error) -> Vec<String> {
    let mut told: Vec<String> = Vec::new();
    for cause in error.chain().map(ToString::to_string) {
        if told.last().is_none_or(|last| !last.ends_with(&cause)) {
            told.push(cause);
        }
    }
    told
}

/// The longest reason that is shown, in characters.
const MAX_REASON: usize = 200;

/// Keeps what another program said on one line, and short.
pub(crate) fn one_line(reason: &str) -> String {
    let mut line: String =
        reason.chars().take(MAX_REASON).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if reason.chars().nth(MAX_REASON).is_some() {
        line.push('…');
    }
    line
}

/// What a panic says, if it is a text.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn a_cause_is_reported_once() {
        let inner = anyhow!("no such file");
        assert_eq!(causes(&inner.context("reading a: no such file")), ["reading a: no such file"]);
        assert_eq!(causes(&anyhow!("no such file").context("reading a")), ["reading a", "no such file"]);
    }

    #[test]
    fn a_reason_is_one_short_line() {
        assert_eq!(one_line("535 no\r\n535 way"), "535 no  535 way");
        assert_eq!(one_line(&"x".repeat(500)).chars().count(), MAX_REASON + 1);
    }

    #[test]
    fn a_panic_says_what_it_was_given() {
        let said = |panic: Box<dyn Any + Send>| panic_message(&*panic).to_owned();
        assert_eq!(said(Box::new("text")), "text");
        assert_eq!(said(Box::new("string".to_owned())), "string");
        assert_eq!(said(Box::new(7)), "no message");
    }
}
