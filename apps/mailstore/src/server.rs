//! The server as a whole: what the sessions share, and how it starts and stops.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::directory::Directory;
use crate::maildir::disk::Disk;
use crate::maildir::folders;
use crate::net::listen::{self, Listening, Sessions};
use crate::net::tls;
use crate::queue::{self, Queue};
use crate::settings::{Place, Service, Settings};

/// A session that does not end by itself is left behind after so long.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

pub struct Server {
    pub settings: Arc<Settings>,
    pub directory: Directory,
    pub queue: Queue,
    pub tls: Option<TlsAcceptor>,
    /// Becomes true when the server is to stop.
    pub stop: watch::Receiver<bool>,
    sessions: AtomicU64,
    /// Held for the server's life: two servers over one store would both number it.
    _lock: Flock<File>,
}

impl Server {
    /// A number for a session that no other has.
    pub fn next_session(&self) -> u64 {
        self.sessions.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// Runs what waits for the disk, while the other tasks go on on other threads.
pub fn on_disk<T>(work: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(work)
}

/// A server that runs.
pub struct Running {
    pub server: Arc<Server>,
    /// Where it listens, with the ports that were chosen for port 0.
    pub places: Vec<(Service, Place)>,
    stop: watch::Sender<bool>,
    sessions: Sessions,
}

/// Opens the store, binds all places, and begins to serve.
pub async fn start(settings: Settings, disk: Disk) -> Result<Running, String> {
    let lock = lock_data(&settings.data, &disk)?;
    let (stop, stopped) = watch::channel(false);
    let queue =
        Queue::open(settings.data.join("queue"), disk.clone()).map_err(|f| f.to_string())?;
    let settings = Arc::new(settings);
    let server = Arc::new(Server {
        directory: Directory::new(settings.clone(), &disk),
        queue,
        tls: settings.tls.as_ref().map(tls::acceptor).transpose()?,
        stop: stopped,
        sessions: AtomicU64::new(0),
        settings: settings.clone(),
        _lock: lock,
    });
    if let Some(relay) = settings
        .relay
        .as_ref()
        .filter(|r| r.tls != crate::settings::RelayTls::None)
    {
        tls::connector(&relay.authorities)?;
    }
    let mut listening: Vec<Listening> = Vec::new();
    for listen in &settings.listen {
        listening.push(listen::bind(listen)?);
    }
    let sessions = Sessions::new(settings.limits.connections);
    let places = listening
        .iter()
        .map(|listening| listening.place())
        .collect();
    for listening in listening {
        tokio::spawn(listen::accept(listening, server.clone(), sessions.clone()));
    }
    tokio::spawn(queue::runner::run(server.clone()));
    Ok(Running {
        server,
        places,
        stop,
        sessions,
    })
}

impl Running {
    pub fn address(&self, service: Service) -> Option<std::net::SocketAddr> {
        self.places.iter().find_map(|(known, place)| match place {
            Place::Tcp(address) if *known == service => Some(*address),
            _ => None,
        })
    }

    /// Tells all sessions to end after their command, and waits for them.
    pub async fn stop(self) {
        let _ = self.stop.send(true);
        self.sessions.wait(STOP_PATIENCE).await;
    }
}

fn lock_data(data: &Path, disk: &Disk) -> Result<Flock<File>, String> {
    folders::make_parents(disk, &data.join("x")).map_err(|failure| failure.to_string())?;
    let path = data.join("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|cause| format!("cannot open {}: {cause}", path.display()))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        nix::errno::Errno::EWOULDBLOCK => format!(
            "another mailstore runs over {}; stop it first, or give this one another `data`",
            data.display()
        ),
        other => format!("cannot lock {}: {other}", path.display()),
    })
}
