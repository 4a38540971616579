//! One event for each request: who asked for what, and how it ended. On Lambda, CloudWatch takes metrics out of the same
//! line ("embedded metric format").
//!
//! The event is written when the answer is over, streamed or not. It never has a token or a signature.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value, json};

use crate::error::{Error, Fault};

/// The namespace of the metrics.
const NAMESPACE: &str = "deltashare";

/// The name of the function whose events are written to standard output with metrics. Not set if the server is no
/// function.
static FUNCTION: OnceLock<String> = OnceLock::new();

/// How long the function took to start.
static START: OnceLock<Duration> = OnceLock::new();

/// The most memory that the process has used, in MB, as far as events have said.
static MEMORY: AtomicU64 = AtomicU64::new(0);

/// Whether a request has been answered since the process began.
static WARM: AtomicBool = AtomicBool::new(false);

tokio::task_local! {
    static CURRENT: Arc<Audit>;
}

/// Writes events with metrics to standard output from now on, where Lambda's log takes them from. The name of the function
/// tells the metrics of servers in one region apart.
pub fn write_metrics(function: String) {
    FUNCTION.get_or_init(|| function);
}

/// Tells how long the function took until it was ready for the first event, which has this as `init_ms`.
pub fn ready_after(start: Duration) {
    START.get_or_init(|| start);
}

/// The facts of one request. The event is written when the last owner drops it.
pub struct Audit {
    began: Instant,
    cold: bool,
    facts: Mutex<Facts>,
}

/// What is known of a request so far.
#[derive(Debug, Default)]
pub struct Facts {
    /// The id under which the log has the request.
    pub request_id: String,
    /// The id under which API Gateway's log has it.
    pub api_request_id: Option<String>,
    /// What is asked, by the protocol's names, such as `QueryTable`.
    pub action: &'static str,
    /// Who asks.
    pub recipient: Option<Arc<str>>,
    /// With which token.
    pub token_id: Option<Arc<str>>,
    /// The table, as `share.schema.table`, or the share.
    pub object: Option<String>,
    /// The version that is answered, or the first of a range.
    pub version: Option<u64>,
    /// The form of the answer.
    pub format: Option<&'static str>,
    /// How many files were granted: their URLs were signed and given to the connection, also of an answer that
    /// broke later.
    pub files: u64,
    /// How many bytes these files have.
    pub bytes: u64,
    /// How many files the hints of the query left out, if it has hints.
    pub left_out: Option<u64>,
    /// Whether the answer ended because its files have as many rows as `limitHint` says.
    pub limit_reached: bool,
    /// Why parts of the hints were not used.
    pub hints_ignored: Option<String>,
    /// Why a filter of the table or the grant shares nothing.
    pub filter_fault: Option<String>,
    /// When the URLs end, in milliseconds since the epoch.
    pub urls_end: Option<i64>,
    /// What the client says it is.
    pub user_agent: Option<String>,
    /// Where the request came from.
    pub source_ip: Option<String>,
    /// The HTTP status; 0 if the client closed the connection before there was one.
    pub status: u16,
    /// Whether the client closed the connection before it had the whole answer.
    pub gone: bool,
    /// Why it failed: the code, the message and the cause, which the recipient does not get.
    pub error: Option<(&'static str, String, Option<String>)>,
    /// What the provider must fix.
    pub fault: Option<Fault>,
}

impl Facts {
    /// Records a failure.
    pub fn fail(&mut self, error: &Error) {
        let source = error.source_text();
        let source = match (error.explanation(), source) {
            (Some(explanation), Some(source)) => Some(format!("{explanation} ({source})")),
            (explanation, source) => explanation.map(str::to_owned).or(source),
        };
        self.fault = error.fault();
        self.error = Some((error.code().as_str(), error.message().to_owned(), source));
    }
}

impl Audit {
    /// A request that begins now.
    pub fn begin(facts: Facts) -> Arc<Self> {
        let cold = !WARM.swap(true, Ordering::Relaxed);
        Arc::new(Self { began: Instant::now(), cold, facts: Mutex::new(facts) })
    }

    /// The request that the current task answers, if there is one.
    pub fn current() -> Option<Arc<Self>> {
        CURRENT.try_with(Arc::clone).ok()
    }

    /// Runs what answers the request.
    pub async fn run<F: Future>(self: &Arc<Self>, answer: F) -> F::Output {
        CURRENT.scope(Arc::clone(self), answer).await
    }

