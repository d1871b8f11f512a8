//! `LinearRegression` and `MLP`.
//!
//! | name | parameters | weights |
//! |---|---|---|
//! | `LinearRegression` | `input_dim`, `output_dim` (1) | `linear.weight`, `linear.bias` |
//! | `MLP` | `input_dim`, `hidden` or `hidden_dims` (a list), `output_dim` (1), `activation` (`relu`, `tanh`, `sigmoid`, `gelu` or `silu`) | `layers.0.weight`, `layers.0.bias`, `layers.2.weight`, …: `self.layers = nn.Sequential(nn.Linear, nn.ReLU, nn.Linear, …)` |
//!
//! Both take `x` float32 \[n, input_dim\] and give `y` \[n, output_dim\].

use tiebeam_core::error::Result;
use tiebeam_core::row::Value as Given;

use crate::architecture::Architecture;
use crate::graph::{Dim, ElementType, GraphBuilder};
use crate::modules::{GELU, Linear, ReLU, Sequential, SiLU, Sigmoid, Tanh};
use crate::params::{Param, ParamKind, Params};

const ACTIVATIONS: &[&str] = &["relu", "tanh", "sigmoid", "gelu", "silu"];

pub(super) fn architectures() -> Vec<Architecture> {
    let input = Param::required("input_dim", ParamKind::Size);
    let output = Param::optional("output_dim", ParamKind::Size, Given::Int64(1));
    vec![
        Architecture::new("LinearRegression", linear_regression)
            .with_param(input.clone())
            .with_param(output.clone()),
        Architecture::new("MLP", mlp)
            .with_param(input)
            .with_param(Param::required("hidden", ParamKind::Sizes).or_named("hidden_dims"))
            .with_param(output)
            .with_param(Param::optional(
                "activation",
                ParamKind::Choice(ACTIVATIONS),
                Given::String("relu".into()),
            )),
    ]
}

fn linear_regression(params: &Params, g: &mut GraphBuilder<'_>) -> Result<()> {
    let (inputs, outputs) = (params.size("input_dim")?, params.size("output_dim")?);
    let x = g.input("x", ElementType::F32, &[Dim::Named("n"), Dim::Fixed(inputs)]);
    let y = g.apply("linear", &Linear::new(inputs, outputs), &x)?;
    g.output("y", &y);
    Ok(())
}

fn mlp(params: &Params, g: &mut GraphBuilder<'_>) -> Result<()> {
    let inputs = params.size("input_dim")?;
    let activation = params.choice("activation")?;
    let mut layers = Sequential::new();
    let mut width = inputs;
    for next in params.sizes("hidden")? {
        layers = layers.with(Linear::new(width, next));
        layers = match &*activation {
            "tanh" => layers.with(Tanh),
            "sigmoid" => layers.with(Sigmoid),
            "gelu" => layers.with(GELU::new()),
            "silu" => layers.with(SiLU),
            _ => layers.with(ReLU),
        };
        width = next;
    }
    layers = layers.with(Linear::new(width, params.size("output_dim")?));
    let x = g.input("x", ElementType::F32, &[Dim::Named("n"), Dim::Fixed(inputs)]);
    let y = g.apply("layers", &layers, &x)?;
    g.output("y", &y);
    Ok(())
}
