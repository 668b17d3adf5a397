//! In which order a layer's entries are written.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::layer::{Entry, EntryKind};
use crate::touched::Touched;

/// Entries in a new order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) entries: Vec<Entry>,
    /// So many of the first are what starts touch, and what that needs. `None`: nothing is known of starts.
    pub(super) first: Option<usize>,
}

/// Folders, whiteouts and links first, which are names only; then files in the order of their first use; then the others by
/// their paths. A hard link follows its file.
///
/// What an archive says twice, or below a link of its own, means something by its order, and keeps it.
pub(super) fn of(entries: &[Entry], touched: &Touched) -> Order {
    if depends_on_order(entries) {
        return Order { entries: entries.to_vec(), first: None };
    }
    let entries = without_own_whiteouts(entries);
    let rank = |entry: &Entry| match entry.kind {
        EntryKind::Directory => Some(0),
        EntryKind::Whiteout | EntryKind::OpaqueDirectory => Some(1),
        EntryKind::Symlink { .. } | EntryKind::Special(_) => Some(2),
        EntryKind::File(_) | EntryKind::HardLink { .. } => None,
    };
    let mut names: Vec<&Entry> = entries.iter().filter(|entry| rank(entry).is_some()).collect();
    names.sort_by(|one, other| (rank(one), &one.path).cmp(&(rank(other), &other.path)));
    let mut files: BTreeMap<&[u8], &Entry> = BTreeMap::new();
    let mut links: HashMap<&[u8], Vec<&Entry>> = HashMap::new();
    // Links to files of lower layers.
    let mut loose: Vec<&Entry> = Vec::new();
    for entry in &entries {
        if matches!(entry.kind, EntryKind::File(_)) {
            files.insert(&entry.path, entry);
        }
    }
    // A link may lead to a link that came before.
    let mut ends: HashMap<&[u8], &[u8]> = HashMap::new();
    for entry in &entries {
        let EntryKind::HardLink { target } = &entry.kind else { continue };
        let end = ends.get(&**target).copied().unwrap_or(target);
        ends.insert(&entry.path, end);
        if files.contains_key(end) {
            links.entry(end).or_default().push(entry);
        } else {
            loose.push(entry);
        }
    }
    let mut ordered: Vec<Entry> = names.into_iter().cloned().collect();
    let mut take = |path: &[u8], ordered: &mut Vec<Entry>| {
        if let Some(file) = files.remove(path) {
            ordered.push(file.clone());
            // Some readers take a link's word for what its file is, others do not: they say the same here.
            let same = |link: &Entry| Entry { meta: file.meta.clone(), ..link.clone() };
            ordered.extend(links.remove(path).into_iter().flatten().map(same));
        }
    };
    for file in touched.files() {
        let path = ends.get(&*file.path).copied().unwrap_or(&file.path);
        take(path, &mut ordered);
    }
    let first = (!touched.files().is_empty()).then_some(ordered.len());
    let rest: Vec<&[u8]> = entries
        .iter()
        .filter(|entry| matches!(entry.kind, EntryKind::File(_)))
        .map(|entry| &*entry.path)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    for path in rest {
        take(path, &mut ordered);
    }
    ordered.extend(loose.into_iter().cloned());
    Order { entries: ordered, first }
}

fn depends_on_order(entries: &[Entry]) -> bool {
    let is_name =
        |entry: &&Entry| !matches!(entry.kind, EntryKind::Whiteout | EntryKind::OpaqueDirectory);
    let mut paths = BTreeMap::new();
    for entry in entries.iter().filter(is_name) {
        if paths.insert(&*entry.path, &entry.kind).is_some() {
            return true;
        }
    }
    let is_below_a_link = |entry: &&Entry| {
        let slashes = entry.path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        let mut parents = slashes.map(|(at, _)| &entry.path[..at]);
        parents.any(|parent| paths.get(parent).is_some_and(|kind| **kind != EntryKind::Directory))
    };
    entries.iter().any(|entry| is_below_a_link(&entry))
}

