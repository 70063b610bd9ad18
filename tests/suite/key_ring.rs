//! Our signing keys: made, published ahead, rotated, kept, revoked, and never lost to a bad
//! file.

use crate::support::ring::{in_state, list, mint, text, thumbprint, try_list, verifies};
use crate::support::token::kid;
use crate::support::{Issuer, Mount, Ring, Service, eventually, now, token};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process;
use std::time::Duration;

const HOUR: i64 = 3600;
const SECRET: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const OTHER_SECRET: &str = "Hx4dHBsaGRgXFhUUExIREA8ODQwLCgkIBwYFBAMCAQA=";

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

async fn jwks(service: &Service) -> Value {
    let answer = service.get("/.well-known/jwks.json").await;
    assert_eq!(answer.status, 200);
    answer.body
}

fn kids(jwks: &Value) -> Vec<String> {
    let keys = jwks["keys"].as_array().unwrap();
    keys.iter().map(|key| text(&key["kid"])).collect()
}

/// The keys and their states as the running server has them.
async fn states(service: &Service) -> BTreeMap<String, String> {
    let answer = service.admin("/metrics").await;
    let label = |line: &str, name: &str| {
        let (_, rest) = line.split_once(&format!("{name}=\"")).unwrap();
        rest.split_once('"').unwrap().0.to_owned()
    };
    let lines = answer.body.as_str().unwrap().lines();
    lines
        .filter(|line| line.starts_with("exchequer_signing_key_info{"))
        .map(|line| (label(line, "kid"), label(line, "state")))
        .collect()
}

/// Waits until the server has what the folder has.
async fn taken_over(service: &Service) {
    eventually("the server has the ring of the folder", async || {
        let Ok(keys) = try_list(service.command()) else {
            return false;
        };
        let saved: BTreeMap<String, String> = keys
            .iter()
            .map(|key| (text(&key["kid"]), text(&key["state"])))
            .collect();
        saved == states(service).await
    })
    .await;
}

/// Moves the wall clock and waits until the ring is what it should be then.
async fn at(service: &Service, shift: i64) {
    service.shift_clocks(shift, 0);
    eventually("nothing is due", async || {
        list(service.command()).iter().all(|key| {
            key["changes_at"]
                .as_i64()
                .is_none_or(|at| at > now() + shift)
        })
    })
    .await;
    taken_over(service).await;
}

/// Like `eventually`, for what the server tries again less and less often.
async fn at_last(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..800 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never: {what}");
}

async fn failures(service: &Service) -> f64 {
    let count = service.metric("exchequer_key_ring_failures_total").await;
    count.unwrap()
}

#[tokio::test]
async fn a_first_start_makes_keys_that_only_their_owner_can_read_and_anybody_can_verify_with() {
    let issuer = Issuer::start().await;
    for (alg, members) in [
        ("ES256", vec!["alg", "crv", "kid", "kty", "use", "x", "y"]),
        ("RS256", vec!["alg", "e", "kid", "kty", "n", "use"]),
        ("EdDSA", vec!["alg", "crv", "kid", "kty", "use", "x"]),
    ] {
        let service = Service::builder()
            .env("CLERK_JWT_ISSUER", &issuer.url)
            .env("EXCHEQUER_KEY_ALG", alg)
            .start()
            .await;
        let folder = service.dir().join("keys");
        assert_eq!(mode(&folder), 0o700);
        assert_eq!(mode(&folder.join("ring.json")), 0o600);

        let keys = list(service.command());
        assert_eq!(keys.len(), 2);
        assert!(keys.iter().all(|key| key["alg"] == alg));
        let jwks = jwks(&service).await;
        assert_eq!(jwks.as_object().unwrap().len(), 1);
        let published: BTreeSet<String> = kids(&jwks).into_iter().collect();
        let listed: BTreeSet<String> = keys.iter().map(|key| text(&key["kid"])).collect();
        assert_eq!(published, listed);
        for jwk in jwks["keys"].as_array().unwrap() {
            let mut names: Vec<&String> = jwk.as_object().unwrap().keys().collect();
            names.sort();
            assert_eq!(names, members);
            assert_eq!(jwk["alg"], alg);
            assert_eq!(jwk["use"], "sig");
            assert_eq!(jwk["kid"], thumbprint(jwk));
            if alg == "RS256" {
                // 2048 bits without a leading zero.
                assert_eq!(jwk["n"].as_str().unwrap().len(), 342);
                assert_eq!(jwk["e"], "AQAB");
            }
        }
        let token = mint(&service, &issuer, 0).await;
        assert_eq!(token::header(&token)["alg"], alg);
        assert_eq!(vec![kid(&token)], in_state(&keys, "active"));
        assert_eq!(in_state(&keys, "next").len(), 1);
        assert!(verifies(&token, &jwks));
    }
}

#[tokio::test]
async fn a_restart_keeps_the_keys_and_the_tokens_that_they_signed() {
    let issuer = Issuer::start().await;
    let mut service = Service::trusting(&issuer).await;
    let before = jwks(&service).await;
    let token = mint(&service, &issuer, 0).await;
    for _ in 0..3 {
        service.restart().await;
        let after = jwks(&service).await;
        assert_eq!(after, before);
        assert!(verifies(&token, &after));
        assert_eq!(kid(&mint(&service, &issuer, 0).await), kid(&token));
    }
}

