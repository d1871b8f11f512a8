use tiebeam_core::Element;

#[derive(Clone, Element)]
struct Pair(String, i64);

fn main() {}
