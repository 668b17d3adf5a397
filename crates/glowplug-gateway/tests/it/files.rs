//! Uploads, files and tokens.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use glowplug_gateway::Gateway;
use glowplug_gateway::host::Access;
use glowplug_gateway::token::{Claims, Grant, TokenKey};
use http::{HeaderMap, Method};
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::client::{ask, ask_json, get, post, with};
use crate::host::{KEY, KEY_ID, Plan, START_SECONDS, TableHost, gateway};
use crate::protocols::over_http2;
use crate::table_files::{FILE_BYTES_MAX, TableFiles};
use crate::upstream::Upstream;

const AUTHORIZED: (&str, &str) = ("authorization", "Key tester:s3cret");

/// A header field.
type Field<'a> = (&'static str, &'a str);

struct Scene {
    host: Arc<TableHost>,
    gateway: Gateway,
}

impl Scene {
    fn new() -> Self {
        Self::with(TableFiles::default())
    }

    fn with(files: TableFiles) -> Self {
        assert_eq!(AUTHORIZED.1, format!("Key {KEY}"));
        let key = TokenKey::open(&TokenKey::secret().unwrap()).unwrap();
        let files = Some((files, key));
        let mut host = TableHost::default();
        host.files = files;
        let host = Arc::new(host);
        let gateway = gateway(&host);
        Self { host, gateway }
    }

    fn at(&self) -> SocketAddr {
        self.gateway.address()
    }

    fn sign(&self, grant: Grant, caller: &str, expires_at: u64) -> String {
        let claims = Claims { grant, caller: caller.to_owned(), expires_at };
        self.host.files.as_ref().unwrap().1.sign(&claims)
    }