#[tokio::test]
async fn each_app_signs_with_its_own_algorithm() {
    let issuer = Issuer::start().await;
    let url = &issuer.url;
    let service = Service::builder()
        .config(&format!(
            r#"
            [issuers.clerk]
            issuer = "{url}"
            kind = "clerk"
            [apps.one]
            issuers = "clerk"
            [apps.two]
            issuers = "clerk"
            alg = "RS256"
            [apps.three]
            issuers = "clerk"
            alg = "EdDSA"
            typ = "at+jwt"
            "#
        ))
        .start()
        .await;
    let jwks = jwks(&service).await;
    assert_eq!(kids(&jwks).len(), 6, "an active key and a standby each");
    for (app, alg, typ) in [
        ("one", "ES256", "JWT"),
        ("two", "RS256", "JWT"),
        ("three", "EdDSA", "at+jwt"),
    ] {
        let body = json!({"session_token": issuer.token(), "app": app});
        let answer = service.exchange(&body).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let header = token::header(answer.token());
        assert_eq!(
            header,
            json!({"alg": alg, "kid": header["kid"], "typ": typ})
        );
        assert!(verifies(answer.token(), &jwks));
    }
}

/// Lives `steps` steps of time, minting at each. No token may be signed with a key that was
/// not published for `ahead`, and every token that lives must verify.
async fn live(
    service: &Service,
    issuer: &Issuer,
    step: i64,
    steps: i64,
    ahead: i64,
) -> Vec<String> {
    let mut seen: BTreeMap<String, i64> = BTreeMap::new();
    let mut tokens: Vec<(String, i64)> = Vec::new();
    let mut signers: Vec<String> = Vec::new();
    for shift in (0..steps).map(|index| index * step) {
        at(service, shift).await;
        let jwks = jwks(service).await;
        assert!(kids(&jwks).len() <= 4);
        for kid in kids(&jwks) {
            seen.entry(kid).or_insert(shift);
        }
        let token = mint(service, issuer, shift).await;
        if signers.last() != Some(&kid(&token)) {
            signers.push(kid(&token));
        }
        let first = signers.len() == 1;
        assert!(
            first || seen[&kid(&token)] <= shift - ahead,
            "published ahead"
        );
        tokens.push((token, shift + 600));
        tokens.retain(|(_, exp)| *exp > shift);
        for (token, _) in &tokens {
            assert!(verifies(token, &jwks));
        }
    }
    signers
}

#[tokio::test]
async fn keys_rotate_by_themselves_on_schedule_and_no_verifier_is_surprised() {
    let issuer = Issuer::start().await;
    let service = Service::builder()
        .env("CLERK_JWT_ISSUER", &issuer.url)
        .env("EXCHEQUER_KEY_ROTATE_EVERY", "2h")
        .env("EXCHEQUER_KEY_PUBLISH_AHEAD", "30m")
        .env("EXCHEQUER_KEY_KEEP_AFTER", "40m")
        .start()
        .await;
    let first = states(&service).await;
    let signers = live(&service, &issuer, HOUR / 2, 14, HOUR / 2).await;
    assert_eq!(signers.len(), 4, "6.5 h at 2 h each");
    let distinct: BTreeSet<&String> = signers.iter().collect();
    assert_eq!(distinct.len(), 4);
    assert_eq!(first[&signers[0]], "active");
    assert_eq!(first[&signers[1]], "next", "the standby signs next");
    let last = states(&service).await;
    assert_eq!(last[&signers[3]], "active");
    assert_eq!(last.get(&signers[2]).map(String::as_str), Some("retired"));
    at(&service, 6 * HOUR + 50 * 60).await;
    let kept: BTreeSet<String> = states(&service).await.into_values().collect();
    assert_eq!(kept, BTreeSet::from(["active".into(), "next".into()]));
}

#[tokio::test]
async fn four_keys_are_published_at_most_even_where_the_schedule_asks_for_more() {
    let issuer = Issuer::start().await;
    let service = Service::builder()
        .env("CLERK_JWT_ISSUER", &issuer.url)
        .env("EXCHEQUER_KEY_ROTATE_EVERY", "1h")
        .env("EXCHEQUER_KEY_PUBLISH_AHEAD", "1h")
        .env("EXCHEQUER_KEY_KEEP_AFTER", "6h")
        .start()
        .await;
    let signers = live(&service, &issuer, HOUR, 12, HOUR).await;
    assert!(signers.len() >= 5, "{signers:?}");
}

