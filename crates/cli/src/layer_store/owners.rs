//! Whose namespace an engine of this user runs in, and so how a layer store shows owners.
//!
//! Invariant: what is read here is what newuidmap(1) reads for the same user, in its order.

use anyhow::{Context as _, Result, bail};
use strata_fuse::{IdMap, Ids, in_first_user_namespace};
use strata_tree::dialect::XattrClass;

/// The marks and the owners that suit the engines of whoever runs this.
///
/// # Errors
/// An ordinary user has no subordinate ids, so that no rootless engine works either.
pub(super) fn suited() -> Result<(XattrClass, Ids)> {
    let root = rustix::process::geteuid().is_root();
    match (root, in_first_user_namespace().unwrap_or(false)) {
        (true, true) => Ok((XattrClass::Trusted, Ids::default())),
        // In the engine's namespace, as by `podman unshare`: owners are mapped by the kernel.
        (true, false) => Ok((XattrClass::User, Ids::default())),
        (false, _) => {
            let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
            let names = names_of(uid.as_raw());
            let users = map_of("/etc/subuid", &names, uid.as_raw())?;
            let groups = map_of("/etc/subgid", &names, gid.as_raw())?;
            Ok((XattrClass::User, Ids { users, groups }))
        }
    }
}

/// What may stand for the user in /etc/subuid: the name and the number.
fn names_of(uid: u32) -> Vec<String> {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let uid = uid.to_string();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    });
    let said = std::env::var("USER").ok().filter(|name| !name.is_empty());
    name.or(said).into_iter().chain([uid]).collect()
}

/// Number 0 is the user, and those from 1 on are the subordinate ones.
fn map_of(file: &str, names: &[String], own: u32) -> Result<IdMap> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
    match mapped(&text, names, own) {
        Some(map) => map.parse().with_context(|| format!("{file} does not do")),
        None => bail!(
            "{file} has no ids for {}, so no rootless engine can use a layer store; `usermod \
             --add-subuids` and `--add-subgids` add some",
            names.join(" or ")
        ),
    }
}

/// The map as a text; `None` without a range.
fn mapped(text: &str, names: &[String], own: u32) -> Option<String> {
    let mut map = format!("0:{own}:1");
    let mut next: u64 = 1;
    for line in text.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, first, count] = fields[..] else { continue };
        let (Ok(first), Ok(count)) = (first.trim().parse::<u32>(), count.trim().parse::<u64>())
        else {
            continue;
        };
        if names.iter().any(|one| one == name) && count > 0 {
            map.push_str(&format!(":{next}:{first}:{count}"));
            next += count;
        }
    }
    (next > 1).then_some(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_follow_each_other_as_in_a_namespace() {
        let text = "other:1:2\nme:100000:65536\n1000:300000:10\nme:x:1\n# me:1:1\n";
        let names = ["me".to_owned(), "1000".to_owned()];
        let map = mapped(text, &names, 1000).unwrap();
        assert_eq!(map, "0:1000:1:1:100000:65536:65537:300000:10");
        let map: IdMap = map.parse().unwrap();
        let shown = [0, 1, 65_536, 65_537, 65_547].map(|id| map.shown(id));
        assert_eq!(shown, [1000, 100_000, 165_535, 300_000, 65_534]);
        assert_eq!(mapped(text, &["nobody".to_owned()], 5), None);
    }
}
