//! How often one may ask: each subject of each app, and each client address; whoever fails,
//! less often.

use crate::support::{Answer, Command, Issuer, Key, Service, Token, clerk, eventually};
use serde_json::{Value, json};

async fn limited(issuer: &Issuer, limit: &str) -> Service {
    Service::builder()
        .env("CLERK_JWT_ISSUER", &issuer.url)
        .env("EXCHEQUER_RATE_LIMIT", limit)
        .env("EXCHEQUER_TRUSTED_PROXIES", "127.0.0.1")
        .start()
        .await
}

/// Exchanges as a proxy on this machine passes it on.
async fn from(service: &Service, forwarded: &[&str], token: &str) -> Answer {
    let mut request = service
        .client
        .post(format!("{}/auth/exchange", service.url))
        .header("content-type", "application/json")
        .body(json!({ "session_token": token }).to_string());
    for value in forwarded {
        request = request.header("x-forwarded-for", *value);
    }
    service.send(request).await
}

/// `RateLimit-Limit`, `-Remaining` and `-Reset`.
fn rates(answer: &Answer) -> [String; 3] {
    ["limit", "remaining", "reset"].map(|name| answer.header(&format!("ratelimit-{name}")).into())
}

fn of(issuer: &Issuer, user: &str) -> String {
    Token::clerk(&issuer.url)
        .claim("sub", user)
        .sign(Key::rsa())
}

fn forged(issuer: &Issuer) -> String {
    Token::clerk(&issuer.url).sign(Key::other_rsa())
}

#[tokio::test]
async fn a_subject_that_asks_too_often_waits_as_long_as_it_is_told() {
    let issuer = Issuer::start().await;
    let service = limited(&issuer, "5/5m").await;
    let token = of(&issuer, "user_1");
    for left in ["4", "3", "2", "1", "0"] {
        let answer = service.session(&token).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let [limit, remaining, reset] = rates(&answer);
        assert_eq!((limit.as_str(), remaining.as_str()), ("5", left));
        let reset: i64 = reset.parse().unwrap();
        let full = 60 * (5 - left.parse::<i64>().unwrap());
        assert!((full - 20..=full).contains(&reset), "{reset} of {full}");
    }
    let answer = service.session(&token).await;
    answer.assert_refused(429, "rate_limited");
    let wait: i64 = answer.header("retry-after").parse().unwrap();
    assert!((40..=60).contains(&wait), "{wait}");
    assert_eq!(rates(&answer)[..2], ["5", "0"]);
    let mut body = answer.body.clone();
    body["request_id"].take();
    assert_eq!(
        body,
        json!({
            "error": "rate_limited",
            "error_description": format!("Too many requests for this subject: try again in {wait} s."),
            "code": "rate_limited",
            "request_id": null,
            "retryable": true,
            "action": "retry",
            "seen": {
                "iss": issuer.url, "azp": "https://app.example.com", "typ": "JWT",
                "alg": "RS256", "kid": "ins_1", "exp": crate::support::token::claims(&token)["exp"],
            },
        })
    );
    let metric = service
        .metric("exchequer_rate_limited_total{bucket=\"subject\"}")
        .await;
    assert_eq!(metric, Some(1.0));

    // Being refused does not prolong the wait; the wait is enough, and for one request alone.
    let token = Token::clerk(&issuer.url)
        .claim("exp", crate::support::now() + 3600)
        .sign(Key::rsa());
    for _ in 0..10 {
        service
            .session(&token)
            .await
            .assert_refused(429, "rate_limited");
    }
    service.shift_clocks(wait - 1 - 20, 0);
    eventually("the clock is shifted", async || {
        let answer = service.session(&token).await;
        answer.header("retry-after").parse::<i64>().unwrap() <= 21
    })
    .await;
    service
        .session(&token)
        .await
        .assert_refused(429, "rate_limited");
    service.shift_clocks(wait, 0);
    eventually("the wait is enough", async || {
        service.session(&token).await.status == 200
    })
    .await;
    service
        .session(&token)
        .await
        .assert_refused(429, "rate_limited");
    // Not more than there is at once, however long nobody asked.
    service.shift_clocks(wait + 1800, 0);
    eventually("it is full again", async || {
        rates(&service.session(&token).await)[1] == "4"
    })
    .await;
    for _ in 0..4 {
        assert_eq!(service.session(&token).await.status, 200);
    }
    service
        .session(&token)
        .await
        .assert_refused(429, "rate_limited");
}

