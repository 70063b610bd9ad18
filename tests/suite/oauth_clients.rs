//! The token endpoint, driven by OAuth clients that nobody here wrote: openid-client and
//! oauth4webapi from npm, Authlib from PyPI, and Go's x/oauth2 where there is a Go; and the
//! sign-in before it at a real Dex, where there is a Go to build it.

use crate::support::{Foreign, Issuer, Service, token};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use exchequer::crypto::sha256;
use rsa::pkcs8::{EncodePrivateKey, EncodePublicKey, LineEnding};
use serde_json::{Value, json};
use url::Url;

/// High in entropy and full of what form encoding changes.
const SECRET: &str = "9oTfJ+q/Zp3w8xA1b%2Fe=0mQkV7uYhRsC";
/// What the service calls itself, wherever it listens.
const ISSUER: &str = "http://localhost:8080";

/// The libraries, and how each names a way to authenticate.
const LIBRARIES: [(&str, [(&str, &str); 2]); 4] = [
    ("openid-client", [("basic", "basic"), ("post", "post")]),
    ("oauth4webapi", [("basic", "basic"), ("post", "post")]),
    (
        "Authlib",
        [
            ("basic", "client_secret_basic"),
            ("post", "client_secret_post"),
        ],
    ),
    ("x/oauth2", [("basic", "header"), ("post", "params")]),
];

/// The foreign clients.
struct Clients {
    node: Foreign,
    python: Foreign,
    go: Option<Foreign>,
}

impl Clients {
    fn start() -> Self {
        Self {
            node: Foreign::start("node", &["oauth-client.mjs"]),
            python: Foreign::start(".venv/bin/python", &["oauth_client.py"]),
            go: Foreign::go("client", &[]),
        }
    }

    /// The libraries that are here.
    fn libraries(&self) -> Vec<(&'static str, [(&'static str, &'static str); 2])> {
        let go = self.go.is_some();
        let here = |(library, _): &(&str, _)| go || *library != "x/oauth2";
        LIBRARIES.into_iter().filter(here).collect()
    }

    /// What a library's call came to.
    fn ask(&mut self, service: &Service, library: &str, mut call: Value) -> Value {
        call["lib"] = library.into();
        call["url"] = service.url.as_str().into();
        call["issuer"] = ISSUER.into();
        let program = match library {
            "Authlib" => &mut self.python,
            "x/oauth2" => self.go.as_mut().unwrap(),
            _ => &mut self.node,
        };
        program.ask(&call.to_string())
    }

    /// The same, where it must succeed.
    fn done(&mut self, service: &Service, library: &str, call: Value) -> Value {
        let what = call.clone();
        let mut answer = self.ask(service, library, call);
        assert!(answer["ok"].is_object(), "{library}: {what}: {answer}");
        answer["ok"].take()
    }
}

async fn world() -> (Issuer, Service) {
    let issuer = Issuer::start().await;
    let service = Service::builder()
        .one_app(
            &issuer,
            "",
            "[clients.reports]\nsecret = { env = \"REPORTS_SECRET\" }\n\
             audience = [\"https://tasks.internal\", \"https://mail.internal\"]\n\
             scopes = [\"read:tasks\", \"send:mail\"]\n",
        )
        .env("REPORTS_SECRET", SECRET)
        .start()
        .await;
    (issuer, service)
}

#[tokio::test]
async fn every_library_gets_a_service_token_in_each_way_to_prove_itself() {
    let (_issuer, service) = world().await;
    let mut clients = Clients::start();
    for (library, ways) in clients.libraries() {
        for (way, auth) in ways {
            let call = json!({
                "do": "client_credentials", "client_id": "reports", "secret": SECRET, "auth": auth,
                "parameters": {"scope": "send:mail", "resource": "https://mail.internal"},
            });
            let answer = clients.done(&service, library, call);
            let claims = token::claims(answer["access_token"].as_str().unwrap());
            assert_eq!(claims["sub"], "reports", "{library} {way}");
            assert_eq!(claims["aud"], "https://mail.internal", "{library} {way}");
            assert_eq!(answer["scope"], "send:mail", "{library} {way}");
            assert_eq!(answer["expires_in"], 300, "{library} {way}");
        }
        let call = json!({
            "do": "client_credentials", "client_id": "reports", "auth": ways[0].1,
            "secret": "not the secret, but as long as it",
        });
        let answer = clients.ask(&service, library, call);
        assert_eq!(answer["error"], "invalid_client", "{library}: {answer}");
    }
}

