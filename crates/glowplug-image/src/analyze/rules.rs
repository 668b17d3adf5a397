//! What can be told by names alone.

use super::{Claim, Free, Kind};
use crate::analyze::overlay::Present;

/// Smaller files may be part of a program.
const WEIGHT_BYTES_MIN: u64 = 64 << 20;
const WEIGHTS: [&[u8]; 12] = [
    b".safetensors",
    b".bin",
    b".pt",
    b".pth",
    b".gguf",
    b".ggml",
    b".onnx",
    b".ckpt",
    b".h5",
    b".npz",
    b".tflite",
    b".engine",
];

/// Title, change, what a path begins with, and folders that it has in it.
type Cache = (&'static str, &'static str, &'static [&'static [u8]], &'static [&'static [u8]]);

/// What package managers keep for the next time, which does not come.
const CACHES: [Cache; 9] = [
    (
        "pip's cache of wheels",
        "`pip install --no-cache-dir …`, or `ENV PIP_NO_CACHE_DIR=1`",
        &[],
        &[b".cache/pip/"],
    ),
    (
        "lists and archives of apt",
        "`apt-get update && apt-get install … && rm -rf /var/lib/apt/lists/* /var/cache/apt/*` in one `RUN`, or \
         `RUN --mount=type=cache,target=/var/cache/apt`",
        &[b"var/lib/apt/lists/", b"var/cache/apt/"],
        &[],
    ),
    ("apk's cache", "`apk add --no-cache …`", &[b"var/cache/apk/", b"etc/apk/cache/"], &[]),
    (
        "caches of dnf and yum",
        "`dnf clean all` in the `RUN` that installs",
        &[b"var/cache/dnf/", b"var/cache/yum/"],
        &[],
    ),
    (
        "conda's cache of packages",
        "`conda clean --all --yes` in the `RUN` that installs",
        &[],
        &[b"conda/pkgs/", b"conda3/pkgs/", b"mamba/pkgs/", b"miniforge3/pkgs/"],
    ),
    (
        "caches of npm, yarn and pnpm",
        "`npm ci && npm cache clean --force` in one `RUN`, or a cache mount (`RUN --mount=type=cache`)",
        &[],
        &[
            b".npm/_cacache/",
            b".cache/yarn/",
            b".yarn/cache/",
            b".local/share/pnpm/store/",
            b"node_modules/.cache/",
        ],
    ),
    (
        "uv's cache",
        "`uv sync --no-cache`, or a cache mount (`RUN --mount=type=cache`)",
        &[],
        &[b".cache/uv/"],
    ),
    (
        "caches of compilers and builds",
        "build in another stage, or with `RUN --mount=type=cache`",
        &[b"root/go/pkg/mod/", b"go/pkg/mod/"],
        &[
            b".cache/go-build/",
            b".cache/ccache/",
            b".ccache/",
            b".cargo/registry/",
            b".cargo/git/",
            b".cache/bazel/",
        ],
    ),
    (
        "models that a program has downloaded",
        "keep them in `/data`, which outlives runners and is shared by them (`HF_HOME=/data/huggingface`)",
        &[],
        &[b".cache/huggingface/", b".cache/torch/hub/", b".cache/whisper/"],
    ),
];

/// First come, first counted: the order is that of what is surest.
pub(super) fn claim(free: &mut Free<'_, '_>, claims: &mut Vec<Claim>) {
    for (title, change, begins, has) in CACHES {
        let is_cached = |file: &Present<'_>| {
            begins.iter().any(|start| file.path.starts_with(start))
                || has.iter().any(|part| has_folder(file.path, part))
        };
        let files = free.take(is_cached);
        claims.push(Claim::of_present(Kind::PackageCache, title, change, &files));
    }
    let files = free.take(is_weight);
    claims.push(Claim::of_present(
        Kind::Weights,
        "model weights",
        "keep them in `/data`, which outlives runners and is shared by them, and fetch them once: in an image they \
         are pulled again with every change below them",
        &files,
    ));
    let files = free.take(|file| is_context(file.path));
    claims.push(Claim::of_present(
        Kind::BuildContext,
        "what belongs to a working copy and not to a program",
        "name `.git`, `.venv`, test data and caches in `.dockerignore`",
        &files,
    ));
}

/// After what packages say.
pub(super) fn claim_late(free: &mut Free<'_, '_>, claims: &mut Vec<Claim>) {
    let files = free.take(|file| file.path.ends_with(b".a") || file.path.ends_with(b"_static.lib"));
    claims.push(Claim::of_present(
        Kind::StaticLibraries,
        "static libraries",
        "link in another stage and copy the result: nothing loads them when a program runs. Of NVIDIA's images take \
         `runtime` or `base` instead of `devel`",
        &files,
    ));
    let files = free.take(|file| is_debug(file.path));
    claims.push(Claim::of_present(
        Kind::DebugSymbols,
        "debug symbols",
        "leave `-dbg` packages out, and `strip` what you build",
        &files,
    ));
    let files = free.take(|file| is_documentation(file.path));
    claims.push(Claim::of_present(
        Kind::Documentation,
        "documentation and translations",
        "`path-exclude=/usr/share/doc/*` (and `man`, `locale`) in `/etc/dpkg/dpkg.cfg.d` before the first install, or \
         a `slim` base image",
        &files,
    ));
    claims.push(duplicates(free));
}

/// All copies of a content but the first.
fn duplicates(free: &mut Free<'_, '_>) -> Claim {
    let mut seen = std::collections::HashSet::new();
    let mut again = std::collections::HashSet::new();
    for file in &free.files {
        if let Some(id) = file.id
            && !seen.insert(id)
        {
            again.insert(file.path);
        }
    }
    let files = free.take(|file| again.contains(file.path));
    Claim::of_present(
        Kind::Duplicates,
        "files that the image has more than once",
        "keep one and link to it (`ln`), or install the package once: a registry and a download do not know that \
         they are equal. On this node's disk they are one",
        &files,
    )
}

/// Whether a path has these folders in it, from the beginning of a name on.
fn has_folder(path: &[u8], folders: &[u8]) -> bool {
    path.starts_with(folders)
        || path.windows(folders.len() + 1).any(|part| part[0] == b'/' && &part[1..] == folders)
}

fn is_weight(file: &Present<'_>) -> bool {
    file.bytes >= WEIGHT_BYTES_MIN && WEIGHTS.iter().any(|end| file.path.ends_with(end))
}

fn is_context(path: &[u8]) -> bool {
    const FOLDERS: [&[u8]; 5] =
        [b".git/", b".pytest_cache/", b".mypy_cache/", b".ipynb_checkpoints/", b".tox/"];
    FOLDERS.iter().any(|folder| has_folder(path, folder))
}

fn is_debug(path: &[u8]) -> bool {
    path.starts_with(b"usr/lib/debug/") || path.ends_with(b".debug") || path.ends_with(b".dwo")
}

fn is_documentation(path: &[u8]) -> bool {
    const FOLDERS: [&[u8]; 6] = [
        b"usr/share/doc/",
        b"usr/share/man/",
        b"usr/share/info/",
        b"usr/share/locale/",
        b"usr/share/gtk-doc/",
        b"usr/local/share/man/",
    ];
    FOLDERS.iter().any(|folder| path.starts_with(folder))
}
