use super::*;
use crate::layer::Slice;

fn entry(path: &str, kind: EntryKind) -> Entry {
    Entry { path: path.as_bytes().to_vec(), meta: Meta { mode: 0o644, ..Meta::default() }, kind }
}

fn file(path: &str, offset: u64) -> Entry {
    entry(path, EntryKind::File(Content::Packed(Slice { offset, bytes: 1 })))
}

fn dir(path: &str) -> Entry {
    entry(path, EntryKind::Directory)
}

fn symlink(path: &str, target: &str) -> Entry {
    entry(path, EntryKind::Symlink { target: target.as_bytes().to_vec() })
}

fn hard_link(path: &str, target: &str) -> Entry {
    entry(path, EntryKind::HardLink { target: target.as_bytes().to_vec() })
}

fn whiteout(path: &str) -> Entry {
    entry(path, EntryKind::Whiteout)
}

fn opaque(path: &str) -> Entry {
    entry(path, EntryKind::OpaqueDirectory)
}

/// All names of the tree in order; files with `layer:offset`, links with their target.
fn names(tree: &Tree) -> Vec<String> {
    fn list(tree: &Tree, directory: NodeId, above: &str, into: &mut Vec<String>) {
        let NodeKind::Directory(children) = &tree.node(directory).kind else { return };
        for (name, child) in children {
            let path = format!("{above}{}", text(name));
            let node = tree.node(*child);
            match &node.kind {
                NodeKind::Directory(_) => {
                    into.push(format!("{path}/"));
                    list(tree, *child, &format!("{path}/"), into);
                }
                NodeKind::File(Content::Packed(slice)) => {
                    into.push(format!("{path} {}:{}", node.layer, slice.offset));
                }
                NodeKind::Symlink(target) => into.push(format!("{path} -> {}", text(target))),
                other => into.push(format!("{path} {other:?}")),
            }
        }
    }
    let mut found = Vec::new();
    list(tree, NodeId::ROOT, "", &mut found);
    found
}

fn check(layers: &[&[Entry]], expected: &[&str]) {
    let mut tree = Tree::default();
    for (layer, entries) in (0..).zip(layers) {
        tree.apply(layer, entries).unwrap();
    }
    assert_eq!(names(&tree), expected);
}

#[test]
fn layers_lie_over_each_other() {
    // Folders that an archive leaves out are made.
    check(&[&[file("a/b/c", 1)]], &["a/", "a/b/", "a/b/c 0:1"]);
    // The upper file wins, a directory keeps what it held.
    check(
        &[&[dir("a"), file("a/x", 1), file("a/y", 2)], &[dir("a"), file("a/x", 3)]],
        &["a/", "a/x 1:3", "a/y 0:2"],
    );
    // A file over a directory, and a directory over a file.
    check(&[&[file("a/x", 1), file("b", 2)], &[file("a", 3), dir("b")]], &["a 1:3", "b/"]);
    // A later entry of one archive wins over an earlier one.
    check(&[&[file("a", 1), file("a", 2)]], &["a 0:2"]);
}

#[test]
fn whiteouts_speak_of_the_layers_below_only() {
    check(&[&[file("a/x", 1), file("a/y", 2)], &[whiteout("a/x")]], &["a/", "a/y 0:2"]);
    check(&[&[file("a/x", 1)], &[file("a/x", 2), whiteout("a/x")]], &["a/", "a/x 1:2"]);
    check(&[&[file("a/x", 1)], &[whiteout("a"), file("a/z", 2)]], &["a/", "a/z 1:2"]);
    check(&[&[file("a/x", 1)], &[file("a/z", 2), opaque("a")]], &["a/", "a/z 1:2"]);
    check(&[&[file("a/b/x", 1)], &[opaque("")]], &[]);
    // A folder that replaces a link leaves alone what the link led to, wherever the archive names the folder.
    let link = [file("real/x", 1), symlink("data", "real")];
    let replaced = ["data/", "data/z 1:2", "real/", "real/x 0:1"];
    check(&[&link, &[opaque("data"), dir("data"), file("data/z", 2)]], &replaced);
    check(&[&link, &[file("data/z", 2), opaque("data"), dir("data")]], &replaced);
    // One on the way is followed.
    check(
        &[&[file("real/d/x", 1), symlink("data", "real")], &[opaque("data/d")]],
        &["data -> real", "real/", "real/d/"],
    );
    // Of what is not there, nothing goes.
    check(&[&[file("a", 1)], &[whiteout("b/c"), opaque("d"), whiteout("")]], &["a 0:1"]);
}

#[test]
fn hard_links_are_names_of_one_node() {
    let mut tree = Tree::default();
    tree.apply(0, &[file("a", 1), hard_link("d/b", "a")]).unwrap();
    tree.apply(1, &[hard_link("c", "d/b"), whiteout("a")]).unwrap();
    assert_eq!(names(&tree), ["c 0:1", "d/", "d/b 0:1"]);
    let node = tree.find(b"c").unwrap();
    assert_eq!(tree.find(b"d/b"), Some(node));
    let counts = tree.link_counts();
    assert_eq!(counts[&node], 2);
    assert_eq!(counts[&NodeId::ROOT], 3);
    assert_eq!(tree.walk().count(), 3, "each node once");
}

#[test]
fn links_that_point_nowhere_or_at_folders_are_refused() {
    for target in ["missing", "d", ""] {
        let mut tree = Tree::default();
        let error = tree.apply(0, &[dir("d"), hard_link("a", target)]).unwrap_err();
        assert_eq!(error, Error::DanglingLink { path: "a".into(), target: target.into() });
    }
}

#[test]
fn links_on_the_way_are_followed_inside_the_tree() {
    let usr = [dir("usr/lib"), symlink("lib", "usr/lib")];
    check(&[&usr, &[file("lib/x", 1)]], &["lib -> usr/lib", "usr/", "usr/lib/", "usr/lib/x 1:1"]);
    check(
        &[&usr, &[file("lib/x", 1)], &[whiteout("lib/x")]],
        &["lib -> usr/lib", "usr/", "usr/lib/"],
    );
    // Never out of it, and not for ever.
    check(
        &[&[symlink("out", "../../../etc"), file("out/passwd", 1)]],
        &["etc/", "etc/passwd 0:1", "out -> ../../../etc"],
    );
    check(
        &[&[symlink("a", "/b"), symlink("b", "a"), file("a/x", 1)]].map(|layer| &layer[..]),
        &["a/", "a/x 0:1", "b -> a"],
    );
    // The last part is never followed: a file over a link replaces the link.
    check(&[&usr, &[file("lib", 1)]], &["lib 1:1", "usr/", "usr/lib/"]);
}

#[test]
fn depth_has_a_limit() {
    let deep = "d/".repeat(DEPTH_MAX + 2) + "x";
    let mut tree = Tree::default();
    assert!(matches!(tree.apply(0, &[file(&deep, 1)]), Err(Error::TooDeep { .. })));
}
