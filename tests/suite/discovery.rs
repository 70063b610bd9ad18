//! Where an issuer's key set is: discovered, configured or at the usual place, and never
//! where a document of the issuer's must not lead.

use crate::support::issuer::{DISCOVERY, JWKS};
use crate::support::{Answer, Behaviour, Issuer, Key, Service, Token, eventually};
use serde_json::{Value, json};

/// A configuration whose one app trusts these OpenID Connect issuers, each with this line.
fn trusting(issuers: &[Issuer], line: &str) -> String {
    let mut toml = String::new();
    let mut names = Vec::new();
    for (index, issuer) in issuers.iter().enumerate() {
        toml += &format!(
            "[issuers.i{index}]\nissuer = '{}'\nkind = 'oidc'\n{line}\n",
            issuer.url
        );
        names.push(format!("'i{index}'"));
    }
    let names = names.join(", ");
    toml + &format!("[apps.all]\nissuers = [{names}]\nsubject = 'iss + \"|\" + sub'\n")
}

async fn start(issuers: &[Issuer], line: &str) -> Service {
    Service::builder()
        .config(&trusting(issuers, line))
        .start()
        .await
}

async fn exchange(service: &Service, issuer: &Issuer) -> Answer {
    let token = Token::oidc(&issuer.url, "web").sign(Key::rsa());
    service.session(&token).await
}

fn key_set() -> String {
    json!({ "keys": [Key::rsa().jwk("ins_1")] }).to_string()
}

#[track_caller]
fn assert_metadata_invalid(what: &str, answer: &Answer) {
    assert_eq!(answer.status, 503, "{what}: {}", answer.body);
    answer.assert_refused(503, "issuer_metadata_invalid");
    let mut body = answer.body.clone();
    body["request_id"].take();
    body["seen"].take();
    assert_eq!(
        body,
        json!({
            "error": "temporarily_unavailable",
            "error_description": "The issuer's discovery document does not belong to the issuer.",
            "code": "issuer_metadata_invalid",
            "request_id": null,
            "retryable": false,
            "action": "fix_config",
            "source": "upstream-idp",
            "seen": null,
        }),
        "{what}"
    );
    let wait: u64 = answer.header("retry-after").parse().unwrap();
    assert!((1..=60).contains(&wait), "{what}: {wait}");
}

#[tokio::test]
async fn the_key_set_is_where_discovery_says_and_is_looked_for_anew_when_it_moves() {
    let issuers = Issuer::several(1).await;
    let issuer = &issuers[0];
    issuer.claim_jwks_uri(&format!("{}/keys", issuer.url));
    issuer.behave("/keys", Behaviour::Answer(200, key_set()));
    let service = start(&issuers, "").await;
    let answer = exchange(&service, issuer).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(
        answer.body["user"],
        json!({"id": format!("{}|248289761001", issuer.url)})
    );
    let counts = || [DISCOVERY, "/keys", "/new", JWKS].map(|path| issuer.asked(path));
    assert_eq!(counts(), [1, 1, 0, 0]);

    service.shift_clocks(0, 275);
    eventually("the key set is refreshed", async || {
        let landed = "exchequer_jwks_fetch_total{issuer=\"i0\",result=\"ok\"}";
        service.metric(landed).await == Some(2.0)
    })
    .await;
    assert_eq!(counts(), [1, 2, 0, 0], "its place is known");

    issuer.claim_jwks_uri(&format!("{}/new", issuer.url));
    issuer.behave("/keys", Behaviour::Answer(410, String::new()));
    issuer.behave("/new", Behaviour::Answer(200, key_set()));
    service.shift_clocks(0, 550);
    eventually("the old place is asked", async || {
        issuer.asked("/keys") == 3
    })
    .await;
    eventually("the new place is found", async || issuer.asked("/new") == 1).await;
    assert_eq!(counts(), [2, 3, 1, 0]);
    assert_eq!(exchange(&service, issuer).await.status, 200);
}

