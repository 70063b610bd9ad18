//! Bound tokens at the gate: each request of theirs goes with a proof of that very request.

use crate::dpop::{API, HERE, Proof, ask, bound, exchange, nonce, other_p256, show, world};
use crate::gateways::{Backend, Gateway, Kind};
use crate::support::{Issuer, Key, Service, now};

#[tokio::test]
async fn at_the_gate_a_bound_token_goes_with_a_proof_of_the_very_request() {
    let (issuer, service) = world("").await;
    let key = Key::p256();
    let token = bound(&service, &issuer, key).await;
    for (method, target, path) in [
        ("GET", "/", "/"),
        ("GET", "/", ""),
        ("GET", "/tasks/7?page=2&x=%20", "/tasks/7"),
        ("DELETE", "/tasks/%7e7", "/tasks/~7"),
        ("POST", "/tasks%2f7", "/tasks%2F7"),
    ] {
        let proof = Proof::api(key, method, path, &token);
        // Remembered or not, each request needs a proof of its own.
        for again in 0..2 {
            let proof = proof
                .clone()
                .claim("jti", format!("{method} {target} {path} {again}"));
            let signed = proof.sign(key);
            let answer = show(&service, method, target, &token, &signed).await;
            assert_eq!(answer.status, 200, "{method} {target}: {}", answer.body);
            assert_eq!(answer.header("x-user-id"), "user_1");
            let replayed = show(&service, method, target, &token, &signed).await;
            replayed.assert_refused(401, "dpop_proof_used");
        }
    }
    let good = || Proof::api(key, "GET", "/tasks", &token);
    let (other, mismatch) = (other_p256(), "dpop_proof_request_mismatch");
    let anothers = bound(&service, &issuer, other).await;
    for (what, proof, code) in [
        (
            "another method",
            good().claim("htm", "POST").sign(key),
            mismatch,
        ),
        (
            "another path",
            Proof::api(key, "GET", "/tasks/", &token).sign(key),
            mismatch,
        ),
        (
            "another host, whatever the client says it is",
            good().claim("htu", "https://evil.example/tasks").sign(key),
            mismatch,
        ),
        (
            "ours",
            good().claim("htu", format!("{HERE}/auth/verify")).sign(key),
            mismatch,
        ),
        (
            "no token",
            good().without("ath").sign(key),
            "dpop_proof_token_mismatch",
        ),
        (
            "another token",
            Proof::api(key, "GET", "/tasks", &anothers).sign(key),
            "dpop_proof_token_mismatch",
        ),
        (
            "another key",
            Proof::api(other, "GET", "/tasks", &token).sign(other),
            "dpop_key_mismatch",
        ),
        (
            "an old one",
            good().claim("iat", now() - 70).sign(key),
            "dpop_proof_expired",
        ),
        ("none", "x".to_owned(), "dpop_proof_malformed"),
    ] {
        let answer = show(&service, "GET", "/tasks", &token, &proof).await;
        assert_eq!(answer.body["code"], code, "{what}: {}", answer.body);
        answer.assert_refused(401, code);
        let challenge = answer.header("www-authenticate");
        let expected =
            "DPoP algs=\"ES256 EdDSA Ed25519 RS256 PS256\", error=\"invalid_dpop_proof\"";
        assert!(challenge.starts_with(expected), "{what}: {challenge}");
    }
    let none = ask(&service, "GET", "/", &[]).await;
    none.assert_refused(401, "bearer_missing");
    let challenges = none.headers.get_all("www-authenticate").iter();
    let bearer = "Bearer resource_metadata=\"http://localhost:8080/.well-known/oauth-protected-resource/auth/verify\"";
    let expected = "DPoP algs=\"ES256 EdDSA Ed25519 RS256 PS256\"";
    assert_eq!(challenges.collect::<Vec<_>>(), [bearer, expected]);
    let authorization = format!("DPoP {token}");
    let answer = ask(&service, "GET", "/", &[("authorization", &authorization)]).await;
    answer.assert_refused(401, "dpop_proof_missing");
    let proofs = [good().sign(key), good().sign(key)];
    let headers = [
        ("authorization", authorization.as_str()),
        ("dpop", &proofs[0]),
        ("dpop", &proofs[1]),
    ];
    let answer = ask(&service, "GET", "/tasks", &headers).await;
    answer.assert_refused(401, "dpop_proof_malformed");
}

