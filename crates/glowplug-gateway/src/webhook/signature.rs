//! Proof that a webhook comes from this node: Ed25519 over who, when and what.
//!
//! What is signed are four lines: the request id, the user id, the time in seconds, and the SHA-256 of
//! the body in hexadecimal. Receivers get the public key from `/.well-known/jwks.json`.

use std::fmt;
use std::fmt::Write;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsBigEndian, Curve25519SeedBin};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use glowplug_core::{RequestId, Timestamp};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-fal-webhook-request-id");
const USER_ID: HeaderName = HeaderName::from_static("x-fal-webhook-user-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("x-fal-webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("x-fal-webhook-signature");

/// Stands for a caller without a key. Receivers take a missing user id for a forgery.
const NOBODY: &str = "local";
/// Seconds for which receivers may keep the public key.
pub(crate) const KEY_SECONDS_MAX: u32 = 24 * 60 * 60;

/// The node's key. All nodes of one store have the same.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    id: String,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("id", &self.id).finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("a key for webhooks cannot be made; the system gives out no random numbers")]
    NotMade,
    #[error(
        "the stored key for webhooks cannot be read; delete the setting `webhook_key` to make a new one"
    )]
    NotRead,
}

/// The key as it is kept: a private key as in RFC 8037.
#[derive(Deserialize, Serialize)]
struct Kept {
    kty: String,
    crv: String,
    x: String,
    d: String,
}

/// The headers of one call.
#[derive(Clone, Debug)]
pub struct Signed(pub(super) HeaderMap);

impl SigningKey {
    /// Makes a new key, as the JSON in which it is kept. It is a secret.
    pub fn generate() -> Result<String, KeyError> {
        let pair = Ed25519KeyPair::generate().map_err(|_| KeyError::NotMade)?;
        let seed = pair.seed().map_err(|_| KeyError::NotMade)?;
        let seed: Curve25519SeedBin<'_> = seed.as_be_bytes().map_err(|_| KeyError::NotMade)?;
        let kept = Kept {
            kty: "OKP".to_owned(),
            crv: "Ed25519".to_owned(),
            x: URL_SAFE_NO_PAD.encode(pair.public_key()),
            d: URL_SAFE_NO_PAD.encode(seed.as_ref()),
        };
        serde_json::to_string(&kept).map_err(|_| KeyError::NotMade)
    }

    /// Reads a key as it is kept.
    pub fn parse(json: &str) -> Result<Self, KeyError> {
        let kept: Kept = serde_json::from_str(json).map_err(|_| KeyError::NotRead)?;
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| KeyError::NotRead);
        let (seed, public) = (decode(&kept.d)?, decode(&kept.x)?);
        let pair = Ed25519KeyPair::from_seed_and_public_key(&seed, &public)
            .map_err(|_| KeyError::NotRead)?;
        let thumbprint = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, kept.x);
        let id = URL_SAFE_NO_PAD.encode(digest(&SHA256, thumbprint.as_bytes()));
        Ok(Self { pair, id })
    }

    /// The document at `/.well-known/jwks.json`.
    pub fn public_keys(&self) -> serde_json::Value {
        serde_json::json!({ "keys": [{
            "kty": "OKP",
            "crv": "Ed25519",
            "x": URL_SAFE_NO_PAD.encode(self.pair.public_key()),
            "kid": self.id,
            "use": "sig",
            "alg": "EdDSA",
        }] })
    }

    /// How long receivers may keep what [`public_keys`](Self::public_keys) says.
    pub fn cache_control() -> HeaderValue {
        HeaderValue::from_str(&format!("public, max-age={KEY_SECONDS_MAX}"))
            .expect("a number and ASCII letters")
    }

    /// Signs one call. `user`: the key id of the request's caller, or empty.
    pub fn sign(&self, request: RequestId, user: &str, at: Timestamp, body: &[u8]) -> Signed {
        let is_plain = !user.is_empty() && user.bytes().all(|byte| byte.is_ascii_graphic());
        let user = if is_plain { user } else { NOBODY };
        let seconds = (at.as_micros() / 1_000_000).to_string();
        let body = hexadecimal(digest(&SHA256, body).as_ref());
        let request = request.to_string();
        let message = format!("{request}\n{user}\n{seconds}\n{body}");
        let signature = hexadecimal(self.pair.sign(message.as_bytes()).as_ref());
        let mut headers = HeaderMap::with_capacity(4);
        for (name, text) in [
            (REQUEST_ID, request.as_str()),
            (USER_ID, user),
            (TIMESTAMP, seconds.as_str()),
            (SIGNATURE, signature.as_str()),
        ] {
            let value = HeaderValue::from_str(text).expect("visible ASCII, as made above");
            headers.insert(name, value);
        }
        Signed(headers)
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes all that is written");
        text
    })
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};

    use super::*;

    /// The first test vector of RFC 8032, and the thumbprint of it in RFC 8037.
    const KNOWN: &str = r#"{"kty": "OKP", "crv": "Ed25519",
        "d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    const KNOWN_ID: &str = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k";

    fn header<'a>(signed: &'a Signed, name: &HeaderName) -> &'a str {
        signed.0[name].to_str().unwrap()
    }

    #[test]
    fn the_public_key_is_shown_as_the_standard_says() {
        let shown = SigningKey::parse(KNOWN).unwrap().public_keys();
        let key = &shown["keys"][0];
        assert_eq!(key["kid"], KNOWN_ID);
        assert_eq!(key["x"], "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
        assert_eq!((&key["kty"], &key["crv"]), (&"OKP".into(), &"Ed25519".into()));
        assert!(!shown.to_string().contains("nWGxne"), "the secret stays here");
    }

    #[test]
    fn a_key_that_was_made_can_be_read_and_signs() {
        let kept = SigningKey::generate().unwrap();
        assert_ne!(kept, SigningKey::generate().unwrap());
        let key = SigningKey::parse(&kept).unwrap();
        let at = Timestamp::from_micros(1_700_000_000_999_999);
        let signed = key.sign(RequestId(5), "key-1", at, b"{}");
        assert_eq!(header(&signed, &TIMESTAMP), "1700000000");
        assert_eq!(header(&signed, &USER_ID), "key-1");
        let body = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
        let message = format!("{}\nkey-1\n1700000000\n{body}", RequestId(5));
        let hex = header(&signed, &SIGNATURE);
        let signature: Vec<u8> = (0..hex.len() / 2)
            .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
            .collect();
        let public = UnparsedPublicKey::new(&ED25519, key.pair.public_key().as_ref().to_vec());
        public.verify(message.as_bytes(), &signature).unwrap();
        assert!(public.verify(b"other", &signature).is_err());
    }

    #[test]
    fn callers_without_a_name_have_one_all_the_same() {
        let key = SigningKey::parse(KNOWN).unwrap();
        for user in ["", "a b", "a\nb", "ä"] {
            let signed = key.sign(RequestId(5), user, Timestamp::ZERO, b"");
            assert_eq!(header(&signed, &USER_ID), "local", "{user:?}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let other_public = KNOWN.replace("11qY", "21qY");
        for kept in ["", "{}", "null", &KNOWN.replace("nWGx", "n"), &other_public] {
            assert_eq!(SigningKey::parse(kept).unwrap_err(), KeyError::NotRead, "{kept}");
        }
    }
}
