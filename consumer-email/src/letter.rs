//! Composes a mail: its words are in `templates/letter.html` and `templates/letter.txt`.
//!
//! Everything in a mail that somebody else wrote (names, addresses, carriers) is escaped in HTML, and kept on one line
//! and short everywhere.

use anyhow::Context;
use askama::Template;
use common::email::wire_form;
use common::mail::MailKind;
use common::money::Money;
use common::order::{CancelReason, OrderCancelled, OrderItem, OrderPlaced, OrderShipped};
use common::payment::PaymentProcessed;
use common::text::breaks_a_line;
use jetkit::EntityId;
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};
use lettre::{Address, Message};

/// How many lines of an order a mail lists. The rest is counted.
const MAX_LINES: usize = 100;

/// What a mail tells about an order.
#[derive(Debug, Clone, Copy)]
pub enum News<'a> {
    /// It was received.
    Placed,
    /// It is paid and reserved.
    Confirmed,
    /// It is on its way.
    Shipped(&'a OrderShipped),
    /// It is off.
    Cancelled(&'a OrderCancelled),
    /// It could not be charged.
    PaymentFailed(&'a PaymentProcessed),
}

impl News<'_> {
    /// The kind of mail that tells it.
    pub fn kind(&self) -> MailKind {
        match self {
            Self::Placed => MailKind::OrderPlaced,
            Self::Confirmed => MailKind::OrderConfirmed,
            Self::Shipped(_) => MailKind::OrderShipped,
            Self::Cancelled(_) => MailKind::OrderCancelled,
            Self::PaymentFailed(_) => MailKind::PaymentFailed,
        }
    }

    fn headline(&self) -> &'static str {
        match self {
            Self::Placed => "Thank you for your order",
            Self::Confirmed => "Your order is confirmed",
            Self::Shipped(_) => "Your order is on its way",
            Self::Cancelled(_) => "Your order was cancelled",
            Self::PaymentFailed(_) => "Your payment did not go through",
        }
    }
}

/// Who writes: the address that customers see and answer to.
#[derive(Debug, Clone)]
pub struct Sender {
    mailbox: Mailbox,
}

impl Sender {
    /// `Name <address>` or a bare address.
    pub fn new(mailbox: &str) -> anyhow::Result<Self> {
        let no_sender = || format!("{mailbox:?} is not a sender such as `Shop <shop@example.com>`");
        let mut mailbox: Mailbox = mailbox.parse().with_context(no_sender)?;
        mailbox.email = address(mailbox.email.as_ref()).with_context(no_sender)?;
        Ok(Self { mailbox })
    }

    /// The `Message-ID` of a mail: the same each time it is sent.
    pub fn message_id(&self, mail_id: &EntityId) -> String {
        format!("<{mail_id}@{}>", self.mailbox.email.domain())
    }

    fn name(&self) -> &str {
        self.mailbox.name.as_deref().unwrap_or_else(|| self.mailbox.email.domain())
    }
}

/// Reads an address, and brings it to the form that every mail server takes. What the edge has accepted can be read.
pub fn address(text: &str) -> anyhow::Result<Address> {
    Ok(wire_form(text)?.parse()?)
}

/// A mail, ready to be sent.
#[derive(Debug, Clone)]
pub struct Letter {
    mail_id: EntityId,
    message: Message,
}

impl Letter {
    /// Writes the mail that tells the customer of `order`, at the address `to`, the `news`. Fails if the order's amounts
    /// make no sense; trying again does not help.
    pub fn compose(
        sender: &Sender,
        to: Address,
        mail_id: &EntityId,
        message_id: &str,
        order: &OrderPlaced,
        news: News<'_>,
    ) -> anyhow::Result<Self> {
        let headline = news.headline();
        let order_id = &order.order_id;
        let lines = order.items.iter().take(MAX_LINES).map(Line::of).collect::<anyhow::Result<Vec<_>>>()?;
        let lines_left_out = order.items.len() - lines.len();
        let (shop, total) = (sender.name(), order.total);
        let text = Text { headline, order_id, lines: &lines, lines_left_out, shop, total, news };
        let preview = format!("Order {order_id}, {total}");
        let html = Html { headline, preview, order_id, lines: &lines, lines_left_out, shop, total, news };
        let message = Message::builder()
            .from(sender.mailbox.clone())
            .to(Mailbox::new(None, to))
            .subject(format!("{headline} ({order_id})"))
            .message_id(Some(message_id.to_owned()))
            .raw_header(HeaderValue::new(
                // RFC 3834: keeps vacation notices from answering.
                HeaderName::new_from_ascii_str("Auto-Submitted"),
                "auto-generated".to_owned(),
            ))
            .multipart(MultiPart::alternative_plain_html(text.render()?, html.render()?))
            .context("building the mail")?;
        Ok(Self { mail_id: mail_id.clone(), message })
    }

    /// The mail's id.
    pub fn mail_id(&self) -> &EntityId {
        &self.mail_id
    }

    /// The mail as it is sent.
    pub fn message(&self) -> &Message {
        &self.message
    }
}

/// One line of the order, as a mail shows it.
struct Line<'a> {
    name: &'a str,
    quantity: u32,
    unit_price: Money,
    amount: Money,
}

impl<'a> Line<'a> {
    fn of(item: &'a OrderItem) -> anyhow::Result<Self> {
        let amount = item.unit_price.times(item.quantity).context("adding up a line of the order")?;
        Ok(Self { name: &item.product_name, quantity: item.quantity, unit_price: item.unit_price, amount })
    }
}

#[derive(Template)]
#[template(path = "letter.txt")]
struct Text<'a> {
    headline: &'static str,
    order_id: &'a EntityId,
    lines: &'a [Line<'a>],
    lines_left_out: usize,
    shop: &'a str,
    total: Money,
    news: News<'a>,
}

#[derive(Template)]
#[template(path = "letter.html")]
struct Html<'a> {
    headline: &'static str,
    preview: String,
    order_id: &'a EntityId,
    lines: &'a [Line<'a>],
    lines_left_out: usize,
    shop: &'a str,
    total: Money,
    news: News<'a>,
}

/// The longest foreign text in a mail, in characters.
const MAX_CHARS: usize = 120;

/// Keeps a text that somebody else wrote on one line, and short: what would break or reorder it becomes a space.
pub(crate) fn one_line(text: &str) -> String {
    let mut line: String =
        text.chars().take(MAX_CHARS).map(|c| if breaks_a_line(c) { ' ' } else { c }).collect();
    if text.chars().nth(MAX_CHARS).is_some() {
        line.push('…');
    }
    line
}

fn why_cancelled(order: &OrderCancelled) -> &'static str {
    match order.reason {
        CancelReason::Requested => "Your order was cancelled as asked.",
        CancelReason::OutOfStock => "We are sorry: not everything that you ordered is in stock.",
        CancelReason::PaymentFailed => "Your payment did not go through, so we have cancelled your order.",
        CancelReason::TimedOut => "We are sorry: your order could not be completed in time.",
    }
}

/// The end of "your payment did not go through".
fn because_failed(payment: &PaymentProcessed) -> &'static str {
    match payment.failure.as_deref() {
        Some("insufficient_funds") => ": the account does not hold enough",
        Some("account_not_open") => ": there is no such account",
        Some("currency_mismatch") => ": the account is in another currency",
        Some("card_declined") => ": the card was declined",
        Some("card_insufficient_funds") => ": the card does not have the means",
        Some("card_expired") => ": the card has expired",
        Some("invalid_card_token") => ": there is no such card",
        _ => "",
    }
}
