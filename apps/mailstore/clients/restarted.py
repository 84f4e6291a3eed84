"""Loads a mailstore, kills it with -9 and starts it again, again and again, and counts.

    restarted.py MAILSTORE DATA KILLS

Clients connect again when they are cut off. In the end every message that was acknowledged must be there exactly once, one whose
acknowledgement never came at most once, and every UID that was told must still mean the message that it meant.
"""

import atexit
import imaplib
import os
import random
import signal
import smtplib
import subprocess
import sys
import threading
import time

program, data, kills = sys.argv[1], sys.argv[2], int(sys.argv[3])
host, smtp_port, lmtp_port, imap_port = "127.0.0.1", 2525, 2424, 2143
user, password = "test@localhost", "test"
done = threading.Event()
lock = threading.Lock()
errors, acknowledged, tried, told = [], set(), set(), {}
CUT_OFF = (OSError, smtplib.SMTPServerDisconnected, imaplib.IMAP4.abort)


def text(name):
    return f"From: a@example.net\r\nSubject: {name}\r\nX-Name: {name}\r\n\r\nbody\r\n"


def start():
    out = open(os.path.join(data, "out"), "a")
    process = subprocess.Popen([program, "--data", data], stdout=out, stderr=out)
    atexit.register(process.kill)
    for _ in range(200):
        try:
            imaplib.IMAP4(host, imap_port).logout()
            return process
        except CUT_OFF:
            time.sleep(0.02)
    raise SystemExit("the server does not start: " + open(os.path.join(data, "out")).read()[-500:])


def deliver(kind):
    number = 0
    while not done.is_set():
        try:
            client = (smtplib.LMTP if "lmtp" in kind else smtplib.SMTP)(host, lmtp_port if "lmtp" in kind else smtp_port, timeout=20)
            while not done.is_set():
                name, number = f"{kind}-{number}", number + 1
                with lock:
                    tried.add(name)
                client.sendmail("a@example.net", [user], text(name))
                with lock:
                    acknowledged.add(name)
        except CUT_OFF:
            time.sleep(0.01)
        except Exception as problem:
            errors.append(f"{kind}: {problem!r}")
            return


def names(client):
    """The name of each message of the selected mailbox, by UID."""
    found = []
    for part in client.uid("FETCH", "1:*", "(UID BODY.PEEK[HEADER.FIELDS (X-NAME)])")[1]:
        if isinstance(part, tuple):
            uid = int(part[0].split(b"UID ")[1].split()[0])
            found.append((uid, part[1].decode().split(":", 1)[1].strip()))
    return found


def read(box):
    number = 0
    while not done.is_set():
        try:
            client = imaplib.IMAP4(host, imap_port, timeout=20)
            client.login(user, password)
            client.create(box)
            while not done.is_set():
                name, number = f"{box}-{number}", number + 1
                with lock:
                    tried.add(name)
                answer, data = client.append(box, None, None, text(name).encode())
                if answer != "OK":
                    raise RuntimeError(data)
                validity, uid = data[0].split(b"]")[0].split()[-2:]
                with lock:
                    acknowledged.add(name)
                    told[(box, int(validity), int(uid))] = name
                if number % 5 == 0:
                    client.select("INBOX")
                    validity = int(client.response("UIDVALIDITY")[1][0])
                    if client.untagged_responses.get("EXISTS", [b"0"])[0] != b"0":
                        for uid, found in names(client):
                            before = told.setdefault(("INBOX", validity, uid), found)
                            if before != found:
                                raise RuntimeError(f"UID {uid} of INBOX was {before} and is {found}")
                    client.unselect()
        except CUT_OFF:
            time.sleep(0.01)
        except Exception as problem:
            errors.append(f"{box}: {problem!r}")
            return


server = start()
threads = [threading.Thread(target=deliver, args=(kind,)) for kind in ("smtp0", "lmtp0", "lmtp1")]
threads += [threading.Thread(target=read, args=(f"box{n}",)) for n in range(2)]
for thread in threads:
    thread.start()
begun = time.time()
for _ in range(kills):
    time.sleep(random.uniform(0.02, 0.3))
    server.send_signal(signal.SIGKILL)
    server.wait()
    server = start()
    if errors:
        break
time.sleep(0.3)
done.set()
for thread in threads:
    thread.join()

count = {}
client = imaplib.IMAP4(host, imap_port)
client.login(user, password)
for box in ("INBOX", "box0", "box1"):
    if client.select(box, True)[0] != "OK":
        continue
    validity = int(client.response("UIDVALIDITY")[1][0])
    here = dict(names(client))
    for name in here.values():
        count[name] = count.get(name, 0) + 1
    for (where, known, uid), name in told.items():
        if where == box and (known != validity or here.get(uid) != name):
            errors.append(f"UID {uid} of {box} was {name} and is {here.get(uid)}")
client.logout()
server.terminate()
server.wait()
lost = [name for name in acknowledged if name not in count]
twice = [name for name, times in count.items() if times > 1]
strange = [name for name in count if name not in tried]
print(f"{kills} kills in {time.time() - begun:.0f} s; {len(acknowledged)} acknowledged, {len(count)} there, {len(told)} UIDs told; "
      f"{len(errors)} errors, {len(lost)} lost, {len(twice)} twice")
for line in errors[:10] + lost[:5] + twice[:5] + strange[:5]:
    print("   ", line)
sys.exit(1 if errors or lost or twice or strange else 0)
