//! `serve` and `run`: real nodes with real runners, and the mistakes that are found before there are any.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use insta::assert_snapshot;
use serde_json::Value;

use super::binary::Scene;

/// For a cold start on a machine that is busy with other tests.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

#[test]
fn run_needs_one_thing_that_exists() {
    let scene = Scene::new().file("hello.py", "class Hello: ...");
    let check = |name: &str, arguments: &[&str]| {
        assert_snapshot!(name, scene.transcript(arguments));
    };
    check("run_nothing", &["run"]);
    check("run_two_things", &["run", "hello.py", "--", "server"]);
    check("run_missing_file", &["run", "helo.py::Hello"]);
    check("run_not_python", &["run", "hello.txt"]);
    check(
        "run_impossible",
        &["run", "hello.py", "--min-concurrency", "5", "--max-concurrency", "2"],
    );
    check("run_unknown_machine", &["run", "hello.py", "--machine-type", "XXS"]);
    check("run_bad_name", &["run", "hello.py", "--name", "a b"]);
    check("run_no_name", &["run", "--", "./_"]);
    check("run_bad_variable", &["run", "hello.py", "--env", "TOKEN"]);
}

#[test]
fn serve_refuses_a_config_with_mistakes() {
    let scene = Scene::new().file("glowplug.toml", "[apps.hello]\napp = 'missing.py::X'\n");
    assert_snapshot!("serve_missing_file", scene.transcript(&["serve"]));
    assert_snapshot!("serve_bad_listen", scene.transcript(&["serve", "--listen", "here"]));
}

#[test]
fn help_of_serve_and_run_is_as_promised() {
    let scene = Scene::new();
    assert_snapshot!("help_serve", scene.transcript(&["serve", "--help"]));
    assert_snapshot!("help_run", scene.transcript(&["run", "--help"]));
}

/// An HTTP server as small as they get; `listening` is the last thing it prints before it answers.
const SERVER: &str = r#"
import http.server, os

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"hello from " + self.path.encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

server = http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler)
print("listening", flush=True)
server.serve_forever()
"#;

#[test]
fn run_serves_a_command_and_shows_each_start_and_end() {
    let scene = Scene::new().with_path().file("server.py", SERVER);
    let mut running = scene.start(&[
        "run",
        "--json",
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        "data",
        "--name",
        "hello",
        "--keep-alive",
        "0.2",
        "--",
        "python3",
        "server.py",
    ]);
    let serving = running.event("serving");
    assert_eq!(serving["app"], "local/hello");
    let answer = get(&format!("{}/a/path", serving["run"].as_str().unwrap()));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.ends_with("hello from /a/path"), "{answer}");

    let ready = running.event("ready");
    let phases = ready["runner"]["phases"].as_array().unwrap();
    let names: Vec<&str> = phases.iter().map(|phase| phase["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"pending") && names.contains(&"setup"), "{names:?}");
    let ended = running.event("ended");
    assert_eq!(
        ended["runner"]["id"], ready["runner"]["id"],
        "it is idle for longer than keep_alive"
    );
    running.interrupt();
    assert_eq!(running.exit_code(), Some(0));
}

#[test]
fn serve_can_be_asked_and_stopped() {
    let scene = Scene::new().with_path().file("server.py", SERVER).file(
        "glowplug.toml",
        "[node]\nlisten = '127.0.0.1:0'\n[apps.hello]\ncommand = 'python3 server.py'\n",
    );
    let mut running = scene.start(&["serve", "--json"]);
    let url = running.event("serving")["url"].as_str().unwrap().to_owned();
    let ask = |arguments: &[&str]| {
        let output = scene.run(&[arguments, &["--server", &url]].concat());
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(ask(&["apps", "list"]).contains("local/hello"));
    assert!(get(&format!("{url}/run/local/hello/x")).ends_with("hello from /x"));
    let runners = ask(&["runners", "list", "--json"]);
    let runners: Vec<Value> = serde_json::from_str(&runners).unwrap();
    let id = runners[0]["id"].as_str().unwrap();
    assert!(ask(&["runners", "show", id]).contains("from the decision to ready"));
    assert!(ask(&["runners", "logs", id]).contains("listening"));
    assert!(ask(&["why", id]).contains(id));
    assert!(ask(&["apps", "scale", "hello", "--max-concurrency", "3"]).contains("max_concurrency"));
    assert!(ask(&["queue", "size", "hello"]).contains("0 waiting"));

    // A second node would work on the same data.
    let second = scene.run(&["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(second.status.code(), Some(2));
    assert!(String::from_utf8(second.stderr).unwrap().contains("another node uses"));
    running.interrupt();
    assert_eq!(running.exit_code(), Some(0));
}

#[test]
fn what_keeps_a_node_from_starting_is_said() {
    let scene = Scene::new();
    let check = |arguments: &[&str], expected: &str| {
        let output = scene.run(arguments);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains(expected), "{arguments:?}: {stderr}");
    };
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    check(&["serve", "--data-dir", "a", "--listen", &address], &address);
    check(&["serve", "--data-dir", "b", "--listen", "0.0.0.0:0"], "glowplug keys create");

    let data_dir = scene.path().join("c");
    fs::create_dir(&data_dir).unwrap();
    fs::write(data_dir.join("glowplug.db"), "this is no database at all".repeat(100)).unwrap();
    check(&["serve", "--data-dir", "c", "--listen", "127.0.0.1:0"], "glowplug.db");
    let kept = fs::read_to_string(data_dir.join("glowplug.db")).unwrap();
    assert!(kept.starts_with("this is no database"), "nothing is lost");
}

/// The answer to a GET, head and body, as it came.
fn get(url: &str) -> String {
    let (address, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(ANSWER_TIMEOUT)).unwrap();
    write!(stream, "GET /{path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
