//! Looks into /proc while the program runs.
//!
//! The keeper shares its table of descriptors with the program: what it opens would for a moment
//! be a descriptor of the program's, which would get another number than it must have for what
//! it opens itself; and a recovery closes what the program does not know. So a thread with a
//! table of its own opens it, started when it is first asked.

use std::sync::mpsc::{self, Sender};
use std::sync::{LazyLock, Mutex};
use std::thread;

use crate::machine::descriptors;

/// Enough to read a small file.
const STACK: usize = 128 << 10;

type Task = Box<dyn FnOnce() + Send>;

static THREAD: LazyLock<Option<Mutex<Sender<Task>>>> = LazyLock::new(start);

fn start() -> Option<Mutex<Sender<Task>>> {
    let (ask, asked) = mpsc::channel::<Task>();
    let begun = thread::Builder::new().stack_size(STACK).spawn(move || {
        if descriptors::leave_table().is_ok() {
            asked.into_iter().for_each(|task| task());
        }
    });
    begun.ok().map(|_| Mutex::new(ask))
}

/// Has it look, and waits. What `look` gives by default if there can be no such thread.
pub fn look<T: Default + Send + 'static>(look: impl FnOnce() -> T + Send + 'static) -> T {
    let (tell, told) = mpsc::sync_channel(1);
    let task: Task = Box::new(move || {
        let _ = tell.send(look());
    });
    let asked = THREAD
        .as_ref()
        .and_then(|ask| ask.lock().ok()?.send(task).ok());
    match asked {
        Some(()) => told.recv().unwrap_or_default(),
        None => T::default(),
    }
}
