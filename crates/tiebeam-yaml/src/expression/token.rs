//! Python's tokens, as far as expressions and small functions have them.

use crate::diagnostic::Diagnostic;
use crate::source::Span;

#[derive(Debug, Clone, PartialEq)]
pub enum Token {
    Name(String),
    Int(i64),
    Float(f64),
    Str(String),
    Bytes(Vec<u8>),
    /// The body of an f-string, undecoded, where it starts, and whether it is raw.
    Format {
        body: String,
        start: usize,
        raw: bool,
    },
    /// An operator or bracket.
    Sign(&'static str),
    Newline,
    Indent,
    Dedent,
    End,
}

/// Longest first, so that `**` is not two `*`.
const SIGNS: [&str; 47] = [
    "**=", "//=", ">>=", "<<=", "**", "//", "<<", ">>", "<=", ">=", "==", "!=", "->", "+=", "-=", "*=", "/=",
    "%=", "&=", "|=", "^=", ":=", "(", ")", "[", "]", "{", "}", "+", "-", "*", "/", "%", "<", ">", "=", ",",
    ":", ".", ";", "@", "&", "|", "^", "~", "!", "?",
];

pub fn syntax(span: Span, message: impl Into<String>) -> Diagnostic {
    Diagnostic::new("TB0206", span, message)
}

pub struct Lexer<'a> {
    text: &'a str,
    at: usize,
    base: usize,
    /// Open brackets; inside of any, a new line means nothing.
    depth: usize,
    /// Whether lines and indentation count.
    lines: bool,
    tokens: Vec<(Token, Span)>,
}

