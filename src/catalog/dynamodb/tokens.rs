//! Tokens of recipients: listed, created, rotated and revoked.

use aws_sdk_dynamodb::types::AttributeValue;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};

use super::activations::{NewActivation, UnusedLink};
use super::keys::{self, Key};
use super::records::{self, Item, Kind, key_of, text as string};
use super::transaction::{LARGEST, Step};
use super::values::{number, text};
use super::write_error::{MissingRecord, Result, WriteError};
use super::writer::Writer;
use crate::catalog::state::TokenState;
use crate::catalog::{TokenHash, TokenRecord, expiry};

/// The most live tokens of a recipient: two, while one replaces the other.
pub const LIVE_TOKENS: usize = 2;

/// A new token. Only its hash is stored.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// Names it in lists and logs.
    pub id: String,
    /// Its hash.
    pub hash: TokenHash,
    /// When it expires; `None` if it never does.
    pub expires: Option<DateTime<Utc>>,
    /// When it was created; `None` for now.
    pub created: Option<String>,
    /// What an activation link hands out, if the profile is handed over by one.
    pub activation: Option<NewActivation>,
}

/// A token of a recipient, read from its two records, or from one of them if the other is missing.
#[derive(Debug, Clone)]
pub struct FoundToken {
    /// Names it.
    pub id: String,
    /// When it expires; `None` for never.
    pub expires: Option<DateTime<Utc>>,
    /// When it was created, as it is written.
    pub created: String,
    /// Its hash, if one of its records has it.
    pub hash: Option<TokenHash>,
    /// Whether servers know it. If not, it is not valid, whenever it expires.
    pub is_known: bool,
    /// Whether it is in the list of its recipient's tokens.
    pub is_listed: bool,
    /// Why a record of it cannot be read.
    pub fault: Option<String>,
    /// The activation link that would hand it out, if there is one that was not used.
    pub link: Option<UnusedLink>,
    /// The keys of its records, as they were written.
    records: Vec<Key>,
}

impl FoundToken {
    /// By the record that servers look up.
    fn known(item: &Item) -> Self {
        let hash = string(item, keys::PARTITION).strip_prefix(keys::TOKENS).and_then(TokenHash::from_hex);
        let read = records::token(item);
        let id = || hash.map_or_else(String::new, |hash| hash.short().to_string());
        Self {
            id: Some(string(item, "id")).filter(|id| !id.is_empty()).map_or_else(id, str::to_owned),
            expires: read.as_ref().ok().and_then(|token| token.record.expires),
            created: string(item, "created").to_owned(),
            hash,
            is_known: read.is_ok(),
            is_listed: false,
            fault: read.err().map(|bad| bad.reason),
            link: None,
            records: vec![key_of(item)],
        }
    }

    /// By the record that lists it.
    fn listed(item: &Item) -> Self {
        let read = records::listed_token(item);
        let in_key = || string(item, keys::SORT).trim_start_matches(keys::TOKENS).to_owned();
        Self {
            id: Some(string(item, "id")).filter(|id| !id.is_empty()).map_or_else(in_key, str::to_owned),
            expires: expiry::parse(string(item, "expires")).flatten(),
            created: string(item, "created").to_owned(),
            hash: TokenHash::from_hex(string(item, "sha256")),
            is_known: false,
            is_listed: true,
            fault: read.err().map(|bad| bad.reason),
            link: None,
            records: vec![key_of(item)],
        }
    }

    /// Whether it works at `now`.
    pub fn is_live(&self, now: DateTime<Utc>) -> bool {
        self.is_known && self.expires.is_none_or(|expires| expires > now)
    }

    fn has_hash(&self, digits: &str) -> bool {
        self.hash.is_some_and(|hash| hash.to_hex().starts_with(digits))
    }
}

/// A token that a newer one replaced.
#[derive(Debug, Clone)]
pub struct ReplacedToken {
    /// Names it.
    pub id: String,
    /// When it expires.
    pub end: DateTime<Utc>,
    /// Whether an activation link would have handed it out, which was deleted.
    pub had_link: bool,
}

/// The turn to change a recipient's tokens.
struct Turn {
    step: Step,
    /// The recipient's name as its record spells it.
    who: String,
    /// Its tokens, the newest first.
    tokens: Vec<FoundToken>,
}

/// The partition of the recipient that a token, an OIDC policy or a grant is of.
pub(super) fn owner(item: &Item) -> Option<String> {
    match records::kind(item) {
        Kind::Token | Kind::Activation | Kind::OidcPolicy => {
            Some(keys::recipient_partition(string(item, "recipient")))
        }
        Kind::ListedToken | Kind::Grant => Some(string(item, keys::PARTITION).to_owned()),
        _ => None,
    }
}

