//! A filler on its own, for tests; users run `glowplug`, which is one by its first argument.

use std::process::ExitCode;

fn main() -> ExitCode {
    glowplug_image::lazy::filler::main()
}
