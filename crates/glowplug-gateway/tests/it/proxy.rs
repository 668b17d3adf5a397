//! `/proxy`, as the JavaScript client uses it.

use std::sync::Arc;

use glowplug_gateway::Options;
use glowplug_gateway::host::Access;
use glowplug_gateway::options::ProxyOrigins;
use serde_json::json;

use crate::client::{ask, ask_json, get, post, with};
use crate::host::{Plan, TableHost, gateway, gateway_with};
use crate::upstream::Upstream;

const TARGET: &str = "x-fal-target-url";

#[tokio::test]
async fn the_target_chooses_the_route() {
    let host = Arc::new(TableHost::open());
    let upstream = Upstream::tcp().await;
    host.add("me/app", Access::Private, Plan::Now(upstream.address.clone()));
    let gateway = gateway(&host);
    let address = gateway.address();

    let run = with(post("/proxy", "in"), &[(TARGET, "https://fal.run/me/app/a?b=c")]);
    let (status, headers, body) = ask_json(address, run).await;
    assert_eq!((status, &body["uri"], &body["body"]), (200, &json!("/a?b=c"), &json!("in")));
    assert!(!body["headers"].to_string().contains(TARGET));
    assert!(!headers.contains_key("access-control-allow-origin"));

    let submit = with(post("/proxy", "{}"), &[(TARGET, "https://queue.fal.run/me/app")]);
    let (status, _, body) = ask_json(address, submit).await;
    assert_eq!((status, &body["status"]), (200, &json!("IN_QUEUE")));
    let id = body["request_id"].as_str().unwrap();
    let url = format!("https://queue.fal.run/me/app/requests/{id}/status?logs=1");
    let (status, headers, body) = ask_json(address, with(get("/proxy"), &[(TARGET, &url)])).await;
    assert_eq!((status, &body["status"], &body["logs"]), (202, &json!("IN_QUEUE"), &json!([])));
    assert_eq!(headers["x-fal-request-id"], id);

    let keys = with(get("/proxy"), &[(TARGET, "https://rest.fal.ai/.well-known/jwks.json")]);
    let (status, _, body) = ask(address, keys).await;
    assert_eq!((status, &body[..]), (200, &b"fallback GET /.well-known/jwks.json"[..]));
    // A page that may call apps may not rule the node.
    for own in ["/api/v1/keys", "/metrics", "/users/current", "/.well-known/other", "/"] {
        let rest = with(post("/proxy", "{}"), &[(TARGET, &format!("https://rest.fal.ai{own}"))]);
        let (status, _, body) = ask_json(address, rest).await;
        assert_eq!((status, &body["error_type"]), (404, &json!("not_found")), "{own}");
    }

    for target in
        [None, Some("http://169.254.169.254/"), Some("nonsense"), Some("https://fal.run:1/a/b")]
    {
        let fields: Vec<_> = target.iter().map(|target| (TARGET, *target)).collect();
        let (status, headers, body) = ask_json(address, with(get("/proxy"), &fields)).await;
        assert_eq!((status, &body["error_type"]), (400, &json!("bad_request")), "{target:?}");
        assert_eq!(headers["x-fal-request-id"].len(), 36);
    }
}

#[tokio::test]
async fn only_allowed_pages_get_cors_headers() {
    let host = Arc::new(TableHost::open());
    let upstream = Upstream::tcp().await;
    host.add("me/app", Access::Private, Plan::Now(upstream.address.clone()));
    let proxy_origins = ProxyOrigins::Only(vec!["http://localhost:3000".to_owned()]);
    let gateway = gateway_with(&host, Options { proxy_origins, ..Options::default() });
    let address = gateway.address();
    let preflight = |origin: &'static str| {
        let mut request = with(
            get("/proxy"),
            &[
                ("origin", origin),
                ("access-control-request-method", "POST"),
                ("access-control-request-headers", "x-fal-target-url,authorization"),
            ],
        );
        *request.method_mut() = http::Method::OPTIONS;
        request
    };
    let (status, headers, _) = ask(address, preflight("http://localhost:3000")).await;
    assert_eq!(status, 204);
    assert_eq!(headers["access-control-allow-origin"], "http://localhost:3000");
    assert_eq!(headers["access-control-allow-headers"], "x-fal-target-url,authorization");
    assert_eq!(ask(address, preflight("http://evil.test")).await.0, 400);

    for (origin, allowed) in [("http://localhost:3000", true), ("http://evil.test", false)] {
        let fields = [(TARGET, "https://fal.run/me/app"), ("origin", origin)];
        let (status, headers, _) = ask(address, with(get("/proxy"), &fields)).await;
        assert_eq!(status, 200);
        assert_eq!(headers.contains_key("access-control-allow-origin"), allowed, "{origin}");
        if allowed {
            let exposed = headers["access-control-expose-headers"].to_str().unwrap();
            assert!(exposed.contains("x-fal-request-id"));
        }
    }
    // Errors too, or the page could not read them.
    let (status, headers, _) =
        ask(address, with(get("/proxy"), &[("origin", "http://localhost:3000")])).await;
    assert_eq!(status, 400);
    assert!(headers.contains_key("access-control-allow-origin"));
}