/// The keys of RFC 7515 appendix A.3 and RFC 8037 appendix A.1, private halves and all.
fn private_keys() -> [Value; 2] {
    [
        json!({
            "kty": "EC", "crv": "P-256", "kid": "ec", "alg": "ES256",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
            "d": "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI",
        }),
        json!({
            "kty": "OKP", "crv": "Ed25519", "kid": "ed", "alg": "EdDSA",
            "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
            "d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
        }),
    ]
}

#[tokio::test]
async fn every_library_that_makes_assertions_proves_itself_by_them() {
    let issuer = Issuer::start().await;
    let public: Vec<Value> = private_keys()
        .into_iter()
        .map(|mut key| {
            key.as_object_mut().unwrap().remove("d");
            key
        })
        .collect();
    let rsa = rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 2048).unwrap();
    let pem = rsa.to_pkcs8_pem(LineEnding::LF).unwrap().to_string();
    let public_pem = rsa.to_public_key().to_public_key_pem(LineEnding::LF);
    let service = Service::builder()
        .one_app(
            &issuer,
            "",
            &format!(
                "[clients.mac]\nsecret = {{ env = \"REPORTS_SECRET\" }}\nauth_method = \"client_secret_jwt\"\n\
                 audience = \"https://tasks.internal\"\n\
                 [clients.set]\njwks = '{}'\naudience = \"https://tasks.internal\"\n\
                 [clients.pem]\npublic_key = {{ env = \"PEM\" }}\naudience = \"https://tasks.internal\"\n",
                json!({ "keys": public })
            ),
        )
        .env("REPORTS_SECRET", SECRET)
        .env("PEM", public_pem.unwrap())
        .start()
        .await;
    let mut clients = Clients::start();
    let call =
        |id: &str, auth: &str| json!({"do": "client_credentials", "client_id": id, "auth": auth});
    let with = |mut call: Value, name: &str, value: Value| {
        call[name] = value;
        call
    };
    let mut calls = vec![
        (
            "Authlib",
            with(call("mac", "client_secret_jwt"), "secret", json!(SECRET)),
        ),
        (
            "Authlib",
            with(call("pem", "private_key_jwt"), "key", json!(pem)),
        ),
    ];
    for library in ["openid-client", "oauth4webapi"] {
        calls.push((
            library,
            with(call("mac", "secret_jwt"), "secret", json!(SECRET)),
        ));
        for key in private_keys() {
            calls.push((library, with(call("set", "key_jwt"), "key", key)));
        }
    }
    for (library, call) in calls {
        // Each assertion is a new one.
        for _ in 0..2 {
            let answer = clients.done(&service, library, call.clone());
            let claims = token::claims(answer["access_token"].as_str().unwrap());
            assert_eq!(claims["sub"], call["client_id"], "{library}");
        }
        if call["secret"].is_string() {
            let wrong = with(
                call,
                "secret",
                json!("not the secret, but as long as it is"),
            );
            let answer = clients.ask(&service, library, wrong);
            assert_eq!(answer["error"], "invalid_client", "{library}: {answer}");
        }
    }
}

const BACK: &str = "https://app.example.com/back";
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

/// A provider that runs, its settings, and its client's secret.
struct Upstream {
    program: Foreign,
    settings: String,
    secret: String,
    is_dex: bool,
}

impl Upstream {
    /// Dex, where there is a Go; else npm's oidc-provider.
    fn start() -> Self {
        let callback = format!("{ISSUER}/auth/callback/op");
        if let Some(program) = Foreign::go("dex", &[&Foreign::dex_web(), &callback]) {
            let url = program.next();
            return Self {
                program,
                settings: format!(
                    "issuer = {url}\nclient_id = \"exchequer\"\nscopes = [\"openid\", \"email\"]\n"
                ),
                secret: "dex-knows-this-secret".to_owned(),
                is_dex: true,
            };
        }
        let program = Foreign::start("node", &["oidc-provider.mjs", "0"]);
        let about = program.next();
        Self {
            program,
            settings: format!(
                "issuer = {}\nclient_id = {}\n",
                about["issuer"], about["web"]["client_id"]
            ),
            secret: about["web"]["client_secret"].as_str().unwrap().to_owned(),
            is_dex: false,
        }
    }

    /// What the provider sends the browser back with, from where it was sent to.
    async fn signs_in(&mut self, service: &Service, to: &str) -> Url {
        if !self.is_dex {
            let answer = self.program.ask(&format!("browse alice {to}"));
            return Url::parse(answer["location"].as_str().unwrap()).unwrap();
        }
        let mut at = Url::parse(to).unwrap();
        for _ in 0..10 {
            let answer = service.send(service.client.get(at.clone())).await;
            at = at.join(answer.header("location")).unwrap();
            if at.as_str().starts_with(ISSUER) {
                return at;
            }
        }
        panic!("Dex sends nobody back: {at}")
    }
}

