//! Several Clerk instances and several apps: each token is judged by its own issuer's keys and
//! its own app's rules, whichever way they are configured.

use crate::support::{Answer, Command, Issuer, Key, Service, Token, issuer, token};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde_json::{Value, json};

/// The second instance: another key under the same `kid`.
async fn other() -> Issuer {
    Issuer::with_keys(vec![Key::other_rsa().jwk("ins_1")]).await
}

async fn exchange(service: &Service, app: &str, token: &str) -> Answer {
    let body = json!({"session_token": token, "app": app});
    service.exchange(&body).await
}

/// The app and the issuer that an app token names.
fn parties(answer: &Answer) -> (String, String) {
    let claims = token::claims(answer.token());
    let text = |name: &str| claims[name].as_str().unwrap().to_owned();
    (text("client_id"), text("idp"))
}

#[tokio::test]
async fn one_app_may_trust_several_instances() {
    let (first, second, third) = (Issuer::start().await, other().await, Issuer::start().await);
    let service = Service::builder()
        .env(
            "CLERK_JWT_ISSUER",
            format!(" {} ,{}, ", first.url, second.url),
        )
        .start()
        .await;
    for (issuer, key) in [(&first, Key::rsa()), (&second, Key::other_rsa())] {
        let answer = service.session(&Token::clerk(&issuer.url).sign(key)).await;
        assert_eq!(parties(&answer), ("default".to_owned(), issuer.url.clone()));
    }
    let untrusted = "subject_token_issuer_untrusted";
    service.refuses("third", &third.token(), untrusted).await;
    let list = Token::clerk(&format!("{},{}", first.url, second.url)).sign(Key::rsa());
    service.refuses("list", &list, untrusted).await;
    assert_eq!(third.requests(), Vec::<String>::new());
}

#[tokio::test]
async fn a_token_without_aud_works_beside_instances_that_have_other_keys_under_the_same_kid() {
    let (first, second, third) = (other().await, other().await, Issuer::start().await);
    let by_variables = Service::builder()
        .env("CLERK_JWT_ISSUER_WEB", &first.url)
        .env("CLERK_JWT_AUDIENCE_WEB", "web")
        .env("CLERK_JWT_ISSUER_ADMIN", &second.url)
        .env("CLERK_JWT_AUDIENCE_ADMIN", "admin")
        .env("CLERK_JWT_ISSUER_MOBILE", &third.url)
        .start()
        .await;
    let by_file = Service::builder()
        .config(&format!(
            "[issuers.web]\nkind = \"clerk\"\nissuer = {:?}\naudiences = \"web\"\n\
             [issuers.admin]\nkind = \"clerk\"\nissuer = {:?}\naudiences = [\"admin\"]\n\
             [issuers.mobile]\nkind = \"clerk\"\nissuer = {:?}\n\
             [apps.all]\nissuers = [\"web\", \"admin\", \"mobile\"]\n",
            first.url, second.url, third.url
        ))
        .start()
        .await;
    for service in [&by_variables, &by_file] {
        let bare = Token::clerk(&third.url);
        assert!(bare.claims.get("aud").is_none());
        let bare = bare.sign(Key::rsa());
        // In either order: what one instance's key did must not stay behind for another.
        assert_eq!(service.session(&bare).await.status, 200);
        for (issuer, audience) in [(&first, "web"), (&second, "admin")] {
            let token = Token::clerk(&issuer.url).sign(Key::other_rsa());
            let missing = "subject_token_audience_missing";
            service.refuses(audience, &token, missing).await;
            let token = Token::clerk(&issuer.url).claim("aud", audience);
            let token = token.sign(Key::other_rsa());
            assert_eq!(service.session(&token).await.status, 200);
        }
        let answer = service.session(&bare).await;
        assert_eq!(parties(&answer).1, third.url);
    }
}

