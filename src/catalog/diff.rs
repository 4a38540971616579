//! The changes that make one catalog into another, such as what is in DynamoDB into a share file.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use chrono::{DateTime, Utc};

use super::expiry;
use super::oidc::{self, OidcPolicy};
use super::properties::Properties;
use super::settings::{Difference, shown_filter};
use super::state::{CatalogState, RecipientState, ShareState, TableState, TokenState};
use crate::predicate::PartitionFilter;

/// One change to a catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are names and values, and say of what")]
pub enum CatalogChange {
    /// A share is new.
    AddShare(ShareState),
    /// The id of a share differs.
    ShareId { share: String, before: String, after: String },
    /// The comment of a share differs.
    ShareComment { share: String, before: Option<String>, after: Option<String> },
    /// A share is gone.
    RemoveShare { share: String },
    /// A schema is new.
    AddSchema { share: String, schema: String },
    /// A schema is gone.
    RemoveSchema { share: String, schema: String },
    /// A table is new.
    AddTable { share: String, schema: String, table: Box<TableState> },
    /// A table differs.
    UpdateTable { share: String, schema: String, before: Box<TableState>, after: Box<TableState> },
    /// A table is gone.
    RemoveTable { share: String, schema: String, table: String },
    /// A recipient is new.
    AddRecipient(RecipientState),
    /// The comment of a recipient differs.
    RecipientComment { recipient: String, before: Option<String>, after: Option<String> },
    /// A recipient may read now, or no longer.
    RecipientStatus { recipient: String, active: bool },
    /// The properties of a recipient differ. They change together: filters may read several of them.
    RecipientProperties { recipient: String, before: Properties, after: Properties },
    /// A recipient is gone.
    RemoveRecipient { recipient: String },
    /// A share is granted.
    Grant { recipient: String, share: String, filter: Option<PartitionFilter> },
    /// The filter of a grant differs.
    GrantFilter {
        recipient: String,
        share: String,
        before: Option<PartitionFilter>,
        after: Option<PartitionFilter>,
    },
    /// A share is no longer granted.
    Revoke { recipient: String, share: String },
    /// A token is new.
    AddToken { recipient: String, hash: String, token: TokenState },
    /// A token expires at another time.
    TokenExpiry {
        recipient: String,
        hash: String,
        before: Option<DateTime<Utc>>,
        after: Option<DateTime<Utc>>,
    },
    /// A token is gone.
    RemoveToken { recipient: String, hash: String },
    /// An OIDC policy is new.
    AddOidcPolicy { recipient: String, policy: OidcPolicy },
    /// The audiences of an OIDC policy differ.
    OidcAudiences { recipient: String, before: OidcPolicy, after: OidcPolicy },
    /// An OIDC policy is gone.
    RemoveOidcPolicy { recipient: String, policy: OidcPolicy },
}

impl CatalogChange {
    /// Whether it takes something away.
    pub fn removes(&self) -> bool {
        matches!(
            self,
            Self::RemoveShare { .. }
                | Self::RemoveSchema { .. }
                | Self::RemoveTable { .. }
                | Self::RemoveRecipient { .. }
                | Self::Revoke { .. }
                | Self::RemoveToken { .. }
                | Self::RemoveOidcPolicy { .. }
        )
    }

    /// The filters of an existing table or grant, before and after, if they differ.
    fn filters(&self) -> Option<(Option<&PartitionFilter>, Option<&PartitionFilter>)> {
        let (before, after) = match self {
            Self::GrantFilter { before, after, .. } => (before, after),
            Self::UpdateTable { before, after, .. } => (&before.settings.filter, &after.settings.filter),
            _ => return None,
        };
        (before != after).then_some((before.as_ref(), after.as_ref()))
    }

    /// Whether the change removes a filter.
    pub fn removes_filter(&self) -> bool {
        matches!(self.filters(), Some((_, None)))
    }

    /// Whether a recipient can no longer read a share.
    pub fn ends_access(&self) -> bool {
        matches!(self, Self::RemoveRecipient { .. } | Self::Revoke { .. })
    }

    /// A note for the reader of a plan if a changed filter can share more rows; empty otherwise.
    pub fn widening(&self) -> &'static str {
        if let Self::RecipientProperties { .. } = self {
            return " (filters that read them can share other rows than before)";
        }
        match self.filters() {
            Some((_, None)) => " (shares more rows than before)",
            Some((Some(_), Some(_))) => " (can share other rows than before)",
            Some((None, Some(_))) | None => "",
        }
    }

    /// The order of changes: new filters first, removed filters last, so that nobody sees more in between when a filter moves
    /// from a table to its grants, or when the recipient is removed that a filter was for.
    fn rank(&self) -> u8 {
        match self.filters() {
            Some((None, Some(_))) => 0,
            Some((Some(_), Some(_))) | None => 1,
            Some((_, None)) => 2,
        }
    }
}