/// The tokens among the records of a recipient, the newest first: those that servers know, whether they are listed or
/// not, and those that are only listed.
pub(super) fn tokens_of(records: &[&Item]) -> Vec<FoundToken> {
    let of_kind = |kind| records.iter().filter(move |item| records::kind(item) == kind);
    let mut tokens: Vec<FoundToken> = of_kind(Kind::Token).map(|item| FoundToken::known(item)).collect();
    let known = tokens.len();
    for item in of_kind(Kind::ListedToken) {
        let listed = FoundToken::listed(item);
        let pair =
            tokens.iter_mut().take(known).find(|token| token.hash.is_some() && token.hash == listed.hash);
        match pair {
            Some(token) => {
                token.is_listed = true;
                token.id = listed.id;
                token.records.extend(listed.records);
            }
            None => tokens.push(listed),
        }
    }
    for item in of_kind(Kind::Activation) {
        let hash = TokenHash::from_hex(string(item, "sha256"));
        if let Some(token) = tokens.iter_mut().find(|token| token.hash.is_some() && token.hash == hash) {
            token.link = Some(UnusedLink::read(item));
        }
    }
    let age = |token: &FoundToken| (expiry::parse(&token.created).flatten(), token.created.clone());
    tokens.sort_by(|a, b| age(b).cmp(&age(a)).then_with(|| a.id.cmp(&b.id)));
    tokens
}

impl Writer {
    /// What a token stands for; `None` if servers do not know it.
    pub async fn token(&self, hash: TokenHash) -> Result<Option<TokenRecord>> {
        let item = self.get(&Key::token(hash)).await?;
        Ok(item.as_ref().map(records::token).transpose()?.map(|token| token.record))
    }

    /// The tokens of a recipient, the newest first: those that servers know, whether they are listed or not, and those
    /// that are only listed.
    pub async fn tokens(&self, recipient: &str) -> Result<Vec<FoundToken>> {
        let partition = keys::recipient_partition(recipient);
        let items = self.items().await?;
        let own: Vec<_> = items.iter().filter(|item| owner(item).as_ref() == Some(&partition)).collect();
        Ok(tokens_of(&own))
    }

    /// Creates another token for a recipient. Refused if it has two live ones.
    pub async fn create_token(&self, recipient: &str, token: &NewToken) -> Result<()> {
        let Turn { step, who, tokens } = self.turn(recipient).await?;
        let now = Utc::now();
        let is_live = token.expires.is_none_or(|expires| expires > now);
        if is_live && tokens.iter().filter(|token| token.is_live(now)).count() >= LIVE_TOKENS {
            return Err(WriteError::Refused(format!(
                "recipient '{recipient}' has {LIVE_TOKENS} live tokens; revoke one first, or rotate"
            )));
        }
        let mut steps = vec![step];
        steps.extend(self.token_steps(&who, token));
        self.transact(steps).await
    }

    /// Replaces a recipient's token: the newest one stays valid for `grace` at most, older ones expire now. The
    /// life of a token is only ever shortened. Of several rotations at the same time, one succeeds. Returns the
    /// tokens that worked until now, the newest first.
    pub async fn rotate_token(
        &self,
        recipient: &str,
        token: &NewToken,
        grace: TimeDelta,
    ) -> Result<Vec<ReplacedToken>> {
        let Turn { step, who, tokens } = self.turn(recipient).await?;
        let mut steps = vec![step];
        let mut ends = Vec::new();
        let now = to_seconds(Utc::now());
        for (age, old) in tokens.iter().filter(|token| token.is_live(now)).enumerate() {
            let end = if age == 0 { now + grace } else { now };
            let end = old.expires.map_or(end, |expires| expires.min(end));
            steps.extend(self.end_steps(recipient, old, Some(end)).await?);
            // Nobody should find an old link and get a token that ends sooner than its profile says.
            steps.extend(old.link.as_ref().map(|link| self.delete_any(&link.key)));
            ends.push(ReplacedToken { id: old.id.clone(), end, had_link: old.link.is_some() });
        }
        steps.extend(self.token_steps(&who, token));
        if steps.len() > LARGEST {
            return Err(WriteError::Refused(format!(
                "recipient '{recipient}' has {} live tokens, which cannot all be replaced at once; revoke some first",
                ends.len()
            )));
        }
        self.transact(steps).await?;
        Ok(ends)
    }

    /// Changes when a token expires, in the records that it has, if nobody changes them at the same time.
    async fn end_steps(
        &self,
        recipient: &str,
        token: &FoundToken,
        end: Option<DateTime<Utc>>,
    ) -> Result<Vec<Step>> {
        let mut steps = Vec::new();
        for key in &token.records {
            let what = format!("recipient '{recipient}'");
            let before = self.get(key).await?.ok_or_else(|| WriteError::Conflict(what.clone()))?;
            let mut after = before.clone();
            set_end(&mut after, end);
            steps.push(self.replace(&before, after, what)?);
        }
        Ok(steps)
    }

