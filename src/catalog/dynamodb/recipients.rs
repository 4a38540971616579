//! Changes of recipients and of what is granted to them.

use super::keys;
use super::keys::Key;
use super::recipient_changes::{GrantBefore, GrantChanges, GrantFilter, GrantTables, RecipientChanges};
use super::records::{self, Item, Kind, key_of, text as string};
use super::tokens::NewToken;
use super::transaction::{LARGEST, Step};
use super::values::text;
use super::write_error::{MissingRecord, Result, WriteError};
use super::writer::{Writer, set_comment};
use crate::catalog::grant::GrantState;
use crate::catalog::oidc::OidcPolicy;
use crate::catalog::properties::{Properties, check_properties};
use crate::catalog::restrictions::Restrictions;
use crate::catalog::state::RecipientState;
use crate::protocol::names::Name;

/// How a new recipient proves who it is.
#[derive(Debug, Clone, Copy)]
pub enum Credential<'a> {
    /// With a token of this server.
    Token(&'a NewToken),
    /// With tokens of an OpenID provider.
    Oidc(&'a OidcPolicy),
}

impl<'a> From<&'a NewToken> for Credential<'a> {
    fn from(token: &'a NewToken) -> Self {
        Self::Token(token)
    }
}

impl Writer {
    /// Creates a recipient with properties, restrictions, shares, and a token or an OIDC policy in one transaction.
    pub async fn create_recipient<'a>(
        &self,
        name: &Name,
        comment: Option<&str>,
        properties: &Properties,
        restrictions: &Restrictions,
        shares: &[Name],
        credential: impl Into<Credential<'a>>,
    ) -> Result<()> {
        check_properties(properties).map_err(WriteError::Refused)?;
        let who = name.as_str();
        let mut attributes = vec![("name", text(who)), ("status", text("active"))];
        attributes.extend(comment.map(|comment| ("comment", text(comment))));
        attributes.extend(records::properties_attribute(properties));
        attributes.extend(records::restriction_attributes(restrictions));
        let mut steps = vec![self.put_new(&Key::recipient(who), attributes, format!("recipient '{name}'"))];
        let mut keys = std::collections::BTreeSet::new();
        for share in shares.iter().filter(|share| keys.insert(share.key())) {
            let share = self.share_name(share.as_str()).await?;
            // A script may have written the grant before the recipient.
            let before = self.get(&Key::grant(who, &share)).await?;
            let stored = before.as_ref().map(records::grant).transpose()?.map(|grant| grant.state);
            if let Some(stored) = stored.filter(|stored| !stored.is_whole_share()) {
                let filter = stored.filter.iter().map(|filter| format!("the filter {filter}"));
                let tables = stored.tables.iter().map(|tables| format!("the tables {tables}"));
                let with: Vec<_> = tables.chain(filter).collect();
                return Err(WriteError::Refused(format!(
                    "there is a grant of share '{share}' to '{who}' with {}; leave out --share '{share}'",
                    with.join(" and ")
                )));
            }
            steps.extend(self.grant_steps(who, &share, before.as_ref(), &GrantState::default())?);
        }
        match credential.into() {
            Credential::Token(token) => steps.extend(self.token_steps(who, token)),
            Credential::Oidc(policy) => steps.push(self.oidc_policy_step(who, policy)?),
        }
        if steps.len() > LARGEST {
            return Err(WriteError::Refused(
                "these are too many shares at once; grant some of them later".to_owned(),
            ));
        }
        self.transact(steps).await
    }

    /// Grants a share to a recipient, or grants it again. Returns the grant as it was before, if there was one.
    pub async fn grant(
        &self,
        recipient: &str,
        share: &Name,
        changes: GrantChanges,
    ) -> Result<Option<GrantBefore>> {
        let mut before = None;
        self.put_grant(recipient, share, |who, share, item| {
            let stored = item.map(records::grant);
            before = stored.as_ref().map(|stored| GrantBefore {
                state: stored.as_ref().map(|stored| stored.state.clone()).unwrap_or_default(),
                readable: stored.is_ok(),
            });
            let (sets_tables, sets_filter) =
                (changes.tables != GrantTables::Unspecified, changes.filter != GrantFilter::Unspecified);
            let state = match stored.transpose() {
                Ok(stored) => stored.map(|stored| stored.state).unwrap_or_default(),
                // What cannot be read is replaced by what the command says, never by what it leaves out.
                Err(bad) => {
                    let needs_tables = item.is_some_and(records::may_have_patterns);
                    let is_newer = item.is_some_and(records::is_newer);
                    if is_newer || !sets_filter || (needs_tables && !sets_tables) {
                        return Err(bad.into());
                    }
                    GrantState::default()
                }
            };
            if let (Some(filter), false) = (&state.filter, sets_filter) {
                return Err(WriteError::Refused(format!(
                    "share '{share}' is granted to '{who}' with the filter {filter}. To change the filter, add --filter; \
                     to remove it, add --no-filter"
                )));
            }
            if let (Some(tables), false) = (&state.tables, sets_tables) {
                return Err(WriteError::Refused(format!(
                    "of share '{share}', only the tables {tables} are granted to '{who}'. To change the tables, add \
                     --tables; to grant the whole share, add --all-tables"
                )));
            }
            Ok(changes.state())
        })
        .await?;
        Ok(before)
    }

    /// Grants a share that is not granted yet, or is granted in the same way. Fails with a conflict if it is granted
    /// otherwise.
    pub(super) async fn add_grant(&self, recipient: &str, share: &Name, state: &GrantState) -> Result<()> {
        self.put_grant(recipient, share, |who, share, item| match item.map(records::grant).transpose()? {
            Some(stored) if stored.state != *state => Err(WriteError::Conflict(grant_named(who, share))),
            _ => Ok(state.clone()),
        })
        .await
    }

    /// Grants a share, or replaces its grant. `decide` gets the names and the grant's record, and says what is shared.
    async fn put_grant(
        &self,
        recipient: &str,
        share: &Name,
        decide: impl FnOnce(&str, &str, Option<&Item>) -> Result<GrantState>,
    ) -> Result<()> {
        let (_, who) = self.recipient_item(recipient).await?;
        let share = self.share_name(share.as_str()).await?;
        let before = self.get(&Key::grant(&who, &share)).await?;
        let state = decide(&who, &share, before.as_ref())?;
        let mut steps = vec![self.is_there(&Key::recipient(recipient), MissingRecord::recipient(recipient))];
        steps.extend(self.grant_steps(&who, &share, before.as_ref(), &state)?);
        self.transact(steps).await
    }

    /// Changes what a grant shares from `before`. Fails with a conflict if it has changed since.
    pub(super) async fn update_grant(
        &self,
        recipient: &str,
        share: &str,
        before: &GrantState,
        after: &GrantState,
    ) -> Result<()> {
        let conflict = || WriteError::Conflict(grant_named(recipient, share));
        let item = self.get(&Key::grant(recipient, share)).await?.ok_or_else(conflict)?;
        let stored = records::grant(&item)?;
        if stored.state != *before {
            return Err(conflict());
        }
        let [step, _] = self.grant_records(recipient, stored.share.as_str(), Some(&item), after)?;
        self.transact(vec![step]).await
    }

    /// The name of a share as its record spells it.
    async fn share_name(&self, share: &str) -> Result<String> {
        let item = self.get(&Key::share(share)).await?;
        let item = item.ok_or_else(|| WriteError::Missing(MissingRecord::share(share)))?;
        Ok(records::share(&item)?.record.name.as_str().to_owned())
    }

    /// A recipient's record, and its name as the record spells it.
    pub(super) async fn recipient_item(&self, recipient: &str) -> Result<(Item, String)> {
        let item = self.get(&Key::recipient(recipient)).await?;
        let item = item.ok_or_else(|| WriteError::Missing(MissingRecord::recipient(recipient)))?;
        let name = records::recipient(&item)?.name.as_str().to_owned();
        Ok((item, name))
    }

    /// Revokes a share from a recipient.
    pub async fn revoke(&self, recipient: &str, share: &str) -> Result<()> {
        self.transact(vec![
            self.delete_old(&Key::grant(recipient, share), MissingRecord::grant(recipient, share)),
            self.delete_any(&Key::granted_to(share, recipient)),
        ])
        .await
    }

    /// Deletes a recipient with its tokens, OIDC policies and grants. The first step disables it.
    pub async fn delete_recipient(&self, recipient: &str) -> Result<()> {
        let key = Key::recipient(recipient);
        let disabled = ("status", text("disabled"));
        let missing = MissingRecord::recipient(recipient);
        self.transact(vec![self.set_if(&key, disabled, ("attribute_exists(pk)", None), missing.into())?])
            .await?;
        let listed = Key::granted_to("", recipient).sort;
        let (who, usage) = (Name::key_of(recipient), keys::usage_partition(recipient));
        let is_of_recipient = |item: &Item| match records::kind(item) {
            _ if string(item, keys::PARTITION) == usage => true,
            Kind::Token | Kind::Activation | Kind::OidcPolicy => {
                Name::key_of(string(item, "recipient")) == who
            }
            Kind::GrantedTo => string(item, keys::SORT) == listed,
            _ => string(item, keys::PARTITION) == key.partition && string(item, keys::SORT) != key.sort,
        };
        let doomed: Vec<Key> =
            self.items().await?.iter().filter(|item| is_of_recipient(item)).map(key_of).collect();
        self.delete_all(&doomed, |_| {}).await?;
        self.transact(vec![self.delete_any(&key)]).await?;
        // Others may have created a token or a policy after the records were read. A recipient that is created with this
        // name later must not have it; one that was created in the meantime keeps its own.
        let left: Vec<Key> =
            self.items().await?.iter().filter(|item| is_of_recipient(item)).map(key_of).collect();
        for left in &left {
            let created = WriteError::Conflict(format!("recipient '{recipient}'"));
            let is_gone = self.check(&key, "attribute_not_exists(pk)", created);
            self.transact(vec![is_gone, self.delete_any(left)]).await?;
        }
        Ok(())
    }

    /// Creates a recipient without tokens and grants.
    pub(super) async fn add_recipient(&self, recipient: &RecipientState) -> Result<()> {
        let RecipientState { name, active, comment, properties, restrictions, .. } = recipient;
        check_properties(properties).map_err(WriteError::Refused)?;
        let mut attributes = vec![("name", text(name)), ("status", text(status(*active)))];
        attributes.extend(comment.as_ref().map(|comment| ("comment", text(comment))));
        attributes.extend(records::properties_attribute(properties));
        attributes.extend(records::restriction_attributes(restrictions));
        let what = format!("recipient '{name}'");
        self.transact(vec![self.put_new(&Key::recipient(name), attributes, what)]).await
    }

    /// Changes a recipient.
    pub async fn update_recipient(&self, recipient: &str, changes: RecipientChanges<'_>) -> Result<()> {
        let missing = MissingRecord::recipient(recipient);
        let RecipientChanges { comment, active, properties, no_properties, restrictions } = changes;
        self.update(&Key::recipient(recipient), missing, |item| {
            if let Some(comment) = comment {
                set_comment(item, comment);
            }
            if let Some(active) = active {
                item.insert("status".to_owned(), text(status(active)));
            }
            if !properties.is_empty() || !no_properties.is_empty() {
                let mut all = records::recipient(item)?.properties;
                for name in &no_properties {
                    if all.remove(name).is_none() {
                        return Err(MissingRecord::property(recipient, name).into());
                    }
                }
                all.extend(properties);
                set_properties(item, &all)?;
            }
            if !restrictions.is_empty() {
                let all = records::recipient(item)?.restrictions.with(restrictions);
                set_restrictions(item, &all);
            }
            Ok(())
        })
        .await
    }

    /// Changes the properties of a recipient from `before`. Fails with a conflict if they have changed since.
    pub(super) async fn update_properties(
        &self,
        recipient: &str,
        before: &Properties,
        after: &Properties,
    ) -> Result<()> {
        let missing = MissingRecord::recipient(recipient);
        self.update(&Key::recipient(recipient), missing, |item| {
            if records::recipient(item)?.properties != *before {
                return Err(WriteError::Conflict(format!("recipient '{recipient}'")));
            }
            set_properties(item, after)
        })
        .await
    }

    /// Changes the restrictions of a recipient from `before`. Fails with a conflict if they have changed since.
    pub(super) async fn update_restrictions(
        &self,
        recipient: &str,
        before: &Restrictions,
        after: &Restrictions,
    ) -> Result<()> {
        let missing = MissingRecord::recipient(recipient);
        self.update(&Key::recipient(recipient), missing, |item| {
            if records::recipient(item)?.restrictions != *before {
                return Err(WriteError::Conflict(format!("recipient '{recipient}'")));
            }
            set_restrictions(item, after);
            Ok(())
        })
        .await
    }

    /// Grants a share, or replaces the grant that was read as `before`.
    fn grant_steps(
        &self,
        recipient: &str,
        share: &str,
        before: Option<&Item>,
        state: &GrantState,
    ) -> Result<[Step; 3]> {
        let [grant, granted_to] = self.grant_records(recipient, share, before, state)?;
        Ok([self.share_is_there(share), grant, granted_to])
    }

    /// The two records of a grant. Only the first of them says what is shared.
    fn grant_records(
        &self,
        recipient: &str,
        share: &str,
        before: Option<&Item>,
        state: &GrantState,
    ) -> Result<[Step; 2]> {
        let (key, what) = (Key::grant(recipient, share), grant_named(recipient, share));
        let attributes = records::grant_attributes(recipient, share, state);
        let grant = match before {
            None => self.put_unless_there(&key, attributes, WriteError::Conflict(what.clone())),
            Some(before) => {
                let mut after = before.clone();
                after.remove(records::FILTER);
                after.remove(records::GRANTED_TABLES);
                after.extend(attributes.into_iter().map(|(name, value)| (name.to_owned(), value)));
                self.replace(before, after, what.clone())?
            }
        };
        let listed = records::grant_attributes(recipient, share, &GrantState::default());
        let granted_to = self.put_any(&Key::granted_to(share, recipient), listed, WriteError::Conflict(what));
        Ok([grant, granted_to])
    }
}

fn grant_named(recipient: &str, share: &str) -> String {
    MissingRecord::grant(recipient, share).to_string()
}

fn set_properties(item: &mut Item, properties: &Properties) -> Result<()> {
    check_properties(properties).map_err(WriteError::Refused)?;
    item.remove(records::PROPERTIES);
    item.extend(records::properties_attribute(properties).map(|(name, value)| (name.to_owned(), value)));
    Ok(())
}

fn set_restrictions(item: &mut Item, restrictions: &Restrictions) {
    item.retain(|name, _| !records::RESTRICTIONS.contains(&name.as_str()));
    let attributes = records::restriction_attributes(restrictions).into_iter();
    item.extend(attributes.map(|(name, value)| (name.to_owned(), value)));
}

fn status(active: bool) -> &'static str {
    if active { "active" } else { "disabled" }
}
