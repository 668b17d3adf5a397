//! What an image says about itself, and what the config wants, as a container to start.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use glowplug_image::config::ImageConfig;
use glowplug_image::store::Mounted;
use glowplug_runner::{
    Bind, ContainerSpec, ContainerUser, Listen, Network, Recording, RunnerSpec, Writes, host,
};

use super::given;
use crate::apps::{App, ImageLaunch};
use crate::config::{ContainerNetwork, NodeConfig};

/// Signals that an image may name, with their numbers, which are the same on all architectures we run on.
const SIGNALS: [(&str, i32); 8] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("KILL", 9),
    ("USR1", 10),
    ("USR2", 12),
    ("TERM", 15),
    ("WINCH", 28),
];
const SIGNAL_MAX: i32 = 64;
/// Names the file that a Python app tells the stages of its start to.
const TIMELINE_VARIABLE: &str = "GLOWPLUG_TIMELINE";
const TIMELINE_INSIDE: &str = "/.glowplug/timeline";

/// What a container is made from, beside its program.
pub(super) struct World<'a> {
    pub(super) app: &'a App,
    pub(super) image: &'a ImageConfig,
    pub(super) mounted: &'a Mounted,
    pub(super) recording: Recording,
    pub(super) node: &'a NodeConfig,
}

/// Makes `spec`, which has what is common to all runners, one of a container.
pub(super) fn describe(
    spec: &mut RunnerSpec,
    world: &World<'_>,
    launch: &ImageLaunch,
) -> Result<(), String> {
    spec.argv = argv(launch)?;
    spec.container = Some(container(spec, world, launch.port)?);
    Ok(())
}

/// As [`describe`], for a `fal.App` that the container's Python serves.
pub(super) fn describe_python(
    spec: &mut RunnerSpec,
    world: &World<'_>,
    launch: &glowplug_artifacts::Launch,
) -> Result<(), String> {
    spec.argv.clone_from(&launch.argv);
    spec.env.extend(launch.env.clone());
    let timeline = spec.env.insert(TIMELINE_VARIABLE.to_owned(), TIMELINE_INSIDE.to_owned());
    let mut container = container(spec, world, None)?;
    let binds = launch.binds.iter().map(|(source, target)| Bind {
        source: source.clone(),
        target: target.clone(),
        writes: Writes::Refused,
    });
    container.binds.extend(binds);
    if let Some(timeline) = timeline {
        let source = PathBuf::from(timeline);
        let made = make_timeline(&source);
        made.map_err(|error| format!("cannot make {}: {error}", source.display()))?;
        let target = PathBuf::from(TIMELINE_INSIDE);
        container.binds.push(Bind { source, target, writes: Writes::Kept });
    }
    spec.container = Some(container);
    Ok(())
}

/// Whoever the program is in its container may write there.
fn make_timeline(path: &Path) -> std::io::Result<()> {
    let file = std::fs::File::create(path)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o666))
}

/// Everything but the program, which may name its port itself.
fn container(
    spec: &mut RunnerSpec,
    world: &World<'_>,
    port: Option<u16>,
) -> Result<ContainerSpec, String> {
    let World { app, image, mounted, .. } = world;
    let config = &app.config.container;
    spec.cwd = working_dir(image);
    spec.listen = app.config.listen.unwrap_or(Listen::Port);
    let own = std::mem::take(&mut spec.env);
    spec.env = given::caches(config).collect();
    spec.env.extend(environment(image));
    spec.env.extend(own);
    // The node's `user` is one of the host's; here the container's own count.
    spec.user = None;
    let user = app.config.user.clone().unwrap_or_else(|| image.user.clone());
    let mut container = ContainerSpec::new(vec![mounted.tree.clone()]);
    container.root.data = mounted.data();
    container.root.writable_bytes = config.scratch_bytes();
    container.hostname = spec.id.to_string();
    let port = config.port.or(port).or_else(|| image.port());
    container.port = port.unwrap_or(ContainerSpec::PORT);
    container.recording = world.recording;
    container.stop_signal = stop_signal(&image.stop_signal)?;
    container.runtime = host::runtime(config.runtime.as_deref().unwrap_or(&world.node.runtime))?;
    container.network = match config.network {
        None | Some(ContainerNetwork::None) => Network::None,
        Some(ContainerNetwork::Host) => Network::Host,
    };
    container.binds = given::binds(config, &app.config.name, &world.node.data_dir)?;
    if !user.is_empty() {
        container.user = ContainerUser::Named(user);
    }
    Ok(container)
}

fn argv(launch: &ImageLaunch) -> Result<Vec<String>, String> {
    let own = &launch.command;
    let argv = if own.is_empty() { launch.found.config.argv() } else { own.clone() };
    if argv.is_empty() {
        let name = launch.found.name();
        return Err(format!("{name} does not say what to run: add a `command` to the app"));
    }
    Ok(argv)
}

fn working_dir(image: &ImageConfig) -> PathBuf {
    PathBuf::from("/").join(&image.working_dir)
}

fn environment(image: &ImageConfig) -> BTreeMap<String, String> {
    let pairs = image.env.iter().filter_map(|variable| variable.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// `SIGTERM`, `TERM` or `15`; of what says nothing, SIGTERM.
fn stop_signal(text: &str) -> Result<i32, String> {
    if text.is_empty() {
        return stop_signal("TERM");
    }
    let name = text.strip_prefix("SIG").unwrap_or(text);
    let named = SIGNALS.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
    let number = text.parse().ok().filter(|number| (1..=SIGNAL_MAX).contains(number));
    named.or(number).ok_or_else(|| {
        format!("its image wants to be stopped by the signal `{text}`, which is not known")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::Found;

    fn launch(command: &[&str], config: &str) -> ImageLaunch {
        ImageLaunch {
            found: Found::sample("example.com/a:1", image(config)),
            command: command.iter().map(|&word| word.to_owned()).collect(),
            port: None,
        }
    }

    fn image(text: &str) -> ImageConfig {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn the_config_s_command_replaces_all_that_the_image_would_run() {
        let entry = r#"{"Entrypoint": ["/run", "-v"], "Cmd": ["serve"]}"#;
        assert_eq!(argv(&launch(&[], entry)).unwrap(), ["/run", "-v", "serve"]);
        assert_eq!(argv(&launch(&["sh"], entry)).unwrap(), ["sh"]);
        let error = argv(&launch(&[], "{}")).unwrap_err();
        assert_eq!(error, "example.com/a:1 does not say what to run: add a `command` to the app");
    }

    #[test]
    fn the_working_directory_is_below_the_root() {
        for (said, expected) in [("", "/"), ("/app", "/app"), ("app", "/app")] {
            let image = image(&format!(r#"{{"WorkingDir": "{said}"}}"#));
            assert_eq!(working_dir(&image), Path::new(expected), "{said}");
        }
    }

    #[test]
    fn stop_signals_are_named_or_numbered() {
        for (text, expected) in [("", 15), ("SIGTERM", 15), ("INT", 2), ("SIGQUIT", 3), ("37", 37)]
        {
            assert_eq!(stop_signal(text), Ok(expected), "{text}");
        }
        for text in ["SIGNONSENSE", "0", "65", "-9"] {
            assert!(stop_signal(text).unwrap_err().contains(text), "{text}");
        }
    }

    #[test]
    fn variables_are_taken_with_all_their_equal_signs() {
        let image = image(r#"{"Env": ["PATH=/bin", "OPTS=a=b", "broken"]}"#);
        let expected = [("OPTS", "a=b"), ("PATH", "/bin")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(environment(&image), BTreeMap::from(expected));
    }
}
