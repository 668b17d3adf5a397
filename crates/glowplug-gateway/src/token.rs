//! Tokens this node signs: what somebody may do, until when, and on whose behalf.
//!
//! They are JSON Web Tokens with HMAC-SHA-256 (RFC 7515, RFC 7519). A token is as good as the key of the
//! caller it was made for: when that is revoked, its tokens mean nothing.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use glowplug_core::Timestamp;
use serde::{Deserialize, Serialize};

/// Bytes of a token. Longer ones are not looked at.
pub(crate) const TOKEN_BYTES_MAX: usize = 8 * 1024;
const SECRET_BYTES: usize = 32;
/// The only head a token of ours has, so nobody can choose how it is checked.
const HEAD: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

/// The key of a node. All nodes of one store have the same.
pub struct TokenKey(hmac::Key);

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKey")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("a key for tokens cannot be made; the system gives out no random numbers")]
    NotMade,
    #[error(
        "the stored key for tokens cannot be read; delete the setting `token_secret` to make a new one"
    )]
    NotRead,
}

/// What a token allows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "purpose")]
pub enum Grant {
    /// Calling these apps, each `app` or `owner/app`.
    Apps { apps: Vec<String> },
    /// Uploading files on behalf of the caller.
    Files,
    /// Uploading one file.
    Upload(UploadGrant),
}

/// The one file an upload address is for. Nothing is stored until its bytes come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadGrant {
    pub file: String,
    /// For an upload in parts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload: Option<String>,
    pub file_name: String,
    pub content_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_seconds: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    #[serde(flatten)]
    pub grant: Grant,
    /// Key id of the caller; empty when the node is open.
    #[serde(rename = "sub")]
    pub caller: String,
    /// Seconds since 1970.
    #[serde(rename = "exp")]
    pub expires_at: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenProblem {
    #[error("it is no token of this node")]
    Foreign,
    #[error("the token has expired; ask for a new one")]
    Expired,
}

impl TokenKey {
    /// A new secret, as it is kept.
    pub fn secret() -> Result<String, KeyError> {
        let mut secret = [0; SECRET_BYTES];
        SystemRandom::new().fill(&mut secret).map_err(|_| KeyError::NotMade)?;
        Ok(format!("\"{}\"", URL_SAFE_NO_PAD.encode(secret)))
    }

    /// The key of a secret that was kept.
    pub fn open(secret: &str) -> Result<Self, KeyError> {
        let secret = serde_json::from_str::<String>(secret).map_err(|_| KeyError::NotRead)?;
        let secret = URL_SAFE_NO_PAD.decode(secret).map_err(|_| KeyError::NotRead)?;
        if secret.len() != SECRET_BYTES {
            return Err(KeyError::NotRead);
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &secret)))
    }

    pub fn sign(&self, claims: &Claims) -> String {
        let body = serde_json::to_vec(claims).expect("claims have only text and numbers");
        let signed = [URL_SAFE_NO_PAD.encode(HEAD), URL_SAFE_NO_PAD.encode(body)].join(".");
        let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&self.0, signed.as_bytes()));
        format!("{signed}.{signature}")
    }

    /// What a token of ours says, if it still holds.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Claims, TokenProblem> {
        let foreign = TokenProblem::Foreign;
        if token.len() > TOKEN_BYTES_MAX {
            return Err(foreign);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(foreign)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| foreign)?;
        // Compares without telling by its time where the difference is. Nothing is read before.
        hmac::verify(&self.0, signed.as_bytes(), &signature).map_err(|_| foreign)?;
        let (_, body) = signed.split_once('.').ok_or(foreign)?;
        let body = URL_SAFE_NO_PAD.decode(body).map_err(|_| foreign)?;
        let claims: Claims = serde_json::from_slice(&body).map_err(|_| foreign)?;
        if now >= Timestamp::from_secs(claims.expires_at) {
            return Err(TokenProblem::Expired);
        }
        Ok(claims)
    }
}

impl Claims {
    pub fn new(grant: Grant, caller: &str, now: Timestamp, age: Duration) -> Self {
        let expires_at = (now + age).as_micros() / 1_000_000;
        Self { grant, caller: caller.to_owned(), expires_at }
    }

    /// Whether the token is for this app, `owner/app[--env]`.
    pub fn allows_app(&self, name: &str) -> bool {
        let Grant::Apps { apps } = &self.grant else { return false };
        // Clients name an app without its owner.
        let alias = name.split_once('/').map_or(name, |(_, alias)| alias);
        apps.iter().any(|app| app == name || app == alias)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);
    const MINUTE: Duration = Duration::from_mins(1);

    fn key() -> TokenKey {
        TokenKey::open(&TokenKey::secret().unwrap()).unwrap()
    }

    fn claims() -> Claims {
        let apps = vec!["ocr".to_owned(), "me/cut".to_owned()];
        Claims::new(Grant::Apps { apps }, "k1", NOW, MINUTE)
    }

    #[test]
    fn a_token_says_what_was_signed_until_it_expires() {
        let key = key();
        let upload = UploadGrant {
            file: "ab".into(),
            upload: None,
            file_name: "ü.png".into(),
            content_type: "image/png".into(),
            keep_seconds: Some(60),
        };
        for grant in [claims().grant, Grant::Files, Grant::Upload(upload)] {
            let claims = Claims::new(grant, "", NOW, MINUTE);
            let token = key.sign(&claims);
            assert_eq!(key.verify(&token, NOW), Ok(claims));
            assert_eq!(key.verify(&token, NOW + MINUTE), Err(TokenProblem::Expired));
        }
    }

    #[test]
    fn forged_tokens_are_foreign() {
        let key = key();
        let token = key.sign(&claims());
        let parts: Vec<&str> = token.split('.').collect();
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
        let admin = URL_SAFE_NO_PAD.encode(r#"{"purpose":"files","sub":"root","exp":99999999999}"#);
        let mut changed = token.clone().into_bytes();
        changed[40] ^= 1;
        for forged in [
            String::new(),
            "..".to_owned(),
            format!("{none}.{}.", parts[1]),
            format!("{none}.{admin}."),
            format!("{}.{admin}.{}", parts[0], parts[2]),
            format!("{}.{}", parts[0], parts[1]),
            format!("{token}x"),
            String::from_utf8(changed).unwrap(),
            super::tests::key().sign(&claims()),
            "x".repeat(TOKEN_BYTES_MAX + 1),
        ] {
            assert_eq!(key.verify(&forged, NOW), Err(TokenProblem::Foreign), "{forged}");
        }
    }

    #[test]
    fn only_named_apps_are_allowed() {
        for (name, allowed) in [
            ("me/ocr", true),
            ("you/ocr", true),
            ("me/cut", true),
            ("you/cut", false),
            ("me/ocr--dev", false),
            ("ocr/x", false),
        ] {
            assert_eq!(claims().allows_app(name), allowed, "{name}");
        }
        assert!(!Claims::new(Grant::Files, "", NOW, MINUTE).allows_app("me/ocr"));
    }

    #[test]
    fn only_whole_secrets_are_keys() {
        for kept in ["", "{}", "\"\"", "\"AAAA\"", "\"!\""] {
            assert_eq!(TokenKey::open(kept).unwrap_err(), KeyError::NotRead, "{kept}");
        }
    }
}
