//! A collector that writes down what it gets: the receiver of the OpenTelemetry Collector where it
//! was built, and one of OpenTelemetry's protobuf messages in Python.

use super::{eventually, free_port, secrecy};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/observability");
const RECEIVER: &str = "go/bin/receiver";

/// Which program it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// That of the OpenTelemetry Collector.
    Real,
    /// That in Python.
    Plain,
}

/// A running collector.
pub struct Collector {
    /// What the service is told.
    pub url: String,
    process: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

/// A span as it arrived.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    pub name: String,
    /// 1 internal, 2 server, 3 client.
    pub kind: u64,
    pub trace: String,
    pub id: String,
    /// Empty where it has none.
    pub parent: String,
    pub state: String,
    pub start: u64,
    pub end: u64,
    /// 2 where it is an error.
    pub status: u64,
    pub attributes: BTreeMap<String, String>,
    pub resource: BTreeMap<String, String>,
}

impl Collector {
    /// The kinds that are here.
    pub fn kinds() -> Vec<Kind> {
        let real = Path::new(FOLDER).join(RECEIVER).exists();
        if !real {
            eprintln!("SKIPPED: the collector's receiver was not built: there is no Go here");
        }
        let real = real.then_some(Kind::Real);
        real.into_iter().chain([Kind::Plain]).collect()
    }

    /// The one that starts soonest.
    pub async fn start() -> Self {
        Self::of(Self::kinds()[0]).await
    }

    /// One of this kind.
    pub async fn of(kind: Kind) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let installed = Path::new(FOLDER).join(".venv/.installed").exists();
        assert!(installed, "run tests/observability/install.sh");
        let mut command = match kind {
            Kind::Real => Command::new(Path::new(FOLDER).join(RECEIVER)),
            Kind::Plain => {
                let mut python = Command::new(Path::new(FOLDER).join(".venv/bin/python"));
                python.arg("receiver.py");
                python
            }
        };
        let mut process = command
            .arg(&address)
            .current_dir(FOLDER)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let written = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                written.lock().unwrap().push(line);
            }
        });
        let collector = Self {
            url: format!("http://{address}"),
            process,
            lines,
        };
        eventually("the collector listens", async || {
            !collector.lines().is_empty()
        })
        .await;
        collector
    }

    /// All that it wrote: an export a line, after the first.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// The exports.
    pub fn exports(&self) -> Vec<Value> {
        let lines = self.lines();
        let exports = lines.iter().skip(1);
        exports
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// The spans, as they began.
    pub fn spans(&self) -> Vec<Span> {
        let mut spans = Vec::new();
        for export in self.exports() {
            for of_resource in list(&export["traces"]["resourceSpans"]) {
                let resource = attributes(&of_resource["resource"]["attributes"]);
                for of_scope in list(&of_resource["scopeSpans"]) {
                    for span in list(&of_scope["spans"]) {
                        spans.push(Span::read(span, &resource));
                    }
                }
            }
        }
        spans.sort_by_key(|span| span.start);
        spans
    }

    /// The spans of the trace whose server span has this name, once they are here.
    pub async fn trace(&self, name: &str) -> Vec<Span> {
        let root = async || self.spans().into_iter().find(|span| span.name == name);
        eventually("the trace arrives", async || root().await.is_some()).await;
        let root = root().await.unwrap();
        // Children end before it, and so are exported before it or with it.
        let mut spans = self.spans();
        spans.retain(|span| span.trace == root.trace);
        spans
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if !std::thread::panicking() {
            secrecy::assert_kept(&self.lines());
        }
    }
}

impl Span {
    fn read(span: &Value, resource: &BTreeMap<String, String>) -> Self {
        let text = |name: &str| span[name].as_str().unwrap_or_default().to_owned();
        Self {
            name: text("name"),
            kind: span["kind"].as_u64().unwrap(),
            trace: text("traceId"),
            id: text("spanId"),
            parent: text("parentSpanId"),
            state: text("traceState"),
            start: text("startTimeUnixNano").parse().unwrap(),
            end: text("endTimeUnixNano").parse().unwrap(),
            status: span["status"]["code"].as_u64().unwrap_or_default(),
            attributes: attributes(&span["attributes"]),
            resource: resource.clone(),
        }
    }

    /// An attribute; empty where it is absent.
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn attributes(value: &Value) -> BTreeMap<String, String> {
    list(value)
        .iter()
        .map(|pair| {
            let value = &pair["value"];
            let text = ["stringValue", "intValue"]
                .iter()
                .find_map(|kind| value[kind].as_str())
                .unwrap_or_else(|| panic!("neither text nor number: {pair}"));
            (pair["key"].as_str().unwrap().to_owned(), text.to_owned())
        })
        .collect()
}
