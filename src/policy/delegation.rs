//! Who acts for a subject (RFC 8693 §1.1, §4.1), and whether the subject's token lets it
//! (§4.4).
//!
//! An actor that is named in `act` is put before those that acted until now: none of these is
//! ever lost, none stands there twice, and there are five at most.

use crate::explain::{Code, Refusal};
use crate::subject::claims::MAX_ACTORS;
use crate::subject::json::Json;
use serde_json::{Map, Value};

type Refused = Box<Refusal>;

/// What tells two actors apart.
const IDENTITY: [&str; 3] = ["sub", "iss", "client_id"];

/// Somebody who acts for others: perhaps personal data, so it has no `Debug`.
pub struct Actor {
    /// The `iss` that vouches for it.
    pub issuer: String,
    /// Whether that is another than this service: only then it is told.
    pub foreign: bool,
    /// Its `sub`; a client's is its id.
    pub id: String,
    /// The client that it is, or the app that it is a user of, where this service vouches.
    pub client: Option<String>,
}

/// Who asks to act for the subject.
#[derive(Clone, Copy, Default)]
pub enum Acting<'r> {
    /// Nobody: the subject asks itself.
    #[default]
    Nobody,
    /// Somebody in its place, of whom the token says nothing (impersonation).
    Unnamed(&'r Actor),
    /// Somebody in its name, of whom the token says so (delegation).
    Named(&'r Actor),
}

impl std::fmt::Debug for Acting<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Nobody => "Nobody",
            Self::Unnamed(_) => "Unnamed(…)",
            Self::Named(_) => "Named(…)",
        })
    }
}

/// For whom is acted.
#[derive(Clone, Copy)]
pub struct Principal<'s> {
    /// The `iss` that vouches for it.
    pub issuer: &'s str,
    /// Its `sub`.
    pub id: &'s str,
    /// `may_act` of its token, where it has one.
    pub may_act: Option<&'s Json<'s>>,
    /// `act` of its token, where it has one.
    pub actor: Option<&'s Value>,
}

impl Acting<'_> {
    /// `act` of the token that is given, or why nobody may act so.
    pub fn judge(self, principal: Principal<'_>) -> Result<Option<Value>, Refused> {
        let before = principal.actor;
        let actor = match self {
            Self::Nobody => return Ok(before.cloned()),
            Self::Unnamed(actor) | Self::Named(actor) => actor,
        };
        if principal
            .may_act
            .is_some_and(|may_act| !actor.is(may_act, principal.issuer))
        {
            return Err(Refusal::new(Code::ActorNotAllowed));
        }
        match self {
            Self::Named(_) => actor.before(principal).map(Some),
            _ => Ok(before.cloned()),
        }
    }
}

impl Actor {
    /// Whether `may_act` means this one: by `sub` or `client_id`, and by `iss` where that is
    /// there. Where it is not, a `sub` is one of the token's own issuer, or of a client here.
    fn is(&self, may_act: &Json<'_>, issuer: &str) -> bool {
        let Json::Object(members) = may_act else {
            return false;
        };
        let says = |name, expected: Option<&str>| {
            members
                .get(name)
                .is_none_or(|value| expected.is_some() && value.as_str() == expected)
        };
        // A user of ours may be named as a client is.
        let is_client = !self.foreign && self.client.as_ref() == Some(&self.id);
        let known = is_client || self.issuer == issuer;
        (members.has("sub") || members.has("client_id"))
            && says("sub", Some(&self.id))
            && says("client_id", self.client.as_deref())
            && says("iss", Some(&self.issuer))
            && (known || members.has("iss"))
    }

