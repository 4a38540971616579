//! A share file as requests read it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use chrono::Utc;
use futures::FutureExt as _;
use futures::future::{BoxFuture, ready};

use super::{EVERYONE, Granted, ShareFile, table_key};
use crate::catalog::oidc::RecipientPolicy;
use crate::catalog::usage::MemoryUsage;
use crate::catalog::{
    Caller, Catalog, ListPage, PageRequest, SchemaPage, ShareRecord, TableRecord, TokenHash, TokenRecord,
    unknown_token,
};
use crate::error::{Error, Result};
use crate::protocol::digest::short_digest;
use crate::protocol::names::Name;

/// A [`Catalog`] over a share file that can be replaced while requests are served.
#[derive(Debug)]
pub struct ShareFileCatalog {
    file: RwLock<Arc<ShareFile>>,
    usage: MemoryUsage,
}

impl ShareFileCatalog {
    /// A catalog that answers from `file`.
    pub fn new(file: ShareFile) -> Self {
        Self { file: RwLock::new(Arc::new(file)), usage: MemoryUsage::default() }
    }

    /// Answers from `file` from now on. Requests that have begun finish with the one before.
    pub fn replace(&self, file: ShareFile) {
        *self.file.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(file);
    }

    /// Whether anyone may read every share without a token.
    pub fn is_public(&self) -> bool {
        self.file().is_public()
    }

    /// The file, for a caller that may read.
    fn file_for(&self, caller: &Caller) -> Result<Arc<ShareFile>> {
        let file = self.file();
        if !file.is_active(caller.recipient()) {
            return Err(unknown_token());
        }
        let restrictions = file.restrictions(caller.recipient());
        caller.check(restrictions)?;
        if restrictions.has_limits() && !caller.counted.initialized() {
            self.usage.admit(&caller.token.recipient, restrictions, Utc::now())?;
            // Another thread cannot be faster: what is read for a caller of a share file is read by one.
            _ = caller.counted.set(restrictions.clone());
        }
        Ok(file)
    }

