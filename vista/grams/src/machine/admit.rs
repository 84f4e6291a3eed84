//! Who is listened to: clients that are known or show what they were granted, while there is room.

use std::net::SocketAddr;

use super::client::{self, Client, Served};
use super::timer::Nanos;
use super::{Body, ClientKey, Context, Inbound, Machine, Port, Send, context};
use crate::landing::Payload;
use crate::packet::{Header, Kind};

impl Machine {
    pub(super) fn client_said(
        &mut self,
        now: Nanos,
        from: SocketAddr,
        port: Port,
        header: &Header,
        payload: Payload<'_>,
        out: &mut Vec<Send>,
    ) {
        let key = (header.client, header.link);
        let room = self.inbox_room(header.message_len as usize);
        let client = match self.clients.get_mut(&key) {
            Some(client) if client.stream == header.stream && header.kind != Kind::Hello => client,
            _ => {
                if !self.admit(now, from, port, header, out) {
                    return;
                }
                self.clients.get_mut(&key).expect("admitted")
            }
        };
        let mut cx = context!(self, now, out);
        let whole = client.packet(self.window, from, port, header, payload, room, &mut cx);
        if client.list_if_lagging() {
            self.unsettled.push(key);
        }
        if let Some(bytes) = whole {
            self.inbox_bytes += bytes.len();
            self.inbox.push_back(Inbound {
                client: key,
                seq: header.seq,
                bytes,
            });
        }
        if self.assembly_bytes > self.settings.assembly_bytes {
            self.bound_assemblies(key);
        }
    }

    /// Whether the packet belongs to a conversation with a client, though not to the one that is
    /// known. One that is unknown, or has a stream that was granted later than the one known, must
    /// show what it was granted; who cannot is granted a stream, about which nothing is kept here.
    #[cold]
    fn admit(
        &mut self,
        now: Nanos,
        from: SocketAddr,
        port: Port,
        header: &Header,
        out: &mut Vec<Send>,
    ) -> bool {
        let key = (header.client, header.link);
        let known = self.clients.get(&key).map(|client| client.stream);
        if header.kind != Kind::Hello {
            // Late, or of a client that is behind, which will see from the answer that it is.
            let behind = known.is_some_and(|stream| stream > header.stream);
            self.counters.rejected += u64::from(behind);
            if !behind && self.grants.is_granted(key, header.stream, header.cookie) {
                if let Some(client) = self.clients.get_mut(&key) {
                    client.stream = header.stream;
                    return true;
                }
                // Only a request is worth remembering somebody for.
                if header.kind != Kind::Request {
                    return false;
                }
                if self.clients.len() >= 2 * self.settings.clients {
                    self.counters.no_room += 1;
                    return false;
                }
                let client = Client::fresh(key, header.stream, from, now);
                self.clients.insert(client);
                return true;
            }
        }
        if known.is_none() && self.clients.len() >= 2 * self.settings.clients {
            self.counters.no_room += 1;
            return false;
        }
        let (stream, cookie) = self.grants.grant(key);
        let mut welcome = self.grants.about(self.node, self.window);
        welcome.was = header.stream;
        welcome.cookie = cookie;
        welcome.answers = header.cookie;
        let cx = context!(self, now, out);
        cx.counters.packets_out += 1;
        cx.out.push(Send {
            to: from,
            from: port,
            header: Header {
                stream,
                cookie: cx.resend_port.into(),
                ..client::header(Kind::Welcome, key)
            },
            body: Body::Made(welcome.to_bytes()),
        });
        false
    }

    fn inbox_room(&self, len: usize) -> bool {
        self.inbox.len() < self.settings.inbox
            && self.inbox_bytes + len <= self.settings.inbox_bytes
    }

    /// Gives up unfinished messages of other clients while they take too much memory; they are
    /// sent again.
    #[cold]
    fn bound_assemblies(&mut self, newest: ClientKey) {
        while self.assembly_bytes > self.settings.assembly_bytes {
            let oldest = self.clients.iter_mut().filter(|client| {
                let unfinished = |served: &Served| matches!(served, Served::Arriving(_));
                client.key != newest && client.slots.values().any(unfinished)
            });
            let victim = oldest.min_by_key(|client| (client.heard, client.key));
            let client = match victim {
                Some(client) => client,
                None => match self.clients.get_mut(&newest) {
                    Some(client) => client,
                    None => return,
                },
            };
            let freed = client.drop_assemblies();
            self.counters.no_room += 1;
            self.assembly_bytes -= freed.min(self.assembly_bytes);
            if freed == 0 {
                // What is left belongs to responses, each of which somebody here asked for.
                return;
            }
        }
    }
}
