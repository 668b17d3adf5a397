//! In which order layers were made: what changes often should come last.

use super::cost::{Rates, Size};
use super::{EXAMPLES_MAX, Example, Finding, Kind, Subject, SubjectLayer};

/// An install below which an order costs nothing to speak of.
const INSTALL_BYTES_MIN: u64 = 10 << 20;
/// Programs that install packages, as they stand in a step of a build.
const INSTALLS: [&str; 12] = [
    "pip install",
    "pip3 install",
    "uv sync",
    "uv pip",
    "apt-get install",
    "apt install",
    "apk add",
    "npm ci",
    "npm install",
    "yarn install",
    "conda install",
    "poetry install",
];

/// Packages that are installed after the program's own files came in.
#[derive(Debug)]
pub(super) struct Order {
    /// Layers that are made anew with every change of the program.
    layers: Vec<usize>,
    steps: Vec<String>,
}

pub(super) fn order(subject: &Subject) -> Option<Order> {
    let made_by = |layer: &SubjectLayer| layer.made_by.clone().unwrap_or_default();
    let first = subject.layers.iter().position(|layer| brings_program(&made_by(layer)))?;
    let later = subject.layers.iter().enumerate().skip(first + 1);
    let installs = |step: &str| INSTALLS.iter().any(|install| step.contains(install));
    let layers: Vec<usize> = later
        .filter(|(_, layer)| {
            installs(&made_by(layer)) && Size::of(layer).bytes >= INSTALL_BYTES_MIN
        })
        .map(|(number, _)| number)
        .collect();
    let steps = layers.iter().map(|number| made_by(&subject.layers[*number])).collect();
    (!layers.is_empty()).then_some(Order { layers, steps })
}

/// A whole folder, and not a list of packages such as `requirements.txt`.
fn brings_program(step: &str) -> bool {
    let mut words = step.split_whitespace().skip_while(|word| !matches!(*word, "COPY" | "ADD"));
    if words.next().is_none() || step.contains("--from=") {
        return false;
    }
    let mut sources = words.skip_while(|word| word.starts_with("--"));
    sources.next().is_some_and(|source| matches!(source, "." | "./") || source.starts_with("dir:"))
}

impl Order {
    /// What a change of the program costs each time.
    pub(super) fn price(&self, sizes: &[Size], rates: &Rates) -> Finding {
        let each = || self.layers.iter().map(|number| &sizes[*number]);
        let (compressed_bytes, bytes) =
            (each().map(|size| size.compressed_bytes).sum(), each().map(|size| size.bytes).sum());
        let seconds = rates.pull_seconds(compressed_bytes, bytes);
        let examples = self.steps.iter().zip(each()).take(EXAMPLES_MAX);
        Finding {
            kind: Kind::LayerOrder,
            title: "packages that are installed after the program's own files came in".to_owned(),
            change: "copy the list of packages and install them first, the program's files after that: as it is, each \
                     change of the program makes these layers anew, and every node pulls them again"
                .to_owned(),
            compressed_bytes,
            bytes,
            files: each().map(|size| size.files).sum(),
            pull_seconds: seconds,
            start_seconds: seconds,
            examples: examples
                .map(|(step, size)| Example { path: step.clone(), bytes: size.bytes })
                .collect(),
        }
    }
}
