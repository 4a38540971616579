//! The server as a Lambda function: REST events of API Gateway and events of function URLs, answered as a stream.

mod config;
mod event;
mod runtime_api;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::http::header::{ACCEPT_ENCODING, CONTENT_LENGTH};
use axum::http::uri::PathAndQuery;
use axum::response::Response;
use deltashare::app::App;
use deltashare::audit;
use deltashare::catalog::dynamodb::{self, DynamoDbCatalog};
use deltashare::error::RequestIds;
use deltashare::http::{Browsers, CorsOrigin, CorsOrigins, SourceIp, router_for};
use deltashare::logging;
use deltashare::ndjson::Bounds;
use deltashare::protocol::tokens::TokenKey;
use deltashare::storage::{Storage, StorageOptions};
use lambda_http::lambda_runtime::{self, FunctionResponse};
use lambda_http::request::RequestContext;
use lambda_http::{LambdaEvent, RequestExt as _, Service as _, StreamAdapter, service_fn};
use tower::ServiceExt as _;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use config::Config;
use event::{Event, OwnCheck};
use runtime_api::Connections;

/// How long connections may take to open before the first request; what is not open then opens with it.
const WARM_UP: Duration = Duration::from_secs(2);

/// How long before Lambda ends the function an answer is given up.
const MARGIN: Duration = Duration::from_secs(2);

/// The most that an answer may have. Lambda cuts it off at 200 MB.
const LARGEST: u64 = 199_000_000;

/// The connections to Lambda's Runtime API, where answers go. Not set if they cannot be recognized.
static RUNTIME_API: OnceLock<Connections> = OnceLock::new();

fn main() -> Result<(), lambda_http::Error> {
    let began = Instant::now();
    deltashare::allocator::use_one_heap();
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("warn,buoyant_kernel=off,deltashare=info,lambda=info"));
    let log = tracing_subscriber::fmt().json().flatten_event(true).with_env_filter(filter).with_ansi(false);
    log.finish().with(filter_fn(logging::may_be_written)).init();
    audit::write_metrics(std::env::var("AWS_LAMBDA_FUNCTION_NAME").unwrap_or_default());
    // The log is read by one thread while another signs.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(run(began))
}

async fn run(began: Instant) -> Result<(), lambda_http::Error> {
    let config = Config::from_env(|name| std::env::var(name).ok())?;
    if let Some(connections) = Connections::to(&config.runtime_api) {
        RUNTIME_API.get_or_init(|| connections);
    }
    let base_path: Arc<str> = config.base_path.as_str().into();
    let gzip = config.gzip;
    let (router, own_check) = build(config).await?;
    let own_check = Arc::new(own_check);
    let requests = service_fn(move |request: lambda_http::Request| {
        let (router, base_path) = (router.clone(), base_path.clone());
        async move {
            if let Some(runtime_api) = RUNTIME_API.get() {
                runtime_api.find();
            }
            Ok::<_, lambda_http::Error>(answer(router, request, &base_path, gzip).await)
        }
    });
    let mut requests = StreamAdapter::from(requests);
    let answer = service_fn(move |LambdaEvent { payload, context }: LambdaEvent<Event>| {
        let work = match payload {
            Event::Request(request) => Ok(requests.call(LambdaEvent::new(*request, context))),
            Event::Check(asked) => Err((asked, context.deadline)),
        };
        let own_check = Arc::clone(&own_check);
        async move {
            Ok::<_, lambda_http::Error>(match work {
                Ok(answer) => FunctionResponse::StreamingResponse(answer.await?),
                Err((asked, deadline)) => {
                    FunctionResponse::BufferedResponse(own_check.answer(&asked, deadline).await)
                }
            })
        }
    });
    audit::ready_after(began.elapsed());
    lambda_runtime::run(answer).await
}

/// Puts the server together, with its connections open and its credentials loaded.
async fn build(config: Config) -> Result<(Router, OwnCheck), lambda_http::Error> {
    let sdk = aws_config::load_defaults(aws_config::BehaviorVersion::v2026_01_12()).await;
    let sdk = aws_sdk_dynamodb::config::Builder::from(&sdk);
    let signer_role = config.s3.signer_role.clone();
    let catalog = DynamoDbCatalog::new(sdk.clone(), &config.table, dynamodb::DEADLINE);
    let directory_role = config.s3.signer_role.clone();
    let options = StorageOptions { url_ttl: config.url_ttl, gateway: None, s3: config.s3, directory_role };
    let storage = Storage::new(options);
    let (key, warm) = tokio::join!(catalog.token_key(), tokio::time::timeout(WARM_UP, storage.warm()));
    if !matches!(warm, Ok(Ok(()))) {
        tracing::warn!("the signer role could not be assumed before the first request");
    }
    let key = TokenKey::new(&key?);
    let app = Arc::new(App::new(Arc::new(catalog), storage, key, &config.base_path, config.limits));
    let own_check = OwnCheck { app: Arc::clone(&app), sdk, catalog: config.table, signer_role };
    let browsers = Browsers { pages: config.pages, origins: CorsOrigins::default() };
    Ok((router_for(app, browsers), own_check))
}

