use std::fs;
use std::time::Duration;

use glowplug_core::spec::{Overrides, Policy, Scaling, WAIT_PRICES};
use glowplug_gateway::host::Access;
use glowplug_runner::Listen;
use tempfile::TempDir;

use super::*;

mod durable;
mod refused;
mod warmth;

/// A directory with a config file, an app to name in it, and the sources that lead to them.
struct Scene {
    dir: TempDir,
    sources: Sources,
}

impl Scene {
    fn new(config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("hello.py"), "class Hello: ...").unwrap();
        fs::write(dir.path().join(FILE_NAME), config).unwrap();
        let sources = Sources {
            file: FileChoice::Search,
            flags: Vec::new(),
            only_app: None,
            env: BTreeMap::from([("HOME".to_owned(), "/home/me".to_owned())]),
            cwd: dir.path().to_owned(),
        };
        Self { dir, sources }
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.sources.env.insert(name.to_owned(), value.to_owned());
        self
    }

    fn flag(mut self, flag: FlagSetting) -> Self {
        self.sources.flags.push(flag);
        self
    }

    fn load(&self) -> Result<Loaded, ConfigError> {
        load(self.sources.clone())
    }

    fn config(&self) -> Config {
        self.load().unwrap_or_else(|error| panic!("{error}")).config
    }

    /// The error, with the temporary directory written as `DIR`.
    fn error(&self) -> String {
        let error = self.load().expect_err("this config has a mistake").to_string();
        error.replace(&self.dir.path().display().to_string(), "DIR")
    }
}

fn check_error(config: &str, expected: &str) {
    assert_eq!(Scene::new(config).error(), expected, "{config}");
}

#[test]
fn no_file_is_a_config_too() {
    let mut scene = Scene::new("");
    fs::remove_file(scene.dir.path().join(FILE_NAME)).unwrap();
    let config = scene.config();
    assert_eq!(config.file, None);
    assert_eq!(config.node.listen.to_string(), "127.0.0.1:8642");
    assert_eq!(config.node.data_dir, Path::new("/home/me/.local/share/glowplug"));
    assert_eq!(config.node.adopt_timeout, Duration::from_mins(1));
    assert!(config.apps.is_empty());

    scene.sources.env.insert("XDG_DATA_HOME".into(), "/data".into());
    assert_eq!(scene.config().node.data_dir, Path::new("/data/glowplug"));
    scene.sources.env.clear();
    assert_eq!(
        scene.error(),
        "there is no place for data: neither HOME nor XDG_DATA_HOME is set\n  \
         help: name a directory with --data-dir, GLOWPLUG_DATA_DIR or `data_dir` in [node]"
    );
}

#[test]
fn apps_are_read() {
    let scene = Scene::new(
        r#"
        [machine_types.tiny]
        cpu = 0.25
        memory = "64MiB"
        [machine_types.S]
        price_per_hour = 0.05

        [apps.hello]
        app = "hello.py::Hello"
        keep_alive = "5m"
        machine_type = ["tiny", "S"]
        access = "public"
        env = { TOKEN = "t" }

        [apps."team/web--staging"]
        command = "./serve --port '$PORT'"
        listen = "unix"
        health_path = "/health"
        keep_alive = 1.5
        max_concurrency = 3
        termination_grace_period_seconds = 20
        "#,
    );
    let config = scene.config();
    let [hello, web] = config.apps.as_slice() else { panic!("{:?}", config.apps) };
    assert_eq!(hello.name.as_str(), "local/hello");
    assert_eq!(
        hello.program,
        Program::Python { file: scene.dir.path().join("hello.py"), class: Some("Hello".into()) }
    );
    assert_eq!(hello.cwd, scene.dir.path());
    assert_eq!(hello.access, Access::Public);
    assert_eq!(hello.machine_types, ["tiny", "S"]);
    assert_eq!(hello.env["TOKEN"], "t");
    assert_eq!(
        hello.scaling,
        Overrides { keep_alive: Some(Duration::from_mins(5)), ..Default::default() }
    );

    assert_eq!((web.name.owner(), web.name.app()), ("team", "web--staging"));
    assert_eq!(
        web.program,
        Program::Command { argv: ["./serve", "--port", "$PORT"].map(Into::into).into() }
    );
    assert_eq!(web.listen, Some(Listen::UnixSocket));
    let scaling = web.scaling.apply(Scaling::default()).unwrap();
    assert_eq!(scaling.keep_alive, Duration::from_millis(1_500));
    assert_eq!(scaling.max_concurrency, Some(3));
    assert_eq!(scaling.termination_grace_period, Duration::from_secs(20));

    assert_eq!(config.machine_types["tiny"].machine.cpu_millis, 250);
    let s = &config.machine_types["S"];
    assert_eq!((s.machine.cpu_millis, s.price_per_hour), (1_000, Some(0.05)));
    assert!(s.enforce && !config.machine_types[DEFAULT_MACHINE].enforce);
}

