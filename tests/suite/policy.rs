//! What an app grants: expressions over the verified claims, audiences, lifetimes, algorithms.

use crate::support::{Answer, Command, Issuer, Key, Service, Token, eventually, now, token};
use serde_json::{Value, json};
use std::fmt::Write as _;

/// A service with one app for each expression, named `a0`, `a1`, …, all of one issuer.
async fn one_app_each(issuer: &Issuer, lines: impl IntoIterator<Item = String>) -> Service {
    let url = &issuer.url;
    let mut toml = format!("[issuers.clerk]\nissuer = {url:?}\nkind = \"clerk\"\n");
    for (index, line) in lines.into_iter().enumerate() {
        write!(toml, "[apps.a{index}]\nissuers = [\"clerk\"]\n{line}\n").unwrap();
    }
    Service::builder().config(&toml).start().await
}

async fn exchange(service: &Service, app: &str, token: &Token) -> Answer {
    let token = token.sign(Key::rsa());
    let body = json!({"session_token": token, "app": app});
    service.exchange(&body).await
}

/// A TOML literal string.
fn quoted(expression: &str) -> String {
    format!("'''{expression}'''")
}

#[tokio::test]
async fn subject_and_claims_are_what_the_apps_expressions_say() {
    let issuer = Issuer::start().await;
    let service = Service::builder()
        .one_app(
            &issuer,
            "",
            r#"
subject = 'iss + "|" + sub'
claims.plan = 'claims.meta.plan'
claims.level_after = 'claims.meta.level + 1'
claims.half = 'claims.meta.ratio / 2.0'
claims.tags = 'claims.meta.tags.filter(tag, tag.startsWith("a"))'
claims.nested = '{"app": app, "org": {"id": org.id, "slug": org.slug, "role": org.role}}'
claims.who = 'sub + "@" + sid'
claims.is_admin = '"org:admin" in roles'
claims.may_read = '"org:tasks:read" in permissions'
claims.known = 'plans + features'
claims.impersonated = 'act != null'
claims.signed_in = 'auth_time'
claims."https://example.com/email" = 'has(claims.email) ? claims.email : null'
claims.nothing = 'null'
claims.no_phone = 'has(claims.phone) ? claims.phone : null'
claims.org_slug = '"other"'
claims.roles = 'roles.map(role, role + "!")'
claims.permissions = '[]'
claims.auth_time = '5'
claims.org_id = 'null'
"#,
        )
        .start()
        .await;
    let iat = now() - 3;
    let token = Token::clerk(&issuer.url)
        .claim("iat", iat)
        .claim("email", "a@example.com")
        .claim(
            "meta",
            json!({"plan": "pro", "level": 41, "ratio": 1.5, "tags": ["ab", "ba", "ac"]}),
        )
        .claim("pla", "u:pro")
        .claim("fea", "o:tasks")
        .claim(
            "o",
            json!({"id": "org_1", "slg": "acme", "rol": "admin", "per": "read", "fpm": "1"}),
        );
    let answer = service.session(&token.sign(Key::rsa())).await;
    let compact = answer.token();
    let mut claims = token::claims(compact);
    for name in ["exp", "iat", "nbf", "jti"] {
        claims.as_object_mut().unwrap().remove(name).unwrap();
    }
    let subject = format!("{}|user_1", issuer.url);
    assert_eq!(
        claims,
        json!({
            "iss": "http://localhost:8080", "sub": subject, "aud": "http://localhost:8080",
            "client_id": "web", "idp": issuer.url, "sid": "sess_1", "org_id": "org_1",
            "plan": "pro", "level_after": 42, "half": 0.75, "tags": ["ab", "ac"],
            "nested": {"app": "web", "org": {"id": "org_1", "slug": "acme", "role": "org:admin"}},
            "who": "user_1@sess_1", "is_admin": true, "may_read": true,
            "known": ["u:pro", "o:tasks"], "impersonated": false, "signed_in": iat - 60,
            "https://example.com/email": "a@example.com",
            "org_slug": "other", "roles": ["org:admin!"], "permissions": [], "auth_time": 5,
        })
    );
    assert_eq!(answer.body["user"]["id"], subject);
    // A reader of the app token must not find two of them (RFC 7519 §4).
    use base64::Engine;
    let payload = compact.split('.').nth(1).unwrap();
    let text = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(payload)
        .unwrap();
    let text = String::from_utf8(text).unwrap();
    for name in ["org_slug", "roles", "permissions", "auth_time", "sub"] {
        assert_eq!(text.matches(&format!("\"{name}\":")).count(), 1, "{name}");
    }
}

