//! Activation links: the page that a link opens, and what the page asks for.
//!
//! The secret of a link is in the fragment, which browsers do not send. The page derives an id from it, and decrypts what it
//! gets. Opening the page, and showing the invitation, change nothing, so that mail scanners use up no link. `POST` on the
//! page's own path hands out the profile, once.

use std::sync::{Arc, LazyLock};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use axum::response::{IntoResponse as _, Response};

use super::document::{Document, HTML};
use super::request::read_body;
use super::response::{JSON, with_content_type};
use crate::app::App;
use crate::audit;
use crate::catalog::Activation;
use crate::error::{Error, Result};
use crate::protocol::activation::{ActivationAnswer, ActivationId, ActivationRequest, UNUSABLE};

const STYLE: &str = include_str!("activation/page.css");
const SCRIPT: &str = include_str!("activation/page.js");

const FRAME: &str = include_str!("activation/page.html");

static PAGE: LazyLock<Document> = LazyLock::new(|| Document::new(FRAME, STYLE, SCRIPT));

/// The same page without the link to the page for recipients.
static LONE_PAGE: LazyLock<Document> = LazyLock::new(|| {
    let (before, rest) = FRAME.split_once("<!--PAGE-->\n").unwrap_or((FRAME, ""));
    let after = rest.split_once("<!--/PAGE-->\n").map_or(rest, |(_, after)| after);
    Document::new(&[before, after].concat(), STYLE, SCRIPT)
});

/// In the extensions of a request: this server has the page for recipients at `/`.
#[derive(Debug, Clone, Copy)]
pub(super) struct HasRecipientPage;

/// `GET /activate`
///
/// After the download, the page links to the page for recipients, if the server has it.
pub async fn activation_page(request: Request) -> Response {
    let page = match request.extensions().get::<HasRecipientPage>() {
        Some(_) => &PAGE,
        None => &LONE_PAGE,
    };
    let mut response = with_content_type(page.html.as_str().into(), HTML);
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, page.policy.clone());
    guarded(response)
}

/// `POST /activate/invitation`
///
/// Changes nothing.
pub async fn show_invitation(State(app): State<Arc<App>>, body: Body) -> Response {
    let answer = async {
        let id = read_id(&app, body).await?;
        ciphertext(app.catalog.invitation(id).await?)
    };
    guarded(answer.await.unwrap_or_else(Error::into_response))
}

/// `POST /activate`
///
/// The first request gets the profile, which is deleted. Every other one gets the answer to an unknown link.
pub async fn activate(State(app): State<Arc<App>>, body: Body) -> Response {
    let answer = async {
        let id = read_id(&app, body).await?;
        ciphertext(app.catalog.activate(id).await?)
    };
    guarded(answer.await.unwrap_or_else(Error::into_response))
}

async fn read_id(app: &App, body: Body) -> Result<ActivationId> {
    let body = read_body(body, &app.limits).await?;
    // What is wrong with it is not repeated: it may have an id, or a whole link.
    let asked: ActivationRequest = serde_json::from_slice(&body).map_err(|_| {
        Error::malformed("The body of the request must be a JSON object with the string `id`.")
    })?;
    ActivationId::from_hex(&asked.id).ok_or_else(|| Error::not_found(UNUSABLE))
}

fn ciphertext(found: Option<Activation>) -> Result<Response> {
    let Activation { recipient, token_id, ciphertext } = found.ok_or_else(|| Error::not_found(UNUSABLE))?;
    audit::note(|facts| {
        facts.recipient = Some(recipient);
        facts.token_id = Some(token_id);
    });
    let body = serde_json::to_vec(&ActivationAnswer::new(&ciphertext)).map_err(Error::internal)?;
    Ok(with_content_type(body.into(), JSON))
}

/// The same for every answer about links: it is kept nowhere, and shown in no frame.
fn guarded(mut response: Response) -> Response {
    for (name, value) in [
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::super::document::hash;
    use super::*;

    #[tokio::test]
    async fn the_page_has_the_elements_that_its_policy_allows_and_no_others() {
        let response = activation_page(Request::default()).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()[CONTENT_SECURITY_POLICY], PAGE.policy);
        assert!(PAGE.html.contains(r#"<a id="page" "#) && !LONE_PAGE.html.contains("<a"));
        assert!(LONE_PAGE.html.ends_with("</html>\n") && PAGE.html.len() > LONE_PAGE.html.len());
        let policy = response.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
        assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"), "{policy}");
        for (element, text) in [("style", STYLE), ("script", SCRIPT)] {
            assert_eq!(PAGE.html.matches(&format!("<{element}")).count(), 1, "{element}");
            assert!(PAGE.html.contains(&format!("<{element}>{text}</{element}>")), "{element}");
            assert!(policy.contains(&format!("{element}-src '{}'", hash(text))), "{element}: {policy}");
            // It would end the element.
            assert!(!text.contains("</"), "{element}");
        }
        for attribute in [" style=", " onclick=", " onload=", "javascript:", "http:", "//cdn"] {
            assert!(!PAGE.html.contains(attribute), "{attribute}");
        }
    }
}
