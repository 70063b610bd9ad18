//! The objects of Clerk's Backend API, each built in one place. Times are Unix milliseconds;
//! those of an OAuth access token are seconds, as `@clerk/backend` has them.

use super::identifier;
use super::world::at;
use serde_json::{Value, json};

/// Milliseconds in a day.
const DAY: i64 = 86_400_000;

/// A user with one verified e-mail address.
pub(super) fn user(id: &str, now: i64) -> Value {
    let name = id.strip_prefix("user_").unwrap_or(id).to_lowercase();
    let email = format!("idn_{name}");
    json!({
        "object": "user",
        "id": id,
        "username": null,
        "first_name": "Ada",
        "last_name": "Lovelace",
        "locale": "en-GB",
        "image_url": "https://img.clerk.com/standin",
        "has_image": false,
        "primary_email_address_id": email,
        "primary_phone_number_id": null,
        "primary_web3_wallet_id": null,
        "password_enabled": true,
        "two_factor_enabled": false,
        "totp_enabled": false,
        "backup_code_enabled": false,
        "email_addresses": [{
            "object": "email_address",
            "id": email,
            "email_address": format!("{name}@example.com"),
            "verification": {
                "object": "verification_otp",
                "status": "verified",
                "strategy": "email_code",
                "attempts": 1,
                "expire_at": now,
            },
            "linked_to": [],
            "reserved": false,
            "created_at": now,
            "updated_at": now,
        }],
        "phone_numbers": [],
        "web3_wallets": [],
        "organization_memberships": null,
        "external_accounts": [],
        "enterprise_accounts": [],
        "password_last_updated_at": now,
        "public_metadata": {},
        "private_metadata": {"note": "private: never in a token"},
        "unsafe_metadata": {},
        "external_id": null,
        "last_sign_in_at": now,
        "banned": false,
        "locked": false,
        "lockout_expires_in_seconds": null,
        "verification_attempts_remaining": 100,
        "created_at": now,
        "updated_at": now,
        "last_active_at": now,
        "create_organization_enabled": true,
        "create_organizations_limit": null,
        "delete_self_enabled": true,
        "legal_accepted_at": null,
    })
}

/// A session that began now.
pub(super) fn session(id: &str, user: &str, status: &str, now: i64) -> Value {
    json!({
        "object": "session",
        "id": id,
        "client_id": identifier("client"),
        "user_id": user,
        "status": status,
        "actor": null,
        "latest_activity": {
            "object": "session_activity",
            "id": identifier("sess_activity"),
            "device_type": "iPhone",
            "is_mobile": true,
            "browser_name": "Mobile Safari",
            "browser_version": "18.0",
            "ip_address": "203.0.113.7",
            "city": "Berlin",
            "country": "DE",
        },
        "last_active_at": now,
        "expire_at": now + 7 * DAY,
        "abandon_at": now + 30 * DAY,
        "created_at": now,
        "updated_at": now,
    })
}

/// An organisation.
pub(super) fn organization(id: &str, slug: &str, now: i64) -> Value {
    json!({
        "object": "organization",
        "id": id,
        "name": slug,
        "slug": slug,
        "image_url": "https://img.clerk.com/standin",
        "has_image": false,
        "max_allowed_memberships": 5,
        "admin_delete_enabled": true,
        "public_metadata": {},
        "private_metadata": {"note": "private: never in a token"},
        "created_at": now,
        "updated_at": now,
    })
}

/// What a role may do. The system's own permissions are in a membership and in no token.
fn permissions(role: &str) -> &'static [&'static str] {
    match role {
        "org:admin" => &[
            "org:sys_profile:manage",
            "org:sys_profile:delete",
            "org:sys_memberships:read",
            "org:sys_memberships:manage",
            "org:tasks:create",
            "org:tasks:read",
        ],
        _ => &["org:sys_memberships:read", "org:tasks:read"],
    }
}

/// A user's membership in an organisation.
pub(super) fn membership(
    id: &str,
    user: &Value,
    organization: &Value,
    role: &str,
    now: i64,
) -> Value {
    json!({
        "object": "organization_membership",
        "id": id,
        "role": role,
        "role_name": role.trim_start_matches("org:"),
        "permissions": permissions(role),
        "public_metadata": {},
        "private_metadata": {},
        "organization": organization,
        "public_user_data": {
            "user_id": at(user, "/id"),
            "identifier": at(user, "/email_addresses/0/email_address"),
            "first_name": at(user, "/first_name"),
            "last_name": at(user, "/last_name"),
            "image_url": at(user, "/image_url"),
            "has_image": at(user, "/has_image"),
        },
        "created_at": now,
        "updated_at": now,
    })
}

/// An OAuth access token, an hour long; `now` in seconds.
pub(super) fn oauth_token(client: &str, subject: &str, scopes: &[&str], now: i64) -> Value {
    json!({
        "object": "clerk_idp_oauth_access_token",
        "id": identifier("oat"),
        "client_id": client,
        "type": "oauth:access_token",
        "subject": subject,
        "scopes": scopes,
        "revoked": false,
        "revocation_reason": null,
        "expired": false,
        "expiration": now + 3600,
        "created_at": now,
        "updated_at": now,
    })
}

/// A machine's token, an hour long.
pub(super) fn machine_token(subject: &str, scopes: &[&str], now: i64) -> Value {
    json!({
        "object": "machine_to_machine_token",
        "id": identifier("mt"),
        "subject": subject,
        "scopes": scopes,
        "claims": null,
        "revoked": false,
        "revocation_reason": null,
        "expired": false,
        "expiration": now + 3_600_000,
        "created_at": now,
        "updated_at": now,
    })
}

/// An API key of a user or an organisation; it does not expire.
pub(super) fn api_key(subject: &str, scopes: &[&str], now: i64) -> Value {
    json!({
        "object": "api_key",
        "id": identifier("ak"),
        "type": "api_key",
        "name": "stand-in",
        "description": null,
        "subject": subject,
        "scopes": scopes,
        "claims": null,
        "revoked": false,
        "revocation_reason": null,
        "expired": false,
        "expiration": null,
        "created_by": null,
        "last_used_at": null,
        "created_at": now,
        "updated_at": now,
    })
}

/// What a webhook says of an object that is gone.
pub(super) fn deleted(object: &str, id: &str) -> Value {
    json!({"object": object, "id": id, "deleted": true})
}

/// The body of an error.
pub(super) fn error(code: &str, message: &str, long_message: &str, meta: &Value) -> Value {
    json!({
        "errors": [{
            "code": code,
            "message": message,
            "long_message": long_message,
            "meta": meta,
        }],
        "clerk_trace_id": super::random_text(32).to_lowercase(),
    })
}
