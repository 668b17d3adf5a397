//! A registry of a bench's own, and images made of this machine's files.

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::layout::{Layout, sha256};
use super::peer::Peer;
use super::start_overhead::free_port;
use crate::command::{Program, Running};
use crate::repository;
use crate::stopwatch;
use crate::tools;

/// Where the files of big images are taken from, in this order, until there are enough.
const SOURCES: [&str; 3] = ["usr/lib", "usr/share", "usr/bin"];
/// Of an image's bytes a start reads one of so many, all over the image, in files that are not huge.
const TOUCHED_ONE_OF: u64 = 20;
const TOUCHED_FILE_BYTES_MAX: u64 = 4_000_000;
const START_TIMEOUT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(10);
/// Pulls take any image: the peers' own rule where none is configured is to take none.
const POLICY: &str = r#"{"default": [{"type": "insecureAcceptAnything"}]}"#;
/// What a big image runs: reads a part of itself, as a program with large libraries does, and then serves.
const START: &str = "/bin/busybox xargs /bin/busybox cat < /touched > /dev/null\n\
    exec /bin/busybox httpd -f -p \"$PORT\" -h /www\n";

/// A registry on loopback that ends with this value.
#[derive(Debug)]
pub(super) struct Registry {
    running: Running,
    pub(super) port: u16,
    /// A file with [`POLICY`].
    pub(super) policy: PathBuf,
    skopeo: Peer,
}

/// An image that is made once and kept.
#[derive(Debug)]
pub(super) struct Image {
    layout: PathBuf,
    /// As registries name it, without theirs: `one-layer:1`.
    pub(super) name: String,
    pub(super) sizes: Sizes,
}

/// Bytes of an image, and of what its program reads before it serves.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Sizes {
    pub(super) stored: u64,
    pub(super) unpacked: u64,
    pub(super) touched: u64,
}

impl Registry {
    pub(super) fn start(folder: &Path) -> Result<Self> {
        let registry = Peer::find("docker-registry", "docker-registry", "usr/bin/docker-registry")?;
        let skopeo = Peer::find("skopeo", "skopeo", "usr/bin/skopeo")?;
        let port = free_port()?;
        let (config, policy) = (folder.join("registry.yml"), folder.join("policy.json"));
        let data = folder.join("registry");
        let text = format!(
            "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    \
             rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{port}\n",
            data.display()
        );
        fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
        fs::write(&policy, POLICY).with_context(|| format!("cannot write {}", policy.display()))?;
        let log = folder.join("registry.log");
        let running = registry.program().arg("serve").arg(&config).spawn(&log)?;
        let up = stopwatch::wait_for(START_TIMEOUT, PAUSE, || {
            running.check()?;
            Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok())
        })?;
        up.with_context(|| format!("the registry does not serve; see {}", log.display()))?;
        Ok(Self { running, port, policy, skopeo })
    }

    /// Puts an image there.
    pub(super) fn push(&self, image: &Image) -> Result<()> {
        self.copy(&image.layout, &image.at(self.port))
    }

    /// Puts an image of the folder `root` there, and gives its name. `scratch` is for what is made on the way.
    pub(super) fn push_folder(&self, scratch: &Path, root: &Path, name: &str) -> Result<String> {
        let place = scratch.join(format!("layout-{}", name.replace(':', "-")));
        let mut layout = Layout::create(&place)?;
        layout.add_layer(|tar| tar.arg("--directory").arg(root).arg("."))?;
        layout.finish(&["/bin/busybox"])?;
        let pushed = format!("127.0.0.1:{}/{name}", self.port);
        self.copy(&place, &pushed)?;
        Ok(pushed)
    }

    /// The same image, which is there, as `glowplug image convert` writes it from what a start of it has
    /// touched; made once by each build of the program, on which what is touched depends as well. `home` is the
    /// data directory of that start.
    pub(super) fn push_converted(
        &self,
        image: &Image,
        (glowplug, home): (&Path, &Path),
    ) -> Result<Image> {
        let layout = image.layout.with_file_name("converted");
        let done = layout.with_file_name("converted-complete");
        let build = sha256(glowplug)?;
        if !is_by(&build, &done) {
            eprintln!("converting {}, once with this build", image.name);
            // In this order: what an interrupted bench leaves behind is not taken for complete.
            let _ = fs::remove_file(&done);
            let _ = fs::remove_dir_all(&layout);
            let convert = Program::new(glowplug).env("GLOWPLUG_DATA_DIR", home);
            let convert = convert.args(["image", "convert"]).arg(image.at(self.port)).arg("--to");
            let convert = convert.arg(format!("archive:{}/", layout.display())).dir(home);
            convert.stdout_to_stderr().run()?;
            fs::write(&done, &build).with_context(|| format!("cannot write {}", done.display()))?;
        }
        let made = Image { layout, name: format!("converted-{}", image.name), sizes: image.sizes };
        self.push(&made)?;
        Ok(made)
    }

    fn copy(&self, layout: &Path, to: &str) -> Result<()> {
        self.running.check()?;
        let copy = self.skopeo().arg("--dest-tls-verify=false");
        let copy = copy.arg(format!("oci:{}:1", layout.display()));
        copy.arg(format!("docker://{to}")).stdout_to_stderr().run()
    }

    fn skopeo(&self) -> Program {
        let program = self.skopeo.program().arg("--policy").arg(&self.policy);
        program.args(["copy", "--quiet"])
    }
}