#[test]
fn what_auto_aims_for_is_read() {
    let aims = |keys: &str| {
        let config = Scene::new(&format!("[apps.hello]\ncommand = 'x'\n{keys}")).config();
        let class = Scaling { keep_alive: Duration::from_mins(1), ..Scaling::default() };
        match config.apps[0].scaling.apply(class).unwrap().policy {
            Policy::Fixed => "fixed".to_owned(),
            Policy::Auto(aims) => {
                let budget = aims.budget.map(|budget| (budget.wait.as_secs_f64(), budget.share));
                let named = |(_, price): &(&str, f64)| price.to_bits() == aims.wait_price.to_bits();
                let price = match WAIT_PRICES.iter().find(|price| named(price)) {
                    Some((name, _)) => (*name).to_owned(),
                    None => aims.wait_price.to_string(),
                };
                format!("{price} {budget:?} {}", aims.keep_max.as_secs())
            }
        }
    };
    for (keys, expected) in [
        ("", "fixed"),
        ("policy = 'fixed'\nkeep_alive = 5", "fixed"),
        ("policy = 'auto'", "balanced None 14400"),
        ("policy = 'auto'\nwait_budget = '2s'", "balanced Some((2.0, 0.05)) 14400"),
        (
            "policy = 'auto'\nwait_budget = 0.5\nwait_budget_percent = 2",
            "balanced Some((0.5, 0.02)) 14400",
        ),
        ("policy = 'auto'\nwait_price = 'cost-sensitive'", "cost-sensitive None 14400"),
        ("policy = 'auto'\nwait_price = 'latency-critical'", "latency-critical None 14400"),
        ("policy = 'auto'\nwait_price = 7.5\nkeep_alive = '90s'", "7.5 None 90"),
    ] {
        assert_eq!(aims(keys), expected, "{keys}");
    }
}

#[test]
fn stronger_layers_win() {
    let file = "[node]\nlisten = '127.0.0.1:1'\nadopt_timeout = 1\n[node.limits]\nwaiting_max = 5";
    let origin = |scene: &Scene, key: &str| {
        let shown = scene.load().unwrap().shown;
        let shown = shown.into_iter().find(|shown| shown.key == key).unwrap();
        format!("{} <- {}", shown.value, shown.origin)
    };
    let scene = Scene::new(file);
    assert_eq!(origin(&scene, "node.listen"), "\"127.0.0.1:1\" <- glowplug.toml:2");
    assert_eq!(origin(&scene, "node.adopt_timeout"), "\"1s\" <- glowplug.toml:3");
    assert_eq!(origin(&scene, "node.limits.waiting_max"), "5 <- glowplug.toml:5");
    assert_eq!(origin(&scene, "node.shutdown_timeout"), "\"30s\" <- default");
    assert_eq!(
        scene.config().node.data_dir,
        scene.dir.path().join("glowplug-data"),
        "data goes beside the config file"
    );

    let scene = scene
        .env("GLOWPLUG_LISTEN", "127.0.0.1:2")
        .env("GLOWPLUG_NODE__LISTEN", "127.0.0.1:9")
        .env("GLOWPLUG_NODE__LIMITS__WAITING_MAX", "6");
    assert_eq!(origin(&scene, "node.listen"), "\"127.0.0.1:2\" <- env GLOWPLUG_LISTEN");
    assert_eq!(
        origin(&scene, "node.limits.waiting_max"),
        "6 <- env GLOWPLUG_NODE__LIMITS__WAITING_MAX"
    );
    let scene = scene.flag(FlagSetting::node("--listen", "listen", "127.0.0.1:3"));
    assert_eq!(origin(&scene, "node.listen"), "\"127.0.0.1:3\" <- flag --listen");
}