#[tokio::test]
async fn a_condition_admits_only_when_it_is_true() {
    let issuer = Issuer::start().await;
    let (ok, unmet, failed) = (None, Some("condition_not_met"), Some("expression_failed"));
    let cases = [
        ("true", ok),
        ("sub == 'user_1'", ok),
        ("claims.meta.level == 41", ok),
        ("claims.meta.level >= 18 && claims.meta.level % 2 == 1", ok),
        ("claims.meta.level * 2 - 1 > 80", ok),
        ("claims.meta.level in [40, 41]", ok),
        ("claims.meta.list[claims.meta.index] == 'b'", ok),
        ("claims.meta.list.size() == 2", ok),
        ("claims.meta.list.size() + claims.meta.index == 3", ok),
        ("!has(claims.missing)", ok),
        ("has(claims.missing) && claims.missing == 'x'", unmet),
        ("org.role == 'org:admin' && org.id == 'org_1'", ok),
        ("'org:admin' in roles", ok),
        ("claims.iss == iss", ok),
        ("app == 'web' || sid == 'sess_1'", ok),
        ("act == null", ok),
        ("claims.email.endsWith('@example.com')", ok),
        ("claims.email.matches('^[a-z]+@example[.]com$')", ok),
        ("false", unmet),
        ("claims.meta.level < 18", unmet),
        ("'org:owner' in roles", unmet),
        ("claims.email.matches('^admin@')", unmet),
        ("claims.meta.level == '41'", unmet),
        // What is not true is not true: truthiness admits nobody.
        ("1", failed),
        ("'true'", failed),
        ("sub", failed),
        ("null", failed),
        ("[true]", failed),
        ("{'true': true}", failed),
        ("claims", failed),
        ("claims.missing", failed),
        ("claims.missing == 'x'", failed),
        ("claims.meta.missing.deeper == 'x'", failed),
        ("claims.email.missing == 'x'", failed),
        ("claims.email > 5", failed),
        ("!claims.email", failed),
    ];
    let lines = cases
        .iter()
        .map(|(expression, _)| format!("condition = {}", quoted(expression)));
    let service = one_app_each(&issuer, lines).await;
    let token = Token::clerk(&issuer.url)
        .claim("email", "a@example.com")
        .claim("meta", json!({"level": 41, "index": 1, "list": ["a", "b"]}));
    for (index, (expression, code)) in cases.iter().enumerate() {
        let answer = exchange(&service, &format!("a{index}"), &token).await;
        let found = answer.body["code"].as_str();
        assert_eq!(found, *code, "{expression}: {}", answer.body);
        if let Some(code) = code {
            answer.assert_refused(403, code);
            assert_eq!(answer.body["error"], "access_denied");
            assert_eq!(answer.body["seen"]["iss"], issuer.url);
            let text = answer.body.to_string();
            assert!(!text.contains(expression) || expression.len() < 8, "{text}");
        }
    }
}