/// The tokens of `text`, which starts at `base` of the whole; with `lines`, new lines and indentation are told.
pub fn tokens(text: &str, base: usize, lines: bool) -> Result<Vec<(Token, Span)>, Diagnostic> {
    let mut lexer = Lexer { text, at: 0, base, depth: 0, lines, tokens: Vec::new() };
    lexer.run()?;
    Ok(lexer.tokens)
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn span(&self, start: usize) -> Span {
        Span::new(self.base + start, self.base + self.at)
    }

    fn push(&mut self, token: Token, start: usize) {
        let span = self.span(start);
        self.tokens.push((token, span));
    }

    fn run(&mut self) -> Result<(), Diagnostic> {
        let mut indents = vec![0];
        let mut line_start = self.lines;
        loop {
            if line_start && self.depth == 0 {
                self.indentation(&mut indents)?;
                line_start = false;
            }
            let Some(c) = self.peek() else { break };
            let start = self.at;
            match c {
                '\n' => {
                    self.at += 1;
                    if self.lines && self.depth == 0 {
                        self.push(Token::Newline, start);
                        line_start = true;
                    }
                }
                '\\' if self.rest().starts_with("\\\n") => self.at += 2,
                '#' => self.at += self.rest().find('\n').unwrap_or(self.rest().len()),
                c if c.is_whitespace() => self.at += c.len_utf8(),
                c if c.is_ascii_digit() => self.number()?,
                '.' if self.rest()[1..].starts_with(|c: char| c.is_ascii_digit()) => self.number()?,
                '"' | '\'' => self.string("")?,
                '`' => self.quoted_name()?,
                c if c.is_alphabetic() || c == '_' => self.word()?,
                _ => self.sign()?,
            }
        }
        if self.lines {
            self.push(Token::Newline, self.at);
            for _ in 1..indents.len() {
                self.push(Token::Dedent, self.at);
            }
        }
        self.push(Token::End, self.at);
        Ok(())
    }

    fn indentation(&mut self, indents: &mut Vec<usize>) -> Result<(), Diagnostic> {
        loop {
            let blanks = self.rest().len() - self.rest().trim_start_matches([' ', '\t']).len();
            let after = &self.rest()[blanks..];
            let start = self.at;
            if after.is_empty() {
                self.at += blanks;
                return Ok(());
            }
            if after.starts_with(['\n', '\r', '#']) {
                self.at += blanks + after.find('\n').map_or(after.len(), |n| n + 1);
                continue;
            }
            self.at += blanks;
            let last = indents.last().copied().unwrap_or(0);
            if blanks > last {
                if indents.len() >= 32 {
                    return Err(syntax(self.span(start), "indented deeper than 32 levels"));
                }
                indents.push(blanks);
                self.push(Token::Indent, start);
            }
            while blanks < indents.last().copied().unwrap_or(0) {
                indents.pop();
                self.push(Token::Dedent, start);
                if blanks > indents.last().copied().unwrap_or(0) {
                    return Err(syntax(self.span(start), "this line's indentation matches no line above"));
                }
            }
            return Ok(());
        }
    }

    fn take_while(&mut self, test: impl Fn(char) -> bool) -> &str {
        let start = self.at;
        self.at += self.rest().find(|c| !test(c)).unwrap_or(self.rest().len());
        &self.text[start..self.at]
    }

    fn number(&mut self) -> Result<(), Diagnostic> {
        let start = self.at;
        for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2), ("0X", 16), ("0O", 8), ("0B", 2)] {
            if self.rest().starts_with(prefix) {
                self.at += 2;
                let digits = self.take_while(|c| c.is_ascii_alphanumeric() || c == '_').replace('_', "");
                return match i64::from_str_radix(&digits, radix) {
                    Ok(value) => {
                        self.push(Token::Int(value), start);
                        Ok(())
                    }
                    Err(_) => Err(syntax(self.span(start), "not an integer of 64 bits")),
                };
            }
        }
        let digit = |c: char| c.is_ascii_digit() || c == '_';
        self.take_while(digit);
        let mut float = false;
        if self.rest().starts_with('.') {
            float = true;
            self.at += 1;
            self.take_while(digit);
        }
        let exponent = self.rest().strip_prefix(['e', 'E']).unwrap_or("");
        if exponent.strip_prefix(['+', '-']).unwrap_or(exponent).starts_with(|c: char| c.is_ascii_digit()) {
            float = true;
            self.at += 2;
            self.take_while(digit);
        }
        if self.peek().is_some_and(|c| c.is_alphabetic() || c == '_') {
            self.take_while(|c| c.is_alphanumeric() || c == '_');
            return Err(syntax(self.span(start), "neither a number nor a name"));
        }
        let text = self.text[start..self.at].replace('_', "");
        if float {
            let value = text.parse().map_err(|_| syntax(self.span(start), "not a number"))?;
            self.push(Token::Float(value), start);
            return Ok(());
        }
        if text.len() > 1 && text.starts_with('0') && text.bytes().any(|b| b != b'0') {
            return Err(
                syntax(self.span(start), "an integer does not start with 0").help("write `0o` for octal")
            );
        }
        match text.parse() {
            Ok(value) => self.push(Token::Int(value), start),
            Err(_) => return Err(syntax(self.span(start), format!("`{text}` is out of range for int64"))),
        }
        Ok(())
    }

    /// A column whose name is no Python name: `` `first name` ``.
    fn quoted_name(&mut self) -> Result<(), Diagnostic> {
        let start = self.at;
        self.at += 1;
        match self.rest().find('`') {
            Some(n) => {
                let name = self.rest()[..n].to_owned();
                self.at += n + 1;
                self.push(Token::Name(name), start);
                Ok(())
            }
            None => Err(syntax(self.span(start), "a quoted name without its closing `` ` ``")),
        }
    }

    fn word(&mut self) -> Result<(), Diagnostic> {
        let start = self.at;
        let word = self.take_while(|c| c.is_alphanumeric() || c == '_').to_owned();
        let prefix = word.to_lowercase();
        if matches!(self.peek(), Some('"' | '\''))
            && matches!(&*prefix, "r" | "f" | "b" | "u" | "rf" | "fr" | "rb" | "br")
        {
            return self.string_from(start, &prefix);
        }
        self.push(Token::Name(word), start);
        Ok(())
    }

    fn string(&mut self, prefix: &str) -> Result<(), Diagnostic> {
        self.string_from(self.at, prefix)
    }

    fn string_from(&mut self, start: usize, prefix: &str) -> Result<(), Diagnostic> {
        let quote = if self.rest().starts_with("\"\"\"") || self.rest().starts_with("'''") { 3 } else { 1 };
        let end = self.rest()[..quote].to_owned();
        self.at += quote;
        let body_start = self.at;
        loop {
            if self.rest().starts_with(&end) {
                break;
            }
            match self.peek() {
                Some('\\') => {
                    self.at += 1;
                    self.at += self.peek().map_or(0, char::len_utf8);
                }
                None => return Err(syntax(self.span(start), "a string without its closing quote")),
                Some('\n') if quote == 1 && self.lines => {
                    return Err(syntax(self.span(start), "a string without its closing quote"));
                }
                Some(c) => self.at += c.len_utf8(),
            }
        }
        let body = self.text[body_start..self.at].to_owned();
        self.at += quote;
        let raw = prefix.contains('r');
        let token = if prefix.contains('f') {
            Token::Format { body, start: self.base + body_start, raw }
        } else if prefix.contains('b') {
            Token::Bytes(self.bytes(&body, raw, start)?)
        } else if raw {
            Token::Str(body)
        } else {
            Token::Str(unescape(&body).map_err(|message| syntax(self.span(start), message))?)
        };
        self.push(token, start);
        Ok(())
    }

    fn bytes(&self, body: &str, raw: bool, start: usize) -> Result<Vec<u8>, Diagnostic> {
        let text = if raw { Ok(body.to_owned()) } else { unescape(body) };
        text.ok()
            .and_then(|text| text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect())
            .filter(|_| body.is_ascii())
            .ok_or_else(|| syntax(self.span(start), "bytes are written in ASCII and escapes like \\xff"))
    }

    fn sign(&mut self) -> Result<(), Diagnostic> {
        let start = self.at;
        let Some(sign) = SIGNS.into_iter().find(|sign| self.rest().starts_with(sign)) else {
            let c = self.peek().unwrap_or(' ');
            self.at += c.len_utf8();
            return Err(syntax(self.span(start), format!("`{c}` means nothing here")));
        };
        match sign {
            "(" | "[" | "{" => self.depth += 1,
            ")" | "]" | "}" => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        self.at += sign.len();
        self.push(Token::Sign(sign), start);
        Ok(())
    }
}

