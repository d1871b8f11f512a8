//! JSON as XGBoost and LightGBM write it: with `NaN` and `Infinity` among the numbers. Bounded in depth and by the text.

use crate::document::{DEPTH, Gathered, Node};

/// Reads a document that is the whole of `text`.
pub(crate) fn read(text: &[u8]) -> Result<Node, String> {
    let mut reader = Reader { text, at: 0 };
    let node = reader.value(0)?;
    reader.space();
    if reader.at < text.len() {
        return Err(reader.wrong("something follows the end"));
    }
    Ok(node)
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn wrong(&self, what: &str) -> String {
        if self.at >= self.text.len() {
            return "the JSON ends early: the file is cut off".to_owned();
        }
        format!("at byte {}: {what}", self.at)
    }

    fn space(&mut self) {
        while self.text.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        self.space();
        let there = self.text.get(self.at) == Some(&byte);
        self.at += usize::from(there);
        there
    }

    fn need(&mut self, byte: u8) -> Result<(), String> {
        if self.take(byte) { Ok(()) } else { Err(self.wrong(&format!("`{}` is missing", char::from(byte)))) }
    }

    fn value(&mut self, depth: usize) -> Result<Node, String> {
        if depth > DEPTH {
            return Err(self.wrong("nested too deep for a model"));
        }
        self.space();
        let words: [(&[u8], Node); 6] = [
            (b"null", Node::Null),
            (b"true", Node::Bool(true)),
            (b"false", Node::Bool(false)),
            (b"NaN", Node::Number(f64::NAN)),
            (b"Infinity", Node::Number(f64::INFINITY)),
            (b"-Infinity", Node::Number(f64::NEG_INFINITY)),
        ];
        match self.text.get(self.at) {
            Some(b'{') => self.map(depth),
            Some(b'[') => self.list(depth),
            Some(b'"') => self.string().map(Node::Text),
            Some(b'0'..=b'9') => self.number(),
            Some(b'-') if self.text.get(self.at + 1) != Some(&b'I') => self.number(),
            _ => {
                let rest = self.text.get(self.at..).unwrap_or_default();
                match words.into_iter().find(|(word, _)| rest.starts_with(word)) {
                    Some((word, node)) => {
                        self.at += word.len();
                        Ok(node)
                    }
                    None => Err(self.wrong("no value of JSON")),
                }
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Node, String> {
        self.need(b'{')?;
        let mut entries = Vec::new();
        if self.take(b'}') {
            return Ok(Node::Map(entries));
        }
        loop {
            self.space();
            let key = self.string()?;
            self.need(b':')?;
            entries.push((key, self.value(depth + 1)?));
            if self.take(b'}') {
                return Ok(Node::Map(entries));
            }
            self.need(b',')?;
        }
    }

    fn list(&mut self, depth: usize) -> Result<Node, String> {
        self.need(b'[')?;
        let mut gathered = Gathered::default();
        if self.take(b']') {
            return Ok(gathered.finish());
        }
        loop {
            gathered.push(self.value(depth + 1)?);
            if self.take(b']') {
                return Ok(gathered.finish());
            }
            self.need(b',')?;
        }
    }

    fn number(&mut self) -> Result<Node, String> {
        let start = self.at;
        let part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
        while self.text.get(self.at).is_some_and(part) {
            self.at += 1;
        }
        let digits = std::str::from_utf8(&self.text[start..self.at]).ok();
        match digits.and_then(|digits| digits.parse().ok()) {
            Some(number) => Ok(Node::Number(number)),
            None => {
                self.at = start;
                Err(self.wrong("no number"))
            }
        }
    }

    fn string(&mut self) -> Result<String, String> {
        if self.text.get(self.at) != Some(&b'"') {
            return Err(self.wrong("`\"` is missing"));
        }
        self.at += 1;
        let mut bytes = Vec::new();
        loop {
            let rest = self.text.get(self.at..).unwrap_or_default();
            let plain = rest.iter().position(|byte| matches!(byte, b'"' | b'\\'));
            let Some(plain) = plain else {
                self.at = self.text.len();
                return Err(self.wrong(""));
            };
            bytes.extend_from_slice(&rest[..plain]);
            self.at += plain + 1;
            if rest[plain] == b'"' {
                return String::from_utf8(bytes).map_err(|_| self.wrong("a string that is not UTF-8"));
            }
            let mut utf8 = [0; 4];
            bytes.extend_from_slice(self.escaped()?.encode_utf8(&mut utf8).as_bytes());
        }
    }

    /// What stands behind a backslash.
    fn escaped(&mut self) -> Result<char, String> {
        let Some(byte) = self.text.get(self.at).copied() else { return Err(self.wrong("")) };
        self.at += 1;
        Ok(match byte {
            b'n' => '\n',
            b't' => '\t',
            b'r' => '\r',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'"' | b'\\' | b'/' => char::from(byte),
            b'u' => {
                let first = self.hex()?;
                let code = match first {
                    0xd800..0xdc00 if self.text.get(self.at..self.at + 2) == Some(b"\\u") => {
                        self.at += 2;
                        let second = self.hex()?;
                        0x1_0000 + ((first - 0xd800) << 10) + (second.wrapping_sub(0xdc00) & 0x3ff)
                    }
                    other => other,
                };
                char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            _ => return Err(self.wrong("an unknown escape in a string")),
        })
    }

    fn hex(&mut self) -> Result<u32, String> {
        let digits = self.text.get(self.at..self.at + 4).and_then(|digits| std::str::from_utf8(digits).ok());
        let code = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        self.at += 4;
        code.ok_or_else(|| self.wrong("no four hex digits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read() {
        let text = r#" {"a": [1, -2.5e3, NaN, -Infinity], "b\n\u00fc\ud83d\ude00": ["x", 1], "c": {}, "d": [], "e": true} "#;
        let node = read(text.as_bytes()).unwrap();
        let numbers = node.array("a").unwrap();
        assert_eq!(numbers[..2], [1.0, -2500.0]);
        assert!(numbers[2].is_nan() && numbers[3] == f64::NEG_INFINITY);
        let list = node.get("b\nü😀").unwrap().list().unwrap();
        assert_eq!(list, [Node::Text("x".to_owned()), Node::Number(1.0)]);
        assert_eq!(node.get("d").unwrap().list(), Some(&[][..]));
        assert_eq!(node.get("e"), Some(&Node::Bool(true)));
    }

    #[test]
    fn what_is_damaged_is_told_with_its_place() {
        for (text, want) in [
            ("[1, 2", "ends early"),
            ("[1 2]", "at byte 3: `,` is missing"),
            ("{\"a\" 1}", "at byte 5: `:` is missing"),
            ("[1-]", "at byte 1: no number"),
            ("\"\\x\"", "unknown escape"),
            ("\"abc", "ends early"),
            ("\"\\", "ends early"),
            ("\"\\u00", "ends early"),
            ("", "ends early"),
            ("[] x", "something follows"),
            ("\"\u{0}\"nul", "something follows"),
            ("nil", "no value"),
        ] {
            let error = read(text.as_bytes()).unwrap_err();
            assert!(error.contains(want), "{text}: {error}");
        }
        let deep = "[".repeat(1_000_000);
        assert!(read(deep.as_bytes()).unwrap_err().contains("nested too deep"));
    }
}