/// The end of a line about something that has a filter.
fn with_filter(filter: Option<&PartitionFilter>) -> String {
    filter.map_or_else(String::new, |filter| format!(", filter {}", shown_filter(Some(filter))))
}

/// What makes some properties into others, in words.
fn property_changes(before: &Properties, after: &Properties) -> String {
    // In quotes unless it is a plain word, so that it is not taken for something else.
    let shown = |value: Option<&String>| {
        let plain = |value: &str| {
            value != "none"
                && value.chars().all(|character| character.is_alphanumeric() || "_-.".contains(character))
        };
        match value {
            None => "none".to_owned(),
            Some(value) if plain(value) => value.clone(),
            Some(value) => format!("{value:?}"),
        }
    };
    let all: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let changed = all.into_iter().filter(|name| before.get(*name) != after.get(*name));
    let changes: Vec<_> = changed
        .map(|name| format!("property {name} {} -> {}", shown(before.get(name)), shown(after.get(name))))
        .collect();
    changes.join(", ")
}

fn comment(comment: Option<&String>) -> String {
    comment.map_or_else(|| "none".to_owned(), |text| format!("{text:?}"))
}

/// Until when a token is valid, as the end of a sentence.
pub fn until(end: Option<DateTime<Utc>>) -> String {
    end.map_or_else(|| "without expiration".to_owned(), |end| format!("until {}", expiry::format(Some(end))))
}

/// A token as it is shown: enough of its hash to tell it from others.
fn short(hash: &str) -> &str {
    hash.get(..8).unwrap_or(hash)
}

impl fmt::Display for CatalogChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddShare(share) => write!(f, "+ share {}", share.name),
            Self::ShareId { share, before, after } => write!(f, "~ share {share}: id {before} -> {after}"),
            Self::ShareComment { share, before, after } => {
                write!(
                    f,
                    "~ share {share}: comment {} -> {}",
                    comment(before.as_ref()),
                    comment(after.as_ref())
                )
            }
            Self::RemoveShare { share } => write!(f, "- share {share}, with all that is in it"),
            Self::AddSchema { share, schema } => write!(f, "+ schema {share}.{schema}"),
            Self::RemoveSchema { share, schema } => write!(f, "- schema {share}.{schema}"),
            Self::AddTable { share, schema, table } => {
                let filter = with_filter(table.settings.filter.as_ref());
                write!(f, "+ table {share}.{schema}.{}: {}{filter}", table.name, table.settings.location)
            }
            Self::UpdateTable { share, schema, before, after } => {
                write!(
                    f,
                    "~ table {share}.{schema}.{}: {}{}",
                    after.name,
                    before.changes_to(after),
                    self.widening()
                )
            }
            Self::RemoveTable { share, schema, table } => write!(f, "- table {share}.{schema}.{table}"),
            Self::AddRecipient(recipient) => {
                write!(f, "+ recipient {}", recipient.name)?;
                if !recipient.active {
                    f.write_str(", disabled")?;
                }
                match property_changes(&Properties::new(), &recipient.properties) {
                    changes if changes.is_empty() => Ok(()),
                    changes => write!(f, ", {changes}"),
                }
            }
            Self::RecipientProperties { recipient, before, after } => {
                let changes = property_changes(before, after);
                write!(f, "~ recipient {recipient}: {changes}{}", self.widening())
            }
            Self::RecipientComment { recipient, before, after } => {
                let (before, after) = (comment(before.as_ref()), comment(after.as_ref()));
                write!(f, "~ recipient {recipient}: comment {before} -> {after}")
            }
            Self::RecipientStatus { recipient, active: true } => {
                write!(f, "~ recipient {recipient}: status disabled -> active")
            }
            Self::RecipientStatus { recipient, active: false } => {
                write!(f, "~ recipient {recipient}: status active -> disabled")
            }
            Self::RemoveRecipient { recipient } => {
                write!(f, "- recipient {recipient}, with its tokens, policies and grants")
            }
            Self::Grant { recipient, share, filter } => {
                write!(f, "+ grant of {share} to {recipient}{}", with_filter(filter.as_ref()))
            }
            Self::GrantFilter { recipient, share, before, after } => {
                let (before, after) = (shown_filter(before.as_ref()), shown_filter(after.as_ref()));
                write!(f, "~ grant of {share} to {recipient}: filter {before} -> {after}{}", self.widening())
            }
            Self::Revoke { recipient, share } => write!(f, "- grant of {share} to {recipient}"),
            Self::AddToken { recipient, hash, token } => {
                write!(f, "+ token {} of {recipient}, {}", short(hash), until(token.expires))
            }
            Self::TokenExpiry { recipient, hash, before, after } => {
                let (before, after) = (expiry::format(*before), expiry::format(*after));
                write!(f, "~ token {} of {recipient}: until {before} -> {after}", short(hash))
            }
            Self::AddOidcPolicy { recipient, policy } => {
                write!(f, "+ OIDC policy {} of {recipient}: {policy}", policy.id())
            }
            Self::OidcAudiences { recipient, before, after } => {
                let (id, before, after) =
                    (after.id(), oidc::shown(&before.audiences), oidc::shown(&after.audiences));
                write!(f, "~ OIDC policy {id} of {recipient}: audience {before} -> {after}")
            }
            Self::RemoveOidcPolicy { recipient, policy } => {
                write!(f, "- OIDC policy {} of {recipient}: {policy}", policy.id())
            }
            Self::RemoveToken { recipient, hash } => write!(f, "- token {} of {recipient}", short(hash)),
        }
    }
}

