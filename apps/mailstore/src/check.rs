//! `mailstore check`: looks at settings and store, changes nothing, and says of
//! each thing that is wrong what it is and what to do.

use std::collections::HashMap;
use std::path::Path;

use crate::failure::{Action, Result};
use crate::maildir::account::Account;
use crate::maildir::disk::Disk;
use crate::maildir::name;
use crate::maildir::uidlist::UidList;
use crate::net::tls;
use crate::queue;
use crate::settings::{RelayTls, Settings};

#[derive(Default)]
pub struct Report {
    pub problems: Vec<String>,
    pub accounts: usize,
    pub mailboxes: usize,
    pub messages: usize,
    pub queued: usize,
}

pub fn check(settings: &Settings) -> Report {
    let mut report = Report::default();
    if let Some(files) = &settings.tls {
        report.problems.extend(tls::acceptor(files).err());
    }
    if let Some(relay) = settings
        .relay
        .as_ref()
        .filter(|relay| relay.tls == RelayTls::Required)
    {
        report
            .problems
            .extend(tls::connector(&relay.authorities).err());
    }
    let root = settings.data.join("mail");
    for (address, account) in &settings.accounts {
        let dir = root.join(address);
        if dir.join("cur").is_dir() {
            let account = Account::new(address, dir, account.quota, Disk::default());
            let checked = check_account(&account, &mut report);
            report
                .problems
                .extend(checked.err().map(|failure| format!("{address}: {failure}")));
            report.accounts += 1;
        }
    }
    check_strangers(&root, settings, &mut report);
    let dir = settings.data.join("queue");
    if dir.is_dir() {
        match queue::scan(&dir) {
            Err(failure) => report.problems.push(format!("queue: {failure}")),
            Ok((entries, _)) => {
                report.queued = entries.len();
                for id in entries
                    .keys()
                    .filter(|id| !dir.join(format!("{id}.message")).is_file())
                {
                    report
                        .problems
                        .push(format!("queue: {id}.envelope has no message; move it away"));
                }
            }
        }
    }
    report
}

/// Mail of accounts that the settings do not have: nobody can read it.
fn check_strangers(root: &Path, settings: &Settings, report: &mut Report) {
    let Ok(entries) = std::fs::read_dir(root) else {
        return;
    };
    for entry in entries.flatten() {
        let file_name = entry.file_name();
        let known = file_name
            .to_str()
            .is_some_and(|name| settings.accounts.contains_key(name));
        if !known {
            report.problems.push(format!(
                "{} belongs to no [[account]]; add the account, or move the directory away",
                entry.path().display()
            ));
        }
    }
}

fn check_account(account: &Account, report: &mut Report) -> Result<()> {
    for mailbox in account.names()? {
        report.mailboxes += 1;
        let dir = account.dir_of(&mailbox);
        let place = format!("{} {mailbox}", account.name);
        match check_mailbox(&dir, &place, report) {
            Ok(()) => {}
            Err(failure) => report.problems.push(format!("{place}: {failure}")),
        }
    }
    if let Some(quota) = account.quota {
        let used = account.used()?;
        if used > quota {
            report.problems.push(format!(
                "{}: holds {used} octets, over its quota of {quota}",
                account.name
            ));
        }
    }
    Ok(())
}

fn check_mailbox(dir: &Path, place: &str, report: &mut Report) -> Result<()> {
    let uids = UidList::load(dir)?;
    if let Some(list) = &uids {
        let mut seen: HashMap<u32, &str> = HashMap::new();
        for (base, uid) in &list.uids {
            if let Some(other) = seen.insert(*uid, base) {
                report.problems.push(format!(
                    "{place}: UID {uid} is given to {other} and to {base}; \
                    remove {} and clients fetch the mailbox anew",
                    crate::maildir::uidlist::FILE_NAME
                ));
            }
        }
    }
    let mut bases: HashMap<String, String> = HashMap::new();
    for sub in ["tmp", "new", "cur"] {
        let sub_dir = dir.join(sub);
        for entry in std::fs::read_dir(&sub_dir).on("read", &sub_dir)? {
            let entry = entry.on("read", &sub_dir)?;
            let path = entry.path();
            let file_name = entry.file_name();
            let Some(file_name) = file_name.to_str() else {
                report.problems.push(format!(
                    "{place}: {} has a name that is no text",
                    path.display()
                ));
                continue;
            };
            if sub == "tmp" || file_name.starts_with('.') {
                continue;
            }
            report.messages += 1;
            let metadata = entry.metadata().on("look at", &path)?;
            let base = name::split(file_name).0;
            if !metadata.is_file() {
                report.problems.push(format!(
                    "{place}: {} is no file; move it away",
                    path.display()
                ));
                continue;
            }
            if let Some(len) = name::size_field(base, 'S').filter(|len| *len != metadata.len()) {
                report.problems.push(format!(
                    "{place}: {} has {} octets where its name says {len}; it was cut or changed",
                    path.display(),
                    metadata.len()
                ));
            }
            std::fs::File::open(&path).on("open", &path)?;
            if let Some(other) = bases.insert(base.to_string(), file_name.to_string()) {
                report.problems.push(format!(
                    "{place}: {other} and {file_name} are one message twice; \
                    rename one of them"
                ));
            }
        }
    }
    Ok(())
}
