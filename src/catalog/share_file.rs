//! The share file: the reference server's configuration in YAML, plus `recipients:`.
//!
//! A file is read whole or refused whole, with the line and the reason. The exception is a table in a storage
//! that this server does not support: it is listed, and requests to read it are refused.
//!
//! Shares, schemas and tables are listed in the order of the file.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use chrono::{DateTime, Utc};
use futures::FutureExt as _;
use futures::future::{BoxFuture, ready};
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_saphyr::{Location, Spanned};
use uuid::Uuid;

use super::expiry;
use super::state::{RecipientState, SchemaState, ShareState, State, TableState, TokenState};
use super::{
    Caller, Catalog, Page, PageRequest, SchemaPage, ShareRecord, TableRecord, TableSettings, TokenHash,
    TokenRecord,
};
use crate::error::{Error, Result};
use crate::location::WrittenLocation;
use crate::protocol::digest::short_digest;
use crate::protocol::names::{InvalidName, Name};
use crate::role::RoleArn;

/// Ids are made of names where the file gives none, so that they stay the same.
const ID_NAMESPACE: Uuid = Uuid::from_u128(0x5f1c_8e0e_6a43_4a7e_9c1d_2f0b_7d6e_31a4);

/// The recipient that `authorization.bearerToken` stands for; it sees every share. No recipient of
/// a file can have this name, because names are not empty.
const EVERYONE: &str = "";

/// The fewest characters of a token that is written in a file. A token of this length that is random cannot be
/// guessed; a word that somebody thought of is shorter.
const LEAST_TOKEN_CHARS: usize = 32;

/// Makes a token.
const TOKEN_COMMAND: &str = "echo dss_$(openssl rand -hex 32)";

/// Why a share file is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareFileError {
    line: Option<u64>,
    reason: String,
}

impl ShareFileError {
    fn at(location: Location, reason: impl Into<String>) -> Self {
        Self { line: Some(location.line()).filter(|&line| line > 0), reason: reason.into() }
    }
}

impl fmt::Display for ShareFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.reason),
            None => f.write_str(&self.reason),
        }
    }
}

impl std::error::Error for ShareFileError {}

/// A table of the file that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadableTable {
    /// The table, as `share.schema.table`.
    pub name: String,
    /// The line of its location.
    pub line: u64,
    /// What stands in the way.
    pub reason: String,
}

impl fmt::Display for UnreadableTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: table {} cannot be read: {}", self.line, self.name, self.reason)
    }
}

/// The file as it is written. Settings of the reference server that have no effect here are listed so that a
/// misspelt key is noticed.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    version: Spanned<u32>,
    #[serde(default)]
    shares: Option<Vec<FileShare>>,
    #[serde(default, deserialize_with = "said")]
    recipients: Said<Vec<FileRecipient>>,
    #[serde(default, deserialize_with = "said")]
    authorization: Said<FileAuthorization>,
    endpoint: Option<String>,
    #[serde(default, deserialize_with = "said")]
    pre_signed_url_timeout_seconds: Said<u64>,
    #[serde(default, deserialize_with = "said")]
    ssl: Said<IgnoredAny>,
    host: Option<IgnoredAny>,
    port: Option<IgnoredAny>,
    temporary_credential_validity_seconds: Option<IgnoredAny>,
    delta_table_cache_size: Option<IgnoredAny>,
    staleness_acceptable: Option<IgnoredAny>,
    evaluate_predicate_hints: Option<IgnoredAny>,
    evaluate_json_predicate_hints: Option<IgnoredAny>,
    evaluate_json_predicate_hints_v2: Option<IgnoredAny>,
    request_timeout_seconds: Option<IgnoredAny>,
    query_table_page_size_limit: Option<IgnoredAny>,
    query_table_page_token_ttl_ms: Option<IgnoredAny>,
    refresh_token_ttl_ms: Option<IgnoredAny>,
}

impl File {
    /// The settings of the reference server that are in the file and have no effect.
    fn without_effect(&self) -> Vec<&'static str> {
        let all = [
            ("host", self.host),
            ("port", self.port),
            ("temporaryCredentialValiditySeconds", self.temporary_credential_validity_seconds),
            ("deltaTableCacheSize", self.delta_table_cache_size),
            ("stalenessAcceptable", self.staleness_acceptable),
            ("evaluatePredicateHints", self.evaluate_predicate_hints),
            ("evaluateJsonPredicateHints", self.evaluate_json_predicate_hints),
            ("evaluateJsonPredicateHintsV2", self.evaluate_json_predicate_hints_v2),
            ("requestTimeoutSeconds", self.request_timeout_seconds),
            ("queryTablePageSizeLimit", self.query_table_page_size_limit),
            ("queryTablePageTokenTtlMs", self.query_table_page_token_ttl_ms),
            ("refreshTokenTtlMs", self.refresh_token_ttl_ms),
        ];
        all.into_iter().filter(|(_, value)| value.is_some()).map(|(key, _)| key).collect()
    }
}

/// A key that decides who may read what. `None` if it is not in the file, a value of `None` if it is there with
/// nothing behind it, as when the lines below it are commented out. The two never mean the same.
type Said<T> = Option<Spanned<Option<T>>>;

fn said<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> std::result::Result<Said<T>, D::Error> {
    Spanned::deserialize(deserializer).map(Some)
}

/// The value of a key that may be left out, but not left empty.
fn not_empty<T>(key: &str, said: Said<T>) -> std::result::Result<Option<Spanned<T>>, ShareFileError> {
    let Some(Spanned { value, referenced, defined }) = said else { return Ok(None) };
    match value {
        Some(value) => Ok(Some(Spanned { value, referenced, defined })),
        None => {
            Err(ShareFileError::at(referenced, format!("{key} has no value: give it one, or remove the key")))
        }
    }
}

/// Who may read without a token of their own.
enum FileAuthorization {
    /// `none`: everyone, without a token.
    None,
    /// Whoever has this token.
    BearerToken(Said<String>),
}

impl<'de> Deserialize<'de> for FileAuthorization {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        struct Keys {
            #[serde(default, deserialize_with = "said")]
            bearer_token: Said<String>,
        }

        struct Form;

