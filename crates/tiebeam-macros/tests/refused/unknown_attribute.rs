use tiebeam_core::Element;

#[derive(Clone, Element)]
struct Row {
    #[element(skip)]
    name: String,
}

fn main() {}
