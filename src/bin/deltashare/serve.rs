//! `deltashare serve`: the server on this machine, over local directories or S3.

use std::io::IsTerminal as _;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aws_config::SdkConfig;
use clap::Args;
use deltashare::app::App;
use deltashare::catalog::Catalog;
use deltashare::catalog::dynamodb::{self, DynamoDbCatalog};
use deltashare::catalog::share_file::{ShareFile, ShareFileCatalog};
use deltashare::http::{Browsers, CorsOrigin, CorsOrigins, router_for};
use deltashare::limits::Limits;
use deltashare::logging;
use deltashare::network::Cidr;
use deltashare::oidc::Oidc;
use deltashare::protocol::tokens::TokenKey;
use deltashare::role::RoleArn;
use deltashare::storage::{Gateway, Storage, StorageOptions};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use url::{Host, Url};

use super::aws::Aws;
use super::next_step::no_table;
use super::share_file::{Silence, Stamp};
use super::{Failure, connections, descriptors, example, share_file, token_key};

/// How long requests in flight may continue after SIGTERM.
const GRACE: Duration = Duration::from_secs(10);

const DEFAULT_URL_TTL: Duration = Duration::from_secs(3600);

/// The longest life that S3 gives a presigned URL.
const MAX_URL_TTL: Duration = Duration::from_secs(7 * 24 * 3600);

/// The longest time that a connection may be set to wait.
const MAX_TIMEOUT: Duration = Duration::from_secs(3600);

/// Limits that have an option of their own.
const LIMITS_WITH_OPTIONS: [(&str, &str); 4] = [
    ("connections", "--max-connections"),
    ("connections_per_address", "--max-connections-per-address"),
    ("idle_timeout", "--idle-timeout"),
    ("send_timeout", "--send-timeout"),
];

/// Serve the tables of a share file, or the examples.
///
/// Tables can be in local directories, which this server serves itself through presigned URLs, or in S3,
/// which it reads and signs with the credentials that the AWS CLI would use.
///
/// Without --shares, it serves the example tables, creates a recipient whose token expires after a day,
/// writes its profile, and prints commands to try.
///
/// With --catalog, shares and recipients are in a DynamoDB table. A change applies from the next
/// request.
///
/// A share file is read again when it changes. If the new one has an error, the server logs the line and
/// the reason, and keeps the previous one.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  deltashare serve\n  deltashare serve --shares shares.yaml --listen 127.0.0.1:0\n  deltashare serve --shares shares.yaml --listen 0.0.0.0:8080 --public-url https://sharing.example.com\n  deltashare serve --catalog dynamodb:deltashare\n  deltashare serve --shares shares.yaml --limit log_commit_bytes=268435456\n  deltashare serve --shares shares.yaml --cors-origin https://app.example.com\n\nEnvironment: RUST_LOG sets what is logged to standard error, such as RUST_LOG=warn. For tables in S3 and\nDynamoDB: whatever the AWS CLI takes, such as AWS_PROFILE, or AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and\nAWS_SESSION_TOKEN; AWS_REGION, AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL_STS, AWS_ENDPOINT_URL_DYNAMODB."
)]
pub(crate) struct Options {
    /// The share file: the reference server's YAML, plus recipients. Default: the examples.
    #[arg(long, value_name = "FILE")]
    shares: Option<PathBuf>,

    /// A DynamoDB table with shares and recipients instead of a share file: dynamodb:TABLE. Tables must be
    /// in S3.
    #[arg(long, value_name = "CATALOG", value_parser = parse_catalog, conflicts_with = "shares")]
    catalog: Option<String>,

    /// The address and port to listen on. Port 0 takes a free port, which the line `listening on …` shows.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,

    /// The prefix of all paths. Default: `endpoint` of the share file, else /delta-sharing.
    #[arg(long, value_name = "PATH")]
    prefix: Option<String>,

    /// How long a presigned URL is valid: seconds, or a number with s, m, h or d; 7d at most. Default:
    /// `preSignedUrlTimeoutSeconds` of the share file, else 1h.
    #[arg(long, value_name = "TIME", value_parser = parse_ttl)]
    url_ttl: Option<Duration>,