#[tokio::test]
async fn a_clock_that_steps_back_and_forth_brings_no_key_back_and_stops_no_exchange() {
    let issuer = Issuer::start().await;
    let service = Service::builder()
        .env("CLERK_JWT_ISSUER", &issuer.url)
        .env("EXCHEQUER_KEY_ROTATE_EVERY", "2h")
        .env("EXCHEQUER_KEY_PUBLISH_AHEAD", "1h")
        .env("EXCHEQUER_KEY_KEEP_AFTER", "1h")
        .start()
        .await;
    let first = kid(&mint(&service, &issuer, 0).await);
    at(&service, 2 * HOUR).await;
    at(&service, 3 * HOUR + 1).await;
    let settled = states(&service).await;
    assert!(!settled.contains_key(&first));
    for shift in [2 * HOUR, 3 * HOUR + 1, HOUR, 3 * HOUR + 1] {
        service.shift_clocks(shift, 0);
        // Long enough for the ring to be looked at twice.
        for _ in 0..11 {
            assert_eq!(states(&service).await, settled);
            let token = mint(&service, &issuer, shift).await;
            assert!(verifies(&token, &jwks(&service).await));
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    at(&service, 4 * HOUR).await;
    let signs = kid(&mint(&service, &issuer, 4 * HOUR).await);
    assert_eq!(settled[&signs], "next", "and the next rotation is on time");
}

#[test]
fn the_list_shows_each_key_and_what_happens_next() {
    let ring = Ring::new();
    let ended = ring.keys(&["list"]);
    assert_eq!(ended.code, 1);
    assert!(ended.stderr.contains("there is no key ring in keys"));

    ring.keys(&["rotate", "--force"]);
    let keys = ring.list();
    let ended = ring.keys(&["list"]);
    assert_eq!(ended.code, 0);
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert_eq!(lines.len(), 4);
    for (line, key) in lines[1..].iter().zip(&keys) {
        let words = match key["state"].as_str().unwrap() {
            "next" => "signs from ",
            "active" => "signs until ",
            _ => "gone at ",
        };
        assert!(line.starts_with(key["kid"].as_str().unwrap()) && line.contains(words));
        let members: Vec<&String> = key.as_object().unwrap().keys().collect();
        assert_eq!(
            members,
            ["alg", "changes_at", "kid", "published_at", "state"]
        );
    }
    let pkcs8 = ["PRIVATE", "pkcs8"];
    assert!(pkcs8.iter().all(|word| !ended.stdout.contains(word)));
}

#[tokio::test]
async fn a_running_server_takes_over_what_the_commands_do() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    let first = kid(&mint(&service, &issuer, 0).await);
    let standby = in_state(&list(service.command()), "next")[0].clone();

    let ended = service.command().run(&["keys", "rotate"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.stdout.contains("published only lately"), "{ended:?}");
    assert_eq!(kid(&mint(&service, &issuer, 0).await), first);
    // What was asked for happens once the standby is a day old.
    at(&service, 24 * HOUR - 60).await;
    assert_eq!(kid(&mint(&service, &issuer, 24 * HOUR - 60).await), first);
    let day = 24 * HOUR + 60;
    at(&service, day).await;
    assert_eq!(kid(&mint(&service, &issuer, day).await), standby);

    let next = in_state(&list(service.command()), "next")[0].clone();
    let ended = service.command().run(&["keys", "rotate", "--force"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(ended.stdout, format!("ES256: {next} signs from now on\n"));
    taken_over(&service).await;
    let token = mint(&service, &issuer, day).await;
    assert_eq!(kid(&token), next);
    assert!(verifies(&token, &jwks(&service).await));

    let two_days = 50 * HOUR;
    at(&service, two_days).await;
    let next = in_state(&list(service.command()), "next")[0].clone();
    let ended = service.command().run(&["keys", "rotate"]);
    assert_eq!(ended.stdout, format!("ES256: {next} signs from now on\n"));
    taken_over(&service).await;
    assert_eq!(kid(&mint(&service, &issuer, two_days).await), next);
}

#[tokio::test]
async fn a_revoked_key_is_gone_at_once_and_for_good() {
    let issuer = Issuer::start().await;
    let mut service = Service::trusting(&issuer).await;
    service.command().run(&["keys", "rotate", "--force"]);
    taken_over(&service).await;

    let ended = service.command().run(&["keys", "revoke", "nobody"]);
    assert_eq!(ended.code, 1);
    assert_eq!(ended.stderr, "error: there is no key nobody in the ring\n");
    let previous = service.dir().join("keys/ring.previous.json");
    assert!(
        previous.exists(),
        "nothing was revoked, nothing is forgotten"
    );

    for state in ["retired", "next", "active", "active"] {
        let keys = list(service.command());
        let revoked = in_state(&keys, state)[0].clone();
        let standby = in_state(&keys, "next")[0].clone();
        let ended = service.command().run(&["keys", "revoke", &revoked]);
        assert_eq!(ended.code, 0, "{ended:?}");
        assert!(ended.stdout.contains(&revoked));
        taken_over(&service).await;
        let jwks = jwks(&service).await;
        assert!(!kids(&jwks).contains(&revoked));
        let token = mint(&service, &issuer, 0).await;
        assert!(verifies(&token, &jwks));
        if state == "active" {
            assert_eq!(kid(&token), standby, "the standby steps in");
        }
        assert_eq!(in_state(&list(service.command()), "next").len(), 1);
        assert!(!previous.exists());
        service.restart().await;
        assert!(!states(&service).await.contains_key(&revoked));
    }
}

#[test]
fn a_kid_may_begin_with_a_hyphen() {
    let ring = Ring::new();
    ring.keys(&["rotate"]);
    for kid in [
        "-qFysXJlpywtPLRdXhZAb",
        "-hFysXJlpywtPLRdXhZAb",
        "--ysXJlpywtPLRdXhZAb",
    ] {
        let ended = ring.keys(&["revoke", kid]);
        assert_eq!(ended.code, 1, "{ended:?}");
        let expected = format!("error: there is no key {kid} in the ring\n");
        assert_eq!(ended.stderr, expected);
    }
    let help = ring.keys(&["revoke", "--help"]);
    assert_eq!(help.code, 0);
    assert!(help.stdout.contains("Usage: exchequer keys revoke <KID>"));
}

/// Runs openssl and gives what it printed.
fn openssl(arguments: &[&str]) -> String {
    let output = process::Command::new("openssl")
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn rsa_pem(bits: u32) -> String {
    let bits = format!("rsa_keygen_bits:{bits}");
    openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", &bits])
}

#[tokio::test]
async fn a_key_made_elsewhere_becomes_the_standby_and_signs_in_its_turn() {
    let issuer = Issuer::start().await;
    let service = Service::builder()
        .env("CLERK_JWT_ISSUER", &issuer.url)
        .env("EXCHEQUER_KEY_ALG", "RS256")
        .start()
        .await;
    let before = list(service.command());
    fs::write(service.dir().join("key.pem"), rsa_pem(2048)).unwrap();
    let ended = service.command().run(&["keys", "import", "key.pem"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let imported = ended.stdout.trim().strip_prefix("imported ").unwrap();
    taken_over(&service).await;
    let after = list(service.command());
    assert_eq!(in_state(&after, "next"), [imported]);
    assert_eq!(in_state(&after, "active"), in_state(&before, "active"));
    let set = jwks(&service).await;
    let keys = set["keys"].as_array().unwrap();
    let jwk = keys.iter().find(|jwk| jwk["kid"] == imported).unwrap();
    assert_eq!(thumbprint(jwk), imported);

    let again = service.command().run(&["keys", "import", "key.pem"]);
    assert_eq!(again.code, 1);
    assert!(again.stderr.contains("already"), "{again:?}");

    service.command().run(&["keys", "rotate", "--force"]);
    taken_over(&service).await;
    let token = mint(&service, &issuer, 0).await;
    assert_eq!(kid(&token), imported);
    assert!(verifies(&token, &jwks(&service).await));
}

#[test]
fn a_key_imported_into_an_empty_folder_signs_at_once() {
    for (alg, arguments) in [
        (
            "RS256",
            ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
        ),
        (
            "ES256",
            ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
        ),
    ] {
        let mut ring = Ring::new();
        ring.set_env("EXCHEQUER_KEY_ALG", alg);
        let pem = openssl(&[&["genpkey"], &arguments[..]].concat());
        fs::write(ring.path("key.pem"), pem).unwrap();
        let ended = ring.keys(&["import", "key.pem", "--alg", alg]);
        assert_eq!(ended.code, 0, "{ended:?}");
        let imported = ended.stdout.trim().strip_prefix("imported ").unwrap();
        let keys = ring.list();
        assert_eq!(in_state(&keys, "active"), [imported]);
        assert_eq!(in_state(&keys, "next").len(), 1);
        assert_eq!(keys.len(), 2);
    }
}

#[test]
fn what_is_no_key_for_the_algorithm_is_refused_and_the_ring_stays() {
    let mut ring = Ring::new();
    ring.set_env("EXCHEQUER_KEY_ALG", "RS256");
    ring.keys(&["rotate"]);
    let before = fs::read(ring.path("keys/ring.json")).unwrap();
    let rsa = rsa_pem(2048);
    fs::write(ring.path("rsa.pem"), &rsa).unwrap();
    let path = ring.path("rsa.pem").display().to_string();
    let small = rsa_pem(1024);
    let p384 = openssl(&[
        "genpkey",
        "-algorithm",
        "EC",
        "-pkeyopt",
        "ec_paramgen_curve:P-384",
    ]);
    let traditional = openssl(&["rsa", "-traditional", "-in", &path]);
    let public = openssl(&["pkey", "-pubout", "-in", &path]);
    let locked = ["pkcs8", "-topk8", "-passout", "pass:x", "-in", &path];
    let locked = openssl(&locked);
    for (what, pem, alg, reason) in [
        ("no PEM", "hello", "RS256", "this is no PEM"),
        ("nothing", "", "RS256", "this is no PEM"),
        (
            "half a PEM",
            &rsa[..rsa.len() / 2],
            "RS256",
            "this is no PEM",
        ),
        ("a public key", &public, "RS256", "BEGIN PUBLIC KEY"),
        ("PKCS#1", &traditional, "RS256", "BEGIN RSA PRIVATE KEY"),
        (
            "a locked key",
            &locked,
            "RS256",
            "BEGIN ENCRYPTED PRIVATE KEY",
        ),
        ("1024 bits", &small, "RS256", ""),
        ("P-384 as P-256", &p384, "ES256", ""),
        ("RSA as P-256", &rsa, "ES256", ""),
        ("RSA as Ed25519", &rsa, "EdDSA", ""),
        ("P-384 as RSA", &p384, "RS256", ""),
        (
            "an unknown algorithm",
            &rsa,
            "HS256",
            "none of ES256, RS256, EdDSA",
        ),
    ] {
        fs::write(ring.path("key.pem"), pem).unwrap();
        let ended = ring.keys(&["import", "key.pem", "--alg", alg]);
        assert_eq!(ended.code, 1, "{what}: {ended:?}");
        assert!(ended.stderr.starts_with("error: "), "{what}: {ended:?}");
        assert!(ended.stderr.contains(reason), "{what}: {ended:?}");
        assert_eq!(ended.stdout, "", "{what}");
        assert_eq!(
            fs::read(ring.path("keys/ring.json")).unwrap(),
            before,
            "{what}"
        );
    }
    let missing = ring.keys(&["import", "missing.pem"]);
    assert_eq!(missing.code, 1);
    assert!(missing.stderr.contains("missing.pem"));
}

#[test]
fn a_rotation_of_an_algorithm_that_no_app_signs_with_is_refused() {
    let ring = Ring::new();
    for (alg, reason) in [("RS256", "no app signs with RS256"), ("HS256", "none of")] {
        let ended = ring.keys(&["rotate", "--force", "--alg", alg]);
        assert_eq!(ended.code, 1);
        assert!(ended.stderr.contains(reason), "{ended:?}");
    }
    assert_eq!(ring.keys(&["rotate", "--force", "--alg", "ES256"]).code, 0);
}

#[tokio::test]
async fn a_new_algorithm_signs_only_once_its_key_was_published_ahead() {
    let issuer = Issuer::start().await;
    let mut service = Service::trusting(&issuer).await;
    let old = mint(&service, &issuer, 0).await;
    service.set_env("EXCHEQUER_KEY_ALG", "EdDSA");
    service.restart().await;
    assert_eq!(kid(&mint(&service, &issuer, 0).await), kid(&old));
    let coming = {
        let keys = list(service.command());
        let coming = keys.iter().find(|key| key["alg"] == "EdDSA").unwrap();
        assert_eq!(coming["state"], "next");
        text(&coming["kid"])
    };
    assert!(kids(&jwks(&service).await).contains(&coming));
    at(&service, 24 * HOUR - 60).await;
    assert_eq!(
        kid(&mint(&service, &issuer, 24 * HOUR - 60).await),
        kid(&old)
    );
    let day = 24 * HOUR + 60;
    at(&service, day).await;
    let token = mint(&service, &issuer, day).await;
    assert_eq!(kid(&token), coming);
    assert_eq!(token::header(&token)["alg"], "EdDSA");
    let jwks = jwks(&service).await;
    assert!(verifies(&token, &jwks) && verifies(&old, &jwks));
}

#[tokio::test]
async fn exchanges_go_on_where_every_signing_key_is_revoked_in_a_change_of_algorithm() {
    let issuer = Issuer::start().await;
    let mut service = Service::trusting(&issuer).await;
    service.set_env("EXCHEQUER_KEY_ALG", "EdDSA");
    service.restart().await;
    for _ in 0..2 {
        let old = in_state(&list(service.command()), "active")[0].clone();
        let ended = service.command().run(&["keys", "revoke", &old]);
        assert_eq!(ended.code, 0, "{ended:?}");
    }
    taken_over(&service).await;
    let token = mint(&service, &issuer, 0).await;
    assert_eq!(token::header(&token)["alg"], "EdDSA");
    assert!(verifies(&token, &jwks(&service).await));
}

/// No file of the folder tells a key to whoever has no secret.
fn assert_sealed(ring: &Ring, kids: &[String]) {
    for name in ring.files() {
        let bytes = fs::read(ring.path("keys").join(&name)).unwrap();
        let mut texts = vec![String::from_utf8_lossy(&bytes).into_owned()];
        if let Ok(envelope) = serde_json::from_slice::<Value>(&bytes) {
            let payload = STANDARD.decode(envelope["payload"].as_str().unwrap());
            texts.push(String::from_utf8_lossy(&payload.unwrap()).into_owned());
        }
        for text in texts {
            assert!(
                !text.contains("pkcs8") && !text.contains("\"alg\""),
                "{name}"
            );
            assert!(kids.iter().all(|kid| !text.contains(kid)), "{name}");
        }
    }
}

fn all_kids(ring: &Ring) -> Vec<String> {
    ring.list().iter().map(|key| text(&key["kid"])).collect()
}

#[test]
fn a_secret_seals_the_ring_and_only_the_same_secret_opens_it() {
    let mut ring = Ring::new();
    ring.set_env("EXCHEQUER_KEYS_SECRET", SECRET);
    for _ in 0..2 {
        assert_eq!(ring.keys(&["rotate", "--force"]).code, 0);
    }
    let kids = all_kids(&ring);
    assert_eq!(kids.len(), 4);
    assert_eq!(ring.files(), [".lock", "ring.json", "ring.previous.json"]);
    assert_sealed(&ring, &kids);

    let before = fs::read(ring.path("keys/ring.json")).unwrap();
    for (secret, reason) in [
        (
            OTHER_SECRET,
            "is sealed with another secret than EXCHEQUER_KEYS_SECRET",
        ),
        ("", "is sealed: set EXCHEQUER_KEYS_SECRET"),
        (
            "c2hvcnQ=",
            "EXCHEQUER_KEYS_SECRET: must be 32 bytes in base64",
        ),
    ] {
        ring.set_env("EXCHEQUER_KEYS_SECRET", secret);
        let ended = ring.try_to_serve();
        assert_eq!(ended.code, 2, "{ended:?}");
        assert!(ended.stderr.contains(reason), "{ended:?}");
        for command in [&["list"][..], &["rotate", "--force"], &["revoke", &kids[0]]] {
            let ended = ring.keys(command);
            assert_ne!(ended.code, 0, "{ended:?}");
            assert!(ended.stderr.contains(reason), "{ended:?}");
        }
        assert_eq!(fs::read(ring.path("keys/ring.json")).unwrap(), before);
    }
    ring.set_env("EXCHEQUER_KEYS_SECRET", SECRET);
    assert_eq!(all_kids(&ring), kids);
}

#[test]
fn a_secret_added_later_leaves_no_clear_copy_behind() {
    let mut ring = Ring::new();
    for _ in 0..2 {
        assert_eq!(ring.keys(&["rotate", "--force"]).code, 0);
    }
    let kids = all_kids(&ring);
    let clear = fs::read_to_string(ring.path("keys/ring.json")).unwrap();
    assert!(clear.contains("sha256"));
    for leftover in ["ring.json.tmp", "ring.damaged.json"] {
        fs::write(ring.path("keys").join(leftover), &clear).unwrap();
    }
    ring.set_env("EXCHEQUER_KEYS_SECRET", SECRET);
    let ended = ring.try_to_serve();
    assert!(ended.stderr.contains("cannot listen"), "{ended:?}");
    assert_eq!(ring.files(), [".lock", "ring.json"]);
    assert_sealed(&ring, &kids);
    assert_eq!(all_kids(&ring), kids);
}

#[test]
fn a_ring_that_others_can_read_is_refused() {
    let ring = Ring::new();
    ring.keys(&["rotate"]);
    for mode in [0o644, 0o640, 0o604, 0o620, 0o602, 0o611] {
        let path = ring.path("keys/ring.json");
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let ended = ring.try_to_serve();
        assert_eq!(ended.code, 2, "{mode:o}: {ended:?}");
        assert!(ended.stderr.contains("chmod 600"), "{mode:o}: {ended:?}");
        assert_eq!(ring.keys(&["list"]).code, 1, "{mode:o}");
        assert_eq!(ring.keys(&["rotate", "--force"]).code, 1, "{mode:o}");
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        assert_eq!(ring.keys(&["list"]).code, 0);
    }
}

/// A clear ring with this payload, its digest right.
fn clear_ring(payload: &Value) -> String {
    let payload = payload.to_string();
    let digest = ring::digest::digest(&ring::digest::SHA256, payload.as_bytes());
    json!({
        "exchequer_key_ring": 1,
        "sha256": STANDARD.encode(digest.as_ref()),
        "payload": STANDARD.encode(payload),
    })
    .to_string()
}

fn payload(ring: &str) -> Value {
    let envelope: Value = serde_json::from_str(ring).unwrap();
    let payload = STANDARD.decode(envelope["payload"].as_str().unwrap());
    serde_json::from_slice(&payload.unwrap()).unwrap()
}

#[test]
fn a_bad_ring_is_refused_and_never_overwritten() {
    let ring = Ring::new();
    ring.keys(&["rotate", "--force"]);
    let path = ring.path("keys/ring.json");
    let good = fs::read_to_string(&path).unwrap();
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut payload = payload(&good);
        change(&mut payload);
        clear_ring(&payload)
    };
    fs::write(&path, changed(&|_| ())).unwrap();
    assert_eq!(
        ring.keys(&["list"]).code,
        0,
        "the harness writes what we read"
    );

    let swapped = |payload: &mut Value| {
        let first = payload["keys"][0]["pkcs8"].take();
        let second = payload["keys"][1]["pkcs8"].take();
        payload["keys"][0]["pkcs8"] = second;
        payload["keys"][1]["pkcs8"] = first;
    };
    let damaged = "the key ring is damaged";
    for (what, bad, reason) in [
        ("empty", String::new(), damaged),
        ("half", good[..good.len() / 2].to_owned(), damaged),
        ("all but a byte", good[..good.len() - 1].to_owned(), damaged),
        ("more", format!("{good}{good}"), damaged),
        ("other JSON", "[]".to_owned(), damaged),
        ("null", "null".to_owned(), damaged),
        ("keys swapped", changed(&swapped), damaged),
        (
            "a key twice",
            changed(&|ring| {
                let key = ring["keys"][0].clone();
                ring["keys"].as_array_mut().unwrap().push(key);
            }),
            damaged,
        ),
        (
            "two active",
            changed(&|ring| {
                for key in ring["keys"].as_array_mut().unwrap() {
                    key["state"] = json!("active");
                }
            }),
            damaged,
        ),
        (
            "an unknown state",
            changed(&|ring| ring["keys"][0]["state"] = json!("asleep")),
            damaged,
        ),
        (
            "another algorithm",
            changed(&|ring| ring["keys"][0]["alg"] = json!("EdDSA")),
            damaged,
        ),
        (
            "HS256",
            changed(&|ring| ring["keys"][0]["alg"] = json!("HS256")),
            damaged,
        ),
        (
            "another kid",
            changed(&|ring| ring["keys"][0]["kid"] = json!("me")),
            damaged,
        ),
        (
            "no pseudonym key",
            changed(&|ring| ring["pseudonym_key"] = json!("")),
            damaged,
        ),
        (
            "a later format",
            good.replace("\"exchequer_key_ring\":1", "\"exchequer_key_ring\":2"),
            "has format 2",
        ),
        (
            "a later format of another shape",
            r#"{"exchequer_key_ring":2,"rings":[]}"#.to_owned(),
            "has format 2",
        ),
    ] {
        let before = ring.path("keys/ring.previous.json");
        let _ = fs::remove_file(&before);
        fs::write(&path, &bad).unwrap();
        let ended = ring.try_to_serve();
        assert_eq!(ended.code, 2, "{what}: {ended:?}");
        assert!(
            ended
                .stderr
                .starts_with("error: key ring: keys/ring.json: "),
            "{what}: {ended:?}"
        );
        assert!(ended.stderr.contains(reason), "{what}: {ended:?}");
        for command in [&["list"][..], &["rotate", "--force"], &["revoke", "x"]] {
            let ended = ring.keys(command);
            assert_eq!(ended.code, 1, "{what}: {ended:?}");
            assert!(ended.stderr.contains(reason), "{what}: {ended:?}");
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), bad, "{what}");
        assert_eq!(ring.files(), [".lock", "ring.json"], "{what}");
    }
    // A later version's ring is not damage: what is older must not take its place.
    fs::write(ring.path("keys/ring.previous.json"), &good).unwrap();
    let previous = Permissions::from_mode(0o600);
    fs::set_permissions(ring.path("keys/ring.previous.json"), previous).unwrap();
    let ended = ring.try_to_serve();
    assert_eq!(ended.code, 2);
    assert!(ended.stderr.contains("has format 2"), "{ended:?}");
}

#[test]
fn a_flipped_bit_anywhere_is_noticed() {
    for secret in ["", SECRET] {
        let mut ring = Ring::new();
        ring.set_env("EXCHEQUER_KEYS_SECRET", secret);
        ring.keys(&["rotate"]);
        let _ = fs::remove_file(ring.path("keys/ring.previous.json"));
        let path = ring.path("keys/ring.json");
        let good = fs::read(&path).unwrap();
        // Each byte of what frames the payload, and a sample of the payload; every bit in turn.
        let frame = String::from_utf8(good.clone())
            .unwrap()
            .find("payload")
            .unwrap()
            + 12;
        let sample = (0..frame)
            .chain((frame..good.len()).step_by(13))
            .chain(good.len() - 6..good.len());
        for (round, position) in sample.enumerate() {
            let mut bad = good.clone();
            bad[position] ^= 1 << (round % 8);
            fs::write(&path, &bad).unwrap();
            let ended = ring.keys(&["list"]);
            assert_eq!(
                ended.code,
                1,
                "byte {position}, bit {}: {ended:?}",
                round % 8
            );
            assert!(
                ended
                    .stderr
                    .starts_with("error: keys/ring.json: the key ring "),
                "{ended:?}"
            );
        }
        fs::write(&path, &good).unwrap();
        assert_eq!(ring.keys(&["list"]).code, 0);
    }
}

#[test]
fn a_start_falls_back_to_the_generation_before_where_the_newest_is_damaged_or_gone() {
    for damage in [Some("{"), Some(""), None] {
        let ring = Ring::new();
        ring.keys(&["rotate", "--force"]);
        ring.keys(&["rotate", "--force"]);
        let path = ring.path("keys/ring.json");
        let older = payload(&fs::read_to_string(ring.path("keys/ring.previous.json")).unwrap());
        match damage {
            Some(text) => fs::write(&path, text).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        let shown = ring.keys(&["list"]);
        assert_eq!(shown.code, 0);
        assert!(
            shown.stderr.contains("this is the generation before"),
            "{shown:?}"
        );
        let ended = ring.try_to_serve();
        assert!(ended.stderr.contains("cannot listen"), "{ended:?}");
        assert!(
            ended
                .stdout
                .contains("the newest key ring is damaged or gone"),
            "{ended:?}"
        );
        let restored = payload(&fs::read_to_string(&path).unwrap());
        assert_eq!(restored["keys"], older["keys"]);
        assert_eq!(mode(&path), 0o600);
        assert_eq!(
            ring.path("keys/ring.damaged.json").exists(),
            damage.is_some()
        );
        let shown = ring.keys(&["list"]);
        assert_eq!((shown.code, shown.stderr.as_str()), (0, ""));
    }
}

#[tokio::test]
async fn a_running_server_puts_back_its_ring_where_the_file_is_damaged_or_deleted() {
    let issuer = Issuer::start().await;
    let mut service = Service::trusting(&issuer).await;
    service.command().run(&["keys", "rotate", "--force"]);
    taken_over(&service).await;
    let good = states(&service).await;
    let token = mint(&service, &issuer, 0).await;
    let path = service.dir().join("keys/ring.json");
    for (round, (damage, with_previous)) in [
        (Some("{\"exchequer"), true),
        (None, true),
        (Some(""), false),
        (None, false),
    ]
    .into_iter()
    .enumerate()
    {
        if !with_previous {
            let _ = fs::remove_file(service.dir().join("keys/ring.previous.json"));
        }
        let before = failures(&service).await;
        match damage {
            Some(text) => fs::write(&path, text).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        eventually("the failure is counted", async || {
            failures(&service).await > before
        })
        .await;
        taken_over(&service).await;
        assert_eq!(states(&service).await, good, "not a generation older");
        let logged = service.logged("the newest key ring is damaged or gone");
        assert_eq!(logged.len(), round + 1);
        assert_eq!(logged[round]["level"], "ERROR");
        let jwks = jwks(&service).await;
        assert!(verifies(&token, &jwks));
        assert!(verifies(&mint(&service, &issuer, 0).await, &jwks));
    }
    service.restart().await;
    assert_eq!(states(&service).await, good);
}

#[tokio::test]
async fn a_running_server_keeps_its_ring_where_the_file_is_of_no_use_and_goes_on_once_it_is() {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    let good = states(&service).await;
    let path = service.dir().join("keys/ring.json");
    let saved = fs::read(&path).unwrap();
    fs::write(&path, r#"{"exchequer_key_ring":2}"#).unwrap();
    eventually("it is logged", async || {
        let message = "the key ring could not be read or changed; the last good one stays";
        !service.logged(message).is_empty()
    })
    .await;
    assert!(failures(&service).await >= 1.0);
    assert_eq!(states(&service).await, good);
    mint(&service, &issuer, 0).await;
    assert_eq!(fs::read(&path).unwrap(), br#"{"exchequer_key_ring":2}"#);
    fs::write(&path, saved).unwrap();
    let ended = service.command().run(&["keys", "rotate", "--force"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    at_last("the rotation is taken over", async || {
        states(&service).await != good
    })
    .await;
    taken_over(&service).await;
    assert!(verifies(
        &mint(&service, &issuer, 0).await,
        &jwks(&service).await
    ));
}

#[test]
fn a_folder_that_cannot_be_made_is_a_clear_error() {
    let mut ring = Ring::new();
    fs::write(ring.path("file"), "").unwrap();
    for dir in ["file", "file/keys", "/proc/keys", "/dev/null/keys"] {
        ring.set_env("EXCHEQUER_KEYS_DIR", dir);
        let ended = ring.try_to_serve();
        assert_eq!(ended.code, 2, "{dir}: {ended:?}");
        let start = format!("error: key ring: {dir}");
        assert!(ended.stderr.starts_with(&start), "{dir}: {ended:?}");
        assert_eq!(ended.stderr.lines().count(), 1, "{dir}: {ended:?}");
        assert_eq!(ring.keys(&["rotate"]).code, 1, "{dir}");
    }
    assert_eq!(fs::read(ring.path("file")).unwrap(), b"");
}

#[tokio::test]
async fn a_full_or_read_only_disk_stops_the_rotation_and_not_the_exchange() {
    let issuer = Issuer::start().await;
    let place = tempfile::tempdir().unwrap();
    let Some(mount) = Mount::tmpfs(&place.path().join("disk"), "size=64k,mode=700") else {
        return;
    };
    let folder = mount.path().join("keys");
    let service = Service::builder()
        .env("CLERK_JWT_ISSUER", &issuer.url)
        .env("EXCHEQUER_KEYS_DIR", folder.display().to_string())
        .start()
        .await;
    let mut shift = 0;
    for full in [true, false] {
        let before = states(&service).await;
        let saved = fs::read(folder.join("ring.json")).unwrap();
        let failed = failures(&service).await;
        let ballast = mount.path().join("ballast");
        if full {
            assert!(fs::write(&ballast, vec![0; 128 * 1024]).is_err());
        } else {
            mount.remount("ro");
        }
        shift += 91 * 24 * HOUR;
        service.shift_clocks(shift, 0);
        eventually("the failure is counted", async || {
            failures(&service).await > failed
        })
        .await;
        assert_eq!(states(&service).await, before, "an unsaved key never signs");
        assert_eq!(fs::read(folder.join("ring.json")).unwrap(), saved);
        let token = mint(&service, &issuer, shift).await;
        assert_eq!(before[&kid(&token)], "active");
        assert_eq!(
            service.command().run(&["keys", "rotate", "--force"]).code,
            1
        );
        if full {
            fs::remove_file(&ballast).unwrap();
        } else {
            mount.remount("rw");
        }
        at_last("the rotation is made up for", async || {
            states(&service).await != before
        })
        .await;
        at(&service, shift).await;
        let token = mint(&service, &issuer, shift).await;
        assert_eq!(before[&kid(&token)], "next");
        assert!(verifies(&token, &jwks(&service).await));
    }
}

#[tokio::test]
async fn a_running_server_takes_no_older_ring_and_none_in_clear_for_a_sealed_one() {
    const SECRET: &str = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
    let issuer = Issuer::start().await;
    let sealed = Service::builder()
        .env("CLERK_JWT_ISSUER", &issuer.url)
        .env("EXCHEQUER_KEYS_SECRET", SECRET)
        .start()
        .await;
    let clear = Service::trusting(&issuer).await;
    let ring = |service: &Service| service.dir().join("keys/ring.json");
    let published = async |service: &Service| service.get("/.well-known/jwks.json").await.body;

    // The ring of another service, in clear.
    let before = published(&sealed).await;
    fs::copy(ring(&clear), ring(&sealed)).unwrap();
    eventually("the ring is put back", async || {
        fs::read(ring(&sealed)).unwrap() != fs::read(ring(&clear)).unwrap()
    })
    .await;
    assert_eq!(published(&sealed).await, before);

    // The ring of the same service, from before a revocation.
    let old = fs::read(ring(&clear)).unwrap();
    let jwks = published(&clear).await;
    let kid = jwks["keys"][0]["kid"].as_str().unwrap().to_owned();
    assert_eq!(clear.command().run(&["keys", "revoke", &kid]).code, 0);
    let gone = async || !published(&clear).await.to_string().contains(&kid);
    eventually("the key is gone", gone).await;
    fs::write(ring(&clear), &old).unwrap();
    eventually("the ring is put back", async || {
        fs::read(ring(&clear)).unwrap() != old
    })
    .await;
    assert!(gone().await, "a revoked key came back");
}