    /// What the file says to a caller that may read.
    fn answer<'a, T: Send + 'a>(
        &self,
        caller: &Caller,
        read: impl FnOnce(&ShareFile) -> Result<T>,
    ) -> BoxFuture<'a, Result<T>> {
        ready(self.file_for(caller).and_then(|file| read(&file))).boxed()
    }

    fn file(&self) -> Arc<ShareFile> {
        Arc::clone(&self.file.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Where a page of a listing ended.
///
/// The file may be edited before the next page is requested. The next page starts after the last item of the
/// previous page. If that item was removed, it starts with the item that followed; if both were removed, at the
/// same position in the list, less the last item. So removing items neither skips nor repeats other items,
/// unless both neighbours of the cut and earlier items are removed together. An item that is moved across the
/// cut is listed twice or not at all.
#[derive(Debug, PartialEq, Eq)]
struct Cut {
    /// How many items the pages before have.
    listed: usize,
    /// The digest of the last item's key; 0 if there is none.
    last: u64,
    /// The digest of the key of the item that follows.
    next: u64,
}

impl Cut {
    fn at(keys: &[&str], listed: usize) -> Self {
        let digest = |index: Option<usize>| {
            index.and_then(|index| keys.get(index)).map_or(0, |key| short_digest(key.as_bytes()))
        };
        Self { listed, last: digest(listed.checked_sub(1)), next: digest(Some(listed)) }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let listed = parts.next()?.parse().ok()?;
        let mut digest = || u64::from_str_radix(parts.next()?, 16).ok();
        let (last, next) = (digest()?, digest()?);
        parts.next().is_none().then_some(Self { listed, last, next })
    }

    /// The index among `keys` where the next page begins.
    fn find(&self, keys: &[&str]) -> usize {
        if self.listed == 0 {
            return 0;
        }
        let digests: Vec<u64> = keys.iter().map(|key| short_digest(key.as_bytes())).collect();
        let index_of = |digest: u64| digests.iter().position(|other| *other == digest);
        let after_last = index_of(self.last).map(|last| last + 1);
        after_last.or_else(|| index_of(self.next)).unwrap_or((self.listed - 1).min(keys.len()))
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:x}.{:x}", self.listed, self.last, self.next)
    }
}

/// The page that is asked for of a listing, whose items come with their keys.
fn page<'a, V: 'a, T>(
    items: impl Iterator<Item = (&'a str, &'a V)>,
    request: &PageRequest,
    item: impl Fn(&V) -> T,
) -> Result<ListPage<T>> {
    let (keys, items): (Vec<&str>, Vec<&V>) = items.unzip();
    let start = match &request.after {
        None => 0,
        Some(after) => {
            Cut::parse(after).ok_or_else(|| Error::invalid("invalid 'nextPageToken'"))?.find(&keys)
        }
    };
    let end = request.limit.map_or(items.len(), |limit| items.len().min(start.saturating_add(limit)));
    let taken = items.get(start..end).unwrap_or_default().iter().map(|value| item(value)).collect();
    let more_after = (end < items.len()).then(|| Cut::at(&keys, end).to_string());
    Ok(ListPage { items: taken, more_after })
}

impl Catalog for ShareFileCatalog {
    fn caller(&self, hash: TokenHash) -> BoxFuture<'_, Result<Option<Caller>>> {
        let file = self.file();
        let token = file.tokens.get(&hash).filter(|token| file.is_active(&token.recipient));
        ready(Ok(token.cloned().map(Caller::checked))).boxed()
    }

    fn oidc_policies<'a>(
        &'a self,
        issuer: &'a str,
        _: TokenHash,
    ) -> BoxFuture<'a, Result<Vec<RecipientPolicy>>> {
        ready(Ok(self.file().oidc_policies(issuer))).boxed()
    }

    fn oidc_caller(&self, policy: RecipientPolicy, jwt: TokenHash) -> Caller {
        Caller::of_policy(&policy, jwt)
    }

    fn anonymous(&self) -> BoxFuture<'_, Result<Option<Caller>>> {
        let everyone = || TokenRecord { recipient: EVERYONE.into(), id: "none".into(), expires: None };
        ready(Ok(self.file().is_public().then(|| Caller::checked(everyone())))).boxed()
    }

    fn shares<'a>(
        &'a self,
        caller: &'a Caller,
        request: PageRequest,
    ) -> BoxFuture<'a, Result<ListPage<ShareRecord>>> {
        self.answer(caller, |file| {
            let empty = BTreeMap::new();
            let granted = file.grants.get(caller.recipient()).unwrap_or(&empty);
            let items = file.shares.iter().filter(|(key, _)| granted.contains_key(*key));
            page(items, &request, |share| share.record.clone())
        })
    }

    fn share<'a>(&'a self, caller: &'a Caller, share: &'a str) -> BoxFuture<'a, Result<Option<ShareRecord>>> {
        self.answer(caller, |file| {
            Ok(file.granted(caller.recipient(), share).map(|granted| granted.share.record.clone()))
        })
    }

    fn schemas<'a>(
        &'a self,
        caller: &'a Caller,
        share: &'a str,
        request: PageRequest,
    ) -> BoxFuture<'a, Result<Option<SchemaPage>>> {
        self.answer(caller, |file| {
            let Some(granted) = file.granted(caller.recipient(), share) else { return Ok(None) };
            let schemas = page(granted.schemas(), &request, Name::clone)?;
            Ok(Some(SchemaPage { share: granted.share.record.clone(), schemas }))
        })
    }

    fn tables<'a>(
        &'a self,
        caller: &'a Caller,
        share: &'a str,
        schema: Option<&'a str>,
        request: PageRequest,
    ) -> BoxFuture<'a, Result<Option<ListPage<TableRecord>>>> {
        self.answer(caller, |file| {
            let schema = schema.map(Name::key_of);
            let has_schema = |granted: &Granted<'_>| {
                schema.as_ref().is_none_or(|schema| granted.schemas().any(|(key, _)| key == schema))
            };
            let granted = file.granted(caller.recipient(), share).filter(has_schema);
            let Some(granted) = granted else { return Ok(None) };
            let page = page(granted.tables(schema.as_deref()), &request, |table| granted.table(table))?;
            let items = page.items.into_iter().flatten().collect();
            Ok(Some(ListPage { items, more_after: page.more_after }))
        })
    }

    fn table<'a>(
        &'a self,
        caller: &'a Caller,
        share: &'a str,
        schema: &'a str,
        table: &'a str,
    ) -> BoxFuture<'a, Result<Option<TableRecord>>> {
        let key = table_key(&Name::key_of(schema), &Name::key_of(table));
        self.answer(caller, |file| {
            let granted = file.granted(caller.recipient(), share);
            Ok(granted.and_then(|granted| granted.table(granted.share.tables.get(&key)?)))
        })
    }

    fn charge<'a>(&'a self, caller: &'a Caller, bytes: u64) -> BoxFuture<'a, Result<()>> {
        if let Some(limit) = caller.bytes_per_day() {
            self.usage.charge(&caller.token.recipient, limit, bytes, Utc::now());
        }
        ready(Ok(())).boxed()
    }
}
