//! A start as a bar chart: one line per phase, placed and sized by time.
//!
//! ```text
//! r1-1  1.24 s from the decision to ready
//!   pending   ▏                                          3.1 ms    0 %
//!   setup      ███████████████████████████████████████   1.23 s  100 %
//!     imported ██████████████████████                    700 ms   56 %
//! ```

use std::time::Duration;

use glowplug_api::control::{PhaseView, PullView, RunnerView};
use glowplug_core::time::Pretty;
use indicatif::HumanBytes;

/// Columns of the widest bar.
const BAR_COLUMNS: u64 = 40;
/// A longer name of a phase is cut.
const LABEL_COLUMNS_MAX: usize = 24;
/// Phases of one start that are drawn; a program may mark more.
const PHASES_MAX: usize = 32;

/// What the bars are drawn with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// Eighths of a column, for terminals that show them.
    Unicode,
    /// Whole columns of `#`.
    Ascii,
}

impl Style {
    /// Unicode where the locale says UTF-8, or says nothing.
    pub(crate) fn of_locale() -> Self {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG"));
        let utf8 = |locale: String| {
            let locale = locale.to_ascii_lowercase();
            locale.contains("utf-8") || locale.contains("utf8")
        };
        if locale.is_none_or(utf8) { Self::Unicode } else { Self::Ascii }
    }

    /// A bar of so many eighths of a column, at least a sliver.
    pub(crate) fn bar(self, eighths: u64) -> String {
        const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
        let count = |columns: u64| usize::try_from(columns).unwrap_or(usize::MAX);
        match self {
            Self::Unicode => {
                let eighths = eighths.max(1);
                let part = PARTS[count(eighths % 8)];
                format!("{}{part}", "█".repeat(count(eighths / 8)))
            }
            Self::Ascii => "#".repeat(count(eighths.div_ceil(8).max(1))),
        }
    }
}

/// The chart of a runner's start, from its creation until it was ready.
pub(crate) fn of_start(runner: &RunnerView, style: Style) -> String {
    let begin = runner.created_at_micros;
    let last = runner.phases.iter().filter_map(|phase| phase.end_micros).max();
    let end = runner.ready_at_micros.or(last).unwrap_or(begin).max(begin);
    let total = Pretty(Duration::from_micros(end - begin));
    let head = format!("{}  {total} from the decision to ready", runner.id);
    let bars = draw(begin, end, &runner.phases, style);
    let head = match &runner.pull {
        Some(pull) => format!("{head}\n  pulled {}", of_pull(pull)),
        None => head,
    };
    if bars.is_empty() { head } else { format!("{head}\n{bars}") }
}

/// `120 MiB of 477 MiB, 95 MiB/s`.
pub(crate) fn of_pull(pull: &PullView) -> String {
    let bytes = HumanBytes(pull.bytes);
    let rate = HumanBytes(pull.bytes_per_second);
    let total = match pull.total_bytes {
        0 => String::new(),
        total => format!(" of {}", HumanBytes(total)),
    };
    let known = match pull.known_bytes {
        0 => String::new(),
        known => format!(", {} of it was here", HumanBytes(known)),
    };
    format!("{bytes}{total}{known}, {rate}/s")
}

