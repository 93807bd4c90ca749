//! What counts as an e-mail address at the edge.

/// The longest address (RFC 5321 4.5.3.1.3, without the angle brackets).
const MAX_LEN: usize = 254;

/// Whether `text` has the shape of an address: something at a domain, nothing that could end or split a mail header.
/// Whether somebody reads it, only a mail can tell.
pub fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.rsplit_once('@') else { return false };
    let forbidden = |c: char| c.is_whitespace() || c.is_control() || "@<>()[]\\,;:\"".contains(c);
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_alphanumeric() || c == '-')
    };
    text.len() <= MAX_LEN
        && (1..=64).contains(&local.len())
        && !local.contains(forbidden)
        && !local.starts_with('.')
        && !local.ends_with('.')
        && !local.contains("..")
        && domain.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_shape() {
        for good in
            ["a@example.com", "first.last+tag@sub.example.org", "o'brien@localhost", "jörg@bücher.example"]
        {
            assert!(is_email(good), "{good} was refused");
        }
        for bad in [
            "",
            "a",
            "@example.com",
            "a@",
            "a b@example.com",
            "a@exa mple.com",
            "a@b@example.com",
            "a@example..com",
            "a@-x.com",
            ".a@example.com",
            "a..b@example.com",
            "a@example.com\r\nBcc: b@example.com",
            "<a@example.com>",
            "a@example.com,b@example.com",
        ] {
            assert!(!is_email(bad), "{bad:?} was taken");
        }
        assert!(!is_email(&format!("{}@example.com", "x".repeat(65))));
        assert!(!is_email(&format!("a@{}com", "example.".repeat(40))));
    }
}
