//! Layers that are in no store: read as streams, nothing of them kept.
//!
//! ```text
//! first reading   verified, and drafted as a load would: which contents would the layer hold
//! second reading  only to measure chunks: the bodies of those contents that are wanted
//! ```
//!
//! Invariants: a surveyed layer holds exactly the contents that the store would have after loading
//! it; its bytes were verified as a load verifies them. Memory: a draft of one layer, and 72 bytes
//! a content.

use std::collections::HashMap;
use std::io::{self, Read};

use strata_diff::spill::SpillSpace;
use strata_diff::tar::{DiffReader, MemberKind, RawSink};
use strata_diff::{Limits, stream};
use strata_layer::{InspectedLayer, IoContext, LayerInput, Progress, Result, inspect};
use strata_tree::ContentDigest;

use super::LayerContents;
use super::chunks::{Cutter, Packing};

/// What is known of a layer that was read and not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SurveyedLayer {
    /// Bytes of its tar.
    pub diff_size: u64,
    /// Names in it, whiteouts included.
    pub entries: u64,
    /// What it would hold.
    pub contents: LayerContents,
    /// For each of its contents the number of a member of the tar that has it.
    pub members: HashMap<ContentDigest, u64>,
}

/// Reads and verifies a layer.
///
/// # Errors
/// Those of [`strata_layer::Store::unpack`] that the input is the cause of.
pub fn survey_layer(
    input: LayerInput<'_>,
    limits: &Limits,
    progress: &dyn Progress,
) -> Result<SurveyedLayer> {
    let InspectedLayer { diff_id, diff_size, entries, apparent, contents } =
        inspect(input, limits, &SpillSpace::unbounded(), progress)?;
    let members = contents.iter().map(|one| (one.digest, one.member)).collect();
    let contents = contents.into_iter().map(|one| (one.digest, one.size)).collect();
    let contents = LayerContents { diff_id, apparent, contents };
    Ok(SurveyedLayer { diff_size, entries, contents, members })
}

/// Reads a layer once more, cuts the bodies of the members in `wanted`, by their numbers, and, if
/// `whole`, compresses the diff as one; gives the bytes that it then has.
///
/// # Errors
/// `Diff`, `Io`; the layer was not verified again.
pub fn cut_layer(
    input: LayerInput<'_>,
    limits: &Limits,
    wanted: &HashMap<u64, ContentDigest>,
    whole: bool,
    cutter: &mut Cutter<'_>,
) -> Result<u64> {
    let LayerInput { label, reader, .. } = input;
    let read = |tar: &mut dyn Read, cutter: &mut Cutter<'_>| -> Result<()> {
        let mut reader = DiffReader::new(tar, label.clone(), *limits, Unkept);
        let mut number = 0;
        while let Some(member) = reader.next()? {
            match wanted.get(&number) {
                Some(digest) if member.kind == MemberKind::Regular => {
                    let pieces = member.sparse.unwrap_or_else(|| vec![(0, member.size)]);
                    let mut file =
                        Logical { reader: &mut reader, pieces, next: 0, at: 0, size: member.size };
                    let doing = || format!("layer {label}: cannot read member {number}");
                    cutter.content(digest, member.size, &mut file).doing(doing)?;
                }
                Some(_) | None => skip(&mut reader)?,
            }
            number += 1;
        }
        Ok(())
    };
    let (packed, _) = stream::decompress(reader, &label, limits, &|_| (), |tar| match whole {
        false => read(tar, cutter).map(|()| 0),
        true => {
            let mut packed = cutter.start_diff()?;
            let mut tee = Tee { tar, packed: &mut packed };
            read(&mut tee, cutter)?;
            io::copy(&mut tee, &mut io::sink()).doing(|| format!("layer {label}: cannot read"))?;
            cutter.end_diff(packed)
        }
    })?;
    Ok(packed)
}

fn skip<R: Read, S: RawSink>(reader: &mut DiffReader<R, S>) -> Result<()> {
    let mut buffer = [0; 64 << 10];
    while reader.read_body(&mut buffer)? > 0 {}
    Ok(())
}

/// For headers and padding, of which nothing is kept.
struct Unkept;

impl RawSink for Unkept {
    fn raw(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

/// The body of a member with its holes filled.
struct Logical<'a, R, S> {
    reader: &'a mut DiffReader<R, S>,
    pieces: Vec<(u64, u64)>,
    next: usize,
    at: u64,
    size: u64,
}

impl<R: Read, S: RawSink> Read for Logical<'_, R, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.pieces.get(self.next).is_some_and(|(at, len)| at + len <= self.at) {
            self.next += 1;
        }
        let (from, until) = match self.pieces.get(self.next) {
            Some((at, len)) => (*at, at + len),
            None => (self.size, self.size),
        };
        let end = if self.at < from { from } else { until };
        let left = usize::try_from(end - self.at).unwrap_or(usize::MAX);
        let want = buffer.len().min(left);
        let n = match self.at < from {
            true => {
                buffer[..want].fill(0);
                want
            }
            false => self.reader.read_body(&mut buffer[..want]).map_err(io::Error::other)?,
        };
        self.at += n as u64;
        Ok(n)
    }
}

/// What is read of the tar is compressed, too.
struct Tee<'a, 'p> {
    tar: &'a mut dyn Read,
    packed: &'a mut Packing<'p>,
}

impl Read for Tee<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.tar.read(buffer)?;
        io::Write::write_all(self.packed, &buffer[..n])?;
        Ok(n)
    }
}
