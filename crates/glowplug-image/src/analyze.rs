//! What is in an image, what of it is paid for without need, and what to change.
//!
//! ```text
//! store, folder ──gather──► Subject ──judge──► Report
//! ```
//!
//! Judging is a function of the subject: names, sizes and contents' hashes of all files, layer by layer, and the
//! few small files that say what is installed. Each byte counts towards one finding only, so that what findings
//! save can be added up.
//!
//! **Limits.** [`EXAMPLES_MAX`], [`PACKAGES_MAX`], [`FOLDERS_MAX`]; sizes as they are downloaded are those of a
//! file's layer, spread evenly over its files, since no registry says more.

mod cost;
mod cuda;
mod dpkg;
pub mod gather;
mod layers;
mod overlay;
mod packages;
mod rules;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

pub use self::cost::Rates;
use self::cost::Size;
use self::overlay::{Lost, Overlay, Present};
pub use self::packages::Package;
use crate::layer::Entry;

/// Files that a finding names.
pub const EXAMPLES_MAX: usize = 8;
/// The largest.
pub const PACKAGES_MAX: usize = 200;
pub const FOLDERS_MAX: usize = 40;
/// What frees less is not worth a change.
const FINDING_BYTES_MIN: u64 = 1 << 20;

/// An image as it is judged.
#[derive(Clone, Debug, Default)]
pub struct Subject {
    pub name: String,
    /// Lowest first.
    pub layers: Vec<SubjectLayer>,
    /// By path: what says what is installed.
    pub texts: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What recorded starts touched. `None`: no start was recorded.
    pub touched: Option<BTreeSet<Vec<u8>>>,
}

