//! Configs with mistakes, and what is said of them.

use super::{Scene, check_error};

#[test]
fn unknown_keys_are_named_with_the_nearest_right_one() {
    check_error(
        "[apps.hello]\napp = 'hello.py::Hello'\nkeep_alve = 5",
        "glowplug.toml:3: unknown key `keep_alve` in [apps.hello]\n  help: did you mean `keep_alive`?",
    );
    check_error(
        "[node]\nmin_concurrency = 5",
        "glowplug.toml:2: unknown key `min_concurrency` in [node]\n  \
         help: `min_concurrency` belongs in [apps.NAME]",
    );
    check_error(
        "[node.contention]\ncolour = 5",
        "glowplug.toml:2: unknown key `colour` in [node.contention]\n  help: its keys are: wait_max",
    );
    check_error(
        "listen = '127.0.0.1:1'",
        "glowplug.toml:1: unknown key `listen` at the top of the file\n  help: `listen` belongs in [node]",
    );
    check_error(
        "[app.hello]\ncommand = 'x'",
        "glowplug.toml:1: unknown table `app` at the top of the file\n  help: did you mean `apps`?",
    );
    check_error(
        "[node.limit]\nwaiting_max = 5",
        "glowplug.toml:1: unknown key `limit` in [node]\n  help: did you mean `limits`?",
    );
    let scene = Scene::new("").env("GLOWPLUG_NODE__LISTN", "127.0.0.1:1");
    assert_eq!(
        scene.error(),
        "env GLOWPLUG_NODE__LISTN: no setting has this name\n  help: did you mean `GLOWPLUG_NODE__LISTEN`?"
    );
}

#[test]
fn wrong_types_say_what_was_expected_and_what_was_there() {
    check_error(
        "[node]\n\nopen = 'yes'",
        "glowplug.toml:3: `open` in [node] must be true or false, not the text \"yes\"",
    );
    check_error(
        "[node.resources]\nmemory = '16 gigs'",
        "glowplug.toml:2: `memory` in [node.resources] must be an amount of memory: a number of bytes, or \
         text such as \"16GiB\", not the text \"16 gigs\"",
    );
    check_error(
        "[node.resources]\ngpus = [{ kind = 'H100', memry = '80GiB' }]",
        "glowplug.toml:2: `gpus` in [node.resources] has an entry with the unknown key `memry`\n  \
         help: did you mean `memory`?",
    );
    check_error(
        "[apps]\nhello = 'hello.py'",
        "glowplug.toml:2: `apps.hello` must be a table, not the text \"hello.py\"\n  \
         help: write it as [apps.hello] with its keys below",
    );
    check_error(
        "[apps.hello]\ncommand = 'x'\nenv = { PORT = 80 }",
        "glowplug.toml:3: `env` in [apps.hello] has a `PORT` that is the number 80, not text\n  \
         help: put the value of `PORT` in quotes",
    );
    check_error(
        "[apps.hello]\ncommand = 'x'\naccess = 'publik'",
        "glowplug.toml:3: `access` in [apps.hello] cannot be \"publik\"\n  help: did you mean `public`?",
    );
    check_error("[node\n", "glowplug.toml:1: this is not valid TOML: unclosed table, expected `]`");
}

#[test]
fn impossible_values_are_refused() {
    let app = |rest: &str| format!("[apps.hello]\ncommand = 'x'\n{rest}");
    check_error(
        &app("min_concurrency = 5\nmax_concurrency = 2"),
        "glowplug.toml:3: `min_concurrency` is 5, above `max_concurrency` (2) in [apps.hello]",
    );
    check_error(
        &app("concurrency_buffer_perc = -5"),
        "glowplug.toml:3: `concurrency_buffer_perc` in [apps.hello] is -5; it must be 0 or more",
    );
    check_error(
        &app("keep_alive = -1"),
        "glowplug.toml:3: `keep_alive` in [apps.hello] is -1 s; it must be between 0 s and 10 years",
    );
    check_error(
        &app("max_multiplexing = 0"),
        "glowplug.toml:3: `max_multiplexing` is 0; a runner must serve at least 1 request in [apps.hello]",
    );
    check_error(
        &app("wait_budget = '2s'"),
        "glowplug.toml:3: `wait_budget` is for apps with `policy = \"auto\"`; add that, or leave this out in \
         [apps.hello]",
    );
    check_error(
        &app("policy = 'auto'\nwait_budget_percent = 5"),
        "glowplug.toml:4: `wait_budget_percent` is set without a budget; add `wait_budget`, such as \"2s\" in \
         [apps.hello]",
    );
    check_error(
        &app("policy = 'auto'\nwait_budget = 1\nwait_budget_percent = 100"),
        "glowplug.toml:5: `wait_budget_percent` is 100; it must be above 0 and below 100 in [apps.hello]",
    );
    check_error(
        &app("policy = 'auto'\nwait_price = 'cost-sensitiv'"),
        "glowplug.toml:4: `wait_price` in [apps.hello] cannot be \"cost-sensitiv\"\n  \
         help: did you mean `cost-sensitive`?",
    );
    check_error(
        &app("policy = 'auto'\nwait_price = 1001"),
        "glowplug.toml:4: `wait_price` is 1001; it must be 0 to 1000 in [apps.hello]",
    );
    check_error(
        &app("policy = 'automatic'"),
        "glowplug.toml:3: `policy` in [apps.hello] cannot be \"automatic\"\n  help: choose one of: fixed, auto",
    );
    check_error(
        &app("health_path = 'ready'"),
        "glowplug.toml:3: `health_path` in [apps.hello] is \"ready\"\n  \
         help: begin it with a slash: \"/ready\"",
    );
    check_error(
        &app("machine_type = 'GPU-H10'"),
        "glowplug.toml:3: unknown machine type `GPU-H10` in [apps.hello]\n  help: did you mean `GPU-H100`?",
    );
    check_error(
        "[node.limits]\nwaiting_max = 0",
        "glowplug.toml:2: `waiting_max` in [node.limits] is 0; nothing would get through",
    );
    check_error(
        "[node.recorder]\nsegment_bytes = '1KiB'",
        "glowplug.toml:2: `segment_bytes` in [node.recorder] is not within 64KiB to 256MiB",
    );
    check_error(
        "[node.recorder]\nmax_bytes = '31MiB'",
        "glowplug.toml:2: `max_bytes` in [node.recorder] is less than 4 times `segment_bytes`\n  \
         help: raise it, lower `segment_bytes`, or set `enabled = false`",
    );
    check_error(
        "[node.recorder]\nmax_byte = '1GiB'",
        "glowplug.toml:2: unknown key `max_byte` in [node.recorder]\n  help: did you mean `max_bytes`?",
    );
    check_error(
        "[machine_types.big]\ngpu_kind = 'H100'",
        "glowplug.toml:1: [machine_types.big] describes its GPU but has none\n  help: add `gpus = 1`",
    );
    check_error(
        "[node]\ndefault_machine = 'big'",
        "glowplug.toml:2: unknown machine type `big` in [node]\n  help: declare it under [machine_types], or \
         take one of: GPU-A100, GPU-B200, GPU-H100, GPU-H200, GPU-L40, GPU-RTXPRO6000, L, M, S, XL, XS, \
         default",
    );
}

