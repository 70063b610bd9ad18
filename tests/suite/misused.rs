//! Good tokens in the wrong place: of another client, another issuer, another time, another
//! kind, or of nobody.

use crate::support::token::{self, assemble};
use crate::support::{Issuer, Key, Service, Token, now};
use serde_json::{Value, json};

const MALFORMED: &str = "subject_token_claim_malformed";
const MISSING: &str = "subject_token_claim_missing";
const UNTRUSTED: &str = "subject_token_issuer_untrusted";

/// Runs the case again until it begins and ends in the same second, so that the times in
/// it are exact.
async fn in_one_second(mut case: impl AsyncFnMut(i64)) {
    for _ in 0..100 {
        // Away from the end of a second, the first try is enough.
        let began = now();
        case(began).await;
        if now() == began {
            return;
        }
    }
    panic!("no second was long enough");
}

async fn status(service: &Service, token: &Token) -> u16 {
    service.session(&token.sign(Key::rsa())).await.status
}

#[tokio::test]
async fn a_configured_audience_must_be_in_the_token_as_a_whole_element() {
    let issuer = Issuer::start().await;
    let service = Service::builder()
        .env("CLERK_JWT_ISSUER", &issuer.url)
        .env("CLERK_JWT_AUDIENCE", "tasks, https://api.example.com")
        .start()
        .await;
    let token = Token::clerk(&issuer.url);
    for good in [
        json!("tasks"),
        json!("https://api.example.com"),
        json!(["tasks"]),
        json!(["other", "tasks"]),
        json!(["tasks", "tasks"]),
        // One element of another type does not spoil the one that counts.
        json!([1, null, "tasks"]),
    ] {
        let answer = service
            .session(&token.clone().claim("aud", good.clone()).sign(Key::rsa()))
            .await;
        assert_eq!(answer.status, 200, "{good}: {}", answer.body);
    }
    let missing = "subject_token_audience_missing";
    let bare = token.sign(Key::rsa());
    service.refuses("absent", &bare, missing).await;
    let null = token.clone().claim("aud", Value::Null).sign(Key::rsa());
    service.refuses("null", &null, missing).await;
    for bad in [
        json!("other"),
        json!(""),
        json!("task"),
        json!("taskss"),
        json!("Tasks"),
        json!("TASKS"),
        json!(" tasks"),
        json!("tasks "),
        json!("tasks\0"),
        json!("tasks,other"),
        json!("tasks, https://api.example.com"),
        json!("tasks https://api.example.com"),
        json!("t\u{430}sks"),
        json!("https://api.example.com/"),
        json!("https://api.example.com:443"),
        json!("https://API.example.com"),
        json!("http://api.example.com"),
        json!("https://api.example.com.evil.example"),
        json!([]),
        json!(["other"]),
        json!([["tasks"]]),
        json!([{"aud": "tasks"}]),
        json!({"tasks": true}),
        json!({"0": "tasks"}),
        json!(["t", "a", "s", "k", "s"]),
        json!(0),
        json!(1),
        json!(true),
        json!("*"),
    ] {
        let token = token.clone().claim("aud", bad.clone()).sign(Key::rsa());
        let code = "subject_token_audience_mismatch";
        service.refuses(bad, &token, code).await;
    }
}

#[tokio::test]
async fn configured_authorized_parties_must_hold_the_tokens_azp() {
    let issuer = Issuer::start().await;
    let service = Service::builder()
        .env("CLERK_JWT_ISSUER", &issuer.url)
        .env(
            "CLERK_AUTHORIZED_PARTIES",
            "https://app.example.com,http://localhost:3000",
        )
        .start()
        .await;
    let token = Token::clerk(&issuer.url);
    assert_eq!(status(&service, &token).await, 200);
    let local = token.clone().claim("azp", "http://localhost:3000");
    assert_eq!(status(&service, &local).await, 200);
    let missing = "subject_token_authorized_party_missing";
    let absent = token.clone().without("azp").sign(Key::rsa());
    service.refuses("absent", &absent, missing).await;
    let null = token.clone().claim("azp", Value::Null).sign(Key::rsa());
    service.refuses("null", &null, missing).await;
    for bad in [
        json!(""),
        json!("https://app.example.com/"),
        json!("https://app.example.com:443"),
        json!("https://App.example.com"),
        json!("http://app.example.com"),
        json!("https://www.app.example.com"),
        json!("https://app.example.com.evil.example"),
        json!("https://app.example.comhttp://localhost:3000"),
        json!("https://app.example.com,http://localhost:3000"),
        json!("app.example.com"),
        json!("http://localhost:30000"),
        json!("http://localhost"),
        json!("null"),
        json!(["https://app.example.com"]),
        json!({"https://app.example.com": 1}),
        json!(3000),
        json!(true),
    ] {
        let token = token.clone().claim("azp", bad.clone()).sign(Key::rsa());
        let code = "subject_token_authorized_party_mismatch";
        service.refuses(bad, &token, code).await;
    }
}

