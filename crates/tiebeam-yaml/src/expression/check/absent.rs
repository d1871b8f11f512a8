//! What Python has and expressions have not, with what to do instead.

use crate::diagnostic::Diagnostic;
use crate::source::Span;

/// Modules and functions of Python's that people will try, with what to do instead.
const ABSENT: [(&str, &str); 30] = [
    ("math", "use the operators and round(), abs(), min(), max(), pow()"),
    ("re", "use the methods of strings: find, replace, split, startswith"),
    ("json", "read the data with ReadFromJson"),
    ("datetime", "times are columns here"),
    ("np", "a model's input is made by `inputs:` and ImageToTensor"),
    ("numpy", "a model's input is made by `inputs:` and ImageToTensor"),
    ("pd", "rows are computed one by one"),
    ("pandas", "rows are computed one by one"),
    ("torch", "a model's input is made by `inputs:`"),
    ("random", "an expression gives the same value for the same row"),
    ("time", "an expression gives the same value for the same row"),
    ("os", "an expression sees its row only"),
    ("sys", "an expression sees its row only"),
    ("logging", "use LogForTesting"),
    ("print", "use LogForTesting"),
    ("open", "an expression sees its row only"),
    ("eval", "write the expression itself"),
    ("exec", "write the expression itself"),
    ("isinstance", "columns have types; compare with `is None`"),
    ("type", "columns have types; compare with `is None`"),
    ("map", "use a list comprehension"),
    ("filter", "use a list comprehension"),
    ("zip", "index the lists: `[a[i] for i in range(len(a))]`"),
    ("enumerate", "index the list: `[a[i] for i in range(len(a))]`"),
    ("set", "use a list"),
    ("dict", "write `{key: value}`"),
    ("divmod", "use `//` and `%`"),
    ("getattr", "write `row.name`"),
    ("hash", "there is no hash function here"),
    ("bytes", "write `text.encode()`"),
];

/// The mistake of using a name that Python has and expressions have not; none for other names.
pub(super) fn absent(name: &str, span: Span) -> Option<Diagnostic> {
    let (_, instead) = ABSENT.iter().find(|(absent, _)| *absent == name)?;
    Some(Diagnostic::new("TB0219", span, format!("`{name}` is not available in expressions")).help(*instead))
}
