//! HTTP/1.1 by hand, for requests that no client would send.

use super::Answer;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Whatever takes longer hangs.
const GUARD: Duration = Duration::from_secs(30);

/// A connection.
pub struct Wire {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Wire {
    /// Connects to a base URL.
    pub async fn to(url: &str) -> Self {
        let address = url.trim_start_matches("http://");
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            unread: Vec::new(),
        }
    }

    /// Sends bytes; gives whether the other side still took them.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let sent = self.stream.write_all(bytes.as_ref());
        tokio::time::timeout(GUARD, sent).await.unwrap().is_ok()
    }

    async fn read(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        let read = tokio::time::timeout(GUARD, self.stream.read(&mut buffer)).await;
        match read.expect("neither an answer nor an end") {
            Ok(length) if length > 0 => {
                self.unread.extend_from_slice(&buffer[..length]);
                true
            }
            _ => false,
        }
    }

    /// The next answer; none where the connection is closed instead.
    pub async fn answer(&mut self) -> Option<Answer> {
        self.next(false).await
    }

    /// The next answer, to a request whose answers have no body (HEAD).
    pub async fn answer_without_body(&mut self) -> Option<Answer> {
        self.next(true).await
    }

    async fn next(&mut self, bodiless: bool) -> Option<Answer> {
        let head = loop {
            let end = self.unread.windows(4).position(|four| four == b"\r\n\r\n");
            if let Some(end) = end {
                break self.unread.drain(..end + 4).collect::<Vec<u8>>();
            }
            if !self.read().await {
                assert_eq!(self.unread, b"", "half an answer");
                return None;
            }
        };
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status: u16 = lines
            .next()
            .and_then(|line| line.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok())
            .unwrap_or_else(|| panic!("no answer: {head}"));
        let mut headers = HeaderMap::new();
        for line in lines {
            let (name, value) = line.split_once(':').unwrap();
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value.trim()).unwrap(),
            );
        }
        let bodiless = bodiless || status == 304 || status == 204;
        let length = headers
            .get("content-length")
            .filter(|_| !bodiless)
            .map_or(0, |length| length.to_str().unwrap().parse().unwrap());
        while self.unread.len() < length {
            assert!(self.read().await, "half a body after {head}");
        }
        let body: Vec<u8> = self.unread.drain(..length).collect();
        let text = String::from_utf8(body).unwrap();
        Some(Answer {
            status,
            headers,
            body: serde_json::from_str(&text).unwrap_or(Value::String(text)),
        })
    }

    /// All answers until the other side closes.
    pub async fn answers(&mut self) -> Vec<Answer> {
        let mut answers = Vec::new();
        while let Some(answer) = self.answer().await {
            answers.push(answer);
        }
        answers
    }
}
