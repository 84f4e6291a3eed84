//! Snapshots by overlayfs: the live state is a stack of frozen layers with one to write to on top.
//!
//! ```text
//! HOME/layers/NNN          frozen once a snapshot lies on it, never changed again
//! HOME/snapshots/NAME      a file: the numbers of its layers, lowest first
//! HOME/stack               a file: those of the live state; the last one is written to
//! HOME/live                the mount
//! ```
//!
//! A snapshot freezes the upper layer and begins another one; a rewind begins another one above the
//! layers of the snapshot. Both take no time, but the file system must be mounted anew, so nobody
//! may have a file open there. A stack that has grown to [`TALLEST`] layers is copied into one.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, UnmountFlags};

use super::{
    Storage, Tools, finished, forget_unfinished, put_aside, remove_aside, remove_slowly,
    remove_tree, sync_file_system, sync_folder,
};
use crate::{Context, Error, Result};

/// More layers are not stacked: the options of mount(2) are one page, and each lookup of a name
/// that is not there asks all of them.
const TALLEST: usize = 24;

/// How long an unmount waits for those who are about to close their files.
const PATIENCE: Duration = Duration::from_secs(3);

pub struct Overlay {
    home: PathBuf,
    live: PathBuf,
    tools: Tools,
}

impl Overlay {
    /// Mounts the live state in `home`.
    pub fn open(home: &Path) -> Result<Overlay> {
        let overlay = Overlay {
            home: home.to_owned(),
            live: home.join("live"),
            tools: Tools::open(home)?,
        };
        for folder in ["live", "snapshots", "layers", "work"] {
            let folder = home.join(folder);
            std::fs::create_dir_all(&folder).context(folder.display(), "create")?;
        }
        forget_unfinished(&home.join("snapshots"))?;
        forget_unfinished(&home.join("layers"))?;
        overlay.unmount()?;
        let stack = match overlay.stack(&home.join("stack")) {
            Ok(stack) => stack,
            Err(_) if !home.join("stack").exists() => {
                let first = overlay.fresh_layer()?;
                overlay.publish(&home.join("stack"), &[first])?;
                vec![first]
            }
            Err(error) => return Err(error),
        };
        overlay.drop_unused()?;
        if overlay.is_frozen(stack.last().copied())? {
            // Death came between the naming of a snapshot and the new layer above it.
            overlay.switch(&stack)?;
        } else {
            overlay.mount(&stack)?;
        }
        Ok(overlay)
    }

