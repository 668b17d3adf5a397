//! Keys: `id:secret`, of which only the SHA-256 of the secret is kept.
//!
//! A secret is 256 random bits, so a plain hash is as good as any: there is nothing to guess.

use glowplug_core::Timestamp;
use glowplug_gateway::host::{AuthProblem, Caller};
use glowplug_store::KeyRecord;
use rand::RngExt;
use sha2::{Digest, Sha256};

pub(crate) const SCOPE_ADMIN: &str = "ADMIN";
pub(crate) const SCOPE_API: &str = "API";
/// Keys of one node.
pub(crate) const KEYS_MAX: usize = 10_000;

const ID_BYTES: usize = 16;
const SECRET_BYTES: usize = 32;

/// Makes a key. Returns its record and the secret, which is kept nowhere.
pub(crate) fn create(alias: String, scope: String, now: Timestamp) -> (KeyRecord, String) {
    let (id, secret) = (random_hex::<ID_BYTES>(), random_hex::<SECRET_BYTES>());
    let record = KeyRecord { id, secret_sha256: hash(&secret), alias, scope, created_at: now };
    (record, secret)
}

fn random_hex<const BYTES: usize>() -> String {
    let mut bytes = [0_u8; BYTES];
    rand::rng().fill(&mut bytes);
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(hex_digit).collect()
}

fn hex_digit(nibble: u8) -> char {
    char::from_digit(u32::from(nibble), 16).unwrap_or('0')
}

fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

pub(crate) fn authenticate(keys: &[KeyRecord], key: Option<&str>) -> Result<Caller, AuthProblem> {
    let key = key.ok_or(AuthProblem::Missing)?;
    let (id, secret) = key.split_once(':').ok_or(AuthProblem::Wrong)?;
    let hash = hash(secret);
    keys.iter()
        .find(|known| known.id == id)
        .filter(|known| same(&known.secret_sha256, &hash))
        .map(|known| Caller { key_id: known.id.clone(), admin: known.scope == SCOPE_ADMIN })
        .ok_or(AuthProblem::Wrong)
}

/// Compares without telling by its time where the difference is.
fn same(one: &[u8; 32], two: &[u8; 32]) -> bool {
    one.iter().zip(two).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_secret_opens() {
        let (record, secret) = create("ci".into(), SCOPE_API.into(), Timestamp::ZERO);
        let (other, _) = create(String::new(), SCOPE_ADMIN.into(), Timestamp::ZERO);
        let keys = [record.clone(), other];
        let key = format!("{}:{secret}", record.id);
        assert_eq!(
            authenticate(&keys, Some(&key)),
            Ok(Caller { key_id: record.id.clone(), admin: false })
        );
        assert_eq!(authenticate(&keys, None), Err(AuthProblem::Missing));
        for wrong in ["", "x", "x:y", &format!("{}:", record.id), &format!("{key}0")] {
            assert_eq!(authenticate(&keys, Some(wrong)), Err(AuthProblem::Wrong), "{wrong}");
        }
        assert_ne!(record.secret_sha256.to_vec(), secret.as_bytes());
    }
}
