//! What a client sends to a server: requests, reports of fragments, acknowledgements.

use super::link::Link;
use super::{Body, Context, Port, Send};
use crate::NodeId;
use crate::landing::Payload;
use crate::packet::{Have, Header, Kind, RESENT};
use crate::sum::Part;

impl Link {
    /// The server tells which fragments of a request have arrived.
    pub(super) fn have(&mut self, header: &Header, payload: Payload<'_>, cx: &mut Context<'_>) {
        let (Some(pending), Some(have)) = (
            self.pending.get_mut(header.seq),
            Have::parse(payload.bytes()),
        ) else {
            return;
        };
        let count = crate::fragment::pieces(pending.len, pending.outgoing.piece());
        if have.first >= count {
            pending.arrived = true;
            return;
        }
        let mut fragments = Vec::new();
        pending
            .outgoing
            .heard(&have, |offset, len| fragments.push((offset, len)));
        pending.tries = pending.tries.min(1);
        self.send_fragments(header.seq, &fragments, None, false, cx);
    }

    /// Sends what may be sent of a request for the first time.
    pub(super) fn send_more(&mut self, seq: u64, part: Option<Part>, cx: &mut Context<'_>) {
        let Some(pending) = self.pending.get_mut(seq) else {
            return;
        };
        if pending.outgoing.is_single() {
            let fragment = [(0, pending.len)];
            return self.send_fragments(seq, &fragment, part, false, cx);
        }
        let mut fragments = Vec::new();
        pending
            .outgoing
            .go_on(|offset, len| fragments.push((offset, len)));
        self.send_fragments(seq, &fragments, None, false, cx);
    }

    pub(super) fn send_fragments(
        &mut self,
        seq: u64,
        fragments: &[(u32, u32)],
        part: Option<Part>,
        again: bool,
        cx: &mut Context<'_>,
    ) {
        let Some(pending) = self.pending.get(seq) else {
            return;
        };
        let (at, message_len, piece) = (pending.at, pending.len, pending.outgoing.piece());
        let resend = again && !pending.tries.is_multiple_of(3);
        self.ack_due = None;
        let header = self.header(cx.node, Kind::Request, seq);
        for &(offset, len) in fragments {
            let header = Header {
                message_len,
                piece,
                offset,
                flags: if again { RESENT } else { 0 },
                ..header
            };
            let at = at.plus(offset as usize);
            self.send(header, Body::Stored { at, len, part }, resend, cx);
        }
    }

    pub(super) fn report(&mut self, seq: u64, have: &Have, flags: u32, cx: &mut Context<'_>) {
        let header = Header {
            flags,
            ..self.header(cx.node, Kind::HaveResponse, seq)
        };
        self.send(header, Body::Made(have.to_bytes()), true, cx);
    }

    pub(super) fn ack_now(&mut self, cx: &mut Context<'_>) {
        self.ack_due = None;
        let header = self.header(cx.node, Kind::Ack, 0);
        self.send(header, Body::Nothing, false, cx);
    }

    pub(super) fn header(&self, client: NodeId, kind: Kind, seq: u64) -> Header {
        let low = self.low();
        Header {
            kind,
            flags: 0,
            client,
            link: self.number,
            message_len: 0,
            stream: self.stream,
            cookie: self.cookie,
            seq,
            low,
            done: self.done(low),
            offset: 0,
            piece: 0,
        }
    }

    /// To the server's port for retransmissions, if it has told one.
    pub(super) fn send(&self, header: Header, body: Body, resend: bool, cx: &mut Context<'_>) {
        let mut to = self.address;
        if resend && self.resend_port != 0 {
            to.set_port(self.resend_port);
        }
        cx.counters.packets_out += 1;
        cx.out.push(Send {
            to,
            from: Port::Main,
            header,
            body,
        });
    }
}
