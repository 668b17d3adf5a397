//! Small files of our own that carry a checksum, so that a damaged one is told from a whole one.

use serde::Serialize;
use serde::de::DeserializeOwned;

const HASH_BYTES: usize = 32;

/// `magic` names the form: it changes with it.
pub(crate) fn seal<T: Serialize>(magic: &[u8], value: &T) -> Vec<u8> {
    let body = postcard::to_allocvec(value).expect("plain data has a form");
    let mut sealed = magic.to_vec();
    sealed.extend(blake3::hash(&body).as_bytes());
    sealed.extend(body);
    sealed
}

/// `None` unless it is whole and of this form.
pub(crate) fn unseal<T: DeserializeOwned>(magic: &[u8], sealed: &[u8]) -> Option<T> {
    let (hash, body) = sealed.strip_prefix(magic)?.split_at_checked(HASH_BYTES)?;
    (blake3::hash(body).as_bytes() == hash).then_some(())?;
    postcard::from_bytes(body).ok()
}
