//! Everything that a catalog in DynamoDB holds, from its items, read as strictly as servers read them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::Utc;

use super::keys::{self, Key};
use super::records::{self, BadRecord, Item, Kind, text};
use crate::catalog::oidc::MOST_POLICIES;
use crate::catalog::state::{CatalogState, RecipientState, SchemaState, ShareState, TableState, TokenState};
use crate::catalog::{ShareRecord, TokenHash, expiry};

/// What was found in a catalog. Shares that are being deleted are in none of it.
#[derive(Debug, Default)]
pub struct CatalogContents {
    /// What servers see.
    pub state: CatalogState,
    /// Records that servers cannot read.
    pub bad: Vec<BadRecord>,
    /// Records that servers can read, although what they say cannot be written in a share file.
    pub unwritable: Vec<BadRecord>,
    /// Records that lack what belongs to them: a grant of a share that is not there, one of the two records of a token.
    /// Servers see what `state` says, whatever these say.
    pub unpaired: Vec<BadRecord>,
}

/// A partition of a share or a recipient.
enum Owner {
    /// Its record was read; this is the key of its name.
    Known(String),
    /// Its record cannot be read, or it is being deleted.
    Hidden,
}

/// The items of one kind.
fn of(items: &[Item], wanted: Kind) -> impl Iterator<Item = &Item> {
    items.iter().filter(move |item| records::kind(item) == wanted)
}

impl CatalogContents {
    /// Reads every item of a catalog.
    pub fn new(items: &[Item]) -> Self {
        let mut this = Self::default();
        let shares = this.shares(items);
        this.schemas(items, &shares);
        this.tables(items, &shares);
        let recipients = this.recipients(items);
        this.grants(items, &shares, &recipients);
        this.tokens(items, &recipients);
        this.oidc_policies(items, &recipients);
        for records in [&mut this.bad, &mut this.unwritable, &mut this.unpaired] {
            records.sort_by(|a, b| (&a.partition, &a.sort).cmp(&(&b.partition, &b.sort)));
        }
        this
    }

    /// Keeps a record that cannot be read.
    fn read<T>(&mut self, record: Result<T, BadRecord>) -> Option<T> {
        record.map_err(|bad| self.bad.push(bad)).ok()
    }