fn differences(before: &TableState, after: &TableState) -> Vec<Difference> {
    let own =
        [("name", before.name.clone(), after.name.clone()), ("id", before.id.clone(), after.id.clone())];
    let own = own.into_iter().filter(|(_, before, after)| before != after);
    own.chain(before.settings.differences(&after.settings)).collect()
}

impl TableState {
    /// What makes `self` into `after`, in words.
    pub fn changes_to(&self, after: &Self) -> String {
        let changes = differences(self, after).into_iter();
        let changes: Vec<_> =
            changes.map(|(what, before, after)| format!("{what} {before} -> {after}")).collect();
        changes.join(", ")
    }
}

impl CatalogState {
    /// What makes `self` into `wanted`, in an order in which it can be done: what is added before what needs it,
    /// what is removed after what needed it. Filters that are new come first, and filters that go come last.
    pub fn changes_to(&self, wanted: &Self) -> Vec<CatalogChange> {
        let mut changes = Vec::new();
        for (key, after) in &wanted.shares {
            match self.shares.get(key) {
                None => changes.push(CatalogChange::AddShare(after.clone())),
                Some(before) => {
                    if before.id != after.id {
                        changes.push(CatalogChange::ShareId {
                            share: after.name.clone(),
                            before: before.id.clone(),
                            after: after.id.clone(),
                        });
                    }
                    if before.comment != after.comment {
                        changes.push(CatalogChange::ShareComment {
                            share: after.name.clone(),
                            before: before.comment.clone(),
                            after: after.comment.clone(),
                        });
                    }
                }
            }
            schemas(self.shares.get(key), after, &mut changes);
        }
        for (key, after) in &wanted.recipients {
            recipient(self.recipients.get(key), after, &mut changes);
        }
        for (key, before) in &self.recipients {
            if !wanted.recipients.contains_key(key) {
                changes.push(CatalogChange::RemoveRecipient { recipient: before.name.clone() });
            }
        }
        self.oidc_changes_to(wanted, &mut changes);
        for (key, before) in &self.shares {
            match wanted.shares.get(key) {
                None => changes.push(CatalogChange::RemoveShare { share: before.name.clone() }),
                Some(after) => gone(before, after, &mut changes),
            }
        }
        changes.sort_by_key(CatalogChange::rank);
        changes
    }

    /// The changes to OIDC policies. Those that go come first, because a policy can move to another recipient.
    fn oidc_changes_to(&self, wanted: &Self, changes: &mut Vec<CatalogChange>) {
        let mut added = Vec::new();
        for (key, after) in &wanted.recipients {
            let name = || after.name.clone();
            let there = self.recipients.get(key).map(|before| &before.oidc);
            let before_of = |policy: &OidcPolicy| there?.iter().find(|other| other.has_subject_of(policy));
            for policy in &after.oidc {
                match before_of(policy) {
                    None => {
                        added.push(CatalogChange::AddOidcPolicy { recipient: name(), policy: policy.clone() })
                    }
                    Some(before) if before != policy => added.push(CatalogChange::OidcAudiences {
                        recipient: name(),
                        before: before.clone(),
                        after: policy.clone(),
                    }),
                    Some(_) => {}
                }
            }
            let gone = there.into_iter().flatten();
            let gone = gone.filter(|policy| !after.oidc.iter().any(|other| other.has_subject_of(policy)));
            changes.extend(
                gone.map(|policy| CatalogChange::RemoveOidcPolicy {
                    recipient: name(),
                    policy: policy.clone(),
                }),
            );
        }
        changes.append(&mut added);
    }
}

