//! `glowplug simulate`: traffic of one's own making through the production engine, on a virtual clock.

mod bar;
mod report;
mod states;

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Instant;

use glowplug_core::{Action, Timestamp};
use glowplug_sim::outcome::Outcome;
use glowplug_sim::scenario::Scenario;
use glowplug_sim::simulation::{self, World};

use crate::chart::Style;
use crate::cli::Context;
use crate::failure::Failure;
use crate::output::plain;
use bar::Bar;
use report::Report;

/// Seeds of one call.
const SEEDS_MAX: u64 = 100_000;
/// Moments of the timeline, at most as many columns.
const MOMENTS_MAX: usize = 72;
/// Actions shown of what led to an event.
const ACTIONS_SHOWN_MAX: usize = 200;
/// Events shown before the one that was asked for.
const EVENTS_SHOWN: u64 = 20;
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What is simulated: apps, traffic, what happens to them, and what is expected
    #[arg(value_name = "SCENARIO.toml")]
    scenario: PathBuf,
    /// The seed of everything random [default: the scenario's]
    #[arg(long, value_name = "N", conflicts_with = "seeds")]
    seed: Option<u64>,
    /// One simulation for each seed from A to B
    #[arg(long, value_name = "A..B", value_parser = seeds)]
    seeds: Option<RangeInclusive<u64>>,
    /// Simulate twice side by side and compare after every event
    #[arg(long)]
    doublecheck: bool,
    /// Show how many runners were in which state over time
    #[arg(long, conflicts_with = "seeds")]
    timeline: bool,
    /// Show what was decided in the events up to this one
    #[arg(long, value_name = "N", conflicts_with_all = ["seeds", "doublecheck", "timeline"])]
    event: Option<u64>,
}

fn seeds(text: &str) -> Result<RangeInclusive<u64>, String> {
    let help = "write two numbers, as in 1..20: from the first to the last";
    let (first, last) = text.split_once("..").ok_or(help)?;
    let number = |text: &str| text.trim_start_matches('=').parse::<u64>().map_err(|_| help);
    let (first, last) = (number(first)?, number(last)?);
    match last.checked_sub(first) {
        Some(span) if span < SEEDS_MAX => Ok(first..=last),
        Some(_) => Err(format!("at most {SEEDS_MAX} seeds at once")),
        None => Err(help.to_owned()),
    }
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let scenario = Scenario::read(&args.scenario).map_err(|error| Failure::User(error.into()))?;
    let simulation = Simulation { args, scenario, name: args.scenario.display().to_string() };
    let seed = args.seed.unwrap_or(simulation.scenario.seed);
    if let Some(event) = args.event {
        return context.output.data(&simulation.up_to(seed, event));
    }
    let Some(seeds) = args.seeds.clone() else {
        let report = simulation.run(seed)?;
        context.output.value(&report, |report| report.text(context.output, Style::of_locale()))?;
        return simulation.judge(&[report]);
    };
    let mut reports = Vec::new();
    for seed in seeds {
        reports.push(simulation.run(seed)?);
    }
    context.output.value(&reports, |reports| report::by_seed(reports, context.output))?;
    simulation.judge(&reports)
}

struct Simulation<'a> {
    args: &'a Args,
    scenario: Scenario,
    name: String,
}

impl Simulation<'_> {
    #[expect(clippy::disallowed_methods, reason = "how fast it was is for people")]
    fn run(&self, seed: u64) -> Result<Report, Failure> {
        let moments_max = if self.args.timeline { MOMENTS_MAX } else { 0 };
        let world = World { moments_max, ..self.scenario.world(seed) };
        let bar = Bar::new(self.scenario.length);
        let begun = Instant::now();
        let traffic = || bar.traffic(self.scenario.traffic(seed));
        let outcome = if self.args.doublecheck {
            world.doublecheck_watched(traffic, bar.actions())
        } else {
            world.run_watched(traffic(), bar.actions())
        };
        bar.clear();
        let outcome: Outcome = outcome.map_err(|failure| match failure {
            simulation::Failure::Traffic(error) => Failure::User(error.into()),
            failure => {
                let replay = self.replay(seed);
                let error = anyhow::Error::new(failure);
                Failure::user(format!("{error:#}\n  see it again: {replay}"))
            }
        })?;
        Ok(Report::new(&self.name, seed, &self.scenario, &outcome, begun.elapsed()))
    }

    /// What to type to see the same again.
    fn replay(&self, seed: u64) -> String {
        let doublecheck = if self.args.doublecheck { " --doublecheck" } else { "" };
        format!("glowplug simulate {} --seed {seed}{doublecheck}", self.name)
    }

    /// Fails if anything was not as expected.
    fn judge(&self, reports: &[Report]) -> Result<(), Failure> {
        let mut message = String::new();
        for report in reports.iter().filter(|report| !report.unmet.is_empty()) {
            for unmet in &report.unmet {
                let app = unmet.app.as_ref().map(|app| format!(" of {app}")).unwrap_or_default();
                let _ = writeln!(
                    message,
                    "{}:{}: `{}`{app} is {}, and not {}",
                    self.name, unmet.line, unmet.quantity, unmet.found, unmet.expected
                );
            }
            let _ = writeln!(message, "  see it again: {}", self.replay(report.seed));
        }
        if message.is_empty() { Ok(()) } else { Err(Failure::user(message.trim_end())) }
    }

    /// What was decided in the events up to this one.
    fn up_to(&self, seed: u64, event: u64) -> String {
        let mut lines: VecDeque<String> = VecDeque::new();
        let mut dropped = 0;
        let watch = |now: Timestamp, nth: u64, action: &Action| {
            if nth > event || nth + EVENTS_SHOWN < event {
                return;
            }
            if lines.len() == ACTIONS_SHOWN_MAX {
                lines.pop_front();
                dropped += 1;
            }
            lines.push_back(format!("{now:?}  event {nth}  {action}"));
        };
        let failure = self.scenario.world(seed).run_watched(self.scenario.traffic(seed), watch);
        let mut text = Vec::from(lines).join("\n");
        if dropped > 0 {
            text = format!("({dropped} actions before these are left out)\n{text}");
        }
        if let Err(failure) = failure {
            let _ = write!(text, "\n{:#}", anyhow::Error::new(failure));
        }
        let text = plain(&text);
        if text.is_empty() { format!("nothing was done up to event {event}") } else { text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_two_numbers() {
        assert_eq!(seeds("1..20"), Ok(1..=20));
        assert_eq!(seeds("7..=7"), Ok(7..=7));
        for bad in ["", "5", "..", "1..", "..5", "5..1", "a..b", "0..100000"] {
            assert!(seeds(bad).is_err(), "{bad}");
        }
    }
}
