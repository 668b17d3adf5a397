//! The queue's wire types, as fal's clients read them.
//!
//! | route below `/queue/{owner}/{app}` | method | answer |
//! | --- | --- | --- |
//! | `[/{path}]` | POST | 200 [`SubmitView`] |
//! | `/requests/{id}/status` | GET | 202 while pending, 200 when complete: [`StatusView`] |
//! | `/requests/{id}/status/stream` | GET | events, each a [`StatusView`] |
//! | `/requests/{id}[/response]` | GET | the app's own answer; 400 before there is one |
//! | `/requests/{id}/cancel` | PUT | 200, 202, 400 or 404: [`CancelView`] |
//!
//! The Python client requires the key `logs` in every pending and complete status, the JavaScript client
//! requires `response_url`; so both are always there.

use serde::{Deserialize, Serialize};

use crate::ErrorType;

/// There is no failed and no cancelled state: such a request is complete, with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum QueueState {
    InQueue,
    InProgress,
    Completed,
}

/// Where to ask about one request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Links {
    pub response_url: String,
    pub status_url: String,
    pub cancel_url: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SubmitView {
    /// Always [`QueueState::InQueue`].
    pub status: QueueState,
    pub request_id: String,
    #[serde(flatten)]
    pub links: Links,
    /// Requests served before this one.
    pub queue_position: usize,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub eta: Option<EtaView>,
    pub gateway_request_id: String,
    pub logs: Option<Vec<LogView>>,
    pub metrics: MetricsView,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusView {
    pub status: QueueState,
    pub request_id: String,
    #[serde(flatten)]
    pub links: Links,
    /// Only in the queue.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub queue_position: Option<usize>,
    /// Only in the queue, when there is anything to make it from.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub eta: Option<EtaView>,
    /// `null` unless asked for.
    pub logs: Option<Vec<LogView>>,
    pub metrics: MetricsView,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error_type: Option<String>,
}

/// When a waiting request is expected to be answered. Also in the header `X-Glowplug-Eta-Seconds`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EtaView {
    /// From now.
    pub seconds: f64,
    /// What the number was made of, for people.
    pub basis: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogView {
    pub message: String,
    /// RFC 3339, in UTC.
    pub timestamp: String,
    pub level: String,
    pub source: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MetricsView {
    /// Seconds the app worked on the request.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub inference_time: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CancelState {
    /// It was waiting and is gone.
    Ok,
    /// It is being worked on; the app was asked to stop.
    CancellationRequested,
    AlreadyCompleted,
    NotFound,
}

/// What became of a cancellation; also the body of any 404 about a queued request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelView {
    pub status: CancelState,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub detail: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error_type: Option<ErrorType>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_has_the_keys_the_clients_require() {
        let links = Links {
            response_url: "r".to_owned(),
            status_url: "s".to_owned(),
            cancel_url: "c".to_owned(),
        };
        let status = StatusView {
            status: QueueState::InProgress,
            request_id: "id".to_owned(),
            links,
            queue_position: None,
            eta: None,
            logs: None,
            metrics: MetricsView::default(),
            error: None,
            error_type: None,
        };
        let text = serde_json::to_string(&status).unwrap();
        assert_eq!(
            text,
            r#"{"status":"IN_PROGRESS","request_id":"id","response_url":"r","status_url":"s","cancel_url":"c","logs":null,"metrics":{}}"#
        );
        assert_eq!(serde_json::from_str::<StatusView>(&text).unwrap(), status);
    }

    #[test]
    fn cancellations_are_named_as_fal_names_them() {
        let states = [
            (CancelState::Ok, "OK"),
            (CancelState::CancellationRequested, "CANCELLATION_REQUESTED"),
            (CancelState::AlreadyCompleted, "ALREADY_COMPLETED"),
            (CancelState::NotFound, "NOT_FOUND"),
        ];
        for (status, name) in states {
            let view = CancelView { status, detail: None, error_type: None };
            assert_eq!(serde_json::to_string(&view).unwrap(), format!(r#"{{"status":"{name}"}}"#));
        }
    }
}
