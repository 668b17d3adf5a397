//! What the tests and benches need besides Rust: fetched below `target/tools`, kept between runs.
//!
//! Everything is installed into a folder named after what it holds, which appears only when it is complete:
//! a run that was interrupted, or a changed list of packages, starts over. Nothing is installed into the
//! system, and the package managers use their own configuration.

pub(crate) mod criu;

use std::ffi::OsString;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::command::{Program, on_path};
use crate::repository;

/// As in `glowplug-artifacts`, so that the tests use what a node would install.
const UV_VERSION: &str = "0.13.9";
const REQUIREMENTS: &str = "xtask/clients/requirements.txt";
const PACKAGES: &str = "xtask/clients/package.json";
/// What containers are also tested with.
const RUNTIMES: [&str; 2] = ["runc", "crun"];

/// What the tests are told in their environment.
#[derive(Debug)]
pub(crate) struct TestTools {
    /// A Python that has the packages of `xtask/clients/requirements.txt`.
    pub(crate) python: PathBuf,
    /// The packages of `xtask/clients/package.json`.
    pub(crate) node_modules: PathBuf,
    /// The programs of PostgreSQL.
    pub(crate) postgres: PathBuf,
    /// The program of Debian's registry for container images.
    pub(crate) registry: PathBuf,
    /// A program that runs in a container without anything else.
    pub(crate) busybox: PathBuf,
    /// What builds images.
    pub(crate) buildah: PathBuf,
    /// What captures memory, where it is to be had.
    pub(crate) criu: Option<PathBuf>,
    /// Where tests keep the environments of Python apps between runs.
    pub(crate) cache: PathBuf,
    /// PATH with uv and the OCI runtimes on it.
    pub(crate) path: OsString,
}

impl TestTools {
    pub(crate) fn set_up() -> Result<Self> {
        let uv = uv()?;
        let cache = folder()?.join("python-apps");
        fs::create_dir_all(&cache).with_context(|| format!("cannot create {}", cache.display()))?;
        Ok(Self {
            python: python(&uv, REQUIREMENTS)?,
            node_modules: node_modules()?,
            postgres: postgres()?,
            registry: registry()?,
            busybox: busybox()?,
            buildah: buildah()?,
            criu: criu::criu(),
            cache,
            path: path_with(uv.parent().map(Path::to_owned).into_iter().chain(runtimes()?))?,
        })
    }

    /// Lets a program know of the tools.
    pub(crate) fn tell(&self, program: Program) -> Program {
        let program = match &self.criu {
            Some(criu) => program.env("GLOWPLUG_TEST_CRIU", criu),
            None => program,
        };
        program
            .env("GLOWPLUG_TEST_PYTHON", &self.python)
            .env("GLOWPLUG_TEST_NODE_MODULES", &self.node_modules)
            .env("GLOWPLUG_TEST_POSTGRES", &self.postgres)
            .env("GLOWPLUG_TEST_REGISTRY", &self.registry)
            .env("GLOWPLUG_TEST_BUSYBOX", &self.busybox)
            .env("GLOWPLUG_TEST_BUILDAH", &self.buildah)
            .env("GLOWPLUG_TEST_CACHE", &self.cache)
            .env("PATH", &self.path)
    }
}

fn folder() -> Result<PathBuf> {
    let folder = repository::target().join("tools");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    Ok(folder)
}

/// The folder `name`, filled by `fill` if it does not exist yet.
fn kept(name: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let place = folder()?.join(name);
    if place.is_dir() {
        return Ok(place);
    }
    let staging = folder()?.join(format!(".{name}.{}", std::process::id()));
    // What an earlier process with this number left, if anything.
    let _ = fs::remove_dir_all(&staging);
    let filled = fill(&staging);
    if let Err(error) = filled {
        let _ = fs::remove_dir_all(&staging);
        return Err(error);
    }
    if let Err(error) = fs::rename(&staging, &place) {
        let _ = fs::remove_dir_all(&staging);
        // Another process may have been faster.
        if !place.is_dir() {
            return Err(error).with_context(|| format!("cannot create {}", place.display()));
        }
    }
    Ok(place)
}

/// A name for what is made of this text: it changes when the text does.
fn named_after(kind: &str, text: &str) -> String {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    format!("{kind}-{:016x}", hasher.finish())
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(repository::root().join(path)).with_context(|| format!("cannot read {path}"))
}

