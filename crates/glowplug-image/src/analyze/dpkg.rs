//! What Debian's packages say: what each takes, which are for building only, and which nothing needs but a
//! recommendation.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::overlay::Overlay;
use super::packages::{Package, count, empty};
use super::{Claim, Free, Kind, Subject};

const STATUS: &[u8] = b"var/lib/dpkg/status";
/// One file for each package, in images without dpkg.
const STATUS_FOLDER: &[u8] = b"var/lib/dpkg/status.d/";
const INFO_FOLDER: &[u8] = b"var/lib/dpkg/info/";
/// Which packages nobody asked for.
const STATES: &[u8] = b"var/lib/apt/extended_states";

/// Packages that build others, by the beginnings of their names.
const BUILD_TOOLS: [&str; 20] = [
    "gcc-",
    "g++-",
    "cpp-",
    "clang-",
    "llvm-",
    "libllvm",
    "binutils",
    "libgcc-",
    "libstdc++-",
    "build-essential",
    "make",
    "cmake",
    "ninja-build",
    "dpkg-dev",
    "rustc",
    "golang-",
    "cuda-nvcc-",
    "cuda-compiler-",
    "gfortran",
    "libclang-",
];
/// Parts of a compiler that programs need as well.
const NEEDED: [&str; 3] = ["-base", "libgcc-s1", "libstdc++6"];

pub(super) fn is_text(path: &[u8]) -> bool {
    path == STATUS
        || path == STATES
        || path.starts_with(STATUS_FOLDER)
        || (path.starts_with(INFO_FOLDER) && path.ends_with(b".list"))
}

/// An installed package, as dpkg knows it.
#[derive(Debug)]
struct Installed {
    name: String,
    version: String,
    /// Names that each may be met by one of several.
    depends: Vec<Vec<String>>,
    recommends: Vec<Vec<String>>,
    provides: Vec<String>,
    is_essential: bool,
    /// Relative to the root.
    files: Vec<Vec<u8>>,
}

pub(super) fn packages(subject: &Subject, overlay: &Overlay<'_>) -> Vec<Package> {
    let package = |installed: Installed| {
        let mut package = empty("dpkg");
        for file in &installed.files {
            count(&mut package, overlay, file);
        }
        package.name = installed.name;
        package.version = installed.version;
        package
    };
    installed(subject).into_iter().map(package).collect()
}

pub(super) fn claim(subject: &Subject, free: &mut Free<'_, '_>, claims: &mut Vec<Claim>) {
    let all = installed(subject);
    let tools = all.iter().filter(|package| is_build_tool(&package.name)).collect::<Vec<_>>();
    claims.push(of_packages(
        free,
        &tools,
        Kind::BuildTools,
        "compilers and what belongs to them",
        "build in another stage (`FROM … AS build`) and `COPY --from=build` the result; take `runtime` instead of \
         `devel` images",
    ));
    let recommended = only_recommended(subject, &all);
    claims.push(of_packages(
        free,
        &recommended,
        Kind::Recommended,
        "packages that are only recommended by others",
        "`apt-get install --no-install-recommends …`",
    ));
}

fn of_packages(
    free: &mut Free<'_, '_>,
    packages: &[&Installed],
    kind: Kind,
    title: &str,
    change: &str,
) -> Claim {
    let paths: HashSet<&[u8]> =
        packages.iter().flat_map(|package| package.files.iter().map(Vec::as_slice)).collect();
    // Old lists name files as they were before `/lib` became a link to `/usr/lib`.
    let is_theirs = |path: &[u8]| {
        paths.contains(path) || path.strip_prefix(b"usr/").is_some_and(|path| paths.contains(path))
    };
    let files = free.take(|file| is_theirs(file.path));
    let names: Vec<&str> = packages.iter().map(|package| &*package.name).take(NAMES_MAX).collect();
    let more = if packages.len() > NAMES_MAX { ", …" } else { "" };
    let title = if names.is_empty() {
        title.to_owned()
    } else {
        format!("{title}: {}{more}", names.join(", "))
    };
    Claim::of_present(kind, &title, change, &files)
}

/// Packages that a finding names.
const NAMES_MAX: usize = 6;

fn is_build_tool(name: &str) -> bool {
    !NEEDED.iter().any(|needed| name.contains(needed))
        && BUILD_TOOLS.iter().any(|tool| name.starts_with(tool))
        || (name.starts_with("lib") && name.ends_with("-dev"))
        || matches!(name, "gcc" | "g++" | "cpp" | "clang" | "llvm" | "golang" | "linux-libc-dev")
}

