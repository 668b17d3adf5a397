//! Warm requests through a node, beside nginx's `proxy_pass` to the very same upstream.
//!
//! The upstream is an app of the node: an nginx with a fixed answer, of which one runner always lives. The
//! peer is another nginx that forwards to that runner's port. `wrk` sends the load to each in turn.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::peer::Peer;
use super::start_overhead::free_port;
use super::wrk::Wrk;
use super::{Better, Case, Measured, fresh_folder, median};
use crate::command::{Program, Running};
use crate::node::Node;
use crate::stopwatch;

pub(super) const NAME: &str = "warm-path";
const CONNECTIONS: u32 = 64;
const LOAD_SECONDS: u32 = 5;
const WARM_UP_SECONDS: u32 = 2;
const START_TIMEOUT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);
const REQUESTS_GOAL: f64 = 0.9;
/// A p99 of at most 1.25 times the peer's.
const P99_GOAL: f64 = 0.8;
const CPU_GOAL: f64 = 0.9;

#[derive(Debug)]
struct Tools {
    nginx: Peer,
    wrk: Wrk,
}

/// Who answers at a URL.
#[derive(Debug)]
struct Server {
    url: String,
    pid: u32,
    /// Whether its children work for it; a node's children are its runners.
    with_children: bool,
}

/// What one run of wrk saw, and what it cost the process in between.
#[derive(Clone, Copy, Debug)]
struct Load {
    requests_per_second: f64,
    p99_millis: f64,
    cpu_micros_per_request: f64,
}

pub(super) fn measure(program: &Path, rounds: usize) -> Result<Measured> {
    let tools = Tools::find()?;
    let folder = fresh_folder(NAME)?;
    let node = Node::start(program, &folder, &tools.node_config(&folder)?)?;
    let upstream_port = upstream_port(&node, &folder)?;
    let (peer, peer_port) = tools.start_peer(&folder, upstream_port)?;
    let url = format!("{}/run/local/upstream/", node.url);
    let ours = Server { url, pid: node.pid(), with_children: false };
    let url = format!("http://127.0.0.1:{peer_port}/");
    let theirs = Server { url, pid: peer.pid(), with_children: true };
    for server in [&ours, &theirs] {
        tools.load(server, WARM_UP_SECONDS)?;
    }
    let (mut our_loads, mut their_loads) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        // Who is first changes, so that neither has the warmer machine.
        let mut both = [(&ours, &mut our_loads), (&theirs, &mut their_loads)];
        if round % 2 == 0 {
            both.reverse();
        }
        for (server, loads) in both {
            loads.push(tools.load(server, LOAD_SECONDS)?);
        }
        let last = |loads: &[Load]| loads.last().map(Load::to_string).unwrap_or_default();
        eprintln!("round {round}: glowplug {}", last(&our_loads));
        eprintln!("         nginx    {}", last(&their_loads));
    }
    let version = tools.version()?;
    Ok(report(&our_loads, &their_loads, version))
}

fn report(ours: &[Load], theirs: &[Load], version: String) -> Measured {
    type Column = (&'static str, &'static str, Better, f64, fn(&Load) -> f64);
    let columns: [Column; 3] = [
        ("requests per second", "1/s", Better::Higher, REQUESTS_GOAL, |l| l.requests_per_second),
        ("latency p99", "ms", Better::Lower, P99_GOAL, |load| load.p99_millis),
        ("CPU per request", "µs", Better::Lower, CPU_GOAL, |load| load.cpu_micros_per_request),
    ];
    let (mut cases, mut rounds) = (Vec::new(), Vec::new());
    for (case, unit, better, goal, of) in columns {
        let (our_values, their_values): (Vec<f64>, Vec<f64>) =
            (ours.iter().map(of).collect(), theirs.iter().map(of).collect());
        let peer = ("nginx proxy_pass", median(&their_values));
        cases.push(Case::new((NAME, case), median(&our_values), peer, unit, better, goal));
        rounds.push((format!("glowplug, {case} ({unit})"), our_values));
        rounds.push((format!("nginx, {case} ({unit})"), their_values));
    }
    Measured { cases, rounds, versions: vec![("nginx".into(), version)] }
}

impl std::fmt::Display for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { requests_per_second, p99_millis, cpu_micros_per_request } = self;
        write!(f, "{requests_per_second:>9.0} requests/s, p99 {p99_millis:.2} ms, ")?;
        write!(f, "{cpu_micros_per_request:.1} µs CPU each")
    }
}

impl Tools {
    fn find() -> Result<Self> {
        let nginx = Peer::find("nginx", "nginx", "usr/sbin/nginx")?;
        Ok(Self { nginx, wrk: Wrk::find()? })
    }

    fn version(&self) -> Result<String> {
        // nginx tells its version on standard error.
        let shell = self.nginx.with_libraries(Program::new("sh")).args(["-c", "\"$0\" -v 2>&1"]);
        Ok(shell.arg(&self.nginx.path).capture()?.trim().replace("nginx version: ", ""))
    }

