//! The form of a share file: as it is read, with the line of each value, and as it is exported.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_saphyr::Spanned;

use crate::catalog::expiry;
use crate::catalog::grant::{GrantState, TablePatterns};
use crate::catalog::oidc::OidcPolicy;
use crate::catalog::properties::Properties;
use crate::catalog::restrictions::shown_bytes;
use crate::catalog::state::{CatalogState, RecipientState, SchemaState, ShareState, TableState};
use crate::location::WrittenLocation;
use crate::network::AllowedIps;

/// The file as it is written. Settings of the reference server that have no effect here are listed so that a
/// misspelt key is noticed.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct File {
    pub(super) version: Spanned<u32>,
    #[serde(default)]
    pub(super) shares: Option<Vec<FileShare>>,
    #[serde(default, deserialize_with = "said")]
    pub(super) recipients: Said<Vec<FileRecipient>>,
    #[serde(default, deserialize_with = "said")]
    pub(super) authorization: Said<FileAuthorization>,
    pub(super) endpoint: Option<String>,
    #[serde(default, deserialize_with = "said")]
    pub(super) pre_signed_url_timeout_seconds: Said<u64>,
    #[serde(default, deserialize_with = "said")]
    pub(super) ssl: Said<IgnoredAny>,
    pub(super) host: Option<IgnoredAny>,
    pub(super) port: Option<IgnoredAny>,
    pub(super) temporary_credential_validity_seconds: Option<IgnoredAny>,
    pub(super) delta_table_cache_size: Option<IgnoredAny>,
    pub(super) staleness_acceptable: Option<IgnoredAny>,
    pub(super) evaluate_predicate_hints: Option<IgnoredAny>,
    pub(super) evaluate_json_predicate_hints: Option<IgnoredAny>,
    pub(super) evaluate_json_predicate_hints_v2: Option<IgnoredAny>,
    pub(super) request_timeout_seconds: Option<IgnoredAny>,
    pub(super) query_table_page_size_limit: Option<IgnoredAny>,
    pub(super) query_table_page_token_ttl_ms: Option<IgnoredAny>,
    pub(super) refresh_token_ttl_ms: Option<IgnoredAny>,
}

