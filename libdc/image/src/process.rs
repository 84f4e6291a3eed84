//! The table of processes: one entry for each, which all of a run see.
//!
//! None of it is rolled back by copying, see [`crate::run`].

use core::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering::*};

use rio_core::mix;

use crate::count::Count;
use crate::dated::Dated;
use crate::run::BEGUN;
use crate::seal::Seals;

/// What a process is asked to do by one that commits, in [`Process::request`].
pub mod request {
    pub const NONE: u32 = 0;
    /// Stop and stage what was written since the last commit.
    pub const STAGE: u32 = 1;
    pub const STAGING: u32 = 2;
    /// Staged; waits for the commit to be published.
    pub const STAGED: u32 = 3;
    /// Staged, and ends with the commit: gives up what it has locked, and says STAGED again.
    pub const RELEASE: u32 = 4;
}

const ROOM: usize = 9;

/// One process of the run. Entry 0 is the first.
#[repr(C, align(64))]
pub struct Process {
    /// The number that programs know it by; 0 is a free entry. It is the kernel's
    /// number of its first worker.
    pub id: AtomicI32,
    /// The kernel's number of its present worker.
    pub real: AtomicI32,
    /// The kernel's number of its last worker, also when that is gone: signals of it may
    /// still be under way.
    pub worker: AtomicI32,
    /// Entry of its parent + 1; 0 is the keeper. `parent_before` holds until the commit
    /// `parent_since`.
    pub parent: AtomicU32,
    pub parent_before: AtomicU32,
    pub parent_since: AtomicU64,
    /// Commits from which on it exists, has ended, was waited for. 0: never.
    pub born: AtomicU64,
    pub ended: AtomicU64,
    pub reaped: AtomicU64,
    /// How it ended, as wait(2) has it; what it used, as `struct rusage` has it (user
    /// and system time in us).
    pub status: AtomicU32,
    /// The signal that its parent gets at its end.
    pub exit_signal: AtomicU32,
    pub user_us: AtomicU64,
    pub system_us: AtomicU64,
    /// The commit that holds that its parent was told of its end; 0: not told.
    pub told: AtomicU64,
    /// A process that shares its memory and descriptors and outlives its worker.
    pub companion: AtomicU32,
    /// [`request`]; a futex.
    pub request: AtomicU32,
    /// Threads that are not stopped.
    pub active: AtomicU32,
    /// Whether it has run since it was last staged.
    pub ran: AtomicU32,
    /// Raised when one of its children has changed; a futex.
    pub child_event: AtomicU32,
    /// Its own number when it has done all that it does at its end. (A number, because its
    /// entry may be another process's by then.)
    pub left: AtomicI32,
    /// Nonzero while its parent waits for it to exec or to end (vfork); a futex.
    pub holds_parent: AtomicU32,
    /// Nonzero once it has pages in an image of its own.
    pub has_image: AtomicU32,
    /// `holds_parent`, as a commit has it.
    pub held_parent: Dated,
    /// It is stopped, by this signal (SIGSTOP, ^Z); 0 if it runs. Written by the keeper, and
    /// by whoever of the run continues it.
    pub stopped: Dated,
    /// The commit behind which a process of the run sent it SIGTSTP.
    pub stop_sent: AtomicU64,
    /// A stop or continue that nobody has waited for yet, as wait(2) has it; and one that its
    /// parent is yet to be told of by a signal.
    pub changed: Dated,
    pub change_untold: Dated,
    /// Nonzero: it was made to run for a moment, to take part in a commit, and stops again.
    pub thawed: AtomicU32,
    /// The group that its parent puts it into, + 1, and what came of it; a futex.
    pub group_wanted: AtomicI32,
    pub group_answer: AtomicI32,
    /// Process group and session, as the program knows them.
    pub group: Dated,
    pub session: Dated,
    /// Of the leader of a session: its terminal, major << 20 | minor, and which group is in the
    /// foreground there.
    pub terminal: Dated,
    pub foreground: Dated,
    /// The signal for which it is about to stop itself by SIGSTOP.
    pub stops_by: AtomicU32,
    /// Somebody has a descriptor of it (pidfd_open(2)).
    pub watched: AtomicU32,
    /// At a recovery: nonzero once it is in its session and group.
    pub placed: AtomicU32,
    /// The signal that it gets when its parent ends (PR_SET_PDEATHSIG); whether it adopts
    /// the orphans below it (PR_SET_CHILD_SUBREAPER). Both are its state, and stand here for
    /// others to see.
    pub death_signal: AtomicU32,
    pub adopts: AtomicU32,
    /// How often such a signal was sent to it, and how often it has taken one; the last one,
    /// and which process ended.
    pub bereft: Dated,
    pub bereft_told: Dated,
    pub bereft_signal: AtomicU32,
    pub bereft_of: AtomicI32,
    /// How often its group, stopped, has lost whoever could continue it, and how often it has
    /// taken the signal for that.
    pub abandoned: Dated,
    pub abandoned_told: Dated,
    /// The thread of its parent that made it, as the program knows it.
    pub parent_thread: AtomicI32,
    /// It has executed a program since its birth: its state, which its parent asks for.
    pub executed: AtomicU32,
    /// Bytes that its worker has read and written so far, as proc(5) counts them.
    pub rchar: AtomicU64,
    pub wchar: AtomicU64,
    /// Frames of its image ever handed out; only these are looked at by recovery.
    pub frame_limit: AtomicU64,
    /// Frames in use at the last commit.
    pub frames_used: AtomicU64,
    /// Commits that it had a part in, and calls.
    pub commits: AtomicU64,
    pub calls: AtomicU64,
    /// Signals from outside that its workers' runtimes have ever taken from the kernel,
    /// by number. The state counts those that were delivered; the difference died in the
    /// queue of a dead worker.
    pub signals_taken: [Count; 32],
    /// Calls that the threads of the first slots have begun since the last commit.
    pub begun: [AtomicU32; BEGUN],
    /// What it runs, as the kernel names it.
    pub name: [u8; 16],
    /// Nonzero: the commit under way ends it, for another process kills it.
    pub doomed: AtomicU32,
    /// Of every commit that it had a part in: the sum of its frame table, and
    /// `frame_limit`.
    pub seals: Seals,
    /// What others have set of it since it was staged last, as bits that the runtime knows.
    pub set_by_others: AtomicU64,
    /// The commit behind which a process of the run sent it a signal last.
    pub signalled: AtomicU64,
    /// Nonzero while it moves bytes through a pipe without the run's lock: no commit begins.
    pub moving: AtomicU32,
    /// A program beside the run in whose place this process stands (a *stranger*): the kernel's
    /// number of it, and how it ended, as wait(2) has it, with [`STRANGER_ENDED`]. It is outside of
    /// the run, so nothing of this is rolled back.
    pub stranger: AtomicI32,
    pub stranger_end: AtomicU32,
    /// The signal by which the kernel has ended it at a limit (RLIMIT_CPU), which is no failure:
    /// brought back, it ends of that.
    pub ends_of: AtomicU64,
    _room: [u64; ROOM],
}