/// A path that is taken away and comes again in one layer would go with its whiteout where a reader applies both in the
/// order of the archive. A folder is emptied instead, and a file replaces what was there anyhow.
fn without_own_whiteouts(entries: &[Entry]) -> Vec<Entry> {
    let is_directory: BTreeMap<&[u8], bool> = entries
        .iter()
        .filter(|entry| !matches!(entry.kind, EntryKind::Whiteout | EntryKind::OpaqueDirectory))
        .map(|entry| (&*entry.path, entry.kind == EntryKind::Directory))
        .collect();
    let mut kept: Vec<Entry> = Vec::with_capacity(entries.len());
    for entry in entries {
        let again = is_directory.get(&*entry.path);
        match (&entry.kind, again) {
            (EntryKind::Whiteout, Some(true)) => {
                kept.push(Entry { kind: EntryKind::OpaqueDirectory, ..entry.clone() });
            }
            (EntryKind::Whiteout, Some(false)) => {}
            _ => kept.push(entry.clone()),
        }
    }
    let mut opaque = BTreeSet::new();
    kept.retain(|entry| {
        entry.kind != EntryKind::OpaqueDirectory || opaque.insert(entry.path.clone())
    });
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::{Content, Meta};
    use crate::touched::TouchedFile;

    fn entry(text: &str) -> Entry {
        let (kind, path) = text.split_once(' ').unwrap();
        let (path, target) = path.split_once(" > ").unwrap_or((path, ""));
        let target = target.as_bytes().to_vec();
        let kind = match kind {
            "d" => EntryKind::Directory,
            "f" => EntryKind::File(Content::Empty),
            "l" => EntryKind::Symlink { target },
            "h" => EntryKind::HardLink { target },
            "w" => EntryKind::Whiteout,
            _ => EntryKind::OpaqueDirectory,
        };
        Entry { path: path.into(), meta: Meta::default(), kind }
    }

    fn text(entry: &Entry) -> String {
        let kind = match entry.kind {
            EntryKind::Directory => "d",
            EntryKind::File(_) => "f",
            EntryKind::Symlink { .. } => "l",
            EntryKind::HardLink { .. } => "h",
            EntryKind::Whiteout => "w",
            _ => "o",
        };
        format!("{kind} {}", String::from_utf8_lossy(&entry.path))
    }

    fn check(entries: &[&str], touched: &[&str], expected: &[&str], first: Option<usize>) {
        let entries: Vec<Entry> = entries.iter().map(|text| entry(text)).collect();
        let files = touched.iter().map(|path| TouchedFile::whole(path.as_bytes().to_vec()));
        let touched = Touched::new(glowplug_core::Timestamp::from_micros(0), files);
        let order = of(&entries, &touched);
        let texts: Vec<String> = order.entries.iter().map(text).collect();
        assert_eq!(texts, expected);
        assert_eq!(order.first, first);
    }

    #[test]
    fn names_come_first_then_what_starts_touch_then_the_rest() {
        check(
            &[
                "f z",
                "f b/y",
                "d b",
                "l a > z",
                "f b/x",
                "w gone",
                "d b/c",
                "h b/c/h > b/y",
                "h loose > lower",
            ],
            &["not/here", "b/c/h", "z"],
            &["d b", "d b/c", "w gone", "l a", "f b/y", "h b/c/h", "f z", "f b/x", "h loose"],
            Some(7),
        );
        check(&["f b", "f a"], &[], &["f a", "f b"], None);
        check(&["f b", "f a"], &["none"], &["f a", "f b"], Some(0));
    }

    #[test]
    fn links_to_links_follow_their_file() {
        check(
            &["f a", "h b > a", "h c > b", "f 0"],
            &["c"],
            &["f a", "h b", "h c", "f 0"],
            Some(3),
        );
    }

    #[test]
    fn an_archive_whose_order_means_something_keeps_it() {
        for entries in [&["f b", "f a", "f b"][..], &["l d > x", "f d/b", "f a"], &["f b", "f b/a"]]
        {
            let texts: Vec<&str> =
                entries.iter().map(|text| text.split(" > ").next().unwrap()).collect();
            check(entries, &["a"], &texts, None);
        }
    }

    #[test]
    fn what_goes_and_comes_again_survives() {
        check(
            &["w a", "f a", "w d", "d d", "o d", "w c"],
            &[],
            &["d d", "w c", "o d", "f a"],
            None,
        );
    }
}