#[tokio::test]
async fn a_suffix_makes_an_app_that_falls_back_to_the_plain_variables() {
    let (plain, mobile) = (Issuer::start().await, other().await);
    let service = Service::builder()
        .env("CLERK_JWT_ISSUER", &plain.url)
        .env("CLERK_JWT_AUDIENCE", "web")
        .env("CLERK_AUTHORIZED_PARTIES", "https://app.example.com")
        .env("CLERK_JWT_ISSUER_MOBILE", &mobile.url)
        .env("CLERK_JWT_AUDIENCE_MOBILE", "mobile")
        .env(
            "CLERK_AUTHORIZED_PARTIES_PARTNER_SITE",
            "https://partner.example",
        )
        .start()
        .await;
    let of = |issuer: &Issuer, key: &Key, audience: &str, party: &str| {
        Token::clerk(&issuer.url)
            .claim("aud", audience)
            .claim("azp", party)
            .sign(key)
    };
    let (ours, theirs) = ("https://app.example.com", "https://partner.example");
    let web = of(&plain, Key::rsa(), "web", ours);
    let native = of(&mobile, Key::other_rsa(), "mobile", ours);
    let partner = of(&plain, Key::rsa(), "web", theirs);
    for (app, token) in [
        ("default", &web),
        ("mobile", &native),
        ("partner_site", &partner),
    ] {
        let answer = exchange(&service, app, token).await;
        assert_eq!(parties(&answer).0, app);
    }
    // Its issuer leaves only one app for it.
    assert_eq!(parties(&service.session(&native).await).0, "mobile");
    for (app, token, code) in [
        ("default", &native, "subject_token_issuer_untrusted"),
        ("mobile", &web, "subject_token_issuer_untrusted"),
        (
            "default",
            &partner,
            "subject_token_authorized_party_mismatch",
        ),
        (
            "partner_site",
            &web,
            "subject_token_authorized_party_mismatch",
        ),
        (
            "mobile",
            &of(&mobile, Key::other_rsa(), "web", ours),
            "subject_token_audience_mismatch",
        ),
        (
            "mobile",
            &of(&mobile, Key::other_rsa(), "mobile", theirs),
            "subject_token_authorized_party_mismatch",
        ),
        (
            "partner_site",
            &of(&plain, Key::rsa(), "mobile", theirs),
            "subject_token_audience_mismatch",
        ),
    ] {
        exchange(&service, app, token)
            .await
            .assert_refused(401, code);
    }
}

#[tokio::test]
async fn an_app_is_named_only_where_several_would_fit() {
    let (shared, alone) = (Issuer::start().await, other().await);
    let service = Service::builder()
        .env("CLERK_JWT_ISSUER", &shared.url)
        .env("CLERK_JWT_ISSUER_MOBILE", &shared.url)
        .env("CLERK_JWT_ISSUER_ADMIN", &alone.url)
        .start()
        .await;
    let token = shared.token();
    let answer = service.session(&token).await;
    answer.assert_refused(400, "app_required");
    assert_eq!(answer.body["error"], "invalid_request");
    let text = answer.body.to_string();
    assert!(!text.contains("mobile"), "the apps are not told: {text}");
    for app in ["default", "mobile"] {
        let answer = exchange(&service, app, &token).await;
        assert_eq!(parties(&answer).0, app);
    }
    let answer = exchange(&service, "admin", &token).await;
    answer.assert_refused(401, "subject_token_issuer_untrusted");
    let own = Token::clerk(&alone.url).sign(Key::other_rsa());
    assert_eq!(parties(&service.session(&own).await).0, "admin");
    for app in [
        "Mobile",
        "MOBILE",
        "mobil",
        "mobile ",
        "*",
        "default,mobile",
        "../default",
    ] {
        let answer = exchange(&service, app, &token).await;
        answer.assert_refused(400, "app_unknown");
    }
    for app in ["", "a\0", "a\r\nb", &"a".repeat(1025)] {
        let answer = exchange(&service, app, &token).await;
        answer.assert_refused(400, "parameter_malformed");
    }
    for app in [json!(1), json!(["default"]), json!({"name": "default"})] {
        let body = json!({"session_token": token, "app": app});
        let answer = service.exchange(&body).await;
        answer.assert_refused(400, "body_malformed");
    }
    let body = json!({"session_token": own, "app": null});
    assert_eq!(service.exchange(&body).await.status, 200);
}

