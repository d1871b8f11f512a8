use tiebeam_core::Element;

#[derive(Clone, Element)]
struct Pair<T> {
    left: T,
}

fn main() {}
