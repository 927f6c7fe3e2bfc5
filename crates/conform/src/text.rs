//! One line of a file of cases: a word, its arguments, and `key=value` after them.
//!
//! Arguments are bare or in quotes; a `#` that begins a word begins a comment. In quotes `\n`,
//! `\0`, `\"`, `\\` and `\xFF` are escapes, and `\{x*200}` is 200 times an x (`\{NUL*200}`: zeros).
//!
//! Invariant: what cannot be understood is an error, never passed over.

/// A line in its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CaseLine {
    /// The number of the line in its file.
    pub(crate) number: usize,
    /// Empty for a line without a word.
    pub(crate) word: String,
    pub(crate) args: Vec<Vec<u8>>,
    pub(crate) options: Vec<(String, Vec<u8>)>,
}

impl CaseLine {
    /// The argument at `at`, which must be there.
    pub(crate) fn arg(&self, at: usize) -> Result<&[u8], String> {
        let missing = || format!("{} lacks an argument", self.word);
        self.args.get(at).map(Vec::as_slice).ok_or_else(missing)
    }

    pub(crate) fn option(&self, key: &str) -> Option<&[u8]> {
        self.options.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_slice())
    }

    /// The option as text.
    pub(crate) fn text(&self, key: &str) -> Result<Option<&str>, String> {
        let text = self.option(key).map(std::str::from_utf8).transpose();
        text.map_err(|_| format!("{key} is not text"))
    }

    pub(crate) fn number(&self, key: &str, radix: u32, default: u64) -> Result<u64, String> {
        self.text(key)?.map_or(Ok(default), |text| {
            u64::from_str_radix(text, radix).map_err(|_| format!("{key}={text} is no number"))
        })
    }

    /// `[-]SECONDS[.FRACTION]` as seconds, rounded down, and nanoseconds.
    pub(crate) fn time(&self) -> Result<(i64, u32), String> {
        let text = self.text("mtime")?.unwrap_or("0");
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let seconds: i64 = whole.parse().map_err(|_| format!("{text} is no time"))?;
        let nanos: u32 =
            format!("{fraction:0<9}").parse().map_err(|_| format!("{text} is no time"))?;
        Ok(match (whole.starts_with('-'), nanos) {
            (true, 1..) => (seconds - 1, 1_000_000_000 - nanos),
            _ => (seconds, nanos),
        })
    }

    /// The options that are extended attributes, by their namespaces.
    pub(crate) fn xattrs(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let spaces = ["user.", "trusted.", "security.", "system."];
        let dotted = self
            .options
            .iter()
            .filter(move |(key, _)| spaces.iter().any(|space| key.starts_with(space)));
        dotted.map(|(key, value)| (key.as_bytes(), value.as_slice()))
    }
}

/// The parts of a line.
pub(crate) fn parse(number: usize, line: &str) -> Result<CaseLine, String> {
    let mut found = CaseLine { number, word: String::new(), args: Vec::new(), options: Vec::new() };
    let mut rest = line.trim_start();
    while !rest.is_empty() && !rest.starts_with('#') {
        let bare = rest.find([' ', '"']).unwrap_or(rest.len());
        let (head, tail) = rest.split_at(bare);
        let (value, tail, is_quoted) = match tail.strip_prefix('"') {
            Some(tail) => {
                let (value, tail) = quoted(tail)?;
                (value, tail, true)
            }
            None => (Vec::new(), tail, false),
        };
        match (head.split_once('='), is_quoted) {
            (Some((key, "")), true) => found.options.push((key.to_owned(), value)),
            (Some((key, bare)), false) => {
                found.options.push((key.to_owned(), bare.as_bytes().to_vec()));
            }
            (None, true) if head.is_empty() && !found.word.is_empty() => found.args.push(value),
            (None, false) if found.word.is_empty() => found.word = head.to_owned(),
            (None, false) => found.args.push(head.as_bytes().to_vec()),
            _ => return Err("a quote in the middle of a word".to_owned()),
        }
        rest = tail.trim_start();
    }
    Ok(found)
}

/// The bytes up to the closing quote, and what follows it.
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
        let length = escape(rest, &mut bytes)?;
        rest = &rest[length..];
    }
}

/// Adds what the escape at the start of `rest` means, and says how long it is.
fn escape(rest: &str, bytes: &mut Vec<u8>) -> Result<usize, String> {
    match rest.as_bytes().first() {
        Some(b'n') => bytes.push(b'\n'),
        Some(b'0') => bytes.push(0),
        Some(byte @ (b'"' | b'\\')) => bytes.push(*byte),
        Some(b'x') => {
            let hex = rest.get(1..3).ok_or("a short \\x")?;
            bytes.push(u8::from_str_radix(hex, 16).map_err(|_| "no number in \\x")?);
            return Ok(3);
        }
        Some(b'{') => {
            let end = rest.find('}').ok_or("a \\{ is not closed")?;
            let (what, count) = rest[1..end].split_once('*').ok_or("no * in \\{}")?;
            let count: usize = count.parse().map_err(|_| "no number in \\{}")?;
            let what: &[u8] = if what == "NUL" { b"\0" } else { what.as_bytes() };
            bytes.extend_from_slice(&what.repeat(count));
            return Ok(end + 1);
        }
        _ => return Err("an unknown escape".to_owned()),
    }
    Ok(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_a_word_arguments_and_options() {
        let line = parse(3, r#"  file "a b" c mode=0750 user.x="\x00\n" pax:k="" # said"#).unwrap();
        assert_eq!((line.number, line.word.as_str()), (3, "file"));
        assert_eq!(line.args, [b"a b".to_vec(), b"c".to_vec()]);
        assert_eq!(line.number("mode", 8, 0), Ok(0o750));
        assert_eq!(line.xattrs().collect::<Vec<_>>(), [(&b"user.x"[..], &b"\0\n"[..])]);
        assert_eq!(line.option("pax:k"), Some(&b""[..]));
        assert_eq!(parse(1, "f \"\\{ab*2}\\{NUL*2}\"").unwrap().args, [b"abab\0\0".to_vec()]);
    }

    #[test]
    fn times_are_rounded_down() {
        let time = |text| parse(1, text).unwrap().time();
        assert_eq!(time("f mtime=-1.5"), Ok((-2, 500_000_000)));
        assert_eq!(time("f mtime=7.25"), Ok((7, 250_000_000)));
        assert_eq!(time("f"), Ok((0, 0)));
        assert!(time("f mtime=soon").is_err());
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        for wrong in ["f \"open", "f a\"b\"", "f \"\\q\"", "f \"\\{x}\"", "f \"\\x1\""] {
            assert!(parse(1, wrong).is_err(), "{wrong}");
        }
    }
}
