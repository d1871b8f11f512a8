//! OpenAI-compatible servers.

use serde_json::json;
use tiebeam_core::row::Value;
use tiebeam_inference::{ModelMetadata, Tensor};

use super::*;
use crate::openai::OpenAiModelHandler;

fn texts(n: usize) -> Vec<String> {
    (0..n).map(|i| format!("text {i}")).collect()
}

fn args(pairs: &[(&str, Value)]) -> InferenceArgs {
    pairs.iter().map(|(name, value)| (*name, value.clone())).collect()
}

#[test]
fn chat_asks_one_text_a_request() {
    let handler = OpenAiModelHandler::chat("m")
        .with_base_url("http://127.0.0.1:1/chat-asks/v1/")
        .with_api_key("sk-1")
        .with_system_prompt("be brief")
        .with_request_size(9);
    let bench = Bench::new(handler, |_, request| {
        let body: serde_json::Value = serde_json::from_slice(request.body()).unwrap();
        let text = body["messages"][1]["content"].as_str().unwrap().to_uppercase();
        let choice = json!({"index": 0, "message": {"role": "assistant", "content": text}});
        reply(200, json!({"model": "m-2026", "choices": [choice]}).to_string())
    });
    let given = args(&[("temperature", Value::Float(0.1)), ("max_tokens", Value::Int32(5))]);
    let answers = bench.ask_with(&texts(3), &given);
    assert!(answers.iter().all(|answer| answer.as_ref().unwrap().model_id.as_deref() == Some("m-2026")));
    assert_eq!(inferences(answers), ["TEXT 0", "TEXT 1", "TEXT 2"]);
    assert_eq!(bench.urls(), vec!["http://127.0.0.1:1/chat-asks/v1/chat/completions"; 3]);
    assert!(bench.bodies().contains(&json!({
        "model": "m",
        "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "text 1"}],
        "temperature": 0.1,
        "max_tokens": 5
    })));
}

#[test]
fn completions_and_embeddings_are_matched_by_index() {
    let bench = Bench::new(
        OpenAiModelHandler::completions("m").with_base_url("http://127.0.0.1:1/completions/v1"),
        |_, _| {
            let choices =
                [2, 0, 1].map(|i| json!({"index": i, "text": format!("after {i}"), "logprobs": null}));
            reply(200, json!({"choices": choices}).to_string())
        },
    );
    assert_eq!(inferences(bench.ask(&texts(3))), ["after 0", "after 1", "after 2"]);
    assert_eq!(bench.bodies(), [json!({"model": "m", "prompt": texts(3)})]);

    let bench = Bench::new(
        OpenAiModelHandler::embeddings("e").with_base_url("http://127.0.0.1:1/embeddings/v1"),
        |_, _| {
            let data = [1, 0].map(|i| json!({"object": "embedding", "index": i, "embedding": [i, 0.5]}));
            reply(200, json!({"data": data, "model": "e"}).to_string())
        },
    );
    let wanted = [Tensor::vector(vec![0f32, 0.5]), Tensor::vector(vec![1f32, 0.5])];
    assert_eq!(inferences(bench.ask(&texts(2))), wanted);
    assert_eq!(bench.bodies(), [json!({"model": "e", "input": texts(2), "encoding_format": "float"})]);
    assert_eq!(bench.urls(), ["http://127.0.0.1:1/embeddings/v1/embeddings"]);
}

