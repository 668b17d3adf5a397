//! What an image says about itself, and what the config wants, as a container to start.

use std::collections::BTreeMap;
use std::path::PathBuf;

use glowplug_image::config::ImageConfig;
use glowplug_image::store::Mounted;
use glowplug_runner::{ContainerSpec, ContainerUser, Listen, Network, Recording, RunnerSpec, host};

use crate::apps::{App, ImageLaunch};
use crate::config::{ContainerNetwork, ImageProgram};
use crate::shared::Shared;

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

/// Makes `spec`, which has what is common to all runners, one of a container.
pub(super) fn describe(
    shared: &Shared,
    spec: &mut RunnerSpec,
    app: &App,
    launch: &ImageLaunch,
    mounted: &Mounted,
    recording: Recording,
) -> Result<(), String> {
    let (program, image) = (&launch.program, &launch.found.config);
    spec.argv = argv(program, image)?;
    spec.cwd = working_dir(image);
    spec.listen = app.config.listen.unwrap_or(Listen::Port);
    let own = std::mem::take(&mut spec.env);
    spec.env = environment(image);
    spec.env.extend(own);
    // The node's `user` is one of the host's; here the container's own count.
    spec.user = None;
    let user = app.config.user.clone().unwrap_or_else(|| image.user.clone());
    let mut container = ContainerSpec::new(vec![mounted.tree.clone()]);
    container.root.data = vec![mounted.contents.clone()];
    container.root.writable_bytes = program.scratch_bytes;
    container.hostname = spec.id.to_string();
    container.port = program.port.or_else(|| image.port()).unwrap_or(ContainerSpec::PORT);
    container.recording = recording;
    container.stop_signal = stop_signal(&image.stop_signal)?;
    let runtime = program.runtime.as_ref().unwrap_or(&shared.config.node.runtime);
    container.runtime = host::runtime(runtime)?;
    container.network = match program.network {
        ContainerNetwork::None => Network::None,
        ContainerNetwork::Host => Network::Host,
    };
    if !user.is_empty() {
        container.user = ContainerUser::Named(user);
    }
    spec.container = Some(container);
    Ok(())
}

fn argv(program: &ImageProgram, image: &ImageConfig) -> Result<Vec<String>, String> {
    let argv = if program.command.is_empty() { image.argv() } else { program.command.clone() };
    if argv.is_empty() {
        let name = &program.image;
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
    use std::path::Path;

    use super::*;
    use crate::config::ImageName;

    fn program(command: &[&str]) -> ImageProgram {
        ImageProgram {
            image: ImageName::parse("example.com/a:1", Path::new("/")).unwrap(),
            command: command.iter().map(|&word| word.to_owned()).collect(),
            port: None,
            network: ContainerNetwork::None,
            runtime: None,
            scratch_bytes: 1,
        }
    }

    fn image(text: &str) -> ImageConfig {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn the_config_s_command_replaces_all_that_the_image_would_run() {
        let entry = image(r#"{"Entrypoint": ["/run", "-v"], "Cmd": ["serve"]}"#);
        assert_eq!(argv(&program(&[]), &entry).unwrap(), ["/run", "-v", "serve"]);
        assert_eq!(argv(&program(&["sh"]), &entry).unwrap(), ["sh"]);
        let error = argv(&program(&[]), &image("{}")).unwrap_err();
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
