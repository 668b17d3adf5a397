//! What a scenario expects of its outcome.

use std::fmt;
use std::time::Duration;

use glowplug_core::time::Pretty;

use super::document::{Entry, Raw, Table, suggest};
use super::value::{self, Reader};
use crate::outcome::{Measures, Outcome};

/// Something about an outcome that can be compared to a limit.
#[derive(Clone, Copy)]
struct Quantity {
    name: &'static str,
    unit: Unit,
    /// Whether it can be told of one app.
    per_app: bool,
    /// Seconds, a number, or a share. `length`: how long traffic comes.
    of: fn(&Outcome, &Measures, length: Duration) -> f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Number,
    Time,
    Share,
}

macro_rules! quantities {
    ($($name:literal $unit:ident $per_app:literal $of:expr;)*) => {
        &[$(Quantity { name: $name, unit: Unit::$unit, per_app: $per_app, of: $of },)*]
    };
}

const QUANTITIES: &[Quantity] = quantities! {
    "requests" Number true |_, measures, _| float(measures.requests);
    "answered" Number true |_, measures, _| float(measures.answered);
    "refused" Number true |_, measures, _| float(measures.refused);
    "retries" Number true |_, measures, _| float(measures.retries);
    "failed" Number true |_, measures, _| float(measures.failed);
    "left" Number true |_, measures, _| float(measures.left);
    "cold" Number true |_, measures, _| float(measures.cold);
    "cold_rate" Share true |_, measures, _| measures.cold_rate();
    "wait_mean" Time true |_, measures, _| measures.waits.mean().as_secs_f64();
    "wait_p50" Time true |_, measures, _| quantile(measures, 0.5);
    "wait_p90" Time true |_, measures, _| quantile(measures, 0.9);
    "wait_p95" Time true |_, measures, _| quantile(measures, 0.95);
    "wait_p99" Time true |_, measures, _| quantile(measures, 0.99);
    "wait_max" Time true |_, measures, _| quantile(measures, 1.0);
    "starts" Number true |_, measures, _| float(measures.starts_total());
    "failed_starts" Number true |_, measures, _| float(measures.failed_starts);
    "starts_per_minute" Number false |outcome, _, _| f64::from(outcome.starts_per_minute_peak);
    "runner_seconds" Number true |_, measures, _| measures.runner_seconds.total();
    "busy_share" Share true |_, measures, _| {
        part(measures.runner_seconds.busy, measures.runner_seconds.total())
    };
    "never_used_share" Share true |_, measures, _| {
        part(measures.runner_seconds.never_used, measures.runner_seconds.total())
    };
    "settles_within" Time false |outcome, _, length| {
        outcome.span.saturating_sub(length).as_secs_f64()
    };
};

#[expect(clippy::cast_precision_loss, reason = "compared to limits that people write")]
fn float(number: u64) -> f64 {
    number as f64
}

fn quantile(measures: &Measures, share: f64) -> f64 {
    measures.waits.quantile(share).as_secs_f64()
}

fn part(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Below,
    AtMost,
    Equal,
    AtLeast,
    Above,
}

impl Order {
    /// Longer signs first, so that `<=` is not taken for `<`.
    const SIGNS: [(&str, Self); 5] = [
        ("<=", Self::AtMost),
        (">=", Self::AtLeast),
        ("<", Self::Below),
        (">", Self::Above),
        ("=", Self::Equal),
    ];

    #[expect(clippy::float_cmp, reason = "whoever writes `=` means it")]
    fn holds(self, value: f64, limit: f64) -> bool {
        match self {
            Self::Below => value < limit,
            Self::AtMost => value <= limit,
            Self::Equal => value == limit,
            Self::AtLeast => value >= limit,
            Self::Above => value > limit,
        }
    }

    fn sign(self) -> &'static str {
        Self::SIGNS.iter().find(|(_, order)| *order == self).map_or("", |(sign, _)| sign)
    }
}

/// One bound on an outcome.
#[derive(Clone)]
pub struct Expectation {
    quantity: Quantity,
    order: Order,
    limit: f64,
    /// Index of the app; `None`: all of them together.
    app: Option<u32>,
    /// Of the scenario, counted from 1.
    pub line: usize,
}

/// An expectation that did not come true.
#[derive(Clone, Debug, PartialEq)]
pub struct Unmet {
    pub quantity: &'static str,
    pub app: Option<u32>,
    pub line: usize,
    pub found: String,
    pub expected: String,
}

impl Expectation {
    pub(super) fn for_app(&self, app: u32) -> Self {
        Self { app: Some(app), ..self.clone() }
    }