/// uv from PATH, or installed by pip.
pub(crate) fn uv() -> Result<PathBuf> {
    if let Some(uv) = on_path("uv").filter(|uv| Program::new(uv).arg("--version").succeeds()) {
        return Ok(uv);
    }
    let python = on_path("python3").context("there is no python3 on PATH: install Python 3")?;
    let place = kept(&format!("uv-{UV_VERSION}"), |staging| {
        eprintln!("installing uv {UV_VERSION}");
        install_uv(&python, staging)
    })?;
    Ok(place.join("bin/uv"))
}

/// With the pip that Python brings along, or the one of a virtual environment. Debian ships Python without
/// both; then the two packages that are missing come from Debian's archive.
fn install_uv(python: &Path, place: &Path) -> Result<()> {
    let package = format!("uv=={UV_VERSION}");
    if Program::new(python).args(["-m", "venv"]).arg(place).succeeds() {
        let pip = Program::new(place.join("bin/python")).args(["-m", "pip", "install", "--quiet"]);
        return pip.arg(&package).stdout_to_stderr().run();
    }
    // What a failed attempt left would look like an environment.
    let _ = fs::remove_dir_all(place);
    let pip = ["-m", "pip", "install", "--quiet", "--target"];
    if Program::new(python).args(["-m", "pip", "--version"]).succeeds() {
        return Program::new(python).args(pip).arg(place).arg(&package).stdout_to_stderr().run();
    }
    let extracted = debian(&["python3-pip"]).context(
        "Python has neither `venv` nor `pip`: install uv, or Debian's python3-venv or python3-pip",
    )?;
    let modules = extracted.join("usr/lib/python3/dist-packages");
    let program = Program::new(python).env("PYTHONPATH", modules).args(pip);
    program.arg(place).arg(&package).stdout_to_stderr().run()
}

fn path_with(own: impl Iterator<Item = PathBuf>) -> Result<OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(own.chain(std::env::split_paths(&path)))
        .context("cannot put the tools on PATH")
}

/// A Python that has the packages of a file of requirements.
pub(crate) fn python_with(requirements: &str) -> Result<PathBuf> {
    python(&uv()?, requirements)
}

fn python(uv: &Path, requirements_file: &str) -> Result<PathBuf> {
    let requirements = read(requirements_file)?;
    let name = named_after("python", &requirements);
    // Environments know their own path, so this one is made where it stays. The mark is made last.
    let place = folder()?.join(&name);
    let done = place.join("complete");
    if !done.is_file() {
        eprintln!("installing the Python packages of {requirements_file}");
        let _ = fs::remove_dir_all(&place);
        Program::new(uv).args(["venv", "--quiet", "--python", "python3"]).arg(&place).run()?;
        Program::new(uv)
            .args(["pip", "install", "--quiet", "--python"])
            .arg(place.join("bin/python"))
            .arg("--requirement")
            .arg(repository::root().join(requirements_file))
            .stdout_to_stderr()
            .run()?;
        fs::write(&done, "").with_context(|| format!("cannot write {}", done.display()))?;
    }
    Ok(place.join("bin/python"))
}

