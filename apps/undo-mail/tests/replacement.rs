//! A server is replaced by another one as the repair: the own store by Dovecot, and back.

mod house;

use house::servers::Kind;
use house::{House, USERS};

/// Rewinds, has another server take over files and ports, and replays.
fn replace(house: &mut House, to: Kind, target: u64) -> undo::Summary {
    house.proxy.manager.rewind(target, None).unwrap();
    house.proxy.manager.service().stop_server();
    house.servers.replace_by(to, &USERS);
    house.proxy.manager.service().restart_server().unwrap();
    house.proxy.manager.replay().unwrap()
}

#[test]
fn the_own_store_is_replaced_by_dovecot_and_comes_back() {
    if !Kind::Dovecot.is_there() {
        return;
    }
    let Some(mut house) = House::new(Kind::Own, "copies", |_| ()) else {
        return;
    };
    let work = |house: &House, name: &str| {
        for user in ["ann", "ben"] {
            house.mail("x@there.test", &format!("{user}@here.test"), name, "text");
        }
        house.drain();
        let mut ann = house.imap("ann");
        let count = ann.select("INBOX");
        ann.must("FETCH 1:* (UID ENVELOPE BODY.PEEK[])");
        ann.must(&format!("STORE {count} +FLAGS (\\Answered)"));
        ann.must(&format!("CREATE {name}.below"));
        ann.append(&format!("{name}.below"), "Subject: own\r\n\r\nx\r\n");
        ann.must(&format!("COPY {count} {name}.below"));
        ann.must("LIST \"\" \"*\"");
    };
    work(&house, "one");
    house.proxy.manager.snapshot().unwrap();
    let middle = house.last();
    work(&house, "two");
    let mut client = house.imap("ann");
    client.select("INBOX");
    let uids = client.must("FETCH 1:* (UID)");
    let mailboxes = house.mailboxes();
    let with_mail = |all: &std::collections::BTreeMap<String, Vec<String>>| {
        // (Dovecot and the own store make other folders for a new user; those are empty.)
        let mut all = all.clone();
        all.retain(|_, messages| !messages.is_empty());
        all
    };
    for (to, target) in [(Kind::Dovecot, middle), (Kind::Own, 0)] {
        let summary = replace(&mut house, to, target);
        assert!(summary.paradoxes.is_empty(), "{to:?}: {summary:?}");
        let now = house.mailboxes();
        assert_eq!(
            with_mail(&mailboxes),
            with_mail(&now),
            "{to:?} from {target}"
        );
        // The client has stayed connected all the time, and sees nothing.
        let same = client.must("FETCH 1:* (UID)");
        assert_eq!(
            uids.lines()
                .filter(|l| l.starts_with('*'))
                .collect::<Vec<_>>(),
            same.lines()
                .filter(|l| l.starts_with('*'))
                .collect::<Vec<_>>()
        );
        assert_eq!(
            client.must("NOOP").lines().count(),
            1,
            "nothing comes or goes"
        );
    }
}

#[test]
fn a_server_with_another_separator_is_refused_until_it_has_the_same() {
    if !Kind::Dovecot.is_there() {
        return;
    }
    let Some(mut house) = House::new(Kind::Own, "copies", |_| ()) else {
        return;
    };
    let mut ann = house.imap("ann");
    ann.must("CREATE a.b");
    ann.append("a.b", "Subject: own\r\n\r\nx\r\n");
    let mailboxes = house.mailboxes_of(&["ann"]);
    house.proxy.manager.rewind(0, None).unwrap();
    house.proxy.manager.service().stop_server();
    house.servers.separator = '/';
    house.servers.replace_by(Kind::Dovecot, &USERS);
    house.proxy.manager.service().restart_server().unwrap();
    let error = house.proxy.manager.replay().unwrap_err().to_string();
    assert!(error.contains("separates folders by \"/\""), "{error}");

    house.proxy.manager.service().stop_server();
    house.servers.separator = '.';
    house.servers.replace_by(Kind::Dovecot, &USERS);
    house.proxy.manager.service().restart_server().unwrap();
    let summary = house.proxy.manager.replay().unwrap();
    assert!(summary.paradoxes.is_empty(), "{summary:?}");
    assert_eq!(
        house.mailboxes_of(&["ann"])["ann/a.b"],
        mailboxes["ann/a.b"]
    );
}