        impl<'de> Visitor<'de> for Form {
            type Value = FileAuthorization;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the key bearerToken, or the word none")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> std::result::Result<Self::Value, E> {
                match text {
                    "none" => Ok(FileAuthorization::None),
                    // It may be a token, so it is not repeated.
                    _ => Err(E::custom("authorization must have the key bearerToken, or be the word none")),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> std::result::Result<Self::Value, A::Error> {
                let keys = Keys::deserialize(MapAccessDeserializer::new(map))?;
                Ok(FileAuthorization::BearerToken(keys.bearer_token))
            }
        }

        deserializer.deserialize_any(Form)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FileShare {
    name: Spanned<String>,
    id: Option<Spanned<String>>,
    comment: Option<String>,
    #[serde(default)]
    schemas: Option<Vec<FileSchema>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FileSchema {
    name: Spanned<String>,
    #[serde(default)]
    tables: Option<Vec<FileTable>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FileTable {
    name: Spanned<String>,
    location: Spanned<String>,
    id: Option<Spanned<String>>,
    #[serde(default)]
    history_shared: bool,
    #[serde(default, deserialize_with = "said")]
    start_version: Said<i64>,
    #[serde(default)]
    allowed_locations: Option<Vec<Spanned<String>>>,
    directory_access: Option<Spanned<bool>>,
    #[serde(default, deserialize_with = "said")]
    signer_role: Said<String>,
    /// What `historyShared` was called in older versions of the reference server.
    #[serde(rename = "cdfEnabled")]
    cdf_enabled: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FileRecipient {
    name: Spanned<String>,
    comment: Option<String>,
    #[serde(default, deserialize_with = "said")]
    status: Said<String>,
    #[serde(default)]
    shares: Option<Vec<Spanned<String>>>,
    #[serde(default)]
    tokens: Option<Vec<FileToken>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FileToken {
    sha256: Spanned<String>,
    expires: Spanned<String>,
    id: Option<Spanned<String>>,
    created: Option<String>,
}

/// Whether a share file asks for tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Only who has a token that the file knows may read.
    Tokens,
    /// The file says `authorization: none`: everyone may read every share.
    Everyone,
    /// The file has neither `recipients` nor `authorization`. At the reference server that means everyone; it is
    /// also what is left of a file that was cut off, so not everyone who serves a file wants to take it that way.
    Unsaid,
}

/// A share file that was read and found good.
#[derive(Debug)]
pub struct ShareFile {
    shares: Ordered<Share>,
    tokens: HashMap<TokenHash, TokenRecord>,
    /// When tokens were made, where the file says so.
    created: HashMap<TokenHash, String>,
    /// Keys of the shares granted to each recipient.
    grants: HashMap<Arc<str>, BTreeSet<String>>,
    /// What else the file says about recipients.
    notes: HashMap<Arc<str>, RecipientNotes>,
    access: Access,
    /// The prefix of all paths, where the file sets `endpoint`.
    pub endpoint: Option<String>,
    /// The life of a presigned URL, where the file sets `preSignedUrlTimeoutSeconds`.
    pub url_ttl_seconds: Option<u64>,
    /// Keys of the file that mean something to the reference server and have no effect here.
    pub without_effect: Vec<&'static str>,
    /// The tables that cannot be read.
    pub unreadable: Vec<UnreadableTable>,
}

/// What a file says about a recipient beside its shares and tokens. What it leaves out is `None`.
#[derive(Debug, Default)]
struct RecipientNotes {
    active: Option<bool>,
    comment: Option<String>,
}

#[derive(Debug)]
struct Share {
    record: ShareRecord,
    /// Whether the id is the file's own; otherwise it was made of the name.
    has_own_id: bool,
    comment: Option<String>,
    schemas: Ordered<Name>,
    /// By the keys of schema and table, as [`table_key`] joins them.
    tables: Ordered<TableRecord>,
    /// The keys of the tables whose ids are the file's own.
    tables_with_ids: HashSet<String>,
}

impl Share {
    /// What the file says, and of what it leaves out, what is there.
    fn state(&self, now: Option<&ShareState>) -> ShareState {
        let mut schemas: BTreeMap<_, _> = self
            .schemas
            .iter()
            .map(|(key, name)| {
                (key.to_owned(), SchemaState { name: name.as_str().to_owned(), tables: BTreeMap::new() })
            })
            .collect();
        for (key, table) in self.tables.iter() {
            let mut state = TableState::from(table);
            let before =
                now.and_then(|now| now.schemas.get(table.schema.key())?.tables.get(table.name.key()));
            if let Some(before) = before.filter(|_| !self.tables_with_ids.contains(key)) {
                state.id.clone_from(&before.id);
            }
            let schema: &mut SchemaState = schemas.entry(table.schema.key().to_owned()).or_default();
            schema.tables.insert(table.name.key().to_owned(), state);
        }
        let kept_id = now.filter(|_| !self.has_own_id).map(|now| now.id.clone());
        ShareState {
            name: self.record.name.as_str().to_owned(),
            id: kept_id.unwrap_or_else(|| self.record.id.clone()),
            comment: comment_over(self.comment.clone(), now.and_then(|now| now.comment.as_ref())),
            schemas,
        }
    }
}

/// A comment that the file gives or leaves out, over the one that is there. An empty one takes it away.
fn comment_over(said: Option<String>, before: Option<&String>) -> Option<String> {
    said.or_else(|| before.cloned()).filter(|comment| !comment.is_empty())
}

/// Things by their keys, in the order of the file.
#[derive(Debug)]
struct Ordered<T> {
    items: Vec<(String, T)>,
    places: HashMap<String, usize>,
}

impl<T> Ordered<T> {
    fn new() -> Self {
        Self { items: Vec::new(), places: HashMap::new() }
    }

    /// Adds a thing at the end; false if there is one with its key.
    fn add(&mut self, key: String, item: T) -> bool {
        let new = self.places.insert(key.clone(), self.items.len()).is_none();
        self.items.push((key, item));
        new
    }

    fn get(&self, key: &str) -> Option<&T> {
        self.places.get(key).and_then(|place| self.items.get(*place)).map(|(_, item)| item)
    }

    fn iter(&self) -> impl Iterator<Item = (&str, &T)> {
        self.items.iter().map(|(key, item)| (key.as_str(), item))
    }
}

/// The key of a table in its share. Names have no slash.
fn table_key(schema: &str, table: &str) -> String {
    format!("{schema}/{table}")
}

impl ShareFile {
    /// Reads a share file. Locations that are relative paths start at `base`; without it, directories of this machine
    /// are not supported.
    pub fn parse(text: &str, base: Option<&Path>) -> std::result::Result<Self, ShareFileError> {
        let file: File = serde_saphyr::from_str(text).map_err(|error| {
            let error = error.without_snippet();
            let line = error.location().map(|at| at.line()).filter(|&line| line > 0);
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default();
            // The line is said already.
            let reason = first.rsplit_once(" at line ").map_or(first, |(reason, _)| reason);
            // Advice for who writes the type, not for who writes the file.
            let reason = reason.split_once("; use Option").map_or(reason, |(reason, _)| reason).to_owned();
            ShareFileError { line, reason }
        })?;
        if file.version.value != 1 {
            return Err(ShareFileError::at(file.version.referenced, "version must be 1"));
        }
        let without_effect = file.without_effect();
        if let Some(ssl) = &file.ssl {
            return Err(ShareFileError::at(
                ssl.referenced,
                "ssl has no effect: this server speaks plain HTTP. Remove the key, and put a proxy or load balancer \
                 that ends TLS in front of the server",
            ));
        }
        let access = access(&file)?;
        let mut this = Self {
            without_effect,
            unreadable: Vec::new(),
            shares: Ordered::new(),
            tokens: HashMap::new(),
            created: HashMap::new(),
            grants: HashMap::new(),
            notes: HashMap::new(),
            access,
            endpoint: file.endpoint,
            url_ttl_seconds: not_empty("preSignedUrlTimeoutSeconds", file.pre_signed_url_timeout_seconds)?
                .map(|seconds| seconds.value),
        };
        for share in file.shares.unwrap_or_default() {
            this.add_share(share, base)?;
        }
        if let Some(Spanned { value: Some(authorization), referenced, .. }) = file.authorization
            && let FileAuthorization::BearerToken(token) = authorization
        {
            let token = not_empty("bearerToken", token)?.ok_or_else(|| {
                ShareFileError::at(
                    referenced,
                    "authorization must have the key bearerToken, or be the word none",
                )
            })?;
            if token.value.chars().count() < LEAST_TOKEN_CHARS {
                return Err(ShareFileError::at(
                    token.referenced,
                    format!(
                        "bearerToken has fewer than {LEAST_TOKEN_CHARS} characters, so it can be guessed. Make one \
                         with: {TOKEN_COMMAND}"
                    ),
                ));
            }
            let hash = TokenHash::of(&token.value);
            let record = TokenRecord { recipient: EVERYONE.into(), id: hash.short(), expires: None };
            this.tokens.insert(hash, record);
        }
        for recipient in file.recipients.and_then(|recipients| recipients.value).unwrap_or_default() {
            this.add_recipient(recipient)?;
        }
        if this.is_open() || this.tokens.values().any(|token| &*token.recipient == EVERYONE) {
            let all = this.shares.iter().map(|(key, _)| key.to_owned()).collect();
            this.grants.insert(EVERYONE.into(), all);
        }
        Ok(this)
    }

    fn add_share(
        &mut self,
        share: FileShare,
        base: Option<&Path>,
    ) -> std::result::Result<(), ShareFileError> {
        let name = checked(&share.name, Name::share)?;
        let own_id = share.id.map(|id| id.value).filter(|id| !id.is_empty());
        let has_own_id = own_id.is_some();
        let id = own_id.unwrap_or_else(|| id_of(&[name.key()]));
        let mut added = Share {
            record: ShareRecord { name: name.clone(), id: id.clone() },
            has_own_id,
            comment: share.comment,
            schemas: Ordered::new(),
            tables: Ordered::new(),
            tables_with_ids: HashSet::new(),
        };
        for schema in share.schemas.unwrap_or_default() {
            let schema_name = checked(&schema.name, Name::schema_or_table)?;
            for table in schema.tables.unwrap_or_default() {
                let (record, unreadable) = table_record(&name, &id, &schema_name, &table, base)?;
                self.unreadable.extend(unreadable);
                let key = table_key(schema_name.key(), record.name.key());
                if table.id.as_ref().is_some_and(|id| !id.value.is_empty()) {
                    added.tables_with_ids.insert(key.clone());
                }
                if !added.tables.add(key, record) {
                    return Err(twice(&table.name, "table"));
                }
            }
            if !added.schemas.add(schema_name.key().to_owned(), schema_name) {
                return Err(twice(&schema.name, "schema"));
            }
        }
        if !self.shares.add(name.key().to_owned(), added) {
            return Err(twice(&share.name, "share"));
        }
        Ok(())
    }

    fn add_recipient(&mut self, recipient: FileRecipient) -> std::result::Result<(), ShareFileError> {
        let name = checked(&recipient.name, Name::share)?;
        let who: Arc<str> = name.as_str().into();
        let mut granted = BTreeSet::new();
        for share in recipient.shares.unwrap_or_default() {
            let key = Name::key_of(&share.value);
            if self.shares.get(&key).is_none() {
                let reason = format!(
                    "recipient '{name}' is granted '{}', which is not a share of this file",
                    share.value
                );
                return Err(ShareFileError::at(share.referenced, reason));
            }
            granted.insert(key);
        }
        let known = self.grants.keys().any(|other| Name::key_of(other) == name.key());
        if known {
            return Err(twice(&recipient.name, "recipient"));
        }
        self.grants.insert(Arc::clone(&who), granted);
        let active = not_empty("status", recipient.status)?.map(|status| match status.value.as_str() {
            "active" => Ok(true),
            "disabled" => Ok(false),
            _ => Err(ShareFileError::at(status.referenced, "status must be active or disabled")),
        });
        let notes = RecipientNotes { active: active.transpose()?, comment: recipient.comment };
        self.notes.insert(Arc::clone(&who), notes);
        let mut ids = BTreeSet::new();
        for token in recipient.tokens.unwrap_or_default() {
            let hash = TokenHash::from_hex(&token.sha256.value).ok_or_else(|| {
                ShareFileError::at(
                    token.sha256.referenced,
                    "sha256 must be the 64 hexadecimal digits of a token's SHA-256",
                )
            })?;
            if hash == TokenHash::of("") {
                return Err(ShareFileError::at(
                    token.sha256.referenced,
                    "this is the SHA-256 of an empty text, not of a token",
                ));
            }
            let expires = read_expiry(&token.expires)?;
            let own_id = token.id.filter(|id| !id.value.is_empty());
            let id: Arc<str> = own_id.as_ref().map_or_else(|| hash.short(), |id| id.value.as_str().into());
            if !ids.insert(Name::key_of(&id)) {
                let reason = format!("two tokens of recipient '{name}' have the id '{id}'");
                return Err(ShareFileError::at(token.sha256.referenced, reason));
            }
            self.created.extend(token.created.map(|created| (hash, created)));
            if self.tokens.insert(hash, TokenRecord { recipient: Arc::clone(&who), id, expires }).is_some() {
                return Err(ShareFileError::at(token.sha256.referenced, "this token is in the file twice"));
            }
        }
        Ok(())
    }

    /// Adds a recipient that is not in the file, with one token; it sees every share.
    pub fn add_guest(&mut self, name: &str, token: &str, expires: DateTime<Utc>) {
        let who: Arc<str> = name.into();
        self.grants.insert(Arc::clone(&who), self.shares.iter().map(|(key, _)| key.to_owned()).collect());
        let hash = TokenHash::of(token);
        self.tokens.insert(hash, TokenRecord { recipient: who, id: hash.short(), expires: Some(expires) });
    }

    /// Whether the file asks for tokens.
    pub fn access(&self) -> Access {
        self.access
    }

    /// Whether the file asks for no token at all, so that anyone may read every share.
    pub fn is_open(&self) -> bool {
        self.access != Access::Tokens
    }

    /// Whether there is any token, also one that has expired.
    pub fn has_tokens(&self) -> bool {
        !self.tokens.is_empty()
    }

    /// Whether the tokens of a recipient are taken.
    fn is_active(&self, recipient: &str) -> bool {
        self.notes.get(recipient).and_then(|notes| notes.active) != Some(false)
    }

    /// Everything in the file, to be compared with another catalog. What the file leaves out is as it is in `now`: the
    /// ids of shares and tables, which recipients' checkpoints hold, comments, and whether a recipient is disabled. The id
    /// of a token, and when it was made, never change.
    pub fn state(&self, now: &State) -> State {
        let mut state = State::default();
        for (key, share) in self.shares.iter() {
            state.shares.insert(key.to_owned(), share.state(now.shares.get(key)));
        }
        for (name, shares) in &self.grants {
            let key = Name::key_of(name);
            let before = now.recipients.get(&key);
            let notes = self.notes.get(name);
            let comment = notes.and_then(|notes| notes.comment.clone());
            let active = notes.and_then(|notes| notes.active);
            let tokens = self.tokens.iter().filter(|(_, token)| token.recipient == *name);
            let recipient = RecipientState {
                name: name.to_string(),
                active: active.or(before.map(|before| before.active)).unwrap_or(true),
                comment: comment_over(comment, before.and_then(|before| before.comment.as_ref())),
                shares: shares.clone(),
                tokens: tokens
                    .map(|(hash, token)| {
                        let hex = hash.to_hex();
                        let before = before.and_then(|before| before.tokens.get(&hex));
                        (hex, self.token_state(*hash, token, before))
                    })
                    .collect(),
            };
            state.recipients.insert(key, recipient);
        }
        state
    }

    fn token_state(&self, hash: TokenHash, token: &TokenRecord, before: Option<&TokenState>) -> TokenState {
        let expires = token.expires;
        match before {
            Some(before) => TokenState { expires, ..before.clone() },
            None => {
                TokenState { id: token.id.to_string(), expires, created: self.created.get(&hash).cloned() }
            }
        }
    }

    /// Every table of the file, in its order.
    pub fn tables(&self) -> impl Iterator<Item = &TableRecord> {
        self.shares.iter().flat_map(|(_, share)| share.tables.iter().map(|(_, table)| table))
    }

    fn granted(&self, recipient: &str, share: &str) -> Option<&Share> {
        let key = Name::key_of(share);
        self.grants
            .get(recipient)
            .filter(|granted| granted.contains(&key))
            .and_then(|_| self.shares.get(&key))
    }
}

/// Whether a file asks for tokens. An empty key counts as said: then nobody has a token.
fn access(file: &File) -> std::result::Result<Access, ShareFileError> {
    let Some(authorization) = &file.authorization else {
        return Ok(if file.recipients.is_some() { Access::Tokens } else { Access::Unsaid });
    };
    match (&authorization.value, &file.recipients) {
        (Some(FileAuthorization::None), None) => Ok(Access::Everyone),
        (Some(FileAuthorization::None), Some(_)) => Err(ShareFileError::at(
            authorization.referenced,
            "authorization: none lets everyone read every share, whatever recipients says. Remove one of the two",
        )),
        (Some(FileAuthorization::BearerToken(_)) | None, _) => Ok(Access::Tokens),
    }
}

fn checked(
    name: &Spanned<String>,
    check: fn(&str) -> std::result::Result<Name, InvalidName>,
) -> std::result::Result<Name, ShareFileError> {
    check(&name.value).map_err(|error| ShareFileError::at(name.referenced, error.to_string()))
}

fn twice(name: &Spanned<String>, what: &str) -> ShareFileError {
    ShareFileError::at(
        name.referenced,
        format!("the {what} '{}' is there twice; case does not count", name.value),
    )
}

fn id_of(names: &[&str]) -> String {
    Uuid::new_v5(&ID_NAMESPACE, names.join("/").as_bytes()).to_string()
}

fn read_expiry(text: &Spanned<String>) -> std::result::Result<Option<DateTime<Utc>>, ShareFileError> {
    expiry::parse(&text.value)
        .ok_or_else(|| ShareFileError::at(text.referenced, format!("expires must be {}", expiry::FORMS)))
}

fn table_record(
    share: &Name,
    share_id: &str,
    schema: &Name,
    table: &FileTable,
    base: Option<&Path>,
) -> std::result::Result<(TableRecord, Option<UnreadableTable>), ShareFileError> {
    let name = checked(&table.name, Name::schema_or_table)?;
    let mut unreadable = None;
    let mut read = |location: &Spanned<String>| {
        let written = WrittenLocation::parse(&location.value, base).absolute();
        match written.error() {
            None => {}
            Some(reason) if reason.is_unsupported() => {
                let (name, line) = (format!("{share}.{schema}.{name}"), location.referenced.line());
                unreadable.get_or_insert(UnreadableTable { name, line, reason: reason.to_string() });
            }
            Some(reason) => {
                let reason = format!("location of table '{name}': {reason}");
                return Err(ShareFileError::at(location.referenced, reason));
            }
        }
        Ok(written)
    };
    let location = read(&table.location)?;
    let allowed_locations = table.allowed_locations.iter().flatten().map(read).collect::<Result<_, _>>()?;
    let id = table.id.as_ref().map(|id| id.value.clone()).filter(|id| !id.is_empty());
    let start_version = not_empty("startVersion", table.start_version.clone())?.map_or(Ok(0), |start| {
        u64::try_from(start.value).map_err(|_| {
            ShareFileError::at(start.referenced, format!("startVersion of table '{name}' is negative"))
        })
    })?;
    let signer_role = not_empty("signerRole", table.signer_role.clone())?.map(|role| {
        RoleArn::parse(&role.value).ok_or_else(|| {
            ShareFileError::at(
                role.referenced,
                format!("signerRole of table '{name}' is not the ARN of a role"),
            )
        })
    });
    let signer_role = signer_role.transpose()?;
    let directory_access = table.directory_access.as_ref().is_some_and(|access| access.value);
    let settings = TableSettings {
        location,
        allowed_locations,
        history_shared: table.history_shared || table.cdf_enabled == Some(true),
        start_version,
        // What this server does not read, it gives no credentials for.
        directory_access: directory_access && unreadable.is_none(),
        signer_role,
    };
    if let (Some(access), Some(reason)) = (&table.directory_access, settings.refuses_directory_access())
        && settings.directory_access
    {
        return Err(ShareFileError::at(
            access.referenced,
            format!("directoryAccess of table '{name}': {reason}"),
        ));
    }
    let record = TableRecord {
        share: share.clone(),
        share_id: share_id.to_owned(),
        schema: schema.clone(),
        id: id.unwrap_or_else(|| id_of(&[share.key(), schema.key(), name.key()])),
        settings,
        locations_checked: true,
        name,
    };
    Ok((record, unreadable))
}

/// A [`Catalog`] over a share file that can be replaced while requests are served.
#[derive(Debug)]
pub struct ShareFileCatalog(RwLock<Arc<ShareFile>>);

impl ShareFileCatalog {
    /// A catalog that answers from `file`.
    pub fn new(file: ShareFile) -> Self {
        Self(RwLock::new(Arc::new(file)))
    }

    /// Answers from `file` from now on. Requests that have begun finish with the one before.
    pub fn replace(&self, file: ShareFile) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(file);
    }

    /// Whether anyone may read every share without a token.
    pub fn is_open(&self) -> bool {
        self.file().is_open()
    }

    fn file(&self) -> Arc<ShareFile> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Where a page of a listing ended.
///
/// The file may be edited before the next page is requested. The next page starts after the last item of the
/// previous page. If that item was removed, it starts with the item that followed; if both were removed, at the
/// same position in the list, less the last item. So removing items neither skips nor repeats other items,
/// unless both neighbours of the cut and earlier items are removed together. An item that is moved across the
/// cut is listed twice or not at all.
#[derive(Debug, PartialEq, Eq)]
struct Cut {
    /// How many items the pages before have.
    listed: usize,
    /// The digest of the last item's key; 0 if there is none.
    last: u64,
    /// The digest of the key of the item that follows.
    next: u64,
}

impl Cut {
    fn at(keys: &[&str], listed: usize) -> Self {
        let digest = |place: Option<usize>| {
            place.and_then(|place| keys.get(place)).map_or(0, |key| short_digest(key.as_bytes()))
        };
        Self { listed, last: digest(listed.checked_sub(1)), next: digest(Some(listed)) }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let listed = parts.next()?.parse().ok()?;
        let mut digest = || u64::from_str_radix(parts.next()?, 16).ok();
        let (last, next) = (digest()?, digest()?);
        parts.next().is_none().then_some(Self { listed, last, next })
    }

    /// The place among `keys` where the next page begins.
    fn find(&self, keys: &[&str]) -> usize {
        if self.listed == 0 {
            return 0;
        }
        let digests: Vec<u64> = keys.iter().map(|key| short_digest(key.as_bytes())).collect();
        let place = |digest: u64| digests.iter().position(|other| *other == digest);
        let after_last = place(self.last).map(|last| last + 1);
        after_last.or_else(|| place(self.next)).unwrap_or((self.listed - 1).min(keys.len()))
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:x}.{:x}", self.listed, self.last, self.next)
    }
}

/// The page that is asked for of a listing, whose items come with their keys.
fn page<'a, V: 'a, T>(
    items: impl Iterator<Item = (&'a str, &'a V)>,
    request: &PageRequest,
    item: impl Fn(&V) -> T,
) -> Result<Page<T>> {
    let (keys, items): (Vec<&str>, Vec<&V>) = items.unzip();
    let start = match &request.after {
        None => 0,
        Some(after) => {
            Cut::parse(after).ok_or_else(|| Error::invalid("invalid 'nextPageToken'"))?.find(&keys)
        }
    };
    let end = request.limit.map_or(items.len(), |limit| items.len().min(start.saturating_add(limit)));
    let taken = items.get(start..end).unwrap_or_default().iter().map(|value| item(value)).collect();
    let more_after = (end < items.len()).then(|| Cut::at(&keys, end).to_string());
    Ok(Page { items: taken, more_after })
}

impl Catalog for ShareFileCatalog {
    fn caller(&self, hash: TokenHash) -> BoxFuture<'_, Result<Option<Caller>>> {
        let file = self.file();
        let token = file.tokens.get(&hash).filter(|token| file.is_active(&token.recipient));
        ready(Ok(token.cloned().map(Caller::checked))).boxed()
    }

    fn anonymous(&self) -> BoxFuture<'_, Result<Option<Caller>>> {
        let everyone = || TokenRecord { recipient: EVERYONE.into(), id: "none".into(), expires: None };
        ready(Ok(self.file().is_open().then(|| Caller::checked(everyone())))).boxed()
    }

    fn shares<'a>(
        &'a self,
        caller: &'a Caller,
        request: PageRequest,
    ) -> BoxFuture<'a, Result<Page<ShareRecord>>> {
        let file = self.file();
        let empty = BTreeSet::new();
        let granted = file.grants.get(caller.recipient()).unwrap_or(&empty);
        let items = file.shares.iter().filter(|(key, _)| granted.contains(*key));
        ready(page(items, &request, |share| share.record.clone())).boxed()
    }

