//! `/api/v1/images`

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, stream};
use glowplug_api::ErrorType;
use glowplug_api::control::{
    ImageFsckEvent, ImageFsckRequest, ImageGcRequest, ImageGcView, ImagePullEvent,
    ImagePullRequest, ImageView,
};
use glowplug_artifacts::ProgressSender as BuildProgress;
use glowplug_gateway::Body;
use glowplug_image::pull::{Progress, ProgressSender};
use glowplug_image::store::{Checked, Image};
use glowplug_image::{Digest, Store};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::StreamBody;
use hyper::body::{Frame, Incoming};
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;

use super::{Answer, Failure, body, json, not_found};
use crate::apps::Launch;
use crate::config::ImageName;
use crate::image_views::{self, Names};
use crate::images::{self, RemoveError};
use crate::runner_task::chain;
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
        (&Method::POST, ["gc"]) => collect(shared, body::<ImageGcRequest>(request).await?).await,
        (&Method::POST, ["fsck"]) => Ok(check(shared, body::<ImageFsckRequest>(request).await?)),
        (&Method::GET, [digest]) => show(shared, digest).await,
        (&Method::DELETE, [digest]) => remove(shared, digest).await,
        _ => Err(not_found(method, &format!("/api/v1/images/{}", segments.join("/")))),
    }
}

async fn list(shared: &Shared) -> Answer {
    let Some(store) = shared.images.store().await.map_err(unusable)? else {
        return Ok(json(StatusCode::OK, &Vec::<ImageView>::new()));
    };
    let images = shared.images.list().await.map_err(unusable)?;
    let names = Names::of(&store);
    let view = |image| image_views::image(&store, &names, image, apps(shared, image));
    let views: Vec<ImageView> = images.iter().map(view).collect();
    Ok(json(StatusCode::OK, &views))
}

/// The apps whose runners get an image.
fn apps(shared: &Shared, image: &Image) -> Vec<String> {
    let wants = |launch: &Launch| launch.image() == Some(&image.digest);
    let apps = shared.apps.all().filter(|app| app.deployed().is_some_and(|d| wants(&d.launch)));
    apps.map(|app| app.name().to_owned()).collect()
}

fn view(shared: &Shared, store: &Store, image: &Image) -> ImageView {
    image_views::image(store, &Names::of(store), image, apps(shared, image))
}

async fn show(shared: &Arc<Shared>, digest: &str) -> Answer {
    let digest = parse(digest)?;
    let missing = || {
        let detail = format!("there is no image {digest}; see `glowplug image list`");
        Failure::new(ErrorType::NotFound, detail)
    };
    let store = shared.images.store().await.map_err(unusable)?.ok_or_else(missing)?;
    let (shared, wanted) = (shared.clone(), digest.clone());
    let detail = tokio::task::spawn_blocking(move || {
        let Some(image) = store.image(&wanted)? else { return Ok(None) };
        image_views::detail(&store, &image, apps(&shared, &image)).map(Some)
    });
    let detail = detail.await.map_err(|error| unusable(error.to_string()))?;
    let detail = detail.map_err(|error: glowplug_image::store::Error| unusable(chain(&error)))?;
    Ok(json(StatusCode::OK, &detail.ok_or_else(missing)?))
}

async fn collect(shared: &Shared, request: ImageGcRequest) -> Answer {
    let Some(wanted) = images::wanted(shared) else {
        let detail = "apps are still being prepared, and which images they want is not known yet: try again \
                      in a moment";
        return Err(Failure::new(ErrorType::Conflict, detail));
    };
    let gone = shared.images.collect(request, wanted).await.map_err(unusable)?;
    let nothing = ImageGcView {
        dry_run: request.dry_run,
        images: Vec::new(),
        layers: 0,
        contents: 0,
        bytes: 0,
        left_bytes: 0,
    };
    Ok(json(StatusCode::OK, &gone.unwrap_or(nothing)))
}

/// Answers with the check's progress. The check goes on to its end whoever listens.
fn check(shared: &Arc<Shared>, request: ImageFsckRequest) -> Response<Body> {
    let (sender, progress) = watch::channel(Checked::default());
    let shared = shared.clone();
    let end = async move {
        let tell = move |checked| {
            sender.send_replace(checked);
        };
        match shared.images.check(request.repair, tell).await {
            Ok(findings) => ImageFsckEvent {
                findings: Some(findings.unwrap_or_default()),
                ..Default::default()
            },
            Err(problem) => ImageFsckEvent { error: Some(problem), ..Default::default() },
        }
    };
    let how_far = |checked: Checked| ImageFsckEvent {
        bytes: checked.bytes,
        total_bytes: checked.total_bytes,
        ..Default::default()
    };
    lines(stream::select(WatchStream::new(progress).map(how_far), stream::once(end)))
}

/// One JSON object a line.
fn lines<T: serde::Serialize>(
    events: impl futures::Stream<Item = T> + Send + 'static,
) -> Response<Body> {
    let frames = events.map(|event| {
        let mut line = serde_json::to_vec(&event).unwrap_or_default();
        line.push(b'\n');
        Ok::<_, Infallible>(Frame::data(Bytes::from(line)))
    });
    let mut response = Response::new(Body::boxed(StreamBody::new(frames.boxed())));
    let kind = header::HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn parse(digest: &str) -> Result<Digest, Failure> {
    digest.parse().map_err(|error: glowplug_image::InvalidDigest| {
        Failure::new(ErrorType::BadRequest, format!("{error}"))
    })
}

/// Answers with the pull's progress, and ends the pull when nobody listens any more.
fn pull(shared: &Arc<Shared>, wanted: &ImagePullRequest) -> Answer {
    let name = ImageName::parse(&wanted.image, Path::new("."));
    let name = match name {
        Ok(name @ ImageName::Registry(_)) => name,
        Ok(_) => {
            let detail =
                "archives and builds are read on the machine of the node: name it in the config";
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
            let (now, building) = (shared.desk.now(), BuildProgress::none());
            let found = shared
                .images
                .find(&name, &building, now)
                .await
                .map_err(|problem| problem.reason)?;
            let image = shared.images.pull(&found, &sender, now).await?;
            let store = shared.images.store().await?.ok_or("the folder of images is gone")?;
            Ok(view(&shared, &store, &image))
        };
        match ended.await {
            Ok(image) => ImagePullEvent { image: Some(image), ..Default::default() },
            Err::<ImageView, String>(problem) => {
                ImagePullEvent { error: Some(problem), ..Default::default() }
            }
        }
    };
    Ok(lines(stream::select(WatchStream::new(progress).map(how_far), stream::once(end))))
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
    let digest = parse(digest)?;
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
