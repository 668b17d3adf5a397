//! Numbers and names as the report writes them.

use std::time::Duration;

use glowplug_core::time::Pretty;

use crate::plan::result::{BesideKind, CostUnit, Intent, Numbers, Plan, WaitMeasure};

pub(super) fn secs(secs: f64) -> String {
    match Duration::try_from_secs_f64(secs) {
        Ok(Duration::ZERO) => "0".to_owned(),
        Ok(duration) => Pretty(duration).to_string(),
        Err(_) => "?".to_owned(),
    }
}

pub(super) fn percent(percent: f64) -> String {
    if percent != 0.0 && percent.abs() < 10.0 {
        format!("{percent:.1} %")
    } else {
        format!("{percent:.0} %")
    }
}

/// As many digits as one reads.
pub(super) fn number(number: f64) -> String {
    let size = number.abs();
    if size >= 10_000.0 {
        grouped(&format!("{number:.0}"))
    } else if size >= 100.0 || number.fract() == 0.0 {
        format!("{number:.0}")
    } else if size >= 1.0 {
        format!("{number:.1}")
    } else {
        let text = format!("{number:.3}");
        text.trim_end_matches('0').to_owned()
    }
}

pub(super) fn count(count: u64) -> String {
    grouped(&count.to_string())
}

fn grouped(digits: &str) -> String {
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && digit.is_ascii_digit() && (digits.len() - at).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

pub(super) fn cost_unit(plan: &Plan) -> String {
    match &plan.cost_unit {
        CostUnit::RunnerHours => "in runner hours per day".to_owned(),
        CostUnit::Money(currency) if currency.is_empty() => "per day".to_owned(),
        CostUnit::Money(currency) => format!("in {currency} per day"),
    }
}

pub(super) fn cost(cost: Option<f64>) -> String {
    cost.map_or_else(|| "–".to_owned(), number)
}

pub(super) fn wait_measure(measure: WaitMeasure, budget_secs: f64) -> String {
    match measure {
        WaitMeasure::Mean => "mean wait".to_owned(),
        WaitMeasure::P50 => "median wait".to_owned(),
        WaitMeasure::P95 => "wait that 95 % stay within".to_owned(),
        WaitMeasure::P99 => "wait that 99 % stay within".to_owned(),
        WaitMeasure::OverBudget => format!("requests that wait longer than {}", secs(budget_secs)),
    }
}

pub(super) fn intent(intent: Intent) -> &'static str {
    match intent {
        Intent::LatencyCritical => "latency-critical",
        Intent::CostSensitive => "cost-sensitive",
        Intent::VariableTraffic => "variable traffic",
        Intent::Budget => "your budget",
    }
}

pub(super) fn beside_class(kind: BesideKind) -> &'static str {
    match kind {
        BesideKind::Bound => "bound",
        BesideKind::Policy => "policy",
    }
}

/// What one sees when the pointer rests on a mark.
pub(super) fn about(plan: &Plan, name: &str, numbers: &Numbers) -> String {
    format!(
        "{name}\ncost {} {}\nwait: mean {}, 95 % within {}\ncold {}, {} starts",
        cost(numbers.cost_per_day),
        cost_unit(plan),
        secs(numbers.wait.mean_secs),
        secs(numbers.wait.p95_secs),
        percent(numbers.cold_percent),
        count(numbers.starts.total),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        let check = |value: f64, expected: &str| assert_eq!(number(value), expected);
        check(0.0, "0");
        check(0.25, "0.25");
        check(3.25, "3.2");
        check(240.4, "240");
        check(1_234_567.0, "1\u{202f}234\u{202f}567");
        assert_eq!(percent(0.0), "0 %");
        assert_eq!(percent(3.26), "3.3 %");
        assert_eq!(percent(-41.2), "-41 %");
    }
}