#[tokio::test]
async fn a_bound_token_is_no_bearer_token_and_a_bearer_token_no_bound_one() {
    let (issuer, service) = world("verify.pass_through = true").await;
    let key = Key::p256();
    let token = bound(&service, &issuer, key).await;
    let proof = || Proof::api(key, "GET", "/", &token).sign(key);
    // Before it was admitted and after, with a proof and without.
    for round in 0..2 {
        let bearer = format!("Bearer {token}");
        let stripped = ask(&service, "GET", "/", &[("authorization", &bearer)]).await;
        stripped.assert_refused(401, "app_token_bound");
        let challenge = stripped.header("www-authenticate");
        assert!(challenge.starts_with("DPoP algs="), "{challenge}");
        let proof = proof();
        let headers = [("authorization", bearer.as_str()), ("dpop", &proof)];
        let answer = ask(&service, "GET", "/", &headers).await;
        answer.assert_refused(401, "app_token_bound");
        let answer = show(&service, "GET", "/", &token, &proof).await;
        assert_eq!(answer.status, 200, "{round}: {}", answer.body);
    }
    let unbound = exchange(&service, &issuer, &[]).await.token().to_owned();
    for token in [unbound, issuer.token()] {
        let proof = Proof::api(key, "GET", "/", &token).sign(key);
        let answer = show(&service, "GET", "/", &token, &proof).await;
        answer.assert_refused(401, "app_token_not_bound");
        let bearer = format!("Bearer {token}");
        let answer = ask(&service, "GET", "/", &[("authorization", &bearer)]).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    // What is expired is challenged in the same scheme.
    service.shift_clocks(700, 0);
    let answer = show(&service, "GET", "/", &token, &proof()).await;
    answer.assert_refused(401, "app_token_expired");
    let challenge = answer.header("www-authenticate");
    assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
    assert!(challenge.starts_with("DPoP algs="), "{challenge}");
}

#[tokio::test]
async fn an_app_that_demands_proofs_takes_no_token_from_before() {
    let issuer = Issuer::start().await;
    let lines = |dpop: &str| {
        let url = &issuer.url;
        format!(
            "[issuers.clerk]\nissuer = {url:?}\nkind = \"clerk\"\n\
             [apps.web]\nissuers = [\"clerk\"]\naudience = {API:?}\ndpop = {dpop:?}\n"
        )
    };
    let mut service = Service::builder().config(&lines("optional")).start().await;
    let key = Key::p256();
    let before = exchange(&service, &issuer, &[]).await.token().to_owned();
    let kept = bound(&service, &issuer, key).await;
    for (dpop, status) in [("required", 401), ("off", 200)] {
        std::fs::write(service.dir().join("exchequer.toml"), lines(dpop)).unwrap();
        service.restart().await;
        let bearer = format!("Bearer {before}");
        let answer = ask(&service, "GET", "/", &[("authorization", &bearer)]).await;
        assert_eq!(answer.status, status, "{dpop}: {}", answer.body);
        if status == 401 {
            answer.assert_refused(401, "app_token_not_bound");
        }
        // What is bound stays bound.
        let bearer = format!("Bearer {kept}");
        let answer = ask(&service, "GET", "/", &[("authorization", &bearer)]).await;
        answer.assert_refused(401, "app_token_bound");
        let proof = Proof::api(key, "GET", "/", &kept).sign(key);
        let answer = show(&service, "GET", "/", &kept, &proof).await;
        assert_eq!(answer.status, 200, "{dpop}: {}", answer.body);
    }
}

#[tokio::test]
async fn a_gateway_tells_which_request_it_is_and_the_configuration_where() {
    let (issuer, service) = world(
        "verify.origins = [\"https://a.example\", \"http://b.example:81\"]\nscopes = { read = [] }",
    )
    .await;
    let key = Key::p256();
    let token = bound(&service, &issuer, key).await;
    let with = |origin: &str| {
        Proof::api(key, "GET", "/x", &token)
            .claim("htu", format!("{origin}/x"))
            .sign(key)
    };
    for (origin, status) in [
        ("https://a.example", 200),
        ("https://A.example:443", 200),
        ("http://b.example:81", 200),
        ("https://b.example:81", 401),
        (API, 401),
    ] {
        let answer = show(&service, "GET", "/x", &token, &with(origin)).await;
        assert_eq!(answer.status, status, "{origin}: {}", answer.body);
    }
    // No word of a proxy about the host is believed.
    let authorization = format!("DPoP {token}");
    let proof = with("https://evil.example");
    let headers = [
        ("authorization", authorization.as_str()),
        ("dpop", &proof),
        ("host", "evil.example"),
        ("x-forwarded-host", "evil.example"),
        ("x-forwarded-proto", "https"),
    ];
    let answer = ask(&service, "GET", "/x", &headers).await;
    answer.assert_refused(401, "dpop_proof_request_mismatch");

    let proof = with("https://a.example");
    let url = format!("{}/auth/verify", service.url);
    let question = |query: &str| {
        service
            .client
            .get(format!("{url}{query}"))
            .header("authorization", &authorization)
            .header("dpop", &proof)
    };
    // Which request it is, is not told, or by two.
    let answer = service.send(question("")).await;
    answer.assert_refused(400, "original_request_unknown");
    let traefik = |request: reqwest::RequestBuilder| {
        request
            .header("x-forwarded-method", "GET")
            .header("x-forwarded-uri", "/x")
    };
    let both = traefik(question(""))
        .header("x-original-method", "GET")
        .header("x-original-uri", "/x");
    let answer = service.send(both).await;
    answer.assert_refused(400, "original_request_unknown");
    // A refusal for something else uses no proof up: some gateways ask again for its words.
    let answer = service.send(traefik(question("?scope=write"))).await;
    answer.assert_refused(403, "insufficient_scope");
    let challenge = answer.header("www-authenticate");
    assert!(challenge.starts_with("DPoP algs="), "{challenge}");
    let answer = service.send(traefik(question("?scope=read"))).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let answer = service.send(traefik(question("?scope=read"))).await;
    answer.assert_refused(401, "dpop_proof_used");
}

#[tokio::test]
async fn at_the_gate_nonces_are_demanded_too() {
    let (issuer, service) = world("dpop_nonce = true").await;
    let key = Key::p256();
    let first = nonce(&service, &issuer, key).await;
    let proof = Proof::exchange(key).claim("nonce", first).sign(key);
    let answer = exchange(&service, &issuer, &[&proof]).await;
    let token = answer.token().to_owned();
    let proof = Proof::api(key, "GET", "/", &token);
    let answer = show(&service, "GET", "/", &token, &proof.sign(key)).await;
    answer.assert_refused(401, "dpop_nonce_required");
    let challenge = answer.header("www-authenticate");
    assert!(
        challenge.contains("error=\"use_dpop_nonce\""),
        "{challenge}"
    );
    let nonce = answer.header("dpop-nonce");
    let proof = proof.claim("nonce", nonce).claim("iat", 0).sign(key);
    let answer = show(&service, "GET", "/", &token, &proof).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(!answer.header("dpop-nonce").is_empty());
    let answer = show(&service, "GET", "/", &token, &proof).await;
    answer.assert_refused(401, "dpop_proof_used");
}

#[tokio::test]
async fn behind_nginx_and_envoy_a_bound_token_passes_with_its_proof_alone() {
    let (issuer, service) = world("dpop_nonce = true").await;
    let backend = Backend::start().await;
    let key = Key::p256();
    let nonce = nonce(&service, &issuer, key).await;
    let proof = Proof::exchange(key)
        .claim("nonce", nonce.as_str())
        .sign(key);
    let answer = exchange(&service, &issuer, &[&proof]).await;
    let token = answer.token().to_owned();
    for kind in [Kind::Nginx, Kind::Envoy] {
        let gateway = Gateway::start(kind, &service, &backend).await;
        let send = async |scheme: &str, proof: &str| {
            let request = service
                .client
                .post(format!("{}/tasks?page=1", gateway.url))
                .header("authorization", format!("{scheme} {token}"))
                .header("dpop", proof)
                // None of this is the client's to say.
                .header("x-original-method", "GET")
                .header("x-original-uri", "/harmless")
                .header("x-forwarded-method", "GET")
                .header("x-forwarded-uri", "/harmless");
            service.send(request).await
        };
        let api = |method: &str, path: &str| Proof::api(key, method, path, &token);
        // Its first proof has no nonce: the refusal brings one, whole.
        let answer = send("DPoP", &api("POST", "/tasks").sign(key)).await;
        answer.assert_refused(401, "dpop_nonce_required");
        let nonce = answer.header("dpop-nonce").to_owned();
        let good = api("POST", "/tasks").claim("nonce", nonce.as_str());
        let signed = good.sign(key);
        let answer = send("DPoP", &signed).await;
        assert_eq!(answer.status, 200, "{kind:?}: {}", answer.body);
        assert_eq!(answer.body["headers"]["x-user-id"], "user_1");
        let next = answer.header("dpop-nonce");
        assert_eq!(next.len(), 43, "{kind:?}: {:?}", answer.headers);
        let harmless = api("GET", "/harmless").claim("nonce", nonce.as_str());
        for (scheme, proof, code) in [
            ("DPoP", signed.clone(), "dpop_proof_used"),
            (
                "Bearer",
                good.claim("jti", "b").sign(key),
                "app_token_bound",
            ),
            ("DPoP", harmless.sign(key), "dpop_proof_request_mismatch"),
        ] {
            let answer = send(scheme, &proof).await;
            assert_eq!(answer.body["code"], code, "{kind:?}: {}", answer.body);
            answer.assert_refused(401, code);
        }
    }
}
