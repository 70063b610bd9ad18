//! `GET /openapi.json`: it is served as the key set is, it describes every route and every code
//! there is, its examples are what the service answers, and schemathesis finds no request to
//! which the service answers otherwise than it says. Beside this, every answer that any test of
//! this suite gets is held against it ([`described`]).

use crate::support::described::{DOCUMENT, assert_valid, resolved};
use crate::support::{Answer, Issuer, Key, Service, Token, clerk, described, now};
use exchequer::explain::Code;
use exchequer::standin::{Session, StandIn};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use url::{Url, form_urlencoded};

const SECRET: &str = "9oTfJ+q/Zp3w8xA1b%2Fe=0mQkV7uYhRsC";
const OURS: &str = "http://localhost:8080";
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/openapi");

/// Everything that there is, switched on: the apps `web` and `partners`, the client `reports`.
struct World {
    clerk: Arc<StandIn>,
    partner: Issuer,
    service: Service,
}

impl World {
    async fn start() -> Self {
        let clerk = clerk().await;
        let partner = Issuer::start().await;
        let (client_id, client_secret) = clerk.oauth_client();
        let service = Service::builder()
            .config(&format!(
                r#"
[issuers.clerk]
issuer = "{url}"
kind = "clerk"
api_url = "{api}"
secret_key = {{ env = "CLERK_KEY" }}
webhook_secret = {{ env = "HOOKS" }}
authorized_parties = ["http://localhost:3000", "{client_id}"]
accepts = ["session", "oauth"]
[issuers.partner]
issuer = "{partner}"
assertions = true
audiences = "partners"
[providers.clerk]
kind = "clerk"
issuer = "{url}"
client_id = "{client_id}"
client_secret = {{ env = "OAUTH_SECRET" }}
[apps.web]
issuers = "clerk"
audience = ["{OURS}", "https://tasks.example.com"]
refresh = {{}}
status_list = true
scopes."read:tasks" = ["task.view"]
scopes."write:tasks" = ["task.view", "task.edit"]
[apps.web.sign_in]
providers = "clerk"
redirect_uris = "https://app.example.com/callback"
[apps.partners]
issuers = "partner"
[clients.reports]
secret = {{ env = "CLIENT_SECRET" }}
audience = "https://tasks.example.com"
apps = ["web", "partners"]
"#,
                url = clerk.issuer(),
                api = clerk.api_url(),
                partner = partner.url,
            ))
            .env("CLERK_KEY", clerk.secret_key())
            .env("HOOKS", clerk.webhook_secret())
            .env("OAUTH_SECRET", client_secret)
            .env("CLIENT_SECRET", SECRET)
            .start()
            .await;
        Self {
            clerk,
            partner,
            service,
        }
    }

    /// What the stand-in says at this path.
    async fn said(&self, path: &str) -> String {
        let url = format!("{}{path}", self.clerk.issuer());
        let answer = self.service.client.get(url).send().await.unwrap();
        answer.text().await.unwrap().trim().to_owned()
    }

    /// An exchange that asks for these scopes.
    async fn exchanged(&self, scope: &str) -> Value {
        let token = self.clerk.session_token(&Session::default());
        let body = json!({"session_token": token, "scope": scope});
        let answer = self.service.exchange(&body).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body
    }

    /// Begins a sign-in, and signs in at the provider; gives the cookie, and where the provider
    /// sends the browser.
    async fn signed_in(&self) -> (String, Url) {
        let begin = "/auth/login/clerk?app=web&redirect_uri=https%3A%2F%2Fapp.example.com%2Fcallback\
            &code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&code_challenge_method=S256&state=af0ifjsldkj";
        let sent = self.service.get(begin).await;
        let cookie = sent.header("set-cookie").split(';').next().unwrap();
        let provider = self.service.client.get(sent.header("location"));
        let back = self.service.send(provider).await;
        let back = Url::parse(back.header("location")).unwrap();
        (cookie.to_owned(), back)
    }

    /// A code of ours.
    async fn code(&self) -> String {
        let (cookie, back) = self.signed_in().await;
        let path = format!("{}?{}", back.path(), back.query().unwrap());
        let request = self
            .service
            .client
            .get(format!("{}{path}", self.service.url));
        let answer = self.service.send(request.header("cookie", cookie)).await;
        parameter(&Url::parse(answer.header("location")).unwrap(), "code")
    }

