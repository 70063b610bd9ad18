//! The catalogue: every code that Exchequer answers or prints, once, as data.
//!
//! `exchequer errors` and `docs/errors.md` are printed from this table.

use serde::Serialize;

/// What the caller should do about a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// The same request may succeed later; `Retry-After` says when.
    Retry,
    /// Ask the provider's SDK for a fresh token, then exchange that.
    RefreshSubjectToken,
    /// The user must sign in, or finish signing in.
    SignIn,
    /// The request itself is wrong.
    FixRequest,
    /// A setting is wrong: of this service, of the app or at the provider.
    FixConfig,
}

impl Action {
    /// The action's name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::RefreshSubjectToken => "refresh_subject_token",
            Self::SignIn => "sign_in",
            Self::FixRequest => "fix_request",
            Self::FixConfig => "fix_config",
        }
    }
}

/// One entry of the catalogue.
#[derive(Debug)]
pub struct Entry {
    /// The code that this is the entry of.
    pub code: Code,
    /// The stable name: `code` in an answer.
    pub slug: &'static str,
    /// The RFC's word: `error` in an answer.
    pub error: &'static str,
    /// The HTTP status, or 0 for what only the command line says.
    pub status: u16,
    /// What the caller should do.
    pub action: Action,
    /// The sentence that describes it where nothing more exact is known.
    pub sentence: &'static str,
    /// What causes it.
    pub cause: &'static str,
    /// How to confirm that this is the cause.
    pub confirm: &'static str,
    /// How to mend it.
    pub mend: &'static str,
    /// The reasons that `@clerk/backend` gives for the same thing.
    pub clerk: &'static [&'static str],
}

impl Entry {
    /// Whether the same request may succeed later.
    pub fn retryable(&self) -> bool {
        self.action == Action::Retry
    }
}

macro_rules! catalogue {
    ($($code:ident $slug:literal: $status:literal $error:literal $action:ident $([$($clerk:literal),*])?
        $sentence:literal
        cause: $cause:literal
        confirm: $confirm:literal
        mend: $mend:literal)*) => {
        /// A code of the catalogue: one for each cause.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code { $(#[doc = $sentence] $code),* }

        impl Code {
            /// Every code, in the order of the catalogue.
            pub const ALL: &'static [Code] = &[$(Code::$code),*];

            /// The code's entry.
            pub fn entry(self) -> &'static Entry {
                match self {
                    $(Code::$code => {
                        const ENTRY: Entry = Entry {
                            code: Code::$code,
                            slug: $slug,
                            error: $error,
                            status: $status,
                            action: Action::$action,
                            sentence: $sentence,
                            cause: $cause,
                            confirm: $confirm,
                            mend: $mend,
                            clerk: &[$($($clerk),*)?],
                        };
                        &ENTRY
                    })*
                }
            }
        }
    };
}

impl Code {
    /// Whether it says that too much came at once, and nothing about the request.
    pub fn is_shed(self) -> bool {
        matches!(self, Self::Overloaded | Self::BodiesTooMany)
    }

    /// The code of that name.
    pub fn from_slug(slug: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|code| code.entry().slug == slug)
    }
}

