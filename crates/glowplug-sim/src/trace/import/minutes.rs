//! Invocations per minute of a day, as published for Azure Functions in 2019.
//!
//! The counts are read first: memory grows with functions × minutes, not with invocations. Then each minute's
//! invocations are spread over it, uniformly at random, and sorted; one minute is held at a time. An app
//! is a `HashApp`; its functions keep their own durations.

use std::collections::HashMap;
use std::io::Read;
use std::time::Duration;

use glowplug_core::request::Mode;
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::super::error::{Error, Fault};
use super::super::open::Peeked;
use super::apps::Apps;
use super::table::Table;
use super::{LeftOut, Row, Rows};

const MINUTE_MICROS: u32 = 60_000_000;
/// Minutes of one file: 14 days.
const MINUTES_MAX: usize = 14 * 24 * 60;
/// Counts above 0, of all functions in all minutes: 1.6 GiB of them.
const COUNTS_MAX: usize = 200_000_000;
/// Invocations in one minute, of all functions together: 160 MiB of them.
const PER_MINUTE_MAX: u64 = 20_000_000;
/// Shares of invocations whose durations the durations file tells, and the columns that tell them.
const PERCENTILES: &[(f64, &str)] = &[
    (0.0, "percentile_Average_0"),
    (0.01, "percentile_Average_1"),
    (0.25, "percentile_Average_25"),
    (0.5, "percentile_Average_50"),
    (0.75, "percentile_Average_75"),
    (0.99, "percentile_Average_99"),
    (1.0, "percentile_Average_100"),
];
/// The durations have whole milliseconds. One of 0 was shorter, and is read as half of one.
const SHORTEST_MILLIS: f64 = 0.5;

pub(super) struct Minutes {
    apps: Apps,
    functions: Vec<Function>,
    /// By minute: which function was invoked how often.
    counts: Vec<Vec<(u32, u32)>>,
    random: Xoshiro256PlusPlus,
    minute: usize,
    /// Of this minute: microseconds into it, and the function. The next one is last.
    left: Vec<(u32, u32)>,
}

struct Function {
    app: u32,
    /// Where it stands in the file.
    line: u64,
    durations: Option<Durations>,
}

/// How long a function's invocations take, in milliseconds.
#[derive(Clone, Debug)]
enum Durations {
    Always(f64),
    /// At the shares of [`PERCENTILES`]. Durations are skewed, so that a steady factor between two of them
    /// comes closer to the average than a straight line does.
    Spread([f64; PERCENTILES.len()]),
}

impl Minutes {
    pub(super) fn new<R: Read>(
        whole: Peeked<R>,
        durations: Option<Box<dyn Read + Send>>,
        seed: u64,
    ) -> Result<Self, Error> {
        let durations = match durations {
            Some(file) => read_durations(file)?,
            None => HashMap::new(),
        };
        let mut minutes = Self {
            apps: Apps::default(),
            functions: Vec::new(),
            counts: Vec::new(),
            random: Xoshiro256PlusPlus::seed_from_u64(seed),
            minute: 0,
            left: Vec::new(),
        };
        minutes.read_counts(Table::new(whole, b',')?, &durations)?;
        Ok(minutes)
    }

    fn read_counts<R: Read>(
        &mut self,
        mut table: Table<R>,
        durations: &HashMap<String, Durations>,
    ) -> Result<(), Error> {
        let function = table.find(&["HashFunction", "HashApp"]);
        let function = function.ok_or_else(|| table.missing("function", None))?;
        let app = table.find(&["HashApp"]).unwrap_or(function);
        let columns = minute_columns(table.columns());
        if columns.is_empty() || columns.len() > MINUTES_MAX {
            let problem = format!(
                "it has {} columns of minutes, called `1`, `2`, … or `minute_1`, …; 1 to \
                 {MINUTES_MAX} are read",
                columns.len()
            );
            return Err(Fault::Minutes(problem).at(1));
        }
        self.counts.resize(columns.len(), Vec::new());
        let mut counts = 0;
        while let Some(row) = table.next_row()? {
            let line = row.line;
            let app = self.apps.number(row.field(app)).map_err(|fault| fault.at(line))?;
            let index = u32::try_from(self.functions.len()).unwrap_or(u32::MAX);
            let durations = durations.get(row.field(function)).cloned();
            self.functions.push(Function { app, line, durations });
            for (minute, column) in columns.iter().enumerate() {
                let count = whole_number(row.field(*column));
                let count = count.ok_or_else(|| row.bad(*column, "which is no count"))?;
                if count > 0 {
                    self.counts[minute].push((index, count));
                    counts += 1;
                }
            }
            if counts > COUNTS_MAX {
                let problem = format!("there are more than {COUNTS_MAX} counts above 0");
                return Err(Fault::Minutes(problem).at(line));
            }
        }
        Ok(())
    }

