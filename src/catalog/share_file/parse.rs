//! From the text of a share file to what it says, or to the line that is wrong.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::de::IgnoredAny;
use serde_saphyr::{Location, Spanned};
use uuid::Uuid;

use super::form::{
    File, FileAuthorization, FileGrant, FileOidcPolicy, FileRecipient, FileShare, FileTable, Said, TextOr,
};
use super::ordered::Ordered;
use super::{Access, EVERYONE, RecipientNotes, Share, ShareFile, UnreadableTable, table_key};
use crate::catalog::grant::{GrantState, TablePattern, TablePatterns};
use crate::catalog::oidc::{DEFAULT_CLAIM, MOST_POLICIES, OidcPolicy, RecipientPolicy};
use crate::catalog::properties::{self, Properties};
use crate::catalog::restrictions::{Restrictions, parse_bytes, parse_requests};
use crate::catalog::{ShareRecord, TableRecord, TableSettings, TokenHash, TokenRecord, expiry};
use crate::location::WrittenLocation;
use crate::network::{AllowedIps, Cidr};
use crate::predicate::{FileAccess, PartitionFilter};
use crate::protocol::names::{InvalidName, Name};
use crate::role::RoleArn;

/// If the file gives no id, it is derived from the names, so that it stays the same.
const ID_NAMESPACE: Uuid = Uuid::from_u128(0x5f1c_8e0e_6a43_4a7e_9c1d_2f0b_7d6e_31a4);

/// The fewest characters of a token that is written in a file. A token of this length that is random cannot be
/// guessed; a word that somebody thought of is shorter.
const LEAST_TOKEN_CHARS: usize = 32;

/// The command that creates a token.
const TOKEN_COMMAND: &str = "echo dss_$(openssl rand -hex 32)";

/// Why a share file is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareFileError {
    pub(super) line: Option<u64>,
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

