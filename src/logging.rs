//! Which records of the log may be written, whatever `RUST_LOG` asks for.

use tracing::{Level, Metadata};

/// The crates of this project.
const OWN: [&str; 2] = ["deltashare", "lambda"];

/// Whether a record may be written. Other crates log what they send and receive at DEBUG and TRACE, with bearer tokens,
/// signed URLs and credentials: the runtime of Lambda logs whole events, and the AWS SDK requests. So they stop at INFO.
pub fn may_be_written(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= Level::INFO || is_own(metadata.target())
}

fn is_own(target: &str) -> bool {
    OWN.iter()
        .any(|name| target.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::")))
}

#[cfg(test)]
mod tests {
    use super::is_own;

    #[test]
    fn crates_with_a_similar_name_are_of_others() {
        for target in ["deltashare", "deltashare::audit", "lambda", "lambda::event"] {
            assert!(is_own(target), "{target}");
        }
        for target in
            ["lambda_runtime", "lambda_runtime::layers::trace", "lambda_http", "hyper", "aws_sigv4::sign", ""]
        {
            assert!(!is_own(target), "{target}");
        }
    }
}
