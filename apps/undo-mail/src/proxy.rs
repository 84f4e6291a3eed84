//! The whole: storage, manager, control socket, and the two proxies.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use undo::manager::Running;
use undo::{Context, Error, Manager, Result, control, storage};

use crate::imap::view::Uids;
use crate::settings::Settings;
use crate::store::MailStore;
use crate::{imap, smtp};

/// A proxy that serves clients.
pub struct Proxy {
    pub manager: Running<MailStore>,
    pub smtp: SocketAddr,
    pub imap: SocketAddr,
}

/// Prepares the folder in which the live state is, so that the real server can be started on it.
pub fn prepare(settings: &Settings) -> Result<Box<dyn storage::Storage>> {
    let home = &settings.home;
    std::fs::create_dir_all(home).context(home.display(), "create")?;
    storage::open(&settings.storage, home)
}

impl Proxy {
    /// Starts everything; the real server must be running, or come up within a minute.
    pub fn start(settings: Settings, storage: Box<dyn storage::Storage>) -> Result<Proxy> {
        let home = settings.home.clone();
        let smtp = listen(&settings.smtp.listen)?;
        let imap = listen(&settings.imap.listen)?;
        let store = MailStore::new(settings.clone(), storage.live());
        store.start_server()?;
        store.wait_until_ready(Duration::from_secs(60))?;
        let mut manager_settings = undo::Settings {
            home: home.clone(),
            granularities: settings.granularities.clone(),
            replay_workers: settings.replay_workers,
            retry_every_s: settings.retry_every_s,
            ..undo::Settings::default()
        };
        manager_settings.executors = 8;
        let manager = Manager::open(manager_settings, storage, store)?;
        let weak: Weak<Manager<MailStore>> = Arc::downgrade(&manager.manager);
        manager
            .service()
            .set_outbox(Box::new(move |verb| match weak.upgrade() {
                Some(manager) => manager.accept(&verb).map(drop),
                None => Err(Error::new("notice", "send", "the manager has ended")),
            }));
        let uids = Arc::new(Uids::open(&home.join("uids")));
        control::serve(manager.manager.clone(), &home.join("control"))?;
        let proxy = Proxy {
            smtp: smtp.local_addr().context("SMTP", "listen")?,
            imap: imap.local_addr().context("IMAP", "listen")?,
            manager,
        };
        smtp::front::serve(proxy.manager.manager.clone(), smtp).context("SMTP", "serve")?;
        imap::front::serve(proxy.manager.manager.clone(), uids, imap).context("IMAP", "serve")?;
        Ok(proxy)
    }
}

/// Reads the settings and serves for ever.
pub fn run(path: &Path) -> Result<()> {
    let settings = Settings::read(path)?;
    let storage = prepare(&settings)?;
    let proxy = Proxy::start(settings, storage)?;
    println!("undo-mail: SMTP on {}, IMAP on {}", proxy.smtp, proxy.imap);
    loop {
        std::thread::park();
    }
}

fn listen(address: &str) -> Result<TcpListener> {
    TcpListener::bind(address)
        .map_err(|e| Error::new(address, "listen", e).advise("choose another port in the settings"))
}
