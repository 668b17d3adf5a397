use super::*;
use crate::ContentId;
use crate::layer::{Content, EntryKind, Meta};

const MIB: u64 = 1 << 20;

fn file(path: &str, id: u8, bytes: u64) -> Entry {
    let id = ContentId::from(blake3::hash(&[id]));
    let kind = EntryKind::File(Content::Shared { id, bytes });
    Entry { path: path.into(), meta: Meta::default(), kind }
}

fn plain(path: &str, kind: EntryKind) -> Entry {
    Entry { path: path.into(), meta: Meta::default(), kind }
}

fn subject(layers: Vec<Vec<Entry>>) -> Subject {
    let layer = |entries| SubjectLayer { entries, ..SubjectLayer::default() };
    Subject { layers: layers.into_iter().map(layer).collect(), ..Subject::default() }
}

/// Kind and MiB of each finding, in no order of worth.
fn found(subject: &Subject) -> Vec<(Kind, u64)> {
    let report = judge(subject, Rates::default());
    let mut found: Vec<_> =
        report.findings.iter().map(|finding| (finding.kind, finding.bytes / MIB)).collect();
    found.sort_unstable();
    found
}

#[test]
fn bytes_that_nobody_sees_are_found() {
    let lower = vec![
        plain("d", EntryKind::Directory),
        file("d/replaced", 1, 10 * MIB),
        file("d/owned", 2, 20 * MIB),
        file("d/deleted", 3, 30 * MIB),
        file("opaque/a", 4, 5 * MIB),
        file("folder/a/b", 5, 6 * MIB),
        file("folders", 6, MIB),
    ];
    let upper = vec![
        file("d/replaced", 7, 2 * MIB),
        file("d/owned", 2, 20 * MIB),
        plain("d/deleted", EntryKind::Whiteout),
        plain("opaque", EntryKind::OpaqueDirectory),
        plain("folder", EntryKind::Whiteout),
        // Meant for lower layers: what is here stays.
        file("opaque/b", 8, 4 * MIB),
    ];
    let subject = subject(vec![lower, upper]);
    let expected = [(Kind::Deleted, 41), (Kind::Overwritten, 10), (Kind::Rewritten, 20)];
    assert_eq!(found(&subject), expected);
    let report = judge(&subject, Rates::default());
    assert_eq!(report.visible_bytes, 27 * MIB);
    assert_eq!(report.layers[0].lost_bytes, 71 * MIB);
}

#[test]
fn every_byte_counts_once() {
    let files = vec![
        file("root/.cache/pip/http/x", 1, 3 * MIB),
        file("var/lib/apt/lists/x_Packages", 2, 4 * MIB),
        file("opt/conda/pkgs/x.conda", 3, 5 * MIB),
        file("models/a.safetensors", 4, 100 * MIB),
        file("models/small.bin", 5, 60 * MIB),
        file("app/.git/objects/pack/x.pack", 6, 6 * MIB),
        file("usr/lib/x.a", 7, 7 * MIB),
        file("usr/lib/debug/x", 8, 8 * MIB),
        file("usr/share/doc/x", 9, 9 * MIB),
        file("usr/lib/python/one", 10, 11 * MIB),
        file("venv/lib/python/two", 10, 11 * MIB),
        // Neither a cache nor a copy of a working folder.
        file("usr/lib/mypip/x", 11, 2 * MIB),
        file("x.cache/pip", 12, 2 * MIB),
    ];
    let mut subject = subject(vec![files]);
    let all = [
        (Kind::Weights, 100),
        (Kind::PackageCache, 3),
        (Kind::PackageCache, 4),
        (Kind::PackageCache, 5),
        (Kind::StaticLibraries, 7),
        (Kind::DebugSymbols, 8),
        (Kind::Documentation, 9),
        (Kind::BuildContext, 6),
        (Kind::Duplicates, 11),
    ];
    assert_eq!(found(&subject), all);
    let touched = ["usr/lib/python/one", "models/small.bin"];
    subject.touched = Some(touched.map(|path| path.as_bytes().to_vec()).into());
    let expected: Vec<_> = all.into_iter().chain([(Kind::Untouched, 4)]).collect();
    assert_eq!(found(&subject), expected);
    let report = judge(&subject, Rates::default());
    assert_eq!(report.touched_bytes, Some(71 * MIB));
    let weights = report.findings.iter().find(|finding| finding.kind == Kind::Weights).unwrap();
    assert_eq!(weights.start_seconds.to_bits(), 0.0_f64.to_bits(), "no start touched it");
}

#[test]
fn cuda_that_comes_twice_is_told_with_the_wheels_kept() {
    let wheel = "usr/lib/python3.12/site-packages/nvidia/cublas/lib/libcublas.so.12";
    let files = vec![
        file(wheel, 1, 300 * MIB),
        file("usr/local/cuda-12.4/targets/x86_64-linux/lib/libcublas.so.12.4.5", 2, 400 * MIB),
        file("usr/local/cuda-12.4/targets/x86_64-linux/lib/libcufft.so.11", 3, 50 * MIB),
    ];
    let report = judge(&subject(vec![files]), Rates::default());
    let [only] = &report.findings[..] else { panic!("{:?}", report.findings) };
    assert_eq!((only.kind, only.bytes, only.files), (Kind::CudaTwice, 400 * MIB, 1));
}

