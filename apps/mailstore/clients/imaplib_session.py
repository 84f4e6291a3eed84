"""A session of Python's imaplib that uses what it has, and checks each answer."""

import imaplib
import os
import smtplib
import time

host, port = os.environ["CLIENTS_IMAP"].rsplit(":", 1)
user, password = os.environ["CLIENTS_USER"], os.environ["CLIENTS_PASSWORD"]


def ok(answer):
    assert answer[0] == "OK", answer
    return answer[1]


client = imaplib.IMAP4(host, int(port))
try:
    client.login(user, "wrong")
    raise SystemExit("a wrong password was taken")
except imaplib.IMAP4.error:
    pass
ok(client.login(user, password))
assert "IDLE" in client.capabilities or "IDLE" in str(client.capability())
box = f"imaplib{os.getpid()}"
ok(client.create(box))
ok(client.subscribe(box))
assert any(box.encode() in line for line in ok(client.list()))
assert any(box.encode() in line for line in ok(client.lsub()))
when = imaplib.Time2Internaldate(1_600_000_000)
for number in range(20):
    text = f"From: a@example.net\r\nSubject: number {number}\r\n\r\nbody {number}\r\n".encode()
    ok(client.append(box, r"(\Seen)" if number % 2 else None, when, text))
assert ok(client.select(box)) == [b"20"]
assert ok(client.search(None, "UNSEEN"))[0].split() == [str(n).encode() for n in range(1, 21, 2)]
assert ok(client.search("UTF-8", "SUBJECT", '"number 7"')) == [b"8"]
fetched = ok(client.fetch("8", "(INTERNALDATE BODY.PEEK[TEXT] ENVELOPE BODYSTRUCTURE RFC822.SIZE)"))
assert fetched[0][1] == b"body 7\r\n", fetched
assert imaplib.Internaldate2tuple(fetched[0][0] + fetched[1]) == time.localtime(1_600_000_000), fetched
ok(client.store("1:5", "+FLAGS", r"(\Deleted $Custom)"))
ok(client.copy("6:10", "Archive"))
assert len(ok(client.expunge())) == 5
assert ok(client.uid("FETCH", "6:8", "(FLAGS)"))[0].startswith(b"1 (")
ok(client.uid("STORE", "6:8", "-FLAGS", r"(\Seen)"))
assert ok(client.status(box, "(MESSAGES UNSEEN UIDNEXT)"))[0].endswith(b"UIDNEXT 21)")
ok(client.close())
ok(client.rename(box, box + ".renamed"))
ok(client.delete(box + ".renamed"))
ok(client.unsubscribe(box))
client.logout()

# One TLS session, with a certificate that nobody has signed.
if "STARTTLS" in str(imaplib.IMAP4(host, int(port)).capabilities):
    import ssl

    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    client = imaplib.IMAP4(host, int(port))
    client.starttls(context)
    ok(client.login(user, password))
    ok(client.select())
    client.logout()
smtplib.SMTP(*os.environ["CLIENTS_SMTP"].rsplit(":", 1)).quit()