#[tokio::test]
async fn nothing_is_demanded_of_audience_and_party_where_none_is_configured() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    for (name, value) in [
        ("aud", json!("anything")),
        ("aud", json!(["a", "b"])),
        ("azp", json!("https://elsewhere.example")),
    ] {
        let token = Token::clerk(&issuer.url).claim(name, value);
        assert_eq!(status(&service, &token).await, 200, "{name}");
    }
    let native = Token::clerk(&issuer.url).without("azp");
    assert_eq!(status(&service, &native).await, 200);
    // An audience that was asked for upstream is not one that is granted here.
    let token = Token::clerk(&issuer.url).claim("aud", "theirs");
    let answer = service.session(&token.sign(Key::rsa())).await;
    assert_eq!(
        token::claims(answer.token())["aud"],
        "http://localhost:8080"
    );
}

#[tokio::test]
async fn a_key_speaks_for_its_own_issuer_alone_even_under_the_same_kid() {
    let ours = Issuer::start().await;
    let theirs = Issuer::with_keys(vec![Key::other_rsa().jwk("ins_1")]).await;
    let service = Service::builder()
        .env("CLERK_JWT_ISSUER", format!("{},{}", ours.url, theirs.url))
        .start()
        .await;
    for (issuer, key, good) in [
        (&ours, Key::rsa(), true),
        (&theirs, Key::other_rsa(), true),
        (&ours, Key::other_rsa(), false),
        (&theirs, Key::rsa(), false),
    ] {
        let token = Token::clerk(&issuer.url).sign(key);
        if good {
            let answer = service.session(&token).await;
            assert_eq!(token::claims(answer.token())["idp"], issuer.url);
        } else {
            let code = "subject_token_signature_invalid";
            service.refuses(&issuer.url, &token, code).await;
        }
    }
    // A kid that only the other issuer has.
    theirs.publish(vec![Key::other_rsa().jwk("theirs")]);
    let token = Token::clerk(&ours.url)
        .header("kid", "theirs")
        .sign(Key::other_rsa());
    service
        .refuses("kid of another", &token, "subject_token_key_unknown")
        .await;
}