#[tokio::test]
async fn an_issuer_without_discovery_has_its_key_set_at_the_usual_place() {
    let issuers = Issuer::several(1).await;
    issuers[0].behave(DISCOVERY, Behaviour::Answer(404, "not here".into()));
    let service = start(&issuers, "").await;
    assert_eq!(exchange(&service, &issuers[0]).await.status, 200);
    assert_eq!(issuers[0].asked(DISCOVERY), 1);
    assert_eq!(issuers[0].asked(JWKS), 1);
}

#[tokio::test]
async fn a_discovery_that_fails_is_no_reason_to_guess() {
    let document = |issuer: &Issuer| {
        json!({"issuer": issuer.url, "jwks_uri": format!("{}{JWKS}", issuer.url)}).to_string()
    };
    let statuses = [201, 204, 300, 400, 401, 403, 410, 429, 500, 503];
    let issuers = Issuer::several(statuses.len() + 2).await;
    let mut failing = issuers.iter();
    for (status, issuer) in statuses.iter().zip(&mut failing) {
        issuer.behave(DISCOVERY, Behaviour::Answer(*status, document(issuer)));
    }
    for (behaviour, issuer) in [Behaviour::Close, Behaviour::Flood(600 * 1024)]
        .into_iter()
        .zip(&mut failing)
    {
        issuer.behave(DISCOVERY, behaviour);
    }
    let service = start(&issuers, "").await;
    for issuer in &issuers {
        let answer = exchange(&service, issuer).await;
        answer.assert_refused(503, "issuer_keys_unavailable");
        assert_eq!(answer.body["source"], "upstream-idp");
        assert_eq!(issuer.asked(JWKS), 0);
    }
}

#[tokio::test]
async fn a_configured_place_is_taken_without_asking() {
    let issuers = Issuer::several(1).await;
    let keys = Issuer::start().await;
    let line = format!("jwks_uri = '{}{JWKS}'", keys.url);
    let service = start(&issuers, &line).await;
    assert_eq!(exchange(&service, &issuers[0]).await.status, 200);
    assert_eq!(issuers[0].requests(), Vec::<String>::new());
    assert_eq!(keys.asked(JWKS), 1);
}

#[tokio::test]
async fn a_clerk_instance_is_not_asked_for_discovery() {
    let issuer = Issuer::start().await;
    issuer.claim_issuer("https://another.example.com");
    let service = Service::builder()
        .config(&format!(
            "[issuers.clerk]\nissuer = '{}'\nkind = 'clerk'\n[apps.web]\nissuers = ['clerk']\n",
            issuer.url
        ))
        .start()
        .await;
    assert_eq!(service.session(&issuer.token()).await.status, 200);
    assert_eq!(issuer.asked(DISCOVERY), 0);
}

#[tokio::test]
async fn the_document_must_name_the_issuer_byte_for_byte() {
    type Twist = fn(&str) -> String;
    let cases: [(&str, Twist); 15] = [
        ("a slash behind", |url| format!("{url}/")),
        ("a space behind", |url| format!("{url} ")),
        ("a space before", |url| format!(" {url}")),
        ("a line break behind", |url| format!("{url}\n")),
        ("a NUL behind", |url| format!("{url}\0")),
        ("https", |url| url.replacen("http", "https", 1)),
        ("another case", |url| url.replacen("http", "HTTP", 1)),
        ("a path", |url| format!("{url}/tenant")),
        ("a query", |url| format!("{url}?")),
        ("a fragment", |url| format!("{url}#")),
        ("a user", |url| url.replacen("://", "://user@", 1)),
        ("another name", |url| {
            url.replacen("127.0.0.1", "localhost", 1)
        }),
        ("a port with a zero", |url| {
            url.replacen("127.0.0.1:", "127.0.0.1:0", 1)
        }),
        ("a prefix", |url| url[..url.len() - 1].to_owned()),
        ("nothing", |_| String::new()),
    ];
    let issuers = Issuer::several(cases.len()).await;
    for ((_, twist), issuer) in cases.iter().zip(&issuers) {
        issuer.claim_issuer(&twist(&issuer.url));
    }
    let service = start(&issuers, "").await;
    for ((what, _), issuer) in cases.iter().zip(&issuers) {
        assert_metadata_invalid(what, &exchange(&service, issuer).await);
        assert_eq!(issuer.asked(JWKS), 0, "{what}");
    }
    let issuer = &issuers[0];
    issuer.claim_issuer(&issuer.url);
    service.shift_clocks(0, 120);
    eventually("it is mended", async || {
        exchange(&service, issuer).await.status == 200
    })
    .await;
}

