//! Whatever instant kills the process that converts, there is nothing under the new name, or the whole image.
//!
//! How a test kills a process is told in `support/killed.rs`.

#![allow(clippy::unwrap_used, reason = "a failed step of a test is a panic")]

mod support;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use glowplug_image::Store;
use glowplug_image::convert::{self, layout, push};
use glowplug_image::pull::ProgressSender;
use glowplug_image::source::archive::Archive;
use glowplug_image::source::credentials::Credentials;
use glowplug_image::source::{Compression, Source, registry};
use glowplug_image::store::{Reader, Repair};
use glowplug_testkit::{Access, OwnRegistry};

use self::support::faulty::{Faulty, Manners};
use self::support::images::{image, layer, noise};
use self::support::killed::{Killed, say, some_line};
use self::support::{puller, source};

const KILLED: Killed =
    Killed { name: "a_killed_conversion_leaves_nothing_or_the_whole", mode: "convert" };
const DEATHS: u64 = 16;
const LAYERS: u64 = 5;
const LARGE: usize = 2_500_000;
/// One for each layer, and one for each MiB of each layer and one for the end of each where it is pushed; what an archive
/// takes is between the last two.
const LINES_MAX: u64 = LAYERS + 2;
const PUSH_LINES_MAX: u64 = LAYERS * 5 + 1;
const LEVEL: i32 = 1;

fn main() {
    KILLED.main(convert_and_say, kill_and_look());
}

async fn convert_and_say(arguments: &[String]) {
    let [folder, image, target] = arguments else { panic!("{arguments:?}") };
    let folder = Path::new(folder);
    let reader = Reader::open(&folder.join("store")).unwrap();
    let image = reader.image(&image.parse().unwrap()).unwrap().unwrap();
    let json = fs::read(folder.join("config.json")).unwrap();
    let out = folder.join("out");
    let tell = &mut |bytes| say(&format!("compressed {bytes}"));
    let mut converted = convert::convert(&reader, &image, &json, LEVEL, &out, tell).unwrap();
    if target == "archive" {
        say("converted");
        layout::write_file(&mut converted, &out.join("a.tar"), "1").unwrap();
    } else {
        let tell = Arc::new(|bytes| say(&format!("pushed {bytes}")));
        let (to, options) = (target.parse().unwrap(), registry::Options::default());
        push::push(converted, &to, Credentials::Anonymous, &options, tell).await.unwrap();
    }
    say("done");
}

async fn kill_and_look() {
    let layers = (0..LAYERS)
        .map(|number| layer(Compression::Gzip, &[(&number.to_string(), &noise(number, LARGE))]));
    let packed = image(layers.collect());
    let server = Faulty::start(&[("1", &packed)], Manners::default()).await;
    let folder = tempfile::tempdir().unwrap();
    let digest = {
        let store = Store::open(&folder.path().join("store")).unwrap();
        let origin = source(&server.name("1"), Credentials::Anonymous);
        puller(&store).pull(&origin, &ProgressSender::none()).await.unwrap().digest
    };
    fs::write(folder.path().join("config.json"), &packed.config.bytes).unwrap();
    fs::create_dir(folder.path().join("out")).unwrap();
    let arguments = |target: &str| {
        [folder.path().to_str().unwrap().to_owned(), digest.to_string(), target.to_owned()]
    };
    let registry = OwnRegistry::start(Access::Everybody);
    let (mut deaths, mut whole) = (0, 0);
    for seed in 1..=DEATHS {
        let target = match &registry {
            Some(registry) if seed % 2 == 0 => format!("{}/converted:{seed}", registry.address()),
            _ => "archive".to_owned(),
        };
        let lines_max = if target == "archive" { LINES_MAX } else { LINES_MAX + PUSH_LINES_MAX };
        let line = some_line(seed, lines_max);
        let arguments = arguments(&target);
        let killed = tokio::task::spawn_blocking(move || KILLED.after(&arguments, line));
        deaths += u64::from(killed.await.unwrap());
        whole += u64::from(is_whole(folder.path(), &target).await);
    }
    assert!(deaths > DEATHS / 2, "only {deaths} were killed half-way");
    assert!(whole < DEATHS, "all of them were done");
    // The next one goes well, whatever the last one left.
    let last = arguments("archive");
    let again = move || KILLED.after(&last, u64::MAX);
    assert!(!tokio::task::spawn_blocking(again).await.unwrap());
    assert!(is_whole(folder.path(), "archive").await);
}

/// `false`: there is nothing under the name. Half an image fails.
async fn is_whole(folder: &Path, target: &str) -> bool {
    let found = if target == "archive" {
        let out = folder.join("out");
        let mut left: Vec<_> =
            fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        // It has a passing name for the moment in which it takes another's place.
        left.retain(|name| !name.to_string_lossy().starts_with(".glowplug-"));
        if left.is_empty() {
            return false;
        }
        assert_eq!(left, ["a.tar"]);
        let path = out.join("a.tar");
        Arc::new(Archive::open(&path, None, folder, 1 << 30).unwrap()) as Arc<dyn Source>
    } else {
        source(target, Credentials::Anonymous)
    };
    if matches!(found.resolve().await, Err(glowplug_image::source::Error::NotFound { .. })) {
        return false;
    }
    let other = tempfile::tempdir().unwrap();
    let store = Store::open(other.path()).unwrap();
    let pulled = puller(&store).pull(&found, &ProgressSender::none()).await.unwrap();
    assert_eq!(pulled.layers.len() as u64, LAYERS);
    assert_eq!(pulled.bytes, LAYERS * LARGE as u64);
    assert!(store.check(Repair::No).unwrap().is_clean());
    if target == "archive" {
        fs::remove_file(folder.join("out/a.tar")).unwrap();
    }
    true
}
