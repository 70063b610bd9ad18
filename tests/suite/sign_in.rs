//! Sign-in that the backend begins: to a provider and back, with a code that one app exchanges
//! once; and every way to get somebody else's.

use crate::support::issuer::JWKS;
use crate::support::{
    Answer, Behaviour, Foreign, Issuer, Key, Service, Token, clerk, eventually, token,
};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use exchequer::crypto::sha256;
use exchequer::standin::known;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use url::{Url, form_urlencoded};

/// What the app makes for each sign-in.
pub const VERIFIER: &str = "dBjftJeZ4CVP-mBWgjsAJkSZIbp9JQ8kBqhtVwMtXhM";
pub const BACK: &str = "https://app.example.com/back?tab=a";
pub const SECRET: &str = "f+g%20h:i&j=k/l and more";
pub const OURS: &str = "http://localhost:8080";

pub fn challenge() -> String {
    URL_SAFE_NO_PAD.encode(sha256(VERIFIER.as_bytes()))
}

/// A service whose app `web` has sign-in at `op` and `other`.
pub fn with(issuer: &Issuer, lines: &str) -> crate::support::service::Builder {
    let url = &issuer.url;
    let provider = |name: &str, path: &str| {
        format!(
            "[providers.{name}]\nissuer = \"{url}{path}\"\nclient_id = \"exchequer {name}\"\n\
             client_secret = {{ env = \"OP_SECRET\" }}\n\
             authorization_endpoint = \"{url}/authorize\"\ntoken_endpoint = \"{url}/token\"\n"
        )
    };
    Service::builder()
        .config(&format!(
            "{}{}[apps.web]\nsubject = 'sub'\n[apps.web.sign_in]\nproviders = [\"op\", \"other\"]\n\
             redirect_uris = [{BACK:?}, \"app://oauth-native-callback\", \"http://127.0.0.1/back\", \"http://[::1]/back\"]\n\
             [apps.second]\nclaims.second = 'true'\naudience = \"second\"\n\
             [apps.second.sign_in]\nproviders = [\"op\"]\nredirect_uris = {BACK:?}\n{lines}\n",
            provider("op", ""),
            provider("other", "/other"),
        ))
        .env("OP_SECRET", SECRET)
        .env("EXCHEQUER_AUDIT", "file:audit")
}

pub async fn world() -> (Issuer, Service) {
    let issuer = Issuer::start().await;
    let service = with(&issuer, "").start().await;
    (issuer, service)
}

pub fn query<'p>(pairs: impl IntoIterator<Item = (&'p str, &'p str)>) -> String {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.extend_pairs(pairs);
    form.finish()
}

/// Begins a sign-in with these parameters.
pub async fn login(service: &Service, provider: &str, pairs: &[(&str, &str)]) -> Answer {
    let path = format!("/auth/login/{provider}?{}", query(pairs.iter().copied()));
    service.get(&path).await
}

/// The usual parameters, some of them replaced, or left out where they are empty.
pub fn asked<'p>(challenge: &'p str, other: &[(&'p str, &'p str)]) -> Vec<(&'p str, &'p str)> {
    let mut pairs: BTreeMap<&str, &str> = BTreeMap::from([
        ("app", "web"),
        ("redirect_uri", BACK),
        ("code_challenge", challenge),
        ("code_challenge_method", "S256"),
        ("state", "the app's own"),
    ]);
    pairs.extend(other.iter().copied());
    pairs
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .collect()
}

/// Where a browser is sent, with the headers that such an answer must have.
#[track_caller]
pub fn sent(answer: &Answer) -> Url {
    assert_eq!(answer.status, 302, "{}", answer.body);
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("referrer-policy"), "no-referrer");
    Url::parse(answer.header("location")).unwrap()
}

pub fn parameters(url: &Url) -> BTreeMap<String, String> {
    let pairs: Vec<_> = url.query_pairs().into_owned().collect();
    let map: BTreeMap<_, _> = pairs.iter().cloned().collect();
    assert_eq!(map.len(), pairs.len(), "repeated: {url}");
    map
}

/// A browser on its way.
#[derive(Clone)]
pub struct Browser {
    pub cookie: String,
    pub at: BTreeMap<String, String>,
    pub provider: String,
}

impl Browser {
    pub async fn new(service: &Service, provider: &str, other: &[(&str, &str)]) -> Self {
        let answer = login(service, provider, &asked(&challenge(), other)).await;
        let url = sent(&answer);
        let cookie = answer.header("set-cookie").split(';').next().unwrap();
        Self {
            cookie: cookie.to_owned(),
            at: parameters(&url),
            provider: provider.to_owned(),
        }
    }

    /// Comes back from the provider with these parameters.
    pub async fn back(&self, service: &Service, pairs: &[(&str, &str)]) -> Answer {
        let path = format!(
            "/auth/callback/{}?{}",
            self.provider,
            query(pairs.iter().copied())
        );
        let mut request = service.client.get(format!("{}{path}", service.url));
        if !self.cookie.is_empty() {
            // Among others, as browsers send them.
            request = request.header(
                "cookie",
                format!("theme=dark; {}; __session=x", self.cookie),
            );
        }
        service.send(request).await
    }

    /// Comes back with a code.
    pub async fn with_code(&self, service: &Service) -> Answer {
        self.back(service, &[("code", "code/1"), ("state", &self.at["state"])])
            .await
    }

    /// An ID token for this sign-in.
    pub fn id_token(&self, issuer: &Issuer) -> Token {
        Token::oidc(&issuer.url, &self.at["client_id"])
            .claim("nonce", self.at["nonce"].as_str())
            .claim("email", "alice@example.com")
    }
}

