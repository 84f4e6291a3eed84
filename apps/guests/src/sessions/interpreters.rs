//! Python, Lua and Node: languages with a heap, a collector and, for two of them, threads of their own.

use crate::session::{Channel, Program, Session, Stream};

const PYTHON: Program = Program::Installed("/usr/bin/python3");

fn python(name: &'static str, about: &'static str) -> Session {
    Session::new(name, about, PYTHON)
        .env("PYTHONHASHSEED", "0")
        .env("PYTHONDONTWRITEBYTECODE", "1")
}

pub fn python_repl() -> Session {
    let mut session = python(
        "python-repl",
        "the Python prompt: classes, generators, files, gc",
    )
    .args(["-q"])
    .stream(Stream::Exact)
    .expect(">>> ");
    for line in [
        "import random, time, gc, collections, hashlib, json, itertools, termios",
        "rng = random.Random(42)",
        "log = open('log.txt', 'w', buffering=1)",
        "heap = {}",
    ] {
        session = session.line(line, ">>> ");
    }
    // The interrupt is typed at a program that echoes nothing: a program that wakes fast enough
    // to turn the echo off keeps the kernel from showing the ^C (n_tty.c, flush_echoes).
    session = session
        .line("def echo(on):", r"\.\.\. ")
        .line("    mode = termios.tcgetattr(0)", r"\.\.\. ")
        .line(
            "    mode[3] = mode[3] | termios.ECHO if on else mode[3] & ~termios.ECHO",
            r"\.\.\. ",
        )
        .line(
            "    termios.tcsetattr(0, termios.TCSANOW, mode)",
            r"\.\.\. ",
        )
        .line("", ">>> ");
    session = session
        .line("class Node:", r"\.\.\. ")
        .line("    def __init__(self, key):", r"\.\.\. ")
        .line("        self.key, self.links = key, []", r"\.\.\. ")
        .line("    def __repr__(self):", r"\.\.\. ")
        .line(
            "        return f'Node({self.key}, {len(self.links)})'",
            r"\.\.\. ",
        )
        .line("", ">>> ")
        .line("def primes():", r"\.\.\. ")
        .line("    found = []", r"\.\.\. ")
        .line("    for n in itertools.count(2):", r"\.\.\. ")
        .line("        if all(n % p for p in found):", r"\.\.\. ")
        .line("            found.append(n); yield n", r"\.\.\. ")
        .line("", ">>> ")
        .line("stream = primes()", ">>> ");
    for round in 0..30 {
        session = session
            .line("[next(stream) for _ in range(12)]", r"\]\r\n.*>>> ")
            .line(
                format!("heap[{round}] = [Node(rng.randrange(1000)) for _ in range(500)]"),
                ">>> ",
            )
            .line(
                format!("for n in heap[{round}]: n.links.append(rng.choice(heap[{round}]))"),
                r"\.\.\. ",
            )
            .line("", ">>> ")
            .line(
                format!("log.write('round {round} %d\\n' % rng.getrandbits(64))"),
                r"\d+\r\n.*>>> ",
            )
            .line(
                "hashlib.sha256(repr(sorted(heap.items())).encode()).hexdigest()",
                r"'[0-9a-f]{64}'\r\n.*>>> ",
            );
        if round % 5 == 4 {
            session = session
                .line(
                    format!("del heap[{}]; gc.collect() >= 0", round - 2),
                    r"True\r\n.*>>> ",
                )
                .line("1 / 0", r"ZeroDivisionError: division by zero\r\n.*>>> ")
                // Wherever the interrupt falls, it is caught.
                .line("try:", r"\.\.\. ")
                .line("    echo(False); print('sleep' + 'ing')", r"\.\.\. ")
                .line("    while True: time.sleep(0.01)", r"\.\.\. ")
                .line(
                    "except KeyboardInterrupt: echo(True); print('wok' + 'en')",
                    r"\.\.\. ",
                )
                .line("", r"sleeping\r\n")
                .interrupt(r"woken\r\n.*>>> ");
        }
    }
    session
        .strike()
        .line(
            "json.dump({k: [n.key for n in v] for k, v in heap.items()}, open('heap.json', 'w'))",
            ">>> ",
        )
        .line(
            "log.close(); open('log.txt').read().count('\\n')",
            r"30\r\n.*>>> ",
        )
        .send("exit()\r")
}

const THREADS: &str = r#"
import hashlib, queue, sys, threading

work, done = queue.Queue(64), queue.Queue()
total, lock = 0, threading.Lock()
gate = threading.Barrier(4)
here = threading.local()

def worker(number):
    global total
    here.count = 0
    gate.wait()
    while (job := work.get()) is not None:
        digest = hashlib.sha256(b'%d' % job).digest()
        for _ in range(20):
            digest = hashlib.sha256(digest * 50).digest()
        with lock:
            total += job
        here.count += 1
        done.put((job, digest.hex()[:16]))
    done.put((None, here.count))

