//! The names of the thesis' figure 4.3 over raw addresses. A call never unwinds.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::slice;
use std::time::Duration;

use vista::SegmentOptions;
use vista_c::Vista;
use vistagrams::exchange::Exchange;
use vistagrams::memory::InCore;
use vistagrams::{Error, RequestId, Settings, tables};

use crate::messages::{Found, Messages};

/// `enum vista_grams_status`, after those of Vista.
const TIMEOUT: c_int = 7;
const ORDER: c_int = 8;
const ROOM: c_int = 9;
const NET: c_int = 10;
const WINDOW: c_int = 11;
const REPLACED: c_int = 12;
const RANGE: c_int = 3;
const FULL: c_int = 4;
const IMAGE: c_int = 5;

/// `struct vista_grams_options`.
#[repr(C)]
pub struct GramsOptions {
    pub resend_port: u16,
    pub key: *const u8,
    pub datagram: usize,
    pub window: usize,
    pub segment_len: usize,
}

/// # Safety
/// `v` comes from `vista_init`, `listen` is a C string, `options` is NULL or points to options.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vista_grams_open(
    v: *mut Vista,
    listen: *const c_char,
    options: *const GramsOptions,
) -> c_int {
    // SAFETY: the caller vouches for all three.
    let (vista, listen, options) = unsafe {
        (
            &mut *v,
            CStr::from_ptr(listen).to_string_lossy(),
            options.as_ref(),
        )
    };
    let Ok(address) = listen.parse() else {
        let text = format!("listen at {listen}: not an address: write 10.0.0.1:4000 or [::1]:4000");
        return vista.fail(&text, NET);
    };
    let mut settings = Settings::at(address);
    if let Some(options) = options {
        settings.resend_port = options.resend_port;
        if !options.key.is_null() {
            // SAFETY: the caller vouches for 16 bytes.
            let key = unsafe { slice::from_raw_parts(options.key, 16) };
            settings.key = key.try_into().ok();
        }
        for (chosen, field) in [
            (options.datagram, &mut settings.datagram),
            (options.segment_len, &mut settings.segment_len),
        ] {
            if chosen > 0 {
                *field = chosen;
            }
        }
        if options.window > 0 {
            settings.window = options.window.try_into().unwrap_or(u32::MAX);
        }
    }
    let opened = open(vista, settings);
    status(vista, opened)
}

fn open(vista: &mut Vista, settings: Settings) -> Result<(), Error> {
    settings.check()?;
    let (store, extension) = vista.parts();
    if extension.is_some() {
        return Err(Error::AlreadyOpen);
    }
    let path: PathBuf = store.path().to_owned();
    let options = SegmentOptions::heap(settings.segment_len);
    let segment = store.segment_or_create(tables::SEGMENT, options)?;
    let base = store.base(segment);
    let len = store.info(segment)?.len as usize;
    let is_writable = !store.is_protected();
    let core = store.core();
    let fault = |fault| Error::Vista(vista::Error::of(&path)(fault));
    core.begin().map_err(fault)?;
    let mut memory = InCore {
        core,
        segment: segment.index(),
        path: &path,
    };
    let started = vistagrams::net::start_tables(&mut memory, settings);
    let (bound, machine, root) = match started {
        Ok(started) => started,
        Err(error) => {
            let _ = core.abort();
            return Err(error);
        }
    };
    core.end().map_err(fault)?;
    // SAFETY: the store keeps the segment mapped in place; the extension is dropped before it.
    let stored = unsafe { vistagrams::stored::Stored::at(segment.index(), base, len, is_writable) };
    let (net, thread) = vistagrams::net::Net::start(bound, machine, stored);
    let messages = Messages {
        net,
        thread: Some(thread),
        exchange: Exchange::new(root),
        segment: segment.index(),
        path,
    };
    Ok(vista.attach(Box::new(messages))?)
}

/// # Safety
/// `v` comes from `vista_init`; `address` is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vista_peer(v: *mut Vista, address: *const c_char) -> u32 {
    // SAFETY: the caller vouches for both.
    let (vista, address) = unsafe { (&mut *v, CStr::from_ptr(address).to_string_lossy()) };
    let Ok(address) = address.parse::<SocketAddr>() else {
        let text = format!("peer {address}: not an address: write 10.0.0.1:4000 or [::1]:4000");
        vista.fail(&text, NET);
        return 0;
    };
    let found = with(vista, |core, messages| messages.peer(core, address));
    match found {
        Ok(number) => number,
        Err(code) => {
            debug_assert_ne!(code, 0);
            0
        }
    }
}