catalogue! {
    // The request.
    BodyMalformed "body_malformed": 400 "invalid_request" FixRequest
        "The request body is not the JSON object that was expected."
        cause: "The body is not valid UTF-8 JSON, is no object, repeats a member, or a member has the wrong type."
        confirm: "Send the body through a JSON parser; the description names the place."
        mend: "Send one JSON object such as {\"session_token\": \"…\"} with `Content-Type: application/json`."
    CredentialMissing "credential_missing": 400 "invalid_request" FixRequest
        "The request carries no credential."
        cause: "None of `session_token`, `subject_token` or `session_id` is in the body, and there is no bearer token in the Authorization header. A `getToken()` that gave null is the usual reason."
        confirm: "Log whether the provider's SDK gave a token just before the call."
        mend: "Wait until the user is signed in, then send `{\"session_token\": await getToken()}`."
    SeveralCredentials "several_credentials": 400 "invalid_request" FixRequest
        "The request carries more than one credential."
        cause: "Two of `session_token`, `subject_token`, `session_id` and the Authorization header were sent. A bad one must never be rescued by a good one, so neither is looked at."
        confirm: "Look for an HTTP client that adds an Authorization header to each request."
        mend: "Send exactly one credential."
    ParameterMalformed "parameter_malformed": 400 "invalid_request" FixRequest
        "A parameter of the request is malformed."
        cause: "`app`, `audience`, `scope`, `code_verifier`, `subject_token_type`, `grant_type` or another parameter is empty, missing, repeated, too long, or has characters that it cannot have."
        confirm: "The description names the parameter."
        mend: "Correct the parameter."
    SubjectTokenTypeUnsupported "subject_token_type_unsupported": 400 "invalid_request" FixRequest
        "This `subject_token_type` is not one that can be exchanged here."
        cause: "`subject_token_type` names a kind of token other than a JWT, an ID token or an access token (RFC 8693 §3)."
        confirm: "Compare with urn:ietf:params:oauth:token-type:jwt, …:id_token and …:access_token."
        mend: "Send one of these, or leave `subject_token_type` out."
    SubjectTokenTooLarge "subject_token_too_large": 400 "invalid_request" FixRequest
        "The subject token is larger than 16 KiB."
        cause: "The token is longer than any that the service reads."
        confirm: "Measure the token's length in bytes."
        mend: "Take large custom claims out of the provider's token template."
    AppUnknown "app_unknown": 400 "invalid_request" FixRequest
        "There is no app of this name."
        cause: "`app` names an app that is not configured: a typing error, another environment, or a variable suffix (`CLERK_JWT_ISSUER_MOBILE` makes the app `mobile`) that is missing."
        confirm: "`exchequer check` lists the apps."
        mend: "Correct the name, or configure the app."
    AppRequired "app_required": 400 "invalid_request" FixRequest
        "Several apps would take this credential: say with `app` which one the token is for."
        cause: "More than one app trusts the token's issuer, or takes credentials of this kind, and the request names none."
        confirm: "`exchequer check` lists the apps and their issuers."
        mend: "Send `\"app\": \"NAME\"` with the exchange."
    AudienceNotAllowed "audience_not_allowed": 400 "invalid_target" FixRequest
        "The app may not ask for this audience."
        cause: "`audience` (or `resource`) is none of those configured for the app or the client, or a client asks for several at once."
        confirm: "`exchequer check` lists each app's audiences."
        mend: "Ask for one configured audience, or add it to the app's or the client's `audience`."
    SessionIdUnsupported "session_id_unsupported": 400 "invalid_request" FixRequest
        "Session ids are not accepted here: send a session token."
        cause: "The request carries a `session_id`, and the app (or every app) has `session_id = \"off\"`, or its Clerk issuer has no secret key with which the session could be looked up."
        confirm: "`exchequer check` lists the apps; look for `CLERK_SECRET_KEY`, or `secret_key` of the app's issuer."
        mend: "Send `session_token` (`getToken()` of the provider's SDK) instead; or set the issuer's secret key, and `session_id` of the app to fresh."

    // The form of the token.
    SubjectTokenMalformed "subject_token_malformed": 401 "invalid_token" FixRequest ["token-invalid"]
        "The subject token is not a well-formed JWT."
        cause: "It is not three base64url parts of JSON: cut off, quoted, with `Bearer ` in front, padded, with a repeated member, or no JWT at all."
        confirm: "Pipe it into `exchequer explain`; count the dots: there must be two."
        mend: "Send the token exactly as the provider's SDK gives it."
    SubjectTokenOpaque "subject_token_opaque": 401 "invalid_token" FixRequest
        "This is an opaque token, and no issuer here is configured to look such tokens up."
        cause: "The token has no dots: an OAuth access token (`oat_…`), an API key (`ak_…`), a machine token (`mt_…`) or a session id was sent in the place of a session token."
        confirm: "Look at the first letters of the token: a JWT begins with `eyJ`."
        mend: "Send the session token: `getToken()` of the provider's SDK."
    SubjectTokenEncrypted "subject_token_encrypted": 401 "invalid_token" FixConfig
        "The subject token is encrypted (JWE); only signed tokens (JWS) are accepted."
        cause: "The token has five parts. The provider encrypts the tokens of this application."
        confirm: "Its header has an `enc` member."
        mend: "Switch encryption off for this application at the provider."
    SubjectTokenHeaderUnsupported "subject_token_header_unsupported": 401 "invalid_token" FixConfig
        "The token's header asks for something that is never honoured."
        cause: "The header has `crit`, `b64`, `jwk`, `jku`, `x5u`, `x5c` or `zip`. A token may not bring its own key or change the rules of its own verification (RFC 8725 §3.10)."
        confirm: "Decode the header: `exchequer explain` names the member."
        mend: "Use the provider's ordinary tokens. A DPoP proof is not a subject token."
    SubjectTokenTypeMismatch "subject_token_type_mismatch": 401 "invalid_token" FixRequest ["token-type-mismatch"]
        "The token's `typ` is not one that this issuer's subject tokens have."
        cause: "Another kind of token of the same issuer was sent (a logout token, a security event, an access token where an ID token is expected)."
        confirm: "Decode the header and look at `typ`."
        mend: "Send the right token, or list the type in the issuer's `token_types`."

    // Whose it is.
    SubjectTokenIssuerMissing "subject_token_issuer_missing": 401 "invalid_token" FixRequest
        "The subject token has no `iss`."
        cause: "Without an issuer nobody can say whose keys would verify the token."
        confirm: "Decode the claims and look at `iss`: it must be a string."
        mend: "Send a token that the identity provider issued."
    SubjectTokenIssuerUntrusted "subject_token_issuer_untrusted": 401 "invalid_token" FixConfig
        "The subject token's issuer is not trusted here."
        cause: "`iss` is, byte for byte, none of the issuers of the app: another environment's instance, a trailing slash, http for https, or an app that does not list it."
        confirm: "`exchequer explain` shows the issuers that the app trusts and the nearest one."
        mend: "Correct `CLERK_JWT_ISSUER` or `[issuers.NAME] issuer`, or take the publishable key of the right environment in the app."
    SubjectTokenIsAppToken "subject_token_is_app_token": 401 "invalid_token" FixRequest
        "This is an app token already; it cannot be exchanged again."
        cause: "The token's `iss` is this service. An app token must not prolong itself."
        confirm: "Decode the claims: `iss` is this service's `EXCHEQUER_ISSUER`."
        mend: "Send the identity provider's token; call the backend with the app token."
    SubjectTokenIsRefreshToken "subject_token_is_refresh_token": 401 "invalid_token" FixRequest
        "This is a refresh token of this service; it is not exchanged, but used at the token endpoint."
        cause: "What was sent begins with `ert_`. It is shown to no provider."
        confirm: "Look at what the app sends: its own stored token, in the place of the provider's."
        mend: "Send it to POST /oauth/token as `refresh_token`, with `grant_type=refresh_token` and the app's name as `client_id`."

    // Access tokens, machine tokens and API keys.
    SubjectTokenKindNotAccepted "subject_token_kind_not_accepted": 401 "invalid_token" FixConfig
        "Tokens of this kind are not accepted here."
        cause: "The token is an OAuth access token, a machine token, an API key or a session token, and the issuer's `accepts` does not list that kind; or it does, and the credentials with which the provider could be asked are missing; or the token is opaque, and the app trusts no issuer of kind `introspection`."
        confirm: "`exchequer explain` says which kind the token is and which setting would take it."
        mend: "Add the kind (`oauth`, `m2m`, `api_key`, `session`) to the issuer's `accepts` and set `secret_key`, or `client_id` and `client_secret`; or send the session token instead."
    SubjectTokenInactive "subject_token_inactive": 401 "invalid_token" RefreshSubjectToken
        "The provider says that this token is not active."
        cause: "The provider was asked and does not know the token, or no longer: it expired, was revoked, was never issued, or is another instance's. Providers do not say which (RFC 7662 §2.2)."
        confirm: "Ask the provider's endpoint with the same token and the same credentials."
        mend: "Get a new token from the provider, and exchange that."
    SubjectTokenRevoked "subject_token_revoked": 401 "invalid_token" RefreshSubjectToken
        "This token has been revoked."
        cause: "The provider was asked and says that the access token, machine token or API key was revoked."
        confirm: "Look for the token or key in the provider's dashboard."
        mend: "Get a new token or key from the provider, and exchange that."
    SubjectTokenClientOnly "subject_token_client_only": 401 "invalid_token" FixRequest
        "This token stands for a client alone: it names no subject."
        cause: "The provider's answer has no `sub`: the token was issued to a client for itself (`client_credentials`), and there is nobody that an app token could be for."
        confirm: "Ask the introspection endpoint about the token and look for `sub`."
        mend: "Send a token that a user authorized. Where clients are subjects of their own, let the provider put `sub` into its answer."
    SubjectTokenSenderConstrained "subject_token_sender_constrained": 401 "invalid_token" FixConfig
        "This token is bound to a key of its client, which cannot be proved here."
        cause: "The token has `cnf`, or its `token_type` is `DPoP`: it is good only together with a proof (RFC 9449, RFC 8705) that an exchange does not carry."
        confirm: "Look for `cnf` and `token_type` in the introspection answer or the token's claims."
        mend: "Let the provider issue a bearer token for the exchange."

    // Its keys.
    SubjectTokenAlgorithmNotAllowed "subject_token_algorithm_not_allowed": 401 "invalid_token" FixConfig ["token-invalid-algorithm"]
        "The token's `alg` is not one that this issuer may sign with."
        cause: "`alg` is not on the issuer's list. `none` and the HMAC algorithms never are: their key would have to be shared."
        confirm: "Decode the header and look at `alg`; `exchequer check` shows the issuer's list."
        mend: "Add the algorithm to the issuer's `algorithms`, or sign with another one at the provider."
    SubjectTokenKeyIdMissing "subject_token_key_id_missing": 401 "invalid_token" FixConfig ["jwk-kid-mismatch"]
        "The token's header has no `kid`, so no key can be chosen."
        cause: "Keys are chosen by issuer and `kid`, never tried in turn. The token names none."
        confirm: "Decode the header and look for `kid`."
        mend: "Let the provider put `kid` in its tokens, or give the issuer's one key as `jwt_key` (`CLERK_JWT_KEY`)."
    SubjectTokenKeyUnknown "subject_token_key_unknown": 401 "invalid_token" RefreshSubjectToken ["jwk-kid-mismatch", "jwk-remote-missing", "jwk-failed-to-resolve"]
        "The issuer's key set has no key with the token's `kid`."
        cause: "The token was signed with a key that the issuer does not publish: it was withdrawn, the token comes from another instance, or it is forged. A key published a moment ago is found within a minute."
        confirm: "`exchequer doctor` lists the kids of each issuer."
        mend: "Fetch a fresh token. If that fails too, compare the instance of the app with the configured issuer."
    SubjectTokenKeyUnusable "subject_token_key_unusable": 401 "invalid_token" FixConfig ["jwk-remote-invalid"]
        "The issuer's key of that `kid` is not made for this algorithm."
        cause: "The key's own type, `alg`, `use` or `key_ops` disagrees with the token's `alg`, or the key is weak or malformed."
        confirm: "`exchequer doctor` says of each key why it is not used."
        mend: "Correct the key set at the provider, or the issuer's `algorithms`."
    SubjectTokenSignatureInvalid "subject_token_signature_invalid": 401 "invalid_token" FixRequest ["token-invalid-signature"]
        "The token's signature does not verify with the issuer's key of that `kid`."
        cause: "The token was changed on its way (cut off, re-encoded, pieced together) or signed with another key."
        confirm: "Compare SHA-256 of the token where it is made with the one that `exchequer explain` shows."
        mend: "Send the token untouched. If the bytes are the same, the provider's key was replaced under the same `kid`: ask there. If only a library of yours refuses the token and `explain` accepts it, the library mixes up keys of several issuers."

    // What it says.
    SubjectTokenClaimMissing "subject_token_claim_missing": 401 "invalid_token" FixConfig ["token-verification-failed"]
        "The token lacks a claim that every subject token must have."
        cause: "`sub` or `exp` is absent: a token template that leaves them out, or a token of another kind."
        confirm: "Decode the claims; the description names the missing one."
        mend: "Correct the provider's token template."
    SubjectTokenClaimMalformed "subject_token_claim_malformed": 401 "invalid_token" FixConfig ["token-verification-failed"]
        "A claim of the token has the wrong type or an impossible value."
        cause: "A registered claim is not what RFC 7519 says: a time that is no number, a subject that is no string, an actor chain that is too deep."
        confirm: "Decode the claims; the description names the claim."
        mend: "Correct the provider's token template."
    SubjectTokenAudienceMissing "subject_token_audience_missing": 401 "invalid_token" FixConfig ["token-verification-failed"]
        "The token has no `aud`, and this issuer's tokens must have one."
        cause: "An audience is configured for the issuer (`CLERK_JWT_AUDIENCE`), but the token carries none. Clerk's session tokens have no `aud` unless a claim adds it."
        confirm: "Decode the claims and look for `aud`."
        mend: "Either add `\"aud\": \"…\"` to the session token at the provider (Clerk: Sessions → Customize session token), or remove the configured audience and set the authorized parties instead."
    SubjectTokenAudienceMismatch "subject_token_audience_mismatch": 401 "invalid_token" FixConfig ["token-verification-failed"]
        "The token's `aud` is none of this issuer's configured audiences."
        cause: "The token was made for another application of the same issuer, or the configured audience is another environment's."
        confirm: "`exchequer explain` shows both."
        mend: "Ask the provider for a token with the right audience, or correct the issuer's `audiences`."
    SubjectTokenAuthorizedPartyMissing "subject_token_authorized_party_missing": 401 "invalid_token" FixConfig ["token-invalid-authorized-parties"]
        "The token has no `azp`, and this issuer's tokens must have one."
        cause: "Authorized parties are configured (`CLERK_AUTHORIZED_PARTIES`), but the token carries no `azp`. Clerk puts the front end's origin there; native apps have none."
        confirm: "Decode the claims and look for `azp`."
        mend: "Make an app of its own without authorized parties for native clients, or remove the setting."
    SubjectTokenAuthorizedPartyMismatch "subject_token_authorized_party_mismatch": 401 "invalid_token" FixConfig ["token-invalid-authorized-parties"]
        "The token's `azp` is none of this issuer's authorized parties."
        cause: "The token was made for a front end of another origin: a preview deployment, another port, with or without www."
        confirm: "`exchequer explain` shows both."
        mend: "Add the origin to `CLERK_AUTHORIZED_PARTIES` or the issuer's `authorized_parties`."
    SubjectTokenExpired "subject_token_expired": 401 "invalid_token" RefreshSubjectToken ["token-expired"]
        "The subject token expired."
        cause: "`exp` has passed. Clerk's session tokens live 60 seconds; a token kept in a variable is the usual reason."
        confirm: "Compare `seen.exp` with the time of the call."
        mend: "Fetch a fresh token just before the exchange: `getToken({ skipCache: true })`."
    SubjectTokenNotYetValid "subject_token_not_yet_valid": 401 "invalid_token" Retry ["token-not-active-yet"]
        "The subject token is not valid yet."
        cause: "`nbf` is in the future: the issuer's clock is ahead of this service's."
        confirm: "`exchequer doctor` compares the clocks."
        mend: "Correct the clock of this machine (NTP), or raise the issuer's `clock_skew`."
    SubjectTokenIssuedInFuture "subject_token_issued_in_future": 401 "invalid_token" Retry ["token-iat-in-the-future"]
        "The subject token was issued in the future."
        cause: "`iat` is later than now: the issuer's clock is ahead of this service's."
        confirm: "`exchequer doctor` compares the clocks."
        mend: "Correct the clock of this machine (NTP), or raise the issuer's `clock_skew`."
    SubjectTokenLifetimeExcessive "subject_token_lifetime_excessive": 401 "invalid_token" FixConfig
        "The subject token's lifetime is longer than this issuer's tokens may live."
        cause: "`exp` lies further from `iat` (or from now, without `iat`) than the issuer's `max_lifetime`, 24 hours unless set."
        confirm: "Decode the claims and subtract `iat` from `exp`."
        mend: "Shorten the lifetime at the provider (Clerk: JWT template → token lifetime), or raise `max_lifetime`."
    SessionPending "session_pending": 403 "access_denied" SignIn
        "The session is pending: the user has not finished signing in."
        cause: "Clerk's `sts` is `pending`: a task is open, such as choosing an organisation or setting up a second factor."
        confirm: "Decode the claims and look at `sts`; in the app, `session.currentTask` names the task."
        mend: "Let the user finish the task, then exchange a fresh token."
    ConditionNotMet "condition_not_met": 403 "access_denied" FixConfig
        "The app's condition does not admit this subject."
        cause: "The app's `condition` evaluated to false for these claims."
        confirm: "`exchequer explain --app NAME` shows the condition and the claims."
        mend: "Give the user what the condition asks for, or change the condition."
    ExpressionFailed "expression_failed": 403 "access_denied" FixConfig
        "An expression of the app's policy could not be evaluated for this subject."
        cause: "`subject`, `condition` or one of `claims` reads a claim that this token lacks, or gives a value of the wrong type."
        confirm: "`exchequer explain --app NAME` names the expression and the error."
        mend: "Guard the expression: `has(claims.x) ? claims.x : \"\"`."

    // What has been revoked.
    SessionRevoked "session_revoked": 401 "invalid_token" SignIn
        "The session has ended."
        cause: "The user signed out, or the session was revoked or removed: the provider said so by a webhook or when it was asked. Tokens of that session are refused from then on, whatever their `exp`."
        confirm: "Look at the session in the provider's dashboard."
        mend: "Sign the user in again."
    UserDeleted "user_deleted": 401 "invalid_token" SignIn
        "The user no longer exists."
        cause: "The provider told by a webhook that the user was deleted, or does not know the user when asked for a profile."
        confirm: "Look for the user in the provider's dashboard."
        mend: "Sign in as another user."
    OrganizationDeleted "organization_deleted": 401 "invalid_token" RefreshSubjectToken
        "The organisation no longer exists."
        cause: "The provider told by a webhook that the organisation was deleted that the token acts for."
        confirm: "Look for the organisation in the provider's dashboard."
        mend: "Choose another organisation, or none, in the provider's SDK, ask it for a new token, past its cache (`getToken({ skipCache: true })`), and exchange that."
    MembershipChanged "membership_changed": 401 "invalid_token" RefreshSubjectToken
        "The user's membership in the organisation changed after this token was issued."
        cause: "The provider told by a webhook that the membership was deleted, or that its role changed. A token from before says what no longer holds."
        confirm: "Compare the token's `iat` with the time of the change in the provider's dashboard."
        mend: "Ask the provider's SDK for a new token, past its cache (`getToken({ skipCache: true })`), and exchange that."

    TokenRevoked "token_revoked": 401 "invalid_token" RefreshSubjectToken
        "The app token was revoked."
        cause: "Its client revoked it at POST /oauth/revoke (RFC 7009): usually a sign-out. Tokens that were minted before or after it are not touched."
        confirm: "Look for the token's `jti` in the log's `revoked` lines."
        mend: "Exchange again, where the user is still signed in."

    // At the gate.
    BearerMissing "bearer_missing": 401 "invalid_token" SignIn
        "The request carries no bearer token."
        cause: "There is no Authorization header, and no session cookie where the app looks at one. A gateway that does not pass the header on is the usual reason."
        confirm: "Send the request to the gateway with `Authorization: Bearer …` and look whether the gateway hands the header to /auth/verify."
        mend: "Sign in, exchange the session token at /auth/exchange, and send the app token as `Authorization: Bearer …`."
    BearerMalformed "bearer_malformed": 401 "invalid_token" FixRequest
        "The Authorization header is not `Bearer` and one token, once."
        cause: "Another scheme than Bearer and DPoP (Basic, perhaps), no token after the scheme, spaces or commas in it, or more than one Authorization header. A bad header is never rescued by a cookie."
        confirm: "Look at the Authorization header of the request, without writing the token down."
        mend: "Send exactly one `Authorization: Bearer TOKEN`."
    SessionCookieAmbiguous "session_cookie_ambiguous": 401 "invalid_token" SignIn
        "The request carries more than one session cookie `__session`."
        cause: "Cookies of one name for several paths or domains of the site: a neighbouring subdomain set one, by mistake or to put its own session in the place of the user's."
        confirm: "List the cookies of the site in the browser's developer tools: name, domain and path."
        mend: "Delete the cookie that the sign-in did not set, and find out who sets it."
    AppTokenMalformed "app_token_malformed": 401 "invalid_token" FixRequest
        "The bearer is not a well-formed app token."
        cause: "It is not three base64url parts of JSON, has a header that no app token has, or is larger than 16 KiB: cut off, quoted, or no JWT at all. Opaque tokens and session ids are exchanged first."
        confirm: "Count the dots: there must be two. Decode the header: it has alg, kid and typ, and nothing else."
        mend: "Send `token` exactly as /auth/exchange gave it."
    AppTokenTypeMismatch "app_token_type_mismatch": 401 "invalid_token" RefreshSubjectToken
        "The bearer's `typ` is not the one of the app's tokens."
        cause: "Another kind of token of this service, or the app's `typ` was changed after the token was minted."
        confirm: "Decode the header and compare `typ` with the app's."
        mend: "Exchange the session token again."
    AppTokenKeyUnknown "app_token_key_unknown": 401 "invalid_token" RefreshSubjectToken
        "The bearer's `kid` names none of this service's published keys."
        cause: "The key was revoked or has ended, the token was minted by another environment, or it is forged."
        confirm: "`exchequer keys list` shows the published keys."
        mend: "Exchange the session token again. If that fails too, compare `EXCHEQUER_ISSUER` of both environments: no two may have the same."
    AppTokenAlgorithmMismatch "app_token_algorithm_mismatch": 401 "invalid_token" FixRequest
        "The bearer's `alg` is not that of the key that its `kid` names."
        cause: "Each of this service's keys signs with one algorithm. The header was changed: `none` or an HMAC algorithm is an attempt at forgery."
        confirm: "Decode the header; compare with the key of that `kid` in /.well-known/jwks.json."
        mend: "Send the token untouched."
    AppTokenSignatureInvalid "app_token_signature_invalid": 401 "invalid_token" FixRequest
        "The bearer's signature does not verify with the key that its `kid` names."
        cause: "The token was changed on its way, or forged."
        confirm: "Compare SHA-256 of the token where it was given out with the one that arrives."
        mend: "Send the token untouched."
    AppTokenClaimUnusable "app_token_claim_unusable": 401 "invalid_token" FixConfig
        "A claim of the app token has a type that no identity header can say."
        cause: "The app's `claims` put something else than texts in the place of `org_id`, `roles`, `scope` or `permissions`."
        confirm: "Decode the token; the log names the claim."
        mend: "Let the app's `claims` give a text for `org_id` and a list of texts for `roles`, or name its own claim otherwise."
    AppTokenAppUnknown "app_token_app_unknown": 401 "invalid_token" FixConfig
        "The token was not minted for any app or client that is configured."
        cause: "`client_id` of the token names no app, or, of a service token, no client: it was renamed or removed."
        confirm: "`exchequer check` lists the apps and the clients."
        mend: "Configure the app or the client, or get a token for another one."
    ServiceTokenNotTaken "service_token_not_taken": 401 "invalid_token" FixConfig
        "The bearer is a service token, of a client and no user: the gateway takes one where it asks with the token's audience and no app."
        cause: "A service token has no user. A gateway that names an app, or no audience, asks for users, and its backend would get an empty X-User-ID."
        confirm: "Decode the token: it has no `idp`. Look at the query with which the gateway asks."
        mend: "Where clients may call too, let the gateway ask `/auth/verify?audience=AUDIENCE` without `app`, and let the backend look at X-Client-ID; else exchange a user's token and send the app token."
    AppTokenAppMismatch "app_token_app_mismatch": 401 "invalid_token" FixRequest
        "The bearer was minted for another app than the one that is called."
        cause: "The gateway demands an app (`/auth/verify?app=…`), and the token's `client_id` is another."
        confirm: "Decode the token and compare `client_id` with the gateway's configuration."
        mend: "Exchange for the right app: `{\"app\": \"NAME\", …}`."
    AppTokenAudienceMismatch "app_token_audience_mismatch": 401 "invalid_token" FixRequest
        "The bearer is not meant for this audience."
        cause: "The token's `aud` is none of its app's audiences, or not the one that the gateway demands (`/auth/verify?audience=…`)."
        confirm: "Decode the token and compare `aud` with the gateway's configuration."
        mend: "Exchange for the right audience: `{\"audience\": \"…\", …}`."
    AppTokenExpired "app_token_expired": 401 "invalid_token" RefreshSubjectToken
        "The app token expired."
        cause: "Its `exp` has passed. App tokens live for minutes, and are exchanged anew."
        confirm: "Compare `exp` with the time."
        mend: "Exchange the session token again, `expires_in` seconds after the last time or on this code."
    AppTokenNotYetValid "app_token_not_yet_valid": 401 "invalid_token" Retry
        "The app token is not valid yet."
        cause: "Its `nbf` lies ahead: the clock of this machine is more than ten seconds behind the one that minted it."
        confirm: "`exchequer doctor` compares the clock with the provider's."
        mend: "Synchronise the clocks of the machines (NTP)."
    PassThroughNotAllowed "pass_through_not_allowed": 401 "invalid_token" FixRequest
        "The identity provider's own token is not accepted here: exchange it first."
        cause: "The bearer is a token of an issuer that the app trusts, but the app does not let such tokens through (`verify.pass_through`), or only their issuer can read them (`kind = \"introspection\"`)."
        confirm: "Decode the token: `iss` is the provider's, not this service's."
        mend: "Exchange it at /auth/exchange and send the app token, or, for a token that its issuer signs, set `[apps.NAME.verify] pass_through = true`."
    InsufficientScope "insufficient_scope": 403 "insufficient_scope" FixRequest
        "The token lacks a scope that this call needs."
        cause: "The gateway demands scopes (`/auth/verify?scope=…`), and the token was granted fewer: less was asked for, or policy grants less."
        confirm: "Compare `scope` of the token with `scope` of the challenge in WWW-Authenticate."
        mend: "Ask for the scope in the exchange; if it is not granted, see `[apps.NAME.scopes]`."
    OriginalRequestUnknown "original_request_unknown": 400 "invalid_request" FixConfig
        "The gateway does not say, or says twice, which request it asks about."
        cause: "The app's identity headers are signed, and the signature covers the original method and path: they are expected once each in X-Original-Method and X-Original-URI, or in X-Forwarded-Method and X-Forwarded-Uri, never in both pairs."
        confirm: "Look at the gateway's configuration for the call to /auth/verify."
        mend: "Set one of the pairs, and take the other one out of the client's request. See the examples."

    // Tokens that are bound to a key (DPoP).
    DpopProofMissing "dpop_proof_missing": 400 "invalid_dpop_proof" FixRequest
        "A DPoP proof is needed here, and there is none."
        cause: "The app has `dpop = \"required\"`, or what was sent is bound to a key (a DPoP-bound app token or refresh token), and the request has no `DPoP` header. At /auth/verify the answer is 401, as for all codes of this section."
        confirm: "Look for `[apps.NAME] dpop`, and for `cnf` in the token's claims."
        mend: "Sign a proof for each request with the client's key and send it in the `DPoP` header (RFC 9449 §4); a gateway must pass the header on."
    DpopProofMalformed "dpop_proof_malformed": 400 "invalid_dpop_proof" FixRequest
        "The DPoP proof is malformed."
        cause: "There is more than one `DPoP` header, or it is no JWT of at most 4 KiB with `typ` dpop+jwt and the claims `jti`, `htm`, `htu` and `iat`; or its header asks for something that is never honoured."
        confirm: "The description says what is wrong. Decode the proof and compare it with RFC 9449 §4.2."
        mend: "Let a library make the proof, a new one for each request."
    DpopProofAlgorithmNotAllowed "dpop_proof_algorithm_not_allowed": 400 "invalid_dpop_proof" FixRequest
        "The DPoP proof is signed with an algorithm that is not allowed."
        cause: "`alg` is none of ES256, EdDSA, Ed25519, RS256 and PS256."
        confirm: "Decode the proof's header and look at `alg`."
        mend: "Use ES256: every platform has it."
    DpopProofKeyUnusable "dpop_proof_key_unusable": 400 "invalid_dpop_proof" FixRequest
        "The key in the DPoP proof cannot be used."
        cause: "`jwk` is missing or no public key; it holds a private or symmetric key; it does not fit `alg`; or it is weak (RSA below 2048 bits, a point off its curve or of small order)."
        confirm: "Decode the proof's header and look at `jwk`: of an EC key there are kty, crv, x and y."
        mend: "Export the public half alone. A private key that was sent is known to others now: make a new one."
    DpopProofSignatureInvalid "dpop_proof_signature_invalid": 400 "invalid_dpop_proof" FixRequest
        "The DPoP proof's signature does not verify with the key in its header."
        cause: "The proof was changed on its way, or signed with another key than the one in `jwk`."
        confirm: "Verify the proof with the `jwk` of its own header."
        mend: "Sign with the private half of the key that `jwk` shows. An ECDSA signature is the 64 bytes of r and s, not DER (RFC 7518 §3.4)."
    DpopProofRequestMismatch "dpop_proof_request_mismatch": 400 "invalid_dpop_proof" FixRequest
        "The DPoP proof was made for another request."
        cause: "`htm` is not the request's method, or `htu` is not its address: for the exchange and the token endpoint EXCHEQUER_ISSUER and the path; at /auth/verify one of the app's `verify.origins` and the path of the request that the gateway asks about."
        confirm: "The description says which of the two; compare it with the address that the client calls."
        mend: "Make the proof for the public address, without query and fragment. If that is what the client does, correct EXCHEQUER_ISSUER, `verify.origins`, or what the gateway says of the original request."
    DpopProofExpired "dpop_proof_expired": 400 "invalid_dpop_proof" FixRequest
        "The DPoP proof is too old, or from the future."
        cause: "`iat` lies more than 60 seconds back or more than 10 ahead: a proof was used again, or the client's clock is wrong."
        confirm: "Compare `iat` with the time of the `Date` header in the answer."
        mend: "Make a new proof for each request. Where clients' clocks cannot be trusted, set `dpop_nonce = true`: then the nonce tells the time."
    DpopNonceRequired "dpop_nonce_required": 400 "use_dpop_nonce" FixRequest
        "The DPoP proof needs the nonce of the answer's `DPoP-Nonce` header."
        cause: "The app has `dpop_nonce = true`, and the proof has no `nonce`, or one that is too old or another server's. The first request of a client always meets this."
        confirm: "Look at the `DPoP-Nonce` header of the answer."
        mend: "Make a new proof with that nonce and send the request again (RFC 9449 §8); libraries do it by themselves."
    DpopProofUsed "dpop_proof_used": 400 "invalid_dpop_proof" FixRequest
        "This DPoP proof was used before."
        cause: "A request was sent twice with one proof: by a retry, by a gateway that asks twice, or by somebody who took it."
        confirm: "Look for the same `jti` in the client's requests."
        mend: "Make a new proof for each request, also for a retry."
    DpopProofTokenMismatch "dpop_proof_token_mismatch": 400 "invalid_dpop_proof" FixRequest
        "The DPoP proof was made for another access token, or for none."
        cause: "`ath` is not the hash of the token in the Authorization header."
        confirm: "Compare `ath` with the base64url of the token's SHA-256."
        mend: "Give the access token to the library that makes the proof (RFC 9449 §4.2)."
    DpopKeyMismatch "dpop_key_mismatch": 400 "invalid_dpop_proof" FixRequest
        "The DPoP proof is by another key than the one that the token is bound to."
        cause: "The client made a new key pair and kept the old tokens, or somebody shows a token that is not theirs."
        confirm: "Compare the thumbprint of the proof's `jwk` (RFC 7638) with `cnf.jkt` of the token."
        mend: "Keep the key as long as its tokens; with a new key, exchange or sign in again."
    DpopProofsTooMany "dpop_proofs_too_many": 503 "temporarily_unavailable" Retry
        "Too many DPoP proofs are remembered right now."
        cause: "A million proofs were used at /auth/verify within the time in which each could be used again: somebody floods it with a good token."
        confirm: "Look at the rate of /auth/verify in the metrics, and for one user in the gateway's log."
        mend: "Limit each user at the gateway by X-Rate-Limit-Key; or run more replicas."
    AppTokenBound "app_token_bound": 401 "invalid_token" FixRequest
        "The app token is bound to a key: it is no bearer token."
        cause: "A DPoP-bound token (`cnf`) was sent as `Authorization: Bearer` (RFC 9449 §7.2)."
        confirm: "Decode the token and look for `cnf`."
        mend: "Send `Authorization: DPoP` and the token, and a proof in the `DPoP` header."
    AppTokenNotBound "app_token_not_bound": 401 "invalid_token" FixRequest
        "The token is bound to no key."
        cause: "A bearer token was sent as `Authorization: DPoP`; or the app has `dpop = \"required\"`, and the token is from before."
        confirm: "Decode the token: it has no `cnf`."
        mend: "Exchange with a `DPoP` header, and use the token that comes with `token_type` DPoP. Where the app needs no bound tokens, send it as `Bearer`."

    // Whom we ask.
    ProviderUnavailable "provider_unavailable": 503 "temporarily_unavailable" Retry
        "The identity provider's API cannot be asked right now."
        cause: "The provider's API did not answer in time, answered 5xx, or with something that is no JSON. After several failures in a row it is not asked for a while, and requests that need it are refused at once."
        confirm: "The log line has the cause; `exchequer doctor` asks the API."
        mend: "Try again after `Retry-After`. Exchanges of session tokens do not need the API."
    ProviderRateLimited "provider_rate_limited": 503 "temporarily_unavailable" Retry
        "The identity provider limits how often its API may be asked."
        cause: "The provider's API answered 429."
        confirm: "The log line has the cause; the provider's dashboard shows the limit."
        mend: "Try again after `Retry-After`; exchange session tokens where the app can, for these need no API."
    ProviderCredentialsInvalid "provider_credentials_invalid": 503 "temporarily_unavailable" FixConfig
        "The identity provider refuses this service's own credentials."
        cause: "The secret key (or the OAuth client id and secret) of this service at the provider is wrong, revoked, or another instance's."
        confirm: "`exchequer doctor` asks the provider with each credential."
        mend: "Set CLERK_SECRET_KEY (or the issuer's `secret_key`, `client_id` and `client_secret`) to what the provider's dashboard shows for this instance."
    StoreUnavailable "store_unavailable": 503 "temporarily_unavailable" Retry
        "The service's store cannot be asked right now."
        cause: "What must be remembered (revocations, used session ids) could not be read or written: a full or broken disk."
        confirm: "The log line has the cause."
        mend: "Free the disk, or mend what EXCHEQUER_STORE names; then try again."

    // What an app wants to know of a user beside the token.
    ProfileUnavailable "profile_unavailable": 503 "temporarily_unavailable" Retry
        "The user's profile cannot be fetched from the identity provider right now."
        cause: "The app asks for a profile, nothing of this user is kept yet, and the provider's Backend API did not answer in time, answered 5xx, or with something else than was asked for."
        confirm: "The log line has the cause; `exchequer doctor` asks the API."
        mend: "Try again after `Retry-After`. Users whose profile is kept are not affected; an app that needs none can do without `[apps.NAME.profile]`."

    // What webhooks bring.
    WebhookUnknown "webhook_unknown": 404 "invalid_request" FixConfig
        "No webhooks are taken at this path."
        cause: "The last part of the path names no app, or none of the app's Clerk issuers has a webhook secret."
        confirm: "The log line says which of the two; `exchequer check` lists the apps."
        mend: "Set CLERK_WEBHOOK_SECRET (or the issuer's `webhook_secret`) to the signing secret that the provider's dashboard shows for this endpoint, and let the endpoint's URL end in the app's name: /webhooks/clerk/default."
    WebhookHeadersMissing "webhook_headers_missing": 400 "invalid_request" FixRequest
        "The three headers of a signed webhook are not all there, once each."
        cause: "`svix-id`, `svix-timestamp` or `svix-signature` (or its `webhook-` twin) is missing, repeated or malformed: a proxy that drops unknown headers, or a request that the provider did not send."
        confirm: "The description names the header; compare with the attempt in the provider's dashboard."
        mend: "Let the proxy pass the headers on unchanged."
    WebhookTimestampInvalid "webhook_timestamp_invalid": 400 "invalid_request" FixConfig
        "The webhook was sent more than 5 minutes from now."
        cause: "This machine's clock is wrong, a proxy held the request back, or somebody repeats a request that was recorded. The provider dates each attempt anew."
        confirm: "`exchequer doctor` compares the clocks; the description says by how much the times differ."
        mend: "Correct the clock of this machine (NTP). The provider tries again by itself."
    WebhookSignatureInvalid "webhook_signature_invalid": 400 "invalid_request" FixConfig
        "The webhook was not signed with any secret of this app."
        cause: "The secret is another endpoint's (each endpoint has its own), another instance's, or was rotated; or a proxy changed the body on its way."
        confirm: "The log line names the issuers whose secrets were tried. Compare them with the endpoint's signing secret in the provider's dashboard."
        mend: "Set CLERK_WEBHOOK_SECRET (or the issuer's `webhook_secret`) to the endpoint's signing secret; while it is being rotated, list both."
    WebhookBodyMalformed "webhook_body_malformed": 400 "invalid_request" FixRequest
        "The webhook is well signed, but its body is not the event that was expected."
        cause: "The body is no JSON object with `type` and `data`, or an event that revokes something lacks the id of it."
        confirm: "The description names the member; compare with the attempt in the provider's dashboard."
        mend: "Report it with the event's type: nothing was revoked by it."
    // Session ids.
    SessionIdMalformed "session_id_malformed": 400 "invalid_request" FixRequest
        "The `session_id` is not the id of a session."
        cause: "A session id is `sess_` and ASCII letters and digits, at most 64 bytes. A token, a client id or an id with something around it was sent."
        confirm: "Look at the body of the request."
        mend: "Send the id as the provider gives it: `createdSessionId`, or `sid` of a session token."
    CodeVerifierMissing "code_verifier_missing": 400 "invalid_request" FixRequest
        "This app exchanges a session id only with a `code_verifier`."
        cause: "The app has `code_verifier = true`, and the request carries none."
        confirm: "Look at the body of the request."
        mend: "Send the verifier whose S256 challenge the app wrote into the user's `unsafe_metadata.code_challenge` at sign-in."
    CodeVerifierMismatch "code_verifier_mismatch": 401 "invalid_token" SignIn
        "The `code_verifier` is not the one that was bound at sign-in."
        cause: "Its S256 (RFC 7636 §4.6: base64url of SHA-256, no padding) is not in the user's `unsafe_metadata.code_challenge`: nothing was written there, another device has overwritten it, or the list has more than ten entries."
        confirm: "Look at the user's unsafe metadata in the provider's dashboard."
        mend: "Make a verifier for each sign-in, write its challenge into `unsafe_metadata.code_challenge` (a text, or a list of at most ten, one a device), then exchange."
    SessionIdStale "session_id_stale": 401 "invalid_token" RefreshSubjectToken
        "The session is not fresh: its id alone no longer proves enough."
        cause: "An id names a session and proves nothing, so it is taken only within two minutes after the session was created or last used. An id was kept, or this machine's clock is wrong."
        confirm: "Compare the session's last activity in the provider's dashboard with the time of the call; `exchequer doctor` compares the clocks."
        mend: "Exchange the id right after signing in; later send `session_token` (`getToken()` of the provider's SDK)."
    SessionIdUsed "session_id_used": 401 "invalid_token" RefreshSubjectToken
        "This session id was exchanged before."
        cause: "A session id is exchanged once, so that one that was seen in a log or a URL is worth nothing. The same sign-in was exchanged twice, or somebody else was faster."
        confirm: "Look for an earlier exchange in the log; look for a retry in the app."
        mend: "Send `session_token` (`getToken()` of the provider's SDK). If nobody of yours exchanged it, revoke the session."
    SessionNotFound "session_not_found": 401 "invalid_token" SignIn
        "There is no such session."
        cause: "The provider's instance knows no session of this id: it is invented, too old, or of another app's instance."
        confirm: "Look for the session in the provider's dashboard."
        mend: "Sign the user in again; compare the publishable key of the front end with this service's issuer."
    SessionEnded "session_ended": 401 "invalid_token" SignIn
        "The session has ended: the user signed out."
        cause: "The session's status at the provider is `ended`."
        confirm: "Look at the session in the provider's dashboard."
        mend: "Sign the user in again."
    SessionExpired "session_expired": 401 "invalid_token" SignIn
        "The session has expired."
        cause: "The session reached the end of the lifetime that the provider's instance gives its sessions."
        confirm: "Look at the session in the provider's dashboard."
        mend: "Sign the user in again."
    SessionRemoved "session_removed": 401 "invalid_token" SignIn
        "The session was removed from its client."
        cause: "The session's status at the provider is `removed`: the user signed out of this account."
        confirm: "Look at the session in the provider's dashboard."
        mend: "Sign the user in again."
    SessionReplaced "session_replaced": 401 "invalid_token" SignIn
        "The session was replaced by a newer one."
        cause: "The session's status at the provider is `replaced`: the user signed in again on the same client."
        confirm: "Look at the client's sessions in the provider's dashboard."
        mend: "Exchange the newer session."
    SessionAbandoned "session_abandoned": 401 "invalid_token" SignIn
        "The session was abandoned."
        cause: "The session's status at the provider is `abandoned`: the client was away for too long."
        confirm: "Look at the session in the provider's dashboard."
        mend: "Sign the user in again."
    SessionStatusUnknown "session_status_unknown": 401 "invalid_token" SignIn
        "The session is in a state that is not known here."
        cause: "The session's status at the provider is none that this version knows; only active sessions are exchanged."
        confirm: "The log line has the status."
        mend: "Sign the user in again, or update this service."
    ProviderInstanceMismatch "provider_instance_mismatch": 503 "temporarily_unavailable" FixConfig
        "This service's secret key and its issuer belong to two different instances of the provider."
        cause: "The keys that the Backend API shows for the secret key are none of the issuer's: CLERK_SECRET_KEY is of another environment (`sk_test_…` with a live issuer) or of another app."
        confirm: "`exchequer doctor` compares each secret key with its issuer; the log names both."
        mend: "Take the secret key and the issuer (or the publishable key) from one page of the provider's dashboard."
    ProviderRequestRefused "provider_request_refused": 503 "temporarily_unavailable" FixConfig
        "The identity provider's API refuses the request that this service makes."
        cause: "The provider's API answered 4xx, and neither the credential nor this service's key is the reason: usually an `api_version` (`CLERK_API_VERSION`) or an `api_url` that is not Clerk's."
        confirm: "The log line has the status and the provider's own code."
        mend: "Remove `api_version` and `api_url`, or correct them."

    // Too often.
    RateLimited "rate_limited": 429 "rate_limited" Retry
        "Too many requests."
        cause: "This subject or this address asked more often than EXCHEQUER_RATE_LIMIT allows. A refused request counts for more than one."
        confirm: "The RateLimit headers say which limit was reached and when it allows more."
        mend: "Wait as long as `Retry-After` says. An app should keep its token until shortly before it expires."

    // Clients of ours, at the token endpoint.
    GrantTypeUnsupported "grant_type_unsupported": 400 "unsupported_grant_type" FixRequest
        "This `grant_type` is none of those that there are here."
        cause: "`grant_type` is unknown, or nobody here can use it: `client_credentials` needs a client with an `audience`, `refresh_token` an app with `refresh`."
        confirm: "`grant_types_supported` in /.well-known/oauth-authorization-server lists those that there are."
        mend: "Send `grant_type=client_credentials`. A user's token is exchanged at POST /auth/exchange."
    ClientAuthenticationMissing "client_authentication_missing": 401 "invalid_client" FixRequest
        "The request does not say which client it is from, or does not prove it."
        cause: "There is neither an `Authorization: Basic` header nor `client_id` and `client_secret` in the form, or the header is of another scheme or malformed."
        confirm: "Look at the request's headers and body; an empty variable in the client's configuration is the usual reason."
        mend: "Send the client's id and secret in the one or the other way (RFC 6749 §2.3.1), or an assertion (RFC 7523 §2.2)."
    ClientAuthenticationFailed "client_authentication_failed": 401 "invalid_client" FixConfig
        "The client is unknown, or does not prove to be itself."
        cause: "No client has this id, its secret is another, its assertion does not verify with its key, or it authenticates by another method than its own. Strangers are not told which; the log line's `cause` says it, beginning with one of the codes `client_unknown`, `client_secret_wrong`, `client_auth_method_mismatch`, `client_keys_unavailable` and `client_assertion_…`."
        confirm: "Look for the request id in the log; `exchequer clients list` lists the clients; pipe an assertion into `exchequer explain`."
        mend: "Give the client the id and the secret that are configured here: the secret's text as it stands, without a line's end. A client with a `jwks_uri` whose assertions were good before may send a new one a minute later: perhaps its keys could not be fetched."
    ClientAssertionMalformed "client_assertion_malformed": 401 "invalid_client" FixRequest
        "The client assertion is not a well-formed JWT for this purpose."
        cause: "The assertion is cut off, or not a JWT; its header asks for what is never honoured; `iss` and `sub` are not the client both; a claim is missing or of the wrong type; or `client_assertion_type` is another."
        confirm: "The description says what is wrong; `exchequer explain` shows every check."
        mend: "Make the assertion as RFC 7523 §3 wants it: `iss` and `sub` the client's id, `aud` this server, `exp`, `jti`."
    ClientAssertionExpired "client_assertion_expired": 401 "invalid_client" FixRequest
        "The client assertion expired."
        cause: "Its `exp` has passed: an assertion was generated once and pasted into a configuration, instead of being made for each request; or a clock is wrong."
        confirm: "Decode the claims and compare `exp` with the time of the call."
        mend: "Make a new assertion for each request, with an `exp` at most a minute or two ahead (RFC 7523 §3)."
    ClientAssertionTooLong "client_assertion_lifetime_too_long": 401 "invalid_client" FixRequest
        "The client assertion lives too long."
        cause: "Its `exp` is more than an hour ahead. Whoever finds such an assertion could use it for as long."
        confirm: "Decode the claims and compare `exp` with the time of the call."
        mend: "Make a new assertion for each request, with an `exp` at most a minute or two ahead (RFC 7523 §3)."
    ClientAssertionNotYetValid "client_assertion_not_yet_valid": 401 "invalid_client" FixRequest
        "The client assertion is not valid yet."
        cause: "Its `nbf` or `iat` is in the future by more than 10 s: the client's clock is ahead."
        confirm: "Compare the client's clock with the `Date` header of the answer."
        mend: "Set the client's clock by NTP."
    ClientAssertionAudienceMismatch "client_assertion_audience_mismatch": 401 "invalid_client" FixRequest
        "The client assertion is for another audience."
        cause: "`aud` is missing, or is not, byte for byte, this server's issuer identifier or the URL of its token endpoint: another host, a trailing slash, http for https. A list may hold nothing else."
        confirm: "Decode the claims and compare `aud` with `issuer` in /.well-known/oauth-authorization-server."
        mend: "Set `aud` to that `issuer` (draft-ietf-oauth-rfc7523bis; FAPI 2.0 Security Profile §5.3.2.1); EXCHEQUER_ISSUER is what it must be."
    ClientAssertionIdMissing "client_assertion_jti_missing": 401 "invalid_client" FixRequest
        "The client assertion has no id."
        cause: "There is no `jti`: an assertion is used once, and known by it."
        confirm: "Decode the claims."
        mend: "Set `jti` to a new random text in each assertion (RFC 7523 §3)."
    ClientAssertionUsed "client_assertion_used": 401 "invalid_client" FixRequest
        "The client assertion was used before."
        cause: "An assertion with this `jti` has been sent by this client: a library that keeps assertions, a retry that sends the same request, or somebody who saw it."
        confirm: "Look in the client's log for the same `jti`; if it is not there twice, somebody else sent it."
        mend: "Make a new assertion for each request, retries too. If nobody of yours sent it, give the client another key."
    ClientNotAllowed "client_not_allowed": 400 "unauthorized_client" FixConfig
        "This client gets no tokens of its own."
        cause: "The client has no `audience` in the configuration."
        confirm: "`exchequer check` lists each client's audiences."
        mend: "Set `audience` in `[clients.ID]` to the backends that the client may call."
    ScopeNotAllowed "scope_not_allowed": 400 "invalid_scope" FixRequest
        "The client may have none of the scopes that it asks for."
        cause: "`scope` is malformed, or names none of the client's `scopes`."
        confirm: "`exchequer check` lists each client's scopes."
        mend: "Ask for configured scopes, leave `scope` out to get all of them, or add them to the client's `scopes`."

    // Tokens of ours that a client asks about or revokes.
    TokenTypeUnsupported "token_type_unsupported": 400 "unsupported_token_type" FixRequest
        "Tokens of an identity provider are not revoked here."
        cause: "`token` at POST /oauth/revoke is a provider's: its `iss` is one of the configured issuers', or its prefix is Clerk's. It would go on opening what it opens."
        confirm: "Decode the token: `iss` is not this service."
        mend: "Sign the user out with the provider's SDK, which ends the session; its webhook tells this service."
    TokenOfAnotherClient "token_of_another_client": 400 "invalid_grant" FixRequest
        "The token was issued to another client."
        cause: "`client_id` of the token at POST /oauth/revoke is neither the client that asks nor one of its `apps`."
        confirm: "Decode the token and compare `client_id`."
        mend: "Let the client revoke that got the token; a public app sends its name as `client_id`."
    TokenNotOurs "token_not_ours": 0 "invalid_token" FixRequest
        "The token that was asked about was not minted by this service."
        cause: "Its `iss` is another. POST /oauth/introspect answers `active: false` and no more; the log has this code."
        confirm: "Compare `seen` in the log with EXCHEQUER_ISSUER, byte for byte."
        mend: "Ask the issuer of the token, or exchange it first."
    IntrospectionNotAllowed "introspection_not_allowed": 0 "invalid_token" FixConfig
        "The token that was asked about is not meant for the client that asks."
        cause: "The token is none of the client's own, none of its `apps`, and its `aud` is none of its `introspect`. POST /oauth/introspect answers `active: false` and no more; the log has this code."
        confirm: "Compare `seen`, the token's `aud`, with `expected` in the log."
        mend: "Add the audience to `introspect` of `[clients.ID]`, if the client is that audience."
    // Refresh tokens.
    RefreshTokenMalformed "refresh_token_malformed": 400 "invalid_grant" FixRequest
        "This is no refresh token of this service, or not the whole of one."
        cause: "The text does not begin with `ert_`, is cut off, or has other characters than were given out: its checksum is wrong."
        confirm: "Compare its length: 76 characters. A column or a cookie that is too short cuts it off; an app token or the provider's token was sent in its place."
        mend: "Send the last `refresh_token` that was given out, as it was given out."
    RefreshTokenUnknown "refresh_token_unknown": 400 "invalid_grant" SignIn
        "The refresh token is unknown, or was given to another client."
        cause: "Its family ended long ago, the store was emptied or is another one, or `client_id` is not the app or the client that it was given to. Strangers are not told which; the log line's `cause` says it."
        confirm: "Look for the request id in the log."
        mend: "Send the `client_id` that it was given to: the app's name where it came from POST /auth/exchange. Otherwise let the user sign in."
    RefreshTokenIdle "refresh_token_idle": 400 "invalid_grant" SignIn
        "The refresh token was not used for too long."
        cause: "More time than the app's `refresh.idle` has passed since the last refresh."
        confirm: "Compare the time of the last refresh with `refresh.idle`."
        mend: "Exchange a credential of the provider's anew. Raise `refresh.idle` where users come back later than that."
    RefreshTokenExpired "refresh_token_expired": 400 "invalid_grant" SignIn
        "The refresh token's last day has passed."
        cause: "More time than the app's `refresh.absolute` has passed since the exchange that began it. No refresh moves this end."
        confirm: "Compare the time of that exchange with `refresh.absolute`."
        mend: "Exchange a credential of the provider's anew."
    RefreshTokenReused "refresh_token_reused": 400 "invalid_grant" SignIn
        "The refresh token was used before: all that came of it have ended."
        cause: "A token that was replaced longer ago than `refresh.grace` came back, so two hold what only one should: a copy was taken, or the client did not keep the new one."
        confirm: "Look in the log for the client's refreshes: does it save each new `refresh_token` before it goes on, and do its processes and tabs share one."
        mend: "Let the user sign in. A client replaces its refresh token by the answer's at each refresh, in one place."
    RefreshTokenRevoked "refresh_token_revoked": 400 "invalid_grant" SignIn
        "The refresh token was revoked."
        cause: "It was ended at the revocation endpoint; or what it stands for has ended: the session, the user, the organisation or the membership; or the app no longer gives refresh tokens, or no longer trusts the issuer. The description or the log line's `cause` says which."
        confirm: "Look for the request id in the log; `cause` begins with the code of what ended."
        mend: "Exchange a credential of the provider's anew."
    // The registry of clients: `exchequer clients`, and the admin listener.
    ClientExists "client_exists": 409 "invalid_request" FixRequest
        "There is a client of this id."
        cause: "`exchequer clients add` names an id that is registered, or that the configuration file gives to a client or to an app."
        confirm: "`exchequer clients list` shows both kinds."
        mend: "Choose another id, or remove the client first."
    ClientNotRegistered "client_not_registered": 404 "invalid_request" FixRequest
        "No client of this id is registered."
        cause: "`exchequer clients` names an id that the registry does not have. Clients of the configuration file are changed there."
        confirm: "`exchequer clients list` shows both kinds."
        mend: "Correct the id."
    ClientSettingsInvalid "client_settings_invalid": 400 "invalid_request" FixRequest
        "The client cannot be as it is described."
        cause: "A value is out of range or malformed, or the values do not go together."
        confirm: "The description names what is wrong."
        mend: "Correct it; `exchequer clients add --help` shows what there is."
    AdminTokenInvalid "admin_token_invalid": 401 "invalid_token" FixRequest
        "The admin token is missing or wrong."
        cause: "The admin listener's `/clients` was asked without the bearer token that the service writes into a file beside its store at each start."
        confirm: "Compare the time of that file (EXCHEQUER_STORE with `.admin` at its end) with the service's start."
        mend: "Use `exchequer clients` on the service's machine, as its user: it reads the file."
    // The console.
    ConsoleOff "console_off": 404 "invalid_request" FixConfig
        "The console is off."
        cause: "EXCHEQUER_CONSOLE is `off`; or the admin listener is not on a loopback address and no token protects the console: EXCHEQUER_CONSOLE_TOKEN is not set, and there is no file beside a store either."
        confirm: "Look at EXCHEQUER_CONSOLE, EXCHEQUER_CONSOLE_TOKEN, EXCHEQUER_ADMIN_LISTEN and EXCHEQUER_STORE where the service runs."
        mend: "Set EXCHEQUER_CONSOLE_TOKEN, or reach the service on loopback: EXCHEQUER_ADMIN_LISTEN=127.0.0.1:9090."
    ConsoleNotLocal "console_not_local": 403 "access_denied" FixRequest
        "The console was asked for by another name than this machine's, through a proxy, or by another site's page."
        cause: "Without a token the console answers requests whose `Host` is `localhost` or a loopback address and that no proxy forwarded; and its data, with or without a token, only its own page. So no page of the web reaches it through a browser, and no proxy shows it to others unnoticed."
        confirm: "Look at the address in the browser's bar, and for a proxy that adds `X-Forwarded-For`, `Forwarded` or `Via`."
        mend: "Open it as http://localhost and the port, through a tunnel where it is elsewhere (`ssh -L`, `kubectl port-forward`); or set EXCHEQUER_CONSOLE_TOKEN."
    ConsoleTokenInvalid "console_token_invalid": 401 "invalid_token" FixRequest
        "The console's token is missing or wrong."
        cause: "The console is protected by EXCHEQUER_CONSOLE_TOKEN or, where that is not set and the admin listener is not on loopback, by the token in the file beside the store, which is new at each start."
        confirm: "Compare what was typed with the variable, or with `token` in the file (EXCHEQUER_STORE with `.admin` at its end)."
        mend: "Give the token in the page's form; a program sends it as `Authorization: Bearer`."
    ConsoleTriedTooOften "console_tried_too_often": 429 "invalid_request" Retry
        "Too many wrong tokens came from this address."
        cause: "Ten wrong tokens came from one address within a minute."
        confirm: "Look for a program or a browser that goes on sending an old token: each start without EXCHEQUER_CONSOLE_TOKEN makes a new one."
        mend: "Wait for a minute, then send the right one."
    // Sign-in that this service begins.
    SignInProviderUnknown "sign_in_provider_unknown": 404 "invalid_request" FixConfig
        "The app has no sign-in at this provider."
        cause: "The last part of the path names no `[providers.NAME]`, or the app does not list it in `[apps.NAME.sign_in] providers`."
        confirm: "`exchequer check` lists the providers and each app's sign-in."
        mend: "Correct the path, or list the provider in the app's `sign_in`."
    RedirectUriNotRegistered "redirect_uri_not_registered": 400 "invalid_request" FixConfig
        "The `redirect_uri` is missing, or none that the app has registered."
        cause: "`redirect_uri` is compared byte for byte with the app's `redirect_uris`: a slash at the end, another case, another port or an escape makes another one. Where nobody is known to stand behind an address, nobody is sent there, so this answer is no redirect."
        confirm: "`exchequer check` prints the registered ones; compare them with the parameter in the browser's address bar."
        mend: "Send a registered one, or add it to `redirect_uris` in `[apps.NAME.sign_in]`. Native apps on loopback may use any port of http://127.0.0.1 or http://[::1] where it is registered without one."
    ResponseTypeUnsupported "response_type_unsupported": 400 "unsupported_response_type" FixRequest
        "The only `response_type` is `code`."
        cause: "`response_type` is another than `code`: tokens never come in a redirect."
        confirm: "Look at the parameter."
        mend: "Send `response_type=code`, or leave it out."
    PkceRequired "pkce_required": 400 "invalid_request" FixRequest
        "Sign-in needs `code_challenge` and `code_challenge_method=S256`."
        cause: "One of the two is missing, the method is `plain`, or the challenge is not 43 characters of base64url (RFC 7636 §4.2)."
        confirm: "Look at the parameters in the browser's address bar."
        mend: "Make a random verifier of 43 to 128 characters for each sign-in, send base64url(SHA-256(verifier)) without padding as `code_challenge`, and the verifier itself at the token endpoint."
    SignInTooLong "sign_in_too_long": 400 "invalid_request" FixRequest
        "What this sign-in asks for does not fit into a cookie."
        cause: "The browser keeps what was asked until the user comes back: `redirect_uri`, `state`, `scope` and the audiences together are longer than the 2,700 bytes or so that a cookie holds."
        confirm: "Count the characters of the request's query."
        mend: "Keep what is long in the app, and send a short random `state` that stands for it."
    SignInStateInvalid "sign_in_state_invalid": 400 "invalid_request" SignIn
        "This sign-in is not under way: it was never begun, is over, or took longer than 10 minutes."
        cause: "`state` is missing, expired, used or not one of ours: the back button, a reloaded callback, a bookmark of it, or a forged one; or the key ring was made anew meanwhile, or another replica has another ring."
        confirm: "Compare the times of the two requests, of login and callback, in the log."
        mend: "Begin the sign-in again from the app."
    SignInBrowserMismatch "sign_in_browser_mismatch": 400 "invalid_request" SignIn
        "This sign-in was begun in another browser."
        cause: "The cookie that login set is missing, changed or another's: the callback was opened in another browser or profile, cookies are blocked, or the host of `EXCHEQUER_ISSUER` is another than the one on which login was called. Somebody who sends you a link to finish their sign-in gets this answer too."
        confirm: "Look for `Set-Cookie` in login's answer and `Cookie` in the request of the callback; compare their hosts."
        mend: "Begin the sign-in again, in one browser, at the host of `EXCHEQUER_ISSUER`."
    SignInProviderMismatch "sign_in_provider_mismatch": 400 "access_denied" SignIn
        "The answer is of another provider than the sign-in was begun at."
        cause: "The callback's path, or its `iss` (RFC 9207), names another provider: a mix-up attack, or two providers registered with one callback."
        confirm: "Compare the callback that is registered at each provider with those that `exchequer check` prints."
        mend: "Register each provider's own callback, then begin the sign-in again."
    SignInDenied "sign_in_denied": 403 "access_denied" SignIn
        "The identity provider says that the sign-in was refused or given up."
        cause: "The user pressed cancel, or may not use this application there (`access_denied`, `login_required`, `consent_required` and the like)."
        confirm: "The log line has the provider's word as its cause."
        mend: "Let the user try again."
    ProviderClientUnknown "provider_client_unknown": 500 "server_error" FixConfig
        "The identity provider does not know this service's client, or its secret is wrong."
        cause: "The provider's OAuth server said `invalid_client` or `unauthorized_client`. It knows OAuth applications that were registered there: not the shared development credentials behind a social sign-in, not a publishable key, not another environment's application."
        confirm: "`exchequer doctor` asks each provider with a code that cannot be right: `invalid_grant` comes from one that knows the client."
        mend: "Register an OAuth application of your own at the provider, with the callback that `exchequer check` prints, and set `client_id` and `client_secret` in `[providers.NAME]`; where the secret is right, try `client_auth`. See docs/sign-in.md."
    ProviderCodeRefused "provider_code_refused": 400 "access_denied" SignIn
        "The identity provider refuses the code that came with the callback."
        cause: "The code is used, expired or another sign-in's (`invalid_grant`): a reloaded page, a code that somebody put in the place of the right one, or a callback that is registered otherwise than it is sent."
        confirm: "The log line has the provider's word; `exchequer check` prints the callback that is sent."
        mend: "Begin the sign-in again. Where it happens each time, compare the callback at the provider."
    ProviderRefused "provider_refused": 500 "server_error" FixConfig
        "The identity provider refuses the sign-in that this service asks for."
        cause: "The provider answered with another error: a scope that the application may not ask for, a callback that is not registered there, a grant that is off."
        confirm: "The log line has the provider's word as its cause."
        mend: "Correct the application at the provider, or `scopes` in `[providers.NAME]`."
    ProviderAnswerInvalid "provider_answer_invalid": 500 "server_error" FixConfig
        "The identity provider's answer is not what a sign-in gives."
        cause: "The token endpoint answered without an ID token (or, for GitHub and Facebook, an access token), or with no JSON; or the API named no user."
        confirm: "The log line has the cause. `scopes` must hold `openid` where ID tokens are expected."
        mend: "Correct `kind`, `scopes` or `token_endpoint` in `[providers.NAME]`."
    IdTokenNonceMismatch "id_token_nonce_mismatch": 401 "access_denied" SignIn
        "The provider's ID token was made for another sign-in."
        cause: "Its `nonce` is missing or another: a code of another browser was put into this one's callback, or the provider leaves `nonce` out."
        confirm: "Sign in once more: where it fails each time, the provider leaves `nonce` out."
        mend: "Begin the sign-in again."
    AuthorizationCodeInvalid "authorization_code_invalid": 400 "invalid_grant" SignIn
        "The authorization code is unknown, expired, or was given to another app or another redirect URI."
        cause: "A code lives for 60 seconds and counts for the `client_id`, the `redirect_uri` and the `code_challenge` that it was asked for with."
        confirm: "The log line's `cause` says which of them it is; it is not told to strangers."
        mend: "Exchange the code at once, with the app's name as `client_id` and the very `redirect_uri` of the sign-in."
    AuthorizationCodeUsed "authorization_code_used": 400 "invalid_grant" SignIn
        "The authorization code was used before: what it gave is revoked."
        cause: "The code was sent twice with its verifier: a retry after a lost answer, or somebody who has both (RFC 6749 §4.1.2)."
        confirm: "Look for the first use in the log."
        mend: "Begin the sign-in again; exchange each code once."
    CodeVerifierWrong "code_verifier_wrong": 400 "invalid_grant" SignIn
        "The `code_verifier` is not the one that the sign-in was begun with."
        cause: "Its S256 is not the `code_challenge`: the app lost the verifier between the two requests, or the code is another's."
        confirm: "Compare base64url(SHA-256(code_verifier)) with the `code_challenge` of login."
        mend: "Keep the verifier until the code has come back, one for each sign-in."

    // Token exchange (RFC 8693).
    ExchangeNotAllowed "exchange_not_allowed": 400 "unauthorized_client" FixConfig
        "This client may not exchange tokens of users."
        cause: "The client has no `apps` in the configuration; or it is an app, which has no secret, and sends an actor token."
        confirm: "`exchequer check` lists the clients; look at `apps` in `[clients.ID]`."
        mend: "Set `apps` in `[clients.ID]` to the apps whose users the client may act for, and let it authenticate."
    RequestedTokenTypeUnsupported "requested_token_type_unsupported": 400 "invalid_request" FixRequest
        "This `requested_token_type` is none that is issued here."
        cause: "Only JWTs are issued, which are access tokens; a refresh token is not exchanged for (RFC 8693 §2.2.1)."
        confirm: "Look at `requested_token_type` in the request."
        mend: "Leave it out, or send `urn:ietf:params:oauth:token-type:jwt` or `urn:ietf:params:oauth:token-type:access_token`."
    ResourceMalformed "resource_malformed": 400 "invalid_target" FixRequest
        "A `resource` is not an absolute URI without a fragment."
        cause: "RFC 8707 §2 has `resource` be an absolute URI; a name that is none is an `audience`."
        confirm: "Look at `resource` in the request."
        mend: "Send the URI as it is configured, or send the name as `audience`."
    SubjectTokenNotForClient "subject_token_not_for_client": 400 "invalid_request" FixConfig
        "The subject token is of an app whose users this client may not act for."
        cause: "The app that the token was minted for (its `client_id`) is none of the client's `apps`."
        confirm: "Compare the token's `client_id` with `apps` in `[clients.ID]`."
        mend: "Add the app to the client's `apps`, if it may act for that app's users."
    SubjectTokenIsServiceToken "subject_token_is_service_token": 400 "invalid_request" FixRequest
        "The subject token is a service token, of a client and no user."
        cause: "A token that a client got for itself stands for nobody that another could act for."
        confirm: "The token's `sub` is its `client_id`."
        mend: "Ask for a token for the other audience with `grant_type=client_credentials`; or send the service token as `actor_token`, beside the user's token."
    ActorTokenUnusable "actor_token_unusable": 400 "invalid_request" FixRequest
        "The actor token cannot be used."
        cause: "It fails as a subject token would, is another client's, is of an app that is none of the client's `apps`, is not signed, is bound to a key, or somebody acts for the actor itself."
        confirm: "The description says which; pipe the token into `exchequer explain`."
        mend: "Send the client's own service token, or a token of a user of its apps, as it was issued."
    ActorNotAllowed "actor_not_allowed": 400 "invalid_request" FixConfig
        "The subject token names who may act for its subject, and it is somebody else."
        cause: "The token's `may_act` (RFC 8693 §4.4) has another `sub`, `client_id` or `iss` than the actor, or than the client where there is no actor token. Without `iss`, `sub` is one of the token's own issuer or of a client here."
        confirm: "Decode the token and compare `may_act` with the actor."
        mend: "Let the right actor ask, or have the issuer name this one."
    DelegationTooDeep "delegation_too_deep": 400 "invalid_request" FixRequest
        "Five act for the subject already."
        cause: "Each exchange of a token of this service puts the client that asks before those in `act`."
        confirm: "Count the levels of `act` in the token."
        mend: "Pass the token on without exchanging it at each step, or exchange the user's first token."
    DelegationCyclic "delegation_cyclic": 400 "invalid_request" FixRequest
        "The actor acts for itself, or for somebody who acts for it."
        cause: "The actor is the subject, or stands in the token's `act` already, behind another."
        confirm: "Look for the actor in the token's `act`."
        mend: "Let a service that is called back use the token that it had, rather than one that went through others."
    ScopeExceedsToken "scope_exceeds_token": 400 "invalid_scope" FixRequest
        "The subject token does not have all scopes that are asked for."
        cause: "A token of this service is only ever exchanged for one that may do as much or less."
        confirm: "Compare `scope` with the token's `scope`."
        mend: "Ask for scopes that the token has, or get a new one from the provider's token with the scopes that are needed."

    // JWTs as authorization grants (RFC 7523).
    AssertionNotAccepted "assertion_not_accepted": 400 "invalid_grant" FixConfig
        "This issuer's assertions are no authorization grants here."
        cause: "The issuer is trusted for tokens that are exchanged, not for assertions: `assertions` is not set in its `[issuers.NAME]`."
        confirm: "Look at the issuer in the configuration."
        mend: "Set `assertions = true` there, if it may vouch for users to this service; else exchange its token at POST /auth/exchange."
    AssertionAudienceMismatch "assertion_audience_mismatch": 400 "invalid_grant" FixRequest
        "The assertion was not made for this service."
        cause: "Its `aud` is not exactly one: this service's issuer identifier, or the URL of its token endpoint, which an identity assertion grant may not have."
        confirm: "Compare `aud` with `issuer` and `token_endpoint` in /.well-known/oauth-authorization-server."
        mend: "Let the issuer put the issuer identifier of this service into `aud`, byte for byte, and nothing else."
    AssertionClaimMissing "assertion_claim_missing": 400 "invalid_grant" FixRequest
        "The assertion lacks a claim that it needs here."
        cause: "It has no `jti`, or one of more than 255 bytes; or, as an identity assertion grant, no `iat`, or a `client_id`, `resource` or `scope` that is no text."
        confirm: "The description names the claim."
        mend: "Let the issuer add the claim: `jti` is what makes an assertion good for one use."
    AssertionUsed "assertion_used": 400 "invalid_grant" FixRequest
        "The assertion was used before."
        cause: "An assertion is good for one token (RFC 7523 §3, `jti`); it was sent again, or by two at once."
        confirm: "Look for the same client in the log a moment before."
        mend: "Get a new assertion for each token."
    AssertionClientMismatch "assertion_client_mismatch": 400 "invalid_grant" FixRequest
        "The assertion was made for another client."
        cause: "An identity assertion grant is for the client that its `client_id` names; this one did not prove itself, or is another."
        confirm: "Compare `client_id` in the assertion with the id that the client authenticates with."
        mend: "Authenticate as that client, or have the issuer make the assertion for this one."

    // What could not be asked.
    IssuerKeysUnavailable "issuer_keys_unavailable": 503 "temporarily_unavailable" Retry ["jwk-remote-failed-to-load", "jwk-local-missing"]
        "The issuer's keys cannot be fetched at the moment."
        cause: "The issuer's key set has never been fetched, or not for a day, and asking for it fails."
        confirm: "`exchequer doctor` shows what the issuer answers; the log has the error."
        mend: "Where it answers 404, compare `issuer` and `jwks_uri` with the provider's; else look at its status page, DNS and the way out (proxy, network policy). `CLERK_JWT_KEY` needs no network."
    IssuerMetadataInvalid "issuer_metadata_invalid": 503 "temporarily_unavailable" FixConfig
        "The issuer's discovery document does not belong to the issuer."
        cause: "`issuer` in the document differs from the configured one (OpenID Connect Discovery §4.3), or its `jwks_uri` leads to an address that is not allowed."
        confirm: "`exchequer doctor` shows both."
        mend: "Correct the configured issuer, byte for byte, or set `jwks_uri`; for an issuer inside the network set `allow_private_network = true`."
    SigningKeyUnavailable "signing_key_unavailable": 503 "temporarily_unavailable" Retry
        "There is no key to sign the app token with."
        cause: "The key ring has no active key for the app's algorithm: it could not be made or saved, or was revoked."
        confirm: "`exchequer keys list`; the log says why."
        mend: "Make room on the disk or make the folder writable, or import a key with `exchequer keys import`."

    StatusListFull "status_list_full": 503 "temporarily_unavailable" Retry
        "The status list has no place for another token at the moment."
        cause: "Nearly all of its 1,048,576 places are those of tokens that live. Each is free again five minutes after its token ends."
        confirm: "Multiply the tokens a second, of the apps and clients that have `status_list`, by their `ttl` and 300 s more."
        mend: "Shorten `ttl`, or set `status_list` for those apps and clients alone whose backends look at the list."

    // More than can be done at once.
    Overloaded "overloaded": 503 "temporarily_unavailable" Retry
        "The service has more to do than it can do at once."
        cause: "More requests came in than the processors can answer, or than EXCHEQUER_MAX_CONCURRENCY allows to wait for providers and the store. What is beyond that is refused at once, so that the rest is answered as quickly as ever."
        confirm: "`exchequer_requests_shed_total` says which of the two; `exchequer_queue_delay_seconds` and `exchequer_requests_at_work` show how near it is."
        mend: "Try again after `Retry-After`. Give the service more processors or replicas where the delay is the reason; where concurrency is, look for a provider or a store that is slow, then raise EXCHEQUER_MAX_CONCURRENCY."
    BodiesTooMany "bodies_too_many": 503 "temporarily_unavailable" Retry
        "Too many request bodies are being received at once."
        cause: "The bodies that have come in part, over all connections, take 64 MiB: many clients on slow networks, or somebody who sends many large bodies slowly. Bodies that arrive in one piece are never refused for it."
        confirm: "`exchequer_bodies_pending_bytes` in the metrics."
        mend: "Try again after `Retry-After`. Let the proxy in front collect bodies before it passes requests on."

    // HTTP.
    NotFound "not_found": 404 "invalid_request" FixRequest
        "There is nothing at this path."
        cause: "The path is none of the service's."
        confirm: "Compare the path, letter by letter."
        mend: "The exchange is `POST /auth/exchange`."
    MethodNotAllowed "method_not_allowed": 405 "invalid_request" FixRequest
        "This path does not answer to this method."
        cause: "The method is not one of those in the `Allow` header."
        confirm: "Look at `Allow`."
        mend: "Use one of them."
    NotAcceptable "not_acceptable": 406 "invalid_request" FixRequest
        "Only `application/json` is answered here."
        cause: "The `Accept` header excludes JSON."
        confirm: "Look at the request's `Accept` header."
        mend: "Send `Accept: application/json`, or none."
    RequestTimeout "request_timeout": 408 "invalid_request" Retry
        "The request body did not arrive in time."
        cause: "The body was not complete within 10 seconds."
        confirm: "Look for a proxy that holds the body back, or a wrong Content-Length."
        mend: "Send the body at once, with its right length."
    BodyTooLarge "body_too_large": 413 "invalid_request" FixRequest
        "The request body is larger than 64 KiB."
        cause: "The body is longer than any that the service reads there: 64 KiB, for webhooks 256 KiB."
        confirm: "Look at the request's Content-Length."
        mend: "Send only the members that the exchange has."
    UriTooLong "uri_too_long": 414 "invalid_request" FixRequest
        "The request target is longer than 8 KiB."
        cause: "The path and query are longer than any that the service reads."
        confirm: "Look at the request line."
        mend: "Send parameters in the body; a token never belongs into a URL."
    ContentTypeUnsupported "content_type_unsupported": 415 "invalid_request" FixRequest
        "The request body must be `application/json`, not compressed."
        cause: "The Content-Type is another one or missing, or there is a Content-Encoding."
        confirm: "Look at the request's headers; `curl -d` sends a form unless told otherwise."
        mend: "Send `Content-Type: application/json`."
    HeadersTooLarge "headers_too_large": 431 "invalid_request" FixRequest
        "The request's headers are larger than 32 KiB."
        cause: "Cookies or a bearer token are larger than any that the service reads."
        confirm: "Measure the headers."
        mend: "Send no cookies to this service."
    InternalError "internal_error": 500 "server_error" FixConfig
        "Something failed inside the service."
        cause: "A bug, or the cryptographic backend failed."
        confirm: "Look for the request id in the log."
        mend: "Report it with the log line."

    // What the log and `exchequer explain` tell apart, and no answer does.
    ClientUnknown "client_unknown": 0 "invalid_client" FixConfig
        "No client of this id is registered."
        cause: "The id that the request or its assertion names is none of `[clients.ID]`, nor of those registered with `exchequer clients`."
        confirm: "`exchequer clients list` lists the clients."
        mend: "Correct the id, or register the client."
    ClientSecretWrong "client_secret_wrong": 0 "invalid_client" FixConfig
        "The client's secret is another."
        cause: "The secret that was sent is not the client's, or no longer, or the client has none."
        confirm: "Compare SHA-256 of what the client sends with SHA-256 of what is configured; a line's end or a blank at the end is the usual difference."
        mend: "Give the client its secret; or make another one with `exchequer clients rotate-secret`."
    ClientAuthMethodMismatch "client_auth_method_mismatch": 0 "invalid_client" FixConfig
        "The client authenticates by another method than its own."
        cause: "The client's `auth_method` is not the way in which the request authenticates."
        confirm: "`exchequer clients list` shows each client's method."
        mend: "Set `auth_method` to what the client does, or the client to what is configured."
    ClientAssertionAlgorithmMismatch "client_assertion_algorithm_mismatch": 0 "invalid_client" FixConfig
        "The client assertion is signed with an algorithm that is not the client's."
        cause: "`alg` of its header is none of those that the client's `auth_method` and `auth_alg` allow."
        confirm: "Decode the header; `exchequer explain` shows both."
        mend: "Sign with the client's algorithm, or set `auth_alg`."
    ClientAssertionKeyUnknown "client_assertion_key_unknown": 0 "invalid_client" FixConfig
        "The client assertion names a key that is none of the client's."
        cause: "`kid` of its header is in no key set of the client, is missing where the client has a set, or names a key that cannot be used."
        confirm: "Compare `kid` with the client's `jwks` or `jwks_uri`."
        mend: "Publish the key there, with its `kid`, before the client signs with it."
    ClientKeysUnavailable "client_keys_unavailable": 0 "invalid_client" Retry
        "The client's keys cannot be fetched."
        cause: "The client's `jwks_uri` does not answer, answers with something else than a key set, or leads where it must not, and no set of the last day is at hand. The client is told no more than a stranger would be, 401 `client_authentication_failed`: anybody can name a client, and another answer, or a `Retry-After`, would say that there is one of this id. RFC 6749 §5.2 has `invalid_client` for whoever could not be authenticated, whatever the reason."
        confirm: "The log line says what happened, and `exchequer_jwks_fetch_total{issuer=\"client:ID\"}` counts the tries; fetch the client's `jwks_uri` from this machine."
        mend: "Bring the client's server back, and let the client send a new assertion; or configure the key itself with `public_key` or `jwks`."
    ClientAssertionSignatureInvalid "client_assertion_signature_invalid": 0 "invalid_client" FixConfig
        "The client assertion's signature does not verify with the client's secret or key."
        cause: "Signed with another secret or key, or with the right secret in another form: the UTF-8 text of a secret that looks like hex or base64 is not the bytes that it spells."
        confirm: "`exchequer explain` tries the secret as text, hex and base64 and says which one verifies."
        mend: "Sign with the bytes of the secret's UTF-8 text (RFC 7518 §3.2, OpenID Connect Core §9)."

    // What `exchequer explain` recognises and the exchange never answers.
    UpstreamClientUnknown "upstream_client_unknown": 0 "invalid_client" FixConfig
        "The identity provider's OAuth server does not know the client: this answer is not from your backend, and not from Exchequer."
        cause: "A request to the provider's authorize or token endpoint had a missing or unregistered `client_id`. That endpoint knows OAuth applications, not your Clerk instance, its publishable key, or the Google client behind a social sign-in."
        confirm: "Look at the host that the browser was on: it is the provider's. Look at `client_id` in its URL."
        mend: "If you only need a signed-in user, no OAuth client is needed: exchange the session token at POST /auth/exchange. If you are an OAuth client, register an OAuth application at the provider and send its client_id."
    UpstreamClientRefused "upstream_client_refused": 0 "invalid_client" FixConfig
        "A token endpoint refused the client without saying why; the answer is not one of Exchequer's."
        cause: "Bare `invalid_client` means: unknown client, wrong secret, wrong method, or an expired assertion (RFC 6749 §5.2). Exchequer always adds a `code`, so another server wrote this."
        confirm: "If the client authenticates with a JWT, pipe that JWT into `exchequer explain`: an assertion that is simply expired is the commonest cause."
        mend: "Make a fresh assertion, or correct the client's id or secret at the server that refused it."
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_code_is_named_once_and_says_everything() {
        let mut slugs = HashSet::new();
        for code in Code::ALL {
            let entry = code.entry();
            assert_eq!(entry.code, *code);
            assert!(slugs.insert(entry.slug), "{} twice", entry.slug);
            assert_eq!(Code::from_slug(entry.slug), Some(*code));
            for text in [entry.sentence, entry.cause, entry.confirm, entry.mend] {
                assert!(text.ends_with('.'), "{}: {text}", entry.slug);
            }
            assert!(!entry.sentence.contains('"'), "{}", entry.slug);
        }
    }
}
