//! One key ring for many replicas, in a Redis.

use crate::support::Redis;

#[tokio::test]
async fn a_redis_of_the_tests_does_what_the_tests_ask_of_it() {
    let redis = Redis::start().await;
    let holds = || redis.ask(&["GET", "name"]);
    assert_eq!(redis.ask(&["SET", "name", "value"]), "OK");
    assert_eq!(holds(), "value");
    redis.kill();
    redis.run().await;
    assert_eq!(holds(), "value");
    redis.stop();
    redis.run().await;
    assert_eq!(holds(), "value");
    redis.stop();
    redis.run_empty().await;
    assert_eq!(holds(), "");
    redis.ask(&["SET", "name", "value"]);
    redis.freeze();
    redis.thaw();
    assert_eq!(holds(), "value");
    redis.flush();
    assert_eq!(holds(), "");
    assert!(redis.socket().exists() && redis.port() != 0);
    assert!(redis.url().starts_with("redis://") && redis.socket_url().starts_with("unix:///"));
}
