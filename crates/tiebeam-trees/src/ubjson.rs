//! UBJSON, the binary form of XGBoost's models. Counts are held to the bytes that are there.

use crate::document::{DEPTH, Gathered, Node};

/// Reads a document that is the whole of `bytes`.
pub(crate) fn read(bytes: &[u8]) -> Result<Node, String> {
    let mut reader = Reader { bytes, at: 0 };
    let marker = reader.byte()?;
    let node = reader.value(marker, 0)?;
    if reader.at < bytes.len() {
        return Err(reader.wrong("something follows the end"));
    }
    Ok(node)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn wrong(&self, what: &str) -> String {
        format!("at byte {}: {what}", self.at)
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], String> {
        let taken = self.at.checked_add(n).and_then(|end| self.bytes.get(self.at..end));
        self.at = self.at.saturating_add(n);
        taken.ok_or_else(|| "the UBJSON ends early: the file is cut off".to_owned())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn byte(&mut self) -> Result<u8, String> {
        Ok(self.array::<1>()?[0])
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// A number of a type; none where the marker is no number's.
    fn number(&mut self, marker: u8) -> Result<Option<f64>, String> {
        Ok(Some(match marker {
            b'i' => f64::from(i8::from_be_bytes(self.array()?)),
            b'U' => f64::from(self.byte()?),
            b'I' => f64::from(i16::from_be_bytes(self.array()?)),
            b'l' => f64::from(i32::from_be_bytes(self.array()?)),
            b'L' => i64::from_be_bytes(self.array()?) as f64,
            b'd' => f64::from(f32::from_be_bytes(self.array()?)),
            b'D' => f64::from_be_bytes(self.array()?),
            _ => return Ok(None),
        }))
    }

    /// How many of something there are, of which each takes at least `least` bytes.
    fn count(&mut self, least: usize) -> Result<usize, String> {
        let marker = self.byte()?;
        let count = match marker {
            b'i' => i64::from(i8::from_be_bytes(self.array()?)),
            b'U' => i64::from(self.byte()?),
            b'I' => i64::from(i16::from_be_bytes(self.array()?)),
            b'l' => i64::from(i32::from_be_bytes(self.array()?)),
            b'L' => i64::from_be_bytes(self.array()?),
            _ => return Err(self.wrong("no count")),
        };
        let left = self.bytes.len().saturating_sub(self.at) / least;
        match usize::try_from(count) {
            Ok(count) if count <= left => Ok(count),
            _ => Err(self.wrong(&format!("a count of {count}, more than is there"))),
        }
    }

    fn string(&mut self) -> Result<String, String> {
        let count = self.count(1)?;
        let bytes = self.take(count)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(self.wrong("a string that is not UTF-8")),
        }
    }

    fn value(&mut self, marker: u8, depth: usize) -> Result<Node, String> {
        if depth > DEPTH {
            return Err(self.wrong("nested too deep for a model"));
        }
        if let Some(number) = self.number(marker)? {
            return Ok(Node::Number(number));
        }
        match marker {
            b'Z' => Ok(Node::Null),
            b'T' => Ok(Node::Bool(true)),
            b'F' => Ok(Node::Bool(false)),
            b'C' => Ok(Node::Text(char::from(self.byte()?).to_string())),
            b'S' => self.string().map(Node::Text),
            b'[' => self.list(depth),
            b'{' => self.map(depth),
            other => Err(self.wrong(&format!("no value of UBJSON begins with {other:#04x}"))),
        }
    }

    fn list(&mut self, depth: usize) -> Result<Node, String> {
        if self.peek() == Some(b'$') {
            return self.typed();
        }
        let mut gathered = Gathered::default();
        if self.peek() == Some(b'#') {
            self.at += 1;
            for _ in 0..self.count(1)? {
                let marker = self.byte()?;
                gathered.push(self.value(marker, depth + 1)?);
            }
            return Ok(gathered.finish());
        }
        loop {
            match self.byte()? {
                b']' => return Ok(gathered.finish()),
                b'N' => {}
                marker => gathered.push(self.value(marker, depth + 1)?),
            }
        }
    }

    /// Numbers of one type behind each other.
    fn typed(&mut self) -> Result<Node, String> {
        self.at += 1;
        let marker = self.byte()?;
        let size = match marker {
            b'i' | b'U' => 1,
            b'I' => 2,
            b'l' | b'd' => 4,
            b'L' | b'D' => 8,
            _ => return Err(self.wrong("a list of a type that models do not use")),
        };
        if self.byte()? != b'#' {
            return Err(self.wrong("a list of one type without a count"));
        }
        let count = self.count(size)?;
        let mut numbers = Vec::with_capacity(count);
        for _ in 0..count {
            numbers.extend(self.number(marker)?);
        }
        Ok(Node::Numbers(numbers))
    }

    fn map(&mut self, depth: usize) -> Result<Node, String> {
        let mut entries = Vec::new();
        match self.peek() {
            Some(b'$') => return Err(self.wrong("a map of one type: models do not use it")),
            Some(b'#') => {
                self.at += 1;
                for _ in 0..self.count(2)? {
                    entries.push(self.entry(depth)?);
                }
            }
            _ => loop {
                match self.peek() {
                    Some(b'}') => {
                        self.at += 1;
                        break;
                    }
                    Some(b'N') => self.at += 1,
                    _ => entries.push(self.entry(depth)?),
                }
            },
        }
        Ok(Node::Map(entries))
    }

    fn entry(&mut self, depth: usize) -> Result<(String, Node), String> {
        let key = self.string()?;
        let marker = self.byte()?;
        Ok((key, self.value(marker, depth + 1)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read() {
        let bytes = b"{U\x01a[$d#U\x02\x3f\x80\x00\x00\xc0\x20\x00\x00U\x01b[#i\x02SU\x02hiTi\x01c[l\x00\x00\x01\x00N]L\0\0\0\0\0\0\0\x01dZ}";
        let node = read(bytes).unwrap();
        assert_eq!(node.array("a"), Ok(&[1.0, -2.5][..]));
        assert_eq!(node.get("b").unwrap().list().unwrap(), [Node::Text("hi".to_owned()), Node::Bool(true)]);
        assert_eq!(node.array("c"), Ok(&[256.0][..]));
        assert_eq!(node.get("d"), Some(&Node::Null));
    }

    #[test]
    fn what_is_damaged_is_told_and_counts_take_no_memory() {
        let cases: [(&[u8], &str); 8] = [
            (b"{", "ends early"),
            (b"[$d#L\x7f\xff\xff\xff\xff\xff\xff\xff", "more than is there"),
            (b"[$d#l\xff\xff\xff\xff", "a count of -1"),
            (b"[#L\x00\x00\x00\x00\xff\xff\xff\xff", "more than is there"),
            (b"SL\x00\x00\x00\x00\xff\xff\xff\xff", "more than is there"),
            (b"[$S#U\x01", "a type that models do not use"),
            (b"[?", "no value of UBJSON begins with 0x3f"),
            (b"TT", "something follows"),
        ];
        for (bytes, want) in cases {
            let error = read(bytes).unwrap_err();
            assert!(error.contains(want), "{}: {error}", bytes.escape_ascii());
        }
        assert!(read(&b"[".repeat(1_000_000)).unwrap_err().contains("nested too deep"));
    }
}
