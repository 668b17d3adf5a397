//! Pulls from a registry that breaks off, lies or goes away.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its scene must fail")]

mod support;

use futures::TryStreamExt;
use futures::future::join_all;
use glowplug_image::pull::{self, Error, ProgressSender};
use glowplug_image::source::credentials::Credentials;
use glowplug_image::source::{self, Compression};
use glowplug_image::store::Image;
use glowplug_image::{Digest, Store};

use self::support::faulty::{Asked, Fault, Faulty, Manners};
use self::support::images::{Blob, TestImage, expected, gzip, image, layer, noise};
use self::support::root::{files, is_root};
use self::support::{chain, pull, puller, source};

const LAYER_BYTES: usize = 1 << 20;

/// One layer with one file, neither of which compresses.
fn one_layer(seed: u64) -> TestImage {
    image(vec![layer(Compression::Gzip, &[("model", &noise(seed, LAYER_BYTES))])])
}

/// Pulls the image into a store of its own.
async fn pull_alone(registry: &Faulty, look: impl FnOnce(&Store, Result<Image, Error>)) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let pulled = pull(&puller(&store), &registry.name("1")).await;
    look(&store, pulled);
}

fn assert_whole(store: &Store, pulled: &Image, seed: u64) {
    if is_root() {
        assert_eq!(files(store, pulled), expected(&[("model", &noise(seed, LAYER_BYTES))]));
    }
}

