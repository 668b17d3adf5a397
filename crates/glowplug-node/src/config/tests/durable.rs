//! What the config says about queued requests: the queue, the store, webhooks, files, retries.

use glowplug_core::retry::{Budgets, Condition};

use super::*;

#[test]
fn the_defaults_of_the_queue_are_those_of_its_guide() {
    let node = Scene::new("").config().node;
    assert_eq!(
        node.queue,
        QueueConfig {
            retention: Duration::from_hours(1),
            retention_requests_max: 1_000_000,
            retention_bytes_max: 10 << 30,
            inline_bytes_max: 64 << 10,
            disk_reserve_bytes: 256 << 20,
            retry_delay: Duration::from_millis(250),
            retry_delay_max: Duration::from_secs(30),
        }
    );
    let lease = Duration::from_secs(15);
    assert_eq!(node.store, StoreConfig { postgres: None, schema: "glowplug".into(), lease });
    let webhooks = WebhooksConfig {
        allow: Vec::new(),
        first_timeout: Duration::from_secs(15),
        timeout: Duration::from_mins(2),
        calls_max: 31,
        ca_file: None,
    };
    assert_eq!(node.webhooks, webhooks);
}

#[test]
fn the_tables_of_the_queue_are_read() {
    let scene = Scene::new(
        r#"
        [node.queue]
        retention = "2d"
        retention_requests_max = 10
        retention_bytes_max = "1GiB"
        inline_bytes_max = 0
        disk_reserve = "1MiB"
        retry_delay = "5ms"
        retry_delay_max = "1m"
        [node.store]
        postgres = "postgres://me:s3cret@db/q"
        schema = "team_a"
        lease = "2s"
        [node.webhooks]
        allow = ["127.0.0.1", "fd00::/8"]
        calls_max = 3
        ca_file = "ours.pem"
        [node.files]
        bytes_max = "1GB"
        key_bytes_max = "2GB"
        key_files_max = 7
        retention = "30m"
        public_url = "https://files.example.org/"
        "#,
    );
    let node = scene.config().node;
    assert_eq!(node.queue.retention, Duration::from_hours(48));
    assert_eq!((node.queue.retention_requests_max, node.queue.retention_bytes_max), (10, 1 << 30));
    assert_eq!((node.queue.inline_bytes_max, node.queue.disk_reserve_bytes), (0, 1 << 20));
    assert_eq!(node.queue.retry_delay, Duration::from_millis(5));
    assert_eq!(node.queue.retry_delay_max, Duration::from_mins(1));
    assert_eq!(node.store.postgres.unwrap().expose(), "postgres://me:s3cret@db/q");
    assert_eq!((node.store.schema.as_str(), node.store.lease), ("team_a", Duration::from_secs(2)));
    let allow: Vec<String> = node.webhooks.allow.iter().map(ToString::to_string).collect();
    assert_eq!(allow, ["127.0.0.1/32", "fd00::/8"]);
    assert_eq!(node.webhooks.calls_max, 3);
    assert_eq!(node.files.bytes_max, 1_000_000_000);
    assert_eq!(node.files.key_bytes_max, Some(2_000_000_000));
    assert_eq!(node.files.key_files_max, Some(7));
    assert_eq!(node.files.retention, Duration::from_mins(30));
    assert_eq!(node.files.public_url.as_deref(), Some("https://files.example.org"));
    let ca_file = node.webhooks.ca_file.unwrap();
    assert!(ca_file.is_absolute() && ca_file.ends_with("ours.pem"), "{ca_file:?}");
}

