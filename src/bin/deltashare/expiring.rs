//! Tokens that expire soon: listed for reminders, and warned of by `check`.

use chrono::{DateTime, TimeDelta, Utc};
use deltashare::catalog::diff::until;
use deltashare::catalog::dynamodb::FoundToken;
use deltashare::catalog::state::{CatalogState, TokenState};

/// How long before the last token of a recipient expires `check` warns of it.
const WARNED: TimeDelta = TimeDelta::days(14);

/// Whether a token is valid at `now`, and not for longer than `time`.
pub(crate) fn expires_within(token: &FoundToken, now: DateTime<Utc>, time: TimeDelta) -> bool {
    token.is_live(now) && token.expires.is_some_and(|expires| expires <= now + time)
}

/// A warning for each active recipient whose last token expires soon or has expired.
pub(crate) fn warnings(state: &CatalogState, now: DateTime<Utc>) -> Vec<String> {
    // Recipients with an OIDC policy read without a token of this server.
    let active = state.recipients.values().filter(|recipient| recipient.active && recipient.oidc.is_empty());
    let warning = |name: &str, tokens: &mut dyn Iterator<Item = &TokenState>| {
        let last = tokens.max_by_key(|token| token.expires.unwrap_or(DateTime::<Utc>::MAX_UTC))?;
        let expires = last.expires?;
        if expires <= now {
            return Some(format!(
                "every token of recipient {name} has expired; the last one was valid {}",
                until(last.expires)
            ));
        }
        (expires <= now + WARNED).then(|| {
            format!("the last token of recipient {name}, {}, is valid only {}", last.id, until(last.expires))
        })
    };
    active.filter_map(|recipient| warning(&recipient.name, &mut recipient.tokens.values())).collect()
}

#[cfg(test)]
mod tests {
    use deltashare::catalog::state::RecipientState;

    use super::*;

    #[test]
    fn only_the_last_token_of_an_active_recipient_counts() {
        let now = DateTime::parse_from_rfc3339("2027-01-01T00:00:00Z").unwrap().to_utc();
        let warned = |active: bool, days: &[Option<i64>]| {
            let token = |(number, days): (usize, &Option<i64>)| {
                let expires = days.map(|days| now + TimeDelta::days(days));
                (number.to_string(), TokenState { id: format!("t{number}"), expires, created: None })
            };
            let tokens = days.iter().enumerate().map(token).collect();
            let recipient =
                RecipientState { name: "acme".to_owned(), active, tokens, ..RecipientState::default() };
            let state = CatalogState {
                recipients: [("acme".to_owned(), recipient)].into(),
                ..CatalogState::default()
            };
            warnings(&state, now).pop()
        };
        assert_eq!(warned(true, &[]), None);
        assert_eq!(warned(true, &[None]), None);
        assert_eq!(warned(true, &[Some(3), None]), None);
        assert_eq!(warned(true, &[Some(3), Some(15)]), None);
        assert_eq!(warned(false, &[Some(3)]), None);
        assert_eq!(
            warned(true, &[Some(-1), Some(14)]).unwrap(),
            "the last token of recipient acme, t1, is valid only until 2027-01-15T00:00:00Z"
        );
        assert_eq!(
            warned(true, &[Some(-2), Some(-1)]).unwrap(),
            "every token of recipient acme has expired; the last one was valid until 2026-12-31T00:00:00Z"
        );
    }
}
