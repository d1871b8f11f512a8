//! `BertModel`: the encoder of Hugging Face's class of that name, with its weights' names, and the sentence's vector that
//! sentence-transformers make of it.
//!
//! | parameter | default (that of all-MiniLM-L6-v2) |
//! |---|---|
//! | `vocab_size`, `hidden_size`, `num_hidden_layers`, `num_attention_heads`, `intermediate_size` | 30522, 384, 6, 12, 1536 |
//! | `max_position_embeddings`, `type_vocab_size`, `layer_norm_eps` | 512, 2, 1e-12 |
//!
//! It takes `input_ids`, `attention_mask` and `token_type_ids`, int64 \[n, s\], and gives `last_hidden_state` \[n, s, hidden\]
//! and `sentence_embedding` \[n, hidden\]: the mean over the tokens of the mask, of length one.

use tiebeam_core::error::Result;
use tiebeam_core::row::Value as Given;

use crate::architecture::Architecture;
use crate::graph::{Attribute, Dim, ElementType, GraphBuilder, Value};
use crate::modules::{Embedding, LayerNorm, Linear};
use crate::params::{Param, ParamKind, Params};

/// What a token that is masked gets added to its attention: nothing of it is left behind a softmax.
const MASKED: f32 = -1e9;

pub(super) fn architectures() -> Vec<Architecture> {
    let size = |name, default| Param::optional(name, ParamKind::Size, Given::Int64(default));
    vec![
        Architecture::new("BertModel", bert)
            .with_param(size("vocab_size", 30_522))
            .with_param(size("hidden_size", 384))
            .with_param(size("num_hidden_layers", 6))
            .with_param(size("num_attention_heads", 12))
            .with_param(size("intermediate_size", 1_536))
            .with_param(size("max_position_embeddings", 512))
            .with_param(size("type_vocab_size", 2))
            .with_param(Param::optional("layer_norm_eps", ParamKind::Number, Given::Double(1e-12))),
    ]
}

/// The sizes of an encoder.
struct Sizes {
    hidden: usize,
    heads: usize,
    inner: usize,
    epsilon: f32,
}

fn bert(params: &Params, g: &mut GraphBuilder<'_>) -> Result<()> {
    let sizes = Sizes {
        hidden: params.size("hidden_size")?,
        heads: params.size("num_attention_heads")?,
        inner: params.size("intermediate_size")?,
        epsilon: params.number("layer_norm_eps")? as f32,
    };
    if sizes.heads == 0 || !sizes.hidden.is_multiple_of(sizes.heads) {
        return Err(g.wrong(format!("{} heads do not divide a width of {}", sizes.heads, sizes.hidden)));
    }
    let tokens = [Dim::Named("n"), Dim::Named("s")];
    let ids = g.input("input_ids", ElementType::I64, &tokens);
    let mask = g.input("attention_mask", ElementType::I64, &tokens);
    let types = g.input("token_type_ids", ElementType::I64, &tokens);
    // What training kept or added is not used: Hugging Face's buffer of positions, and the pooler of the first token.
    for unused in ["embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias"] {
        g.unused(unused);
    }
    let mask = g.node("Cast", &[&mask], &[("to", Attribute::Int(1))], ElementType::F32, tokens.to_vec());
    let mut x = embeddings(params, g, &sizes, &ids, &types)?;
    let bias = attention_bias(g, &mask)?;
    for layer in 0..params.size("num_hidden_layers")? {
        x = g.scope(&format!("encoder.layer.{layer}"), |g| encoder_layer(g, &sizes, &x, &bias))?;
    }
    g.output("last_hidden_state", &x);
    let sentence = pooled(g, &x, &mask)?;
    g.output("sentence_embedding", &sentence);
    Ok(())
}

fn embeddings(
    params: &Params,
    g: &mut GraphBuilder<'_>,
    sizes: &Sizes,
    ids: &Value,
    types: &Value,
) -> Result<Value> {
    let positions = params.size("max_position_embeddings")?;
    g.scope("embeddings", |g| {
        let words = Embedding::new(params.size("vocab_size")?, sizes.hidden);
        let words = g.apply("word_embeddings", &words, ids)?;
        let kinds = Embedding::new(params.size("type_vocab_size")?, sizes.hidden);
        let kinds = g.apply("token_type_embeddings", &kinds, types)?;
        // The first rows, as many as there are tokens.
        let table = g.parameter("position_embeddings.weight", &[positions, sizes.hidden]);
        let shape = g.node("Shape", &[ids], &[], ElementType::I64, vec![Dim::Fixed(2)]);
        let (one, start) = (g.constant_i64(&[1], &[1])?, g.constant_i64(&[1], &[0])?);
        let length = g.node("Gather", &[&shape, &one], &[], ElementType::I64, vec![Dim::Fixed(1)]);
        let places = vec![Dim::Named("s"), Dim::Fixed(sizes.hidden)];
        let places = g.node("Slice", &[&table, &start, &length, &start], &[], ElementType::F32, places);
        let sum = g.add(&words, &kinds)?;
        let sum = g.add(&sum, &places)?;
        g.apply("LayerNorm", &LayerNorm::new(&[sizes.hidden]).epsilon(sizes.epsilon), &sum)
    })
}