#[test]
fn what_is_installed_is_told_with_its_size() {
    let mut subject = subject(vec![vec![
        file("usr/bin/gcc-12", 1, 20 * MIB),
        file("usr/lib/x.so", 2, 30 * MIB),
        file("lib/p/torch-2.1.dist-info/RECORD", 3, 100),
        file("srv/node_modules/@a/b/index.js", 4, 2 * MIB),
        file("srv/node_modules/@a/b/node_modules/c/x", 5, MIB),
    ]]);
    let texts: [(&str, &str); 4] = [
        (
            "var/lib/dpkg/status",
            "Package: gcc-12\nStatus: install ok installed\nVersion: 12.2\nArchitecture: amd64\n\n\
             Package: libx\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n",
        ),
        ("var/lib/dpkg/info/gcc-12.list", "/.\n/usr\n/usr/bin/gcc-12\n"),
        // As packages of before the merge of `/lib` into `/usr/lib` say it.
        ("var/lib/dpkg/info/libx:amd64.list", "/.\n/lib/x.so\n"),
        (
            "lib/p/torch-2.1.dist-info/RECORD",
            "torch/a.py,sha256=x,1000\n\"torch/b,c.so\",sha256=y,9000\n",
        ),
    ];
    subject.texts = texts.map(|(path, text)| (path.into(), text.into())).into();
    let report = judge(&subject, Rates::default());
    let packages: Vec<_> = report
        .packages
        .iter()
        .map(|package| (package.manager, &*package.name, &*package.version, package.bytes))
        .collect();
    let expected = [
        ("dpkg", "libx", "1", 30 * MIB),
        ("dpkg", "gcc-12", "12.2", 20 * MIB),
        ("node", "@a/b", "", 2 * MIB),
        ("node", "c", "", MIB),
        ("python", "torch", "2.1", 10_000),
    ];
    assert_eq!(packages, expected);
    let [tools] = &report.findings[..] else { panic!("{:?}", report.findings) };
    assert_eq!((tools.kind, tools.bytes), (Kind::BuildTools, 20 * MIB));
    assert!(tools.title.ends_with("gcc-12"), "{}", tools.title);
}

#[test]
fn apk_keeps_its_list_in_one_file() {
    let mut subject = subject(vec![vec![file("bin/busybox", 1, 2 * MIB)]]);
    let text = "C:Q1\nP:busybox\nV:1.36\nF:bin\nR:busybox\nZ:Q1x\n\nP:empty\nV:1\n";
    subject.texts = [(packages::APK.to_vec(), text.into())].into();
    let report = judge(&subject, Rates::default());
    assert_eq!(report.packages.len(), 1);
    assert_eq!((&*report.packages[0].name, report.packages[0].bytes), ("busybox", 2 * MIB));
}

#[test]
fn installing_after_copying_is_told() {
    let check = |copy: &str, expected: bool| {
        let mut subject = subject(vec![
            vec![file("etc/os-release", 1, 1)],
            vec![file("app/main.py", 2, 1)],
            vec![file("usr/lib/x", 3, 50 * MIB)],
        ]);
        let steps = [
            "/bin/sh -c #(nop) ADD file:1 in / ",
            copy,
            "RUN /bin/sh -c pip install -r requirements.txt",
        ];
        for (layer, step) in subject.layers.iter_mut().zip(steps) {
            layer.made_by = Some(step.to_owned());
        }
        let kinds: Vec<_> = found(&subject).into_iter().map(|(kind, _)| kind).collect();
        assert_eq!(kinds.contains(&Kind::LayerOrder), expected, "{copy}");
    };
    check("COPY . /app # buildkit", true);
    check("/bin/sh -c #(nop) COPY dir:0123 in /app ", true);
    check("COPY requirements.txt . # buildkit", false);
    check("COPY --from=build . /app # buildkit", false);
}

#[test]
fn what_saves_most_comes_first_and_a_pull_is_as_slow_as_its_slower_half() {
    let rates =
        Rates { downloaded_bytes_per_second: 1_000_000, inflated_bytes_per_second: 10_000_000 };
    for (compressed, bytes, expected) in [(4_000_000, 8_000_000, 4.0), (100_000, 8_000_000, 0.8)] {
        assert!((rates.pull_seconds(compressed, bytes) - expected).abs() < 1e-9);
    }
    let mut subject = subject(vec![
        vec![file("usr/share/doc/x", 1, 20 * MIB)],
        vec![file("usr/lib/debug/x", 2, 20 * MIB)],
    ]);
    subject.layers[0].compressed_bytes = Some(MIB);
    subject.layers[1].compressed_bytes = Some(19 * MIB);
    let report = judge(&subject, rates);
    let kinds: Vec<_> = report.findings.iter().map(|finding| finding.kind).collect();
    assert_eq!(kinds, [Kind::DebugSymbols, Kind::Documentation]);
    assert_eq!(report.findings[0].compressed_bytes, 19 * MIB);
}
