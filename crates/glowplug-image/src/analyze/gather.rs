//! Brings together what is judged: from the store, or from a folder that is a root.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::{Subject, SubjectLayer, packages};
use crate::ContentId;
use crate::layer::{Content, Entry, EntryKind, Meta};
use crate::store::{Image, Reader, Result};

/// Of one file that says what is installed; a longer one is not read.
const TEXT_BYTES_MAX: u64 = 32 << 20;
/// Of all of them; further ones are not read.
const TEXTS_BYTES_MAX: u64 = 512 << 20;
/// Files of a folder; beyond it, it is no root of an image.
const FILES_MAX: usize = 4_000_000;

/// An image in the store. `steps` say how its layers were made, if that is known.
pub fn image(reader: &Reader, name: &str, image: &Image, steps: &[String]) -> Result<Subject> {
    let mut subject = Subject { name: name.to_owned(), ..Subject::default() };
    let mut left = TEXTS_BYTES_MAX;
    for (number, digest) in image.layers.iter().enumerate() {
        let layer = reader.layer(digest)?;
        for entry in &layer.entries {
            let EntryKind::File(content) = entry.kind else { continue };
            if !packages::is_text(&entry.path) || content.bytes() > left.min(TEXT_BYTES_MAX) {
                continue;
            }
            left -= content.bytes();
            subject.texts.insert(entry.path.clone(), reader.read(&layer, &content)?);
        }
        subject.layers.push(SubjectLayer {
            digest: Some(digest.to_string()),
            made_by: steps.get(number).filter(|_| steps.len() == image.layers.len()).cloned(),
            compressed_bytes: image.layer_bytes.get(number).copied(),
            entries: layer.entries,
        });
    }
    let touched = reader.touched(&image.digest)?;
    if !touched.files().is_empty() {
        subject.touched = Some(touched.files().iter().map(|file| file.path.clone()).collect());
    }
    Ok(subject)
}

/// A folder as the one layer of an image. `tell` hears of every file. Links are not followed, and what is mounted
/// below is not looked at.
pub fn folder(root: &Path, tell: &mut dyn FnMut()) -> io::Result<Subject> {
    use std::os::unix::fs::MetadataExt;
    let device = fs::metadata(root)?.dev();
    let mut found: Vec<(Vec<u8>, PathBuf, u64)> = Vec::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_dir() && metadata.dev() == device {
                waiting.push(entry.path());
            } else if metadata.is_file() {
                let path = entry.path();
                let name = path.strip_prefix(root).expect("it was found below the root");
                found.push((name.as_os_str().as_bytes().to_vec(), path.clone(), metadata.len()));
                tell();
            }
            if found.len() > FILES_MAX {
                return Err(io::Error::other(format!("it has more than {FILES_MAX} files")));
            }
        }
    }
    found.sort();
    let mut of_size: BTreeMap<u64, u32> = BTreeMap::new();
    for (_, _, bytes) in &found {
        *of_size.entry(*bytes).or_default() += 1;
    }
    let mut subject = Subject { name: root.display().to_string(), ..Subject::default() };
    let mut layer = SubjectLayer::default();
    let mut left = TEXTS_BYTES_MAX;
    for (name, path, bytes) in found {
        if packages::is_text(&name) && bytes <= left.min(TEXT_BYTES_MAX) {
            left -= bytes;
            subject.texts.insert(name.clone(), fs::read(&path)?);
        }
        // A size that no other file has tells it apart as well as its content would.
        let id = if of_size[&bytes] > 1 && bytes > 0 {
            hash(&path)?
        } else {
            ContentId::from(blake3::hash(&bytes.to_le_bytes()))
        };
        let content = if bytes == 0 { Content::Empty } else { Content::Shared { id, bytes } };
        let kind = EntryKind::File(content);
        layer.entries.push(Entry { path: name, meta: Meta::default(), kind });
    }
    subject.layers.push(layer);
    Ok(subject)
}

fn hash(path: &Path) -> io::Result<ContentId> {
    let mut hasher = blake3::Hasher::new();
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize().into()),
            read => drop(hasher.update(&buffer[..read])),
        }
    }
}