    /// The URL by which recipients reach this server, without the prefix; it goes into profiles and
    /// into the presigned URLs of local tables. Default: http:// and the address of --listen.
    #[arg(long, value_name = "URL", value_parser = parse_public_url)]
    public_url: Option<Url>,

    /// The file with the key of page tokens, refresh tokens and query ids: 64 hexadecimal digits. It is
    /// created if it does not exist. Servers behind one URL need the same key. Default: with --catalog, the key in the
    /// table; else a key that is lost when the server stops.
    #[arg(long, value_name = "FILE")]
    token_key: Option<PathBuf>,

    /// The role that is assumed for recipients of tables with `directoryAccess`, who then read the table's
    /// directory in S3 with temporary credentials. Default: no temporary credentials are issued.
    #[arg(long, value_name = "ARN", value_parser = parse_role)]
    directory_role: Option<RoleArn>,

    /// The role that reads tables in S3 and signs their URLs, assumed with the credentials of the
    /// environment or profile. Default: these credentials themselves.
    #[arg(long, value_name = "ARN", value_parser = parse_role)]
    signer_role: Option<RoleArn>,

    /// Contact OIDC issuers on this machine by HTTP (http://localhost or http://127.0.0.1), for tests. Other issuers always
    /// need HTTPS.
    #[arg(long)]
    allow_loopback_issuers: bool,

    /// The most connections at a time. Beyond that limit, connections without a request are closed, and then requests get
    /// 503. Default: 1024, or what the limit of open files allows.
    #[arg(long, value_name = "NUMBER", value_parser = parse_number)]
    max_connections: Option<usize>,

    /// The most connections from one address. Behind a proxy, all of them have one address. Default: half of all.
    #[arg(long, value_name = "NUMBER", value_parser = parse_number)]
    max_connections_per_address: Option<usize>,

    /// The addresses of proxies in front of this server, such as 10.0.0.0/8,2001:db8::7. From them alone, X-Forwarded-For
    /// says where a request comes from: the log and the allowed addresses of recipients go by the first address from the right
    /// that is not one of these. Default: none.
    #[arg(long, value_name = "CIDR", value_parser = Cidr::parse, value_delimiter = ',')]
    trusted_proxies: Vec<Cidr>,

    /// How long a connection stays open without a request, as a number with s or m. A proxy in front of this server
    /// must close idle connections sooner. Default: 75s.
    #[arg(long, value_name = "TIME", value_parser = parse_timeout)]
    idle_timeout: Option<Duration>,

    /// How long a client can stop reading its answer before the connection is closed. Default: 60s.
    #[arg(long, value_name = "TIME", value_parser = parse_timeout)]
    send_timeout: Option<Duration>,

    /// Another limit of docs/limits.md by its name, such as log_commit_bytes=268435456. Repeat the option for several.
    #[arg(long = "limit", value_name = "NAME=NUMBER", value_parser = parse_limit)]
    limits: Vec<String>,

    /// An origin whose web pages can read answers in a browser, such as https://app.example.com, or * for every
    /// origin. Repeat the option for several. Default: no other origin.
    #[arg(long = "cors-origin", value_name = "ORIGIN", value_parser = CorsOrigin::parse)]
    cors_origins: Vec<CorsOrigin>,

    /// Do not serve the page for recipients, which a browser gets at the endpoint.
    #[arg(long)]
    no_pages: bool,

    /// The file to write the profile of the example recipient to.
    #[arg(long, value_name = "FILE", default_value = "example.share", conflicts_with = "shares")]
    profile: PathBuf,
}

fn parse_ttl(text: &str) -> Result<Duration, String> {
    let ttl = parse_time(text)?;
    if ttl > MAX_URL_TTL { Err("must be at most 7 days".to_owned()) } else { Ok(ttl) }
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    let timeout = parse_time(text)?;
    if timeout > MAX_TIMEOUT { Err("must be at most 1 hour".to_owned()) } else { Ok(timeout) }
}

