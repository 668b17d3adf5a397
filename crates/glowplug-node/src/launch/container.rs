//! What an image says about itself, and what the config wants, as a container to start.

use std::collections::BTreeMap;

use glowplug_image::config::ImageConfig;
use glowplug_image::store::Mounted;
use glowplug_runner::RunnerSpec;

use crate::apps::ImageLaunch;
use crate::config::ImageProgram;

/// Where a server listens that says nothing: fal's own default.
const PORT_DEFAULT: u16 = 8080;

pub(super) fn describe(
    spec: &mut RunnerSpec,
    launch: &ImageLaunch,
    mounted: &Mounted,
) -> Result<(), String> {
    let (program, image) = (&launch.program, &launch.found.resolved.config);
    spec.argv = argv(program, image)?;
    let own = std::mem::take(&mut spec.env);
    spec.env = environment(image);
    spec.env.extend(own);
    let _ = (mounted, port(program, image));
    Ok(())
}

fn argv(program: &ImageProgram, image: &ImageConfig) -> Result<Vec<String>, String> {
    let argv = if program.command.is_empty() { image.argv() } else { program.command.clone() };
    if argv.is_empty() {
        return Err(format!(
            "{} does not say what to run: add a `command` to the app",
            program.image
        ));
    }
    Ok(argv)
}

fn port(program: &ImageProgram, image: &ImageConfig) -> u16 {
    program.port.or_else(|| image.port()).unwrap_or(PORT_DEFAULT)
}

fn environment(image: &ImageConfig) -> BTreeMap<String, String> {
    let pairs = image.env.iter().filter_map(|variable| variable.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}