#[test]
fn the_address_of_a_node_is_known_in_spite_of_other_mistakes() {
    let scene =
        Scene::new("[node]\nlisten = '127.0.0.1:7'\nopenn = 1\n[apps.x]\napp = 'missing.py'");
    assert!(scene.load().is_err());
    assert_eq!(node_address(&scene.sources).unwrap().port(), 7);
    assert_eq!(node_address(&Scene::new("[node]").sources).unwrap().port(), 8642);
    let error = node_address(&Scene::new("[node]\nlisten = 5").sources).unwrap_err();
    assert!(error.to_string().contains("`listen` in [node] must be an IP address"), "{error}");
}

#[test]
fn one_app_may_come_from_the_command_line_alone() {
    let mut scene = Scene::new("[node]\nopen = true\n[apps.broken]\napp = 'missing.py::X'");
    scene.sources.only_app = Some("hello".into());
    let text = |text: &str| FlagValue::Text(text.into());
    let scene = scene
        .flag(FlagSetting::app("hello", "FILE", "app", text("hello.py")))
        .flag(FlagSetting::app("hello", "--keep-alive", "keep_alive", text("3s")))
        .flag(FlagSetting::app("hello", "--machine-type", "machine_type", text("XS,S")));
    let config = scene.config();
    assert!(config.node.open, "the rest of the file counts");
    assert_eq!(config.apps.len(), 1);
    assert_eq!(config.apps[0].scaling.keep_alive, Some(Duration::from_secs(3)));
    assert_eq!(config.apps[0].machine_types, ["XS", "S"]);

    let scene =
        scene.flag(FlagSetting::app("hello", "--max-concurrency", "max_concurrency", text("x")));
    assert_eq!(
        scene.error(),
        "flag --max-concurrency: `max_concurrency` in [apps.hello] must be a whole number of 0 or more, \
         not the text \"x\""
    );
}

#[test]
fn a_missing_file_is_named_with_the_nearest_one() {
    let mut scene = Scene::new("");
    scene.sources.file = FileChoice::Named("glowplg.toml".into());
    assert_eq!(
        scene.error(),
        "cannot read the config file glowplg.toml: No such file or directory (os error 2)\n  \
         help: did you mean `glowplug.toml`?"
    );
    let scene = Scene::new("").env(FILE_ENV, "other.toml");
    assert!(scene.error().starts_with("cannot read the config file other.toml"));
}

#[test]
fn every_default_is_of_its_kind_and_those_of_scaling_are_the_engines() {
    for section in Section::ALL {
        for setting in section.settings() {
            if let setting::Fallback::Value(text) = setting.fallback {
                let value = setting.kind.read_text(text);
                assert!(value.is_ok(), "{}.{}: {value:?}", section.path(), setting.key);
            }
        }
    }
    let scene = Scene::new("[apps.hello]\ncommand = 'x'");
    let shown = scene.load().unwrap().shown;
    let default = Scaling::default();
    for (key, expected) in [
        ("keep_alive", default.keep_alive),
        ("scaling_delay", default.scaling_delay),
        ("startup_timeout", default.startup_timeout),
        ("request_timeout", default.request_timeout),
        ("termination_grace_period_seconds", default.termination_grace_period),
    ] {
        let shown = shown.iter().find(|s| s.key == format!("apps.hello.{key}")).unwrap();
        assert_eq!(shown.value, format!("\"{}\"", write_duration(expected)), "{key}");
    }
}

#[test]
fn secrets_of_an_environment_are_not_shown() {
    let shown =
        Scene::new("[apps.hello]\ncommand = 'x'\nenv = { TOKEN = 's3cret' }").load().unwrap().shown;
    let env = shown.iter().find(|shown| shown.key == "apps.hello.env").unwrap();
    assert_eq!(env.value, "(TOKEN)");
}

#[test]
fn the_reference_page_is_current() {
    const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/config.md");
    let rendered = render_reference();
    if std::env::var_os("GLOWPLUG_BLESS").is_some() {
        fs::write(PAGE, &rendered).unwrap();
    }
    let committed = fs::read_to_string(PAGE).unwrap_or_default();
    assert!(
        committed == rendered,
        "docs/reference/config.md is not current: run the tests once with GLOWPLUG_BLESS=1"
    );
}
