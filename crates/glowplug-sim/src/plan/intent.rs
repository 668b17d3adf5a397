//! The optimisation problem behind each recommendation.
//!
//! | intent | minimises, over one setting per app | such that |
//! | --- | --- | --- |
//! | latency-critical | cost + 30 runner-seconds for each second waited | the mean wait is not above today's |
//! | cost-sensitive | cost + 5 runner-seconds for each second waited | the cost is not above today's |
//! | variable traffic | cost + 13 runner-seconds for each second waited, were all of the traffic like each app's worst part | |
//! | a stated wait | cost | the wait is kept |
//! | a stated cost | seconds waited | the cost is kept |
//! | both | cost | both are kept; if nothing keeps both, as for the cost alone |
//!
//! A runner-second is priced as the average one is today. What the exchange rates mean: a runner whose setup
//! takes 20 s is worth keeping for a request that comes within about 20 s × (1 + rate). That is ten
//! minutes when latency is critical, two when cost is, and nearly five for variable traffic. The worst part is one
//! of up to eight parts of equal length.
//!
//! The limits of both guards can always be kept: today's settings are among the candidates.

use std::time::Duration;

use glowplug_core::auto::Settings;

use super::choose::{Path, Point};
use super::numbers::{Cell, days, whole};
use super::options::Budget;
use super::result::{Intent, WaitMeasure};

/// Runner-seconds that a second of waiting is worth, as to `policy = "auto"`.
const WORTH_LATENCY_CRITICAL: f64 = Settings::LATENCY_CRITICAL;
const WORTH_COST_SENSITIVE: f64 = Settings::COST_SENSITIVE;
const WORTH_VARIABLE: f64 = Settings::BALANCED;
/// The candidate that leaves every app as it is.
pub(super) const TODAY: usize = 0;
/// Share of requests that may wait longer than a stated time, by measure.
const SHARE_P50: f64 = 0.50;
const SHARE_P95: f64 = 0.05;
const SHARE_P99: f64 = 0.01;
/// Rounding of sums must not make a budget unreachable that is met exactly.
const SLACK: f64 = 1.0 + 1e-9;

/// What all candidates did to all apps, on the traffic that settings are chosen on.
#[derive(Debug)]
pub(super) struct Deck {
    /// Apps that get one setting together.
    pub(super) groups: Vec<Vec<usize>>,
    /// By candidate, then by app.
    pub(super) whole: Vec<Vec<Cell>>,
    /// By part of the traffic, then as `whole`. Fewer than two: it is too short to have parts.
    pub(super) parts: Vec<Vec<Vec<Cell>>>,
    pub(super) requests: u64,
    pub(super) span: Duration,
}

/// A candidate by group, and why.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pick {
    pub(super) choice: Vec<usize>,
    pub(super) because: String,
}

#[derive(Clone, Copy, Debug)]
enum Measure {
    Waited,
    OverGoal,
    WorstPart,
}

/// A budget as sums over all requests.
#[derive(Clone, Copy, Debug)]
struct Caps {
    wait: Option<f64>,
    cost: Option<f64>,
}

impl Deck {
    pub(super) fn pick(&self, intent: Intent, budget: &Budget, tightened: f64) -> Pick {
        match intent {
            Intent::LatencyCritical => self.latency_critical(),
            Intent::CostSensitive => self.cost_sensitive(),
            Intent::VariableTraffic => self.variable_traffic(),
            Intent::Budget => self.budget(budget, tightened),
        }
    }

    fn latency_critical(&self) -> Pick {
        let points = self.points(Measure::Waited);
        let path = Path::new(&points);
        let places = path.places();
        let cap = all(&points, TODAY).wait * SLACK;
        let first = path.at_price(self.worth(WORTH_LATENCY_CRITICAL));
        let place = (first..places.len()).find(|place| places[*place].wait <= cap);
        Pick {
            choice: path.choice(place.unwrap_or(places.len() - 1)),
            because: format!(
                "least cost when each second a request waits is worth {WORTH_LATENCY_CRITICAL} \
                 runner-seconds, with a mean wait no longer than today's"
            ),
        }
    }

