//! Where a Redis is, as the library wants to be told.

use crate::config::{RedisSettings, Topology};
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo, RedisResult};

/// The address of a single server.
pub(super) fn of(settings: &RedisSettings) -> RedisResult<ConnectionInfo> {
    let addr = match &settings.topology {
        Topology::Unix(path) => ConnectionAddr::Unix(path.clone()),
        Topology::Single(node) => ConnectionAddr::Tcp(node.host.clone(), node.port),
        _ => ConnectionAddr::Tcp(String::new(), 0),
    };
    Ok(addr
        .into_connection_info()?
        .set_redis_settings(redis(settings)))
}

/// Who asks, and which database.
fn redis(settings: &RedisSettings) -> RedisConnectionInfo {
    let mut info = RedisConnectionInfo::default().set_db(settings.database);
    if let Some(username) = &settings.username {
        info = info.set_username(username);
    }
    if let Some(password) = &settings.password {
        info = info.set_password(&password.0);
    }
    info
}
