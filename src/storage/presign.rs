//! Presigned GET URLs: AWS Signature Version 4 in the query string, as S3 wants it and as the AWS SDK writes it.
//!
//! Only the key differs between the URLs of one answer. The signing key, the query and the ends of the
//! canonical request are computed once; a URL then costs one SHA-256 over the canonical request (most of it the
//! session token), three more blocks for the HMAC, and two copies. Nothing is allocated.

use std::fmt;
use std::time::Duration;

use aws_sdk_sts::config::endpoint::{DefaultResolver, Params, ResolveEndpoint as _};
use chrono::{DateTime, Utc};
use futures::FutureExt as _;
use sha2::{Digest, Sha256, block_api::compress256};
use url::Url;

/// The longest life of a presigned URL that S3 accepts: seven days.
pub const LONGEST_EXPIRES: Duration = Duration::from_secs(604_800);

/// AWS credentials that sign.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The access key's id. It stands in every URL.
    pub access_key_id: String,
    /// The secret key.
    pub secret_access_key: String,
    /// The session token of temporary credentials. It stands in every URL.
    pub session_token: Option<String>,
    /// When temporary credentials expire, if that is known.
    pub expires_at: Option<DateTime<Utc>>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

/// The URL that a bucket's keys are appended to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketUrl {
    /// Scheme and authority, and a path that is not signed because a proxy removes it.
    origin: String,
    /// The `Host` header.
    host: String,
    /// The path that is signed; percent-encoded, begins and ends with `/`.
    path: String,
}

impl BucketUrl {
    /// The bucket at AWS: virtual-hosted, or path-style for a name with dots, whose certificate would not match.
    pub fn aws(bucket: &str, region: &str) -> Self {
        if bucket.contains('.') {
            return Self::aws_path_style(bucket, region);
        }
        let host = format!("{bucket}.s3.{region}.{}", aws_domain(region));
        Self { origin: format!("https://{host}"), host, path: "/".to_owned() }
    }

    /// The bucket at AWS, path-style.
    pub(super) fn aws_path_style(bucket: &str, region: &str) -> Self {
        let host = format!("s3.{region}.{}", aws_domain(region));
        Self { origin: format!("https://{host}"), host, path: format!("/{bucket}/") }
    }

    /// The bucket at an S3-compatible endpoint, path-style. The endpoint's own path is signed.
    pub fn path_style(endpoint: &Url, bucket: &str) -> Self {
        let host = host_and_port(endpoint, "");
        let path = format!("{}/{bucket}/", endpoint.path().trim_end_matches('/'));
        Self { origin: format!("{}://{host}", endpoint.scheme()), host, path }
    }

    /// The bucket at an S3-compatible endpoint, as a sub-domain of it; path-style for a name with dots, and
    /// for an endpoint that is an IP address, which has no sub-domains.
    pub fn virtual_hosted(endpoint: &Url, bucket: &str) -> Self {
        if bucket.contains('.') || !matches!(endpoint.host(), Some(url::Host::Domain(_))) {
            return Self::path_style(endpoint, bucket);
        }
        let host = host_and_port(endpoint, &format!("{bucket}."));
        let path = format!("{}/", endpoint.path().trim_end_matches('/'));
        Self { origin: format!("{}://{host}", endpoint.scheme()), host, path }
    }

    /// The bucket behind a proxy that removes the path of `base` before it passes requests on: that path
    /// is in the URL, and is not signed.
    pub fn behind(base: &Url, bucket: &str) -> Self {
        let mut root = base.clone();
        root.set_path("/");
        let mut url = Self::path_style(&root, bucket);
        url.origin.push_str(base.path().trim_end_matches('/'));
        url
    }

    /// The same bucket, with keys that all begin with `prefix`.
    #[must_use]
    pub fn under(mut self, prefix: &str) -> Self {
        let mut path = self.path.into_bytes();
        encode(prefix.as_bytes(), &PATH, &mut path);
        self.path = String::from_utf8_lossy(&path).into_owned();
        self
    }

    /// The URL up to where keys begin; percent-encoded, ends with `/` if the prefix does.
    pub fn as_url(&self) -> String {
        format!("{}{}", self.origin, self.path)
    }
}

/// Host and port as in the `Host` header: the scheme's own port is left out.
fn host_and_port(endpoint: &Url, sub_domain: &str) -> String {
    let host = endpoint.host_str().unwrap_or_default();
    match endpoint.port() {
        Some(port) => format!("{sub_domain}{host}:{port}"),
        None => format!("{sub_domain}{host}"),
    }
}