    fn cost_sensitive(&self) -> Pick {
        let points = self.points(Measure::Waited);
        let path = Path::new(&points);
        let places = path.places();
        let cap = all(&points, TODAY).cost * SLACK;
        let last = path.at_price(self.worth(WORTH_COST_SENSITIVE));
        let place = (0..=last).rev().find(|place| places[*place].cost <= cap);
        Pick {
            choice: path.choice(place.unwrap_or(0)),
            because: format!(
                "least cost when each second a request waits is worth {WORTH_COST_SENSITIVE} \
                 runner-seconds, at no more than today's cost"
            ),
        }
    }

    fn variable_traffic(&self) -> Pick {
        let path = Path::new(&self.points(Measure::WorstPart));
        let choice = path.choice(path.at_price(self.worth(WORTH_VARIABLE)));
        let because = match self.parts.len() {
            parts @ 2.. => format!(
                "least cost when each second a request waits is worth {WORTH_VARIABLE} \
                 runner-seconds and all of the traffic is like the worst {parts}th of each app's"
            ),
            _ => format!(
                "least cost when each second a request waits is worth {WORTH_VARIABLE} \
                 runner-seconds; the traffic is too short to tell good hours from bad ones"
            ),
        };
        Pick { choice, because }
    }

    /// Among the places of the path and the settings that are the same for all: a single app has a best
    /// setting that no hull shows.
    fn budget(&self, budget: &Budget, tightened: f64) -> Pick {
        let caps = self.caps(budget, tightened);
        let measure = match budget.wait {
            Some((WaitMeasure::Mean, _)) | None => Measure::Waited,
            Some(_) => Measure::OverGoal,
        };
        let points = self.points(measure);
        let path = Path::new(&points);
        let places = path.places();
        let candidates = self.whole.len();
        let offers: Vec<Point> = places
            .iter()
            .copied()
            .chain((0..candidates).map(|candidate| all(&points, candidate)))
            .collect();
        let (offer, because) = choose(&offers, caps);
        let choice = match offer.checked_sub(places.len()) {
            None => path.choice(offer),
            Some(candidate) => vec![candidate; self.groups.len()],
        };
        Pick { choice, because: because.to_owned() }
    }

    fn caps(&self, budget: &Budget, tightened: f64) -> Caps {
        let requests = whole(self.requests);
        let wait = budget.wait.map(|(measure, limit)| match measure {
            WaitMeasure::Mean => limit.as_secs_f64() * requests * tightened,
            WaitMeasure::P50 => requests * SHARE_P50 * tightened,
            WaitMeasure::P95 => requests * SHARE_P95 * tightened,
            WaitMeasure::P99 | WaitMeasure::OverBudget => requests * SHARE_P99 * tightened,
        });
        Caps { wait, cost: budget.cost_per_day.map(|cost| cost * days(self.span)) }
    }

    /// By group, then by candidate.
    fn points(&self, measure: Measure) -> Vec<Vec<Point>> {
        let group = |apps: &Vec<usize>| {
            (0..self.whole.len())
                .map(|candidate| {
                    let sum = self.sum(apps, candidate);
                    let wait = match measure {
                        Measure::Waited => sum.waited_secs,
                        Measure::OverGoal => sum.over_goal,
                        Measure::WorstPart => self.worst_part(apps, candidate),
                    };
                    Point { cost: sum.cost, wait }
                })
                .collect()
        };
        self.groups.iter().map(group).collect()
    }

    fn sum(&self, apps: &[usize], candidate: usize) -> Cell {
        sum(apps, &self.whole[candidate])
    }

    /// Seconds waited, had every part been like the worst.
    fn worst_part(&self, apps: &[usize], candidate: usize) -> f64 {
        if self.parts.len() < 2 {
            return self.sum(apps, candidate).waited_secs;
        }
        let waited = |part: &Vec<Vec<Cell>>| sum(apps, &part[candidate]).waited_secs;
        let worst = self.parts.iter().map(waited).fold(0.0, f64::max);
        worst * whole(self.parts.len() as u64)
    }

