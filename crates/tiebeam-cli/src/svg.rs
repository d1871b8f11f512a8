//! Boxes and arrows as a picture: layers from top to bottom, each box below all that it reads.

use std::fmt::Write as _;

/// The height of a box, and the room between boxes.
const HEIGHT: usize = 36;
const GAP: usize = 44;
/// The room that one character takes, about.
const CHARACTER: usize = 8;

struct Placed {
    x: usize,
    y: usize,
    width: usize,
}

/// Draws boxes by their names, and arrows: from, to, and what the arrow is called.
pub fn draw(boxes: &[String], arrows: &[(usize, usize, String)]) -> String {
    let placed = place(boxes, arrows);
    let width = placed.iter().map(|b| b.x + b.width).max().unwrap_or(0) + GAP;
    let height = placed.iter().map(|b| b.y + HEIGHT).max().unwrap_or(0) + GAP / 2;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"14\">\n\
         <defs><marker id=\"tip\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" markerWidth=\"8\" markerHeight=\"8\" orient=\"auto\">\
         <path d=\"M0 0L8 4L0 8z\" fill=\"#555\"/></marker></defs>\n"
    );
    for (from, to, label) in arrows {
        let (from, to) = (&placed[*from], &placed[*to]);
        let (x1, y1) = (from.x + from.width / 2, from.y + HEIGHT);
        let (x2, y2) = (to.x + to.width / 2, to.y);
        let middle = (y1 + y2) / 2;
        let _ = writeln!(
            svg,
            "<path d=\"M{x1} {y1}C{x1} {middle} {x2} {middle} {x2} {y2}\" fill=\"none\" stroke=\"#555\" marker-end=\"url(#tip)\"/>"
        );
        if !label.is_empty() {
            let _ = writeln!(
                svg,
                "<text x=\"{}\" y=\"{}\" font-size=\"12\" fill=\"#b00\">{}</text>",
                (x1 + x2) / 2 + 6,
                middle,
                escaped(label)
            );
        }
    }
    for (name, at) in boxes.iter().zip(&placed) {
        let Placed { x, y, width } = at;
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{HEIGHT}\" rx=\"6\" fill=\"#eef4fb\" stroke=\"#4a78a8\"/>\
             <text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            x + width / 2,
            y + HEIGHT / 2 + 5,
            escaped(name)
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// Boxes stand in the order of what they read: arrows go from earlier boxes to later ones.
fn place(boxes: &[String], arrows: &[(usize, usize, String)]) -> Vec<Placed> {
    let mut layers = vec![0usize; boxes.len()];
    for to in 0..boxes.len() {
        let above = arrows.iter().filter(|(from, other, _)| *other == to && *from < to);
        layers[to] = above.map(|(from, _, _)| layers[*from] + 1).max().unwrap_or(0);
    }
    let width = |name: &String| name.chars().count() * CHARACTER + 24;
    let row = |layer: usize| (0..boxes.len()).filter(|i| layers[*i] == layer).collect::<Vec<_>>();
    let span = |row: &[usize]| row.iter().map(|i| width(&boxes[*i]) + GAP).sum::<usize>().saturating_sub(GAP);
    let deepest = layers.iter().max().copied().unwrap_or(0);
    let widest = (0..=deepest).map(|layer| span(&row(layer))).max().unwrap_or(0);
    let mut placed: Vec<Placed> = boxes.iter().map(|_| Placed { x: 0, y: 0, width: 0 }).collect();
    for layer in 0..=deepest {
        let row = row(layer);
        let mut x = GAP / 2 + (widest - span(&row)) / 2;
        for index in row {
            let width = width(&boxes[index]);
            placed[index] = Placed { x, y: GAP / 2 + layer * (HEIGHT + GAP), width };
            x += width + GAP;
        }
    }
    placed
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_stand_below_what_they_read_and_beside_each_other() {
        let boxes = ["A", "B", "C & <D>"].map(str::to_owned);
        let arrows = [(0, 1, String::new()), (0, 2, "bad".to_owned()), (1, 2, String::new())];
        let placed = place(&boxes, &arrows);
        assert_eq!(placed.iter().map(|b| b.y).collect::<Vec<_>>(), [22, 102, 182]);
        let svg = draw(&boxes, &arrows);
        assert!(svg.contains("C &amp; &lt;D&gt;") && svg.contains(">bad<"), "{svg}");
        assert_eq!(svg.matches("<rect").count(), 3);
        let both = place(&boxes[..2], &[]);
        assert_eq!((both[0].y, both[1].y), (22, 22));
        assert!(both[1].x >= both[0].x + both[0].width);
        assert!(draw(&[], &[]).ends_with("</svg>\n"));
    }
}
