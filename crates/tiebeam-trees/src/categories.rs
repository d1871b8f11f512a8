//! The names of categories that XGBoost keeps, from 3.1 on, of a model that was trained on a table with named ones.

use std::sync::Arc;

use crate::document::{Node, whole};
use crate::model::{Features, Refusal, UnknownCategory};

/// Whole numbers below this are what they are in a document's `f64`, too.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// The categories of one feature as the document has them.
enum Encoded<'a> {
    None,
    Texts { bytes: Vec<u8>, bounds: Vec<usize> },
    Numbers(&'a [f64]),
}

/// What the bounds of texts count.
#[derive(Clone, Copy, PartialEq)]
enum Counted {
    Bytes,
    Characters,
    /// Either.
    Unknown,
}

/// Gives features the names of their categories, where the trees' part of the document, `model`, has some.
pub(crate) fn read(document: &Node, model: &Node, features: &mut Features) -> Result<(), Refusal> {
    let Some(cats) = model.get("cats") else { return Ok(()) };
    let encoded = cats.need("enc")?.list().ok_or("`enc` of `cats` is not a list of categories")?;
    if encoded.is_empty() {
        return Ok(());
    }
    let count = features.count;
    if encoded.len() != count {
        return Err(format!("`cats` has {} lists of categories for {count} features", encoded.len()).into());
    }
    let segments = cats.array("feature_segments")?;
    if segments.len() != count + 1 || segments[0] != 0.0 {
        let what = format!("`feature_segments` of `cats` does not part {count} features");
        return Err(what.into());
    }
    let within = |i: usize| move |what: String| format!("the categories of feature {i}: {what}");
    let mut lists = Vec::with_capacity(count);
    for (i, node) in encoded.iter().enumerate() {
        let list = one(node).map_err(within(i))?;
        let length = match &list {
            Encoded::None => 0,
            Encoded::Texts { bounds, .. } => bounds.len() - 1,
            Encoded::Numbers(numbers) => numbers.len(),
        };
        // Written so that NaN is refused, too.
        if !(segments[i] + length as f64 == segments[i + 1]) {
            let what = format!(
                "there are {length}, but `feature_segments` goes {} to {}",
                segments[i],
                segments[i + 1]
            );
            return Err(within(i)(what).into());
        }
        lists.push(list);
    }
    let counted = counted(&lists, counts_bytes(document));
    for (i, list) in lists.iter().enumerate() {
        let (categories, unknown) = match list {
            Encoded::None => continue,
            Encoded::Numbers(numbers) => (numbered(numbers).map_err(within(i))?, UnknownCategory::Refused),
            Encoded::Texts { bytes, bounds } => {
                let names = named(bytes, bounds, counted).map_err(within(i))?;
                let all = names.len() + 1 == bounds.len();
                (Some(names), if all { UnknownCategory::Refused } else { UnknownCategory::RefusedOrCut })
            }
        };
        if let Some(feature) = features.listed_mut().get_mut(i) {
            (feature.categories, feature.unknown) = (categories, unknown);
        }
    }
    Ok(())
}

/// The categories of one feature: texts behind each other with their bounds, or numbers.
fn one(node: &Node) -> Result<Encoded<'_>, String> {
    let values = node.array("values")?;
    if node.get("offsets").is_none() {
        return Ok(if values.is_empty() { Encoded::None } else { Encoded::Numbers(values) });
    }
    let offsets = node.array("offsets")?;
    if offsets.is_empty() && values.is_empty() {
        return Ok(Encoded::None);
    }
    let bounds = offsets.iter().map(|offset| whole("offsets", Some(*offset)));
    let bounds = bounds.collect::<Result<Vec<usize>, String>>()?;
    if let Some(pair) = bounds.windows(2).find(|pair| pair[0] > pair[1]) {
        return Err(format!("`offsets` has {} behind {}", pair[1], pair[0]));
    }
    match bounds.last() {
        Some(end) if *end <= values.len() => {}
        _ => return Err(format!("`offsets` does not part {} bytes of `values`", values.len())),
    }
    // XGBoost writes bytes as signed numbers.
    let byte = |value: &f64| match value {
        n if n.fract() == 0.0 && (-128.0..256.0).contains(n) => Ok((*n as i16) as u8),
        n => Err(format!("`values` has {n}, no byte")),
    };
    Ok(Encoded::Texts { bytes: values.iter().map(byte).collect::<Result<_, String>>()?, bounds })
}