#[tokio::test]
async fn an_issuer_is_compared_byte_for_byte() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    let url = &issuer.url;
    let authority = url.trim_start_matches("http://");
    let (_, port) = authority.split_once(':').unwrap();
    let half = url.len() / 2;
    let near = [
        format!("{url}/"),
        format!("{url}//"),
        format!("{url}/."),
        format!("{url}?"),
        format!("{url}#"),
        format!("{url}/.well-known"),
        format!("{url} "),
        format!(" {url}"),
        format!("{url}\0"),
        format!("{url}\n"),
        format!("\u{feff}{url}"),
        format!("{url}0"),
        format!("{url}.evil.example"),
        format!("https://{authority}"),
        format!("HTTP://{authority}"),
        format!("http:{authority}"),
        authority.to_owned(),
        format!("http://user@{authority}"),
        format!("http://{authority}@evil.example"),
        format!("http://evil.example/{authority}"),
        format!("https://evil.example?{url}"),
        "http://127.0.0.1".to_owned(),
        format!("http://127.0.0.1:0{port}"),
        format!("http://127.1:{port}"),
        format!("http://2130706433:{port}"),
        format!("http://0x7f000001:{port}"),
        format!("http://[::ffff:127.0.0.1]:{port}"),
        format!("http://127.0.0.1.:{port}"),
        format!("http://%31%32%37.0.0.1:{port}"),
        format!("http://127\u{3002}0.0.1:{port}"),
        format!("http://\u{ff11}27.0.0.1:{port}"),
        format!("http://localhost:{port}"),
        format!("{url},{url}"),
        url[..half].to_owned(),
        url[..url.len() - 1].to_owned(),
        url.to_uppercase(),
        "http".to_owned(),
        "*".to_owned(),
        String::new(),
    ];
    for near in near {
        let token = Token::clerk(&near).sign(Key::rsa());
        service.refuses(&near, &token, UNTRUSTED).await;
    }
    let missing = "subject_token_issuer_missing";
    for odd in [
        json!([url]),
        json!([url, "https://evil.example"]),
        json!({ "iss": url }),
        json!(1),
        json!(true),
        Value::Null,
    ] {
        let token = Token::clerk(url).claim("iss", odd.clone()).sign(Key::rsa());
        service.refuses(odd, &token, missing).await;
    }
    let absent = Token::clerk(url).without("iss").sign(Key::rsa());
    service.refuses("absent", &absent, missing).await;
    // The same name written with an escape is the same bytes.
    let token = Token::clerk(url);
    let claims = token.claims.to_string().replacen("http:", r"\u0068ttp:", 1);
    assert_ne!(claims, token.claims.to_string());
    let escaped = assemble(&token.header.to_string(), &claims, |message| {
        Key::rsa().sign(message)
    });
    assert_eq!(service.session(&escaped).await.status, 200);
}

#[tokio::test]
async fn a_time_of_the_wrong_type_or_size_is_never_taken_for_absent() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    let token = Token::clerk(&issuer.url);
    // As texts: serde_json would write some of these numbers otherwise.
    for value in [
        "null",
        "\"\"",
        "\"never\"",
        "\"9999999999\"",
        "\"2099-01-01T00:00:00Z\"",
        "true",
        "[]",
        "[9999999999]",
        "{}",
        "{\"exp\":9999999999}",
        "-1",
        "-0.5",
        "-9223372036854775808",
        "253402300800",
        "253402300799.5",
        "1e12",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "1e300",
        "-1e300",
    ] {
        for name in ["exp", "nbf", "iat", "auth_time"] {
            let sound = token.clone().without(name).claims.to_string();
            let claims = sound.replacen('{', &format!("{{\"{name}\":{value},"), 1);
            let odd = assemble(&token.header.to_string(), &claims, |message| {
                Key::rsa().sign(message)
            });
            let what = format!("{name}: {value}");
            service.refuses(what, &odd, MALFORMED).await;
        }
    }
    for name in ["exp", "sub"] {
        let absent = token.clone().without(name).sign(Key::rsa());
        service.refuses(name, &absent, MISSING).await;
    }
    for name in ["nbf", "iat", "jti", "sid", "sts", "fva", "v", "o"] {
        let absent = token.clone().without(name);
        assert_eq!(status(&service, &absent).await, 200, "{name}");
    }
    // NumericDate may have a fraction (RFC 7519 §2).
    let fraction = token
        .claim("exp", 60.5 + now() as f64)
        .claim("iat", now() as f64 - 0.25)
        .claim("nbf", now() as f64 - 0.25);
    assert_eq!(status(&service, &fraction).await, 200);
}

#[tokio::test]
async fn the_clocks_may_differ_by_five_seconds_and_no_more() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    in_one_second(async |now| {
        let token = Token::clerk(&issuer.url);
        for (name, offset, code) in [
            ("exp", 1, None),
            ("exp", 0, None),
            ("exp", -4, None),
            ("exp", -5, Some("subject_token_expired")),
            ("exp", -6, Some("subject_token_expired")),
            ("nbf", 5, None),
            ("nbf", 6, Some("subject_token_not_yet_valid")),
            ("iat", 5, None),
            ("iat", 6, Some("subject_token_issued_in_future")),
        ] {
            let token = token.clone().claim(name, now + offset).sign(Key::rsa());
            let answer = service.session(&token).await;
            if crate::support::now() != now {
                return;
            }
            let found = answer.body["code"].as_str();
            assert_eq!(found, code, "{name} {offset}: {}", answer.body);
        }
    })
    .await;
    let late = Token::clerk(&issuer.url).claim("exp", 0).claim("iat", 0);
    let answer = service.session(&late.sign(Key::rsa())).await;
    answer.assert_refused(401, "subject_token_expired");
    assert_eq!(answer.body["action"], "refresh_subject_token");
    assert_eq!(answer.body["retryable"], false);
    let early = Token::clerk(&issuer.url).claim("nbf", now() + 30);
    let answer = service.session(&early.sign(Key::rsa())).await;
    answer.assert_refused(401, "subject_token_not_yet_valid");
    assert_eq!(answer.body["retryable"], true);
    let wait: i64 = answer.header("retry-after").parse().unwrap();
    assert!((15..=25).contains(&wait), "{wait}");
}

