use futures::{StreamExt, TryStreamExt, stream};
use tempfile::TempDir;

use super::*;

const START: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);
const HOUR: Duration = Duration::from_hours(1);

struct Scene {
    folder: TempDir,
    options: Options,
    store: Arc<FileStore>,
}

impl Scene {
    fn new(mut options: Options) -> Self {
        options.disk_reserve_bytes = 0;
        let folder = tempfile::tempdir().unwrap();
        let store = FileStore::open(folder.path(), options.clone(), START).unwrap();
        Self { folder, options, store }
    }

    fn reopen(&mut self) {
        self.store = FileStore::open(self.folder.path(), self.options.clone(), START).unwrap();
    }

    async fn put(&self, bytes: &[u8]) -> Result<Arc<Record>> {
        self.store.put(file(), START, body(bytes)).await
    }

    async fn read(&self, id: FileId) -> Vec<u8> {
        let record = self.store.find(id, START).unwrap();
        read(&self.store, &record, 0..record.bytes).await
    }

    /// Files on the disk below a folder of the store.
    fn on_disk(&self, below: &str) -> usize {
        fn count(folder: &std::path::Path) -> usize {
            let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
            entries.map(|path| if path.is_dir() { count(&path) } else { 1 }).sum()
        }
        count(&self.folder.path().join(below))
    }
}

async fn read(store: &Arc<FileStore>, record: &Record, range: std::ops::Range<u64>) -> Vec<u8> {
    let content = store.content(record).await.unwrap();
    content.read(range).map_ok(|chunk| chunk.to_vec()).try_concat().await.unwrap()
}

fn file() -> NewFile {
    NewFile {
        content_type: "image/png".to_owned(),
        file_name: "a b.png".to_owned(),
        owner: "me".to_owned(),
        keep: None,
        length: None,
    }
}

fn body(bytes: &[u8]) -> impl Stream<Item = Result<Bytes, String>> + use<> {
    let chunks: Vec<_> = bytes.chunks(64 * 1024).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
    stream::iter(chunks)
}

fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let step = |_| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..length).map(step).collect()
}

fn order(number: u32, part: Part) -> PartOrder {
    PartOrder { number, etag: part.etag }
}

#[tokio::test(start_paused = true)]
async fn what_comes_slowly_waits_on_the_disk() {
    let scene = Scene::new(Options::default());
    let start = stream::iter([Ok::<_, String>(Bytes::from_static(b"slow"))]);
    let store = scene.store.clone();
    let putting =
        tokio::spawn(async move { store.put(file(), START, start.chain(stream::pending())).await });
    // The clock is paused: these are minutes of nobody's.
    for _ in 0..60 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        if scene.store.usage().bytes == 4 {
            return putting.abort();
        }
    }
    panic!("it is still in memory");
}

#[tokio::test]
async fn many_small_pieces_are_not_held() {
    const PIECES: usize = 40_000;
    let scene = Scene::new(Options::default());
    let store = scene.store.clone();
    let (mut pieces, mut held_max) = (0, 0);
    let body = stream::iter(0..PIECES).map(|_| {
        held_max = held_max.max(pieces - store.usage().bytes);
        pieces += 1;
        Ok::<_, String>(Bytes::from_static(b"x"))
    });
    scene.store.put(file(), START, body).await.unwrap();
    assert!(held_max < 20_000, "{held_max} pieces of one byte were held");
}

#[tokio::test]
async fn what_was_deleted_since_it_was_found_is_no_failure_of_the_disk() {
    let scene = Scene::new(Options::default());
    let record = scene.put(b"gone").await.unwrap();
    scene.store.delete(record.id).await.unwrap();
    let error = scene.store.content(&record).await.unwrap_err();
    assert!(matches!(error, Error::NoFile { id } if id == record.id), "{error}");
}

#[tokio::test]
async fn a_file_is_read_as_it_was_put() {
    let mut scene = Scene::new(Options::default());
    for length in [0, 1, 1 << 20, (3 << 20) + 5] {
        let bytes = bytes(7, length);
        let record = scene.put(&bytes).await.unwrap();
        assert_eq!(record.bytes, length as u64);
        assert!(scene.read(record.id).await == bytes, "{length}");
        scene.reopen();
        assert_eq!(scene.store.find(record.id, START).unwrap(), record);
        assert!(scene.read(record.id).await == bytes, "{length} after reopening");
    }
    assert_eq!(scene.on_disk("tmp"), 0);
}

#[tokio::test]
async fn any_range_can_be_read() {
    let scene = Scene::new(Options::default());
    let bytes = bytes(1, 600_000);
    let record = scene.put(&bytes).await.unwrap();
    for (from, to) in [(0, 1), (5, 5), (262_143, 262_145), (0, 600_000), (599_999, 700_000)] {
        let got = read(&scene.store, &record, from as u64..to as u64).await;
        assert!(got == bytes[from..to.min(bytes.len())], "{from}..{to}");
    }
}

