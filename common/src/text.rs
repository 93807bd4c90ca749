//! Short texts that people and other producers write.

use icu_properties::props::{BidiControl, DefaultIgnorableCodePoint, GeneralCategory};
use icu_properties::{CodePointMapData, CodePointSetData};

/// Returns whether a text is one line of 1 to `at_most` characters, with something to see in it and nothing that breaks
/// or reorders it: it can be shown on a page, in a mail and in a log as it is.
pub fn is_line(text: &str, at_most: usize) -> bool {
    text.chars().count() <= at_most && !text.contains(breaks_a_line) && text.contains(is_visible)
}

/// Returns whether a character ends a line, reorders what is around it or carries hidden text: a control character, a line
/// or paragraph separator, a bidirectional control, a byte order mark, an annotation mark, a tag.
pub fn breaks_a_line(c: char) -> bool {
    // Most text is ASCII, which needs no table.
    if c.is_ascii() {
        return c.is_ascii_control();
    }
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
        || CodePointSetData::new::<BidiControl>().contains(c)
}

/// Whether a reader sees something where this character stands alone.
fn is_visible(c: char) -> bool {
    use GeneralCategory as Category;
    if c.is_ascii() {
        return c.is_ascii_graphic();
    }
    let shows_nothing = matches!(
        CodePointMapData::<Category>::new().get(c),
        Category::Control
            | Category::Format
            | Category::Unassigned
            | Category::PrivateUse
            | Category::Surrogate
            | Category::NonspacingMark
            | Category::EnclosingMark
            | Category::SpacingMark
            | Category::SpaceSeparator
            | Category::LineSeparator
            | Category::ParagraphSeparator
    );
    // U+2800 is a Braille pattern without a dot.
    !shows_nothing && c != '\u{2800}' && !CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_something_to_see_and_ends_in_time() {
        for good in
            ["a", " a", "Zoë", &"é".repeat(8), "می\u{200c}خواهم", "👩\u{200d}👧", "שלום", "e\u{301}", "商品"]
        {
            assert!(is_line(good, 8), "{good:?}");
        }
        for bad in ["", "  ", "\u{a0}", "a\nb", "a\tb", "\u{7f}", &"é".repeat(9)] {
            assert!(!is_line(bad, 8), "{bad:?}");
        }
    }

    #[test]
    fn a_line_with_nothing_to_see_in_it_is_none() {
        for nothing in [
            "\u{200b}",         // zero width space
            "\u{200d}\u{200c}", // joiners
            "\u{2060}",         // word joiner
            "\u{301}\u{302}",   // combining marks alone
            "\u{20dd}",         // an enclosing mark alone
            "\u{ad}",           // soft hyphen
            "\u{3164}",         // Hangul filler, a letter
            "\u{ffa0}",
            "\u{115f}",
            "\u{2800}", // Braille without a dot
            "\u{fe0f}", // variation selector
            "\u{3000} \u{2003}",
            "\u{180e}",
            "\u{e000}", // private use
        ] {
            assert!(!is_line(nothing, 8), "{nothing:?}");
        }
    }

    #[test]
    fn a_line_is_neither_broken_nor_reordered() {
        let breaks = ['\u{2028}', '\u{2029}', '\u{feff}', '\u{61c}', '\u{200e}', '\u{200f}', '\u{e0001}'];
        let controls = ('\0'..='\u{1f}').chain('\u{7f}'..='\u{9f}');
        let bidi = ('\u{202a}'..='\u{202e}').chain('\u{2066}'..='\u{2069}');
        for c in breaks.into_iter().chain(controls).chain(bidi).chain('\u{e0020}'..='\u{e007f}') {
            assert!(!is_line(&format!("a{c}b"), 8), "{c:?}");
        }
    }
}
