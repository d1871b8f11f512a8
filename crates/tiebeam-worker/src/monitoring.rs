//! Metrics as Beam's monitoring infos.

use std::collections::HashMap;

use tiebeam_core::coder::write_varint;
use tiebeam_core::metrics::DistributionValue;
use tiebeam_core::metrics::{MetricKey, MetricValue};
use tiebeam_core::{Error, ErrorKind, Reader, Result};
use tiebeam_exec::{EdgeId, StepStats};
use tiebeam_model::pipeline::MonitoringInfo;
use tiebeam_model::urns::{label, metric, metric_type};

use crate::harness::now;
use crate::lower::Lowered;

/// The namespace of counters that tell what went in and out of each step, by its path: `in|PATH`, `out0|PATH`, and `nanos|PATH` for
/// the time spent in it. Beam's own element counts name PCollections, which engines rename or keep to themselves; users'
/// counters reach the client everywhere.
pub const STEPS: &str = "tiebeam:steps";

/// A counter of [`STEPS`]. Nothing is said of nothing.
pub fn step_count(transform: &str, what: &str, step: &str, count: u64) -> Option<MonitoringInfo> {
    let name = format!("{what}|{step}");
    let labels = [(label::PTRANSFORM, transform), (label::NAMESPACE, STEPS), (label::NAME, name.as_str())];
    (count > 0).then(|| of(metric::USER_SUM_INT64, metric_type::SUM_INT64, &labels, &[saturated(count)]))
}

/// What a bundle has counted.
pub(crate) struct Counted {
    pub(crate) stats: StepStats,
    pub(crate) metrics: Vec<(MetricKey, MetricValue)>,
    /// How far each source was read, by its transform.
    pub(crate) read: Vec<(String, u64)>,
}

/// All of it as messages, in the names of the stage's descriptor.
pub(crate) fn monitoring_infos(lowered: &Lowered, counted: Counted) -> Vec<MonitoringInfo> {
    let mut infos = Vec::new();
    let counts: HashMap<EdgeId, u64> = counted.stats.elements.into_iter().collect();
    for (edge, count) in &counts {
        if let Some(pcollection) = lowered.pcollections.get(edge) {
            infos.push(element_count(pcollection, *count));
        }
    }
    infos.extend(counted.read.iter().map(|(transform, count)| read_index(transform, *count)));
    for (step, nanos) in counted.stats.nanos {
        if let Some(transform) = lowered.transforms.get(&step) {
            infos.push(total_msecs(transform, nanos));
            infos.extend(step_count(transform, "nanos", &step, nanos));
        }
    }
    for node in &lowered.spec.nodes {
        let Some(transform) = lowered.transforms.get(&node.step) else { continue };
        let count = |edge: &EdgeId| counts.get(edge).copied().unwrap_or_default();
        let read = node.inputs.iter().map(count).sum();
        infos.extend(step_count(transform, "in", &node.step, read));
        for (i, edge) in node.outputs.iter().enumerate() {
            infos.extend(step_count(transform, &format!("out{i}"), &node.step, count(edge)));
        }
    }
    let now = now().millis();
    for (key, value) in counted.metrics {
        if let Some(transform) = lowered.transforms.get(&key.step) {
            infos.push(user(transform, &key, &value, now));
        }
    }
    infos
}

/// A counter or gauge of the worker itself, of no transform.
pub(crate) fn of_worker(name: &str, value: &MetricValue, now_millis: i64) -> MonitoringInfo {
    let key = MetricKey { step: "".into(), namespace: "tiebeam:worker".into(), name: name.into() };
    let mut info = user("", &key, value, now_millis);
    info.labels.remove(label::PTRANSFORM);
    info
}

fn of(urn: &str, r#type: &str, labels: &[(&str, &str)], values: &[i64]) -> MonitoringInfo {
    let mut payload = Vec::with_capacity(values.len() * 2);
    for value in values {
        write_varint(*value, &mut payload);
    }
    MonitoringInfo {
        urn: urn.to_owned(),
        r#type: r#type.to_owned(),
        payload: payload.into(),
        labels: labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        start_time: None,
    }
}

/// The number of elements of a PCollection.
pub fn element_count(pcollection: &str, count: u64) -> MonitoringInfo {
    of(
        metric::ELEMENT_COUNT,
        metric_type::SUM_INT64,
        &[(label::PCOLLECTION, pcollection)],
        &[saturated(count)],
    )
}