    /// Gives each invocation of the next minute its moment. False: there is no next minute.
    fn spread(&mut self) -> Result<bool, Error> {
        let Some(counts) = self.counts.get_mut(self.minute) else { return Ok(false) };
        let counts = std::mem::take(counts);
        let total: u64 = counts.iter().map(|(_, count)| u64::from(*count)).sum();
        if total > PER_MINUTE_MAX {
            let problem = format!(
                "minute {} has {total} invocations; at most {PER_MINUTE_MAX} are read",
                self.minute + 1
            );
            return Err(Fault::Minutes(problem).at(1));
        }
        for (function, count) in counts {
            for _ in 0..count {
                self.left.push((self.random.random_range(0..MINUTE_MICROS), function));
            }
        }
        // Latest first. What comes at once goes in the order of the file.
        self.left.sort_unstable_by(|one, other| other.cmp(one));
        self.minute += 1;
        Ok(true)
    }
}

/// It may be written as `3.0`. Nothing is 0.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is in range")]
fn whole_number(text: &str) -> Option<u32> {
    let exact = if text.is_empty() { Some(0) } else { text.parse::<u32>().ok() };
    exact.or_else(|| {
        let number = text.parse::<f64>().ok()?;
        let whole = number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number);
        whole.then_some(number as u32)
    })
}

/// Columns of the minutes, in the order of the minutes.
fn minute_columns(columns: &[String]) -> Vec<usize> {
    let minute = |name: &str| name.strip_prefix("minute_").unwrap_or(name).parse::<u32>().ok();
    let mut found: Vec<(u32, usize)> = columns
        .iter()
        .enumerate()
        .filter_map(|(at, name)| minute(name).map(|minute| (minute, at)))
        .collect();
    found.sort_unstable();
    found.into_iter().map(|(_, at)| at).collect()
}

/// By function.
fn read_durations(file: Box<dyn Read + Send>) -> Result<HashMap<String, Durations>, Error> {
    let mut table = Table::new(Peeked::new(file)?, b',')?;
    let function = table.find(&["HashFunction", "HashApp"]);
    let function = function.ok_or_else(|| table.missing("function", None))?;
    let average = table.find(&["Average"]).ok_or_else(|| table.missing("Average", None))?;
    let percentiles: Option<Vec<usize>> =
        PERCENTILES.iter().map(|(_, name)| table.find(&[*name])).collect();
    let mut durations = HashMap::new();
    while let Some(row) = table.next_row()? {
        let millis = |at: usize| {
            let number = row.field(at).parse::<f64>().ok();
            let number = number.filter(|number| (0.0..1e12).contains(number));
            number.ok_or_else(|| row.bad(at, "which is no duration in milliseconds"))
        };
        let found = match &percentiles {
            None => Durations::Always(millis(average)?.max(SHORTEST_MILLIS)),
            Some(columns) => {
                let mut spread = [0.0; PERCENTILES.len()];
                let mut longest = SHORTEST_MILLIS;
                for (value, column) in spread.iter_mut().zip(columns) {
                    // They are averages of averages, and may be out of order by their rounding.
                    longest = millis(*column)?.max(longest);
                    *value = longest;
                }
                Durations::Spread(spread)
            }
        };
        durations.insert(row.field(function).to_owned(), found);
    }
    Ok(durations)
}

impl Durations {
    fn draw(&self, random: &mut Xoshiro256PlusPlus) -> Duration {
        let millis = match self {
            Self::Always(millis) => *millis,
            Self::Spread(spread) => {
                let share: f64 = random.random_range(0.0..1.0);
                let above = PERCENTILES.iter().position(|(at, _)| *at > share);
                let above = above.unwrap_or(PERCENTILES.len() - 1);
                let (low, high) = (PERCENTILES[above - 1].0, PERCENTILES[above].0);
                let part = (share - low) / (high - low);
                spread[above - 1] * (spread[above] / spread[above - 1]).powf(part)
            }
        };
        Duration::from_secs_f64(millis / 1e3)
    }
}

impl Rows for Minutes {
    fn next_row(&mut self) -> Result<Option<Row>, Error> {
        while self.left.is_empty() {
            if !self.spread()? {
                return Ok(None);
            }
        }
        let Some((into, function)) = self.left.pop() else { return Ok(None) };
        let function = &self.functions[function as usize];
        let minute = self.minute as u64 - 1;
        let at = minute * u64::from(MINUTE_MICROS) + u64::from(into);
        let service = function.durations.as_ref().map(|durations| durations.draw(&mut self.random));
        let (line, app) = (function.line, function.app);
        Ok(Some(Row { line, at, written: at, app, mode: Mode::Queued, service, status: None }))
    }

    fn apps(&self) -> &Apps {
        &self.apps
    }

    fn left_out(&self) -> LeftOut {
        LeftOut::default()
    }
}