/// What is added to the attention that tokens get: nothing, or so little that nothing is left. \[n, 1, 1, s\]
fn attention_bias(g: &mut GraphBuilder<'_>, mask: &Value) -> Result<Value> {
    let (one, low) = (g.constant(&[], &[1.0])?, g.constant(&[], &[MASKED])?);
    let gone = g.sub(&one, mask)?;
    let bias = g.mul(&gone, &low)?;
    let axes = g.constant_i64(&[2], &[1, 2])?;
    let shape = vec![Dim::Named("n"), Dim::Fixed(1), Dim::Fixed(1), Dim::Named("s")];
    Ok(g.node("Unsqueeze", &[&bias, &axes], &[], ElementType::F32, shape))
}

fn encoder_layer(g: &mut GraphBuilder<'_>, sizes: &Sizes, x: &Value, bias: &Value) -> Result<Value> {
    let (width, heads) = (sizes.hidden, sizes.heads);
    let norm = LayerNorm::new(&[width]).epsilon(sizes.epsilon);
    let mixed = g.scope("attention.self", |g| {
        let mut split = |name: &str, order: &[usize]| -> Result<Value> {
            let all = g.apply(name, &Linear::new(width, width), x)?;
            let parts = g.reshape(&all, &[0, 0, heads as i64, (width / heads) as i64])?;
            g.permute(&parts, order)
        };
        let query = split("query", &[0, 2, 1, 3])?;
        let key = split("key", &[0, 2, 3, 1])?;
        let value = split("value", &[0, 2, 1, 3])?;
        let scores = g.matmul(&query, &key)?;
        let scale = g.constant(&[], &[1.0 / ((width / heads) as f32).sqrt()])?;
        let scores = g.mul(&scores, &scale)?;
        let scores = g.add(&scores, bias)?;
        let shares = g.softmax(&scores, -1)?;
        let mixed = g.matmul(&shares, &value)?;
        let mixed = g.permute(&mixed, &[0, 2, 1, 3])?;
        g.reshape(&mixed, &[0, 0, width as i64])
    })?;
    let x = g.scope("attention.output", |g| {
        let mixed = g.apply("dense", &Linear::new(width, width), &mixed)?;
        let sum = g.add(&mixed, x)?;
        g.apply("LayerNorm", &norm, &sum)
    })?;
    let inner = g.apply("intermediate.dense", &Linear::new(width, sizes.inner), &x)?;
    let inner = g.gelu(&inner)?;
    g.scope("output", |g| {
        let outer = g.apply("dense", &Linear::new(sizes.inner, width), &inner)?;
        let sum = g.add(&outer, &x)?;
        g.apply("LayerNorm", &norm, &sum)
    })
}

/// The mean over the tokens of the mask, brought to length one.
fn pooled(g: &mut GraphBuilder<'_>, x: &Value, mask: &Value) -> Result<Value> {
    let last = g.constant_i64(&[1], &[-1])?;
    let weights = vec![Dim::Named("n"), Dim::Named("s"), Dim::Fixed(1)];
    let weights = g.node("Unsqueeze", &[mask, &last], &[], ElementType::F32, weights);
    let weighed = g.mul(x, &weights)?;
    let axis = g.constant_i64(&[1], &[1])?;
    let keep = [("keepdims", Attribute::Int(0))];
    let sums = vec![Dim::Named("n"), x.shape()[2]];
    let sums = g.node("ReduceSum", &[&weighed, &axis], &keep, ElementType::F32, sums);
    let one = vec![Dim::Named("n"), Dim::Fixed(1)];
    let counts = g.node("ReduceSum", &[&weights, &axis], &keep, ElementType::F32, one.clone());
    let least = g.constant(&[], &[1e-9])?;
    let counts = g.node("Max", &[&counts, &least], &[], ElementType::F32, one.clone());
    let mean = g.div(&sums, &counts)?;
    let squares = g.mul(&mean, &mean)?;
    let keep = [("keepdims", Attribute::Int(1))];
    let squares = g.node("ReduceSum", &[&squares, &axis], &keep, ElementType::F32, one.clone());
    let length = g.node("Sqrt", &[&squares], &[], ElementType::F32, one.clone());
    let least = g.constant(&[], &[1e-12])?;
    let length = g.node("Max", &[&length, &least], &[], ElementType::F32, one);
    g.div(&mean, &length)
}
