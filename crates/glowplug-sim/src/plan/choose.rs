//! One setting per app: which money buys how much less waiting.
//!
//! For each app the candidates are points of cost and waiting, and their lower convex hull is the order in
//! which it pays to spend on it. All apps' hull steps together, those that save most waiting per money
//! first, are a path from the cheapest choice for all to the one that waits least. Each place on it is the
//! best there is at some price of waiting: no other choice has less of `cost + price × waiting`.
//!
//! ```text
//! waiting │ ×            × cheapest of all apps
//!         │   ×          each × is one step of one app further
//!         │      ×
//!         │           ×                     ×  waits least
//!         └──────────────────────────────────► cost
//! ```

/// Sums over the requests of a group of apps at one setting. What is waited may be any sum: seconds, or
/// requests that waited too long.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Point {
    pub(super) cost: f64,
    pub(super) wait: f64,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Path {
    /// Candidate by group.
    cheapest: Vec<usize>,
    total: Point,
    steps: Vec<Step>,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    group: usize,
    candidate: usize,
    /// Above the step before of the same group.
    cost: f64,
    /// Below it.
    saved: f64,
}

impl Step {
    /// What a unit of waiting less costs.
    fn price(&self) -> f64 {
        self.cost / self.saved
    }
}

impl Path {
    /// `points` by group, then by candidate; each group has at least one.
    pub(super) fn new(points: &[Vec<Point>]) -> Self {
        let mut path = Self { cheapest: Vec::new(), total: Point::default(), steps: Vec::new() };
        for (group, points) in points.iter().enumerate() {
            let hull = hull(points);
            let first = hull[0];
            path.cheapest.push(first);
            path.total.cost += points[first].cost;
            path.total.wait += points[first].wait;
            path.steps.extend(hull.windows(2).map(|pair| {
                let (from, to) = (points[pair[0]], points[pair[1]]);
                Step {
                    group,
                    candidate: pair[1],
                    cost: to.cost - from.cost,
                    saved: from.wait - to.wait,
                }
            }));
        }
        // Stable: the steps of one group, whose prices only rise, stay in order.
        path.steps.sort_by(|a, b| a.price().total_cmp(&b.price()));
        path
    }

    /// Cost and waiting at each place, the first before any step.
    pub(super) fn places(&self) -> Vec<Point> {
        let mut place = self.total;
        let mut places = vec![place];
        places.extend(self.steps.iter().map(|step| {
            place = Point { cost: place.cost + step.cost, wait: place.wait - step.saved };
            place
        }));
        places
    }

    /// The candidate of each group at a place.
    pub(super) fn choice(&self, place: usize) -> Vec<usize> {
        let mut choice = self.cheapest.clone();
        for step in &self.steps[..place] {
            choice[step.group] = step.candidate;
        }
        choice
    }

    /// The place that is best when a unit of waiting is worth that much.
    pub(super) fn at_price(&self, price: f64) -> usize {
        self.steps.partition_point(|step| step.price() <= price)
    }
}

/// Candidates on the lower convex hull, from the cheapest on, each waiting less than the one before.
fn hull(points: &[Point]) -> Vec<usize> {
    let better = |a: Point, b: Point| a.cost.total_cmp(&b.cost).then(a.wait.total_cmp(&b.wait));
    let indices = || 0..points.len();
    let Some(mut last) = indices().min_by(|a, b| better(points[*a], points[*b])) else {
        return Vec::new();
    };
    let mut hull = vec![last];
    loop {
        let from = points[last];
        let price = |to: &usize| (points[*to].cost - from.cost) / (from.wait - points[*to].wait);
        let next = indices()
            .filter(|to| points[*to].wait < from.wait)
            // Of those on one line the one that waits least: the others are not corners.
            .min_by(|a, b| {
                price(a).total_cmp(&price(b)).then(points[*a].wait.total_cmp(&points[*b].wait))
            });
        let Some(next) = next else { return hull };
        hull.push(next);
        last = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(list: &[(f64, f64)]) -> Vec<Point> {
        list.iter().map(|(cost, wait)| Point { cost: *cost, wait: *wait }).collect()
    }

    #[test]
    fn the_hull_leaves_out_what_does_not_pay() {
        let check = |list: &[(f64, f64)], expected: &[usize]| {
            assert_eq!(hull(&points(list)), expected, "{list:?}");
        };
        check(&[(1.0, 10.0)], &[0]);
        check(&[(1.0, 10.0), (2.0, 0.0)], &[0, 1]);
        check(&[(2.0, 10.0), (1.0, 10.0)], &[1]);
        check(&[(1.0, 10.0), (1.0, 5.0)], &[1]);
        // The second is dearer than a mixture of the others.
        check(&[(1.0, 10.0), (2.0, 9.0), (3.0, 0.0)], &[0, 2]);
        check(&[(1.0, 10.0), (2.0, 5.0), (3.0, 0.0)], &[0, 2]);
        check(&[(1.0, 10.0), (2.0, 2.0), (3.0, 0.0)], &[0, 1, 2]);
    }

    #[test]
    fn money_goes_where_it_saves_most() {
        let groups =
            [points(&[(1.0, 10.0), (2.0, 0.0)]), points(&[(1.0, 100.0), (2.0, 80.0), (4.0, 70.0)])];
        let path = Path::new(&groups);
        let places = path.places();
        assert_eq!(places, points(&[(2.0, 110.0), (3.0, 90.0), (4.0, 80.0), (6.0, 70.0)]));
        assert_eq!(path.choice(0), [0, 0]);
        assert_eq!(path.choice(1), [0, 1]);
        assert_eq!(path.choice(2), [1, 1]);
        assert_eq!(path.choice(3), [1, 2]);
        for (price, place) in [(0.0, 0), (0.05, 1), (0.1, 2), (0.19, 2), (0.2, 3), (9.0, 3)] {
            assert_eq!(path.at_price(price), place, "{price}");
        }
    }

    /// Every choice of three groups, tried one by one, against the path at some prices.
    #[test]
    fn each_place_is_best_at_its_price() {
        let groups = [
            points(&[(1.0, 9.0), (2.0, 5.0), (5.0, 1.0)]),
            points(&[(0.5, 30.0), (3.0, 11.0), (4.0, 10.5)]),
            points(&[(2.0, 4.0), (1.0, 8.0), (7.0, 0.0)]),
        ];
        let path = Path::new(&groups);
        for price in [0.01, 0.1, 0.2, 0.3, 0.5, 1.0, 3.0, 100.0] {
            let worth = |choice: &[usize]| -> f64 {
                groups.iter().zip(choice).map(|(g, c)| g[*c].cost + price * g[*c].wait).sum()
            };
            let mut least = f64::INFINITY;
            for n in 0..27 {
                least = least.min(worth(&[n / 9, n / 3 % 3, n % 3]));
            }
            let found = worth(&path.choice(path.at_price(price)));
            assert!((found - least).abs() < 1e-9, "{price}: {found} is not {least}");
        }
    }
}
