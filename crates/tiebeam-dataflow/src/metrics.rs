//! What Dataflow counted, as the metrics that our report reads.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;
use tiebeam_core::metrics::{DistributionValue, MetricKey, MetricValue};
use tiebeam_model::pipeline::MonitoringInfo;
use tiebeam_worker::monitoring;

/// The users' metrics among an answer's `metrics`. What is committed counts; where nothing is yet, what was tried.
///
/// `names` are the paths of the pipeline's steps by the ids of its transforms.
pub(crate) fn monitoring_infos(
    metrics: &[Value],
    names: &BTreeMap<String, String>,
    now: Duration,
) -> Vec<MonitoringInfo> {
    let mut found: BTreeMap<(String, String, String), (bool, MetricValue)> = BTreeMap::new();
    let mut distributions: BTreeSet<(String, String, String)> = BTreeSet::new();
    for metric in metrics.iter().filter(|metric| metric["name"]["origin"] == "user") {
        let name = &metric["name"];
        let context = |key: &str| name["context"][key].as_str().unwrap_or_default();
        let step = names.get(context("step")).map_or_else(|| context("step").to_owned(), Clone::clone);
        let (Some(value), Some(own)) = (value(metric), name["name"].as_str()) else { continue };
        let key = (step, context("namespace").to_owned(), own.to_owned());
        if matches!(value, MetricValue::Distribution(_)) {
            distributions.insert(key.clone());
        }
        let is_tried = context("tentative") == "true";
        match found.get(&key) {
            Some((known_is_tried, _)) if is_tried && !known_is_tried => {}
            _ => {
                found.insert(key, (is_tried, value));
            }
        }
    }
    let now = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
    let infos = found.into_iter().filter(|(key, _)| !is_part(key, &distributions));
    infos
        .map(|((step, namespace, name), (_, value))| {
            let key =
                MetricKey { step: step.as_str().into(), namespace: namespace.into(), name: name.into() };
            monitoring::user(&step, &key, &value, now)
        })
        .collect()
}

/// Whether it is a piece of a distribution: the service shows each one a second time, as four numbers.
fn is_part(key: &(String, String, String), distributions: &BTreeSet<(String, String, String)>) -> bool {
    ["_MIN", "_MAX", "_MEAN", "_COUNT"].iter().any(|end| {
        key.2
            .strip_suffix(end)
            .is_some_and(|whole| distributions.contains(&(key.0.clone(), key.1.clone(), whole.to_owned())))
    })
}

fn value(metric: &Value) -> Option<MetricValue> {
    if let Some(sum) = number(&metric["scalar"]) {
        return Some(MetricValue::Counter(sum));
    }
    let distribution = &metric["distribution"];
    if distribution.is_object() {
        let of = |name: &str| number(&distribution[name]);
        return Some(MetricValue::Distribution(DistributionValue {
            count: of("count")?,
            sum: of("sum")?,
            min: of("min")?,
            max: of("max")?,
        }));
    }
    number(&metric["gauge"]["value"]).map(MetricValue::Gauge)
}

/// A whole number in any form that JSON has: numbers, floats without a fraction, and texts, which Google's 64-bit ones are.
fn number(value: &Value) -> Option<i64> {
    let float = |float: f64| (float.is_finite() && float.abs() < 9.2e18).then_some(float as i64);
    match value {
        Value::Number(number) => number.as_i64().or_else(|| float(number.as_f64()?)),
        Value::String(text) => text.parse().ok().or_else(|| float(text.parse().ok()?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(metrics: &[Value]) -> Vec<(String, String, MetricValue)> {
        let names = BTreeMap::from([("s1".to_owned(), "Path/Of".to_owned())]);
        monitoring_infos(metrics, &names, Duration::from_millis(7))
            .iter()
            .map(|info| {
                let value = monitoring::user_value(info).unwrap().unwrap();
                (info.labels["PTRANSFORM"].clone(), info.labels["NAME"].clone(), value)
            })
            .collect()
    }

    fn metric(name: &str, tentative: bool, kind: &str, value: Value) -> Value {
        let mut context = json!({"step": "s1", "namespace": "n"});
        if tentative {
            context["tentative"] = json!("true");
        }
        json!({"name": {"origin": "user", "name": name, "context": context}, kind: value})
    }

    #[test]
    fn what_is_committed_counts_before_what_was_tried_in_either_order() {
        for flip in [false, true] {
            let mut all =
                vec![metric("a", true, "scalar", json!(9)), metric("a", false, "scalar", json!(7.0))];
            if flip {
                all.reverse();
            }
            all.push(metric("b", true, "scalar", json!("3")));
            let step = || "Path/Of".to_owned();
            assert_eq!(
                of(&all),
                [
                    (step(), "a".to_owned(), MetricValue::Counter(7)),
                    (step(), "b".to_owned(), MetricValue::Counter(3))
                ]
            );
        }
    }

    #[test]
    fn a_distribution_is_told_once() {
        let all = [
            metric(
                "d",
                false,
                "distribution",
                json!({"count": 2, "sum": "30", "min": 10.0, "max": 20, "mean": 15}),
            ),
            metric("d_COUNT", false, "scalar", json!(2)),
            metric("d_MEAN", false, "scalar", json!(15)),
            metric("other_COUNT", false, "scalar", json!(5)),
        ];
        let d = DistributionValue { count: 2, sum: 30, min: 10, max: 20 };
        let told: Vec<_> = of(&all).into_iter().map(|(_, name, value)| (name, value)).collect();
        assert_eq!(
            told,
            [
                ("d".to_owned(), MetricValue::Distribution(d)),
                ("other_COUNT".to_owned(), MetricValue::Counter(5))
            ]
        );
    }

    #[test]
    fn what_is_no_users_number_is_left_out() {
        let all = [
            json!({}),
            json!({"name": {"origin": "dataflow/v1b3", "name": "ElementCount"}, "scalar": 4}),
            json!({"name": {"origin": "user"}, "scalar": 4}),
            metric("a", false, "scalar", json!({"x": 1})),
            metric("b", false, "scalar", json!("many")),
            metric("c", false, "distribution", json!({"count": 1})),
            metric("d", false, "scalar", json!(1e300)),
        ];
        assert_eq!(of(&all), []);
    }
}
