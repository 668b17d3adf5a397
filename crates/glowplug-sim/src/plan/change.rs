//! What differs from today.

use std::time::Duration;

use glowplug_core::auto;
use glowplug_core::spec::{Policy, Scaling, WAIT_BUDGET_PERCENT};

use super::result::{Change, KeyChange, Numbers};

/// The keys of `glowplug.toml` that have another value, in the order of its reference.
pub(super) fn keys(from: &Scaling, to: &Scaling) -> Vec<KeyChange> {
    let values = |scaling: &Scaling| {
        let waiting = Waiting::of(scaling);
        [
            ("policy", in_quotes(scaling.policy.name().as_str())),
            ("wait_price", waiting.price),
            ("wait_budget", waiting.budget),
            ("wait_budget_percent", waiting.percent),
            ("keep_alive", duration(waiting.keep_alive)),
            ("min_concurrency", scaling.min_concurrency.to_string()),
            ("concurrency_buffer", scaling.concurrency_buffer.to_string()),
            ("concurrency_buffer_perc", scaling.concurrency_buffer_perc.to_string()),
            ("scaling_delay", duration(scaling.scaling_delay)),
        ]
    };
    values(from)
        .into_iter()
        .zip(values(to))
        .filter(|(from, to)| from != to)
        .map(|((key, from), (_, to))| KeyChange { key, from, to })
        .collect()
}

/// The keys whose meaning depends on the policy. Those that are not to be set are empty.
struct Waiting {
    price: String,
    budget: String,
    percent: String,
    keep_alive: Duration,
}

impl Waiting {
    fn of(scaling: &Scaling) -> Self {
        let unset = String::new;
        let settings = match scaling.policy {
            Policy::Auto(settings) => settings,
            Policy::Fixed => {
                let keep_alive = scaling.keep_alive;
                return Self { price: unset(), budget: unset(), percent: unset(), keep_alive };
            }
        };
        let percent = |budget: auto::Budget| {
            let percent = (budget.share * 1e4).round() / 1e2;
            let usual = (percent - WAIT_BUDGET_PERCENT).abs() < 1e-9;
            if usual { unset() } else { percent.to_string() }
        };
        let wait = |budget: auto::Budget| match budget.wait.subsec_nanos() {
            0 => in_quotes(&format!("{}s", budget.wait.as_secs())),
            _ => in_quotes(&format!("{}ms", budget.wait.as_millis())),
        };
        Self {
            price: settings.wait_price.to_string(),
            budget: settings.budget.map_or_else(unset, wait),
            percent: settings.budget.map_or_else(unset, percent),
            keep_alive: settings.keep_max,
        }
    }
}

fn in_quotes(text: &str) -> String {
    format!("\"{text}\"")
}

/// As in the config: whole seconds are a number.
fn duration(duration: Duration) -> String {
    if duration.subsec_nanos() == 0 {
        duration.as_secs().to_string()
    } else {
        in_quotes(&format!("{}ms", duration.as_millis()))
    }
}

pub(super) fn compare(today: &Numbers, then: &Numbers) -> Change {
    let cost_percent = (today.cost > 0.0).then(|| (then.cost / today.cost - 1.0) * 100.0);
    let (from, to) = (&today.wait, &then.wait);
    Change {
        cost_percent,
        wait_mean_from_secs: from.mean_secs,
        wait_mean_to_secs: to.mean_secs,
        wait_p95_from_secs: from.p95_secs,
        wait_p95_to_secs: to.p95_secs,
        sentence: format!(
            "{}, mean wait {} → {}",
            cost_in_words(cost_percent),
            seconds(from.mean_secs),
            seconds(to.mean_secs)
        ),
    }
}

fn cost_in_words(percent: Option<f64>) -> String {
    match percent {
        None => "today costs nothing".to_owned(),
        Some(percent) if percent.abs() < 0.5 => "costs the same".to_owned(),
        Some(percent) if percent < 0.0 => format!("saves {:.0} % of cost", -percent),
        Some(percent) if percent < 100.0 => format!("costs {percent:.0} % more"),
        Some(percent) => format!("costs {:.1} times as much", percent / 100.0 + 1.0),
    }
}

fn seconds(secs: f64) -> String {
    match secs {
        0.0 => "0 s".to_owned(),
        ..0.001 => "under 1 ms".to_owned(),
        ..1.0 => format!("{:.0} ms", secs * 1e3),
        ..100.0 => format!("{secs:.1} s"),
        _ => format!("{secs:.0} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_named() {
        let from = Scaling::default();
        let to = Scaling {
            keep_alive: Duration::from_mins(5),
            scaling_delay: Duration::from_millis(250),
            max_multiplexing: 7,
            ..from
        };
        let change =
            |key, from: &str, to: &str| KeyChange { key, from: from.to_owned(), to: to.to_owned() };
        let expected =
            [change("keep_alive", "10", "300"), change("scaling_delay", "0", "\"250ms\"")];
        assert_eq!(keys(&from, &to), expected);
        assert_eq!(keys(&from, &from), []);
    }

    #[test]
    fn the_policy_is_named_with_what_it_aims_for() {
        let fixed = Scaling::default();
        let auto = |wait_price, budget| {
            let settings = auto::Settings { wait_price, budget, ..auto::Settings::default() };
            Scaling { policy: Policy::Auto(settings), ..fixed }
        };
        let check = |from: &Scaling, to: &Scaling, expected: &[&str]| {
            let said: Vec<String> = keys(from, to).iter().map(KeyChange::to_string).collect();
            assert_eq!(said, expected);
        };
        let budget = |share| Some(auto::Budget { wait: Duration::from_secs(2), share });
        // What the config said of keep_alive would bound the policy.
        let to_auto = ["policy = \"auto\"", "wait_price = 2.5", "keep_alive = 14400"];
        check(&fixed, &auto(2.5, None), &to_auto);
        check(
            &auto(2.5, budget(0.05)),
            &fixed,
            &["policy = \"fixed\"", "without wait_price", "without wait_budget", "keep_alive = 10"],
        );
        check(&auto(5.0, None), &auto(60.0, None), &["wait_price = 60"]);
        check(&auto(5.0, None), &auto(5.0, budget(0.05)), &["wait_budget = \"2s\""]);
        check(&auto(5.0, budget(0.05)), &auto(5.0, budget(0.01)), &["wait_budget_percent = 1"]);
    }

    #[test]
    fn changes_are_told_in_words() {
        for (percent, expected) in [
            (None, "today costs nothing"),
            (Some(0.4), "costs the same"),
            (Some(-31.2), "saves 31 % of cost"),
            (Some(25.0), "costs 25 % more"),
            (Some(150.0), "costs 2.5 times as much"),
        ] {
            assert_eq!(cost_in_words(percent), expected);
        }
        for (secs, expected) in [
            (0.0, "0 s"),
            (0.0002, "under 1 ms"),
            (0.25, "250 ms"),
            (4.12, "4.1 s"),
            (412.3, "412 s"),
        ] {
            assert_eq!(seconds(secs), expected);
        }
    }
}