#[tokio::test]
async fn a_subject_expression_gives_one_text_of_bounded_length() {
    let issuer = Issuer::start().await;
    let cases = [
        ("claims.ext", true),
        ("sub + ':' + app", true),
        ("claims.long + claims.long", false),
        ("''", false),
        ("null", false),
        ("1", false),
        ("[sub]", false),
        ("{'sub': sub}", false),
        ("true", false),
        ("claims.missing", false),
    ];
    let lines = cases
        .iter()
        .map(|(expression, _)| format!("subject = {}", quoted(expression)));
    let service = one_app_each(&issuer, lines).await;
    let token = Token::clerk(&issuer.url)
        .claim("ext", "e\u{301}|✓")
        .claim("long", "l".repeat(128));
    for (index, (expression, good)) in cases.iter().enumerate() {
        let app = format!("a{index}");
        let answer = exchange(&service, &app, &token).await;
        if *good {
            let sub = token::claims(answer.token())["sub"].clone();
            assert_eq!(answer.body["user"]["id"], sub);
            let expected = [json!("e\u{301}|✓"), json!(format!("user_1:{app}"))];
            assert_eq!(sub, expected[index]);
        } else {
            assert_eq!(answer.body["code"], "expression_failed", "{expression}");
            answer.assert_refused(403, "expression_failed");
        }
    }
}

#[tokio::test]
async fn a_failing_expression_refuses_one_request_and_harms_nothing_else() {
    let issuer = Issuer::start().await;
    let expressions = [
        "1 / 0 == 1",
        "1 % 0 == 1",
        "1u / 0u == 1u",
        "claims.one / (claims.one - claims.one) == 1",
        "9223372036854775807 + 1 > 0",
        "-9223372036854775807 - 2 < 0",
        "9223372036854775807 * 2 > 0",
        "-(-9223372036854775807 - 1) > 0",
        "(-9223372036854775807 - 1) / -1 > 0",
        "(-9223372036854775807 - 1) % -1 == 1",
        "18446744073709551615u + 1u > 0u",
        "0u - 1u > 0u",
        "claims.biggest + claims.biggest > 0",
        "int(1e300) > 0",
        "int(claims.huge) > 0",
        "uint(-1) > 0u",
        "uint(1e300) > 0u",
        "int('x') > 0",
        "int('') > 0",
        "double('x') > 0.0",
        "int(double('NaN')) > 0",
        "int(double('Infinity')) > 0",
        "[1][5] == 1",
        "[1][-1] == 1",
        "[][0] == 1",
        "claims.list[9223372036854775807] == 1",
        "claims.list[-9223372036854775807] == 1",
        "claims.list[0.5] == 1",
        "claims.list['x'] == 1",
        "claims.list[null] == 1",
        "{}['x'] == 1",
        "{1: 2}[{}] == 1",
        "claims[1] == 1",
        "sub[0] == 'u'",
        "claims.deep.missing == 1",
        "claims.list.map(x, x / 0) == []",
        "claims.list.all(x, 1 / 0 == x)",
        "claims.sub.size",
        "size(1) == 1",
        "sub.size(1) == 1",
        "sub.unknown() == 1",
        "unknown(sub) == 1",
        "sub.matches('(') ",
        "sub.matches('[')",
        "sub.matches('(?P<n')",
        r"sub.matches('\\')",
        "sub.matches('a{100000000}')",
        "sub.matches('(((a{100}){100}){100}){100}')",
        r"sub.matches('(\\pL{500}){500}')",
        "sub.matches(1)",
        "sub.matches(null)",
        "sub + 1 == 'x'",
        "sub - sub == ''",
        "sub * 3 == ''",
        "-sub == ''",
        "null + null == null",
        "{} + {} == {}",
        "{} < {}",
        "null < 1",
        "[1] < [2] && sub",
        "string({}) == ''",
        "string([1]) == ''",
        "string(null) == ''",
        r"string(b'\xff') == ''",
        "true ? sub : false",
        "sub ? true : false",
        "sub && true",
        "has(claims.sub.x.y)",
        "claims.emoji[0] == 'x'",
        "type(sub)",
        "claims.list.map(a, claims.list.map(b, a))",
    ];
    let lines = expressions
        .iter()
        .map(|expression| format!("condition = {}", quoted(expression)))
        .chain(["claims.x = 'sub'".to_owned()]);
    let service = one_app_each(&issuer, lines).await;
    let deep = (0..100).fold(json!(1), |inner, _| json!({ "a": inner }));
    let token = Token::clerk(&issuer.url)
        .claim("one", 1)
        .claim("biggest", i64::MAX)
        .claim("huge", 1e300)
        .claim("list", json!([1, 2, 3]))
        .claim("deep", deep)
        .claim("emoji", "👩‍👩‍👧");
    let pid = service.pid();
    for (index, expression) in expressions.iter().enumerate() {
        let answer = exchange(&service, &format!("a{index}"), &token).await;
        assert_eq!(
            answer.body["code"], "expression_failed",
            "{expression}: {}",
            answer.body
        );
        answer.assert_refused(403, "expression_failed");
    }
    let last = format!("a{}", expressions.len());
    assert_eq!(exchange(&service, &last, &token).await.status, 200);
    assert_eq!(service.get("/healthz").await.status, 200);
    assert_eq!(service.pid(), pid);
    eventually("each refusal is logged", async || {
        service.logged("refused").len() == expressions.len()
    })
    .await;
}

