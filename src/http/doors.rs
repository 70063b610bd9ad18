//! The doors of a listener by their paths. A door is looked up: none is tried after another, for
//! a request that passes many pays for each.

use super::answer;
use super::routes::refused;
use crate::explain::{Code, Refusal};
use http::Request;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use std::collections::HashMap;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reject::Rejection;
use warp::reply::Response as Answer;

/// What answers at a path.
type Door = BoxedFilter<(Answer,)>;

/// The doors of a listener.
#[derive(Default)]
pub struct Doors {
    at: HashMap<&'static str, Door>,
    below: Vec<(&'static str, Door)>,
}

impl Doors {
    /// With a door at exactly this path: warp's own `path!` lets a slash follow.
    #[must_use]
    pub(super) fn at(
        mut self,
        path: &'static str,
        door: impl Filter<Extract = (Answer,), Error = Rejection> + Clone + Send + Sync + 'static,
    ) -> Self {
        self.at.insert(path, closed(door));
        self
    }

    /// With a door at each of these paths.
    #[must_use]
    pub(super) fn at_each(
        mut self,
        paths: &[&'static str],
        door: impl Filter<Extract = (Answer,), Error = Rejection> + Clone + Send + Sync + 'static,
    ) -> Self {
        let door = closed(door);
        self.at
            .extend(paths.iter().map(|path| (*path, door.clone())));
        self
    }

    /// With a door at the paths that begin so; it looks at the rest itself.
    #[must_use]
    pub(super) fn below(
        mut self,
        path: &'static str,
        door: impl Filter<Extract = (Answer,), Error = Rejection> + Clone + Send + Sync + 'static,
    ) -> Self {
        self.below.push((path, closed(door)));
        self
    }

    /// What the door at its path answers to a request.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Answer {
        let path = request.uri().path();
        let below = || self.below.iter().find(|(below, _)| path.starts_with(below));
        let door = self.at.get(path).or_else(|| below().map(|(_, door)| door));
        let Some(door) = door else {
            return answer::refused(Refusal::new(Code::NotFound));
        };
        let door = TowerToHyperService::new(warp::service(door.clone()));
        match door.call(request).await {
            Ok(answer) => answer,
            Err(never) => match never {},
        }
    }
}

/// A door that answers what it rejects.
fn closed(
    door: impl Filter<Extract = (Answer,), Error = Rejection> + Clone + Send + Sync + 'static,
) -> Door {
    door.recover(refused).unify().boxed()
}