/// One line per phase. `setup/imported`, which lies within `setup`, is indented below it.
fn draw(begin: u64, end: u64, phases: &[PhaseView], style: Style) -> String {
    let label = |phase: &PhaseView| {
        let label = match phase.name.split_once('/') {
            Some((_, mark)) => format!("  {mark}"),
            None => phase.name.clone(),
        };
        label.chars().take(LABEL_COLUMNS_MAX).collect::<String>()
    };
    let shown = &phases[..phases.len().min(PHASES_MAX)];
    let label_columns = shown.iter().map(|phase| label(phase).chars().count()).max().unwrap_or(0);
    let total = (end - begin).max(1);
    let lines: Vec<String> = shown
        .iter()
        .map(|phase| {
            let from = phase.start_micros.clamp(begin, end);
            let until = phase.end_micros.unwrap_or(end).clamp(from, end);
            let took = until - from;
            let offset = (from - begin).saturating_mul(BAR_COLUMNS) / total;
            // The sliver of a phase at the very end has its place within the chart too.
            let offset = offset.min(BAR_COLUMNS - 1);
            let room = (BAR_COLUMNS - offset) * 8;
            let eighths = (took.saturating_mul(BAR_COLUMNS * 8) / total).min(room);
            let gap = " ".repeat(usize::try_from(offset).unwrap_or(0));
            let bar = format!("{gap}{}", style.bar(eighths));
            let percent = took.saturating_mul(100).saturating_add(total / 2) / total;
            let width = usize::try_from(BAR_COLUMNS).unwrap_or(0);
            let took = Pretty(Duration::from_micros(took)).to_string();
            format!("  {:label_columns$}  {bar:width$}  {took:>9}  {percent:>3} %", label(phase))
        })
        .collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runner(phases: &[(&str, u64, Option<u64>)], ready: Option<u64>) -> RunnerView {
        RunnerView {
            id: "r1-1".into(),
            app: "local/hello".into(),
            revision: 1,
            state: "IDLE".into(),
            detail: None,
            rung: None,
            held_bytes: None,
            cause: "a request found no runner".into(),
            cause_label: "no_warm_runner".into(),
            in_flight: 0,
            served: 0,
            machine_type: None,
            gpus: Vec::new(),
            created_at_micros: 1_000_000,
            ready_at_micros: ready.map(|at| at + 1_000_000),
            ended_at_micros: None,
            end_reason: None,
            expires_at_micros: None,
            phases: phases
                .iter()
                .map(|(name, start, end)| PhaseView {
                    name: (*name).into(),
                    start_micros: 1_000_000 + start,
                    end_micros: end.map(|end| 1_000_000 + end),
                })
                .collect(),
            pull: None,
        }
    }

    fn start() -> RunnerView {
        let phases = [
            ("pending", 0, Some(3_000)),
            ("docker_pull", 3_000, Some(403_000)),
            ("setup", 403_000, Some(1_203_000)),
            ("setup/imported", 403_000, Some(903_000)),
        ];
        runner(&phases, Some(1_203_000))
    }

    #[test]
    fn phases_lie_where_and_as_long_as_they_lasted() {
        insta::assert_snapshot!(of_start(&start(), Style::Unicode));
    }

    #[test]
    fn plain_terminals_get_plain_bars() {
        let chart = of_start(&start(), Style::Ascii);
        assert!(chart.is_ascii());
        insta::assert_snapshot!(chart);
    }

    #[test]
    fn what_was_pulled_stands_above_the_bars() {
        let pull = PullView {
            bytes: 90 << 20,
            total_bytes: 90 << 20,
            known_bytes: 30 << 20,
            layers: 3,
            total_layers: 3,
            bytes_per_second: 150 << 20,
        };
        let chart = of_start(&RunnerView { pull: Some(pull), ..start() }, Style::Ascii);
        let line = chart.lines().nth(1);
        let told = "  pulled 90.00 MiB of 90.00 MiB, 30.00 MiB of it was here, 150.00 MiB/s";
        assert_eq!(line, Some(told));
        let unknown = PullView { bytes: 1 << 20, ..PullView::default() };
        assert_eq!(of_pull(&unknown), "1.00 MiB, 0 B/s");
    }

    #[test]
    fn no_start_is_too_odd_to_draw() {
        let columns = |chart: &str| chart.lines().map(|line| line.chars().count()).max();
        let longest = columns(&of_start(&start(), Style::Unicode));
        for odd in [
            runner(&[], None),
            runner(&[("pending", 0, None)], None),
            runner(&[("setup", 5, Some(5))], Some(5)),
            runner(&[("setup", 900, Some(100))], Some(500)),
            runner(&[("setup", u64::MAX / 2, Some(u64::MAX / 2))], Some(1)),
        ] {
            assert!(columns(&of_start(&odd, Style::Unicode)) <= longest, "{odd:?}");
        }
    }
}
