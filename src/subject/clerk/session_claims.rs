//! Clerk's session claims, version 1 and version 2, as `@clerk/backend` reads them.

use crate::subject::Organization;
use crate::subject::json::{Json, Object};
use std::borrow::Cow;

/// The longest number in `o.fpm`, in decimal digits, and the most names in `o.per`:
/// bounds on work, far above what Clerk packs.
const MAX_DIGITS: usize = 128;
const MAX_PERMISSIONS: usize = 400;

/// What a session token says beside the registered claims.
#[cfg_attr(test, derive(Debug))]
#[derive(Default, PartialEq)]
pub(in crate::subject) struct Session<'c> {
    pub organization: Option<Organization<'c>>,
    pub plans: Vec<&'c str>,
    pub features: Vec<&'c str>,
    /// Minutes since the first factor was verified.
    pub first_factor_age: Option<i64>,
    /// `sts`.
    pub status: Option<&'c str>,
}

/// Reads the claims; the error is the name of the claim that is malformed.
pub(in crate::subject) fn read<'c>(claims: &'c Object<'c>) -> Result<Session<'c>, &'static str> {
    let plans = list(text(claims, "pla")?);
    let features = list(text(claims, "fea")?);
    let organization = match claims.get("v") {
        None => organization_v1(claims)?,
        Some(version) if version.as_i64() == Some(2) => organization_v2(claims, &features)?,
        Some(_) => return Err("v"),
    };
    Ok(Session {
        organization,
        plans,
        features,
        first_factor_age: first_factor_age(claims)?,
        status: text(claims, "sts")?,
    })
}

fn text<'c>(claims: &'c Object<'c>, name: &'static str) -> Result<Option<&'c str>, &'static str> {
    match claims.get(name) {
        None | Some(Json::Null) => Ok(None),
        Some(Json::Text(text)) => Ok(Some(text)),
        Some(_) => Err(name),
    }
}

fn list(text: Option<&str>) -> Vec<&str> {
    text.into_iter()
        .flat_map(|text| text.split(','))
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .collect()
}

fn organization_v1<'c>(claims: &'c Object<'c>) -> Result<Option<Organization<'c>>, &'static str> {
    let Some(id) = text(claims, "org_id")? else {
        return Ok(None);
    };
    let permissions = match claims.get("org_permissions") {
        None | Some(Json::Null) => Vec::new(),
        Some(Json::List(items)) => items
            .iter()
            .map(|item| item.as_str().map(Cow::Borrowed))
            .collect::<Option<_>>()
            .ok_or("org_permissions")?,
        Some(_) => return Err("org_permissions"),
    };
    Ok(Some(Organization {
        id,
        slug: text(claims, "org_slug")?,
        role: text(claims, "org_role")?.map(Cow::Borrowed),
        permissions,
    }))
}

fn organization_v2<'c>(
    claims: &'c Object<'c>,
    features: &[&str],
) -> Result<Option<Organization<'c>>, &'static str> {
    let packed = match claims.get("o") {
        None | Some(Json::Null) => return Ok(None),
        Some(Json::Object(packed)) => packed,
        Some(_) => return Err("o"),
    };
    let member = |name| text(packed, name).map_err(|_| "o");
    let id = member("id")?.ok_or("o")?;
    Ok(Some(Organization {
        id,
        slug: member("slg")?,
        role: member("rol")?.map(|role| Cow::Owned(format!("org:{role}"))),
        permissions: unpack(features, member("per")?, member("fpm")?).ok_or("o")?,
    }))
}

/// `per` names permissions; for each feature of organisation scope, in the order of `fea`,
/// `fpm` has a number whose bits say which of them it has, lowest bit first.
fn unpack<'c>(
    features: &[&str],
    per: Option<&str>,
    fpm: Option<&str>,
) -> Option<Vec<Cow<'c, str>>> {
    let (per, fpm) = match (per, fpm) {
        (Some(per), Some(fpm)) if !per.is_empty() && !fpm.is_empty() => (per, fpm),
        // An empty list is as good as none: a member without permissions.
        _ => return Some(Vec::new()),
    };
    let names: Vec<&str> = per.split(',').map(str::trim).collect();
    if names.len() > MAX_PERMISSIONS {
        return None;
    }
    let of_organization = features.iter().filter_map(|feature| {
        let (scope, name) = feature.split_once(':')?;
        scope.contains('o').then_some(name)
    });
    let mut permissions = Vec::new();
    for (feature, number) in of_organization.zip(fpm.split(',')) {
        for (name, set) in names.iter().zip(bits(number.trim(), names.len())?) {
            if set {
                permissions.push(Cow::Owned(format!("org:{feature}:{name}")));
            }
        }
    }
    Some(permissions)
}

