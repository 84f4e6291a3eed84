//! The machine between two sockets: who reads, who sends, who keeps the time.
//!
//! Whoever waits for a message reads the main socket itself, so that no message is handed from
//! thread to thread; of several who wait one reads and the others sleep until it has something for
//! them, or leaves. The port for retransmissions and the time have a thread of their own, so that
//! a program that computes in its transaction, or waits for nothing, still answers those who did
//! not get its answer (the thesis uses a signal for that).

use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::machine::timer::{Nanos, nanos};
use vista::Ptr;

use crate::landing::Landing;
use crate::machine::{Body, Chance, Machine, Port, Send};
use crate::memory::Memory;
use crate::packet::{Header, Key};
use crate::socket::Socket;
use crate::stored::Stored;
use crate::tables::{self, Root};
use crate::{Error, NodeId, Settings, clock, descriptors};

/// How long the keeper of time sleeps at most, and so how late a retransmission may be when nobody
/// waits for its answer.
const SLICE: Nanos = 32_000_000;
/// From here on a slice more or less does not matter.
const LONG_WAIT: Duration = Duration::from_secs(2);
const LONGEST: usize = 65536;

pub struct Net {
    main: Socket,
    resend: Socket,
    key: Option<Key>,
    shared: Mutex<Shared>,
    changed: Condvar,
    begun: Nanos,
    stop: AtomicBool,
}

pub struct Shared {
    pub machine: Machine,
    pub stored: Stored,
    /// Somebody reads the main socket.
    reading: bool,
    waiting: usize,
    /// By when the keeper of time will look at the machine.
    looked_at: Nanos,
    /// When the machine was last told something.
    pub told: Nanos,
    out: Vec<Send>,
    /// The reader's; taken while it reads.
    landing: Option<Box<Landing>>,
}

/// Both sockets, before there is a machine.
pub struct Bound {
    pub main: Socket,
    pub resend: Socket,
    pub address: SocketAddr,
    pub resend_port: u16,
}

/// Binds the main socket, and the other one where it was before if that is free.
pub fn bind(settings: &Settings, former_resend_port: u16) -> Result<Bound, Error> {
    let failed = |cause| Error::Socket {
        action: "listen at",
        address: settings.listen.to_string(),
        cause,
    };
    let main = Socket::bind(settings.listen)?;
    let address = main.address().map_err(failed)?;
    let at = |port| SocketAddr::new(settings.listen.ip(), port);
    let resend = match settings.resend_port {
        0 => Socket::bind(at(former_resend_port)).or_else(|_| Socket::bind(at(0)))?,
        port => Socket::bind(at(port))?,
    };
    let resend_port = resend.address().map_err(failed)?.port();
    Ok(Bound {
        main,
        resend,
        address,
        resend_port,
    })
}

/// What a start does in its transaction: reads the tables, or makes them; binds the sockets; counts
/// the start. The machine it makes knows all that is to be sent.
pub fn start_tables(
    memory: &mut impl Memory,
    settings: Settings,
) -> Result<(Bound, Machine, Ptr<Root>), Error> {
    let loaded = match tables::load(memory)? {
        Some(loaded) => loaded,
        None => {
            tables::create(memory, NodeId(random()?), settings.window)?;
            tables::load(memory)?.ok_or(Error::Damaged("no root".into()))?
        }
    };
    let bound = bind(&settings, loaded.root.resend_port as u16)?;
    let (address, resend_port) = (bound.address, bound.resend_port);
    let before = SocketAddr::from(loaded.root.address);
    // Behind an address that stands for all of them, nobody knows whether it has changed.
    let moved = loaded.root.boots > 0 && (before != address || address.ip().is_unspecified());
    let boots = tables::start(memory, loaded.place, address, resend_port)?;
    let chance = Chance {
        seed: u64::from_le_bytes(random::<8>()?),
        secret: random()?,
    };
    let machine = Machine::new(settings, &loaded, boots, resend_port, moved, chance, 0);
    Ok((bound, machine, loaded.place))
}

fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    let read = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|cause| Error::Settings(format!("read /dev/urandom: {cause}")))?;
    Ok(bytes)
}

