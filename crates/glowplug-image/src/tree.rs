//! The file tree of an image: its layers laid over each other.
//!
//! Symbolic links on the way to an entry are followed, inside the tree only, as containerd does it: `lib/x`
//! lands in `usr/lib` where `lib` is a link to it. `..` at the root is the root.

use std::collections::{BTreeMap, HashMap};

use crate::layer::{Content, Entry, EntryKind, Meta, Special};

/// Inodes of one image; a large one has half a million.
pub const NODES_MAX: usize = 8_000_000;
/// Directories below each other.
const DEPTH_MAX: usize = 512;
/// Links followed on the way to one entry: the kernel's own limit.
const LINKS_MAX: usize = 40;

/// An index into the nodes of one [`Tree`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u32);

impl NodeId {
    pub const ROOT: Self = Self(0);

    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub meta: Meta,
    pub kind: NodeKind,
    /// Which layer a packed content is in: the position among the image's layers, lowest first.
    pub layer: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeKind {
    Directory(BTreeMap<Vec<u8>, NodeId>),
    File(Content),
    Symlink(Vec<u8>),
    Special(Special),
}

/// Nodes that a later layer replaced stay in the list without a name; [`Tree::walk`] does not see them.
#[derive(Clone, Debug)]
pub struct Tree {
    nodes: Vec<Node>,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    #[error("the image has more than {NODES_MAX} files")]
    TooManyFiles,
    #[error("`{path}` is more than {DEPTH_MAX} folders deep")]
    TooDeep { path: String },
    #[error("`{path}` is a hard link to `{target}`, which no layer up to its own has as a file")]
    DanglingLink { path: String, target: String },
}

impl Default for Tree {
    fn default() -> Self {
        let meta = Meta { mode: 0o755, ..Meta::default() };
        Self { nodes: vec![Node { meta, kind: NodeKind::Directory(BTreeMap::new()), layer: 0 }] }
    }
}

impl Tree {
    /// Lays the entries of the next layer over what is there.
    ///
    /// A whiteout speaks of the layers below only, wherever in its own layer it stands, so all whiteouts are
    /// applied before anything else.
    /// Source: OCI image specification, "Image Layer Filesystem Changeset", Whiteouts.
    pub fn apply(&mut self, layer: u32, entries: &[Entry]) -> Result<(), Error> {
        for entry in entries {
            match entry.kind {
                EntryKind::Whiteout => self.remove(&entry.path),
                EntryKind::OpaqueDirectory => self.clear(&entry.path),
                _ => {}
            }
        }
        for entry in entries {
            self.add(layer, entry)?;
        }
        Ok(())
    }

    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    /// The node with this path, if there is one. A link in the last place is itself the answer.
    pub fn find(&self, path: &[u8]) -> Option<NodeId> {
        let Some((folders, name)) = split(path) else { return Some(NodeId::ROOT) };
        let NodeKind::Directory(children) = &self.node(self.find_directory(folders)?).kind else {
            return None;
        };
        children.get(name).copied()
    }

    /// Every node that has a name, each once, a directory before what it holds, children by name.
    pub fn walk(&self) -> Walk<'_> {
        Walk { tree: self, seen: vec![false; self.nodes.len()], waiting: vec![NodeId::ROOT] }
    }

    fn add(&mut self, layer: u32, entry: &Entry) -> Result<(), Error> {
        let kind = match &entry.kind {
            EntryKind::Whiteout | EntryKind::OpaqueDirectory => return Ok(()),
            EntryKind::HardLink { target } => return self.link(&entry.path, target),
            EntryKind::Directory => return self.add_directory(layer, entry),
            EntryKind::File(content) => NodeKind::File(*content),
            EntryKind::Symlink { target } => NodeKind::Symlink(target.clone()),
            EntryKind::Special(special) => NodeKind::Special(*special),
        };
        // An archive whose root is not a directory says nothing that could be mounted.
        let Some((parent, name)) = self.parent(&entry.path)? else { return Ok(()) };
        let node = self.push(Node { meta: entry.meta.clone(), kind, layer })?;
        self.children(parent).insert(name.to_vec(), node);
        Ok(())
    }

    /// A directory that exists keeps what it holds and takes the newer layer's word on the rest.
    fn add_directory(&mut self, layer: u32, entry: &Entry) -> Result<(), Error> {
        let Some((parent, name)) = self.parent(&entry.path)? else {
            self.nodes[NodeId::ROOT.index()].meta.clone_from(&entry.meta);
            return Ok(());
        };
        let existing = self.children(parent).get(name).copied();
        if let Some(existing) = existing
            && matches!(self.node(existing).kind, NodeKind::Directory(_))
        {
            self.nodes[existing.index()].meta.clone_from(&entry.meta);
            return Ok(());
        }
        let kind = NodeKind::Directory(BTreeMap::new());
        let node = self.push(Node { meta: entry.meta.clone(), kind, layer })?;
        self.children(parent).insert(name.to_vec(), node);
        Ok(())
    }

    fn link(&mut self, path: &[u8], target: &[u8]) -> Result<(), Error> {
        let dangling = || Error::DanglingLink { path: text(path), target: text(target) };
        let node = self.find(target).ok_or_else(dangling)?;
        if matches!(self.node(node).kind, NodeKind::Directory(_)) {
            return Err(dangling());
        }
        let (parent, name) = self.parent(path)?.ok_or_else(dangling)?;
        self.children(parent).insert(name.to_vec(), node);
        Ok(())
    }

    fn remove(&mut self, path: &[u8]) {
        let Some((folders, name)) = split(path) else { return };
        if let Some(folder) = self.find_directory(folders) {
            self.children(folder).remove(name);
        }
    }

