use tiebeam_core::Element;

#[derive(Clone, Element)]
struct Picture {
    name: String,
    pixels: Vec<u8>,
}

fn main() {}