/// In [`Process::stranger_end`]: it has ended.
pub const STRANGER_ENDED: u32 = 1 << 31;

/// What a process is in the state of commit `published`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Life {
    /// There is none: a free entry, or one of an interval that was lost.
    None,
    Lives,
    /// It has ended, and nobody has waited for it.
    Zombie,
}

/// Whether what carries the number `since` holds in the state of commit `published`.
pub(crate) fn holds(since: u64, published: u64) -> bool {
    since != 0 && since <= published
}

impl Process {
    /// A free entry.
    #[allow(clippy::new_without_default)] // Made by mapping zeros, and in tests.
    pub const fn new() -> Process {
        Process {
            id: AtomicI32::new(0),
            real: AtomicI32::new(0),
            worker: AtomicI32::new(0),
            parent: AtomicU32::new(0),
            parent_before: AtomicU32::new(0),
            parent_since: AtomicU64::new(0),
            born: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            reaped: AtomicU64::new(0),
            status: AtomicU32::new(0),
            exit_signal: AtomicU32::new(0),
            user_us: AtomicU64::new(0),
            system_us: AtomicU64::new(0),
            told: AtomicU64::new(0),
            companion: AtomicU32::new(0),
            request: AtomicU32::new(request::NONE),
            active: AtomicU32::new(0),
            ran: AtomicU32::new(0),
            child_event: AtomicU32::new(0),
            left: AtomicI32::new(0),
            holds_parent: AtomicU32::new(0),
            held_parent: Dated::new(),
            has_image: AtomicU32::new(0),
            stopped: Dated::new(),
            stop_sent: AtomicU64::new(0),
            changed: Dated::new(),
            change_untold: Dated::new(),
            thawed: AtomicU32::new(0),
            group_wanted: AtomicI32::new(0),
            group_answer: AtomicI32::new(0),
            group: Dated::new(),
            session: Dated::new(),
            terminal: Dated::new(),
            foreground: Dated::new(),
            placed: AtomicU32::new(0),
            watched: AtomicU32::new(0),
            stops_by: AtomicU32::new(0),
            death_signal: AtomicU32::new(0),
            adopts: AtomicU32::new(0),
            bereft: Dated::new(),
            bereft_told: Dated::new(),
            abandoned: Dated::new(),
            abandoned_told: Dated::new(),
            bereft_signal: AtomicU32::new(0),
            bereft_of: AtomicI32::new(0),
            parent_thread: AtomicI32::new(0),
            executed: AtomicU32::new(0),
            rchar: AtomicU64::new(0),
            wchar: AtomicU64::new(0),
            frame_limit: AtomicU64::new(0),
            frames_used: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            signals_taken: [const { Count::new() }; 32],
            begun: [const { AtomicU32::new(0) }; BEGUN],
            name: [0; 16],
            doomed: AtomicU32::new(0),
            seals: Seals::new(),
            set_by_others: AtomicU64::new(0),
            signalled: AtomicU64::new(0),
            moving: AtomicU32::new(0),
            stranger: AtomicI32::new(0),
            stranger_end: AtomicU32::new(0),
            ends_of: AtomicU64::new(0),
            _room: [0; ROOM],
        }
    }

