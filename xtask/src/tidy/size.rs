//! How long a file may get before it is several.

use super::Finding;
use super::source::Source;

/// Lines without those of tests: beyond the first there is a warning, beyond the second an error.
const LINES_WARN: usize = 500;
const LINES_MAX: usize = 1_000;

/// Files that are too long, and files that are about to be.
pub(super) fn check(sources: &[Source]) -> (Vec<Finding>, Vec<Finding>) {
    let (mut findings, mut warnings) = (Vec::new(), Vec::new());
    for source in sources {
        let lines = source.production().count();
        let problem = format!("{lines} lines without tests: divide it by what its parts are about");
        let finding = Finding::new(&source.path, 0, problem);
        match lines {
            0..=LINES_WARN => {}
            _ if lines <= LINES_MAX => warnings.push(finding),
            _ => findings.push(finding),
        }
    }
    (findings, warnings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_files_are_found_and_their_tests_not_counted() {
        let check = |lines: usize, expected: (usize, usize)| {
            let tests = "#[cfg(test)]\nmod tests {\n".to_owned() + &"b\n".repeat(600) + "}\n";
            let source = Source::parse("src/a.rs", &("a\n".repeat(lines) + &tests));
            let (findings, warnings) = check(&[source]);
            assert_eq!((findings.len(), warnings.len()), expected, "{lines} lines");
        };
        check(LINES_WARN, (0, 0));
        check(LINES_WARN + 1, (0, 1));
        check(LINES_MAX, (0, 1));
        check(LINES_MAX + 1, (1, 0));
    }
}
