//! Makes request ids: UUIDs of version 7, so that they sort by arrival.

use glowplug_core::{RequestId, Timestamp};
use http::HeaderValue;

/// A new id. 62 bits of it are random: on an app open to anyone, knowing the id is what lets a caller
/// read a result.
pub(crate) fn request_id(now: Timestamp) -> RequestId {
    let micros = now.as_micros();
    let (millis, rest) = (u128::from(micros / 1_000), u128::from(micros % 1_000));
    let random = u128::from(rand::random::<u64>() >> 2);
    RequestId((millis & 0xffff_ffff_ffff) << 80 | 0x7 << 76 | rest << 64 | 0b10 << 62 | random)
}

/// The id as a header value.
pub(crate) fn header(id: RequestId) -> HeaderValue {
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    let text = uuid::Uuid::from_u128(id.0).hyphenated().encode_lower(&mut text);
    HeaderValue::from_str(text).expect("a UUID is made of hexadecimal digits and hyphens")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_version_seven_and_sort_by_time() {
        let earlier = request_id(Timestamp::from_micros(1_700_000_000_000_999));
        let later = request_id(Timestamp::from_micros(1_700_000_000_001_000));
        assert!(earlier < later);
        let uuid = uuid::Uuid::from_u128(earlier.0);
        assert_eq!(uuid.get_version_num(), 7);
        assert_eq!(uuid.get_variant(), uuid::Variant::RFC4122);
        assert_ne!(earlier, request_id(Timestamp::from_micros(1_700_000_000_000_999)));
    }

    #[test]
    fn the_header_is_the_id_as_shown() {
        let id = RequestId(0x0192_f0a1_0000_7abc_8def_0123_4567_89ab);
        assert_eq!(header(id).to_str().unwrap(), id.to_string());
    }
}
