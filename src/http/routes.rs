//! The table of contents: one line for each endpoint of the protocol.

use std::sync::Arc;

use axum::Router;
use axum::http::Method;
use axum::routing::{MethodRouter, get, head, post};

use super::{activation, changes, credentials, discovery, query, table};
use crate::app::App;
use crate::error::Error;

/// An endpoint: its path, the name of its action in the log and in metrics, and what answers it. Actions have the names
/// that the protocol gives its endpoints.
type Route = (&'static str, &'static str, fn() -> MethodRouter<Arc<App>>);

/// Every route below the prefix.
const ROUTES: [Route; 16] = [
    ("/shares", "ListShares", || get(discovery::list_shares)),
    ("/shares/{share}", "GetShare", || get(discovery::get_share)),
    ("/shares/{share}/schemas", "ListSchemas", || get(discovery::list_schemas)),
    ("/shares/{share}/schemas/{schema}/tables", "ListTables", || get(discovery::list_tables)),
    ("/shares/{share}/all-tables", "ListAllTables", || get(discovery::list_all_tables)),
    (TABLE, "QueryTableVersion", || head(table::query_version).fallback(table::get_table)),
    ("/shares/{share}/schemas/{schema}/tables/{table}/version", "QueryTableVersion", || {
        get(table::query_version)
    }),
    ("/shares/{share}/schemas/{schema}/tables/{table}/metadata", "QueryTableMetadata", || {
        get(table::query_metadata)
    }),
    ("/shares/{share}/schemas/{schema}/tables/{table}/query", "QueryTable", || post(query::query_table)),
    ("/shares/{share}/schemas/{schema}/tables/{table}/changes", "QueryTableChanges", || {
        get(changes::query_changes)
    }),
    ("/shares/{share}/schemas/{schema}/tables/{table}/queries/{query}", "GetQueryInfo", || {
        post(query::query_result).get(query::query_result)
    }),
    (
        "/shares/{share}/schemas/{schema}/tables/{table}/temporary-table-credentials",
        "GenerateTemporaryTableCredential",
        || post(credentials::temporary_table_credentials),
    ),
    ("/activate", "Activate", || post(activation::activate)),
    ("/activate", "GetActivation", || get(activation::activation_page)),
    ("/activate/invitation", "GetActivation", || post(activation::show_invitation)),
    ("/health", "Health", || get(async || "ok\n")),
];

/// The path of a table. The protocol once had `HEAD` for its version, and has nothing else there.
const TABLE: &str = "/shares/{share}/schemas/{schema}/tables/{table}";

/// The endpoints of the protocol, for paths that are tidied.
pub(super) fn endpoints(app: Arc<App>) -> Router {
    let router = ROUTES.iter().fold(Router::new(), |router, (path, _, answer)| router.route(path, answer()));
    router
        .fallback(async || Error::not_found("There is nothing at this path."))
        .method_not_allowed_fallback(async || Error::method_not_allowed())
        .with_state(app)
}

/// The action that a request asks for. It is also known of requests whose method is not allowed.
pub(super) fn action(method: &Method, path: &str) -> &'static str {
    let has_method = |route: &Route| match *route {
        (TABLE, ..) => method == Method::HEAD,
        (_, "Activate", _) => method == Method::POST,
        _ => true,
    };
    let is_known = |route: &&Route| matches(route.0, path) && has_method(route);
    ROUTES.iter().find(is_known).map_or("Unknown", |(_, action, _)| action)
}

/// Whether a path is one of a route. Segments in braces stand for any name.
fn matches(route: &str, path: &str) -> bool {
    let (mut segments, mut names) = (path.split('/'), route.split('/'));
    loop {
        match (segments.next(), names.next()) {
            (None, None) => return true,
            (Some(_), Some(name)) if name.starts_with('{') => {}
            (Some(segment), Some(name)) if segment == name => {}
            (_, _) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_post_activates() {
        for (method, path, asked) in [
            (Method::GET, "/activate", "GetActivation"),
            (Method::HEAD, "/activate", "GetActivation"),
            (Method::POST, "/activate", "Activate"),
            (Method::POST, "/activate/invitation", "GetActivation"),
            (Method::GET, "/activate/other", "Unknown"),
        ] {
            assert_eq!(action(&method, path), asked, "{method} {path}");
        }
    }

    #[test]
    fn an_escaped_slash_separates_nothing() {
        for (path, asked) in [
            ("/shares/a%2Fschemas", "GetShare"),
            ("/shares/a%2Fb/schemas", "ListSchemas"),
            ("/shares/%2e%2e/all-tables", "ListAllTables"),
            ("/shares/a/schemas/b/tables/c%2Fd/queries/e%2Ff", "GetQueryInfo"),
        ] {
            assert_eq!(action(&Method::GET, path), asked, "{path}");
        }
    }
}
