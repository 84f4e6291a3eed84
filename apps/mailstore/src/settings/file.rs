//! The file of settings as it is written, before anything is checked.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::{PlainLogin, RelayTls};

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) hostname: String,
    pub(super) data: PathBuf,
    pub(super) max_message: Option<String>,
    #[serde(default)]
    pub(super) listen: BTreeMap<String, Vec<String>>,
    pub(super) tls: Option<TlsEntry>,
    #[serde(default)]
    pub(super) domain: Vec<DomainEntry>,
    #[serde(default)]
    pub(super) account: Vec<AccountEntry>,
    #[serde(default)]
    pub(super) alias: Vec<AliasEntry>,
    pub(super) postmaster: Option<String>,
    pub(super) master: Option<MasterEntry>,
    pub(super) relay: Option<RelayEntry>,
    pub(super) queue: Option<QueueEntry>,
    pub(super) limits: Option<LimitsEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TlsEntry {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DomainEntry {
    pub(super) name: String,
    pub(super) same_as: Option<String>,
    pub(super) catch_all: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AccountEntry {
    pub(super) address: String,
    pub(super) password: String,
    pub(super) quota: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AliasEntry {
    pub(super) address: String,
    pub(super) to: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MasterEntry {
    pub(super) name: String,
    pub(super) password: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RelayEntry {
    pub(super) host: String,
    pub(super) port: Option<u16>,
    pub(super) tls: Option<RelayTls>,
    pub(super) authorities: Option<PathBuf>,
    pub(super) user: Option<String>,
    pub(super) password_file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct QueueEntry {
    pub(super) retry_seconds: Option<Vec<u64>>,
    pub(super) warn_seconds: Option<u64>,
    pub(super) give_up_seconds: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitsEntry {
    pub(super) connections: Option<usize>,
    pub(super) recipients: Option<usize>,
    pub(super) login_seconds: Option<u64>,
    pub(super) idle_seconds: Option<u64>,
    pub(super) plain_login: Option<PlainLogin>,
}
