//! One file on the screen: lines of text, or the bytes of a binary file in hex.
//!
//! Only the part on the screen is read, so the file's size does not matter; one pass at the start
//! finds how many lines there are and where every 256th begins.
//!
//! Invariants: what is drawn is a window of the file; a line that is longer than the screen costs
//! what is shown of it; a read that fails is reported on the screen and changes nothing else.

use std::io::Result;

use strata_content::Content;

use super::filter::position;

/// Bytes on a line of hex.
pub(crate) const HEX_LINE: u64 = 16;
/// The offset of one line in this many is kept.
const STEP: u64 = 256;
const CHUNK: usize = 64 << 10;
/// A NUL among this many bytes at the start makes a file a binary one (as grep and git see it).
const PROBED: usize = 8 << 10;

/// How a file is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PagerMode {
    Text,
    Hex,
}

/// A line, as far as it is wanted, and where it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) offset: u64,
    pub(crate) bytes: Vec<u8>,
}

/// An open file and the window on it.
#[derive(Debug)]
pub(crate) struct Pager {
    pub(crate) title: String,
    file: Box<dyn Content>,
    size: u64,
    mode: PagerMode,
    /// Offsets of the lines 0, 256, 512 ...
    index: Vec<u64>,
    lines: u64,
    /// The first line on the screen.
    top: u64,
    /// The first column.
    pub(crate) left: usize,
    pub(crate) height: usize,
    /// What was looked for, and where it was found last.
    pub(crate) wanted: String,
    pub(crate) hit: Option<u64>,
}

