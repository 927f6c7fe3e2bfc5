//! The user's home directory, for the store, the policy, the logins and the configuration in it.
//!
//! Invariant: a user of this machine has one without `HOME` too: systemd starts the units of the
//! system without that variable, and a policy that is not found accepts what it was to refuse.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The home directory: `HOME`, or where that is unset, empty or relative, what /etc/passwd says of
/// the effective user, as for podman and skopeo. NSS is not asked: who is known to LDAP alone has
/// none without `HOME`.
pub(crate) fn home() -> Option<PathBuf> {
    let named = std::env::var_os("HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    named.or_else(|| {
        let passwd = std::fs::read("/etc/passwd").ok()?;
        home_of(&passwd, rustix::process::geteuid().as_raw())
    })
}

/// The home directory in the first line about a user, as getpwuid(3) finds it.
fn home_of(passwd: &[u8], uid: u32) -> Option<PathBuf> {
    let uid = uid.to_string();
    let home = passwd.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.split(|byte| *byte == b':').skip(2);
        let is_of_user = fields.next()? == uid.as_bytes();
        fields.nth(2).filter(|_| is_of_user)
    })?;
    let home = Path::new(OsStr::from_bytes(home));
    home.is_absolute().then(|| home.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_about_a_user_counts() {
        let passwd = b"root:x:0:0:\xff,,:/root:/bin/bash\n\n# comment\nhalf:x:5\n\
            one:x:1:10::/home/one:/bin/sh\nagain:x:1:10::/home/again:/bin/sh\n\
            none:x:2:2:::/bin/sh\nnear:x:3:2::near:/bin/sh\nbrief:x:4:4::/home/brief";
        let home = |uid| home_of(passwd, uid);
        assert_eq!(home(0).unwrap(), Path::new("/root"));
        assert_eq!(home(1).unwrap(), Path::new("/home/one"));
        assert_eq!(home(4).unwrap(), Path::new("/home/brief"));
        for uid in [2, 3, 5, 10] {
            assert_eq!(home(uid), None, "{uid}");
        }
    }
}
