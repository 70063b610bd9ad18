//! A wire between one service and a server that can be cut, and mended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// A TCP proxy. It ends with the value.
pub struct Proxy {
    port: u16,
    cut: Arc<AtomicBool>,
    changed: Arc<Notify>,
    task: tokio::task::AbortHandle,
}

impl Proxy {
    /// A proxy before the server on this port of loopback.
    pub async fn to(server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (cut, changed) = (Arc::new(AtomicBool::new(false)), Arc::new(Notify::new()));
        let (is_cut, cutting) = (Arc::clone(&cut), Arc::clone(&changed));
        let task = tokio::spawn(async move {
            loop {
                let Ok((mut near, _)) = listener.accept().await else {
                    return;
                };
                let (is_cut, cutting) = (Arc::clone(&is_cut), Arc::clone(&cutting));
                tokio::spawn(async move {
                    let cut = cutting.notified();
                    if is_cut.load(Ordering::SeqCst) {
                        return;
                    }
                    let Ok(mut far) = TcpStream::connect(("127.0.0.1", server)).await else {
                        return;
                    };
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                        () = cut => {}
                    }
                });
            }
        });
        Self {
            port,
            cut,
            changed,
            task: task.abort_handle(),
        }
    }

    /// The URL of the Redis behind it.
    pub fn redis_url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Ends every connection, and lets no new one through.
    pub fn cut(&self) {
        self.cut.store(true, Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    /// Lets new connections through again.
    pub fn mend(&self) {
        self.cut.store(false, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}
