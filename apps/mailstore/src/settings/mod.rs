//! The file of settings: TOML. See `README.md` for every key.
//!
//! All that is wrong is told at once, each with its place and what to do. What
//! passed is `Settings`, in which nothing needs to be checked any more.

mod check;
mod file;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

#[derive(Clone, Debug)]
pub struct Settings {
    pub hostname: String,
    pub data: PathBuf,
    /// Octets of a message that is accepted.
    pub max_message: usize,
    pub listen: Vec<Listen>,
    pub tls: Option<TlsFiles>,
    /// Domain names in lower case, with the domain they stand for if they are a
    /// second name, and their catch-all.
    pub domains: BTreeMap<String, Domain>,
    pub accounts: BTreeMap<String, AccountSettings>,
    pub aliases: BTreeMap<String, Vec<String>>,
    pub postmaster: Option<String>,
    pub master: Option<Master>,
    pub relay: Option<Relay>,
    pub queue: QueueTimes,
    pub limits: Limits,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    Smtp,
    Submission,
    Submissions,
    Lmtp,
    Imap,
    Imaps,
}

impl Service {
    pub const ALL: [(Service, &str); 6] = [
        (Service::Smtp, "smtp"),
        (Service::Submission, "submission"),
        (Service::Submissions, "submissions"),
        (Service::Lmtp, "lmtp"),
        (Service::Imap, "imap"),
        (Service::Imaps, "imaps"),
    ];

    pub fn name(self) -> &'static str {
        Service::ALL
            .iter()
            .find(|known| known.0 == self)
            .map_or("", |known| known.1)
    }

    pub fn is_tls_from_the_start(self) -> bool {
        matches!(self, Service::Submissions | Service::Imaps)
    }
}

#[derive(Clone, Debug)]
pub struct Listen {
    pub service: Service,
    pub place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

#[derive(Clone, Debug)]
pub struct TlsFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

#[derive(Clone, Debug, Default)]
pub struct Domain {
    pub same_as: Option<String>,
    pub catch_all: Option<String>,
}

#[derive(Clone, Debug)]
pub struct AccountSettings {
    pub password: String,
    pub quota: Option<u64>,
}

#[derive(Clone, Debug)]
pub struct Master {
    pub name: String,
    pub password: String,
}

#[derive(Clone, Debug)]
pub struct Relay {
    pub host: String,
    pub port: u16,
    pub tls: RelayTls,
    /// PEM file of the authorities whose certificates count.
    pub authorities: PathBuf,
    pub login: Option<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RelayTls {
    None,
    Required,
}

#[derive(Clone, Debug)]
pub struct QueueTimes {
    pub retry: Vec<Duration>,
    pub warn_after: Duration,
    pub give_up_after: Duration,
}

#[derive(Clone, Debug)]
pub struct Limits {
    pub connections: usize,
    pub recipients: usize,
    pub login: Duration,
    pub idle: Duration,
    pub plain_login: PlainLogin,
}

/// Where a password may be sent without TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlainLogin {
    Never,
    Loopback,
    Always,
}

impl Settings {
    pub fn load(path: &Path) -> Result<Settings, Vec<String>> {
        let text = std::fs::read_to_string(path).map_err(|cause| {
            vec![format!(
                "cannot read the settings {}: {cause}",
                path.display()
            )]
        })?;
        let base = path.parent().unwrap_or(Path::new("."));
        Settings::parse(&text, base).map_err(|problems| {
            let place = |problem| format!("{}: {problem}", path.display());
            problems.into_iter().map(place).collect()
        })
    }

    /// Relative paths of files count from `base`.
    pub fn parse(text: &str, base: &Path) -> Result<Settings, Vec<String>> {
        let file: file::File =
            toml::from_str(text).map_err(|error| vec![error.to_string().trim_end().to_string()])?;
        let mut problems = Vec::new();
        let settings = check::check(file, base, &mut problems);
        if problems.is_empty() {
            Ok(settings)
        } else {
            Err(problems)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::check::parse_size;
    use super::*;

    const HASH: &str = "$argon2id$v=19$m=16,t=2,p=1$c29tZXNhbHQ$1q2w3e4r5t6y7u8i9o0pAA";

    #[test]
    fn every_mistake_is_told_with_its_place() {
        let text = format!(
            r#"
            hostname = "mail.example.org"
            data = "data"
            max_message = "much"
            postmaster = "nobody@example.org"
            [listen]
            imap = ["localhost"]
            pop3 = ["127.0.0.1:110"]
            imaps = ["127.0.0.1:993"]
            [[domain]]
            name = "example.org"
            [[domain]]
            name = "example.com"
            same_as = "example.net"
            [[account]]
            address = "anna@example.org"
            password = "secret"
            quota = "lots"
            [[account]]
            address = "bob@elsewhere.org"
            password = "{HASH}"
            [[alias]]
            address = "a@example.org"
            to = ["b@example.org"]
            [[alias]]
            address = "b@example.org"
            to = ["a@example.org", "c@elsewhere.net"]
            [relay]
            host = "smtp.example.net"
            user = "u"
            "#
        );
        let problems = Settings::parse(&text, Path::new("/base")).unwrap_err();
        for part in [
            "max_message",
            "postmaster",
            "\"localhost\"",
            "pop3",
            "imaps: needs [tls]",
            "example.net; add it",
            "anna@example.org: password",
            "quota",
            "no [[domain]] with the name elsewhere.org",
            "leads back",
            "both user and password_file",
        ] {
            assert!(
                problems.iter().any(|p| p.contains(part)),
                "{part}: {problems:#?}"
            );
        }
        let wrong_key = Settings::parse(
            "hostname = \"a\"\ndata = \"x\"\nports = 3\n",
            Path::new("/"),
        )
        .unwrap_err();
        assert!(
            wrong_key[0].contains("line 3") && wrong_key[0].contains("ports"),
            "{wrong_key:?}"
        );
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("10K"), Some(10240));
        assert_eq!(parse_size(" 2 G "), Some(2 << 30));
        for wrong in ["", "K", "-1", "1T", "99999999999999999999", "20000000000G"] {
            assert_eq!(parse_size(wrong), None, "{wrong}");
        }
    }
}