    fn shares<'a>(&mut self, items: &'a [Item]) -> HashMap<&'a str, Owner> {
        let mut owners = HashMap::new();
        for item in of(items, Kind::Share) {
            let share = self.read(records::share(item)).filter(|share| !share.deleting);
            let owner = share.map_or(Owner::Hidden, |share| {
                let ShareRecord { name, id } = share.record;
                let state = ShareState {
                    name: name.as_str().to_owned(),
                    id,
                    comment: share.comment,
                    schemas: BTreeMap::new(),
                };
                self.state.shares.insert(name.key().to_owned(), state);
                Owner::Known(name.key().to_owned())
            });
            owners.insert(text(item, keys::PARTITION), owner);
        }
        owners
    }

    /// The share in whose partition an item is.
    fn share_of(
        &mut self,
        owners: &HashMap<&str, Owner>,
        kind: &'static str,
        item: &Item,
    ) -> Option<&mut ShareState> {
        match owners.get(text(item, keys::PARTITION)) {
            Some(Owner::Known(key)) => self.state.shares.get_mut(key),
            Some(Owner::Hidden) => None,
            None => {
                self.unpaired.push(records::fault(kind, item, "belongs to a share that has no record"));
                None
            }
        }
    }

    fn schemas(&mut self, items: &[Item], shares: &HashMap<&str, Owner>) {
        for item in of(items, Kind::Schema) {
            let Some(name) = self.read(records::schema(item)) else { continue };
            if let Some(share) = self.share_of(shares, "schema", item) {
                let schema = SchemaState { name: name.as_str().to_owned(), tables: BTreeMap::new() };
                share.schemas.insert(name.key().to_owned(), schema);
            }
        }
    }

    fn tables(&mut self, items: &[Item], shares: &HashMap<&str, Owner>) {
        let mut without_schema = Vec::new();
        for item in of(items, Kind::Table) {
            let Some(table) = self.read(records::table_alone(item)) else { continue };
            let Some(share) = self.share_of(shares, "table", item) else { continue };
            if !share.schemas.contains_key(table.schema.key()) {
                without_schema.push(item);
            }
            let name = || SchemaState { name: table.schema.as_str().to_owned(), tables: BTreeMap::new() };
            let schema = share.schemas.entry(table.schema.key().to_owned()).or_insert_with(name);
            schema.tables.insert(table.name.key().to_owned(), TableState::from(&table));
        }
        self.unwritable.extend(without_schema.into_iter().map(|item| {
            records::fault(
                "table",
                item,
                "is in a schema that has no record; create it with: deltashare schema create",
            )
        }));
    }

    fn recipients<'a>(&mut self, items: &'a [Item]) -> HashMap<&'a str, Owner> {
        let mut owners = HashMap::new();
        for item in of(items, Kind::Recipient) {
            let owner = self.read(records::recipient(item)).map_or(Owner::Hidden, |recipient| {
                let state = RecipientState {
                    name: recipient.name.as_str().to_owned(),
                    active: recipient.active,
                    comment: recipient.comment,
                    properties: recipient.properties,
                    restrictions: recipient.restrictions,
                    shares: BTreeMap::new(),
                    tokens: BTreeMap::new(),
                    oidc: BTreeSet::new(),
                };
                self.state.recipients.insert(recipient.name.key().to_owned(), state);
                Owner::Known(recipient.name.key().to_owned())
            });
            owners.insert(text(item, keys::PARTITION), owner);
        }
        owners
    }

    fn grants(&mut self, items: &[Item], shares: &HashMap<&str, Owner>, recipients: &HashMap<&str, Owner>) {
        let by_key = |kind| {
            let items = of(items, kind);
            let keyed = items.map(|item| ((text(item, keys::PARTITION), text(item, keys::SORT)), item));
            keyed.collect::<HashMap<_, _>>()
        };
        let (granted, listed) = (by_key(Kind::Grant), by_key(Kind::GrantedTo));
        for item in of(items, Kind::Grant) {
            let Some(grant) = self.read(records::grant(item)) else { continue };
            let mut unpaired = |why| self.unpaired.push(records::fault("grant", item, why));
            let key = match recipients.get(text(item, keys::PARTITION)) {
                Some(Owner::Known(key)) => key,
                Some(Owner::Hidden) => continue,
                None => {
                    unpaired("belongs to a recipient that has no record");
                    continue;
                }
            };
            match shares.get(Key::share(grant.share.as_str()).partition.as_str()) {
                Some(Owner::Known(share)) => {
                    let counterpart = Key::granted_to(share, key);
                    if !listed.contains_key(&(counterpart.partition.as_str(), counterpart.sort.as_str())) {
                        unpaired("is in force, but its share does not list it: its GRANT# record is missing");
                    }
                    if let Some(recipient) = self.state.recipients.get_mut(key) {
                        recipient.shares.insert(share.clone(), grant.state);
                    }
                }
                Some(Owner::Hidden) => {}
                None => unpaired("belongs to a share that has no record"),
            }
        }
        for item in of(items, Kind::GrantedTo) {
            let of_share = text(item, keys::PARTITION).strip_prefix("SHARE#").unwrap_or_default();
            let recipient = text(item, keys::SORT).strip_prefix(keys::GRANTED_TO).unwrap_or_default();
            let (partition, sort) = (format!("RECIPIENT#{recipient}"), format!("{}{of_share}", keys::GRANTS));
            let hidden = matches!(shares.get(text(item, keys::PARTITION)), Some(Owner::Hidden));
            let why = match granted.get(&(partition.as_str(), sort.as_str())) {
                None => "lists a grant that is not in force: the record of the recipient is missing",
                // A script may have written the filter into the wrong one of the two.
                Some(grant)
                    if item.contains_key(records::FILTER)
                        && item.get(records::FILTER) != grant.get(records::FILTER) =>
                {
                    "has a filter that does not apply: only the filter of the recipient's SHARE# record applies"
                }
                Some(grant)
                    if item.contains_key(records::GRANTED_TABLES)
                        && item.get(records::GRANTED_TABLES) != grant.get(records::GRANTED_TABLES) =>
                {
                    "has tables that do not apply: only the tables of the recipient's SHARE# record apply"
                }
                Some(_) => continue,
            };
            if !hidden {
                self.unpaired.push(records::fault("listed grant", item, why));
            }
        }
    }

    fn tokens(&mut self, items: &[Item], recipients: &HashMap<&str, Owner>) {
        let mut listed: HashMap<(String, TokenHash), &Item> = HashMap::new();
        for item in of(items, Kind::ListedToken) {
            if let Some((_, hash)) = self.read(records::listed_token(item)) {
                listed.insert((text(item, keys::PARTITION).to_owned(), hash), item);
            }
        }
        for item in of(items, Kind::Token) {
            let Some(token) = self.read(records::token(item)) else { continue };
            let partition = Key::recipient(&token.record.recipient).partition;
            let listed = listed.remove(&(partition.clone(), token.hash));
            let key = match recipients.get(partition.as_str()) {
                Some(Owner::Known(key)) => key,
                Some(Owner::Hidden) => continue,
                None => {
                    let why = "belongs to a recipient that has no record, so it does not work";
                    self.unpaired.push(records::fault("token", item, why));
                    continue;
                }
            };
            let state = TokenState {
                id: token.record.id.to_string(),
                expires: token.record.expires,
                created: token.created,
            };
            for why in token_faults(item, &state, listed) {
                self.unpaired.push(records::fault("token", item, &why));
            }
            let Some(recipient) = self.state.recipients.get_mut(key) else { continue };
            let sort = |id: &str| Key::token_of("", id).sort;
            if recipient.tokens.values().any(|other| sort(&other.id) == sort(&state.id)) {
                let why = format!("has the id '{}', as another token of its recipient has", state.id);
                self.unwritable.push(records::fault("token", item, &why));
            }
            recipient.tokens.insert(token.hash.to_hex(), state);
        }
        // One that has expired may have lost its other record to DynamoDB's time to live.
        let live = |item: &Item| {
            expiry::parse(text(item, "expires")).flatten().is_none_or(|expires| expires > Utc::now())
        };
        for ((partition, _), item) in listed {
            if live(item) && !matches!(recipients.get(partition.as_str()), Some(Owner::Hidden)) {
                let why = "lists a token that does not work: its TOKEN# record is missing";
                self.unpaired.push(records::fault("listed token", item, why));
            }
        }
    }

    fn oidc_policies(&mut self, items: &[Item], recipients: &HashMap<&str, Owner>) {
        for item in of(items, Kind::OidcPolicy) {
            let Some(found) = self.read(records::oidc_policy(item)) else { continue };
            match recipients.get(Key::recipient(&found.recipient).partition.as_str()) {
                Some(Owner::Known(key)) => {
                    let Some(recipient) = self.state.recipients.get_mut(key) else { continue };
                    recipient.oidc.insert(found.policy.as_ref().clone());
                    if recipient.oidc.len() > MOST_POLICIES {
                        let why = format!("is one more than the {MOST_POLICIES} that a recipient can have");
                        self.unwritable.push(records::fault("OIDC policy", item, &why));
                    }
                }
                Some(Owner::Hidden) => {}
                None => {
                    let why = "belongs to a recipient that has no record, so it does not work";
                    self.unpaired.push(records::fault("OIDC policy", item, why));
                }
            }
        }
    }
}

/// What is wrong about a token that works as its record says.
fn token_faults(item: &Item, token: &TokenState, listed: Option<&Item>) -> Vec<String> {
    let mut faults = Vec::new();
    match listed {
        None if token.is_live(Utc::now()) => {
            faults.push("works, but is not in the list of its recipient's tokens".to_owned());
        }
        Some(listed) if expiry::parse(text(listed, "expires")) != Some(token.expires) => {
            faults.push("expires at another time than the list of its recipient's tokens says".to_owned());
        }
        _ => {}
    }
    let deleted = item.get(expiry::DELETE_AFTER).and_then(|value| value.as_n().ok()?.parse::<i64>().ok());
    if deleted.is_some_and(|deleted| token.expires.is_none_or(|end| end.timestamp() > deleted)) {
        let name = expiry::DELETE_AFTER;
        faults.push(format!("has a {name} before it expires, so DynamoDB deletes it while it is valid"));
    }
    faults
}
