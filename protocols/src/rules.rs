//! The seven protocols as seven rows of one table.
//!
//! The protocols differ in five answers and in nothing else, so they are data, and
//! [`Machine`](crate::Machine) is the only code. Written as seven machines, the same flag would be
//! kept seven times, and the checker could not take a rule away from one of them to see it fail.

use core::fmt;

/// A way of upholding the commit invariant.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Protocol {
    /// Commit prior to visible or send.
    Cpvs = 0,
    /// Commit after non-deterministic.
    Cand = 1,
    /// Commit between non-deterministic and visible or send.
    Cbndvs = 2,
    /// CAND, with loggable results logged instead of committed.
    CandLog = 3,
    /// CBNDVS, with loggable results logged instead of remembered in the flag.
    CbndvsLog = 4,
    /// Commit prior to visible, all processes together; sends are not visible.
    Cpv2pc = 5,
    /// Commit between non-deterministic and visible, all processes together.
    Cbndv2pc = 6,
}

/// When a rule asks for a commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum When {
    Never,
    Always,
    /// If a non-deterministic event is uncommitted and unlogged.
    IfFlagged,
}

/// Who commits when one process commits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Scope {
    /// The process alone.
    Local,
    /// Every process of the group, in one round of two-phase commit.
    Group,
}

/// What one protocol does. A copy with a rule taken away is a mutant for the checker.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Rules {
    pub before_visible: When,
    pub before_send: When,
    pub after_non_deterministic: bool,
    pub log: bool,
    pub scope: Scope,
}

const fn row(
    before_visible: When,
    before_send: When,
    after_non_deterministic: bool,
    log: bool,
    scope: Scope,
) -> Rules {
    Rules {
        before_visible,
        before_send,
        after_non_deterministic,
        log,
        scope,
    }
}

impl Protocol {
    pub const ALL: [Protocol; 7] = [
        Protocol::Cpvs,
        Protocol::Cand,
        Protocol::Cbndvs,
        Protocol::CandLog,
        Protocol::CbndvsLog,
        Protocol::Cpv2pc,
        Protocol::Cbndv2pc,
    ];

    /// The table.
    #[rustfmt::skip]
    pub const fn rules(self) -> Rules {
        use Scope::{Group, Local};
        use When::{Always, IfFlagged, Never};
        match self {
            //                            visible    send       after  log    scope
            Protocol::Cpvs      => row(Always,    Always,    false, false, Local),
            Protocol::Cand      => row(Never,     Never,     true,  false, Local),
            Protocol::Cbndvs    => row(IfFlagged, IfFlagged, false, false, Local),
            Protocol::CandLog   => row(Never,     Never,     true,  true,  Local),
            Protocol::CbndvsLog => row(IfFlagged, IfFlagged, false, true,  Local),
            Protocol::Cpv2pc    => row(Always,    Never,     false, false, Group),
            Protocol::Cbndv2pc  => row(IfFlagged, Never,     false, false, Group),
        }
    }

    /// The name a user types.
    pub const fn name(self) -> &'static str {
        match self {
            Protocol::Cpvs => "cpvs",
            Protocol::Cand => "cand",
            Protocol::Cbndvs => "cbndvs",
            Protocol::CandLog => "cand-log",
            Protocol::CbndvsLog => "cbndvs-log",
            Protocol::Cpv2pc => "cpv-2pc",
            Protocol::Cbndv2pc => "cbndv-2pc",
        }
    }

    /// The protocol of that name, in lower case as [`Protocol::name`] gives it.
    pub fn from_name(name: &str) -> Option<Protocol> {
        Protocol::ALL.into_iter().find(|p| p.name() == name)
    }

    /// The protocol with that number; numbers are kept in persistent images and never reassigned.
    pub const fn from_u8(number: u8) -> Option<Protocol> {
        if (number as usize) < Protocol::ALL.len() {
            Some(Protocol::ALL[number as usize])
        } else {
            None
        }
    }

    /// Whether results are logged under this protocol.
    pub const fn logs(self) -> bool {
        self.rules().log
    }

    /// Whether its commits are rounds over the group.
    pub const fn is_two_phase(self) -> bool {
        matches!(self.rules().scope, Scope::Group)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_lead_back() {
        for (number, protocol) in Protocol::ALL.into_iter().enumerate() {
            assert_eq!(protocol as usize, number);
            assert_eq!(Protocol::from_u8(number as u8), Some(protocol));
            assert_eq!(Protocol::from_name(protocol.name()), Some(protocol));
        }
        assert_eq!(Protocol::from_u8(7), None);
        assert_eq!(Protocol::from_name("CPVS"), None);
    }

    #[test]
    fn nothing_is_logged_under_two_phase_commit() {
        // A logged receive could not be taken back when the sender's round aborts.
        assert!(
            Protocol::ALL
                .into_iter()
                .all(|p| !(p.logs() && p.is_two_phase()))
        );
    }
}
