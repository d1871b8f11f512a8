use tiebeam_core::{Element, RowElement};

#[derive(Clone, Element)]
struct Row {
    twice: Option<Option<i64>>,
}

fn main() {
    let _ = Row::schema();
}