impl Net {
    /// Where the main socket listens.
    pub fn address(&self) -> Option<SocketAddr> {
        self.main.address().ok()
    }

    pub fn start(bound: Bound, machine: Machine, stored: Stored) -> (Arc<Net>, JoinHandle<()>) {
        let net = Arc::new(Net {
            main: bound.main,
            resend: bound.resend,
            key: machine.settings.key,
            shared: Mutex::new(Shared {
                machine,
                stored,
                reading: false,
                waiting: 0,
                looked_at: Nanos::MAX,
                told: 0,
                out: Vec::new(),
                landing: None,
            }),
            changed: Condvar::new(),
            begun: clock::now(),
            stop: AtomicBool::new(false),
        });
        let keeper = net.clone();
        let thread = std::thread::spawn(move || keeper.keep());
        (net, thread)
    }

    pub fn now(&self) -> Nanos {
        self.since_begun(clock::now())
    }

    fn since_begun(&self, time: Nanos) -> Nanos {
        time.saturating_sub(self.begun)
    }

    /// A panic of another thread while it held the lock leaves nothing half done that matters: what
    /// counts is in the tables.
    pub fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs something that may send, and sends it.
    pub fn with<T>(&self, act: impl FnOnce(&mut Machine, Nanos, &mut Vec<Send>) -> T) -> T {
        let now = self.now();
        let mut shared = self.lock();
        self.with_locked(&mut shared, now, act)
    }

    pub fn with_locked<T>(
        &self,
        shared: &mut Shared,
        now: Nanos,
        act: impl FnOnce(&mut Machine, Nanos, &mut Vec<Send>) -> T,
    ) -> T {
        // Of several who have read the clock, any may come first.
        let now = now.max(shared.told);
        shared.told = now;
        let mut out = std::mem::take(&mut shared.out);
        let done = act(&mut shared.machine, now, &mut out);
        // Not moved out one by one: a packet to send is some 200 bytes.
        for send in &out {
            if !self.is_stopped() {
                self.send(send, &mut shared.stored);
            }
        }
        out.clear();
        shared.out = out;
        done
    }

    /// Waits until `look` finds something, for so long at most.
    pub fn wait<T>(
        &self,
        timeout: Duration,
        mut look: impl FnMut(&mut Machine) -> Option<T>,
    ) -> Option<T> {
        let mut shared = self.lock();
        if let Some(found) = look(&mut shared.machine) {
            return Some(found);
        }
        // The clock is read once for each packet: it is a good part of what a message costs. For a
        // long wait the time that was last told will do; it is never older than a slice.
        let mut now = if timeout < LONG_WAIT {
            self.now()
        } else {
            shared.told
        };
        let deadline = match timeout {
            Duration::MAX => Nanos::MAX,
            _ => now.saturating_add(nanos(timeout)),
        };
        while now < deadline && !self.is_stopped() {
            if shared.reading {
                shared.waiting += 1;
                let left = Duration::from_nanos(deadline - now);
                let waited = self.changed.wait_timeout(shared, left);
                shared = waited.unwrap_or_else(PoisonError::into_inner).0;
                shared.waiting -= 1;
                now = self.now();
            } else {
                (shared, now) = self.read(shared, now, deadline);
            }
            if let Some(found) = look(&mut shared.machine) {
                return Some(found);
            }
        }
        None
    }

