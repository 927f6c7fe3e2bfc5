//! Examples as the document writes them: fenced blocks of the language `layers`.
//!
//! A block is a list of lines: `layer` begins the next layer, base first, and the lines after it
//! are its members in order; `tree` begins the expected merged tree, or `error "..."` gives a part
//! of the expected message. docs/SEMANTICS.md, "How to read the examples", has the words.
//!
//! Invariants: what cannot be understood is an error with its line, never passed over; the
//! expected tree names every path, and all its facts: those not written have their defaults.

use std::collections::BTreeMap;

/// One example.
pub struct Example {
    /// The line of the document on which its block begins.
    pub line: usize,
    /// The members of each layer, base first.
    pub layers: Vec<Vec<Item>>,
    pub expected: Expected,
}

pub enum Expected {
    Tree(Vec<Item>),
    Error(String),
}

/// One line of a layer or of a tree: a word, its arguments, and `key=value` after them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub word: String,
    pub args: Vec<Vec<u8>>,
    pub options: Vec<(String, Vec<u8>)>,
}

/// Everything that is known of one path of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathFacts {
    pub path: Vec<u8>,
    /// `dir`, `file`, `symlink`, `fifo`, `char`, `block`.
    pub kind: String,
    /// The content of a file, the target of a symlink, `MAJOR:MINOR` of a device.
    pub body: Vec<u8>,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds and nanoseconds.
    pub mtime: (i64, u32),
    pub nlink: u64,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first path, in byte order, that is the same inode.
    pub inode: Vec<u8>,
}

impl Item {
    /// Bytes of the argument at `at`.
    pub fn arg(&self, at: usize) -> &[u8] {
        self.args.get(at).unwrap_or_else(|| panic!("{self:?} lacks an argument"))
    }

    pub fn option(&self, key: &str) -> Option<&[u8]> {
        self.options.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_slice())
    }

    pub fn number(&self, key: &str, radix: u32, default: u32) -> u32 {
        self.option(key).map_or(default, |value| {
            u32::from_str_radix(std::str::from_utf8(value).unwrap(), radix).unwrap()
        })
    }

    /// Permission bits; those of the document's defaults if not written.
    pub fn mode(&self) -> u32 {
        let default = match self.word.as_str() {
            "dir" => 0o755,
            "symlink" => 0o777,
            _ => 0o644,
        };
        self.number("mode", 8, default)
    }

    /// The options that are extended attributes: their names hold a dot.
    pub fn xattrs(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let dotted = self.options.iter().filter(|(key, _)| {
            ["user.", "trusted.", "security.", "system."].iter().any(|space| key.starts_with(space))
        });
        dotted.map(|(key, value)| (key.as_bytes(), value.as_slice()))
    }
}

/// `[-]SECONDS[.FRACTION]` as seconds, rounded down, and nanoseconds.
pub fn time(text: &str) -> (i64, u32) {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let nanos: u32 = format!("{fraction:0<9}").parse().unwrap();
    let seconds: i64 = whole.parse().unwrap();
    match (whole.starts_with('-'), nanos) {
        (true, 1..) => (seconds - 1, 1_000_000_000 - nanos),
        _ => (seconds, nanos),
    }
}

/// All examples of a document.
pub fn parse(document: &str) -> Result<Vec<Example>, String> {
    let mut found = Vec::new();
    let mut lines = document.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        if line != "```layers" {
            continue;
        }
        let block = lines.by_ref().take_while(|(_, line)| *line != "```");
        found.push(block_of(at + 1, block)?);
    }
    Ok(found)
}

fn block_of<'a>(
    line: usize,
    block: impl Iterator<Item = (usize, &'a str)>,
) -> Result<Example, String> {
    let mut layers: Vec<Vec<Item>> = Vec::new();
    let mut expected = None;
    for (at, text) in block {
        let fail = |why: &str| format!("line {}: {why}: {text}", at + 1);
        let item = item(text).map_err(|why| fail(&why))?;
        match (item.word.as_str(), &mut expected) {
            ("", _) => {}
            ("layer", None) => layers.push(Vec::new()),
            ("tree", None) => expected = Some(Expected::Tree(Vec::new())),
            ("error", None) => {
                expected = Some(Expected::Error(String::from_utf8_lossy(item.arg(0)).into()));
            }
            (_, None) => layers.last_mut().ok_or_else(|| fail("before any layer"))?.push(item),
            (_, Some(Expected::Tree(tree))) => tree.push(item),
            (_, Some(Expected::Error(_))) => return Err(fail("after the error")),
        }
    }
    let expected = expected.ok_or_else(|| format!("line {line}: neither a tree nor an error"))?;
    Ok(Example { line, layers, expected })
}

/// `word arg arg key=value ...`; arguments are bare or in quotes, a `#` begins a comment.
fn item(line: &str) -> Result<Item, String> {
    let mut item = Item { word: String::new(), args: Vec::new(), options: Vec::new() };
    let mut rest = line.trim_start();
    while !rest.is_empty() && !rest.starts_with('#') {
        let bare = rest.find([' ', '"']).unwrap_or(rest.len());
        let (head, tail) = rest.split_at(bare);
        let (value, tail) = match tail.strip_prefix('"') {
            Some(tail) => quoted(tail)?,
            None => (Vec::new(), tail),
        };
        let quoted = rest.len() - tail.len() > bare;
        match head.split_once('=') {
            Some((key, "")) if quoted => item.options.push((key.to_owned(), value)),
            Some((key, bare)) if !quoted => {
                item.options.push((key.to_owned(), bare.as_bytes().to_vec()));
            }
            None if quoted && head.is_empty() => item.args.push(value),
            None if !quoted && item.word.is_empty() => item.word = head.to_owned(),
            None if !quoted => item.args.push(head.as_bytes().to_vec()),
            _ => return Err("a quote in the middle of a word".to_owned()),
        }
        rest = tail.trim_start();
    }
    Ok(item)
}

