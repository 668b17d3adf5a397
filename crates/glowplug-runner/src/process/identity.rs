//! Resolves the user that a program runs as, from the host's own files.

use crate::protocol::Identity;

/// `user`: a name, or a numeric id. Needs the rights of root to be of use, which is checked first.
pub(super) fn resolve(user: &str) -> Result<Identity, String> {
    if !rustix::process::geteuid().is_root() {
        return Err(format!("running as user `{user}` is possible only if the node runs as root"));
    }
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let group = std::fs::read_to_string("/etc/group").unwrap_or_default();
    find(user, &passwd, &group)
}

fn find(user: &str, passwd: &str, group: &str) -> Result<Identity, String> {
    let number: Option<u32> = user.parse().ok();
    let entry = passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let (name, uid, gid) = (*fields.first()?, fields.get(2)?, fields.get(3)?);
        let (uid, gid) = (uid.parse::<u32>().ok()?, gid.parse::<u32>().ok()?);
        (name == user || number == Some(uid)).then_some((name, uid, gid))
    });
    match (entry, number) {
        (Some((_, 0, _)), _) | (_, Some(0)) => {
            Err(format!("user `{user}` is root: name an unprivileged user, or none"))
        }
        (Some((name, uid, gid)), _) => {
            Ok(Identity { uid, gid, groups: groups_of(name, gid, group) })
        }
        (None, Some(id)) => Ok(Identity { uid: id, gid: id, groups: vec![id] }),
        (None, None) => Err(format!("user `{user}` does not exist on this host: create it first")),
    }
}

fn groups_of(name: &str, own: u32, group: &str) -> Vec<u32> {
    let others = group.lines().filter_map(|line| {
        let mut fields = line.split(':').skip(2);
        let (gid, members) = (fields.next()?.parse().ok()?, fields.next()?);
        members.split(',').any(|member| member == name).then_some(gid)
    });
    let mut groups: Vec<u32> = std::iter::once(own).chain(others).collect();
    groups.dedup();
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nml:x:1001:1002::/home/ml:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nml:x:1002:\nvideo:x:44:ml,other\n";

    #[test]
    fn users_are_found_by_name_and_number() {
        let expected = Identity { uid: 1001, gid: 1002, groups: vec![1002, 44] };
        assert_eq!(find("ml", PASSWD, GROUP), Ok(expected.clone()));
        assert_eq!(find("1001", PASSWD, GROUP), Ok(expected));
        assert_eq!(find("65000", PASSWD, GROUP).unwrap().gid, 65000);
    }

    #[test]
    fn root_and_strangers_are_refused() {
        assert!(find("root", PASSWD, GROUP).unwrap_err().contains("is root"));
        assert!(find("0", PASSWD, GROUP).unwrap_err().contains("is root"));
        assert!(find("nobody-here", PASSWD, GROUP).unwrap_err().contains("does not exist"));
    }
}
