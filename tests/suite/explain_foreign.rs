//! `exchequer explain` of what others say, and of what is no token: who speaks, why, and what to
//! do; and honestly that it is not known, where it is not.

use crate::support::{Command, Key, Token};
use exchequer::explain::Code;
use exchequer::explain::foreign::MEANINGS;
use serde_json::Value;

fn explain(input: &str) -> (String, Value) {
    let dir = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let ended = Command::new(dir.path()).input(input).run(arguments);
        assert_eq!(
            (ended.code, ended.stderr.as_str()),
            (1, ""),
            "{input}: {ended:?}"
        );
        ended.stdout
    };
    let json = run(&["explain", "--json"]);
    (run(&["explain"]), serde_json::from_str(&json).unwrap())
}

#[test]
fn what_others_say_is_told_from_what_this_service_says() {
    for (said, source, speaker, cause) in [
        // Providers.
        (
            "Error 401: invalid_client\nThe OAuth client was not found.",
            "upstream-idp",
            "Google",
            "of no OAuth client that Google knows",
        ),
        (
            "Error 400: redirect_uri_mismatch",
            "upstream-idp",
            "Google",
            "callback",
        ),
        (
            "{\"error\":\"incorrect_client_credentials\",\"error_description\":\"The client_id and/or client_secret passed are incorrect.\"}",
            "upstream-idp",
            "GitHub",
            "client secret is wrong",
        ),
        (
            "{\"error\":\"bad_verification_code\",\"error_description\":\"The code passed is incorrect or expired.\"}",
            "upstream-idp",
            "GitHub",
            "used already",
        ),
        (
            "{\"error\":{\"message\":\"Error validating client secret.\",\"type\":\"OAuthException\",\"code\":1}}",
            "upstream-idp",
            "Facebook",
            "client secret is wrong",
        ),
        (
            "{\"error\":\"invalid_client\",\"error_description\":\"Client authentication failed (e.g., unknown client, no client authentication included, or unsupported authentication method).\"}",
            "upstream-idp",
            "Hydra",
            "another way",
        ),
        (
            "error=invalid_request&error_description=The+%27redirect_uri%27+parameter+does+not+match+any+of+the+OAuth+2.0+Client%27s+pre-registered+redirect+urls.",
            "upstream-idp",
            "Hydra",
            "callback",
        ),
        (
            "{\"errors\":[{\"code\":\"clerk_key_invalid\",\"message\":\"The provided Clerk Secret Key is invalid.\"}],\"clerk_trace_id\":\"1\"}",
            "upstream-idp",
            "Clerk's API",
            "secret key is wrong",
        ),
        (
            "{\"errors\":[{\"code\":\"resource_not_found\"}],\"clerk_trace_id\":\"1\"}",
            "upstream-idp",
            "Clerk's API",
            "another environment's",
        ),
        (
            "{\"errors\":[{\"code\":\"something_new\"}],\"clerk_trace_id\":\"1\"}",
            "upstream-idp",
            "Clerk's API",
            "none of the errors that are known here",
        ),
        (
            "{\"errors\":[{\"code\":\"origin_invalid\"}]}",
            "upstream-idp",
            "Clerk's API",
            "origin",
        ),
        // Backends, about our tokens.
        (
            "org.springframework.security.oauth2.jwt.BadJwtException: An error occurred while attempting to decode the Jwt: Signed JWT rejected: Another algorithm expected, or no matching key(s) found",
            "your-backend",
            "Nimbus",
            "RS256 alone unless told",
        ),
        (
            "An error occurred while attempting to decode the Jwt: The iss claim is not valid",
            "your-backend",
            "Spring",
            "EXCHEQUER_ISSUER",
        ),
        (
            "An error occurred while attempting to decode the Jwt: JOSE header typ (type) at+jwt not allowed",
            "your-backend",
            "Nimbus",
            "another `typ`",
        ),
        (
            "JWKSNoMatchingKey: no applicable key found in the JSON Web Key Set",
            "your-backend",
            "jose",
            "`kid` is not in the key set",
        ),
        (
            "JWTClaimValidationFailed: unexpected \"aud\" claim value",
            "your-backend",
            "jose",
            "`aud`",
        ),
        (
            "JOSEAlgNotAllowed: \"alg\" (Algorithm) Header Parameter value not allowed",
            "your-backend",
            "jose",
            "other algorithms",
        ),
        (
            "JsonWebTokenError: jwt audience invalid. expected: tasks",
            "your-backend",
            "jsonwebtoken, for Node",
            "`aud`",
        ),
        (
            "JsonWebTokenError: invalid signature",
            "your-backend",
            "jsonwebtoken, for Node",
            "fixed key",
        ),
        (
            "jwt.exceptions.ImmatureSignatureError: The token is not yet valid (iat)",
            "your-backend",
            "PyJWT",
            "clock",
        ),
        (
            "jwt.exceptions.InvalidAudienceError: Audience doesn't match",
            "your-backend",
            "PyJWT",
            "`aud`",
        ),
        (
            "jwt.exceptions.PyJWKClientError: Unable to find a signing key that matches: \"abc\"",
            "your-backend",
            "PyJWT",
            "`kid` is not in the key set",
        ),
        (
            "oidc: expected audience \"tasks\" got [\"web\"]",
            "your-backend",
            "go-oidc",
            "`aud`",
        ),
        (
            "oidc: id token issued by a different provider, expected \"a\" got \"b\"",
            "your-backend",
            "go-oidc",
            "EXCHEQUER_ISSUER",
        ),
        (
            "oidc: id token signed with unsupported algorithm, expected [\"RS256\"] got \"ES256\"",
            "your-backend",
            "go-oidc",
            "other algorithms",
        ),
        (
            "token has invalid claims: token has invalid audience",
            "your-backend",
            "golang-jwt",
            "`aud`",
        ),
        (
            "token is unverifiable: error while executing keyfunc: something",
            "your-backend",
            "golang-jwt",
            "key function",
        ),
        (
            "Error(InvalidSignature)",
            "your-backend",
            "jsonwebtoken, for Rust",
            "fixed key",
        ),
        (
            "Jwks doesn't have key to match kid or alg from Jwt",
            "your-backend",
            "Envoy",
            "`kid` is not in the key set",
        ),
        (
            "Jwt issuer is not configured",
            "your-backend",
            "Envoy",
            "EXCHEQUER_ISSUER",
        ),
        (
            "IDX10214: Audience validation failed.",
            "your-backend",
            ".NET",
            "`aud`",
        ),
        (
            "Token rejected: no matching key",
            "your-backend",
            "does not say which",
            "`kid` is not in the key set",
        ),
        (
            "token was issued in the future",
            "your-backend",
            "does not say which",
            "clock",
        ),
        (
            "verification failed: expected audience tasks",
            "your-backend",
            "does not say which",
            "`aud`",
        ),
        // The browser, and OAuth's bare words.
        (
            "Access to fetch at 'https://auth.example.com' from origin 'https://app.example.com' has been blocked by CORS policy",
            "browser",
            "the browser",
            "origins compared exactly",
        ),
        (
            "TypeError: Failed to fetch",
            "browser",
            "the browser",
            "no answer at all",
        ),
        (
            "{\"error\":\"invalid_grant\",\"error_description\":\"Code expired\"}",
            "elsewhere",
            "does not say which",
            "RFC 6749 §5.2",
        ),
        (
            "https://app.example.com/cb?error=access_denied&state=1",
            "elsewhere",
            "does not say which",
            "pressed cancel",
        ),
    ] {
        let (text, json) = explain(said);
        assert_eq!(json["source"], source, "{said}: {json}");
        let title = text.lines().next().unwrap();
        assert!(
            title.starts_with(&format!(
                "This answer was not written by Exchequer.  source: {source} ("
            )) && title.contains(speaker),
            "{said}: {title}"
        );
        let told = json["cause"].as_str().unwrap();
        let cause = if cause == "origins compared exactly" {
            "Origins are compared exactly"
        } else {
            cause
        };
        assert!(told.contains(cause), "{said}: {told}");
        assert!(!json["next"].as_array().unwrap().is_empty(), "{said}");
    }
}

