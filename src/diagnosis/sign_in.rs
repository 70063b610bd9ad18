//! The URL of a sign-in: what its parameters mean, and which of them are not as the configuration
//! has them. Nobody is asked, and nothing is shown that is for one sign-in alone: state, nonce,
//! challenge, code.

use super::Diagnosis;
use super::answers::error_answer;
use crate::config::{LOGIN, ProviderKind, ProviderSettings};
use crate::explain::Code;
use crate::explain::foreign::ErrorAnswer;
use crate::explain::ladder::Outcome;
use crate::explain::nearest::Difference;
use crate::explain::report::{Report, Step};
use crate::explain::say::Say;
use crate::explain::sign_in_url::{GOOGLE, SignInUrl, Way, shown};
use crate::oauth::sign_in::{app_named, challenge, registered, thumbprint};
use url::Url;

const KIND: &str = "sign_in_url";
const ABSENT: &str = "absent";
const OURS: &str = "This service sends response_type, state, nonce and a challenge each time: the URL was written or changed by somebody else. Begin at /auth/login/ and the provider's name.";
const NOT_OURS: &str = "This configuration begins no sign-in there: an app, or another service, wrote the URL and asks by itself.";

/// The checks, the code of the first that failed, and what to do.
#[derive(Default)]
struct Checks {
    steps: Vec<Step>,
    code: Option<Code>,
    next: Vec<Say>,
}

impl Checks {
    fn passed(&mut self, check: &'static str, seen: impl Into<String>) {
        self.steps.push(Step {
            check,
            outcome: Outcome::Passed,
            seen: Some(seen.into()),
            expected: None,
        });
    }

    fn failed(
        &mut self,
        check: &'static str,
        seen: impl Into<String>,
        expected: impl Into<String>,
        next: impl IntoIterator<Item = Say>,
    ) {
        self.steps.push(Step {
            check,
            outcome: Outcome::Failed,
            seen: Some(seen.into()),
            expected: Some(expected.into()),
        });
        for step in next {
            if !self.next.contains(&step) {
                self.next.push(step);
            }
        }
    }

    /// The code of what failed last, where it is the first.
    fn under(&mut self, code: Code) {
        self.code.get_or_insert(code);
    }

    /// A parameter whose value is nobody's business.
    fn is_there(&mut self, url: &SignInUrl, name: &'static str) {
        match url.get(name) {
            Some(_) => self.passed(name, "there"),
            None => self.failed(name, ABSENT, "there", [Say::words(OURS)]),
        }
    }

    fn pkce(&mut self, url: &SignInUrl, next: impl IntoIterator<Item = Say>) {
        match challenge(url.get("code_challenge"), url.get("code_challenge_method")) {
            Ok(_) => self.passed("pkce", "S256"),
            Err(why) => self.failed(
                "pkce",
                why,
                "code_challenge, with code_challenge_method=S256",
                next,
            ),
        }
    }

    fn report(self, title: Say, passed: &'static str, cause: Option<&'static str>) -> Report {
        let mut steps = self.steps.iter();
        let good = steps.all(|step| step.outcome == Outcome::Passed);
        Report {
            kind: KIND,
            title: vec![title],
            accepted: (!good).then_some(false),
            verdict: good.then_some(Say::words(passed)),
            cause: cause.filter(|_| !good && self.code.is_none()),
            steps: self.steps,
            code: self.code,
            next: self.next,
            known: self.code.into_iter().flat_map(Code::known_issues).collect(),
            ..Report::default()
        }
    }
}

impl Diagnosis {
    pub(super) fn of_sign_in(&self, url: &SignInUrl) -> Report {
        match &url.way {
            Way::Login(provider) => self.of_login(url, provider),
            Way::Provider => self.of_request(url),
            Way::Back => self.of_way_back(url),
            Way::Refused(answer) => self.of_error_page(url, answer),
        }
    }

