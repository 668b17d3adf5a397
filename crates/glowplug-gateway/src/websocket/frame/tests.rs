use proptest::prelude::*;

use super::*;

const BYTES_MAX: u64 = 1_000;

/// Everything passed on, and the fault that stopped it.
fn scan(sender: Sender, pieces: &[&[u8]]) -> (Vec<u8>, Vec<Kind>, Option<Fault>) {
    let mut scanner = Scanner::new(sender, BYTES_MAX);
    let (mut passed, mut kinds) = (Vec::new(), Vec::new());
    for piece in pieces {
        let mut input = *piece;
        loop {
            match scanner.next(&mut input) {
                Ok(Some(part)) => {
                    passed.extend_from_slice(part.head);
                    passed.extend_from_slice(part.payload);
                    if part.ends_frame {
                        kinds.push(part.kind);
                    }
                }
                Ok(None) => break,
                Err(fault) => return (passed, kinds, Some(fault)),
            }
        }
        assert!(input.is_empty());
    }
    (passed, kinds, None)
}

fn frame(first: u8, bytes: usize) -> Vec<u8> {
    let mut out = BytesMut::new();
    head(first & 0x0f, bytes, &mut out);
    out[0] = first;
    out.extend(std::iter::repeat_n(b'x', bytes));
    out.to_vec()
}

#[test]
fn allowed_frames_pass_as_they_are_in_any_pieces() {
    let frames = [
        frame(0x81, 5),
        frame(0x02, 130),
        frame(0x89, 3),
        frame(0x00, 0),
        frame(0x80, 700),
        frame(0x82, 0),
        frame(0x88, 2),
    ];
    let all = frames.concat();
    let last = |last| Kind::Data { last };
    let kinds = [
        last(true),
        last(false),
        Kind::Keepalive,
        last(false),
        last(true),
        last(true),
        Kind::Close,
    ];
    for size in [1, 2, 3, 7, 64, all.len()] {
        let pieces: Vec<&[u8]> = all.chunks(size).collect();
        assert_eq!(scan(Sender::App, &pieces), (all.clone(), kinds.to_vec(), None), "{size}");
    }
}

#[test]
fn nothing_of_a_forbidden_frame_passes() {
    let good = frame(0x82, 4);
    let protocol = |bad: &[u8]| {
        let (passed, _, fault) = scan(Sender::App, &[&good, bad]);
        assert_eq!(passed, good, "{bad:?}");
        assert!(matches!(fault, Some(Fault::Protocol(_))), "{bad:?}: {fault:?}");
    };
    protocol(&[0x82, 0x84, 1, 2, 3, 4, 5, 6, 7, 8]);
    protocol(&frame(0x80, 3));
    protocol(&frame(0x83, 3));
    protocol(&frame(0x8b, 3));
    protocol(&frame(0x09, 3));
    protocol(&frame(0x88, 126));
    let (passed, _, fault) = scan(Sender::App, &[&frame(0x02, 3), &frame(0x81, 3)]);
    assert_eq!(passed, frame(0x02, 3));
    assert_eq!(fault, Some(Fault::Protocol("a message begins within another")));
    let (passed, _, fault) = scan(Sender::Caller, &[&good]);
    assert_eq!(
        (passed.as_slice(), fault),
        (&[][..], Some(Fault::Protocol("a caller's frame is not masked")))
    );
}

#[test]
fn a_message_is_as_large_as_all_its_frames() {
    let too_large = Some(Fault::TooLarge { bytes_max: BYTES_MAX });
    assert_eq!(scan(Sender::App, &[&frame(0x82, 1_000)]).2, None);
    assert_eq!(scan(Sender::App, &[&frame(0x82, 1_001)]).2, too_large);
    let (whole, rest) = (frame(0x02, 600), frame(0x00, 600));
    assert_eq!(scan(Sender::App, &[&whole, &rest]).2, too_large);
    let huge = [0x82, 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    assert_eq!(scan(Sender::App, &[&huge]).2, too_large);
    let mut first = whole.clone();
    first[0] = 0x02;
    let rest = [127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    let rest = [&[0x80][..], &rest].concat();
    assert_eq!(scan(Sender::App, &[&first, &rest]).2, too_large);
}

#[test]
fn our_frames_are_allowed() {
    let mut out = BytesMut::new();
    for bytes in [0, 125, 126, 900] {
        text(&"x".repeat(bytes), &mut out);
    }
    ping(&mut out);
    close(Sender::Caller, 1001, &"ä".repeat(100), &mut out);
    let (passed, kinds, fault) = scan(Sender::App, &[&out]);
    assert_eq!((passed.as_slice(), kinds.len(), fault), (&out[..], 6, None));
    let mut out = BytesMut::new();
    close(Sender::App, 1001, "gone", &mut out);
    assert_eq!(scan(Sender::Caller, &[&out]), (out.to_vec(), vec![Kind::Close], None));
    let unmasked: Vec<u8> =
        out[6..].iter().zip(out[2..6].iter().cycle()).map(|(a, b)| a ^ b).collect();
    assert_eq!(unmasked, b"\x03\xe9gone");
}

proptest! {
    #[test]
    fn no_bytes_panic_and_what_passes_is_a_prefix(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..10),
    ) {
        for sender in [Sender::Caller, Sender::App] {
            let slices: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            let (passed, _, _) = scan(sender, &slices);
            prop_assert!(pieces.concat().starts_with(&passed));
        }
    }
}