    /// Adds to the facts.
    pub fn note(&self, note: impl FnOnce(&mut Facts)) {
        note(&mut self.facts());
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds to the facts of the request that the current task answers.
pub fn note(note: impl FnOnce(&mut Facts)) {
    if let Some(audit) = Audit::current() {
        audit.note(note);
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        let duration_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let facts = self.facts();
        match FUNCTION.get() {
            Some(function) => {
                let instance = Instance {
                    start_ms: START.get().filter(|_| self.cold).map(Duration::as_millis),
                    memory_mb: grown_memory(),
                };
                print_line(&function_line(function, &facts, duration_ms, &instance, Utc::now()).to_string());
            }
            None => event(&facts, duration_ms, self.cold),
        }
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// The client has the whole answer.
    Answered,
    /// The request was at fault, or the table.
    Refused,
    /// The server, or something behind it, was at fault.
    Failed,
    /// The client closed the connection before it had the whole answer.
    Gone,
    /// The answer failed after its status was sent.
    Broken,
}

impl Outcome {
    fn of(facts: &Facts) -> Self {
        match (&facts.error, facts.status) {
            (Some(_), 400..500) => Self::Refused,
            (Some(_), 200..300) => Self::Broken,
            (Some(_), _) => Self::Failed,
            (None, 0) => Self::Gone,
            (None, _) if facts.gone => Self::Gone,
            (None, _) => Self::Answered,
        }
    }

    /// The level of the event and its message.
    fn told(self, has_fault: bool) -> (&'static str, &'static str) {
        match self {
            Self::Answered => ("INFO", "answered"),
            // The recipient can do nothing about it.
            Self::Refused if has_fault => ("WARN", "refused"),
            Self::Refused => ("INFO", "refused"),
            Self::Gone => ("INFO", "gone"),
            Self::Broken => ("ERROR", "broken"),
            Self::Failed => ("ERROR", "failed"),
        }
    }
}

fn event(facts: &Facts, duration_ms: u64, cold: bool) {
    let (code, message, source) = match &facts.error {
        Some((code, message, source)) => (Some(*code), Some(message.as_str()), source.as_deref()),
        None => (None, None, None),
    };
    macro_rules! write {
        ($level:ident, $message:ident) => {
            tracing::$level!(
                request.id = facts.request_id,
                api.request.id = facts.api_request_id,
                action = facts.action,
                recipient = facts.recipient.as_deref(),
                token.id = facts.token_id.as_deref(),
                object = facts.object,
                version = facts.version,
                format = facts.format,
                files = facts.files,
                bytes = facts.bytes,
                left_out = facts.left_out,
                limit_reached = facts.limit_reached.then_some(true),
                hints_ignored = facts.hints_ignored,
                filter_fault = facts.filter_fault,
                http.status = facts.status,
                duration_ms,
                cold,
                user_agent = facts.user_agent,
                source_ip = facts.source_ip,
                error.code = code,
                error.message = message,
                error.source = source,
                fault = facts.fault.map(Fault::as_str),
                "{}",
                $message
            )
        };
    }
    let (level, message) = Outcome::of(facts).told(facts.fault.is_some());
    match level {
        "ERROR" => write!(error, message),
        "WARN" => write!(warn, message),
        _ => write!(info, message),
    }
}

/// What an event says of the instance of the function.
#[derive(Default)]
struct Instance {
    /// How long it took to start, in the first event.
    start_ms: Option<u128>,
    /// The most memory that it has used, if that is more than an event has said before.
    memory_mb: Option<u64>,
}

/// The most memory that the process has used so far, if it has grown since the last event.
fn grown_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = peak.trim().strip_suffix(" kB")?.parse().ok()?;
    let megabytes = kilobytes.div_ceil(1024);
    (MEMORY.fetch_max(megabytes, Ordering::Relaxed) < megabytes).then_some(megabytes)
}

/// Members of an object of JSON, without those that say nothing.
#[derive(Default)]
struct Members(Map<String, Value>);

impl Members {
    fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.to_owned(), value.into());
    }

    fn set_some(&mut self, name: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.set(name, value);
        }
    }

    /// A metric, which is also a member. Returns how the format refers to it.
    fn metric(&mut self, (name, unit): (&str, Option<&str>), value: impl Into<Value>) -> Value {
        self.set(name, value);
        match unit {
            Some(unit) => json!({"Name": name, "Unit": unit}),
            None => json!({"Name": name}),
        }
    }
}