/// A string's text with its escapes resolved.
pub fn unescape(body: &str) -> Result<String, String> {
    let mut out = String::with_capacity(body.len());
    let mut chars = body.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        let Some(escape) = chars.next() else { return Err("a string ends in `\\`".to_owned()) };
        let mut code = |digits: usize| -> Result<char, String> {
            let hex: String = chars.by_ref().take(digits).collect();
            (hex.len() == digits)
                .then(|| u32::from_str_radix(&hex, 16).ok().and_then(char::from_u32))
                .flatten()
                .ok_or_else(|| format!("`\\{escape}{hex}` is no character"))
        };
        match escape {
            '\n' => {}
            'n' => out.push('\n'),
            't' => out.push('\t'),
            'r' => out.push('\r'),
            '\\' | '\'' | '"' => out.push(escape),
            'a' => out.push('\u{7}'),
            'b' => out.push('\u{8}'),
            'f' => out.push('\u{c}'),
            'v' => out.push('\u{b}'),
            'x' => out.push(code(2)?),
            'u' => out.push(code(4)?),
            'U' => out.push(code(8)?),
            '0'..='7' => {
                let mut value = escape.to_digit(8).unwrap_or(0);
                for _ in 0..2 {
                    let mut ahead = chars.clone();
                    let Some(digit) = ahead.next().and_then(|c| c.to_digit(8)) else { break };
                    value = value * 8 + digit;
                    chars = ahead;
                }
                out.extend(char::from_u32(value));
            }
            // Python keeps a backslash that escapes nothing.
            other => {
                out.push('\\');
                out.push(other);
            }
        }
    }
    Ok(out)
}
