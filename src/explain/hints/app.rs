//! The app that was asked for: its name, what it allows, and its condition.

use super::{Case, Hints};
use crate::config::AppSettings;
use crate::explain::say::Say;
use strsim::damerau_levenshtein;

impl Case<'_> {
    pub(super) fn app_unknown(&self) -> Hints {
        let names = self.settings.apps.iter().map(|app| app.name.as_str());
        let wanted = self.app.unwrap_or_default();
        let near = names
            .clone()
            .min_by_key(|name| damerau_levenshtein(&name.to_lowercase(), &wanted.to_lowercase()));
        let apps = Say::words("The apps are ").values("app", names);
        Some(vec![
            match near.filter(|near| damerau_levenshtein(near, wanted) <= 3) {
                Some(near) => apps.and(": did you mean ").value("app", near).and("?"),
                None => apps.and("."),
            },
        ])
    }

    pub(super) fn app_required(&self) -> Hints {
        let iss = self.text("iss");
        let names = self.apps_trusting(|issuer| Some(issuer.issuer.as_str()) == iss);
        (!names.is_empty()).then(|| {
            vec![
                Say::words("These apps would take it: ")
                    .values("app", names)
                    .and(". Try each with `exchequer explain --app NAME`."),
            ]
        })
    }

    pub(super) fn audience_not_allowed(&self) -> Hints {
        let each = |app: &AppSettings| {
            self.setting("apps", &app.name, "audience")
                .and(" allows ")
                .values("audience", app.audiences.iter().map(String::as_str))
                .and(".")
        };
        Some(self.apps().map(each).collect())
    }

    pub(super) fn condition(&self) -> Hints {
        let with = |app: &&AppSettings| app.condition.is_some();
        let each = |app: &AppSettings| {
            Say::words("The condition stands in ")
                .then(self.setting("apps", &app.name, "condition"))
                .and(".")
        };
        Some(self.apps().filter(with).map(each).collect())
    }
}