/// The names of whole numbers; none where two may have become the same.
fn numbered(numbers: &[f64]) -> Result<Option<Vec<Arc<str>>>, String> {
    if let Some(number) = numbers.iter().find(|number| number.fract() != 0.0 || !number.is_finite()) {
        return Err(format!("{number} is no whole number"));
    }
    if numbers.iter().any(|number| number.abs() >= EXACT) {
        return Ok(None);
    }
    Ok(Some(numbers.iter().map(|number| (*number as i64).to_string().into()).collect()))
}

/// Whether the model was written after the bug of which [`counted`] tells was mended.
fn counts_bytes(document: &Node) -> bool {
    let version = document.get("version").and_then(Node::numbers);
    version.is_some_and(|version| version.len() > 1 && (version[0], version[1]) >= (3.0, 4.0))
}

/// What bounds count in a model, whose features were columns of one table.
///
/// XGBoost 3.1 to 3.3 counts the characters of a pandas table's names where it should count bytes (its pull request 12371), and keeps
/// as many bytes: the bounds are wrong behind the first name that is not ASCII, and names at the end are cut off. Tables of Arrow and
/// Polars it counts in bytes, and does not say which one there was. So what one way of counting gives must be impossible (no UTF-8, a
/// name twice), or many names in order one way and not the other, as pandas sorts them; a guess would take categories for others.
fn counted(lists: &[Encoded<'_>], mended: bool) -> Counted {
    let mut found = Vec::new();
    for list in lists {
        if let Encoded::Texts { bytes, bounds } = list
            && !bytes.is_ascii()
        {
            let Some(by_bytes) = by_bytes(bytes, bounds) else { return Counted::Characters };
            let by_characters = by_characters(bytes, bounds).unwrap_or_default();
            match (has_twice(&by_bytes), has_twice(&by_characters)) {
                (true, _) => return Counted::Characters,
                (false, true) => return Counted::Bytes,
                (false, false) => found.push((by_bytes, by_characters)),
            }
        }
    }
    // Fewer names may be in order by chance.
    let sorted = |names: &[&str]| (names.len() > 4).then(|| names.is_sorted());
    let by_bytes = found.iter().filter_map(|(names, _)| sorted(names));
    let by_characters = found.iter().filter_map(|(_, names)| sorted(names));
    let all = |orders: &mut dyn Iterator<Item = bool>| orders.reduce(|all, one| all && one);
    match (all(&mut { by_bytes }), all(&mut { by_characters })) {
        _ if mended || found.is_empty() => Counted::Bytes,
        (Some(true), Some(false)) => Counted::Bytes,
        (Some(false), Some(true)) => Counted::Characters,
        _ => Counted::Unknown,
    }
}

fn has_twice(names: &[&str]) -> bool {
    let mut sorted = names.to_vec();
    sorted.sort_unstable();
    sorted.windows(2).any(|pair| pair[0] == pair[1])
}

/// The names between bounds that count bytes.
fn by_bytes<'a>(bytes: &'a [u8], bounds: &[usize]) -> Option<Vec<&'a str>> {
    bounds.windows(2).map(|pair| std::str::from_utf8(bytes.get(pair[0]..pair[1])?).ok()).collect()
}

/// The names between bounds that count characters, up to those that are cut off.
fn by_characters<'a>(bytes: &'a [u8], bounds: &[usize]) -> Result<Vec<&'a str>, String> {
    let bytes = &bytes[..bounds.last().copied().unwrap_or(0).min(bytes.len())];
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        // Cut off within its last character, rather than wrong.
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(error) => {
            return Err(format!("a name that is not UTF-8, at byte {} of `values`", error.valid_up_to()));
        }
    };
    let starts: Vec<usize> = text.char_indices().map(|(start, _)| start).chain([text.len()]).collect();
    let name = |pair: &[usize]| text.get(*starts.get(pair[0])?..*starts.get(pair[1])?);
    Ok(bounds.windows(2).map_while(name).collect())
}

