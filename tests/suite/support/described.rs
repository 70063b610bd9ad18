//! `src/http/openapi.json`, and whether an answer is one that it describes: every answer of the
//! public listener that a test gets through [`Service::send`](super::Service::send) is held
//! against it.

use super::Answer;
use jsonschema::Validator;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

/// The document.
pub static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/http/openapi.json");
    serde_json::from_str(&std::fs::read_to_string(PATH).unwrap()).unwrap()
});

/// The headers that any answer may have: of HTTP itself, of tracing, of CORS, and of sign-ins.
const GENERAL: [&str; 8] = [
    "access-control-allow-origin",
    "access-control-expose-headers",
    "connection",
    "content-length",
    "date",
    "referrer-policy",
    "traceparent",
    "vary",
];

/// What a reference leads to, or the value itself.
pub fn resolved(value: &Value) -> &Value {
    match value["$ref"].as_str() {
        Some(to) => DOCUMENT.pointer(to.strip_prefix('#').unwrap()).unwrap(),
        None => value,
    }
}

/// The path of the document that this one is of.
pub fn template(path: &str) -> Option<&'static str> {
    let mut templates = DOCUMENT["paths"].as_object().unwrap().keys();
    let same = |template: &&String| {
        let (known, asked) = (template.split('/'), path.split('/'));
        known.clone().count() == asked.clone().count()
            && known
                .zip(asked)
                .all(|(known, part)| known == part || known.starts_with('{') && !part.is_empty())
    };
    templates.find(same).map(String::as_str)
}

/// Asserts that the document has this answer for such a request.
#[track_caller]
pub fn assert_described(method: &str, path: &str, answer: &Answer) {
    let preflight = method == "OPTIONS" && answer.status == 204;
    if preflight {
        return;
    }
    let operations = template(path).map(|template| &DOCUMENT["paths"][template]);
    let method_of = |path: &str| match method {
        "HEAD" => "get".to_owned(),
        _ if path == "/auth/verify" => "get".to_owned(),
        other => other.to_ascii_lowercase(),
    };
    let components = &DOCUMENT["components"]["responses"];
    let status = answer.status.to_string();
    let of_operation = operations
        .and_then(|operations| operations.get(method_of(path)))
        .map(|operation| &operation["responses"][&status])
        .filter(|response| !response.is_null());
    let response = match (of_operation, answer.status) {
        (Some(response), _) => response,
        (None, 404) if operations.is_none() => &components["NotFound"],
        // A sign-in is no HEAD.
        (None, 405) => &components["MethodNotAllowed"],
        (None, 414) if operations.is_none() => &components["UriTooLong"],
        (None, 431) if operations.is_none() => &components["HeadersTooLarge"],
        _ => panic!("not described: {method} {path} {answer:?}"),
    };
    let response = resolved(response);
    assert_headers(response, answer, &format!("{method} {path} {status}"));
    let what = format!("{method} {path} {status}: {}", answer.body);
    match response["content"].as_object() {
        _ if method == "HEAD" => assert_eq!(answer.body, "", "{what}"),
        None => assert_eq!(answer.body, "", "{what}"),
        Some(content) => {
            let kind = answer.header("content-type");
            let media = content
                .get(kind)
                .unwrap_or_else(|| panic!("{kind}: {what}"));
            assert_valid(&media["schema"], &answer.body, &what);
        }
    }
}

#[track_caller]
fn assert_headers(response: &Value, answer: &Answer, what: &str) {
    let none = serde_json::Map::new();
    let described = response["headers"].as_object().unwrap_or(&none);
    for (name, header) in described {
        let header = resolved(header);
        let found = answer.headers.get_all(name);
        if header["required"] == true {
            assert!(found.iter().next().is_some(), "{what}: no {name}");
        }
        for value in found {
            let text = value.to_str().unwrap();
            let value = match resolved(&header["schema"])["type"].as_str() {
                Some("integer") => json!(text.parse::<i64>().unwrap()),
                _ => json!(text),
            };
            assert_valid(&header["schema"], &value, &format!("{what}: {name}"));
        }
    }
    for name in answer.headers.keys() {
        let name = name.as_str();
        let known = described
            .keys()
            .any(|known| known.eq_ignore_ascii_case(name))
            || name == "content-type" && response.get("content").is_some()
            || GENERAL.contains(&name);
        assert!(known, "{what}: {name} is not described");
    }
}

/// Asserts that a value is valid by a schema of the document.
#[track_caller]
pub fn assert_valid(schema: &Value, value: &Value, what: &str) {
    static COMPILED: LazyLock<Mutex<HashMap<String, Arc<Validator>>>> =
        LazyLock::new(Mutex::default);
    let compiled = {
        let mut all = COMPILED.lock().unwrap();
        let entry = all.entry(schema.to_string());
        let whole = || {
            let whole = json!({"allOf": [schema], "components": DOCUMENT["components"]});
            let options = jsonschema::draft202012::options().should_validate_formats(true);
            Arc::new(options.build(&whole).unwrap())
        };
        Arc::clone(entry.or_insert_with(whole))
    };
    let errors: Vec<String> = compiled
        .iter_errors(value)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{what}: {errors:?}");
}
