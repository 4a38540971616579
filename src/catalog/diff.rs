//! The changes that make one catalog into another, such as what is in DynamoDB into a share file.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use chrono::{DateTime, Utc};

use super::expiry;
use super::grant::{GrantState, TablePatterns};
use super::oidc::{self, OidcPolicy};
use super::properties::Properties;
use super::restrictions::Restrictions;
use super::settings::{Difference, shown_filter};
use super::state::{CatalogState, RecipientState, ShareState, TableState, TokenState};
use crate::predicate::PartitionFilter;
use crate::protocol::names::Name;

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
    /// The restrictions of a recipient differ.
    RecipientRestrictions { recipient: String, before: Restrictions, after: Restrictions },
    /// A recipient is gone.
    RemoveRecipient { recipient: String },
    /// A share is granted.
    Grant { recipient: String, share: String, grant: GrantState },
    /// What a grant shares differs: its tables, its filter, or both.
    UpdateGrant { recipient: String, share: String, before: GrantState, after: GrantState },
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
            Self::UpdateGrant { before, after, .. } => (&before.filter, &after.filter),
            Self::UpdateTable { before, after, .. } => (&before.settings.filter, &after.settings.filter),
            _ => return None,
        };
        (before != after).then_some((before.as_ref(), after.as_ref()))
    }

    /// How the tables of an existing grant change.
    fn tables(&self) -> Width {
        match self {
            Self::UpdateGrant { before, after, .. } => {
                Width::of_tables(before.tables.as_ref(), after.tables.as_ref())
            }
            _ => Width::Same,
        }
    }

    /// Whether the change can share tables of an existing grant that it did not share.
    pub fn adds_tables(&self) -> bool {
        matches!(self.tables(), Width::Wider | Width::Other)
    }

    /// Whether a share or a schema loses tables.
    pub fn removes_tables(&self) -> bool {
        matches!(self, Self::RemoveShare { .. } | Self::RemoveSchema { .. } | Self::RemoveTable { .. })
    }

    /// Whether the change removes a filter.
    pub fn removes_filter(&self) -> bool {
        matches!(self.filters(), Some((_, None)))
    }

    /// Whether a recipient can no longer read a share.
    pub fn ends_access(&self) -> bool {
        matches!(self, Self::RemoveRecipient { .. } | Self::Revoke { .. })
    }

    /// Whether the change refuses a token, so that the recipient may keep it if the change is left out.
    pub fn ends_credentials(&self) -> bool {
        matches!(self, Self::RemoveToken { .. } | Self::RemoveOidcPolicy { .. })
    }

    /// Whether a recipient may do more than its restrictions allowed before.
    pub fn loosens_restriction(&self) -> bool {
        matches!(self, Self::RecipientRestrictions { before, after, .. } if before.is_loosened_by(after))
    }

    /// A note for the reader of a plan if the recipient can read more than before; empty otherwise.
    pub fn widening(&self) -> &'static str {
        if let Self::RecipientProperties { .. } = self {
            return " (filters that read them can share other rows than before)";
        }
        if let Self::RecipientRestrictions { before, after, .. } = self {
            return match (before.loses_some(after), before.is_loosened_by(after)) {
                (true, _) => " (removes a restriction)",
                (false, true) => " (loosens a restriction)",
                (false, false) => "",
            };
        }
        match self.filters() {
            Some((_, None)) => " (shares more rows than before)",
            Some((Some(_), Some(_))) => " (can share other rows than before)",
            Some((None, Some(_))) | None => "",
        }
    }

    /// The order of changes: new filters and restrictions first, removed ones last, so that nobody sees more in between when
    /// a filter moves from a table to its grants, or when the recipient is removed that a filter was for. Likewise grants lose
    /// tables before tables are added, and get more tables after tables were removed.
    fn rank(&self) -> u8 {
        if let Self::RecipientRestrictions { before, after, .. } = self {
            return if before.is_loosened_by(after) { 2 } else { 0 };
        }
        let filters = match self.filters() {
            Some((None, Some(_))) => Width::Narrower,
            Some((Some(_), Some(_))) | None => Width::Same,
            Some((_, None)) => Width::Wider,
        };
        match (self.tables(), filters) {
            (Width::Narrower | Width::Other, _) | (_, Width::Narrower) => 0,
            (Width::Wider, _) | (_, Width::Wider) => 2,
            (Width::Same, _) => 1,
        }
    }
}

/// How what is shared compares with what was shared before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Width {
    Same,
    /// Nothing that was not shared before.
    Narrower,
    /// Everything that was shared before.
    Wider,
    /// Neither is certain.
    Other,
}

impl Width {
    fn of_tables(before: Option<&TablePatterns>, after: Option<&TablePatterns>) -> Self {
        match (before, after) {
            (before, after) if before == after => Self::Same,
            (Some(before), Some(after)) if before.cover(after) => Self::Narrower,
            (Some(before), Some(after)) if after.cover(before) => Self::Wider,
            (Some(_), Some(_)) => Self::Other,
            (None, _) => Self::Narrower,
            (Some(_), None) => Self::Wider,
        }
    }