/// The token endpoint gives this ID token.
pub fn gives(issuer: &Issuer, id_token: &str) {
    let body = json!({"access_token": "opaque", "token_type": "Bearer", "id_token": id_token});
    issuer.behave("/token", Behaviour::Answer(200, body.to_string()));
}

/// Signs somebody in and gives the code.
pub async fn code(issuer: &Issuer, service: &Service, other: &[(&str, &str)]) -> String {
    let browser = Browser::new(service, "op", other).await;
    gives(issuer, &browser.id_token(issuer).sign(Key::rsa()));
    let url = sent(&browser.with_code(service).await);
    parameters(&url)
        .get("code")
        .unwrap_or_else(|| panic!("{url}"))
        .clone()
}

/// Exchanges a code at the token endpoint, some parameters replaced.
pub async fn exchange(service: &Service, code: &str, other: &[(&str, &str)]) -> Answer {
    let mut pairs: BTreeMap<&str, &str> = BTreeMap::from([
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", BACK),
        ("client_id", "web"),
        ("code_verifier", VERIFIER),
    ]);
    pairs.extend(other.iter().copied());
    let request = service
        .client
        .post(format!("{}/oauth/token", service.url))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(query(pairs));
    service.send(request).await
}

#[track_caller]
pub fn app_token(answer: &Answer) -> &str {
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body["access_token"].as_str().unwrap()
}

/// Asserts that the app was told of this error, and of no code.
#[track_caller]
pub fn told(answer: &Answer, what: &str, error: &str, code: &str) -> BTreeMap<String, String> {
    let url = sent(answer);
    assert!(
        url.as_str().starts_with(&format!("{BACK}&error=")),
        "{what}: {url}"
    );
    let told = parameters(&url);
    assert_eq!(told["error"], error, "{what}: {told:?}");
    assert_eq!(told["error_code"], code, "{what}: {told:?}");
    assert!(!told["error_description"].is_empty());
    assert_eq!(told["state"], "the app's own", "{what}");
    assert_eq!(told["iss"], OURS, "{what}");
    assert!(!told.contains_key("code"), "{what}");
    told
}

/// Asserts an answer that is no redirect.
#[track_caller]
pub fn stays(answer: &Answer, status: u16, code: &str) {
    answer.assert_refused(status, code);
    assert_eq!(answer.header("referrer-policy"), "no-referrer");
    for name in ["location", "set-cookie"] {
        assert!(
            !answer.headers.contains_key(name),
            "{name} of {}",
            answer.body
        );
    }
}

#[tokio::test]
async fn a_real_provider_signs_a_user_in_and_the_app_gets_a_token() {
    let mut provider = Foreign::start("node", &["oidc-provider.mjs", "0"]);
    let about = provider.next();
    let (url, web) = (about["issuer"].as_str().unwrap(), &about["web"]);
    let service = Service::builder()
        .config(&format!(
            "[providers.op]\nissuer = {url:?}\nclient_id = {}\nclient_secret = {{ env = \"OP_SECRET\" }}\n\
             scopes = [\"openid\", \"email\"]\n\
             [apps.web]\nclaims.email = 'claims.email'\n\
             [apps.web.sign_in]\nproviders = \"op\"\nredirect_uris = {BACK:?}\n",
            web["client_id"],
        ))
        .env("OP_SECRET", web["client_secret"].as_str().unwrap())
        .start()
        .await;
    for who in ["alice", "bob"] {
        let answer = login(&service, "op", &asked(&challenge(), &[])).await;
        let to = sent(&answer);
        let cookie = answer.header("set-cookie").split(';').next().unwrap();
        let location = provider.ask(&format!("browse {who} {to}"))["location"].clone();
        let location =
            Url::parse(location.as_str().unwrap_or_else(|| panic!("{location}"))).unwrap();
        assert_eq!(location.path(), "/auth/callback/op");
        let iss = parameters(&location).remove("iss");
        assert_eq!(iss.as_deref(), Some(url), "it says who it is (RFC 9207)");
        let path = format!("{}?{}", location.path(), location.query().unwrap());
        let request = service.client.get(format!("{}{path}", service.url));
        let back = sent(&service.send(request.header("cookie", cookie)).await);
        assert!(
            back.as_str().starts_with(&format!("{BACK}&code=")),
            "{back}"
        );
        let mut back = parameters(&back);
        assert_eq!(back.remove("tab").as_deref(), Some("a"));
        let code = back.remove("code").unwrap();
        let expected = [("state", "the app's own"), ("iss", OURS)];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(back, BTreeMap::from(expected));
        let answer = exchange(&service, &code, &[]).await;
        let mut claims = token::claims(app_token(&answer));
        for time in ["exp", "iat", "nbf", "jti"] {
            claims[time].take();
        }
        assert_eq!(
            claims,
            json!({
                "iss": OURS, "sub": who, "aud": OURS, "client_id": "web", "idp": url,
                "email": format!("{who}@example.com"), "exp": null, "iat": null, "nbf": null,
                "jti": null,
            })
        );
        assert_eq!(answer.header("cache-control"), "no-store");
    }
}