/// Signs a user in, as a browser does; gives where the app is called back.
async fn called_back(service: &Service, upstream: &mut Upstream) -> String {
    let challenge = URL_SAFE_NO_PAD.encode(sha256(VERIFIER.as_bytes()));
    let query = [
        ("response_type", "code"),
        ("client_id", "web"),
        ("redirect_uri", BACK),
        ("code_challenge", &challenge),
        ("code_challenge_method", "S256"),
        ("state", "the-state-of-the-app"),
        ("scope", "offline_access"),
    ];
    let login = Url::parse_with_params(&format!("{}/auth/login/op", service.url), query).unwrap();
    let answer = service.send(service.client.get(login)).await;
    assert_eq!(answer.status, 302, "{}", answer.body);
    let cookie = answer.header("set-cookie").split(';').next().unwrap();
    let back = upstream.signs_in(service, answer.header("location")).await;
    let path = format!("{}?{}", back.path(), back.query().unwrap());
    let request = service.client.get(format!("{}{path}", service.url));
    let answer = service.send(request.header("cookie", cookie)).await;
    assert_eq!(answer.status, 302, "{}", answer.body);
    answer.header("location").to_owned()
}

#[tokio::test]
async fn every_library_takes_a_code_refreshes_asks_and_revokes() {
    let mut upstream = Upstream::start();
    let service = Service::builder()
        .config(&format!(
            "[providers.op]\n{}client_secret = {{ env = \"OP_SECRET\" }}\n\
             [apps.web]\nrefresh = {{}}\n\
             [apps.web.sign_in]\nproviders = \"op\"\nredirect_uris = {BACK:?}\n\
             [clients.reports]\nsecret = {{ env = \"REPORTS_SECRET\" }}\napps = \"web\"\n\
             audience = \"https://tasks.internal\"\n",
            upstream.settings
        ))
        .env("OP_SECRET", &upstream.secret)
        .env("REPORTS_SECRET", SECRET)
        .start()
        .await;
    let mut clients = Clients::start();
    for (library, ways) in clients.libraries() {
        let public = match library {
            "x/oauth2" => "params",
            _ => "none",
        };
        let call = json!({
            "do": "code", "client_id": "web", "auth": public, "redirect_uri": BACK,
            "callback": called_back(&service, &mut upstream).await,
            "state": "the-state-of-the-app", "code_verifier": VERIFIER,
        });
        let given = clients.done(&service, library, call);
        let first = token::claims(given["access_token"].as_str().unwrap());
        assert_eq!(first["client_id"], "web", "{library}");
        assert_eq!(
            given["token_type"].as_str().unwrap().to_lowercase(),
            "bearer"
        );

        let refresh = json!({
            "do": "refresh", "client_id": "web", "auth": public,
            "refresh_token": given["refresh_token"],
        });
        let given = clients.done(&service, library, refresh);
        let second = given["access_token"].as_str().unwrap().to_owned();
        let claims = token::claims(&second);
        assert_eq!(claims["sub"], first["sub"], "{library}");
        assert_ne!(claims["jti"], first["jti"], "{library}");

        // x/oauth2 knows neither of the two, nor any other grant.
        if library == "x/oauth2" {
            continue;
        }
        let proven = |what: &str, further: Value| {
            let mut call = json!({
                "do": what, "client_id": "reports", "secret": SECRET, "auth": ways[0].1,
            });
            let further = further.as_object().unwrap().clone();
            call.as_object_mut().unwrap().extend(further);
            call
        };
        let exchange = json!({
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "parameters": {
                "subject_token": second, "audience": "https://tasks.internal",
                "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
            },
        });
        let other = clients.done(&service, library, proven("grant", exchange));
        let other = token::claims(other["access_token"].as_str().unwrap());
        assert_eq!(other["aud"], "https://tasks.internal", "{library}");
        assert_eq!(other["act"], json!({"sub": "reports"}), "{library}");

        let question = proven("introspect", json!({"token": second}));
        let told = clients.done(&service, library, question.clone());
        assert_eq!(
            (&told["active"], &told["sub"]),
            (&json!(true), &first["sub"])
        );
        let revoke = proven("revoke", json!({"token": second}));
        clients.done(&service, library, revoke);
        let told = clients.done(&service, library, question);
        assert_eq!(told, json!({"active": false}), "{library}");
    }
}
