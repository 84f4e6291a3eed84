//! Checks the file of settings, and tells all that is wrong with it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::file::{File, LimitsEntry, QueueEntry, RelayEntry};
use super::{
    AccountSettings, Domain, Limits, Listen, Master, Place, PlainLogin, QueueTimes, Relay,
    RelayTls, Service, Settings, TlsFiles,
};

pub(super) fn check(file: File, base: &Path, problems: &mut Vec<String>) -> Settings {
    if !is_domain(&file.hostname) {
        problems.push(format!("hostname: {:?} is no host name", file.hostname));
    }
    let max_message = match file.max_message.as_deref().map(parse_size) {
        None => 50 << 20,
        Some(Some(size @ 1024..=2_000_000_000)) => size as usize,
        Some(_) => {
            problems.push("max_message: write a size from 1K to 2000M, such as \"50M\"".into());
            0
        }
    };
    let domains = check_domains(&file, problems);
    let accounts = check_accounts(&file, &domains, problems);
    let aliases = check_aliases(&file, &domains, &accounts, problems);
    for (domain, entry) in &domains {
        let Some(target) = &entry.catch_all else {
            continue;
        };
        if !accounts.contains_key(target) && !aliases.contains_key(target) {
            problems.push(format!(
                "[[domain]] {domain}: catch_all: {target} is no account and no alias of this file"
            ));
        }
    }
    let postmaster = file.postmaster.as_deref().map(str::to_lowercase);
    if let Some(address) = postmaster
        .as_ref()
        .filter(|address| !accounts.contains_key(*address))
    {
        problems.push(format!("postmaster: {address} is no account of this file"));
    }
    let master = file.master.map(|master| {
        check_password(&master.password, "[master]", problems);
        if master.name.is_empty() || master.name.contains('*') {
            problems.push("[master] name: write a name without '*'".into());
        }
        Master {
            name: master.name,
            password: master.password,
        }
    });
    let listen = check_listen(&file.listen, base, file.tls.is_some(), problems);
    let limits = file.limits.unwrap_or(LimitsEntry {
        connections: None,
        recipients: None,
        login_seconds: None,
        idle_seconds: None,
        plain_login: None,
    });
    Settings {
        hostname: file.hostname.to_lowercase(),
        data: base.join(file.data),
        max_message,
        listen,
        tls: file.tls.map(|tls| TlsFiles {
            certificate: base.join(tls.certificate),
            key: base.join(tls.key),
        }),
        domains,
        accounts,
        aliases,
        postmaster,
        master,
        relay: file
            .relay
            .and_then(|relay| check_relay(relay, base, problems)),
        queue: check_queue(file.queue, problems),
        limits: Limits {
            connections: limits.connections.unwrap_or(1000).max(1),
            recipients: limits.recipients.unwrap_or(1000).max(1),
            login: Duration::from_secs(limits.login_seconds.unwrap_or(60).max(1)),
            idle: Duration::from_secs(limits.idle_seconds.unwrap_or(1800).max(1)),
            plain_login: limits.plain_login.unwrap_or(PlainLogin::Loopback),
        },
    }
}

fn check_domains(file: &File, problems: &mut Vec<String>) -> BTreeMap<String, Domain> {
    let mut domains = BTreeMap::new();
    for entry in &file.domain {
        let name = entry.name.to_lowercase();
        if !is_domain(&name) {
            problems.push(format!(
                "[[domain]] name: {:?} is no domain name",
                entry.name
            ));
        }
        let domain = Domain {
            same_as: entry.same_as.as_deref().map(str::to_lowercase),
            catch_all: entry.catch_all.as_deref().map(str::to_lowercase),
        };
        if domains.insert(name.clone(), domain).is_some() {
            problems.push(format!("[[domain]] {name} is there twice; remove one"));
        }
    }
    for (name, domain) in &domains {
        let Some(same_as) = &domain.same_as else {
            continue;
        };
        match domains.get(same_as) {
            None => problems.push(format!(
                "[[domain]] {name}: same_as: there is no [[domain]] {same_as}; add it"
            )),
            Some(other) if other.same_as.is_some() => problems.push(format!(
                "[[domain]] {name}: same_as: {same_as} is a second name itself; name the first"
            )),
            Some(_) => {}
        }
    }
    domains
}