#[test]
fn the_databases_password_is_not_shown() {
    let scene = Scene::new("")
        .env("GLOWPLUG_NODE__STORE__POSTGRES", "postgres://me:s3cret@db/q")
        .env("GLOWPLUG_NODE__WEBHOOKS__ALLOW", "10.0.0.0/8, ::1");
    let loaded = scene.load().unwrap();
    let shown = |key: &str| {
        let shown = loaded.shown.iter().find(|shown| shown.key == key).unwrap();
        shown.value.clone()
    };
    assert_eq!(shown("node.store.postgres"), "\"postgres://me:***@db/q\"");
    assert_eq!(shown("node.webhooks.allow"), "[\"10.0.0.0/8\", \"::1/128\"]");
    assert!(!format!("{loaded:?}").contains("s3cret"));

    check_error(
        "[node.store]\npostgres = 'host=db password=s3cret'",
        "glowplug.toml:2: `postgres` in [node.store] must be a URL such as \
         \"postgres://user:password@host/database\"",
    );
}

#[test]
fn retries_of_an_app_are_read() {
    let config = Scene::new(
        "[apps.hello]\ncommand = 'x'\nrequest_start_timeout = '30s'\n\
         retry_config = { timeout = { retries = 2 }, server_error = { retries = 0 } }\n\
         skip_retry_conditions = ['connection_error']\n\
         [apps.plain]\ncommand = 'x'",
    )
    .config();
    let [hello, plain] = config.apps.as_slice() else { panic!("{:?}", config.apps) };
    assert_eq!(hello.request_start_timeout, Some(Duration::from_secs(30)));
    let budgets = Budgets { timeout: Some(2), server_error: Some(0), ..Budgets::default() };
    assert_eq!(hello.retry_config, Some(budgets));
    assert_eq!(hello.skip_retry_conditions, Some(vec![Condition::ConnectionError]));
    assert_eq!((plain.retry_config, &plain.skip_retry_conditions), (None, &None));
}

#[test]
fn mistakes_in_the_tables_of_the_queue_are_told() {
    let app = |rest: &str| format!("[apps.hello]\ncommand = 'x'\n{rest}");
    check_error(
        "[node]\nanswer_retention = '1h'",
        "glowplug.toml:2: unknown key `answer_retention` in [node]\n  \
         help: it is `retention` in [node.queue] now",
    );
    check_error(
        "[node.store]\nschema = 'Team-A'",
        "glowplug.toml:2: `schema` in [node.store] is \"Team-A\"\n  \
         help: use lower-case letters, digits and `_`, at most 63 of them",
    );
    check_error(
        "[node.store]\nlease = '500ms'",
        "glowplug.toml:2: `lease` in [node.store] is not within 1s to 1h",
    );
    check_error(
        "[node.webhooks]\ntimeout = '5m'",
        "glowplug.toml:2: `timeout` in [node.webhooks] is not above 0 s and at most 4m",
    );
    check_error(
        "[node.webhooks]\nallow = ['localhost']",
        "glowplug.toml:2: `allow` in [node.webhooks] has \"localhost\", which is neither an address nor a \
         network\n  help: write it as \"127.0.0.1\" or \"10.0.0.0/8\"",
    );
    for url in ["files.example.org", "ftp://files", "https://a@b", "https://a/?b", "https://"] {
        let said = format!(
            "glowplug.toml:2: `public_url` in [node.files] is {url:?}\n  \
             help: write it as \"https://files.example.org\""
        );
        check_error(&format!("[node.files]\npublic_url = '{url}'"), &said);
    }
    check_error(
        &app("retry_config = { timeouts = { retries = 2 } }"),
        "glowplug.toml:3: `retry_config` in [apps.hello] has the unknown condition `timeouts`\n  \
         help: did you mean `timeout`?",
    );
    check_error(
        &app("retry_config = { timeout = { retry = 2 } }"),
        "glowplug.toml:3: `retry_config` in [apps.hello] has a `timeout` that gives no number of retries\n  \
         help: write timeout = { retries = 2 }",
    );
    check_error(
        &app("skip_retry_conditions = 'server_eror'"),
        "glowplug.toml:3: `skip_retry_conditions` in [apps.hello] has the unknown condition `server_eror`\n  \
         help: did you mean `server_error`?",
    );
}
