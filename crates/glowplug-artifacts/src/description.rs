//! A Python app as its class describes itself, ready to be stored and compared.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use glowplug_core::spec::Scaling;
use serde::{Deserialize, Serialize};

use crate::image_build::ImageBuild;

/// Below an app's folder.
const CONTEXT: &str = "context";

/// All that is known about an app without starting it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppDescription {
    /// The name it is deployed under unless another is given, such as `my-app` for `MyApp`.
    pub name: String,
    pub class_name: String,
    /// The file that defines it.
    #[serde(default)]
    pub file: PathBuf,
    /// Changes whenever the code, its neighbours or its files change: what makes a revision.
    #[serde(default)]
    pub content_hash: String,
    /// Where the pickled app and its files are kept.
    #[serde(default)]
    pub folder: PathBuf,
    pub fal_version: String,
    /// Minor version, such as `3.11`. The pickled code runs on no other.
    pub python_version: String,
    /// `private`, `public` or `shared`; `None` where the class does not say.
    pub auth: Option<String>,
    /// Layers of requirements, fal's own among them.
    pub requirements: Vec<Vec<String>>,
    /// Requirements that are folders on this machine.
    pub local_projects: Vec<LocalProject>,
    /// What the launcher itself needs; kept apart from the app's environment.
    pub support_requirements: Vec<String>,
    /// fal's scaling parameters, from the class or from fal's defaults for classes.
    pub scaling: ScalingOverrides,
    /// What it says about retries and about waiting for a runner.
    #[serde(default)]
    pub retry: RetrySettings,
    /// Names of the settings that the author wrote; the others are fal's defaults.
    pub set_by_class: BTreeSet<String>,
    /// In the order of preference; fal's names, such as `GPU-H100`.
    pub machine_types: Vec<String>,
    pub num_gpus: Option<u32>,
    pub regions: Option<Vec<String>>,
    pub exposed_port: Option<u16>,
    pub data_mounts: Option<Vec<String>>,
    /// Names of the secrets that the app may see. `None`: not limited.
    pub secrets: Option<Vec<String>>,
    pub endpoints: Vec<Endpoint>,
    pub health_check: Option<HealthCheck>,
    pub app_files: Option<AppFiles>,
    #[serde(default)]
    pub container: Option<AppContainer>,
}

impl AppContainer {
    /// What runs, beside what the image says. As in a Dockerfile, another entrypoint means that the image's command
    /// is not for it.
    pub fn argv(&self, entrypoint: &[String], cmd: &[String]) -> Vec<String> {
        match &self.entrypoint {
            Some(own) => [own.clone(), self.cmd.clone().unwrap_or_default()].concat(),
            None => {
                [entrypoint.to_vec(), self.cmd.clone().unwrap_or_else(|| cmd.to_vec())].concat()
            }
        }
    }
}

impl AppDescription {
    /// Everything that was copied for the app, and the folders it was in.
    pub(crate) fn inputs(&self) -> impl Iterator<Item = &AppInput> {
        let files = self.app_files.iter().flat_map(|files| &files.inputs);
        files.chain(self.container.iter().flat_map(|container| &container.inputs))
    }

    /// What its container is built from.
    pub fn image_build(&self) -> Option<ImageBuild> {
        let container = self.container.as_ref()?;
        Some(ImageBuild {
            dockerfile: container.dockerfile.clone(),
            context: self.folder.join(CONTEXT),
            args: container.build_args.clone(),
        })
    }
}

/// The container that an app runs in. Its context was copied to `context/` of the app's folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppContainer {
    pub dockerfile: String,
    pub build_args: BTreeMap<String, String>,
    /// The class is served by the container's Python. Otherwise the container is itself the server.
    pub isolated: bool,
    /// Instead of the image's own.
    pub entrypoint: Option<Vec<String>>,
    pub cmd: Option<Vec<String>>,
    /// What was copied, and the folders it was in.
    pub inputs: Vec<AppInput>,
}

/// fal's scaling parameters as far as they are set; durations in seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ScalingOverrides {
    pub keep_alive: Option<u64>,
    pub min_concurrency: Option<u32>,
    pub max_concurrency: Option<u32>,
    pub concurrency_buffer: Option<u32>,
    pub concurrency_buffer_perc: Option<u32>,
    pub scaling_delay: Option<u64>,
    pub max_multiplexing: Option<u32>,
    pub startup_timeout: Option<u64>,
    pub request_timeout: Option<u64>,
    pub termination_grace_period_seconds: Option<u64>,
}

impl ScalingOverrides {
    /// `base` with everything that is set here put over it. Not validated.
    pub fn over(&self, base: Scaling) -> Scaling {
        let seconds = |value: Option<u64>, base: Duration| value.map_or(base, Duration::from_secs);
        Scaling {
            policy: base.policy,
            keep_alive: seconds(self.keep_alive, base.keep_alive),
            min_concurrency: self.min_concurrency.unwrap_or(base.min_concurrency),
            max_concurrency: self.max_concurrency.or(base.max_concurrency),
            concurrency_buffer: self.concurrency_buffer.unwrap_or(base.concurrency_buffer),
            concurrency_buffer_perc: self
                .concurrency_buffer_perc
                .unwrap_or(base.concurrency_buffer_perc),
            scaling_delay: seconds(self.scaling_delay, base.scaling_delay),
            max_multiplexing: self.max_multiplexing.unwrap_or(base.max_multiplexing),
            startup_timeout: seconds(self.startup_timeout, base.startup_timeout),
            request_timeout: seconds(self.request_timeout, base.request_timeout),
            unused_runner_timeout: base.unused_runner_timeout,
            termination_grace_period: seconds(
                self.termination_grace_period_seconds,
                base.termination_grace_period,
            ),
            frozen_for: base.frozen_for,
        }
    }
}

/// What of an app's requests is tried again, and how long they may wait.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RetrySettings {
    /// Additional attempts by fal's names of conditions. `None`: the class does not say.
    pub retries: Option<BTreeMap<String, u32>>,
    /// fal's names of the conditions that are not retried.
    pub skip: Vec<String>,
    /// Seconds. 0 clears it.
    pub request_start_timeout: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    pub path: String,
    pub websocket: bool,
    /// Answers with a stream, as far as its name or type tells.
    pub stream: bool,
}

/// Liveness check of fal's `HealthCheck`; what is `None` has fal's default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    pub path: String,
    pub method: String,
    pub start_period_seconds: Option<u64>,
    pub timeout_seconds: Option<u64>,
    pub failure_threshold: Option<u32>,
    pub call_regularly: Option<bool>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalProject {
    pub name: String,
    pub path: PathBuf,
}

/// The app's `app_files`, copied below `files/` of its folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppFiles {
    /// Where the app's own file would be among them, relative to `files/`.
    pub working_dir: PathBuf,
    /// What was copied, and the folders it was in.
    pub inputs: Vec<AppInput>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppInput {
    pub path: PathBuf,
    pub mtime_ns: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_set_stays() {
        let base = Scaling { max_concurrency: Some(3), ..Scaling::default() };
        let overrides = ScalingOverrides {
            keep_alive: Some(60),
            max_multiplexing: Some(4),
            ..ScalingOverrides::default()
        };
        let expected = Scaling {
            keep_alive: Duration::from_mins(1),
            max_multiplexing: 4,
            max_concurrency: Some(3),
            ..Scaling::default()
        };
        assert_eq!(overrides.over(base), expected);
    }
}