fn parse_number(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|&number| number > 0).ok_or_else(|| "not a number from 1".to_owned())
}

fn parse_limit(text: &str) -> Result<String, String> {
    let name = text.split('=').next().unwrap_or_default();
    if let Some((_, option)) = LIMITS_WITH_OPTIONS.iter().find(|(limit, _)| *limit == name) {
        return Err(format!("use {option}"));
    }
    Limits::default().set([text]).map(|_| text.to_owned())
}

fn parse_time(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.find(|character: char| !character.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, "s"),
    };
    let seconds = match unit {
        "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3600),
        "d" => Some(24 * 3600),
        _ => None,
    };
    let ttl = seconds.zip(number.parse::<u64>().ok()).and_then(|(unit, number)| number.checked_mul(unit));
    let ttl = Duration::from_secs(ttl.ok_or("not a time such as 900, 30m, 1h or 7d")?);
    if ttl.is_zero() { Err("must be at least 1 second".to_owned()) } else { Ok(ttl) }
}

/// The name of the DynamoDB table.
fn parse_catalog(text: &str) -> Result<String, String> {
    let name = text.strip_prefix("dynamodb:").filter(|name| {
        (3..=255).contains(&name.len())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
    });
    name.map(str::to_owned).ok_or_else(|| "not a catalog such as dynamodb:deltashare".to_owned())
}

pub(crate) fn parse_role(text: &str) -> Result<RoleArn, String> {
    RoleArn::parse(text).ok_or_else(|| "not a role such as arn:aws:iam::123456789012:role/readers".to_owned())
}

fn parse_public_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    let is_bare = url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() || !is_bare {
        return Err("not a URL such as https://sharing.example.com".to_owned());
    }
    Ok(url)
}

/// Runs the server until SIGTERM or SIGINT.
pub(crate) fn run(options: Options) -> Result<(), Failure> {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("warn,buoyant_kernel=off,deltashare=info"));
    let terminal = std::io::stderr().is_terminal();
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(terminal);
    log.finish().with(filter_fn(logging::may_be_written)).init();
    let limits = limits(&options)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .max_blocking_threads(limits.blocking_threads)
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("the runtime cannot start: {error}")))?;
    let done = runtime.block_on(serve(options, limits));
    // Threads that wait for a slow store would keep the process alive otherwise.
    runtime.shutdown_timeout(Duration::from_millis(100));
    done
}

async fn serve(options: Options, limits: Limits) -> Result<(), Failure> {
    let assumes = options.signer_role.is_some() || options.directory_role.is_some();
    let aws = match assumes || options.catalog.is_some() {
        true => Aws::signed_in().await?,
        false => Aws::load().await?,
    };
    let configured = ConfiguredCatalog::read(&options, &aws)?;
    let listener = TcpListener::bind(options.listen).await.map_err(|error| {
        Failure::failed(format!(
            "cannot listen on {}: {error}; choose another port with --listen",
            options.listen
        ))
    })?;
    let address = listener.local_addr().map_err(|error| Failure::failed(error.to_string()))?;
    let public_url = public_url(&options, address)?;
    let prefix = options
        .prefix
        .clone()
        .or_else(|| configured.file().and_then(|file| file.endpoint.clone()))
        .unwrap_or_else(|| "/delta-sharing".to_owned());
    let prefix = prefix.trim_matches('/').to_owned();
    let base = public_url.as_str().trim_end_matches('/');
    let endpoint = if prefix.is_empty() { format!("{base}/") } else { format!("{base}/{prefix}/") };

    let gateway = Gateway::new(&public_url);
    let in_file = configured.file().and_then(|file| file.url_ttl_seconds).map(Duration::from_secs);
    let url_ttl = options.url_ttl.or(in_file).unwrap_or(DEFAULT_URL_TTL);
    let url_ttl = url_ttl.clamp(Duration::from_secs(1), MAX_URL_TTL);
    let mut s3 = aws.s3;
    s3.signer_role.clone_from(&options.signer_role);
    let storage = Storage::new(StorageOptions {
        url_ttl,
        // Tables of DynamoDB are in S3: without a gateway nothing can hand out files of this machine.
        gateway: configured.file().map(|_| Arc::clone(&gateway)),
        s3,
        directory_role: options.directory_role.clone(),
    });
    let token_key = match &options.token_key {
        Some(path) => token_key::read_or_make(path)?,
        None => configured.token_key(&aws.sdk).await?,
    };
    let Serving { catalog, watcher, hints } = configured.serve(gateway, &options, &endpoint)?;
    let mut app = App::new(catalog, storage, token_key, &prefix, limits);
    app.oidc = Oidc::new(options.allow_loopback_issuers);
    let origins = CorsOrigins(options.cors_origins.clone());
    let browsers = Browsers { pages: !options.no_pages, origins };
    let router = router_for(Arc::new(app), browsers);
    let stopped = asked_to_stop();
    println!(
        "listening on http://{address}/{}",
        if prefix.is_empty() { String::new() } else { format!("{prefix}/") }
    );
    if let Some(hints) = hints {
        eprintln!("{hints}");
    }
    let watcher = watcher.map(tokio::spawn);

    let stopped = async {
        stopped.await;
        tracing::info!("stopping; requests in flight have {} seconds", GRACE.as_secs());
    };
    let front = connections::Front::new(router, &prefix, limits, options.trusted_proxies);
    if !connections::serve(listener, front, stopped, GRACE).await {
        tracing::warn!("requests were still in flight and were cut off");
    }
    if let Some(watcher) = watcher {
        watcher.abort();
    }
    Ok(())
}