fn node_modules() -> Result<PathBuf> {
    let packages = read(PACKAGES)?;
    if on_path("node").is_none() || on_path("npm").is_none() {
        bail!("there is no node and npm on PATH: install Node.js 18 or newer with npm");
    }
    let place = kept(&named_after("npm", &packages), |staging| {
        eprintln!("installing the npm packages of {PACKAGES}");
        fs::create_dir_all(staging)
            .with_context(|| format!("cannot create {}", staging.display()))?;
        fs::write(staging.join("package.json"), &packages)
            .with_context(|| format!("cannot write below {}", staging.display()))?;
        Program::new("npm")
            .args(["install", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"])
            .dir(staging)
            .stdout_to_stderr()
            .run()
    })?;
    Ok(place.join("node_modules"))
}

/// The folder of the system's newest PostgreSQL, or of Debian's, unpacked.
fn postgres() -> Result<PathBuf> {
    if let Some(programs) = newest_postgres(Path::new("/")) {
        return Ok(programs);
    }
    let place = debian(&["postgresql"]).context("install PostgreSQL 14 or newer")?;
    newest_postgres(&place).context("Debian's package `postgresql` has no server")
}

fn newest_postgres(root: &Path) -> Option<PathBuf> {
    let versions = fs::read_dir(root.join("usr/lib/postgresql")).ok()?.flatten();
    let programs = versions.map(|version| version.path().join("bin"));
    let version = |programs: &PathBuf| -> Option<u32> {
        programs.parent()?.file_name()?.to_str()?.parse().ok()
    };
    programs.filter(|programs| programs.join("postgres").is_file()).max_by_key(version)
}

/// The system's registry for container images, or Debian's, unpacked.
fn registry() -> Result<PathBuf> {
    const PROGRAM: &str = "docker-registry";
    if let Some(program) = on_path(PROGRAM) {
        return Ok(program);
    }
    let place = debian(&[PROGRAM]).context("install `docker-registry`")?;
    Ok(place.join("usr/bin").join(PROGRAM))
}

/// Debian's: what a system has as `busybox` may need libraries.
pub(crate) fn busybox() -> Result<PathBuf> {
    Ok(debian(&["busybox-static"])?.join("bin/busybox"))
}

/// The OCI runtimes that the system lacks, each as a script that lets Debian's, unpacked, find its libraries.
/// `None` if it lacks none.
fn runtimes() -> Result<Option<PathBuf>> {
    let missing = RUNTIMES.into_iter().filter(|name| on_path(name).is_none());
    let missing: Vec<&str> = missing.collect();
    if missing.is_empty() {
        return Ok(None);
    }
    let place = debian(&missing).context("install `runc` and `crun`")?;
    let scripts = place.join("scripts");
    fs::create_dir_all(&scripts).with_context(|| format!("cannot create {}", scripts.display()))?;
    let libraries = format!("{}-linux-gnu", std::env::consts::ARCH);
    for name in missing {
        let program = ["usr/sbin", "usr/bin"].map(|dir| place.join(dir).join(name));
        let program = program.into_iter().find(|program| program.is_file());
        let program = program.with_context(|| format!("Debian's package has no `{name}`"))?;
        let text = format!(
            "#!/bin/sh\nLD_LIBRARY_PATH={0}/usr/lib/{libraries}:{0}/lib/{libraries} exec {1} \"$@\"\n",
            place.display(),
            program.display()
        );
        let script = scripts.join(name);
        fs::write(&script, text).with_context(|| format!("cannot write {}", script.display()))?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("cannot make {} a program", script.display()))?;
    }
    Ok(Some(scripts))
}

/// The system's `buildah`, or Debian's, unpacked.
fn buildah() -> Result<PathBuf> {
    const PROGRAM: &str = "buildah";
    if let Some(program) = on_path(PROGRAM) {
        return Ok(program);
    }
    let place = debian(&[PROGRAM]).context("install `buildah`")?;
    Ok(place.join("usr/bin").join(PROGRAM))
}

/// Debian packages, with what they need and the system lacks, unpacked into a folder. That takes no rights
/// and starts no service, as an installation would.
pub(crate) fn debian(packages: &[&str]) -> Result<PathBuf> {
    kept(&format!("debian-{}", packages.join("-")), |staging| {
        eprintln!("fetching {} from Debian's archive", packages.join(", "));
        let missing = missing_packages(packages)?;
        let archives = staging.join("archives");
        fs::create_dir_all(&archives)
            .with_context(|| format!("cannot create {}", archives.display()))?;
        Program::new("apt-get")
            // Root's downloads would be handed to a user who may not write here.
            .args(["--quiet", "-o", "APT::Sandbox::User=root", "download"])
            .args(&missing)
            .dir(&archives)
            .capture()?;
        let listed = fs::read_dir(&archives).context("cannot list the fetched packages")?;
        for archive in listed {
            let archive = archive.context("cannot list the fetched packages")?.path();
            Program::new("dpkg-deb").arg("-x").arg(archive).arg(staging).capture()?;
        }
        fs::remove_dir_all(&archives).context("cannot remove the fetched packages")
    })
}

/// The packages that an installation would add.
fn missing_packages(packages: &[&str]) -> Result<Vec<String>> {
    let simulate = || {
        Program::new("apt-get")
            .args(["--simulate", "--no-install-recommends", "--reinstall", "install"])
            .args(packages)
            .capture()
    };
    let plan = simulate().or_else(|_| {
        // A fresh machine has no lists yet.
        if !rustix::process::geteuid().is_root() {
            bail!(
                "{} cannot be fetched: run `sudo apt-get update` first, or install it yourself",
                packages.join(", ")
            );
        }
        Program::new("apt-get").args(["--quiet", "update"]).capture()?;
        simulate()
    })?;
    let names = plan.lines().filter_map(|line| line.strip_prefix("Inst "));
    Ok(names.filter_map(|rest| rest.split(' ').next()).map(str::to_owned).collect())
}
