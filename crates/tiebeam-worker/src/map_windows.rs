//! Mapping windows of a main input to those of a side input, for runners that ask for it as a transform of its own:
//! `(nonce, main window)` to `(nonce, side input's window)`.

use std::sync::Arc;

use bytes::Bytes;
use tiebeam_core::coder::{WindowCoder, kv_coder};
use tiebeam_core::{
    Codec, Coder, CoderSpec, DoFn, Element, ElementContext, Error, ErrorKind, Nesting, Output, Reader,
    Result, Window, WindowFn,
};
use tiebeam_exec::{EdgeType, Operator, ParDo, TypedEdge};
use tiebeam_graph::Graph;
use tiebeam_model::pipeline::FunctionSpec;
use tiebeam_model::{Message, urns};

use crate::windowing::{window_fn_of, window_fn_to_proto};

/// A window as an element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MappedWindow(pub(crate) Window);

struct MappedCodec(WindowCoder);

impl Codec<MappedWindow> for MappedCodec {
    fn encode(&self, value: &MappedWindow, out: &mut Vec<u8>, _: Nesting) -> Result<()> {
        self.0.encode(&value.0, out)
    }

    fn decode(&self, input: &mut Reader, _: Nesting) -> Result<MappedWindow> {
        self.0.decode(input).map(MappedWindow)
    }

    fn spec(&self) -> CoderSpec {
        self.0.spec().clone()
    }
}

impl Element for MappedWindow {
    fn coder() -> Coder<Self> {
        // A port's coder says what windows really travel.
        Coder::new(MappedCodec(WindowCoder::interval()))
    }

    fn coder_of(spec: &CoderSpec) -> Result<Coder<Self>> {
        WindowCoder::of(spec).map(|coder| Coder::new(MappedCodec(coder)))
    }
}

/// The edge type of both sides.
pub(crate) fn edge_type() -> Arc<dyn EdgeType> {
    TypedEdge::new(kv_coder(Bytes::coder(), MappedWindow::coder()))
}

/// The message that tells a side input's mapping: its window function is all there is to it.
pub(crate) fn mapping_to_proto(side: &dyn WindowFn) -> FunctionSpec {
    let payload = window_fn_to_proto(side).encode_to_vec().into();
    FunctionSpec { urn: urns::own::WINDOW_MAPPING_FN.to_owned(), payload }
}

/// The other way round; a window function of the user's is found in the graphs.
///
/// # Errors
/// When the mapping is another SDK's, or its window function is unknown.
pub(crate) fn side_window_fn(mapping: &FunctionSpec, graphs: &[Arc<Graph>]) -> Result<Arc<dyn WindowFn>> {
    if mapping.urn != urns::own::WINDOW_MAPPING_FN {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "TB0544",
            format!("window mapping `{}` is not one of this worker's", mapping.urn),
        ));
    }
    let function = FunctionSpec::decode(mapping.payload.as_ref()).map_err(|error| {
        Error::new(ErrorKind::InvalidData, "TB0540", "the payload of a window mapping is damaged")
            .with_source(error)
    })?;
    window_fn_of(&function).or_else(|error| {
        let mut own = graphs.iter().flat_map(|graph| &graph.edges).map(|edge| &edge.windowing.window_fn);
        own.find(|own| window_fn_to_proto(&***own) == function).cloned().ok_or(error)
    })
}

/// The operator that maps to windows of `side`.
pub(crate) fn operator(side: Arc<dyn WindowFn>) -> Arc<dyn Operator> {
    Arc::new(ParDo::of(MapWindows(side)))
}

#[derive(Clone)]
struct MapWindows(Arc<dyn WindowFn>);

impl DoFn for MapWindows {
    type In = (Bytes, MappedWindow);
    type Out = (Bytes, MappedWindow);

    fn process(
        &mut self,
        (nonce, MappedWindow(main)): Self::In,
        _: &ElementContext<'_>,
        out: &mut Output<Self::Out>,
    ) -> Result<()> {
        out.emit((nonce, MappedWindow(self.0.side_input_window(&main))));
        Ok(())
    }
}
