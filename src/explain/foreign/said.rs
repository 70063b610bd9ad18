//! What others say, by their words: identity providers about a sign-in, and the libraries of
//! backends about our tokens. Each line says who speaks; each group, why, and what to do.
//!
//! Words are compared without case. The first line that fits counts, so the exacter ones stand
//! before the ones that many say.

use super::super::catalogue::Code;

/// One meaning, and who says it in which words.
#[derive(Debug)]
pub struct Meaning {
    /// Whose server speaks: `upstream-idp`, `your-backend`, `browser` or `elsewhere`.
    pub source: &'static str,
    /// Our code for it, where there is one.
    pub code: Option<Code>,
    /// What is usually behind it; empty where the code's own cause says it.
    pub cause: &'static str,
    /// What to do; empty where the code's own advice says it.
    pub next: &'static str,
    /// A thread that tells more.
    pub link: Option<&'static str>,
    /// Who says it, and the words, in small letters, all of which are there.
    pub said: &'static [(&'static str, &'static [&'static str])],
}

const HYDRA: &str = "the wording of Ory Hydra, which Clerk's OAuth server uses";
const CLERK_API: &str = "Clerk's API";
const GOOGLE: &str = "Google's OAuth server";
const GITHUB: &str = "GitHub's OAuth server";
const FACEBOOK: &str = "Facebook's OAuth server";
const NIMBUS: &str = "Nimbus JOSE+JWT, as in Spring Security";
const SPRING: &str = "Spring Security";
const JOSE: &str = "jose, for Node and browsers";
const NODE: &str = "jsonwebtoken, for Node";
const JWKS_RSA: &str = "jwks-rsa, for Node";
const PYJWT: &str = "PyJWT";
const GO_OIDC: &str = "go-oidc";
const GO_JWT: &str = "golang-jwt";
const KEYFUNC: &str = "keyfunc, for golang-jwt";
const RUST: &str = "jsonwebtoken, for Rust";
const ENVOY: &str = "Envoy or Istio";
const DOTNET: &str = "Microsoft.IdentityModel, for .NET";
const HASURA: &str = "Hasura or PostgREST";
const BROWSER: &str = "the browser";
const VERIFIER: &str = "a verifier of tokens, which does not say which";
const OAUTH: &str = "an OAuth server, which does not say which";