threads = [threading.Thread(target=worker, args=(n,)) for n in range(4)]
for thread in threads:
    thread.start()
counted = 0
for batch in range(60):
    for job in range(40):
        work.put(batch * 40 + job)
    results = dict(done.get() for _ in range(40))
    counted += len(results)
    with open('results.txt', 'a') as out:
        for job in sorted(results):
            print(job, results[job], file=out)
    print('batch', batch, hashlib.md5(repr(sorted(results.items())).encode()).hexdigest(), flush=True)
for _ in threads:
    work.put(None)
print('threads did', sum(done.get()[1] for _ in threads), 'of', counted)
for thread in threads:
    thread.join()
print('total', total)
"#;

pub fn python_threads() -> Session {
    python(
        "python-threads",
        "four Python threads with queues and locks, through a pipe",
    )
    .args(["threads.py"])
    .channel(Channel::Pipe)
    .stream(Stream::Exact)
    .file("threads.py", || THREADS.as_bytes().to_vec())
    .expect("batch 20 ")
    .strike()
    .expect(r"total \d+\n")
}

pub fn lua() -> Session {
    let mut session = Session::new(
        "lua",
        "the Lua prompt: tables, coroutines, closures, gc",
        Program::Installed("/usr/bin/lua5.4"),
    )
    .stream(Stream::Exact)
    .expect("> ");
    for line in [
        "math.randomseed(7)",
        "out = io.open('lua.txt', 'w'); out:setvbuf('line')",
        "words = {}",
        "function hash(s) local h = 5381 for c in s:gmatch('.') do h = (h * 33 + c:byte()) & 0xffffffff end return h end",
        "walk = coroutine.wrap(function() local a, b = 0, 1 while true do coroutine.yield(a) a, b = b, a + b end end)",
    ] {
        session = session.line(line, r"\n.*> ");
    }
    for round in 1..=40 {
        session = session
            .line(
                format!("for i = 1, 400 do words[#words + 1] = 'w' .. ({round} * i) % 977 end"),
                r"\n.*> ",
            )
            .line("walk(), walk(), walk()", r"-?\d+\t-?\d+\t-?\d+\r\n.*> ")
            .line(
                "hash(table.concat(words, ' ')), math.random(1000000)",
                r"\d+\t\d+\r\n.*> ",
            )
            .line(
                format!("out:write('round {round} ', math.random(1000), '\\n') == out"),
                r"true\r\n.*> ",
            );
        if round % 10 == 0 {
            session = session.line("collectgarbage() == 0", r"true\r\n.*> ").line(
                "nothing.at.all",
                r"attempt to index a nil value[\s\S]*\n.*> ",
            );
        }
    }
    session
        .strike()
        .line("out:close()", r"true\r\n.*> ")
        .send("\x04")
}

pub fn node() -> Session {
    let mut session = Session::new(
        "node",
        "the Node prompt: promises, timers, files, buffers",
        Program::Installed("/usr/bin/node"),
    )
    .env("NODE_REPL_HISTORY", "")
    .env("NODE_DISABLE_COLORS", "1")
    .env("NO_COLOR", "1")
    .patience_s(40)
    .expect("> ");
    let mut tick = 0;
    // The prompt repaints itself; an answer with a number of its own says that a line is worked off. While it evaluates,
    // node has the terminal echo by itself: what is typed then stands in the screen twice. So the prompt is awaited
    // between the two.
    let mut ask = |session: Session, line: &str| {
        tick += 1;
        session
            .line(line, "\r\n\x1b\\[1G\x1b\\[0J> ")
            .send(format!("'tick-' + ({tick} * 7) + '.'\r"))
            .screen(format!("^'tick-{}\\.'", tick * 7))
    };
    for line in [
        "const fs = require('fs'), crypto = require('crypto'), kept = new Map(); let seed = 1",
        "const next = () => (seed = (seed * 48271) % 2147483647)",
        "function* fib() { let [a, b] = [0n, 1n]; for (;;) { yield a; [a, b] = [b, a + b] } }",
        "const it = fib()",
    ] {
        session = ask(session, line);
    }
    for round in 0..15 {
        for line in [
            format!(
                "for (let i = 0; i < 300; i++) kept.set(i * {} % 1009, Buffer.alloc(64, next() & 255))",
                round + 2
            ),
            "for (let i = 0; i < 9; i++) it.next(); it.next().value".to_owned(),
            "crypto.createHash('sha256').update(Buffer.concat([...kept.values()])).digest('hex')"
                .to_owned(),
            format!("fs.appendFileSync('node.txt', 'round {round} ' + next() + '\\n')"),
            format!("await new Promise(r => setTimeout(() => r('timer {round}'), 3))"),
            format!("await fs.promises.writeFile('async-{round}', String(next()))"),
        ] {
            session = ask(session, &line);
        }
        if round == 7 {
            session = ask(session.strike(), "'z'.repeat(3000).length").snapshot("middle");
        }
    }
    session.snapshot("end").strike().send(".exit\r")
}