/// The limits that the options set, as far as the system allows them.
fn limits(options: &Options) -> Result<Limits, Failure> {
    let limits = Limits::default().set(options.limits.iter().map(String::as_str)).map_err(Failure::usage)?;
    if limits.blocking_threads <= limits.work_threads {
        return Err(Failure::usage("the limit blocking_threads must be larger than work_threads"));
    }
    let connections = descriptors::connections(options.max_connections.unwrap_or(limits.connections));
    Ok(Limits {
        connections,
        connections_per_address: options.max_connections_per_address.unwrap_or(connections.div_ceil(2)),
        idle_timeout: options.idle_timeout.unwrap_or(limits.idle_timeout),
        send_timeout: options.send_timeout.unwrap_or(limits.send_timeout),
        ..limits
    })
}

/// Where shares and recipients are read from.
enum ConfiguredCatalog {
    /// A share file, and its path.
    File(PathBuf, ShareFile, Stamp),
    /// The examples, for a recipient that is created at start.
    Examples(PathBuf, ShareFile, Stamp, example::Token),
    /// A DynamoDB table.
    DynamoDb(DynamoDbCatalog),
}

/// What is served.
struct Serving {
    catalog: Arc<dyn Catalog>,
    /// Keeps the catalog up to date.
    watcher: Option<BoxFuture<'static, ()>>,
    /// Commands to try, for someone who has just started the server.
    hints: Option<String>,
}

impl ConfiguredCatalog {
    fn read(options: &Options, aws: &Aws) -> Result<Self, Failure> {
        if let Some(table) = &options.catalog {
            let config = aws_sdk_dynamodb::config::Builder::from(&aws.sdk);
            return Ok(Self::DynamoDb(DynamoDbCatalog::new(config, table, dynamodb::DEADLINE)));
        }
        match &options.shares {
            Some(path) => {
                let (file, stamp) = share_file::read(path).map_err(Failure::usage)?;
                let checked = silence(options).check(&file);
                checked.map_err(|reason| Failure::usage(format!("{}: {reason}", path.display())))?;
                share_file::warn(&file);
                Ok(Self::File(path.clone(), file, stamp))
            }
            None => {
                let path = example::share_file()?;
                let (file, stamp) = share_file::read(&path).map_err(Failure::usage)?;
                Ok(Self::Examples(path, file, stamp, example::Token::random()?))
            }
        }
    }

    fn file(&self) -> Option<&ShareFile> {
        match self {
            Self::File(_, file, _) | Self::Examples(_, file, ..) => Some(file),
            Self::DynamoDb(_) => None,
        }
    }