fn part(blob: &Blob, from: usize, sent: usize) -> Asked {
    Asked { path: format!("/v2/test/blobs/{}", blob.digest), from, sent }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_goes_on_from_the_byte_where_it_broke_off() {
    let packed = one_layer(1);
    let blob = &packed.layers[0];
    let faults = vec![
        Fault::CutAfter(300_000),
        Fault::Status("503 Service Unavailable"),
        Fault::CutAfter(0),
        Fault::StallAfter(200_000),
    ];
    let manners = Manners { faults, ..Manners::default() };
    let registry = Faulty::start(&[("1", &packed)], manners).await;
    pull_alone(&registry, |store, pulled| assert_whole(store, &pulled.unwrap(), 1)).await;
    let expected = [
        part(blob, 0, 300_000),
        part(blob, 300_000, 0),
        part(blob, 300_000, 0),
        part(blob, 300_000, 200_000),
        part(blob, 500_000, blob.size - 500_000),
    ];
    assert_eq!(registry.asked(blob), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_ranges_a_layer_is_read_again_and_counted_once() {
    let packed = one_layer(2);
    let faults = vec![Fault::CutAfter(300_000), Fault::CutAfter(700_000)];
    let manners = Manners { faults, no_ranges: true, ..Manners::default() };
    let registry = Faulty::start(&[("1", &packed)], manners).await;
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let (progress, seen) = ProgressSender::channel();
    let source = source(&registry.name("1"), Credentials::Anonymous);
    let pulled = puller(&store).pull(&source, &progress).await.unwrap();
    assert_whole(&store, &pulled, 2);
    assert_eq!(seen.borrow().bytes, packed.layers[0].size as u64);
    let sent: Vec<usize> =
        registry.asked(&packed.layers[0]).iter().map(|asked| asked.sent).collect();
    assert_eq!(sent, [300_000, 700_000, packed.layers[0].size]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_body_is_waited_for() {
    let packed = one_layer(3);
    let manners = Manners { piece_bytes: Some(997), ..Manners::default() };
    let registry = Faulty::start(&[("1", &packed)], manners).await;
    pull_alone(&registry, |store, pulled| assert_whole(store, &pulled.unwrap(), 3)).await;
    assert_eq!(registry.asked(&packed.layers[0]).len(), 1);
}

/// Nothing of a layer that is not what it should be may be left where an image could find it.
/// As a table of contents at the end of a layer is asked for.
#[tokio::test]
async fn a_part_of_a_layer_is_never_longer_than_was_asked_for() {
    let packed = one_layer(9);
    let manners = Manners { beyond_bytes: 1 << 20, ..Manners::default() };
    let registry = Faulty::start(&[("1", &packed)], manners).await;
    let source = source(&registry.name("1"), Credentials::Anonymous);
    let layer = source.resolve().await.unwrap().layers.remove(0);
    for from in [1, layer.bytes - 1_000] {
        for to in [layer.bytes - 10, layer.bytes] {
            let part = source.range(&layer, from..to).await.unwrap();
            let part: Vec<_> = part.try_collect().await.unwrap();
            assert_eq!(part.concat().len() as u64, to - from, "{from}..{to}");
        }
    }
}

async fn refused(packed: &TestImage, no_ranges: bool, check: impl Fn(&Error) -> bool) -> String {
    let manners = Manners { no_ranges, ..Manners::default() };
    let registry = Faulty::start(&[("1", packed)], manners).await;
    let mut text = String::new();
    pull_alone(&registry, |store, pulled| {
        let error = pulled.unwrap_err();
        assert!(check(&error), "{error:?}");
        assert_eq!(store.images().unwrap(), []);
        for layer in &packed.layers {
            assert!(!store.has_layer(&layer.digest));
        }
        text = chain(&error);
    })
    .await;
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_of_another_digest_are_never_used() {
    for no_ranges in [false, true] {
        let mut layer = layer(Compression::Gzip, &[("a", b"x")]);
        layer.digest = Digest::of(b"something else");
        let packed = image(vec![layer]);
        let is_it = |error: &Error| matches!(error, Error::WrongDigest { .. });
        let text = refused(&packed, no_ranges, is_it).await;
        assert!(text.contains(packed.layers[0].digest.as_str()), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_of_another_size_are_never_used() {
    for (difference, no_ranges) in [(-1, false), (-1, true), (1, false), (1, true)] {
        let mut layer = layer(Compression::Gzip, &[("a", b"x")]);
        layer.size = layer.size.checked_add_signed(difference).unwrap();
        let is_it = |error: &Error| matches!(error, Error::WrongSize { .. });
        refused(&image(vec![layer]), no_ranges, is_it).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_archive_is_refused_though_its_digest_is_right() {
    let kind = "application/vnd.oci.image.layer.v1.tar+gzip";
    let whole = layer(Compression::Gzip, &[("a", &noise(4, 50_000)), ("b", b"x")]);
    let half = whole.bytes.slice(..whole.size / 2);
    let mut damaged = whole.bytes.to_vec();
    damaged[whole.size / 2] ^= 0x55;
    let not_gzip = noise(5, 10_000);
    let not_tar = gzip(&noise(6, 10_000));
    for bytes in [half, damaged.into(), not_gzip.into(), not_tar.into()] {
        let packed = image(vec![Blob::new(kind, bytes)]);
        refused(&packed, false, |error| matches!(error, Error::Unpack { .. })).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_gone_is_given_up() {
    let packed = one_layer(7);
    let manners = Manners { faults: vec![Fault::CutAfter(0); 100], ..Manners::default() };
    let registry = Faulty::start(&[("1", &packed)], manners).await;
    pull_alone(&registry, |store, pulled| {
        let error = pulled.unwrap_err();
        let is_it = matches!(error, Error::Source(source::Error::Unreachable { .. }));
        assert!(is_it, "{error:?}");
        assert_eq!(store.images().unwrap(), []);
    })
    .await;
    assert_eq!(registry.asked(&packed.layers[0]).len(), 6, "tries");
    let name = registry.name("1");
    drop(registry);
    let folder = tempfile::tempdir().unwrap();
    let error = pull(&puller(&Store::open(folder.path()).unwrap()), &name).await.unwrap_err();
    assert!(matches!(error, Error::Source(source::Error::Unreachable { .. })), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_who_wait_for_an_image_share_one_download() {
    let layers = (0..3).map(|seed| {
        layer(Compression::Zstd, &[(&format!("file-{seed}"), &noise(10 + seed, 300_000))])
    });
    let packed = image(layers.collect());
    let manners = Manners { piece_bytes: Some(50_000), ..Manners::default() };
    let registry = Faulty::start(&[("1", &packed)], manners).await;
    let folder = tempfile::tempdir().unwrap();
    let puller = puller(&Store::open(folder.path()).unwrap());
    let name = registry.name("1");
    let pulled = join_all((0..8).map(|_| pull(&puller, &name))).await;
    let first = pulled[0].as_ref().unwrap();
    assert!(pulled.iter().all(|pulled| pulled.as_ref().unwrap() == first));
    for layer in &packed.layers {
        assert_eq!(registry.asked(layer), [part(layer, 0, layer.size)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_is_given_up_leaves_room_for_the_next() {
    let packed = one_layer(8);
    let manners = Manners { faults: vec![Fault::StallAfter(300_000)], ..Manners::default() };
    let registry = Faulty::start(&[("1", &packed)], manners).await;
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let puller = puller(&store);
    let (progress, mut seen) = ProgressSender::channel();
    let source = source(&registry.name("1"), Credentials::Anonymous);
    {
        let pulling = puller.pull(&source, &progress);
        let half = seen.wait_for(|progress| progress.bytes >= 300_000);
        tokio::select! {
            pulled = pulling => panic!("it stalls: {pulled:?}"),
            half = half => drop(half.unwrap()),
        }
    }
    let pulled = puller.pull(&source, &ProgressSender::none()).await.unwrap();
    assert_whole(&store, &pulled, 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_cannot_fit_is_not_begun() {
    let packed = one_layer(9);
    let registry = Faulty::start(&[("1", &packed)], Manners::default()).await;
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let options = pull::Options { free_bytes_min: u64::MAX, ..pull::Options::default() };
    let error = pull(&pull::Puller::new(store, options), &registry.name("1")).await.unwrap_err();
    assert!(matches!(error, Error::NoRoom { .. }), "{error:?}");
    assert_eq!(registry.asked(&packed.layers[0]), []);
}