#[tokio::test]
async fn an_evil_pattern_or_a_deep_claim_is_only_work() {
    let issuer = Issuer::start().await;
    let cases = [
        ("claims.text.matches('^(a+)+$')", false),
        ("claims.text.matches('^(a|aa)+$')", false),
        ("claims.text.matches('(.*)(.*)(.*)(.*)[^x]$')", true),
        ("claims.text.matches('^(([a-z])+.)+[A-Z]([a-z])+$')", false),
        ("claims.text.matches(claims.pattern)", false),
        ("claims.deep == claims.deep", true),
        ("size(claims.text) == 5001", true),
        ("claims.deep.a.a.a.a.a.a.a.a.a.a != 1", true),
        ("claims.list.all(a, claims.list.exists(b, b == a))", true),
    ];
    let lines = cases
        .iter()
        .map(|(expression, _)| format!("condition = {}", quoted(expression)))
        .chain(["claims.copy = 'claims.deep'".to_owned()]);
    let service = one_app_each(&issuer, lines).await;
    let deep = (0..120).fold(json!(1), |inner, _| json!({ "a": inner }));
    let token = Token::clerk(&issuer.url)
        .claim("text", format!("{}!", "a".repeat(5000)))
        .claim("pattern", "^(a*)*b$")
        .claim("list", json!((0..100).collect::<Vec<i32>>()))
        .claim("deep", deep.clone());
    for (index, (expression, admitted)) in cases.iter().enumerate() {
        let answer = exchange(&service, &format!("a{index}"), &token).await;
        let status = if *admitted { 200 } else { 403 };
        assert_eq!(answer.status, status, "{expression}: {}", answer.body);
    }
    let answer = exchange(&service, &format!("a{}", cases.len()), &token).await;
    assert_eq!(token::claims(answer.token())["copy"], deep);
}