/// All meanings.
pub const MEANINGS: &[Meaning] = &[
    // Providers, about clients and sign-ins.
    Meaning {
        source: "upstream-idp",
        code: Some(Code::UpstreamClientUnknown),
        cause: "",
        next: "",
        link: None,
        said: &[(HYDRA, &["requested oauth 2.0 client does not exist"])],
    },
    Meaning {
        source: "upstream-idp",
        code: Some(Code::UpstreamClientUnknown),
        cause: "The `client_id` is of no OAuth client that Google knows: deleted, of another project, mistyped, or with a blank at its end.",
        next: "Copy the client id anew from Google Cloud → APIs & Services → Credentials into `client_id` of `[providers.NAME]`, or into the dashboard of the provider that signs users in by Google.",
        link: None,
        said: &[
            (GOOGLE, &["the oauth client was not found"]),
            (GOOGLE, &["deleted_client"]),
        ],
    },
    Meaning {
        source: "upstream-idp",
        code: Some(Code::ProviderClientUnknown),
        cause: "The client id or the client secret is wrong there, or of another application.",
        next: "Make a new secret in the provider's dashboard, and set `client_id` and `client_secret` in `[providers.NAME]`.",
        link: None,
        said: &[
            (GITHUB, &["incorrect_client_credentials"]),
            (FACEBOOK, &["error validating client secret"]),
            (FACEBOOK, &["error validating application"]),
        ],
    },
    Meaning {
        source: "upstream-idp",
        code: Some(Code::UpstreamClientRefused),
        cause: "The client id is unknown, the secret is wrong, or it is sent in another way than the client is registered for: in the Authorization header, or in the form.",
        next: "Compare id and secret with the provider's dashboard (Clerk: OAuth applications), then try the other way to send them (`client_auth` in `[providers.NAME]`).",
        link: Some("https://github.com/ory/hydra/issues/2140"),
        said: &[(
            HYDRA,
            &["client authentication failed (e.g., unknown client"],
        )],
    },
    Meaning {
        source: "upstream-idp",
        code: Some(Code::ProviderRefused),
        cause: "The callback of the request is none of those that are registered there. It is compared letter by letter: scheme, host, port, path, and a slash at the end.",
        next: "Register the callback that `exchequer check` prints: Clerk: OAuth applications → redirect URIs; Google: Credentials → authorised redirect URIs; GitHub: the app's authorization callback URL; Facebook: Facebook Login → valid OAuth redirect URIs.",
        link: None,
        said: &[
            (
                HYDRA,
                &["redirect", "does not match any of the oauth 2.0 client's"],
            ),
            (
                GITHUB,
                &["redirect_uri_mismatch", "associated with this application"],
            ),
            (GOOGLE, &["redirect_uri_mismatch"]),
            (FACEBOOK, &["redirect uri is not white"]),
            (FACEBOOK, &["domain of this url isn't included"]),
        ],
    },
    Meaning {
        source: "upstream-idp",
        code: Some(Code::ProviderCodeRefused),
        cause: "The authorization code was used already, is too old, or the `redirect_uri` of the two requests differs.",
        next: "Begin the sign-in again, and send each code once. Where it fails each time, compare the callback at the provider with the one that `exchequer check` prints.",
        link: None,
        said: &[
            (GITHUB, &["bad_verification_code"]),
            (FACEBOOK, &["error validating verification code"]),
            (GOOGLE, &["malformed auth code"]),
            (
                HYDRA,
                &[
                    "the provided authorization grant",
                    "is invalid, expired, revoked",
                ],
            ),
        ],
    },
    Meaning {
        source: "upstream-idp",
        code: Some(Code::ProviderRefused),
        cause: "The application may not ask for one of these scopes.",
        next: "Take the scope out of `scopes` in `[providers.NAME]`, or allow it to the application in the provider's dashboard (Clerk: OAuth applications → scopes).",
        link: None,
        said: &[
            (
                HYDRA,
                &["the requested scope is invalid, unknown, or malformed"],
            ),
            (FACEBOOK, &["invalid scopes"]),
        ],
    },
    Meaning {
        source: "upstream-idp",
        code: Some(Code::SignInDenied),
        cause: "Google shows the application to its test users alone, or to its own organisation alone, and this user is none of them.",
        next: "Add the user in Google Cloud → OAuth consent screen → test users, or publish the application.",
        link: None,
        said: &[
            (
                GOOGLE,
                &["has not completed the google verification process"],
            ),
            (GOOGLE, &["org_internal"]),
        ],
    },
    Meaning {
        source: "upstream-idp",
        code: Some(Code::ProviderRefused),
        cause: "Google lets nobody sign in inside an app's embedded browser.",
        next: "Open the sign-in in the system's browser: ASWebAuthenticationSession, Custom Tabs, or Expo's WebBrowser.",
        link: None,
        said: &[(GOOGLE, &["disallowed_useragent"])],
    },
    // Clerk's API and SDKs.
    Meaning {
        source: "upstream-idp",
        code: Some(Code::ProviderCredentialsInvalid),
        cause: "The secret key is wrong, revoked, or another instance's.",
        next: "Copy the secret key from Clerk → API keys of the right instance into CLERK_SECRET_KEY (or the issuer's `secret_key`); `exchequer doctor` compares it with the issuer.",
        link: None,
        said: &[
            (CLERK_API, &["clerk_key_invalid"]),
            (CLERK_API, &["authentication_invalid"]),
            ("@clerk/backend", &["secret-key-invalid"]),
        ],
    },
    Meaning {
        source: "upstream-idp",
        code: Some(Code::ProviderInstanceMismatch),
        cause: "The object is not in the instance that the secret key belongs to: it was deleted, or is another environment's.",
        next: "Compare the instance of the secret key (`sk_test_…` or `sk_live_…`) with the one that the app signs in to: `exchequer doctor`, row `secret key`.",
        link: None,
        said: &[(CLERK_API, &["resource_not_found"])],
    },
    Meaning {
        source: "upstream-idp",
        code: Some(Code::ProviderRateLimited),
        cause: "Clerk's API was asked too often.",
        next: "Wait as long as `Retry-After` says. Exchange session tokens where the app can: these need no API.",
        link: None,
        said: &[(CLERK_API, &["too_many_requests", "clerk_trace_id"])],
    },
    Meaning {
        source: "upstream-idp",
        code: None,
        cause: "The page's origin is not one that this Clerk instance is for: a production instance takes its own domain alone.",
        next: "Use the publishable key of the right instance (Clerk → API keys), or set the domain up (Clerk → Domains).",
        link: None,
        said: &[
            (CLERK_API, &["origin_invalid"]),
            (CLERK_API, &["host_invalid"]),
        ],
    },
    Meaning {
        source: "upstream-idp",
        code: None,
        cause: "The provider's SDK could not reach the provider: no token was made, and none was sent.",
        next: "Look at the device's network; let the app try again when it is back.",
        link: Some("https://github.com/clerk/javascript/issues/8083"),
        said: &[("Clerk's SDK in the app", &["clerk_offline"])],
    },
    Meaning {
        source: "upstream-idp",
        code: None,
        cause: "Clerk's API says what is wrong in `code` and `long_message`; it is none of the errors that are known here.",
        next: "Look the code up in Clerk's documentation of its errors; Clerk's support finds the request by `clerk_trace_id`.",
        link: None,
        said: &[(CLERK_API, &["clerk_trace_id"])],
    },
    // Backends, about our tokens: its key.
    Meaning {
        source: "your-backend",
        code: None,
        cause: "The verifier has no key for this token: its list of algorithms lacks the token's (Spring takes RS256 alone unless told, and our tokens are signed with ES256 unless EXCHEQUER_KEY_ALG says otherwise), or its key set is another service's, or older than the last rotation.",
        next: "Set the algorithm in the verifier (Spring: `spring.security.oauth2.resourceserver.jwt.jws-algorithms: ES256`), or EXCHEQUER_KEY_ALG=RS256 here. Then compare the token's `kid` with /.well-known/jwks.json of this service, from the backend's machine.",
        link: Some("https://github.com/camunda/camunda/issues/23727"),
        said: &[(
            NIMBUS,
            &["another algorithm expected, or no matching key(s) found"],
        )],
    },
    Meaning {
        source: "your-backend",
        code: None,
        cause: "The token's `kid` is not in the key set that the verifier has: it fetches another service's set, its copy is older than the last rotation, or the token is of another environment (or the provider's own, not exchanged).",
        next: "Pipe the token into `exchequer explain`: it says whose it is. Then fetch /.well-known/jwks.json from the backend's machine and look for the `kid`. A verifier must ask again for a `kid` that it does not know.",
        link: None,
        said: &[
            (JOSE, &["no applicable key found in the json web key set"]),
            (JOSE, &["err_jwks_no_matching_key"]),
            (
                "jwks-rsa or PyJWT",
                &["unable to find a signing key that matches"],
            ),
            (KEYFUNC, &["given key id was not found"]),
            (KEYFUNC, &["key not found", "kid"]),
            (ENVOY, &["jwks doesn't have key to match kid or alg"]),
            (DOTNET, &["idx10503"]),
            (DOTNET, &["idx10501"]),
            (HASURA, &["no suitable key"]),
            (VERIFIER, &["no matching key"]),
        ],
    },
    Meaning {
        source: "your-backend",
        code: None,
        cause: "The verifier allows other algorithms than the one that the token is signed with: ours are ES256, unless EXCHEQUER_KEY_ALG or the app's `alg` says otherwise.",
        next: "Name the algorithm in the verifier, and no other beside it; or set EXCHEQUER_KEY_ALG to one that the verifier can do. `exchequer keys list` shows what signs. PyJWT needs `pyjwt[crypto]` for all of them.",
        link: None,
        said: &[
            (
                JOSE,
                &["\"alg\" (algorithm) header parameter value not allowed"],
            ),
            (PYJWT, &["the specified alg value is not allowed"]),
            (
                PYJWT,
                &["could not be found. do you have cryptography installed"],
            ),
            (GO_OIDC, &["signed with unsupported algorithm"]),
            (GO_JWT, &["signing method", "is invalid"]),
            (NODE, &["secretorpublickey must be an asymmetric key"]),
            (NODE, &["invalid algorithm"]),
            (RUST, &["invalidalgorithm"]),
            (DOTNET, &["idx10696"]),
        ],
    },
    Meaning {
        source: "your-backend",
        code: None,
        cause: "The verifier could not fetch our key set: another URL, a redirect, a proxy, TLS, or no way there; or the issuer in our discovery document is not the one that it is configured with.",
        next: "Run `curl -si` on the issuer's /.well-known/jwks.json from the backend's machine; `exchequer doctor` checks the public URL. The verifier's issuer must be EXCHEQUER_ISSUER, byte for byte.",
        link: None,
        said: &[
            (SPRING, &["couldn't retrieve remote jwk set"]),
            (SPRING, &["did not match the requested issuer"]),
            (
                GO_OIDC,
                &["issuer did not match the issuer returned by provider"],
            ),
            (GO_OIDC, &["get keys failed"]),
            (ENVOY, &["jwks remote fetch is failed"]),
            (
                JWKS_RSA,
                &["jwks endpoint did not contain any signing keys"],
            ),
            (DOTNET, &["idx20803"]),
            (PYJWT, &["fail to fetch data from the url"]),
        ],
    },
    // Its claims.
    Meaning {
        source: "your-backend",
        code: Some(Code::AppTokenAudienceMismatch),
        cause: "The token's `aud` is not the one that the verifier expects. Where an app sets none, it is EXCHEQUER_AUDIENCE, and where that is not set, EXCHEQUER_ISSUER. go-oidc calls the audience `ClientID`.",
        next: "Set the audience in the verifier to the token's `aud`, or `audience` in `[apps.NAME]` (or EXCHEQUER_AUDIENCE) to the one that the backend expects. `exchequer explain --audience NAME` compares.",
        link: Some("https://github.com/coreos/go-oidc/issues/307"),
        said: &[
            (GO_OIDC, &["expected audience", "got"]),
            (JOSE, &["unexpected \"aud\" claim value"]),
            (NODE, &["jwt audience invalid"]),
            (PYJWT, &["audience doesn't match"]),
            (PYJWT, &["token is missing the \"aud\" claim"]),
            (GO_JWT, &["token has invalid audience"]),
            (SPRING, &["the aud claim is not valid"]),
            (ENVOY, &["audiences in jwt are not allowed"]),
            (DOTNET, &["idx10214"]),
            (RUST, &["invalidaudience"]),
            (HASURA, &["jwtnotinaudience"]),
            (VERIFIER, &["invalid audience"]),
            (VERIFIER, &["expected audience"]),
        ],
    },
    Meaning {
        source: "your-backend",
        code: None,
        cause: "The token's `iss` is not the one that the verifier expects. Ours is EXCHEQUER_ISSUER, byte for byte, without a slash at the end. Where the message shows a provider's address, the provider's own token was sent, and not the app token.",
        next: "Set the verifier's issuer to EXCHEQUER_ISSUER; exchange the session token first, and send what comes of it.",
        link: None,
        said: &[
            (GO_OIDC, &["id token issued by a different provider"]),
            (JOSE, &["unexpected \"iss\" claim value"]),
            (NODE, &["jwt issuer invalid"]),
            (GO_JWT, &["token has invalid issuer"]),
            (SPRING, &["the iss claim is not valid"]),
            (ENVOY, &["jwt issuer is not configured"]),
            (DOTNET, &["idx10205"]),
            (RUST, &["invalidissuer"]),
            (VERIFIER, &["invalid issuer"]),
        ],
    },
    Meaning {
        source: "your-backend",
        code: Some(Code::AppTokenNotYetValid),
        cause: "The verifier's clock is behind that of this service. Our tokens are dated ten seconds back (`iat` and `nbf`), so it is behind by more; for a provider's own token a fraction of a second is enough.",
        next: "Synchronise the clocks (NTP). Let the verifier tolerate a few seconds: PyJWT `leeway`, jose `clockTolerance`, golang-jwt `WithLeeway`.",
        link: Some("https://github.com/jpadilla/pyjwt/issues/824"),
        said: &[
            (PYJWT, &["the token is not yet valid (iat)"]),
            (PYJWT, &["the token is not yet valid (nbf)"]),
            (JOSE, &["\"nbf\" claim timestamp check failed"]),
            (JOSE, &["\"iat\" claim timestamp check failed"]),
            (NODE, &["jwt not active"]),
            (GO_JWT, &["token used before issued"]),
            (GO_JWT, &["token is not valid yet"]),
            (ENVOY, &["jwt not yet valid"]),
            (DOTNET, &["idx10222"]),
            (RUST, &["immaturesignature"]),
            (SPRING, &["jwt used before"]),
            (VERIFIER, &["issued in the future"]),
        ],
    },
    Meaning {
        source: "your-backend",
        code: Some(Code::AppTokenExpired),
        cause: "The app token's `exp` has passed: tokens of this service live for minutes, and the client kept one for longer; or the verifier's clock is ahead.",
        next: "Let the client exchange anew shortly before `expires_in` is over, and on a 401; compare the clock of the backend.",
        link: None,
        said: &[
            (PYJWT, &["signature has expired"]),
            (JOSE, &["\"exp\" claim timestamp check failed"]),
            (GO_OIDC, &["token is expired (token expiry"]),
            (GO_JWT, &["token is expired"]),
            (SPRING, &["jwt expired at"]),
            (ENVOY, &["jwt is expired"]),
            (DOTNET, &["idx10223"]),
            (RUST, &["expiredsignature"]),
            (HASURA, &["jwtexpired"]),
            (HASURA, &["pgrst301"]),
            (NODE, &["jwt expired"]),
        ],
    },
    Meaning {
        source: "your-backend",
        code: None,
        cause: "The verifier wants another `typ`: it takes `JWT` alone, or `at+jwt` alone (RFC 9068).",
        next: "Set `typ` in `[apps.NAME]` to the one that the verifier takes, or tell the verifier to take ours.",
        link: Some("https://github.com/logto-io/logto/issues/4910"),
        said: &[
            (NIMBUS, &["jose header", "typ", "not allowed"]),
            (JOSE, &["unexpected \"typ\" jwt header value"]),
        ],
    },
    Meaning {
        source: "your-backend",
        code: Some(Code::AppTokenSignatureInvalid),
        cause: "The signature does not verify with the key that the verifier chose: it has a fixed key of another service or of before a rotation, it chooses keys without `kid`, or the token was changed on its way.",
        next: "Pipe the token into `exchequer explain`: if it is accepted here, the verifier has the wrong key: let it fetch /.well-known/jwks.json and choose by `kid`.",
        link: None,
        said: &[
            (GO_OIDC, &["failed to verify signature"]),
            (GO_OIDC, &["failed to verify id token signature"]),
            (GO_JWT, &["token signature is invalid"]),
            (ENVOY, &["jwt verification fails"]),
            (DOTNET, &["idx10511"]),
            (HASURA, &["jwsinvalidsignature"]),
            (RUST, &["invalidsignature"]),
            (NIMBUS, &["signed jwt rejected: invalid signature"]),
            ("jose or PyJWT", &["signature verification failed"]),
            (NODE, &["invalid signature"]),
        ],
    },
    Meaning {
        source: "your-backend",
        code: Some(Code::AppTokenMalformed),
        cause: "What the verifier was given is no JWT: an opaque token, `Bearer ` left in front, `undefined` or `null` as text, or a session id.",
        next: "Log the length and the first three letters of what arrives (`eyJ` for a JWT), never the token itself.",
        link: None,
        said: &[
            (PYJWT, &["not enough segments"]),
            (JOSE, &["invalid compact jws"]),
            (GO_JWT, &["token is malformed"]),
            (GO_OIDC, &["malformed jwt"]),
            (
                SPRING,
                &[
                    "an error occurred while attempting to decode the jwt",
                    "malformed",
                ],
            ),
            (DOTNET, &["idx12741"]),
            (NODE, &["jwt malformed"]),
        ],
    },
    Meaning {
        source: "your-backend",
        code: None,
        cause: "golang-jwt found no key: its key function failed, and the words after it say why.",
        next: "Read what follows in the message; usually the key set could not be fetched, or has no key of that `kid`.",
        link: None,
        said: &[(GO_JWT, &["token is unverifiable"])],
    },
    // The browser.
    Meaning {
        source: "browser",
        code: None,
        cause: "The page's origin is none of those that this service lets browsers call from. Origins are compared exactly: scheme, host and port.",
        next: "Add the page's origin to EXCHEQUER_ALLOWED_ORIGINS, as the browser's message writes it. If that is done, look whether a proxy in front answers in this service's place.",
        link: None,
        said: &[
            (BROWSER, &["blocked by cors policy"]),
            (BROWSER, &["cross-origin request blocked"]),
        ],
    },
    Meaning {
        source: "browser",
        code: None,
        cause: "There was no answer at all, or one that the browser may not show: no network, a name that does not resolve, a certificate, a blocker, or CORS.",
        next: "Open the developer tools: the console says whether it is CORS (then see EXCHEQUER_ALLOWED_ORIGINS), the network panel whether a request was sent.",
        link: None,
        said: &[
            (BROWSER, &["failed to fetch"]),
            (BROWSER, &["networkerror when attempting to fetch"]),
            ("React Native", &["network request failed"]),
        ],
    },
    // OAuth's own words (RFC 6749 §4.1.2.1 and §5.2), whoever says them.
    Meaning {
        source: "elsewhere",
        code: Some(Code::UpstreamClientRefused),
        cause: "",
        next: "",
        link: None,
        said: &[(OAUTH, &["invalid_client"])],
    },
    Meaning {
        source: "elsewhere",
        code: None,
        cause: "The code, assertion or refresh token is expired, used, revoked, or was given to another client or for another `redirect_uri` (RFC 6749 §5.2).",
        next: "Begin again with a new one, and use it once. Where it fails each time, compare `redirect_uri` and `client_id` of the two requests.",
        link: None,
        said: &[(OAUTH, &["invalid_grant"])],
    },
    Meaning {
        source: "elsewhere",
        code: None,
        cause: "The client is known, and may not use this grant or response type there (RFC 6749 §5.2).",
        next: "Switch the grant on for this client in that server's dashboard.",
        link: None,
        said: &[(OAUTH, &["unauthorized_client"])],
    },
    Meaning {
        source: "elsewhere",
        code: None,
        cause: "A scope is unknown there, or the client may not ask for it (RFC 6749 §5.2).",
        next: "Ask for fewer scopes, or allow them to the client in that server's dashboard.",
        link: None,
        said: &[(OAUTH, &["invalid_scope"])],
    },
    Meaning {
        source: "elsewhere",
        code: None,
        cause: "The user pressed cancel, or may not use this application there (RFC 6749 §4.1.2.1).",
        next: "Let the user try again; look at who may use the application in that server's dashboard.",
        link: None,
        said: &[(OAUTH, &["error", "access_denied"])],
    },
];