#[tokio::test]
async fn users_organisations_and_apps_share_no_bucket() {
    let issuer = Issuer::start().await;
    let url = &issuer.url;
    let service = Service::builder()
        .config(&format!(
            "[issuers.clerk]\nissuer = {url:?}\nkind = \"clerk\"\n\
             [apps.one]\nissuers = \"clerk\"\n[apps.two]\nissuers = \"clerk\"\n"
        ))
        .env("EXCHEQUER_RATE_LIMIT", "1/1h")
        .start()
        .await;
    let org = |id: &str| json!({"id": id, "slg": "acme", "rol": "admin"});
    let first = Token::clerk(url);
    for (app, token) in [
        ("one", first.clone()),
        ("two", first.clone()),
        ("one", first.clone().claim("sub", "user_2")),
        ("one", first.clone().claim("o", org("org_2"))),
        ("one", first.clone().without("o")),
    ] {
        // Another session of the same user is no other subject.
        for (token, status) in [(token.clone(), 200), (token.claim("sid", "sess_2"), 429)] {
            let body = json!({"session_token": token.sign(Key::rsa()), "app": app});
            let answer = service.exchange(&body).await;
            assert_eq!(answer.status, status, "{app} {}", answer.body);
        }
    }
}

#[tokio::test]
async fn an_address_is_the_clients_own_whatever_it_writes_into_the_header() {
    let issuer = Issuer::start().await;
    // Ten for an address.
    let service = limited(&issuer, "1/1h").await;
    let mut number = 0;
    let mut next = || {
        number += 1;
        of(&issuer, &format!("user_{number}"))
    };
    for place in 0..10 {
        // Ever new inventions at the left; the proxy wrote the right end.
        let invented = format!("198.51.100.{place}, 203.0.113.9");
        assert_eq!(from(&service, &[&invented], &next()).await.status, 200);
    }
    for forwarded in [
        vec!["203.0.113.9"],
        vec!["198.51.100.77, 203.0.113.9"],
        vec!["198.51.100.77", "203.0.113.9"],
        vec!["203.0.113.9:4711"],
        vec!["::ffff:203.0.113.9"],
        vec!["203.0.113.9, 127.0.0.1"],
    ] {
        let answer = from(&service, &forwarded, &next()).await;
        answer.assert_refused(429, "rate_limited");
        assert_eq!(rates(&answer)[..2], ["10", "0"], "{forwarded:?}");
        let said = answer.body["error_description"].as_str().unwrap();
        assert!(
            said.starts_with("Too many requests from this address"),
            "{said}"
        );
    }
    assert_eq!(from(&service, &["203.0.113.10"], &next()).await.status, 200);
    // What is no text hides nobody, whichever way the proxy writes its own word beside it.
    for forwarded in [&b"\xe4, 203.0.113.9"[..], b"\xff\xfe,203.0.113.9"] {
        let request = service
            .client
            .post(format!("{}/auth/exchange", service.url))
            .header("content-type", "application/json")
            .header("x-forwarded-for", forwarded)
            .body(json!({ "session_token": next() }).to_string());
        service
            .send(request)
            .await
            .assert_refused(429, "rate_limited");
    }
    // Who cannot be told from others is not limited by address.
    for forwarded in [vec![], vec!["unknown"], vec!["10.1.2.3"], vec!["127.0.0.1"]] {
        for _ in 0..12 {
            assert_eq!(from(&service, &forwarded, &next()).await.status, 200);
        }
    }
    // An IPv6 client has a whole /64.
    for place in 0..10 {
        let forwarded = format!("2001:db8:1:1::{place:x}");
        assert_eq!(from(&service, &[&forwarded], &next()).await.status, 200);
    }
    from(&service, &["2001:db8:1:1:ffff::1"], &next())
        .await
        .assert_refused(429, "rate_limited");
    assert_eq!(
        from(&service, &["2001:db8:1:2::1"], &next()).await.status,
        200
    );
}