#[tokio::test]
async fn a_failing_expression_tells_nobody_the_claims() {
    let issuer = Issuer::start().await;
    let secret = "s3cr3t-[-4711";
    let expressions = [
        "claims.table[claims.secret]",
        "claims.table[claims.number]",
        "claims.list[claims.number]",
        "claims.secret.member",
        "claims.secret + 1",
        "claims.secret - claims.secret",
        "claims.secret < 1",
        "-claims.secret",
        "!claims.secret",
        "int(claims.secret)",
        "double(claims.secret)",
        "claims.number / 0",
        "claims.number % 0",
        "claims.number + 9223372036854775807",
        "claims.secret.matches(claims.secret)",
        "claims.secret.matches(claims.secret + '(')",
        "claims.secret[0]",
        "claims.secret[claims.secret]",
        "{claims.secret: 1, claims.secret: 2}",
        "{claims.table: 1}",
        "claims.secret ? 1 : 2",
        "claims.secret && true",
        "claims.secret.unknown()",
        "claims.secret.size(claims.secret)",
        "size(claims.number)",
        "claims.wrapped[0][claims.secret]",
    ];
    let lines = expressions
        .iter()
        .map(|expression| format!("claims.x = {}", quoted(expression)));
    let service = one_app_each(&issuer, lines).await;
    let token = Token::clerk(&issuer.url)
        .claim("secret", secret)
        .claim("number", 918_273_645_546_i64)
        .claim("table", json!({"a": 1}))
        .claim("wrapped", json!([{"a": secret}]))
        .claim("list", json!([1]));
    for (index, expression) in expressions.iter().enumerate() {
        let answer = exchange(&service, &format!("a{index}"), &token).await;
        assert_eq!(answer.status, 403, "{expression}: {}", answer.body);
        answer.assert_refused(403, "expression_failed");
        let text = answer.body.to_string();
        assert!(!text.contains("s3cr3t"), "{expression}: {text}");
        assert!(!text.contains("918273645546"), "{expression}: {text}");
        assert_eq!(
            answer.body["error_description"],
            "The app's `claims.x` could not be evaluated for this subject."
        );
    }
    let logged = service.logged("refused");
    assert_eq!(logged.len(), expressions.len());
    for line in service.log() {
        assert!(!line.contains("s3cr3t"), "{line}");
        assert!(!line.contains("918273645546"), "{line}");
    }
    // The operator learns which expression it was.
    for (line, expression) in logged.iter().zip(expressions) {
        let cause = line["cause"].as_str().unwrap();
        assert!(cause.contains(&format!("{expression:?}")), "{cause}");
    }
}

#[tokio::test]
async fn a_claim_keeps_its_type_and_is_absent_where_it_is_null() {
    let issuer = Issuer::start().await;
    let cases = [
        ("null", Value::Null),
        ("claims.nothing", Value::Null),
        ("''", json!("")),
        ("0", json!(0)),
        ("false", json!(false)),
        ("[]", json!([])),
        ("{}", json!({})),
        ("[null]", json!([null])),
        ("-1", json!(-1)),
        ("18446744073709551615u", json!(u64::MAX)),
        ("claims.exact", json!(9_007_199_254_740_993_i64)),
        ("claims.unsigned", json!(u64::MAX)),
        ("claims.float", json!(1.5)),
        ("{1: 'a', true: 'b'}", json!({"1": "a", "true": "b"})),
        ("type(sub)", json!("string")),
        ("b'\\xff'", json!("/w==")),
        ("double('NaN')", Value::Null),
    ];
    let lines = cases
        .iter()
        .map(|(expression, _)| format!("claims.x = {}", quoted(expression)));
    let service = one_app_each(&issuer, lines).await;
    let token = Token::clerk(&issuer.url)
        .claim("nothing", Value::Null)
        .claim("exact", 9_007_199_254_740_993_i64)
        .claim("unsigned", u64::MAX)
        .claim("float", 1.5);
    for (index, (expression, expected)) in cases.iter().enumerate() {
        let answer = exchange(&service, &format!("a{index}"), &token).await;
        let claims = token::claims(answer.token());
        let found = claims.get("x").cloned();
        assert_eq!(found.is_none(), expected.is_null(), "{expression}");
        assert_eq!(found.unwrap_or_default(), *expected, "{expression}");
    }
}

