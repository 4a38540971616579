//! "List Shares" to "List all Tables in a Share".

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::request::{Names, Parameters};
use super::response::{JSON, with_content_type};
use crate::app::App;
use crate::auth::{PathName, Recipient, SharedShare, share_not_found};
use crate::catalog::{PageRequest, SchemaPage, TableRecord};
use crate::error::{Error, Result};
use crate::protocol::actions::URL_AND_DIRECTORY;
use crate::protocol::listing::{
    GetShareResponse, ListRequest, ListResponse, SchemaItem, ShareItem, TableItem,
};
use crate::protocol::names::Name;
use crate::protocol::tokens::{Claims, InvalidToken};

/// `GET /shares`
pub async fn list_shares(
    State(app): State<Arc<App>>,
    recipient: Recipient,
    Parameters(parameters): Parameters,
) -> Result<Response> {
    let listing = Listing::parse(&app, &recipient, "shares".to_owned(), &parameters)?;
    let page = app.catalog.shares(recipient.caller(), listing.page.clone()).await?;
    let items =
        page.items.iter().map(|share| ShareItem { name: share.name.as_str(), id: &share.id }).collect();
    listing.answer(items, page.more_after)
}

/// `GET /shares/{share}`
pub async fn get_share(
    State(app): State<Arc<App>>,
    recipient: Recipient,
    Names([share]): Names<1>,
) -> Result<Response> {
    let shared = SharedShare::find(&*app.catalog, &recipient, &share).await?;
    let share = shared.record();
    json(&GetShareResponse { share: ShareItem { name: share.name.as_str(), id: &share.id } })
}

/// `GET /shares/{share}/schemas`
pub async fn list_schemas(
    State(app): State<Arc<App>>,
    recipient: Recipient,
    Names([share]): Names<1>,
    Parameters(parameters): Parameters,
) -> Result<Response> {
    for spelling in share.spellings() {
        let listing =
            Listing::parse(&app, &recipient, format!("schemas/{}", Name::key_of(&spelling)), &parameters)?;
        let found = app.catalog.schemas(recipient.caller(), &spelling, listing.page.clone()).await?;
        if let Some(SchemaPage { share, schemas: page }) = found {
            let share = share.name.as_str();
            let items = page.items.iter().map(|schema| SchemaItem { name: schema.as_str(), share }).collect();
            return listing.answer(items, page.more_after);
        }
    }
    Err(share_not_found(&share))
}

/// `GET /shares/{share}/schemas/{schema}/tables`
pub async fn list_tables(
    State(app): State<Arc<App>>,
    recipient: Recipient,
    Names([share, schema]): Names<2>,
    Parameters(parameters): Parameters,
) -> Result<Response> {
    tables(&app, &recipient, &share, Some(&schema), &parameters).await
}

/// `GET /shares/{share}/all-tables`
pub async fn list_all_tables(
    State(app): State<Arc<App>>,
    recipient: Recipient,
    Names([share]): Names<1>,
    Parameters(parameters): Parameters,
) -> Result<Response> {
    tables(&app, &recipient, &share, None, &parameters).await
}

async fn tables(
    app: &App,
    recipient: &Recipient,
    share: &PathName,
    schema: Option<&PathName>,
    parameters: &[(String, String)],
) -> Result<Response> {
    let schemas: Vec<Option<String>> = match schema {
        Some(schema) => schema.spellings().map(Some).collect(),
        None => vec![None, None],
    };
    for (share, schema) in share.spellings().zip(schemas) {
        let name = format!(
            "tables/{}/{}",
            Name::key_of(&share),
            schema.as_deref().map(Name::key_of).unwrap_or_default()
        );
        let listing = Listing::parse(app, recipient, name, parameters)?;
        let found =
            app.catalog.tables(recipient.caller(), &share, schema.as_deref(), listing.page.clone()).await?;
        if let Some(page) = found {
            return listing.answer(page.items.iter().map(table_item).collect(), page.more_after);
        }
    }
    // Fails if the share itself does not exist.
    SharedShare::find(&*app.catalog, recipient, share).await?;
    Err(match schema {
        Some(schema) => Error::not_found(format!("schema '{schema}' not found")),
        None => share_not_found(share),
    })
}

fn table_item(table: &TableRecord) -> TableItem<'_> {
    TableItem {
        name: table.name.as_str(),
        schema: table.schema.as_str(),
        share: table.share.as_str(),
        share_id: &table.share_id,
        id: &table.id,
        location: table.directory(),
        access_modes: table.directory().map(|_| URL_AND_DIRECTORY),
    }
}

/// How long a page token of a listing is valid.
const TOKEN_LIFE: TimeDelta = TimeDelta::hours(24);

/// Where the page before ended, in the words of the catalog.
#[derive(Serialize, Deserialize)]
struct PageEnd(String);

impl Claims for PageEnd {
    const KIND: &'static str = "list";
}

/// One listing, as it was asked for.
struct Listing<'a> {
    app: &'a App,
    recipient: &'a Recipient,
    /// What page tokens are bound to.
    name: String,
    page: PageRequest,
    /// When its first page was asked for.
    began: DateTime<Utc>,
}

impl<'a> Listing<'a> {
    fn parse(
        app: &'a App,
        recipient: &'a Recipient,
        name: String,
        parameters: &[(String, String)],
    ) -> Result<Self> {
        let request = ListRequest::parse(parameters)?;
        let now = Utc::now();
        let unseal = |token: &String| {
            app.token_key.unseal(token, &[recipient.name(), &name], now).map_err(|refused| {
                Error::invalid(match refused {
                    InvalidToken::NotOurs => "invalid 'nextPageToken'",
                    InvalidToken::Expired => {
                        "invalid 'nextPageToken': it has expired, begin the listing again"
                    }
                })
            })
        };
        let unsealed = request.page_token.as_ref().map(unseal).transpose()?;
        let (after, began) = unsealed.map_or((None, now), |(PageEnd(after), began)| (Some(after), began));
        Ok(Self { app, recipient, page: PageRequest { after, limit: request.max_results }, name, began })
    }

    fn answer<T: Serialize>(&self, items: Vec<T>, more_after: Option<String>) -> Result<Response> {
        let bound_to = [self.recipient.name(), self.name.as_str()];
        let end = self.began + TimeDelta::seconds(self.app.limits.query_life_seconds.into());
        let expires = (Utc::now() + TOKEN_LIFE).min(end);
        let seal = |after| self.app.token_key.seal(&bound_to, &PageEnd(after), self.began, expires);
        json(&ListResponse { items, next_page_token: more_after.map(seal).transpose()? })
    }
}

fn json(value: &impl Serialize) -> Result<Response> {
    Ok(with_content_type(serde_json::to_vec(value).map_err(Error::internal)?.into(), JSON))
}