    fn share<'a>(&'a self, caller: &'a Caller, share: &'a str) -> BoxFuture<'a, Result<Option<ShareRecord>>> {
        ready(Ok(self.file().granted(caller.recipient(), share).map(|share| share.record.clone()))).boxed()
    }

    fn schemas<'a>(
        &'a self,
        caller: &'a Caller,
        share: &'a str,
        request: PageRequest,
    ) -> BoxFuture<'a, Result<Option<SchemaPage>>> {
        let file = self.file();
        let found = file.granted(caller.recipient(), share).map(|share| {
            let schemas = page(share.schemas.iter(), &request, Name::clone)?;
            Ok(SchemaPage { share: share.record.clone(), schemas })
        });
        ready(found.transpose()).boxed()
    }

    fn tables<'a>(
        &'a self,
        caller: &'a Caller,
        share: &'a str,
        schema: Option<&'a str>,
        request: PageRequest,
    ) -> BoxFuture<'a, Result<Option<Page<TableRecord>>>> {
        let file = self.file();
        let schema = schema.map(Name::key_of);
        let found = file
            .granted(caller.recipient(), share)
            .filter(|share| schema.as_ref().is_none_or(|schema| share.schemas.get(schema).is_some()))
            .map(|share| {
                let of = |table: &TableRecord| schema.as_deref().is_none_or(|key| table.schema.key() == key);
                page(share.tables.iter().filter(|(_, table)| of(table)), &request, TableRecord::clone)
            });
        ready(found.transpose()).boxed()
    }

    fn table<'a>(
        &'a self,
        caller: &'a Caller,
        share: &'a str,
        schema: &'a str,
        table: &'a str,
    ) -> BoxFuture<'a, Result<Option<TableRecord>>> {
        let key = table_key(&Name::key_of(schema), &Name::key_of(table));
        ready(Ok(self
            .file()
            .granted(caller.recipient(), share)
            .and_then(|share| share.tables.get(&key).cloned())))
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(recipient: &str) -> Caller {
        Caller::checked(TokenRecord { recipient: recipient.into(), id: "1".into(), expires: None })
    }

    const FILE: &str = r#"