/// The bytes up to the closing quote, and what follows it. `\n`, `\0`, `\"`, `\\`, `\xHH`, and
/// `\{B*N}`: the byte B, N times.
fn quoted(text: &str) -> Result<(Vec<u8>, &str), String> {
    let mut bytes = Vec::new();
    let mut rest = text;
    loop {
        let stop = rest.find(['"', '\\']).ok_or("a quote is not closed")?;
        bytes.extend_from_slice(&rest.as_bytes()[..stop]);
        if rest[stop..].starts_with('"') {
            return Ok((bytes, &rest[stop + 1..]));
        }
        rest = &rest[stop + 1..];
        let length = match rest.as_bytes().first() {
            Some(b'n') => {
                bytes.push(b'\n');
                1
            }
            Some(b'0') => {
                bytes.push(0);
                1
            }
            Some(b'x') => {
                let hex = rest.get(1..3).ok_or("a short \\x")?;
                bytes.push(u8::from_str_radix(hex, 16).map_err(|error| error.to_string())?);
                3
            }
            Some(b'{') => {
                let end = rest.find('}').ok_or("a \\{ is not closed")?;
                let (byte, count) = rest[1..end].split_once('*').ok_or("no * in \\{}")?;
                let count: usize = count.parse().map_err(|_| "no number in \\{}")?;
                bytes.extend_from_slice(byte.repeat(count).as_bytes());
                end + 1
            }
            Some(b'"' | b'\\') => {
                bytes.push(rest.as_bytes()[0]);
                1
            }
            _ => return Err("an unknown escape".to_owned()),
        };
        rest = &rest[length..];
    }
}

/// What the lines of an expected tree say in full.
fn facts(tree: &[Item]) -> Vec<PathFacts> {
    let mut all: Vec<PathFacts> = Vec::new();
    for item in tree {
        let path = item.arg(0).to_vec();
        if item.word == "link" {
            let target = all.iter().find(|facts| facts.path == item.arg(1));
            let target = target.unwrap_or_else(|| panic!("{item:?}: the target comes after it"));
            all.push(PathFacts { path, ..target.clone() });
            continue;
        }
        all.push(PathFacts {
            kind: item.word.clone(),
            body: item.args.get(1).cloned().unwrap_or_default(),
            mode: item.mode(),
            uid: item.number("uid", 10, 0),
            gid: item.number("gid", 10, 0),
            mtime: item
                .option("mtime")
                .map_or((0, 0), |text| time(std::str::from_utf8(text).unwrap())),
            nlink: 0,
            xattrs: item.xattrs().map(|(key, value)| (key.to_vec(), value.to_vec())).collect(),
            inode: path.clone(),
            path,
        });
    }
    // The root is there whether an example speaks of it or not.
    if !all.iter().any(|facts| facts.path == b".") {
        let root = Item { word: "dir".into(), args: vec![b".".to_vec()], options: Vec::new() };
        all.extend(facts(&[root]));
    }
    count_links(&mut all);
    all
}

/// Fills in link counts and the first path of each inode from the tree itself.
fn count_links(all: &mut [PathFacts]) {
    let parent = |path: &[u8]| match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => path[..slash].to_vec(),
        None => b".".to_vec(),
    };
    let before = all.to_vec();
    for facts in all {
        let same: Vec<_> = before.iter().filter(|other| other.inode == facts.inode).collect();
        let first = same.iter().map(|other| &other.path).min();
        facts.inode = first.unwrap_or(&facts.path).clone();
        facts.nlink = same.len() as u64;
        if facts.kind == "dir" {
            let dirs = before.iter().filter(|other| other.kind == "dir" && other.path != b".");
            facts.nlink = 2 + dirs.filter(|dir| parent(&dir.path) == facts.path).count() as u64;
        }
    }
}

/// The differences between an expected tree and one that was seen.
pub fn compare(expected: &[Item], seen: &[PathFacts]) -> Vec<String> {
    let expected = facts(expected);
    let by_path = |all: &[PathFacts]| -> BTreeMap<Vec<u8>, PathFacts> {
        all.iter().map(|facts| (facts.path.clone(), facts.clone())).collect()
    };
    let (expected, seen) = (by_path(&expected), by_path(seen));
    let mut wrong = Vec::new();
    for path in expected.keys().chain(seen.keys().filter(|path| !expected.contains_key(*path))) {
        let shown = path.escape_ascii();
        match (expected.get(path), seen.get(path)) {
            (Some(_), None) => wrong.push(format!("{shown} is missing")),
            (None, Some(seen)) => wrong.push(format!("{shown} should not be there: {seen:?}")),
            (Some(expected), Some(seen)) if expected != seen => {
                wrong.push(format!("{shown} is\n  {seen:?}, expected\n  {expected:?}"));
            }
            _ => {}
        }
    }
    wrong
}
