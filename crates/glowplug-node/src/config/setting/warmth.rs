//! The settings of `[node.warmth]`, and those of an app that keep it warm.

use super::Fallback::{Otherwise, Value};
use super::{Setting, setting};
use crate::config::value::Kind;

pub(super) const NODE: &[Setting] = &[
    setting(
        "zygote_memory_max",
        Kind::Bytes,
        Value("2GiB"),
        "What zygotes may take of the memory together. Beyond it the one that was used longest ago goes. 0: \
         there are none.",
    ),
    setting(
        "snapshot_bytes_max",
        Kind::Bytes,
        Value("20GiB"),
        "What snapshots may take of the disk together. Beyond it the one that was used longest ago goes. 0: \
         none is taken.",
    ),
    setting(
        "frozen_memory_max",
        Kind::Bytes,
        Value("4GiB"),
        "What frozen runners may take of the memory together. Beyond it the one that was used longest ago \
         ends. 0: none is frozen.",
    ),
    setting(
        "criu",
        Kind::Path,
        Otherwise("`criu`, where PATH has it"),
        "The program that takes and restores snapshots.",
    ),
];

/// Beside `super::app::APP`, behind its other settings.
pub(super) const ZYGOTE: Setting = setting(
    "zygote",
    Kind::Names,
    Value("auto"),
    "Whether runners of a Python app are forked from a process that has imported its modules: `auto`, with \
     those that its first start imports, `off`, or a list of modules.",
);

pub(super) const ZYGOTE_COMMAND: Setting = setting(
    "zygote_command",
    Kind::Argv,
    Otherwise("none"),
    "For a `command`: a program that forks its runners when it is asked to, as docs/reference/zygote.md says.",
);

pub(super) const SNAPSHOT: Setting = setting(
    "snapshot",
    Kind::Choice(&["auto", "off", "required"]),
    Value("auto"),
    "Whether runners are restored from the memory of one that was set up: `auto`, where the host can and a \
     trial went well, `off`, or `required`, which makes the app's status say why it is not so.",
);

pub(super) const FREEZE: Setting = setting(
    "freeze",
    Kind::Choice(&["auto", "off"]),
    Value("off"),
    "Whether a runner whose `keep_alive` is over is frozen instead of ended. It keeps its memory, which is why \
     it must be asked for, gets no processor, and answers a request within milliseconds. Runners with GPUs \
     are never frozen.",
);

pub(super) const FROZEN_FOR: Setting = setting(
    "frozen_for",
    Kind::Duration,
    Value("1h"),
    "How long a frozen runner is kept that nothing asks for.",
);