/// The domain of AWS's services in a region, such as `amazonaws.com`: that of STS, which is in every region. The SDK knows
/// the partitions of AWS; what it does not know gets the domain of most.
fn aws_domain(region: &str) -> String {
    let known = || {
        let asked = Params::builder().region(region).build().ok()?;
        let endpoint = DefaultResolver::new().resolve_endpoint(&asked).now_or_never()?.ok()?;
        let domain = endpoint.url().strip_prefix(&format!("https://sts.{region}."))?;
        Some(domain.trim_end_matches('/').to_owned())
    };
    known().unwrap_or_else(|| "amazonaws.com".to_owned())
}

/// Signs GET URLs for one bucket, one set of credentials and one moment.
///
/// ```
/// use std::time::Duration;
///
/// use chrono::Utc;
/// use deltashare::storage::presign::{BucketUrl, Credentials, Presigner};
///
/// let credentials = Credentials {
///     access_key_id: "AKIAIOSFODNN7EXAMPLE".to_owned(),
///     secret_access_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned(),
///     session_token: None,
///     expires_at: None,
/// };
/// let bucket = BucketUrl::aws("lake", "eu-central-1");
/// let hour = Duration::from_secs(3600);
/// let mut presigner = Presigner::new(&credentials, "eu-central-1", &bucket, Utc::now(), hour);
/// let mut url = Vec::new();
/// presigner.presign_into(b"tables/orders/part-0.parquet", &mut url);
/// assert!(url.starts_with(b"https://lake.s3.eu-central-1.amazonaws.com/tables/orders/part-0.parquet?"));
/// ```
pub struct Presigner {
    /// The URL before the key.
    url_head: Vec<u8>,
    /// The URL between the key and the signature.
    url_query: Vec<u8>,
    /// The URL after the signature.
    url_tail: Vec<u8>,
    /// The canonical request before the key.
    request_head: Vec<u8>,
    /// The canonical request, with its constant end at `end_at` and room on both sides: for head and key
    /// before it, for SHA-256's padding after it.
    request: Vec<u8>,
    end_at: usize,
    end_length: usize,
    hmac: StringToSign,
    expiration_millis: i64,
}

/// Room for SHA-256's padding: at most a block and the nine bytes that do not fit the one before.
const PADDING: usize = 72;

impl Presigner {
    /// URLs are valid from `now`, cut to the second, for `expires`, at most [`LONGEST_EXPIRES`].
    /// `region` is the bucket's own.
    pub fn new(
        credentials: &Credentials,
        region: &str,
        bucket: &BucketUrl,
        now: DateTime<Utc>,
        expires: Duration,
    ) -> Self {
        let expires = expires.min(LONGEST_EXPIRES).as_secs();
        let date = now.format("%Y%m%d").to_string();
        let date_time = now.format("%Y%m%dT%H%M%SZ").to_string();
        let scope = format!("{date}/{region}/s3/aws4_request");

        let before_token = format!(
            "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={}&X-Amz-Date={date_time}&X-Amz-Expires={expires}",
            query_value(&format!("{}/{scope}", credentials.access_key_id)),
        );
        let token = match &credentials.session_token {
            Some(token) => format!("&X-Amz-Security-Token={}", query_value(token)),
            None => String::new(),
        };
        let request_end = format!(
            "\n{before_token}{token}&X-Amz-SignedHeaders=host&x-id=GetObject\nhost:{}\n\nhost\nUNSIGNED-PAYLOAD",
            bucket.host
        );

        let mut presigner = Self {
            url_head: bucket.as_url().into_bytes(),
            url_query: format!("?x-id=GetObject&{before_token}&X-Amz-SignedHeaders=host&X-Amz-Signature=")
                .into(),
            url_tail: token.into(),
            request_head: format!("GET\n{}", bucket.path).into(),
            request: Vec::new(),
            end_at: 0,
            end_length: request_end.len(),
            hmac: StringToSign::new(&signing_key(credentials, &date, region), &date_time, &scope),
            expiration_millis: (now.timestamp() + i64::try_from(expires).unwrap_or(0)) * 1000,
        };
        presigner.lay_out(1024, request_end.as_bytes());
        presigner
    }

    /// When the URLs end, in milliseconds since 1970.
    pub fn expiration_millis(&self) -> i64 {
        self.expiration_millis
    }

