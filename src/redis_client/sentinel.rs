//! Which server sentinels say is the primary (Redis Sentinel client specification).

use super::connection::{Connection, Place};
use super::{RedisError, SENTINEL};
use crate::config::{Node, RedisSettings};
use futures_util::future::join_all;
use redis::{Pipeline, Value};
use tokio::time::timeout;

/// What the sentinels say: the primary's address, and how many name it, most first.
pub(super) async fn primaries(
    settings: &RedisSettings,
    sentinels: &[Node],
    name: &str,
) -> Result<Vec<(Node, usize)>, RedisError> {
    let mut question = Pipeline::new();
    question
        .cmd("SENTINEL")
        .arg("get-master-addr-by-name")
        .arg(name);
    let asking = sentinels.iter().map(|node| {
        let question = &question;
        async move {
            let asked = timeout(SENTINEL, async {
                let sentinel = Connection::to_sentinel(settings, node).await?;
                sentinel.ask(question, SENTINEL).await
            });
            let answer = asked.await.unwrap_or(Err(RedisError::Late(SENTINEL)))?;
            address(node, answer, name)
        }
    });
    let mut named: Vec<(Node, usize)> = Vec::new();
    let mut why = None;
    for answer in join_all(asking).await {
        match answer {
            Err(error) => why = Some(error),
            Ok(node) => match named.iter_mut().find(|(known, _)| *known == node) {
                Some((_, votes)) => *votes += 1,
                None => named.push((node, 1)),
            },
        }
    }
    named.sort_by_key(|(_, votes)| std::cmp::Reverse(*votes));
    match (named.is_empty(), why) {
        (true, Some(error)) => Err(error),
        _ => Ok(named),
    }
}

/// Whether most sentinels say that the primary is another one than this.
pub(super) async fn moved(
    settings: &RedisSettings,
    sentinels: &[Node],
    name: &str,
    place: &Place,
) -> bool {
    let named = primaries(settings, sentinels, name).await;
    match named.unwrap_or_default().first() {
        Some((node, votes)) => votes * 2 > sentinels.len() && Place::Tcp(node.clone()) != *place,
        None => false,
    }
}

fn address(sentinel: &Node, answer: Vec<Value>, name: &str) -> Result<Node, RedisError> {
    let failed = |what: String| RedisError::Failed(format!("the sentinel {sentinel}: {what}"));
    match answer.into_iter().next() {
        Some(Value::ServerError(error)) => Err(failed(super::connection::said(&error))),
        Some(Value::Nil) | None => Err(failed(format!("knows no primary {name:?}"))),
        Some(value) => redis::from_redis_value::<(String, u16)>(value)
            .map(|(host, port)| Node { host, port })
            .map_err(|_| failed("no address in its answer".to_owned())),
    }
}
