//! Grants: of which tables, and what a recipient sees because of them.

use chrono::{DateTime, TimeDelta, Utc};
use deltashare::catalog::dynamodb::{
    FoundToken, GrantBefore, GrantChanges, GrantFilter, GrantTables, ListedRecipient, SeenTable, WrittenValue,
};
use deltashare::catalog::expiry;
use deltashare::catalog::grant::{GrantState, TablePatterns};
use deltashare::protocol::names::Name;

use super::Failure;
use super::admin::split_table;
use super::arguments::GrantOptions;
use super::output::{Row, duration};

/// The most tables that are shown of what a recipient sees.
pub(crate) const MOST_SEEN: usize = 200;

/// The columns of the tables that a recipient sees.
pub(crate) const SEEN: [&str; 2] = ["table", "filter"];

impl GrantOptions {
    /// The share, and what is granted of it.
    pub(crate) fn changes(&self) -> Result<(String, GrantChanges), Failure> {
        let (share, named) = self.share_and_tables()?;
        let tables = match named.as_slice() {
            [] if self.all_tables => GrantTables::Set(None),
            [] => GrantTables::Unspecified,
            named => GrantTables::Set(Some(TablePatterns::parse(named).map_err(Failure::usage)?)),
        };
        let filter = match (&self.filter, self.no_filter) {
            (None, false) => GrantFilter::Unspecified,
            (filter, _) => GrantFilter::Set(filter.clone()),
        };
        Ok((share, GrantChanges { tables, filter }))
    }

    fn share_and_tables(&self) -> Result<(String, Vec<String>), Failure> {
        let mut share = self.share.clone();
        let mut named = self.tables.clone();
        for granted in &self.granted {
            let (of, schema, table) = split_table(granted)?;
            if of.contains('*') {
                return Err(Failure::usage(format!(
                    "'{granted}': a share is granted by its name, without a wildcard; use --share if the name has a *"
                )));
            }
            match &share {
                Some(share) if Name::key_of(share) != Name::key_of(of) => {
                    return Err(Failure::usage(format!(
                        "'{granted}' is not in share '{share}'; grant each share with a command of its own"
                    )));
                }
                _ => share = Some(of.to_owned()),
            }
            named.push(format!("{schema}.{table}"));
        }
        let share = share.ok_or_else(|| Failure::usage("name the share with --share"))?;
        Ok((share, named))
    }
}

/// Says that a grant is in force, and what it was before.
pub(crate) fn said(share: &str, recipient: &str, before: Option<&GrantBefore>, now: &GrantState) -> String {
    let before = before.filter(|before| !before.readable || before.state != *now);
    if let Some(before) = before {
        let has_tables = before.state.tables.is_some() || now.tables.is_some();
        let was = match before.readable {
            true => shown(&before.state, has_tables),
            false => "a record that servers could not read".to_owned(),
        };
        return format!(
            "Share '{share}' is granted to '{recipient}' with {} from the next request; before, the grant had {was}.",
            shown(now, has_tables)
        );
    }
    match (&now.tables, &now.filter) {
        (None, None) => {
            format!("Share '{share}' is granted to '{recipient}', which sees it with its next request.")
        }
        (None, Some(filter)) => format!(
            "Share '{share}' is granted to '{recipient}' with the filter {filter}. The grant applies from the next request."
        ),
        (Some(_), _) => format!(
            "Share '{share}' is granted to '{recipient}' with {}. The grant applies from the next request, and includes \
             tables that are added later and match.",
            shown(now, now.filter.is_none()).trim_end_matches(" and no filter")
        ),
    }
}

/// What a grant has, after the word "with".
fn shown(grant: &GrantState, with_tables: bool) -> String {
    let filter = grant.filter.as_ref();
    let filter = filter.map_or_else(|| "no filter".to_owned(), |filter| format!("the filter {filter}"));
    match &grant.tables {
        Some(tables) => format!("the tables {tables} and {filter}"),
        None if with_tables => format!("every table and {filter}"),
        None => filter,
    }
}

/// Until when a recipient sees anything: its newest token that works, or why it has none.
pub(crate) enum Access {
    /// Until a token expires; `None` for never.
    Until(Option<DateTime<Utc>>),
    /// As long as its OpenID provider gives it tokens.
    Policy,
    /// Not at all, for this reason.
    Nothing(String),
}

impl Access {
    pub(crate) fn of(recipient: &ListedRecipient, now: DateTime<Utc>) -> Self {
        if recipient.fault.is_some() {
            return Self::Nothing("its record cannot be read".to_owned());
        }
        if recipient.status.text() != "active" {
            return Self::Nothing("it is disabled".to_owned());
        }
        // One that never expires comes last.
        let last = |tokens: &mut dyn Iterator<Item = &FoundToken>| {
            tokens.map(|token| token.expires.unwrap_or(DateTime::<Utc>::MAX_UTC)).max()
        };
        let works = |token: &&FoundToken| token.is_known && token.is_live(now);
        let end = last(&mut recipient.tokens.iter().filter(works));
        if end == Some(DateTime::<Utc>::MAX_UTC) {
            return Self::Until(None);
        }
        // Tokens of its OpenID provider, whose time this server does not set.
        if recipient.oidc_policies.iter().any(|policy| policy.fault.is_none()) {
            return Self::Policy;
        }
        if end.is_some() {
            return Self::Until(end);
        }
        Self::Nothing(match last(&mut recipient.tokens.iter().filter(|token| token.is_known)) {
            Some(end) => format!("its last token expired at {}", expiry::format(Some(end))),
            None => "it has no token".to_owned(),
        })
    }

