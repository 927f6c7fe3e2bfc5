//! Which bytes of a SQLite database mean anything ("Database File Format", sections 1.3 to 1.6):
//! an own reading of the file, to judge `fsck` by.
//!
//! Invariant: a byte that is not marked can have any value and no query answers otherwise. Not
//! marked are unallocated space in pages, whole pages on the free list, the version of the SQLite
//! that wrote last, keys of inner table pages (they only separate), and the counters of
//! `sqlite_sequence` (any larger number does).

const PAGE: usize = 4096;

pub struct Used {
    bytes: Vec<u8>,
    used: Vec<bool>,
}

/// Marks the used bytes; `roots` are the root pages of all tables and indices, `counters` that
/// of `sqlite_sequence`.
pub fn used(bytes: Vec<u8>, roots: &[usize], counters: usize) -> Vec<bool> {
    let mut file = Used { used: vec![false; bytes.len()], bytes };
    file.mark(0, 96);
    file.tree(1, false);
    for root in roots {
        file.tree(*root, *root == counters);
    }
    file.free_list();
    file.used
}

impl Used {
    fn mark(&mut self, at: usize, len: usize) {
        self.used[at..at + len].fill(true);
    }

    fn number(&self, at: usize, len: usize) -> usize {
        self.bytes[at..at + len].iter().fold(0, |n, byte| n << 8 | usize::from(*byte))
    }

    /// A variable-length number and its length.
    fn varint(&self, at: usize) -> (usize, usize) {
        let mut value = 0;
        for n in 0..9 {
            let byte = usize::from(self.bytes[at + n]);
            if n == 8 {
                return (value << 8 | byte, 9);
            }
            value = value << 7 | (byte & 0x7f);
            if byte & 0x80 == 0 {
                return (value, n + 1);
            }
        }
        unreachable!()
    }

    fn tree(&mut self, page: usize, counters: bool) {
        let start = (page - 1) * PAGE;
        let at = if page == 1 { 100 } else { start };
        let kind = self.bytes[at];
        let inner = kind == 2 || kind == 5;
        let header = if inner { 12 } else { 8 };
        let cells = self.number(at + 3, 2);
        self.mark(at, header + 2 * cells);
        let mut free = self.number(at + 1, 2);
        while free != 0 {
            self.mark(start + free, 4);
            free = self.number(start + free, 2);
        }
        for n in 0..cells {
            let cell = start + self.number(at + header + 2 * n, 2);
            self.cell(kind, cell, counters);
        }
        if inner {
            self.tree(self.number(at + 8, 4), counters);
        }
    }

    fn cell(&mut self, kind: u8, cell: usize, counters: bool) {
        let mut at = cell;
        if kind == 2 || kind == 5 {
            self.mark(at, 4);
            self.tree(self.number(at, 4), counters);
            at += 4;
        }
        if kind == 5 {
            return; // The key only separates.
        }
        let (payload, n) = self.varint(at);
        self.mark(at, n);
        at += n;
        if kind == 13 {
            let (_, n) = self.varint(at);
            self.mark(at, n);
            at += n;
        }
        let most = if kind == 13 { PAGE - 35 } else { (PAGE - 12) * 64 / 255 - 23 };
        let least = (PAGE - 12) * 32 / 255 - 23;
        let local = if payload <= most {
            payload
        } else {
            let fitting = least + (payload - least) % (PAGE - 4);
            if fitting <= most { fitting } else { least }
        };
        if counters {
            // Header of three bytes, the table's name, the counter.
            let name = (usize::from(self.bytes[at + 1]) - 13) / 2;
            self.mark(at, 3 + name);
            return;
        }
        self.mark(at, local);
        let mut left = payload - local;
        if left > 0 {
            self.mark(at + local, 4);
            let mut page = self.number(at + local, 4);
            while left > 0 {
                let start = (page - 1) * PAGE;
                let here = left.min(PAGE - 4);
                self.mark(start, 4 + here);
                left -= here;
                page = self.number(start, 4);
            }
        }
    }

    fn free_list(&mut self) {
        let mut trunk = self.number(32, 4);
        while trunk != 0 {
            let start = (trunk - 1) * PAGE;
            let leaves = self.number(start + 4, 4);
            self.mark(start, 8 + 4 * leaves);
            trunk = self.number(start, 4);
        }
    }
}