#[tokio::test]
async fn clerk_is_a_provider_of_an_application_of_ones_own() {
    let clerk = clerk().await;
    let (id, secret) = clerk.oauth_client();
    let service = Service::builder()
        .config(&format!(
            "[issuers.clerk]\nissuer = {url:?}\nkind = \"clerk\"\nauthorized_parties = [\"http://localhost:3000\"]\n\
             [providers.clerk]\nkind = \"clerk\"\nissuer = {url:?}\nclient_id = {id:?}\nclient_secret = {{ env = \"S\" }}\n\
             [apps.web]\nissuers = \"clerk\"\n[apps.web.sign_in]\nproviders = \"clerk\"\nredirect_uris = {BACK:?}\n",
            url = clerk.issuer(),
        ))
        .env("S", secret)
        .start()
        .await;
    let browser = Browser::new(&service, "clerk", &[]).await;
    let at = Url::parse_with_params(&format!("{}/oauth/authorize", clerk.issuer()), &browser.at);
    let answer = service.send(service.client.get(at.unwrap())).await;
    let back = parameters(&Url::parse(answer.header("location")).unwrap());
    let pairs: Vec<_> = back
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let url = sent(&browser.back(&service, &pairs).await);
    let code = parameters(&url)
        .remove("code")
        .unwrap_or_else(|| panic!("{url}"));
    let answer = exchange(&service, &code, &[]).await;
    assert_eq!(token::claims(app_token(&answer))["sub"], known::USER);
    // The session token of the same instance goes by the issuer's own rules.
    let session = clerk.session_token(&exchequer::standin::Session::default());
    assert_eq!(service.session(&session).await.status, 200);
}

#[tokio::test]
async fn github_and_facebook_tell_by_their_apis_who_signed_in() {
    let issuer = Issuer::start().await;
    let url = &issuer.url;
    let service = Service::builder()
        .config(&format!(
            "[providers.github]\nkind = \"github\"\nissuer = {url:?}\nclient_id = \"g\"\nclient_secret = {{ env = \"S\" }}\n\
             [providers.facebook]\nkind = \"facebook\"\nissuer = \"{url}/f\"\nclient_id = \"f\"\nclient_secret = {{ env = \"S\" }}\n\
             authorization_endpoint = \"{url}/f/dialog\"\ntoken_endpoint = \"{url}/f/token\"\napi_url = \"{url}/f/graph\"\n\
             [apps.web]\nsubject = 'iss + \"|\" + sub'\nclaims.told = 'claims'\n\
             [apps.web.sign_in]\nproviders = [\"github\", \"facebook\"]\nredirect_uris = {BACK:?}\n",
        ))
        .env("S", SECRET)
        .start()
        .await;
    let answers =
        |path: &str, body: Value| issuer.behave(path, Behaviour::Answer(200, body.to_string()));
    answers(
        "/login/oauth/access_token",
        json!({"access_token": "gho_1", "scope": "user:email", "token_type": "bearer"}),
    );
    answers(
        "/api/v3/user",
        json!({"id": 583_231, "login": "octocat", "name": null, "avatar_url": "https://a.example/1", "email": "public@example.com"}),
    );
    answers(
        "/api/v3/user/emails",
        json!([
            {"email": "old@example.com", "primary": false, "verified": true, "visibility": null},
            {"email": "octocat@example.com", "primary": true, "verified": true, "visibility": "private"},
        ]),
    );
    answers(
        "/f/token",
        json!({"access_token": "EAA1", "token_type": "bearer", "expires_in": 5_183_944}),
    );
    let mac = exchequer::crypto::MacKey::new(SECRET.as_bytes()).sign(&[b"EAA1"]);
    let proof: String = mac.iter().map(|byte| format!("{byte:02x}")).collect();
    let me = format!("/f/graph/me?fields=id%2Cname%2Cemail&appsecret_proof={proof}");
    answers(
        &me,
        json!({"id": "10158", "name": "Alice", "email": "alice@example.com"}),
    );
    for (provider, iss, told) in [
        (
            "github",
            format!("{url}/login/oauth"),
            json!({
                "iss": url, "sub": "583231", "preferred_username": "octocat",
                "picture": "https://a.example/1", "email": "octocat@example.com", "email_verified": true,
            }),
        ),
        (
            "facebook",
            format!("{url}/f"),
            json!({"iss": format!("{url}/f"), "sub": "10158", "name": "Alice", "email": "alice@example.com"}),
        ),
    ] {
        let browser = Browser::new(&service, provider, &[]).await;
        let pairs = [
            ("code", "1"),
            ("state", browser.at["state"].as_str()),
            ("iss", iss.as_str()),
        ];
        let back = sent(&browser.back(&service, &pairs).await);
        let code = parameters(&back)
            .remove("code")
            .unwrap_or_else(|| panic!("{back}"));
        let answer = exchange(&service, &code, &[]).await;
        let claims = token::claims(app_token(&answer));
        assert_eq!(claims["told"], told);
        let (iss, sub) = (told["iss"].as_str().unwrap(), told["sub"].as_str().unwrap());
        assert_eq!(claims["sub"], format!("{iss}|{sub}"));
        let form = issuer.bodies().pop().unwrap();
        let form: BTreeMap<_, _> = form_urlencoded::parse(form.as_bytes())
            .into_owned()
            .collect();
        assert_eq!(
            (form["client_secret"].as_str(), form["code"].as_str()),
            (SECRET, "1")
        );
    }
    for (path, token) in [
        ("/api/v3/user ", "gho_1"),
        ("/api/v3/user/emails ", "gho_1"),
        ("/f/graph/me", "EAA1"),
    ] {
        let requests = issuer.requests();
        let head = requests
            .iter()
            .find(|head| head.starts_with(&format!("GET {path}")))
            .unwrap();
        assert!(
            head.to_lowercase()
                .contains(&format!("authorization: bearer {}", token.to_lowercase())),
            "{head}"
        );
        assert!(!head.lines().next().unwrap().contains(token));
    }

    // An address that nobody verified is none; without the scope there is none either.
    for emails in [
        json!([{"email": "octocat@example.com", "primary": true, "verified": false}]),
        json!({"message": "Not Found"}),
    ] {
        answers("/api/v3/user/emails", emails);
        let browser = Browser::new(&service, "github", &[]).await;
        let back = sent(&browser.with_code(&service).await);
        let answer = exchange(&service, &parameters(&back)["code"], &[]).await;
        let told = token::claims(app_token(&answer))["told"].clone();
        assert_eq!(
            (told.get("email"), told.get("email_verified")),
            (None, None)
        );
    }

    // Their errors are no JSON of RFC 6749, and mean what they mean.
    for (provider, path, status, body, error, code) in [
        (
            "github",
            "/login/oauth/access_token",
            200,
            json!({"error": "bad_verification_code"}),
            "access_denied",
            "provider_code_refused",
        ),
        (
            "github",
            "/login/oauth/access_token",
            200,
            json!({"error": "incorrect_client_credentials"}),
            "server_error",
            "provider_client_unknown",
        ),
        (
            "github",
            "/login/oauth/access_token",
            200,
            json!({"error": "redirect_uri_mismatch"}),
            "server_error",
            "provider_refused",
        ),
        (
            "facebook",
            "/f/token",
            400,
            json!({"error": {"code": 100, "type": "OAuthException", "message": "Invalid verification code format."}}),
            "access_denied",
            "provider_code_refused",
        ),
        (
            "facebook",
            "/f/token",
            400,
            json!({"error": {"code": 101, "type": "OAuthException"}}),
            "server_error",
            "provider_client_unknown",
        ),
        (
            "facebook",
            "/f/token",
            400,
            json!({"error": {"code": 1, "type": "OAuthException"}}),
            "server_error",
            "provider_client_unknown",
        ),
    ] {
        issuer.behave(path, Behaviour::Answer(status, body.to_string()));
        let browser = Browser::new(&service, provider, &[]).await;
        let told = told(
            &browser.with_code(&service).await,
            &body.to_string(),
            error,
            code,
        );
        assert_eq!(told["source"], "upstream-idp");
    }

    // No token of theirs is one of ours: nobody's key is asked for.
    let forged = Token::oidc(url, "g").sign(Key::rsa());
    service
        .session(&forged)
        .await
        .assert_refused(401, "subject_token_kind_not_accepted");
    assert_eq!(issuer.asked(JWKS), 0);
}

