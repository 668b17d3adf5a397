//! Serving real fal classes with the launcher, in environments that hold no `fal`.

mod support;

use std::net::TcpStream;

use support::{Runner, fixture, listening_addresses, prepared, wait_for};

const SETUP_FAILED: i32 = 3;

#[tokio::test]
async fn the_http_contract_holds_over_a_unix_socket() {
    let (_, launch) = prepared(&fixture("contract.py"), "Contract").await;
    let mut runner = Runner::start_on_socket(&launch);
    runner.wait_ready();

    let answer = runner.request("POST", "/", r#"{"number": 21}"#);
    assert_eq!((answer.status, answer.json()["number"].as_i64()), (200, Some(42)));
    assert_eq!(answer.header("x-fal-billable-units"), Some("3"));

    let answer = runner.request("POST", "/", r#"{"number": "x"}"#);
    assert_eq!(answer.status, 422);
    assert_eq!(answer.header("x-fal-billable-units"), Some("0"));
    assert_eq!(answer.json()["detail"][0]["type"], "int_parsing");

    let answer = runner.request("POST", "/nowhere", "{}");
    assert_eq!((answer.status, answer.header("x-fal-billable-units")), (404, Some("0")));
    assert_eq!(answer.json()["detail"], "Path /nowhere not found");

    let answer = runner.request("POST", "/broken", "");
    assert_eq!(answer.status, 500);
    assert_eq!(answer.json()["detail"], "Internal Server Error");
    assert_eq!(runner.request("POST", "/cancelled", "").status, 499);
    assert_eq!(runner.request("POST", "/alive", "").status, 200);

    let answer = runner.request("GET", "/health", "");
    assert_eq!((answer.status, answer.json()["version"].as_str()), (200, Some("unknown")));

    let document = runner.request("GET", "/openapi.json", "").json();
    assert!(document["paths"]["/"]["post"].is_object(), "{document}");
    assert_eq!(document["components"]["schemas"]["Input"]["required"][0], "number");
    assert!(document["x-fal-order-paths"].is_array(), "{document}");

    let answer = runner.request("POST", "/stream", "");
    assert_eq!(answer.header("content-type"), Some("text/event-stream; charset=utf-8"));
    assert_eq!(answer.body, "data: 1\n\ndata: 2\n\n");

    let answer = runner.request("POST", "/who", "").json();
    let expected = serde_json::json!({
        "client": "127.0.0.1", "request_id": "the-request", "state": "RUNNING", "fal": false
    });
    assert_eq!(answer, expected);
}

#[tokio::test]
async fn sigterm_ends_a_runner_in_good_order() {
    let (_, launch) = prepared(&fixture("contract.py"), "Contract").await;
    let mut runner = Runner::start_on_socket(&launch);
    runner.wait_ready();
    assert_eq!(runner.request("POST", "/alive", "").status, 200);
    assert_eq!(listening_addresses(runner.pid()), Vec::<String>::new());

    let status = runner.terminate();
    assert_eq!(status.code(), Some(0), "{}", runner.text("stderr"));
    let log = runner.text("stdout");
    let at = |text: &str| log.find(text).unwrap_or_else(|| panic!("no `{text}` in:\n{log}"));
    assert!(at("setup in SETUP") < at("handle_exit"));
    assert!(at("handle_exit") < at("teardown in TERMINATING"));
    assert!(!runner.text("stderr").contains("Traceback"), "{}", runner.text("stderr"));
    assert!(!runner.socket().exists(), "the socket was left behind");
}

#[tokio::test]
async fn a_port_is_opened_on_loopback_only() {
    let (_, launch) = prepared(&fixture("contract.py"), "Contract").await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let mut runner = Runner::start(&launch, &[("PORT", port.to_string())]);
    let stream = wait_for("the port", || TcpStream::connect(("127.0.0.1", port)).ok());
    assert_eq!(support::request(stream, "POST", "/alive", "").status, 200);
    assert_eq!(listening_addresses(runner.pid()), [format!("0100007F:{port:04X}")]);
    assert_eq!(runner.terminate().code(), Some(0));
}

#[tokio::test]
async fn metrics_are_served_beside_the_socket() {
    let (_, launch) = prepared(&fixture("contract.py"), "Contract").await;
    let mut runner = Runner::start_on_socket(&launch);
    runner.wait_ready();
    let path = runner.folder.path().join("s.metrics");
    let stream =
        wait_for("the metrics socket", || std::os::unix::net::UnixStream::connect(&path).ok());
    let answer = support::request(stream, "GET", "/metrics", "");
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains(r#"fal_app_info{version="unknown"} 1.0"#), "{}", answer.body);
}

#[tokio::test]
async fn the_stages_of_a_start_are_written_down() {
    let (_, launch) = prepared(&fixture("contract.py"), "Contract").await;
    let mut runner = Runner::start_on_socket(&launch);
    runner.wait_ready();
    // The last mark is written just after the socket opens.
    let marks = wait_for("the last mark", || {
        let text = runner.text("timeline");
        text.contains("listening").then(|| {
            let parse = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
            text.lines().map(parse).collect::<Vec<_>>()
        })
    });
    let names: Vec<&str> = marks.iter().map(|mark| mark["mark"].as_str().unwrap()).collect();
    let expected =
        ["interpreter", "unpickled", "imported", "setup_started", "setup_done", "listening"];
    assert_eq!(names, expected);
    let times: Vec<u64> = marks.iter().map(|mark| mark["at_us"].as_u64().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
}

#[tokio::test]
async fn a_failing_setup_ends_the_runner_with_its_reason() {
    let (_, launch) = prepared(&fixture("contract.py"), "FailingSetup").await;
    let mut runner = Runner::start_on_socket(&launch);
    assert_eq!(runner.wait_ended().code(), Some(SETUP_FAILED));
    let said = runner.text("stderr");
    assert!(said.contains("ValueError: no weights here"), "{said}");
    assert!(said.trim_end().ends_with("what it raised is printed above"), "{said}");
    assert!(!runner.socket().exists());
}

#[tokio::test]
async fn a_served_function_is_an_app() {
    let (app, launch) = prepared(&fixture("contract.py"), "twice").await;
    assert_eq!(app.name, "twice");
    let mut runner = Runner::start_on_socket(&launch);
    runner.wait_ready();
    let answer = runner.request("POST", "/?number=4", "");
    assert_eq!((answer.status, answer.body.as_str()), (200, "8"));
    assert_eq!(runner.terminate().code(), Some(0));
}

#[tokio::test]
async fn a_module_that_was_left_out_is_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("left_out.py"), "def f():\n    return {}\n").unwrap();
    let file = folder.path().join("app.py");
    let source = "import fal\nimport left_out\nclass A(fal.App):\n    INCLUDE\n    \
                  @fal.endpoint('/')\n    def f(self) -> dict: return left_out.f()\n";
    std::fs::write(&file, source.replace("INCLUDE", "")).unwrap();
    let (_, launch) = prepared(&file, "A").await;
    let mut runner = Runner::start_on_socket(&launch);
    assert_ne!(runner.wait_ended().code(), Some(0));
    let said = runner.text("stderr");
    assert!(said.contains("`left_out`") && said.contains("`local_python_modules`"), "{said}");

    let included = "local_python_modules = ['left_out']";
    std::fs::write(&file, source.replace("INCLUDE", included)).unwrap();
    let (_, launch) = prepared(&file, "A").await;
    let mut runner = Runner::start_on_socket(&launch);
    runner.wait_ready();
    assert_eq!(runner.request("POST", "/", "").status, 200);
}

#[tokio::test]
async fn files_and_projects_beside_the_app_come_along() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    std::fs::create_dir_all(folder.path().join("project/beside")).unwrap();
    let project = "[build-system]\nrequires = ['setuptools']\nbuild-backend = 'setuptools.build_meta'\n\
                   [project]\nname = 'beside-project'\nversion = '1'\n\
                   [tool.setuptools]\npackages = ['beside']\n";
    write("project/pyproject.toml", project);
    write("project/beside/__init__.py", "VALUE = 'installed'");
    write("data.txt", "copied");
    write(
        "app.py",
        "import fal\nclass A(fal.App):\n    requirements = ['./project']\n    \
         app_files = ['data.txt']\n    @fal.endpoint('/')\n    def f(self) -> dict:\n        \
         import beside\n        return {'file': open('data.txt').read(), 'project': beside.VALUE}\n",
    );
    let (app, launch) = prepared(&folder.path().join("app.py"), "A").await;
    assert_eq!(app.local_projects[0].name, "beside-project");
    drop(folder);
    let mut runner = Runner::start_on_socket(&launch);
    runner.wait_ready();
    let answer = runner.request("POST", "/", "").json();
    assert_eq!(answer, serde_json::json!({"file": "copied", "project": "installed"}));
}

#[tokio::test]
async fn the_ocr_example_reads_its_sample() {
    let file = support::example("ocr/app.py");
    let (_, launch) = prepared(&file, "Ocr").await;
    let mut runner = Runner::start_on_socket(&launch);
    runner.wait_ready();
    let sample = std::fs::read(file.with_file_name("sample.png")).unwrap();
    let encoded = base64(&sample);
    let body = format!(r#"{{"image": "data:image/png;base64,{encoded}"}}"#);
    let answer = runner.request("POST", "/", &body);
    assert_eq!(answer.status, 200, "{}", answer.body);
    let found = answer.json();
    let text = found["text"].as_str().unwrap();
    for words in ["Cold start: 42 seconds", "Warm start", "milliseconds", "Glowplug", "2026"] {
        assert!(text.contains(words), "{text}");
    }
    assert_eq!((found["width"].as_i64(), found["height"].as_i64()), (Some(640), Some(200)));
    assert_eq!(found["lines"][0]["box"].as_array().unwrap().len(), 4);
    let answer = runner.request("POST", "/", r#"{"image": "bm90IGFuIGltYWdl"}"#);
    assert_eq!(answer.status, 422, "{}", answer.body);
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0_u32, |bits, &byte| bits << 8 | u32::from(byte));
        let bits = bits << (8 * (3 - chunk.len()));
        for at in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * at)) as usize & 63];
            text.push(if at <= chunk.len() { letter.into() } else { '=' });
        }
    }
    text
}