#[tokio::test]
async fn a_peer_that_is_no_proxy_cannot_say_who_it_is() {
    let issuer = Issuer::start().await;
    let service = Service::builder()
        .env("CLERK_JWT_ISSUER", &issuer.url)
        .env("EXCHEQUER_RATE_LIMIT", "1/1h")
        .start()
        .await;
    // A victim's bucket cannot be emptied, and nobody is one client for all.
    for place in 0..30 {
        let token = of(&issuer, &format!("user_{place}"));
        let answer = from(&service, &["203.0.113.9"], &token).await;
        assert_eq!(answer.status, 200);
        assert_eq!(rates(&answer)[..2], ["1", "0"]);
    }
}

#[tokio::test]
async fn failures_count_harder_and_an_empty_bucket_is_told_instead() {
    let issuer = Issuer::start().await;
    // Fifty for an address: ten failures.
    let service = limited(&issuer, "5/1h").await;
    let guesser = ["203.0.113.66"];
    for left in (0..10).map(|each| 45 - 5 * each) {
        let answer = from(&service, &guesser, &forged(&issuer)).await;
        answer.assert_refused(401, "subject_token_signature_invalid");
        assert_eq!(rates(&answer)[..2], ["50".to_owned(), left.to_string()]);
    }
    for token in [
        forged(&issuer),
        "no token".to_owned(),
        of(&issuer, "user_1"),
    ] {
        let answer = from(&service, &guesser, &token).await;
        answer.assert_refused(429, "rate_limited");
        assert!(!answer.header("retry-after").is_empty());
    }
    let mut causes = Vec::new();
    eventually("the refusals are logged", async || {
        let lines = service.logged("refused");
        let lines = lines.iter().filter(|line| line["code"] == "rate_limited");
        let cause = |line: &Value| line["cause"].as_str().unwrap_or_default().to_owned();
        causes = lines.map(cause).collect();
        causes.len() == 3
    })
    .await;
    assert_eq!(
        causes,
        [
            "instead of subject_token_signature_invalid",
            "instead of subject_token_opaque",
            ""
        ],
        "the log still says what it was"
    );
    let metric = service
        .metric("exchequer_rate_limited_total{bucket=\"address\"}")
        .await;
    assert_eq!(metric, Some(3.0));
    // Others at other addresses, and the subject itself, are none the worse.
    assert_eq!(
        from(&service, &["203.0.113.67"], &of(&issuer, "user_1"))
            .await
            .status,
        200
    );
    // Where there is no address to count for, a failure is only a failure.
    for _ in 0..20 {
        let answer = from(&service, &[], &forged(&issuer)).await;
        answer.assert_refused(401, "subject_token_signature_invalid");
        assert_eq!(rates(&answer), [""; 3]);
    }
}