fn check_accounts(
    file: &File,
    domains: &BTreeMap<String, Domain>,
    problems: &mut Vec<String>,
) -> BTreeMap<String, AccountSettings> {
    let mut accounts = BTreeMap::new();
    for entry in &file.account {
        let address = entry.address.to_lowercase();
        let place = format!("[[account]] {address}");
        check_address(&address, domains, &place, problems);
        check_password(&entry.password, &place, problems);
        let quota = entry.quota.as_deref().and_then(|text| {
            let size = parse_size(text);
            if size.is_none() {
                problems.push(format!(
                    "{place}: quota: {text:?} is no size; write \"500M\" or \"2G\""
                ));
            }
            size
        });
        let account = AccountSettings {
            password: entry.password.clone(),
            quota,
        };
        if accounts.insert(address, account).is_some() {
            problems.push(format!("{place} is there twice; remove one"));
        }
    }
    accounts
}

fn check_aliases(
    file: &File,
    domains: &BTreeMap<String, Domain>,
    accounts: &BTreeMap<String, AccountSettings>,
    problems: &mut Vec<String>,
) -> BTreeMap<String, Vec<String>> {
    let mut aliases: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for entry in &file.alias {
        let address = entry.address.to_lowercase();
        let place = format!("[[alias]] {address}");
        check_address(&address, domains, &place, problems);
        if accounts.contains_key(&address) {
            problems.push(format!(
                "{place}: there is an account of this address; remove one"
            ));
        }
        if entry.to.is_empty() {
            problems.push(format!("{place}: to: write at least one address"));
        }
        let targets: Vec<String> = entry.to.iter().map(|to| lower_domain(to)).collect();
        if aliases.insert(address, targets).is_some() {
            problems.push(format!(
                "{place} is there twice; put all addresses into one"
            ));
        }
    }
    for (address, targets) in &aliases {
        for target in targets {
            let lower = target.to_lowercase();
            let Some((_, domain)) = lower.rsplit_once('@') else {
                problems.push(format!("[[alias]] {address}: to: {target:?} is no address"));
                continue;
            };
            let local = domains.contains_key(domain);
            if local && !accounts.contains_key(&lower) && !aliases.contains_key(&lower) {
                problems.push(format!(
                    "[[alias]] {address}: to: {target} is no account and no alias of this file"
                ));
            } else if !local && file.relay.is_none() {
                problems.push(format!(
                    "[[alias]] {address}: to: {target} is elsewhere, and there is no [relay] to get there"
                ));
            }
        }
        if goes_in_a_circle(address, &aliases) {
            problems.push(format!("[[alias]] {address} leads back to itself"));
        }
    }
    aliases
}

fn goes_in_a_circle(start: &str, aliases: &BTreeMap<String, Vec<String>>) -> bool {
    let mut seen = BTreeSet::new();
    let mut next: Vec<String> = aliases.get(start).cloned().unwrap_or_default();
    while let Some(address) = next.pop() {
        let address = address.to_lowercase();
        if address == start {
            return true;
        }
        if seen.insert(address.clone()) {
            next.extend(aliases.get(&address).cloned().unwrap_or_default());
        }
    }
    false
}

fn check_listen(
    listen: &BTreeMap<String, Vec<String>>,
    base: &Path,
    has_tls: bool,
    problems: &mut Vec<String>,
) -> Vec<Listen> {
    let mut all = Vec::new();
    for (name, places) in listen {
        let Some((service, _)) = Service::ALL.iter().find(|known| known.1 == name) else {
            let known: Vec<&str> = Service::ALL.iter().map(|known| known.1).collect();
            problems.push(format!(
                "[listen] {name}: no such service; there are {}",
                known.join(", ")
            ));
            continue;
        };
        if service.is_tls_from_the_start() && !has_tls {
            problems.push(format!(
                "[listen] {name}: needs [tls] with a certificate and a key"
            ));
        }
        for text in places {
            let place = match text.strip_prefix("unix:") {
                Some(path) => Place::Unix(base.join(path)),
                None => match text.parse() {
                    Ok(address) => Place::Tcp(address),
                    Err(_) => {
                        problems.push(format!(
                            "[listen] {name}: {text:?} is no place to listen; write \"127.0.0.1:143\", \"[::]:143\" or \"unix:PATH\""
                        ));
                        continue;
                    }
                },
            };
            all.push(Listen {
                service: *service,
                place,
            });
        }
    }
    if all.is_empty() {
        problems.push(
            "[listen]: no service listens; write for example imap = [\"127.0.0.1:143\"]".into(),
        );
    }
    all
}

