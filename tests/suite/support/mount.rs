//! A file system of its own, that can be full or read-only.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The file system, unmounted when dropped.
pub struct Mount(PathBuf);

impl Mount {
    /// A `tmpfs` with these options at a path that is made; `None`, said aloud, where this user
    /// may not mount.
    pub fn tmpfs(dir: &Path, options: &str) -> Option<Self> {
        std::fs::create_dir(dir).unwrap();
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(dir)
            .output();
        match output {
            Ok(output) if output.status.success() => Some(Self(dir.to_owned())),
            failed => {
                eprintln!("SKIPPED: no tmpfs can be mounted here: {failed:?}");
                None
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Mounts it anew with these options, such as `ro`.
    pub fn remount(&self, options: &str) {
        let status = Command::new("mount")
            .args(["-o", &format!("remount,{options}")])
            .arg(&self.0)
            .status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
