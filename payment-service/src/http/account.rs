//! `/accounts`: one route takes all commands, told apart by `type`.

use std::borrow::Cow;

use axum::extract::State;
use axum::http::StatusCode;
use common::account::AccountEvent;
use common::money::{Amount, Currency, Money, MoneyError};
use jetkit::http::{
    Body, History, HistoryEntry, HistoryRequest, IfMatch, MinSequence, OrProblem, Path, Problem,
    RequestCause, Versioned,
};
use jetkit::{EntityId, Seen};
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::Api;
use crate::account::{AccountCommand, AccountRejection, Ledger};
use crate::account_list::AccountSummary;

/// A command as a client writes it: `{"type":"Deposit","amount":500.0}`. [`AccountCommandBody`] describes it.
#[derive(Debug)]
pub(super) enum AccountRequest {
    Open(OpenAccount),
    Deposit(MoveMoney),
    Withdraw(MoveMoney),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OpenAccount {
    #[serde(rename = "type")]
    _type: String,
    owner: String,
    initial_balance: Amount,
    #[serde(default)]
    currency: Currency,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MoveMoney {
    #[serde(rename = "type")]
    _type: String,
    amount: Amount,
    /// The account's by default.
    #[serde(default)]
    currency: Option<Currency>,
}

/// What is to happen to the account
#[derive(Deserialize, ToSchema)]
#[serde(tag = "type", deny_unknown_fields)]
#[schema(example = json!({"type": "OpenAccount", "owner": "Alice", "initial_balance": 1000.0}))]
#[expect(dead_code, reason = "describes an AccountRequest, which reads itself")]
pub(super) enum AccountCommandBody {
    OpenAccount {
        /// Not only blanks
        #[schema(min_length = 1, max_length = 200)]
        owner: String,
        /// Zero or more
        initial_balance: Amount,
        /// US dollars by default. It never changes
        #[serde(default)]
        currency: Currency,
    },
    Deposit {
        /// More than zero
        amount: Amount,
        /// The account's by default
        currency: Option<Currency>,
    },
    Withdraw {
        /// More than zero, and at most the balance
        amount: Amount,
        /// The account's by default
        currency: Option<Currency>,
    },
}

/// Read in two passes, because serde's tagged enums would carry the amounts through floats.
impl<'de> Deserialize<'de> for AccountRequest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Tag<'a> {
            #[serde(borrow, rename = "type")]
            kind: Cow<'a, str>,
        }
        fn parse<T: DeserializeOwned, E: Error>(raw: &RawValue) -> Result<T, E> {
            serde_json::from_str(raw.get()).map_err(E::custom)
        }
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let Tag { kind } = serde_json::from_str(raw.get()).map_err(D::Error::custom)?;
        match &*kind {
            "OpenAccount" => parse(&raw).map(Self::Open),
            "Deposit" => parse(&raw).map(Self::Deposit),
            "Withdraw" => parse(&raw).map(Self::Withdraw),
            other => Err(D::Error::unknown_variant(other, &["OpenAccount", "Deposit", "Withdraw"])),
        }
    }
}

/// An account
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AccountBody {
    id: EntityId,
    owner: String,
    balance: Amount,
    currency: Currency,
    version: u64,
}

impl AccountBody {
    fn new(ledger: &Ledger, version: u64) -> Self {
        Self {
            id: ledger.account_id.clone(),
            owner: ledger.owner.clone(),
            balance: ledger.balance.amount(),
            currency: ledger.balance.currency(),
            version,
        }
    }
}

/// One event of an account's history
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "type")]
pub(super) enum AccountEntry {
    AccountOpened {
        owner: String,
        initial_balance: Amount,
        currency: Currency,
    },
    MoneyDeposited {
        amount: Amount,
        currency: Currency,
        #[serde(skip_serializing_if = "Option::is_none")]
        refund_of: Option<EntityId>,
    },
    MoneyWithdrawn {
        amount: Amount,
        currency: Currency,
        #[serde(skip_serializing_if = "Option::is_none")]
        payment_id: Option<EntityId>,
    },
}

impl From<AccountEvent> for AccountEntry {
    fn from(event: AccountEvent) -> Self {
        match event {
            AccountEvent::Opened(opened) => Self::AccountOpened {
                owner: opened.owner,
                initial_balance: opened.initial_balance.amount(),
                currency: opened.initial_balance.currency(),
            },
            AccountEvent::Deposited(deposited) => Self::MoneyDeposited {
                amount: deposited.amount.amount(),
                currency: deposited.amount.currency(),
                refund_of: deposited.refund_of,
            },
            AccountEvent::Withdrawn(withdrawn) => Self::MoneyWithdrawn {
                amount: withdrawn.amount.amount(),
                currency: withdrawn.amount.currency(),
                payment_id: withdrawn.payment_id,
            },
        }
    }
}