/// The names that are known for certain: all of them, or the first ones.
fn named(bytes: &[u8], bounds: &[usize], counted: Counted) -> Result<Vec<Arc<str>>, String> {
    let by_bytes = if counted == Counted::Characters { None } else { by_bytes(bytes, bounds) };
    let names = match (counted, by_bytes) {
        (Counted::Bytes, Some(names)) => names,
        (Counted::Unknown, Some(names)) => {
            let others = by_characters(bytes, bounds)?;
            names
                .into_iter()
                .zip(others)
                .take_while(|(one, other)| one == other)
                .map(|(name, _)| name)
                .collect()
        }
        _ => by_characters(bytes, bounds)?,
    };
    Ok(names.into_iter().map(Arc::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;
    use crate::model::{Feature, FeatureKind};

    fn listed(cats: &str, count: usize) -> Result<Vec<Feature>, String> {
        listed_of("[3, 2, 0]", cats, count)
    }

    fn listed_of(version: &str, cats: &str, count: usize) -> Result<Vec<Feature>, String> {
        let document = json::read(format!("{{\"version\": {version}, \"cats\": {cats}}}").as_bytes())?;
        let mut features = Features { count, listed: None, prefix: "f" };
        match read(&document, &document, &mut features) {
            Ok(()) => Ok(features.listed.unwrap_or_default()),
            Err(Refusal::Damaged(what)) => Err(what),
            Err(_) => Err("not damaged".to_owned()),
        }
    }

    fn names(feature: &Feature) -> Vec<&str> {
        feature.categories.iter().flatten().map(|name| &**name).collect()
    }

    /// The list of one feature's names, counted as they should be or as XGBoost 3.2 counts those of pandas.
    fn encoded(names: &[&str], counted: Counted) -> String {
        let (mut offsets, mut end) = (vec![0], 0);
        for name in names {
            end += if counted == Counted::Bytes { name.len() } else { name.chars().count() };
            offsets.push(end);
        }
        let bytes: Vec<i8> = names.concat().bytes().take(end).map(|byte| byte as i8).collect();
        format!("{{\"offsets\": {offsets:?}, \"values\": {bytes:?}}}")
    }

    #[test]
    fn texts_and_whole_numbers_are_names() {
        let plain = encoded(&["red", "", "blue"], Counted::Bytes);
        let cats = format!(
            "{{\"enc\": [{{\"offsets\": [], \"values\": []}}, {plain}, {{\"type\": 15, \"values\": [30, -7, 0]}}], \
             \"feature_segments\": [0, 0, 3, 6], \"sorted_idx\": [1, 2, 0, 1, 2, 0]}}"
        );
        let features = listed(&cats, 3).unwrap();
        assert_eq!((&*features[1].name, features[1].kind), ("f1", FeatureKind::Numerical));
        assert_eq!(features[0].categories, None);
        assert_eq!(names(&features[1]), ["red", "", "blue"]);
        assert_eq!(names(&features[2]), ["30", "-7", "0"]);
        assert_eq!(features[2].unknown, UnknownCategory::Refused);
        // In f64 the first is the second.
        let large = "{\"enc\": [{\"type\": 15, \"values\": [9007199254740993, 9007199254740992]}], \
                      \"feature_segments\": [0, 2], \"sorted_idx\": [1, 0]}";
        assert_eq!(listed(large, 1).unwrap()[0].categories, None);
        for nothing in ["{\"enc\": [], \"feature_segments\": [], \"sorted_idx\": []}", "{\"enc\": []}"] {
            assert!(listed(nothing, 3).unwrap().is_empty());
        }
    }

    #[test]
    fn names_that_are_not_ascii_are_read_as_they_were_counted() {
        let (bytes, characters) = (Counted::Bytes, Counted::Characters);
        let read = |version: &str, texts: &[&str], counted| {
            let list = encoded(texts, counted);
            let cats = format!("{{\"enc\": [{list}], \"feature_segments\": [0, {}]}}", texts.len());
            let features = listed_of(version, &cats, 1).unwrap();
            let names = names(&features[0]).join(" ");
            let all = names.split(' ').count() == texts.len();
            let unknown = if all { UnknownCategory::Refused } else { UnknownCategory::RefusedOrCut };
            assert_eq!(features[0].unknown, unknown);
            names
        };
        for (texts, counted, want) in [
            // No UTF-8, or a name twice, if they counted bytes.
            (&["città", "blue", "d"][..], characters, "città blue"),
            (&["да", "нет"], characters, "да"),
            (&["àà", "àè"], characters, "àà"),
            // In order one way: pandas sorts.
            (
                &["Bari", "Graz", "Linz", "München", "Trier", "Ulm", "Wien"],
                characters,
                "Bari Graz Linz München Trier Ulm",
            ),
            (
                &["Bari", "Köln", "Linz", "München", "Ulm", "Wien", "Zürich"],
                bytes,
                "Bari Köln Linz München Ulm Wien Zürich",
            ),
            // A name twice, if they counted characters.
            (&["é", "ax", "yx", "yz"], bytes, "é ax yx yz"),
            // Both are possible: where they agree. Else `c` would be taken for `d`.
            (&["àb", "c", "d", "e"], characters, ""),
            (&["x", "c", "àb", "d", "e"], characters, "x c"),
            (&["x", "città", "東京都", "d"], bytes, "x"),
        ] {
            assert_eq!(read("[3, 2, 0]", texts, counted), want);
        }
        assert_eq!(read("[3, 4, 0]", &["x", "città", "東京都", "d"], bytes), "x città 東京都 d");
        assert_eq!(read("[4, 0, 0]", &["àb", "c", "d"], bytes), "àb c d");
        // What an old version cut is cut when a new one writes it again.
        assert_eq!(read("[3, 4, 0]", &["città", "blue", "d"], characters), "città blue");
        // One column tells of the others.
        let mixed = format!(
            "{{\"enc\": [{}, {}], \"feature_segments\": [0, 2, 4]}}",
            encoded(&["да", "не"], characters),
            encoded(&["città", "no"], characters)
        );
        let features = listed(&mixed, 2).unwrap();
        assert_eq!((names(&features[0]), names(&features[1])), (vec!["да"], vec!["città"]));
    }

    #[test]
    fn damaged_lists_are_refused() {
        let list = |list: &str| format!("{{\"enc\": [{list}], \"feature_segments\": [0, 2]}}");
        let texts =
            |offsets: &str, values: &str| list(&format!("{{\"offsets\": {offsets}, \"values\": {values}}}"));
        let cases = [
            (
                texts("[0, 1, 2]", "[97, 98]").replace("[0, 2]", "[0, 3]"),
                "there are 2, but `feature_segments` goes 0 to 3",
            ),
            (texts("[0, 1, 2]", "[97, 98]").replace("[0, 2]", "[0, NaN]"), "there are 2"),
            (texts("[0, 1, 2]", "[97, 98]").replace("[0, 2]", "[0, 2, 2]"), "does not part 1 features"),
            (texts("[0, 1, 2]", "[97, 98]").replace("[0, 2]", "[1, 3]"), "does not part 1 features"),
            (
                texts("[0, 1, 2]", "[97, 98]").replace("\"feature_segments\"", "\"x\""),
                "`feature_segments` is missing",
            ),
            (texts("[0, 2, 1]", "[97, 98]"), "`offsets` has 1 behind 2"),
            (texts("[0, 1, 3]", "[97, 98]"), "`offsets` does not part 2 bytes"),
            (texts("[0, 1, 1e18]", "[97, 98]"), "no count"),
            (texts("[0, -1, 2]", "[97, 98]"), "no count"),
            (texts("[0, NaN, 2]", "[97, 98]"), "no count"),
            (texts("[]", "[97, 98]"), "`offsets` does not part 2 bytes"),
            (texts("\"x\"", "[97, 98]"), "`offsets` is not a list of numbers"),
            (texts("[0, 1, 2]", "[97, 300]"), "`values` has 300, no byte"),
            (texts("[0, 1, 2]", "[97, 0.5]"), "`values` has 0.5, no byte"),
            (texts("[0, 1, 2]", "[97, NaN]"), "no byte"),
            (texts("[0, 1, 2]", "[-1, 98]"), "not UTF-8, at byte 0"),
            (list("{\"type\": 15, \"values\": [0.5, 1]}"), "0.5 is no whole number"),
            (list("{\"type\": 15, \"values\": [1e999, 1]}"), "inf is no whole number"),
            (list("{\"type\": 15, \"values\": \"ab\"}"), "`values` is not a list of numbers"),
            (list("{\"type\": 15}"), "`values` is missing"),
            (list("7"), "not a list of categories"),
            (list("{\"values\": []}, {\"values\": []}"), "`cats` has 2 lists of categories for 1 features"),
            ("{\"feature_segments\": []}".to_owned(), "`enc` is missing"),
            ("7".to_owned(), "`enc` is missing"),
        ];
        for (cats, want) in cases {
            let error = listed(&cats, 1).unwrap_err();
            assert!(error.contains(want), "{cats}: {error}");
        }
    }
}
