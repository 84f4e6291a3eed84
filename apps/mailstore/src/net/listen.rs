//! Listening: binds the places of the settings, and makes a session of each
//! connection, up to a limit.

use std::os::unix::fs::FileTypeExt;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::connection::Connection;
use crate::imap;
use crate::server::Server;
use crate::settings::{Listen, Place, Service};
use crate::smtp::{self, Role};

/// After an accept that failed (too many open files) there is no hurry.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub struct Listening {
    service: Service,
    place: Place,
    socket: Socket,
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// The sessions that run: a bound for them, and a way to wait for their ends.
#[derive(Clone)]
pub struct Sessions {
    free: Arc<Semaphore>,
    most: usize,
}

impl Sessions {
    pub fn new(most: usize) -> Sessions {
        Sessions {
            free: Arc::new(Semaphore::new(most)),
            most,
        }
    }

    /// Waits until no session is left, but not longer than this.
    pub async fn wait(&self, patience: Duration) {
        let all = self.free.acquire_many(self.most as u32);
        let _ = tokio::time::timeout(patience, all).await;
    }
}

pub fn bind(listen: &Listen) -> Result<Listening, String> {
    let service = listen.service;
    let told = |place: &str, cause: std::io::Error| {
        format!("cannot listen on {place} for {}: {cause}", service.name())
    };
    let (place, socket) = match &listen.place {
        Place::Tcp(address) => {
            let bound = std::net::TcpListener::bind(address)
                .and_then(|socket| socket.set_nonblocking(true).map(|()| socket))
                .and_then(TcpListener::from_std)
                .map_err(|cause| told(&address.to_string(), cause))?;
            let address = bound.local_addr().unwrap_or(*address);
            (Place::Tcp(address), Socket::Tcp(bound))
        }
        Place::Unix(path) => {
            // A socket of a server before us; anything else is left alone.
            if std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket()) {
                let _ = std::fs::remove_file(path);
            }
            let bound = UnixListener::bind(path);
            let bound = bound.map_err(|cause| told(&path.display().to_string(), cause))?;
            (Place::Unix(path.clone()), Socket::Unix(bound))
        }
    };
    Ok(Listening {
        service,
        place,
        socket,
    })
}

impl Listening {
    pub fn place(&self) -> (Service, Place) {
        (self.service, self.place.clone())
    }

    async fn connection(&self, server: &Server) -> std::io::Result<Connection> {
        let (stop, patience) = (server.stop.clone(), server.settings.limits.login);
        Ok(match &self.socket {
            Socket::Tcp(socket) => Connection::tcp(socket.accept().await?.0, stop, patience),
            Socket::Unix(socket) => Connection::unix(socket.accept().await?.0, stop, patience),
        })
    }
}

/// Accepts until the server stops.
pub async fn accept(listening: Listening, server: Arc<Server>, sessions: Sessions) {
    let mut stop = server.stop.clone();
    loop {
        let connection = tokio::select! {
            connection = listening.connection(&server) => connection,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let connection = match connection {
            Ok(connection) => connection,
            Err(cause) => {
                crate::log!(
                    "{}: cannot accept a connection: {cause}",
                    listening.service.name()
                );
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let permit = sessions.free.clone().try_acquire_owned();
        tokio::spawn(serve(
            listening.service,
            server.clone(),
            connection,
            permit.ok(),
        ));
    }
}

async fn serve(
    service: Service,
    server: Arc<Server>,
    mut connection: Connection,
    permit: Option<OwnedSemaphorePermit>,
) {
    if service.is_tls_from_the_start() {
        let Some(acceptor) = server.tls.clone() else {
            return;
        };
        if connection.accept_tls(&acceptor).await.is_err() {
            return; // a stranger's handshake is no news
        }
    }
    let Some(_permit) = permit else {
        let busy: &[u8] = match service {
            Service::Imap | Service::Imaps => b"* BYE Too many connections; come back soon\r\n",
            _ => b"421 4.3.2 Too many connections; come back soon\r\n",
        };
        let _ = connection.send(busy).await;
        return connection.close().await;
    };
    match service {
        Service::Imap | Service::Imaps => imap::session::serve(server, connection).await,
        Service::Smtp => smtp::session::serve(server, connection, Role::Smtp).await,
        Service::Submission | Service::Submissions => {
            smtp::session::serve(server, connection, Role::Submission).await;
        }
        Service::Lmtp => smtp::session::serve(server, connection, Role::Lmtp).await,
    }
}
