//! Text for people: modes, times, and names that cannot do anything to a terminal.
//!
//! Invariants: nothing here depends on locale, time zone or the machine; escaped text holds no
//! control character, no bidirectional override and no invalid UTF-8.

use std::borrow::Cow;
use std::fmt::Write;

use strata_tree::{Kind, Stat, Timestamp};

/// The word for a type.
pub(crate) const fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Regular => "regular file",
        Kind::Directory => "directory",
        Kind::Symlink => "symbolic link",
        Kind::CharDevice(_) => "character device",
        Kind::BlockDevice(_) => "block device",
        Kind::Fifo => "fifo",
        Kind::Socket => "socket",
    }
}

/// `drwxr-sr-t`, as `ls -l` writes it.
pub(crate) fn mode_string(stat: &Stat) -> String {
    let mut text = String::with_capacity(10);
    text.push(match stat.kind {
        Kind::Regular => '-',
        Kind::Directory => 'd',
        Kind::Symlink => 'l',
        Kind::CharDevice(_) => 'c',
        Kind::BlockDevice(_) => 'b',
        Kind::Fifo => 'p',
        Kind::Socket => 's',
    });
    for (shift, special, set, set_alone) in
        [(6, 0o4000, 's', 'S'), (3, 0o2000, 's', 'S'), (0, 0o1000, 't', 'T')]
    {
        let bits = stat.perm >> shift;
        text.push(if bits & 4 == 0 { '-' } else { 'r' });
        text.push(if bits & 2 == 0 { '-' } else { 'w' });
        text.push(match (stat.perm & special != 0, bits & 1 != 0) {
            (false, false) => '-',
            (false, true) => 'x',
            (true, true) => set,
            (true, false) => set_alone,
        });
    }
    text
}

/// UTC in ISO 8601 with `digits` of the fraction (cut, not rounded); `@seconds` for years that a
/// calendar of four digits does not have.
fn time(time: Timestamp, digits: usize) -> String {
    let fraction = format!("{:09}", time.nanos);
    let fraction = &fraction[..digits];
    let dot = if digits == 0 { "" } else { "." };
    match jiff::Timestamp::from_second(time.seconds) {
        // Years before 0 would be shown with a sign and six digits.
        Ok(whole) if time.seconds >= -62_167_219_200 => {
            let text = whole.to_string();
            format!("{}{dot}{fraction}Z", text.trim_end_matches('Z'))
        }
        _ => format!("@{}{dot}{fraction}", time.seconds),
    }
}

/// The type's word in JSON documents.
pub(crate) fn type_word(kind: Kind) -> &'static str {
    match kind {
        Kind::Regular => "regular",
        Kind::Directory => "directory",
        Kind::Symlink => "symlink",
        Kind::CharDevice(_) => "char",
        Kind::BlockDevice(_) => "block",
        Kind::Fifo => "fifo",
        Kind::Socket => "socket",
    }
}

/// To the second: `2024-02-29T12:00:00Z`.
pub(crate) fn short_time(mtime: Timestamp) -> String {
    time(mtime, 0)
}

/// To the nanosecond: `2024-02-29T12:00:00.000000001Z`.
pub(crate) fn full_time(mtime: Timestamp) -> String {
    time(mtime, 9)
}

/// Whether a character changes what a terminal shows beyond its own cell.
fn unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(c, '\u{61c}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

/// The bytes as text in which everything unprintable is escaped as `ls -b` does: `\n`, `\033`.
pub(crate) fn escaped(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes)
        && !text.contains(|c| c == '\\' || unprintable(c))
    {
        return Cow::Borrowed(text);
    }
    let mut out = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\t' => out.push_str("\\t"),
                '\r' => out.push_str("\\r"),
                c if unprintable(c) => octal(&mut out, c.encode_utf8(&mut [0; 4]).as_bytes()),
                c => out.push(c),
            }
        }
        octal(&mut out, chunk.invalid());
    }
    Cow::Owned(out)
}

/// One character as [`escaped`] has it, but for a backslash, which stays one.
pub(crate) fn escaped_char(c: char) -> String {
    let mut out = String::new();
    match unprintable(c) {
        true => octal(&mut out, c.encode_utf8(&mut [0; 4]).as_bytes()),
        false => out.push(c),
    }
    out
}

fn octal(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(out, "\\{byte:03o}");
    }
}

/// A name for `out`: escaped on a terminal, as it is in a pipe.
pub(crate) fn name(bytes: &[u8], terminal: bool) -> Cow<'_, [u8]> {
    if !terminal {
        return Cow::Borrowed(bytes);
    }
    match escaped(bytes) {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}

/// Lowercase hex digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(kind: Kind, perm: u16) -> Stat {
        Stat { kind, perm, ..Stat::unstated_dir() }
    }

    #[test]
    fn modes_read_as_in_ls() {
        for (kind, perm, text) in [
            (Kind::Regular, 0o644, "-rw-r--r--"),
            (Kind::Regular, 0o4755, "-rwsr-xr-x"),
            (Kind::Regular, 0o6640, "-rwSr-S---"),
            (Kind::Directory, 0o1777, "drwxrwxrwt"),
            (Kind::Directory, 0o3770, "drwxrws--T"),
            (Kind::Symlink, 0o777, "lrwxrwxrwx"),
            (Kind::Fifo, 0, "p---------"),
            (Kind::Socket, 0o111, "s--x--x--x"),
        ] {
            assert_eq!(mode_string(&stat(kind, perm)), text);
        }
    }

    #[test]
    fn times_are_utc_whatever_the_year() {
        for (seconds, nanos, short, full) in [
            (0, 0, "1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000000000Z"),
            (1_709_208_000, 1, "2024-02-29T12:00:00Z", "2024-02-29T12:00:00.000000001Z"),
            (-1, 999_999_999, "1969-12-31T23:59:59Z", "1969-12-31T23:59:59.999999999Z"),
            (253_402_207_200, 0, "9999-12-30T22:00:00Z", "9999-12-30T22:00:00.000000000Z"),
            (-62_167_219_200, 0, "0000-01-01T00:00:00Z", "0000-01-01T00:00:00.000000000Z"),
            (-62_167_219_201, 0, "@-62167219201", "@-62167219201.000000000"),
            (253_402_300_800, 5, "@253402300800", "@253402300800.000000005"),
            (i64::MIN, 0, "@-9223372036854775808", "@-9223372036854775808.000000000"),
        ] {
            let at = Timestamp { seconds, nanos };
            assert_eq!((short_time(at).as_str(), full_time(at).as_str()), (short, full));
        }
    }

    #[test]
    fn nothing_reaches_the_terminal_that_is_not_a_character() {
        for (bytes, text) in [
            (&b"plain name"[..], "plain name"),
            ("\u{fc}n\u{ef}".as_bytes(), "\u{fc}n\u{ef}"),
            (b"a\nb\tc\rd\\e", "a\\nb\\tc\\rd\\\\e"),
            (b"\x1b[31m\x7f", "\\033[31m\\177"),
            (b"\xff\xc3(", "\\377\\303("),
            ("\u{202e}gpj\u{9b}".as_bytes(), "\\342\\200\\256gpj\\302\\233"),
        ] {
            assert_eq!(escaped(bytes), text);
            assert_eq!(name(bytes, true), text.as_bytes());
            assert_eq!(name(bytes, false), bytes);
        }
    }
}
