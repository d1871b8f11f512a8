//! What SQL gives for a row, and what is said of what it does not take.

use tiebeam_core::row::TypeKind;

use super::*;

fn schema() -> Arc<Schema> {
    Arc::new(Schema::of([
        ("name", FieldType::required(TypeKind::String)),
        ("n", FieldType::required(TypeKind::Int64)),
        ("x", FieldType::required(TypeKind::Double)),
        ("gone", FieldType::nullable(TypeKind::Int64)),
        ("timestamp", FieldType::required(TypeKind::Int32)),
        ("flag", FieldType::nullable(TypeKind::Boolean)),
    ]))
}

fn row() -> Row {
    let values = vec![
        Value::String("Ada Lovelace".into()),
        Value::Int64(7),
        Value::Double(2.5),
        Value::Null,
        Value::Int32(12),
        Value::Null,
    ];
    Row::new(schema(), values)
}

fn value(text: &str) -> Value {
    let expression =
        Expression::sql(text, &schema(), None, None).unwrap_or_else(|all| panic!("{text}: {all:?}"));
    expression.evaluate(&row()).unwrap_or_else(|raised| panic!("{text}: {raised:?}"))
}

fn shown(text: &str) -> String {
    crate::expression::python_repr(&value(text))
}

#[test]
fn values_are_those_of_sql() {
    for (text, wanted) in [
        ("1 + 2 * 3", "7"),
        ("-7 / 2", "-3"),
        ("-7 % 2", "-1"),
        ("7 / 2.0", "3.5"),
        ("n - 1 - 1", "5"),
        ("(n + 1) * x", "20.0"),
        ("upper(name) || '!'", "'ADA LOVELACE!'"),
        ("'it''s'", "\"it's\""),
        ("substring(name from 1 for 3)", "'Ada'"),
        ("substring(name, 5)", "'Lovelace'"),
        ("substring('abc' from -1 for 3)", "'a'"),
        ("char_length(name)", "12"),
        ("initcap('ada LOVE-lace')", "'Ada Love-Lace'"),
        ("replace(name, 'a', '')", "'Ad Lovelce'"),
        ("trim('  a ') || concat('b', 'c')", "'abc'"),
        ("round(2.567, 2)", "2.57"),
        ("floor(-2.5)", "-3.0"),
        ("abs(-n)", "7"),
        ("mod(-7, 2)", "-1"),
        ("power(2, 10)", "1024.0"),
        ("coalesce(gone, n)", "7"),
        ("nullif(n, 7)", "None"),
        ("nullif(n, 8)", "7"),
        ("cast(x as bigint) + cast('3' as integer)", "5"),
        ("cast(n as varchar) || cast(true as varchar)", "'7true'"),
        ("cast(' 2.5 ' as double)", "2.5"),
        ("case when n > 5 then 'big' when n > 1 then 'some' else 'none' end", "'big'"),
        ("case n when 1 then 'a' when 7 then 'b' end", "'b'"),
        ("case when gone > 1 then 1 end", "None"),
        ("n between 7 and 8 and n not between 1 and 6", "True"),
        ("name like 'Ada%' and name like '%l_ce' and name not like 'ada%'", "True"),
        ("'a%b' like 'a%%b'", "True"),
        ("n in (1, 7)", "True"),
        ("n not in (1, 2)", "True"),
        ("`timestamp` + 1", "13"),
        ("\"timestamp\" + 1", "13"),
        ("n <> 7 or n != 8", "True"),
        ("not not n = 7", "True"),
        ("- - 3 -- a comment\n + /* another */ 1", "4"),
        (".5e1", "5.0"),
    ] {
        assert_eq!(shown(text), wanted, "{text}");
    }
}

#[test]
fn null_is_unknown() {
    for (text, wanted) in [
        ("gone + 1", "None"),
        ("gone = gone", "None"),
        ("gone is null", "True"),
        ("gone is not null", "False"),
        ("flag is true", "False"),
        ("flag is not true", "True"),
        ("flag and n = 8", "False"),
        ("flag and n = 7", "None"),
        ("flag or n = 7", "True"),
        ("flag or n = 8", "None"),
        ("not flag", "None"),
        ("n in (1, gone)", "None"),
        ("n in (7, gone)", "True"),
        ("n not in (1, gone)", "None"),
        ("upper(cast(gone as varchar))", "None"),
    ] {
        assert_eq!(shown(text), wanted, "{text}");
    }
    let condition = Expression::sql_condition("gone > 1", &schema(), None).unwrap();
    assert_eq!(condition.holds(&row()), Ok(false));
}

