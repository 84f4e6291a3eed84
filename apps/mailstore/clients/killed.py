"""Loads a mailstore that runs under dcrun, kills its worker again and again, and counts.

    killed.py DCRUN KILLS

Clients keep their connections for the whole run. None of them may see an error or a connection that ends, and in the end every
message that was acknowledged must be there exactly once.
"""

import imaplib
import json
import os
import random
import signal
import smtplib
import subprocess
import sys
import threading
import time

dcrun, kills = sys.argv[1], int(sys.argv[2])
host = "127.0.0.1"
smtp_port, lmtp_port, imap_port = 2525, 2424, 2143
user, password = "test@localhost", "test"
done = threading.Event()
errors, acknowledged, unsure = [], set(), set()
counts = {"deliveries": 0, "commands": 0}
lock = threading.Lock()


def text(name):
    return f"From: a@example.net\r\nSubject: {name}\r\nX-Name: {name}\r\n\r\nbody of {name}\r\n" + "x" * 70 + "\r\n"


def deliver(worker, kind):
    name = None
    try:
        client = (smtplib.LMTP if kind == "lmtp" else smtplib.SMTP)(host, lmtp_port if kind == "lmtp" else smtp_port, timeout=60)
        number = 0
        while not done.is_set():
            name = f"{kind}{worker}-{os.getpid()}-{number}"
            number += 1
            client.sendmail("a@example.net", [user], text(name))
            with lock:
                acknowledged.add(name)
                counts["deliveries"] += 1
            name = None
        client.quit()
    except Exception as problem:
        with lock:
            errors.append(f"{kind}{worker}: {problem!r}")
            if name:
                unsure.add(name)


def ok(answer):
    if answer[0] != "OK":
        raise RuntimeError(answer)
    return answer[1]


def read(worker):
    """Appends to a mailbox of its own and reads it back: what is there must be what was put there."""
    try:
        imaplib.IMAP4.debug = 0
        client = imaplib.IMAP4(host, imap_port, timeout=60)
        ok(client.login(user, password))
        box = f"box{worker}-{os.getpid()}"
        ok(client.create(box))
        ok(client.select(box))
        uids = {}
        number = 0
        while not done.is_set():
            number += 1
            name = f"append{worker}-{number}"
            reply = ok(client.append(box, None, None, text(name).encode()))[0]
            uid = int(reply.split(b"]")[0].split()[-1])
            if uid in uids:
                raise RuntimeError(f"UID {uid} was given twice")
            uids[uid] = name
            ok(client.noop())
            uid = random.choice(list(uids))
            fetched = ok(client.uid("FETCH", str(uid), "(FLAGS BODY.PEEK[])"))
            if fetched[0][1] != text(uids[uid]).encode():
                raise RuntimeError(f"UID {uid} should be {uids[uid]}: {fetched}")
            if number % 3 == 0:
                ok(client.uid("STORE", str(uid), "+FLAGS", r"(\Flagged)"))
            with lock:
                counts["commands"] += 4
        found = ok(client.uid("SEARCH", "ALL"))[0].split()
        if [int(uid) for uid in found] != sorted(uids):
            raise RuntimeError(f"{len(found)} messages, should be {len(uids)}")
        client.logout()
    except Exception as problem:
        with lock:
            errors.append(f"imap{worker}: {problem!r}")


def run():
    for one in json.loads(subprocess.run([dcrun, "ps", "--json"], capture_output=True, text=True).stdout):
        if "mailstore" in one["name"]:
            return one
    return None


threads = [threading.Thread(target=deliver, args=(n, kind)) for n in range(2) for kind in ("smtp", "lmtp")]
threads += [threading.Thread(target=read, args=(n,)) for n in range(2)]
for thread in threads:
    thread.start()
begun = time.time()
killed = 0
while killed < kills and not errors:
    time.sleep(random.uniform(0.02, 0.25))
    one = run()
    if one is None:
        errors.append("the run is gone")
        break
    if not one["worker_pid"]:
        continue  # it is being started again
    try:
        os.kill(one["worker_pid"], signal.SIGKILL)
        killed += 1
    except ProcessLookupError:
        pass
time.sleep(1)
done.set()
for thread in threads:
    thread.join(90)
took = time.time() - begun

found = {}
try:
    client = imaplib.IMAP4(host, imap_port, timeout=60)
    ok(client.login(user, password))
    ok(client.select("INBOX", True))
    for part in ok(client.fetch("1:*", "(BODY.PEEK[HEADER.FIELDS (X-NAME)])")):
        if isinstance(part, tuple):
            name = part[1].decode().split(":", 1)[1].strip()
            found[name] = found.get(name, 0) + 1
except Exception as problem:
    errors.append(f"counting: {problem!r}")
lost = [name for name in acknowledged if name not in found]
twice = [name for name, times in found.items() if times > 1]
one = run() or {}
print(f"{killed} kills in {took:.0f} s, {one.get('recoveries')} recoveries, {one.get('commits')} commits; {counts['deliveries']} deliveries, "
      f"{counts['commands']} IMAP commands; {len(errors)} errors, {len(lost)} lost, {len(twice)} twice")
for line in errors + [f"lost: {name}" for name in lost[:10]] + [f"twice: {name}" for name in twice[:10]]:
    print("   ", line)
sys.exit(1 if errors or lost or twice else 0)