#[tokio::test]
async fn apps_of_one_issuer_share_its_keys_and_keep_their_own_rules() {
    let shared = Issuer::start().await;
    let url = &shared.url;
    let service = Service::builder()
        .config(&format!(
            "[issuers.web]\nkind = \"clerk\"\nissuer = {url:?}\naudiences = \"web\"\n\
             [issuers.mobile]\nkind = \"clerk\"\nissuer = {url:?}\naudiences = \"mobile\"\n\
             [apps.web]\nissuers = \"web\"\naudience = \"https://web.example\"\n\
             [apps.mobile]\nissuers = [\"mobile\"]\naudience = \"https://mobile.example\"\nttl = \"1m\"\n"
        ))
        .start()
        .await;
    let for_audience = |audience: &str| Token::clerk(url).claim("aud", audience).sign(Key::rsa());
    for (app, ttl) in [("web", 600), ("mobile", 60)] {
        let answer = exchange(&service, app, &for_audience(app)).await;
        let claims = token::claims(answer.token());
        assert_eq!(claims["aud"], format!("https://{app}.example"));
        assert_eq!(answer.body["expires_in"], ttl);
        let answer = exchange(&service, app, &for_audience("other")).await;
        answer.assert_refused(401, "subject_token_audience_mismatch");
    }
    let answer = exchange(&service, "web", &for_audience("mobile")).await;
    answer.assert_refused(401, "subject_token_audience_mismatch");
    // Which app is meant is said by the audience that is asked for, never by the token's.
    let answer = service.session(&for_audience("mobile")).await;
    answer.assert_refused(400, "app_required");
    let body = json!({
        "session_token": for_audience("mobile"), "audience": "https://mobile.example",
    });
    assert_eq!(parties(&service.exchange(&body).await).0, "mobile");
    let body = json!({"session_token": for_audience("mobile"), "audience": "mobile"});
    let answer = service.exchange(&body).await;
    answer.assert_refused(400, "audience_not_allowed");
    assert_eq!(shared.asked(issuer::JWKS), 1);
}

#[tokio::test]
async fn instances_behind_one_host_are_told_apart_by_their_paths() {
    let (one, two) = (
        "https://proxy.test/__clerk",
        "https://proxy.test/two/__clerk",
    );
    let service = Service::builder()
        .env("CLERK_JWT_ISSUER_ONE", one)
        .env("CLERK_JWT_KEY_ONE", Key::rsa().public_pem())
        .env("CLERK_JWT_ISSUER_TWO", two)
        .env("CLERK_JWT_KEY_TWO", Key::other_rsa().public_pem())
        .start()
        .await;
    for (url, key, app) in [(one, Key::rsa(), "one"), (two, Key::other_rsa(), "two")] {
        let answer = service.session(&Token::clerk(url).sign(key)).await;
        assert_eq!(parties(&answer), (app.to_owned(), url.to_owned()));
    }
    let dir = tempfile::tempdir().unwrap();
    let both = Command::new(dir.path())
        .env("CLERK_JWT_ISSUER", format!("{one},{two}"))
        .run(&["check"]);
    assert_eq!(both.code, 0, "{}", both.stdout);
    let named = "app default: issuers proxy.test-__clerk, proxy.test-two-__clerk;";
    assert!(both.stdout.contains(named), "{}", both.stdout);
}

#[tokio::test]
async fn an_issuer_may_have_255_bytes_and_a_longer_one_is_not_looked_for() {
    let longest = format!("https://proxy.test/{}", "a".repeat(236));
    let service = Service::builder()
        .env("CLERK_JWT_ISSUER", longest.as_str())
        .env("CLERK_JWT_KEY", Key::rsa().public_pem())
        .start()
        .await;
    let answer = service
        .session(&Token::clerk(&longest).sign(Key::rsa()))
        .await;
    assert_eq!(parties(&answer).1, longest);
    let longer = Token::clerk(&format!("{longest}a")).sign(Key::rsa());
    let answer = service.session(&longer).await;
    answer.assert_refused(401, "subject_token_issuer_untrusted");
    let explained = service.command().input(&longer).run(&["explain", "--json"]);
    let said: Value = serde_json::from_str(&explained.stdout).unwrap();
    let mut rungs = said["ladder"].as_array().unwrap().iter();
    let failed = rungs.find(|rung| rung["outcome"] == "failed").unwrap();
    assert_eq!(failed["seen"], "an iss of 256 bytes", "{said:#}");
}

