//! LightGBM's models, from their text.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::Arc;

use crate::document::Node;
use crate::forest::{Decide, Forest, Lightgbm, LinearLeaf, Members, Raw};
use crate::json;
use crate::link::Link;
use crate::model::{Body, Feature, FeatureKind, Features, Read, Refusal, UnknownCategory};
use crate::xgboost::MOST_OUTPUTS;

/// Bits of `decision_type`.
const CATEGORICAL: u8 = 1;
const DEFAULT_LEFT: u8 = 2;

/// The lines `key=value` of a part of the file; keys without a value, too.
struct Part<'a>(HashMap<&'a str, &'a str>);

impl<'a> Part<'a> {
    fn get(&self, key: &str) -> Option<&'a str> {
        self.0.get(key).copied()
    }

    fn need(&self, key: &str) -> Result<&'a str, String> {
        self.get(key).ok_or_else(|| format!("`{key}` is missing"))
    }

    fn count(&self, key: &str) -> Result<usize, String> {
        let text = self.need(key)?;
        let count = text.trim().parse::<u32>();
        count.map(|count| count as usize).map_err(|_| format!("`{key}` is `{}`, no count", shown(text)))
    }

    /// The numbers of a list.
    fn list<T: FromStr>(&self, key: &str) -> Result<Vec<T>, String> {
        let numbers = self.need(key)?.split_ascii_whitespace();
        let parsed = numbers.map(|text| text.parse().map_err(|_| format!("`{key}` has `{}`", shown(text))));
        parsed.collect()
    }

    /// The numbers of a list that must have so many.
    fn exactly<T: FromStr>(&self, key: &str, count: usize) -> Result<Vec<T>, String> {
        let list = self.list(key)?;
        if list.len() == count {
            return Ok(list);
        }
        Err(format!("`{key}` has {} entries, wanted {count}", list.len()))
    }
}

/// The beginning of what may be long.
fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}

/// What a file says of a model.
pub(crate) fn read(text: &str) -> Result<Read, Refusal> {
    let mut lines = text.lines();
    let (head, mut next) = part(&mut lines);
    let width = head.count("max_feature_idx")?.checked_add(1).ok_or("`max_feature_idx` is too large")?;
    let groups = match head.get("num_tree_per_iteration") {
        Some(_) => head.count("num_tree_per_iteration")?,
        None => head.count("num_class")?,
    };
    if groups == 0 || groups > MOST_OUTPUTS {
        return Err(format!("{groups} trees an iteration").into());
    }
    let objective = head.get("objective").unwrap_or("custom");
    let link = link(objective)?;
    let mut features = features(&head, width)?;

    let mut forest = Forest::new(groups);
    while next != Some("end of trees") {
        let number = forest.trees();
        if next.is_none() {
            return Err("it ends before `end of trees`: the file is cut off".into());
        }
        let tree;
        (tree, next) = part(&mut lines);
        add(&mut forest, &tree, number % groups, width).map_err(|what| format!("tree {number}: {what}"))?;
    }
    let trees = forest.trees();
    let sizes = head.get("tree_sizes").map(|sizes| sizes.split_ascii_whitespace().count());
    if sizes.is_some_and(|sizes| sizes != trees) || trees % groups != 0 {
        return Err(format!("{trees} trees, but {groups} an iteration and {sizes:?} sizes").into());
    }
    forest.finish();
    if let Some(line) = lines.find_map(|line| line.strip_prefix("pandas_categorical:")) {
        categories(&mut features, line)?;
    }
    let average = head.get("average_output").is_some() && trees > 0;
    let divisor = if average { (trees / groups) as f64 } else { 1.0 };
    let name = objective.split_ascii_whitespace().next().unwrap_or("custom").to_owned();
    Ok(Read { body: Body::Lightgbm { forest, divisor }, features, link, objective: name })
}

/// The lines up to the one that begins the next tree or ends them, and that one.
fn part<'a>(lines: &mut impl Iterator<Item = &'a str>) -> (Part<'a>, Option<&'a str>) {
    let mut part = HashMap::new();
    for line in lines {
        let line = line.trim_end();
        if line.starts_with("Tree=") || line == "end of trees" {
            return (Part(part), Some(line));
        }
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        part.insert(key, value);
    }
    (Part(part), None)
}

