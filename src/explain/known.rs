//! Known faults of widely used libraries, each with the thread where its makers speak of it, and
//! the codes that whoever meets it is likely to look up.

use super::catalogue::Code;
use serde::Serialize;

/// A known fault of somebody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct KnownIssue {
    /// Whose it is.
    pub library: &'static str,
    /// What goes wrong, and since or until when.
    pub what: &'static str,
    /// Where it is told.
    pub link: &'static str,
    /// Where it shows.
    #[serde(skip)]
    pub codes: &'static [Code],
}

/// All of them.
pub const KNOWN_ISSUES: &[KnownIssue] = &[
    KnownIssue {
        library: "@clerk/backend",
        what: "Up to 3.10, a process with several instances verified all tokens with the key that came first (`token-invalid-signature`) where keys were given as PEM; since August 2026 keys are kept apart by instance.",
        link: "https://github.com/clerk/javascript/pull/9394",
        codes: &[Code::SubjectTokenSignatureInvalid],
    },
    KnownIssue {
        library: "Clerk's SDKs for Python, Go, C# and Ruby",
        what: "Before August 2026 they cached the keys of all instances in a process together, without the instance.",
        link: "https://github.com/clerk/clerk-sdk-python/pull/248",
        codes: &[
            Code::SubjectTokenSignatureInvalid,
            Code::SubjectTokenKeyUnknown,
        ],
    },
    KnownIssue {
        library: "Clerk's Frontend API",
        what: "Session tokens in cookies have no `azp` where the request that made them had no Origin header, which holds for every navigation; `getToken()` of the front end gives one that has it.",
        link: "https://github.com/clerk/javascript/issues/8231",
        codes: &[Code::SubjectTokenAuthorizedPartyMissing],
    },
    KnownIssue {
        library: "Clerk's Backend API",
        what: "Session tokens that a backend makes with its secret key have no `azp`, and no template can add it.",
        link: "https://github.com/clerk/clerk-sdk-python/issues/90",
        codes: &[Code::SubjectTokenAuthorizedPartyMissing],
    },
    KnownIssue {
        library: "@clerk/expo",
        what: "`getToken({ skipCache: true })` failed as if the device were offline in 3.1.2, so that apps went on with the token that had expired.",
        link: "https://github.com/clerk/javascript/issues/8083",
        codes: &[Code::SubjectTokenExpired],
    },
    KnownIssue {
        library: "PyJWT",
        what: "Since 2.6 it refuses a token whose `iat` is ahead by any time at all (`The token is not yet valid (iat)`) unless it is given `leeway`.",
        link: "https://github.com/jpadilla/pyjwt/issues/824",
        codes: &[Code::SubjectTokenIssuedInFuture],
    },
    KnownIssue {
        library: "Authlib",
        what: "Its `private_key_jwt` writes the token endpoint into `aud`, and cannot be told the issuer; both are taken here, byte for byte.",
        link: "https://github.com/authlib/authlib/issues/730",
        codes: &[Code::ClientAssertionAudienceMismatch],
    },
];

impl Code {
    /// The known faults of others behind which this code may be.
    pub fn known_issues(self) -> impl Iterator<Item = &'static KnownIssue> {
        KNOWN_ISSUES
            .iter()
            .filter(move |issue| issue.codes.contains(&self))
    }
}
