//! How the watch over a run ends: its program has ended, or the run stops at its last commit and
//! can be resumed, and its user is told why.

use std::sync::atomic::Ordering::{Relaxed, Release};

use dc_image::header::INSIDE_LOCK;
use dc_image::{FatalCode, Status};

use crate::cli::RioKind;
use crate::image;
use crate::keeper::{Keeper, cause};
use crate::machine::process::Change;
use crate::machine::terminal;
use crate::message::{Outcome, say};
use crate::ps::State;
use crate::stats;
use crate::suspend::{self, Kept};
use crate::suspension;
use crate::verdict;

impl Keeper {
    /// The program has ended: its image is of no more use, its counters are.
    /// Whatever fails here, the program's status is what its caller waits for.
    pub fn finish(self, status: u8) -> Outcome<u8> {
        self.tell_notices();
        let mut counters = stats::counters(&self.record, &self.live);
        counters["state"] = State::Done.name().into();
        counters["exit_status"] = status.into();
        // Without its counters the image is all that knows of the end, and it is
        // kept: the same command line tells the status from it.
        let id = image::id(&self.image).unwrap_or(0);
        self.live.seal_end(id, status.into(), 0);
        self.live.status.store(Status::Done as u32, Release);
        let durable = self.record.rio.kind != RioKind::Tmpfs;
        let tidied = self
            .run
            .write_done(&counters, durable)
            .and_then(|()| image::remove_open(&self.image, &self.record.image));
        if let Err(failure) = tidied {
            say(&failure.to_string());
        }
        crate::run_directory::prune(&self.run.name);
        let (run, is_waited_for) = (self.run.clone(), self.is_waited_for);
        drop(self);
        if is_waited_for {
            run.told();
        }
        Ok(status)
    }

    pub fn give_up(self, status: u8) -> Outcome<u8> {
        let code = self.live.fatal.load(Relaxed);
        let detail = self.live.fatal_detail.load(Relaxed);
        let text = self
            .live
            .message
            .split(|&b| b == 0)
            .next()
            .unwrap_or_default();
        let mut text = String::from_utf8_lossy(text).into_owned();
        if text.is_empty() {
            text = "the runtime gave up without a message".to_owned();
        }
        if code == FatalCode::Internal as u32 && detail != 0 {
            let cause = std::io::Error::from_raw_os_error(detail as i32);
            text = format!("{text}: {cause}");
        }
        let name = &self.run.name;
        if code == FatalCode::CannotLoad as u32 {
            // Nothing ran, so there is nothing to resume.
            self.tell(&text);
            image::remove(&self.record.image)?;
            self.run.remove()?;
            return Ok(status);
        }
        let published = self.live.published.load(Relaxed);
        let remedy = if published == 0 {
            format!("nothing was committed yet; `dcrun rm {name}` removes the run")
        } else if code == FatalCode::RioFull as u32
            && (detail as i64).unsigned_abs() == libc::EFBIG as u64
        {
            format!(
                "the run is stopped at commit {published}; raise the limit of file size \
                 (`ulimit -f`), then `dcrun resume {name}`"
            )
        } else if code == FatalCode::RioFull as u32 {
            format!(
                "the run is stopped at commit {published}; make room where its image lies ({}), \
                 then `dcrun resume {name}`",
                self.record.image.display()
            )
        } else if code == FatalCode::Conflict as u32 && detail as isize == INSIDE_LOCK {
            format!(
                "the run is stopped at commit {published}; --fresh begins anew, `dcrun resume \
                 {name} --keep ours` goes on as if they had changed nothing"
            )
        } else if code == FatalCode::Conflict as u32 {
            format!(
                "the run is stopped at commit {published}; `dcrun resume {name} --keep theirs` \
                 leaves that as it is, `--keep ours` undoes the program's change all the same"
            )
        } else {
            format!(
                "the run is stopped at commit {published}; `dcrun resume {name}` tries again, \
                 --fresh starts over"
            )
        };
        self.stop(&format!("{text}; {remedy}"));
        Ok(status)
    }

    pub fn stop_for_crashes(self, signal: i32, crashes: u64) -> Outcome<u8> {
        let name = &self.run.name;
        self.stop(&format!(
            "{} {crashes} times from commit {}, so it is not started again; the same command \
             line with --fresh goes back to the beginning, `dcrun resume {name}` tries to go on",
            cause(Change::Killed(signal)),
            self.live.published.load(Relaxed)
        ));
        Ok(verdict::by_signal(signal))
    }

    /// The run stays at its last commit until somebody goes on with it, after a restart of the
    /// machine too if its image lies on a disk.
    pub fn suspend(self) -> Outcome<u8> {
        let (name, live) = (&self.run.name, &self.live);
        let (published, signal) = (live.published.load(Relaxed), suspension::signal(live));
        // Whoever waits for it finds it suspended only when that is durable.
        let kept = suspend::keep(&self.image, &self.record);
        self.stop_as(
            Status::Suspended,
            &format!(
                "suspended at commit {published}; `dcrun resume {name}` goes on with it{}",
                kept.map_or_else(|failure| format!("; but {failure}"), Kept::said)
            ),
        );
        let _ = self.image.sync_data();
        Ok(verdict::by_signal(signal))
    }

    /// The run stays at its last commit, and its user gets the terminal back.
    pub fn stop(&self, why: &str) {
        self.stop_as(Status::Stopped, why);
    }

    fn stop_as(&self, status: Status, why: &str) {
        self.live.status.store(status as u32, Relaxed);
        if let Some(settings) = &self.terminal {
            terminal::put_back(settings);
        }
        self.tell_notices();
        self.tell(why);
    }

    /// What the runtime did not want to say in the middle of the program's screen.
    pub fn tell_notices(&self) {
        for notice in image::take_notices(&self.image) {
            say(&notice);
        }
    }

    pub fn tell(&self, text: &str) {
        say(&format!("{}: {text}", self.run.name));
    }
}