    /// What is wrong with the outcome, if anything.
    pub(super) fn check(&self, outcome: &Outcome, length: Duration) -> Option<Unmet> {
        let measures = match self.app {
            None => &outcome.total,
            Some(app) => outcome.apps.get(app as usize)?,
        };
        let value = (self.quantity.of)(outcome, measures, length);
        (!self.order.holds(value, self.limit)).then(|| Unmet {
            quantity: self.quantity.name,
            app: self.app,
            line: self.line,
            found: self.quantity.unit.write(value),
            expected: format!("{} {}", self.order.sign(), self.quantity.unit.write(self.limit)),
        })
    }
}

impl fmt::Debug for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.quantity.name, self.order.sign(), self.limit)
    }
}

impl Unit {
    fn write(self, value: f64) -> String {
        match self {
            Self::Number => format!("{value:.0}"),
            Self::Share => format!("{:.2}%", value * 100.0),
            Self::Time => match Duration::try_from_secs_f64(value) {
                Ok(Duration::ZERO) => "0 s".to_owned(),
                Ok(time) => Pretty(time).to_string(),
                Err(_) => format!("{value} s"),
            },
        }
    }

    fn read(self, text: &str) -> Option<f64> {
        let raw = match text.parse() {
            Ok(number) => Raw::Number(number),
            Err(_) => Raw::Text(text.to_owned()),
        };
        match self {
            Self::Number => value::number(&raw),
            Self::Time => value::duration(&raw).map(|time| time.as_secs_f64()),
            Self::Share => value::share(&raw),
        }
    }

    fn example(self) -> &'static str {
        match self {
            Self::Number => "\"< 200\"",
            Self::Time => "\"< 30s\"",
            Self::Share => "\"<= 5%\"",
        }
    }
}

/// Reads `[expect]`, or that of an app.
pub(super) fn read(reader: &mut Reader, mut table: Table, of_app: bool) -> Vec<Expectation> {
    let place = table.place();
    let quantities: Vec<&Quantity> =
        QUANTITIES.iter().filter(|quantity| quantity.per_app || !of_app).collect();
    let mut expectations = Vec::new();
    for Entry { key, line, value } in table.take_all() {
        let Some(quantity) = quantities.iter().find(|quantity| quantity.name == key) else {
            let names: Vec<&str> = quantities.iter().map(|quantity| quantity.name).collect();
            let message = format!("unknown key `{key}`{place}");
            reader.problem(line, message, Some(suggest(&key, &names)));
            continue;
        };
        let bounds = match &value {
            Raw::List(bounds) => bounds.clone(),
            one => vec![one.clone()],
        };
        for bound in bounds {
            if let Some((order, limit)) = read_bound(quantity.unit, &bound) {
                expectations.push(Expectation {
                    quantity: **quantity,
                    order,
                    limit,
                    app: None,
                    line,
                });
            } else {
                let example = quantity.unit.example();
                let message = format!(
                    "`{key}`{place} must be a bound such as {example}, not {}",
                    bound.describe()
                );
                reader.problem(line, message, None);
            }
        }
    }
    expectations
}

/// `"< 30s"`; a bare number is what it must be equal to.
fn read_bound(unit: Unit, raw: &Raw) -> Option<(Order, f64)> {
    match raw {
        Raw::Number(number) => Some((Order::Equal, *number)),
        Raw::Text(text) => {
            let text = text.trim();
            let (sign, order) = Order::SIGNS.iter().find(|(sign, _)| text.starts_with(sign))?;
            Some((*order, unit.read(text[sign.len()..].trim())?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_read_with_their_units() {
        let text = |text: &str| Raw::Text(text.to_owned());
        let check =
            |unit, raw: Raw, expected| assert_eq!(read_bound(unit, &raw), expected, "{raw:?}");
        check(Unit::Time, text("< 1m30s"), Some((Order::Below, 90.0)));
        check(Unit::Time, text("<=0.5"), Some((Order::AtMost, 0.5)));
        check(Unit::Number, Raw::Number(0.0), Some((Order::Equal, 0.0)));
        check(Unit::Number, text(">= 10"), Some((Order::AtLeast, 10.0)));
        check(Unit::Share, text("> 5%"), Some((Order::Above, 0.05)));
        check(Unit::Number, text("10"), None);
        check(Unit::Number, text("< 10s"), None);
        check(Unit::Share, text("< 105%"), None);
        check(Unit::Time, text("<"), None);
        check(Unit::Time, Raw::Bool(true), None);
    }

    #[test]
    fn orders_hold_as_their_signs_say() {
        for (order, below, equal, above) in [
            (Order::Below, true, false, false),
            (Order::AtMost, true, true, false),
            (Order::Equal, false, true, false),
            (Order::AtLeast, false, true, true),
            (Order::Above, false, false, true),
        ] {
            let found = [1.0, 2.0, 3.0].map(|value| order.holds(value, 2.0));
            assert_eq!(found, [below, equal, above], "{order:?}");
        }
    }
}