#[tokio::test]
async fn what_is_no_discovery_document_is_named_so() {
    let issuers = Issuer::several(13).await;
    let documents: Vec<String> = issuers
        .iter()
        .enumerate()
        .map(|(index, issuer)| {
            let (url, uri) = (&issuer.url, format!("{}{JWKS}", issuer.url));
            match index {
                0 => "<!doctype html><title>Welcome</title>".to_owned(),
                1 => String::new(),
                2 => "null".to_owned(),
                3 => json!([url, uri]).to_string(),
                4 => json!([{"issuer": url, "jwks_uri": uri}]).to_string(),
                5 => json!({ "jwks_uri": uri }).to_string(),
                6 => json!({ "issuer": url }).to_string(),
                7 => json!({"issuer": [url], "jwks_uri": uri}).to_string(),
                8 => json!({"issuer": null, "jwks_uri": uri}).to_string(),
                9 => json!({"issuer": url, "jwks_uri": [uri]}).to_string(),
                10 => json!({"issuer": url, "jwks_uri": {"a": uri}}).to_string(),
                11 => format!(
                    r#"{{"issuer":"https://a.example","issuer":"{url}","jwks_uri":"{uri}"}}"#
                ),
                _ => format!("{}{}", "[".repeat(50_000), "]".repeat(50_000)),
            }
        })
        .collect();
    for (issuer, document) in issuers.iter().zip(&documents) {
        issuer.behave(DISCOVERY, Behaviour::Answer(200, document.clone()));
    }
    let service = start(&issuers, "").await;
    for (issuer, document) in issuers.iter().zip(&documents) {
        let what = document.get(..80).unwrap_or(document);
        assert_metadata_invalid(what, &exchange(&service, issuer).await);
        assert_eq!(issuer.asked(JWKS), 0, "{what}");
    }
}