#[test]
fn types_follow_from_the_columns() {
    let typed = |text: &str| {
        let made = Expression::sql(text, &schema(), None, None).unwrap();
        made.field_type().unwrap().to_string()
    };
    for (text, wanted) in [
        ("n / 2", "INT64"),
        ("n / x", "DOUBLE"),
        ("gone * 2", "INT64?"),
        ("`timestamp`", "INT32"),
        ("`timestamp` * 1", "INT64"),
        ("coalesce(gone, 0)", "INT64"),
        ("case when flag then 1 else 2.5 end", "DOUBLE"),
        ("case when flag then name end", "STRING?"),
        ("gone > 1", "BOOLEAN?"),
        ("gone is null", "BOOLEAN"),
        ("sqrt(n)", "DOUBLE"),
    ] {
        assert_eq!(typed(text), wanted, "{text}");
    }
}

#[test]
fn what_goes_wrong_is_raised() {
    let raised = |text: &str| {
        let made = Expression::sql(text, &schema(), None, None).unwrap();
        made.evaluate(&row()).unwrap_err().exception.to_string()
    };
    for (text, wanted) in [
        ("n / 0", "ZeroDivisionError"),
        ("mod(n, 0)", "ZeroDivisionError"),
        ("9223372036854775807 + n", "OverflowError"),
        ("cast(1e30 as bigint)", "OverflowError"),
        ("cast(name as bigint)", "ValueError"),
        ("substring(name, 1, -1)", "ValueError"),
    ] {
        assert_eq!(raised(text), wanted, "{text}");
    }
}

#[test]
fn mistakes_are_told_at_their_place() {
    let said = |text: &str| {
        let all = Expression::sql(text, &schema(), Some("Read"), None).unwrap_err();
        let one = &all[0];
        let part = one.span.map(|span| text[span.range()].to_owned()).unwrap_or_default();
        (one.code, part, one.message.clone())
    };
    for (text, code, part, message) in [
        ("nme", "TB0204", "nme", "unknown column `nme`"),
        ("n + name", "TB0205", "name", "`+` wants a number, got string"),
        ("n = name", "TB0205", "n = name", "int64 cannot be compared with string"),
        ("n and flag", "TB0205", "n", "`and` wants a boolean, got int64"),
        ("upper(n)", "TB0205", "upper(n)", "`upper` wants (a string), got (int64)"),
        ("upper()", "TB0205", "upper()", "`upper` wants (a string), got ()"),
        ("uper(name)", "TB0219", "uper(name)", "there is no function `uper` here"),
        ("sum(n)", "TB0205", "sum(n)", "`sum` is of groups of rows, not of one"),
        ("count(*)", "TB0205", "count(*)", "`count` is of groups of rows, not of one"),
        ("n in (select 1)", "TB0219", "select", "queries inside of queries are not available"),
        ("n +", "TB0206", "+", "expected an expression, got the end"),
        ("n n", "TB0206", "n", "expected an operator or the end, got `n`"),
        ("select", "TB0206", "select", "expected a name, got `select`"),
        ("'a", "TB0206", "'", "nothing ends what ' begins"),
        ("n # 1", "TB0206", "#", "`#` means nothing in SQL"),
        ("null", "TB0223", "null", "the type of this cannot be told: None"),
        ("b.n", "TB0233", "b.n", "there is no input `b` here"),
        ("case when flag then 1 else name end", "TB0205", "name", "this is string, those before are int64"),
        ("cast(flag as bigint)", "TB0205", "flag", "nullable boolean cannot become int64"),
    ] {
        let (seen_code, seen_part, seen_message) = said(text);
        assert_eq!((seen_code, seen_message.as_str()), (code, message), "{text}");
        if text != "n +" {
            assert_eq!(seen_part, part, "{text}");
        }
    }
}

#[test]
fn hostile_texts_are_refused() {
    for text in [
        "(".repeat(60_000),
        "not ".repeat(10_000),
        "- ".repeat(30_000),
        format!("1{}", " + 1".repeat(10_000)),
        format!("1{}", " = 1".repeat(10_000)),
        format!("{}1", "case when ".repeat(5_000)),
        format!("{}1", "abs(".repeat(5_000)),
        "1".repeat(70_000),
        "1e999".to_owned(),
    ] {
        assert!(Expression::sql(&text, &schema(), None, None).is_err());
    }
    let text = format!("'{}' like '{}'", "a".repeat(20_000), "%a".repeat(200));
    assert_eq!(value(&text), Value::Bool(true));
}
