//! A token of this service that a gateway would not take.

use super::{Case, Hints, slip};
use crate::explain::say::Say;

impl Case<'_> {
    pub(super) fn own_audience(&self) -> Hints {
        let audiences = self.audiences();
        let wanted = self.audience.unwrap_or_default();
        let near = slip("audience", wanted, audiences.into_iter());
        let app = self.text("client_id").unwrap_or_default();
        let place = self.settings.places.of("apps", app, "audience");
        let stand = place.map(|place| {
            Say::words("The app's audiences stand in ")
                .value("place", place)
                .and(".")
        });
        Some(near.into_iter().chain(stand).collect())
    }

    pub(super) fn own_app(&self) -> Hints {
        Some(vec![
            Say::words("It was minted for the app ")
                .value("app", self.text("client_id")?)
                .and(": let the client send `\"app\": \"")
                .value("app", self.app.unwrap_or_default())
                .and("\"` with its exchange, or correct the gateway's question."),
        ])
    }

    pub(super) fn own_end(&self) -> Hints {
        let exp = self.number("exp")?;
        let lived = self.number("iat").map_or(0, |iat| exp.saturating_sub(iat));
        Some(vec![
            Say::words("It ended ")
                .number(self.now.saturating_sub(exp))
                .and(" s ago, and lived ")
                .number(lived)
                .and(" s: the client kept it for longer."),
        ])
    }
}
