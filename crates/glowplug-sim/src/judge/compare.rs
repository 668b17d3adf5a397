//! Who beats whom, at points that were simulated.

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use serde::Serialize;

use super::metrics::{Metrics, Row};
use super::policy::Kind;
use super::resample::{self, Interval};

/// Rounding must not make two equal results a winner and a loser.
const SLACK: f64 = 1e-9;

type Measure = fn(&Metrics) -> f64;

/// The metrics of a comparison; less is better of all.
const SETS: [(&str, &[Measure]); 3] = [
    ("wait, cost", &[wait, cost]),
    ("wait, cost, app p75", &[wait, cost, app_p75]),
    ("wait, cost, app mean", &[wait, cost, app_mean]),
];

fn wait(metrics: &Metrics) -> f64 {
    metrics.wait_mean_secs
}

fn cost(metrics: &Metrics) -> f64 {
    metrics.overhead
}

fn app_p75(metrics: &Metrics) -> f64 {
    metrics.app_cold_p75
}

fn app_mean(metrics: &Metrics) -> f64 {
    metrics.app_cold_mean
}

/// How many of one kind are dominated by some of another, on one set of metrics.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Contest {
    pub metrics: &'static str,
    pub winner: Kind,
    pub loser: Kind,
    pub losers: usize,
    pub beaten: Vec<Beaten>,
}

/// One that is dominated, and the one that costs least of those that dominate it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Beaten {
    pub policy: String,
    pub by: String,
    /// Overhead less, in percent of what it is beaten with.
    pub saves_percent: f64,
}

/// On which axis two are neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The other one costs no less, and as little more as can be.
    NoLowerCost,
    /// The other one waits no less, and as little more as can be.
    NoShorterWait,
}

/// The automatic policy, and a neighbour of another kind: what changes from that to this.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pair {
    pub auto: String,
    pub other: String,
    pub other_kind: Kind,
    pub side: Side,
    /// Negative is better for the automatic policy, everywhere.
    pub wait_percent: Interval,
    pub overhead_percent: Interval,
    pub app_cold_p75: Interval,
    pub app_cold_mean: Interval,
}

fn of_kind(rows: &[Row], kind: Kind) -> Vec<&Row> {
    rows.iter().filter(|row| row.kind == kind).collect()
}

fn dominates(one: &Metrics, other: &Metrics, set: &[Measure]) -> bool {
    let as_good = set.iter().all(|of| of(one) <= of(other) + SLACK);
    as_good && set.iter().any(|of| of(one) < of(other) - SLACK)
}

pub(super) fn contests(rows: &[Row]) -> Vec<Contest> {
    let sides = [
        (Kind::Auto, Kind::Fixed),
        (Kind::Fixed, Kind::Auto),
        (Kind::Auto, Kind::Kpa),
        (Kind::Kpa, Kind::Auto),
        (Kind::Fixed, Kind::Kpa),
    ];
    let mut contests = Vec::new();
    for (metrics, set) in SETS {
        for (winner, loser) in sides {
            let (winners, losers) = (of_kind(rows, winner), of_kind(rows, loser));
            let beaten = losers.iter().filter_map(|loser| beaten(loser, &winners, set)).collect();
            contests.push(Contest { metrics, winner, loser, losers: losers.len(), beaten });
        }
    }
    contests
}

fn beaten(loser: &Row, winners: &[&Row], set: &[Measure]) -> Option<Beaten> {
    let by = winners
        .iter()
        .filter(|winner| dominates(&winner.metrics, &loser.metrics, set))
        .min_by(|a, b| cost(&a.metrics).total_cmp(&cost(&b.metrics)))?;
    let (ours, theirs) = (cost(&by.metrics), cost(&loser.metrics));
    let saves_percent = if theirs > 0.0 { (1.0 - ours / theirs) * 100.0 } else { 0.0 };
    Some(Beaten { policy: loser.policy.clone(), by: by.policy.clone(), saves_percent })
}