#[tokio::test]
async fn an_issuer_that_is_gone_takes_no_other_with_it() {
    let (here, gone) = (Issuer::start().await, other().await);
    gone.vanish();
    let service = Service::builder()
        .env("CLERK_JWT_ISSUER", format!("{},{}", gone.url, here.url))
        .start()
        .await;
    let lost = Token::clerk(&gone.url).sign(Key::other_rsa());
    for _ in 0..3 {
        let answer = service.session(&lost).await;
        answer.assert_refused(503, "issuer_keys_unavailable");
        assert_eq!(answer.body["source"], "upstream-idp");
        assert_eq!(service.session(&here.token()).await.status, 200);
    }
}

#[tokio::test]
async fn a_configured_key_needs_no_network() {
    let issuer = Issuer::start().await;
    let pem = Key::rsa().public_pem();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("clerk.pem");
    std::fs::write(&path, &pem).unwrap();
    let path = path.display().to_string();
    let token = Token::clerk(&issuer.url);
    for (name, value) in [
        ("CLERK_JWT_KEY", pem.clone()),
        ("CLERK_JWT_KEY", pem.trim_end().to_owned()),
        ("CLERK_JWT_KEY", pem.replace('\n', "\\n")),
        ("CLERK_JWT_KEY", format!("\n  {pem}  ")),
        ("CLERK_JWT_KEY_FILE", path.clone()),
    ] {
        let service = Service::builder()
            .env("CLERK_JWT_ISSUER", &issuer.url)
            .env(name, &value)
            .start()
            .await;
        // The one key answers to whatever `kid` its tokens have.
        for token in [
            token.clone(),
            token.clone().header("kid", "another"),
            token.clone().without_header("kid"),
        ] {
            let answer = service.session(&token.sign(Key::rsa())).await;
            assert_eq!(answer.status, 200, "{value}: {}", answer.body);
            let forged = token.sign(Key::other_rsa());
            let code = "subject_token_signature_invalid";
            service.refuses(&value, &forged, code).await;
        }
        assert_eq!(service.admin("/readyz").await.status, 200);
    }
    let by_file = Service::builder()
        .one_app(&issuer, &format!("jwt_key = {{ file = {path:?} }}"), "")
        .start()
        .await;
    assert_eq!(by_file.session(&issuer.token()).await.status, 200);
    let by_variable = Service::builder()
        .one_app(&issuer, "jwt_key = { env = \"SOME_KEY\" }", "")
        .env("SOME_KEY", &pem)
        .start()
        .await;
    assert_eq!(by_variable.session(&issuer.token()).await.status, 200);
    assert_eq!(issuer.requests(), Vec::<String>::new());
}

/// `pk_live_…` of this frontend API.
fn publishable(host: &str) -> String {
    format!("pk_live_{}", STANDARD.encode(format!("{host}$")))
}

#[tokio::test]
async fn a_publishable_key_names_the_issuer() {
    let host = "happy-cat-1.clerk.accounts.test";
    let unpadded = STANDARD_NO_PAD.encode(format!("{host}$"));
    for key in [publishable(host), format!("pk_test_{unpadded}")] {
        let service = Service::builder()
            .env("CLERK_PUBLISHABLE_KEY", key)
            .env("CLERK_JWT_KEY", Key::rsa().public_pem())
            .start()
            .await;
        let url = format!("https://{host}");
        let answer = service.session(&Token::clerk(&url).sign(Key::rsa())).await;
        assert_eq!(parties(&answer), ("default".to_owned(), url));
        let other = Token::clerk("https://other.example").sign(Key::rsa());
        let untrusted = "subject_token_issuer_untrusted";
        service.refuses("other", &other, untrusted).await;
    }
    let service = Service::builder()
        .env("CLERK_FRONTEND_API_URL", format!("https://{host}/"))
        .env("CLERK_JWT_KEY", Key::rsa().public_pem())
        .start()
        .await;
    let token = Token::clerk(&format!("https://{host}")).sign(Key::rsa());
    assert_eq!(service.session(&token).await.status, 200);
    // A named issuer comes first, and the disagreement is told.
    let issuer = Issuer::start().await;
    let service = Service::builder()
        .env("CLERK_JWT_ISSUER", &issuer.url)
        .env("CLERK_PUBLISHABLE_KEY", publishable(host))
        .start()
        .await;
    assert_eq!(service.session(&issuer.token()).await.status, 200);
    let check = service.command().run(&["check"]);
    assert_eq!(check.code, 0, "{}", check.stdout);
    let told = format!("note:  CLERK_PUBLISHABLE_KEY: is the key of https://{host}");
    assert!(check.stdout.contains(&told), "{}", check.stdout);
}

