//! The one judge of e-mail addresses, at the edge and before a mail is written: what it takes can be delivered to.

use std::net::IpAddr;

use email_address::EmailAddress;
use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};

/// The longest address (RFC 5321 4.5.3.1.3, without the angle brackets).
const MAX_LEN: usize = 254;

/// Why a text is no address that mails can go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressFlaw {
    /// Half of it is missing.
    #[error("an e-mail address has the form name@domain")]
    Shape,
    /// It is too long.
    #[error("an e-mail address has at most {MAX_LEN} characters")]
    Length,
    /// The part before the `@` is none.
    #[error(
        "the part before the @ has 1 to 64 letters, digits and !#$%&'*+-/=?^_`{{|}}~, with single dots between them"
    )]
    LocalPart,
    /// The part before the `@` needs SMTPUTF8, which not every mail server on the way has.
    #[error("the part before the @ has letters that not every mail server takes: write it in ASCII")]
    NotAscii,
    /// The part after the `@` is none.
    #[error("the part after the @ is no domain name")]
    Domain,
}

/// Returns an address in the form in which a mail server is given it: the domain in ASCII (IDNA), the rest as it is.
///
/// Judges by the parser of the library that writes the mails (lettre's), and refuses what that one takes and mail servers
/// do not: a part before the `@` that is quoted or not ASCII, and an IP address as the domain.
pub fn wire_form(address: &str) -> Result<String, AddressFlaw> {
    let (local, domain) = address.rsplit_once('@').ok_or(AddressFlaw::Shape)?;
    if local.is_empty() || domain.is_empty() {
        return Err(AddressFlaw::Shape);
    }
    if address.len() > 4 * MAX_LEN {
        return Err(AddressFlaw::Length);
    }
    if local.chars().any(|c| !c.is_ascii() && c.is_alphanumeric()) {
        return Err(AddressFlaw::NotAscii);
    }
    if !local.is_ascii() || local.contains('"') || !EmailAddress::is_valid_local_part(local) {
        return Err(AddressFlaw::LocalPart);
    }
    let (letters, hyphens) = (AsciiDenyList::STD3, Hyphens::CheckFirstLast);
    let domain = Uts46::new()
        .to_ascii(domain.as_bytes(), letters, hyphens, DnsLength::Verify)
        .map_err(|_| AddressFlaw::Domain)?;
    // No top-level domain is a number, and "1.2.3.4" is one host that the sender happened to see.
    let is_number = domain.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    if is_number || domain.parse::<IpAddr>().is_ok() || !EmailAddress::is_valid_domain(&domain) {
        return Err(AddressFlaw::Domain);
    }
    let wire = format!("{local}@{domain}");
    if wire.len() > MAX_LEN { Err(AddressFlaw::Length) } else { Ok(wire) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_goes_onto_the_wire_in_ascii() {
        for (written, wire) in [
            ("a@example.com", "a@example.com"),
            ("first.last+tag@sub.example.org", "first.last+tag@sub.example.org"),
            ("o'brien@localhost", "o'brien@localhost"),
            ("joerg@bücher.example", "joerg@xn--bcher-kva.example"),
            ("A.B@BÜCHER.example", "A.B@xn--bcher-kva.example"),
            ("a@例え.テスト", "a@xn--r8jz45g.xn--zckzah"),
            ("a@faß.example", "a@xn--fa-hia.example"),
            ("a@xn--bcher-kva.example", "a@xn--bcher-kva.example"),
        ] {
            assert_eq!(wire_form(written).as_deref(), Ok(wire), "{written}");
            assert_eq!(wire_form(wire).as_deref(), Ok(wire), "{wire}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_what_is_wrong() {
        use AddressFlaw::{Domain, Length, LocalPart, NotAscii, Shape};
        let long_local = format!("{}@example.com", "x".repeat(65));
        let long = format!("{}@{}com", "x".repeat(64), "example-label.".repeat(15));
        let label = format!("a@{}.com", "x".repeat(64));
        let huge = format!("a@{}com", "x.".repeat(200_000));
        for (text, flaw) in [
            ("", Shape),
            ("a", Shape),
            ("@example.com", Shape),
            ("a@", Shape),
            ("jörg@example.com", NotAscii),
            ("用户@example.com", NotAscii),
            ("a b@example.com", LocalPart),
            ("a@b@example.com", LocalPart),
            (".a@example.com", LocalPart),
            ("a..b@example.com", LocalPart),
            ("\"a b\"@example.com", LocalPart),
            ("a\u{200b}@example.com", LocalPart),
            ("<a@example.com>", LocalPart),
            (&long_local, LocalPart),
            ("a@exa mple.com", Domain),
            ("a@example..com", Domain),
            ("a@example.com.", Domain),
            ("a@-x.com", Domain),
            ("a@x-.com", Domain),
            ("a@under_score.com", Domain),
            ("a@[1.2.3.4]", Domain),
            ("a@1.2.3.4", Domain),
            ("a@xn--a.example", Domain),
            ("a@\u{202e}example.com", Domain),
            ("a@example.com\r\nBcc: b@example.com", LocalPart),
            ("a@example.com,b@example.com", LocalPart),
            (&label, Domain),
            (&long, Length),
            (&huge, Length),
        ] {
            assert_eq!(wire_form(text), Err(flaw), "{text:.80?}");
        }
    }
}
