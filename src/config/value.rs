//! Single values: durations, URLs, algorithms, expressions and near-miss suggestions.

use super::WebhookSecret;
use crate::clock::UnixSeconds;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cel::IdedExpr;
use cel::common::ast::{EntryExpr, Expr, MapExpr, StructExpr};
use jsonwebtoken::Algorithm;
use std::net::IpAddr;
use std::sync::Arc;
use zeroize::Zeroizing;

/// The algorithms that upstream issuers may sign with.
const UPSTREAM: [(&str, Algorithm); 9] = [
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
];

/// `30s`, `10m`, `24h`, `90d`: seconds.
pub(super) fn duration(text: &str) -> Result<UnixSeconds, String> {
    let error = || format!("{text:?} is no duration: write 30s, 10m, 24h or 90d");
    let unit = text.chars().last().ok_or_else(error)?;
    let factor = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(error()),
    };
    let digits = text.strip_suffix(unit).ok_or_else(error)?;
    if digits.is_empty() || digits.len() > 9 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(error());
    }
    digits
        .parse::<UnixSeconds>()
        .map(|number| number * factor)
        .map_err(|_| error())
}

/// The duration in its largest whole unit.
pub(super) fn show_duration(seconds: UnixSeconds) -> String {
    [(86_400, 'd'), (3600, 'h'), (60, 'm')]
        .into_iter()
        .find(|(size, _)| seconds != 0 && seconds % size == 0)
        .map_or(format!("{seconds}s"), |(size, unit)| {
            format!("{}{unit}", seconds / size)
        })
}

/// A duration between two bounds.
pub(super) fn bounded(
    text: &str,
    least: UnixSeconds,
    most: UnixSeconds,
) -> Result<UnixSeconds, String> {
    let seconds = duration(text)?;
    if (least..=most).contains(&seconds) {
        Ok(seconds)
    } else {
        Err(format!(
            "{text} is out of range: {} to {}",
            show_duration(least),
            show_duration(most)
        ))
    }
}

/// An algorithm that an upstream issuer may sign with.
pub(super) fn upstream_algorithm(text: &str) -> Result<Algorithm, String> {
    UPSTREAM
        .into_iter()
        .find(|(name, _)| *name == text)
        .map(|(_, algorithm)| algorithm)
        .ok_or_else(|| {
            let names: Vec<&str> = UPSTREAM.iter().map(|(name, _)| *name).collect();
            if text.starts_with("HS") || text.eq_ignore_ascii_case("none") {
                format!("{text:?} is never accepted: only asymmetric algorithms are")
            } else {
                format!("{text:?} is none of {}", names.join(", "))
            }
        })
}

/// An algorithm that we sign with.
pub(super) fn signing_algorithm(text: &str) -> Result<Algorithm, String> {
    match text {
        "ES256" => Ok(Algorithm::ES256),
        "RS256" => Ok(Algorithm::RS256),
        "EdDSA" => Ok(Algorithm::EdDSA),
        _ => Err(format!("{text:?} is none of ES256, RS256, EdDSA")),
    }
}

/// Whether a host, as it stands in a URL, is this machine.
pub fn is_loopback_host(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host.ends_with(".localhost")
        || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The origins of those that are addresses of the web: scheme, host, and the port where it is
/// not the scheme's own.
pub fn origins(texts: &[String]) -> Vec<String> {
    let origin = |text: &String| {
        let url = url::Url::parse(text).ok()?;
        let web = matches!(url.scheme(), "http" | "https");
        web.then(|| url.origin().ascii_serialization())
    };
    texts.iter().filter_map(origin).collect()
}

/// An issuer identifier or another base URL: https, or http on loopback; no query, no
/// fragment, no user (OpenID Connect Discovery §3).
pub(super) fn https_url(text: &str) -> Result<url::Url, String> {
    let url = url::Url::parse(text).map_err(|_| {
        format!("{text:?} is no URL: write it with https://, as the provider shows it")
    })?;
    // First, so that no other message shows the password.
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a URL must have no user and no password".to_owned());
    }
    let host = url.host_str().unwrap_or_default();
    match url.scheme() {
        "https" if !host.is_empty() => {}
        "http" if is_loopback_host(host) => {}
        "http" => {
            return Err(format!(
                "{text:?} must be https: plain http is only for this machine"
            ));
        }
        _ => return Err(format!("{text:?} must be an https URL")),
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("{text:?} must have no query and no fragment"));
    }
    if text.len() > 255 {
        return Err("a URL must have at most 255 characters".to_owned());
    }
    Ok(url)
}

/// The secret of webhooks (Standard Webhooks, Svix): 24 to 64 bytes in base64 after `whsec_`.
pub(super) fn webhook_secret(text: &str) -> Result<WebhookSecret, String> {
    let encoded = text.strip_prefix("whsec_").unwrap_or(text);
    STANDARD
        .decode(encoded)
        .ok()
        .filter(|bytes| (24..=64).contains(&bytes.len()))
        .map(|bytes| WebhookSecret(Zeroizing::new(bytes)))
        .ok_or_else(|| {
            "is no webhook secret: whsec_ and 24 to 64 bytes in base64, as the dashboard shows it; make one with `echo whsec_$(openssl rand -base64 32)`".to_owned()
        })
}

/// Whether a scope may have the byte (RFC 6749 §3.3).
pub fn is_scope_byte(byte: u8) -> bool {
    matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e)
}

/// Whether a text is a scope, 128 bytes at most.
pub(super) fn is_scope(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.bytes().all(is_scope_byte)
}

