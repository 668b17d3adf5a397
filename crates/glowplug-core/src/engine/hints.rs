//! Routing hints: which free runner a request gets if its caller has a wish.
//!
//! A hint is a preference. It never makes a request wait, never starts a runner, and is never worth looking
//! at more than [`LOOKED_AT_MAX`] runners for.

use super::Engine;
use super::state::App;
use crate::ids::{HintId, RunnerId};
use crate::request::Outcome;

/// Free runners that are asked whether they have a hint. Beyond, the request takes what there is.
const LOOKED_AT_MAX: usize = 1_000;

/// A runner for a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choice {
    pub runner: RunnerId,
    /// The one that would have been taken without the caller's hint, if that is another.
    pub instead_of: Option<RunnerId>,
}

impl Engine {
    /// The free runner that has the hint; else one that accepts every hint; else the one that would be
    /// taken without.
    pub(super) fn choose(&self, app: &App, hint: Option<HintId>) -> Option<Choice> {
        let first = app.free.first_choice()?;
        let choice = |runner| Choice { runner, instead_of: (runner != first).then_some(first) };
        let Some(hint) = hint else { return Some(choice(first)) };
        let mut accepting = None;
        for runner in app.free.choices().take(LOOKED_AT_MAX) {
            let hints = self.runners.get(&runner).and_then(|runner| runner.hints.as_ref());
            match hints {
                Some(hints) if hints.name(hint) => {
                    return Some(choice(runner));
                }
                Some(hints) if hints.accept(hint) => {
                    accepting = accepting.or(Some(runner));
                }
                _ => {}
            }
        }
        Some(choice(accepting.unwrap_or(first)))
    }

    /// Takes note of what a runner says it is good for. Silence changes nothing: an app says it with each
    /// answer of its own, but not where something else answers for it.
    pub(super) fn learn_hints(&mut self, id: RunnerId, outcome: &mut Outcome) {
        let Outcome::Answered(answer) = outcome else { return };
        let Some(hints) = answer.hints.take() else { return };
        if let Some(runner) = self.runners.get_mut(&id) {
            runner.hints = Some(hints);
        }
    }
}