    /// Its parent waits for it to exec or to end, or does so no longer, from the commit
    /// `published + 1` on.
    pub fn hold_parent(&self, holds: bool, published: u64) {
        self.held_parent.set(holds.into(), published);
        self.holds_parent.store(holds.into(), SeqCst);
    }

    /// What it is in the state of a commit.
    pub fn life_at(&self, published: u64) -> Life {
        if self.id.load(Relaxed) == 0 || !holds(self.born.load(Relaxed), published) {
            Life::None
        } else if !holds(self.ended.load(Relaxed), published) {
            Life::Lives
        } else if !holds(self.reaped.load(Relaxed), published) {
            Life::Zombie
        } else {
            Life::None
        }
    }

    /// What it is now, whether that is committed or not.
    pub fn life(&self) -> Life {
        self.life_at(u64::MAX)
    }

    /// The entry of its parent as the state of a commit has it; none is the keeper.
    pub fn parent_at(&self, published: u64) -> Option<usize> {
        let since = self.parent_since.load(Relaxed);
        let parent = match since == 0 || since <= published {
            true => &self.parent,
            false => &self.parent_before,
        };
        (parent.load(Relaxed) as usize).checked_sub(1)
    }

    /// It gets another parent with the commit to come.
    pub fn adopt(&self, parent: Option<usize>, published: u64) {
        let before = self.parent_at(published).map_or(0, |slot| slot as u32 + 1);
        self.parent_before.store(before, Relaxed);
        self.parent_since.store(published + 1, Relaxed);
        self.parent
            .store(parent.map_or(0, |slot| slot as u32 + 1), Relaxed);
    }

    /// Whether its parent was told of its end: the present one.
    pub fn is_told(&self) -> bool {
        self.told_at(u64::MAX)
    }

    /// The same in the state of a commit: its parent there.
    fn told_at(&self, published: u64) -> bool {
        let (told, since) = (self.told.load(Relaxed), self.parent_since.load(Relaxed));
        holds(told, published) && (told > since || since > published)
    }