#[test]
fn answers_that_are_wrong_are_errors_and_never_mismatched() {
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    // For two examples: the body, and the code it ends with.
    let vectors = |a: &str, b: &str| {
        format!(r#"{{"data":[{{"index":0,"embedding":{a}}},{{"index":1,"embedding":{b}}}]}}"#)
    };
    for (number, (body, code)) in [
        (String::new(), "TB0607"),
        ("nonsense".to_owned(), "TB0607"),
        ("null".to_owned(), "TB0607"),
        (r#"{"data": 7}"#.to_owned(), "TB0607"),
        (deep.clone(), "TB0607"),
        (format!(r#"{{"data":{deep}}}"#), "TB0607"),
        (vectors("[1]", "[NaN]"), "TB0607"),
        (vectors("[1]", "[1e999]"), "TB0607"),
        (vectors("[1]", "[1e300]"), "TB0607"),
        (vectors("[1]", "[\"1\"]"), "TB0607"),
        (vectors("[1]", "[1, 2]"), "TB0607"),
        (vectors("[]", "[]"), "TB0607"),
        (vectors("[1]", "[null]"), "TB0607"),
        (r#"{"data":[{"index":-1,"embedding":[1]},{"index":1,"embedding":[1]}]}"#.to_owned(), "TB0607"),
        (r#"{"data":[]}"#.to_owned(), "TB0606"),
        (r#"{"data":[{"index":0,"embedding":[1]}]}"#.to_owned(), "TB0606"),
        (r#"{"data":[{"index":0,"embedding":[1]},{"index":0,"embedding":[1]}]}"#.to_owned(), "TB0606"),
        (r#"{"data":[{"index":0,"embedding":[1]},{"index":2,"embedding":[1]}]}"#.to_owned(), "TB0606"),
        (r#"{"data":[{"index":0,"embedding":[1]},{"index":1,"embedding":[1]},{"index":2,"embedding":[1]}]}"#.to_owned(), "TB0606"),
        (r#"{"data":[{"index":0,"embedding":[1]},{"index":18446744073709551615,"embedding":[1]}]}"#.to_owned(), "TB0606"),
    ]
    .into_iter()
    .enumerate()
    {
        let handler = OpenAiModelHandler::embeddings("e")
            .with_base_url(format!("http://127.0.0.1:1/wrong-{number}/v1"))
            .with_max_attempts(2);
        let shown = body.chars().take(80).collect::<String>();
        let bench = Bench::new(handler, move |_, _| reply(200, &body));
        let error = bench.error(&texts(2));
        assert_eq!(error.code(), code, "{shown}: {error}");
        assert!(error.to_string().len() < 700, "{error}");
    }
    for (number, (body, code)) in [
        (r#"{"choices":[]}"#, "TB0606"),
        (r#"{"choices":[{"message":{"content":null}}]}"#, "TB0607"),
        (r#"{"choices":[{"message":{"content":null,"refusal":"I will not"}}]}"#, "TB0607"),
        (r#"{"choices":[{"message":{"content":7}}]}"#, "TB0607"),
        (r#"{"choices":[{"text":"x"}]}"#, "TB0607"),
    ]
    .into_iter()
    .enumerate()
    {
        let handler = OpenAiModelHandler::chat("m")
            .with_base_url(format!("http://127.0.0.1:1/wrong-chat-{number}/v1"))
            .with_max_attempts(2);
        let bench = Bench::new(handler, move |_, _| reply(200, body));
        assert_eq!(bench.error(&texts(1)).code(), code, "{body}");
    }
}

#[test]
fn arguments_are_checked_by_name_and_type() {
    let chat = || OpenAiModelHandler::chat("m").with_extra_args(["top_k"]);
    let good = [
        ("temperature", Value::Int64(1)),
        ("stop", Value::String("x".into())),
        ("stop", Value::Array([Value::String("x".into())].into())),
        ("n", Value::Int64(1)),
        ("seed", Value::Int64(7)),
        ("top_k", Value::Int64(40)),
    ];
    for (name, value) in good {
        chat().validate_inference_args(&args(&[(name, value)])).unwrap();
    }
    let bad = [
        ("temprature", Value::Int64(1)),
        ("temperature", Value::String("hot".into())),
        ("temperature", Value::Double(f64::NAN)),
        ("n", Value::Int64(2)),
        ("stream", Value::Bool(true)),
        ("model", Value::String("other".into())),
        ("messages", Value::Null),
        ("max_tokens", Value::Double(1.5)),
        ("dimensions", Value::Int64(8)),
    ];
    for (name, value) in bad {
        let error = chat().validate_inference_args(&args(&[(name, value)])).unwrap_err();
        assert_eq!(error.code(), "TB0601", "{error}");
        assert!(error.message().contains(name));
    }
    OpenAiModelHandler::embeddings("m")
        .validate_inference_args(&args(&[("dimensions", Value::Int64(8))]))
        .unwrap();
}

#[test]
fn a_missing_or_unsafe_key_is_told_before_anything_is_sent() {
    let none = InferenceArgs::none();
    let handler = || OpenAiModelHandler::chat("m").with_base_url("http://vllm.example:8000/v1");
    handler().validate_inference_args(&none).unwrap();
    let error = handler().with_api_key("sk-1").validate_inference_args(&none).unwrap_err();
    assert_eq!(error.code(), "TB0600");
    assert!(!format!("{error:?}").contains("sk-1"));
    handler().with_api_key("sk-1").with_plain_http().validate_inference_args(&none).unwrap();
    let error =
        OpenAiModelHandler::chat("m").with_api_key_env("TIEBEAM_TEST_NO_KEY").load_model().err().unwrap();
    assert_eq!(error.code(), "TB0608");
    let error = OpenAiModelHandler::chat("").validate_inference_args(&none).unwrap_err();
    assert_eq!(error.code(), "TB0600");
    let newer = OpenAiModelHandler::chat("m").load_version(&ModelMetadata::of("m-2")).unwrap();
    assert_eq!(&*OpenAiModelHandler::chat("m").model_info(&newer).model_id, "m-2");
    let model = handler().with_api_key("sk-1").model;
    assert!(!format!("{model:?}").contains("sk-1"));
}
