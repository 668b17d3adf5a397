//! Pulls from a registry: the real one, from Debian's `docker-registry`, and ones that misbehave.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its scene must fail")]

mod registry;

use std::sync::Arc;

use glowplug_image::pull::{self, Options, ProgressSender, Puller};
use glowplug_image::source::Source;
use glowplug_image::{Store, source};

use self::registry::{Faulty, Image, Registry};
