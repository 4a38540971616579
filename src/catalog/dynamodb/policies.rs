//! OIDC policies of recipients: listed, created, changed and removed.

use super::keys::{self, Key};
use super::records::{self, Item, Kind, key_of, text as string};
use super::tokens::owner;
use super::transaction::Step;
use super::write_error::{MissingRecord, Result, WriteError};
use super::writer::Writer;
use crate::catalog::oidc::{MOST_POLICIES, OidcPolicy};
use crate::protocol::names::Name;

/// A policy of a recipient, as its record is written.
#[derive(Debug, Clone)]
pub struct FoundPolicy {
    /// What it says.
    pub policy: OidcPolicy,
    /// Why the record cannot be read; tokens that meet only this policy are then refused.
    pub fault: Option<String>,
    key: Key,
}

impl FoundPolicy {
    fn read(item: &Item) -> Self {
        let written = || OidcPolicy {
            issuer: string(item, "issuer").to_owned(),
            subject_claim: string(item, "subjectClaim").to_owned(),
            subject: string(item, "subject").to_owned(),
            audiences: std::collections::BTreeSet::new(),
        };
        let (policy, fault) = match records::oidc_policy(item) {
            Ok(found) => (found.policy.as_ref().clone(), None),
            Err(bad) => (written(), Some(bad.reason)),
        };
        Self { policy, fault, key: key_of(item) }
    }
}

/// The policies among the records of a recipient.
pub(super) fn policies_of(records: &[&Item]) -> Vec<FoundPolicy> {
    let own = records.iter().filter(|item| records::kind(item) == Kind::OidcPolicy);
    own.map(|item| FoundPolicy::read(item)).collect()
}

impl Writer {
    /// The OIDC policies of a recipient. Reads the whole DynamoDB table.
    pub async fn oidc_policies(&self, recipient: &str) -> Result<Vec<FoundPolicy>> {
        let partition = keys::recipient_partition(recipient);
        let items = self.items().await?;
        let own: Vec<_> = items.iter().filter(|item| owner(item).as_ref() == Some(&partition)).collect();
        Ok(policies_of(&own))
    }

    /// Gives a recipient a policy, or changes the audiences of the one that it has for the same subject. Returns the
    /// policy as it was before, if there was one. Fails if another recipient has one for the subject.
    pub async fn put_oidc_policy(&self, recipient: &str, policy: &OidcPolicy) -> Result<Option<OidcPolicy>> {
        let key = Key::oidc_policy(policy);
        let Some(item) = self.get(&key).await? else {
            self.add_oidc_policy(recipient, policy).await?;
            return Ok(None);
        };
        let before = records::oidc_policy(&item)?;
        if Name::key_of(&before.recipient) != Name::key_of(recipient) {
            return Err(WriteError::Exists(format!(
                "OIDC policy {} of recipient '{}', for the same subject,",
                policy.id(),
                before.recipient
            )));
        }
        self.update_oidc_policy(recipient, &before.policy, policy).await?;
        Ok(Some(before.policy.as_ref().clone()))
    }

    /// Gives a recipient another policy.
    pub(super) async fn add_oidc_policy(&self, recipient: &str, policy: &OidcPolicy) -> Result<()> {
        let (_, who) = self.recipient_item(recipient).await?;
        if self.oidc_policies(recipient).await?.len() >= MOST_POLICIES {
            return Err(WriteError::Refused(format!(
                "recipient '{recipient}' has {MOST_POLICIES} OIDC policies, which is the most; remove one first"
            )));
        }
        let there = self.is_there(&Key::recipient(recipient), MissingRecord::recipient(recipient));
        self.transact(vec![there, self.oidc_policy_step(&who, policy)?]).await
    }

    /// Changes the audiences of a policy from `before`.
    pub(super) async fn update_oidc_policy(
        &self,
        recipient: &str,
        before: &OidcPolicy,
        after: &OidcPolicy,
    ) -> Result<()> {
        after.check().map_err(WriteError::Refused)?;
        let conflict = || policy_named(recipient, before);
        let item = self.get(&Key::oidc_policy(before)).await?;
        let item = item.ok_or_else(|| WriteError::Conflict(conflict()))?;
        let now = records::oidc_policy(&item)?;
        if *now.policy != *before || Name::key_of(&now.recipient) != Name::key_of(recipient) {
            return Err(WriteError::Conflict(conflict()));
        }
        let mut put = item.clone();
        let attributes = records::oidc_policy_attributes(&now.recipient, after);
        put.extend(attributes.into_iter().map(|(name, value)| (name.to_owned(), value)));
        self.transact(vec![self.replace(&item, put, conflict())?]).await
    }

    /// Takes the policy with this id from a recipient. Returns it.
    pub async fn remove_oidc_policy(&self, recipient: &str, id: &str) -> Result<OidcPolicy> {
        let found = self.oidc_policies(recipient).await?;
        let mut found = found.into_iter().filter(|found| found.policy.id() == id);
        let missing = || WriteError::Missing(MissingRecord::oidc_policy(recipient, id));
        let (first, second) = (found.next().ok_or_else(missing)?, found.next());
        if second.is_some() {
            return Err(WriteError::Refused(format!(
                "several OIDC policies of recipient '{recipient}' have the id '{id}'; delete one of their records"
            )));
        }
        self.transact(vec![self.delete_old(&first.key, MissingRecord::oidc_policy(recipient, id))]).await?;
        Ok(first.policy)
    }

    /// Takes this policy from a recipient, if it is as it was read.
    pub(super) async fn delete_oidc_policy(&self, recipient: &str, policy: &OidcPolicy) -> Result<()> {
        let key = Key::oidc_policy(policy);
        let missing = MissingRecord::oidc_policy(recipient, &policy.id());
        let item = self.get(&key).await?.ok_or_else(|| WriteError::Missing(missing.clone()))?;
        if Name::key_of(&records::oidc_policy(&item)?.recipient) != Name::key_of(recipient) {
            return Err(WriteError::Conflict(policy_named(recipient, policy)));
        }
        self.transact(vec![self.delete_old(&key, missing)]).await
    }

    /// Creates a policy of a recipient.
    pub(super) fn oidc_policy_step(&self, recipient: &str, policy: &OidcPolicy) -> Result<Step> {
        policy.check().map_err(WriteError::Refused)?;
        let what = format!("an OIDC policy for {} {:?} of this issuer", policy.subject_claim, policy.subject);
        let attributes = records::oidc_policy_attributes(recipient, policy);
        Ok(self.put_new(&Key::oidc_policy(policy), attributes, what))
    }
}

fn policy_named(recipient: &str, policy: &OidcPolicy) -> String {
    MissingRecord::oidc_policy(recipient, &policy.id()).to_string()
}