/// Runs `exchequer check` over one app with these lines, the sixth and following of the file.
fn check(lines: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let toml = format!(
        "[issuers.clerk]\nissuer = \"https://clerk.example.com\"\nkind = \"clerk\"\n\
         [apps.web]\nissuers = [\"clerk\"]\n{lines}\n"
    );
    std::fs::write(dir.path().join("exchequer.toml"), toml).unwrap();
    let ended = Command::new(dir.path()).run(&["check"]);
    let wrong = ended.stdout.contains("error: ");
    assert_eq!(ended.code, i32::from(wrong), "{}", ended.stdout);
    let serve = wrong.then(|| Command::new(dir.path()).run(&["serve"]).code);
    assert!(serve.is_none_or(|code| code == 2), "{serve:?}");
    ended.stdout
}

#[test]
fn the_tokens_own_claims_cannot_be_set_by_an_app() {
    for name in [
        "iss",
        "sub",
        "aud",
        "exp",
        "nbf",
        "iat",
        "jti",
        "client_id",
        "idp",
        "act",
        "sid",
        "scope",
        "cnf",
    ] {
        let found = check(&format!("ttl = \"5m\"\nclaims.{name} = 'sub'"));
        assert!(
            found.contains(&format!(
                "error: exchequer.toml:7: claims.{name}: this claim is the token's own and cannot be set\n"
            )),
            "{found}"
        );
    }
}

#[test]
fn an_apps_mistakes_are_found_before_it_serves() {
    for (line, message) in [
        ("claims.x = 5", "claims.x: must be an expression in quotes"),
        ("claims = 'sub'", "claims: must be a table"),
        ("claims.x = 'sub +'", "claims.x: not a CEL expression"),
        ("claims.x = ''", "claims.x: not a CEL expression"),
        ("claims.x = 'usr.id'", "claims.x: \"usr\" is unknown"),
        ("claims.x = 'clams.id'", "did you mean \"claims\"?"),
        ("condition = 'rolse == []'", "did you mean \"roles\"?"),
        ("condition = true", "condition: must be a text"),
        ("subject = 'a b c'", "subject: not a CEL expression"),
        ("ttl = \"29s\"", "ttl: 29s is out of range: 30s to 1h"),
        ("ttl = \"61m\"", "ttl: 61m is out of range: 30s to 1h"),
        ("ttl = 600", "ttl: must be a text"),
        (
            "ttl_bound = \"session\"",
            "ttl_bound: \"session\" is neither none nor subject",
        ),
        (
            "alg = \"HS256\"",
            "alg: \"HS256\" is none of ES256, RS256, EdDSA",
        ),
        (
            "alg = \"none\"",
            "alg: \"none\" is none of ES256, RS256, EdDSA",
        ),
        (
            "typ = \"dpop+jwt\"",
            "typ: \"dpop+jwt\" is neither JWT nor at+jwt",
        ),
        (
            "audience = [1]",
            "audience: must be a text or a list of texts",
        ),
        (
            "audience = \"\"",
            "audience: must be a text or a list of texts",
        ),
        ("audiences = \"x\"", "did you mean \"audience\"?"),
    ] {
        let found = check(line);
        let errors: Vec<&str> = found
            .lines()
            .filter(|line| line.starts_with("error: "))
            .collect();
        assert_eq!(errors.len(), 1, "{line}: {found}");
        assert!(
            errors[0].starts_with("error: exchequer.toml:6: "),
            "{found}"
        );
        assert!(errors[0].contains(message), "{line}: {found}");
    }
    assert!(!check("ttl = \"30s\"").contains("error: "));
    assert!(!check("ttl = \"1h\"").contains("error: "));
}

