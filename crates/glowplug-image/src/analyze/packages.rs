//! What is installed, and what it takes.

use std::collections::BTreeMap;

use serde::Serialize;

use super::overlay::Overlay;
use super::{PACKAGES_MAX, Subject, dpkg};

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Package {
    /// `dpkg`, `apk`, `python` or `node`.
    pub manager: &'static str,
    pub name: String,
    /// Empty where nobody says.
    pub version: String,
    pub bytes: u64,
    pub files: usize,
}

/// The file in which apk keeps what it installed.
pub(super) const APK: &[u8] = b"lib/apk/db/installed";
/// Python's lists of files, one in each installed package.
const RECORD: &[u8] = b".dist-info/RECORD";

/// Whether a file says what is installed.
pub(super) fn is_text(path: &[u8]) -> bool {
    path == APK || path.ends_with(RECORD) || dpkg::is_text(path)
}

/// The largest packages, those with most bytes first.
pub(super) fn all(subject: &Subject, overlay: &Overlay<'_>) -> Vec<Package> {
    let mut all = dpkg::packages(subject, overlay);
    all.extend(apk(subject, overlay));
    all.extend(python(subject, overlay));
    all.extend(node(overlay));
    all.retain(|package| package.bytes > 0);
    all.sort_by(|one, other| (other.bytes, &one.name).cmp(&(one.bytes, &other.name)));
    all.truncate(PACKAGES_MAX);
    all
}

/// Records of lines `P:name`, `V:version`, `F:folder`, `R:file`, apart by empty lines.
fn apk(subject: &Subject, overlay: &Overlay<'_>) -> Vec<Package> {
    let Some(installed) = subject.texts.get(APK) else { return Vec::new() };
    let installed = String::from_utf8_lossy(installed);
    let record = |record: &str| {
        let mut package = empty("apk");
        let mut folder = String::new();
        for line in record.lines() {
            match line.split_at_checked(2) {
                Some(("P:", name)) => name.clone_into(&mut package.name),
                Some(("V:", version)) => version.clone_into(&mut package.version),
                Some(("F:", path)) => path.clone_into(&mut folder),
                Some(("R:", name)) => {
                    let path =
                        if folder.is_empty() { name.into() } else { format!("{folder}/{name}") };
                    count(&mut package, overlay, path.as_bytes());
                }
                _ => {}
            }
        }
        package
    };
    installed.split("\n\n").map(record).filter(|package| !package.name.is_empty()).collect()
}

/// Lines `path,hash,bytes`, the path relative to the folder of packages.
fn python(subject: &Subject, overlay: &Overlay<'_>) -> Vec<Package> {
    let record = |(path, text): (&Vec<u8>, &Vec<u8>)| {
        let folder = path.strip_suffix(RECORD)?;
        // Gone in the end, with what it lists.
        overlay.find(path)?;
        let slash = folder.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        let name = String::from_utf8_lossy(&folder[slash..]).into_owned();
        let (name, version) = name.rsplit_once('-').unwrap_or((&name, ""));
        let mut package = empty("python");
        name.clone_into(&mut package.name);
        version.clone_into(&mut package.version);
        for line in String::from_utf8_lossy(text).lines() {
            let mut fields = line.rsplitn(3, ',');
            let said: Option<u64> = fields.next().and_then(|bytes| bytes.parse().ok());
            let Some(file) = fields.nth(1) else { continue };
            let file = file.trim_matches('"');
            match said {
                Some(bytes) => {
                    package.bytes += bytes;
                    package.files += 1;
                }
                None => count(&mut package, overlay, &[&folder[..slash], file.as_bytes()].concat()),
            }
        }
        Some(package)
    };
    let records = subject.texts.iter().filter(|(path, _)| path.ends_with(RECORD));
    records.filter_map(record).collect()
}

/// By the innermost folder below a `node_modules`.
fn node(overlay: &Overlay<'_>) -> Vec<Package> {
    const MODULES: &str = "node_modules/";
    let mut found: BTreeMap<String, Package> = BTreeMap::new();
    for file in &overlay.present {
        let Ok(path) = std::str::from_utf8(file.path) else { continue };
        let Some(at) = path.rfind(MODULES) else { continue };
        let (before, inside) = path.split_at(at + MODULES.len());
        let parts = if inside.starts_with('@') { 2 } else { 1 };
        let name: Vec<&str> = inside.split('/').take(parts).collect();
        if inside.split('/').count() <= parts {
            continue;
        }
        let name = name.join("/");
        let package = found.entry(format!("{before}{name}")).or_insert_with(|| empty("node"));
        package.name = name;
        package.bytes += file.bytes;
        package.files += 1;
    }
    found.into_values().collect()
}

pub(super) fn empty(manager: &'static str) -> Package {
    Package { manager, name: String::new(), version: String::new(), bytes: 0, files: 0 }
}

/// Adds a file, if it is there.
pub(super) fn count(package: &mut Package, overlay: &Overlay<'_>, path: &[u8]) {
    if let Some(file) = overlay.find(path) {
        package.bytes += file.bytes;
        package.files += 1;
    }
}