#[tokio::test]
async fn time_passes_for_a_token_by_the_services_clock() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    let token = issuer.token();
    assert_eq!(service.session(&token).await.status, 200);
    service.shift_clocks(600, 600);
    crate::support::eventually("the token expires", async || {
        service.session(&token).await.body["code"] == "subject_token_expired"
    })
    .await;
    service.shift_clocks(-600, 0);
    crate::support::eventually("the token is early", async || {
        service.session(&token).await.body["code"] == "subject_token_not_yet_valid"
    })
    .await;
}

#[tokio::test]
async fn clock_skew_and_lifetime_are_the_issuers_settings() {
    let issuer = Issuer::start().await;
    let lenient = Service::builder()
        .one_app(&issuer, "clock_skew = \"60s\"\nmax_lifetime = \"10m\"", "")
        .start()
        .await;
    let strict = Service::builder()
        .one_app(&issuer, "clock_skew = \"0s\"", "")
        .start()
        .await;
    in_one_second(async |now| {
        for (service, name, offset, code) in [
            (&lenient, "exp", -59, None),
            (&lenient, "exp", -60, Some("subject_token_expired")),
            (&lenient, "nbf", 60, None),
            (&lenient, "nbf", 61, Some("subject_token_not_yet_valid")),
            (&strict, "exp", 1, None),
            (&strict, "exp", 0, Some("subject_token_expired")),
            (&strict, "nbf", 0, None),
            (&strict, "nbf", 1, Some("subject_token_not_yet_valid")),
            (&strict, "iat", 1, Some("subject_token_issued_in_future")),
        ] {
            let token = Token::clerk(&issuer.url).claim(name, now + offset);
            let answer = service.session(&token.sign(Key::rsa())).await;
            if crate::support::now() != now {
                return;
            }
            let found = answer.body["code"].as_str();
            assert_eq!(found, code, "{name} {offset}: {}", answer.body);
        }
    })
    .await;
    let excessive = "subject_token_lifetime_excessive";
    let token = |lifetime: i64| {
        let iat = now() - 5;
        Token::clerk(&issuer.url)
            .claim("iat", iat)
            .claim("exp", iat + lifetime)
    };
    assert_eq!(status(&lenient, &token(600)).await, 200);
    let long = token(601).sign(Key::rsa());
    lenient.refuses("11 minutes", &long, excessive).await;
    // 24 hours unless set; without `iat`, counted from now.
    assert_eq!(status(&strict, &token(86_400)).await, 200);
    let long = token(86_401).sign(Key::rsa());
    strict.refuses("more than a day", &long, excessive).await;
    let forever = token(90_000).without("iat").sign(Key::rsa());
    strict.refuses("without iat", &forever, excessive).await;
    let forever = token(253_402_300_799 - now()).sign(Key::rsa());
    strict.refuses("for ever", &forever, excessive).await;
    let ancient = token(60).claim("iat", 0).sign(Key::rsa());
    strict.refuses("since 1970", &ancient, excessive).await;
}

#[tokio::test]
async fn an_app_token_is_no_subject_token() {
    let issuer = Issuer::start().await;
    let service = Service::builder()
        .one_app(&issuer, "", "typ = \"at+jwt\"\nalg = \"ES256\"")
        .env("EXCHEQUER_ISSUER", "https://auth.example.com")
        .start()
        .await;
    let app_token = service.session(&issuer.token()).await.token().to_owned();
    let code = "subject_token_is_app_token";
    service.refuses("ours", &app_token, code).await;
    let forged = Token::clerk("https://auth.example.com").sign(Key::rsa());
    service.refuses("forged", &forged, code).await;
    let check = service
        .command()
        .env("EXCHEQUER_ISSUER", &issuer.url)
        .run(&["check"]);
    assert_eq!(check.code, 1, "{}", check.stdout);
    assert!(
        check.stdout.contains("own issuer cannot be an upstream"),
        "{}",
        check.stdout
    );
}