#[tokio::test]
async fn equal_bytes_are_kept_once_until_the_last_name_goes() {
    let mut scene = Scene::new(Options::default());
    let (one, two) = (scene.put(b"same").await.unwrap(), scene.put(b"same").await.unwrap());
    assert_ne!(one.id, two.id);
    assert_eq!(scene.on_disk("content"), 1);
    let usage = Usage { files: 2, contents: 1, uploads: 0, bytes: 4 };
    assert_eq!(scene.store.usage(), usage);
    scene.reopen();
    assert_eq!(scene.store.usage(), usage);
    assert!(scene.store.delete(one.id).await.unwrap());
    assert!(!scene.store.delete(one.id).await.unwrap());
    assert_eq!(scene.read(two.id).await, b"same");
    assert!(scene.store.delete(two.id).await.unwrap());
    assert_eq!((scene.on_disk("content"), scene.on_disk("names")), (0, 0));
    assert_eq!(scene.store.usage(), Usage::default());
}

#[tokio::test]
async fn what_is_being_read_can_be_read_to_its_end() {
    let scene = Scene::new(Options::default());
    let bytes = bytes(3, 1 << 20);
    let record = scene.put(&bytes).await.unwrap();
    let mut reading = scene.store.content(&record).await.unwrap().read(0..record.bytes);
    let mut got = reading.next().await.unwrap().unwrap().to_vec();
    scene.store.delete(record.id).await.unwrap();
    got.extend(reading.map_ok(|chunk| chunk.to_vec()).try_concat().await.unwrap());
    assert!(got == bytes);
}

#[tokio::test]
async fn files_go_when_their_time_is_over() {
    let scene = Scene::new(Options { retention: HOUR, ..Options::default() });
    let usual = scene.put(b"usual").await.unwrap();
    let short = NewFile { keep: Some(Duration::from_mins(1)), ..file() };
    let short = scene.store.put(short, START, body(b"short")).await.unwrap();
    let later = START + Duration::from_mins(1);
    assert!(scene.store.find(short.id, START + Duration::from_secs(59)).is_some());
    assert!(scene.store.find(short.id, later).is_none(), "before it is swept");
    assert_eq!(scene.store.sweep(later).await.unwrap(), Swept { files: 1, uploads: 0 });
    assert!(scene.store.find(usual.id, later).is_some());
    assert_eq!(scene.store.sweep(START + HOUR).await.unwrap(), Swept { files: 1, uploads: 0 });
    assert_eq!(scene.store.usage(), Usage::default());
}

#[tokio::test]
async fn limits_are_told_apart() {
    let limits =
        Options { file_bytes_max: 10, total_bytes_max: 25, files_max: 3, ..Options::default() };
    let scene = Scene::new(limits);
    let is_large = |result| matches!(result, Err(Error::TooLarge { limit: 10 }));
    assert!(is_large(scene.put(b"eleven bytes").await));
    let announced = NewFile { length: Some(11), ..file() };
    assert!(is_large(scene.store.put(announced, START, body(b"")).await));
    scene.put(b"ten bytes.").await.unwrap();
    scene.put(b"ten others").await.unwrap();
    let full = scene.put(b"too many").await.unwrap_err();
    assert!(matches!(&full, Error::Full { .. }), "{full}");
    scene.put(b"five.").await.unwrap();
    let many = scene.put(b"").await.unwrap_err();
    assert!(matches!(&many, Error::Full { reason } if reason.contains("3 files")), "{many}");
    assert_eq!(scene.store.usage().bytes, 25);
    assert_eq!(scene.on_disk("tmp"), 0);
}

