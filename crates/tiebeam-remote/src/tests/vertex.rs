//! Vertex AI.

use serde_json::json;
use tiebeam_core::row::Value;
use tiebeam_inference::ModelMetadata;

use super::*;
use crate::value::JsonValue;
use crate::vertex::VertexAiModelHandler;

/// A handler of an endpoint that no other test has.
fn vertex(name: &str) -> VertexAiModelHandler {
    VertexAiModelHandler::new("proj", "europe-west4", name).with_bearer("ya29.secret")
}

fn instances(n: i64) -> Vec<JsonValue> {
    (0..n).map(|i| JsonValue::from(json!({"x": i}))).collect()
}

#[test]
fn c37a_an_invoked_route_answers_predictions_and_its_model() {
    let handler = vertex("c37a").with_invoke_route("/my/route").with_request_size(2);
    let bench = Bench::new(handler, |_, _| {
        reply(200, r#"{"predictions":["result1","result2"],"deployedModelId":"model123"}"#)
    });
    let answers = bench.ask(&instances(2));
    assert!(answers.iter().all(|answer| answer.as_ref().unwrap().model_id.as_deref() == Some("model123")));
    assert_eq!(inferences(answers), [JsonValue::from(json!("result1")), JsonValue::from(json!("result2"))]);
    let url = "https://europe-west4-aiplatform.googleapis.com/v1/projects/proj/locations/europe-west4/endpoints/c37a";
    assert_eq!(bench.urls(), [format!("{url}/invoke/my/route")]);
}

#[test]
fn c37c_an_invoked_route_may_answer_one_example_as_it_likes() {
    let handler = vertex("c37c").with_invoke_route("/r");
    let bench = Bench::new(handler, |_, _| reply(200, r#"{"output":"single result"}"#));
    let answers = bench.ask(&instances(1));
    assert_eq!(answers[0].as_ref().unwrap().model_id, None);
    assert_eq!(inferences(answers), [JsonValue::from(json!({"output": "single result"}))]);
}

#[test]
fn c37d_an_invoked_route_may_answer_what_is_no_json() {
    for body in [b"not valid json".as_slice(), b"\x89PNG\r\n\xff", b""] {
        let bench = Bench::new(vertex("c37d").with_invoke_route("/r"), move |_, _| reply(200, body));
        assert_eq!(inferences(bench.ask(&instances(1))), [JsonValue::Bytes(bytes::Bytes::from_static(body))]);
    }
}

#[test]
fn an_invoked_route_answers_each_of_several_examples_or_fails() {
    for (number, (body, code)) in [
        ("not valid json", "TB0607"),
        (r#"{"output":"single result"}"#, "TB0606"),
        ("[1]", "TB0606"),
        (r#"{"predictions":[1]}"#, "TB0606"),
        (r#"{"predictions":{"a":1}}"#, "TB0607"),
    ]
    .into_iter()
    .enumerate()
    {
        let handler = vertex(&format!("several-{number}"))
            .with_invoke_route("/r")
            .with_request_size(2)
            .with_max_attempts(2);
        let bench = Bench::new(handler, move |_, _| reply(200, body));
        assert_eq!(bench.error(&instances(2)).code(), code, "{body}");
    }
    let bench =
        Bench::new(vertex("list").with_invoke_route("/r").with_request_size(2), |_, _| reply(200, "[1, 2]"));
    assert_eq!(inferences(bench.ask(&instances(2))), [1, 2].map(|n| JsonValue::from(json!(n))));
}

#[test]
fn predict_sends_instances_and_parameters() {
    let handler = vertex("predict").with_base_url("http://127.0.0.1:1/");
    let bench = Bench::new(handler, |_, request| {
        let body: serde_json::Value = serde_json::from_slice(request.body()).unwrap();
        let predictions: Vec<_> =
            body["instances"].as_array().unwrap().iter().map(|i| json!([i["x"]])).collect();
        reply(200, json!({"predictions": predictions, "deployedModelId": "7", "model": "m"}).to_string())
    });
    let args = InferenceArgs::from_iter([("temperature", Value::Double(0.5))]);
    let answers = bench.ask_with(&instances(3), &args);
    assert!(answers.iter().all(|answer| answer.as_ref().unwrap().model_id.as_deref() == Some("7")));
    assert_eq!(inferences(answers), [0, 1, 2].map(|n| JsonValue::from(json!([n]))));
    let instances: Vec<_> = (0..3).map(|i| json!({"x": i})).collect();
    assert_eq!(bench.bodies(), [json!({"instances": instances, "parameters": {"temperature": 0.5}})]);
    let path = "v1/projects/proj/locations/europe-west4/endpoints/predict:predict";
    assert_eq!(bench.urls(), [format!("http://127.0.0.1:1/{path}")]);
}

#[test]
fn predictions_that_are_none_are_refused() {
    for (number, (body, code)) in [
        ("not json", "TB0607"),
        ("[1, 2]", "TB0607"),
        ("{}", "TB0607"),
        (r#"{"predictions": 3}"#, "TB0607"),
        (r#"{"predictions": [NaN, 1]}"#, "TB0607"),
        (r#"{"predictions": [1, 2, 3]}"#, "TB0606"),
    ]
    .into_iter()
    .enumerate()
    {
        let handler = vertex(&format!("none-{number}")).with_max_attempts(2);
        let bench = Bench::new(handler, move |_, _| reply(200, body));
        let error = bench.error(&instances(2));
        assert_eq!(error.code(), code, "{body}: {error}");
    }
}

#[test]
fn tokens_come_from_a_source_and_are_shown_by_nothing() {
    let count = Arc::new(AtomicU64::new(0));
    let counted = count.clone();
    let handler = vertex("source")
        .with_token_source(move || Ok(format!("ya29.token-{}", counted.fetch_add(1, Ordering::SeqCst))));
    let bench = Bench::new(handler, |n, _| match n {
        0 => reply(500, "your token ya29.token-1 is fine, we are not"),
        _ => reply(403, "ya29.token-2 may not"),
    });
    let error = bench.error(&instances(1));
    assert_eq!(error.code(), "TB0602");
    let told = format!("{error:?} {:?}", bench.handler.model);
    assert!(!told.contains("ya29"), "{told}");
    assert_eq!(count.load(Ordering::SeqCst), 3, "one when it is loaded, one for each attempt");
    let failing = vertex("no-token").with_token_source(|| Err(Error::user("the metadata server is away")));
    let error = failing.load_model().err().unwrap();
    assert_eq!(error.code(), "TB0608");
    assert!(error.causes()[0].contains("metadata server"));
}

#[test]
fn the_machines_own_token_goes_to_google_and_to_nobody_else() {
    crate::vertex::google_tokens_by(|| Ok("ya29.machine".to_owned()));
    let bare = |name: &str| VertexAiModelHandler::new("proj", "europe-west4", name);
    let elsewhere = |name: &str, url: &str| bare(name).with_base_url(url);
    for (handler, token) in [
        (bare("own"), true),
        (elsewhere("dns", "https://1.europe-west4-2.prediction.vertexai.goog"), true),
        (vertex("told"), false),
        (elsewhere("private", "http://10.0.0.1"), false),
        (elsewhere("stranger", "https://googleapis.com.example.org"), false),
        (elsewhere("port", "https://example.org:443/x.googleapis.com"), false),
    ] {
        let bench = Bench::new(handler, |_, _| reply(200, r#"{"predictions":[1]}"#));
        inferences(bench.ask(&instances(1)));
        let asked = bench.transport.asked.lock().unwrap();
        // A request knows its secrets.
        assert_eq!(asked[0].1.scrubbed("ya29.machine") == "[secret]", token, "{}", asked[0].1.url());
    }
}

#[test]
fn names_and_routes_that_lead_elsewhere_are_refused() {
    let none = InferenceArgs::none();
    let new = VertexAiModelHandler::new;
    for handler in [
        new("", "l", "1"),
        new("p", "l/../x", "1"),
        new("p", "l", "1/2"),
        new("p", "l", "1").with_invoke_route("predict"),
        new("p", "l", "1").with_invoke_route("/"),
        new("p", "l", "1").with_invoke_route("/a/../../b"),
        new("p", "l", "1").with_invoke_route("/a?b"),
        new("p", "l", "1").with_base_url("http://10.0.0.1").with_bearer("t"),
    ] {
        assert_eq!(handler.validate_inference_args(&none).unwrap_err().code(), "TB0600");
    }
    new("p", "l", "1").with_base_url("http://10.0.0.1").validate_inference_args(&none).unwrap();
    new("p", "l", "1").with_bearer("t").with_invoke_route("/a/b").validate_inference_args(&none).unwrap();
    let handler = new("p", "l", "1").with_bearer("t");
    let client = handler.load_version(&ModelMetadata::of("2")).unwrap();
    assert_eq!(&*handler.model_info(&client).model_id, "projects/p/locations/l/endpoints/2");
    handler.load_version(&ModelMetadata::of("projects/p/locations/l/endpoints/3")).unwrap();
    let error = handler.load_version(&ModelMetadata::of("projects/q/locations/l/endpoints/3")).err().unwrap();
    assert_eq!(error.code(), "TB0613");
    let url = new("example.com:p", "global", "1").model.endpoint();
    assert_eq!(
        url,
        "https://aiplatform.googleapis.com/v1/projects/example.com%3Ap/locations/global/endpoints/1"
    );
}
