//! Reading real fal classes with the real `fal`.

#![allow(clippy::unwrap_used, reason = "a failed step of a test is a panic")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use glowplug_artifacts::{
    AppDescription, AppError, AppProblem, HealthCheck, ProblemKind, ProgressSender, PythonApps,
    RetrySettings, ScalingOverrides,
};

async fn inspect(file: &Path, class: Option<&str>) -> Result<AppDescription, AppError> {
    PythonApps::new(support::cache()).inspect(file, class, &ProgressSender::none()).await
}

async fn problem(file: &Path, class: Option<&str>) -> AppProblem {
    match inspect(file, class).await {
        Err(AppError::App(problem)) => *problem,
        other => panic!("not a problem of the app: {other:?}"),
    }
}

#[tokio::test]
async fn a_class_is_described_by_its_own_attributes() {
    let app = inspect(&support::fixture("contract.py"), Some("Contract")).await.unwrap();
    assert_eq!((app.name.as_str(), app.class_name.as_str()), ("a-contract", "Contract"));
    let scaling = ScalingOverrides {
        keep_alive: Some(7),
        max_concurrency: Some(3),
        max_multiplexing: Some(4),
        startup_timeout: Some(90),
        request_timeout: Some(20),
        termination_grace_period_seconds: Some(9),
        ..ScalingOverrides::default()
    };
    assert_eq!(app.scaling, scaling);
    assert_eq!(app.machine_types, ["GPU-H100", "S"]);
    assert_eq!((app.num_gpus, app.exposed_port), (Some(2), Some(8080)));
    assert_eq!(app.secrets, Some(vec!["TOKEN".to_owned()]));
    let health = HealthCheck {
        path: "/alive".into(),
        method: "POST".into(),
        start_period_seconds: None,
        timeout_seconds: Some(2),
        failure_threshold: Some(4),
        call_regularly: None,
    };
    assert_eq!(
        app.health_check.map(|found| HealthCheck {
            start_period_seconds: None,
            call_regularly: None,
            ..found
        }),
        Some(health)
    );
    let endpoint = |path: &str| app.endpoints.iter().find(|e| e.path == path).unwrap();
    assert!(endpoint("/stream").stream && !endpoint("/").stream);
    assert!(endpoint("/realtime").websocket && !endpoint("/").websocket);
    let requirements: Vec<&str> = app.requirements.iter().flatten().map(String::as_str).collect();
    assert!(requirements.iter().any(|r| r.starts_with("fastapi==")), "{requirements:?}");
    assert!(requirements.contains(&"msgpack"), "{requirements:?}");
    assert!(!requirements.iter().any(|r| r.starts_with("fal==")), "{requirements:?}");
}

#[tokio::test]
async fn fals_defaults_are_told_from_the_authors_settings() {
    let app = inspect(&support::fixture("contract.py"), Some("FailingSetup")).await.unwrap();
    assert_eq!(app.scaling, ScalingOverrides { keep_alive: Some(60), ..Default::default() });
    assert_eq!(app.set_by_class, BTreeSet::new());
    assert_eq!(app.machine_types, ["S"]);
    let app = inspect(&support::fixture("contract.py"), Some("Contract")).await.unwrap();
    assert!(app.set_by_class.contains("keep_alive"), "{:?}", app.set_by_class);
    assert!(app.set_by_class.contains("machine_type"), "{:?}", app.set_by_class);
}

#[tokio::test]
async fn the_examples_can_be_read() {
    let hello = inspect(&support::example("hello/app.py"), None).await.unwrap();
    assert_eq!((hello.name.as_str(), hello.scaling.keep_alive), ("hello", Some(10)));
    let ocr = inspect(&support::example("ocr/app.py"), Some("Ocr")).await.unwrap();
    assert_eq!((ocr.name.as_str(), ocr.python_version.as_str()), ("ocr", "3.11"));
    assert_eq!(ocr.requirements[1], ["opencv-python-headless==4.12.0.88"]);
}

#[tokio::test]
async fn wrong_names_are_answered_with_the_nearest_right_one() {
    let file = support::fixture("contract.py");
    let found = problem(&file, Some("Contrat")).await;
    assert_eq!(found.kind, ProblemKind::ClassNotFound);
    assert!(found.hint.ends_with("contract.py::Contract?"), "{found}");
    assert!(found.available.contains(&"FailingSetup".to_owned()), "{found:?}");
    let found = problem(&file, None).await;
    assert_eq!(found.kind, ProblemKind::ClassNotNamed);
    let found = problem(&support::fixture("contrac.py"), None).await;
    assert_eq!(found.kind, ProblemKind::FileNotFound);
    assert!(found.hint.ends_with("contract.py?"), "{found}");
}