    fn dated(&self) -> impl Iterator<Item = &Dated> {
        let by_others = [&self.stopped, &self.changed, &self.change_untold];
        self.sealed().into_iter().chain(by_others)
    }

    /// Those that change by a process of the run only, while no commit seals them.
    fn sealed(&self) -> [&Dated; 9] {
        [
            &self.held_parent,
            &self.terminal,
            &self.foreground,
            &self.group,
            &self.session,
            &self.bereft,
            &self.bereft_told,
            &self.abandoned,
            &self.abandoned_told,
        ]
    }

    /// A sum of what the state of a commit has of it; 0 if that has nothing.
    fn sum_at(&self, slot: usize, published: u64) -> u64 {
        let life = self.life_at(published);
        if life == Life::None {
            return 0;
        }
        let word = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let parent = self.parent_at(published).map_or(0, |slot| slot as u32 + 1);
        let told = self.told_at(published);
        let sum = mix(
            word(self.id.load(Relaxed) as u32, slot as u32),
            word(
                parent,
                u32::from(told) << 1 | u32::from(life == Life::Zombie),
            ),
        );
        let sum = self.sealed().iter().fold(sum, |sum, word| {
            mix(sum, u64::from(word.at(published) as u32))
        });
        if life == Life::Lives {
            return sum;
        }
        let used = mix(self.user_us.load(Relaxed), self.system_us.load(Relaxed));
        mix(sum, used ^ u64::from(self.status.load(Relaxed)))
    }

    /// At a recovery: forgets what belongs to an interval that was lost. Says what the
    /// process is.
    pub fn roll_back(&self, published: u64) -> Life {
        let life = self.life_at(published);
        let parent = self.parent_at(published);
        if !self.told_at(published) {
            // (It was another parent that was told.)
            self.told.store(0, Relaxed);
        }
        for word in self.dated() {
            word.roll_back(published);
        }
        self.parent
            .store(parent.map_or(0, |slot| slot as u32 + 1), Relaxed);
        self.parent_since.store(0, Relaxed);
        for since in [&self.ended, &self.reaped, &self.told] {
            if since.load(Relaxed) > published {
                since.store(0, Relaxed);
            }
        }
        if life == Life::None {
            self.clear();
        }
        self.seals.roll_back(published);
        self.thawed.store(0, Relaxed);
        self.request.store(request::NONE, Relaxed);
        self.placed.store(0, Relaxed);
        self.stops_by.store(0, Relaxed);
        self.doomed.store(0, Relaxed);
        self.active.store(0, Relaxed);
        self.ran.store(0, Relaxed);
        self.moving.store(0, Relaxed);
        let holds = life == Life::Lives && self.held_parent.get() != 0;
        self.holds_parent.store(holds.into(), Relaxed);
        life
    }

    /// The entry is free.
    pub fn clear(&self) {
        // First: whoever finds an end of it gone finds this gone as well.
        self.real.store(0, SeqCst);
        for number in [&self.born, &self.ended, &self.reaped, &self.told] {
            number.store(0, Relaxed);
        }
        for number in [
            &self.parent_since,
            &self.frame_limit,
            &self.frames_used,
            &self.stop_sent,
            &self.set_by_others,
            &self.signalled,
        ] {
            number.store(0, Relaxed);
        }
        for number in [&self.user_us, &self.system_us, &self.commits, &self.calls] {
            number.store(0, Relaxed);
        }
        for word in [&self.parent, &self.parent_before, &self.status] {
            word.store(0, Relaxed);
        }
        let words = [&self.request, &self.active, &self.ran, &self.has_image];
        for word in words
            .into_iter()
            .chain([&self.holds_parent, &self.thawed, &self.moving])
        {
            word.store(0, Relaxed);
        }
        for counter in &self.signals_taken {
            counter.store(0, Relaxed);
        }
        for counter in &self.begun {
            counter.store(0, Relaxed);
        }
        for word in [
            &self.death_signal,
            &self.adopts,
            &self.executed,
            &self.placed,
            &self.watched,
            &self.doomed,
        ] {
            word.store(0, Relaxed);
        }
        for word in self.dated() {
            word.clear();
        }
        self.left.store(0, Relaxed);
        self.stranger.store(0, Relaxed);
        self.stranger_end.store(0, Relaxed);
        self.ends_of.store(0, Relaxed);
        self.seals.clear();
        self.companion.store(0, Relaxed);
        self.child_event.store(0, Relaxed);
        self.worker.store(0, Relaxed);
        self.id.store(0, Release);
    }
}