    /// In money.
    fn worth(&self, runner_secs: f64) -> f64 {
        let mut today = Cell::default();
        for cell in &self.whole[TODAY] {
            today.add(cell);
        }
        if today.runner_secs > 0.0 { runner_secs * today.cost / today.runner_secs } else { 0.0 }
    }
}

fn sum(apps: &[usize], cells: &[Cell]) -> Cell {
    let mut sum = Cell::default();
    for app in apps {
        sum.add(&cells[*app]);
    }
    sum
}

fn all(points: &[Vec<Point>], candidate: usize) -> Point {
    points.iter().fold(Point::default(), |sum, points| Point {
        cost: sum.cost + points[candidate].cost,
        wait: sum.wait + points[candidate].wait,
    })
}

/// The best offer within the caps, or the nearest to them. There is at least one offer.
fn choose(offers: &[Point], caps: Caps) -> (usize, &'static str) {
    let keeps_wait = |point: &Point| caps.wait.is_none_or(|cap| point.wait <= cap * SLACK);
    let keeps_cost = |point: &Point| caps.cost.is_none_or(|cap| point.cost <= cap * SLACK);
    let cheapest = |a: &Point, b: &Point| a.cost.total_cmp(&b.cost).then(a.wait.total_cmp(&b.wait));
    let quickest = |a: &Point, b: &Point| a.wait.total_cmp(&b.wait).then(a.cost.total_cmp(&b.cost));
    let best = |keeps: &dyn Fn(&Point) -> bool,
                order: &dyn Fn(&Point, &Point) -> std::cmp::Ordering| {
        let kept = offers.iter().enumerate().filter(|(_, offer)| keeps(offer));
        kept.min_by(|(_, a), (_, b)| order(a, b)).map(|(at, _)| at)
    };
    let any = |_: &Point| true;
    let found = match (caps.wait, caps.cost) {
        (Some(_), None) => best(&keeps_wait, &cheapest)
            .map(|at| (at, "least cost that keeps the stated wait"))
            .or_else(|| {
                let nearest = "nothing that was tried keeps the stated wait; this comes nearest";
                Some((best(&any, &quickest)?, nearest))
            }),
        (None, _) => best(&keeps_cost, &quickest)
            .map(|at| (at, "least waiting that keeps the stated cost"))
            .or_else(|| {
                let nearest = "nothing that was tried keeps the stated cost; this is the cheapest";
                Some((best(&any, &cheapest)?, nearest))
            }),
        (Some(_), Some(_)) => best(&|point| keeps_wait(point) && keeps_cost(point), &cheapest)
            .map(|at| (at, "least cost that keeps the stated wait and the stated cost"))
            .or_else(|| {
                let nearest =
                    "nothing that was tried keeps both; this waits least within the stated cost";
                Some((best(&keeps_cost, &quickest)?, nearest))
            })
            .or_else(|| {
                let nearest = "nothing that was tried keeps the stated cost; this is the cheapest";
                Some((best(&any, &cheapest)?, nearest))
            }),
    };
    found.expect("there is at least one offer, and the last resort takes any")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_choose_among_offers() {
        let offers = [(1.0, 9.0), (2.0, 5.0), (4.0, 1.0), (3.0, 5.0)]
            .map(|(cost, wait)| Point { cost, wait });
        for (wait, cost, expected) in [
            (Some(9.0), None, 0),
            (Some(8.0), None, 1),
            (Some(0.5), None, 2),
            (None, Some(3.5), 1),
            (None, Some(0.5), 0),
            (Some(5.0), Some(2.0), 1),
            (Some(1.0), Some(2.0), 1),
            (Some(1.0), Some(0.5), 0),
        ] {
            let (found, because) = choose(&offers, Caps { wait, cost });
            assert_eq!(found, expected, "{wait:?} {cost:?}: {because}");
        }
    }
}