#[test]
fn every_meaning_is_met_by_the_very_words_that_it_lists() {
    for meaning in MEANINGS {
        for (speaker, words) in meaning.said {
            let (text, json) = explain(&words.join(" and "));
            assert_eq!(json["source"], meaning.source, "{words:?}: {text}");
            assert!(text.contains(speaker), "{words:?}: {text}");
        }
    }
}

#[test]
fn the_reasons_of_clerks_sdk_lead_to_our_codes() {
    let (text, json) = explain(
        "TokenVerificationError: JWT signature is invalid. (reason=token-invalid-signature)",
    );
    assert_eq!(json["code"], "subject_token_signature_invalid", "{text}");
    assert!(
        text.contains("source: your-backend (@clerk/backend)"),
        "{text}"
    );
    assert!(
        text.contains("https://github.com/clerk/javascript/pull/9394"),
        "{text}"
    );
    let (text, json) = explain("jwk-kid-mismatch");
    assert_eq!(json["code"], Value::Null);
    assert!(
        text.contains("subject_token_key_id_missing, subject_token_key_unknown"),
        "{text}"
    );
    for code in Code::ALL {
        for reason in code.entry().clerk {
            let (text, _) = explain(reason);
            assert!(text.contains(code.entry().slug), "{reason}: {text}");
        }
    }
}