impl File {
    /// The settings of the reference server that are in the file and have no effect.
    pub(super) fn without_effect(&self) -> Vec<&'static str> {
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
pub(super) type Said<T> = Option<Spanned<Option<T>>>;

pub(super) fn said<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> std::result::Result<Said<T>, D::Error> {
    Spanned::deserialize(deserializer).map(Some)
}

/// Who may read without a token of their own.
pub(super) enum FileAuthorization {
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
pub(super) struct FileShare {
    pub(super) name: Spanned<String>,
    pub(super) id: Option<Spanned<String>>,
    pub(super) comment: Option<String>,
    #[serde(default)]
    pub(super) schemas: Option<Vec<FileSchema>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct FileSchema {
    pub(super) name: Spanned<String>,
    #[serde(default)]
    pub(super) tables: Option<Vec<FileTable>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct FileTable {
    pub(super) name: Spanned<String>,
    pub(super) location: Spanned<String>,
    pub(super) id: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) history_shared: bool,
    #[serde(default, deserialize_with = "said")]
    pub(super) start_version: Said<i64>,
    #[serde(default)]
    pub(super) allowed_locations: Option<Vec<Spanned<String>>>,
    pub(super) directory_access: Option<Spanned<bool>>,
    #[serde(default, deserialize_with = "said")]
    pub(super) signer_role: Said<String>,
    #[serde(default, deserialize_with = "said")]
    pub(super) filter: Said<String>,
    /// What `historyShared` was called in older versions of the reference server.
    #[serde(rename = "cdfEnabled")]
    pub(super) cdf_enabled: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct FileRecipient {
    pub(super) name: Spanned<String>,
    pub(super) comment: Option<String>,
    #[serde(default, deserialize_with = "said")]
    pub(super) status: Said<String>,
    #[serde(default, deserialize_with = "said")]
    pub(super) properties: Said<BTreeMap<String, Spanned<TextOr<IgnoredAny>>>>,
    #[serde(default, deserialize_with = "said")]
    pub(super) allowed_ips: Said<Vec<Spanned<String>>>,
    #[serde(default, deserialize_with = "said")]
    pub(super) requests_per_minute: Said<TextOr<IgnoredAny>>,
    #[serde(default, deserialize_with = "said")]
    pub(super) bytes_per_day: Said<TextOr<IgnoredAny>>,
    #[serde(default)]
    pub(super) shares: Option<Vec<Spanned<TextOr<FileGrant>>>>,
    #[serde(default)]
    pub(super) tokens: Option<Vec<FileToken>>,
    #[serde(default)]
    pub(super) oidc: Option<Vec<Spanned<FileOidcPolicy>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct FileOidcPolicy {
    pub(super) issuer: String,
    pub(super) audiences: Vec<String>,
    #[serde(default, deserialize_with = "said")]
    pub(super) subject_claim: Said<String>,
    pub(super) subject: String,
}

/// A share that is granted, with what else the grant says.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct FileGrant {
    pub(super) name: Spanned<String>,
    #[serde(default, deserialize_with = "said")]
    pub(super) tables: Said<Vec<Spanned<String>>>,
    #[serde(default, deserialize_with = "said")]
    pub(super) filter: Said<String>,
}

/// A text, or keys. YAML takes some texts without quotes for numbers, booleans or nothing.
pub(super) enum TextOr<T> {
    Text(String),
    /// A number or a boolean in its usual form. The file may spell it otherwise.
    Typed(String),
    Null,
    Keys(T),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for TextOr<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Form<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Form<T> {
            type Value = TextOr<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> std::result::Result<Self::Value, E> {
                Ok(TextOr::Text(text.to_owned()))
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> std::result::Result<Self::Value, E> {
                Ok(TextOr::Typed(value.to_string()))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> std::result::Result<Self::Value, E> {
                Ok(TextOr::Typed(value.to_string()))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> std::result::Result<Self::Value, E> {
                Ok(TextOr::Typed(value.to_string()))
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> std::result::Result<Self::Value, E> {
                Ok(TextOr::Typed(format!("{value:?}")))
            }

            fn visit_unit<E: de::Error>(self) -> std::result::Result<Self::Value, E> {
                Ok(TextOr::Null)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> std::result::Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(TextOr::Keys)
            }
        }

        deserializer.deserialize_any(Form(PhantomData))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct FileToken {
    pub(super) sha256: Spanned<String>,
    pub(super) expires: Spanned<String>,
    pub(super) id: Option<Spanned<String>>,
    pub(super) created: Option<String>,
}

impl CatalogState {
    /// As a share file.
    pub fn to_share_file(&self) -> impl Serialize + use<> {
        Exported::from(self)
    }
}

/// A share file as it is exported.
#[derive(Serialize)]
struct Exported {
    version: u32,
    shares: Vec<ExportedShare>,
    recipients: Vec<ExportedRecipient>,
}

#[derive(Serialize)]
struct ExportedShare {
    name: String,
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    comment: Option<String>,
    schemas: Vec<ExportedSchema>,
}

#[derive(Serialize)]
struct ExportedSchema {
    name: String,
    tables: Vec<ExportedTable>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExportedTable {
    name: String,
    location: String,
    id: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    allowed_locations: Vec<String>,
    history_shared: bool,
    #[serde(skip_serializing_if = "is_zero")]
    start_version: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    directory_access: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    signer_role: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    filter: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExportedRecipient {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    comment: Option<String>,
    status: &'static str,
    #[serde(skip_serializing_if = "Properties::is_empty")]
    properties: Properties,
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed_ips: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    requests_per_minute: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_per_day: Option<String>,
    shares: Vec<ExportedGrant>,
    tokens: Vec<ExportedToken>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    oidc: Vec<ExportedOidcPolicy>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExportedOidcPolicy {
    issuer: String,
    audiences: BTreeSet<String>,
    subject_claim: String,
    subject: String,
}

#[derive(Serialize)]
#[serde(untagged)]
enum ExportedGrant {
    Name(String),
    Keys {
        name: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        tables: Option<Vec<String>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        filter: Option<String>,
    },
}

#[derive(Serialize)]
struct ExportedToken {
    sha256: String,
    id: String,
    expires: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl From<OidcPolicy> for ExportedOidcPolicy {
    fn from(policy: OidcPolicy) -> Self {
        let OidcPolicy { issuer, subject_claim, subject, audiences } = policy;
        Self { issuer, audiences, subject_claim, subject }
    }
}

impl From<&CatalogState> for Exported {
    fn from(state: &CatalogState) -> Self {
        let table = |table: &TableState| ExportedTable {
            name: table.name.clone(),
            location: table.settings.location.to_string(),
            id: table.id.clone(),
            allowed_locations: table
                .settings
                .allowed_locations
                .iter()
                .map(WrittenLocation::to_string)
                .collect(),
            history_shared: table.settings.history_shared,
            start_version: table.settings.start_version,
            directory_access: table.settings.directory_access,
            signer_role: table.settings.signer_role.as_ref().map(|role| role.as_str().to_owned()),
            filter: table.settings.filter.as_ref().map(|filter| filter.text().to_owned()),
        };
        let schema = |schema: &SchemaState| ExportedSchema {
            name: schema.name.clone(),
            tables: schema.tables.values().map(table).collect(),
        };
        let share = |share: &ShareState| ExportedShare {
            name: share.name.clone(),
            id: share.id.clone(),
            comment: share.comment.clone(),
            schemas: share.schemas.values().map(schema).collect(),
        };
        let name_of =
            |key: &String| state.shares.get(key).map_or_else(|| key.clone(), |share| share.name.clone());
        let texts = |tables: &TablePatterns| tables.texts().map(str::to_owned).collect();
        let grant = |(key, grant): (&String, &GrantState)| match grant {
            grant if grant.is_whole_share() => ExportedGrant::Name(name_of(key)),
            GrantState { tables, filter } => ExportedGrant::Keys {
                name: name_of(key),
                tables: tables.as_ref().map(texts),
                filter: filter.as_ref().map(|filter| filter.text().to_owned()),
            },
        };
        let recipient = |recipient: &RecipientState| ExportedRecipient {
            name: recipient.name.clone(),
            comment: recipient.comment.clone(),
            status: if recipient.active { "active" } else { "disabled" },
            properties: recipient.properties.clone(),
            allowed_ips: recipient.restrictions.allowed_ips.as_ref().map(AllowedIps::texts),
            requests_per_minute: recipient.restrictions.requests_per_minute,
            bytes_per_day: recipient.restrictions.bytes_per_day.map(shown_bytes),
            shares: recipient.shares.iter().map(grant).collect(),
            tokens: recipient
                .tokens
                .iter()
                .map(|(hash, token)| ExportedToken {
                    sha256: hash.clone(),
                    id: token.id.clone(),
                    expires: expiry::format(token.expires),
                    created: token.created.clone(),
                })
                .collect(),
            oidc: recipient.oidc.iter().cloned().map(ExportedOidcPolicy::from).collect(),
        };
        Self {
            version: 1,
            shares: state.shares.values().map(share).collect(),
            recipients: state.recipients.values().map(recipient).collect(),
        }
    }
}
