//! Axes, lines and points as inline SVG. Colours come from the page's style sheet, so that a figure follows
//! the reader's light or dark theme.

use std::fmt::Write as _;

/// The drawing's size and the margins that axes and their names take, in pixels.
const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 340.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 46.0;
/// Marks on one axis, at most.
const TICKS_MAX: usize = 7;

/// Values to pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scale {
    Linear {
        low: f64,
        high: f64,
    },
    /// Both ends above 0.
    Log {
        low: f64,
        high: f64,
    },
}

impl Scale {
    /// From nothing to a little above the largest.
    pub(super) fn from_zero(values: impl Iterator<Item = f64>) -> Self {
        let high = values.filter(|value| value.is_finite()).fold(0.0, f64::max);
        Self::Linear { low: 0.0, high: if high > 0.0 { high * 1.05 } else { 1.0 } }
    }

    /// Logarithmic when the values span so much that the small ones would share one pixel.
    pub(super) fn fitting(values: impl Iterator<Item = f64> + Clone) -> Self {
        let positive = values.clone().filter(|value| value.is_finite() && *value > 0.0);
        let low = positive.clone().fold(f64::INFINITY, f64::min);
        let high = positive.fold(0.0, f64::max);
        if low.is_finite() && high / low > 30.0 {
            Self::Log { low: low / 1.2, high: high * 1.2 }
        } else {
            Self::from_zero(values)
        }
    }

    /// From 0 to 1 within the axis; what is outside is moved to its edge.
    fn place(self, value: f64) -> f64 {
        let place = match self {
            Self::Linear { low, high } => (value - low) / (high - low),
            Self::Log { low, high } => {
                (value.max(low).ln() - low.ln()) / (high.ln() - low.ln()).max(f64::MIN_POSITIVE)
            }
        };
        if place.is_finite() { place.clamp(0.0, 1.0) } else { 0.0 }
    }