    /// The chain with this actor before those of the principal's token.
    fn before(&self, principal: Principal<'_>) -> Result<Value, Refused> {
        let mut level = Map::new();
        level.insert("sub".to_owned(), self.id.clone().into());
        if self.foreign {
            level.insert("iss".to_owned(), self.issuer.clone().into());
        }
        if let Some(client) = self.client.as_ref().filter(|client| **client != self.id) {
            level.insert("client_id".to_owned(), client.clone().into());
        }
        let same = |other: &Value| {
            let mut names = IDENTITY.iter();
            names.all(|name| other.get(name) == level.get(*name))
        };
        if let Some(outer) = principal.actor.filter(|outer| same(outer)) {
            return Ok(outer.clone());
        }
        let mut depth = 1;
        let mut next = principal.actor;
        while let Some(each) = next {
            if same(each) {
                return Err(Refusal::new(Code::DelegationCyclic));
            }
            depth += 1;
            next = each.get("act");
        }
        if self.issuer == principal.issuer && self.id == principal.id {
            return Err(Refusal::new(Code::DelegationCyclic));
        }
        if depth > MAX_ACTORS {
            return Err(Refusal::new(Code::DelegationTooDeep));
        }
        if let Some(before) = principal.actor {
            level.insert("act".to_owned(), before.clone());
        }
        Ok(Value::Object(level))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subject::json::Object;
    use serde_json::json;

    const OURS: &str = "https://ours.example";
    const IDP: &str = "https://idp.example";

    fn client(id: &str) -> Actor {
        Actor {
            issuer: OURS.to_owned(),
            foreign: false,
            id: id.to_owned(),
            client: Some(id.to_owned()),
        }
    }

    fn user(issuer: &str, id: &str) -> Actor {
        Actor {
            issuer: issuer.to_owned(),
            foreign: true,
            id: id.to_owned(),
            client: None,
        }
    }

    fn judge(
        acting: Acting<'_>,
        may_act: Option<&str>,
        act: Option<&Value>,
    ) -> Result<Value, Code> {
        let bytes = may_act.map(|text| format!("{{\"may_act\":{text}}}"));
        let claims = bytes
            .as_ref()
            .map(|bytes| Object::parse(bytes.as_bytes()).unwrap());
        let principal = Principal {
            issuer: IDP,
            id: "user_1",
            may_act: claims.as_ref().and_then(|claims| claims.get("may_act")),
            actor: act,
        };
        let judged = acting.judge(principal).map_err(|refusal| refusal.code);
        judged.map(|act| act.unwrap_or_default())
    }

    #[test]
    fn a_chain_grows_at_its_outer_end_and_nobody_in_it_is_lost() {
        let mut chain = judge(Acting::Named(&client("c1")), None, None).unwrap();
        assert_eq!(chain, json!({"sub": "c1"}));
        chain = judge(Acting::Named(&user(IDP, "admin")), None, Some(&chain)).unwrap();
        assert_eq!(
            chain,
            json!({"sub": "admin", "iss": IDP, "act": {"sub": "c1"}})
        );
        let again = judge(Acting::Named(&user(IDP, "admin")), None, Some(&chain));
        assert_eq!(again.as_ref(), Ok(&chain), "who acts already acts on");
        let cyclic = judge(Acting::Named(&client("c1")), None, Some(&chain));
        assert_eq!(cyclic, Err(Code::DelegationCyclic));
        for id in ["c3", "c4", "c5"] {
            chain = judge(Acting::Named(&client(id)), None, Some(&chain)).unwrap();
        }
        let deep = judge(Acting::Named(&client("c6")), None, Some(&chain));
        assert_eq!(deep, Err(Code::DelegationTooDeep));
        let unnamed = judge(Acting::Unnamed(&client("c6")), None, Some(&chain));
        assert_eq!(unnamed.as_ref(), Ok(&chain), "impersonation strips nobody");
        assert_eq!(judge(Acting::Nobody, None, Some(&chain)), Ok(chain));
        let itself = judge(Acting::Named(&user(IDP, "user_1")), None, None);
        assert_eq!(itself, Err(Code::DelegationCyclic));
    }

    #[test]
    fn who_acts_is_not_shown_to_people() {
        let actor = user(IDP, "user_1");
        for (acting, shown) in [
            (Acting::Nobody, "Nobody"),
            (Acting::Unnamed(&actor), "Unnamed(…)"),
            (Acting::Named(&actor), "Named(…)"),
        ] {
            assert_eq!(format!("{acting:?}"), shown);
        }
    }

    #[test]
    fn a_user_of_ours_is_none_of_the_tokens_issuer() {
        let ours = Actor {
            issuer: OURS.to_owned(),
            foreign: false,
            id: "user_2".to_owned(),
            client: Some("web".to_owned()),
        };
        let acts = |may_act| judge(Acting::Named(&ours), Some(may_act), None);
        let no = Err(Code::ActorNotAllowed);
        assert_eq!(acts(r#"{"sub":"user_2"}"#), no);
        let of_ours = r#"{"sub":"user_2","iss":"https://ours.example"}"#;
        let chain = json!({"sub": "user_2", "client_id": "web"});
        assert_eq!(acts(of_ours), Ok(chain));
    }

    #[test]
    fn may_act_means_one_actor_and_no_namesake() {
        let (client, same, other) = (
            client("c1"),
            user(IDP, "c1"),
            user("https://o.example", "c1"),
        );
        let no = Err(Code::ActorNotAllowed);
        for (may_act, expected) in [
            (r#"{"sub":"c1"}"#, [true, true, false]),
            (r#"{"sub":"c2"}"#, [false, false, false]),
            (
                r#"{"sub":"c1","iss":"https://ours.example"}"#,
                [true, false, false],
            ),
            (
                r#"{"sub":"c1","iss":"https://idp.example"}"#,
                [false, true, false],
            ),
            (
                r#"{"sub":"c1","iss":"https://o.example"}"#,
                [false, false, true],
            ),
            (r#"{"client_id":"c1"}"#, [true, false, false]),
            (r#"{"sub":"c1","client_id":"c2"}"#, [false, false, false]),
            (
                r#"{"sub":"c1","email":"c1@example.com"}"#,
                [true, true, false],
            ),
            (r#"{"iss":"https://ours.example"}"#, [false, false, false]),
            (r#"{"sub":null}"#, [false, false, false]),
            ("{}", [false, false, false]),
            ("null", [false, false, false]),
            (r#""c1""#, [false, false, false]),
            (r#"[{"sub":"c1"}]"#, [false, false, false]),
        ] {
            for (actor, allowed) in [&client, &same, &other].into_iter().zip(expected) {
                for acting in [Acting::Named(actor), Acting::Unnamed(actor)] {
                    let judged = judge(acting, Some(may_act), None);
                    assert_eq!(judged != no, allowed, "{may_act} {acting:?}");
                }
            }
            assert_eq!(judge(Acting::Nobody, Some(may_act), None), Ok(Value::Null));
        }
    }
}
