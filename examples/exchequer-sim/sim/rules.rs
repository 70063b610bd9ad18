//! How verifiers keep a key set: the rules of the table in docs/keys.md, as data.

pub const MINUTE: i64 = 60;
pub const HOUR: i64 = 60 * MINUTE;
pub const DAY: i64 = 24 * HOUR;

/// When what is held is fetched anew, whatever is asked of it. Seconds.
#[derive(Clone, Copy)]
pub enum Keeps {
    /// The whole set, until a token comes and it is older than this.
    Set(i64),
    /// The whole set, for as long as the process lives.
    SetForEver,
    /// Each key for so long, and so many of them; a key that is not there is fetched.
    EachKey(i64, usize),
    /// The whole set, fetched every so often by a timer.
    Polls(i64),
    /// What was read at the start, until the next: every so often.
    UntilRestart(i64),
}

/// What becomes of a token whose `kid` is not held.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// The set is fetched, unless it was within so many seconds.
    Asks(i64),
    /// It is refused.
    Refuses,
}

/// Verifiers that fail alike: the columns of the table and the lines of the picture.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Class {
    KeepsForEver,
    Asks,
    QuarterHour,
    Istio,
    AwsHttp,
    RestartedDaily,
    RestartedWeekly,
}

impl Class {
    pub const ALL: [Self; 7] = [
        Self::KeepsForEver,
        Self::Asks,
        Self::QuarterHour,
        Self::Istio,
        Self::AwsHttp,
        Self::RestartedDaily,
        Self::RestartedWeekly,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::KeepsForEver => "asks, forgets nothing",
            Self::Asks => "asks, and refreshes",
            Self::QuarterHour => "refreshes within 15 min",
            Self::Istio => "20 min (Istio)",
            Self::AwsHttp => "2 h (AWS HTTP API)",
            Self::RestartedDaily => "never, restarted daily",
            Self::RestartedWeekly => "never, restarted weekly",
        }
    }

    /// Whether it ever looks at the key set again: whether a publish-ahead time can suffice
    /// whatever its operator does.
    pub fn refreshes(self) -> bool {
        !matches!(self, Self::RestartedDaily | Self::RestartedWeekly)
    }
}

/// One kind of verifier.
pub struct Rule {
    pub name: &'static str,
    pub class: Class,
    pub keeps: Keeps,
    pub unknown: Unknown,
}

const fn rule(name: &'static str, class: Class, keeps: Keeps, unknown: Unknown) -> Rule {
    Rule {
        name,
        class,
        keeps,
        unknown,
    }
}

/// Every rule, each with as many verifiers as the next. The key set's own `max-age`, five
/// minutes, is in Hasura's rule and, raised to its least, in jwx's; the others have times of
/// their own.
pub const RULES: [Rule; 18] = {
    use Class::{AwsHttp, Istio, QuarterHour, RestartedDaily, RestartedWeekly};
    use Keeps::{EachKey, Polls, Set, SetForEver, UntilRestart};
    use Unknown::{Asks, Refuses};
    [
        rule(
            "go-oidc v3, oauth2-proxy",
            Class::KeepsForEver,
            SetForEver,
            Asks(0),
        ),
        rule("aws-jwt-verify", Class::KeepsForEver, SetForEver, Asks(10)),
        rule("keyfunc v3", Class::Asks, Polls(HOUR), Asks(5 * MINUTE)),
        rule("jose", Class::Asks, Set(10 * MINUTE), Asks(30)),
        rule("jwks-rsa", Class::Asks, EachKey(10 * MINUTE, 5), Asks(0)),
        rule("PyJWT", Class::Asks, Set(5 * MINUTE), Asks(30)),
        rule("Nimbus, Spring", Class::Asks, Set(5 * MINUTE), Asks(30)),
        rule("Ktor", Class::Asks, EachKey(10 * HOUR, 5), Asks(0)),
        rule("AWS REST API", Class::Asks, Polls(HOUR), Asks(0)),
        rule("Apollo Router", QuarterHour, Polls(MINUTE), Refuses),
        rule("Hasura", QuarterHour, Polls(5 * MINUTE), Refuses),
        rule("Envoy", QuarterHour, Set(10 * MINUTE), Refuses),
        rule("Hive Router", QuarterHour, Polls(10 * MINUTE), Refuses),
        rule("jwx v3 cache", QuarterHour, Polls(15 * MINUTE), Refuses),
        rule("Istio", Istio, Polls(20 * MINUTE), Refuses),
        rule("AWS HTTP API", AwsHttp, Set(2 * HOUR), Refuses),
        rule(
            "PostgREST, restarted daily",
            RestartedDaily,
            UntilRestart(DAY),
            Refuses,
        ),
        rule(
            "PostgREST, restarted weekly",
            RestartedWeekly,
            UntilRestart(7 * DAY),
            Refuses,
        ),
    ]
};