fn schemas(before: Option<&ShareState>, after: &ShareState, changes: &mut Vec<CatalogChange>) {
    for (key, schema) in &after.schemas {
        let there = before.and_then(|share| share.schemas.get(key));
        if there.is_none() {
            changes.push(CatalogChange::AddSchema { share: after.name.clone(), schema: schema.name.clone() });
        }
        for (key, table) in &schema.tables {
            let (share, schema) = (after.name.clone(), schema.name.clone());
            match there.and_then(|schema| schema.tables.get(key)) {
                None => {
                    changes.push(CatalogChange::AddTable { share, schema, table: Box::new(table.clone()) })
                }
                Some(before) if before != table => {
                    let (before, after) = (Box::new(before.clone()), Box::new(table.clone()));
                    changes.push(CatalogChange::UpdateTable { share, schema, before, after });
                }
                Some(_) => {}
            }
        }
    }
}

fn gone(before: &ShareState, after: &ShareState, changes: &mut Vec<CatalogChange>) {
    for (key, schema) in &before.schemas {
        let left = after.schemas.get(key);
        for (key, table) in &schema.tables {
            if left.is_none_or(|left| !left.tables.contains_key(key)) {
                changes.push(CatalogChange::RemoveTable {
                    share: before.name.clone(),
                    schema: schema.name.clone(),
                    table: table.name.clone(),
                });
            }
        }
        if left.is_none() {
            changes.push(CatalogChange::RemoveSchema {
                share: before.name.clone(),
                schema: schema.name.clone(),
            });
        }
    }
}

fn recipient(before: Option<&RecipientState>, after: &RecipientState, changes: &mut Vec<CatalogChange>) {
    let name = || after.name.clone();
    match before {
        None => changes.push(CatalogChange::AddRecipient(after.clone())),
        Some(before) => {
            if before.comment != after.comment {
                changes.push(CatalogChange::RecipientComment {
                    recipient: name(),
                    before: before.comment.clone(),
                    after: after.comment.clone(),
                });
            }
            if before.active != after.active {
                changes.push(CatalogChange::RecipientStatus { recipient: name(), active: after.active });
            }
            if before.properties != after.properties {
                changes.push(CatalogChange::RecipientProperties {
                    recipient: name(),
                    before: before.properties.clone(),
                    after: after.properties.clone(),
                });
            }
        }
    }
    let (no_shares, no_tokens) = (BTreeMap::new(), BTreeMap::new());
    let shares = before.map_or(&no_shares, |before| &before.shares);
    let tokens = before.map_or(&no_tokens, |before| &before.tokens);
    for (share, filter) in &after.shares {
        let (recipient, share, after) = (name(), share.clone(), filter.clone());
        match shares.get(&share) {
            None => changes.push(CatalogChange::Grant { recipient, share, filter: after }),
            Some(before) if *before != after => {
                changes.push(CatalogChange::GrantFilter { recipient, share, before: before.clone(), after });
            }
            Some(_) => {}
        }
    }
    let revoked = shares.keys().filter(|share| !after.shares.contains_key(*share));
    changes.extend(revoked.map(|share| CatalogChange::Revoke { recipient: name(), share: share.clone() }));
    // Tokens that go make room for those that come: a recipient has few.
    let removed = tokens.keys().filter(|hash| !after.tokens.contains_key(*hash));
    changes.extend(removed.map(|hash| CatalogChange::RemoveToken { recipient: name(), hash: hash.clone() }));
    for (hash, token) in &after.tokens {
        match tokens.get(hash) {
            None => changes.push(CatalogChange::AddToken {
                recipient: name(),
                hash: hash.clone(),
                token: token.clone(),
            }),
            Some(before) if before.expires != token.expires => {
                changes.push(CatalogChange::TokenExpiry {
                    recipient: name(),
                    hash: hash.clone(),
                    before: before.expires,
                    after: token.expires,
                });
            }
            Some(_) => {}
        }
    }
}
