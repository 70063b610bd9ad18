//! An app's expressions (CEL) over the verified claims.

use super::Profile;
use crate::config::Expression;
use crate::explain::{Code, Refusal};
use crate::subject::Subject;
use cel::{Context, ExecutionError, Value as Cel};
use serde_json::Value;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What the expressions of one exchange read; made only where an app has expressions.
pub(super) struct Scope<'s>(Context<'s, 's>);

impl Scope<'_> {
    pub(super) fn new(
        subject: &Subject<'_>,
        profile: &Profile,
        app: &str,
    ) -> Result<Self, Box<Refusal>> {
        let organization = subject.organization.as_ref();
        let role = organization.and_then(|org| org.role.as_deref());
        // What a token says is newer than what is kept.
        let mut user = profile.user.clone();
        user.insert("id".to_owned(), subject.id.into());
        let mut org = profile.organization.clone();
        org.insert(
            "id".to_owned(),
            organization.map_or("", |org| org.id).into(),
        );
        org.insert("role".to_owned(), role.unwrap_or_default().into());
        if let Some(slug) = organization.and_then(|org| org.slug) {
            org.insert("slug".to_owned(), slug.into());
        }
        org.entry("slug").or_insert_with(|| "".into());
        let mut membership = profile.membership.clone();
        if let Some(role) = role {
            membership.insert("role".to_owned(), role.into());
        }
        let roles: Vec<&str> = role.into_iter().collect();
        let permissions = organization.map(|org| org.permissions.as_slice());
        let mut context = Context::default();
        let mut add =
            |name: &str, value: Result<Cel, _>| match value {
                Ok(value) => {
                    context.add_variable_from_value(name, value);
                    Ok(())
                }
                Err(_) => Err(Refusal::new(Code::ExpressionFailed)
                    .caused_by(format!("{name} has no CEL form"))),
            };
        add("claims", cel::to_value(subject.claims))?;
        add("iss", cel::to_value(subject.issuer))?;
        add("sub", cel::to_value(subject.id))?;
        add("sid", cel::to_value(subject.session_id.unwrap_or_default()))?;
        add("org", cel::to_value(org))?;
        add("roles", cel::to_value(roles))?;
        add(
            "permissions",
            cel::to_value(permissions.unwrap_or_default()),
        )?;
        add("plans", cel::to_value(&subject.plans))?;
        add("features", cel::to_value(&subject.features))?;
        add("act", cel::to_value(&subject.actor))?;
        add("auth_time", cel::to_value(subject.authenticated_at))?;
        add("app", cel::to_value(app))?;
        add("scopes", cel::to_value(&subject.scopes))?;
        add("user", cel::to_value(user))?;
        add("membership", cel::to_value(membership))?;
        Ok(Self(context))
    }

    /// Evaluates an expression to JSON; `null` says that there is no such claim.
    pub(super) fn evaluate(
        &self,
        name: &str,
        expression: &Expression,
    ) -> Result<Value, Box<Refusal>> {
        let failed = |cause: &str| {
            Refusal::because(
                Code::ExpressionFailed,
                format!("The app's `{name}` could not be evaluated for this subject."),
            )
            .caused_by(format!("{name} = {:?}: {cause}", expression.source))
        };
        // The interpreter is not ours: should it panic on some input, one request is refused.
        catch_unwind(AssertUnwindSafe(|| expression.program.execute(&self.0)))
            .map_err(|_| failed("the interpreter failed"))?
            .map_err(|error| failed(&explain(&error, &expression.source)))?
            .json()
            .map_err(|_| failed("the value has no JSON form"))
    }
}

/// The error without the values in it: they are the subject's own data. A missing key may be
/// one of them, unless it stands in the expression itself.
fn explain(error: &ExecutionError, source: &str) -> String {
    let written = |key: &str| {
        source
            .split(|each: char| !each.is_alphanumeric() && each != '_')
            .any(|word| word == key)
    };
    match error {
        ExecutionError::NoSuchKey(key) if written(key) => format!("there is no {key:?}"),
        ExecutionError::NoSuchKey(_) => "a key is missing".to_owned(),
        ExecutionError::UndeclaredReference(name) => format!("{name:?} is unknown"),
        ExecutionError::NoSuchOverload(error) => error.to_string(),
        ExecutionError::UnexpectedType { got, want } => format!("a {got} where a {want} is needed"),
        ExecutionError::FunctionError { function, .. } => format!("{function}() failed"),
        ExecutionError::IndexOutOfBounds(_) => "an index is out of bounds".to_owned(),
        _ => "the operands do not fit".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_an_expression_failed_is_told_without_a_value() {
        let source = "claims.email == claims[sub]";
        let text = |text: &str| text.to_owned();
        let overload = ExecutionError::no_such_overload("size", vec![text("int")]);
        let of_overload = overload.to_string();
        for (error, words) in [
            (
                ExecutionError::NoSuchKey(text("email").into()),
                "there is no \"email\"",
            ),
            (
                ExecutionError::NoSuchKey(text("user_1").into()),
                "a key is missing",
            ),
            (
                ExecutionError::UndeclaredReference(text("clams").into()),
                "\"clams\" is unknown",
            ),
            (overload, &of_overload),
            (
                ExecutionError::UnexpectedType {
                    got: text("int"),
                    want: text("bool"),
                },
                "a int where a bool is needed",
            ),
            (
                ExecutionError::FunctionError {
                    function: text("matches"),
                    message: text("user_1"),
                },
                "matches() failed",
            ),
            (
                ExecutionError::IndexOutOfBounds(Cel::Int(7)),
                "an index is out of bounds",
            ),
            (
                ExecutionError::DivisionByZero(Cel::Int(7)),
                "the operands do not fit",
            ),
        ] {
            assert_eq!(explain(&error, source), words);
        }
    }
}
