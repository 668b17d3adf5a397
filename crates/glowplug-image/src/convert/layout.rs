//! A converted image as an OCI layout: one file, or a folder.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD};
use serde_json::json;

use super::archive::Archive;
use super::{Converted, Error, MANIFEST_KIND};
use crate::digest::Digest;

const WRITE_BYTES: usize = 1 << 20;
const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// What a layout has for one image, under `tag`.
fn index(converted: &Converted, tag: &str) -> Vec<u8> {
    let index = json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": MANIFEST_KIND,
            "digest": converted.digest.as_str(),
            "size": converted.manifest.len(),
            "annotations": {"org.opencontainers.image.ref.name": tag},
        }],
    });
    serde_json::to_vec(&index).expect("plain data has a form")
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
    let flags = i32::try_from(rustix::fs::OFlags::TMPFILE.bits()).expect("a flag of the kernel");
    let nameless = File::options().write(true).mode(0o644).custom_flags(flags).open(folder)?;
    let mut archive = Archive::new(BufWriter::with_capacity(WRITE_BYTES, nameless));
    archive.add("oci-layout", LAYOUT.len() as u64, LAYOUT.as_bytes())?;
    let index = index(converted, tag);
    archive.add("index.json", index.len() as u64, &index[..])?;
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
    let nameless = archive.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
    name(&nameless, folder, path)
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

/// Writes a folder. Blobs come first and the index that names them last; other images in the folder are replaced as
/// names, not as blobs.
pub fn write_folder(converted: &mut Converted, folder: &Path, tag: &str) -> Result<(), Error> {
    let failed = |source| Error::Archive { path: folder.display().to_string(), source };
    to_folder(converted, folder, tag).map_err(failed)
}

fn to_folder(converted: &mut Converted, folder: &Path, tag: &str) -> io::Result<()> {
    fs::create_dir_all(folder.join("blobs/sha256"))?;
    for document in [&converted.manifest, &converted.config] {
        put(folder, &blob(&Digest::of(document)), &document[..])?;
    }
    for layer in &mut converted.layers {
        layer.file.rewind()?;
        put(folder, &blob(&layer.digest), &layer.file)?;
    }
    put(folder, "oci-layout", LAYOUT.as_bytes())?;
    put(folder, "index.json", &index(converted, tag)[..])
}

fn put(folder: &Path, name: &str, mut content: impl Read) -> io::Result<()> {
    let mut file = tempfile::Builder::new().prefix(".glowplug-").tempfile_in(folder)?;
    io::copy(&mut content, &mut file)?;
    file.flush()?;
    file.as_file().sync_all()?;
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    file.as_file().set_permissions(open)?;
    file.persist(folder.join(name)).map_err(|error| error.error).map(drop)
}
