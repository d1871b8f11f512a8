//! A graph's parts as messages: what both the whole pipeline and a stage's descriptor are made of.

use std::collections::{BTreeMap, HashMap};

use tiebeam_core::{Error, Result, WindowingStrategy};
use tiebeam_exec::{Access, EdgeSpec, Operator};
use tiebeam_graph::{CombineParts, GraphNode};
use tiebeam_model::pipeline::{
    CombinePayload, FunctionSpec, PCollection, ParDoPayload, SideInput, Trigger, is_bounded, output_time,
    trigger,
};
use tiebeam_model::tiebeam::WindowIntoPayload;
use tiebeam_model::{Message, pipeline, urns};

use crate::coders::CoderTable;
use crate::map_windows::mapping_to_proto;
use crate::payload::Steps;
use crate::windowing::{strategy_to_proto, window_fn_to_proto};

/// The id of the environment that our steps run in; those with resource hints run in others, each with a number after it.
pub const ENVIRONMENT: &str = "tiebeam";

/// Whether our own steps run in the environment of that id, with resource hints or without.
pub fn is_own_environment(id: &str) -> bool {
    let number = |rest: &str| rest.strip_prefix('-').is_some_and(|number| number.parse::<usize>().is_ok());
    id.strip_prefix(ENVIRONMENT).is_some_and(|rest| rest.is_empty() || number(rest))
}

/// Gathers coders and windowing strategies while transforms are written.
pub(crate) struct Messages<'a> {
    pub(crate) steps: &'a Steps,
    pub(crate) coders: CoderTable,
    strategies: BTreeMap<String, pipeline::WindowingStrategy>,
    strategy_ids: HashMap<Vec<u8>, String>,
}

impl<'a> Messages<'a> {
    pub(crate) fn new(steps: &'a Steps) -> Self {
        Messages {
            steps,
            coders: CoderTable::default(),
            strategies: BTreeMap::new(),
            strategy_ids: HashMap::new(),
        }
    }

    /// All windowing strategies by id.
    pub(crate) fn take_strategies(&mut self) -> BTreeMap<String, pipeline::WindowingStrategy> {
        std::mem::take(&mut self.strategies)
    }

    fn strategy(&mut self, strategy: &WindowingStrategy) -> String {
        let message = strategy_to_proto(strategy, &mut self.coders, ENVIRONMENT);
        self.strategy_id(message)
    }

    fn strategy_id(&mut self, message: pipeline::WindowingStrategy) -> String {
        let next = format!("w{}", self.strategies.len());
        let id = self.strategy_ids.entry(message.encode_to_vec()).or_insert(next).clone();
        self.strategies.entry(id.clone()).or_insert(message);
        id
    }

    /// A PCollection inside a reshuffle: whatever reaches its grouping goes on at once.
    pub(crate) fn passing_on(&mut self, edge: &EdgeSpec) -> PCollection {
        let one = Trigger {
            trigger: Some(trigger::Trigger::ElementCount(trigger::ElementCount { element_count: 1 })),
        };
        let again = trigger::Repeat { subtrigger: Some(Box::new(one)) };
        let message = pipeline::WindowingStrategy {
            trigger: Some(Trigger { trigger: Some(trigger::Trigger::Repeat(Box::new(again))) }),
            output_time: output_time::Enum::EarliestInPane.into(),
            ..strategy_to_proto(&edge.windowing, &mut self.coders, ENVIRONMENT)
        };
        PCollection { windowing_strategy_id: self.strategy_id(message), ..self.pcollection(edge) }
    }

    pub(crate) fn pcollection(&mut self, edge: &EdgeSpec) -> PCollection {
        PCollection {
            unique_name: edge.name.to_string(),
            coder_id: self.coders.id(&edge.edge_type.coder_spec()),
            is_bounded: is_bounded::Enum::Bounded.into(),
            windowing_strategy_id: self.strategy(&edge.windowing),
            display_data: Vec::new(),
        }
    }

    pub(crate) fn par_do(&self, node: &GraphNode, operator: &dyn Operator) -> Result<FunctionSpec> {
        let side_inputs = node
            .side_inputs
            .iter()
            .map(|(view, _)| {
                let side = operator.side_inputs().iter().find(|side| side.id == *view).ok_or_else(|| {
                    Error::internal(format!("step {} does not know its side input `{view}`", node.step))
                })?;
                let access = match side.access {
                    Access::Iterable => urns::side_input::ITERABLE,
                    Access::Multimap => urns::side_input::MULTIMAP,
                };
                let message = SideInput {
                    access_pattern: Some(function(access, Vec::new())),
                    view_fn: Some(function(urns::own::VIEW_FN, Vec::new())),
                    window_mapping_fn: Some(mapping_to_proto(&*side.window_fn)),
                };
                Ok((view.to_string(), message))
            })
            .collect::<Result<_>>()?;
        let do_fn = function(urns::own::DO_FN, self.steps.payload(node).encode_to_vec());
        let payload = ParDoPayload { do_fn: Some(do_fn), side_inputs, ..ParDoPayload::default() };
        Ok(function(urns::transform::PAR_DO, payload.encode_to_vec()))
    }

    /// A ParDo of a function that is known by its step: one half of a reshuffle, or what stands before a Flatten.
    pub(crate) fn step_function(&self, node: &GraphNode, urn: &str) -> FunctionSpec {
        let do_fn = function(urn, self.steps.payload(node).encode_to_vec());
        let payload = ParDoPayload { do_fn: Some(do_fn), ..ParDoPayload::default() };
        function(urns::transform::PAR_DO, payload.encode_to_vec())
    }

    /// A whole combine or one of its parts.
    pub(crate) fn combine(&mut self, urn: &str, node: &GraphNode, parts: &CombineParts) -> FunctionSpec {
        let combine_fn = function(urns::own::COMBINE_FN, self.steps.payload(node).encode_to_vec());
        // Of `kv<key, accumulator>`, what comes second.
        let accumulator = parts.accumulators.coder_spec().components.into_iter().nth(1);
        let accumulator_coder_id = accumulator.map(|spec| self.coders.id(&spec)).unwrap_or_default();
        let payload = CombinePayload { combine_fn: Some(combine_fn), accumulator_coder_id };
        function(urn, payload.encode_to_vec())
    }

    pub(crate) fn assign_windows(&self, node: &GraphNode, windowing: &WindowingStrategy) -> FunctionSpec {
        let payload = WindowIntoPayload {
            window_fn: window_fn_to_proto(&*windowing.window_fn).encode_to_vec().into(),
            step: Some(self.steps.payload(node)),
        };
        function(urns::transform::ASSIGN_WINDOWS, payload.encode_to_vec())
    }
}

pub(crate) fn function(urn: &str, payload: Vec<u8>) -> FunctionSpec {
    FunctionSpec { urn: urn.to_owned(), payload: payload.into() }
}