    /// The key of tokens: of all servers over a DynamoDB table, or of this process.
    async fn token_key(&self, aws: &SdkConfig) -> Result<TokenKey, Failure> {
        let key = match self {
            Self::DynamoDb(catalog) => catalog.token_key().await.map(|key| TokenKey::new(&key)),
            Self::File(..) | Self::Examples(..) => TokenKey::random(),
        };
        let error = match key {
            Ok(key) => return Ok(key),
            Err(error) => error,
        };
        let source = std::error::Error::source(&error).map(ToString::to_string);
        let mut reason = source.unwrap_or_else(|| error.to_string());
        if let Self::DynamoDb(catalog) = self
            && reason.contains("ResourceNotFoundException")
        {
            reason = no_table(aws, catalog.table_name(), "--catalog dynamodb:TABLE").await;
        }
        Err(Failure::failed(format!("the catalog cannot be read: {reason}")))
    }

    /// Begins to serve: local directories through `gateway`, the examples' recipient with a profile for
    /// `endpoint`.
    fn serve(self, gateway: Arc<Gateway>, options: &Options, endpoint: &str) -> Result<Serving, Failure> {
        let (path, mut file, stamp, guest) = match self {
            Self::DynamoDb(catalog) => {
                return Ok(Serving { catalog: Arc::new(catalog), watcher: None, hints: None });
            }
            Self::File(path, file, stamp) => (path, file, stamp, None),
            Self::Examples(path, file, stamp, token) => (path, file, stamp, Some(token)),
        };
        let mut hints = None;
        if let Some(token) = &guest {
            let profile = options.profile.as_path();
            example::write_profile(profile, endpoint, token)?;
            let example = file.tables().find(|table| table.name.as_str() == example::TABLE);
            let shown = example.or_else(|| file.tables().next());
            let shown = shown.map(|table| format!("{}.{}.{}", table.share, table.schema, table.name));
            hints = Some(example::commands(profile, endpoint, shown.as_deref()));
        }
        let prepare = move |file: &mut ShareFile| {
            if let Some(token) = &guest {
                file.add_guest(example::RECIPIENT, &token.text, token.expires);
            }
            // URLs of tables that are no longer shared stop working now.
            gateway.retain(&share_file::directories(file));
        };
        prepare(&mut file);
        let catalog = Arc::new(ShareFileCatalog::new(file));
        let watcher = share_file::watch(path, stamp, Arc::clone(&catalog), silence(options), prepare).boxed();
        Ok(Serving { catalog, watcher: Some(watcher), hints })
    }
}

/// A file may be silent about who may read only if no other machine reaches this server.
fn silence(options: &Options) -> Silence {
    let local = |ip: IpAddr| ip.to_canonical().is_loopback();
    let public = options.public_url.as_ref().and_then(Url::host);
    let public_is_local = match public {
        None => true,
        Some(Host::Ipv4(ip)) => local(ip.into()),
        Some(Host::Ipv6(ip)) => local(ip.into()),
        Some(Host::Domain(name)) => name == "localhost",
    };
    if local(options.listen.ip()) && public_is_local { Silence::Opens } else { Silence::IsRefused }
}

/// The URL by which recipients reach this server, without the prefix.
fn public_url(options: &Options, address: SocketAddr) -> Result<Url, Failure> {
    match &options.public_url {
        Some(url) => Ok(url.clone()),
        None if address.ip().is_unspecified() => Err(Failure::usage(format!(
            "recipients cannot reach {address}; give the address they use with --public-url"
        ))),
        None => Url::parse(&format!("http://{address}")).map_err(|error| Failure::failed(error.to_string())),
    }
}

/// Ends with SIGTERM or SIGINT. From this call on they do not end the process by themselves.
fn asked_to_stop() -> impl Future<Output = ()> {
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    async {
        let (Ok(mut terminate), Ok(mut interrupt)) = signals else {
            tracing::error!("signals cannot be received; stop this process with SIGKILL");
            return std::future::pending().await;
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}
