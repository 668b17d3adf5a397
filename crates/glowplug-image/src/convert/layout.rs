//! A converted image as an OCI layout: one file, or a folder.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Seek};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD};
use serde_json::{Value, json};

use super::archive::Archive;
use super::{Converted, Error, MANIFEST_KIND};
use crate::digest::Digest;

const WRITE_BYTES: usize = 1 << 20;
/// Of a folder's index, which names its images.
const INDEX_BYTES_MAX: u64 = 4 << 20;
/// Of an entry of an index: under which name.
const NAME: &str = "org.opencontainers.image.ref.name";
const INDEX: &str = "index.json";
const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// What a layout has: the image under `tag`, behind what `others` there are under other names.
fn index(converted: &Converted, tag: &str, others: Vec<Value>) -> Vec<u8> {
    let is_other = |entry: &Value| entry["annotations"][NAME] != tag;
    let mut manifests: Vec<Value> = others.into_iter().filter(is_other).collect();
    manifests.push(json!({
        "mediaType": MANIFEST_KIND,
        "digest": converted.digest.as_str(),
        "size": converted.manifest.len(),
        "annotations": {NAME: tag},
    }));
    let index = json!({"schemaVersion": 2, "manifests": manifests});
    serde_json::to_vec(&index).expect("plain data has a form")
}

/// The images that a folder has already.
fn others(folder: &Path) -> io::Result<Vec<Value>> {
    let index = match File::open(folder.join(INDEX)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        index => index?,
    };
    let mut text = Vec::new();
    index.take(INDEX_BYTES_MAX).read_to_end(&mut text)?;
    let index: Option<Value> = serde_json::from_slice(&text).ok();
    match index.as_ref().and_then(|index| index["manifests"].as_array()) {
        Some(manifests) => Ok(manifests.clone()),
        None => Err(io::Error::other(
            "its `index.json` cannot be understood: choose a new folder, or remove that file",
        )),
    }
}

fn blob(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// Writes one file, which has its name when it is whole and not before.
pub fn write_file(converted: &mut Converted, path: &Path, tag: &str) -> Result<(), Error> {
    let failed = |source| Error::Archive { path: path.display().to_string(), source };
    to_file(converted, path, tag).map_err(failed)
}

fn to_file(converted: &mut Converted, path: &Path, tag: &str) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let mut archive = Archive::new(BufWriter::with_capacity(WRITE_BYTES, nameless(folder)?));
    archive.add("oci-layout", LAYOUT.len() as u64, LAYOUT.as_bytes())?;
    let index = index(converted, tag, Vec::new());
    archive.add(INDEX, index.len() as u64, &index[..])?;
    for document in [&converted.manifest, &converted.config] {
        archive.add(&blob(&Digest::of(document)), document.len() as u64, &document[..])?;
    }
    let mut written = std::collections::BTreeSet::new();
    for layer in &mut converted.layers {
        if written.insert(layer.digest.clone()) {
            layer.file.rewind()?;
            archive.add(&blob(&layer.digest), layer.bytes, &layer.file)?;
        }
    }
    let written = archive.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
    name(&written, folder, path)
}

/// A file that goes if it is never given a name.
fn nameless(folder: &Path) -> io::Result<File> {
    let flags = i32::try_from(rustix::fs::OFlags::TMPFILE.bits()).expect("a flag of the kernel");
    File::options().write(true).mode(0o644).custom_flags(flags).open(folder)
}

/// What has the name until then stays until this is whole.
fn name(nameless: &File, folder: &Path, path: &Path) -> io::Result<()> {
    nameless.sync_all()?;
    // A name can only be given where there is none, and then take another's place.
    let passing = tempfile::Builder::new().prefix(".glowplug-").make_in(folder, |passing| {
        rustix::fs::linkat(nameless, "", CWD, passing, AtFlags::EMPTY_PATH).map_err(io::Error::from)
    })?;
    passing.into_temp_path().persist(path).map_err(|error| error.error)
}

/// Writes a folder. Blobs come first and the index that names them last; images that are there under other names stay.
pub fn write_folder(converted: &mut Converted, folder: &Path, tag: &str) -> Result<(), Error> {
    let failed = |source| Error::Archive { path: folder.display().to_string(), source };
    to_folder(converted, folder, tag).map_err(failed)
}

fn to_folder(converted: &mut Converted, folder: &Path, tag: &str) -> io::Result<()> {
    fs::create_dir_all(folder.join("blobs/sha256"))?;
    let others = others(folder)?;
    for document in [&converted.manifest, &converted.config] {
        put(folder, &blob(&Digest::of(document)), &document[..])?;
    }
    for layer in &mut converted.layers {
        layer.file.rewind()?;
        put(folder, &blob(&layer.digest), &layer.file)?;
    }
    put(folder, "oci-layout", LAYOUT.as_bytes())?;
    put(folder, INDEX, &index(converted, tag, others)[..])
}

fn put(folder: &Path, name: &str, mut content: impl Read) -> io::Result<()> {
    let mut file = nameless(folder)?;
    io::copy(&mut content, &mut file)?;
    self::name(&file, folder, &folder.join(name))
}
