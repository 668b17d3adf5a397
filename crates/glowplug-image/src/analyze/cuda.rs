//! CUDA libraries that come twice: with Python's wheels, and with the base image.

use std::collections::BTreeMap;

use super::overlay::Present;
use super::{Claim, Free, Kind};

/// Libraries of NVIDIA that are large and come with both.
const LIBRARIES: [&str; 16] = [
    "libcublas",
    "libcublasLt",
    "libcudnn",
    "libcufft",
    "libcurand",
    "libcusolver",
    "libcusolverMg",
    "libcusparse",
    "libcusparseLt",
    "libnccl",
    "libnvrtc",
    "libnvrtc-builtins",
    "libnvJitLink",
    "libcudart",
    "libcupti",
    "libnvinfer",
];

/// Where a library is from.
fn origin(path: &[u8]) -> Vec<u8> {
    let path = path.strip_prefix(b"/").unwrap_or(path);
    let text = String::from_utf8_lossy(path);
    if let Some((before, _)) = text.split_once("-packages/") {
        return format!("{before}-packages").into_bytes();
    }
    if text.starts_with("usr/local/cuda")
        || text.starts_with("usr/lib/")
        || text.starts_with("lib/")
    {
        // NVIDIA's own packages put parts into both.
        return b"the base image".to_vec();
    }
    text.split('/').take(2).collect::<Vec<_>>().join("/").into_bytes()
}

/// `libcudnn` of `libcudnn_ops_infer.so.8`.
fn library(path: &[u8]) -> Option<&'static str> {
    let name = path.rsplit(|byte| *byte == b'/').next()?;
    let name = std::str::from_utf8(name).ok()?;
    let (stem, _) = name.split_once(".so")?;
    let stem = stem.strip_suffix("_static").unwrap_or(stem);
    let is_it = |library: &&str| {
        let rest = stem.strip_prefix(library);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['_', '-', '.']))
    };
    LIBRARIES.into_iter().filter(is_it).max_by_key(|library| library.len())
}

pub(super) fn claim(free: &mut Free<'_, '_>, claims: &mut Vec<Claim>) {
    let mut found: BTreeMap<&str, BTreeMap<Vec<u8>, u64>> = BTreeMap::new();
    for file in &free.files {
        if let Some(library) = library(file.path) {
            *found.entry(library).or_default().entry(origin(file.path)).or_default() += file.bytes;
        }
    }
    // Programs of Python load the wheels' own; else the larger one is taken to be in use.
    let kept = |origins: &BTreeMap<Vec<u8>, u64>| {
        let rank = |(origin, bytes): &(&Vec<u8>, &u64)| (origin.ends_with(b"-packages"), **bytes);
        origins.iter().max_by_key(rank).map(|(origin, _)| origin.clone())
    };
    let kept: BTreeMap<&str, Vec<u8>> = found
        .iter()
        .filter(|(_, origins)| origins.len() > 1)
        .filter_map(|(library, origins)| Some((*library, kept(origins)?)))
        .collect();
    let is_again = |file: &Present<'_>| {
        let kept = library(file.path).and_then(|library| kept.get(library));
        kept.is_some_and(|kept| *kept != origin(file.path))
    };
    let files = free.take(is_again);
    claims.push(Claim::of_present(
        Kind::CudaTwice,
        "CUDA libraries that the image has from two places",
        "Python's wheels bring their own CUDA: take a base image without (`python:3-slim`, or `nvidia/cuda:…-base`), \
         or install the framework in a build that uses the base image's",
        &files,
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_known_by_their_names() {
        for (path, expected) in [
            ("usr/local/cuda-12.4/lib64/libcublas.so.12.4.5.8", Some("libcublas")),
            ("opt/x/libcublasLt.so.12", Some("libcublasLt")),
            ("a/nvidia/cudnn/lib/libcudnn_ops_infer.so.8", Some("libcudnn")),
            ("a/libnvrtc-builtins.so.12.1", Some("libnvrtc-builtins")),
            ("a/libcublast.so", None),
            ("a/libm.so.6", None),
            ("a/libcudnn.h", None),
        ] {
            assert_eq!(library(path.as_bytes()), expected, "{path}");
        }
    }
}
