//! The one machine behind the seven protocols.
//!
//! It remembers little: whether a non-deterministic event is uncommitted (the flag), whether a
//! commit it asked for is still owed, whether the log has a tail that is not durable. It clears
//! them when it is *told* of a commit, never when it asks for one, so that a commit that fails or
//! must wait is asked for again at the next event that needs it.
//!
//! A machine is eight bytes of plain data, because it lives in persistent memory and is rolled back
//! with the process it decides for. It holds a number and not a [`Protocol`], for any byte may come
//! back from an image; [`Machine::from_bytes`] is the way in for bytes that nobody vouches for.

use crate::event::{Decision, Event};
use crate::rules::{Protocol, Rules, Scope, When};

/// One process's side of its commit protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(C)]
pub struct Machine {
    protocol: u8,
    /// A non-deterministic event is neither committed nor logged.
    flag: u8,
    /// Several threads run: the interleaving is non-deterministic at every instant.
    always_nd: u8,
    /// A commit after an event was asked for and has not been reported.
    owed: u8,
    /// Log records may be lost by a crash.
    unflushed: u8,
    /// Records wait for the next visible event or send instead of being flushed at once.
    lazy_log: u8,
    reserved: [u8; 2],
}

const _: () = assert!(size_of::<Machine>() == 8 && align_of::<Machine>() == 1);

impl Machine {
    pub const fn new(protocol: Protocol) -> Self {
        Machine {
            protocol: protocol as u8,
            flag: 0,
            always_nd: 0,
            owed: 0,
            unflushed: 0,
            lazy_log: 1,
            reserved: [0; 2],
        }
    }

    /// The machine's image, as it may be kept in persistent memory.
    pub const fn to_bytes(self) -> [u8; 8] {
        [
            self.protocol,
            self.flag,
            self.always_nd,
            self.owed,
            self.unflushed,
            self.lazy_log,
            self.reserved[0],
            self.reserved[1],
        ]
    }

    /// The machine of that image, or nothing if no machine ever had it.
    pub fn from_bytes(bytes: [u8; 8]) -> Option<Machine> {
        let [protocol, flag, always_nd, owed, unflushed, lazy_log, r0, r1] = bytes;
        let bits = [flag, always_nd, owed, unflushed, lazy_log];
        if Protocol::from_u8(protocol).is_none() || bits.iter().any(|b| *b > 1) || r0 | r1 != 0 {
            return None;
        }
        Some(Machine {
            protocol,
            flag,
            always_nd,
            owed,
            unflushed,
            lazy_log,
            reserved: [0; 2],
        })
    }

    /// Whether these bits are a machine; to be asked once when a machine was mapped, not made.
    pub fn is_valid(&self) -> bool {
        Machine::from_bytes(self.to_bytes()).is_some()
    }

    /// The protocol it follows. Bits that are no machine follow CPVS, which has to know least.
    pub const fn protocol(&self) -> Protocol {
        match Protocol::from_u8(self.protocol) {
            Some(protocol) => protocol,
            None => Protocol::Cpvs,
        }
    }

    /// Whether a non-deterministic event is neither committed nor logged.
    pub const fn flag(&self) -> bool {
        self.flag != 0 || self.always_nd != 0
    }

    /// Whether log records wait to become durable.
    pub const fn unflushed(&self) -> bool {
        self.unflushed != 0
    }

    /// Tells whether several threads can run. While they can, the flag counts as set under every
    /// protocol, and nothing is logged instead of being committed. When they no longer can, the
    /// flag stays set until the next commit: the interleaving has happened.
    pub fn set_always_nd(&mut self, several_threads: bool) {
        if several_threads {
            self.flag = 1;
        }
        self.always_nd = several_threads as u8;
    }

    /// Whether several threads run, so that the flag is always set.
    pub fn always_nd(&self) -> bool {
        self.always_nd != 0
    }

    /// Whether log records may wait for the next visible event or send (the default).
    pub fn set_lazy_log(&mut self, lazy: bool) {
        self.lazy_log = lazy as u8;
    }

