//! A thread with a runtime of its own, for what must go on while all others are busy: the admin
//! listener, whose probes decide whether the platform ends this process, and the measuring of
//! how busy they are.

use std::io;
use std::thread;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// The thread; it ends when this is dropped.
pub(super) struct Apart {
    handle: Handle,
    _ends: oneshot::Sender<()>,
}

impl Apart {
    /// Starts the thread.
    pub(super) async fn start() -> io::Result<Self> {
        let (ends, ended) = oneshot::channel::<()>();
        let (started, starts) = oneshot::channel();
        // A runtime must end where nothing runs on one, so the thread makes it itself.
        let body = move || match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => {
                let _ = started.send(Ok(runtime.handle().clone()));
                let _ = runtime.block_on(ended);
            }
            Err(error) => {
                let _ = started.send(Err(error));
            }
        };
        thread::Builder::new()
            .name("admin".to_owned())
            .spawn(body)?;
        let handle = starts.await.map_err(io::Error::other)??;
        Ok(Self {
            handle,
            _ends: ends,
        })
    }

    /// Where to run what must go on.
    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }
}