/// # Safety
/// `v` comes from `vista_init`; `data` has `len` bytes; `id` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vista_send_request(
    v: *mut Vista,
    peer: u32,
    data: *const c_void,
    len: usize,
    id: *mut RequestId,
) -> c_int {
    // SAFETY: the caller vouches for them.
    let (vista, message) = unsafe { (&mut *v, bytes(data, len)) };
    match with(vista, |core, messages| {
        messages.send_request(core, peer, message)
    }) {
        Ok(sent) => {
            // SAFETY: NULL, or the caller's to be written.
            if let Some(id) = unsafe { id.as_mut() } {
                *id = sent;
            }
            0
        }
        Err(code) => code,
    }
}

/// # Safety
/// `v` comes from `vista_init`; `buffer` has `size` bytes; `len` and `id` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vista_receive_request(
    v: *mut Vista,
    buffer: *mut c_void,
    size: usize,
    len: *mut usize,
    id: *mut RequestId,
    timeout_ms: c_int,
) -> c_int {
    // SAFETY: the caller vouches for them.
    let (vista, len, id) = unsafe { (&mut *v, &mut *len, &mut *id) };
    let timeout = patience(timeout_ms);
    match with(vista, |core, messages| {
        messages.receive_request(core, size, timeout)
    }) {
        Ok(Found::Message((request, bytes))) => {
            *id = request;
            // SAFETY: the buffer has room, which was looked at before the message was taken.
            unsafe { give(buffer, &bytes, len) };
            0
        }
        Ok(found) => none(vista, found, len, size, "receive a request"),
        Err(code) => code,
    }
}

/// # Safety
/// `v` comes from `vista_init`; `id` points to an id; `data` has `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vista_send_response(
    v: *mut Vista,
    id: *const RequestId,
    data: *const c_void,
    len: usize,
) -> c_int {
    // SAFETY: the caller vouches for them.
    let (vista, id, message) = unsafe { (&mut *v, &*id, bytes(data, len)) };
    match with(vista, |core, messages| {
        messages.send_response(core, id, message)
    }) {
        Ok(()) => 0,
        Err(code) => code,
    }
}

/// # Safety
/// `v` comes from `vista_init`; `id` points to an id; `buffer` has `size` bytes; `len` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vista_receive_response(
    v: *mut Vista,
    id: *const RequestId,
    buffer: *mut c_void,
    size: usize,
    len: *mut usize,
    timeout_ms: c_int,
) -> c_int {
    // SAFETY: the caller vouches for them.
    let (vista, id, len) = unsafe { (&mut *v, &*id, &mut *len) };
    let timeout = patience(timeout_ms);
    match with(vista, |core, messages| {
        messages.receive_response(core, id, size, timeout)
    }) {
        Ok(Found::Message(bytes)) => {
            // SAFETY: the buffer has room, which was looked at before the message was taken.
            unsafe { give(buffer, &bytes, len) };
            0
        }
        Ok(found) => none(vista, found, len, size, "receive a response"),
        Err(code) => code,
    }
}

/// # Safety
/// `v` comes from `vista_init`; `id` points to an id.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vista_abandon(v: *mut Vista, id: *const RequestId) -> c_int {
    // SAFETY: the caller vouches for both.
    let (vista, id) = unsafe { (&mut *v, &*id) };
    match with(vista, |core, messages| messages.abandon(core, id)) {
        Ok(()) => 0,
        Err(code) => code,
    }
}

/// # Safety
/// `v` comes from `vista_init`; `ids` points to `count` ids; `which` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vista_select(
    v: *mut Vista,
    ids: *const RequestId,
    count: usize,
    timeout_ms: c_int,
    which: *mut usize,
) -> c_int {
    // SAFETY: the caller vouches for them; no ids need no place.
    let (vista, ids, which) = unsafe {
        let ids = if count == 0 {
            &[][..]
        } else {
            slice::from_raw_parts(ids, count)
        };
        (&mut *v, ids, &mut *which)
    };
    let Some((_, messages)) = Messages::of(vista) else {
        return not_open(vista);
    };
    match messages.select(ids, patience(timeout_ms)) {
        Some(index) => {
            *which = index;
            0
        }
        None => vista.fail("select: nothing came in that time: call it again", TIMEOUT),
    }
}

