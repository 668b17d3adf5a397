//! Pulls from the registry that most people run.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its scene must fail")]

mod support;

use glowplug_image::Store;
use glowplug_image::pull::{self, ProgressSender};
use glowplug_image::source::credentials::Credentials;
use glowplug_image::source::{self, Compression};
use glowplug_testkit::{Access, OwnRegistry};
use oci_client::secrets::RegistryAuth;

use self::support::images::{Files, Pusher, expected, image, index, layer, noise};
use self::support::root::{files, is_root};
use self::support::{pull, puller, source};

const ALL: [Compression; 3] = [Compression::Gzip, Compression::Zstd, Compression::None];

struct Scene {
    registry: OwnRegistry,
    pusher: Pusher,
    folder: tempfile::TempDir,
    store: Store,
}

impl Scene {
    fn new() -> Option<Self> {
        let registry = OwnRegistry::start(Access::Everybody)?;
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        Some(Self { registry, pusher: Pusher::new(RegistryAuth::Anonymous), folder, store })
    }

    fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.registry.address())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn images_of_all_compressions_read_as_they_were_packed() {
    let Some(scene) = Scene::new() else { return };
    let large = noise(1, 3 << 20);
    let lower: &Files<'_> =
        &[("etc/", b""), ("etc/a", b"lower"), ("gone", b"x"), ("model", &large)];
    let upper: &Files<'_> = &[("etc/a", b"upper"), (".wh.gone", b""), ("copy", &large)];
    for compression in ALL {
        let name = scene.name(&format!("team/app:{compression:?}").to_lowercase());
        let packed = image(vec![layer(compression, lower), layer(compression, upper)]);
        scene.pusher.push(&name, &packed).await;
        let pulled = pull(&puller(&scene.store), &name).await.unwrap();
        assert_eq!(pulled.digest, packed.manifest.digest);
        assert_eq!(
            (pulled.config.argv(), pulled.config.env.len()),
            (vec!["/bin/app".to_owned()], 1)
        );
        let sizes = packed.layers.iter().map(|layer| layer.size as u64);
        assert_eq!(pulled.compressed_bytes, sizes.sum::<u64>());
        if is_root() {
            let wanted: &Files<'_> = &[("etc/a", b"upper"), ("model", &large), ("copy", &large)];
            assert_eq!(files(&scene.store, &pulled), expected(wanted), "{compression:?}");
            scene.store.remove_image(&pulled.digest).unwrap();
        }
    }
    assert_eq!(scene.store.contents().list().unwrap().len(), 1, "equal contents are kept once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_pull_brings_nothing() {
    let Some(scene) = Scene::new() else { return };
    let name = scene.name("app:1");
    scene.pusher.push(&name, &image(vec![layer(Compression::Gzip, &[("a", b"x")])])).await;
    let puller = puller(&scene.store);
    let first = pull(&puller, &name).await.unwrap();
    let (progress, seen) = ProgressSender::channel();
    let again = puller.pull(&source(&name, Credentials::Anonymous), &progress).await.unwrap();
    assert_eq!(again, first);
    let seen = *seen.borrow();
    assert_eq!((seen.bytes, seen.total_bytes, seen.is_done), (0, 0, true));
    assert_eq!(scene.store.images().unwrap(), [first]);
}

#[tokio::test(flavor = "multi_thread")]
async fn images_share_their_layers() {
    let Some(scene) = Scene::new() else { return };
    let base = layer(Compression::Gzip, &[("base", &noise(1, 100_000))]);
    let puller = puller(&scene.store);
    let mut known = Vec::new();
    for app in ["one", "two"] {
        let top = layer(Compression::Gzip, &[("app", app.as_bytes())]);
        let name = scene.name(&format!("{app}:1"));
        scene.pusher.push(&name, &image(vec![base.clone(), top])).await;
        let (progress, seen) = ProgressSender::channel();
        let image = puller.pull(&source(&name, Credentials::Anonymous), &progress).await.unwrap();
        let seen = *seen.borrow();
        assert_eq!((seen.layers, seen.total_layers), (2, 2));
        assert_eq!(
            (seen.bytes, seen.total_bytes),
            (image.compressed_bytes, image.compressed_bytes)
        );
        known.push(seen.known_bytes);
        if is_root() {
            let app = ("app", app.as_bytes());
            let wanted: &Files<'_> = &[("base", &noise(1, 100_000)), app];
            assert_eq!(files(&scene.store, &image), expected(wanted));
        }
    }
    assert_eq!(known, [0, base.size as u64]);
    assert_eq!(std::fs::read_dir(scene.folder.path().join("layers")).unwrap().count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_platforms_this_one_is_pulled() {
    let Some(scene) = Scene::new() else { return };
    let here = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    let [one, other] = ["here", "elsewhere"]
        .map(|place| image(vec![layer(Compression::Gzip, &[("place", place.as_bytes())])]));
    for (tag, image) in [("one", &one), ("other", &other)] {
        scene.pusher.push(&scene.name(&format!("app:{tag}")), image).await;
    }
    let everywhere = index(&[("s390x", &other), (here, &one)]);
    scene.pusher.push_manifest(&scene.name("app:everywhere"), &everywhere).await;
    let abroad = index(&[("s390x", &other), ("ppc64le", &one)]);
    scene.pusher.push_manifest(&scene.name("app:abroad"), &abroad).await;

    let puller = puller(&scene.store);
    let pulled = pull(&puller, &scene.name("app:everywhere")).await.unwrap();
    assert_eq!(pulled.digest, one.manifest.digest);
    let by_digest = scene.name(&format!("app@{}", everywhere.digest));
    assert_eq!(pull(&puller, &by_digest).await.unwrap(), pulled);
    let error = pull(&puller, &scene.name("app:abroad")).await.unwrap_err();
    let pull::Error::Source(source::Error::NoPlatform { available, .. }) = &error else {
        panic!("{error:?}")
    };
    assert_eq!(available, "linux/s390x, linux/ppc64le");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_not_found_at_once() {
    let Some(scene) = Scene::new() else { return };
    let name = scene.name("app:1");
    scene.pusher.push(&name, &image(vec![layer(Compression::Gzip, &[("a", b"x")])])).await;
    let absent = format!("app@sha256:{}", "0".repeat(64));
    for name in ["app:2", "unknown:1", &absent].map(|name| scene.name(name)) {
        let error = pull(&puller(&scene.store), &name).await.unwrap_err();
        let text = error.to_string();
        assert!(
            matches!(error, pull::Error::Source(source::Error::NotFound { .. })),
            "{name}: {error:?}"
        );
        assert!(text.starts_with(&format!("{name} does not exist")), "{text}");
    }
    assert_eq!(scene.store.images().unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_may_gets_in() {
    let Some(registry) = OwnRegistry::start(Access::OneUser) else { return };
    let name = format!("{}/app:1", registry.address());
    let (user, password) = (OwnRegistry::USER.to_owned(), OwnRegistry::PASSWORD.to_owned());
    let pusher = Pusher::new(RegistryAuth::Basic(user.clone(), password.clone()));
    let packed = image(vec![layer(Compression::Gzip, &[("a", b"x")])]);
    pusher.push(&name, &packed).await;

    let folder = tempfile::tempdir().unwrap();
    let puller = puller(&Store::open(folder.path()).unwrap());
    let wrong = Credentials::Basic { user: user.clone(), password: "wrong".to_owned() };
    for credentials in [Credentials::Anonymous, wrong] {
        let source = source(&name, credentials.clone());
        let error = puller.pull(&source, &ProgressSender::none()).await.unwrap_err();
        assert!(
            matches!(error, pull::Error::Source(source::Error::Refused { .. })),
            "{credentials:?}: {error:?}"
        );
        let advice = format!("docker login {}", registry.address());
        assert!(error.to_string().contains(&advice), "{error}");
    }
    let source = source(&name, Credentials::Basic { user, password });
    let pulled = puller.pull(&source, &ProgressSender::none()).await.unwrap();
    assert_eq!(pulled.digest, packed.manifest.digest);
}