#[tokio::test]
async fn a_redirect_is_never_followed() {
    let target = Issuer::start().await;
    let statuses = [301, 302, 303, 307, 308];
    let issuers = Issuer::several(statuses.len() * 4).await;
    let mut cases = issuers.iter();
    for status in statuses {
        for path in [DISCOVERY, JWKS] {
            // Elsewhere, and within the issuer's own origin.
            for base in [target.url.as_str(), ""] {
                let answer = format!(
                    "HTTP/1.1 {status} X\r\nlocation: {base}/moved\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                );
                let issuer = cases.next().unwrap();
                issuer.behave(path, Behaviour::Raw(answer.into_bytes()));
                issuer.behave("/moved", Behaviour::Answer(200, key_set()));
            }
        }
    }
    target.behave("/moved", Behaviour::Answer(200, key_set()));
    let service = start(&issuers, "").await;
    for issuer in &issuers {
        let answer = exchange(&service, issuer).await;
        answer.assert_refused(503, "issuer_keys_unavailable");
        assert_eq!(issuer.asked("/moved"), 0);
    }
    assert_eq!(target.requests(), Vec::<String>::new());
}

/// Key set addresses that no issuer's document may lead to, with any setting. `own` is the
/// issuer's own URL; `inside` is another port of this machine.
fn never_allowed(own: &str, inside: &str) -> Vec<String> {
    let own = own.trim_start_matches("http://");
    vec![
        "file:///etc/passwd".into(),
        "file://localhost/etc/passwd".into(),
        format!("ftp://127.0.0.1:{inside}/keys"),
        format!("gopher://127.0.0.1:{inside}/_GET%20/keys"),
        format!("ws://127.0.0.1:{inside}/keys"),
        format!("unix:/var/run/{inside}"),
        "data:application/json,{\"keys\":[]}".into(),
        "javascript:alert(1)".into(),
        "about:blank".into(),
        String::new(),
        JWKS.into(),
        format!("//127.0.0.1:{inside}{JWKS}"),
        format!("127.0.0.1:{inside}{JWKS}"),
        format!("http://:{inside}{JWKS}"),
        format!("http://[::1:{inside}{JWKS}"),
        format!("http://user@{own}{JWKS}"),
        format!("http://user:password@{own}{JWKS}"),
        format!("http://:password@{own}{JWKS}"),
        format!("http://{own}@127.0.0.1:{inside}{JWKS}"),
        format!("https://idp.example.com@127.0.0.1:{inside}{JWKS}"),
        format!("https://idp.example.com%40127.0.0.1:{inside}{JWKS}"),
    ]
}

/// Those that only an issuer with `allow_private_network` may lead to.
fn private(inside: &str) -> Vec<String> {
    let mut all = vec![
        "http://169.254.169.254/latest/meta-data".into(),
        "https://169.254.169.254/latest/meta-data".into(),
        "http://[fd00:ec2::254]/latest/meta-data".into(),
        "http://metadata.google.internal/keys".into(),
        "http://idp.example.com/keys".into(),
    ];
    for host in [
        "127.0.0.1",
        "127.0.0.2",
        "127.1",
        "localhost",
        "LOCALHOST",
        "idp.localhost",
        "0.0.0.0",
        "0",
        "[::1]",
        "[::]",
        "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0x7f.1",
        "0177.0.0.1",
        "017700000001",
        "127.0.0.1.",
        "%31%32%37.0.0.1",
        "①②⑦.⓪.⓪.①",
        "127。0。0。1",
        "1\t27.0.0.1",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.0.1",
        "100.64.0.1",
        "[fc00::1]",
        "[fe80::1]",
    ] {
        all.push(format!("http://{host}:{inside}{JWKS}"));
        all.push(format!("https://{host}:{inside}{JWKS}"));
    }
    all
}

fn port(issuer: &Issuer) -> &str {
    issuer.url.rsplit(':').next().unwrap()
}

#[tokio::test]
async fn a_document_never_leads_inside() {
    let inside = Issuer::start().await;
    let count = never_allowed("", "").len() + private("").len();
    let issuers = Issuer::several(count).await;
    let uris: Vec<String> = issuers
        .iter()
        .enumerate()
        .map(|(index, issuer)| {
            let mut all = never_allowed(&issuer.url, port(&inside));
            all.extend(private(port(&inside)));
            all.swap_remove(index)
        })
        .collect();
    for (issuer, uri) in issuers.iter().zip(&uris) {
        issuer.claim_jwks_uri(uri);
    }
    let service = start(&issuers, "").await;
    for (issuer, uri) in issuers.iter().zip(&uris) {
        assert_metadata_invalid(uri, &exchange(&service, issuer).await);
        assert_eq!(issuer.asked(JWKS), 0, "{uri}");
    }
    assert_eq!(inside.requests(), Vec::<String>::new());
}

#[tokio::test]
async fn on_its_own_origin_a_document_may_lead_anywhere() {
    let issuers = Issuer::several(4).await;
    for (index, issuer) in issuers.iter().enumerate() {
        let own = issuer.url.trim_start_matches("http://");
        let port = port(issuer);
        issuer.claim_jwks_uri(&match index {
            0 => format!("HTTP://{own}{JWKS}"),
            1 => format!("http://2130706433:{port}{JWKS}"),
            2 => format!("http://{own}/a/..{JWKS}"),
            _ => format!("http://{own}{JWKS}#keys"),
        });
    }
    let service = start(&issuers, "").await;
    for issuer in &issuers {
        let answer = exchange(&service, issuer).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(issuer.asked(JWKS), 1);
    }
}

#[tokio::test]
async fn with_allow_private_network_a_document_may_lead_inside_but_only_over_http() {
    let inside = Issuer::start().await;
    let places = [
        inside.url.clone(),
        format!("http://localhost:{}", port(&inside)),
        format!("http://[::ffff:127.0.0.1]:{}", port(&inside)),
    ];
    let count = places.len() + never_allowed("", "").len();
    let issuers = Issuer::several(count).await;
    let (open, never) = issuers.split_at(places.len());
    for (issuer, place) in open.iter().zip(&places) {
        issuer.claim_jwks_uri(&format!("{place}{JWKS}"));
    }
    let uris: Vec<String> = never
        .iter()
        .enumerate()
        .map(|(index, issuer)| never_allowed(&issuer.url, port(&inside)).swap_remove(index))
        .collect();
    for (issuer, uri) in never.iter().zip(&uris) {
        issuer.claim_jwks_uri(uri);
    }
    let service = start(&issuers, "allow_private_network = true").await;
    for (issuer, place) in open.iter().zip(&places) {
        let answer = exchange(&service, issuer).await;
        assert_eq!(answer.status, 200, "{place}: {}", answer.body);
    }
    for (issuer, uri) in never.iter().zip(&uris) {
        assert_metadata_invalid(uri, &exchange(&service, issuer).await);
    }
    assert_eq!(inside.asked(JWKS), places.len());
    assert_eq!(inside.requests().len(), places.len());
}

#[tokio::test]
async fn a_request_to_an_issuer_says_who_asks_and_nothing_about_whom() {
    let issuers = Issuer::several(1).await;
    let issuer = &issuers[0];
    let service = start(&issuers, "").await;
    let token = Token::oidc(&issuer.url, "web").sign(Key::rsa());
    let unknown = Token::oidc(&issuer.url, "web")
        .header("kid", "ins_2")
        .sign(Key::rsa());
    for token in [&token, &unknown] {
        let request = service
            .client
            .post(format!("{}/auth/exchange", service.url))
            .bearer_auth(token)
            .header("cookie", "session=secret")
            .header("x-forwarded-for", "192.0.2.1")
            .header("traceparent", format!("00-{:032x}-{:016x}-01", 7, 7))
            .header("x-request-id", "asked-by-a-client");
        service.send(request).await;
    }
    let requests = issuer.requests();
    let paths: Vec<&str> = requests
        .iter()
        .filter_map(|head| head.split("\r\n").next())
        .collect();
    assert_eq!(
        paths,
        [DISCOVERY, JWKS, DISCOVERY, JWKS].map(|path| format!("GET {path} HTTP/1.1"))
    );
    for head in &requests {
        let headers: Value = head
            .split("\r\n")
            .skip(1)
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.into()))
            .collect::<serde_json::Map<_, _>>()
            .into();
        assert_eq!(
            headers,
            json!({
                "accept": "application/json",
                "user-agent": concat!("exchequer/", env!("CARGO_PKG_VERSION")),
                "host": issuer.url.trim_start_matches("http://"),
            })
        );
    }
}

#[tokio::test]
async fn a_key_set_that_moved_is_found_again_by_a_kid_that_the_old_place_lacks() {
    let issuers = Issuer::several(1).await;
    let issuer = &issuers[0];
    let service = start(&issuers, "").await;
    let token = |kid: &str, key: &Key| {
        let token = Token::oidc(&issuer.url, "web").header("kid", kid);
        json!({"subject_token": token.sign(key)})
    };
    let warm = service.exchange(&token("ins_1", Key::rsa())).await;
    assert_eq!(warm.status, 200, "{}", warm.body);
    let moved = json!({"keys": [Key::other_rsa().jwk("ins_2")]}).to_string();
    issuer.behave("/moved", Behaviour::Answer(200, moved));
    issuer.claim_jwks_uri(&format!("{}/moved", issuer.url));
    let answer = service.exchange(&token("ins_2", Key::other_rsa())).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}