#[tokio::test]
async fn each_owner_has_a_share() {
    let limits = Options {
        owner_bytes_max: 20,
        owner_files_max: 2,
        owner_uploads_max: 1,
        ..Options::default()
    };
    let mut scene = Scene::new(limits);
    let put = async |scene: &Scene, owner: &str, bytes: &[u8], length| {
        let file = NewFile { owner: owner.to_owned(), length, ..file() };
        scene.store.put(file, START, body(bytes)).await
    };
    let over = |result: Result<Arc<Record>>, limit, of| {
        let error = result.unwrap_err();
        assert!(
            matches!(error, Error::Quota { limit: l, of: o } if l == limit && o == of),
            "{error}"
        );
    };
    let first = put(&scene, "me", b"ten bytes.", None).await.unwrap();
    over(put(&scene, "me", b"", Some(11)).await, 20, "bytes");
    over(put(&scene, "me", b"eleven more", None).await, 20, "bytes");
    // Parts count, and stop counting once they are a file.
    let Begun { file: id, upload } = scene.store.begin_upload(file(), START).await.unwrap();
    let second = scene.store.begin_upload(file(), START).await.unwrap_err();
    assert!(matches!(second, Error::Quota { limit: 1, .. }), "{second}");
    let part = scene.store.put_part(upload, 1, None, START, body(b"five.")).await.unwrap();
    let part = match scene.store.put_part(upload, 1, None, START, body(b"again")).await {
        Ok(again) => again,
        Err(error) => panic!("{error}, though it takes the place of {part:?}"),
    };
    over(put(&scene, "me", b"six...", None).await, 20, "bytes");
    scene.reopen();
    over(put(&scene, "me", b"six...", None).await, 20, "bytes");
    let orders = vec![order(1, part)];
    scene.store.complete_upload(id, upload, orders, START).await.unwrap();
    over(put(&scene, "me", b"six...", None).await, 20, "bytes");
    over(put(&scene, "me", b"five.", None).await, 2, "files");
    // Content that is there already counts for whoever keeps it too.
    put(&scene, "you", b"ten bytes.", None).await.unwrap();
    over(put(&scene, "you", b"eleven more", None).await, 20, "bytes");
    put(&scene, "you", b"ten others", None).await.unwrap();
    scene.store.delete(first.id).await.unwrap();
    put(&scene, "me", b"fifteen in all.", None).await.unwrap();
    scene.reopen();
    over(put(&scene, "me", b"!", None).await, 20, "bytes");
    assert_eq!(scene.on_disk("tmp"), 0);
}

#[tokio::test]
async fn the_disk_is_not_filled_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { disk_reserve_bytes: u64::MAX, ..Options::default() };
    let store = FileStore::open(folder.path(), options, START).unwrap();
    let full = store.put(file(), START, body(b"x")).await.unwrap_err();
    assert!(matches!(full, Error::Full { .. }), "{full}");
    assert_eq!(store.usage(), Usage::default());
}

#[tokio::test]
async fn a_body_that_breaks_off_leaves_nothing() {
    let scene = Scene::new(Options::default());
    let broken = body(&bytes(0, 3 << 20)).chain(stream::iter([Err("gone".to_owned())]));
    let error = scene.store.put(file(), START, broken).await.unwrap_err();
    assert!(matches!(error, Error::Body { .. }), "{error}");
    assert_eq!(scene.store.usage(), Usage::default());
    assert_eq!((scene.on_disk("tmp"), scene.on_disk("content")), (0, 0));
}

#[tokio::test]
async fn a_name_given_out_before_means_the_same_bytes_for_good() {
    let scene = Scene::new(Options::default());
    let id = FileId::random();
    let put = |bytes| scene.store.put_as(id, file(), START, body(bytes));
    let first = put(b"one").await.unwrap();
    assert_eq!(put(b"one").await.unwrap(), first);
    assert!(matches!(put(b"two").await, Err(Error::Exists { .. })));
    assert_eq!(scene.store.usage(), Usage { files: 1, contents: 1, uploads: 0, bytes: 3 });
}

#[tokio::test]
async fn parts_come_in_any_order_and_again() {
    let mut scene = Scene::new(Options::default());
    let Begun { file: id, upload } = scene.store.begin_upload(file(), START).await.unwrap();
    let parts = [bytes(1, 2_000_000), bytes(2, 1), bytes(3, 500_000)];
    let put = async |scene: &Scene, number: u32, bytes: &[u8]| {
        scene.store.put_part(upload, number, None, START, body(bytes)).await.unwrap()
    };
    let third = put(&scene, 9, &parts[2]).await;
    put(&scene, 1, b"not this").await;
    assert_eq!(third, put(&scene, 9, &parts[2]).await, "the same part again");
    scene.reopen();
    let (first, second) = tokio::join!(put(&scene, 1, &parts[0]), put(&scene, 5, &parts[1]));
    assert_eq!(scene.store.usage().bytes, 2_500_001);
    let orders = vec![order(9, third), order(1, first), order(5, second)];
    let complete = || scene.store.complete_upload(id, upload, orders.clone(), START);
    let (one, two) = tokio::join!(complete(), complete());
    assert_eq!(one.unwrap(), two.unwrap(), "asked twice at once");
    assert!(scene.read(id).await == parts.concat());
    assert_eq!(scene.store.usage(), Usage { files: 1, contents: 1, uploads: 0, bytes: 2_500_001 });
    scene.reopen();
    let again = scene.store.complete_upload(id, upload, orders.clone(), START).await.unwrap();
    assert_eq!((again.id, again.bytes), (id, 2_500_001), "asked again later");
    assert_eq!((scene.on_disk("tmp"), scene.on_disk("uploads")), (0, 0));
    let late = scene.store.put_part(upload, 1, None, START, body(b"late")).await;
    assert!(matches!(late, Err(Error::NoUpload { .. })));
}

