//! Patterns over paths: `*` and `?` within one name, `[a-z]` and `[!a-z]` for one character, `**` for any number of
//! directories.
//!
//! As in Beam, `*` matches names that begin with a dot. A `[` without its `]` stands for itself, and `[*]` for a star.

/// One name of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// Exactly this name.
    Literal(String),
    /// Any name that matches.
    Wild(Vec<Token>),
    /// `**`: any number of directories, none too.
    Deep,
}

/// A piece of a wildcard name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    /// This character.
    Char(char),
    /// `?`: one character.
    One,
    /// `*`: any characters.
    Any,
    /// `[…]`: one character of these ranges, or of none of them.
    Class {
        /// Whether the character must be outside.
        negated: bool,
        /// The ranges, both ends included.
        ranges: Vec<(char, char)>,
    },
}

/// Whether a path has anything in it that is a wildcard.
pub fn is_pattern(path: &str) -> bool {
    segments(path).iter().any(|segment| !matches!(segment, Segment::Literal(_)))
}

/// The names of a pattern. Empty names and `.` are left out.
pub fn segments(pattern: &str) -> Vec<Segment> {
    let names = pattern.split('/').filter(|name| !name.is_empty() && *name != ".");
    let mut segments: Vec<Segment> = Vec::new();
    for name in names {
        let segment = segment(name);
        // Two in a row say no more than one, and would match each file many times.
        if segment != Segment::Deep || segments.last() != Some(&Segment::Deep) {
            segments.push(segment);
        }
    }
    segments
}

fn segment(name: &str) -> Segment {
    if name == "**" {
        return Segment::Deep;
    }
    let mut tokens = Vec::new();
    let mut rest = name.chars();
    while let Some(c) = rest.next() {
        tokens.push(match c {
            '?' => Token::One,
            '*' if tokens.last() == Some(&Token::Any) => continue,
            '*' => Token::Any,
            '[' => match class(rest.as_str()) {
                Some((class, length)) => {
                    rest = rest.as_str()[length..].chars();
                    class
                }
                None => Token::Char('['),
            },
            c => Token::Char(c),
        });
    }
    let literal: Option<String> = tokens
        .iter()
        .map(|token| match token {
            Token::Char(c) => Some(*c),
            _ => None,
        })
        .collect();
    literal.map_or(Segment::Wild(tokens), Segment::Literal)
}

/// The class that begins after a `[`, and the number of bytes up to behind its `]`.
fn class(text: &str) -> Option<(Token, usize)> {
    let negated = text.starts_with(['!', '^']);
    let body_at = usize::from(negated);
    // A `]` right at the start is a member.
    let first = text[body_at..].chars().next()?;
    let end = body_at + first.len_utf8() + text[body_at + first.len_utf8()..].find(']')?;
    let members: Vec<char> = text[body_at..end].chars().collect();
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < members.len() {
        if at + 2 < members.len() && members[at + 1] == '-' {
            ranges.push((members[at], members[at + 2]));
            at += 3;
        } else {
            ranges.push((members[at], members[at]));
            at += 1;
        }
    }
    Some((Token::Class { negated, ranges }, end + 1))
}

impl Segment {
    /// Whether a name matches; [`Deep`](Segment::Deep) matches every name.
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Segment::Literal(literal) => literal == name,
            Segment::Deep => true,
            Segment::Wild(tokens) => wild_matches(tokens, name),
        }
    }
}

/// Takes time in proportion to the product of both lengths at worst: only the last star is ever tried again.
fn wild_matches(tokens: &[Token], name: &str) -> bool {
    let name: Vec<char> = name.chars().collect();
    let (mut t, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        let step = match tokens.get(t) {
            Some(Token::Any) => {
                star = Some((t, n));
                t += 1;
                continue;
            }
            Some(Token::One) => true,
            Some(Token::Char(c)) => *c == name[n],
            Some(Token::Class { negated, ranges }) => {
                ranges.iter().any(|(from, to)| (*from..=*to).contains(&name[n])) != *negated
            }
            None => false,
        };
        if step {
            t += 1;
            n += 1;
        } else if let Some((star_at, covered)) = star {
            star = Some((star_at, covered + 1));
            t = star_at + 1;
            n = covered + 1;
        } else {
            return false;
        }
    }
    tokens[t..].iter().all(|token| *token == Token::Any)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match() {
        let matches = |pattern: &str, name: &str| segment(pattern).matches(name);
        for (pattern, name, wanted) in [
            ("a.csv", "a.csv", true),
            ("*.csv", "a.csv", true),
            ("*.csv", ".csv", true),
            ("*.csv", "a.csv.gz", false),
            ("*", ".hidden", true),
            ("a?c", "abc", true),
            ("a?c", "aéc", true),
            ("a?c", "ac", false),
            ("[a-c]x", "bx", true),
            ("[a-c]x", "dx", false),
            ("[!a-c]x", "dx", true),
            ("[^a-c]x", "ax", false),
            ("[]]x", "]x", true),
            ("[!]]x", "ax", true),
            ("[a-]", "-", true),
            ("[*]", "*", true),
            ("[*]", "a", false),
            ("a[b", "a[b", true),
            ("[", "[", true),
            ("[!", "[!", true),
            ("a**b", "axxb", true),
            ("x*y*z", "xayybz", true),
            ("x*y*z", "xayyb", false),
            ("part-?????-of-?????", "part-00000-of-00010", true),
        ] {
            assert_eq!(matches(pattern, name), wanted, "{pattern} on {name}");
        }
    }

    #[test]
    fn stars_do_not_explode() {
        let pattern = segment(&"*a".repeat(40));
        assert!(!pattern.matches(&"a".repeat(20_000)[..].replace("aaaa", "aaab")));
        assert!(!pattern.matches(&("a".repeat(20_000) + "b")));
    }

    #[test]
    fn segments_are_plain() {
        assert_eq!(
            segments("/a//./b/**/**/c*"),
            [
                Segment::Literal("a".into()),
                Segment::Literal("b".into()),
                Segment::Deep,
                Segment::Wild(vec![Token::Char('c'), Token::Any])
            ]
        );
        assert!(!is_pattern("/a/b[c"));
        assert!(is_pattern("/a/b[c]"));
    }
}