    /// What stands for a word of an example that is written in capitals.
    async fn real(&self, word: &str) -> Option<String> {
        let member = |body: &Value, name: &str| body[name].as_str().unwrap().to_owned();
        Some(match word {
            "SESSION_TOKEN" => self.clerk.session_token(&Session::default()),
            "EXPIRED_SESSION_TOKEN" => self.said("/session-token?age=90").await,
            "PENDING_SESSION_TOKEN" => self.said("/session-token?status=pending").await,
            "SESSION_ID" => self.said("/session-id").await,
            "OAUTH_TOKEN" => self.said("/oauth-token").await,
            "APP_TOKEN" | "REVOCABLE_TOKEN" => {
                member(&self.exchanged("read:tasks write:tasks").await, "token")
            }
            "REFRESH_TOKEN" => member(
                &self.exchanged("read:tasks offline_access").await,
                "refresh_token",
            ),
            "CLIENT_SECRET" => SECRET.to_owned(),
            "ASSERTION" => Token::oidc(&self.partner.url, OURS)
                .claim("sub", "user_1")
                .claim("exp", now() + 300)
                .claim("jti", "1")
                .sign(Key::rsa()),
            "CODE" => self.code().await,
            _ => return None,
        })
    }

    /// The value of an example, with what its words stand for.
    async fn filled(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => match self.real(text).await {
                Some(real) => real.into(),
                None => text
                    .replace("https://clerk.example.com", self.clerk.issuer())
                    .into(),
            },
            Value::Object(members) => {
                let mut filled = Map::new();
                for (name, value) in members {
                    filled.insert(name.clone(), Box::pin(self.filled(value)).await);
                }
                filled.into()
            }
            other => other.clone(),
        }
    }
}

fn parameter(url: &Url, name: &str) -> String {
    let mut pairs = url.query_pairs();
    let found = pairs.find(|(known, _)| known == name);
    found
        .unwrap_or_else(|| panic!("{name} of {url}"))
        .1
        .into_owned()
}

/// One operation of the document.
struct Operation {
    path: &'static str,
    method: &'static str,
    told: &'static Value,
}

fn operations() -> impl Iterator<Item = Operation> {
    let paths = DOCUMENT["paths"].as_object().unwrap();
    paths.iter().flat_map(|(path, methods)| {
        let methods = methods.as_object().unwrap().iter();
        methods.map(|(method, told)| Operation { path, method, told })
    })
}

impl Operation {
    fn responses(&self) -> impl Iterator<Item = (u16, &'static Value)> {
        let responses = self.told["responses"].as_object().unwrap();
        let each = responses.iter();
        each.map(|(status, response)| (status.parse().unwrap(), resolved(response)))
    }

    fn parameters(&self) -> impl Iterator<Item = &'static Value> {
        self.told["parameters"]
            .as_array()
            .unwrap()
            .iter()
            .map(resolved)
    }

    /// The examples of a request by their names; of each the values of its parameters, and the
    /// content type and the value of its body.
    fn requests(&self) -> BTreeMap<&'static str, Request> {
        let mut requests: BTreeMap<&str, Request> = BTreeMap::new();
        for parameter in self.parameters() {
            for (name, example) in examples(parameter) {
                let request = requests.entry(name).or_default();
                request.parameters.push((parameter, &example["value"]));
            }
        }
        let content = resolved(&self.told["requestBody"])["content"].as_object();
        for (kind, media) in content.into_iter().flatten() {
            for (name, example) in examples(media) {
                let request = requests.entry(name).or_default();
                request.body = Some((kind, &example["value"]));
                assert_valid(&media["schema"], &example["value"], name);
            }
        }
        requests
    }

    /// The examples of answers by their names; of each the status, and the body where there is
    /// one.
    fn answers(&self) -> BTreeMap<&'static str, (u16, Expected)> {
        let mut answers: BTreeMap<&str, (u16, Expected)> = BTreeMap::new();
        for (status, response) in self.responses() {
            let headers = response["headers"].as_object().into_iter().flatten();
            for (header, told) in headers {
                for (name, example) in examples(resolved(told)) {
                    let entry = answers.entry(name).or_insert((status, Expected::default()));
                    assert_eq!(entry.0, status, "{name}");
                    entry.1.headers.push((header, &example["value"]));
                }
            }
            for media in response["content"]
                .as_object()
                .into_iter()
                .flat_map(Map::values)
            {
                for (name, example) in examples(media) {
                    let entry = answers.entry(name).or_insert((status, Expected::default()));
                    assert_eq!(entry.0, status, "{name}");
                    entry.1.body = Some(&example["value"]);
                    assert_valid(&media["schema"], &example["value"], name);
                }
            }
        }
        answers
    }
}

