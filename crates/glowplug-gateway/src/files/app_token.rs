//! What an app gets with each request, to upload what it makes on behalf of its caller.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use foldhash::fast::RandomState;
use glowplug_core::Timestamp;
use http::{HeaderName, HeaderValue};

use super::upload::{TOKEN_AGE, cdn_claims};
use crate::host::Host;

pub const APP_TOKEN: HeaderName = HeaderName::from_static("x-fal-cdn-token");
/// Callers whose tokens are kept. Beyond it all are made anew.
const CALLERS_MAX: usize = 1_024;

/// Tokens by caller, so that not every request signs one. Key ids are made here, and need no hash that
/// strangers cannot foresee.
#[derive(Debug, Default)]
pub struct AppTokens(Mutex<HashMap<String, (Timestamp, HeaderValue), RandomState>>);

impl AppTokens {
    /// The token for a caller, good for half its age at least. `None`: the node keeps no files.
    pub fn of(&self, host: &dyn Host, caller: &str) -> Option<HeaderValue> {
        host.files()?;
        let key = host.tokens()?;
        let now = host.now();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, token)) = kept.get(caller).filter(|(until, _)| now < *until) {
            return Some(token.clone());
        }
        let token = HeaderValue::from_str(&key.sign(&cdn_claims(host, caller))).ok()?;
        if kept.len() >= CALLERS_MAX {
            kept.clear();
        }
        kept.insert(caller.to_owned(), (now + TOKEN_AGE / 2, token.clone()));
        Some(token)
    }
}