#[test]
fn what_is_not_known_is_said_to_be_not_known() {
    let (text, json) = explain("{\"error\":\"teapot\",\"error_description\":\"short and stout\"}");
    assert_eq!(
        text,
        "This answer was not written by Exchequer: it has no `code`. What it means by \"teapot\" is not known here.

next     1. Ask the server that wrote it: its host is in the browser's address bar or in the client's log.
         2. If it is about a token, pipe the token itself into `exchequer explain`.
"
    );
    assert_eq!(
        (&json["code"], &json["cause"]),
        (&Value::Null, &Value::Null)
    );
    let (text, _) = explain("Segmentation fault (core dumped)");
    assert!(
        text.starts_with("This is no token, and nothing in it is known here as an error.\n"),
        "{text}"
    );
}

#[test]
fn what_is_no_token_is_called_by_its_name_and_a_secret_is_not_shown() {
    for (pasted, title, next) in [
        (
            "sk_live_abcdefghijk",
            "This is a secret key of a live instance (sk_live_…), and no token.",
            "Replace it now",
        ),
        (
            "Authorization: Bearer sk_test_abcdefghijk",
            "This is a secret key of a development instance (sk_test_…), and no token.",
            "Clerk → API keys → Secret keys",
        ),
        (
            "whsec_abcdefghijk",
            "This is a webhook's signing secret (whsec_…), and no token.",
            "Clerk → Webhooks",
        ),
        (
            "-----BEGIN PRIVATE KEY-----\nabcdefghijk\n-----END PRIVATE KEY-----",
            "This is a private key, and no token.",
            "exchequer keys revoke",
        ),
        (
            "{\"kty\":\"OKP\",\"d\":\"abcdefghijk\"}",
            "This is a private key, and no token.",
            "Replace it now",
        ),
        (
            "pk_test_a2luZC1jYXQtMS5jbGVyay5hY2NvdW50cy5kZXYk",
            "This is a publishable key of Clerk (pk_…), and no token.",
            "Its instance is https://kind-cat-1.clerk.accounts.dev: that is what CLERK_JWT_ISSUER must be",
        ),
        (
            "user_abcdefghijk",
            "This is the id of a user (user_…), and no token.",
            "getToken()",
        ),
        (
            "{\"keys\":[]}",
            "This is JSON, but neither an error answer nor around a token.",
            "Pipe in the token itself",
        ),
    ] {
        let (text, _) = explain(pasted);
        assert_eq!(text.lines().next(), Some(title));
        assert!(text.contains(next), "{text}");
        assert!(!text.contains("abcdefghijk"), "{text}");
    }
}

#[test]
fn a_token_is_found_in_what_was_copied_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let signed = Token::clerk("https://clerk.example.com")
        .claim("exp", 1)
        .sign(Key::rsa());
    let explain = |input: String| {
        let ended = Command::new(dir.path())
            .env("CLERK_JWT_ISSUER", "https://other.example.com")
            .input(input)
            .run(&["explain", "--json"]);
        serde_json::from_str::<Value>(&ended.stdout).unwrap_or_else(|_| panic!("{ended:?}"))
    };
    let plain = explain(signed.clone());
    assert_eq!(plain["code"], "subject_token_issuer_untrusted");
    let (head, tail) = signed.split_at(100);
    for (pasted, note) in [
        (format!("Bearer {signed}"), "`Bearer ` in front"),
        (
            format!("authorization: Bearer {signed}"),
            "a header's or a parameter's name in front",
        ),
        (format!("\"{signed}\""), "quotes around it"),
        (format!("{head}\n{tail}"), "line breaks or blanks within it"),
        (
            format!("{{\"session_token\":\"{signed}\"}}"),
            "this is `session_token` of the JSON that was pasted",
        ),
    ] {
        let mut said = explain(pasted);
        let notes = said["notes"].take();
        assert!(notes.to_string().contains(note), "{notes}");
        assert!(
            note.starts_with("this is")
                || notes
                    .to_string()
                    .contains("refused as subject_token_malformed")
        );
        let mut same = plain.clone();
        same["notes"].take();
        assert_eq!(said, same);
    }
}