    /// The path of a file that was uploaded.
    async fn uploaded(&self, bytes: &'static [u8], fields: &[(&'static str, &str)]) -> String {
        let request = with(with(post("/files/upload", bytes), fields), &[AUTHORIZED]);
        let (status, _, body) = ask_json(self.at(), request).await;
        assert_eq!(status, 200, "{body}");
        self.path(&body["access_url"])
    }

    fn path(&self, url: &Value) -> String {
        let url = url.as_str().unwrap();
        let base = format!("http://{}", self.at());
        url.strip_prefix(&base).unwrap_or_else(|| panic!("{url}")).to_owned()
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: &'static [u8],
        fields: &[(&'static str, &str)],
    ) -> (u16, HeaderMap, Vec<u8>) {
        let mut request = with(post(path, body), fields);
        *request.method_mut() = method;
        let (status, headers, body) = ask(self.at(), request).await;
        (status, headers, body.to_vec())
    }
}

#[tokio::test]
async fn a_file_is_served_whole_and_in_parts() {
    let scene = Scene::new();
    let fields = [("content-type", "image/png"), ("x-fal-file-name", "../x/a b.png")];
    let path = scene.uploaded(b"0123456789", &fields).await;
    assert_eq!(path, "/files/f0/a%20b.png");
    let etag = format!("\"{}\"", "ab".repeat(32));
    let cases: [(&[Field<'_>], u16, &str, &str); 10] = [
        (&[], 200, "0123456789", ""),
        (&[("range", "bytes=2-4")], 206, "234", "bytes 2-4/10"),
        (&[("range", "bytes=-2")], 206, "89", "bytes 8-9/10"),
        (&[("range", "bytes=8-99")], 206, "89", "bytes 8-9/10"),
        (&[("range", "bytes=0-1,4-5")], 200, "0123456789", ""),
        (&[("range", "bytes=2-4"), ("if-range", &etag)], 206, "234", "bytes 2-4/10"),
        (&[("range", "bytes=2-4"), ("if-range", "\"other\"")], 200, "0123456789", ""),
        (&[("if-none-match", &etag)], 304, "", ""),
        (&[("if-none-match", "W/\"x\", *")], 304, "", ""),
        (&[("if-none-match", "\"other\"")], 200, "0123456789", ""),
    ];
    for (fields, expected, bytes, range) in cases {
        let (status, headers, body) = ask(scene.at(), with(get(&path), fields)).await;
        assert_eq!((status, &body[..]), (expected, bytes.as_bytes()), "{fields:?}");
        let got = headers.get("content-range").map_or("", |value| value.to_str().unwrap());
        assert_eq!(got, range, "{fields:?}");
        assert_eq!(headers["etag"], etag.as_str());
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert!(headers["content-security-policy"].to_str().unwrap().starts_with("sandbox"));
        assert_eq!(headers["access-control-allow-origin"], "*");
        assert_eq!(headers["content-disposition"], "inline; filename*=UTF-8''a%20b.png");
    }
    let beyond = with(get(&path), &[("range", "bytes=10-")]);
    let (status, headers, _) = ask(scene.at(), beyond).await;
    assert_eq!((status, &headers["content-range"]), (416, &"bytes */10".parse().unwrap()));
    let (status, headers, body) = scene.send(Method::HEAD, &path, b"", &[]).await;
    assert_eq!((status, body.len()), (200, 0));
    assert_eq!(headers["content-length"], "10");
}

#[tokio::test]
async fn a_files_address_begins_as_its_uploader_named_the_node() {
    let scene = Scene::new();
    let named = |request: &mut http::Request<Full<Bytes>>| {
        request.headers_mut().insert(AUTHORIZED.0, AUTHORIZED.1.parse().unwrap());
    };
    let mut first = with(post("/files/upload", "x"), &[("host", "files.test:81")]);
    named(&mut first);
    let (_, _, body) = ask_json(scene.at(), first).await;
    assert_eq!(body["access_url"], "http://files.test:81/files/f0/file.bin");
    let mut second = post("http://files.test:82/files/upload", "x");
    named(&mut second);
    let (_, body) = over_http2(TcpStream::connect(scene.at()).await.unwrap(), second).await;
    assert_eq!(body["access_url"], "http://files.test:82/files/f1/file.bin");
    let scene = Scene::with(TableFiles::reached_at("https://cdn.test/below"));
    let mut third = post("/files/upload", "x");
    named(&mut third);
    let (_, _, body) = ask_json(scene.at(), third).await;
    assert_eq!(body["access_url"], "https://cdn.test/below/files/f0/file.bin", "as the node says");
}

#[tokio::test]
async fn files_that_are_not_known_yet_are_not_missing() {
    let mut files = TableFiles::default();
    files.is_opening = true;
    let scene = Scene::with(files);
    for request in [get("/files/f0"), with(post("/files/upload", "x"), &[AUTHORIZED])] {
        let (status, _, body) = ask_json(scene.at(), request).await;
        assert_eq!((status, &body["error_type"]), (503, &json!("store_unavailable")), "{body}");
    }
}

#[tokio::test]
async fn what_could_run_as_a_page_is_saved() {
    let scene = Scene::new();
    for kind in ["text/html", "application/xhtml+xml", "", "text/javascript"] {
        let fields = [("content-type", kind)];
        let path = scene.uploaded(b"<script>", &fields).await;
        let (_, headers, _) = ask(scene.at(), get(&path)).await;
        let how = headers["content-disposition"].to_str().unwrap();
        assert!(how.starts_with("attachment"), "{kind}: {how}");
    }
}

#[tokio::test]
async fn uploads_take_a_key_or_a_token() {
    let scene = Scene::new();
    let token = |grant, caller, expires| format!("Bearer {}", scene.sign(grant, caller, expires));
    let later = START_SECONDS + 60;
    let apps = Grant::Apps { apps: vec!["app".into()] };
    let cases = [
        (None, 401),
        (Some(AUTHORIZED.1.to_owned()), 200),
        (Some("Key tester:wrong".to_owned()), 401),
        (Some("Bearer a.b.c".to_owned()), 401),
        (Some(token(Grant::Files, KEY_ID, later)), 200),
        (Some(token(Grant::Files, KEY_ID, START_SECONDS)), 401),
        (Some(token(Grant::Files, "revoked", later)), 401),
        (Some(token(Grant::Files, "", later)), 401),
        (Some(token(apps, KEY_ID, later)), 401),
    ];
    for path in ["/files/upload", "/files/upload/multipart"] {
        for (credential, expected) in &cases {
            let fields = credential.as_deref().map(|value| ("authorization", value));
            let fields: Vec<_> = fields.into_iter().collect();
            let (status, _, body) = scene.send(Method::POST, path, b"x", &fields).await;
            let body = String::from_utf8_lossy(&body);
            assert_eq!(status, *expected, "{path} {credential:?}: {body}");
        }
    }
}

#[tokio::test]
async fn the_token_route_gives_what_uploads_take() {
    let scene = Scene::new();
    let path = "/storage/auth/token?storage_type=fal-cdn-v3";
    assert_eq!(scene.send(Method::POST, path, b"{}", &[]).await.0, 401);
    let (status, _, body) = scene.send(Method::POST, path, b"{}", &[AUTHORIZED]).await;
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((status, &body["token_type"]), (200, &json!("Bearer")));
    assert_eq!(body["base_url"], format!("http://{}", scene.at()));
    assert!(body["expires_at"].as_str().unwrap().ends_with("+00:00"), "{body}");
    let bearer = format!("Bearer {}", body["token"].as_str().unwrap());
    let fields = [("authorization", bearer.as_str())];
    assert_eq!(scene.send(Method::POST, "/files/upload", b"x", &fields).await.0, 200);
    scene.host.seconds_passed.store(24 * 60 * 60, Ordering::Relaxed);
    assert_eq!(scene.send(Method::POST, "/files/upload", b"x", &fields).await.0, 401);
    let other = "/storage/auth/token?storage_type=floppy";
    assert_eq!(scene.send(Method::POST, other, b"{}", &[AUTHORIZED]).await.0, 400);
}

#[tokio::test]
async fn parts_become_a_file() {
    let scene = Scene::new();
    let begin = with(post("/files/upload/multipart", ""), &[AUTHORIZED]);
    let (_, _, begun) = ask_json(scene.at(), begin).await;
    let path = scene.path(&begun["access_url"]);
    let parts = format!("{path}/multipart/{}", begun["uploadId"].as_str().unwrap());
    let mut listed = Vec::new();
    for (number, bytes) in [(2, b"second".as_slice()), (1, b"first ")] {
        let part = format!("{parts}/{number}");
        let (status, headers, body) = scene.send(Method::PUT, &part, bytes, &[AUTHORIZED]).await;
        assert_eq!(status, 200);
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["etag"], headers["etag"].to_str().unwrap());
        listed.push(body);
    }
    for (method, below, body, expected) in [
        (Method::PUT, "/x", b"".as_slice(), 400),
        (Method::PUT, "/-1", b"", 400),
        (Method::PUT, "/99999999999", b"", 400),
        (Method::POST, "/1", b"", 405),
        (Method::POST, "/complete", b"{}", 400),
        (Method::GET, "", b"", 405),
    ] {
        let at = format!("{parts}{below}");
        let (status, ..) = scene.send(method, &at, body, &[AUTHORIZED]).await;
        assert_eq!(status, expected, "{at}");
    }
    assert_eq!(scene.send(Method::PUT, &format!("{parts}/1"), b"x", &[]).await.0, 401);
    let complete = post(&format!("{parts}/complete"), json!({"parts": listed}).to_string());
    let (status, _, body) = ask_json(scene.at(), with(complete, &[AUTHORIZED])).await;
    assert_eq!((status, scene.path(&body["access_url"])), (200, path.clone()));
    assert_eq!(&ask(scene.at(), get(&path)).await.2[..], b"first second");
    let late = scene.send(Method::PUT, &format!("{parts}/1"), b"x", &[AUTHORIZED]).await;
    assert_eq!(late.0, 404);
}

#[tokio::test]
async fn an_upload_address_is_for_one_file() {
    let scene = Scene::new();
    let wanted = json!({"file_name": "a.txt", "content_type": "text/plain"}).to_string();
    let begin =
        with(post("/storage/upload/initiate?storage_type=gcs", wanted.clone()), &[AUTHORIZED]);
    let (_, _, begun) = ask_json(scene.at(), begin).await;
    let (to, file) = (scene.path(&begun["upload_url"]), scene.path(&begun["file_url"]));
    let (place, token) = to.split_once('?').unwrap();
    assert_eq!(scene.send(Method::OPTIONS, &to, b"", &[("origin", "http://a")]).await.0, 204);
    for (path, expected) in [
        (place.to_owned(), 401),
        (format!("{place}?token=a.b.c"), 401),
        (format!("/files/upload/f77?{token}"), 401),
        (format!("{place}/1?{token}"), 405),
        (to.clone(), 200),
    ] {
        assert_eq!(scene.send(Method::PUT, &path, b"text", &[]).await.0, expected, "{path}");
    }
    assert_eq!(&ask(scene.at(), get(&file)).await.2[..], b"text");
    let begin = with(post("/storage/upload/initiate-multipart", wanted), &[AUTHORIZED]);
    let (_, _, begun) = ask_json(scene.at(), begin).await;
    let (to, file) = (scene.path(&begun["upload_url"]), scene.path(&begun["file_url"]));
    let (place, token) = to.split_once('?').unwrap();
    let part = scene.send(Method::PUT, &format!("{place}/1?{token}"), b"part", &[]).await;
    assert_eq!(part.0, 200);
    let list = post(
        &format!("{place}/complete?{token}"),
        r#"{"parts":[{"partNumber":1,"etag":"\"etag-1\""}]}"#,
    );
    assert_eq!(ask(scene.at(), list).await.0, 200);
    assert_eq!(&ask(scene.at(), get(&file)).await.2[..], b"part");
}

#[tokio::test]
async fn only_its_uploader_deletes_a_file_and_nobody_finds_others() {
    let scene = Scene::new();
    let path = scene.uploaded(b"mine", &[]).await;
    let stranger = format!("Bearer {}", scene.sign(Grant::Files, "revoked", START_SECONDS + 9));
    let delete = async |fields: &[(&'static str, &str)]| {
        scene.send(Method::DELETE, &path, b"", fields).await.0
    };
    assert_eq!(delete(&[]).await, 401);
    assert_eq!(delete(&[("authorization", &stranger)]).await, 401);
    // Apps have such tokens of their callers.
    let token = format!("Bearer {}", scene.sign(Grant::Files, KEY_ID, START_SECONDS + 9));
    assert_eq!(delete(&[("authorization", &token)]).await, 401);
    assert_eq!(delete(&[AUTHORIZED]).await, 204);
    assert_eq!(delete(&[AUTHORIZED]).await, 404);
    for path in ["/files/f9", "/files/..%2f..%2fetc/passwd", "/files/%00", "/files//x", &path] {
        assert_eq!(ask(scene.at(), get(path)).await.0, 404, "{path}");
    }
}

#[tokio::test]
async fn what_is_too_large_is_told_so() {
    let scene = Scene::new();
    let large = post("/files/upload", vec![0; FILE_BYTES_MAX + 1]);
    let (status, _, body) = ask_json(scene.at(), with(large, &[AUTHORIZED])).await;
    assert_eq!((status, &body["error_type"]), (413, &json!("payload_too_large")));
    let lifecycle = [AUTHORIZED, ("x-fal-object-lifecycle", "soon")];
    assert_eq!(scene.send(Method::POST, "/files/upload", b"x", &lifecycle).await.0, 400);
}

#[tokio::test]
async fn tokens_for_apps_are_made_for_callers() {
    let scene = Scene::new();
    let ask = async |body: Value, fields: &[(&'static str, &str)]| {
        ask_json(scene.at(), with(post("/tokens/", body.to_string()), fields)).await
    };
    let wanted = json!({"allowed_apps": ["app"], "token_expiration": 120});
    assert_eq!(ask(wanted.clone(), &[]).await.0, 401);
    let (status, _, token) = ask(wanted, &[AUTHORIZED]).await;
    assert_eq!((status, token.as_str().unwrap().split('.').count()), (200, 3));
    for refused in [
        json!({"allowed_apps": []}),
        json!({"allowed_apps": [""]}),
        json!({"allowed_apps": vec!["a"; 101]}),
        json!({"allowed_apps": ["a"], "token_expiration": 0}),
        json!({"allowed_apps": ["a"], "duration": 86_401}),
        json!({"token_expiration": 5}),
    ] {
        assert_eq!(ask(refused.clone(), &[AUTHORIZED]).await.0, 400, "{refused}");
    }
}

#[tokio::test]
async fn apps_get_a_token_to_upload_for_their_caller() {
    let scene = Scene::new();
    let upstream = Upstream::tcp().await;
    scene.host.add("me/app", Access::Private, Plan::Now(upstream.address.clone()));
    let forged = [AUTHORIZED, ("x-fal-cdn-token", "forged")];
    let (_, _, body) = ask_json(scene.at(), with(post("/run/me/app", "{}"), &forged)).await;
    let fields = body["headers"].as_array().unwrap().iter().map(|field| field.as_str().unwrap());
    let tokens: Vec<_> =
        fields.filter_map(|field| field.strip_prefix("x-fal-cdn-token: ")).collect();
    let [token] = tokens.as_slice() else { panic!("{body}") };
    let bearer = format!("Bearer {token}");
    let fields = [("authorization", bearer.as_str())];
    assert_eq!(scene.send(Method::POST, "/files/upload", b"made", &fields).await.0, 200);
}