#[tokio::test]
async fn an_app_with_an_instance_of_its_own_takes_no_other_instances_key() {
    let (plain, mobile) = (Issuer::start().await, other().await);
    let service = Service::builder()
        .env("CLERK_JWT_ISSUER", &plain.url)
        .env("CLERK_JWT_KEY", Key::rsa().public_pem())
        .env("CLERK_PUBLISHABLE_KEY_WEB", publishable("web.example"))
        .env("CLERK_JWT_ISSUER_MOBILE", &mobile.url)
        .env("CLERK_JWT_ISSUER_SAME", &plain.url)
        .env("CLERK_JWT_AUDIENCE_SAME", "same")
        .start()
        .await;
    // With the plain key, the other instance's tokens would fail and forged ones pass.
    let good = Token::clerk(&mobile.url).sign(Key::other_rsa());
    assert_eq!(parties(&service.session(&good).await).0, "mobile");
    let forged = Token::clerk(&mobile.url).sign(Key::rsa());
    let code = "subject_token_signature_invalid";
    service.refuses("forged", &forged, code).await;
    // The same instance in another app has the same key.
    let same = Token::clerk(&plain.url)
        .claim("aud", "same")
        .sign(Key::rsa());
    let answer = exchange(&service, "same", &same).await;
    assert_eq!(parties(&answer), ("same".to_owned(), plain.url.clone()));
    assert_eq!(plain.requests(), Vec::<String>::new());
    // An app's own publishable key comes before the plain issuer.
    let answer = exchange(&service, "web", &plain.token()).await;
    answer.assert_refused(401, "subject_token_issuer_untrusted");
    let check = service.command().run(&["check"]);
    assert!(
        check.stdout.contains("app web: issuers web.example-web;"),
        "{}",
        check.stdout
    );
    let told = "note:  CLERK_JWT_KEY: is not used for the app \"mobile\"";
    assert!(check.stdout.contains(told), "{}", check.stdout);
}

