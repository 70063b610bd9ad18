//! Connections: nothing smuggled, nothing held up, nothing lost when the service stops.

use crate::support::{Issuer, Service, Wire};

const EXCHANGE: &str = "/auth/exchange";
const JWKS: &str = "/.well-known/jwks.json";

async fn world() -> (Issuer, Service) {
    let issuer = Issuer::start().await;
    let service = Service::trusting(&issuer).await;
    (issuer, service)
}

#[tokio::test]
async fn whoever_uploads_too_much_gets_the_answer_and_not_a_reset() {
    let (_issuer, service) = world().await;
    let body = " ".repeat(4 * 1024 * 1024);
    for (path, status) in [(EXCHANGE, 413), ("/nowhere", 404), (JWKS, 405)] {
        for _ in 0..10 {
            // One client: it must not send the next request after a body that is not read.
            let request = service
                .client
                .post(format!("{}{path}", service.url))
                .header("content-type", "application/json")
                .body(body.clone());
            let answer = service.send(request).await;
            assert_eq!(answer.status, status, "{}", answer.body);
            assert_eq!(answer.header("connection"), "close");
        }
    }
    // A client that reads only when it has sent everything.
    let mut wire = Wire::to(&service.url).await;
    let head = format!(
        "POST {EXCHANGE} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    assert!(wire.send(head + &body).await, "reset while sending");
    assert_eq!(wire.answer().await.unwrap().status, 413);
    assert!(wire.answer().await.is_none(), "closed");
}
