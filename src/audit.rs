//! One event for each request: who asked for what, and how it ended. From the same facts come the metrics that
//! CloudWatch takes out of the log ("embedded metric format").
//!
//! The event is written when the answer is over, streamed or not. It never has a token or a signature.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use chrono::Utc;
use serde_json::{Value, json};

use crate::error::{Error, Fault};

/// The namespace of the metrics.
const NAMESPACE: &str = "deltashare";

/// The name of the function whose metrics are written to standard output. Not set if no metrics are written.
static METRICS: OnceLock<String> = OnceLock::new();

/// Whether a request has been answered since the process began.
static WARM: AtomicBool = AtomicBool::new(false);

tokio::task_local! {
    static CURRENT: Arc<Audit>;
}

/// Writes metrics to standard output from now on, where Lambda's log takes them from. The name of the function tells
/// the metrics of servers in one region apart.
pub fn write_metrics(function: String) {
    METRICS.get_or_init(|| function);
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
        event(&facts, duration_ms, self.cold);
        if let Some(function) = METRICS.get() {
            metrics(function, &facts, duration_ms);
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
}

fn event(facts: &Facts, duration_ms: u64, cold: bool) {
    let (code, message, source) = match &facts.error {
        Some((code, message, source)) => (Some(*code), Some(message.as_str()), source.as_deref()),
        None => (None, None, None),
    };
    macro_rules! write {
        ($level:ident, $outcome:literal) => {
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
                $outcome
            )
        };
    }
    match Outcome::of(facts) {
        Outcome::Answered => write!(info, "answered"),
        // The recipient can do nothing about it.
        Outcome::Refused if facts.fault.is_some() => write!(warn, "refused"),
        Outcome::Refused => write!(info, "refused"),
        Outcome::Gone => write!(info, "gone"),
        Outcome::Broken => write!(error, "broken"),
        Outcome::Failed => write!(error, "failed"),
    }
}

/// One line that CloudWatch makes metrics of: latency in milliseconds, the life of the shortest URL in seconds.
/// What alarms watch is also counted over every action.
fn metrics(function: &str, facts: &Facts, duration_ms: u64) {
    let outcome = Outcome::of(facts);
    let metric = |name: &str, unit: &str| json!({"Name": name, "Unit": unit});
    let mut names = vec![
        metric("Latency", "Milliseconds"),
        metric("Errors", "Count"),
        metric("Gone", "Count"),
        metric("Broken", "Count"),
        metric("AuthFailures", "Count"),
        metric("FilesSigned", "Count"),
        metric("BytesGranted", "Bytes"),
    ];
    let life = facts.urls_end.map(|end| (end - Utc::now().timestamp_millis()) / 1000);
    let mut watched =
        vec![metric("AuthFailures", "Count"), metric("Broken", "Count"), metric("ProviderFaults", "Count")];
    if life.is_some() {
        names.push(metric("ShortestUrlLife", "Seconds"));
        watched.push(metric("ShortestUrlLife", "Seconds"));
    }
    let mut line = json!({
        "_aws": {
            "Timestamp": Utc::now().timestamp_millis(),
            "CloudWatchMetrics": [
                {"Namespace": NAMESPACE, "Dimensions": [["FunctionName", "Action"]], "Metrics": names},
                {"Namespace": NAMESPACE, "Dimensions": [["FunctionName"]], "Metrics": watched},
            ],
        },
        "FunctionName": function,
        "Action": facts.action,
        "Latency": duration_ms,
        "Errors": u8::from(matches!(outcome, Outcome::Failed | Outcome::Broken)),
        "Gone": u8::from(outcome == Outcome::Gone),
        "Broken": u8::from(outcome == Outcome::Broken),
        "AuthFailures": u8::from(facts.status == 401),
        "ProviderFaults": u8::from(facts.fault.is_some()),
        "FilesSigned": facts.files,
        "BytesGranted": facts.bytes,
    });
    if let Some(life) = life {
        line["ShortestUrlLife"] = json!(life);
    }
    if let Some(fault) = facts.fault {
        line["Fault"] = json!(fault.as_str());
        let counted = json!({
            "Namespace": NAMESPACE,
            "Dimensions": [["FunctionName", "Fault"]],
            "Metrics": [metric("ProviderFaults", "Count")],
        });
        if let Some(Value::Array(spaces)) = line.pointer_mut("/_aws/CloudWatchMetrics") {
            spaces.push(counted);
        }
    }
    print_line(&line.to_string());
}

#[expect(clippy::print_stdout, reason = "the log of a Lambda function is its standard output")]
fn print_line(line: &str) {
    println!("{line}");
}