#[tokio::test]
async fn other_kinds_of_token_of_the_same_issuer_are_refused() {
    let issuer = Issuer::start().await;
    let clerk = Service::trusting(&issuer).await;
    let access = Service::builder()
        .one_app(
            &issuer,
            "token_types = [\"at+jwt\"]\naccepts = [\"session\", \"oauth\"]",
            "",
        )
        .start()
        .await;
    for (typ, session, at) in [
        (json!("JWT"), true, false),
        (json!("jwt"), true, false),
        (json!("Jwt"), true, false),
        (json!("application/jwt"), true, false),
        (json!("Application/JWT"), true, false),
        (json!("at+jwt"), false, true),
        (json!("AT+JWT"), false, true),
        (json!("application/at+jwt"), false, true),
        (json!("logout+jwt"), false, false),
        (json!("secevent+jwt"), false, false),
        (json!("dpop+jwt"), false, false),
        (json!("client-authentication+jwt"), false, false),
        (json!("oauth-authz-req+jwt"), false, false),
        (json!("token-introspection+jwt"), false, false),
        (json!("JOSE"), false, false),
        (json!("JWT "), false, false),
        (json!("JWT\0"), false, false),
        (json!("xJWT"), false, false),
        (json!("application/"), false, false),
        (json!("application/application/jwt"), false, false),
        (json!("text/jwt"), false, false),
        (json!("é".repeat(7)), false, false),
        (json!(""), false, false),
        (json!(1), false, false),
        (json!(null), false, false),
        (json!(["JWT"]), false, false),
    ] {
        let token = Token::clerk(&issuer.url)
            .header("typ", typ.clone())
            .claim("client_id", "client_1")
            .sign(Key::rsa());
        for (service, good) in [(&clerk, session), (&access, at)] {
            if good {
                assert_eq!(service.session(&token).await.status, 200, "{typ}");
            } else {
                // An access token is named as what it is.
                let code = match at {
                    true => "subject_token_kind_not_accepted",
                    false => "subject_token_type_mismatch",
                };
                service.refuses(&typ, &token, code).await;
            }
        }
    }
    let untyped = Token::clerk(&issuer.url).without_header("typ");
    assert_eq!(status(&clerk, &untyped).await, 200);
    assert_eq!(status(&access, &untyped).await, 200);
}

#[tokio::test]
async fn only_an_active_session_is_exchanged() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    let with = |sts: Value| Token::clerk(&issuer.url).claim("sts", sts).sign(Key::rsa());
    let answer = service.session(&with(json!("pending"))).await;
    answer.assert_refused(403, "session_pending");
    assert_eq!(answer.body["error"], "access_denied");
    assert_eq!(answer.body["action"], "sign_in");
    for odd in [
        json!("ended"),
        json!("revoked"),
        json!("Active"),
        json!("active "),
        json!(""),
        json!(true),
        json!(1),
        json!(["active"]),
        json!({"status": "active"}),
    ] {
        service.refuses(&odd, &with(odd.clone()), MALFORMED).await;
    }
}

/// A chain of this many actors.
fn chain(depth: usize) -> Value {
    (0..depth).rev().fold(Value::Null, |inner, level| {
        let mut actor = json!({"sub": format!("actor_{level}")});
        if !inner.is_null() {
            actor["act"] = inner;
        }
        actor
    })
}

