//! The fuzz targets: what comes from outside, whatever it is, gets an answer or an error, in time, and the process lives.
//!
//! `./tests/run fuzz` runs each for `FUZZ_SECONDS`, guided by the branches of this workspace's crates, from the inputs in
//! `seeds/` and those that it kept in `tests/.cache/fuzz`. An input that fails is left in `tests/.cache/fuzz/failed`, and
//! belongs in `seeds/` when its fault is mended: `cargo test --test fuzz` runs every seed. With cargo-fuzz,
//! `cargo fuzz run -s none TARGET` is guided by the branches of all dependencies, which it then builds once more.

#[allow(dead_code)]
#[path = "../../tests/delta_log/log.rs"]
mod log;
mod logs;
mod predicates;
mod records;
mod requests;
mod share_files;

use std::sync::LazyLock;

pub use logs::{checkpoints, commits, hints, parquet, schemas};
pub use predicates::predicates;
pub use records::records;
pub use requests::{requests, tokens};
pub use share_files::share_files;

/// A target, which panics where its input is not treated as it should be.
pub type Target = fn(&[u8]);

/// The targets, by the names of their seeds.
pub const TARGETS: [(&str, Target); 10] = [
    ("checkpoints", checkpoints),
    ("commits", commits),
    ("hints", hints),
    ("parquet", parquet),
    ("predicates", predicates),
    ("records", records),
    ("requests", requests),
    ("schemas", schemas),
    ("share_files", share_files),
    ("tokens", tokens),
];

static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
});

/// Called once in a program that fuzzes.
pub fn begin() {
    // libFuzzer's ends the process at every panic. Those of the Delta kernel are caught where they happen, as in the server.
    drop(std::panic::take_hook());
}

/// Runs what needs no more of the stack than a thread of the server has.
fn on_a_thread(run: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(2 << 20).spawn_scoped(scope, run);
        thread.unwrap().join().unwrap();
    });
}

/// Runs what may not take more memory than a server has for it.
fn within_memory(run: impl FnOnce()) {
    let before = most_kilobytes();
    run();
    let after = most_kilobytes();
    assert!(after.saturating_sub(before) < 600 << 10, "it takes {before} to {after} kB");
}

/// The most memory that this process has had, where Linux tells it.
fn most_kilobytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    most.and_then(|most| most.trim_end_matches("kB").trim().parse().ok()).unwrap_or(0)
}

/// The input as text, if it is some.
fn text(input: &[u8]) -> Option<&str> {
    std::str::from_utf8(input).ok()
}
