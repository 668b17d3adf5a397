//! Every setting there is, in one table: its key, kind, default and meaning.
//!
//! Reading the config, `glowplug config show` and the reference page all follow this table, so a setting
//! that is not in it does not exist.

mod app;
mod node;
mod warmth;

use super::value::Kind;

/// A table of the config file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Section {
    Node,
    Resources,
    Contention,
    Recorder,
    Limits,
    Queue,
    Store,
    Webhooks,
    Files,
    Images,
    Realtime,
    Warmth,
    MachineType,
    App,
}

impl Section {
    pub(super) const ALL: [Self; 14] = [
        Self::Node,
        Self::Resources,
        Self::Contention,
        Self::Recorder,
        Self::Limits,
        Self::Queue,
        Self::Store,
        Self::Webhooks,
        Self::Files,
        Self::Images,
        Self::Realtime,
        Self::Warmth,
        Self::MachineType,
        Self::App,
    ];

    /// Its dotted path; `NAME` stands for a name of the user's.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Resources => "node.resources",
            Self::Contention => "node.contention",
            Self::Recorder => "node.recorder",
            Self::Limits => "node.limits",
            Self::Queue => "node.queue",
            Self::Store => "node.store",
            Self::Webhooks => "node.webhooks",
            Self::Files => "node.files",
            Self::Images => "node.images",
            Self::Realtime => "node.realtime",
            Self::Warmth => "node.warmth",
            Self::MachineType => "machine_types.NAME",
            Self::App => "apps.NAME",
        }
    }

    pub(super) fn settings(self) -> &'static [Setting] {
        match self {
            Self::Node => node::NODE,
            Self::Resources => node::RESOURCES,
            Self::Contention => node::CONTENTION,
            Self::Recorder => node::RECORDER,
            Self::Limits => node::LIMITS,
            Self::Queue => node::QUEUE,
            Self::Store => node::STORE,
            Self::Webhooks => node::WEBHOOKS,
            Self::Files => node::FILES,
            Self::Images => node::IMAGES,
            Self::Realtime => node::REALTIME,
            Self::Warmth => warmth::NODE,
            Self::MachineType => app::MACHINE_TYPE,
            Self::App => app::APP,
        }
    }

    /// Tables that may stand in this one.
    pub(super) fn subsections(self) -> &'static [(&'static str, Self)] {
        match self {
            Self::Node => &[
                ("resources", Self::Resources),
                ("contention", Self::Contention),
                ("recorder", Self::Recorder),
                ("limits", Self::Limits),
                ("queue", Self::Queue),
                ("store", Self::Store),
                ("webhooks", Self::Webhooks),
                ("files", Self::Files),
                ("images", Self::Images),
                ("realtime", Self::Realtime),
                ("warmth", Self::Warmth),
            ],
            _ => &[],
        }
    }

    pub(super) fn doc(self) -> &'static str {
        match self {
            Self::Node => "The node itself.",
            Self::Resources => "What apps may use of this machine.",
            Self::Contention => "What happens when more apps are wanted than fit.",
            Self::Recorder => {
                "What the node writes down of its traffic, for `glowplug trace` and `glowplug plan`: when \
                 requests came, how long they waited and were worked on, how starts went. Nothing of what \
                 requests hold or who sent them."
            }
            Self::Limits => "Bounds that keep one caller or one app from taking the node down.",
            Self::Queue => {
                "The durable queue: how much is kept of what is complete, and where. Whatever goes beyond \
                 one of the three limits of retention goes, however the others stand."
            }
            Self::Store => "Where the queue, the settings and the keys are kept.",
            Self::Webhooks => "How callers are told that their queued requests are complete.",
            Self::Files => "Files that callers upload, kept below `files` in the data directory.",
            Self::Images => {
                "Container images, kept below `images` in the data directory, or in the cache directory where one \
                 is named."
            }
            Self::Realtime => "Websockets of callers: of `/realtime`, of apps' own, and of `/ws`.",
            Self::Warmth => {
                "What may be kept so that the next start of an app is quick, and how much of it."
            }
            Self::MachineType => {
                "A named bundle of resources for one runner. A name that is built in keeps its \
                 built-in amounts where this table says nothing."
            }
            Self::App => {
                "One app. NAME is `app` or `owner/app`, the owner being `local` if it is left out, \
                 and may end in `--ENVIRONMENT`; quote names with a slash. Exactly one of `app` and \
                 `command` says what runs."
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Fallback {
    /// Used when nothing else is set; written as in the environment.
    Value(&'static str),
    /// No fixed value: what happens instead.
    Otherwise(&'static str),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Setting {
    pub(super) key: &'static str,
    pub(super) kind: Kind,
    pub(super) fallback: Fallback,
    /// A short environment variable beside the long one that each setting of the node has.
    pub(super) short_env: Option<&'static str>,
    pub(super) doc: &'static str,
}

const fn setting(key: &'static str, kind: Kind, fallback: Fallback, doc: &'static str) -> Setting {
    Setting { key, kind, fallback, short_env: None, doc }
}

impl Setting {
    const fn short_env(mut self, name: &'static str) -> Self {
        self.short_env = Some(name);
        self
    }
}

pub(super) const LOG_LEVELS: &[&str] = &["error", "warn", "info", "debug", "trace"];