#[test]
fn an_app_runs_exactly_one_thing_that_exists() {
    check_error(
        "[apps.hello]\nkeep_alive = 1",
        "glowplug.toml:1: [apps.hello] does not say what runs\n  \
         help: add `app = \"file.py::Class\"`, `command = \"…\"` or `image = \"…\"`",
    );
    check_error(
        "[apps.hello]\napp = 'hello.py::Hello'\ncommand = 'x'",
        "glowplug.toml:3: [apps.hello] has both `app` and `command`\n  help: keep exactly one",
    );
    check_error(
        "[apps.hello]\nimage = 'Not An Image'",
        "glowplug.toml:2: `image` in [apps.hello] is \"Not An Image\", which names no image: invalid reference format\n  \
         help: write it as in `example.com/team/model:1`, `archive:PATH` for one on disk, or `build:FOLDER` for one to build",
    );
    check_error(
        "[apps.hello]\nimage = 'archive:missing'",
        "glowplug.toml:2: `image` in [apps.hello] is \"archive:missing\", which names no image: there is no DIR/missing\n  \
         help: write it as in `example.com/team/model:1`, `archive:PATH` for one on disk, or `build:FOLDER` for one to build",
    );
    check_error(
        "[apps.hello]\nimage = 'nginx'\nport = 70000",
        "glowplug.toml:3: `port` in [apps.hello] is 70000, which is no port: 1 to 65535",
    );
    check_error(
        "[apps.hello]\ncommand = 'x'\nnetwork = 'host'",
        "glowplug.toml:3: `network` in [apps.hello] is for apps with an `image`, which this is not",
    );
    check_error(
        "[apps.hello]\napp = 'helo.py::Hello'",
        "glowplug.toml:2: `app` in [apps.hello] names a missing file: DIR/helo.py\n  \
         help: did you mean `hello.py`?",
    );
    check_error(
        "[apps.hello]\napp = 'hello.Hello'",
        "glowplug.toml:2: `app` in [apps.hello] is \"hello.Hello\", which names no Python class\n  \
         help: write the file and the class as in \"app.py::MyApp\"",
    );
    check_error(
        "[apps.hello]\ncommand = []",
        "glowplug.toml:2: `command` in [apps.hello] names no program",
    );
    check_error(
        "[apps.hello]\ncommand = 'x'\ncwd = 'nowhere'",
        "glowplug.toml:3: `cwd` in [apps.hello] is not a directory: DIR/nowhere",
    );
    check_error(
        "[apps.hello]\ncommand = 'x'\n[apps.'local/hello']\ncommand = 'y'",
        "glowplug.toml:3: the app `local/hello` is there twice",
    );
    check_error(
        "[apps.'a/b/c']\ncommand = 'x'",
        "glowplug.toml:1: `a/b/c` is not a name for an app: letters, digits, `.`, `_` and `-`, as in \
         `hello`, `team/hello` or `hello--staging`",
    );
}

#[test]
fn all_mistakes_are_told_at_once_in_the_order_of_the_file() {
    let error =
        Scene::new("[apps.b]\ncommand = 1\n[apps.a]\nap = 'x'\n[node]\nlisten = 'here'").error();
    let places: Vec<&str> =
        error.lines().filter(|line| line.starts_with("glowplug")).map(|line| &line[..15]).collect();
    assert_eq!(places, ["glowplug.toml:2", "glowplug.toml:4", "glowplug.toml:6"]);

    let many: String = (0..30).map(|n| format!("key_{n} = 1")).collect::<Vec<_>>().join("\n");
    assert!(Scene::new(&many).error().ends_with("and 10 more problems"));
}
