//! Looks into /proc while the program runs.
//!
//! The keeper shares its table of descriptors with the program: what it opens would for a moment
//! be a descriptor of the program's, which would get another number than it must have for what
//! it opens itself; and a recovery closes what the program does not know. So a thread with a
//! table of its own opens it, started when it is first asked. (A keeper that goes into the
//! background is a copy without the thread, and starts another one.)

use std::process;
use std::sync::mpsc::{self, Sender};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::machine::descriptors;

/// Enough to read a small file.
const STACK: usize = 128 << 10;
/// Longer than a look takes on any machine: nothing is worth a keeper that waits for ever.
const PATIENCE: Duration = Duration::from_secs(5);

type Task = Box<dyn FnOnce() + Send>;

/// The process whose thread it is.
static THREAD: Mutex<Option<(u32, Sender<Task>)>> = Mutex::new(None);

fn start() -> Option<Sender<Task>> {
    let (ask, asked) = mpsc::channel::<Task>();
    let begun = thread::Builder::new().stack_size(STACK).spawn(move || {
        if descriptors::leave_table().is_ok() {
            asked.into_iter().for_each(|task| task());
        }
    });
    begun.ok().map(|_| ask)
}

fn ask(task: Task) -> Option<()> {
    let mut thread = THREAD.lock().unwrap_or_else(PoisonError::into_inner);
    let own = process::id();
    if thread.as_ref().is_none_or(|(whose, _)| *whose != own) {
        *thread = start().map(|ask| (own, ask));
    }
    let (_, ask) = thread.as_ref()?;
    ask.send(task).ok()
}

/// Has it look, and waits. What `look` gives by default if there can be no such thread.
pub fn look<T: Default + Send + 'static>(look: impl FnOnce() -> T + Send + 'static) -> T {
    let (tell, told) = mpsc::sync_channel(1);
    let asked = ask(Box::new(move || {
        let _ = tell.send(look());
    }));
    match asked {
        Some(()) => told.recv_timeout(PATIENCE).unwrap_or_default(),
        None => T::default(),
    }
}