#[derive(Clone, Debug, Default)]
pub struct SubjectLayer {
    pub digest: Option<String>,
    /// The step of the build that made it, where the image says so.
    pub made_by: Option<String>,
    /// `None`: not known.
    pub compressed_bytes: Option<u64>,
    pub entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    pub name: String,
    pub compressed_bytes: u64,
    /// Of all files of all layers.
    pub bytes: u64,
    /// Of the files that can be seen.
    pub visible_bytes: u64,
    pub files: usize,
    /// Of a pull of all of it.
    pub pull_seconds: f64,
    /// Of the files that recorded starts touched. `None`: no start was recorded.
    pub touched_bytes: Option<u64>,
    pub rates: Rates,
    pub layers: Vec<LayerLine>,
    /// Those with most bytes first.
    pub packages: Vec<Package>,
    /// Those with most bytes first.
    pub folders: Vec<FolderLine>,
    /// What saves most first.
    pub findings: Vec<Finding>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerLine {
    pub digest: Option<String>,
    pub made_by: Option<String>,
    pub compressed_bytes: u64,
    pub bytes: u64,
    /// Of its files that later layers took away again.
    pub lost_bytes: u64,
    pub files: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FolderLine {
    pub path: String,
    pub bytes: u64,
    pub files: usize,
}

/// What is paid for without need.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    pub kind: Kind,
    pub title: String,
    /// What to do about it.
    pub change: String,
    pub compressed_bytes: u64,
    pub bytes: u64,
    pub files: usize,
    /// What a full pull is shorter without it.
    pub pull_seconds: f64,
    /// What a start is shorter without it that needs the image first, and fetches only what it touches if that is
    /// known.
    pub start_seconds: f64,
    /// The largest.
    pub examples: Vec<Example>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Deleted,
    Overwritten,
    Rewritten,
    Weights,
    PackageCache,
    CudaTwice,
    BuildTools,
    StaticLibraries,
    DebugSymbols,
    Recommended,
    Documentation,
    BuildContext,
    Duplicates,
    LayerOrder,
    Untouched,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Example {
    pub path: String,
    pub bytes: u64,
}

/// A finding before it is priced.
#[derive(Debug)]
struct Claim {
    kind: Kind,
    title: String,
    change: String,
    /// Path, layer and bytes of each file.
    files: Vec<(Vec<u8>, usize, u64)>,
}

impl Claim {
    fn of_present(kind: Kind, title: &str, change: &str, files: &[&Present<'_>]) -> Self {
        let file = |file: &&Present<'_>| (file.path.to_vec(), file.layer, file.bytes);
        Self {
            kind,
            title: title.to_owned(),
            change: change.to_owned(),
            files: files.iter().map(file).collect(),
        }
    }
}

/// Judges an image.
pub fn judge(subject: &Subject, rates: Rates) -> Report {
    let overlay = Overlay::of(subject);
    let sizes: Vec<Size> = subject.layers.iter().map(Size::of).collect();
    let packages = packages::all(subject, &overlay);
    let mut claims = lost(&overlay);
    let mut free = Free::of(&overlay);
    rules::claim(&mut free, &mut claims);
    cuda::claim(&mut free, &mut claims);
    dpkg::claim(subject, &mut free, &mut claims);
    rules::claim_late(&mut free, &mut claims);
    let order = layers::order(subject);
    if let Some(touched) = &subject.touched {
        claims.extend(untouched(&mut free, touched));
    }
    let priced = |claim: &Claim| price(claim, &sizes, &rates, subject.touched.as_ref());
    let mut findings: Vec<Finding> =
        claims.iter().filter(|claim| bytes(claim) >= FINDING_BYTES_MIN).map(priced).collect();
    findings.extend(order.map(|order| order.price(&sizes, &rates)));
    findings.sort_by(|one, other| {
        let seconds = |finding: &Finding| finding.pull_seconds + finding.start_seconds;
        seconds(other).total_cmp(&seconds(one)).then(one.kind.cmp(&other.kind))
    });
    let lost_bytes = |layer: usize| -> u64 {
        overlay.lost.iter().filter(|lost| lost.layer == layer).map(|lost| lost.bytes).sum()
    };
    let line = |(number, layer): (usize, &SubjectLayer)| LayerLine {
        digest: layer.digest.clone(),
        made_by: layer.made_by.clone(),
        compressed_bytes: sizes[number].compressed_bytes,
        bytes: sizes[number].bytes,
        lost_bytes: lost_bytes(number),
        files: sizes[number].files,
    };
    let touched_bytes = subject.touched.as_ref().map(|touched| {
        overlay
            .present
            .iter()
            .filter(|file| touched.contains(file.path))
            .map(|file| file.bytes)
            .sum()
    });
    Report {
        name: subject.name.clone(),
        compressed_bytes: sizes.iter().map(|size| size.compressed_bytes).sum(),
        bytes: sizes.iter().map(|size| size.bytes).sum(),
        visible_bytes: overlay.present.iter().map(|file| file.bytes).sum(),
        files: overlay.present.len(),
        pull_seconds: sizes
            .iter()
            .map(|size| rates.pull_seconds(size.compressed_bytes, size.bytes))
            .sum(),
        touched_bytes,
        rates,
        layers: subject.layers.iter().enumerate().map(line).collect(),
        packages,
        folders: folders(&overlay),
        findings,
    }
}

fn bytes(claim: &Claim) -> u64 {
    claim.files.iter().map(|(_, _, bytes)| bytes).sum()
}

fn price(
    claim: &Claim,
    sizes: &[Size],
    rates: &Rates,
    touched: Option<&BTreeSet<Vec<u8>>>,
) -> Finding {
    let (mut compressed, mut needed, mut needed_bytes) = (0, 0, 0);
    for (path, layer, bytes) in &claim.files {
        let share = sizes[*layer].compressed(*bytes);
        compressed += share;
        if touched.is_none_or(|touched| touched.contains(path)) {
            needed += share;
            needed_bytes += bytes;
        }
    }
    let bytes = bytes(claim);
    let mut largest: Vec<_> = claim.files.iter().collect();
    largest.sort_by(|one, other| (other.2, &one.0).cmp(&(one.2, &other.0)));
    let example = |(path, _, bytes): &&(Vec<u8>, usize, u64)| Example {
        path: String::from_utf8_lossy(path).into_owned(),
        bytes: *bytes,
    };
    Finding {
        kind: claim.kind,
        title: claim.title.clone(),
        change: claim.change.clone(),
        compressed_bytes: compressed,
        bytes,
        files: claim.files.len(),
        pull_seconds: rates.pull_seconds(compressed, bytes),
        start_seconds: rates.pull_seconds(needed, needed_bytes),
        examples: largest.iter().take(EXAMPLES_MAX).map(example).collect(),
    }
}

/// What no layer shows any more.
fn lost(overlay: &Overlay<'_>) -> Vec<Claim> {
    let claim = |kind, title: &str, change: &str| {
        let lost = overlay.lost.iter().filter(|lost| lost.kind == kind);
        let files =
            lost.map(|lost: &Lost<'_>| (lost.path.to_vec(), lost.layer, lost.bytes)).collect();
        Claim { kind, title: title.to_owned(), change: change.to_owned(), files }
    };
    vec![
        claim(
            Kind::Deleted,
            "files that a later layer deletes",
            "delete in the step that makes them (`RUN make && rm …`), or build in another stage and `COPY --from` \
             the result: a deletion in a later step hides bytes and pulls them all the same",
        ),
        claim(
            Kind::Rewritten,
            "files that a later layer has again with other owners or modes",
            "set owners and modes where files come in (`COPY --chown=… --chmod=…`), not by `RUN chown -R` later: \
             that copies every file into one more layer",
        ),
        claim(
            Kind::Overwritten,
            "files that a later layer replaces",
            "write them once: put the steps together, or leave the first version out",
        ),
    ]
}

fn untouched(free: &mut Free<'_, '_>, touched: &BTreeSet<Vec<u8>>) -> Option<Claim> {
    let files = free.take(|file| !touched.contains(file.path));
    (!files.is_empty()).then(|| {
        Claim::of_present(
            Kind::Untouched,
            "files that no recorded start touched",
            "leave out what is not needed, by a smaller base image or a last stage that copies only what runs; \
             `glowplug image convert` puts what starts touch first, so that the rest can come later",
            &files,
        )
    })
}

/// Files that no finding has claimed yet.
struct Free<'o, 's> {
    files: Vec<&'o Present<'s>>,
}

impl<'o, 's> Free<'o, 's> {
    fn of(overlay: &'o Overlay<'s>) -> Self {
        Self { files: overlay.present.iter().filter(|file| file.bytes > 0).collect() }
    }

    /// Takes what fits, in the order of paths.
    fn take(&mut self, fits: impl Fn(&Present<'_>) -> bool) -> Vec<&'o Present<'s>> {
        let (taken, left) = self.files.iter().partition(|file| fits(file));
        self.files = left;
        taken
    }
}

/// The folders with most in them: those that hold a good part of their parent's bytes are told themselves.
fn folders(overlay: &Overlay<'_>) -> Vec<FolderLine> {
    const DEPTH: usize = 3;
    let mut folders: BTreeMap<Vec<u8>, (u64, usize)> = BTreeMap::new();
    for file in &overlay.present {
        let parts: Vec<&[u8]> = file.path.split(|byte| *byte == b'/').collect();
        let depth = DEPTH.min(parts.len() - 1);
        let folder = folders.entry(parts[..depth].join(&b'/')).or_default();
        folder.0 += file.bytes;
        folder.1 += 1;
    }
    let line = |(path, (bytes, files)): (Vec<u8>, (u64, usize))| FolderLine {
        path: format!("/{}", String::from_utf8_lossy(&path)),
        bytes,
        files,
    };
    let mut lines: Vec<FolderLine> = folders.into_iter().map(line).collect();
    lines.sort_by(|one, other| (other.bytes, &one.path).cmp(&(one.bytes, &other.path)));
    lines.truncate(FOLDERS_MAX);
    lines
}

#[cfg(test)]
mod tests;
