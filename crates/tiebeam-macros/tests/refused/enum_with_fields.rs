use tiebeam_core::Element;

#[derive(Clone, Element)]
enum Shape {
    Point,
    Circle { radius: f64 },
}

fn main() {}