#[derive(Default)]
struct Request {
    parameters: Vec<(&'static Value, &'static Value)>,
    body: Option<(&'static str, &'static Value)>,
}

#[derive(Default)]
struct Expected {
    headers: Vec<(&'static str, &'static Value)>,
    body: Option<&'static Value>,
}

fn examples(of: &'static Value) -> impl Iterator<Item = (&'static str, &'static Value)> {
    let examples = of["examples"].as_object().into_iter().flatten();
    examples.map(|(name, example)| (name.as_str(), example))
}

/// Sends an example of a request.
async fn sent(
    world: &World,
    operation: &Operation,
    name: &str,
    example: Option<&Request>,
) -> Answer {
    let (service, mut path) = (&world.service, operation.path.to_owned());
    let (mut query, mut headers) = (Vec::new(), Vec::new());
    let callback = operation.told["operationId"] == "callback";
    let mut back = None;
    if callback && name == "return" {
        let (cookie, url) = world.signed_in().await;
        headers.push(("cookie", cookie));
        back = Some(url);
    }
    let none = Request::default();
    let Request { parameters, body } = example.unwrap_or(&none);
    let body = match body {
        Some((kind, value)) => Some((*kind, world.filled(value).await)),
        None => None,
    };
    for (parameter, value) in parameters {
        let known = parameter["name"].as_str().unwrap();
        let value = match (value.as_str().unwrap(), &back) {
            ("STATE", Some(back)) => self::parameter(back, "state"),
            ("PROVIDER_CODE", Some(back)) => self::parameter(back, "code"),
            ("ETAG", _) => service.get(&path).await.header("etag").to_owned(),
            ("WEBHOOK_TIMESTAMP", _) => now().to_string(),
            ("WEBHOOK_SIGNATURE", _) => {
                let event = &body.as_ref().unwrap().1;
                let (signed, text) =
                    world
                        .clerk
                        .webhook(event, "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W", now());
                assert_eq!(text, event.to_string());
                signed[2].1.clone()
            }
            (text, _) => text.to_owned(),
        };
        match parameter["in"].as_str().unwrap() {
            "path" => path = path.replace(&format!("{{{known}}}"), &value),
            "query" => query.push((known, value)),
            "header" => headers.push((known, value)),
            other => panic!("{other}"),
        }
    }
    let mut url = Url::parse(&format!("{}{path}", service.url)).unwrap();
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(&query);
    }
    let method = operation.method.to_uppercase().parse().unwrap();
    let mut request = service.client.request(method, url);
    for (header, value) in headers {
        request = request.header(header, value);
    }
    let needed = &operation.told["security"][0]["appToken"];
    if needed.is_array() && example.is_some() {
        request = request.bearer_auth(world.real("APP_TOKEN").await.unwrap());
    }
    if let Some((kind, value)) = body {
        let text = match kind {
            "application/json" => value.to_string(),
            _ => {
                let pairs = value.as_object().unwrap().iter();
                let pairs = pairs.map(|(name, value)| (name, value.as_str().unwrap()));
                form_urlencoded::Serializer::new(String::new())
                    .extend_pairs(pairs)
                    .finish()
            }
        };
        request = request.header("content-type", kind).body(text);
    }
    service.send(request).await
}

/// The members whose values are another each time; their schemas say what they may be.
const CHANGING: [&str; 18] = [
    "token",
    "access_token",
    "refresh_token",
    "request_id",
    "expires_in",
    "jti",
    "sid",
    "exp",
    "iat",
    "nbf",
    "auth_time",
    "kid",
    "x",
    "y",
    "grant_id",
    "status",
    "status_lists",
    "error_description",
];