pub(super) fn pairs(rows: &[Row], resamples: u32, seed: u64) -> Vec<Pair> {
    let sides = [(Side::NoLowerCost, cost as Measure), (Side::NoShorterWait, wait)];
    let mut found = Vec::new();
    for auto in of_kind(rows, Kind::Auto) {
        for other_kind in [Kind::Fixed, Kind::Kpa] {
            let others = of_kind(rows, other_kind);
            found.extend(sides.iter().filter_map(|(side, of)| {
                let other = neighbour(auto, &others, *of)?;
                Some((auto, other, *side))
            }));
        }
    }
    let pair = |(auto, other, side): &(&Row, &Row, Side)| {
        let [wait_percent, overhead_percent, app_cold_p75, app_cold_mean] =
            resample::differences(&auto.apps, &other.apps, resamples, seed);
        Pair {
            auto: auto.policy.clone(),
            other: other.policy.clone(),
            other_kind: other.kind,
            side: *side,
            wait_percent,
            overhead_percent,
            app_cold_p75,
            app_cold_mean,
        }
    };
    found.par_iter().map(pair).collect()
}

/// Of those that are no better on one metric, the nearest.
fn neighbour<'a>(row: &Row, others: &[&'a Row], of: Measure) -> Option<&'a Row> {
    let least = of(&row.metrics) - SLACK;
    let no_better = others.iter().copied().filter(|other| of(&other.metrics) >= least);
    no_better.min_by(|a, b| of(&a.metrics).total_cmp(&of(&b.metrics)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(kind: Kind, policy: &str, (wait, cost, p75): (f64, f64, f64)) -> Row {
        let metrics = Metrics {
            wait_mean_secs: wait,
            overhead: cost,
            app_cold_p75: p75,
            ..Metrics::default()
        };
        Row { policy: policy.to_owned(), kind, metrics, apps: Vec::new() }
    }

    fn field() -> Vec<Row> {
        vec![
            row(Kind::Fixed, "long", (1.0, 10.0, 0.5)),
            row(Kind::Fixed, "short", (5.0, 2.0, 0.9)),
            row(Kind::Auto, "wide", (1.0, 8.0, 0.6)),
            row(Kind::Auto, "narrow", (5.0, 3.0, 0.8)),
            row(Kind::Auto, "dear", (1.0, 9.0, 0.5)),
        ]
    }

    #[test]
    fn who_is_as_good_on_all_and_better_on_one_dominates() {
        let contests = contests(&field());
        let beaten = |metrics: &str, winner, loser| -> Vec<(&str, &str, f64)> {
            let contest = contests
                .iter()
                .find(|one| (one.metrics, one.winner, one.loser) == (metrics, winner, loser));
            let beaten = contest.unwrap().beaten.iter();
            beaten
                .map(|one| (one.policy.as_str(), one.by.as_str(), one.saves_percent.round()))
                .collect()
        };
        assert_eq!(beaten("wait, cost", Kind::Auto, Kind::Fixed), [("long", "wide", 20.0)]);
        assert_eq!(
            beaten("wait, cost, app p75", Kind::Auto, Kind::Fixed),
            [("long", "dear", 10.0)]
        );
        assert_eq!(beaten("wait, cost", Kind::Fixed, Kind::Auto), [("narrow", "short", 33.0)]);
        assert_eq!(beaten("wait, cost, app p75", Kind::Fixed, Kind::Auto), []);
    }

    #[test]
    fn neighbours_are_no_better_on_their_axis() {
        let field = field();
        let fixed = of_kind(&field, Kind::Fixed);
        for (name, of, expected) in [
            ("wide", cost as Measure, Some("long")),
            ("wide", wait, Some("long")),
            ("narrow", cost, Some("long")),
            ("narrow", wait, Some("short")),
        ] {
            let auto = field.iter().find(|row| row.policy == name).unwrap();
            let found = neighbour(auto, &fixed, of).map(|row| row.policy.as_str());
            assert_eq!(found, expected, "{name}");
        }
        let dearest = row(Kind::Auto, "dearest", (0.5, 11.0, 0.1));
        assert!(neighbour(&dearest, &fixed, cost).is_none());
    }
}