    fn ticks(self) -> Vec<f64> {
        match self {
            Self::Linear { low, high } => {
                let step = round_step((high - low) / 5.0);
                (0..TICKS_MAX)
                    .map(|nth| low + step * as_f64(nth))
                    .filter(|tick| *tick <= high)
                    .collect()
            }
            Self::Log { low, high } => {
                let first = 10_f64.powf(low.log10().floor());
                let decades = std::iter::successors(Some(first), |tick| Some(tick * 10.0));
                let decades = decades.take_while(|tick| *tick <= high);
                let steps: &[f64] = if high / low < 300.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
                let all: Vec<f64> = decades
                    .flat_map(|decade| steps.iter().map(move |step| decade * step))
                    .filter(|tick| (low..=high).contains(tick))
                    .collect();
                let every = all.len().div_ceil(TICKS_MAX).max(1);
                all.into_iter().step_by(every).collect()
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of things in one drawing")]
fn as_f64(count: usize) -> f64 {
    count as f64
}

/// 1, 2 or 5 times a power of ten, at least `raw`.
fn round_step(raw: f64) -> f64 {
    if raw.is_nan() || raw <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(raw.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= raw);
    factor.unwrap_or(10.0) * power
}

/// One drawing with its axes.
#[derive(Debug)]
pub(super) struct Figure {
    x: Scale,
    y: Scale,
    body: String,
}

impl Figure {
    /// `label` says what a tick's value is called, for both axes.
    pub(super) fn new(
        (x, x_name, x_label): (Scale, &str, fn(f64) -> String),
        (y, y_name, y_label): (Scale, &str, fn(f64) -> String),
    ) -> Self {
        let mut figure = Self { x, y, body: String::new() };
        figure.axes((x_name, x_label), (y_name, y_label));
        figure
    }

    fn axes(
        &mut self,
        (x_name, x_label): (&str, fn(f64) -> String),
        (y_name, y_label): (&str, fn(f64) -> String),
    ) {
        let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        for tick in self.y.ticks() {
            let at = self.y_pixel(tick);
            self.add(format_args!(
                "<line class=grid x1={LEFT} x2={right} y1={at:.1} y2={at:.1} />\
                 <text class=tick x={:.1} y={:.1} text-anchor=end>{}</text>",
                LEFT - 8.0,
                at + 4.0,
                escaped(&y_label(tick)),
            ));
        }
        for tick in self.x.ticks() {
            let at = self.x_pixel(tick);
            self.add(format_args!(
                "<line class=grid x1={at:.1} x2={at:.1} y1={TOP} y2={bottom} />\
                 <text class=tick x={at:.1} y={:.1} text-anchor=middle>{}</text>",
                bottom + 18.0,
                escaped(&x_label(tick)),
            ));
        }
        self.add(format_args!(
            "<text class=name x={:.1} y={:.1} text-anchor=middle>{}</text>\
             <text class=name transform='translate(14 {:.1}) rotate(-90)' text-anchor=middle>{}</text>",
            f64::midpoint(LEFT, right),
            HEIGHT - 6.0,
            escaped(x_name),
            f64::midpoint(TOP, bottom),
            escaped(y_name),
        ));
    }

    fn add(&mut self, part: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = self.body.write_fmt(part);
        self.body.push('\n');
    }

    fn x_pixel(&self, value: f64) -> f64 {
        LEFT + self.x.place(value) * (WIDTH - LEFT - RIGHT)
    }

    fn y_pixel(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - self.y.place(value) * (HEIGHT - TOP - BOTTOM)
    }

    pub(super) fn line(&mut self, class: &str, points: impl Iterator<Item = (f64, f64)>) {
        let path = self.path(points);
        self.add(format_args!("<polyline class='line {class}' points='{path}' />"));
    }

    /// The area between two lines over the same places, given as (x, lower, upper).
    pub(super) fn band(&mut self, class: &str, name: &str, points: &[(f64, f64, f64)]) {
        let upper = self.path(points.iter().map(|(x, _, upper)| (*x, *upper)));
        let lower = self.path(points.iter().rev().map(|(x, lower, _)| (*x, *lower)));
        self.add(format_args!(
            "<polygon class='band {class}' points='{upper} {lower}'><title>{}</title></polygon>",
            escaped(name)
        ));
    }

    fn path(&self, points: impl Iterator<Item = (f64, f64)>) -> String {
        let mut path = String::new();
        for (x, y) in points {
            let _ = write!(path, "{:.1},{:.1} ", self.x_pixel(x), self.y_pixel(y));
        }
        path
    }

    /// A mark that says `about` when the pointer rests on it.
    pub(super) fn point(&mut self, class: &str, (x, y): (f64, f64), about: &str) {
        let (x, y) = (self.x_pixel(x), self.y_pixel(y));
        let radius = if class.contains("big") { 7.0 } else { 4.0 };
        self.add(format_args!(
            "<circle class='point {class}' cx={x:.1} cy={y:.1} r={radius}><title>{}</title></circle>",
            escaped(about)
        ));
    }

    /// A word beside a place, on the side where there is room.
    pub(super) fn label(&mut self, (x, y): (f64, f64), text: &str) {
        let (x, y) = (self.x_pixel(x), self.y_pixel(y));
        let (dx, anchor) = if x > WIDTH * 0.8 { (-11.0, "end") } else { (11.0, "start") };
        self.add(format_args!(
            "<text class=label x={:.1} y={:.1} text-anchor={anchor}>{}</text>",
            x + dx,
            y - 6.0,
            escaped(text)
        ));
    }

    /// `title` is read out to those who cannot see the drawing.
    pub(super) fn finish(self, title: &str) -> String {
        format!(
            "<svg viewBox='0 0 {WIDTH} {HEIGHT}' role=img aria-label='{}'>\n{}</svg>\n",
            escaped(title),
            self.body
        )
    }
}

/// Text that a page shows as it is.
pub fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_numbers_within_the_axis() {
        let check = |scale: Scale, expected: &[f64]| assert_eq!(scale.ticks(), expected);
        check(Scale::Linear { low: 0.0, high: 10.5 }, &[0.0, 5.0, 10.0]);
        check(Scale::Linear { low: 0.0, high: 4.2 }, &[0.0, 1.0, 2.0, 3.0, 4.0]);
        check(Scale::Log { low: 0.5, high: 200.0 }, &[1.0, 10.0, 100.0]);
        check(Scale::Log { low: 15.0, high: 300.0 }, &[20.0, 50.0, 100.0, 200.0]);
    }

    #[test]
    fn wide_spans_are_logarithmic() {
        let scale = Scale::fitting([1.0, 1_000.0, 0.0].into_iter());
        assert!(matches!(scale, Scale::Log { low, .. } if low < 1.0));
        assert!(scale.place(0.0) < 1e-9);
        assert!(matches!(Scale::fitting([1.0, 20.0].into_iter()), Scale::Linear { .. }));
        assert_eq!(Scale::fitting([].into_iter()), Scale::Linear { low: 0.0, high: 1.0 });
    }

    #[test]
    fn names_cannot_break_out() {
        assert_eq!(escaped("<a href='x'>\"&"), "&lt;a href=&#39;x&#39;&gt;&quot;&amp;");
    }
}