impl Pager {
    /// Reads a file's lines.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn new(title: String, file: Box<dyn Content>) -> Result<Self> {
        let size = file.len();
        let (mut index, mut lines, mut at) = (vec![0], 0, 0);
        let mut buffer = vec![0; CHUNK];
        let mut mode = PagerMode::Text;
        let mut ended = true;
        loop {
            let read = file.read_at(&mut buffer, at)?;
            let bytes = &buffer[..read];
            if read == 0 {
                break;
            }
            if at == 0 && bytes[..read.min(PROBED)].contains(&0) {
                mode = PagerMode::Hex;
            }
            for (behind, _) in bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
                lines += 1;
                if lines % STEP == 0 {
                    index.push(at + behind as u64 + 1);
                }
            }
            ended = bytes.ends_with(b"\n");
            at += read as u64;
        }
        lines += u64::from(!ended);
        Ok(Self {
            title,
            file,
            size,
            mode,
            index,
            lines,
            top: 0,
            left: 0,
            height: 1,
            wanted: String::new(),
            hit: None,
        })
    }

    pub(crate) fn mode(&self) -> PagerMode {
        self.mode
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn top(&self) -> u64 {
        self.top
    }

    /// Lines of the mode that it is in.
    pub(crate) fn lines(&self) -> u64 {
        match self.mode {
            PagerMode::Text => self.lines,
            PagerMode::Hex => self.size.div_ceil(HEX_LINE),
        }
    }

    /// Text becomes hex and hex text, at about the same place.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn toggle(&mut self) -> Result<()> {
        let offset = self.offset_of(self.top)?;
        self.mode = if self.mode == PagerMode::Text { PagerMode::Hex } else { PagerMode::Text };
        self.left = 0;
        let line = self.line_at(offset)?;
        self.go(line);
        Ok(())
    }

    /// Makes a line the first, as far as that leaves the window full.
    pub(crate) fn go(&mut self, line: u64) {
        self.top = line.min(self.lines().saturating_sub(self.height as u64));
    }

    pub(crate) fn up(&mut self, by: u64) {
        self.go(self.top.saturating_sub(by));
    }

    pub(crate) fn down(&mut self, by: u64) {
        self.go(self.top.saturating_add(by));
    }

    /// The lines on the screen, each with at most `width` bytes.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn window(&self, width: usize) -> Result<Vec<Line>> {
        let rows = (self.height as u64).min(self.lines() - self.top) as usize;
        let mut at = self.offset_of(self.top)?;
        let mut window = Vec::with_capacity(rows);
        if self.mode == PagerMode::Hex {
            for _ in 0..rows {
                let mut bytes = vec![0; HEX_LINE as usize];
                let read = self.read_full(&mut bytes, at)?;
                bytes.truncate(read);
                window.push(Line { offset: at, bytes });
                at += HEX_LINE;
            }
            return Ok(window);
        }
        for _ in 0..rows {
            let mut line = Line { offset: at, bytes: Vec::new() };
            at = self.pass_line(at, |part| {
                let room = width.saturating_sub(line.bytes.len());
                line.bytes.extend_from_slice(&part[..part.len().min(room)]);
            })?;
            window.push(line);
        }
        Ok(window)
    }

    /// Passes the line at `at` on without its end; the offset of the next.
    fn pass_line(&self, mut at: u64, mut each: impl FnMut(&[u8])) -> Result<u64> {
        // Lines are short: a small buffer first, then larger ones.
        let mut buffer = vec![0; 512];
        loop {
            let read = self.file.read_at(&mut buffer, at)?;
            let bytes = &buffer[..read];
            let end = bytes.iter().position(|byte| *byte == b'\n');
            each(&bytes[..end.unwrap_or(read)]);
            at += end.map_or(read, |end| end + 1) as u64;
            if end.is_some() || read == 0 {
                return Ok(at);
            }
            buffer.resize(CHUNK, 0);
        }
    }

    fn read_full(&self, bytes: &mut [u8], at: u64) -> Result<usize> {
        let mut done = 0;
        while done < bytes.len() {
            match self.file.read_at(&mut bytes[done..], at + done as u64)? {
                0 => break,
                read => done += read,
            }
        }
        Ok(done)
    }

    fn offset_of(&self, line: u64) -> Result<u64> {
        if self.mode == PagerMode::Hex {
            return Ok(line * HEX_LINE);
        }
        let near = (line / STEP).min(self.index.len() as u64 - 1);
        let mut at = self.index[near as usize];
        for _ in near * STEP..line {
            at = self.pass_line(at, |_| {})?;
        }
        Ok(at)
    }

    /// The line that an offset is in.
    fn line_at(&self, offset: u64) -> Result<u64> {
        if self.mode == PagerMode::Hex {
            return Ok(offset / HEX_LINE);
        }
        let near = self.index.partition_point(|start| *start <= offset).saturating_sub(1);
        let (mut line, mut at) = (near as u64 * STEP, self.index[near]);
        loop {
            let next = self.pass_line(at, |_| {})?;
            if next > offset || next >= self.size {
                return Ok(line);
            }
            (line, at) = (line + 1, next);
        }
    }

    /// Looks for `wanted` behind the last hit or, the first time, from the top of the screen on,
    /// and around the end; `false`: it is nowhere.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn find_next(&mut self) -> Result<bool> {
        let from = match self.hit {
            Some(hit) => hit + 1,
            None => self.offset_of(self.top)?,
        };
        let found = match self.find(from, self.size)? {
            None => self.find(0, self.size)?,
            found => found,
        };
        self.show_hit(found)
    }

    /// Looks for it before the last hit or the top of the screen, and around the beginning.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn find_previous(&mut self) -> Result<bool> {
        let to = match self.hit {
            Some(hit) => hit,
            None => self.offset_of(self.top)?,
        };
        let found = match self.find_last(to)? {
            None => self.find_last(self.size)?,
            found => found,
        };
        self.show_hit(found)
    }

    fn show_hit(&mut self, found: Option<u64>) -> Result<bool> {
        self.hit = found;
        let Some(hit) = found else { return Ok(false) };
        let line = self.line_at(hit)?;
        if !(self.top..self.top + self.height as u64).contains(&line) {
            self.go(line.saturating_sub(self.height as u64 / 3));
        }
        Ok(true)
    }

    /// Small letters stand for capitals too.
    pub(crate) fn any_case(&self) -> bool {
        !self.wanted.chars().any(char::is_uppercase)
    }

    /// The first place that begins in `from..to`.
    fn find(&self, from: u64, to: u64) -> Result<Option<u64>> {
        let wanted = self.wanted.as_bytes();
        let mut buffer = vec![0; CHUNK + wanted.len()];
        let mut at = from;
        while at < to && !wanted.is_empty() {
            let read = self.read_full(&mut buffer, at)?;
            if let Some(found) = position(&buffer[..read], wanted, self.any_case()) {
                let found = at + found as u64;
                return Ok(Some(found).filter(|found| *found < to));
            }
            if read < buffer.len() {
                break;
            }
            at += CHUNK as u64;
        }
        Ok(None)
    }

    /// The last place that begins before `to`.
    fn find_last(&self, to: u64) -> Result<Option<u64>> {
        let (mut last, mut end) = (None, to);
        while end > 0 && last.is_none() {
            let start = end.saturating_sub(CHUNK as u64);
            let mut from = start;
            while let Some(found) = self.find(from, end)? {
                last = Some(found);
                from = found + 1;
            }
            end = start;
        }
        Ok(last)
    }
}