    fn is_frozen(&self, layer: Option<u32>) -> Result<bool> {
        for name in self.list()? {
            let stack = self.stack(&self.home.join("snapshots").join(name))?;
            if layer.is_some_and(|layer| stack.contains(&layer)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn layer(&self, number: u32) -> PathBuf {
        self.home.join("layers").join(format!("{number:06}"))
    }

    fn fresh_layer(&self) -> Result<u32> {
        let folder = self.home.join("layers");
        // (Not a number that one put aside had: it may be a layer of the stack that is on record.)
        let highest = super::names(&folder)?
            .iter()
            .filter_map(|name| {
                name.to_string_lossy()
                    .split('.')
                    .next()?
                    .parse::<u32>()
                    .ok()
            })
            .max()
            .unwrap_or(0);
        let path = self.layer(highest + 1);
        std::fs::create_dir(&path).context(path.display(), "create")?;
        // The root of the mount has the owner and the mode of the topmost layer.
        if let Ok(live) = std::fs::metadata(&self.live) {
            use std::os::unix::fs::MetadataExt;
            std::fs::set_permissions(&path, live.permissions())
                .and_then(|()| std::os::unix::fs::chown(&path, Some(live.uid()), Some(live.gid())))
                .context(path.display(), "set owner and mode")?;
        }
        Ok(highest + 1)
    }

    fn stack(&self, file: &Path) -> Result<Vec<u32>> {
        let text = std::fs::read_to_string(file).context(file.display(), "read")?;
        text.split_whitespace()
            .map(|word| {
                word.parse()
                    .context(file.display(), "read a number of a layer")
            })
            .collect()
    }

    fn publish(&self, file: &Path, stack: &[u32]) -> Result<()> {
        let fresh = file.with_extension("new");
        let text: Vec<String> = stack.iter().map(u32::to_string).collect();
        std::fs::write(&fresh, text.join(" ")).context(fresh.display(), "write")?;
        sync_file_system(&self.home)?;
        std::fs::rename(&fresh, file).context(file.display(), "publish")?;
        sync_folder(file.parent().unwrap_or(&self.home))
    }

    fn mount(&self, stack: &[u32]) -> Result<()> {
        let (top, below) = stack.split_last().ok_or_else(|| {
            Error::new(
                self.home.join("stack").display(),
                "mount",
                "it names no layer",
            )
            .advise("restore this file from a backup")
        })?;
        let work = self.home.join("work");
        remove_tree(&work)?;
        std::fs::create_dir(&work).context(work.display(), "create")?;
        // overlayfs wants a lower layer even where there is nothing below.
        let floor = self.home.join("floor");
        std::fs::create_dir_all(&floor).context(floor.display(), "create")?;
        let mut lower: Vec<String> = below
            .iter()
            .rev()
            .map(|&n| self.layer(n).display().to_string())
            .collect();
        lower.push(floor.display().to_string());
        let lower = lower.join(":");
        // Without redirects no folder that a snapshot has could be renamed (EXDEV).
        let options = format!(
            "lowerdir={lower},upperdir={},workdir={},index=off,metacopy=off,redirect_dir=on",
            self.layer(*top).display(),
            work.display(),
        );
        let options = std::ffi::CString::new(options).context(self.live.display(), "mount")?;
        rustix::mount::mount(
            "overlay",
            &self.live,
            "overlay",
            MountFlags::empty(),
            &*options,
        )
        .map_err(|cause| {
            Error::new(self.live.display(), "mount as overlayfs", cause)
                .advise("be root, on a file system that overlayfs can write to, or use copies")
        })
    }

    fn unmount(&self) -> Result<()> {
        // Not detached: files that are still open would be written to behind our back. A process
        // that has just been told to let go may need a moment.
        let end = Instant::now() + PATIENCE;
        loop {
            match rustix::mount::unmount(&self.live, UnmountFlags::empty()) {
                Ok(()) | Err(rustix::io::Errno::INVAL) => return Ok(()),
                Err(rustix::io::Errno::BUSY) if Instant::now() < end => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(cause) => {
                    return Err(Error::new(self.live.display(), "unmount", cause)
                        .advise("stop whatever has files open there"));
                }
            }
        }
    }

    /// Continues above `below`, which is not written to any more.
    fn switch(&self, below: &[u32]) -> Result<()> {
        let fresh = self.fresh_layer()?;
        let stack = [below, &[fresh]].concat();
        self.publish(&self.home.join("stack"), &stack)?;
        self.mount(&stack)
    }

    /// Removes the layers that neither a snapshot nor the live state has.
    fn drop_unused(&self) -> Result<()> {
        let mut used = self.stack(&self.home.join("stack"))?;
        for name in self.list()? {
            used.extend(self.stack(&self.home.join("snapshots").join(name))?);
        }
        for name in finished(&self.home.join("layers"))? {
            if !name.parse().is_ok_and(|number| used.contains(&number)) {
                put_aside(&self.home.join("layers").join(name))?;
            }
        }
        Ok(())
    }
}

impl Storage for Overlay {
    fn live(&self) -> &Path {
        &self.live
    }

    fn snapshot(&self, name: &str) -> Result<()> {
        let mut stack = self.stack(&self.home.join("stack"))?;
        if stack.len() >= TALLEST {
            let flat = self.fresh_layer()?;
            let path = self.layer(flat);
            remove_tree(&path)?;
            self.tools.copy_tree(&self.live, &path)?;
            stack = vec![flat];
        }
        sync_file_system(&self.home)?;
        self.unmount()?;
        self.publish(&self.home.join("snapshots").join(name), &stack)?;
        self.switch(&stack)
    }

    fn restore(&self, name: &str) -> Result<()> {
        super::copies::existing(&self.home.join("snapshots"), name)?;
        let below = self.stack(&self.home.join("snapshots").join(name))?;
        self.unmount()?;
        self.switch(&below)?;
        self.drop_unused()
    }

    fn restore_paths(&self, name: &str, paths: &[PathBuf]) -> Result<()> {
        let layers = self.stack(&self.home.join("snapshots").join(name))?;
        let view = self.home.join("view");
        std::fs::create_dir_all(&view).context(view.display(), "create")?;
        let mut lower: Vec<String> = layers
            .iter()
            .rev()
            .map(|&n| self.layer(n).display().to_string())
            .collect();
        lower.push(self.home.join("floor").display().to_string());
        let options =
            std::ffi::CString::new(format!("lowerdir={},redirect_dir=follow", lower.join(":")))
                .context(view.display(), "mount")?;
        rustix::mount::mount("overlay", &view, "overlay", MountFlags::RDONLY, &*options)
            .context(view.display(), "mount a snapshot")?;
        let replaced = self.tools.replace_paths(&self.live, &view, paths);
        rustix::mount::unmount(&view, UnmountFlags::empty()).context(view.display(), "unmount")?;
        replaced
    }

    fn remove(&self, name: &str) -> Result<()> {
        remove_tree(&self.home.join("snapshots").join(name))?;
        self.drop_unused()
    }

    fn list(&self) -> Result<Vec<String>> {
        finished(&self.home.join("snapshots"))
    }

    fn tidy(&self, stop: &dyn Fn() -> bool) -> Result<()> {
        for folder in ["snapshots", "layers"] {
            remove_aside(&self.home.join(folder), "", stop, |path| {
                remove_slowly(path, stop)
            })?;
        }
        Ok(())
    }

    fn is_constant_time(&self) -> bool {
        true
    }

    fn wants_files_closed(&self) -> bool {
        true
    }

    fn kind(&self) -> &'static str {
        "overlay"
    }
}

impl Drop for Overlay {
    /// Leaves no mount behind, unless somebody still works in it.
    fn drop(&mut self) {
        let _ = self.unmount();
    }
}
