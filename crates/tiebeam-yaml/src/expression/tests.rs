//! Expressions: types, values and mistakes.

use expect_test::{Expect, expect};
use tiebeam_core::row::FieldType;

use super::*;
use crate::diagnostic::Report;
use crate::source::Source;

fn row() -> Row {
    let inner = Arc::new(Schema::of([("name", FieldType::required(TypeKind::String))]));
    let list = |of| TypeKind::Array(Box::new(FieldType::required(of)));
    let of = FieldType::required;
    let schema = Schema::of([
        ("col1", of(TypeKind::String)),
        ("col2", of(TypeKind::Int64)),
        ("i", of(TypeKind::Int32)),
        ("f", of(TypeKind::Double)),
        ("b", of(TypeKind::Boolean)),
        ("xs", of(list(TypeKind::Int64))),
        ("n", FieldType::nullable(TypeKind::Int64)),
        ("user", of(TypeKind::Row(inner.clone()))),
        ("first name", of(TypeKind::String)),
        ("raw", of(TypeKind::Bytes)),
    ]);
    let values = vec![
        Value::String("Hello, Wörld".into()),
        Value::Int64(7),
        Value::Int32(-3),
        Value::Double(2.5),
        Value::Bool(true),
        Value::Array([1, 2, 3].map(Value::Int64).into()),
        Value::Null,
        Value::Row(Row::new(inner, vec![Value::String("Ada".into())])),
        Value::String("x".into()),
        Value::Bytes("ab".into()),
    ];
    Row::new(Arc::new(schema), values)
}

fn evaluate(form: Form, text: &str) -> String {
    let row = row();
    match Expression::new(form, text, &row.schema, Some("Create"), None) {
        Ok(expression) => {
            let field = expression.field_type().map(show).unwrap_or_default();
            match expression.evaluate(&row) {
                Ok(value) => format!("{} : {field}", format::repr_of(&value)),
                Err(raised) => format!("{}: {} : {field}", raised.exception, raised.message),
            }
        }
        Err(problems) => {
            let source = Arc::new(Source::new("e", text));
            Report::new(source, problems).to_error().message().replace("e:1:", "")
        }
    }
}

/// Each line is evaluated; the answers stand beside them, and are Python's.
fn check(lines: &str, expected: Expect) {
    let shown: String = lines
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(|line| format!("{line}  =>  {}\n", evaluate(Form::Expression, line)))
        .collect();
    expected.assert_eq(&shown);
}

fn check_callable(text: &str, expected: Expect) {
    expected.assert_eq(&evaluate(Form::Callable, text));
}

fn check_report(form: Form, text: &str, expected: Expect) {
    let row = row();
    let problems = Expression::new(form, text, &row.schema, Some("Create"), None).unwrap_err();
    expected.assert_eq(&Report::new(Arc::new(Source::new("e", text)), problems).render(false));
}

