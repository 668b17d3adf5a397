use super::*;

fn digest(number: u8) -> Digest {
    Digest::of_hash([number; 32])
}

fn content(number: u8) -> ContentId {
    ContentId::of_hash(blake3::Hash::from_bytes([number; 32]))
}

/// Trees of 1 byte, layers of 10 bytes, contents of 100. Images: number, last use, whether it is kept, layers.
/// Layers: number, contents.
fn holding(images: &[(u8, Option<u64>, bool, &[u8])], layers: &[(u8, &[u8])]) -> Holding {
    let mut holding = Holding::default();
    for (number, last_use, is_kept, layers) in images {
        let layers = layers.iter().copied().map(digest).collect();
        let last_use = last_use.map(Timestamp::from_secs);
        let image = HeldImage { bytes: 1, last_use, is_in_use: false, is_kept: *is_kept, layers };
        holding.images.insert(digest(*number), image);
    }
    for (number, contents) in layers {
        let contents: Vec<_> = contents.iter().copied().map(content).collect();
        holding.contents.extend(contents.iter().map(|content| (*content, 100)));
        holding
            .layers
            .insert(digest(*number), HeldLayer { bytes: 10, contents, is_damaged: false });
    }
    holding
}

fn check(holding: &Holding, budget_bytes: u64, expected: &[u8]) {
    let expected: Vec<_> = expected.iter().copied().map(digest).collect();
    assert_eq!(holding.images_to_remove(budget_bytes), expected, "{budget_bytes} bytes");
}

#[test]
fn images_go_by_their_last_use_until_the_rest_fits() {
    let layers: &[(u8, &[u8])] = &[(1, &[1]), (2, &[2]), (3, &[3])];
    let holding = holding(
        &[(1, Some(30), false, &[1]), (2, Some(10), false, &[2]), (3, None, false, &[3])],
        layers,
    );
    check(&holding, 333, &[]);
    check(&holding, 332, &[3]);
    check(&holding, 221, &[3, 2]);
    check(&holding, 0, &[3, 2, 1]);
}

#[test]
fn what_is_in_use_or_wanted_stays_however_full_it_is() {
    let holding = holding(&[(1, Some(1), true, &[1]), (2, Some(2), false, &[1])], &[(1, &[1])]);
    check(&holding, 0, &[2]);
}

#[test]
fn what_another_image_needs_makes_no_room() {
    // The two oldest share everything: only when both are gone is it free.
    let images: &[(u8, Option<u64>, bool, &[u8])] =
        &[(1, Some(1), false, &[1]), (2, Some(2), false, &[1, 2]), (3, Some(3), false, &[3])];
    let holding = holding(images, &[(1, &[1, 2]), (2, &[2]), (3, &[2])]);
    // 3 trees, 3 layers, 2 contents.
    check(&holding, 233, &[]);
    check(&holding, 232, &[1]);
    check(&holding, 231, &[1, 2]);
    // The third has content 2 as well.
    check(&holding, 111, &[1, 2]);
    check(&holding, 110, &[1, 2, 3]);
}

#[test]
fn what_nothing_needs_is_an_orphan() {
    let mut holding = holding(&[(1, None, false, &[1])], &[(1, &[1]), (2, &[1, 2])]);
    assert_eq!(holding.orphaned_layers(), [digest(2)]);
    assert_eq!(holding.orphaned_contents(), []);
    holding.layers.remove(&digest(2));
    assert_eq!(holding.orphaned_contents(), [content(2)]);
}