#[tokio::test]
async fn lifetime_audience_algorithm_and_type_are_the_apps_own() {
    let issuer = Issuer::start().await;
    let service = one_app_each(
        &issuer,
        [
            String::new(),
            "ttl = \"30s\"\naudience = \"https://one.example\"\nalg = \"EdDSA\"".to_owned(),
            "ttl = \"1h\"\naudience = [\"two\", \"three\"]\ntyp = \"at+jwt\"\nalg = \"RS256\""
                .to_owned(),
        ],
    )
    .await;
    let jwks = service.get("/.well-known/jwks.json").await.body;
    for (app, ttl, audience, alg, typ) in [
        ("a0", 600, "http://localhost:8080", "ES256", "JWT"),
        ("a1", 30, "https://one.example", "EdDSA", "JWT"),
        ("a2", 3600, "two", "RS256", "at+jwt"),
    ] {
        let answer = exchange(&service, app, &Token::clerk(&issuer.url)).await;
        let (header, claims) = (token::header(answer.token()), token::claims(answer.token()));
        assert_eq!(answer.body["expires_in"], ttl);
        let iat = claims["iat"].as_i64().unwrap();
        assert_eq!(claims["exp"], iat + 10 + ttl, "backdated by ten seconds");
        assert_eq!(claims["aud"], audience);
        assert_eq!(claims["client_id"], app);
        let kid = header["kid"].clone();
        assert_eq!(header, json!({"alg": alg, "kid": kid, "typ": typ}));
        let keys = jwks["keys"].as_array().unwrap();
        assert!(
            keys.iter()
                .any(|key| key["kid"] == kid && key["alg"] == alg)
        );
    }
}

#[tokio::test]
async fn a_request_chooses_among_the_apps_audiences() {
    let issuer = Issuer::start().await;
    let service = Service::builder()
        .one_app(&issuer, "", "audience = [\"two\", \"three\"]")
        .start()
        .await;
    for (asked, given) in [
        (None, "two"),
        (Some("two"), "two"),
        (Some("three"), "three"),
    ] {
        let body = json!({"session_token": issuer.token(), "audience": asked});
        let answer = service.exchange(&body).await;
        assert_eq!(token::claims(answer.token())["aud"], given);
    }
    for asked in [
        "four",
        "Two",
        "two ",
        "tw",
        "two,three",
        "two three",
        "http://localhost:8080",
        "*",
    ] {
        let body = json!({"session_token": issuer.token(), "audience": asked});
        let answer = service.exchange(&body).await;
        answer.assert_refused(400, "audience_not_allowed");
        assert_eq!(answer.body["error"], "invalid_target");
    }
    for asked in ["", "t\0", "two\r\n", &"t".repeat(1025)] {
        let body = json!({"session_token": issuer.token(), "audience": asked});
        let answer = service.exchange(&body).await;
        answer.assert_refused(400, "parameter_malformed");
    }
    for asked in [json!(["two"]), json!(2), json!({"aud": "two"})] {
        let body = json!({"session_token": issuer.token(), "audience": asked});
        let answer = service.exchange(&body).await;
        answer.assert_refused(400, "body_malformed");
    }
}

#[tokio::test]
async fn an_app_token_bound_to_its_subject_token_does_not_outlive_it() {
    let issuer = Issuer::start().await;
    let service = one_app_each(
        &issuer,
        [
            "ttl_bound = \"subject\"".to_owned(),
            "ttl_bound = \"none\"".to_owned(),
        ],
    )
    .await;
    let exp = now() + 47;
    let short = Token::clerk(&issuer.url).claim("exp", exp);
    let answer = exchange(&service, "a0", &short).await;
    assert_eq!(token::claims(answer.token())["exp"], exp);
    let left = answer.body["expires_in"].as_i64().unwrap();
    assert!((37..=47).contains(&left), "{left}");
    let answer = exchange(&service, "a1", &short).await;
    assert_eq!(answer.body["expires_in"], 600);
    let long = Token::clerk(&issuer.url).claim("exp", now() + 3600);
    let answer = exchange(&service, "a0", &long).await;
    assert_eq!(answer.body["expires_in"], 600);
    // Within the tolerated skew after its end, a subject token is good for a second.
    let late = Token::clerk(&issuer.url).claim("exp", now() - 1);
    let answer = exchange(&service, "a0", &late).await;
    assert_eq!(answer.body["expires_in"], 1);
}
