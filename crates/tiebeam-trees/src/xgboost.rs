//! XGBoost's models, from their JSON or UBJSON document.

use crate::categories;
use crate::document::{Node, whole};
use crate::forest::{Decide, Forest, Members, Raw, TOO_LARGE, Xgboost};
use crate::link::Link;
use crate::model::{Body, Feature, FeatureKind, Features, Read, Refusal, UnknownCategory};

/// How many outputs a model may have.
pub(crate) const MOST_OUTPUTS: usize = 1 << 14;

impl From<String> for Refusal {
    fn from(what: String) -> Self {
        Refusal::Damaged(what)
    }
}

impl From<&str> for Refusal {
    fn from(what: &str) -> Self {
        Refusal::Damaged(what.to_owned())
    }
}

/// What a document says of a model. `all` takes the trees behind the best iteration, too.
pub(crate) fn read(document: &Node, all: bool) -> Result<Read, Refusal> {
    let Some(learner) = document.get("learner") else { return Err(other_document(document)) };
    let param = learner.need("learner_model_param")?;
    let mut features = features(learner, param.count("num_feature")?)?;
    let objective = learner.need("objective")?;
    let name = objective.need("name")?.text().ok_or("the objective's name is no text")?;
    let (link, base_link) = links(name)?;
    let groups = groups(param)?;
    let base = base_margins(param, groups, base_link)?;
    let booster = learner.need("gradient_booster")?;
    let kind = booster.need("name")?.text().ok_or("the booster's name is no text")?;
    let body = match kind {
        "gbtree" => {
            let model = booster.need("model")?;
            categories::read(document, model, &mut features)?;
            forest(learner, model, None, &features, groups, all)?
        }
        "dart" => {
            let model = booster.need("gbtree")?.need("model")?;
            let weights = booster.array("weight_drop")?;
            categories::read(document, model, &mut features)?;
            forest(learner, model, Some(weights), &features, groups, all)?
        }
        "gblinear" => linear(booster.need("model")?, features.count, groups)?,
        other => return Err(Refusal::Unsupported(format!("booster `{other}`"))),
    };
    let body = match body {
        Trees::Forest(forest) => Body::Xgboost { forest, base },
        Trees::Linear(weights) => Body::Linear { weights, base },
    };
    Ok(Read { body, features, link, objective: name.to_owned() })
}

/// What a JSON file is that is no model.
fn other_document(document: &Node) -> Refusal {
    if document.get("tree_info").is_some() {
        return Refusal::Foreign(
            "LightGBM's dump_model, which can't be loaded: write the model with save_model".to_owned(),
        );
    }
    let dumped =
        |node: &Node| node.list().and_then(<[Node]>::first).is_some_and(|tree| tree.get("nodeid").is_some());
    if dumped(document) {
        return Refusal::Foreign(
            "XGBoost's dump_model, which lacks the objective: write the model with save_model".to_owned(),
        );
    }
    Refusal::Foreign("a document without a `learner`".to_owned())
}

/// What `predict` makes of scores, and what `base_score` is of a score.
fn links(objective: &str) -> Result<(Link, Link), Refusal> {
    let sigmoid = Link::Sigmoid(1.0);
    Ok(match objective {
        "reg:squarederror"
        | "reg:linear"
        | "reg:squaredlogerror"
        | "reg:pseudohubererror"
        | "reg:absoluteerror"
        | "reg:quantileerror"
        | "reg:expectileerror" => (Link::Identity, Link::Identity),
        "rank:pairwise" | "rank:ndcg" | "rank:map" => (Link::Identity, Link::Identity),
        "reg:logistic" | "binary:logistic" => (sigmoid, sigmoid),
        "binary:logitraw" => (Link::Identity, Link::Identity),
        "binary:hinge" => (Link::Hinge, Link::Identity),
        "count:poisson" | "reg:gamma" | "reg:tweedie" | "survival:cox" | "survival:aft" => {
            (Link::Exp, Link::Exp)
        }
        "multi:softprob" => (Link::Softmax, Link::Identity),
        "multi:softmax" => (Link::Argmax, Link::Identity),
        other => return Err(Refusal::Unsupported(format!("objective `{other}`"))),
    })
}

fn groups(param: &Node) -> Result<usize, Refusal> {
    let classes = param.count("num_class")?;
    let targets = param.get("num_target").map_or(Ok(1), |node| whole("num_target", node.number()))?;
    let groups = classes.max(targets).max(1);
    if groups > MOST_OUTPUTS {
        return Err(format!("{groups} outputs").into());
    }
    Ok(groups)
}

