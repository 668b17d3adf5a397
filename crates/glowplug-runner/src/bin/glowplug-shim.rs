//! The shim as a program of its own, for tests. In the product the main binary runs it.

use std::process::ExitCode;

fn main() -> ExitCode {
    glowplug_runner::shim::main(std::env::args_os().skip(1))
}
