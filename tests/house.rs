//! Holds the directions of imports that the crate's documentation draws, by reading the sources.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What each module of the library may name. `error` may be named by all.
const MAY_NAME: [(&str, &[&str]); 24] = [
    ("error", &[]),
    ("audit", &[]),
    ("limits", &[]),
    ("gate", &["limits"]),
    ("flight", &[]),
    ("allocator", &[]),
    ("role", &[]),
    ("s3_error", &[]),
    ("logging", &[]),
    ("network", &[]),
    ("location", &["role"]),
    ("protocol", &[]),
    ("predicate", &["protocol"]),
    ("catalog", &["protocol", "location", "role", "limits", "network", "predicate"]),
    ("storage", &["protocol", "location", "role", "limits", "network", "s3_error"]),
    ("delta", &["protocol", "limits", "gate", "predicate", "s3_error"]),
    ("ndjson", &["audit", "protocol", "limits", "gate"]),
    ("oidc", &["catalog", "protocol"]),
    ("auth", &["audit", "catalog", "oidc"]),
    (
        "app",
        &[
            "auth",
            "catalog",
            "storage",
            "delta",
            "location",
            "network",
            "predicate",
            "protocol",
            "limits",
            "gate",
            "flight",
            "oidc",
        ],
    ),
    ("answer", &["app", "audit", "auth", "catalog", "storage", "delta", "ndjson", "predicate", "protocol"]),
    (
        "http",
        &[
            "answer", "app", "audit", "auth", "catalog", "storage", "delta", "location", "ndjson",
            "protocol", "limits",
        ],
    ),
    ("check", &["catalog", "storage", "delta", "limits", "location", "predicate", "role", "s3_error"]),
    ("lib", &[]),
];

/// Crates that only these modules may name.
const ONLY_IN: [(&str, &[&str]); 14] = [
    ("aws_config", &[]),
    ("axum", &["http", "error", "ndjson", "storage", "audit"]),
    ("aws_credential_types", &["storage"]),
    ("aws_sdk_dynamodb", &["catalog"]),
    ("aws_sdk_sts", &["storage"]),
    ("buoyant_kernel", &["delta"]),
    ("delta_kernel", &["delta"]),
    ("jsonwebtoken", &["oidc"]),
    ("reqwest", &["oidc"]),
    ("object_store", &["delta", "storage"]),
    ("s3s", &["storage"]),
    ("flate2", &["delta", "ndjson"]),
    ("serde_saphyr", &["catalog"]),
    ("sqlparser", &["predicate"]),
];

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The lines of every module of the library, without comments, with their places.
fn modules() -> BTreeMap<String, Vec<(String, String)>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    sources(&root, &mut paths);
    let mut modules: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for path in paths {
        let below = path.strip_prefix(&root).unwrap();
        let top = below.components().next().unwrap().as_os_str().to_str().unwrap();
        let module = top.strip_suffix(".rs").unwrap_or(top).to_owned();
        if module == "bin" {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let place = format!("src/{}:{}", below.display(), number + 1);
            modules.entry(module.clone()).or_default().push((place, code.to_owned()));
        }
    }
    modules
}

/// The names that follow `crate::` in a line, also within braces.
fn named_modules(line: &str) -> Vec<String> {
    names_after("crate::", line)
}

fn names_after(prefix: &str, line: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, _) in line.match_indices(prefix) {
        let rest = &line[at + prefix.len()..];
        let parts: Vec<&str> = match rest.strip_prefix('{') {
            Some(group) => group.split(',').collect(),
            None => vec![rest],
        };
        for part in parts {
            let name: String = part.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if !name.is_empty() {
                names.push(name);
            }
        }
    }
    names
}

