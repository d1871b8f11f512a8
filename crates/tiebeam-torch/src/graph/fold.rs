//! Puts the numbers of a batch normalisation into the convolution before it, where nothing else sees that one's result.

use std::collections::HashMap;

use tiebeam_onnx::proto::{GraphProto, NodeProto, TensorProto};

use super::numbers;

/// Folds every BatchNormalization that directly follows a Conv of constant weights.
pub(super) fn batch_norms(graph: &mut GraphProto) {
    let mut uses: HashMap<String, usize> = HashMap::new();
    for name in graph.node.iter().flat_map(|node| &node.input) {
        *uses.entry(name.clone()).or_default() += 1;
    }
    let made: HashMap<String, usize> =
        graph.node.iter().enumerate().map(|(i, node)| (node.output[0].clone(), i)).collect();
    let constants: HashMap<String, usize> =
        graph.initializer.iter().enumerate().map(|(i, tensor)| (tensor.name.clone(), i)).collect();
    let mut gone = Vec::new();
    for at in 0..graph.node.len() {
        let norm = &graph.node[at];
        if norm.op_type != "BatchNormalization" {
            continue;
        }
        let conv = norm.input.first().and_then(|x| made.get(x).filter(|_| uses.get(x) == Some(&1)).copied());
        let Some(conv) = conv.filter(|conv| graph.node[*conv].op_type == "Conv") else { continue };
        let Some((weight, bias)) = folded(graph, &constants, &graph.node[conv], norm) else { continue };
        let output = graph.node[at].output.clone();
        let node = &mut graph.node[conv];
        node.input.truncate(1);
        node.input.extend([weight.name.clone(), bias.name.clone()]);
        node.output = output;
        graph.initializer.extend([weight, bias]);
        gone.push(at);
    }
    let mut at = 0;
    graph.node.retain(|_| {
        at += 1;
        gone.binary_search(&(at - 1)).is_err()
    });
    // The weights that only those nodes used are not carried along.
    let used: std::collections::HashSet<&str> =
        graph.node.iter().flat_map(|node| &node.input).map(String::as_str).collect();
    graph.initializer.retain(|tensor| used.contains(tensor.name.as_str()));
}

/// The weight and bias of the convolution with the normalisation in it.
fn folded(
    graph: &GraphProto,
    constants: &HashMap<String, usize>,
    conv: &NodeProto,
    norm: &NodeProto,
) -> Option<(TensorProto, TensorProto)> {
    let constant = |name: &String| -> Option<&TensorProto> { graph.initializer.get(*constants.get(name)?) };
    let values = |name: &String| -> Option<Vec<f32>> { Some(numbers(constant(name)?.raw_data.as_ref()?)) };
    let [_, gamma, beta, mean, variance] = norm.input.as_slice() else { return None };
    let (gamma, beta, mean, variance) = (values(gamma)?, values(beta)?, values(mean)?, values(variance)?);
    let epsilon = f64::from(norm.attribute.iter().find(|a| a.name == "epsilon").and_then(|a| a.f)?);
    let weight = constant(conv.input.get(1)?)?;
    let channels = gamma.len();
    let bias = match conv.input.get(2) {
        Some(name) => values(name)?,
        None => vec![0.0; channels],
    };
    let mut kernel = values(&weight.name)?;
    if channels == 0 || bias.len() != channels || !kernel.len().is_multiple_of(channels) {
        return None;
    }
    let each = kernel.len() / channels;
    let mut shifts = Vec::with_capacity(channels);
    for channel in 0..channels {
        // In double precision, so that folding costs one rounding and not three.
        let scale = f64::from(gamma[channel]) / (f64::from(variance[channel]) + epsilon).sqrt();
        for x in &mut kernel[channel * each..(channel + 1) * each] {
            *x = (f64::from(*x) * scale) as f32;
        }
        let shift = (f64::from(bias[channel]) - f64::from(mean[channel])) * scale + f64::from(beta[channel]);
        shifts.push(shift as f32);
    }
    let tensor = |what: &str, dims: Vec<i64>, values: Vec<f32>| TensorProto {
        name: format!("{}/{what}", norm.output[0]),
        data_type: weight.data_type,
        dims,
        raw_data: Some(values.into_iter().flat_map(f32::to_le_bytes).collect::<Vec<u8>>().into()),
        ..TensorProto::default()
    };
    Some((tensor("weight", weight.dims.clone(), kernel), tensor("bias", vec![channels as i64], shifts)))
}