/// What `predict` makes of scores.
fn link(objective: &str) -> Result<Link, Refusal> {
    let mut words = objective.split_ascii_whitespace();
    let name = words.next().unwrap_or("custom");
    let mut sigmoid = 1.0;
    let mut root = false;
    for word in words {
        root |= word == "sqrt";
        if let Some(number) = word.strip_prefix("sigmoid:") {
            let parsed = number.parse().ok().filter(|k: &f64| k.is_finite() && *k > 0.0);
            sigmoid = parsed.ok_or_else(|| format!("sigmoid is `{}`", shown(number)))?;
        }
    }
    Ok(match name {
        "regression" | "regression_l2" | "l2" | "regression_l1" | "l1" | "huber" | "fair" | "quantile"
        | "mape"
            if root =>
        {
            Link::SignedSquare
        }
        "regression" | "regression_l2" | "l2" | "regression_l1" | "l1" | "huber" | "fair" | "quantile"
        | "mape" | "lambdarank" | "rank_xendcg" | "custom" | "none" => Link::Identity,
        "poisson" | "gamma" | "tweedie" => Link::Exp,
        "binary" | "multiclassova" => Link::Sigmoid(sigmoid),
        "cross_entropy" | "xentropy" => Link::Sigmoid(1.0),
        "cross_entropy_lambda" | "xentlambda" => Link::LogOnePlusExp,
        "multiclass" | "softmax" => Link::Softmax,
        other => return Err(Refusal::Unsupported(format!("objective `{}`", shown(other)))),
    })
}

fn features(head: &Part<'_>, width: usize) -> Result<Features, Refusal> {
    let names: Vec<&str> = head.need("feature_names")?.split(' ').filter(|name| !name.is_empty()).collect();
    if names.len() != width {
        return Err(format!("{} feature names for {width} features", names.len()).into());
    }
    let infos: Vec<&str> = head.get("feature_infos").unwrap_or_default().split_ascii_whitespace().collect();
    let listed = names.iter().enumerate().map(|(i, name)| {
        // A range in brackets is a number's, `none` says nothing, anything else lists categories.
        let numerical = infos.get(i).is_none_or(|info| info.starts_with('[') || *info == "none");
        let kind = if numerical { FeatureKind::Numerical } else { FeatureKind::Categorical };
        Feature { name: (*name).into(), kind, categories: None, unknown: UnknownCategory::Missing }
    });
    Ok(Features { count: width, listed: Some(listed.collect()), prefix: "Column_" })
}

/// The names of pandas's categories, one list for each column that has them, in the columns' order.
fn categories(features: &mut Features, line: &str) -> Result<(), Refusal> {
    let document =
        json::read(line.trim().as_bytes()).map_err(|what| format!("`pandas_categorical`: {what}"))?;
    let lists = match &document {
        Node::List(lists) => lists.as_slice(),
        _ => return Ok(()),
    };
    let listed = features.listed.iter_mut().flatten();
    let columns: Vec<&mut Feature> =
        listed.filter(|feature| feature.kind == FeatureKind::Categorical).collect();
    // A column that no tree could use is told like a number's: then it is open which list is whose.
    if columns.len() != lists.len() {
        return Ok(());
    }
    for (column, list) in columns.into_iter().zip(lists) {
        let name = |node: &Node| -> Arc<str> {
            match node {
                Node::Text(text) => text.as_str().into(),
                Node::Number(number) => number.to_string().into(),
                Node::Bool(true) => "True".into(),
                Node::Bool(false) => "False".into(),
                _ => "".into(),
            }
        };
        column.categories = Some(match list {
            Node::Numbers(numbers) => numbers.iter().map(|number| number.to_string().into()).collect(),
            Node::List(list) => list.iter().map(name).collect(),
            _ => return Err("`pandas_categorical` is not a list of lists".into()),
        });
    }
    Ok(())
}

