//! Did you mean: the nearest of some names.

/// The name nearest to `wanted`, if one is near enough to be a slip of the finger.
pub fn nearest<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = wanted.to_lowercase();
    let limit = (wanted.chars().count() / 3).max(1);
    names
        .into_iter()
        .map(|name| {
            let other = name.to_lowercase();
            let distance = if other == lower { 0 } else { distance(&lower, &other) };
            (distance, name)
        })
        // Of a name that is all changed nothing is left to know it by.
        .filter(|(distance, name)| {
            *distance <= limit && *distance < lower.chars().count().max(1) && *name != wanted
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// The number of letters inserted, removed, changed, or swapped with a neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut before = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let changed = usize::from(a[i - 1] != b[j - 1]);
            row[j] = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + changed);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_finds_slips_and_nothing_else() {
        let names = ["MapToFields", "Filter", "ReadFromCsv", "Create"];
        assert_eq!(nearest("MapToField", names), Some("MapToFields"));
        assert_eq!(nearest("readfromcsv", names), Some("ReadFromCsv"));
        assert_eq!(nearest("Fliter", names), Some("Filter"));
        assert_eq!(nearest("WriteToBigQuery", names), None);
        assert_eq!(nearest("col9", ["col1", "col2"]), Some("col1"));
        assert_eq!(nearest("", names), None);
        assert_eq!(nearest("m", ["n"]), None);
        assert_eq!(nearest("N", ["n"]), Some("n"));
    }
}