/// An account
#[utoipa::path(
    get,
    path = "/accounts/{id}",
    params(("id" = EntityId, Path, description = "The account"), MinSequence),
    responses(
        (status = 200, description = "The account as it is", body = Versioned<AccountBody>),
        (status = 404, description = "There is no such account"),
    )
)]
pub(super) async fn show(
    State(api): State<Api>,
    Path(id): Path<EntityId>,
    min_sequence: MinSequence,
) -> Result<Versioned<AccountBody>, Problem> {
    let wanted = id.clone();
    let accounts = api.account_list.at(min_sequence).await?;
    let account = accounts.read(move |tables| AccountSummary::find(tables, &wanted)).await?;
    let Seen { value: account, sequence } = account.found().ok_or_else(|| unknown(&id))?;
    let body = AccountBody::new(&account.ledger, account.version);
    Ok(Versioned::ok(account.version, sequence, body))
}

/// What happened to an account, from its opening
#[utoipa::path(
    get,
    path = "/accounts/{id}/events",
    params(("id" = EntityId, Path, description = "The account"), HistoryRequest, MinSequence),
    responses(
        (status = 200, description = "Its events, oldest first: all of them, or as many as one answer has", body = HistoryEntry<AccountEntry>),
        (status = 404, description = "There is no such account"),
    )
)]
pub(super) async fn history(
    State(api): State<Api>,
    Path(id): Path<EntityId>,
    min_sequence: MinSequence,
    asked: HistoryRequest,
) -> Result<History<AccountEntry>, Problem> {
    api.account_list.at(min_sequence).await?;
    asked.answer(&api.accounts, &id).await?.ok_or_else(|| unknown(&id))
}

/// Opens an account, puts money in, takes money out
#[utoipa::path(
    post,
    path = "/accounts/{id}",
    params(("id" = EntityId, Path, description = "The account"), IfMatch, RequestCause),
    request_body = AccountCommandBody,
    responses(
        (status = 200, description = "Money went in or out", body = Versioned<AccountBody>),
        (status = 201, description = "The account is open", body = Versioned<AccountBody>),
        (status = 409, description = "`account-not-open`, `account-already-open` or `insufficient-funds`"),
    )
)]
pub(super) async fn change(
    State(api): State<Api>,
    Path(id): Path<EntityId>,
    IfMatch(version): IfMatch,
    RequestCause(cause): RequestCause,
    Body(request): Body<AccountRequest>,
) -> Result<Versioned<AccountBody>, Problem> {
    let command = command(&api, &id, request).await?;
    let executed = api.accounts.execute_at(&id, version, &command, &cause).await;
    let executed = executed.or_problem(|reason| refusal(&reason))?;
    let ledger = executed.state.ledger().ok_or_else(|| unknown(&id))?;
    let opened = matches!(command, AccountCommand::Open { .. });
    let body = AccountBody::new(ledger, executed.version);
    let answer = Versioned::ok(executed.version, executed.sequence, body);
    Ok(if opened { answer.created() } else { answer })
}

async fn command(api: &Api, id: &EntityId, request: AccountRequest) -> Result<AccountCommand, Problem> {
    Ok(match request {
        AccountRequest::Open(open) => AccountCommand::Open {
            account_id: id.clone(),
            owner: open.owner,
            initial_balance: money(open.initial_balance, open.currency)?,
        },
        AccountRequest::Deposit(deposit) => {
            AccountCommand::Deposit { amount: moved(api, id, &deposit).await? }
        }
        AccountRequest::Withdraw(withdraw) => {
            AccountCommand::Withdraw { amount: moved(api, id, &withdraw).await? }
        }
    })
}

/// An amount in the account's currency, which never changes, unless the client names one.
async fn moved(api: &Api, id: &EntityId, request: &MoveMoney) -> Result<Money, Problem> {
    let currency = match request.currency {
        Some(currency) => currency,
        None => {
            api.accounts.load(id).await?.state.ledger().map_or(Currency::DEFAULT, |l| l.balance.currency())
        }
    };
    money(request.amount, currency)
}

fn money(amount: Amount, currency: Currency) -> Result<Money, Problem> {
    amount.in_currency(currency).map_err(|error| {
        let slug = match error {
            MoneyError::TooManyDecimals { .. } => "too-many-decimals",
            _ => "invalid-amount",
        };
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, slug, "The amount is not possible")
            .detail(error.to_string())
    })
}

fn unknown(id: &EntityId) -> Problem {
    Problem::not_found(format!("There is no account {id}"))
}

fn refusal(reason: &AccountRejection) -> Problem {
    let (status, slug, title) = match reason {
        AccountRejection::NotOpen => (StatusCode::CONFLICT, "account-not-open", "Account not open"),
        AccountRejection::AlreadyOpen => {
            (StatusCode::CONFLICT, "account-already-open", "Account already open")
        }
        AccountRejection::InsufficientFunds { .. } => {
            (StatusCode::CONFLICT, "insufficient-funds", "Insufficient funds")
        }
        AccountRejection::Owner => (StatusCode::UNPROCESSABLE_ENTITY, "invalid", "The owner is not possible"),
        AccountRejection::NotPositive | AccountRejection::NegativeBalance => {
            (StatusCode::UNPROCESSABLE_ENTITY, "amount-not-positive", "Amount not positive")
        }
        AccountRejection::CurrencyMismatch { .. } => {
            (StatusCode::UNPROCESSABLE_ENTITY, "currency-mismatch", "Wrong currency")
        }
        AccountRejection::TooLarge => {
            (StatusCode::UNPROCESSABLE_ENTITY, "invalid-amount", "The amount is not possible")
        }
    };
    Problem::new(status, slug, title).detail(reason.to_string())
}