/// `base_score` as scores: one number, or (from 3.1 on) a list in a text.
fn base_margins(param: &Node, groups: usize, link: Link) -> Result<Vec<f32>, Refusal> {
    let node = param.need("base_score")?;
    let numbers: Option<Vec<f32>> = match node {
        Node::Text(text) => {
            let inner = text.trim().trim_start_matches('[').trim_end_matches(']');
            inner.split(',').map(|number| number.trim().parse().ok()).collect()
        }
        Node::Number(number) => Some(vec![*number as f32]),
        Node::Numbers(numbers) => Some(numbers.iter().map(|number| *number as f32).collect()),
        _ => None,
    };
    let mut numbers = numbers.ok_or("`base_score` is no number")?;
    if numbers.len() == 1 {
        numbers = vec![numbers[0]; groups];
    }
    if numbers.len() != groups {
        return Err(format!("`base_score` has {} numbers for {groups} outputs", numbers.len()).into());
    }
    for number in &mut numbers {
        *number = match link {
            Link::Sigmoid(_) => -(1.0 / *number - 1.0).ln(),
            Link::Exp => number.ln(),
            _ => *number,
        };
        if !number.is_finite() {
            return Err("`base_score` is none that the objective can have".into());
        }
    }
    Ok(numbers)
}

fn features(learner: &Node, count: usize) -> Result<Features, Refusal> {
    let list = |key: &str| match learner.get(key).and_then(Node::list) {
        Some(list) if list.len() == count => Ok(Some(list)),
        None | Some([]) => Ok(None),
        Some(list) => Err(Refusal::from(format!("`{key}` has {} entries for {count} features", list.len()))),
    };
    let (names, types) = (list("feature_names")?, list("feature_types")?);
    let kind = |i: usize| match types.and_then(|types| types[i].text()) {
        Some("c") => FeatureKind::Categorical,
        _ => FeatureKind::Numerical,
    };
    let listed = match (names, types) {
        (None, None) => None,
        _ => Some(
            (0..count)
                .map(|i| {
                    let name = names.and_then(|names| names[i].text());
                    let name = name.map_or_else(|| format!("f{i}").into(), Into::into);
                    Feature { name, kind: kind(i), categories: None, unknown: UnknownCategory::Refused }
                })
                .collect(),
        ),
    };
    Ok(Features { count, listed, prefix: "f" })
}

enum Trees {
    Forest(Forest<Xgboost>),
    Linear(Vec<f32>),
}

fn linear(model: &Node, features: usize, groups: usize) -> Result<Trees, Refusal> {
    let weights = model.array("weights")?;
    let wanted = features.checked_add(1).and_then(|n| n.checked_mul(groups));
    if wanted != Some(weights.len()) {
        let what = format!("{} weights for {features} features and {groups} outputs", weights.len());
        return Err(what.into());
    }
    if weights.iter().any(|weight| !weight.is_finite()) {
        return Err("a weight that is no number".into());
    }
    Ok(Trees::Linear(weights.iter().map(|weight| *weight as f32).collect()))
}

/// How many trees `predict` of XGBoost's scikit-learn interface takes: those up to the best iteration, if there is one.
fn trees_taken(learner: &Node, model: &Node, trees: usize, groups: usize) -> Result<usize, Refusal> {
    let best = learner.get("attributes").and_then(|attributes| attributes.get("best_iteration"));
    let Some(best) = best else { return Ok(trees) };
    let best = whole("best_iteration", best.number())?;
    let taken = match model.get("iteration_indptr").and_then(Node::numbers) {
        Some(bounds) => match bounds.get(best + 1) {
            Some(bound) => whole("iteration_indptr", Some(*bound))?,
            None => trees,
        },
        None => {
            let param = model.need("gbtree_model_param")?;
            let parallel = param.get("num_parallel_tree").and_then(Node::number);
            let parallel = parallel.map_or(Ok(1), |number| whole("num_parallel_tree", Some(number)))?.max(1);
            (best + 1).saturating_mul(parallel).saturating_mul(groups)
        }
    };
    Ok(taken.min(trees))
}

fn forest(
    learner: &Node,
    model: &Node,
    weights: Option<&[f64]>,
    features: &Features,
    groups: usize,
    all: bool,
) -> Result<Trees, Refusal> {
    let trees = model.need("trees")?.list().ok_or("`trees` is no list")?;
    let info = model.array("tree_info")?;
    let declared = model.need("gbtree_model_param")?.count("num_trees")?;
    if trees.len() != declared || info.len() != declared {
        let what = format!(
            "`num_trees` says {declared}, there are {} trees and {} entries in `tree_info`",
            trees.len(),
            info.len()
        );
        return Err(what.into());
    }
    if let Some(weights) = weights
        && weights.len() != declared
    {
        return Err(format!("{} weights for {declared} trees", weights.len()).into());
    }
    let taken = if all { trees.len() } else { trees_taken(learner, model, trees.len(), groups)? };
    let mut forest = Forest::new(groups);
    for (number, tree) in trees.iter().enumerate().take(taken) {
        let within = |what: String| format!("tree {number}: {what}");
        let group = whole("tree_info", Some(info[number])).map_err(within)?;
        if group >= groups {
            return Err(format!("tree {number}: output {group} of {groups}").into());
        }
        let weight = weights.map_or(1.0, |weights| weights[number] as f32);
        let leaves = tree.get("tree_param").and_then(|param| param.get("size_leaf_vector"));
        if leaves.and_then(Node::number).is_some_and(|size| size > 1.0) {
            let what = "trees whose leaves are vectors (`multi_strategy` `multi_output_tree`)";
            return Err(Refusal::Unsupported(what.to_owned()));
        }
        add(&mut forest, tree, group, weight, features.count).map_err(within)?;
    }
    forest.finish();
    Ok(Trees::Forest(forest))
}