fn check_relay(relay: RelayEntry, base: &Path, problems: &mut Vec<String>) -> Option<Relay> {
    let login = match (relay.user, relay.password_file) {
        (None, None) => None,
        (Some(user), Some(file)) => {
            let file = base.join(file);
            match std::fs::read_to_string(&file) {
                Ok(password) => Some((user, password.trim_end_matches(['\r', '\n']).to_string())),
                Err(cause) => {
                    problems.push(format!(
                        "[relay] password_file: cannot read {}: {cause}",
                        file.display()
                    ));
                    None
                }
            }
        }
        _ => {
            problems.push("[relay]: write both user and password_file, or neither".into());
            None
        }
    };
    let tls = relay.tls.unwrap_or(RelayTls::Required);
    if login.is_some() && tls == RelayTls::None {
        problems.push("[relay]: with a password, tls must be \"required\"".into());
    }
    let authorities = relay
        .authorities
        .unwrap_or_else(|| PathBuf::from("/etc/ssl/certs/ca-certificates.crt"));
    let port = relay.port.unwrap_or(25);
    Some(Relay {
        host: relay.host,
        port,
        tls,
        authorities: base.join(authorities),
        login,
    })
}

fn check_queue(queue: Option<QueueEntry>, problems: &mut Vec<String>) -> QueueTimes {
    let queue = queue.unwrap_or(QueueEntry {
        retry_seconds: None,
        warn_seconds: None,
        give_up_seconds: None,
    });
    let retry = queue
        .retry_seconds
        .unwrap_or_else(|| vec![60, 300, 900, 3600, 14_400]);
    if retry.is_empty() || retry.contains(&0) {
        problems.push("[queue] retry_seconds: write at least one number, none of them 0".into());
    }
    QueueTimes {
        retry: retry.into_iter().map(Duration::from_secs).collect(),
        warn_after: Duration::from_secs(queue.warn_seconds.unwrap_or(4 * 3600)),
        give_up_after: Duration::from_secs(queue.give_up_seconds.unwrap_or(5 * 86_400)),
    }
}

fn check_address(
    address: &str,
    domains: &BTreeMap<String, Domain>,
    place: &str,
    problems: &mut Vec<String>,
) {
    let Some((local, domain)) = address.rsplit_once('@') else {
        problems.push(format!("{place}: address: write user@domain"));
        return;
    };
    // It names a directory, and `*` and `+` have meanings of their own.
    let odd = |c: char| c.is_control() || c.is_whitespace() || "/*+@\"<>\0".contains(c);
    if local.is_empty() || local.starts_with('.') || local.contains(odd) || address.len() > 200 {
        problems.push(format!(
            "{place}: address: {local:?} cannot be the name of an account here"
        ));
    }
    match domains.get(domain) {
        None => problems.push(format!(
            "{place}: there is no [[domain]] with the name {domain}; add it"
        )),
        Some(Domain {
            same_as: Some(first),
            ..
        }) => problems.push(format!(
            "{place}: {domain} is a second name of {first}; write the address with {first}"
        )),
        Some(_) => {}
    }
}

fn check_password(password: &str, place: &str, problems: &mut Vec<String>) {
    if argon2::password_hash::PasswordHash::new(password).is_err()
        || !password.starts_with("$argon2")
    {
        problems.push(format!(
            "{place}: password: no argon2 hash; make one with `mailstore password`"
        ));
    }
}

/// `4096`, `10K`, `50M`, `2G`.
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let (number, shift) = match text.as_bytes().last()? {
        b'K' | b'k' => (&text[..text.len() - 1], 10),
        b'M' | b'm' => (&text[..text.len() - 1], 20),
        b'G' | b'g' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    number.trim().parse::<u64>().ok()?.checked_mul(1 << shift)
}

fn is_domain(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 253
        && name.split('.').all(|label| {
            !label.is_empty()
                && label
                    .chars()
                    .all(|c| c.is_alphanumeric() || c == '-' || c == '_')
        })
}

fn lower_domain(address: &str) -> String {
    match address.rsplit_once('@') {
        Some((local, domain)) => format!("{local}@{}", domain.to_lowercase()),
        None => address.to_string(),
    }
}