/// The event of a request and its metrics, in one object. CloudWatch Logs bills each byte, so that every fact is there once,
/// under the name of its metric if it has one, and a count of 0 is left out: its sum is the same.
fn function_line(
    function: &str,
    facts: &Facts,
    duration_ms: u64,
    instance: &Instance,
    now: DateTime<Utc>,
) -> Value {
    let outcome = Outcome::of(facts);
    let (level, message) = outcome.told(facts.fault.is_some());
    let mut line = Members::default();
    // Lambda reads these two, and adds a timestamp to a line that has none.
    line.set("timestamp", now.to_rfc3339_opts(SecondsFormat::Millis, true));
    line.set("level", level);
    line.set("message", message);
    line.set("request.id", facts.request_id.as_str());
    line.set_some("recipient", facts.recipient.as_deref());
    line.set_some("token.id", facts.token_id.as_deref());
    line.set_some("object", facts.object.as_deref());
    line.set_some("version", facts.version);
    line.set_some("format", facts.format);
    line.set_some("left_out", facts.left_out);
    line.set_some("limit_reached", facts.limit_reached.then_some(true));
    line.set_some("hints_ignored", facts.hints_ignored.as_deref());
    line.set_some("filter_fault", facts.filter_fault.as_deref());
    line.set("http.status", facts.status);
    line.set_some("user_agent", facts.user_agent.as_deref());
    line.set_some("source_ip", facts.source_ip.as_deref());
    line.set_some("cold", instance.start_ms.map(|_| true));
    line.set_some("init_ms", instance.start_ms.and_then(|start| u64::try_from(start).ok()));
    line.set_some("memory_mb", instance.memory_mb);
    if let Some((code, text, source)) = &facts.error {
        // Only the body of an error names it.
        line.set_some("api.request.id", facts.api_request_id.as_deref());
        line.set("error.code", *code);
        line.set("error.message", text.as_str());
        line.set_some("error.source", source.as_deref());
    }
    line.set("FunctionName", function);
    line.set("Action", facts.action);
    let life = facts.urls_end.map(|end| (end - now.timestamp_millis()) / 1000);
    let spaces = metrics(&mut line, facts, outcome, duration_ms, life);
    line.set("_aws", json!({"Timestamp": now.timestamp_millis(), "CloudWatchMetrics": spaces}));
    Value::Object(line.0)
}

/// Latency in milliseconds, the life of the shortest URL in seconds, and counts. What alarms watch is also there for every
/// action together. Counts have no unit, which means the same.
fn metrics(
    line: &mut Members,
    facts: &Facts,
    outcome: Outcome,
    duration_ms: u64,
    life: Option<i64>,
) -> Vec<Value> {
    let mut of_action = vec![line.metric(("Latency", Some("Milliseconds")), duration_ms)];
    let mut watched = Vec::new();
    if matches!(outcome, Outcome::Failed | Outcome::Broken) {
        of_action.push(line.metric(("Errors", None), 1));
    }
    if outcome == Outcome::Gone {
        of_action.push(line.metric(("Gone", None), 1));
    }
    if facts.files > 0 {
        of_action.push(line.metric(("FilesSigned", None), facts.files));
        of_action.push(line.metric(("BytesGranted", Some("Bytes")), facts.bytes));
    }
    if outcome == Outcome::Broken {
        watched.push(line.metric(("Broken", None), 1));
    }
    if facts.status == 401 {
        watched.push(line.metric(("AuthFailures", None), 1));
    }
    if let Some(life) = life {
        watched.push(line.metric(("ShortestUrlLife", Some("Seconds")), life));
    }
    let mut faults = Vec::new();
    if let Some(fault) = facts.fault {
        line.set("fault", fault.as_str());
        line.set("Fault", fault.as_str());
        faults.push(line.metric(("ProviderFaults", None), 1));
    }
    let spaces = [
        (json!([["FunctionName", "Action"]]), of_action),
        (json!([["FunctionName", "Action"], ["FunctionName"]]), watched),
        (json!([["FunctionName"], ["FunctionName", "Fault"]]), faults),
    ];
    spaces
        .into_iter()
        .filter(|(_, metrics)| !metrics.is_empty())
        .map(|(dimensions, metrics)| {
            json!({"Namespace": NAMESPACE, "Dimensions": dimensions, "Metrics": metrics})
        })
        .collect()
}

#[expect(clippy::print_stdout, reason = "the log of a Lambda function is its standard output")]
fn print_line(line: &str) {
    println!("{line}");
}