version: 1
host: "localhost"
port: 8080
refreshTokenTtlMs:
queryTablePageSizeLimit: 10
endpoint: /delta-sharing
preSignedUrlTimeoutSeconds: 900
shares:
- name: Retail
  schemas:
  - name: Sales
    tables:
    - name: Orders
      location: s3a://bucket/orders
      id: 00000000-0000-0000-0000-000000000001
      historyShared: true
      startVersion: 2
    - {name: customers, location: customers}
  - name: empty
- name: HR
  schemas:
  - name: people
    tables:
    - {name: staff, location: /staff}
recipients:
- name: acme
  shares: [RETAIL]
  tokens:
  - {sha256: "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b", expires: 2999-01-01T00:00:00Z}
- {name: nobody, shares: []}
authorization:
  bearerToken: everything-and-more-than-32-characters
"#;

    fn parse(text: &str) -> std::result::Result<ShareFile, ShareFileError> {
        ShareFile::parse(text, None)
    }

    fn catalog() -> ShareFileCatalog {
        ShareFileCatalog::new(parse(FILE).unwrap())
    }

    #[tokio::test]
    async fn a_recipient_sees_what_is_granted_and_nothing_else() {
        let catalog = catalog();
        let token = catalog.caller(TokenHash::of("secret")).await.unwrap().unwrap();
        assert_eq!(token.recipient(), "acme");
        let shares = catalog.shares(&by("acme"), PageRequest::default()).await.unwrap();
        assert_eq!(shares.items.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["Retail"]);
        assert!(catalog.share(&by("acme"), "retail").await.unwrap().is_some());
        for (recipient, share) in [("acme", "hr"), ("acme", "missing"), ("nobody", "retail"), ("x", "retail")]
        {
            assert!(catalog.share(&by(recipient), share).await.unwrap().is_none());
            assert!(catalog.schemas(&by(recipient), share, PageRequest::default()).await.unwrap().is_none());
            assert!(
                catalog.tables(&by(recipient), share, None, PageRequest::default()).await.unwrap().is_none()
            );
            assert!(catalog.table(&by(recipient), share, "people", "staff").await.unwrap().is_none());
        }
        let orders = catalog.table(&by("acme"), "RETAIL", "SALES", "ORDERS").await.unwrap().unwrap();
        assert_eq!(
            (orders.name.as_str(), orders.settings.history_shared, orders.settings.start_version),
            ("Orders", true, 2)
        );
        assert_eq!(orders.id, "00000000-0000-0000-0000-000000000001");
    }

    #[tokio::test]
    async fn the_reference_servers_token_sees_every_share() {
        let catalog = catalog();
        let token =
            catalog.caller(TokenHash::of("everything-and-more-than-32-characters")).await.unwrap().unwrap();
        let shares = catalog.shares(&token, PageRequest::default()).await.unwrap();
        assert_eq!(shares.items.len(), 2);
        assert!(catalog.anonymous().await.unwrap().is_none());
        assert!(catalog.caller(TokenHash::of("")).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn pages_cover_everything_once() {
        let catalog = catalog();
        for limit in 1..4 {
            let mut request = PageRequest { after: None, limit: Some(limit) };
            let mut names = Vec::new();
            loop {
                let page =
                    catalog.tables(&by("acme"), "retail", None, request.clone()).await.unwrap().unwrap();
                assert!(page.items.len() <= limit);
                names.extend(page.items.into_iter().map(|table| table.name.as_str().to_owned()));
                match page.more_after {
                    Some(key) => request.after = Some(key),
                    None => break,
                }
            }
            assert_eq!(names, ["Orders", "customers"]);
        }
        let none = PageRequest { after: None, limit: Some(0) };
        let page = catalog.shares(&by(""), none.clone()).await.unwrap();
        assert!(page.items.is_empty());
        let rest = PageRequest { after: page.more_after, limit: None };
        assert_eq!(catalog.shares(&by(""), rest).await.unwrap().items.len(), 2);
        let page = catalog.tables(&by("acme"), "retail", Some("empty"), none).await.unwrap().unwrap();
        assert!(page.items.is_empty() && page.more_after.is_none());
    }

    /// A file whose share `s` has these tables in schema `c`.
    fn file_of(tables: &[&str]) -> ShareFile {
        let tables: Vec<String> =
            tables.iter().map(|name| format!("    - {{name: {name}, location: x}}\n")).collect();
        let tables = tables.concat();
        parse(&format!("version: 1\nshares:\n- name: s\n  schemas:\n  - name: c\n    tables:\n{tables}"))
            .unwrap()
    }

    #[tokio::test]
    async fn pages_go_on_where_they_ended_when_the_file_is_edited() {
        for (before, limit, after, expected) in [
            (&["d", "a", "c", "b"][..], 2, &["d", "a", "c", "b"][..], &["c", "b"][..]),
            // Removed: an item before, the last one, the next one, these two, all that were listed.
            (&["d", "a", "c", "b"], 2, &["a", "c", "b"], &["c", "b"]),
            (&["d", "a", "c", "b"], 2, &["d", "c", "b"], &["c", "b"]),
            (&["d", "a", "c", "b"], 2, &["d", "a", "b"], &["b"]),
            (&["d", "a", "c", "b"], 1, &["a", "c", "b"], &["a", "c", "b"]),
            (&["d", "a", "c", "b"], 2, &["c", "b"], &["c", "b"]),
            (&["d", "a", "c", "b", "e"], 2, &["d", "b", "e"], &["b", "e"]),
            // Added before the cut, and after it.
            (&["d", "a", "c", "b"], 2, &["x", "d", "a", "y", "c", "b"], &["y", "c", "b"]),
            // Nothing is left.
            (&["d", "a", "c"], 2, &["d"], &[]),
        ] {
            let catalog = ShareFileCatalog::new(file_of(before));
            let list = async |request| catalog.tables(&by(""), "s", None, request).await.unwrap().unwrap();
            let first = list(PageRequest { after: None, limit: Some(limit) }).await;
            assert_eq!(first.items.len(), limit);
            let cut = first.more_after;
            catalog.replace(file_of(after));
            let rest = list(PageRequest { after: cut, limit: None }).await;
            let names: Vec<_> = rest.items.iter().map(|table| table.name.as_str()).collect();
            assert_eq!(names, expected, "{before:?} after {limit}, then {after:?}");
        }
        let catalog = ShareFileCatalog::new(file_of(&["a"]));
        for bad in ["", "a", "1", "1.2", "1.2.3.4", "-1.2.3", "1.x.3", "c/a"] {
            let request = PageRequest { after: Some(bad.to_owned()), limit: None };
            let error = catalog.tables(&by(""), "s", None, request).await.unwrap_err();
            assert_eq!(error.message(), "invalid 'nextPageToken'", "{bad}");
        }
    }

    #[tokio::test]
    async fn a_table_that_is_not_supported_is_listed_and_the_others_stay() {
        let file = "version: 1
shares:
- name: s
  schemas:
  - name: c
    tables:
    - name: azure
      location: wasbs://c@a.blob.core.windows.net/t
      historyShared: true
      directoryAccess: true
    - {name: fine, location: s3://lake/x}
    - {name: clone, location: s3://lake/x, allowedLocations: [s3://lake/y, wasbs://c/z]}
";
        let file = parse(file).unwrap();
        let unreadable: Vec<_> = file.unreadable.iter().map(ToString::to_string).collect();
        let reason = "the scheme wasbs:// is not supported; use s3://, s3a://, file:// or a directory";
        assert_eq!(
            unreadable,
            [
                format!("line 8: table s.c.azure cannot be read: {reason}"),
                format!("line 12: table s.c.clone cannot be read: {reason}"),
            ]
        );
        let catalog = ShareFileCatalog::new(file);
        let tables = catalog.tables(&by(""), "s", None, PageRequest::default()).await.unwrap().unwrap();
        let listed: Vec<_> =
            tables.items.iter().map(|table| (table.name.as_str(), table.settings.directory())).collect();
        assert_eq!(listed, [("azure", None), ("fine", None), ("clone", None)]);
    }

    #[test]
    fn ids_are_uuids_that_stay() {
        let ids =
            |text: &str| parse(text).unwrap().tables().map(|table| table.id.clone()).collect::<Vec<_>>();
        assert_eq!(ids(FILE), ids(FILE));
        assert!(ids(FILE).iter().all(|id| Uuid::parse_str(id).is_ok()));
    }

    #[test]
    fn settings_of_the_reference_server() {
        let file = parse(FILE).unwrap();
        assert_eq!((file.endpoint.as_deref(), file.url_ttl_seconds), (Some("/delta-sharing"), Some(900)));
        assert_eq!(file.without_effect, ["host", "port", "queryTablePageSizeLimit"]);
        assert!(parse("version: 1\nrefreshTokenTtlMs:\n").unwrap().without_effect.is_empty());
        let every = "version: 1
temporaryCredentialValiditySeconds: 1
deltaTableCacheSize: 1
stalenessAcceptable: false
evaluatePredicateHints: true
evaluateJsonPredicateHints: true
evaluateJsonPredicateHintsV2: true
requestTimeoutSeconds: 1
queryTablePageTokenTtlMs: 1
refreshTokenTtlMs: 1
";
        assert_eq!(parse(every).unwrap().without_effect.len(), 9);
    }

    #[tokio::test]
    async fn a_file_is_open_only_if_it_says_so_or_says_nothing() {
        for (text, access) in [
            ("", Access::Unsaid),
            ("authorization: none\n", Access::Everyone),
            ("authorization: 'none'\n", Access::Everyone),
            ("recipients: []\n", Access::Tokens),
            ("recipients:\n", Access::Tokens),
            ("recipients: ~\n", Access::Tokens),
            ("recipients:\n# - name: acme\n#   shares: [s]\n", Access::Tokens),
            ("authorization:\n", Access::Tokens),
            ("authorization: null\n", Access::Tokens),
            ("authorization:\n#  bearerToken: x\n", Access::Tokens),
            ("authorization:\nrecipients:\n", Access::Tokens),
            ("recipients:\n- {name: r, shares: , tokens: }\n", Access::Tokens),
        ] {
            let file = parse(&format!("version: 1\nshares:\n- name: s\n{text}")).unwrap();
            assert_eq!(file.access(), access, "{text}");
            let catalog = ShareFileCatalog::new(file);
            assert_eq!(catalog.anonymous().await.unwrap().is_some(), access != Access::Tokens, "{text}");
        }
    }

    #[test]
    fn an_empty_key_never_gives_more_than_a_missing_one() {
        let table = |line: &str| {
            format!(
                "recipients: []\nshares:\n- name: s\n  schemas:\n  - name: c\n    tables:\n    - name: t\n      location: x\n      {line}\n"
            )
        };
        let recipient =
            |lines: &str| format!("shares: []\nrecipients:\n- name: r\n  tokens:\n  - {{{lines}}}\n");
        for (text, reason) in [
            ("authorization:\n  bearerToken:\n".to_owned(), "bearerToken has no value"),
            ("authorization:\n  bearerToken: ''\n".to_owned(), "fewer than 32"),
            ("authorization: {}\n".to_owned(), "must have the key bearerToken"),
            ("authorization: everyone\n".to_owned(), "the word none"),
            ("authorization: []\n".to_owned(), ""),
            ("authorization: true\n".to_owned(), ""),
            ("authorization: none\nrecipients: []\n".to_owned(), "Remove one of the two"),
            ("authorization: none\nrecipients:\n".to_owned(), "Remove one of the two"),
            ("recipients: []\nssl:\n".to_owned(), "plain HTTP"),
            ("recipients: []\npreSignedUrlTimeoutSeconds:\n".to_owned(), "has no value"),
            (table("startVersion:"), "startVersion has no value"),
            (table("signerRole:"), "signerRole has no value"),
            (table("historyShared:"), ""),
            (table("location:"), ""),
            (recipient("sha256: , expires: never"), "null"),
            (recipient(&format!("sha256: {}, expires: ", "a".repeat(64))), "null"),
            (recipient(&format!("sha256: {}", "a".repeat(64))), "expires"),
            (recipient(&format!("sha256: {}, expires: never", TokenHash::of("").to_hex())), "empty text"),
        ] {
            let error = parse(&format!("version: 1\n{text}")).err();
            let error = error.unwrap_or_else(|| panic!("taken: {text}"));
            assert!(error.to_string().contains(reason), "{error}\n{text}");
        }
    }

    #[tokio::test]
    async fn the_tokens_of_a_disabled_recipient_are_as_good_as_none() {
        let hash = TokenHash::of("secret");
        let file = |status: &str| {
            let token = format!("{{sha256: {}, id: laptop, expires: 2999-01-31}}", hash.to_hex());
            format!(
                "version: 1\nshares:\n- name: s\nrecipients:\n- name: r\n  shares: [s]\n{status}  tokens:\n  - {token}\n"
            )
        };
        for (status, known) in [("", true), ("  status: active\n", true), ("  status: disabled\n", false)] {
            let catalog = ShareFileCatalog::new(parse(&file(status)).unwrap());
            let caller = catalog.caller(hash).await.unwrap();
            assert_eq!(caller.is_some(), known, "{status}");
            if let Some(caller) = caller {
                assert_eq!(&*caller.token.id, "laptop");
                assert_eq!(caller.token.expires, expiry::parse("2999-01-31T00:00:00Z").unwrap());
            }
        }
        for (status, reason) in [("  status:\n", "has no value"), ("  status: off\n", "active or disabled")] {
            let error = parse(&file(status)).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn ids_of_tokens_are_unlike_each_other() {
        let token = |secret: &str, id: &str| {
            format!("  - {{sha256: {}, id: {id}, expires: never}}\n", TokenHash::of(secret).to_hex())
        };
        let file = |tokens: &str| format!("version: 1\nrecipients:\n- name: r\n  tokens:\n{tokens}");
        assert!(parse(&file(&(token("a", "x") + &token("b", "y")))).is_ok());
        let error = parse(&file(&(token("a", "laptop") + &token("b", "Laptop")))).unwrap_err().to_string();
        assert!(error.contains("two tokens of recipient 'r' have the id 'Laptop'"), "{error}");
    }

    #[test]
    fn a_token_that_can_be_guessed_is_refused_and_not_repeated() {
        for length in [1, 31, 32, 64] {
            let token = "7".repeat(length);
            let parsed = parse(&format!("version: 1\nauthorization:\n  bearerToken: {token}\n"));
            match parsed {
                Ok(_) => assert!(length >= 32),
                Err(error) => {
                    assert!(length < 32 && error.line == Some(3));
                    assert!(
                        error.to_string().contains("openssl rand") && !error.to_string().contains(&token)
                    );
                }
            }
        }
        let error = parse("version: 1\nauthorization: hunter2\n").unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }

    #[test]
    fn a_bad_file_is_refused_with_line_and_reason() {
        let table = |lines: &str| {
            format!("version: 1\nshares:\n- name: s\n  schemas:\n  - name: c\n    tables:\n{lines}")
        };
        for (text, line, reason) in [
            ("version: 2\nshares: []\n".to_owned(), 1, "version must be 1"),
            ("version: 1\nrecipents: []\n".to_owned(), 2, "recipents"),
            ("version: 1\nssl:\n  selfSigned: true\n".to_owned(), 3, "plain HTTP"),
            ("version: 1\nshares:\n- name: a/b\n".to_owned(), 3, "slash"),
            ("version: 1\nshares:\n- name: a\n- name: A\n".to_owned(), 4, "twice"),
            (table("    - {name: t, location: s3://Lake/x}\n"), 7, "the bucket's name"),
            (table("    - {name: t.u, location: x}\n"), 7, "period"),
            (table("    - {name: t, location: x}\n    - {name: T, location: x}\n"), 8, "twice"),
            (table("    - {name: t, location: x, histryShared: true}\n"), 7, "histryShared"),
            (table("    - {name: t, location: x, startVersion: -1}\n"), 7, "negative"),
            ("version: 1\nrecipients:\n- name: r\n  shares: [missing]\n".to_owned(), 4, "not a share"),
            (
                "version: 1\nrecipients:\n- name: r\n  tokens:\n  - {sha256: x, expires: never}\n".to_owned(),
                5,
                "64 hexadecimal",
            ),
            (
                format!(
                    "version: 1\nrecipients:\n- name: r\n  tokens:\n  - {{sha256: {}, expires: soon}}\n",
                    "a".repeat(64)
                ),
                5,
                "never",
            ),
            ("version: 1\nshares: [\n".to_owned(), 3, ""),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.to_string().contains(reason), "{error}\n{text}");
            assert!(
                error.line.is_some_and(|at| at.abs_diff(line) <= 1),
                "{error} should be line {line}\n{text}"
            );
        }
    }
}