    /// Only what is the folder itself is emptied. Another thing in its place goes, and what it leads to stays.
    fn clear(&mut self, path: &[u8]) {
        let Some(node) = self.find(path) else { return };
        if let NodeKind::Directory(children) = &mut self.nodes[node.index()].kind {
            children.clear();
        } else {
            self.remove(path);
        }
    }

    /// The directory that `path` is in, made where it is missing, and the last part. `None` for the root.
    fn parent<'p>(&mut self, path: &'p [u8]) -> Result<Option<(NodeId, &'p [u8])>, Error> {
        let Some((folders, name)) = split(path) else { return Ok(None) };
        let Reached { mut directories, missing } = self.reach(folders);
        for part in missing.into_iter().rev() {
            match &*part {
                b"." => {}
                b".." => leave(&mut directories),
                _ if directories.len() > DEPTH_MAX => {
                    return Err(Error::TooDeep { path: text(path) });
                }
                _ => {
                    let made = Self::default().nodes.swap_remove(0);
                    let made = self.push(made)?;
                    self.children(innermost(&directories)).insert(part, made);
                    directories.push(made);
                }
            }
        }
        Ok(Some((innermost(&directories), name)))
    }

    fn find_directory(&self, path: &[u8]) -> Option<NodeId> {
        let reached = self.reach(path);
        reached.missing.is_empty().then(|| innermost(&reached.directories))
    }

    /// Goes along `path`, through links, as far as there are directories.
    fn reach(&self, path: &[u8]) -> Reached {
        let mut directories = vec![NodeId::ROOT];
        let mut missing: Vec<Vec<u8>> = parts(path).rev().map(<[u8]>::to_vec).collect();
        let mut links = 0;
        while let Some(part) = missing.pop() {
            if part == b".." {
                leave(&mut directories);
                continue;
            }
            let NodeKind::Directory(children) = &self.node(innermost(&directories)).kind else {
                break;
            };
            let child = children.get(&part).map(|child| (*child, &self.node(*child).kind));
            match child {
                _ if part == b"." => {}
                Some((child, NodeKind::Directory(_))) => directories.push(child),
                Some((_, NodeKind::Symlink(target))) if links < LINKS_MAX => {
                    links += 1;
                    if target.starts_with(b"/") {
                        directories.truncate(1);
                    }
                    missing.extend(parts(target).rev().map(<[u8]>::to_vec));
                }
                _ => {
                    missing.push(part);
                    break;
                }
            }
        }
        Reached { directories, missing }
    }

    fn children(&mut self, directory: NodeId) -> &mut BTreeMap<Vec<u8>, NodeId> {
        match &mut self.nodes[directory.index()].kind {
            NodeKind::Directory(children) => children,
            _ => unreachable!("only directories are handed in"),
        }
    }

    fn push(&mut self, node: Node) -> Result<NodeId, Error> {
        if self.nodes.len() >= NODES_MAX {
            return Err(Error::TooManyFiles);
        }
        let id = u32::try_from(self.nodes.len()).map_err(|_| Error::TooManyFiles)?;
        self.nodes.push(node);
        Ok(NodeId(id))
    }

    /// Of all files that have a name, each once.
    pub fn bytes(&self) -> u64 {
        let bytes = |node: NodeId| match &self.node(node).kind {
            NodeKind::File(content) => content.bytes(),
            _ => 0,
        };
        self.walk().map(bytes).sum()
    }

    /// Puts other contents in the place of some.
    pub fn replace_contents(&mut self, other: impl Fn(Content) -> Content) {
        for node in &mut self.nodes {
            if let NodeKind::File(content) = &mut node.kind {
                *content = other(*content);
            }
        }
    }

    /// How many names each node has; directories count themselves, their entry and their children's `..`.
    pub fn link_counts(&self) -> HashMap<NodeId, u32> {
        let mut counts = HashMap::from([(NodeId::ROOT, 2)]);
        for directory in self.walk() {
            let NodeKind::Directory(children) = &self.node(directory).kind else { continue };
            for child in children.values() {
                if matches!(self.node(*child).kind, NodeKind::Directory(_)) {
                    *counts.entry(directory).or_default() += 1;
                    counts.insert(*child, 2);
                } else {
                    *counts.entry(*child).or_default() += 1;
                }
            }
        }
        counts
    }
}

/// How far a path leads.
struct Reached {
    /// From the root to the innermost directory that exists.
    directories: Vec<NodeId>,
    /// The parts that are not there as directories, the next one last.
    missing: Vec<Vec<u8>>,
}

fn innermost(directories: &[NodeId]) -> NodeId {
    directories.last().copied().unwrap_or(NodeId::ROOT)
}

fn leave(directories: &mut Vec<NodeId>) {
    if directories.len() > 1 {
        directories.pop();
    }
}

/// See [`Tree::walk`].
#[derive(Debug)]
pub struct Walk<'t> {
    tree: &'t Tree,
    seen: Vec<bool>,
    waiting: Vec<NodeId>,
}

impl Iterator for Walk<'_> {
    type Item = NodeId;

    fn next(&mut self) -> Option<NodeId> {
        loop {
            let id = self.waiting.pop()?;
            if std::mem::replace(&mut self.seen[id.index()], true) {
                continue;
            }
            if let NodeKind::Directory(children) = &self.tree.node(id).kind {
                self.waiting.extend(children.values().rev());
            }
            return Some(id);
        }
    }
}

fn parts(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|part| !part.is_empty())
}

/// The folder that `path` is in, and its last part. `None` for the root.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.is_empty() {
        return None;
    }
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => Some((&path[..slash], &path[slash + 1..])),
        None => Some((&[], path)),
    }
}

fn text(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

#[cfg(test)]
mod tests;
