//! The root that a runner of an image would have.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::path::Path;

use glowplug_image::Store;
use glowplug_image::store::{Image, Mounted};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// Nobody else can mount. Says so.
#[expect(clippy::print_stderr, reason = "a test that is skipped says why")]
pub(crate) fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        eprintln!("skipped: only root can mount an image");
    }
    is_root
}

/// The root of a runner of the image, with a tmpfs above it, for as long as `look` takes.
pub(crate) fn with_root<T>(store: &Store, image: &Image, look: impl FnOnce(&Path) -> T) -> T {
    let mounted = store.mount(&image.digest).unwrap();
    let tree = mounted.tree.clone();
    let seen = with_layers(mounted, look);
    // The store would keep it, and with it the folder that the test wants to remove.
    let unmounted = unmount(&tree, UnmountFlags::empty());
    assert!(
        matches!(unmounted, Ok(()) | Err(Errno::INVAL)),
        "it is mounted, or written out: {unmounted:?}"
    );
    seen
}

/// As [`with_root`], for layers that are mounted.
pub(crate) fn with_layers<T>(mounted: Mounted, look: impl FnOnce(&Path) -> T) -> T {
    let scratch = tempfile::tempdir().unwrap();
    let upper = scratch.path().join("upper");
    fs::create_dir(&upper).unwrap();
    mount("tmpfs", &upper, "tmpfs", MountFlags::empty(), None).unwrap();
    for name in ["u", "w", "root"] {
        fs::create_dir(upper.join(name)).unwrap();
    }
    let mut layers = vec![mounted.tree.display().to_string()];
    layers.extend(mounted.data().iter().map(|data| data.display().to_string()));
    let layers = layers.join("::");
    let options = format!(
        "lowerdir={layers},upperdir={up}/u,workdir={up}/w,metacopy=on,redirect_dir=on",
        up = upper.display()
    );
    let root = scratch.path().join("root");
    fs::create_dir(&root).unwrap();
    let options = CString::new(options).unwrap();
    mount("overlay", &root, "overlay", MountFlags::empty(), &*options).unwrap();
    drop(mounted);
    let seen = look(&root);
    unmount(&root, UnmountFlags::empty()).unwrap();
    unmount(&upper, UnmountFlags::empty()).unwrap();
    seen
}

/// Every regular file of an image with its content, as a runner sees it.
pub(crate) fn files(store: &Store, image: &Image) -> BTreeMap<String, Vec<u8>> {
    with_root(store, image, all)
}

/// Every regular file below a root with its content.
pub(crate) fn all(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    collect(root, root, &mut found);
    found
}

fn collect(root: &Path, folder: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, found);
        } else {
            let name = path.strip_prefix(root).unwrap().display().to_string();
            found.insert(name, fs::read(&path).unwrap());
        }
    }
}