/// Adds one tree.
fn add(forest: &mut Forest<Lightgbm>, tree: &Part<'_>, group: usize, width: usize) -> Result<(), String> {
    let leaves = tree.count("num_leaves")?;
    let values: Vec<f64> = tree.exactly("leaf_value", leaves)?;
    let inner = leaves.checked_sub(1).ok_or("it has no leaves")?;
    let linear = if tree.get("is_linear").is_some_and(|flag| flag.trim() == "1") {
        linear(tree, leaves, width)?
    } else {
        Vec::new()
    };
    let leaf = |i: usize| linear.get(i).cloned();
    if inner == 0 {
        return forest.add(group, 1, |_| Ok(Raw::Leaf(values[0])), leaf);
    }
    let features: Vec<usize> = tree.exactly("split_feature", inner)?;
    let thresholds: Vec<f64> = tree.exactly("threshold", inner)?;
    let types: Vec<u8> = match tree.get("decision_type") {
        Some(_) => tree.exactly("decision_type", inner)?,
        None => vec![0; inner],
    };
    let (left, right): (Vec<i32>, Vec<i32>) =
        (tree.exactly("left_child", inner)?, tree.exactly("right_child", inner)?);
    let mut sets = sets(tree, types.iter().any(|kind| kind & CATEGORICAL != 0))?;
    // Inner nodes first, then the leaves, which the file counts downwards from -1.
    let child = |number: i32| if number >= 0 { number as usize } else { inner + !number as usize };
    let node = |i: usize| {
        if i >= inner {
            return Ok(Raw::Leaf(values[i - inner]));
        }
        let feature = features[i];
        if feature >= width {
            return Err(format!("node {i} asks for feature {feature} of {width}"));
        }
        let (kind, threshold) = (types[i], thresholds[i]);
        let default_right = kind & DEFAULT_LEFT == 0;
        let (decide, nan_right) = if kind & CATEGORICAL != 0 {
            let set = crate::document::whole("threshold", Some(threshold))?;
            let set = sets.get_mut(set).and_then(Option::take);
            let set = set.ok_or_else(|| format!("node {i} has no categories of its own"))?;
            (Decide::Members(set), true)
        } else {
            let missing = kind >> 2 & 3;
            let zero_missing = missing == 1;
            // Where nothing is missing, NaN stands for zero.
            let nan_right = if missing == 0 { threshold < 0.0 } else { default_right };
            (Decide::Number { threshold, zero_missing }, nan_right)
        };
        let (left, right) = (child(left[i]), child(right[i]));
        Ok(Raw::Split { feature, decide, nan_right, left, right })
    };
    forest.add(group, inner + leaves, node, |i| leaf(i - inner))
}

/// The sets of categories that a tree's nodes point at.
fn sets(tree: &Part<'_>, any: bool) -> Result<Vec<Option<Members>>, String> {
    if !any {
        return Ok(Vec::new());
    }
    let bounds: Vec<usize> = tree.list("cat_boundaries")?;
    let words: Vec<u32> = tree.list("cat_threshold")?;
    let set = |pair: &[usize]| match words.get(pair[0]..pair[1]) {
        Some(words) => Ok(Some(Members::Bits(words.to_vec()))),
        None => Err(format!("`cat_boundaries` has {} behind {}", pair[1], pair[0])),
    };
    let rising = bounds.windows(2).all(|pair| pair[0] <= pair[1]);
    if !rising {
        return Err("`cat_boundaries` does not rise".to_owned());
    }
    bounds.windows(2).map(set).collect()
}

/// The linear models of a tree's leaves.
fn linear(tree: &Part<'_>, leaves: usize, width: usize) -> Result<Vec<LinearLeaf<f64>>, String> {
    let constants: Vec<f64> = tree.exactly("leaf_const", leaves)?;
    let counts: Vec<usize> = tree.exactly("num_features", leaves)?;
    let total = counts.iter().try_fold(0usize, |sum, count| sum.checked_add(*count));
    let total = total.ok_or("`num_features` is too large")?;
    let features: Vec<u32> = tree.exactly("leaf_features", total)?;
    let factors: Vec<f64> = tree.exactly("leaf_coeff", total)?;
    if let Some(feature) = features.iter().find(|feature| **feature as usize >= width) {
        return Err(format!("a leaf asks for feature {feature} of {width}"));
    }
    let mut terms = features.into_iter().zip(factors);
    let leaf = |(constant, count): (f64, usize)| LinearLeaf {
        constant,
        terms: terms.by_ref().take(count).collect(),
    };
    Ok(constants.into_iter().zip(counts).map(leaf).collect())
}