/// Answers one event, or says in time that it cannot.
async fn answer(router: Router, request: lambda_http::Request, base_path: &str, gzip: bool) -> Response {
    let context = request.lambda_context();
    let deadline = in_time(context.deadline);
    // Compression is undone on the way from a function URL.
    let gzip = gzip && matches!(request.request_context_ref(), Some(RequestContext::ApiGatewayV1(_)));
    let origins = cors_origins(&request);
    let mut request = http_request(request, context.request_id, base_path);
    request.extensions_mut().insert(origins);
    if !gzip {
        request.headers_mut().remove(ACCEPT_ENCODING);
    }
    request.extensions_mut().insert(Bounds {
        deadline: Some(deadline),
        bytes: Some(LARGEST),
        alone: true,
        unread: Some(|| RUNTIME_API.get().map_or(0, Connections::unread)),
    });
    let mut response = match router.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    // API Gateway renames the header of an answer that it streams.
    response.headers_mut().remove(CONTENT_LENGTH);
    response
}

/// The stage variable with the origins whose pages may read answers, separated by commas; `any` for every origin. A stage
/// can have other origins than another one of the same function, and a change needs no other version of the function.
const CORS_ORIGINS: &str = "corsOrigins";

/// The origins of the stage that the request came by. Function URLs have no stage variables: AWS itself adds headers to
/// their answers.
fn cors_origins(request: &lambda_http::Request) -> CorsOrigins {
    let variables = request.stage_variables_ref();
    let text = variables.and_then(|variables| variables.first(CORS_ORIGINS)).unwrap_or_default();
    // A stage variable cannot have an asterisk.
    let text = if text == "any" { "*" } else { text };
    let origins = text.split(',').map(str::trim).filter(|origin| !origin.is_empty());
    CorsOrigins(
        origins
            .filter_map(|origin| match CorsOrigin::parse(origin) {
                Ok(origin) => Some(origin),
                Err(reason) => {
                    tracing::error!(origin, reason, "the stage variable {CORS_ORIGINS} cannot be read");
                    None
                }
            })
            .collect(),
    )
}

/// The last moment to answer. `deadline` is when Lambda ends the function, in milliseconds since 1970.
fn in_time(deadline: u64) -> Instant {
    let left = (SystemTime::UNIX_EPOCH + Duration::from_millis(deadline))
        .duration_since(SystemTime::now())
        .unwrap_or_default();
    Instant::now() + left.saturating_sub(MARGIN)
}

/// The path with the base path before it. A custom domain leaves the base path in the event; the addresses that API
/// Gateway and Lambda give have none.
fn below_base_path(base_path: &str, path: &str) -> String {
    match path.strip_prefix(base_path) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => path.to_owned(),
        _ => format!("{base_path}{path}"),
    }
}

/// The event as a request: with the path as the client wrote it, without the stage.
fn http_request(request: lambda_http::Request, id: String, base_path: &str) -> Request<Body> {
    let path = below_base_path(base_path, request.raw_http_path());
    let (source_ip, api) = match request.request_context_ref() {
        Some(RequestContext::ApiGatewayV1(context)) => {
            (context.identity.source_ip.clone(), context.request_id.clone())
        }
        Some(RequestContext::ApiGatewayV2(context)) => {
            (context.http.source_ip.clone(), context.request_id.clone())
        }
        Some(_) | None => (None, None),
    };
    let (mut parts, body) = request.into_parts();
    let path_and_query = match parts.uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    if let Ok(path_and_query) = PathAndQuery::try_from(path_and_query) {
        parts.uri = path_and_query.into();
    }
    parts.extensions.insert(RequestIds { request: id, api });
    if let Some(address) = source_ip {
        parts.extensions.insert(SourceIp(address));
    }
    let body = match body {
        lambda_http::Body::Empty => Body::empty(),
        lambda_http::Body::Text(text) => Body::from(text),
        lambda_http::Body::Binary(bytes) => Body::from(bytes),
        other => Body::from(other.to_vec()),
    };
    Request::from_parts(parts, body)
}

#[cfg(test)]
mod tests {
    use super::below_base_path;

    #[test]
    fn every_address_leads_below_the_base_path() {
        for (base_path, path, expected) in [
            ("", "/shares", "/shares"),
            ("/consumer", "/consumer/shares", "/consumer/shares"),
            ("/consumer", "/consumer", "/consumer"),
            ("/consumer", "/shares", "/consumer/shares"),
            ("/consumer", "/consumers", "/consumer/consumers"),
        ] {
            assert_eq!(below_base_path(base_path, path), expected);
        }
    }
}