    /// A request to our own login endpoint: its checks, in its order.
    fn of_login(&self, url: &SignInUrl, provider: &str) -> Report {
        let settings = &self.settings;
        let mut checks = Checks::default();
        self.check_login(url, provider, &mut checks);
        let title = Say::words("The URL at which a sign-in begins at this service.");
        let passed = "the browser would be sent on to the provider, as far as app, provider, redirect URI, PKCE, key and audiences go";
        let mut report = checks.report(title, passed, None);
        if url.at != format!("{}{LOGIN}{provider}", settings.issuer) {
            let note = Say::words("it leads to ").value("url", url.at.as_str());
            report.notes.push(
                note.and(", and EXCHEQUER_ISSUER is ")
                    .value("issuer", settings.issuer.as_str()),
            );
        }
        if url.get("state").is_none() {
            report.notes.push(Say::words(
                "it has no `state`: the app cannot tell a sign-in that it began from one that somebody else did",
            ));
        }
        report
    }

    fn check_login(&self, url: &SignInUrl, provider: &str, checks: &mut Checks) {
        let apps = &self.settings.apps;
        let (app, client) = (url.get("app"), url.get("client_id"));
        let name = match app_named(app, client) {
            Ok(Some(name)) => name,
            Ok(None) => {
                let names: Vec<&str> = apps.iter().map(|app| app.name.as_str()).collect();
                checks.failed("app", ABSENT, names.join(", "), []);
                return checks.under(Code::ParameterMalformed);
            }
            Err(refusal) => {
                let both: Vec<&str> = app.into_iter().chain(client).collect();
                let seen = format!("app and client_id: {}", both.join(", "));
                checks.failed("app", seen, "the same, or one of them", []);
                return checks.under(refusal.code);
            }
        };
        let Some(app) = apps.iter().find(|app| app.name == name) else {
            let names = || apps.iter().map(|app| app.name.as_str());
            let near = near("app", name, names());
            checks.failed("app", name, names().collect::<Vec<_>>().join(", "), near);
            return checks.under(Code::AppUnknown);
        };
        checks.passed("app", name);
        let sign_in = app.sign_in.as_ref();
        let listed = sign_in.map_or(&[][..], |sign_in| &sign_in.providers);
        if !listed.iter().any(|each| each == provider) {
            let setting = Say::words("The app's providers stand in `[apps.")
                .value("name", name)
                .and(".sign_in] providers`.");
            let near = near("name", provider, listed.iter().map(String::as_str));
            let next = near.into_iter().chain([setting]);
            checks.failed("provider", provider, some(listed), next);
            return checks.under(Code::SignInProviderUnknown);
        }
        checks.passed("provider", provider);
        let known = sign_in.map_or(&[][..], |sign_in| &sign_in.redirect_uris);
        let uri = url.get("redirect_uri");
        if registered(sign_in, uri).is_ok() {
            checks.passed("redirect_uri", known_or_shown(uri, known));
        } else {
            let near = uri.and_then(|uri| near_uri(uri, known));
            let seen = known_or_shown(uri, known);
            checks.failed("redirect_uri", seen, some(known), near);
            checks.under(Code::RedirectUriNotRegistered);
        }
        match url.get("response_type") {
            None | Some("code") => checks.passed("response_type", "code, or none"),
            Some(other) => {
                checks.failed("response_type", other, "code, or none", []);
                checks.under(Code::ResponseTypeUnsupported);
            }
        }
        checks.pkce(url, []);
        let failed = checks.steps.last();
        if failed.is_some_and(|step| step.outcome == Outcome::Failed) {
            checks.under(Code::PkceRequired);
        }
        if let Err(refusal) = thumbprint(url.get("dpop_jkt")) {
            let expected = "a SHA-256 in base64url without padding, of 43 characters";
            checks.failed("dpop_jkt", "something else", expected, []);
            checks.under(refusal.code);
        }
        let audiences: Vec<&str> = url.all("audience").chain(url.all("resource")).collect();
        let judge = self.exchange.apps.get(name);
        if !judge.is_some_and(|app| app.may_ask_for(&audiences)) {
            let seen = audiences.join(", ");
            checks.failed("audience", seen, some(&app.audiences), []);
            checks.under(Code::AudienceNotAllowed);
        }
    }

