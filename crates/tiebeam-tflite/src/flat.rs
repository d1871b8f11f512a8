//! FlatBuffers, read without generated code: every offset is held to the file before it is followed.
//!
//! Nothing here recurses, and nothing is copied but what is asked for: what a damaged file can cost is bounded by who asks.

/// What every reading function gives: nothing is said of where, since no offset of a damaged file means anything.
pub(crate) type Read<T> = Result<T, String>;

/// A table of a file.
#[derive(Clone, Copy)]
pub(crate) struct Table<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Where the places of its fields are listed.
    fields: &'a [u8],
}

/// Numbers that lie in a row.
#[derive(Clone, Copy)]
pub(crate) struct Vector<'a> {
    bytes: &'a [u8],
    start: usize,
    length: usize,
}

fn outside() -> String {
    "an offset leads out of the file".to_owned()
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Read<[u8; N]> {
    let slice = at.checked_add(N).and_then(|end| bytes.get(at..end)).ok_or_else(outside)?;
    let mut array = [0; N];
    array.copy_from_slice(slice);
    Ok(array)
}

fn u32_at(bytes: &[u8], at: usize) -> Read<u32> {
    array(bytes, at).map(u32::from_le_bytes)
}

/// Where the offset at `at` leads.
fn follow(bytes: &[u8], at: usize) -> Read<usize> {
    let to = at.checked_add(u32_at(bytes, at)? as usize).ok_or_else(outside)?;
    if to < bytes.len() { Ok(to) } else { Err(outside()) }
}

impl<'a> Table<'a> {
    /// The table that a file begins with.
    pub(crate) fn root(bytes: &'a [u8]) -> Read<Self> {
        Table::at(bytes, follow(bytes, 0)?)
    }

    fn at(bytes: &'a [u8], at: usize) -> Read<Self> {
        let back = i64::from(i32::from_le_bytes(array(bytes, at)?));
        let list = usize::try_from(at as i64 - back).map_err(|_| outside())?;
        let length = usize::from(u16::from_le_bytes(array(bytes, list)?));
        let fields = list.checked_add(length).and_then(|end| bytes.get(list + 4..end)).ok_or_else(outside)?;
        Ok(Table { bytes, at, fields })
    }

    /// Where a field is, if the table has it.
    fn field(&self, slot: usize) -> Option<usize> {
        let place = self.fields.get(slot * 2..slot * 2 + 2)?;
        match u16::from_le_bytes([place[0], place[1]]) {
            0 => None,
            offset => Some(self.at + usize::from(offset)),
        }
    }

    pub(crate) fn u8(&self, slot: usize) -> Read<u8> {
        Ok(self.field(slot).map(|at| array::<1>(self.bytes, at)).transpose()?.map_or(0, |byte| byte[0]))
    }

    pub(crate) fn flag(&self, slot: usize) -> Read<bool> {
        self.u8(slot).map(|byte| byte != 0)
    }

    pub(crate) fn i32_or(&self, slot: usize, default: i32) -> Read<i32> {
        Ok(self.field(slot).map(|at| array(self.bytes, at)).transpose()?.map_or(default, i32::from_le_bytes))
    }

    pub(crate) fn i32(&self, slot: usize) -> Read<i32> {
        self.i32_or(slot, 0)
    }

    pub(crate) fn u64(&self, slot: usize) -> Read<u64> {
        Ok(self.field(slot).map(|at| array(self.bytes, at)).transpose()?.map_or(0, u64::from_le_bytes))
    }

    pub(crate) fn f32_or(&self, slot: usize, default: f32) -> Read<f32> {
        Ok(self.field(slot).map(|at| array(self.bytes, at)).transpose()?.map_or(default, f32::from_le_bytes))
    }

    pub(crate) fn table(&self, slot: usize) -> Read<Option<Table<'a>>> {
        self.field(slot).map(|at| Table::at(self.bytes, follow(self.bytes, at)?)).transpose()
    }

    /// A vector whose elements take `size` bytes; an absent one is empty.
    fn vector(&self, slot: usize, size: usize) -> Read<Vector<'a>> {
        let Some(at) = self.field(slot) else { return Ok(Vector { bytes: self.bytes, start: 0, length: 0 }) };
        let start = follow(self.bytes, at)?;
        let length = u32_at(self.bytes, start)? as usize;
        let end = length.checked_mul(size).and_then(|bytes| bytes.checked_add(start + 4));
        match end {
            Some(end) if end <= self.bytes.len() => {
                Ok(Vector { bytes: self.bytes, start: start + 4, length })
            }
            _ => Err("a vector is longer than the file".to_owned()),
        }
    }

    pub(crate) fn bytes(&self, slot: usize) -> Read<&'a [u8]> {
        let vector = self.vector(slot, 1)?;
        Ok(&self.bytes[vector.start..vector.start + vector.length])
    }

    pub(crate) fn text(&self, slot: usize) -> Read<&'a str> {
        std::str::from_utf8(self.bytes(slot)?).map_err(|_| "a name is not UTF-8".to_owned())
    }

    /// Numbers of 32 bits, at most `most` of them.
    pub(crate) fn i32s(&self, slot: usize, most: usize) -> Read<Vec<i32>> {
        let vector = self.vector(slot, 4)?;
        vector.few(most)?;
        (0..vector.length)
            .map(|i| array(vector.bytes, vector.start + i * 4).map(i32::from_le_bytes))
            .collect()
    }

    pub(crate) fn f32s(&self, slot: usize, most: usize) -> Read<Vec<f32>> {
        Ok(self.i32s(slot, most)?.into_iter().map(|bits| f32::from_bits(bits as u32)).collect())
    }

    pub(crate) fn i64s(&self, slot: usize, most: usize) -> Read<Vec<i64>> {
        let vector = self.vector(slot, 8)?;
        vector.few(most)?;
        (0..vector.length)
            .map(|i| array(vector.bytes, vector.start + i * 8).map(i64::from_le_bytes))
            .collect()
    }

    /// Tables, one after the other.
    pub(crate) fn tables(&self, slot: usize) -> Read<impl ExactSizeIterator<Item = Read<Table<'a>>>> {
        let vector = self.vector(slot, 4)?;
        Ok((0..vector.length).map(move |i| {
            let at = vector.start + i * 4;
            Table::at(vector.bytes, follow(vector.bytes, at)?)
        }))
    }
}

impl Vector<'_> {
    fn few(&self, most: usize) -> Read<()> {
        if self.length <= most {
            Ok(())
        } else {
            Err(format!("a list of {} numbers, at most {most} go", self.length))
        }
    }
}