#[tokio::test]
async fn only_the_right_parts_make_a_file() {
    let limits = Options { file_bytes_max: 8, uploads_max: 1, ..Options::default() };
    let scene = Scene::new(limits);
    let Begun { file: id, upload } = scene.store.begin_upload(file(), START).await.unwrap();
    assert!(matches!(scene.store.begin_upload(file(), START).await, Err(Error::Full { .. })));
    let put = |number, bytes| scene.store.put_part(upload, number, None, START, body(bytes));
    for number in [0, PARTS_MAX + 1, u32::MAX] {
        assert!(matches!(put(number, b"x").await, Err(Error::PartNumber { .. })), "{number}");
    }
    let (one, two) = (put(1, b"four").await.unwrap(), put(PARTS_MAX, b"more").await.unwrap());
    assert!(matches!(put(3, b"!").await, Err(Error::TooLarge { .. })), "all parts together");
    let (first, last) = (order(1, one), order(PARTS_MAX, two));
    for (parts, problem) in [
        (vec![], "empty"),
        (vec![first, first], "twice"),
        (vec![first, order(2, one)], "not uploaded"),
        (vec![first, order(PARTS_MAX, one)], "another etag"),
    ] {
        let error = scene.store.complete_upload(id, upload, parts, START).await.unwrap_err();
        assert!(error.to_string().contains(problem), "{error}");
    }
    let other = scene.store.complete_upload(FileId::random(), upload, vec![first], START).await;
    assert!(matches!(other, Err(Error::NoUpload { .. })), "an upload of another file");
    let made = scene.store.complete_upload(id, upload, vec![last, first], START).await.unwrap();
    assert_eq!(scene.read(made.id).await, b"fourmore");
}

#[tokio::test]
async fn uploads_nobody_goes_on_with_are_dropped() {
    let idle = Options { upload_idle_max: HOUR, ..Options::default() };
    let scene = Scene::new(idle);
    let left = scene.store.begin_upload(file(), START).await.unwrap();
    let used = scene.store.begin_upload(file(), START).await.unwrap();
    scene.store.put_part(left.upload, 1, None, START, body(b"abc")).await.unwrap();
    let later = START + HOUR;
    scene.store.put_part(used.upload, 1, None, later, body(b"de")).await.unwrap();
    assert_eq!(scene.store.sweep(later).await.unwrap(), Swept { files: 0, uploads: 1 });
    assert_eq!(scene.store.usage(), Usage { files: 0, contents: 0, uploads: 1, bytes: 2 });
    assert!(scene.store.abort_upload(used.upload).await.unwrap());
    assert!(!scene.store.abort_upload(used.upload).await.unwrap());
    assert_eq!(scene.store.usage(), Usage::default());
    assert_eq!((scene.on_disk("tmp"), scene.on_disk("uploads")), (0, 0));
}

#[tokio::test]
async fn opening_removes_what_has_no_name_and_names_without_content() {
    let mut scene = Scene::new(Options::default());
    let (kept, lost) = (scene.put(b"kept").await.unwrap(), scene.put(b"lost").await.unwrap());
    let cut = scene.put(b"cut off").await.unwrap();
    let root = scene.folder.path().to_owned();
    let content = |record: &Record| scene.store.folder.content(record.content);
    std::fs::remove_file(content(&lost)).unwrap();
    std::fs::write(content(&cut), b"cut").unwrap();
    let orphan = "ab".repeat(32);
    std::fs::write(root.join("content/ab").join(&orphan), b"orphan").unwrap();
    std::fs::write(root.join("tmp/7"), b"half").unwrap();
    std::fs::create_dir(root.join("uploads/not-an-id")).unwrap();
    std::fs::write(root.join("names/00/nonsense.json"), b"{").unwrap();
    scene.reopen();
    assert_eq!(scene.store.usage(), Usage { files: 1, contents: 1, uploads: 0, bytes: 4 });
    assert_eq!(scene.read(kept.id).await, b"kept");
    for (below, files) in [("content", 1), ("names", 1), ("tmp", 0), ("uploads", 0)] {
        assert_eq!(scene.on_disk(below), files, "{below}");
    }
}

#[test]
fn ids_have_one_spelling() {
    let id = FileId([0xa0; 16]);
    let text = "a0".repeat(16);
    assert_eq!(id.to_string(), text);
    for (text, expected) in [
        (text.as_str(), Some(id)),
        (&text.to_uppercase(), None),
        (&text[1..], None),
        ("../../../../../../etc/passwd/....", None),
        ("", None),
        (&"é".repeat(16), None),
    ] {
        assert_eq!(text.parse().ok(), expected, "{text}");
    }
    assert_ne!(FileId::random(), FileId::random());
}
