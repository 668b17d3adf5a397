//! `glowplug version`

use crate::cli::Context;
use crate::failure::Failure;

pub(crate) fn run(context: &Context) -> Result<(), Failure> {
    let version = env!("CARGO_PKG_VERSION");
    context
        .output
        .value(&serde_json::json!({ "version": version }), |_| format!("glowplug {version}"))
}
