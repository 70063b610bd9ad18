//! The doors of a listener by their paths. A door is looked up: none is tried after another, for
//! a request that passes many pays for each.

use super::caller::Peer;
use super::route::Route;
use super::routes::refused;
use super::verify::Verify;
use http::Request;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use std::sync::Arc;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reject::Rejection;
use warp::reply::Response as Answer;

/// What is at a path.
pub(super) struct Door {
    /// What it is for.
    pub(super) route: Route,
    /// Its path; what the caller chooses of it stands in braces.
    pub(super) template: &'static str,
    /// Who answers.
    pub(super) behind: Behind,
}

/// Who answers at a door.
#[derive(Clone)]
pub(super) enum Behind {
    /// What warp reads for a handler.
    Filters(BoxedFilter<(Answer,)>),
    /// It needs no filters, for it answers every method.
    Gateway(Arc<Verify>),
}

/// What the filters answer to a request of this peer's.
pub(super) async fn filtered(
    filters: BoxedFilter<(Answer,)>,
    mut request: Request<Incoming>,
    peer: Peer,
) -> Answer {
    request.extensions_mut().insert(peer);
    let service = TowerToHyperService::new(warp::service(filters));
    match service.call(request).await {
        Ok(answer) => answer,
        Err(never) => match never {},
    }
}

/// The doors of a listener.
#[derive(Default)]
pub struct Doors {
    at: Vec<(&'static str, Door)>,
    below: Vec<(&'static str, Door)>,
}

impl Doors {
    /// With a door at exactly this path: warp's own `path!` lets a slash follow.
    #[must_use]
    pub(super) fn at(
        self,
        route: Route,
        path: &'static str,
        door: impl Filter<Extract = (Answer,), Error = Rejection> + Clone + Send + Sync + 'static,
    ) -> Self {
        self.at_each(route, &[path], door)
    }

    /// With a door at each of these paths.
    #[must_use]
    pub(super) fn at_each(
        mut self,
        route: Route,
        paths: &[&'static str],
        door: impl Filter<Extract = (Answer,), Error = Rejection> + Clone + Send + Sync + 'static,
    ) -> Self {
        let behind = closed(door);
        self.at.extend(paths.iter().map(|path| {
            let door = Door {
                route,
                template: path,
                behind: behind.clone(),
            };
            (*path, door)
        }));
        self
    }

    /// With a door at the paths that begin so; it looks at the rest itself.
    #[must_use]
    pub(super) fn below(
        mut self,
        route: Route,
        path: &'static str,
        template: &'static str,
        door: impl Filter<Extract = (Answer,), Error = Rejection> + Clone + Send + Sync + 'static,
    ) -> Self {
        let door = Door {
            route,
            template,
            behind: closed(door),
        };
        self.below.push((path, door));
        self
    }

    /// With the door for gateways at exactly this path.
    #[must_use]
    pub(super) fn gateway(mut self, route: Route, path: &'static str, verify: Verify) -> Self {
        let door = Door {
            route,
            template: path,
            behind: Behind::Gateway(Arc::new(verify)),
        };
        self.at.push((path, door));
        self
    }

    /// The door at this path.
    pub(super) fn find(&self, path: &str) -> Option<&Door> {
        // They are few: to compare their lengths costs less than to hash the path.
        let at = self.at.iter().find(|(at, _)| *at == path);
        let below = || self.below.iter().find(|(below, _)| path.starts_with(below));
        at.or_else(below).map(|(_, door)| door)
    }
}

/// A door that answers what it rejects.
fn closed(
    door: impl Filter<Extract = (Answer,), Error = Rejection> + Clone + Send + Sync + 'static,
) -> Behind {
    Behind::Filters(door.recover(refused).unify().boxed())
}
