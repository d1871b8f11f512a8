use tiebeam_core::Element;

#[derive(Clone, Element)]
struct Row {
    name: String,
    #[element(rename = "name")]
    title: String,
}

fn main() {}