#[tokio::test]
async fn the_provider_is_asked_with_a_state_a_nonce_and_a_challenge_of_our_own() {
    let (issuer, service) = world().await;
    let mut seen = Vec::new();
    for _ in 0..2 {
        let answer = login(&service, "op", &asked(&challenge(), &[])).await;
        let url = sent(&answer);
        assert!(
            url.as_str()
                .starts_with(&format!("{}/authorize?", issuer.url))
        );
        let mut at = parameters(&url);
        let mut take = |name: &str| at.remove(name).unwrap();
        let (state, nonce, ours) = (take("state"), take("nonce"), take("code_challenge"));
        assert_eq!(
            at.into_iter().collect::<Vec<_>>(),
            [
                ("client_id", "exchequer op"),
                ("code_challenge_method", "S256"),
                ("redirect_uri", "http://localhost:8080/auth/callback/op"),
                ("response_type", "code"),
                ("scope", "openid profile email"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
        let cookie = answer.header("set-cookie");
        let (pair, attributes) = cookie.split_once("; ").unwrap();
        assert_eq!(attributes, "Path=/; Max-Age=600; HttpOnly; SameSite=Lax");
        let (name, value) = pair.split_once('=').unwrap();
        for text in [&nonce, &ours] {
            assert_eq!(text.len(), 43, "256 bits: {text}");
        }
        assert_eq!(state.len(), 54, "random bits, a time and a code: {state}");
        let sealed = URL_SAFE_NO_PAD.decode(value).unwrap();
        let sealed = String::from_utf8_lossy(&sealed);
        for asked in ["app.example.com", "web", "the app's own"] {
            assert!(!sealed.contains(asked), "{asked}");
        }
        assert_ne!(ours, challenge(), "the app's challenge is the app's");
        seen.extend([state, nonce, ours, name.to_owned(), value.to_owned()]);
    }
    let count = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), count, "nothing is used twice");

    let browser = Browser::new(&service, "op", &[]).await;
    gives(&issuer, &browser.id_token(&issuer).sign(Key::rsa()));
    let answer = browser.with_code(&service).await;
    let name = browser.cookie.split('=').next().unwrap();
    let gone = format!("{name}=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax");
    assert_eq!(answer.header("set-cookie"), gone);
    let form = issuer.bodies().pop().unwrap();
    let form: BTreeMap<_, _> = form_urlencoded::parse(form.as_bytes())
        .into_owned()
        .collect();
    let proven = URL_SAFE_NO_PAD.encode(sha256(form["code_verifier"].as_bytes()));
    assert_eq!(proven, browser.at["code_challenge"]);
    let expected = [
        ("code", "code/1"),
        ("code_verifier", form["code_verifier"].as_str()),
        ("grant_type", "authorization_code"),
        ("redirect_uri", "http://localhost:8080/auth/callback/op"),
    ];
    assert_eq!(
        form.iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect::<Vec<_>>(),
        expected
    );
    let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let basic = STANDARD.encode(format!("{}:{}", encoded("exchequer op"), encoded(SECRET)));
    let requests = issuer.requests();
    let head = requests
        .iter()
        .find(|head| head.starts_with("POST /token "))
        .unwrap();
    assert!(head.contains(&format!("Basic {basic}")), "{head}");
}

#[tokio::test]
async fn over_https_the_cookie_is_this_hosts_alone() {
    let issuer = Issuer::start().await;
    let service = with(&issuer, "")
        .env("EXCHEQUER_ISSUER", "https://auth.example.com")
        .start()
        .await;
    let answer = login(&service, "op", &asked(&challenge(), &[])).await;
    sent(&answer);
    let cookie = answer.header("set-cookie");
    assert!(cookie.starts_with("__Host-exchequer-"), "{cookie}");
    assert!(
        cookie.ends_with("; Path=/; Max-Age=600; HttpOnly; SameSite=Lax; Secure"),
        "{cookie}"
    );
    let browser = Browser::new(&service, "op", &[]).await;
    gives(&issuer, &browser.id_token(&issuer).sign(Key::rsa()));
    // A cookie that a neighbour could have set is none.
    let planted = Browser {
        cookie: browser.cookie.trim_start_matches("__Host-").to_owned(),
        ..browser.clone()
    };
    stays(
        &planted.with_code(&service).await,
        400,
        "sign_in_browser_mismatch",
    );
    let back = parameters(&sent(&browser.with_code(&service).await));
    assert_eq!(back["iss"], "https://auth.example.com");
    assert!(back.contains_key("code"));
}

#[tokio::test]
async fn nobody_is_sent_to_an_address_that_is_not_registered() {
    let (_issuer, service) = world().await;
    let challenge = challenge();
    for uri in [
        "",
        "https://app.example.com",
        "https://app.example.com/back",
        "https://app.example.com/back?tab=a&x=y",
        "https://app.example.com/back?tab=a#",
        "https://app.example.com/back?tab=a#x",
        "https://app.example.com/back/?tab=a",
        "https://app.example.com/back/../back?tab=a",
        "https://app.example.com/BACK?tab=a",
        "https://APP.example.com/back?tab=a",
        "HTTPS://app.example.com/back?tab=a",
        "https://app.example.com./back?tab=a",
        "https://app.example.com:443/back?tab=a",
        "https://app.example.com/back?tab=%61",
        "https://app.example.com/%62ack?tab=a",
        " https://app.example.com/back?tab=a",
        "https://app.example.com/back?tab=a ",
        "https://app.example.com.evil.example/back?tab=a",
        "https://evilapp.example.com/back?tab=a",
        "https://user@app.example.com/back?tab=a",
        "https://app.example.com@evil.example/back?tab=a",
        "https://app.example.com\\@evil.example/back?tab=a",
        "https://evil.example/https://app.example.com/back?tab=a",
        "https://evil.example/?u=https://app.example.com/back?tab=a",
        "//app.example.com/back?tab=a",
        "/back?tab=a",
        "http://app.example.com/back?tab=a",
        "javascript:alert(1)//https://app.example.com/back?tab=a",
        "app://oauth-native-callback/",
        "app://oauth-native-callback?x=y",
        "app:oauth-native-callback",
        "APP://oauth-native-callback",
        "app2://oauth-native-callback",
        "http://localhost/back",
        "http://127.0.0.1:80/",
        "http://127.0.0.1:0/back",
        "http://127.0.0.1:99999/back",
        "http://127.0.0.1:80@evil.example/back",
        "http://127.0.0.1.evil.example/back",
        "http://127.0.0.1:80.evil.example/back",
        "http://127.1/back",
        "http://2130706433/back",
        "http://127.0.0.2/back",
        "https://127.0.0.1/back",
        "http://[::1]:0/back",
        "http://[0:0:0:0:0:0:0:1]/back",
        "http://[::ffff:127.0.0.1]/back",
        "http://[::1%25eth0]/back",
    ] {
        let answer = login(&service, "op", &asked(&challenge, &[("redirect_uri", uri)])).await;
        assert_eq!(answer.status, 400, "{uri}");
        stays(&answer, 400, "redirect_uri_not_registered");
    }
    for uri in [
        BACK,
        "app://oauth-native-callback",
        "http://127.0.0.1/back",
        "http://127.0.0.1:49152/back",
        "http://[::1]:1/back",
    ] {
        let answer = login(&service, "op", &asked(&challenge, &[("redirect_uri", uri)])).await;
        assert_eq!(sent(&answer).path(), "/authorize", "{uri}");
    }
    // Neither for another app's, nor twice, nor with a line's end.
    let answer = login(
        &service,
        "op",
        &asked(
            &challenge,
            &[
                ("app", "second"),
                ("redirect_uri", "app://oauth-native-callback"),
            ],
        ),
    )
    .await;
    stays(&answer, 400, "redirect_uri_not_registered");
    let mut twice = asked(&challenge, &[]);
    twice.push(("redirect_uri", "https://evil.example/"));
    stays(
        &login(&service, "op", &twice).await,
        400,
        "parameter_malformed",
    );
    let broken = [("redirect_uri", "https://app.example.com/back?tab=a\r\nx: y")];
    stays(
        &login(&service, "op", &asked(&challenge, &broken)).await,
        400,
        "parameter_malformed",
    );
    // The operator is told which one was sent, without what may be secret, and which are registered.
    let uri = "https://user:s3cret@app.example.com/sent?token=s3cret";
    stays(
        &login(&service, "op", &asked(&challenge, &[("redirect_uri", uri)])).await,
        400,
        "redirect_uri_not_registered",
    );
    let registered =
        format!("{BACK}, app://oauth-native-callback, http://127.0.0.1/back, http://[::1]/back");
    stays(
        &login(&service, "op", &asked(&challenge, &[("redirect_uri", "")])).await,
        400,
        "redirect_uri_not_registered",
    );
    for sent in ["\"…@app.example.com/sent?…\" was sent", "none was sent"] {
        let cause = format!("{sent}, and registered are {registered}");
        eventually("the operator is told", async || {
            let lines = service.logged("refused");
            lines.iter().any(|line| line["cause"] == cause.as_str())
        })
        .await;
    }
    assert!(!service.log().join("").contains("s3cret"));
}

#[tokio::test]
async fn an_app_and_a_provider_that_do_not_belong_together_begin_nothing() {
    let (_issuer, service) = world().await;
    let challenge = challenge();
    for (provider, other, status, code) in [
        ("op", vec![("app", "")], 400, "parameter_malformed"),
        ("op", vec![("app", "nobody")], 400, "app_unknown"),
        (
            "op",
            vec![("client_id", "second")],
            400,
            "parameter_malformed",
        ),
        ("nobody", vec![], 404, "sign_in_provider_unknown"),
        (
            "other",
            vec![("app", "second")],
            404,
            "sign_in_provider_unknown",
        ),
        ("op/", vec![], 404, "not_found"),
        ("", vec![], 404, "not_found"),
    ] {
        let answer = login(&service, provider, &asked(&challenge, &other)).await;
        stays(&answer, status, code);
    }
    // Clients of the standard name the app so.
    let pairs = asked(
        &challenge,
        &[("app", ""), ("client_id", "web"), ("response_type", "code")],
    );
    assert_eq!(
        sent(&login(&service, "op", &pairs).await).path(),
        "/authorize"
    );
    let request = service
        .client
        .head(format!("{}/auth/login/op", service.url));
    assert_eq!(service.send(request).await.status, 405);
    let request = service
        .client
        .post(format!("{}/auth/callback/op", service.url));
    service
        .send(request)
        .await
        .assert_refused(405, "method_not_allowed");
}

#[tokio::test]
async fn without_a_challenge_of_s256_nothing_begins_and_the_app_is_told() {
    let (_issuer, service) = world().await;
    let challenge = challenge();
    let padded = format!("{challenge}=");
    for (what, other, error, code) in [
        (
            "no challenge",
            vec![("code_challenge", "")],
            "invalid_request",
            "pkce_required",
        ),
        (
            "no method is plain",
            vec![("code_challenge_method", "")],
            "invalid_request",
            "pkce_required",
        ),
        (
            "plain",
            vec![("code_challenge_method", "plain")],
            "invalid_request",
            "pkce_required",
        ),
        (
            "another case",
            vec![("code_challenge_method", "s256")],
            "invalid_request",
            "pkce_required",
        ),
        (
            "neither",
            vec![("code_challenge", ""), ("code_challenge_method", "")],
            "invalid_request",
            "pkce_required",
        ),
        (
            "short",
            vec![("code_challenge", &challenge[1..])],
            "invalid_request",
            "pkce_required",
        ),
        (
            "padded",
            vec![("code_challenge", padded.as_str())],
            "invalid_request",
            "pkce_required",
        ),
        (
            "implicit",
            vec![("response_type", "token")],
            "unsupported_response_type",
            "response_type_unsupported",
        ),
        (
            "hybrid",
            vec![("response_type", "code id_token")],
            "unsupported_response_type",
            "response_type_unsupported",
        ),
        (
            "another's audience",
            vec![("audience", "second")],
            "invalid_target",
            "audience_not_allowed",
        ),
    ] {
        let answer = login(&service, "op", &asked(&challenge, &other)).await;
        told(&answer, what, error, code);
    }
    eventually("it is logged", async || {
        !service.logged("refused").is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_callback_without_its_browser_or_its_state_goes_nowhere() {
    let (issuer, service) = world().await;
    let (victim, attacker) = (
        Browser::new(&service, "op", &[]).await,
        Browser::new(&service, "op", &[]).await,
    );
    let state = victim.at["state"].as_str();
    for (what, cookie, pairs, code) in [
        (
            "no state",
            &victim.cookie,
            vec![("code", "1")],
            "sign_in_state_invalid",
        ),
        (
            "an empty state",
            &victim.cookie,
            vec![("code", "1"), ("state", "")],
            "sign_in_state_invalid",
        ),
        (
            "an unknown state",
            &victim.cookie,
            vec![("code", "1"), ("state", &state[1..])],
            "sign_in_state_invalid",
        ),
        (
            "no cookie",
            &String::new(),
            vec![("code", "1"), ("state", state)],
            "sign_in_browser_mismatch",
        ),
        (
            "another sign-in's cookie",
            &attacker.cookie,
            vec![("code", "1"), ("state", state)],
            "sign_in_browser_mismatch",
        ),
        (
            "a cookie twice",
            &format!("{0}; {0}", victim.cookie),
            vec![("code", "1"), ("state", state)],
            "sign_in_browser_mismatch",
        ),
        (
            "a cookie that was changed",
            &format!("{}x", victim.cookie),
            vec![("code", "1"), ("state", state)],
            "sign_in_browser_mismatch",
        ),
        (
            "an error for another browser",
            &String::new(),
            vec![("error", "access_denied"), ("state", state)],
            "sign_in_browser_mismatch",
        ),
        (
            "a repeated state",
            &victim.cookie,
            vec![("code", "1"), ("state", state), ("state", state)],
            "parameter_malformed",
        ),
    ] {
        let browser = Browser {
            cookie: cookie.clone(),
            ..victim.clone()
        };
        let answer = browser.back(&service, &pairs).await;
        assert_eq!(answer.body["code"], code, "{what}");
        stays(&answer, 400, code);
    }
    // A value under the other sign-in's name is the other browser's still.
    let name = victim.cookie.split('=').next().unwrap();
    let value = attacker.cookie.split('=').nth(1).unwrap();
    let browser = Browser {
        cookie: format!("{name}={value}"),
        ..victim.clone()
    };
    stays(
        &browser.with_code(&service).await,
        400,
        "sign_in_browser_mismatch",
    );
    assert_eq!(issuer.asked("/token"), 0, "no code was tried");

    // All that ended nothing: the victim's own callback does, once.
    gives(&issuer, &victim.id_token(&issuer).sign(Key::rsa()));
    assert!(parameters(&sent(&victim.with_code(&service).await)).contains_key("code"));
    stays(
        &victim.with_code(&service).await,
        400,
        "sign_in_state_invalid",
    );
    assert_eq!(issuer.asked("/token"), 1);

    let late = Browser::new(&service, "op", &[]).await;
    service.shift_clocks(601, 601);
    stays(
        &late.with_code(&service).await,
        400,
        "sign_in_state_invalid",
    );
}

/// How often the store was written to.
async fn commits(service: &Service) -> f64 {
    let name = "exchequer_store_commit_duration_seconds_count";
    service.metric(name).await.unwrap()
}

#[tokio::test]
async fn a_flood_of_sign_ins_leaves_the_store_as_it_was() {
    let issuer = Issuer::start().await;
    let service = with(&issuer, "")
        .env("EXCHEQUER_STORE", "store.redb")
        .start()
        .await;
    let before = commits(&service).await;
    let mut last = None;
    for _ in 0..200 {
        last = Some(Browser::new(&service, "op", &[]).await);
    }
    let browser = last.unwrap();
    let thief = Browser {
        cookie: String::new(),
        ..browser.clone()
    };
    stays(
        &thief.with_code(&service).await,
        400,
        "sign_in_browser_mismatch",
    );
    assert_eq!(commits(&service).await, before);
    gives(&issuer, &browser.id_token(&issuer).sign(Key::rsa()));
    assert!(parameters(&sent(&browser.with_code(&service).await)).contains_key("code"));
    let after = commits(&service).await;
    assert_eq!(after, before + 2.0, "that it came back, and its code");
}

#[tokio::test]
async fn a_sign_in_goes_on_after_a_restart_and_ends_once_all_the_same() {
    let issuer = Issuer::start().await;
    let mut service = with(&issuer, "")
        .env("EXCHEQUER_STORE", "store.redb")
        .start()
        .await;
    let browser = Browser::new(&service, "op", &[]).await;
    service.restart().await;
    gives(&issuer, &browser.id_token(&issuer).sign(Key::rsa()));
    assert!(parameters(&sent(&browser.with_code(&service).await)).contains_key("code"));
    service.restart().await;
    stays(
        &browser.with_code(&service).await,
        400,
        "sign_in_state_invalid",
    );
    // Whoever has another key ring made neither this state nor this cookie.
    let stranger = with(&issuer, "").start().await;
    let other = Browser::new(&service, "op", &[]).await;
    stays(
        &other.with_code(&stranger).await,
        400,
        "sign_in_state_invalid",
    );
}

#[tokio::test]
async fn a_cookie_or_a_state_that_was_changed_by_a_byte_is_none() {
    let (issuer, service) = world().await;
    let browser = Browser::new(&service, "op", &[]).await;
    let (name, value) = browser.cookie.split_once('=').unwrap();
    let swapped = |text: &str, place: usize| {
        let by = if &text[place..=place] == "A" {
            "B"
        } else {
            "A"
        };
        let mut text = text.to_owned();
        text.replace_range(place..=place, by);
        text
    };
    for place in (0..value.len()).step_by(7).chain([value.len() - 1]) {
        let changed = Browser {
            cookie: format!("{name}={}", swapped(value, place)),
            ..browser.clone()
        };
        stays(
            &changed.with_code(&service).await,
            400,
            "sign_in_browser_mismatch",
        );
    }
    let state = &browser.at["state"];
    for place in 0..state.len() {
        let pairs = [("code", "1"), ("state", &*swapped(state, place))];
        stays(
            &browser.back(&service, &pairs).await,
            400,
            "sign_in_state_invalid",
        );
    }
    assert_eq!(issuer.asked("/token"), 0, "no code was tried");
    gives(&issuer, &browser.id_token(&issuer).sign(Key::rsa()));
    assert!(parameters(&sent(&browser.with_code(&service).await)).contains_key("code"));
}

#[tokio::test]
async fn a_browser_that_begins_many_sign_ins_forgets_the_oldest() {
    let (issuer, service) = world().await;
    let mut jar = vec!["theme=dark".to_owned(), "exchequer-=x".to_owned()];
    let mut begun = Vec::new();
    for _ in 0..7 {
        let path = format!("/auth/login/op?{}", query(asked(&challenge(), &[])));
        let request = service.client.get(format!("{}{path}", service.url));
        let answer = service.send(request.header("cookie", jar.join("; "))).await;
        let at = parameters(&sent(&answer));
        for cookie in answer.headers.get_all("set-cookie") {
            let (pair, attributes) = cookie.to_str().unwrap().split_once("; ").unwrap();
            let name = pair.split_once('=').unwrap().0;
            if attributes.contains("Max-Age=0;") {
                jar.retain(|known| known.split_once('=').unwrap().0 != name);
            } else {
                jar.push(pair.to_owned());
            }
        }
        begun.push(Browser {
            cookie: String::new(),
            at,
            provider: "op".to_owned(),
        });
        assert_eq!(jar.len(), 2 + begun.len().min(5));
    }
    for (number, browser) in begun.into_iter().enumerate() {
        let browser = Browser {
            cookie: jar.join("; "),
            ..browser
        };
        gives(&issuer, &browser.id_token(&issuer).sign(Key::rsa()));
        let answer = browser.with_code(&service).await;
        if number < 2 {
            stays(&answer, 400, "sign_in_browser_mismatch");
        } else {
            assert!(parameters(&sent(&answer)).contains_key("code"));
        }
    }
}

#[tokio::test]
async fn what_no_cookie_could_hold_is_told_to_the_app() {
    let (_issuer, service) = world().await;
    let (challenge, long) = (challenge(), "s".repeat(1000));
    let fits = asked(&challenge, &[("scope", long.as_str())]);
    let answer = login(&service, "op", &fits).await;
    sent(&answer);
    assert!(answer.header("set-cookie").len() < 4096);
    // Escaped it is twice as long.
    let state = "\"".repeat(1000);
    let pairs = [("scope", long.as_str()), ("state", state.as_str())];
    let url = sent(&login(&service, "op", &asked(&challenge, &pairs)).await);
    let told = parameters(&url);
    assert!(url.as_str().starts_with(&format!("{BACK}&error=")), "{url}");
    assert_eq!(told["error"], "invalid_request");
    assert_eq!(told["error_code"], "sign_in_too_long");
    assert_eq!(told["state"], state);
}

#[tokio::test]
async fn a_callback_that_is_raced_is_taken_once() {
    let (issuer, service) = world().await;
    let browser = Browser::new(&service, "op", &[]).await;
    gives(&issuer, &browser.id_token(&issuer).sign(Key::rsa()));
    let (service, browser) = (&service, &browser);
    let tried = (0..100).map(|_| async move { browser.with_code(service).await });
    let answers = futures_util::future::join_all(tried).await;
    assert_eq!(
        answers.iter().filter(|answer| answer.status == 302).count(),
        1
    );
    assert_eq!(issuer.asked("/token"), 1);
}

#[tokio::test]
async fn an_app_trusts_the_issuers_of_its_providers_for_tokens_that_are_meant_for_us() {
    let (issuer, service) = world().await;
    let body = |token: &str, app: &str| json!({"subject_token": token, "app": app});
    let token = Token::oidc(&issuer.url, "exchequer op").sign(Key::rsa());
    assert_eq!(service.exchange(&body(&token, "second")).await.status, 200);
    let foreign = Token::oidc(&issuer.url, "another client").sign(Key::rsa());
    service
        .exchange(&body(&foreign, "second"))
        .await
        .assert_refused(401, "subject_token_audience_mismatch");
}

#[tokio::test]
async fn strangers_begin_and_end_so_many_sign_ins_an_address() {
    let issuer = Issuer::start().await;
    let service = with(&issuer, "")
        .env("EXCHEQUER_RATE_LIMIT", "3/1h")
        .env("EXCHEQUER_TRUSTED_PROXIES", "127.0.0.1")
        .start()
        .await;
    let path = format!("/auth/login/op?{}", query(asked(&challenge(), &[])));
    let from = async |path: &str, address: &str| {
        let request = service.client.get(format!("{}{path}", service.url));
        service
            .send(request.header("x-forwarded-for", address))
            .await
    };
    let mut statuses = Vec::new();
    for _ in 0..200 {
        let answer = from(&path, "203.0.113.9").await;
        statuses.push(answer.status);
        if answer.status == 429 {
            stays(&answer, 429, "rate_limited");
            break;
        }
    }
    assert_eq!(statuses.pop(), Some(429));
    assert!(!statuses.is_empty() && statuses.iter().all(|status| *status == 302));
    stays(
        &from("/auth/callback/op?state=x&code=y", "203.0.113.9").await,
        429,
        "rate_limited",
    );
    assert_eq!(from(&path, "203.0.113.10").await.status, 302);
}

#[tokio::test]
async fn no_state_code_or_cookie_is_in_the_log_and_the_store() {
    let (issuer, mut service) = world().await;
    service.set_env("EXCHEQUER_STORE", "store");
    service.restart().await;
    let browser = Browser::new(&service, "op", &[]).await;
    gives(&issuer, &browser.id_token(&issuer).sign(Key::rsa()));
    let url = sent(&browser.with_code(&service).await);
    let given = parameters(&url).remove("code").unwrap();
    stays(
        &browser.with_code(&service).await,
        400,
        "sign_in_state_invalid",
    );
    app_token(&exchange(&service, &given, &[]).await);
    exchange(&service, &given, &[])
        .await
        .assert_refused(400, "authorization_code_used");
    let mut lines = Vec::new();
    eventually("all is logged", async || {
        lines = service.logged("refused");
        lines.len() == 2
    })
    .await;
    let steps = service.logged("sent on");
    assert_eq!(steps.len(), 2);
    assert_eq!(
        (&steps[0]["route"], &steps[1]["route"]),
        (&json!("login"), &json!("callback"))
    );
    for step in &steps {
        assert_eq!(
            (&step["provider"], &step["app"]),
            (&json!("op"), &json!("web"))
        );
    }
    assert!(steps[1]["subject"].is_string());
    let bodies = issuer.bodies();
    let form: BTreeMap<_, _> = form_urlencoded::parse(bodies[0].as_bytes())
        .into_owned()
        .collect();
    let cookie = browser.cookie.split('=').nth(1).unwrap();
    let mut everything = service.log().join("\n").into_bytes();
    for file in ["audit", "store"] {
        everything.extend(std::fs::read(service.dir().join(file)).unwrap());
    }
    let text = String::from_utf8_lossy(&everything);
    for secret in [
        &browser.at["state"],
        &browser.at["nonce"],
        &form["code_verifier"],
        cookie,
        given.as_str(),
        "code/1",
        VERIFIER,
    ] {
        assert!(!text.contains(secret), "{secret}");
    }
    assert!(text.contains("\"action\":\"callback\""));
}