    /// A request to a provider's authorization endpoint, as this service would make it.
    fn of_request(&self, url: &SignInUrl) -> Report {
        let host = host(&url.at);
        let title = Say::words("The URL that asks ")
            .value("host", host.as_deref().unwrap_or_default())
            .and(" to sign somebody in.");
        let mut checks = Checks::default();
        let not_ours = || {
            let foreign = foreign_client(url, host.as_deref()).into_iter();
            foreign.chain([Say::words("If all you need is a signed-in user, and the app has the provider's SDK, no OAuth client is needed: exchange the session token at `POST /auth/exchange`.")])
        };
        let Some((provider, ours)) = self.asked(url, host.as_deref()) else {
            let known = self.settings.providers.values().map(|each| {
                let endpoint = each.authorization_endpoint.as_ref();
                endpoint.unwrap_or(&each.issuer).clone()
            });
            let known: Vec<String> = known.collect();
            checks.failed("provider", url.at.as_str(), some(&known), not_ours());
            return checks.report(title, "", Some(NOT_OURS));
        };
        let callback = self.callback(provider);
        check_request(url, provider, &callback, &mut checks);
        if !ours {
            // Our settings are not to be made somebody else's.
            checks.next = not_ours().collect();
            return checks.report(title, "", Some(NOT_OURS));
        }
        let cause = "What the browser carries to the provider is not what this configuration asks for: another environment's or an older configuration made it, or somebody wrote it by hand.";
        let passed = "it asks as this configuration does: where the provider shows an error all the same, it does not know this client or this callback";
        let mut report = checks.report(title, passed, Some(cause));
        report.notes.push(
            Say::words("the provider must have registered, byte for byte: ")
                .value("url", callback)
                .and("; `exchequer doctor` asks it whether it knows the client"),
        );
        if provider.authorization_endpoint.is_none() && provider.kind != ProviderKind::Google {
            report.notes.push(
                Say::words("the provider's own document says where `authorization_endpoint` is; it was not asked, and ")
                    .value("url", url.at.as_str())
                    .and(" was not compared"),
            );
        }
        report
    }

    /// The provider that is asked, and whether it is this configuration that asks: by callback or
    /// client it is, and by the host alone it is not.
    fn asked(
        &self,
        url: &SignInUrl,
        host_asked: Option<&str>,
    ) -> Option<(&ProviderSettings, bool)> {
        let (client, back) = (url.get("client_id"), url.get("redirect_uri"));
        let back_path = back.and_then(path);
        let by_host = |each: &ProviderSettings| {
            let endpoint = each.authorization_endpoint.as_ref();
            host_asked.is_some() && host(endpoint.unwrap_or(&each.issuer)).as_deref() == host_asked
        };
        let by_client = |each: &ProviderSettings| client == Some(each.client_id.as_str());
        let by_path = |each: &ProviderSettings| {
            back_path.is_some() && back_path == path(&self.callback(each))
        };
        let find = |is: &dyn Fn(&ProviderSettings) -> bool| {
            self.settings.providers.values().find(|each| is(each))
        };
        // Several providers may know us by one client id, and others ask our providers too.
        let ours = find(&|each| back == Some(self.callback(each).as_str()))
            .or_else(|| find(&|each| by_client(each) && by_host(each)))
            .or_else(|| find(&by_client))
            .or_else(|| find(&by_path))
            .map(|provider| (provider, true));
        ours.or_else(|| Some((find(&by_host)?, false)))
    }

    fn callback(&self, provider: &ProviderSettings) -> String {
        provider.callback(&self.settings.issuer)
    }

    /// What Google says of a request, and whether the client is ours.
    fn of_error_page(&self, url: &SignInUrl, answer: &ErrorAnswer) -> Report {
        let google = |each: &&ProviderSettings| {
            let endpoint = each.authorization_endpoint.as_ref();
            host(endpoint.unwrap_or(&each.issuer)).as_deref() == Some(GOOGLE)
        };
        let providers = self.settings.providers.values().filter(google);
        let known: Vec<String> = providers.map(|each| each.client_id.clone()).collect();
        let mut checks = Checks::default();
        let mut report = error_answer(answer);
        match url.get("client_id") {
            Some(id) if known.iter().any(|each| each == id) => checks.passed("client_id", id),
            id => {
                checks.failed("client_id", id.unwrap_or(ABSENT), some(&known), []);
                report.notes.push(Say::words("no provider of this configuration has this client: an app, or another service, or the identity provider itself, asked Google by itself"));
            }
        }
        report.steps = checks.steps;
        report
    }

