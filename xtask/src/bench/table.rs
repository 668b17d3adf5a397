//! Results as people read them.

use super::Case;

/// One line for each case, in columns.
pub(super) fn table(cases: &[Case]) -> String {
    let head = ["case", "ours", "beside", "peer", "ratio", "goal"].map(str::to_owned);
    let lines = cases.iter().map(|case| {
        let goal = case.goal.map_or_else(String::new, |goal| {
            let met = if case.met == Some(true) { "met" } else { "missed" };
            format!("{goal:.2} {met}")
        });
        [
            case.case.clone(),
            amount(case.ours, case.unit),
            amount(case.peer, case.unit),
            case.peer_name.clone(),
            format!("{:.2}", case.ratio),
            goal,
        ]
    });
    let lines: Vec<[String; 6]> = [head].into_iter().chain(lines).collect();
    let widths: Vec<usize> = (0..6)
        .map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0))
        .collect();
    let shown = lines.iter().map(|line| {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    });
    shown.collect::<Vec<_>>().join("\n")
}

fn amount(value: f64, unit: &str) -> String {
    let digits = if value.abs() < 100.0 { 2 } else { 0 };
    format!("{value:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Better;

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let case = |name, ours, peer: (&str, f64), goal| {
            Case::new(("b", name), ours, peer, "ms", Better::Lower, goal)
        };
        let cases = [
            case("a", 2.0, ("crun", 5.0), Some(1.0)),
            case("longer", 1500.0, ("x", 3.0), Some(3.0)),
            case("c", 1.0, ("y", 1.0), None),
        ];
        let expected = "\
case    ours     beside   peer  ratio  goal
a       2.00 ms  5.00 ms  crun  2.50   1.00 met
longer  1500 ms  3.00 ms  x     0.00   3.00 missed
c       1.00 ms  1.00 ms  y     1.00";
        assert_eq!(table(&cases), expected);
    }
}
