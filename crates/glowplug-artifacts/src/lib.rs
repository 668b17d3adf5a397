//! What a start needs on disk: Python environments and images built from Dockerfiles; snapshots of set-up runners; weights and
//! caches to come. And [the files](files) that callers upload.
//!
//! This crate prepares and caches, and never chooses: which app starts when is the engine's business.

mod app_error;
mod command;
mod description;
mod environment;
pub mod files;
mod image_build;
mod lock;
mod progress;
mod python_app;
mod snapshots;
mod source_tree;
mod toolchain;

pub use app_error::{AppError, AppProblem, ProblemKind};
pub use command::ToolRunError;
pub use description::{
    AppContainer, AppDescription, AppFiles, AppInput, Endpoint, HealthCheck, LocalProject,
    RetrySettings, ScalingOverrides,
};
pub use environment::{
    Environment, EnvironmentError, EnvironmentInfo, EnvironmentSpec, Environments,
};
pub use image_build::{ImageBuild, ImageBuildError, ImageBuilds, Turn};
pub use progress::{Progress, ProgressSender, Stage};
pub use python_app::{Launch, PythonApps};
pub use snapshots::{Held, SnapshotError, SnapshotRow, Snapshots, Staging};
pub use toolchain::{Interpreter, ToolError};
