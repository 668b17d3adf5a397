//! Who a container's program runs as, by the container's own `/etc/passwd` and `/etc/group`.

use std::io::Read;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};

use super::{ContainerUser, ResolvedUser};
use crate::protocol::Identity;

/// A longer file of users is not looked at.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// As many groups as the kernel would take are never given to one user in practice.
const GROUPS_MAX: usize = 1_024;

/// To be called where the container's root is the root.
pub(super) fn resolve(user: &ContainerUser) -> Result<ResolvedUser, String> {
    let passwd = read("/etc/passwd");
    match user {
        ContainerUser::Ids { uid, gid, groups } => {
            let identity = Identity { uid: *uid, gid: *gid, groups: groups.clone() };
            Ok(ResolvedUser { identity, home: home_of(*uid, &passwd) })
        }
        ContainerUser::Named(name) => find(name, &passwd, &read("/etc/group")),
    }
}

/// An image may hold anything at such a path: only a plain file is read, and never waited for.
fn read(path: &str) -> String {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let Ok(file) = rustix::fs::open(Path::new(path), flags, Mode::empty()) else {
        return String::new();
    };
    let is_plain = rustix::fs::fstat(&file)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
    let mut bytes = Vec::new();
    if is_plain {
        // What cannot be read names nobody.
        let _ = std::fs::File::from(file).take(FILE_BYTES_MAX).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `USER[:GROUP]`, each a name or a number.
fn find(user: &str, passwd: &str, group: &str) -> Result<ResolvedUser, String> {
    let (user, wanted_group) = match user.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (user, None),
    };
    let number: Option<u32> = user.parse().ok();
    let entry = entries(passwd).find(|entry| entry.name == user || number == Some(entry.uid));
    let uid = match (&entry, number) {
        (Some(entry), _) => entry.uid,
        (None, Some(number)) => number,
        (None, None) => return Err(format!("the image has no user `{user}`: give a number")),
    };
    let gid = match (wanted_group, &entry) {
        (Some(wanted), _) => group_number(wanted, group)?,
        (None, Some(entry)) => entry.gid,
        (None, None) => 0,
    };
    // Whoever names a group gets that alone.
    let others = match (&entry, wanted_group) {
        (Some(entry), None) => groups_of(entry.name, group),
        _ => Vec::new(),
    };
    let mut groups: Vec<u32> = std::iter::once(gid).chain(others).take(GROUPS_MAX).collect();
    groups.dedup();
    let identity = Identity { uid, gid, groups };
    let home = entry.map_or_else(|| "/".to_owned(), |entry| entry.home());
    Ok(ResolvedUser { identity, home })
}

struct Entry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl Entry<'_> {
    fn home(&self) -> String {
        if self.home.is_empty() { "/".to_owned() } else { self.home.to_owned() }
    }
}

fn entries(passwd: &str) -> impl Iterator<Item = Entry<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, uid) = (fields.next()?, fields.nth(1)?.parse().ok()?);
        let gid = fields.next()?.parse().ok()?;
        Some(Entry { name, uid, gid, home: fields.nth(1).unwrap_or("") })
    })
}

fn home_of(uid: u32, passwd: &str) -> String {
    let entry = entries(passwd).find(|entry| entry.uid == uid);
    match entry {
        Some(entry) => entry.home(),
        None if uid == 0 => "/root".to_owned(),
        None => "/".to_owned(),
    }
}

fn group_number(wanted: &str, group: &str) -> Result<u32, String> {
    if let Ok(number) = wanted.parse() {
        return Ok(number);
    }
    let found = group.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == wanted).then(|| fields.nth(1)?.parse().ok())?
    });
    found.ok_or_else(|| format!("the image has no group `{wanted}`: give a number"))
}

fn groups_of(name: &str, group: &str) -> Vec<u32> {
    let member_of = |line: &str| {
        let mut fields = line.split(':').skip(2);
        let (gid, members) = (fields.next()?.parse().ok()?, fields.next()?);
        members.split(',').any(|member| member == name).then_some(gid)
    };
    group.lines().filter_map(member_of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nbroken\nml:x:1001:1002::/home/ml:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nml:x:1002:\nvideo:x:44:ml,other\n";

    #[test]
    fn users_are_found_as_images_name_them() {
        let check = |user: &str, uid: u32, gid: u32, groups: &[u32], home: &str| {
            let found = find(user, PASSWD, GROUP).unwrap();
            let identity = Identity { uid, gid, groups: groups.to_vec() };
            assert_eq!(found, ResolvedUser { identity, home: home.to_owned() }, "{user}");
        };
        check("ml", 1001, 1002, &[1002, 44], "/home/ml");
        check("1001", 1001, 1002, &[1002, 44], "/home/ml");
        check("ml:video", 1001, 44, &[44], "/home/ml");
        check("65000", 65000, 0, &[0], "/");
        check("65000:65001", 65000, 65001, &[65001], "/");
        check("root", 0, 0, &[0], "/root");
        assert!(find("nobody-here", PASSWD, GROUP).unwrap_err().contains("no user"));
        assert!(find("ml:nothing", PASSWD, GROUP).unwrap_err().contains("no group"));
    }

    #[test]
    fn numbers_have_a_home_too() {
        assert_eq!(home_of(0, ""), "/root");
        assert_eq!(home_of(1001, PASSWD), "/home/ml");
        assert_eq!(home_of(7, PASSWD), "/");
    }
}
