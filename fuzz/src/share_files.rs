//! Share files.

use deltashare::catalog::share_file::ShareFile;
use deltashare::catalog::state::CatalogState;
use serde_json::Value;

use super::{on_a_thread, text};

/// A share file. Whoever wrote `recipients` or a token into it did not open it to everyone, and what it says is written as
/// it is read.
pub fn share_files(input: &[u8]) {
    let Some(text) = text(input) else { return };
    on_a_thread(|| {
        let Ok(file) = parse(text) else { return };
        let said = serde_saphyr::from_str::<Value>(text).unwrap_or_default();
        let closed = said.get("recipients").is_some()
            || said.get("authorization").is_some_and(|authorization| authorization != "none");
        assert!(!(closed && file.is_public()), "it is open");
        let state = file.state(&CatalogState::default());
        if let Some(read) = exported(&state) {
            assert_eq!(read, state, "it is written as something else");
        }
    });
}

fn parse(text: &str) -> Result<ShareFile, impl std::fmt::Display + use<>> {
    ShareFile::parse(text, None)
}

/// What a share file says that says this; `None` if `export` refuses it.
pub(crate) fn exported(state: &CatalogState) -> Option<CatalogState> {
    let written = serde_saphyr::to_string(&state.to_share_file()).unwrap();
    let read = parse(&written).ok()?.state(&CatalogState::default());
    read.changes_to(state).is_empty().then_some(read)
}