    /// Appends the URL of the object with this key to `out`. The URL is ASCII without `"` and `\`.
    pub fn presign_into(&mut self, key: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&self.url_head);
        let key_at = out.len();
        encode(key, &PATH, out);
        let digest = self.hash_request(&out[key_at..]);
        out.extend_from_slice(&self.url_query);
        out.extend_from_slice(&hex(&self.hmac.sign(&hex(&digest))));
        out.extend_from_slice(&self.url_tail);
    }

    /// SHA-256 of the canonical request for a key that is already encoded.
    ///
    /// Head and key are written right before the constant end, which is therefore never copied.
    fn hash_request(&mut self, key: &[u8]) -> [u8; 32] {
        let head = self.request_head.len();
        if head + key.len() > self.end_at {
            let end = self.request[self.end_at..][..self.end_length].to_vec();
            self.lay_out((head + key.len()).next_power_of_two(), &end);
        }
        let start = self.end_at - head - key.len();
        self.request[start..][..head].copy_from_slice(&self.request_head);
        self.request[start + head..self.end_at].copy_from_slice(key);

        let length = head + key.len() + self.end_length;
        let padded = (length + 9).next_multiple_of(64);
        let message = &mut self.request[start..start + padded];
        pad(message, length, length);
        let mut state = INITIAL;
        compress256(&mut state, message.as_chunks().0);
        bytes(&state)
    }

    /// Makes a buffer with `room` bytes before the constant end.
    fn lay_out(&mut self, room: usize, end: &[u8]) {
        let room = room.max(self.request_head.len());
        self.request = vec![0; room + end.len() + PADDING];
        self.request[room..][..end.len()].copy_from_slice(end);
        self.end_at = room;
    }
}

/// The last HMAC of the signature, over a string of which only the hash at its end differs.
struct StringToSign {
    /// The inner hash after the key block and the whole blocks of the constant part.
    inner: [u32; 8],
    /// The rest of the string, with its padding; the hash is written at `hash_at`.
    rest: [u8; 192],
    hash_at: usize,
    blocks: usize,
    /// The outer hash after the key block.
    outer: [u32; 8],
}

impl StringToSign {
    fn new(signing_key: &[u8; 32], date_time: &str, scope: &str) -> Self {
        let constant = format!("AWS4-HMAC-SHA256\n{date_time}\n{scope}\n");
        let (whole, partial) = constant.as_bytes().as_chunks::<64>();
        let mut inner = keyed(signing_key, 0x36);
        compress256(&mut inner, whole);

        let mut rest = [0; 192];
        rest[..partial.len()].copy_from_slice(partial);
        let length = partial.len() + 64;
        let padded = (length + 9).next_multiple_of(64);
        pad(&mut rest[..padded], length, 64 + constant.len() + 64);
        Self { inner, rest, hash_at: partial.len(), blocks: padded / 64, outer: keyed(signing_key, 0x5c) }
    }

    fn sign(&mut self, request_hash: &[u8; 64]) -> [u8; 32] {
        self.rest[self.hash_at..][..64].copy_from_slice(request_hash);
        let mut inner = self.inner;
        compress256(&mut inner, &self.rest.as_chunks().0[..self.blocks]);

        let mut block = [0; 64];
        block[..32].copy_from_slice(&bytes(&inner));
        pad(&mut block, 32, 64 + 32);
        let mut outer = self.outer;
        compress256(&mut outer, &[block]);
        bytes(&outer)
    }
}

/// SHA-256's initial state (FIPS 180-4, 5.3.3).
const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// SHA-256's padding: fills `message` from `at`, and ends it with the length in bits of all that is hashed.
fn pad(message: &mut [u8], at: usize, hashed_bytes: usize) {
    let length_at = message.len() - 8;
    message[at] = 0x80;
    message[at + 1..length_at].fill(0);
    message[length_at..].copy_from_slice(&(hashed_bytes as u64 * 8).to_be_bytes());
}

