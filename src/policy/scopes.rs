//! The scopes that a subject gets (RFC 6749 §3.3), and the permissions that they stand for.
//!
//! Granted is what is asked for, known to the app, and true for the subject by the scope's
//! `when`; where nothing is asked for, all that would be granted. What is not granted is
//! dropped, never refused: the answer's `scope` tells (RFC 6749 §5.1). So is a scope whose
//! `when` cannot be evaluated: to leave it out never grants more, and costs the subject no
//! other scope.

use crate::config::{Expression, OFFLINE_ACCESS, ScopeSettings};
use std::collections::BTreeSet;

/// Asks for no scope at all: none can have this name (RFC 6749 §3.3).
pub const NONE: &str = "\\";

/// The scopes that an app grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scopes {
    /// Their names, one space between two; empty where none is granted.
    pub names: String,
    /// What they stand for together, sorted, each once.
    pub permissions: Vec<String>,
    /// Why a scope was dropped whose `when` could not be evaluated, for operators.
    pub faults: Vec<String>,
}

impl Scopes {
    /// The faults in a line, where there are some.
    pub fn shown_faults(&self) -> Option<String> {
        (!self.faults.is_empty()).then(|| self.faults.join("; "))
    }
}

/// Grants scopes among those that the app knows.
///
/// `held` are those of a delegated token, `None` for a session. A delegated token never gets
/// more than it was given: its scope of the same name, or what a `when` that reads `scopes`
/// makes of them. `holds` evaluates a `when` for the subject.
pub fn grant(
    known: &[ScopeSettings],
    asked: Option<&str>,
    held: Option<&[&str]>,
    holds: impl Fn(&Expression) -> Result<bool, String>,
) -> Scopes {
    let asked: Vec<&str> = words(asked.unwrap_or_default())
        .filter(|name| *name != OFFLINE_ACCESS)
        .collect();
    let wanted: Vec<&ScopeSettings> = if asked.is_empty() {
        known.iter().collect()
    } else {
        let find = |name: &&str| known.iter().find(|scope| scope.name == *name);
        asked.iter().filter_map(find).collect()
    };
    let mut names: Vec<&str> = Vec::new();
    let mut permissions = BTreeSet::new();
    let mut faults = Vec::new();
    let mut judged = BTreeSet::new();
    for scope in wanted {
        if !judged.insert(&scope.name) || !delegated(scope, held) {
            continue;
        }
        match scope.when.as_ref().map_or(Ok(true), &holds) {
            Ok(true) => {
                names.push(&scope.name);
                permissions.extend(scope.permissions.iter().cloned());
            }
            Ok(false) => {}
            Err(cause) => faults.push(format!("{}: {cause}", scope.name)),
        }
    }
    Scopes {
        names: names.join(" "),
        permissions: permissions.into_iter().collect(),
        faults,
    }
}

/// The names in a `scope` parameter.
pub fn words(scope: &str) -> impl Iterator<Item = &str> {
    scope.split(' ').filter(|name| !name.is_empty())
}

/// A `scope` parameter without the name that asks for a refresh token.
pub fn online(scope: &str) -> String {
    let names: Vec<&str> = words(scope)
        .filter(|name| *name != OFFLINE_ACCESS)
        .collect();
    names.join(" ")
}