#[tokio::test]
async fn a_chain_of_actors_is_carried_whole_or_refused() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    let with = |act: Value| Token::clerk(&issuer.url).claim("act", act).sign(Key::rsa());
    for depth in 1..=5 {
        let answer = service.session(&with(chain(depth))).await;
        assert_eq!(token::claims(answer.token())["act"], chain(depth));
    }
    // A cycle cannot be written in JSON; the same actor over and over is only a chain.
    for depth in [6, 7, 20, 100] {
        service.refuses(depth, &with(chain(depth)), MALFORMED).await;
    }
    let deeper = with(chain(200));
    service
        .refuses(200, &deeper, "subject_token_malformed")
        .await;
    for odd in [
        json!("user_9"),
        json!(1),
        json!(true),
        json!([]),
        json!([{"sub": "user_9"}]),
        json!({}),
        json!({"sub": null}),
        json!({"sub": 9}),
        json!({"sub": ["user_9"]}),
        json!({"iss": "https://example.com"}),
        json!({"sub": "user_9", "iss": 1}),
        json!({"sub": "user_9", "sid": {}}),
        json!({"sub": "s".repeat(256)}),
        json!({"sub": "user_9", "act": "user_8"}),
        json!({"sub": "user_9", "act": {}}),
        json!({"sub": "user_9", "act": {"sub": "user_8", "act": []}}),
    ] {
        service.refuses(&odd, &with(odd.clone()), MALFORMED).await;
    }
    let answer = service.session(&with(Value::Null)).await;
    assert!(token::claims(answer.token()).get("act").is_none());
    // What is not an actor's identity is not ours to sign.
    let answer = service
        .session(&with(json!({"sub": "user_9", "role": "root", "exp": 1})))
        .await;
    assert_eq!(
        token::claims(answer.token())["act"],
        json!({"sub": "user_9"})
    );
}

#[tokio::test]
async fn a_bad_credential_is_never_rescued_by_a_good_one() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    let good = issuer.token();
    let several = "several_credentials";
    for body in [
        json!({"session_token": good, "subject_token": good}),
        json!({"session_token": "x", "subject_token": good}),
        json!({"session_token": good, "subject_token": "x"}),
        json!({"session_token": good, "session_id": "sess_1"}),
        json!({"subject_token": good, "session_id": "sess_1"}),
        json!({"session_token": good, "subject_token": good, "session_id": "sess_1"}),
    ] {
        service.exchange(&body).await.assert_refused(400, several);
    }
    let post = |bearer: &str, body: &Value| {
        service
            .client
            .post(format!("{}/auth/exchange", service.url))
            .bearer_auth(bearer)
            .header("content-type", "application/json")
            .body(body.to_string())
    };
    for (bearer, body) in [
        (good.as_str(), json!({ "session_token": good })),
        ("x", json!({ "session_token": good })),
        (&good, json!({"session_token": "x"})),
        (&good, json!({"session_id": "sess_1"})),
    ] {
        let answer = service.send(post(bearer, &body)).await;
        answer.assert_refused(400, several);
    }
    let twice = post(&good, &json!({})).header("authorization", format!("Bearer {good}"));
    service.send(twice).await.assert_refused(400, several);
    let other_scheme = service
        .client
        .post(format!("{}/auth/exchange", service.url))
        .basic_auth("client", Some("secret"))
        .header("content-type", "application/json")
        .body(json!({ "session_token": good }).to_string());
    let answer = service.send(other_scheme).await;
    answer.assert_refused(400, "parameter_malformed");
    // A credential of the wrong type is an error, never "then without it".
    for odd in [json!(1), json!([good]), json!({ "jwt": good }), json!(true)] {
        let body = json!({"session_token": odd, "subject_token": good});
        service
            .exchange(&body)
            .await
            .assert_refused(400, "body_malformed");
    }
    let repeated = format!("{{\"session_token\":\"x\",\"session_token\":\"{good}\"}}");
    let request = service
        .client
        .post(format!("{}/auth/exchange", service.url))
        .header("content-type", "application/json")
        .body(repeated);
    let answer = service.send(request).await;
    answer.assert_refused(400, "body_malformed");
    // RFC 6749 §3.1: a parameter without a value is one that was left out.
    for body in [
        json!({"session_token": good, "subject_token": "", "session_id": null}),
        json!({"session_token": null, "subject_token": good}),
    ] {
        assert_eq!(service.exchange(&body).await.status, 200);
    }
    for body in [
        json!({}),
        json!({"session_token": ""}),
        json!({"session_token": null}),
    ] {
        let answer = service.exchange(&body).await;
        answer.assert_refused(400, "credential_missing");
    }
    let answer = service.exchange(&json!({"session_id": "sess_1"})).await;
    answer.assert_refused(400, "session_id_unsupported");
}

