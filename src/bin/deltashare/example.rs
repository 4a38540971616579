//! What `serve` does without a share file: the tables in `examples/`, and a recipient of its own.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Duration, Utc};
use deltashare::protocol::profile::Profile;

use super::Failure;
use super::shell::quoted;

/// The name of the recipient.
pub(crate) const RECIPIENT: &str = "example";

/// The table that the commands read: the one that every client can.
pub(crate) const TABLE: &str = "products";

/// The examples, below the directory that the command runs in or the one it was built in.
pub(crate) fn share_file() -> Result<PathBuf, Failure> {
    let here = Path::new("examples/shares.yaml");
    let built = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/shares.yaml"));
    [here, built].into_iter().find(|path| path.is_file()).map(Path::to_path_buf).ok_or_else(|| {
        Failure::usage("there is no examples/shares.yaml here; name a share file with --shares FILE")
    })
}

/// A new token, and when it expires.
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) expires: DateTime<Utc>,
}

impl Token {
    /// A token of 256 random bits that lives for a day.
    pub(crate) fn random() -> Result<Self, Failure> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)
            .map_err(|error| Failure::failed(format!("random numbers cannot be generated: {error}")))?;
        Ok(Self {
            text: format!("dss_{}", URL_SAFE_NO_PAD.encode(secret)),
            expires: Utc::now() + Duration::days(1),
        })
    }
}

/// Writes the recipient's profile where only its owner can read it.
pub(crate) fn write_profile(path: &Path, endpoint: &str, token: &Token) -> Result<(), Failure> {
    let profile = Profile::new(endpoint, token.text.clone(), Some(token.expires));
    let mut text =
        serde_json::to_string_pretty(&profile).map_err(|error| Failure::failed(error.to_string()))?;
    text.push('\n');
    let write = || {
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path)?;
        #[cfg(unix)]
        // The file may be an older one, which keeps its permissions when it is opened.
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        file.write_all(text.as_bytes())
    };
    write().map_err(|error| {
        Failure::failed(format!("the profile {} cannot be written: {error}", path.display()))
    })
}

/// Three commands that work when pasted. The token is read from the profile, so it is not shown.
pub(crate) fn commands(profile: &Path, endpoint: &str, table: Option<&str>) -> String {
    let profile = profile.display();
    let file = quoted(&profile.to_string());
    let token = format!(r#"$(sed -n 's/.*"bearerToken": "\(.*\)".*/\1/p' -- {file})"#);
    let table = table.unwrap_or("SHARE.SCHEMA.TABLE");
    format!(
        "The recipient's profile is in {profile}. To try it (Python: pip install delta-sharing):\n\n  \
         curl -H \"Authorization: Bearer {token}\" {endpoint}shares\n\n  \
         python3 -c \"import delta_sharing; print(delta_sharing.SharingClient('{profile}').list_all_tables())\"\n\n  \
         python3 -c \"import delta_sharing; print(delta_sharing.load_as_pandas('{profile}#{table}'))\"\n"
    )
}
