//! Queries: one `select`, from one or more inputs.

use super::parse::{Parsed, Parser, refused};
use super::tree::{Item, Join, On, Query, Table};
use crate::source::Span;

/// The most inputs of a query.
const MOST_TABLES: usize = 64;

/// Reads a query.
pub fn query(text: &str) -> Parsed<Query> {
    let mut parser = Parser::new(text)?;
    if parser.is("with") {
        return Err(
            refused(parser.span(), "`with` is not available").help("give each query an `Sql` of its own")
        );
    }
    parser.expect("select")?;
    parser.eat("all");
    let distinct = parser.eat("distinct");
    let mut items = vec![item(&mut parser)?];
    while parser.eat_sign(",") {
        items.push(item(&mut parser)?);
    }
    parser.expect("from")?;
    let mut tables = vec![table(&mut parser, None)?];
    while let Some(join) = join(&mut parser)? {
        let mut next = table(&mut parser, Some(join.0))?;
        if let Some((_, on)) = &mut next.join
            && join.1
        {
            *on = condition(&mut parser)?;
        }
        tables.push(next);
        if tables.len() > MOST_TABLES {
            return Err(refused(parser.span(), format!("more than {MOST_TABLES} inputs of a query")));
        }
    }
    let filter = if parser.eat("where") { Some(parser.expr()?) } else { None };
    let mut groups = Vec::new();
    if parser.eat("group") {
        parser.expect("by")?;
        groups.push(parser.expr()?);
        while parser.eat_sign(",") {
            groups.push(parser.expr()?);
        }
    }
    let having = if parser.eat("having") { Some(parser.expr()?) } else { None };
    for (word, help) in [
        ("order", "rows of a pipeline are in no order; `Combine` with TopCombineFn gives the largest"),
        ("limit", "rows of a pipeline are in no order; `Combine` with TopCombineFn gives the largest"),
        ("fetch", "rows of a pipeline are in no order; `Combine` with TopCombineFn gives the largest"),
        ("union", "give each query an `Sql` of its own and put them together with `Flatten`"),
        ("intersect", "use `Join`"),
        ("except", "use `Join` with `type: left` and a `Filter`"),
    ] {
        if parser.is(word) {
            return Err(refused(parser.span(), format!("`{word}` is not available in a query")).help(help));
        }
    }
    parser.end()?;
    Ok(Query { distinct, items, tables, filter, groups, having })
}

fn item(parser: &mut Parser) -> Parsed<Item> {
    if parser.eat_sign("*") {
        return Ok(Item::All(None));
    }
    if let Some(table) = parser.table_star() {
        return Ok(Item::All(Some(table)));
    }
    let expr = parser.expr()?;
    let name = if parser.eat("as") || parser.is_name() { Some(parser.name()?) } else { None };
    Ok(Item::One(expr, name))
}

fn table(parser: &mut Parser, join: Option<Join>) -> Parsed<Table> {
    let start: Span = parser.span();
    if parser.eat_sign("(") {
        return Err(refused(start, "queries inside of queries are not available")
            .help("give each query an `Sql` of its own"));
    }
    let (name, span) = parser.name()?;
    let alias = if parser.eat("as") || parser.is_name() { Some(parser.name()?.0) } else { None };
    Ok(Table { name, span, alias, join: join.map(|join| (join, On::Nothing)) })
}

/// How the next input is joined, and whether a condition comes behind it.
fn join(parser: &mut Parser) -> Parsed<Option<(Join, bool)>> {
    if parser.eat_sign(",") {
        return Ok(Some((Join::Inner, false)));
    }
    if parser.is("natural") {
        return Err(
            refused(parser.span(), "`natural join` is not available").help("name the columns: `using (a)`")
        );
    }
    let found = match () {
        () if parser.eat("cross") => (Join::Inner, false),
        () if parser.eat("inner") => (Join::Inner, true),
        () if parser.eat("left") => (Join::Left, true),
        () if parser.eat("right") => (Join::Right, true),
        () if parser.eat("full") => (Join::Full, true),
        () if parser.is("join") => (Join::Inner, true),
        () => return Ok(None),
    };
    if !matches!(found.0, Join::Inner) {
        parser.eat("outer");
    }
    parser.expect("join")?;
    Ok(Some(found))
}

fn condition(parser: &mut Parser) -> Parsed<On> {
    if parser.eat("on") {
        return Ok(On::Condition(parser.expr()?));
    }
    if !parser.eat("using") {
        return Err(parser.unexpected("`on` or `using`"));
    }
    parser.expect_sign("(")?;
    let mut names = vec![parser.name()?];
    while parser.eat_sign(",") {
        names.push(parser.name()?);
    }
    parser.expect_sign(")")?;
    Ok(On::Using(names))
}
