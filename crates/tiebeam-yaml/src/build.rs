//! From the plan to the graph.

use std::collections::HashMap;
use std::sync::Arc;

use tiebeam_core::coder::row_coder;
use tiebeam_core::row::{Row, Schema};
use tiebeam_core::{DoFn, ElementContext, Output, Result, WindowingStrategy};
use tiebeam_graph::{Arity, PCollection, PTransform, ParDo, Pipeline};

use crate::plan::{Planned, PlannedStep, Work};
use crate::source::Span;

/// Builds what was planned into `pipeline`; gives the place in the file of each label, by full path.
pub fn build(planned: Planned, collections: usize, pipeline: &Pipeline) -> HashMap<String, Span> {
    let mut builder =
        Builder { pipeline, made: (0..collections).map(|_| None).collect(), places: HashMap::new() };
    builder.scope(planned, "");
    builder.places
}

struct Builder<'a> {
    pipeline: &'a Pipeline,
    made: Vec<Option<PCollection<Row>>>,
    places: HashMap<String, Span>,
}

impl Builder<'_> {
    fn scope(&mut self, planned: Planned, path: &str) {
        for step in planned.steps {
            let PlannedStep { label, span, hints, work } = step;
            let path = if path.is_empty() { label.to_string() } else { format!("{path}/{label}") };
            self.places.insert(path.clone(), span);
            let pipeline = self.pipeline.clone();
            pipeline.with_resource_hints(hints, || {
                pipeline.in_scope(Some(&label), &label, || self.work(work, &path));
            });
        }
    }

    fn work(&mut self, work: Work, path: &str) {
        match work {
            Work::Composite { windowed, inside, given, windowing } => {
                self.window(windowed, windowing.as_ref());
                self.scope(inside, path);
                self.window(given, windowing.as_ref());
            }
            Work::Leaf { inputs, windowing, build, outputs } => {
                let mut collections = Vec::with_capacity(inputs.len());
                for (all, schema) in &inputs {
                    let all: Vec<PCollection<Row>> =
                        all.iter().filter_map(|id| self.made.get(*id).cloned().flatten()).collect();
                    let joined = self.join(all, schema);
                    collections.push(match &windowing {
                        Some(windowing) => joined.window_into(windowing.clone()),
                        None => joined,
                    });
                }
                let made = build(self.pipeline, collections);
                for ((id, _), collection) in outputs.into_iter().zip(made) {
                    let windowed = match &windowing {
                        Some(windowing) if inputs.is_empty() => collection.window_into(windowing.clone()),
                        _ => collection,
                    };
                    if let Some(slot) = self.made.get_mut(id) {
                        *slot = Some(windowed);
                    }
                }
            }
        }
    }

    /// Windows collections, each given by its number and that which it has then.
    fn window(&mut self, all: Vec<(usize, usize)>, windowing: Option<&WindowingStrategy>) {
        for (before, after) in all {
            let one = self.made.get(before).cloned().flatten();
            self.made[after] = match (one, windowing) {
                (Some(one), Some(windowing)) => Some(one.window_into(windowing.clone())),
                (one, _) => one,
            };
        }
    }

    /// Several collections as one of `schema`.
    fn join(&self, mut all: Vec<PCollection<Row>>, schema: &Arc<Schema>) -> PCollection<Row> {
        if all.len() == 1
            && let Some(only) = all.pop()
        {
            return only;
        }
        flatten(self.pipeline, all, schema)
    }
}

/// All rows of several collections, brought to one schema.
pub fn flatten(pipeline: &Pipeline, all: Vec<PCollection<Row>>, schema: &Arc<Schema>) -> PCollection<Row> {
    let coder = row_coder(schema.clone());
    let wanted = coder.spec();
    let unified: Vec<PCollection<Row>> = all
        .into_iter()
        .enumerate()
        .map(|(i, one)| {
            if one.coder().spec() == wanted {
                return one;
            }
            let conform = ParDo::new(Conform { schema: schema.clone() });
            one.step(format!("UnifySchema{i}"))
                .apply(conform.with_coder(coder.clone()).with_arity(Arity::OneToOne))
        })
        .collect();
    pipeline.flatten(unified)
}

/// Brings rows to a schema that has all their fields.
#[derive(Clone)]
struct Conform {
    schema: Arc<Schema>,
}

impl DoFn for Conform {
    type In = Row;
    type Out = Row;

    fn process(&mut self, row: Row, _: &ElementContext<'_>, out: &mut Output<Row>) -> Result<()> {
        out.emit(crate::schema::conform(&row, &self.schema)?);
        Ok(())
    }
}

/// Applies `transform` without a scope of its own: the scope that is open has the transform's label.
#[track_caller]
pub fn expand<I, T: PTransform<I>>(transform: T, input: I) -> T::Output {
    transform.expand(input)
}