    /// What a provider, or this service, sent a browser back to.
    fn of_way_back(&self, url: &SignInUrl) -> Report {
        let settings = &self.settings;
        let callbacks = settings.providers.values().map(|each| self.callback(each));
        let apps = settings.apps.iter().filter_map(|app| app.sign_in.as_ref());
        let own = apps.flat_map(|sign_in| sign_in.redirect_uris.iter().cloned());
        let known: Vec<String> = callbacks.chain(own).collect();
        let mut checks = Checks::default();
        let at = url.at.as_str();
        let mut apps = settings.apps.iter().filter_map(|app| app.sign_in.as_ref());
        let of_an_app = apps.any(|sign_in| registered(Some(sign_in), Some(at)).is_ok());
        if of_an_app || known.iter().any(|each| bare(each) == at) {
            checks.passed("redirect_uri", at);
        } else {
            checks.failed("redirect_uri", at, some(&known), near_uri(at, &known));
        }
        let title =
            Say::words("The URL with which somebody came back from a sign-in, with a code.");
        let passed = "the sign-in went well as far as this URL shows; who exchanges the code learns the rest";
        let cause = "Nobody of this configuration is sent back there: it is another service's callback, or another environment's.";
        let mut report = checks.report(title, passed, Some(cause));
        report.notes.push(Say::words(
            "a code is a secret for as long as it lives, a minute or a few, and is good once: a page that was loaded again fails with it. Begin anew",
        ));
        report
    }
}

/// What a request of ours says.
fn check_request(
    url: &SignInUrl,
    provider: &ProviderSettings,
    callback: &str,
    checks: &mut Checks,
) {
    let named = |setting: &'static str| {
        Say::words("The setting is `[providers.")
            .value("name", provider.name.as_str())
            .and("] ")
            .and(setting)
            .and("`.")
    };
    let at = url.at.as_str();
    match (provider.kind, provider.authorization_endpoint.as_deref()) {
        (kind, Some(endpoint)) => {
            let compared = |url: &str| match kind {
                ProviderKind::Facebook => without_version(&bare(url)),
                _ => bare(url),
            };
            if compared(endpoint) == compared(at) {
                checks.passed("provider", at);
            } else {
                checks.failed("provider", at, endpoint, [named("authorization_endpoint")]);
            }
        }
        (ProviderKind::Google, None) if host(at) != host(&provider.issuer) => {
            checks.failed("provider", at, provider.issuer.as_str(), []);
        }
        (ProviderKind::Google, None) => checks.passed("provider", at),
        // It is discovered.
        (_, None) => {}
    }
    match url.get("client_id") {
        Some(id) if id == provider.client_id => checks.passed("client_id", id),
        id => {
            let near = id.and_then(|id| near("client", id, [provider.client_id.as_str()]));
            let foreign = foreign_client(url, host(&url.at).as_deref());
            let next = near.into_iter().chain(foreign).chain([named("client_id")]);
            let expected = provider.client_id.as_str();
            checks.failed("client_id", id.unwrap_or(ABSENT), expected, next);
        }
    }
    match url.get("redirect_uri") {
        Some(uri) if uri == callback => checks.passed("redirect_uri", uri),
        uri => {
            let near = uri.and_then(|uri| near("url", uri, [callback]));
            let next = near.into_iter().chain([Say::words("The callback is EXCHEQUER_ISSUER, then /auth/callback/ and the provider's name: where that is right, the URL is another environment's.")]);
            let seen = uri.map_or(ABSENT.to_owned(), shown);
            checks.failed("redirect_uri", seen, callback, next);
        }
    }
    match url.get("response_type") {
        Some("code") => checks.passed("response_type", "code"),
        other => {
            let seen = other.unwrap_or(ABSENT);
            checks.failed("response_type", seen, "code", [Say::words(OURS)]);
        }
    }
    let id_token = match provider.kind {
        ProviderKind::Oidc | ProviderKind::Clerk | ProviderKind::Google => true,
        ProviderKind::GitHub | ProviderKind::Facebook => false,
    };
    let scope = url.get("scope").unwrap_or_default();
    // GitHub and Facebook have commas between them too.
    let between = |each: char| each == ' ' || each == ',' && !id_token;
    let missing = |name: &str| !scope.split(between).any(|each| each == name);
    if provider.scopes.iter().any(|each| missing(each)) {
        let seen = if scope.is_empty() { ABSENT } else { scope };
        let without = "Without `openid` there is no ID token, which says who signed in.";
        let why = (id_token && missing("openid")).then_some(Say::words(without));
        let next = why.into_iter().chain([named("scopes")]);
        checks.failed("scope", seen, provider.scopes.join(" "), next);
    } else {
        checks.passed("scope", scope);
    }
    checks.is_there(url, "state");
    if id_token {
        checks.is_there(url, "nonce");
    }
    checks.pkce(url, [Say::words(OURS)]);
}

