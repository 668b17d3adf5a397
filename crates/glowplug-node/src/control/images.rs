//! `/api/v1/images`

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use glowplug_api::ErrorType;
use glowplug_api::control::{ImagePullEvent, ImagePullRequest, ImageView};
use glowplug_gateway::Body;
use glowplug_image::pull::{Progress, ProgressSender};
use glowplug_image::store::Image;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::StreamBody;
use hyper::body::{Frame, Incoming};
use tokio_stream::wrappers::WatchStream;

use super::{Answer, Failure, body, json, not_found};
use crate::apps::Launch;
use crate::config::ImageName;
use crate::images::RemoveError;
use crate::shared::Shared;

pub(super) async fn route(
    shared: &Arc<Shared>,
    method: &Method,
    segments: &[&str],
    request: Request<Incoming>,
) -> Answer {
    match (method, segments) {
        (&Method::GET, []) => list(shared).await,
        (&Method::POST, []) => pull(shared, &body::<ImagePullRequest>(request).await?),
        (&Method::DELETE, [digest]) => remove(shared, digest).await,
        _ => Err(not_found(method, &format!("/api/v1/images/{}", segments.join("/")))),
    }
}

async fn list(shared: &Shared) -> Answer {
    let images = shared.images.list().await.map_err(unusable)?;
    let views: Vec<ImageView> = images.iter().map(|image| view(shared, image)).collect();
    Ok(json(StatusCode::OK, &views))
}

fn view(shared: &Shared, image: &Image) -> ImageView {
    let is_its_image = |launch: &Launch| match launch {
        Launch::Image(launch) => launch.found.digest == image.digest,
        _ => false,
    };
    let apps =
        shared.apps.all().filter(|app| app.deployed().is_some_and(|d| is_its_image(&d.launch)));
    ImageView {
        digest: image.digest.to_string(),
        apps: apps.map(|app| app.name().to_owned()).collect(),
        layers: image.layers.len(),
        compressed_bytes: image.compressed_bytes,
        bytes: image.bytes,
    }
}

/// Answers with the pull's progress, and ends the pull when nobody listens any more.
fn pull(shared: &Arc<Shared>, wanted: &ImagePullRequest) -> Answer {
    let name = ImageName::parse(&wanted.image, Path::new("."));
    let name = match name {
        Ok(name @ ImageName::Registry(_)) => name,
        Ok(_) => {
            let detail = "an archive is read on the machine of the node: name it in the config";
            return Err(Failure::new(ErrorType::BadRequest, detail));
        }
        Err(problem) => {
            let detail = format!("`{}` names no image: {problem}", wanted.image);
            return Err(Failure::new(ErrorType::BadRequest, detail));
        }
    };
    let (sender, progress) = ProgressSender::channel();
    let shared = shared.clone();
    let end = async move {
        let ended = async {
            let found = shared.images.find(&name).await?;
            shared.images.pull(&found, &sender, shared.desk.now()).await
        };
        match ended.await {
            Ok(image) => {
                ImagePullEvent { image: Some(view(&shared, &image)), ..Default::default() }
            }
            Err(problem) => ImagePullEvent { error: Some(problem), ..Default::default() },
        }
    };
    let events: BoxStream<'static, ImagePullEvent> =
        stream::select(WatchStream::new(progress).map(how_far), stream::once(end)).boxed();
    let frames = events.map(|event| {
        let mut line = serde_json::to_vec(&event).unwrap_or_default();
        line.push(b'\n');
        Ok::<_, Infallible>(Frame::data(Bytes::from(line)))
    });
    let mut response = Response::new(Body::boxed(StreamBody::new(frames)));
    let kind = header::HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

fn how_far(progress: Progress) -> ImagePullEvent {
    ImagePullEvent {
        bytes: progress.bytes,
        total_bytes: progress.total_bytes,
        layers: progress.layers,
        total_layers: progress.total_layers,
        ..Default::default()
    }
}

async fn remove(shared: &Shared, digest: &str) -> Answer {
    let bad = |error: glowplug_image::InvalidDigest| {
        Failure::new(ErrorType::BadRequest, format!("{error}"))
    };
    let digest = digest.parse().map_err(bad)?;
    match shared.images.remove(&digest).await {
        Ok(()) => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            Ok(response)
        }
        Err(RemoveError::Missing) => {
            let detail = format!("there is no image {digest}; see `glowplug image list`");
            Err(Failure::new(ErrorType::NotFound, detail))
        }
        Err(RemoveError::InUse) => {
            let detail = format!("image {digest} is in use by a runner: stop it first");
            Err(Failure::new(ErrorType::Conflict, detail))
        }
        Err(RemoveError::Failed(problem)) => Err(unusable(problem)),
    }
}

fn unusable(problem: String) -> Failure {
    Failure::new(ErrorType::StoreUnavailable, problem)
}