#[test]
fn arithmetic_is_python_s() {
    check(
        "
        col2 + 1
        7 / 2
        8 / 2
        7 // 2
        -7 // 2
        -7 % 3
        7 % -3
        -7.5 // 2
        -7.5 % 2
        5.5 % -2
        2 ** 10
        2 ** -1
        2 ** 0.5
        -2 ** 2
        1 - 2 - 3
        2 ** 3 ** 2
        2 + 3 * 4 - 6 / 3
        col2 * 1.0
        i + col2
        True + True
        -b
        +f
        ~5
        6 & 3 | 8 ^ 1
        1 << 10 >> 3
        True & False
        9223372036854775807 + 1
        -9223372036854775807 - 2
        3037000500 * 3037000500
        2 ** 63
        1 / 0
        1 // 0
        1 % 0
        1.0 / 0
        0 ** -1
        (-8) ** (1.0 / 3)
        10.0 ** 400
        9007199254740993 / 1
        1 << 63
        0.1 + 0.2
        1e16 + 0.0
        n + 1
        ",
        expect![[r#"
            col2 + 1  =>  8 : int64
            7 / 2  =>  3.5 : double
            8 / 2  =>  4.0 : double
            7 // 2  =>  3 : int64
            -7 // 2  =>  -4 : int64
            -7 % 3  =>  2 : int64
            7 % -3  =>  -2 : int64
            -7.5 // 2  =>  -4.0 : double
            -7.5 % 2  =>  0.5 : double
            5.5 % -2  =>  -0.5 : double
            2 ** 10  =>  1024 : int64
            2 ** -1  =>  0.5 : double
            2 ** 0.5  =>  1.4142135623730951 : double
            -2 ** 2  =>  -4 : int64
            1 - 2 - 3  =>  -4 : int64
            2 ** 3 ** 2  =>  1: the type of this value cannot be told before the run: unknown
            2 + 3 * 4 - 6 / 3  =>  12.0 : double
            col2 * 1.0  =>  7.0 : double
            i + col2  =>  4 : int64
            True + True  =>  2 : int64
            -b  =>  -1 : int64
            +f  =>  2.5 : double
            ~5  =>  -6 : int64
            6 & 3 | 8 ^ 1  =>  11 : int64
            1 << 10 >> 3  =>  128 : int64
            True & False  =>  False : boolean
            9223372036854775807 + 1  =>  OverflowError: integer overflow: the result does not fit int64 : int64
            -9223372036854775807 - 2  =>  OverflowError: integer overflow: the result does not fit int64 : int64
            3037000500 * 3037000500  =>  OverflowError: integer overflow: the result does not fit int64 : int64
            2 ** 63  =>  OverflowError: integer overflow: the result does not fit int64 : int64
            1 / 0  =>  ZeroDivisionError: division by zero : double
            1 // 0  =>  ZeroDivisionError: integer division or modulo by zero : int64
            1 % 0  =>  ZeroDivisionError: integer modulo by zero : int64
            1.0 / 0  =>  ZeroDivisionError: float division by zero : double
            0 ** -1  =>  ZeroDivisionError: 0.0 cannot be raised to a negative power : double
            (-8) ** (1.0 / 3)  =>  ValueError: a negative number raised to a fraction is complex : double
            10.0 ** 400  =>  OverflowError: (34, 'Numerical result out of range') : double
            9007199254740993 / 1  =>  9007199254740992.0 : double
            1 << 63  =>  OverflowError: integer overflow: the result does not fit int64 : int64
            0.1 + 0.2  =>  0.30000000000000004 : double
            1e16 + 0.0  =>  1e+16 : double
            n + 1  =>  TypeError: unsupported operand type(s) for +: 'NoneType' and 'int' : int64
        "#]],
    );
}

#[test]
fn comparisons_and_logic_are_python_s() {
    check(
        "
        col2 == 7
        col2 == 7.0
        1 < col2 <= 7
        1 < 2 > 5
        col1 > 'A'
        9007199254740993 == 9007199254740992.0
        9007199254740993 > 9007199254740992.0
        9223372036854775807 < 9223372036854775808.0
        'a' == 1
        n is None
        n is not None and n > 3
        n == None
        not b
        not n
        b and col2 > 3 or False
        n or 5
        'Hello' in col1
        'x' not in col1
        2 in xs
        9 in (1, 2)
        'k' in {'k': 1}
        col2 if b else 0
        1 if b else 2.5
        [1, 2] < [1, 3]
        [1, 2.0] == [1.0, 2]
        ",
        expect![[r#"
            col2 == 7  =>  True : boolean
            col2 == 7.0  =>  True : boolean
            1 < col2 <= 7  =>  True : boolean
            1 < 2 > 5  =>  False : boolean
            col1 > 'A'  =>  True : boolean
            9007199254740993 == 9007199254740992.0  =>  False : boolean
            9007199254740993 > 9007199254740992.0  =>  True : boolean
            9223372036854775807 < 9223372036854775808.0  =>  True : boolean
            'a' == 1  =>  False : boolean
            n is None  =>  True : boolean
            n is not None and n > 3  =>  False : boolean
            n == None  =>  True : boolean
            not b  =>  False : boolean
            not n  =>  True : boolean
            b and col2 > 3 or False  =>  True : boolean
            n or 5  =>  5 : int64
            'Hello' in col1  =>  True : boolean
            'x' not in col1  =>  True : boolean
            2 in xs  =>  True : boolean
            9 in (1, 2)  =>  False : boolean
            'k' in {'k': 1}  =>  True : boolean
            col2 if b else 0  =>  7 : int64
            1 if b else 2.5  =>  1.0 : double
            [1, 2] < [1, 3]  =>  True : boolean
            [1, 2.0] == [1.0, 2]  =>  True : boolean
        "#]],
    );
}

#[test]
fn texts_are_python_s() {
    check(
        r#"
        col1.upper()
        col1.lower().title()
        len(col1)
        col1[0]
        col1[-1]
        col1[8]
        col1[7:9]
        col1[::-1]
        col1[:5] + '!' * 3
        col1.split(', ')
        ' a  b '.split()
        'a,b,c'.split(',', 1)
        'a,b,c'.rsplit(sep=',', maxsplit=1)
        '-'.join(['a', 'b'])
        col1.replace('l', 'L', 2)
        '  x '.strip() + 'xxhixx'.strip('x')
        col1.startswith('He') and col1.endswith(('d', 'x'))
        'abc'.find('c') + 'äbc'.find('c')
        'x'.isalpha(), '12'.isdigit()
        'ab'.center(5, '*') + '7'.zfill(3) + '-7'.zfill(4)
        f'{col1!r} {col2:05d} {f:.2f} {f:>8} {1234567:,} {0.256:.1%} {255:#x} {b}'
        f"{col2 + 1}{{}}{'x' if b else 'y'}"
        '{} and {x:.1f} {0}'.format(col2, x=f)
        str(1.0) + str(1e16) + str(1e-5) + str(0.1) + str(123456789.125)
        str(True) + str(None) + str([1, 'a', 2.0]) + str({'a': 1})
        repr("it's")
        'a' 'b' "c"
        r'\d' + '\t' + '\x41\u00e4'
        f'{1e10:g} {0.0001:g} {123456789.0:g} {1.5:e} {3.0} {2.0:.3} {100.0:.2}'
        col1[99]
        'x' * 99999999999
        raw
        raw[0]
        raw.decode() + 'é'.encode().hex()
        user.name.lower()
        `first name`
        first name
        "#,
        expect![[r#"
            col1.upper()  =>  'HELLO, WÖRLD' : string
            col1.lower().title()  =>  'Hello, Wörld' : string
            len(col1)  =>  12 : int64
            col1[0]  =>  'H' : string
            col1[-1]  =>  'd' : string
            col1[8]  =>  'ö' : string
            col1[7:9]  =>  'Wö' : string
            col1[::-1]  =>  'dlröW ,olleH' : string
            col1[:5] + '!' * 3  =>  'Hello!!!' : string
            col1.split(', ')  =>  ['Hello', 'Wörld'] : list of string
            ' a  b '.split()  =>  ['a', 'b'] : list of string
            'a,b,c'.split(',', 1)  =>  ['a', 'b,c'] : list of string
            'a,b,c'.rsplit(sep=',', maxsplit=1)  =>  ['a,b', 'c'] : list of string
            '-'.join(['a', 'b'])  =>  'a-b' : string
            col1.replace('l', 'L', 2)  =>  'HeLLo, Wörld' : string
            '  x '.strip() + 'xxhixx'.strip('x')  =>  'xhi' : string
            col1.startswith('He') and col1.endswith(('d', 'x'))  =>  True : boolean
            'abc'.find('c') + 'äbc'.find('c')  =>  4 : int64
            'x'.isalpha(), '12'.isdigit()  =>  14: wanted the end of the expression, got `,`
            'ab'.center(5, '*') + '7'.zfill(3) + '-7'.zfill(4)  =>  '**ab*007-007' : string
            f'{col1!r} {col2:05d} {f:.2f} {f:>8} {1234567:,} {0.256:.1%} {255:#x} {b}'  =>  "'Hello, Wörld' 00007 2.50      2.5 1,234,567 25.6% 0xff True" : string
            f"{col2 + 1}{{}}{'x' if b else 'y'}"  =>  '8{}x' : string
            '{} and {x:.1f} {0}'.format(col2, x=f)  =>  '7 and 2.5 7' : string
            str(1.0) + str(1e16) + str(1e-5) + str(0.1) + str(123456789.125)  =>  '1.01e+161e-050.1123456789.125' : string
            str(True) + str(None) + str([1, 'a', 2.0]) + str({'a': 1})  =>  "TrueNone[1, 'a', 2.0]{'a': 1}" : string
            repr("it's")  =>  '"it\'s"' : string
            'a' 'b' "c"  =>  'abc' : string
            r'\d' + '\t' + '\x41\u00e4'  =>  '\\d\tAä' : string
            f'{1e10:g} {0.0001:g} {123456789.0:g} {1.5:e} {3.0} {2.0:.3} {100.0:.2}'  =>  '1e+10 0.0001 1.23457e+08 1.500000e+00 3.0 2.0 1e+02' : string
            col1[99]  =>  IndexError: string index out of range : string
            'x' * 99999999999  =>  MemoryError: a result of 99999999999 items is longer than the 16777216 allowed : string
            raw  =>  b'ab' : bytes
            raw[0]  =>  97 : int64
            raw.decode() + 'é'.encode().hex()  =>  'abc3a9' : string
            user.name.lower()  =>  'ada' : string
            `first name`  =>  'x' : string
            first name  =>  'x' : string
        "#]],
    );
}

#[test]
fn functions_are_python_s() {
    check(
        "
        int('12') + int(' 1_000 ') + int('-ff', 16) + int(3.9) + int(-3.9) + int(True)
        int('abc')
        int('1.5')
        int(1e30)
        float('1e3') + float(' -.5 ')
        float('x')
        float('inf')
        bool('') or bool('x')
        round(2.5)
        round(3.5)
        round(2.675, 2)
        round(1234.5, -2)
        round(15, -1)
        round(25, -1)
        round(7)
        abs(-3) + abs(i)
        abs(-2.5)
        min(3, 1, 2)
        max(xs)
        max(1, 2.5)
        min([])
        sum(xs) + sum([0.5])
        sorted([3, 1, 2], reverse=True)
        any(x > 2 for x in xs)
        all([x > 2 for x in xs])
        [x * 2 for x in xs if x % 2 == 1]
        [c.upper() for c in 'abc']
        sum(x * x for x in range(4))
        list('ab') + ['c']
        len({'a': 1, 'b': 2}) + len(xs)
        {'a': 1}['a'] + {'a': 2}.get('a', 0)
        {'a': 1}['b']
        ord('a') + 0
        chr(228)
        xs[0] + xs[-1]
        xs[1:]
        xs[5]
        xs.index(2) + xs.count(3)
        hex(255) + bin(5)
        ",
        expect![[r#"
            int('12') + int(' 1_000 ') + int('-ff', 16) + int(3.9) + int(-3.9) + int(True)  =>  758 : int64
            int('abc')  =>  ValueError: invalid literal for int() with base 10: 'abc' : int64
            int('1.5')  =>  ValueError: invalid literal for int() with base 10: '1.5' : int64
            int(1e30)  =>  OverflowError: integer overflow: the result does not fit int64 : int64
            float('1e3') + float(' -.5 ')  =>  999.5 : double
            float('x')  =>  ValueError: could not convert string to float: 'x' : double
            float('inf')  =>  inf : double
            bool('') or bool('x')  =>  True : boolean
            round(2.5)  =>  2 : int64
            round(3.5)  =>  4 : int64
            round(2.675, 2)  =>  2.67 : double
            round(1234.5, -2)  =>  1200.0 : double
            round(15, -1)  =>  20 : int64
            round(25, -1)  =>  20 : int64
            round(7)  =>  7 : int64
            abs(-3) + abs(i)  =>  6 : int64
            abs(-2.5)  =>  2.5 : double
            min(3, 1, 2)  =>  1 : int64
            max(xs)  =>  3 : int64
            max(1, 2.5)  =>  2.5 : double
            min([])  =>  1: the value is always None, so it has no type
            sum(xs) + sum([0.5])  =>  6.5 : double
            sorted([3, 1, 2], reverse=True)  =>  [3, 2, 1] : list of int64
            any(x > 2 for x in xs)  =>  True : boolean
            all([x > 2 for x in xs])  =>  False : boolean
            [x * 2 for x in xs if x % 2 == 1]  =>  [2, 6] : list of int64
            [c.upper() for c in 'abc']  =>  ['A', 'B', 'C'] : list of string
            sum(x * x for x in range(4))  =>  14 : int64
            list('ab') + ['c']  =>  ['a', 'b', 'c'] : list of string
            len({'a': 1, 'b': 2}) + len(xs)  =>  5 : int64
            {'a': 1}['a'] + {'a': 2}.get('a', 0)  =>  3 : int64
            {'a': 1}['b']  =>  KeyError: 'b' : int64
            ord('a') + 0  =>  97 : int64
            chr(228)  =>  'ä' : string
            xs[0] + xs[-1]  =>  4 : int64
            xs[1:]  =>  [2, 3] : list of int64
            xs[5]  =>  IndexError: list index out of range : int64
            xs.index(2) + xs.count(3)  =>  2 : int64
            hex(255) + bin(5)  =>  '0xff0b101' : string
        "#]],
    );
}

#[test]
fn what_cannot_work_is_refused_before_the_run() {
    check(
        "
        col9 + 1
        col1 + 1
        col1 - col1
        col1 > 3
        'a' % 3
        col1.uper()
        col1.strip(3)
        lenn(col1)
        math.sqrt(2)
        print(col1)
        len(3)
        len()
        len(1, 2)
        round(1.5, digits=2)
        col2.x
        user.nme
        len
        col2[0]
        col2 is 7
        3 in 5
        None
        []
        {'a': 1, 'b': 'x'}
        1 if b else 'x'
        i ** i
        f'{col1:.2f}'
        f'{col1:q}'
        sum(['a'])
        max(1, 'a')
        -col1
        col1 = 3
        1 +
        (1
        1 2
        'abc
        lambda x: x
        x := 1
        {1, 2}
        [x for x in xs for y in xs]
        f(*xs)
        $col
        99999999999999999999
        0777
        12abc
        ",
        expect![[r#"
            col9 + 1  =>  1: unknown column `col9`
            col1 + 1  =>  1: `+` has no meaning for string and int64
            col1 - col1  =>  1: `-` has no meaning for string and string
            col1 > 3  =>  1: `>` cannot compare string with int64
            'a' % 3  =>  1: `%` has no meaning for string and int64
            col1.uper()  =>  6: string has no method `uper`
            col1.strip(3)  =>  1: this method wants a string, got int64
            lenn(col1)  =>  1: no function `lenn`
            math.sqrt(2)  =>  1: `math` is not available in expressions
            print(col1)  =>  1: `print` is not available in expressions
            len(3)  =>  1: len() wants a string, a list or a map, got int64
            len()  =>  1: len() takes 1 argument, got 0
            len(1, 2)  =>  1: len() takes 1 argument, got 2
            round(1.5, digits=2)  =>  12: round() takes no argument `digits`
            col2.x  =>  6: int64 has no field `x`
            user.nme  =>  6: unknown column `nme`
            len  =>  1: `len` is a function
            col2[0]  =>  1: int64 cannot be indexed by int64
            col2 is 7  =>  9: `is` is for None, True and False
            3 in 5  =>  6: `in` cannot look for int64 in int64
            None  =>  1: the value is always None, so it has no type
            []  =>  1: the type of this value cannot be told before the run: list of None
            {'a': 1, 'b': 'x'}  =>  1: the type of this value cannot be told before the run: map to unknown
            1 if b else 'x'  =>  1: the type of this value cannot be told before the run: unknown
            i ** i  =>  1: the type of this value cannot be told before the run: unknown
            f'{col1:.2f}'  =>  4: Unknown format code 'f' for object of type 'str'
            f'{col1:q}'  =>  4: `q` is no format
            sum(['a'])  =>  1: sum() wants a list of numbers, got a list of string
            max(1, 'a')  =>  1: max() cannot compare int64 with string
            -col1  =>  1: `-` wants a number, got string
            col1 = 3  =>  6: `=` assigns; an expression has no assignments
            1 +  =>  3: wanted a value, got the end
            (1  =>  2: wanted `,` or `)`, got the end
            1 2  =>  3: wanted the end of the expression, got a number
            'abc  =>  1: a string without its closing quote
            lambda x: x  =>  1: the type of this value cannot be told before the run: unknown
            x := 1  =>  3: wanted the end of the expression, got `:=`
            {1, 2}  =>  1: the type of this value cannot be told before the run: unknown
            [x for x in xs for y in xs]  =>  1: the type of this value cannot be told before the run: unknown
            f(*xs)  =>  1: the type of this value cannot be told before the run: unknown
            $col  =>  1: `$` means nothing here
            99999999999999999999  =>  1: `99999999999999999999` is out of range for int64
            0777  =>  1: an integer does not start with 0
            12abc  =>  1: neither a number nor a name
        "#]],
    );
}

#[test]
fn an_unknown_column_is_shown_where_it_stands() {
    check_report(
        Form::Expression,
        "col9 + 1",
        expect![[r#"
        error[TB0204]: unknown column `col9`
          ╭─[e:1:1]
        1 │ col9 + 1
          · ──┬─
          ·   ╰── not produced by `Create`
          ╰────
          columns here: col1 (string), col2 (int64), i (int32), f (double), b (boolean), xs (list of int64), n (nullable int64), user (row (name (string))), first name (string), raw (bytes)
          help: did you mean `col1`?
    "#]],
    );
    check_report(
        Form::Callable,
        "lambda row: row.co1 + row.col2 + 'x'",
        expect![[r#"
        error[TB0204]: unknown column `co1`
          ╭─[e:1:17]
        1 │ lambda row: row.co1 + row.col2 + 'x'
          ·                 ─┬─
          ·                  ╰── not produced by `Create`
          ╰────
          columns here: col1 (string), col2 (int64), i (int32), f (double), b (boolean), xs (list of int64), n (nullable int64), user (row (name (string))), first name (string), raw (bytes)
          help: did you mean `col1`?
    "#]],
    );
}

#[test]
fn callables_are_functions_of_the_row() {
    check_callable("lambda row: row.col2 * 2", expect!["14 : int64"]);
    check_callable("lambda x: x.user.name + x.col1[:2]", expect!["'AdaHe' : string"]);
    check_callable(
        "lambda row: beam.Row(a=row.col2, b=[row.f])",
        expect!["Row(a=7, b=[2.5]) : row (a (int64), b (list of double))"],
    );
    check_callable(
        "lambda row: {'prompt': row.col1}",
        expect!["{'prompt': 'Hello, Wörld'} : map of string to string"],
    );
    check_callable(
        "lambda row: row",
        expect![
            "Row(col1='Hello, Wörld', col2=7, i=-3, f=2.5, b=True, xs=[1, 2, 3], n=None, user=Row(name='Ada'), first name='x', raw=b'ab') : row (col1 (string), col2 (int64), i (int32), f (double), b (boolean), xs (list of int64), n (nullable int64), user (row (name (string))), first name (string), raw (bytes))"
        ],
    );
    check_callable("lambda row: col2", expect!["13: unknown name `col2`"]);
    check_callable("lambda a, b: a", expect!["8: a callable takes one parameter, the row"]);
    check_callable("row.col2", expect!["1: a callable is `lambda row: …` or `def name(row): …`"]);
    check_callable(
        "
def fn(row: Row) -> int:
    '''Says how big it is.'''
    total = row.col2  # a comment
    total += 1
    if total > 100:
        return 'big'
    elif total > 5:
        word = 'middle'
    else:
        word = 'small'
        if row.b: word = word + '!'
    return f'{word} {total}'
",
        expect!["'middle 8' : string"],
    );
    check_callable(
        "def f(row):\n  if row.b:\n    raise ValueError(f'no {row.col2}')\n  return 1\n",
        expect!["ValueError: no 7 : int64"],
    );
    check_callable("def f(row):\n  if row.b:\n    return 1\n", expect!["1 : nullable int64"]);
    check_callable(
        "def f(row):\n  if row.b:\n    y = 1\n  return y\n",
        expect!["e:4:10: `y` is not assigned on every way to this place"],
    );
    check_callable(
        "def f(row):\n  for x in row.xs:\n    pass\n",
        expect!["1: the type of this value cannot be told before the run: unknown"],
    );
    check_callable("import re\ndef f(row):\n  return 1\n", expect!["1 : int64"]);
    check_callable("def f(row):\n  import re\n  return 1\n", expect!["1 : int64"]);
    check_callable("def f(row):\n  row.x = 1\n  return row\n", expect!["e:2:7: unknown column `x`"]);
    check_callable(
        "def f(row):\n    return 1\n  return 2\n",
        expect!["e:3:1: this line's indentation matches no line above"],
    );
    check_callable("def f(row):\n  row.col2 + 1\n", expect!["e:2:3: this value is not used"]);
}

#[test]
fn a_declared_type_is_held() {
    let row = row();
    let run = |text: &str, kind: TypeKind, nullable: bool| match Expression::new(
        Form::Expression,
        text,
        &row.schema,
        None,
        Some(FieldType { kind, nullable }),
    ) {
        Ok(expression) => match expression.evaluate(&row) {
            Ok(value) => format::repr_of(&value),
            Err(raised) => format!("{}: {}", raised.exception, raised.message),
        },
        Err(problems) => problems[0].message.clone(),
    };
    assert_eq!(run("col2", TypeKind::Double, false), "7.0");
    assert_eq!(run("col2 + 1", TypeKind::Int32, false), "8");
    assert_eq!(run("col2 * 1000000000000", TypeKind::Int32, false), "TypeError: 7000000000000 is no int32");
    assert_eq!(run("col1", TypeKind::Int64, false), "the value is string, not the declared int64");
    assert_eq!(run("n", TypeKind::Int64, false), "TypeError: None where a int64 is wanted");
    assert_eq!(run("n", TypeKind::Int64, true), "None");
    assert_eq!(run("i ** 2", TypeKind::Int64, false), "9");
    assert_eq!(run("{'a': 1, 'b': 'x'}['b']", TypeKind::String, false), "'x'");
    let object = TypeKind::Row(Arc::new(Schema::of([
        ("a", FieldType::required(TypeKind::Double)),
        ("c", FieldType::nullable(TypeKind::String)),
    ])));
    assert_eq!(run("{'a': 1, 'b': 'x'}", object, false), "Row(a=1.0, c=None)");
}

#[test]
fn a_trace_names_the_part_that_failed() {
    let row = row();
    let expression =
        Expression::new(Form::Expression, "1 + col2 / (i + 3)", &row.schema, None, None).unwrap();
    let raised = expression.evaluate(&row).unwrap_err();
    expect![[r#"
        ZeroDivisionError: division by zero
          in `col2 / (i + 3)`
          of `1 + col2 / (i + 3)`"#]]
    .assert_eq(&expression.trace(&raised));
}

#[test]
fn hostile_texts_end() {
    let row = row();
    let deep = [
        format!("{}1{}", "(".repeat(5_000), ")".repeat(5_000)),
        format!("{}1", "not ".repeat(100_000)),
        format!("{}1", "-".repeat(100_000)),
        format!("{}1", "1 + ".repeat(100_000)),
        format!("{}1", "2 ** ".repeat(100_000)),
        format!("1{}", " if b else 1".repeat(50_000)),
        format!("col1{}", ".upper()".repeat(50_000)),
        format!("{}1{}", "f'{".repeat(3_000), "}'".repeat(3_000)),
        "[".repeat(100_000),
        "{".repeat(100_000),
        "`".to_owned(),
        "f'{".to_owned(),
        "f'{a:".to_owned(),
        "'\\".to_owned(),
        "\u{0}".to_owned(),
        "1e".to_owned(),
        "f'{1:99999999999999999999}'".to_owned(),
        "''.ljust(999999999999)".to_owned(),
        "('a' * 9999999).replace('a', 'b' * 9999999)".to_owned(),
        "range(999999999999)".to_owned(),
        "'b'.join(['a' * 999999] * 999999)".to_owned(),
        "9 ** 9 ** 9".to_owned(),
    ];
    for text in deep {
        for form in [Form::Expression, Form::Callable] {
            for text in [text.clone(), format!("lambda x: {text}"), format!("def f(x):\n  return {text}\n")] {
                if let Ok(expression) = Expression::new(form, &text, &row.schema, None, None) {
                    let _ = expression.evaluate(&row);
                }
            }
        }
    }
    let blocks = (0..5_000).map(|i| format!("{}if x:\n", " ".repeat(i))).collect::<String>();
    assert!(
        Expression::new(Form::Callable, &format!("def f(x):\n{blocks}"), &row.schema, None, None).is_err()
    );
    let elifs = format!("def f(x):\n  if x:\n    pass\n{}", "  elif x:\n    pass\n".repeat(5_000));
    assert!(Expression::new(Form::Callable, &elifs, &row.schema, None, None).is_err());
}