/// Whose client the id is, by its form, where the server that is asked cannot know it.
fn foreign_client(url: &SignInUrl, host: Option<&str>) -> Option<Say> {
    let client = url.get("client_id")?;
    let google = client.ends_with(".apps.googleusercontent.com");
    if client.starts_with("pk_live_") || client.starts_with("pk_test_") {
        Some(Say::words(
            "`client_id` is a publishable key, which says to which Clerk instance an app belongs: no OAuth server knows it. Register an OAuth application at the provider, and send its id.",
        ))
    } else if google && host != Some("accounts.google.com") {
        Some(Say::words(
            "`client_id` is a client of Google's: the server that is asked knows its own clients alone. Register an OAuth application there, and send its id.",
        ))
    } else {
        None
    }
}

fn host(url: &str) -> Option<String> {
    let url = Url::parse(url).ok()?;
    url.host_str().map(str::to_owned)
}

fn path(url: &str) -> Option<String> {
    Some(Url::parse(url).ok()?.path().to_owned())
}

/// A URL without the version of Facebook's API, which its path may begin with.
fn without_version(url: &str) -> String {
    let is_version = |part: &&str| {
        let number = part.strip_prefix('v').filter(|rest| !rest.is_empty());
        number.is_some_and(|rest| {
            rest.bytes()
                .all(|byte| byte.is_ascii_digit() || byte == b'.')
        })
    };
    let parts: Vec<&str> = url.split('/').filter(|part| !is_version(part)).collect();
    parts.join("/")
}

/// A URL without its query, as it is compared.
fn bare(url: &str) -> String {
    Url::parse(url).map_or_else(
        |_| url.to_owned(),
        |mut url| {
            url.set_query(None);
            url.into()
        },
    )
}

/// A redirect URI whole where it is one of these, else without what may be secret.
fn known_or_shown(uri: Option<&str>, known: &[String]) -> String {
    match uri {
        Some(uri) if known.iter().any(|each| each == uri) => uri.to_owned(),
        Some(uri) => shown(uri),
        None => ABSENT.to_owned(),
    }
}

/// The known name that this one is nearly, and by what they differ.
fn near<'k>(
    kind: &'static str,
    seen: &str,
    known: impl IntoIterator<Item = &'k str>,
) -> Option<Say> {
    let (near, difference) = Difference::nearest(seen, known)?;
    let nearest = Say::words("Nearest is ").value(kind, near).and(": ");
    Some(nearest.and(difference.words()).and("."))
}

fn near_uri(uri: &str, known: &[String]) -> Option<Say> {
    near("url", uri, known.iter().map(String::as_str))
}

fn some(names: &[String]) -> String {
    match names {
        [] => "none is configured".to_owned(),
        names => names.join(", "),
    }
}
