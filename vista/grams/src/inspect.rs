//! A look into the message tables of an image that changes nothing.

use std::fmt::{self, Write};
use std::net::SocketAddr;
use std::path::Path;

use rio_core::At;
use vista::inspect::look;

use crate::memory::Looked;
use crate::tables::{self, Loaded, SEGMENT, Slot};
use crate::{Error, NodeId};

/// What the tables say.
pub struct Messages {
    loaded: Loaded,
}

/// The message tables of an image, if it has any.
pub fn messages(path: &Path) -> Result<Option<Messages>, Error> {
    let loaded = look(path, |rio, summary| {
        let rows = summary
            .table
            .rows
            .iter()
            .take(summary.table.segments as usize);
        let named = |name: &[u8; 24]| {
            name.starts_with(SEGMENT.as_bytes()) && name[SEGMENT.len()..].iter().all(|&b| b == 0)
        };
        let index = rows.into_iter().position(|row| named(&row.name));
        let Some(index) = index else { return Ok(None) };
        let root = At::from_word(summary.roots[index]);
        tables::load(&Looked { rio, root })
    })?;
    Ok(loaded?.map(|loaded| Messages { loaded }))
}

fn used(slots: &[Slot]) -> impl Iterator<Item = &Slot> {
    let mut used: Vec<&Slot> = slots
        .iter()
        .filter(|slot| slot.state != tables::FREE)
        .collect();
    used.sort_by_key(|slot| slot.seq);
    used.into_iter()
}

/// What a slot's state means.
fn state(slot: &Slot) -> &'static str {
    match slot.state {
        tables::SENT => "waits for its response",
        tables::RECEIVED => "received, not answered",
        tables::RESPONDED => "answered, response kept",
        _ => "settled before an older one",
    }
}

impl fmt::Display for Messages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let root = &self.loaded.root;
        writeln!(
            f,
            "messages: node {:?}, opened {} times, window {}, last at {}, retransmissions at port {}",
            NodeId(root.node),
            root.boots,
            root.window,
            SocketAddr::from(root.address),
            root.resend_port
        )?;
        for (_, row, slots) in &self.loaded.links {
            let unsettled = used(slots).count();
            writeln!(
                f,
                "  requests to {} ({}), link {}: {} sent, {unsettled} unsettled",
                SocketAddr::from(row.address),
                NodeId(row.server),
                row.number,
                row.next_seq - 1
            )?;
            lines(f, slots)?;
        }
        for (_, row, slots) in &self.loaded.clients {
            writeln!(
                f,
                "  requests of {} ({}), link {}: all below {} settled, {} known",
                SocketAddr::from(row.address),
                NodeId(row.node),
                row.link,
                row.floor,
                used(slots).count()
            )?;
            lines(f, slots)?;
        }
        Ok(())
    }
}

fn lines(f: &mut fmt::Formatter<'_>, slots: &[Slot]) -> fmt::Result {
    for slot in used(slots) {
        write!(f, "    request {}: {}", slot.seq, state(slot))?;
        match slot.bytes.is_null() {
            true => writeln!(f)?,
            false => writeln!(f, ", {} bytes at {}", slot.len, slot.bytes.at())?,
        }
    }
    Ok(())
}

impl Messages {
    pub fn json(&self) -> String {
        let root = &self.loaded.root;
        let mut out = String::new();
        let _ = write!(
            out,
            "{{\"node\":\"{:?}\",\"boots\":{},\"window\":{},\"address\":\"{}\",\"resend_port\":{},\
             \"servers\":[",
            NodeId(root.node),
            root.boots,
            root.window,
            SocketAddr::from(root.address),
            root.resend_port
        );
        for (index, (_, row, slots)) in self.loaded.links.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            let _ = write!(
                out,
                "{comma}{{\"link\":{},\"address\":\"{}\",\"node\":\"{:?}\",\"sent\":{},\"requests\":{}}}",
                row.number,
                SocketAddr::from(row.address),
                NodeId(row.server),
                row.next_seq - 1,
                slots_json(slots)
            );
        }
        out.push_str("],\"clients\":[");
        for (index, (_, row, slots)) in self.loaded.clients.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            let _ = write!(
                out,
                "{comma}{{\"node\":\"{:?}\",\"link\":{},\"address\":\"{}\",\"floor\":{},\"requests\":{}}}",
                NodeId(row.node),
                row.link,
                SocketAddr::from(row.address),
                row.floor,
                slots_json(slots)
            );
        }
        out.push_str("]}");
        out
    }
}

fn slots_json(slots: &[Slot]) -> String {
    let one = |slot: &Slot| {
        format!(
            "{{\"seq\":{},\"state\":\"{}\",\"len\":{}}}",
            slot.seq,
            state(slot),
            slot.len
        )
    };
    format!("[{}]", used(slots).map(one).collect::<Vec<_>>().join(","))
}