    /// Reads the main socket once, as the only one, until the deadline at most.
    fn read<'n>(
        &'n self,
        mut shared: MutexGuard<'n, Shared>,
        now: Nanos,
        deadline: Nanos,
    ) -> (MutexGuard<'n, Shared>, Nanos) {
        let due = shared.machine.next_due().unwrap_or(Nanos::MAX);
        // A wait without an end leaves the time to its keeper, who has a timer already.
        let is_kept = deadline == Nanos::MAX && shared.looked_at <= due;
        let left = (!is_kept).then(|| due.min(deadline).saturating_sub(now));
        let mut landing = shared.landing.take().unwrap_or_default();
        shared.reading = true;
        drop(shared);
        let received = self.main.receive(landing.buffer(), left);
        let mut shared = self.lock();
        // Who asks nobody measures no round trip.
        let now = match is_kept && shared.machine.asks_nobody() {
            true => self.since_begun(clock::last_tick()).max(shared.told),
            false => self.now(),
        };
        self.with_locked(&mut shared, now, |machine, now, out| {
            if let Ok(Some((len, from))) = received {
                landing.landed(len);
                let _ = machine.landed(now, from, Port::Main, &mut landing, out);
            }
            if due <= now {
                machine.tick(now, out);
            }
        });
        shared.landing = Some(landing);
        shared.reading = false;
        if shared.waiting > 0 {
            self.changed.notify_all();
        }
        (shared, now)
    }

    /// The thread that receives retransmissions and keeps the time.
    fn keep(&self) {
        let _own = descriptors::keep_only([self.main.descriptor(), self.resend.descriptor()]);
        let mut buffer = vec![0; LONGEST];
        while !self.is_stopped() {
            let mut shared = self.lock();
            let (due, now) = (shared.machine.next_due(), self.now());
            let wait = due.unwrap_or(Nanos::MAX).saturating_sub(now).min(SLICE);
            shared.looked_at = now + wait;
            drop(shared);
            let received = self.resend.receive(&mut buffer, Some(wait));
            let now = self.now();
            let mut shared = self.lock();
            self.with_locked(&mut shared, now, |machine, now, out| {
                if let Ok(Some((len, from))) = received {
                    let _ = machine.datagram(now, from, Port::Resend, &buffer[..len], out);
                }
                machine.tick(now, out);
            });
            // When nobody waits for anything, acknowledgements and questions still come here.
            if !shared.reading && !matches!(received, Ok(Some(_))) {
                self.drain(&mut shared, &mut buffer);
            }
            if shared.waiting > 0 {
                self.changed.notify_all();
            }
        }
    }

    fn drain(&self, shared: &mut Shared, buffer: &mut [u8]) {
        for _ in 0..256 {
            let Ok(Some((len, from))) = self.main.poll(buffer) else {
                return;
            };
            self.with_locked(shared, self.now(), |machine, now, out| {
                let _ = machine.datagram(now, from, Port::Main, &buffer[..len], out);
            });
        }
    }

    fn send(&self, send: &Send, stored: &mut Stored) {
        let socket = match send.from {
            Port::Main => &self.main,
            Port::Resend => &self.resend,
        };
        let payload: &[u8] = match &send.body {
            Body::Nothing => &[],
            Body::Made(bytes) => bytes,
            Body::Stored { .. } if has_room(&send.header) => {
                return self.send_long(socket, send, stored);
            }
            Body::Stored { at, len, .. } => stored.bytes(*at, *len as usize),
        };
        let header = send.header.seal(payload, self.key.as_ref());
        // What is not taken is sent again later, as what is lost.
        let _ = socket.send(send.to, &header, payload);
    }

    /// A message that lies behind room for its header.
    #[inline(never)]
    fn send_long(&self, socket: &Socket, send: &Send, stored: &mut Stored) {
        let Body::Stored { at, len, part } = send.body else {
            return;
        };
        let len = len as usize;
        let payload = stored.bytes(at, len);
        let header = send
            .header
            .seal_summed(payload, part.as_ref(), self.key.as_ref());
        let _ = match stored.packet(at, len, &header) {
            Some(packet) => socket.send_whole(send.to, packet),
            None => socket.send(send.to, &header, stored.bytes(at, len)),
        };
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Ends the thread; packets are then neither received nor sent, whoever still waits.
    pub fn stop(&self) {
        let mut shared = self.lock();
        self.stop.store(true, Ordering::Release);
        shared.stored.gone();
        drop(shared);
        self.main.shut();
        self.changed.notify_all();
        if let Ok(mut address) = self.resend.address() {
            // It may be asleep: anything wakes it.
            if address.ip().is_unspecified() {
                address.set_ip(match address {
                    SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                    SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
                });
            }
            let _ = self.resend.send(address, b"stop", &[]);
        }
    }
}

/// Whether what the packet carries lies behind room for its header.
fn has_room(header: &Header) -> bool {
    header.offset == 0 && tables::room_before(header.message_len as usize) > 0
}
