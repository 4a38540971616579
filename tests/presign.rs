//! Our presigned URLs are the AWS SDK's, byte for byte.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, SystemTime};

use aws_sdk_s3::config::{BehaviorVersion, Credentials as SdkCredentials, Region};
use aws_sdk_s3::presigning::PresigningConfig;
use chrono::DateTime;
use deltashare::storage::presign::{BucketUrl, Credentials, Presigner};
use url::Url;

const KEY_ID: &str = "AKIAIOSFODNN7EXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

/// Odd keys that have broken signers before.
const ODD: &[&str] = &[
    "a",
    "part-00000-1c2d3e4f-c000.snappy.parquet",
    "date=2024-01-01/part-0.parquet",
    "with space/and+plus/and=equals/and%percent",
    "literal%20escape/%2F/%25/%zz",
    "ts=2020-01-01 12:30:00/part",
    "naïve/日本語/🦀",
    "~tilde/*star/'quote'/\"double\"/back\\slash",
    "/leading",
    "trailing/",
    "double//slash",
    "//",
    "dot/./segment/../up",
    "./x",
    "../x",
    "a?query=1&b#fragment",
    "!$&'()*+,;=:@[]{}|^`<>",
    "-._~",
];

/// A fixed sequence of numbers (SplitMix64), so that every run tests the same keys.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % limit as u64) as usize
    }

    fn key(&mut self) -> String {
        const PIECES: &[&str] = &[
            "a",
            "Z",
            "0",
            "-",
            "_",
            ".",
            "~",
            "/",
            "//",
            " ",
            "+",
            "=",
            "%",
            "%20",
            "%2F",
            "%2e%2e",
            "..",
            "é",
            "日",
            "🦀",
            ":",
            "*",
            "\"",
            "'",
            "\\",
            "?",
            "#",
            "&",
            ";",
            "@",
            "!",
            "$",
            "(",
            ")",
            ",",
            "[",
            "]",
            "{",
            "}",
            "|",
            "^",
            "`",
            "<",
            ">",
            "part-0000",
            ".snappy.parquet",
            "col=",
            "\u{a0}",
        ];
        let most = if self.below(20) == 0 { 400 } else { 40 };
        let pieces = 1 + self.below(most);
        (0..pieces).map(|_| PIECES[self.below(PIECES.len())]).collect()
    }
}

struct Case {
    bucket: &'static str,
    region: &'static str,
    endpoint: Option<&'static str>,
    path_style: bool,
    token: Option<String>,
    expires: u64,
    now: i64,
}

fn cases() -> Vec<Case> {
    let token = || Some(format!("IQoJb3JpZ2luX2VjE+/{}==", "Ab3/+x".repeat(170)));
    let case = |bucket, region, endpoint, path_style, token, expires, now| Case {
        bucket,
        region,
        endpoint,
        path_style,
        token,
        expires,
        now,
    };
    vec![
        case("lake", "us-east-1", None, false, None, 3600, 1_700_000_000),
        case("lake", "us-east-1", None, false, token(), 900, 1_700_000_000),
        case("lake", "eu-central-1", None, false, token(), 604_800, 1_709_164_799),
        case("lake", "ap-southeast-2", None, true, None, 1, 951_782_400),
        case("my.dotted.lake", "eu-west-3", None, true, token(), 3600, 1_800_000_000),
        case("my.dotted.lake", "us-east-1", None, false, None, 3600, 1_800_000_000),
        case("lake", "cn-north-1", None, false, token(), 3600, 1_800_000_000),
        case("lake", "us-gov-west-1", None, false, None, 3600, 1_800_000_000),
        case("lake", "us-east-1", Some("http://127.0.0.1:9000"), false, token(), 3600, 1_800_000_000),
        case("lake", "us-east-1", Some("http://[::1]:9000"), true, None, 3600, 1_800_000_000),
        case("lake", "us-east-1", Some("http://127.0.0.1:9000"), true, None, 3600, 1_800_000_000),
        case(
            "lake",
            "eu-north-1",
            Some("https://minio.example.com:8443"),
            true,
            token(),
            3600,
            1_800_000_000,
        ),
        case("lake", "eu-north-1", Some("https://minio.example.com:8443"), false, None, 3600, 1_800_000_000),
        case("lake", "eu-north-1", Some("https://minio.example.com/s3/"), true, None, 3600, 1_800_000_000),
    ]
}

