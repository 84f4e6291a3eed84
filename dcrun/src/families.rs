//! Who starts whom at a recovery, so that sessions and process groups are as they were.
//!
//! A process can begin a session, but join one only by its birth. So the members of a
//! session that the program has begun are cloned by its leader, before any of them is a
//! worker; all are the keeper's children all the same (CLONE_PARENT). Of a session whose
//! leader has ended another process begins it, clones the members, and ends. A group whose
//! leader has ended is begun in the same way.
//!
//! ```text
//! keeper -- first process -- members of its group, or of its session
//!   |------ leader -- members of its session
//!   |------ stand-in (setsid) -- members of a session whose leader has ended
//!   |------ stand-in (setpgid)         lets others join its group, and ends
//!   `------ all others
//! ```

use std::ffi::CString;
use std::sync::atomic::Ordering::Relaxed;

use dc_image::run::Process;

use crate::machine::shared::SharedLive;

/// One process to be started, with those that it starts.
pub struct Member {
    /// Its entry; none is a stand-in.
    pub slot: Option<u32>,
    /// The number that programs know it, or the group or session, by.
    pub id: i32,
    pub begins_session: bool,
    /// 0 is the group of who starts it.
    pub group: i32,
    /// The terminal of the session that it begins.
    pub terminal: Option<CString>,
    pub members: Vec<Member>,
}

impl Member {
    /// The first process of a fresh run: where the keeper is.
    pub fn first(id: i32) -> Member {
        Member {
            slot: Some(0),
            id,
            begins_session: false,
            group: 0,
            terminal: None,
            members: Vec::new(),
        }
    }

    fn of(slot: u32, p: &Process) -> Member {
        let id = p.id.load(Relaxed);
        Member {
            slot: Some(slot),
            begins_session: p.session.get() == id,
            group: p.group.get(),
            terminal: name_of_terminal(p.terminal.get()),
            ..Member::first(id)
        }
    }

    fn stand_in(id: i32, begins_session: bool) -> Member {
        Member {
            slot: None,
            begins_session,
            group: id,
            ..Member::first(id)
        }
    }

    /// Whether others may join a group that it begins.
    pub fn leads_group(&self) -> bool {
        self.group == self.id
    }
}

/// All processes of the last commit, in the order in which the keeper starts them: the first
/// process last.
pub fn arrange(live: &SharedLive, slots: &[usize]) -> Vec<Member> {
    let all: Vec<(u32, &Process)> = slots
        .iter()
        .map(|&slot| (slot as u32, &live.processes()[slot]))
        .collect();
    family(&all)
}

fn family(all: &[(u32, &Process)]) -> Vec<Member> {
    let mut top: Vec<Member> = Vec::new();
    let mut sessions: Vec<i32> = all.iter().map(|(_, p)| p.session.get()).collect();
    sessions.sort_unstable();
    sessions.dedup();
    for session in sessions {
        let mut members: Vec<Member> = all
            .iter()
            .filter(|(_, p)| p.session.get() == session)
            .map(|&(slot, p)| Member::of(slot, p))
            .collect();
        if session == 0 {
            with_leaders(&mut members, 0);
            top.extend(members);
            continue;
        }
        let mut leader = match members.iter().position(|m| m.begins_session) {
            Some(at) => members.remove(at),
            None => Member::stand_in(session, true),
        };
        with_leaders(&mut members, session);
        leader.members = members;
        top.push(leader);
    }
    if let Some(at) = top.iter().position(|m| m.slot == Some(0)) {
        let mut first = top.remove(at);
        if !first.begins_session && first.leads_group() {
            // It is started last, so who joins its group is started by it.
            let (its, others) = top
                .into_iter()
                .partition(|m| !m.begins_session && m.group == first.id);
            (first.members, top) = (its, others);
        }
        top.push(first);
    }
    top
}

/// Puts who begins a group before those that join it, and somebody in the place of leaders
/// that have ended.
fn with_leaders(members: &mut Vec<Member>, session: i32) {
    let mut groups: Vec<i32> = members.iter().map(|m| m.group).collect();
    groups.sort_unstable();
    groups.dedup();
    for group in groups {
        let has_leader =
            group == session || members.iter().any(|m| m.id == group && m.leads_group());
        if !has_leader {
            members.push(Member::stand_in(group, false));
        }
    }
    members.sort_by_key(|m| !m.leads_group());
}

/// The path of a terminal, by its number as a device.
fn name_of_terminal(device: i32) -> Option<CString> {
    const OF_PTYS: i32 = 136;
    const OF_CONSOLES: i32 = 4;
    let (major, minor) = (device >> 20, device & 0xf_ffff);
    let path = match major {
        OF_PTYS => format!("/dev/pts/{minor}"),
        OF_CONSOLES if minor < 64 => format!("/dev/tty{minor}"),
        _ => return None,
    };
    CString::new(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(id: i32, session: i32, group: i32) -> Process {
        let p = Process::new();
        p.id.store(id, Relaxed);
        p.session.fix(session);
        p.group.fix(group);
        p
    }

    /// `id` of each, with what it starts in brackets; `+` begins a session, `*` stands in.
    fn drawn(members: &[Member]) -> String {
        let one = |m: &Member| {
            let mark = match (m.begins_session, m.slot) {
                (true, Some(_)) => "+",
                (true, None) => "+*",
                (false, None) => "*",
                _ => "",
            };
            let inside = match m.members.is_empty() {
                true => String::new(),
                false => format!("[{}]", drawn(&m.members)),
            };
            format!("{mark}{}{inside}", m.id)
        };
        members.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    fn arranged(table: &[Process]) -> String {
        let all: Vec<(u32, &Process)> = (0..).zip(table).collect();
        drawn(&family(&all))
    }

    #[test]
    fn who_is_where_the_keeper_is_is_started_by_it() {
        let table = [process(10, 0, 0), process(11, 0, 0), process(12, 0, 0)];
        assert_eq!(arranged(&table), "11 12 10");
    }

    #[test]
    fn members_are_started_by_the_leader_of_their_session() {
        let table = [
            process(10, 0, 0),
            process(11, 11, 11),
            process(12, 11, 12),
            process(13, 11, 12),
            process(14, 11, 11),
        ];
        assert_eq!(arranged(&table), "+11[12 13 14] 10");
    }

    #[test]
    fn somebody_stands_in_for_leaders_that_have_ended() {
        let table = [process(10, 0, 0), process(12, 11, 11), process(13, 0, 9)];
        assert_eq!(arranged(&table), "*9 13 +*11[12] 10");
        let table = [process(10, 0, 0), process(12, 11, 7), process(13, 11, 11)];
        assert_eq!(arranged(&table), "+*11[*7 12 13] 10");
    }

    #[test]
    fn who_joins_the_group_of_the_first_process_is_started_by_it() {
        let table = [process(10, 0, 10), process(11, 0, 10), process(12, 0, 12)];
        assert_eq!(arranged(&table), "12 10[11]");
        let table = [
            process(10, 10, 10),
            process(11, 10, 10),
            process(12, 12, 12),
        ];
        assert_eq!(arranged(&table), "+12 +10[11]");
    }

    #[test]
    fn terminals_have_names() {
        let name = |device| name_of_terminal(device).map(|name| name.into_string().unwrap());
        assert_eq!(name(136 << 20 | 300).as_deref(), Some("/dev/pts/300"));
        assert_eq!(name(4 << 20 | 2).as_deref(), Some("/dev/tty2"));
        assert_eq!(name(0), None);
    }
}