/// Adds one tree.
fn add(
    forest: &mut Forest<Xgboost>,
    tree: &Node,
    group: usize,
    weight: f32,
    features: usize,
) -> Result<(), String> {
    let left = tree.array("left_children")?;
    let count = left.len();
    let array = |key: &str| match tree.array(key) {
        Ok(array) if array.len() == count => Ok(array),
        Ok(array) => Err(format!("`{key}` has {} entries for {count} nodes", array.len())),
        Err(error) => Err(error),
    };
    let (right, indices) = (array("right_children")?, array("split_indices")?);
    let conditions = array("split_conditions")?;
    let default_left = flags(tree, "default_left", count)?;
    let types = match tree.get("split_type") {
        None => None,
        Some(_) => Some(array("split_type")?),
    };
    let mut sets = if types.is_some() { sets(tree, count)? } else { Vec::new() };
    let node = |i: usize| {
        let condition = conditions[i] as f32;
        if left[i] == -1.0 {
            return Ok(Raw::Leaf(weight * condition));
        }
        let feature = whole("split_indices", Some(indices[i]))?;
        if feature >= features {
            return Err(format!("node {i} asks for feature {feature} of {features}"));
        }
        let decide = match types.map_or(0.0, |types| types[i]) {
            0.0 => Decide::Number { threshold: condition, zero_missing: false },
            1.0 => {
                let at = sets.binary_search_by_key(&i, |(node, _)| *node);
                let at = at.map_err(|_| format!("node {i} has no categories"))?;
                Decide::Members(std::mem::replace(&mut sets[at].1, Members::Sorted(Vec::new())))
            }
            other => return Err(format!("node {i} is of the unknown type {other}")),
        };
        Ok(Raw::Split {
            feature,
            decide,
            nan_right: !default_left(i),
            left: whole("left_children", Some(left[i]))?,
            right: whole("right_children", Some(right[i]))?,
        })
    };
    forest.add(group, count, node, |_| None)
}

/// A list of flags, as numbers or as truth values (before 1.6).
fn flags<'a>(tree: &'a Node, key: &str, count: usize) -> Result<impl Fn(usize) -> bool + 'a, String> {
    let node = tree.need(key)?;
    let length = node.numbers().map(<[f64]>::len).or(node.list().map(<[Node]>::len));
    if length != Some(count) {
        return Err(format!("`{key}` has not {count} entries"));
    }
    Ok(move |i: usize| match node {
        Node::Numbers(numbers) => numbers[i] != 0.0,
        Node::List(list) => list[i] == Node::Bool(true),
        _ => false,
    })
}

/// The categories of the nodes that have some, by node.
fn sets(tree: &Node, count: usize) -> Result<Vec<(usize, Members)>, String> {
    let (nodes, all) = (tree.array("categories_nodes")?, tree.array("categories")?);
    let (starts, sizes) = (tree.array("categories_segments")?, tree.array("categories_sizes")?);
    if starts.len() != nodes.len() || sizes.len() != nodes.len() {
        return Err(
            "`categories_nodes`, `categories_segments` and `categories_sizes` differ in length".to_owned()
        );
    }
    // Segments lie behind each other; without this, many nodes could share one long list.
    let mut free = 0;
    let mut sets = Vec::with_capacity(nodes.len());
    for ((node, start), size) in nodes.iter().zip(starts).zip(sizes) {
        let node = whole("categories_nodes", Some(*node))?;
        let start = whole("categories_segments", Some(*start))?;
        let size = whole("categories_sizes", Some(*size))?;
        let list = all.get(start..start.saturating_add(size)).filter(|_| start >= free && node < count);
        let list =
            list.ok_or_else(|| format!("the categories of node {node} are not where they should be"))?;
        free = start + size;
        sets.push((node, members(list)?));
    }
    sets.sort_unstable_by_key(|(node, _)| *node);
    if sets.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        return Err("a node has its categories twice".to_owned());
    }
    Ok(sets)
}

/// Categories as bits where that takes little room, else as a list.
fn members(list: &[f64]) -> Result<Members, String> {
    let category = |number: &f64| match whole("categories", Some(*number)) {
        Ok(category) if category < TOO_LARGE as usize => Ok(category as u32),
        _ => Err(format!("{number} is no category")),
    };
    let mut categories = list.iter().map(category).collect::<Result<Vec<u32>, String>>()?;
    let words = categories.iter().max().map_or(0, |most| *most as usize / 32 + 1);
    if words > categories.len() * 4 + 8 {
        categories.sort_unstable();
        return Ok(Members::Sorted(categories));
    }
    let mut bits = vec![0u32; words];
    for category in categories {
        bits[category as usize / 32] |= 1 << (category % 32);
    }
    Ok(Members::Bits(bits))
}
