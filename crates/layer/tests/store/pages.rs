//! Which bytes of a SQLite database mean anything ("Database File Format", sections 1.3 to 1.6):
//! an own reading of the file, to judge `fsck` by.
//!
//! Invariant: a byte that is not marked can have any value and no query answers otherwise. Not
//! marked are unallocated space in pages, whole pages on the free list, the version of the SQLite
//! that wrote last, keys of inner table pages (they only separate), the counters of
//! `sqlite_sequence` (any larger number does), and the type of an `INTEGER PRIMARY KEY` column
//! (its value is the row's number, which stands elsewhere; a type of no length changes nothing).

pub const PAGE: usize = 2048;

pub struct Used {
    bytes: Vec<u8>,
    used: Vec<bool>,
}

/// What is particular in the rows of a tree.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    Plain,
    /// `sqlite_sequence`.
    Counters,
    /// The first column is the row's number.
    Numbered,
}

/// Marks the used bytes; `roots` are the root pages of all tables and indices.
pub fn used(bytes: Vec<u8>, roots: &[(usize, Rows)]) -> Vec<bool> {
    let mut file = Used { used: vec![false; bytes.len()], bytes };
    file.mark(0, 96);
    file.tree(1, Rows::Plain);
    for (root, rows) in roots {
        file.tree(*root, *rows);
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

    fn tree(&mut self, page: usize, rows: Rows) {
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
            self.cell(kind, cell, rows);
        }
        if inner {
            self.tree(self.number(at + 8, 4), rows);
        }
    }

    fn cell(&mut self, kind: u8, cell: usize, rows: Rows) {
        let mut at = cell;
        if kind == 2 || kind == 5 {
            self.mark(at, 4);
            self.tree(self.number(at, 4), rows);
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
        if rows == Rows::Counters {
            // Header of three bytes, the table's name, the counter.
            let name = (usize::from(self.bytes[at + 1]) - 13) / 2;
            self.mark(at, 3 + name);
            return;
        }
        self.mark(at, local);
        if rows == Rows::Numbered && kind == 13 {
            self.used[at + 1] = false;
        }
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