/// The lowest bits of a decimal number of any length, lowest first.
fn bits(decimal: &str, count: usize) -> Option<Vec<bool>> {
    if decimal.is_empty() || decimal.len() > MAX_DIGITS {
        return None;
    }
    if let Ok(small) = decimal.parse::<u64>() {
        let bit = |place: usize| place < 64 && small >> place & 1 == 1;
        return decimal
            .starts_with(|first: char| first.is_ascii_digit())
            .then(|| (0..count).map(bit).collect());
    }
    let mut digits = decimal
        .bytes()
        .map(|byte| byte.is_ascii_digit().then(|| byte - b'0'))
        .collect::<Option<Vec<u8>>>()?;
    let mut bits = Vec::with_capacity(count);
    for _ in 0..count {
        let mut remainder = 0;
        for digit in &mut digits {
            let value = remainder * 10 + *digit;
            *digit = value / 2;
            remainder = value % 2;
        }
        bits.push(remainder == 1);
    }
    Some(bits)
}

/// `fva`: minutes since the first factor, minutes since the second, -1 for never.
fn first_factor_age(claims: &Object<'_>) -> Result<Option<i64>, &'static str> {
    match claims.get("fva") {
        None | Some(Json::Null) => Ok(None),
        Some(Json::List(ages)) => match ages.as_slice() {
            [first, second] => {
                let (first, _) = first.as_i64().zip(second.as_i64()).ok_or("fva")?;
                Ok(Some(first).filter(|age| (0..=1 << 32).contains(age)))
            }
            _ => Err("fva"),
        },
        Some(_) => Err("fva"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(claims: Value) -> Result<Session<'static>, &'static str> {
        let text = claims.to_string().leak();
        let object = Box::leak(Box::new(Object::parse(text.as_bytes()).unwrap()));
        super::read(object)
    }

    #[test]
    fn version_1() {
        let session = read(json!({
            "org_id": "org_1", "org_slug": "acme", "org_role": "org:admin",
            "org_permissions": ["org:tasks:read"], "fva": [3, -1], "sts": "active"
        }))
        .unwrap();
        assert_eq!(
            session.organization,
            Some(Organization {
                id: "org_1",
                slug: Some("acme"),
                role: Some("org:admin".into()),
                permissions: vec!["org:tasks:read".into()],
            })
        );
        assert_eq!(session.first_factor_age, Some(3));
        assert_eq!(session.status, Some("active"));
    }

    #[test]
    fn version_2_unpacks_permissions_of_organization_features_only() {
        let session = read(json!({
            "v": 2, "pla": "u:pro,o:team", "fea": "o:tasks,u:export,uo:chat",
            "o": {"id": "org_2", "slg": "b", "rol": "member", "per": "create,read,manage", "fpm": "3,4"}
        }))
        .unwrap();
        let organization = session.organization.unwrap();
        assert_eq!(organization.role.as_deref(), Some("org:member"));
        assert_eq!(
            organization.permissions,
            ["org:tasks:create", "org:tasks:read", "org:chat:manage"]
        );
        assert_eq!(session.plans, ["u:pro", "o:team"]);
    }

    #[test]
    fn numbers_of_more_than_64_bits() {
        let names: Vec<String> = (0..70).map(|i| format!("p{i}")).collect();
        let session = read(json!({
            "v": 2, "fea": "o:f",
            // 2^69 + 1
            "o": {"id": "org_3", "per": names.join(","), "fpm": "590295810358705651713"}
        }))
        .unwrap();
        assert_eq!(
            session.organization.unwrap().permissions,
            ["org:f:p0", "org:f:p69"]
        );
    }

    #[test]
    fn what_has_the_wrong_type_is_named() {
        assert_eq!(read(json!({"v": 3})), Err("v"));
        assert_eq!(read(json!({"v": 2, "o": 1})), Err("o"));
        assert_eq!(read(json!({"v": 2, "o": {}})), Err("o"));
        assert_eq!(
            read(json!({"v": 2, "fea": "o:f", "o": {"id": "x", "per": "a", "fpm": "x"}})),
            Err("o")
        );
        assert_eq!(read(json!({"org_id": 1})), Err("org_id"));
        assert_eq!(
            read(json!({"org_id": "o", "org_permissions": [1]})),
            Err("org_permissions")
        );
        assert_eq!(read(json!({"fva": [1]})), Err("fva"));
        assert_eq!(read(json!({"sts": false})), Err("sts"));
        assert_eq!(read(json!({})), Ok(Session::default()));
    }
}
