//! Changes of recipients and of what is granted to them.

use super::keys;
use super::keys::Key;
use super::records::{self, Item, Kind, key_of, text as string};
use super::tokens::NewToken;
use super::transaction::{LARGEST, Step};
use super::values::text;
use super::write_error::{MissingRecord, Result, WriteError};
use super::writer::{Writer, set_comment};
use crate::catalog::state::RecipientState;
use crate::protocol::names::Name;

impl Writer {
    /// Creates a recipient with shares and a token in one transaction.
    pub async fn create_recipient(
        &self,
        name: &Name,
        comment: Option<&str>,
        shares: &[Name],
        token: &NewToken,
    ) -> Result<()> {
        let who = name.as_str();
        let mut attributes = vec![("name", text(who)), ("status", text("active"))];
        attributes.extend(comment.map(|comment| ("comment", text(comment))));
        let mut steps = vec![self.put_new(&Key::recipient(who), attributes, format!("recipient '{name}'"))];
        for share in shares {
            steps.extend(self.grant_steps(who, &self.share_name(share.as_str()).await?));
        }
        steps.extend(self.token_steps(who, token));
        if steps.len() > LARGEST {
            return Err(WriteError::Refused(
                "these are too many shares at once; grant some of them later".to_owned(),
            ));
        }
        self.transact(steps).await
    }

    /// Grants a share to a recipient. Nothing changes if it is granted already.
    pub async fn grant(&self, recipient: &str, share: &Name) -> Result<()> {
        let key = Key::recipient(recipient);
        let (_, who) = self.recipient_item(recipient).await?;
        let share = self.share_name(share.as_str()).await?;
        let mut steps = vec![self.is_there(&key, MissingRecord::recipient(recipient))];
        steps.extend(self.grant_steps(&who, &share));
        self.transact(steps).await
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

    /// Deletes a recipient with its tokens and grants. The first step disables all of its tokens.
    pub async fn delete_recipient(&self, recipient: &str) -> Result<()> {
        let key = Key::recipient(recipient);
        let disabled = ("status", text("disabled"));
        let missing = MissingRecord::recipient(recipient);
        self.transact(vec![self.set_if(&key, disabled, ("attribute_exists(pk)", None), missing.into())?])
            .await?;
        let listed = Key::granted_to("", recipient).sort;
        let who = Name::key_of(recipient);
        let is_of_recipient = |item: &Item| match records::kind(item) {
            Kind::Token => Name::key_of(string(item, "recipient")) == who,
            Kind::GrantedTo => string(item, keys::SORT) == listed,
            _ => string(item, keys::PARTITION) == key.partition && string(item, keys::SORT) != key.sort,
        };
        let doomed: Vec<Key> =
            self.items().await?.iter().filter(|item| is_of_recipient(item)).map(key_of).collect();
        self.delete_all(&doomed, |_| {}).await?;
        self.transact(vec![self.delete_any(&key)]).await
    }

    /// Creates a recipient without tokens and grants.
    pub(super) async fn add_recipient(&self, recipient: &RecipientState) -> Result<()> {
        let RecipientState { name, active, comment, .. } = recipient;
        let mut attributes = vec![("name", text(name)), ("status", text(status(*active)))];
        attributes.extend(comment.as_ref().map(|comment| ("comment", text(comment))));
        let what = format!("recipient '{name}'");
        self.transact(vec![self.put_new(&Key::recipient(name), attributes, what)]).await
    }

    /// Changes the comment of a recipient if `comment` is given, and whether it may read if `active` is.
    pub async fn update_recipient(
        &self,
        recipient: &str,
        comment: Option<Option<&str>>,
        active: Option<bool>,
    ) -> Result<()> {
        let missing = MissingRecord::recipient(recipient);
        self.update(&Key::recipient(recipient), missing, |item| {
            if let Some(comment) = comment {
                set_comment(item, comment);
            }
            if let Some(active) = active {
                item.insert("status".to_owned(), text(status(active)));
            }
        })
        .await
    }

    fn grant_steps(&self, recipient: &str, share: &str) -> [Step; 3] {
        let attributes = || vec![("share", text(share)), ("recipient", text(recipient))];
        let conflict = || WriteError::Conflict(format!("the grant of share '{share}'"));
        [
            self.share_is_there(share),
            self.put_any(&Key::grant(recipient, share), attributes(), conflict()),
            self.put_any(&Key::granted_to(share, recipient), attributes(), conflict()),
        ]
    }
}

fn status(active: bool) -> &'static str {
    if active { "active" } else { "disabled" }
}
