//! Numbers over time, one line of columns each.
//!
//! ```text
//! busy      ▁▁▂▃▅▇█▅▃▂▁▁▁  at most 12
//! waiting        ▂█▁       at most 40
//!           0 s     1 h 2 min
//! ```

use crate::chart::Style;
use crate::output::seconds;

/// From nothing to as much as ever was.
const UNICODE: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const ASCII: [char; 9] = [' ', '.', ':', '-', '=', '+', '*', '#', '@'];

/// All rows are as long, and lie over the same time. Each has a scale of its own.
pub(super) fn draw(rows: &[(&str, Vec<u32>)], span_secs: f64, style: Style) -> String {
    let name_columns = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let columns = rows.iter().map(|(_, values)| values.len()).max().unwrap_or(0);
    let mut lines: Vec<String> = rows
        .iter()
        .map(|(name, values)| {
            let most = values.iter().copied().max().unwrap_or(0);
            let drawn: String = values.iter().map(|value| column(*value, most, style)).collect();
            format!("{name:name_columns$}  {drawn}  at most {most}")
        })
        .collect();
    let end = seconds(span_secs);
    let gap = columns.saturating_sub("0 s".len()).max(1);
    lines.push(format!("{:name_columns$}  0 s{end:>gap$}", ""));
    lines.join("\n")
}

/// What is there is never drawn as nothing.
fn column(value: u32, most: u32, style: Style) -> char {
    let signs = match style {
        Style::Unicode => UNICODE,
        Style::Ascii => ASCII,
    };
    let steps = u64::try_from(signs.len() - 1).unwrap_or(1);
    let step = (u64::from(value) * steps).div_ceil(u64::from(most.max(1)));
    usize::try_from(step).ok().and_then(|step| signs.get(step)).copied().unwrap_or(' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_drawn_to_their_own_scale() {
        let rows = [("busy", vec![0, 1, 4, 8, 0]), ("waiting", vec![0, 0, 100, 1, 0])];
        assert_eq!(
            draw(&rows, 3_720.0, Style::Ascii),
            "busy      .=@   at most 8\nwaiting    @.   at most 100\n         0 s1 h 2 min"
        );
        assert!(draw(&rows, 60.0, Style::Unicode).starts_with("busy      ▁▄█   at most 8"));
    }

    #[test]
    fn nothing_is_drawn_as_nothing() {
        assert_eq!(
            draw(&[("idle", vec![0, 0])], 0.0, Style::Ascii),
            "idle      at most 0\n      0 s0 s"
        );
        draw(&[], 1.0, Style::Unicode);
        assert_eq!(column(u32::MAX, u32::MAX, Style::Unicode), '█');
    }
}
