//! Programs that start others: shells, a build, version control, and a program that spreads its work.

use crate::session::{Channel, Program, Session, Stream};

const BASH: Program = Program::Installed("/bin/bash");

/// A script that a shell is given as a file, its output through a pipe.
fn script(
    name: &'static str,
    about: &'static str,
    shell: Program,
    text: fn() -> Vec<u8>,
) -> Session {
    Session::new(name, about, shell)
        .file("script.sh", text)
        .args(["script.sh"])
        .channel(Channel::Pipe)
        .stream(Stream::Exact)
        .patience_s(60)
}

pub fn pipelines() -> Session {
    script(
        "tree-pipelines",
        "bash: pipelines, substitution, here-documents, a shared offset",
        BASH,
        || {
            br#"f() { cat <<END | tr a-z A-Z
line $1 of a here-document
END
}
for i in $(seq 1 25); do
    echo "$i" | cat | sed s/1/one/
    f "$i" >> all.txt
    n=$(grep -c LINE all.txt)
    echo "$i: $n, $(false; echo $?), ${PIPESTATUS[0]}"
done
( echo first; /bin/echo second; echo third ) > three.txt
cat three.txt
while read -r line; do echo "read $line"; head -c 0; done < three.txt
seq 1 40 | xargs -P3 -n1 echo | sort -n | tr '\n' ' '
echo
"#
            .to_vec()
        },
    )
}

pub fn jobs() -> Session {
    script(
        "tree-jobs",
        "dash: jobs in the background, exit statuses, traps, signals between processes",
        Program::Installed("/bin/dash"),
        || {
            br#"trap 'echo got USR1' USR1
for i in 1 2 3 4 5 6 7 8; do
    ( sleep 0.05; exit $i ) &
    one=$!
    ( sleep 0.02; kill -USR1 $$; exit 0 ) &
    two=$!
    wait $two; wait $two
    wait $one; wait $one
    echo "job $i: $?"
    sh -c 'kill -TERM $$'; echo "by a signal: $?"
    ( sh -c 'kill -9 $$' ) 2> /dev/null; echo "by SIGKILL: $?"
done
sleep 30 & long=$!
sleep 0.1
{ kill $long; wait $long; status=$?; } 2> /dev/null; echo "killed: $status"
nosuchcommand 2> /dev/null; echo "not found: $?"
"#
            .to_vec()
        },
    )
}

pub fn fifos() -> Session {
    script(
        "tree-fifos",
        "bash: writers in the background and readers that meet in a fifo, and are gone at once",
        BASH,
        || {
            br#"mkfifo f
for i in 1 2 3 4 5 6 7 8 9 10 11 12; do
    (seq $i 200 > f &)
    sort -n -r < f | tail -1
    (wc -l < f > count &)
    seq $i 300 > f
    until [ -s count ]; do sleep 0.01; done
    cat count; rm count
done
"#
            .to_vec()
        },
    )
}