    /// A node whose only app is the upstream.
    fn node_config(&self, folder: &Path) -> Result<String> {
        let home = folder.join("upstream");
        let server = "location / { default_type text/plain; return 200 \"ok\\n\"; }";
        fs::create_dir_all(&home).with_context(|| format!("cannot create {}", home.display()))?;
        let template = nginx_config(&home, 1, "", "@PORT@", server);
        fs::write(home.join("template.conf"), template)
            .with_context(|| format!("cannot write below {}", home.display()))?;
        // The port is only known when the runner starts, and nginx reads no environment.
        let nginx = self.nginx.path.display();
        let start = format!(
            "sed s/@PORT@/$PORT/ template.conf > nginx.conf && echo $PORT > port.new && \
             mv port.new port && exec '{nginx}' -e error.log -p . -c nginx.conf"
        );
        let text = |text: &str| serde_json::to_string(text).context("cannot write a setting");
        let home = text(&home.display().to_string())?;
        let env = match &self.nginx.libraries {
            Some(libraries) => format!("env = {{ LD_LIBRARY_PATH = {} }}\n", text(libraries)?),
            None => String::new(),
        };
        Ok(format!(
            "[node]\nlog_level = \"warn\"\nadopt_timeout = \"5s\"\n\n[apps.upstream]\n\
             command = [\"sh\", \"-c\", {}]\ncwd = {home}\n{env}\
             min_concurrency = 1\nmax_concurrency = 1\nmax_multiplexing = 1000\n",
            text(&start)?
        ))
    }

    fn start_peer(&self, folder: &Path, upstream_port: u16) -> Result<(Running, u16)> {
        let home = folder.join("peer");
        fs::create_dir_all(&home).with_context(|| format!("cannot create {}", home.display()))?;
        let upstream = format!(
            "upstream runner {{ server 127.0.0.1:{upstream_port}; keepalive 128; \
             keepalive_requests 1000000000; }}"
        );
        let server = "location / { proxy_pass http://runner; proxy_http_version 1.1; \
                      proxy_set_header Connection \"\"; }";
        let port = free_port()?;
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let config = nginx_config(&home, workers, &upstream, &port.to_string(), server);
        fs::write(home.join("nginx.conf"), config)
            .with_context(|| format!("cannot write below {}", home.display()))?;
        let nginx = self.nginx.program().args(["-e", "error.log", "-p", ".", "-c"]);
        let running = nginx.arg("nginx.conf").dir(&home).spawn(&home.join("output.log"))?;
        wait_until_accepts(port)?;
        running.check()?;
        Ok((running, port))
    }

    /// Sends load for some seconds.
    fn load(&self, server: &Server, seconds: u32) -> Result<Load> {
        let before = cpu_micros(server.pid, server.with_children)?;
        let seen = self.wrk.load(&server.url, CONNECTIONS, seconds, None)?;
        let cpu_micros = cpu_micros(server.pid, server.with_children)? - before;
        Ok(Load {
            requests_per_second: seen.requests_per_second,
            p99_millis: seen.p99_millis,
            cpu_micros_per_request: cpu_micros / seen.requests,
        })
    }
}

fn nginx_config(home: &Path, workers: usize, http: &str, port: &str, server: &str) -> String {
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("  {kind}_temp_path {kind};\n"))
        .concat();
    format!(
        "daemon off;\nworker_processes {workers};\npid {home}/nginx.pid;\n\
         events {{ worker_connections 4096; }}\nhttp {{\n  access_log off;\n{temporary}  {http}\n  \
         server {{\n    listen 127.0.0.1:{port};\n    keepalive_requests 1000000000;\n    {server}\n  \
         }}\n}}\n",
        home = home.display(),
    )
}

/// The port of the one runner of the upstream.
fn upstream_port(node: &Node, folder: &Path) -> Result<u16> {
    let file = folder.join("upstream/port");
    let text = stopwatch::wait_for(START_TIMEOUT, PAUSE, || {
        node.check()?;
        Ok(fs::read_to_string(&file).ok())
    })?;
    let text = text.context("the upstream was not started")?;
    let port = text.trim().parse().context("the upstream was given no port")?;
    wait_until_accepts(port)?;
    Ok(port)
}

fn wait_until_accepts(port: u16) -> Result<()> {
    let accepts = || Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok().map(drop));
    stopwatch::wait_for(START_TIMEOUT, PAUSE, accepts)?
        .with_context(|| format!("nothing listens on port {port}"))
}

/// CPU time of a process and of its children: nginx works in children, a node in threads.
fn cpu_micros(pid: u32, with_children: bool) -> Result<f64> {
    let mut micros = 0.0;
    let tasks = format!("/proc/{pid}/task");
    for task in fs::read_dir(&tasks).with_context(|| format!("cannot list {tasks}"))? {
        let task = task.with_context(|| format!("cannot list {tasks}"))?.path();
        // A thread may end while it is looked at.
        let read = |name| fs::read_to_string(task.join(name)).unwrap_or_default();
        let nanos = read("schedstat").split(' ').next().and_then(|text| text.parse::<f64>().ok());
        micros += nanos.unwrap_or(0.0) / 1e3;
        for child in read("children").split_whitespace().filter(|_| with_children) {
            let child = child.parse().context("the kernel listed something that is no process")?;
            micros += cpu_micros(child, false)?;
        }
    }
    Ok(micros)
}
