//! Names of files, for people. They choose nothing on our disk, but they will on somebody's.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Bytes of a file's name. Longer ones are cut.
const NAME_BYTES_MAX: usize = 200;
/// What may stand as it is in an address and in `filename*` (RFC 8187).
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The last part of what an uploader calls a file, or a name made of its type.
pub(super) fn file_name(wanted: Option<&str>, content_type: &str) -> String {
    let last = wanted.unwrap_or_default().rsplit(['/', '\\']).next().unwrap_or_default();
    let mut name = String::new();
    for letter in last.chars().filter(|letter| !letter.is_control()) {
        if name.len() + letter.len_utf8() > NAME_BYTES_MAX {
            break;
        }
        name.push(letter);
    }
    let name = name.trim();
    if name.is_empty() || name.bytes().all(|byte| byte == b'.') {
        return format!("file.{}", extension(content_type));
    }
    name.to_owned()
}

fn extension(content_type: &str) -> &str {
    let subtype = content_type.split_once('/').map_or("", |(_, subtype)| subtype);
    let end = subtype.find(|letter: char| !letter.is_ascii_alphanumeric());
    match &subtype[..end.unwrap_or(subtype.len())] {
        "" | "octet" => "bin",
        "plain" => "txt",
        "jpeg" => "jpg",
        "quicktime" => "mov",
        known => known,
    }
}

pub(super) fn encoded(name: &str) -> String {
    utf8_percent_encode(name, PLAIN).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_no_paths() {
        for (wanted, expected) in [
            ("a b.png", "a b.png"),
            ("../../etc/passwd", "passwd"),
            ("C:\\x\\y.txt", "y.txt"),
            ("/", "file.png"),
            ("..", "file.png"),
            ("", "file.png"),
            (" \r\nSet-Cookie: x", "Set-Cookie: x"),
            ("grüße\u{0}.txt", "grüße.txt"),
        ] {
            assert_eq!(file_name(Some(wanted), "image/png"), expected, "{wanted}");
        }
        assert_eq!(file_name(Some(&"ü".repeat(300)), "a/b").len(), NAME_BYTES_MAX);
        for (kind, expected) in [
            ("text/plain; charset=utf-8", "file.txt"),
            ("application/octet-stream", "file.bin"),
            ("image/svg+xml", "file.svg"),
            ("nonsense", "file.bin"),
        ] {
            assert_eq!(file_name(None, kind), expected, "{kind}");
        }
        assert_eq!(encoded("a b/ü\"?.png"), "a%20b%2F%C3%BC%22%3F.png");
    }
}