impl Image {
    /// An image with about `unpacked` bytes of this machine's files in `layers` layers of the same size, from
    /// an earlier bench or made now.
    pub(super) fn made(name: &str, unpacked: u64, layers: usize) -> Result<Self> {
        let megabytes = unpacked / 1_000_000;
        let place = repository::target().join("bench-images").join(format!("{name}-{megabytes}"));
        let (layout, done) = (place.join("layout"), place.join("sizes.json"));
        let named = |sizes| Self { layout: layout.clone(), name: format!("{name}:1"), sizes };
        if let Ok(text) = fs::read_to_string(&done) {
            let sizes = serde_json::from_str(&text);
            return Ok(named(sizes.with_context(|| format!("cannot read {}", done.display()))?));
        }
        eprintln!("making the image {name} of {megabytes} MB of files, once");
        // Left by a bench that was interrupted.
        let _ = fs::remove_dir_all(&place);
        fs::create_dir_all(&place).with_context(|| format!("cannot create {}", place.display()))?;
        let sizes = make(&place, &layout, unpacked, layers)?;
        let text = serde_json::to_string(&sizes).context("cannot write sizes as JSON")?;
        fs::write(&done, text).with_context(|| format!("cannot write {}", done.display()))?;
        Ok(named(sizes))
    }

    /// Its name at the registry on this port of loopback, to which all engines speak plain HTTP.
    pub(super) fn at(&self, port: u16) -> String {
        format!("127.0.0.1:{port}/{}", self.name)
    }
}

/// Whether this file says that what it stands for was made by this build.
fn is_by(build: &str, done: &Path) -> bool {
    fs::read_to_string(done).is_ok_and(|by| by == build)
}

/// A file or folder below `/`, and its bytes.
struct Found {
    path: String,
    bytes: u64,
}

fn make(place: &Path, layout: &Path, unpacked: u64, layers: usize) -> Result<Sizes> {
    let found = machine_files(unpacked)?;
    let mut sizes =
        Sizes { unpacked: found.iter().map(|file| file.bytes).sum(), ..Sizes::default() };
    let extra = place.join("extra");
    sizes.touched = write_program(&extra, &found)?;
    let mut image = Layout::create(layout)?;
    let share = sizes.unpacked / u64::try_from(layers).context("too many layers")? + 1;
    let mut rest = &found[..];
    for number in 1..=layers {
        let mut bytes = 0;
        let whole = rest.iter().take_while(|file| {
            bytes += file.bytes;
            bytes <= share || number == layers
        });
        let (these, others) = rest.split_at(whole.count());
        let list = write_list(place, these)?;
        image.add_layer(|tar| {
            let tar = tar.args(["--directory", "/", "--no-recursion", "--null", "--files-from"]);
            let tar = tar.arg(&list);
            if number == layers {
                tar.args(["--recursion", "--directory"]).arg(&extra).arg(".")
            } else {
                tar
            }
        })?;
        rest = others;
    }
    sizes.stored = image.finish(&["/bin/busybox", "sh", "/start"])?;
    Ok(sizes)
}

