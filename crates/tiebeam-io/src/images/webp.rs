//! What a WebP file says of itself before it is decoded: its decoder takes the lengths of chunks and the sizes of frames at their
//! word, whatever its limits are.

use image::ImageFormat;
use tiebeam_core::Result;

use super::ImageLimits;
use super::decode::damaged;

/// Looks through the chunks: each must be there, and no frame larger than the limits.
pub(super) fn check(bytes: &[u8], limits: &ImageLimits) -> Result<()> {
    let said = number(bytes, 4, 4).unwrap_or(0).saturating_add(8);
    let end = usize::try_from(said).unwrap_or(usize::MAX);
    chunks(bytes, 12, end, &mut |name, chunk| match name {
        b"VP8 " => frame(chunk, limits),
        b"ANMF" => {
            let side = |at| number(chunk, at, 3).map(|side| side as u32 + 1);
            if let (Some(width), Some(height)) = (side(6), side(9)) {
                limits.check(width, height)?;
            }
            chunks(chunk, 16, chunk.len(), &mut |name, inner| match name {
                b"VP8 " => frame(inner, limits),
                _ => Ok(()),
            })
        }
        _ => Ok(()),
    })
}

/// Gives the chunks that begin before `end`.
fn chunks(
    bytes: &[u8],
    start: usize,
    end: usize,
    f: &mut dyn FnMut(&[u8], &[u8]) -> Result<()>,
) -> Result<()> {
    let mut at = start;
    while at < end
        && let (Some(name), Some(length)) = (bytes.get(at..at + 4), number(bytes, at + 4, 4))
    {
        let chunk = usize::try_from(length).ok().and_then(|length| bytes.get(at + 8..)?.get(..length));
        let Some(chunk) = chunk else {
            let why =
                format!("its chunk {} says {length} bytes, more than the file has", name.escape_ascii());
            return Err(damaged(ImageFormat::WebP, &why));
        };
        f(name, chunk)?;
        // Chunks begin at even places.
        at += 8 + chunk.len().next_multiple_of(2);
    }
    Ok(())
}

/// The size that a lossy frame's own head tells, which need not be that of the file's.
fn frame(chunk: &[u8], limits: &ImageLimits) -> Result<()> {
    match (number(chunk, 6, 2), number(chunk, 8, 2)) {
        (Some(width), Some(height)) => limits.check((width & 0x3fff) as u32, (height & 0x3fff) as u32),
        _ => Ok(()),
    }
}

/// A little-endian number of so many bytes.
fn number(bytes: &[u8], at: usize, length: usize) -> Option<u64> {
    let bytes = bytes.get(at..at + length)?;
    Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}