/// How many elements of a source were read.
pub fn read_index(transform: &str, count: u64) -> MonitoringInfo {
    let labels = [(label::PTRANSFORM, transform)];
    of(metric::DATA_CHANNEL_READ_INDEX, metric_type::SUM_INT64, &labels, &[saturated(count)])
}

/// The time that a transform took, without those it called.
pub fn total_msecs(transform: &str, nanos: u64) -> MonitoringInfo {
    let labels = [(label::PTRANSFORM, transform)];
    of(metric::TOTAL_MSECS, metric_type::SUM_INT64, &labels, &[saturated(nanos / 1_000_000)])
}

/// A user's metric of a transform. A gauge says the time, in milliseconds since 1970, at which it had its value.
pub fn user(transform: &str, key: &MetricKey, value: &MetricValue, now_millis: i64) -> MonitoringInfo {
    let labels =
        [(label::PTRANSFORM, transform), (label::NAMESPACE, &*key.namespace), (label::NAME, &*key.name)];
    match *value {
        MetricValue::Counter(sum) => of(metric::USER_SUM_INT64, metric_type::SUM_INT64, &labels, &[sum]),
        MetricValue::Distribution(d) => of(
            metric::USER_DISTRIBUTION_INT64,
            metric_type::DISTRIBUTION_INT64,
            &labels,
            &[d.count, d.sum, d.min, d.max],
        ),
        MetricValue::Gauge(latest) => {
            of(metric::USER_LATEST_INT64, metric_type::LATEST_INT64, &labels, &[now_millis, latest])
        }
    }
}

/// The value of a user's metric, the other way round; none for metrics of another kind.
///
/// # Errors
/// When the payload is cut off.
pub fn user_value(info: &MonitoringInfo) -> Result<Option<MetricValue>> {
    let mut reader = Reader::new(info.payload.clone());
    let mut next = || {
        reader.varint().map_err(|error| {
            Error::new(
                ErrorKind::InvalidData,
                "TB0550",
                format!("the payload of metric {} is damaged", info.urn),
            )
            .with_source(error)
        })
    };
    Ok(Some(match info.urn.as_str() {
        metric::USER_SUM_INT64 => MetricValue::Counter(next()?),
        metric::USER_DISTRIBUTION_INT64 => MetricValue::Distribution(DistributionValue {
            count: next()?,
            sum: next()?,
            min: next()?,
            max: next()?,
        }),
        metric::USER_LATEST_INT64 => {
            next()?;
            MetricValue::Gauge(next()?)
        }
        _ => return Ok(None),
    }))
}

fn saturated(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> MetricKey {
        MetricKey { step: "Step".into(), namespace: "ns".into(), name: "n".into() }
    }

    #[test]
    fn values_go_out_and_come_back() {
        let distribution = DistributionValue { count: 3, sum: -7, min: -9, max: 300 };
        for value in
            [MetricValue::Counter(-5), MetricValue::Distribution(distribution), MetricValue::Gauge(12)]
        {
            let info = user("t1", &key(), &value, 1_000);
            assert_eq!(info.labels["PTRANSFORM"], "t1");
            assert_eq!((info.labels["NAMESPACE"].as_str(), info.labels["NAME"].as_str()), ("ns", "n"));
            assert_eq!(user_value(&info).unwrap(), Some(value));
        }
    }

    #[test]
    fn payloads_are_beams() {
        // As `apache_beam.metrics.monitoring_infos` writes them.
        assert_eq!(&element_count("p", 300).payload[..], [0xac, 0x02]);
        let distribution = DistributionValue { count: 2, sum: 5, min: 1, max: 4 };
        assert_eq!(&user("t", &key(), &MetricValue::Distribution(distribution), 0).payload[..], [2, 5, 1, 4]);
        assert_eq!(&user("t", &key(), &MetricValue::Gauge(7), 1).payload[..], [1, 7]);
        assert_eq!(&total_msecs("t", 2_999_999).payload[..], [2]);
    }

    #[test]
    fn a_damaged_payload_is_an_error() {
        let mut info = user("t", &key(), &MetricValue::Distribution(DistributionValue::EMPTY), 0);
        info.payload = vec![1, 2].into();
        let error = user_value(&info).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("the payload of metric {} is damaged", metric::USER_DISTRIBUTION_INT64)
        );
        assert_eq!(user_value(&element_count("p", 1)).unwrap(), None);
    }
}
