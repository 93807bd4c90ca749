//! Short texts that people and other producers write.

/// Whether a text is one line of 1 to `at_most` characters, with something to see in it: it can be shown on a page, in a
/// mail and in a log as it is.
pub fn is_line(text: &str, at_most: usize) -> bool {
    !text.trim().is_empty() && text.chars().count() <= at_most && !text.contains(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_something_to_see_and_ends_in_time() {
        for good in ["a", " a", "Zoë", &"é".repeat(8)] {
            assert!(is_line(good, 8), "{good:?}");
        }
        for bad in ["", "  ", "\u{a0}", "a\nb", "a\tb", "\u{7f}", &"é".repeat(9)] {
            assert!(!is_line(bad, 8), "{bad:?}");
        }
    }
}