    /// For a person, or for a script.
    pub(crate) fn shown(&self, is_json: bool, now: DateTime<Utc>) -> WrittenValue {
        let text = match self {
            Self::Until(end) if is_json => expiry::format(*end),
            Self::Policy if is_json => expiry::format(None),
            Self::Policy => "its OpenID provider gives it no more tokens".to_owned(),
            Self::Until(None) => "a token never expires".to_owned(),
            Self::Until(Some(end)) => format!("{} ({})", expiry::format(Some(*end)), distance(*end - now)),
            Self::Nothing(_) if is_json => return WrittenValue::Nothing,
            Self::Nothing(why) => format!("reads nothing: {why}"),
        };
        WrittenValue::Text(text)
    }
}

/// A time to come, in words.
fn distance(time: TimeDelta) -> String {
    match time < TimeDelta::minutes(2) {
        true => "in less than two minutes".to_owned(),
        false => format!("in {}", duration(time)),
    }
}

/// A row in the columns of [`SEEN`].
pub(crate) fn seen(table: SeenTable) -> Row {
    let filter = match table.filters.as_slice() {
        [] => WrittenValue::Nothing,
        [filter] => WrittenValue::Text(filter.clone()),
        filters => {
            let each: Vec<_> = filters.iter().map(|filter| format!("({filter})")).collect();
            WrittenValue::Text(each.join(" AND "))
        }
    };
    vec![WrittenValue::Text(table.name), filter]
}

#[cfg(test)]
mod tests {
    use deltashare::predicate::PartitionFilter;

    use super::*;

    fn options(granted: &[&str], share: Option<&str>, tables: &[&str]) -> GrantOptions {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        GrantOptions {
            recipient: "acme".to_owned(),
            granted: owned(granted),
            share: share.map(str::to_owned),
            tables: owned(tables),
            all_tables: false,
            filter: None,
            no_filter: false,
        }
    }

    #[test]
    fn the_name_of_a_share_may_have_periods() {
        for (granted, share, pattern) in [
            ("retail.sales.*", "retail", "sales.*"),
            ("eu.west.retail.sales.or*", "eu.west.retail", "sales.or*"),
            ("retail.*.*", "retail", "*.*"),
        ] {
            let Ok((found, changes)) = options(&[granted], None, &[]).changes() else { panic!("{granted}") };
            let tables = GrantTables::Set(Some(TablePatterns::parse(&[pattern]).unwrap()));
            assert_eq!((found.as_str(), changes.tables), (share, tables));
            assert_eq!(changes.filter, GrantFilter::Unspecified);
        }
        for granted in
            [vec!["retail.sales"], vec!["*.sales.*"], vec!["a.b.c", "x.b.c"], vec!["a.b."], vec!["a..c"]]
        {
            assert!(options(&granted, None, &[]).changes().is_err(), "{granted:?}");
        }
        let Ok((share, changes)) = options(&[], Some("a.b"), &["s.x", "s.y"]).changes() else { panic!() };
        assert_eq!(
            (share.as_str(), changes.state().tables.unwrap().to_string().as_str()),
            ("a.b", "s.x, s.y")
        );
        let Ok((_, changes)) = options(&[], Some("a"), &[]).changes() else { panic!() };
        assert_eq!(changes.tables, GrantTables::Unspecified);
    }

    #[test]
    fn what_is_said_of_a_grant() {
        let tables = |texts: &[&str]| (!texts.is_empty()).then(|| TablePatterns::parse(texts).unwrap());
        let grant = |texts: &[&str], filter: Option<&str>| GrantState {
            tables: tables(texts),
            filter: filter.map(|filter| PartitionFilter::parse(filter).unwrap()),
        };
        let before = |state| GrantBefore { state, readable: true };
        for (was, now, expected) in [
            (None, grant(&["s.*"], None), "with the tables s.*. The grant"),
            (None, grant(&["s.*"], Some("a = 1")), "with the tables s.* and the filter a = 1. The grant"),
            (
                Some(grant(&[], None)),
                grant(&["s.*"], None),
                "with the tables s.* and no filter from the next request; before, the grant had every table and no filter.",
            ),
            (
                Some(grant(&["s.*"], None)),
                grant(&[], Some("a = 1")),
                "with every table and the filter a = 1 from the next request; before, the grant had the tables s.* and no filter.",
            ),
            (
                Some(grant(&[], Some("a = 1"))),
                grant(&[], None),
                "with no filter from the next request; before, the grant had the filter a = 1.",
            ),
            (Some(grant(&["s.*"], None)), grant(&["S.*"], None), "with the tables S.*. The grant"),
        ] {
            let text = said("retail", "acme", was.map(before).as_ref(), &now);
            assert!(text.contains(expected), "{text}");
        }
    }

    #[test]
    fn a_time_to_come_in_plain_words() {
        for (time, expected) in [
            (TimeDelta::days(90), "in 90 days"),
            (TimeDelta::hours(47), "in 47 hours"),
            (TimeDelta::minutes(119), "in 119 minutes"),
            (TimeDelta::seconds(30), "in less than two minutes"),
        ] {
            assert_eq!(distance(time), expected);
        }
    }
}
