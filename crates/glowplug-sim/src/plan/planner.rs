//! From traffic to plan.

use std::ops::RangeInclusive;
use std::time::Duration;

use glowplug_core::Timestamp;
use glowplug_core::spec::Scaling;
use glowplug_core::time::Pretty;

use super::grid::CELLS_MAX;
use super::intent::{Deck, Pick, TODAY};
use super::options::{Holdout, Options, Progress};
use super::result::{
    AppChange, FORMAT, Frontier, Intent, Plan, Recommendation, Run, Summary, WaitMeasure,
};
use super::setting::Setting;
use super::sweep::{Detail, Job, Simulated, Stage};
use super::traffic::{Course, Traffic};
use super::{Error, beside, change, diff, frontier, numbers};

/// The part that is held out without being asked for.
const HOLDOUT_SHARE: f64 = 0.25;
/// Shorter, it would be one time of day, and no judge of the others.
const HOLDOUT_MIN: Duration = Duration::from_hours(24);
/// What may be asked for: both parts must hold something.
const HOLDOUT_SHARES: RangeInclusive<f64> = 0.05..=0.9;
/// Over less, the ends of the traffic weigh more than what lies between them.
const SPAN_TRUSTED_MIN: Duration = Duration::from_hours(1);
/// Parts of the traffic of which the worst counts for variable traffic.
const PARTS_MAX: u32 = 8;
/// Shorter, a part would be hardly longer than a runner's life.
const PART_MIN: Duration = Duration::from_hours(1);
/// Times that a budget is tightened when the simulation of all apps together does not keep it.
const TIGHTENINGS_MAX: u32 = 6;
/// By how much.
const TIGHTENING: f64 = 0.9;
/// Waits are kept to this precision, and budgets judged by it.
const WAIT_SLACK: f64 = 1.001;
const COST_SLACK: f64 = 1.0 + 1e-9;

/// Tries the settings, and recommends.
pub fn plan(traffic: &Traffic, options: &Options, progress: &dyn Progress) -> Result<Plan, Error> {
    let goal = options.budget.wait.map(|(_, limit)| limit);
    let stage = Stage::new(traffic, options, progress, goal)?;
    Planner::new(traffic, options, &stage)?.plan()
}

struct Planner<'a> {
    options: &'a Options,
    stage: &'a Stage<'a>,
    whole: &'a Traffic,
    chosen_on: Traffic,
    /// `None`: the same.
    held_out: Option<Traffic>,
    /// Where the parts of what is chosen on meet, and what is held out begins.
    edges: Vec<Timestamp>,
    settings: Vec<Setting>,
}

impl<'a> Planner<'a> {
    fn new(whole: &'a Traffic, options: &'a Options, stage: &'a Stage<'a>) -> Result<Self, Error> {
        let (chosen_on, held_out) = divide(whole, options.holdout)?;
        let mut edges = chosen_on.edges(parts(&chosen_on));
        edges.extend(held_out.is_some().then(|| Timestamp::ZERO + chosen_on.span()));
        let mut settings = vec![Setting::Today];
        settings.extend(options.grid.settings(&options.budget));
        let (runs, apps) = (settings.len() * (edges.len() + 1), stage.apps.len());
        if runs.saturating_mul(apps) > CELLS_MAX {
            return Err(Error::TooManyCells { runs, apps });
        }
        Ok(Self { options, stage, whole, chosen_on, held_out, edges, settings })
    }

    fn reported_on(&self) -> &Traffic {
        self.held_out.as_ref().unwrap_or(&self.chosen_on)
    }

