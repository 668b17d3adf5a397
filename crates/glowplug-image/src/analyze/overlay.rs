//! Which files can be seen in the end, and which were paid for and are gone.
//!
//! Links to folders are not followed here as in [`Tree`](crate::tree::Tree): layers name files by their real paths,
//! and a layer that does not would only have its files counted as present.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::{Kind, Subject};
use crate::ContentId;
use crate::layer::{Content, Entry, EntryKind};

/// A file that can be seen.
#[derive(Debug)]
pub(super) struct Present<'s> {
    pub(super) path: &'s [u8],
    pub(super) layer: usize,
    pub(super) bytes: u64,
    /// Of contents that are kept on their own.
    pub(super) id: Option<ContentId>,
}

/// A file that a later layer took away.
#[derive(Debug)]
pub(super) struct Lost<'s> {
    pub(super) path: &'s [u8],
    pub(super) layer: usize,
    pub(super) bytes: u64,
    pub(super) kind: Kind,
}

#[derive(Debug, Default)]
pub(super) struct Overlay<'s> {
    /// By path.
    pub(super) present: Vec<Present<'s>>,
    pub(super) lost: Vec<Lost<'s>>,
}

type Seen<'s> = BTreeMap<&'s [u8], (usize, &'s Entry)>;

impl<'s> Overlay<'s> {
    pub(super) fn of(subject: &'s Subject) -> Self {
        let mut seen = Seen::new();
        let mut lost = Vec::new();
        for (number, layer) in subject.layers.iter().enumerate() {
            for entry in &layer.entries {
                match entry.kind {
                    EntryKind::Whiteout => {
                        lose_below(&mut seen, &entry.path, &mut lost);
                        lose(&mut seen, &entry.path, Kind::Deleted, &mut lost);
                    }
                    EntryKind::OpaqueDirectory => lose_below(&mut seen, &entry.path, &mut lost),
                    _ => {}
                }
            }
            for entry in &layer.entries {
                if matches!(entry.kind, EntryKind::Whiteout | EntryKind::OpaqueDirectory) {
                    continue;
                }
                if !matches!(entry.kind, EntryKind::Directory) {
                    lose_below(&mut seen, &entry.path, &mut lost);
                }
                let kind = match seen.get(&*entry.path) {
                    Some((_, before)) if is_same_content(before, entry) => Kind::Rewritten,
                    _ => Kind::Overwritten,
                };
                lose(&mut seen, &entry.path, kind, &mut lost);
                seen.insert(&entry.path, (number, entry));
            }
        }
        Self { present: seen.into_values().filter_map(present).collect(), lost }
    }

    /// A file by its path, through the links that merged systems have.
    pub(super) fn find(&self, path: &[u8]) -> Option<&Present<'s>> {
        let at = |path: &[u8]| {
            let place = self.present.binary_search_by(|file| file.path.cmp(path)).ok()?;
            self.present.get(place)
        };
        at(path).or_else(|| at(&[b"usr/", path].concat()))
    }
}

fn present((layer, entry): (usize, &Entry)) -> Option<Present<'_>> {
    let EntryKind::File(content) = entry.kind else { return None };
    let id = match content {
        Content::Shared { id, .. } => Some(id),
        Content::Packed(_) | Content::Late { .. } | Content::Empty => None,
    };
    Some(Present { path: &entry.path, layer, bytes: content.bytes(), id })
}

fn is_same_content(before: &Entry, after: &Entry) -> bool {
    match (&before.kind, &after.kind) {
        (
            EntryKind::File(Content::Shared { id: before, .. }),
            EntryKind::File(Content::Shared { id: after, .. }),
        ) => before == after,
        _ => false,
    }
}

fn lose<'s>(seen: &mut Seen<'s>, path: &[u8], kind: Kind, lost: &mut Vec<Lost<'s>>) {
    let Some((layer, entry)) = seen.remove(path) else { return };
    if let EntryKind::File(content) = entry.kind {
        lost.push(Lost { path: &entry.path, layer, bytes: content.bytes(), kind });
    }
}

/// Everything in a folder, at any depth.
fn lose_below<'s>(seen: &mut Seen<'s>, folder: &[u8], lost: &mut Vec<Lost<'s>>) {
    let first = if folder.is_empty() { Vec::new() } else { [folder, b"/"].concat() };
    let from = (Bound::Included(&*first), Bound::Unbounded);
    let below = seen.range::<[u8], _>(from).take_while(|(path, _)| path.starts_with(&first));
    let below: Vec<&[u8]> = below.map(|(path, _)| *path).collect();
    for path in below {
        lose(seen, path, Kind::Deleted, lost);
    }
}
