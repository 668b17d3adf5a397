//! A runner's program for tests: a small HTTP server that misbehaves as it is told.
//!
//! Words on the command line are done in order; `serve` and `hang` do not return:
//! `exit CODE`, `hang`, `serve`, `say TEXT`, `flood LINES`, `long-line BYTES`, `setup MILLISECONDS`,
//! `ignore-term`, `slow-stop MILLISECONDS`, `unhealthy ANSWERS`, `daemonise`, `allocate MIB`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::process::{Command, ExitCode, Stdio};
use std::str::FromStr;
use std::time::Duration;

/// The exit code after a request for `/crash`.
const CRASH_CODE: i32 = 3;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let mut unhealthy_answers = 0;
    while let Some(word) = words.next() {
        match word.as_str() {
            "exit" => return ExitCode::from(number::<u8>(words.next())),
            "hang" => hang(),
            "serve" => serve(unhealthy_answers),
            "say" => say(&words.next().unwrap_or_default()),
            "flood" => flood(number(words.next())),
            "long-line" => say(&"x".repeat(number(words.next()))),
            "setup" => std::thread::sleep(Duration::from_millis(number(words.next()))),
            "ignore-term" => ignore_term(),
            "slow-stop" => slow_stop(Duration::from_millis(number(words.next()))),
            "unhealthy" => unhealthy_answers = number(words.next()),
            "daemonise" => run_self(&["leave-daemon"], true),
            "leave-daemon" => return leave_daemon(),
            "daemon" => {
                // Fails only for the leader of a group, which this is not.
                let _ = rustix::process::setsid();
                ignore_term();
                hang();
            }
            "allocate" => allocate(number(words.next())),
            other => {
                say(&format!("no such word: {other}"));
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

fn number<T: FromStr + Default>(word: Option<String>) -> T {
    word.and_then(|word| word.parse().ok()).unwrap_or_default()
}

fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn flood(lines: u64) {
    let mut out = std::io::stdout().lock();
    for line in 0..lines {
        let _ = writeln!(out, "flood {line} {}", "y".repeat(200));
    }
}

fn hang() -> ! {
    loop {
        std::thread::park();
    }
}

/// Starts this program again; with `wait`, until that ends.
fn run_self(words: &[&str], wait: bool) {
    let Ok(program) = std::env::current_exe() else { return };
    #[expect(clippy::disallowed_methods, reason = "this test is about children that get lost")]
    let mut command = Command::new(program);
    let child = command.args(words).stdin(Stdio::null()).spawn();
    if let Ok(mut child) = child
        && wait
    {
        let _ = child.wait();
    }
}

/// The middle of a double fork: its child belongs to nobody once it has ended.
fn leave_daemon() -> ExitCode {
    run_self(&["daemon"], false);
    ExitCode::SUCCESS
}

fn ignore_term() {
    #[expect(unsafe_code, reason = "ignoring a signal has no safe interface here")]
    // SAFETY: no handler is installed, so there is no code that could run at a bad moment.
    unsafe {
        libc::signal(libc::SIGTERM, libc::SIG_IGN);
    }
}

/// Ends some time after SIGTERM, with code 0.
fn slow_stop(pause: Duration) {
    #[expect(unsafe_code, reason = "signal masks have no safe interface here")]
    // SAFETY: the set is initialised before use, and this runs before any other thread is started, so
    // all of them inherit the mask.
    let set = unsafe {
        let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGTERM);
        libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
        set.assume_init()
    };
    std::thread::spawn(move || {
        let mut signal = 0;
        #[expect(unsafe_code, reason = "waiting for a signal has no safe interface here")]
        // SAFETY: both pointers are to live values.
        unsafe {
            libc::sigwait(&raw const set, &raw mut signal);
        }
        std::thread::sleep(pause);
        exit(0);
    });
}

fn exit(code: i32) -> ! {
    #[expect(clippy::exit, reason = "ends the program from a thread of its own")]
    std::process::exit(code)
}

fn allocate(mebibytes: usize) {
    let mut memory = vec![0_u8; mebibytes << 20];
    for page in memory.chunks_mut(4096) {
        page[0] = 1;
    }
    std::hint::black_box(&memory);
}

fn serve(unhealthy_answers: u32) -> ! {
    let mut unhealthy = unhealthy_answers;
    if let Ok(path) = std::env::var("GLOWPLUG_SOCKET") {
        match UnixListener::bind(&path) {
            Ok(listener) => loop {
                if let Ok((stream, _)) = listener.accept() {
                    answer(&stream, &stream, &mut unhealthy);
                }
            },
            Err(error) => refuse(&path, &error),
        }
    }
    let port = number::<u16>(std::env::var("PORT").ok());
    match TcpListener::bind(("127.0.0.1", port)) {
        Ok(listener) => loop {
            if let Ok((stream, _)) = listener.accept() {
                answer(&stream, &stream, &mut unhealthy);
            }
        },
        Err(error) => refuse(&port.to_string(), &error),
    }
}

fn refuse(address: &str, error: &std::io::Error) -> ! {
    say(&format!("cannot listen on {address}: {error}"));
    exit(1)
}

/// Serves one request, one connection at a time, which is all the tests need.
fn answer(input: impl Read, mut output: impl Write, unhealthy: &mut u32) {
    let mut lines = BufReader::new(input).lines().map_while(Result::ok);
    let Some(request) = lines.next() else { return };
    for line in lines {
        if line.is_empty() {
            break;
        }
    }
    let path = request.split(' ').nth(1).unwrap_or("/");
    let (status, body) = match path {
        "/health" if *unhealthy > 0 => {
            *unhealthy -= 1;
            ("500 Internal Server Error", String::new())
        }
        "/crash" => exit(CRASH_CODE),
        "/say" => {
            say("said");
            ("200 OK", String::new())
        }
        "/env" => ("200 OK", environment()),
        "/status" => ("200 OK", std::fs::read_to_string("/proc/self/status").unwrap_or_default()),
        "/limits" => ("200 OK", std::fs::read_to_string("/proc/self/limits").unwrap_or_default()),
        _ => ("200 OK", format!("{{\"path\":\"{path}\"}}")),
    };
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    // A client that has gone is no concern of a test program.
    let _ = output.write_all(head.as_bytes()).and_then(|()| output.write_all(body.as_bytes()));
}

fn environment() -> String {
    let lines: Vec<String> =
        std::env::vars().map(|(name, value)| format!("{name}={value}")).collect();
    lines.join("\n")
}
