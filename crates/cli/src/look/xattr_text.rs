//! Values of extended attributes as text: file capabilities in the notation of `getcap` and
//! `setcap`, ACLs in that of `setfacl`, the rest quoted or in hex.
//!
//! Invariants: a value that breaks its format is shown in hex, never guessed at.

use super::render::{escaped, hex};

/// Capability names by number (linux/capability.h).
const CAPABILITIES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

/// The value as text.
pub(crate) fn value(name: &[u8], value: &[u8]) -> String {
    let decoded = match name {
        b"security.capability" => capability(value),
        b"system.posix_acl_access" | b"system.posix_acl_default" => acl(value),
        _ => None,
    };
    decoded.unwrap_or_else(|| plain(value))
}

/// Printable text in quotes, anything else in hex.
fn plain(value: &[u8]) -> String {
    match escaped(value) {
        text if text.as_bytes() == value && !value.contains(&b'"') => format!("\"{text}\""),
        _ => format!("0x{}", hex(value)),
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

/// `struct vfs_cap_data` (linux/capability.h), revisions 1 to 3, all little-endian.
fn capability(value: &[u8]) -> Option<String> {
    let magic = u32_at(value, 0)?;
    let (length, words) = match magic & 0xff00_0000 {
        0x0100_0000 => (12, 1),
        0x0200_0000 => (20, 2),
        0x0300_0000 => (24, 2),
        _ => return None,
    };
    if value.len() != length {
        return None;
    }
    let (mut permitted, mut inheritable) = (0_u64, 0_u64);
    for word in 0..words {
        permitted |= u64::from(u32_at(value, 4 + word * 8)?) << (32 * word);
        inheritable |= u64::from(u32_at(value, 8 + word * 8)?) << (32 * word);
    }
    // One bit says of all of them that they are effective at once.
    let effective = magic & 1 != 0;
    let mut groups: Vec<(String, Vec<u32>)> = Vec::new();
    for bit in 0..64 {
        let has = |set: u64| set >> bit & 1 == 1;
        if !has(permitted) && !has(inheritable) {
            continue;
        }
        let mut flags = String::new();
        for (set, flag) in [(effective, 'e'), (has(inheritable), 'i'), (has(permitted), 'p')] {
            if set {
                flags.push(flag);
            }
        }
        match groups.iter_mut().find(|(known, _)| *known == flags) {
            Some((_, bits)) => bits.push(bit),
            None => groups.push((flags, vec![bit])),
        }
    }
    let mut texts: Vec<String> = groups
        .iter()
        .map(|(flags, bits)| {
            let all = bits.len() >= CAPABILITIES.len();
            let names: Vec<String> = bits.iter().map(|bit| capability_name(*bit)).collect();
            format!("{}={flags}", if all { String::new() } else { names.join(",") })
        })
        .collect();
    if texts.is_empty() {
        texts.push("=".to_owned());
    }
    if length == 24 {
        texts.push(format!("[rootid={}]", u32_at(value, 20)?));
    }
    Some(texts.join(" "))
}

fn capability_name(bit: u32) -> String {
    match CAPABILITIES.get(bit as usize) {
        Some(name) => format!("cap_{name}"),
        None => bit.to_string(),
    }
}

/// `struct posix_acl_xattr_header` and entries (linux/posix_acl_xattr.h), little-endian.
fn acl(value: &[u8]) -> Option<String> {
    if u32_at(value, 0)? != 2 || value.len() % 8 != 4 {
        return None;
    }
    let mut entries = Vec::new();
    for entry in value[4..].chunks_exact(8) {
        let (tag, perm) = (u16::from_le_bytes([entry[0], entry[1]]), entry[2]);
        if perm > 7 || entry[3] != 0 {
            return None;
        }
        let id = u32_at(entry, 4)?;
        let who = match tag {
            0x01 => "user:".to_owned(),
            0x02 => format!("user:{id}"),
            0x04 => "group:".to_owned(),
            0x08 => format!("group:{id}"),
            0x10 => "mask:".to_owned(),
            0x20 => "other:".to_owned(),
            _ => return None,
        };
        let bit = |bit: u8, letter: char| if perm & bit == 0 { '-' } else { letter };
        entries.push(format!("{who}:{}{}{}", bit(4, 'r'), bit(2, 'w'), bit(1, 'x')));
    }
    Some(entries.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cap(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn capabilities_are_in_the_notation_of_getcap() {
        let text = |words: &[u32]| value(b"security.capability", &cap(words));
        assert_eq!(text(&[0x0200_0001, 1 << 13, 0, 0, 0]), "cap_net_raw=ep");
        assert_eq!(text(&[0x0200_0000, 1 << 13 | 1, 0, 0, 0]), "cap_chown,cap_net_raw=p");
        assert_eq!(
            text(&[0x0200_0001, 1 << 10, 1 << 10, 0x180, 0]),
            "cap_net_bind_service=eip cap_bpf,cap_checkpoint_restore=ep"
        );
        assert_eq!(text(&[0x0200_0001, u32::MAX, 0, 0x1ff, 0]), "=ep");
        assert_eq!(text(&[0x0200_0000, 0, 0, 1 << 31, 0]), "63=p");
        assert_eq!(text(&[0x0100_0001, 2, 2]), "cap_dac_override=eip");
        assert_eq!(text(&[0x0300_0001, 1 << 13, 0, 0, 0, 1000]), "cap_net_raw=ep [rootid=1000]");
        assert_eq!(text(&[0x0200_0000, 0, 0, 0, 0]), "=");
        // One byte short, an unknown revision.
        assert_eq!(value(b"security.capability", &[1, 0, 0, 2]), "0x01000002");
        assert_eq!(text(&[0x0400_0000, 0, 0, 0, 0]), format!("0x00000004{}", "0".repeat(32)));
    }

    #[test]
    fn acls_read_as_getfacl_writes_them() {
        let entry = |tag: u8, perm: u8, id: u32| {
            let mut bytes = vec![tag, 0, perm, 0];
            bytes.extend(id.to_le_bytes());
            bytes
        };
        let none = u32::MAX;
        let mut bytes = vec![2, 0, 0, 0];
        for part in [
            entry(1, 6, none),
            entry(2, 4, 1000),
            entry(4, 5, none),
            entry(8, 7, 50),
            entry(0x10, 7, none),
            entry(0x20, 0, none),
        ] {
            bytes.extend(part);
        }
        assert_eq!(
            value(b"system.posix_acl_access", &bytes),
            "user::rw-,user:1000:r--,group::r-x,group:50:rwx,mask::rwx,other::---"
        );
        bytes.pop();
        assert!(value(b"system.posix_acl_default", &bytes).starts_with("0x02000000"));
        assert_eq!(
            value(b"system.posix_acl_access", &[2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]),
            "0x020000000300000000000000"
        );
    }

    #[test]
    fn other_values_are_quoted_or_hex() {
        for (bytes, text) in [
            (&b"text"[..], "\"text\""),
            (b"", "\"\""),
            (b"say \"x\"", "0x73617920227822"),
            (b"end\0", "0x656e6400"),
            (b"\xff", "0xff"),
        ] {
            assert_eq!(value(b"user.x", bytes), text);
        }
    }
}