    /// Ends a token now: the one with this id, or the one whose hash begins with it if it has eight digits or more.
    pub async fn revoke_token(&self, recipient: &str, id: &str) -> Result<()> {
        let tokens = self.tokens(recipient).await?;
        let mut found: Vec<_> = tokens.iter().filter(|token| token.id == id).collect();
        if found.is_empty() && id.len() >= 8 {
            let digits = id.to_lowercase();
            found = tokens.iter().filter(|token| token.has_hash(&digits)).collect();
        }
        match found.as_slice() {
            [] => Err(WriteError::Missing(MissingRecord::token(recipient, id))),
            [token] => self.remove_token(token).await,
            several => {
                let hashes: Vec<_> = several
                    .iter()
                    .filter_map(|token| token.hash)
                    .map(|hash| hash.short().to_string())
                    .collect();
                Err(WriteError::Refused(format!(
                    "{} tokens of recipient '{recipient}' have the id '{id}'; instead, name one by the first digits \
                     of its hash: {}",
                    several.len(),
                    hashes.join(", ")
                )))
            }
        }
    }

    async fn remove_token(&self, token: &FoundToken) -> Result<()> {
        let records = token.records.iter().chain(token.link.as_ref().map(|link| &link.key));
        self.transact(records.map(|key| self.delete_any(key)).collect()).await
    }

    /// Takes the turn to change a recipient's tokens: the step fails if they were changed since.
    async fn turn(&self, recipient: &str) -> Result<Turn> {
        let key = Key::recipient(recipient);
        let (item, who) = self.recipient_item(recipient).await?;
        let before = revision(&item);
        let next = ("revision", number(before.unwrap_or(0) + 1));
        let unchanged = match before {
            Some(before) => ("revision = :before", Some(number(before))),
            None => ("attribute_exists(pk) AND attribute_not_exists(revision)", None),
        };
        let conflict = WriteError::Conflict(format!("recipient '{recipient}'"));
        let step = self.set_if(&key, next, unchanged, conflict)?;
        Ok(Turn { step, who, tokens: self.tokens(recipient).await? })
    }

    /// Creates the token with this hash.
    pub(super) async fn add_token(&self, recipient: &str, hash: &str, token: &TokenState) -> Result<()> {
        let parsed = TokenHash::from_hex(hash);
        let hash = parsed.ok_or_else(|| WriteError::Refused(format!("{hash} is not a hash")))?;
        let TokenState { id, expires, created } = token.clone();
        self.create_token(recipient, &NewToken { id, hash, expires, created, activation: None }).await
    }

    /// Changes when the token with this hash expires, from `before`.
    pub(super) async fn update_token_expiry(
        &self,
        recipient: &str,
        hash: &str,
        before: Option<DateTime<Utc>>,
        after: Option<DateTime<Utc>>,
    ) -> Result<()> {
        let Turn { step, tokens, .. } = self.turn(recipient).await?;
        let token = found_token(recipient, hash, tokens)?;
        if token.expires != before {
            return Err(WriteError::Conflict(format!("token '{}' of recipient '{recipient}'", token.id)));
        }
        let mut steps = vec![step];
        steps.extend(self.end_steps(recipient, &token, after).await?);
        self.transact(steps).await
    }

    /// Ends the token with this hash now.
    pub(super) async fn delete_token(&self, recipient: &str, hash: &str) -> Result<()> {
        self.remove_token(&found_token(recipient, hash, self.tokens(recipient).await?)?).await
    }

    pub(super) fn token_steps(&self, recipient: &str, token: &NewToken) -> Vec<Step> {
        let now = || Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true);
        let mut item = Item::from([
            ("recipient".to_owned(), text(recipient)),
            ("id".to_owned(), text(&token.id)),
            ("created".to_owned(), text(token.created.clone().unwrap_or_else(now))),
        ]);
        set_end(&mut item, token.expires);
        let attributes = || item.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        let mut listed: Vec<_> = attributes();
        listed.push(("sha256", text(token.hash.to_hex())));
        let mut steps = vec![
            self.put_new(&Key::token(token.hash), attributes(), "the token".to_owned()),
            self.put_new(&Key::token_of(recipient, &token.id), listed, format!("token '{}'", token.id)),
        ];
        let activation = token.activation.as_ref();
        steps.extend(activation.map(|activation| self.activation_step(recipient, token.hash, activation)));
        steps
    }
}

/// Sets when a token expires, and when DynamoDB may delete its record.
fn set_end(item: &mut Item, end: Option<DateTime<Utc>>) {
    item.insert("expires".to_owned(), text(expiry::format(end)));
    match expiry::delete_after(end) {
        Some(seconds) => item.insert(expiry::DELETE_AFTER.to_owned(), AttributeValue::N(seconds.to_string())),
        None => item.remove(expiry::DELETE_AFTER),
    };
}

fn revision(item: &Item) -> Option<u64> {
    item.get("revision")?.as_n().ok()?.parse().ok()
}

fn found_token(recipient: &str, hash: &str, tokens: Vec<FoundToken>) -> Result<FoundToken> {
    let found = tokens.into_iter().find(|token| token.has_hash(hash));
    let short: String = hash.chars().take(8).collect();
    found.ok_or_else(|| WriteError::Missing(MissingRecord::token(recipient, &short)))
}

/// The time without its fraction of a second: what lists and profiles show is then all there is.
pub fn to_seconds(time: DateTime<Utc>) -> DateTime<Utc> {
    DateTime::from_timestamp(time.timestamp(), 0).unwrap_or(time)
}