/// Nobody asked for them, and no other package that stays needs them.
fn only_recommended<'i>(subject: &Subject, all: &'i [Installed]) -> Vec<&'i Installed> {
    let Some(states) = subject.texts.get(STATES) else { return Vec::new() };
    let states = String::from_utf8_lossy(states);
    let automatic: BTreeSet<&str> = states
        .split("\n\n")
        .filter(|record| record.lines().any(|line| line == "Auto-Installed: 1"))
        .filter_map(|record| record.lines().find_map(|line| line.strip_prefix("Package: ")))
        .collect();
    let mut names: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (place, package) in all.iter().enumerate() {
        let provided = package.provides.iter().map(String::as_str);
        for name in provided.chain([&*package.name]) {
            names.entry(name).or_default().push(place);
        }
    }
    // What was asked for, and what that depends on, and so on.
    let mut needed: BTreeSet<usize> = BTreeSet::new();
    let asked = |package: &Installed| package.is_essential || !automatic.contains(&*package.name);
    let mut waiting: Vec<usize> = all
        .iter()
        .enumerate()
        .filter(|(_, package)| asked(package))
        .map(|(place, _)| place)
        .collect();
    while let Some(place) = waiting.pop() {
        if needed.insert(place) {
            let alternatives = all[place].depends.iter().flatten();
            waiting.extend(alternatives.filter_map(|name| names.get(&**name)).flatten());
        }
    }
    let recommended: BTreeSet<&str> = all
        .iter()
        .flat_map(|package| package.recommends.iter().flatten())
        .map(String::as_str)
        .collect();
    let is_extra = |(place, package): &(usize, &Installed)| {
        let is_named = recommended.contains(&*package.name)
            || package.provides.iter().any(|name| recommended.contains(&**name));
        // What only a recommended package needs goes with it.
        !needed.contains(place) && (is_named || automatic.contains(&*package.name))
    };
    all.iter().enumerate().filter(is_extra).map(|(_, package)| package).collect()
}

fn installed(subject: &Subject) -> Vec<Installed> {
    let files = |path: &&Vec<u8>| path.as_slice() == STATUS || path.starts_with(STATUS_FOLDER);
    let mut all = Vec::new();
    for path in subject.texts.keys().filter(files) {
        let text = String::from_utf8_lossy(&subject.texts[path]);
        all.extend(text.split("\n\n").filter_map(|record| read(record, subject)));
    }
    all
}

fn read(record: &str, subject: &Subject) -> Option<Installed> {
    let field =
        |name: &str| record.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let name = field("Package")?;
    if field("Status").is_some_and(|status| !status.ends_with(" installed")) {
        return None;
    }
    let architecture = field("Architecture").unwrap_or_default();
    let list = [format!("{name}.list"), format!("{name}:{architecture}.list")]
        .into_iter()
        .find_map(|file| subject.texts.get(&[INFO_FOLDER, file.as_bytes()].concat()));
    let lines = list.map(Vec::as_slice).unwrap_or_default().split(|byte| *byte == b'\n');
    let relations = |name: &str| field(name).map(relations).unwrap_or_default();
    let mut depends = relations("Depends");
    depends.extend(relations("Pre-Depends"));
    Some(Installed {
        name: name.to_owned(),
        version: field("Version").unwrap_or_default().to_owned(),
        depends,
        recommends: relations("Recommends"),
        provides: relations("Provides").into_iter().flatten().collect(),
        is_essential: field("Essential") == Some("yes"),
        files: lines.filter_map(|line| Some(line.strip_prefix(b"/")?.to_vec())).collect(),
    })
}

/// `a (>= 1), b:any | c` as `[[a], [b, c]]`.
fn relations(text: &str) -> Vec<Vec<String>> {
    let name = |text: &str| {
        let name = text.split_whitespace().next().unwrap_or_default();
        name.split(':').next().unwrap_or_default().to_owned()
    };
    text.split(',').map(|any| any.split('|').map(name).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relations_are_read() {
        let expected = [vec!["a".to_owned()], vec!["b".to_owned(), "c".to_owned()]];
        assert_eq!(relations("a (>= 1.0~), b:any | c [amd64]"), expected);
    }

    #[test]
    fn compilers_are_told_from_their_libraries() {
        for name in [
            "gcc-12",
            "g++-12",
            "build-essential",
            "libstdc++-12-dev",
            "libssl-dev",
            "cuda-nvcc-12-4",
            "make",
        ] {
            assert!(is_build_tool(name), "{name}");
        }
        for name in ["gcc-12-base", "libgcc-s1", "libstdc++6", "libssl3", "bash", "libc6"] {
            assert!(!is_build_tool(name), "{name}");
        }
    }

    fn subject(status: &str, states: &str) -> Subject {
        let texts = [(STATUS, status), (STATES, states)];
        let texts = texts.map(|(path, text)| (path.to_vec(), text.as_bytes().to_vec()));
        Subject { texts: texts.into(), ..Subject::default() }
    }

    #[test]
    fn what_was_only_recommended_is_told_from_what_is_needed() {
        let status = "Package: asked\nStatus: install ok installed\nDepends: needed, virtual\nRecommends: extra\n\n\
            Package: needed\nStatus: install ok installed\n\n\
            Package: provider\nStatus: install ok installed\nProvides: virtual (= 1)\n\n\
            Package: extra\nStatus: install ok installed\nDepends: behind\n\n\
            Package: behind\nStatus: install ok installed\n\n\
            Package: gone\nStatus: deinstall ok config-files\n";
        let automatic = |name: &str| format!("Package: {name}\nAuto-Installed: 1\n\n");
        let states = ["needed", "provider", "extra", "behind"].map(automatic).concat();
        let subject = subject(status, &states);
        let all = installed(&subject);
        assert_eq!(all.len(), 5);
        let extra: Vec<_> =
            only_recommended(&subject, &all).iter().map(|extra| &*extra.name).collect();
        assert_eq!(extra, ["extra", "behind"]);
    }
}