#[tokio::test]
async fn a_token_that_is_bound_to_a_key_is_not_exchanged_for_one_that_is_not() {
    let issuer = Issuer::start().await;
    let service = Service::builder()
        .config(&format!(
            "[issuers.idp]\nissuer = {:?}\nkind = \"oidc\"\naudiences = \"web\"\n\
             token_types = [\"JWT\", \"at+jwt\"]\n\
             [apps.web]\nissuers = [\"idp\"]\n",
            issuer.url
        ))
        .start()
        .await;
    let token = Token::oidc(&issuer.url, "web");
    // By DPoP, by TLS (RFC 8705 §3.1), by a key itself, and by what nobody understands.
    for (typ, cnf) in [
        (
            "at+jwt",
            json!({"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}),
        ),
        (
            "JWT",
            json!({"x5t#S256": "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2"}),
        ),
        ("JWT", json!({"jwk": Key::other_rsa().jwk("k")})),
        ("JWT", json!({})),
        ("JWT", json!("x")),
    ] {
        let bound = token.clone().header("typ", typ).claim("cnf", cnf.clone());
        let code = "subject_token_sender_constrained";
        service.refuses(&cnf, &bound.sign(Key::rsa()), code).await;
    }
    for good in [token.clone(), token.claim("cnf", Value::Null)] {
        assert_eq!(status(&service, &good).await, 200);
    }
}

#[tokio::test]
async fn a_body_that_is_no_form_is_not_quoted_as_names_of_parameters() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    let send = async |kind: &str, body: &str| {
        let request = service
            .client
            .post(format!("{}/oauth/token", service.url))
            .header("content-type", kind)
            .body(body.to_owned());
        let answer = service.send(request).await;
        answer.assert_refused(400, "parameter_malformed");
        answer.body["error_description"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    const FORM: &str = "application/x-www-form-urlencoded";
    const JSON: &str = "application/json";
    // A JSON body under the type of a form, a header, a bare secret.
    for (kind, body) in [
        (FORM, "{\n \"client_secret\": \"s3cret==\",\n \"a\": 1}"),
        (FORM, "{\"a\":\"s3cret=x\"}&{\"a\":\"s3cret=x\"}"),
        (FORM, "Authorization: Basic s3cret=\n"),
        (FORM, "S3cret=\n"),
        (FORM, "s3cret=1&s3cret=2"),
        (JSON, "{\"s3cret\": \"a\\n\"}"),
        (JSON, "{\"s3cret\": \"a\", \"s3cret\": \"b\"}"),
        (JSON, "{\"s3cret\": [\"a\"]}"),
    ] {
        let told = send(kind, body).await;
        assert!(told.starts_with("A parameter is "), "{body}: {told}");
        assert!(!told.to_lowercase().contains("cret"), "{body}: {told}");
    }
    // What can be a parameter is named.
    for (kind, body, told) in [
        (
            FORM,
            "grant_type=a&grant_type=b",
            "`grant_type` is repeated.",
        ),
        (FORM, "client_id=a%0A", "`client_id` is malformed."),
        (
            JSON,
            "{\"scope\": [\"a\"]}",
            "`scope` is a list, and can be one text alone.",
        ),
    ] {
        assert_eq!(send(kind, body).await, format!("The parameter {told}"));
    }
}

#[tokio::test]
async fn request_parameters_give_no_privilege() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    let plain = service.session(&issuer.token()).await;
    let answer = service
        .exchange(&json!({
            "session_token": issuer.token(), "sub": "user_0", "user_id": "user_0",
            "role": "org:owner", "roles": ["org:owner"], "permissions": ["org:all:manage"],
            "org_id": "org_0", "ttl": 86_400, "expires_in": 86_400, "exp": 9_999_999_999_i64,
            "iss": "https://evil.example", "aud": "everything", "claims": {"admin": true},
            "scope": "admin", "resource": "https://evil.example",
        }))
        .await;
    let stable = |token: &str| {
        let mut claims = token::claims(token);
        for name in ["jti", "iat", "nbf", "exp", "auth_time"] {
            claims.as_object_mut().unwrap().remove(name);
        }
        claims
    };
    assert_eq!(stable(answer.token()), stable(plain.token()));
    assert_eq!(answer.body["expires_in"], 600);
    assert_eq!(answer.body["scope"], "", "RFC 6749 §5.1: none was granted");
    assert_eq!(answer.body["user"], plain.body["user"]);
    // Claims upstream that we did not decide to copy are not copied.
    let token = Token::clerk(&issuer.url)
        .claim("scope", "admin")
        .claim("permissions", json!(["org:all:manage"]))
        .claim("roles", json!(["org:owner"]))
        .claim("role", "owner")
        .claim("client_id", "other")
        .claim("idp", "https://evil.example")
        .claim("cnf", json!({"jkt": "x"}))
        .claim("email", "a@example.com");
    let answer = service.session(&token.sign(Key::rsa())).await;
    assert_eq!(stable(answer.token()), stable(plain.token()));
}

#[tokio::test]
async fn a_subject_is_carried_byte_for_byte_or_refused() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    let with = |sub: Value| Token::clerk(&issuer.url).claim("sub", sub).sign(Key::rsa());
    for sub in [
        "u",
        " ",
        " user_1 ",
        "auth0|5f7c8ec7c33c6c004bbafe82",
        "00000000-0000-0000-0000-000000000000",
        "\"quoted\" \\ and / slashed",
        "<script>alert(1)</script>",
        "' OR 1=1 --",
        "{{7*7}} ${jndi:ldap://x}",
        "%00%0d%0a",
        // Composed and decomposed, which only a normaliser makes equal.
        "\u{e9}",
        "e\u{301}",
        "\u{fb01}",
        "\u{212b}",
        "\u{202e}resu",
        "a\u{200d}b",
        "\u{2028}",
        "\u{feff}user",
        "用户",
        "👩‍👩‍👧",
        "\u{10ffff}",
    ] {
        let answer = service.session(&with(json!(sub))).await;
        assert_eq!(answer.status, 200, "{sub:?}: {}", answer.body);
        assert_eq!(answer.body["user"]["id"], sub);
        assert_eq!(token::claims(answer.token())["sub"], sub);
    }
    let longest = "s".repeat(255);
    let answer = service.session(&with(json!(longest))).await;
    assert_eq!(token::claims(answer.token())["sub"], longest);
    let widest = "é".repeat(127);
    let answer = service.session(&with(json!(widest))).await;
    assert_eq!(token::claims(answer.token())["sub"], widest);
    for odd in [
        json!(""),
        json!("user\0"),
        json!("user_1\r\nx-user-id: root"),
        json!("user\t1"),
        json!("user\u{7f}"),
        json!("user\u{85}"),
        json!("\u{1b}[2J"),
        json!("s".repeat(256)),
        json!("é".repeat(128)),
        json!("s".repeat(5000)),
        json!(1),
        json!(null),
        json!(true),
        json!(["user_1"]),
        json!({"id": "user_1"}),
    ] {
        service.refuses(&odd, &with(odd.clone()), MALFORMED).await;
    }
    for sid in [json!(1), json!([]), json!("s".repeat(256))] {
        let token = Token::clerk(&issuer.url).claim("sid", sid.clone());
        service
            .refuses(sid, &token.sign(Key::rsa()), MALFORMED)
            .await;
    }
    for line in service.log() {
        let line: Value = serde_json::from_str(&line).expect("every line of the log is JSON");
        assert!(line.is_object());
    }
}

#[tokio::test]
async fn a_security_event_is_no_subject_token_whatever_its_typ() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    let logout = json!({"http://schemas.openid.net/event/backchannel-logout": {}});
    let token = Token::clerk(&issuer.url).claim("events", logout);
    let answer = service.session(&token.sign(Key::rsa())).await;
    answer.assert_refused(401, "subject_token_type_mismatch");
}

#[tokio::test]
async fn an_endless_issuer_is_untrusted_and_fills_no_log() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    let endless = format!("{}/{}", issuer.url, "x".repeat(9000));
    let answer = service
        .session(&Token::clerk(&endless).sign(Key::rsa()))
        .await;
    answer.assert_refused(401, "subject_token_issuer_untrusted");
    assert!(service.log().iter().all(|line| line.len() < 2000));
}