pub fn make() -> Session {
    let mut session = Session::new(
        "tree-make",
        "make -j2: compilers and an archiver, files compared",
        Program::Installed("/usr/bin/make"),
    )
    .args(["-s", "-j2"])
    .channel(Channel::Pipe)
    .stream(Stream::Exact)
    .patience_s(60)
    .file("Makefile", || {
        b"OBJECTS = a.o b.o c.o d.o e.o f.o
program: $(OBJECTS)
\tar rcsD library.a $(OBJECTS)
\tgcc -Wl,--build-id=none -o $@ main.c library.a
\t./program
%.o: %.c
\tgcc -O1 -c -o $@ $<
"
        .to_vec()
    })
    .file("main.c", || {
        b"#include <stdio.h>
int a(int), b(int), c(int), d(int), e(int), f(int);
int main(void) { printf(\"%d\\n\", a(b(c(d(e(f(1))))))); return 0; }
"
        .to_vec()
    });
    for (name, source) in [
        (
            "a.c",
            (|| b"int a(int x) { return x * 3 + 1; }\n".to_vec()) as fn() -> Vec<u8>,
        ),
        ("b.c", || b"int b(int x) { return x * 5 + 2; }\n".to_vec()),
        ("c.c", || b"int c(int x) { return x * 7 + 3; }\n".to_vec()),
        ("d.c", || b"int d(int x) { return x * 11 + 4; }\n".to_vec()),
        ("e.c", || b"int e(int x) { return x * 13 + 5; }\n".to_vec()),
        ("f.c", || b"int f(int x) { return x * 17 + 6; }\n".to_vec()),
    ] {
        session = session.file(name, source);
    }
    session
}

pub fn git() -> Session {
    script(
        "tree-git",
        "git: commits, a branch, a merge, a check of all of it",
        BASH,
        || {
            br#"export GIT_AUTHOR_DATE='2020-01-01T00:00:00Z' GIT_COMMITTER_DATE='2020-01-01T00:00:00Z'
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org
export GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.org GIT_CONFIG_NOSYSTEM=1
git init -q -b main r
cd r
for i in $(seq 1 12); do
    echo "$i" >> f
    git add f
    git commit -q -m "commit $i"
done
git checkout -q -b side HEAD~3
echo x > g
git add g
git commit -q -m side
git checkout -q main
git merge -q -m merge side
git log --oneline
git fsck 2>&1 | grep -v dangling
cd ..
rm -rf r
"#
            .to_vec()
        },
    )
}

pub fn python() -> Session {
    Session::new(
        "tree-python",
        "python3: subprocess with its errors and statuses, fork, a pool of workers",
        Program::Installed("/usr/bin/python3"),
    )
    .env("PYTHONHASHSEED", "0")
    .env("PYTHONDONTWRITEBYTECODE", "1")
    .file("work.py", || {
        br#"import os, subprocess
from multiprocessing import Pool

def square(x):
    return x * x

def run(*words):
    try:
        done = subprocess.run(words, capture_output=True, text=True)
        print(words[0], done.returncode, done.stdout.strip(), flush=True)
    except OSError as error:
        print(words[0], error, flush=True)

if __name__ == "__main__":
    for i in range(8):
        run("sh", "-c", f"echo out {i}; exit {i % 3}")
        run("/nonexistent")
        pid = os.fork()
        if pid == 0:
            os._exit(i + 1)
        print("child", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    with Pool(2) as pool:
        for i in range(4):
            print(pool.map(square, range(i * 10, i * 10 + 10)), flush=True)
"#
        .to_vec()
    })
    .args(["work.py"])
    .channel(Channel::Pipe)
    .stream(Stream::Exact)
    .patience_s(60)
}

pub fn python_shared() -> Session {
    Session::new(
        "tree-python-shared",
        "python3: processes with locks, values and memory in common, events, queues, a pool of futures",
        Program::Installed("/usr/bin/python3"),
    )
    .env("PYTHONHASHSEED", "0")
    .env("PYTHONDONTWRITEBYTECODE", "1")
    .file("share.py", || {
        br#"import multiprocessing as mp, os, subprocess
from multiprocessing import shared_memory
from concurrent.futures import ProcessPoolExecutor

def say(text):
    os.write(1, (text + "\n").encode())

def adds(lock, total, array, n):
    for i in range(20):
        with lock:
            total.value += i * n
            array[n] += i

def square(x):
    return x * x

def fills(name, n):
    m = shared_memory.SharedMemory(name=name)
    for i in range(n, m.size, 4):
        m.buf[i] = (i * 7 + n) % 251
    m.close()

def waits(event, queue, n):
    event.wait()
    queue.put(n * 10)

def main():
    mp.set_start_method("fork")
    for r in range(4):
        lock, total, array = mp.Lock(), mp.Value("i", 0, lock=False), mp.Array("i", 4, lock=False)
        workers = [mp.Process(target=adds, args=(lock, total, array, n)) for n in range(4)]
        for w in workers: w.start()
        for w in workers: w.join()
        say(f"locked {r}: {total.value} {list(array)}")
        subprocess.run(["/bin/true"])
        m = shared_memory.SharedMemory(create=True, size=40000)
        workers = [mp.Process(target=fills, args=(m.name, n)) for n in range(4)]
        for w in workers: w.start()
        for w in workers: w.join()
        say(f"filled {r}: {sum(m.buf)}")
        m.close(); m.unlink()
        event, queue = mp.Event(), mp.Queue()
        workers = [mp.Process(target=waits, args=(event, queue, n)) for n in range(3)]
        for w in workers: w.start()
        event.set()
        say(f"waited {r}: {sorted(queue.get() for _ in workers)}")
        for w in workers: w.join()
        with ProcessPoolExecutor(2) as pool:
            say(f"pool {r}: {sum(pool.map(square, range(100)))}")
    say("ok")

if __name__ == "__main__":
    main()
"#
        .to_vec()
    })
    .args(["share.py"])
    .channel(Channel::Pipe)
    .stream(Stream::Exact)
    .patience_s(60)
}