impl ShareFile {
    /// Reads a share file. Locations that are relative paths start at `base`; without it, directories of this machine
    /// are not supported.
    ///
    /// ```
    /// use deltashare::catalog::share_file::ShareFile;
    /// use deltashare::catalog::state::CatalogState;
    ///
    /// let file = ShareFile::parse(
    ///     "version: 1
    /// shares:
    /// - name: retail
    ///   schemas:
    ///   - name: sales
    ///     tables:
    ///     - name: orders
    ///       location: s3://lake/tables/orders
    /// recipients:
    /// - name: acme
    ///   shares: [retail]
    /// ",
    ///     None,
    /// )?;
    /// let changes = CatalogState::default().changes_to(&file.state(&CatalogState::default()));
    /// let shown: Vec<String> = changes.iter().map(ToString::to_string).collect();
    /// assert_eq!(shown, [
    ///     "+ share retail",
    ///     "+ schema retail.sales",
    ///     "+ table retail.sales.orders: s3://lake/tables/orders",
    ///     "+ recipient acme",
    ///     "+ grant of retail to acme",
    /// ]);
    /// # Ok::<_, deltashare::catalog::share_file::ShareFileError>(())
    /// ```
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
            policies: HashMap::new(),
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
                        "bearerToken has fewer than {LEAST_TOKEN_CHARS} characters, so it can be guessed. Create one \
                         with: {TOKEN_COMMAND}"
                    ),
                ));
            }
            let hash = TokenHash::of(&token.value);
            let record = TokenRecord { recipient: EVERYONE.into(), id: hash.short(), expires: None };
            this.tokens.insert(hash, record);
        }
        for recipient in file.recipients.and_then(|recipients| recipients.value).unwrap_or_default() {
            this.add_recipient(recipient, text)?;
        }
        if this.is_public() || this.tokens.values().any(|token| &*token.recipient == EVERYONE) {
            let all = this.shares.iter().map(|(key, _)| (key.to_owned(), GrantState::default())).collect();
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

    fn add_recipient(
        &mut self,
        recipient: FileRecipient,
        text: &str,
    ) -> std::result::Result<(), ShareFileError> {
        let name = checked(&recipient.name, Name::share)?;
        let who: Arc<str> = name.as_str().into();
        let mut granted = BTreeMap::new();
        for grant in recipient.shares.unwrap_or_default() {
            let at = grant.referenced;
            let (share, state) = read_grant(grant, text)?;
            let key = Name::key_of(&share);
            if self.shares.get(&key).is_none() {
                let reason =
                    format!("recipient '{name}' is granted '{share}', which is not a share of this file");
                return Err(ShareFileError::at(at, reason));
            }
            match granted.entry(key) {
                Entry::Vacant(new) => _ = new.insert(state),
                Entry::Occupied(known) if *known.get() == state => {}
                Entry::Occupied(known) => {
                    let what = if known.get().tables == state.tables { "filters" } else { "tables" };
                    let reason =
                        format!("recipient '{name}' is granted '{share}' twice, with different {what}");
                    return Err(ShareFileError::at(at, reason));
                }
            }
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
        let properties = read_properties(recipient.properties, text)?;
        let restrictions = Restrictions {
            allowed_ips: read_allowed_ips(recipient.allowed_ips)?,
            requests_per_minute: read_limit(
                "requestsPerMinute",
                recipient.requests_per_minute,
                parse_requests,
            )?,
            bytes_per_day: read_limit("bytesPerDay", recipient.bytes_per_day, parse_bytes)?,
        };
        let active = active.transpose()?;
        let notes = RecipientNotes { active, comment: recipient.comment, properties, restrictions };
        self.notes.insert(Arc::clone(&who), notes);
        for policy in recipient.oidc.unwrap_or_default() {
            self.add_policy(&who, policy)?;
        }
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

    fn add_policy(
        &mut self,
        who: &Arc<str>,
        policy: Spanned<FileOidcPolicy>,
    ) -> std::result::Result<(), ShareFileError> {
        let FileOidcPolicy { issuer, audiences, subject_claim, subject } = policy.value;
        let refused = |reason: String| ShareFileError::at(policy.referenced, format!("oidc: {reason}"));
        let subject_claim = not_empty("subjectClaim", subject_claim)?;
        let subject_claim = subject_claim.map_or_else(|| DEFAULT_CLAIM.to_owned(), |claim| claim.value);
        let audiences = audiences.into_iter().collect();
        let policy = OidcPolicy { issuer, subject_claim, subject, audiences };
        policy.check().map_err(refused)?;
        if self.policies_of(who).count() >= MOST_POLICIES {
            return Err(refused(format!("recipient '{who}' has more than {MOST_POLICIES} policies")));
        }
        let of_issuer = self.policies.entry(policy.issuer.clone()).or_default();
        if let Some(other) = of_issuer.iter().find(|other| other.policy.has_subject_of(&policy)) {
            let (other, OidcPolicy { subject_claim, subject, .. }) = (&other.recipient, &policy);
            return Err(refused(format!(
                "recipient '{other}' already has a policy for {subject_claim} {subject:?} of this issuer"
            )));
        }
        of_issuer.push(RecipientPolicy::checked(Arc::clone(who), policy));
        Ok(())
    }
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

/// A share that is granted, and what is granted of it.
fn read_grant(
    grant: Spanned<TextOr<FileGrant>>,
    text: &str,
) -> std::result::Result<(String, GrantState), ShareFileError> {
    let Spanned { value, referenced, defined } = grant;
    let whole = GrantState::default;
    match value {
        TextOr::Keys(FileGrant { name, tables, filter }) => {
            Ok((name.value, GrantState { tables: read_tables(tables)?, filter: read_filter(filter)? }))
        }
        TextOr::Text(name) => Ok((name, whole())),
        // A name is what is written.
        TextOr::Typed(value) => Ok((written(text, defined).unwrap_or(&value).to_owned(), whole())),
        TextOr::Null => Err(ShareFileError::at(referenced, "a share that is granted has no name")),
    }
}

fn read_tables(
    tables: Said<Vec<Spanned<String>>>,
) -> std::result::Result<Option<TablePatterns>, ShareFileError> {
    let Some(tables) = not_empty("tables", tables)? else { return Ok(None) };
    for pattern in &tables.value {
        TablePattern::parse(&pattern.value)
            .map_err(|reason| ShareFileError::at(pattern.referenced, format!("tables: {reason}")))?;
    }
    let texts: Vec<&str> = tables.value.iter().map(|pattern| pattern.value.as_str()).collect();
    TablePatterns::parse(&texts)
        .map(Some)
        .map_err(|reason| ShareFileError::at(tables.referenced, format!("tables: {reason}")))
}

fn read_filter(filter: Said<String>) -> std::result::Result<Option<PartitionFilter>, ShareFileError> {
    let filter = not_empty("filter", filter)?.map(|filter| {
        PartitionFilter::parse(&filter.value)
            .map_err(|reason| ShareFileError::at(filter.referenced, format!("filter: {reason}")))
    });
    filter.transpose()
}

/// Properties of a recipient. What YAML takes for a number or a boolean is its text, if every YAML library would write it
/// like that.
fn read_properties(
    properties: Said<BTreeMap<String, Spanned<TextOr<IgnoredAny>>>>,
    text: &str,
) -> std::result::Result<Properties, ShareFileError> {
    let Some(said) = not_empty("properties", properties)? else { return Ok(Properties::new()) };
    let mut read = Properties::new();
    for (name, Spanned { value, referenced, defined }) in said.value {
        let refused = |reason: String| ShareFileError::at(referenced, reason);
        let value = match value {
            TextOr::Text(value) => value,
            TextOr::Typed(value)
                if written(text, defined) == Some(&value)
                    && (value.parse::<bool>().is_ok() || !value.contains('e')) =>
            {
                value
            }
            TextOr::Typed(_) => {
                return Err(refused(format!(
                    "YAML reads the value of property {name} as a number or a boolean, which can be written in several \
                     ways: put it in quotes"
                )));
            }
            TextOr::Keys(IgnoredAny) => return Err(refused(format!("property {name} is not a text"))),
            TextOr::Null => String::new(),
        };
        properties::check_property(&name, &value).map_err(refused)?;
        read.insert(name, value);
    }
    properties::check_properties(&read).map_err(|reason| ShareFileError::at(said.referenced, reason))?;
    Ok(read)
}

fn read_limit(
    key: &str,
    limit: Said<TextOr<IgnoredAny>>,
    parse: fn(&str) -> std::result::Result<u64, String>,
) -> std::result::Result<Option<u64>, ShareFileError> {
    let Some(Spanned { value, referenced, .. }) = not_empty(key, limit)? else { return Ok(None) };
    let refused = |reason: String| ShareFileError::at(referenced, format!("{key}: {reason}"));
    match value {
        TextOr::Text(text) | TextOr::Typed(text) => parse(&text).map(Some).map_err(refused),
        TextOr::Null => Err(refused("it has no value: give it one, or remove the key".to_owned())),
        TextOr::Keys(IgnoredAny) => Err(refused("it is not a number".to_owned())),
    }
}

fn read_allowed_ips(
    allowed: Said<Vec<Spanned<String>>>,
) -> std::result::Result<Option<AllowedIps>, ShareFileError> {
    let Some(said) = not_empty("allowedIps", allowed)? else { return Ok(None) };
    let range = |text: &Spanned<String>| {
        Cidr::parse(&text.value)
            .map_err(|reason| ShareFileError::at(text.referenced, format!("allowedIps: {reason}")))
    };
    let ranges = said.value.iter().map(range).collect::<std::result::Result<Vec<_>, _>>()?;
    let list = AllowedIps::new(ranges);
    list.map(Some).map_err(|reason| ShareFileError::at(said.referenced, format!("allowedIps: {reason}")))
}

/// A value as the file spells it.
fn written(text: &str, at: Location) -> Option<&str> {
    let at = at.span();
    let start = usize::try_from(at.byte_offset()?).ok()?;
    let end = start.checked_add(usize::try_from(at.byte_len()?).ok()?)?;
    text.get(start..end).map(str::trim)
}

fn twice(name: &Spanned<String>, what: &str) -> ShareFileError {
    ShareFileError::at(
        name.referenced,
        format!("the {what} '{}' is defined twice; names are not case-sensitive", name.value),
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
    let filter = read_filter(table.filter.clone())?;
    let settings = TableSettings {
        location,
        allowed_locations,
        history_shared: table.history_shared || table.cdf_enabled == Some(true),
        start_version,
        // What this server does not read, it gives no credentials for.
        directory_access: directory_access && unreadable.is_none(),
        signer_role,
        filter: filter.clone(),
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
        access: FileAccess::filtered(filter, &Properties::new()),
        allowed_ips: None,
        locations_checked: true,
        name,
    };
    Ok((record, unreadable))
}