    /// Whether another protocol could take over now: everything of this process is committed.
    pub const fn at_safe_point(&self) -> bool {
        self.flag == 0 && self.owed == 0 && self.unflushed == 0
    }

    /// Moves to another protocol, if this is a safe point for it; says whether it did.
    ///
    /// A move between local protocols and group protocols is refused here. One process that commits
    /// alone among peers that send uncommitted dependencies would preserve them, so the whole group
    /// moves together, at a round, with [`Machine::change_scope_to`].
    pub fn change_to(&mut self, protocol: Protocol) -> bool {
        if self.protocol().is_two_phase() != protocol.is_two_phase() {
            return false;
        }
        self.change_scope_to(protocol)
    }

    /// Moves to any protocol at a safe point. Every process of the group must do so at one and the
    /// same round, with no message between them in flight.
    pub fn change_scope_to(&mut self, protocol: Protocol) -> bool {
        if !self.at_safe_point() {
            return false;
        }
        self.protocol = protocol as u8;
        true
    }

    /// What is to be done about this event.
    pub fn step(&mut self, event: Event) -> Decision {
        let rules = self.protocol().rules();
        self.step_under(&rules, event)
    }

    /// As [`Machine::step`], under other rules than its protocol's: the checker's way of taking a
    /// rule away.
    pub fn step_under(&mut self, rules: &Rules, event: Event) -> Decision {
        let global = matches!(rules.scope, Scope::Group);
        match event {
            Event::NonDeterministic { loggable } => self.non_deterministic(rules, loggable),
            Event::Receive => self.non_deterministic(rules, true),
            Event::Visible => self.leaves_process(rules.before_visible, global),
            Event::Send => {
                let when = if self.always_nd != 0 && !global {
                    When::Always
                } else {
                    rules.before_send
                };
                self.leaves_process(when, global)
            }
            Event::VisibleNonDeterministic => {
                let before = self.leaves_process(rules.before_visible, global);
                self.flag = 1;
                self.owed = 1;
                Decision {
                    commit_after: true,
                    atomic: true,
                    global,
                    ..before
                }
            }
            Event::Unknown => {
                self.flag = 1;
                self.owed = 1;
                Decision {
                    commit_before: true,
                    commit_after: true,
                    global,
                    ..Decision::NONE
                }
            }
            Event::CommitRequested => Decision {
                commit_before: true,
                global,
                ..Decision::NONE
            },
            Event::Committed | Event::RolledBack => {
                self.flag = 0;
                self.owed = 0;
                self.unflushed = 0;
                Decision::NONE
            }
            Event::Flushed => {
                self.unflushed = 0;
                Decision::NONE
            }
        }
    }

    fn non_deterministic(&mut self, rules: &Rules, loggable: bool) -> Decision {
        // A log stands for a commit only while it is complete. Once an event is missing from it,
        // replay may take another path, and records behind that event would be fed to it.
        if rules.log && loggable && !self.flag() {
            self.unflushed = 1;
            return Decision {
                log: true,
                flush: self.lazy_log == 0,
                ..Decision::NONE
            };
        }
        self.flag = 1;
        if !rules.after_non_deterministic {
            return Decision::NONE;
        }
        self.owed = 1;
        let global = matches!(rules.scope, Scope::Group);
        Decision {
            commit_after: true,
            global,
            ..Decision::NONE
        }
    }

    /// Before a visible event or a send.
    fn leaves_process(&mut self, when: When, global: bool) -> Decision {
        let asked = match when {
            When::Never => false,
            When::Always => true,
            When::IfFlagged => self.flag(),
        };
        // The rules of CAND name no visible event, so threads need the commit said here.
        let threads = self.always_nd != 0 && !global;
        let commit_before = asked || threads || self.owed != 0;
        Decision {
            commit_before,
            // A commit takes the place of the log.
            flush: self.unflushed != 0 && !commit_before,
            global: global && commit_before,
            ..Decision::NONE
        }
    }
}
