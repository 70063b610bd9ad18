//! A user's membership in an organisation, found among all of theirs: the Backend API has no
//! question for one.

use super::api::{ApiError, Asking};
use serde_json::Value;

/// The memberships of a page, whose organisations' metadata may be large, and the most pages.
const PAGE: usize = 50;
const PAGES: usize = 20;

impl Asking<'_> {
    /// The user's membership in the organisation, as the API has it; `None` where there is
    /// none. Both ids are checked by the caller, for they stand in the path.
    ///
    /// # Errors
    /// As [`Asking::get`]; `NotFound` where there is no such user.
    pub async fn membership(
        &self,
        user: &str,
        organization: &str,
    ) -> Result<Option<Value>, ApiError> {
        for page in 0..PAGES {
            let offset = page * PAGE;
            let path =
                format!("users/{user}/organization_memberships?limit={PAGE}&offset={offset}");
            let mut listed: Value = self.read(&path).await?;
            let Some(Value::Array(list)) = listed.get_mut("data").map(Value::take) else {
                let error = "its answer is no list of memberships".to_owned();
                return Err(ApiError::Unavailable(error));
            };
            let last = list.len() < PAGE;
            let found = list.into_iter().find(|each| {
                let member = each.pointer("/public_user_data/user_id");
                each.pointer("/organization/id").and_then(Value::as_str) == Some(organization)
                    && member.is_none_or(|member| member.as_str() == Some(user))
            });
            if found.is_some() || last {
                return Ok(found);
            }
        }
        tracing::warn!("a user has more memberships than are looked at: one was not found");
        Ok(None)
    }
}
