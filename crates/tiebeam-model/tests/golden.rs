//! Messages written by Beam's own Python classes (apache-beam 2.77, deterministic serialisation) read here to what was
//! put in, and written again to the same bytes. A name or number that we got wrong shows at once.

#![allow(clippy::unwrap_used, clippy::panic)]

use tiebeam_model::fn_api::{
    InstructionRequest, InstructionResponse, StateRequest, instruction_request, instruction_response,
    process_bundle_request, state_key, state_request,
};
use tiebeam_model::pipeline::{Pipeline, SlidingWindowsPayload, is_bounded, merge_status, trigger};
use tiebeam_model::{Message, urns};

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
}

/// Reads a recorded message, and checks that writing it gives the record back.
fn read<M: Message + Default>(hex: &str) -> M {
    let recorded = bytes(hex);
    let message = M::decode(recorded.as_slice()).unwrap();
    assert_eq!(message.encode_to_vec(), recorded);
    message
}

#[test]
fn a_bundle_request_with_elements_and_a_cache_token() {
    let request: InstructionRequest =
        read("0a026231ca3e260a027330120b12060a01741201765201011a110a0f0a02623112037372631a0200ff20012001");
    assert_eq!(request.instruction_id, "b1");
    let Some(instruction_request::Request::ProcessBundle(bundle)) = request.request else {
        panic!("not a bundle: {:?}", request.request)
    };
    assert_eq!(bundle.process_bundle_descriptor_id, "s0");
    assert!(bundle.has_no_state && !bundle.only_bundle_for_keys);
    let token = &bundle.cache_tokens[0];
    assert_eq!(&token.token[..], [1]);
    let Some(process_bundle_request::cache_token::Type::SideInput(side)) = &token.r#type else {
        panic!("not a side input's token")
    };
    assert_eq!((side.transform_id.as_str(), side.side_input_id.as_str()), ("t", "v"));
    let data = &bundle.elements.unwrap().data[0];
    assert_eq!((data.transform_id.as_str(), &data.data[..], data.is_last), ("src", &[0u8, 255][..], true));
}

#[test]
fn a_pipeline() {
    let pipeline: Pipeline = read(PIPELINE);
    let components = pipeline.components.unwrap();
    let transform = &components.transforms["t1"];
    assert_eq!(transform.unique_name, "A/B");
    let spec = transform.spec.as_ref().unwrap();
    assert_eq!((spec.urn.as_str(), &spec.payload[..]), (urns::transform::PAR_DO, &b"x"[..]));
    assert_eq!((transform.inputs["in"].as_str(), transform.outputs["out"].as_str()), ("p0", "p1"));
    assert_eq!(components.pcollections["p1"].is_bounded(), is_bounded::Enum::Bounded);
    let coder = &components.coders["c"];
    assert_eq!(coder.spec.as_ref().unwrap().urn, urns::coder::KV);
    assert_eq!(coder.component_coder_ids, ["a", "b"]);
    let strategy = &components.windowing_strategies["w"];
    assert_eq!(strategy.merge_status(), merge_status::Enum::NonMerging);
    assert!(matches!(strategy.trigger.as_ref().unwrap().trigger, Some(trigger::Trigger::Default(_))));
    assert_eq!((strategy.allowed_lateness, strategy.assigns_to_one_window), (5, true));
    assert_eq!(pipeline.root_transform_ids, ["t1"]);
    assert_eq!(pipeline.requirements, ["r"]);
}

const PIPELINE: &str = "0abd010a410a027431123b0a1c0a176265616d3a7472616e73666f726d3a706172646f3a76311a01781a080a02696e12\
    02703022090a036f7574120270312a03412f423a016512170a02703112110a07412f422e6f757412016318022201771a\
    3e0a017712390a220a206265616d3a77696e646f775f666e3a676c6f62616c5f77696e646f77733a763110011a016722\
    023a00280130013802400548015001221f0a0163121a0a120a106265616d3a636f6465723a6b763a7631120161120162\
    12027431220172";

#[test]
fn a_bundle_response_with_a_metric_and_a_residual() {
    let response: InstructionResponse = read(
        "0a026231ca3e6512100a0a0a01741202696e1a0165120208031a4f0a1c6265616d3a6d65747269633a656c656d656e74\
    5f636f756e743a763112196265616d3a6d6574726963733a73756d5f696e7436343a76311a010722110a0b50434f4c4c\
    454354494f4e120270312001",
    );
    let Some(instruction_response::Response::ProcessBundle(bundle)) = response.response else {
        panic!("not a bundle: {:?}", response.response)
    };
    assert!(bundle.requires_finalization);
    let metric = &bundle.monitoring_infos[0];
    assert_eq!(
        (metric.urn.as_str(), metric.r#type.as_str(), &metric.payload[..]),
        (urns::metric::ELEMENT_COUNT, urns::metric_type::SUM_INT64, &[7u8][..])
    );
    assert_eq!(metric.labels[urns::label::PCOLLECTION], "p1");
    let residual = &bundle.residual_roots[0];
    assert_eq!(&residual.application.as_ref().unwrap().element[..], b"e");
    assert_eq!(residual.requested_time_delay.unwrap().seconds, 3);
}

#[test]
fn a_state_request() {
    let request: StateRequest = read("0a0131120262311a0b42090a01741201761a0100c23e030a016e");
    let Some(state_key::Type::MultimapKeysValuesSideInput(key)) = request.state_key.unwrap().r#type else {
        panic!("not a multimap's entries")
    };
    assert_eq!(
        (key.transform_id.as_str(), key.side_input_id.as_str(), &key.window[..]),
        ("t", "v", &[0u8][..])
    );
    let Some(state_request::Request::Get(get)) = request.request else { panic!("not a get") };
    assert_eq!(&get.continuation_token[..], b"n");
}

#[test]
fn sliding_windows() {
    let payload: SlidingWindowsPayload = read("0a02083c120208011a02081e");
    let seconds =
        (payload.size.unwrap().seconds, payload.offset.unwrap().seconds, payload.period.unwrap().seconds);
    assert_eq!(seconds, (60, 1, 30));
}

#[test]
fn damaged_messages_are_errors() {
    let whole = bytes(PIPELINE);
    for cut in 1..whole.len() {
        // Some cuts fall between two fields: what stands before is a message too.
        if let Ok(message) = Pipeline::decode(&whole[..cut]) {
            assert_eq!(message.encode_to_vec(), &whole[..cut]);
        }
    }
    let error = InstructionRequest::decode(&bytes("0a7f62")[..]).unwrap_err();
    assert!(error.to_string().contains("buffer underflow"), "{error}");
}

#[test]
fn unknown_fields_are_skipped() {
    let mut request = bytes("0a0131");
    request.extend(bytes("fa7f03616263"));
    assert_eq!(InstructionRequest::decode(&request[..]).unwrap().instruction_id, "1");
}
