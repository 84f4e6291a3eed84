//! nvi and vim: text typed, searched, changed, undone, repeated by macros, written to several files.
//!
//! An editor repaints when it finds the time, so the bytes differ from run to run and the screens are compared. To know
//! that all keys before were worked off, the script asks for something with an answer of its own: vim echoes a word,
//! nvi complains about a command that does not exist.

use crate::session::{Program, Session};
use std::fmt::Write;

fn poem() -> Vec<u8> {
    let mut text = String::new();
    for n in 1..=120 {
        let tail = ["river", "stone", "cloud", "lantern", "harbour"][n % 5];
        let _ = writeln!(
            text,
            "{n:03} the {tail} of line {n} is alpha and {}",
            n * n % 97
        );
    }
    text.into_bytes()
}

fn list() -> Vec<u8> {
    (1..=40)
        .map(|n| format!("item {n} = {}\n", n * 37 % 101))
        .collect::<String>()
        .into_bytes()
}

struct Editing {
    session: Session,
    ticks: usize,
    vim: bool,
}

impl Editing {
    /// Types the keys, and waits until the editor has worked them off.
    fn keys(mut self, keys: &str) -> Self {
        self.ticks += 1;
        let tick = self.ticks;
        self.session = if self.vim {
            // What it wrote, not what the screen shows: a late change of the window's size paints over it.
            self.session
                .send(format!("{keys}\x1b:echo 'tick-{tick}'\r"))
                .expect(format!("[^']tick-{tick}\\b"))
        } else {
            // A digit would end the name of the command.
            let word: String = tick
                .to_string()
                .bytes()
                .map(|digit| char::from(digit - b'0' + b'a'))
                .collect();
            self.session
                .send(format!("{keys}\x1b:tick{word}\r"))
                .screen(format!("^The tick{word} command is unknown"))
        };
        self
    }

    fn snapshot(mut self, name: &'static str) -> Self {
        // An editor that finds more typed than it has worked off scrolls in other steps: the view is set by the line, and
        // painted afresh.
        self = self.keys("z\r").keys("\x0c");
        self.session = self.session.snapshot(name);
        self
    }

    /// A piece of work that both editors understand.
    fn work(mut self) -> Self {
        for n in 0..12 {
            self = self.keys(&format!(
                "Gotyped line {n}: the quick brown fox jumps over it"
            ));
        }
        self = self.snapshot("typed");
        self = self
            .keys("1G/lantern\r")
            .keys("n")
            .keys("cwlamp")
            .keys("n.")
            .keys("n.")
            .keys("u");
        self = self
            .keys(":1,60s/alpha/omega/g\r")
            .keys(":g/river/s/of line/OF LINE/\r");
        self = self.snapshot("changed");
        self = self
            .keys("10Gdd5ddP")
            .keys("20G3yy30Gp")
            .keys("40GJJ")
            .keys("50G0xxxx~~~~");
        self = self
            .keys("60GA appended")
            .keys("61GI inserted ")
            .keys(":70,80m5\r");
        self = self.keys(":90,95d\r").keys(":w\r").keys(":w! copy-1\r");
        for n in 0..10 {
            self = self
                .keys(&format!("{}GOabove {n}", 3 * n + 2))
                .keys("yyp")
                .keys("cwBELOW");
        }
        self.keys(":w! copy-2\r").snapshot("worked")
    }
}

pub fn nvi() -> Session {
    let session = Session::new(
        "nvi",
        "the BSD vi on two files",
        Program::Installed("/usr/bin/nvi"),
    )
    .args(["poem", "list"])
    .env("NEXINIT", "set ruler showmode")
    .file("poem", poem)
    .file("list", list)
    .screen("001 the stone");
    let mut editing = Editing {
        session,
        ticks: 0,
        vim: false,
    }
    .work();
    // nvi's u undoes the undo; dots walk on.
    editing = editing.keys("1Gdddddd").keys("u").keys("..").keys("u");
    editing = editing
        .keys(":map Q ddGp1G\r")
        .keys("QQQ")
        .keys("5G\"add9G\"ap")
        .keys(":w\r");
    editing = editing
        .keys(":n\r")
        .keys(":%s/item/entry/\r")
        .keys("G:r copy-1\r")
        .keys("50%");
    editing = editing
        .keys(":w\r")
        .keys(":1,10w! part\r")
        .snapshot("second file");
    editing.session.strike().send(":q\r")
}

pub fn vim() -> Session {
    let session = Session::new(
        "vim",
        "vim on two files, with a swap file",
        Program::Installed("/usr/bin/vim"),
    )
    .args(["-u", "NONE", "-i", "NONE", "-N", "--cmd"])
    .args(["set ruler showmode undolevels=500 t_RV= t_u7= t_RB= t_RF= updatecount=20"])
    .args(["poem", "list"])
    .file("poem", poem)
    .file("list", list)
    .screen("001 the stone");
    let mut editing = Editing {
        session,
        ticks: 0,
        vim: true,
    }
    .work();
    editing = editing
        .keys("1Gqa0wyiwA [\x12\"]\x1bjq")
        .keys("20@a")
        .keys("uuu")
        .keys("\x12\x12");
    editing = editing
        .keys(":g/BELOW/m$\r")
        .keys("gg\x16jjj$A<")
        .keys("5GVjjj>")
        .keys("gg=G");
    editing = editing
        .keys(":earlier 5\r")
        .keys(":later 3\r")
        .keys(":sort n\r")
        .keys(":w\r");
    editing = editing
        .keys(":split list\r")
        .keys(":%s/item/entry/\r")
        .keys("ggyG\x17wGp");
    editing = editing
        .keys(":wa\r")
        .keys(":call setline(1, map(range(30), 'v:val * v:val'))\r");
    editing = editing
        .keys(":w! squares\r")
        .keys("\x17wz\r\x17w")
        .snapshot("windows");
    editing.session = editing
        .session
        // One dimension at a time: vim misses the second of two signals if it comes while it paints.
        .resize(30, 80)
        .strike()
        // The lower status line stands where the new size puts it: vim has painted.
        .screen(r"\A(?:.*\n){28}poem \[\+\]")
        .snapshot("larger")
        .resize(24, 80)
        .strike()
        .screen(r"\A(?:.*\n){22}poem \[\+\]")
        .snapshot("small again");
    editing = editing.snapshot("resized");
    editing.session.strike().send(":wqa\r")
}
