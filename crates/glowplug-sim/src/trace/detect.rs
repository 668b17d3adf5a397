//! Tells what a file is by its beginning.

use super::options::Format;

/// `None`: it cannot be told.
pub(super) fn format(head: &[u8]) -> Option<Format> {
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    if text.contains(&0) {
        return None;
    }
    let first = text.split(|byte| *byte == b'\n').find(|line| !line.trim_ascii().is_empty())?;
    let has = |word: &str| first.windows(word.len()).any(|found| found == word.as_bytes());
    if first.first() == Some(&b'{') {
        return Some(if has("\"glowplug_trace\"") {
            Format::Glowplug
        } else if has("\"input_length\"") && has("\"output_length\"") {
            Format::Mooncake
        } else {
            Format::JsonLog
        });
    }
    if (has("HashFunction") || has("HashApp")) && first.contains(&b',') {
        return Some(Format::AzureMinutes);
    }
    if has("ContextTokens") && has("GeneratedTokens") {
        return Some(Format::AzureLlm);
    }
    if has(" [") && has("] \"") {
        return Some(Format::AccessLog);
    }
    [",", ";", "\t"].iter().any(|separator| has(separator)).then_some(Format::Csv)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_by_their_first_line() {
        let check = |text: &str, expected: Option<Format>| {
            assert_eq!(format(text.as_bytes()), expected, "{text}");
        };
        check("{\"glowplug_trace\":1}\n", Some(Format::Glowplug));
        check(
            "{\"timestamp\": 0, \"input_length\": 1, \"output_length\": 2}",
            Some(Format::Mooncake),
        );
        check("\n{\"ts\": 1, \"request\": {\"uri\": \"/\"}}\n", Some(Format::JsonLog));
        check("HashOwner,HashApp,HashFunction,Trigger,1,2\n", Some(Format::AzureMinutes));
        check("TIMESTAMP,ContextTokens,GeneratedTokens\r\n", Some(Format::AzureLlm));
        check(
            "::1 - - [10/Oct/2000:13:55:36 -0700] \"GET / HTTP/1.0\" 200 1",
            Some(Format::AccessLog),
        );
        check("\u{feff}time;app\n", Some(Format::Csv));
        check("time\tapp\n", Some(Format::Csv));
        check("PAR1\0\0", None);
        check("words\n", None);
        check("", None);
    }
}