/// # Safety
/// `v` comes from `vista_init`; `ids` has room for `most`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vista_unanswered(
    v: *mut Vista,
    ids: *mut RequestId,
    most: usize,
) -> usize {
    // SAFETY: the caller vouches for it.
    let vista = unsafe { &mut *v };
    let Some((_, messages)) = Messages::of(vista) else {
        not_open(vista);
        return 0;
    };
    let found = messages.net.lock().machine.unanswered();
    for (index, id) in found.iter().take(most).enumerate() {
        // SAFETY: below the caller's count.
        unsafe { ids.add(index).write(*id) };
    }
    found.len()
}

/// # Safety
/// `v` comes from `vista_init`; `buffer` has `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vista_grams_address(
    v: *mut Vista,
    buffer: *mut c_char,
    size: usize,
) -> c_int {
    // SAFETY: the caller vouches for it.
    let vista = unsafe { &mut *v };
    let Some((_, messages)) = Messages::of(vista) else {
        return not_open(vista);
    };
    let text = messages
        .net
        .address()
        .map_or(String::new(), |address| address.to_string());
    if text.len() >= size {
        let needs = text.len() + 1;
        return vista.fail(
            &format!("address: {needs} bytes needed, {size} given"),
            ROOM,
        );
    }
    // SAFETY: the text and its end fit.
    unsafe {
        buffer
            .cast::<u8>()
            .copy_from_nonoverlapping(text.as_ptr(), text.len());
        buffer.add(text.len()).write(0);
    }
    0
}

fn with<T>(
    vista: &mut Vista,
    act: impl FnOnce(&mut vista_core::Core<vista::AnyRio>, &mut Messages) -> Result<T, Error>,
) -> Result<T, c_int> {
    let Some((store, messages)) = Messages::of(vista) else {
        return Err(not_open(vista));
    };
    let core = store.core();
    if !core.in_transaction() {
        return Err(vista.fail("messages: no transaction is open: begin one first", 2));
    }
    act(core, messages).map_err(|error| status(vista, Err(error)))
}

fn not_open(vista: &mut Vista) -> c_int {
    vista.fail("messages: not open: call vista_grams_open first", ORDER)
}

fn none<T>(vista: &mut Vista, found: Found<T>, len: &mut usize, size: usize, what: &str) -> c_int {
    match found {
        Found::NeedsRoom(needs) => {
            *len = needs;
            let text = format!("{what}: {needs} bytes, the buffer has {size}: pass a longer one");
            vista.fail(&text, ROOM)
        }
        _ => vista.fail(
            &format!("{what}: nothing came in that time: call it again"),
            TIMEOUT,
        ),
    }
}

fn status(vista: &mut Vista, result: Result<(), Error>) -> c_int {
    let Err(error) = result else { return 0 };
    let code = match &error {
        Error::Vista(_) => {
            let Error::Vista(error) = error else {
                return IMAGE;
            };
            return vista.status(Err(error));
        }
        Error::Socket { .. } | Error::Settings(_) => NET,
        Error::Damaged(_) | Error::OtherVersion(_) | Error::ReadOnly => IMAGE,
        Error::TooLong { .. } | Error::TooManyPeers { .. } => FULL,
        Error::WindowFull { .. } | Error::PeerBusy { .. } => WINDOW,
        Error::NoSuchRequest(_) | Error::NotReceived(_) | Error::NoSuchPeer(_) => RANGE,
        Error::SentInThisTransaction(_) | Error::AlreadyOpen => ORDER,
        Error::ServerReplaced { .. } => REPLACED,
    };
    vista.fail(&error.to_string(), code)
}

fn patience(ms: c_int) -> Duration {
    match ms {
        0.. => Duration::from_millis(ms as u64),
        _ => Duration::MAX,
    }
}

/// # Safety
/// `data` has `len` bytes, or `len` is 0.
unsafe fn bytes<'a>(data: *const c_void, len: usize) -> &'a [u8] {
    match len {
        0 => &[],
        // SAFETY: the caller vouches for them.
        _ => unsafe { slice::from_raw_parts(data.cast(), len) },
    }
}

/// # Safety
/// `buffer` has room for all.
unsafe fn give(buffer: *mut c_void, bytes: &[u8], len: &mut usize) {
    *len = bytes.len();
    if !bytes.is_empty() {
        // SAFETY: the caller vouches for the room.
        unsafe {
            buffer
                .cast::<u8>()
                .copy_from_nonoverlapping(bytes.as_ptr(), bytes.len())
        }
    }
}