/// Files, links and folders of this machine in the order of their names, up to so many bytes.
fn machine_files(bytes_wanted: u64) -> Result<Vec<Found>> {
    let kinds = ["-xdev", "(", "-type", "f", "-o", "-type", "l", "-o", "-type", "d", ")"];
    let mut found = Vec::new();
    let mut bytes = 0;
    for source in SOURCES {
        let listed = Program::new("find").arg(source).args(kinds);
        // Names with a line break in them would need more care than they are worth.
        let listed = listed.args(["-size", "-2097152k", "-printf", "%y %s %p\\n"]).dir("/");
        let listed = listed.capture()?;
        let mut files: Vec<Found> = listed.lines().filter_map(parse).collect();
        files.sort_by(|one, other| one.path.cmp(&other.path));
        for file in files {
            if bytes >= bytes_wanted {
                return Ok(found);
            }
            bytes += file.bytes;
            found.push(file);
        }
    }
    if bytes < bytes_wanted / 2 {
        bail!(
            "this machine has {bytes} bytes of programs, and the image is to hold {bytes_wanted}"
        );
    }
    Ok(found)
}

/// A line of find: kind, size and path. Only files count as bytes.
fn parse(line: &str) -> Option<Found> {
    let (kind, rest) = line.split_once(' ')?;
    let (bytes, path) = rest.split_once(' ')?;
    let bytes = if kind == "f" { bytes.parse().ok()? } else { 0 };
    Some(Found { path: path.to_owned(), bytes })
}

fn write_list(place: &Path, files: &[Found]) -> Result<PathBuf> {
    let list = place.join("list");
    let text: String = files.iter().flat_map(|file| [&*file.path, "\0"]).collect();
    fs::write(&list, text).with_context(|| format!("cannot write {}", list.display()))?;
    Ok(list)
}

/// What the image runs, and the list of what that reads. The bytes of it.
fn write_program(extra: &Path, files: &[Found]) -> Result<u64> {
    for name in ["bin", "www", "proc", "dev", "sys", "tmp"] {
        let folder = extra.join(name);
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
    }
    fs::copy(tools::busybox()?, extra.join("bin/busybox")).context("cannot copy busybox")?;
    fs::write(extra.join("start"), START).context("cannot write the image's program")?;
    fs::write(extra.join("www/index.html"), "served\n").context("cannot write an answer")?;
    let mut list = fs::File::create(extra.join("touched")).context("cannot write a list")?;
    let (mut passed, mut touched) = (0, 0);
    // The program that is handed the list takes names apart at these.
    let is_plain = |file: &Found| !file.path.contains([' ', '\'', '"', '\\']);
    for file in files.iter().filter(|file| file.bytes > 0) {
        passed += file.bytes;
        let is_due = touched < passed / TOUCHED_ONE_OF;
        if is_due && file.bytes <= TOUCHED_FILE_BYTES_MAX && is_plain(file) {
            writeln!(list, "/{}", file.path).context("cannot write a list")?;
            touched += file.bytes;
        }
    }
    Ok(touched)
}

/// A version as the program itself tells it.
pub(super) fn version(name: &str, program: Program) -> (String, String) {
    let said = program.arg("--version").capture().unwrap_or_default();
    (name.to_owned(), said.lines().next().unwrap_or("unknown").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_build_has_made_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let done = folder.path().join("done");
        assert!(!is_by("one", &done));
        for (written, expected) in [("", false), ("one", true), ("two", false)] {
            fs::write(&done, written).unwrap();
            assert_eq!(is_by("one", &done), expected, "`{written}`");
        }
    }

    #[test]
    fn only_files_count_as_bytes() {
        let check = |line, expected: Option<(&str, u64)>| {
            let found = parse(line);
            assert_eq!(found.as_ref().map(|file| (&*file.path, file.bytes)), expected, "{line}");
        };
        check("f 12 usr/lib/a b", Some(("usr/lib/a b", 12)));
        check("d 4096 usr/lib", Some(("usr/lib", 0)));
        check("l 7 usr/lib/c", Some(("usr/lib/c", 0)));
        check("f x usr/lib/c", None);
        check("", None);
    }
}