fn bytes(state: &[u32; 8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (chunk, word) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(state) {
        *chunk = word.to_be_bytes();
    }
    bytes
}

/// The state of SHA-256 after HMAC's key block. Keys here are never longer than a block.
fn keyed(key: &[u8; 32], pad: u8) -> [u32; 8] {
    let mut block = [pad; 64];
    for (byte, key) in block.iter_mut().zip(key) {
        *byte ^= key;
    }
    let mut state = INITIAL;
    compress256(&mut state, &[block]);
    state
}

fn signing_key(credentials: &Credentials, date: &str, region: &str) -> [u8; 32] {
    let secret = format!("AWS4{}", credentials.secret_access_key);
    let mut key = hmac(secret.as_bytes(), date.as_bytes());
    for part in [region, "s3", "aws4_request"] {
        key = hmac(&key, part.as_bytes());
    }
    key
}

pub(super) fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut block = [0; 64];
    if key.len() <= block.len() {
        block[..key.len()].copy_from_slice(key);
    } else {
        block[..32].copy_from_slice(&Sha256::digest(key));
    }
    let inner = Sha256::new().chain_update(block.map(|byte| byte ^ 0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(block.map(|byte| byte ^ 0x5c)).chain_update(inner).finalize().into()
}

fn hex(digest: &[u8; 32]) -> [u8; 64] {
    let mut text = [0; 64];
    for (pair, byte) in text.as_chunks_mut::<2>().0.iter_mut().zip(digest) {
        *pair = [HEX_LOWER[usize::from(byte >> 4)], HEX_LOWER[usize::from(byte & 15)]];
    }
    text
}

const HEX_LOWER: &[u8; 16] = b"0123456789abcdef";
const HEX_UPPER: &[u8; 16] = b"0123456789ABCDEF";

/// Which bytes stand for themselves: RFC 3986's unreserved characters, and in a path the slash.
type Unreserved = [bool; 256];

const QUERY: Unreserved = unreserved(false);
const PATH: Unreserved = unreserved(true);

const fn unreserved(slash: bool) -> Unreserved {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = matches!(byte as u8, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~')
            || slash && byte as u8 == b'/';
        byte += 1;
    }
    table
}

fn query_value(text: &str) -> String {
    let mut encoded = Vec::with_capacity(text.len() + 64);
    encode(text.as_bytes(), &QUERY, &mut encoded);
    String::from_utf8_lossy(&encoded).into_owned()
}

fn encode(mut text: &[u8], unreserved: &Unreserved, out: &mut Vec<u8>) {
    while let Some(plain) = text.iter().position(|&byte| !unreserved[usize::from(byte)]) {
        let byte = text[plain];
        out.extend_from_slice(&text[..plain]);
        out.extend_from_slice(&[b'%', HEX_UPPER[usize::from(byte >> 4)], HEX_UPPER[usize::from(byte & 15)]]);
        text = &text[plain + 1..];
    }
    out.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of "Authenticating Requests: Using Query Parameters" in S3's API reference, whose request
    /// has no `x-id`; the HMAC and the hash are held to its published signature.
    #[test]
    fn string_to_sign_matches_the_published_example() {
        let credentials = Credentials {
            access_key_id: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret_access_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned(),
            session_token: None,
            expires_at: None,
        };
        let key = signing_key(&credentials, "20130524", "us-east-1");
        let mut string = StringToSign::new(&key, "20130524T000000Z", "20130524/us-east-1/s3/aws4_request");
        let signature = string.sign(b"3bfa292879f6447bbcda7001decf97f4a54dc650c8942174ae0a9121cf58ad04");
        assert_eq!(&hex(&signature), b"aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404");
    }

    #[test]
    fn debug_output_holds_no_secret() {
        let credentials = Credentials {
            access_key_id: "key-id".to_owned(),
            secret_access_key: "hidden".to_owned(),
            session_token: Some("hidden".to_owned()),
            expires_at: None,
        };
        let text = format!("{credentials:?}");
        assert!(!text.contains("hidden") && !text.contains("key-id"), "{text}");
    }

    #[test]
    fn hmac_matches_rfc_4231_with_a_key_longer_than_a_block() {
        let digest = hmac(&[0xaa; 131], b"Test Using Larger Than Block-Size Key - Hash Key First");
        assert_eq!(&hex(&digest), b"60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
    }

    #[test]
    fn aws_regions_have_their_domains() {
        assert_eq!(BucketUrl::aws("lake", "us-east-1").as_url(), "https://lake.s3.us-east-1.amazonaws.com/");
        assert_eq!(
            BucketUrl::aws("lake", "cn-north-1").as_url(),
            "https://lake.s3.cn-north-1.amazonaws.com.cn/"
        );
        for (region, domain) in [
            ("cn-northwest-1", "amazonaws.com.cn"),
            ("eusc-de-east-1", "amazonaws.eu"),
            ("us-iso-east-1", "c2s.ic.gov"),
            ("us-isob-east-1", "sc2s.sgov.gov"),
            ("eu-isoe-west-1", "cloud.adc-e.uk"),
            ("us-isof-south-1", "csp.hci.ic.gov"),
            ("mx-central-7", "amazonaws.com"),
            ("no region", "amazonaws.com"),
        ] {
            assert_eq!(aws_domain(region), domain, "{region}");
        }
        assert_eq!(
            BucketUrl::aws("my.lake", "us-gov-west-1").under("a b/").as_url(),
            "https://s3.us-gov-west-1.amazonaws.com/my.lake/a%20b/"
        );
    }
}