fn ours(case: &Case) -> Presigner {
    let credentials = Credentials {
        access_key_id: KEY_ID.to_owned(),
        secret_access_key: SECRET.to_owned(),
        session_token: case.token.clone(),
        expires_at: None,
    };
    let bucket = match case.endpoint.map(|endpoint| Url::parse(endpoint).unwrap()) {
        Some(endpoint) if case.path_style => BucketUrl::path_style(&endpoint, case.bucket),
        Some(endpoint) => BucketUrl::virtual_hosted(&endpoint, case.bucket),
        None if case.path_style => {
            let endpoint = Url::parse(&format!("https://s3.{}.amazonaws.com", case.region)).unwrap();
            BucketUrl::path_style(&endpoint, case.bucket)
        }
        None => BucketUrl::aws(case.bucket, case.region),
    };
    let now = DateTime::from_timestamp(case.now, 999_000_000).unwrap();
    Presigner::new(&credentials, case.region, &bucket, now, Duration::from_secs(case.expires))
}

fn sdk(case: &Case) -> (aws_sdk_s3::Client, PresigningConfig) {
    let mut config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .credentials_provider(SdkCredentials::new(KEY_ID, SECRET, case.token.clone(), None, "test"))
        .region(Region::new(case.region))
        .force_path_style(case.path_style);
    config.set_endpoint_url(case.endpoint.map(str::to_owned));
    let presigning = PresigningConfig::builder()
        .start_time(SystemTime::UNIX_EPOCH + Duration::from_secs(case.now as u64))
        .expires_in(Duration::from_secs(case.expires))
        .build()
        .unwrap();
    (aws_sdk_s3::Client::from_conf(config.build()), presigning)
}

#[tokio::test]
async fn urls_are_the_sdks_for_thousands_of_keys() {
    let mut random = Random(42);
    let mut compared = 0;
    for case in cases() {
        let (client, presigning) = sdk(&case);
        let mut presigner = ours(&case);
        let mut out = b"before".to_vec();
        // The SDK refuses keys of nothing but white space.
        let generated: Vec<String> =
            std::iter::repeat_with(|| random.key()).filter(|key| !key.trim().is_empty()).take(300).collect();
        let long = [1, 55, 63, 64, 65, 1000, 1024, 9000].map(|length| "é".repeat(length));
        for key in ODD.iter().map(|key| (*key).to_owned()).chain(generated).chain(long) {
            let expected = client
                .get_object()
                .bucket(case.bucket)
                .key(&key)
                .presigned(presigning.clone())
                .await
                .unwrap();
            out.truncate("before".len());
            presigner.presign_into(key.as_bytes(), &mut out);
            let url = std::str::from_utf8(&out).unwrap().strip_prefix("before").unwrap();
            assert_eq!(url, expected.uri(), "bucket {}, region {}, key {key:?}", case.bucket, case.region);
            assert!(
                url.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\')),
                "{url}"
            );
            assert_eq!(expected.method(), "GET");
            compared += 1;
        }
        assert_eq!(presigner.expiration_millis(), (case.now + case.expires as i64) * 1000);
    }
    assert!(compared > 3000, "only {compared} URLs compared");
}

/// A prefix that is encoded once gives the URLs of the keys in full.
#[test]
fn a_prefix_is_part_of_the_key() {
    let credentials = Credentials {
        access_key_id: KEY_ID.to_owned(),
        secret_access_key: SECRET.to_owned(),
        session_token: None,
        expires_at: None,
    };
    let now = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
    let presign = |bucket: &BucketUrl, key: &str| {
        let mut out = Vec::new();
        Presigner::new(&credentials, "us-east-1", bucket, now, Duration::from_secs(60))
            .presign_into(key.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    };
    let whole = BucketUrl::aws("lake", "us-east-1");
    for prefix in ["", "a/", "a b=%/é/"] {
        let under = whole.clone().under(prefix);
        for key in ODD {
            assert_eq!(presign(&under, key), presign(&whole, &format!("{prefix}{key}")));
        }
    }
}

#[test]
fn a_life_beyond_seven_days_is_cut() {
    let credentials = Credentials {
        access_key_id: KEY_ID.to_owned(),
        secret_access_key: SECRET.to_owned(),
        session_token: None,
        expires_at: None,
    };
    let now = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
    let bucket = BucketUrl::aws("lake", "us-east-1");
    let mut presigner =
        Presigner::new(&credentials, "us-east-1", &bucket, now, Duration::from_secs(30 * 24 * 3600));
    let mut out = Vec::new();
    presigner.presign_into(b"key", &mut out);
    assert!(String::from_utf8(out).unwrap().contains("&X-Amz-Expires=604800&"));
    assert_eq!(presigner.expiration_millis(), (1_700_000_000 + 604_800) * 1000);
}