#[test]
fn modules_name_only_what_is_below_them() {
    let mut wrong = Vec::new();
    for (module, lines) in modules() {
        let (_, allowed) = MAY_NAME.iter().find(|(name, _)| *name == module).unwrap_or_else(|| {
            panic!("src/{module} has no place in the house: draw it in lib.rs and add it here")
        });
        for (place, line) in lines {
            for named in named_modules(&line) {
                let known = MAY_NAME.iter().any(|(name, _)| *name == named);
                if known && named != module && named != "error" && !allowed.contains(&named.as_str()) {
                    wrong.push(format!("{place}: {module} may not name {named}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn crates_stay_behind_their_walls() {
    let mut wrong = Vec::new();
    for (module, lines) in modules() {
        for (place, line) in lines {
            for (name, allowed) in ONLY_IN {
                let named = line.contains(&format!("{name}::"));
                if named && !allowed.contains(&module.as_str()) {
                    wrong.push(format!("{place}: {module} may not name the crate {name}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Directories whose files name each other in no circle.
const WITHOUT_CIRCLES: [&str; 7] = [
    "src/answer",
    "src/catalog",
    "src/catalog/dynamodb",
    "src/catalog/share_file",
    "src/delta",
    "src/http",
    "src/storage",
];

/// The files of a directory, with those beside them that they name.
fn neighbours(directory: &Path) -> BTreeMap<String, Vec<String>> {
    let mut files = BTreeMap::new();
    let exported = exports(&fs::read_to_string(directory.with_extension("rs")).unwrap());
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let (code, _) = text.split_once("#[cfg(test)]\nmod tests").unwrap_or((&text, ""));
        let lines = code.lines().map(|line| line.split("//").next().unwrap_or_default());
        let own = lines.flat_map(|line| names_after("super::", line));
        // What the parent exports again belongs to the file that has it.
        let named = own.map(|name| exported.get(&name).cloned().unwrap_or(name)).collect();
        files.insert(path.file_stem().unwrap().to_str().unwrap().to_owned(), named);
    }
    files
}

/// What a module takes from the files below it into its own scope: the names, with their files.
fn exports(text: &str) -> BTreeMap<String, String> {
    let mut exports = BTreeMap::new();
    for line in text.lines() {
        let Some((_, path)) = line.trim().strip_suffix(';').and_then(|line| line.split_once("use ")) else {
            continue;
        };
        let Some((file, names)) = path.split_once("::") else { continue };
        for name in names.trim_matches(['{', '}']).split(',') {
            exports.insert(name.trim().to_owned(), file.to_owned());
        }
    }
    exports
}

#[test]
fn files_of_a_directory_name_each_other_in_no_circle() {
    for directory in WITHOUT_CIRCLES {
        let mut left = neighbours(&Path::new(env!("CARGO_MANIFEST_DIR")).join(directory));
        assert!(left.values().any(|named| !named.is_empty()), "{directory} has no files that name others");
        loop {
            let names: Vec<String> = left.keys().cloned().collect();
            let before = left.len();
            left.retain(|own, named| named.iter().any(|name| name != own && names.contains(name)));
            if left.len() == before {
                break;
            }
        }
        assert!(left.is_empty(), "in {directory} there is a circle among {:?}", left.keys());
    }
}

#[test]
fn the_reader_of_sources_finds_what_it_should() {
    assert_eq!(named_modules("use crate::delta::Snapshot;"), ["delta"]);
    assert_eq!(named_modules("use crate::{app::App, auth};"), ["app", "auth"]);
    assert_eq!(named_modules("    let x = crate::location::Location::parse(y);"), ["location"]);
    let found = exports("pub use a::B;\nuse c::{D, E};\nuse std::fmt;");
    assert_eq!(found.get("B").map(String::as_str), Some("a"));
    assert_eq!(found.get("E").map(String::as_str), Some("c"));
    let modules = modules();
    for (module, _) in MAY_NAME {
        assert!(modules.get(module).is_some_and(|lines| !lines.is_empty()), "{module} is gone");
    }
}

/// The crates below this one, as `cargo tree` finds them for these features.
fn dependencies(features: &[&str]) -> Vec<String> {
    let tree = Command::new(env!("CARGO"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args([
            "tree",
            "--offline",
            "--locked",
            "--edges",
            "normal",
            "--prefix",
            "none",
            "--format",
            "{p} {f}",
        ])
        .args(features)
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    String::from_utf8(tree.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn the_function_depends_on_nothing_that_only_the_command_line_needs() {
    let every = dependencies(&[]);
    let function = dependencies(&["--no-default-features", "--features", "lambda"]);
    let has = |tree: &[String], name: &str| tree.iter().any(|line| line.starts_with(&format!("{name} ")));
    for name in [
        "aws-sdk-cloudwatchlogs",
        "aws-sdk-lambda",
        "aws-sdk-s3",
        "aws-sdk-signin",
        "aws-sdk-sso",
        "aws-sdk-ssooidc",
        "clap",
        "deltalake",
        "deltalake-core",
        "p256",
        "s3s",
        "serde-saphyr",
        "signal-hook-registry",
    ] {
        assert!(has(&every, name), "{name} is not looked for by its name");
        assert!(!has(&function, name), "{name} is in the function's tree");
    }
    assert!(has(&function, "lambda_http"));
    let axum = function.iter().find(|line| line.starts_with("axum ")).unwrap();
    assert!(!axum.contains("tokio") && !axum.contains("http1"), "axum has its server: {axum}");
}

/// `deltalake` writes checkpoints with its kernel, and the server reads logs with the one that it names. They must be one.
#[test]
fn the_kernel_is_the_one_that_deltalake_has() {
    let tree = dependencies(&[]);
    for name in ["buoyant_kernel", "buoyant_kernel_engine"] {
        let versions: BTreeSet<&str> = tree
            .iter()
            .filter_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.split(' ').next())
            .collect();
        assert_eq!(versions.len(), 1, "{name} {versions:?}");
    }
    assert!(tree.iter().any(|line| line.starts_with("deltalake-core ")));
}

/// The documentation has a row for each limit, with the default that the code has.
#[test]
fn every_limit_is_documented() {
    let documented =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/limits.md")).unwrap();
    let rows: Vec<&str> = documented.lines().filter_map(|line| line.strip_prefix("| `")).collect();
    let limits = format!("{:#?}", deltashare::limits::Limits::default());
    let fields: Vec<(&str, &str)> = limits.lines().filter_map(|line| line.trim().split_once(": ")).collect();
    assert!(!fields.is_empty() && fields.len() == rows.len(), "{} limits, {} rows", fields.len(), rows.len());
    for (name, value) in fields {
        let start = format!("{name}` | {} |", value.trim_end_matches(','));
        assert!(
            rows.iter().any(|row| row.starts_with(&start)),
            "no row of docs/limits.md begins: | `{start}"
        );
    }
}

/// Phrases that readers stumble over. There are more; these must not come back.
const NOT_ENGLISH: [&str; 7] =
    ["anew", "at hand", "is that already", "is told", "they may not.", "where it is left out", "whom"];

/// The pages, the other files that their readers open, and the sources with their comments, messages and help.
fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = vec![root.join("template.yaml")];
    for directory in [
        ".",
        ".github",
        ".github/ISSUE_TEMPLATE",
        "docs",
        "examples",
        "examples/admin",
        "infra",
        "tests",
        "tests/load",
        "tests/protocol_examples",
    ] {
        for entry in fs::read_dir(root.join(directory)).unwrap() {
            let path = entry.unwrap().path();
            let kind = path.extension().and_then(|extension| extension.to_str());
            let is_page = match kind {
                Some("md") => true,
                Some("yaml" | "yml" | "toml" | "py") => directory != ".",
                _ => false,
            };
            if is_page {
                found.push(path);
            }
        }
    }
    sources(&root.join("src"), &mut found);
    found
}

/// The text on one line and in lower case, so that a phrase is found across lines.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

fn has_phrase(flat: &str, phrase: &str) -> bool {
    let is_letter = |character: Option<char>| character.is_some_and(char::is_alphabetic);
    flat.match_indices(phrase).any(|(at, _)| {
        !is_letter(flat[..at].chars().next_back()) && !is_letter(flat[at + phrase.len()..].chars().next())
    })
}

#[test]
fn pages_are_written_in_plain_english() {
    let pages = pages();
    assert!(pages.len() > 25, "{pages:?}");
    let mut wrong = Vec::new();
    for page in pages {
        let text = flat(&fs::read_to_string(&page).unwrap());
        for phrase in NOT_ENGLISH.iter().filter(|phrase| has_phrase(&text, phrase)) {
            wrong.push(format!("{}: {phrase}", page.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(has_phrase(&flat("The client\nis told so."), "is told"));
    assert!(!has_phrase(&flat("janewa"), "anew"));
}

/// The page on troubleshooting quotes messages; `…` stands for what varies.
#[test]
fn messages_of_the_troubleshooting_page_are_those_of_the_code() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    sources(&root.join("src"), &mut paths);
    let mut code = String::new();
    for path in paths {
        let text = fs::read_to_string(path).unwrap();
        // A text that goes on in the next line.
        let mut parts = text.split("\\\n");
        code.push_str(parts.next().unwrap());
        parts.for_each(|part| code.push_str(part.trim_start()));
    }
    let page = fs::read_to_string(root.join("docs/troubleshooting.md")).unwrap();
    let cells =
        page.lines().filter(|line| line.starts_with("| `")).map(|line| line.split(" | ").next().unwrap());
    let (mut quoted, mut wrong) = (0, Vec::new());
    for message in cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)) {
        quoted += 1;
        for part in message.split('…').map(|part| part.trim_matches([' ', '\''])) {
            if !code.contains(part) {
                wrong.push(format!("`{message}`: {part}"));
            }
        }
    }
    assert!(quoted > 80, "{quoted}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
