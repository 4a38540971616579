//! How a table is shared: the settings that its provider chooses.

use super::properties::Properties;
use crate::location::{Location, LocationError, WrittenLocation};
use crate::predicate::{FileAccess, PartitionFilter};
use crate::role::RoleArn;

/// How a table is shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSettings {
    /// Where the table is stored.
    pub location: WrittenLocation,
    /// Other locations that its log may refer to, for shallow clones.
    pub allowed_locations: Vec<WrittenLocation>,
    /// Whether recipients may read older versions.
    pub history_shared: bool,
    /// The oldest version that recipients may read.
    pub start_version: u64,
    /// Whether recipients may have credentials that read the table's directory, and with it every version.
    pub directory_access: bool,
    /// The role that reads the table and signs its URLs, if it is not the server's.
    pub signer_role: Option<RoleArn>,
    /// Which files recipients may read, by their partition values; `None` for every file.
    pub filter: Option<PartitionFilter>,
}

/// A setting that differs: its name in a share file, and its two values.
pub(super) type Difference = (&'static str, String, String);

impl TableSettings {
    /// Where the table is stored, and the other locations that its log may refer to.
    pub fn locations(&self) -> impl Iterator<Item = &WrittenLocation> {
        std::iter::once(&self.location).chain(&self.allowed_locations)
    }

    /// Resolves one of the locations, to be read by the table's role if it has one.
    pub fn resolve(&self, location: &WrittenLocation) -> Result<Location, LocationError> {
        location.resolve().map(|location| location.read_by(self.signer_role.clone()))
    }

    /// Which files a caller with these properties may read, whose grant has the filter `grant`.
    pub fn access(&self, grant: Option<&PartitionFilter>, properties: &Properties) -> FileAccess {
        FileAccess::filtered(self.filter.iter().chain(grant).cloned(), properties)
    }

    /// The table's root without a slash at its end, if recipients may have its directory.
    pub fn directory(&self) -> Option<&str> {
        (self.directory_access && self.filter.is_none()).then(|| self.location.text().trim_end_matches('/'))
    }

    /// Whether recipients may read every file of every version, from one directory.
    pub fn shares_whole_directory(&self) -> bool {
        self.history_shared
            && self.start_version == 0
            && self.allowed_locations.is_empty()
            && self.filter.is_none()
    }

    /// Why recipients cannot have the table's directory as the table is shared; `None` if they can.
    pub fn refuses_directory_access(&self) -> Option<&'static str> {
        if !self.location.text().starts_with("s3") {
            return Some("only a table in S3 can be read with temporary credentials");
        }
        if !self.history_shared || self.start_version > 0 {
            return Some(
                "it gives access to every version, so historyShared must be true and startVersion must be 0",
            );
        }
        if !self.allowed_locations.is_empty() {
            return Some("it covers one directory, and allowedLocations names others");
        }
        if self.filter.is_some() {
            return Some(
                "it gives access to every file of the directory, and the filter of the table leaves some out",
            );
        }
        None
    }

    /// The same settings with their locations as they are compared and exported.
    #[must_use]
    pub fn canonical(&self) -> Self {
        Self {
            location: self.location.canonical(),
            allowed_locations: self.allowed_locations.iter().map(WrittenLocation::canonical).collect(),
            ..self.clone()
        }
    }

    /// What differs between `self` and `after`.
    pub(super) fn differences(&self, after: &Self) -> Vec<Difference> {
        let both = |name, value: fn(&Self) -> String| (name, value(self), value(after));
        let all = [
            both("location", |settings| settings.location.to_string()),
            both("allowedLocations", |settings| {
                let texts: Vec<_> = settings.allowed_locations.iter().map(WrittenLocation::text).collect();
                format!("[{}]", texts.join(", "))
            }),
            both("historyShared", |settings| settings.history_shared.to_string()),
            both("startVersion", |settings| settings.start_version.to_string()),
            both("directoryAccess", |settings| settings.directory_access.to_string()),
            both("signerRole", |settings| {
                settings.signer_role.as_ref().map_or("the server's", RoleArn::as_str).to_owned()
            }),
            both("filter", |settings| shown_filter(settings.filter.as_ref())),
        ];
        all.into_iter().filter(|(_, before, after)| before != after).collect()
    }
}

/// A filter as changes show it: as it is written, or in quotes if it has characters that are not printable.
pub(super) fn shown_filter(filter: Option<&PartitionFilter>) -> String {
    let Some(text) = filter.map(PartitionFilter::text) else { return "none".to_owned() };
    let quoted = format!("{text:?}");
    let is_printable =
        quoted.replace("\\\"", "\"").strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) == Some(text);
    if is_printable { text.to_owned() } else { quoted }
}