    /// All of the traffic, of which what is reported on counts. So whoever learns has seen what settings are
    /// chosen on, and runners are as warm as they would be.
    fn course(&self) -> Course<'_> {
        let count_from = match &self.held_out {
            None => Timestamp::ZERO,
            Some(_) => Timestamp::ZERO + self.chosen_on.span(),
        };
        Course { traffic: self.whole, count_from }
    }

    fn plan(&self) -> Result<Plan, Error> {
        let (deck, mut reported) = self.sweep()?;
        let beside = beside::all(self.stage, self.course())?;
        let today = run_of(Setting::Today, reported.remove(TODAY));
        let settings = self.settings[TODAY + 1..].iter();
        let runs: Vec<Run> = settings
            .zip(reported)
            .map(|(setting, simulated)| run_of(*setting, simulated))
            .collect();
        let mut intents =
            vec![Intent::LatencyCritical, Intent::CostSensitive, Intent::VariableTraffic];
        if self.options.budget.wait.is_some() || self.options.budget.cost_per_day.is_some() {
            intents.push(Intent::Budget);
        }
        let recommendations: Result<Vec<_>, Error> =
            intents.into_iter().map(|intent| self.recommend(intent, &deck, &today)).collect();
        Ok(Plan {
            format: FORMAT,
            traffic: Summary {
                requests: self.whole.requests(),
                apps: self.stage.apps.len(),
                span_secs: self.whole.span().as_secs_f64(),
                profile: self.whole.profile(),
                models: self.stage.rows.clone(),
            },
            chosen_on: self.chosen_on.part(self.whole),
            reported_on: self.reported_on().part(self.whole),
            cost_unit: self.options.prices.unit(),
            wait_budget_secs: self.options.wait_budget.as_secs_f64(),
            frontier: frontier_of(&runs, self.options.wait_measure),
            today,
            runs,
            beside,
            recommendations: recommendations?,
            notes: self.notes(),
        })
    }

    /// Each setting once on all of the traffic: sums of its parts to choose by, and the numbers of what is
    /// reported on.
    fn sweep(&self) -> Result<(Deck, Vec<Simulated>), Error> {
        let job = |setting: &Setting| Job {
            course: self.course(),
            edges: self.edges.clone(),
            setting: *setting,
            scalings: None,
            detail: if *setting == Setting::Today { Detail::Full } else { Detail::Sweep },
        };
        let jobs: Vec<Job<'_>> = self.settings.iter().map(job).collect();
        self.stage.announce(&jobs);
        let simulated = self.stage.run_all(&jobs)?;
        let held_out = usize::from(self.held_out.is_some());
        let parts = self.edges.len() + 1 - held_out;
        let part = |nth: usize| simulated.iter().map(|one| one.parts[nth].clone()).collect();
        let deck = Deck {
            groups: self.groups(),
            whole: simulated.iter().map(|one| numbers::sum_of_parts(&one.parts[..parts])).collect(),
            parts: (0..parts).map(part).collect(),
            requests: self.chosen_on.requests(),
            span: self.chosen_on.span(),
        };
        Ok((deck, simulated))
    }

    /// Apps with enough requests alone, then all others together.
    fn groups(&self) -> Vec<Vec<usize>> {
        let least = self.options.own_setting_requests_min;
        let requests = self.chosen_on.requests_by_app();
        let (own, pooled): (Vec<usize>, Vec<usize>) =
            (0..requests.len()).partition(|app| requests[*app] >= least);
        let mut groups: Vec<Vec<usize>> = own.into_iter().map(|app| vec![app]).collect();
        groups.extend((!pooled.is_empty()).then_some(pooled));
        groups
    }

    fn recommend(&self, intent: Intent, deck: &Deck, today: &Run) -> Result<Recommendation, Error> {
        let (pick, chosen) = self.settle(intent, deck)?;
        let scalings = self.scalings(deck, &pick);
        let (simulated, chosen_numbers) = match &self.held_out {
            None => (chosen, None),
            Some(_) => (self.together(self.course(), &scalings)?, Some(chosen.numbers)),
        };
        let settings = self.changes(deck, &scalings);
        Ok(Recommendation {
            intent,
            met: (intent == Intent::Budget).then(|| self.keeps_budget(&simulated)),
            because: pick.because,
            config: diff::fragment(&settings),
            diff: diff::unified(self.options.config.as_deref(), &settings),
            settings,
            change: change::compare(&today.numbers, &simulated.numbers),
            numbers: simulated.numbers,
            chosen_numbers,
            timeline: simulated.timeline,
        })
    }

    /// A pick, and its simulation as a whole on the traffic it was made on. What apps do to each other when
    /// the capacity is short is in no run of the sweep: a stated wait that is missed for it is asked for more
    /// sharply.
    fn settle(&self, intent: Intent, deck: &Deck) -> Result<(Pick, Simulated), Error> {
        let mut tightened = 1.0;
        let mut first: Option<(Pick, Simulated)> = None;
        for _ in 0..=TIGHTENINGS_MAX {
            let pick = deck.pick(intent, &self.options.budget, tightened);
            if first.as_ref().is_some_and(|(first, _)| *first == pick) {
                break;
            }
            let scalings = self.scalings(deck, &pick);
            let simulated = self.together(Course::whole(&self.chosen_on), &scalings)?;
            if intent != Intent::Budget || self.keeps_budget(&simulated) {
                return Ok((pick, simulated));
            }
            first.get_or_insert((pick, simulated));
            tightened *= TIGHTENING;
        }
        Ok(first.expect("the loop runs at least once"))
    }

    fn together(&self, course: Course<'_>, scalings: &[Scaling]) -> Result<Simulated, Error> {
        let job = Job {
            course,
            edges: Vec::new(),
            setting: Setting::PerApp,
            scalings: Some(scalings.to_vec()),
            detail: Detail::Full,
        };
        let mut simulated = self.stage.run_all(&[job])?;
        Ok(simulated.swap_remove(0))
    }

    fn keeps_budget(&self, simulated: &Simulated) -> bool {
        let (budget, numbers) = (&self.options.budget, &simulated.numbers);
        let keeps_wait = budget.wait.is_none_or(|(measure, limit)| match measure {
            WaitMeasure::OverBudget => simulated.over_goal_share <= 0.01,
            _ => numbers.wait.by(measure) <= limit.as_secs_f64() * WAIT_SLACK,
        });
        let keeps_cost = budget
            .cost_per_day
            .is_none_or(|limit| numbers.cost_per_day.is_none_or(|cost| cost <= limit * COST_SLACK));
        keeps_wait && keeps_cost
    }

    /// By app.
    fn scalings(&self, deck: &Deck, pick: &Pick) -> Vec<Scaling> {
        let mut scalings: Vec<Scaling> =
            (0..self.stage.apps.len()).map(|app| self.stage.today(app)).collect();
        for (apps, candidate) in deck.groups.iter().zip(&pick.choice) {
            for app in apps {
                scalings[*app] = self.settings[*candidate].apply(scalings[*app]);
            }
        }
        scalings
    }

    fn changes(&self, deck: &Deck, scalings: &[Scaling]) -> Vec<AppChange> {
        let least = self.options.own_setting_requests_min;
        let requests = self.chosen_on.requests_by_app();
        let mut changes: Vec<AppChange> = deck
            .groups
            .iter()
            .flatten()
            .map(|app| AppChange {
                app: self.stage.apps[*app].name.clone(),
                pooled: requests[*app] < least,
                keys: change::keys(&self.stage.today(*app), &scalings[*app]),
            })
            .filter(|change| !change.keys.is_empty())
            .collect();
        changes.sort_by(|a, b| a.app.cmp(&b.app));
        changes
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = self.whole.notes().to_vec();
        let (requests, span) = (self.whole.requests(), self.whole.span());
        if requests < self.options.own_setting_requests_min || span < SPAN_TRUSTED_MIN {
            notes.push(format!(
                "{requests} request(s) within {} say little, and the costs of a day are those of that time \
                 scaled up: record for longer before you change anything",
                Pretty(span)
            ));
        }
        if let Some(held_out) = &self.held_out {
            notes.push(format!(
                "settings are chosen on the first {} requests; all numbers are of the {} after them, \
                 with the first as a warm-up",
                self.chosen_on.requests(),
                held_out.requests()
            ));
        } else {
            notes.push(
                "settings are judged by the traffic they were chosen on, which flatters them"
                    .to_owned(),
            );
        }
        notes.extend(self.options.capacity.is_none().then(|| {
            "no capacity was given: every runner that is wanted finds its place".to_owned()
        }));
        notes.extend(self.stage.setups_vary().then(|| {
            "each start's setup is drawn on its own, which flatters buffers and spare runners: on a \
             real machine the starts of one moment are slow together"
                .to_owned()
        }));
        notes
    }
}

