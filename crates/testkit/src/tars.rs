//! Tars built block by block: nothing here knows what is valid.

/// One header block to be.
#[derive(Clone)]
pub struct Head(pub [u8; 512]);

impl Head {
    /// A ustar header: mode 0644, owner 0:0, mtime 0, size 0.
    pub fn new(flag: u8, name: &[u8]) -> Self {
        let head = Self([0; 512]).put(0, name).put(100, b"0000644\0").put(108, b"0000000\0");
        let head = head.put(116, b"0000000\0").put(136, b"00000000000\0").put(156, &[flag]);
        head.size(0).put(257, b"ustar\x0000").put(329, b"0000000\0").put(337, b"0000000\0")
    }

    pub fn gnu(self) -> Self {
        self.put(257, b"ustar  \0")
    }

    pub fn v7(self) -> Self {
        self.put(257, &[0; 255])
    }

    pub fn put(mut self, at: usize, bytes: &[u8]) -> Self {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    pub fn size(self, size: u64) -> Self {
        self.put(124, format!("{size:011o}\0").as_bytes())
    }

    pub fn link(self, target: &[u8]) -> Self {
        self.put(157, target)
    }

    /// The block with its checksum.
    pub fn sealed(self) -> [u8; 512] {
        let head = self.put(148, b"        ");
        let sum: u32 = head.0.iter().map(|byte| u32::from(*byte)).sum();
        head.put(148, format!("{sum:06o}\0 ").as_bytes()).0
    }
}

/// One PAX record.
pub fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while rest + len.to_string().len() != len {
        len = rest + len.to_string().len();
    }
    [format!("{len} ").as_bytes(), key, b"=", value, b"\n"].concat()
}

/// The blocks of a tar.
#[derive(Clone, Default)]
pub struct Tar(pub Vec<u8>);

impl Tar {
    /// A header as it is, and its body with padding.
    pub fn raw(mut self, head: Head, body: &[u8]) -> Self {
        self.0.extend_from_slice(&head.sealed());
        self.data(body)
    }

    /// A header with the body's size, and the body.
    pub fn add(self, head: Head, body: &[u8]) -> Self {
        self.raw(head.size(body.len() as u64), body)
    }

    /// Bytes, padded to whole blocks.
    pub fn data(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        self.extended(b'x', records)
    }

    pub fn extended(self, flag: u8, records: &[(&str, &[u8])]) -> Self {
        let data: Vec<u8> =
            records.iter().flat_map(|(key, value)| record(key.as_bytes(), value)).collect();
        self.add(Head::new(flag, b"PaxHeaders/x"), &data)
    }

    pub fn long(self, flag: u8, name: &[u8]) -> Self {
        self.add(Head::new(flag, b"././@LongLink").gnu(), &[name, b"\0"].concat())
    }

    /// A plain file.
    pub fn file(self, name: &[u8], body: &[u8]) -> Self {
        self.add(Head::new(b'0', name), body)
    }

    /// A plain file with a name of any length.
    pub fn long_file(self, name: &[u8], body: &[u8]) -> Self {
        if name.len() <= 100 {
            return self.file(name, body);
        }
        self.pax(&[("path", name)]).file(b"long", body)
    }

    /// Two zero blocks.
    pub fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}