#[tokio::test]
async fn what_cannot_be_served_is_refused() {
    let file = support::fixture("contract.py");
    assert_eq!(problem(&file, Some("not_served")).await.kind, ProblemKind::NotServed);
    let conda = problem(&file, Some("in_conda")).await;
    assert_eq!(conda.kind, ProblemKind::UnsupportedEnvironment);
    assert!(conda.message.contains("conda"), "{conda}");
}

#[tokio::test]
async fn mistakes_in_the_source_are_shown_where_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let check = async |text: &str| {
        let file = folder.path().join("app.py");
        fs::write(&file, text).unwrap();
        problem(&file, Some("A")).await
    };
    let found = check("import fal\nclass A(fal.App:\n    pass\n").await;
    assert_eq!(found.kind, ProblemKind::SyntaxError);
    assert!(found.message.contains("app.py:2"), "{found}");

    let found = check("def deep():\n    raise RuntimeError('too early')\ndeep()\n").await;
    assert_eq!(found.kind, ProblemKind::AppFailed);
    assert!(found.traceback.starts_with("File \""), "{found}");
    assert!(found.traceback.contains("line 2, in deep"), "{found}");
    assert!(!found.traceback.contains("runpy"), "{found}");

    let found = check("import fal\nimport glowplug_no_such_module\n").await;
    assert_eq!(found.kind, ProblemKind::ImportError);
    assert!(found.message.contains("`glowplug_no_such_module`"), "{found}");
    assert!(found.hint.contains("`requirements`"), "{found}");

    let app = "import fal\nclass A(fal.App, keep_alive=-1):\n    \
               @fal.endpoint('/')\n    def f(self) -> dict: return {}\n";
    let found = check(app).await;
    assert_eq!(found.kind, ProblemKind::BadSetting);
    assert!(found.message.contains("`keep_alive`"), "{found}");
}

#[tokio::test]
async fn retries_are_read_in_every_form_that_fal_takes() {
    let folder = tempfile::tempdir().unwrap();
    let write = |settings: &str| {
        let file = folder.path().join("app.py");
        let text = format!(
            "import fal\nfrom fal.sdk import RetryConfig\nclass A(fal.App, {settings}):\n    \
             @fal.endpoint('/')\n    def f(self) -> dict: return {{}}\n"
        );
        fs::write(&file, text).unwrap();
        file
    };
    for settings in [
        "retry_config=RetryConfig(server_error=2)",
        "retry_config={'server_error': {'retries': 2}}",
    ] {
        let app = inspect(&write(settings), Some("A")).await.unwrap();
        let retries = BTreeMap::from([("server_error".to_owned(), 2)]);
        assert_eq!(app.retry.retries, Some(retries), "{settings}");
    }
    let others = "skip_retry_conditions=['timeout'], request_start_timeout=30";
    let app = inspect(&write(others), Some("A")).await.unwrap();
    let expected = RetrySettings {
        retries: None,
        skip: vec!["timeout".to_owned()],
        request_start_timeout: Some(30),
    };
    assert_eq!(app.retry, expected);
}

#[tokio::test]
async fn packages_imported_at_the_top_are_taken_from_the_requirements() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.py");
    let app = "import fal\nimport inflection\nNEEDED = ['inflection==0.5.1']\nclass A(fal.App):\n    \
               requirements = NEEDED\n    @fal.endpoint('/')\n    \
               def f(self) -> dict: return {'x': inflection.titleize('a_b')}\n";
    fs::write(&file, app).unwrap();
    let app = inspect(&file, Some("A")).await.unwrap();
    assert_eq!(app.requirements[0][0], "inflection==0.5.1");
}

#[tokio::test]
async fn an_app_is_read_again_only_when_it_has_changed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.py");
    let source = |data: &str| {
        format!(
            "import fal\nprint('read')\nclass A(fal.App):\n    app_files = ['{data}']\n    \
             @fal.endpoint('/')\n    def f(self) -> dict: return {{}}\n"
        )
    };
    fs::write(folder.path().join("data.txt"), "1").unwrap();
    fs::write(&file, source("data.txt")).unwrap();
    let first = inspect(&file, None).await.unwrap();
    assert_eq!(fs::read_to_string(first.folder.join("files/data.txt")).unwrap(), "1");
    assert_eq!(inspect(&file, None).await.unwrap(), first);

    fs::write(folder.path().join("neighbour.py"), "").unwrap();
    let second = inspect(&file, None).await.unwrap();
    assert_ne!(second.content_hash, first.content_hash);

    fs::write(folder.path().join("data.txt"), "2").unwrap();
    let third = inspect(&file, None).await.unwrap();
    assert_ne!(third.content_hash, second.content_hash);
    assert_eq!(fs::read_to_string(third.folder.join("files/data.txt")).unwrap(), "2");
    assert_eq!(fs::read_to_string(second.folder.join("files/data.txt")).unwrap(), "1");
}