/// Where an answer has other members than its example, or other values where they do not change.
fn differences(example: &Value, answer: &Value, at: &str, found: &mut Vec<String>) {
    match (example, answer) {
        (Value::Object(members), Value::Object(others)) => {
            let names = |of: &Map<String, Value>| of.keys().cloned().collect::<BTreeSet<_>>();
            if names(members) != names(others) {
                found.push(format!("{at}: {answer}, not {example}"));
                return;
            }
            for (name, example) in members {
                if !CHANGING.contains(&name.as_str()) {
                    differences(example, &others[name], &format!("{at}/{name}"), found);
                }
            }
        }
        (Value::Array(all), Value::Array(others)) if all.len() == others.len() => {
            for (example, answer) in all.iter().zip(others) {
                differences(example, answer, at, found);
            }
        }
        (Value::String(example), Value::String(_)) if example.starts_with("eyJ") => {}
        _ if example == answer => {}
        _ => found.push(format!("{at}: {answer}, not {example}")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_is_what_the_service_answers() {
    let world = World::start().await;
    let (mut shown, mut wrong) = (BTreeSet::new(), Vec::new());
    for operation in operations() {
        let (requests, answers) = (operation.requests(), operation.answers());
        let all: BTreeSet<_> = requests.keys().chain(answers.keys()).collect();
        for name in all {
            let what = format!("{} {}, {name}", operation.method, operation.path);
            let Some((status, expected)) = answers.get(name) else {
                wrong.push(format!("{what}: no example of an answer"));
                continue;
            };
            let answer = sent(&world, &operation, name, requests.get(name)).await;
            if answer.status != *status {
                wrong.push(format!("{what}: {} {}", answer.status, answer.body));
                continue;
            }
            if let Some(body) = expected.body {
                let body = world.filled(body).await;
                differences(&body, &answer.body, &what, &mut wrong);
            }
            for (header, example) in &expected.headers {
                let changes = ["etag", "location"].contains(&header.to_lowercase().as_str());
                if !changes && answer.header(header) != example.as_str().unwrap() {
                    wrong.push(format!("{what}: {header}: {}", answer.header(header)));
                }
            }
            shown.insert((operation.path, *status));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    for operation in operations() {
        let well = operation.responses().next().unwrap().0;
        let is_shown = shown.contains(&(operation.path, well));
        // An example of itself would be as long as itself.
        let itself = operation.path == "/openapi.json";
        assert!(
            is_shown || itself,
            "{} {well} has no example",
            operation.path
        );
    }
}

#[tokio::test]
async fn it_is_served_as_the_key_set_is_and_names_the_issuer_and_the_version() {
    let issuer = Issuer::start().await;
    let service = Service::builder()
        .env("CLERK_JWT_ISSUER", &issuer.url)
        .env("EXCHEQUER_ISSUER", "https://auth.example.com/tokens")
        .start()
        .await;
    let answer = service.get("/openapi.json").await;
    assert_eq!(answer.status, 200);
    for (name, value) in [
        ("content-type", "application/json"),
        ("cache-control", "public, max-age=300"),
        ("access-control-allow-origin", "*"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(answer.header(name), value);
    }
    let mut expected = DOCUMENT.clone();
    expected["servers"] = json!([{"url": "https://auth.example.com/tokens"}]);
    expected["info"]["version"] = env!("CARGO_PKG_VERSION").into();
    assert_eq!(answer.body, expected);

    let etag = answer.header("etag").to_owned();
    let again = service.client.get(format!("{}/openapi.json", service.url));
    let unchanged = service.send(again.header("if-none-match", &etag)).await;
    assert_eq!((unchanged.status, &unchanged.body), (304, &json!("")));
    assert_eq!(unchanged.header("etag"), etag);
    let head = service.client.head(format!("{}/openapi.json", service.url));
    let head = service.send(head).await;
    assert_eq!((head.status, head.header("etag")), (200, etag.as_str()));
    assert_eq!(
        head.header("content-length"),
        answer.header("content-length")
    );
    let posted = service.client.post(format!("{}/openapi.json", service.url));
    let posted = service.send(posted).await;
    posted.assert_refused(405, "method_not_allowed");
    assert_eq!(posted.header("allow"), "GET, HEAD");

    // Another issuer's is another document.
    let other = Service::trusting(&issuer).await;
    assert_ne!(other.get("/openapi.json").await.header("etag"), etag);
    // The admin listener is not in it, nor does it have it.
    assert_eq!(service.admin("/openapi.json").await.status, 404);
    for path in ["/livez", "/readyz", "/metrics", "/clients"] {
        assert_eq!(described::template(path), None);
    }
}

/// The text between the first of these marks and the second, wherever they are.
fn between<'t>(text: &'t str, begin: &'t str, end: &'t str) -> impl Iterator<Item = &'t str> {
    text.split(begin)
        .skip(1)
        .filter_map(move |rest| Some(rest.split_once(end)?.0))
}

#[test]
fn every_route_is_described_and_nothing_else() {
    let source = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("src/http")
            .join(name);
        std::fs::read_to_string(path).unwrap()
    };
    // Where a path is a constant, it is one of a module of this name.
    let paths = |text: &str| -> Vec<String> {
        let quoted = text.split('"').skip(1).step_by(2);
        quoted
            .filter(|path| path.starts_with('/') && !path.ends_with('/'))
            .map(str::to_owned)
            .collect()
    };
    let constants: BTreeMap<String, Vec<String>> = ["exchange", "resource", "verify"]
        .into_iter()
        .flat_map(|module| {
            let text = source(&format!("{module}.rs"));
            let constants: Vec<_> = between(&text, "const ", ";\n")
                .filter_map(|constant| {
                    let (name, value) = constant
                        .split_once(": &str = ")
                        .or_else(|| constant.split_once(": [&str; 2] = "))?;
                    Some((format!("{module}::{name}"), paths(value)))
                })
                .collect();
            constants
        })
        .collect();
    let routes = source("routes.rs");
    let doors = routes.split_once("Doors::default()").unwrap().1;
    let doors = doors.split_once("\n}\n").unwrap().0;
    let mut expected = BTreeSet::new();
    for door in doors.split("Route::").skip(1) {
        let named = constants
            .iter()
            .filter(|(name, _)| door.contains(&format!("{name},")));
        let named: Vec<String> = named.flat_map(|(_, paths)| paths.clone()).collect();
        let paths = [paths(door), named].concat();
        assert!(!paths.is_empty(), "{door}");
        expected.extend(paths);
    }
    let described: BTreeSet<String> = operations().map(|each| each.path.to_owned()).collect();
    assert!(expected.len() > 15, "{expected:?}");
    assert_eq!(described, expected);
}

/// The values of the `code` of a response.
fn codes(response: &Value) -> BTreeSet<String> {
    fn collect(schema: &Value, codes: &mut BTreeSet<String>) {
        let schema = resolved(schema);
        for each in schema["anyOf"].as_array().into_iter().flatten() {
            collect(each, codes);
        }
        for code in schema["enum"].as_array().into_iter().flatten() {
            assert!(
                codes.insert(code.as_str().unwrap().to_owned()),
                "{code} twice"
            );
        }
    }
    let schema = &response["content"]["application/json"]["schema"]["allOf"][1]["properties"];
    let mut all = BTreeSet::new();
    let code = &schema["code"];
    match code["const"].as_str() {
        Some(code) => drop(all.insert(code.to_owned())),
        None => collect(code, &mut all),
    }
    all
}

#[test]
fn every_code_stands_under_the_status_and_the_word_of_the_catalogue() {
    let mut listed = BTreeSet::new();
    for operation in operations() {
        for (status, response) in operation.responses().filter(|(status, _)| *status >= 400) {
            let what = format!("{} {} {status}", operation.method, operation.path);
            let words = &response["content"]["application/json"]["schema"]["allOf"][1]["properties"]
                ["error"];
            let words: BTreeSet<&str> = match words["const"].as_str() {
                Some(word) => BTreeSet::from([word]),
                None => words["enum"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|word| word.as_str().unwrap())
                    .collect(),
            };
            let mut used = BTreeSet::new();
            let codes = codes(response);
            assert!(!codes.is_empty(), "{what}");
            for slug in codes {
                let code = Code::from_slug(&slug).unwrap_or_else(|| panic!("{what}: {slug}"));
                let entry = code.entry();
                // Where the rules of an endpoint give another status or word (`answer::told`).
                let grant = operation.path == "/oauth/token"
                    && ["invalid_token", "access_denied"].contains(&entry.error);
                let bound = operation.path == "/auth/verify"
                    && ["invalid_dpop_proof", "use_dpop_nonce"].contains(&entry.error);
                let expected = match () {
                    () if grant => 400,
                    () if bound => 401,
                    () => entry.status,
                };
                assert_eq!(expected, status, "{what}: {slug}");
                let own = if grant {
                    vec!["invalid_request", "invalid_grant"]
                } else {
                    vec![entry.error]
                };
                for word in own {
                    assert!(words.contains(word), "{what}: {slug} is {word}");
                    used.insert(word);
                }
                listed.insert(slug);
            }
            assert_eq!(used, words, "{what}");
        }
    }
    // What an answer of the public listener can never have: the admin listener's, and what a
    // sign-in tells the app in its redirect.
    let elsewhere = [
        "method_not_allowed",
        "client_exists",
        "client_not_registered",
        "client_settings_invalid",
        "admin_token_invalid",
        "response_type_unsupported",
        "pkce_required",
        "sign_in_too_long",
        "sign_in_denied",
        "provider_client_unknown",
        "provider_code_refused",
        "provider_refused",
        "provider_answer_invalid",
        "id_token_nonce_mismatch",
    ];
    for code in Code::ALL
        .iter()
        .map(|code| code.entry())
        .filter(|entry| entry.status > 0)
    {
        let elsewhere = elsewhere.contains(&code.slug) || code.slug.starts_with("console_");
        assert_ne!(elsewhere, listed.contains(code.slug), "{}", code.slug);
    }
}

/// A program of `tests/openapi/install.sh`, in one of its folders.
fn installed(folder: &str, name: &str) -> PathBuf {
    let program = Path::new(FOLDER).join(folder).join(name);
    assert!(
        program.exists(),
        "run tests/openapi/install.sh: {name} is missing"
    );
    program
}

/// The file.
fn document() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http/openapi.json")
}

/// Runs a command that must end well.
#[track_caller]
fn succeeds(command: &mut Command) -> String {
    let ended = command.output().unwrap();
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    let errors = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{said}\n{errors}");
    said
}

#[test]
fn types_for_typescript_compile() {
    let folder = tempfile::tempdir().unwrap();
    let bin = "node_modules/.bin";
    let generator = &mut Command::new(installed(bin, "openapi-typescript"));
    let types = folder.path().join("exchequer.d.ts");
    succeeds(generator.arg(document()).arg("-o").arg(types));
    let program = folder.path().join("program.ts");
    std::fs::copy(Path::new(FOLDER).join("program.ts"), &program).unwrap();
    let compiler = &mut Command::new(installed(bin, "tsc"));
    let options = "--noEmit --strict --target es2022 --module nodenext --lib es2022,dom";
    succeeds(compiler.args(options.split(' ')).arg(program));
}

#[test]
fn it_is_valid_openapi_3_1() {
    let validator = &mut Command::new(installed(".venv/bin", "openapi-spec-validator"));
    succeeds(validator.args(["--schema", "3.1"]).arg(document()));
}

#[tokio::test(flavor = "multi_thread")]
async fn schemathesis_finds_nothing() {
    let world = World::start().await;
    let session = Session {
        lifetime: Some(600),
        ..Session::default()
    };
    let url = world.service.url.clone();
    let mut command = Command::new(installed(".venv/bin", "schemathesis"));
    command
        .current_dir(FOLDER)
        .args(["--config-file", "schemathesis.toml", "run", "--url", &url])
        .arg(document())
        .env("SUBJECT_TOKEN", world.clerk.session_token(&session))
        .env("APP_TOKEN", world.real("APP_TOKEN").await.unwrap())
        .env("CLIENT_SECRET", SECRET);
    let said = tokio::task::spawn_blocking(move || succeeds(&mut command));
    let said = said.await.unwrap();
    let all = operations().count();
    assert!(said.contains(&format!("Tested: {all}\n")), "{said}");
}