/// Whether the token itself lets the scope be granted.
fn delegated(scope: &ScopeSettings, held: Option<&[&str]>) -> bool {
    let reads = |when: &Expression| when.reads("scopes");
    held.is_none_or(|held| {
        held.contains(&scope.name.as_str()) || scope.when.as_ref().is_some_and(reads)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use cel::{Context, Value};
    use proptest::prelude::*;

    fn scope(name: &str, permissions: &[&str], when: Option<&str>) -> ScopeSettings {
        ScopeSettings {
            name: name.to_owned(),
            permissions: permissions.iter().map(|&each| each.to_owned()).collect(),
            when: when.map(|source| Expression {
                source: source.to_owned(),
                program: cel::Program::compile(source).unwrap().into(),
            }),
        }
    }

    /// `when` over the variable `scopes` alone.
    fn granted(known: &[ScopeSettings], asked: Option<&str>, held: Option<&[&str]>) -> Scopes {
        grant(known, asked, held, |when| {
            let mut context = Context::default();
            let list = held.unwrap_or_default().to_vec();
            context.add_variable("scopes", list).unwrap();
            match when.program.execute(&context) {
                Ok(Value::Bool(truth)) => Ok(truth),
                other => Err(format!("{other:?}")),
            }
        })
    }

    fn known() -> Vec<ScopeSettings> {
        vec![
            scope("a", &["x", "y"], None),
            scope("b", &["y", "z"], Some("true")),
            scope("c", &["c"], Some("false")),
            scope("d", &["d"], Some("nobody.knows == 1")),
            scope("e", &["e"], Some("'external' in scopes")),
            scope("f", &[], Some("['a'].exists(scopes, scopes == 'a')")),
        ]
    }

    #[test]
    fn asked_for_known_and_true_is_granted_and_the_rest_dropped() {
        for (asked, held, names, permissions) in [
            (None, None, "a b f", vec!["x", "y", "z"]),
            (Some(" "), None, "a b f", vec!["x", "y", "z"]),
            (Some("b a"), None, "b a", vec!["x", "y", "z"]),
            (Some("a  a a"), None, "a", vec!["x", "y"]),
            (Some("c"), None, "", vec![]),
            (Some("d"), None, "", vec![]),
            (Some("A unknown"), None, "", vec![]),
            (Some("unknown a"), None, "a", vec!["x", "y"]),
            // A delegated token gets what it holds by name, or what a `when` reads of it.
            (None, Some(&[][..]), "", vec![]),
            (None, Some(&["b"][..]), "b", vec!["y", "z"]),
            (Some("a b"), Some(&["b", "c"][..]), "b", vec!["y", "z"]),
            (Some("c"), Some(&["c"][..]), "", vec![]),
            (Some("e a"), Some(&["external"][..]), "e", vec!["e"]),
            (Some("e"), Some(&["e"][..]), "", vec![]),
            // A macro's own variable of that name is not the token's scopes.
            (Some("f"), Some(&["a"][..]), "", vec![]),
        ] {
            let found = granted(&known(), asked, held);
            assert_eq!(found.names, names, "{asked:?} {held:?}");
            assert_eq!(found.permissions, permissions, "{asked:?} {held:?}");
        }
        let faults = granted(&known(), None, None).faults;
        assert_eq!(faults.len(), 1);
        assert!(faults[0].starts_with("d: "), "{faults:?}");
    }

    fn names() -> impl Strategy<Value = Vec<String>> {
        prop::collection::vec("[a-h]", 0..8)
    }

    proptest! {
        #[test]
        fn never_more_than_was_asked_for_and_is_known(
            asked in names(), held in prop::option::of(names()), picked in names(),
        ) {
            let known: Vec<ScopeSettings> = known()
                .into_iter()
                .filter(|scope| picked.contains(&scope.name))
                .collect();
            let asked = asked.join(" ");
            let held: Option<Vec<&str>> =
                held.as_ref().map(|held| held.iter().map(String::as_str).collect());
            let once = granted(&known, Some(&asked), held.as_deref());
            let names: Vec<&str> = words(&once.names).collect();
            for name in &names {
                prop_assert!(asked.is_empty() || words(&asked).any(|each| each == *name));
                prop_assert!(known.iter().any(|scope| scope.name == *name));
                prop_assert_eq!(names.iter().filter(|each| *each == name).count(), 1);
            }
            let mut order: Vec<&str> = words(&asked).collect();
            order.retain(|name| names.contains(name));
            order.dedup();
            if !asked.is_empty() {
                let first: Vec<&str> = order.iter().enumerate()
                    .filter(|(at, name)| order.iter().position(|each| each == *name) == Some(*at))
                    .map(|(_, name)| *name)
                    .collect();
                prop_assert_eq!(&names, &first, "in the order in which they were asked for");
            }
            for permission in &once.permissions {
                let stands = |scope: &ScopeSettings| scope.permissions.contains(permission)
                    && names.contains(&scope.name.as_str());
                prop_assert!(known.iter().any(stands));
            }
            prop_assert_eq!(&granted(&known, Some(&asked), held.as_deref()), &once);
            if !names.is_empty() {
                let again = granted(&known, Some(&once.names), held.as_deref());
                prop_assert_eq!(&again.names, &once.names, "asking for what was granted grants it");
                prop_assert_eq!(&again.permissions, &once.permissions);
            }
            // A delegated token never gets what a session would not.
            if held.is_some() {
                let session = grant(&known, Some(&asked), None, |_| Ok(true));
                for name in &names {
                    prop_assert!(words(&session.names).any(|each| each == *name));
                }
            }
        }
    }
}
