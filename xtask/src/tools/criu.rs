//! A CRIU that gets along with kernels of today, for the tests of snapshots.
//!
//! Debian's stable release may have one that is too old. A newer suite of the same archive has one; it is
//! unpacked with all its libraries, its C library among them, and started by its own loader. The archive is
//! the one that this machine's own package lists come from, asked with lists of our own, so that the
//! machine's are left alone.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::kept;
use crate::command::{Program, on_path};

const PROGRAM: &str = "criu";
/// The first of Debian's suites whose CRIU is new enough.
const SUITE: &str = "forky";
const VERSION_MIN: (u32, u32) = (4, 2);

/// `None`, with the reason printed: what needs it is skipped.
pub(crate) fn criu() -> Option<PathBuf> {
    if let Some(own) = on_path(PROGRAM).filter(|own| is_new_enough(own)) {
        return Some(own);
    }
    match fetched() {
        Ok(criu) => Some(criu),
        Err(error) => {
            eprintln!("no CRIU 4.2, so that nothing is done that needs snapshots: {error:#}");
            None
        }
    }
}

fn is_new_enough(criu: &Path) -> bool {
    let said = Program::new(criu).arg("--version").capture().unwrap_or_default();
    let version = said.lines().find_map(|line| line.strip_prefix("Version: "));
    let mut numbers = version.unwrap_or("").split('.').map(|part| part.trim().parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= VERSION_MIN
}

fn fetched() -> Result<PathBuf> {
    let place = kept(&format!("{PROGRAM}-{SUITE}"), |staging| {
        eprintln!("fetching {PROGRAM} from Debian's suite {SUITE}");
        let apt = staging.join("apt");
        let config = write_config(&apt)?;
        let get = |words: &[&str]| Program::new("apt-get").env("APT_CONFIG", &config).args(words);
        get(&["--quiet", "update"]).capture()?;
        // Against an empty list of what is installed, so that nothing of this system's is counted on.
        let plan = get(&["--simulate", "--no-install-recommends", "install", PROGRAM]).capture()?;
        let names = plan.lines().filter_map(|line| line.strip_prefix("Inst "));
        let names: Vec<&str> = names.filter_map(|rest| rest.split(' ').next()).collect();
        let archives = apt.join("archives");
        make_dir(&archives)?;
        get(&["--quiet", "download"]).args(&names).dir(&archives).capture()?;
        let listed = fs::read_dir(&archives).context("cannot list the fetched packages")?;
        for archive in listed {
            let archive = archive.context("cannot list the fetched packages")?.path();
            Program::new("dpkg-deb").arg("-x").arg(archive).arg(staging).capture()?;
        }
        fs::remove_dir_all(&apt).context("cannot remove the fetched packages")
    })?;
    let script = write_script(&place)?;
    if !is_new_enough(&script) {
        bail!("the one that was fetched does not run");
    }
    Ok(script)
}

/// A folder of apt's for this one suite.
fn write_config(apt: &Path) -> Result<PathBuf> {
    for dir in ["lists/partial", "cache/archives/partial", "etc/apt.conf.d", "etc/preferences.d"] {
        make_dir(&apt.join(dir))?;
    }
    let write = |name: &str, text: String| {
        let path = apt.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok::<_, anyhow::Error>(path)
    };
    write("status", String::new())?;
    let (archive, keyring) = own_archive()?;
    let signed = keyring.map(|keyring| format!("[signed-by={keyring}] ")).unwrap_or_default();
    write("sources.list", format!("deb {signed}{archive} {SUITE} main\n"))?;
    let at = apt.display();
    let text = format!(
        "Dir \"{at}/\";\nDir::State \"{at}\";\nDir::State::status \"{at}/status\";\n\
         Dir::State::lists \"{at}/lists\";\nDir::Cache \"{at}/cache\";\nDir::Etc \"{at}/etc\";\n\
         Dir::Etc::sourcelist \"{at}/sources.list\";\nDir::Etc::sourceparts \"-\";\n\
         APT::Sandbox::User \"root\";\nAcquire::Languages \"none\";\n\
         // A mirror may lag behind; what it has is signed all the same.\n\
         Acquire::Check-Valid-Until \"false\";\n"
    );
    write("apt.conf", text)
}

/// Where this machine's own package lists of Debian come from, and what they are signed by.
fn own_archive() -> Result<(String, Option<String>)> {
    const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
    let format = "$(REPO_URI)|$(COMPONENT)|$(ORIGIN)|$(SUITE)";
    let targets = Program::new("apt-get")
        .args(["indextargets", "--format", format, "Created-By: Packages"])
        .capture()?;
    let rows = targets.lines().map(|line| line.split('|').collect::<Vec<_>>());
    // The archive itself: that of security updates has no newer suites' programs.
    let is_meant = |row: &Vec<&str>| {
        matches!(row.as_slice(), [uri, "main", "Debian", suite]
            if !suite.contains("security") && !uri.contains("security"))
    };
    let row = rows.into_iter().find(is_meant);
    let row = row.context("this machine's package lists are not Debian's")?;
    let keyring = Path::new(KEYRING).is_file().then(|| KEYRING.to_owned());
    Ok((row[0].to_owned(), keyring))
}

/// Starts it by the loader that its libraries belong to.
fn write_script(place: &Path) -> Result<PathBuf> {
    let libraries = place.join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH));
    let listed =
        fs::read_dir(&libraries).with_context(|| format!("cannot list {}", libraries.display()))?;
    let loader = listed.flatten().map(|entry| entry.path()).find(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ld-linux"))
    });
    let loader = loader.context("its C library brings no loader")?;
    let text = format!(
        "#!/bin/sh\nexec {} --library-path {} {} \"$@\"\n",
        loader.display(),
        libraries.display(),
        place.join("usr/sbin").join(PROGRAM).display()
    );
    let script = place.join(PROGRAM);
    if fs::read_to_string(&script).is_ok_and(|found| found == text) {
        return Ok(script);
    }
    fs::write(&script, text).with_context(|| format!("cannot write {}", script.display()))?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot make {} a program", script.display()))?;
    Ok(script)
}

fn make_dir(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))
}