/// The name of an app, an issuer or a client in the configuration.
pub(super) fn name(text: &str) -> Result<(), String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if text.is_empty() || text.len() > 64 || !text.bytes().all(fits) {
        return Err(format!(
            "{text:?} is no name: 1 to 64 letters, digits, '-', '_' or '.'"
        ));
    }
    Ok(())
}

/// Compiles a CEL expression and checks that it reads only the variables that there are.
pub(super) fn expression(text: &str) -> Result<super::Expression, String> {
    let program = cel::Program::compile(text)
        .map_err(|error| format!("not a CEL expression: {}", first_line(&error.to_string())))?;
    let known = |name: &str| super::EXPRESSION_VARIABLES.contains(&name);
    if let Some(variable) = free_variable(program.expression(), &known, &mut Vec::new()) {
        return Err(format!(
            "{variable:?} is unknown in an expression{}",
            suggest(variable, &super::EXPRESSION_VARIABLES)
        ));
    }
    Ok(super::Expression {
        source: text.to_owned(),
        program: Arc::new(program),
    })
}

/// Whether the expression reads a variable that nothing in it binds.
pub(super) fn reads(expression: &IdedExpr, variable: &str) -> bool {
    free_variable(expression, &|name| name != variable, &mut Vec::new()).is_some()
}

/// The first variable that is neither passed over nor bound by a macro around it, as `x` is
/// in `roles.exists(x, x == "org:admin")`.
fn free_variable<'e>(
    expression: &'e IdedExpr,
    passed: &dyn Fn(&str) -> bool,
    bound: &mut Vec<&'e str>,
) -> Option<&'e str> {
    match &expression.expr {
        Expr::Unspecified | Expr::Literal(_) => None,
        Expr::Ident(name) => {
            // The parser's own accumulators begin with an @.
            let known = name.starts_with('@') || bound.contains(&name.as_str()) || passed(name);
            (!known).then_some(name)
        }
        Expr::Select(select) => free_variable(&select.operand, passed, bound),
        Expr::List(list) => first_free(&list.elements, passed, bound),
        Expr::Call(call) => first_free(
            call.target.as_deref().into_iter().chain(&call.args),
            passed,
            bound,
        ),
        Expr::Map(MapExpr { entries }) | Expr::Struct(StructExpr { entries, .. }) => {
            let parts = entries.iter().flat_map(|entry| match &entry.expr {
                EntryExpr::StructField(field) => [None, Some(&field.value)],
                EntryExpr::MapEntry(entry) => [Some(&entry.key), Some(&entry.value)],
            });
            first_free(parts.flatten(), passed, bound)
        }
        Expr::Comprehension(each) => {
            let outside = first_free([&each.iter_range, &each.accu_init], passed, bound);
            let depth = bound.len();
            bound.push(&each.iter_var);
            bound.extend(each.iter_var2.as_deref());
            let inside = first_free(
                [&each.loop_cond, &each.loop_step, &each.result],
                passed,
                bound,
            );
            bound.truncate(depth);
            outside.or(inside)
        }
    }
}

fn first_free<'e>(
    parts: impl IntoIterator<Item = &'e IdedExpr>,
    passed: &dyn Fn(&str) -> bool,
    bound: &mut Vec<&'e str>,
) -> Option<&'e str> {
    parts
        .into_iter()
        .find_map(|part| free_variable(part, passed, bound))
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// `: did you mean "…"?` with the nearest of the known names, where one is near.
pub(super) fn suggest(name: &str, known: &[&str]) -> String {
    known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .min()
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 5)
        .map_or_else(String::new, |(_, candidate)| {
            format!(": did you mean {candidate:?}?")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("30s"), Ok(30));
        assert_eq!(duration("10m"), Ok(600));
        assert_eq!(duration("24h"), Ok(86_400));
        assert_eq!(duration("90d"), Ok(7_776_000));
        for bad in [
            "",
            "10",
            "m",
            "-1m",
            "1.5h",
            "10 m",
            "1h30m",
            "9999999999s",
            "5µ",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert_eq!(show_duration(86_400), "1d");
        assert_eq!(show_duration(90), "90s");
    }

    #[test]
    fn urls() {
        assert!(https_url("https://clerk.example.com").is_ok());
        assert!(https_url("http://127.0.0.1:9000").is_ok());
        assert!(https_url("http://[::1]:9000").is_ok());
        for bad in [
            "clerk.example.com",
            "http://clerk.example.com",
            "ftp://x",
            "https://u:p@x",
            "https://x?y",
            "https://x#y",
        ] {
            assert!(https_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn expressions_read_our_variables_and_those_that_their_macros_bind() {
        for good in [
            "roles.exists(x, x == sub)",
            "claims.a.map(x, claims.b.filter(y, x == y))",
            "{sub: [has(claims.x) ? 1 : 2]}",
        ] {
            assert!(expression(good).is_ok(), "{good}");
        }
        for (bad, name) in [
            ("x", "x"),
            ("roles.exists(x, x == y)", "y"),
            ("x.map(x, x)", "x"),
            ("roles.all(x, true) && x", "x"),
            ("[roles.map(x, x), x]", "x"),
            ("{sub: {x: 1}}", "x"),
            ("size(x.y.z)", "x"),
        ] {
            let error = expression(bad).unwrap_err();
            assert!(
                error.starts_with(&format!("{name:?} is unknown")),
                "{error}"
            );
        }
    }

    #[test]
    fn hmac_and_none_can_never_be_configured() {
        for bad in ["HS256", "HS384", "HS512", "none", "None", "rs256", ""] {
            assert!(upstream_algorithm(bad).is_err(), "{bad}");
        }
    }
}
