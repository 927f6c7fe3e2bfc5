//! What a checkout did, and what it was not allowed to.
//!
//! Invariants: the counts are exact; of the paths at most [`LISTED`] are kept for each group, so
//! that a large tree unpacked by an ordinary user stays cheap.

use std::collections::BTreeMap;
use std::fmt;

use rustix::io::Errno;
use strata_tree::TreePath;

/// How many paths each group lists.
pub const LISTED: usize = 10_000;

/// Something that could not be recreated or set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Skipped {
    /// The owner or group.
    Owner,
    /// The setuid or setgid bit, dropped because its owner or group could not be set.
    SetId,
    /// The permission bits.
    Mode,
    /// The modification time.
    Time,
    /// An extended attribute: its name where it is a well-known one, else `<namespace>.*`.
    Xattr(String),
    /// The entry is a device; it was left out.
    Device,
    /// The entry is a socket; it was left out.
    Socket,
    /// A hard link, made as a copy of its own.
    HardLink,
}

impl Skipped {
    /// Groups an xattr by its name, with a bounded number of groups whatever the image says.
    pub(super) fn xattr(name: &[u8]) -> Self {
        Self::Xattr(match name {
            b"security.capability"
            | b"security.selinux"
            | b"security.ima"
            | b"security.evm"
            | b"system.posix_acl_access"
            | b"system.posix_acl_default" => String::from_utf8_lossy(name).into_owned(),
            _ => match [&b"user."[..], b"trusted.", b"security.", b"system."]
                .iter()
                .find(|prefix| name.starts_with(prefix))
            {
                Some(prefix) => format!("{}*", String::from_utf8_lossy(prefix)),
                None => "of an unknown namespace".to_owned(),
            },
        })
    }
}

/// All entries for which one thing could not be done for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// What could not be done.
    pub what: Skipped,
    /// Why; `None` if the system took the value and shows another.
    pub errno: Option<Errno>,
    /// How many entries.
    pub count: u64,
    /// Their paths below the copied node, the first ten thousand.
    pub paths: Vec<TreePath>,
}

/// What a checkout did.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// The names made, the copied node's own included.
    pub entries: u64,
    /// The bytes of content written, each hard-linked file once; holes count.
    pub bytes: u64,
    skipped: BTreeMap<(Skipped, i32), Group>,
}

impl Report {
    pub(super) fn skip(&mut self, path: &TreePath, what: Skipped, errno: Option<Errno>) {
        let key = (what.clone(), errno.map_or(0, Errno::raw_os_error));
        let group = self.skipped.entry(key).or_insert_with(|| Group {
            what,
            errno,
            count: 0,
            paths: Vec::new(),
        });
        group.count += 1;
        if group.paths.len() < LISTED {
            group.paths.push(path.clone());
        }
    }

    /// Whether everything is as the tree says.
    pub fn is_exact(&self) -> bool {
        self.skipped.is_empty()
    }

    /// What could not be set, sorted by what it is.
    pub fn skipped(&self) -> impl Iterator<Item = &Group> {
        self.skipped.values()
    }
}

/// `1234567` as `1,234,567`.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// One line: `owner of 3,412 entries (Operation not permitted)`, with the path if it is one.
impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain;
        let noun = match &self.what {
            Skipped::Owner => "owner",
            Skipped::SetId => "setuid or setgid bit",
            Skipped::Mode => "mode",
            Skipped::Time => "modification time",
            Skipped::Xattr(name) => {
                plain = format!("xattr {name}");
                &plain
            }
            Skipped::HardLink => "hard link",
            Skipped::Device => "device node",
            Skipped::Socket => "socket",
        };
        match (&self.what, self.count, self.paths.first()) {
            (Skipped::Device | Skipped::Socket | Skipped::HardLink, 1, Some(path)) => {
                write!(f, "{noun} {path}")?;
            }
            (Skipped::Device | Skipped::Socket | Skipped::HardLink, count, _) => {
                write!(f, "{noun}s: {}", thousands(count))?;
            }
            (_, 1, Some(path)) => write!(f, "{noun} of {path}")?,
            (_, count, _) => write!(f, "{noun} of {} entries", thousands(count))?,
        }
        match (&self.what, self.errno) {
            (Skipped::Socket, _) => Ok(()),
            (_, Some(errno)) => {
                // The standard library appends " (os error 1)": the text alone is for people.
                let text = std::io::Error::from(errno).to_string();
                write!(f, " ({})", text.split(" (os error").next().unwrap_or(&text))
            }
            (_, None) => write!(f, " (the file system keeps another value)"),
        }
    }
}

/// One line per group, each ended; empty if the checkout is exact.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.skipped.values().try_for_each(|group| writeln!(f, "{group}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_read_as_sentences_and_keep_exact_counts() {
        let mut report = Report::default();
        let path = TreePath::clamped(b"dev/null").unwrap();
        assert!(report.is_exact());
        for _ in 0..LISTED + 1234 {
            report.skip(&path, Skipped::Owner, Some(Errno::PERM));
        }
        report.skip(&path, Skipped::Device, Some(Errno::PERM));
        report.skip(&path, Skipped::Socket, None);
        report.skip(&path, Skipped::Time, None);
        report.skip(&path, Skipped::xattr(b"user.anything"), Some(Errno::NOTSUP));
        assert!(!report.is_exact());
        assert_eq!(
            report.to_string(),
            "owner of 11,234 entries (Operation not permitted)\n\
             modification time of /dev/null (the file system keeps another value)\n\
             xattr user.* of /dev/null (Operation not supported)\n\
             device node /dev/null (Operation not permitted)\n\
             socket /dev/null\n"
        );
        assert_eq!(report.skipped().next().unwrap().paths.len(), LISTED);
    }

    #[test]
    fn thousands_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(thousands(number), text);
        }
    }
}