fn run_of(setting: Setting, simulated: Simulated) -> Run {
    Run { setting, numbers: simulated.numbers, timeline: simulated.timeline }
}

fn divide(whole: &Traffic, holdout: Holdout) -> Result<(Traffic, Option<Traffic>), Error> {
    let share = match holdout {
        Holdout::Off => return Ok((whole.clone(), None)),
        Holdout::Auto if whole.span().mul_f64(HOLDOUT_SHARE) < HOLDOUT_MIN => {
            return Ok((whole.clone(), None));
        }
        Holdout::Auto => HOLDOUT_SHARE,
        Holdout::Share(share) if HOLDOUT_SHARES.contains(&share) => share,
        Holdout::Share(_) => return Err(Error::Holdout),
    };
    let (chosen_on, held_out) = whole.split(1.0 - share);
    for (part, what) in [(&chosen_on, "settings are chosen on"), (&held_out, "is held out")] {
        if part.requests() == 0 {
            return Err(Error::EmptyPart { what });
        }
    }
    Ok((chosen_on, Some(held_out)))
}

/// How many parts are told apart.
fn parts(traffic: &Traffic) -> u32 {
    let count = traffic.span().as_secs() / PART_MIN.as_secs();
    u32::try_from(count).unwrap_or(u32::MAX).clamp(1, PARTS_MAX)
}

fn frontier_of(runs: &[Run], wait: WaitMeasure) -> Frontier {
    let axes = |run: &Run| {
        let numbers = &run.numbers;
        [numbers.cost, numbers.wait.by(wait), numbers.app_cold_rate.p75]
    };
    let three: Vec<[f64; 3]> = runs.iter().map(axes).collect();
    let two: Vec<[f64; 2]> = three.iter().map(|[cost, wait, _]| [*cost, *wait]).collect();
    Frontier {
        wait,
        by_cost_and_wait: frontier::non_dominated(&two),
        with_app_p75: frontier::non_dominated(&three),
    }
}