#[test]
fn what_does_not_fit_together_is_told_at_once() {
    let check = |variables: &[(&str, &str)], toml: &str| {
        let dir = tempfile::tempdir().unwrap();
        if !toml.is_empty() {
            std::fs::write(dir.path().join("exchequer.toml"), toml).unwrap();
        }
        let mut command = Command::new(dir.path());
        for (name, value) in variables {
            command = command.env(name, value);
        }
        let ended = command.run(&["check"]);
        assert_eq!(ended.code, 1, "{variables:?} {toml}: {}", ended.stdout);
        ended.stdout
    };
    let pem = Key::rsa().public_pem();
    let (one, two) = ("https://one.example", "https://two.example");
    let both = format!("{one},{two}");
    let twice = format!("{one},{one}");
    for (variables, message) in [
        (&[][..], "error: CLERK_JWT_ISSUER: no app is configured"),
        (
            &[("CLERK_JWT_ISSUER", both.as_str()), ("CLERK_JWT_KEY", &pem)],
            "error: CLERK_JWT_KEY: is one instance's key, but the app has several issuers",
        ),
        (
            &[("CLERK_JWT_ISSUER", one), ("CLERK_JWT_KEY", "not a key")],
            "error: CLERK_JWT_KEY: is no public key in PEM",
        ),
        (
            &[
                ("CLERK_JWT_ISSUER", one),
                ("CLERK_JWT_KEY", &pem),
                ("CLERK_JWT_KEY_FILE", "/dev/null"),
            ],
            "error: CLERK_JWT_KEY_FILE: CLERK_JWT_KEY is set too",
        ),
        (
            &[
                ("CLERK_JWT_ISSUER", one),
                ("CLERK_JWT_KEY_FILE", "missing.pem"),
            ],
            "error: CLERK_JWT_KEY_FILE: the file that it names cannot be read",
        ),
        (
            &[("CLERK_JWT_ISSUER", "clerk.example.com")],
            "error: CLERK_JWT_ISSUER: \"clerk.example.com\" is no URL",
        ),
        (
            &[
                ("CLERK_JWT_ISSUER", one),
                ("CLERK_JWT_ISSUER_B", "http://b.example"),
            ],
            "error: CLERK_JWT_ISSUER_B: \"http://b.example\" must be https",
        ),
        (
            &[("CLERK_JWT_ISSUER", twice.as_str())],
            "two of the app's issuers are https://one.example",
        ),
        (
            &[("CLERK_PUBLISHABLE_KEY", "pk_test_???")],
            "error: CLERK_PUBLISHABLE_KEY: is no publishable key",
        ),
    ] {
        let found = check(variables, "");
        assert!(found.contains(message), "{message}: {found}");
    }
    // A name by which the apps' issuers are found: with two of it, one's rules would be lost.
    let named = "[issuers.\"one.example\"]\nissuer = \"https://one.example\"\n\
                 audiences = [\"tasks\"]\n[apps.x]\nissuers = [\"one.example\"]\n";
    let found = check(&[("CLERK_JWT_ISSUER", one)], named);
    let message = "error: CLERK_JWT_ISSUER: two issuers are named \"one.example\"";
    assert!(found.contains(message), "{found}");
    let issuers = "[issuers.a]\nissuer = \"https://a.example\"\n\
                   [issuers.b]\nissuer = \"https://b.example\"\n";
    for (app, message) in [
        (
            "[apps.x]\nissuers = [\"a\", \"b\"]\n",
            "error: exchequer.toml:5: the app trusts several issuers whose subjects could be equal",
        ),
        (
            "[apps.x]\nissuers = [\"a\", \"bb\"]\n",
            "error: exchequer.toml:5: issuer \"bb\" is not configured: did you mean",
        ),
        (
            "[apps.x]\n",
            "error: exchequer.toml:5: `issuers` is missing",
        ),
        (
            "[apps.x]\nissuers = []\n",
            "error: exchequer.toml:5: `issuers` is missing",
        ),
    ] {
        let found = check(&[], &format!("{issuers}{app}"));
        assert!(found.contains(message), "{message}: {found}");
    }
    let found = check(
        &[("CLERK_JWT_ISSUER_X", one)],
        &format!("{issuers}[apps.x]\nissuers = [\"a\"]\n"),
    );
    assert!(
        found.contains("the app \"x\" is configured in the file too"),
        "{found}"
    );
}

#[tokio::test]
async fn issuers_whose_subjects_could_be_equal_are_told_apart_by_the_app() {
    let (first, second) = (Issuer::start().await, other().await);
    let service = Service::builder()
        .config(&format!(
            "[issuers.a]\nissuer = {:?}\n[issuers.b]\nissuer = {:?}\n\
             [apps.x]\nissuers = [\"a\", \"b\"]\nsubject = 'iss + \"|\" + sub'\n",
            first.url, second.url
        ))
        .start()
        .await;
    let mut subjects = Vec::new();
    for (issuer, key) in [(&first, Key::rsa()), (&second, Key::other_rsa())] {
        let token = Token::oidc(&issuer.url, "client_1").sign(key);
        let answer = service.session(&token).await;
        let claims = token::claims(answer.token());
        assert_eq!(claims["sub"], format!("{}|248289761001", issuer.url));
        subjects.push(claims["sub"].clone());
    }
    assert_ne!(subjects[0], subjects[1]);
}