    /// A note for the reader of a plan.
    fn of_tables_noted(self) -> &'static str {
        match self {
            Self::Same | Self::Narrower => "",
            Self::Wider => " (shares more tables than before)",
            Self::Other => " (can share other tables than before)",
        }
    }
}

/// The tables of a grant as changes show them.
fn shown_tables(tables: Option<&TablePatterns>) -> String {
    tables.map_or_else(|| "all".to_owned(), |tables| format!("[{tables}]"))
}

/// What a grant shares, as the end of a line about it.
fn granted(grant: &GrantState) -> String {
    let tables = grant.tables.as_ref().map_or_else(String::new, |tables| format!(", tables [{tables}]"));
    tables + &with_filter(grant.filter.as_ref())
}

/// What makes a grant into another one. If it gets fewer tables and loses its filter, or the other way round, it changes twice,
/// so that each change can come where it belongs.
fn grant_changes(
    recipient: &str,
    share: &str,
    before: &GrantState,
    after: &GrantState,
    changes: &mut Vec<CatalogChange>,
) {
    let mut change = |before: &GrantState, after: &GrantState| {
        changes.push(CatalogChange::UpdateGrant {
            recipient: recipient.to_owned(),
            share: share.to_owned(),
            before: before.clone(),
            after: after.clone(),
        });
    };
    let tables = Width::of_tables(before.tables.as_ref(), after.tables.as_ref());
    let narrowed = match (tables, &before.filter, &after.filter) {
        (Width::Narrower, Some(_), None) => {
            Some(GrantState { tables: after.tables.clone(), filter: before.filter.clone() })
        }
        (Width::Wider, None, Some(_)) => {
            Some(GrantState { tables: before.tables.clone(), filter: after.filter.clone() })
        }
        _ => None,
    };
    match narrowed {
        Some(narrowed) => {
            change(before, &narrowed);
            change(&narrowed, after);
        }
        None if before != after => change(before, after),
        None => {}
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
                let restrictions = Restrictions::default().changes_to(&recipient.restrictions);
                for changes in [property_changes(&Properties::new(), &recipient.properties), restrictions] {
                    if !changes.is_empty() {
                        write!(f, ", {changes}")?;
                    }
                }
                Ok(())
            }
            Self::RecipientRestrictions { recipient, before, after } => {
                write!(f, "~ recipient {recipient}: {}{}", before.changes_to(after), self.widening())
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
                write!(f, "- recipient {recipient}, with its tokens and grants")
            }
            Self::Grant { recipient, share, grant } => {
                write!(f, "+ grant of {share} to {recipient}{}", granted(grant))
            }
            Self::UpdateGrant { recipient, share, before, after } => {
                let mut differences = Vec::new();
                if before.tables != after.tables {
                    let (tables, note) =
                        (shown_tables(before.tables.as_ref()), self.tables().of_tables_noted());
                    differences
                        .push(format!("tables {tables} -> {}{note}", shown_tables(after.tables.as_ref())));
                }
                if before.filter != after.filter {
                    let filter = shown_filter(before.filter.as_ref());
                    differences.push(format!(
                        "filter {filter} -> {}{}",
                        shown_filter(after.filter.as_ref()),
                        self.widening()
                    ));
                }
                write!(f, "~ grant of {share} to {recipient}: {}", differences.join(", "))
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
    /// what is removed after what needed it. Filters that are new come first, and filters that go come last; so do fewer and more
    /// tables of a grant.
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
        // What moves must be removed before it is added. Clients have it, so it is added after everything that its new recipient
        // loses.
        changes.sort_by_cached_key(|change| (change.rank(), self.is_move(change)));
        changes
    }

    /// Whether a change adds a token or an OIDC policy that another recipient of `self` has, so that it must be removed there
    /// first.
    pub fn is_move(&self, change: &CatalogChange) -> bool {
        let another = |recipient: &str, has: &dyn Fn(&RecipientState) -> bool| {
            let own = Name::key_of(recipient);
            self.recipients.iter().any(|(key, other)| *key != own && has(other))
        };
        match change {
            CatalogChange::AddToken { recipient, hash, .. } => {
                another(recipient, &|other| other.tokens.contains_key(hash))
            }
            CatalogChange::AddOidcPolicy { recipient, policy } => {
                another(recipient, &|other| other.oidc.iter().any(|known| known.has_subject_of(policy)))
            }
            _ => false,
        }
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
            if before.restrictions != after.restrictions {
                changes.push(CatalogChange::RecipientRestrictions {
                    recipient: name(),
                    before: before.restrictions.clone(),
                    after: after.restrictions.clone(),
                });
            }
        }
    }
    let (no_shares, no_tokens) = (BTreeMap::new(), BTreeMap::new());
    let shares = before.map_or(&no_shares, |before| &before.shares);
    let tokens = before.map_or(&no_tokens, |before| &before.tokens);
    for (share, grant) in &after.shares {
        match shares.get(share) {
            None => changes.push(CatalogChange::Grant {
                recipient: name(),
                share: share.clone(),
                grant: grant.clone(),
            }),
            Some(before) => grant_changes(&after.name, share, before, grant, changes),
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