/// What the state of a commit has of a table of processes: part of the run's seal.
pub fn processes_sum<'a>(table: impl Iterator<Item = &'a Process>, published: u64) -> u64 {
    table.enumerate().fold(0, |sum: u64, (slot, p)| {
        sum.wrapping_add(p.sum_at(slot, published))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::{Shared, shared_sum};

    fn process() -> Process {
        let p = Process::new();
        p.id.store(7, Relaxed);
        p
    }

    #[test]
    fn a_life_belongs_to_the_commits_that_it_carries() {
        let p = process();
        p.born.store(5, Relaxed);
        assert_eq!(p.life_at(4), Life::None);
        assert_eq!(p.life_at(5), Life::Lives);
        p.ended.store(8, Relaxed);
        assert_eq!(p.life_at(7), Life::Lives);
        assert_eq!(p.life_at(8), Life::Zombie);
        p.reaped.store(9, Relaxed);
        assert_eq!(p.life_at(8), Life::Zombie);
        assert_eq!(p.life_at(9), Life::None);
    }

    #[test]
    fn a_rollback_forgets_what_came_after() {
        let p = process();
        p.born.store(5, Relaxed);
        p.ended.store(8, Relaxed);
        p.adopt(Some(3), 7);
        assert_eq!(p.parent_at(7), None);
        assert_eq!(p.parent_at(8), Some(3));
        assert_eq!(p.roll_back(7), Life::Lives);
        assert_eq!(p.ended.load(Relaxed), 0);
        assert_eq!(p.parent_at(u64::MAX), None);
        assert_eq!(p.roll_back(4), Life::None);
        assert_eq!(p.id.load(Relaxed), 0, "the entry is free");
    }

    #[test]
    fn an_adopted_zombie_is_told_of_anew() {
        let p = process();
        p.born.store(1, Relaxed);
        p.ended.store(2, Relaxed);
        p.told.store(3, Relaxed);
        let told = processes_sum([&p].into_iter(), 3);
        p.adopt(Some(2), 3);
        assert_eq!((p.told_at(3), p.is_told()), (true, false));
        assert_eq!(processes_sum([&p].into_iter(), 3), told);
        let adopted = processes_sum([&p].into_iter(), 4);
        p.roll_back(4);
        assert_eq!(processes_sum([&p].into_iter(), 4), adopted);
        p.told.store(5, Relaxed);
        assert!(p.is_told());
    }

    #[test]
    fn what_comes_after_a_commit_leaves_its_sum_as_it_is() {
        let (p, s) = (process(), Shared::new());
        p.born.store(2, Relaxed);
        p.adopt(Some(4), 1);
        s.set(10, 1);
        let sums = || {
            let (processes, shared) = ([&p], [&s]);
            let of_processes = processes_sum(processes.into_iter(), 2);
            (of_processes, shared_sum(shared.into_iter(), 2))
        };
        let before = sums();
        assert!(before.0 != 0 && before.1 != 0);
        p.adopt(Some(5), 2);
        p.adopt(Some(6), 2);
        p.abandoned_told.set(7, 2);
        p.ended.store(3, Relaxed);
        p.told.store(3, Relaxed);
        p.status.store(9, Relaxed);
        s.set(11, 2);
        s.set(12, 2);
        s.free_from.store(3, Relaxed);
        assert_eq!(sums(), before);
        p.roll_back(2);
        s.roll_back(2);
        assert_eq!(sums(), before);
        assert_eq!(
            s.free_from.load(Relaxed),
            3,
            "not free before the next commit"
        );
        p.abandoned_told.fix(1);
        assert!(sums().0 != before.0);
        p.abandoned_told.fix(0);
        assert_eq!(sums(), before);
        p.id.store(8, Relaxed);
        s.value[0].store(13, Relaxed);
        assert!(sums().0 != before.0 && sums().1 != before.1);
    }
}
