//! The system calls that are refused or not kept, as the runtime's own table has them.

/// What becomes of a program that makes the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The call is answered with an error.
    Refused,
    /// It is made, and a recovery behind it stops.
    StopsRecovery,
    /// It is made, and what it has made is not there after a recovery.
    NotKept,
}

#[derive(Debug)]
pub struct Limit {
    pub call: &'static str,
    pub kind: Kind,
    pub says: &'static str,
}

/// Made by `build.rs` from `libdc/runtime/src/table.rs`.
static LIMITS: &[Limit] = &include!(concat!(env!("OUT_DIR"), "/limits.rs"));

/// Functions of libraries that have other names than what they call.
const FUNCTIONS: [(&str, &str); 6] = [
    ("io_uring_queue_init", "io_uring_setup"),
    ("io_uring_queue_init_params", "io_uring_setup"),
    ("mq_getattr", "mq_getsetattr"),
    ("mq_receive", "mq_timedreceive"),
    ("mq_send", "mq_timedsend"),
    ("mq_setattr", "mq_getsetattr"),
];

/// Functions that have the name of a call, and are none.
const OTHERS: [&str; 1] = ["syslog"];

/// The limit of what a function of this name calls, if it has one.
pub fn of_function(name: &str) -> Option<&'static Limit> {
    let called = FUNCTIONS.iter().find(|(function, _)| *function == name);
    let call = called.map_or(name, |(_, call)| call);
    let mut limits = LIMITS.iter();
    limits.find(|limit| limit.call == call && !OTHERS.contains(&name))
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Refused => "refused",
            Kind::StopsRecovery => "stops a recovery",
            Kind::NotKept => "not kept",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_what_the_table_says() {
        let kind = |name: &str| of_function(name).map(|limit| limit.kind);
        for name in [
            "ptrace",
            "userfaultfd",
            "io_uring_queue_init",
            "landlock_restrict_self",
        ] {
            assert_eq!(kind(name), Some(Kind::Refused), "{name}");
        }
        for name in ["unshare", "setns", "pivot_root"] {
            assert_eq!(kind(name), Some(Kind::StopsRecovery), "{name}");
        }
        for name in ["mq_open", "mq_send", "perf_event_open", "fanotify_init"] {
            assert_eq!(kind(name), Some(Kind::NotKept), "{name}");
        }
        for name in ["read", "shmget", "printf", "syslog", "chroot", ""] {
            assert_eq!(kind(name), None, "{name}");
        }
        assert!(of_function("ptrace").unwrap().says.starts_with("(EPERM) "));
        let unknown = FUNCTIONS
            .iter()
            .find(|(function, _)| of_function(function).is_none());
        assert_eq!(unknown, None);
    }
}
