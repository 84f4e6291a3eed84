//! Programs that make terminals of their own, and run others on them.
//!
//! A shell that is asked says its answer with a number in it that the line it was asked by has only in pieces, so that
//! the echo of what was typed is never taken for it.

use crate::session::{Program, Session};

/// Asks the shell on the screen; what it answers is in the output.
fn ask(session: Session, number: usize) -> Session {
    session
        .send(format!("echo answer-$(({number} + 4000))-x\r"))
        .expect(format!("answer-{}-x", number + 4000))
}

fn at_work(mut session: Session) -> Session {
    for number in 1..=12 {
        session = ask(session, number).strike();
        if number % 4 == 0 {
            // Much at once, and something that is typed ahead.
            session = session
                .send(format!(
                    "seq 1 400; sleep 0.1; echo over-$(({number} + 100))-x\r"
                ))
                .send(format!("echo ahead-$(({number} + 200))-x\r"))
                .expect(format!("over-{}-x", number + 100))
                .expect(format!("ahead-{}-x", number + 200));
        }
    }
    session
}

/// script(1): a shell below it, and what it printed in a file.
pub fn script() -> Session {
    let session = Session::new(
        "terminal-script",
        "script: a shell on a terminal of its own",
        Program::Installed("/usr/bin/script"),
    )
    .args(["-q", "-c", "/bin/bash --norc --noprofile -i", "/dev/null"])
    .env("PS1", "$ ")
    .expect("\\$ ");
    at_work(session)
        .send("stty sane -echo\r")
        .expect("\\$ ")
        .send("echo rea''dy; cat\r")
        .expect("ready\r")
        .send("hiddeX\x7fn line\r")
        .expect("hidden line")
        .send("un\x15again\r")
        .expect("again")
        .send("\x04")
        .expect("\\$ ")
        .send("stty sane; clear\r")
        .expect("\\$ ")
        .snapshot("shell")
        .send("exit\r")
}

/// Python's pty module: a loop between two terminals.
pub fn python() -> Session {
    let session = Session::new(
        "terminal-python",
        "python: pty.spawn of a shell",
        Program::Installed("/usr/bin/python3"),
    )
    .args([
        "-c",
        "import pty; pty.spawn(['/bin/bash', '--norc', '--noprofile', '-i'])",
    ])
    .env("PS1", "$ ")
    .expect("\\$ ");
    at_work(session)
        .send("clear\r")
        .expect("\\$ ")
        .snapshot("shell")
        .send("exit\r")
}

/// vim: a shell in a window, and one in the whole screen.
pub fn vim() -> Session {
    let mut session = Session::new(
        "terminal-vim",
        "vim: :terminal and :shell",
        Program::Installed("/usr/bin/vim"),
    )
    .args(["-u", "NONE", "-i", "NONE", "-N", "-n", "--cmd"])
    .args(["set shell=/bin/bash\\ --norc noruler t_RV= t_u7= t_RB= t_RF="])
    .env("PS1", "$ ")
    .screen("VIM")
    .send(":terminal ++close bash --norc --noprofile\r")
    .screen("\\$ ");
    for number in 1..=6 {
        session = session
            .send(format!("clear; echo answer-$(({number} + 4000))-x\r"))
            .screen(format!("answer-{}-x", number + 4000))
            .strike();
    }
    session
        .snapshot("window")
        .send("exit\r")
        .screen("\\A *\n~")
        .send(":shell\r")
        .expect("\\$ ")
        .send("echo in-$((20 + 22))-shell\r")
        .expect("in-42-shell")
        .expect("\\$ ")
        .strike()
        .send("exit\r")
        .expect("\\[\\?1049h")
        .send("\x0c:echo 'vim-' . (40 + 2)\r")
        .screen("vim-42")
        .send(":qa!\r")
}
