//! The answer of a queued request, as it is kept.

use std::time::Duration;

use glowplug_api::{ErrorBody, ErrorType};
use glowplug_core::Timestamp;
use glowplug_core::request::Refusal;
use glowplug_gateway::answer::Problem;
use glowplug_gateway::attempt::AttemptResult;
use glowplug_store::{Completion, StoredResponse};

/// An attempt's result as the request's answer: the app's own, or ours where there is none.
pub(super) fn completion(
    result: AttemptResult,
    at: Timestamp,
    took: Duration,
    attempts: u32,
) -> Completion {
    let error = result
        .error
        .as_ref()
        .map(|problem| (problem.detail.clone(), problem.kind.as_str().to_owned()));
    let response = match (result.response, result.error) {
        (Some(response), _) => StoredResponse {
            status: response.status,
            headers: response.headers,
            body: response.body.into(),
        },
        (None, Some(problem)) => problem_response(&problem),
        (None, None) => {
            let detail = "the attempt ended without an answer";
            problem_response(&Problem::new(ErrorType::InternalError, detail))
        }
    };
    let error = error.or_else(|| {
        (response.status >= 400).then(|| {
            let kind = match response.status {
                // How an app says that it stopped because it was asked to.
                499 => "client_cancelled",
                500.. => "runner_server_error",
                _ => "bad_request",
            };
            (format!("Invalid status code: {}", response.status), kind.to_owned())
        })
    });
    Completion { at, response, error, inference_seconds: Some(took.as_secs_f64()), attempts }
}

pub(super) fn refusal_completion(refusal: &Refusal, at: Timestamp, attempts: u32) -> Completion {
    problem_completion(&Problem::from(refusal.clone()), at, attempts)
}

/// The answer of a request that its app did not answer.
pub(super) fn problem_completion(problem: &Problem, at: Timestamp, attempts: u32) -> Completion {
    let response = problem_response(problem);
    let error = Some((problem.detail.clone(), problem.kind.as_str().to_owned()));
    Completion { at, response, error, inference_seconds: None, attempts }
}

/// What a direct caller would have been answered, but that trying again is over.
fn problem_response(problem: &Problem) -> StoredResponse {
    let answer = problem.clone().settled().answer();
    let headers = answer.headers().iter().map(|(name, value)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    });
    let body = ErrorBody { detail: problem.detail.clone(), error_type: problem.kind };
    StoredResponse {
        status: problem.kind.status(),
        headers: headers.collect(),
        body: serde_json::to_vec(&body).unwrap_or_default(),
    }
}
