//! Lists of shares, schemas and tables: "List Shares" to "List all Tables in a Share".

use serde::Serialize;

use crate::error::{Error, Result};
use crate::protocol::parameters::QueryParameters;

/// The most items a page may ask for.
const MAX_RESULTS: usize = 500;

/// The paging parameters of a list request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListRequest {
    /// The most items in the answer; absent means all of them, because some clients never page.
    pub max_results: Option<usize>,
    /// The `nextPageToken` of the page before.
    pub page_token: Option<String>,
}

impl ListRequest {
    /// Reads the query parameters, already decoded. `nextPageToken` is accepted for `pageToken`,
    /// because one client sends it; an empty token means the first page.
    pub fn parse(parameters: &[(String, String)]) -> Result<Self> {
        let parameters = QueryParameters(parameters);
        let max_results = parameters.number("maxResults")?.map(|number| {
            usize::try_from(number).ok().filter(|number| *number <= MAX_RESULTS).ok_or_else(|| {
                Error::invalid("Acceptable values of 'maxResults' are 0 to 500, inclusive. (Default: 500)")
            })
        });
        let page_token = parameters.text("pageToken").or_else(|| parameters.text("nextPageToken"));
        Ok(Self { max_results: max_results.transpose()?, page_token: page_token.map(str::to_owned) })
    }
}

/// One page of a listing.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListResponse<T> {
    /// Always an array, even if it is empty.
    pub items: Vec<T>,
    /// Absent at the end; never empty, because one client then asks for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}

/// A share as it is listed.
#[derive(Debug, Serialize)]
pub struct ShareItem<'a> {
    /// The share's name, as its owner spelled it.
    pub name: &'a str,
    /// A UUID that stays with the share.
    pub id: &'a str,
}

/// The answer to "Get Share".
#[derive(Debug, Serialize)]
pub struct GetShareResponse<'a> {
    /// The share.
    pub share: ShareItem<'a>,
}

/// A schema as it is listed.
#[derive(Debug, Serialize)]
pub struct SchemaItem<'a> {
    /// The schema's name, as its owner spelled it.
    pub name: &'a str,
    /// The name of the share it is in.
    pub share: &'a str,
}

/// A table as it is listed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TableItem<'a> {
    /// The table's name, as its owner spelled it.
    pub name: &'a str,
    /// The name of the schema it is in.
    pub schema: &'a str,
    /// The name of the share it is in.
    pub share: &'a str,
    /// The id of the share it is in.
    pub share_id: &'a str,
    /// A UUID that stays with the table.
    pub id: &'a str,
    /// The table's root, if recipients may read its directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<&'a str>,
    /// How the table can be read; by URL if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_modes: Option<&'static [&'static str]>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(parameters: &[(&str, &str)]) -> Result<ListRequest> {
        let owned: Vec<_> = parameters.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        ListRequest::parse(&owned)
    }

    #[test]
    fn paging_parameters() {
        assert_eq!(parse(&[]).unwrap(), ListRequest::default());
        assert_eq!(parse(&[("maxResults", "0")]).unwrap().max_results, Some(0));
        assert_eq!(parse(&[("maxResults", "500"), ("x", "y")]).unwrap().max_results, Some(500));
        assert_eq!(parse(&[("pageToken", "")]).unwrap().page_token, None);
        assert_eq!(parse(&[("nextPageToken", "t")]).unwrap().page_token.as_deref(), Some("t"));
        assert_eq!(parse(&[("maxResults", "")]).unwrap().max_results, None);
        for bad in ["-1", "501", "string", "1.5", " 1", "1e2", "0x1", "99999999999999999999"] {
            assert!(parse(&[("maxResults", bad)]).is_err(), "{bad}");
        }
    }
}
