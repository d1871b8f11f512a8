//! `#[derive(Element)]`: gives a struct its schema and its Beam `row` coder.
