//! What a webhook says.

use glowplug_core::RequestId;
use serde::Serialize;
use serde_json::value::RawValue;

use super::limits::PAYLOAD_BYTES_MAX;

/// The end of a request, from which the body of its webhook is made. The same end makes the same bytes.
#[derive(Clone, Copy, Debug)]
pub struct Payload<'a> {
    pub request: RequestId,
    /// Of the stored answer.
    pub status: u16,
    pub body: &'a [u8],
    /// What the request's status says against it, if anything.
    pub error: Option<&'a str>,
}

#[derive(Serialize)]
struct Message<'a> {
    request_id: &'a str,
    gateway_request_id: &'a str,
    status: &'static str,
    payload: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_error: Option<String>,
}

impl Payload<'_> {
    pub fn to_json(&self) -> Vec<u8> {
        let id = self.request.to_string();
        let error = if self.status >= 400 {
            // In words that receivers are known to look for; what went wrong is in the payload.
            Some(format!("Invalid status code: {}", self.status))
        } else {
            self.error.map(str::to_owned)
        };
        let (payload, payload_error) = match self.json() {
            Ok(json) => (Some(json), None),
            Err(problem) => (None, Some(problem)),
        };
        let message = Message {
            request_id: &id,
            gateway_request_id: &id,
            status: if error.is_some() { "ERROR" } else { "OK" },
            payload,
            error,
            payload_error,
        };
        serde_json::to_vec(&message).expect("strings and checked JSON can be written as JSON")
    }

    /// The answer as it is, if it is JSON.
    fn json(&self) -> Result<&RawValue, String> {
        let bytes = self.body.len();
        if bytes == 0 {
            return Err("the answer is empty".to_owned());
        }
        if bytes > PAYLOAD_BYTES_MAX {
            return Err(format!(
                "the answer has {bytes} bytes, and a webhook carries at most {PAYLOAD_BYTES_MAX}; fetch it \
                 from the request's response_url"
            ));
        }
        let text = std::str::from_utf8(self.body).ok();
        text.and_then(|text| serde_json::from_str(text).ok()).ok_or_else(|| {
            "the answer is not JSON; fetch it from the request's response_url".to_owned()
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn message(status: u16, body: &[u8], error: Option<&str>) -> Value {
        let payload = Payload { request: RequestId(7), status, body, error };
        let bytes = payload.to_json();
        assert_eq!(bytes, payload.to_json(), "the same end, the same bytes");
        serde_json::from_slice(&bytes).unwrap()
    }

    #[test]
    fn an_end_is_told_as_receivers_expect_it() {
        let id = RequestId(7).to_string();
        for (status, body, error, rest) in [
            (200, r#"{"a": 1}"#, None, json!({"status": "OK", "payload": {"a": 1}})),
            (200, " [1, 2]\n", None, json!({"status": "OK", "payload": [1, 2]})),
            (204, "null", None, json!({"status": "OK", "payload": null})),
            (302, "\"there\"", None, json!({"status": "OK", "payload": "there"})),
            (
                422,
                r#"{"detail": "no"}"#,
                Some("Invalid status code: 422"),
                json!({"status": "ERROR", "error": "Invalid status code: 422", "payload": {"detail": "no"}}),
            ),
            (
                499,
                r#"{"detail": "cancelled"}"#,
                Some("the caller cancelled the request"),
                json!({"status": "ERROR", "error": "Invalid status code: 499", "payload": {"detail": "cancelled"}}),
            ),
            (
                200,
                "{}",
                Some("broke off"),
                json!({"status": "ERROR", "error": "broke off", "payload": {}}),
            ),
        ] {
            let mut expected = rest;
            expected["request_id"] = id.clone().into();
            expected["gateway_request_id"] = id.clone().into();
            assert_eq!(message(status, body.as_bytes(), error), expected, "{status} {body}");
        }
    }

    #[test]
    fn what_is_not_json_is_left_out_and_said_so() {
        let large = format!("\"{}\"", "a".repeat(PAYLOAD_BYTES_MAX - 1));
        for (body, problem) in [
            (&b""[..], "empty"),
            (b"plain", "not JSON"),
            (b"{\"a\": 1", "not JSON"),
            (b"{} {}", "not JSON"),
            (b"NaN", "not JSON"),
            (b"\"\xff\"", "not JSON"),
            (b"\x89PNG", "not JSON"),
            (large.as_bytes(), "bytes, and a webhook carries"),
        ] {
            let message = message(200, body, None);
            assert_eq!(message["status"], "OK");
            assert_eq!(message["payload"], Value::Null);
            let said = message["payload_error"].as_str().unwrap();
            assert!(said.contains(problem), "{said}");
        }
        assert!(message(200, &large.as_bytes()[..10], None)["payload"].is_null());
        let fits = format!("\"{}\"", "a".repeat(PAYLOAD_BYTES_MAX - 2));
        assert!(message(200, fits.as_bytes(), None)["payload"].is_string());
    }

    #[test]
    fn numbers_are_passed_as_the_app_wrote_them() {
        let body = br#"{"big": 12345678901234567890123, "float": 1.10, "deep": [[[[]]]]}"#;
        let payload = Payload { request: RequestId(7), status: 200, body, error: None };
        let text = String::from_utf8(payload.to_json()).unwrap();
        assert!(text.contains(std::str::from_utf8(body).unwrap()), "{text}");
    }
}