#[tokio::test]
async fn whoever_guesses_ids_and_opaque_tokens_soon_costs_the_provider_nothing() {
    let clerk = clerk().await;
    let service = Service::builder()
        .keyed_in_file(
            &clerk,
            "accepts = [\"session\", \"api_key\"]",
            "[apps.web]\nissuers = \"clerk\"",
        )
        // Twenty for an address: four failures.
        .env("EXCHEQUER_RATE_LIMIT", "2/1h")
        .env("EXCHEQUER_TRUSTED_PROXIES", "127.0.0.1")
        .start()
        .await;
    for (address, member, prefix) in [
        ("203.0.113.1", "session_id", "sess_"),
        ("203.0.113.2", "subject_token", "ak_"),
    ] {
        let before = clerk.calls().len();
        let mut asked = before;
        for guess in 0..12 {
            let body = json!({ member: format!("{prefix}0123456789{guess}") });
            let request = service
                .client
                .post(format!("{}/auth/exchange", service.url))
                .header("content-type", "application/json")
                .header("x-forwarded-for", address)
                .body(body.to_string());
            let answer = service.send(request).await;
            if guess < 4 {
                assert_ne!(
                    answer.body["code"], "rate_limited",
                    "{guess} {}",
                    answer.body
                );
                asked = clerk.calls().len();
            } else {
                answer.assert_refused(429, "rate_limited");
                assert!(!answer.header("retry-after").is_empty());
            }
        }
        assert!(asked >= before + 4, "{member}");
        assert_eq!(clerk.calls().len(), asked, "{member}");
    }
}

#[tokio::test]
async fn a_failure_that_is_not_the_callers_is_not_held_against_it() {
    let issuer = Issuer::start().await;
    issuer.behave(
        "/.well-known/jwks.json",
        crate::support::Behaviour::Answer(500, String::new()),
    );
    let service = limited(&issuer, "1/1h").await;
    for _ in 0..15 {
        let answer = from(&service, &["203.0.113.66"], &of(&issuer, "user_1")).await;
        answer.assert_refused(503, "issuer_keys_unavailable");
    }
}

#[tokio::test]
async fn off_is_off_and_a_browser_may_read_the_headers() {
    let issuer = Issuer::start().await;
    let service = limited(&issuer, "off").await;
    let token = of(&issuer, "user_1");
    for _ in 0..150 {
        let answer = from(&service, &["203.0.113.9"], &token).await;
        assert_eq!(
            (answer.status, rates(&answer)),
            (200, [""; 3].map(str::to_owned))
        );
    }

    let service = Service::builder()
        .env("CLERK_JWT_ISSUER", &issuer.url)
        .env("EXCHEQUER_RATE_LIMIT", "on")
        .env("EXCHEQUER_ALLOWED_ORIGINS", "https://app.example.com")
        .start()
        .await;
    let request = service
        .client
        .post(format!("{}/auth/exchange", service.url))
        .header("origin", "https://app.example.com")
        .bearer_auth(&token);
    let answer = service.send(request).await;
    assert_eq!(rates(&answer), ["120", "119", "1"]);
    assert_eq!(
        answer.header("access-control-expose-headers"),
        "dpop-nonce, ratelimit-limit, ratelimit-remaining, ratelimit-reset, retry-after, \
         www-authenticate, x-request-id"
    );
    for path in ["/.well-known/jwks.json", "/healthz"] {
        assert_eq!(rates(&service.get(path).await), [""; 3]);
    }
}

#[test]
fn check_says_what_limits_without_known_proxies_mean() {
    let dir = tempfile::tempdir().unwrap();
    let noted = |variables: &[(&str, &str)]| {
        let mut command =
            Command::new(dir.path()).env("CLERK_JWT_ISSUER", "https://clerk.example.com");
        for (name, value) in variables {
            command = command.env(name, value);
        }
        let ended = command.run(&["check"]);
        assert_eq!(ended.code, 0, "{ended:?}");
        ended
            .stdout
            .contains("note:  EXCHEQUER_TRUSTED_PROXIES: is not set")
    };
    let listen = ("EXCHEQUER_LISTEN", "0.0.0.0:8080");
    assert!(noted(&[listen]));
    assert!(!noted(&[]));
    assert!(!noted(&[("EXCHEQUER_LISTEN", "[::1]:8080")]));
    assert!(!noted(&[listen, ("EXCHEQUER_RATE_LIMIT", "off")]));
    assert!(!noted(&[
        listen,
        ("EXCHEQUER_TRUSTED_PROXIES", "10.0.0.0/8")
    ]));
}
